//! custody.posture(): every cause is made, seen, taken away as docs/posture.md says, and gone again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Db, Session, installation, token_key};

const DOCS: &str = include_str!("../../docs/posture.md");
const SOURCE: &str = include_str!("../../sql/install/78_posture.sql");

/// Causes that come and go with time.
const FRESHNESS: [&str; 3] = ["no-checkpoints", "no-verifications", "log-invalid"];

/// Promise -> (state, ids of its causes), as custody.posture() has them.
type Posture = BTreeMap<String, (String, BTreeSet<String>)>;

fn posture(s: &mut Session) -> Posture {
    let rows = s.rows("SELECT promise, state, coalesce(cause, ''), coalesce(remedy, '') FROM custody.posture()", &[]);
    let posture: Posture = rows
        .iter()
        .map(|r| {
            let (promise, state, cause, remedy): (String, String, String, String) =
                (r.get(0), r.get(1), r.get(2), r.get(3));
            assert_eq!(cause.is_empty(), state == "holds", "{promise} {state}: {cause}");
            assert_eq!(cause.lines().count(), remedy.lines().count(), "{promise}: a remedy for each cause");
            let ids: BTreeSet<String> = cause.lines().map(|l| l.split(": ").next().unwrap().to_owned()).collect();
            // How fresh the evidence is changes by itself where a worker makes it; it has a test of its own.
            let lasting: BTreeSet<String> =
                ids.iter().filter(|id| !FRESHNESS.contains(&id.as_str())).cloned().collect();
            let state = if lasting.is_empty() { "holds".to_owned() } else { state };
            let ids = lasting;
            (promise[..2].to_owned(), (state, ids))
        })
        .collect();
    assert_eq!(
        posture.keys().map(String::as_str).collect::<Vec<_>>(),
        ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "I1", "I2", "I3", "I4", "I5"]
    );
    posture
}

/// The SQL with which the documentation takes a cause away, statement by statement.
fn documented(id: &str) -> Vec<String> {
    let section = DOCS
        .split("\n### ")
        .find(|s| s.lines().next().is_some_and(|head| head.contains(&format!("`{id}`"))))
        .unwrap_or_else(|| panic!("docs/posture.md does not explain {id}"));
    let block = section.split("```sql\n").nth(1).and_then(|b| b.split("```").next());
    let block = block.unwrap_or_else(|| panic!("docs/posture.md has no SQL for {id}"));
    block.split(";\n").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

fn run(s: &mut Session, statements: &[String]) {
    // Each by itself: ALTER SYSTEM runs in no block.
    statements.iter().for_each(|sql| s.batch(sql));
}

/// A preloaded cluster with the clinic: tenants a and b, tokens, an auditor. Nothing that can be helped weakens a promise.
struct Clinic {
    cluster: Cluster,
    s: Session,
    auditor: Session,
    /// With nothing made that weakens a promise.
    clean: Posture,
    seen: BTreeSet<String>,
}

impl Clinic {
    fn open() -> Self {
        let cluster = Cluster::temporary(&installation(), &["shared_preload_libraries = 'pg_custody'"]).unwrap();
        cluster.stop().unwrap();
        checksums(&cluster, "--enable");
        cluster.start().unwrap();
        let mut s = Session(cluster.connect("postgres", SUPERUSER).unwrap());
        s.batch(
            "CREATE EXTENSION pg_custody; CREATE SCHEMA clinic;
             CREATE TABLE clinic.patients (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id));
             CREATE TABLE clinic.visits (tenant_id text, id int, patient int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients);
             SELECT custody.create_tenant('a', 'A'), custody.create_tenant('b', 'B'); SELECT custody.protect('clinic.patients'), custody.protect('clinic.visits');
             SELECT custody.audit('clinic.patients'), custody.audit('clinic.visits');
             CREATE ROLE clinic_app LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA clinic TO clinic_app; CREATE ROLE clinic_auditor LOGIN IN ROLE custody_auditor;
             GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients, clinic.visits TO clinic_app; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC",
        );
        let public = token_key().verifying_key().to_bytes().to_vec();
        s.0.execute("SELECT custody.add_token_key('k1', $1, 'clinic')", &[&public]).unwrap();
        let clean = posture(&mut s);
        let auditor = Session(cluster.connect("postgres", "clinic_auditor").unwrap());
        Self { cluster, s, auditor, clean, seen: BTreeSet::new() }
    }

    fn session(&self, user: &str) -> Session {
        Session(self.cluster.connect("postgres", user).unwrap())
    }

    fn reconnect(&mut self) {
        self.s = self.session(SUPERUSER);
        self.auditor = self.session("clinic_auditor");
    }

    fn restart(&mut self) {
        self.cluster.stop().unwrap();
        self.cluster.start().unwrap();
        self.reconnect();
    }

    /// Waits until the auditor sees what is right: settings take a moment to be read again.
    fn until(&mut self, what: &str, right: impl Fn(&Posture) -> bool) -> Posture {
        let begun = Instant::now();
        loop {
            let now = posture(&mut self.auditor);
            if right(&now) {
                return now;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {now:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asserts that a cause is, or is not, a promise's, to the superuser and to the auditor alike.
    fn expect(&mut self, id: &str, promise: &str, state: Option<&str>) {
        self.expect_all(id, &[(promise, state)]);
    }

    fn expect_all(&mut self, id: &str, wanted: &[(&str, Option<&str>)]) {
        self.until(&format!("{id} {wanted:?}"), |now| {
            wanted.iter().all(|(promise, state)| {
                let (is, ids) = &now[*promise];
                state.map_or(!ids.contains(id), |state| ids.contains(id) && is == state)
            })
        });
        self.seen.insert(id.to_owned());
    }

    /// Sessions that begin now see what has been set for them, and the same as whoever was there.
    fn agree(&mut self) {
        let now = posture(&mut self.auditor);
        assert_eq!(posture(&mut self.session(SUPERUSER)), now);
        assert_eq!(posture(&mut self.session("clinic_auditor")), now);
    }

    /// Makes a cause where there is none, sees each promise flip, takes it away again, and sees all as it was before.
    fn flips(&mut self, id: &str, flips: &[(&str, &str)], make: &str, back: &[String]) {
        assert!(flips.iter().all(|(promise, _)| !self.clean[*promise].1.contains(id)));
        run(&mut self.s, &sql(make));
        self.expect_all(id, &flips.iter().map(|(promise, state)| (*promise, Some(*state))).collect::<Vec<_>>());
        run(&mut self.s, back);
        let clean = self.clean.clone();
        self.until(&format!("after {make} and back"), |now| *now == clean);
    }
}

fn checksums(cluster: &Cluster, how: &str) {
    must(cluster.installation().program("pg_checksums").arg(how).arg("--pgdata").arg(cluster.data())).unwrap();
}

fn sql(text: &str) -> Vec<String> {
    text.split(";; ").map(ToOwned::to_owned).collect()
}

#[test]
fn each_cause_flips_its_promise_and_back() {
    let mut c = Clinic::open();
    let clean = c.clean.clone();
    let state = |p: &Posture, promise: &str| p[promise].0.clone();
    // All that holds does; what does not is not built, or says why.
    for promise in ["I1", "I2", "I3", "I4", "A1", "A2", "A4"] {
        assert_eq!(state(&clean, promise), "holds", "{promise}: {clean:#?}");
    }
    let causes = |promise: &str| clean[promise].1.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(causes("I5"), ["guard-off"]);
    assert_eq!(causes("A3"), ["generated-key"]);
    assert_eq!((state(&clean, "A6"), state(&clean, "A7")), ("holds".into(), "holds".into()));
    c.expect("generated-key", "A3", Some("weakened"));
    assert_eq!(c.session("clinic_app").fails("SELECT * FROM custody.posture()"), "42501");
    assert_eq!(c.session("clinic_app").fails("SELECT * FROM custody.posture_causes()"), "42501");

    c.agree();

    // Isolation.
    c.flips(
        "coverage",
        &[("I1", "not in force"), ("I3", "not in force")],
        "ALTER TABLE clinic.visits DISABLE ROW LEVEL SECURITY",
        &sql("ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY"),
    );
    c.flips(
        "coverage",
        &[("I1", "weakened"), ("I2", "weakened")],
        "GRANT SET ON PARAMETER custody.context TO clinic_app",
        &sql("REVOKE SET ON PARAMETER custody.context FROM clinic_app"),
    );
    c.flips(
        "coverage",
        &[("I1", "not in force"), ("I2", "not in force")],
        "ALTER ROLE clinic_app BYPASSRLS",
        &sql("ALTER ROLE clinic_app NOBYPASSRLS"),
    );
    c.flips(
        "coverage",
        &[("I3", "weakened")],
        "ALTER TABLE clinic.visits DISABLE TRIGGER \"!custody_require_context\"",
        &sql("ALTER TABLE clinic.visits ENABLE ALWAYS TRIGGER \"!custody_require_context\""),
    );
    c.flips(
        "coverage",
        &[("A1", "weakened")],
        "CREATE TRIGGER \"!a\" AFTER UPDATE ON clinic.visits FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger()",
        &sql("DROP TRIGGER \"!a\" ON clinic.visits"),
    );
    c.flips("nothing-protected", &[("I1", "not in force"), ("I3", "not in force")], "SELECT custody.unprotect('clinic.visits');; DROP TABLE IF EXISTS clinic.none;; SELECT custody.unprotect('clinic.patients')",
        &[documented("nothing-protected"), sql("SELECT count(*) FROM custody.protect('clinic.visits')")].concat());
    c.flips("assume", &[("I2", "weakened")], "SELECT custody.allow_assume('clinic_app', '{a}')", &documented("assume"));
    c.flips(
        "unbound-login",
        &[("I1", "weakened")],
        "CREATE ROLE clinic_backup LOGIN BYPASSRLS",
        &documented("unbound-login"),
    );
    c.flips(
        "unbound-login",
        &[("I1", "weakened")],
        "CREATE ROLE \"o'x\n holds: y\" LOGIN SUPERUSER",
        &sql("DROP ROLE \"o'x\n holds: y\""),
    );
    c.flips(
        "unbound-login",
        &[("I1", "weakened")],
        "ALTER ROLE clinic_backup SUPERUSER",
        &sql("DROP ROLE clinic_backup"),
    );
    c.flips(
        "language",
        &[("I4", "weakened")],
        "CREATE TRUSTED LANGUAGE memo HANDLER plpgsql_call_handler",
        &documented("language"),
    );
    c.s.batch("DROP LANGUAGE memo");
    c.flips(
        "row-security-off",
        &[("I3", "weakened")],
        "ALTER ROLE clinic_app SET row_security = off",
        &documented("row-security-off"),
    );
    c.flips(
        "row-security-off",
        &[("I3", "weakened")],
        "ALTER DATABASE postgres SET row_security = off",
        &sql("ALTER DATABASE postgres RESET row_security"),
    );
    c.flips(
        "row-security-off",
        &[("I3", "weakened")],
        "ALTER SYSTEM SET row_security = off;; SELECT pg_reload_conf()",
        &sql("ALTER SYSTEM RESET row_security;; SELECT pg_reload_conf()"),
    );
    c.flips(
        "tokens-logged",
        &[("I2", "weakened")],
        "ALTER SYSTEM SET log_statement = 'all';; SELECT pg_reload_conf()",
        &documented("tokens-logged"),
    );
    c.flips(
        "tokens-logged",
        &[("I2", "weakened")],
        "ALTER SYSTEM SET log_min_duration_statement = 0;; SELECT pg_reload_conf()",
        &sql("ALTER SYSTEM RESET log_min_duration_statement;; SELECT pg_reload_conf()"),
    );
    c.agree();
    // The guard, if it is there, or one that answers in its place.
    match c.s.one::<bool>("SELECT to_regprocedure('custody.guard_mode()') IS NULL") {
        true => {
            for (body, holds) in [
                ("SELECT 'off'::text", false),
                ("SELECT 'reject'::text", true),
                ("SELECT 'protect'::text", true),
                ("SELECT (1 / 0)::text", false),
                ("SELECT NULL::text", false),
            ] {
                c.s.batch(&format!(
                    "CREATE OR REPLACE FUNCTION custody.guard_mode() RETURNS text LANGUAGE sql AS $$ {body} $$"
                ));
                assert_eq!(posture(&mut c.s)["I5"].0 == "holds", holds, "{body}");
            }
            c.s.batch("DROP FUNCTION custody.guard_mode()");
        }
        false => {
            c.s.batch("SELECT custody.guard('reject')");
            assert_eq!(posture(&mut c.s)["I5"].0, "holds");
            c.s.batch("SELECT custody.guard('off')");
        }
    }
    c.expect("guard-off", "I5", Some("weakened"));

    // Recording.
    c.flips(
        "capture-gap",
        &[("A1", "not in force")],
        "ALTER TABLE clinic.visits DISABLE TRIGGER \"!custody_capture\"",
        &documented("capture-gap"),
    );
    c.flips(
        "capture-gap",
        &[("A1", "not in force")],
        "DROP TRIGGER \"!custody_truncate\" ON clinic.visits",
        &documented("capture-gap"),
    );
    c.flips(
        "capture-gap",
        &[("A1", "not in force")],
        "ALTER TABLE clinic.visits SET UNLOGGED",
        &sql("ALTER TABLE clinic.visits SET LOGGED"),
    );
    c.flips(
        "guard-gap",
        &[("A1", "weakened"), ("I5", "weakened")],
        "ALTER EVENT TRIGGER custody_ddl DISABLE",
        &documented("guard-gap"),
    );
    c.flips(
        "guard-gap",
        &[("A3", "not in force")],
        "ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\"",
        &sql("ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\""),
    );
    c.flips("guard-gap", &[("A1", "weakened")], "ALTER TABLE custody.role_binding DISABLE TRIGGER ALL",
        &sql("ALTER TABLE custody.role_binding ENABLE ALWAYS TRIGGER \"!custody_capture\", ENABLE ALWAYS TRIGGER \"!custody_truncate\""));
    c.flips(
        "not-audited",
        &[("A1", "weakened")],
        "SELECT custody.unaudit('clinic.visits')",
        &documented("not-audited"),
    );
    c.flips(
        "nothing-audited",
        &[("A1", "not in force")],
        "SELECT custody.unaudit('clinic.visits');; SELECT custody.unaudit('clinic.patients')",
        &documented("nothing-audited"),
    );
    c.flips("no-primary-key", &[("A1", "weakened")], "CREATE TABLE clinic.loose (id int);; SELECT custody.register_shared('clinic.loose', 'list');; SELECT custody.audit('clinic.loose')", &documented("no-primary-key"));
    c.flips(
        "replication-role",
        &[("A1", "weakened")],
        "ALTER ROLE clinic_app SET session_replication_role = replica",
        &documented("replication-role"),
    );
    c.flips(
        "replication-role",
        &[("A1", "weakened")],
        "ALTER DATABASE postgres SET session_replication_role = local",
        &sql("ALTER DATABASE postgres RESET session_replication_role"),
    );
    c.flips(
        "synchronous-commit",
        &[("A1", "weakened")],
        "ALTER SYSTEM SET synchronous_commit = off;; SELECT pg_reload_conf()",
        &documented("synchronous-commit"),
    );
    for setting in ["fsync", "full_page_writes"] {
        c.flips(
            &setting.replace('_', "-"),
            &[("A1", "weakened")],
            &format!("ALTER SYSTEM SET {setting} = off;; SELECT pg_reload_conf()"),
            &sql(&format!("ALTER SYSTEM RESET {setting};; SELECT pg_reload_conf()")),
        );
    }
    c.flips("outdated", &[("A1", "weakened")], "UPDATE pg_extension SET extversion = '0.1.0' WHERE extname = 'pg_custody'",
        &sql("UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'pg_custody') WHERE extname = 'pg_custody'"));
    assert_eq!(posture(&mut c.s), clean);

    // The version, which cannot be had older.
    let floor = |c: &mut Clinic, version: i32| -> Option<String> {
        c.s.one(&format!("SELECT custody.version_floor({version})"))
    };
    assert_eq!(floor(&mut c, 150_019).as_deref(), Some("15.20"));
    assert_eq!((floor(&mut c, 150_020), floor(&mut c, 150_021)), (None, None));
    assert_eq!(floor(&mut c, 170_010).as_deref(), Some("17.11"));
    assert_eq!(floor(&mut c, 190_000).as_deref(), Some("unknown"));
    let here: i32 = c.s.one("SELECT current_setting('server_version_num')::int");
    assert_eq!(clean["I1"].1.contains("version"), floor(&mut c, here).is_some());
    c.seen.insert("version".into());

    // What cannot be asked is unknown, and unknown is weakened.
    c.s.batch("REVOKE EXECUTE ON FUNCTION pg_show_all_settings() FROM PUBLIC");
    let blind = posture(&mut c.session("clinic_auditor"));
    for promise in ["I1", "I2", "I3", "I4", "I5", "A1", "A2", "A3"] {
        assert!(blind[promise].0 != "holds" && blind[promise].1.contains("unknown"), "{promise}: {blind:#?}");
    }
    run(&mut c.s, &documented("unknown"));
    c.expect("unknown", "I1", None);

    c.agree();
    // Keys and lives.
    let key: String = c
        .s
        .one("SELECT current_setting('data_directory') || '/pg_custody/' || key_id || '.key' FROM custody.signing_key");
    let key = PathBuf::from(key);
    let mode = |mode: u32| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    c.expect("key-unreadable", "A2", Some("not in force"));
    mode(0o600);
    c.expect("key-unreadable", "A2", None);
    // By default another key takes over: tests/tests/keys.rs.
    let database: String = c.s.one("SELECT current_database()");
    c.s.batch(&format!("ALTER DATABASE {database} SET custody.recover_lost_key = off"));
    let aside = key.with_extension("aside");
    std::fs::rename(&key, &aside).unwrap();
    c.expect("key-unreadable", "A1", Some("not in force"));
    assert_eq!(c.session(SUPERUSER).fails("INSERT INTO clinic.patients VALUES ('a', 1)"), "UC034");
    std::fs::rename(&aside, &key).unwrap();
    c.expect("key-unreadable", "A1", None);
    assert_eq!(posture(&mut c.s), clean);
    // The documented way on when it is lost: signing goes on, with a key that the old one did not vouch for, until the next.
    std::fs::remove_file(&key).unwrap();
    c.reconnect();
    run(&mut c.s, &documented("key-unreadable"));
    c.expect("key-unreadable", "A2", None);
    c.expect("unendorsed-key", "A3", Some("weakened"));
    c.s.batch("SELECT custody.new_incarnation('planned')");
    c.expect("unendorsed-key", "A3", None);
    assert_eq!(posture(&mut c.s), clean);

    // What takes a restart, all at once.
    for setting in ["SET wal_level = minimal", "SET max_wal_senders = 0", "RESET shared_preload_libraries"] {
        c.s.batch(&format!("ALTER SYSTEM {setting}"));
    }
    c.cluster.stop().unwrap();
    checksums(&c.cluster, "--disable");
    c.cluster.start().unwrap();
    c.reconnect();
    for (id, promise) in [("wal-level", "A3"), ("checksums", "A3"), ("not-preloaded", "I1"), ("not-preloaded", "I5")] {
        c.expect(id, promise, Some("weakened"));
    }
    for setting in ["wal_level", "max_wal_senders"] {
        c.s.batch(&format!("ALTER SYSTEM RESET {setting}"));
    }
    run(&mut c.s, &documented("not-preloaded"));
    c.cluster.stop().unwrap();
    checksums(&c.cluster, "--enable");
    c.cluster.start().unwrap();
    c.reconnect();
    c.restart();
    assert_eq!(posture(&mut c.s), clean);
    // The log remembers what posture has forgotten: when capture was off.
    let (_, found) = c.s.verify("");
    let expected = |f: &String| f.starts_with("capture_disabled") || f == "key_recovered";
    assert!(found.len() > 1 && found.iter().all(expected), "{found:?}");

    standby(&mut c);
    copy(&mut c);

    // The documentation explains every cause there is, this test has seen each, and there are no others.
    let documented: BTreeSet<String> = DOCS
        .split("\n### ")
        .skip(1)
        .flat_map(|s| {
            s.lines().next().unwrap().split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>()
        })
        .collect();
    c.seen.extend(FRESHNESS.map(ToOwned::to_owned));
    assert_eq!(documented, c.seen);
    let words: BTreeSet<&str> = SOURCE.split('\'').collect();
    assert!(documented.iter().all(|id| words.contains(id.as_str())), "each id is in sql/install/78_posture.sql");
}

/// A standby answers, and says what it is.
fn standby(c: &mut Clinic) {
    let standby = c.cluster.standby("s1").unwrap();
    let ask = |user: &str| posture(&mut Session(standby.connect("postgres", user).unwrap()));
    let mut expected = posture(&mut c.s);
    expected.insert("A1".into(), ("weakened".into(), BTreeSet::from(["recovery".to_owned()])));
    let seen = ask("clinic_auditor");
    assert_eq!(seen, expected, "the same as the primary's, and that it is in recovery");
    // Promoted, it is another copy until it writes; then it is itself.
    let mut s = Session(standby.connect("postgres", SUPERUSER).unwrap());
    s.batch("SELECT pg_promote()");
    let promoted = ask("clinic_auditor");
    assert!(!promoted["A1"].1.contains("recovery") && promoted["A3"].1.contains("other-copy"), "{promoted:#?}");
    run(&mut s, &documented("other-copy"));
    assert!(!ask("clinic_auditor")["A3"].1.contains("other-copy"));
    c.seen.insert("recovery".into());
}

/// A copy by TEMPLATE is another one until it writes.
fn copy(c: &mut Clinic) {
    c.restart();
    let mut other = Session(c.cluster.connect("template1", SUPERUSER).unwrap());
    // Nobody may be in the database that is copied.
    for session in [&mut c.s, &mut c.auditor] {
        *session = Session(c.cluster.connect("template1", SUPERUSER).unwrap());
    }
    let begun = Instant::now();
    while other.0.batch_execute("CREATE DATABASE twin TEMPLATE postgres").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(100));
    }
    c.reconnect();
    let mut twin = Session(c.cluster.connect("twin", SUPERUSER).unwrap());
    twin.batch("REVOKE TEMPORARY ON DATABASE twin FROM PUBLIC");
    assert!(posture(&mut twin)["A3"].1.contains("other-copy"));
    run(&mut twin, &documented("other-copy"));
    assert_eq!(posture(&mut twin), posture(&mut c.s));
    c.seen.insert("other-copy".into());
}

#[test]
fn evidence_must_be_fresh() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let auditor = format!("{}_auditor", db.name);
    s.batch(&format!("CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"));
    let mut auditor = db.session(&auditor);
    let mut causes = |promise: &str| -> Vec<String> {
        let sql =
            "SELECT id || ': ' || state FROM custody.posture_causes() WHERE promise = $1 AND id = ANY ($2) ORDER BY 1";
        auditor.rows(sql, &[&promise, &FRESHNESS.map(ToOwned::to_owned).to_vec()]).iter().map(|r| r.get(0)).collect()
    };
    let none = ["no-checkpoints: weakened", "no-verifications: weakened"];
    assert_eq!((causes("A3"), causes("A5")), (none.map(Into::into).to_vec(), vec![none[0].into()]));
    // Tables in their place, if this version has none.
    let built =
        |s: &mut Session, name: &str| s.one::<bool>(&format!("SELECT to_regclass('custody.{name}') IS NOT NULL"));
    if !built(&mut s, "verifications") {
        s.batch("CREATE TABLE custody.verifications (started_at timestamptz, finished_at timestamptz, verdict text, summary text, findings jsonb); GRANT SELECT ON custody.verifications TO custody_auditor");
    }
    assert_eq!(causes("A3"), none, "a table without rows proves nothing");
    for (age, verdict, wanted) in [
        ("3 days", "valid", &none[..]),
        ("2 hours", "invalid", &["log-invalid: not in force", "no-checkpoints: weakened"]),
        ("1 hour", "valid", &["no-checkpoints: weakened"]),
    ] {
        s.batch(&format!("INSERT INTO custody.verifications (started_at, finished_at, verdict, summary, findings) SELECT now(), now() - interval '{age}', '{verdict}', '', '[]'"));
        assert_eq!(causes("A3"), wanted, "{age} {verdict}");
    }
    match built(&mut s, "checkpoints") {
        true => s.batch("CALL custody.checkpoint()"),
        false => s.batch("CREATE TABLE custody.checkpoints AS SELECT incarnation, now() AS at FROM custody.instance; GRANT SELECT ON custody.checkpoints TO custody_auditor"),
    }
    assert_eq!((causes("A3"), causes("A5")), (vec![], vec![]));
    // What may not be read is not taken for good.
    s.batch("REVOKE SELECT ON custody.verifications FROM custody_auditor");
    assert_eq!(causes("A3"), ["no-verifications: weakened"]);
}

#[test]
fn the_documented_sql_runs() {
    let db = Db::clinic();
    let auditor = format!("{}_auditor", db.name);
    let mut s = db.superuser();
    s.batch(&format!("CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"));
    let mut auditor = db.session(&auditor);
    let blocks: Vec<&str> =
        DOCS.split("\n## ").next().unwrap().split("```sql\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    blocks.iter().for_each(|block| auditor.batch(block));
    // The gate of the documentation stops what it says it stops.
    s.batch("ALTER TABLE clinic.visits DISABLE TRIGGER \"!custody_capture\"");
    assert_eq!(auditor.fails(blocks[1]), "P0001");
}
