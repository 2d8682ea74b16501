//! Many rows in one statement.

use custody_harness::Result;

use crate::contestant::Bench;
use crate::report::{Line, Report, Target};
use crate::timing::{seconds, wal_position};

const ROWS: u32 = 100_000;

/// A narrow table, as most are.
pub const TABLE: &str = "CREATE TABLE item (id bigint PRIMARY KEY, name text NOT NULL, amount numeric(12,2) NOT NULL, at timestamptz NOT NULL, note text)";

/// Rows for it.
pub fn rows(count: u32) -> String {
    format!(
        "SELECT g, 'item ' || g, g % 1000 + 0.25, timestamptz '2026-01-01' + g * interval '1 second', NULL FROM generate_series(1, {count}) g"
    )
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut databases = Vec::new();
    for contestant in &bench.contestants {
        databases.push(bench.database(*contestant, TABLE, &["item"])?);
    }
    let new = |what: &str| Line::new(format!("{what} {ROWS} rows"), "s", "plain");
    let mut steps = [
        (
            format!("INSERT INTO item {}", rows(ROWS)),
            new("INSERT … SELECT")
                .target("custody", Target::AtMost(3.0))
                .target("json trigger", Target::Reference(10.7, 10.7))
                .target("plpgsql chain", Target::Reference(8.2, 8.2))
                .note("pgaudit writes one line for the statement, whatever its rows"),
        ),
        (
            "UPDATE item SET amount = amount + 1".to_owned(),
            new("UPDATE of all")
                .target("custody", Target::AtMost(3.0))
                .target("json trigger", Target::Reference(7.0, 13.0))
                .target("plpgsql chain", Target::Reference(11.0, 11.0)),
        ),
        (
            "DELETE FROM item".to_owned(),
            new("DELETE of all").target("custody", Target::AtMost(10.0)).note(
                "a plain DELETE only marks rows: it writes a few bytes of each, while an audit keeps the whole row",
            ),
        ),
    ];
    let mut wal = Line::new("WAL of the INSERT, full-page images included", "bytes/row", "plain");
    for _ in 0..bench.rounds(4) {
        for (number, (sql, line)) in steps.iter_mut().enumerate() {
            for database in &databases {
                let mut client = database.connect()?;
                // Removes what the round before deleted; the first UPDATE's dead rows stay until then, for everybody.
                let vacuum: &[&str] = if number == 0 { &["item"] } else { &[] };
                database.settle(&mut client, vacuum)?;
                let before = wal_position(&mut client)?;
                line.sample(database.contestant.name(), seconds(&mut client, sql)?);
                if number == 0 {
                    wal.sample(database.contestant.name(), (wal_position(&mut client)? - before) / f64::from(ROWS));
                }
            }
            println!("{}", line.progress());
        }
    }
    steps.into_iter().for_each(|(_, line)| report.add(line));
    report.add(wal);
    Ok(())
}
