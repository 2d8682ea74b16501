//! What policies mean, judged from the trees that servers of every version we know make of them (tests/vectors/policies).

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
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/policies");
        let versions = [15, 16, 17, 18];
        versions
            .map(|v| {
                let facts: Value = serde_json::from_str(&fs::read_to_string(dir.join(format!("pg{v}.json"))).unwrap()).unwrap();
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
            words.clone().any(|w| w == *c) && !words.clone().any(|w| w == "tenant_id" && !expression.contains("'tenant_id'"))
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
                wrong.push(format!("{}: {}\n    is {verdict} ({why}), should be {} {origin}", server.version, field("expression"), field("expect")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged >= 4 * 140);
}
