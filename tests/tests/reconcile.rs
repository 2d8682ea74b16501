//! Promise A7: a row changed behind the log's back is found, and named; and nothing else is.

use std::fs;
use std::thread;

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Db, Session, installation};

/// The summary's verdict and words, and the findings as `verdict tenant key`.
fn reconcile(s: &mut Session, table: &str) -> (String, String, Vec<String>) {
    let rows = s.rows("SELECT verdict, tenant, row_key, detail FROM custody.reconcile($1::text::regclass)", &[&table]);
    let text = |n: usize, at: usize| rows[n].get::<_, Option<String>>(at).unwrap_or_default();
    let findings = (1..rows.len()).map(|n| format!("{} {} {}", text(n, 0), text(n, 1), text(n, 2))).collect();
    (text(0, 0), text(0, 3), findings)
}

fn assert_clean(s: &mut Session, table: &str) {
    let found = reconcile(s, table);
    assert_eq!((found.0.as_str(), found.2.len()), ("clean", 0), "{table}: {found:?}");
}

fn assert_finds(s: &mut Session, table: &str, expected: &[&str]) {
    let found = reconcile(s, table);
    assert_eq!(
        (found.0.as_str(), &found.2[..]),
        ("differs", &expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..]),
        "{}",
        found.1
    );
}

fn detail(s: &mut Session, table: &str, number: usize) -> String {
    s.rows("SELECT detail FROM custody.reconcile($1::text::regclass)", &[&table])[number].get(0)
}

/// Runs something that the capture triggers do not see.
fn unseen(s: &mut Session, table: &str, sql: &str) {
    s.batch(&format!(
        "ALTER TABLE {table} DISABLE TRIGGER USER; {sql}; ALTER TABLE {table} ENABLE ALWAYS TRIGGER \"!custody_capture\", ENABLE ALWAYS TRIGGER \"!custody_truncate\""
    ));
}

fn people(db: &Db) -> Session {
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE people (tenant_id text, id int, name text, n int, doc text, PRIMARY KEY (tenant_id, id));
         ALTER TABLE people ALTER doc SET STORAGE EXTERNAL;
         SELECT custody.create_tenant('a', 'A'), custody.create_tenant('b', 'B'); SELECT custody.protect('people');
         INSERT INTO people SELECT CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i, 'name ' || i, i, repeat('x', i * 300) FROM generate_series(1, 20) i",
    );
    s
}

#[test]
fn rows_that_were_there_are_recorded_once_and_every_change_behind_the_logs_back_is_found() {
    for form in ["rows", "digest"] {
        let db = Db::new();
        let mut s = people(&db);
        s.batch(&format!("SELECT custody.audit('people', baseline => '{form}')"));
        assert_eq!(s.count("custody.log WHERE op = 'BASELINE'"), 20);
        assert_eq!(
            s.count("custody.log WHERE op = 'BASELINE' AND tenant = 'a' AND new ? 'name'"),
            if form == "rows" { 10 } else { 0 }
        );
        s.assert_valid();
        assert_clean(&mut s, "people");
        s.batch(
            "UPDATE people SET n = n + 1 WHERE id < 8; UPDATE people SET name = NULL WHERE id = 3; DELETE FROM people WHERE id = 5;
             UPDATE people SET id = 105 WHERE id = 6; UPDATE people SET tenant_id = 'b' WHERE id = 8; INSERT INTO people VALUES ('a', 30, 'new', 1, repeat('y', 9000));
             UPDATE people SET name = 'again' WHERE id = 30; INSERT INTO people (tenant_id, id) VALUES ('b', 5)",
        );
        assert_clean(&mut s, "people");
        let disabled = "UPDATE people SET n = 0 WHERE id IN (3, 10, 30); UPDATE people SET doc = 'z' WHERE id = 20; DELETE FROM people WHERE id = 12; INSERT INTO people (tenant_id, id) VALUES ('a', 99)";
        unseen(&mut s, "people", disabled);
        let expected = [
            "changed a {\"tenant_id\":\"a\",\"id\":10}",
            "removed a {\"tenant_id\":\"a\",\"id\":12}",
            "changed a {\"tenant_id\":\"a\",\"id\":20}",
            "changed a {\"tenant_id\":\"a\",\"id\":30}",
            "added a {\"tenant_id\":\"a\",\"id\":99}",
            "changed b {\"tenant_id\":\"b\",\"id\":3}",
        ];
        assert_finds(&mut s, "people", &expected);
        if form == "rows" {
            assert_eq!([1, 3, 4].map(|n| detail(&mut s, "people", n)), ["columns: n", "columns: doc", "columns: n"]);
        }
        // Later entries do not cover it up, nor does it going away.
        s.batch("UPDATE people SET name = 'later' WHERE id IN (3, 10); DELETE FROM people WHERE id = 20; DELETE FROM people WHERE id = 99");
        assert_finds(&mut s, "people", &expected);
        // Whoever takes a new baseline accepts what is there, in the log, under his name.
        assert_eq!(s.one::<i64>("SELECT custody.baseline('people')"), s.count("people"));
        assert_clean(&mut s, "people");
        assert_eq!(s.one::<String>("SELECT login_role FROM custody.log WHERE op = 'SHAPE' AND new ->> 'covers' = 'table' ORDER BY lsn DESC, ordinal DESC LIMIT 1"), "postgres");
        unseen(&mut s, "people", "UPDATE people SET n = -1 WHERE id = 10");
        assert_finds(&mut s, "people", &expected[..1]);
    }
}

#[test]
fn what_predates_the_log_is_unknown_and_not_fine() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people', baseline => 'none')");
    assert_eq!(s.count("custody.log WHERE op = 'BASELINE'"), 0);
    s.batch("INSERT INTO people (tenant_id, id) VALUES ('a', 200); UPDATE people SET n = 7 WHERE id = 2; DELETE FROM people WHERE id = 4");
    let (verdict, words, found) = reconcile(&mut s, "people");
    assert_eq!((verdict.as_str(), found.len()), ("undecided", 19), "{words}");
    assert!(found.iter().all(|f| f.starts_with("unknown")) && words.contains("no baseline"), "{words}");
    // What the log knows is judged all the same.
    unseen(&mut s, "people", "UPDATE people SET n = 7 WHERE id = 200");
    let (verdict, _, found) = reconcile(&mut s, "people");
    assert!(
        verdict == "differs" && found.contains(&"changed a {\"tenant_id\":\"a\",\"id\":200}".to_owned()),
        "{found:?}"
    );
    s.batch("SELECT custody.baseline('people', 'digest')");
    assert_clean(&mut s, "people");
    for wrong in [
        "SELECT custody.audit('people', baseline => 'all')",
        "SELECT custody.baseline('people', 'x')",
        "SELECT custody.audit('people', baseline => NULL)",
    ] {
        let state = s.0.batch_execute(wrong).map_err(|e| custody_tests::state(&e));
        assert!(wrong.contains("NULL") || state == Err("UC013".into()), "{wrong}: {state:?}");
    }
    s.batch("CREATE TABLE other (n int)");
    assert_eq!(s.fails("SELECT custody.reconcile('other')"), "UC033");
    assert_eq!(s.fails("SELECT custody.baseline('other')"), "UC033");
    s.batch("INSERT INTO other VALUES (1)");
    assert_eq!(s.fails("SELECT custody.audit('other', baseline => 'digest')"), "UC013");
}

#[test]
fn a_baseline_is_right_while_others_write() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people', baseline => 'none')");
    let (mut one, mut two) = (db.superuser(), db.superuser());
    // Open when the baseline is taken; one commits before it ends, one after, one is prepared, one rolled back.
    one.batch("BEGIN; UPDATE people SET n = 1000 WHERE id = 1; INSERT INTO people (tenant_id, id) VALUES ('a', 300); DELETE FROM people WHERE id = 2");
    two.batch("BEGIN; UPDATE people SET n = 2000 WHERE id = 3; UPDATE people SET id = 104 WHERE id = 4; PREPARE TRANSACTION 'held'; BEGIN; UPDATE people SET n = 5 WHERE id = 5");
    s.batch("BEGIN; UPDATE people SET n = 7 WHERE id = 7; SELECT custody.baseline('people'); UPDATE people SET n = 8 WHERE id IN (7, 8)");
    one.batch("COMMIT; UPDATE people SET n = 1001 WHERE id = 1; DELETE FROM people WHERE id = 9");
    s.batch("COMMIT");
    two.batch("ROLLBACK");
    // While one transaction is open, neither its rows nor its entries are seen.
    assert_clean(&mut s, "people");
    s.batch("COMMIT PREPARED 'held'");
    assert_clean(&mut s, "people");
    // In a transaction that has not been written to the log yet, and at an older snapshot.
    s.batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM people");
    two.batch("UPDATE people SET n = 11 WHERE id = 11");
    s.batch("UPDATE people SET n = 12 WHERE id = 12; SAVEPOINT x; DELETE FROM people WHERE id = 13; ROLLBACK TO x; DELETE FROM people WHERE id = 14");
    assert_clean(&mut s, "people");
    s.batch("SELECT custody.baseline('people')");
    assert_clean(&mut s, "people");
    s.batch("COMMIT");
    assert_clean(&mut s, "people");
}

#[test]
fn reconciling_and_taking_baselines_while_sessions_write_raises_no_alarm() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people', baseline => 'none')");
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|w| {
                let mut session = db.superuser();
                scope.spawn(move || {
                    for i in 0..150 {
                        let id = (i * 7 + w) % 25;
                        session.batch(&format!(
                            "BEGIN; INSERT INTO people VALUES ('a', {id}, 'w', {i}) ON CONFLICT (tenant_id, id) DO UPDATE SET n = {i}, doc = people.doc || 'x';
                             SAVEPOINT p; DELETE FROM people WHERE id = {id} + 1 AND {i} % 3 = 0; {} COMMIT",
                            if i % 4 == 0 { "ROLLBACK TO p;" } else { "" }
                        ));
                    }
                })
            })
            .collect();
        s.batch("SELECT custody.baseline('people')");
        let mut looks = 0;
        while writers.iter().any(|w| !w.is_finished()) || looks < 3 {
            looks += 1;
            assert_clean(&mut s, "people");
            if looks % 3 == 0 {
                s.batch(if looks % 2 == 0 {
                    "SELECT custody.baseline('people')"
                } else {
                    "SELECT custody.baseline('people', 'digest')"
                });
            }
        }
    });
    assert_clean(&mut s, "people");
    s.assert_valid();
}

#[test]
fn definitions_change_and_nothing_is_covered_up_by_it() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people', ARRAY['doc']); UPDATE people SET n = n + 1 WHERE id < 5");
    // Before the definitions change, so that it must survive all of it.
    unseen(&mut s, "people", "UPDATE people SET name = 'forged' WHERE id = 10");
    let expected = ["changed a {\"tenant_id\":\"a\",\"id\":10}"];
    assert_finds(&mut s, "people", &expected);
    let mut table = "people".to_owned();
    for (ddl, change, renamed) in [
        ("ALTER TABLE people ADD note text", "UPDATE people SET note = 'x' WHERE id = 1", None),
        (
            "ALTER TABLE people ADD level int DEFAULT 7",
            "UPDATE people SET level = 8 WHERE id = 2; INSERT INTO people (tenant_id, id) VALUES ('a', 40); INSERT INTO people (tenant_id, id, level) VALUES ('a', 41, NULL)",
            None,
        ),
        (
            "ALTER TABLE people ADD dice float8 DEFAULT random()",
            "UPDATE people SET dice = 2 WHERE id = 3; UPDATE people SET n = 0 WHERE id = 4",
            None,
        ),
        (
            "ALTER TABLE people ADD twice int GENERATED ALWAYS AS (level * 2) STORED, ADD serial bigserial",
            "UPDATE people SET n = 50 WHERE id = 5",
            None,
        ),
        ("ALTER TABLE people ALTER n TYPE bigint", "UPDATE people SET n = 51 WHERE id = 5", None),
        (
            "ALTER TABLE people DROP twice; ALTER TABLE people ALTER level TYPE text USING 'level ' || level",
            "UPDATE people SET level = 'x' WHERE id = 6",
            None,
        ),
        ("ALTER TABLE people RENAME name TO title", "UPDATE people SET title = 't' WHERE id = 7", None),
        ("ALTER TABLE people RENAME id TO number", "UPDATE people SET title = 'u' WHERE number = 7", None),
        (
            "ALTER TABLE people RENAME number TO id; ALTER TABLE people RENAME TO folk",
            "UPDATE folk SET title = 'v' WHERE id = 7",
            Some("folk"),
        ),
        (
            "CREATE SCHEMA x; ALTER TABLE folk SET SCHEMA x",
            "UPDATE x.folk SET title = 'w' WHERE id = 7",
            Some("x.folk"),
        ),
        ("ALTER SCHEMA x RENAME TO y", "DELETE FROM y.folk WHERE id = 7", Some("y.folk")),
        ("ALTER TABLE y.folk DROP COLUMN dice", "DELETE FROM y.folk WHERE id = 9", None),
        // Its old name is another's now.
        (
            "CREATE TABLE people (tenant_id text, id int PRIMARY KEY, n int); INSERT INTO people VALUES ('a', 1, 1); SELECT custody.audit('people')",
            "UPDATE people SET n = 2",
            None,
        ),
        ("SELECT custody.audit('y.folk', ARRAY['title'])", "UPDATE y.folk SET doc = doc || '!' WHERE id = 11", None),
        (
            "SELECT custody.audit('y.folk', redact => ARRAY['doc'])",
            "UPDATE y.folk SET doc = doc || '?' WHERE id = 13",
            None,
        ),
    ] {
        s.batch(ddl);
        table = renamed.map_or(table, str::to_owned);
        let excluded = ddl.contains("ARRAY['title']");
        match excluded {
            // The column that was forged is not compared any more.
            true => assert_clean(&mut s, &table),
            false if ddl.contains("redact") => {}
            false => assert_finds(
                &mut s,
                &table,
                &expected
                    .map(|e| if ddl.contains("TO number") { e.replace("\"id\"", "\"number\"") } else { e.into() })
                    .each_ref()
                    .map(String::as_str),
            ),
        }
        s.batch(change);
        let found = reconcile(&mut s, &table);
        assert_eq!(found.2.len(), usize::from(!excluded && !ddl.contains("redact")), "{ddl}: {found:?}");
    }
    assert_clean(&mut s, "people");
    assert_clean(&mut s, "y.folk");
    unseen(&mut s, "y.folk", "UPDATE y.folk SET doc = 'redacted and forged' WHERE id = 15");
    assert_finds(&mut s, "y.folk", &["changed b {\"tenant_id\":\"b\",\"id\":15}"]);
    s.batch("ALTER TABLE y.folk RENAME TO f; UPDATE y.f SET doc = 'z' WHERE id = 16");
    s.assert_valid_but_for_capture();
    // Another key: the history starts anew, for rows are found by it.
    s.batch("ALTER TABLE people DROP CONSTRAINT people_pkey, ADD PRIMARY KEY (n); UPDATE people SET id = 5");
    assert_clean(&mut s, "people");
    s.batch("ALTER TABLE people DROP CONSTRAINT people_pkey; UPDATE people SET id = 6");
    assert_clean(&mut s, "people");
    // What says nothing of itself is seen, as something that changed.
    s.batch("ALTER TABLE people ALTER tenant_id TYPE text USING upper(tenant_id)");
    assert_eq!(reconcile(&mut s, "people").0, "differs");
}

trait Valid {
    fn assert_valid_but_for_capture(&mut self);
}

impl Valid for Session {
    /// Triggers were off in between, and the log says so.
    fn assert_valid_but_for_capture(&mut self) {
        let (_, findings) = self.verify("");
        assert!(findings.iter().all(|f| f.starts_with("capture_disabled")), "{findings:?}");
    }
}

#[test]
fn partitions_come_and_go() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE none (id int PRIMARY KEY) PARTITION BY LIST (id); SELECT custody.audit('none'); ALTER TABLE none ADD n float8 DEFAULT random(); SELECT custody.baseline('none')");
    assert_clean(&mut s, "none");
    s.batch(
        "CREATE TABLE p (tenant_id text, id int, k int, t text, PRIMARY KEY (tenant_id, id, k)) PARTITION BY RANGE (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 (t text, gone int, k int NOT NULL, id int NOT NULL, tenant_id text NOT NULL); ALTER TABLE p2 DROP gone;
         ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
         INSERT INTO p SELECT 'a', i, i, 't' FROM generate_series(0, 19) i; SELECT custody.audit('p', baseline => 'digest')",
    );
    assert_clean(&mut s, "p");
    s.batch("UPDATE p SET k = 19 - k; UPDATE p SET t = 'u' WHERE id < 4; TRUNCATE p1");
    assert_clean(&mut s, "p");
    s.batch("INSERT INTO p SELECT 'b', i, i, 't' FROM generate_series(0, 9) i");
    // One that comes with rows, one that comes without.
    s.batch("CREATE TABLE p3 (LIKE p INCLUDING ALL); INSERT INTO p3 VALUES ('a', 25, 25, 'came'); ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
             CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (30) TO (40); INSERT INTO p VALUES ('a', 35, 35, 'new'); UPDATE p SET t = 'changed' WHERE k = 25");
    assert_clean(&mut s, "p");
    unseen(&mut s, "p3", "UPDATE p3 SET t = 'forged'");
    assert_finds(&mut s, "p", &["changed  {\"tenant_id\":\"a\",\"id\":25,\"k\":25}"]);
    s.batch("SELECT custody.baseline('p')");
    // Its rows left with it: that they are gone may be that, and may be not.
    s.batch("ALTER TABLE p DETACH PARTITION p3");
    let (verdict, words, found) = reconcile(&mut s, "p");
    assert_eq!(
        (verdict.as_str(), &found[..]),
        ("undecided", &["unknown  {\"tenant_id\":\"a\",\"id\":25,\"k\":25}".to_owned()][..]),
        "{words}"
    );
    s.batch("UPDATE p3 SET t = 'meanwhile'; ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30); UPDATE p SET t = 'back' WHERE k = 25");
    assert_clean(&mut s, "p");
    s.batch("DROP TABLE p4");
    assert_eq!(reconcile(&mut s, "p").0, "undecided");
    s.batch("SELECT custody.baseline('p')");
    assert_clean(&mut s, "p");
    s.batch(
        "ALTER TABLE p ADD extra int DEFAULT 3, ADD more float8 DEFAULT random(); UPDATE p SET extra = 4 WHERE id = 1",
    );
    assert_clean(&mut s, "p");
}

#[test]
fn tables_without_keys_and_with_every_kind_of_value() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TABLE k (id int PRIMARY KEY, f float8, g float4, n numeric, b bytea, ts timestamptz, d date, i interval, j jsonb, x xml, m mood, a int[], r int4range, u uuid, mo money, c char(5), \"odd \"\"name\" text);
         INSERT INTO k VALUES (1, 'NaN', -0.0, 1.50, '\\x00ff', '2020-01-01 12:00+02', '2020-02-03', '1 day 2 hours', '{\"a\": [1, \"x\"]}', '<a/>', 'ok', '{1,NULL}', '[1,5)', '00000000-0000-0000-0000-000000000001', 12.5, 'ab', E'tab\\t\"\\\\');
         SELECT custody.audit('k'); INSERT INTO k SELECT 2, f, g, n, b, ts, d, i, j, x, m, a, r, u, mo, c, \"odd \"\"name\" FROM k; UPDATE k SET n = 1.500, ts = ts + '1 hour' WHERE id = 1",
    );
    // However the session prints.
    s.batch("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'; SET extra_float_digits = -5");
    assert_clean(&mut s, "k");
    unseen(&mut s, "k", "UPDATE k SET n = 1.5, m = 'sad' WHERE id = 2");
    assert_finds(&mut s, "k", &["changed  {\"id\":2}"]);
    assert_eq!(detail(&mut s, "k", 1), "columns: m, n");

    s.batch("CREATE TABLE keyless (t text, n int); INSERT INTO keyless SELECT 'row', i % 3 FROM generate_series(1, 9) i; SELECT custody.audit('keyless');
             UPDATE keyless SET n = 7 WHERE ctid IN (SELECT ctid FROM keyless WHERE n = 1 LIMIT 1); DELETE FROM keyless WHERE n = 2; INSERT INTO keyless VALUES (NULL, NULL)");
    assert_clean(&mut s, "keyless");
    s.batch("ALTER TABLE keyless ADD c int DEFAULT 1; ALTER TABLE keyless RENAME n TO m; UPDATE keyless SET c = 2 WHERE m = 7");
    assert_clean(&mut s, "keyless");
    unseen(&mut s, "keyless", "UPDATE keyless SET m = 8 WHERE m = 7");
    assert_finds(&mut s, "keyless", &["added  ", "removed  "]);
    s.batch("SELECT custody.baseline('keyless'); TRUNCATE keyless");
    assert_clean(&mut s, "keyless");
}

#[test]
fn replicas_settings_do_not_help_and_row_security_hides_nothing() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people'); SET session_replication_role = replica; UPDATE people SET n = 77 WHERE id = 1; RESET session_replication_role");
    assert_clean(&mut s, "people");
    assert_eq!(s.count("custody.log WHERE op = 'UPDATE'"), 1);
    // An owner whom FORCE holds takes the baseline; nobody but auditors and administrators may look.
    let (owner, app) = (format!("{}_owner", db.name), format!("{}_app", db.name));
    s.batch(&format!(
        "SELECT custody.unaudit('people'); CREATE ROLE {owner} LOGIN IN ROLE custody_admin; ALTER TABLE people OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner};
         CREATE ROLE {app} LOGIN IN ROLE custody_app; GRANT SELECT ON people TO {app}; SELECT custody.allow_assume('{app}', ARRAY['a'])"
    ));
    let mut o = db.session(&owner);
    assert_eq!(o.count("people"), 0);
    o.batch("SELECT custody.audit('people')");
    assert_eq!(s.count(&format!("custody.log WHERE op = 'BASELINE' AND acting_role = '{owner}'")), 20);
    assert_clean(&mut o, "people");
    o.batch("SELECT custody.baseline('people')");
    let mut a = db.session(&app);
    for refused in ["SELECT custody.reconcile('people')", "SELECT custody.baseline('people')"] {
        assert_eq!(a.fails(refused), "42501");
    }
    s.batch(&format!("REVOKE custody_admin FROM {owner}"));
    assert_eq!(o.fails("SELECT custody.baseline('people')"), "42501");
    let auditor = format!("{}_auditor", db.name);
    s.batch(&format!("CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"));
    let mut auditor = db.session(&auditor);
    assert_clean(&mut auditor, "people");
    assert_eq!(auditor.fails("SELECT custody.baseline('people')"), "42501");
}

#[test]
fn a_file_edited_on_disk_is_found() {
    let cluster = Cluster::temporary(&installation(), &[]).unwrap();
    let mut s = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    s.batch("CREATE EXTENSION pg_custody; CREATE TABLE notes (tenant_id text, id int, body text, PRIMARY KEY (tenant_id, id));
             INSERT INTO notes SELECT 'a', i, 'penicillin: allergic ' || i FROM generate_series(1, 500) i; SELECT custody.audit('notes'); CHECKPOINT");
    assert_clean(&mut s, "notes");
    assert_eq!(s.one::<String>("SHOW data_checksums"), "off");
    let file: String = s.one("SELECT pg_relation_filepath('notes')");
    drop(s);
    cluster.stop().unwrap();
    let path = cluster.data().join(file);
    let mut bytes = fs::read(&path).unwrap();
    let needle = b"penicillin: allergic 321";
    let at = bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    bytes[at..at + needle.len()].copy_from_slice(b"penicillin: harmless 321");
    fs::write(&path, bytes).unwrap();
    cluster.start().unwrap();
    let mut s = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    assert_eq!(s.one::<String>("SELECT body FROM notes WHERE id = 321"), "penicillin: harmless 321");
    s.assert_valid();
    assert_finds(&mut s, "notes", &["changed  {\"tenant_id\":\"a\",\"id\":321}"]);
    assert_eq!(detail(&mut s, "notes", 1), "columns: body");
}

#[test]
fn a_restored_dump_and_a_copy_go_on_from_what_they_inherited() {
    let db = Db::new();
    let mut s = people(&db);
    s.batch("SELECT custody.audit('people', redact => ARRAY['doc']); UPDATE people SET n = 5 WHERE id = 5; ALTER TABLE people RENAME n TO m; DELETE FROM people WHERE id = 6");
    let dump = must(&mut db.cluster.client("pg_dump", &db.name, SUPERUSER, &["--format=custom"])).unwrap().stdout;
    let file = std::env::temp_dir().join(format!("{}-{}.dump", db.name, std::process::id()));
    fs::write(&file, dump).unwrap();
    let restored = Db::bare();
    let arguments = ["--exit-on-error", "--dbname", &restored.name, &file.display().to_string()];
    must(&mut db.cluster.client("pg_restore", &restored.name, SUPERUSER, &arguments)).unwrap();
    fs::remove_file(&file).unwrap();
    let mut r = restored.superuser();
    // Its history goes on where it was: restoring starts none.
    assert_eq!(r.count("custody.log WHERE op = 'SHAPE'"), s.count("custody.log WHERE op = 'SHAPE'"));
    // Its redaction key is its own.
    let (verdict, words, found) = reconcile(&mut r, "people");
    assert_eq!((verdict.as_str(), found.len()), ("undecided", 0), "{words}");
    assert!(words.contains("not compared: doc"), "{words}");
    r.batch("UPDATE people SET m = 6 WHERE id = 7; DELETE FROM people WHERE id = 8; ALTER TABLE people RENAME m TO l; UPDATE people SET l = 1 WHERE id = 9");
    assert_eq!(reconcile(&mut r, "people").0, "undecided");
    unseen(&mut r, "people", "UPDATE people SET l = 0 WHERE id = 10");
    assert_finds(&mut r, "people", &["changed a {\"tenant_id\":\"a\",\"id\":10}"]);
    r.batch("SELECT custody.baseline('people')");
    drop(s);
    let mut copy = db.copy();
    assert_clean(&mut copy, "people");
    copy.batch("UPDATE people SET m = 9 WHERE id = 11; UPDATE people SET doc = 'd' WHERE id = 12; ALTER TABLE people ADD q int DEFAULT 3; UPDATE people SET q = 4 WHERE id = 13");
    assert_clean(&mut copy, "people");
}

#[test]
fn a_log_from_before_there_were_baselines() {
    let db = Db::bare();
    let mut s = db.superuser();
    s.batch("CREATE EXTENSION pg_custody VERSION '0.1.0'; CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2);
             SELECT custody.audit('t'); INSERT INTO t VALUES (3, 3), (4, 4); UPDATE t SET n = 0 WHERE id IN (1, 3); ALTER EXTENSION pg_custody UPDATE; UPDATE t SET n = 9 WHERE id = 4");
    let (verdict, words, found) = reconcile(&mut s, "t");
    assert_eq!(
        (verdict.as_str(), &found[..]),
        ("undecided", &["unknown  {\"id\":1}".to_owned(), "unknown  {\"id\":2}".to_owned()][..]),
        "{words}"
    );
    s.batch("ALTER TABLE t RENAME TO u; ALTER TABLE u ADD m int DEFAULT 4; ALTER TABLE u RENAME n TO o; UPDATE u SET o = 1 WHERE id = 3");
    assert_eq!(reconcile(&mut s, "u").2, found);
    unseen(&mut s, "u", "UPDATE u SET o = 2 WHERE id = 3");
    assert_eq!(reconcile(&mut s, "u").2[2], "changed  {\"id\":3}");
    s.batch("SELECT custody.baseline('u')");
    assert_clean(&mut s, "u");
}

#[test]
fn many_rows_are_named_in_bounded_memory() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE big (id int PRIMARY KEY, t text); INSERT INTO big SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 60000) i; SELECT custody.audit('big')");
    unseen(&mut s, "big", "UPDATE big SET t = t || 'x' WHERE id % 2 = 0");
    let memory = |s: &mut Session| -> u64 {
        let pid: i32 = s.one("SELECT pg_backend_pid()");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = memory(&mut s);
    assert_eq!(reconcile(&mut s, "big").2.len(), 30000);
    let grown = memory(&mut s).saturating_sub(before);
    assert!(grown < 120 << 10, "{grown} kB");
}
