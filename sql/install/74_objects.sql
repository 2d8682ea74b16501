-- Coverage of what steps around row-level security, and of the server; then all findings.

-- What steps around the policies.

-- Views that show with their owner's rights what lies beneath, down to tables. One with security_invoker asks as its caller, even inside
-- another (checked on PostgreSQL 15), so the walk ends there; what a materialized view holds was read by its owner, so it does not.
CREATE VIEW custody.view_reach AS
WITH RECURSIVE invoker AS MATERIALIZED (
  SELECT c.oid
  FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.pg_options_to_table(c.reloptions) o
  WHERE c.relkind = 'v' AND o.option_name = 'security_invoker' AND o.option_value::boolean
),
step AS MATERIALIZED (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS source
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class AND d.deptype = 'n'
  WHERE r.rulename = '_RETURN' AND r.ev_class >= 16384
),
reach AS (
  SELECT c.oid AS view, c.oid AS source, c.relkind AS kind, c.relowner AS reader, c.relkind = 'm' AS stored
  FROM pg_catalog.pg_class c
  JOIN custody.isolation_schema n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('v', 'm') AND c.oid NOT IN (SELECT i.oid FROM invoker i)
  UNION
  -- The reader of a table is the owner of the view next to it.
  SELECT r.view, c.oid, c.relkind, CASE WHEN c.relkind IN ('v', 'm') THEN c.relowner ELSE r.reader END, r.stored OR c.relkind = 'm'
  FROM reach r
  JOIN step s ON s.view = r.source
  JOIN pg_catalog.pg_class c ON c.oid = s.source AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
  WHERE r.stored OR c.oid NOT IN (SELECT i.oid FROM invoker i)
)
SELECT r.view, r.source, r.kind, r.reader, r.stored FROM reach r WHERE r.kind IN ('r', 'p', 'f');
COMMENT ON VIEW custody.view_reach IS 'Internal, for custody.coverage(): the tables that a view reads with an owner''s rights, and whose';

CREATE VIEW custody.object_finding AS
WITH t AS MATERIALIZED (SELECT i.relid, i.schema, i.object, i.owner, i.rls AND i.forced AS forced, i.tenant, i.shared FROM custody.isolation_table i),
-- Tables whose own policies hold every role that is not above them, be it the owner.
floored AS MATERIALIZED (
  SELECT f.relid FROM (SELECT p.relid FROM custody.isolation_policy p WHERE p.floor GROUP BY p.relid HAVING pg_catalog.count(DISTINCT p.command) = 4) f
  JOIN t USING (relid) WHERE t.forced
),
granted AS MATERIALIZED (
  SELECT p.relid, p.kind, p.schema, p.object, pg_catalog.string_agg(DISTINCT p.grantee, ', ') AS grantees, pg_catalog.string_agg(DISTINCT p.revoke, ' ') AS revoke
  FROM custody.constrained_privilege p
  WHERE p.kind IN ('v', 'm', 'f') AND p.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') GROUP BY p.relid, p.kind, p.schema, p.object
),
reach AS MATERIALIZED (SELECT * FROM custody.view_reach),
free_role AS (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper OR r.rolbypassrls)
SELECT 'CU030' AS id, CASE WHEN pg_catalog.bool_and(h.held) THEN 'low' ELSE 'critical' END AS severity, g.relid, g.schema, g.object,
       pg_catalog.format('the view shows %s with its owner''s rights, to %s', pg_catalog.string_agg(DISTINCT h.object, ', '), g.grantees) AS problem,
       CASE WHEN pg_catalog.bool_and(h.held) THEN 'Today the owner is held by the forced floor of those tables; a view that asks with the caller''s rights does not depend on that.'
            ELSE 'The policies are applied for the view''s owner, not for who asks: everybody who may read the view sees what the owner sees.' END AS consequence,
       pg_catalog.format('ALTER VIEW %s SET (security_invoker = on);', g.object) AS fix
FROM granted g
JOIN LATERAL (
  SELECT t.object, NOT r.stored AND r.reader NOT IN (SELECT f.oid FROM free_role f) AND t.relid IN (SELECT f.relid FROM floored f) AS held
  FROM reach r JOIN t ON t.relid = r.source WHERE r.view = g.relid AND t.tenant
) h ON true
WHERE g.kind = 'v' GROUP BY g.relid, g.schema, g.object, g.grantees
UNION ALL
SELECT 'CU031', 'critical', g.relid, g.schema, g.object, pg_catalog.format('the materialized view holds rows of %s, and is granted to %s', h.objects, g.grantees),
       'A materialized view has no row-level security: everybody who may read it sees what its owner saw at the last refresh.',
       g.revoke || '  -- and read it through a view that names the tenant'
FROM granted g
JOIN LATERAL (
  SELECT pg_catalog.string_agg(DISTINCT coalesce(t.object, r.source::pg_catalog.regclass::text), ', ') AS objects
  FROM reach r LEFT JOIN t ON t.relid = r.source
  WHERE r.view = g.relid AND NOT coalesce(t.shared, false)
    AND r.source >= 16384  -- not the system's own
) h ON h.objects IS NOT NULL
WHERE g.kind = 'm'
UNION ALL
SELECT 'CU033', CASE WHEN f.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype OR NOT o.free THEN 'low' ELSE 'high' END, NULL, n.name,
       f.oid::pg_catalog.regprocedure::text, pg_catalog.format('SECURITY DEFINER routine of %I may be called by %s', o.rolname, x.grantees),
       CASE WHEN f.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype THEN 'A trigger function cannot be called, but whoever owns a table, be it a temporary one, may attach it there.'
            WHEN o.free THEN 'It runs with the rights of its owner, whom row-level security does not hold: whatever it reads or writes, it does in every tenant.'
            ELSE 'It runs with the rights of the tables'' owner; today their forced floor holds that role too.' END,
       x.revoke || pg_catalog.format('  -- or: ALTER ROUTINE %s SECURITY INVOKER; or give it to an owner that is held by row-level security', f.oid::pg_catalog.regprocedure)
FROM pg_catalog.pg_proc f
JOIN custody.isolation_schema n ON n.oid = f.pronamespace
JOIN (
  SELECT r.oid, r.rolname, r.rolsuper OR r.rolbypassrls OR coalesce(pg_catalog.bool_or(t.relid NOT IN (SELECT l.relid FROM floored l)), false) AS free
  FROM pg_catalog.pg_roles r LEFT JOIN t ON t.owner = r.oid AND t.tenant
  WHERE r.rolsuper OR r.rolbypassrls OR t.relid IS NOT NULL GROUP BY r.oid, r.rolname, r.rolsuper, r.rolbypassrls
) o ON o.oid = f.proowner
JOIN LATERAL (
  SELECT pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql) AS grantees,
         pg_catalog.string_agg(pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', f.oid::pg_catalog.regprocedure, g.sql), ' ' ORDER BY g.sql) AS revoke
  FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) a
  JOIN custody.constrained_grantee g ON g.grantee = a.grantee
  WHERE a.grantee <> f.proowner
) x ON x.grantees IS NOT NULL
WHERE f.prosecdef AND f.prorettype <> 'pg_catalog.event_trigger'::pg_catalog.regtype
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e')
UNION ALL
SELECT 'CU034', 'critical', g.relid, g.schema, g.object, pg_catalog.format('foreign table, granted to %s', g.grantees),
       'A foreign table has no row-level security here: the other server decides, for the one user it knows.',
       g.revoke || '  -- and read it through a view or function that names the tenant'
FROM granted g
WHERE g.kind = 'f' AND g.relid NOT IN (SELECT r.target FROM custody.registered_table r WHERE r.kind = 'shared')
UNION ALL
-- Triggers of the same moment fire by name. One that is cloned to partitions is the parent's finding.
SELECT 'CU035', 'medium', a.target, t.schema, t.object, pg_catalog.format('trigger %I fires before the capture', r.tgname),
       'What the trigger changes in turn is recorded before the change that set it off, so the log tells the story in the wrong order.',
       pg_catalog.format('ALTER TRIGGER %I ON %s RENAME TO %I;', r.tgname, t.object, 'z_' || r.tgname)
FROM custody.audited_table a
JOIN t ON t.relid = a.target
JOIN pg_catalog.pg_trigger r ON r.tgrelid = a.target AND NOT r.tgisinternal AND r.tgparentid = 0
JOIN pg_catalog.pg_proc f ON f.oid = r.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace AND n.nspname <> 'custody'
-- FOR EACH ROW, AFTER, enabled.
WHERE r.tgname::text COLLATE "C" < '!custody_capture' AND r.tgtype & 1 = 1 AND r.tgtype & 66 = 0 AND r.tgenabled <> 'D'
UNION ALL
SELECT 'CU036', 'high', t.relid, t.schema, t.object, pg_catalog.format('rewrite rule %I', w.rulename),
       'The rule''s statements run with the rights of the table''s owner, so other policies apply than the caller''s, and rows may be written that no capture or check sees.',
       pg_catalog.format('DROP RULE %I ON %s;  -- a trigger does the same under row-level security', w.rulename, t.object)
FROM t JOIN pg_catalog.pg_rewrite w ON w.ev_class = t.relid AND w.rulename <> '_RETURN' AND w.ev_enabled <> 'D'
WHERE t.tenant;
COMMENT ON VIEW custody.object_finding IS 'Internal, for custody.coverage(): CU030, CU031, CU033 to CU036';


-- Ways out of the database, and around it.
CREATE VIEW custody.passage_finding AS
WITH t AS MATERIALIZED (SELECT i.relid, i.schema, i.object, i.tenant, i.shared, i.kind, i.partition FROM custody.isolation_table i),
called AS MATERIALIZED (
  SELECT f.oid, f.pronamespace, f.proowner, f.prolang, f.proleakproof, f.prosecdef, f.prorettype, x.grantees, x.revoke,
         (SELECT e.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
          WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass) AS extension
  FROM pg_catalog.pg_proc f
  CROSS JOIN LATERAL (
    SELECT pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql) AS grantees,
           pg_catalog.string_agg(pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', f.oid::pg_catalog.regprocedure, g.sql), ' ' ORDER BY g.sql) AS revoke
    FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) a
    JOIN custody.constrained_grantee g ON g.grantee = a.grantee WHERE a.grantee <> f.proowner
  ) x
  WHERE f.oid >= 16384 AND f.pronamespace <> 'custody'::pg_catalog.regnamespace
)
SELECT 'CU043' AS id, 'high' AS severity, NULL::oid AS relid, NULL::name AS schema, pg_catalog.quote_ident(p.pubname) AS object,
       CASE WHEN p.puballtables THEN 'publishes every table, those to come too' ELSE 'publishes tenant tables without a row filter: ' || u.objects END AS problem,
       'A subscriber is sent the rows of every tenant; row-level security holds nobody who replicates.' AS consequence,
       pg_catalog.format('DROP PUBLICATION %I;  -- or publish the tables one by one, each with a row filter: FOR TABLE … WHERE (…)', p.pubname) AS fix
FROM pg_catalog.pg_publication p
CROSS JOIN LATERAL (
  SELECT pg_catalog.string_agg(DISTINCT t.object, ', ') AS objects FROM t
  WHERE t.tenant AND (t.relid IN (SELECT r.prrelid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prqual IS NULL)
                      OR t.schema IN (SELECT n.nspname FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid))
) u
WHERE p.puballtables OR u.objects IS NOT NULL
UNION ALL
SELECT 'CU043', CASE WHEN j.verdict = 'holds' AND NOT j.origins && ARRAY['null', 'default'] THEN 'low' ELSE 'medium' END, NULL, NULL, pg_catalog.quote_ident(p.pubname),
       pg_catalog.format('the row filter of %s does not hold it to one tenant: %s', t.object, coalesce(j.why, 'it names several')),
       pg_catalog.format('A subscriber is sent the rows of other tenants, those to come among them; columns that are left out do not change that. WHERE %s', e.filter),
       pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s;  -- or publish it WHERE (%I = …), for one tenant', p.pubname, t.object, t.tenant_column)
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prqual IS NOT NULL
JOIN custody.isolation_table t ON t.relid = r.prrelid AND t.tenant
CROSS JOIN LATERAL custody.judge_policies(ARRAY[r.prqual::text], ARRAY[t.tenant_attnum], ARRAY[NOT t.tenant_not_null]) j
CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_expr(r.prqual, r.prrelid) AS filter) e
WHERE j.verdict <> 'never'
  -- One constant, and nothing beside it.
  AND NOT (j.verdict = 'holds' AND j.origins = ARRAY['constant'] AND pg_catalog.regexp_replace(e.filter, '''[^'']*''', '', 'g') !~* '\m(or|any|case|coalesce)\M')
UNION ALL
SELECT 'CU044', 'high', NULL, NULL, 'large objects of ' || g.sql, pg_catalog.format('%s large objects belong to %s, or are granted to it', pg_catalog.count(DISTINCT l.oid), g.sql),
       'Large objects have no row-level security: every tenant whose sessions use the role reads and changes them all.',
       'no SQL fixes this: keep such data in a bytea column of a protected table, and unlink the large objects'
FROM pg_catalog.pg_largeobject_metadata l
CROSS JOIN LATERAL (SELECT l.lomowner AS grantee UNION SELECT x.grantee FROM pg_catalog.aclexplode(l.lomacl) x) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee GROUP BY g.sql
UNION ALL
SELECT 'CU044', 'high', NULL, NULL, 'lo_compat_privileges', 'lo_compat_privileges is on', 'Everybody may read and change every large object.',
       'ALTER SYSTEM RESET lo_compat_privileges; SELECT pg_reload_conf();  -- or where else it is set'
WHERE pg_catalog.current_setting('lo_compat_privileges')::boolean
UNION ALL
SELECT 'CU045', 'critical', NULL, NULL, pg_catalog.quote_ident(c.extension), pg_catalog.format('functions of extension %I may be called by %s', c.extension, pg_catalog.string_agg(DISTINCT c.grantees, ', ')),
       'They open connections of their own, to this server too, as whoever the connection says.',
       pg_catalog.string_agg(c.revoke, ' ' ORDER BY c.oid::pg_catalog.regprocedure::text)
FROM called c WHERE c.extension IN ('dblink', 'adminpack', 'pageinspect', 'pg_surgery', 'pg_visibility', 'pg_walinspect', 'pg_cron', 'pg_net', 'http') AND c.grantees IS NOT NULL GROUP BY c.extension
UNION ALL
SELECT 'CU045', 'critical', NULL, n.nspname, c.oid::pg_catalog.regprocedure::text, pg_catalog.format('written in the untrusted language %I, and may be called by %s', l.lanname, c.grantees),
       'It runs as the server''s own user, outside of all that the database keeps apart.', c.revoke
FROM called c JOIN pg_catalog.pg_language l ON l.oid = c.prolang AND NOT l.lanpltrusted AND l.oid >= 16384
JOIN pg_catalog.pg_namespace n ON n.oid = c.pronamespace
WHERE c.grantees IS NOT NULL AND c.extension IS NULL
UNION ALL
SELECT 'CU046', CASE WHEN m.umuser = 0 THEN 'high' ELSE 'medium' END, NULL, NULL, pg_catalog.quote_ident(s.srvname),
       CASE WHEN m.umuser = 0 THEN pg_catalog.format('a user mapping for PUBLIC on server %I', s.srvname) ELSE pg_catalog.format('a user mapping for %s on server %I', g.sql, s.srvname) END,
       'Whoever reaches a foreign table of it, or makes one, is on the other server the one user that all tenants share.',
       pg_catalog.format('DROP USER MAPPING FOR %s SERVER %I;', g.sql, s.srvname)
FROM pg_catalog.pg_user_mappings m
JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
JOIN custody.constrained_grantee g ON g.grantee = m.umuser
UNION ALL
SELECT 'CU046', 'high', NULL, NULL, pg_catalog.quote_ident(s.srvname), pg_catalog.format('USAGE on the foreign server granted to %s', pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql)),
       'Who may use a server makes foreign tables and user mappings of his own on it.',
       pg_catalog.string_agg(pg_catalog.format('REVOKE USAGE ON FOREIGN SERVER %I FROM %s;', s.srvname, g.sql), ' ' ORDER BY g.sql)
FROM pg_catalog.pg_foreign_server s CROSS JOIN LATERAL pg_catalog.aclexplode(s.srvacl) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee WHERE x.grantee <> s.srvowner GROUP BY s.srvname
UNION ALL
SELECT 'CU047', 'high', NULL, n.nspname, c.oid::pg_catalog.regprocedure::text, 'declared LEAKPROOF',
       'PostgreSQL calls it on rows before the policies have sorted them out; whatever it says, raises or writes tells of other tenants'' rows.',
       pg_catalog.format('ALTER FUNCTION %s NOT LEAKPROOF;', c.oid::pg_catalog.regprocedure)
FROM called c JOIN pg_catalog.pg_namespace n ON n.oid = c.pronamespace WHERE c.proleakproof AND c.extension IS NULL
UNION ALL
SELECT 'CU054', 'high', t.relid, t.schema, t.object, pg_catalog.format('trigger %I runs %s with the rights of %I', r.tgname, c.oid::pg_catalog.regprocedure, o.rolname),
       'Every tenant''s writes call it, and row-level security does not hold its owner: what it reads and writes, it does in every tenant.',
       pg_catalog.format('ALTER FUNCTION %s SECURITY INVOKER;  -- or give it to an owner that is held by row-level security', c.oid::pg_catalog.regprocedure)
FROM t
JOIN pg_catalog.pg_trigger r ON r.tgrelid = t.relid AND NOT r.tgisinternal AND r.tgparentid = 0 AND r.tgenabled <> 'D'
JOIN called c ON c.oid = r.tgfoid AND c.prosecdef
JOIN pg_catalog.pg_roles o ON o.oid = c.proowner AND (o.rolsuper OR o.rolbypassrls)
WHERE t.tenant AND c.extension IS NULL;
COMMENT ON VIEW custody.passage_finding IS 'Internal, for custody.coverage(): CU043 to CU047, CU054';

-- Security releases of PostgreSQL that isolation depends on: the first minor version of each major one that has the fix.
CREATE FUNCTION custody.cve_floor(version integer) RETURNS TABLE (cve text, fixed text, confirmed boolean, what text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'CVE-' || c.cve, major || '.' || f.minor, f.minor NOT LIKE '%?', c.what
  FROM (SELECT version / 10000 AS major, version % 10000 AS running) v
  CROSS JOIN (VALUES
    ('2023-2454', ARRAY['3', NULL, NULL, NULL], 'CREATE SCHEMA … made others run code'),
    ('2023-2455', ARRAY['3', NULL, NULL, NULL], 'policies of another role were applied after inlining a function'),
    ('2023-39418', ARRAY['4', NULL, NULL, NULL], 'MERGE did not apply the UPDATE and SELECT policies'),
    ('2023-5869', ARRAY['5', '1', NULL, NULL], 'array modification ran code of the caller''s choice'),
    ('2023-5870', ARRAY['5', '1', NULL, NULL], 'pg_signal_backend ended superusers'' workers'),
    ('2024-0985', ARRAY['6', '2', NULL, NULL], 'REFRESH MATERIALIZED VIEW CONCURRENTLY ran code as its caller'),
    ('2024-4317', ARRAY['7', '3', NULL, NULL], 'pg_stats_ext showed values of rows that policies hide'),
    ('2024-10976', ARRAY['9', '5', '1', NULL], 'a cached plan with a subquery under row-level security served another role'),
    ('2024-10978', ARRAY['9', '5', '1', NULL], 'SET ROLE was not always undone'),
    ('2025-8713', ARRAY['14', '10', '6', NULL], 'the planner''s statistics showed values of rows that policies hide'),
    ('2025-12817', ARRAY['15', '11', '7', '1'], 'CREATE STATISTICS did not ask for the schema''s privilege'),
    ('2026-14666', ARRAY['19', '15', '11', '6?'], 'cached plans survived a change of role'),
    ('2026-116311', ARRAY['20', '16?', '12?', '7?'], 'DROP OWNED BY let a role leave restrictive policies of others'' tables'),
    ('2026-120154', ARRAY['20', '16?', '12?', '7?'], 'ON CONFLICT conditions were tested before the policies'),
    ('2026-116327', ARRAY['20', '16?', '12?', '7?'], 'a leaky function was treated as leakproof'),
    ('2026-16237', ARRAY['20', '16?', '12?', '7?'], 'ON CONFLICT on a view showed rows that the view hides'),
    ('2026-120146', ARRAY['20', '16?', '12?', '7?'], 'REASSIGN OWNED handed on more than it should'),
    ('2026-116316', ARRAY['20', '16?', '12?', '7?'], 'types in temporary schemas were found by functions of others')
  ) AS c (cve, minors, what)
  CROSS JOIN LATERAL (SELECT c.minors[v.major - 14] AS minor) f
  WHERE v.running < rtrim(f.minor, '?')::integer
$$;
COMMENT ON FUNCTION custody.cve_floor(integer) IS 'Internal, for custody.coverage(): the security releases that a server of this server_version_num lacks, of those that isolation depends on. Those before 15.0 are left out: no server that pg_custody runs on lacks them. Where confirmed is false, which minor version has the fix could not be confirmed';
REVOKE ALL ON FUNCTION custody.cve_floor(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.cve_floor(integer) TO custody_auditor;

CREATE VIEW custody.server_finding AS
SELECT 'CU051' AS id, 'high' AS severity, NULL::oid AS relid, NULL::name AS schema, c.cve AS object,
       pg_catalog.format('PostgreSQL %s does not have the fix of %s', pg_catalog.current_setting('server_version'), c.cve) AS problem,
       c.what || '.' || CASE WHEN c.confirmed THEN '' ELSE ' Which minor version of this major one has the fix is not confirmed.' END AS consequence,
       pg_catalog.format('no SQL fixes this: update PostgreSQL to %s or later, and rebuild extensions', pg_catalog.rtrim(c.fixed, '?')) AS fix
FROM custody.cve_floor(pg_catalog.current_setting('server_version_num')::integer) c
UNION ALL
-- The fix changed a view, and an update does not do that to a cluster that is there already.
SELECT 'CU051', 'high', 'pg_catalog.pg_stats_ext'::pg_catalog.regclass, 'pg_catalog', 'CVE-2024-4317', 'the view pg_stats_ext is still as CVE-2024-4317 found it',
       'It shows values of rows that policies hide. The cluster is older than the fix, and the fix is a script to be run.',
       'no SQL fixes this: run fix-CVE-2024-4317.sql of PostgreSQL''s share directory in every database'
WHERE pg_catalog.pg_get_viewdef('pg_catalog.pg_stats_ext'::pg_catalog.regclass) !~ 'pg_has_role\(';
COMMENT ON VIEW custody.server_finding IS 'Internal, for custody.coverage(): CU051';

CREATE VIEW custody.finding AS
SELECT * FROM custody.table_finding
UNION ALL SELECT * FROM custody.policy_finding
UNION ALL SELECT * FROM custody.key_finding
UNION ALL SELECT * FROM custody.role_finding
UNION ALL SELECT * FROM custody.login_finding
UNION ALL SELECT * FROM custody.privilege_finding
UNION ALL SELECT * FROM custody.wide_grant_finding
UNION ALL SELECT * FROM custody.support_finding
UNION ALL SELECT * FROM custody.object_finding
UNION ALL SELECT * FROM custody.passage_finding
UNION ALL SELECT * FROM custody.server_finding;
COMMENT ON VIEW custody.finding IS 'Internal, for custody.coverage(), which is how to read it: every finding';
