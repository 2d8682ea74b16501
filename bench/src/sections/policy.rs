//! What the policy costs a query, against the same query with the tenant written by hand on the same tables without one.

use std::time::Instant;

use custody_harness::{Result, SUPERUSER};
use postgres::Client;
use serde_json::Value;

use crate::contestant::{Bench, Contestant, Database};
use crate::report::{Line, Report, Target};
use crate::timing::seconds;

const TENANTS: u32 = 50;
const TENANT: &str = "00000000-0000-4000-8000-000000000007";

/// The same tables and rows in two schemas.
fn tables(schema: &str) -> String {
    let tenant = "('00000000-0000-4000-8000-' || lpad(t::text, 12, '0'))::uuid";
    format!(
        "CREATE SCHEMA {schema}; SET search_path = {schema};
         CREATE TABLE customer (tenant_id uuid NOT NULL, id int NOT NULL, name text NOT NULL, PRIMARY KEY (tenant_id, id));
         CREATE TABLE invoice (tenant_id uuid NOT NULL, id int NOT NULL, customer int NOT NULL, day date NOT NULL, amount numeric NOT NULL,
           PRIMARY KEY (tenant_id, id));
         CREATE INDEX invoice_day ON invoice (tenant_id, day);
         CREATE TABLE event (tenant_id uuid NOT NULL, id int NOT NULL, what text NOT NULL, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
         DO $$ BEGIN FOR i IN 0..7 LOOP
           EXECUTE format('CREATE TABLE event_%s PARTITION OF event FOR VALUES WITH (MODULUS 8, REMAINDER %s)', i, i);
         END LOOP; END $$;
         INSERT INTO customer SELECT {tenant}, i, 'customer ' || i FROM generate_series(1, {TENANTS}) t, generate_series(1, 200) i;
         INSERT INTO invoice SELECT {tenant}, i, 1 + i % 200, date '2026-01-01' + i / 10, i FROM generate_series(1, {TENANTS}) t, generate_series(1, 3000) i;
         INSERT INTO event SELECT {tenant}, i, 'event ' || i FROM generate_series(1, {TENANTS}) t, generate_series(1, 2000) i;
         GRANT USAGE ON SCHEMA {schema} TO reader; GRANT SELECT ON customer, invoice, event TO reader; RESET search_path;"
    )
}

struct Query {
    name: &'static str,
    /// With `AND` and the tenant, or nothing, where it says @; or @c for a second table.
    sql: &'static str,
    /// What $1 goes through, from 1.
    keys: u32,
    executions: u32,
    /// A setting for both.
    setting: &'static str,
}

const POINT: &str = "SELECT i.amount FROM invoice i WHERE i.id = $1@i";
const PARTITIONED: &str = "SELECT e.what FROM event e WHERE e.id = $1@e";

const QUERIES: [Query; 5] = [
    Query { name: "point query", sql: POINT, keys: 3000, executions: 100_000, setting: "" },
    Query {
        name: "range query",
        sql: "SELECT sum(i.amount) FROM invoice i WHERE i.day BETWEEN date '2026-01-01' + $1 AND date '2026-01-10' + $1@i",
        keys: 280,
        executions: 20_000,
        setting: "",
    },
    Query {
        name: "join",
        sql: "SELECT sum(i.amount) FROM invoice i JOIN customer c ON c.id = i.customer@j WHERE i.day = date '2026-01-01' + $1@i@c",
        keys: 290,
        executions: 20_000,
        setting: "",
    },
    Query { name: "partitioned table", sql: PARTITIONED, keys: 2000, executions: 50_000, setting: "" },
    // By hand, PostgreSQL plans the query anew each time, to prune with the value; here it may not.
    Query {
        name: "partitioned table, generic plans",
        sql: PARTITIONED,
        keys: 2000,
        executions: 50_000,
        setting: "SET plan_cache_mode = force_generic_plan",
    },
];

impl Query {
    /// The query as an application without policies writes it, or as one with them does.
    fn sql(&self, by_hand: bool) -> String {
        let mut sql = self.sql.to_owned();
        for table in ["i", "c", "e"] {
            let condition = if by_hand { format!(" AND {table}.tenant_id = $2") } else { String::new() };
            sql = sql.replace(&format!("@{table}"), &condition);
        }
        sql.replace("@j", if by_hand { " AND c.tenant_id = i.tenant_id" } else { "" })
    }

    /// A loop in the server, so that no round trip hides the difference. plpgsql prepares the query as any client would.
    fn many(&self, by_hand: bool) -> String {
        let sql = self.sql(by_hand).replace("$1", "k").replace("$2", "tenant").replacen(" FROM", " INTO r FROM", 1);
        format!(
            "DO $$ DECLARE r record; k int; tenant uuid := '{TENANT}'; BEGIN
               FOR n IN 1..{} LOOP k := 1 + n % {}; {sql}; END LOOP;
             END $$",
            self.executions, self.keys
        )
    }
}

/// A session in the tenant's context that finds the schema's tables.
fn session(database: &Database<'_>, schema: &str) -> Result<Client> {
    let mut client = database.cluster.connect(&database.name, "reader")?;
    client.batch_execute(&format!("SET search_path = {schema}; BEGIN; SELECT custody.assume_tenant('{TENANT}')"))?;
    Ok(client)
}

/// The plan of the prepared query after it settled: node types and indexes, in order.
fn plan(client: &mut Client, query: &Query, by_hand: bool) -> Result<Vec<String>> {
    let (types, arguments) = if by_hand { ("int, uuid", format!("7, '{TENANT}'")) } else { ("int", "7".to_owned()) };
    client.batch_execute(query.setting)?;
    client.batch_execute(&format!("PREPARE q ({types}) AS {}", query.sql(by_hand)))?;
    for _ in 0..10 {
        client.batch_execute(&format!("EXECUTE q ({arguments})"))?;
    }
    let explained = client.query_one(&format!("EXPLAIN (FORMAT JSON) EXECUTE q ({arguments})"), &[])?;
    client.batch_execute("DEALLOCATE q")?;
    let mut nodes = Vec::new();
    collect(&explained.get::<_, Value>(0)[0]["Plan"], &mut nodes);
    Ok(nodes)
}

fn collect(node: &Value, nodes: &mut Vec<String>) {
    let name = |key: &str| node[key].as_str();
    let on = name("Index Name").or(name("Relation Name")).map(|on| format!(" {on}")).unwrap_or_default();
    nodes.push(format!("{}{on}", name("Node Type").unwrap_or_default()));
    for child in node["Plans"].as_array().into_iter().flatten() {
        collect(child, nodes);
    }
}

/// The point query as a client sends it, prepared, round trip included.
fn over_the_wire(bench: &Bench, database: &Database<'_>) -> Result<Line> {
    const EXECUTIONS: u32 = 20_000;
    let uuid = format!("'{TENANT}'::uuid");
    let mut line =
        Line::new("point query, a round trip each", "µs/query", "by hand").target("policy", Target::AtMost(1.05));
    for round in 0..bench.rounds(9) {
        for (name, schema, by_hand) in order(round) {
            let mut client = session(database, schema)?;
            let prepared = client.prepare(&QUERIES[0].sql(by_hand).replace("$2", &uuid))?;
            let begun = Instant::now();
            for n in 0..EXECUTIONS {
                client.query_one(&prepared, &[&((1 + n % 3000) as i32)])?;
            }
            line.sample(name, begun.elapsed().as_secs_f64() * 1e6 / f64::from(EXECUTIONS));
        }
    }
    println!("{}", line.progress());
    Ok(line)
}

/// Who comes first alternates.
fn order(round: usize) -> [(&'static str, &'static str, bool); 2] {
    let mut order = [("by hand", "by_hand", true), ("policy", "guarded", false)];
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut postgres = bench.cluster().connect("postgres", SUPERUSER)?;
    postgres.batch_execute("CREATE ROLE reader LOGIN")?;
    let schema = format!("{}{}", tables("guarded"), tables("by_hand"));
    let database = bench.database(Contestant::Custody, &schema, &[])?;
    let mut client = database.connect()?;
    client.batch_execute(&format!(
        "GRANT custody_app TO reader; SELECT custody.create_tenant('{TENANT}', 'one of {TENANTS}');
         SELECT custody.allow_assume('reader', ARRAY['{TENANT}']);
         SELECT custody.protect('guarded.' || t) FROM unnest(ARRAY['customer', 'invoice', 'event']) t"
    ))?;
    database.settle(&mut client, &["ANALYZE"])?;
    for query in &QUERIES {
        let mut line = Line::new(query.name, "µs/query", "by hand").target("policy", Target::AtMost(1.05));
        let each = 1e6 / f64::from(query.executions);
        for round in 0..bench.rounds(9) {
            for (name, schema, by_hand) in order(round) {
                let mut client = session(&database, schema)?;
                client.batch_execute(query.setting)?;
                line.sample(name, seconds(&mut client, &query.many(by_hand))? * each);
            }
        }
        println!("{}", line.progress());
        let by_hand = plan(&mut session(&database, "by_hand")?, query, true)?.join(" > ");
        let policy = plan(&mut session(&database, "guarded")?, query, false)?.join(" > ");
        report.add(match by_hand == policy {
            true => line.note(format!("same plan: {policy}")),
            false => line.note(format!("by hand: {by_hand}")).note(format!("policy: {policy}")),
        });
    }
    report.add(over_the_wire(bench, &database)?);
    Ok(())
}
