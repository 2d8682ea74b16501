//! From every released version to this one, with data, chains and policies in place: what comes out is what a fresh
//! installation makes, and the log verifies.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use custody_tests::{Db, Session};

/// The versions whose scripts are under `sql/released`.
fn released() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/released");
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<_> =
        names.filter_map(|n| Some(n.strip_prefix("pg_custody--")?.strip_suffix(".sql")?.to_owned())).collect();
    versions.sort();
    versions
}

/// Everything that the extension has in the catalogs: each object with its owner, privileges, comment and definition.
fn catalog(session: &mut Session) -> BTreeSet<String> {
    const OBJECTS: &str = "
      WITH member AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_custody'),
      relation AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid)
      SELECT format('%s | %s | %s', pg_describe_object(m.classid, m.objid, 0), obj_description(m.objid, c.relname),
        (SELECT string_agg(x.privtype::text || coalesce(x.initprivs::text, ''), ',') FROM pg_init_privs x WHERE x.objoid = m.objid AND x.objsubid = 0))
      FROM member m JOIN pg_class c ON c.oid = m.classid
      UNION ALL
      SELECT format('%s | %s | %s | %s', p.oid::regprocedure, p.proowner::regrole,
        (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(p.proacl) a), pg_get_functiondef(p.oid))
      FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
      UNION ALL
      SELECT format('%s | %s | %s | %s | %s | %s %s %s', r.oid::regclass, r.relkind, r.relowner::regrole,
        (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(r.relacl) a), r.reloptions,
        r.relrowsecurity, r.relforcerowsecurity, CASE WHEN r.relkind IN ('v', 'm') THEN pg_get_viewdef(r.oid) END)
      FROM relation r
      UNION ALL
      -- Columns by name: one that was added later stands last, and nothing may depend on where.
      SELECT format('%s.%s | %s | %s | %s | %s | %s | %s | %s', r.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attcollation::regcollation, a.attstorage, pg_get_expr(d.adbin, d.adrelid), a.attacl, col_description(r.oid, a.attnum))
      FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
      UNION ALL
      SELECT format('%s | %s | %s | %s', r.oid::regclass, c.conname, pg_get_constraintdef(c.oid), c.convalidated)
      FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
      UNION ALL
      SELECT pg_get_indexdef(i.indexrelid) FROM relation r JOIN pg_index i ON i.indrelid = r.oid
      UNION ALL
      SELECT format('%s | %s', pg_get_triggerdef(t.oid), t.tgenabled::text) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
      UNION ALL
      SELECT format('%s | %s | %s', r.oid::regclass, p.polname, pg_get_expr(p.polqual, p.polrelid)) FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
      UNION ALL
      SELECT format('%s | %s | %s | %s | %s', t.evtname, t.evtevent, t.evtfoid::regproc, t.evtenabled, t.evttags) FROM pg_event_trigger t
      UNION ALL
      SELECT format('%s | %s | %s', n.nspname, n.nspowner::regrole, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(n.nspacl) a))
      FROM pg_namespace n WHERE n.nspname = 'custody'
      UNION ALL
      SELECT format('dumped | %s | %s', c.relation::regclass, c.condition)
      FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS c (relation, condition) WHERE e.extname = 'pg_custody'";
    session.batch("SET search_path = pg_catalog, pg_temp");
    session.rows(OBJECTS, &[]).iter().map(|r| r.get(0)).collect()
}

#[test]
fn an_upgrade_leaves_what_a_fresh_installation_makes() {
    let fresh = catalog(&mut Db::new().superuser());
    for version in released() {
        let db = Db::bare();
        let mut session = db.superuser();
        session.batch(&format!("CREATE EXTENSION pg_custody VERSION '{version}'"));
        session.batch("ALTER EXTENSION pg_custody UPDATE");
        let upgraded = catalog(&mut session);
        let missing: Vec<_> = fresh.difference(&upgraded).collect();
        let surplus: Vec<_> = upgraded.difference(&fresh).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "from {version}: missing {missing:#?}\nsurplus {surplus:#?}");
    }
}

#[test]
fn data_chains_and_policies_survive_an_upgrade() {
    for version in released() {
        let db = Db::bare();
        let app = db.app_name();
        let mut session = db.superuser();
        session.batch(&format!(
            "CREATE EXTENSION pg_custody VERSION '{version}';
             REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC;
             CREATE TABLE notes (tenant_id text, id int, body text, PRIMARY KEY (tenant_id, id));
             SELECT custody.create_tenant('a', 'A'), custody.create_tenant('b', 'B');
             SELECT custody.protect('notes'), custody.audit('notes');
             CREATE ROLE {app} LOGIN IN ROLE custody_app;
             GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {app};
             SELECT custody.allow_assume('{app}', ARRAY['a', 'b'])",
            db.name
        ));
        let mut before = db.app();
        before.as_tenant("a", "INSERT INTO notes (id, body) SELECT i, 'old' FROM generate_series(1, 50) i");
        before.as_tenant("b", "INSERT INTO notes (id, body) VALUES (1, 'b''s')");
        let heads: serde_json::Value = session.one("SELECT jsonb_agg(h) FROM custody.heads() h");
        session.batch("ALTER EXTENSION pg_custody UPDATE");
        // An upgrade is not someone who lifted the log's guard, and must not be told as that.
        assert_eq!(session.count("custody.log WHERE op IN ('GUARD_OFF', 'GUARD_ON', 'CAPTURE_OFF')"), 0, "{version}");

        // The session of before goes on, and so does its chain.
        for app in [&mut before, &mut db.app()] {
            app.as_tenant("a", "UPDATE notes SET body = 'new' WHERE id = 1");
            app.batch("BEGIN; SELECT custody.assume_tenant('a')");
            assert_eq!(app.count("notes"), 50, "a's own rows");
            app.batch("COMMIT");
            assert_eq!(app.count("notes"), 0, "no context, no rows");
            assert_eq!(app.fails("DELETE FROM notes"), "UC001");
        }
        let (verdict, findings) = session.verify(&format!("heads => '{heads}'"));
        assert_eq!((verdict.as_str(), findings), ("valid", vec![]), "from {version}");
        assert_eq!(session.count("custody.history('notes', '{\"tenant_id\": \"a\", \"id\": 1}')"), 3);
        assert_eq!(session.count("custody.coverage() WHERE object = 'public.notes'"), 0);
        session.batch("SELECT custody.unprotect('notes'), custody.unaudit('notes')");
    }
}
