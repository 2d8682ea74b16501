//! What holding a table against its log takes, against reading the table and hashing its rows.

use custody_harness::Result;
use postgres::Client;

use crate::contestant::{Bench, Contestant};
use crate::memory::Watch;
use crate::report::{Line, Report, Target};
use crate::sections::bulk;
use crate::timing::seconds;

const ROWS: u32 = 1_000_000;
/// The least that could be done: each row read, printed and hashed.
const PLAIN: &str =
    "SET max_parallel_workers_per_gather = 0; SELECT count(sha256(convert_to(i::text, 'UTF8'))) FROM item i";

/// The seconds it takes; the verdict must be good.
fn reconciled(client: &mut Client) -> Result<f64> {
    let check = "DO $$ BEGIN IF (SELECT verdict FROM custody.reconcile('item') LIMIT 1) <> 'clean' THEN RAISE 'not clean'; END IF; END $$";
    seconds(client, check)
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let schema = format!("{}; INSERT INTO item {}", bulk::TABLE, bulk::rows(ROWS));
    let database = bench.database(Contestant::Custody, &schema, &[])?;
    let mut client = database.connect()?;
    let mut taken = Line::new(format!("a baseline of {ROWS} rows"), "s", "seqscan + sha256");
    let plain = seconds(&mut client, PLAIN)?;
    taken.sample("seqscan + sha256", plain);
    taken.sample("audit", seconds(&mut client, "SELECT custody.audit('item')")?);
    report.add(taken);
    let mut memory = Line::new("memory of the backend", "MB", "clean");
    for what in ["baseline alone", "and a tenth of the rows updated"] {
        if what.starts_with("and") {
            client.batch_execute("UPDATE item SET amount = amount + 1 WHERE id % 10 = 0")?;
        }
        database.settle(&mut client, &["item", "ANALYZE custody.entry"])?;
        let mut line = Line::new(format!("reconcile {ROWS} rows, {what}"), "s", "seqscan + sha256")
            .target("reconcile", Target::AtMost(5.0));
        for _ in 0..bench.rounds(3) {
            line.sample("seqscan + sha256", seconds(&mut client, PLAIN)?);
            let mut fresh = database.connect()?;
            let watch = Watch::of(&mut fresh)?;
            line.sample("reconcile", reconciled(&mut fresh)?);
            memory.sample("clean", watch.growth()?);
            println!("{}", line.progress());
        }
        report.add(line);
    }
    report.add(memory);
    Ok(())
}
