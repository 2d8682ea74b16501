//! `custody-bench`: pg_custody beside unaudited tables and other ways to audit, interleaved, on a private cluster whose
//! fsync is real. docs/performance.md says what each line means.
#![forbid(unsafe_code)]

mod contestant;
mod memory;
mod pgbench;
mod place;
mod report;
mod sections;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use custody_harness::{Installation, Result};

use crate::contestant::Bench;
use crate::place::Place;
use crate::report::Report;
use crate::sections::SECTIONS;

const USAGE: &str = "usage: custody-bench --stage DIR --out DIR [--only SECTION,…] [--rounds N] [--duration SECONDS]

  --stage DIR         the PostgreSQL that make stage made
  --out DIR           where SECTION.json goes
  --only SECTION,…    these sections alone
  --rounds N          rounds of every section, instead of what each asks for
  --duration SECONDS  how long each pgbench step takes, instead of what each asks for";

#[derive(Default)]
struct Arguments {
    stage: Option<PathBuf>,
    out: Option<PathBuf>,
    only: Vec<String>,
    rounds: Option<usize>,
    duration: Option<u64>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut given = std::env::args().skip(1);
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            let value = given.next().ok_or(format!("{argument} needs a value\n\n{USAGE}"))?;
            match argument.as_str() {
                "--stage" => arguments.stage = Some(value.into()),
                "--out" => arguments.out = Some(value.into()),
                "--only" => arguments.only = value.split(',').map(str::to_owned).collect(),
                "--rounds" => arguments.rounds = Some(value.parse()?),
                "--duration" => arguments.duration = Some(value.parse()?),
                _ => return Err(format!("{argument} is not understood\n\n{USAGE}").into()),
            }
        }
        if let Some(unknown) = arguments.only.iter().find(|o| SECTIONS.iter().all(|s| s.name != o.as_str())) {
            let names: Vec<_> = SECTIONS.iter().map(|s| s.name).collect();
            return Err(format!("there is no section {unknown}; there are {}", names.join(", ")).into());
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    match Arguments::read().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the sections. Whether all of them could be run; what they measured decides nothing.
fn run(arguments: Arguments) -> Result<bool> {
    let stage = arguments.stage.ok_or(format!("--stage is missing\n\n{USAGE}"))?;
    let out = arguments.out.ok_or(format!("--out is missing\n\n{USAGE}"))?;
    let place = Place::beside(&stage)?;
    let begun = Instant::now();
    let bench = Bench::start(Installation::at(&stage)?, place, arguments.rounds, arguments.duration)?;
    let about = bench.about()?;
    println!("{}", report::describe(&about));
    let mut report = Report::new(about, &out)?;
    let mut all_ran = true;
    for section in SECTIONS.iter().filter(|s| arguments.only.is_empty() || arguments.only.iter().any(|o| o == s.name)) {
        println!("\n== {}: {}", section.name, section.about);
        let begun = Instant::now();
        report.begin(section.name);
        if let Err(e) = (section.run)(&bench, &mut report) {
            place::wait_if_interrupted();
            println!("   could not be run to its end: {}", contestant::words(&*e));
            all_ran = false;
        }
        report.end()?;
        println!("   ({:.0} s)", begun.elapsed().as_secs_f64());
    }
    println!("\n{}", report.table());
    println!("{:.0} s in all; samples in {}", begun.elapsed().as_secs_f64(), out.display());
    Ok(all_ran)
}
