-- category: A2 roles and privileges

-- mutant: the application is a superuser
-- finds: CU020 clinic_app
ALTER ROLE clinic_app SUPERUSER;
-- proof: SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: the application has BYPASSRLS
-- finds: CU020 clinic_app
ALTER ROLE clinic_app BYPASSRLS;
-- proof: SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: a login of its own with BYPASSRLS becomes the constrained role, and back
-- finds: CU020 clinic_web
CREATE ROLE clinic_web LOGIN BYPASSRLS IN ROLE clinic_app;
-- proof: RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION clinic_web; SET ROLE clinic_app; RESET ROLE; SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: a member of a role with BYPASSRLS
-- finds: CU021 clinic_app
CREATE ROLE clinic_ops BYPASSRLS;
GRANT SELECT ON clinic.patients TO clinic_ops;
GRANT USAGE ON SCHEMA clinic TO clinic_ops;
GRANT clinic_ops TO clinic_app;
-- proof: SET ROLE clinic_ops; SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: the same, two steps away and without INHERIT
-- finds: CU021 clinic_app
CREATE ROLE clinic_root SUPERUSER;
CREATE ROLE clinic_ops NOINHERIT IN ROLE clinic_root;
GRANT clinic_ops TO clinic_app;
-- proof: SET ROLE clinic_root; SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: a member of the tables' owner, all of them forced
-- finds: CU022 clinic_app
GRANT clinic_owner TO clinic_app;
-- proof: SET ROLE clinic_owner; ALTER TABLE clinic.notes DISABLE ROW LEVEL SECURITY; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the application made the table itself
-- finds: CU022 clinic_app
ALTER TABLE clinic.notes OWNER TO clinic_app;
-- proof: ALTER TABLE clinic.notes DISABLE ROW LEVEL SECURITY; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: CREATEROLE, with which it grants itself others
-- finds: CU025 clinic_app
CREATE ROLE clinic_ops BYPASSRLS;
GRANT SELECT ON clinic.patients TO clinic_ops;
GRANT USAGE ON SCHEMA clinic TO clinic_ops;
ALTER ROLE clinic_app CREATEROLE;
-- proof: GRANT clinic_ops TO clinic_app; SET ROLE clinic_ops; SELECT FROM clinic.patients WHERE tenant_id = 'b'

-- mutant: a member of a role with CREATEROLE
-- finds: CU025 clinic_app
CREATE ROLE clinic_hr CREATEROLE;
GRANT clinic_hr TO clinic_app;
-- proof: SET ROLE clinic_hr; GRANT clinic_owner TO clinic_hr; SET ROLE clinic_owner; ALTER TABLE clinic.notes DISABLE ROW LEVEL SECURITY; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: REPLICATION
-- finds: CU025 clinic_app
ALTER ROLE clinic_app REPLICATION;
-- no proof: takes a replication connection

-- mutant: reads files of the server
-- finds: CU026 clinic_app
GRANT pg_read_server_files TO clinic_app;
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO clinic_app;
-- proof: SELECT WHERE length(pg_read_binary_file(pg_relation_filepath('pg_authid'))) >= 0

-- mutant: writes files of the server
-- finds: CU026 clinic_app
GRANT pg_write_server_files TO clinic_app;
-- no proof: would leave a file

-- mutant: runs programs as the server's user
-- finds: CU026 clinic_app
GRANT pg_execute_server_program TO clinic_app;
-- no proof: would run a program; COPY … FROM PROGRAM reads any table's file

-- mutant: sees the statements of all
-- finds: CU026 clinic_app
GRANT pg_read_all_stats TO clinic_app;
-- proof: SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND wait_event IS NOT NULL

-- mutant: monitors
-- finds: CU026 clinic_app
GRANT pg_monitor TO clinic_app;
-- proof: SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND wait_event IS NOT NULL

-- mutant: ends the sessions of others
-- finds: CU026 clinic_app
GRANT pg_signal_backend TO clinic_app;
-- no proof: takes another session

-- mutant: administers tenants
-- finds: CU026 clinic_app
GRANT custody_admin TO clinic_app;
-- proof: SELECT custody.allow_assume('clinic_app', ARRAY['a', 'b'])

-- mutant: reads the log as an auditor
-- finds: CU026 clinic_app
GRANT custody_auditor TO clinic_app;
-- proof: SELECT FROM custody.log WHERE tenant = 'b'

-- mutant: switches triggers off
-- finds: CU027 clinic_app
GRANT SET ON PARAMETER session_replication_role TO clinic_app;
-- proof: SET LOCAL session_replication_role = replica; INSERT INTO clinic.visits VALUES ('a', 9, 4711); SELECT FROM clinic.visits WHERE patient = 4711

-- mutant: ALTER SYSTEM for everybody
-- finds: CU027 PUBLIC
GRANT ALTER SYSTEM ON PARAMETER shared_preload_libraries TO PUBLIC;
-- no proof: takes a restart

-- mutant: large objects of all
-- finds: CU027 clinic_app
GRANT SET ON PARAMETER lo_compat_privileges TO clinic_app;
SELECT lo_from_bytea(4711, 'B''s');
-- proof: SET LOCAL lo_compat_privileges = on; SELECT lo_get(4711)

-- mutant: TRUNCATE
-- finds: CU023 clinic.notes
GRANT TRUNCATE ON clinic.notes TO clinic_app;
-- proof: TRUNCATE clinic.notes
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: TRUNCATE for everybody, on a protected table
-- finds: CU023 clinic.visits
GRANT TRUNCATE ON clinic.visits TO PUBLIC;
INSERT INTO clinic.visits VALUES ('b', 1, 1);
-- proof: TRUNCATE clinic.visits
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.visits WHERE tenant_id = 'b')

-- mutant: TRUNCATE by way of a group
-- finds: CU023 clinic.notes
CREATE ROLE clinic_batch;
GRANT TRUNCATE ON clinic.notes TO clinic_batch;
GRANT clinic_batch TO clinic_app;
-- proof: TRUNCATE clinic.notes
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: ALL, as so many migrations grant it
-- finds: CU023 clinic.notes
GRANT ALL ON clinic.notes TO clinic_app;
-- proof: TRUNCATE clinic.notes
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: TRIGGER, and a schema to make a function in
-- finds: CU024 clinic.notes
GRANT TRIGGER ON clinic.notes TO clinic_app;
GRANT CREATE ON SCHEMA clinic TO clinic_app;
-- proof: CREATE FUNCTION clinic.spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER spy AFTER INSERT ON clinic.notes FOR EACH ROW EXECUTE FUNCTION clinic.spy()
-- effect: SELECT FROM pg_trigger WHERE tgname = 'spy' AND tgrelid = 'clinic.notes'::regclass

-- mutant: REFERENCES, and a schema to make a table in
-- finds: CU024 clinic.notes
GRANT REFERENCES ON clinic.notes TO clinic_app;
GRANT CREATE ON SCHEMA clinic TO clinic_app;
-- proof: CREATE TABLE clinic.asks (t text, i int, FOREIGN KEY (t, i) REFERENCES clinic.notes); INSERT INTO clinic.asks VALUES ('b', 1); SELECT FROM clinic.asks

-- mutant: default privileges open tables to come
-- finds: * clinic | * clinic_app | * clinic_owner
ALTER DEFAULT PRIVILEGES FOR ROLE clinic_owner IN SCHEMA clinic GRANT ALL ON TABLES TO clinic_app;
-- no proof: opens the next table that is made, not one that is there

-- mutant: CREATE on the schema
-- finds: CU028 clinic
GRANT CREATE ON SCHEMA clinic TO clinic_app;
-- proof: CREATE VIEW clinic.mine AS SELECT 1; SELECT FROM pg_views WHERE viewname = 'mine'

-- mutant: CREATE on schema public for everybody, as it was before PostgreSQL 15
-- finds: CU028 public
GRANT CREATE ON SCHEMA public TO PUBLIC;
-- proof: CREATE FUNCTION public.lower(text, int) RETURNS text LANGUAGE sql AS 'SELECT $1'; SELECT FROM pg_proc WHERE proname = 'lower' AND pronamespace = 'public'::regnamespace

-- mutant: CREATE on the database
-- finds: CU028 {database}
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO clinic_app', current_database()); END $$;
-- proof: CREATE SCHEMA mine; SELECT FROM pg_namespace WHERE nspname = 'mine'

-- mutant: the application owns the database
-- finds: * {database} | * clinic_app | * public
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO clinic_app', current_database()); END $$;
-- proof: CREATE SCHEMA mine; SELECT FROM pg_namespace WHERE nspname = 'mine'

-- mutant: temporary tables for everybody
-- finds low: CU028 {database}
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$;
-- no proof: opens nothing by itself

-- mutant: the planner's samples of all tenants
-- finds: * pg_catalog.pg_statistic
GRANT SELECT ON pg_statistic TO clinic_app;
ANALYZE clinic.notes;
-- proof: SELECT FROM pg_statistic WHERE starelid = 'clinic.notes'::regclass AND stavalues1::text LIKE '%b%'

-- mutant: the password hashes
-- finds: * pg_catalog.pg_authid
GRANT SELECT ON pg_authid TO PUBLIC;
-- proof: SELECT FROM pg_authid

-- mutant: one function that reads files, without the role for it
-- finds: * pg_catalog.pg_read_binary_file(text) | * pg_read_binary_file(text) | * clinic_app
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO clinic_app;
-- proof: SELECT WHERE length(pg_read_binary_file(pg_relation_filepath('clinic.notes'))) >= 0

-- mutant: the code list may be changed by everybody
-- finds: CU029 clinic.codes
GRANT INSERT, UPDATE ON clinic.codes TO PUBLIC;
-- proof: UPDATE clinic.codes SET label = 'nothing' RETURNING code

-- mutant: one column of the code list may be changed
-- finds: CU029 clinic.codes
GRANT UPDATE (label) ON clinic.codes TO clinic_app;
-- proof: UPDATE clinic.codes SET label = 'nothing' RETURNING code

-- mutant: one column of a table without row-level security
-- finds: CU001 clinic.labs
CREATE TABLE clinic.labs (tenant_id text NOT NULL, id int, result text);
INSERT INTO clinic.labs VALUES ('b', 1, 'positive');
GRANT SELECT (result) ON clinic.labs TO PUBLIC;
-- proof: SELECT result FROM clinic.labs

-- control: a further login that is in custody_app alone
CREATE ROLE clinic_batch LOGIN IN ROLE custody_app;
GRANT USAGE ON SCHEMA clinic TO clinic_batch;
GRANT SELECT ON clinic.patients TO clinic_batch;

-- control: a member without INHERIT
CREATE ROLE clinic_batch LOGIN NOINHERIT IN ROLE clinic_app;

-- control: a role with BYPASSRLS that no application reaches
CREATE ROLE clinic_backup LOGIN BYPASSRLS;
GRANT pg_read_all_data TO clinic_backup;

-- control: a group that only the administrators are in
CREATE ROLE clinic_dba CREATEROLE;
GRANT clinic_owner TO clinic_dba;
GRANT TRUNCATE ON clinic.notes TO clinic_dba;

-- control: the parameter of a plain user
GRANT SET ON PARAMETER log_min_duration_statement TO clinic_app;
