//! The ways round a table's own name: partitions, children and parents, views, and functions that the role can reach.

use std::collections::BTreeSet;

use super::attempts::{Ctx, Prober, Stopped, Verdict, leaked, passed, undecided};
use super::build::Row;
use super::facts::{Relation, ident, literal, look, quote};
use super::{Outcome, Side, invented, untouched};
use crate::error::Result;
use crate::pg::attempt;

/// Rows of a view or function that are compared one by one; of more, only how many there are.
const COMPARED: i64 = 10_000;

/// What a query gave: its rows, in no order, as one text; or how many, if they are many.
type Sight = Vec<String>;

impl Prober<'_> {
    pub fn indirect(&mut self, relation: &Relation, column: &str, a: &Side, b: &Side) -> Result<()> {
        for (oid, _) in self.reachable(FAMILY, relation)? {
            let member = self.builder.relation(oid)?;
            let column = member.tenant.clone().unwrap_or_else(|| column.to_owned());
            if member.column(&column).is_none() {
                continue;
            }
            if !matches!(member.kind.as_str(), "r" | "p") {
                let verdict = undecided("a foreign table: what it does happens elsewhere")?;
                self.note("everything", &format!("partition {}", member.name), None, verdict);
                continue;
            }
            let (a, b) = self.sides_of(&member, &column, a, b)?;
            let kind = if relation.kind == "p" || member.kind == "p" { "partition" } else { "child" };
            self.table(&member, &column, &a, &b, kind)?;
        }
        let Ok(row) = &b.row else { return Ok(()) };
        for (oid, _) in self.reachable(VIEWS, relation)? {
            let view = self.builder.relation(oid)?;
            self.view(&view, column, a, b, row)?;
        }
        for (oid, what) in self.reachable(FUNCTIONS, relation)? {
            self.function(oid, &what, relation, column, a, b, row)?;
        }
        Ok(())
    }

    /// What a catalog query finds for this role.
    fn reachable(&self, query: &str, relation: &Relation) -> Result<Vec<(u32, String)>> {
        let sql = query.replace("{role}", &self.role.to_string()).replace("{oid}", &relation.oid.to_string());
        let rows = look(&sql)?.into_iter().filter_map(|row| {
            let mut row = row.into_iter();
            Some((row.next()??.parse().ok()?, row.next().flatten().unwrap_or_default()))
        });
        Ok(rows.collect())
    }

    fn view(&mut self, view: &Relation, column: &str, a: &Side, b: &Side, row: &Row) -> Result<()> {
        let materialized = view.kind == "m";
        let route = format!("{} {}", if materialized { "materialized view" } else { "view" }, view.name);
        let query = format!("SELECT * FROM {}", view.name);
        let shown = view.column(column).is_some_and(|c| self.target.column(column).is_some_and(|t| t.base == c.base));
        let ctx_a = Ctx { label: "A", tenant: Some(a.tenant.clone()) };
        let kind = self.target.column(column).map(|c| c.base.clone()).unwrap_or_default();
        let stranger = invented(&kind, &mut self.builder);
        if shown {
            for (label, own) in [("A", &a.tenant), ("B", &b.tenant)] {
                let ctx = Ctx { label, tenant: Some(own.clone()) };
                let is_own = format!("({} OPERATOR(pg_catalog.=) {})", ident(column), literal(Some(own), &kind));
                let sql = format!("SELECT 1 FROM {} WHERE {is_own} IS NOT TRUE LIMIT 1", view.name);
                self.none_of_others(&route, view, &ctx, &sql)?;
            }
        }
        let outside = [Ctx { label: "none", tenant: None }, Ctx { label: "stranger", tenant: Some(stranger) }];
        if materialized {
            // It is what it was made as, for everybody; it has no policies.
            for ctx in outside {
                let sql = format!("SELECT 1 FROM {} LIMIT 1", view.name);
                self.attempt("SELECT", &route, view, &ctx, Stopped::Undecided, |builder, role| {
                    match builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?.processed {
                        0 => undecided("it is empty now: what it holds after a REFRESH is every tenant's"),
                        _ => leaked("its rows, made from all tenants', are everybody's"),
                    }
                })?;
            }
            return Ok(());
        }
        for ctx in [ctx_a.clone()].into_iter().chain(outside) {
            self.interference(&route, view, &ctx, b, row, &query)?;
        }
        self.writes_through(&route, view, column, &ctx_a, b, row, shown)
    }

    fn none_of_others(&mut self, route: &str, relation: &Relation, ctx: &Ctx, sql: &str) -> Result<()> {
        self.attempt("SELECT others' rows", route, relation, ctx, Stopped::Undecided, |builder, role| {
            match builder.act(role, ctx.tenant.as_deref(), || attempt::run(sql, 0))?.processed {
                0 => passed("no row"),
                rows => leaked(format!("{rows} row(s) of others")),
            }
        })?;
        Ok(())
    }

    /// Whether what a query gives depends on another tenant's row: once with it, once without.
    fn interference(
        &mut self,
        route: &str,
        relation: &Relation,
        ctx: &Ctx,
        b: &Side,
        row: &Row,
        query: &str,
    ) -> Result<()> {
        let owner = self.target.owner;
        let see = |prober: &Self| -> Result<Sight> {
            let many = prober.builder.act(prober.role, ctx.tenant.as_deref(), || attempt::run(query, COMPARED))?;
            if many.processed < COMPARED as u64 {
                let mut rows: Vec<String> = many.rows.iter().map(|r| format!("{r:?}")).collect();
                rows.sort_unstable();
                return Ok(rows);
            }
            let counting = format!("SELECT pg_catalog.count(*) FROM ({query}) AS s");
            let count = prober.builder.act(prober.role, ctx.tenant.as_deref(), || attempt::run(&counting, 0))?;
            Ok(count.rows.into_iter().flatten().flatten().collect())
        };
        let name = "depends on another tenant's row";
        let with = attempt::rolled_back(|| Ok((see(self)?, untouched(row)?)))?;
        let (with, kept) = match with {
            Ok(seen) => seen,
            Err(caught) => {
                // Nothing was shown: but why not, must be the isolation's doing.
                self.attempt(name, route, relation, ctx, Stopped::Undecided, |builder, role| {
                    builder.act(role, ctx.tenant.as_deref(), || attempt::run(query, COMPARED))?;
                    undecided(format!("it failed once: {}", caught.message))
                })?;
                return Ok(());
            }
        };
        if !kept {
            let verdict = leaked("another tenant's row has changed")?;
            self.note(name, route, Some(ctx), verdict);
            return Ok(());
        }
        let again = attempt::rolled_back(|| see(self))?;
        let delete = format!("DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) {}", row.leaf, quote(&row.ctid));
        let without = attempt::rolled_back(|| {
            let gone = self.builder.act(owner, Some(&b.tenant), || attempt::run(&delete, 0))?;
            Ok((gone.processed == 1, see(self)?))
        })?;
        let verdict: Verdict = match (again, without) {
            (Ok(again), _) if again != with => undecided("it gives something else each time")?,
            (Ok(_), Ok((true, without))) if without == with => passed("the same with and without it")?,
            (Ok(_), Ok((true, _))) => leaked("what it gives changes when another tenant's row goes")?,
            (_, Ok((false, _))) => undecided("the other tenant's row could not be taken away")?,
            (Err(caught), _) | (_, Err(caught)) => {
                undecided(format!("it failed: {} {}", caught.sqlstate, caught.message))?
            }
        };
        self.note(name, route, Some(ctx), verdict);
        Ok(())
    }

    /// Changes through a view that takes them.
    #[allow(clippy::too_many_arguments)]
    fn writes_through(
        &mut self,
        route: &str,
        view: &Relation,
        column: &str,
        ctx: &Ctx,
        b: &Side,
        row: &Row,
        shown: bool,
    ) -> Result<()> {
        let events: u32 = look(&format!("SELECT pg_relation_is_updatable({}, true)", view.oid))?
            .into_iter()
            .flatten()
            .flatten()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let kind = self.target.column(column).map(|c| c.base.clone()).unwrap_or_default();
        let theirs = literal(Some(&b.tenant), &kind);
        let condition = match shown {
            true => format!(" WHERE {} OPERATOR(pg_catalog.=) {theirs}", ident(column)),
            false => String::new(),
        };
        // Without the tenant to ask for, only who has no rows himself can tell that he reached another's.
        let stranger = invented(&kind, &mut self.builder);
        let ctx = match shown {
            true => ctx.clone(),
            false => Ctx { label: "stranger", tenant: Some(stranger) },
        };
        let plain = view.columns.iter().find(|c| {
            c.name != column
                && row.stored.contains_key(&c.name)
                && self.target.column(&c.name).is_some_and(|t| !t.generated && !t.identity)
        });
        let mut statements = Vec::new();
        if events & 4 != 0
            && let Some(plain) = plain
        {
            let value = literal(row.stored.get(&plain.name).and_then(Option::as_deref), &plain.type_name);
            statements
                .push(("UPDATE", format!("UPDATE {} SET {} = {value}{condition}", view.name, ident(&plain.name))));
        }
        if events & 16 != 0 {
            statements.push(("DELETE", format!("DELETE FROM {}{condition}", view.name)));
        }
        for (name, sql) in statements {
            self.attempt(name, route, view, &ctx, Stopped::Leaked, |builder, role| {
                let answer = builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?;
                match untouched(row)? {
                    false => leaked("another tenant's row has changed"),
                    true if answer.processed > 0 => leaked(format!("{} row(s) of others", answer.processed)),
                    true => passed("no row"),
                }
            })?;
        }
        if events & 8 != 0 && shown {
            let recipe = self.recipe(&self.target.clone(), column, &b.tenant)?;
            let values = match recipe {
                Ok(values) => values,
                Err(why) => {
                    self.note("INSERT for another tenant", route, Some(&ctx), (Outcome::Undecided, why));
                    return Ok(());
                }
            };
            let sql = super::build::insertion(view, &view.name, &values, |_| true);
            self.attempt(
                "INSERT for another tenant",
                route,
                view,
                &ctx,
                Stopped::Leaked,
                |builder, role| match builder.act(role, ctx.tenant.as_deref(), || attempt::run(&sql, 0))?.processed {
                    0 => passed("no row was written"),
                    _ => leaked("there is a row now that is another tenant's"),
                },
            )?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn function(
        &mut self,
        oid: u32,
        what: &str,
        relation: &Relation,
        column: &str,
        a: &Side,
        b: &Side,
        row: &Row,
    ) -> Result<()> {
        let (name, kind) = what.rsplit_once(' ').unwrap_or((what, ""));
        let route = format!("function {name}");
        if kind != "call" {
            let verdict = match kind {
                "procedure" => undecided("a procedure: it may end the transaction")?,
                _ => undecided("needs arguments")?,
            };
            self.note("call", &route, None, verdict);
            return Ok(());
        }
        let outputs: BTreeSet<String> = look(&format!(
            "SELECT a.attname FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 WHERE p.oid = {oid}
             UNION SELECT u.name FROM pg_proc p CROSS JOIN LATERAL unnest(p.proargnames, p.proargmodes) AS u (name, mode) WHERE p.oid = {oid} AND u.mode IN ('o', 'b', 't')"
        ))?
        .into_iter()
        .flatten()
        .flatten()
        .collect();
        let query = format!("SELECT * FROM {name}()");
        let base = relation.column(column).map(|c| c.base.clone()).unwrap_or_default();
        let stranger = invented(&base, &mut self.builder);
        let contexts = [
            Ctx { label: "A", tenant: Some(a.tenant.clone()) },
            Ctx { label: "none", tenant: None },
            Ctx { label: "stranger", tenant: Some(stranger) },
        ];
        for ctx in contexts {
            if outputs.contains(column) {
                // As text, so that whatever type it gives can be compared.
                let own = quote(ctx.tenant.as_deref().unwrap_or_default());
                let is_own = format!("(pg_catalog.format('%s', f.{}) OPERATOR(pg_catalog.=) {own})", ident(column));
                let sql = format!("SELECT 1 FROM {name}() AS f WHERE {is_own} IS NOT TRUE LIMIT 1");
                self.none_of_others(&route, relation, &ctx, &sql)?;
            }
            self.interference(&route, relation, &ctx, b, row, &query)?;
        }
        Ok(())
    }
}

/// Partitions, children and parents that the role may do something with directly.
const FAMILY: &str = "WITH RECURSIVE below (oid) AS (
    SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = {oid}
    UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid),
  above (oid) AS (
    SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = {oid}
    UNION SELECT i.inhparent FROM above b JOIN pg_inherits i ON i.inhrelid = b.oid)
  SELECT c.oid, '' FROM pg_class c JOIN (SELECT oid FROM below UNION SELECT oid FROM above) f ON f.oid = c.oid
  WHERE has_schema_privilege({role}, c.relnamespace, 'USAGE')
    AND (has_table_privilege({role}, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege({role}, c.oid, 'SELECT, INSERT, UPDATE'))
  ORDER BY c.oid";

/// Views over the table, its partitions or other views of it, that the role may do something with.
const VIEWS: &str = "WITH RECURSIVE below (oid) AS (
    SELECT {oid}::oid UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid),
  source (oid) AS (
    SELECT oid FROM below
    UNION SELECT r.ev_class FROM source s JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
      JOIN pg_rewrite r ON r.oid = d.objid)
  SELECT c.oid, '' FROM source s JOIN pg_class c ON c.oid = s.oid
  WHERE c.relkind IN ('v', 'm') AND has_schema_privilege({role}, c.relnamespace, 'USAGE')
    AND (has_table_privilege({role}, c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege({role}, c.oid, 'SELECT, INSERT, UPDATE'))
  ORDER BY c.oid";

/// Functions that give the table's rows, that the catalogs tie to the table or a view of it, or whose text names one of them.
const FUNCTIONS: &str = "WITH RECURSIVE below (oid) AS (
    SELECT {oid}::oid UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid),
  source (oid) AS (
    SELECT oid FROM below
    UNION SELECT r.ev_class FROM source s JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
      JOIN pg_rewrite r ON r.oid = d.objid),
  named AS (SELECT c.oid, c.relname, c.reltype FROM source s JOIN pg_class c ON c.oid = s.oid)
  SELECT p.oid, format('%I.%I', n.nspname, p.proname) || CASE WHEN p.prokind = 'p' THEN ' procedure' WHEN p.pronargs - p.pronargdefaults = 0 AND p.provariadic = 0 THEN ' call' ELSE ' arguments' END
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.prokind IN ('f', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'custody')
    AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    AND has_function_privilege({role}, p.oid, 'EXECUTE') AND has_schema_privilege({role}, n.oid, 'USAGE')
    AND EXISTS (SELECT FROM named t WHERE p.prorettype = t.reltype
      OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid)
      OR p.prosrc ~* ('\\y' || regexp_replace(t.relname, '([^[:alnum:]_])', '\\\\\\1', 'g') || '\\y'))
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  ORDER BY p.oid";
