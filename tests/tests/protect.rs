//! custody.protect on tables in use, the keys of tenants, and whole schemas.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use custody_tests::{Db, Session};

/// A database with a login role that may assume tenants a and b.
fn database() -> Db {
    let db = Db::new();
    let app = db.app_name();
    db.superuser().batch(&format!(
        "SELECT custody.create_tenant('a', 'A'), custody.create_tenant('b', 'B');
         CREATE ROLE {app} LOGIN IN ROLE custody_app; SELECT custody.allow_assume('{app}', ARRAY['a', 'b'])"
    ));
    db
}

/// Runs the script of a table, statement by statement, as psql's \gexec would.
fn run_script(s: &mut Session, table: &str) -> Vec<String> {
    let lines: Vec<String> =
        s.rows("SELECT custody.protect_script($1::text::regclass)", &[&table]).iter().map(|r| r.get(0)).collect();
    for line in &lines {
        s.batch(line);
    }
    lines
}

/// Runs what custody.tenant_key_script offers, statement by statement, and gives what it cannot mend.
fn run_key_script(s: &mut Session, table: &str) -> Vec<String> {
    let rows = s.rows("SELECT sql, lock FROM custody.tenant_key_script($1::text::regclass) ORDER BY step", &[&table]);
    let mut remarks = Vec::new();
    for row in &rows {
        match row.get::<_, &str>(1) {
            "report" => remarks.push(row.get(0)),
            _ => s.batch(row.get(0)),
        }
    }
    remarks
}

/// All that the catalogs say of the tables whose names begin with `prefix`.
fn catalog(s: &mut Session, prefix: &str) -> Vec<String> {
    const CATALOG: &str = "WITH t AS (SELECT * FROM pg_class WHERE relname LIKE $1::text || '%' AND relkind IN ('r', 'p'))
        SELECT format('%s %s %s', relname, relrowsecurity, relforcerowsecurity) FROM t
        UNION ALL SELECT format('%s.%s %s %s', relname, attname, attnotnull, pg_get_expr(d.adbin, d.adrelid)) FROM t JOIN pg_attribute a ON attrelid = t.oid AND attnum > 0
          LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
        UNION ALL SELECT format('%s %s %s', relname, polname, pg_get_expr(polqual, polrelid)) FROM t JOIN pg_policy ON polrelid = t.oid
        UNION ALL SELECT format('%s %s %s', relname, tgname, tgenabled) FROM t JOIN pg_trigger ON tgrelid = t.oid WHERE NOT tgisinternal
        UNION ALL SELECT format('%s %s', relname, pg_get_indexdef(indexrelid)) FROM t JOIN pg_index ON indrelid = t.oid
        UNION ALL SELECT format('%s %s %s', relname, conname, pg_get_constraintdef(k.oid)) FROM t JOIN pg_constraint k ON conrelid = t.oid
        ORDER BY 1";
    s.rows(CATALOG, &[&prefix]).iter().map(|r| r.get(0)).collect()
}

fn findings(s: &mut Session, ids: &[&str]) -> Vec<String> {
    s.rows("SELECT id || ' ' || object || ' ' || explanation FROM custody.coverage() WHERE id = ANY ($1)", &[&ids])
        .iter()
        .map(|r| r.get(0))
        .collect()
}

#[test]
fn the_script_protects_step_by_step_and_unprotect_takes_all_of_it_back() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE live (tenant_id text, id int); INSERT INTO live SELECT 'a', i FROM generate_series(1, 1000) i;
         CREATE TABLE live_parts (tenant_id uuid, id int) PARTITION BY RANGE (id);
         CREATE TABLE live_parts_1 PARTITION OF live_parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE live_parts_2 PARTITION OF live_parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE live_parts_2a PARTITION OF live_parts_2 FOR VALUES FROM (10) TO (20);
         CREATE TABLE \"live odd's\" (tenant_id int, \"x\\y\" int);
         CREATE TABLE live_own (tenant_id bigint NOT NULL DEFAULT 7, id int); CREATE INDEX live_own_index ON live_own (tenant_id, id);
         ALTER TABLE live_own ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON live_own USING (true);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER theirs AFTER INSERT ON live_own FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
    );
    let before = catalog(&mut s, "live");
    for table in ["live", "live_parts", "\"live odd's\"", "live_own"] {
        // The steps of dry_run are those of the script, and the instant ones.
        let dry: Vec<(String, String)> = s
            .rows("SELECT sql, lock FROM custody.protect($1::text::regclass, dry_run => true)", &[&table])
            .iter()
            .map(|r| (r.get(0), r.get(1)))
            .collect();
        for (sql, lock) in &dry {
            assert!(
                lock.contains("nobody waits") || lock.contains("for an instant") || lock == "report",
                "{table}: {sql}: {lock}"
            );
        }
        if table != "live_own" {
            assert_eq!(s.fails(&format!("SELECT custody.protect_prepared('{}')", table.replace('\'', "''"))), "UC047");
        }
        let lines = run_script(&mut s, table);
        for line in &lines {
            let ours = line.contains("lock_timeout") || line.contains("protect_prepared");
            assert!(ours || dry.iter().any(|d| d.0 == *line), "{line} is in {dry:#?}");
        }
        // Again there is nothing to do, for any of the three.
        assert_eq!(run_script(&mut s, table), Vec::<String>::new());
        let again = s.rows(
            "SELECT 1 FROM custody.protect($1::text::regclass) WHERE lock <> 'report'
             UNION ALL SELECT 1 FROM custody.protect($1::text::regclass, dry_run => true) WHERE lock <> 'report'",
            &[&table],
        );
        assert_eq!(again.len(), 0);
    }
    assert_eq!(
        findings(&mut s, &["CU001", "CU002", "CU005", "CU007", "CU008", "CU009", "CU010"]),
        Vec::<String>::new()
    );
    let invalid = s.count("pg_index WHERE NOT indisvalid");
    assert_eq!((invalid, s.count("pg_constraint WHERE conname = 'custody_tenant_not_null'")), (0, 0));
    for table in ["live", "live_parts", "\"live odd''s\"", "live_own"] {
        s.batch(&format!("SELECT custody.unprotect('{table}')"));
    }
    assert_eq!(catalog(&mut s, "live"), before);
}

#[test]
fn a_script_that_was_interrupted_goes_on_where_it_stopped() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE live (tenant_id text, id int); INSERT INTO live SELECT 'a', i FROM generate_series(1, 1000) i;
         CREATE TABLE parts (tenant_id text, id int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10000);
         INSERT INTO parts SELECT 'a', i FROM generate_series(1, 1000) i",
    );
    let mut other = db.superuser();
    for (table, leaf) in [("live", "live"), ("parts", "parts_1")] {
        let before = catalog(&mut s, table);
        // CREATE INDEX CONCURRENTLY is stopped while it waits for another transaction: it leaves an index that is none.
        other.batch(&format!("BEGIN; INSERT INTO {table} VALUES ('a', 0)"));
        let create = s.one::<String>(&format!("SELECT * FROM custody.protect_script('{table}') LIMIT 1"));
        assert!(create.starts_with("CREATE INDEX CONCURRENTLY"), "{create}");
        s.batch("SET lock_timeout = '200ms'");
        assert_eq!(s.fails(&create), "55P03");
        s.batch("RESET lock_timeout");
        other.batch("ROLLBACK");
        assert_eq!(s.count(&format!("pg_index WHERE NOT indisvalid AND indrelid = '{leaf}'::regclass")), 1);
        // The check stands but is not validated.
        s.batch(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT custody_tenant_not_null CHECK (tenant_id IS NOT NULL) NOT VALID"
        ));
        let lines = run_script(&mut s, table);
        assert!(lines[0].starts_with("DROP INDEX CONCURRENTLY"), "{lines:#?}");
        assert!(!lines.iter().any(|l| l.contains("NOT VALID")), "{lines:#?}");
        assert_eq!(s.count("pg_index WHERE NOT indisvalid"), 0);
        s.batch(&format!("SELECT custody.unprotect('{table}')"));
        assert_eq!(catalog(&mut s, table), before);
        // Plain protect mends both as well.
        other.batch(&format!("BEGIN; INSERT INTO {table} VALUES ('a', 0)"));
        s.batch("SET lock_timeout = '200ms'");
        assert_eq!(s.fails(&create), "55P03");
        s.batch("RESET lock_timeout");
        other.batch("ROLLBACK");
        s.batch(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT custody_tenant_not_null CHECK (tenant_id IS NOT NULL) NOT VALID"
        ));
        s.batch(&format!("SELECT custody.protect('{table}')"));
        assert_eq!(s.count("pg_index WHERE NOT indisvalid"), 0);
        assert!(!findings(&mut s, &["CU007", "CU010"]).iter().any(|f| f.contains(&format!("public.{table} "))));
        s.batch(&format!("SELECT custody.unprotect('{table}')"));
        assert_eq!(catalog(&mut s, table), before);
    }
    // A row without a tenant is found before anything is locked for long, and nothing is half done.
    s.batch("INSERT INTO live VALUES (NULL, 1)");
    let lines: Vec<String> = s.rows("SELECT custody.protect_script('live')", &[]).iter().map(|r| r.get(0)).collect();
    let failed = lines.iter().find_map(|line| s.0.batch_execute(line).err()).unwrap();
    assert_eq!(custody_tests::state(&failed), "23514");
    s.batch("RESET lock_timeout");
    assert_eq!(s.fails("SELECT custody.protect_prepared('live')"), "UC047");
    assert_eq!(s.fails("SELECT custody.protect('live')"), "23502");
    assert_eq!(s.count("custody.registered_table WHERE kind = 'protected'"), 0);
}

/// A statement that must wait behind a reader for a moment gives up, and those behind it go on.
#[test]
fn no_step_of_the_script_keeps_others_waiting_behind_a_long_transaction() {
    let db = database();
    let mut s = db.superuser();
    s.batch("CREATE TABLE live (tenant_id text NOT NULL, id int); CREATE INDEX ON live (tenant_id); INSERT INTO live VALUES ('a', 1)");
    let mut long = db.superuser();
    long.batch("BEGIN; SELECT * FROM live");
    let lines: Vec<String> = s
        .rows("SELECT custody.protect_script('live', lock_timeout => '300ms')", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    let mut writer = db.superuser();
    let stop = &AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                writer.batch("INSERT INTO live VALUES ('a', 1)");
                longest = longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            longest
        });
        let failed = lines.iter().find_map(|line| s.0.batch_execute(line).err()).unwrap();
        assert_eq!(custody_tests::state(&failed), "55P03");
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap()
    });
    println!("longest pause of a writer behind a step that gave up: {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    long.batch("COMMIT");
    s.batch("RESET lock_timeout");
    run_script(&mut s, "live");
    assert_eq!(s.count("custody.registered_table WHERE kind = 'protected'"), 1);
}

/// Writers that never stop, while a table is protected; how long one of their statements took at most.
fn longest_pause(db: &Db, table: &str, protect: impl FnOnce(&mut Session)) -> (Duration, Duration, u32) {
    let (stop, written) = (&AtomicBool::new(false), &AtomicU32::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let mut session = db.app();
                scope.spawn(move || {
                    let (mut longest, mut key) = (Duration::ZERO, 1_000_000_000 + writer * 100_000_000);
                    while !stop.load(Ordering::Relaxed) {
                        key += 1;
                        let begun = Instant::now();
                        session.as_tenant("a", &format!("INSERT INTO {table} VALUES ('a', {key}, 'new'); UPDATE {table} SET body = 'x' WHERE tenant_id = 'a' AND id = {}", key % 1000));
                        longest = longest.max(begun.elapsed());
                        written.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    longest
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        protect(&mut db.superuser());
        let took = begun.elapsed();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let longest = writers.into_iter().map(|w| w.join().unwrap()).max().unwrap();
        (longest, took, written.load(Ordering::Relaxed))
    })
}

#[test]
fn a_live_table_is_protected_under_load() {
    const ROWS: u32 = 300_000;
    let db = database();
    let mut s = db.superuser();
    let app = db.app_name();
    for table in ["online", "at_once"] {
        s.batch(&format!(
            "CREATE TABLE {table} (tenant_id text, id bigint, body text); CREATE INDEX ON {table} (id);
             INSERT INTO {table} SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, i, repeat('x', 100) FROM generate_series(1, {ROWS}) i;
             GRANT SELECT, INSERT, UPDATE ON {table} TO {app}"
        ));
    }
    s.batch("VACUUM ANALYZE");
    let online = longest_pause(&db, "online", |s| drop(run_script(s, "online")));
    let at_once = longest_pause(&db, "at_once", |s| s.batch("SELECT custody.protect('at_once')"));
    println!(
        "{ROWS} rows, 3 writers (longest pause, whole time, transactions): script {online:?}, at once {at_once:?}"
    );
    for table in ["online", "at_once"] {
        assert_eq!(s.count(&format!("{table} WHERE tenant_id IS NULL")), 0);
        assert_eq!(s.count(&format!("custody.registered_table WHERE target = '{table}'::regclass")), 1);
    }
    // What takes long lets others write; how long an instant is depends on the machine.
    assert!(online.0 < Duration::from_secs(3), "{online:?}");
    let mut app = db.app();
    assert_eq!(app.count("online"), 0);
    assert_eq!(app.fails("UPDATE online SET body = NULL"), "UC001");
}

#[test]
fn released_savepoints_leave_no_memory_behind() {
    let db = database();
    let app = db.app_name();
    db.superuser().batch(&format!(
        "CREATE TABLE notes (tenant_id text, id int, PRIMARY KEY (tenant_id, id)); SELECT custody.protect('notes'); SELECT custody.audit('notes');
         GRANT SELECT, INSERT, UPDATE ON notes TO {app};
         CREATE TABLE plain (tenant_id text, id int); GRANT INSERT ON plain TO {app};
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION nothing();
         CREATE FUNCTION deep(target regclass, id int, depth int) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           IF depth = 0 THEN EXECUTE format('INSERT INTO %s VALUES (''a'', $1)', target) USING id; RETURN; END IF;
           BEGIN PERFORM deep(target, id, depth - 1); EXCEPTION WHEN division_by_zero THEN NULL; END;
         END $$;
         CREATE FUNCTION kept() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$
           SELECT coalesce(sum(total_bytes), 0)::bigint FROM pg_backend_memory_contexts WHERE name = 'CurTransactionContext' $$"
    ));
    let mut s = db.app();
    let mut kept = |table: &str| {
        s.batch("BEGIN; SELECT custody.assume_tenant('a')");
        s.batch(&format!("DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM deep('{table}', i, 5); END LOOP; END $$"));
        let kept = s.one::<i64>("SELECT kept()");
        s.batch("COMMIT");
        kept
    };
    let (ours, a_trigger) = (kept("notes"), kept("plain"));
    assert!(ours < 500_000, "{ours} bytes are kept for 500 rows");
    // PostgreSQL keeps 8 kB a savepoint for any statement trigger; should it stop, so can we.
    assert!(a_trigger > 500 * 8192, "PostgreSQL keeps {a_trigger} bytes: give_memory_back is needed no more");
    let mut superuser = db.superuser();
    assert_eq!(superuser.count("notes"), 500);
    superuser.assert_valid();
    // A savepoint that holds something, here a notification, keeps it.
    superuser.batch("LISTEN told");
    let mut s = db.app();
    s.batch("BEGIN; SELECT custody.assume_tenant('a'); SAVEPOINT a; SAVEPOINT b; INSERT INTO notes VALUES ('a', 1000); NOTIFY told, 'kept'; RELEASE b; RELEASE a; SAVEPOINT c;
             INSERT INTO notes VALUES ('a', 1001); ROLLBACK TO c; COMMIT");
    superuser.batch("SELECT 1");
    let told: Vec<String> = {
        use postgres::fallible_iterator::FallibleIterator;
        superuser
            .0
            .notifications()
            .timeout_iter(Duration::from_secs(2))
            .take(1)
            .map(|n| Ok(n.payload().to_owned()))
            .collect()
            .unwrap()
    };
    assert_eq!(told, ["kept"]);
}

/// Whether a statement as tenant a, through the constrained role, fails, and how; rolled back.
fn attempt(db: &Db, sql: &str) -> Result<(), String> {
    let mut app = db.app();
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    app.0.batch_execute(&format!("{sql}; SET CONSTRAINTS ALL IMMEDIATE")).map_err(|e| custody_tests::state(&e))
}

const ORACLES: [&str; 2] = ["CU011", "CU012"];

#[test]
fn the_offered_keys_end_the_oracles() {
    let db = database();
    let mut s = db.superuser();
    let app = db.app_name();
    s.batch(&format!(
        "CREATE TABLE person (tenant_id text NOT NULL, id int PRIMARY KEY, code text, email text, room int, during int4range,
           UNIQUE NULLS NOT DISTINCT (code) INCLUDE (email), UNIQUE (id, code) DEFERRABLE INITIALLY DEFERRED, EXCLUDE USING gist (during WITH &&));
         CREATE UNIQUE INDEX \"Person's mail\" ON person (lower(email)) WHERE email <> '';
         CREATE TABLE stay (tenant_id text NOT NULL, id uuid DEFAULT gen_random_uuid() PRIMARY KEY, person int REFERENCES person ON DELETE SET NULL,
           deputy int CONSTRAINT deputy_fk REFERENCES person (id) ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE site (org text NOT NULL, a int, b int, PRIMARY KEY (b, a));
         CREATE TABLE bed (tenant_id text NOT NULL, id int PRIMARY KEY, a int, b int, note text, up int REFERENCES bed,
           CONSTRAINT site_fk FOREIGN KEY (a, b) REFERENCES site (a, b) MATCH FULL ON DELETE SET NULL (b));
         CREATE TABLE day (tenant_id text NOT NULL, id int, d int, person int, PRIMARY KEY (id, d), FOREIGN KEY (person) REFERENCES person ON DELETE RESTRICT) PARTITION BY RANGE (d);
         CREATE TABLE day_1 PARTITION OF day FOR VALUES FROM (0) TO (10); CREATE TABLE day_2 PARTITION OF day FOR VALUES FROM (10) TO (20);
         CREATE TABLE visit (tenant_id text NOT NULL, id int, day int, d int, FOREIGN KEY (day, d) REFERENCES day ON DELETE CASCADE);
         INSERT INTO person SELECT t, CASE t WHEN 'a' THEN 0 ELSE 100 END + i, t || i, t || i || '@x', i, int4range(CASE t WHEN 'a' THEN 0 ELSE 100 END + i, CASE t WHEN 'a' THEN 0 ELSE 100 END + i + 1)
           FROM generate_series(1, 50) i, unnest(ARRAY['a', 'b']) t;
         INSERT INTO stay (tenant_id, person, deputy) SELECT tenant_id, id, id FROM person; INSERT INTO stay (tenant_id) VALUES ('a');
         INSERT INTO site SELECT t, CASE t WHEN 'a' THEN 0 ELSE 100 END + i, 1 FROM generate_series(1, 50) i, unnest(ARRAY['a', 'b']) t;
         INSERT INTO bed SELECT org, a, a, b FROM site; INSERT INTO bed (tenant_id, id) VALUES ('a', 1000); UPDATE bed SET up = id;
         INSERT INTO day SELECT tenant_id, id, id % 20, id FROM person; INSERT INTO visit SELECT tenant_id, id, id, d FROM day;
         GRANT SELECT, INSERT, UPDATE, DELETE ON person, stay, site, bed, day, visit TO {app}"
    ));
    for table in ["person", "stay", "bed", "day", "visit"] {
        s.batch(&format!("SELECT custody.protect('{table}')"));
    }
    s.batch("SELECT custody.protect('site', 'org')");

    // The oracles are real: what tenant b has, tenant a is told of.
    let unique = [
        "INSERT INTO person (id) VALUES (101)",
        "INSERT INTO person (id, code) VALUES (1000, 'b1')",
        "INSERT INTO person (id, email) VALUES (1000, 'B1@X')",
        "INSERT INTO person (id, during) VALUES (1000, '[101,102)')",
        "INSERT INTO site (a, b) VALUES (101, 1)",
        "INSERT INTO bed (id) VALUES (101)",
        "INSERT INTO day (id, d, person) VALUES (101, 1, 1)",
    ];
    let foreign = [
        "INSERT INTO stay (person) VALUES (101)",
        "INSERT INTO stay (deputy) VALUES (101)",
        "INSERT INTO bed (id, a, b) VALUES (2000, 101, 1)",
        "INSERT INTO bed (id, up) VALUES (2000, 101)",
        "INSERT INTO day (id, d, person) VALUES (2000, 1, 101)",
        "INSERT INTO visit (id, day, d) VALUES (2000, 101, 1)",
    ];
    for sql in unique {
        let state = attempt(&db, sql).expect_err(sql);
        assert!(["23505", "23P01"].contains(&&*state), "{sql}: {state}");
    }
    for sql in foreign {
        assert_eq!(attempt(&db, sql), Ok(()), "{sql}");
    }
    let found = findings(&mut s, &ORACLES);
    assert!(found.len() >= 14, "{found:#?}");
    // Protect reports each, with SQL, and touches none.
    let reports = s.rows("SELECT sql FROM custody.protect('person') WHERE lock = 'report'", &[]);
    assert!(reports.len() >= 8, "{}", reports.len());
    for row in &reports {
        let sql: String = row.get(0);
        assert!(sql.starts_with("-- ") && sql.contains(";\n") || sql.ends_with(';'), "{sql}");
    }
    assert_eq!(findings(&mut s, &ORACLES), found);

    let keys = |s: &mut Session| -> Vec<String> {
        s.rows(
            "SELECT format('%s %s %s %s', conrelid::regclass, conname, contype, convalidated) FROM pg_constraint
             WHERE conparentid = 0 AND conrelid::regclass::text IN ('person', 'stay', 'site', 'bed', 'day', 'visit') ORDER BY 1",
            &[],
        )
        .iter()
        .map(|r| r.get(0))
        .collect()
    };
    let before = keys(&mut s);
    for table in ["person", "stay", "site", "bed", "day", "visit"] {
        assert_eq!(run_key_script(&mut s, table), Vec::<String>::new(), "{table}");
    }
    assert_eq!(findings(&mut s, &ORACLES), Vec::<String>::new());
    for table in ["person", "stay", "site", "bed", "day", "visit"] {
        assert_eq!(
            s.rows("SELECT 1 FROM custody.tenant_key_script($1::text::regclass)", &[&table]).len(),
            0,
            "{table}"
        );
    }
    // The same constraints by the same names, and the check that MATCH FULL became.
    let after: Vec<_> = keys(&mut s).into_iter().filter(|k| !k.contains("match_full")).collect();
    assert_eq!(after, before);
    assert_eq!(s.count("pg_class WHERE relname LIKE 'custody\\_key\\_%' AND relname NOT IN (SELECT relname FROM pg_class c JOIN pg_depend d ON d.refobjid = c.oid AND d.deptype = 'n')"), 0);

    for sql in unique {
        assert_eq!(attempt(&db, sql), Ok(()), "{sql}");
    }
    for sql in foreign {
        assert_eq!(attempt(&db, sql), Err("23503".into()), "{sql}");
    }
    // What they meant within a tenant they still mean.
    for (sql, state) in [
        ("INSERT INTO person (id) VALUES (1)", "23505"),
        ("INSERT INTO person (id, code) VALUES (1000, 'a1')", "23505"),
        ("INSERT INTO person (id) VALUES (1000), (1001)", "23505"),
        ("INSERT INTO person (id, code, email) VALUES (1000, 'x', 'A1@x')", "23505"),
        ("INSERT INTO person (id, code, during) VALUES (1000, 'x', '[1,2)')", "23P01"),
        ("INSERT INTO site (a, b) VALUES (1, 1)", "23505"),
        ("INSERT INTO bed (id, a) VALUES (2000, 1)", "23514"),
        ("INSERT INTO day (id, d, person) VALUES (1, 1, 1)", "23505"),
        ("DELETE FROM visit; DELETE FROM person WHERE id = 1", "23503"),
    ] {
        assert_eq!(attempt(&db, sql), Err(state.into()), "{sql}");
    }
    // SET NULL takes the reference away and leaves the tenant; a deferred key waits for the end; NO ACTION and CASCADE go on as before.
    s.batch("DELETE FROM day WHERE id <= 2");
    s.batch(
        "BEGIN; DELETE FROM person WHERE id = 1;
         DO $$ BEGIN ASSERT (SELECT count(*) FROM stay WHERE tenant_id = 'a' AND person IS NULL) = 1; END $$;
         DO $$ BEGIN ASSERT (SELECT count(*) FROM stay WHERE deputy = 1) = 0; END $$; ROLLBACK;
         BEGIN; UPDATE stay SET deputy = NULL; DELETE FROM person WHERE id = 1;
         DO $$ BEGIN ASSERT (SELECT count(*) FROM stay WHERE tenant_id = 'a' AND person IS NULL) = 2; END $$; ROLLBACK;
         BEGIN; INSERT INTO stay (tenant_id, deputy) VALUES ('a', 777); INSERT INTO person (tenant_id, id, code) VALUES ('a', 777, 'x'); COMMIT;
         BEGIN; UPDATE stay SET person = NULL WHERE person = 2; UPDATE person SET id = 999 WHERE id = 2;
         DO $$ BEGIN ASSERT (SELECT tenant_id FROM stay WHERE deputy = 999) = 'a'; END $$; ROLLBACK;
         BEGIN; DELETE FROM visit; DELETE FROM day WHERE id = 3; DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM day WHERE id = 3); END $$; ROLLBACK",
    );
    assert!(
        s.0.batch_execute("BEGIN; DELETE FROM site WHERE a = 1").is_err(),
        "SET NULL (b) alone breaks MATCH FULL, as before"
    );
    s.batch("ROLLBACK");
}

#[test]
fn keys_that_no_sql_mends_are_named_and_interrupted_scripts_go_on() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE t (tenant_id text NOT NULL, id int PRIMARY KEY, email text UNIQUE, UNIQUE (tenant_id, email)); CREATE TABLE stranger (id int, t int REFERENCES t);
         CREATE TABLE u (tenant_id text NOT NULL, id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY); CREATE TABLE v (tenant_id text NOT NULL, u int REFERENCES u ON UPDATE SET NULL);
         INSERT INTO u SELECT 'a', i FROM generate_series(1, 100) i; INSERT INTO v SELECT 'a', i FROM generate_series(1, 100) i;
         SELECT custody.protect(x) FROM unnest(ARRAY['t', 'u', 'v']::regclass[]) x",
    );
    // The key that a table without a tenant refers to cannot be mended; the redundant one needs no index.
    let remarks = run_key_script(&mut s, "t");
    assert_eq!(remarks.len(), 1, "{remarks:#?}");
    assert!(remarks[0].contains("stranger_t_fkey") || remarks[0].contains("stranger.stranger_t_fkey"), "{remarks:#?}");
    assert_eq!(findings(&mut s, &ORACLES).len(), 3, "t's key, u's key, v's reference");
    assert_eq!(s.count("pg_constraint WHERE conrelid = 't'::regclass AND contype = 'u'"), 1);
    // The sequence is told of.
    assert_eq!(
        s.rows("SELECT 1 FROM custody.protect('u') WHERE lock = 'report' AND sql LIKE '-- sequence%'", &[]).len(),
        1
    );
    // Stopped after every statement, and asked again.
    let mut steps = 0;
    while let Some(row) =
        s.rows("SELECT sql FROM custody.tenant_key_script('v') WHERE lock <> 'report' LIMIT 1", &[]).first()
    {
        s.batch(row.get(0));
        steps += 1;
        assert!(steps < 20);
    }
    while let Some(row) =
        s.rows("SELECT sql FROM custody.tenant_key_script('u') WHERE lock <> 'report' LIMIT 1", &[]).first()
    {
        s.batch(row.get(0));
        steps += 1;
        assert!(steps < 20);
    }
    assert_eq!(findings(&mut s, &ORACLES).len(), 1);
    let odd: String = s.one("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'v_u_fkey'");
    assert_eq!(odd, "FOREIGN KEY (tenant_id, u) REFERENCES u(tenant_id, id)");
    assert_eq!(s.fails("SELECT custody.tenant_key_script('stranger')"), "UC021");

    // A reference to another tenant's row that is already there is found, and named by PostgreSQL.
    s.batch("CREATE TABLE crossed (tenant_id text NOT NULL, u int); CREATE TABLE u2 (tenant_id text NOT NULL, id int PRIMARY KEY); ALTER TABLE crossed ADD FOREIGN KEY (u) REFERENCES u2; INSERT INTO u2 VALUES ('b', 1); INSERT INTO crossed VALUES ('a', 1);
             SELECT custody.protect('u2'), custody.protect('crossed')");
    let lines = s.rows("SELECT sql FROM custody.tenant_key_script('crossed') ORDER BY step", &[]);
    let failed =
        lines.iter().find_map(|row| s.0.batch_execute(row.get(0)).err().map(|e| (row.get::<_, String>(0), e))).unwrap();
    assert!(failed.0.contains("VALIDATE"), "{}", failed.0);
    assert_eq!(custody_tests::state(&failed.1), "23503");

    // PostgreSQL checks a new foreign key with a query that row-level security empties, for an owner that it holds: not with us.
    let owner = format!("{}_owner", db.name);
    s.batch(&format!("CREATE ROLE {owner} LOGIN IN ROLE custody_admin; ALTER TABLE u OWNER TO {owner}; ALTER TABLE v OWNER TO {owner}; GRANT USAGE, CREATE ON SCHEMA public TO {owner}"));
    let mut owner = db.session(&owner);
    assert_eq!(owner.fails("SELECT custody.tenant_key_script('v')"), "UC048");
    assert_eq!(owner.fails("SELECT custody.tenant_key_script('t')"), "UC020");
    s.batch("ALTER TABLE v DISABLE TRIGGER ALL; INSERT INTO v VALUES ('b', 1); ALTER TABLE v ENABLE TRIGGER ALL; ALTER TABLE v DROP CONSTRAINT v_u_fkey");
    owner.batch("ALTER TABLE v ADD CONSTRAINT vacuous FOREIGN KEY (tenant_id, u) REFERENCES u (tenant_id, id)");
}

#[test]
fn a_whole_schema_is_protected_or_says_why_not() {
    let db = database();
    let mut s = db.superuser();
    let app = db.app_name();
    s.batch(&format!(
        "CREATE SCHEMA clinic; SET search_path = clinic;
         CREATE TABLE clinic.patient (tenant_id uuid, id int PRIMARY KEY, name text); INSERT INTO patient VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 1, 'Ada');
         CREATE TABLE visit (id int PRIMARY KEY, patient int NOT NULL REFERENCES patient); INSERT INTO visit VALUES (1, 1);
         CREATE TABLE note (id serial PRIMARY KEY, visit int REFERENCES visit, patient int REFERENCES patient); INSERT INTO note VALUES (1, 1, NULL), (2, 1, 1);
         CREATE TABLE line (note int NOT NULL REFERENCES note); INSERT INTO line VALUES (1);
         CREATE TABLE code (code text PRIMARY KEY); CREATE TABLE country (code text PRIMARY KEY);
         CREATE TABLE event (tenant_id uuid, d int) PARTITION BY RANGE (d); CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (10);
         CREATE TABLE wrong (tenant_id numeric); CREATE TABLE holes (tenant_id uuid, id int); INSERT INTO holes VALUES (NULL, 1);
         CREATE UNLOGGED TABLE cache (tenant_id uuid, id int);
         CREATE VIEW names AS SELECT name FROM patient; CREATE VIEW safe WITH (security_invoker = on) AS SELECT name FROM patient;
         CREATE MATERIALIZED VIEW stored AS SELECT name FROM patient;
         GRANT USAGE ON SEQUENCE note_id_seq TO {app};
         CREATE SCHEMA other; CREATE TABLE other.event_2 PARTITION OF event FOR VALUES FROM (10) TO (20); RESET search_path;
         SELECT custody.register_shared('clinic.country', 'ISO 3166')"
    ));
    type Row = (String, String, String, Option<String>, Option<String>);
    let report = |s: &mut Session, arguments: &str| -> Vec<Row> {
        s.rows(
            &format!("SELECT object, kind, state, reason, sql FROM custody.protect_schema('clinic'{arguments})"),
            &[],
        )
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4)))
        .collect()
    };
    let states = |rows: &[Row]| -> Vec<String> {
        rows.iter().map(|r| format!("{} {}: {}", r.1, r.0.trim_start_matches("clinic."), r.2)).collect()
    };
    let expected = [
        "table cache: protected",
        "table code: needs a decision",
        "table country: already",
        "partitioned table event: protected",
        "table holes: cannot",
        "table line: needs a decision",
        "table note: needs a decision",
        "table patient: protected",
        "table visit: needs a decision",
        "table wrong: cannot",
        "view names: needs a decision",
        "materialized view stored: cannot",
        "sequence note_id_seq: report",
    ];
    let before = (catalog(&mut s, ""), s.count("custody.registered_table"), s.count("custody.entry"));
    let dry = report(&mut s, ", audit => true, dry_run => true");
    assert_eq!(states(&dry), expected);
    assert_eq!(
        (catalog(&mut s, ""), s.count("custody.registered_table"), s.count("custody.entry")),
        before,
        "a dry run changes nothing"
    );
    let done = report(&mut s, ", audit => true");
    assert_eq!(states(&done), expected);
    let of = |rows: &[Row], name: &str| rows.iter().find(|r| r.0 == format!("clinic.{name}")).unwrap().clone();
    assert!(of(&done, "cache").3.unwrap().contains("NOT AUDITED: It is unlogged"), "what was not done is said");
    assert!(of(&done, "line").3.unwrap().contains("clinic.note comes first"));
    assert!(of(&done, "wrong").3.unwrap().contains("no column"));
    assert_eq!(s.rows(&of(&done, "holes").4.unwrap(), &[]).len(), 1);
    assert_eq!(s.count("custody.audited_table"), 2);
    assert_eq!(
        s.count("custody.registered_table WHERE kind = 'protected'"),
        5,
        "partitions, in whatever schema, with their table"
    );
    // Again: nothing is protected twice.
    let again = report(&mut s, "");
    assert!(again.iter().all(|r| r.2 != "protected"), "{again:#?}");
    assert_eq!(states(&report(&mut s, ", dry_run => true")), states(&again));

    // The SQL of each decision, in the order that the reasons give, leaves nothing open.
    s.batch("UPDATE clinic.holes SET tenant_id = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'; ALTER TABLE clinic.wrong ALTER tenant_id TYPE text");
    for name in ["visit", "note", "line"] {
        let row = of(&report(&mut s, ""), name);
        if name == "note" {
            assert!(row.3.as_ref().unwrap().contains("Rows in which patient is null"), "{row:?}");
            s.batch("ALTER TABLE clinic.note ADD COLUMN tenant_id uuid; UPDATE clinic.note SET tenant_id = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'; SELECT custody.protect('clinic.note')");
            continue;
        }
        s.batch(&row.4.unwrap());
        assert_eq!(
            s.one::<String>(&format!("SELECT tenant_id::text FROM clinic.{name}")),
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        );
    }
    for name in ["code", "names"] {
        let sql = of(&report(&mut s, ""), name).4.unwrap();
        s.batch(&sql);
    }
    let last = report(&mut s, ", audit => true");
    assert!(last.iter().all(|r| r.2 != "needs a decision"), "{last:#?}");
    assert_eq!(
        findings(&mut s, &["CU001", "CU002", "CU005", "CU006", "CU007", "CU008", "CU009", "CU010", "CU030", "CU032"]),
        Vec::<String>::new()
    );

    for wrong in ["nowhere", "custody", "pg_catalog"] {
        assert_eq!(s.fails(&format!("SELECT custody.protect_schema('{wrong}')")), "UC049");
    }
    // Whoever owns nothing protects nothing, and is told; whoever is no administrator may not ask.
    let admin = format!("{}_admin", db.name);
    s.batch(&format!("CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE TABLE clinic.his (tenant_id text); ALTER TABLE clinic.his OWNER TO {admin}; GRANT USAGE, CREATE ON SCHEMA clinic TO {admin}"));
    let rows = report(&mut db.session(&admin), "");
    assert_eq!(of(&rows, "his").2, "protected");
    assert!(rows.iter().all(|r| r.0 == "clinic.his" || r.2 != "protected"), "{rows:#?}");
    assert!(of(&rows, "patient").3.unwrap().contains("not its owner"));
    let mut app = db.app();
    for call in [
        "protect_schema('clinic')",
        "protect_script('clinic.his')",
        "protect_prepared('clinic.his')",
        "tenant_key_script('clinic.his')",
    ] {
        assert_eq!(app.fails(&format!("SELECT custody.{call}")), "42501", "{call}");
    }
    s.assert_valid();
}

#[test]
fn an_error_half_way_leaves_nothing_of_a_schema_protected() {
    let db = database();
    let mut s = db.superuser();
    s.batch("CREATE SCHEMA two; CREATE TABLE two.first (tenant_id text); CREATE TABLE two.second (tenant_id text)");
    let mut other = db.superuser();
    other.batch("BEGIN; LOCK TABLE two.second");
    s.batch("SET lock_timeout = '300ms'");
    assert_eq!(s.fails("SELECT custody.protect_schema('two')"), "55P03");
    other.batch("ROLLBACK");
    assert_eq!(s.count("custody.registered_table"), 0);
    assert_eq!(s.count("pg_class WHERE relnamespace = 'two'::regnamespace AND relrowsecurity"), 0);
    s.batch("SELECT custody.protect_schema('two')");
    assert_eq!(s.count("custody.registered_table"), 2);
}

#[test]
fn the_page_runs() {
    let db = database();
    let mut s = db.superuser();
    let text = include_str!("../../docs/protect.md");
    let blocks: Vec<&str> = text.split("```sql\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert_eq!(blocks.len(), 4);
    let blocks =
        blocks.iter().map(|b| b.lines().filter(|l| !l.starts_with("--")).map(|l| format!("{l}\n")).collect::<String>());
    for block in blocks {
        for line in block.split_inclusive(";\n").flat_map(|part| part.split_inclusive("\\gexec\n")) {
            match line.trim().strip_suffix("\\gexec") {
                Some(query) => {
                    let statements = s.rows(query, &[]);
                    assert!(!statements.is_empty(), "{query}");
                    for statement in statements {
                        s.batch(statement.get(0));
                    }
                }
                None => s.batch(line),
            }
        }
    }
    assert_eq!(findings(&mut s, &["CU001", "CU002", "CU007", "CU010", "CU011", "CU012"]), Vec::<String>::new());
    assert_eq!(s.count("custody.audited_table"), 2);
}

#[test]
fn what_was_there_before_stays() {
    let db = database();
    let mut s = db.superuser();
    let app = db.app_name();
    // Domains, inheritance, defaults and triggers of the user's, partitions attached later, logical replication's identity.
    s.batch(&format!(
        "CREATE DOMAIN tenant AS uuid; CREATE DOMAIN slug AS varchar(20) CHECK (value <> ''); CREATE DOMAIN code AS slug; CREATE DOMAIN small AS smallint;
         CREATE TABLE d_uuid (tenant_id tenant, id int); CREATE TABLE d_code (tenant_id code, id int); CREATE TABLE d_small (tenant_id small);
         CREATE TABLE parent (tenant_id text, id int); CREATE TABLE child (extra int) INHERITS (parent);
         CREATE TABLE parts (tenant_id text, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY RANGE (id);
         CREATE TABLE told (tenant_id text NOT NULL, id int NOT NULL); CREATE UNIQUE INDEX told_id ON told (id); ALTER TABLE told REPLICA IDENTITY USING INDEX told_id;
         SELECT custody.allow_assume('{app}', ARRAY['a', 'b', '6ba7b810-9dad-11d1-80b4-00c04fd430c8']);
         GRANT SELECT, INSERT, UPDATE, DELETE ON d_uuid, d_code, parent, child, parts, told TO {app}"
    ));
    assert_eq!(s.fails("SELECT custody.protect('d_small')"), "UC020");
    s.batch("DROP TABLE d_small");
    let before = catalog(&mut s, "");
    for table in ["d_uuid", "d_code", "parent", "parts", "told"] {
        run_script(&mut s, table);
        s.batch(&format!("SELECT custody.audit('{table}')").replace("custody.audit('parent')", "1"));
    }
    let mut session = db.app();
    for (tenant, table) in
        [("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "d_uuid"), ("a", "d_code"), ("a", "parent"), ("a", "told")]
    {
        session.as_tenant(tenant, &format!("INSERT INTO {table} (id) VALUES (1); UPDATE {table} SET id = 2"));
        assert_eq!(s.one::<String>(&format!("SELECT tenant_id::text FROM {table} WHERE id = 2")), tenant);
        assert_eq!(session.count(table), 0, "no context, no rows: {table}");
        assert_eq!(session.fails(&format!("DELETE FROM {table}")), "UC001");
        session.batch("BEGIN; SELECT custody.assume_tenant('b')");
        assert_eq!(session.count(table), 0, "not b's: {table}");
        session.batch("SET LOCAL enable_seqscan = off");
        let plan: Vec<String> =
            session.rows(&format!("EXPLAIN SELECT * FROM {table}"), &[]).iter().map(|r| r.get(0)).collect();
        assert!(plan.iter().any(|l| l.contains("Index Cond")), "{table}: {plan:#?}");
        session.batch("COMMIT");
    }
    assert_eq!(
        s.count(
            "custody.log WHERE table_name LIKE 'd\\_%' AND tenant IN ('a', '6ba7b810-9dad-11d1-80b4-00c04fd430c8')"
        ),
        4
    );
    // A child is not a partition: it stays open, and is found.
    assert_eq!(findings(&mut s, &["CU032"]).len(), 1);
    assert_eq!(findings(&mut s, &["CU001", "CU008"]), Vec::<String>::new());
    // A partition that comes after the script is protected like the others.
    s.batch("CREATE TABLE parts_1 (tenant_id text NOT NULL, id int NOT NULL); ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10)");
    assert_eq!(session.fails("INSERT INTO parts_1 VALUES ('a', 1)").as_str(), "42501", "not granted");
    assert_eq!(s.count("custody.registered_table WHERE target = 'parts_1'::regclass"), 1);
    s.batch("ALTER TABLE parts DETACH PARTITION parts_1; DROP TABLE parts_1");
    // Replication goes on telling rows by the key, whatever its columns.
    run_key_script(&mut s, "told");
    assert_eq!(
        s.one::<String>(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'told'::regclass AND indisreplident"
        ),
        "CREATE UNIQUE INDEX told_id ON public.told USING btree (tenant_id, id)"
    );
    s.batch("DROP INDEX told_id; CREATE UNIQUE INDEX told_id ON told (id); ALTER TABLE told REPLICA IDENTITY USING INDEX told_id");
    for table in ["d_uuid", "d_code", "parent", "parts", "told"] {
        s.batch(&format!("SELECT custody.unprotect('{table}')"));
    }
    s.batch("SELECT custody.unaudit(target) FROM custody.audited_table");
    assert_eq!(catalog(&mut s, ""), before);
    s.assert_valid();
}

/// The strongest lock that this transaction has on a table, as SQL calls it; empty if none.
fn strongest_lock(s: &mut Session, table: &str) -> String {
    const MODES: [&str; 8] = [
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ];
    let held: Vec<String> = s
        .rows("SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = $1::text::regclass", &[&table])
        .iter()
        .map(|r| r.get(0))
        .collect();
    let strongest = MODES.iter().rev().find(|mode| held.iter().any(|held| held == *mode)).copied().unwrap_or_default();
    let words = strongest.trim_end_matches("Lock").chars().flat_map(|c| match c.is_uppercase() {
        true => vec![' ', c],
        false => vec![c.to_ascii_uppercase()],
    });
    words.collect::<String>().trim().to_owned()
}

#[test]
fn the_locks_are_those_that_are_told() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE live (tenant_id text, id int PRIMARY KEY, up int REFERENCES live, during int4range, EXCLUDE USING gist (during WITH &&)); CREATE UNIQUE INDEX live_up ON live (up);
         CREATE TABLE once (LIKE live INCLUDING ALL); ALTER TABLE once ADD FOREIGN KEY (up) REFERENCES once;
         CREATE TABLE parts (tenant_id text, id int PRIMARY KEY, up int REFERENCES parts) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    );
    let mut seen = 0;
    let mut check = |s: &mut Session, query: &str| {
        for row in s.rows(query, &[]) {
            let (object, sql, lock): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            if lock == "report" {
                continue;
            }
            if lock.contains("outside a transaction block") {
                assert!(sql.contains("CONCURRENTLY"), "{sql}");
                s.batch(&sql);
                continue;
            }
            s.batch(&format!("BEGIN; {sql}"));
            let strongest = strongest_lock(s, &object);
            s.batch("COMMIT");
            let told = lock.split([':', ',']).next().unwrap().split(" on both").next().unwrap();
            assert_eq!(strongest, if told == "no lock on tables" { "" } else { told }, "{sql}");
            seen += 1;
        }
    };
    for table in ["live", "parts"] {
        check(
            &mut s,
            &format!("SELECT object, sql, lock FROM custody.protect('{table}', dry_run => true) ORDER BY step"),
        );
        s.batch(&format!("SELECT custody.protect('{table}')"));
        check(&mut s, &format!("SELECT object, sql, lock FROM custody.tenant_key_script('{table}') ORDER BY step"));
    }
    // What protect does by itself, one by one.
    s.batch("BEGIN");
    let steps = s.rows("SELECT object, sql, lock FROM custody.protect('once') ORDER BY step", &[]);
    s.batch("ROLLBACK");
    let weak_to_strong = ["SHARE:", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE", "report"];
    let ranks: Vec<_> =
        steps.iter().map(|r| weak_to_strong.iter().position(|w| r.get::<_, &str>(2).starts_with(w)).unwrap()).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    for row in &steps {
        let (object, sql, lock): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if lock != "report" {
            s.batch(&format!("BEGIN; {sql}"));
            assert_eq!(strongest_lock(&mut s, &object), lock.split(':').next().unwrap(), "{sql}");
            s.batch("COMMIT");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}
