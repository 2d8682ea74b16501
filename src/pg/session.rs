//! Facts about this session, its transaction and its server.

use std::path::PathBuf;

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::data;
use crate::pg::layout::EPOCH;

/// Depth of the current (sub)transaction; 1 is the top.
pub fn nest_level() -> u32 {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() as u32 }
}

/// The full id of the top-level transaction; assigns one.
pub fn transaction_id() -> u64 {
    // SAFETY: within a transaction that writes.
    unsafe { pg_sys::GetTopFullTransactionId().value }
}

/// The end of what this transaction last wrote to the WAL: not before the change that is being recorded, and before the commit
/// that lets the next transaction change the same row. Unlike the WAL's own end, it is read without a lock.
///
/// A TRUNCATE is recorded before it is done; but its lock is in the WAL, unless the WAL is for crashes only.
pub fn wal_position() -> u64 {
    // SAFETY: reads this process's state; the WAL's end is shared state, not asked for in recovery, where nothing is written.
    unsafe {
        match pg_sys::XactLastRecEnd {
            0 => pg_sys::GetXLogInsertRecPtr(),
            _ if pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32 => pg_sys::GetXLogInsertRecPtr(),
            written => written,
        }
    }
}

/// The end of the WAL: not before anything that is committed and seen by now.
pub fn wal_end() -> u64 {
    // SAFETY: reads shared state; not called in recovery.
    unsafe { pg_sys::GetXLogInsertRecPtr() }
}

/// Waits until the WAL up to now is on disk: whatever is seen by now, a crash cannot take back. What a standby sees, it has on disk.
pub fn flush_wal() {
    // SAFETY: reads shared and configuration state; waits for the disk, outside of any critical section. The WAL's end is that of its
    // last record, but where a page begins: there it is told as after the page's head, which is not written yet and cannot be waited
    // for. A record never ends within a head.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            return;
        }
        let end = pg_sys::GetXLogInsertRecPtr();
        let (in_page, in_segment) = (end % u64::from(pg_sys::XLOG_BLCKSZ), end % pg_sys::wal_segment_size as u64);
        let (long, short) = (size_of::<pg_sys::XLogLongPageHeaderData>(), size_of::<pg_sys::XLogPageHeaderData>());
        let head = match in_segment == long as u64 {
            true => long,
            false if in_page == short as u64 => short,
            false => 0,
        };
        pg_sys::XLogFlush(end - head as u64);
    }
}

/// Waits until the standbys that commits wait for have on disk what is on disk here. False if they have not: somebody cancelled the
/// wait, after which PostgreSQL goes on as if they had.
///
/// synchronous_commit must be on, or remote_apply.
pub fn standbys_have_what_is_here() -> bool {
    // SAFETY: reads settings and shared state, each value in one piece. While it waits, interrupts must be held, as at a commit; it
    // looks after them itself.
    unsafe {
        let names = data::string(pg_sys::SyncRepStandbyNames).unwrap_or_default();
        if names.is_empty() || pg_sys::max_wal_senders == 0 {
            return true;
        }
        let flushed = pg_sys::GetFlushRecPtr(std::ptr::null_mut());
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::SyncRepWaitForLSN(flushed, true);
        pg_sys::InterruptHoldoffCount -= 1;
        let confirmed = &raw const (*pg_sys::WalSndCtl).lsn[pg_sys::SYNC_REP_WAIT_FLUSH as usize];
        flushed <= confirmed.read_volatile()
    }
}

/// Whether each command of this transaction sees what others have committed until then.
pub fn reads_committed() -> bool {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::XactIsoLevel <= pg_sys::XACT_READ_COMMITTED as i32 }
}

/// Reads with a snapshot of now, where each command may have one of its own (`reads_committed`).
pub fn with_new_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: within a transaction. Popped only if all went well: after an error, PostgreSQL's abort lets go of it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let outcome = work()?;
    // SAFETY: pushed above, and what `work` pushed is popped.
    unsafe { pg_sys::PopActiveSnapshot() };
    Ok(outcome)
}

/// Does `work` with one snapshot of now, which sees what this transaction did so far: every query that changes nothing, and every
/// table that is read in it (`row::Open`), shows the same state.
pub fn at_one_moment<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: within a transaction. Pushing copies the snapshot; popped as in `with_new_snapshot`.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
    }
    let outcome = work()?;
    // SAFETY: pushed above, and what `work` pushed is popped.
    unsafe { pg_sys::PopActiveSnapshot() };
    Ok(outcome)
}

/// Whether this transaction has written anything.
pub fn has_written() -> bool {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// The id that the next transaction will get.
pub fn next_transaction_id() -> u64 {
    // SAFETY: reads shared state.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// The oldest transaction that is running or prepared; the next one, if there is none.
pub fn oldest_transaction_id() -> u64 {
    // SAFETY: within a transaction and not in a parallel one; the snapshot is read before another is taken.
    let oldest = unsafe { (*pg_sys::GetLatestSnapshot()).xmin }.into_inner();
    let next = next_transaction_id();
    // It is less than 2^31 behind.
    next - u64::from((next as u32).wrapping_sub(oldest))
}

/// This process's id.
pub fn process_id() -> i32 {
    // SAFETY: set once, when the process began.
    unsafe { pg_sys::MyProcPid }
}

/// The wall clock, in microseconds since 1970.
pub fn now() -> i64 {
    // SAFETY: no arguments, no state.
    unsafe { pg_sys::GetCurrentTimestamp() + EPOCH }
}

/// When the current statement began, in seconds since 1970.
pub fn statement_started() -> i64 {
    // SAFETY: reads transaction state.
    unsafe { (pg_sys::GetCurrentStatementStartTimestamp() + EPOCH).div_euclid(1_000_000) }
}

/// The role that logged in, or that SET SESSION AUTHORIZATION put in its place.
pub fn session_role() -> pg_sys::Oid {
    // SAFETY: reads session state.
    unsafe { pg_sys::GetSessionUserId() }
}

/// The role whose privileges count now.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: reads session state.
    unsafe { pg_sys::GetUserId() }
}

/// A role's name.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; a dropped role gives null.
    unsafe { data::string(pg_sys::GetUserNameFromId(role, true)) }.unwrap_or_else(|| format!("oid {}", role.to_u32()))
}

/// Whether a role is another, or a member of it, superusers not counted as members of everything.
pub fn is_member(role: pg_sys::Oid, group: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::is_member_of_role_nosuper(role, group) }
}

/// Whether row-level security does not bind a role, and why.
pub fn why_unbound(role: pg_sys::Oid) -> Option<&'static str> {
    // SAFETY: catalog look-ups.
    unsafe {
        if pg_sys::superuser_arg(role) {
            Some("is a superuser")
        } else if pg_sys::has_bypassrls_privilege(role) {
            Some("has BYPASSRLS")
        } else {
            None
        }
    }
}

/// The application_name.
pub fn application_name() -> Option<String> {
    // SAFETY: a setting's value, a terminated string or null.
    unsafe { data::string(pg_sys::application_name) }.filter(|name| !name.is_empty())
}

/// What tells this copy of the database from others: system identifier, timeline, database oid.
pub type Instance = (i64, i32, pg_sys::Oid);

/// Which cluster this is, and whatever was copied from its disk.
pub fn system_identifier() -> i64 {
    // SAFETY: reads shared state, set when the server started.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// Which copy of the database this is.
pub fn instance() -> Instance {
    // SAFETY: reads shared and session state; not called in recovery.
    unsafe { (system_identifier(), pg_sys::GetWALInsertionTimeLine() as i32, pg_sys::MyDatabaseId) }
}

/// Whether every session has the library from its beginning, by the server's settings.
pub fn preloaded() -> bool {
    // SAFETY: values of settings, terminated strings or null.
    let lists = unsafe {
        [pg_sys::shared_preload_libraries_string, pg_sys::session_preload_libraries_string].map(|l| data::string(l))
    };
    let is_ours = |name: &str| name.trim().trim_matches('"').rsplit('/').next() == Some("pg_custody");
    lists.into_iter().flatten().any(|list| list.split(',').any(is_ours))
}

/// The data directory.
pub fn data_directory() -> PathBuf {
    // SAFETY: set once, before any session.
    unsafe { data::string(pg_sys::DataDir) }.unwrap_or_default().into()
}

/// Takes in what other sessions have changed in the catalogs so far.
pub fn accept_invalidations() {
    // SAFETY: within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Tells every session that something about a table changed, once this transaction is committed.
pub fn invalidate(relid: pg_sys::Oid) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relid) };
}

/// Whether a write is impossible now, so that nothing may be flushed: a parallel query is running.
pub fn in_parallel_mode() -> bool {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Whether this process works for another's query.
pub fn is_parallel_worker() -> bool {
    // SAFETY: set once, when the process began.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Whether nothing can be written, as this server follows another.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether this transaction was declared as one that only reads.
pub fn is_read_only() -> bool {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether this is a transaction block, or only one statement.
pub fn in_transaction_block() -> bool {
    // SAFETY: reads transaction state.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Whether row-level security applies to the current role on a table.
pub fn row_security_active(relid: pg_sys::Oid) -> bool {
    row_security_active_for(relid, pg_sys::InvalidOid)
}

/// Whether row-level security applies to a role on a table.
pub fn row_security_active_for(relid: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up; an InvalidOid role means the current one.
    unsafe { pg_sys::check_enable_rls(relid, role, true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 }
}

/// Whether row-level security is on for a table, and forced on its owner.
pub fn row_security_forced(relid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relid));
        if tuple.is_null() {
            return false;
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let forced = (*class).relrowsecurity && (*class).relforcerowsecurity;
        pg_sys::ReleaseSysCache(tuple);
        forced
    }
}

/// Whether this process is connected to a database and in a transaction, so that catalogs can be read.
pub fn has_database() -> bool {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::MyDatabaseId != pg_sys::InvalidOid && pg_sys::IsTransactionState() }
}

/// Makes what was done so far visible to what follows in this transaction.
pub fn next_command() {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Tells the client something on the way.
pub fn notice(text: &str) {
    pgrx::notice!("{text}");
}

/// Warns the client and, as the server is set by default, its log.
pub fn warning(text: &str) {
    pgrx::warning!("{text}");
}

/// Raises a pending query cancel or termination.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Runs `work` as the extension's owner. Used for nothing but statements that this crate wrote, with every name qualified.
pub fn as_owner<T>(work: impl FnOnce() -> T) -> T {
    let _guard = Owner::enter();
    work()
}

struct Owner {
    role: pg_sys::Oid,
    context: i32,
}

impl Owner {
    fn enter() -> Self {
        let entry = crate::pg::scan::our_table("entry");
        let (mut role, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: the relation is open while its owner is read.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut role, &mut context);
            if let Some(entry) = entry {
                let relation = pg_sys::table_open(entry, pg_sys::AccessShareLock as i32);
                let owner = (*(*relation).rd_rel).relowner;
                pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
                pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            }
        }
        Self { role, context }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: restores what was. (After an error, PostgreSQL's abort restores it as well.)
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) };
    }
}

/// The qualified, quoted name of a relation.
pub fn relation_name(relid: pg_sys::Oid) -> String {
    // SAFETY: catalog look-ups; null for a relation that is gone.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        if name.is_null() {
            return format!("relation {}", relid.to_u32());
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        data::string(pg_sys::quote_qualified_identifier(schema, name)).unwrap_or_default()
    }
}

/// A relation's schema and name, unquoted.
pub fn relation_names(relid: pg_sys::Oid) -> Option<(String, String)> {
    // SAFETY: catalog look-ups; null for a relation that is gone.
    unsafe {
        let name = data::string(pg_sys::get_rel_name(relid))?;
        let schema = data::string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid)))?;
        Some((schema, name))
    }
}

/// Takes the text of the running statement out of pg_stat_activity and, should it fail, out of the server log.
pub fn hide_statement() {
    const HIDDEN: &std::ffi::CStr = c"SELECT custody.authenticate(<hidden>)";
    // SAFETY: a static string in place of the client's, which PostgreSQL replaces at the next statement.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, HIDDEN.as_ptr());
        pg_sys::debug_query_string = HIDDEN.as_ptr();
    }
}
