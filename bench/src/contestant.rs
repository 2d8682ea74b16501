//! Who is compared: the clusters, and a database for each contestant.

use std::process::Command;

use custody_harness::{Cluster, Installation, Result, SUPERUSER};
use postgres::Client;
use serde_json::{Value, json};

use crate::place::Place;

/// Of every cluster. VACUUM is run by hand between the steps, so that it falls into nobody's time.
const SETTINGS: [&str; 10] = [
    "fsync = on",
    "synchronous_commit = on",
    "full_page_writes = on",
    "shared_buffers = 1GB",
    "max_wal_size = 8GB",
    "min_wal_size = 2GB",
    "checkpoint_timeout = 30min",
    "autovacuum = off",
    "max_connections = 100",
    "wal_level = replica",
];

/// A way to audit, or not to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contestant {
    Plain,
    Custody,
    JsonTrigger,
    PlpgsqlChain,
    TableLog,
    Pgaudit,
}

impl Contestant {
    pub const ALL: [Self; 6] =
        [Self::Plain, Self::Custody, Self::JsonTrigger, Self::PlpgsqlChain, Self::TableLog, Self::Pgaudit];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Custody => "custody",
            Self::JsonTrigger => "json trigger",
            Self::PlpgsqlChain => "plpgsql chain",
            Self::TableLog => "table_log",
            Self::Pgaudit => "pgaudit",
        }
    }

    fn setup(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Custody => "CREATE EXTENSION pg_custody",
            Self::JsonTrigger => include_str!("../rivals/json_trigger.sql"),
            Self::PlpgsqlChain => include_str!("../rivals/plpgsql_chain.sql"),
            Self::TableLog => include_str!("../rivals/table_log.sql"),
            Self::Pgaudit => include_str!("../rivals/pgaudit.sql"),
        }
    }

    fn extension(self) -> Option<&'static str> {
        match self {
            Self::TableLog => Some("table_log"),
            Self::Pgaudit => Some("pgaudit"),
            _ => None,
        }
    }
}

/// The clusters, and how long to measure.
pub struct Bench {
    main: Cluster,
    /// pgaudit must be preloaded, which the others are spared.
    preloaded: Option<Cluster>,
    pub contestants: Vec<Contestant>,
    rounds: Option<usize>,
    duration: Option<u64>,
    installation: Installation,
    /// Dropped last: the clusters live in it.
    place: Place,
}

impl Bench {
    pub fn start(
        installation: Installation,
        place: Place,
        rounds: Option<usize>,
        duration: Option<u64>,
    ) -> Result<Self> {
        let main = place.cluster(&installation, "a", &SETTINGS)?;
        let mut client = main.connect("postgres", SUPERUSER)?;
        let mut contestants = Vec::new();
        for contestant in Contestant::ALL {
            let there = match contestant.extension() {
                None => true,
                Some(name) => {
                    let sql = "SELECT count(*) FROM pg_available_extensions WHERE name = $1";
                    client.query_one(sql, &[&name])?.get::<_, i64>(0) > 0
                }
            };
            match there {
                true => contestants.push(contestant),
                false => println!("{} is not installed, so it is left out", contestant.name()),
            }
        }
        let preloaded = match contestants.contains(&Contestant::Pgaudit) {
            true => {
                let settings: Vec<_> =
                    SETTINGS.iter().copied().chain(["shared_preload_libraries = 'pgaudit'"]).collect();
                Some(place.cluster(&installation, "b", &settings)?)
            }
            false => None,
        };
        Ok(Self { main, preloaded, contestants, rounds, duration, installation, place })
    }

    /// How many rounds, unless somebody said otherwise.
    pub fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual)
    }

    /// Seconds of a pgbench step, unless somebody said otherwise.
    pub fn duration(&self, usual: u64) -> u64 {
        self.duration.unwrap_or(usual)
    }

    /// The cluster that everybody but pgaudit is on.
    pub fn cluster(&self) -> &Cluster {
        &self.main
    }

    /// Another cluster, with the same settings and one more, which ends when it is dropped.
    pub fn another_cluster(&self, name: &str, setting: &str) -> Result<Cluster> {
        let settings: Vec<_> = SETTINGS.iter().copied().chain([setting]).collect();
        self.place.cluster(&self.installation, name, &settings)
    }

    fn cluster_of(&self, contestant: Contestant) -> &Cluster {
        match (contestant, &self.preloaded) {
            (Contestant::Pgaudit, Some(preloaded)) => preloaded,
            _ => &self.main,
        }
    }

    /// A new database, with what the contestant needs and the schema; `audited` names the tables to audit.
    pub fn database(&self, contestant: Contestant, schema: &str, audited: &[&str]) -> Result<Database<'_>> {
        let database = Database::new(self.cluster_of(contestant), contestant, "template0")?;
        let mut client = database.connect()?;
        client.batch_execute(schema)?;
        database.audit(&mut client, audited)?;
        Ok(database)
    }

    /// Databases of these contestants that start as copies of one that `fill` made.
    pub fn copies(
        &self,
        contestants: &[Contestant],
        audited: &[&str],
        fill: impl Fn(&Database<'_>) -> Result<()>,
    ) -> Result<Vec<Database<'_>>> {
        let mut databases = Vec::new();
        for cluster in [Some(&self.main), self.preloaded.as_ref()].into_iter().flatten() {
            let here: Vec<_> =
                contestants.iter().filter(|c| std::ptr::eq(self.cluster_of(**c), cluster)).copied().collect();
            if here.is_empty() {
                continue;
            }
            let original = Database::new(cluster, Contestant::Plain, "template0")?;
            fill(&original)?;
            for contestant in here {
                let database = Database::new(cluster, contestant, &original.name)?;
                database.audit(&mut database.connect()?, audited)?;
                databases.push(database);
            }
        }
        Ok(databases)
    }

    /// The machine, the versions and the settings.
    pub fn about(&self) -> Result<Value> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, v)| v.trim().to_owned())
        };
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        };
        let mut client = self.main.connect("postgres", SUPERUSER)?;
        let settings = client.query(
            "SELECT name, setting || coalesce(' ' || unit, '') FROM pg_settings
             WHERE source = 'configuration file' AND name NOT LIKE 'log%' AND name NOT LIKE 'unix%'
                OR name IN ('wal_sync_method', 'wal_buffers', 'jit', 'huge_pages', 'deadlock_timeout')",
            &[],
        )?;
        let settings: serde_json::Map<String, Value> =
            settings.iter().map(|r| (r.get(0), r.get::<_, String>(1).into())).collect();
        let postgresql: String = client.query_one("SELECT version()", &[])?.get(0);
        let rivals = client.query(
            "SELECT name || ' ' || default_version FROM pg_available_extensions WHERE name IN ('pg_custody', 'table_log', 'pgaudit') ORDER BY name",
            &[],
        )?;
        Ok(json!({
            "machine": {
                "processor": field(&read("/proc/cpuinfo"), "model name"),
                "cores": std::thread::available_parallelism()?.get(),
                "memory": field(&read("/proc/meminfo"), "MemTotal"),
                "kernel": said("uname", &["-sr"]),
                "load_before": read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
                "file_system": self.place.file_system,
                "fdatasync_8kb_microseconds": self.place.sync_microseconds.round(),
            },
            "versions": {
                "postgresql": postgresql,
                "extensions": rivals.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>(),
                "source": said("git", &["describe", "--always", "--dirty"]),
                "openssl": said("openssl", &["version"]),
            },
            "settings": settings,
        }))
    }
}

/// One contestant's database, dropped with this.
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub contestant: Contestant,
    pub name: String,
}

impl<'a> Database<'a> {
    pub fn new(cluster: &'a Cluster, contestant: Contestant, template: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bench{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy");
        let mut postgres = cluster.connect("postgres", SUPERUSER)?;
        // Sessions on the template that have just ended may still be seen for a moment.
        for attempt in 0.. {
            match postgres.batch_execute(&sql) {
                Ok(()) => break,
                Err(e) if attempt == 50 => return Err(e.into()),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
        let database = Self { cluster, contestant, name };
        database.connect()?.batch_execute(contestant.setup())?;
        Ok(database)
    }

    pub fn connect(&self) -> Result<Client> {
        self.cluster.connect(&self.name, SUPERUSER)
    }

    /// Has the tables' changes recorded from now on.
    pub fn audit(&self, client: &mut Client, tables: &[&str]) -> Result<()> {
        let function = match self.contestant {
            Contestant::Plain => return Ok(()),
            Contestant::Custody => "custody.audit",
            _ => "audit.audit",
        };
        for table in tables {
            client.batch_execute(&format!("SELECT {function}('{table}')"))?;
        }
        Ok(())
    }

    /// Writes out what earlier steps left dirty, which would otherwise fall into this one's time.
    pub fn settle(&self, client: &mut Client, vacuum: &[&str]) -> Result<()> {
        for table in vacuum {
            client.batch_execute(&format!("VACUUM {table}"))?;
        }
        client.batch_execute("CHECKPOINT")?;
        Ok(())
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if let Ok(mut postgres) = self.cluster.connect("postgres", SUPERUSER) {
            let _ = postgres.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// All that an error says.
pub fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<postgres::Error>().and_then(|e| e.as_db_error()) {
        Some(e) => format!("{e} {}", e.detail().unwrap_or_default()),
        None => error.to_string(),
    }
}
