//! `custody`: what an auditor holds in his hands. It needs files and a key's fingerprint, and no server.
#![forbid(unsafe_code)]

mod anchor;
mod archive;
mod check;
mod database;
mod diff;
mod export;
mod input;
mod live;
mod proof;
mod source;
mod verify;
mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that was asked for is proved.
const PROVED: u8 = 0;
/// Something is wrong with the log, or something that was asked for is not proved.
const NOT_PROVED: u8 = 1;
/// Nothing can be said: a file cannot be read, or is no export.
const UNREADABLE: u8 = 2;

/// Verifies logs that pg_custody exported.
#[derive(Parser)]
#[command(
    name = "custody",
    version,
    after_help = "Exit status: 0 if everything asked for is proved, 1 if not, 2 if a file cannot be read."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Verify exports, archives or a live database: chains, hashes, signatures; against kept heads and checkpoints if they are given
    Verify(verify::Arguments),
    /// Export a log, or one tenant's, into a directory of compressed parts; goes on where it was interrupted
    Export(export::Arguments),
    /// Compare two exports: which chains went on, and which are not the same any more
    DiffLog(diff::Arguments),
    /// Take a database's last checkpoint out of its reach: into a file, and to witnesses
    Anchor(anchor::Arguments),
    /// Be a witness for others' logs
    Witness(witness::Arguments),
}

/// Why nothing can be said.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::DiffLog(arguments) => diff::run(&arguments),
        Command::Anchor(arguments) => anchor::run(&arguments),
        Command::Witness(arguments) => witness::run(&arguments),
    };
    ExitCode::from(match outcome {
        Ok(true) => PROVED,
        Ok(false) => NOT_PROVED,
        Err(e) => {
            eprintln!("custody: {}", words(&*e));
            UNREADABLE
        }
    })
}

/// An error and what is behind it, where it does not say so itself.
fn words(error: &dyn std::error::Error) -> String {
    let (mut words, mut cause) = (error.to_string(), error.source());
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !words.contains(&said) {
            words += &format!(": {said}");
        }
        cause = deeper.source();
    }
    words
}
