//! Attempts: statements run as another role, in a subtransaction that leaves nothing behind, whose errors are caught and told.

use std::any::Any;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::{data, guard, session};

/// An error of PostgreSQL's that an attempt ended in.
#[derive(Debug, Clone)]
pub struct Caught {
    pub sqlstate: String,
    pub message: String,
}

/// What a statement gave: how many rows it processed, and those it returned, as text.
#[derive(Debug, Default)]
pub struct Answer {
    pub processed: u64,
    pub rows: Vec<Vec<Option<String>>>,
}

/// Runs `work` in a subtransaction, which is rolled back whatever comes of it. An error of PostgreSQL's is given, not raised.
pub fn rolled_back<T>(work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    subtransaction(false, work)
}

/// The same, keeping what `work` did if it succeeded.
pub fn kept<T>(work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    subtransaction(true, work)
}

fn subtransaction<T>(keep: bool, work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    // SAFETY: what PL/pgSQL does for an EXCEPTION block, in the same order. pgrx has turned the error into a panic and put its
    // state in order by the time it is caught here; roles, settings, snapshots and SPI connections go with the abort.
    let outcome = unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = memory;
        let outcome = catch_unwind(AssertUnwindSafe(work));
        match &outcome {
            Ok(Ok(_)) if keep => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::CurrentMemoryContext = memory;
        pg_sys::CurrentResourceOwner = owner;
        outcome
    };
    match outcome {
        Ok(done) => done.map(Ok),
        Err(payload) => match caught(&*payload) {
            Some(caught) if !ends_everything(&caught.sqlstate) => Ok(Err(caught)),
            _ => resume_unwind(payload),
        },
    }
}

/// A cancelled or terminated session, and a server out of resources, are nobody's outcome.
fn ends_everything(sqlstate: &str) -> bool {
    sqlstate.starts_with("57") || sqlstate.starts_with("53") || sqlstate.starts_with("58")
}

fn caught(payload: &(dyn Any + Send)) -> Option<Caught> {
    if let Some(report) = guard::ours(payload) {
        return Some(Caught { sqlstate: report.sqlstate.into(), message: report.message });
    }
    match payload.downcast_ref::<CaughtError>()? {
        CaughtError::PostgresError(e) | CaughtError::ErrorReport(e) => {
            let code = e.sql_error_code() as i32;
            let sqlstate = (0..5).map(|i| (((code >> (6 * i)) & 0x3f) as u8 + b'0') as char).collect();
            Some(Caught { sqlstate, message: e.message().to_owned() })
        }
        CaughtError::RustPanic { .. } => None,
    }
}

/// Runs `work` as a role, which cannot leave that role again nor leave anything behind in the session.
pub fn as_role<T>(role: Oid, work: impl FnOnce() -> T) -> T {
    struct Back(Oid, c_int);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: restores what was.
            unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
        }
    }
    let (mut before, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads and sets session state, as ANALYZE and REINDEX do before they run a table owner's functions.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut before, &mut context);
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        pg_sys::SetUserIdAndSecContext(role, context | restricted as c_int);
    }
    let _back = Back(before, context);
    work()
}

/// Runs one statement, seeing all that was done before it; at most `limit` rows of it, 0 for all. Within a subtransaction.
pub fn run(sql: &str, limit: i64) -> Result<Answer> {
    let sql = data::c_string(sql);
    // SAFETY: SPI is connected and finished around the call; after an error the subtransaction's abort disconnects it. The
    // tuple table is valid until then, and what it gives is copied.
    unsafe {
        let failed = |code: c_int| {
            let words = data::string(pg_sys::SPI_result_code_string(code)).unwrap_or_default();
            Error::internal(format!("SPI: {words}"))
        };
        match pg_sys::SPI_connect() {
            code if code < 0 => return Err(failed(code)),
            _ => {}
        }
        let code = pg_sys::SPI_execute(sql.as_ptr(), false, limit as std::ffi::c_long);
        if code < 0 {
            pg_sys::SPI_finish();
            return Err(failed(code));
        }
        let mut answer = Answer { processed: pg_sys::SPI_processed, rows: Vec::new() };
        let table = pg_sys::SPI_tuptable;
        if !table.is_null() {
            let width = (*(*table).tupdesc).natts;
            for n in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(n);
                let value = |i| data::string(pg_sys::SPI_getvalue(tuple, (*table).tupdesc, i));
                answer.rows.push((1..=width).map(value).collect());
            }
        }
        pg_sys::SPI_finish();
        Ok(answer)
    }
}

/// Runs `COPY … TO STDOUT` for its own sake: the rows go nowhere. Gives how many there were. Within a subtransaction.
pub fn copy_out(sql: &str) -> Result<u64> {
    let text = data::c_string(sql);
    let length = text.as_bytes().len() as c_int;
    let _nowhere = Nowhere::enter();
    // SAFETY: a statement of ours is parsed and handed to PostgreSQL as its own main loop does, hooks included, with a snapshot
    // that sees what was done before. After an error the subtransaction's abort drops the snapshot.
    unsafe {
        let parsed = pg_sys::pg_parse_query(text.as_ptr());
        let raw = (*(*parsed).elements).ptr_value.cast::<pg_sys::RawStmt>();
        let statement = pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
        (*statement).type_ = pg_sys::NodeTag::T_PlannedStmt;
        (*statement).commandType = pg_sys::CmdType::CMD_UTILITY;
        (*statement).canSetTag = true;
        (*statement).utilityStmt = (*raw).stmt;
        (*statement).stmt_len = length;
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let mut completion = pg_sys::QueryCompletion { commandTag: pg_sys::CommandTag::CMDTAG_UNKNOWN, nprocessed: 0 };
        pg_sys::ProcessUtility(
            statement,
            text.as_ptr(),
            false,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
            &mut completion,
        );
        pg_sys::PopActiveSnapshot();
        Ok(completion.nprocessed)
    }
}

/// libpq/libpq.h: how this process speaks to its client.
#[repr(C)]
struct Methods {
    comm_reset: unsafe extern "C-unwind" fn(),
    flush: unsafe extern "C-unwind" fn() -> c_int,
    flush_if_writable: unsafe extern "C-unwind" fn() -> c_int,
    is_send_pending: unsafe extern "C-unwind" fn() -> bool,
    putmessage: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    putmessage_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

unsafe extern "C" {
    static mut PqCommMethods: *const Methods;
}

unsafe extern "C-unwind" fn nothing() {}
unsafe extern "C-unwind" fn sent() -> c_int {
    0
}
unsafe extern "C-unwind" fn none_pending() -> bool {
    false
}
unsafe extern "C-unwind" fn swallow(_: c_char, _: *const c_char, _: usize) -> c_int {
    0
}
unsafe extern "C-unwind" fn swallow_noblock(_: c_char, _: *const c_char, _: usize) {}

static NOWHERE: Methods = Methods {
    comm_reset: nothing,
    flush: sent,
    flush_if_writable: sent,
    is_send_pending: none_pending,
    putmessage: swallow,
    putmessage_noblock: swallow_noblock,
};

/// While this lives, what would go to the client goes nowhere.
struct Nowhere(*const Methods, pg_sys::CommandDest::Type);

impl Nowhere {
    fn enter() -> Self {
        // SAFETY: a pointer to static methods takes the place of the client's, as in a parallel worker; Drop puts it back.
        unsafe {
            let before = Self(PqCommMethods, pg_sys::whereToSendOutput);
            PqCommMethods = &raw const NOWHERE;
            pg_sys::whereToSendOutput = pg_sys::CommandDest::DestRemote;
            before
        }
    }
}

impl Drop for Nowhere {
    fn drop(&mut self) {
        // SAFETY: restores what was.
        unsafe {
            PqCommMethods = self.0;
            pg_sys::whereToSendOutput = self.1;
        }
    }
}

/// Sets a setting until the end of the subtransaction; with `privileged`, also those that only superusers may set.
pub fn set_local(name: &str, value: &str, privileged: bool) {
    let (name, value) = (data::c_string(name), data::c_string(value));
    let context = match privileged {
        true => pg_sys::GucContext::PGC_SUSET,
        false => pg_sys::GucContext::PGC_USERSET,
    };
    // SAFETY: terminated strings, which are copied; GUC_ACTION_LOCAL ends it with the subtransaction.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            pgrx::PgLogLevel::ERROR as c_int,
            false,
        );
    }
}

/// Why nothing can be written now.
pub fn why_read_only() -> Option<&'static str> {
    // SAFETY: reads shared and transaction state.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            Some("this server is a standby")
        } else if pg_sys::XactReadOnly {
            Some("this transaction is read-only")
        } else if session::in_parallel_mode() {
            Some("a parallel query is running")
        } else {
            None
        }
    }
}
