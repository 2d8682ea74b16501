//! Promises A1, A2 and A4 under fire: sixteen sessions, three tenants, commits, rollbacks, savepoints, exception blocks, prepared
//! transactions, kills. Afterwards the data is the log replayed, and the log is whole. The same test must fail on sabotaged builds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, Installation, SUPERUSER, must};
use custody_tests::{installation, state, words};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const SESSIONS: u64 = 16;
const TENANTS: [&str; 3] = ["a", "b", "c"];

/// What was done, so that a run that did nothing is noticed.
#[derive(Default)]
struct Counts {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    savepoints: AtomicU64,
    blocks: AtomicU64,
    prepared: AtomicU64,
    conflicts: AtomicU64,
    lost: AtomicU64,
}

struct Storm {
    cluster: Cluster,
    counts: Counts,
    /// Errors that no session may see.
    unexpected: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Storm {
    fn on(installation: &Installation, settings: &[&str]) -> Self {
        // Deadlocks of the sessions' own making are to be over soon.
        let settings = [settings, &["deadlock_timeout = 30ms", "lock_timeout = 500ms"]].concat();
        let cluster = Cluster::temporary(installation, &settings).expect("a cluster");
        let mut client = cluster.connect("postgres", SUPERUSER).unwrap();
        client
            .batch_execute(
                "CREATE EXTENSION pg_custody;
                 CREATE TABLE account (tenant_id text, id int, n int DEFAULT 0, note text, PRIMARY KEY (tenant_id, id));
                 CREATE TABLE movement (tenant_id text, id serial, account int, PRIMARY KEY (tenant_id, id),
                   FOREIGN KEY (tenant_id, account) REFERENCES account ON DELETE CASCADE);
                 SELECT custody.protect('account'); SELECT custody.protect('movement'); SELECT custody.audit('account'); SELECT custody.audit('movement');
                 CREATE FUNCTION fail_after(t text, i int, look boolean) RETURNS void LANGUAGE plpgsql AS $$
                 DECLARE seen bigint;
                 BEGIN
                   INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
                   BEGIN
                     UPDATE account SET n = n + 100 WHERE tenant_id = t AND id IN (i, 0);
                     IF look THEN SELECT count(*) INTO seen FROM custody.log WHERE tenant = t; END IF;
                     RAISE division_by_zero;
                   EXCEPTION WHEN division_by_zero THEN NULL;
                   END;
                 END $$;
                 CREATE FUNCTION fail_first(t text, i int) RETURNS void LANGUAGE plpgsql AS $$
                 BEGIN
                   BEGIN
                     INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
                     RAISE division_by_zero;
                   EXCEPTION WHEN division_by_zero THEN PERFORM pg_sleep(0.003);
                   END;
                   INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
                 END $$",
            )
            .unwrap_or_else(|e| panic!("{}", words(&e)));
        Self { cluster, counts: Counts::default(), unexpected: Mutex::default(), stop: AtomicBool::new(false) }
    }

    /// One session's work: random transactions until the time is up, or something is wrong.
    fn session(&self, seed: u64, number: u64, until: Instant) {
        let mut random = StdRng::seed_from_u64(seed ^ (number << 32));
        let mut client = None;
        let mut done = 0;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            let Some(session) = client.as_mut() else {
                // While the server is down or coming up.
                client = self.cluster.connect("postgres", SUPERUSER).ok();
                if client.is_none() {
                    thread::sleep(Duration::from_millis(50));
                }
                continue;
            };
            done += 1;
            if let Err(error) = self.transaction(session, &mut random, number, done) {
                match error.code().map(|c| c.code()) {
                    // Serialisation failures and deadlocks are the users' own; duplicate keys of their table as well.
                    Some("40001" | "40P01" | "55P03") => _ = self.counts.conflicts.fetch_add(1, Ordering::Relaxed),
                    Some("57P01" | "57P02" | "57P03" | "08006") | None => {
                        self.counts.lost.fetch_add(1, Ordering::Relaxed);
                        client = None;
                        continue;
                    }
                    _ => {
                        self.unexpected.lock().unwrap().push(words(&error));
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
                if session.batch_execute("ROLLBACK").is_err() {
                    client = None;
                }
            }
        }
    }

    fn transaction(
        &self,
        client: &mut Client,
        random: &mut StdRng,
        number: u64,
        n: u32,
    ) -> Result<(), postgres::Error> {
        let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"].choose(random).unwrap();
        let mut sql = format!("BEGIN ISOLATION LEVEL {level};");
        let mut depth = 0;
        for _ in 0..random.random_range(1..8) {
            let (tenant, id) = (TENANTS.choose(random).unwrap(), random.random_range(0..60));
            sql += &match random.random_range(0..12) {
                0..4 => format!(
                    "INSERT INTO account (tenant_id, id) VALUES ('{tenant}', {id}) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;"
                ),
                4 => format!("DELETE FROM account WHERE tenant_id = '{tenant}' AND id = {id};"),
                5 => format!(
                    "INSERT INTO movement (tenant_id, account) SELECT tenant_id, id FROM account WHERE tenant_id = '{tenant}' AND id = {id} FOR KEY SHARE;"
                ),
                6 => format!(
                    "UPDATE account SET note = repeat('x', {}) WHERE tenant_id = '{tenant}' AND id < 3;",
                    random.random_range(0..200)
                ),
                7 => {
                    self.counts.blocks.fetch_add(1, Ordering::Relaxed);
                    format!("SELECT fail_first('{tenant}', {id});")
                }
                8 => {
                    self.counts.blocks.fetch_add(1, Ordering::Relaxed);
                    format!("SELECT fail_after('{tenant}', {id}, {});", random.random_bool(0.7))
                }
                9 => format!("SELECT count(*) FROM custody.entry WHERE tenant = '{tenant}';"),
                10 => {
                    depth += 1;
                    self.counts.savepoints.fetch_add(1, Ordering::Relaxed);
                    format!("SAVEPOINT s{depth};")
                }
                _ if depth > 0 => {
                    depth -= 1;
                    let how = ["ROLLBACK TO", "RELEASE"].choose(random).unwrap();
                    format!("{how} s{};", depth + 1)
                }
                _ => "SELECT pg_sleep(0.002);".into(),
            };
        }
        client.batch_execute(&sql)?;
        match random.random_range(0..10) {
            0 | 1 => {
                client.batch_execute("ROLLBACK")?;
                self.counts.rolled_back.fetch_add(1, Ordering::Relaxed);
            }
            2 => {
                let gid = format!("g{number}_{n}");
                client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
                self.counts.prepared.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(random.random_range(0..20)));
                let how = ["COMMIT", "ROLLBACK"].choose(random).unwrap();
                client.batch_execute(&format!("{how} PREPARED '{gid}'"))?;
            }
            _ => {
                client.batch_execute("COMMIT")?;
                self.counts.committed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Runs all sessions, and meanwhile what the caller wants to happen.
    fn run(self: &Arc<Self>, seed: u64, seconds: u64, meanwhile: impl FnOnce(&Cluster)) {
        let until = Instant::now() + Duration::from_secs(seconds);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let storm = self.clone();
                thread::spawn(move || storm.session(seed, number, until))
            })
            .collect();
        meanwhile(&self.cluster);
        for session in sessions {
            session.join().expect("a session's thread");
        }
    }

    /// All that is wrong afterwards.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = self.unexpected.lock().unwrap().clone();
        let mut client = self.cluster.connect("postgres", SUPERUSER).unwrap();
        let prepared: Vec<String> =
            client.query("SELECT gid FROM pg_prepared_xacts", &[]).unwrap().iter().map(|r| r.get(0)).collect();
        for (i, gid) in prepared.iter().enumerate() {
            let how = if i % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
            client.batch_execute(&format!("{how} PREPARED '{gid}'")).unwrap();
        }
        for row in client.query("SELECT verdict, tenant, lane, seq, detail FROM custody.verify()", &[]).unwrap() {
            if row.get::<_, &str>(0) != "valid" {
                wrong.push(format!(
                    "{}: {:?}/{:?}/{:?} {}",
                    row.get::<_, &str>(0),
                    row.get::<_, Option<&str>>(1),
                    row.get::<_, Option<i32>>(2),
                    row.get::<_, Option<i64>>(3),
                    row.get::<_, &str>(4)
                ));
            }
        }
        let lanes: i64 = client
            .query_one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2", &[])
            .unwrap()
            .get(0);
        if lanes > 0 {
            wrong.push(format!("{lanes} lanes are still held"));
        }
        for table in ["account", "movement"] {
            wrong.append(&mut replay(&mut client, table));
        }
        wrong
    }
}

/// Plays the log of a table from the beginning, in history order; each entry must follow from the one before, and the end must be
/// what the table holds.
fn replay(client: &mut Client, table: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rows: HashMap<String, Value> = HashMap::new();
    let entries = client
        .query("SELECT op, row_key, old, new, tenant, lane, seq FROM custody.log WHERE table_name = $1 AND row_key IS NOT NULL ORDER BY lsn, ordinal", &[&table])
        .unwrap();
    for entry in entries {
        let (op, key): (String, Value) = (entry.get(0), entry.get(1));
        let (old, new): (Option<Value>, Option<Value>) = (entry.get(2), entry.get(3));
        let key = key.to_string();
        let before = match &new {
            Some(new) => rows.insert(key.clone(), new.clone()),
            None => rows.remove(&key),
        };
        if before != old {
            let place = format!("{}/{}/{}", entry.get::<_, String>(4), entry.get::<_, i32>(5), entry.get::<_, i64>(6));
            wrong.push(format!("{table} {key}: {op} at {place} changed {old:?}, but the row was {before:?}"));
        }
    }
    let replayed: BTreeMap<String, Value> =
        rows.into_values().map(|row| (format!("{}/{}", row["tenant_id"], row["id"]), row)).collect();
    let held: BTreeMap<String, Value> = client
        .query(&format!("SELECT to_jsonb(t) FROM {table} t"), &[])
        .unwrap()
        .iter()
        .map(|r| r.get::<_, Value>(0))
        .map(|row| (format!("{}/{}", row["tenant_id"], row["id"]), row))
        .collect();
    if replayed != held {
        wrong.push(format!("{table} holds {} rows, its log {}", held.len(), replayed.len()));
    }
    wrong
}

fn seed() -> u64 {
    let seed = std::env::var("CUSTODY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("CUSTODY_SEED={seed} repeats this run's choices");
    seed
}

fn quick() -> [&'static str; 2] {
    // Crashes still lose nothing that was committed to the operating system: the server dies, the machine does not.
    ["fsync = off", "max_wal_size = 4GB"]
}

#[test]
fn sixteen_sessions_two_kills_and_the_log_is_whole() {
    let storm = Arc::new(Storm::on(&installation(), &quick()));
    storm.run(seed(), 8, |cluster| {
        thread::sleep(Duration::from_millis(1500));
        // kill -9 of a backend: the server restarts all of them.
        let mut client = cluster.connect("postgres", SUPERUSER).unwrap();
        let pid: i32 = client
            .query_one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1", &[])
            .unwrap()
            .get(0);
        must(Command::new("kill").args(["-9", &pid.to_string()])).unwrap();
        thread::sleep(Duration::from_millis(2500));
        // kill -9 of the server.
        cluster.kill().unwrap();
        cluster.start().unwrap();
    });
    let wrong = storm.wrong();
    let counts = &storm.counts;
    let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
    println!(
        "{} committed, {} rolled back, {} savepoints, {} blocks, {} prepared, {} conflicts, {} connections lost",
        count(&counts.committed),
        count(&counts.rolled_back),
        count(&counts.savepoints),
        count(&counts.blocks),
        count(&counts.prepared),
        count(&counts.conflicts),
        count(&counts.lost)
    );
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
    assert!(
        count(&counts.committed) > 200 && count(&counts.rolled_back) > 50 && count(&counts.prepared) > 30,
        "too little happened"
    );
    assert!(count(&counts.savepoints) > 100 && count(&counts.blocks) > 100, "too little happened");
    assert!(count(&counts.lost) > SESSIONS, "both kills hit sessions at work");
}

/// A copy of the stage with the sabotaged library in it.
fn sabotaged() -> PathBuf {
    let library = std::env::var("CUSTODY_SABOTAGED").expect("make test-db names the sabotaged library");
    let stage = std::env::var("CUSTODY_STAGE").expect("make test-db names the stage");
    let copy = PathBuf::from(format!("/tmp/custody-sabotaged-{}", std::process::id()));
    if !copy.exists() {
        must(Command::new("cp").args(["-a", &stage]).arg(&copy)).unwrap();
        let original = std::fs::read_to_string(copy.join("pg_config")).unwrap();
        let moved = original.replacen(&stage, &copy.display().to_string(), 1);
        let to = Path::new(moved.trim()).parent().unwrap().join("../lib/pg_custody.so");
        std::fs::copy(library, to).unwrap();
        std::fs::write(copy.join("pg_config"), moved).unwrap();
    }
    copy
}

#[test]
fn the_storm_sees_through_sabotage() {
    let stage = sabotaged();
    let installation = Installation::at(&stage).unwrap();
    for defect in ["stale_head", "lane_savepoint", "exception_block"] {
        let storm = Arc::new(Storm::on(&installation, &["fsync = off", &format!("custody.sabotage = {defect}")]));
        // A fork is an error at once; what is lost is only seen at the end.
        storm.run(seed(), if defect == "exception_block" { 4 } else { 30 }, |_| {});
        let wrong = storm.wrong();
        println!("{defect}: {} things wrong, such as {}", wrong.len(), wrong.first().map_or("none", String::as_str));
        assert!(!wrong.is_empty(), "the sabotage {defect} went unseen");
    }
    // The same build with no defect switched on is sound: it is the defect that is seen, not the build.
    let storm = Arc::new(Storm::on(&installation, &["fsync = off"]));
    storm.run(seed(), 4, |_| {});
    assert_eq!(storm.wrong(), Vec::<String>::new());
    std::fs::remove_dir_all(stage).unwrap();
}

#[test]
fn writers_of_one_tenant_do_not_wait_for_one_another() {
    let storm = Storm::on(&installation(), &quick());
    let mut sessions: Vec<_> = (0..8).map(|_| storm.cluster.connect("postgres", SUPERUSER).unwrap()).collect();
    // All open at once, all in tenant a's chain: none waits, each has a lane of its own.
    for (i, session) in sessions.iter_mut().enumerate() {
        session
            .batch_execute(&format!("SET lock_timeout = '3s'; BEGIN; INSERT INTO account VALUES ('a', {i})"))
            .unwrap_or_else(|e| panic!("{i}: {}", state(&e)));
    }
    for session in &mut sessions {
        session.batch_execute("COMMIT").unwrap();
    }
    let mut client = storm.cluster.connect("postgres", SUPERUSER).unwrap();
    let lanes: i64 =
        client.query_one("SELECT count(DISTINCT lane) FROM custody.entry WHERE tenant = 'a'", &[]).unwrap().get(0);
    assert_eq!(lanes, 8);
    // One after the other they use the same lane again.
    for i in 8..20 {
        client.batch_execute(&format!("INSERT INTO account VALUES ('a', {i})")).unwrap();
    }
    let lanes: i64 =
        client.query_one("SELECT count(DISTINCT lane) FROM custody.entry WHERE tenant = 'a'", &[]).unwrap().get(0);
    assert_eq!(lanes, 8);
    assert_eq!(storm.wrong(), Vec::<String>::new());
}

#[test]
fn a_prepared_transaction_outlives_a_crash_with_its_lane() {
    let storm = Storm::on(&installation(), &quick());
    let mut client = storm.cluster.connect("postgres", SUPERUSER).unwrap();
    client.batch_execute("BEGIN; INSERT INTO account VALUES ('a', 1); PREPARE TRANSACTION 'p'").unwrap();
    client.batch_execute("INSERT INTO account VALUES ('a', 2)").unwrap();
    storm.cluster.kill().unwrap();
    storm.cluster.start().unwrap();
    let mut client = storm.cluster.connect("postgres", SUPERUSER).unwrap();
    client.batch_execute("INSERT INTO account VALUES ('a', 3)").unwrap();
    let verdict: String = client.query_one("SELECT verdict FROM custody.verify() LIMIT 1", &[]).unwrap().get(0);
    assert_eq!(verdict, "valid", "in doubt is not in the log, and no alarm");
    client.batch_execute("COMMIT PREPARED 'p'").unwrap();
    assert_eq!(storm.wrong(), Vec::<String>::new());
    assert_eq!(client.query_one("SELECT count(*) FROM account", &[]).unwrap().get::<_, i64>(0), 3);
}
