//! The log written early, because it is read or a buffer is full, at every depth: what remains has the numbers and bytes it was
//! read with, and nothing else is there.

use std::collections::HashMap;

use custody_tests::replay::assert_replays;
use custody_tests::{Db, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A row that makes an entry of about 300 kB, four of which fill the buffer, does not compress, and lies out of line.
const LARGE: &str = "(SELECT string_agg(md5(g.i::text || random()), '') FROM generate_series(1, 9000) AS g (i))";

/// An entry as it was read: what it is of, and its bytes.
type Seen = HashMap<String, (i64, Vec<u8>)>;

/// The table's entries in order: their chain and number, and what tells them apart.
fn read(s: &mut Session) -> Vec<(String, i64, Vec<u8>)> {
    let sql = "SELECT e.tenant || '/' || e.op || '/' || coalesce(e.new::json ->> 'id', e.row_key), e.seq, e.hash FROM custody.entry e
        WHERE e.table_name = 'patients' AND e.op NOT IN ('DDL', 'SHAPE') ORDER BY e.lsn, e.ordinal";
    s.rows(sql, &[]).iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect()
}

/// Asserts that the log has exactly these entries, and those that were read before as they were then.
fn assert_reads(s: &mut Session, expected: &[String], seen: &mut Seen, what: &str) {
    let found = read(s);
    let names: Vec<&String> = found.iter().map(|(name, ..)| name).collect();
    assert_eq!(names, expected.iter().collect::<Vec<_>>(), "{what}");
    seen.retain(|name, _| expected.contains(name));
    for (name, seq, hash) in &found {
        let now = (*seq, hash.clone());
        let before = seen.entry(name.clone()).or_insert_with(|| now.clone());
        assert_eq!(*before, now, "{what}: {name} has other bytes than it was read with");
    }
}

#[test]
fn savepoints_at_random() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let seed = std::env::var("CUSTODY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("CUSTODY_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut committed, mut id, mut reads, mut undone): (Vec<String>, _, _, _) = (Vec::new(), 0, 0, 0);
    let mut seen = Seen::new();
    for round in 0..24 {
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][round % 3];
        s.batch(&format!("BEGIN ISOLATION LEVEL {isolation}"));
        // What each open savepoint added, the transaction itself first.
        let mut levels: Vec<Vec<String>> = vec![Vec::new()];
        let mut told = format!("seed {seed}, round {round}:");
        for _ in 0..rng.random_range(5..40) {
            let depth = levels.len() - 1;
            match rng.random_range(0..100) {
                0..40 => {
                    id += 1;
                    let tenant = ["a", "b", "c"][rng.random_range(0..3)];
                    let notes = if rng.random_bool(0.3) { LARGE } else { "'short'" };
                    s.batch(&format!(
                        "INSERT INTO clinic.patients (tenant_id, id, notes) VALUES ('{tenant}', {id}, {notes})"
                    ));
                    levels[depth].push(format!("{tenant}/INSERT/{id}"));
                    told += if notes == LARGE { " L" } else { " i" };
                }
                40..65 => {
                    s.batch(&format!("SAVEPOINT s{}", levels.len()));
                    levels.push(Vec::new());
                    told += " (";
                }
                65..80 if depth > 0 => {
                    let to = rng.random_range(1..=depth);
                    s.batch(&format!("ROLLBACK TO s{to}"));
                    undone += levels[to..].iter().map(Vec::len).sum::<usize>();
                    levels.truncate(to);
                    levels.push(Vec::new());
                    told += &format!(" !{to}");
                }
                80..88 if depth > 0 => {
                    let to = rng.random_range(1..=depth);
                    s.batch(&format!("RELEASE s{to}"));
                    let freed: Vec<String> = levels.drain(to..).flatten().collect();
                    levels[to - 1].extend(freed);
                    told += &format!(" ){to}");
                }
                88.. => {
                    let now: Vec<String> = committed.iter().chain(levels.iter().flatten()).cloned().collect();
                    told += " ?";
                    assert_reads(&mut s, &now, &mut seen, &told);
                    reads += 1;
                }
                _ => {}
            }
        }
        if rng.random_bool(0.2) {
            s.batch("ROLLBACK");
        } else {
            if rng.random_bool(0.3) {
                let gid = format!("{}_{round}", db.name);
                s.batch(&format!("PREPARE TRANSACTION '{gid}'"));
                s = db.superuser();
                s.batch(&format!("COMMIT PREPARED '{gid}'"));
            } else {
                s.batch("COMMIT");
            }
            committed.extend(levels.into_iter().flatten());
        }
        assert_reads(&mut s, &committed, &mut seen, &told);
        s.assert_valid();
    }
    assert!(reads > 10 && undone > 10, "{reads} reads, {undone} entries undone");
    assert_replays(&mut s, "clinic.patients");
}

#[test]
fn exception_blocks_at_the_limit_and_by_the_thousand() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE FUNCTION nest(depth int, first int) RETURNS int LANGUAGE plpgsql AS $$
         DECLARE at int := first; BEGIN
           INSERT INTO clinic.patients VALUES ('a', at, 'depth ' || depth, NULL, {LARGE}), ('b', at, NULL, NULL, {LARGE});
           at := at + 1;
           IF depth > 0 THEN
             BEGIN at := nest(depth - 1, at); PERFORM count(*) FROM custody.entry WHERE depth = 2; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN at := at + 1000; END;
             BEGIN at := nest(depth - 1, at); EXCEPTION WHEN division_by_zero THEN RAISE; END;
           END IF;
           INSERT INTO clinic.patients VALUES ('a', at, 'after ' || depth, NULL, {LARGE}); RETURN at + 1;
         END $$; SELECT nest(4, 1)"
    ));
    // Five frames stand, two rows before and one after in each; all others were in blocks that failed.
    assert_eq!(s.count("clinic.patients"), 15);
    assert_eq!(read(&mut s).len(), 15);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
    s.batch(
        "RESET ALL; DO $$ BEGIN FOR i IN 100001 .. 105000 LOOP
           BEGIN
             INSERT INTO clinic.patients VALUES (CASE i % 3 WHEN 0 THEN 'a' ELSE 'b' END, i, 'block', NULL, repeat('x', 700));
             IF i % 500 = 0 THEN PERFORM count(*) FROM custody.log WHERE tenant = 'nobody'; END IF;
             IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
           EXCEPTION WHEN division_by_zero THEN UPDATE clinic.patients SET name = 'undone ' || i WHERE id = i - 1; END;
         END LOOP; END $$",
    );
    assert_eq!(s.count("clinic.patients WHERE id > 100000 AND name LIKE 'undone%'"), 2500);
    assert_eq!(read(&mut s).len(), 15 + 5000);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}

#[test]
fn procedures_that_commit_and_roll_back() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE PROCEDURE work() LANGUAGE plpgsql AS $$ DECLARE n bigint; r record; BEGIN
           FOR i IN 1 .. 30 LOOP
             INSERT INTO clinic.patients VALUES ('a', i, 'x', NULL, CASE WHEN i % 4 = 0 THEN repeat('x', 1500000) END), ('b', i, NULL, NULL, NULL);
             SELECT count(*) INTO n FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE' AND row_key ->> 'id' = i::text;
             IF n <> 2 THEN RAISE 'the log shows % entries, not 2', n; END IF;
             BEGIN INSERT INTO clinic.patients VALUES ('a', i + 100, NULL, NULL, {LARGE}); PERFORM FROM custody.entry; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END;
             IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
           END LOOP;
           FOR r IN SELECT id FROM clinic.patients WHERE tenant_id = 'a' AND id <= 30 LOOP UPDATE clinic.patients SET name = 'seen' WHERE id = r.id; PERFORM FROM custody.log; COMMIT; END LOOP;
         END $$"
    ));
    s.batch("CALL work()");
    assert_eq!(s.count("clinic.patients WHERE name = 'seen'"), 40);
    assert_eq!(read(&mut s).len(), 80);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}

#[test]
fn what_happens_at_commit() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN
           SELECT count(*) INTO n FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE';
           IF new.id < 100 THEN INSERT INTO clinic.patients VALUES (new.tenant_id, new.id + 100, 'late ' || n, NULL, {LARGE}); END IF;
           IF new.id > 100 THEN RETURN NULL; END IF;
           BEGIN INSERT INTO clinic.patients VALUES (new.tenant_id, new.id + 1000, 'never', NULL, {LARGE}); PERFORM FROM custody.entry; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END;
           RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON clinic.patients DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
         CREATE FUNCTION write(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE clinic.patients SET name = 'cursor' WHERE id = i; RETURN (SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'); END $$"
    ));
    s.batch("BEGIN; INSERT INTO clinic.patients SELECT 'a', i FROM generate_series(1, 10) i; SAVEPOINT x; INSERT INTO clinic.patients VALUES ('b', 50); ROLLBACK TO x; SELECT FROM custody.log; COMMIT");
    assert_eq!(read(&mut s).len(), 20);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
    // A cursor WITH HOLD runs to its end at commit, and writes.
    s.batch("RESET ALL; BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT write(i) FROM generate_series(1, 5) i; DECLARE l CURSOR WITH HOLD FOR SELECT op FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'; UPDATE clinic.patients SET name = 'before' WHERE id = 6; COMMIT");
    assert_eq!(read(&mut s).len(), 26);
    let counts: Vec<i32> = s.rows("FETCH ALL FROM c", &[]).iter().map(|r| r.get(0)).collect();
    assert_eq!(counts, [22, 23, 24, 25, 26]);
    assert_eq!(s.rows("FETCH ALL FROM l", &[]).len(), 20, "as it was when the cursor was opened");
    // Constraints set immediate, prepared, and a failure at the last moment.
    s.batch(&format!("BEGIN; INSERT INTO clinic.patients VALUES ('b', 20, NULL, NULL, {LARGE}); SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO clinic.patients VALUES ('b', 21); SET CONSTRAINTS ALL DEFERRED; INSERT INTO clinic.patients VALUES ('b', 22); PREPARE TRANSACTION '{}'", db.name));
    s.assert_valid();
    s.batch(&format!("COMMIT PREPARED '{}'", db.name));
    assert_eq!(read(&mut s).len(), 32);
    s.batch("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM custody.log; RAISE division_by_zero; END $$; CREATE CONSTRAINT TRIGGER z AFTER INSERT ON clinic.visits DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()");
    assert_eq!(
        s.fails(
            "BEGIN; INSERT INTO clinic.patients VALUES ('a', 70); INSERT INTO clinic.visits VALUES ('a', 1); COMMIT"
        ),
        "22012"
    );
    assert_eq!(read(&mut s).len(), 32);
    // DDL in mid-transaction, with an event trigger of the user's that writes and reads.
    s.batch(
        "CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE clinic.patients SET name = 'ddl' WHERE id = 1; PERFORM FROM custody.log; END $$;
         CREATE EVENT TRIGGER aaa ON ddl_command_end EXECUTE FUNCTION on_ddl(); CREATE EVENT TRIGGER zzz ON ddl_command_end EXECUTE FUNCTION on_ddl();
         BEGIN; UPDATE clinic.patients SET name = 'x' WHERE id = 2; SAVEPOINT d; ALTER TABLE clinic.patients ADD more int; ROLLBACK TO d; ALTER TABLE clinic.patients ADD less int DEFAULT 7; UPDATE clinic.patients SET less = 8 WHERE id = 1; COMMIT;
         DROP EVENT TRIGGER aaa; DROP EVENT TRIGGER zzz",
    );
    assert_eq!(read(&mut s).len(), 32 + 4);
    s.assert_valid();
}

#[test]
fn every_road_to_the_log_in_mid_transaction() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE FUNCTION seen() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM custody.log WHERE table_name = ''patients'' AND op <> ''SHAPE''); END';
         CREATE FUNCTION seen_safe() RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN RETURN (SELECT count(*) FROM custody.log WHERE table_name = ''patients'' AND op <> ''SHAPE''); END';
         CREATE TABLE thousand AS SELECT i FROM generate_series(1, 20000) i; ANALYZE thousand; CREATE MATERIALIZED VIEW mv AS SELECT * FROM custody.log;
         INSERT INTO clinic.patients VALUES ('a', 1, NULL, NULL, {LARGE})"
    ));
    let parallel = "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL min_parallel_index_scan_size = 0; SET LOCAL force_parallel_mode = on";
    let roads = [
        "SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'",
        "SELECT seen()",
        "SELECT seen_safe()",
        "SELECT count(*) FROM custody.export_log() AS l (line) WHERE l.line::json ->> 'table_name' = 'patients' AND l.line::json ->> 'op' <> 'SHAPE'",
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE'",
        "CREATE TEMP TABLE copied ON COMMIT DROP AS SELECT * FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'; SELECT count(*) FROM copied; DROP TABLE copied",
        "REFRESH MATERIALIZED VIEW mv; SELECT count(*) FROM mv WHERE table_name = 'patients' AND op <> 'SHAPE'",
        "DECLARE c CURSOR FOR SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'; FETCH c; CLOSE c",
        "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'; FETCH c; CLOSE c",
        "SELECT sum(e.n) FROM custody.verify() v, LATERAL (SELECT count(*) AS n FROM custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE' AND v.verdict = 'valid') e",
        "SELECT DISTINCT seen_safe() FROM thousand WHERE i % 1000 = 0",
        "COPY (SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE') TO '/dev/null'; SELECT seen()",
        "SELECT (SELECT count(*) FROM custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}')) + (SELECT count(*) FROM custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE' AND row_key NOT LIKE '%:1}')",
        "SELECT sum(seq) FROM (SELECT max(seq) AS seq FROM custody.heads() WHERE tenant IN ('a', 'b') GROUP BY tenant, lane) h",
    ];
    let (mut expected, mut id) = (1i64, 1);
    for (isolation, plans) in [
        ("READ COMMITTED", &["SELECT 1", parallel][..]),
        ("REPEATABLE READ", &[parallel]),
        ("SERIALIZABLE", &["SELECT 1"]),
    ] {
        for plan in plans {
            for road in roads {
                id += 1;
                s.batch(&format!("BEGIN ISOLATION LEVEL {isolation}; {plan}; INSERT INTO clinic.patients VALUES ('b', {id}, 'x'); SAVEPOINT one; INSERT INTO clinic.patients VALUES ('a', {id}, 'x')"));
                let at_outer = expected + 2;
                assert_eq!(answer(&mut s, road), at_outer, "{isolation} {plan} {road}");
                s.batch(&format!("ROLLBACK TO one; UPDATE clinic.patients SET name = 'u' WHERE id = {id}; UPDATE clinic.patients SET name = 'v' WHERE id = {id}"));
                assert_eq!(answer(&mut s, road), expected + 3, "again: {isolation} {plan} {road}");
                s.batch("COMMIT");
                expected += 3;
            }
        }
    }
    assert_eq!(s.one::<i64>("SELECT seen()"), expected);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}

/// The number that a road's last row is about.
fn answer(s: &mut Session, road: &str) -> i64 {
    let messages = s.0.simple_query(road).unwrap_or_else(|e| panic!("{road}\n{}", custody_tests::words(&e)));
    let rows = messages.iter().filter_map(|m| match m {
        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    // EXPLAIN says it in its first line.
    let rows: Vec<String> = rows.collect();
    let row = if road.starts_with("EXPLAIN") { rows.first() } else { rows.last() };
    let row = row.unwrap_or_else(|| panic!("{road} gave nothing"));
    let digits = row.split("rows=").nth(1).unwrap_or(row);
    digits
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or_else(|_| panic!("{road}: {rows:?}"))
}

#[test]
fn the_log_read_while_its_table_is_being_written() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE FUNCTION seen() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM custody.log WHERE table_name = ''patients'' AND op <> ''SHAPE''); END';
         INSERT INTO clinic.patients VALUES ('a', 1, 'first');
         INSERT INTO clinic.patients SELECT 'a', i, seen() FROM generate_series(2, 5) i;
         UPDATE clinic.patients SET name = name || ' ' || seen();
         INSERT INTO clinic.patients SELECT tenant, (seq + 100)::int, seen(), NULL, {LARGE} FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'"
    ));
    // A statement's rows are recorded when it ends, so it saw what was there before.
    assert_eq!(
        s.one::<String>("SELECT string_agg(name, ',' ORDER BY id) FROM clinic.patients WHERE id < 100"),
        "first 5,1 5,1 5,1 5,1 5"
    );
    assert_eq!(s.one::<String>("SELECT string_agg(DISTINCT name, ',') FROM clinic.patients WHERE id > 100"), "10");
    // In the body of a loop over the log itself, which goes over what was there when it began.
    s.batch(
        "DO $$ DECLARE r record; n int := 0; BEGIN FOR r IN SELECT seq FROM custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE' LOOP
           UPDATE clinic.patients SET name = 'loop' WHERE id = 1 AND tenant_id = 'a'; PERFORM FROM custody.log; n := n + 1; END LOOP; IF n <> 20 THEN RAISE 'went % times', n; END IF; END $$",
    );
    // Read by triggers of the same table, in blocks that fail, at every row.
    s.batch(&format!(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n text; BEGIN
           BEGIN n := seen(); INSERT INTO clinic.visits VALUES ('a', 1, 1, n); PERFORM FROM custody.entry; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END;
           IF tg_level = 'ROW' AND tg_when = 'AFTER' THEN INSERT INTO clinic.visits VALUES (new.tenant_id, new.id, new.id, tg_when || ' ' || n); END IF;
           RETURN new; END $$;
         CREATE TRIGGER look_before BEFORE INSERT ON clinic.patients FOR EACH ROW EXECUTE FUNCTION look(); CREATE TRIGGER look_after AFTER INSERT ON clinic.patients FOR EACH ROW EXECUTE FUNCTION look();
         CREATE TRIGGER look_statement AFTER INSERT ON clinic.patients FOR EACH STATEMENT EXECUTE FUNCTION look();
         BEGIN; INSERT INTO clinic.patients SELECT 'b', i, 'rows', NULL, {LARGE} FROM generate_series(1, 8) i; SAVEPOINT x; INSERT INTO clinic.patients VALUES ('b', 50); ROLLBACK TO x; INSERT INTO clinic.patients VALUES ('b', 51); COMMIT"
    ));
    let seen: Vec<String> =
        s.rows("SELECT reason FROM clinic.visits ORDER BY id", &[]).iter().map(|r| r.get(0)).collect();
    let first: i32 = 40;
    assert_eq!(seen, (1..=9).map(|n| format!("AFTER {}", first + n)).collect::<Vec<_>>());
    assert_eq!(read(&mut s).len(), 49);
    assert_replays(&mut s, "clinic.patients");
    assert_replays(&mut s, "clinic.visits");
    s.assert_valid();
}

#[test]
fn cursors_on_the_log_stand_still() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("BEGIN; INSERT INTO clinic.patients VALUES ('a', 1), ('b', 2); DECLARE outer_one CURSOR FOR SELECT row_key ->> 'id' FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE' ORDER BY lsn, ordinal;
             SAVEPOINT s; INSERT INTO clinic.patients VALUES ('a', 3); DECLARE inner_one SCROLL CURSOR FOR SELECT row_key ->> 'id' FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE' ORDER BY lsn, ordinal");
    assert_eq!(s.rows("FETCH 1 FROM inner_one", &[]).len(), 1);
    s.batch(&format!("INSERT INTO clinic.patients SELECT 'b', i, NULL, NULL, {LARGE} FROM generate_series(10, 15) i"));
    assert_eq!(s.rows("FETCH ALL FROM inner_one", &[]).len(), 2);
    assert_eq!(s.rows("FETCH BACKWARD ALL FROM inner_one", &[]).len(), 3);
    assert_eq!(s.rows("FETCH 1 FROM outer_one", &[]).len(), 1);
    s.batch("ROLLBACK TO s; INSERT INTO clinic.patients VALUES ('a', 4)");
    assert_eq!(s.rows("FETCH ALL FROM outer_one", &[]).len(), 1);
    s.batch("COMMIT");
    assert_eq!(read(&mut s).len(), 3);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}

#[test]
fn prepared_transactions_larger_than_the_buffer() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let gid = |n: i32| format!("{}_{n}", db.name);
    for n in 0..3 {
        s.batch(&format!(
            "BEGIN; INSERT INTO clinic.patients SELECT 'a', {n} * 100 + i, 'x', NULL, {LARGE} FROM generate_series(1, 7) i; SAVEPOINT x; INSERT INTO clinic.patients SELECT 'b', {n} * 100 + i, 'x', NULL, {LARGE} FROM generate_series(1, 7) i;
             SELECT FROM custody.log; SAVEPOINT y; UPDATE clinic.patients SET notes = notes || 'y'; ROLLBACK TO y; INSERT INTO clinic.patients VALUES ('a', {n} * 100 + 50); PREPARE TRANSACTION '{}'",
            gid(n)
        ));
    }
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1000)");
    s.assert_valid();
    s.batch(&format!("ROLLBACK PREPARED '{}'", gid(1)));
    for n in [2, 0] {
        s.batch(&format!("COMMIT PREPARED '{}'", gid(n)));
    }
    assert_eq!(read(&mut s).len(), 31);
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}

#[test]
fn cancelled_anywhere_and_caught() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "CREATE FUNCTION work(first int) RETURNS int LANGUAGE plpgsql AS $$ DECLARE caught int := 0; BEGIN
           FOR i IN first .. first + 40 LOOP
             BEGIN
               INSERT INTO clinic.patients VALUES ('a', i, 'outer');
               BEGIN
                 INSERT INTO clinic.patients SELECT 'b', i * 10 + n, 'inner', NULL, repeat(md5(i::text), 12000) FROM generate_series(1, 4) AS g (n);
                 PERFORM count(*) FROM custody.entry;
               EXCEPTION WHEN query_canceled THEN caught := caught + 1; END;
               UPDATE clinic.patients SET name = 'outer still' WHERE id = i AND tenant_id = 'a';
             EXCEPTION WHEN query_canceled THEN caught := caught + 1; END;
           END LOOP;
           RETURN caught;
         END $$",
    );
    let pid: i32 = s.one("SELECT pg_backend_pid()");
    let mut canceller = db.superuser();
    let (mut caught, mut whole) = (0, 0);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let thread = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(1);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_micros(rng.random_range(500..15_000)));
                canceller.batch(&format!("SELECT pg_cancel_backend({pid})"));
            }
        })
    };
    // How many calls get through depends on how busy the machine is.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(90);
    for round in 0.. {
        if (round >= 12 && caught > 20 && whole > 2) || std::time::Instant::now() > until {
            break;
        }
        // Cancelled outside of any block, all of it is gone.
        if let Ok(row) = s.0.query_one(&format!("SELECT work({})", round * 1000), &[]) {
            caught += row.get::<_, i32>(0);
            whole += 1;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
    println!("{caught} cancels caught, {whole} calls ended");
    assert!(caught > 20 && whole > 2, "{caught} caught in {whole} that ended");
    let mut s = db.superuser();
    assert_replays(&mut s, "clinic.patients");
    s.assert_valid();
}
