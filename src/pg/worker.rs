//! With the library preloaded: a launcher, which starts a short-lived worker in each database whenever a checkpoint is due, and another when
//! verification is. A worker that fails says so in the server's log, and the next one tries again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker, SignalWakeFlags,
};
use pgrx::{IntoDatum, PgLogLevel, Spi, ereport, pg_sys};

use crate::pg::scan;
use crate::settings;

/// How often the launcher looks up, even if no checkpoints are made.
const AT_LEAST: Duration = Duration::from_secs(60);

/// Registers the launcher, if the postmaster is loading the library.
pub fn register() {
    // SAFETY: a flag of this process.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    BackgroundWorkerBuilder::new("pg_custody launcher")
        .set_type("pg_custody launcher")
        .set_library("pg_custody")
        .set_function("custody_launcher_main")
        .enable_spi_access()
        // A standby has nothing to write. When it is promoted, it starts.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(10)))
        .load();
}

/// # Safety
/// Called by PostgreSQL in a process of its own.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn custody_launcher_main(_none: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // To no database: one that somebody is in can be neither copied nor dropped.
    BackgroundWorker::connect_worker_to_spi(None, None);
    let mut verifying: HashMap<pg_sys::Oid, DynamicBackgroundWorker> = HashMap::new();
    let mut last = Instant::now();
    loop {
        let interval = settings::checkpoint_interval();
        let pause = interval.unwrap_or(AT_LEAST).saturating_sub(last.elapsed());
        if !BackgroundWorker::wait_latch(Some(pause.max(Duration::from_millis(10)))) {
            return;
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: as every process does when it is told to.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        if last.elapsed() < interval.unwrap_or(AT_LEAST) {
            continue;
        }
        last = Instant::now();
        for database in databases() {
            if interval.is_some()
                && let Some(worker) = start("pg_custody checkpoint", "custody_checkpoint_main", database)
            {
                let _ = worker.wait_for_shutdown();
            }
            let busy = verifying.get(&database).is_some_and(|worker| worker.pid().is_ok());
            if !busy
                && settings::verify_schedule().is_some()
                && let Some(worker) = start("pg_custody verification", "custody_verification_main", database)
            {
                verifying.insert(database, worker);
            }
        }
        verifying.retain(|_, worker| worker.pid().is_ok());
    }
}

/// The databases that may be connected to.
fn databases() -> Vec<pg_sys::Oid> {
    BackgroundWorker::transaction(|| {
        let column = |row: &scan::Row<'_>, number: u32| row.get::<bool>(number as usize).unwrap_or(false);
        let found = scan::rows(pg_sys::DatabaseRelationId, None, &[], |row| {
            let open = column(row, pg_sys::Anum_pg_database_datallowconn)
                && !column(row, pg_sys::Anum_pg_database_datistemplate);
            open.then(|| row.get::<pg_sys::Oid>(pg_sys::Anum_pg_database_oid as usize)).flatten()
        });
        found.unwrap_or_default()
    })
}

fn start(name: &str, function: &str, database: pg_sys::Oid) -> Option<DynamicBackgroundWorker> {
    // SAFETY: this process's id.
    let me = unsafe { pg_sys::MyProcPid };
    let started = BackgroundWorkerBuilder::new(name)
        .set_type(name)
        .set_library("pg_custody")
        .set_function(function)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(database.into_datum())
        .set_notify_pid(me)
        .load_dynamic();
    if started.is_err() {
        let hint = "Raise max_worker_processes: pg_custody needs three of them.";
        ereport!(
            PgLogLevel::WARNING,
            pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "pg_custody could not start a worker",
            hint
        );
    }
    started.ok()
}

/// # Safety
/// Called by PostgreSQL in a process of its own, with a database's oid.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn custody_checkpoint_main(database: pg_sys::Datum) {
    if !connect(database) {
        return;
    }
    // Each in a transaction of its own, as CALL custody.checkpoint() does. The functions bring their search_path along.
    run_ours("SELECT custody.checkpoint_begin()");
    run_ours("SELECT custody.checkpoint_leaf()");
    run_ours("SELECT custody.checkpoint_sign()");
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn custody_verification_main(database: pg_sys::Datum) {
    let Some(schedule) = settings::verify_schedule() else { return };
    if !connect(database) {
        return;
    }
    let due = BackgroundWorker::transaction(move || match is_installed() {
        true => Spi::get_one_with_args::<bool>("SELECT custody.verification_due($1)", &[schedule.into()]),
        false => Ok(None),
    });
    if let Ok(Some(true)) = due {
        run_ours("SELECT custody.run_verification()");
    }
}

/// Connects to the database, and says whether the extension is there, in this version.
fn connect(database: pg_sys::Datum) -> bool {
    unsafe extern "C-unwind" {
        // Without pgrx's guard: it is called by the signal.
        fn die(signal: std::ffi::c_int);
    }
    // SAFETY: asked to end, it ends at the next safe moment, as a session does.
    unsafe { pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(die)) };
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::empty());
    // SAFETY: `start` passed an oid.
    let database = unsafe { <pg_sys::Oid as pgrx::FromDatum>::from_datum(database, false) };
    BackgroundWorker::connect_worker_to_spi_by_oid(database, None);
    // Whatever the database's default is: a checkpoint has to see what is committed.
    run("SET ROLE NONE");
    run("SET default_transaction_isolation = 'read committed'");
    run("SET default_transaction_read_only = off");
    // What a policy names may be locked for as long as someone likes, and other databases wait for this worker.
    run("SET lock_timeout = '5s'");
    BackgroundWorker::transaction(is_installed)
}

/// Whether the schema custody is the extension's, and of a version that has what workers call. They are superusers, so it is asked in
/// the very transaction that calls it.
fn is_installed() -> bool {
    scan::our_table("verifications").is_some()
}

/// Calls a function of ours in a transaction of its own, if it is ours. By `select`, as `Spi::run` would give the transaction an id, and
/// checkpoints are signed in none that has one.
fn run_ours(sql: &'static str) {
    BackgroundWorker::transaction(move || {
        if is_installed()
            && let Err(e) = Spi::connect(|client| client.select(sql, None, &[]).map(|_| ()))
        {
            pgrx::error!("{sql}: {e}");
        }
    });
}

/// Runs a statement in a transaction of its own. An error ends the worker, and is in the server's log.
fn run(sql: &'static str) {
    BackgroundWorker::transaction(move || {
        if let Err(e) = Spi::run(sql) {
            pgrx::error!("{sql}: {e}");
        }
    });
}
