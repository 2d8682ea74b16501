//! A table of 5,000,000 rows is protected while others write to it: how long one of their transactions waits at most, when it is done
//! by the script of custody.protect_script, and when by custody.protect alone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use custody_harness::{Result, SUPERUSER};
use postgres::Client;

use crate::contestant::{Bench, Contestant, Database};
use crate::report::{Line, Report};

const ROWS: u32 = 5_000_000;
const WRITERS: u32 = 4;
const BEFORE: Duration = Duration::from_secs(3);

/// What writers met while something was done.
struct Met {
    longest: f64,
    before: f64,
    took: f64,
    transactions: u32,
}

/// Lets writers write, with their context set as it has to be afterwards, while `work` is done.
fn under_load(database: &Database<'_>, work: impl FnOnce(&mut Client) -> Result<()>) -> Result<Met> {
    let (stop, started, written) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU32::new(0));
    let write = |number: u32| -> Result<(Duration, Duration)> {
        let mut client = database.cluster.connect(&database.name, "writer")?;
        let (mut before, mut longest) = (Duration::ZERO, Duration::ZERO);
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (fresh, old) = (2_000_000_000 - number * 10_000_000 - n, 1 + (n * 7919 + number * 977) % ROWS);
            let meanwhile = started.load(Ordering::Relaxed);
            let begun = Instant::now();
            client.batch_execute(&format!(
                "BEGIN; SELECT custody.assume_tenant('a'); INSERT INTO live (tenant_id, id, body) VALUES ('a', {fresh}, 'new');
                 UPDATE live SET body = 'changed' WHERE id = {old}; COMMIT"
            ))?;
            // What began before and ended after the beginning counts as meanwhile.
            let at_most = if meanwhile || started.load(Ordering::Relaxed) { &mut longest } else { &mut before };
            *at_most = (*at_most).max(begun.elapsed());
            written.fetch_add(1, Ordering::Relaxed);
        }
        Ok((before, longest))
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|number| scope.spawn(move || write(number).map_err(|e| e.to_string()))).collect();
        std::thread::sleep(BEFORE);
        started.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let done = database.connect().and_then(|mut client| work(&mut client));
        let took = begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let mut met = Met { longest: 0.0, before: 0.0, took, transactions: 0 };
        for writer in writers {
            let (before, longest) = writer.join().map_err(|_| "a writer panicked")??;
            met.before = met.before.max(before.as_secs_f64());
            met.longest = met.longest.max(longest.as_secs_f64());
        }
        met.transactions = written.load(Ordering::Relaxed);
        done.map(|()| met)
    })
}

/// The script, statement by statement, with how long each took.
fn run_script(client: &mut Client) -> Result<Vec<String>> {
    let mut took = Vec::new();
    loop {
        let lines = client.query("SELECT custody.protect_script('live')", &[])?;
        if lines.is_empty() {
            return Ok(took);
        }
        for line in lines {
            let line: String = line.get(0);
            let begun = Instant::now();
            match client.batch_execute(&line) {
                Ok(()) => took.push(format!("{:.3} s: {line}", begun.elapsed().as_secs_f64())),
                // A lock was not to be had in time: the script is asked again.
                Err(e) if e.code() == Some(&postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
                    took.push(format!("gave up: {line}"));
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    bench.cluster().connect("postgres", SUPERUSER)?.batch_execute("CREATE ROLE writer LOGIN")?;
    let schema = format!(
        "CREATE TABLE live (tenant_id text, id int, body text);
         INSERT INTO live SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, i, 'what is written in the row' FROM generate_series(1, {ROWS}) i;
         CREATE INDEX live_id ON live (id)"
    );
    let mut pause = Line::new(format!("longest transaction of {WRITERS} writers, {ROWS} rows"), "ms", "protect()");
    let mut whole = Line::new("from the first statement to the last", "s", "protect()");
    for round in 0..bench.rounds(1) {
        for name in ["protect()", "script"] {
            let database = bench.database(Contestant::Custody, &schema, &[])?;
            let mut client = database.connect()?;
            client.batch_execute(
                "GRANT custody_app TO writer; SELECT custody.allow_assume('writer', ARRAY['a']);
                 GRANT SELECT, INSERT, UPDATE ON live TO writer",
            )?;
            client.batch_execute("VACUUM ANALYZE live")?;
            database.settle(&mut client, &[])?;
            let mut steps = Vec::new();
            let met = under_load(&database, |client| match name {
                "script" => {
                    steps = run_script(client)?;
                    Ok(())
                }
                _ => Ok(client.batch_execute("SELECT custody.protect('live')")?),
            })?;
            pause.sample(name, met.longest * 1e3);
            whole.sample(name, met.took);
            let said = format!(
                "{name}: longest {:.0} ms, in the {} s before {:.0} ms; {} transactions",
                met.longest * 1e3,
                BEFORE.as_secs(),
                met.before * 1e3,
                met.transactions
            );
            pause = pause.note(said);
            if round == 0 {
                whole = steps.into_iter().fold(whole, Line::note);
            }
        }
        println!("{}", pause.progress());
    }
    report.add(pause);
    report.add(whole);
    Ok(())
}
