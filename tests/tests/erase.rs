//! Promise A6: personal data goes out of the log, the chain stays whole, and the log says what went. Whoever takes it out by himself is found.

use std::fs;
use std::path::Path;
use std::process::Command;

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::checker::checker;
use custody_tests::{Db, Session, installation};

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/custody");
const LIFT: &str =
    "ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\", DISABLE TRIGGER \"!custody_foreign_only\"";
const GUARD: &str = "ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\"";

/// Tenant a's chain: 1 to 3 one run, 4 and 5 a run each. Row 1 has entries 1 and 4.
fn history() -> (Db, Session) {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('a', 2, 'Al'), ('a', 3, 'Ann')");
    s.batch("UPDATE clinic.patients SET name = 'Ada L' WHERE id = 1");
    s.batch("INSERT INTO clinic.patients VALUES ('b', 1, 'Bo')");
    s.batch("DELETE FROM clinic.patients WHERE id = 2");
    s.assert_valid();
    (db, s)
}

fn erase(tenant: &str, id: i32) -> String {
    format!(
        "SELECT * FROM custody.erase('{tenant}', 'clinic.patients', '{{\"tenant_id\": \"{tenant}\", \"id\": {id}}}', 'asked for')"
    )
}

/// What verification says: here, by the independent checker, and by the tool, each of its own accord.
fn all_verify(s: &mut Session) -> Vec<String> {
    let (verdict, found) = s.verify("");
    assert_eq!(verdict, if found.is_empty() { "valid" } else { "invalid" });
    assert_eq!(checker(s, None), found, "the independent checker");
    let export: Vec<String> = s.rows("SELECT custody.export_log()", &[]).iter().map(|r| r.get(0)).collect();
    let file =
        std::env::temp_dir().join(format!("erase-{}-{:?}.jsonl", std::process::id(), std::thread::current().id()));
    fs::write(&file, export.join("\n") + "\n").unwrap();
    let output = Command::new(TOOL)
        .args(["verify", "--unpinned", "--json"])
        .arg(&file)
        .output()
        .expect("cargo build --release --package custody-cli makes it");
    fs::remove_file(&file).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut told: Vec<String> = said["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{} {}/{}", f["verdict"].as_str().unwrap(), f["tenant"].as_str().unwrap(), f["seq"]))
        .collect();
    told.sort();
    assert_eq!(told, found, "the tool");
    found
}

fn rows(s: &mut Session, sql: &str) -> Vec<(String, String, Option<i64>, String)> {
    s.rows(sql, &[]).iter().map(|r| (r.get(0), r.get(1), r.get(2), r.get(3))).collect()
}

#[test]
fn what_was_erased_is_gone_and_the_log_says_so_and_is_valid() {
    let (db, mut s) = history();
    let heads: String = s.one("SELECT jsonb_agg(h)::text FROM custody.heads() h");
    s.batch("CALL custody.checkpoint()");
    let proof: String = s.one("SELECT custody.tenant_proof('a')::text");
    let told = rows(&mut s, &erase("a", 1));
    assert_eq!((told[0].0.as_str(), told[0].2), ("erased", Some(2)), "{told:?}");
    for object in [
        "clinic.patients",
        "files of clinic.patients",
        "custody.entry's files",
        "WAL",
        "backups",
        "exports",
        "standbys",
        "server log",
    ] {
        assert!(told[1..].iter().any(|r| r.0 == "not reached" && r.1 == object), "{object}: {told:?}");
    }
    assert!(!told.iter().any(|r| r.1 == "transactions in progress"), "{told:?}");
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
    assert_eq!(s.verify(&format!("heads => '{heads}'")), ("valid".into(), vec![]));
    assert_eq!(s.verify("tenant => 'a'"), ("valid".into(), vec![]));
    assert_eq!(s.one::<String>("SELECT custody.tenant_proof('a')::text"), proof);
    let summary: String = s.one("SELECT detail FROM custody.verify() LIMIT 1");
    assert!(summary.contains("2 parts of entries were erased"), "{summary}");

    // Only that row, only its part; who changed it and when stays.
    let left = "SELECT string_agg(format('%s %s %s', seq, op, (row_salt, row_key, old, new) IS NULL), ', ' ORDER BY seq) FROM custody.entry WHERE tenant = 'a'";
    assert_eq!(s.one::<String>(left), "1 INSERT t, 2 INSERT f, 3 INSERT f, 4 UPDATE t, 5 DELETE f, 6 ERASE f");
    assert_eq!(s.count("custody.log WHERE tenant = 'a' AND erased"), 2);
    assert_eq!(
        s.one::<i32>(
            "SELECT count(*)::int FROM custody.log WHERE erased AND (new, old, row_key, changed, key_hash) IS NULL"
        ),
        2
    );
    assert_eq!(
        s.count("custody.log WHERE erased AND login_role IS NOT NULL AND subject IS NULL AND signed_at IS NOT NULL"),
        2
    );
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}')"), 0);
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 2}')"), 2);
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"b\", \"id\": 1}')"), 1);
    let entry: serde_json::Value = s.one("SELECT to_jsonb(l) FROM custody.log l WHERE op = 'ERASE'");
    assert_eq!(
        (entry["tenant"].as_str(), entry["table_name"].as_str(), entry["row_key"].is_null()),
        (Some("a"), Some("patients"), true)
    );
    assert_eq!(entry["new"]["reason"], "asked for");
    let life: String = s.one("SELECT id::text FROM custody.incarnation");
    assert_eq!(entry["new"]["entries"], serde_json::json!([[life, 0, 1, 1], [life, 0, 4, 4]]));
    // The tenant sees it, and no other does.
    let mut app = db.app();
    for (tenant, sees) in [("a", "1"), ("b", "0")] {
        assert_eq!(app.last_simple(&format!("BEGIN; SELECT custody.assume_tenant('{tenant}'); SELECT count(*) FROM custody.log WHERE op = 'ERASE'; COMMIT")), sees);
    }
    // The row is still there, and what becomes of it is recorded as before.
    s.batch("DELETE FROM clinic.patients WHERE tenant_id = 'a' AND id = 1");
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}')"), 1);
    let told = rows(&mut s, &erase("a", 1));
    assert!(!told.iter().any(|r| r.1 == "clinic.patients"), "deleted: {told:?}");
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
}

#[test]
fn who_may_and_what_is_refused() {
    let (db, mut s) = history();
    for (role, state) in [("custody_app", "42501"), ("custody_auditor", "42501")] {
        s.batch(&format!("SET ROLE {role}"));
        for call in [erase("a", 1), "SELECT custody.erase_actor('a', 'x', 'y')".into(), "SELECT custody.scrub()".into()]
        {
            assert_eq!(s.fails(&call), state, "{role}: {call}");
        }
        s.batch("RESET ROLE");
    }
    assert_eq!(db.app().fails(&erase("a", 1)), "42501");
    let key = "'{\"tenant_id\": \"a\", \"id\": 1}'";
    for (call, state) in [
        (erase("a", 99), "UC080"),
        (erase("nobody", 1), "UC013"),
        (erase("", 1), "UC080"),
        // Another tenant's row by this tenant's name.
        (format!("SELECT custody.erase('b', 'clinic.patients', {key}, 'x')"), "UC080"),
        (format!("SELECT custody.erase('a', 'clinic.visits', {key}, 'x')"), "UC080"),
        (format!("SELECT custody.erase('a', 'clinic.patients', {key}, ' ')"), "UC013"),
        (format!("SELECT custody.erase('a', 'clinic.patients', {key}, NULL)"), "UC013"),
        ("SELECT custody.erase('a', 'clinic.patients', '{\"id\": 1}', 'x')".into(), "UC013"),
        ("SELECT custody.erase('a', 'clinic.patients', '{\"id\": 1, \"tenant_id\": null}', 'x')".into(), "UC013"),
        ("SELECT custody.erase('a', 'clinic.patients', NULL, 'x')".into(), "UC013"),
        ("SELECT custody.erase('a', NULL, '{}', 'x')".into(), "UC013"),
        (format!("SELECT custody.erase('a', 'clinic.patients', {key}, 'x', '{{patients}}')"), "UC013"),
        (format!("SELECT custody.erase('a', 'clinic.patients', {key}, 'x', '{{NULL}}')"), "UC013"),
        ("SELECT custody.erase('', 'custody.tenants', '{\"id\": \"a\"}', 'x')".into(), "UC081"),
        ("SELECT custody.erase_actor('a', 'nobody', 'x')".into(), "UC080"),
        ("SELECT custody.erase_actor('a', 'nobody', '')".into(), "UC013"),
    ] {
        assert_eq!(s.fails(&call), state, "{call}");
    }
    for how in ["REPEATABLE READ", "SERIALIZABLE", "READ ONLY"] {
        assert_eq!(
            s.fails(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET TRANSACTION {}{how}; {}",
                if how == "READ ONLY" { "" } else { "ISOLATION LEVEL " },
                erase("a", 1)
            )),
            "UC081",
            "{how}"
        );
        s.batch("ROLLBACK");
    }
    s.batch("CREATE TABLE clinic.keyless (tenant_id text, x int); SELECT custody.audit('clinic.keyless')");
    assert_eq!(s.fails("SELECT custody.erase('a', 'clinic.keyless', '{}', 'x')"), "UC081");
    assert_eq!(s.count("custody.entry WHERE op = 'ERASE' OR row_salt IS NULL"), 0);
    // The log stays append-only for whoever has no right to more, before and after.
    s.batch("GRANT USAGE ON SCHEMA clinic TO custody_admin; SET ROLE custody_admin");
    s.batch(&erase("a", 1));
    s.batch("RESET ROLE");
    assert_eq!(s.one::<String>("SELECT acting_role FROM custody.log WHERE op = 'ERASE'"), "custody_admin");
    assert_eq!(s.fails("UPDATE custody.entry SET new = NULL"), "UC031");
    assert_eq!(s.fails(&erase("a", 1)), "UC080", "twice");
    assert_eq!(s.count("custody.log WHERE op = 'GUARD_OFF'"), 0);
    s.assert_valid();
}

#[test]
fn a_part_taken_away_by_anybody_else_is_found() {
    let (_db, mut s) = history();
    s.batch(&erase("a", 1));
    s.batch("CREATE TEMP TABLE original AS SELECT * FROM custody.entry");
    let life: String = s.one("SELECT id::text FROM custody.incarnation");
    let gone = "row_salt = NULL, row_key = NULL, old = NULL, new = NULL";
    // An ERASE of the administrator's own making, appended to the chain as well as he can without the key.
    let forge = |tenant: &str, seq: i32, signed: bool| {
        format!(
            "INSERT INTO custody.entry SELECT (jsonb_populate_record(e, jsonb_build_object('seq', {seq}, 'actor_seq', {seq}, 'xid', '999', 'tenant', '{tenant}', 'signs_run', {signed},
               'key_id', CASE WHEN {signed} THEN e.key_id END, 'signature', CASE WHEN {signed} THEN e.signature END, 'prev_hash', e.hash,
               'new', '{{\"reason\":\"\",\"part\":\"row\",\"entries\":[[\"{life}\",0,2,2]]}}'))).* FROM custody.entry e WHERE e.op = 'ERASE'"
        )
    };
    let attacks: Vec<(&str, String, Vec<&str>)> = vec![
        (
            "without an ERASE",
            format!("UPDATE custody.entry SET {gone} WHERE tenant = 'a' AND seq = 2"),
            vec!["payload_missing a/2"],
        ),
        (
            "the actor of an erased row",
            "UPDATE custody.entry SET actor = NULL, actor_salt = NULL WHERE tenant = 'a' AND seq = 4".into(),
            vec!["payload_missing a/4"],
        ),
        (
            "in another tenant, the same number",
            format!("UPDATE custody.entry SET {gone} WHERE tenant = 'b' AND seq = 1"),
            vec!["payload_missing b/1"],
        ),
        (
            "with an unsigned ERASE",
            format!("UPDATE custody.entry SET {gone} WHERE tenant = 'a' AND seq = 2; {}", forge("a", 7, false)),
            vec!["edited a/7", "payload_missing a/2", "unsigned a/7"],
        ),
        (
            "with an ERASE that has another's signature",
            format!("UPDATE custody.entry SET {gone} WHERE tenant = 'a' AND seq = 2; {}", forge("a", 7, true)),
            vec!["edited a/7", "payload_missing a/2"],
        ),
        (
            "the ERASE names another entry",
            format!(
                "UPDATE custody.entry SET {gone} WHERE tenant = 'a' AND seq = 3; UPDATE custody.entry SET new = replace(new, ',4,4]', ',3,4]') WHERE op = 'ERASE'"
            ),
            vec!["edited a/6", "payload_missing a/1", "payload_missing a/3", "payload_missing a/4"],
        ),
        (
            "the ERASE is gone",
            "DELETE FROM custody.entry WHERE op = 'ERASE'".into(),
            vec!["payload_missing a/1", "payload_missing a/4"],
        ),
        (
            "the ERASE's own part is gone",
            format!("UPDATE custody.entry SET {gone} WHERE op = 'ERASE'"),
            vec!["payload_missing a/1", "payload_missing a/4", "payload_missing a/6"],
        ),
        (
            "the ERASE is another tenant's now",
            "UPDATE custody.entry SET tenant = 'b', seq = 2, actor_seq = 2 WHERE op = 'ERASE'".into(),
            vec!["edited b/2", "payload_missing a/1", "payload_missing a/4"],
        ),
    ];
    for (name, attack, expected) in attacks {
        s.batch(&format!("{LIFT}; {attack}; {GUARD}"));
        assert_eq!(all_verify(&mut s), expected, "{name}");
        s.batch(&format!("{LIFT}; DELETE FROM custody.entry WHERE tenant <> ''; INSERT INTO custody.entry SELECT * FROM original WHERE tenant <> ''; {GUARD}"));
        assert_eq!(all_verify(&mut s), Vec::<String>::new(), "{name}, undone");
    }
}

#[test]
fn what_was_erased_and_is_back_is_found() {
    let (_db, mut s) = history();
    s.batch("CREATE TEMP TABLE before AS SELECT * FROM custody.entry");
    s.batch(&erase("a", 1));
    s.batch(&format!("{LIFT}; UPDATE custody.entry e SET row_salt = b.row_salt, row_key = b.row_key, old = b.old, new = b.new FROM before b WHERE e.tenant = 'a' AND b.tenant = 'a' AND e.seq = b.seq AND e.lane = b.lane; {GUARD}"));
    assert_eq!(all_verify(&mut s), ["erasure_incomplete a/1", "erasure_incomplete a/4"]);
    // Erased again, it is as it should be.
    s.batch(&erase("a", 1));
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
}

#[test]
fn a_row_is_followed_to_other_keys_through_its_own_life_alone() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let entries = "SELECT coalesce(string_agg(row_key, ' ' ORDER BY seq), '') FROM custody.entry WHERE tenant = 'a' AND op <> 'ERASE' AND row_salt IS NOT NULL";
    // Somebody else had the number 5 before, and has it after.
    s.batch("INSERT INTO clinic.patients VALUES ('a', 5, 'other'); DELETE FROM clinic.patients");
    s.batch("INSERT INTO clinic.patients VALUES ('a', 3, 'Ida'); UPDATE clinic.patients SET id = 5; UPDATE clinic.patients SET name = 'Ida B'; UPDATE clinic.patients SET id = 7; UPDATE clinic.patients SET name = 'Ida C'");
    s.batch("INSERT INTO clinic.patients VALUES ('a', 5, 'another')");
    let told = rows(&mut s, &erase("a", 7));
    assert_eq!(told[0].2, Some(7), "{told:?}");
    assert_eq!(s.one::<String>(entries), [r#"{"tenant_id":"a","id":5}"#; 3].join(" "));
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
    // The other way round, from the first key; and to another tenant, whose chain is the other's.
    s.batch("INSERT INTO clinic.patients VALUES ('a', 11, 'Eve'); UPDATE clinic.patients SET id = 12 WHERE id = 11; UPDATE clinic.patients SET tenant_id = 'b' WHERE id = 12");
    let told = rows(&mut s, &erase("a", 11));
    assert_eq!(told[0].2, Some(4), "INSERT, MOVE_OUT, MOVE_IN, MOVE_OUT: {told:?}");
    let other = told.iter().find(|r| r.1 == "tenant \"b\"").expect("the other tenant is named");
    assert_eq!((other.0.as_str(), other.2), ("not reached", Some(1)));
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"b\", \"id\": 12}')"), 1);
    let call = other.3.split_once("SELECT * FROM ").unwrap().1.replace('…', "'asked for'");
    assert_eq!(rows(&mut s, &format!("SELECT * FROM {call}"))[0].2, Some(1));
    assert_eq!(s.count("custody.history('clinic.patients', '{\"tenant_id\": \"b\", \"id\": 12}')"), 0);
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
}

#[test]
fn names_and_partitions_and_other_lives() {
    let (_db, mut s) = history();
    s.batch("ALTER TABLE clinic.patients RENAME TO clients; UPDATE clinic.clients SET name = 'Ada M' WHERE tenant_id = 'a' AND id = 1");
    let call = |more: &str| {
        format!("SELECT * FROM custody.erase('a', 'clinic.clients', '{{\"id\": 1, \"tenant_id\": \"a\"}}', 'x'{more})")
    };
    let told = rows(&mut s, &format!("{} WHERE object = 'clinic.patients'", call("")));
    assert_eq!((told.len(), told[0].2), (1, Some(2)), "{told:?}");
    assert_eq!(rows(&mut s, &call(", former_names => '{clinic.patients}'"))[0].2, Some(2));
    assert_eq!(s.count("custody.entry WHERE new LIKE '%Ada%'"), 0);
    s.batch("CREATE TABLE clinic.parts (id int PRIMARY KEY, x text) PARTITION BY RANGE (id); CREATE TABLE clinic.part1 PARTITION OF clinic.parts FOR VALUES FROM (0) TO (10);
             SELECT custody.register_shared('clinic.parts', 'x'), custody.audit('clinic.parts'); INSERT INTO clinic.parts VALUES (1, 'secret')");
    for (number, what) in [("1", "clinic.part1"), ("2", "clinic.parts")] {
        s.batch(&format!("INSERT INTO clinic.parts VALUES ({number}, 'secret') ON CONFLICT DO NOTHING"));
        s.batch(&format!("SELECT custody.erase('', '{what}', '{{\"id\": {number}}}', 'x')"));
    }
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 0);
    // Entries of the life before, erased in this one.
    s.batch("SELECT custody.new_incarnation('a drill')");
    s.batch(
        "SELECT custody.erase('a', 'clinic.clients', '{\"id\": 3, \"tenant_id\": \"a\"}', 'x', '{clinic.patients}')",
    );
    assert!(s.one::<bool>("SELECT e.incarnation <> o.incarnation FROM custody.entry e, custody.entry o WHERE e.op = 'ERASE' AND e.tenant = 'a' AND o.tenant = 'a' AND o.seq = 3 AND o.row_salt IS NULL AND e.new LIKE '%' || o.incarnation || '%' AND e.seq = 1"));
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
}

#[test]
fn a_subject_is_erased_from_the_entries_in_which_it_acted() {
    let db = Db::clinic();
    let (mut s, mut app) = (db.superuser(), db.app());
    let claims =
        |sub: &str| serde_json::json!({"sub": sub, "aud": "clinic", "exp": custody_tests::now() + 600, "tenant": "a"});
    let key = custody_tests::token_key();
    let public: String = key.verifying_key().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    s.batch(&format!("SELECT custody.add_token_key('k1', '\\x{public}', 'clinic', tenant_claim => 'tenant')"));
    for (id, subject) in [(1, "ada"), (2, "bob"), (3, "ada")] {
        let token = custody_tests::token(&key, "k1", &claims(subject));
        app.batch(&format!("BEGIN; SELECT custody.authenticate('{token}'); INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x'), ({id} + 10, 'y'); COMMIT"));
    }
    assert_eq!(s.count("custody.log WHERE subject = 'ada'"), 4);
    let told = rows(&mut s, "SELECT * FROM custody.erase_actor('a', 'ada', 'asked for')");
    assert_eq!(told[0].2, Some(2), "two transactions: {told:?}");
    assert_eq!(s.count("custody.entry WHERE actor LIKE '%ada%'"), 0);
    assert_eq!(s.count("custody.log WHERE tenant = 'a' AND subject IS NULL AND op = 'INSERT' AND NOT erased"), 4);
    assert_eq!(s.count("custody.log WHERE subject = 'bob'"), 2);
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
    assert_eq!(s.fails("SELECT * FROM custody.erase_actor('a', 'ada', 'asked for')"), "UC080");
    s.batch("SELECT custody.erase('a', 'clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}', 'x')");
    assert_eq!(all_verify(&mut s), Vec::<String>::new());
}

#[test]
fn transactions_savepoints_and_crashes() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let insert = "INSERT INTO clinic.patients VALUES ('a', 1, 'Ada')";
    let there = "SELECT count(*) FROM custody.entry WHERE new LIKE '%Ada%'";
    // What this transaction recorded and nobody has sealed yet.
    s.batch(&format!("BEGIN; {insert}; {}; COMMIT", erase("a", 1)));
    assert_eq!(s.one::<i64>(there), 0);
    s.assert_valid();
    // A savepoint takes its erasure back with it, also what was flushed within it for the level above.
    s.batch(&format!("DELETE FROM clinic.patients; BEGIN; {insert}; SAVEPOINT one; SAVEPOINT two; {}; RELEASE two; ROLLBACK TO one; INSERT INTO clinic.patients VALUES ('a', 2, 'x'); COMMIT", erase("a", 1)));
    assert_eq!(s.one::<i64>(there), 1);
    assert_eq!(s.count("custody.entry WHERE op = 'ERASE'"), 1);
    s.assert_valid();
    s.batch(&format!(
        "BEGIN; SAVEPOINT one; {}; RELEASE one; UPDATE clinic.patients SET name = 'Ada again' WHERE id = 1; COMMIT",
        erase("a", 1)
    ));
    assert_eq!(
        s.one::<String>("SELECT string_agg(new, '') FROM custody.entry WHERE new LIKE '%Ada%'"),
        s.one::<String>("SELECT new FROM custody.entry WHERE tenant = 'a' AND op = 'UPDATE'")
    );
    s.assert_valid();
    s.batch(&format!("BEGIN; {}; ROLLBACK", erase("a", 1)));
    assert_eq!(s.one::<i64>(there), 1);
    s.batch(&format!("DO $$ BEGIN BEGIN PERFORM custody.erase('a', 'clinic.patients', '{{\"tenant_id\": \"a\", \"id\": 1}}', 'x'); RAISE 'no'; EXCEPTION WHEN raise_exception THEN END; END $$; {insert} ON CONFLICT DO NOTHING"));
    assert_eq!(s.one::<i64>(there), 1);
    s.assert_valid();

    // One waits for the other and finds nothing left; a writer of the same row waits for nobody, and is told of.
    let (mut other, mut third) = (db.superuser(), db.superuser());
    let pid: i32 = other.one("SELECT pg_backend_pid()");
    s.batch(&format!("BEGIN; {}", erase("a", 1)));
    let call = erase("a", 1);
    let waiting = std::thread::spawn(move || other.fails(&call));
    while third.one::<i64>(&format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted")) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    third.batch("SET statement_timeout = '10s'; UPDATE clinic.patients SET name = 'Ada third' WHERE id = 1");
    s.batch("COMMIT");
    // READ COMMITTED: the third's entry came to be before the second looked.
    let outcome = waiting.join();
    assert!(outcome.is_err() || outcome.is_ok_and(|state| state == "UC080"));
    third.batch("BEGIN; UPDATE clinic.patients SET name = 'Ada fourth' WHERE id = 1");
    s.batch("INSERT INTO clinic.patients VALUES ('a', 4, 'Vier')");
    let told = rows(&mut s, &erase("a", 4));
    assert!(told.iter().any(|r| r.1 == "transactions in progress" && r.3.starts_with("1 ")), "{told:?}");
    third.batch("COMMIT");
    s.batch("SELECT custody.erase('a', 'clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}', 'x')");
    assert_eq!(s.one::<i64>(there), 0);
    s.assert_valid();
}

#[test]
fn prepared_and_crashed() {
    let cluster = Cluster::temporary(&installation(), &["max_prepared_transactions = 5"]).unwrap();
    let connect = || Session(cluster.connect("postgres", SUPERUSER).unwrap());
    let mut s = connect();
    s.batch(
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY, x text);
         SELECT custody.register_shared('t', 'x'); SELECT custody.audit('t'); INSERT INTO t SELECT g, 'secret' FROM generate_series(1, 300) g",
    );
    let erase = |ids: &str| {
        format!("SELECT custody.erase('', 't', jsonb_build_object('id', g), 'x') FROM generate_series({ids}) g")
    };
    s.batch(&format!("BEGIN; {}; PREPARE TRANSACTION 'one'", erase("1, 100")));
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 300);
    s.assert_valid();
    s.batch(&format!("BEGIN; {}", "UPDATE t SET x = 'public' WHERE id = 200"));
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = connect();
    s.assert_valid();
    s.batch("COMMIT PREPARED 'one'");
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 200);
    s.assert_valid();
    s.batch(&format!("BEGIN; {}", erase("101, 200")));
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = connect();
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 200);
    s.assert_valid();
    s.batch(&erase("101, 200"));
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = connect();
    assert_eq!(s.count("custody.entry WHERE new LIKE '%secret%'"), 100);
    s.assert_valid();
    s.batch("CREATE EXTENSION amcheck");
    assert_eq!(s.count("verify_heapam('custody.entry')"), 0);
    s.batch("SELECT bt_index_parent_check('custody.entry_runs', true); SELECT custody.scrub(); SELECT custody.erase('', 't', jsonb_build_object('id', g), 'x') FROM generate_series(201, 300) g; SELECT custody.scrub()");
    assert_eq!(s.count("verify_heapam('custody.entry')"), 0);
    s.batch("SELECT bt_index_parent_check('custody.entry_runs', true)");
    s.assert_valid();
    // Replayed from the WAL, scrubbed pages are what they were.
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = connect();
    assert_eq!(s.count("verify_heapam('custody.entry')"), 0);
    s.assert_valid();
    cluster.stop().unwrap();
}

/// Whether a file of the relation, or of its forks and further segments, has the bytes.
fn in_files(data: &Path, path: &str, bytes: &[u8]) -> Vec<String> {
    let first = data.join(path);
    let (dir, name) = (first.parent().unwrap(), first.file_name().unwrap().to_str().unwrap().to_owned());
    let ours =
        |file: &str| file == name || file.starts_with(&format!("{name}.")) || file.starts_with(&format!("{name}_"));
    let files = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    files
        .filter(|f| ours(f.file_name().unwrap().to_str().unwrap()))
        .filter(|f| fs::read(f).unwrap().windows(bytes.len()).any(|w| w == bytes))
        .map(|f| f.display().to_string())
        .collect()
}

#[test]
fn not_a_byte_of_it_is_left_in_the_logs_files() {
    let cluster = Cluster::temporary(&installation(), &["autovacuum = off"]).unwrap();
    let mut s = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    s.batch(
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; CREATE EXTENSION pg_custody; CREATE TABLE t (id text PRIMARY KEY, x text, y text);
         ALTER TABLE custody.entry ALTER new SET STORAGE external;
         SELECT custody.register_shared('t', 'x'); SELECT custody.audit('t');
         INSERT INTO t SELECT 'before-' || g, 'n', repeat('filler', 20) FROM generate_series(1, 3000) g;
         INSERT INTO t VALUES ('KEYmarker', 'SHORTmarker', 'v'), ('BIGmarker', 'SHORTmarker', repeat('LONGmarker', 2000));
         INSERT INTO t SELECT 'after-' || g, 'n', repeat('filler', 20) FROM generate_series(1, 3000) g;
         UPDATE t SET x = 'SHORTmarker2' WHERE id IN ('KEYmarker', 'BIGmarker');
         BEGIN; UPDATE t SET x = 'SHORTmarker3' WHERE id = 'KEYmarker'; SAVEPOINT s; SELECT count(*) FROM custody.log; ROLLBACK TO s; COMMIT;
         DELETE FROM t WHERE id IN ('KEYmarker', 'BIGmarker');
         SELECT brin_summarize_new_values('custody.entry_search'); ANALYZE",
    );
    let files = "SELECT pg_relation_filepath(c.oid) FROM pg_class c WHERE c.oid = 'custody.entry'::regclass OR c.oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'custody.entry'::regclass)
       OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'custody.entry'::regclass) OR c.relname IN ('pg_statistic', 'pg_statistic_ext_data')";
    let files: Vec<String> = s.rows(files, &[]).iter().map(|r| r.get(0)).collect();
    let markers = ["KEYmarker", "SHORTmarker", "BIGmarker", "LONGmarker"];
    let found = |s: &mut Session| -> Vec<(String, Vec<String>)> {
        s.batch("CHECKPOINT");
        let found = markers.map(|m| {
            (m.to_owned(), files.iter().flat_map(|f| in_files(&cluster.data(), f, m.as_bytes())).collect::<Vec<_>>())
        });
        found.into_iter().filter(|f| !f.1.is_empty()).collect()
    };
    assert_eq!(found(&mut s).len(), 4, "the search finds what is there");
    let hashes = "SELECT array_agg(custody.key_hash(format('{\"id\":\"%s\"}', m))) FROM unnest(ARRAY['KEYmarker', 'BIGmarker']) m";
    let hashes: Vec<i64> = s.one(hashes);
    // Which ranges the index would read for a key: a summary that says yes is what a guess could be held against.
    let may_have = |s: &mut Session, hash: i64| -> i64 {
        let plan: String = s.rows(&format!("SET enable_seqscan = off; EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM custody.entry WHERE custody.key_hash(row_key) = {hash}").replace("SET enable_seqscan = off; ", ""), &[])[0]
            .get::<_, serde_json::Value>(0)
            .to_string();
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        plan[0]["Plan"]["Lossy Heap Blocks"].as_i64().unwrap_or(-1)
    };
    s.batch("SET enable_seqscan = off");
    let ranges_before: Vec<i64> = hashes.iter().map(|h| may_have(&mut s, *h)).collect();
    let nobody = may_have(&mut s, 1234567);

    let mut holder = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    holder.batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM custody.entry LIMIT 1");
    s.batch("SELECT custody.erase('', 't', '{\"id\": \"KEYmarker\"}', 'x'), custody.erase('', 't', '{\"id\": \"BIGmarker\"}', 'x')");
    assert_eq!(found(&mut s).len(), 4, "as the function said: the old versions are still there");
    let remaining: i64 = s.one("SELECT sum(remaining)::bigint FROM custody.scrub()");
    assert!(remaining > 0, "somebody still sees them");
    assert_eq!(found(&mut s).len(), 4);
    holder.batch("COMMIT");
    let remaining: i64 = s.one("SELECT sum(remaining)::bigint FROM custody.scrub()");
    assert_eq!(remaining, 0);
    assert_eq!(found(&mut s), vec![], "nothing is left in the log's files");
    for (hash, before) in hashes.iter().zip(ranges_before) {
        let after = may_have(&mut s, *hash);
        assert!(after <= nobody.max(64) && after < before.max(65), "{before} {after} {nobody}");
    }
    s.assert_valid();
    s.batch("CREATE EXTENSION amcheck");
    assert_eq!(s.count("verify_heapam('custody.entry')"), 0);
    s.batch("SELECT bt_index_parent_check('custody.entry_runs', true)");
    assert_eq!(s.count("custody.history('t', '{\"id\": \"after-17\"}')"), 1, "the index finds all else");
    assert_eq!(s.count("custody.scrub() WHERE pages > 0"), 0, "and there is nothing more to do");
    cluster.stop().unwrap();
    for marker in markers {
        for file in &files {
            assert_eq!(in_files(&cluster.data(), file, marker.as_bytes()), Vec::<String>::new(), "{marker}");
        }
    }
}

#[test]
fn vacuum_alone_leaves_the_bytes() {
    let cluster = Cluster::temporary(&installation(), &["autovacuum = off"]).unwrap();
    let mut s = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    s.batch(
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY, x text);
         SELECT custody.register_shared('t', 'x'); SELECT custody.audit('t')",
    );
    s.batch("INSERT INTO t VALUES (1, repeat('MARKER', 150))");
    s.batch("SELECT custody.erase('', 't', '{\"id\": 1}', 'x')");
    let file: String = s.one("SELECT pg_relation_filepath('custody.entry')");
    let mut left = |how: &str| {
        s.batch(how);
        s.batch("CHECKPOINT");
        !in_files(&cluster.data(), &file, b"MARKER").is_empty()
    };
    assert!(left("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) custody.entry"));
    assert!(!left("SELECT custody.scrub()"));
    cluster.stop().unwrap();
}
