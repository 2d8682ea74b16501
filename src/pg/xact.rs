//! Being told when transactions and savepoints end, and when a table's definition changes.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;

use crate::audit::transaction;
use crate::pg::guard::guard;
use crate::pg::{append, scan, session};
use crate::tenant::{context, token};

/// Registers the callbacks, once for the life of the process.
pub fn register() {
    // SAFETY: the callbacks are static functions that never unwind into C.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint_event), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(schema_changed), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            Some(role_changed),
            pg_sys::Datum::from(0),
        );
    }
}

/// Whether the process is on its way out: a FATAL error ends it without unwinding, so what Rust had borrowed stays borrowed.
/// Nothing of ours outlives the process, and the abort must not be kept from releasing PostgreSQL's own locks.
fn exiting() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::proc_exit_inprogress }
}

unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    if exiting() {
        return;
    }
    // SAFETY: the guard is the whole body.
    unsafe {
        guard(|| {
            match event {
                XACT_EVENT_PRE_COMMIT => transaction::before_end()?,
                XACT_EVENT_PRE_PREPARE => transaction::before_prepare()?,
                XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
                    transaction::ended();
                    context::transaction_ended();
                    STATEMENT_TRIGGER_FIRED.set(false);
                    crate::audit::key::transaction_ended(event != XACT_EVENT_ABORT);
                }
                _ => {}
            }
            Ok(())
        });
    }
}

unsafe extern "C-unwind" fn savepoint_event(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    if exiting() {
        return;
    }
    // SAFETY: the guard is the whole body.
    unsafe {
        guard(|| {
            match event {
                SUBXACT_EVENT_PRE_COMMIT_SUB => transaction::before_release()?,
                SUBXACT_EVENT_COMMIT_SUB => {
                    transaction::savepoint_released(session::nest_level());
                    give_memory_back();
                }
                SUBXACT_EVENT_ABORT_SUB => transaction::savepoint_rolled_back(session::nest_level()),
                _ => {}
            }
            Ok(())
        });
    }
}

thread_local! {
    /// Whether a statement trigger of ours fired in this transaction.
    static STATEMENT_TRIGGER_FIRED: Cell<bool> = const { Cell::new(false) };
    /// What a memory context without a chunk in it counts as used.
    static EMPTY: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A statement trigger of ours fired.
pub fn statement_trigger_fired() {
    STATEMENT_TRIGGER_FIRED.set(true);
}

/// Empties the memory of a savepoint that is being released, if nothing is left in it.
///
/// PostgreSQL notes in it which statement triggers have fired, frees the note with the statement, but keeps a context that was ever
/// used, 8 kB of it, until the transaction ends. Having such a trigger on every protected table, we take that into account.
fn give_memory_back() {
    if !STATEMENT_TRIGGER_FIRED.get() {
        return;
    }
    // SAFETY: the savepoint's own context, which PostgreSQL deletes next if it was never used. It has no children, no callbacks
    // and, as its counters say, no chunk that was not freed, so that nobody can hold a pointer into it.
    unsafe {
        let context = pg_sys::CurTransactionContext;
        if (*context).isReset || !(*context).firstchild.is_null() || !(*context).reset_cbs.is_null() {
            return;
        }
        if EMPTY.get().is_none() {
            let fresh = pg_sys::AllocSetContextCreateInternal(
                context,
                c"custody empty".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            EMPTY.set(Some(used(fresh)));
            pg_sys::MemoryContextDelete(fresh);
        }
        if EMPTY.get() == Some(used(context)) {
            pg_sys::MemoryContextReset(context);
        }
    }
}

/// Bytes of a memory context that are not free.
unsafe fn used(context: pg_sys::MemoryContext) -> usize {
    let mut found = pg_sys::MemoryContextCounters::default();
    // SAFETY: the caller passes a valid context; every kind of context has this method, which only counts.
    unsafe {
        if let Some(count) = (*(*context).methods).stats {
            count(context, None, std::ptr::null_mut(), &mut found, false);
        }
    }
    found.totalspace.wrapping_sub(found.freespace)
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relid: pg_sys::Oid) {
    // Only notes it: nothing may be looked up here.
    if !crate::settings::sabotaged("stale_shape") {
        crate::audit::table::forget(relid.to_u32());
    }
    crate::audit::incarnation::forget();
    context::bindings_changed();
    token::changed(relid.to_u32());
    append::forget();
    scan::forget();
}

unsafe extern "C-unwind" fn schema_changed(_: pg_sys::Datum, _: i32, _: u32) {
    crate::audit::table::names_changed();
    scan::forget();
}

unsafe extern "C-unwind" fn role_changed(_: pg_sys::Datum, _: i32, _: u32) {
    transaction::role_names_changed();
}
