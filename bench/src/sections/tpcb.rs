//! pgbench's own transaction, its four tables audited.

use custody_harness::Result;

use crate::contestant::{Bench, Contestant, Database};
use crate::pgbench::{self, Run, TABLES};
use crate::report::{Line, Report, Target};

const SCALE: u32 = 20;

fn databases<'a>(bench: &'a Bench, contestants: &[Contestant]) -> Result<Vec<Database<'a>>> {
    bench.copies(contestants, &TABLES, |database| pgbench::make_tables(database, SCALE))
}

/// Each database once without being measured: the first to run would pay for new WAL files.
fn warm_up(databases: &[Database<'_>]) -> Result<()> {
    for database in databases {
        pgbench::settle(database)?;
        Run::on(database).clients(8).seconds(2).measure()?;
    }
    Ok(())
}

fn round(databases: &[Database<'_>], line: &mut Line, clients: u32, seconds: u64, round: usize) -> Result<()> {
    for database in databases {
        pgbench::settle(database)?;
        let outcome = Run::on(database).clients(clients).seconds(seconds).seed(round).measure()?;
        line.sample(database.contestant.name(), outcome.tps);
    }
    println!("{}", line.progress());
    Ok(())
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let databases = databases(bench, &bench.contestants)?;
    let mut line = Line::new("8 clients", "tps", "plain")
        .target("custody", Target::AtLeast(0.85))
        .target("json trigger", Target::Reference(0.43, 0.61))
        .target("plpgsql chain", Target::Reference(0.23, 0.41))
        .note("pgaudit writes one line a statement to the server's log, without fsync, and no rows");
    warm_up(&databases)?;
    for number in 0..bench.rounds(5) {
        round(&databases, &mut line, 8, bench.duration(6), number)?;
    }
    report.add(line);
    Ok(())
}

pub fn clients(bench: &Bench, report: &mut Report) -> Result<()> {
    let databases = databases(bench, &[Contestant::Plain, Contestant::Custody])?;
    let mut lines: Vec<_> = [1, 2, 16, 32]
        .map(|clients| {
            let line = Line::new(format!("{clients} clients"), "tps", "plain");
            (clients, line.target("custody", Target::AtLeast(0.8)))
        })
        .into();
    warm_up(&databases)?;
    for number in 0..bench.rounds(3) {
        for (clients, line) in &mut lines {
            round(&databases, line, *clients, bench.duration(5), number)?;
        }
    }
    lines.into_iter().for_each(|(_, line)| report.add(line));
    Ok(())
}
