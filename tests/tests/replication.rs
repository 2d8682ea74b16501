//! Rows that logical replication brings into an audited table are recorded like any others.

use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::replay::assert_replays;
use custody_tests::{Session, installation};

/// Waits until the subscriber answers `true`.
fn wait_for(s: &mut Session, condition: &str) {
    let begun = Instant::now();
    while !s.one::<bool>(&format!("SELECT coalesce(({condition}), false)")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {condition}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn replicated_changes_are_recorded() {
    let cluster =
        Cluster::temporary(&installation(), &["wal_level = logical", "logical_decoding_work_mem = 64kB"]).unwrap();
    let session = |database: &str| Session(cluster.connect(database, SUPERUSER).unwrap());
    session("postgres").batch("CREATE DATABASE publisher TEMPLATE template0");
    session("postgres").batch("CREATE DATABASE subscriber TEMPLATE template0");
    let (mut publisher, mut subscriber) = (session("publisher"), session("subscriber"));
    let tables = "CREATE TABLE plain (id int PRIMARY KEY, t text, f float8, d timestamptz, a text[]);
         CREATE TABLE parts (id int, k int, t text, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts2 PARTITION OF parts FOR VALUES IN (2);
         CREATE TABLE keyless (a int, t text); ALTER TABLE keyless REPLICA IDENTITY FULL; ALTER TABLE plain ALTER t SET STORAGE EXTERNAL";
    publisher.batch(tables);
    publisher.batch("CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true); INSERT INTO plain SELECT i, repeat('t', i), i, 'infinity', '{a,NULL}' FROM generate_series(1, 50) i");
    publisher.batch("SELECT pg_create_logical_replication_slot('custody_slot', 'pgoutput')");
    subscriber.batch(tables);
    subscriber.batch(
        "CREATE EXTENSION pg_custody; SELECT custody.audit('plain'), custody.audit('parts'), custody.audit('keyless')",
    );
    // Creating the slot from here would wait for this very transaction, which is in the same cluster.
    subscriber.batch(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port=5432 dbname=publisher user={SUPERUSER}' PUBLICATION p WITH (create_slot = false, slot_name = custody_slot, streaming = on)",
        cluster.socket().display()
    ));
    wait_for(&mut subscriber, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
    assert_eq!(subscriber.count("custody.log WHERE table_name = 'plain' AND op = 'INSERT'"), 50, "the initial copy");
    publisher.batch(
        "INSERT INTO plain SELECT i, repeat('long', 5000), '-0', '0044-03-15 00:00+00 BC', NULL FROM generate_series(51, 150) i; UPDATE plain SET f = 'NaN' WHERE id > 40; UPDATE plain SET id = id + 1000 WHERE id < 5; DELETE FROM plain WHERE id % 7 = 0;
         BEGIN; INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(10000, 15000) i; SAVEPOINT s; INSERT INTO plain SELECT i FROM generate_series(20000, 25000) i; ROLLBACK TO s; DELETE FROM plain WHERE id > 14900; COMMIT;
         INSERT INTO parts SELECT i, i % 2 + 1, 'p' FROM generate_series(1, 20) i; UPDATE parts SET k = 3 - k WHERE id < 5; UPDATE parts SET t = 'q'; DELETE FROM parts WHERE id = 9;
         INSERT INTO keyless VALUES (1, 'same'), (1, 'same'), (NULL, NULL); UPDATE keyless SET t = 'x' WHERE ctid = '(0,1)'; DELETE FROM keyless WHERE a IS NULL",
    );
    publisher.batch("TRUNCATE parts; INSERT INTO parts VALUES (99, 1, 'last')");
    wait_for(&mut subscriber, "SELECT count(*) = 1 AND max(id) = 99 FROM parts");
    for table in ["public.plain", "public.parts", "public.keyless"] {
        assert_replays(&mut subscriber, table);
        let rows = |s: &mut Session| {
            s.one::<Option<String>>(&format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"))
        };
        publisher.batch("RESET ALL; SET extra_float_digits = 3; SET search_path = pg_catalog");
        assert_eq!(rows(&mut subscriber), rows(&mut publisher), "{table}");
    }
    assert_eq!(subscriber.count("custody.log WHERE table_name = 'parts' AND op = 'TRUNCATE' AND new IS NULL"), 19);
    // Who applied them is known.
    let appliers =
        "SELECT string_agg(DISTINCT login_role, ', ') FROM custody.log WHERE table_name = 'plain' AND op <> 'INSERT'";
    assert_eq!(subscriber.one::<String>(appliers), "postgres");
    subscriber.batch("ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s");
    subscriber.assert_valid();
}
