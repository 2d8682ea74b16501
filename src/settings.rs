//! The settings, all of them: `custody.context` and `custody.request_id` (src/pg/context_setting.rs), and, in a build for
//! tests alone, `custody.sabotage`.

#[cfg(feature = "sabotage")]
mod sabotage {
    use std::ffi::CString;

    use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

    static SABOTAGE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    pub fn define() {
        GucRegistry::define_string_guc(
            c"custody.sabotage",
            c"A defect for the tests to find: stale_head, lane_savepoint or exception_block.",
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
pub use sabotage::{define, sabotaged};

/// Defines what only a sabotaged build has.
#[cfg(not(feature = "sabotage"))]
pub fn define() {}

/// Whether this build has the named defect switched on.
#[cfg(not(feature = "sabotage"))]
pub fn sabotaged(_: &str) -> bool {
    false
}
