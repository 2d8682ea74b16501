//! A hook: a token that set the context is looked at again whenever rows are asked of a query, for the first time or further ones.
//!
//! The functions that policies call would not be enough: an index scan calls them once, and a cursor goes on from there.

use pgrx::pg_sys;

use crate::pg::guard::guard;
use crate::pg::session;
use crate::tenant::context;

static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;

/// Installs the hook before those already there.
pub fn install() {
    // SAFETY: called once, from _PG_init, in a process with one thread.
    unsafe {
        PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

/// # Safety
/// To be called with the query that PostgreSQL passed to the hook.
unsafe fn look(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the caller promises it; the guard is the whole body, with nothing to drop outside it.
    unsafe {
        if !context::is_by_token() {
            return;
        }
        guard(|| context::used(|| is_restricted((*query).plannedstmt)));
    }
}

/// Whether row-level security applies to a table of the plan. Asked only of queries under a token that holds no more.
///
/// # Safety
/// The plan must be valid, or null.
unsafe fn is_restricted(plan: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller promises it; its list of relations is one of oids, views' tables included.
    unsafe {
        let relations = if plan.is_null() { std::ptr::null_mut() } else { (*plan).relationOids };
        let count = if relations.is_null() { 0 } else { (*relations).length };
        (0..count as usize).any(|n| session::row_security_active((*(*relations).elements.add(n)).oid_value))
    }
}

unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    unsafe extern "C-unwind" {
        #[link_name = "standard_ExecutorRun"]
        fn standard(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64, once: bool);
    }
    // SAFETY: PostgreSQL passes a valid query; the hook before ours, or the standard one, is called exactly once, without pgrx's
    // guard: an error goes straight through this frame, which owns nothing.
    unsafe {
        look(query);
        match PREVIOUS_RUN {
            Some(previous) => previous(query, direction, count, once),
            None => standard(query, direction, count, once),
        }
    }
}
