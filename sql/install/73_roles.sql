-- Coverage of roles and of what they were granted.

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
    ('pg_execute_server_program', 'critical', 'runs programs as the server''s own user'),
    ('custody_admin', 'critical', 'decides which role acts for which tenant'),
    ('custody_auditor', 'high', 'reads every tenant''s log'),
    ('pg_monitor', 'high', 'sees the statements of all sessions, with the other tenants'' values in them'),
    ('pg_read_all_stats', 'high', 'sees the statements of all sessions, with the other tenants'' values in them'),
    ('pg_signal_backend', 'high', 'cancels and ends the sessions of others'),
    ('pg_read_all_settings', 'medium', 'reads settings that name files, hosts and the passwords in them'),
    ('pg_stat_scan_tables', 'medium', 'scans tables of every tenant for statistics, and holds locks on them meanwhile'),
    ('pg_checkpoint', 'low', 'forces checkpoints, which every tenant waits for'),
    ('pg_maintain', 'high', 'locks, rewrites and vacuums every table, and runs what their indexes call'),
    ('pg_create_subscription', 'critical', 'connects to other servers, and has their rows written here'),
    ('pg_use_reserved_connections', 'low', 'takes the connections that are kept for administrators'),
    ('pg_signal_autovacuum_worker', 'low', 'ends autovacuum'),
    ('pg_write_server_files', 'critical', 'writes files of the server, and so whatever it likes')) AS w (name, severity, power)
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
WHERE r.answers AND r.via IS NOT NULL AND r.becomes AND (g.rolsuper OR g.rolbypassrls) GROUP BY r.name, r.via_name
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
WHERE r.answers AND r.becomes AND (g.rolcreaterole OR g.rolreplication) AND NOT g.rolsuper
  AND (r.via IS NULL OR r.via NOT IN (SELECT c.role FROM custody.constrained_role c))
UNION ALL
SELECT 'CU026', w.severity, NULL, NULL, pg_catalog.quote_ident(r.name),
       pg_catalog.format('constrained role %I is a member of %I', r.name, r.reached_name) || CASE WHEN r.via <> r.reached THEN pg_catalog.format(' by way of %I', r.via_name) ELSE '' END,
       pg_catalog.format('A member of %I %s.', r.reached_name, w.power),
       pg_catalog.format('REVOKE %I FROM %I;', r.via_name, r.name)
FROM reach r JOIN predefined w ON w.name = r.reached_name
-- Those that pg_monitor brings are its own row.
WHERE r.answers AND r.via IS NOT NULL
  AND NOT (r.reached_name IN ('pg_read_all_stats', 'pg_read_all_settings', 'pg_stat_scan_tables') AND EXISTS (SELECT FROM reach m WHERE m.role = r.role AND m.via = r.via AND m.reached_name = 'pg_monitor'))
  AND NOT (r.reached_name = 'custody_auditor' AND EXISTS (SELECT FROM reach m WHERE m.role = r.role AND m.via = r.via AND m.reached_name = 'custody_admin'));
COMMENT ON VIEW custody.role_finding IS 'Internal, for custody.coverage(): CU020 to CU022, CU025, CU026';

CREATE VIEW custody.login_finding AS
-- A session can always go back to the role that it logged in as.
SELECT 'CU040' AS id, 'critical' AS severity, NULL::oid AS relid, NULL::name AS schema, pg_catalog.quote_ident(l.rolname) AS object,
       pg_catalog.format('role %I logs in as itself and is turned into %I by a setting', l.rolname, n.value) AS problem,
       'RESET ROLE gives the session back all that it logged in with; only a login that is itself constrained holds.' AS consequence,
       pg_catalog.format('ALTER ROLE %I%s RESET role;  -- and let the application log in as a member of custody_app that reaches nothing else', l.rolname,
                         CASE WHEN d.oid IS NOT NULL THEN ' IN DATABASE ' || pg_catalog.quote_ident(d.datname) ELSE '' END) AS fix
FROM pg_catalog.pg_db_role_setting g
CROSS JOIN LATERAL pg_catalog.unnest(g.setconfig) s
CROSS JOIN LATERAL (SELECT pg_catalog.split_part(s, '=', 1) AS name, pg_catalog.btrim(pg_catalog.substr(s, pg_catalog.strpos(s, '=') + 1), '"') AS value) n
JOIN pg_catalog.pg_roles l ON l.oid = g.setrole AND l.rolcanlogin
LEFT JOIN pg_catalog.pg_database d ON d.oid = g.setdatabase
WHERE n.name = 'role' AND n.value IN (SELECT c.name FROM custody.constrained_role c) AND n.value <> l.rolname AND (g.setdatabase = 0 OR d.datname = pg_catalog.current_database())
  AND (l.rolsuper OR l.rolbypassrls OR l.oid NOT IN (SELECT c.role FROM custody.constrained_role c))
UNION ALL
SELECT 'CU053', 'medium', NULL, NULL, pg_catalog.quote_ident(r.name),
       pg_catalog.format('constrained role %I %sCREATEDB', r.name, CASE WHEN r.via IS NULL THEN 'is ' ELSE pg_catalog.format('may become %I, which is ', r.reached_name) END),
       'It makes databases of its own, copies of templates among them, and fills the disk that all tenants share.',
       CASE WHEN r.via IS NULL THEN pg_catalog.format('ALTER ROLE %I NOCREATEDB;', r.name) ELSE pg_catalog.format('REVOKE %I FROM %I;', r.via_name, r.name) END
FROM custody.constrained_reach r JOIN pg_catalog.pg_roles g ON g.oid = r.reached
WHERE r.answers AND r.becomes AND g.rolcreatedb AND NOT g.rolsuper AND (r.via IS NULL OR r.via NOT IN (SELECT c.role FROM custody.constrained_role c));
COMMENT ON VIEW custody.login_finding IS 'Internal, for custody.coverage(): CU040, CU053';

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
  ('MAINTAIN', 'CU050', 'medium', 'It locks and rewrites the table, which every tenant waits for, and runs what its indexes call as the owner.'),
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
COMMENT ON VIEW custody.privilege_finding IS 'Internal, for custody.coverage(): CU023, CU024, CU027 to CU029, CU050';

-- Grants that tables to come will have, and grants on what PostgreSQL keeps for itself.
CREATE VIEW custody.wide_grant_finding AS
SELECT 'CU041' AS id, 'high' AS severity, NULL::oid AS relid, n.nspname AS schema, pg_catalog.quote_ident(o.rolname) AS object,
       pg_catalog.format('tables that %I creates%s will be granted to %s: %s', o.rolname, coalesce(pg_catalog.format(' in %I', n.nspname), ''), g.sql, pg_catalog.string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type)) AS problem,
       'A new table is open to every tenant until somebody protects it.' AS consequence,
       pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE %s ON TABLES FROM %s;', o.rolname, coalesce(pg_catalog.format(' IN SCHEMA %I', n.nspname), ''), pg_catalog.string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), g.sql) AS fix
FROM pg_catalog.pg_default_acl d
JOIN pg_catalog.pg_roles o ON o.oid = d.defaclrole
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE d.defaclobjtype = 'r' AND x.grantee <> d.defaclrole GROUP BY o.rolname, n.nspname, g.sql
UNION ALL
SELECT 'CU042', 'high', c.oid, 'pg_catalog', 'pg_catalog.' || c.relname, pg_catalog.format('%s granted to %s', pg_catalog.string_agg(DISTINCT x.privilege_type, ', '), pg_catalog.string_agg(DISTINCT g.sql, ', ')),
       CASE WHEN c.relname IN ('pg_statistic', 'pg_statistic_ext_data') THEN 'Statistics hold values of every tenant''s rows, as they are.'
            ELSE 'PostgreSQL keeps this from ordinary roles: it holds secrets, or other roles'' data.' END,
       pg_catalog.string_agg(DISTINCT pg_catalog.format('REVOKE %s%s ON pg_catalog.%I FROM %s;', x.privilege_type, ' (' || pg_catalog.quote_ident(x.attname) || ')', c.relname, g.sql), ' ')
FROM pg_catalog.pg_class c
CROSS JOIN LATERAL (
  SELECT y.grantee, y.privilege_type, NULL::name AS attname FROM pg_catalog.aclexplode(c.relacl) y
  UNION ALL SELECT y.grantee, y.privilege_type, a.attname FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) y WHERE a.attrelid = c.oid
) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
  AND (c.relname IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_authid', 'pg_largeobject', 'pg_user_mapping', 'pg_shadow', 'pg_hba_file_rules', 'pg_ident_file_mappings', 'pg_file_settings',
                     'pg_config', 'pg_shmem_allocations', 'pg_backend_memory_contexts')
       OR x.privilege_type <> 'SELECT')
  -- What initdb grants (some columns of pg_subscription, say) is as it should be.
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_init_privs i CROSS JOIN LATERAL pg_catalog.aclexplode(i.initprivs) z
                  WHERE i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objoid = c.oid AND i.privtype = 'i' AND z.grantee = x.grantee AND z.privilege_type = x.privilege_type)
GROUP BY c.oid, c.relname
UNION ALL
SELECT 'CU055', 'critical', NULL, 'pg_catalog', f.oid::pg_catalog.regprocedure::text, pg_catalog.format('EXECUTE granted to %s', pg_catalog.string_agg(g.sql, ', ' ORDER BY g.sql)),
       'PostgreSQL gives this function to nobody but superusers and its own predefined roles: it reads files, or reaches into other sessions and the server.',
       pg_catalog.string_agg(pg_catalog.format('REVOKE EXECUTE ON FUNCTION pg_catalog.%s FROM %s;', f.oid::pg_catalog.regprocedure, g.sql), ' ' ORDER BY g.sql)
FROM pg_catalog.pg_proc f
JOIN pg_catalog.pg_init_privs i ON i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = f.oid AND i.objsubid = 0 AND i.privtype = 'i'
CROSS JOIN LATERAL pg_catalog.aclexplode(f.proacl) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE f.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
  AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(i.initprivs) z WHERE z.grantee = x.grantee AND z.privilege_type = x.privilege_type)
GROUP BY f.oid;
COMMENT ON VIEW custody.wide_grant_finding IS 'Internal, for custody.coverage(): CU041, CU042, CU055';

