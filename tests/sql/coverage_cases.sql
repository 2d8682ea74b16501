-- Cases of custody.coverage(). Each block runs as a superuser in a transaction of its own, on the base that the harness makes, and is
-- rolled back. "case: ID OBJECT": afterwards coverage() has that id with that object, which it had not before.
-- "control: NAME": afterwards coverage() has no finding of medium or worse.

-- case: CU001 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
-- case: CU001 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
-- case: CU001 elsewhere."Odd ""name"""
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere."Odd ""name""" (tenant_id text NOT NULL);
-- case: CU001 clinic.notes_1
-- with: CU001 clinic.notes, CU006 clinic.notes
CREATE TABLE clinic.notes (id int) PARTITION BY LIST (id);
CREATE TABLE clinic.notes_1 PARTITION OF clinic.notes FOR VALUES IN (1);
-- case: CU001 clinic.patients
-- with: CU008 clinic.patients
ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY;
DROP POLICY custody_tenant ON clinic.patients;
DROP POLICY custody_floor ON clinic.patients;
-- case: CU002 clinic.patients
ALTER TABLE clinic.patients NO FORCE ROW LEVEL SECURITY;
-- case: CU002 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
-- case: CU003 clinic.patients
ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY;
-- case: CU003 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
-- case: CU004 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- case: CU004 clinic.patients
DROP POLICY custody_tenant ON clinic.patients;
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON clinic.visits USING (true);
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, amount int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY positive ON clinic.visits TO custody_app USING (amount >= 0);
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY itself ON clinic.visits USING (tenant_id = tenant_id);
-- case: CU037 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY writes_anything ON clinic.visits TO clinic_app USING (tenant_id = custody.tenant()) WITH CHECK (true);
-- case: CU005 clinic.visits
-- The restrictive policy is for one role, and not for all.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON clinic.visits USING (true);
CREATE POLICY narrow ON clinic.visits AS RESTRICTIVE TO clinic_app USING (tenant_id = custody.tenant());
-- case: CU005 clinic.visits
-- The restrictive policy is for reading only.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON clinic.visits USING (true);
CREATE POLICY narrow ON clinic.visits AS RESTRICTIVE FOR SELECT USING (tenant_id = custody.tenant());
-- case: CU005 clinic.visits
-- For a group that the application is in by way of another.
CREATE ROLE clinic_staff;
GRANT clinic_staff TO clinic_app;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY staff ON clinic.visits TO clinic_staff USING (id > 0);
-- case: CU006 clinic.notes
-- with: CU001 clinic.notes
CREATE TABLE clinic.notes (id int PRIMARY KEY, body text);
-- case: CU006 clinic.notes
CREATE TABLE clinic.notes (id int PRIMARY KEY, author text);
ALTER TABLE clinic.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.notes USING (author = custody.subject());
-- case: CU007 clinic.patients
ALTER TABLE clinic.patients DROP CONSTRAINT patients_pkey;
ALTER TABLE clinic.patients ALTER COLUMN tenant_id DROP NOT NULL;
-- case: CU008 clinic.patients
DROP POLICY custody_floor ON clinic.patients;
-- case: CU008 clinic.patients
ALTER POLICY custody_floor ON clinic.patients USING (true);
-- case: CU008 clinic.patients
ALTER POLICY custody_floor ON clinic.patients WITH CHECK (tenant_id = custody.tenant() OR name = 'x');
-- case: CU008 clinic.patients
ALTER POLICY custody_floor ON clinic.patients TO clinic_app;
-- case: CU008 clinic.patients
-- with: CU013 clinic.patients
DROP POLICY custody_floor ON clinic.patients;
CREATE POLICY custody_floor ON clinic.patients USING (tenant_id = custody.tenant());
-- case: CU008 clinic.patients
DROP POLICY custody_floor ON clinic.patients;
CREATE POLICY custody_floor ON clinic.patients AS RESTRICTIVE FOR SELECT USING (tenant_id = custody.tenant());
-- case: CU009 clinic.patients
DROP TRIGGER "!custody_require_context" ON clinic.patients;
-- case: CU009 clinic.patients
ALTER TABLE clinic.patients DISABLE TRIGGER "!custody_require_context";
-- case: CU009 clinic.patients
ALTER TABLE clinic.patients ENABLE TRIGGER "!custody_require_context";
-- case: CU010 clinic.patients
ALTER TABLE clinic.patients DROP CONSTRAINT patients_pkey, ADD PRIMARY KEY (id, tenant_id);
-- case: CU011 clinic.patients
ALTER TABLE clinic.patients ADD UNIQUE (name);
-- case: CU011 clinic.patients
CREATE UNIQUE INDEX ON clinic.patients (lower(name)) WHERE id > 0;
-- case: CU011 clinic.stays
CREATE TABLE clinic.stays (tenant_id text NOT NULL, id int, during int4range, EXCLUDE USING gist (during WITH &&));
SELECT custody.protect('clinic.stays');
-- case: CU011 clinic.visits
-- Low: nobody guesses a uuid.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id uuid PRIMARY KEY);
SELECT custody.protect('clinic.visits');
-- case: CU012 clinic.visits
-- with: CU011 clinic.patients
ALTER TABLE clinic.patients ADD UNIQUE (id);
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, patient int REFERENCES clinic.patients (id) ON DELETE CASCADE, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
-- case: CU012 clinic.visits
-- with: CU011 clinic.patients
-- The tenant column is there, but refers to something else.
ALTER TABLE clinic.patients ADD UNIQUE (name, id);
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, patient int, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients (name, id));
SELECT custody.protect('clinic.visits');
-- case: CU013 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
CREATE POLICY own_again ON clinic.visits FOR SELECT TO clinic_app USING (tenant_id = custody.tenant() AND id > 0);
-- case: CU013 clinic.visits
-- Of one role and of a group that it is in.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits TO custody_app USING (tenant_id = custody.tenant());
CREATE POLICY own_again ON clinic.visits FOR UPDATE TO clinic_app USING (tenant_id = custody.tenant());

-- case: CU020 clinic_app
ALTER ROLE clinic_app BYPASSRLS;
-- case: CU020 clinic_root
CREATE ROLE clinic_root SUPERUSER IN ROLE clinic_app;
-- case: CU021 clinic_app
CREATE ROLE clinic_root SUPERUSER;
CREATE ROLE clinic_ops;
GRANT clinic_root TO clinic_ops;
GRANT clinic_ops TO clinic_app;
-- case: CU021 clinic_app
-- with: CU020 clinic_root
CREATE ROLE clinic_root BYPASSRLS IN ROLE custody_app;
ALTER ROLE clinic_app NOINHERIT;
GRANT clinic_root TO clinic_app;
-- case: CU022 clinic_app
ALTER TABLE clinic.patients OWNER TO clinic_app;
-- case: CU022 clinic_app
CREATE ROLE clinic_owner;
ALTER TABLE clinic.patients OWNER TO clinic_owner;
GRANT clinic_owner TO clinic_app;
-- case: CU023 clinic.patients
GRANT TRUNCATE ON clinic.patients TO clinic_app;
-- case: CU023 clinic.codes
GRANT TRUNCATE ON clinic.codes TO PUBLIC;
-- case: CU023 clinic.patients
-- with: CU024 clinic.patients
CREATE ROLE clinic_staff;
GRANT clinic_staff TO clinic_app;
GRANT ALL ON clinic.patients TO clinic_staff;
-- case: CU024 clinic.patients
GRANT TRIGGER ON clinic.patients TO custody_app;
-- case: CU024 clinic.patients
GRANT REFERENCES (id) ON clinic.patients TO clinic_app;
-- case: CU025 clinic_app
ALTER ROLE clinic_app CREATEROLE;
-- case: CU025 clinic_app
CREATE ROLE clinic_copy REPLICATION;
GRANT clinic_copy TO clinic_app;
-- case: CU026 clinic_app
GRANT pg_read_server_files TO clinic_app;
-- case: CU026 clinic_app
GRANT pg_monitor TO clinic_app;
-- case: CU026 clinic_app
CREATE ROLE clinic_ops;
GRANT pg_signal_backend TO clinic_ops;
GRANT clinic_ops TO clinic_app;
-- case: CU026 clinic_app
GRANT custody_admin TO clinic_app;
-- case: CU027 clinic_app
GRANT SET ON PARAMETER session_replication_role TO clinic_app;
-- case: CU027 PUBLIC
GRANT ALTER SYSTEM ON PARAMETER log_min_duration_statement TO PUBLIC;
-- case: CU028 clinic
GRANT CREATE ON SCHEMA clinic TO custody_app;
-- case: CU028 public
GRANT CREATE ON SCHEMA public TO PUBLIC;
-- case: CU028 clinic
-- with: CU057 clinic
ALTER SCHEMA clinic OWNER TO clinic_app;
-- case: CU029 clinic.codes
GRANT INSERT ON clinic.codes TO clinic_app;
-- case: CU029 clinic.codes
GRANT UPDATE (label) ON clinic.codes TO PUBLIC;
-- case: CU029 clinic.codes
GRANT pg_write_all_data TO clinic_app;

-- case: CU030 clinic.patient_names
CREATE VIEW clinic.patient_names AS SELECT name FROM clinic.patients;
GRANT SELECT ON clinic.patient_names TO clinic_app;
-- case: CU030 elsewhere.top
-- Through views that are granted to nobody, in a schema of their own.
CREATE SCHEMA elsewhere;
CREATE VIEW elsewhere.bottom AS SELECT * FROM clinic.patients;
CREATE VIEW elsewhere.middle AS SELECT * FROM elsewhere.bottom;
CREATE VIEW elsewhere.top WITH (security_invoker = off) AS SELECT count(*) AS n FROM elsewhere.middle;
GRANT SELECT ON elsewhere.top TO PUBLIC;
-- case: CU030 elsewhere.bottom
-- The upper view asks as its caller, the lower one does not.
CREATE SCHEMA elsewhere;
CREATE VIEW elsewhere.bottom AS SELECT * FROM clinic.patients;
CREATE VIEW elsewhere.top WITH (security_invoker = on) AS SELECT * FROM elsewhere.bottom;
GRANT SELECT ON elsewhere.top, elsewhere.bottom TO clinic_app;
-- case: CU030 clinic.patient_copy_names
CREATE MATERIALIZED VIEW clinic.patient_copy AS SELECT * FROM clinic.patients;
CREATE VIEW clinic.patient_copy_names AS SELECT name FROM clinic.patient_copy;
GRANT SELECT ON clinic.patient_copy_names TO clinic_app;
-- case: CU030 clinic.patient_names
-- In a sublink only; and writing counts.
CREATE VIEW clinic.patient_names AS SELECT c.*, (SELECT min(name) FROM clinic.patients) AS first FROM clinic.codes c;
GRANT UPDATE (label) ON clinic.patient_names TO clinic_app;
-- case: CU030 clinic.patient_names
CREATE VIEW clinic.patient_names AS SELECT name FROM clinic.patients;
GRANT pg_read_all_data TO clinic_app;
-- case: CU031 clinic.patient_copy
CREATE MATERIALIZED VIEW clinic.patient_copy AS SELECT * FROM clinic.patients;
GRANT SELECT ON clinic.patient_copy TO clinic_app;
-- case: CU031 clinic.patient_copy
CREATE VIEW clinic.patient_names WITH (security_invoker = on) AS SELECT name FROM clinic.patients;
CREATE MATERIALIZED VIEW clinic.patient_copy AS SELECT * FROM clinic.patient_names;
GRANT SELECT (name) ON clinic.patient_copy TO PUBLIC;
-- case: CU032 clinic.visits_a
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.visits_a PARTITION OF clinic.visits FOR VALUES IN ('a');
SELECT custody.protect('clinic.visits');
ALTER TABLE clinic.visits_a DISABLE ROW LEVEL SECURITY;
GRANT SELECT ON clinic.visits_a TO clinic_app;
-- case: CU032 clinic.visits_a
-- Low: granted to nobody.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.visits_a PARTITION OF clinic.visits FOR VALUES IN ('a');
SELECT custody.protect('clinic.visits');
ALTER TABLE clinic.visits_a NO FORCE ROW LEVEL SECURITY;
-- case: CU032 clinic.outpatients
CREATE TABLE clinic.outpatients (ward text) INHERITS (clinic.patients);
-- case: CU033 clinic.find(text)
CREATE FUNCTION clinic.find(text) RETURNS SETOF clinic.patients LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM clinic.patients WHERE name = $1 $$;
-- case: CU033 clinic.tidy()
-- with: CU001 clinic.visits
CREATE ROLE clinic_owner;
GRANT USAGE, CREATE ON SCHEMA clinic TO clinic_owner;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits OWNER TO clinic_owner;
CREATE PROCEDURE clinic.tidy() LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM clinic.visits';
REVOKE EXECUTE ON PROCEDURE clinic.tidy() FROM PUBLIC;
ALTER PROCEDURE clinic.tidy() OWNER TO clinic_owner;
GRANT EXECUTE ON PROCEDURE clinic.tidy() TO clinic_app;
-- case: CU034 clinic.remote
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE clinic.remote (tenant_id text, id int) SERVER nowhere;
GRANT SELECT ON clinic.remote TO clinic_app;
-- case: CU035 clinic.patients
SELECT custody.audit('clinic.patients');
CREATE FUNCTION clinic.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER "!a" AFTER UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.touch();
-- case: CU036 clinic.patients
CREATE RULE keep AS ON DELETE TO clinic.patients DO INSTEAD NOTHING;

-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id IS NOT NULL);
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id <> 'x');
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id LIKE current_setting('app.tenant') || '%');
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id = coalesce(current_setting('app.tenant', true), tenant_id));
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (CASE WHEN current_setting('app.tenant', true) = '' THEN true ELSE tenant_id = current_setting('app.tenant', true) END);
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (current_setting('app.tenant', true) IS NULL OR tenant_id = current_setting('app.tenant', true));
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id = custody.tenant() OR current_setting('app.is_admin', true) = 'on');
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (tenant_id = custody.tenant() OR id > 0);
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (lower(tenant_id) = lower(current_setting('app.tenant')));
-- case: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY open ON clinic.visits USING (EXISTS (SELECT 1 FROM clinic.patients p WHERE p.tenant_id = p.tenant_id));
-- case: CU014 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.may_see(text) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN true; END';
CREATE POLICY asks ON clinic.visits USING (clinic.may_see(tenant_id));
-- case: CU014 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY digest ON clinic.visits USING (md5(tenant_id) = current_setting('app.tenant_digest'));
-- case: CU015 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY support ON clinic.visits USING (tenant_id = custody.tenant() OR custody.claims() ->> 'role' = 'support');
-- case: CU015 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY support ON clinic.visits USING (tenant_id = custody.tenant() OR pg_has_role(current_user, 'pg_monitor', 'member'));
-- case: CU016 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('app.tenant', true));
-- case: CU016 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- Through a function whose body is text.
CREATE FUNCTION clinic.ctx() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant', true) $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- case: CU017 clinic.members
-- with: CU001 clinic.members
CREATE TABLE clinic.members (tenant_id text NOT NULL, login text NOT NULL, PRIMARY KEY (tenant_id, login));
GRANT SELECT, INSERT ON clinic.members TO clinic_app;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id IN (SELECT m.tenant_id FROM clinic.members m WHERE m.login = current_user));
-- case: CU017 clinic.members
-- with: CU001 clinic.members
CREATE TABLE clinic.members (tenant_id text NOT NULL, login text NOT NULL, PRIMARY KEY (tenant_id, login));
GRANT SELECT, INSERT ON clinic.members TO clinic_app;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- Through functions.
CREATE FUNCTION clinic.mine(of text) RETURNS boolean LANGUAGE sql STABLE RETURN EXISTS (SELECT 1 FROM clinic.members m WHERE m.tenant_id = of AND m.login = current_user);
CREATE POLICY own ON clinic.visits USING (clinic.mine(tenant_id));
-- case: CU017 clinic.members
-- with: CU001 clinic.members, CU014 clinic.visits
CREATE TABLE clinic.members (tenant_id text NOT NULL, login text NOT NULL, PRIMARY KEY (tenant_id, login));
GRANT SELECT, INSERT ON clinic.members TO clinic_app;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.mine(of text) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN EXISTS (SELECT 1 FROM clinic.members m WHERE m.tenant_id = of AND m.login = session_user); END $$;
CREATE POLICY own ON clinic.visits USING (clinic.mine(tenant_id));
-- case: CU018 clinic.mine(text)
-- with: CU001 clinic.members, CU014 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE clinic.members (tenant_id text NOT NULL, login text NOT NULL);
CREATE FUNCTION clinic.mine(of text) RETURNS boolean LANGUAGE plpgsql STABLE
AS $$ BEGIN RETURN EXISTS (SELECT 1 FROM members m WHERE m.tenant_id = of AND m.login = session_user); END $$;
CREATE POLICY own ON clinic.visits USING (clinic.mine(tenant_id));
-- case: CU018 clinic.mine(text)
-- with: CU001 clinic.members, CU014 clinic.visits
SET LOCAL search_path = clinic, pg_catalog;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- A search_path that leaves pg_temp where it is: first.
CREATE TABLE clinic.members (tenant_id text NOT NULL, login text NOT NULL);
CREATE FUNCTION clinic.mine(of text) RETURNS boolean LANGUAGE sql STABLE SET search_path = clinic
AS $$ SELECT EXISTS (SELECT 1 FROM members m WHERE m.tenant_id = of AND m.login = session_user) $$;
CREATE POLICY own ON clinic.visits USING (clinic.mine(tenant_id));
-- case: CU019 clinic.ctx()
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- case: CU019 clinic.ctx()
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT current_setting('app.tenant', true) $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- case: CU037 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY writes ON clinic.visits FOR INSERT WITH CHECK (id > 0);
CREATE POLICY reads ON clinic.visits FOR SELECT USING (tenant_id = custody.tenant());
-- case: CU038 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = coalesce(current_setting('app.tenant', true), 'northgate'));
-- case: CU038 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant() OR tenant_id = 'demo');
-- case: CU038 clinic_app
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('app.tenant'));
ALTER ROLE clinic_app SET app.tenant = 'northgate';
-- case: CU038 ALL
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('app.tenant'));
ALTER ROLE ALL SET app.tenant = 'northgate';
-- case: CU039 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('request.jwt.claims', true)::jsonb -> 'user_metadata' ->> 'tenant');
-- case: CU007 clinic.notes
-- Critical: a policy admits such rows.
CREATE TABLE clinic.notes (tenant_id text, id int);
ALTER TABLE clinic.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.notes USING (tenant_id = custody.tenant() OR tenant_id IS NULL);
-- case: CU049 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
GRANT SELECT, UPDATE ON clinic.visits TO clinic_app;
-- case: CU052 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits FOR SELECT USING (tenant_id = custody.tenant());
GRANT SELECT, DELETE ON clinic.visits TO clinic_app;
-- case: CU048 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
GRANT SELECT, INSERT ON clinic.visits TO clinic_app;
-- case: CU040 clinic_owner
CREATE ROLE clinic_owner LOGIN BYPASSRLS;
ALTER ROLE clinic_owner SET role = 'clinic_app';
-- case: CU041 clinic_owner
CREATE ROLE clinic_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE clinic_owner IN SCHEMA clinic GRANT SELECT, INSERT ON TABLES TO clinic_app;
-- case: CU042 pg_catalog.pg_statistic
GRANT SELECT ON pg_catalog.pg_statistic TO clinic_app;
-- case: CU042 pg_catalog.pg_statistic_ext_data
GRANT SELECT (stxdmcv) ON pg_catalog.pg_statistic_ext_data TO clinic_app;
-- case: CU042 pg_catalog.pg_authid
GRANT SELECT ON pg_catalog.pg_authid TO PUBLIC;
-- case: CU043 everything
CREATE PUBLICATION everything FOR ALL TABLES;
-- case: CU043 of_schema
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA clinic;
-- case: CU043 patients
CREATE PUBLICATION patients FOR TABLE clinic.patients;
-- case: CU044 large objects of clinic_app
SELECT lo_create(4711);
ALTER LARGE OBJECT 4711 OWNER TO clinic_app;
-- case: CU044 large objects of PUBLIC
SELECT lo_create(4712);
GRANT SELECT ON LARGE OBJECT 4712 TO PUBLIC;
-- case: CU044 lo_compat_privileges
SET LOCAL lo_compat_privileges = on;
-- case: CU045 dblink
CREATE EXTENSION dblink;
-- case: CU046 nowhere
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE USER MAPPING FOR PUBLIC SERVER nowhere;
-- case: CU046 nowhere
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
GRANT USAGE ON FOREIGN SERVER nowhere TO clinic_app;
-- case: CU047 clinic.tell(text)
CREATE FUNCTION clinic.tell(text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
-- case: CU053 clinic_app
ALTER ROLE clinic_app CREATEDB;
-- case: CU054 clinic.patients
CREATE FUNCTION clinic.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER note AFTER INSERT ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.note();
-- case: CU055 pg_read_file(text)
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO clinic_app;
-- case: CU026 clinic_app
-- Low.
GRANT pg_checkpoint TO clinic_app;
-- case: CU014 clinic.visits
-- with: CU033 clinic.mine(text)
-- What a SECURITY DEFINER function reads is not under its caller's policies.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.mine(of text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
RETURN EXISTS (SELECT 1 FROM clinic.patients p WHERE p.tenant_id = of);
CREATE POLICY own ON clinic.visits USING (clinic.mine(tenant_id));

-- control: base
SELECT 1;
-- control: uuid tenants
CREATE TABLE clinic.visits (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
GRANT SELECT, INSERT ON clinic.visits TO clinic_app;
-- control: integer tenants
CREATE TABLE clinic.visits (tenant_id integer NOT NULL, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
-- control: bigint tenants
CREATE TABLE clinic.visits (tenant_id bigint NOT NULL, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
-- control: varchar tenants
CREATE TABLE clinic.visits (tenant_id varchar(40) NOT NULL, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.visits');
-- control: names that need quotes
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Odd ""table"" 'x" ("Org-Id" text NOT NULL, id int, PRIMARY KEY ("Org-Id", id));
SELECT custody.protect('"Odd Schema"."Odd ""table"" ''x"', 'Org-Id');
-- control: the tenant column is not the first
CREATE TABLE clinic.visits (id int, gone int, tenant_id text NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits DROP COLUMN gone;
SELECT custody.protect('clinic.visits');
-- control: tenant column renamed in another table of that name
CREATE TABLE clinic.visits (org text NOT NULL, id int, PRIMARY KEY (org, id));
SELECT custody.protect('clinic.visits', 'org');
CREATE TABLE clinic.notes (org text NOT NULL, id int, PRIMARY KEY (org, id));
ALTER TABLE clinic.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.notes USING (org = custody.tenant());
-- control: hand-written policy
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('app.tenant', true));
-- control: hand-written policies, one a command
CREATE TABLE clinic.visits (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY s ON clinic.visits FOR SELECT USING (tenant_id = (SELECT custody.tenant_uuid()));
CREATE POLICY i ON clinic.visits FOR INSERT WITH CHECK (tenant_id = (SELECT custody.tenant_uuid()));
CREATE POLICY u ON clinic.visits FOR UPDATE USING (tenant_id = (SELECT custody.tenant_uuid()));
CREATE POLICY d ON clinic.visits FOR DELETE USING (tenant_id = (SELECT custody.tenant_uuid()));
-- control: hand-written, by a look-up
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id IN (SELECT p.tenant_id FROM clinic.patients p WHERE p.name = CURRENT_USER));
-- control: a role for each tenant
CREATE ROLE clinic_a IN ROLE custody_app;
CREATE ROLE clinic_b IN ROLE custody_app;
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY a ON clinic.visits TO clinic_a USING (tenant_id = 'a');
CREATE POLICY b ON clinic.visits TO clinic_b USING (tenant_id = 'b');
-- control: further policies above the floor
CREATE POLICY named ON clinic.patients FOR SELECT USING (name IS NOT NULL);
CREATE POLICY everything ON clinic.patients TO clinic_app USING (true);
-- control: a generous policy above hand-written floors
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON clinic.visits FOR SELECT USING (true);
CREATE POLICY narrow ON clinic.visits AS RESTRICTIVE FOR SELECT USING (tenant_id = custody.tenant());
-- control: a policy for a role that is not constrained
CREATE ROLE clinic_report;
CREATE POLICY report ON clinic.patients FOR SELECT TO clinic_report USING (true);
DROP POLICY custody_tenant ON clinic.patients;
CREATE POLICY own ON clinic.patients TO clinic_app USING (tenant_id = custody.tenant());
-- control: a table closed to tenants
CREATE TABLE clinic.jobs (id int PRIMARY KEY);
ALTER TABLE clinic.jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON clinic.jobs USING (false);
GRANT SELECT ON clinic.jobs TO clinic_app;
-- control: a table for a worker
CREATE ROLE clinic_worker;
CREATE TABLE clinic.jobs (id int PRIMARY KEY);
ALTER TABLE clinic.jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON clinic.jobs TO clinic_worker USING (true);
GRANT ALL ON clinic.jobs, clinic.patients TO clinic_worker;
-- control: protected partitions
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.visits_a PARTITION OF clinic.visits FOR VALUES IN ('a') PARTITION BY HASH (id);
CREATE TABLE clinic.visits_a0 PARTITION OF clinic.visits_a FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE clinic.visits_b PARTITION OF clinic.visits DEFAULT;
SELECT custody.protect('clinic.visits');
GRANT SELECT, INSERT ON clinic.visits TO clinic_app;
-- control: hand-written, with partitions that are closed
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.visits_a PARTITION OF clinic.visits FOR VALUES IN ('a');
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE clinic.visits_a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
-- control: a shared table with partitions
CREATE TABLE clinic.icd (code text PRIMARY KEY) PARTITION BY HASH (code);
CREATE TABLE clinic.icd_0 PARTITION OF clinic.icd FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT custody.register_shared('clinic.icd', 'diagnoses are the same for all');
GRANT SELECT ON clinic.icd TO custody_app;
-- control: keys with the tenant
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, patient int, code text REFERENCES clinic.codes, number int, PRIMARY KEY (tenant_id, id),
  UNIQUE (number, tenant_id), FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients ON DELETE SET NULL (patient));
SELECT custody.protect('clinic.visits');
CREATE UNIQUE INDEX ON clinic.visits (tenant_id, lower(code));
-- control: low only, a uuid key and no index
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id uuid PRIMARY KEY);
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
-- control: low only, temporary tables
DO $$ BEGIN EXECUTE format('GRANT TEMP ON DATABASE %I TO PUBLIC', current_database()); END $$;
-- control: views that ask as their caller
CREATE VIEW clinic.v1 WITH (security_invoker = on) AS SELECT * FROM clinic.patients;
CREATE VIEW clinic.v2 WITH (security_invoker = true, security_barrier) AS SELECT * FROM clinic.v1;
CREATE VIEW clinic.v3 WITH (security_invoker = '1') AS SELECT * FROM clinic.v2;
CREATE VIEW clinic.v4 WITH (security_invoker = yes) AS SELECT * FROM clinic.v3;
CREATE VIEW clinic.v5 WITH (security_invoker) AS SELECT * FROM clinic.v4;
GRANT SELECT ON clinic.v1, clinic.v2, clinic.v3, clinic.v4, clinic.v5 TO clinic_app;
-- control: an owner's view above one that asks as its caller
CREATE VIEW clinic.lower WITH (security_invoker = on) AS SELECT * FROM clinic.patients;
CREATE VIEW clinic.upper AS SELECT * FROM clinic.lower;
GRANT SELECT ON clinic.lower, clinic.upper TO clinic_app;
-- control: an owner's view of shared data, one of the catalog, and one that nobody may read
CREATE VIEW clinic.code_labels AS SELECT label FROM clinic.codes;
CREATE VIEW clinic.sizes AS SELECT relname, reltuples FROM pg_catalog.pg_class;
GRANT SELECT ON clinic.code_labels, clinic.sizes TO clinic_app;
CREATE VIEW clinic.all_patients AS SELECT * FROM clinic.patients;
-- control: an owner's view whose owner the floor holds
CREATE ROLE clinic_owner;
GRANT SELECT ON clinic.patients TO clinic_owner;
GRANT USAGE, CREATE ON SCHEMA clinic TO clinic_owner;
CREATE VIEW clinic.patient_names AS SELECT name FROM clinic.patients;
ALTER VIEW clinic.patient_names OWNER TO clinic_owner;
GRANT SELECT ON clinic.patient_names TO clinic_app;
-- control: materialized views, of shared data and not granted
CREATE MATERIALIZED VIEW clinic.code_count AS SELECT count(*) FROM clinic.codes;
GRANT SELECT ON clinic.code_count TO clinic_app;
CREATE MATERIALIZED VIEW clinic.patient_copy AS SELECT * FROM clinic.patients;
-- control: definer functions that are no way round
CREATE FUNCTION clinic.find(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM clinic.patients $$;
REVOKE EXECUTE ON FUNCTION clinic.find(text) FROM PUBLIC;
CREATE ROLE clinic_owner;
GRANT USAGE, CREATE ON SCHEMA clinic TO clinic_owner;
ALTER TABLE clinic.patients OWNER TO clinic_owner;
CREATE FUNCTION clinic.held(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM clinic.patients $$;
ALTER FUNCTION clinic.held(text) OWNER TO clinic_owner;
CREATE FUNCTION clinic.stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION clinic.invoker(text) RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM clinic.patients $$;
-- control: a foreign table that nobody may read
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE clinic.remote (tenant_id text, id int) SERVER nowhere;
-- control: triggers of an audited table
SELECT custody.audit('clinic.patients');
CREATE FUNCTION clinic.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "!a" BEFORE UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.touch();
CREATE TRIGGER "!b" AFTER UPDATE ON clinic.patients FOR EACH STATEMENT EXECUTE FUNCTION clinic.touch();
CREATE TRIGGER after_all AFTER UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.touch();
-- control: roles that are not constrained
CREATE ROLE clinic_dba SUPERUSER CREATEROLE REPLICATION;
CREATE ROLE clinic_ops IN ROLE pg_monitor, pg_read_server_files, custody_admin;
GRANT ALL ON clinic.patients, clinic.codes TO clinic_ops;
GRANT CREATE ON SCHEMA clinic TO clinic_ops;
GRANT SET ON PARAMETER session_replication_role TO clinic_ops;
-- control: pg_read_all_data does not go round row-level security
GRANT pg_read_all_data TO clinic_app;
-- control: a harmless parameter
GRANT SET ON PARAMETER log_min_duration_statement TO clinic_app;
-- control: temporary tables of this session
CREATE TEMP TABLE scratch (id int PRIMARY KEY);
-- control: members by way of a group
CREATE ROLE clinic_group IN ROLE custody_app;
CREATE ROLE clinic_login LOGIN IN ROLE clinic_group;
GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients TO clinic_group;
-- control: hand-written, with the empty setting taken for none
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')));
-- control: hand-written, and more
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = current_setting('app.tenant') AND id > 0 AND (id < 10 OR tenant_id <> 'x'));
-- control: hand-written, of several tenants
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = ANY (string_to_array(current_setting('app.tenants', true), ',')));
-- control: hand-written, by a function
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.tenant', true), '') $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = (SELECT clinic.ctx()));
-- control: hand-written, by a function that is not looked into
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN current_setting(''app.tenant'', true); END';
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- control: hand-written, by a protected table of members
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE clinic.members (tenant_id text, login text, PRIMARY KEY (tenant_id, login));
SELECT custody.protect('clinic.members');
GRANT SELECT, INSERT ON clinic.members TO clinic_app;
CREATE POLICY own ON clinic.visits USING (tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM clinic.members m)));
-- control: hand-written, by a table of members that is only read
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE clinic.members (login text PRIMARY KEY, tenant text);
SELECT custody.register_shared('clinic.members', 'who is whose');
GRANT SELECT ON clinic.members TO clinic_app;
CREATE POLICY own ON clinic.visits USING (EXISTS (SELECT 1 FROM clinic.members m WHERE m.tenant = visits.tenant_id AND m.login = session_user));
-- control: a check that says more than the policy
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant()) WITH CHECK (tenant_id = custody.tenant() AND id > 0);
-- control: no check
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits FOR UPDATE USING (tenant_id = custody.tenant());
CREATE POLICY seen ON clinic.visits FOR SELECT USING (tenant_id = custody.tenant());
-- control: no rows for nobody
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (NOT (tenant_id IS DISTINCT FROM custody.tenant()));
-- control: a floor for the application's group
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY anything ON clinic.visits TO clinic_app USING (true);
CREATE POLICY narrow ON clinic.visits AS RESTRICTIVE TO clinic_app USING (tenant_id = custody.tenant());
-- control: no tenant column, but held to it through another table
CREATE TABLE clinic.lines (patient int NOT NULL, line int NOT NULL, PRIMARY KEY (patient, line));
ALTER TABLE clinic.lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.lines USING (EXISTS (SELECT 1 FROM clinic.patients p WHERE p.id = lines.patient));
-- control: a tenant column of another name
CREATE TABLE clinic.accounts (org_id uuid NOT NULL, id int, PRIMARY KEY (org_id, id));
ALTER TABLE clinic.accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.accounts USING (org_id = (SELECT nullif(current_setting('app.org', true), '')::uuid));
-- control: a publication with a row filter
CREATE PUBLICATION northgate FOR TABLE clinic.patients WHERE (tenant_id = 'northgate'), clinic.codes;
-- control: an administrator of the group
CREATE ROLE clinic_dba NOINHERIT;
-- case: CU056 clinic.remembered()
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.remembered() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('mine.kept', coalesce(current_setting('app.tenant', true), ''), false);
  RETURN current_setting('mine.kept', true);
END $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.remembered());
-- case: CU056 clinic.remember(text)
-- Through another function, the one that counts in dynamic SQL.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.remember(text) RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN EXECUTE 'SELECT set_config(''mine.kept'', $1, false)' USING $1; RETURN $1; END $$;
CREATE FUNCTION clinic.ctx() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN RETURN clinic.remember(current_setting('app.tenant', true)); END $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- case: CU056 clinic.setting()
-- SET needs VOLATILE, which is a finding too. What stands between two comments is read.
-- with: CU019 clinic.setting()
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.setting() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN /* once */ SET SESSION mine.kept = 'x'; /* and for all */ RETURN current_setting('app.tenant', true); END $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.setting());
-- case: CU057 clinic.mine()
CREATE FUNCTION clinic.mine() RETURNS text STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT custody.tenant()';
ALTER FUNCTION clinic.mine() OWNER TO custody_app;
CREATE POLICY narrow ON clinic.patients AS RESTRICTIVE USING (tenant_id = clinic.mine());
-- case: CU057 clinic.deeper()
-- Of a role that the constrained one may become, called by what the policy calls.
CREATE ROLE clinic_writer;
GRANT clinic_writer TO clinic_app;
CREATE FUNCTION clinic.deeper() RETURNS text STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT custody.tenant()';
ALTER FUNCTION clinic.deeper() OWNER TO clinic_writer;
CREATE FUNCTION clinic.mine() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN clinic.deeper(); END';
CREATE POLICY narrow ON clinic.patients AS RESTRICTIVE USING (tenant_id = clinic.mine());
-- case: CU057 clinic.===(text,text)
-- with: CU005 clinic.visits
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.same(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT $1 = $2';
CREATE OPERATOR clinic.=== (FUNCTION = clinic.same, LEFTARG = text, RIGHTARG = text);
ALTER OPERATOR clinic.=== (text, text) OWNER TO clinic_app;
CREATE POLICY own ON clinic.visits USING (tenant_id OPERATOR(clinic.===) custody.tenant());
-- case: CU057 clinic.tenant_name
CREATE DOMAIN clinic.tenant_name AS text;
CREATE TABLE clinic.visits (tenant_id clinic.tenant_name NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = custody.tenant());
ALTER DOMAIN clinic.tenant_name OWNER TO clinic_app;
-- case: CU057 ward
-- The schema that the table is in.
-- with: CU028 ward
CREATE SCHEMA ward AUTHORIZATION clinic_app;
CREATE TABLE ward.visits (tenant_id text, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('ward.visits');
-- case: CU057 clinic.touch()
CREATE FUNCTION clinic.touch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END';
ALTER FUNCTION clinic.touch() OWNER TO clinic_app;
CREATE TRIGGER touch BEFORE UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.touch();
-- case: CU057 clinic.next_id()
CREATE FUNCTION clinic.next_id() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION clinic.next_id() OWNER TO clinic_app;
ALTER TABLE clinic.patients ALTER id SET DEFAULT clinic.next_id();
-- case: CU058 clinic.patients
CREATE TABLE clinic.papers (tenant_id text, id int, name text);
ALTER TABLE clinic.patients INHERIT clinic.papers;
SELECT custody.register_shared('clinic.papers', 'only there to be inherited from');
GRANT SELECT ON clinic.papers TO clinic_app;
-- case: CU058 clinic.patients
-- The parent's parent, which has no tenant column.
-- with: CU001 clinic.papers, CU006 clinic.papers, CU007 clinic.sheets, CU058 clinic.sheets
CREATE TABLE clinic.papers (id int, name text);
CREATE TABLE clinic.sheets (tenant_id text) INHERITS (clinic.papers);
ALTER TABLE clinic.sheets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.sheets USING (tenant_id = custody.tenant());
ALTER TABLE clinic.patients INHERIT clinic.sheets;
GRANT SELECT ON clinic.papers TO clinic_app;
-- case: CU059 clinic.templates()
-- An invoker's function, and the setting is asked for by the function that the policy calls.
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN current_setting('App.Tenant', true); END $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
CREATE FUNCTION clinic.templates() RETURNS SETOF clinic.visits STABLE LANGUAGE sql SET app.tenant = 'northgate' AS 'SELECT * FROM clinic.visits';
-- case: CU059 clinic.tidy()
CREATE PROCEDURE clinic.tidy() LANGUAGE plpgsql SET custody.token_leeway = 60 AS 'BEGIN NULL; END';
-- case: CU059 clinic.quietly()
CREATE FUNCTION clinic.quietly() RETURNS trigger LANGUAGE plpgsql SET session_replication_role = replica AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER quietly BEFORE UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.quietly();
-- case: CU059 clinic.everything()
CREATE FUNCTION clinic.everything() RETURNS bigint LANGUAGE sql SET row_security = off AS 'SELECT count(*) FROM clinic.patients';
-- case: CU059 clinic.first_temp()
CREATE ROLE clinic_owner;
GRANT USAGE, CREATE ON SCHEMA clinic TO clinic_owner;
CREATE FUNCTION clinic.first_temp() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_temp, clinic AS 'SELECT 1::bigint';
ALTER FUNCTION clinic.first_temp() OWNER TO clinic_owner;
-- case: CU060 clinic.patients
CREATE EXTENSION tcn;
CREATE TRIGGER refresh AFTER INSERT OR UPDATE OR DELETE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION triggered_change_notification('patients');
-- case: CU060 clinic.patients
-- Low: what is in it can't be told.
CREATE FUNCTION clinic.tell() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM pg_notify('patients', NEW.name); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.tell();
-- case: CU061 clinic.invoice_no
CREATE SEQUENCE clinic.invoice_no;
GRANT ALL ON SEQUENCE clinic.invoice_no TO clinic_app;
-- case: CU061 clinic.invoice_no
CREATE SEQUENCE clinic.invoice_no;
ALTER SEQUENCE clinic.invoice_no OWNER TO clinic_app;
-- case: CU048 clinic.invoice_no
CREATE SEQUENCE clinic.invoice_no;
GRANT USAGE ON SEQUENCE clinic.invoice_no TO clinic_app;
-- case: CU043 onward
CREATE PUBLICATION onward FOR TABLE clinic.patients WHERE (tenant_id >= 'northgate') WITH (publish = 'insert');
-- case: CU043 everyone
CREATE PUBLICATION everyone FOR TABLE clinic.patients (tenant_id, id) WHERE (id > 0);
-- case: CU043 two
-- Low: those that it names.
CREATE PUBLICATION two FOR TABLE clinic.patients WHERE (tenant_id = 'northgate' OR tenant_id = 'southgate');
-- control: a helper that sets something for the transaction only
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION clinic.ctx() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- not set_config('mine.kept', 'x', false)
  PERFORM set_config('mine.kept', coalesce(nullif(current_setting('app.tenant', true), ''), ''), true);
  PERFORM set_config(setting_name => 'mine.more', new_value => 'false', is_local => true);
  RETURN current_setting('mine.kept', true);
END $$;
CREATE POLICY own ON clinic.visits USING (tenant_id = clinic.ctx());
-- What no policy calls may keep what it likes.
CREATE FUNCTION clinic.remember(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('mine.kept', $1, false) $$;
-- control: what constrained roles own and no table stands on, and what others own
CREATE FUNCTION clinic.mine() RETURNS text STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT custody.tenant()';
CREATE POLICY narrow ON clinic.patients AS RESTRICTIVE USING (tenant_id = clinic.mine());
CREATE FUNCTION clinic.greeting() RETURNS text LANGUAGE sql AS $$ SELECT 'hello' || clinic.mine() $$;
ALTER FUNCTION clinic.greeting() OWNER TO clinic_app;
CREATE DOMAIN clinic.colour AS text;
ALTER DOMAIN clinic.colour OWNER TO clinic_app;
CREATE FUNCTION clinic.label(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
ALTER FUNCTION clinic.label(text) OWNER TO clinic_app;
CREATE INDEX ON clinic.codes (clinic.label(label));
-- control: a child of a protected parent, and one of a parent that is closed
CREATE TABLE clinic.patients_old () INHERITS (clinic.patients);
CREATE TABLE clinic.closed (id int);
ALTER TABLE clinic.closed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON clinic.closed USING (false);
ALTER TABLE clinic.patients INHERIT clinic.closed;
-- control: SET clauses that are no trick
CREATE TABLE clinic.visits (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.visits USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE FUNCTION clinic.a() RETURNS bigint LANGUAGE sql SET search_path = clinic, pg_temp SET work_mem = '8MB' SET statement_timeout = '1s' AS 'SELECT count(*) FROM visits';
CREATE FUNCTION clinic.b() RETURNS bigint LANGUAGE sql SET app.tenant = '' AS 'SELECT count(*) FROM clinic.visits';
CREATE FUNCTION clinic.c() RETURNS bigint LANGUAGE sql SET app.tenant = 'northgate' AS 'SELECT count(*) FROM clinic.visits';
REVOKE EXECUTE ON FUNCTION clinic.c() FROM PUBLIC;
-- control: tcn on a shared table
CREATE EXTENSION tcn;
CREATE TRIGGER refresh AFTER INSERT OR UPDATE OR DELETE ON clinic.codes FOR EACH ROW EXECUTE FUNCTION triggered_change_notification('codes');
-- control: USAGE of a sequence
CREATE SEQUENCE clinic.invoice_no;
GRANT USAGE, SELECT ON SEQUENCE clinic.invoice_no TO clinic_app;
CREATE SEQUENCE clinic.unused;
-- control: publications of one tenant's rows
CREATE PUBLICATION one FOR TABLE clinic.patients (tenant_id, id) WHERE (tenant_id = 'north or any gate' AND id > 0);
CREATE PUBLICATION none FOR TABLE clinic.patients WHERE (false);
