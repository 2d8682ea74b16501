//! The context, attacked from every side by a role that may run any statement: what it could forge, keep or find out.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custody_tests::{Db, Session, state};
use postgres::{NoTls, SimpleQueryMessage};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// In every row of tenant b and in nothing else, hashes in base64 included: whoever sees it has seen a foreign row.
const MARK: &str = "zq~b";

/// The clinic with rows of both tenants, and an application role that has more than it should: temporary objects, and a schema to
/// make functions, operators and types in. Isolation must hold all the same.
fn ward() -> Db {
    let db = Db::clinic();
    let app = db.app_name();
    db.superuser().batch(&format!(
        "INSERT INTO clinic.patients SELECT 'a', i, 'ada ' || i FROM generate_series(1, 20) i;
         INSERT INTO clinic.patients SELECT 'b', i, '{MARK} name ' || i, '1999-01-01', '{MARK} note' FROM generate_series(1, 30) i;
         INSERT INTO clinic.visits SELECT 'b', i, i, '{MARK} reason' FROM generate_series(1, 30) i;
         INSERT INTO clinic.visits SELECT 'a', i, i, 'reason' FROM generate_series(1, 20) i;
         ANALYZE clinic.patients, clinic.visits;
         CREATE SCHEMA lab; GRANT ALL ON SCHEMA lab TO {app};
         GRANT TEMPORARY ON DATABASE {} TO {app}",
        db.name
    ));
    db
}

/// A session whose every word is kept: rows, notices, errors with all their fields.
struct Spy {
    client: postgres::Client,
    heard: Arc<Mutex<String>>,
}

impl Spy {
    fn new(db: &Db, user: &str) -> Self {
        let heard = Arc::new(Mutex::new(String::new()));
        let ear = heard.clone();
        let mut config = db.cluster.config(&db.name, user);
        config.notice_callback(move |notice| ear.lock().unwrap().push_str(&format!("{notice:?}\n")));
        Self { client: config.connect(NoTls).unwrap(), heard }
    }

    /// Runs statements, whatever comes of it; gives all that was said, and the SQLSTATE if they failed.
    fn run(&mut self, sql: &str) -> (String, Option<String>) {
        self.heard.lock().unwrap().clear();
        let outcome = self.client.simple_query(sql);
        let mut said = self.heard.lock().unwrap().clone();
        match outcome {
            Ok(messages) => {
                for message in messages {
                    if let SimpleQueryMessage::Row(row) = message {
                        for i in 0..row.len() {
                            said += row.get(i).unwrap_or("NULL");
                            said.push('\t');
                        }
                        said.push('\n');
                    }
                }
                (said, None)
            }
            Err(error) => {
                // The statement itself comes back in some errors' positions and contexts, so only what the server adds is looked at.
                said += &custody_tests::words(&error);
                (said, Some(state(&error)))
            }
        }
    }

    /// The same, as tenant a, in a transaction that is rolled back.
    fn as_a(&mut self, sql: &str) -> (String, Option<String>) {
        let outcome = self.run(&format!("BEGIN; SELECT custody.assume_tenant('a'); {sql}"));
        self.run("ROLLBACK");
        outcome
    }

    fn tenant(&mut self) -> String {
        // Loading the library may come with warnings; the row is the last line.
        let (said, _) = self.run("SELECT coalesce(custody.tenant(), '(none)')");
        said.trim().lines().last().unwrap_or_default().trim().to_owned()
    }
}

/// What tenant b has, in one value.
fn state_of_b(s: &mut Session) -> String {
    s.one(
        "SELECT md5(string_agg(x, ' ' ORDER BY x)) || count(*) FROM (SELECT p::text FROM clinic.patients p WHERE tenant_id = 'b'
         UNION ALL SELECT v::text FROM clinic.visits v WHERE tenant_id = 'b') t (x)",
    )
}

#[test]
fn nothing_stays_on_the_connection() {
    let db = ward();
    // The statements before, in a session that has not seen the library yet or has; the transaction's, before and after the context is set.
    let leaks = [
        // A cursor that is filled at commit, under a context that was set after it was declared.
        ("", "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients", "SELECT 1"),
        ("", "DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients'; END $$", "SELECT 1"),
        ("", "SAVEPOINT s; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients; RELEASE s", "SELECT 1"),
        ("", "SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients"),
        // Temporary tables, however they are written.
        ("", "SELECT 1", "CREATE TEMP TABLE c AS SELECT * FROM clinic.patients"),
        ("", "SELECT 1", "CREATE TABLE pg_temp.c AS SELECT * FROM clinic.patients"),
        ("", "SELECT 1", "SELECT * INTO pg_temp.c FROM clinic.patients"),
        (
            "",
            "SELECT 1",
            "CREATE TABLE pg_temp.c (LIKE clinic.patients); INSERT INTO pg_temp.c SELECT * FROM clinic.patients",
        ),
        ("", "SELECT 1", "SET LOCAL search_path = pg_temp; CREATE TABLE c AS SELECT * FROM clinic.patients"),
        ("", "SELECT 1", "EXPLAIN (ANALYZE) CREATE TEMP TABLE c AS SELECT * FROM clinic.patients"),
        ("", "SELECT 1", "PREPARE p AS SELECT * FROM clinic.patients; CREATE TABLE pg_temp.c AS EXECUTE p"),
        ("", "SELECT 1", "DO $$ BEGIN CREATE TABLE pg_temp.c AS SELECT * FROM clinic.patients; END $$"),
        (
            "",
            "SELECT 1",
            "CREATE TEMP TABLE c (LIKE clinic.patients) ON COMMIT PRESERVE ROWS; INSERT INTO c SELECT * FROM clinic.patients",
        ),
        ("", "CREATE TEMP TABLE c (LIKE clinic.patients)", "INSERT INTO c SELECT * FROM clinic.patients"),
        ("CREATE TEMP TABLE c (LIKE clinic.patients)", "SELECT 1", "INSERT INTO c SELECT * FROM clinic.patients"),
        (
            "CREATE TEMP TABLE c (n int, t text)",
            "SELECT 1",
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM clinic.patients LOOP INSERT INTO pg_temp.c VALUES (r.id, r.name); END LOOP; END $$",
        ),
        // The context is gone again when the table is made: a function's SET clause ends it, a savepoint does.
        (
            "CREATE OR REPLACE FUNCTION lab.sly() RETURNS text[] LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN PERFORM custody.assume_tenant('a'); RETURN (SELECT array_agg(name) FROM clinic.patients); END $$",
            "SELECT 1",
            "DO $$ DECLARE x text[] := lab.sly(); BEGIN CREATE TEMP TABLE c AS SELECT unnest(x); END $$",
        ),
        ("", "CREATE TEMP TABLE c AS SELECT unnest(lab.sly())", "SELECT 1"),
        (
            "",
            "SAVEPOINT s; SELECT custody.assume_tenant('a'); ROLLBACK TO s; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM clinic.patients",
            "SELECT 1",
        ),
        // Code that waits for the next tenant: types and relations in pg_temp stand before everybody's.
        ("CREATE DOMAIN pg_temp.uuid AS text", "SELECT 1", "SELECT 1"),
        ("CREATE TEMP VIEW patients AS SELECT * FROM clinic.patients", "SELECT 1", "SELECT 1"),
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT 1", "SELECT 1"),
        ("CREATE TEMP SEQUENCE q", "SELECT 1", "SELECT 1"),
    ];
    for (before, first, then) in leaks {
        for warm in [false, true] {
            let mut app = db.app();
            if warm {
                assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
            }
            if !before.is_empty() {
                app.batch(before);
            }
            let sqlstate = app.fails(&format!("BEGIN; {first}; SELECT custody.assume_tenant('a'); {then}; COMMIT"));
            assert_eq!(sqlstate, "UC007", "{before}; {first}; {then}");
            app.batch("ROLLBACK; DISCARD TEMP");
            assert_eq!(app.count("pg_cursors WHERE name = 'c'"), 0);
            app.as_tenant("a", "SELECT 1");
        }
    }
    // What goes with the transaction is no leak, nor is what was read without a context.
    let mut app = db.app();
    app.as_tenant(
        "a",
        "CREATE TEMP TABLE c ON COMMIT DROP AS SELECT * FROM clinic.patients; CREATE TEMP TABLE d (x serial, y text) ON COMMIT DROP;
         INSERT INTO d (y) SELECT name FROM c; CREATE TABLE lab.t (x int); DROP TABLE lab.t; DECLARE k CURSOR FOR SELECT * FROM c;
         SELECT custody.assume_tenant('a'); EXPLAIN (ANALYZE) SELECT * FROM clinic.patients",
    );
    app.as_tenant("a", "SELECT 1");
    app.batch("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT * FROM clinic.patients; COMMIT");
    app.as_tenant("b", "SELECT 1");
    assert_eq!(app.rows("FETCH ALL FROM h", &[]).len(), 0, "it was filled without a context");
    // A loop's cursor that a COMMIT made last is gone with its statement, whatever ends that.
    for end in ["", "RAISE EXCEPTION 'x';", "RETURN;", "EXIT;"] {
        let _ = app.0.batch_execute(&format!(
            "DO $$ DECLARE r record; BEGIN PERFORM custody.assume_tenant('a'); FOR r IN SELECT * FROM clinic.patients LOOP COMMIT; {end} END LOOP; END $$"
        ));
        assert_eq!(app.count("pg_cursors WHERE name NOT IN ('h', '')"), 0, "{end}");
    }
}

#[test]
fn no_statement_changes_the_context() {
    let db = ward();
    let (name, database) = (db.app_name(), db.name.clone());
    let forged = format!("'{}'", r#"{"tenant":"b"}"#);
    let mut statements: Vec<String> = [
        "SET custody.context = @", "SET LOCAL custody.context = @", "SET SESSION custody.context TO @", "SET custody.context TO DEFAULT",
        "RESET custody.context", "RESET ALL", "SET \"CUSTODY.Context\" = @", "SELECT set_config('custody.context', @, false)",
        "SELECT set_config('custody.context', @, true)", "SELECT set_config('Custody.CONTEXT', @, true)",
        "UPDATE pg_settings SET setting = @ WHERE name = 'custody.context'", "UPDATE pg_settings SET setting = @ WHERE name ~ 'custody'",
        "DISCARD ALL", "DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP",
        "SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION postgres", "RESET SESSION AUTHORIZATION", "SET ROLE NONE", "SET ROLE custody_app",
        "SET ROLE custody_admin", "SET ROLE postgres", "RESET ROLE",
        "ALTER ROLE CURRENT_USER SET custody.context = @", "ALTER ROLE CURRENT_USER IN DATABASE $db SET custody.context = @", "ALTER ROLE ALL SET custody.context = @",
        "ALTER DATABASE $db SET custody.context = @", "ALTER SYSTEM SET custody.context = @",
        "GRANT SET ON PARAMETER custody.context TO PUBLIC", "GRANT custody_admin TO CURRENT_USER", "GRANT postgres TO CURRENT_USER",
        "CREATE FUNCTION lab.forge() RETURNS text LANGUAGE sql SET custody.context = @ AS 'SELECT custody.tenant()'",
        "CREATE FUNCTION lab.forge2() RETURNS text LANGUAGE sql SET custody.context FROM CURRENT AS 'SELECT custody.tenant()'; SELECT lab.forge2()",
        "CREATE PROCEDURE lab.forge3() LANGUAGE sql SET custody.context TO DEFAULT AS 'SELECT custody.tenant()'",
        "DO $$ BEGIN PERFORM set_config('custody.context', @, true); EXCEPTION WHEN others THEN NULL; END $$",
        "DO $$ BEGIN PERFORM custody.assume_tenant('b'); EXCEPTION WHEN others THEN NULL; END $$",
        "DO $$ BEGIN BEGIN PERFORM custody.assume_tenant('b'); RAISE EXCEPTION 'x'; EXCEPTION WHEN others THEN NULL; END; END $$",
        "SAVEPOINT s; SET LOCAL custody.context = @; ROLLBACK TO s", "SAVEPOINT s; SELECT custody.assume_tenant('b'); ROLLBACK TO s",
        "CREATE FUNCTION lab.nested() RETURNS text LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN PERFORM custody.assume_tenant('b'); RETURN custody.tenant(); END $$; SELECT lab.nested()",
        "LOAD 'pg_custody'", "LOAD '$libdir/plugins/pg_custody'", "LOCK TABLE custody.role_binding", "INSERT INTO custody.assume_grant VALUES ('custody_app', 'b')",
        "SELECT custody.bind_role('$name', 'b')", "SELECT custody.allow_assume('$name', '{b}')", "DROP SCHEMA custody CASCADE", "DROP EXTENSION pg_custody CASCADE",
        "ALTER EXTENSION pg_custody DROP FUNCTION custody.tenant()", "ALTER FUNCTION custody.tenant() OWNER TO CURRENT_USER",
        "CREATE OR REPLACE FUNCTION custody.tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'b' $$", "CREATE FUNCTION custody.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE clinic.patients NO FORCE ROW LEVEL SECURITY", "DROP POLICY custody_floor ON clinic.patients", "CREATE POLICY x ON clinic.patients USING (true)",
        "SET row_security = off", "SET LOCAL row_security = off", "SET session_replication_role = replica", "SET LOCAL session_replication_role = replica",
        "ALTER TABLE clinic.patients DISABLE TRIGGER ALL", "DROP TRIGGER \"!custody_require_context\" ON clinic.patients",
        "SET plan_cache_mode = force_generic_plan", "SET force_parallel_mode = on", "SET default_transaction_isolation = 'serializable'",
        "CREATE FUNCTION lab.c() RETURNS text LANGUAGE c AS '$libdir/pg_custody', 'custody_tenant'",
        "CREATE FUNCTION lab.internal() RETURNS text LANGUAGE internal AS 'current_user'",
        "DROP OWNED BY custody_app", "DROP OWNED BY custody_admin", "REASSIGN OWNED BY custody_app TO CURRENT_USER", "REASSIGN OWNED BY postgres TO CURRENT_USER",
        "ALTER ROLE CURRENT_USER BYPASSRLS", "ALTER ROLE CURRENT_USER SUPERUSER", "CREATE ROLE mole BYPASSRLS",
        "COPY clinic.patients TO PROGRAM 'cat'", "COPY (SELECT 1) TO '/tmp/x'", "SELECT pg_read_file('postgresql.conf')", "SELECT lo_import('/etc/passwd')",
        "SECURITY LABEL ON ROLE custody_app IS 'x'", "COMMENT ON FUNCTION custody.tenant() IS 'x'", "NOTIFY x", "LISTEN x", "SET TRANSACTION READ ONLY", "BEGIN",
    ]
    .iter()
    .map(|s| s.replace('@', &forged).replace("$db", &database).replace("$name", &name))
    .collect();
    statements.extend(
        ["SET custody.tenant = 'b'", "SET custody.x = 'b'", "SET custody.context.tenant = 'b'"].map(Into::into),
    );
    let mut superuser = db.superuser();
    let before = state_of_b(&mut superuser);
    let objects = |s: &mut Session| -> String {
        s.one(&
            "SELECT md5(string_agg(x, ' ' ORDER BY x)) FROM (
             SELECT p::text FROM pg_policy p UNION ALL SELECT format('%s %s', tgrelid, tgenabled::text) FROM pg_trigger
             UNION ALL SELECT format('%s %s %s %s', oid, proowner, prosrc, proacl) FROM pg_proc WHERE pronamespace = 'custody'::regnamespace
             UNION ALL SELECT format('%s %s %s %s', oid, relowner, relrowsecurity, relforcerowsecurity) FROM pg_class WHERE relnamespace IN ('custody'::regnamespace, 'clinic'::regnamespace)
             UNION ALL SELECT format('%s', m) FROM pg_auth_members m WHERE '@app'::regrole IN (m.member, m.roleid) UNION ALL SELECT format('%s %s', tenant, role) FROM custody.assume_grant
             UNION ALL SELECT format('%s %s %s', rolname, rolsuper, rolbypassrls) FROM pg_roles WHERE rolname LIKE 'custody%' OR rolname LIKE '%mole%') t (x)".replace("@app", &name),
        )
    };
    let catalog = objects(&mut superuser);
    for statement in &statements {
        // The session's very first statement, then with a context and without.
        for (way, wrap) in
            [("alone", "@"), ("in a", "BEGIN; SELECT custody.assume_tenant('a'); @"), ("in a block", "BEGIN; @")]
        {
            let mut spy = Spy::new(&db, &name);
            let (said, _) = spy.run(&wrap.replace('@', statement));
            assert!(!said.contains(MARK), "{way}: {statement}: {said}");
            let now = spy.tenant();
            // In a block of its own, a first assume_tenant('b') is the application's right.
            let own = statement.contains("assume_tenant('b')") && way != "in a" && !statement.contains("lab.nested");
            let good = own || now == "a" || now == "(none)" || spy.run("SELECT 1").1.as_deref() == Some("25P02");
            assert!(good, "{way}: {statement}: the tenant is {now}");
            let (rows, _) = spy.run("SELECT * FROM clinic.patients");
            assert!(own || !rows.contains(MARK), "{way}: {statement}: {rows}");
            spy.run("ROLLBACK");
            assert_eq!(spy.tenant(), "(none)", "{way}: {statement}");
            assert!(!spy.run("SELECT * FROM clinic.patients").0.contains(MARK), "{way}: {statement}");
        }
    }
    // Nor in a session that logs in after all that.
    let mut fresh = Spy::new(&db, &name);
    assert_eq!(fresh.tenant(), "(none)");
    assert_eq!(state_of_b(&mut superuser), before);
    assert_eq!(objects(&mut superuser), catalog, "no statement changed what protects");
    superuser.batch(&format!("ALTER ROLE {name} RESET ALL; ALTER ROLE {name} IN DATABASE {database} RESET ALL"));
    superuser.assert_valid();
    // PGOPTIONS, through a client of the field.
    for options in
        [r#"-c custody.context={"tenant":"b"}"#, "-c custody.tenant=b", r#"--custody.context={"tenant":"b"}"#]
    {
        let mut psql = db.cluster.client(
            "psql",
            &db.name,
            &name,
            &["-XAtc", "SELECT custody.tenant() IS NULL, count(*) FROM clinic.patients"],
        );
        let output = psql.env("PGOPTIONS", options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.is_empty() || said.trim() == "t|0", "{options}: {said}");
    }
}

#[test]
fn every_end_of_a_transaction_ends_the_context() {
    let db = ward();
    let mut superuser = db.superuser();
    superuser.batch(
        "CREATE FUNCTION clinic.seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'at commit: % %', custody.tenant(), (SELECT count(*) FROM clinic.patients); IF NEW.reason = 'fail' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON clinic.visits DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION clinic.seen();
         GRANT EXECUTE ON FUNCTION clinic.seen() TO PUBLIC",
    );
    let mut spy = Spy::new(&db, &db.app_name());
    let begin = "BEGIN; SELECT custody.assume_tenant('a');";
    for end in [
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "PREPARE TRANSACTION 'ends'",
        "SELECT 1 / 0; COMMIT",
        "SAVEPOINT s; SELECT custody.assume_tenant('a'); ROLLBACK TO s; RELEASE s; COMMIT",
        "SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)",
        "INSERT INTO clinic.visits (id, patient, reason) VALUES (900, 1, 'fail'); COMMIT",
        "INSERT INTO clinic.patients (id) VALUES (1); COMMIT",
    ] {
        let (_, error) = spy.run(&format!("{begin} {end}"));
        if error.is_some() {
            // A transaction that failed does nothing more, and COMMIT ends it.
            spy.run("COMMIT");
        }
        assert_eq!(spy.tenant(), "(none)", "{end}");
        assert_eq!(spy.run("SELECT count(*) FROM clinic.patients").0.trim(), "0", "{end}");
        // The next one is free to act for another tenant: nothing remembers.
        spy.run("ROLLBACK");
        assert_eq!(spy.run("BEGIN; SELECT custody.assume_tenant('b'); COMMIT").1, None, "{end}");
    }
    spy.run("ROLLBACK PREPARED 'ends'");
    // A deferred trigger at commit still acts for the tenant, and sees its rows only.
    let (said, error) = spy.run(&format!("{begin} INSERT INTO clinic.visits (id, patient) VALUES (901, 1); COMMIT"));
    assert!(error.is_none() && said.contains("at commit: a 20"), "{said} {error:?}");
    // One statement outside a block: a warning, and nothing kept.
    let (said, _) = spy.run("SELECT custody.assume_tenant('a')");
    assert!(said.contains("ends with this statement"), "{said}");
    assert_eq!(spy.tenant(), "(none)");
    // Procedures that commit: each transaction in them begins without a context.
    let (said, error) = spy.run(
        "DO $$ BEGIN PERFORM custody.assume_tenant('a'); COMMIT; RAISE NOTICE 'one: %', custody.tenant();
           PERFORM custody.assume_tenant('b'); RAISE NOTICE 'two: %', custody.tenant(); ROLLBACK; RAISE NOTICE 'three: %', custody.tenant(); END $$",
    );
    assert!(
        error.is_none() && ["one: <NULL>", "two: b", "three: <NULL>"].iter().all(|w| said.contains(w)),
        "{said} {error:?}"
    );
    assert_eq!(spy.tenant(), "(none)");
    superuser.assert_valid();
}

#[test]
fn plans_functions_and_cursors_serve_the_tenant_of_their_moment() {
    let db = ward();
    let name = db.app_name();
    let mut superuser = db.superuser();
    superuser.batch(&format!("CREATE ROLE {name}_other; GRANT {name}_other TO {name}; GRANT USAGE ON SCHEMA clinic TO {name}_other; GRANT SELECT ON clinic.patients TO {name}_other; GRANT custody_app TO {name}_other"));
    let mut spy = Spy::new(&db, &name);
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        for parallel in ["off", "on"] {
            spy.run(&format!("DISCARD ALL; SET plan_cache_mode = {mode}; SET force_parallel_mode = {parallel}"));
            spy.run(
                "PREPARE p (int) AS SELECT name FROM clinic.patients WHERE id > $1; PREPARE w AS UPDATE clinic.patients SET notes = 'w' RETURNING name;
                 PREPARE u AS INSERT INTO clinic.patients (id, name) VALUES (1, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET notes = 'u' RETURNING clinic.patients.name;
                 CREATE OR REPLACE FUNCTION lab.cached() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT name FROM clinic.patients; END $$;
                 CREATE OR REPLACE FUNCTION lab.looped() RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; t text := ''; BEGIN FOR r IN SELECT * FROM clinic.patients LOOP t := t || r.name; END LOOP; RETURN t; END $$;
                 CREATE OR REPLACE FUNCTION lab.inlined() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT name FROM clinic.patients';
                 CREATE OR REPLACE FUNCTION lab.dynamic() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT name FROM clinic.patients WHERE id > $1' USING 0; END $$;
                 CREATE OR REPLACE VIEW lab.v AS SELECT * FROM clinic.patients; CREATE OR REPLACE VIEW lab.i WITH (security_invoker) AS SELECT * FROM lab.v",
            );
            let uses = [
                "EXECUTE p(0)",
                "EXECUTE w",
                "EXECUTE u",
                "SELECT lab.cached()",
                "SELECT lab.looped()",
                "SELECT lab.inlined()",
                "SELECT lab.dynamic()",
                "SELECT name FROM lab.v",
                "SELECT name FROM lab.i",
                "SELECT query_to_xml('SELECT name FROM clinic.patients', true, false, '')",
                "SELECT table_to_xml('clinic.patients', true, false, '')",
                "COPY clinic.patients TO STDOUT",
                "COPY (SELECT name FROM lab.v) TO STDOUT",
                "DECLARE c CURSOR FOR SELECT name FROM clinic.patients; FETCH ALL FROM c",
                "DECLARE c SCROLL CURSOR FOR SELECT name FROM clinic.patients; MOVE ALL c; FETCH BACKWARD ALL FROM c",
                "SELECT name FROM clinic.patients FOR KEY SHARE",
                "SELECT name FROM clinic.patients TABLESAMPLE SYSTEM (100)",
                "SELECT name FROM ONLY clinic.patients WHERE ctid >= '(0,0)'",
                "WITH x AS MATERIALIZED (SELECT * FROM clinic.patients) SELECT name FROM x",
                "SELECT (SELECT string_agg(name, ',') FROM clinic.patients)",
                "SELECT p::text FROM clinic.patients p",
            ];
            for usage in uses {
                for round in 0..7 {
                    let (tenant, other) = if round % 2 == 0 { ("a", MARK) } else { ("b", "ada") };
                    spy.run(&format!("BEGIN; SELECT custody.assume_tenant('{tenant}')"));
                    if round > 3 && usage.starts_with("EXECUTE p") {
                        spy.run(&format!("SET LOCAL ROLE {name}_other"));
                    }
                    let (said, error) = match usage.starts_with("COPY") {
                        true => copied(&mut spy, usage),
                        false => spy.run(usage),
                    };
                    let own = if tenant == "a" { "ada" } else { MARK };
                    assert!(
                        error.is_none() && said.contains(own) && !said.contains(other),
                        "{mode} {parallel} {usage} as {tenant}: {said} {error:?}"
                    );
                    spy.run("ROLLBACK");
                    if usage.starts_with("DECLARE") {
                        continue;
                    }
                    let (said, error) = match usage.starts_with("COPY") {
                        true => copied(&mut spy, usage),
                        false => spy.run(usage),
                    };
                    assert!(!said.contains("ada") && !said.contains(MARK), "{usage} without a context: {said}");
                    let writes = usage == "EXECUTE w" || usage == "EXECUTE u";
                    assert_eq!(error.as_deref(), writes.then_some("UC001"), "{usage}");
                }
            }
        }
    }
    // A cursor of one context cannot meet another: the second is refused, also after a savepoint took the first away.
    let (_, error) = spy.run("BEGIN; SELECT custody.assume_tenant('a'); DECLARE c CURSOR FOR SELECT * FROM clinic.patients; SELECT custody.assume_tenant('b')");
    assert_eq!(error.as_deref(), Some("UC003"));
    let (_, error) = spy.run("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SELECT * FROM clinic.patients; SAVEPOINT s; SELECT custody.assume_tenant('a'); FETCH 1 FROM c; ROLLBACK TO s; SELECT custody.assume_tenant('b')");
    assert_eq!(error.as_deref(), Some("UC003"));
    spy.run("ROLLBACK");
    // One declared in a savepoint is gone with it.
    let (_, error) = spy.run("BEGIN; SELECT custody.assume_tenant('a'); SAVEPOINT s; DECLARE c CURSOR FOR SELECT * FROM clinic.patients; ROLLBACK TO s; FETCH c");
    assert_eq!(error.as_deref(), Some("34000"));
    spy.run("ROLLBACK");
}

/// What COPY TO STDOUT sends.
fn copied(spy: &mut Spy, sql: &str) -> (String, Option<String>) {
    use std::io::Read;
    let mut said = String::new();
    match spy.client.copy_out(sql).map(|mut reader| reader.read_to_string(&mut said)) {
        Ok(_) => (said, None),
        Err(error) => (said, Some(state(&error))),
    }
}

#[test]
fn nothing_that_search_path_finds_stands_in_for_ours() {
    let db = ward();
    let name = db.app_name();
    let mut superuser = db.superuser();
    let before = state_of_b(&mut superuser);
    let mut spy = Spy::new(&db, &name);
    // Every name that our policies, triggers, defaults, views and functions use, planted in a schema that comes first. Each counts its calls
    // in a sequence, which no rollback hides.
    let (said, error) = spy.run(
        "CREATE SEQUENCE lab.called;
         CREATE FUNCTION lab.tenant() RETURNS text LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT 'b'::pg_catalog.text $$;
         CREATE FUNCTION lab.lie(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('lab.called'); RETURN true; END $$;
         CREATE FUNCTION lab.lie(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('lab.called'); RETURN true; END $$;
         CREATE FUNCTION lab.lie(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('lab.called'); RETURN true; END $$;
         CREATE FUNCTION lab.lie(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('lab.called'); RETURN true; END $$;
         CREATE FUNCTION lab.lie(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('lab.called'); RETURN true; END $$;
         CREATE OPERATOR lab.= (LEFTARG = text, RIGHTARG = text, FUNCTION = lab.lie); CREATE OPERATOR lab.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = lab.lie);
         CREATE OPERATOR lab.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = lab.lie); CREATE OPERATOR lab.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = lab.lie);
         CREATE OPERATOR lab.= (LEFTARG = name, RIGHTARG = name, FUNCTION = lab.lie);
         CREATE OPERATOR lab.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = lab.lie); CREATE OPERATOR lab.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = lab.lie);
         CREATE FUNCTION lab.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT '2000-01-01'::timestamptz $$;
         CREATE FUNCTION lab.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT '2000-01-01'::timestamptz $$;
         CREATE FUNCTION lab.to_json(name) RETURNS json LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT '1'::json $$;
         CREATE FUNCTION lab.unnest(int2[]) RETURNS SETOF int2 LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT 1::int2 $$;
         CREATE FUNCTION lab.octet_length(text) RETURNS int LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT 1 $$;
         CREATE FUNCTION lab.jsonb_object_keys(jsonb) RETURNS SETOF text LANGUAGE sql AS $$ SELECT nextval('lab.called'); SELECT 'x'::text $$;
         CREATE DOMAIN lab.text AS pg_catalog.text; CREATE DOMAIN lab.uuid AS pg_catalog.text; CREATE DOMAIN lab.jsonb AS pg_catalog.text; CREATE DOMAIN lab.regclass AS pg_catalog.text;
         CREATE TABLE lab.patients (LIKE clinic.patients); CREATE TABLE lab.pg_class (x int); CREATE TABLE lab.entry (x int); CREATE TABLE lab.pg_index (x int)",
    );
    assert!(error.is_none(), "{said}");
    let called = |superuser: &mut Session| -> bool { superuser.one("SELECT is_called FROM lab.called") };
    for path in ["lab, pg_catalog, pg_temp", "lab, custody, clinic, pg_catalog", "lab"] {
        let (said, error) = spy.run(&format!(
            "SET search_path = {path}; BEGIN; SELECT custody.assume_tenant('a'); SELECT * FROM clinic.patients; INSERT INTO clinic.patients (id, name) VALUES (100, 'ada');
             UPDATE clinic.patients SET notes = 'x'; INSERT INTO clinic.visits (id, patient) VALUES (100, 100); DELETE FROM clinic.visits;
             SELECT * FROM custody.history('clinic.patients', '{{\"tenant_id\": \"a\", \"id\": 1}}'); SELECT * FROM custody.log; SELECT custody.row_key('clinic.patients', '{{\"tenant_id\": \"b\", \"id\": 1}}');
             SELECT custody.tenant(), custody.tenant_uuid(), custody.claims(), custody.subject(); DELETE FROM clinic.patients"
        ));
        assert!(error.is_none() && said.contains("ada 20") && !said.contains(MARK), "{path}: {said}");
        assert_eq!(spy.run("SELECT custody.tenant()").0.trim(), "a");
        assert_eq!(spy.run("COMMIT").1, None);
        assert!(!called(&mut superuser), "{path}: something planted was called by ours");
        // The rows are there again for the next path.
        superuser.batch("INSERT INTO clinic.patients SELECT 'a', i, 'ada ' || i FROM generate_series(1, 20) i");
    }
    // The control: what the attacker writes himself does meet what he planted.
    spy.as_a(
        "SET LOCAL search_path = lab, pg_catalog; SELECT * FROM clinic.patients WHERE name = 'x'::pg_catalog.text",
    );
    assert!(called(&mut superuser), "the trap works");
    assert_eq!(state_of_b(&mut superuser), before);
    superuser.assert_valid();
}

#[test]
fn every_function_the_application_may_call_bears_hostile_arguments() {
    let db = ward();
    let mut superuser = db.superuser();
    let rows = superuser.rows(
        "SELECT p.proname::text, p.oid::regprocedure::text, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) t), p.prokind = 'p', p.prosecdef
         FROM pg_proc p WHERE p.pronamespace = 'custody'::regnamespace AND has_function_privilege('custody_app', p.oid, 'EXECUTE') ORDER BY 1, 2",
        &[],
    );
    // A function that is not here has not been thought about: what could a tenant's session do with it?
    let considered = [
        "assume_tenant",
        "authenticate",
        "claims",
        "history",
        "key_hash",
        "row_key",
        "subject",
        "tenant",
        "tenant_bigint",
        "tenant_int",
        "tenant_uuid",
    ];
    let names: BTreeSet<String> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(names, considered.map(ToOwned::to_owned).into(), "the functions that custody_app may call");
    let before = state_of_b(&mut superuser);
    let mut spy = Spy::new(&db, &db.app_name());
    let hostile = |kind: &str| -> Vec<String> {
        let mut values: Vec<String> = vec!["NULL".into()];
        values.extend(match kind {
            "text" => [
                "''",
                "'b'",
                "E'b\\u0001'",
                "' b'",
                "'B'",
                "'a''; DROP TABLE x'",
                "repeat('x', 1000000)",
                "repeat('a.', 5000)",
                "'{\"tenant\":\"b\"}'",
                "U&'\\FEFFb'",
                "'%s%n'",
                "'e30.e30.e30'",
                "'eyJhbGciOiJub25lIiwia2lkIjoiayJ9.eyJ0ZW5hbnQiOiJiIn0.'",
            ]
            .map(Into::into)
            .to_vec(),
            "regclass" => [
                "'clinic.patients'",
                "'clinic.visits'",
                "'custody.entry'",
                "'custody.assume_grant'",
                "'pg_authid'",
                "'pg_statistic'",
                "0::oid::regclass",
                "4294967295::oid::regclass",
                "'clinic.patients_pkey'",
            ]
            .map(Into::into)
            .to_vec(),
            "jsonb" => [
                "'{}'",
                "'[]'",
                "'\"b\"'",
                "'null'",
                "'{\"tenant_id\": \"b\", \"id\": 1}'",
                "'{\"tenant_id\": {\"$ne\": 1}, \"id\": [1]}'",
                "'{\"tenant_id\": null}'",
                "(repeat('[', 5000) || repeat(']', 5000))::jsonb",
                "'{\"id\": 1e400, \"tenant_id\": \"b\"}'",
            ]
            .map(Into::into)
            .to_vec(),
            other => panic!("no hostile values of type {other} yet"),
        });
        values
    };
    let mut calls = 0;
    for row in &rows {
        let (name, kinds, procedure): (String, Vec<String>, bool) = (row.get(0), row.get(2), row.get(3));
        let mut tuples: Vec<Vec<String>> = vec![vec![]];
        for kind in &kinds {
            tuples = tuples
                .into_iter()
                .flat_map(|t| hostile(kind).into_iter().map(move |v| [t.clone(), vec![v]].concat()))
                .collect();
        }
        for tuple in tuples {
            let call = match procedure {
                true => format!("CALL custody.{name}({})", tuple.join(", ")),
                false => format!("SELECT * FROM custody.{name}({}) AS outcome", tuple.join(", ")),
            };
            for path in ["", "SET LOCAL search_path = lab, pg_temp, pg_catalog;"] {
                let (said, error) = spy.run(&format!("BEGIN; SELECT custody.assume_tenant('a'); {path} {call}"));
                assert!(!said.contains(MARK), "{call}: {said}");
                let internal = ["XX000", "UC099", "57P02", "08006"].iter().any(|c| error.as_deref() == Some(c));
                assert!(!internal, "{call}: {said}");
                if error.is_none() {
                    assert_eq!(spy.tenant(), "a", "{call}");
                }
                spy.run("ROLLBACK");
                // Nothing but assume_tenant itself, for a tenant that was allowed, sets a context.
                let (said, error) = spy.run(&format!("BEGIN; {call}"));
                assert!(!said.contains(MARK), "{call}: {said}");
                if error.is_none() && name != "assume_tenant" {
                    assert_eq!(spy.tenant(), "(none)", "{call}");
                }
                spy.run("ROLLBACK");
                calls += 2;
            }
        }
    }
    assert!(calls > 300, "{calls} calls");
    assert_eq!(state_of_b(&mut superuser), before);
    superuser.assert_valid();
}

#[test]
fn errors_plans_and_statistics_show_no_foreign_row() {
    let db = ward();
    let name = db.app_name();
    let mut superuser = db.superuser();
    // Keys and checks that could tell, in tables that are protected, and the same without protection as the control.
    superuser.batch(&format!(
        "CREATE EXTENSION btree_gist;
         CREATE TABLE clinic.oracles (tenant_id text NOT NULL, id int PRIMARY KEY, code text UNIQUE, note text NOT NULL CHECK (note <> 'bad'), span int4range, EXCLUDE USING gist (span WITH &&));
         INSERT INTO clinic.oracles SELECT 'b', i, '{MARK}' || i, '{MARK} note ' || (i % 3), int4range(i * 10, i * 10 + 5) FROM generate_series(1, 3000) i;
         CREATE TABLE clinic.bare (LIKE clinic.oracles INCLUDING ALL); INSERT INTO clinic.bare SELECT * FROM clinic.oracles;
         CREATE STATISTICS clinic.both (mcv) ON code, note FROM clinic.oracles; CREATE STATISTICS clinic.bare_both (mcv) ON code, note FROM clinic.bare;
         ANALYZE clinic.oracles, clinic.bare, custody.entry; SELECT custody.protect('clinic.oracles');
         GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.oracles, clinic.bare TO {name}"
    ));
    let mut spy = Spy::new(&db, &name);
    let (said, error) = spy.run(
        "CREATE FUNCTION lab.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leak %', $1; RETURN true; END $$;
         CREATE FUNCTION lab.leak2(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leak %', $1; RETURN true; END $$;
         CREATE FUNCTION lab.leak3(text, text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE 'leak %', $1; RETURN pg_catalog.bttextcmp($1, $2); END $$;
         CREATE OPERATOR lab.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = lab.leak2, RESTRICT = scalarltsel);
         CREATE OPERATOR lab.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = lab.leak2, RESTRICT = eqsel, JOIN = eqjoinsel);
         CREATE FUNCTION lab.agg(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'leak %', $2; RETURN $2; END $$;
         CREATE AGGREGATE lab.leaky(text) (SFUNC = lab.agg, STYPE = text); CREATE DOMAIN lab.spied AS text CHECK (lab.leak(VALUE));
         CREATE CAST (lab.spied AS integer) WITH INOUT",
    );
    assert!(error.is_none() || error.as_deref() == Some("42809"), "{said}");
    let attacks = [
        "INSERT INTO @ (tenant_id, id, code, note) VALUES ('a', 7, 'new', 'n')",
        "INSERT INTO @ (tenant_id, id, code, note) VALUES ('a', 100000, 'zq~' || 'b7', 'n')",
        "INSERT INTO @ (tenant_id, id, note, span) VALUES ('a', 100001, 'n', '[70,80)')",
        "INSERT INTO @ (tenant_id, id, note) VALUES ('b', 7, 'n') ON CONFLICT (id) DO UPDATE SET note = 'x' RETURNING *",
        "INSERT INTO @ (tenant_id, id, note) VALUES ('a', 7, 'n') ON CONFLICT (id) DO UPDATE SET note = @.note RETURNING *",
        "INSERT INTO @ (tenant_id, id, note) VALUES ('a', 7, 'n') ON CONFLICT (id) DO NOTHING RETURNING *",
        "UPDATE @ SET note = 'bad'",
        "UPDATE @ SET note = NULL",
        "UPDATE @ SET id = id WHERE (1 / (id - 7)) > 0",
        "DELETE FROM @ WHERE code::int > 0",
        "MERGE INTO @ t USING (VALUES (7)) v (i) ON t.id = v.i WHEN MATCHED AND lab.leak(t.code) THEN DELETE WHEN NOT MATCHED THEN DO NOTHING",
        "SELECT * FROM @ WHERE lab.leak(code)",
        "SELECT * FROM @ WHERE code OPERATOR(lab.<<<) 'zr'",
        "SELECT * FROM @ WHERE note OPERATOR(lab.===) 'x'",
        "EXPLAIN SELECT * FROM @ WHERE code OPERATOR(lab.<<<) 'zr'",
        "EXPLAIN SELECT * FROM @ WHERE note OPERATOR(lab.===) 'x'",
        "EXPLAIN SELECT * FROM @ x JOIN @ y ON x.note OPERATOR(lab.===) y.note",
        "SELECT lab.leaky(code) FROM @",
        "SELECT lab.leaky(code) OVER (ORDER BY id) FROM @",
        "SELECT code::lab.spied FROM @",
        "SELECT * FROM @ ORDER BY code USING OPERATOR(pg_catalog.<), lab.leak(code)",
        "SELECT * FROM @ WHERE code::int = 1",
        "SELECT * FROM @ WHERE 1 / (length(code) - 4) > 0",
        "SELECT * FROM @ GROUP BY id HAVING lab.leak(max(code))",
        "SELECT * FROM @ x WHERE EXISTS (SELECT FROM @ y WHERE lab.leak(y.code))",
        "SELECT (x).code FROM @ x WHERE (x.tenant_id, x.code) > ('', '')",
        "SELECT jsonb_path_query(to_jsonb(x), '$.code') FROM @ x",
        "SELECT x.* FROM @ x, LATERAL (SELECT lab.leak(x.code)) y",
        "SELECT * FROM @ TABLESAMPLE BERNOULLI (100)",
        "SELECT ctid, xmin, tableoid, * FROM @ WHERE ctid = ANY (ARRAY(SELECT format('(0,%s)', i)::tid FROM generate_series(1, 90) i))",
        "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM @ WHERE code > 'a'",
        "SELECT * FROM pg_stats WHERE tablename = '@@'",
        "SELECT * FROM pg_stats_ext WHERE tablename = '@@'",
        "SELECT * FROM pg_stats_ext_exprs WHERE tablename = '@@'",
        "SELECT * FROM pg_stats WHERE schemaname = 'custody'",
        "SELECT * FROM custody.entry WHERE lab.leak(new)",
        "SELECT * FROM custody.log WHERE lab.leak(new::text) OR lab.leak(row_key::text)",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_statistic_ext_data",
        "SELECT * FROM pg_mcv_list_items((SELECT stxdmcv FROM pg_statistic_ext_data LIMIT 1))",
        "SELECT pg_get_indexdef(indexrelid), pg_get_constraintdef(c.oid) FROM pg_index, pg_constraint c WHERE indrelid = '@'::regclass AND conrelid = indrelid",
        "SELECT * FROM information_schema.columns WHERE table_name = '@@'",
        "CREATE TABLE lab.child () INHERITS (@)",
        "CREATE TABLE lab.fk (id int REFERENCES @)",
        "CREATE TRIGGER t BEFORE UPDATE ON @ FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE r AS ON UPDATE TO @ DO ALSO SELECT 1",
        "CREATE INDEX ON @ (lab.leak(code))",
        "CREATE STATISTICS lab.st ON code, note FROM @",
        "ANALYZE VERBOSE @",
        "VACUUM @",
        "ALTER TABLE @ ADD CHECK (lab.leak(code))",
        "CREATE VIEW lab.u AS SELECT * FROM @; UPDATE lab.u SET note = 'bad'; DELETE FROM lab.u RETURNING *",
        "COPY @ TO STDOUT",
        "COPY @ FROM STDIN",
        "SELECT table_to_xml('@', true, false, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(note) FROM @')",
        "CREATE MATERIALIZED VIEW lab.mv AS SELECT * FROM @; SELECT * FROM lab.mv",
        "SELECT * FROM @ FOR UPDATE",
        "SELECT * FROM @ FOR KEY SHARE SKIP LOCKED",
        "SELECT query FROM pg_stat_statements",
        "SELECT * FROM pg_prepared_statements",
        "SELECT pg_stat_file('base')",
        "SET LOCAL row_security = off; SELECT * FROM @",
    ];
    let mut seen = 0;
    for attack in attacks {
        let put = |table: &str| attack.replace("@@", table).replace('@', &format!("clinic.{table}"));
        let (control, _) = spy.as_a(&put("bare"));
        seen += usize::from(control.contains(MARK));
        for context in [true, false] {
            let attack = put("oracles");
            let (said, error) = match context {
                true => spy.as_a(&attack),
                false => {
                    let outcome = spy.run(&format!("BEGIN; {attack}"));
                    spy.run("ROLLBACK");
                    outcome
                }
            };
            let detail = said.contains("Key (") || said.contains("Failing row");
            assert!(!said.contains(MARK) && !detail, "{attack}: {said} {error:?}");
        }
    }
    assert!(seen >= 25, "{seen} of the attacks tell on a table that is not protected: they can be noticed");
    assert_eq!(superuser.count(&format!("clinic.oracles WHERE tenant_id = 'b' AND note LIKE '{MARK}%'")), 3000);
}

#[test]
fn advisory_locks_do_not_disturb_the_lanes() {
    let db = ward();
    let mut spies: Vec<Spy> = (0..3).map(|_| Spy::new(&db, &db.app_name())).collect();
    // Every advisory lock that could be a lane's or the incarnation's, held by a session without a context.
    let database: String = db.superuser().one("SELECT oid::text FROM pg_database WHERE datname = current_database()");
    spies[0].run(&format!(
        "SELECT pg_advisory_lock(i, j), pg_advisory_lock(i::bigint << 32 | j), pg_advisory_lock({database}, j) FROM generate_series(0, 1) i, generate_series(0, 40) j"
    ));
    let write = |n: usize| format!("INSERT INTO clinic.patients (id, name) VALUES ({n}, 'ada')");
    for round in 0..5 {
        // A lane that is held stays held, whatever its holder unlocks: else the other session would take it, and fork its chain.
        spies[1].run(&format!(
            "BEGIN; SELECT custody.assume_tenant('a'); {}; SELECT pg_advisory_unlock_all()",
            write(1000 + round)
        ));
        spies[1].run("SELECT pg_advisory_unlock(0, j), pg_advisory_unlock(j::bigint) FROM generate_series(0, 40) j");
        let (said, error) = spies[2].run(&format!(
            "BEGIN; SELECT custody.assume_tenant('a'); SET LOCAL lock_timeout = '2s'; {}; COMMIT",
            write(2000 + round)
        ));
        assert!(error.is_none(), "{said}");
        assert!(spies[1].run("COMMIT").1.is_none());
    }
    let mut superuser = db.superuser();
    superuser.assert_valid();
    assert!(
        superuser.count("(SELECT DISTINCT lane FROM custody.entry WHERE tenant = 'a') t") >= 2,
        "they were on lanes of their own"
    );
}

#[test]
fn prepared_transactions_keep_their_tenant() {
    let db = ward();
    let mut one = Spy::new(&db, &db.app_name());
    let mut other = Spy::new(&db, &db.app_name());
    for (n, finish) in ["COMMIT PREPARED", "ROLLBACK PREPARED"].iter().enumerate() {
        one.run(&format!("BEGIN; SELECT custody.assume_tenant('a'); INSERT INTO clinic.patients (id, name) VALUES ({}, 'ada'); PREPARE TRANSACTION 'half{}'", 500 + n, db.name));
        assert_eq!(one.tenant(), "(none)");
        // Whoever finishes it gets nothing of its context, and lends it none of his own.
        assert_eq!(
            other.run(&format!("BEGIN; SELECT custody.assume_tenant('b'); {finish} 'half{}'", db.name)).1.as_deref(),
            Some("25001")
        );
        other.run("ROLLBACK");
        assert_eq!(other.run(&format!("{finish} 'half{}'", db.name)).1, None);
        assert_eq!(other.tenant(), "(none)");
    }
    let mut s = db.superuser();
    assert_eq!(s.one::<String>("SELECT string_agg(tenant_id || id, ' ') FROM clinic.patients WHERE id >= 500"), "a500");
    s.assert_valid();
}

#[test]
fn dumps_and_copies_of_the_application_hold_no_foreign_row() {
    let db = ward();
    let name = db.app_name();
    let dump = |arguments: &[&str]| {
        let mut all = vec!["--data-only", "--table", "clinic.patients", "--table", "clinic.visits"];
        all.extend(arguments);
        let output = db.cluster.client("pg_dump", &db.name, &name, &all).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (success, said, error) = dump(&[]);
    assert!(
        !success && error.contains("row-level security") && !said.contains(MARK) && !said.contains("ada"),
        "{error}"
    );
    for arguments in [&["--enable-row-security"][..], &["--enable-row-security", "--inserts"]] {
        let (success, said, error) = dump(arguments);
        assert!(success && !said.contains(MARK) && !said.contains("ada"), "{said} {error}");
    }
    // Bound to a tenant, a role can dump that one's rows.
    db.superuser().batch(&format!("SELECT custody.bind_role('{name}', 'a')"));
    let (success, said, error) = dump(&["--enable-row-security", "--inserts"]);
    assert!(success && said.contains("ada 20") && !said.contains(MARK), "{said} {error}");
    let mut spy = Spy::new(&db, &name);
    for sql in [
        "COPY clinic.patients TO STDOUT",
        "COPY clinic.patients (name) TO STDOUT (FORMAT csv)",
        "COPY (TABLE clinic.patients) TO STDOUT",
    ] {
        let (said, error) = copied(&mut spy, sql);
        assert!(error.is_none() && said.contains("ada 20") && !said.contains(MARK), "{sql}: {said}");
    }
    for refused in
        ["COPY clinic.patients TO '/tmp/x'", "COPY clinic.patients TO PROGRAM 'cat'", "COPY clinic.patients FROM STDIN"]
    {
        let error = spy.run(refused).1;
        assert!(["42501", "0A000"].contains(&error.as_deref().unwrap_or_default()), "{refused}: {error:?}");
    }
}

#[test]
fn parallel_workers_set_no_context() {
    let db = ward();
    let mut superuser = db.superuser();
    superuser.batch("INSERT INTO clinic.patients SELECT 'a', i, 'ada ' || i FROM generate_series(1000, 6000) i; ALTER TABLE clinic.patients SET (parallel_workers = 2); ANALYZE clinic.patients");
    let mut spy = Spy::new(&db, &db.app_name());
    // Labelled safe, so that it runs where no context was set yet: in the worker's own process.
    let (said, error) = spy.run(
        "SET force_parallel_mode = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_indexscan = off; SET enable_bitmapscan = off;
         CREATE FUNCTION lab.sneak() RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN PERFORM custody.assume_tenant('b'); RETURN true; END $$;
         CREATE FUNCTION lab.quiet() RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN PERFORM custody.assume_tenant('b'); RETURN true; EXCEPTION WHEN others THEN RETURN true; END $$;
         CREATE FUNCTION lab.calm() RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN true; END $$;
         CREATE FUNCTION lab.forge() RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN PERFORM set_config('custody.context', '{\"tenant\":\"b\"}', true); RETURN true; END $$",
    );
    assert!(error.is_none(), "{said}");
    for begin in ["BEGIN; SELECT custody.assume_tenant('a')", "BEGIN"] {
        for sneak in ["lab.sneak()", "lab.quiet()", "lab.forge()"] {
            for query in [
                "SELECT count(*), max(name), min(name) FROM clinic.patients WHERE $",
                "SELECT $, count(name), max(name) FROM clinic.patients",
                "SELECT max(name) FROM clinic.patients WHERE id > 0 AND $ GROUP BY id % 3",
            ] {
                let (said, _) = spy.run(&format!("{begin}; {}", query.replace('$', sneak)));
                // Without a context in the leader, assume_tenant('b') would be the session's right: but not in a worker alone.
                assert!(!said.contains(MARK), "{begin}: {query} with {sneak}: {said}");
                spy.run("ROLLBACK");
                assert_eq!(spy.tenant(), "(none)");
            }
        }
    }
    // The control: these plans do run in workers.
    let (plan, _) = spy.as_a("EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM clinic.patients WHERE lab.calm()");
    assert!(plan.contains("Workers Launched: 2") || plan.contains("Workers Launched: 1"), "{plan}");
}

/// README.md names these: what PostgreSQL gives to everybody, or to whoever shares a role. If one is closed, the README says too much.
#[test]
fn what_is_named_as_open_is_open() {
    let db = ward();
    let name = db.app_name();
    let (mut one, mut other) = (Spy::new(&db, &name), Spy::new(&db, &name));
    one.run(
        "BEGIN; SELECT custody.assume_tenant('b'); SELECT * FROM clinic.patients WHERE name = 'of b in a statement'",
    );
    let (said, _) =
        other.run(&format!("SELECT query FROM pg_stat_activity WHERE usename = '{name}' AND pid <> pg_backend_pid()"));
    assert!(said.contains("b in a statement"), "statements are seen by sessions of the same role: {said}");
    let outcome = one.run("SELECT lo_from_bytea(4711, 'from b'); UPDATE clinic.patients SET notes = notes WHERE id = 1; COMMIT; SET app.note = 'from b'; PREPARE kept AS SELECT 'from b'");
    assert_eq!(outcome.1, None, "{}", outcome.0);
    assert!(other.run("SELECT convert_from(lo_get(4711), 'UTF8')").0.contains("from b"), "large objects");
    assert!(
        one.run("SHOW app.note").0.contains("from b") && one.run("EXECUTE kept").0.contains("from b"),
        "what a session keeps"
    );
    assert_eq!(other.run("LISTEN gossip").1, None);
    assert_eq!(one.run("NOTIFY gossip, 'from b'").1, None);
    // How large a table is, and that some row changed: the row that was updated points to its successor.
    let tid: String = db.superuser().one("SELECT ctid::text FROM clinic.patients WHERE tenant_id = 'b' AND id = 2");
    db.superuser().batch("UPDATE clinic.patients SET notes = notes WHERE tenant_id = 'b' AND id = 2");
    assert_ne!(other.run(&format!("SELECT currtid2('clinic.patients', '{tid}')")).0.trim(), tid);
    assert_ne!(other.run("SELECT pg_relation_size('clinic.patients')").0.trim(), "0");
    assert_eq!(other.run("BEGIN; LOCK TABLE clinic.patients IN ACCESS EXCLUSIVE MODE; ROLLBACK").1, None);
    one.run(&format!("BEGIN; SELECT custody.assume_tenant('b'); INSERT INTO clinic.patients (id, name) VALUES (99, 'x'); PREPARE TRANSACTION 'open{name}'"));
    assert_eq!(other.run(&format!("ROLLBACK PREPARED 'open{name}'")).1, None, "prepared transactions of the same role");
    assert_eq!(other.run(&format!("ALTER ROLE {name} PASSWORD 'x'; ALTER ROLE {name} PASSWORD NULL; ALTER ROLE {name} SET search_path = lab; ALTER ROLE {name} RESET ALL")).1, None);
    let pid = one.run("SELECT pg_backend_pid()").0.trim().to_owned();
    assert_eq!(other.run(&format!("SELECT pg_terminate_backend({pid})")).0.trim(), "t");
}

/// A statement that somebody with any SQL at all might try.
fn attempt(random: &mut StdRng, role: &str) -> String {
    const TABLES: [&str; 6] =
        ["clinic.patients", "clinic.visits", "custody.log", "custody.entry", "lab.v", "ONLY clinic.patients"];
    const CONDITIONS: [&str; 14] = [
        "true",
        "tenant_id = 'b'",
        "tenant_id <> custody.tenant()",
        "tenant_id IS NOT NULL OR true",
        "lab.leak(x::text)",
        "x::text > ''",
        "ctid > '(0,0)'",
        "EXISTS (SELECT FROM clinic.patients y WHERE lab.leak(y::text))",
        "NOT (tenant_id = 'a')",
        "coalesce(custody.tenant(), 'b') = tenant_id",
        "(x).tenant_id LIKE 'b%'",
        "1 / (CASE WHEN tenant_id = 'b' THEN 0 ELSE 1 END) = 1",
        "xmin::text::bigint > 0",
        "tenant_id COLLATE \"C\" >= 'b'",
    ];
    const SETTINGS: [&str; 16] = [
        "row_security = off",
        "row_security = on",
        "force_parallel_mode = on",
        "plan_cache_mode = force_generic_plan",
        "enable_seqscan = off",
        "enable_indexscan = off",
        "search_path = lab, pg_temp, pg_catalog",
        "search_path = pg_temp, clinic",
        "custody.context = '{\"tenant\":\"b\"}'",
        "custody.request_id = 'b'",
        "default_transaction_isolation = 'repeatable read'",
        "session_replication_role = replica",
        "role = custody_app",
        "role = none",
        "jit = off",
        "constraint_exclusion = on",
    ];
    let pick = |random: &mut StdRng, from: &[&str]| (*from.choose(random).unwrap()).to_owned();
    let query = |random: &mut StdRng| {
        let (table, condition) = (pick(random, &TABLES), pick(random, &CONDITIONS));
        let columns = pick(
            random,
            &["*", "x", "count(*)", "x::text, ctid", "max(x::text)", "string_agg(x::text, ',')", "to_jsonb(x)"],
        );
        let lock = if columns == "*" && random.random_ratio(1, 5) { " FOR UPDATE" } else { "" };
        format!("SELECT {columns} FROM {table} x WHERE {condition}{lock}")
    };
    let q = query(random);
    let n = random.random_range(1..60);
    let tenant = pick(random, &["a", "b"]);
    match random.random_range(0..30) {
        0..=5 => q,
        6 => format!(
            "INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('{tenant}', {n}, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET notes = 'x' RETURNING *"
        ),
        7 => format!(
            "UPDATE clinic.patients x SET notes = 'x', tenant_id = '{tenant}' WHERE {} RETURNING *",
            pick(random, &CONDITIONS)
        ),
        8 => format!("DELETE FROM clinic.patients x WHERE {} RETURNING *", pick(random, &CONDITIONS)),
        9 => format!(
            "MERGE INTO clinic.patients x USING (VALUES ('{tenant}', {n})) v (t, i) ON x.id = v.i WHEN MATCHED THEN UPDATE SET notes = 'm' WHEN NOT MATCHED THEN INSERT (tenant_id, id) VALUES (v.t, v.i)"
        ),
        10 => format!("SET {}", pick(random, &SETTINGS)),
        11 => format!("SET LOCAL {}", pick(random, &SETTINGS)),
        12 => pick(
            random,
            &[
                "RESET ALL",
                "DISCARD PLANS",
                "DISCARD ALL",
                "DISCARD TEMP",
                "RESET custody.context",
                "RESET ROLE",
                "RESET SESSION AUTHORIZATION",
                "SET SESSION AUTHORIZATION DEFAULT",
            ],
        ),
        13 => pick(random, &["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]),
        14 => format!("SELECT custody.assume_tenant('{tenant}')").replace("'b'", "'c'"),
        15 => format!("DECLARE c{n} CURSOR{} FOR {q}", pick(random, &["", " WITH HOLD"])),
        16 => format!("FETCH ALL FROM c{n}"),
        17 => format!("PREPARE p{} AS {q}", n % 4),
        18 => format!("EXECUTE p{}", n % 4),
        19 => format!("CREATE TABLE {} AS {q}", pick(random, &["pg_temp.t", "lab.stolen", "pg_temp.patients"])),
        20 => format!("CREATE TEMP TABLE t{n} ON COMMIT DROP AS {q}"),
        21 => {
            format!("DO $do$ BEGIN EXECUTE $q${q}$q$; EXCEPTION WHEN others THEN RAISE NOTICE '%', SQLERRM; END $do$")
        }
        22 => format!("EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF) {q}"),
        23 => format!("SELECT query_to_xml($q${q}$q$, true, false, '')"),
        24 => format!("CREATE OR REPLACE VIEW lab.v2 AS {q}"),
        25 => {
            format!("SELECT set_config('custody.context', '{{\"tenant\":\"{tenant}\"}}', {})", random.random_bool(0.5))
        }
        26 => "SELECT * FROM custody.history('clinic.patients', '{\"tenant_id\": \"b\", \"id\": 1}')".into(),
        27 => pick(
            random,
            &[
                "TRUNCATE clinic.patients",
                "ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY",
                "LOCK TABLE custody.entry IN EXCLUSIVE MODE",
                "DROP OWNED BY custody_app",
                "DROP EXTENSION pg_custody CASCADE",
                "ANALYZE clinic.patients",
            ],
        ),
        28 => format!("ALTER ROLE {role} SET {}", pick(random, &SETTINGS[..6])),
        _ => format!(
            "WITH w AS (UPDATE clinic.patients x SET notes = 'w' WHERE {} RETURNING x.*) SELECT * FROM w, clinic.patients y",
            pick(random, &CONDITIONS)
        ),
    }
}

/// What a random attacker did.
#[derive(Default)]
struct Attack {
    ran: u32,
    refused: u32,
    /// Statements that showed rows of the attacker's own tenant.
    own: u32,
}

/// Lets a random attacker loose as tenant a; an error tells what he saw that he should not.
fn attack(db: &Db, seed: u64, lasting: Duration) -> Result<Attack, String> {
    let name = db.app_name();
    let mut superuser = db.superuser();
    let before = state_of_b(&mut superuser);
    let mut random = StdRng::seed_from_u64(seed);
    let mut spy = Spy::new(db, &name);
    spy.run(
        "CREATE OR REPLACE FUNCTION lab.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leak %', $1; RETURN true; END $$;
         CREATE OR REPLACE VIEW lab.v AS SELECT * FROM clinic.patients",
    );
    let until = Instant::now() + lasting;
    let mut done = Attack::default();
    while Instant::now() < until {
        if random.random_ratio(1, 8) {
            // A new session may be the one that has not loaded the library yet.
            spy = Spy::new(db, &name);
        }
        if random.random_ratio(1, 4) {
            // What he locked himself out of, and the rows he deleted, are there again.
            superuser.batch(&format!(
                "ALTER ROLE {name} RESET ALL; INSERT INTO clinic.patients SELECT 'a', i, 'ada ' || i FROM generate_series(1, 20) i ON CONFLICT DO NOTHING"
            ));
            spy.run("RESET ALL");
        }
        let mut history: Vec<String> = vec!["BEGIN".into()];
        let context_at = if random.random_bool(0.7) { 0 } else { random.random_range(0..9) };
        for n in 0..random.random_range(1..12) {
            if n == context_at {
                history.push("SELECT custody.assume_tenant('a')".into());
            }
            history.push(attempt(&mut random, &name));
        }
        history.push(
            ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"].choose(&mut random).unwrap().to_string(),
        );
        for i in 0..history.len() {
            // Mostly an error is survived, as by psql's ON_ERROR_ROLLBACK.
            let survives = i > 0 && i + 1 < history.len() && random.random_bool(0.9);
            if survives {
                spy.run("SAVEPOINT survive");
            }
            let (said, error) = spy.run(&history[i]);
            if said.contains(MARK) {
                return Err(format!("{}\n{said}", history[..=i].join(";\n")));
            }
            done.ran += 1;
            done.refused += u32::from(error.is_some());
            done.own += u32::from(said.contains("ada"));
            if survives {
                spy.run(if error.is_some() { "ROLLBACK TO survive" } else { "RELEASE survive" });
            }
        }
        let all = history.join(";\n");
        spy.run("ROLLBACK");
        spy.run("RESET ROLE");
        if spy.tenant() != "(none)" {
            return Err(format!("a context was left by {all}"));
        }
        // Nothing of tenant a is on the connection for whoever comes next; a cursor or a table without its rows does no harm.
        let left = "SELECT format('FETCH ALL FROM %I', name) FROM pg_catalog.pg_cursors WHERE name <> '' UNION ALL
                    SELECT format('SELECT * FROM pg_temp.%I', relname) FROM pg_catalog.pg_class WHERE relkind = 'r' AND relnamespace = pg_catalog.pg_my_temp_schema()";
        for left in spy.run(left).0.lines() {
            if spy.run(left.trim()).0.contains("ada") {
                return Err(format!("{left} reads what was left by {all}"));
            }
        }
        spy.run("CLOSE ALL");
        spy.run("DISCARD TEMP");
        spy.run("DROP TABLE IF EXISTS lab.stolen");
    }
    superuser.batch(&format!("ALTER ROLE {name} RESET ALL"));
    match state_of_b(&mut superuser) == before {
        true => Ok(done),
        false => Err("tenant b's rows changed".into()),
    }
}

fn seed() -> u64 {
    let seed = std::env::var("CUSTODY_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("CUSTODY_SEED={seed}");
    seed
}

#[test]
fn a_random_attacker_finds_nothing() {
    let db = ward();
    let seed = seed();
    let seconds = std::env::var("CUSTODY_ATTACK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let done = attack(&db, seed, Duration::from_secs(seconds)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    println!("{} statements, {} refused, {} with rows of the attacker's own tenant", done.ran, done.refused, done.own);
    assert!(done.ran > 200 && done.own * 40 > done.ran && done.refused < done.ran * 3 / 4, "too little was tried");
    db.superuser().assert_valid();
}

#[test]
fn the_random_attacker_notices_an_open_door() {
    for door in [
        "DROP POLICY custody_floor ON clinic.patients; CREATE POLICY open ON clinic.patients USING (true)",
        "CREATE POLICY open ON custody.entry FOR SELECT USING (true)",
        "CREATE OR REPLACE VIEW lab.open AS SELECT * FROM clinic.patients; ALTER FUNCTION custody.history(regclass, jsonb) SECURITY DEFINER",
        "DROP POLICY custody_floor ON clinic.patients; CREATE POLICY slow ON clinic.patients USING (lab.shown(tenant_id))",
    ] {
        let db = ward();
        db.superuser().batch(
            "CREATE FUNCTION lab.shown(text) RETURNS boolean LANGUAGE sql AS $$ SELECT random() < 0.5 $$; GRANT EXECUTE ON FUNCTION lab.shown(text) TO PUBLIC",
        );
        db.superuser().batch(door);
        assert!(attack(&db, seed(), Duration::from_secs(20)).is_err(), "{door}");
    }
}
