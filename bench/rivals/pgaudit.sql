-- pgaudit: a line in the server's log for each statement that writes. No rows, no fsync, and nothing that a crash of the host keeps.
CREATE EXTENSION pgaudit;
CREATE SCHEMA audit;

DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET pgaudit.log = ''write''', current_database());
  EXECUTE format('ALTER DATABASE %I SET pgaudit.log_catalog = off', current_database());
END $$;

-- Every table of the database is logged.
CREATE FUNCTION audit.audit(target regclass) RETURNS void LANGUAGE sql AS '';
