//! Judging an expression tree: what a condition can be true of, for any row and any session.

use std::collections::BTreeSet;

use super::verdict::{Basis, Origin, Verdict};
use super::{Catalog, Node, Object, Operator};
use Verdict::{Door, Holds, Never, Opens, Undecided};

/// Judges a policy's expression (`pg_policy.polqual`, `polwithcheck`) for the tenant column of its table, which may be NULL or not.
pub fn judge(expression: &str, column: i16, nullable: bool, catalog: &mut dyn Catalog) -> Verdict {
    let Some(node) = Node::parse(expression) else { return Undecided("its tree can't be read".into()) };
    let mut judge = Judge {
        catalog,
        target: Target::Column(column.into()),
        nullable,
        steps: 50_000,
        depth: 0,
        scopes: 0,
        known: Vec::new(),
    };
    match judge.condition(&node, &ROW, true) {
        // An entry in a table that names no tenant: whoever has one sees them all.
        Door { why, entry: true } => Opens(format!("it asks for {why}, and not for the row's tenant")),
        Holds(basis) if basis.is_empty() => Undecided("where its tenant comes from can't be followed".into()),
        verdict => verdict,
    }
}

/// The columns of its own table that an expression mentions.
pub fn columns(expression: &str) -> BTreeSet<i16> {
    fn walk(node: &Node, level: i64, found: &mut BTreeSet<i16>) {
        match node {
            Node::List(items) => items.iter().for_each(|n| walk(n, level, found)),
            Node::Object(o) => {
                if o.label == "VAR" && o.number("varlevelsup") == Some(level) {
                    found.extend(o.number("varattno").and_then(|n| i16::try_from(n).ok()).filter(|n| *n > 0));
                }
                let level = level + i64::from(o.label == "QUERY");
                o.children().for_each(|n| walk(n, level, found));
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    if let Some(node) = Node::parse(expression) {
        walk(&node, 0, &mut found);
    }
    found
}

/// What an expression's value is, seen from one row after another.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Null,
    Const(Literal),
    /// The tenant column, whole.
    Tenant,
    /// Something made of it that other tenants may share.
    Blend {
        why: String,
        context: bool,
        lossy: bool,
    },
    /// Something of the row itself.
    Row(&'static str),
    /// The same for every row, and by what.
    Fixed(Basis),
    /// Any tenant's.
    Any(String),
    Unknown(String),
}

/// A constant's bytes, and whether no tenant is called so.
#[derive(Debug, Clone, PartialEq)]
struct Literal {
    bytes: Vec<u8>,
    nobody: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// A column of the policy's table.
    Column(i64),
    /// Any column of one thing that a scope selects from.
    Inside { scope: usize, entry: i64 },
}

/// A query that an expression stands in, or the policy's row.
#[derive(Clone, Copy)]
struct Scope<'a> {
    number: usize,
    outer: Option<&'a Scope<'a>>,
    query: Option<&'a Object>,
    /// A function's arguments, and where they stand.
    arguments: Option<(&'a [Node], &'a Scope<'a>)>,
    /// What the CASE around compares.
    case: Option<(&'a Node, &'a Scope<'a>)>,
}

const ROW: Scope<'static> = Scope { number: 0, outer: None, query: None, arguments: None, case: None };

/// A comparison that ties a query's output column to something outside.
struct Link<'a> {
    with: &'a Node,
    scope: &'a Scope<'a>,
    column: usize,
}

struct Judge<'c> {
    catalog: &'c mut dyn Catalog,
    target: Target,
    nullable: bool,
    steps: u32,
    depth: u32,
    scopes: usize,
    /// What is known to be chosen by something of the session, while a query's tables are looked at: (scope, entry, by what).
    known: Vec<(usize, i64, Basis)>,
}

const OWN: &str = "it compares the tenant column with the row itself";
const OTHER: &str = "it tests only other columns of the row";
const UNSET: &str = "it is also true when no context is set";
/// Expressions within expressions are followed so far: the stack is the server's.
const DEEPEST: u32 = 150;
const TOO_LONG: &str = "it is too long to be followed";
/// `@>`, `<@` and `&&` of arrays, and `?` of jsonb, which compare elements for equality.
const CONTAINS: u32 = 2751;
const CONTAINED: u32 = 2752;
const OVERLAPS: u32 = 2750;
const HAS_KEY: u32 = 3247;
/// Casts between integers, to numeric, and from name to text: no two values become one.
const LOSSLESS: [u32; 10] = [313, 314, 406, 480, 481, 714, 754, 1740, 1781, 1782];
/// Functions and operators' functions that many tenants give the same value to.
const LOSSY: [&str; 26] = [
    "lower",
    "upper",
    "initcap",
    "left",
    "right",
    "substr",
    "substring",
    "varchar",
    "bpchar",
    "char",
    "name",
    "btrim",
    "ltrim",
    "rtrim",
    "split_part",
    "length",
    "char_length",
    "octet_length",
    "ascii",
    "hashtext",
    "int2mod",
    "int4mod",
    "int8mod",
    "float4",
    "float8",
    "starts_with",
];

fn opens(why: impl Into<String>) -> Verdict {
    Opens(why.into())
}

fn fixed(origin: Origin) -> Value {
    Value::Fixed(Basis::from([origin]))
}

impl Judge<'_> {
    /// What a condition (`wanted`), or its being false, can be true of.
    fn condition(&mut self, node: &Node, scope: &Scope<'_>, wanted: bool) -> Verdict {
        if self.steps == 0 || self.depth > DEEPEST {
            return Undecided(TOO_LONG.into());
        }
        self.steps -= 1;
        self.depth += 1;
        let verdict = self.condition_of(node, scope, wanted);
        self.depth -= 1;
        verdict
    }

    fn condition_of(&mut self, node: &Node, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let Some(o) = node.object() else { return Undecided("it has a part that can't be read".into()) };
        match o.label.as_str() {
            "BOOLEXPR" => self.connective(o, scope, wanted),
            "RELABELTYPE" | "COERCETODOMAIN" | "COLLATEEXPR" => self.condition(o.get("arg"), scope, wanted),
            "NULLTEST" => self.null_test(o, scope, wanted),
            // IS TRUE, IS NOT TRUE, IS FALSE, IS NOT FALSE; the rest, and what is also true of NULL, is no test.
            "BOOLEANTEST" => match (o.number("booltesttype"), wanted) {
                (Some(0), true) | (Some(1), false) => self.condition(o.get("arg"), scope, true),
                (Some(2), true) | (Some(3), false) => self.condition(o.get("arg"), scope, false),
                _ => opens(UNSET),
            },
            "OPEXPR" => self.operator(o, scope, wanted),
            "DISTINCTEXPR" => match self.catalog.operator(o.oid("opno")) {
                Operator::Equal if !wanted => {
                    let verdict = self.equal(o, scope);
                    self.also_null(verdict, o, scope)
                }
                _ => self.atom(o.list("args"), scope, "IS DISTINCT FROM", wanted),
            },
            "SCALARARRAYOPEXPR" => self.any_of(o, scope, wanted),
            "SUBLINK" => self.sublink(o, scope, wanted),
            "CASEEXPR" | "CASE" => self.case(o, scope, wanted),
            // True if one of them is.
            "COALESCEEXPR" | "COALESCE" if wanted => {
                let parts = o.list("args").iter().map(|n| self.condition(n, scope, true));
                parts.reduce(Verdict::or).unwrap_or(Never)
            }
            "FUNCEXPR" => self.call(o, scope, wanted),
            "PARAM" => match argument(o, scope) {
                Some((node, scope)) => self.condition(node, scope, wanted),
                None => Undecided("it has a parameter".into()),
            },
            "CASETESTEXPR" => match scope.case {
                Some((node, scope)) => self.condition(node, scope, wanted),
                None => Undecided("it has a part that can't be read".into()),
            },
            "CONST" => match self.value(node, scope) {
                Value::Const(c) if c.bytes.iter().all(|b| *b == 0) == wanted => Never,
                Value::Const(_) => opens("it is true of every row"),
                _ => Never,
            },
            _ => self.atom(std::slice::from_ref(node), scope, "what it says", wanted),
        }
    }

    fn connective(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let args = o.list("args");
        match (o.get("boolop").token(), wanted) {
            (Some("not"), _) => args.first().map_or(Undecided(TOO_LONG.into()), |n| self.condition(n, scope, !wanted)),
            (Some("and"), true) | (Some("or"), false) => {
                let parts = args.iter().map(|n| self.condition(n, scope, wanted));
                parts.reduce(Verdict::and).unwrap_or(opens("it is true of every row"))
            }
            (Some("or"), true) | (Some("and"), false) => {
                let parts = args.iter().map(|n| self.condition(n, scope, wanted));
                parts.reduce(Verdict::or).unwrap_or(Never)
            }
            _ => Undecided("it has a connective that is not known".into()),
        }
    }

    fn null_test(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let is_null = (o.number("nulltesttype") == Some(0)) == wanted;
        match self.value(o.get("arg"), scope) {
            Value::Tenant if is_null && self.nullable => Holds(Basis::from([Origin::NoTenant])),
            Value::Tenant if is_null => Never,
            Value::Tenant => opens("it asks only whether the row has a tenant"),
            Value::Null | Value::Const(_) => opens("it is the same for everybody"),
            Value::Row(_) => opens(OTHER),
            Value::Fixed(_) if is_null => opens(UNSET),
            Value::Fixed(_) => opens("it asks only whether a context is set"),
            Value::Blend { context: false, .. } => opens("nothing in it is of the session"),
            Value::Blend { why, .. } | Value::Any(why) | Value::Unknown(why) => Undecided(why),
        }
    }

    fn operator(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let args = o.list("args");
        match (self.catalog.operator(o.oid("opno")), o.oid("opno"), args) {
            (Operator::Equal, ..) if wanted => self.equal(o, scope),
            (Operator::Unequal, ..) if !wanted => self.equal(o, scope),
            (_, CONTAINS, [all, some]) | (_, CONTAINED, [some, all]) if wanted => {
                self.contains(all, some, false, scope)
            }
            (_, OVERLAPS, [a, b]) if wanted => {
                let (all, some) = if elements(b).is_some() { (a, b) } else { (b, a) };
                self.contains(all, some, true, scope)
            }
            (_, HAS_KEY, [all, key]) if wanted => match (self.value(all, scope), self.value(key, scope)) {
                (Value::Fixed(basis), Value::Tenant) => Holds(basis),
                _ => self.atom(args, scope, "the operator ?", wanted),
            },
            _ => self.atom(args, scope, "a comparison other than for equality", wanted),
        }
    }

    /// `all` contains each (or with `overlap`, any) of the elements of `some`.
    fn contains(&mut self, all: &Node, some: &Node, overlap: bool, scope: &Scope<'_>) -> Verdict {
        let left = self.value(all, scope);
        let right: Vec<Value> = elements(some).unwrap_or_default().iter().map(|n| self.value(n, scope)).collect();
        let tenant = |v: &Value| *v == Value::Tenant;
        let held = !right.is_empty() && if overlap { right.iter().all(tenant) } else { right.iter().any(tenant) };
        match left {
            Value::Fixed(basis) if held => Holds(basis),
            Value::Const(_) if held => Holds(Basis::from([Origin::Constant])),
            _ => {
                let nodes = [all.clone(), some.clone()];
                self.atom(&nodes, scope, "a comparison of arrays", true)
            }
        }
    }

    /// A comparison for equality: an operator's, or that of a function that one calls.
    fn equal(&mut self, o: &Object, scope: &Scope<'_>) -> Verdict {
        let [a, b] = o.list("args") else { return Undecided("it has an operator of one side".into()) };
        let collation = o.oid("inputcollid");
        if collation != 0 && self.catalog.merges(collation) {
            return match self.mentions(a, scope, 0) || self.mentions(b, scope, 0) {
                true => opens("it compares by a collation to which different tenants are equal"),
                false => self.atom(o.list("args"), scope, "a comparison", true),
            };
        }
        for (with, other) in [(a, b), (b, a)] {
            if let Some(query) = scalar_query(other) {
                let link = Link { with, scope, column: 0 };
                return self.exists(query, scope, &[link], None);
            }
        }
        let (a, b) = (self.value(a, scope), self.value(b, scope));
        self.same(a, b)
    }

    /// Two values are equal.
    fn same(&mut self, a: Value, b: Value) -> Verdict {
        use Value::{Any, Blend, Const, Fixed, Null, Row, Tenant, Unknown};
        match (a, b) {
            (Null, _) | (_, Null) => Never,
            (Tenant, Fixed(basis)) | (Fixed(basis), Tenant) => Holds(basis),
            (Tenant, Const(_)) | (Const(_), Tenant) => Holds(Basis::from([Origin::Constant])),
            (Tenant, Tenant | Row(_) | Blend { .. }) | (Row(_) | Blend { .. }, Tenant) => opens(OWN),
            (Any(why), _) | (_, Any(why)) => Opens(why),
            (Unknown(why), _) | (_, Unknown(why)) => Undecided(why),
            (Blend { why, lossy: true, .. }, _) | (_, Blend { why, lossy: true, .. }) => Opens(why),
            (Blend { why, context: true, .. }, _) | (_, Blend { why, context: true, .. }) => Undecided(why),
            (Blend { why, .. }, Fixed(_)) | (Fixed(_), Blend { why, .. }) => Undecided(why),
            (Blend { .. }, _) | (_, Blend { .. }) => opens("nothing in it is of the session"),
            (Row(_), _) | (_, Row(_)) => opens(OTHER),
            (Const(a), Const(b)) if a.bytes != b.bytes => Never,
            (Const(_), Const(_)) => opens("it is true of every row"),
            (Fixed(basis), Const(c)) | (Const(c), Fixed(basis)) if c.nobody => match basis.iter().any(Origin::tells) {
                true => opens(UNSET),
                false => opens("it is the same for everybody"),
            },
            (Fixed(basis), Const(_)) | (Const(_), Fixed(basis)) => door(&basis, true),
            (Fixed(mut a), Fixed(b)) => {
                a.extend(b);
                door(&a, true)
            }
        }
    }

    /// IS NOT DISTINCT FROM is equality, and true of two NULLs.
    fn also_null(&mut self, verdict: Verdict, o: &Object, scope: &Scope<'_>) -> Verdict {
        let args: Vec<Value> = o.list("args").iter().map(|n| self.value(n, scope)).collect();
        match verdict {
            Holds(mut basis) => {
                if self.nullable && !args.iter().any(|v| matches!(v, Value::Const(_))) {
                    basis.insert(Origin::NoTenant);
                }
                Holds(basis)
            }
            Never if args.contains(&Value::Tenant) && !self.nullable => Never,
            Never => opens(UNSET),
            Door { .. } => opens(UNSET),
            other => other,
        }
    }

    /// `x operator ANY (array)`.
    fn any_of(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let [one, many] = o.list("args") else { return Undecided("it has an operator of one side".into()) };
        let operator = self.catalog.operator(o.oid("opno"));
        let collation = o.oid("inputcollid");
        let equal = match o.flag("useOr") {
            true => operator == Operator::Equal && wanted,
            // NOT (x <> ALL (…)); x = ALL (…) is true of an empty array.
            false => operator == Operator::Unequal && !wanted,
        };
        if !equal || collation != 0 && self.catalog.merges(collation) {
            return self.atom(o.list("args"), scope, "a comparison other than for equality", wanted);
        }
        if let Some(elements) = elements(many) {
            let one = self.value(one, scope);
            let parts: Vec<Verdict> = elements
                .iter()
                .map(|n| {
                    let element = self.value(n, scope);
                    self.same(one.clone(), element)
                })
                .collect();
            return parts.into_iter().reduce(Verdict::or).unwrap_or(Never);
        }
        let (one, many) = (self.value(one, scope), self.value(many, scope));
        self.same(one, many)
    }

    fn case(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let argument = o.get("arg");
        let inner = Scope { case: (!argument.is_null()).then_some((argument, scope)), ..*scope };
        let mut verdict = match o.get("defresult") {
            Node::Null => Never,
            result => self.condition(result, scope, wanted),
        };
        for branch in o.list("args").iter().filter_map(Node::object) {
            let met = self.condition(branch.get("expr"), &inner, true);
            let result = self.condition(branch.get("result"), scope, wanted);
            verdict = verdict.or(met.and(result));
        }
        verdict
    }

    fn sublink(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let Some(query) = o.get("subselect").object() else {
            return Undecided("it has a part that can't be read".into());
        };
        let negated = match self.mentions(o.get("testexpr"), scope, 0) || self.mentions(o.get("subselect"), scope, 0) {
            _ if wanted => None,
            true => Some(opens("it is true of what a query does not find")),
            false => Some(opens(UNSET)),
        };
        match (o.number("subLinkType"), negated) {
            (Some(0), None) => self.exists(query, scope, &[], None),
            (Some(2), None) => {
                let mut links = Vec::new();
                match self.links(o.get("testexpr"), scope, &mut links) {
                    true => self.exists(query, scope, &links, None),
                    false => match self.mentions(o.get("testexpr"), scope, 0) {
                        true => opens("it is a comparison other than for equality"),
                        false => opens("it does not test the tenant column"),
                    },
                }
            }
            (Some(1), None) => opens("it is true where a query finds nothing"),
            // (SELECT condition)
            (Some(4), _) => self.selected(query, Some(scope), None, wanted),
            (_, Some(verdict)) => verdict,
            _ => Undecided("it has a kind of sub-select that is not known".into()),
        }
    }

    /// The comparisons of `(a, b) IN (SELECT c, d …)`; false if one is other than for equality.
    fn links<'a>(&mut self, test: &'a Node, scope: &'a Scope<'a>, into: &mut Vec<Link<'a>>) -> bool {
        let Some(o) = test.object() else { return false };
        match (o.label.as_str(), o.list("args")) {
            ("BOOLEXPR", args) if o.get("boolop").token() == Some("and") => {
                args.iter().all(|n| self.links(n, scope, into))
            }
            ("OPEXPR", [with, output]) if self.catalog.operator(o.oid("opno")) == Operator::Equal => {
                let Some(column) = output_column(output) else { return false };
                if o.oid("inputcollid") != 0 && self.catalog.merges(o.oid("inputcollid")) {
                    return false;
                }
                into.push(Link { with, scope, column });
                true
            }
            _ => false,
        }
    }

    /// A condition that a query's one column is: `(SELECT condition FROM …)`, or a function's body.
    fn selected(
        &mut self,
        query: &Object,
        outer: Option<&Scope<'_>>,
        arguments: Option<(&[Node], &Scope<'_>)>,
        wanted: bool,
    ) -> Verdict {
        let Some(scope) = self.scope(query, outer, arguments) else { return Undecided(TOO_LONG.into()) };
        if !query.get("setOperations").is_null() || query.list("targetList").is_empty() {
            return Undecided("it is a query that is not followed".into());
        }
        let Some(output) = target(query, 0) else { return Undecided("it is a query that is not followed".into()) };
        if !reads(query) {
            let met = self.quals(query, &scope);
            return self.condition(output, &scope, wanted).and(met);
        }
        if query.flag("hasAggs") || !wanted {
            return match self.mentions_query(query, &scope) {
                true => Undecided("it is a query that is not followed".into()),
                false => self.atom(std::slice::from_ref(output), &scope, "what a query finds", wanted),
            };
        }
        let met = self.quals(query, &scope);
        let verdict = self.condition(output, &scope, wanted).and(met);
        self.looked_up(verdict, query, &scope)
    }

    /// A query finds a row (whose columns equal what they are linked with).
    fn exists(
        &mut self,
        query: &Object,
        outer: &Scope<'_>,
        links: &[Link<'_>],
        arguments: Option<(&[Node], &Scope<'_>)>,
    ) -> Verdict {
        if !query.get("setOperations").is_null() {
            let Some(scope) = self.scope(query, Some(outer), arguments) else { return Undecided(TOO_LONG.into()) };
            return self.set_operation(query.get("setOperations"), query, &scope, links);
        }
        let Some(scope) = self.scope(query, Some(outer), arguments) else { return Undecided(TOO_LONG.into()) };
        let always =
            query.flag("hasAggs") && query.list("groupClause").is_empty() && query.list("groupingSets").is_empty();
        let mut verdict = match (always, links) {
            (true, []) => return opens("a query with an aggregate and no GROUP BY always finds a row"),
            (true, _) => opens("nothing in it tests the tenant column"),
            (false, _) => self.quals(query, &scope),
        };
        for link in links {
            let Some(output) = target(query, link.column) else {
                return Undecided("it is a query that is not followed".into());
            };
            let (a, b) = (self.value(link.with, link.scope), self.value(output, &scope));
            verdict = verdict.and(self.same(a, b));
        }
        self.looked_up(verdict, query, &scope)
    }

    fn set_operation(&mut self, node: &Node, query: &Object, scope: &Scope<'_>, links: &[Link<'_>]) -> Verdict {
        let Some(o) = node.object() else { return Undecided("it is a query that is not followed".into()) };
        match o.label.as_str() {
            "RANGETBLREF" => match entry(query, o.number("rtindex")).and_then(|e| e.get("subquery").object()) {
                Some(arm) => self.exists(arm, scope, links, None),
                None => Undecided("it is a query that is not followed".into()),
            },
            "SETOPERATIONSTMT" => {
                let left = self.set_operation(o.get("larg"), query, scope, links);
                match o.number("op") {
                    Some(3) => left,
                    Some(2) => left.and(self.set_operation(o.get("rarg"), query, scope, links)),
                    _ => left.or(self.set_operation(o.get("rarg"), query, scope, links)),
                }
            }
            _ => Undecided("it is a query that is not followed".into()),
        }
    }

    /// A tenant that comes out of a table is as good as what chooses the table's rows.
    fn looked_up(&mut self, verdict: Verdict, query: &Object, scope: &Scope<'_>) -> Verdict {
        let from = match &verdict {
            Holds(basis) => basis.iter().find_map(|o| match o {
                Origin::Lookup(name) => Some(name.clone()),
                _ => None,
            }),
            _ => None,
        };
        match (verdict, from) {
            (Holds(mut basis), Some(name)) => match self.chosen(query, scope) {
                Some(by) => {
                    basis.extend(by);
                    Holds(basis)
                }
                None => Opens(format!("it takes tenants from {name}, and nothing of the session chooses which")),
            },
            (verdict, _) => verdict,
        }
    }

    /// By what of the session a query's rows are chosen; none if the rows of one of its tables are by nothing.
    fn chosen(&mut self, query: &Object, scope: &Scope<'_>) -> Option<Basis> {
        self.depth += 1;
        let target = self.target;
        let before = self.known.len();
        let found = if self.depth > DEEPEST { None } else { self.choose(query, scope) };
        self.known.truncate(before);
        self.target = target;
        self.depth -= 1;
        found
    }

    fn choose(&mut self, query: &Object, scope: &Scope<'_>) -> Option<Basis> {
        let mut all = Basis::new();
        let mut open = Vec::new();
        for index in tables(query) {
            let entry = entry(query, Some(index))?;
            let inner = match entry.number("rtekind") {
                Some(0) => {
                    let relation = self.catalog.relation(entry.oid("relid")).filter(|r| r.secured);
                    relation.map(|r| Basis::from([Origin::Secured(r.name.clone())]))
                }
                Some(1) => entry.get("subquery").object().and_then(|q| self.chosen_anywhere(q, scope)).filter(telling),
                Some(6) => {
                    with_query(entry, scope).and_then(|(q, outer)| self.chosen_anywhere(q, outer)).filter(telling)
                }
                // What a function or VALUES gives is looked at where it is used.
                _ => continue,
            };
            match inner {
                Some(basis) => self.known.push((scope.number, index, basis)),
                None => open.push(index),
            }
        }
        // What is tied to something that is known is known too.
        while !open.is_empty() {
            let before = open.len();
            for index in std::mem::take(&mut open) {
                self.target = Target::Inside { scope: scope.number, entry: index };
                match self.quals(query, scope) {
                    Holds(basis) if telling(&basis) => self.known.push((scope.number, index, basis)),
                    Never => return Some(Basis::new()),
                    _ => open.push(index),
                }
            }
            if open.len() == before {
                return None;
            }
        }
        for (number, _, basis) in &self.known {
            if *number == scope.number {
                all.extend(basis.iter().cloned());
            }
        }
        Some(all)
    }

    /// The conditions that every row of a query meets: WHERE, and the ON of inner joins.
    fn quals(&mut self, query: &Object, scope: &Scope<'_>) -> Verdict {
        self.join_quals(query.get("jointree"), query, scope)
    }

    fn join_quals(&mut self, node: &Node, query: &Object, scope: &Scope<'_>) -> Verdict {
        let nothing = || opens("it does not test the tenant column");
        let Some(o) = node.object() else { return nothing() };
        let own = |judge: &mut Self| match o.get("quals") {
            Node::Null => nothing(),
            quals => judge.condition(quals, scope, true),
        };
        match o.label.as_str() {
            "FROMEXPR" => {
                let mut verdict = own(self);
                for item in o.list("fromlist") {
                    verdict = verdict.and(self.join_quals(item, query, scope));
                }
                verdict
            }
            "JOINEXPR" => match o.number("jointype") {
                Some(0) => {
                    let left = self.join_quals(o.get("larg"), query, scope);
                    left.and(self.join_quals(o.get("rarg"), query, scope)).and(own(self))
                }
                // One side's rows are all there. What is joined to them restricts nothing, unless it is asked for itself: where
                // nothing met the condition, its columns are NULL.
                Some(kind @ (1 | 3)) => {
                    let (whole, optional) = if kind == 1 { ("larg", "rarg") } else { ("rarg", "larg") };
                    let verdict = self.join_quals(o.get(whole), query, scope);
                    match self.target {
                        Target::Inside { scope: number, entry }
                            if number == scope.number && below(o.get(optional)).contains(&entry) =>
                        {
                            verdict.and(self.join_quals(o.get(optional), query, scope)).and(own(self))
                        }
                        _ => verdict,
                    }
                }
                _ => nothing(),
            },
            "RANGETBLREF" => match entry(query, o.number("rtindex")) {
                Some(e) if e.number("rtekind") == Some(1) => match e.get("subquery").object() {
                    Some(inner) if matches!(self.target, Target::Column(_)) => self.exists(inner, scope, &[], None),
                    _ => nothing(),
                },
                _ => nothing(),
            },
            _ => nothing(),
        }
    }

    /// A function that is a condition.
    fn call(&mut self, o: &Object, scope: &Scope<'_>, wanted: bool) -> Verdict {
        let args = o.list("args");
        let Some(function) = self.catalog.function(o.oid("funcid")) else {
            return Undecided("it calls a function that is gone".into());
        };
        if function.equality && args.len() == 2 && wanted {
            return self.equal(o, scope);
        }
        if let Some(query) = function.body.as_deref().and_then(only_query) {
            return self.selected(query, None, Some((args, scope)), wanted);
        }
        if !function.builtin {
            let values: Vec<Value> = args.iter().map(|n| self.value(n, scope)).collect();
            if values
                .iter()
                .any(|v| matches!(v, Value::Tenant | Value::Blend { .. } | Value::Row(_) | Value::Unknown(_)))
            {
                return Undecided(format!("what {} says of a row is not known", function.name));
            }
            return door(&Basis::from([Origin::Opaque(function.name.clone())]), wanted);
        }
        if matches!(function.name.as_str(), "pg_has_role") && !args.iter().any(|n| self.mentions(n, scope, 0)) && wanted
        {
            return Door { why: "membership in a role".into(), entry: false };
        }
        self.atom(args, scope, &format!("the function {}", function.name), wanted)
    }

    /// A condition of which only its parts are known.
    fn atom(&mut self, parts: &[Node], scope: &Scope<'_>, what: &str, wanted: bool) -> Verdict {
        let values: Vec<Value> = parts.iter().map(|n| self.value(n, scope)).collect();
        let mut basis = Basis::new();
        let (mut direct, mut blend, mut row) = (false, None, false);
        for value in values {
            match value {
                Value::Unknown(why) => return Undecided(why),
                Value::Any(why) => return Opens(why),
                Value::Tenant => direct = true,
                Value::Blend { why, context, .. } => {
                    blend = Some((why, context));
                }
                Value::Row(_) => row = true,
                Value::Fixed(b) => basis.extend(b),
                Value::Null | Value::Const(_) => {}
            }
        }
        match blend {
            _ if direct => Opens(format!("{what} does not hold the row to one tenant")),
            Some((why, context)) if context || !basis.is_empty() => Undecided(why),
            Some(_) => opens("nothing in it is of the session"),
            None if row => opens(OTHER),
            None => door(&basis, wanted),
        }
    }

    /// What an expression's value is.
    fn value(&mut self, node: &Node, scope: &Scope<'_>) -> Value {
        if self.steps == 0 || self.depth > DEEPEST {
            return Value::Unknown(TOO_LONG.into());
        }
        self.steps -= 1;
        self.depth += 1;
        let value = self.value_of(node, scope);
        self.depth -= 1;
        value
    }

    fn value_of(&mut self, node: &Node, scope: &Scope<'_>) -> Value {
        let Some(o) = node.object() else { return Value::Null };
        match o.label.as_str() {
            "VAR" => self.variable(o, scope),
            "CONST" => constant(o),
            "PARAM" => match argument(o, scope) {
                Some((node, scope)) => self.value(node, scope),
                None => Value::Unknown("it has a parameter".into()),
            },
            "CASETESTEXPR" => match scope.case {
                Some((node, scope)) => self.value(node, scope),
                None => Value::Unknown("it has a part that can't be read".into()),
            },
            "RELABELTYPE" | "COERCETODOMAIN" => match self.value(o.get("arg"), scope) {
                // char(n) ignores blanks, and an extension's type may ignore anything.
                Value::Tenant if matches!(o.oid("resulttype"), 1042 | 16384..) && o.label == "RELABELTYPE" => {
                    blend("it compares the tenant column as another type", false)
                }
                value => value,
            },
            "COERCEVIAIO" => match self.value(o.get("arg"), scope) {
                // Text, varchar and uuid keep tenants apart.
                Value::Tenant if !matches!(o.oid("resulttype"), 25 | 1043 | 2950) => {
                    blend("it compares the tenant column as another type", false)
                }
                value => value,
            },
            "COLLATEEXPR" | "TARGETENTRY" => {
                self.value(o.get(if o.label == "COLLATEEXPR" { "arg" } else { "expr" }), scope)
            }
            "FUNCEXPR" => self.result(o, scope),
            "OPEXPR" => {
                let name = self.catalog.function(o.oid("opfuncid")).map(|f| f.name.clone()).unwrap_or_default();
                self.mix(o.list("args"), scope, &name)
            }
            "NULLIFEXPR" => o.list("args").first().map_or(Value::Null, |n| self.value(n, scope)),
            "COALESCEEXPR" | "COALESCE" | "MINMAXEXPR" | "MINMAX" => {
                let values = o.list("args").iter().map(|n| self.value(n, scope)).collect();
                choice(values)
            }
            "CASEEXPR" | "CASE" => {
                let results =
                    o.list("args").iter().filter_map(Node::object).map(|w| w.get("result")).chain([o.get("defresult")]);
                let values = results.map(|n| self.value(n, scope)).collect();
                choice(values)
            }
            "SQLVALUEFUNCTION" => match o.number("op") {
                Some(9..=12) => fixed(Origin::User),
                Some(14) => fixed(Origin::Setting("search_path".into())),
                Some(13) => Value::Const(Literal { bytes: Vec::new(), nobody: false }),
                _ => Value::Unknown("the time says nothing of who asks".into()),
            },
            "SUBLINK" => match (o.number("subLinkType"), o.get("subselect").object()) {
                (Some(4 | 6), Some(query)) => self.found(query, Some(scope), None),
                (_, Some(_)) if self.mentions(node, scope, 0) => blend("it has a condition within an expression", true),
                (_, Some(query)) => self
                    .chosen_anywhere(query, scope)
                    .map_or(Value::Any("nothing in it is of the session".into()), Value::Fixed),
                _ => Value::Unknown("it has a part that can't be read".into()),
            },
            "ARRAYEXPR" | "ARRAY" => self.mix(o.list("elements"), scope, "an array"),
            "ROWEXPR" | "ROW" => self.mix(o.list("args"), scope, "a row"),
            "FIELDSELECT" | "ARRAYCOERCEEXPR" | "NULLTEST" | "BOOLEANTEST" => {
                self.mix(std::slice::from_ref(o.get("arg")), scope, "a part of a value")
            }
            "BOOLEXPR" | "DISTINCTEXPR" | "SCALARARRAYOPEXPR" => self.mix(o.list("args"), scope, "a condition"),
            "SUBSCRIPTINGREF" => {
                let mut parts = vec![o.get("refexpr").clone()];
                parts.extend(o.list("refupperindexpr").iter().cloned());
                self.mix(&parts, scope, "an element")
            }
            "AGGREF" => match o.list("args") {
                [] => fixed(Origin::Lookup("a count of rows".into())),
                args => self.mix(args, scope, "an aggregate"),
            },
            label => Value::Unknown(format!("its part {label} is not known")),
        }
    }

    fn variable(&mut self, o: &Object, scope: &Scope<'_>) -> Value {
        let unknown = || Value::Unknown("it has a column that can't be followed".into());
        let (Some(level), Some(number), Some(column)) =
            (o.number("varlevelsup"), o.number("varno"), o.number("varattno"))
        else {
            return unknown();
        };
        let mut at = scope;
        for _ in 0..level {
            let Some(outer) = at.outer else { return unknown() };
            at = outer;
        }
        let Some(query) = at.query else {
            return match (at.number, self.target) {
                (0, Target::Column(tenant)) if column == tenant && number == 1 && tenant != 0 => Value::Tenant,
                (0, _) => Value::Row(OTHER),
                _ => unknown(),
            };
        };
        let Some(entry) = entry(query, Some(number)) else { return unknown() };
        let place = usize::try_from(column - 1).unwrap_or(usize::MAX);
        let kind = entry.number("rtekind");
        if let Target::Inside { scope, entry } = self.target
            && scope == at.number
            && matches!(kind, Some(0 | 1 | 6))
        {
            if entry == number {
                return Value::Tenant;
            }
            if let Some(known) = self.known.iter().find(|k| k.0 == scope && k.1 == number) {
                return Value::Fixed(known.2.clone());
            }
        }
        let within = |judge: &mut Self, query: &Object, outer: &Scope<'_>| {
            let Some(scope) = judge.scope(query, Some(outer), None) else { return Value::Unknown(TOO_LONG.into()) };
            if !query.get("setOperations").is_null() {
                return judge.found(query, Some(outer), None);
            }
            target(query, place).map_or_else(unknown, |n| judge.value(n, &scope))
        };
        match kind {
            Some(0) => {
                let relation = self.catalog.relation(entry.oid("relid"));
                fixed(relation.map_or(Origin::Lookup("a table".into()), |r| Origin::Lookup(r.name.clone())))
            }
            Some(1) => entry.get("subquery").object().map_or_else(unknown, |q| within(self, q, at)),
            Some(2) => entry.list("joinaliasvars").get(place).map_or_else(unknown, |n| self.value(n, at)),
            Some(3) => {
                let functions: Vec<Node> =
                    entry.list("functions").iter().filter_map(|f| Some(f.object()?.get("funcexpr").clone())).collect();
                self.mix(&functions, at, "a function's rows")
            }
            Some(5) => {
                let values: Vec<Value> = entry
                    .list("values_lists")
                    .iter()
                    .filter_map(|row| row.list().get(place))
                    .map(|n| self.value(n, at))
                    .collect();
                choice(values)
            }
            Some(6) => with_query(entry, at).map_or_else(unknown, |(q, outer)| within(self, q, outer)),
            Some(9) => entry.list("groupexprs").get(place).map_or_else(unknown, |n| self.value(n, at)),
            _ => unknown(),
        }
    }

    /// What a function returns.
    fn result(&mut self, o: &Object, scope: &Scope<'_>) -> Value {
        let args = o.list("args");
        let Some(function) = self.catalog.function(o.oid("funcid")) else {
            return Value::Unknown("it calls a function that is gone".into());
        };
        if function.custody {
            return match function.name.trim_start_matches("custody.") {
                name if name.starts_with("tenant") => fixed(Origin::Context),
                "claims" => fixed(Origin::Claim),
                "subject" => fixed(Origin::Subject),
                _ => Value::Unknown(format!("{} says nothing of who asks", function.name)),
            };
        }
        if function.builtin {
            return match (function.name.as_str(), args) {
                ("current_setting", [name, ..]) => match self.value(name, scope) {
                    Value::Const(c) => match String::from_utf8_lossy(&c.bytes).to_ascii_lowercase().as_str() {
                        "role" | "session_authorization" | "is_superuser" => fixed(Origin::User),
                        name => fixed(Origin::Setting(name.to_owned())),
                    },
                    _ => fixed(Origin::Setting("a setting".into())),
                },
                ("current_user" | "session_user" | "getpgusername", _) => fixed(Origin::User),
                ("current_schema" | "current_schemas", _) => fixed(Origin::Setting("search_path".into())),
                ("current_database", _) => Value::Const(Literal { bytes: Vec::new(), nobody: false }),
                (name, []) => Value::Unknown(format!("{name}() says nothing of who asks")),
                (name, _) if o.flag("funcretset") && matches!(self.mix(args, scope, name), Value::Const(_)) => {
                    Value::Any(format!("{name} gives tenants that nothing of the session chooses"))
                }
                (_, [arg, ..]) if LOSSLESS.contains(&o.oid("funcid")) => self.value(arg, scope),
                (name, args) => self.mix(args, scope, name),
            };
        }
        if let Some(query) = function.body.as_deref().and_then(only_query) {
            return self.found(query, None, Some((args, scope)));
        }
        match self.mix(args, scope, &function.name) {
            Value::Tenant | Value::Blend { .. } | Value::Row(_) => {
                Value::Unknown(format!("what {} returns is not known", function.name))
            }
            Value::Fixed(mut basis) => {
                basis.insert(Origin::Opaque(function.name.clone()));
                Value::Fixed(basis)
            }
            Value::Null | Value::Const(_) => fixed(Origin::Opaque(function.name.clone())),
            other => other,
        }
    }

    /// What a query gives: `(SELECT …)`, ARRAY(SELECT …), or a function's body.
    fn found(&mut self, query: &Object, outer: Option<&Scope<'_>>, arguments: Option<(&[Node], &Scope<'_>)>) -> Value {
        let Some(scope) = self.scope(query, outer, arguments) else { return Value::Unknown(TOO_LONG.into()) };
        if !query.get("setOperations").is_null() {
            let arms = query.list("rtable").iter().filter_map(Node::object).filter_map(|e| e.get("subquery").object());
            let values = arms.map(|arm| self.found(arm, Some(&scope), None)).collect();
            return choice(values);
        }
        let value = target(query, 0).map_or(Value::Null, |n| self.value(n, &scope));
        if !reads(query) {
            return value;
        }
        if self.mentions_query(query, &scope) {
            return match value {
                Value::Unknown(why) => Value::Unknown(why),
                _ => blend("it has a sub-select that depends on the row in a way that is not followed", true),
            };
        }
        match value {
            Value::Fixed(mut basis) => {
                let name = basis.iter().find_map(|o| match o {
                    Origin::Lookup(name) => Some(name.clone()),
                    _ => None,
                });
                let Some(name) = name else { return Value::Fixed(basis) };
                match self.chosen(query, &scope) {
                    Some(by) => {
                        basis.extend(by);
                        Value::Fixed(basis)
                    }
                    None => {
                        Value::Any(format!("it takes tenants from {name}, and nothing of the session chooses which"))
                    }
                }
            }
            other => other,
        }
    }

    fn chosen_anywhere(&mut self, query: &Object, outer: &Scope<'_>) -> Option<Basis> {
        let scope = self.scope(query, Some(outer), None)?;
        self.chosen(query, &scope)
    }

    /// The values together, of which it is not known how they make one.
    fn mix(&mut self, nodes: &[Node], scope: &Scope<'_>, what: &str) -> Value {
        let values: Vec<Value> = nodes.iter().map(|n| self.value(n, scope)).collect();
        let mut basis = Basis::new();
        let (mut tenant, mut context, mut lossy, mut row) = (None, false, LOSSY.contains(&what), false);
        for value in values {
            match value {
                Value::Any(_) | Value::Unknown(_) => return value,
                Value::Tenant => tenant = Some(format!("{what} may make one value of different tenants")),
                Value::Blend { why, context: c, lossy: l } => {
                    (context, lossy) = (context || c, lossy || l);
                    tenant = Some(why);
                }
                Value::Row(_) => row = true,
                Value::Fixed(b) => basis.extend(b),
                Value::Const(c) => {
                    let text = String::from_utf8_lossy(&c.bytes);
                    if ["user_metadata", "raw_user_meta_data"].iter().any(|w| text.contains(w)) {
                        basis.insert(Origin::Editable);
                    }
                }
                Value::Null => {}
            }
        }
        match tenant {
            Some(why) => Value::Blend { why, context: context || !basis.is_empty(), lossy },
            None if row => Value::Row(OTHER),
            None if basis.is_empty() || basis == Basis::from([Origin::Editable]) => {
                Value::Const(Literal { bytes: what.as_bytes().to_vec(), nobody: false })
            }
            None => Value::Fixed(basis),
        }
    }

    fn scope<'a>(
        &mut self,
        query: &'a Object,
        outer: Option<&'a Scope<'a>>,
        arguments: Option<(&'a [Node], &'a Scope<'a>)>,
    ) -> Option<Scope<'a>> {
        // Each costs, so that functions that call each other come to an end.
        self.steps = self.steps.checked_sub(20)?;
        self.scopes += 1;
        let mut depth = 0;
        let mut at = outer.or(arguments.map(|a| a.1));
        while let Some(scope) = at {
            depth += 1;
            at = scope.outer.or(scope.arguments.map(|a| a.1));
        }
        (depth < 30).then_some(Scope { number: self.scopes, outer, query: Some(query), arguments, case: None })
    }

    fn mentions_query(&self, query: &Object, scope: &Scope<'_>) -> bool {
        query.children().any(|n| self.mentions(n, scope, 0))
    }

    /// Whether an expression depends on the policy's row, `nested` queries below the scope.
    fn mentions(&self, node: &Node, scope: &Scope<'_>, nested: i64) -> bool {
        let o = match node {
            Node::List(items) => return items.iter().any(|n| self.mentions(n, scope, nested)),
            Node::Object(o) => o,
            _ => return false,
        };
        match o.label.as_str() {
            "VAR" => {
                let above = o.number("varlevelsup").unwrap_or(0).saturating_sub(nested);
                // No further than there are scopes, however many levels a tree claims.
                let mut scopes = std::iter::successors(Some(scope), |s| s.outer);
                above >= 0
                    && usize::try_from(above).is_ok_and(|above| scopes.nth(above).is_none_or(|s| s.query.is_none()))
            }
            "PARAM" => argument(o, scope).is_some_and(|(node, scope)| self.mentions(node, scope, 0)),
            "QUERY" => o.children().any(|n| self.mentions(n, scope, nested + 1)),
            _ => o.children().any(|n| self.mentions(n, scope, nested)),
        }
    }
}

/// Whether what it comes from tells one session from another, with no way past it.
fn telling(basis: &Basis) -> bool {
    let past = |o: &Origin| matches!(o, Origin::Constant | Origin::Default | Origin::NoTenant);
    basis.iter().any(Origin::tells) && !basis.iter().any(past)
}

/// A condition of the session alone.
fn door(basis: &Basis, wanted: bool) -> Verdict {
    let mut entry = false;
    let mut why = None;
    for origin in basis {
        match origin {
            Origin::Setting(name) => return Opens(format!("{name}, which any SQL can set, opens it")),
            Origin::Editable => return opens("a claim that its owner may edit opens it"),
            Origin::Context => why = Some("the tenant".to_owned()),
            Origin::Claim => why = Some("a claim of the token".to_owned()),
            Origin::Subject => why = Some("the token's subject".to_owned()),
            Origin::User => why = why.or(Some("a role".to_owned())),
            Origin::Opaque(name) => why = Some(format!("what {name} says")),
            Origin::Secured(name) | Origin::Lookup(name) => {
                entry = true;
                why = Some(format!("an entry in {name}"));
            }
            Origin::NoTenant | Origin::Default | Origin::Constant => {}
        }
    }
    match why {
        None => opens("it is the same for everybody"),
        Some(_) if !wanted => opens(UNSET),
        Some(why) if basis.iter().any(Origin::tells) => Door { why, entry },
        Some(_) => opens("nothing in it is of the session"),
    }
}

fn blend(why: &str, context: bool) -> Value {
    Value::Blend { why: why.into(), context, lossy: false }
}

/// One of the values.
fn choice(values: Vec<Value>) -> Value {
    let mut basis = Basis::new();
    let mut literal = None;
    let mut fixed = false;
    for value in values {
        match value {
            Value::Null => {}
            Value::Any(_) | Value::Unknown(_) => return value,
            Value::Tenant | Value::Blend { .. } | Value::Row(_) => return Value::Row(OWN),
            Value::Const(c) if c.nobody => literal = literal.or(Some(c)),
            Value::Const(c) => {
                basis.insert(Origin::Default);
                literal = Some(c);
            }
            Value::Fixed(b) => {
                fixed = true;
                basis.extend(b);
            }
        }
    }
    match literal {
        _ if fixed => Value::Fixed(basis),
        Some(literal) => Value::Const(literal),
        None => Value::Null,
    }
}

fn constant(o: &Object) -> Value {
    let values = o.all("constvalue");
    if o.flag("constisnull") || values.len() < 3 {
        return Value::Null;
    }
    // "length [ byte byte … ]"; a value of variable length begins with four bytes of length.
    let header = if o.number("constlen") == Some(-1) { 4 } else { 0 };
    let digits = values[2..].iter().filter_map(|n| n.token()?.parse::<i16>().ok()).map(|b| b as u8);
    let bytes: Vec<u8> = digits.skip(header).collect();
    let all = |byte: u8| bytes.iter().all(|b| *b == byte);
    let nobody = match o.oid("consttype") {
        20 | 21 | 23 | 2950 => all(0) || all(0xff),
        _ => matches!(bytes.as_slice(), b"" | b"0" | b"-1" | b"00000000-0000-0000-0000-000000000000"),
    };
    Value::Const(Literal { bytes, nobody })
}

/// The elements of `ARRAY[…]`.
fn elements(node: &Node) -> Option<&[Node]> {
    let o = node.object()?;
    match o.label.as_str() {
        "ARRAYEXPR" | "ARRAY" => Some(o.list("elements")),
        "RELABELTYPE" | "ARRAYCOERCEEXPR" => elements(o.get("arg")),
        _ => None,
    }
}

/// The query of `(SELECT … FROM …)`, or of a cast of that.
fn scalar_query(node: &Node) -> Option<&Object> {
    let o = node.object()?;
    match o.label.as_str() {
        "SUBLINK" if o.number("subLinkType") == Some(4) => o.get("subselect").object().filter(|q| reads(q)),
        "RELABELTYPE" | "COERCEVIAIO" => scalar_query(o.get("arg")),
        _ => None,
    }
}

/// Which output column of the sub-select stands here.
fn output_column(node: &Node) -> Option<usize> {
    let o = node.object()?;
    match o.label.as_str() {
        "PARAM" if o.number("paramkind") == Some(2) => usize::try_from(o.number("paramid")? - 1).ok(),
        "RELABELTYPE" => output_column(o.get("arg")),
        _ => None,
    }
}

/// The nth column that a query gives.
fn target(query: &Object, place: usize) -> Option<&Node> {
    let mut targets = query.list("targetList").iter().filter_map(Node::object).filter(|t| !t.flag("resjunk"));
    Some(targets.nth(place)?.get("expr"))
}

/// The nth thing that a query reads.
fn entry(query: &Object, number: Option<i64>) -> Option<&Object> {
    let place = usize::try_from(number?.checked_sub(1)?).ok()?;
    query.list("rtable").get(place)?.object()
}

/// Whether a query selects from anything.
fn reads(query: &Object) -> bool {
    query.get("jointree").object().is_some_and(|j| !j.list("fromlist").is_empty())
}

/// The numbers of what a query selects from.
fn tables(query: &Object) -> Vec<i64> {
    below(query.get("jointree"))
}

fn below(node: &Node) -> Vec<i64> {
    let Some(o) = node.object() else { return Vec::new() };
    match o.label.as_str() {
        "FROMEXPR" => o.list("fromlist").iter().flat_map(below).collect(),
        "JOINEXPR" => [o.get("larg"), o.get("rarg")].into_iter().flat_map(below).collect(),
        _ => o.number("rtindex").into_iter().collect(),
    }
}

/// The query that a WITH gives a name to, and the scope it stands in.
fn with_query<'a>(entry: &Object, scope: &'a Scope<'a>) -> Option<(&'a Object, &'a Scope<'a>)> {
    let mut at = scope;
    for _ in 0..entry.number("ctelevelsup")? {
        at = at.outer?;
    }
    let name = entry.get("ctename").token()?;
    let mut ctes = at.query?.list("cteList").iter().filter_map(Node::object);
    let cte = ctes.find(|c| c.get("ctename").token() == Some(name))?;
    Some((cte.get("ctequery").object()?, at))
}

/// The query of a function whose body is that one query.
fn only_query(body: &Node) -> Option<&Object> {
    match body {
        Node::List(items) => match items.as_slice() {
            [one] => only_query(one),
            _ => None,
        },
        Node::Object(o) if o.label == "QUERY" && o.number("commandType") == Some(1) => Some(o),
        _ => None,
    }
}

/// A function's argument.
fn argument<'a>(o: &Object, scope: &Scope<'a>) -> Option<(&'a Node, &'a Scope<'a>)> {
    if o.number("paramkind") != Some(0) {
        return None;
    }
    let mut at = *scope;
    loop {
        if let Some((arguments, scope)) = at.arguments {
            return Some((arguments.get(usize::try_from(o.number("paramid")? - 1).ok()?)?, scope));
        }
        at = *at.outer?;
    }
}
