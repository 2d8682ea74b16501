//! What the catalogs say of a table that is to be protected, and of its partitions.

use crate::error::Result;
use crate::pg::call::Oid;
use crate::pg::{session, spi};

/// A table or a partition of it.
pub struct Facts {
    pub relid: Oid,
    pub name: String,
    pub schema: String,
    /// What an index of ours on it is called.
    pub index_name: String,
    pub is_root: bool,
    pub kind: String,
    pub persistence: String,
    pub system: bool,
    pub enabled: bool,
    pub forced: bool,
    /// The tenant column: its type as `function` takes it, none if the column is missing.
    pub type_name: Option<String>,
    pub expression: Option<String>,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
    pub deterministic: bool,
    /// Whether an index is led by the tenant column.
    pub indexed: bool,
    /// The index of our name, if there is one: whether it is usable.
    pub own_index: Option<bool>,
    /// The check of our name that the tenant column is not null, if there is one: whether it is validated.
    pub own_check: Option<bool>,
    pub permissive: bool,
    pub floor: bool,
    pub trigger: bool,
    pub registered: Option<String>,
    pub undo: Vec<String>,
    pub policies: Vec<String>,
}

const FACTS: &str = r#"
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('custody_tenant_%s', c.oid),
       c.oid OPERATOR(pg_catalog.=) $1, c.relkind::text, c.relpersistence::text,
       n.nspname IN ('pg_catalog', 'information_schema', 'custody') OR n.nspname LIKE 'pg\_toast%', c.relrowsecurity, c.relforcerowsecurity,
       t.type_name, t.expression, coalesce(a.attnotnull, false), coalesce(a.atthasdef, false), coalesce(a.attgenerated <> '' OR a.attidentity <> '', false),
       coalesce((SELECT k.collisdeterministic FROM pg_catalog.pg_collation k WHERE k.oid = a.attcollation), true),
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid),
       EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'custody_tenant' AND p.polpermissive AND p.polcmd = '*'
               AND p.polroles IN ('{0}', ARRAY['custody_app'::pg_catalog.regrole::oid]) AND pg_catalog.pg_get_expr(p.polqual, c.oid) = t.expression AND pg_catalog.pg_get_expr(p.polwithcheck, c.oid) = t.expression),
       EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'custody_floor' AND NOT p.polpermissive AND p.polcmd = '*'
               AND p.polroles = '{0}' AND pg_catalog.pg_get_expr(p.polqual, c.oid) = t.expression AND pg_catalog.pg_get_expr(p.polwithcheck, c.oid) = t.expression),
       EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '!custody_require_context' AND g.tgenabled = 'A'
               AND g.tgfoid = 'custody.require_context()'::pg_catalog.regprocedure),
       (SELECT r.kind FROM custody.registered_table r WHERE r.target = c.oid),
       ARRAY(SELECT p.polname::text FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid),
       (SELECT i.indisvalid AND i.indisready AND i.indkey[0] = a.attnum AND i.indpred IS NULL
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND x.relname = pg_catalog.format('custody_tenant_%s', c.oid)),
       (SELECT k.convalidated FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conname = 'custody_tenant_not_null'
          AND pg_catalog.pg_get_expr(k.conbin, c.oid) = pg_catalog.format('(%I IS NOT NULL)', $2::name)),
       coalesce((SELECT r.undo FROM custody.registered_table r WHERE r.target = c.oid), '{}'), pg_catalog.quote_ident(n.nspname)
FROM (SELECT $1 AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1)) tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2::name AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN LATERAL (
  -- What a domain, or a domain over one, is made of.
  WITH RECURSIVE made (oid, depth) AS (
    SELECT a.atttypid, 0 UNION ALL SELECT y.typbasetype, m.depth + 1 FROM made m JOIN pg_catalog.pg_type y ON y.oid = m.oid WHERE y.typtype = 'd'
  )
  SELECT CASE WHEN m.depth > 0 THEN 'domain over ' ELSE '' END || pg_catalog.format_type(m.oid, NULL) AS type FROM made m ORDER BY m.depth DESC LIMIT 1
) base ON true
LEFT JOIN LATERAL (
  SELECT w.type_name, pg_catalog.format(w.shape, $2::name) AS expression
  FROM (VALUES ('text', 'text', '(%I = custody.tenant())'), ('character varying', 'text', '((%I)::text = custody.tenant())'),
               ('uuid', 'uuid', '(%I = custody.tenant_uuid())'), ('smallint', 'int', '(%I = custody.tenant_int())'),
               ('integer', 'int', '(%I = custody.tenant_int())'), ('bigint', 'bigint', '(%I = custody.tenant_bigint())'),
               ('domain over text', 'text', '((%I)::text = custody.tenant())'), ('domain over character varying', 'text', '((%I)::text = custody.tenant())'),
               ('domain over uuid', 'uuid', '((%I)::uuid = custody.tenant_uuid())'), ('domain over integer', 'int', '((%I)::integer = custody.tenant_int())'),
               ('domain over bigint', 'bigint', '((%I)::bigint = custody.tenant_bigint())')) AS w (type, type_name, shape)
  WHERE w.type = base.type
) t ON true
ORDER BY c.oid OPERATOR(pg_catalog.<>) $1, 2"#;

/// The table first, then its partitions.
pub fn facts(target: Oid, column: &str) -> Result<Vec<Facts>> {
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
                own_index: row.get(22)?,
                own_check: row.get(23)?,
                undo: row.get(24)?.unwrap_or_default(),
                schema: text(25)?,
            })
        })
    })
}
