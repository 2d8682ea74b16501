-- The audit trigger that most people write: both images as jsonb, in one table.
CREATE SCHEMA audit;

CREATE TABLE audit.log (
  id               bigserial PRIMARY KEY,
  schema_name      text NOT NULL,
  table_name       text NOT NULL,
  op               text NOT NULL,
  user_name        text NOT NULL,
  at               timestamptz NOT NULL,
  txid             bigint NOT NULL,
  client_addr      inet,
  application_name text,
  old              jsonb,
  new              jsonb
);

CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO audit.log (schema_name, table_name, op, user_name, at, txid, client_addr, application_name, old, new)
  VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP, session_user, clock_timestamp(), txid_current(), inet_client_addr(),
          current_setting('application_name'),
          CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
          CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
  RETURN NULL;
END $$;

CREATE FUNCTION audit.audit(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION audit.record()', target);
END $$;
