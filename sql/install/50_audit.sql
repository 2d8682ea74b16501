-- Capture, and reading what was captured.

CREATE FUNCTION custody.key_hash(row_key text) RETURNS bigint LANGUAGE c IMMUTABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'custody_key_hash';
COMMENT ON FUNCTION custody.key_hash(text) IS 'The first 64 bits of a key''s SHA-256, by which custody.history finds it; NULL for NULL. Leakproof: it never fails and shows nothing';
-- What every writer pays for is kept small (docs/decisions/0007). Only entries where a run begins or ends are in a btree: there a
-- chain's end, an entry's actor and its signature are found. Times, tenants and keys are found by summaries of 64 pages each, made in
-- the background: keys by a hash, as one may be long.
CREATE UNIQUE INDEX entry_runs ON custody.entry (tenant, incarnation, lane, seq) WHERE signs_run OR actor_seq = seq;
CREATE INDEX entry_search ON custody.entry USING brin (at, tenant text_bloom_ops, custody.key_hash(row_key) int8_bloom_ops) WITH (pages_per_range = 64, autosummarize = true);

CREATE FUNCTION custody.capture() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'custody_capture';
COMMENT ON FUNCTION custody.capture() IS 'Row trigger of audited tables: writes the entry or fails the change. Refuses tables that are not registered (UC030)';
CREATE FUNCTION custody.capture_truncate() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'custody_capture_truncate';
COMMENT ON FUNCTION custody.capture_truncate() IS 'Statement trigger of audited tables: records every row that TRUNCATE removes, and the TRUNCATE';
CREATE FUNCTION custody.append_only() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'custody_append_only';
COMMENT ON FUNCTION custody.append_only() IS 'Trigger of custody.entry: refuses every change (UC031) but the restoring of another incarnation''s entries';

-- The names sort before a user's, so that a trigger of his that changes the row again is recorded after the change itself.
CREATE TRIGGER "!custody_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON custody.entry FOR EACH STATEMENT EXECUTE FUNCTION custody.append_only();
CREATE TRIGGER "!custody_foreign_only" BEFORE INSERT ON custody.entry FOR EACH ROW EXECUTE FUNCTION custody.append_only();
ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER "!custody_append_only", ENABLE ALWAYS TRIGGER "!custody_foreign_only";

ALTER TABLE custody.entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY auditor ON custody.entry FOR SELECT TO custody_auditor USING (true);
CREATE POLICY tenant ON custody.entry FOR SELECT TO custody_app USING (tenant = custody.tenant());
GRANT SELECT ON custody.entry TO custody_app;

CREATE VIEW custody.log WITH (security_invoker = on) AS
SELECT e.incarnation, e.tenant, e.lane, e.seq, e.at, e.op, e.schema_name, e.table_name,
       i.row_key,
       CASE WHEN e.op = 'UPDATE' THEN i.new || i.old ELSE i.old END AS old,
       i.new,
       CASE WHEN e.op = 'UPDATE' AND i.old IS NOT NULL THEN ARRAY(SELECT pg_catalog.jsonb_object_keys(i.old)) END AS changed,
       e.login_role, e.acting_role,
       a.actor::jsonb ->> 'subject' AS subject,
       nullif(a.actor::jsonb -> 'claims', 'null') AS claims,
       (a.actor::jsonb ->> 'client_addr')::inet AS client_addr,
       a.actor::jsonb ->> 'application_name' AS application_name,
       a.actor::jsonb ->> 'request_id' AS request_id,
       e.xid, e.lsn, e.ordinal, e.move_id, e.hash,
       (SELECT s.seq FROM custody.entry s
        WHERE s.tenant = e.tenant AND s.incarnation = e.incarnation AND s.lane = e.lane AND s.seq >= e.seq AND s.signs_run
        ORDER BY s.seq LIMIT 1) AS signed_at,
       custody.key_hash(e.row_key) AS key_hash,
       e.row_salt IS NULL AS erased
FROM custody.entry e
-- A string in jsonb ends at 256 MB, and one such row must not keep the others from being read.
CROSS JOIN LATERAL (SELECT CASE WHEN pg_catalog.octet_length(e.row_key) < 268435456 THEN e.row_key::jsonb END AS row_key,
                           CASE WHEN pg_catalog.octet_length(e.old) < 268435456 THEN e.old::jsonb END AS old,
                           CASE WHEN pg_catalog.octet_length(e.new) < 268435456 THEN e.new::jsonb END AS new) i
LEFT JOIN custody.entry a ON a.tenant = e.tenant AND a.incarnation = e.incarnation AND a.lane = e.lane AND a.seq = e.actor_seq AND a.actor_seq = a.seq;
COMMENT ON VIEW custody.log IS 'The log as people read it: a tenant sees its own entries, an auditor all. Order one row''s by (incarnation, lsn, ordinal)';
COMMENT ON COLUMN custody.log.at IS 'Wall clock at capture: advisory. The order is (incarnation, lsn, ordinal)';
COMMENT ON COLUMN custody.log.new IS 'The row after. NULL if its image is longer than jsonb can hold (256 MB): then it is in custody.entry.new, as text';
COMMENT ON COLUMN custody.log.old IS 'The row before; out-of-line values that an UPDATE did not touch are in neither image';
COMMENT ON COLUMN custody.log.changed IS 'For an UPDATE, the columns whose value changed';
COMMENT ON COLUMN custody.log.acting_role IS 'current_user when the change was captured: differs from login_role after SET ROLE and in definer functions';
COMMENT ON COLUMN custody.log.signed_at IS 'seq of the entry of this chain whose signature covers this one; NULL means unsigned';
COMMENT ON COLUMN custody.log.key_hash IS 'By which custody.history finds a row''s entries';
COMMENT ON COLUMN custody.log.erased IS 'Whether its row (row_key, old, new) was erased: an entry of op ERASE names it, by incarnation, lane and seq';
GRANT SELECT ON custody.log TO custody_app, custody_auditor;

CREATE FUNCTION custody.row_key(target regclass, key jsonb) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 AS $$
  SELECT '{' || string_agg(to_json(a.attname)::text || ':' || coalesce(CASE v.json WHEN '-0' THEN '"-0"' ELSE v.json END, 'null'), ',' ORDER BY k.place) || '}'
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  -- jsonb knows no exponents, which floats are written with.
  CROSS JOIN LATERAL (SELECT CASE a.atttypid WHEN 'float8'::regtype THEN to_json((key ->> a.attname::text)::float8)::text
                                             WHEN 'float4'::regtype THEN to_json((key ->> a.attname::text)::float4)::text
                                             ELSE (key -> a.attname::text)::text END AS json) AS v
  WHERE i.indrelid = target AND i.indisprimary AND k.place <= i.indnkeyatts
$$;
COMMENT ON FUNCTION custody.row_key(regclass, jsonb) IS 'A primary key as the log writes it; values as the log renders them (uuids in lower case, dates in ISO)';

-- The planner takes keys that are spread over the log for keys that are in every range of it, and would read all of it.
CREATE FUNCTION custody.history(target regclass, key jsonb) RETURNS SETOF custody.log LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT l.*
  FROM custody.log l
  LEFT JOIN custody.incarnation i ON i.id = l.incarnation
  JOIN pg_class c ON c.oid = target
  JOIN pg_namespace n ON n.oid = c.relnamespace
  -- As subqueries, so that the key is made once and not for each row that shares a range with it.
  WHERE l.key_hash = (SELECT custody.key_hash(custody.row_key(target, key))) AND l.row_key = (SELECT custody.row_key(target, key)::jsonb)
    AND l.schema_name = n.nspname AND l.table_name = c.relname
  ORDER BY i.started_at, i.id, l.lsn, l.ordinal
$$;
COMMENT ON FUNCTION custody.history(regclass, jsonb) IS 'One row''s life, in order, by its primary key: SELECT * FROM custody.history(''patients'', ''{"organization_id": "a", "id": 1}'')';
GRANT SELECT (id, started_at) ON custody.incarnation TO custody_app;

CREATE FUNCTION custody.audit(target regclass, exclude name[] DEFAULT '{}', redact name[] DEFAULT '{}', baseline text DEFAULT 'rows') RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_audit';
COMMENT ON FUNCTION custody.audit(regclass, name[], name[], text) IS 'Records every change of the table''s rows from now on, in partitions too. exclude: columns left out; redact: columns stored as a keyed digest; baseline: how the rows that are there are recorded (rows: one entry each with its image; digest: with a salted digest; none: custody.baseline later, while writers go on). Refuses what it cannot record (UC032)';
CREATE FUNCTION custody.unaudit(target regclass) RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_unaudit';
COMMENT ON FUNCTION custody.unaudit(regclass) IS 'Stops recording the table; what was recorded stays. Errors: UC033 not audited';

-- What should be there and is not: an audited table, or a partition of one, whose capture triggers are not as custody.audit
-- made them. Read by custody.verify() and compared after every DDL command.
CREATE VIEW custody.own_function AS
SELECT p.oid, p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'custody'::pg_catalog.regnamespace AND l.lanname = 'c' AND p.probin = '$libdir/pg_custody';
COMMENT ON VIEW custody.own_function IS 'Functions of schema custody that are the library''s, and have not been replaced';

CREATE VIEW custody.audited_member AS
-- Not pg_partition_tree, which looks past the snapshot that the rest is read with.
WITH RECURSIVE member (root, relid) AS (
  SELECT a.target, a.target FROM custody.audited_table a
  UNION
  SELECT m.root, h.inhrelid::pg_catalog.regclass
  FROM member m
  JOIN pg_catalog.pg_inherits h ON h.inhparent = m.relid AND NOT h.inhdetachpending
  JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid AND c.relispartition
)
SELECT root, relid FROM member;
COMMENT ON VIEW custody.audited_member IS 'Audited tables, each with its partitions at every level, and itself';

CREATE VIEW custody.capture_gap AS
SELECT m.root, m.relid, w.name AS trigger_name,
       CASE WHEN t.oid IS NULL THEN 'missing' WHEN t.tgenabled <> 'A' THEN 'not enabled always' ELSE 'altered' END AS problem
FROM custody.audited_member m
JOIN pg_catalog.pg_class c ON c.oid = m.relid
CROSS JOIN (VALUES ('!custody_capture', 'custody_capture', 29, 'rp'), ('!custody_truncate', 'custody_capture_truncate', 34, 'r')) AS w (name, symbol, type, kinds)
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = m.relid AND t.tgname = w.name
WHERE pg_catalog.strpos(w.kinds, c.relkind::text) > 0
  AND (t.oid IS NULL OR t.tgenabled <> 'A' OR t.tgtype <> w.type OR t.tgqual IS NOT NULL OR t.tgattr::text <> ''
       OR NOT EXISTS (SELECT FROM custody.own_function f WHERE f.oid = t.tgfoid AND f.prosrc = w.symbol))
UNION ALL
SELECT m.root, m.relid, NULL, 'unlogged: a crash empties it without a trace'
FROM custody.audited_member m JOIN pg_catalog.pg_class c ON c.oid = m.relid WHERE c.relpersistence <> 'p'
UNION ALL
SELECT m.root, m.relid, NULL, 'a foreign table: its rows change without this server knowing'
FROM custody.audited_member m JOIN pg_catalog.pg_class c ON c.oid = m.relid WHERE c.relkind = 'f'
UNION ALL
SELECT m.root, h.inhrelid, NULL, 'not audited: an inheritance child, which statements on its parent change'
FROM custody.audited_member m
JOIN pg_catalog.pg_inherits h ON h.inhparent = m.relid
JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid AND NOT c.relispartition
WHERE NOT EXISTS (SELECT FROM custody.audited_table x WHERE x.target = h.inhrelid);
COMMENT ON VIEW custody.capture_gap IS 'Audited tables and partitions whose capture triggers are missing, altered or not ENABLE ALWAYS';

CREATE VIEW custody.guard_gap AS
WITH wanted (relation, object, symbol) AS (
  VALUES ('entry', '!custody_append_only', 'custody_append_only'), ('entry', '!custody_foreign_only', 'custody_append_only')
  UNION ALL
  -- The configuration is audited like any table.
  SELECT c.name, t.name, t.symbol
  FROM pg_catalog.unnest(ARRAY['tenants', 'registered_table', 'audited_table', 'role_binding', 'assume_grant', 'token_key', 'token_revocation', 'waiver']) AS c (name)
  CROSS JOIN (VALUES ('!custody_capture', 'custody_capture'), ('!custody_truncate', 'custody_capture_truncate')) AS t (name, symbol)
), state AS (
  SELECT w.object || ' on custody.' || w.relation AS object,
         (SELECT t.tgenabled FROM pg_catalog.pg_trigger t JOIN custody.own_function f ON f.oid = t.tgfoid
          WHERE t.tgrelid = pg_catalog.to_regclass('custody.' || w.relation) AND t.tgname = w.object AND f.prosrc = w.symbol AND t.tgqual IS NULL) AS enabled
  FROM wanted w
  UNION ALL
  SELECT 'event trigger ' || n.name,
         (SELECT t.evtenabled FROM pg_catalog.pg_event_trigger t JOIN custody.own_function f ON f.oid = t.evtfoid
          WHERE t.evtname = n.name AND f.prosrc = n.symbol AND t.evttags IS NULL)
  FROM (VALUES ('custody_ddl', 'custody_on_ddl'), ('custody_drop', 'custody_on_drop')) AS n (name, symbol)
)
SELECT s.object, CASE WHEN s.enabled IS NULL THEN 'missing or replaced' ELSE 'not enabled always' END AS problem
FROM state s WHERE s.enabled IS DISTINCT FROM 'A'
UNION ALL
SELECT 'custody.entry', 'not the table that the extension made'
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.objid = pg_catalog.to_regclass('custody.entry') AND d.deptype = 'e');
COMMENT ON VIEW custody.guard_gap IS 'What keeps the log append-only, audits the configuration and records DDL, and is missing, replaced or not ENABLE ALWAYS';
GRANT SELECT ON custody.own_function, custody.audited_member, custody.capture_gap, custody.guard_gap TO custody_auditor;
