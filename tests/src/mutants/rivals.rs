//! The other tools, on the same cases: pgrls (PyPI) and Supabase's splinter, as npm's postgres-language-server runs it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use postgres::Client;
use serde_json::Value;

use super::{Case, Found, Outcome, judge};
use crate::Db;

/// A tool that looks at a committed database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Pgrls,
    /// pgrls' prover: what it says leaks, in three of its modes.
    PgrlsProver,
    Splinter,
}

impl Rival {
    pub const ALL: [Self; 3] = [Self::Pgrls, Self::PgrlsProver, Self::Splinter];

    /// Installs it if need be and gives name and version; none if it cannot be had here.
    pub fn version(self) -> Option<String> {
        let mut command = linters(self);
        command.arg("--version");
        let output = command.output().ok()?;
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = words.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?.to_owned();
        let name = match self {
            Self::Pgrls => "pgrls lint",
            Self::PgrlsProver => "pgrls verify",
            Self::Splinter => "splinter in postgres-language-server",
        };
        output.status.success().then(|| format!("{name} {number}"))
    }

    /// All that it finds in a database, whatever the schema.
    pub fn findings(self, db: &Db, database: &str) -> Result<BTreeSet<Found>, String> {
        match self {
            Self::Pgrls => Ok(pgrls(db, database)?.into_iter().map(|f| f.0).collect()),
            Self::PgrlsProver => prover(db, database),
            Self::Splinter => splinter(db, database),
        }
    }
}

fn linters(rival: Rival) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/linters"));
    command.arg(match rival {
        Rival::Pgrls | Rival::PgrlsProver => "pgrls",
        Rival::Splinter => "splinter",
    });
    command.stdin(Stdio::null());
    command
}

fn json(command: &mut Command) -> Result<Value, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find('{').ok_or_else(|| format!("no JSON: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    values.next().ok_or("no JSON")?.map_err(|e| e.to_string())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// pgrls on a database, told of all schemas but the system's and ours.
fn pgrls_report(db: &Db, database: &str, arguments: &[&str]) -> Result<Value, String> {
    let mut client = db.cluster.connect(database, "postgres").map_err(|e| e.to_string())?;
    let schemas = "SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname NOT IN ('information_schema', 'custody') AND nspname !~ '^pg_'";
    let schemas: String = client.query_one(schemas, &[]).map_err(|e| e.to_string())?.get(0);
    drop(client);
    let url = format!("postgresql://postgres@/{database}?host={}&port=5432", db.cluster.socket().display());
    let mut command = linters(Rival::Pgrls);
    command.args(arguments).args(["--format", "json", "--database-url", &url, "--schemas", &schemas]).current_dir("/");
    json(&mut command)
}

/// A finding of pgrls lint, with its severity.
pub fn pgrls(db: &Db, database: &str) -> Result<BTreeSet<(Found, String)>, String> {
    let report = pgrls_report(db, database, &["lint"])?;
    let violations = report["violations"].as_array().ok_or("no violations")?;
    let found = violations.iter().map(|v| {
        let found = Found {
            id: text(&v["rule_id"]),
            object: text(&v["location"]),
            words: text(&v["message"]),
            low: v["severity"] == "info",
        };
        (found, text(&v["severity"]))
    });
    Ok(found.collect())
}

/// The verdict `leak` of pgrls' prover, in each of the modes that are about rows of others. It is told which functions give the
/// session's tenant.
fn prover(db: &Db, database: &str) -> Result<BTreeSet<Found>, String> {
    let one = |mode: &'static str| {
        let mut arguments = vec!["verify", "--mode", mode];
        TENANT_FUNCTIONS.iter().for_each(|f| arguments.extend(["--auth-function", f]));
        let report = pgrls_report(db, database, &arguments)?;
        let tables = report["tables"].as_array().ok_or("no tables")?.clone();
        let leaks = tables.into_iter().filter(|t| t["verdict"] == "leak").map(move |t| Found {
            id: format!("verify {mode}"),
            object: text(&t["table"]),
            words: String::new(),
            low: false,
        });
        Ok::<_, String>(leaks.collect::<Vec<_>>())
    };
    let mut found = BTreeSet::new();
    for leaks in std::thread::scope(|scope| {
        let runs = ["anon", "cross-tenant", "write"].map(|mode| scope.spawn(move || one(mode)));
        runs.map(|run| run.join().unwrap_or_else(|_| Err("a thread ended".into())))
    }) {
        found.extend(leaks?);
    }
    Ok(found)
}

/// Functions that give the session's tenant, for pgrls' prover.
pub const TENANT_FUNCTIONS: [&str; 5] =
    ["custody.tenant", "custody.tenant_uuid", "custody.tenant_int", "custody.tenant_bigint", "clinic.my_tenant"];

fn splinter(db: &Db, database: &str) -> Result<BTreeSet<Found>, String> {
    // Its rules are about schemas that this setting names, and the roles anon and authenticated.
    let mut client = db.cluster.connect(database, "postgres").map_err(|e| e.to_string())?;
    let expose = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pgrst.db_schemas = %L', current_database(),
        (SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname NOT IN ('information_schema', 'custody') AND nspname !~ '^pg_')); END $$";
    client.batch_execute(expose).map_err(|e| e.to_string())?;
    drop(client);
    let dir = tempfile_dir()?;
    let config = serde_json::json!({
        "db": {"host": db.cluster.socket(), "port": 5432, "username": "postgres", "password": "any", "database": database},
        "splinter": {"enabled": true, "rules": {"all": true}},
    });
    std::fs::write(dir.join("postgres-language-server.jsonc"), config.to_string()).map_err(|e| e.to_string())?;
    let mut command = linters(Rival::Splinter);
    command.args(["dblint", "--reporter=json", "--max-diagnostics=none"]).current_dir(&dir);
    let report = json(&mut command);
    let _ = std::fs::remove_dir_all(&dir);
    let report = report?;
    let found = report["diagnostics"].as_array().ok_or("no diagnostics")?.iter().map(|d| Found {
        id: text(&d["category"]).rsplit('/').next().unwrap_or_default().into(),
        object: text(&d["category"]),
        words: text(&d["message"]).replace("\\`", "`"),
        low: d["severity"] != "error" && d["severity"] != "warning",
    });
    Ok(found.collect())
}

fn tempfile_dir() -> Result<std::path::PathBuf, String> {
    let dir = std::env::temp_dir().join(format!("custody-linters-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    Ok(dir)
}

/// Findings that are neither about speed and style nor about what custody.protect makes everywhere: they count neither for a
/// tool nor against it.
fn counts(rival: Rival, found: &Found) -> bool {
    match rival {
        Rival::Pgrls => {
            (found.id.starts_with("SEC") || found.id.starts_with("VIEW"))
                // A policy for PUBLIC: the floor is one, by intent.
                && found.id != "SEC003"
                // Allowlisted, as its own words advise.
                && !found.object.ends_with("!custody_require_context")
        }
        Rival::PgrlsProver => true,
        Rival::Splinter => found.object.starts_with("splinter/security/"),
    }
}

/// Whether a rival's finding names the object. Any rule fits: which of its rules should is for its makers to say.
fn names(found: &Found, object: &str) -> bool {
    let plain = |s: &str| s.replace('"', "");
    let object = plain(object.split('(').next().unwrap_or(object));
    let (part, whole) = match object.strip_prefix('~') {
        Some(part) => (part.to_owned(), false),
        None => (object.clone(), true),
    };
    [plain(&found.object), plain(&found.words)].iter().any(|text| {
        text.match_indices(&part).any(|(at, _)| {
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !whole || !inside(text[..at].chars().next_back()) && !inside(text[at + part.len()..].chars().next())
        })
    })
}

/// Runs rivals over cases, each committed in a copy of the base.
pub struct Arena<'a> {
    db: &'a Db,
    admin: Client,
    rivals: Vec<Rival>,
    base: Vec<BTreeSet<Found>>,
    roles: Vec<String>,
}

/// All of a cluster's state that a case may change outside its database.
const SHARED: &str = "
    SELECT 'role ' || r::text FROM (SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls FROM pg_roles) r
    UNION ALL SELECT format('member %s %s', m.roleid::regrole, m.member::regrole) FROM pg_auth_members m
    UNION ALL SELECT 'parameter ' || p::text FROM pg_parameter_acl p
    UNION ALL SELECT 'setting ' || s::text FROM pg_db_role_setting s WHERE s.setdatabase = 0
    ORDER BY 1";

impl<'a> Arena<'a> {
    /// The base's database must have no session.
    pub fn new(db: &'a Db, rivals: &[Rival]) -> Result<Self, String> {
        let mut admin = db.cluster.connect("postgres", "postgres").map_err(|e| e.to_string())?;
        let base = rivals.iter().map(|r| r.findings(db, &db.name)).collect::<Result<Vec<_>, _>>()?;
        let roles = shared(&mut admin)?;
        Ok(Self { db, admin, rivals: rivals.to_vec(), base, roles })
    }

    /// The outcomes, in the rivals' order.
    pub fn run(&mut self, case: &Case) -> Result<Vec<Outcome>, String> {
        let copy = format!("{}_case", self.db.name);
        let error = |e: postgres::Error| format!("{}: {}", case.name, crate::words(&e));
        self.admin.batch_execute(&format!("DROP DATABASE IF EXISTS {copy} WITH (FORCE)")).map_err(error)?;
        self.admin.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {}", self.db.name)).map_err(error)?;
        let mut client = self.db.cluster.connect(&copy, "postgres").map_err(|e| e.to_string())?;
        client
            .batch_execute(&format!("BEGIN; SET LOCAL client_min_messages = error; {}; COMMIT", case.sql))
            .map_err(error)?;
        drop(client);
        let mut outcomes = Vec::new();
        for (rival, base) in self.rivals.clone().into_iter().zip(&self.base) {
            let all = rival.findings(self.db, &copy)?;
            let new: Vec<_> = all.difference(base).filter(|f| counts(rival, f)).cloned().collect();
            outcomes.push(judge(case, &new, |f, _, object| names(f, &object.replace("{database}", &copy))));
        }
        self.admin.batch_execute(&format!("DROP DATABASE {copy} WITH (FORCE)")).map_err(error)?;
        self.reset()?;
        Ok(outcomes)
    }

    /// Leaves the cluster to the next one.
    pub fn end(mut self) {
        let _ = self.admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.db.name));
    }

    /// Roles belong to the cluster: what the case did to them is undone.
    fn reset(&mut self) -> Result<(), String> {
        let known: Vec<String> = self.roles.clone();
        let undo = "
            SELECT format('REVOKE %s FROM %s', m.roleid::regrole, m.member::regrole) FROM pg_auth_members m
            WHERE NOT format('member %s %s', m.roleid::regrole, m.member::regrole) = ANY ($1)
            UNION ALL
            SELECT format('REVOKE ALL ON PARAMETER %s FROM %s', p.parname, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END)
            FROM pg_parameter_acl p, aclexplode(p.paracl) x WHERE x.grantee <> 10
            UNION ALL
            SELECT format('ALTER ROLE %s RESET ALL', s.setrole::regrole) FROM pg_db_role_setting s WHERE s.setdatabase = 0";
        let drop = "SELECT format('DROP ROLE %I', r.rolname) FROM pg_roles r WHERE r.rolname LIKE 'clinic\\_%' AND r.rolname NOT IN ('clinic_owner', 'clinic_app')";
        let mut statements: Vec<String> = Vec::new();
        for row in self.admin.query(undo, &[&known]).map_err(|e| e.to_string())? {
            statements.push(row.get(0));
        }
        for row in self.admin.query(drop, &[]).map_err(|e| e.to_string())? {
            statements.push(row.get(0));
        }
        statements.push(
            "ALTER ROLE clinic_app NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS LOGIN".into(),
        );
        for statement in &statements {
            self.admin.batch_execute(statement).map_err(|e| format!("{statement}: {}", crate::words(&e)))?;
        }
        let now = shared(&mut self.admin)?;
        if now == self.roles { Ok(()) } else { Err(format!("the cluster is not as it was: {now:?}")) }
    }
}

fn shared(admin: &mut Client) -> Result<Vec<String>, String> {
    Ok(admin.query(SHARED, &[]).map_err(|e| e.to_string())?.iter().map(|r| r.get(0)).collect())
}
