//! What the policy costs by the number of tenants, with and without an index led by the tenant, on partitions; with the library
//! preloaded and without. Measured against the same query with the tenant written by hand, on a twin without row-level security.

use custody_harness::{Cluster, Result, SUPERUSER};
use postgres::Client;

use crate::contestant::{Bench, Contestant, Database};
use crate::report::{Line, Report, Target};
use crate::timing::seconds;

const ROWS: u32 = 300_000;
const TENANTS: [u32; 3] = [1, 100, 10_000];

/// How a table finds a tenant's rows.
struct Layout {
    name: &'static str,
    columns: &'static str,
    /// The policy's own index is dropped: the tenant column has none.
    bare: bool,
    partitions: u32,
}

const LAYOUTS: [Layout; 3] = [
    Layout { name: "index", columns: "PRIMARY KEY (tenant_id, id)", bare: false, partitions: 0 },
    Layout { name: "no index", columns: "PRIMARY KEY (id)", bare: true, partitions: 0 },
    Layout { name: "8 partitions", columns: "PRIMARY KEY (tenant_id, id)", bare: false, partitions: 8 },
];

fn tenant(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

impl Layout {
    /// A table of this layout whose rows belong in turn to so many tenants.
    fn table(&self, name: &str, tenants: u32) -> String {
        let by = if self.partitions > 0 { "PARTITION BY HASH (tenant_id)" } else { "" };
        let mut sql = format!(
            "CREATE TABLE {name} (tenant_id uuid NOT NULL, id int NOT NULL, amount int NOT NULL, note text NOT NULL, {}) {by};\n",
            self.columns
        );
        for part in 0..self.partitions {
            let of = self.partitions;
            sql += &format!(
                "CREATE TABLE {name}_{part} PARTITION OF {name} FOR VALUES WITH (MODULUS {of}, REMAINDER {part});\n"
            );
        }
        sql + &format!(
            "INSERT INTO {name} SELECT ('00000000-0000-4000-8000-' || lpad((i % {tenants})::text, 12, '0'))::uuid, i, i % 100, 'a note' FROM generate_series(1, {ROWS}) i;
             GRANT SELECT ON {name} TO reader;\n"
        )
    }
}

/// The same tables twice in a database of this cluster, one of each pair protected.
fn fill<'a>(cluster: &'a Cluster) -> Result<Database<'a>> {
    cluster
        .connect("postgres", SUPERUSER)?
        .batch_execute("DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")?;
    let database = Database::new(cluster, Contestant::Custody, "template0")?;
    let mut client = database.connect()?;
    client.batch_execute(&format!(
        "GRANT custody_app TO reader; SELECT custody.allow_assume('reader', ARRAY['{}'])",
        tenant(0)
    ))?;
    for tenants in TENANTS {
        for (number, layout) in LAYOUTS.iter().enumerate() {
            let table = format!("t{tenants}_{number}");
            client.batch_execute(&layout.table(&format!("{table}_by_hand"), tenants))?;
            client.batch_execute(&layout.table(&format!("{table}_policy"), tenants))?;
            client.batch_execute(&format!("SELECT custody.protect('{table}_policy')"))?;
            if layout.bare {
                let index = format!("SELECT 'DROP INDEX custody_tenant_' || '{table}_policy'::regclass::oid");
                let drop: String = client.query_one(&index, &[])?.get(0);
                client.batch_execute(&drop)?;
            }
        }
    }
    client.batch_execute("VACUUM ANALYZE")?;
    database.settle(&mut client, &[])?;
    Ok(database)
}

/// A query in a loop within the server, so that no round trip hides the difference.
struct Query {
    name: &'static str,
    sql: &'static str,
    /// Whether it reads all rows of the tenant.
    whole: bool,
}

const QUERIES: [Query; 2] = [
    Query { name: "one row", sql: "SELECT t.amount INTO r FROM @ t WHERE t.id = k", whole: false },
    Query {
        name: "all of a tenant's rows",
        sql: "SELECT sum(t.amount) INTO r FROM @ t WHERE t.amount >= 0",
        whole: true,
    },
];

impl Query {
    /// As many as take long enough to be measured.
    fn executions(&self, tenants: u32, layout: &Layout) -> u32 {
        match (self.whole, layout.bare) {
            (false, _) => 20_000,
            (true, true) => 8,
            (true, false) => (3 * tenants).clamp(8, 5000),
        }
    }

    fn many(&self, table: &str, tenants: u32, layout: &Layout, by_hand: bool) -> String {
        let condition = if by_hand { " AND t.tenant_id = tenant" } else { "" };
        let (sql, times) = (self.sql.replace('@', table), self.executions(tenants, layout));
        format!(
            "DO $$ DECLARE r record; k int; tenant uuid := '{}'; BEGIN
               FOR n IN 1..{times} LOOP k := {tenants} * (1 + n % {}); {sql}{condition}; END LOOP;
             END $$",
            tenant(0),
            ROWS / tenants
        )
    }
}

fn session(database: &Database<'_>) -> Result<Client> {
    let mut client = database.cluster.connect(&database.name, "reader")?;
    client.batch_execute(&format!("BEGIN; SELECT custody.assume_tenant('{}')", tenant(0)))?;
    Ok(client)
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let preloading = bench.another_cluster("preloaded", "shared_preload_libraries = 'pg_custody'")?;
    let (plain, preloaded) = (fill(bench.cluster())?, fill(&preloading)?);
    for tenants in TENANTS {
        for (number, layout) in LAYOUTS.iter().enumerate() {
            for query in &QUERIES {
                let what = format!("{tenants} tenant(s), {}, {}", layout.name, query.name);
                let mut line = Line::new(what, "µs/query", "by hand");
                if !layout.bare {
                    line =
                        line.target("policy", Target::AtMost(1.05)).target("policy, preloaded", Target::AtMost(1.05));
                }
                let each = 1e6 / f64::from(query.executions(tenants, layout));
                let mut contestants = [
                    ("by hand", &plain, true),
                    ("policy", &plain, false),
                    ("by hand, preloaded", &preloaded, true),
                    ("policy, preloaded", &preloaded, false),
                ];
                for round in 0..bench.rounds(5) {
                    // Who comes first changes.
                    let first = if round == 0 { 0 } else { 1 };
                    contestants.rotate_left(first);
                    for (name, database, by_hand) in contestants {
                        let table = format!("t{tenants}_{number}_{}", if by_hand { "by_hand" } else { "policy" });
                        let mut client = session(database)?;
                        let many = query.many(&table, tenants, layout, by_hand);
                        line.sample(name, seconds(&mut client, &many)? * each);
                    }
                }
                println!("{}", line.progress());
                report.add(line);
            }
        }
    }
    Ok(())
}
