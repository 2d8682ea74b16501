//! What is attempted on a table, or on a partition of it, and what each outcome means.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::build::{Builder, Row, Values, condition, existing, insertion, stored, words};
use super::facts::{Relation, UniqueKey, ident, literal, look, look_one, quote};
use super::{Finding, Outcome, Side, invented, untouched};
use crate::error::Result;
use crate::pg::attempt::{self, Answer, Caught};
use crate::tenant::context;

pub struct Prober<'a> {
    pub builder: Builder,
    pub role: u32,
    pub found: &'a mut Vec<Finding>,
    pub notes: Vec<String>,
    pub target: Rc<Relation>,
}

/// A context to attempt things in.
#[derive(Clone)]
pub struct Ctx {
    pub label: &'static str,
    pub tenant: Option<String>,
}

/// What it means if a constraint, and not a policy, stops a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Policies are tested first, so they had let it pass.
    Leaked,
    /// The duplicate itself is what must not be told.
    Told,
    /// A missing tenant is refused by NOT NULL as well.
    NoTenant,
    /// The statement did nothing, and another outcome would have been no better for the attacker.
    Harmless,
    Undecided,
}

pub type Verdict = (Outcome, String);

pub fn passed(detail: impl Into<String>) -> Result<Verdict> {
    Ok((Outcome::Passed, detail.into()))
}

pub fn leaked(detail: impl Into<String>) -> Result<Verdict> {
    Ok((Outcome::Leaked, detail.into()))
}

pub fn undecided(detail: impl Into<String>) -> Result<Verdict> {
    Ok((Outcome::Undecided, detail.into()))
}

/// A table as one tenant meets it, with another's rows in it.
struct Scene<'a> {
    relation: &'a Relation,
    route: String,
    column: &'a str,
    /// The tenant column, and its type's name.
    tenant: String,
    tenant_type: String,
    readable: BTreeSet<String>,
    insertable: BTreeSet<String>,
    /// A column to update with the value that it has.
    harmless: Option<String>,
}

impl Scene<'_> {
    /// Whether a row is a tenant's, as no operator of a user's can decide.
    fn is(&self, tenant: &str) -> String {
        format!("({} OPERATOR(pg_catalog.=) {})", self.tenant, literal(Some(tenant), &self.tenant_type))
    }

    fn is_not(&self, tenant: &str) -> String {
        format!("{} IS NOT TRUE", self.is(tenant))
    }

    /// `SET column = value` that changes nothing in the given row.
    fn set(&self, row: &Row) -> Option<String> {
        let column = self.relation.column(self.harmless.as_deref()?)?;
        let value = row.stored.get(&column.name)?;
        Some(format!("{} = {}", ident(&column.name), literal(value.as_deref(), &column.type_name)))
    }

    /// The row by its key; by its tenant if it has none.
    fn by_key(&self, row: &Row) -> Option<String> {
        let key = self.relation.key()?;
        let terms: Option<Vec<String>> = key
            .columns
            .iter()
            .map(|name| {
                let column = self.relation.column(name)?;
                let value = row.stored.get(name)?.as_deref()?;
                let equals = if column.base.contains('.') { "=" } else { "OPERATOR(pg_catalog.=)" };
                Some(format!("{} {equals} {}", ident(name), literal(Some(value), &column.type_name)))
            })
            .collect();
        Some(terms?.join(" AND "))
    }

    fn insert(&self, values: &Values) -> String {
        insertion(self.relation, &self.relation.name, values, |c| {
            self.insertable.is_empty() || self.insertable.contains(c) || (c == self.column && values.contains_key(c))
        })
    }

    /// Whether a row with a key's values is a tenant's now.
    fn holds(&self, values: &Values, of: &str) -> Result<bool> {
        let mut wanted: Values = match self.relation.key() {
            Some(key) => values
                .iter()
                .filter(|(c, v)| key.columns.contains(c) && v.is_some())
                .map(|(c, v)| (c.clone(), v.clone()))
                .collect(),
            None => values.iter().filter(|(_, v)| v.is_some()).map(|(c, v)| (c.clone(), v.clone())).collect(),
        };
        wanted.remove(self.column);
        let rest = condition(self.relation, &wanted);
        Ok(!look(&format!("SELECT 1 FROM {} WHERE {of} AND {rest} LIMIT 1", self.relation.name))?.is_empty())
    }
}

impl Prober<'_> {
    pub fn note(&mut self, attempt: &str, route: &str, ctx: Option<&Ctx>, verdict: Verdict) {
        self.found.push(Finding {
            attempt: attempt.to_owned(),
            route: route.to_owned(),
            context: ctx.map(|c| c.label.to_owned()),
            outcome: verdict.0,
            detail: verdict.1,
        });
    }

    /// Attempts something in a subtransaction of its own.
    pub fn attempt(
        &mut self,
        name: &str,
        route: &str,
        relation: &Relation,
        ctx: &Ctx,
        stopped: Stopped,
        work: impl FnOnce(&Builder, u32) -> Result<Verdict>,
    ) -> Result<Outcome> {
        let verdict = match attempt::rolled_back(|| work(&self.builder, self.role))? {
            Ok(verdict) => verdict,
            Err(caught) => self.refused(relation, &caught, stopped),
        };
        let outcome = verdict.0;
        self.note(name, route, Some(ctx), verdict);
        Ok(outcome)
    }

    /// What an error means.
    fn refused(&self, relation: &Relation, caught: &Caught, stopped: Stopped) -> Verdict {
        let said = words(caught);
        let incidental = caught.message.contains("security-restricted operation") || {
            // Something else that a trigger or a default needs may be out of reach.
            let denied = caught.message.strip_prefix("permission denied for ");
            denied.is_some_and(|what| {
                let name = what.split_once(' ').map_or(what, |(_, name)| name);
                ![&relation.table, &relation.schema, &self.target.table, &self.target.schema].iter().any(|n| *n == name)
            })
        };
        let outcome = match caught.sqlstate.as_str() {
            // Said of a row that a policy for reading should have hidden.
            "42501" if caught.message.starts_with("target row violates row-level security") => {
                return (Outcome::Leaked, format!("it tells that others' rows exist: {said}"));
            }
            "42501" if !incidental => Outcome::Passed,
            "UC099" => Outcome::Undecided,
            state if state.starts_with("UC") => Outcome::Passed,
            // What PostgreSQL does not do with such a relation, it does for nobody.
            "0A000" | "42809" => Outcome::Passed,
            "55000" if relation.kind == "v" => Outcome::Passed,
            "23502" if stopped == Stopped::NoTenant => Outcome::Passed,
            // Said before the policies are asked.
            "23514"
                if caught.message.starts_with("no partition of")
                    || caught.message.contains("violates partition constraint") =>
            {
                if stopped == Stopped::NoTenant {
                    Outcome::Passed
                } else {
                    Outcome::Undecided
                }
            }
            state if state.starts_with("23") && stopped == Stopped::Harmless => Outcome::Passed,
            state if state.starts_with("23") => match stopped {
                Stopped::Leaked if relation.rewrites => Outcome::Undecided,
                Stopped::Leaked => {
                    return (Outcome::Leaked, format!("the policies let it pass; only this stopped it: {said}"));
                }
                Stopped::Told => {
                    return (Outcome::Leaked, format!("it tells that another tenant has the value: {said}"));
                }
                _ => Outcome::Undecided,
            },
            _ => Outcome::Undecided,
        };
        match outcome {
            Outcome::Passed => (outcome, format!("refused: {said}")),
            _ => (outcome, format!("stopped for another reason: {said}")),
        }
    }

    /// A query that must give no row.
    fn no_rows(&mut self, name: &str, scene: &Scene<'_>, ctx: &Ctx, sql: &str) -> Result<Outcome> {
        self.attempt(name, &scene.route, scene.relation, ctx, Stopped::Undecided, |builder, role| {
            let answer = builder.act(role, ctx.tenant.as_deref(), || attempt::run(sql, 0))?;
            // A count is a row in itself.
            let rows = match answer.rows.first().and_then(|r| r.first()).and_then(Option::as_deref) {
                Some(count) if sql.starts_with("SELECT pg_catalog.count(") => count.parse().unwrap_or(answer.processed),
                _ => answer.processed,
            };
            if rows == 0 { passed("no row") } else { leaked(format!("{rows} row(s) of others")) }
        })
    }

    /// A write that must not reach anybody else's row, of which `row` is one.
    fn no_effect(&mut self, name: &str, scene: &Scene<'_>, ctx: &Ctx, sql: &str, row: Option<&Row>) -> Result<Outcome> {
        let before = self.found.len();
        let outcome = self.attempt(name, &scene.route, scene.relation, ctx, Stopped::Leaked, |builder, role| {
            let answer = builder.act(role, ctx.tenant.as_deref(), || attempt::run(sql, 0))?;
            match row {
                _ if answer.processed > 0 => leaked(format!("{} row(s) of others", answer.processed)),
                Some(row) if !untouched(row)? => leaked("another tenant's row has changed"),
                _ => passed("no row"),
            }
        })?;
        // A row that was there before may have been changed by somebody else.
        if outcome == Outcome::Leaked
            && let Some(row) = row
            && row.given.is_none()
            && !untouched(row)?
            && let Some(finding) = self.found.get_mut(before)
        {
            (finding.outcome, finding.detail) =
                (Outcome::Undecided, "the row was changed by another session meanwhile".into());
            return Ok(Outcome::Undecided);
        }
        Ok(outcome)
    }

    /// An insertion; `judge` says what it means that it worked.
    fn insertion(
        &mut self,
        name: &str,
        scene: &Scene<'_>,
        ctx: &Ctx,
        stopped: Stopped,
        values: &std::result::Result<Values, String>,
        judge: impl FnOnce(&Values, &Answer) -> Result<Verdict>,
    ) -> Result<()> {
        match values {
            Err(why) => self.note(name, &scene.route, Some(ctx), (Outcome::Undecided, why.clone())),
            Ok(values) => {
                let sql = scene.insert(values);
                self.attempt(name, &scene.route, scene.relation, ctx, stopped, |builder, role| {
                    let answer = builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?;
                    if answer.processed == 0 {
                        return passed("no row was written");
                    }
                    judge(values, &answer)
                })?;
            }
        }
        Ok(())
    }

    /// Values that a new row of a tenant can have: such a row was built, and taken away again.
    pub fn recipe(
        &mut self,
        relation: &Relation,
        column: &str,
        tenant: &str,
    ) -> Result<std::result::Result<Values, String>> {
        let row = match self.builder.build(relation.oid, Some(column), tenant, &Values::new(), &mut Vec::new())? {
            Ok(row) => row,
            Err(why) => return Ok(Err(why)),
        };
        let sql = format!("DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) {}", row.leaf, quote(&row.ctid));
        let gone = attempt::kept(|| self.builder.act(relation.owner, Some(tenant), || attempt::run(&sql, 0)))?;
        Ok(match (gone, row.given) {
            (Ok(Answer { processed: 1, .. }), Some(values)) => Ok(values),
            (Ok(_), _) => Err("the row that was built for trial cannot be taken away".into()),
            (Err(caught), _) => {
                Err(format!("the row that was built for trial cannot be taken away: {}", words(&caught)))
            }
        })
    }

    fn scene<'s>(&mut self, relation: &'s Relation, column: &'s str, kind: &str) -> Result<Scene<'s>> {
        let rows = look(&format!(
            "SELECT a.attname, has_column_privilege({role}, a.attrelid, a.attnum, 'SELECT'), has_column_privilege({role}, a.attrelid, a.attnum, 'INSERT'),
               has_column_privilege({role}, a.attrelid, a.attnum, 'UPDATE')
             FROM pg_attribute a WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped",
            role = self.role,
            oid = relation.oid
        ))?;
        let may = |n: usize| -> BTreeSet<String> {
            rows.iter().filter(|r| r[n].as_deref() == Some("t")).filter_map(|r| r[0].clone()).collect()
        };
        let updatable = may(3);
        let special = |name: &String| {
            relation.keys.iter().any(|k| k.columns.contains(name))
                || relation.references.iter().any(|r| r.columns.contains(name))
                || relation.checks.iter().any(|c| c.columns.contains(name))
        };
        let plain = relation.columns.iter().filter(|c| !c.generated && !c.identity && c.name != column);
        let harmless = plain.map(|c| &c.name).min_by_key(|c| (!updatable.contains(*c), special(c))).cloned();
        let tenant_type = relation.column(column).map(|c| c.base.clone()).unwrap_or_default();
        Ok(Scene {
            relation,
            route: format!("{kind} {}", relation.name),
            column,
            tenant: ident(column),
            tenant_type,
            readable: may(1),
            insertable: may(2),
            harmless: harmless.or_else(|| Some(column.to_owned())),
        })
    }

    /// Everything, on a table or one of its partitions.
    pub fn table(&mut self, relation: &Relation, column: &str, a: &Side, b: &Side, kind: &str) -> Result<()> {
        let scene = self.scene(relation, column, kind)?;
        let as_a = Ctx { label: "A", tenant: Some(a.tenant.clone()) };
        let as_b = Ctx { label: "B", tenant: Some(b.tenant.clone()) };
        let new_a = self.recipe(relation, column, &a.tenant)?;
        let new_b = self.recipe(relation, column, &b.tenant)?;
        for (ctx, own, other, own_new, other_new) in [(&as_a, a, b, &new_a, &new_b), (&as_b, b, a, &new_b, &new_a)] {
            let Ok(row) = &other.row else {
                // A partition may be for one tenant alone.
                if let Err(why) = &other.row
                    && !why.is_empty()
                {
                    self.note("everything", &scene.route, Some(ctx), (Outcome::Undecided, why.clone()));
                }
                continue;
            };
            self.reads(&scene, ctx, own, row)?;
            if own.row.is_ok() {
                self.own_inserts(&scene, ctx, own_new)?;
            }
            self.foreign_insert(&scene, ctx, other_new, &other.tenant)?;
            self.changes(&scene, ctx, own, &other.tenant, row)?;
            if ctx.label == "A" {
                self.upserts_and_merges(&scene, ctx, &other.tenant, row, own_new, other_new)?;
                self.oracles(&scene, ctx, own_new, row, &other.tenant)?;
                self.cursors(&scene, ctx, own, &other.tenant)?;
            }
        }
        let stranger = invented(&scene.tenant_type, &mut self.builder);
        for ctx in [
            Ctx { label: "none", tenant: None },
            Ctx { label: "garbage", tenant: Some("' OR 1=1; -- \u{1f9ea} \\".into()) },
            Ctx { label: "stranger", tenant: Some(stranger) },
        ] {
            self.outside(&scene, &ctx, a, b, &new_b)?;
        }
        self.give_away(&scene, &b.tenant)?;
        self.truncate(&scene, &as_a)
    }

    /// Without a WHERE the policies for reading do not apply to the new row either. For a tenant with one row, so that no other
    /// is touched.
    fn give_away(&mut self, scene: &Scene<'_>, theirs: &str) -> Result<()> {
        let tenant = invented(&scene.tenant_type, &mut self.builder);
        let sql = format!(
            "UPDATE {} SET {} = {}",
            scene.relation.name,
            scene.tenant,
            literal(Some(theirs), &scene.tenant_type)
        );
        let is_theirs = scene.is(theirs);
        let outcome = attempt::rolled_back(|| {
            let none = Values::new();
            let built = self.builder.build(scene.relation.oid, Some(scene.column), &tenant, &none, &mut Vec::new())?;
            // The tenant may have to be one that is known; with a WHERE it was attempted for those.
            let Ok(row) = built else { return Ok(None) };
            let answer = self.builder.act(self.role, Some(&tenant), || attempt::run(&sql, 0))?;
            Ok(Some(match answer.processed {
                0 => passed("no row")?,
                _ if scene.holds(&row.stored, &is_theirs)? => leaked("the row is another tenant's now")?,
                _ => passed("the row is still its own")?,
            }))
        })?;
        let verdict = match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(verdict)) => verdict,
            Err(caught) => self.refused(scene.relation, &caught, Stopped::Leaked),
        };
        let ctx = Ctx { label: "stranger", tenant: Some(tenant) };
        self.note("UPDATE own row to another tenant, without WHERE", &scene.route, Some(&ctx), verdict);
        Ok(())
    }

    fn reads(&mut self, scene: &Scene<'_>, ctx: &Ctx, own: &Side, row: &Row) -> Result<()> {
        let (name, mine) = (&scene.relation.name, &own.tenant);
        let others = scene.is_not(mine);
        self.no_rows("SELECT others' rows", scene, ctx, &format!("SELECT 1 FROM {name} WHERE {others} LIMIT 1"))?;
        if let Some(key) = scene.by_key(row) {
            self.no_rows("SELECT by another tenant's key", scene, ctx, &format!("SELECT 1 FROM {name} WHERE {key}"))?;
        }
        self.no_rows("count", scene, ctx, &format!("SELECT pg_catalog.count(*) FROM {name} WHERE {others}"))?;
        self.no_rows(
            "SELECT FOR UPDATE",
            scene,
            ctx,
            &format!("SELECT 1 FROM {name} WHERE {others} LIMIT 1 FOR UPDATE"),
        )?;
        let copy = format!("COPY (SELECT 1 FROM {name} WHERE {others} LIMIT 1) TO STDOUT");
        self.copy(scene, ctx, &copy)?;
        if own.row.is_ok() {
            let sql = format!("SELECT 1 FROM {name} WHERE {} LIMIT 1", scene.is(mine));
            self.attempt("SELECT own rows", &scene.route, scene.relation, ctx, Stopped::Undecided, |builder, role| {
                match builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?.processed {
                    0 => undecided("it does not see its own rows, so that it sees none of others' says little; does the policy read pg_custody's context, or tenant_setting?"),
                    _ => passed("seen: what is not seen is others'"),
                }
            })?;
        }
        Ok(())
    }

    fn copy(&mut self, scene: &Scene<'_>, ctx: &Ctx, sql: &str) -> Result<()> {
        self.attempt("COPY TO", &scene.route, scene.relation, ctx, Stopped::Undecided, |builder, role| match builder
            .act(role, ctx.tenant.as_deref(), || attempt::copy_out(sql))?
        {
            0 => passed("no row"),
            rows => leaked(format!("{rows} row(s) of others")),
        })?;
        Ok(())
    }

    fn own_inserts(&mut self, scene: &Scene<'_>, ctx: &Ctx, own: &std::result::Result<Values, String>) -> Result<()> {
        let mine = ctx.tenant.clone().unwrap_or_default();
        self.insertion("INSERT own row", scene, ctx, Stopped::Undecided, own, |_, _| passed("its own"))?;
        let unnamed = own.clone().map(|mut values| {
            values.remove(scene.column);
            values
        });
        let is_not_mine = scene.is_not(&mine);
        self.insertion("INSERT without a tenant", scene, ctx, Stopped::NoTenant, &unnamed, |values, _| {
            match scene.holds(values, &is_not_mine)? {
                true => leaked("the row is not the context's tenant's"),
                false => passed("the row is its own"),
            }
        })?;
        let null = own.clone().map(|mut values| {
            values.insert(scene.column.to_owned(), None);
            values
        });
        let no_tenant = format!("{} IS NULL", scene.tenant);
        self.insertion("INSERT with NULL as tenant", scene, ctx, Stopped::NoTenant, &null, |values, _| {
            match scene.holds(values, &no_tenant)? {
                true => leaked("there is a row now that is no tenant's"),
                false => passed("the row is a tenant's"),
            }
        })
    }

    fn foreign_insert(
        &mut self,
        scene: &Scene<'_>,
        ctx: &Ctx,
        other: &std::result::Result<Values, String>,
        theirs: &str,
    ) -> Result<()> {
        let is_theirs = scene.is(theirs);
        self.insertion("INSERT for another tenant", scene, ctx, Stopped::Leaked, other, |values, _| {
            match scene.holds(values, &is_theirs)? {
                true => leaked("there is a row now that is another tenant's"),
                false => passed("the row became its own"),
            }
        })
    }

    fn changes(&mut self, scene: &Scene<'_>, ctx: &Ctx, own: &Side, theirs: &str, row: &Row) -> Result<()> {
        let name = &scene.relation.name;
        let (is_theirs, key) = (scene.is(theirs), scene.by_key(row));
        let set = scene.set(row);
        let become_mine = format!("{} = {}", scene.tenant, literal(Some(&own.tenant), &scene.tenant_type));
        let mut become_theirs = format!("{} = {}", scene.tenant, literal(Some(theirs), &scene.tenant_type));
        // It must have a partition to go to.
        for name in scene.relation.checks.iter().filter(|c| c.name == "partitions").flat_map(|c| &c.columns) {
            if let Some(column) = scene.relation.column(name).filter(|c| c.name != scene.column) {
                let value = row.stored.get(name).and_then(Option::as_deref);
                become_theirs.push_str(&format!(", {} = {}", ident(name), literal(value, &column.type_name)));
            }
        }
        for (whose, condition) in
            [("by another tenant's key", key.as_ref()), ("another tenant's rows", Some(&is_theirs))]
        {
            let Some(condition) = condition else { continue };
            if let Some(set) = &set {
                self.no_effect(
                    &format!("UPDATE {whose}"),
                    scene,
                    ctx,
                    &format!("UPDATE {name} SET {set} WHERE {condition}"),
                    Some(row),
                )?;
            }
            self.no_effect(
                &format!("UPDATE the tenant, {whose}"),
                scene,
                ctx,
                &format!("UPDATE {name} SET {become_mine} WHERE {condition}"),
                Some(row),
            )?;
            self.no_effect(
                &format!("DELETE {whose}"),
                scene,
                ctx,
                &format!("DELETE FROM {name} WHERE {condition}"),
                Some(row),
            )?;
        }
        let Ok(mine) = &own.row else { return Ok(()) };
        let condition = scene.by_key(mine).unwrap_or_else(|| scene.is(&own.tenant));
        let sql = format!("UPDATE {name} SET {become_theirs} WHERE {condition}");
        let stored = mine.stored.clone();
        self.attempt(
            "UPDATE own row to another tenant",
            &scene.route,
            scene.relation,
            ctx,
            Stopped::Leaked,
            |builder, role| {
                let answer = builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?;
                match answer.processed {
                    0 => passed("no row"),
                    _ if scene.holds(&stored, &is_theirs)? => leaked("the row is another tenant's now"),
                    _ => passed("the row is still its own"),
                }
            },
        )?;
        Ok(())
    }

    fn upserts_and_merges(
        &mut self,
        scene: &Scene<'_>,
        ctx: &Ctx,
        theirs: &str,
        row: &Row,
        own: &std::result::Result<Values, String>,
        other: &std::result::Result<Values, String>,
    ) -> Result<()> {
        let Some(set) = scene.set(row) else { return Ok(()) };
        let duplicate = row.given.clone().unwrap_or_else(|| row.stored.clone());
        for key in scene.relation.keys.iter().filter(|k| k.arbiter && !k.columns.is_empty()) {
            let target: Vec<String> = key.columns.iter().map(|c| ident(c)).collect();
            let upsert = |values: &Values| {
                format!("{} ON CONFLICT ({}) DO UPDATE SET {set}", scene.insert(values), target.join(", "))
            };
            let mut ways = vec![("upsert for another tenant", with_key(&duplicate, key, row), Stopped::Undecided)];
            if let Ok(own) = own {
                let mut values = with_key(own, key, row);
                values.insert(scene.column.to_owned(), ctx.tenant.clone());
                ways.push(("upsert on another tenant's key", values, Stopped::Harmless));
            }
            for (name, values, stopped) in ways {
                let sql = upsert(&values);
                self.attempt(
                    &format!("{name} ({})", key.name),
                    &scene.route,
                    scene.relation,
                    ctx,
                    stopped,
                    |builder, role| {
                        builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?;
                        match untouched(row)? {
                            true => passed("the other tenant's row is as it was"),
                            false => leaked("another tenant's row has changed"),
                        }
                    },
                )?;
            }
        }
        let name = &scene.relation.name;
        let on = scene.is(theirs);
        let merge = |on: &str, then: &str| format!("MERGE INTO {name} USING (SELECT 1) AS s (x) ON {on} {then}");
        self.no_effect(
            "MERGE, update",
            scene,
            ctx,
            &merge(&on, &format!("WHEN MATCHED THEN UPDATE SET {set}")),
            Some(row),
        )?;
        self.no_effect("MERGE, delete", scene, ctx, &merge(&on, "WHEN MATCHED THEN DELETE"), Some(row))?;
        match other {
            Err(why) => self.note("MERGE, insert", &scene.route, Some(ctx), (Outcome::Undecided, why.clone())),
            Ok(values) => {
                let insert = scene.insert(values).replacen(&format!("INTO {name} "), "", 1);
                let sql = merge("false", &format!("WHEN NOT MATCHED THEN {insert}"));
                self.attempt("MERGE, insert", &scene.route, scene.relation, ctx, Stopped::Leaked, |builder, role| {
                    builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?;
                    match scene.holds(values, &on)? {
                        true => leaked("there is a row now that is another tenant's"),
                        false => passed("no row of another tenant's was written"),
                    }
                })?;
            }
        }
        Ok(())
    }

    /// What a constraint tells about rows that cannot be seen.
    fn oracles(
        &mut self,
        scene: &Scene<'_>,
        ctx: &Ctx,
        own: &std::result::Result<Values, String>,
        row: &Row,
        theirs: &str,
    ) -> Result<()> {
        let Ok(own) = own else { return Ok(()) };
        for key in scene.relation.keys.iter().filter(|k| !k.columns.iter().any(|c| c == scene.column)) {
            if key.columns.iter().all(|c| row.stored.get(c).is_none_or(Option::is_none)) {
                continue;
            }
            let values = Ok(with_key(own, key, row));
            let name = format!("INSERT of a key that another tenant has ({})", key.name);
            self.insertion(&name, scene, ctx, Stopped::Told, &values, |_, _| passed("the duplicate is not told"))?;
        }
        for reference in &scene.relation.references {
            let parent = self.builder.relation(reference.parent)?;
            let Some(column) = parent.tenant.clone() else { continue };
            if reference.columns.iter().any(|c| c == scene.column) || parent.oid == scene.relation.oid {
                continue;
            }
            let built = self.builder.build(parent.oid, Some(&column), theirs, &Values::new(), &mut Vec::new())?;
            let found = match built {
                Ok(row) => Ok(row),
                Err(why) => existing(&parent, Some(&column), Some(theirs))?.ok_or(why),
            };
            let values = found.map(|found| {
                let mut values = own.clone();
                for (c, of) in reference.columns.iter().zip(&reference.parent_columns) {
                    values.insert(c.clone(), found.stored.get(of).cloned().flatten());
                }
                values
            });
            let name = format!("INSERT that refers to another tenant's row ({})", reference.name);
            self.insertion(&name, scene, ctx, Stopped::Undecided, &values, |_, _| {
                leaked(format!("it tells that the row of {} exists, and refers to it", parent.name))
            })?;
        }
        Ok(())
    }

    fn cursors(&mut self, scene: &Scene<'_>, ctx: &Ctx, own: &Side, theirs: &str) -> Result<()> {
        let open = |condition: &str| {
            format!(
                "DECLARE custody_probe NO SCROLL CURSOR FOR SELECT 1 FROM {} WHERE {condition}",
                scene.relation.name
            )
        };
        let others = open(&scene.is_not(&own.tenant));
        self.attempt("cursor", &scene.route, scene.relation, ctx, Stopped::Undecided, |builder, role| {
            let rows = builder.act(role, ctx.tenant.as_deref(), || {
                attempt::run(&others, 0)?;
                attempt::run("FETCH 1 FROM custody_probe", 0)
            })?;
            if rows.processed == 0 { passed("no row") } else { leaked("a row of others") }
        })?;
        self.attempt(
            "cursor opened before the context",
            &scene.route,
            scene.relation,
            ctx,
            Stopped::Undecided,
            |builder, role| {
                builder.act(role, None, || attempt::run(&others, 0))?;
                let rows =
                    builder.act(role, ctx.tenant.as_deref(), || attempt::run("FETCH 1 FROM custody_probe", 0))?;
                if rows.processed == 0 { passed("no row") } else { leaked("a row of others") }
            },
        )?;
        let mine = open("true");
        self.attempt(
            "cursor kept for another context",
            &scene.route,
            scene.relation,
            ctx,
            Stopped::Undecided,
            |builder, role| {
                builder.act(role, ctx.tenant.as_deref(), || {
                    attempt::run(&mine, 0)?;
                    match context::refuses_another(theirs) {
                        true => passed("refused: UC003, a transaction acts for one tenant"),
                        false => leaked("the transaction went on for another tenant, the cursor open"),
                    }
                })
            },
        )?;
        Ok(())
    }

    /// For nobody, or for a tenant that nobody is: there is nothing to see and nothing to change.
    fn outside(
        &mut self,
        scene: &Scene<'_>,
        ctx: &Ctx,
        a: &Side,
        b: &Side,
        new_b: &std::result::Result<Values, String>,
    ) -> Result<()> {
        let name = &scene.relation.name;
        let Some(row) = b.row.as_ref().ok().or(a.row.as_ref().ok()) else {
            let why = b.row.as_ref().err().cloned().unwrap_or_default();
            self.note("everything", &scene.route, Some(ctx), (Outcome::Undecided, why));
            return Ok(());
        };
        self.no_rows("SELECT", scene, ctx, &format!("SELECT 1 FROM {name} LIMIT 1"))?;
        self.no_rows("count", scene, ctx, &format!("SELECT pg_catalog.count(*) FROM {name}"))?;
        self.no_rows("SELECT FOR UPDATE", scene, ctx, &format!("SELECT 1 FROM {name} LIMIT 1 FOR UPDATE"))?;
        // COPY takes no generated columns.
        let whole = |c: &&String| scene.relation.column(c).is_some_and(|c| !c.generated);
        let columns: Vec<String> = scene.readable.iter().filter(whole).map(|c| ident(c)).collect();
        let list = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        let copy = match scene.relation.kind.as_str() {
            "r" => format!("COPY {name}{list} TO STDOUT"),
            _ => format!("COPY (SELECT 1 FROM {name}) TO STDOUT"),
        };
        self.copy(scene, ctx, &copy)?;
        self.foreign_insert(scene, ctx, new_b, &b.tenant)?;
        if ctx.tenant.is_none() {
            let unnamed = new_b.clone().map(|mut values| {
                values.remove(scene.column);
                values
            });
            self.insertion("INSERT without a tenant", scene, ctx, Stopped::NoTenant, &unnamed, |_, _| {
                leaked("a row was written without a context")
            })?;
        }
        // Without a WHERE the policies for reading do not apply: those for writing stand alone.
        if let Some(set) = scene.set(row) {
            self.no_effect("UPDATE without WHERE", scene, ctx, &format!("UPDATE {name} SET {set}"), Some(row))?;
        }
        if let Some(tenant) = ctx.tenant.as_deref().filter(|_| ctx.label == "stranger") {
            let set = format!("{} = {}", scene.tenant, literal(Some(tenant), &scene.tenant_type));
            self.no_effect(
                "UPDATE the tenant, without WHERE",
                scene,
                ctx,
                &format!("UPDATE {name} SET {set}"),
                Some(row),
            )?;
        }
        self.no_effect("DELETE without WHERE", scene, ctx, &format!("DELETE FROM {name}"), Some(row))?;
        let merge = format!("MERGE INTO {name} USING (SELECT 1) AS s (x) ON true WHEN MATCHED THEN DELETE");
        self.no_effect("MERGE, delete", scene, ctx, &merge, Some(row))?;
        Ok(())
    }

    fn truncate(&mut self, scene: &Scene<'_>, ctx: &Ctx) -> Result<()> {
        let name = &scene.relation.name;
        let may = look_one(&format!("SELECT has_table_privilege({}, {}, 'TRUNCATE')", self.role, scene.relation.oid))?;
        let mut last = undecided("")?;
        for sql in [format!("TRUNCATE {name}"), format!("TRUNCATE {name} CASCADE")] {
            let outcome =
                attempt::rolled_back(|| self.builder.act(self.role, ctx.tenant.as_deref(), || attempt::run(&sql, 0)))?;
            last = match outcome {
                Ok(_) => leaked("all tenants' rows were gone")?,
                Err(caught) if may.as_deref() == Some("t") && caught.sqlstate == "55P03" => {
                    leaked(format!("the privilege is there, only the lock was not to be had: {}", words(&caught)))?
                }
                Err(caught) if caught.sqlstate == "0A000" => {
                    last = passed(format!("refused, for now, by a reference: {}", words(&caught)))?;
                    continue;
                }
                Err(caught) if sql.ends_with("CASCADE") && caught.sqlstate == "42501" => passed(format!(
                    "refused, for now, as a table that refers to it may not be truncated: {}",
                    words(&caught)
                ))?,
                Err(caught) => self.refused(scene.relation, &caught, Stopped::Undecided),
            };
            break;
        }
        self.note("TRUNCATE", &scene.route, Some(ctx), last);
        Ok(())
    }

    /// A shared table: whoever reads it, nobody writes it.
    pub fn shared(&mut self, relation: &Relation) -> Result<()> {
        let scene = self.scene(relation, "", "shared table")?;
        let some = look("SELECT id FROM custody.tenants ORDER BY created_at, id LIMIT 1")?;
        let tenant = some.into_iter().flatten().flatten().next().unwrap_or_else(|| "probe".into());
        let values = match self.builder.build(relation.oid, None, &tenant, &Values::new(), &mut Vec::new())? {
            Ok(row) => row.given.map(|given| (given, Row { given: None, ..row })),
            Err(_) => existing(relation, None, None)?.map(|row| (row.stored.clone(), row)),
        };
        for ctx in [Ctx { label: "A", tenant: Some(tenant.clone()) }, Ctx { label: "none", tenant: None }] {
            let Some((values, row)) = &values else {
                self.note(
                    "writes",
                    &scene.route,
                    Some(&ctx),
                    (Outcome::Undecided, "there is no row, and none could be built".into()),
                );
                continue;
            };
            let name = &relation.name;
            let set = scene.set(row);
            for (attempt, sql) in [
                ("INSERT", scene.insert(values)),
                ("UPDATE", set.map(|set| format!("UPDATE {name} SET {set}")).unwrap_or_default()),
                ("DELETE", format!("DELETE FROM {name}")),
            ] {
                if !sql.is_empty() {
                    self.attempt(
                        attempt,
                        &scene.route,
                        relation,
                        &ctx,
                        Stopped::Leaked,
                        |builder, role| match builder
                            .act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?
                            .processed
                        {
                            0 => passed("no row"),
                            rows => leaked(format!("{rows} row(s) of a table that every tenant reads")),
                        },
                    )?;
                }
            }
        }
        self.truncate(&scene, &Ctx { label: "A", tenant: Some(tenant) })
    }

    /// A row of a partition's own, of whatever tenant the partition takes.
    pub fn sides_of(&mut self, relation: &Relation, column: &str, a: &Side, b: &Side) -> Result<(Side, Side)> {
        let mut tenants = vec![b.tenant.clone(), a.tenant.clone()];
        tenants.extend(existing(relation, None, None)?.and_then(|row| row.stored.get(column).cloned().flatten()));
        let kind = relation.column(column).map(|c| c.base.clone()).unwrap_or_default();
        for check in relation.checks.iter().filter(|c| c.columns.iter().any(|n| n == column)) {
            let mentioned = custody_core::candidate::mentioned(&check.expression);
            tenants.extend(mentioned.into_iter().filter(|t| super::fits(&kind, t)).take(20));
        }
        tenants.extend((0..20).map(|_| invented(&kind, &mut self.builder)));
        let mut sides: Vec<Side> = Vec::new();
        let mut why = String::new();
        let mut tried = BTreeSet::new();
        for tenant in tenants {
            if sides.len() == 2 || !tried.insert(tenant.clone()) {
                continue;
            }
            let row = match self.builder.build(relation.oid, Some(column), &tenant, &Values::new(), &mut Vec::new())? {
                Ok(row) => Some(row),
                Err(no) => {
                    why = no;
                    let wanted = [(column.to_owned(), Some(tenant.clone()))].into();
                    stored(relation, &relation.name, &condition(relation, &wanted))?
                }
            };
            if let Some(row) = row {
                sides.push(Side { tenant, row: Ok(row) });
            }
        }
        let mut sides = sides.into_iter();
        let b = sides.next().unwrap_or(Side { tenant: b.tenant.clone(), row: Err(why.clone()) });
        let other = if b.tenant == a.tenant { invented(&kind, &mut self.builder) } else { a.tenant.clone() };
        let a = sides.next().unwrap_or(Side { tenant: other, row: Err(String::new()) });
        Ok((a, b))
    }
}

/// A row's values with another's in the columns of a key.
fn with_key(values: &Values, key: &UniqueKey, row: &Row) -> Values {
    let mut values = values.clone();
    for column in &key.columns {
        values.insert(column.clone(), row.stored.get(column).cloned().flatten());
    }
    values
}
