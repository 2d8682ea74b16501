-- Tokens: the keys they may be signed with, those that were used, and those that hold no more (docs/tokens.md).

COMMENT ON COLUMN custody.token_key.public_key IS 'In one form: 32 bytes of Ed25519, an uncompressed point of P-256 (65 bytes), or a DER RSAPublicKey';
COMMENT ON COLUMN custody.token_key.key_set IS 'The key set that custody.load_token_keys took it from; NULL if custody.add_token_key registered it';
COMMENT ON COLUMN custody.token_key.issuer IS 'What iss must be; NULL: it is not looked at';
COMMENT ON COLUMN custody.token_key.role_claim IS 'The claim that must be, or hold, the name of the role that logged in; NULL: none';
COMMENT ON COLUMN custody.token_key.max_lifetime IS 'The most seconds from iat (without one: from now) to exp; NULL: no limit';
COMMENT ON COLUMN custody.token_key.single_use IS 'Whether its tokens need a jti and hold for one transaction';

CREATE TABLE custody.token_seen (
  kid        text COLLATE "C" NOT NULL,
  jti        text COLLATE "C" NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (kid, jti)
);
COMMENT ON TABLE custody.token_seen IS 'Tokens that held once and were used, whatever became of the transaction: rows are not rolled back. custody.forget_seen_tokens() drops those that have expired';
SELECT pg_catalog.pg_extension_config_dump('custody.token_seen', '');
GRANT SELECT ON custody.token_seen TO custody_auditor;

CREATE FUNCTION custody.add_token_key(kid text, public_key bytea, audience text, tenant_claim text DEFAULT 'tenant', algorithm text DEFAULT 'EdDSA',
  not_before timestamptz DEFAULT pg_catalog.now(), not_after timestamptz DEFAULT NULL, issuer text DEFAULT NULL, role_claim text DEFAULT NULL,
  max_lifetime integer DEFAULT NULL, single_use boolean DEFAULT false) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_add_token_key';
COMMENT ON FUNCTION custody.add_token_key(text, bytea, text, text, text, timestamptz, timestamptz, text, text, integer, boolean) IS 'Registers a key that tokens may be signed with (EdDSA: 32 bytes of Ed25519; ES256: a point of P-256, 65 bytes; RS256: a DER RSAPublicKey of 2048 to 8192 bits; or the DER SubjectPublicKeyInfo of any), and what they must say: the audience (aud), the claim that names the tenant and, if given, the issuer (iss), the claim that names the database role, the most seconds they may be valid (max_lifetime), that they hold once (single_use, by jti). Errors: UC013 no such key';

CREATE FUNCTION custody.load_token_keys(jwks text, audience text, tenant_claim text DEFAULT 'tenant', key_set text DEFAULT 'default', overlap interval DEFAULT '1 hour',
  issuer text DEFAULT NULL, role_claim text DEFAULT NULL, max_lifetime integer DEFAULT NULL, single_use boolean DEFAULT false)
RETURNS TABLE (kid text, algorithm text, action text, reason text, not_after timestamptz)
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_load_token_keys';
COMMENT ON FUNCTION custody.load_token_keys(text, text, text, text, interval, text, text, integer, boolean) IS 'Makes a key set what an issuer publishes (JWKS, RFC 7517; as text, since jsonb would hide a member given twice): one row a key, with what was done and why: added, kept, changed (its rules), replaced (its key), ignored, retired (no longer in the set: refused after the overlap), removed (retired, and over). The other arguments are as for custody.add_token_key, for all keys of the set. Errors: UC070 a set that is malformed, holds a secret or gives no usable key; then nothing is changed';

CREATE FUNCTION custody.remove_token_key(kid text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ DELETE FROM custody.token_key k WHERE k.kid = $1 $$;
COMMENT ON FUNCTION custody.remove_token_key(text) IS 'Refuses all tokens of this key from the commit on, in open transactions too (UC071)';

CREATE FUNCTION custody.revoke_tokens(subject text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ INSERT INTO custody.token_revocation AS r (subject, revoked_before) VALUES ($1, pg_catalog.clock_timestamp())
      ON CONFLICT ON CONSTRAINT token_revocation_pkey DO UPDATE SET revoked_before = greatest(r.revoked_before, excluded.revoked_before) $$;
COMMENT ON FUNCTION custody.revoke_tokens(text) IS 'Refuses this subject''s tokens that were issued (iat) up to now, or that do not say when: from the commit on, in every session, open transactions included (UC071)';

CREATE FUNCTION custody.forget_seen_tokens() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ WITH gone AS (DELETE FROM custody.token_seen s WHERE s.expires_at < pg_catalog.now() RETURNING 1) SELECT pg_catalog.count(*) FROM gone $$;
COMMENT ON FUNCTION custody.forget_seen_tokens() IS 'Drops what is kept of single-use tokens that have expired, and says how many those were. For cron; it waits for nobody';

REVOKE ALL ON FUNCTION custody.add_token_key(text, bytea, text, text, text, timestamptz, timestamptz, text, text, integer, boolean),
  custody.load_token_keys(text, text, text, text, interval, text, text, integer, boolean), custody.remove_token_key(text), custody.revoke_tokens(text),
  custody.forget_seen_tokens() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.add_token_key(text, bytea, text, text, text, timestamptz, timestamptz, text, text, integer, boolean),
  custody.load_token_keys(text, text, text, text, interval, text, text, integer, boolean), custody.remove_token_key(text), custody.revoke_tokens(text),
  custody.forget_seen_tokens() TO custody_admin;
