-- What a monitoring system looks at. Nothing here reads the log itself: each is as cheap as a look at pg_stat_activity.

CREATE VIEW custody.stat_lanes AS
SELECT l.objid::bigint AS lane, l.pid, p.gid AS prepared, coalesce(p.owner, a.usename) AS role, coalesce(p.prepared, a.xact_start) AS since
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
-- A prepared transaction has no process, but the lock on its own id.
LEFT JOIN LATERAL (SELECT p.* FROM pg_catalog.pg_locks x JOIN pg_catalog.pg_prepared_xacts p ON p.transaction::text = x.transactionid::text
                   WHERE x.locktype = 'transactionid' AND x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction) p ON l.pid IS NULL
-- 0xC057, which tells our locks from those of pg_advisory_lock, as a signed number.
WHERE l.locktype = 'advisory' AND l.objsubid = -16297 AND l.classid = 0 AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database());
COMMENT ON VIEW custody.stat_lanes IS 'The transactions that write to the log just now, one lane each. Nobody waits for a lane; a prepared transaction that is never resolved keeps its own';
COMMENT ON COLUMN custody.stat_lanes.prepared IS 'The name of the prepared transaction, if it is one';

CREATE VIEW custody.stat_log AS
WITH part AS (SELECT 'custody.entry'::pg_catalog.regclass AS relid UNION
              SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = 'custody.entry'::pg_catalog.regclass)
SELECT n.incarnation,
       (SELECT pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(part.relid))::bigint FROM part) AS entries_written,
       (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(part.relid))::bigint FROM part) AS bytes,
       (SELECT pg_catalog.count(*) FROM custody.audited_table) AS audited_tables,
       (SELECT pg_catalog.count(*) FROM custody.stat_lanes) AS lanes_held,
       (SELECT pg_catalog.count(*) FROM custody.stat_lanes l WHERE l.prepared IS NOT NULL) AS lanes_prepared,
       c.size AS checkpoint_size, c.at AS checkpoint_at,
       v.started_at AS verified_at, v.finished_at - v.started_at AS verification_took, v.verdict, pg_catalog.jsonb_array_length(v.findings) AS findings
FROM custody.instance n
-- Not by the view custody.checkpoints, which asks for the privileges of whoever looks.
LEFT JOIN LATERAL (SELECT k.size, f.at FROM custody.checkpoint_note k
                   LEFT JOIN custody.checkpoint_leaf f ON f.incarnation = k.incarnation AND f.counter = k.size - 1
                   WHERE k.incarnation = n.incarnation ORDER BY k.size DESC LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT r.started_at, r.finished_at, r.verdict, r.findings FROM custody.verifications r ORDER BY r.id DESC LIMIT 1) v ON true;
COMMENT ON VIEW custody.stat_log IS 'One row: what was written, who writes, the last checkpoint, the last verification';
COMMENT ON COLUMN custody.stat_log.entries_written IS 'Entries since the statistics were last reset (pg_stat_reset), those of transactions that were rolled back included';
COMMENT ON COLUMN custody.stat_log.bytes IS 'The log''s size on disk, with its indexes';
COMMENT ON COLUMN custody.stat_log.lanes_held IS 'Transactions that write to the log just now';
COMMENT ON COLUMN custody.stat_log.findings IS 'What the last verification found, at most 1000';

CREATE FUNCTION custody.metrics() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH s AS MATERIALIZED (SELECT * FROM custody.stat_log),
  oldest AS (SELECT coalesce(extract(epoch FROM now() - min(l.since)), 0) AS age FROM custody.stat_lanes l)
  SELECT m.line
  FROM s CROSS JOIN oldest CROSS JOIN LATERAL (VALUES
    ('entries_written_total', 'counter', 'Entries written since the statistics were reset', s.entries_written::numeric),
    ('log_bytes', 'gauge', 'Size of the log on disk, with its indexes', s.bytes),
    ('audited_tables', 'gauge', 'Tables under custody.audit', s.audited_tables),
    ('lanes_held', 'gauge', 'Transactions that write to the log just now', s.lanes_held),
    ('lanes_prepared', 'gauge', 'Prepared transactions among them', s.lanes_prepared),
    ('lane_oldest_seconds', 'gauge', 'Age of the oldest of them', oldest.age),
    ('checkpoint_size', 'gauge', 'Leaves under the last signed checkpoint', s.checkpoint_size),
    ('checkpoint_age_seconds', 'gauge', 'Time since the last signed checkpoint was begun', extract(epoch FROM clock_timestamp() - s.checkpoint_at)),
    ('verification_age_seconds', 'gauge', 'Time since the last verification began', extract(epoch FROM clock_timestamp() - s.verified_at)),
    ('verification_seconds', 'gauge', 'How long it took', extract(epoch FROM s.verification_took)),
    ('verification_valid', 'gauge', '1 if it found the log valid, else 0', (s.verdict = 'valid')::int)
  ) AS g (name, kind, help, value)
  CROSS JOIN LATERAL (VALUES (1, format('# HELP custody_%s %s', g.name, g.help)), (2, format('# TYPE custody_%s %s', g.name, g.kind)),
                             (3, format('custody_%s{database=%s} %s', g.name, to_json(current_database()), g.value))) AS m (place, line)
  -- What there is no value of yet is left out, as no value would be true.
  WHERE g.value IS NOT NULL
$$;
COMMENT ON FUNCTION custody.metrics() IS 'custody.stat_log as Prometheus''s text format (version 0.0.4), a line a row: psql -XAtc ''SELECT custody.metrics()''. What has no value yet is left out: alert on its absence too';

REVOKE ALL ON FUNCTION custody.metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.metrics() TO custody_auditor, custody_admin, pg_monitor;
GRANT SELECT ON custody.stat_log, custody.stat_lanes TO custody_auditor, custody_admin, pg_monitor;
GRANT USAGE ON SCHEMA custody TO pg_monitor;
