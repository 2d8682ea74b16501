//! The settings, all of them: `custody.drop_log`, `custody.verify_workers`, `custody.token_leeway`, `custody.checkpoint_interval`, `custody.verify_schedule`,
//! `custody.recover_lost_key` and `custody.key_overlap`;
//! `custody.context` and `custody.request_id` (src/pg/context_setting.rs); and,
//! in a build for tests alone, `custody.sabotage`.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static VERIFY_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static TOKEN_LEEWAY: GucSetting<i32> = GucSetting::<i32>::new(0);

/// The most that `custody.token_leeway` can be.
pub const LARGEST_LEEWAY: i32 = 60;

static RECOVER_LOST_KEY: GucSetting<bool> = GucSetting::<bool>::new(true);
static KEY_OVERLAP: GucSetting<i32> = GucSetting::<i32>::new(0);
static CHECKPOINT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static VERIFY_SCHEDULE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"03:00"));

static DROP_LOG: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines them.
pub fn define() {
    GucRegistry::define_int_guc(
        c"custody.verify_workers",
        c"How many threads custody.verify() hashes and checks signatures on, the session's own included.",
        c"",
        &VERIFY_WORKERS,
        1,
        64,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"custody.checkpoint_interval",
        c"How often a checkpoint is made in each database, if the library is preloaded; 0 for never.",
        c"",
        &CHECKPOINT_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"custody.verify_schedule",
        c"The time of day, in the server's time zone, at which each database's log is verified, if the library is preloaded; empty for never.",
        c"",
        &VERIFY_SCHEDULE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"custody.drop_log",
        c"Whether DROP EXTENSION pg_custody may drop a log that has entries of the database's tables.",
        c"",
        &DROP_LOG,
        GucContext::Suset,
        GucFlags::DISALLOW_IN_FILE,
    );
    GucRegistry::define_bool_guc(
        c"custody.recover_lost_key",
        c"Whether a change of an audited table makes a new signing key when the file of the present one is gone.",
        c"Nothing vouches for such a key, and custody.verify() says key_recovered. If off, the change fails.",
        &RECOVER_LOST_KEY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"custody.key_overlap",
        c"How long at least a replaced signing key stays valid and signs checkpoints beside its successor.",
        c"Time for witnesses to learn of the new key. Transactions in flight are waited for in any case.",
        &KEY_OVERLAP,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    // Not for whoever presents the token to choose.
    GucRegistry::define_int_guc(
        c"custody.token_leeway",
        c"Seconds by which the clocks of tokens' issuers may differ from the server's.",
        c"exp, nbf, iat and revocations allow for it.",
        &TOKEN_LEEWAY,
        0,
        LARGEST_LEEWAY,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    #[cfg(feature = "sabotage")]
    sabotage::define();
}

/// Whether the extension may be dropped with its log.
pub fn may_drop_log() -> bool {
    DROP_LOG.get()
}

/// How many threads verification may use, at least 1.
pub fn verify_workers() -> usize {
    usize::try_from(VERIFY_WORKERS.get()).unwrap_or(1).max(1)
}

/// Whether a lost signing key is replaced without being asked.
pub fn recover_lost_key() -> bool {
    RECOVER_LOST_KEY.get()
}

/// How long at least a replaced key stays, in microseconds.
pub fn key_overlap() -> i64 {
    i64::from(KEY_OVERLAP.get()) * 1_000_000
}

/// How often checkpoints are made; none if they are not.
pub fn checkpoint_interval() -> Option<Duration> {
    u64::try_from(CHECKPOINT_INTERVAL.get()).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// The time of day at which logs are verified; none if they are not.
pub fn verify_schedule() -> Option<String> {
    VERIFY_SCHEDULE
        .get()
        .as_deref()
        .map(CStr::to_string_lossy)
        .filter(|time| !time.is_empty())
        .map(|time| time.into_owned())
}

/// Seconds by which the clocks of tokens' issuers may differ from the server's.
pub fn token_leeway() -> i64 {
    TOKEN_LEEWAY.get().clamp(0, LARGEST_LEEWAY).into()
}

#[cfg(feature = "sabotage")]
mod sabotage {
    use super::*;

    static SABOTAGE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    pub fn define() {
        GucRegistry::define_string_guc(
            c"custody.sabotage",
            c"A defect for the tests to find; tests/tests/storm.rs lists them.",
            c"",
            &SABOTAGE,
            GucContext::Userset,
            GucFlags::default(),
        );
    }

    pub fn sabotaged(how: &str) -> bool {
        SABOTAGE.get().is_some_and(|s| s.as_bytes() == how.as_bytes())
    }
}

#[cfg(feature = "sabotage")]
pub use sabotage::sabotaged;

/// Whether this build has the named defect switched on.
#[cfg(not(feature = "sabotage"))]
pub fn sabotaged(_: &str) -> bool {
    false
}
