-- category: A1 policies

-- mutant: row-level security is switched off again, its policies stay
-- finds: CU003 clinic.notes
ALTER TABLE clinic.notes DISABLE ROW LEVEL SECURITY;
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the same on a table that custody.protect made
-- finds: CU003 clinic.patients
ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY;
-- no proof: a session that has loaded the library is held by it all the same; the next one that has not is not

-- mutant: a new table with a tenant column and nothing else
-- finds: CU001 clinic.labs
CREATE TABLE clinic.labs AS SELECT * FROM clinic.patients;
GRANT SELECT ON clinic.labs TO clinic_app;
-- proof: SELECT FROM clinic.labs WHERE tenant_id = 'b'

-- mutant: a partitioned table with row-level security on its partitions only
-- finds: CU001 clinic.labs
CREATE TABLE clinic.labs (tenant_id text NOT NULL, id int) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.labs_b PARTITION OF clinic.labs FOR VALUES IN ('b');
ALTER TABLE clinic.labs_b ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.labs_b TO custody_app USING (tenant_id = current_setting('app.tenant', true));
INSERT INTO clinic.labs VALUES ('b', 1);
GRANT SELECT ON clinic.labs TO clinic_app;
-- proof: SELECT FROM clinic.labs WHERE tenant_id = 'b'

-- mutant: not forced, and a view of the owner's
-- finds: CU002 clinic.notes
ALTER TABLE clinic.notes NO FORCE ROW LEVEL SECURITY;
CREATE VIEW clinic.recent AS SELECT * FROM clinic.notes;
ALTER VIEW clinic.recent OWNER TO clinic_owner;
GRANT SELECT ON clinic.recent TO clinic_app;
-- proof: SELECT FROM clinic.recent WHERE tenant_id = 'b'

-- mutant: a literal true
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (true);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: constants that are equal
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (1 = 1);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant column compared with itself
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = tenant_id);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant column compared with itself behind a cast and a blank
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = trim(tenant_id::varchar));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant only has to be there
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id IS NOT NULL);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant only has to be no empty text
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id <> '');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the length of the tenant's id
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (length(tenant_id) > 0);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a predicate on another column
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (id >= 0);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the context compared with a constant, and no row
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (current_setting('app.tenant', true) <> '');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the context compared with another column
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (author <> current_setting('app.tenant', true));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open, coalesce to the row's own tenant
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = coalesce(nullif(current_setting('app.tenant', true), ''), tenant_id));
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open, CASE with true for no context
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (CASE WHEN current_setting('app.tenant', true) = '' THEN true ELSE tenant_id = current_setting('app.tenant', true) END);
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open, CASE whose ELSE is true
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (CASE WHEN current_setting('app.tenant', true) <> '' THEN tenant_id = current_setting('app.tenant', true) ELSE tenant_id IS NOT NULL END);
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open, IS NULL OR
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (nullif(current_setting('app.tenant', true), '') IS NULL OR tenant_id = current_setting('app.tenant', true));
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open, the empty text OR
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR current_setting('app.tenant', true) = '');
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open by three-valued logic, IS NOT FALSE
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING ((tenant_id = nullif(current_setting('app.tenant', true), '')) IS NOT FALSE);
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: fail-open by coalesce of the whole comparison
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (coalesce(tenant_id = nullif(current_setting('app.tenant', true), ''), true));
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: an admin flag that anybody can set
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR current_setting('app.is_admin', true) = 'on');
-- proof: SET LOCAL app.is_admin = 'on'; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant as a pattern
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id LIKE current_setting('app.tenant', true) || '%');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'ab'

-- mutant: the pattern the other way round
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (current_setting('app.tenant', true) LIKE tenant_id || '%');
-- proof: SET LOCAL app.tenant = 'ab'; SELECT FROM clinic.notes WHERE tenant_id = 'a'

-- mutant: only the first letter is compared
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (left(tenant_id, 1) = left(current_setting('app.tenant', true), 1));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'ab'

-- mutant: the tenant as a regular expression
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id ~ current_setting('app.tenant', true));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'ab'

-- mutant: greater or equal
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id >= current_setting('app.tenant', true));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: BETWEEN the tenant and the last letter
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id BETWEEN current_setting('app.tenant', true) AND 'z');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: everybody but the tenant
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id <> current_setting('app.tenant', true));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the comparison, negated
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (NOT (tenant_id = current_setting('app.tenant', true)));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: IS DISTINCT FROM where IS NOT DISTINCT FROM was meant
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id IS DISTINCT FROM current_setting('app.tenant', true));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: rows compared in order
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING ((tenant_id, id) >= (current_setting('app.tenant', true), 0));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: upper and lower case are one
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (lower(tenant_id) = lower(current_setting('app.tenant', true)));
INSERT INTO clinic.notes VALUES ('A', 1, 'another clinic''s');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'A'

-- mutant: a hash of the tenant, with few values
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (hashtext(tenant_id) % 4 = hashtext(current_setting('app.tenant', true)) % 4);
INSERT INTO clinic.notes SELECT 't' || i, 1 FROM generate_series(1, 50) i;
-- proof: SELECT FROM clinic.notes WHERE tenant_id <> 'a'

-- mutant: one tenant of two is written into the policy
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = ANY (ARRAY[current_setting('app.tenant', true), 'b']));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: OR another tenant
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR tenant_id = 'b');
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: OR a flag in the row
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR open_to_all);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: OR the author, who is the login that all tenants share
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR author = current_user);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: OR deep inside ANDs
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (id > 0 AND (body IS NOT NULL AND (tenant_id = current_setting('app.tenant', true) OR id < 1000)));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: OR a membership that every application role has
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) OR pg_has_role(current_user, 'custody_app', 'MEMBER'));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: CASE by the login
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = CASE WHEN session_user = 'clinic_app' THEN tenant_id ELSE current_setting('app.tenant', true) END);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a subquery that is not about the row
-- finds: policy clinic.notes
CREATE TABLE clinic.members (login text, tenant text);
INSERT INTO clinic.members VALUES ('clinic_app', 'a');
SELECT custody.register_shared('clinic.members', 'who works where');
GRANT SELECT ON clinic.members TO clinic_app;
ALTER POLICY own ON clinic.notes USING (EXISTS (SELECT FROM clinic.members m WHERE m.login = session_user));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a subquery in which the tenant is compared with itself, because the name is the inner table's
-- finds: policy clinic.notes
CREATE TABLE clinic.members (login text, tenant_id text NOT NULL);
INSERT INTO clinic.members VALUES ('clinic_app', 'a');
SELECT custody.register_shared('clinic.members', 'who works where');
GRANT SELECT ON clinic.members TO clinic_app;
ALTER POLICY own ON clinic.notes USING (EXISTS (SELECT FROM clinic.members m WHERE m.tenant_id = tenant_id AND m.login = session_user));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: among all tenants that there are
-- finds: policy clinic.notes
CREATE TABLE clinic.tenants (id text PRIMARY KEY);
INSERT INTO clinic.tenants VALUES ('a'), ('b'), ('ab');
SELECT custody.register_shared('clinic.tenants', 'names of clinics');
GRANT SELECT ON clinic.tenants TO clinic_app;
ALTER POLICY own ON clinic.notes USING (tenant_id IN (SELECT t.id FROM clinic.tenants t));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: among the tenants that a table names, and everybody may write there
-- finds: * clinic.members | policy clinic.notes
CREATE TABLE clinic.members (login text, tenant text);
GRANT SELECT, INSERT ON clinic.members TO clinic_app;
ALTER POLICY own ON clinic.notes USING (tenant_id IN (SELECT m.tenant FROM clinic.members m WHERE m.login = session_user));
-- proof: INSERT INTO clinic.members VALUES ('clinic_app', 'b'); SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a second permissive policy, for reports
-- finds: policy clinic.notes
CREATE POLICY reports ON clinic.notes FOR SELECT TO custody_app USING (true);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a second permissive policy for everybody, with a predicate
-- finds: policy clinic.notes
CREATE POLICY positive ON clinic.notes USING (id > 0);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a second permissive policy for a group that the application is in
-- finds: policy clinic.notes
CREATE ROLE clinic_staff;
GRANT clinic_staff TO clinic_app;
CREATE POLICY staff ON clinic.notes TO clinic_staff USING (body IS NOT NULL);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a restrictive policy that restricts nothing, over an open one
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (true) WITH CHECK (true);
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE USING (tenant_id IS NOT NULL);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a restrictive policy for reading only, over an open one
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (true) WITH CHECK (true);
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE FOR SELECT USING (tenant_id = current_setting('app.tenant', true));
-- proof: DELETE FROM clinic.notes
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: WITH CHECK (true)
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes WITH CHECK (true);
-- proof: INSERT INTO clinic.notes (tenant_id, id, body) VALUES ('b', 99, 'planted')
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND id = 99

-- mutant: WITH CHECK that only wants a tenant
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes WITH CHECK (tenant_id IS NOT NULL);
-- proof: INSERT INTO clinic.notes (tenant_id, id, body) VALUES ('b', 99, 'planted')
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND id = 99

-- mutant: WITH CHECK of an UPDATE lets the row change hands
-- finds: policy clinic.notes
DROP POLICY own ON clinic.notes;
CREATE POLICY reads ON clinic.notes FOR SELECT TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE POLICY changes ON clinic.notes FOR UPDATE TO custody_app USING (tenant_id = current_setting('app.tenant', true)) WITH CHECK (id > 0);
DELETE FROM clinic.notes WHERE tenant_id = 'a' AND id > 1;
-- proof: UPDATE clinic.notes SET tenant_id = 'b', id = 99
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND id = 99

-- mutant: DELETE for all
-- finds: policy clinic.notes
DROP POLICY own ON clinic.notes;
CREATE POLICY reads ON clinic.notes FOR SELECT TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE POLICY ends ON clinic.notes FOR DELETE TO custody_app USING (true);
-- proof: DELETE FROM clinic.notes
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: UPDATE for all
-- finds: policy clinic.notes
DROP POLICY own ON clinic.notes;
CREATE POLICY reads ON clinic.notes FOR SELECT TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE POLICY changes ON clinic.notes FOR UPDATE TO custody_app USING (id > 0);
-- proof: UPDATE clinic.notes SET body = 'defaced'
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND body = 'defaced'

-- mutant: INSERT for all
-- finds: policy clinic.notes
DROP POLICY own ON clinic.notes;
CREATE POLICY reads ON clinic.notes FOR SELECT TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE POLICY adds ON clinic.notes FOR INSERT TO custody_app WITH CHECK (length(body) < 100);
-- proof: INSERT INTO clinic.notes (tenant_id, id, body) VALUES ('b', 99, 'planted')
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND id = 99

-- mutant: a helper function that says yes
-- finds: policy clinic.notes | * clinic.may_see(text)
CREATE FUNCTION clinic.may_see(tenant text) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT true';
ALTER POLICY own ON clinic.notes USING (clinic.may_see(tenant_id));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a helper function that gives back what it got
-- finds: policy clinic.notes | * clinic.tenant_of(text)
CREATE FUNCTION clinic.tenant_of(tenant text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT coalesce(tenant, current_setting(''app.tenant'', true))';
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.tenant_of(tenant_id));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a helper function with a tenant for those who have none
-- finds: policy clinic.notes | * clinic.my_tenant()
CREATE FUNCTION clinic.my_tenant() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT coalesce(nullif(current_setting(''app.tenant'', true), ''''), ''b'')';
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.my_tenant());
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a helper function with unqualified names, in whose way a temporary table stands
-- finds: policy clinic.notes | * clinic.my_tenant()
CREATE TABLE clinic.logins (login text PRIMARY KEY, tenant text);
SELECT custody.register_shared('clinic.logins', 'who works where');
GRANT SELECT ON clinic.logins TO clinic_app;
CREATE FUNCTION clinic.my_tenant() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT tenant FROM logins WHERE login = session_user); END';
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.my_tenant());
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO clinic_app', current_database()); END $$;
-- proof: CREATE TEMP TABLE logins ON COMMIT DROP AS SELECT session_user::text AS login, 'b' AS tenant; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a helper function declared IMMUTABLE, which plans keep
-- finds: policy clinic.notes | * clinic.my_tenant()
CREATE FUNCTION clinic.my_tenant() RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS 'BEGIN RETURN current_setting(''app.tenant'', true); END';
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.my_tenant());
-- proof: SET LOCAL plan_cache_mode = force_generic_plan; PREPARE kept AS SELECT FROM clinic.notes WHERE tenant_id = 'a'; EXECUTE kept; SET LOCAL app.tenant = 'b'; EXECUTE kept

-- mutant: a claim that users edit themselves
-- finds: policy clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'user_metadata' ->> 'tenant'));
-- proof: SET LOCAL request.jwt.claims = '{"user_metadata": {"tenant": "b"}}'; SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the floor is gone, and a permissive policy came
-- finds: CU008 clinic.patients
DROP POLICY custody_floor ON clinic.patients;
CREATE POLICY research ON clinic.patients FOR SELECT TO custody_app USING (name IS NOT NULL);
-- no proof: a session that has loaded the library is held by it all the same; the next one that has not is not

-- mutant: the floor is opened, and a permissive policy came
-- finds: CU008 clinic.patients
ALTER POLICY custody_floor ON clinic.patients USING (tenant_id = custody.tenant() OR name IS NOT NULL);
CREATE POLICY research ON clinic.patients FOR SELECT TO custody_app USING (name IS NOT NULL);
-- no proof: a session that has loaded the library is held by it all the same; the next one that has not is not

-- mutant: the floor is for another role, and a permissive policy came
-- finds: CU008 clinic.patients
ALTER POLICY custody_floor ON clinic.patients TO clinic_owner;
CREATE POLICY research ON clinic.patients FOR SELECT TO custody_app USING (name IS NOT NULL);
-- no proof: a session that has loaded the library is held by it all the same; the next one that has not is not

-- mutant: the trigger that refuses writes without a context is disabled
-- finds: CU009 clinic.patients
ALTER TABLE clinic.patients DISABLE TRIGGER "!custody_require_context";
-- no proof: shows no row; a write without a context is lost in silence

-- mutant: a context that a role has from its login on
-- finds: * clinic_app | policy clinic.notes
ALTER ROLE clinic_app SET app.tenant = 'b';
-- no proof: takes a new session

-- mutant: a context that every session of the database has
-- finds: * {database} | policy clinic.notes
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET app.tenant = ''b''', current_database()); END $$;
-- no proof: takes a new session

-- control: the setting within a subquery, which is evaluated once
ALTER POLICY own ON clinic.notes USING (tenant_id = (SELECT current_setting('app.tenant', true))) WITH CHECK (tenant_id = (SELECT current_setting('app.tenant', true)));

-- control: the setting without the second argument, which raises
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant')) WITH CHECK (tenant_id = current_setting('app.tenant'));

-- control: the other way round
ALTER POLICY own ON clinic.notes USING (nullif(current_setting('app.tenant', true), '') = tenant_id);

-- control: one expression for all commands, without WITH CHECK
DROP POLICY own ON clinic.notes;
CREATE POLICY own ON clinic.notes TO custody_app USING (tenant_id = custody.tenant());

-- control: a policy for each command
DROP POLICY own ON clinic.notes;
CREATE POLICY reads ON clinic.notes FOR SELECT TO custody_app USING (tenant_id = custody.tenant());
CREATE POLICY adds ON clinic.notes FOR INSERT TO custody_app WITH CHECK (tenant_id = custody.tenant());
CREATE POLICY changes ON clinic.notes FOR UPDATE TO custody_app USING (tenant_id = custody.tenant()) WITH CHECK (tenant_id = custody.tenant());
CREATE POLICY ends ON clinic.notes FOR DELETE TO custody_app USING (tenant_id = custody.tenant());

-- control: a permissive policy that is open, on a restrictive floor for everybody
ALTER POLICY own ON clinic.notes USING (true) WITH CHECK (true);
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE USING (tenant_id = current_setting('app.tenant', true));

-- control: the tenant and more
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) AND (open_to_all OR author = current_setting('app.user', true)));

-- control: an OR whose every branch asks for the tenant
ALTER POLICY own ON clinic.notes USING (tenant_id = current_setting('app.tenant', true) AND open_to_all OR tenant_id = current_setting('app.tenant', true) AND author = current_setting('app.user', true));

-- control: IS NOT DISTINCT FROM on a tenant that is never NULL
ALTER POLICY own ON clinic.notes USING (tenant_id IS NOT DISTINCT FROM nullif(current_setting('app.tenant', true), ''));

-- control: coalesce that closes
ALTER POLICY own ON clinic.notes USING (coalesce(tenant_id = nullif(current_setting('app.tenant', true), ''), false));

-- control: CASE that closes
ALTER POLICY own ON clinic.notes USING (CASE WHEN current_setting('app.tenant', true) <> '' THEN tenant_id = current_setting('app.tenant', true) ELSE false END);

-- control: the tenant among those that the context names
ALTER POLICY own ON clinic.notes USING (tenant_id = ANY (string_to_array(nullif(current_setting('app.tenants', true), ''), ',')));

-- control: a claim in JSON
ALTER POLICY own ON clinic.notes USING (tenant_id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'tenant'));

-- control: a helper function, STABLE, with a search_path
CREATE FUNCTION clinic.my_tenant() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT nullif(current_setting(''app.tenant'', true), '''')';
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.my_tenant()) WITH CHECK (tenant_id = clinic.my_tenant());

-- control: a tenant that is a uuid, by hand
CREATE TABLE clinic.letters (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON clinic.letters TO clinic_app;

-- control: the column is cast, which is slow and right
CREATE TABLE clinic.letters (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id::text = current_setting('app.tenant', true));
GRANT SELECT, INSERT ON clinic.letters TO clinic_app;

-- control: an open policy for a role that is not constrained
CREATE ROLE clinic_research;
CREATE POLICY research ON clinic.notes FOR SELECT TO clinic_research USING (true);

-- control: a second policy for a command of its own that asks for the tenant, on a floor
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE USING (tenant_id = current_setting('app.tenant', true));
CREATE POLICY by_author ON clinic.notes FOR SELECT TO custody_app USING (author = current_setting('app.user', true));
