//! The log as PostgreSQL stores it: entries written and read by hand must be what any other way of writing and reading gives,
//! whatever an administrator does to the table, and whatever goes on at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::{Db, Session, installation};

/// Some entries of one tenant's, over a few runs.
fn history() -> (Db, Session) {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("CREATE EXTENSION amcheck");
    s.batch("INSERT INTO clinic.patients SELECT 'a', g, 'n' || g, NULL, repeat('ü', g) FROM generate_series(1, 9) g");
    s.batch("UPDATE clinic.patients SET name = 'x' WHERE id = 1");
    s.assert_valid();
    (db, s)
}

/// All ways to find entries find the same, and PostgreSQL finds nothing wrong with the table and its indexes.
fn assert_sound(s: &mut Session) {
    s.batch("SET enable_seqscan = on; SET enable_bitmapscan = on");
    let keys = "SELECT custody.key_hash(row_key) AS hash, count(*) FROM custody.entry WHERE tenant = 'a' AND row_key IS NOT NULL GROUP BY 1";
    let sequential =
        format!("SELECT string_agg(k::text, ' ' ORDER BY hash) FROM ({keys}) k WHERE hash % 997 = 0 OR count > 1");
    let sequential: Option<String> = s.one(&sequential);
    s.batch("SET enable_seqscan = off");
    let by_index = format!(
        "SELECT string_agg((hash, f.count)::text, ' ' ORDER BY hash) FROM ({keys}) k CROSS JOIN LATERAL
           (SELECT count(*) FROM custody.entry e WHERE custody.key_hash(e.row_key) = k.hash AND e.tenant = 'a' OFFSET 0) f WHERE hash % 997 = 0 OR k.count > 1"
    );
    let plan: Vec<String> = s.rows(&format!("EXPLAIN {by_index}"), &[]).iter().map(|r| r.get(0)).collect();
    assert!(plan.iter().any(|l| l.contains("Index Cond") && l.contains("key_hash")), "{plan:#?}");
    let by_index: Option<String> = s.one(&by_index);
    s.batch("RESET enable_seqscan");
    assert_eq!(by_index, sequential);
    assert_eq!(s.count("verify_heapam('custody.entry')"), 0);
    s.batch(
        "SELECT bt_index_parent_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
         WHERE i.indrelid = 'custody.entry'::regclass AND a.amname = 'btree' AND i.indisvalid",
    );
    s.assert_valid();
}

#[test]
fn what_an_administrator_does_to_the_table_and_its_indexes_stops_nobody_and_loses_nothing() {
    let (_db, mut s) = history();
    s.batch("SET allow_in_place_tablespaces = on");
    s.batch("CREATE TABLESPACE elsewhere LOCATION ''");
    const DONE: [&str; 17] = [
        "ALTER INDEX custody.entry_runs SET (fillfactor = 70); REINDEX INDEX custody.entry_runs",
        "ALTER INDEX custody.entry_runs SET TABLESPACE elsewhere",
        "ALTER INDEX custody.entry_search SET TABLESPACE elsewhere",
        "ALTER TABLE custody.entry SET TABLESPACE elsewhere",
        "ALTER INDEX custody.entry_search SET (pages_per_range = 2); REINDEX INDEX custody.entry_search",
        "ALTER INDEX custody.entry_search SET (pages_per_range = 128, autosummarize = off)",
        "SELECT brin_summarize_new_values('custody.entry_search')",
        "SELECT brin_desummarize_range('custody.entry_search', 0)",
        "CREATE INDEX theirs ON custody.entry (custody.key_hash(row_key), tenant)",
        "DROP INDEX custody.theirs",
        "ALTER INDEX custody.entry_search RENAME TO entry_found",
        "ALTER TABLE custody.entry ADD COLUMN more text DEFAULT 'm'",
        "ALTER TABLE custody.entry ALTER new SET STORAGE external, ALTER row_key SET STORAGE main, ALTER hash SET STORAGE plain",
        "ALTER TABLE custody.entry ALTER old SET COMPRESSION lz4, SET (toast_tuple_target = 128)",
        "VACUUM FULL custody.entry",
        "ALTER TABLE custody.entry DROP COLUMN more",
        "VACUUM FULL custody.entry",
    ];
    for (i, done) in DONE.iter().enumerate() {
        s.batch(&format!("INSERT INTO clinic.patients VALUES ('a', 1{i:03}, 'before', NULL, repeat('b', 300 * {i}))"));
        for one in done.split("; ") {
            s.batch(one);
        }
        // Short, short enough to stay in line when compressed, and out of line.
        for (id, length) in [(2, 1), (3, 5000), (4, 400_000)] {
            s.batch(&format!(
                "INSERT INTO clinic.patients VALUES ('a', {id}{i:03}, 'after', NULL, repeat('abc', {length}))"
            ));
        }
        s.batch("UPDATE clinic.patients SET notes = notes || 'd' WHERE id > 1000");
        assert_sound(&mut s);
    }
}

#[test]
fn what_a_query_finds_in_the_log_is_what_is_verified() {
    let (_db, mut s) = history();
    const TAMPERED: [(&str, &str); 16] = [
        ("a child", "CREATE TABLE kid () INHERITS (custody.entry);
          INSERT INTO kid SELECT (jsonb_populate_record(e, '{\"seq\": 11}')).* FROM custody.entry e WHERE tenant = 'a' AND seq = 10"),
        ("an entry in a child", "CREATE TABLE kid () INHERITS (custody.entry); INSERT INTO kid SELECT * FROM custody.entry WHERE tenant = 'a' AND seq = 10"),
        ("columns exchanged", "ALTER TABLE custody.entry RENAME old TO x; ALTER TABLE custody.entry RENAME new TO old; ALTER TABLE custody.entry RENAME x TO new"),
        ("a column again", "ALTER TABLE custody.entry DROP signature, ADD signature bytea"),
        ("another column", "ALTER TABLE custody.entry RENAME signature TO was; ALTER TABLE custody.entry ADD signature bytea"),
        ("a duplicate", "INSERT INTO custody.entry SELECT * FROM custody.entry WHERE tenant = 'a' AND seq = 5"),
        ("no tenant", "ALTER TABLE custody.entry ALTER tenant DROP NOT NULL; UPDATE custody.entry SET tenant = NULL WHERE tenant = ''"),
        ("no lane", "ALTER TABLE custody.entry ALTER lane DROP NOT NULL; UPDATE custody.entry SET lane = NULL"),
        ("no mark", "ALTER TABLE custody.entry ALTER signs_run DROP NOT NULL; UPDATE custody.entry SET signs_run = NULL WHERE tenant = 'a' AND seq = 5"),
        ("no hash", "ALTER TABLE custody.entry ALTER hash DROP NOT NULL; UPDATE custody.entry SET hash = NULL WHERE tenant = 'a' AND seq = 5"),
        ("no time", "UPDATE custody.entry SET at = 'infinity' WHERE tenant = 'a' AND seq = 5"),
        ("no beginning", "UPDATE custody.entry SET at = '-infinity' WHERE tenant = 'a' AND seq = 5"),
        ("beyond the WAL", "UPDATE custody.entry SET lsn = 'FFFFFFFF/FFFFFFFF' WHERE tenant = 'a' AND seq = 5"),
        ("beyond all transactions", "UPDATE custody.entry SET xid = '18446744073709551615' WHERE tenant = 'a' AND seq = 5"),
        ("the first number", "UPDATE custody.entry SET seq = '-9223372036854775808' WHERE tenant = 'a' AND seq = 5"),
        ("the last number", "UPDATE custody.entry SET seq = 9223372036854775807 WHERE tenant = 'a' AND seq = 10"),
    ];
    s.batch("SET session_replication_role = replica");
    for (what, tampered) in TAMPERED {
        s.batch("BEGIN");
        if tampered.contains("UPDATE") || tampered.contains("INTO custody.entry") {
            s.batch("ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\", DISABLE TRIGGER \"!custody_foreign_only\"");
        }
        s.batch(tampered);
        let (verdict, findings) = s.verify("");
        assert!(
            verdict == "invalid" && findings.iter().any(|f| !f.starts_with("guard")),
            "{what}: {verdict} {findings:#?}"
        );
        s.batch("ROLLBACK");
        s.assert_valid();
    }
}

#[test]
fn the_order_in_which_entries_lie_is_nothing_to_verification() {
    let (_db, mut s) = history();
    s.batch("INSERT INTO clinic.patients SELECT 'a', g FROM generate_series(1000, 3000) g");
    let before: String =
        s.one("SELECT md5(string_agg(e::text, ',' ORDER BY e::text)) FROM custody.entry e WHERE tenant = 'a'");
    s.batch(
        "SET session_replication_role = replica; BEGIN;
         ALTER TABLE custody.entry DISABLE TRIGGER ALL;
         CREATE TEMPORARY TABLE kept AS SELECT * FROM custody.entry; TRUNCATE custody.entry;
         INSERT INTO custody.entry SELECT * FROM kept ORDER BY md5(seq::text || tenant);
         ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\";
         COMMIT; RESET session_replication_role; DROP TABLE kept",
    );
    assert_eq!(
        s.one::<String>(
            "SELECT md5(string_agg(e::text, ',' ORDER BY e::text)) FROM custody.entry e WHERE tenant = 'a'"
        ),
        before
    );
    s.batch("INSERT INTO clinic.patients VALUES ('a', 5000)");
    let (_, findings) = s.verify("");
    assert!(findings.iter().all(|f| f.starts_with("guard")), "{findings:#?}");
}

#[test]
fn writers_and_whoever_works_on_the_indexes_do_not_lose_entries_between_them() {
    let (db, mut s) = history();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 1..4 {
            let (db, over) = (&db, &over);
            scope.spawn(move || {
                let mut s = db.superuser();
                for i in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (low, high) = (writer * 1_000_000 + i * 500, writer * 1_000_000 + i * 500 + 400);
                    s.batch(&format!(
                        "INSERT INTO clinic.patients SELECT 'a', g, 'x', NULL, repeat('n', 200) FROM generate_series({low}, {high}) g;
                         UPDATE clinic.patients SET name = 'y' WHERE tenant_id = 'a' AND id = {low}"
                    ));
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let begun = Instant::now();
        let mut block = 0;
        while begun.elapsed() < Duration::from_secs(6) {
            for work in [
                "SELECT brin_summarize_new_values('custody.entry_search')",
                &format!("SELECT brin_desummarize_range('custody.entry_search', {block})"),
                "CREATE INDEX CONCURRENTLY theirs ON custody.entry (custody.key_hash(row_key))",
                "SELECT bt_index_check('custody.theirs', true)",
                "REINDEX INDEX CONCURRENTLY custody.entry_search",
                "REINDEX TABLE CONCURRENTLY custody.entry",
                "DROP INDEX CONCURRENTLY custody.theirs",
                "SELECT bt_index_check('custody.entry_runs', true)",
                "VACUUM custody.entry",
            ] {
                s.batch(work);
            }
            block += 64;
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_sound(&mut s);
}

#[test]
fn a_truncate_comes_after_what_it_empties_even_if_the_wal_is_for_crashes_only() {
    let cluster = Cluster::temporary(&installation(), &["wal_level = minimal", "max_wal_senders = 0"]).unwrap();
    let mut a = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    a.batch(
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; CREATE EXTENSION pg_custody;
         CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY);
         SELECT custody.register_shared('t', 'x'), custody.register_shared('u', 'x'); SELECT custody.audit('t'), custody.audit('u')",
    );
    let mut b = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    a.batch("BEGIN; INSERT INTO u VALUES (1)");
    b.batch("INSERT INTO t VALUES (1)");
    a.batch("TRUNCATE t; INSERT INTO t VALUES (1); COMMIT");
    let history: String = a.one("SELECT string_agg(op, ' ') FROM custody.history('t', '{\"id\": 1}')");
    assert_eq!(history, "INSERT TRUNCATE INSERT");
}

#[test]
fn a_long_verification_goes_on_without_threads_and_ends_when_it_is_told_to() {
    let (db, mut s) = history();
    s.batch(
        "INSERT INTO clinic.patients SELECT 'a', g, 'x', NULL, repeat('n', 300) FROM generate_series(1000, 30000) g",
    );
    for workers in [1, 2, 64] {
        s.batch(&format!("SET custody.verify_workers = {workers}"));
        s.assert_valid();
    }
    s.batch("CREATE FUNCTION verified() RETURNS text LANGUAGE plpgsql AS $$ DECLARE found text; BEGIN
             BEGIN SELECT verdict INTO found FROM custody.verify() LIMIT 1; EXCEPTION WHEN query_canceled THEN found := 'cancelled'; END;
             RETURN found; END $$");
    for _ in 0..5 {
        s.batch("SET statement_timeout = '4ms'");
        assert_eq!(s.one::<String>("SELECT verified()"), "cancelled");
        assert_eq!(s.fails("SELECT custody.verify()"), "57014");
        s.batch("RESET statement_timeout");
        assert_eq!(s.one::<String>("SELECT verified()"), "valid");
    }
    let pid: i32 = s.one("SELECT pg_backend_pid()");
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads(), 1);
    s.batch("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT * FROM custody.verify(); COMMIT");
    // The server's shell is a child of the session's process.
    s.batch("COPY (SELECT) TO PROGRAM 'prlimit --pid $PPID --nproc=1; cat'");
    s.assert_valid();
    let mut other = db.superuser();
    other.batch(&format!("SELECT pg_terminate_backend({pid}, 5000)"));
    assert!(s.0.batch_execute("SELECT 1").is_err());
}
