-- Coverage of what the policies stand on: the functions and types that they use and whose those are, the parents that tables are read
-- through, the settings that routines bring with them, sequences, and triggers that tell others.

-- Routines of the database's own, with their texts: told has no comments, bare no strings either.
CREATE VIEW custody.routine_text AS
SELECT f.oid, n.name AS schema, f.proname AS name, f.oid::pg_catalog.regprocedure::text AS object, f.proowner AS owner, f.proconfig AS config, f.prosecdef AS definer,
       f.prorettype AS result, f.prosrc AS source, l.lanname AS language,
       pg_catalog.regexp_replace(x.body, '(''[^'']*'')|--[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/', '\1 ', 'g') AS told,
       pg_catalog.regexp_replace(x.body, '''[^'']*''|--[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/', ' ', 'g') AS bare
FROM pg_catalog.pg_proc f
JOIN custody.isolation_schema n ON n.oid = f.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = f.prolang
CROSS JOIN LATERAL (SELECT CASE WHEN f.prosqlbody IS NULL THEN f.prosrc ELSE pg_catalog.pg_get_function_sqlbody(f.oid) END AS body) x
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e');
COMMENT ON VIEW custody.routine_text IS 'Internal, for custody.coverage(): the routines of its schemas that are no extension''s, and their texts without comments, and without strings';

-- Which routine calls which: as PostgreSQL knows it, and by the names in texts, dynamic SQL included.
CREATE VIEW custody.routine_call AS
WITH r AS MATERIALIZED (SELECT t.oid, t.schema::text AS schema, t.name::text AS name, t.told FROM custody.routine_text t)
SELECT d.objid AS caller, d.refobjid AS callee
FROM pg_catalog.pg_depend d
WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refclassid = d.classid AND d.refobjid >= 16384
UNION
SELECT r.oid, c.oid
FROM r
CROSS JOIN LATERAL pg_catalog.regexp_matches(r.told, '(?:"?(\w+)"?\s*\.\s*)?"?(\w+)"?\s*\(', 'g') m
-- As it is, should it stand in quotation marks, and as PostgreSQL takes it without.
CROSS JOIN LATERAL (VALUES (m[2]), (pg_catalog.lower(m[2]))) AS v (name)
JOIN r c ON c.name = v.name AND (m[1] IS NULL OR c.schema IN (m[1], pg_catalog.lower(m[1]))) AND c.oid <> r.oid;
COMMENT ON VIEW custody.routine_call IS 'Internal, for custody.coverage(): which routines call which, where that can be told';

-- The routines that a constrained role''s policies come to, one through another.
CREATE VIEW custody.policy_routine AS
WITH RECURSIVE call AS MATERIALIZED (SELECT * FROM custody.routine_call),
used AS (
  SELECT d.refclassid, d.refobjid, t.object
  FROM custody.isolation_table t
  JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid AND p.polroles && ARRAY(SELECT g.grantee FROM custody.constrained_grantee g)
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid AND d.refobjid >= 16384
  WHERE NOT t.shared
),
helper AS (
  SELECT u.refobjid AS routine, u.object FROM used u WHERE u.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION
  SELECT o.oprcode::oid, u.object FROM used u JOIN pg_catalog.pg_operator o ON o.oid = u.refobjid WHERE u.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
  UNION
  SELECT c.callee, h.object FROM helper h JOIN call c ON c.caller = h.routine
)
SELECT h.routine, pg_catalog.string_agg(h.object, ', ' ORDER BY h.object) AS tables FROM helper h GROUP BY h.routine;
COMMENT ON VIEW custody.policy_routine IS 'Internal, for custody.coverage(): the routines that policies for constrained roles call, directly or not, and of which tables';

-- What constrained roles own, other than tables, of what a tenant table and its policies stand on. Walked from what is owned, which
-- is little, to what falls with it.
CREATE VIEW custody.support_owner AS
WITH RECURSIVE t AS MATERIALIZED (SELECT i.relid, i.object FROM custody.isolation_table i WHERE NOT i.shared AND (i.tenant OR i.rls)),
call AS MATERIALIZED (SELECT * FROM custody.routine_call),
owned AS MATERIALIZED (
  SELECT o.*, g.sql AS owner_sql
  FROM (
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass AS class, f.oid, f.proowner AS owner, 'routine' AS kind, n.nspname AS schema, f.oid::pg_catalog.regprocedure::text AS object,
           pg_catalog.format('ALTER ROUTINE %s', f.oid::pg_catalog.regprocedure) AS alter
    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace WHERE f.oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprowner, 'operator', n.nspname, o.oid::pg_catalog.regoperator::text,
           pg_catalog.format('ALTER OPERATOR %s', o.oid::pg_catalog.regoperator)
    FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, y.oid, y.typowner, 'type', n.nspname, pg_catalog.format_type(y.oid, NULL), pg_catalog.format('ALTER TYPE %I.%I', n.nspname, y.typname)
    FROM pg_catalog.pg_type y JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
    -- A table's row type is the table's; an array's is its element's.
    WHERE y.oid >= 16384 AND y.typelem = 0 AND (y.typrelid = 0 OR y.typrelid IN (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'c'))
    UNION ALL
    SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collowner, 'collation', n.nspname, pg_catalog.format('%I.%I', n.nspname, c.collname),
           pg_catalog.format('ALTER COLLATION %I.%I', n.nspname, c.collname)
    FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner, 'view', n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname),
           pg_catalog.format('ALTER %s %I.%I', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND c.relkind IN ('v', 'm')
    UNION ALL
    SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.nspowner, 'schema', n.nspname, pg_catalog.quote_ident(n.nspname), pg_catalog.format('ALTER SCHEMA %I', n.nspname)
    FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_'
    UNION ALL
    -- Extensions can't be handed on; who made one drops it with all that it brought.
    SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass, e.oid, e.extowner, 'extension', NULL, pg_catalog.quote_ident(e.extname), NULL
    FROM pg_catalog.pg_extension e
  ) o
  JOIN custody.constrained_grantee g ON g.grantee = o.owner
),
falls AS (
  SELECT o.class AS root_class, o.oid AS root, o.class::oid AS class, o.oid FROM owned o
  UNION
  SELECT f.root_class, f.root, n.class, n.oid
  FROM falls f
  CROSS JOIN LATERAL (
    SELECT d.classid AS class, d.objid AS oid FROM pg_catalog.pg_depend d WHERE d.refclassid = f.class AND d.refobjid = f.oid AND d.deptype IN ('n', 'a', 'i', 'e')
    UNION ALL
    -- What a view's query needs, the view does.
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, w.ev_class FROM pg_catalog.pg_rewrite w WHERE f.class = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = f.oid
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, c.caller FROM call c WHERE f.class = 'pg_catalog.pg_proc'::pg_catalog.regclass AND c.callee = f.oid
  ) n
  -- A table is where it ends.
  WHERE f.class <> 'pg_catalog.pg_class'::pg_catalog.regclass OR f.oid NOT IN (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'f'))
),
hit AS (
  SELECT f.root_class, f.root, f.class, p.polrelid AS relid FROM falls f JOIN pg_catalog.pg_policy p ON f.class = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = f.oid
  UNION ALL
  SELECT f.root_class, f.root, f.class, r.tgrelid FROM falls f JOIN pg_catalog.pg_trigger r ON f.class = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND r.oid = f.oid
  UNION ALL
  SELECT f.root_class, f.root, f.class, a.adrelid FROM falls f JOIN pg_catalog.pg_attrdef a ON f.class = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = f.oid
  UNION ALL
  SELECT f.root_class, f.root, f.class, c.conrelid FROM falls f JOIN pg_catalog.pg_constraint c ON f.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = f.oid
  UNION ALL
  SELECT f.root_class, f.root, f.class, coalesce(x.indrelid, f.oid) FROM falls f LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = f.oid WHERE f.class = 'pg_catalog.pg_class'::pg_catalog.regclass
)
SELECT o.kind, o.schema, o.object, o.owner_sql AS owner, o.alter,
       -- With a column or the table its policies go, too.
       pg_catalog.bool_or(h.class = 'pg_catalog.pg_policy'::pg_catalog.regclass) AS policies,
       pg_catalog.string_agg(DISTINCT t.object, ', ') AS tables
FROM hit h
JOIN t ON t.relid = h.relid
JOIN owned o ON o.class = h.root_class AND o.oid = h.root
GROUP BY o.kind, o.schema, o.object, o.owner_sql, o.alter;
COMMENT ON VIEW custody.support_owner IS 'Internal, for custody.coverage(): what constrained roles own of the routines, operators, types, collations, views, schemas and extensions that tenant tables and their policies depend on';

CREATE VIEW custody.support_finding AS
WITH RECURSIVE t AS MATERIALIZED (SELECT i.* FROM custody.isolation_table i),
r AS MATERIALIZED (SELECT * FROM custody.routine_text),
helper AS MATERIALIZED (SELECT * FROM custody.policy_routine),
-- Everything above a table that inherits, other than partitions.
above AS (
  SELECT i.inhrelid AS child, i.inhparent AS parent, i.inhparent AS direct FROM pg_catalog.pg_inherits i JOIN t ON t.relid = i.inhrelid AND t.tenant AND NOT t.partition AND NOT t.shared
  UNION
  SELECT a.child, i.inhparent, a.direct FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.parent
),
readable AS MATERIALIZED (
  SELECT p.relid, pg_catalog.string_agg(DISTINCT p.grantee, ', ') AS grantees FROM custody.constrained_privilege p
  WHERE p.kind IN ('r', 'p') AND p.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') GROUP BY p.relid
),
-- The settings that policies ask for, themselves or by their functions.
asked AS MATERIALIZED (
  SELECT DISTINCT pg_catalog.lower(m[1]) AS name
  FROM (
    SELECT pg_catalog.pg_get_expr(e.tree, p.polrelid) AS text
    FROM t JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid CROSS JOIN LATERAL (VALUES (p.polqual), (p.polwithcheck)) AS e (tree) WHERE NOT t.shared AND e.tree IS NOT NULL
    UNION ALL SELECT r.told FROM r JOIN helper h ON h.routine = r.oid
  ) x CROSS JOIN LATERAL pg_catalog.regexp_matches(x.text, '\mcurrent_setting\s*\(\s*(?:setting_name\s*=>\s*)?''([^'']+)''', 'gi') m
),
fired AS MATERIALIZED (
  SELECT g.tgfoid AS routine, pg_catalog.string_agg(DISTINCT t.object, ', ') AS tables FROM pg_catalog.pg_trigger g JOIN t ON t.relid = g.tgrelid AND t.tenant
  WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' GROUP BY g.tgfoid
),
brought AS (
  SELECT r.*, c.name AS setting, c.value, coalesce('policies of ' || h.tables || ' call it', 'triggers of ' || f.tables || ' run it', x.grantees || ' may call it') AS reached,
         CASE WHEN c.name IN (SELECT a.name FROM asked a) THEN CASE WHEN c.value NOT IN ('', '""') THEN 'tenant' END
              WHEN c.name ~ '^custody\.' THEN 'custody'
              WHEN c.name = 'session_replication_role' AND c.value <> 'origin' THEN 'triggers'
              WHEN c.name = 'row_security' AND c.value IN ('off', 'false', 'no', '0') THEN 'rows'
              WHEN c.name = 'search_path' AND r.definer AND c.value ~ '(^|[^\w$])"?pg_temp"?\s*,' THEN 'names' END AS trick
  FROM r
  CROSS JOIN LATERAL pg_catalog.unnest(r.config) s
  CROSS JOIN LATERAL (SELECT pg_catalog.lower(pg_catalog.split_part(s, '=', 1)) AS name, pg_catalog.substr(s, pg_catalog.strpos(s, '=') + 1) AS value) c
  LEFT JOIN helper h ON h.routine = r.oid
  LEFT JOIN fired f ON f.routine = r.oid
  LEFT JOIN LATERAL (
    SELECT pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql) AS grantees
    FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a JOIN custody.constrained_grantee g ON g.grantee = a.grantee
    WHERE p.oid = r.oid AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype AND p.prorettype <> 'pg_catalog.event_trigger'::pg_catalog.regtype
  ) x ON true
),
sequence AS MATERIALIZED (
  SELECT c.oid AS relid, n.name AS schema, pg_catalog.format('%I.%I', n.name, c.relname) AS object, c.relowner AS owner,
         -- A column's own, and nothing else's.
         EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.refclassid = d.classid AND d.deptype IN ('a', 'i')) AS owned,
         p.privilege, g.sql AS grantee, p.grantee = c.relowner AS mine,
         CASE WHEN p.grantee = c.relowner THEN pg_catalog.format('ALTER SEQUENCE %I.%I OWNER TO CURRENT_USER;', n.name, c.relname)
              ELSE pg_catalog.format('REVOKE %s ON SEQUENCE %I.%I FROM %s;', p.privilege, n.name, c.relname, g.sql) END AS fix
  FROM pg_catalog.pg_class c
  JOIN custody.isolation_schema n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL (SELECT x.grantee, x.privilege_type AS privilege FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('s', c.relowner))) x) p
  JOIN custody.constrained_grantee g ON g.grantee = p.grantee
  WHERE c.relkind = 'S'
)
SELECT 'CU056' AS id, 'high' AS severity, NULL::oid AS relid, r.schema, r.object, pg_catalog.format('policies of %s come to it, and it changes settings of the session', h.tables) AS problem,
       'What it writes outlives the transaction: on a pooled connection the policy goes by what an earlier tenant left behind.' AS consequence,
       'no SQL fixes this: work the value out anew in each call, or set it for the transaction only (set_config(…, …, true), SET LOCAL)' AS fix
FROM r JOIN helper h ON h.routine = r.oid
CROSS JOIN LATERAL (
  SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(r.told, '\mset_config\M', 'gi')) AS told,
         (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(r.bare, '\mset_config\M', 'gi')) AS all,
         -- Arguments with parentheses of their own, three deep; the last one is the word true.
         (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(r.bare,
            '\mset_config\s*\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*,\s*(?:is_local\s*(?:=>|:=)\s*)?true\s*\)', 'gi')) AS local
) n
WHERE n.all > n.local
   OR r.bare ~* '(^|[;$]|\m(begin|then|else|loop)\M)\s*set\s+(?!local\M|transaction\M|constraints\M)(session\s+)?[\w."]+\s*(=|\mto\M)'
   OR r.bare ~* '\mexecute\M' AND (n.told > n.all OR r.told ~* '''\s*set\s+(?!local\M|transaction\M|constraints\M)')
UNION ALL
SELECT 'CU057', CASE WHEN s.policies OR s.kind IN ('schema', 'type', 'extension') THEN 'critical' ELSE 'high' END, NULL, s.schema, s.object,
       pg_catalog.format('%s of constrained role %s, on which %s %s', s.kind, pg_catalog.string_agg(s.owner, ', ' ORDER BY s.owner), CASE WHEN s.policies THEN 'policies depend: of' ELSE 'tables depend:' END, s.tables),
       CASE WHEN s.policies OR s.kind IN ('schema', 'type', 'extension') THEN 'Its owner drops it with CASCADE, and the policies that use it are gone; or puts something else in its place, and they say what he wants.'
            ELSE 'Its owner puts other code in its place, which then runs in the transactions of every tenant; or drops it with what uses it.' END,
       coalesce(s.alter || ' OWNER TO CURRENT_USER;  -- better: to the owner of the tables', 'no SQL fixes this: drop the extension and have it created by a role that no application uses')
FROM custody.support_owner s GROUP BY s.kind, s.schema, s.object, s.alter, s.policies, s.tables
UNION ALL
SELECT 'CU058', CASE WHEN pg_catalog.string_agg(g.grantees, '') IS NULL THEN 'low' ELSE 'critical' END, c.relid, c.schema, c.object,
       pg_catalog.format('inherits from %s, whose policies do not keep tenants apart', pg_catalog.string_agg(DISTINCT p.object, ', ')),
       'A query of the parent shows the child''s rows, and asks only the parent''s policies'
         || coalesce('; the parent is granted to: ' || pg_catalog.string_agg(DISTINCT g.grantees, ', ') || '.', '; today nobody constrained may.'),
       pg_catalog.string_agg(DISTINCT pg_catalog.format('ALTER TABLE %s NO INHERIT %s;', c.object, a.direct::pg_catalog.regclass), ' ')
FROM above a
JOIN t c ON c.relid = a.child
JOIN t p ON p.relid = a.parent
LEFT JOIN readable g ON g.relid = p.relid
-- A parent with a tenant column, under row-level security, is judged by itself; so is one that nobody gets rows of.
WHERE p.shared OR NOT p.rls OR NOT p.tenant AND EXISTS (SELECT FROM custody.isolation_policy y WHERE y.relid = p.relid AND y.grants)
GROUP BY c.relid, c.schema, c.object
UNION ALL
SELECT 'CU059', CASE WHEN b.trick IN ('tenant', 'custody', 'triggers') THEN 'high' ELSE 'medium' END, NULL, b.schema, b.object,
       pg_catalog.format('it sets %s for itself, and %s', b.setting, b.reached),
       CASE b.trick WHEN 'tenant' THEN 'While it runs it acts for the tenant in its SET clause, and not for its caller''s: the policies let it at that tenant''s rows.'
         WHEN 'custody' THEN 'While it runs, pg_custody goes by other rules than the administrator''s.'
         WHEN 'triggers' THEN 'While it runs, triggers, foreign keys and every audit trail made of triggers are switched off.'
         WHEN 'rows' THEN 'It fails for whom row-level security holds, and shows every row to who is not held.'
         ELSE 'Temporary tables, which its caller makes, come before the tables that it means.' END,
       pg_catalog.format('ALTER ROUTINE %s RESET %s;', b.object, b.setting)
         || CASE WHEN b.trick = 'names' THEN '  -- then set it anew, with pg_temp at its end' ELSE '' END
FROM brought b WHERE b.trick IS NOT NULL AND b.reached IS NOT NULL
UNION ALL
SELECT 'CU060', CASE WHEN w.tcn THEN 'high' ELSE 'low' END, t.relid, t.schema, t.object,
       pg_catalog.format('trigger %I tells %s', g.tgname, CASE WHEN w.tcn THEN 'every listener which rows have changed' ELSE 'listeners something' END),
       CASE WHEN w.tcn THEN 'Its notifications name the table and the row''s keys, of every tenant; whoever is connected may listen.'
            ELSE 'A notification reaches whoever is connected and listens, of whichever tenant; what is in it can''t be told.' END,
       pg_catalog.format('DROP TRIGGER %I ON %s;  -- and let each tenant''s sessions ask for what is new', g.tgname, t.object)
FROM t
JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.relid AND NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgenabled <> 'D'
JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
LEFT JOIN r ON r.oid = f.oid
CROSS JOIN LATERAL (SELECT f.prosrc = 'triggered_change_notification' AND f.probin LIKE '%tcn%' AS tcn, r.bare ~* '\m(pg_notify|notify)\M' AS told) w
WHERE t.tenant AND (coalesce(w.tcn, false) OR w.told)
UNION ALL
SELECT 'CU061', 'medium', s.relid, s.schema, s.object, pg_catalog.format('constrained roles may set it: %s', pg_catalog.string_agg(DISTINCT s.grantee, ', ')),
       'One tenant winds back, or to its end, the sequence that all take their numbers from: the others'' inserts fail, or hit rows that are there.',
       pg_catalog.string_agg(DISTINCT s.fix, ' ')
FROM sequence s WHERE s.privilege = 'UPDATE' AND NOT (s.mine AND s.owned) GROUP BY s.relid, s.schema, s.object
UNION ALL
SELECT 'CU048', 'low', s.relid, s.schema, s.object, pg_catalog.format('all tenants take numbers from it: %s granted to %s', pg_catalog.string_agg(DISTINCT s.privilege, ' and '), pg_catalog.string_agg(DISTINCT s.grantee, ', ')),
       'Its numbers tell how much the others write.',
       pg_catalog.string_agg(DISTINCT s.fix, ' ') || '  -- where the numbers are needed: uuids tell nothing'
FROM sequence s WHERE s.privilege IN ('USAGE', 'SELECT') AND NOT s.owned AND NOT s.mine GROUP BY s.relid, s.schema, s.object;
COMMENT ON VIEW custody.support_finding IS 'Internal, for custody.coverage(): CU048, CU056 to CU061';
