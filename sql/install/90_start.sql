-- A key, the first incarnation and the first entry; from here on the configuration itself is audited.
CREATE FUNCTION custody.start() RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'custody_start';
COMMENT ON FUNCTION custody.start() IS 'Run once, by CREATE EXTENSION: makes the signing key (level generated) and the first entry';
REVOKE ALL ON FUNCTION custody.start() FROM PUBLIC;
SELECT custody.start();

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tenants', 'registered_table', 'audited_table', 'role_binding', 'assume_grant', 'token_key', 'token_revocation'] LOOP
    EXECUTE pg_catalog.format('CREATE TRIGGER "!custody_capture" AFTER INSERT OR UPDATE OR DELETE ON custody.%I FOR EACH ROW EXECUTE FUNCTION custody.capture()', name);
    EXECUTE pg_catalog.format('CREATE TRIGGER "!custody_truncate" BEFORE TRUNCATE ON custody.%I FOR EACH STATEMENT EXECUTE FUNCTION custody.capture_truncate()', name);
    EXECUTE pg_catalog.format('ALTER TABLE custody.%I ENABLE ALWAYS TRIGGER "!custody_capture", ENABLE ALWAYS TRIGGER "!custody_truncate"', name);
  END LOOP;
END $$;

CREATE FUNCTION custody.on_ddl() RETURNS event_trigger LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_on_ddl';
COMMENT ON FUNCTION custody.on_ddl() IS 'Records DDL on audited tables, carries protection and capture over to new partitions, and notes when capture stops or the log''s own guard is lifted';
CREATE FUNCTION custody.on_drop() RETURNS event_trigger LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_on_drop';
COMMENT ON FUNCTION custody.on_drop() IS 'The same for what was dropped';
REVOKE ALL ON FUNCTION custody.on_ddl(), custody.on_drop() FROM PUBLIC;
CREATE EVENT TRIGGER custody_ddl ON ddl_command_end EXECUTE FUNCTION custody.on_ddl();
CREATE EVENT TRIGGER custody_drop ON sql_drop EXECUTE FUNCTION custody.on_drop();
ALTER EVENT TRIGGER custody_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER custody_drop ENABLE ALWAYS;
