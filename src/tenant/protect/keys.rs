//! Keys and references that do not name the tenant: through them a tenant can find out that another's row exists, or refer to it.
//! They are reported, with the SQL that mends them; a user's constraints are never touched here.

use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::session;
use crate::tenant::protect::key_facts::{Key, Reference, keys, references, sequences};
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
        if self.full && self.nullable && self.columns.len() > 1 {
            let check: String = self.name.chars().take(50).collect::<String>() + "_match_full";
            let (check, count) = (quote_ident(&check), self.columns.len());
            if self.match_full_check.is_none() {
                let all_or_none = format!("CHECK (num_nulls({columns}) IN (0, {count})) NOT VALID");
                step(format!("ALTER TABLE {table} ADD CONSTRAINT {check} {all_or_none}"), EXCLUSIVE);
            }
            if self.match_full_check != Some(true) {
                step(format!("ALTER TABLE {table} VALIDATE CONSTRAINT {check}"), VALIDATE);
            }
        }
        if self.replacement.is_none() {
            let on_update = match self.on_update.as_str() {
                "c" => " ON UPDATE CASCADE",
                "r" => " ON UPDATE RESTRICT",
                // These would take the tenant away with the rest: see `reservation`.
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
    for (sequence, of) in sequences(target)? {
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
