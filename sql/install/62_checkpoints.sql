-- Checkpoints: signed statements of how far the log goes, for others to hold. Formats: docs/format.md, section 9.

CREATE TABLE custody.checkpoint_leaf (
  incarnation   uuid NOT NULL,
  counter       bigint NOT NULL CHECK (counter >= 0),
  at            timestamptz NOT NULL,
  lsn           pg_lsn NOT NULL,
  keys          bytea NOT NULL CHECK (pg_catalog.length(keys) = 32),
  configuration bytea NOT NULL CHECK (pg_catalog.length(configuration) = 32),
  tenants       bigint NOT NULL,
  map           bytea NOT NULL CHECK (pg_catalog.length(map) = 32),
  PRIMARY KEY (incarnation, counter)
);
COMMENT ON TABLE custody.checkpoint_leaf IS 'What each checkpoint says of the log: the leaves of one tree an incarnation (RFC 6962), as docs/format.md section 9 encodes them';

CREATE TABLE custody.checkpoint_head (
  incarnation uuid NOT NULL,
  tenant      text COLLATE "C" NOT NULL,
  counter     bigint NOT NULL,
  digest      bytea NOT NULL CHECK (pg_catalog.length(digest) = 32),
  heads       jsonb NOT NULL,
  PRIMARY KEY (incarnation, tenant, counter)
);
COMMENT ON TABLE custody.checkpoint_head IS 'Where a tenant''s chains ended at a checkpoint, for the checkpoints at which they had moved since the one before';

CREATE TABLE custody.checkpoint_node (
  incarnation uuid NOT NULL,
  level       smallint NOT NULL CHECK (level >= 0),
  index       bigint NOT NULL CHECK (index >= 0),
  hash        bytea NOT NULL CHECK (pg_catalog.length(hash) = 32),
  PRIMARY KEY (incarnation, level, index)
);
COMMENT ON TABLE custody.checkpoint_node IS 'The complete subtrees of the trees of checkpoints, from which proofs are made without reading the leaves';

CREATE TABLE custody.checkpoint_note (
  incarnation uuid NOT NULL,
  size        bigint NOT NULL CHECK (size > 0),
  note        text COLLATE "C" NOT NULL,
  PRIMARY KEY (incarnation, size)
);
COMMENT ON TABLE custody.checkpoint_note IS 'The signed notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), each made from leaves that were durable before';

SELECT pg_catalog.pg_extension_config_dump('custody.checkpoint_leaf', '');
SELECT pg_catalog.pg_extension_config_dump('custody.checkpoint_head', '');
SELECT pg_catalog.pg_extension_config_dump('custody.checkpoint_node', '');
SELECT pg_catalog.pg_extension_config_dump('custody.checkpoint_note', '');
GRANT SELECT ON custody.checkpoint_leaf, custody.checkpoint_head, custody.checkpoint_node, custody.checkpoint_note TO custody_auditor;

CREATE VIEW custody.checkpoints WITH (security_invoker = on) AS
SELECT n.incarnation, n.size, l.at, l.lsn, l.tenants, n.note
FROM custody.checkpoint_note n LEFT JOIN custody.checkpoint_leaf l ON l.incarnation = n.incarnation AND l.counter = n.size - 1;
COMMENT ON VIEW custody.checkpoints IS 'The checkpoints that were signed. Keep the note of the last one outside the database, and give it to custody.verify(checkpoints)';
GRANT SELECT ON custody.checkpoints TO custody_auditor;

CREATE FUNCTION custody.checkpoint_begin() RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_checkpoint_begin';
COMMENT ON FUNCTION custody.checkpoint_begin() IS 'Internal, first part of custody.checkpoint(): starts a new incarnation if one is due';

CREATE FUNCTION custody.checkpoint_leaf() RETURNS bigint
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_checkpoint_leaf';
COMMENT ON FUNCTION custody.checkpoint_leaf() IS 'Internal, second part of custody.checkpoint(): appends a leaf, to be committed durably before anything is signed. Returns its counter. Errors: UC051';

CREATE FUNCTION custody.checkpoint_sign() RETURNS text
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_checkpoint_sign';
COMMENT ON FUNCTION custody.checkpoint_sign() IS 'Internal, last part of custody.checkpoint(): signs the tree of the leaves that are committed, and returns the note. Errors: UC051';

-- It commits, so it can have neither a search_path nor an owner of its own: nothing in it is looked up by a bare name.
CREATE PROCEDURE custody.checkpoint() LANGUAGE plpgsql AS $$
BEGIN
  -- Each part in a transaction of its own, whatever the session's default is.
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  PERFORM custody.checkpoint_begin();
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  PERFORM custody.checkpoint_leaf();
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  PERFORM custody.checkpoint_sign();
  COMMIT;
END $$;
COMMENT ON PROCEDURE custody.checkpoint() IS 'Makes a checkpoint: a leaf that says where every chain ends, committed durably; then, in a transaction of its own, the signed note (custody.checkpoints). To be called outside of a transaction block, by hand or from cron. Errors: UC051 within a transaction that has written; 2D000 within a transaction block';

CREATE FUNCTION custody.checkpoint_key(incarnation uuid DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_checkpoint_key';
COMMENT ON FUNCTION custody.checkpoint_key(uuid) IS 'The key that signs checkpoints of an incarnation (the present one), as other tools read it: name+hash+base64 (c2sp.org/signed-note). Keep it outside the database';

CREATE FUNCTION custody.checkpoint_keys(incarnation uuid DEFAULT NULL) RETURNS SETOF text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_checkpoint_keys';
COMMENT ON FUNCTION custody.checkpoint_keys(uuid) IS 'All keys of an incarnation (the present one), in the form of custody.checkpoint_key(): the one that signs now, then those before it. While one replaces another, both sign';

CREATE FUNCTION custody.inclusion_proof(counter bigint, incarnation uuid DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_inclusion_proof';
COMMENT ON FUNCTION custody.inclusion_proof(bigint, uuid) IS 'That the leaf of a checkpoint is in the tree of the last signed one: the text of a .tlog-proof file (c2sp.org/tlog-proof). NULL if there is no such leaf, or it is not signed yet';

CREATE FUNCTION custody.consistency_proof(old_size bigint, new_size bigint, incarnation uuid DEFAULT NULL) RETURNS text[]
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_consistency_proof';
COMMENT ON FUNCTION custody.consistency_proof(bigint, bigint, uuid) IS 'That the tree of the greater size goes on from the smaller one: hashes in base64 (RFC 6962 section 2.1.2). NULL unless 0 < old_size <= new_size, and no larger than the tree';

CREATE FUNCTION custody.tenant_proof(tenant text, incarnation uuid DEFAULT NULL) RETURNS jsonb
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_tenant_proof';
COMMENT ON FUNCTION custody.tenant_proof(text, uuid) IS 'That these are all of a tenant''s chains at the last signed checkpoint, without a word about other tenants: its heads, their path in the map, the leaf, and the leaf''s .tlog-proof (docs/format.md, section 9). NULL if the checkpoint knows no such tenant';

REVOKE ALL ON FUNCTION custody.checkpoint_begin(), custody.checkpoint_leaf(), custody.checkpoint_sign(), custody.checkpoint_key(uuid), custody.checkpoint_keys(uuid), custody.inclusion_proof(bigint, uuid),
  custody.consistency_proof(bigint, bigint, uuid), custody.tenant_proof(text, uuid) FROM PUBLIC;
REVOKE ALL ON PROCEDURE custody.checkpoint() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.checkpoint_begin(), custody.checkpoint_leaf(), custody.checkpoint_sign() TO custody_admin;
GRANT EXECUTE ON PROCEDURE custody.checkpoint() TO custody_admin;
GRANT EXECUTE ON FUNCTION custody.checkpoint_key(uuid), custody.checkpoint_keys(uuid), custody.inclusion_proof(bigint, uuid), custody.consistency_proof(bigint, bigint, uuid), custody.tenant_proof(text, uuid) TO custody_auditor;
