//! COPY, and whether the backend's memory grows with the statement.

use custody_harness::{Result, SUPERUSER};

use crate::contestant::{Bench, Contestant};
use crate::memory::Watch;
use crate::report::{Line, Report, Target};
use crate::sections::bulk::{TABLE, rows};
use crate::timing::seconds;

const MANY: u32 = 1_000_000;
const FEW: u32 = 100_000;

/// A trigger that does nothing: PostgreSQL's own queue of row triggers grows with the statement, and this shows by how much.
const CONTROL: &str = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER nothing AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION nothing()";

/// Beyond what PostgreSQL's queue needs, a log in bounded memory grows by nothing; this much is left to the allocator.
const SLACK: f64 = 16.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    // Written by the server, so where it may write.
    let file = |count: u32| bench.cluster().socket().join(format!("{count}-rows")).display().to_string();
    let mut postgres = bench.cluster().connect("postgres", SUPERUSER)?;
    for count in [FEW, MANY] {
        postgres.batch_execute(&format!("COPY ({}) TO '{}'", rows(count), file(count)))?;
    }
    let mut time = Line::new(format!("{MANY} rows"), "s", "plain").target("custody", Target::AtMost(3.0));
    let mut memory: Vec<_> = [FEW, MANY]
        .map(|count| (count, Line::new(format!("the backend's memory, {count} rows"), "MB", "no-op trigger")))
        .into();
    let mut growth = Line::new(format!("memory's growth from {FEW} to {MANY} rows"), "MB", "no-op trigger + 16")
        .target("custody", Target::AtMost(1.0))
        .note("RssAnon of the backend at its peak, sampled; PostgreSQL queues an event for each row of an AFTER trigger, whoever wrote it");
    for _ in 0..bench.rounds(3) {
        for name in ["plain", "no-op trigger", "custody"] {
            let contestant = if name == "custody" { Contestant::Custody } else { Contestant::Plain };
            let control = if name == "no-op trigger" { CONTROL } else { "" };
            let mut peaks = Vec::new();
            for (count, line) in &mut memory {
                let database = bench.database(contestant, &format!("{TABLE}; {control}"), &["item"])?;
                let mut client = database.connect()?;
                database.settle(&mut client, &[])?;
                let watch = Watch::of(&mut client)?;
                let took = seconds(&mut client, &format!("COPY item FROM '{}'", file(*count)))?;
                let peak = watch.growth()?;
                line.sample(name, peak);
                peaks.push(peak);
                if *count == MANY {
                    time.sample(name, took);
                }
            }
            let grown = peaks[1] - peaks[0];
            match name {
                "no-op trigger" => growth.sample("no-op trigger + 16", grown + SLACK),
                _ => growth.sample(name, grown),
            }
        }
        println!("{}", time.progress());
        println!("{}", growth.progress());
    }
    report.add(time);
    memory.into_iter().for_each(|(_, line)| report.add(line));
    report.add(growth);
    Ok(())
}
