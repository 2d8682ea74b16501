-- Coverage: where the tenants of this database are not kept apart, read from the catalogs. The findings, CU001 and on, are listed in
-- docs/isolation.md; their ids are stable, and the number of one that is gone is not given again. Here: who is constrained, and the
-- tables. 71 judges policies, 72 tables and keys, 73 roles, grants and what policies stand on, 74 what steps around them, and the server; 75 is the gate.

-- Who is constrained, and what they hold.

-- Memberships, with what PostgreSQL 16 and later say of each: whether it gives its privileges at once, and whether SET ROLE may be used.
-- Earlier versions always allow SET ROLE. ADMIN lets the member grant itself the rest.
CREATE VIEW custody.membership AS
SELECT m.roleid, m.member, m.admin_option AS admin,
       coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::boolean, true) AS sets,
       coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true) AS inherits
FROM pg_catalog.pg_auth_members m;
COMMENT ON VIEW custody.membership IS 'Internal, for custody.coverage(): which role is a member of which, and what that allows, in every version of PostgreSQL';

CREATE VIEW custody.constrained_role AS
WITH RECURSIVE member AS (
  SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'custody_app'
  UNION
  -- Who may only hand the membership on is an administrator, and not an application.
  SELECT m.member FROM member g JOIN custody.membership m ON m.roleid = g.oid AND (m.inherits OR m.sets)
)
SELECT r.oid AS role, r.rolname AS name, r.rolsuper AS superuser, r.rolbypassrls AS bypassrls
FROM member m JOIN pg_catalog.pg_roles r ON r.oid = m.oid;
COMMENT ON VIEW custody.constrained_role IS 'Internal, for custody.coverage(): custody_app and its members, direct or not: the roles that must see one tenant only';

-- What a role may become (SET ROLE), and what it has of others' privileges without that. A superuser is a finding itself, and has
-- everything: it is not looked into.
CREATE VIEW custody.constrained_reach AS
WITH RECURSIVE reach AS (
  SELECT c.role, NULL::oid AS via, c.role AS reached, true AS becomes FROM custody.constrained_role c WHERE NOT c.superuser
  UNION
  SELECT r.role, coalesce(r.via, m.roleid), m.roleid, r.becomes AND m.sets OR m.admin
  FROM reach r
  JOIN pg_catalog.pg_roles s ON s.oid = r.reached AND NOT s.rolsuper
  JOIN custody.membership m ON m.member = r.reached AND (m.inherits OR m.admin OR r.becomes AND m.sets)
)
SELECT r.role, r.via, r.reached, w.rolname AS name, v.rolname AS via_name, g.rolname AS reached_name,
       -- The grant to take back is the one that leaves the constrained roles; each of those answers for its own.
       r.via IS NULL OR r.via = r.reached OR r.via NOT IN (SELECT c.role FROM custody.constrained_role c) AS answers, r.becomes
FROM (SELECT x.role, x.via, x.reached, pg_catalog.bool_or(x.becomes) AS becomes FROM reach x GROUP BY x.role, x.via, x.reached) r
JOIN pg_catalog.pg_roles w ON w.oid = r.role
JOIN pg_catalog.pg_roles g ON g.oid = r.reached
LEFT JOIN pg_catalog.pg_roles v ON v.oid = r.via;
COMMENT ON VIEW custody.constrained_reach IS 'Internal, for custody.coverage(): the roles that each constrained role has the privileges of, or may become, and by which of its memberships';

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

CREATE VIEW custody.privilege_to_plant AS
SELECT n.name AS place
FROM custody.isolation_schema n
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.acl, pg_catalog.acldefault('n', n.owner))) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE x.privilege_type = 'CREATE'
UNION ALL
SELECT d.datname
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE d.datname = pg_catalog.current_database() AND x.privilege_type IN ('CREATE', 'TEMPORARY');
COMMENT ON VIEW custody.privilege_to_plant IS 'Internal, for custody.coverage(): where a constrained role may create tables, temporary ones included';

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

