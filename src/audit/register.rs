//! custody.audit and unaudit: which tables are recorded; and the guard that keeps the log append-only.

use custody_core::reconcile::baseline::Form;

use crate::audit::{baseline, ddl, incarnation, table};
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID};
use crate::pg::row::Event;
use crate::pg::{session, spi};
use crate::sql_functions;
use crate::tenant::protect::owned;
use crate::tenant::registry;

sql_functions! {
    custody_audit, pg_finfo_custody_audit => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let (exclude, redact) = (call.names(1, "exclude")?, call.names(2, "redact")?);
        // Of 0.1.0 come three arguments.
        let form = call.optional::<String>(3).map_or(Ok(Form::Rows), |form| baseline::form(&form, "baseline"))?;
        ddl::quietly(|| audit(target, &exclude, &redact, form))?;
        Ok(VOID)
    };
    custody_unaudit, pg_finfo_custody_unaudit => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        ddl::quietly(|| unaudit(target))?;
        Ok(VOID)
    };
    custody_append_only, pg_finfo_custody_append_only => |call: &mut Call| {
        let trigger = call.trigger()?;
        let what = match trigger.event() {
            Event::Update => "UPDATE",
            Event::Delete => "DELETE",
            Event::Truncate => "TRUNCATE",
            Event::Insert => {
                // A restored dump brings another incarnation's entries; this one's are written by pg_custody alone.
                let mut shape = trigger.shape();
                let place = shape.position("incarnation");
                let of = match (trigger.rows(), place) {
                    ((_, Some(row)), Some(place)) => row.text(&mut shape.columns[place]),
                    _ => None,
                };
                let current = incarnation::written()?.map(|id| id.to_string());
                if current.is_some() && of.is_some() && of != current {
                    return Ok(trigger.proceed());
                }
                "inserting entries of the current incarnation"
            }
        };
        Err(Error::AppendOnly { what })
    };
}

const CAPTURE: &str = "\"!custody_capture\"";
const TRUNCATE: &str = "\"!custody_truncate\"";

pub fn audit(target: Oid, exclude: &[String], redact: &[String], form: Form) -> Result<()> {
    owned(target)?;
    let name = session::relation_name(target);
    let refuse = |why: &str, hint: &str| {
        Err(Error::CannotAudit { table: name.clone(), why: why.to_owned(), hint: hint.to_owned() })
    };
    const FACTS: &str = "SELECT c.relkind::text, c.relpersistence::text, n.nspname::text,
          EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) p JOIN pg_catalog.pg_class f ON f.oid = p.relid WHERE f.relkind = 'f'),
          EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class f ON f.oid = h.inhrelid WHERE h.inhparent = c.oid AND NOT f.relispartition
                  AND NOT EXISTS (SELECT FROM custody.audited_table x WHERE x.target = h.inhrelid)),
          EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) p JOIN pg_catalog.pg_class f ON f.oid = p.relid WHERE f.relpersistence = 'u'),
          ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                WHERE i.indrelid = c.oid AND i.indisprimary)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let facts = session::as_owner(|| {
        spi::rows_now(FACTS, &[target.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            let list = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Vec<String>>(n)?.unwrap_or_default());
            Ok((
                text(1)?,
                text(2)?,
                text(3)?,
                row.get::<bool>(4)?.unwrap_or(false),
                row.get::<bool>(5)?.unwrap_or(false),
                row.get::<bool>(6)?.unwrap_or(false),
                list(7)?,
                list(8)?,
            ))
        })
    })?;
    let Some((kind, persistence, schema, foreign_partition, unaudited_child, unlogged_partition, columns, key)) =
        facts.into_iter().next()
    else {
        return refuse("It does not exist any more.", "");
    };
    match kind.as_str() {
        "r" | "p" => {}
        "f" => {
            return refuse(
                "It is a foreign table: its rows change without this server knowing.",
                "Audit it where it is stored.",
            );
        }
        _ => return refuse("It is not a table.", "Audit the tables that it reads from."),
    }
    if unaudited_child {
        return refuse(
            "It has inheritance children that are not audited: statements on it change their rows too.",
            "Audit the children first; or make them partitions.",
        );
    }
    if foreign_partition {
        return refuse("A partition of it is a foreign table.", "Audit its local partitions one by one.");
    }
    if unlogged_partition && persistence == "p" {
        let why = "A partition of it is unlogged: a crash empties it without a trace.";
        return refuse(why, "ALTER TABLE … SET LOGGED, for the partition, first.");
    }
    const RELATED: &str = "SELECT a.target::pg_catalog.oid, a.target IN (SELECT relid FROM pg_catalog.pg_partition_ancestors($1))
        FROM custody.audited_table a WHERE a.target <> $1
          AND (a.target IN (SELECT relid FROM pg_catalog.pg_partition_ancestors($1)) OR a.target IN (SELECT relid FROM pg_catalog.pg_partition_tree($1)))
        ORDER BY 2, 1 LIMIT 1";
    let related = session::as_owner(|| {
        spi::rows_now(RELATED, &[target.into()], |row| Ok((row.get::<Oid>(1)?, row.get::<bool>(2)?.unwrap_or(false))))
    })?;
    // PostgreSQL keeps one trigger of a name on a partition: the table's above or its own.
    if let Some((Some(other), above)) = related.into_iter().next() {
        let other = session::relation_name(other);
        return match above {
            true => {
                refuse(&format!("It is a partition of {other}, which is audited: its rows are recorded there."), "")
            }
            false => refuse(
                &format!("Its partition {other} is audited by itself."),
                &format!("SELECT custody.unaudit('{other}') first: it will be recorded as part of {name}."),
            ),
        };
    }
    match persistence.as_str() {
        "p" => {}
        "t" => return refuse("It is a temporary table.", "Its rows end with the session."),
        _ => return refuse("It is unlogged: a crash empties it without a trace.", "ALTER TABLE … SET LOGGED first."),
    }
    if schema == "custody" || schema == "pg_catalog" || schema == "information_schema" {
        return refuse("It is a system table, or one of pg_custody's own, whose changes are recorded anyway.", "");
    }
    let tenant = session::as_owner(|| registry::tenant_column(target))?;
    for (argument, names) in [("exclude", exclude), ("redact", redact)] {
        for column in names {
            let why = if !columns.contains(column) {
                format!("names the column \"{column}\", which {name} does not have")
            } else if key.contains(column) {
                format!("names the column \"{column}\" of the primary key, by which a row's history is found")
            } else if tenant.as_ref() == Some(column) {
                format!("names the tenant column \"{column}\"")
            } else if argument == "redact" && exclude.contains(column) {
                format!("names the column \"{column}\", which is excluded")
            } else {
                continue;
            };
            return Err(Error::BadArgument { name: argument, why });
        }
    }
    session::as_owner(|| {
        spi::run(
            "INSERT INTO custody.audited_table AS a (target, exclude, redact) VALUES ($1, $2::name[], $3::name[])
             ON CONFLICT ON CONSTRAINT audited_table_pkey DO UPDATE SET exclude = excluded.exclude, redact = excluded.redact
             WHERE (a.exclude, a.redact) IS DISTINCT FROM (excluded.exclude, excluded.redact)",
            &[target.into(), exclude.to_vec().into(), redact.to_vec().into()],
        )?;
        refuse_unreadable(Some(target))
    })?;
    spi::run(
        &format!(
            "CREATE OR REPLACE TRIGGER {CAPTURE} AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION custody.capture()"
        ),
        &[],
    )?;
    spi::run(&format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {CAPTURE}"), &[])?;
    record_truncates(target)?;
    table::forget(0);
    ddl::know_partitions()?;
    baseline::audited(target, form)?;
    ddl::note_changes()
}

/// Refuses the audited table (each, if none is given) that has a column, neither excluded nor redacted, of a type that does
/// not read its own output back: by itself, or within what the column's type is made of.
pub fn refuse_unreadable(target: Option<Oid>) -> Result<()> {
    // A regproc or regoper prints as a bare name, which several functions or operators may have; the others refuse all input.
    const UNREADABLE: &str = "WITH RECURSIVE part (target, name, type) AS (
          SELECT t.target, a.attname, a.atttypid FROM custody.audited_table t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.target
          WHERE ($1 IS NULL OR t.target = $1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (t.exclude || t.redact)
          UNION
          SELECT p.target, p.name, o.of FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.type CROSS JOIN LATERAL (
            SELECT t.typbasetype UNION ALL SELECT t.typelem
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0
            UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS o (of))
        SELECT p.target::pg_catalog.oid, p.name::text, t.typname::text FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.type
        WHERE t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
          AND t.typname IN ('regproc', 'regoper', 'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list',
                            'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector')
        ORDER BY 1, 2 LIMIT 1";
    let found = spi::rows_now(UNREADABLE, &[target.into()], |row| {
        let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
        Ok((row.get::<Oid>(1)?, text(2)?, text(3)?))
    })?;
    let Some((Some(table), column, kind)) = found.into_iter().next() else { return Ok(()) };
    let hint = match kind.as_str() {
        "regproc" => "Make it a regprocedure, or exclude the column.",
        "regoper" => "Make it a regoperator, or exclude the column.",
        _ => "Exclude the column.",
    };
    Err(Error::CannotAudit {
        table: session::relation_name(table),
        why: format!("Its column \"{column}\" holds values of type {kind}, whose text does not read back."),
        hint: hint.to_owned(),
    })
}

/// Puts the TRUNCATE trigger on a table, or on each of its partitions that holds rows: statement triggers do not clone.
pub fn record_truncates(target: Oid) -> Result<()> {
    const MISSING: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
        FROM (SELECT $1 AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1)) t
        JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '!custody_truncate' AND g.tgenabled = 'A')";
    for name in spi::rows_now(MISSING, &[target.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))? {
        spi::run(
            &format!(
                "CREATE OR REPLACE TRIGGER {TRUNCATE} BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate()"
            ),
            &[],
        )?;
        spi::run(&format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRUNCATE}"), &[])?;
    }
    Ok(())
}

fn unaudit(target: Oid) -> Result<()> {
    owned(target)?;
    let name = session::relation_name(target);
    let gone = session::as_owner(|| {
        spi::rows_now(
            "DELETE FROM custody.audited_table a WHERE a.target OPERATOR(pg_catalog.=) $1 RETURNING 1",
            &[target.into()],
            |_| Ok(()),
        )
    })?;
    session::as_owner(|| {
        spi::run("DELETE FROM custody.capture_state s WHERE s.target OPERATOR(pg_catalog.=) $1", &[target.into()])?;
        baseline::forget(Some(target))
    })?;
    if gone.is_empty() {
        return Err(Error::NotAudited { table: name });
    }
    spi::run(&format!("DROP TRIGGER IF EXISTS {CAPTURE} ON {name}"), &[])?;
    const LEFT: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
        FROM (SELECT $1 AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1)) t
        JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND g.tgname = '!custody_truncate'";
    for name in spi::rows_now(LEFT, &[target.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))? {
        spi::run(&format!("DROP TRIGGER {TRUNCATE} ON {name}"), &[])?;
    }
    table::forget(0);
    ddl::know_partitions()
}
