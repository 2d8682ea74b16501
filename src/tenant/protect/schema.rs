//! custody.protect_schema: every table of a schema protected, or named with what stands in the way.

use std::collections::BTreeMap;

use crate::audit::register;
use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::data::{self, Nulled};
use crate::pg::{session, spi};
use crate::tenant::protect::facts::Facts;
use crate::tenant::protect::plan::{REPORT, Way, function, plan, quote_ident};
use crate::tenant::protect::{known, protect, quote_literal};
use custody_core::reconcile::baseline::Form;

/// A line of the report.
pub struct Line {
    object: String,
    kind: &'static str,
    state: &'static str,
    reason: String,
    sql: String,
}

impl Line {
    /// object, kind, state, reason, sql.
    pub fn columns(&self) -> Vec<Nulled> {
        let some = |text: &str| if text.is_empty() { None } else { data::text(text) };
        vec![
            data::text(&self.object),
            data::text(self.kind),
            data::text(self.state),
            some(&self.reason),
            some(&self.sql),
        ]
    }
}

const PROTECTED: &str = "protected";
const ALREADY: &str = "already";
const DECIDE: &str = "needs a decision";
const CANNOT: &str = "cannot";

struct Relation {
    relid: Oid,
    name: String,
    kind: String,
    partition: bool,
    root: Option<Oid>,
    root_here: bool,
    registered: Option<String>,
    registered_column: Option<String>,
    reason: Option<String>,
    audited: bool,
    tenant_column: bool,
    extension: Option<String>,
}

const RELATIONS: &str = r#"
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relispartition,
       o.root, coalesce((SELECT r.relnamespace = c.relnamespace FROM pg_catalog.pg_class r WHERE r.oid = o.root), false),
       g.kind, g.tenant_column::text, g.reason,
       EXISTS (SELECT FROM custody.audited_table a WHERE a.target = c.oid),
       EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2::name AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT x.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid)::oid END AS root) o
LEFT JOIN custody.registered_table g ON g.target = c.oid
WHERE n.nspname = $1::name AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
ORDER BY 2"#;

/// Foreign keys that lead from a table of the schema towards one that has a tenant.
struct Path {
    constraint: String,
    to: Oid,
    to_name: String,
    columns: Vec<String>,
    referenced: Vec<String>,
    nullable: bool,
    /// The referenced table's tenant column and its type, if it has one.
    tenant: Option<(String, String)>,
}

const PATHS: &str = r#"
SELECT f.conrelid, pg_catalog.quote_ident(f.conname), f.confrelid, pg_catalog.format('%I.%I', n.nspname, r.relname),
       k.columns, k.referenced, k.nullable, t.attname::text, pg_catalog.format_type(t.atttypid, t.atttypmod)
FROM pg_catalog.pg_constraint f
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname = $1::name
JOIN pg_catalog.pg_class r ON r.oid = f.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
LEFT JOIN custody.registered_table g ON g.target = r.oid
LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = r.oid AND t.attname = coalesce(g.tenant_column, $2::name) AND t.attnum > 0 AND NOT t.attisdropped
  AND g.kind IS DISTINCT FROM 'shared'
CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(pg_catalog.quote_ident(d.attname) ORDER BY u.place) AS columns,
         pg_catalog.array_agg(pg_catalog.quote_ident(e.attname) ORDER BY u.place) AS referenced,
         pg_catalog.bool_or(NOT d.attnotnull) AS nullable
  FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS u (attnum, place)
  JOIN pg_catalog.pg_attribute d ON d.attrelid = c.oid AND d.attnum = u.attnum
  JOIN pg_catalog.pg_attribute e ON e.attrelid = r.oid AND e.attnum = f.confkey[u.place]
) k
WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid <> f.conrelid AND g.kind IS DISTINCT FROM 'shared'
ORDER BY 1, k.nullable, 2"#;

fn paths(schema: &str, column: &str) -> Result<BTreeMap<u32, Vec<Path>>> {
    let found = session::as_owner(|| {
        spi::rows_now(PATHS, &[schema.into(), column.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            let list = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Vec<String>>(n)?.unwrap_or_default());
            let oid = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Oid>(n)?.unwrap_or(Oid::INVALID));
            let path = Path {
                constraint: text(2)?,
                to: oid(3)?,
                to_name: text(4)?,
                columns: list(5)?,
                referenced: list(6)?,
                nullable: row.get::<bool>(7)?.unwrap_or(true),
                tenant: row.get::<String>(8)?.zip(row.get::<String>(9)?),
            };
            Ok((oid(1)?.to_u32(), path))
        })
    })?;
    let mut by_table: BTreeMap<u32, Vec<Path>> = BTreeMap::new();
    for (from, path) in found {
        by_table.entry(from).or_default().push(path);
    }
    Ok(by_table)
}

/// How far each table is from one with a tenant, and the type that tenant column has; none if no foreign key leads there.
fn distances(paths: &BTreeMap<u32, Vec<Path>>) -> BTreeMap<u32, (usize, String)> {
    let mut known: BTreeMap<u32, (usize, String)> = BTreeMap::new();
    for path in paths.values().flatten() {
        if let Some((_, type_name)) = &path.tenant {
            known.insert(path.to.to_u32(), (0, type_name.clone()));
        }
    }
    loop {
        let mut found = Vec::new();
        for (from, ways) in paths {
            let nearest = ways.iter().filter_map(|way| known.get(&way.to.to_u32())).min_by_key(|(far, _)| *far);
            if let Some((far, type_name)) = nearest
                && !known.contains_key(from)
            {
                found.push((*from, (far + 1, type_name.clone())));
            }
        }
        if found.is_empty() {
            return known;
        }
        known.extend(found);
    }
}

/// The type's name as custody.tenant…() has it.
fn function_of(type_name: &str) -> Option<String> {
    let name = match type_name.split('(').next().unwrap_or_default() {
        "text" | "character varying" => "text",
        "uuid" => "uuid",
        "smallint" | "integer" => "int",
        "bigint" => "bigint",
        _ => return None,
    };
    Some(function(name))
}

/// What can be done about a table without a tenant column.
fn decision(table: &Relation, column: &str, ways: &[Path], far: &BTreeMap<u32, (usize, String)>) -> (String, String) {
    let own = quote_ident(column);
    let mut candidates: Vec<(&Path, usize, &str)> = ways
        .iter()
        .filter_map(|way| far.get(&way.to.to_u32()).map(|(distance, type_name)| (way, *distance, type_name.as_str())))
        .collect();
    // Nearest first; then the ones that are never NULL, which the query put first.
    candidates.sort_by_key(|candidate| (candidate.1, candidate.0.nullable));
    let shared =
        format!("SELECT custody.register_shared({}, 'why every tenant may read it')", quote_literal(&table.name));
    let Some((way, distance, type_name)) = candidates.first() else {
        let reason = format!(
            "it has no column {own}, and no foreign key leads to a table that has one: reference data is registered as shared, anything else needs the column"
        );
        return (reason, shared);
    };
    let all: Vec<String> = candidates.iter().map(|c| format!("{} to {}", c.0.constraint, c.0.to_name)).collect();
    let mut reason = format!("it has no column {own}; foreign keys say whose its rows are: {}", all.join(", "));
    if *distance > 0 {
        reason += &format!(". {} comes first: it has none either", way.to_name);
    }
    if way.nullable {
        reason += &format!(". Rows in which {} is null are to be given their tenant by hand", way.columns.join(", "));
    }
    let theirs = way.tenant.as_ref().map_or_else(|| own.clone(), |(name, _)| quote_ident(name));
    let join: Vec<String> = way.columns.iter().zip(&way.referenced).map(|(a, b)| format!("t.{a} = r.{b}")).collect();
    let default = match function_of(type_name) {
        Some(function) => format!("ALTER TABLE {} ALTER COLUMN {own} SET DEFAULT {function};\n", table.name),
        None => String::new(),
    };
    let sql = format!(
        "ALTER TABLE {name} ADD COLUMN {own} {type_name};\n{default}UPDATE {name} t SET {own} = r.{theirs} FROM {} r WHERE {} AND t.{own} IS NULL;\nSELECT * FROM custody.protect({}, {})",
        way.to_name,
        join.join(" AND "),
        quote_literal(&table.name),
        quote_literal(column),
        name = table.name
    );
    (reason, sql)
}

/// Protects what can be, in this transaction, and says of everything else in the schema what stands in the way.
pub fn protect_schema(schema: &str, column: &str, audit: bool, dry_run: bool) -> Result<Vec<Line>> {
    const KNOWN: &str = "SELECT 1 FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::name
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'custody') AND n.nspname !~ '^pg_(toast|temp)'";
    if spi::rows_now(KNOWN, &[schema.into()], |_| Ok(()))?.is_empty() {
        return Err(Error::NoSuchSchema { schema: schema.to_owned() });
    }
    let relations = session::as_owner(|| {
        spi::rows_now(RELATIONS, &[schema.into(), column.into()], |row| {
            let flag = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            Ok(Relation {
                relid: row.get(1)?.unwrap_or(Oid::INVALID),
                name: text(2)?,
                kind: text(3)?,
                partition: flag(4)?,
                root: row.get(5)?,
                root_here: flag(6)?,
                registered: row.get(7)?,
                registered_column: row.get(8)?,
                reason: row.get(9)?,
                audited: flag(10)?,
                tenant_column: flag(11)?,
                extension: row.get(12)?,
            })
        })
    })?;
    let ways = paths(schema, column)?;
    let far = distances(&ways);
    let mut report = Vec::new();
    for table in &relations {
        // Protected with the table above it, and no line of its own.
        if table.partition && table.root_here {
            continue;
        }
        let none = Vec::new();
        let ways = ways.get(&table.relid.to_u32()).unwrap_or(&none);
        report.push(one_table(table, column, ways, &far, audit, dry_run)?);
    }
    report.append(&mut around(schema)?);
    let open = report.iter().filter(|l| l.state == DECIDE || l.state == CANNOT).count();
    if open > 0 && !dry_run {
        pgrx::warning!(
            "{open} object(s) of schema {} still keep no tenants apart: see the rows that say \"{DECIDE}\" or \"{CANNOT}\"",
            quote_ident(schema)
        );
    }
    Ok(report)
}

fn one_table(
    table: &Relation,
    column: &str,
    ways: &[Path],
    far: &BTreeMap<u32, (usize, String)>,
    audit: bool,
    dry_run: bool,
) -> Result<Line> {
    let kind = match table.kind.as_str() {
        "p" => "partitioned table",
        "f" => "foreign table",
        _ if table.partition => "partition",
        _ => "table",
    };
    let line = |state, reason: String, sql: String| Line { object: table.name.clone(), kind, state, reason, sql };
    if table.kind == "f" {
        let reason =
            "row-level security does not exist for foreign tables: the other server decides, for the one user it knows";
        return Ok(line(CANNOT, reason.into(), format!("REVOKE ALL ON {} FROM PUBLIC, custody_app", table.name)));
    }
    if let Some(extension) = &table.extension {
        return Ok(line(CANNOT, format!("it belongs to the extension {}", quote_ident(extension)), String::new()));
    }
    if table.registered.as_deref() == Some("shared") {
        return Ok(line(ALREADY, format!("shared: {}", table.reason.as_deref().unwrap_or_default()), String::new()));
    }
    if table.partition && table.registered.is_none() {
        let root = table.root.map(session::relation_name).unwrap_or_default();
        let sql = format!("SELECT * FROM custody.protect({}, {})", quote_literal(&root), quote_literal(column));
        return Ok(line(DECIDE, format!("it is a partition of {root}, which is in another schema"), sql));
    }
    // A table that is protected by another column stays so.
    let column = table.registered_column.as_deref().unwrap_or(column);
    if !table.tenant_column && table.registered.is_none() {
        let (reason, sql) = decision(table, column, ways, far);
        return Ok(line(DECIDE, reason, sql));
    }
    let tables = match known(table.relid, column) {
        Ok(tables) => tables,
        Err(Error::CannotProtect { why, hint, .. }) => {
            return Ok(line(CANNOT, format!("{why} {hint}").trim().to_owned(), String::new()));
        }
        Err(other) => return Err(other),
    };
    let proved = |t: &Facts| t.not_null || t.own_check == Some(true);
    if tables.iter().any(|t| t.is_root && !proved(t)) && without_tenant(&table.name, column)? {
        let find = format!("SELECT * FROM {} WHERE {} IS NULL", table.name, quote_ident(column));
        return Ok(line(CANNOT, "it has rows without a tenant: say whose they are first".into(), find));
    }
    let mut lacking = plan(&tables, column, if dry_run { Way::Online } else { Way::AtOnce });
    lacking.retain(|step| !step.sql.is_empty());
    let registered = tables.iter().all(|t| t.registered.is_some());
    let mut reason = String::new();
    let mut sql = String::new();
    let state = match lacking.is_empty() && registered {
        true => ALREADY,
        false => PROTECTED,
    };
    let reported = match (state, dry_run) {
        (ALREADY, _) => super::keys::oracles(table.relid, column)?.len(),
        (_, true) => {
            sql = lacking.iter().map(|step| format!("{};\n", step.sql)).collect::<String>().trim_end().to_owned();
            super::keys::oracles(table.relid, column)?.len()
        }
        (_, false) => protect(table.relid, column)?.iter().filter(|step| step.lock == REPORT).count(),
    };
    if reported > 0 {
        reason = format!(
            "{reported} key(s) do not name the tenant: custody.tenant_key_script({}) gives the SQL",
            quote_literal(&table.name)
        );
    }
    if audit && !table.audited {
        let outcome = match dry_run {
            true => Ok(()),
            false => register::audit(table.relid, &[], &[], Form::Rows),
        };
        let words = match outcome {
            Ok(()) if dry_run => "would be audited".to_owned(),
            Ok(()) => "audited".to_owned(),
            Err(Error::CannotAudit { why, .. }) => format!("NOT AUDITED: {why}"),
            Err(other) => return Err(other),
        };
        reason = [words, reason].iter().filter(|w| !w.is_empty()).cloned().collect::<Vec<_>>().join("; ");
    }
    Ok(line(state, reason, sql))
}

/// Whether a row has no tenant. Under row-level security it sees none of them, and SET NOT NULL speaks up.
fn without_tenant(table: &str, column: &str) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {table} WHERE {} IS NULL LIMIT 1", quote_ident(column));
    Ok(!spi::rows_now(&sql, &[], |_| Ok(()))?.is_empty())
}

/// Views, materialized views and sequences of the schema that tell what policies on tables keep apart.
fn around(schema: &str) -> Result<Vec<Line>> {
    const VIEWS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind = 'm', pg_catalog.string_agg(DISTINCT r.source::pg_catalog.regclass::text, ', ')
        FROM custody.view_reach r
        JOIN custody.isolation_table t ON t.relid = r.source AND t.tenant
        JOIN pg_catalog.pg_class c ON c.oid = r.view
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1::name
        GROUP BY 1, 2 ORDER BY 1";
    const SEQUENCES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.string_agg(DISTINCT g.sql, ', ' ORDER BY g.sql)
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1::name
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) x
        JOIN custody.constrained_grantee g ON g.grantee = x.grantee
        WHERE c.relkind = 'S' GROUP BY 1 ORDER BY 1";
    session::as_owner(|| {
        let mut found = spi::rows_now(VIEWS, &[schema.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            let (object, tables) = (text(1)?, text(3)?);
            Ok(match row.get::<bool>(2)?.unwrap_or(false) {
                true => Line {
                    kind: "materialized view",
                    state: CANNOT,
                    reason: format!(
                        "it holds rows of {tables} as its owner saw them: row-level security does not exist for it"
                    ),
                    sql: format!("REVOKE ALL ON {object} FROM PUBLIC, custody_app"),
                    object,
                },
                false => Line {
                    kind: "view",
                    state: DECIDE,
                    reason: format!("it reads {tables} with its owner's rights"),
                    sql: format!("ALTER VIEW {object} SET (security_invoker = on)"),
                    object,
                },
            })
        })?;
        found.extend(spi::rows_now(SEQUENCES, &[schema.into()], |row| {
            let text = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<String>(n)?.unwrap_or_default());
            Ok(Line {
                object: text(1)?,
                kind: "sequence",
                state: REPORT,
                reason: format!(
                    "every tenant draws from it ({} may): its numbers tell how many rows the others made",
                    text(2)?
                ),
                sql: String::new(),
            })
        })?);
        Ok(found)
    })
}
