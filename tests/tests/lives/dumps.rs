//! Dumps: each way to make one and to restore it.

use custody_harness::{Cluster, SUPERUSER, must};

use super::*;

/// A directory for dumps, gone with the test.
fn dumps() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("custody-dump-").tempdir().unwrap()
}

struct Restored<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl<'a> Restored<'a> {
    /// A new database with nothing in it.
    fn new(cluster: &'a Cluster, name: &'a str) -> Self {
        superuser(cluster).batch(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        superuser(cluster).batch(&format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"));
        Self { cluster, name }
    }

    fn session(&self, user: &str) -> Session {
        Session(self.cluster.connect(self.name, user).unwrap())
    }

    fn superuser(&self) -> Session {
        self.session(SUPERUSER)
    }

    /// Runs a client program on it, which must succeed.
    fn run(&self, program: &str, arguments: &[&str]) {
        must(&mut self.cluster.client(program, self.name, SUPERUSER, arguments)).unwrap();
    }

    fn pg_restore(&self, arguments: &[&str]) {
        self.run("pg_restore", &[&["--exit-on-error", "--dbname", self.name], arguments].concat());
    }
}

fn pg_dump(cluster: &Cluster, arguments: &[&str]) {
    must(&mut cluster.client("pg_dump", "postgres", SUPERUSER, arguments)).unwrap();
}

#[test]
fn however_it_is_dumped_it_lives_on() {
    let cluster = clinic(&["fsync = off"]);
    let mut s = superuser(&cluster);
    s.batch("SELECT custody.run_verification()");
    let note = checkpoint(&mut s);
    let (entries, coverage_before) = (s.count("custody.entry"), coverage(&mut s));
    let dir = dumps();
    let at = |name: &str| dir.path().join(name).display().to_string();
    pg_dump(&cluster, &["--format=custom", "--file", &at("custom")]);
    pg_dump(&cluster, &["--format=plain", "--file", &at("plain")]);
    pg_dump(&cluster, &["--format=plain", "--inserts", "--quote-all-identifiers", "--file", &at("inserts")]);
    pg_dump(&cluster, &["--format=directory", "--jobs=2", "--file", &at("directory")]);
    type Way<'a> = (&'a str, &'a dyn Fn(&Restored));
    let ways: [Way; 7] = [
        ("custom", &|r| r.pg_restore(&[&at("custom")])),
        ("whole_or_not", &|r| r.pg_restore(&["--single-transaction", &at("custom")])),
        ("parallel", &|r| r.pg_restore(&["--jobs=2", &at("directory")])),
        ("plain", &|r| r.run("psql", &["-qX", "-v", "ON_ERROR_STOP=1", "--file", &at("plain")])),
        ("inserts", &|r| r.run("psql", &["-qX1", "-v", "ON_ERROR_STOP=1", "--file", &at("inserts")])),
        ("sections", &|r| {
            for section in ["pre-data", "data", "post-data"] {
                r.pg_restore(&["--section", section, &at("custom")]);
            }
        }),
        ("in_two", &|r| {
            r.pg_restore(&["--schema-only", &at("custom")]);
            r.pg_restore(&["--data-only", "--schema=custody", &at("custom")]);
            r.pg_restore(&["--data-only", "--exclude-schema=custody", &at("custom")]);
        }),
    ];
    for (name, restore) in ways {
        let restored = Restored::new(&cluster, name);
        restore(&restored);
        let mut r = restored.superuser();
        let text = summary(&mut r);
        assert!(text.starts_with("valid: ") && text.contains(&format!("inherited {entries} of")), "{name}: {text}");
        assert_eq!(lives(&mut r), ["created", "created"], "{name}");
        assert_eq!(r.count("clinic.patients"), 2, "{name}");
        assert_eq!(coverage(&mut r), coverage_before, "{name}");
        // What was published of the old life still holds, and is known to.
        assert_eq!(held_against(&mut r, std::slice::from_ref(&note)), Vec::<String>::new(), "{name}");
        // Triggers come after the rows, but for those that came before: then the rows are entries of the new life.
        let own = r.count(
            "custody.log JOIN custody.instance USING (incarnation) WHERE table_name = 'patients' AND op = 'INSERT'",
        );
        assert_eq!(own, if name == "in_two" { 2 } else { 0 }, "{name}");
        assert_alive(&mut r, &mut restored.session("app"));
    }
}

#[test]
fn rows_without_their_registry_are_refused_and_nothing_is_half_there() {
    let cluster = clinic(&["fsync = off"]);
    let dir = dumps();
    let at = |name: &str| dir.path().join(name).display().to_string();
    pg_dump(&cluster, &["--format=custom", "--file", &at("custom")]);
    let restored = Restored::new(&cluster, "restored");
    restored.pg_restore(&["--schema-only", &at("custom")]);
    // Schema clinic sorts before schema custody, so its rows come first, and nobody knows yet what to record of them.
    let failed = must(&mut cluster.client(
        "pg_restore",
        "restored",
        SUPERUSER,
        &["--exit-on-error", "--data-only", "--dbname=restored", &at("custom")],
    ))
    .unwrap_err()
    .to_string();
    assert!(
        failed.contains("is not registered for audit") && failed.contains("--data-only --schema=custody"),
        "{failed}"
    );
    let mut r = restored.superuser();
    assert_eq!(r.count("clinic.patients"), 0);
    r.assert_valid();
    restored.pg_restore(&["--data-only", "--schema=custody", &at("custom")]);
    restored.pg_restore(&["--data-only", "--exclude-schema=custody", &at("custom")]);
    assert_alive(&mut r, &mut restored.session("app"));
    // With the triggers off it goes through, and the log says that nothing was recorded.
    let silent = Restored::new(&cluster, "silent");
    silent.pg_restore(&["--schema-only", &at("custom")]);
    silent.pg_restore(&["--data-only", "--disable-triggers", &at("custom")]);
    let mut q = silent.superuser();
    let (verdict, found) = q.verify("");
    assert_eq!(verdict, "invalid");
    assert!(found.contains(&"guard_lifted".into()) && found.contains(&"capture_disabled".into()), "{found:?}");
    assert!(coverage(&mut q).len() > coverage(&mut r).len());
    // pg_restore turns triggers on again as ordinary ones; each has to be told ALWAYS.
    q.batch(always_again());
    // The rows came before the table was registered, as in any restore; but the log was open meanwhile, and that stays said.
    let text = summary(&mut q);
    assert!(text.starts_with("valid: ") && text.contains("the append-only guard was lifted"), "{text}");
    assert_alive(&mut q, &mut silent.session("app"));
    assert_eq!(coverage(&mut q), coverage(&mut r));
}

/// The block of docs/lives.md that turns the triggers into what they were.
fn always_again() -> &'static str {
    let page = include_str!("../../../docs/lives.md");
    page.split("```sql\n").filter_map(|b| b.split("```").next()).find(|b| b.starts_with("DO ")).unwrap()
}

#[test]
fn a_log_joins_another_log_but_nothing_is_forged_into_it() {
    let cluster = clinic(&["fsync = off"]);
    let mut s = superuser(&cluster);
    let note = checkpoint(&mut s);
    let dir = dumps();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let log = ["entry", "incarnation", "signing_key", "checkpoint_*"].map(|t| format!("--table=custody.{t}"));
    let log: Vec<&str> = log.iter().map(String::as_str).chain(["--data-only"]).collect();
    pg_dump(&cluster, &[&log[..], &["--format=custom", "--file", &at("log")]].concat());
    // A database with a log of its own takes it in: it is another's, every entry of it.
    let other = Restored::new(&cluster, "other");
    other
        .superuser()
        .batch(&CLINIC.replace("CREATE ROLE", "-- CREATE ROLE").replace("DATABASE postgres", "DATABASE other"));
    let mut o = other.superuser();
    let own = o.count("custody.entry");
    other.pg_restore(&["--data-only", "--single-transaction", &at("log")]);
    let (all, text) = (o.count("custody.entry"), summary(&mut o));
    assert!(text.starts_with("valid: ") && text.contains(&format!("inherited {} of {all}", all - own)), "{text}");
    assert_eq!(held_against(&mut o, &[note]), Vec::<String>::new());
    assert_alive(&mut o, &mut other.session("app"));
    // Twice is once too often.
    let twice = must(&mut cluster.client(
        "pg_restore",
        "other",
        SUPERUSER,
        &["--exit-on-error", "--data-only", "--single-transaction", "--dbname=other", &at("log")],
    ));
    assert!(twice.is_err());
    o.assert_valid();

    // Its own life's entries come from nowhere but itself: neither as they are, nor with the triggers off.
    pg_dump(&cluster, &["--data-only", "--table=custody.entry", "--disable-triggers", "--file", &at("own")]);
    let script = std::fs::read_to_string(at("own")).unwrap();
    let (before, rows) = script.split_once("FROM stdin;\n").unwrap();
    let (rows, after) = rows.split_once("\\.\n").unwrap();
    let of_a = rows.lines().rfind(|l| l.contains("\ta\tINSERT\t")).unwrap();
    // The same patient, under the next number.
    let (seq, rest) = of_a.split_once('\t').unwrap();
    let forged = format!("{}\t{rest}", seq.parse::<i64>().unwrap() + 1);
    let write = |name: &str, triggers: bool| {
        let text = format!("{before}FROM stdin;\n{forged}\n\\.\n{after}");
        let text = if triggers { text.replace("ALTER TABLE custody.entry", "-- ") } else { text };
        std::fs::write(at(name), text).unwrap();
        cluster.client("psql", "postgres", SUPERUSER, &["-qX", "-v", "ON_ERROR_STOP=1", "--file", &at(name)])
    };
    let refused = must(&mut write("with", true)).unwrap_err().to_string();
    assert!(refused.contains("the log is append-only"), "{refused}");
    s.assert_valid();
    must(&mut write("without", false)).unwrap();
    let (_, found) = s.verify("");
    assert!(found.iter().any(|f| f.starts_with("guard_lifted")), "{found:?}");
    assert!(found.iter().any(|f| f.ends_with(&format!(" a/{}", seq.parse::<i64>().unwrap() + 1))), "{found:?}");
    assert!(s.count("custody.log WHERE op = 'GUARD_OFF'") > 0, "and who lifted it is on record");
}

#[test]
fn a_part_of_a_database_is_protected_where_it_arrives() {
    let cluster = clinic(&["fsync = off"]);
    let dir = dumps();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for part in ["--schema=clinic", "--table=clinic.patients"] {
        let name = part.split('.').next_back().unwrap().split('=').next_back().unwrap().to_owned() + "_only";
        pg_dump(&cluster, &[part, "--file", &at(&name)]);
        let other = Restored::new(&cluster, &name);
        let mut o = other.superuser();
        o.batch("CREATE EXTENSION pg_custody; SELECT custody.create_tenant('a', 'A'), custody.create_tenant('b', 'B'); SELECT custody.allow_assume('app', ARRAY['a', 'b'])");
        if part.starts_with("--table") {
            o.batch("CREATE SCHEMA clinic; GRANT USAGE ON SCHEMA clinic TO app");
        }
        other.run("psql", &["-qX1", "-v", "ON_ERROR_STOP=1", "--file", &at(&name)]);
        // The policies came along, and hold. The registry did not: nothing can be written until the table is registered here.
        let mut app = other.session("app");
        assert_eq!(app.count("clinic.patients"), 0);
        let mut write =
            || app.fails("BEGIN; SELECT custody.assume_tenant('a'); INSERT INTO clinic.patients (id) VALUES (2)");
        assert_eq!(write(), "UC030");
        app.batch("ROLLBACK");
        assert_eq!(o.fails("UPDATE clinic.patients SET name = 'x'"), "UC030");
        o.batch("SELECT custody.protect('clinic.patients'), custody.audit('clinic.patients')");
        assert_eq!(o.count("clinic.patients"), 2);
        assert_alive(&mut o, &mut app);
    }
    // Who row-level security binds gets no dump that looks whole and is not.
    for program in [
        &["--table=clinic.patients"][..],
        &["--table=clinic.patients", "--inserts"],
        &["--table=clinic.patients", "--enable-row-security"],
    ] {
        let outcome = must(&mut cluster.client("pg_dump", "postgres", "app", program));
        let whole = outcome.as_ref().is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("Ada"));
        assert!(!whole, "{program:?}");
        assert_eq!(outcome.is_ok(), program.contains(&"--enable-row-security"), "{program:?}");
    }
}

#[test]
fn roles_come_with_the_globals() {
    let cluster = clinic(&["fsync = off"]);
    let mut s = superuser(&cluster);
    let (entries, note) = (s.count("custody.entry"), checkpoint(&mut s));
    let dir = dumps();
    let at = |name: &str| dir.path().join(name).display().to_string();
    must(&mut cluster.client(
        "pg_dumpall",
        "postgres",
        SUPERUSER,
        &["--globals-only", "--no-role-passwords", "--file", &at("globals")],
    ))
    .unwrap();
    must(&mut cluster.client(
        "pg_dump",
        "postgres",
        SUPERUSER,
        &["--create", "--clean", "--if-exists", "--file", &at("dump")],
    ))
    .unwrap();
    let elsewhere = Cluster::temporary(&installation(), &["fsync = off"]).unwrap();
    // Only the superuser is there already, and that is said.
    let said = elsewhere.client("psql", "postgres", SUPERUSER, &["-qX", "--file", &at("globals")]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.lines().count() == 1 && said.contains("role \"postgres\" already exists"), "{said}");
    must(&mut elsewhere.client(
        "psql",
        "template1",
        SUPERUSER,
        &["-qX", "-v", "ON_ERROR_STOP=1", "--file", &at("dump")],
    ))
    .unwrap();
    let mut e = superuser(&elsewhere);
    let text = summary(&mut e);
    assert!(text.starts_with("valid: ") && text.contains(&format!("inherited {entries} of")), "{text}");
    assert_eq!(held_against(&mut e, &[note]), Vec::<String>::new());
    assert_eq!(coverage(&mut e), coverage(&mut s), "privileges on the database came with --create");
    assert_alive(&mut e, &mut session(&elsewhere, "app"));
    // The old key is not here, and nobody vouches for the new one: the pin of the old life says so.
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let (_, found) = e.verify(&format!("pin => '{pin}'"));
    assert!(!found.is_empty() && found.iter().all(|f| f.starts_with("key_not_valid")), "{found:?}");
    assert_eq!(e.verify(&format!("pin => (SELECT string_agg(fingerprint, ' ') FROM custody.signing_key WHERE fingerprint = '{pin}' OR incarnation = (SELECT incarnation FROM custody.instance))")), ("valid".into(), vec![]));
}
