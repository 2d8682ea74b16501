//! The storm: many sessions do everything at once to audited tables, while the server, its sessions and the tables' definitions
//! are pulled from under them. After each round, what the tables hold must be what the log says, and the log must be whole.

mod check;
mod counts;
mod replay;
mod session;
mod upheaval;
mod upkeep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER};
use postgres::error::DbError;
use postgres::{Client, NoTls};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::words;
pub use counts::Counts;

/// Whose rows they are.
const TENANTS: [&str; 3] = ["a", "b", "c"];
/// By which the sessions that may be interrupted are known.
const APPLICATION: &str = "storm";

/// How much of the storm there is.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// Sessions that write all the time.
    pub sessions: u64,
    /// Connections that come at once.
    pub burst: usize,
    /// Whether the server crashes and restarts, and shared memory runs out: the whole cluster is the storm's.
    pub upheaval: bool,
    /// Whether columns change to types that are stored in another way.
    pub retype: bool,
}

impl Strength {
    /// All of it.
    pub const FULL: Self = Self { sessions: 16, burst: 40, upheaval: true, retype: true };
    /// What one database of several on a cluster may do.
    pub const SHARED: Self = Self { sessions: 8, burst: 8, upheaval: false, retype: false };
}

/// A cluster's settings for a storm.
pub const SETTINGS: [&str; 13] = [
    // The server dies, the machine does not.
    "fsync = off",
    "max_wal_size = 4GB",
    "max_connections = 60",
    // What no transaction may need much of.
    "max_locks_per_transaction = 10",
    // Deadlocks of the sessions' own making are to be over soon.
    "deadlock_timeout = 30ms",
    "lock_timeout = 500ms",
    // Who has survived that it found no room to lock its id is waited for without a lock, and so without an end.
    "statement_timeout = 5s",
    "autovacuum_naptime = 1s",
    "autovacuum_vacuum_threshold = 20",
    "autovacuum_analyze_threshold = 20",
    "autovacuum_vacuum_cost_delay = 0",
    "log_lock_waits = off",
    "log_line_prefix = '%m [%p] %u@%d %e '",
];

/// A storm over one database.
pub struct Storm {
    pub cluster: Arc<Cluster>,
    pub counts: Counts,
    database: String,
    strength: Strength,
    /// Errors that no session may see.
    unexpected: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// custody.heads() as the last round left them.
    heads: Mutex<Option<Value>>,
    /// How much of the server's log has been looked through.
    log_read: Mutex<u64>,
}

/// What becomes of a session after an error.
enum Verdict {
    /// The transaction failed, the session goes on.
    GoesOn,
    /// The connection is gone.
    Lost,
    /// It should never have happened.
    Unexpected,
}

impl Storm {
    /// Makes the tables in a new database of the cluster. With a defect, the sabotaged library has it there.
    pub fn new(cluster: Arc<Cluster>, database: &str, strength: Strength, defect: Option<&str>) -> Self {
        // Several storms of one cluster share its roles and its template.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut postgres = cluster.connect("postgres", SUPERUSER).expect("the superuser connects");
        let run = |client: &mut Client, sql: &str| {
            client.batch_execute(sql).unwrap_or_else(|e| panic!("{database}: {}", words(&e)));
        };
        run(&mut postgres, &format!("CREATE DATABASE {database} TEMPLATE template0"));
        let mut client = cluster.connect(database, SUPERUSER).expect("the superuser connects");
        let known = client.query("SELECT FROM pg_roles WHERE rolname = 'storm_app'", &[]).expect("a query");
        let schema = include_str!("schema.sql");
        match known.is_empty() {
            true => run(&mut client, schema),
            false => run(&mut client, &schema.replace("CREATE ROLE storm_app LOGIN IN ROLE custody_app;", "")),
        }
        if let Some(defect) = defect {
            run(&mut client, &format!("ALTER DATABASE {database} SET custody.sabotage = '{defect}'"));
        }
        Self {
            cluster,
            counts: Counts::default(),
            database: database.to_owned(),
            strength,
            unexpected: Mutex::default(),
            stop: AtomicBool::new(false),
            heads: Mutex::default(),
            log_read: Mutex::default(),
        }
    }

    /// A round: everything at once for that long, then all that is found to be wrong.
    pub fn round(&self, seed: u64, length: Duration) -> Vec<String> {
        let until = Instant::now() + length;
        self.counts.add_round(length);
        thread::scope(|scope| {
            let random = |number: u64| StdRng::seed_from_u64(seed ^ (number << 32));
            for number in 0..self.strength.sessions {
                scope.spawn(move || self.session(random(number), number, until));
            }
            scope.spawn(move || self.redefine(random(100), until));
            scope.spawn(move || self.tidy(random(101), until));
            scope.spawn(move || self.interrupt(random(102), until));
            scope.spawn(move || self.verify_meanwhile(until));
            scope.spawn(move || self.connect_in_bursts(random(103), until));
            if self.strength.upheaval {
                scope.spawn(move || self.run_out_of_locks(until));
                self.bring_down(random(104), until);
            }
        });
        self.check()
    }

    /// A session that may be interrupted; none while the server is down or full.
    fn connect(&self, user: &str) -> Option<Client> {
        let connected = self.cluster.config(&self.database, user).application_name(APPLICATION).connect(NoTls);
        match connected {
            Ok(client) => {
                self.counts.add("connections");
                Some(client)
            }
            Err(error) => {
                self.judge(&error);
                thread::sleep(Duration::from_millis(30));
                None
            }
        }
    }

    /// A session of the storm's own machinery, which nobody interrupts.
    fn unharmed(&self) -> Client {
        let begun = Instant::now();
        loop {
            match self.cluster.config(&self.database, SUPERUSER).options("-c statement_timeout=0").connect(NoTls) {
                Ok(client) => return client,
                Err(e) if begun.elapsed() > Duration::from_secs(30) => panic!("{e}\n{}", self.cluster.log_tail()),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn goes_on(&self, until: Instant) -> bool {
        Instant::now() < until && !self.stop.load(Ordering::Relaxed)
    }

    /// Holds an error against those that users must expect, and counts it.
    fn judge(&self, error: &postgres::Error) -> Verdict {
        let Some(database) = error.as_db_error() else {
            self.counts.add("connections lost");
            return Verdict::Lost;
        };
        // Their own keys only: one key twice in the log is a fork.
        let theirs = ["account", "movement", "tally", "parted"].iter().any(|table| database.message().contains(table));
        let kind = match database.code().code() {
            "40001" => Some("serialization failures"),
            "40P01" => Some("deadlocks"),
            "55P03" => Some("lock timeouts"),
            "57014" if database.message().contains("statement timeout") => Some("statement timeouts"),
            "57014" => Some("cancellations"),
            "53200" if self.strength.upheaval => Some("out of shared memory"),
            "53300" if self.strength.upheaval => Some("connections refused"),
            "57P01" => Some("terminations"),
            "57P02" | "57P03" if self.strength.upheaval => Some("crashes seen"),
            // A timeout that fires just after its statement is said without being asked for; answers are one off from there on.
            "25P02" => Some("out of step"),
            // Keys, and rows that no partition takes.
            "23503" | "23505" | "23514" if theirs => Some("constraints"),
            // A prepared transaction whose session is not quite gone; a table with an open cursor or deferred triggers.
            "55000" | "55006" => Some("busy"),
            // A line of COPY that is none.
            "22P02" => Some("malformed lines"),
            // Tables, schemas and columns that had other names for a moment.
            "42P01" | "3F000" | "42703" => Some("names gone"),
            _ => None,
        };
        match kind {
            Some(kind) => self.counts.add(kind),
            None => self.is_wrong(brief(database)),
        }
        match kind {
            Some("connections refused" | "terminations" | "crashes seen" | "out of step") => Verdict::Lost,
            Some(_) => Verdict::GoesOn,
            None => Verdict::Unexpected,
        }
    }

    /// Ends the round with a finding.
    fn is_wrong(&self, what: String) {
        self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An error in one line.
fn brief(error: &DbError) -> String {
    let detail = error.detail().map(|d| format!(" ({d})")).unwrap_or_default();
    let place = error.where_().map(|w| format!(" in {}", w.lines().next().unwrap_or(w))).unwrap_or_default();
    format!("a session was told {} {}{detail}{place}", error.code().code(), error.message())
}

/// The seed of a run, printed.
pub fn seed() -> u64 {
    let seed = std::env::var("CUSTODY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("CUSTODY_SEED={seed} repeats this run's choices");
    seed
}
