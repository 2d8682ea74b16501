//! What an entry costs in bytes: of WAL, and in the log.

use custody_harness::Result;

use crate::contestant::{Bench, Contestant, Database};
use crate::pgbench::{self, Run, TABLES};
use crate::report::{Line, Report, Target};
use crate::sections::bulk;
use crate::timing::{one, wal_position};

const CONTESTANTS: [Contestant; 3] = [Contestant::Plain, Contestant::JsonTrigger, Contestant::Custody];
const TRANSACTIONS: u32 = 5000;
const ROWS: u32 = 100_000;

/// The log of a contestant: bytes of its table, toast, and indexes; and its entries.
fn log(database: &Database<'_>) -> Result<[f64; 3]> {
    let table = match database.contestant {
        Contestant::Custody => "custody.entry",
        _ => "audit.log",
    };
    let mut client = database.connect()?;
    Ok([
        one(&mut client, &format!("SELECT pg_table_size('{table}')::float8"))?,
        one(&mut client, &format!("SELECT pg_indexes_size('{table}')::float8"))?,
        one(&mut client, &format!("SELECT count(*)::float8 FROM {table}"))?,
    ])
}

struct Lines {
    entries: f64,
    wal: Line,
    added: Line,
    log: Line,
    indexes: Line,
}

impl Lines {
    fn new(what: &str, entries: u32) -> Self {
        let limit = |line: Line| line.target("custody", Target::AtMost(1.5));
        Self {
            entries: entries.into(),
            wal: limit(Line::new(format!("{what}: WAL"), "bytes/entry", "json trigger")),
            added: Line::new(format!("{what}: WAL beyond the unaudited"), "bytes/entry", "json trigger"),
            log: limit(Line::new(format!("{what}: log, indexes included"), "bytes/entry", "json trigger")),
            indexes: Line::new(format!("{what}: the log's indexes"), "bytes/entry", "json trigger"),
        }
    }

    /// Does the work on each contestant's database, and weighs it.
    fn weigh(&mut self, databases: &[Database<'_>], work: impl Fn(&Database<'_>) -> Result<()>) -> Result<()> {
        let mut unaudited = 0.0;
        for database in databases {
            let name = database.contestant.name();
            let mut client = database.connect()?;
            database.settle(&mut client, &[])?;
            let plain = database.contestant == Contestant::Plain;
            let logged = if plain { [0.0; 3] } else { log(database)? };
            let before = wal_position(&mut client)?;
            work(database)?;
            let wal = (wal_position(&mut client)? - before) / self.entries;
            self.wal.sample(name, wal);
            if plain {
                unaudited = wal;
                continue;
            }
            self.added.sample(name, wal - unaudited);
            let now = log(database)?;
            let entries = now[2] - logged[2];
            self.log.sample(name, (now[0] + now[1] - logged[0] - logged[1]) / entries);
            self.indexes.sample(name, (now[1] - logged[1]) / entries);
        }
        println!("{}\n{}", self.wal.progress(), self.log.progress());
        Ok(())
    }

    fn report(self, report: &mut Report) {
        let note = "full_page_writes off for this section: what a page image weighs depends on when the checkpoint was";
        report.add(self.wal.note(note));
        report.add(self.added);
        report.add(self.log);
        report.add(self.indexes);
    }
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let set = |value: &str| -> Result<()> {
        let mut postgres = bench.cluster().connect("postgres", custody_harness::SUPERUSER)?;
        postgres.batch_execute(&format!("ALTER SYSTEM SET full_page_writes = {value}"))?;
        postgres.batch_execute("SELECT pg_reload_conf(); CHECKPOINT")?;
        Ok(())
    };
    set("off")?;
    let outcome = weigh(bench, report);
    set("on")?;
    outcome
}

fn weigh(bench: &Bench, report: &mut Report) -> Result<()> {
    let single = bench.copies(&CONTESTANTS, &TABLES, |database| pgbench::make_tables(database, 1))?;
    let mut lines = Lines::new("pgbench's transaction, 4 entries", TRANSACTIONS * 4);
    for round in 0..bench.rounds(2) {
        lines.weigh(&single, |database| {
            let run = Run::on(database).clients(1).transactions(TRANSACTIONS.into()).seed(round);
            run.option("synchronous_commit=off").measure().map(drop)
        })?;
    }
    lines.report(report);

    let mut many = Vec::new();
    for contestant in CONTESTANTS {
        many.push(bench.database(contestant, bulk::TABLE, &["item"])?);
    }
    for (what, sql) in [
        ("bulk INSERT", format!("INSERT INTO item {}", bulk::rows(ROWS))),
        ("bulk UPDATE", "UPDATE item SET amount = amount + 1".to_owned()),
    ] {
        let mut lines = Lines::new(what, ROWS);
        lines.weigh(&many, |database| Ok(database.connect()?.batch_execute(&sql)?))?;
        lines.report(report);
    }
    Ok(())
}
