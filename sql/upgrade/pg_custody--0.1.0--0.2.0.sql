-- From 0.1.0 to 0.2.0. A line `--@ FILE` stands for sql/install/FILE. What was released stays as it is: tables are altered, and keep
-- their rows. tests/tests/upgrade.rs holds the outcome against a fresh installation.

-- Evidence: checkpoints. Verification takes notes from outside.
DROP FUNCTION custody.verify(text, jsonb, text);
DROP FUNCTION custody.assert_verified(text, jsonb);
--@ 61_verify.sql
--@ 62_checkpoints.sql
--@ 63_verifications.sql
-- Protecting what is in use.
--@ 42_protect_schema.sql
COMMENT ON FUNCTION custody.protect(regclass, name, boolean) IS 'Keeps the table''s tenants apart: row-level security enabled and forced, a permissive policy, a restrictive floor, NOT NULL, a default from the context, an index led by the tenant column, refusal of writes without a context; the same on its partitions. Returns what it did, with the lock each step takes and who waits for it; with dry_run what is to be done, each step in the form that the fewest wait for (custody.protect_script gives those to be run). Rows whose lock is ''report'' are findings it never acts on. Idempotent. Errors: UC020 this table cannot be protected';
-- What each installation says of its own promises.
--@ 78_posture.sql
-- Tokens. The keys of before are right under the wider rules, and no rule that they had is lost.
ALTER TABLE custody.token_key
  DROP CONSTRAINT token_key_algorithm_check,
  DROP CONSTRAINT token_key_public_key_check,
  ADD CONSTRAINT token_key_algorithm_check CHECK (algorithm IN ('EdDSA', 'ES256', 'RS256')),
  ADD CONSTRAINT token_key_public_key_check CHECK (pg_catalog.length(public_key) BETWEEN 32 AND 1100),
  ADD COLUMN key_set text COLLATE "C" CHECK (key_set <> ''),
  ADD COLUMN issuer text CHECK (issuer <> ''),
  ADD COLUMN role_claim text CHECK (role_claim <> ''),
  ADD COLUMN max_lifetime integer CHECK (max_lifetime > 0),
  ADD COLUMN single_use boolean NOT NULL DEFAULT false;
DROP FUNCTION custody.add_token_key(text, bytea, text, text, text, timestamptz, timestamptz);
DROP FUNCTION custody.remove_token_key(text);
DROP FUNCTION custody.revoke_tokens(text);
--@ 35_tokens.sql
COMMENT ON FUNCTION custody.tenant() IS 'The tenant this transaction acts for, or NULL. Raises UC005 once the token that set it has expired, UC071 once it was revoked or its key is gone';
COMMENT ON FUNCTION custody.authenticate(text) IS 'Sets the context of this transaction from a signed token (compact JWS; EdDSA, ES256 or RS256 as its key is; kid, aud and exp required; docs/tokens.md). Errors: UC004 a refused token, UC003 another context is set, UC002 the role is bound to another tenant, UC072 a token that holds once, on a standby. Pass the token as a bind parameter';
