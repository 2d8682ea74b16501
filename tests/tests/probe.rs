//! custody.probe: what holds passes, each leak is named with its route, nothing is left behind, and what cannot be tried is
//! "undecided".

use custody_tests::{Db, Session};

/// One row of a probe.
#[derive(Debug, Clone)]
struct Finding {
    attempt: String,
    route: String,
    context: Option<String>,
    outcome: String,
    detail: String,
}

fn probe(session: &mut Session, arguments: &str) -> (Finding, Vec<Finding>) {
    let rows =
        session.rows(&format!("SELECT attempt, route, context, outcome, detail FROM custody.probe({arguments})"), &[]);
    let mut all: Vec<Finding> = rows
        .iter()
        .map(|r| Finding { attempt: r.get(0), route: r.get(1), context: r.get(2), outcome: r.get(3), detail: r.get(4) })
        .collect();
    let summary = all.remove(0);
    assert_eq!(summary.attempt, "summary");
    (summary, all)
}

fn of<'a>(all: &'a [Finding], outcome: &str) -> Vec<&'a Finding> {
    all.iter().filter(|f| f.outcome == outcome).collect()
}

/// Probes a table that must hold in every attempt.
fn assert_holds(session: &mut Session, arguments: &str) -> Vec<Finding> {
    let (summary, all) = probe(session, arguments);
    let bad: Vec<_> = all.iter().filter(|f| f.outcome != "passed").collect();
    assert!(bad.is_empty() && summary.outcome == "passed", "{summary:?} {bad:#?}");
    all
}

#[test]
fn a_protected_table_holds_in_every_attempt() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')");
    for table in ["clinic.patients", "clinic.visits"] {
        let all = assert_holds(&mut s, &format!("'{table}'"));
        if std::env::var_os("CUSTODY_SHOW").is_some() {
            for f in &all {
                println!("{:?} | {} | {} | {} | {}", f.context, f.route, f.attempt, f.outcome, f.detail);
            }
        }
        for wanted in [
            "SELECT others' rows",
            "SELECT own rows",
            "count",
            "SELECT FOR UPDATE",
            "COPY TO",
            "cursor",
            "INSERT own row",
            "INSERT for another tenant",
            "INSERT without a tenant",
            "UPDATE by another tenant's key",
            "UPDATE own row to another tenant",
            "DELETE by another tenant's key",
            "DELETE without WHERE",
            "MERGE, update",
            "MERGE, insert",
            "TRUNCATE",
        ] {
            assert!(all.iter().any(|f| f.attempt == wanted), "{table}: {wanted} was not attempted");
        }
        let contexts: std::collections::BTreeSet<_> = all.iter().filter_map(|f| f.context.as_deref()).collect();
        assert!(["A", "B", "none", "garbage"].iter().all(|c| contexts.contains(c)), "{contexts:?}");
    }
}

/// The leaks: a table with two tenants' rows, what opens it, and the route and an attempt that must say so.
#[test]
fn each_leak_is_named_with_its_route() {
    const CASES: &[(&str, &str, &str, &[&str])] = &[
        ("no row-level security", "ALTER TABLE t DISABLE ROW LEVEL SECURITY", "table public.t",
         &["SELECT others' rows", "count", "SELECT by another tenant's key", "UPDATE by another tenant's key", "DELETE by another tenant's key", "INSERT for another tenant",
           "UPDATE own row to another tenant", "upsert for another tenant (t_pkey)", "MERGE, update", "MERGE, delete", "MERGE, insert", "COPY TO", "cursor",
           "SELECT FOR UPDATE", "cursor opened before the context"]),
        ("fail-open coalesce", "DROP POLICY custody_floor ON t; DROP POLICY custody_tenant ON t;
          CREATE POLICY p ON t USING (tenant_id = coalesce(custody.tenant(), tenant_id))", "table public.t", &["SELECT", "count", "COPY TO"]),
        ("tautology", "DROP POLICY custody_floor ON t; DROP POLICY custody_tenant ON t; CREATE POLICY p ON t USING (tenant_id = tenant_id)", "table public.t",
         &["SELECT others' rows", "DELETE another tenant's rows", "INSERT for another tenant"]),
        ("a further permissive policy, no floor", "DROP POLICY custody_floor ON t; CREATE POLICY p ON t FOR SELECT USING (name <> '')", "table public.t", &["SELECT others' rows"]),
        ("a policy for DELETE alone is open", "DROP POLICY custody_floor ON t; CREATE POLICY p ON t FOR DELETE USING (true)", "table public.t", &["DELETE without WHERE"]),
        ("a policy for UPDATE alone is open", "DROP POLICY custody_floor ON t; CREATE POLICY p ON t FOR UPDATE USING (true)", "table public.t", &["UPDATE without WHERE"]),
        ("a policy for INSERT alone is open", "DROP POLICY custody_floor ON t; CREATE POLICY p ON t FOR INSERT WITH CHECK (true)", "table public.t", &["INSERT for another tenant", "MERGE, insert"]),
        ("the row may be given away", "DROP POLICY custody_floor ON t; DROP POLICY custody_tenant ON t; CREATE POLICY p ON t USING (tenant_id = custody.tenant()) WITH CHECK (true)",
         "table public.t", &["UPDATE own row to another tenant, without WHERE", "INSERT for another tenant"]),
        ("NULL is everybody's", "DROP POLICY custody_floor ON t; DROP POLICY custody_tenant ON t; ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD UNIQUE (tenant_id, id); ALTER TABLE t ALTER tenant_id DROP NOT NULL;
          CREATE POLICY p ON t USING (tenant_id = custody.tenant() OR tenant_id IS NULL)", "table public.t", &["INSERT with NULL as tenant"]),
        ("the default is another's", "DROP POLICY custody_floor ON t; ALTER TABLE t ALTER tenant_id SET DEFAULT 'b'; CREATE POLICY p ON t FOR INSERT WITH CHECK (true)", "table public.t", &["INSERT without a tenant"]),
        ("TRUNCATE", "GRANT TRUNCATE ON t TO {app}", "table public.t", &["TRUNCATE"]),
        ("a definer view", "CREATE VIEW v AS SELECT tenant_id, name FROM t; GRANT SELECT ON v TO {app}", "view public.v", &["SELECT others' rows", "depends on another tenant's row"]),
        ("a definer view that counts", "CREATE VIEW v AS SELECT count(*) FROM t; GRANT SELECT ON v TO {app}", "view public.v", &["depends on another tenant's row"]),
        ("a definer view under an invoker view", "CREATE SCHEMA hidden; CREATE VIEW hidden.v AS SELECT * FROM t; CREATE VIEW w WITH (security_invoker = on) AS SELECT name FROM hidden.v;
          GRANT SELECT ON hidden.v, w TO {app}", "view public.w", &["depends on another tenant's row"]),
        ("a definer view that is written through", "CREATE VIEW v AS SELECT * FROM t; GRANT SELECT, INSERT, UPDATE, DELETE ON v TO {app}", "view public.v", &["UPDATE", "DELETE", "INSERT for another tenant"]),
        ("a materialized view", "CREATE MATERIALIZED VIEW m AS SELECT tenant_id, name FROM t; GRANT SELECT ON m TO {app}", "materialized view public.m", &["SELECT", "SELECT others' rows"]),
        ("a definer function", "CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM public.t'", "function public.f", &["SELECT others' rows", "depends on another tenant's row"]),
        ("a definer function that counts", "CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (SELECT count(*) FROM public.t); END'", "function public.f", &["depends on another tenant's row"]),
        ("a definer function that deletes", "CREATE FUNCTION f() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM public.t'", "function public.f", &["depends on another tenant's row"]),
        ("a key without the tenant", "ALTER TABLE t ADD UNIQUE (name)", "table public.t", &["INSERT of a key that another tenant has (t_name_key)"]),
        ("a reference without the tenant", "ALTER TABLE parent ADD UNIQUE (id); ALTER TABLE t ADD parent int REFERENCES parent (id)", "table public.t", &["INSERT that refers to another tenant's row (t_parent_fkey)"]),
        ("the role has BYPASSRLS", "ALTER ROLE {app} BYPASSRLS", "table public.t", &["SELECT others' rows"]),
        ("the role owns the table, RLS not forced", "ALTER TABLE t OWNER TO {app}; ALTER TABLE t NO FORCE ROW LEVEL SECURITY", "table public.t", &["SELECT others' rows"]),
        ("only some columns are granted", "ALTER TABLE t DISABLE ROW LEVEL SECURITY; REVOKE ALL ON t FROM {app}; GRANT SELECT (name) ON t TO {app}", "table public.t", &["SELECT", "count", "COPY TO"]),
        ("a child with rows of its own", "SELECT custody.unaudit('t'); CREATE TABLE c () INHERITS (t); GRANT SELECT ON c TO {app}", "child public.c", &["SELECT others' rows"]),
    ];
    let mut missed = Vec::new();
    for (what, leak, route, attempts) in CASES {
        let db = Db::new();
        let app = db.app_name();
        let mut s = db.superuser();
        s.batch(&format!(
            "CREATE TABLE parent (tenant_id text, id int, PRIMARY KEY (tenant_id, id)); CREATE TABLE t (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id));
             SELECT custody.protect('parent'), custody.protect('t'); SELECT custody.audit('t');
             CREATE ROLE {app} LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA public TO {app};
             GRANT SELECT, INSERT, UPDATE, DELETE ON t, parent TO {app}; INSERT INTO t VALUES ('a', 1, 'x'), ('b', 1, 'y')"
        ));
        let whom = format!("'t', role => '{app}'");
        assert_holds(&mut s, &whom);
        s.batch(&leak.replace("{app}", &app));
        let before: String = s.one("SELECT string_agg(t::text, ',' ORDER BY t) FROM t");
        let (summary, all) = probe(&mut s, &whom);
        if summary.outcome != "leaked" {
            missed.push(format!("{what}: {summary:?}"));
        }
        let leaks = of(&all, "leaked");
        for attempt in *attempts {
            if !leaks.iter().any(|f| f.route == *route && f.attempt == *attempt) {
                let said: Vec<_> = all.iter().filter(|f| f.route == *route && f.outcome != "passed").collect();
                missed.push(format!("{what}: {attempt} by {route} is not said to leak: {said:#?}"));
            }
        }
        let elsewhere = leaks.iter().filter(|f| f.detail.is_empty() || f.route != *route);
        missed.extend(elsewhere.map(|f| format!("{what}: {f:?}")));
        let after: String = s.one("SELECT string_agg(t::text, ',' ORDER BY t) FROM t");
        assert_eq!(after, before, "{what}: nothing has changed");
        s.assert_valid();
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    println!("custody.probe: {} leaks named with their route, each table found sound before", CASES.len());
}

#[test]
fn partitions_and_children_are_routes_of_their_own() {
    let db = Db::new();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE TABLE m (tenant_id text, id int, at date, PRIMARY KEY (tenant_id, id, at)) PARTITION BY LIST (tenant_id);
         CREATE TABLE m_a PARTITION OF m FOR VALUES IN ('a') PARTITION BY RANGE (at);
         CREATE TABLE m_a_26 PARTITION OF m_a FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
         CREATE TABLE m_b PARTITION OF m FOR VALUES IN ('b');
         CREATE TABLE h (tenant_id text, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
         CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         SELECT custody.protect('m'), custody.protect('h'); SELECT custody.audit('m');
         CREATE ROLE {app} LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA public TO {app};
         GRANT SELECT, INSERT, UPDATE, DELETE ON m, m_a, m_a_26, m_b, h, h_0, h_1 TO {app}"
    ));
    for (table, partitions) in [("m", ["m_a", "m_a_26", "m_b"].as_slice()), ("h", &["h_0", "h_1"])] {
        let all = assert_holds(&mut s, &format!("'{table}'"));
        for partition in partitions {
            let route = format!("partition public.{partition}");
            assert!(
                all.iter().any(|f| f.route == route && f.attempt == "DELETE without WHERE"),
                "{partition}: {all:#?}"
            );
        }
    }
    s.batch("ALTER TABLE m_b DISABLE ROW LEVEL SECURITY; ALTER TABLE h_1 DISABLE ROW LEVEL SECURITY");
    for (table, route) in [("m", "partition public.m_b"), ("h", "partition public.h_1")] {
        let (_, all) = probe(&mut s, &format!("'{table}'"));
        let leaks = of(&all, "leaked");
        assert!(leaks.iter().any(|f| f.attempt == "SELECT"), "{all:#?}");
        assert!(leaks.iter().all(|f| f.route == route), "{leaks:#?}");
    }
    // From a partition, what is above it is a route as well.
    s.batch("ALTER TABLE m_b ENABLE ROW LEVEL SECURITY; ALTER TABLE m DISABLE ROW LEVEL SECURITY");
    let (_, all) = probe(&mut s, "'m_b'");
    assert!(of(&all, "leaked").iter().any(|f| f.route == "partition public.m"), "{all:#?}");
}

#[test]
fn nothing_is_left_behind_but_an_entry_that_says_so() {
    let db = Db::clinic();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(
        "INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo');
         CREATE TABLE clinic.told (what text); CREATE SEQUENCE clinic.numbers;
         CREATE FUNCTION clinic.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN INSERT INTO clinic.told VALUES (TG_OP); PERFORM pg_notify('told', TG_OP); RETURN NULL; END $$;
         CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.tell();
         ALTER TABLE clinic.patients ADD number int DEFAULT nextval('clinic.numbers')",
    );
    const STATE: &str = "SELECT jsonb_build_object('patients', (SELECT jsonb_agg(p ORDER BY tenant_id, id) FROM clinic.patients p), 'visits', (SELECT count(*) FROM clinic.visits),
        'told', (SELECT count(*) FROM clinic.told), 'number', (SELECT last_value FROM clinic.numbers), 'tables', (SELECT count(*) FROM pg_class),
        'entries', (SELECT count(*) FROM custody.entry WHERE op <> 'PROBE'), 'settings', (SELECT jsonb_agg(setting ORDER BY name) FROM pg_settings WHERE name NOT LIKE 'transaction%'),
        'cursors', (SELECT count(*) FROM pg_cursors WHERE name LIKE 'custody%'), 'prepared', (SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'custody%'))::text";
    let before: String = s.one(STATE);
    s.batch("LISTEN told");
    let all = assert_holds(&mut s, "'clinic.patients'");
    assert!(all.len() > 40);
    assert_eq!(s.one::<String>(STATE), before);
    assert!(s.0.notifications().is_empty(), "what a trigger notifies of goes with the rest");
    s.assert_valid();
    let entry = s.rows("SELECT new, table_name, tenant FROM custody.log WHERE op = 'PROBE'", &[]);
    assert_eq!(entry.len(), 1);
    let new: serde_json::Value = entry[0].get(0);
    assert_eq!((new["attempts"].as_u64(), new["leaked"].as_u64()), (Some(all.len() as u64), Some(0)), "{new}");
    assert_eq!(new["role"], app.as_str());
    assert_eq!((entry[0].get::<_, &str>(1), entry[0].get::<_, &str>(2)), ("patients", ""));

    // Around it, the transaction's own work stands, in the log too; and a probe that is rolled back has not run.
    s.batch("BEGIN; INSERT INTO clinic.patients (tenant_id, id) VALUES ('a', 50)");
    assert_holds(&mut s, "'clinic.patients'");
    s.batch("INSERT INTO clinic.patients (tenant_id, id) VALUES ('a', 51); COMMIT; BEGIN");
    assert_holds(&mut s, "'clinic.visits'");
    s.batch("ROLLBACK");
    assert_eq!(s.count("custody.log WHERE op = 'PROBE'"), 2);
    assert_eq!(s.count("custody.log WHERE op = 'INSERT' AND new ->> 'id' IN ('50', '51')"), 2);
    assert_eq!(s.count("clinic.patients"), 4);
    s.assert_valid();

    // No lock on the table is left, and none that a writer waits for is taken.
    s.batch("BEGIN");
    assert_holds(&mut s, "'clinic.patients'");
    assert_eq!(s.count("pg_locks WHERE pid = pg_backend_pid() AND relation = 'clinic.patients'::regclass AND mode NOT IN ('AccessShareLock')"), 0);
    let mut writer = db.app();
    writer.batch("SET lock_timeout = '1s'");
    writer.as_tenant("a", "UPDATE clinic.patients SET name = 'still writing'");
    s.batch("COMMIT");
}

#[test]
fn it_waits_for_nobody_for_long() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')");
    let mut other = db.superuser();
    other.batch("BEGIN; LOCK TABLE clinic.patients IN SHARE MODE");
    let begun = std::time::Instant::now();
    let (summary, all) = probe(&mut s, "'clinic.patients'");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(summary.outcome, "undecided", "{summary:?}");
    assert!(of(&all, "undecided").iter().any(|f| f.detail.contains("55P03")), "{all:#?}");
    other.batch("ROLLBACK");
    assert_holds(&mut s, "'clinic.patients'");
}

#[test]
fn the_context_in_force_before_is_in_force_after() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo'); SELECT custody.allow_assume('postgres', ARRAY['a', 'b'])");
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        s.batch(&format!("BEGIN ISOLATION LEVEL {level}; SELECT custody.assume_tenant('a')"));
        assert_holds(&mut s, "'clinic.patients'");
        assert_eq!(s.one::<String>("SELECT custody.tenant()"), "a");
        s.batch("SAVEPOINT p; SELECT count(*) FROM custody.probe('clinic.patients')");
        assert_eq!(
            s.fails("SELECT custody.probe('clinic.codes', tenant_column => 'nothing', role => 'pg_monitor'), 1/0"),
            "22012"
        );
        s.batch("ROLLBACK TO p");
        assert_eq!(s.one::<String>("SELECT custody.tenant()"), "a");
        assert_eq!(s.fails("SELECT custody.assume_tenant('b')"), "UC003", "set once is set once");
        s.batch("ROLLBACK");
    }
    // After one without a context, a context can be set, and the role is the caller's again.
    s.batch("BEGIN");
    assert_holds(&mut s, "'clinic.patients'");
    assert_eq!(s.one::<Option<String>>("SELECT custody.tenant()"), None);
    assert_eq!(
        s.one::<String>("SELECT current_user || session_user || current_setting('role')"),
        "postgrespostgresnone"
    );
    s.batch("SELECT custody.assume_tenant('b'); COMMIT");
    // What runs on the way cannot get at the caller's powers, nor set a context.
    s.batch(&format!(
        "CREATE FUNCTION clinic.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {{}}; RETURN NEW; END $$;
         CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.trap(); CREATE TABLE clinic.loot (who text); GRANT ALL ON clinic.loot TO {}",
        db.app_name()
    ).replace("{}", "INSERT INTO clinic.loot VALUES (current_user)"));
    assert_holds(&mut s, "'clinic.patients'");
    for grab in [
        "RESET ROLE",
        "SET SESSION AUTHORIZATION postgres",
        "PERFORM set_config('role', 'postgres', false)",
        "PERFORM custody.assume_tenant('b')",
        "PERFORM set_config('custody.context', '{}', true)",
        "CREATE TEMP TABLE x ()",
        "EXECUTE 'PREPARE loot AS SELECT 1'",
    ] {
        s.batch(&format!("CREATE OR REPLACE FUNCTION clinic.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {grab}; RETURN NEW; END $$"));
        let (_, all) = probe(&mut s, "'clinic.patients'");
        let insert = all.iter().find(|f| f.attempt == "INSERT own row").unwrap_or(&all[0]);
        assert_ne!(insert.detail, "its own", "{grab}: {insert:?}");
        assert!(of(&all, "leaked").is_empty(), "{grab}");
        assert_eq!(s.count("clinic.loot"), 0);
        assert_eq!(s.count("pg_prepared_statements WHERE name = 'loot'"), 0);
    }
}

#[test]
fn who_may_probe_and_when() {
    let db = Db::clinic();
    let app = db.app_name();
    let (admin, auditor) = (format!("{}_admin", db.name), format!("{}_auditor", db.name));
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"
    ));
    assert_eq!(db.app().fails("SELECT custody.probe('clinic.patients')"), "42501");
    assert_eq!(db.session(&auditor).fails("SELECT custody.probe('clinic.patients')"), "42501");
    let mut admin_session = db.session(&admin);
    assert_eq!(admin_session.fails("SELECT custody.probe('clinic.patients')"), "42501", "no USAGE on the schema");
    s.batch(&format!("GRANT USAGE, CREATE ON SCHEMA clinic TO {admin}"));
    assert_eq!(admin_session.fails("SELECT custody.probe('clinic.patients')"), "UC046", "not his table");
    s.batch(&format!("ALTER TABLE clinic.patients OWNER TO {admin}"));
    assert_eq!(
        admin_session.fails(&format!("SELECT custody.probe('clinic.patients', role => '{app}')")),
        "UC046",
        "not his role"
    );
    assert_eq!(admin_session.fails("SELECT custody.probe('clinic.patients', role => 'postgres')"), "UC046");
    s.batch(&format!("GRANT {app} TO {admin}"));
    // The owner is under row-level security himself, as it is forced: his rows are built in their tenant's context.
    assert_holds(&mut admin_session, &format!("'clinic.patients', role => '{app}'"));
    assert_holds(&mut admin_session, "'clinic.patients'");

    s.batch("BEGIN READ ONLY");
    assert_eq!(s.fails("SELECT custody.probe('clinic.patients')"), "UC045");
    s.batch("ROLLBACK; CREATE VIEW clinic.v AS SELECT 1 AS tenant_id; CREATE TABLE clinic.plain (id int)");
    for (what, state) in [
        ("'clinic.v'", "UC045"),
        ("'clinic.plain'", "UC045"),
        ("'clinic.patients', tenant_column => 'nothing'", "UC013"),
        ("'clinic.patients', tenant_setting => 'custody.context'", "UC013"),
        ("'clinic.patients', tenant_setting => 'work_mem'", "UC013"),
        ("NULL", "UC013"),
    ] {
        assert_eq!(s.fails(&format!("SELECT custody.probe({what})")), state, "{what}");
    }
    s.batch(&format!("SELECT custody.bind_role('{admin}', 'a')"));
    assert_eq!(db.session(&admin).fails("SELECT custody.probe('clinic.patients')"), "UC045", "never without a context");
}

#[test]
fn shared_tables_and_policies_of_ones_own() {
    let db = Db::clinic();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.codes VALUES ('c', 'a code')");
    assert_holds(&mut s, "'clinic.codes'");
    s.batch(&format!("GRANT UPDATE ON clinic.codes TO {app}"));
    let (_, all) = probe(&mut s, "'clinic.codes'");
    assert!(of(&all, "leaked").iter().all(|f| f.attempt == "UPDATE") && !of(&all, "leaked").is_empty(), "{all:#?}");

    s.batch(&format!(
        "CREATE TABLE own (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id)); ALTER TABLE own ENABLE ROW LEVEL SECURITY; ALTER TABLE own FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON own USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid); GRANT SELECT, INSERT, UPDATE, DELETE ON own TO {app}"
    ));
    let (summary, all) = probe(&mut s, &format!("'own', role => '{app}'"));
    assert_eq!(summary.outcome, "undecided", "a policy that reads another setting hides everything: {summary:?}");
    assert!(of(&all, "undecided").iter().any(|f| f.attempt == "SELECT own rows"), "{all:#?}");
    let (summary, all) = probe(&mut s, &format!("'own', role => '{app}', tenant_setting => 'app.tenant'"));
    let bad: Vec<_> = all.iter().filter(|f| f.outcome != "passed" && f.context.as_deref() != Some("garbage")).collect();
    assert!(bad.is_empty(), "{summary:?} {bad:#?}");
    s.batch("DROP POLICY p ON own; CREATE POLICY p ON own USING (tenant_id = coalesce(nullif(current_setting('app.tenant', true), ''), tenant_id::text)::uuid)");
    let (summary, _) = probe(&mut s, &format!("'own', role => '{app}', tenant_setting => 'app.tenant'"));
    assert_eq!(summary.outcome, "leaked");
}

#[test]
fn rows_are_built_past_every_constraint() {
    let db = Db::new();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE EXTENSION btree_gist; CREATE EXTENSION citext; CREATE ROLE {app} LOGIN IN ROLE custody_app;
         CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN plate AS text CHECK (VALUE ~ '^[A-Z]{{2}}-[0-9]{{3,4}}$'); CREATE DOMAIN percent AS numeric(5, 2) NOT NULL CHECK (VALUE BETWEEN 0 AND 100);
         CREATE TYPE pair AS (x int, y text);
         CREATE TABLE orgs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL UNIQUE);
         CREATE TABLE people (tenant_id uuid REFERENCES orgs, id bigint GENERATED ALWAYS AS IDENTITY, email citext NOT NULL CHECK (email LIKE '%@%'), boss bigint,
           born date NOT NULL CHECK (born > '1900-01-01' AND born < '2100-01-01'), PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, email),
           FOREIGN KEY (tenant_id, boss) REFERENCES people DEFERRABLE INITIALLY DEFERRED);
         CREATE UNIQUE INDEX ON people (tenant_id, lower(email::text));
         CREATE TABLE badges (tenant_id uuid, person bigint NOT NULL, code char(6) NOT NULL CHECK (length(code) = 6), PRIMARY KEY (tenant_id, person),
           FOREIGN KEY (tenant_id, person) REFERENCES people DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE stays (tenant_id uuid, id int, room int NOT NULL, during tstzrange NOT NULL, mood mood NOT NULL, plate plate NOT NULL, share percent, home pair NOT NULL,
           tags text[] NOT NULL, low int NOT NULL, high int NOT NULL, kind text NOT NULL CHECK (kind IN ('day', 'night')), nights int NOT NULL, data jsonb NOT NULL CHECK (jsonb_typeof(data) = 'object'),
           total int GENERATED ALWAYS AS (high - low) STORED, guest bigint NOT NULL, flags bit(3) NOT NULL, ip inet NOT NULL, at time NOT NULL, spent interval NOT NULL,
           CHECK (low < high AND high - low < 50), CHECK ((kind = 'night') = (nights > 0)), CHECK (num_nonnulls(low, high) = 2),
           EXCLUDE USING gist (tenant_id WITH =, room WITH =, during WITH &&), PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, guest) REFERENCES people);
         CREATE TABLE rings (tenant_id uuid, id int, next int NOT NULL, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, next) REFERENCES rings);
         CREATE TABLE logs (tenant_id uuid NOT NULL, line text);
         CREATE TABLE months (tenant_id uuid, at timestamptz NOT NULL, n smallint NOT NULL, UNIQUE (tenant_id, at)) PARTITION BY RANGE (at);
         CREATE TABLE months_1 PARTITION OF months FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         GRANT USAGE ON SCHEMA public TO {app}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app};
         REVOKE INSERT, UPDATE, DELETE ON orgs FROM {app}"
    ));
    let tables = ["people", "badges", "stays", "rings", "logs", "months"];
    for table in tables {
        s.batch(&format!("SELECT custody.protect('{table}'), custody.audit('{table}')"));
        assert_holds(&mut s, &format!("'{table}'"));
    }
    for table in tables.iter().chain(&["orgs"]) {
        assert_eq!(s.count(table), 0, "{table}");
    }
    s.assert_valid();

    // What nobody can build is undecided, never passed; with rows that are there it can be probed.
    s.batch(&format!(
        "CREATE TABLE odd (tenant_id text, id int, riddle text NOT NULL CHECK (md5(riddle) = '5f4dcc3b5aa765d61d8327deb882cf99'), PRIMARY KEY (tenant_id, id));
         SELECT custody.protect('odd'); GRANT SELECT, INSERT, UPDATE, DELETE ON odd TO {app}"
    ));
    let (summary, all) = probe(&mut s, "'odd'");
    assert_eq!(summary.outcome, "undecided", "{summary:?}");
    assert!(all.iter().all(|f| f.outcome == "undecided" || f.attempt == "TRUNCATE"), "{all:#?}");
    assert!(all.iter().any(|f| f.detail.contains("no row of public.odd could be built")), "{all:#?}");
    s.batch("INSERT INTO odd VALUES ('a', 1, 'password'), ('b', 1, 'password')");
    assert_holds(&mut s, "'odd'");
    // A trigger that keeps every row out.
    s.batch(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''closed''; END'; CREATE TRIGGER no BEFORE INSERT ON odd FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let (summary, all) = probe(&mut s, "'odd'");
    assert_eq!(summary.outcome, "undecided", "{summary:?}");
    assert!(of(&all, "undecided").iter().any(|f| f.attempt == "INSERT for another tenant"), "{all:#?}");
    assert!(
        of(&all, "passed").iter().any(|f| f.attempt == "DELETE another tenant's rows"),
        "rows that are there will do"
    );
    assert!(of(&all, "leaked").is_empty());
}

#[test]
fn what_cannot_be_called_is_undecided_and_a_merge_tells_nothing() {
    let db = Db::clinic();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE FUNCTION clinic.of(who text) RETURNS SETOF clinic.patients LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM clinic.patients WHERE tenant_id = who';
         CREATE FUNCTION clinic.mine() RETURNS SETOF clinic.patients LANGUAGE sql AS 'SELECT * FROM clinic.patients';
         CREATE PROCEDURE clinic.tidy() LANGUAGE sql AS 'DELETE FROM clinic.patients';
         CREATE FUNCTION clinic.hidden() RETURNS SETOF clinic.patients LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM clinic.patients';
         REVOKE EXECUTE ON FUNCTION clinic.hidden() FROM PUBLIC;
         CREATE VIEW clinic.names WITH (security_invoker = on) AS SELECT tenant_id, name, random() AS r FROM clinic.patients; GRANT SELECT ON clinic.names TO {app};
         INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')"
    ));
    let (summary, all) = probe(&mut s, "'clinic.patients'");
    assert_eq!(summary.outcome, "undecided");
    let outcome = |route: &str, attempt: &str| -> Vec<(&str, &str)> {
        let found = all.iter().filter(|f| f.route == route && f.attempt == attempt);
        found.map(|f| (f.outcome.as_str(), f.detail.as_str())).collect()
    };
    assert_eq!(outcome("function clinic.of", "call"), [("undecided", "needs arguments")]);
    assert_eq!(outcome("function clinic.tidy", "call"), [("undecided", "a procedure: it may end the transaction")]);
    assert!(outcome("function clinic.mine", "depends on another tenant's row").iter().all(|o| o.0 == "passed"));
    assert!(!outcome("function clinic.mine", "SELECT others' rows").is_empty());
    assert!(!all.iter().any(|f| f.route.contains("hidden")), "out of the role's reach");
    let volatile = outcome("view clinic.names", "depends on another tenant's row");
    assert!(volatile.iter().any(|o| o.0 == "undecided"), "it gives something else each time: {volatile:?}");
    assert!(of(&all, "leaked").is_empty(), "{:#?}", of(&all, "leaked"));

    // What the probe found in PostgreSQL's own MERGE: it failed on the first hidden row.
    let mut app = db.app();
    s.batch(&format!("SELECT custody.allow_assume('{app}', ARRAY['a', 'b', 'c'])", app = db.app_name()));
    for then in ["DELETE", "UPDATE SET name = 'x'"] {
        app.as_tenant(
            "c",
            &format!("MERGE INTO clinic.patients USING (SELECT 1) s (x) ON true WHEN MATCHED THEN {then}"),
        );
    }
    app.as_tenant("a", "MERGE INTO clinic.patients USING (SELECT 1) s (x) ON true WHEN MATCHED THEN DELETE");
    assert_eq!(s.one::<String>("SELECT string_agg(tenant_id || name, ' ') FROM clinic.patients"), "bBo");
}

/// How many attempts there were, and how many of them were undecided, and why.
#[derive(Default)]
struct Measured {
    tables: usize,
    attempts: usize,
    leaked: usize,
    undecided: usize,
    why: std::collections::BTreeMap<String, usize>,
}

impl Measured {
    fn take(&mut self, all: &[Finding]) {
        self.tables += 1;
        self.attempts += all.len();
        self.leaked += of(all, "leaked").len();
        for f in of(all, "undecided") {
            self.undecided += 1;
            *self.why.entry(format!("{}: {}: {}", f.route, f.attempt, f.detail)).or_default() += 1;
        }
    }

    fn print(&self, what: &str) {
        let percent = 100.0 * self.undecided as f64 / self.attempts as f64;
        println!(
            "custody.probe on {what}: {} tables, {} attempts, {} leaked, {} undecided ({percent:.2} %)",
            self.tables, self.attempts, self.leaked, self.undecided
        );
        for (why, times) in &self.why {
            println!("  {times} x {why}");
        }
        assert!(percent <= 5.0, "{percent} % undecided");
    }
}

#[test]
fn few_attempts_are_undecided_on_the_demos_schema() {
    let db = Db::new();
    let app = db.app_name();
    let mut s = db.superuser();
    let source = include_str!("../../demo/src/clinic.rs");
    let schema = source.split_once("pub const SCHEMA: &str = \"").unwrap().1.split_once("\";").unwrap().0;
    s.batch(schema);
    s.batch(&format!(
        "CREATE SCHEMA billing; CREATE TABLE billing.invoices (organization_id uuid, id uuid, patient_id uuid, amount numeric(12, 2), PRIMARY KEY (organization_id, id));
         CREATE TABLE billing.tariffs (code text PRIMARY KEY, amount numeric(12, 2)); CREATE ROLE {app} LOGIN IN ROLE custody_app;
         CREATE VIEW billing.debtors WITH (security_invoker = on) AS SELECT organization_id, id, first_name, last_name FROM clinic.patients;
         GRANT USAGE ON SCHEMA clinic, billing TO {app}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA clinic, billing TO {app};
         SELECT custody.register_shared('clinic.codes', 'codes'), custody.register_shared('billing.tariffs', 'prices')"
    ));
    let tables = [
        "clinic.patients",
        "clinic.encounters",
        "clinic.conditions",
        "clinic.medications",
        "clinic.observations",
        "billing.invoices",
    ];
    for table in tables {
        s.batch(&format!("SELECT custody.protect('{table}', 'organization_id'), custody.audit('{table}')"));
    }
    // Once with nothing in it, and once with rows of two organisations.
    let mut empty = Measured::default();
    for table in tables.iter().chain(&["clinic.codes", "billing.tariffs"]) {
        empty.take(&assert_holds(&mut s, &format!("'{table}'")));
    }
    empty.print("the demo's schema, empty");
    s.batch(
        "INSERT INTO clinic.codes VALUES ('1', 's', 'd');
         INSERT INTO clinic.patients (organization_id, last_name, birth_date) SELECT o, 'n' || i, '2000-01-01' FROM generate_series(1, 50) i,
           unnest(ARRAY['7e5c1684-e7b5-48ff-8b71-710a1b18827a', '00000000-0000-4000-8000-000000000001']::uuid[]) o;
         INSERT INTO clinic.encounters (organization_id, patient_id, code, started_at) SELECT organization_id, id, '1', now() FROM clinic.patients;
         INSERT INTO clinic.conditions (organization_id, encounter_id, code, onset) SELECT organization_id, id, '1', '2020-01-01' FROM clinic.encounters",
    );
    let mut filled = Measured::default();
    for table in tables.iter().chain(&["clinic.codes", "billing.tariffs"]) {
        filled.take(&assert_holds(&mut s, &format!("'{table}'")));
    }
    filled.print("the demo's schema, with rows");
    assert_eq!(s.count("clinic.patients"), 100);
    s.assert_valid();
}

/// `make probe-django`: django-oscar's migrations take a while.
#[test]
fn few_attempts_are_undecided_on_a_django_applications_schema() {
    let Some(django) = std::env::var_os("CUSTODY_DJANGO") else {
        println!("skipped: make probe-django runs it");
        return;
    };
    let db = Db::new();
    let app = db.app_name();
    let migrated = std::process::Command::new(django)
        .args(["migrate", "--skip-checks", "--verbosity", "0"])
        .env("PGHOST", db.cluster.socket())
        .env("PGPORT", "5432")
        .env("PGUSER", "postgres")
        .env("PGDATABASE", &db.name)
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let mut s = db.superuser();
    s.batch(&format!("CREATE ROLE {app} LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA public TO {app}"));
    let tables: Vec<String> = s
        .rows("SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert!(tables.len() >= 30, "{tables:?}");
    // What the migrations themselves wrote belongs to the first tenant.
    for table in &tables {
        s.batch(&format!(
            "ALTER TABLE {table} ADD tenant_id text NOT NULL DEFAULT 'north'; ALTER TABLE {table} ALTER tenant_id DROP DEFAULT;
             SELECT custody.protect('{table}'); SELECT custody.audit('{table}'); GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {app}"
        ));
    }
    s.batch("SELECT custody.create_tenant('north', 'North'), custody.create_tenant('south', 'South')");
    let begun = std::time::Instant::now();
    let mut measured = Measured::default();
    for table in &tables {
        let (_, all) = probe(&mut s, &format!("'{table}'"));
        // Its keys and references know no tenants, and that is told; nothing else may leak.
        for f in of(&all, "leaked") {
            assert!(f.attempt.starts_with("INSERT of a key") || f.attempt.starts_with("INSERT that refers"), "{f:?}");
        }
        measured.take(&all);
    }
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    measured.print("django-oscar's schema");
    assert_eq!(s.count("custody.log WHERE op = 'PROBE'"), tables.len() as i64);
    s.assert_valid();
}

/// Rows are built as their table's owner. What the role that is probed, or the one that asks, would find names by must not decide what
/// those owners call.
#[test]
fn nobody_else_chooses_what_an_owner_calls() {
    let db = Db::clinic();
    let (app, admin) = (db.app_name(), format!("{}_admin", db.name));
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE SCHEMA evil AUTHORIZATION {admin}; GRANT USAGE ON SCHEMA evil TO PUBLIC;
         GRANT USAGE ON SCHEMA clinic TO {admin}; GRANT REFERENCES ON clinic.patients TO {admin};
         GRANT USAGE ON SCHEMA custody TO {admin}; GRANT CREATE ON SCHEMA public TO {admin};
         INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'only Ada''s own')"
    ));
    let mut evil = db.session(&admin);
    // A sequence's value stays, whatever is rolled back.
    evil.batch(
        "CREATE SEQUENCE evil.called; GRANT USAGE ON evil.called TO PUBLIC;
         CREATE FUNCTION evil.is_called(v pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
           BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN PERFORM nextval('evil.called'); END IF; RETURN true; END $$;
         CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.is_called(VALUE))",
    );
    // The role that is probed.
    s.batch(&format!("ALTER ROLE {app} SET search_path = evil, pg_catalog"));
    let (summary, all) = probe(&mut s, &format!("'clinic.patients', '{app}'"));
    assert!(!s.one::<bool>("SELECT is_called FROM evil.called"), "called for the table's owner: {summary:?} {all:#?}");
    s.batch(&format!("ALTER ROLE {app} RESET search_path"));
    // The one who asks, about his own table, which refers to another's.
    s.batch(&format!("ALTER ROLE {admin} SET search_path = evil, pg_catalog"));
    let mut asks = db.session(&admin);
    asks.batch(
        "CREATE TABLE public.mine (tenant_id pg_catalog.text NOT NULL, id int PRIMARY KEY, patient int NOT NULL,
           FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients)",
    );
    let (summary, all) = probe(&mut asks, &format!("'public.mine', '{admin}', 'tenant_id'"));
    assert!(!s.one::<bool>("SELECT is_called FROM evil.called"), "called for the parent's owner: {summary:?} {all:#?}");
    assert!(all.iter().any(|f| f.detail.contains("belongs to a role that you are not a member of")), "{all:#?}");
}
