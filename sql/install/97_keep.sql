-- The log does not go with the extension unless that is meant.

CREATE FUNCTION custody.keep_log() RETURNS event_trigger LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'custody_keep_log';
COMMENT ON FUNCTION custody.keep_log() IS 'Refuses DROP EXTENSION pg_custody (UC066) while the log has entries of the database''s tables and custody.drop_log is off';
REVOKE ALL ON FUNCTION custody.keep_log() FROM PUBLIC;
CREATE EVENT TRIGGER custody_keep_log ON ddl_command_start WHEN TAG IN ('DROP EXTENSION') EXECUTE FUNCTION custody.keep_log();
ALTER EVENT TRIGGER custody_keep_log ENABLE ALWAYS;
