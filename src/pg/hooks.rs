//! Hooks: whoever reads the log inside a transaction sees what that transaction has done so far; and nothing that was read under
//! a context outlives it on the connection.

use std::ffi::c_char;

use pgrx::pg_sys;

use crate::audit::transaction;
use crate::error::Error;
use crate::pg::commands::{self, Command};
use crate::pg::guard::guard;
use crate::pg::{leftover, merge, scan, session};
use crate::tenant::context;

static mut PREVIOUS_EXECUTOR_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hooks before those already there.
pub fn install() {
    // SAFETY: called once, from _PG_init, in a process with one thread.
    unsafe {
        PREVIOUS_EXECUTOR_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start);
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: PostgreSQL passes a valid query; the hook before ours, or the standard one, is called exactly once.
    unsafe {
        guard(|| {
            merge::refuse_blind(query)?;
            if transaction::has_unwritten() && !session::in_parallel_mode() && may_read_log(query) {
                transaction::flush()?;
                see_what_was_flushed(query);
            }
            Ok(())
        });
        match PREVIOUS_EXECUTOR_START {
            Some(previous) => previous(query, flags),
            None => standard_executor_start(query, flags),
        }
    }
}

unsafe fn standard_executor_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    unsafe extern "C-unwind" {
        #[link_name = "standard_ExecutorStart"]
        fn start(query: *mut pg_sys::QueryDesc, flags: i32);
    }
    // SAFETY: called as PostgreSQL would, without pgrx's guard: an error goes straight through this frame, which owns nothing.
    unsafe { start(query, flags) };
}

/// Whether a plan names the log, or runs in parallel: then nothing can be written any more should a function in it read the log.
unsafe fn may_read_log(query: *mut pg_sys::QueryDesc) -> bool {
    let Some(log) = scan::log_table() else { return false };
    // SAFETY: the caller passes a valid query; its plan lists the relations it names, views' included.
    unsafe {
        let plan = (*query).plannedstmt;
        !plan.is_null() && ((*plan).parallelModeNeeded || pg_sys::list_member_oid((*plan).relationOids, log))
    }
}

/// Gives the query a snapshot that sees the command just ended.
unsafe fn see_what_was_flushed(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the query holds a registered snapshot of its own; the new one is registered under the same owner in its place.
    unsafe {
        let before = (*query).snapshot;
        if before.is_null() || before == &raw mut pg_sys::SnapshotAnyData {
            return;
        }
        pg_sys::PushCopiedSnapshot(before);
        pg_sys::UpdateActiveSnapshotCommandId();
        (*query).snapshot = pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot());
        pg_sys::PopActiveSnapshot();
        pg_sys::UnregisterSnapshot(before);
    }
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    unsafe extern "C-unwind" {
        #[link_name = "standard_ProcessUtility"]
        fn standard(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
    // SAFETY: PostgreSQL passes a valid statement; the next hook or the standard function is called exactly once, with nothing
    // of this frame to drop. The pushed snapshot is popped after it, and by PostgreSQL's abort after an error.
    unsafe {
        let judged = guard(|| {
            let command = commands::look((*statement).utilityStmt);
            crate::guard::before_statement(&command)?;
            Ok(matches!(command, Command::Judged))
        });
        let pushed = guard(|| {
            if let Some(what) = leftover::refused((*statement).utilityStmt, context::was_set()) {
                return Err(Error::OutlivesContext { what });
            }
            // COPY of a table scans it without the executor.
            let copies =
                !(*statement).utilityStmt.is_null() && (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_CopyStmt;
            if !copies || !transaction::has_unwritten() || session::in_parallel_mode() {
                return Ok(false);
            }
            transaction::flush()?;
            let pushed = pg_sys::ActiveSnapshotSet();
            if pushed {
                pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
                pg_sys::UpdateActiveSnapshotCommandId();
            }
            Ok(pushed)
        });
        let next = match PREVIOUS_UTILITY {
            Some(previous) => previous,
            None => standard,
        };
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
        if pushed {
            guard(|| {
                pg_sys::PopActiveSnapshot();
                Ok(())
            });
        }
        if judged {
            guard(crate::guard::after_statement);
        }
    }
}
