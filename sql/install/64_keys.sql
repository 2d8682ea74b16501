-- The life of the signing key (docs/keys.md). What each change means for verification: docs/format.md, sections 5 and 8.

CREATE FUNCTION custody.rotate_signing_key() RETURNS text
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_rotate_signing_key';
COMMENT ON FUNCTION custody.rotate_signing_key() IS 'Makes a new signing key, which the present one vouches for, and returns its fingerprint. Transactions that take a lane after the commit sign with it; the old key ends when no transaction can use it any more, at a checkpoint. A pin of the old key holds on. Errors: UC034 the present key cannot be read, UC036 in a transaction that is to be prepared';

CREATE FUNCTION custody.retire_signing_keys() RETURNS integer
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_retire_signing_keys';
COMMENT ON FUNCTION custody.retire_signing_keys() IS 'Ends the keys that were replaced and that no running or prepared transaction can use any more, whatever custody.key_overlap says; and removes the files of keys that ended before. Returns how many keys it ended. Every checkpoint does it by itself';

CREATE FUNCTION custody.revoke_signing_key(key_id text, checkpoint bigint, reason text) RETURNS pg_lsn
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_revoke_signing_key';
COMMENT ON FUNCTION custody.revoke_signing_key(text, bigint, text) IS 'Ends a key that is in the wrong hands as of a checkpoint, by its counter: what the key signed later is not valid, and it vouches for no other key. Returns the last position at which it is valid. Pin the present key''s fingerprint as well. Errors: UC037 the key is the present one, unknown, or revoked already; there is no such checkpoint';

CREATE FUNCTION custody.recover_signing_key(reason text) RETURNS text
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_recover_signing_key';
COMMENT ON FUNCTION custody.recover_signing_key(text) IS 'Makes a new signing key in place of one whose private half is lost, and returns its fingerprint. Nothing vouches for it: pin it as well; custody.verify() says key_recovered. With custody.recover_lost_key, a change of an audited table does it by itself. Errors: UC037 the present key can be read';

REVOKE ALL ON FUNCTION custody.rotate_signing_key(), custody.retire_signing_keys(), custody.revoke_signing_key(text, bigint, text), custody.recover_signing_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.rotate_signing_key(), custody.retire_signing_keys(), custody.revoke_signing_key(text, bigint, text), custody.recover_signing_key(text) TO custody_admin;
