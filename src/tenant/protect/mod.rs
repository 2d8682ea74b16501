//! custody.protect, unprotect and register_shared: what makes a table keep its tenants apart, step by step, and how to take it back.

mod facts;
mod key_facts;
mod keys;
mod plan;
mod schema;

use crate::audit::ddl;
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID, value};
use crate::pg::data::{self, Nulled};
use crate::pg::{session, spi};
use crate::sql_functions;
use crate::tenant::protect::facts::{Facts, facts};
use crate::tenant::protect::plan::{COLUMN, SCHEMA, Step, TABLE, Way, plan, quote_ident};

sql_functions! {
    custody_protect, pg_finfo_custody_protect => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let column = call.name(1, "tenant_column")?;
        let dry_run: bool = call.required(2, "dry_run")?;
        let steps = ddl::quietly(|| match dry_run {
            true => protection(target, &column),
            false => protect(target, &column),
        })?;
        call.return_rows(rows(steps))
    };
    custody_protect_prepared, pg_finfo_custody_protect_prepared => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let column = call.name(1, "tenant_column")?;
        let steps = ddl::quietly(|| protect_prepared(target, &column))?;
        call.return_rows(rows(steps))
    };
    custody_protect_script, pg_finfo_custody_protect_script => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let column = call.name(1, "tenant_column")?;
        let timeout: String = call.required(2, "lock_timeout")?;
        let lines = script(target, &column, &timeout)?;
        call.return_values(lines.iter().map(|line| data::text(line)))
    };
    custody_tenant_key_script, pg_finfo_custody_tenant_key_script => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let steps = keys::script(target)?;
        call.return_rows(rows(steps))
    };
    custody_protect_schema, pg_finfo_custody_protect_schema => |call: &mut Call| {
        let (schema, column) = (call.name(0, "schema")?, call.name(1, "tenant_column")?);
        let audit: bool = call.required(2, "audit")?;
        let dry_run: bool = call.required(3, "dry_run")?;
        let report = ddl::quietly(|| schema::protect_schema(&schema, &column, audit, dry_run))?;
        call.return_rows(report.iter().map(|line| line.columns()))
    };
    custody_unprotect, pg_finfo_custody_unprotect => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        ddl::quietly(|| unprotect(target))?;
        Ok(VOID)
    };
    custody_register_shared, pg_finfo_custody_register_shared => |call: &mut Call| {
        let reason: String = call.required(1, "reason")?;
        let target: Oid = call.required(0, "target")?;
        ddl::quietly(|| register_shared(target, &reason))?;
        Ok(VOID)
    };
}

/// Steps as rows: step, object, sql, lock.
fn rows(steps: Vec<Step>) -> impl Iterator<Item = Vec<Nulled>> {
    let numbered = steps.into_iter().filter(|step| !step.sql.is_empty()).zip(1..);
    numbered.map(|(step, number): (Step, i32)| {
        vec![value(number), data::text(&step.object), data::text(&step.sql), data::text(step.lock)]
    })
}

/// What would protect a table and its partitions, each step in the form that the fewest wait for.
fn protection(target: Oid, column: &str) -> Result<Vec<Step>> {
    let mut steps = plan(&known(target, column)?, column, Way::Online);
    steps.append(&mut keys::oracles(target, column)?);
    Ok(steps)
}

/// Protects a table and its partitions in this transaction.
pub fn protect(target: Oid, column: &str) -> Result<Vec<Step>> {
    let tables = known(target, column)?;
    let mut steps = plan(&tables, column, Way::AtOnce);
    for step in steps.iter().filter(|step| !step.sql.is_empty()) {
        spi::run(&step.sql, &[])?;
    }
    for table in &tables {
        let of_table = steps.iter().rev().filter(|step| step.relid == table.relid);
        let mut undo: Vec<String> = of_table.filter_map(|step| step.undo.clone()).collect();
        undo.dedup();
        session::as_owner(|| {
            spi::run(
                "INSERT INTO custody.registered_table AS r (target, kind, tenant_column, undo) VALUES ($1, 'protected', $2::name, $3)
                 ON CONFLICT ON CONSTRAINT registered_table_pkey
                 DO UPDATE SET undo = excluded.undo OPERATOR(pg_catalog.||) r.undo, tenant_column = excluded.tenant_column
                 WHERE r.tenant_column OPERATOR(pg_catalog.<>) excluded.tenant_column OR excluded.undo OPERATOR(pg_catalog.<>) '{}'",
                &[table.relid.into(), column.into(), undo.into()],
            )
        })?;
    }
    crate::audit::table::forget(0);
    steps.append(&mut keys::oracles(target, column)?);
    Ok(steps)
}

/// Protects a table of which nothing long is left to do, or says what is.
fn protect_prepared(target: Oid, column: &str) -> Result<Vec<Step>> {
    let long: Vec<String> = plan(&known(target, column)?, column, Way::AtOnce)
        .into_iter()
        .filter(Step::is_long)
        .map(|step| format!("{} ({})", step.sql, step.lock))
        .collect();
    match long.is_empty() {
        true => protect(target, column),
        false => Err(Error::NotPrepared { table: session::relation_name(target), steps: long.join("; ") }),
    }
}

/// The statements that protect a live table, one by one; none if nothing is left to do.
fn script(target: Oid, column: &str, timeout: &str) -> Result<Vec<String>> {
    let tables = known(target, column)?;
    let steps = plan(&tables, column, Way::Online);
    if steps.is_empty() && tables.iter().all(|table| table.registered.is_some()) {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    let mut limited = false;
    for step in steps.iter().filter(|step| step.is_preparation()) {
        // Building an index waits for old transactions, and nobody for it; all else must not stand at the head of a queue.
        if !limited && !step.sql.contains("CONCURRENTLY") {
            lines.push(limit(timeout));
            limited = true;
        }
        lines.push(step.sql.clone());
    }
    if !limited {
        lines.push(limit(timeout));
    }
    lines.push(format!(
        "SELECT * FROM custody.protect_prepared({}, {})",
        quote_literal(&session::relation_name(target)),
        quote_literal(column)
    ));
    lines.push("RESET lock_timeout".into());
    Ok(lines)
}

fn limit(timeout: &str) -> String {
    format!("SET lock_timeout = {}", quote_literal(timeout))
}

/// What there is to know of a table that can be protected, and that the caller owns.
fn known(target: Oid, column: &str) -> Result<Vec<Facts>> {
    owned(target)?;
    let tables = facts(target, column)?;
    tables.iter().try_for_each(|table| check(table, column))?;
    Ok(tables)
}

fn check(table: &Facts, column: &str) -> Result<()> {
    let refuse =
        |why: String, hint: &str| Err(Error::CannotProtect { table: table.name.clone(), why, hint: hint.into() });
    if table.system {
        return refuse("It is a system table, or one of pg_custody's own.".into(), "");
    }
    if table.kind != "r" && table.kind != "p" {
        return refuse(
            "Row-level security exists for tables only.".into(),
            "For a view, ALTER VIEW … SET (security_invoker = on) over protected tables.",
        );
    }
    if table.persistence == "t" {
        return refuse("It is a temporary table.".into(), "A temporary table is its session's alone.");
    }
    if table.registered.as_deref() == Some("shared") {
        return refuse("It is registered as shared.".into(), "SELECT custody.unprotect(…) it first.");
    }
    if table.type_name.is_none() {
        return refuse(
            format!(
                "It has no column \"{column}\" of type text, varchar, uuid, smallint, integer or bigint, or of a domain over one of these but smallint."
            ),
            "Name the tenant column: custody.protect(target, tenant_column); or custody.register_shared(target, reason) reference data.",
        );
    }
    if table.generated {
        return refuse(
            format!("Its column \"{column}\" is generated, so no context can fill it."),
            "Use a plain column.",
        );
    }
    if !table.deterministic {
        return refuse(
            format!(
                "Its column \"{column}\" has a nondeterministic collation, to which different tenants may be equal."
            ),
            "ALTER the column to a deterministic collation, such as COLLATE \"C\".",
        );
    }
    Ok(())
}

/// Takes back what `protect` or `register_shared` did to a table and its partitions.
fn unprotect(target: Oid) -> Result<()> {
    const UNDO: &str = "SELECT r.target::pg_catalog.oid, r.undo, r.tenant_column::text FROM custody.registered_table r
        WHERE r.target OPERATOR(pg_catalog.=) $1 OR r.target IN (SELECT relid FROM pg_catalog.pg_partition_tree($1))
        ORDER BY r.target OPERATOR(pg_catalog.=) $1";
    let tables = session::as_owner(|| {
        spi::rows_now(UNDO, &[target.into()], |row| {
            let (undo, column) = (row.get::<Vec<String>>(2)?, row.get::<String>(3)?);
            Ok((row.get::<Oid>(1)?.unwrap_or(target), undo.unwrap_or_default(), column.unwrap_or_default()))
        })
    })?;
    if !tables.iter().any(|t| t.0 == target) {
        return Err(Error::NotProtected { table: session::relation_name(target) });
    }
    owned(target)?;
    for (relid, undo, column) in tables {
        let column = quote_ident(&column);
        let (schema, _) = session::relation_names(relid).unwrap_or_default();
        let (table, schema) = (session::relation_name(relid), quote_ident(&schema));
        for sql in undo {
            spi::run(&sql.replacen(COLUMN, &column, 1).replacen(SCHEMA, &schema, 1).replacen(TABLE, &table, 1), &[])?;
        }
        session::as_owner(|| {
            spi::run("DELETE FROM custody.registered_table r WHERE r.target OPERATOR(pg_catalog.=) $1", &[relid.into()])
        })?;
    }
    crate::audit::table::forget(0);
    Ok(())
}

fn register_shared(target: Oid, reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Error::BadArgument { name: "reason", why: "must not be empty".into() });
    }
    owned(target)?;
    let table = session::relation_name(target);
    if session::as_owner(|| crate::tenant::registry::tenant_column(target))?.is_some() {
        return Err(Error::CannotProtect {
            table,
            why: "It is protected: its rows belong to tenants.".into(),
            hint: "SELECT custody.unprotect(…) it first.".into(),
        });
    }
    // Whoever reaches custody_app, and PUBLIC: whatever they hold beyond reading.
    const GRANTEES: &str = r#"
WITH RECURSIVE app (oid) AS (
  SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'custody_app'
  UNION SELECT m.member FROM pg_catalog.pg_auth_members m JOIN app ON m.roleid = app.oid
), held AS (
  SELECT x.grantee, x.privilege_type FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x WHERE c.oid = $1
  UNION SELECT x.grantee, x.privilege_type FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x WHERE a.attrelid = $1
)
SELECT DISTINCT CASE WHEN h.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(h.grantee)) END
FROM held h
WHERE h.privilege_type <> 'SELECT' AND (h.grantee = 0 OR h.grantee IN (SELECT oid FROM app))
  AND h.grantee <> (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = $1)"#;
    let grantees = || spi::rows_now(GRANTEES, &[target.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()));
    for grantee in grantees()? {
        spi::run(
            &format!("REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON {table} FROM {grantee}"),
            &[],
        )?;
    }
    // What another role granted, only that role can revoke.
    let left = grantees()?;
    if !left.is_empty() {
        pgrx::warning!("{table} can still be written by {}: revoke what other roles granted", left.join(", "));
    }
    session::as_owner(|| {
        spi::run(
            "INSERT INTO custody.registered_table AS r (target, kind, reason) VALUES ($1, 'shared', $2)
             ON CONFLICT ON CONSTRAINT registered_table_pkey DO UPDATE SET reason = excluded.reason
             WHERE r.reason OPERATOR(pg_catalog.<>) excluded.reason",
            &[target.into(), reason.into()],
        )
    })
}

/// Refuses whoever does not own the table.
pub fn owned(target: Oid) -> Result<()> {
    const OWNED: &str =
        "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = $1";
    let owned = spi::rows_now(OWNED, &[target.into()], |row| Ok(row.get::<bool>(1)?.unwrap_or(false)))?;
    match owned.first() {
        Some(true) => Ok(()),
        _ => Err(Error::CannotProtect {
            table: session::relation_name(target),
            why: "You are not its owner.".into(),
            hint: "Do this as the table's owner or as a superuser.".into(),
        }),
    }
}

/// Text as SQL has it, whatever standard_conforming_strings says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// Brings partitions that joined a protected table under its protection.
pub fn protect_new_partitions() -> Result<()> {
    const NEW: &str = "SELECT DISTINCT p.relid::pg_catalog.oid, r.tenant_column::text
        FROM custody.registered_table r CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.target) p
        WHERE r.kind = 'protected' AND NOT EXISTS (SELECT FROM custody.registered_table x WHERE x.target OPERATOR(pg_catalog.=) p.relid)";
    let found = spi::rows_now(NEW, &[], |row| Ok((row.get::<Oid>(1)?, row.get::<String>(2)?)))?;
    for (relid, column) in found {
        if let (Some(relid), Some(column)) = (relid, column) {
            protect(relid, &column)?;
        }
    }
    Ok(())
}
