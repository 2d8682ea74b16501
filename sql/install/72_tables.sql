-- Coverage of tables and their keys. problem is the short reason, consequence what it lets happen.

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
  SELECT p.relid, pg_catalog.bool_or(p.permissive) AS permissive, pg_catalog.bool_or(p.grants) AS grants, pg_catalog.bool_and(p.otherwise) FILTER (WHERE p.grants) AS otherwise,
         pg_catalog.bool_or(p.grants AND NOT p.floored AND 'null' = ANY (p.origins)) AS nulls,
         pg_catalog.string_agg(DISTINCT p.command, '') FILTER (WHERE p.grants) AS commands
  FROM custody.isolation_policy p GROUP BY p.relid
),
granted AS MATERIALIZED (
  SELECT p.relid, pg_catalog.string_agg(DISTINCT p.grantee, ', ') AS grantees,
         pg_catalog.bool_or(p.privilege IN ('INSERT', 'UPDATE', 'DELETE')) AS writes, pg_catalog.array_agg(DISTINCT p.privilege) AS privileges
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
SELECT 'CU006', CASE WHEN NOT t.protected AND t.rls AND t.forced AND coalesce(p.otherwise, false) THEN 'low' ELSE 'high' END, t.relid, t.schema, t.object,
       CASE WHEN t.protected THEN pg_catalog.format('its registered tenant column %I is gone', t.registered_column)
            ELSE 'no tenant column, and not registered shared' END,
       CASE WHEN NOT t.protected AND t.rls AND t.forced AND coalesce(p.otherwise, false) THEN 'Its policies hold another column to the session; whether that keeps the tenants apart, only its name can tell.'
            WHEN t.protected THEN 'It was renamed or dropped since, and nothing here can tell any more whose a row is.'
            ELSE 'Nothing in a row says whose it is, so no policy can keep the tenants apart.' END,
       CASE WHEN t.protected THEN pg_catalog.format('SELECT custody.unprotect(%L);  -- then custody.protect it by the column that says whose a row is', t.root)
            ELSE pg_catalog.format('no SQL fixes this: add a tenant column, fill it and SELECT * FROM custody.protect(%L); or, only if every tenant may read all of it, SELECT custody.register_shared(%1$L, ''why'')', t.root) END
FROM t LEFT JOIN policy p USING (relid)
WHERE NOT t.tenant AND (t.protected OR NOT t.rls OR NOT t.forced OR coalesce(p.grants, false))
  -- The root answers for partitions that are CU001 already.
  AND (NOT t.partition OR t.rls OR t.object = t.root)
UNION ALL
SELECT 'CU007', CASE WHEN coalesce(p.nulls, false) THEN 'critical' ELSE 'medium' END, t.relid, t.schema, t.object,
       pg_catalog.format('tenant column %I may be NULL', t.tenant_column) || CASE WHEN coalesce(p.nulls, false) THEN ', and a policy admits such rows' ELSE '' END,
       CASE WHEN coalesce(p.nulls, false) THEN 'A row without a tenant is everybody''s: one tenant writes what all others read, if the policy lets it be written.'
            ELSE 'A row without a tenant belongs to nobody: it disappears for all, or appears to all if a policy admits NULL.' END,
       pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL;  -- first find whose the rows are in which it is NULL', t.object, t.tenant_column)
FROM t LEFT JOIN policy p USING (relid) WHERE t.tenant AND NOT t.tenant_not_null AND NOT t.partition
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
SELECT 'CU032', CASE WHEN g.relid IS NULL THEN 'low' ELSE 'critical' END, t.relid, t.schema, t.object,
       CASE WHEN t.rls THEN 'row-level security is not forced on this partition or child' ELSE 'row-level security is off on this partition or child' END,
       'The parent''s policies do not hold for queries that name the child itself'
         || CASE WHEN g.relid IS NULL THEN '; today nobody constrained may.' ELSE ', which is granted to: ' || g.grantees || '.' END,
       t.close
FROM t LEFT JOIN granted g USING (relid)
WHERE t.child AND NOT (t.rls AND t.forced)
UNION ALL
SELECT 'CU049', 'low', t.relid, t.schema, t.object, pg_catalog.format('tenant column %I may be updated by %s', t.tenant_column, u.grantees),
       'Only the policies keep a row from being handed to another tenant; a session that acts for several tenants may do it.',
       pg_catalog.format('SELECT * FROM custody.protect(%L, %L);  -- or: REVOKE UPDATE, and grant it on the other columns', t.root, t.tenant_column)
FROM t
CROSS JOIN LATERAL (
  SELECT pg_catalog.string_agg(DISTINCT g.sql, ', ') AS grantees
  FROM (SELECT x.grantee, x.privilege_type FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) x WHERE c.oid = t.relid
        UNION ALL SELECT x.grantee, x.privilege_type FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
        WHERE a.attrelid = t.relid AND a.attnum = t.tenant_attnum) x
  JOIN custody.constrained_grantee g ON g.grantee = x.grantee WHERE x.privilege_type = 'UPDATE' AND x.grantee <> t.owner
) u
WHERE t.tenant AND NOT t.protected AND t.rls AND u.grantees IS NOT NULL
UNION ALL
SELECT 'CU052', 'low', t.relid, t.schema, t.object, 'granted to constrained roles without a policy that lets them: ' || m.missing,
       'Such a command finds no rows, or fails, and says nothing of why.',
       pg_catalog.format('SELECT * FROM custody.protect(%L, %L);  -- or revoke what is not meant', t.root, t.tenant_column)
FROM t JOIN policy p USING (relid) JOIN granted g USING (relid)
CROSS JOIN LATERAL (
  SELECT pg_catalog.string_agg(w.privilege, ', ') AS missing
  FROM (VALUES ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd')) AS w (privilege, command)
  WHERE w.privilege = ANY (g.privileges) AND pg_catalog.strpos(coalesce(p.commands, ''), w.command) = 0
) m
WHERE t.tenant AND t.rls AND coalesce(p.permissive, false) AND coalesce(p.grants, false) AND m.missing IS NOT NULL
UNION ALL
SELECT 'CU048', 'low', t.relid, t.schema, t.object, pg_catalog.format('column %I takes its numbers from %s, which all tenants share', a.attname, d.objid::pg_catalog.regclass),
       'The gaps between a tenant''s own numbers tell how much the others write.',
       'no SQL fixes this: uuids tell nothing, and need another type'
FROM t
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.relid AND d.refobjsubid > 0
  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relid AND a.attnum = d.refobjsubid
LEFT JOIN granted g USING (relid)
WHERE t.tenant AND NOT t.partition AND g.relid IS NOT NULL;
COMMENT ON VIEW custody.table_finding IS 'Internal, for custody.coverage(): CU001 to CU004, CU006 to CU009, CU032, CU048, CU049, CU052';

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

