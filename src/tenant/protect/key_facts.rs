//! What the catalogs say of keys and foreign keys that lack the tenant column.

use crate::error::Result;
use crate::pg::call::Oid;
use crate::pg::{session, spi};
use crate::tenant::protect::plan::quote_ident;

/// A key without the tenant column.
pub struct Key {
    pub index: u32,
    pub index_name: String,
    pub schema: String,
    pub table: String,
    pub relid: Oid,
    pub partitioned: bool,
    pub tenant_column: String,
    /// p, u, x; none for an index that is no constraint.
    pub constraint: Option<(String, String)>,
    pub deferral: &'static str,
    /// As pg_get_indexdef and pg_get_constraintdef have them, up to and after the parenthesis before the first column.
    pub index_definition: Option<(String, String)>,
    pub constraint_definition: Option<(String, String)>,
    pub method: String,
    /// Whether an index of our name that can take its place is there; false if it is not valid.
    pub replacement: Option<bool>,
    /// A constraint of the user's already has these columns and the tenant.
    pub superseded: bool,
    /// Logical replication tells rows by it.
    pub identifies: bool,
    pub referring: Vec<String>,
    pub strangers: Vec<String>,
}

/// A foreign key without the tenant column, between two tenant tables.
pub struct Reference {
    pub oid: u32,
    pub name: String,
    pub relid: Oid,
    pub table: String,
    pub partitioned: bool,
    pub tenant_column: String,
    pub columns: Vec<String>,
    pub nullable: bool,
    pub referenced: String,
    pub referenced_partitioned: bool,
    pub referenced_column: String,
    pub referenced_columns: Vec<String>,
    pub full: bool,
    pub on_update: String,
    pub on_delete: String,
    pub set_columns: Vec<String>,
    pub deferral: &'static str,
    pub validated: bool,
    pub index: u32,
    /// Whether the referenced table has a unique index over the tenant and the columns.
    pub unique: bool,
    /// The tenant column of either side takes part, in another place.
    pub misused: bool,
    /// The constraint that replaces it, if it is there: whether it is validated.
    pub replacement: Option<bool>,
    /// The check that MATCH FULL becomes, if it is there: whether it is validated.
    pub match_full_check: Option<bool>,
}

// $1 the table, $2 the column it is, or is going to be, protected by.
const KEYS: &str = r#"
WITH tenant AS (
  SELECT r.target::oid AS relid, r.tenant_column FROM custody.registered_table r WHERE r.kind = 'protected' AND r.target <> $1
  UNION ALL SELECT $1, $2::name
)
SELECT x.indexrelid, i.relname::text, pg_catalog.quote_ident(s.nspname), pg_catalog.format('%I.%I', s.nspname, c.relname), c.relkind = 'p',
       n.contype::text, n.conname::text, coalesce(n.condeferrable, false), coalesce(n.condeferred, false),
       pg_catalog.pg_get_indexdef(x.indexrelid), pg_catalog.format('CREATE UNIQUE INDEX %I ON ', i.relname),
       pg_catalog.format('%I.%I USING %s (', s.nspname, c.relname, m.amname), pg_catalog.pg_get_constraintdef(n.oid), m.amname::text,
       (SELECT o.indisvalid AND o.indisready FROM pg_catalog.pg_index o JOIN pg_catalog.pg_class w ON w.oid = o.indexrelid
        WHERE o.indrelid = c.oid AND w.relname = pg_catalog.format('custody_key_%s', x.indexrelid)),
       n.contype = 'u' AND NOT x.indisreplident AND EXISTS (SELECT FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_index w ON w.indexrelid = o.conindid
         WHERE o.conrelid = c.oid AND o.contype IN ('p', 'u') AND NOT o.condeferrable AND w.indnullsnotdistinct = x.indnullsnotdistinct
           AND o.conkey @> (n.conkey || t.attnum) AND o.conkey <@ (n.conkey || t.attnum)),
       ARRAY(SELECT pg_catalog.format('%s.%I', f.conrelid::pg_catalog.regclass, f.conname) FROM pg_catalog.pg_constraint f
             WHERE f.contype = 'f' AND f.conindid = x.indexrelid AND f.conparentid = 0 AND f.conrelid IN (SELECT relid FROM tenant)),
       ARRAY(SELECT pg_catalog.format('%s.%I', f.conrelid::pg_catalog.regclass, f.conname) FROM pg_catalog.pg_constraint f
             WHERE f.contype = 'f' AND f.conindid = x.indexrelid AND f.conparentid = 0 AND f.conrelid NOT IN (SELECT relid FROM tenant)),
       x.indisreplident AND c.relreplident = 'i'
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
JOIN pg_catalog.pg_am m ON m.oid = i.relam
JOIN pg_catalog.pg_class c ON c.oid = x.indrelid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attname = $2::name AND NOT t.attisdropped
LEFT JOIN pg_catalog.pg_constraint n ON n.conindid = x.indexrelid AND n.conrelid = c.oid AND n.contype IN ('p', 'u', 'x')
WHERE x.indrelid = $1 AND (x.indisunique OR x.indisexclusion)
  AND NOT t.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
ORDER BY n.contype = 'p' DESC NULLS LAST, n.contype = 'x', i.relname"#;

const REFERENCES: &str = r#"
WITH tenant AS (
  SELECT r.target::oid AS relid, r.tenant_column FROM custody.registered_table r WHERE r.kind = 'protected' AND r.target <> $1
  UNION ALL SELECT $1, $2::name
)
SELECT f.oid, f.conname::text, pg_catalog.format('%I.%I', s.nspname, c.relname), c.relkind = 'p', a.tenant_column::text,
       k.columns, k.nullable, pg_catalog.format('%I.%I', z.nspname, r.relname), r.relkind = 'p', b.tenant_column::text, k.referenced,
       f.confmatchtype = 'f', f.confupdtype::text, f.confdeltype::text,
       ARRAY(SELECT pg_catalog.quote_ident(d.attname) FROM pg_catalog.unnest(f.confdelsetcols) u JOIN pg_catalog.pg_attribute d ON d.attrelid = c.oid AND d.attnum = u),
       f.condeferrable, f.condeferred, f.convalidated, f.conindid,
       EXISTS (SELECT FROM pg_catalog.pg_index x
               WHERE x.indrelid = r.oid AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
                 AND x.indnkeyatts = pg_catalog.cardinality(f.confkey) + 1
                 AND (x.indkey::int2[])[0:x.indnkeyatts - 1] @> (f.confkey || q.attnum)),
       p.attnum = ANY (f.conkey) OR q.attnum = ANY (f.confkey),
       (SELECT o.convalidated FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'f' AND o.conname = pg_catalog.format('custody_fk_%s', f.oid)),
       (SELECT o.convalidated FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c' AND o.conname = pg_catalog.left(f.conname, 50) || '_match_full'),
       c.oid
FROM pg_catalog.pg_constraint f
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
JOIN tenant a ON a.relid = c.oid
JOIN pg_catalog.pg_attribute p ON p.attrelid = c.oid AND p.attname = a.tenant_column AND NOT p.attisdropped
JOIN pg_catalog.pg_class r ON r.oid = f.confrelid
JOIN pg_catalog.pg_namespace z ON z.oid = r.relnamespace
JOIN tenant b ON b.relid = r.oid
JOIN pg_catalog.pg_attribute q ON q.attrelid = r.oid AND q.attname = b.tenant_column AND NOT q.attisdropped
CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(pg_catalog.quote_ident(d.attname) ORDER BY u.place) AS columns,
         pg_catalog.array_agg(pg_catalog.quote_ident(e.attname) ORDER BY u.place) AS referenced,
         pg_catalog.bool_or(NOT d.attnotnull) AS nullable,
         pg_catalog.bool_or(u.attnum = p.attnum AND f.confkey[u.place] = q.attnum) AS has_tenant
  FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS u (attnum, place)
  JOIN pg_catalog.pg_attribute d ON d.attrelid = c.oid AND d.attnum = u.attnum
  JOIN pg_catalog.pg_attribute e ON e.attrelid = r.oid AND e.attnum = f.confkey[u.place]
) k
WHERE f.contype = 'f' AND f.conparentid = 0 AND (f.conrelid = $1 OR f.confrelid = $1) AND NOT k.has_tenant
ORDER BY f.conrelid <> $1, 3, f.conname"#;

const SEQUENCES: &str = r#"
SELECT pg_catalog.format('%I.%I', n.nspname, q.relname), pg_catalog.quote_ident(a.attname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.refobjid = $1 AND d.deptype IN ('a', 'i')
ORDER BY 1"#;

fn deferral(deferrable: bool, deferred: bool) -> &'static str {
    match (deferrable, deferred) {
        (_, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        _ => "",
    }
}

/// A table's keys that lack the tenant column.
pub fn keys(target: Oid, column: &str) -> Result<Vec<Key>> {
    session::as_owner(|| {
        spi::rows_now(KEYS, &[target.into(), column.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            let flag = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            let (definition, head, on) = (text(10)?, text(11)?, text(12)?);
            // The name goes; a partitioned table's index is said to be ON ONLY it.
            let index_definition = definition.strip_prefix(&head).and_then(|rest| {
                let rest = rest.strip_prefix("ONLY ").unwrap_or(rest);
                rest.strip_prefix(&on).map(|columns| (on.clone(), columns.to_owned()))
            });
            let constraint_definition = row
                .get::<String>(13)?
                .and_then(|d| d.split_once('(').map(|(head, columns)| (format!("{head}("), columns.to_owned())));
            Ok(Key {
                index: row.get::<Oid>(1)?.map_or(0, |oid| oid.to_u32()),
                index_name: text(2)?,
                schema: text(3)?,
                table: text(4)?,
                relid: target,
                partitioned: flag(5)?,
                tenant_column: quote_ident(column),
                constraint: row.get::<String>(6)?.zip(row.get::<String>(7)?),
                deferral: deferral(flag(8)?, flag(9)?),
                index_definition,
                constraint_definition,
                method: text(14)?,
                replacement: row.get(15)?,
                superseded: flag(16)?,
                referring: row.get(17)?.unwrap_or_default(),
                strangers: row.get(18)?.unwrap_or_default(),
                identifies: flag(19)?,
            })
        })
    })
}

/// The foreign keys from a table and to it that lack it.
pub fn references(target: Oid, column: &str) -> Result<Vec<Reference>> {
    session::as_owner(|| {
        spi::rows_now(REFERENCES, &[target.into(), column.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            let flag = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            let list = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Vec<String>>(n)?.unwrap_or_default());
            let oid = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Oid>(n)?.map_or(0, |oid| oid.to_u32()));
            Ok(Reference {
                oid: oid(1)?,
                name: text(2)?,
                table: text(3)?,
                partitioned: flag(4)?,
                tenant_column: quote_ident(&text(5)?),
                columns: list(6)?,
                nullable: flag(7)?,
                referenced: text(8)?,
                referenced_partitioned: flag(9)?,
                referenced_column: quote_ident(&text(10)?),
                referenced_columns: list(11)?,
                full: flag(12)?,
                on_update: text(13)?,
                on_delete: text(14)?,
                set_columns: list(15)?,
                deferral: deferral(flag(16)?, flag(17)?),
                validated: flag(18)?,
                index: oid(19)?,
                unique: flag(20)?,
                misused: flag(21)?,
                replacement: row.get(22)?,
                match_full_check: row.get(23)?,
                relid: row.get(24)?.unwrap_or(target),
            })
        })
    })
}

/// The sequences of a table's columns, and the columns.
pub fn sequences(target: Oid) -> Result<Vec<(String, String)>> {
    session::as_owner(|| {
        spi::rows_now(SEQUENCES, &[target.into()], |row| {
            Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()))
        })
    })
}
