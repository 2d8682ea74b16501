//! What policies mean, judged from the trees that servers of every version we know make of them (tests/policies).

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use custody_core::policy::{self, Catalog, Function, Node, Operator, Relation, Verdict};
use proptest::prelude::*;
use serde_json::Value;

/// What a server's catalogs said.
struct Server {
    version: i64,
    facts: Value,
    bodies: HashMap<u32, Rc<Node>>,
}

impl Server {
    fn all() -> Vec<Server> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/policies");
        let versions = [15, 16, 17, 18];
        versions
            .map(|v| {
                let facts: Value =
                    serde_json::from_str(&fs::read_to_string(dir.join(format!("pg{v}.json"))).unwrap()).unwrap();
                assert_eq!(facts["version"], v);
                let mut bodies = HashMap::new();
                for (oid, function) in facts["functions"].as_object().unwrap() {
                    if let Some(body) = function["body"].as_str() {
                        bodies.insert(oid.parse().unwrap(), Rc::new(Node::parse(body).expect("a body is a tree")));
                    }
                }
                Server { version: v, facts, bodies }
            })
            .into()
    }

    fn judge(&mut self, expression: &str, tree: &str) -> Verdict {
        // The column that the expression is about.
        let column = ["tid", "num", "loose"].into_iter().find(|c| {
            let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.clone().any(|w| w == *c)
                && !words.clone().any(|w| w == "tenant_id" && !expression.contains("'tenant_id'"))
        });
        let column = self.facts["columns"][column.unwrap_or("tenant_id")].clone();
        policy::judge(tree, column["number"].as_i64().unwrap() as i16, column["nullable"] == true, self)
    }
}

impl Catalog for Server {
    fn function(&mut self, oid: u32) -> Option<Rc<Function>> {
        let f = self.facts["functions"].get(oid.to_string())?;
        Some(Rc::new(Function {
            name: f["name"].as_str().unwrap().into(),
            builtin: f["builtin"] == true,
            custody: f["custody"] == true,
            equality: f["equality"] == true,
            body: self.bodies.get(&oid).cloned(),
        }))
    }

    fn operator(&mut self, oid: u32) -> Operator {
        match self.facts["operators"][oid.to_string()].as_str() {
            Some("=") => Operator::Equal,
            Some("<>") => Operator::Unequal,
            _ => Operator::Other,
        }
    }

    fn relation(&mut self, oid: u32) -> Option<Rc<Relation>> {
        let r = self.facts["relations"].get(oid.to_string())?;
        Some(Rc::new(Relation { name: r["name"].as_str().unwrap().into(), secured: r["secured"] == true }))
    }

    fn merges(&mut self, collation: u32) -> bool {
        self.facts["merging"].as_array().unwrap().contains(&collation.into())
    }
}

fn words(verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Never => ("never", String::new()),
        Verdict::Holds(basis) => ("holds", format!("{basis:?}")),
        Verdict::Door { why, .. } => ("door", why.clone()),
        Verdict::Undecided(why) => ("undecided", why.clone()),
        Verdict::Opens(why) => ("opens", why.clone()),
    }
}

#[test]
fn every_policy_is_judged_as_it_should_be_from_every_version() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for mut server in Server::all() {
        for policy in server.facts["policies"].as_array().unwrap().clone() {
            let field = |name: &str| policy[name].as_str().unwrap_or_default().to_owned();
            let (verdict, why) = words(&server.judge(&field("expression"), &field("tree")));
            let origin = field("origin");
            judged += 1;
            if verdict != field("expect") || !why.contains(&origin) {
                wrong.push(format!(
                    "{}: {}\n    is {verdict} ({why}), should be {} {origin}",
                    server.version,
                    field("expression"),
                    field("expect")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged >= 4 * 140);
}

/// A tree of conditions about the tenant column, made at random; and whether it may hold, by an independent rule: with every test of
/// the tenant taken for false and every other for true, it must not be true.
fn tree() -> impl Strategy<Value = (String, bool)> {
    let tenant = "{OPEXPR :opno 98 :opfuncid 67 :inputcollid 100 :args ({VAR :varno 1 :varattno 2 :varlevelsup 0} {FUNCEXPR :funcid 3294 :args ({CONST :consttype 25 :constlen -1 :constisnull false :constvalue 5 [ 20 0 0 0 97 ]})})}";
    let other = "{OPEXPR :opno 98 :opfuncid 67 :inputcollid 100 :args ({VAR :varno 1 :varattno 6 :varlevelsup 0} {VAR :varno 1 :varattno 6 :varlevelsup 0})}";
    let leaf = prop_oneof![Just((tenant.to_owned(), false)), Just((other.to_owned(), true))];
    leaf.prop_recursive(6, 40, 4, |inner| {
        (prop::bool::ANY, prop::collection::vec(inner, 1..4)).prop_map(|(and, parts)| {
            let text: Vec<&str> = parts.iter().map(|p| p.0.as_str()).collect();
            let true_elsewhere = if and { parts.iter().all(|p| p.1) } else { parts.iter().any(|p| p.1) };
            (
                format!(
                    "{{BOOLEXPR :boolop {} :args ({}) :location 1}}",
                    if and { "and" } else { "or" },
                    text.join(" ")
                ),
                true_elsewhere,
            )
        })
    })
}

proptest! {
    #[test]
    fn what_is_true_of_another_tenants_row_never_holds((text, true_elsewhere) in tree()) {
        let mut server = SERVER.with(|s| s.borrow_mut().take()).unwrap_or_else(|| Server::all().remove(0));
        let verdict = policy::judge(&text, 2, false, &mut server);
        SERVER.with(|s| *s.borrow_mut() = Some(server));
        prop_assert_eq!(matches!(verdict, Verdict::Holds(_)), !true_elsewhere, "{:?}", verdict);
    }

    #[test]
    fn anything_is_read_or_refused(text in "[{}() :a-z0-9<>\\\\\"]{0,200}") {
        let _ = Node::parse(&text);
    }

    #[test]
    fn deep_nesting_is_refused(depth in 1usize..3000) {
        let text = format!("{}{}", "(".repeat(depth), ")".repeat(depth));
        prop_assert_eq!(Node::parse(&text).is_some(), depth <= 401);
    }
}

thread_local! {
    static SERVER: std::cell::RefCell<Option<Server>> = const { std::cell::RefCell::new(None) };
}
