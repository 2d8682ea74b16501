-- category: A2 roles and privileges

-- mutant: a policy for the support desk, and a rota that makes the application one of them, two roles away
-- finds: * clinic.notes | * clinic_app | * ~clinic_support | * ~clinic_rota
CREATE ROLE clinic_support;
GRANT USAGE ON SCHEMA clinic TO clinic_support;
GRANT SELECT ON clinic.notes TO clinic_support;
CREATE POLICY support ON clinic.notes FOR SELECT TO clinic_support USING (author IS NOT NULL);
CREATE ROLE clinic_rota IN ROLE clinic_support;
GRANT clinic_rota TO clinic_app;
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: EXECUTE on pg_read_binary_file, to show the log on an admin page: it reads the tables' files as well
-- finds: * ~pg_read_binary_file | * clinic_app | * custody_app
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO clinic_app;
CHECKPOINT;
-- proof: SELECT FROM pg_read_binary_file(pg_relation_filepath('clinic.notes')) AS file WHERE position('B''s'::bytea IN file) > 0

-- mutant: the floor's helper belongs to the constrained role, who drops it and the floor with it
-- finds: * ~my_clinic
-- The migration that made the function ran as the application.
CREATE FUNCTION clinic.my_clinic() RETURNS text STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT custody.tenant()';
ALTER FUNCTION clinic.my_clinic() OWNER TO custody_app;
ALTER POLICY own ON clinic.notes USING (author IS NOT NULL) WITH CHECK (author IS NOT NULL);
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE USING (tenant_id = clinic.my_clinic()) WITH CHECK (tenant_id = clinic.my_clinic());
-- proof: DROP FUNCTION clinic.my_clinic() CASCADE;
SELECT FROM clinic.notes WHERE tenant_id = 'b'
