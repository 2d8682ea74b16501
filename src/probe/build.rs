//! Rows to attempt things on: built like a user would have to, past every constraint, as the table's owner. What cannot be built
//! is said, with the reason.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use custody_core::candidate::{Random, candidates, fresh};

use super::facts::{Check, Column, Reference, Relation, ident, literal, look, look_one, oid, quote, relation};
use crate::audit::transaction;
use crate::error::Result;
use crate::pg::attempt::{self, Answer, Caught};
use crate::pg::session;
use crate::tenant::context;

/// Values by column, as text; NULL is none.
pub type Values = BTreeMap<String, Option<String>>;

/// A row that is there, and what it holds.
#[derive(Debug, Clone)]
pub struct Row {
    /// The table that it lies in, quoted, and where in it.
    pub leaf: String,
    pub ctid: String,
    pub stored: Values,
    /// The values that it was inserted with; the other columns took their defaults. None for a row that was there before.
    pub given: Option<Values>,
}

/// How deep a chain of references may be followed.
const DEEPEST: usize = 12;
/// How often an insertion is repaired.
const ROUNDS: usize = 8;
/// How many combinations of values a set of checks is tried with.
const COMBINATIONS: usize = 200_000;

pub struct Builder {
    pub random: Random,
    /// The setting that a hand-written policy reads.
    pub setting: Option<String>,
    /// Who asked for the probe.
    caller: u32,
    /// The search_path that each role's triggers and functions expect.
    paths: RefCell<HashMap<u32, String>>,
    known: HashMap<u32, Rc<Relation>>,
    valid: HashMap<(String, String), bool>,
}

/// What one insertion is to satisfy.
struct Plan<'a> {
    relation: &'a Relation,
    tenant_column: Option<&'a str>,
    tenant: &'a str,
    fixed: &'a Values,
    template: Option<&'a Values>,
    /// References that need a parent of their own, and columns that must not be NULL: errors taught it.
    own_parents: BTreeSet<String>,
    needed: BTreeSet<String>,
    round: usize,
}

impl Builder {
    pub fn new(setting: Option<String>) -> Result<Self> {
        let mut seed = [0; 8];
        transaction::fill_random(&mut seed)?;
        Ok(Self {
            random: Random::new(seed),
            setting,
            caller: session::current_role().to_u32(),
            paths: RefCell::default(),
            known: HashMap::new(),
            valid: HashMap::new(),
        })
    }

    /// A role's own search_path: under another's, what the role calls by unqualified names would be what that other chose.
    fn path(&self, role: u32) -> String {
        if let Some(known) = self.paths.borrow().get(&role) {
            return known.clone();
        }
        let path = search_path(role).unwrap_or_else(|_| "pg_catalog, pg_temp".into());
        self.paths.borrow_mut().insert(role, path.clone());
        path
    }

    pub fn relation(&mut self, number: u32) -> Result<Rc<Relation>> {
        if let Some(known) = self.known.get(&number) {
            return Ok(known.clone());
        }
        let facts = Rc::new(relation(number)?);
        self.known.insert(number, facts.clone());
        Ok(facts)
    }

    /// Runs `work` as a role, for a tenant, with the settings of an application's session. Within a subtransaction.
    pub fn act<T>(&self, role: u32, tenant: Option<&str>, work: impl FnOnce() -> T) -> T {
        let path = self.path(role);
        context::lent(tenant, || {
            if let Some(setting) = &self.setting {
                attempt::set_local(setting, tenant.unwrap_or_default(), false);
            }
            attempt::set_local("search_path", &path, false);
            attempt::as_role(oid(role), work)
        })
    }

    /// Inserts a row of a tenant, and whatever it must refer to; or says why not.
    pub fn build(
        &mut self,
        number: u32,
        tenant_column: Option<&str>,
        tenant: &str,
        fixed: &Values,
        above: &mut Vec<u32>,
    ) -> Result<std::result::Result<Row, String>> {
        let relation = self.relation(number)?;
        if above.len() > DEEPEST || above.contains(&number) {
            return Ok(Err(format!("{} is in a circle of references", relation.name)));
        }
        if !matches!(relation.kind.as_str(), "r" | "p") {
            return Ok(Err(format!("{} is no table", relation.name)));
        }
        // Its rows are built as its owner, and what is in it is looked at.
        if !may_act_for(self.caller, relation.owner)? {
            return Ok(Err(format!("{} belongs to a role that you are not a member of", relation.name)));
        }
        let tenant_column = tenant_column.filter(|c| relation.column(c).is_some());
        let mut fixed = fixed.clone();
        if let Some(column) = tenant_column {
            fixed.entry(column.to_owned()).or_insert_with(|| Some(tenant.to_owned()));
        }
        above.push(number);
        let template = existing(&relation, tenant_column, Some(tenant))?.or(existing(&relation, tenant_column, None)?);
        let mut outcome = Err(String::new());
        for template in [template.as_ref().map(|t| &t.stored), None] {
            let plan = Plan {
                relation: &relation,
                tenant_column,
                tenant,
                fixed: &fixed,
                template,
                own_parents: BTreeSet::new(),
                needed: BTreeSet::new(),
                round: 0,
            };
            // What a failed way left behind (parents) would only be in the way.
            let built = attempt::kept(|| {
                let built = self.construct(plan, above)?;
                built.map_or_else(
                    |why| Err(crate::error::Error::CannotProbe { table: String::new(), why, hint: String::new() }),
                    Ok,
                )
            });
            outcome = match built {
                Ok(Ok(row)) => Ok(row),
                Ok(Err(caught)) => Err(words(&caught)),
                Err(crate::error::Error::CannotProbe { why, .. }) => Err(why),
                Err(other) => return Err(other),
            };
            if outcome.is_ok() {
                break;
            }
        }
        above.pop();
        Ok(outcome.map_err(|why| format!("no row of {} could be built: {why}", relation.name)))
    }

    fn construct(&mut self, mut plan: Plan<'_>, above: &mut Vec<u32>) -> Result<std::result::Result<Row, String>> {
        let mut last = String::from("nothing was tried");
        for round in 0..ROUNDS {
            plan.round = round;
            let values = match self.values(&plan, above)? {
                Ok(values) => values,
                Err(why) => {
                    last = why;
                    continue;
                }
            };
            let caught = match self.insert(&plan, &values)? {
                Ok(Some(row)) => return Ok(Ok(row)),
                Ok(None) => return Ok(Err("a trigger or a rule keeps the row out".into())),
                Err(caught) => caught,
            };
            last = words(&caught);
            let named = last_quoted(&caught.message);
            match caught.sqlstate.as_str() {
                "23505" | "23P01" => {
                    // All parents may be taken already, as in one-to-one references.
                    let columns =
                        plan.relation.keys.iter().filter(|k| Some(&k.name) == named.as_ref()).flat_map(|k| &k.columns);
                    let columns: BTreeSet<&String> = columns.collect();
                    for reference in
                        plan.relation.references.iter().filter(|r| r.columns.iter().any(|c| columns.contains(c)))
                    {
                        plan.own_parents.insert(reference.name.clone());
                    }
                }
                "23503" => plan.own_parents.extend(named),
                "23502" => {
                    let column = caught.message.split('"').nth(1).map(ToOwned::to_owned);
                    plan.needed.extend(column);
                }
                _ => {}
            }
        }
        Ok(Err(last))
    }

    fn insert(&self, plan: &Plan<'_>, values: &Values) -> Result<std::result::Result<Option<Row>, Caught>> {
        let relation = plan.relation;
        let sql = format!("{} RETURNING tableoid, ctid", insertion(relation, &relation.name, values, |_| true));
        let answer = attempt::kept(|| self.act(relation.owner, Some(plan.tenant), || attempt::run(&sql, 0)))?;
        let place = match answer {
            Ok(answer) => answer.rows.into_iter().next(),
            Err(caught) => return Ok(Err(caught)),
        };
        let Some(place) = place else { return Ok(Ok(None)) };
        let mut place = place.into_iter().flatten();
        let (leaf, ctid) = (place.next().unwrap_or_default(), place.next().unwrap_or_default());
        let leaf = look(&format!(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {leaf}"
        ))?;
        let leaf = leaf.into_iter().flatten().flatten().next().unwrap_or_default();
        let found = stored(relation, &format!("ONLY {leaf}"), &format!("ctid = {}", quote(&ctid)))?;
        Ok(Ok(found.map(|mut row| {
            row.given = Some(values.clone());
            row
        })))
    }

    /// Values for a row; or what stands in the way.
    fn values(&mut self, plan: &Plan<'_>, above: &mut Vec<u32>) -> Result<std::result::Result<Values, String>> {
        let relation = plan.relation;
        let mut values = plan.fixed.clone();
        let referring: BTreeSet<&String> = relation.references.iter().flat_map(|r| &r.columns).collect();
        let checked: BTreeSet<&String> = relation.checks.iter().flat_map(|c| &c.columns).collect();
        for column in relation.keys.iter().flat_map(|k| &k.columns) {
            let Some(facts) = relation.column(column) else { continue };
            let taken = values.contains_key(column) || referring.contains(column) || checked.contains(column);
            if taken || facts.generated || facts.domain.is_some() {
                continue;
            }
            if let Some(value) = fresh(facts, &mut self.random) {
                values.insert(column.clone(), Some(value));
            }
        }
        if relation.key().is_none() {
            // By something its new rows must be told from others.
            let plain = relation.columns.iter().filter(|c| {
                let bound = values.contains_key(&c.name) || referring.contains(&c.name) || checked.contains(&c.name);
                !bound && !c.generated && c.domain.is_none()
            });
            let told = plain.filter_map(|c| Some((c.name.clone(), fresh(c, &mut self.random)?))).next();
            values.extend(told.map(|(column, value)| (column, Some(value))));
        }
        for reference in &relation.references {
            if let Err(why) = self.refer(plan, reference, &mut values, above)? {
                return Ok(Err(why));
            }
        }
        if let Err(why) = self.satisfy(plan, &mut values)? {
            return Ok(Err(why));
        }
        let unique: BTreeSet<&String> = relation.keys.iter().flat_map(|k| &k.columns).collect();
        for column in &relation.columns {
            if values.contains_key(&column.name) || column.generated {
                continue;
            }
            let kept = plan.template.and_then(|t| t.get(&column.name)).filter(|v| v.is_some());
            let value = match kept {
                Some(value) if !unique.contains(&column.name) && !referring.contains(&column.name) => value.clone(),
                _ if draws_from_sequence(column) => fresh(column, &mut self.random),
                _ if column.default.is_some() => continue,
                _ if !column.not_null && !plan.needed.contains(&column.name) => continue,
                _ => {
                    let mut some = self.acceptable(plan, column, 1 + plan.round)?;
                    match some.pop() {
                        Some(value) => value,
                        None => {
                            return Ok(Err(format!("no value is known that column {} accepts", ident(&column.name))));
                        }
                    }
                }
            };
            values.insert(column.name.clone(), value);
        }
        Ok(Ok(values))
    }

    /// Decides the columns of a reference: a parent that is there, or one made for it, or NULL.
    fn refer(
        &mut self,
        plan: &Plan<'_>,
        reference: &Reference,
        values: &mut Values,
        above: &mut Vec<u32>,
    ) -> Result<std::result::Result<(), String>> {
        let relation = plan.relation;
        let primary: BTreeSet<&String> = relation.keys.iter().filter(|k| k.primary).flat_map(|k| &k.columns).collect();
        let open = |values: &Values, c: &String| !values.contains_key(c);
        let may_be_null = |c: &String| {
            relation.column(c).is_some_and(|f| !f.not_null) && !primary.contains(c) && !plan.needed.contains(c)
        };
        let undecided: Vec<&String> = reference.columns.iter().filter(|c| open(values, c)).collect();
        // Late rounds give even those a parent that may be without one: a check may ask for it.
        let sparing = plan.round < ROUNDS / 2 && !(reference.full && undecided.len() < reference.columns.len());
        if sparing && undecided.iter().any(|c| may_be_null(c)) {
            for column in undecided.into_iter().filter(|c| may_be_null(c)) {
                values.insert(column.clone(), None);
            }
            return Ok(Ok(()));
        }
        let pairs: Vec<(&String, &String)> = reference.columns.iter().zip(&reference.parent_columns).collect();
        if reference.columns.iter().any(|c| values.get(c) == Some(&None)) {
            return Ok(Ok(()));
        }
        let parent = self.relation(reference.parent)?;
        if parent.oid == relation.oid {
            // A row may refer to itself.
            for (column, of) in pairs {
                if open(values, column) {
                    let Some(value) = values.get(of).cloned().flatten() else {
                        return Ok(Err(format!("column {} refers to {}", ident(column), relation.name)));
                    };
                    values.insert(column.clone(), Some(value));
                }
            }
            return Ok(Ok(()));
        }
        let mut fixed = Values::new();
        for (column, of) in &pairs {
            if let Some(Some(value)) = values.get(*column) {
                fixed.insert((*of).clone(), Some(value.clone()));
            }
        }
        let same_name = plan.tenant_column.filter(|c| parent.column(c).is_some()).map(ToOwned::to_owned);
        let tenant_column = parent.tenant.clone().or(same_name);
        let mut wanted = fixed.clone();
        if let Some(column) = &tenant_column {
            wanted.entry(column.clone()).or_insert_with(|| Some(plan.tenant.to_owned()));
        }
        let whole = undecided.is_empty();
        let borrowed = match plan.own_parents.contains(&reference.name) && !whole {
            true => None,
            false if !may_act_for(self.caller, parent.owner)? => None,
            false => stored(&parent, &parent.name, &condition(&parent, &wanted))?,
        };
        let parent_row = match borrowed {
            Some(row) => row,
            None => match self.build(reference.parent, tenant_column.as_deref(), plan.tenant, &fixed, above)? {
                Ok(row) => row,
                Err(why) if !may_act_for(self.caller, parent.owner)? => return Ok(Err(why)),
                // Rather a parent that others refer to as well than none.
                Err(why) => match stored(&parent, &parent.name, &condition(&parent, &wanted))? {
                    Some(row) => row,
                    None => return Ok(Err(why)),
                },
            },
        };
        for (column, of) in pairs {
            if open(values, column) {
                values.insert(column.clone(), parent_row.stored.get(of).cloned().flatten());
            }
        }
        Ok(Ok(()))
    }

    /// Finds values for the columns that checks are about, such that all of them hold.
    fn satisfy(&mut self, plan: &Plan<'_>, values: &mut Values) -> Result<std::result::Result<(), String>> {
        for (columns, checks) in groups(plan.relation) {
            let facts: Vec<&Column> = columns.iter().filter_map(|c| plan.relation.column(c)).collect();
            if facts.iter().any(|c| c.generated) {
                continue;
            }
            let mut lists = Vec::new();
            let mut room = COMBINATIONS;
            for column in &facts {
                let list = match values.get(&column.name) {
                    Some(decided) => vec![decided.clone()],
                    None => {
                        let most = match facts.len() {
                            1 => 200,
                            2 => 60,
                            3 => 24,
                            _ => 8,
                        };
                        self.acceptable(plan, column, most.min(room.max(1)))?
                    }
                };
                if list.is_empty() {
                    return Ok(Err(format!("no value is known that column {} accepts", ident(&column.name))));
                }
                room /= list.len();
                lists.push(list);
            }
            let from: Vec<String> = facts
                .iter()
                .zip(&lists)
                .enumerate()
                .map(|(n, (column, list))| {
                    let rows: Vec<String> =
                        list.iter().map(|v| format!("({})", literal(v.as_deref(), &column.type_name))).collect();
                    format!("(VALUES {}) AS v{n} ({})", rows.join(", "), ident(&column.name))
                })
                .collect();
            let names: Vec<String> = columns.iter().map(|c| ident(c)).collect();
            let all: Vec<String> = checks.iter().map(|c| format!("(({}) IS NOT FALSE)", c.expression)).collect();
            // The first values are the likelier, but they have been tried if this is not the first round.
            let offset = plan.round.saturating_sub(1);
            let sql = format!(
                "SELECT {} FROM {} WHERE {} LIMIT 1 OFFSET {offset}",
                names.join(", "),
                from.join(" CROSS JOIN "),
                all.join(" AND ")
            );
            let found = attempt::rolled_back(|| {
                self.act(plan.relation.owner, Some(plan.tenant), || {
                    // Expressions are printed for the function's own search_path.
                    attempt::set_local("search_path", "pg_catalog, pg_temp", false);
                    attempt::run(&sql, 0)
                })
            })?;
            let row = match found {
                Ok(Answer { rows, .. }) => rows.into_iter().next(),
                Err(caught) => return Ok(Err(words(&caught))),
            };
            let Some(row) = row else {
                let names: Vec<&str> = checks.iter().map(|c| c.name.as_str()).collect();
                return Ok(Err(format!("no values are known that satisfy the constraints {}", names.join(", "))));
            };
            for (column, value) in facts.iter().zip(row) {
                values.insert(column.name.clone(), value);
            }
        }
        Ok(Ok(()))
    }

    /// Values that the column's type takes, the likelier first.
    fn acceptable(&mut self, plan: &Plan<'_>, column: &Column, most: usize) -> Result<Vec<Option<String>>> {
        let relation = plan.relation;
        let mut list: Vec<Option<String>> = Vec::new();
        let unique = relation.keys.iter().any(|k| k.columns.contains(&column.name));
        if let Some(Some(value)) = plan.template.and_then(|t| t.get(&column.name))
            && !unique
        {
            list.push(Some(value.clone()));
        }
        if let Some(default) = column.default.as_ref().filter(|_| !draws_from_sequence(column)) {
            let sql = format!("SELECT {default}");
            let value = attempt::rolled_back(|| {
                self.act(relation.owner, Some(plan.tenant), || {
                    attempt::set_local("search_path", "pg_catalog, pg_temp", false);
                    attempt::run(&sql, 1)
                })
            })?;
            if let Ok(answer) = value {
                list.extend(answer.rows.into_iter().flatten());
            }
        }
        if !column.not_null && !plan.needed.contains(&column.name) {
            list.push(None);
        }
        if unique {
            list.extend((0..4).filter_map(|_| fresh(column, &mut self.random)).map(Some));
        }
        let checks = relation.checks.iter().filter(|c| c.columns.contains(&column.name));
        list.extend(candidates(column, checks, &mut self.random).into_iter().map(Some));
        if !unique {
            let sql = format!(
                "SELECT DISTINCT {c} FROM (SELECT {c} FROM {t} LIMIT 1000) s LIMIT 5",
                c = ident(&column.name),
                t = relation.name
            );
            // A type may have no equality.
            if let Ok(rows) = attempt::rolled_back(|| look(&sql))? {
                list.extend(rows.into_iter().flatten());
            }
        }
        let mut accepted: Vec<Option<String>> = Vec::new();
        for value in list {
            if accepted.len() >= most {
                break;
            }
            if !accepted.contains(&value) && self.is_valid(plan, column, value.as_deref())? {
                accepted.push(value);
            }
        }
        if accepted.is_empty() {
            for value in elsewhere(column, self.caller)? {
                if self.is_valid(plan, column, Some(&value))? {
                    accepted.push(Some(value));
                }
            }
        }
        if plan.round > 0 && most == 1 + plan.round && accepted.len() > 1 {
            // In later rounds another value than the likeliest.
            let last = accepted.len() - 1;
            accepted.swap(last, plan.round % (last + 1));
        } else if most == 1 {
            accepted.truncate(1);
        }
        Ok(accepted)
    }

    fn is_valid(&mut self, plan: &Plan<'_>, column: &Column, value: Option<&str>) -> Result<bool> {
        let Some(text) = value else { return Ok(!column.not_null || column.default.is_some()) };
        let key = (column.type_name.clone(), text.to_owned());
        if let Some(known) = self.valid.get(&key) {
            return Ok(*known);
        }
        let sql = format!("SELECT {}", literal(value, &column.type_name));
        let valid = attempt::rolled_back(|| self.act(plan.relation.owner, None, || attempt::run(&sql, 1)))?.is_ok();
        self.valid.insert(key, valid);
        Ok(valid)
    }
}

/// `INSERT INTO …` with the values of the columns that `named` lets through.
pub fn insertion(relation: &Relation, name: &str, values: &Values, named: impl Fn(&str) -> bool) -> String {
    let (mut columns, mut constants) = (Vec::new(), Vec::new());
    for (column, value) in values.iter().filter(|(c, _)| named(c)) {
        let Some(facts) = relation.column(column).filter(|f| !f.generated) else { continue };
        columns.push(ident(column));
        constants.push(literal(value.as_deref(), &facts.type_name));
    }
    match columns.is_empty() {
        true => format!("INSERT INTO {name} DEFAULT VALUES"),
        false => {
            format!(
                "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
                columns.join(", "),
                constants.join(", ")
            )
        }
    }
}

/// Equality with constants, as the extension's owner asks for it.
pub fn condition(relation: &Relation, values: &Values) -> String {
    let mut terms = Vec::new();
    for (column, value) in values {
        let Some(facts) = relation.column(column) else { continue };
        // As the base type, so that no domain's check runs as the extension's owner; other types of users' as texts.
        terms.push(match (value, facts.base.contains('.')) {
            (None, _) => format!("{} IS NULL", ident(column)),
            (Some(value), true) => format!("format('%s', {}) = {}", ident(column), quote(value)),
            (Some(_), false) => format!("{} = {}", ident(column), literal(value.as_deref(), &facts.base)),
        });
    }
    if terms.is_empty() { "true".into() } else { terms.join(" AND ") }
}

/// Some row of a tenant's, or of anyone's.
pub fn existing(relation: &Relation, tenant_column: Option<&str>, tenant: Option<&str>) -> Result<Option<Row>> {
    let wanted: Values = match (tenant_column, tenant) {
        (Some(column), Some(tenant)) => [(column.to_owned(), Some(tenant.to_owned()))].into(),
        (None, Some(_)) => return Ok(None),
        _ => Values::new(),
    };
    stored(relation, &relation.name, &condition(relation, &wanted))
}

/// The first row that a condition, trusted, holds for.
pub fn stored(relation: &Relation, from: &str, condition: &str) -> Result<Option<Row>> {
    let columns: Vec<String> = relation.columns.iter().map(|c| format!("t.{}", ident(&c.name))).collect();
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname), s.* FROM (
           SELECT t.tableoid AS custody_leaf, t.ctid AS custody_ctid{}{} FROM {from} t WHERE {condition} LIMIT 1) s
         JOIN pg_class c ON c.oid = s.custody_leaf JOIN pg_namespace n ON n.oid = c.relnamespace",
        if columns.is_empty() { "" } else { ", " },
        columns.join(", ")
    );
    // A value may not fit the column's type; then there is no such row.
    let Ok(rows) = attempt::rolled_back(|| look(&sql))? else { return Ok(None) };
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let mut row = row.into_iter();
    let leaf = row.next().flatten().unwrap_or_default();
    let ctid = row.nth(1).flatten().unwrap_or_default();
    let stored = relation.columns.iter().map(|c| c.name.clone()).zip(row).collect();
    Ok(Some(Row { leaf, ctid, stored, given: None }))
}

/// Whether one role has what another has, so that it may be shown, and made to do, what the other could.
fn may_act_for(caller: u32, owner: u32) -> Result<bool> {
    Ok(look_one(&format!("SELECT pg_has_role({caller}, {owner}, 'USAGE')"))?.as_deref() == Some("t"))
}

/// What a role's sessions find names by.
fn search_path(role: u32) -> Result<String> {
    let found = look_one(&format!(
        "SELECT coalesce((
           SELECT substr(s.setting, 13) FROM pg_db_role_setting d CROSS JOIN LATERAL unnest(d.setconfig) AS s (setting)
           WHERE s.setting LIKE 'search\\_path=%' AND d.setrole IN (0, {role}) AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
           ORDER BY d.setrole = 0, d.setdatabase = 0 LIMIT 1),
         (SELECT reset_val FROM pg_settings WHERE name = 'search_path'))"
    ))?;
    Ok(found.unwrap_or_else(|| "public".into()))
}

/// Values of the same type from any table whose rows the caller may be shown.
fn elsewhere(column: &Column, caller: u32) -> Result<Vec<String>> {
    let places = look(&format!(
        "SELECT format('SELECT %1$I FROM ONLY %2$I.%3$I WHERE %1$I IS NOT NULL LIMIT 2', a.attname, n.nspname, c.relname)
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE a.atttypid = {} AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' AND c.relpersistence <> 't'
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'custody') AND n.nspname NOT LIKE 'pg\\_%'
           AND pg_has_role({caller}, c.relowner, 'USAGE') LIMIT 20",
        column.type_oid
    ))?;
    let mut values = Vec::new();
    for sql in places.into_iter().flatten().flatten() {
        values.extend(look(&sql)?.into_iter().flatten().flatten());
    }
    Ok(values)
}

/// The columns that checks tie together, with those checks.
fn groups(relation: &Relation) -> Vec<(BTreeSet<String>, Vec<&Check>)> {
    let mut groups: Vec<(BTreeSet<String>, Vec<&Check>)> = Vec::new();
    for check in &relation.checks {
        let mut merged: (BTreeSet<String>, Vec<&Check>) = (check.columns.iter().cloned().collect(), vec![check]);
        groups.retain_mut(|(columns, checks)| {
            let apart = columns.is_disjoint(&merged.0);
            if !apart {
                merged.0.append(columns);
                merged.1.append(checks);
            }
            apart
        });
        groups.push(merged);
    }
    groups
}

fn draws_from_sequence(column: &Column) -> bool {
    column.identity || column.default.as_ref().is_some_and(|d| d.contains("nextval("))
}

/// The last name in double quotes.
fn last_quoted(message: &str) -> Option<String> {
    message.split('"').nth_back(1).map(ToOwned::to_owned)
}

/// An error in one line.
pub fn words(caught: &Caught) -> String {
    format!("{} {}", caught.sqlstate, caught.message)
}
