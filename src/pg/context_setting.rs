//! The setting that holds the context, so that savepoints restore it and parallel workers see it, and that nobody but us can set.

use std::cell::Cell;
use std::ffi::{c_char, c_void};

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::data;
use crate::pg::guard::sqlstate;
use crate::tenant::context;

static mut CONTEXT: *mut c_char = std::ptr::null_mut();
static mut REQUEST_ID: *mut c_char = std::ptr::null_mut();

thread_local! {
    /// Whether it is this module that is setting the context.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Defines `custody.context` and `custody.request_id`, and reserves the prefix.
pub fn define() {
    // SAFETY: called once, from _PG_init; names, values and hooks are static.
    unsafe {
        let hidden = pg_sys::GUC_NO_SHOW_ALL
            | pg_sys::GUC_NO_RESET_ALL
            | pg_sys::GUC_NOT_IN_SAMPLE
            | pg_sys::GUC_DISALLOW_IN_FILE
            | pg_sys::GUC_DISALLOW_IN_AUTO_FILE;
        pg_sys::DefineCustomStringVariable(
            c"custody.context".as_ptr(),
            c"The context of this transaction. Only pg_custody sets it.".as_ptr(),
            c"Use custody.authenticate, custody.assume_tenant or custody.bind_role.".as_ptr(),
            &raw mut CONTEXT,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            hidden as i32,
            Some(check),
            Some(assign),
            None,
        );
        pg_sys::DefineCustomStringVariable(
            c"custody.request_id".as_ptr(),
            c"An id of the application's for what it is doing; each entry's actor part carries it.".as_ptr(),
            std::ptr::null(),
            &raw mut REQUEST_ID,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            0,
            None,
            None,
            None,
        );
        pg_sys::MarkGUCPrefixReserved(c"custody".as_ptr());
    }
}

/// The application's request id, if it gave one.
pub fn request_id() -> Option<String> {
    // SAFETY: a setting's value, a terminated string or null.
    unsafe { data::string(REQUEST_ID) }.filter(|id| !id.is_empty())
}

/// Sets the context for the rest of the transaction.
pub fn set(value: &str) {
    let value = data::c_string(value);
    let _ours = Ours::enter();
    // SAFETY: a setting of ours, with a terminated value that is copied. GUC_ACTION_LOCAL ends it with the transaction.
    unsafe {
        pg_sys::set_config_option(
            c"custody.context".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            pgrx::PgLogLevel::ERROR as i32,
            false,
        );
    }
}

struct Ours;

impl Ours {
    fn enter() -> Self {
        OURS.set(true);
        Self
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.set(false);
    }
}

/// Accepts nothing but no context, our own setting of one, and a parallel worker being given its leader's.
///
/// PGC_SUSET alone would let pass GRANT SET ON PARAMETER, ALTER ROLE … SET, and a superuser's definer functions.
unsafe extern "C-unwind" fn check(value: *mut *mut c_char, _: *mut *mut c_void, _: pg_sys::GucSource::Type) -> bool {
    // SAFETY: PostgreSQL passes the address of a value, which is null or a terminated string. The error's parts are copied to
    // the context that PostgreSQL reads them from.
    unsafe {
        let empty = (*value).is_null() || **value == 0;
        if empty || OURS.get() || pg_sys::InitializingParallelWorker {
            return true;
        }
        let report = Error::ReservedSetting.report();
        GUC_check_errcode(sqlstate(report.sqlstate));
        let outer = pg_sys::MemoryContextSwitchTo(pg_sys::ErrorContext);
        pg_sys::GUC_check_errmsg_string = pg_sys::pstrdup(data::c_string(&report.message).as_ptr());
        pg_sys::GUC_check_errdetail_string =
            report.detail.map_or(std::ptr::null_mut(), |d| pg_sys::pstrdup(data::c_string(&d).as_ptr()));
        pg_sys::GUC_check_errhint_string =
            report.hint.map_or(std::ptr::null_mut(), |h| pg_sys::pstrdup(data::c_string(&h).as_ptr()));
        pg_sys::MemoryContextSwitchTo(outer);
        false
    }
}

unsafe extern "C-unwind" {
    fn GUC_check_errcode(sqlerrcode: i32);
}

unsafe extern "C-unwind" fn assign(value: *const c_char, _: *mut c_void) {
    // SAFETY: a terminated string or null. `context::assigned` neither fails nor calls PostgreSQL.
    context::assigned(unsafe { data::string(value) }.as_deref().unwrap_or_default());
}
