//! Promises A1, A2 and A6 in part: what is recorded, exactly once, whatever the statement and however the transaction goes.

use custody_tests::{Db, Session};

/// What the log says of one table, in order: `op tenant key`.
fn ops(s: &mut Session, table: &str) -> Vec<String> {
    s.rows(
        "SELECT op || ' ' || tenant || ' ' || coalesce(row_key ->> 'id', new ->> 'rows', '-') FROM custody.log WHERE table_name = $1 AND op <> 'SHAPE' ORDER BY lsn, ordinal",
        &[&table],
    )
    .iter()
    .map(|r| r.get(0))
    .collect()
}

#[test]
fn every_kind_of_statement_is_recorded() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo');
         UPDATE clinic.patients SET name = 'Ada L' WHERE id = 1 AND tenant_id = 'a';
         INSERT INTO clinic.patients VALUES ('a', 1, 'x'), ('a', 2, 'Al') ON CONFLICT (tenant_id, id) DO UPDATE SET name = excluded.name;
         INSERT INTO clinic.patients VALUES ('a', 1, 'y') ON CONFLICT DO NOTHING;
         MERGE INTO clinic.patients p USING (VALUES ('a', 2), ('a', 3), ('b', 1)) v (t, i) ON p.tenant_id = v.t AND p.id = v.i
           WHEN MATCHED AND v.t = 'b' THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'm' WHEN NOT MATCHED THEN INSERT VALUES (v.t, v.i, 'm');
         INSERT INTO clinic.visits VALUES ('a', 7, 3); DELETE FROM clinic.patients WHERE id = 3;
         WITH gone AS (DELETE FROM clinic.patients WHERE id = 2 RETURNING *) SELECT * FROM gone",
    );
    {
        use std::io::Write;
        let mut copy = s.0.copy_in("COPY clinic.patients (tenant_id, id, name) FROM STDIN").unwrap();
        copy.write_all(b"b\t8\tCy\nb\t9\tDi\n").unwrap();
        copy.finish().unwrap();
    }
    s.batch("TRUNCATE clinic.patients, clinic.visits");
    assert_eq!(
        ops(&mut s, "patients"),
        [
            "INSERT a 1",
            "INSERT b 1",
            "UPDATE a 1",
            "UPDATE a 1",
            "INSERT a 2",
            "DELETE b 1",
            "UPDATE a 2",
            "INSERT a 3",
            "DELETE a 3",
            "DELETE a 2",
            "INSERT b 8",
            "INSERT b 9",
            "TRUNCATE a 1",
            "TRUNCATE b 8",
            "TRUNCATE b 9",
            "TRUNCATE  3"
        ]
    );
    assert_eq!(ops(&mut s, "visits"), ["INSERT a 7", "DELETE a 7", "TRUNCATE  0"]);
    let old: String = s.one("SELECT old ->> 'name' || '>' || (new ->> 'name') || ' ' || changed::text FROM custody.log WHERE op = 'UPDATE' ORDER BY lsn, ordinal LIMIT 1");
    assert_eq!(old, "Ada>Ada L {name}");
    // Nothing that did not happen.
    let before = s.count("custody.entry");
    s.batch("BEGIN; INSERT INTO clinic.patients VALUES ('a', 50); DELETE FROM clinic.patients; ROLLBACK");
    assert_eq!(s.fails("INSERT INTO clinic.patients VALUES ('a', 51), ('a', 51)"), "23505");
    assert_eq!(s.count("custody.entry"), before);
    s.assert_valid();
}

#[test]
fn the_actor_is_who_logged_in_whoever_acts() {
    let db = Db::clinic();
    let (app, owner) = (db.app_name(), format!("{}_owner", db.name));
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE ROLE {owner}; GRANT USAGE ON SCHEMA clinic TO {owner}; GRANT custody_app TO {owner}; ALTER TABLE clinic.visits OWNER TO {owner};
         CREATE FUNCTION clinic.rename(i int) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE clinic.patients SET name = ''def'' WHERE id = i';
         ALTER FUNCTION clinic.rename(int) OWNER TO {owner}; GRANT UPDATE, SELECT ON clinic.patients TO {owner};
         GRANT EXECUTE ON FUNCTION clinic.rename(int) TO {app}"
    ));
    let mut session = db.app();
    session.batch("SET custody.request_id = 'req-7'; SET application_name = 'portal'");
    session.as_tenant("a", "INSERT INTO clinic.patients (id) VALUES (1); INSERT INTO clinic.visits (id, patient) VALUES (1, 1); SELECT clinic.rename(1)");
    session.as_tenant("a", "DELETE FROM clinic.patients");
    let rows = s.rows(
        "SELECT op || ' ' || table_name || ' ' || login_role || ' ' || (acting_role = login_role) || ' ' || request_id || ' ' || application_name
         FROM custody.log WHERE tenant = 'a' ORDER BY lsn, ordinal",
        &[],
    );
    let rows: Vec<String> = rows.iter().map(|r| r.get::<_, String>(0).replace(&app, "app")).collect();
    assert_eq!(
        rows,
        [
            "INSERT patients app true req-7 portal",
            "INSERT visits app true req-7 portal",
            "UPDATE patients app false req-7 portal",
            "DELETE patients app true req-7 portal",
            "DELETE visits app true req-7 portal"
        ]
    );
    assert_eq!(s.one::<String>("SELECT DISTINCT acting_role FROM custody.log WHERE op = 'UPDATE'"), owner);
}

#[test]
fn savepoints_and_exception_blocks_leave_exactly_what_stands() {
    let db = Db::clinic();
    let mut s = db.superuser();
    // The outer level's entries are flushed inside a block that is then rolled back: by a query on the log, and by size.
    s.batch(
        "DO $$ DECLARE n int; BEGIN
           INSERT INTO clinic.patients VALUES ('a', 1, 'kept');
           BEGIN
             INSERT INTO clinic.patients VALUES ('a', 2, 'lost');
             SELECT count(*) INTO n FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE';
             IF n <> 2 THEN RAISE 'the log shows % entries, not 2', n; END IF;
             RAISE division_by_zero;
           EXCEPTION WHEN division_by_zero THEN
             SELECT count(*) INTO n FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE';
             IF n <> 1 THEN RAISE 'after the block the log shows % entries, not 1', n; END IF;
           END;
           BEGIN
             INSERT INTO clinic.patients SELECT 'b', i, repeat('x', 1000) FROM generate_series(1, 3000) i;
             RAISE division_by_zero;
           EXCEPTION WHEN division_by_zero THEN NULL; END;
           BEGIN
             INSERT INTO clinic.patients VALUES ('a', 3, 'kept');
             BEGIN
               INSERT INTO clinic.patients VALUES ('a', 4, 'lost');
               PERFORM count(*) FROM custody.entry;
               RAISE division_by_zero;
             EXCEPTION WHEN division_by_zero THEN NULL; END;
             INSERT INTO clinic.patients VALUES ('b', 5, 'kept');
           EXCEPTION WHEN others THEN RAISE; END;
         END $$",
    );
    assert_eq!(ops(&mut s, "patients"), ["INSERT a 1", "INSERT a 3", "INSERT b 5"]);
    s.assert_valid();
    s.batch(
        "BEGIN; INSERT INTO clinic.patients VALUES ('a', 10); SAVEPOINT x; INSERT INTO clinic.patients VALUES ('a', 11); SAVEPOINT y;
         DELETE FROM clinic.patients WHERE id = 10; SELECT 1 FROM custody.log; ROLLBACK TO x; UPDATE clinic.patients SET name = 'z' WHERE id = 10;
         RELEASE x; SAVEPOINT z; INSERT INTO clinic.patients VALUES ('b', 12); RELEASE z; COMMIT",
    );
    assert_eq!(ops(&mut s, "patients")[3..], ["INSERT a 10", "UPDATE a 10", "INSERT b 12"]);
    s.assert_valid();
    // A rolled-back savepoint does not free the lane: another session gets another one, and nothing forks.
    let (mut one, mut two) = (db.superuser(), db.superuser());
    one.batch("BEGIN; SAVEPOINT s; INSERT INTO clinic.patients VALUES ('a', 20); ROLLBACK TO s");
    two.batch("INSERT INTO clinic.patients VALUES ('a', 21)");
    one.batch("INSERT INTO clinic.patients VALUES ('a', 22); COMMIT");
    s.assert_valid();
}

#[test]
fn what_was_read_inside_the_transaction_is_what_is_committed() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "BEGIN; INSERT INTO clinic.patients VALUES ('a', 1); SAVEPOINT s; INSERT INTO clinic.patients VALUES ('a', 2)",
    );
    let inside: Vec<u8> = s.one("SELECT hash FROM custody.entry WHERE tenant = 'a' AND seq = 1");
    s.batch("ROLLBACK TO s; INSERT INTO clinic.patients VALUES ('a', 3); COMMIT");
    assert_eq!(s.one::<Vec<u8>>("SELECT hash FROM custody.entry WHERE tenant = 'a' AND seq = 1"), inside);
    assert_eq!(ops(&mut s, "patients"), ["INSERT a 1", "INSERT a 3"]);
    s.assert_valid();
}

#[test]
fn the_log_is_readable_inside_its_transaction_by_every_road() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("CREATE FUNCTION seen() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM custody.log WHERE table_name = ''patients'' AND op <> ''SHAPE'''; PREPARE p AS SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'");
    s.batch("BEGIN ISOLATION LEVEL REPEATABLE READ");
    for (n, road) in [
        "SELECT count(*) FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'",
        "SELECT count(*) FROM custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE'",
        "SELECT seen()",
        "EXECUTE p",
        "WITH c AS (SELECT * FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE') SELECT count(*) FROM c",
        "SELECT count(*) FROM custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 1}')",
    ]
    .iter()
    .enumerate()
    {
        let n = n as i64 + 1;
        if n == 1 {
            s.batch("INSERT INTO clinic.patients VALUES ('a', 1)");
        } else {
            s.batch("UPDATE clinic.patients SET name = name || 'x'");
        }
        let rows = s.0.simple_query(road).unwrap();
        let seen = rows.iter().find_map(|m| match m {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(|c| c.parse::<i64>().unwrap()),
            _ => None,
        });
        assert_eq!(seen, Some(n), "{road}");
    }
    s.batch("UPDATE clinic.patients SET name = 'last'");
    let mut copied = String::new();
    std::io::Read::read_to_string(
        &mut s.0.copy_out("COPY custody.entry (op, table_name) TO STDOUT").unwrap(),
        &mut copied,
    )
    .unwrap();
    assert_eq!(copied.lines().filter(|l| l.ends_with("patients") && !l.starts_with("SHAPE")).count(), 7);
    s.batch("INSERT INTO clinic.patients VALUES ('a', 2); DECLARE c CURSOR WITH HOLD FOR SELECT seq FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE'; COMMIT");
    assert_eq!(s.rows("FETCH ALL FROM c", &[]).len(), 8);
    s.assert_valid();
}

#[test]
fn prepared_transactions_keep_their_lane_and_nobody_waits() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let gid = |n: i32| format!("{}_{n}", db.name);
    for n in 0..3 {
        s.batch(&format!("BEGIN; INSERT INTO clinic.patients VALUES ('a', {n}); SAVEPOINT x; INSERT INTO clinic.patients VALUES ('a', 100 + {n}); ROLLBACK TO x; PREPARE TRANSACTION '{}'", gid(n)));
    }
    s.batch("SET lock_timeout = '2s'; INSERT INTO clinic.patients VALUES ('a', 10)");
    s.assert_valid();
    s.batch(&format!("COMMIT PREPARED '{}'", gid(0)));
    s.batch(&format!("ROLLBACK PREPARED '{}'", gid(1)));
    s.batch("INSERT INTO clinic.patients VALUES ('a', 11)");
    s.batch(&format!("COMMIT PREPARED '{}'", gid(2)));
    let mut ids = ops(&mut s, "patients");
    ids.sort();
    assert_eq!(ids, ["INSERT a 0", "INSERT a 10", "INSERT a 11", "INSERT a 2"]);
    s.assert_valid();
}

#[test]
fn isolation_levels_do_not_fork_a_chain() {
    let db = Db::clinic();
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let (mut one, mut two) = (db.superuser(), db.superuser());
        // A snapshot older than the last commit on the lane that will be taken.
        one.batch(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM clinic.visits"));
        two.batch("INSERT INTO clinic.patients SELECT 'a', coalesce(max(id), 0) + 1 FROM clinic.patients");
        one.batch("INSERT INTO clinic.visits SELECT 'a', coalesce(max(id), 0) + 1 FROM clinic.visits; COMMIT");
        two.assert_valid();
    }
}

#[test]
fn images_read_back_exactly_whatever_the_session_prints_like() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TYPE mood AS ENUM ('ok', 'not ok'); CREATE DOMAIN pos AS int CHECK (value > 0); CREATE TYPE pair AS (a int, b text);
         CREATE TABLE kinds (id int PRIMARY KEY, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, b bool, t text, v varchar(20), c char(5), by bytea, u uuid,
           d date, ts timestamp, tz timestamptz, iv interval, tm time, j json, jb jsonb, a int[], ta text[], tsa timestamptz[], m mood, p pos, co pair, r int4range, ip inet,
           bits bit varying(9), rc regclass, mo money, x xml, pt point);
         SELECT custody.audit('kinds');
         SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -5; SET bytea_output = 'escape';
         SET search_path = public, pg_temp; SET quote_all_identifiers = on",
    );
    s.batch(
        r#"INSERT INTO kinds VALUES
         (1, -32768, 9223372036854775807, 0.1, 1.7976931348623157e308, 12345678901234567890.1234567890, true, E'q"\\\u0001\n\u00e9', 'v', 'c', '\x00ff', '6ba7b810-9dad-11d1-80b4-00c04fd430c8',
          '0044-03-15 BC', 'infinity', '2026-03-29 01:30:00.123456+02', '1 year -2 days 03:04:05.6', '24:00', '{"a": 1, "a": 2}', '{"k": [1.50, null]}', '{1,NULL,3}', '{"a,b","c\"d"}',
          '{2026-01-01 00:00+00}', 'not ok', 5, '(1,"x y")', '[1,5)', '10.0.0.1/8', '10101', 'kinds', '12.34', '<a>b</a>', '(1.5,-2)'),
         (2, NULL, NULL, 'NaN', '-Infinity', 'NaN', NULL, '', '', '', '', NULL, 'infinity', '-infinity', NULL, NULL, NULL, '"\u0000"', 'null', '{}', NULL, NULL, NULL, NULL, NULL, 'empty', NULL, '', NULL, NULL, NULL, NULL),
         (3, 0, 0, '-0', '-0', 1.50, false, 'plain', 'p', 'p', 'p', NULL, '2026-01-02', '2026-01-02 03:04:05', 'epoch', '0', '00:00', '[]', '1.50', '{{1,2},{3,4}}', '{}', NULL, 'ok', 1, NULL, '(,)', '::1', '1', NULL, NULL, NULL, NULL)"#,
    );
    // Every value, cast back from its text in the image, is the row's.
    s.batch("RESET ALL; SET TimeZone = UTC; SET DateStyle = ISO; SET extra_float_digits = 1");
    let columns = s.rows("SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 0 ORDER BY attnum", &[]);
    for column in &columns {
        let (name, kind): (String, String) = (column.get(0), column.get(1));
        // json and point have no equality; their text says as much.
        let text = matches!(kind.as_str(), "json" | "point" | "xml");
        let (left, right) = match text {
            true => (format!("(l.new ->> '{name}')"), format!("k.{name}::text")),
            false => (format!("(l.new ->> '{name}')::{kind}"), format!("k.{name}")),
        };
        let wrong = s.count(&format!(
            "kinds k JOIN custody.log l ON (l.new ->> 'id')::int = k.id AND l.table_name = 'kinds' WHERE {left} IS DISTINCT FROM {right}"
        ));
        assert_eq!(wrong, 0, "{name} {kind}");
    }
    assert_eq!(
        s.one::<String>("SELECT new ->> 'f4' || ' ' || (new ->> 'f8') FROM custody.log WHERE new ->> 'id' = '3'"),
        "-0 -0"
    );
    assert_eq!(s.one::<String>("SELECT (new ->> 'rc') || ' ' || (new ->> 'iv') FROM custody.log WHERE table_name = 'kinds' AND new ->> 'id' = '1'"), "public.kinds 1 year -2 days +03:04:05.6");
    s.assert_valid();
}

#[test]
fn a_value_out_of_line_that_did_not_change_is_in_neither_image() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "ALTER TABLE clinic.patients ALTER notes SET STORAGE EXTERNAL; INSERT INTO clinic.patients VALUES ('a', 1, 'Ada', NULL, repeat('long ', 20000));
         UPDATE clinic.patients SET name = 'Ada L'; UPDATE clinic.patients SET notes = 'short'; UPDATE clinic.patients SET notes = repeat('b', 50000); UPDATE clinic.patients SET tenant_id = 'b'",
    );
    let seen: Vec<String> = s
        .rows("SELECT op || ' ' || coalesce(length(old ->> 'notes')::text, '-') || ' ' || coalesce(length(new ->> 'notes')::text, '-') FROM custody.log WHERE table_name = 'patients' AND op NOT IN ('DDL', 'SHAPE') ORDER BY lsn, ordinal", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    // A tenant's own chain holds all it needs: the row that moves in is whole.
    assert_eq!(
        seen,
        ["INSERT - 100000", "UPDATE - -", "UPDATE 100000 5", "UPDATE 5 50000", "MOVE_OUT 50000 -", "MOVE_IN - 50000"]
    );
    s.assert_valid();
}

#[test]
fn rows_that_move_are_two_entries_joined() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'); UPDATE clinic.patients SET tenant_id = 'b'; UPDATE clinic.patients SET id = 2");
    let rows = s.rows(
        "SELECT op || ' ' || tenant || ' ' || (row_key ->> 'id') || ' ' || (old IS NULL) || ' ' || (new IS NULL), move_id::text FROM custody.log WHERE table_name = 'patients' AND op <> 'SHAPE' ORDER BY lsn, ordinal",
        &[],
    );
    let text: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(
        text,
        [
            "INSERT a 1 true false",
            "MOVE_OUT a 1 false true",
            "MOVE_IN b 1 true false",
            "MOVE_OUT b 1 false true",
            "MOVE_IN b 2 true false"
        ]
    );
    let ids: Vec<Option<String>> = rows.iter().map(|r| r.get(1)).collect();
    assert!(ids[1].is_some() && ids[1] == ids[2] && ids[3] == ids[4] && ids[1] != ids[3]);
    // Each tenant finds its own side only.
    let mut app = db.app();
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    assert_eq!(app.count("custody.log WHERE new IS NOT NULL AND op = 'MOVE_IN'"), 0);
    assert_eq!(app.count("custody.log"), 2);
    assert_eq!(app.count("custody.entry"), 2);
    assert_eq!(
        app.rows("SELECT * FROM custody.history('clinic.patients', '{\"tenant_id\": \"b\", \"id\": 2}')", &[]).len(),
        0
    );
    app.batch("COMMIT");
    assert_eq!(app.count("custody.log"), 0);
    s.assert_valid();
}

#[test]
fn excluded_and_redacted_columns() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE people (tenant_id text, id int PRIMARY KEY, ssn text, photo bytea, name text); SELECT custody.protect('people');
         SELECT custody.audit('people', exclude => ARRAY['photo'], redact => ARRAY['ssn']);
         INSERT INTO people VALUES ('a', 1, '999-17-5017', 'p', 'Ada'), ('a', 2, '999-17-5017', 'p', 'Al'), ('b', 3, '999-17-5017', 'p', 'Bo'), ('b', 4, NULL, NULL, 'Cy');
         UPDATE people SET ssn = 'x', photo = 'q' WHERE id = 1",
    );
    assert_eq!(
        s.count(
            "custody.entry WHERE new LIKE '%999-17%' OR old LIKE '%999-17%' OR new LIKE '%photo%' OR old LIKE '%photo%'"
        ),
        s.count("custody.entry WHERE table_name = 'audited_table'")
    );
    let digests: Vec<Option<String>> = s
        .rows(
            "SELECT new ->> 'ssn' FROM custody.log WHERE op = 'INSERT' AND table_name = 'people' ORDER BY new ->> 'id'",
            &[],
        )
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert!(digests[0].as_ref().unwrap().starts_with("hmac:") && digests[0] == digests[1], "{digests:?}");
    assert_ne!(digests[0], digests[2], "digests do not join tenants");
    assert_eq!(digests[3], None);
    for (call, state) in [
        ("exclude => ARRAY['nope']", "UC013"),
        ("exclude => ARRAY['id']", "UC013"),
        ("redact => ARRAY['tenant_id']", "UC013"),
        ("exclude => ARRAY['ssn'], redact => ARRAY['ssn']", "UC013"),
        ("exclude => ARRAY[NULL::name]", "UC013"),
    ] {
        assert_eq!(s.fails(&format!("SELECT custody.audit('people', {call})")), state, "{call}");
    }
    s.assert_valid();
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TEMP TABLE temporary (id int); CREATE UNLOGGED TABLE unlogged (id int); CREATE VIEW v AS SELECT 1 AS id; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id;
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE f (id int) SERVER srv;
         CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE FOREIGN TABLE pf PARTITION OF p FOR VALUES IN (1) SERVER srv",
    );
    for table in ["temporary", "unlogged", "v", "mv", "f", "p", "pg_class", "custody.tenants"] {
        assert_eq!(s.fails(&format!("SELECT custody.audit('{table}')")), "UC032", "{table}");
    }
    s.assert_valid();
}

#[test]
fn nobody_writes_into_the_log_by_a_trigger_of_his_own() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let (stranger, admin) = (format!("{}_stranger", db.name), format!("{}_admin", db.name));
    s.batch(&format!("CREATE ROLE {stranger} LOGIN; CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE SCHEMA s1 AUTHORIZATION {stranger}; CREATE SCHEMA s2 AUTHORIZATION {admin}"));
    let mut session = db.session(&stranger);
    session.batch("CREATE TABLE s1.patients (tenant_id text, id int)");
    assert_eq!(
        session.fails("CREATE TRIGGER t AFTER INSERT ON s1.patients FOR EACH ROW EXECUTE FUNCTION custody.capture()"),
        "42501"
    );
    let mut session = db.session(&admin);
    session.batch("CREATE TABLE s2.patients (tenant_id text, id int); CREATE TRIGGER t AFTER INSERT ON s2.patients FOR EACH ROW EXECUTE FUNCTION custody.capture()");
    assert_eq!(session.fails("INSERT INTO s2.patients VALUES ('a', 1)"), "UC030");
    s.batch("CREATE TABLE other (id int); CREATE TRIGGER t BEFORE TRUNCATE ON other FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate()");
    assert_eq!(s.fails("TRUNCATE other"), "UC030");
    assert_eq!(session.fails("SELECT custody.capture()"), "UC013");
    s.assert_valid();
}

#[test]
fn the_log_is_append_only_for_everyone() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1)");
    for attempt in [
        "UPDATE custody.entry SET op = 'x'",
        "DELETE FROM custody.entry",
        "TRUNCATE custody.entry",
        "INSERT INTO custody.entry SELECT * FROM custody.entry",
        "SET session_replication_role = replica; DELETE FROM custody.entry",
        "MERGE INTO custody.entry USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE",
    ] {
        assert_eq!(s.fails(attempt), "UC031", "{attempt}");
    }
    // And the capture triggers fire in a replica's session too.
    s.batch("SET session_replication_role = replica; INSERT INTO clinic.patients VALUES ('a', 2); RESET session_replication_role");
    assert_eq!(ops(&mut s, "patients"), ["INSERT a 1", "INSERT a 2"]);
    s.assert_valid();
    let mut app = db.app();
    for attempt in [
        "INSERT INTO custody.entry DEFAULT VALUES",
        "UPDATE custody.entry SET op = 'x'",
        "DELETE FROM custody.entry",
        "TRUNCATE custody.entry",
        "SELECT * FROM custody.signing_key",
    ] {
        assert_eq!(app.fails(attempt), "42501", "{attempt}");
    }
}

#[test]
fn ddl_on_audited_tables_is_recorded_and_capture_goes_on() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'); ALTER TABLE clinic.patients ADD phone text DEFAULT '0'; ALTER TABLE clinic.patients DROP COLUMN notes;
         ALTER TABLE clinic.patients ALTER id TYPE bigint; ALTER TABLE clinic.patients RENAME name TO full_name; UPDATE clinic.patients SET full_name = 'Ada L';
         ALTER TABLE clinic.patients RENAME TO people; INSERT INTO clinic.people VALUES ('a', 2, 'Al'); CREATE TABLE elsewhere (id int); DROP TABLE clinic.visits",
    );
    let ddl: Vec<String> = s.rows("SELECT new ->> 'command' || ' ' || (new ->> 'object') FROM custody.log WHERE op = 'DDL' ORDER BY lsn, ordinal", &[]).iter().map(|r| r.get(0)).collect();
    assert_eq!(
        ddl,
        [
            "ALTER TABLE clinic.patients",
            "DROP COLUMN clinic.patients.notes",
            "ALTER TABLE clinic.patients",
            "ALTER TABLE clinic.patients",
            "ALTER TABLE clinic.patients.full_name",
            "ALTER TABLE clinic.people",
            "DROP TABLE clinic.visits"
        ]
    );
    let images: Vec<String> = s.rows("SELECT op || ' ' || table_name || ' ' || new::text FROM custody.log WHERE tenant = 'a' ORDER BY lsn, ordinal", &[]).iter().map(|r| r.get(0)).collect();
    assert_eq!(
        images[1..],
        [
            r#"UPDATE patients {"id": 1, "born": null, "phone": "0", "full_name": "Ada L", "tenant_id": "a"}"#,
            r#"INSERT people {"id": 2, "born": null, "phone": "0", "full_name": "Al", "tenant_id": "a"}"#
        ]
    );
    assert_eq!(s.count("custody.audited_table"), 1, "a dropped table is forgotten");
    s.assert_valid();
}

#[test]
fn a_lost_key_stops_writing_and_loses_nothing() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let key: String = s
        .one("SELECT current_setting('data_directory') || '/pg_custody/' || key_id || '.key' FROM custody.signing_key");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap()) & 0o777, 0o600);
    // By default another key takes over: tests/tests/keys.rs.
    s.batch(&format!("ALTER DATABASE {} SET custody.recover_lost_key = off", db.name));
    std::fs::rename(&key, format!("{key}.away")).unwrap();
    let mut fresh = db.superuser();
    assert_eq!(fresh.fails("INSERT INTO clinic.patients VALUES ('a', 1)"), "UC034");
    assert_eq!(fresh.count("clinic.patients"), 0);
    fresh.assert_valid();
    std::fs::rename(format!("{key}.away"), &key).unwrap();
    fresh.batch("INSERT INTO clinic.patients VALUES ('a', 1)");
    fresh.assert_valid();
    // A file that others may read is not used.
    std::process::Command::new("chmod").args(["644", &key]).status().unwrap();
    assert_eq!(db.superuser().fails("INSERT INTO clinic.patients VALUES ('a', 2)"), "UC034");
    // The way out: a new life with a new key, which nothing old vouches for.
    std::fs::remove_file(&key).unwrap();
    let mut s = db.superuser();
    s.batch("SELECT custody.new_incarnation('key lost'); INSERT INTO clinic.patients VALUES ('a', 2)");
    assert_eq!(s.verify(""), ("valid".into(), vec!["key_recovered".into()]));
    assert_eq!(s.count("custody.signing_key WHERE predecessor IS NULL"), 2);
    assert_eq!(s.count("clinic.patients"), 2);
}

#[test]
fn a_rolled_back_installation_leaves_no_key() {
    let db = Db::bare();
    let mut s = db.superuser();
    let dir: String = s.one("SELECT current_setting('data_directory') || '/pg_custody'");
    let count = || std::fs::read_dir(&dir).map_or(0, Iterator::count);
    s.batch("BEGIN; CREATE EXTENSION pg_custody");
    let key: String = s.one("SELECT key_id || '.key' FROM custody.signing_key");
    assert!(count() > 0 && std::path::Path::new(&dir).join(&key).exists());
    s.batch("ROLLBACK");
    assert!(!std::path::Path::new(&dir).join(&key).exists());
    s.batch("CREATE EXTENSION pg_custody");
    s.batch("DROP EXTENSION pg_custody");
    s.batch("CREATE EXTENSION pg_custody");
    // A log of somebody's rows does not go with the extension unless that is meant; whoever is told so loses nothing.
    s.batch(
        "CREATE TABLE patients (id int PRIMARY KEY); SELECT custody.audit('patients'); INSERT INTO patients VALUES (1)",
    );
    for drop in ["DROP EXTENSION pg_custody CASCADE", "DROP EXTENSION IF EXISTS plpgsql, pg_custody CASCADE"] {
        assert_eq!(s.fails(drop), "UC066");
    }
    assert_eq!(db.superuser().fails("DROP EXTENSION pg_custody CASCADE"), "UC066");
    assert_eq!(s.count("custody.log WHERE table_name = 'patients' AND op = 'INSERT'"), 1);
    s.assert_valid();
    s.batch(&format!("CREATE ROLE {0} LOGIN IN ROLE custody_app", db.app_name()));
    assert_eq!(db.app().fails("SELECT custody.tenant(); SET custody.drop_log = on"), "42501");
    s.batch("BEGIN; SET LOCAL custody.drop_log = on; DROP EXTENSION pg_custody CASCADE; COMMIT; DROP TABLE patients");
    s.batch("CREATE EXTENSION pg_custody");
    // What this transaction recorded would be lost with the log that it was to be written to.
    s.batch("BEGIN; SELECT custody.create_tenant('a', 'A'); SAVEPOINT s; DROP EXTENSION pg_custody");
    assert_eq!(s.fails("CREATE EXTENSION pg_custody"), "UC091");
    s.batch("ROLLBACK TO s; COMMIT");
    s.assert_valid();
}

#[test]
fn one_transaction_may_touch_thousands_of_tenants() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients SELECT 't' || i, 1, 'x' FROM generate_series(1, 10000) i");
    let locks: i64 = s.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
    assert_eq!(locks, 0);
    s.batch("BEGIN; UPDATE clinic.patients SET name = 'y' WHERE tenant_id < 't2'");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"), 1);
    s.batch("COMMIT");
    s.assert_valid();
}
