//! What a table still lacks, step by step: the SQL, the lock it takes, who waits for it, and what undoes it.

use crate::pg::call::Oid;
use crate::tenant::protect::facts::Facts;

/// One thing to do to a table; or, with the lock [`REPORT`], one thing to know.
pub struct Step {
    /// The table or partition that it is for.
    pub relid: Oid,
    pub object: String,
    pub sql: String,
    pub lock: &'static str,
    /// What takes it back; alone, without SQL, it stands for something that was prepared before.
    pub undo: Option<String>,
}

/// How the long steps are to be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All in one transaction: an index is built and the table read while others wait.
    AtOnce,
    /// Each step in a transaction of its own, the long ones in forms that nobody waits for.
    Online,
}

/// For an instant, once it is granted: until then, whoever comes later waits behind it.
const EXCLUSIVE: &str = "ACCESS EXCLUSIVE: readers and writers wait, for an instant";
const SCAN: &str = "ACCESS EXCLUSIVE: readers and writers wait while the table is read";
const BUILD: &str = "SHARE: writers wait while the index is built";
const ATTACH: &str = "SHARE: writers wait, for an instant";
const TRIGGER: &str = "SHARE ROW EXCLUSIVE: writers wait, for an instant";
const CONCURRENTLY: &str = "SHARE UPDATE EXCLUSIVE: nobody waits; reads the table twice, outside a transaction block";
const VALIDATE: &str = "SHARE UPDATE EXCLUSIVE: nobody waits; reads the table";
/// Of a row that only tells.
pub const REPORT: &str = "report";

/// Stand, in statements that undo, for what the table, its schema and its tenant column are called when they run.
pub const TABLE: &str = "{table}";
pub const SCHEMA: &str = "{schema}";
pub const COLUMN: &str = "{column}";

impl Step {
    /// Whether somebody waits for it for as long as the table is large.
    pub fn is_long(&self) -> bool {
        self.lock == SCAN || self.lock == BUILD
    }

    /// Whether it belongs before the transaction in which everything else is done.
    pub fn is_preparation(&self) -> bool {
        self.lock == CONCURRENTLY || self.lock == VALIDATE || self.sql.contains("NOT VALID")
    }

    /// What comes first: preparations in their order; then what blocks the least.
    fn rank(&self) -> u8 {
        match self.lock {
            CONCURRENTLY => 0,
            _ if self.sql.contains("NOT VALID") => 1,
            VALIDATE => 2,
            _ if self.sql.starts_with("DROP INDEX") => 3,
            BUILD | ATTACH => 4,
            TRIGGER => 5,
            SCAN => 6,
            _ => 7,
        }
    }
}

/// The steps that a table and its partitions still lack, in the order in which they are to be taken. Nothing here reads or writes.
pub fn plan(tables: &[Facts], column: &str, way: Way) -> Vec<Step> {
    // What an index on a partitioned table finds ready on every partition, it takes over.
    let leaves_indexed = tables.iter().filter(|t| t.kind == "r").all(|t| t.indexed);
    let root_indexed = tables.iter().any(|t| t.is_root && t.indexed);
    let mut steps: Vec<Step> = tables
        .iter()
        .flat_map(|table| {
            let mut of = Plan { table, column: quote_ident(column), steps: Vec::new() };
            of.index(way, root_indexed, leaves_indexed);
            of.not_null(way);
            of.rest();
            of.steps
        })
        .collect();
    // Stable: within a rank, tables and their steps keep their order.
    steps.sort_by_key(Step::rank);
    steps
}

struct Plan<'a> {
    table: &'a Facts,
    column: String,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn step(&mut self, needed: bool, sql: String, lock: &'static str, undo: Option<String>) {
        if needed {
            let (relid, object) = (self.table.relid, self.table.name.clone());
            self.steps.push(Step { relid, object, sql, lock, undo });
        }
    }

    fn index(&mut self, way: Way, root_indexed: bool, leaves_indexed: bool) {
        let Facts { name, schema, index_name, .. } = self.table;
        let column = self.column.clone();
        let undo = format!("DROP INDEX IF EXISTS {SCHEMA}.{index_name}");
        if self.table.is_root && self.table.own_index == Some(true) && !self.table.undo.contains(&undo) {
            // Built before, CONCURRENTLY.
            self.step(true, String::new(), ATTACH, Some(undo.clone()));
        }
        // What a failed CREATE INDEX CONCURRENTLY leaves behind is no index yet, and would spoil one on the table above.
        let broken = self.table.own_index == Some(false) && !self.table.indexed;
        if way == Way::Online && self.table.kind == "r" {
            let needed = !root_indexed && !self.table.indexed;
            let drop = format!("DROP INDEX CONCURRENTLY {schema}.{index_name}");
            self.step(needed && broken, drop, CONCURRENTLY, None);
            let create = format!("CREATE INDEX CONCURRENTLY {index_name} ON {name} ({column})");
            self.step(needed, create, CONCURRENTLY, None);
            return;
        }
        self.step(!root_indexed && broken, format!("DROP INDEX {schema}.{index_name}"), EXCLUSIVE, None);
        let lock = if self.table.kind == "p" && (leaves_indexed || way == Way::Online) { ATTACH } else { BUILD };
        self.step(
            self.table.is_root && !self.table.indexed,
            format!("CREATE INDEX {index_name} ON {name} ({column})"),
            lock,
            Some(undo),
        );
    }

    fn not_null(&mut self, way: Way) {
        const CHECK: &str = "custody_tenant_not_null";
        if !self.table.is_root {
            return;
        }
        let (name, column) = (&self.table.name, self.column.clone());
        let needed = !self.table.not_null;
        let (check, online) = (self.table.own_check, way == Way::Online);
        self.step(
            needed && online && check.is_none(),
            format!("ALTER TABLE {name} ADD CONSTRAINT {CHECK} CHECK ({column} IS NOT NULL) NOT VALID"),
            EXCLUSIVE,
            None,
        );
        self.step(
            needed && online && check != Some(true),
            format!("ALTER TABLE {name} VALIDATE CONSTRAINT {CHECK}"),
            VALIDATE,
            None,
        );
        self.step(
            needed,
            format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"),
            // A validated check proves it, and nothing is read.
            if online || check == Some(true) { EXCLUSIVE } else { SCAN },
            Some(format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} DROP NOT NULL")),
        );
        self.step(
            check.is_some() || needed && online,
            format!("ALTER TABLE {name} DROP CONSTRAINT {CHECK}"),
            EXCLUSIVE,
            None,
        );
    }

    fn rest(&mut self) {
        let table = self.table;
        let (name, column) = (&table.name, self.column.clone());
        let (Some(type_name), Some(expression)) = (&table.type_name, &table.expression) else { return };
        self.step(
            table.is_root && !table.has_default,
            format!("ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT {}", function(type_name)),
            EXCLUSIVE,
            Some(format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} DROP DEFAULT")),
        );
        // What lets in is for the application; what keeps apart is for everybody.
        for (there, policy, kind, roles) in [
            (table.permissive, "custody_tenant", "PERMISSIVE", "custody_app"),
            (table.floor, "custody_floor", "RESTRICTIVE", "PUBLIC"),
        ] {
            let other = !there && table.policies.iter().any(|p| p == policy);
            self.step(other, format!("DROP POLICY {policy} ON {name}"), EXCLUSIVE, None);
            self.step(
                !there,
                format!(
                    "CREATE POLICY {policy} ON {name} AS {kind} FOR ALL TO {roles} USING {expression} WITH CHECK {expression}"
                ),
                EXCLUSIVE,
                Some(format!("DROP POLICY IF EXISTS {policy} ON {TABLE}")),
            );
        }
        self.step(
            !table.enabled,
            format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"),
            EXCLUSIVE,
            Some(format!("ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY")),
        );
        self.step(
            !table.forced,
            format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"),
            EXCLUSIVE,
            Some(format!("ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY")),
        );
        // Before row-level security is on, it lets everything pass.
        self.step(
            !table.trigger,
            format!(
                "CREATE OR REPLACE TRIGGER \"!custody_require_context\" BEFORE INSERT OR UPDATE OR DELETE ON {name} \
                 FOR EACH STATEMENT EXECUTE FUNCTION custody.require_context('{type_name}')"
            ),
            TRIGGER,
            Some(format!("DROP TRIGGER IF EXISTS \"!custody_require_context\" ON {TABLE}")),
        );
        self.step(
            !table.trigger,
            format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER \"!custody_require_context\""),
            TRIGGER,
            None,
        );
    }
}

/// The context's tenant as a value of the column's type.
pub fn function(type_name: &str) -> String {
    match type_name {
        "text" => "custody.tenant()".to_owned(),
        other => format!("custody.tenant_{other}()"),
    }
}

pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
