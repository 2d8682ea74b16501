-- Coverage: where the tenants of this database are not kept apart, read from the catalogs. The ids are stable.
--
--   CU001 critical  row-level security is off (partitioned tables included)
--   CU002 high      row-level security is not forced on the table's owner
--   CU003 critical  there are policies but row-level security is off (instead of CU001)
--   CU004 medium    row-level security is on and no permissive policy lets anybody in
--   CU005 critical  a permissive policy does not test the tenant column, and no restrictive one does it for it
--   CU006 high      no tenant column, and not registered shared
--   CU007 medium    the tenant column may be NULL
--   CU008 critical  a protected table's policy custody_floor is gone or altered
--   CU009 medium    a protected table's trigger "!custody_require_context" is missing, altered or not ENABLE ALWAYS
--   CU010 low       no index is led by the tenant column
--   CU011 medium    a unique, primary or exclusion key without the tenant column (low: all its columns are uuid)
--   CU012 high      a foreign key between two tenant tables without the tenant column
--   CU013 high      several permissive policies for one command and no restrictive floor
--   CU020 critical  a constrained role is SUPERUSER or BYPASSRLS
--   CU021 critical  a constrained role reaches such a role by membership
--   CU022 critical  a constrained role owns tables or is a member of their owner
--   CU023 critical  TRUNCATE granted
--   CU024 high      TRIGGER granted (medium: REFERENCES)
--   CU025 critical  a constrained role is, or reaches, a role with CREATEROLE or REPLICATION
--   CU026 critical  a constrained role reaches a predefined role that leaves SQL, or custody_admin
--                   (high: one that sees what others run, or custody_auditor)
--   CU027 high      SET or ALTER SYSTEM granted on a parameter that switches protection off
--   CU028 high      CREATE granted on a schema or the database (low: TEMP on the database)
--   CU029 high      a table registered shared may be written
--   CU030 critical  a readable view that shows a tenant table with its owner's rights
--                   (low: the owner is held by the table's own forced floor)
--   CU031 critical  a readable materialized view of tables that are not shared
--   CU032 critical  a partition or child of a tenant table with row-level security off or not forced (medium: nothing is granted on it)
--   CU033 high      a SECURITY DEFINER function whose owner row-level security does not hold (low: it does, or it is a trigger's)
--   CU034 critical  a readable foreign table
--   CU035 medium    a row trigger of an audited table that fires before the capture
--   CU036 high      a rewrite rule on a tenant table

-- Who is constrained, and what they hold.

CREATE VIEW custody.constrained_role AS
WITH RECURSIVE member AS (
  SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'custody_app'
  UNION
  SELECT m.member FROM member g JOIN pg_catalog.pg_auth_members m ON m.roleid = g.oid
)
SELECT r.oid AS role, r.rolname AS name, r.rolsuper AS superuser, r.rolbypassrls AS bypassrls
FROM member m JOIN pg_catalog.pg_roles r ON r.oid = m.oid;
COMMENT ON VIEW custody.constrained_role IS 'Internal, for custody.coverage(): custody_app and its members, direct or not: the roles that must see one tenant only';

-- NOINHERIT does not count: SET ROLE goes round it. A superuser is a finding itself, and has everything: it is not looked into.
CREATE VIEW custody.constrained_reach AS
WITH RECURSIVE reach AS (
  SELECT c.role, NULL::oid AS via, c.role AS reached FROM custody.constrained_role c WHERE NOT c.superuser
  UNION
  SELECT r.role, coalesce(r.via, m.roleid), m.roleid
  FROM reach r
  JOIN pg_catalog.pg_roles s ON s.oid = r.reached AND NOT s.rolsuper
  JOIN pg_catalog.pg_auth_members m ON m.member = r.reached
)
SELECT r.role, r.via, r.reached, w.rolname AS name, v.rolname AS via_name, g.rolname AS reached_name,
       -- The grant to take back is the one that leaves the constrained roles; each of those answers for its own.
       r.via IS NULL OR r.via = r.reached OR r.via NOT IN (SELECT c.role FROM custody.constrained_role c) AS answers
FROM reach r
JOIN pg_catalog.pg_roles w ON w.oid = r.role
JOIN pg_catalog.pg_roles g ON g.oid = r.reached
LEFT JOIN pg_catalog.pg_roles v ON v.oid = r.via;
COMMENT ON VIEW custody.constrained_reach IS 'Internal, for custody.coverage(): the roles that each constrained role is or may become, and by which of its memberships';

CREATE VIEW custody.constrained_grantee AS
SELECT 0::oid AS grantee, 'PUBLIC' AS sql
UNION
SELECT r.reached, pg_catalog.quote_ident(r.reached_name)
FROM custody.constrained_reach r JOIN pg_catalog.pg_roles g ON g.oid = r.reached AND NOT g.rolsuper
UNION
-- A member that no catalog row names: the database's owner.
SELECT g.oid, 'pg_database_owner'
FROM pg_catalog.pg_roles g
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
JOIN custody.constrained_reach r ON r.reached = d.datdba
JOIN pg_catalog.pg_roles o ON o.oid = d.datdba AND NOT o.rolsuper
WHERE g.rolname = 'pg_database_owner';
COMMENT ON VIEW custody.constrained_grantee IS 'Internal, for custody.coverage(): PUBLIC, and every role whose privileges a constrained role has';

CREATE VIEW custody.isolation_schema AS
SELECT n.oid, n.nspname AS name, n.nspacl AS acl, n.nspowner AS owner
FROM pg_catalog.pg_namespace n
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'custody') AND n.nspname !~ '^pg_(toast|temp)';
COMMENT ON VIEW custody.isolation_schema IS 'Internal, for custody.coverage(): the schemas it looks at, which is every one but the system''s and ours';

CREATE VIEW custody.constrained_privilege AS
SELECT c.oid AS relid, c.relkind AS kind, n.name AS schema, pg_catalog.format('%I.%I', n.name, c.relname) AS object, p.privilege, g.sql AS grantee,
       pg_catalog.format('REVOKE %s ON %I.%I FROM %s;', p.privilege, n.name, c.relname, g.sql) AS revoke
FROM pg_catalog.pg_class c
JOIN custody.isolation_schema n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT x.grantee, x.privilege_type AS privilege FROM pg_catalog.aclexplode(c.relacl) x
  UNION
  SELECT x.grantee, x.privilege_type
  FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
  WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
) p
JOIN custody.constrained_grantee g ON g.grantee = p.grantee
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND p.grantee <> c.relowner
UNION ALL
SELECT c.oid, c.relkind, n.name, pg_catalog.format('%I.%I', n.name, c.relname), w.privilege, r.reached_name,
       pg_catalog.format('REVOKE %I FROM %I;', coalesce(r.via_name, r.reached_name), r.name)
FROM custody.constrained_reach r
JOIN (VALUES ('pg_read_all_data', 'SELECT'), ('pg_write_all_data', 'INSERT'), ('pg_write_all_data', 'UPDATE'), ('pg_write_all_data', 'DELETE'))
  AS w (role, privilege) ON w.role = r.reached_name
CROSS JOIN pg_catalog.pg_class c
JOIN custody.isolation_schema n ON n.oid = c.relnamespace
WHERE r.answers AND c.relkind IN ('r', 'p', 'v', 'm', 'f');
COMMENT ON VIEW custody.constrained_privilege IS 'Internal, for custody.coverage(): what PUBLIC and the constrained roles may do with relations they do not own, on whole relations or on columns';

-- Tables and their policies.

CREATE VIEW custody.isolation_table AS
WITH RECURSIVE registration AS (
  SELECT r.target::oid AS relid, r.target::oid AS registered, r.kind, r.tenant_column FROM custody.registered_table r
  UNION ALL
  -- A partition is what its parent is registered as.
  SELECT i.inhrelid, g.registered, g.kind, g.tenant_column
  FROM registration g
  JOIN pg_catalog.pg_inherits i ON i.inhparent = g.relid
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
  WHERE i.inhrelid NOT IN (SELECT r.target FROM custody.registered_table r)
)
SELECT c.oid AS relid, n.name AS schema, pg_catalog.format('%I.%I', n.name, c.relname) AS object, c.relkind AS kind, c.relispartition AS partition,
       c.relowner AS owner, c.relrowsecurity AS rls, c.relforcerowsecurity AS forced,
       g.registered, coalesce(g.kind = 'protected', false) AS protected, coalesce(g.kind = 'shared', false) AS shared, g.tenant_column AS registered_column,
       a.attnum AS tenant_attnum, a.attname AS tenant_column, a.attnotnull AS tenant_not_null,
       a.attnum IS NOT NULL AS tenant,
       -- A child of another tenant table, which has the same column.
       EXISTS (SELECT FROM pg_catalog.pg_inherits i
               JOIN pg_catalog.pg_attribute b ON b.attrelid = i.inhparent AND b.attname = a.attname AND NOT b.attisdropped
               WHERE i.inhrelid = c.oid AND i.inhparent NOT IN (SELECT s.relid FROM registration s WHERE s.kind = 'shared')) AS child,
       (SELECT pg_catalog.format('%I.%I', m.nspname, r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace
        WHERE r.oid = coalesce(g.registered, pg_catalog.pg_partition_root(c.oid), c.oid)) AS root
FROM pg_catalog.pg_class c
JOIN custody.isolation_schema n ON n.oid = c.relnamespace
LEFT JOIN registration g ON g.relid = c.oid
LEFT JOIN LATERAL (
  SELECT t.attnum, t.attname, t.attnotnull
  FROM pg_catalog.pg_attribute t
  WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped AND g.kind IS DISTINCT FROM 'shared'
    AND CASE WHEN g.kind = 'protected' THEN t.attname = g.tenant_column
             ELSE t.attname = 'tenant_id' OR t.attname IN (SELECT r.tenant_column FROM custody.registered_table r WHERE r.tenant_column IS NOT NULL) END
  ORDER BY t.attname <> 'tenant_id', t.attnum LIMIT 1
) a ON true
WHERE c.relkind IN ('r', 'p');
COMMENT ON VIEW custody.isolation_table IS 'Internal, for custody.coverage(): every table in its schemas, how it is registered and which column says whose a row is';

-- One row per policy and command (r, a, w, d as in pg_policy). An expression tests the tenant if it depends on the tenant column and
-- compares it with something other than the row itself; with no such column, anything but a constant is left to CU006.
CREATE VIEW custody.isolation_policy AS
SELECT t.relid, t.schema, t.object, t.root, t.tenant, t.tenant_column, t.child, p.oid AS policy, p.polname AS name, p.polroles AS roles, p.polpermissive AS permissive,
       p.constrained, w.command,
       -- Lets a constrained role at some rows.
       p.polpermissive AND p.constrained
         AND (w.command <> 'a' AND NOT j.using_never OR w.command IN ('a', 'w') AND NOT j.check_never) AS grants,
       -- Lets it at rows of any tenant.
       p.polpermissive AND p.constrained
         AND (w.command <> 'a' AND NOT j.using_never AND NOT j.using_tests OR w.command IN ('a', 'w') AND NOT j.check_never AND NOT j.check_tests) AS open,
       -- Holds everybody to one tenant, whatever the permissive policies say.
       NOT p.polpermissive AND 0 = ANY (p.polroles)
         AND (w.command = 'a' OR j.using_tests) AND (w.command NOT IN ('a', 'w') OR j.check_tests) AS floor
FROM custody.isolation_table t
JOIN (SELECT y.*, y.polroles && ARRAY(SELECT g.grantee FROM custody.constrained_grantee g) AS constrained FROM pg_catalog.pg_policy y) p
  ON p.polrelid = t.relid
CROSS JOIN LATERAL (
  SELECT coalesce(pg_catalog.bool_or(e.tests) FILTER (WHERE e.which = 'using'), false) AS using_tests,
         coalesce(pg_catalog.bool_or(e.tests) FILTER (WHERE e.which = 'check'), false) AS check_tests,
         coalesce(pg_catalog.bool_or(e.never) FILTER (WHERE e.which = 'using'), true) AS using_never,
         coalesce(pg_catalog.bool_or(e.never) FILTER (WHERE e.which = 'check'), true) AS check_never
  FROM (
    SELECT x.which, pg_catalog.pg_get_expr(x.expression, p.polrelid) = 'false' AS never,
           CASE WHEN t.tenant_attnum IS NULL THEN x.expression::text ~ '\{(VAR|SUBLINK) '
                ELSE x.expression::text ~ pg_catalog.format(':varattno %s ', t.tenant_attnum)
                     AND x.expression::text ~ '\{(FUNCEXPR|SUBLINK|SQLVALUEFUNCTION|CONST|PARAM) '
                     AND EXISTS (SELECT FROM pg_catalog.pg_depend d
                                 WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
                                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = p.polrelid
                                   AND d.refobjsubid = t.tenant_attnum) END AS tests
    FROM (VALUES ('using', p.polqual), ('check', coalesce(p.polwithcheck, p.polqual))) AS x (which, expression)
    WHERE x.expression IS NOT NULL
  ) e
) j
CROSS JOIN (VALUES ('r'), ('a'), ('w'), ('d')) AS w (command)
WHERE NOT t.shared AND p.polcmd::text IN ('*', w.command);
COMMENT ON VIEW custody.isolation_policy IS 'Internal, for custody.coverage(): what each policy of a table that is not shared lets a constrained role do, command by command';

-- The findings, a view for each family. problem is the short reason, consequence what it lets happen.

CREATE VIEW custody.table_finding AS
WITH t AS MATERIALIZED (
  SELECT i.*,
         CASE WHEN i.tenant THEN pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', i.root, i.tenant_column) END AS protect,
         CASE WHEN i.child THEN pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;', i.object)
              WHEN i.tenant THEN pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', i.root, i.tenant_column)
              ELSE pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;  -- closes it to tenants; or, if every tenant may read all of it: SELECT custody.register_shared(%L, ''why'');', i.object, i.root)
              END AS close
  FROM custody.isolation_table i WHERE NOT i.shared
),
policy AS MATERIALIZED (
  SELECT p.relid, pg_catalog.bool_or(p.permissive) AS permissive, pg_catalog.bool_or(p.grants) AS grants FROM custody.isolation_policy p GROUP BY p.relid
),
granted AS MATERIALIZED (
  SELECT p.relid, pg_catalog.string_agg(DISTINCT p.grantee, ', ') AS grantees,
         pg_catalog.bool_or(p.privilege IN ('INSERT', 'UPDATE', 'DELETE')) AS writes
  FROM custody.constrained_privilege p
  WHERE p.kind IN ('r', 'p') AND p.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') GROUP BY p.relid
),
-- The expressions that custody.protect writes, as pg_get_expr prints them; a column that is not of the function's own type is cast.
floor AS (
  SELECT p.polrelid AS relid
  FROM t
  JOIN pg_catalog.pg_policy p ON p.polrelid = t.relid AND p.polname = 'custody_floor'
  CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS qual, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS chk) e
  WHERE NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}' AND coalesce(e.chk, e.qual) = e.qual
    AND e.qual IN (SELECT pg_catalog.format(s.shape, t.tenant_column, n.name)
                   FROM (VALUES ('(%I = custody.%s())'), ('((%I)::text = custody.%s())'), ('((%I)::uuid = custody.%s())'),
                                ('((%I)::integer = custody.%s())'), ('((%I)::bigint = custody.%s())')) AS s (shape)
                   CROSS JOIN (VALUES ('tenant'), ('tenant_uuid'), ('tenant_int'), ('tenant_bigint')) AS n (name))
)
SELECT CASE WHEN p.relid IS NULL THEN 'CU001' ELSE 'CU003' END AS id, 'critical' AS severity, t.relid, t.schema, t.object,
       CASE WHEN p.relid IS NULL THEN 'row-level security is off' ELSE 'there are policies, but row-level security is off' END AS problem,
       CASE WHEN p.relid IS NULL THEN 'Whoever may read the table reads the rows of every tenant.'
            ELSE 'PostgreSQL ignores policies until row-level security is enabled: whoever may read the table reads the rows of every tenant.' END
         || CASE WHEN g.relid IS NOT NULL THEN ' Granted today to: ' || g.grantees || '.' ELSE '' END AS consequence,
       t.close AS fix
FROM t LEFT JOIN policy p USING (relid) LEFT JOIN granted g USING (relid)
WHERE NOT t.rls AND NOT t.child
UNION ALL
SELECT 'CU002', 'high', t.relid, t.schema, t.object, 'row-level security is not forced',
       'The policies do not bind the table''s owner, nor views and SECURITY DEFINER functions that run with the owner''s rights.',
       pg_catalog.format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', t.object)
FROM t WHERE t.rls AND NOT t.forced AND NOT t.child
UNION ALL
SELECT 'CU004', 'medium', t.relid, t.schema, t.object, 'no permissive policy',
       'Row-level security is on and no policy lets anybody in: reads find nothing and inserts fail. If that is meant, say so with a policy: CREATE POLICY nobody … USING (false).',
       coalesce(t.protect, pg_catalog.format('CREATE POLICY nobody ON %s USING (false);', t.object))
FROM t LEFT JOIN policy p USING (relid)
WHERE t.rls AND NOT t.child AND NOT coalesce(p.permissive, false)
UNION ALL
-- A table that is closed to the constrained roles needs no tenant column.
SELECT 'CU006', 'high', t.relid, t.schema, t.object,
       CASE WHEN t.protected THEN pg_catalog.format('its registered tenant column %I is gone', t.registered_column)
            ELSE 'no tenant column, and not registered shared' END,
       CASE WHEN t.protected THEN 'It was renamed or dropped since, and nothing here can tell any more whose a row is.'
            ELSE 'Nothing in a row says whose it is, so no policy can keep the tenants apart.' END,
       CASE WHEN t.protected THEN pg_catalog.format('SELECT custody.unprotect(%L);  -- then custody.protect it by the column that says whose a row is', t.root)
            ELSE pg_catalog.format('no SQL fixes this: add a tenant column, fill it and SELECT * FROM custody.protect(%L); or, only if every tenant may read all of it, SELECT custody.register_shared(%1$L, ''why'')', t.root) END
FROM t LEFT JOIN policy p USING (relid)
WHERE NOT t.tenant AND (t.protected OR NOT t.rls OR NOT t.forced OR coalesce(p.grants, false))
  -- The root answers for partitions that are CU001 already.
  AND (NOT t.partition OR t.rls OR t.object = t.root)
UNION ALL
SELECT 'CU007', 'medium', t.relid, t.schema, t.object, pg_catalog.format('tenant column %I may be NULL', t.tenant_column),
       'A row without a tenant belongs to nobody: it disappears for all, or appears to all if a policy admits NULL.',
       pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL;  -- first find whose the rows are in which it is NULL', t.object, t.tenant_column)
FROM t WHERE t.tenant AND NOT t.tenant_not_null AND NOT t.partition
UNION ALL
SELECT 'CU008', 'critical', t.relid, t.schema, t.object, 'the restrictive policy custody_floor is gone or not as custody.protect made it',
       'Any other permissive policy, now or later, may then open the rows of other tenants.',
       pg_catalog.format('DROP POLICY IF EXISTS custody_floor ON %s; ', t.object) || t.protect
FROM t LEFT JOIN policy p USING (relid)
-- A partition without a policy of its own is reached through its parent only.
WHERE t.protected AND t.tenant AND t.relid NOT IN (SELECT f.relid FROM floor f) AND (t.registered = t.relid OR t.rls AND coalesce(p.permissive, false))
UNION ALL
SELECT 'CU009', 'medium', t.relid, t.schema, t.object, 'the trigger "!custody_require_context" is missing, altered or not ENABLE ALWAYS',
       'An UPDATE or DELETE in a transaction that acts for no tenant then changes nothing, and says so to nobody.',
       pg_catalog.format('DROP TRIGGER IF EXISTS "!custody_require_context" ON %s; ', t.object) || t.protect
FROM t LEFT JOIN granted g USING (relid)
WHERE t.protected AND t.tenant AND (t.registered = t.relid OR coalesce(g.writes, false))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger r
                  WHERE r.tgrelid = t.relid AND r.tgname = '!custody_require_context' AND r.tgfoid = 'custody.require_context()'::pg_catalog.regprocedure
                    AND r.tgenabled = 'A' AND r.tgtype & 1 = 0 AND r.tgtype & 28 = 28 AND r.tgqual IS NULL)
UNION ALL
SELECT 'CU032', CASE WHEN g.relid IS NULL THEN 'medium' ELSE 'critical' END, t.relid, t.schema, t.object,
       CASE WHEN t.rls THEN 'row-level security is not forced on this partition or child' ELSE 'row-level security is off on this partition or child' END,
       'The parent''s policies do not hold for queries that name the child itself'
         || CASE WHEN g.relid IS NULL THEN '; today nobody constrained may.' ELSE ', which is granted to: ' || g.grantees || '.' END,
       t.close
FROM t LEFT JOIN granted g USING (relid)
WHERE t.child AND NOT (t.rls AND t.forced);
COMMENT ON VIEW custody.table_finding IS 'Internal, for custody.coverage(): CU001 to CU004, CU006 to CU009, CU032';

CREATE VIEW custody.policy_finding AS
WITH p AS MATERIALIZED (SELECT * FROM custody.isolation_policy),
floor AS (SELECT DISTINCT f.relid, f.command FROM p f WHERE f.floor)
SELECT 'CU005' AS id, 'critical' AS severity, p.relid, p.schema, p.object,
       pg_catalog.format('policy %I does not test ', p.name) || CASE WHEN p.tenant THEN 'the tenant column ' || pg_catalog.quote_ident(p.tenant_column) ELSE 'anything of the row' END AS problem,
       pg_catalog.format('It opens rows of every tenant: permissive policies add up, and no restrictive policy for all narrows this one. %s',
                         coalesce('USING ' || pg_catalog.pg_get_expr(y.polqual, y.polrelid), '') || coalesce(' WITH CHECK ' || pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid), '')) AS consequence,
       pg_catalog.format('DROP POLICY %I ON %s;', p.name, p.object)
         || CASE WHEN p.tenant THEN pg_catalog.format('  -- or lay a floor under it: SELECT * FROM custody.protect(%L, %L);', p.root, p.tenant_column) ELSE '' END AS fix
FROM (SELECT DISTINCT o.relid, o.schema, o.object, o.root, o.tenant, o.tenant_column, o.policy, o.name
      FROM p o WHERE o.open AND (o.relid, o.command) NOT IN (SELECT f.relid, f.command FROM floor f)) p
JOIN pg_catalog.pg_policy y ON y.oid = p.policy
UNION ALL
SELECT 'CU013', 'high', a.relid, a.schema, a.object,
       'several permissive policies for one command and no restrictive one: ' || pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(a.name), ', '),
       'Permissive policies are joined with OR: the most generous decides, and each further one can only open more.',
       pg_catalog.format('SELECT * FROM custody.protect(%L, %L);', a.root, a.tenant_column)
FROM p a
WHERE a.tenant AND a.permissive AND a.constrained AND (a.relid, a.command) NOT IN (SELECT f.relid, f.command FROM floor f)
  -- Another one, for a role that both are for.
  AND EXISTS (SELECT FROM p b
              WHERE b.relid = a.relid AND b.command = a.command AND b.policy <> a.policy AND b.permissive AND b.constrained
                AND (0 = ANY (a.roles) OR 0 = ANY (b.roles)
                     OR EXISTS (SELECT FROM custody.constrained_reach x JOIN custody.constrained_reach y ON y.role = x.role
                                WHERE x.reached = ANY (a.roles) AND y.reached = ANY (b.roles))))
GROUP BY a.relid, a.schema, a.object, a.root, a.tenant_column;
COMMENT ON VIEW custody.policy_finding IS 'Internal, for custody.coverage(): CU005, CU013';

-- Indexes and keys. What a partition has from its parent is the parent's finding.
CREATE VIEW custody.key_finding AS
WITH t AS MATERIALIZED (SELECT i.relid, i.schema, i.object, i.kind, i.partition, i.tenant_attnum, i.tenant_column FROM custody.isolation_table i WHERE i.tenant)
SELECT 'CU010' AS id, 'low' AS severity, t.relid, t.schema, t.object, pg_catalog.format('no index is led by the tenant column %I', t.tenant_column) AS problem,
       'Every query is narrowed to one tenant; without the index each reads the rows of all.' AS consequence,
       pg_catalog.format('CREATE INDEX ON %s (%I);', t.object, t.tenant_column) AS fix
FROM t
WHERE NOT t.partition
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = t.relid AND x.indkey[0] = t.tenant_attnum AND x.indisvalid AND x.indpred IS NULL)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table q WHERE q.partrelid = t.relid AND q.partstrat = 'l' AND q.partattrs[0] = t.tenant_attnum)
UNION ALL
SELECT 'CU011', CASE WHEN k.uuids THEN 'low' ELSE 'medium' END, t.relid, t.schema, t.object,
       pg_catalog.format('key %I is unique across tenants: it lacks %I', c.relname, t.tenant_column),
       'A tenant that writes a value learns from the error that another has it, and is refused what is free in its own rows.',
       CASE WHEN n.oid IS NULL
            THEN pg_catalog.format('DROP INDEX %I.%I; %s;', t.schema, c.relname,
                   pg_catalog.regexp_replace(pg_catalog.replace(d.definition, ' ON ONLY ', ' ON '), ' USING (\w+) \(', pg_catalog.format(' USING \1 (%I, ', t.tenant_column)))
            ELSE CASE WHEN n.contype = 'x' THEN 'CREATE EXTENSION IF NOT EXISTS btree_gist; ' ELSE '' END
              || pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I %s;', t.object, n.conname,
                   pg_catalog.regexp_replace(d.definition, '\(', pg_catalog.format('(%I%s, ', t.tenant_column, CASE WHEN n.contype = 'x' THEN ' WITH =' ELSE '' END)))
              || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conindid = x.indexrelid)
                      THEN '  -- foreign keys that refer to it must be dropped first, and made again with the tenant column' ELSE '' END END
FROM t
JOIN pg_catalog.pg_index x ON x.indrelid = t.relid AND (x.indisunique OR x.indisexclusion)
JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid AND NOT c.relispartition
LEFT JOIN pg_catalog.pg_constraint n ON n.conindid = x.indexrelid AND n.conrelid = t.relid AND n.contype IN ('p', 'u', 'x')
CROSS JOIN LATERAL (SELECT CASE WHEN n.oid IS NULL THEN pg_catalog.pg_get_indexdef(x.indexrelid) ELSE pg_catalog.pg_get_constraintdef(n.oid) END AS definition) d
CROSS JOIN LATERAL (
  SELECT coalesce(pg_catalog.bool_or(u.attnum = t.tenant_attnum), false) AS has_tenant,
         coalesce(pg_catalog.bool_and(a.atttypid IS NOT DISTINCT FROM 'uuid'::pg_catalog.regtype), false) AS uuids
  FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY AS u (attnum, place)
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relid AND a.attnum = u.attnum
  WHERE u.place <= x.indnkeyatts
) k
WHERE NOT k.has_tenant
UNION ALL
SELECT 'CU012', 'high', t.relid, t.schema, t.object,
       pg_catalog.format('foreign key %I to %s lacks the tenant column', n.conname, r.object),
       'Foreign keys are checked without row-level security: a row may refer to another tenant''s, the error tells which exist, and cascades cross over.',
       CASE WHEN t.tenant_attnum = ANY (n.conkey) OR r.tenant_attnum = ANY (n.confkey)
            THEN pg_catalog.format('no SQL fixes this: %I of %s must refer to %I of %s, and it is there for something else', t.tenant_column, t.object, r.tenant_column, r.object)
            ELSE CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index x
                         WHERE x.indrelid = r.relid AND x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL AND x.indnkeyatts = pg_catalog.cardinality(n.confkey) + 1
                           AND x.indkey::int2[] @> (n.confkey || r.tenant_attnum)) THEN ''
            ELSE pg_catalog.format('ALTER TABLE %s ADD UNIQUE (%I, %s); ', r.object, r.tenant_column, k.referenced) END
         || pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I FOREIGN KEY (%I, %s) REFERENCES %s (%I, %s)%s%s%s%s;',
              t.object, n.conname, t.tenant_column, k.referring, r.object, r.tenant_column, k.referenced,
              CASE n.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END,
              CASE n.confupdtype WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'r' THEN ' ON UPDATE RESTRICT' ELSE '' END,
              -- SET NULL and SET DEFAULT must leave the tenant alone.
              CASE n.confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' WHEN 'r' THEN ' ON DELETE RESTRICT'
                WHEN 'n' THEN ' ON DELETE SET NULL (' || k.referring || ')' WHEN 'd' THEN ' ON DELETE SET DEFAULT (' || k.referring || ')' ELSE '' END,
              CASE WHEN n.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' WHEN n.condeferrable THEN ' DEFERRABLE' ELSE '' END) END
FROM pg_catalog.pg_constraint n
JOIN t ON t.relid = n.conrelid
JOIN t r ON r.relid = n.confrelid
CROSS JOIN LATERAL (
  SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY u.place) AS referring,
         pg_catalog.string_agg(pg_catalog.quote_ident(b.attname), ', ' ORDER BY u.place) AS referenced,
         pg_catalog.bool_or(u.attnum = t.tenant_attnum AND n.confkey[u.place] = r.tenant_attnum) AS has_tenant
  FROM pg_catalog.unnest(n.conkey) WITH ORDINALITY AS u (attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = n.conrelid AND a.attnum = u.attnum
  JOIN pg_catalog.pg_attribute b ON b.attrelid = n.confrelid AND b.attnum = n.confkey[u.place]
) k
WHERE n.contype = 'f' AND n.conparentid = 0 AND NOT k.has_tenant;
COMMENT ON VIEW custody.key_finding IS 'Internal, for custody.coverage(): CU010 to CU012';

-- What the constrained roles are. One row for each role and grant to take back.
CREATE VIEW custody.role_finding AS
WITH reach AS MATERIALIZED (SELECT * FROM custody.constrained_reach),
owned AS (
  -- A superuser's tables are reached through CU021.
  SELECT r.role, r.via, r.name, r.via_name, r.reached_name,
         pg_catalog.array_to_string((pg_catalog.array_agg(t.object ORDER BY t.object))[:3], ', ')
           || CASE WHEN pg_catalog.count(*) > 3 THEN pg_catalog.format(' and %s more', pg_catalog.count(*) - 3) ELSE '' END AS examples
  FROM reach r
  JOIN pg_catalog.pg_roles o ON o.oid = r.reached AND NOT o.rolsuper
  JOIN custody.isolation_table t ON t.owner = r.reached
  WHERE r.answers GROUP BY r.role, r.via, r.name, r.via_name, r.reached_name
),
predefined AS (
  SELECT * FROM (VALUES
    ('pg_read_server_files', 'critical', 'reads files of the server, and so every table''s'),
    ('pg_write_server_files', 'critical', 'writes files of the server, and so whatever it likes'),
    ('pg_execute_server_program', 'critical', 'runs programs as the server''s own user'),
    ('custody_admin', 'critical', 'decides which role acts for which tenant'),
    ('custody_auditor', 'high', 'reads every tenant''s log'),
    ('pg_monitor', 'high', 'sees the statements of all sessions, with the other tenants'' values in them'),
    ('pg_read_all_stats', 'high', 'sees the statements of all sessions, with the other tenants'' values in them'),
    ('pg_signal_backend', 'high', 'cancels and ends the sessions of others')) AS w (name, severity, power)
)
SELECT 'CU020' AS id, 'critical' AS severity, NULL::oid AS relid, NULL::name AS schema, pg_catalog.quote_ident(c.name) AS object,
       pg_catalog.format('constrained role %I is ', c.name) || CASE WHEN c.superuser THEN 'SUPERUSER' ELSE 'BYPASSRLS' END AS problem,
       'Row-level security does not exist for such a role: it reads and writes the rows of every tenant.' AS consequence,
       pg_catalog.format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;  -- or, if no application uses it, take it out of custody_app and the roles in between', c.name) AS fix
FROM custody.constrained_role c WHERE c.superuser OR c.bypassrls
UNION ALL
SELECT 'CU021', 'critical', NULL, NULL, pg_catalog.quote_ident(r.name),
       pg_catalog.format('constrained role %I may become %s by its membership in %I', r.name, pg_catalog.string_agg(pg_catalog.quote_ident(r.reached_name), ', ' ORDER BY r.reached_name), r.via_name),
       'One SET ROLE, and row-level security no longer applies: the role reached is SUPERUSER or BYPASSRLS.',
       pg_catalog.format('REVOKE %I FROM %I;', r.via_name, r.name)
FROM reach r JOIN pg_catalog.pg_roles g ON g.oid = r.reached
WHERE r.answers AND r.via IS NOT NULL AND (g.rolsuper OR g.rolbypassrls) GROUP BY r.name, r.via_name
UNION ALL
SELECT 'CU022', 'critical', NULL, NULL, pg_catalog.quote_ident(o.name),
       CASE WHEN o.via IS NULL THEN pg_catalog.format('constrained role %I owns tables: %s', o.name, o.examples)
            ELSE pg_catalog.format('constrained role %I may become %I, which owns tables: %s', o.name, o.reached_name, o.examples) END,
       'An owner disables row-level security, drops policies and truncates, on its own tables, whenever it likes.',
       CASE WHEN o.via IS NULL THEN pg_catalog.format('REASSIGN OWNED BY %I TO CURRENT_USER;  -- better: to a role of its own that no application uses', o.name)
            ELSE pg_catalog.format('REVOKE %I FROM %I;', o.via_name, o.name) END
FROM owned o WHERE o.via IS NULL OR o.via NOT IN (SELECT c.role FROM custody.constrained_role c)
UNION ALL
SELECT 'CU025', 'critical', NULL, NULL, pg_catalog.quote_ident(r.name),
       pg_catalog.format('constrained role %I %s%s', r.name, CASE WHEN r.via IS NULL THEN 'is ' ELSE pg_catalog.format('may become %I, which is ', r.reached_name) END,
                         pg_catalog.concat_ws(' and ', CASE WHEN g.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN g.rolreplication THEN 'REPLICATION' END)),
       pg_catalog.concat_ws(' ', CASE WHEN g.rolcreaterole THEN 'CREATEROLE grants itself membership in any role that is not a superuser.' END,
                                 CASE WHEN g.rolreplication THEN 'REPLICATION streams the changes, or a copy, of every tenant.' END),
       CASE WHEN r.via IS NULL THEN pg_catalog.format('ALTER ROLE %I NOCREATEROLE NOREPLICATION;', r.name) ELSE pg_catalog.format('REVOKE %I FROM %I;', r.via_name, r.name) END
FROM reach r JOIN pg_catalog.pg_roles g ON g.oid = r.reached
WHERE r.answers AND (g.rolcreaterole OR g.rolreplication) AND NOT g.rolsuper
  AND (r.via IS NULL OR r.via NOT IN (SELECT c.role FROM custody.constrained_role c))
UNION ALL
SELECT 'CU026', w.severity, NULL, NULL, pg_catalog.quote_ident(r.name),
       pg_catalog.format('constrained role %I is a member of %I', r.name, r.reached_name) || CASE WHEN r.via <> r.reached THEN pg_catalog.format(' by way of %I', r.via_name) ELSE '' END,
       pg_catalog.format('A member of %I %s.', r.reached_name, w.power),
       pg_catalog.format('REVOKE %I FROM %I;', r.via_name, r.name)
FROM reach r JOIN predefined w ON w.name = r.reached_name
-- Those that pg_monitor brings are its own row.
WHERE r.answers AND r.via IS NOT NULL
  AND NOT (r.reached_name = 'pg_read_all_stats' AND EXISTS (SELECT FROM reach m WHERE m.role = r.role AND m.via = r.via AND m.reached_name = 'pg_monitor'))
  AND NOT (r.reached_name = 'custody_auditor' AND EXISTS (SELECT FROM reach m WHERE m.role = r.role AND m.via = r.via AND m.reached_name = 'custody_admin'));
COMMENT ON VIEW custody.role_finding IS 'Internal, for custody.coverage(): CU020 to CU022, CU025, CU026';

-- What they, or PUBLIC, were granted.
CREATE VIEW custody.privilege_finding AS
WITH p AS MATERIALIZED (
  SELECT q.relid, q.schema, q.object, q.privilege, pg_catalog.string_agg(DISTINCT q.grantee, ', ') AS grantees, pg_catalog.string_agg(DISTINCT q.revoke, ' ') AS revoke
  FROM custody.constrained_privilege q WHERE q.kind IN ('r', 'p') AND q.privilege <> 'SELECT' GROUP BY q.relid, q.schema, q.object, q.privilege
)
SELECT w.id, w.severity, p.relid, p.schema, p.object, pg_catalog.format('%s granted to %s', p.privilege, p.grantees) AS problem, w.consequence, p.revoke AS fix
FROM p
JOIN (VALUES
  ('TRUNCATE', 'CU023', 'critical', 'TRUNCATE does not ask row-level security: it empties the table for every tenant.'),
  ('TRIGGER', 'CU024', 'high', 'A trigger that is planted here runs in the transactions of other tenants, on their rows.'),
  ('REFERENCES', 'CU024', 'medium', 'A foreign key to the table tells which keys exist in other tenants, and keeps their rows from being deleted.'))
  AS w (privilege, id, severity, consequence) USING (privilege)
UNION ALL
SELECT 'CU027', 'high', NULL, NULL, g.sql, pg_catalog.format('%s on parameter %s granted to %s', pg_catalog.string_agg(x.privilege_type, ' and ' ORDER BY x.privilege_type), a.parname, g.sql),
       CASE WHEN a.parname = 'session_replication_role' THEN 'Set to replica, it switches off triggers, foreign keys and every audit trail made of triggers.'
            ELSE 'The parameter is kept from ordinary roles because it loads code, weakens checks or reconfigures the server.' END,
       pg_catalog.format('REVOKE %s ON PARAMETER %s FROM %s;', pg_catalog.string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), a.parname, g.sql)
FROM pg_catalog.pg_parameter_acl a
CROSS JOIN LATERAL pg_catalog.aclexplode(a.paracl) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE x.privilege_type = 'ALTER SYSTEM'
   OR a.parname IN ('session_replication_role', 'allow_system_table_mods', 'lo_compat_privileges', 'session_preload_libraries', 'dynamic_library_path',
                    'ignore_checksum_failure', 'zero_damaged_pages', 'ignore_system_indexes', 'jit_provider')
   OR a.parname ~ '^(custody|pgaudit)\.'
GROUP BY a.parname, g.sql
UNION ALL
SELECT 'CU028', 'high', NULL, n.name, pg_catalog.quote_ident(n.name), pg_catalog.format('CREATE on the schema granted to %s', pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql)),
       'What is created there stands in the way of the names that others look up, and gives triggers and functions a place.',
       pg_catalog.string_agg(pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.name, g.sql), ' ' ORDER BY g.sql)
FROM custody.isolation_schema n
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.acl, pg_catalog.acldefault('n', n.owner))) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE x.privilege_type = 'CREATE' GROUP BY n.name
UNION ALL
SELECT 'CU028', CASE x.privilege_type WHEN 'CREATE' THEN 'high' ELSE 'low' END, NULL, NULL, pg_catalog.quote_ident(d.datname),
       pg_catalog.format('%s on the database granted to %s', x.privilege_type, pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql)),
       CASE x.privilege_type WHEN 'CREATE' THEN 'Schemas of its own give a role a place for triggers and functions.'
            ELSE 'A temporary table hides the table of the same name from functions that do not qualify it, and outlives the transaction on a pooled connection.' END,
       pg_catalog.string_agg(pg_catalog.format('REVOKE %s ON DATABASE %I FROM %s;', x.privilege_type, d.datname, g.sql), ' ' ORDER BY g.sql)
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE d.datname = pg_catalog.current_database() AND x.privilege_type IN ('CREATE', 'TEMPORARY') GROUP BY d.datname, x.privilege_type
UNION ALL
SELECT 'CU029', 'high', p.relid, p.schema, p.object, pg_catalog.format('registered shared, but open to writing: %s', pg_catalog.string_agg(p.privilege || ' to ' || p.grantees, ', ' ORDER BY p.privilege)),
       'One tenant changes what all others read.',
       pg_catalog.string_agg(p.revoke, ' ' ORDER BY p.privilege)
FROM p JOIN custody.isolation_table t USING (relid)
WHERE t.shared AND p.privilege IN ('INSERT', 'UPDATE', 'DELETE') GROUP BY p.relid, p.schema, p.object;
COMMENT ON VIEW custody.privilege_finding IS 'Internal, for custody.coverage(): CU023, CU024, CU027 to CU029';

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

CREATE VIEW custody.finding AS
SELECT * FROM custody.table_finding
UNION ALL SELECT * FROM custody.policy_finding
UNION ALL SELECT * FROM custody.key_finding
UNION ALL SELECT * FROM custody.role_finding
UNION ALL SELECT * FROM custody.privilege_finding
UNION ALL SELECT * FROM custody.object_finding;
COMMENT ON VIEW custody.finding IS 'Internal, for custody.coverage(), which is how to read it: every finding';
