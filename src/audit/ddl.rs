//! After every DDL command: what it did to audited tables, whether capture still stands, and whether the log is still guarded.

use std::cell::Cell;

use custody_core::json;

use crate::audit::transaction::{self, Record};
use crate::audit::{baseline, incarnation, register, table};
use crate::error::{Error, Result};
use crate::pg::call::{Oid, VOID};
use crate::pg::{scan, session, spi};
use crate::settings;
use crate::sql_functions;
use crate::tenant::protect;

sql_functions! {
    custody_on_ddl, pg_finfo_custody_on_ddl => |_| {
        watch(|| {
            record_commands()?;
            follow_renames()?;
            carry_over()?;
            crate::guard::newcomers::take_in()
        })?;
        // When it is known whether capture is whole: it is not while a dump is being restored.
        watch(baseline::follow)?;
        Ok(VOID)
    };
    custody_on_drop, pg_finfo_custody_on_drop => |_| {
        watch(record_drops)?;
        Ok(VOID)
    };
    custody_keep_log, pg_finfo_custody_keep_log => |call| {
        keep_log(call.drops_us())?;
        Ok(VOID)
    };
}

thread_local! {
    /// Whether the DDL under way is our own.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether the DDL under way is our own.
pub fn is_quiet() -> bool {
    QUIET.get()
}

/// Runs DDL of our own, which the event triggers need not comment on.
pub fn quietly<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Quiet(bool);
    impl Drop for Quiet {
        fn drop(&mut self) {
            QUIET.set(self.0);
        }
    }
    let _quiet = Quiet(QUIET.replace(true));
    work()
}

/// Before DROP EXTENSION: the log goes with it only if that was asked for. One that tells of nothing but pg_custody is nothing to lose.
fn keep_log(drops_us: bool) -> Result<()> {
    const HOLDS: &str = "SELECT 1 FROM custody.entry e WHERE e.tenant <> '' OR e.schema_name <> 'custody' LIMIT 1";
    if !drops_us || settings::may_drop_log() || scan::our_table("entry").is_none() {
        return Ok(());
    }
    match session::as_owner(|| spi::rows_now(HOLDS, &[], |row| row.get::<i32>(1)))?.is_empty() {
        true => Ok(()),
        false => Err(Error::LogWouldBeLost),
    }
}

fn watch(work: impl FnOnce() -> Result<()>) -> Result<()> {
    // While the extension is being created or dropped, there is nothing to look at.
    if QUIET.get() || scan::our_table("audited_table").is_none() || incarnation::written()?.is_none() {
        return Ok(());
    }
    quietly(|| {
        session::as_owner(work)?;
        note_changes()
    })
}

/// Records DDL on audited tables and their partitions, and on tables above audited ones, whose columns those have too.
fn record_commands() -> Result<()> {
    const COMMANDS: &str = "WITH RECURSIVE command AS MATERIALIZED (
          SELECT d.place, d.command_tag, d.object_identity, d.objid AS relid
          FROM pg_catalog.pg_event_trigger_ddl_commands() WITH ORDINALITY AS d (classid, objid, objsubid, command_tag, object_type, schema_name, object_identity, in_extension, command, place)
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        ), below (place, relid) AS (
          SELECT c.place, h.inhrelid FROM command c JOIN pg_catalog.pg_inherits h ON h.inhparent = c.relid WHERE c.command_tag = 'ALTER TABLE'
          UNION
          SELECT b.place, h.inhrelid FROM below b JOIN pg_catalog.pg_inherits h ON h.inhparent = b.relid
        ), touched (place, relid) AS (
          SELECT c.place, c.relid FROM command c
          WHERE EXISTS (SELECT FROM custody.audited_table a WHERE a.target = c.relid OR c.relid IN (SELECT relid FROM pg_catalog.pg_partition_tree(a.target)))
          UNION
          SELECT b.place, b.relid FROM below b JOIN custody.audited_table a ON a.target = b.relid
        )
        SELECT c.command_tag, c.object_identity, n.nspname::text, r.relname::text, r.oid
        FROM touched t JOIN command c USING (place) JOIN pg_catalog.pg_class r ON r.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
        ORDER BY c.place, t.relid <> c.relid, t.relid";
    for (command, relid) in record_found(COMMANDS)? {
        if command == "ALTER TABLE" {
            register::refuse_unreadable(relid)?;
        }
    }
    follow_partitions()?;
    const RETYPED: &str =
        "SELECT 1 FROM pg_catalog.pg_event_trigger_ddl_commands() d WHERE d.command_tag = 'ALTER TYPE' LIMIT 1";
    match spi::rows_now(RETYPED, &[], |_| Ok(()))?.is_empty() {
        true => Ok(()),
        false => register::refuse_unreadable(None),
    }
}

/// Records what a query finds: the command, the object it named, a table's schema and name, and its oid. Gives command and oid.
fn record_found(query: &str) -> Result<Vec<(String, Option<Oid>)>> {
    let found = spi::rows_now(query, &[], |row| {
        let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
        let command = text(1)?;
        let record = ddl_record(&command, &text(2)?, &text(3)?, &text(4)?);
        Ok((record, (command, row.get::<Oid>(5)?)))
    })?;
    let (records, commands): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    if !records.is_empty() {
        transaction::record(records)?;
    }
    Ok(commands)
}

/// Records which partitions of audited tables left and which came: their rows go and come with them, and the command itself
/// names only the table above.
fn follow_partitions() -> Result<()> {
    const LEFT: &str = "WITH changed AS (
          DELETE FROM custody.captured_partition p WHERE NOT EXISTS (SELECT FROM custody.audited_member m WHERE m.relid = p.target AND m.root <> m.relid)
          RETURNING p.target
        )
        SELECT 'DETACH PARTITION', pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname::text, c.relname::text, c.oid
        FROM changed x JOIN pg_catalog.pg_class c ON c.oid = x.target JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid";
    // What is there before there is a state was there when auditing began, or is of a dump that is being restored.
    const JOINED: &str = "WITH changed AS (
          INSERT INTO custody.captured_partition (target)
          SELECT DISTINCT m.relid FROM custody.audited_member m
          WHERE m.root <> m.relid AND NOT EXISTS (SELECT FROM custody.captured_partition p WHERE p.target = m.relid)
          ON CONFLICT ON CONSTRAINT captured_partition_pkey DO NOTHING RETURNING target
        )
        SELECT 'ATTACH PARTITION', pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname::text, c.relname::text, c.oid
        FROM changed x JOIN pg_catalog.pg_class c ON c.oid = x.target JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE EXISTS (SELECT FROM custody.audited_member m JOIN custody.capture_state s ON s.target = m.root WHERE m.relid = x.target)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() d WHERE d.objid = x.target AND d.command_tag LIKE 'CREATE %TABLE')
        ORDER BY c.oid";
    record_found(LEFT)?;
    record_found(JOINED)?;
    Ok(())
}

/// Takes the partitions as they are, after custody.audit or unaudit: nothing of theirs came or went.
pub fn know_partitions() -> Result<()> {
    session::as_owner(|| {
        spi::run(
            "DELETE FROM custody.captured_partition p WHERE NOT EXISTS (SELECT FROM custody.audited_member m WHERE m.relid = p.target AND m.root <> m.relid)",
            &[],
        )?;
        spi::run(
            "INSERT INTO custody.captured_partition (target) SELECT DISTINCT m.relid FROM custody.audited_member m WHERE m.root <> m.relid
             ON CONFLICT ON CONSTRAINT captured_partition_pkey DO NOTHING",
            &[],
        )
    })
}

fn ddl_record(command: &str, object: &str, schema: &str, table: &str) -> Record {
    let mut new = String::from("{\"command\":");
    json::push_string(&mut new, command);
    new.push_str(",\"object\":");
    json::push_string(&mut new, object);
    new.push('}');
    Record::system("DDL", Some((schema, table)), new)
}

/// Keeps the registry's tenant columns those that the policies test, which follow a column when it is renamed.
fn follow_renames() -> Result<()> {
    const RENAMED: &str = "UPDATE custody.registered_table r SET tenant_column = a.attname
        FROM pg_catalog.pg_policy p
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
          AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
        JOIN pg_catalog.pg_attribute a ON a.attrelid = p.polrelid AND a.attnum = d.refobjsubid
        WHERE p.polrelid = r.target AND p.polname = 'custody_floor' AND r.kind = 'protected' AND a.attname <> r.tenant_column
          -- A floor that was altered to test more than one column says nothing of a name.
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o WHERE o.attrelid = r.target AND o.attname = r.tenant_column AND o.attnum > 0 AND NOT o.attisdropped)
          AND 1 = (SELECT pg_catalog.count(DISTINCT e.refobjsubid) FROM pg_catalog.pg_depend e
                   WHERE e.classid = d.classid AND e.objid = d.objid AND e.refclassid = d.refclassid AND e.refobjid = d.refobjid AND e.refobjsubid > 0)
        RETURNING 1";
    if !spi::rows_now(RENAMED, &[], |_| Ok(()))?.is_empty() {
        table::forget(0);
    }
    Ok(())
}

/// Brings partitions that joined a protected or audited table under what holds for it.
fn carry_over() -> Result<()> {
    protect::protect_new_partitions()?;
    // A trigger that is missing is new only if capture was whole before a command that can bring partitions in.
    const NEW: &str = "SELECT DISTINCT g.root::pg_catalog.oid FROM custody.capture_gap g
        JOIN custody.capture_state s ON s.target = g.root AND s.capturing
        JOIN pg_catalog.pg_event_trigger_ddl_commands() d ON d.command_tag IN ('CREATE TABLE', 'ALTER TABLE')
        WHERE g.trigger_name = '!custody_truncate' AND g.problem = 'missing'";
    for root in spi::rows_now(NEW, &[], |row| row.get::<Oid>(1))?.into_iter().flatten() {
        register::record_truncates(root)?;
    }
    Ok(())
}

/// Records drops of audited tables, and forgets the tables.
fn record_drops() -> Result<()> {
    const DROPPED: &str = "SELECT d.objid, d.object_identity, d.schema_name, d.object_name,
          EXISTS (SELECT FROM custody.audited_table a WHERE a.target OPERATOR(pg_catalog.=) d.objid),
          EXISTS (SELECT FROM custody.captured_partition p WHERE p.target OPERATOR(pg_catalog.=) d.objid),
          CASE WHEN d.objsubid <> 0 THEN d.address_names[3] END
        FROM pg_catalog.pg_event_trigger_dropped_objects() d
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass";
    let found = spi::rows_now(DROPPED, &[], |row| {
        let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
        let known = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
        Ok((row.get::<Oid>(1)?, text(2)?, text(3)?, text(4)?, known(5)?, known(6)?, row.get::<String>(7)?))
    })?;
    for (relid, object, schema, name, audited, partition, column) in found {
        if let Some(column) = column {
            if audited {
                let names = relid.and_then(session::relation_names).unwrap_or_default();
                transaction::record([ddl_record("DROP COLUMN", &object, &names.0, &names.1)])?;
                spi::run(
                    "UPDATE custody.audited_table SET exclude = pg_catalog.array_remove(exclude, $2::name),
                       redact = pg_catalog.array_remove(redact, $2::name)
                     WHERE target OPERATOR(pg_catalog.=) $1
                       AND $2::name OPERATOR(pg_catalog.=) ANY (exclude OPERATOR(pg_catalog.||) redact)",
                    &[relid.into(), column.into()],
                )?;
            }
            continue;
        }
        if audited || partition {
            transaction::record([ddl_record("DROP TABLE", &object, &schema, &name)])?;
        }
        for registry in ["audited_table", "capture_state", "captured_partition", "registered_table"] {
            spi::run(
                &format!("DELETE FROM custody.{registry} r WHERE r.target OPERATOR(pg_catalog.=) $1"),
                &[relid.into()],
            )?;
        }
        baseline::forget(relid)?;
    }
    Ok(())
}

/// Compares capture and guard with what they were after the last command, and records what changed.
pub fn note_changes() -> Result<()> {
    session::as_owner(|| {
        const CAPTURE: &str = "SELECT a.target::pg_catalog.oid, s.capturing, pg_catalog.string_agg(
              pg_catalog.format('%s on %s: %s', g.trigger_name, g.relid::pg_catalog.regclass, g.problem), '; ' ORDER BY g.relid, g.trigger_name) FILTER (WHERE g.root IS NOT NULL)
            FROM custody.audited_table a LEFT JOIN custody.capture_state s ON s.target = a.target LEFT JOIN custody.capture_gap g ON g.root = a.target
            GROUP BY a.target, s.capturing
            HAVING s.capturing IS DISTINCT FROM (pg_catalog.count(g.root) = 0)";
        let changed =
            spi::rows_now(CAPTURE, &[], |row| Ok((row.get::<Oid>(1)?, row.get::<bool>(2)?, row.get::<String>(3)?)))?;
        for (relid, captured, problems) in changed {
            let Some(relid) = relid else { continue };
            let op = match (captured, &problems) {
                // A dump that is being restored: its triggers come later.
                (None, Some(_)) => continue,
                (None, None) => None,
                (Some(true), _) => Some("CAPTURE_OFF"),
                (Some(false), _) => Some("CAPTURE_ON"),
            };
            spi::run(
                "INSERT INTO custody.capture_state (target, capturing) VALUES ($1, $2)
                 ON CONFLICT ON CONSTRAINT capture_state_pkey DO UPDATE SET capturing = excluded.capturing",
                &[relid.into(), problems.is_none().into()],
            )?;
            if let Some(op) = op {
                let names = session::relation_names(relid).unwrap_or_default();
                let problems = problems_record(&problems.unwrap_or_default());
                transaction::record([Record::system(op, Some((&names.0, &names.1)), problems)])?;
            }
        }
        const GUARD: &str = "SELECT i.guarded, (SELECT pg_catalog.string_agg(g.object || ': ' || g.problem, '; ' ORDER BY g.object) FROM custody.guard_gap g)
            FROM custody.instance i";
        let guard = spi::rows_now(GUARD, &[], |row| Ok((row.get::<bool>(1)?.unwrap_or(true), row.get::<String>(2)?)))?;
        if let Some((guarded, problems)) = guard.into_iter().next()
            && guarded != problems.is_none()
        {
            spi::run("UPDATE custody.instance SET guarded = NOT guarded", &[])?;
            let op = if guarded { "GUARD_OFF" } else { "GUARD_ON" };
            let table = Some(("custody", "entry"));
            transaction::record([Record::system(op, table, problems_record(&problems.unwrap_or_default()))])?;
        }
        Ok(())
    })
}

fn problems_record(problems: &str) -> String {
    let mut new = String::from("{\"problems\":");
    json::push_string(&mut new, problems);
    new.push('}');
    new
}
