//! What tells the guard of TRUNCATE, of changed definitions and of transactions that end; and how the library was loaded.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use pgrx::pg_sys;

use crate::guard::{before_truncate, judge, mode, protected};
use crate::pg::data;
use crate::pg::guard::guard;

static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;
static mut PRELOADED: bool = false;

thread_local! {
    /// Grows with every change of some relation's definition.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Installs the hook before the one already there, and the callbacks. After xact::register: callbacks run last first, and what is
/// judged may still be recorded.
pub fn install() {
    // SAFETY: called once, from _PG_init, in a process with one thread; the callbacks are static functions that never unwind into C.
    unsafe {
        PRELOADED = pg_sys::process_shared_preload_libraries_in_progress;
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
    }
}

/// Whether the library is loaded before a session's first statement.
pub fn preloaded() -> bool {
    // SAFETY: set once; the setting is a terminated string or null.
    unsafe {
        PRELOADED || data::string(pg_sys::session_preload_libraries_string).is_some_and(|l| l.contains("pg_custody"))
    }
}

/// How often some relation's definition changed, as far as this session has heard.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// Whether a script of our own extension is running.
pub fn in_own_script() -> bool {
    // SAFETY: state of this process; a catalog look-up.
    unsafe {
        pg_sys::creating_extension
            && pg_sys::CurrentExtensionObject == pg_sys::get_extension_oid(c"pg_custody".as_ptr(), true)
    }
}

unsafe extern "C-unwind" fn access(
    event: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: what PostgreSQL passed goes to the hook before ours as it came.
    unsafe {
        if let Some(previous) = PREVIOUS_ACCESS {
            previous(event, class, object, part, argument);
        }
        if event == pg_sys::ObjectAccessType::OAT_TRUNCATE {
            guard(|| before_truncate(object));
        }
    }
}

unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    // SAFETY: a flag of this process; the guard is the rest of the body. A process on its way out did not unwind.
    unsafe {
        if pg_sys::proc_exit_inprogress {
            return;
        }
        guard(|| match event {
            XACT_EVENT_PRE_COMMIT => judge::before_end(false),
            XACT_EVENT_PRE_PREPARE => judge::before_end(true),
            XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
                judge::ended();
                Ok(())
            }
            _ => Ok(()),
        });
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relid: pg_sys::Oid) {
    // Only notes it: nothing may be looked up here.
    CHANGES.set(CHANGES.get() + 1);
    protected::forget(relid.to_u32());
    mode::forget();
}
