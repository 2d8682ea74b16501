//! What comes from outside: sessions are cancelled and terminated, connections come in bursts, shared memory runs out, backends
//! and the server are killed.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::{SUPERUSER, must};
use rand::Rng;
use rand::rngs::StdRng;

use super::{APPLICATION, Storm, TENANTS, Verdict};
use crate::words;

impl Storm {
    /// pg_cancel_backend and pg_terminate_backend, at random.
    pub(super) fn interrupt(&self, mut random: StdRng, until: Instant) {
        let mut client = None;
        while self.goes_on(until) {
            thread::sleep(Duration::from_millis(random.random_range(10..100)));
            let session = client.get_or_insert_with(|| self.unharmed());
            let how = if random.random_ratio(1, 4) { "pg_terminate_backend" } else { "pg_cancel_backend" };
            let sql = format!(
                "SELECT {how}(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{APPLICATION}'
                 ORDER BY state = 'active' DESC, md5(pid::text || {}::text) LIMIT 1",
                random.random::<u32>()
            );
            if let Err(error) = session.batch_execute(&sql)
                && !matches!(self.judge(&error), Verdict::GoesOn)
            {
                client = None;
            }
        }
    }

    /// Sessions by the dozen that do one thing and leave, some without a word.
    pub(super) fn connect_in_bursts(&self, mut random: StdRng, until: Instant) {
        while self.goes_on(until) {
            thread::sleep(Duration::from_millis(random.random_range(100..500)));
            let numbers: Vec<u32> = (0..self.strength.burst).map(|_| random.random_range(0..240)).collect();
            thread::scope(|scope| {
                for number in numbers {
                    scope.spawn(move || {
                        let Some(mut client) = self.connect(SUPERUSER) else { return };
                        let (what, number) = (number / 60, number % 60);
                        let tenant = TENANTS[number as usize % TENANTS.len()];
                        let write = format!(
                            "INSERT INTO account VALUES ('{tenant}', {number}) ON CONFLICT DO NOTHING;
                             UPDATE account SET n = n + 1 WHERE id = {number}"
                        );
                        let sql = match what {
                            0 => write,
                            // Left open.
                            1 => format!("BEGIN; {write}"),
                            // The first free lane is taken in a block that fails, or after others have held it since the snapshot.
                            2 => format!("SELECT fail_first('{tenant}', {number})"),
                            _ => format!(
                                "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM shape; SELECT pg_sleep(0.005); {write}; COMMIT"
                            ),
                        };
                        if let Err(error) = client.batch_execute(&sql) {
                            self.judge(&error);
                        }
                    });
                }
            });
        }
    }

    /// Fills the shared table of locks for a moment, in which others fail, and lose nothing.
    pub(super) fn run_out_of_locks(&self, until: Instant) {
        while self.goes_on(until) {
            thread::sleep(Duration::from_millis(700));
            let Some(mut client) = self.connect(SUPERUSER) else { continue };
            let taken = client.batch_execute("BEGIN; SELECT take_all_locks(); SELECT pg_sleep(0.1); ROLLBACK");
            match taken {
                Ok(()) => self.counts.add("locks exhausted"),
                Err(error) => _ = self.judge(&error),
            }
        }
    }

    /// kill -9 of a backend, then of the whole server; transactions that were prepared before are ended after.
    pub(super) fn bring_down(&self, mut random: StdRng, until: Instant) {
        let length = until.saturating_duration_since(Instant::now());
        thread::sleep(length / 5);
        if !self.goes_on(until) {
            return;
        }
        // kill -9 of a backend: the server restarts all of them. The oldest, as many are gone before they can be killed.
        let oldest = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start LIMIT 1";
        for _ in 0..20 {
            let pid = self.unharmed().query_opt(oldest, &[&APPLICATION]).ok().flatten();
            let pid = pid.map(|row| row.get::<_, i32>(0).to_string());
            if pid.is_some_and(|pid| must(Command::new("kill").args(["-9", &pid])).is_ok()) {
                self.counts.add("crashes of a backend");
                break;
            }
        }
        thread::sleep(length / 5);
        let open = [random.random::<u32>(), random.random(), random.random(), random.random()];
        for number in open {
            self.prepare(number);
        }
        if random.random_bool(0.7) {
            self.cluster.kill().expect("kill -9");
        } else {
            self.cluster.stop().expect("stops in time");
        }
        self.counts.add("server restarts");
        self.cluster.start().unwrap_or_else(|e| panic!("{e}\n{}", self.cluster.log_tail()));
        thread::sleep(length / 10);
        for number in open {
            let how = if number % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
            match self.unharmed().batch_execute(&format!("{how} PREPARED 'open_{number}'")) {
                Ok(()) => self.counts.add("prepared over a restart"),
                // It had not come to be prepared, or the check will end it.
                Err(error) if error.code().is_some_and(|c| c.code() == "42704") => {}
                Err(error) => _ = self.judge(&error),
            }
        }
        // Nobody writes for a moment with what it knew before.
        thread::sleep(length / 10);
    }

    fn prepare(&self, number: u32) {
        // Rows of its own: it waits for nobody that is left open as well.
        let sql = format!(
            "BEGIN; INSERT INTO account SELECT 'open_{number}', i FROM generate_series(1, 3) i;
             SAVEPOINT s; UPDATE account SET n = n + 1 WHERE tenant_id = 'open_{number}'; RELEASE s; PREPARE TRANSACTION 'open_{number}'"
        );
        // Tables may have other names at the moment, or be locked; then once more.
        for _ in 0..5 {
            let mut client = self.unharmed();
            match client.batch_execute(&sql) {
                Ok(()) => return,
                Err(error) => _ = self.judge(&error),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// One transaction that writes for ten thousand tenants, where there is room for a few hundred locks: one of ours is enough.
    pub fn ten_thousand_tenants(&self) {
        let mut client = self.unharmed();
        let work = "BEGIN; INSERT INTO account (tenant_id, id) SELECT 't' || i, 1 FROM generate_series(1, 10000) i;
                    UPDATE account SET n = n + 1 WHERE tenant_id LIKE 't%'";
        client.batch_execute(work).unwrap_or_else(|e| panic!("{}", words(&e)));
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        let held: i64 = client.query_one(held, &[]).expect("a query").get(0);
        assert_eq!(held, 1, "one lock for the transaction, not one for each tenant");
        client.batch_execute("COMMIT").unwrap_or_else(|e| panic!("{}", words(&e)));
    }
}
