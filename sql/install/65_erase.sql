-- Erasure: what is personal goes, the chain stays.

CREATE FUNCTION custody.erase(tenant text, target regclass, key jsonb, reason text, former_names text[] DEFAULT '{}')
RETURNS TABLE (state text, object text, entries bigint, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS 'MODULE_PATHNAME', 'custody_erase';
COMMENT ON FUNCTION custody.erase(text, regclass, jsonb, text, text[]) IS 'Takes a row''s key and images, and their salts, out of the tenant''s log, through its moves to other keys; the chain stays whole, and an entry ERASE says what was erased and why. Returns what was erased, and what was not reached. It deletes no row. Errors: UC080 nothing to erase, UC081 not here. docs/erasure.md';
CREATE FUNCTION custody.erase_actor(tenant text, subject text, reason text)
RETURNS TABLE (state text, object text, entries bigint, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_erase_actor';
COMMENT ON FUNCTION custody.erase_actor(text, text, text) IS 'Takes who acted (subject, claims, address, application, request) out of the entries of a tenant in which a subject did; reads all of the tenant''s log. Otherwise as custody.erase';
CREATE FUNCTION custody.scrub() RETURNS TABLE (object text, pages bigint, remaining bigint, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_scrub';
COMMENT ON FUNCTION custody.scrub() IS 'Overwrites what erased entries left in the files of the log: dead versions, free room of pages, summaries of keys in the index. To be called after the erasure is committed; remaining counts what somebody can still see. Reads all of the log';

REVOKE ALL ON FUNCTION custody.erase(text, regclass, jsonb, text, text[]), custody.erase_actor(text, text, text), custody.scrub() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.erase(text, regclass, jsonb, text, text[]), custody.erase_actor(text, text, text), custody.scrub() TO custody_admin;

-- Statistics would keep values of it: the most common ones, and those that part the rest.
ALTER TABLE custody.entry ALTER COLUMN actor SET STATISTICS 0, ALTER COLUMN row_key SET STATISTICS 0, ALTER COLUMN old SET STATISTICS 0, ALTER COLUMN new SET STATISTICS 0,
  ALTER COLUMN actor_salt SET STATISTICS 0, ALTER COLUMN row_salt SET STATISTICS 0;
ALTER INDEX custody.entry_search ALTER COLUMN 3 SET STATISTICS 0;
