-- Coverage of policies: what each lets a constrained role do, by what its expression means.

CREATE FUNCTION custody.judge_policies(expressions text[], columns smallint[], nullable boolean[])
RETURNS TABLE (verdict text, why text, origins text[], held smallint)
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_judge_policies';
COMMENT ON FUNCTION custody.judge_policies(text[], smallint[], boolean[]) IS 'Internal, for custody.coverage(): what expressions (pg_node_tree as text, one of each array''s elements for each) can be true of, for a tenant column by its number (0: none), which may be NULL or not: never, holds, door, undecided or opens; why; where the tenant comes from; and without a tenant column, which column is held to the session instead. One row for each, in order';
REVOKE ALL ON FUNCTION custody.judge_policies(text[], smallint[], boolean[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.judge_policies(text[], smallint[], boolean[]) TO custody_auditor;

-- One row per policy: its USING and its WITH CHECK. One that says no WITH CHECK has its USING for that.
CREATE VIEW custody.policy_verdict AS
WITH e AS MATERIALIZED (
  SELECT p.oid AS policy, w.part, w.tree, coalesce(t.tenant_attnum, 0::smallint) AS tenant, NOT coalesce(t.tenant_not_null, false) AS nullable,
         pg_catalog.row_number() OVER () AS place
  FROM custody.isolation_table t
  JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid
  CROSS JOIN LATERAL (VALUES ('using', p.polqual::text), ('check', p.polwithcheck::text)) AS w (part, tree)
  WHERE w.tree IS NOT NULL AND NOT t.shared
),
judged AS (
  SELECT j.verdict, j.why, j.origins, j.held, j.place
  FROM (SELECT coalesce(pg_catalog.array_agg(e.tree ORDER BY e.place), '{}') AS trees,
               coalesce(pg_catalog.array_agg(e.tenant ORDER BY e.place), '{}') AS tenants,
               coalesce(pg_catalog.array_agg(e.nullable ORDER BY e.place), '{}') AS nullables FROM e) a
  CROSS JOIN LATERAL custody.judge_policies(a.trees, a.tenants, a.nullables) WITH ORDINALITY AS j (verdict, why, origins, held, place)
),
v AS (SELECT e.policy, e.part, e.tree ~ '\{(VAR|SUBLINK|FUNCEXPR) ' AS asks, j.* FROM e JOIN judged j USING (place))
SELECT p.oid AS policy,
       u.verdict AS using_verdict, u.why AS using_why, coalesce(u.origins, '{}') AS using_origins, u.held AS using_held, coalesce(u.asks, false) AS using_asks,
       coalesce(k.verdict, u.verdict) AS check_verdict, coalesce(k.why, u.why) AS check_why, coalesce(k.origins, u.origins, '{}') AS check_origins,
       coalesce(k.held, u.held) AS check_held, coalesce(k.asks, u.asks, false) AS check_asks
FROM pg_catalog.pg_policy p
LEFT JOIN v u ON u.policy = p.oid AND u.part = 'using'
LEFT JOIN v k ON k.policy = p.oid AND k.part = 'check'
WHERE u.policy IS NOT NULL OR k.policy IS NOT NULL;
COMMENT ON VIEW custody.policy_verdict IS 'Internal, for custody.coverage(): what the expressions of each policy can be true of';

-- One row per policy and command (r, a, w, d as in pg_policy).
CREATE VIEW custody.isolation_policy AS
WITH p AS MATERIALIZED (
  SELECT t.relid, t.schema, t.object, t.root, t.tenant, t.tenant_column, t.child, p.oid AS policy, p.polname AS name, p.polroles AS roles, p.polpermissive AS permissive,
         p.polroles && ARRAY(SELECT g.grantee FROM custody.constrained_grantee g) AS constrained, w.command, j.*
  FROM custody.isolation_table t
  JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid
  JOIN (
    SELECT v.policy AS judged, v.using_verdict, v.using_why, v.using_origins, v.check_verdict, v.check_why, v.check_origins, v.using_asks, v.check_asks,
           (v.using_held IS NOT NULL OR v.using_verdict = 'never' OR v.using_verdict IS NULL) AND (v.check_held IS NOT NULL OR v.check_verdict = 'never') AS otherwise
    FROM custody.policy_verdict v
  ) j ON j.judged = p.oid
  CROSS JOIN (VALUES ('r', true, false), ('a', false, true), ('w', true, true), ('d', true, false)) AS w (command, reads, writes)
  WHERE NOT t.shared AND p.polcmd::text IN ('*', w.command)
),
-- What of it counts for the command.
c AS (
  SELECT p.*,
         CASE WHEN p.command = 'a' THEN NULL ELSE p.using_verdict END AS seen, CASE WHEN p.command IN ('a', 'w') THEN p.check_verdict END AS written,
         CASE WHEN p.command = 'a' THEN '{}' ELSE p.using_origins END || CASE WHEN p.command IN ('a', 'w') THEN p.check_origins ELSE '{}' END AS origins
  FROM p
),
-- The roles that restrictive policies hold to a tenant of the session's, and by more than a setting. By windows, as the planner
-- would join what it takes for a few rows in nested loops.
held AS (
  SELECT c.*, l.floor,
         pg_catalog.string_to_array(pg_catalog.string_agg(CASE WHEN l.floor THEN pg_catalog.array_to_string(c.roles, ',') END, ',') OVER one, ',')::oid[] AS floored_roles,
         pg_catalog.string_to_array(pg_catalog.string_agg(CASE WHEN l.floor AND l.sound THEN pg_catalog.array_to_string(c.roles, ',') END, ',') OVER one, ',')::oid[] AS sound_roles
  FROM c
  CROSS JOIN LATERAL (
    SELECT NOT c.permissive AND coalesce(c.seen, 'holds') IN ('holds', 'never') AND coalesce(c.written, 'holds') IN ('holds', 'never')
             AND NOT c.origins && ARRAY['null', 'default', 'constant', 'editable'] AS floor,
           NOT EXISTS (SELECT FROM pg_catalog.unnest(c.origins) o WHERE o ~ '^(setting|function) ' OR o = 'subject') AS sound
  ) l
  WINDOW one AS (PARTITION BY c.relid, c.command)
)
SELECT c.relid, c.schema, c.object, c.root, c.tenant, c.tenant_column, c.child, c.policy, c.name, c.roles, c.permissive, c.constrained, c.command, c.origins,
       c.seen, c.written, c.using_why, c.check_why, c.using_asks, c.check_asks,
       -- Lets a constrained role at some rows.
       c.permissive AND c.constrained AND (coalesce(c.seen, 'never') <> 'never' OR coalesce(c.written, 'never') <> 'never') AS grants,
       -- Of a table without a tenant column: holds another column to the session.
       c.otherwise,
       c.floor AND 0 = ANY (c.roles) AS floor,
       -- Every role that it is for is held by a restrictive policy.
       coalesce(0 = ANY (c.floored_roles) OR c.roles <@ c.floored_roles, false) AS floored, coalesce(0 = ANY (c.sound_roles) OR c.roles <@ c.sound_roles, false) AS soundly
FROM held c;
COMMENT ON VIEW custody.isolation_policy IS 'Internal, for custody.coverage(): what each policy of a table that is not shared lets a constrained role do, command by command';

CREATE VIEW custody.policy_finding AS
WITH p AS MATERIALIZED (SELECT * FROM custody.isolation_policy),
-- The functions that policies call, PostgreSQL's and extensions' left out.
f AS MATERIALIZED (
  SELECT f.oid, n.nspname AS schema, f.oid::pg_catalog.regprocedure::text AS object, f.provolatile AS volatility, f.pronargs AS arguments, f.prosqlbody IS NULL AS late,
         -- Its text without comments, strings and what has FROM in another sense.
         pg_catalog.regexp_replace(pg_catalog.regexp_replace(f.prosrc, '--[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/|''[^'']*''', ' ', 'g'),
                                   '\mdistinct\s+from\M|\m(extract|substring|trim|overlay)\s*\([^)]*\)', ' ', 'gi') AS text,
         l.lanname AS language,
         (SELECT pg_catalog.substr(c, 13) FROM pg_catalog.unnest(f.proconfig) c WHERE c LIKE 'search\_path=%') AS path,
         p.tables
  FROM (
    SELECT d.refobjid AS function, pg_catalog.string_agg(DISTINCT i.object, ', ') AS tables
    FROM p i
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = i.policy AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    WHERE i.constrained AND d.refobjid >= 16384 GROUP BY d.refobjid
  ) p
  JOIN pg_catalog.pg_proc f ON f.oid = p.function
  JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = f.prolang
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = f.oid AND e.deptype = 'e')
),
-- What policies lean on: tables that they read, functions that they call, settings that are filled in.
source AS (
  SELECT d.refobjid AS source, p.object FROM (SELECT DISTINCT i.policy, i.relid, i.object FROM p i WHERE i.constrained) p
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.policy
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> p.relid
  UNION
  -- Functions whose body PostgreSQL keeps as a tree.
  SELECT d.refobjid, f.tables FROM f
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  UNION
  -- Others, by the names in their text.
  SELECT c.oid, f.tables
  FROM f CROSS JOIN LATERAL pg_catalog.regexp_matches(f.text, '\m(?:from|join)\s+(?:only\s+)?(?:"?(\w+)"?\.)?"?(\w+)"?', 'gi') m
  JOIN pg_catalog.pg_class c ON c.relname = m[2] AND c.relkind IN ('r', 'p')
  JOIN custody.isolation_schema n ON n.oid = c.relnamespace AND n.name = coalesce(m[1], n.name)
  WHERE f.late
),
writes AS (
  SELECT q.relid, pg_catalog.string_agg(DISTINCT q.privilege || ' to ' || q.grantee, ', ') AS privileges, pg_catalog.string_agg(DISTINCT q.revoke, ' ') AS revoke
  FROM custody.constrained_privilege q WHERE q.kind IN ('r', 'p', 'v', 'f') AND q.privilege IN ('INSERT', 'UPDATE', 'DELETE') GROUP BY q.relid
),
-- A table that is named without its schema is looked for in pg_temp first, unless that is said to come last.
loose AS (
  SELECT f.*, pg_catalog.array_agg(DISTINCT pg_catalog.lower(m[1])) AS names
  FROM f CROSS JOIN LATERAL pg_catalog.regexp_matches(f.text, '\m(?:from|join|into|update)\s+(?:only\s+)?"?(\w+)"?(?=\s|;|,|\)|$)(?!\s*\.)', 'gi') m
  WHERE f.late AND NOT coalesce(f.path ~ '"?pg_temp"?\s*$' OR pg_catalog.btrim(f.path, ' "') IN ('', 'pg_catalog'), false)
    AND pg_catalog.lower(m[1]) NOT IN ('select', 'lateral', 'unnest', 'generate_series')
  GROUP BY f.oid, f.schema, f.object, f.volatility, f.arguments, f.late, f.text, f.language, f.path, f.tables
),
setting AS (
  SELECT DISTINCT pg_catalog.substr(o, 9) AS name
  FROM p i CROSS JOIN LATERAL pg_catalog.unnest(i.origins) o WHERE i.constrained AND o LIKE 'setting %.%'
),
-- A policy's worst, over its commands.
worst AS (
  SELECT o.relid, o.schema, o.object, o.root, o.tenant, o.tenant_column, o.policy, o.name,
         coalesce(pg_catalog.bool_or(o.seen = 'opens' AND (o.tenant OR NOT o.using_asks)), false) AS opens,
         coalesce(pg_catalog.bool_or(o.written = 'opens' AND (o.tenant OR NOT o.check_asks)), false) AS writes,
         o.tenant AND coalesce(pg_catalog.bool_or('undecided' IN (o.seen, o.written)), false) AS undecided,
         o.tenant AND coalesce(pg_catalog.bool_or('door' IN (o.seen, o.written)), false) AS door,
         pg_catalog.min(o.using_why) FILTER (WHERE o.seen IS NOT NULL) AS using_why, pg_catalog.min(o.check_why) FILTER (WHERE o.written IS NOT NULL) AS check_why
  FROM p o WHERE o.permissive AND o.constrained AND NOT o.floored
  GROUP BY o.relid, o.schema, o.object, o.root, o.tenant, o.tenant_column, o.policy, o.name
),
told AS (
  SELECT w.*, coalesce('USING ' || pg_catalog.pg_get_expr(y.polqual, y.polrelid), '') || coalesce(' WITH CHECK ' || pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid), '') AS says,
         pg_catalog.format('DROP POLICY %I ON %s;', w.name, w.object) AS drop,
         CASE WHEN w.tenant THEN pg_catalog.format('  -- or lay a floor under it: SELECT * FROM custody.protect(%L, %L);', w.root, w.tenant_column) ELSE '' END AS floor
  FROM worst w JOIN pg_catalog.pg_policy y ON y.oid = w.policy
)
SELECT 'CU005' AS id, 'critical' AS severity, w.relid, w.schema, w.object, pg_catalog.format('policy %I opens rows of every tenant: %s', w.name, w.using_why) AS problem,
       pg_catalog.format('Permissive policies add up, and no restrictive policy narrows this one. %s', w.says) AS consequence, w.drop || w.floor AS fix
FROM told w WHERE w.opens
UNION ALL
SELECT 'CU037', 'high', w.relid, w.schema, w.object, pg_catalog.format('policy %I lets rows be written for any tenant: %s', w.name, w.check_why),
       pg_catalog.format('Who writes a row into another tenant''s data, or hands one over, is not stopped by what he may read. %s', w.says),
       CASE WHEN pg_catalog.pg_get_expr(y.polqual, y.polrelid) IS NOT NULL AND w.tenant
            THEN pg_catalog.format('ALTER POLICY %I ON %s WITH CHECK (%s);', w.name, w.object, pg_catalog.pg_get_expr(y.polqual, y.polrelid)) ELSE w.drop || w.floor END
FROM told w JOIN pg_catalog.pg_policy y ON y.oid = w.policy WHERE w.writes AND NOT w.opens
UNION ALL
SELECT 'CU014', 'medium', w.relid, w.schema, w.object, pg_catalog.format('whether policy %I holds rows to one tenant can''t be told: %s', w.name, coalesce(w.using_why, w.check_why)),
       pg_catalog.format('What can''t be decided is not taken for safe. %s', w.says),
       CASE WHEN w.tenant THEN pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', w.root, w.tenant_column) ELSE w.drop END || '  -- lays a floor under it; or test it with custody.probe and waive this'
FROM told w WHERE w.undecided AND NOT w.opens AND NOT w.writes
UNION ALL
SELECT 'CU015', 'medium', w.relid, w.schema, w.object, pg_catalog.format('policy %I opens every tenant''s rows to whom %s lets in', w.name, coalesce(w.using_why, w.check_why)),
       pg_catalog.format('A way past the tenants is there on purpose or by mistake; for an application''s role it is as good as what guards it. %s', w.says),
       pg_catalog.format('no SQL fixes this: take the exception out of policy %I, or give it to a role that is not a member of custody_app, or waive it with its reason', w.name)
FROM told w WHERE w.door AND NOT w.opens AND NOT w.writes AND NOT w.undecided
UNION ALL
SELECT 'CU016', 'low', o.relid, o.schema, o.object, 'the tenant comes from ' || pg_catalog.string_agg(DISTINCT g.origin, ', '),
       'A setting can be set by any SQL that the session runs, an injected one too; a function is as good as its body, which is not looked into. pg_custody''s context can only be set with a token or a grant.',
       CASE WHEN o.tenant THEN pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', o.root, o.tenant_column)
            ELSE 'no SQL fixes this: compare with what pg_custody''s context says' END
FROM p o CROSS JOIN LATERAL pg_catalog.unnest(o.origins) AS g (origin)
WHERE o.permissive AND o.constrained AND NOT o.soundly AND (o.tenant OR o.otherwise) AND coalesce(o.seen, 'holds') IN ('holds', 'never') AND coalesce(o.written, 'holds') IN ('holds', 'never')
  AND g.origin ~ '^(setting|function) '
GROUP BY o.relid, o.schema, o.object, o.root, o.tenant, o.tenant_column
UNION ALL
SELECT 'CU038', 'high', o.relid, o.schema, o.object, pg_catalog.format('policy %I opens the rows of a fixed tenant', o.name),
       'Every session that the policy is for sees them: ' || CASE WHEN pg_catalog.bool_or('default' = ANY (o.origins)) THEN 'a value is filled in where no context is set.' ELSE 'the tenant is written into the policy, and the policy is for everybody.' END,
       pg_catalog.format('DROP POLICY %I ON %s;  -- and write it without the fixed value, or TO that tenant''s own role', o.name, o.object)
FROM p o
WHERE o.permissive AND o.constrained AND NOT o.floored AND o.tenant AND o.seen = 'holds'
  AND ('default' = ANY (o.origins) OR 'constant' = ANY (o.origins)
       AND EXISTS (SELECT FROM pg_catalog.unnest(o.roles) r (oid) WHERE r.oid = 0 OR r.oid = (SELECT a.oid FROM pg_catalog.pg_roles a WHERE a.rolname = 'custody_app')
                   -- A role that several log in as, or as members of.
                   OR (SELECT pg_catalog.count(*) FROM custody.constrained_reach c JOIN pg_catalog.pg_roles l ON l.oid = c.role AND l.rolcanlogin WHERE c.reached = r.oid) > 1))
GROUP BY o.relid, o.schema, o.object, o.policy, o.name
UNION ALL
SELECT 'CU039', 'critical', o.relid, o.schema, o.object, pg_catalog.format('policy %I believes what the user may edit himself', o.name),
       'user_metadata in a token is what its owner has written there: he names the tenant he wants to be.',
       pg_catalog.format('DROP POLICY %I ON %s;  -- and take the tenant from a claim that only the server sets', o.name, o.object)
FROM p o WHERE o.permissive AND o.constrained AND NOT o.floored AND 'editable' = ANY (o.origins)
GROUP BY o.relid, o.schema, o.object, o.policy, o.name
UNION ALL
SELECT 'CU013', 'high', a.relid, a.schema, a.object,
       'several permissive policies for one command and no restrictive one: ' || pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(a.name), ', '),
       'Permissive policies are joined with OR: the most generous decides, and each further one can only open more.',
       pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', a.root, a.tenant_column)
FROM p a
WHERE a.tenant AND a.permissive AND a.constrained AND NOT a.floored
  -- Another one, for a role that both are for.
  AND EXISTS (SELECT FROM p b
              WHERE b.relid = a.relid AND b.command = a.command AND b.policy <> a.policy AND b.permissive AND b.constrained AND NOT b.floored
                AND (0 = ANY (a.roles) OR 0 = ANY (b.roles)
                     OR EXISTS (SELECT FROM custody.constrained_reach x JOIN custody.constrained_reach y ON y.role = x.role
                                WHERE x.reached = ANY (a.roles) AND y.reached = ANY (b.roles))))
GROUP BY a.relid, a.schema, a.object, a.root, a.tenant_column
UNION ALL
SELECT 'CU017', 'critical', c.oid, n.name, pg_catalog.format('%I.%I', n.name, c.relname),
       pg_catalog.format('policies of %s read it, it is without row-level security, and it may be written: %s', pg_catalog.string_agg(DISTINCT s.object, ', '), w.privileges),
       'Who may write what a policy reads, writes himself into any tenant.', w.revoke
FROM source s
JOIN pg_catalog.pg_class c ON c.oid = s.source AND NOT c.relrowsecurity
JOIN custody.isolation_schema n ON n.oid = c.relnamespace
JOIN writes w ON w.relid = c.oid
GROUP BY c.oid, n.name, c.relname, w.privileges, w.revoke
UNION ALL
SELECT 'CU018', CASE WHEN EXISTS (SELECT FROM custody.privilege_to_plant) THEN 'critical' ELSE 'medium' END, NULL, l.schema, l.object,
       pg_catalog.format('policies of %s call it, and it names %s without a schema and without pg_temp at the end of its search_path', l.tables, pg_catalog.array_to_string(l.names, ', ')),
       'Who makes a temporary table of that name, or one in a schema that he puts first, decides what the policy reads.',
       pg_catalog.format('ALTER FUNCTION %s SET search_path = %s, pg_temp;', l.object,
         (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(x.schema), ', ')
          FROM (SELECT l.schema UNION SELECT n.name FROM pg_catalog.pg_class c JOIN custody.isolation_schema n ON n.oid = c.relnamespace WHERE c.relname::text = ANY (l.names)) x))
FROM loose l
UNION ALL
SELECT 'CU019', 'high', NULL, f.schema, f.object, pg_catalog.format('policies of %s call it, and it is %s', f.tables, CASE f.volatility WHEN 'i' THEN 'IMMUTABLE' ELSE 'VOLATILE' END),
       CASE f.volatility WHEN 'i' THEN 'PostgreSQL may work an immutable function out once and keep the answer in a plan, which then serves the next tenant.'
            ELSE 'PostgreSQL calls a volatile function for every row, can use no index with it, and the answer may change between two rows.' END,
       pg_catalog.format('ALTER FUNCTION %s STABLE;', f.object)
FROM f
WHERE f.volatility = 'v' OR f.volatility = 'i' AND (f.arguments = 0 OR NOT f.late OR f.text ~* '\m(current_setting|current_user|session_user|custody|from)\M')
UNION ALL
SELECT 'CU038', 'high', NULL, NULL, coalesce(pg_catalog.quote_ident(r.rolname), pg_catalog.quote_ident(d.datname), 'ALL'),
       pg_catalog.format('a default tenant: %s is set for %s', pg_catalog.split_part(s, '=', 1),
         pg_catalog.concat_ws(' in ', coalesce('role ' || pg_catalog.quote_ident(r.rolname), 'every role'), 'database ' || pg_catalog.quote_ident(d.datname))),
       'A session that sets no context acts for that tenant, instead of for none.',
       CASE WHEN r.oid IS NULL AND d.oid IS NOT NULL THEN pg_catalog.format('ALTER DATABASE %I RESET %s;', d.datname, n.name)
            ELSE pg_catalog.format('ALTER ROLE %s%s RESET %s;', coalesce(pg_catalog.quote_ident(r.rolname), 'ALL'), ' IN DATABASE ' || pg_catalog.quote_ident(d.datname), n.name) END
FROM pg_catalog.pg_db_role_setting g
CROSS JOIN LATERAL pg_catalog.unnest(g.setconfig) s
CROSS JOIN LATERAL (SELECT pg_catalog.split_part(s, '=', 1) AS name, pg_catalog.substr(s, pg_catalog.strpos(s, '=') + 1) AS value) n
LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = g.setdatabase
WHERE (g.setdatabase = 0 OR d.datname = pg_catalog.current_database()) AND (g.setrole = 0 OR g.setrole IN (SELECT c.role FROM custody.constrained_role c))
  AND n.value NOT IN ('', '""') AND (pg_catalog.lower(n.name) IN (SELECT e.name FROM setting e) OR n.name ~* '\..*tenant')
UNION ALL
SELECT 'CU038', 'high', NULL, NULL, g.name, pg_catalog.format('a default tenant: %s is set in %s', g.name, coalesce(g.sourcefile, g.source)),
       'A session that sets no context acts for that tenant, instead of for none.',
       CASE WHEN g.sourcefile ~ 'postgresql\.auto\.conf$' THEN pg_catalog.format('ALTER SYSTEM RESET %s;  -- then SELECT pg_reload_conf()', g.name)
            ELSE 'no SQL fixes this: take it out of the server''s configuration' END
FROM pg_catalog.pg_settings g JOIN setting e ON e.name = pg_catalog.lower(g.name)
WHERE g.reset_val <> '' AND g.source IN ('configuration file', 'command line', 'environment variable');
COMMENT ON VIEW custody.policy_finding IS 'Internal, for custody.coverage(): CU005, CU013 to CU019, CU037 to CU039';
