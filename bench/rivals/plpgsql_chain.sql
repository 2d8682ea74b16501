-- A hash chain in plpgsql: one head, so that writers queue for it until they commit.
CREATE SCHEMA audit;

CREATE TABLE audit.log (
  seq       bigserial PRIMARY KEY,
  payload   text NOT NULL,
  prev_hash bytea NOT NULL,
  hash      bytea NOT NULL
);

CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  head    bytea;
  payload text;
BEGIN
  PERFORM pg_advisory_xact_lock(7305);
  SELECT l.hash INTO head FROM audit.log l ORDER BY l.seq DESC LIMIT 1;
  head := coalesce(head, '\x');
  payload := jsonb_build_object(
    'table', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'op', TG_OP, 'user', session_user, 'at', clock_timestamp(), 'txid', txid_current(),
    'old', CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
    'new', CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END)::text;
  INSERT INTO audit.log (payload, prev_hash, hash) VALUES (payload, head, sha256(head || convert_to(payload, 'UTF8')));
  RETURN NULL;
END $$;

CREATE FUNCTION audit.audit(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION audit.record()', target);
END $$;
