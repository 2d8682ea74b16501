//! What the catalogs say of the relation that is probed, and of those that its rows refer to.

use serde::Deserialize;

pub use custody_core::candidate::{Check, Column};

use crate::error::{Error, Result};
use crate::pg::attempt;
use crate::pg::call::Oid;
use crate::pg::session;

/// A table, view or partition.
#[derive(Debug, Clone, Deserialize)]
pub struct Relation {
    pub oid: u32,
    /// Qualified and quoted.
    pub name: String,
    pub schema: String,
    pub table: String,
    pub kind: String,
    pub owner: u32,
    /// The tenant column that the registry knows, and whether it is registered as shared.
    pub tenant: Option<String>,
    pub shared: bool,
    /// Whether triggers of users' may change a row before it is written.
    pub rewrites: bool,
    pub columns: Vec<Column>,
    /// Unique indexes and exclusion constraints.
    pub keys: Vec<UniqueKey>,
    pub references: Vec<Reference>,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct UniqueKey {
    pub name: String,
    /// Of plain columns only; an expression's are those that it names.
    pub columns: Vec<String>,
    /// Whether ON CONFLICT can name it: unique, whole, of plain columns, checked at once.
    pub arbiter: bool,
    pub primary: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Reference {
    pub name: String,
    pub columns: Vec<String>,
    pub parent: u32,
    pub parent_columns: Vec<String>,
    pub full: bool,
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The primary key, or another key of plain columns.
    pub fn key(&self) -> Option<&UniqueKey> {
        self.keys.iter().filter(|k| k.arbiter).max_by_key(|k| k.primary)
    }
}

/// The relation's facts. Runs as the extension's owner, with the function's own search_path.
pub fn relation(oid: u32) -> Result<Relation> {
    let sql = RELATION.replace("{oid}", &oid.to_string());
    let answer = look(&sql)?;
    let json = answer.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    let json = json.ok_or_else(|| Error::internal(format!("relation {oid} is gone")))?;
    serde_json::from_str(&json).map_err(|e| Error::internal(format!("relation {oid}: {e}")))
}

/// Asks as the extension's owner, who sees everything; for statements of ours with nothing of the user's in them but names
/// and constants.
pub fn look(sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    attempt::set_local("search_path", "pg_catalog, pg_temp", false);
    attempt::set_local("row_security", "on", false);
    Ok(session::as_owner(|| attempt::run(sql, 0))?.rows)
}

/// The one text that a query gives; none if it gives no row or NULL.
pub fn look_one(sql: &str) -> Result<Option<String>> {
    Ok(look(sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// A relation's oid as PostgreSQL's type.
pub fn oid(number: u32) -> Oid {
    Oid::from(number)
}

/// A string constant.
pub fn quote(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// An identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value of a column's type, as a constant.
pub fn literal(value: Option<&str>, type_name: &str) -> String {
    match value {
        Some(value) => format!("{}::{type_name}", quote(value)),
        None => format!("NULL::{type_name}"),
    }
}

const RELATION: &str = r#"
SELECT jsonb_build_object(
  'oid', c.oid::int8, 'name', format('%I.%I', n.nspname, c.relname), 'schema', n.nspname, 'table', c.relname, 'kind', c.relkind,
  'owner', c.relowner::int8,
  'tenant', (SELECT r.tenant_column FROM custody.registered_table r WHERE r.target = c.oid AND r.kind = 'protected'),
  'shared', EXISTS (SELECT FROM custody.registered_table r WHERE r.target = c.oid AND r.kind = 'shared'),
  'rewrites', EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype & 3 = 3),
  'columns', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'base', format_type(b.base, NULL),
      'length', CASE WHEN b.mod < 0 THEN NULL WHEN b.base IN (1560, 1562) THEN b.mod WHEN b.base = 1700 THEN ((b.mod - 4) >> 16) & 65535
                     WHEN b.base IN (1042, 1043) THEN b.mod - 4 END,
      'scale', CASE WHEN b.mod >= 0 AND b.base = 1700 THEN (b.mod - 4) & 2047 END,
      'domain', b.domain, 'type_oid', a.atttypid::int8, 'not_null', a.attnotnull OR b.not_null, 'default', pg_get_expr(d.adbin, d.adrelid),
      'identity', a.attidentity <> '', 'generated', a.attgenerated <> '',
      'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = b.base)) ORDER BY a.attnum), '[]')
    FROM pg_attribute a
    CROSS JOIN LATERAL (
      WITH RECURSIVE part AS (
        SELECT t.oid, t.typtype, t.typbasetype, t.typnotnull, CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE t.typtypmod END AS typmod, 1 AS depth FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL SELECT t.oid, t.typtype, t.typbasetype, t.typnotnull OR p.typnotnull, CASE WHEN p.typmod >= 0 THEN p.typmod ELSE t.typtypmod END, p.depth + 1
        FROM part p JOIN pg_type t ON t.oid = p.typbasetype WHERE p.typtype = 'd')
      SELECT p.oid AS base, p.typmod AS mod, p.typnotnull AS not_null,
        (SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k WHERE k.contypid IN (SELECT q.oid FROM part q)) AS domain
      FROM part p WHERE p.typtype <> 'd') AS b
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'keys', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', x.relname,
      'columns', (SELECT coalesce(jsonb_agg(DISTINCT a.attname), '[]') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                  AND (a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) OR EXISTS (
                    SELECT FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.objid = i.indexrelid AND p.refobjid = c.oid AND p.refobjsubid = a.attnum
                      AND 0 = ANY (i.indkey::int2[])))),
      'arbiter', i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid AND NOT i.indisexclusion,
      'primary', i.indisprimary) ORDER BY x.relname), '[]')
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)),
  'references', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', k.conname, 'parent', k.confrelid::int8, 'full', k.confmatchtype = 'f',
      'columns', (SELECT jsonb_agg(a.attname ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY u (num, place) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num),
      'parent_columns', (SELECT jsonb_agg(a.attname ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY u (num, place) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num)
      ) ORDER BY k.conname), '[]')
    FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f'
      -- A reference to a partitioned table has one for each partition, too.
      AND NOT EXISTS (SELECT FROM pg_constraint above WHERE above.oid = k.conparentid AND above.conrelid = k.conrelid)),
  'checks', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', x.name, 'columns', x.columns, 'expression', x.expression)), '[]')
    FROM (
      SELECT k.conname AS name, pg_get_expr(k.conbin, k.conrelid) AS expression,
        (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)) AS columns
      FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey <> '{}'
      UNION ALL
      SELECT 'partition', pg_get_partition_constraintdef(c.oid), p.columns FROM (
        SELECT (SELECT jsonb_agg(DISTINCT a.attname) FROM pg_partition_ancestors(c.oid) up JOIN pg_partitioned_table t ON t.partrelid = up.relid
                JOIN pg_attribute above ON above.attrelid = t.partrelid AND above.attnum = ANY (t.partattrs::int2[])
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = above.attname) AS columns) p
      WHERE c.relispartition AND pg_get_partition_constraintdef(c.oid) IS NOT NULL AND p.columns IS NOT NULL
      UNION ALL
      SELECT 'partitions', '(' || string_agg('(' || l.bound || ')', ' OR ') || ')', jsonb_agg(DISTINCT a.attname)
      FROM (SELECT pg_get_partition_constraintdef(t.relid) AS bound FROM pg_partition_tree(c.oid) t WHERE t.isleaf AND t.relid <> c.oid LIMIT 50) l,
           pg_partition_tree(c.oid) up JOIN pg_partitioned_table t ON t.partrelid = up.relid
           JOIN pg_attribute above ON above.attrelid = t.partrelid AND above.attnum = ANY (t.partattrs::int2[])
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = above.attname
      WHERE c.relkind = 'p' HAVING count(l.bound) > 0 AND count(a.attname) > 0) x (name, expression, columns)))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}
"#;
