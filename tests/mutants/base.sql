-- What every mutant and control starts from: a clinic in which tenants are kept apart. Roles are made once in a cluster.
CREATE SCHEMA clinic;
CREATE TABLE clinic.patients (tenant_id text, id int, name text, notes text, PRIMARY KEY (tenant_id, id));
CREATE TABLE clinic.visits (tenant_id text, id int, patient int, reason text, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients);
CREATE TABLE clinic.codes (code text PRIMARY KEY, label text);
-- Policies by hand, and right.
CREATE TABLE clinic.notes (tenant_id text, id int, body text, author text, open_to_all boolean NOT NULL DEFAULT false, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.notes TO custody_app
  USING (tenant_id = nullif(current_setting('app.tenant', true), '')) WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), ''));

ALTER SCHEMA clinic OWNER TO clinic_owner;
ALTER TABLE clinic.patients OWNER TO clinic_owner;
ALTER TABLE clinic.visits OWNER TO clinic_owner;
ALTER TABLE clinic.codes OWNER TO clinic_owner;
ALTER TABLE clinic.notes OWNER TO clinic_owner;
SELECT custody.create_tenant('a', 'Clinic A'), custody.create_tenant('b', 'Clinic B'), custody.create_tenant('ab', 'Clinic AB');
SELECT custody.protect('clinic.patients'), custody.protect('clinic.visits'), custody.register_shared('clinic.codes', 'the same list for everyone');
SELECT custody.audit('clinic.patients');
SELECT custody.allow_assume('clinic_app', ARRAY['a']);
GRANT USAGE ON SCHEMA clinic TO clinic_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients, clinic.visits, clinic.notes TO clinic_app;
GRANT SELECT ON clinic.codes TO clinic_app;

INSERT INTO clinic.codes VALUES ('A10', 'malaria');
INSERT INTO clinic.patients VALUES ('a', 1, 'Ann'), ('b', 1, 'Bob'), ('ab', 1, 'Abe');
INSERT INTO clinic.notes VALUES ('a', 1, 'A''s', 'ann'), ('a', 2, 'A''s', 'bob'), ('b', 1, 'B''s', 'eve'), ('b', 2, 'B''s', 'clinic_app'), ('ab', 1, 'AB''s', 'joe');
UPDATE clinic.notes SET open_to_all = true WHERE tenant_id = 'b' AND id = 1;
