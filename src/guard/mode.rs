//! What custody.guard was told.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::Result;
use crate::pg::{guard_hooks, lane, scan, spi};

/// What becomes of DDL that weakens isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// It is done, and said to be wrong.
    Warn,
    /// It fails.
    Reject,
    /// It fails; and new tables with the tenant column are protected at once.
    Protect,
}

impl Mode {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Off, "off"), (Self::Warn, "warn"), (Self::Reject, "reject"), (Self::Protect, "protect")];

    /// The mode of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|m| m.1 == name).map(|m| m.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|m| m.0 == self).map_or("off", |m| m.1)
    }
}

/// What is in force here.
pub struct Setting {
    pub mode: Mode,
    /// What makes a new table one of tenants'.
    pub tenant_column: String,
    /// Whether such a table is audited as well.
    pub audit: bool,
}

thread_local! {
    static KNOWN: RefCell<Option<Rc<Setting>>> = const { RefCell::new(None) };
}

/// Some table's definition changed, perhaps the one that holds the mode: its capture trigger sees to it that every session hears of it.
pub fn forget() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            *known = None;
        }
    });
}

/// What is in force; off where the extension is not installed, or the guard was never called.
pub fn current() -> Result<Rc<Setting>> {
    if let Some(known) = KNOWN.with_borrow(Clone::clone) {
        return Ok(known);
    }
    let changes = guard_hooks::changes();
    let setting = Rc::new(read()?);
    // What was read while something changed is read again next time.
    if changes == guard_hooks::changes() {
        KNOWN.set(Some(setting.clone()));
    }
    Ok(setting)
}

fn read() -> Result<Setting> {
    let off = Setting { mode: Mode::Off, tenant_column: String::new(), audit: false };
    if scan::our_table("guard_armed").is_none() || scan::our_rows("guard_armed", &[], |_| Some(()))?.is_empty() {
        return Ok(off);
    }
    let found = scan::our_rows("guard_setting", &[], |row| {
        let mode = Mode::named(&row.get::<String>(2)?)?;
        Some(Setting { mode, tenant_column: row.name(3)?, audit: row.get(4)? })
    })?;
    Ok(found.into_iter().next().unwrap_or(off))
}

/// Changes the mode. Runs as the extension's owner.
pub fn set(mode: Mode, tenant_column: &str, audit: bool) -> Result<()> {
    // Who is about to commit DDL is judged by the mode of before, and then seen by what is judged from now on.
    lane::lock_guard();
    spi::run("INSERT INTO custody.guard_armed DEFAULT VALUES ON CONFLICT DO NOTHING", &[])?;
    spi::run(
        "INSERT INTO custody.guard_setting (mode, tenant_column, audit, set_at) VALUES ($1, $2::name, $3, pg_catalog.clock_timestamp())
         ON CONFLICT ON CONSTRAINT guard_setting_pkey
         DO UPDATE SET mode = excluded.mode, tenant_column = excluded.tenant_column, audit = excluded.audit, set_at = excluded.set_at",
        &[mode.name().into(), tenant_column.into(), audit.into()],
    )?;
    forget();
    Ok(())
}

/// Says what is watched in a mode, which depends on how the library was loaded.
pub fn watched(mode: Mode) -> String {
    match (mode, guard_hooks::preloaded()) {
        (Mode::Off, _) => "off: nothing is watched".into(),
        (mode, true) => {
            format!("{}: the library is preloaded, and all that docs/guard.md lists is watched", mode.name())
        }
        (mode, false) => format!(
            "{}: the library is not preloaded, so these are watched only in sessions that have used pg_custody before: roles and their \
             memberships, grants on databases and parameters, event triggers, TRUNCATE, ALTER SYSTEM, DROP EXTENSION, session_replication_role",
            mode.name()
        ),
    }
}
