//! What the test rooms share: a cluster for each test program, a database for each test, and the clinic they work on.
#![forbid(unsafe_code)]

pub mod bouncer;
pub mod checker;
pub mod mutants;
pub mod replay;
pub mod storm;
pub mod tool;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64ct::{Base64UrlUnpadded, Encoding};
use custody_harness::{Cluster, Installation, SUPERUSER};
use ed25519_dalek::{Signer, SigningKey};
use postgres::types::ToSql;
use postgres::{Client, Row};
use serde_json::{Value, json};

/// Where `make` put a PostgreSQL with pg_custody in it.
pub fn installation() -> Installation {
    let stage = std::env::var_os("CUSTODY_STAGE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/stage")), PathBuf::from);
    Installation::at(&stage).expect("make stage makes it")
}

/// The cluster of this test program. It is removed when the program ends, by the guard that `cluster_guard` returns.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static DIR: OnceLock<CleanUp> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::temporary(&installation(), &[]).expect("a cluster"));
    DIR.get_or_init(|| CleanUp::after_this_process(cluster));
    cluster
}

/// Statics are never dropped, so a child waits for this process to end and then stops the cluster.
struct CleanUp;

impl CleanUp {
    fn after_this_process(cluster: &Cluster) -> Self {
        let me = std::process::id();
        let dir = cluster.socket().display().to_string();
        let script = format!(
            "while kill -0 {me} 2>/dev/null; do sleep 0.2; done
             kill -QUIT $(head -n 1 {dir}/data/postmaster.pid); sleep 1; rm -rf {dir}"
        );
        let _ = std::process::Command::new("setsid")
            .args(["sh", "-c", &script])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Self
    }
}

/// A database with pg_custody, for one test.
pub struct Db {
    pub name: String,
    pub cluster: &'static Cluster,
}

impl Db {
    /// A new database with the extension.
    pub fn new() -> Self {
        let db = Self::bare();
        db.superuser().batch("CREATE EXTENSION pg_custody; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC");
        let name = &db.name;
        db.superuser().batch(&format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"));
        db
    }

    /// A new database without it.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Two CREATE DATABASE from one template wait for, or refuse, each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let cluster = cluster();
        let mut client = cluster.connect("postgres", SUPERUSER).expect("the superuser connects");
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).expect("a database");
        Self { name, cluster }
    }

    /// The clinic: protected and audited patients and visits, shared codes, tenants a and b, and a login role that may assume
    /// both. The role's name is the database's with `_app`.
    pub fn clinic() -> Self {
        let db = Self::new();
        let app = db.app_name();
        db.superuser().batch(&format!(
            "CREATE SCHEMA clinic;
             CREATE TABLE clinic.patients (tenant_id text, id int, name text, born date, notes text, PRIMARY KEY (tenant_id, id));
             CREATE TABLE clinic.visits (tenant_id text, id int, patient int, reason text, PRIMARY KEY (tenant_id, id),
               FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients ON DELETE CASCADE);
             CREATE TABLE clinic.codes (code text PRIMARY KEY, label text);
             SELECT custody.create_tenant('a', 'Clinic A'), custody.create_tenant('b', 'Clinic B');
             SELECT custody.protect('clinic.patients'), custody.protect('clinic.visits'), custody.register_shared('clinic.codes', 'code list');
             SELECT custody.audit('clinic.patients'), custody.audit('clinic.visits');
             CREATE ROLE {app} LOGIN IN ROLE custody_app;
             GRANT USAGE ON SCHEMA clinic TO {app};
             GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients, clinic.visits TO {app};
             GRANT SELECT ON clinic.codes TO {app};
             SELECT custody.allow_assume('{app}', ARRAY['a', 'b'])"
        ));
        db
    }

    /// A session on a copy of this database by TEMPLATE. No other session may be open on it.
    pub fn copy(&self) -> Session {
        let copy = format!("{}_copy", self.name);
        let mut postgres = self.cluster.connect("postgres", SUPERUSER).expect("the superuser connects");
        // Sessions that have just ended may still be seen for a moment.
        for _ in 0..50 {
            if postgres.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {}", self.name)).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Session(self.cluster.connect(&copy, SUPERUSER).expect("a session on the copy"))
    }

    /// The clinic's login role.
    pub fn app_name(&self) -> String {
        format!("{}_app", self.name)
    }

    /// A session of the superuser.
    pub fn superuser(&self) -> Session {
        self.session(SUPERUSER)
    }

    /// A session of the clinic's login role.
    pub fn app(&self) -> Session {
        self.session(&self.app_name())
    }

    /// A session of any role.
    pub fn session(&self, user: &str) -> Session {
        Session(self.cluster.connect(&self.name, user).expect("a session"))
    }
}

impl Default for Db {
    fn default() -> Self {
        Self::new()
    }
}

/// A session, with assertions on hand.
pub struct Session(pub Client);

impl Session {
    /// Runs statements that must work.
    pub fn batch(&mut self, sql: &str) {
        if let Err(e) = self.0.batch_execute(sql) {
            panic!("{sql}\n{}", words(&e));
        }
    }

    /// Runs statements that must fail, and gives the SQLSTATE.
    pub fn fails(&mut self, sql: &str) -> String {
        match self.0.batch_execute(sql) {
            Ok(()) => panic!("this was to fail: {sql}"),
            Err(e) => state(&e),
        }
    }

    /// Runs statements in a transaction of the tenant's, which must work.
    pub fn as_tenant(&mut self, tenant: &str, sql: &str) {
        self.batch(&format!("BEGIN; SELECT custody.assume_tenant('{tenant}'); {sql}; COMMIT"));
    }

    /// The rows of a query that must work.
    pub fn rows(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.0.query(sql, parameters).unwrap_or_else(|e| panic!("{sql}\n{}", words(&e)))
    }

    /// The one value of a query that must work.
    pub fn one<T: for<'a> postgres::types::FromSql<'a>>(&mut self, sql: &str) -> T {
        let rows = self.rows(sql, &[]);
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0].try_get(0).unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    /// The last value that came back, without the extended protocol: a pooler need not know prepared statements.
    pub fn last_simple(&mut self, sql: &str) -> String {
        let messages = self.0.simple_query(sql).unwrap_or_else(|e| panic!("{sql}\n{}", words(&e)));
        let value = messages.iter().rev().find_map(|m| match m {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        });
        value.unwrap_or_else(|| panic!("{sql}: no rows"))
    }

    /// A count.
    pub fn count(&mut self, from: &str) -> i64 {
        self.one(&format!("SELECT count(*) FROM {from}"))
    }

    /// What custody.verify() says: the summary's verdict, and the findings as `verdict tenant/seq`, sorted.
    pub fn verify(&mut self, arguments: &str) -> (String, Vec<String>) {
        let rows =
            self.rows(&format!("SELECT verdict, tenant, lane, seq, detail FROM custody.verify({arguments})"), &[]);
        let verdict = rows[0].get(0);
        let mut findings: Vec<String> = rows[1..]
            .iter()
            .map(|r| match r.get::<_, Option<i64>>(3) {
                // A checkpoint has no tenant.
                Some(seq) => {
                    let tenant = r.get::<_, Option<String>>(1);
                    format!("{} {}/{seq}", r.get::<_, String>(0), tenant.as_deref().unwrap_or("checkpoint"))
                }
                None => r.get::<_, String>(0),
            })
            .collect();
        findings.sort();
        (verdict, findings)
    }

    /// Asserts that the log is whole.
    pub fn assert_valid(&mut self) {
        let rows = self.rows("SELECT verdict, tenant, lane, seq, detail FROM custody.verify()", &[]);
        let all: Vec<String> = rows
            .iter()
            .map(|r| {
                format!(
                    "{}: {:?}/{:?}/{:?} {}",
                    r.get::<_, String>(0),
                    r.get::<_, Option<String>>(1),
                    r.get::<_, Option<i32>>(2),
                    r.get::<_, Option<i64>>(3),
                    r.get::<_, String>(4)
                )
            })
            .collect();
        assert_eq!((rows.len(), rows[0].get::<_, &str>(0)), (1, "valid"), "{all:#?}");
    }
}

/// An error's SQLSTATE; the message, if it is not the server's.
pub fn state(error: &postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// All that an error says.
pub fn words(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| format!("{e:#?}"))
}

/// The key that tests sign tokens with.
pub fn token_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// A compact JWS over `claims`.
pub fn token(key: &SigningKey, kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid, "typ": "JWT"}).to_string();
    let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
    format!("{signed}.{}", encode(&key.sign(signed.as_bytes()).to_bytes()))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}
