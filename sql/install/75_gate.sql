-- The gate: what a pipeline and an auditor ask about the findings of 70_coverage.sql, and which of them were accepted.

CREATE TABLE custody.waiver (
  finding     text COLLATE "C" NOT NULL CHECK (finding <> ''),
  object      text COLLATE "C" NOT NULL CHECK (object <> ''),
  relation    regclass,
  other       oid,
  incarnation uuid NOT NULL,
  severity    text NOT NULL CHECK (severity IN ('critical', 'high', 'medium', 'low')),
  problems    text[] NOT NULL,
  reason      text NOT NULL CHECK (reason ~ '\S'),
  waived_by   text NOT NULL,
  waived_at   timestamptz NOT NULL,
  expires     timestamptz NOT NULL,
  PRIMARY KEY (finding, object),
  CHECK (expires > waived_at AND expires - waived_at <= '366 days'::interval)
);
COMMENT ON TABLE custody.waiver IS 'Findings of custody.coverage() that somebody accepted, for a reason and until a day. Read custody.waivers()';
COMMENT ON COLUMN custody.waiver.relation IS 'The table or view itself: another one that takes its name is not waived';
COMMENT ON COLUMN custody.waiver.other IS 'The same for schemas, routines, roles, databases and publications, by oid: good in the database that incarnation names';
COMMENT ON COLUMN custody.waiver.problems IS 'What coverage() explained when it was accepted: what it explains otherwise is not waived';
SELECT pg_catalog.pg_extension_config_dump('custody.waiver', '');
GRANT SELECT ON custody.waiver TO custody_auditor;
-- Audited like every table of the configuration.
CREATE TRIGGER "!custody_capture" AFTER INSERT OR UPDATE OR DELETE ON custody.waiver FOR EACH ROW EXECUTE FUNCTION custody.capture();
CREATE TRIGGER "!custody_truncate" BEFORE TRUNCATE ON custody.waiver FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate();
ALTER TABLE custody.waiver ENABLE ALWAYS TRIGGER "!custody_capture", ENABLE ALWAYS TRIGGER "!custody_truncate";

-- Read by functions with a fixed search_path only: a routine's name depends on it.
CREATE VIEW custody.judged_finding AS
SELECT f.id, f.severity, f.relid, f.schema, f.object, f.problem, f.consequence, f.fix, o.other,
       CASE WHEN w.finding IS NULL THEN NULL
            WHEN f.relid IS DISTINCT FROM w.relation::oid AND w.relation IS NOT NULL
              OR o.other IS DISTINCT FROM w.other AND w.other IS NOT NULL AND EXISTS (
                 -- Oids mean nothing in a database restored from a dump.
                 SELECT FROM custody.incarnation a, custody.incarnation b, custody.instance i
                 WHERE a.id = w.incarnation AND b.id = i.incarnation AND (a.system_identifier, a.database_oid) = (b.system_identifier, b.database_oid)) THEN 'replaced'
            -- Nothing that is NULL, or of no known severity, may pass as accepted.
            WHEN NOT coalesce(pg_catalog.format('%s. %s', f.problem, f.consequence) = ANY (w.problems), false)
              OR coalesce(pg_catalog.array_position(s.severities, f.severity), 0) < pg_catalog.array_position(s.severities, w.severity) THEN 'changed'
            WHEN w.expires <= pg_catalog.now() THEN 'expired'
            ELSE 'waived' END AS waiver,
       w.reason, w.waived_by, w.waived_at, w.expires
FROM custody.finding f
CROSS JOIN (VALUES (ARRAY['critical', 'high', 'medium', 'low'])) AS s (severities)
LEFT JOIN custody.waiver w ON w.finding = f.id AND w.object = f.object
CROSS JOIN LATERAL (
  SELECT CASE WHEN f.relid IS NOT NULL THEN NULL
    WHEN f.schema IS NOT NULL THEN coalesce(
      (SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
       WHERE n.nspname = f.schema AND p.oid::pg_catalog.regprocedure::text = f.object),
      (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE pg_catalog.quote_ident(n.nspname) = f.object))
    ELSE coalesce(
      (SELECT r.oid FROM pg_catalog.pg_roles r WHERE pg_catalog.quote_ident(r.rolname) = f.object),
      (SELECT d.oid FROM pg_catalog.pg_database d WHERE pg_catalog.quote_ident(d.datname) = f.object),
      (SELECT b.oid FROM pg_catalog.pg_publication b WHERE pg_catalog.quote_ident(b.pubname) = f.object)) END AS other
) o;
COMMENT ON VIEW custody.judged_finding IS 'Internal, for custody.coverage(): every finding, with its waiver: waived; or expired; changed (found in another form, or worse, since); replaced (the name is another object''s now)';
GRANT SELECT ON custody.judged_finding TO custody_auditor;

CREATE FUNCTION custody.waivers() RETURNS TABLE (finding text, object text, state text, severity text, reason text, waived_by text, waived_at timestamptz, expires timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT w.finding, w.object, coalesce(s.states[1], CASE WHEN w.expires <= now() THEN 'expired' ELSE 'stale' END), w.severity, w.reason, w.waived_by, w.waived_at, w.expires
  FROM custody.waiver w
  LEFT JOIN (
    SELECT f.id, f.object, array_agg(f.waiver ORDER BY array_position(ARRAY['waived', 'expired', 'changed', 'replaced'], f.waiver)) AS states
    FROM custody.judged_finding f WHERE f.waiver IS NOT NULL GROUP BY f.id, f.object
  ) s ON s.id = w.finding AND s.object = w.object
  ORDER BY w.finding COLLATE "C", w.object COLLATE "C"
$$;
COMMENT ON FUNCTION custody.waivers() IS 'Every waiver and what has become of it. waived: it counts. expired: it no longer does. changed: what is found now differs from what was accepted. replaced: the name belongs to another object now. stale: nothing is found that it would be for; remove it';

CREATE FUNCTION custody.waive(finding text, object text, reason text, expires timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  wrong CONSTANT text := CASE
    WHEN finding IS NULL THEN 'finding'
    WHEN object IS NULL THEN 'object'
    WHEN reason IS NULL OR reason !~ '\S' THEN 'reason'
    WHEN expires IS NULL OR NOT isfinite(expires) THEN 'expires'
    WHEN expires <= now() OR expires - now() > '366 days' THEN 'expires' END;
  what record;
BEGIN
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'UC013',
      MESSAGE = format('argument "%s" %s', wrong, CASE wrong WHEN 'reason' THEN 'must say why' WHEN 'expires' THEN 'must be a moment to come, within 366 days' ELSE 'must not be null' END),
      HINT = 'SELECT custody.waive(''CU011'', ''public.invoices'', ''invoice numbers are public'', now() + ''90 days'').';
  END IF;
  SELECT (array_agg(f.severity ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low'], f.severity)))[1] AS severity,
         array_agg(format('%s. %s', f.problem, f.consequence) ORDER BY f.problem COLLATE "C", f.consequence COLLATE "C") AS problems, min(f.relid) AS relid, min(f.other) AS other
  INTO what
  FROM custody.judged_finding f WHERE f.id = waive.finding AND f.object = waive.object
  HAVING count(*) > 0;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'UC042',
      MESSAGE = format('there is no finding %s of %s to waive', finding, object),
      HINT = 'SELECT id, object FROM custody.coverage() names them as custody.waive takes them: the object exactly as it is written there.';
  END IF;
  INSERT INTO custody.waiver AS w (finding, object, relation, other, incarnation, severity, problems, reason, waived_by, waived_at, expires)
  SELECT waive.finding, waive.object, what.relid, what.other, i.incarnation, what.severity, what.problems, waive.reason, session_user, now(), waive.expires
  FROM custody.instance i
  ON CONFLICT ON CONSTRAINT waiver_pkey DO UPDATE
  SET relation = excluded.relation, other = excluded.other, incarnation = excluded.incarnation, severity = excluded.severity, problems = excluded.problems,
      reason = excluded.reason, waived_by = excluded.waived_by, waived_at = excluded.waived_at, expires = excluded.expires;
END $$;
COMMENT ON FUNCTION custody.waive(text, text, text, timestamptz) IS 'Accepts what custody.coverage() finds today of this object under this id, until a moment at most 366 days away. What is explained otherwise later (another policy expression, a further grant), is worse, or is of another object of this name, is not waived. Again: renews it for what is found then. Errors: UC042 there is no such finding, UC013';

CREATE FUNCTION custody.unwaive(finding text, object text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM custody.waiver w WHERE w.finding = unwaive.finding AND w.object = unwaive.object;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'UC042',
      MESSAGE = format('there is no waiver of %s of %s', coalesce(finding, 'NULL'), coalesce(object, 'NULL')),
      HINT = 'SELECT finding, object FROM custody.waivers().';
  END IF;
END $$;
COMMENT ON FUNCTION custody.unwaive(text, text) IS 'Takes a waiver back: the finding counts again. Errors: UC042 there is none';

-- Compiling so large a query takes longer than running it: hence jit off.
CREATE FUNCTION custody.coverage() RETURNS TABLE (id text, severity text, schema name, object text, explanation text, fix text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT f.id, f.severity, f.schema, f.object, upper(left(f.problem, 1)) || substr(f.problem, 2) || '. ' || f.consequence, f.fix
  FROM custody.judged_finding f
  WHERE f.waiver IS DISTINCT FROM 'waived'
  ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low'], f.severity), f.id COLLATE "C", f.schema, f.object COLLATE "C", f.problem COLLATE "C"
$$;
COMMENT ON FUNCTION custody.coverage() IS 'Where tenants are not kept apart, from the catalogs: policies, roles, grants, what steps around row-level security, keys. Each with the SQL that fixes it; without those that custody.waivers() has as waived. It judges what is declared; whether a predicate means what it should, only a test can tell';

CREATE FUNCTION custody.unprotected_tables() RETURNS TABLE (schema name, "table" name, reason text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT f.schema, c.relname, string_agg(f.problem, '; ' ORDER BY f.id, f.problem)
  FROM custody.judged_finding f JOIN pg_class c ON c.oid = f.relid
  WHERE f.waiver IS DISTINCT FROM 'waived' AND f.id IN ('CU001', 'CU002', 'CU003', 'CU005', 'CU006', 'CU008', 'CU032')
  GROUP BY f.schema, c.oid, c.relname ORDER BY f.schema, c.relname
$$;
COMMENT ON FUNCTION custody.unprotected_tables() IS 'Tables without isolation: neither protected, nor registered shared, nor waived, nor under row-level security of their own that tests the tenant. Empty is good';

CREATE FUNCTION custody.assert_coverage(min_severity text DEFAULT 'medium') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  severities CONSTANT text[] := ARRAY['critical', 'high', 'medium', 'low'];
  worst integer := array_position(severities, min_severity);
  lines text[];
  lesser bigint;
  waived text;
  useless text;
BEGIN
  IF worst IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'UC041',
      MESSAGE = format('there is no severity %s', coalesce(quote_ident(min_severity), 'NULL')),
      HINT = 'The severities are critical, high, medium and low.';
  END IF;
  WITH f AS MATERIALIZED (SELECT * FROM custody.judged_finding)
  -- A name may hold a line's end, and would forge the next line.
  SELECT array_agg(regexp_replace(format('%s %s %s: %s. %s%s', f.severity, f.id, f.object, upper(left(f.problem, 1)) || substr(f.problem, 2), f.consequence,
                          CASE f.waiver WHEN 'expired' THEN format(' Its waiver expired at %s.', f.expires)
                            WHEN 'changed' THEN ' Its waiver was for less than this.' WHEN 'replaced' THEN ' The waiver of this name was for another object.' ELSE '' END), '[[:cntrl:]]', ' ', 'g')
                   ORDER BY array_position(severities, f.severity), f.id COLLATE "C", f.schema, f.object COLLATE "C", f.problem COLLATE "C")
           FILTER (WHERE f.waiver IS DISTINCT FROM 'waived' AND NOT f.severity = ANY (severities[worst + 1:])),
         count(*) FILTER (WHERE f.waiver IS DISTINCT FROM 'waived' AND f.severity = ANY (severities[worst + 1:])),
         string_agg(regexp_replace(format('%s %s %s, until %s by %s: %s', f.severity, f.id, f.object, f.expires, f.waived_by, f.reason), '[[:cntrl:]]', ' ', 'g'), E'\n' ORDER BY f.id COLLATE "C", f.object COLLATE "C", f.problem COLLATE "C")
           FILTER (WHERE f.waiver = 'waived')
  INTO lines, lesser, waived FROM f;
  IF lines IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'UC040',
      MESSAGE = format('%s isolation finding%s of severity %s or worse', cardinality(lines), CASE cardinality(lines) WHEN 1 THEN '' ELSE 's' END, min_severity),
      -- What a message may hold is limited by who reads it; the worst come first.
      DETAIL = array_to_string(lines[:200], E'\n') || CASE WHEN cardinality(lines) > 200 THEN format(E'\nand %s more', cardinality(lines) - 200) ELSE '' END,
      HINT = 'SELECT * FROM custody.coverage() gives the SQL that fixes each.';
  END IF;
  SELECT string_agg(regexp_replace(format('%s %s: %s', w.finding, w.object, w.state), '[[:cntrl:]]', ' ', 'g'), E'\n') INTO useless FROM custody.waivers() w WHERE w.state <> 'waived';
  RETURN format('no isolation finding of severity %s or worse', min_severity) || CASE WHEN lesser > 0 THEN format('; of lesser severity: %s', lesser) ELSE '' END
    || coalesce(E'\nwaived:\n' || waived, '; none waived') || coalesce(E'\nwaivers that do nothing:\n' || useless, '');
END $$;
COMMENT ON FUNCTION custody.assert_coverage(text) IS 'For CI and start-up checks: raises UC040 with the findings of this severity or worse (critical, high, medium, low); otherwise says that there are none, and which were waived, by whom, why and until when';

REVOKE ALL ON FUNCTION custody.waivers(), custody.waive(text, text, text, timestamptz), custody.unwaive(text, text), custody.coverage(), custody.unprotected_tables(),
  custody.assert_coverage(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.waivers(), custody.coverage(), custody.unprotected_tables(), custody.assert_coverage(text) TO custody_auditor;
GRANT EXECUTE ON FUNCTION custody.waive(text, text, text, timestamptz), custody.unwaive(text, text) TO custody_admin;
