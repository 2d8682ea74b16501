//! Runs pgbench and reads what it says.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use custody_harness::{Result, SUPERUSER, must};

use crate::contestant::Database;

/// What pgbench measured.
pub struct Outcome {
    pub tps: f64,
    pub transactions: f64,
    pub serialization_failures: f64,
    pub deadlocks: f64,
}

/// A run: what is not set is pgbench's default.
pub struct Run<'a> {
    database: &'a Database<'a>,
    user: &'a str,
    options: String,
    arguments: Vec<String>,
}

impl<'a> Run<'a> {
    pub fn on(database: &'a Database<'a>) -> Self {
        Self { database, user: SUPERUSER, options: String::new(), arguments: vec!["--no-vacuum".into()] }
    }

    pub fn clients(mut self, clients: u32) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(clients as usize);
        self.arguments.push(format!("--client={clients}"));
        self.arguments.push(format!("--jobs={threads}"));
        self
    }

    pub fn seconds(mut self, seconds: u64) -> Self {
        self.arguments.push(format!("--time={seconds}"));
        self
    }

    /// Transactions of each client.
    pub fn transactions(mut self, count: u64) -> Self {
        self.arguments.push(format!("--transactions={count}"));
        self
    }

    /// The same numbers for every contestant of a round.
    pub fn seed(mut self, round: usize) -> Self {
        self.arguments.push(format!("--random-seed={}", round + 1));
        self
    }

    pub fn user(mut self, user: &'a str) -> Self {
        self.user = user;
        self
    }

    pub fn set(mut self, variable: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.push(format!("--define={variable}={value}"));
        self
    }

    /// A setting of the sessions.
    pub fn option(mut self, setting: &str) -> Self {
        self.options += &format!("-c {setting} ");
        self
    }

    pub fn script(mut self, script: &Script) -> Self {
        self.arguments.push(format!("--file={}", script.0.display()));
        self
    }

    /// Counts what fails instead of stopping at it.
    pub fn counting_failures(mut self) -> Self {
        self.arguments.push("--max-tries=1".into());
        self.arguments.push("--failures-detailed".into());
        self
    }

    fn command(&self) -> Command {
        let mut command = self.database.cluster.client("pgbench", &self.database.name, self.user, &self.arguments);
        command.env("PGOPTIONS", &self.options);
        command
    }

    pub fn measure(self) -> Result<Outcome> {
        let output = must(&mut self.command())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |label: &str| {
            let line = text.lines().find(|l| l.starts_with(label))?;
            line[label.len()..].trim().split([' ', '/']).next()?.parse::<f64>().ok()
        };
        let tps = number("tps =").ok_or_else(|| format!("pgbench printed no throughput:\n{text}"))?;
        Ok(Outcome {
            tps,
            transactions: number("number of transactions actually processed:").unwrap_or(0.0),
            serialization_failures: number("number of serialization failures:").unwrap_or(0.0),
            deadlocks: number("number of deadlock failures:").unwrap_or(0.0),
        })
    }

    /// Lets it run beside something else; it ends when the guard is dropped.
    pub fn beside(self) -> Result<Beside> {
        let mut command = self.command();
        Ok(Beside(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

/// A pgbench that runs meanwhile.
pub struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A custom script, in a file while this lives.
pub struct Script(PathBuf);

impl Script {
    pub fn new(name: &str, text: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("custody-bench-{}-{name}.sql", std::process::id()));
        fs::write(&path, text)?;
        Ok(Self(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// pgbench's own tables at a scale, its history with a primary key; in shared memory as far as it fits.
pub fn make_tables(database: &Database<'_>, scale: u32) -> Result<()> {
    let scale = format!("--scale={scale}");
    must(&mut database.cluster.client("pgbench", &database.name, SUPERUSER, &["--initialize", "--quiet", &scale]))?;
    let mut client = database.connect()?;
    client.batch_execute(
        "ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY; CREATE EXTENSION pg_prewarm",
    )?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// The tables that pgbench's own transaction writes.
pub const TABLES: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// Brings a contestant's database into the state in which every step of pgbench's own transaction starts.
pub fn settle(database: &Database<'_>) -> Result<()> {
    let mut client = database.connect()?;
    let warm =
        "SELECT pg_prewarm(c.oid) FROM pg_class c WHERE relname IN ('pgbench_accounts', 'pgbench_accounts_pkey')";
    client.batch_execute(warm)?;
    database.settle(&mut client, &["pgbench_branches", "pgbench_tellers"])
}
