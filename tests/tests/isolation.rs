//! Promises I1 to I4: what another tenant's session can see, change or find out, and how the context could be forged.

use custody_tests::{Db, Session, now, state, token, token_key};
use postgres::NoTls;
use serde_json::json;

#[test]
fn a_tenant_sees_and_changes_its_own_rows_only() {
    let db = Db::clinic();
    let mut app = db.app();
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Ada'), (2, 'Alan')");
    app.as_tenant("b", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Bo')");
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    assert_eq!(app.count("clinic.patients"), 2);
    assert_eq!(app.0.execute("UPDATE clinic.patients SET name = 'x' WHERE tenant_id = 'b'", &[]).unwrap(), 0);
    assert_eq!(app.0.execute("DELETE FROM clinic.patients WHERE tenant_id = 'b'", &[]).unwrap(), 0);
    app.batch("ROLLBACK");
    for write in [
        "INSERT INTO clinic.patients VALUES ('b', 9, 'x')",
        // The same words for a key that exists there and for one that does not.
        "INSERT INTO clinic.patients VALUES ('b', 1, 'x')",
        "UPDATE clinic.patients SET tenant_id = 'b' WHERE id = 2",
        "INSERT INTO clinic.patients VALUES ('b', 1, 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO clinic.patients VALUES ('b', 1, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET name = 'y'",
        "MERGE INTO clinic.patients p USING (VALUES ('b', 1)) v (t, i) ON p.tenant_id = v.t AND p.id = v.i
           WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.t, v.i)",
    ] {
        let failed = app.0.batch_execute(&format!("BEGIN; SELECT custody.assume_tenant('a'); {write}")).unwrap_err();
        let db_error = failed.as_db_error().unwrap();
        assert_eq!((db_error.code().code(), db_error.detail()), ("42501", None), "{write}: {db_error}");
        app.batch("ROLLBACK");
    }
    for refused in [
        "TRUNCATE clinic.patients",
        "COPY clinic.patients FROM STDIN",
        "ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY",
    ] {
        let sqlstate = app.fails(&format!("BEGIN; SELECT custody.assume_tenant('a'); {refused}"));
        assert!(["42501", "0A000"].contains(&&*sqlstate), "{refused}: {sqlstate}");
        app.batch("ROLLBACK");
    }
    assert_eq!(db.superuser().count("clinic.patients"), 3);
}

#[test]
fn without_a_context_there_are_no_rows_and_every_write_is_an_error() {
    let db = Db::clinic();
    let mut app = db.app();
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Ada')");
    assert_eq!(app.count("clinic.patients"), 0);
    for write in [
        "INSERT INTO clinic.patients VALUES ('a', 2)",
        "INSERT INTO clinic.patients (id) VALUES (2)",
        "INSERT INTO clinic.patients SELECT * FROM clinic.patients",
        "UPDATE clinic.patients SET name = 'x'",
        "DELETE FROM clinic.patients",
        "MERGE INTO clinic.patients p USING (VALUES (1)) v (i) ON false WHEN MATCHED THEN DELETE",
    ] {
        assert_eq!(app.fails(write), "UC001", "{write}");
    }
    // FORCE: the owner is held to it as well.
    let mut superuser = db.superuser();
    let owner = format!("{}_owner", db.name);
    superuser.batch(&format!(
        "CREATE ROLE {owner} LOGIN IN ROLE custody_app; GRANT ALL ON SCHEMA clinic TO {owner}; ALTER TABLE clinic.patients OWNER TO {owner}"
    ));
    let mut owner = db.session(&owner);
    assert_eq!(owner.count("clinic.patients"), 0);
    assert_eq!(owner.fails("DELETE FROM clinic.patients"), "UC001");
    assert_eq!(superuser.count("clinic.patients"), 1);
}

#[test]
fn the_context_ends_with_the_transaction() {
    let db = Db::clinic();
    let mut app = db.app();
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Ada')");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
    app.batch("BEGIN; SELECT custody.assume_tenant('a'); ROLLBACK");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
    // Outside a block it ends with its statement, and says so.
    app.batch("SELECT custody.assume_tenant('a')");
    assert_eq!(app.count("clinic.patients"), 0);
    // Prepared transactions carry nothing over either.
    app.batch("BEGIN; SELECT custody.assume_tenant('a'); INSERT INTO clinic.patients (id) VALUES (2); PREPARE TRANSACTION 'ctx'");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
    app.batch("ROLLBACK PREPARED 'ctx'");
    app.as_tenant("b", "SELECT 1");
}

#[test]
fn a_context_is_set_once_whatever_is_rolled_back() {
    let db = Db::clinic();
    let mut app = db.app();
    app.batch("BEGIN; SELECT custody.assume_tenant('a'); SELECT custody.assume_tenant('a')");
    assert_eq!(app.fails("SELECT custody.assume_tenant('b')"), "UC003");
    app.batch("ROLLBACK; BEGIN; SAVEPOINT s; SELECT custody.assume_tenant('a'); ROLLBACK TO s");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
    assert_eq!(app.fails("SELECT custody.assume_tenant('b')"), "UC003");
    app.batch("ROLLBACK; BEGIN; SAVEPOINT s; SELECT custody.assume_tenant('a'); RELEASE s");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()").as_deref(), Some("a"));
    app.batch("ROLLBACK");
}

#[test]
fn roles_act_for_no_tenant_but_those_they_were_given() {
    let db = Db::clinic();
    let mut app = db.app();
    assert_eq!(app.fails("SELECT custody.assume_tenant('c')"), "UC002");
    assert_eq!(app.fails("SELECT custody.assume_tenant('')"), "UC002");
    assert_eq!(app.fails("SELECT custody.assume_tenant(NULL)"), "UC013");
    let (bound, group) = (format!("{}_bound", db.name), format!("{}_group", db.name));
    let mut superuser = db.superuser();
    superuser.batch(&format!(
        "CREATE ROLE {bound} LOGIN IN ROLE custody_app; SELECT custody.bind_role('{bound}', 'a');
         GRANT USAGE ON SCHEMA clinic TO {bound}; GRANT SELECT, INSERT ON clinic.patients TO {bound};
         INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')"
    ));
    // Bound: no call at all, and no other tenant, not even one that is allowed besides.
    let mut session = db.session(&bound);
    assert_eq!(session.count("clinic.patients"), 1);
    session.batch("INSERT INTO clinic.patients (id, name) VALUES (2, 'Alan')");
    superuser.batch(&format!("SELECT custody.allow_assume('{bound}', ARRAY['b'])"));
    assert_eq!(session.fails("SELECT custody.assume_tenant('b')"), "UC002");
    session.batch("BEGIN; SELECT custody.assume_tenant('a'); COMMIT");
    superuser.batch(&format!("SELECT custody.unbind_role('{bound}')"));
    assert_eq!(session.count("clinic.patients"), 0);
    // Through a group.
    superuser.batch(&format!(
        "CREATE ROLE {group} NOLOGIN; GRANT {group} TO {bound}; SELECT custody.allow_assume('{group}', ARRAY['b'])"
    ));
    session.as_tenant("b", "SELECT 1");
    superuser.batch(&format!(
        "SELECT custody.allow_assume('{group}', ARRAY[]::text[]), custody.allow_assume('{bound}', '{{}}')"
    ));
    assert_eq!(session.fails("SELECT custody.assume_tenant('b')"), "UC002");
    // A role that row-level security does not hold cannot be bound.
    assert_eq!(superuser.fails("SELECT custody.bind_role('postgres', 'a')"), "UC012");
    assert_eq!(superuser.fails("SELECT custody.bind_role('custody_app', '')"), "UC013");
    // Configuring is the administrator's.
    for call in [
        "bind_role('custody_app', 'a')",
        "allow_assume('custody_app', '{a}')",
        "create_tenant('x', 'x')",
        "revoke_tokens('x')",
        "new_incarnation('x')",
    ] {
        assert_eq!(app.fails(&format!("SELECT custody.{call}")), "42501", "{call}");
    }
}

#[test]
fn nothing_forges_the_context() {
    let db = Db::clinic();
    let name = db.app_name();
    let forged = r#"{"tenant":"b"}"#;
    let mut superuser = db.superuser();
    superuser.batch("INSERT INTO clinic.patients VALUES ('b', 1, 'Bo')");
    let mut app = db.app();
    let blind = |app: &mut Session| {
        assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
        assert_eq!(app.count("clinic.patients"), 0);
    };
    blind(&mut app);
    for attempt in [
        format!("SET custody.context = '{forged}'"),
        format!("SET LOCAL custody.context = '{forged}'"),
        format!("SELECT set_config('custody.context', '{forged}', false)"),
        format!(
            "UPDATE pg_settings SET setting = '{forged}' WHERE name = 'custody.context'; SELECT set_config('custody.context', '{forged}', true)"
        ),
        format!("ALTER ROLE {name} SET custody.context = '{forged}'"),
        format!(
            "CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql SET custody.context = '{forged}' AS 'SELECT count(*) FROM clinic.patients'"
        ),
        "SET custody.tenant = 'b'".into(),
        "SET custody.anything = 'b'".into(),
        "SET SESSION AUTHORIZATION postgres".into(),
    ] {
        let sqlstate = app.fails(&attempt);
        assert!(["42501", "UC006", "42602", "42704"].contains(&&*sqlstate), "{attempt}: {sqlstate}");
        blind(&mut app);
    }
    for harmless in ["RESET ALL", "RESET custody.request_id", "DISCARD ALL", "SET ROLE custody_app; RESET ROLE"] {
        let _ = app.0.batch_execute(harmless);
        blind(&mut app);
    }
    // RESET takes a context away at most.
    app.batch("BEGIN; SELECT custody.assume_tenant('a'); RESET ALL");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()").as_deref(), Some("a"));
    app.batch("ROLLBACK");

    // With the right to set it granted, it is still only ours to set.
    superuser.batch(&format!("GRANT SET ON PARAMETER custody.context TO {name}"));
    assert_eq!(app.fails(&format!("SET custody.context = '{forged}'")), "UC006");
    assert_eq!(superuser.fails(&format!("SET custody.context = '{forged}'")), "UC006");
    assert_eq!(superuser.fails(&format!("ALTER ROLE {name} SET custody.context = '{forged}'")), "UC006");
    assert_eq!(superuser.fails(&format!("ALTER DATABASE {} SET custody.context = '{forged}'", db.name)), "UC006");
    assert_eq!(superuser.fails(&format!("ALTER SYSTEM SET custody.context = '{forged}'")), "55P02");
    blind(&mut app);

    // A superuser's definer function.
    superuser.batch(&format!(
        "CREATE FUNCTION clinic.forge() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM set_config('custody.context', '{forged}', false); END $$;
         GRANT EXECUTE ON FUNCTION clinic.forge() TO {name}"
    ));
    assert_eq!(app.fails("SELECT clinic.forge()"), "UC006");
    blind(&mut app);

    // A setting made before the library is loaded: as the session's first statement, at login, and from the role's settings,
    // which a superuser can write while the library is not loaded.
    let mut fresh = db.app();
    let _ = fresh.0.batch_execute(&format!("SET custody.context = '{forged}'"));
    let _ = fresh.0.batch_execute("SET custody.tenant = 'b'");
    blind(&mut fresh);
    let mut config = db.cluster.config(&db.name, &name);
    config.options(r#"-c custody.context={"tenant":"b"}"#);
    if let Ok(client) = config.connect(NoTls) {
        blind(&mut Session(client));
    }
    db.superuser().batch(&format!("ALTER ROLE {name} SET custody.context = '{forged}'"));
    blind(&mut db.app());
    db.superuser().batch(&format!("ALTER ROLE {name} RESET ALL"));
}

#[test]
fn parallel_workers_see_the_context() {
    let db = Db::clinic();
    db.superuser().batch(
        "INSERT INTO clinic.patients SELECT t, i, 'x' FROM generate_series(1, 5000) i, unnest(ARRAY['a', 'b']) t; ANALYZE clinic.patients;
         ALTER TABLE clinic.patients SET (parallel_workers = 2)",
    );
    let mut app = db.app();
    app.batch(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_indexscan = off;
         SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
    );
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    let plan: Vec<String> = app
        .rows("EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM clinic.patients", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert!(plan.iter().any(|l| l.contains("Workers Launched: 2")), "{plan:#?}");
    assert_eq!(app.count("clinic.patients"), 5000);
    app.batch("COMMIT");
    assert_eq!(app.count("clinic.patients"), 0);
    // A bound role has no setting to inherit: each worker looks the binding up.
    db.superuser().batch(&format!("SELECT custody.bind_role('{}', 'b')", db.app_name()));
    assert_eq!(app.count("clinic.patients"), 5000);
    assert_eq!(app.one::<String>("SELECT min(tenant_id) || max(tenant_id) FROM clinic.patients"), "bb");
    db.superuser().batch(&format!("SELECT custody.unbind_role('{}')", db.app_name()));
    for _ in 0..10 {
        assert_eq!(app.count("clinic.patients"), 0);
    }
}

#[test]
fn a_cached_plan_serves_each_tenant_its_own() {
    let db = Db::clinic();
    db.superuser().batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('a', 2, 'Alan'), ('b', 1, 'Bo')");
    let mut app = db.app();
    let statement = app.0.prepare("SELECT count(*) FROM clinic.patients").unwrap();
    app.batch("SET plan_cache_mode = force_generic_plan");
    for _ in 0..4 {
        for (tenant, count) in [("a", 2i64), ("b", 1)] {
            app.batch(&format!("BEGIN; SELECT custody.assume_tenant('{tenant}')"));
            assert_eq!(app.0.query_one(&statement, &[]).unwrap().get::<_, i64>(0), count);
            app.batch("COMMIT");
            assert_eq!(app.0.query_one(&statement, &[]).unwrap().get::<_, i64>(0), 0);
        }
    }
}

#[test]
fn tokens() {
    let db = Db::clinic();
    let mut superuser = db.superuser();
    let public = token_key().verifying_key().to_bytes().to_vec();
    superuser.0.execute("SELECT custody.add_token_key('k1', $1, 'clinic')", &[&public]).unwrap();
    let good = json!({"sub": "dr.ada", "tenant": "a", "aud": "clinic", "exp": now() + 60, "iat": now() - 5});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(&token_key(), "k1", &claims)
    };
    let mut app = db.app();
    let attempt = |app: &mut Session, token: &str| -> Result<(), String> {
        app.batch("BEGIN");
        let outcome = app.0.execute("SELECT custody.authenticate($1)", &[&token]).map(drop).map_err(|e| state(&e));
        if outcome.is_err() {
            app.batch("ROLLBACK");
        }
        outcome
    };
    attempt(&mut app, &token(&token_key(), "k1", &good)).unwrap();
    assert_eq!(
        app.one::<String>("SELECT custody.tenant() || ' ' || custody.subject() || ' ' || (custody.claims() ->> 'aud')"),
        "a dr.ada clinic"
    );
    app.batch("INSERT INTO clinic.patients (id, name) VALUES (1, 'Ada'); COMMIT");
    let actor = superuser.rows("SELECT subject, claims ->> 'sub', application_name, client_addr::text FROM custody.log WHERE op = 'INSERT' AND tenant = 'a'", &[]);
    assert_eq!(actor[0].get::<_, &str>(0), "dr.ada");
    assert_eq!(actor[0].get::<_, &str>(1), "dr.ada");
    for (why, token) in [
        ("expired", with("exp", json!(now() - 1))),
        ("no expiry", with("exp", json!(null))),
        ("another audience", with("aud", json!("other"))),
        ("not yet", with("nbf", json!(now() + 60))),
        ("no tenant", with("tenant", json!(null))),
        ("unknown key", token(&token_key(), "k2", &good)),
        ("another key", token(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]), "k1", &good)),
        ("nonsense", "x.y.z".into()),
        ("empty", String::new()),
        ("long", "a".repeat(100_000)),
    ] {
        assert_eq!(attempt(&mut app, &token), Err("UC004".into()), "{why}");
    }
    // Expiry is checked at every use: a transaction does not outlive its token.
    attempt(&mut app, &with("exp", json!(now() + 2))).unwrap();
    app.batch("SELECT pg_sleep(3)");
    assert_eq!(app.fails("SELECT count(*) FROM clinic.patients"), "UC005");
    app.batch("ROLLBACK");
    // The statement's text, token and all, is not left for others to read.
    attempt(&mut app, &with("exp", json!(now() + 60))).unwrap();
    app.batch("ROLLBACK");
    superuser.batch("SELECT custody.revoke_tokens('dr.ada')");
    assert_eq!(attempt(&mut app, &token(&token_key(), "k1", &good)), Err("UC004".into()));
    assert_eq!(attempt(&mut app, &with("iat", json!(null))), Err("UC004".into()));
    // Issue times are whole seconds: one of the next second is later for sure.
    app.batch("SELECT pg_sleep(1.1)");
    attempt(&mut app, &with("iat", json!(now()))).unwrap();
    app.batch("ROLLBACK");
    // A bound role's token must be for its tenant.
    superuser.batch(&format!("SELECT custody.bind_role('{}', 'b')", db.app_name()));
    assert_eq!(attempt(&mut app, &with("sub", json!("other"))), Err("UC002".into()));
    superuser.batch("SELECT custody.remove_token_key('k1')");
    assert_eq!(attempt(&mut app, &with("sub", json!("other"))), Err("UC004".into()));
    assert_eq!(superuser.fails("SELECT custody.add_token_key('k', '\\x00', 'x')"), "UC013");
    assert_eq!(
        superuser
            .fails("SELECT custody.add_token_key('k', decode(repeat('01', 32), 'hex'), 'x', algorithm => 'HS256')"),
        "UC013"
    );
}

#[test]
fn typed_tenant_columns() {
    let db = Db::new();
    let app = db.app_name();
    let mut superuser = db.superuser();
    let uuids = ["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"];
    superuser.batch(&format!("CREATE ROLE {app} LOGIN IN ROLE custody_app"));
    for (kind, tenants) in [
        ("text", ["x", "y"]),
        ("varchar(40)", ["x", "y"]),
        ("uuid", uuids),
        ("smallint", ["1", "2"]),
        ("integer", ["1", "-2"]),
        ("bigint", ["9007199254740993", "2"]),
    ] {
        let table = format!("t_{}", kind.split('(').next().unwrap());
        superuser.batch(&format!(
            "CREATE TABLE {table} (org {kind}, id int, PRIMARY KEY (org, id)); SELECT custody.protect('{table}', 'org'); SELECT custody.audit('{table}');
             GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {app};
             SELECT custody.allow_assume('{app}', ARRAY['{}', '{}', '01', 'zzz', '6BA7B810-9DAD-11D1-80B4-00C04FD430C8'])",
            tenants[0], tenants[1]
        ));
        let mut app = db.app();
        app.as_tenant(tenants[0], &format!("INSERT INTO {table} (id) VALUES (1), (2)"));
        app.as_tenant(tenants[1], &format!("INSERT INTO {table} (id) VALUES (1)"));
        for (tenant, count) in [(tenants[0], 2), (tenants[1], 1)] {
            app.batch(&format!("BEGIN; SELECT custody.assume_tenant('{tenant}')"));
            assert_eq!(app.count(&table), count, "{kind}");
            assert_eq!(app.count(&format!("custody.log WHERE table_name = '{table}'")), count, "{kind}");
            // The policy is an index condition.
            app.batch("SET LOCAL enable_seqscan = off");
            let plan: Vec<String> =
                app.rows(&format!("EXPLAIN SELECT * FROM {table}"), &[]).iter().map(|r| r.get(0)).collect();
            assert!(plan.iter().any(|l| l.contains("Index Cond")), "{kind}: {plan:#?}");
            app.batch("COMMIT");
        }
        if !kind.starts_with("text") && !kind.starts_with("varchar") {
            // Not the canonical form of any tenant: no rows, and a clear error on a write.
            for odd in ["01", "zzz", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"] {
                app.batch(&format!("BEGIN; SELECT custody.assume_tenant('{odd}')"));
                assert_eq!(app.count(&table), 0, "{kind} {odd}");
                assert_eq!(app.fails(&format!("DELETE FROM {table}")), "UC001", "{kind} {odd}");
                app.batch("ROLLBACK");
            }
        }
    }
}

#[test]
fn protect_refuses_what_it_cannot_keep_and_unprotect_takes_all_back() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE no_column (id int); CREATE TEMP TABLE temporary (tenant_id text); CREATE VIEW v AS SELECT 'a'::text AS tenant_id;
         CREATE TABLE odd (tenant_id numeric); CREATE TABLE generated (a text, tenant_id text GENERATED ALWAYS AS (a) STORED);
         CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE loose_tenants (tenant_id text COLLATE loose); CREATE TABLE shared (tenant_id text); SELECT custody.register_shared('shared', 'why')",
    );
    for table in
        ["no_column", "temporary", "v", "odd", "generated", "loose_tenants", "shared", "pg_class", "custody.entry"]
    {
        assert_eq!(s.fails(&format!("SELECT custody.protect('{table}')")), "UC020", "{table}");
    }
    assert_eq!(s.fails("SELECT custody.register_shared('odd', ' ')"), "UC013");
    assert_eq!(s.fails("SELECT custody.unprotect('odd')"), "UC021");

    const CATALOG: &str = "SELECT string_agg(x, E'\\n' ORDER BY x) FROM (
        SELECT format('%s %s %s', relname, relrowsecurity, relforcerowsecurity) FROM pg_class WHERE relname LIKE 'mine%'
        UNION ALL SELECT format('%s.%s %s %s', attrelid::regclass, attname, attnotnull, atthasdef) FROM pg_attribute WHERE attrelid::regclass::text LIKE 'mine%' AND attnum > 0
        UNION ALL SELECT format('%s %s', polrelid::regclass, polname) FROM pg_policy WHERE polrelid::regclass::text LIKE 'mine%'
        UNION ALL SELECT format('%s %s', tgrelid::regclass, tgname) FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'mine%') t (x)";
    s.batch(
        "CREATE TABLE mine (tenant_id text, id int) PARTITION BY LIST (tenant_id); CREATE TABLE mine_a PARTITION OF mine FOR VALUES IN ('a');
         CREATE POLICY own ON mine USING (true)",
    );
    let before: String = s.one(CATALOG);
    // What it says beyond that are the forms of the long steps that nobody waits for.
    const INSTANT: &str = "SELECT * FROM custody.protect('mine', dry_run => true) WHERE lock NOT LIKE '%nobody waits%' AND sql NOT LIKE '%custody_tenant_not_null%'";
    let dry = s.rows(INSTANT, &[]).len();
    assert_eq!(s.one::<String>(CATALOG), before);
    assert_eq!(s.rows("SELECT * FROM custody.protect('mine')", &[]).len(), dry);
    assert_eq!(s.rows("SELECT * FROM custody.protect('mine')", &[]).len(), 0, "nothing is left to do");
    assert_ne!(s.one::<String>(CATALOG), before);
    s.batch("SELECT custody.unprotect('mine')");
    assert_eq!(s.one::<String>(CATALOG), before);

    // Whoever does not own the table cannot, administrator or not.
    let admin = format!("{}_admin", db.name);
    s.batch(&format!("CREATE ROLE {admin} LOGIN IN ROLE custody_admin"));
    let mut admin = db.session(&admin);
    assert_eq!(admin.fails("SELECT custody.protect('mine')"), "UC020");
    assert_eq!(admin.fails("SELECT custody.audit('mine')"), "UC020");
    assert_eq!(admin.fails("SELECT custody.register_shared('mine', 'x')"), "UC020");
}

#[test]
fn an_administrator_protects_his_own_tables() {
    let db = Db::new();
    let admin = format!("{}_admin", db.name);
    db.superuser()
        .batch(&format!("CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE SCHEMA own AUTHORIZATION {admin}"));
    let mut s = db.session(&admin);
    s.batch(
        "CREATE TABLE own.t (tenant_id text, id int PRIMARY KEY, other int UNIQUE);
         SELECT custody.create_tenant('a', 'A'); SELECT custody.protect('own.t'); SELECT custody.audit('own.t'); SELECT custody.bind_role('custody_app', 'a')",
    );
    let reports = s.rows("SELECT sql FROM custody.protect('own.t') WHERE lock = 'report'", &[]);
    assert_eq!(reports.len(), 2, "two keys without the tenant column are reported, and stay");
    s.assert_valid();
    s.batch("SELECT custody.unaudit('own.t'); SELECT custody.unprotect('own.t')");
    assert_eq!(s.fails("SELECT custody.unaudit('own.t')"), "UC033");
    s.assert_valid();
}

#[test]
fn partitions_are_protected_now_and_later() {
    let db = Db::new();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE ROLE {app} LOGIN IN ROLE custody_app; SELECT custody.allow_assume('{app}', ARRAY['a', 'b']);
         CREATE TABLE m (tenant_id text, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE m_a PARTITION OF m FOR VALUES IN ('a'); SELECT custody.protect('m'); SELECT custody.audit('m');
         CREATE TABLE m_b PARTITION OF m FOR VALUES IN ('b');
         CREATE TABLE m_c (id int NOT NULL, tenant_id text NOT NULL); ALTER TABLE m ATTACH PARTITION m_c FOR VALUES IN ('c');
         GRANT ALL ON m, m_a, m_b, m_c TO {app}; REVOKE TRUNCATE, TRIGGER, REFERENCES ON m, m_a, m_b, m_c FROM {app};
         INSERT INTO m VALUES ('a', 1), ('b', 1), ('c', 1)"
    ));
    let mut app = db.app();
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    for (table, count) in [("m", 1), ("m_a", 1), ("m_b", 0), ("m_c", 0)] {
        assert_eq!(app.count(table), count, "{table}");
    }
    app.batch("COMMIT");
    for table in ["m", "m_a", "m_b", "m_c"] {
        assert_eq!(app.fails(&format!("DELETE FROM {table}")), "UC001", "{table}");
    }
    // Recorded under the table that was audited, whatever partition the row lay in, and TRUNCATE of a later one too.
    s.batch("TRUNCATE m_c");
    let rows = s.rows("SELECT op, tenant, table_name FROM custody.log WHERE table_name LIKE 'm%' AND op IN ('INSERT', 'TRUNCATE') AND tenant <> '' ORDER BY lsn, ordinal", &[]);
    let rows: Vec<_> = rows
        .iter()
        .map(|r| format!("{} {} {}", r.get::<_, &str>(0), r.get::<_, &str>(1), r.get::<_, &str>(2)))
        .collect();
    assert_eq!(rows, ["INSERT a m", "INSERT b m", "INSERT c m", "TRUNCATE c m"]);
    s.assert_valid();
}

#[test]
fn a_binding_that_changes_holds_for_open_sessions_from_their_next_transaction_on() {
    let db = Db::clinic();
    let mut admin = db.superuser();
    admin.batch("INSERT INTO clinic.patients (tenant_id, id) VALUES ('a', 1), ('b', 1), ('b', 2)");
    let app = db.app_name();
    admin.batch(&format!("SELECT custody.bind_role('{app}', 'a')"));
    let mut session = db.app();
    let mut sees = |expected: i64| assert_eq!(session.count("clinic.patients"), expected);
    sees(1);
    // By the function, and by the table itself: its capture trigger tells every session.
    admin.batch(&format!("SELECT custody.bind_role('{app}', 'b')"));
    sees(2);
    admin.batch("UPDATE custody.role_binding SET tenant = 'a'");
    sees(1);
    admin.batch("BEGIN; DELETE FROM custody.role_binding; ROLLBACK");
    sees(1);
    admin.batch("TRUNCATE custody.role_binding");
    sees(0);
    admin.batch(&format!("SELECT custody.bind_role('{app}', 'b')"));
    sees(2);
    admin.batch(&format!("SELECT custody.unbind_role('{app}')"));
    sees(0);
}

/// Parsed where pg_custody is not asked, such a MERGE would come upon rows that are hidden, and tell of them by its error.
#[test]
fn a_merge_parsed_elsewhere_tells_nothing() {
    let db = Db::clinic();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!("CREATE SCHEMA apps AUTHORIZATION {app}"));
    let mut app = db.app();
    // Before its session has used pg_custody.
    app.batch(
        "PREPARE early AS MERGE INTO clinic.patients USING (VALUES (1)) v (x) ON true WHEN MATCHED THEN UPDATE SET name = 'x'",
    );
    for (name, action) in [
        ("u", "WHEN MATCHED THEN UPDATE SET name = 'x'"),
        ("d", "WHEN MATCHED THEN DELETE"),
        ("i", "WHEN NOT MATCHED THEN INSERT (id, name) VALUES (7, 'x')"),
    ] {
        app.batch(&format!(
            "CREATE FUNCTION apps.{name}() RETURNS void BEGIN ATOMIC MERGE INTO clinic.patients USING (VALUES (1)) v (x) ON true {action}; END"
        ));
    }
    app.batch("CREATE FUNCTION apps.reads() RETURNS void BEGIN ATOMIC MERGE INTO clinic.patients p USING (VALUES (1)) v (x) ON p.id = v.x WHEN MATCHED THEN DELETE; END");
    let told = |app: &mut Session| -> Vec<String> {
        ["SELECT apps.u()", "SELECT apps.d()", "SELECT apps.i()", "EXECUTE early"]
            .map(|sql| {
                app.batch("BEGIN; SELECT custody.assume_tenant('a')");
                let said = app.0.simple_query(sql).map_or_else(|e| state(&e), |_| "done".into());
                app.batch("ROLLBACK");
                said
            })
            .into()
    };
    let without = told(&mut app);
    s.batch("INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('b', 1, 'Bo')");
    // The prepared one is done if it was parsed again meanwhile, now that pg_custody is asked; that tells nothing either.
    let with = told(&mut app);
    assert_eq!(with[..3], without[..3], "it tells that another tenant has a row");
    assert!(
        [&with[3], &without[3]].iter().all(|said| ["UC065", "done"].contains(&said.as_str())),
        "{with:?} {without:?}"
    );
    app.as_tenant("a", "SELECT apps.reads()");
}
