//! What reviewers broke, each kept broken no more.

use std::time::Duration;

use custody_tests::{Db, now, state, token, token_key};
use serde_json::json;

#[test]
fn a_life_begun_in_a_savepoint_that_is_rolled_back_never_was() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("BEGIN; SAVEPOINT s; SELECT custody.new_incarnation('x'); ROLLBACK TO s; INSERT INTO clinic.patients VALUES ('a', 1); COMMIT");
    s.assert_valid();
    // A copy notices itself at its first entry, wherever that is.
    drop(s);
    let mut c = db.copy();
    c.batch("BEGIN; SAVEPOINT s; INSERT INTO clinic.patients VALUES ('a', 2); ROLLBACK TO s; INSERT INTO clinic.patients VALUES ('a', 3); COMMIT");
    c.assert_valid();
    assert_eq!(c.count("custody.incarnation"), 2);
    c.batch("BEGIN; SELECT custody.new_incarnation('y')");
    assert_eq!(c.fails("PREPARE TRANSACTION 'life'"), "UC036");
}

#[test]
fn renamed_columns_neither_leak_nor_lose_their_tenant() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE pii (id int PRIMARY KEY, ssn text, card text); SELECT custody.audit('pii', exclude => '{ssn}', redact => '{card}');
         ALTER TABLE pii RENAME ssn TO social",
    );
    assert_eq!(s.fails("INSERT INTO pii VALUES (1, 'secret', 'secret')"), "UC032");
    s.batch("SELECT custody.audit('pii', exclude => '{social}', redact => '{card}'); INSERT INTO pii VALUES (1, 'secret', 'secret')");
    s.batch("ALTER TABLE pii DROP COLUMN social; INSERT INTO pii VALUES (2, 'secret')");
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 0);
    // The policy follows the tenant column; so does the log.
    s.batch("ALTER TABLE clinic.patients RENAME tenant_id TO org_id; INSERT INTO clinic.patients (org_id, id) VALUES ('b', 7)");
    assert_eq!(s.one::<String>("SELECT tenant FROM custody.log WHERE table_name = 'patients' AND op = 'INSERT'"), "b");
    s.batch("ALTER TABLE clinic.patients ADD tenant_id text; INSERT INTO clinic.patients (org_id, id, tenant_id) VALUES ('b', 8, 'a')");
    assert_eq!(s.count("custody.log WHERE tenant = 'a'"), 0);
    s.batch("SELECT custody.unprotect('clinic.patients')");
    s.assert_valid();
}

#[test]
fn unprotect_takes_back_what_was_done_to_this_table_whatever_it_is_called_now() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE orders (tenant_id text, id int); SELECT count(*) FROM custody.protect('orders'); ALTER TABLE orders RENAME TO old_orders;
         CREATE TABLE orders (tenant_id text, id int); SELECT count(*) FROM custody.protect('orders'); SELECT custody.unprotect('old_orders');
         CREATE TABLE \"do.t\" (tenant_id text, id int); SELECT count(*) FROM custody.protect('\"do.t\"'); SELECT custody.unprotect('\"do.t\"')",
    );
    let protected = s
        .rows("SELECT relname::text FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace", &[]);
    assert_eq!(protected.iter().map(|r| r.get(0)).collect::<Vec<String>>(), ["orders"]);
}

#[test]
fn inheritance_children_and_unlogged_tables_are_gaps() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE pa (id int PRIMARY KEY); CREATE TABLE ch () INHERITS (pa)");
    assert_eq!(s.fails("SELECT custody.audit('pa')"), "UC032");
    s.batch("SELECT custody.audit('ch'); SELECT custody.audit('pa'); INSERT INTO ch VALUES (1); UPDATE pa SET id = 2");
    assert_eq!(s.count("custody.log WHERE table_name = 'ch' AND op <> 'SHAPE'"), 2);
    s.assert_valid();
    s.batch("CREATE TABLE late () INHERITS (pa)");
    assert_eq!(s.verify("").0, "invalid", "a child that is not audited");
    let other = Db::new();
    let mut s = other.superuser();
    s.batch("CREATE TABLE t (id int); SELECT custody.audit('t'); ALTER TABLE t SET UNLOGGED");
    assert_eq!(s.verify("").0, "invalid", "unlogged");
}

#[test]
fn partitions_in_the_middle_record_and_detached_ones_go_free() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE r (id int, k int) PARTITION BY LIST (k); CREATE TABLE m PARTITION OF r FOR VALUES IN (1, 2) PARTITION BY LIST (k);
         CREATE TABLE l1 PARTITION OF m FOR VALUES IN (1); SELECT custody.audit('m'); INSERT INTO m VALUES (1, 1);
         ALTER TABLE m DETACH PARTITION l1; INSERT INTO l1 VALUES (2, 1); TRUNCATE l1",
    );
    let seen: Vec<String> = s.rows("SELECT op || ' ' || table_name FROM custody.log WHERE op <> 'DDL' AND table_name NOT LIKE '%\\_table' AND op <> 'INCARNATION'", &[]).iter().map(|r| r.get(0)).collect();
    // How it began, and that a partition left.
    assert_eq!(seen, ["SHAPE m", "INSERT m", "SHAPE m"]);
    s.assert_valid();
}

#[test]
fn an_old_snapshot_sees_no_gap() {
    let db = Db::new();
    let (mut a, mut b) = (db.superuser(), db.superuser());
    b.batch(
        "CREATE TABLE rp (k int) PARTITION BY LIST (k); CREATE TABLE rp1 PARTITION OF rp FOR VALUES IN (1); CREATE TABLE rp2 (k int); SELECT custody.audit('rp')",
    );
    a.batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    b.batch("ALTER TABLE rp ATTACH PARTITION rp2 FOR VALUES IN (2)");
    a.batch("CREATE TABLE zz (a int); COMMIT");
    b.assert_valid();
}

#[test]
fn replacing_what_guards_the_log_shows() {
    let db = Db::clinic();
    let mut s = db.superuser();
    for (how, back) in [
        (
            "CREATE OR REPLACE FUNCTION custody.append_only() RETURNS trigger LANGUAGE plpgsql AS 'begin return coalesce(new, old); end'",
            "CREATE OR REPLACE FUNCTION custody.append_only() RETURNS trigger LANGUAGE c AS '$libdir/pg_custody', 'custody_append_only'",
        ),
        (
            "CREATE OR REPLACE FUNCTION custody.capture() RETURNS trigger LANGUAGE plpgsql AS 'begin return null; end'",
            "CREATE OR REPLACE FUNCTION custody.capture() RETURNS trigger LANGUAGE c AS '$libdir/pg_custody', 'custody_capture'",
        ),
        (
            "ALTER TABLE custody.role_binding DISABLE TRIGGER ALL",
            "ALTER TABLE custody.role_binding ENABLE ALWAYS TRIGGER \"!custody_capture\", ENABLE ALWAYS TRIGGER \"!custody_truncate\"",
        ),
    ] {
        let before = s.count("custody.entry WHERE op IN ('GUARD_OFF', 'CAPTURE_OFF')");
        s.batch(how);
        assert_eq!(s.verify("").0, "invalid", "{how}");
        s.batch(back);
        assert!(s.count("custody.entry WHERE op IN ('GUARD_OFF', 'CAPTURE_OFF')") > before, "{how} left a trace");
    }
    // The log swapped for another table of its name: refused, as it could not be recorded; with nobody watching, seen for ever after.
    let other = Db::clinic();
    let mut s = other.superuser();
    assert_eq!(s.fails("ALTER TABLE custody.entry RENAME TO entry_old"), "UC090");
    s.batch(
        "ALTER EVENT TRIGGER custody_ddl DISABLE; ALTER TABLE custody.entry RENAME TO entry_old;
         CREATE TABLE custody.entry (LIKE custody.entry_old INCLUDING ALL); INSERT INTO custody.entry SELECT * FROM custody.entry_old;
         ALTER EVENT TRIGGER custody_ddl ENABLE ALWAYS",
    );
    let (verdict, found) = s.verify("");
    assert!(verdict == "invalid" && found.contains(&"guard_lifted".to_owned()), "{found:?}");
}

#[test]
fn the_log_survives_a_column_of_the_dbas() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("ALTER TABLE custody.entry ADD mine int; INSERT INTO clinic.patients VALUES ('a', 1); ALTER TABLE custody.entry DROP mine; INSERT INTO clinic.patients VALUES ('a', 2)");
    s.assert_valid();
}

#[test]
fn deferrable_keys_have_a_history() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE dp (id int PRIMARY KEY DEFERRABLE, v text); SELECT custody.audit('dp'); INSERT INTO dp VALUES (1, 'x'); UPDATE dp SET v = 'y'");
    assert_eq!(s.rows("SELECT * FROM custody.history('dp', '{\"id\": 1}')", &[]).len(), 2);
}

#[test]
fn capture_functions_refuse_what_is_not_theirs() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE pt (id int) PARTITION BY LIST (id); CREATE TABLE pt1 PARTITION OF pt FOR VALUES IN (1); SELECT custody.audit('pt');
         CREATE TRIGGER evil BEFORE TRUNCATE ON pt FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate()",
    );
    assert_eq!(s.fails("TRUNCATE pt"), "UC030");
    s.batch("DROP TRIGGER evil ON pt; CREATE TRIGGER twice AFTER INSERT ON pt1 FOR EACH ROW EXECUTE FUNCTION custody.capture()");
    assert_eq!(s.fails("INSERT INTO pt VALUES (1)"), "UC030");
}

#[test]
fn a_terminated_session_leaves_no_lock_behind() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients SELECT 'a', i, 'x' FROM generate_series(1, 60000) i");
    for _ in 0..3 {
        let mut victim = db.app();
        let pid: i32 = victim.one("SELECT pg_backend_pid()");
        let killer = {
            let mut s = db.superuser();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(400));
                s.batch(&format!("SELECT pg_terminate_backend({pid})"));
            })
        };
        let ended = victim.0.batch_execute(
            "BEGIN; SELECT custody.assume_tenant('a');
             DO $$ BEGIN LOOP BEGIN UPDATE clinic.patients SET notes = notes || 'y'; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
        );
        assert!(ended.is_err());
        killer.join().unwrap();
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            s.one::<i64>(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == 0
        });
        assert!(gone);
        s.batch("SET lock_timeout = '3s'; BEGIN; LOCK TABLE clinic.patients, custody.entry IN ACCESS EXCLUSIVE MODE; COMMIT");
    }
    s.assert_valid();
}

#[test]
fn nothing_read_under_a_context_outlives_it() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "INSERT INTO clinic.patients VALUES ('a', 1); GRANT TEMPORARY ON DATABASE {} TO {}",
        db.name,
        db.app_name()
    ));
    let mut app = db.app();
    for left in [
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients",
        "CREATE TEMP TABLE t AS SELECT * FROM clinic.patients",
        "SELECT * INTO TEMP t FROM clinic.patients",
        "CREATE TEMP TABLE t (x int) ON COMMIT PRESERVE ROWS",
    ] {
        assert_eq!(app.fails(&format!("BEGIN; SELECT custody.assume_tenant('a'); {left}")), "UC007", "{left}");
        app.batch("ROLLBACK");
    }
    app.as_tenant("a", "DECLARE c CURSOR FOR SELECT * FROM clinic.patients; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT * FROM clinic.patients");
}

#[test]
fn the_log_stays_readable_whatever_a_tenant_writes() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let public = token_key().verifying_key().to_bytes().to_vec();
    s.0.execute(
        "SELECT custody.add_token_key('k', $1, 'x', not_before => '-infinity', not_after => 'infinity')",
        &[&public],
    )
    .unwrap();
    let mut app = db.app();
    for claims in
        [json!({"tenant": "a\0b"}), json!({"tenant": "a", "sub": "\0"}), json!({"tenant": "a", "name": "x\0"})]
    {
        let mut claims = claims;
        claims["aud"] = json!("x");
        claims["exp"] = json!(now() + 60);
        let error =
            app.0.execute("SELECT custody.authenticate($1)", &[&token(&token_key(), "k", &claims)]).unwrap_err();
        assert_eq!(state(&error), "UC004");
    }
    app.as_tenant("a", "INSERT INTO clinic.patients (id, notes) VALUES (1, repeat('x', 268435456)), (2, 'short')");
    assert_eq!(s.count("custody.log WHERE table_name = 'patients' AND (new IS NULL OR new ->> 'notes' = 'short')"), 2);
    assert_eq!(s.fails("INSERT INTO clinic.patients VALUES ('a', 3, 'x', NULL, repeat(E'\\x01', 180000000))"), "UC035");
    s.assert_valid();
}

#[test]
fn a_restored_log_can_be_pinned_to_both_lives() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let old: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let key: String = s
        .one("SELECT current_setting('data_directory') || '/pg_custody/' || key_id || '.key' FROM custody.signing_key");
    std::fs::remove_file(key).unwrap();
    let mut s = db.superuser();
    s.batch("SELECT custody.new_incarnation('key lost'); INSERT INTO clinic.patients VALUES ('a', 1)");
    let new: String = s.one("SELECT fingerprint FROM custody.signing_key ORDER BY created_at DESC LIMIT 1");
    assert_eq!(s.verify(&format!("pin => '{old}'")).0, "invalid");
    assert_eq!(s.verify(&format!("pin => '{old} {new}'")).0, "valid");
}
