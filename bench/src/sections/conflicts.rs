//! Whether audited transactions fail more often for conflicting with one another than unaudited ones.

use custody_harness::Result;

use crate::contestant::{Bench, Contestant};
use crate::pgbench::{Run, Script};
use crate::report::{Line, Report, Target};

const CLIENTS: u32 = 8;

const TABLE: &str = "CREATE TABLE hot (id int PRIMARY KEY, v bigint NOT NULL) WITH (fillfactor = 50);
    INSERT INTO hot SELECT i, 0 FROM generate_series(1, 20000) i; ANALYZE hot";

/// What audited transactions may fail more and still count as no more: the rounds' own noise.
const NOISE: f64 = 1.05;

const WORKLOADS: [(&str, &str); 4] = [
    (
        "SERIALIZABLE, read five rows and change one of a hundred",
        r"\set a random(1, 96)
\set b random(1, 100)
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT sum(v) FROM hot WHERE id BETWEEN :a AND :a + 4;
UPDATE hot SET v = v + 1 WHERE id = :b;
COMMIT;
",
    ),
    (
        "SERIALIZABLE, each client on rows of its own",
        r"\set a :client_id * 2000 + random(1, 2000)
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT v FROM hot WHERE id = :a;
UPDATE hot SET v = v + 1 WHERE id = :a;
COMMIT;
",
    ),
    (
        "REPEATABLE READ, change two of fifty rows",
        r"\set a random(1, 25)
\set b random(26, 50)
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE hot SET v = v + 1 WHERE id = :a;
UPDATE hot SET v = v + 1 WHERE id = :b;
COMMIT;
",
    ),
    (
        "READ COMMITTED, change two of twelve rows in any order",
        r"\set a random(1, 12)
\set b random(1, 12)
BEGIN;
UPDATE hot SET v = v + 1 WHERE id = :a;
UPDATE hot SET v = v + 1 WHERE id = :b;
COMMIT;
",
    ),
];

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let databases =
        [bench.database(Contestant::Plain, TABLE, &["hot"])?, bench.database(Contestant::Custody, TABLE, &["hot"])?];
    for (number, (what, text)) in WORKLOADS.iter().enumerate() {
        let script = Script::new(&format!("conflicts-{number}"), text)?;
        let mut line = Line::new(*what, "failures/1000", "plain").target("custody", Target::AtMost(NOISE));
        let mut speed = Line::new(format!("{what}: throughput"), "tps", "plain");
        for round in 0..bench.rounds(3) {
            for database in &databases {
                database.settle(&mut database.connect()?, &["hot"])?;
                let run = Run::on(database).clients(CLIENTS).seconds(bench.duration(3)).seed(round).script(&script);
                // Deadlocks are looked for after this long, in both.
                let outcome = run.option("deadlock_timeout=10ms").counting_failures().measure()?;
                let failed = outcome.serialization_failures + outcome.deadlocks;
                line.sample(database.contestant.name(), 1000.0 * failed / (failed + outcome.transactions));
                speed.sample(database.contestant.name(), outcome.tps);
            }
            println!("{}", line.progress());
        }
        report.add(line.note("serialization failures and deadlocks; the target allows 5 % for noise"));
        report.add(speed);
    }
    Ok(())
}
