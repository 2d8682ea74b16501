-- Isolation proved by attempt. It runs as its caller, who must be able to do all this anyway; the statements that are attempted run as
-- the role that is probed.
CREATE FUNCTION custody.probe(target regclass, role regrole DEFAULT NULL, tenant_column name DEFAULT NULL, tenant_setting text DEFAULT NULL)
RETURNS TABLE (attempt text, route text, context text, outcome text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_probe';
COMMENT ON FUNCTION custody.probe(regclass, regrole, name, text) IS 'Tries, as a constrained role, for two tenants, for none and for ones that do not exist, to read, change, count or detect other tenants'' rows of the table, by every route that the role can reach; all of it is rolled back, and one PROBE entry is left. The first row is the summary; each further row is one attempt: passed, leaked or undecided. role: whom to probe as, else the member of custody_app that can do most with the table. tenant_column: where the registry does not know it. tenant_setting: a setting that hand-written policies read the tenant from. Errors: UC045 this cannot be probed, or not now; UC046 you may not. See docs/probe.md';
REVOKE ALL ON FUNCTION custody.probe(regclass, regrole, name, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.probe(regclass, regrole, name, text) TO custody_admin;
