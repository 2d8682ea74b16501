//! Being told when transactions and savepoints end, and when a table's definition changes.

use std::ffi::c_void;

use pgrx::pg_sys;

use crate::audit::transaction;
use crate::pg::guard::guard;
use crate::pg::{append, scan, session};
use crate::tenant::context;

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
                SUBXACT_EVENT_COMMIT_SUB => transaction::savepoint_released(session::nest_level()),
                SUBXACT_EVENT_ABORT_SUB => transaction::savepoint_rolled_back(session::nest_level()),
                _ => {}
            }
            Ok(())
        });
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relid: pg_sys::Oid) {
    // Only notes it: nothing may be looked up here.
    if !crate::settings::sabotaged("stale_shape") {
        crate::audit::table::forget(relid.to_u32());
    }
    crate::audit::incarnation::forget();
    context::bindings_changed();
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
