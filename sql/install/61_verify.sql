-- Verification.

CREATE FUNCTION custody.verify(pin text DEFAULT NULL, heads jsonb DEFAULT NULL, tenant text DEFAULT NULL, checkpoints text[] DEFAULT NULL, witnesses text[] DEFAULT NULL)
RETURNS TABLE (verdict text, incarnation uuid, tenant text, lane integer, seq bigint, detail text)
LANGUAGE c STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_verify';
COMMENT ON FUNCTION custody.verify(text, jsonb, text, text[], text[]) IS 'Walks the chains. The first row is the summary: valid, invalid or empty, and what was checked; each further row is one finding. pin: the fingerprint of a key that you trust, or several with blanks between (after a restore, the old life''s and the new one''s). heads: custody.heads() as kept from before. tenant: only its chains. checkpoints: notes of custody.checkpoints as kept from before. witnesses: keys of witnesses (name+hash+base64), each of which must have cosigned each of those notes. How far it got, as assurance: docs/evidence.md. Verdicts: docs/format.md, section 8';

CREATE FUNCTION custody.assert_verified(pin text DEFAULT NULL, heads jsonb DEFAULT NULL, checkpoints text[] DEFAULT NULL, witnesses text[] DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_assert_verified';
COMMENT ON FUNCTION custody.assert_verified(text, jsonb, text[], text[]) IS 'custody.verify() for a script: returns the summary, or raises UC050 with the findings';

REVOKE ALL ON FUNCTION custody.verify(text, jsonb, text, text[], text[]), custody.assert_verified(text, jsonb, text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.verify(text, jsonb, text, text[], text[]), custody.assert_verified(text, jsonb, text[], text[]) TO custody_auditor;
