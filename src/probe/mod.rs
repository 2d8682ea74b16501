//! custody.probe: isolation proved by attempt. As the role that applications log in as, for two tenants, for none and for ones
//! that do not exist, everything that could cross from one to the other is tried, in a subtransaction that is rolled back.

mod attempts;
mod build;
mod facts;
mod indirect;

use std::collections::BTreeMap;

use custody_core::json;

use crate::audit::transaction::{self, Record};
use crate::error::{Error, Result};
use crate::pg::attempt;
use crate::pg::call::{Call, Oid};
use crate::pg::{data, floor, session, spi};
use crate::sql_functions;
use crate::tenant::context;

use attempts::Prober;
use build::{Builder, Row, Values, existing};
use facts::{Relation, look, look_one, quote};

sql_functions! {
    custody_probe, pg_finfo_custody_probe => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let role: Option<Oid> = call.optional(1);
        let column = call.name(2, "tenant_column").ok();
        let setting: Option<String> = call.optional(3);
        let found = probe(target, role, column, setting)?;
        call.return_rows(found.into_iter().map(|f| {
            let context = f.context.as_deref().and_then(data::text);
            vec![data::text(&f.attempt), data::text(&f.route), context, data::text(f.outcome.word()), data::text(&f.detail)]
        }))
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Leaked,
    Undecided,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Leaked => "leaked",
            Self::Undecided => "undecided",
        }
    }
}

/// One attempt and what came of it.
#[derive(Debug)]
pub struct Finding {
    pub attempt: String,
    pub route: String,
    pub context: Option<String>,
    pub outcome: Outcome,
    pub detail: String,
}

/// One of the two tenants that are held against each other: a row of its, or why there is none.
pub struct Side {
    pub tenant: String,
    pub row: std::result::Result<Row, String>,
}

/// Who is to be probed, and as whom.
struct Role {
    oid: u32,
    name: String,
    /// Other roles that reach the table, which this probe says nothing about.
    others: Vec<String>,
}

fn probe(target: Oid, role: Option<Oid>, column: Option<String>, setting: Option<String>) -> Result<Vec<Finding>> {
    let table = session::relation_name(target);
    if let Some(why) = attempt::why_read_only() {
        return Err(Error::CannotProbe {
            table,
            why: format!("A probe attempts writes, and {why}."),
            hint: "Probe on the primary, in a transaction that may write.".into(),
        });
    }
    if context::is_bound()? {
        return Err(Error::CannotProbe {
            table,
            why: "The session's own role is bound to a tenant, so that it is never without a context.".into(),
            hint: "Probe from a session of another role.".into(),
        });
    }
    if let Some(name) = &setting
        && (!name.contains('.') || name.to_ascii_lowercase().starts_with("custody."))
    {
        let why = "must be the name of a setting of your own, with a dot in it".into();
        return Err(Error::BadArgument { name: "tenant_setting", why });
    }
    authorised(target, &table)?;
    let role = session::as_owner(|| pick_role(target, role, &table))?;
    may_act_as(&role, &table)?;
    // What is found outlives the subtransaction, which nothing else does.
    let mut found = Vec::new();
    let (mut reported, found_in) = (None, &mut found);
    let outcome = attempt::rolled_back(|| {
        prepare();
        reported =
            Some(floor::as_applications_have_it(|| attempt_all(target.to_u32(), &role, column, setting, found_in)));
        Ok(())
    })?;
    if let Err(caught) = outcome {
        let why = format!("The probe itself failed: {}.", build::words(&caught));
        return Err(Error::CannotProbe { table, why, hint: String::new() });
    }
    let notes = reported.transpose()?.unwrap_or_default();
    let summary = summary(&table, &role, &found, &notes);
    record(target, &role, &found)?;
    found.insert(0, summary);
    Ok(found)
}

/// Only who may do all this anyway: a superuser, or an administrator with his own table.
fn authorised(target: Oid, table: &str) -> Result<()> {
    const MAY: &str =
        "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') AND pg_catalog.pg_has_role('custody_admin', 'USAGE')
        FROM pg_catalog.pg_class c WHERE c.oid = $1";
    let may = spi::rows_now(MAY, &[target.into()], |row| Ok(row.get::<bool>(1)?.unwrap_or(false)))?;
    match may.first() {
        Some(true) => Ok(()),
        _ => Err(Error::ProbeRefused {
            table: table.to_owned(),
            why: "It takes a superuser, or the table's owner with the role custody_admin.".into(),
            hint: "Ask one of them.".into(),
        }),
    }
}

/// The role given, or the one of custody_app's members that can do most with the table.
fn pick_role(target: Oid, role: Option<Oid>, table: &str) -> Result<Role> {
    const MEMBERS: &str = "WITH RECURSIVE app (oid) AS (
          SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'custody_app'
          UNION SELECT m.member FROM pg_catalog.pg_auth_members m JOIN app ON m.roleid = app.oid)
        SELECT r.oid, r.rolname::text, p.held FROM app JOIN pg_catalog.pg_roles r USING (oid) CROSS JOIN LATERAL (
          SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.has_table_privilege(r.oid, $1, x)
                   OR (x <> 'DELETE' AND x <> 'TRUNCATE' AND pg_catalog.has_any_column_privilege(r.oid, $1, x))) AS held
          FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) x (x)
          WHERE NOT (x = 'TRUNCATE' OR x = 'DELETE') OR pg_catalog.has_table_privilege(r.oid, $1, x)) p
        WHERE NOT r.rolsuper AND NOT r.rolbypassrls
        ORDER BY pg_catalog.pg_has_role(r.oid, 'custody_admin', 'MEMBER')
            OR pg_catalog.pg_has_role(r.oid, (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = $1), 'MEMBER'), p.held DESC, r.rolname = 'custody_app' DESC, r.rolcanlogin DESC, r.rolname";
    let Some(role) = role else {
        let members = spi::rows_now(MEMBERS, &[target.into()], |row| {
            Ok((row.get::<Oid>(1)?, row.get::<String>(2)?.unwrap_or_default(), row.get::<i64>(3)?.unwrap_or(0)))
        })?;
        let mut members = members.into_iter();
        let Some((Some(oid), name, _)) = members.next() else {
            return Err(Error::CannotProbe {
                table: table.to_owned(),
                why: "There is no role custody_app.".into(),
                hint: "Name the role that applications log in as.".into(),
            });
        };
        let others = members.filter(|m| m.2 > 0).map(|m| m.1).collect();
        return Ok(Role { oid: oid.to_u32(), name, others });
    };
    Ok(Role { oid: role.to_u32(), name: session::role_name(role), others: Vec::new() })
}

/// Triggers and functions of the caller's own run as the role: so it must be one that he could become by himself.
fn may_act_as(role: &Role, table: &str) -> Result<()> {
    const MAY: &str = "SELECT pg_catalog.pg_has_role($1, 'MEMBER')";
    let may = spi::rows_now(MAY, &[facts::oid(role.oid).into()], |row| Ok(row.get::<bool>(1)?.unwrap_or(false)))?;
    match may.first() {
        Some(true) => Ok(()),
        _ => Err(Error::ProbeRefused {
            table: table.to_owned(),
            why: format!("You are not a member of role \"{}\", as which it would be probed.", role.name),
            hint: format!("As a superuser: GRANT {} TO {}; or probe as one.", facts::ident(&role.name), session_user()),
        }),
    }
}

fn session_user() -> String {
    facts::ident(&session::role_name(session::current_role()))
}

/// The settings under which everything is attempted: no waiting for others' locks, errors in English, nothing told on the way.
fn prepare() {
    for (name, value) in [
        ("lock_timeout", "200ms"),
        ("lc_messages", "C"),
        ("client_min_messages", "error"),
        ("row_security", "on"),
        ("jit", "off"),
        ("quote_all_identifiers", "off"),
        ("extra_float_digits", "1"),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("bytea_output", "hex"),
        ("session_replication_role", "origin"),
    ] {
        attempt::set_local(name, value, true);
    }
}

fn attempt_all(
    target: u32,
    role: &Role,
    column: Option<String>,
    setting: Option<String>,
    found: &mut Vec<Finding>,
) -> Result<Vec<String>> {
    // Constraints that wait for the end of the transaction would never be heard of.
    if attempt::kept(|| attempt::run("SET CONSTRAINTS ALL IMMEDIATE", 0))?.is_err() {
        return Err(Error::CannotProbe {
            table: session::relation_name(facts::oid(target)),
            why: "This transaction has already broken a deferred constraint.".into(),
            hint: "Probe in a transaction of its own.".into(),
        });
    }
    let mut builder = Builder::new(setting)?;
    let relation = builder.relation(target)?;
    if !matches!(relation.kind.as_str(), "r" | "p") {
        return Err(Error::CannotProbe {
            table: relation.name.clone(),
            why: "It is no table.".into(),
            hint: "Probe the tables that it reads: their views are probed with them.".into(),
        });
    }
    let mut prober = Prober { builder, role: role.oid, found, notes: Vec::new(), target: relation.clone() };
    if relation.shared {
        prober.shared(&relation)?;
        return Ok(prober.notes);
    }
    let Some(column) = tenant_column(&relation, column)? else {
        return Err(Error::CannotProbe {
            table: relation.name.clone(),
            why: "Its tenant column is not known.".into(),
            hint: "Name it: custody.probe(target, tenant_column => …).".into(),
        });
    };
    let (a, b) = sides(&mut prober.builder, &relation, &column)?;
    prober.table(&relation, &column, &a, &b, "table")?;
    prober.indirect(&relation, &column, &a, &b)?;
    Ok(prober.notes)
}

/// The tenant column: as named, as registered, or as it is usually called.
fn tenant_column(relation: &Relation, named: Option<String>) -> Result<Option<String>> {
    match named.or_else(|| relation.tenant.clone()) {
        Some(column) if relation.column(&column).is_none() => {
            Err(Error::BadArgument { name: "tenant_column", why: format!("names no column of {}", relation.name) })
        }
        Some(column) => Ok(Some(column)),
        None => Ok(relation.column("tenant_id").map(|c| c.name.clone())),
    }
}

/// Two tenants, each with a row: built, else one that is there. Built ones hold up nobody and are nobody's.
fn sides(builder: &mut Builder, relation: &Relation, column: &str) -> Result<(Side, Side)> {
    let mut tenants = known_tenants(relation, column)?;
    let type_name = relation.column(column).map(|c| c.base.clone()).unwrap_or_default();
    while tenants.len() < 6 {
        tenants.push(invented(&type_name, builder));
    }
    let mut sides: Vec<Side> = Vec::new();
    let mut failed: Vec<Side> = Vec::new();
    for tenant in tenants {
        if sides.len() == 2 || failed.len() > 4 {
            break;
        }
        let row = match builder.build(relation.oid, Some(column), &tenant, &Values::new(), &mut Vec::new())? {
            Ok(row) => Ok(row),
            Err(why) => existing(relation, Some(column), Some(&tenant))?.ok_or(why),
        };
        let side = Side { tenant, row };
        if side.row.is_ok() { sides.push(side) } else { failed.push(side) }
    }
    sides.extend(failed);
    let mut sides = sides.into_iter();
    let mut next = || sides.next().ok_or_else(|| Error::internal("no tenant to probe with"));
    let (a, b) = (next()?, next()?);
    // If only one has a row, it is the one that the other must not reach.
    Ok(if b.row.is_err() { (b, a) } else { (a, b) })
}

/// Tenants that the table, what it refers to, and the registry know; no more than four.
fn known_tenants(relation: &Relation, column: &str) -> Result<Vec<String>> {
    let name = facts::ident(column);
    let mut tenants: Vec<String> = Vec::new();
    let mut add = |found: Option<String>| {
        if let Some(tenant) = found.filter(|t| !t.is_empty() && !tenants.contains(t)) {
            tenants.push(tenant);
        }
    };
    for order in ["", " DESC"] {
        add(look_one(&format!(
            "SELECT {name} FROM {} WHERE {name} IS NOT NULL ORDER BY {name}{order} LIMIT 1",
            relation.name
        ))?);
    }
    // The tenant column may refer to a table of tenants.
    for reference in &relation.references {
        if let [only] = &reference.columns[..]
            && only == column
        {
            let parent = facts::relation(reference.parent)?;
            let key = facts::ident(&reference.parent_columns[0]);
            for row in look(&format!("SELECT {key} FROM {} WHERE {key} IS NOT NULL LIMIT 4", parent.name))? {
                add(row.into_iter().next().flatten());
            }
        }
    }
    for check in relation.checks.iter().filter(|c| c.columns.iter().any(|n| n == column)) {
        if let Some(facts) = relation.column(column) {
            let all = custody_core::candidate::mentioned(&check.expression);
            all.into_iter().filter(|t| fits(&facts.base, t)).take(6).for_each(|t| add(Some(t)));
        }
    }
    for row in look("SELECT id FROM custody.tenants ORDER BY created_at, id LIMIT 20")? {
        let tenant = row.into_iter().next().flatten();
        add(tenant.filter(|t| relation.column(column).is_some_and(|c| fits(&c.base, t))));
    }
    tenants.truncate(8);
    Ok(tenants)
}

fn fits(base: &str, tenant: &str) -> bool {
    match base {
        "uuid" => tenant.parse::<uuid::Uuid>().is_ok_and(|u| u.to_string() == tenant),
        "smallint" => tenant.parse::<i16>().is_ok(),
        "integer" => tenant.parse::<i32>().is_ok(),
        "bigint" => tenant.parse::<i64>().is_ok(),
        _ => true,
    }
}

/// A tenant that nobody is.
pub fn invented(base: &str, builder: &mut Builder) -> String {
    let n = builder.random.below(1_000_000_000);
    match base {
        "uuid" => builder.random.uuid(),
        "smallint" => (20_000 + n % 12_000).to_string(),
        "integer" | "bigint" => (1_100_000_000 + n).to_string(),
        _ => format!("probe-{n}"),
    }
}

fn counts(found: &[Finding]) -> [usize; 3] {
    let count = |o| found.iter().filter(|f| f.outcome == o).count();
    [count(Outcome::Passed), count(Outcome::Leaked), count(Outcome::Undecided)]
}

fn summary(table: &str, role: &Role, found: &[Finding], notes: &[String]) -> Finding {
    let [passed, leaked, undecided] = counts(found);
    // One that is undecided is not known to hold.
    let outcome = match (passed, leaked, undecided) {
        (_, 1.., _) => Outcome::Leaked,
        (1.., 0, 0) => Outcome::Passed,
        _ => Outcome::Undecided,
    };
    let mut detail = format!(
        "{} attempts as {}: {passed} passed, {leaked} leaked, {undecided} undecided",
        found.len(),
        facts::ident(&role.name)
    );
    for note in notes {
        detail.push_str("; ");
        detail.push_str(note);
    }
    if !role.others.is_empty() {
        detail.push_str(&format!("; not probed, but reaching the table too: {}", role.others.join(", ")));
    }
    Finding { attempt: "summary".into(), route: format!("table {table}"), context: None, outcome, detail }
}

/// The one entry that remains: that a probe ran, and what it found.
fn record(target: Oid, role: &Role, found: &[Finding]) -> Result<()> {
    let [passed, leaked, undecided] = counts(found);
    let mut new = String::from("{\"role\":");
    json::push_string(&mut new, &role.name);
    new.push_str(&format!(
        ",\"attempts\":{},\"passed\":{passed},\"leaked\":{leaked},\"undecided\":{undecided},\"leaks\":{{",
        found.len()
    ));
    let mut by_route: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for f in found.iter().filter(|f| f.outcome == Outcome::Leaked) {
        let attempts = by_route.entry(&f.route).or_default();
        if !attempts.contains(&f.attempt.as_str()) {
            attempts.push(&f.attempt);
        }
    }
    for (n, (route, attempts)) in by_route.iter().enumerate() {
        if n > 0 {
            new.push(',');
        }
        json::push_string(&mut new, route);
        new.push(':');
        json::push_string(&mut new, &attempts.join(", "));
    }
    new.push_str("}}");
    let names = session::relation_names(target).unwrap_or_default();
    transaction::record([Record::system("PROBE", Some((&names.0, &names.1)), new)])
}

/// Whether a row is still where it was, unchanged: no statement of this transaction has touched it.
fn untouched(row: &Row) -> Result<bool> {
    let sql = format!("SELECT 1 FROM ONLY {} WHERE ctid = {}", row.leaf, quote(&row.ctid));
    Ok(!look(&sql)?.is_empty())
}
