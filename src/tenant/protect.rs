//! custody.protect, unprotect and register_shared: what makes a table keep its tenants apart, step by step, and how to take it back.

use crate::audit::ddl;
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID, value};
use crate::pg::{data, session, spi};
use crate::sql_functions;

sql_functions! {
    custody_protect, pg_finfo_custody_protect => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let column = call.name(1, "tenant_column")?;
        let dry_run: bool = call.required(2, "dry_run")?;
        let steps = ddl::quietly(|| protect(target, &column, dry_run))?;
        let rows = steps.into_iter().zip(1..).map(|(step, number): (Step, i32)| {
            vec![value(number), data::text(&step.object), data::text(&step.sql), data::text(step.lock)]
        });
        call.return_rows(rows)
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

/// One thing to do to a table, and what undoes it; or, with the lock `report`, one thing to know.
pub struct Step {
    pub object: String,
    pub sql: String,
    pub lock: &'static str,
    undo: Option<String>,
}

/// What the catalogs say of a table or a partition of it.
struct Facts {
    relid: Oid,
    name: String,
    index_name: String,
    is_root: bool,
    kind: String,
    persistence: String,
    system: bool,
    enabled: bool,
    forced: bool,
    /// The tenant column: its type as `function` takes it, none if the column is missing.
    type_name: Option<String>,
    expression: Option<String>,
    not_null: bool,
    has_default: bool,
    generated: bool,
    deterministic: bool,
    indexed: bool,
    permissive: bool,
    floor: bool,
    trigger: bool,
    registered: Option<String>,
    policies: Vec<String>,
}

const FACTS: &str = r#"
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('custody_tenant_%s', c.oid),
       c.oid OPERATOR(pg_catalog.=) $1, c.relkind::text, c.relpersistence::text,
       n.nspname IN ('pg_catalog', 'information_schema', 'custody') OR n.nspname LIKE 'pg\_toast%', c.relrowsecurity, c.relforcerowsecurity,
       t.type_name, t.expression, coalesce(a.attnotnull, false), coalesce(a.atthasdef, false), coalesce(a.attgenerated <> '' OR a.attidentity <> '', false),
       coalesce((SELECT k.collisdeterministic FROM pg_catalog.pg_collation k WHERE k.oid = a.attcollation), true),
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid),
       EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'custody_tenant' AND p.polpermissive AND p.polcmd = '*'
               AND p.polroles = '{0}' AND pg_catalog.pg_get_expr(p.polqual, c.oid) = t.expression AND pg_catalog.pg_get_expr(p.polwithcheck, c.oid) = t.expression),
       EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'custody_floor' AND NOT p.polpermissive AND p.polcmd = '*'
               AND p.polroles = '{0}' AND pg_catalog.pg_get_expr(p.polqual, c.oid) = t.expression AND pg_catalog.pg_get_expr(p.polwithcheck, c.oid) = t.expression),
       EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '!custody_require_context' AND g.tgenabled = 'A'
               AND g.tgfoid = 'custody.require_context()'::pg_catalog.regprocedure),
       (SELECT r.kind FROM custody.registered_table r WHERE r.target = c.oid),
       ARRAY(SELECT p.polname::text FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid)
FROM (SELECT $1 AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1)) tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2::name AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN LATERAL (
  SELECT w.type_name, pg_catalog.format(w.shape, $2::name) AS expression
  FROM (VALUES ('text', 'text', '(%I = custody.tenant())'), ('character varying', 'text', '((%I)::text = custody.tenant())'),
               ('uuid', 'uuid', '(%I = custody.tenant_uuid())'), ('smallint', 'int', '(%I = custody.tenant_int())'),
               ('integer', 'int', '(%I = custody.tenant_int())'), ('bigint', 'bigint', '(%I = custody.tenant_bigint())')) AS w (type, type_name, shape)
  WHERE w.type = pg_catalog.format_type(a.atttypid, NULL)
) t ON true
ORDER BY c.oid OPERATOR(pg_catalog.<>) $1, 2"#;

fn facts(target: Oid, column: &str) -> Result<Vec<Facts>> {
    session::as_owner(|| {
        spi::rows_now(FACTS, &[target.into(), column.into()], |row| {
            let flag = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            Ok(Facts {
                relid: row.get(1)?.unwrap_or(target),
                name: text(2)?,
                index_name: text(3)?,
                is_root: flag(4)?,
                kind: text(5)?,
                persistence: text(6)?,
                system: flag(7)?,
                enabled: flag(8)?,
                forced: flag(9)?,
                type_name: row.get(10)?,
                expression: row.get(11)?,
                not_null: flag(12)?,
                has_default: flag(13)?,
                generated: flag(14)?,
                deterministic: flag(15)?,
                indexed: flag(16)?,
                permissive: flag(17)?,
                floor: flag(18)?,
                trigger: flag(19)?,
                registered: row.get(20)?,
                policies: row.get(21)?.unwrap_or_default(),
            })
        })
    })
}

/// Protects a table and its partitions; with `dry_run`, only says how.
pub fn protect(target: Oid, column: &str, dry_run: bool) -> Result<Vec<Step>> {
    owned(target)?;
    let tables = facts(target, column)?;
    let mut all = Vec::new();
    for table in &tables {
        check(table, column)?;
        let mut steps = plan(table, column);
        if !dry_run {
            for step in &steps {
                spi::run(&step.sql, &[])?;
            }
            let mut undo: Vec<String> = steps.iter().rev().filter_map(|s| s.undo.clone()).collect();
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
            crate::audit::table::forget(0);
        }
        all.append(&mut steps);
    }
    all.append(&mut oracles(target, column)?);
    Ok(all)
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
            format!("It has no column \"{column}\" of type text, varchar, uuid, smallint, integer or bigint."),
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

/// Stand, in statements that undo, for what the table, its schema and its tenant column are called when they run.
const TABLE: &str = "{table}";
const SCHEMA: &str = "{schema}";
const COLUMN: &str = "{column}";

/// The steps that this table still lacks. Nothing here reads or writes.
fn plan(table: &Facts, column: &str) -> Vec<Step> {
    const EXCLUSIVE: &str = "ACCESS EXCLUSIVE, short";
    let name = &table.name;
    let column = quote_ident(column);
    let (Some(type_name), Some(expression)) = (&table.type_name, &table.expression) else { return Vec::new() };
    let function = match type_name.as_str() {
        "text" => "custody.tenant()".to_owned(),
        other => format!("custody.tenant_{other}()"),
    };
    let mut steps = Vec::new();
    let mut step = |needed: bool, sql: String, lock, undo: Option<String>| {
        if needed {
            steps.push(Step { object: name.clone(), sql, lock, undo });
        }
    };
    step(
        table.is_root && !table.not_null,
        format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"),
        "ACCESS EXCLUSIVE, reads the table",
        Some(format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} DROP NOT NULL")),
    );
    step(
        table.is_root && !table.has_default,
        format!("ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT {function}"),
        EXCLUSIVE,
        Some(format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} DROP DEFAULT")),
    );
    step(
        table.is_root && !table.indexed,
        format!("CREATE INDEX {} ON {name} ({column})", table.index_name),
        "SHARE, writers wait; or create it CONCURRENTLY before",
        Some(format!("DROP INDEX IF EXISTS {SCHEMA}.{}", table.index_name)),
    );
    for (there, policy, kind) in
        [(table.permissive, "custody_tenant", "PERMISSIVE"), (table.floor, "custody_floor", "RESTRICTIVE")]
    {
        let other = !there && table.policies.iter().any(|p| p == policy);
        step(other, format!("DROP POLICY {policy} ON {name}"), EXCLUSIVE, None);
        step(
            !there,
            format!(
                "CREATE POLICY {policy} ON {name} AS {kind} FOR ALL TO PUBLIC USING {expression} WITH CHECK {expression}"
            ),
            EXCLUSIVE,
            Some(format!("DROP POLICY IF EXISTS {policy} ON {TABLE}")),
        );
    }
    step(
        !table.enabled,
        format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"),
        EXCLUSIVE,
        Some(format!("ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY")),
    );
    step(
        !table.forced,
        format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"),
        EXCLUSIVE,
        Some(format!("ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY")),
    );
    step(
        !table.trigger,
        format!(
            "CREATE OR REPLACE TRIGGER \"!custody_require_context\" BEFORE INSERT OR UPDATE OR DELETE ON {name} \
             FOR EACH STATEMENT EXECUTE FUNCTION custody.require_context('{type_name}')"
        ),
        "SHARE ROW EXCLUSIVE, short",
        Some(format!("DROP TRIGGER IF EXISTS \"!custody_require_context\" ON {TABLE}")),
    );
    step(
        !table.trigger,
        format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER \"!custody_require_context\""),
        "SHARE ROW EXCLUSIVE, short",
        None,
    );
    steps
}

/// Keys and references that do not name the tenant: through them a tenant can find out that another's row exists. Reported only.
fn oracles(target: Oid, column: &str) -> Result<Vec<Step>> {
    const KEYS: &str = r#"
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       CASE k.contype WHEN 'f' THEN
         pg_catalog.format('-- %s does not name the tenant: it tells whether another tenant''s row exists, and may refer to it. Rather: %s (%I, …) REFERENCES …(%I, …)',
           k.conname, 'FOREIGN KEY', $2, $2)
       ELSE
         pg_catalog.format('-- %s does not name the tenant: a duplicate tells that another tenant has the value. Rather: ALTER TABLE %I.%I DROP CONSTRAINT %I, ADD %s (%I, %s)',
           k.conname, n.nspname, c.relname, k.conname, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, $2,
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY u.place)
            FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (attnum, place) JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum))
       END
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attname = $2::name
WHERE k.conrelid = $1 AND k.contype IN ('p', 'u', 'f') AND NOT t.attnum = ANY (k.conkey)
  AND (k.contype <> 'f' OR EXISTS (SELECT FROM custody.registered_table r WHERE r.target = k.confrelid AND r.kind = 'protected'))
ORDER BY k.contype, k.conname"#;
    session::as_owner(|| {
        spi::rows_now(KEYS, &[target.into(), column.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            // A name may hold a line's end, behind which a comment would be a comment no more.
            let sql = text(2)?.replace(['\n', '\r'], " ");
            Ok(Step { object: text(1)?, sql, lock: "report", undo: None })
        })
    })
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

fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Brings partitions that joined a protected table under its protection.
pub fn protect_new_partitions() -> Result<()> {
    const NEW: &str = "SELECT DISTINCT p.relid::pg_catalog.oid, r.tenant_column::text
        FROM custody.registered_table r CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.target) p
        WHERE r.kind = 'protected' AND NOT EXISTS (SELECT FROM custody.registered_table x WHERE x.target OPERATOR(pg_catalog.=) p.relid)";
    let found = spi::rows_now(NEW, &[], |row| Ok((row.get::<Oid>(1)?, row.get::<String>(2)?)))?;
    for (relid, column) in found {
        if let (Some(relid), Some(column)) = (relid, column) {
            protect(relid, &column, false)?;
        }
    }
    Ok(())
}
