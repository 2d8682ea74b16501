//! `custody-demo`: the story of pg_custody, told on a private cluster, with every claim checked as it is made.
#![forbid(unsafe_code)]

mod clinic;
mod expect;
mod forgery;
mod gate;
mod isolation;
mod print;
mod record;
mod rng;
mod session;
mod stage;
mod stored;
mod story;
mod synthea;
mod tamper;
mod token;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use custody_harness::{Result, SUPERUSER};

use crate::stage::Place;

const USAGE: &str = "usage: custody-demo run --stage DIR [--data DIR] [--brief-exit]
       custody-demo psql --stage DIR [-- PSQL-ARGUMENT …]
       custody-demo stop --stage DIR

  run    tells the story on a fresh private cluster next to the stage directory, and leaves it running
  psql   opens psql on its database
  stop   stops it and removes it

  --stage DIR     the PostgreSQL that make stage made
  --data DIR      Synthea CSV files to load, instead of the made-up clinics
  --brief-exit    stop and remove the cluster at the end";

/// The database that the story happens in.
const DATABASE: &str = "clinic";

#[derive(Default)]
struct Arguments {
    command: String,
    stage: Option<PathBuf>,
    data: Option<PathBuf>,
    brief_exit: bool,
    rest: Vec<String>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut given = std::env::args().skip(1);
        let mut arguments = Self { command: given.next().unwrap_or_default(), ..Self::default() };
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or(format!("{argument} needs a directory"));
            match argument.as_str() {
                "--stage" => arguments.stage = Some(value()?.into()),
                "--data" => arguments.data = Some(value()?.into()),
                "--brief-exit" => arguments.brief_exit = true,
                "--" => arguments.rest = given.by_ref().collect(),
                _ => return Err(format!("{argument} is not understood\n\n{USAGE}").into()),
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    match Arguments::read().and_then(|arguments| act(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            stage::wait_if_interrupted();
            print::failure(&e.to_string());
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &Arguments) -> Result<()> {
    if matches!(arguments.command.as_str(), "help" | "--help" | "-h") {
        print::line(USAGE);
        return Ok(());
    }
    let place = || Place::beside(arguments.stage.as_deref().ok_or(format!("--stage is missing\n\n{USAGE}"))?);
    match arguments.command.as_str() {
        "run" => run(&place()?, arguments),
        "psql" => psql(&place()?, arguments),
        "stop" => stop(&place()?),
        other => Err(format!("\"{other}\" is no command\n\n{USAGE}").into()),
    }
}

fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let begun = std::time::Instant::now();
    let data = match &arguments.data {
        Some(dir) => synthea::load(dir)?,
        None => clinic::generate(),
    };
    stage::on_interrupt(place.clone())?;
    let mut stage = place.make()?;
    story::tell(stage.cluster(), &data, begun)?;
    if arguments.brief_exit {
        return stage.remove();
    }
    stage.keep();
    print::line("\nThe live database is open: `make psql`, and `make stop` ends it.");
    Ok(())
}

fn psql(place: &Place, arguments: &Arguments) -> Result<()> {
    let cluster = place.existing();
    if !cluster.is_running() {
        return Err("the demo's database is not running; `make demo` starts it".into());
    }
    let mut command = cluster.client("psql", DATABASE, SUPERUSER, &arguments.rest);
    Err(format!("psql could not be started: {}", command.exec()).into())
}

fn stop(place: &Place) -> Result<()> {
    let was = place.dir().exists();
    place.clear()?;
    print::line(if was { "The demo's cluster is stopped and removed." } else { "There is no demo cluster." });
    Ok(())
}
