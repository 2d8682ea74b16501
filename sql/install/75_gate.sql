-- The gate: what a pipeline and an auditor ask about the findings of 70_coverage.sql.

-- Compiling so large a query takes longer than running it: hence jit off.
CREATE FUNCTION custody.coverage() RETURNS TABLE (id text, severity text, schema name, object text, explanation text, fix text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT f.id, f.severity, f.schema, f.object, upper(left(f.problem, 1)) || substr(f.problem, 2) || '. ' || f.consequence, f.fix
  FROM custody.finding f
  ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low'], f.severity), f.id COLLATE "C", f.schema, f.object COLLATE "C", f.problem COLLATE "C"
$$;
COMMENT ON FUNCTION custody.coverage() IS 'Where tenants are not kept apart, from the catalogs: policies, roles, grants, what steps around row-level security, keys. Each with the SQL that fixes it. It judges what is declared; whether a predicate means what it should, only a test can tell';

CREATE FUNCTION custody.unprotected_tables() RETURNS TABLE (schema name, "table" name, reason text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT f.schema, c.relname, string_agg(f.problem, '; ' ORDER BY f.id, f.problem)
  FROM custody.finding f JOIN pg_class c ON c.oid = f.relid
  WHERE f.id IN ('CU001', 'CU002', 'CU003', 'CU005', 'CU006', 'CU008', 'CU032')
  GROUP BY f.schema, c.oid, c.relname ORDER BY f.schema, c.relname
$$;
COMMENT ON FUNCTION custody.unprotected_tables() IS 'Tables without isolation: neither protected, nor registered shared, nor under row-level security of their own that tests the tenant. Empty is good';

CREATE FUNCTION custody.assert_coverage(min_severity text DEFAULT 'medium') RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  severities CONSTANT text[] := ARRAY['critical', 'high', 'medium', 'low'];
  worst integer := array_position(severities, min_severity);
  lines text[];
BEGIN
  IF worst IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'UC041',
      MESSAGE = format('there is no severity %s', coalesce(quote_ident(min_severity), 'NULL')),
      HINT = 'The severities are critical, high, medium and low.';
  END IF;
  SELECT array_agg(format('%s %s %s: %s', f.severity, f.id, f.object, f.explanation)) INTO lines
  FROM custody.coverage() f WHERE f.severity = ANY (severities[:worst]);
  IF lines IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'UC040',
      MESSAGE = format('%s isolation finding%s of severity %s or worse', cardinality(lines), CASE cardinality(lines) WHEN 1 THEN '' ELSE 's' END, min_severity),
      -- What a message may hold is limited by who reads it; the worst come first.
      DETAIL = array_to_string(lines[:200], E'\n') || CASE WHEN cardinality(lines) > 200 THEN format(E'\nand %s more', cardinality(lines) - 200) ELSE '' END,
      HINT = 'SELECT * FROM custody.coverage() gives the SQL that fixes each.';
  END IF;
END $$;
COMMENT ON FUNCTION custody.assert_coverage(text) IS 'For CI and start-up checks: raises UC040 with the findings of this severity or worse (critical, high, medium, low), or does nothing';
