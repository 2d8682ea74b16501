//! The guard: DDL that would leave a table without isolation is refused, or said aloud, as custody.guard was told; and the
//! floor under protected tables that no policy can take away.
//!
//! Two moments. After each command: what custody.protect, custody.audit and CREATE EXTENSION put in place must still be there, else
//! the rest of the transaction would run without it. Before the transaction commits: no finding may be there that was not there
//! before it, so that a migration may create a table first and protect it later.

pub mod judge;
pub mod mode;
pub mod newcomers;
pub mod protected;

use crate::audit::ddl;
use crate::error::{Error, Result};
use crate::pg::call::{Call, VOID};
use crate::pg::commands::Command;
use crate::pg::{data, scan, session, spi};
use crate::sql_functions;
use mode::Mode;

sql_functions! {
    custody_guard, pg_finfo_custody_guard => |call: &mut Call| {
        let name: String = call.required(0, "mode")?;
        let column = call.name(1, "tenant_column")?;
        let audit: bool = call.required(2, "audit")?;
        let mode = Mode::named(&name)
            .ok_or_else(|| Error::BadArgument { name: "mode", why: "must be off, warn, reject or protect".into() })?;
        if column.is_empty() {
            return Err(Error::BadArgument { name: "tenant_column", why: "must not be empty".into() });
        }
        mode::set(mode, &column, audit)?;
        Ok(data::text(&mode::watched(mode)))
    };
    custody_guard_mode, pg_finfo_custody_guard_mode => |_| Ok(data::text(mode::current()?.mode.name()));
    custody_guard_ddl, pg_finfo_custody_guard_ddl => |_| {
        after_ddl()?;
        Ok(VOID)
    };
    custody_guard_drop, pg_finfo_custody_guard_drop => |_| {
        const LASTING: &str = "SELECT 1 FROM pg_catalog.pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary LIMIT 1";
        if mode::current()?.mode != Mode::Off {
            let lasting = spi::rows_now(LASTING, &[], |_| Ok(()))?;
            judge::dropped(!lasting.is_empty());
        }
        Ok(VOID)
    };
}

/// The event trigger's part: what the command left behind.
fn after_ddl() -> Result<()> {
    if scan::our_table("guard_setting").is_none() {
        return Err(Error::SchemaGone);
    }
    let setting = mode::current()?;
    if setting.mode == Mode::Off {
        return Ok(());
    }
    const LASTING: &str = "SELECT coalesce(pg_catalog.bool_or(d.schema_name IS DISTINCT FROM 'pg_temp'
            AND d.command_tag NOT IN ('COMMENT', 'REFRESH MATERIALIZED VIEW')), false), pg_catalog.count(*) OPERATOR(pg_catalog.=) 0
          FROM pg_catalog.pg_event_trigger_ddl_commands() d";
    let found = spi::rows_now(LASTING, &[], |row| Ok((row.get::<bool>(1)?, row.get::<bool>(2)?)))?;
    let dropped = judge::take_dropped();
    let lasting = match found.first() {
        Some((Some(false), Some(false))) => dropped == Some(true),
        // A command of which PostgreSQL tells nothing, such as DROP OWNED; unless all that it dropped was temporary.
        Some((_, Some(true))) => dropped != Some(false),
        _ => true,
    };
    if !lasting {
        return Ok(());
    }
    judge::mark();
    // Our own DDL puts things in place one by one.
    if ddl::is_quiet() {
        return Ok(());
    }
    judge::after_command(false)
}

/// Before a statement that the hook sees: some are refused for what they are.
pub fn before_statement(command: &Command) -> Result<()> {
    match command {
        Command::Refused { what, why } if session::has_database() => match mode::current()?.mode {
            Mode::Off => Ok(()),
            Mode::Warn => {
                pgrx::warning!("the guard would refuse {what}: {why}");
                Ok(())
            }
            Mode::Reject | Mode::Protect => Err(Error::GuardRefuses { what: what.clone(), why: (*why).into() }),
        },
        _ => Ok(()),
    }
}

/// After one of which event triggers do not hear.
pub fn after_statement() -> Result<()> {
    if !session::has_database() || mode::current()?.mode == Mode::Off {
        return Ok(());
    }
    judge::mark();
    judge::after_command(false)?;
    judge::after_command(true)
}

/// A table is about to be truncated.
pub fn before_truncate(relid: crate::pg::call::Oid) -> Result<()> {
    let mode = mode::current()?.mode;
    if mode == Mode::Off || protected::of(relid)?.is_none() || session::why_unbound(session::current_role()).is_some() {
        return Ok(());
    }
    let what = format!("TRUNCATE of {}", session::relation_name(relid));
    before_statement(&Command::Refused { what, why: "row-level security is not asked, so the rows of every tenant go" })
}
