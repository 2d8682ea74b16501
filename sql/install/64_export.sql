-- What leaves the database: where chains end, and the log itself. Formats: docs/format.md, section 7.

CREATE FUNCTION custody.flush_wal() RETURNS void
LANGUAGE c VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_flush_wal';
COMMENT ON FUNCTION custody.flush_wal() IS 'Internal: brings to the server''s disk whatever this snapshot sees. What has been exported, a crash must not take back, though its commit did not wait for the disk';
REVOKE ALL ON FUNCTION custody.flush_wal() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.flush_wal() TO custody_auditor;

-- In these, workers of a parallel query would not see what this transaction's own flush wrote.
CREATE OR REPLACE FUNCTION custody.heads() RETURNS TABLE (incarnation uuid, tenant text, lane integer, seq bigint, hash text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET max_parallel_workers_per_gather = 0 AS $$
  SELECT custody.flush_wal();
  -- From chain to chain along the index, however long each is.
  WITH RECURSIVE chain AS (
    (SELECT e.tenant, e.incarnation, e.lane FROM custody.entry e WHERE e.signs_run OR e.actor_seq = e.seq ORDER BY 1, 2, 3 LIMIT 1)
    UNION ALL
    SELECT n.* FROM chain c CROSS JOIN LATERAL (
      SELECT e.tenant, e.incarnation, e.lane FROM custody.entry e
      WHERE (e.signs_run OR e.actor_seq = e.seq) AND (e.tenant, e.incarnation, e.lane) > (c.tenant, c.incarnation, c.lane) ORDER BY 1, 2, 3 LIMIT 1) n
  )
  SELECT last.* FROM chain c CROSS JOIN LATERAL (
    SELECT e.incarnation, e.tenant, e.lane, e.seq, encode(e.hash, 'hex') FROM custody.entry e
    WHERE e.tenant = c.tenant AND e.incarnation = c.incarnation AND e.lane = c.lane AND (e.signs_run OR e.actor_seq = e.seq)
    ORDER BY e.seq DESC LIMIT 1) last
$$;
COMMENT ON FUNCTION custody.heads() IS 'The end of every chain. Keep SELECT jsonb_agg(h) FROM custody.heads() h outside the database: held against it, custody.verify(heads) finds a chain that was cut short or rewritten';

CREATE OR REPLACE FUNCTION custody.export_log(tenant text DEFAULT NULL) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET max_parallel_workers_per_gather = 0 AS $$
  SELECT custody.flush_wal();
  SELECT json_build_object('record', 'key', 'key_id', k.key_id, 'incarnation', k.incarnation, 'public_key', encode(k.public_key, 'hex'),
           'fingerprint', k.fingerprint, 'predecessor', k.predecessor, 'endorsement', encode(k.endorsement, 'hex'),
           'from_lsn', k.from_lsn - '0/0'::pg_lsn, 'recovers', k.recovers, 'ended', k.ended, 'until_lsn', k.until_lsn - '0/0'::pg_lsn,
           'ended_by', k.ended_by, 'end_signature', encode(k.end_signature, 'hex'))::text
  FROM (SELECT * FROM custody.signing_key ORDER BY created_at, key_id) k
  UNION ALL
  SELECT json_build_object('record', 'entry', 'incarnation', e.incarnation, 'tenant', e.tenant, 'lane', e.lane, 'seq', e.seq, 'format', e.format,
           'lsn', e.lsn - '0/0'::pg_lsn, 'ordinal', e.ordinal, 'at', (extract(epoch FROM e.at) * 1000000)::bigint, 'xid', e.xid::text::bigint,
           'op', e.op, 'schema_name', e.schema_name, 'table_name', e.table_name, 'login_role', e.login_role, 'acting_role', e.acting_role,
           'move_id', e.move_id, 'actor_seq', e.actor_seq, 'signs_run', e.signs_run, 'key_id', e.key_id,
           'actor_salt', encode(e.actor_salt, 'hex'), 'actor', e.actor, 'row_salt', encode(e.row_salt, 'hex'),
           'row_key', e.row_key, 'old', e.old, 'new', e.new,
           'actor_digest', encode(e.actor_digest, 'hex'), 'row_digest', encode(e.row_digest, 'hex'),
           'prev_hash', encode(e.prev_hash, 'hex'), 'hash', encode(e.hash, 'hex'), 'signature', encode(e.signature, 'hex'))::text
  FROM (SELECT * FROM custody.entry WHERE export_log.tenant IS NULL OR entry.tenant = export_log.tenant
        ORDER BY entry.tenant, entry.incarnation, entry.lane, entry.seq) e
$$;
COMMENT ON FUNCTION custody.export_log(text) IS 'The log, or one tenant''s chains, as JSON Lines (docs/format.md, section 7), to be verified without this database: \copy (SELECT custody.export_log()) TO ''log.jsonl'' needs psql''s \copy with (FORMAT csv, QUOTE e''\x01'', DELIMITER e''\x02'')';
