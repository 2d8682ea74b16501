-- What the guard judges by, and what calls it. Last, because it is made of findings and of the log's own views.

-- Looked at after every DDL command while the guard is on, so it is cheap: registered tables only, by what their registration says.
CREATE VIEW custody.guard_breach AS
WITH t AS MATERIALIZED (
  SELECT r.target::oid AS relid, r.tenant_column, pg_catalog.format('%I.%I', n.nspname, c.relname) AS object,
         c.relrowsecurity AS rls, c.relforcerowsecurity AS forced, a.attnum, a.attnotnull
  FROM custody.registered_table r
  JOIN pg_catalog.pg_class c ON c.oid = r.target
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = r.target AND a.attname = r.tenant_column AND a.attnum > 0 AND NOT a.attisdropped
  WHERE r.kind = 'protected'
), policy AS MATERIALIZED (
  SELECT p.polrelid AS relid, p.polname AS name
  FROM t
  JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid
  CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS qual, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS chk) e
  -- Tables that 0.1.0 protected let everybody at custody_tenant.
  WHERE (p.polname = 'custody_floor' AND NOT p.polpermissive AND p.polroles = '{0}'
         OR p.polname = 'custody_tenant' AND p.polpermissive AND p.polroles IN ('{0}', ARRAY(SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'custody_app')))
    AND p.polcmd = '*' AND coalesce(e.chk, e.qual) = e.qual
    AND e.qual IN (SELECT pg_catalog.format(s.shape, t.tenant_column, f.name)
                   FROM (VALUES ('(%I = custody.%s())'), ('((%I)::text = custody.%s())'), ('((%I)::uuid = custody.%s())'), ('((%I)::integer = custody.%s())'),
                                ('((%I)::bigint = custody.%s())')) AS s (shape)
                   CROSS JOIN (VALUES ('tenant'), ('tenant_uuid'), ('tenant_int'), ('tenant_bigint')) AS f (name))
)
SELECT w.id, 'critical' AS severity, t.relid, t.object, w.problem, 'The table is registered as protected, and that must hold after every command, not only when the transaction commits.' AS consequence,
       pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', t.object, t.tenant_column) AS fix
FROM t CROSS JOIN LATERAL (VALUES
  ('CU001', NOT t.rls, 'row-level security is off'),
  ('CU002', NOT t.forced, 'row-level security is not forced'),
  ('CU004', t.relid NOT IN (SELECT p.relid FROM policy p WHERE p.name = 'custody_tenant'), 'the policy custody_tenant is gone or not as custody.protect made it'),
  ('CU006', t.attnum IS NULL, 'its tenant column is gone'),
  ('CU007', NOT t.attnotnull, 'its tenant column may be NULL'),
  ('CU008', t.relid NOT IN (SELECT p.relid FROM policy p WHERE p.name = 'custody_floor'), 'the restrictive policy custody_floor is gone or not as custody.protect made it'),
  ('CU009', NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                        WHERE g.tgrelid = t.relid AND g.tgname = '!custody_require_context' AND g.tgfoid = 'custody.require_context()'::pg_catalog.regprocedure
                          AND g.tgenabled = 'A' AND g.tgtype & 1 = 0 AND g.tgtype & 28 = 28 AND g.tgqual IS NULL),
   'the trigger "!custody_require_context" is missing, altered or not ENABLE ALWAYS')
) AS w (id, found, problem)
WHERE w.found
UNION ALL
SELECT 'capture', 'critical', g.relid, g.relid::pg_catalog.regclass::text, coalesce(g.trigger_name || ': ', '') || g.problem,
       'The table is registered for audit, and what is done to it would not be recorded.',
       pg_catalog.format('SELECT custody.audit(%L);', g.root)
FROM custody.capture_gap g
UNION ALL
SELECT 'log', 'critical', NULL, g.object, g.problem, 'The log is append-only, and DDL is recorded, only while this is in force.', 'Leave it as CREATE EXTENSION made it.'
FROM custody.guard_gap g
UNION ALL
SELECT 'guard', 'critical', NULL, 'event trigger ' || w.name, 'missing, replaced or not ENABLE ALWAYS', 'Without it the guard hears of no DDL.',
       pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE ALWAYS;', w.name)
FROM (VALUES ('custody_guard_ddl'), ('custody_guard_drop')) AS w (name)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger t JOIN custody.own_function f ON f.oid = t.evtfoid
                  WHERE t.evtname = w.name AND f.prosrc = w.name AND t.evtenabled = 'A' AND t.evttags IS NULL)
UNION ALL
SELECT 'guard', 'critical', NULL, w.name || ' on custody.guard_setting', 'missing, replaced or not ENABLE ALWAYS', 'Without it changes of the guard''s mode are not recorded.',
       pg_catalog.format('ALTER TABLE custody.guard_setting ENABLE ALWAYS TRIGGER %I;', w.name)
FROM (VALUES ('!custody_capture', 'custody_capture'), ('!custody_truncate', 'custody_capture_truncate')) AS w (name, symbol)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN custody.own_function f ON f.oid = t.tgfoid
                  WHERE t.tgrelid = 'custody.guard_setting'::pg_catalog.regclass AND t.tgname = w.name AND f.prosrc = w.symbol
                    AND t.tgenabled = 'A' AND t.tgqual IS NULL);
COMMENT ON VIEW custody.guard_breach IS 'Where what custody.protect, custody.audit and CREATE EXTENSION put in place is not in place: the guard looks at it after every DDL command';

-- A function, and STABLE, so that it can be asked under a snapshot of the guard's choice: as things are, and as they were before the transaction.
CREATE FUNCTION custody.guard_findings(everything boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT coalesce(json_agg(f ORDER BY f.id COLLATE "C", f.relid, f.object COLLATE "C", f.problem COLLATE "C"), '[]')::text
  FROM (SELECT b.id, b.severity, b.relid::bigint AS relid, b.object, b.problem, b.consequence, b.fix FROM custody.guard_breach b
        WHERE NOT guard_findings.everything
        UNION ALL
        SELECT f.id, f.severity, f.relid::oid::bigint, f.object, f.problem, f.consequence, f.fix FROM custody.finding f
        WHERE guard_findings.everything) f
$$;
COMMENT ON FUNCTION custody.guard_findings(boolean) IS 'What the guard judges by, as JSON: every finding; or, with false, only where something that pg_custody put in place is not in place';
REVOKE ALL ON FUNCTION custody.guard_findings(boolean) FROM PUBLIC;
GRANT SELECT ON custody.guard_breach TO custody_auditor;
GRANT EXECUTE ON FUNCTION custody.guard_findings(boolean) TO custody_auditor;

-- The mode is configuration, and audited as all of it is.
CREATE TRIGGER "!custody_capture" AFTER INSERT OR UPDATE OR DELETE ON custody.guard_setting FOR EACH ROW EXECUTE FUNCTION custody.capture();
CREATE TRIGGER "!custody_truncate" BEFORE TRUNCATE ON custody.guard_setting FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate();
ALTER TABLE custody.guard_setting ENABLE ALWAYS TRIGGER "!custody_capture", ENABLE ALWAYS TRIGGER "!custody_truncate";

CREATE FUNCTION custody.guard_ddl() RETURNS event_trigger LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_guard_ddl';
COMMENT ON FUNCTION custody.guard_ddl() IS 'The guard, after every DDL command: refuses what weakens a protected or audited table, protects new ones, and sees to it that the transaction is judged before it commits';
CREATE FUNCTION custody.guard_drop() RETURNS event_trigger LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_guard_drop';
COMMENT ON FUNCTION custody.guard_drop() IS 'The same for what was dropped';
REVOKE ALL ON FUNCTION custody.guard_ddl(), custody.guard_drop() FROM PUBLIC;
-- Their names sort behind custody_ddl and custody_drop, which bring new partitions under what holds for their parents.
CREATE EVENT TRIGGER custody_guard_ddl ON ddl_command_end EXECUTE FUNCTION custody.guard_ddl();
CREATE EVENT TRIGGER custody_guard_drop ON sql_drop EXECUTE FUNCTION custody.guard_drop();
ALTER EVENT TRIGGER custody_guard_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER custody_guard_drop ENABLE ALWAYS;
