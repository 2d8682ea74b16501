//! After a round: everything that may be wrong.

use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use postgres::{Client, Error};
use serde_json::Value;

use super::{APPLICATION, Storm, replay};

/// What the server may warn of.
const WARNINGS: [&str; 8] = [
    // A session that ended before it was to be terminated.
    "is not a PostgreSQL backend process",
    // PostgreSQL itself, after a savepoint survived that it found no room to lock the transaction's id.
    "you don't own a lock of type ExclusiveLock",
    "terminating connection because of crash of another server process",
    // A parallel worker of a database for which it is set, in the sabotaged build.
    "parameter \"custody.sabotage\" cannot be set during a parallel operation",
    "out of shared memory",
    "there is no transaction in progress",
    "there is already a transaction in progress",
    "interrupting",
];

impl Storm {
    /// All that is wrong, when nobody works any more.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wrong.append(&mut self.server_log());
        if !wrong.is_empty() {
            return wrong;
        }
        let mut client = self.unharmed();
        let outcome = self.inspect(&mut client);
        wrong.append(&mut outcome.unwrap_or_else(|e| vec![format!("the check itself failed: {}", crate::words(&e))]));
        wrong
    }

    /// Puts the server's log where it outlives the cluster.
    pub fn keep_log(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("custody-storm-{}.log", std::process::id()));
        let _ = fs::copy(self.cluster.socket().join("log"), &kept);
        kept
    }

    fn inspect(&self, client: &mut Client) -> Result<Vec<String>, Error> {
        let mut wrong = Vec::new();
        // Sessions whose client has gone may still be rolling back.
        let working = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
        for _ in 0..200 {
            if client.query(working, &[&APPLICATION])?.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let prepared =
            client.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid", &[])?;
        for (i, row) in prepared.iter().enumerate() {
            let how = if i % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
            client.batch_execute(&format!("{how} PREPARED '{}'", row.get::<_, &str>(0)))?;
        }
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.append(&mut self.findings(client, heads.as_ref())?);
        *heads = client.query_one("SELECT jsonb_agg(h) FROM custody.heads() h", &[])?.get::<_, Option<Value>>(0);
        let lanes = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let lanes: i64 = client.query_one(lanes, &[])?.get(0);
        if lanes > 0 {
            wrong.push(format!("{lanes} lanes are still held"));
        }
        wrong.append(&mut replay::replay(client)?);
        wrong.append(&mut reconcile(client)?);
        Ok(wrong)
    }

    /// What custody.verify() finds, held against the heads of before.
    pub(super) fn findings(&self, client: &mut Client, heads: Option<&Value>) -> Result<Vec<String>, Error> {
        let sql = "SELECT verdict, tenant, lane, seq, detail FROM custody.verify(heads => $1)";
        let mut findings = Vec::new();
        for row in client.query(sql, &[&heads])? {
            if row.get::<_, &str>(0) != "valid" {
                let (tenant, lane): (Option<&str>, Option<i32>) = (row.get(1), row.get(2));
                let (seq, detail): (Option<i64>, &str) = (row.get(3), row.get(4));
                findings.push(format!("{}: {tenant:?}/{lane:?}/{seq:?} {detail}", row.get::<_, &str>(0)));
            }
        }
        Ok(findings)
    }

    /// What the server said since the last time that nobody wants to read: leaks, panics, processes that died by themselves.
    fn server_log(&self) -> Vec<String> {
        let mut read = self.log_read.lock().unwrap_or_else(PoisonError::into_inner);
        let log = fs::read(self.cluster.socket().join("log")).unwrap_or_default();
        let new = String::from_utf8_lossy(&log[(*read as usize).min(log.len())..]).into_owned();
        *read = log.len() as u64;
        let here = format!("@{} ", self.database);
        let elsewhere = |line: &str| line.contains('@') && !line.contains(&here) && !line.contains(" @ ");
        // A parallel query whose postmaster is killed fails once more while it fails.
        let orphan = |line: &str| {
            let process =
                line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(process, _)| process);
            let last = format!("[{process}] ");
            line.contains("while in ABORT state")
                && new
                    .lines()
                    .any(|l| l.contains(&last) && l.contains("postmaster exited during a parallel transaction"))
        };
        new.lines()
            .filter(|line| {
                let known = WARNINGS.iter().any(|w| line.contains(w)) || orphan(line);
                let warns = line.contains(" WARNING: ") && !known;
                let died = line.contains("was terminated by signal") && !line.contains("signal 9");
                let defect = line.contains(" XX") || line.contains("PANIC: ") || line.contains("TRAP: ");
                (warns || died || defect) && !elsewhere(line)
            })
            .map(|line| format!("the server says: {line}"))
            .collect()
    }
}

/// What custody.reconcile() finds. While a partition is away, its rows may be unknown.
fn reconcile(client: &mut Client) -> Result<Vec<String>, Error> {
    let away = !client.query("SELECT FROM pg_class WHERE relname = 'parted_2_away'", &[])?.is_empty();
    let mut findings = Vec::new();
    for table in client.query("SELECT target::oid, target::text FROM custody.audited_table ORDER BY 1", &[])? {
        let name: &str = table.get(1);
        let sql = "SELECT verdict, tenant, row_key, detail FROM custody.reconcile($1::oid::regclass)";
        for row in client.query(sql, &[&table.get::<_, u32>(0)])? {
            let (verdict, tenant, key): (&str, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
            let excused = away && name.contains("parted") && matches!(verdict, "undecided" | "unknown");
            if verdict != "clean" && !excused {
                findings.push(format!("reconcile {name}: {verdict} {tenant:?} {key:?}: {}", row.get::<_, &str>(3)));
            }
        }
    }
    Ok(findings)
}
