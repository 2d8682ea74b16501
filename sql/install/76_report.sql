-- The findings and their waivers, as other tools read them. crates/core writes the formats.

CREATE FUNCTION custody.coverage_report(format text DEFAULT 'text', min_severity text DEFAULT 'medium') RETURNS text
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_coverage_report';
COMMENT ON FUNCTION custody.coverage_report(text, text) IS 'What custody.coverage() finds and what is waived, as text, json, sarif (2.1.0), junit or markdown; in all but SARIF, findings below min_severity do not fail. psql -qAt -c "select custody.coverage_report(''sarif'')" > coverage.sarif. Errors: UC013, UC041';
REVOKE ALL ON FUNCTION custody.coverage_report(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.coverage_report(text, text) TO custody_auditor;
