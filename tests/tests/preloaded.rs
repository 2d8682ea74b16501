//! The library in shared_preload_libraries: the floor that no policy takes away, tables that lost their protection, other
//! libraries' hooks, and databases that have nothing to do with it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Session, installation};

const PRELOAD: &str = "shared_preload_libraries = 'pg_custody'";

fn cluster(settings: &[&str]) -> Cluster {
    let mut all = vec!["fsync = off"];
    all.extend(settings);
    Cluster::temporary(&installation(), &all).unwrap()
}

fn session(cluster: &Cluster, user: &str) -> Session {
    Session(cluster.connect("postgres", user).unwrap())
}

/// One table for each type that a tenant column can have, a view and a partitioned one, and a login role that may assume tenants 1 and 2.
fn tables(s: &mut Session) {
    s.batch(
        "CREATE EXTENSION pg_custody; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC;
         CREATE ROLE owner LOGIN IN ROLE custody_app; CREATE ROLE app LOGIN IN ROLE custody_app; CREATE ROLE free LOGIN BYPASSRLS;
         GRANT pg_read_all_data TO free;
         CREATE TABLE t_text (tenant_id text, id int, PRIMARY KEY (tenant_id, id)); CREATE TABLE t_varchar (tenant_id varchar(8), id int);
         CREATE TABLE t_int2 (tenant_id smallint, id int); CREATE TABLE t_int4 (tenant_id int, id int); CREATE TABLE t_int8 (tenant_id bigint, id int);
         CREATE TABLE t_c (tenant_id text COLLATE \"C\", id int);
         CREATE TABLE t_part (tenant_id text NOT NULL, id int) PARTITION BY LIST (id); CREATE TABLE t_part1 PARTITION OF t_part FOR VALUES IN (1, 2, 3);
         SELECT custody.allow_assume('app', '{1,2}');
         DO $$ DECLARE t regclass; BEGIN
           FOR t IN SELECT oid FROM pg_class WHERE relname ~ '^t_' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY relname LOOP
             EXECUTE format('ALTER TABLE %s OWNER TO owner', t);
             PERFORM custody.protect(t);
             EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO app', t);
             IF t::text <> 't_part1' THEN EXECUTE format('INSERT INTO %s VALUES (1, 1), (2, 2)', t); END IF;
           END LOOP;
         END $$",
    );
}

const TABLES: [&str; 8] = ["t_text", "t_varchar", "t_int2", "t_int4", "t_int8", "t_c", "t_part", "t_part1"];

#[test]
fn no_policy_added_or_dropped_widens_access() {
    for preload in [false, true] {
        let cluster = cluster(if preload { &[PRELOAD] } else { &[] });
        let mut s = session(&cluster, SUPERUSER);
        tables(&mut s);
        let mut kept = session(&cluster, "app");
        if preload {
            kept.batch("PREPARE q AS SELECT count(*) FROM t_text");
            for _ in 0..6 {
                kept.batch("EXECUTE q");
            }
        }
        for table in TABLES {
            s.batch(&format!(
                "DROP POLICY custody_floor ON {table}; DROP POLICY custody_tenant ON {table}; CREATE POLICY open ON {table} USING (true) WITH CHECK (true)"
            ));
        }
        for table in TABLES {
            // A fresh session, which has not loaded the library by another way.
            let mut app = session(&cluster, "app");
            let seen = app.count(table);
            if !preload {
                // The attack itself is real.
                assert_eq!(seen, 2, "{table}");
                continue;
            }
            assert_eq!(seen, 0, "{table}: no context, no rows");
            app.batch("BEGIN; SELECT custody.assume_tenant('1')");
            assert_eq!(app.one::<i64>(&format!("SELECT sum(id) FROM {table}")), 1, "{table}");
            assert_eq!(app.rows(&format!("UPDATE {table} SET id = id RETURNING 1"), &[]).len(), 1, "{table}");
            app.batch(&format!("INSERT INTO {table} VALUES (1, 3); SAVEPOINT s"));
            assert_eq!(app.fails(&format!("INSERT INTO {table} VALUES (2, 3)")), "42501", "{table}");
            app.batch("ROLLBACK TO s");
            assert_eq!(app.fails(&format!("UPDATE {table} SET tenant_id = 2")), "42501", "{table}");
            app.batch("ROLLBACK");
            // The owner is bound as well, and the superuser and BYPASSRLS are not.
            assert_eq!(session(&cluster, "owner").count(table), 0, "{table}");
            assert_eq!((s.count(table), session(&cluster, "free").count(table)), (2, 2), "{table}");
        }
        if preload {
            assert_eq!(kept.one::<i64>("EXECUTE q"), 0, "a plan of before");
        }
    }
}

#[test]
fn the_floor_is_tested_once() {
    let cluster = cluster(&[PRELOAD]);
    let mut s = session(&cluster, SUPERUSER);
    tables(&mut s);
    let mut app = session(&cluster, "app");
    for table in TABLES {
        let plan: Vec<String> =
            app.rows(&format!("EXPLAIN (COSTS OFF) SELECT * FROM {table}"), &[]).iter().map(|r| r.get(0)).collect();
        let tests = plan.join("\n").matches("custody.tenant").count();
        assert_eq!(tests, 1, "{table}: {plan:#?}");
    }
}

#[test]
fn a_registered_table_that_lost_its_protection_is_refused() {
    let cluster = cluster(&[PRELOAD]);
    let mut s = session(&cluster, SUPERUSER);
    tables(&mut s);
    s.batch("CREATE VIEW v AS SELECT * FROM t_text; ALTER VIEW v OWNER TO owner; GRANT SELECT ON v TO app; CREATE TABLE ref (tenant_id text, id int, FOREIGN KEY (tenant_id, id) REFERENCES t_text)");
    let (mut app, mut owner, mut free) =
        (session(&cluster, "app"), session(&cluster, "owner"), session(&cluster, "free"));
    app.batch("PREPARE q AS SELECT count(*) FROM t_text; EXECUTE q");
    assert_eq!((app.count("t_text"), owner.count("t_text")), (0, 0));
    for broken in ["NO FORCE", "DISABLE"] {
        s.batch(&format!(
            "ALTER TABLE t_text {broken} ROW LEVEL SECURITY; ALTER TABLE t_part1 {broken} ROW LEVEL SECURITY"
        ));
        for user in [&mut app, &mut owner] {
            for statement in [
                "SELECT FROM t_text",
                "SELECT 1 WHERE EXISTS (SELECT FROM t_text)",
                "INSERT INTO t_text VALUES ('1', 5)",
                "UPDATE t_text SET id = 7",
                "DELETE FROM t_text",
                "MERGE INTO t_text t USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
                "COPY t_text TO STDOUT",
                "COPY t_text FROM STDIN",
                "SELECT id FROM t_part1",
                "DO $$ BEGIN PERFORM count(*) FROM t_text; END $$",
            ] {
                assert_eq!(user.fails(statement), "UC060", "{broken}: {statement}");
            }
            // Another table, and the parent with all in place, as ever.
            assert_eq!((user.count("t_int4"), user.count("t_part")), (0, 0));
        }
        assert_eq!(app.fails("EXECUTE q"), "UC060");
        assert_eq!(app.fails("SELECT FROM v"), "UC060", "by way of its owner");
        // Those whom row-level security does not bind.
        assert_eq!((s.count("t_text"), free.count("t_text")), (2, 2));
        assert_eq!(s.fails("SELECT FROM v"), "UC060", "a view asks as its owner");
        s.batch("ALTER TABLE t_text ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; ALTER TABLE t_part1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY");
        assert_eq!((app.count("t_text"), owner.count("t_part1"), app.count("v")), (0, 0, 0));
    }
    // No more once it is unregistered: then it is the owner's business.
    s.batch("SELECT custody.unprotect('t_int4')");
    assert_eq!(app.count("t_int4"), 2);
    // A floor that cannot be made is no floor that is forgotten.
    s.batch("ALTER TABLE t_int8 DROP COLUMN tenant_id CASCADE");
    assert_eq!((app.fails("SELECT FROM t_int8"), owner.fails("DELETE FROM t_int8")), ("UC061".into(), "UC061".into()));
    s.count("t_int8");
}

#[test]
fn databases_without_the_extension_notice_nothing() {
    let cluster = cluster(&[PRELOAD]);
    let mut s = session(&cluster, SUPERUSER);
    let ordinary = "CREATE TABLE t (tenant_id text, id int); INSERT INTO t VALUES ('a', 1), ('b', 2);
        CREATE ROLE someone LOGIN; GRANT SELECT, TRUNCATE ON t TO someone; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON t USING (tenant_id = current_setting('my.tenant', true));
        ALTER ROLE someone BYPASSRLS; ALTER ROLE someone NOBYPASSRLS; SET session_replication_role = replica; RESET session_replication_role;
        CREATE SCHEMA custody; ALTER SCHEMA custody RENAME TO other; ALTER SCHEMA other RENAME TO custody; DROP SCHEMA custody";
    s.batch(ordinary);
    for alone in [
        "ALTER SYSTEM SET work_mem = '5MB'",
        "ALTER SYSTEM RESET session_preload_libraries",
        "VACUUM t",
        "BEGIN; TRUNCATE t; ROLLBACK",
    ] {
        s.batch(alone);
    }
    let mut someone = session(&cluster, "someone");
    someone.batch("SET my.tenant = 'a'");
    assert_eq!(someone.count("t"), 1);
    someone.batch("TRUNCATE t");
    // It comes and goes in a running server; sessions that were there before see both.
    for _ in 0..2 {
        s.batch("CREATE EXTENSION pg_custody; INSERT INTO t VALUES ('a', 1); SELECT custody.protect('t'); GRANT custody_app TO someone; DROP POLICY p ON t");
        s.batch("SELECT custody.guard('reject')");
        assert_eq!(someone.count("t"), 0);
        assert_eq!(someone.fails("TRUNCATE t"), "UC063");
        s.assert_valid();
        s.batch("SELECT custody.guard('off'), custody.unprotect('t')");
        s.batch("DROP EXTENSION pg_custody; CREATE POLICY p ON t USING (true); ALTER TABLE t ENABLE ROW LEVEL SECURITY; INSERT INTO t VALUES ('a', 1)");
        assert!(someone.count("t") > 0);
        s.batch("CREATE TABLE more (id int); DROP TABLE more");
        someone.batch("TRUNCATE t");
    }
    // Dropped with its tables still registered: nothing is left in force.
    s.batch("CREATE EXTENSION pg_custody; SELECT custody.protect('t'); ALTER TABLE t DISABLE ROW LEVEL SECURITY");
    assert_eq!(someone.fails("SELECT FROM t"), "UC060");
    s.batch("DROP EXTENSION pg_custody CASCADE");
    assert_eq!(someone.count("t"), 0);
    // The tables that the hooks keep an eye on are read in databases of the same sessions' server only.
    s.batch("CREATE DATABASE elsewhere");
    Session(cluster.connect("elsewhere", SUPERUSER).unwrap())
        .batch(&ordinary.replace("CREATE ROLE someone LOGIN;", ""));
}

#[test]
fn a_dump_is_restored_into_a_preloaded_server() {
    let cluster = cluster(&[PRELOAD]);
    let mut s = session(&cluster, SUPERUSER);
    tables(&mut s);
    s.batch("SELECT custody.audit('t_text'); INSERT INTO t_text VALUES ('1', 9)");
    s.batch("CREATE DATABASE restored");
    let file = std::env::temp_dir().join(format!("preloaded-{}.dump", std::process::id())).display().to_string();
    must(&mut cluster.client("pg_dump", "postgres", SUPERUSER, &["--format=custom", "--file", &file])).unwrap();
    must(&mut cluster.client("pg_restore", "restored", SUPERUSER, &["--exit-on-error", "--dbname=restored", &file]))
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let restored = |user: &str| Session(cluster.connect("restored", user).unwrap());
    let mut app = restored("app");
    app.batch("BEGIN; SELECT custody.assume_tenant('1')");
    assert_eq!(app.count("t_text"), 2);
    app.batch("COMMIT");
    restored(SUPERUSER).batch("DROP POLICY custody_floor ON t_text; CREATE POLICY open ON t_text USING (true)");
    assert_eq!(restored("app").count("t_text"), 0);
    restored(SUPERUSER).assert_valid();
}

#[test]
fn session_preload_is_enough() {
    let cluster = cluster(&["session_preload_libraries = 'pg_custody'"]);
    let mut s = session(&cluster, SUPERUSER);
    tables(&mut s);
    let watched: String = s.one("SELECT custody.guard('reject')");
    assert!(watched.contains("is preloaded"), "{watched}");
    s.batch("SELECT custody.guard('off'); DROP POLICY custody_floor ON t_text; CREATE POLICY open ON t_text USING (true); ALTER TABLE t_int4 DISABLE ROW LEVEL SECURITY");
    let mut app = session(&cluster, "app");
    assert_eq!(app.count("t_text"), 0);
    assert_eq!(session(&cluster, "app").fails("SELECT FROM t_int4"), "UC060");
    s.batch("SELECT custody.guard('reject')");
    assert_eq!(session(&cluster, SUPERUSER).fails("ALTER ROLE app BYPASSRLS"), "UC062");
}

#[test]
fn pgaudit_is_called_as_before_in_either_order() {
    // As the bench does: Debian's package, put into the stage.
    let pg_config = "/usr/lib/postgresql/15/bin/pg_config";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stage = std::env::var_os("CUSTODY_STAGE").map_or_else(|| root.join("target/stage"), Into::into);
    must(Command::new(root.join("tools/rivals")).arg(pg_config).arg(&stage)).unwrap();
    for order in ["pgaudit, pg_custody", "pg_custody, pgaudit"] {
        let preload = format!("shared_preload_libraries = '{order}'");
        let cluster =
            cluster(&[&preload, "pgaudit.log = 'all, -misc'", "pgaudit.role = 'auditor'", "pgaudit.log_relation = on"]);
        let mut s = session(&cluster, SUPERUSER);
        s.batch("CREATE EXTENSION pgaudit; CREATE ROLE auditor");
        tables(&mut s);
        s.batch("GRANT SELECT ON t_text TO auditor; SELECT custody.audit('t_text'), custody.guard('protect'); DROP TABLE t_varchar");
        let mut app = session(&cluster, "app");
        app.as_tenant("1", "SELECT 'marker one', count(*) FROM t_text; INSERT INTO t_text (id) VALUES (77)");
        s.batch("CREATE TABLE newcomer (tenant_id text, id int); ALTER ROLE auditor CONNECTION LIMIT 5");
        assert_eq!(s.fails("ALTER ROLE app BYPASSRLS"), "UC062", "{order}");
        assert_eq!(s.fails("ALTER TABLE t_text DISABLE ROW LEVEL SECURITY"), "UC062", "{order}");
        assert_eq!(s.fails("SET session_replication_role = replica"), "UC063", "{order}");
        s.batch("SELECT custody.guard('off'); ALTER TABLE t_text DISABLE ROW LEVEL SECURITY; DROP POLICY custody_floor ON t_int4; CREATE POLICY open ON t_int4 USING (true)");
        assert_eq!(app.fails("SELECT FROM t_text"), "UC060", "{order}");
        assert_eq!(app.count("t_int4"), 0, "{order}");
        s.batch("BEGIN; SELECT custody.guard('reject'); TRUNCATE t_int4; ROLLBACK");
        s.assert_valid();
        let log = std::fs::read_to_string(cluster.socket().join("log")).unwrap();
        let audited =
            |words: &[&str]| log.lines().any(|l| l.contains("AUDIT: ") && words.iter().all(|w| l.contains(w)));
        for words in [
            &["OBJECT", "READ,SELECT", "public.t_text", "marker one"][..],
            &["WRITE,INSERT", "public.t_text"],
            &["DDL,CREATE TABLE", "public.newcomer"],
            &["ROLE,ALTER ROLE", "CONNECTION LIMIT"],
            &["DDL,DROP TABLE", "public.t_varchar"],
            &["WRITE,TRUNCATE TABLE", "t_int4"],
        ] {
            assert!(audited(words), "{order}: pgaudit did not log {words:?}");
        }
        assert!(!log.contains("PANIC") && !log.contains("terminated by signal") && !log.contains("UC099"), "{order}");
    }
}

#[test]
fn look_ups_are_remembered_and_forgotten() {
    let cluster = cluster(&[PRELOAD]);
    let mut s = session(&cluster, SUPERUSER);
    tables(&mut s);
    s.batch(
        "CREATE TABLE plain (tenant_id text, id int); GRANT SELECT ON plain TO app; INSERT INTO plain VALUES ('1', 1)",
    );
    let mut app = session(&cluster, "app");
    // Registered, unregistered and registered again while a session looks on.
    for _ in 0..3 {
        assert_eq!(app.count("plain"), 1);
        s.batch("SELECT custody.protect('plain'); ALTER TABLE plain NO FORCE ROW LEVEL SECURITY");
        assert_eq!(app.fails("SELECT FROM plain"), "UC060");
        s.batch("SELECT custody.unprotect('plain')");
    }
    // Within a transaction, and rolled back.
    s.batch("BEGIN; SELECT custody.protect('plain'); SET ROLE app");
    assert_eq!(s.count("plain"), 0);
    s.batch("ROLLBACK");
    assert_eq!((s.count("plain"), app.count("plain")), (1, 1));
    // Many tables, looked up once each: what comes after the first look is quick.
    let query = "SELECT count(*) FROM plain";
    app.count("plain");
    let begun = Instant::now();
    for _ in 0..1000 {
        app.0.query_one(query, &[]).unwrap();
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

/// Where the extension is not installed, anyone who may create a schema can make one called custody. Nobody may believe it: not the
/// workers, which are superusers, and not a superuser's session.
#[test]
fn a_schema_of_that_name_is_not_the_extension() {
    let cluster = cluster(&[PRELOAD, "custody.checkpoint_interval = 1", "max_worker_processes = 16"]);
    let mut s = session(&cluster, SUPERUSER);
    s.batch("CREATE ROLE mallory LOGIN CREATEDB");
    session(&cluster, "mallory").batch("CREATE DATABASE hers");
    let mut mallory = Session(cluster.connect("hers", "mallory").unwrap());
    mallory.batch(
        "CREATE SCHEMA custody; CREATE TABLE custody.verifications (); CREATE TABLE custody.entry ();
         CREATE TABLE custody.registered_table (target regclass PRIMARY KEY, kind text, tenant_column name);
         CREATE TABLE custody.guard_armed (only_row boolean PRIMARY KEY); INSERT INTO custody.guard_armed VALUES (true);
         CREATE TABLE custody.guard_setting (only_row boolean PRIMARY KEY, mode text, tenant_column name, audit boolean, set_at timestamptz);
         INSERT INTO custody.guard_setting VALUES (true, 'reject', 'tenant_id', true, now());
         CREATE SEQUENCE called;
         CREATE FUNCTION own() RETURNS bigint LANGUAGE plpgsql AS $$
           BEGIN PERFORM nextval('public.called'); ALTER ROLE mallory SUPERUSER; RETURN 1; END $$;
         CREATE FUNCTION custody.checkpoint_begin() RETURNS bigint LANGUAGE sql AS 'SELECT public.own()';
         CREATE FUNCTION custody.checkpoint_leaf() RETURNS bigint LANGUAGE sql AS 'SELECT public.own()';
         CREATE FUNCTION custody.checkpoint_sign() RETURNS bigint LANGUAGE sql AS 'SELECT public.own()';
         CREATE FUNCTION custody.verification_due(text) RETURNS boolean LANGUAGE sql AS 'SELECT public.own() = 1';
         CREATE FUNCTION custody.run_verification() RETURNS bigint LANGUAGE sql AS 'SELECT public.own()';
         CREATE FUNCTION custody.guard_findings(boolean) RETURNS text LANGUAGE sql AS 'SELECT public.own()::text'",
    );
    let mut there = Session(cluster.connect("hers", SUPERUSER).unwrap());
    there.batch(
        "CREATE ROLE nobody; DROP ROLE nobody; SET session_replication_role = replica; RESET session_replication_role",
    );
    there.batch("CREATE TABLE t (tenant_id text); BEGIN; TRUNCATE t; SELECT * FROM t; COMMIT");
    std::thread::sleep(Duration::from_secs(4));
    assert!(!s.one::<bool>("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"), "mallory became a superuser");
    assert!(!there.one::<bool>("SELECT is_called FROM public.called"), "her functions were called for others");
    // And the extension cannot be installed over it.
    assert_eq!(there.fails("CREATE EXTENSION pg_custody"), "42P06");
}

/// A checkpoint prints policies, for which PostgreSQL locks the tables that they name: who may lock one holds up no other database.
#[test]
fn a_lock_in_one_database_holds_up_no_others_checkpoints() {
    let cluster = cluster(&[PRELOAD, "custody.checkpoint_interval = 1", "max_worker_processes = 16"]);
    let mut s = session(&cluster, SUPERUSER);
    s.batch("CREATE DATABASE other");
    s.batch("CREATE EXTENSION pg_custody");
    let mut other = Session(cluster.connect("other", SUPERUSER).unwrap());
    other.batch(
        "CREATE EXTENSION pg_custody; CREATE TABLE named (id int); CREATE TABLE t (tenant_id text, id int); SELECT custody.protect('t');
         CREATE POLICY sub ON t AS RESTRICTIVE USING (id NOT IN (SELECT id FROM named)); CREATE ROLE app LOGIN IN ROLE custody_app; GRANT UPDATE ON named TO app",
    );
    let mut app = Session(cluster.connect("other", "app").unwrap());
    app.batch("BEGIN; LOCK TABLE named IN ACCESS EXCLUSIVE MODE");
    let before = s.count("custody.checkpoint_leaf");
    let begun = Instant::now();
    // Those that were under way may still be made.
    while s.count("custody.checkpoint_leaf") < before + 3 {
        assert!(begun.elapsed() < Duration::from_secs(40), "no checkpoint is made\n{}", cluster.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
}
