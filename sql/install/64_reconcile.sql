-- Where the history of a table's rows starts, and the table held against it.

CREATE TABLE custody.recorded_shape (
  target      regclass PRIMARY KEY,
  schema_name name NOT NULL,
  table_name  name NOT NULL,
  columns     jsonb NOT NULL,
  key         jsonb NOT NULL,
  partitions  oid[] NOT NULL,
  departed    oid[] NOT NULL
);
COMMENT ON TABLE custody.recorded_shape IS 'Names, columns and partitions of audited tables after the last DDL command, by which SHAPE entries are made. Never dumped: names are what the log says';

CREATE VIEW custody.shape_now AS
SELECT a.target, n.nspname AS schema_name, c.relname AS table_name,
       coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('number', t.attnum, 'name', t.attname, 'kind', t.atttypid::bigint, 'modifier', t.atttypmod,
                   'treatment', CASE WHEN t.attname = ANY (a.exclude) THEN 'excluded' WHEN t.attname = ANY (a.redact) THEN 'redacted' ELSE 'stored' END) ORDER BY t.attnum)
                 FROM pg_catalog.pg_attribute t WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped), '[]') AS columns,
       coalesce((SELECT pg_catalog.jsonb_agg(k.attnum ORDER BY k.place) FROM pg_catalog.pg_index i CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                 WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts), '[]') AS key,
       ARRAY(SELECT m.relid::oid FROM custody.audited_member m JOIN pg_catalog.pg_class p ON p.oid = m.relid
             WHERE m.root = a.target AND m.relid <> m.root AND p.relkind = 'r' ORDER BY 1) AS partitions
FROM custody.audited_table a
JOIN pg_catalog.pg_class c ON c.oid = a.target
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
COMMENT ON VIEW custody.shape_now IS 'The same, as it is now';

CREATE FUNCTION custody.baseline(target regclass, form text DEFAULT 'rows') RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_baseline';
COMMENT ON FUNCTION custody.baseline(regclass, text) IS 'Starts the history of an audited table anew with what it holds now: one BASELINE entry a row, with its image (rows) or a salted digest of it (digest), or none. Writers go on meanwhile. Returns how many rows it recorded. What custody.reconcile found before is found no more';

CREATE FUNCTION custody.reconcile(target regclass) RETURNS TABLE (verdict text, tenant text, row_key text, detail text)
LANGUAGE c PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_reconcile';
COMMENT ON FUNCTION custody.reconcile(regclass) IS 'Holds an audited table against its log. The first row is the summary: clean, differs or undecided, with counts; each further row is one of the table''s that was changed, added or removed behind the log''s back, or about which the log does not say enough (unknown). docs/reconcile.md. Errors: UC033 not audited';

GRANT SELECT ON custody.recorded_shape, custody.shape_now TO custody_auditor;
REVOKE ALL ON FUNCTION custody.baseline(regclass, text), custody.reconcile(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.baseline(regclass, text), custody.reconcile(regclass) TO custody_admin;
GRANT EXECUTE ON FUNCTION custody.reconcile(regclass) TO custody_auditor;
