-- Posture: what stands between this installation and each of its promises, from the catalogs and settings. docs/posture.md says what
-- each cause means. Whatever cannot be seen counts as weakened.

CREATE FUNCTION custody.preloaded() RETURNS boolean LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_preloaded';
COMMENT ON FUNCTION custody.preloaded() IS 'Whether shared_preload_libraries or this session''s session_preload_libraries names pg_custody';
CREATE FUNCTION custody.key_problem() RETURNS text LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_key_problem';
COMMENT ON FUNCTION custody.key_problem() IS 'Why a new session could not sign the log: no key file, a mode that lets others read it, another key; NULL if it could';

-- Minor versions before these have known ways around row-level security or extensions (PostgreSQL's security page).
CREATE FUNCTION custody.version_floor(version integer) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN f.minor IS NULL THEN 'unknown'
              WHEN version % 10000 < f.minor THEN f.major || '.' || f.minor END
  FROM (SELECT version / 10000 AS major) v
  LEFT JOIN (VALUES (14, 24), (15, 20), (16, 15), (17, 11), (18, 6)) AS f (major, minor) USING (major)
$$;
COMMENT ON FUNCTION custody.version_floor(integer) IS 'For a server_version_num: the minor version that is the least to run; NULL if it is that or later, unknown if nothing is known of the major version';

CREATE VIEW custody.posture_isolation AS
WITH finding AS MATERIALIZED (SELECT f.id, f.severity, f.object FROM custody.finding f WHERE f.severity <> 'low'),
-- Which promise a finding breaks besides I1, or instead of it.
breaks (promise, ids, instead) AS (VALUES
  ('I2', ARRAY['CU020', 'CU021', 'CU022', 'CU025', 'CU026', 'CU027'], false),
  ('I3', ARRAY['CU001', 'CU003', 'CU005', 'CU007', 'CU008', 'CU030', 'CU031', 'CU032', 'CU033', 'CU034'], false),
  ('I3', ARRAY['CU009'], true),
  ('A1', ARRAY['CU035'], true)),
broken AS (
  SELECT b.promise, f.* FROM breaks b JOIN finding f ON f.id = ANY (b.ids)
  UNION ALL
  SELECT 'I1', f.* FROM finding f WHERE NOT EXISTS (SELECT FROM breaks b WHERE b.instead AND f.id = ANY (b.ids))
)
SELECT 'coverage' AS id, b.promise,
       CASE WHEN pg_catalog.bool_or(b.severity = 'critical') THEN 'not in force' ELSE 'weakened' END AS state,
       pg_catalog.format('%s finding%s of severity medium or worse, waived ones included: %s', pg_catalog.count(*), CASE pg_catalog.count(*) WHEN 1 THEN '' ELSE 's' END,
         pg_catalog.array_to_string((pg_catalog.array_agg(b.id || ' ' || b.object ORDER BY pg_catalog.array_position(ARRAY['critical', 'high', 'medium'], b.severity), b.id COLLATE "C", b.object COLLATE "C"))[:5], ', ')
           || CASE WHEN pg_catalog.count(*) > 5 THEN ', …' ELSE '' END) AS cause,
       'SELECT * FROM custody.coverage() gives the SQL that fixes each' AS remedy
FROM broken b GROUP BY b.promise
UNION ALL
SELECT 'nothing-protected', p.promise, 'not in force', 'no table is protected', 'SELECT * FROM custody.protect(''…'') each table that holds tenants'' rows'
FROM (VALUES ('I1'), ('I3')) AS p (promise) WHERE NOT EXISTS (SELECT FROM custody.registered_table r WHERE r.kind = 'protected')
UNION ALL
SELECT 'assume', 'I2', 'weakened',
       pg_catalog.format('%s may assume tenants of their own choice: weaker than a token, as whoever runs SQL there chooses', pg_catalog.string_agg(DISTINCT g.role::text, ', ')),
       'authenticate with tokens, or bind a role to each tenant; then SELECT custody.allow_assume(role, ''{}'')'
FROM custody.assume_grant g HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'unbound-login', 'I1', 'weakened',
       pg_catalog.format('row-level security does not bind %s, who may log in', pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' ORDER BY r.rolname)),
       'ALTER ROLE … NOLOGIN, or NOSUPERUSER NOBYPASSRLS'
FROM pg_catalog.pg_roles r WHERE r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls) AND r.oid <> 10 HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'language', 'I4', 'weakened',
       pg_catalog.format('language %s keeps values and cursors between the transactions of a session, and constrained roles may use it', pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(l.lanname), ', ')),
       pg_catalog.string_agg(DISTINCT pg_catalog.format('REVOKE USAGE ON LANGUAGE %I FROM %s;', l.lanname, g.sql), ' ')
FROM pg_catalog.pg_language l
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(l.lanacl, pg_catalog.acldefault('l', l.lanowner))) x
JOIN custody.constrained_grantee g ON g.grantee = x.grantee
WHERE l.lanpltrusted AND l.lanname NOT IN ('internal', 'c', 'sql', 'plpgsql') HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'row-security-off', 'I3', 'weakened', pg_catalog.format('row_security is off for %s: queries of protected tables fail instead of finding no rows', pg_catalog.string_agg(s.whose, ', ' ORDER BY s.whose)),
       'ALTER ROLE … RESET row_security; ALTER DATABASE … RESET row_security; ALTER SYSTEM RESET row_security'
FROM (
  SELECT 'this session' AS whose FROM pg_catalog.pg_settings s WHERE s.name = 'row_security' AND s.reset_val = 'off'
  UNION
  SELECT CASE WHEN r.oid IS NULL THEN 'the database' ELSE 'role ' || pg_catalog.quote_ident(r.rolname) END
  FROM pg_catalog.pg_db_role_setting d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.setrole
  WHERE d.setdatabase IN (0, (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()))
    AND EXISTS (SELECT FROM pg_catalog.unnest(d.setconfig) c WHERE c ~* '^row_security=(off|false|no|0|f|n|of)$')
) s HAVING pg_catalog.count(*) > 0;
COMMENT ON VIEW custody.posture_isolation IS 'Internal, for custody.posture(): what weakens I1 to I4, and A1 by what is declared';

CREATE VIEW custody.posture_audit AS
WITH here AS (
  SELECT i.id, i.parent, i.system_identifier, i.timeline, i.database_oid FROM custody.instance n JOIN custody.incarnation i ON i.id = n.incarnation
), key AS (
  SELECT k.predecessor, k.recovers FROM custody.signing_key k JOIN here h ON h.id = k.incarnation JOIN custody.instance n ON n.key_id = k.key_id
), problem AS MATERIALIZED (SELECT custody.key_problem() AS why)
SELECT 'capture-gap' AS id, 'A1' AS promise, 'not in force' AS state,
       pg_catalog.format('changes are not recorded: %s', pg_catalog.string_agg(pg_catalog.format('%s%s %s', g.relid, coalesce(' ' || pg_catalog.quote_ident(g.trigger_name), ''), g.problem), ', ' ORDER BY g.relid::text, g.trigger_name)) AS cause,
       'SELECT custody.audit(…) the table again; SELECT * FROM custody.capture_gap' AS remedy
FROM custody.capture_gap g HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'guard-gap', p.promise, CASE p.promise WHEN 'A3' THEN 'not in force' ELSE 'weakened' END,
       pg_catalog.string_agg(g.object || ': ' || g.problem, ', ' ORDER BY g.object),
       CASE p.promise WHEN 'A3' THEN 'ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER …; what was done to the log meanwhile, custody.verify() says'
            ELSE 'ENABLE ALWAYS what is named; SELECT * FROM custody.guard_gap' END
FROM custody.guard_gap g
CROSS JOIN LATERAL (VALUES ('A1', g.object !~ 'custody\.entry$'), ('I5', g.object ~ '^event trigger'), ('A3', g.object ~ 'custody\.entry$')) AS p (promise, concerned)
WHERE p.concerned GROUP BY p.promise
UNION ALL
SELECT 'nothing-audited', 'A1', 'not in force', 'no table is audited', 'SELECT custody.audit(''…'') each table that matters'
WHERE NOT EXISTS (SELECT FROM custody.audited_table)
UNION ALL
SELECT 'not-audited', 'A1', 'weakened', pg_catalog.format('protected, but not audited: %s', pg_catalog.string_agg(r.target::text, ', ' ORDER BY r.target::text)), 'SELECT custody.audit(''…'')'
FROM custody.registered_table r
WHERE r.kind = 'protected' AND EXISTS (SELECT FROM custody.audited_table) AND r.target NOT IN (SELECT m.relid FROM custody.audited_member m)
HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'no-primary-key', 'A1', 'weakened', pg_catalog.format('entries name no row, as there is no primary key: %s', pg_catalog.string_agg(a.target::text, ', ' ORDER BY a.target::text)), 'ALTER TABLE … ADD PRIMARY KEY (…)'
FROM custody.audited_table a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.target AND i.indisprimary) HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'key-unreadable', p.promise, 'not in force', pg_catalog.format('the signing key cannot be used, so changes of audited tables fail, or a key that nothing vouches for takes over: %s', q.why),
       'restore the file from where it was kept, owned by the server''s user and with mode 0600; or SELECT custody.recover_signing_key(''key lost'')'
FROM problem q CROSS JOIN (VALUES ('A1'), ('A2')) AS p (promise) WHERE q.why IS NOT NULL
UNION ALL
SELECT 'generated-key', 'A3', 'weakened', 'the signing key is a file in the data directory (level generated): who has that, or a base backup, or is a superuser, can rewrite what no kept head has seen',
       'no other level is built in this version: keep custody.heads() elsewhere, and base backups as you would keep the key'
UNION ALL
SELECT 'unendorsed-key', 'A3', 'weakened', 'the present key took over from another that did not vouch for it: history before it is pinned by the old fingerprint alone',
       'give custody.verify(pin) both fingerprints, and keep the new one elsewhere'
FROM here h WHERE EXISTS (SELECT FROM key k WHERE k.predecessor IS NULL AND (k.recovers IS NOT NULL OR h.parent IS NOT NULL))
UNION ALL
SELECT 'other-copy', 'A3', 'weakened', 'this is not the database that wrote the log, but a copy, a restored or promoted one; nothing was recorded here yet',
       'the first audited change starts an incarnation; or SELECT custody.new_incarnation(''why'')'
FROM here h
WHERE h.database_oid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   OR h.system_identifier <> (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)
   -- The control file has the timeline of the last checkpoint; the one of now is in the WAL's file names.
   OR NOT pg_catalog.pg_is_in_recovery() AND h.timeline <> (CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
        ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::integer END)
UNION ALL
SELECT 'replication-role', 'A1', 'weakened', pg_catalog.format('session_replication_role is not origin for %s: capture goes on, but foreign keys and other triggers do not fire', pg_catalog.string_agg(s.whose, ', ' ORDER BY s.whose)),
       'ALTER ROLE … RESET session_replication_role; ALTER DATABASE … RESET session_replication_role; ALTER SYSTEM RESET session_replication_role'
FROM (
  SELECT 'this session' AS whose FROM pg_catalog.pg_settings s WHERE s.name = 'session_replication_role' AND s.reset_val <> 'origin'
  UNION
  SELECT CASE WHEN r.oid IS NULL THEN 'the database' ELSE 'role ' || pg_catalog.quote_ident(r.rolname) END
  FROM pg_catalog.pg_db_role_setting d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.setrole
  WHERE d.setdatabase IN (0, (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()))
    AND EXISTS (SELECT FROM pg_catalog.unnest(d.setconfig) c WHERE c ~* '^session_replication_role=(replica|local)$')
) s HAVING pg_catalog.count(*) > 0;
COMMENT ON VIEW custody.posture_audit IS 'Internal, for custody.posture(): what weakens A1 to A3 and A5 to A7, and the recording of DDL';

CREATE VIEW custody.posture_server AS
-- Of the server's default, not of what this session chose.
WITH setting AS MATERIALIZED (SELECT s.name, s.reset_val AS value FROM pg_catalog.pg_settings s)
SELECT 'version' AS id, 'I1' AS promise, 'weakened' AS state,
       CASE f.floor WHEN 'unknown' THEN 'nothing is known of security fixes in this major version of PostgreSQL'
            ELSE pg_catalog.format('this is PostgreSQL %s, and versions before %s have known ways around row-level security', pg_catalog.current_setting('server_version'), f.floor) END AS cause,
       'update to the latest minor version' AS remedy
FROM (SELECT custody.version_floor(pg_catalog.current_setting('server_version_num')::integer) AS floor) f WHERE f.floor IS NOT NULL
UNION ALL
SELECT 'not-preloaded', p.promise, 'weakened', 'the library is not preloaded: ' || p.what, 'shared_preload_libraries = ''pg_custody'', and restart'
FROM (VALUES ('I1', 'what it refuses by itself, it refuses only in sessions that have used it'), ('I5', 'commands that event triggers do not see pass in sessions that have not used it')) AS p (promise, what)
WHERE NOT custody.preloaded()
UNION ALL
SELECT 'recovery', 'A1', 'weakened', 'the server is in recovery: nothing is recorded here, and this speaks of the catalogs as they came', 'ask the primary as well; before promotion, see that the key file is here'
WHERE pg_catalog.pg_is_in_recovery()
UNION ALL
SELECT w.id, w.promise, 'weakened', w.cause, w.remedy
FROM setting s
JOIN (VALUES
  ('fsync', 'fsync', 'off', 'A1', 'fsync is off: a crash of the machine may lose entries, and tear the log and the tables', 'fsync = on'),
  ('full-page-writes', 'full_page_writes', 'off', 'A1', 'full_page_writes is off: a crash of the machine may tear pages of the log and the tables', 'full_page_writes = on'),
  ('synchronous-commit', 'synchronous_commit', 'off', 'A1', 'synchronous_commit is off: a crash may lose changes that clients were told are committed, with their entries', 'synchronous_commit = on, at least for the roles that write'),
  ('wal-level', 'wal_level', 'minimal', 'A3', 'wal_level is minimal: the log cannot be archived or replicated as it grows, so it is as lasting as this disk', 'wal_level = replica, and an archive or a standby'),
  ('checksums', 'data_checksums', 'off', 'A3', 'data checksums are off: damage by the disk cannot be told from tampering', 'pg_checksums --enable, with the server stopped'))
  AS w (id, name, bad, promise, cause, remedy) ON s.name = w.name AND s.value = w.bad
UNION ALL
SELECT 'tokens-logged', 'I2', 'weakened', pg_catalog.format('statements go to the server''s log (%s), tokens among them; who reads it can use them until they expire', pg_catalog.string_agg(s.name, ', ' ORDER BY s.name)),
       'log_statement = mod or less, log_duration-style settings off for the application''s role, log_parameter_max_length = 0; short-lived tokens'
FROM setting s
WHERE (s.name = 'log_statement' AND s.value = 'all' OR s.name IN ('log_min_duration_statement', 'log_min_duration_sample') AND s.value <> '-1'
       OR s.name = 'log_transaction_sample_rate' AND s.value <> '0')
  AND EXISTS (SELECT FROM custody.token_key) HAVING pg_catalog.count(*) > 0
UNION ALL
SELECT 'outdated', 'A1', 'weakened', pg_catalog.format('pg_custody %s is installed here, and %s on the server', e.extversion, a.default_version), 'ALTER EXTENSION pg_custody UPDATE'
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_available_extensions() a ON a.name = e.extname
WHERE e.extname = 'pg_custody' AND e.extversion <> a.default_version;
COMMENT ON VIEW custody.posture_server IS 'Internal, for custody.posture(): what the server''s version, settings and state weaken';

CREATE FUNCTION custody.posture_causes() RETURNS TABLE (id text, promise text, state text, cause text, remedy text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  part record;
  mode text;
  verdict text;
  moment timestamptz;
BEGIN
  FOR part IN SELECT * FROM (VALUES
    ('custody.posture_isolation', ARRAY['I1', 'I2', 'I3', 'I4', 'I5', 'A1']),
    ('custody.posture_audit', ARRAY['A1', 'A2', 'A3', 'A5', 'A6', 'A7', 'I5']),
    ('custody.posture_server', ARRAY['I1', 'I2', 'I5', 'A1', 'A3'])) AS p (name, promises)
  LOOP
    BEGIN
      RETURN QUERY EXECUTE format('SELECT v.id, v.promise, v.state, v.cause, v.remedy FROM %s v', part.name);
    EXCEPTION WHEN OTHERS THEN
      RETURN QUERY SELECT 'unknown', p, 'weakened', format('%s could not be asked: %s', part.name, SQLERRM), 'ask as a superuser, or grant what is missing'
                   FROM unnest(part.promises) p;
    END;
  END LOOP;
  -- How fresh the evidence is. By name, as it may not be there.
  BEGIN
    mode := 'not built in this version';
    IF to_regclass('custody.checkpoints') IS NOT NULL THEN
      EXECUTE 'SELECT max(c.at) FROM custody.checkpoints c JOIN custody.instance i ON i.incarnation = c.incarnation' INTO moment;
      mode := CASE WHEN moment > now() - interval '2 days' THEN NULL ELSE 'none of this incarnation in the last two days' END;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    mode := SQLERRM;
  END;
  RETURN QUERY SELECT 'no-checkpoints', p, 'weakened', 'checkpoints, which show outside that nothing was cut off or left out: ' || mode,
                      'CALL custody.checkpoint() and keep the note elsewhere; where that is not built, keep SELECT jsonb_agg(h) FROM custody.heads() h'
               FROM unnest(ARRAY['A3', 'A5']) p WHERE mode IS NOT NULL;
  BEGIN
    mode := 'this version does not record when the log was verified';
    IF to_regclass('custody.verifications') IS NOT NULL THEN
      moment := NULL;
      EXECUTE 'SELECT v.verdict, v.finished_at FROM custody.verifications v ORDER BY v.finished_at DESC LIMIT 1' INTO verdict, moment;
      mode := CASE WHEN moment > now() - interval '2 days' THEN NULL ELSE 'the log was not verified in the last two days' END;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    mode := SQLERRM;
  END;
  RETURN QUERY SELECT 'no-verifications', 'A3', 'weakened', mode, 'verify every night: custody.assert_verified(pin, heads) from outside, or custody.run_verification() where that is built' WHERE mode IS NOT NULL;
  RETURN QUERY SELECT 'log-invalid', 'A3', 'not in force', format('the last verification, of %s, found the log %s', moment, verdict), 'SELECT * FROM custody.verify()' WHERE verdict NOT IN ('valid', 'empty');
  mode := NULL;
  IF to_regprocedure('custody.guard_mode()') IS NULL THEN
    RETURN QUERY SELECT 'guard-off', 'I5', 'weakened', 'the guard, which would refuse tables without isolation: not built in this version', 'SELECT custody.assert_coverage() in the pipeline';
  ELSE
    BEGIN
      EXECUTE 'SELECT custody.guard_mode()' INTO mode;
    EXCEPTION WHEN OTHERS THEN
      mode := NULL;
    END;
    IF mode IS NULL OR mode NOT IN ('reject', 'protect') THEN
      RETURN QUERY SELECT 'guard-off', 'I5', 'weakened', format('the guard does not refuse tables without isolation: its mode is %s', coalesce(mode, 'unknown')), 'SELECT custody.guard(''reject'')';
    END IF;
  END IF;
END $$;
COMMENT ON FUNCTION custody.posture_causes() IS 'Each cause that weakens a promise, by an id that docs/posture.md explains. What could not be asked is a cause as well (unknown)';

CREATE FUNCTION custody.posture() RETURNS TABLE (promise text, state text, cause text, remedy text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  WITH found AS MATERIALIZED (SELECT * FROM custody.posture_causes())
  SELECT p.id || ' ' || p.words, coalesce(min(f.state), 'holds'),
         -- A line for each, whatever names say.
         string_agg(f.id || ': ' || translate(f.cause, E'\n\r', '  '), E'\n' ORDER BY f.state, f.id COLLATE "C"),
         string_agg(translate(f.remedy, E'\n\r', '  '), E'\n' ORDER BY f.state, f.id COLLATE "C")
  FROM (VALUES
    (1, 'I1', 'a tenant reaches no other tenant''s rows'),
    (2, 'I2', 'the context cannot be forged'),
    (3, 'I3', 'no context, no rows, and an error on every write'),
    (4, 'I4', 'the context ends with the transaction'),
    (5, 'I5', 'tables without isolation are found, fail the gate and cannot be made'),
    (6, 'A1', 'every change is recorded, or fails'),
    (7, 'A2', 'every entry is chained and signed'),
    (8, 'A3', 'every change of history is detected'),
    (9, 'A4', 'auditing lets no writer wait'),
    (10, 'A5', 'the log can be verified without the database'),
    (11, 'A6', 'personal data can be erased'),
    (12, 'A7', 'the data can be held against the log')) AS p (place, id, words)
  -- 'not in force' sorts before 'weakened'.
  LEFT JOIN found f ON f.promise = p.id
  GROUP BY p.place, p.id, p.words ORDER BY p.place
$$;
COMMENT ON FUNCTION custody.posture() IS 'One row for each promise: holds, weakened or not in force; why, a line for each cause, by the ids of docs/posture.md; and what would strengthen it, in the same order. What it cannot see counts as weakened, never as holding';

REVOKE ALL ON FUNCTION custody.preloaded(), custody.key_problem(), custody.version_floor(integer), custody.posture_causes(), custody.posture() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.preloaded(), custody.key_problem(), custody.version_floor(integer), custody.posture_causes(), custody.posture() TO custody_auditor;
GRANT SELECT ON custody.posture_isolation, custody.posture_audit, custody.posture_server TO custody_auditor;
