//! The guard: what it refuses, when, and what it leaves alone; with event triggers alone, and with the library preloaded.

use std::sync::{Arc, Mutex};

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Db, Session, installation, state, words};
use postgres::NoTls;

/// A cluster of its own, with the library preloaded, and a session on a database with the clinic.
struct Preloaded {
    cluster: Cluster,
}

impl Preloaded {
    fn new() -> Self {
        let settings = ["shared_preload_libraries = 'pg_custody'", "max_prepared_transactions = 5", "fsync = off"];
        let made = Self { cluster: Cluster::temporary(&installation(), &settings).unwrap() };
        clinic(&mut made.session(SUPERUSER), "postgres", "");
        made
    }

    fn session(&self, user: &str) -> Session {
        Session(self.cluster.connect("postgres", user).unwrap())
    }
}

/// The clinic, with tables owned by a role of its own that may create more, and a constrained login role.
fn clinic(s: &mut Session, database: &str, prefix: &str) {
    s.batch(&format!(
        "CREATE EXTENSION IF NOT EXISTS pg_custody; REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
         CREATE ROLE {prefix}owner LOGIN; CREATE ROLE {prefix}other; CREATE ROLE {prefix}app LOGIN IN ROLE custody_app;
         CREATE SCHEMA clinic AUTHORIZATION {prefix}owner; GRANT CREATE, TEMPORARY ON DATABASE {database} TO {prefix}owner; GRANT {prefix}other TO {prefix}owner;
         GRANT CREATE ON SCHEMA clinic TO {prefix}other;
         GRANT USAGE ON SCHEMA clinic TO {prefix}app;
         SET ROLE {prefix}owner;
         CREATE TABLE clinic.patients (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id));
         CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, note text) PARTITION BY LIST (id); CREATE TABLE clinic.visits_1 PARTITION OF clinic.visits FOR VALUES IN (1);
         CREATE TABLE clinic.plain (tenant_id text, id int);
         CREATE TABLE clinic.codes (code text);
         GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients, clinic.visits TO {prefix}app;
         RESET ROLE;
         SELECT custody.protect('clinic.patients'), custody.protect('clinic.visits'), custody.audit('clinic.patients'), custody.register_shared('clinic.codes', 'codes');
         SELECT custody.allow_assume('{prefix}app', '{{a,b}}');
         INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')"
    ));
}

/// A database with the clinic, of the cluster that preloads nothing.
fn plain() -> Db {
    let db = Db::new();
    clinic(&mut db.superuser(), &db.name, &format!("{}_", db.name));
    db
}

/// All that is wrong, as the guard sees it.
fn findings(s: &mut Session) -> String {
    s.one("SELECT custody.guard_findings(true) || custody.guard_findings(false)")
}

/// What an owner, or whoever runs migrations, can say that weakens a protected table: each is refused when the command ends.
const WEAKENING: [&str; 22] = [
    "ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE clinic.patients NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE clinic.visits_1 NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY custody_floor ON clinic.patients",
    "DROP POLICY custody_tenant ON clinic.patients",
    "DROP POLICY custody_floor ON clinic.visits_1",
    "ALTER POLICY custody_floor ON clinic.patients USING (true)",
    "ALTER POLICY custody_floor ON clinic.patients TO CURRENT_USER",
    "ALTER POLICY custody_floor ON clinic.patients WITH CHECK (true)",
    "ALTER POLICY custody_floor ON clinic.patients RENAME TO f",
    "ALTER POLICY custody_tenant ON clinic.patients USING (true)",
    "DROP TRIGGER \"!custody_require_context\" ON clinic.patients",
    "DROP TRIGGER \"!custody_capture\" ON clinic.patients",
    "ALTER TRIGGER \"!custody_capture\" ON clinic.patients RENAME TO mine",
    "ALTER TABLE clinic.patients DISABLE TRIGGER \"!custody_truncate\"",
    "ALTER TABLE clinic.patients ENABLE REPLICA TRIGGER \"!custody_capture\"",
    "ALTER TABLE clinic.patients DISABLE TRIGGER USER",
    "ALTER TABLE clinic.patients DROP COLUMN tenant_id CASCADE",
    "ALTER TABLE clinic.visits ALTER tenant_id DROP NOT NULL",
    "ALTER TABLE clinic.patients SET UNLOGGED",
    "DO $$ BEGIN ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY; END $$",
    "BEGIN; ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY; ALTER TABLE clinic.patients ENABLE ROW LEVEL SECURITY; COMMIT",
];

/// What is judged before the transaction commits.
const LEAVING: [&str; 17] = [
    "CREATE TABLE clinic.t (id int)",
    "CREATE TABLE clinic.t (tenant_id text, id int)",
    "CREATE TABLE clinic.t AS SELECT * FROM clinic.plain",
    "SELECT * INTO clinic.t FROM clinic.plain",
    "CREATE TABLE clinic.t (LIKE clinic.patients INCLUDING ALL)",
    "CREATE UNLOGGED TABLE clinic.t (tenant_id text)",
    "CREATE SCHEMA s2 CREATE TABLE t (id int)",
    "DO $$ BEGIN EXECUTE 'CREATE TABLE clinic.t (id int)'; END $$",
    "GRANT TRUNCATE ON clinic.patients TO custody_app",
    "GRANT TRIGGER ON clinic.patients TO PUBLIC",
    "GRANT ALL ON clinic.patients TO custody_app",
    "GRANT INSERT ON clinic.codes TO custody_app",
    "CREATE TABLE clinic.t () INHERITS (clinic.codes); GRANT SELECT ON clinic.t TO custody_app",
    "CREATE MATERIALIZED VIEW clinic.m AS SELECT * FROM clinic.plain; GRANT SELECT ON clinic.m TO custody_app",
    "CREATE VIEW clinic.v AS SELECT * FROM clinic.plain; GRANT SELECT ON clinic.v TO custody_app",
    "GRANT CREATE ON SCHEMA clinic TO custody_app",
    "CREATE POLICY open ON clinic.plain USING (true); ALTER TABLE clinic.patients ADD CONSTRAINT c CHECK (id > 0); CREATE TABLE clinic.t (id int)",
];

fn attack(s: &mut Session, judge: &mut Session, statements: &[&str]) {
    let before = findings(judge);
    for statement in statements {
        assert_eq!(s.fails(statement), "UC062", "{statement}");
        // What BEGIN began.
        s.batch("ROLLBACK");
    }
    assert_eq!(findings(judge), before);
}

#[test]
fn what_leaves_a_table_without_isolation_is_refused() {
    let db = plain();
    let mut s = db.superuser();
    // Off until somebody says otherwise.
    assert_eq!(s.one::<String>("SELECT custody.guard_mode()"), "off");
    s.batch("BEGIN; CREATE TABLE clinic.t (id int); ALTER TABLE clinic.patients NO FORCE ROW LEVEL SECURITY; ROLLBACK");
    let watched: String = s.one("SELECT custody.guard('reject')");
    assert!(watched.contains("not preloaded") && watched.contains("TRUNCATE"), "{watched}");
    let owner = format!("{}_owner", db.name);
    attack(&mut db.session(&owner), &mut s, &WEAKENING);
    attack(&mut db.session(&owner), &mut s, &LEAVING);
    attack(&mut db.superuser(), &mut s, &WEAKENING[..6]);
    attack(&mut db.superuser(), &mut s, &LEAVING[..6]);
    // Triggers that replication switches off are not ours.
    let mut replica = db.superuser();
    replica.batch("SET session_replication_role = replica");
    attack(&mut replica, &mut s, &WEAKENING[..2]);
    attack(&mut replica, &mut s, &LEAVING[..2]);
    // Caught by an exception block, it is not done either.
    let before = findings(&mut s);
    s.batch("DO $$ BEGIN BEGIN ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY; EXCEPTION WHEN OTHERS THEN NULL; END; END $$");
    assert_eq!(findings(&mut s), before);
    // The finding and the fix are told.
    let error = s.0.batch_execute("CREATE TABLE clinic.t (tenant_id text)").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.message().contains("clinic.t") && error.message().contains("CU001"), "{error:?}");
    assert!(error.hint().unwrap().contains("custody.protect('clinic.t', 'tenant_id')"), "{error:?}");
    // Prepared transactions are judged when they are prepared.
    assert_eq!(s.fails("BEGIN; CREATE TABLE clinic.t (id int); PREPARE TRANSACTION 'x'"), "UC062");
    s.batch("ROLLBACK");
    s.assert_valid();
}

#[test]
fn a_transaction_is_judged_by_what_it_leaves() {
    let db = plain();
    let mut s = db.superuser();
    s.batch("SELECT custody.guard('reject')");
    for good in [
        "BEGIN; CREATE TABLE clinic.t1 (tenant_id text, id int); SELECT custody.protect('clinic.t1'); COMMIT",
        "BEGIN; CREATE TABLE clinic.t2 (code text); SELECT custody.register_shared('clinic.t2', 'codes'); COMMIT",
        // Closed to constrained roles: another way not to be without isolation.
        "BEGIN; CREATE TABLE clinic.t3 (id int); ALTER TABLE clinic.t3 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; COMMIT",
        "BEGIN; CREATE TABLE clinic.t4 (id int); DROP TABLE clinic.t4; COMMIT",
        "BEGIN; SAVEPOINT a; CREATE TABLE clinic.t5 (id int); ROLLBACK TO a; COMMIT",
        "CREATE TABLE clinic.visits_2 PARTITION OF clinic.visits FOR VALUES IN (2)",
        "CREATE TABLE clinic.child () INHERITS (clinic.t1)",
        "CREATE TEMP TABLE t6 (id int); ALTER TABLE t6 ADD j int; DROP TABLE t6",
        "CREATE TEMP TABLE t6 ON COMMIT DROP AS SELECT 1 AS x",
        "CREATE VIEW clinic.v WITH (security_invoker = on) AS SELECT * FROM clinic.patients; GRANT SELECT ON clinic.v TO custody_app",
        "BEGIN; CREATE FUNCTION clinic.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; REVOKE EXECUTE ON FUNCTION clinic.f() FROM PUBLIC; COMMIT",
        "ALTER TABLE clinic.patients ADD note text; ALTER TABLE clinic.patients RENAME name TO full_name; CREATE INDEX ON clinic.patients (full_name)",
        "ALTER SCHEMA clinic RENAME TO clinics; ALTER SCHEMA clinics RENAME TO clinic",
        "ALTER TABLE clinic.patients RENAME tenant_id TO org; ALTER TABLE clinic.patients RENAME org TO tenant_id",
        "BEGIN; SELECT custody.unprotect('clinic.patients'); SELECT custody.protect('clinic.patients'); COMMIT",
        "CREATE EXTENSION pgcrypto",
        "DROP TABLE clinic.visits",
    ] {
        s.batch(good);
    }
    // A child has no policies of its own: that is said, and refused once somebody may read it.
    assert_eq!(s.fails("GRANT SELECT ON clinic.child TO custody_app"), "UC062");
    assert_eq!(s.fails("SELECT custody.unprotect('clinic.patients')"), "UC062");
    assert_eq!(s.fails("CREATE FUNCTION clinic.g() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"), "UC062");
    assert_eq!(s.fails("DROP VIEW clinic.v; CREATE VIEW clinic.v AS SELECT * FROM clinic.patients; ALTER VIEW clinic.v OWNER TO postgres; GRANT SELECT ON clinic.v TO custody_app"), "UC062");
    s.assert_valid();
}

#[test]
fn what_was_bad_before_is_not_in_the_way() {
    let db = plain();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE clinic.bad (id int); GRANT SELECT ON clinic.bad TO custody_app; SELECT custody.guard('reject')",
    );
    // Other changes of it, and mending it step by step, each a transaction.
    for step in [
        "ALTER TABLE clinic.bad ADD more int",
        "ALTER TABLE clinic.bad ADD tenant_id text",
        "ALTER TABLE clinic.bad ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE clinic.bad FORCE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON clinic.bad USING (tenant_id = custody.tenant())",
        "ALTER TABLE clinic.plain ENABLE ROW LEVEL SECURITY",
    ] {
        s.batch(step);
    }
    // What is mended stays so; and a bad table gives no leave for what else is bad.
    assert_eq!(s.fails("ALTER TABLE clinic.bad NO FORCE ROW LEVEL SECURITY"), "UC062");
    assert_eq!(s.fails("GRANT TRUNCATE ON clinic.plain TO custody_app"), "UC062");
    // A protected table that was broken while the guard was off can be put right by hand.
    for step in [
        "SELECT custody.guard('off'); ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        "SELECT custody.guard('reject')",
        "ALTER TABLE clinic.patients ADD other int",
    ] {
        s.batch(step);
    }
    s.batch("ALTER TABLE clinic.patients ENABLE ROW LEVEL SECURITY");
    s.batch("ALTER TABLE clinic.patients FORCE ROW LEVEL SECURITY");
    assert_eq!(s.fails("ALTER TABLE clinic.patients NO FORCE ROW LEVEL SECURITY"), "UC062");
}

#[test]
fn warn_says_what_reject_would_refuse() {
    let db = plain();
    let mut s = db.superuser();
    s.batch("SELECT custody.guard('warn')");
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = said.clone();
    let mut config = db.cluster.config(&db.name, SUPERUSER);
    config.notice_callback(move |n| into.lock().unwrap().push(format!("{}: {}", n.severity(), n.message())));
    let mut client = Session(config.connect(NoTls).unwrap());
    for statement in WEAKENING.iter().chain(&LEAVING) {
        // In a transaction of its own, so that the next begins with all in place; what is judged at COMMIT needs one.
        let (statement, ends) = match LEAVING.contains(statement) && !statement.starts_with("GRANT ALL") {
            true => (format!("BEGIN; {statement}; PREPARE TRANSACTION 'guard_warns'"), true),
            false => (format!("BEGIN; {}", statement.replace("BEGIN; ", "").replace("; COMMIT", "")), false),
        };
        client.batch(&statement);
        client.batch(if ends { "ROLLBACK PREPARED 'guard_warns'" } else { "ROLLBACK" });
        let said = std::mem::take(&mut *said.lock().unwrap());
        let expected = ends || statement.contains("patients") || statement.contains("visits");
        let warned = said.iter().any(|m| m.starts_with("WARNING") && m.contains("the guard would refuse"));
        assert!(warned || !expected || statement.contains("GRANT ALL"), "{statement}: {said:?}");
    }
    client.batch("CREATE TABLE clinic.t (id int)");
    assert!(said.lock().unwrap().iter().any(|m| m.contains("clinic.t") && m.contains("CU001")));
}

#[test]
fn protect_takes_new_tables_in_at_once() {
    let db = plain();
    let mut s = db.superuser();
    let app = format!("{}_app", db.name);
    s.batch("SELECT custody.guard('protect')");
    let mut owner = db.session(&format!("{}_owner", db.name));
    owner.batch(
        "CREATE TABLE clinic.n01 (tenant_id text, id int, PRIMARY KEY (tenant_id, id));
         CREATE TABLE clinic.n02 AS SELECT 'a'::text AS tenant_id, 1 AS id;
         SELECT 'a'::text AS tenant_id, 1 AS id INTO clinic.n03;
         CREATE TABLE clinic.n04 (tenant_id uuid NOT NULL, id int) PARTITION BY LIST (id);
         CREATE TABLE clinic.n05 PARTITION OF clinic.n04 FOR VALUES IN (1);
         CREATE TABLE clinic.n06 (LIKE clinic.n01 INCLUDING ALL);
         CREATE TABLE clinic.n07 () INHERITS (clinic.n01);
         DO $$ BEGIN CREATE TABLE clinic.n08 (tenant_id bigint); EXECUTE 'CREATE TABLE clinic.n09 AS SELECT 1::smallint AS tenant_id'; END $$;
         CREATE SCHEMA n CREATE TABLE n10 (tenant_id varchar(10), id int) CREATE TABLE n11 (tenant_id int)",
    );
    // Columns that come later: at once, or when they are filled.
    s.batch("SELECT custody.guard('off'); CREATE TABLE clinic.n12 (id int); CREATE TABLE clinic.n13 (id int); INSERT INTO clinic.n13 VALUES (1); CREATE TABLE clinic.n14 (org text);
             CREATE TABLE clinic.n15 (id int) PARTITION BY LIST (id); CREATE TABLE clinic.n16 PARTITION OF clinic.n15 FOR VALUES IN (1);
             CREATE TABLE clinic.n17 (id int); CREATE TABLE clinic.n18 () INHERITS (clinic.n17);
             SELECT custody.guard('protect');
             ALTER TABLE clinic.n12 ADD tenant_id text;
             ALTER TABLE clinic.n13 ADD tenant_id text; UPDATE clinic.n13 SET tenant_id = 'a'; ALTER TABLE clinic.n13 ALTER tenant_id SET NOT NULL;
             ALTER TABLE clinic.n14 RENAME org TO tenant_id;
             ALTER TABLE clinic.n15 ADD tenant_id text; ALTER TABLE clinic.n17 ADD tenant_id text");
    let missing = s.rows(
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relname ~ '^n\\d\\d$'
           AND (NOT EXISTS (SELECT FROM custody.registered_table r WHERE r.target = c.oid AND r.kind = 'protected')
                OR NOT EXISTS (SELECT FROM custody.audited_member m WHERE m.relid = c.oid))",
        &[],
    );
    assert_eq!(missing.iter().map(|r| r.get(0)).collect::<Vec<String>>(), [""; 0]);
    assert_eq!(s.count("pg_class WHERE relkind IN ('r', 'p') AND relname ~ '^n\\d\\d$'"), 18);
    assert_eq!(s.one::<String>("SELECT custody.guard_findings(false)"), "[]");
    s.assert_valid();
    owner.batch(&format!("GRANT SELECT, INSERT ON clinic.n02 TO {app}"));
    let mut app = db.session(&app);
    assert_eq!(app.count("clinic.n02"), 0, "no context, no rows");
    app.as_tenant("b", "INSERT INTO clinic.n02 (id) VALUES (2)");
    assert_eq!(s.count("custody.log WHERE table_name = 'n02' AND op = 'INSERT'"), 1);
    // No tenant column: shared in the same transaction, or not at all. No unlogged, no NULLs, no type that no context fits.
    for (bad, code) in [
        ("CREATE TABLE clinic.x (id int)", "UC062"),
        ("CREATE UNLOGGED TABLE clinic.x (tenant_id text)", "UC032"),
        ("CREATE TABLE clinic.x AS SELECT NULL::text AS tenant_id", "23502"),
        ("CREATE TABLE clinic.x (tenant_id bytea)", "UC020"),
    ] {
        assert_eq!(s.fails(bad), code, "{bad}");
    }
    s.batch("BEGIN; CREATE TABLE clinic.x (id int); SELECT custody.register_shared('clinic.x', 'x'); COMMIT");
    // Another column, and no audit; a table with policies of its own is left to its owner.
    s.batch("SELECT custody.guard('protect', 'org', audit => false); CREATE TABLE clinic.y (org text); CREATE TEMP TABLE t (org text)");
    assert_eq!(s.count("custody.registered_table WHERE target = 'clinic.y'::regclass AND tenant_column = 'org'"), 1);
    assert_eq!(s.count("custody.audited_table WHERE target = 'clinic.y'::regclass"), 0);
    s.assert_valid();
}

#[test]
fn the_mode_is_the_administrators_and_is_recorded() {
    let db = plain();
    let mut s = db.superuser();
    for user in ["app", "owner"] {
        let mut plain = db.session(&format!("{}_{user}", db.name));
        assert_eq!(plain.fails("SELECT custody.guard('off')"), "42501");
        assert_eq!(plain.fails("SELECT custody.guard_mode()"), "42501");
        assert_eq!(plain.fails("SELECT custody.guard_findings(true)"), "42501");
        assert_eq!(plain.fails("UPDATE custody.guard_setting SET mode = 'off'"), "42501");
        assert_eq!(plain.fails("DELETE FROM custody.guard_armed"), "42501");
    }
    for bad in ["'on'", "NULL", "'reject', NULL", "'reject', ''", "'reject', 'x', NULL"] {
        assert_eq!(s.fails(&format!("SELECT custody.guard({bad})")), "UC013", "{bad}");
    }
    let owner = format!("{}_owner", db.name);
    s.batch(&format!("GRANT custody_admin TO {owner}"));
    let mut admin = db.session(&owner);
    admin.batch("SELECT custody.guard('reject')");
    // A session that has looked already, and one that has not.
    for session in [&mut s, &mut db.superuser()] {
        assert_eq!(session.fails("CREATE TABLE clinic.t (id int)"), "UC062");
    }
    admin.batch("SELECT custody.guard('off')");
    s.batch("CREATE TABLE clinic.t (id int)");
    let seen: Vec<String> = s
        .rows("SELECT new ->> 'mode' FROM custody.log WHERE table_name = 'guard_setting' ORDER BY lsn, ordinal", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert_eq!(seen, ["reject", "off"]);
    // A mode that is rolled back was never there.
    s.batch("BEGIN; SELECT custody.guard('reject'); ROLLBACK; CREATE TABLE clinic.t2 (id int)");
    s.assert_valid();
}

#[test]
fn preloaded_it_hears_of_what_event_triggers_do_not() {
    let made = Preloaded::new();
    let mut s = made.session(SUPERUSER);
    let watched: String = s.one("SELECT custody.guard('reject')");
    assert!(watched.contains("is preloaded"), "{watched}");
    s.batch("ALTER ROLE owner CREATEROLE; CREATE ROLE keeper BYPASSRLS");
    let before = findings(&mut s);
    let roles = [
        "ALTER ROLE app BYPASSRLS",
        "ALTER ROLE app SUPERUSER",
        "ALTER ROLE app CREATEROLE",
        "ALTER ROLE app REPLICATION",
        "CREATE ROLE x BYPASSRLS IN ROLE custody_app",
        "GRANT owner TO app",
        "GRANT keeper TO custody_app",
        "GRANT pg_read_server_files TO app",
        "GRANT app TO custody_app",
        "GRANT custody_app TO keeper",
        "GRANT custody_admin TO app",
        "GRANT SET ON PARAMETER session_replication_role TO app",
        "GRANT ALTER SYSTEM ON PARAMETER work_mem TO app",
        "GRANT CREATE ON DATABASE postgres TO app",
        "ALTER DATABASE postgres OWNER TO app",
        "REASSIGN OWNED BY owner TO app",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE app BYPASSRLS'; END $$",
        "ALTER EVENT TRIGGER custody_ddl DISABLE",
        "ALTER EVENT TRIGGER custody_guard_ddl DISABLE",
        "ALTER EVENT TRIGGER custody_guard_drop ENABLE REPLICA",
        "ALTER EVENT TRIGGER custody_drop RENAME TO x",
    ];
    // Judged when the command ends: what would be done under such a role in the same transaction is not done.
    for statement in roles {
        match s.0.batch_execute(statement) {
            Err(e) if state(&e) == "UC062" => {}
            // PostgreSQL has its own word on some.
            Err(e) => {
                assert!(statement == "GRANT app TO custody_app" && state(&e) == "0LP01", "{statement}: {}", words(&e))
            }
            Ok(()) => panic!("{statement} was not refused"),
        }
    }
    assert_eq!(findings(&mut s), before);
    for statement in [
        "SET session_replication_role = replica",
        "SET LOCAL session_replication_role TO local",
        "ALTER SYSTEM SET session_replication_role = replica",
        "ALTER SYSTEM SET shared_preload_libraries = ''",
        "ALTER SYSTEM RESET shared_preload_libraries",
        "ALTER SYSTEM RESET ALL",
        "ALTER ROLE app SET session_replication_role = replica",
        "ALTER DATABASE postgres SET session_preload_libraries = ''",
        "ALTER SCHEMA custody RENAME TO x",
        "DROP SCHEMA custody CASCADE",
        "DROP EXTENSION pg_custody CASCADE",
    ] {
        assert_eq!(s.fails(statement), "UC063", "{statement}");
    }
    assert_eq!(findings(&mut s), before);
    // TRUNCATE, by whatever way it comes to the table: for those whom row-level security binds.
    let mut owner = made.session("owner");
    for statement in [
        "TRUNCATE clinic.patients",
        "TRUNCATE clinic.plain, clinic.patients",
        "TRUNCATE clinic.visits_1",
        "TRUNCATE clinic.visits CASCADE",
    ] {
        assert_eq!(owner.fails(statement), "UC063", "{statement}");
    }
    owner.batch("TRUNCATE clinic.plain");
    s.batch("SET session_replication_role = origin; RESET session_replication_role; ALTER ROLE app SET work_mem = '5MB'; ALTER ROLE owner VALID UNTIL 'infinity';
             CREATE ROLE harmless; GRANT harmless TO owner; DROP ROLE harmless; BEGIN; TRUNCATE clinic.patients; ROLLBACK");
    // Everything that event triggers hear of is heard of here as well, once.
    attack(&mut made.session("owner"), &mut s, &WEAKENING[..8]);
    attack(&mut made.session("owner"), &mut s, &LEAVING[..8]);
    s.batch("SELECT custody.guard('warn'); ALTER ROLE app CREATEROLE; ALTER ROLE app NOCREATEROLE; SET session_replication_role = replica; RESET session_replication_role");
    made.session("owner").batch("TRUNCATE clinic.patients");
    s.assert_valid();
    // In transactions of their own: what was recorded is written at COMMIT.
    s.batch("SELECT custody.guard('off')");
    s.batch("SET custody.drop_log = on");
    s.batch("DROP EXTENSION pg_custody CASCADE");
    s.batch("CREATE TABLE clinic.t (id int); CREATE EXTENSION pg_custody");
    s.batch("SELECT custody.guard('reject')");
    assert_eq!(s.fails("CREATE TABLE clinic.t2 (id int)"), "UC062");
}

#[test]
fn two_transactions_cannot_each_be_right_and_both_together_wrong() {
    let made = Preloaded::new();
    let mut s = made.session(SUPERUSER);
    s.batch("SELECT custody.guard('reject'); REVOKE CREATE ON SCHEMA clinic FROM other");
    // A member that owns nothing, and a table that is given to it.
    let (mut a, mut b) = (made.session(SUPERUSER), made.session(SUPERUSER));
    a.batch("BEGIN; GRANT other TO app");
    b.batch("BEGIN; ALTER TABLE clinic.codes OWNER TO other; COMMIT");
    assert_eq!(a.fails("COMMIT"), "UC062");
    s.batch("ALTER TABLE clinic.codes OWNER TO owner");
    for _ in 0..10 {
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let other = barrier.clone();
        a.batch("BEGIN; GRANT other TO app");
        b.batch("BEGIN; ALTER TABLE clinic.codes OWNER TO other");
        let (first, second) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                other.wait();
                a.0.batch_execute("COMMIT").is_ok()
            });
            barrier.wait();
            (b.0.batch_execute("COMMIT").is_ok(), thread.join().unwrap())
        });
        assert!(first ^ second, "one of the two, and not both");
        s.batch("REVOKE other FROM app; ALTER TABLE clinic.codes OWNER TO owner");
    }
}

#[test]
fn a_dump_is_restored_with_the_guard_off_until_it_is_turned_on() {
    let made = Preloaded::new();
    let mut s = made.session(SUPERUSER);
    s.batch("SELECT custody.guard('protect', 'tenant_id', audit => true); CREATE TABLE clinic.late (tenant_id text, id int); INSERT INTO clinic.late VALUES ('a', 1)");
    s.batch("CREATE DATABASE restored");
    let client = |program: &str, database: &str, arguments: &[&str]| {
        must(&mut made.cluster.client(program, database, SUPERUSER, arguments)).map(|o| o.stdout)
    };
    let file = std::env::temp_dir().join(format!("guard-{}.dump", std::process::id())).display().to_string();
    client("pg_dump", "postgres", &["--format=custom", "--file", &file]).unwrap();
    client("pg_restore", "restored", &["--exit-on-error", "--dbname=restored", &file]).unwrap();
    let mut r = Session(made.cluster.connect("restored", SUPERUSER).unwrap());
    assert_eq!(r.one::<String>("SELECT custody.guard_mode()"), "off");
    r.batch("CREATE TABLE clinic.t (id int); DROP TABLE clinic.t");
    // As it was, when the administrator says so.
    r.batch("SELECT custody.guard(mode, tenant_column, audit) FROM custody.guard_setting");
    assert_eq!(r.one::<String>("SELECT custody.guard_mode()"), "protect");
    assert_eq!(r.fails("CREATE TABLE clinic.t (id int)"), "UC062");
    assert_eq!(r.one::<String>("SELECT custody.guard_findings(false)"), "[]");
    assert_eq!(r.count("clinic.late") + r.count("clinic.patients"), 3);
    r.assert_valid();
    // A copy within the cluster has it on, as it is whole at once.
    drop(r);
    drop(s);
    let mut other = Session(made.cluster.connect("template1", SUPERUSER).unwrap());
    // Sessions that have just ended may still be seen for a moment.
    let copied = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        other.0.batch_execute("CREATE DATABASE copy TEMPLATE restored").is_ok()
    });
    assert!(copied);
    let mut c = Session(made.cluster.connect("copy", SUPERUSER).unwrap());
    assert_eq!(c.one::<String>("SELECT custody.guard_mode()"), "protect");
    // Tables restored into a database with the guard on: all or nothing, in one transaction, with their protection.
    let tables = std::env::temp_dir().join(format!("guard-tables-{}.sql", std::process::id())).display().to_string();
    client("pg_dump", "restored", &["--table=clinic.late", "--file", &tables]).unwrap();
    c.batch("DROP TABLE clinic.late; SELECT custody.guard('reject')");
    let stopped = client("psql", "copy", &["-v", "ON_ERROR_STOP=1", "--file", &tables]).unwrap_err();
    assert!(stopped.to_string().contains("the guard refuses"), "{stopped}");
    assert!(c.one::<bool>("SELECT to_regclass('clinic.late') IS NULL"));
    client("psql", "copy", &["-v", "ON_ERROR_STOP=1", "--single-transaction", "--file", &tables]).unwrap();
    c.batch("SELECT custody.protect('clinic.late'), custody.audit('clinic.late')");
    assert_eq!(c.count("clinic.late"), 1);
    assert_eq!(c.one::<String>("SELECT custody.guard_findings(false)"), "[]");
    c.assert_valid();
    for file in [file, tables] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn the_renamed_schema_stops_all_ddl_until_it_is_renamed_back() {
    let db = plain();
    let mut s = db.superuser();
    // Whatever the mode, and in a session that has never used pg_custody.
    assert_eq!(s.fails("ALTER SCHEMA custody RENAME TO c"), "UC064");
    s.batch("ALTER EVENT TRIGGER custody_guard_ddl DISABLE; ALTER EVENT TRIGGER custody_ddl DISABLE; ALTER SCHEMA custody RENAME TO c; ALTER EVENT TRIGGER custody_guard_ddl ENABLE ALWAYS");
    assert_eq!(db.superuser().fails("CREATE TABLE clinic.t (id int)"), "UC064");
    s.batch("ALTER SCHEMA c RENAME TO custody; ALTER EVENT TRIGGER custody_ddl ENABLE ALWAYS; CREATE TABLE clinic.t (id int)");
}

#[test]
fn what_docs_guard_says_works() {
    let db = plain();
    let mut s = db.superuser();
    let text = include_str!("../../docs/guard.md");
    let blocks: Vec<&str> = text.split("```sql\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        match block.strip_prefix("-- refused: ") {
            Some(block) => {
                let (code, sql) = block.split_once('\n').unwrap();
                assert_eq!(s.fails(sql), code.trim(), "{sql}");
                let _ = s.0.batch_execute("ROLLBACK");
            }
            None => s.batch(block),
        }
    }
    s.assert_valid();
}

/// A policy is read under locks on the tables that it names. Whoever changes that table commits first, whatever waits for it.
#[test]
fn who_waits_for_a_table_at_commit_holds_nobody_up() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE named (id int);
         CREATE TABLE own (tenant_id text); ALTER TABLE own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON own USING (tenant_id = custody.tenant() AND 1 NOT IN (SELECT id FROM named));
         SELECT custody.guard('reject')",
    );
    let mut holder = db.superuser();
    holder.batch("BEGIN; ALTER TABLE named ADD more int");
    let mut waiter = db.superuser();
    let waits = std::thread::spawn(move || {
        waiter
            .0
            .batch_execute("CREATE FUNCTION nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            .map_err(|e| state(&e))
    });
    let begun = std::time::Instant::now();
    while s.count("pg_locks WHERE NOT granted AND relation = 'named'::regclass") == 0 {
        assert!(begun.elapsed().as_secs() < 20, "nobody waits for the table");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let outcome = holder.0.batch_execute("COMMIT").map_err(|e| state(&e));
    assert_eq!((outcome, waits.join().unwrap()), (Ok(()), Ok(())));
}
