//! One session's work: random transactions, one after the other.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::SUPERUSER;
use postgres::error::SqlState;
use postgres::{Client, Error, SimpleQueryMessage};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{Storm, TENANTS, Verdict};

/// A transaction under way.
struct Work<'a> {
    client: &'a mut Client,
    random: &'a mut StdRng,
    /// The tenant of the context, for the application's sessions.
    context: Option<&'static str>,
    /// What was done so far, and how much of it before each open savepoint.
    done: Vec<&'static str>,
    saves: Vec<usize>,
    /// Whether the client library has lost count of the server's answers.
    confused: bool,
}

impl Storm {
    /// Works until the time is up, or something is wrong.
    pub(super) fn session(&self, mut random: StdRng, number: u64, until: Instant) {
        // Every fourth is the application, subject to row-level security.
        let user = if number % 4 == 3 { "storm_app" } else { SUPERUSER };
        let mut client = None;
        for n in 0u64.. {
            if !self.goes_on(until) {
                break;
            }
            let Some(session) = client.as_mut() else {
                client = self.connect(user);
                if let Some(session) = &mut client
                    && let Err(error) = self.resolve(session, &mut random, number)
                    && !matches!(self.judge(&error), Verdict::GoesOn)
                {
                    client = None;
                }
                continue;
            };
            let context = (user != SUPERUSER).then(|| *TENANTS.choose(&mut random).unwrap_or(&"a"));
            let mut work = Work {
                client: session,
                random: &mut random,
                context,
                done: Vec::new(),
                saves: Vec::new(),
                confused: false,
            };
            if let Err(error) = self.transaction(&mut work, number, n) {
                self.counts.add("failed");
                let lost = matches!(self.judge(&error), Verdict::Lost) || work.confused;
                if lost || session.batch_execute("ROLLBACK").is_err() {
                    client = None;
                }
            }
            // A new session begins with the first lane, whoever held it last.
            if random.random_ratio(1, 12) {
                client = None;
            }
        }
    }

    /// Ends what this session prepared before it lost its connection.
    fn resolve(&self, client: &mut Client, random: &mut StdRng, number: u64) -> Result<(), Error> {
        for row in client.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[])? {
            let gid: String = row.get(0);
            if gid.starts_with(&format!("{}_{number}_", self.database)) {
                client.batch_execute(&format!("{} PREPARED '{gid}'", either(random, ["COMMIT", "ROLLBACK"])))?;
            }
        }
        Ok(())
    }

    fn transaction(&self, work: &mut Work<'_>, number: u64, n: u64) -> Result<(), Error> {
        if work.context.is_none() && work.random.random_ratio(1, 30) {
            let (tenant, id) = work.place();
            work.client.batch_execute(&format!("CALL steps('{tenant}', {id})"))?;
            self.counts.add("procedure");
            return Ok(());
        }
        let level = either(work.random, ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
        let mut begin = format!("BEGIN ISOLATION LEVEL {level};");
        if work.random.random_ratio(1, 3) {
            begin += "SET LOCAL synchronous_commit = off;";
        }
        if let Some(tenant) = work.context {
            begin += &format!("SELECT custody.assume_tenant('{tenant}');");
        }
        if work.random.random_ratio(1, 20) {
            begin += &format!("SET LOCAL statement_timeout = {};", work.random.random_range(1..15));
        }
        work.client.batch_execute(&begin)?;
        for _ in 0..work.random.random_range(1..9) {
            self.step(work)?;
        }
        self.end(work, number, n)
    }

    /// A statement; or something about savepoints, which an error may be survived with.
    fn step(&self, work: &mut Work<'_>) -> Result<(), Error> {
        let outcome = match work.random.random_range(0..20) {
            0..3 => {
                work.saves.push(work.done.len());
                self.counts.add("savepoints");
                return work.client.batch_execute(&format!("SAVEPOINT s{}", work.saves.len()));
            }
            3..5 if !work.saves.is_empty() => {
                let depth = work.random.random_range(1..=work.saves.len());
                work.client.batch_execute(&format!("RELEASE s{depth}"))?;
                work.saves.truncate(depth - 1);
                return Ok(());
            }
            5..7 if !work.saves.is_empty() => {
                let depth = work.random.random_range(1..=work.saves.len());
                self.counts.add("savepoints rolled back");
                return work.back_to(depth);
            }
            _ if work.context.is_some() => work.modest_statement(),
            _ => work.statement(),
        };
        match outcome {
            Ok(kind) => {
                work.done.push(kind);
                Ok(())
            }
            Err(error) if !work.saves.is_empty() && !work.confused && work.random.random_bool(0.7) => {
                match self.judge(&error) {
                    Verdict::GoesOn => {
                        self.counts.add("errors survived");
                        work.back_to(work.saves.len())
                    }
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn end(&self, work: &mut Work<'_>, number: u64, n: u64) -> Result<(), Error> {
        match work.random.random_range(0..10) {
            0 | 1 => {
                work.client.batch_execute("ROLLBACK")?;
                self.counts.add("rolled back");
                return Ok(());
            }
            2 => {
                let gid = format!("{}_{number}_{n}", self.database);
                work.client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
                self.counts.add("prepared");
                thread::sleep(Duration::from_millis(work.random.random_range(0..20)));
                let how = either(work.random, ["COMMIT", "ROLLBACK"]);
                let resolved = work.client.batch_execute(&format!("{how} PREPARED '{gid}'"));
                if let Err(error) = resolved {
                    // Cancelled, perhaps: then it is there still, and must not keep its rows locked.
                    if matches!(self.judge(&error), Verdict::GoesOn) {
                        return self.resolve(work.client, work.random, number);
                    }
                    return Err(error);
                }
            }
            _ => {
                work.client.batch_execute("COMMIT")?;
                self.counts.add("committed");
            }
        }
        work.done.iter().for_each(|kind| self.counts.add(kind));
        Ok(())
    }
}

impl Work<'_> {
    fn place(&mut self) -> (&'static str, u32) {
        let tenant = self.context.unwrap_or_else(|| either(self.random, TENANTS));
        (tenant, self.random.random_range(0..60))
    }

    fn back_to(&mut self, depth: usize) -> Result<(), Error> {
        self.client.batch_execute(&format!("ROLLBACK TO s{depth}"))?;
        self.saves.truncate(depth);
        self.done.truncate(self.saves[depth - 1]);
        Ok(())
    }

    /// What the application does, within one tenant.
    fn modest_statement(&mut self) -> Result<&'static str, Error> {
        let (tenant, id) = self.place();
        let (kind, sql) = match self.random.random_range(0..8) {
            0..3 => (
                "insert",
                format!(
                    "INSERT INTO account (id) VALUES ({id}) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1"
                ),
            ),
            3 => ("update", format!("UPDATE shop.parted SET n = n + 1 WHERE id BETWEEN {id} AND {}", id + 5)),
            4 => ("delete", format!("DELETE FROM account WHERE id = {id}")),
            5 => (
                "movement",
                format!(
                    "INSERT INTO movement (account, amount) SELECT id, {id} FROM account WHERE id = {id} FOR KEY SHARE"
                ),
            ),
            6 => ("insert", format!("INSERT INTO shop.parted VALUES ('{tenant}', {id}) ON CONFLICT DO NOTHING")),
            _ => ("read the log", "SELECT count(*) FROM custody.log".into()),
        };
        self.client.batch_execute(&sql)?;
        Ok(kind)
    }

    fn statement(&mut self) -> Result<&'static str, Error> {
        let ((tenant, id), other) = (self.place(), self.place());
        let (kind, sql) = match self.random.random_range(0..64) {
            0..7 => (
                "insert",
                format!(
                    "INSERT INTO account (tenant_id, id) VALUES ('{tenant}', {id}) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1"
                ),
            ),
            // Without a word on columns, so that it goes on under any definition.
            7..10 => ("insert", format!("INSERT INTO account VALUES ('{tenant}', {id}) ON CONFLICT DO NOTHING")),
            10..12 => (
                "insert",
                format!(
                    "INSERT INTO shop.parted VALUES ('{tenant}', {id}, 1, repeat(md5('{id}'), {})) ON CONFLICT DO NOTHING",
                    either(self.random, [0, 1, 100])
                ),
            ),
            12..16 => ("update", format!("UPDATE account SET n = n + 1 WHERE id = {id}")),
            16..18 => (
                "update",
                format!(
                    "UPDATE account SET n = n + 1, measure = {}, note = repeat('x', {}) WHERE tenant_id = '{tenant}' AND id < 3",
                    self.random.random_range(0..9),
                    self.random.random_range(0..200)
                ),
            ),
            18..21 => ("update", format!("UPDATE shop.parted SET n = n + 1, measure = DEFAULT WHERE id BETWEEN {id} AND {}", id + 9)),
            21..23 => (
                "key move",
                format!("UPDATE account SET id = {} WHERE tenant_id = '{tenant}' AND id = {id}", other.1),
            ),
            // Into another partition, mostly.
            23..25 => ("key move", format!("UPDATE shop.parted SET id = {}, n = -1 WHERE id = {id}", other.1)),
            25..27 => (
                "tenant move",
                format!("UPDATE account SET tenant_id = '{}' WHERE tenant_id = '{tenant}' AND id = {id}", other.0),
            ),
            27 => (
                "tenant move",
                format!("UPDATE shop.parted SET tenant_id = '{}', n = 0 WHERE tenant_id = '{tenant}' AND id = {id}", other.0),
            ),
            28..31 => ("delete", format!("DELETE FROM account WHERE tenant_id = '{tenant}' AND id = {id}")),
            31 => ("delete", format!("DELETE FROM shop.parted WHERE id BETWEEN {id} AND {}", id + 3)),
            32..35 => (
                "movement",
                format!(
                    "INSERT INTO movement (tenant_id, account, amount) SELECT tenant_id, id, {id} FROM account WHERE tenant_id = '{tenant}' AND id = {id} FOR KEY SHARE"
                ),
            ),
            35..38 => (
                "merge",
                format!(
                    "MERGE INTO account a USING (SELECT '{tenant}' AS t, i FROM generate_series({id}, {id} + 4) i) s ON a.tenant_id = s.t AND a.id = s.i
                     WHEN MATCHED AND s.i % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = n + 1
                     WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (s.t, s.i)"
                ),
            ),
            38..41 => (
                "with",
                format!(
                    "WITH gone AS (DELETE FROM account WHERE tenant_id = '{tenant}' AND id BETWEEN {id} AND {id} + 2 RETURNING tenant_id, id),
                       put AS (INSERT INTO shop.parted (tenant_id, id) SELECT tenant_id, id % 60 FROM gone
                               ON CONFLICT (tenant_id, id) DO UPDATE SET n = EXCLUDED.n + 1 RETURNING id)
                     UPDATE account SET n = -1 WHERE tenant_id = '{}' AND id IN (SELECT id FROM put)",
                    other.0
                ),
            ),
            41..44 => ("cursor", format!("SELECT walk('{tenant}', {id})")),
            44..46 => return self.cursor(tenant, id),
            46 | 47 => ("block", format!("SELECT fail_first('{tenant}', {id})")),
            48 | 49 => ("block", format!("SELECT fail_second('{tenant}', {id})")),
            50..53 => ("block", format!("SELECT fail_after('{tenant}', {id}, {})", self.random.random_bool(0.7))),
            53..55 => return self.copy(tenant, id),
            // A partition by its own name, which is another's while it is detached.
            55 => (
                "partition",
                format!("INSERT INTO shop.parted_2 (tenant_id, id) VALUES ('{tenant}', {}) ON CONFLICT (tenant_id, id) DO UPDATE SET n = 7", 40 + id % 20),
            ),
            56 | 57 => {
                let what = either(self.random, ["movement", "shop.parted", "shop.parted_1", "shop.parted_3", "account CASCADE"]);
                ("truncate", format!("TRUNCATE {what}"))
            }
            // More than is kept in memory before it is written.
            58 => (
                "bulk",
                format!(
                    "INSERT INTO shop.parted (tenant_id, id) SELECT '{tenant}', i FROM generate_series(1000, {}) i ON CONFLICT DO NOTHING",
                    1000 + 50 * id
                ),
            ),
            59 => {
                let table = either(self.random, ["account", "shop.parted"]);
                ("bulk", format!("DELETE FROM {table} WHERE tenant_id = '{tenant}' AND id >= 1000"))
            }
            60 => ("constraints", "SET CONSTRAINTS ALL IMMEDIATE".into()),
            61 | 62 => ("read the log", format!("SELECT count(*) FROM custody.log WHERE tenant = '{tenant}'")),
            _ => ("pause", "SELECT pg_sleep(0.002)".into()),
        };
        self.client.batch_execute(&sql)?;
        Ok(kind)
    }

    fn cursor(&mut self, tenant: &str, id: u32) -> Result<&'static str, Error> {
        let name = format!("c{}", self.random.random::<u32>());
        self.client.batch_execute(&format!(
            "DECLARE {name} CURSOR FOR SELECT n FROM account WHERE tenant_id = '{tenant}' AND id >= {id} FOR UPDATE"
        ))?;
        for _ in 0..3 {
            let fetched = self.client.simple_query(&format!("FETCH {name}"))?;
            if fetched.iter().any(|m| matches!(m, SimpleQueryMessage::Row(_))) {
                let what = either(self.random, ["UPDATE account SET n = n + 1", "DELETE FROM account"]);
                self.client.batch_execute(&format!("{what} WHERE CURRENT OF {name}"))?;
            }
        }
        Ok("cursor")
    }

    /// A hundred rows and more; now and then with a line that is none.
    fn copy(&mut self, tenant: &str, id: u32) -> Result<&'static str, Error> {
        let table = either(self.random, ["account", "shop.parted"]);
        let base = 1000 + 100 * id;
        let lines = self.random.random_range(1..400);
        let broken = self.random.random_ratio(1, 8);
        let mut sent = || {
            let mut copy = self.client.copy_in(&format!("COPY {table} (tenant_id, id, n) FROM STDIN"))?;
            for line in 0..lines {
                let row = format!("{tenant}\t{}\t{line}\n", base + line);
                // What the server has already refused is said when the copy is finished.
                if copy.write_all(row.as_bytes()).is_err() {
                    break;
                }
            }
            if broken {
                let _ = copy.write_all(format!("{tenant}\tnone\t0\n").as_bytes());
            }
            copy.finish()
        };
        let outcome = sent();
        // It sends two Syncs; the server answers both if the COPY ended before it had read the first.
        let read = |e: &Error| matches!(e.code().map(SqlState::code), Some("22P02" | "23505"));
        self.confused = outcome.as_ref().is_err_and(|e| !read(e));
        outcome.map(|_| "copy")
    }
}

fn either<T: Copy, const N: usize>(random: &mut StdRng, choices: [T; N]) -> T {
    choices[random.random_range(0..N)]
}
