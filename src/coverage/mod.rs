//! What policies mean, for `custody.coverage()`: the pure core judges, with what the catalogs say.

use std::collections::HashMap;
use std::rc::Rc;

use custody_core::policy::{self, Catalog, Function, Node, Operator, Origin, Relation, Verdict};

use crate::error::Error;
use crate::pg::call::{Call, Oid, value};
use crate::pg::data::{self, Nulled};
use crate::pg::{body, spi};
use crate::sql_functions;

sql_functions! {
    custody_judge_policies, pg_finfo_custody_judge_policies => |call: &mut Call| {
        let expressions: Vec<Option<String>> = call.required(0, "expressions")?;
        let columns: Vec<Option<i16>> = call.required(1, "columns")?;
        let nullable: Vec<Option<bool>> = call.required(2, "nullable")?;
        if columns.len() != expressions.len() || nullable.len() != expressions.len() {
            return Err(Error::BadArgument { name: "columns", why: "must be as many as expressions".into() });
        }
        let mut catalogs = Catalogs::default();
        // Most tables have the same few policies.
        let mut known: HashMap<(&str, i16, bool), (Verdict, Option<i16>)> = HashMap::new();
        let mut rows = Vec::with_capacity(expressions.len());
        for ((expression, column), nullable) in expressions.iter().zip(&columns).zip(&nullable) {
            let Some(expression) = expression.as_deref() else {
                rows.push(vec![None; 4]);
                continue;
            };
            let key = (expression, column.unwrap_or(0), nullable.unwrap_or(true));
            let (verdict, held) = known.entry(key).or_insert_with(|| judge(key, &mut catalogs));
            rows.push(row(verdict, *held));
        }
        if let Some(error) = catalogs.failed {
            return Err(error);
        }
        call.return_rows(rows)
    };
}

/// The verdict for the tenant column; without one, for the column that the expression holds to the session, if there is one.
fn judge((expression, column, nullable): (&str, i16, bool), catalogs: &mut Catalogs) -> (Verdict, Option<i16>) {
    let verdict = policy::judge(expression, column, nullable, catalogs);
    if column != 0 || matches!(verdict, Verdict::Never) {
        return (verdict, None);
    }
    for column in policy::columns(expression) {
        let verdict = policy::judge(expression, column, true, catalogs);
        if let Verdict::Holds(basis) = &verdict
            && basis.iter().any(Origin::tells)
            && !basis.iter().any(|o| matches!(o, Origin::Constant | Origin::NoTenant | Origin::Subject))
        {
            return (verdict, Some(column));
        }
    }
    (verdict, None)
}

fn row(verdict: &Verdict, held: Option<i16>) -> Vec<Nulled> {
    let (word, why, origins) = match verdict {
        Verdict::Never => ("never", None, Vec::new()),
        Verdict::Holds(basis) => ("holds", None, basis.iter().map(word).collect()),
        Verdict::Door { why, .. } => ("door", Some(why), Vec::new()),
        Verdict::Undecided(why) => ("undecided", Some(why), Vec::new()),
        Verdict::Opens(why) => ("opens", Some(why), Vec::new()),
    };
    vec![data::text(word), why.and_then(|w| data::text(w)), value(origins), held.and_then(value)]
}

/// An origin as the views know it.
fn word(origin: &Origin) -> String {
    match origin {
        Origin::Context => "context".into(),
        Origin::Claim => "claim".into(),
        Origin::User => "user".into(),
        Origin::Secured(name) | Origin::Lookup(name) => format!("table {name}"),
        Origin::Subject => "subject".into(),
        Origin::Opaque(name) => format!("function {name}"),
        Origin::Setting(name) => format!("setting {name}"),
        Origin::NoTenant => "null".into(),
        Origin::Default => "default".into(),
        Origin::Constant => "constant".into(),
        Origin::Editable => "editable".into(),
    }
}

/// What was asked of the catalogs so far.
#[derive(Default)]
struct Catalogs {
    functions: HashMap<u32, Option<Rc<Function>>>,
    operators: HashMap<u32, Operator>,
    relations: HashMap<u32, Option<Rc<Relation>>>,
    collations: HashMap<u32, bool>,
    failed: Option<Error>,
}

const FUNCTION: &str = "
SELECT CASE n.nspname WHEN 'pg_catalog' THEN p.proname::text ELSE pg_catalog.format('%I.%I', n.nspname, p.proname) END,
       n.nspname = 'pg_catalog', n.nspname = 'custody',
       -- Within a SECURITY DEFINER function other policies hold, and current_user is another.
       CASE WHEN NOT p.prosecdef THEN p.prosqlbody::text END,
       l.lanname = 'sql' AND NOT p.prosecdef AND p.prosqlbody IS NULL AND n.nspname <> 'pg_catalog' AND NOT p.proretset,
       EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_amop a ON a.amopopr = o.oid JOIN pg_catalog.pg_am m ON m.oid = a.amopmethod
               WHERE o.oprcode = p.oid AND (m.amname = 'btree' AND a.amopstrategy = 3 OR m.amname = 'hash' AND a.amopstrategy = 1))
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid = $1";

const OPERATOR: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_am m ON m.oid = a.amopmethod
               WHERE a.amopopr = o.oid AND (m.amname = 'btree' AND a.amopstrategy = 3 OR m.amname = 'hash' AND a.amopstrategy = 1)),
       EXISTS (SELECT FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_am m ON m.oid = a.amopmethod
               WHERE a.amopopr = o.oprnegate AND (m.amname = 'btree' AND a.amopstrategy = 3 OR m.amname = 'hash' AND a.amopstrategy = 1))
FROM pg_catalog.pg_operator o WHERE o.oid = $1";

const RELATION: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relrowsecurity
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";

impl Catalogs {
    fn ask<T>(
        &mut self,
        sql: &str,
        oid: u32,
        each: impl FnMut(&pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::SpiError>,
    ) -> Option<T> {
        match spi::rows(sql, &[Oid::from(oid).into()], each) {
            Ok(rows) => rows.into_iter().next(),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }
}

impl Catalog for Catalogs {
    fn function(&mut self, oid: u32) -> Option<Rc<Function>> {
        if let Some(known) = self.functions.get(&oid) {
            return known.clone();
        }
        let found = self.ask(FUNCTION, oid, |row| {
            let flag = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            let function = Function {
                name: row.get(1)?.unwrap_or_default(),
                builtin: flag(2)?,
                custody: flag(3)?,
                equality: flag(6)?,
                body: None,
            };
            Ok((function, row.get::<String>(4)?, flag(5)?))
        });
        let found = found.map(|(mut function, stored, text)| {
            let tree = if text { body::tree(Oid::from(oid)) } else { stored };
            function.body = tree.and_then(|t| Node::parse(&t)).map(Rc::new);
            Rc::new(function)
        });
        self.functions.insert(oid, found.clone());
        found
    }

    fn operator(&mut self, oid: u32) -> Operator {
        if let Some(known) = self.operators.get(&oid) {
            return *known;
        }
        let found = self.ask(OPERATOR, oid, |row| Ok((row.get::<bool>(1)?, row.get::<bool>(2)?)));
        let operator = match found {
            Some((Some(true), _)) => Operator::Equal,
            Some((_, Some(true))) => Operator::Unequal,
            _ => Operator::Other,
        };
        self.operators.insert(oid, operator);
        operator
    }

    fn relation(&mut self, oid: u32) -> Option<Rc<Relation>> {
        if let Some(known) = self.relations.get(&oid) {
            return known.clone();
        }
        let found = self.ask(RELATION, oid, |row| {
            Ok(Rc::new(Relation { name: row.get(1)?.unwrap_or_default(), secured: row.get(2)?.unwrap_or(false) }))
        });
        self.relations.insert(oid, found.clone());
        found
    }

    fn merges(&mut self, collation: u32) -> bool {
        if let Some(known) = self.collations.get(&collation) {
            return *known;
        }
        let sql = "SELECT NOT c.collisdeterministic FROM pg_catalog.pg_collation c WHERE c.oid = $1";
        // One that is gone could be either.
        let merges = self.ask(sql, collation, |row| row.get::<bool>(1)).flatten().unwrap_or(true);
        self.collations.insert(collation, merges);
        merges
    }
}
