//! Keys and references that do not name the tenant: through them a tenant can find out that another's row exists, or refer to it.
//! They are reported, with the SQL that mends them; a user's constraints are never touched here.

use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::{session, spi};
use crate::tenant::protect::plan::{REPORT, Step, quote_ident};
use crate::tenant::protect::{owned, quote_literal};

const CONCURRENTLY: &str = "SHARE UPDATE EXCLUSIVE: nobody waits; reads the table twice, outside a transaction block";
const BUILD: &str = "SHARE: writers wait while the index is built";
const EXCLUSIVE: &str = "ACCESS EXCLUSIVE: readers and writers wait, for an instant";
const REBUILD: &str = "ACCESS EXCLUSIVE: readers and writers wait while the index is built";
const REFER: &str = "SHARE ROW EXCLUSIVE on both tables: writers wait, for an instant";
const REFER_SCAN: &str = "SHARE ROW EXCLUSIVE on both tables: writers wait while they are read";
const VALIDATE: &str = "SHARE UPDATE EXCLUSIVE, ROW SHARE on the other table: nobody waits; reads the tables";
const NONE: &str = "no lock on tables";

/// A key without the tenant column.
struct Key {
    index: u32,
    index_name: String,
    schema: String,
    table: String,
    relid: Oid,
    partitioned: bool,
    tenant_column: String,
    /// p, u, x; none for an index that is no constraint.
    constraint: Option<(String, String)>,
    deferral: &'static str,
    /// As pg_get_indexdef and pg_get_constraintdef have them, up to and after the parenthesis before the first column.
    index_definition: Option<(String, String)>,
    constraint_definition: Option<(String, String)>,
    method: String,
    /// Whether an index of our name that can take its place is there; false if it is not valid.
    replacement: Option<bool>,
    /// A constraint of the user's already has these columns and the tenant.
    superseded: bool,
    /// Logical replication tells rows by it.
    identifies: bool,
    referring: Vec<String>,
    strangers: Vec<String>,
}

/// A foreign key without the tenant column, between two tenant tables.
struct Reference {
    oid: u32,
    name: String,
    relid: Oid,
    table: String,
    partitioned: bool,
    tenant_column: String,
    columns: Vec<String>,
    nullable: bool,
    referenced: String,
    referenced_partitioned: bool,
    referenced_column: String,
    referenced_columns: Vec<String>,
    full: bool,
    on_update: String,
    on_delete: String,
    set_columns: Vec<String>,
    deferral: &'static str,
    validated: bool,
    index: u32,
    /// Whether the referenced table has a unique index over the tenant and the columns.
    unique: bool,
    /// The tenant column of either side takes part, in another place.
    misused: bool,
    /// The constraint that replaces it, if it is there: whether it is validated.
    replacement: Option<bool>,
    renamed_check: bool,
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
       EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c' AND o.conname = pg_catalog.left(f.conname, 50) || '_match_full'),
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

fn keys(target: Oid, column: &str) -> Result<Vec<Key>> {
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

fn references(target: Oid, column: &str) -> Result<Vec<Reference>> {
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
                renamed_check: flag(23)?,
                relid: row.get(24)?.unwrap_or(target),
            })
        })
    })
}

fn step(relid: Oid, object: &str, sql: String, lock: &'static str) -> Step {
    Step { relid, object: object.to_owned(), sql, lock, undo: None }
}

/// One statement of several, so that nothing comes between them.
fn together(statements: &[String]) -> String {
    match statements {
        [one] => one.clone(),
        all => format!("DO {}", quote_literal(&format!("BEGIN {}; END", all.join("; ")))),
    }
}

/// A remark. A name may hold a line's end, behind which a comment would be a comment no more.
fn remark(text: &str) -> String {
    format!("-- {}", text.replace(['\n', '\r'], " "))
}

impl Key {
    fn replacement_name(&self) -> String {
        format!("custody_key_{}", self.index)
    }

    fn problem(&self) -> String {
        let name = self.constraint.as_ref().map_or(&self.index_name, |c| &c.1);
        format!(
            "key {} does not name the tenant: a duplicate tells that another tenant has the value",
            quote_ident(name)
        )
    }

    /// Why there is no SQL for it.
    fn obstacle(&self) -> Option<String> {
        if !self.strangers.is_empty() {
            let referring = self.strangers.join(", ");
            return Some(format!("{referring} refers to it, from a table without a tenant: protect that first"));
        }
        match self.index_definition.is_none() && self.constraint_definition.is_none() {
            true => Some("its definition is not understood: make it again with the tenant column".into()),
            false => None,
        }
    }

    fn is_exclusion(&self) -> bool {
        self.constraint.as_ref().is_some_and(|c| c.0 == "x")
    }

    /// Whether an index can be made beside it, to take its place.
    fn beside(&self) -> bool {
        !self.is_exclusion()
            && !self.superseded
            && (!self.partitioned || self.constraint.is_none() || !self.referring.is_empty())
    }

    /// The index that takes its place.
    fn prepare(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some((on, columns)) = self.index_definition.as_ref().filter(|_| self.beside()) else { return steps };
        let (name, tenant) = (self.replacement_name(), &self.tenant_column);
        let (how, lock) = match self.partitioned {
            true => ("", BUILD),
            false => (" CONCURRENTLY", CONCURRENTLY),
        };
        let mut step = |sql, lock| steps.push(step(self.relid, &self.table, sql, lock));
        if self.replacement == Some(false) {
            step(format!("DROP INDEX{how} {}.{name}", self.schema), if self.partitioned { EXCLUSIVE } else { lock });
        }
        if self.replacement != Some(true) {
            step(format!("CREATE UNIQUE INDEX{how} {name} ON {on}{tenant}, {columns}"), lock);
        }
        steps
    }

    /// Puts it in its place.
    fn replace(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let (name, tenant, table, schema) = (self.replacement_name(), &self.tenant_column, &self.table, &self.schema);
        let mut step = |sql, lock| steps.push(step(self.relid, table, sql, lock));
        let and_identify = |mut statements: Vec<String>, index: &str| {
            if self.identifies {
                statements.push(format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {index}"));
            }
            statements
        };
        match (&self.constraint, &self.constraint_definition) {
            (Some((_, old)), _) if self.superseded => {
                step(format!("ALTER TABLE {table} DROP CONSTRAINT {}", quote_ident(old)), EXCLUSIVE);
            }
            (Some((kind, old)), _) if !self.partitioned && kind != "x" => {
                let (old, key) = (quote_ident(old), if kind == "p" { "PRIMARY KEY" } else { "UNIQUE" });
                let deferral = self.deferral;
                let swap = format!(
                    "ALTER TABLE {table} DROP CONSTRAINT {old}, ADD CONSTRAINT {old} {key} USING INDEX {name}{deferral}"
                );
                step(together(&and_identify(vec![swap], &old)), EXCLUSIVE);
            }
            (Some((kind, old)), Some((head, columns))) => {
                let old = quote_ident(old);
                let equal = if kind == "x" { " WITH =" } else { "" };
                if kind == "x" && self.method == "gist" {
                    step("CREATE EXTENSION IF NOT EXISTS btree_gist".into(), NONE);
                }
                let swap = format!(
                    "ALTER TABLE {table} DROP CONSTRAINT {old}, ADD CONSTRAINT {old} {head}{tenant}{equal}, {columns}"
                );
                step(together(&and_identify(vec![swap], &old)), REBUILD);
            }
            _ => {
                let old = quote_ident(&self.index_name);
                let (drop, rename) =
                    (format!("DROP INDEX {schema}.{old}"), format!("ALTER INDEX {schema}.{name} RENAME TO {old}"));
                step(together(&and_identify(vec![drop, rename], &old)), EXCLUSIVE);
            }
        }
        steps
    }
}

impl Reference {
    fn problem(&self) -> String {
        let (name, referenced) = (quote_ident(&self.name), &self.referenced);
        format!(
            "foreign key {name} to {referenced} does not name the tenant: it tells whether another tenant's row exists, and may refer to it"
        )
    }

    fn obstacle(&self) -> Option<String> {
        if self.misused {
            return Some("the tenant column is part of it in another place: make it again by hand".into());
        }
        None
    }

    /// A unique index over what it will refer to.
    fn prepare(&self, named: &[String]) -> Vec<Step> {
        let name = format!("custody_key_{}", self.index);
        // Made for the key it refers to, when that is one of this table's.
        if self.unique || self.misused || named.contains(&name) {
            return Vec::new();
        }
        let (how, lock) = match self.referenced_partitioned {
            true => ("", BUILD),
            false => (" CONCURRENTLY", CONCURRENTLY),
        };
        let (table, tenant, columns) = (&self.referenced, &self.referenced_column, self.referenced_columns.join(", "));
        let sql = format!("CREATE UNIQUE INDEX{how} {name} ON {table} ({tenant}, {columns})");
        vec![step(self.relid, &self.referenced, sql, lock)]
    }

    fn replace(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let (table, new, old) = (&self.table, format!("custody_fk_{}", self.oid), quote_ident(&self.name));
        let mut step = |sql, lock| steps.push(step(self.relid, table, sql, lock));
        let columns = self.columns.join(", ");
        // With the tenant, which is never NULL, MATCH FULL would forbid what it allowed: all others NULL.
        if self.full && self.nullable && self.columns.len() > 1 && !self.renamed_check {
            let check: String = self.name.chars().take(50).collect::<String>() + "_match_full";
            let (check, count) = (quote_ident(&check), self.columns.len());
            step(
                format!(
                    "ALTER TABLE {table} ADD CONSTRAINT {check} CHECK (num_nulls({columns}) IN (0, {count})) NOT VALID"
                ),
                EXCLUSIVE,
            );
            step(format!("ALTER TABLE {table} VALIDATE CONSTRAINT {check}"), VALIDATE);
        }
        if self.replacement.is_none() {
            let on_update = match self.on_update.as_str() {
                "c" => " ON UPDATE CASCADE",
                "r" => " ON UPDATE RESTRICT",
                // These would take the tenant away with the rest: see `remark`.
                _ => "",
            };
            let set = match self.set_columns.is_empty() {
                true => columns.clone(),
                false => self.set_columns.join(", "),
            };
            let on_delete = match self.on_delete.as_str() {
                "c" => " ON DELETE CASCADE".into(),
                "r" => " ON DELETE RESTRICT".into(),
                "n" => format!(" ON DELETE SET NULL ({set})"),
                "d" => format!(" ON DELETE SET DEFAULT ({set})"),
                _ => String::new(),
            };
            // PostgreSQL 15 has no foreign keys NOT VALID on partitioned tables.
            let (not_valid, lock) = if self.partitioned { ("", REFER_SCAN) } else { (" NOT VALID", REFER) };
            step(
                format!(
                    "ALTER TABLE {table} ADD CONSTRAINT {new} FOREIGN KEY ({}, {columns}) REFERENCES {} ({}, {}){on_update}{on_delete}{}{not_valid}",
                    self.tenant_column,
                    self.referenced,
                    self.referenced_column,
                    self.referenced_columns.join(", "),
                    self.deferral
                ),
                lock,
            );
        }
        if self.validated && self.replacement != Some(true) && !self.partitioned {
            step(format!("ALTER TABLE {table} VALIDATE CONSTRAINT {new}"), VALIDATE);
        }
        let drop = format!("ALTER TABLE {table} DROP CONSTRAINT {old}");
        let rename = format!("ALTER TABLE {table} RENAME CONSTRAINT {new} TO {old}");
        step(together(&[drop, rename]), EXCLUSIVE);
        steps
    }

    /// What cannot be kept as it is.
    fn reservation(&self) -> Option<&'static str> {
        let loses = self.on_update == "n" || self.on_update == "d";
        loses.then_some("ON UPDATE SET NULL or SET DEFAULT would take the tenant away as well, so it becomes NO ACTION")
    }
}

/// What protect reports: each oracle in a row, with why and the SQL. Nothing is done.
pub fn oracles(target: Oid, column: &str) -> Result<Vec<Step>> {
    let mut found = Vec::new();
    let mut report = |object: &str, problem: String, steps: Vec<Step>| {
        let statements: String = steps.iter().map(|s| format!("\n{};", s.sql)).collect();
        found.push(step(target, object, format!("{}{statements}", remark(&problem)), REPORT));
    };
    for key in keys(target, column)? {
        match key.obstacle() {
            Some(why) => report(&key.table, format!("{}. {why}", key.problem()), Vec::new()),
            None => {
                let mut problem = key.problem();
                if !key.referring.is_empty() {
                    problem += &format!(". First those that refer to it: {}", key.referring.join(", "));
                }
                report(&key.table, problem, key.prepare().into_iter().chain(key.replace()).collect());
            }
        }
    }
    for reference in references(target, column)? {
        let steps = match reference.misused {
            true => Vec::new(),
            false => reference.prepare(&[]).into_iter().chain(reference.replace()).collect(),
        };
        let why = reference.obstacle().or_else(|| reference.reservation().map(str::to_owned));
        let problem = reference.problem() + &why.map(|w| format!(". {w}")).unwrap_or_default();
        report(&reference.table, problem, steps);
    }
    let sequences = session::as_owner(|| {
        spi::rows_now(SEQUENCES, &[target.into()], |row| {
            Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()))
        })
    })?;
    for (sequence, of) in sequences {
        let problem = format!(
            "sequence {sequence} of {of} counts all tenants' rows: from its own numbers a tenant tells how many the others made. A uuid tells nothing"
        );
        report(&sequence, problem, Vec::new());
    }
    Ok(found)
}

/// The statements that put the tenant column into the keys of a protected table, and into the foreign keys from it and to it.
pub fn script(target: Oid) -> Result<Vec<Step>> {
    owned(target)?;
    let table = session::relation_name(target);
    let column = session::as_owner(|| crate::tenant::registry::tenant_column(target))?;
    let Some(column) = column else { return Err(Error::NotProtected { table }) };
    let role = session::current_role();
    if session::why_unbound(role).is_none() {
        return Err(Error::WouldCheckNothing { table, role: session::role_name(role) });
    }
    let (keys, references) = (keys(target, &column)?, references(target, &column)?);
    let mut steps = Vec::new();
    let report = |why: String| step(target, &table, remark(&why), REPORT);
    let mut blocked = Vec::new();
    for reference in &references {
        if let Some(why) = reference.obstacle() {
            steps.push(report(format!("{}. {why}", reference.problem())));
            blocked.push(reference.index);
        }
        steps.extend(reference.reservation().map(|why| report(format!("{}: {why}", quote_ident(&reference.name)))));
    }
    let (able, unable): (Vec<_>, Vec<_>) =
        keys.iter().partition(|key| key.obstacle().is_none() && !blocked.contains(&key.index));
    for key in unable {
        let why = key.obstacle().unwrap_or_else(|| "a foreign key to it stands in the way".into());
        steps.push(report(format!("{}. {why}", key.problem())));
    }
    let mut named = Vec::new();
    for key in &able {
        if key.beside() {
            named.push(key.replacement_name());
        }
        steps.extend(key.prepare());
    }
    for reference in references.iter().filter(|r| !r.misused) {
        let prepared = reference.prepare(&named);
        if !prepared.is_empty() {
            named.push(format!("custody_key_{}", reference.index));
        }
        steps.extend(prepared);
    }
    for reference in references.iter().filter(|r| !r.misused) {
        steps.extend(reference.replace());
    }
    for key in &able {
        steps.extend(key.replace());
    }
    Ok(steps)
}
