//! The settings, all of them: `custody.verify_workers`; `custody.context` and `custody.request_id` (src/pg/context_setting.rs); and,
//! in a build for tests alone, `custody.sabotage`.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static VERIFY_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);

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
    #[cfg(feature = "sabotage")]
    sabotage::define();
}

/// How many threads verification may use, at least 1.
pub fn verify_workers() -> usize {
    usize::try_from(VERIFY_WORKERS.get()).unwrap_or(1).max(1)
}

#[cfg(feature = "sabotage")]
mod sabotage {
    use super::*;
    use std::ffi::CString;

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
