//! Mode protect: a table that came with the tenant column, or came by it, is protected and audited before the command ends.

use crate::error::Result;
use crate::guard::mode::{self, Mode};
use crate::pg::call::Oid;
use crate::pg::{session, spi};
use crate::tenant::{protect, registry};

struct Newcomer {
    relid: Oid,
    created: bool,
    /// The partitioned table at its top; itself, if it is no partition.
    root: Oid,
    /// The query that finds a row without a tenant, if there can be one.
    untenanted: Option<String>,
}

/// Takes in what the command under way created or gave the tenant column. Called by the event trigger that records DDL, before it
/// looks whether capture is whole, as the extension's owner.
pub fn take_in() -> Result<()> {
    let setting = mode::current()?;
    if setting.mode != Mode::Protect {
        return Ok(());
    }
    // Partitions of protected tables have their protection by now. A table with policies of its own is left to the findings.
    const NEW: &str = "WITH RECURSIVE touched (relid, created, depth) AS (
          SELECT d.objid, d.command_tag <> 'ALTER TABLE', 0 FROM pg_catalog.pg_event_trigger_ddl_commands() d
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
          UNION
          SELECT h.inhrelid, false, t.depth + 1 FROM touched t JOIN pg_catalog.pg_inherits h ON h.inhparent = t.relid
        )
        SELECT c.oid, pg_catalog.bool_or(t.created), coalesce(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid),
               CASE WHEN NOT a.attnotnull THEN pg_catalog.format('SELECT 1 FROM %I.%I x WHERE x.%I IS NULL LIMIT 1', n.nspname, c.relname, a.attname) END
        FROM touched t
        JOIN pg_catalog.pg_class c ON c.oid = t.relid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'custody') AND n.nspname !~ '^pg_'
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $1::name AND a.attnum > 0 AND NOT a.attisdropped
        WHERE NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid)
          AND NOT EXISTS (SELECT FROM custody.registered_table r WHERE r.target = c.oid)
        GROUP BY c.oid, n.nspname, c.relname, a.attnotnull, a.attname
        ORDER BY pg_catalog.max(t.depth), c.oid";
    let column = setting.tenant_column.as_str();
    let found = spi::rows_now(NEW, &[column.into()], |row| {
        Ok((row.get::<Oid>(1)?, row.get::<bool>(2)?.unwrap_or(true), row.get::<Oid>(3)?, row.get::<String>(4)?))
    })?;
    let mut taken = Vec::new();
    // Parents first: with a partitioned table its partitions are protected.
    for (relid, created, root, untenanted) in found {
        let (Some(relid), Some(root)) = (relid, root) else { continue };
        let table = Newcomer { relid, created, root, untenanted };
        if registry::tenant_column(relid)?.is_some() || !table.created && table.is_untenanted(column)? {
            continue;
        }
        protect::protect(relid, column)?;
        taken.push(table);
    }
    const OWNER: &str = "SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION custody.capture() TO %I', r.rolname)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
        WHERE c.oid = $1 AND c.relkind = 'p' AND NOT pg_catalog.has_function_privilege(r.oid, 'custody.capture()', 'EXECUTE')";
    // Children first: a table is not audited while a child of it is not. But partitions are, with their root.
    const RECORDED: &str = "SELECT 1 FROM custody.audited_member m WHERE m.relid = $1 LIMIT 1";
    for table in
        taken.iter().rev().filter(|t| setting.audit && (t.root == t.relid || !taken.iter().any(|r| r.relid == t.root)))
    {
        if spi::rows_now(RECORDED, &[table.relid.into()], |_| Ok(()))?.is_empty() {
            spi::run("SELECT custody.audit($1::pg_catalog.regclass)", &[table.relid.into()])?;
            // PostgreSQL gives new partitions their parent's row triggers as whoever creates them. The function refuses tables that
            // are not registered, so it is safe in an owner's hands.
            for sql in spi::rows_now(OWNER, &[table.relid.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))?
            {
                spi::run(&sql, &[])?;
            }
        }
    }
    Ok(())
}

impl Newcomer {
    /// Whether the table has rows of nobody yet, which is said.
    fn is_untenanted(&self, column: &str) -> Result<bool> {
        let Some(query) = &self.untenanted else { return Ok(false) };
        let found = !spi::rows_now(query, &[], |_| Ok(()))?.is_empty();
        if found {
            let table = session::relation_name(self.relid);
            pgrx::warning!(
                "{table} is not protected yet: its column \"{column}\" is NULL in some rows. Fill it, and ALTER TABLE … SET NOT NULL; the guard protects the table then"
            );
        }
        Ok(found)
    }
}
