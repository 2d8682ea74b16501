-- category: A4 schema design

-- mutant: a foreign key without the tenant
-- finds: CU012 clinic.bills
CREATE TABLE clinic.invoices (tenant_id text NOT NULL, id int PRIMARY KEY);
CREATE TABLE clinic.bills (tenant_id text NOT NULL, id int, invoice int REFERENCES clinic.invoices, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.invoices'), custody.protect('clinic.bills');
INSERT INTO clinic.invoices VALUES ('b', 7);
GRANT SELECT, INSERT ON clinic.bills TO clinic_app;
-- proof: INSERT INTO clinic.bills (id, invoice) VALUES (1, 7); SELECT FROM clinic.bills WHERE invoice = 7

-- mutant: a foreign key without the tenant that deletes across
-- finds: CU012 clinic.bills
CREATE TABLE clinic.invoices (tenant_id text NOT NULL, id int PRIMARY KEY);
CREATE TABLE clinic.bills (tenant_id text NOT NULL, id int, invoice int REFERENCES clinic.invoices ON DELETE CASCADE, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.invoices'), custody.protect('clinic.bills');
INSERT INTO clinic.invoices VALUES ('a', 7);
INSERT INTO clinic.bills VALUES ('b', 1, 7);
GRANT SELECT, DELETE ON clinic.invoices TO clinic_app;
-- proof: DELETE FROM clinic.invoices WHERE id = 7
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.bills WHERE tenant_id = 'b')

-- mutant: a table that refers to itself without the tenant
-- finds: CU012 clinic.folders
CREATE TABLE clinic.folders (tenant_id text NOT NULL, id int UNIQUE, parent int REFERENCES clinic.folders (id), PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.folders');
INSERT INTO clinic.folders VALUES ('b', 7);
GRANT SELECT, INSERT ON clinic.folders TO clinic_app;
-- proof: INSERT INTO clinic.folders (id, parent) VALUES (1, 7); SELECT FROM clinic.folders WHERE parent = 7

-- mutant: the tenant refers to something that is none
-- finds: CU012 clinic.bills
CREATE TABLE clinic.invoices (tenant_id text NOT NULL, payer text NOT NULL, id int, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, payer, id), UNIQUE (payer, id));
CREATE TABLE clinic.bills (tenant_id text NOT NULL, id int, invoice int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, invoice) REFERENCES clinic.invoices (payer, id));
SELECT custody.protect('clinic.invoices'), custody.protect('clinic.bills');
INSERT INTO clinic.invoices VALUES ('b', 'a', 7);
GRANT SELECT, INSERT ON clinic.bills TO clinic_app;
-- proof: INSERT INTO clinic.bills (id, invoice) VALUES (1, 7); SELECT FROM clinic.bills WHERE invoice = 7

-- mutant: a foreign key from a table without policies of the constrained role
-- finds: CU012 clinic.bills
CREATE TABLE clinic.bills (tenant_id text NOT NULL, id int, author_note int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.notes ADD CONSTRAINT by_id UNIQUE (author, id);
ALTER TABLE clinic.bills ADD author text, ADD FOREIGN KEY (author, author_note) REFERENCES clinic.notes (author, id);
SELECT custody.protect('clinic.bills');
GRANT SELECT, INSERT ON clinic.bills TO clinic_app;
-- proof: INSERT INTO clinic.bills (id, author, author_note) VALUES (1, 'eve', 1); SELECT FROM clinic.bills

-- mutant: a unique constraint without the tenant
-- finds: CU011 clinic.patients
ALTER TABLE clinic.patients ADD UNIQUE (name);
-- proof: DO $$ BEGIN INSERT INTO clinic.patients (id, name) VALUES (5, 'Bob'); EXCEPTION WHEN unique_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: a unique index on an expression, for some rows
-- finds: CU011 clinic.notes
CREATE UNIQUE INDEX ON clinic.notes (lower(author)) WHERE author <> 'none';
-- proof: DO $$ BEGIN INSERT INTO clinic.notes (tenant_id, id, author) VALUES ('a', 5, 'EVE'); EXCEPTION WHEN unique_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: a primary key of numbers that all tenants share
-- finds: CU011 clinic.letters
CREATE TABLE clinic.letters (tenant_id text NOT NULL, id int PRIMARY KEY);
SELECT custody.protect('clinic.letters');
INSERT INTO clinic.letters VALUES ('b', 1);
GRANT SELECT, INSERT ON clinic.letters TO clinic_app;
-- proof: DO $$ BEGIN INSERT INTO clinic.letters (id) VALUES (1); EXCEPTION WHEN unique_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: the tenant is in the key's INCLUDE, which does not count
-- finds: CU011 clinic.notes
CREATE UNIQUE INDEX ON clinic.notes (author) INCLUDE (tenant_id);
-- proof: DO $$ BEGIN INSERT INTO clinic.notes (tenant_id, id, author) VALUES ('a', 5, 'eve'); EXCEPTION WHEN unique_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: rooms are booked across tenants
-- finds: CU011 clinic.stays
CREATE TABLE clinic.stays (tenant_id text NOT NULL, id int, during int4range, PRIMARY KEY (tenant_id, id), EXCLUDE USING gist (during WITH &&));
SELECT custody.protect('clinic.stays');
INSERT INTO clinic.stays VALUES ('b', 1, '[1,5)');
GRANT SELECT, INSERT ON clinic.stays TO clinic_app;
-- proof: DO $$ BEGIN INSERT INTO clinic.stays (id, during) VALUES (1, '[2,3)'); EXCEPTION WHEN exclusion_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: a unique constraint that is checked at the end
-- finds: CU011 clinic.notes
ALTER TABLE clinic.notes ADD UNIQUE (author) DEFERRABLE INITIALLY DEFERRED;
-- proof: INSERT INTO clinic.notes (tenant_id, id, author) VALUES ('a', 5, 'eve'); DO $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; EXCEPTION WHEN unique_violation THEN PERFORM set_config('proof.seen', 'yes', true); END $$; SELECT WHERE current_setting('proof.seen', true) = 'yes'

-- mutant: a primary key of uuids
-- finds low: CU011 clinic.letters
CREATE TABLE clinic.letters (tenant_id text NOT NULL, id uuid PRIMARY KEY);
SELECT custody.protect('clinic.letters');
-- no proof: nobody guesses a uuid, but who has seen one can ask for it

-- mutant: one sequence counts for all tenants
-- finds low: * clinic.letters_id_seq | * clinic.letters
CREATE TABLE clinic.letters (tenant_id text NOT NULL, id bigint GENERATED BY DEFAULT AS IDENTITY, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.letters');
INSERT INTO clinic.letters (tenant_id) SELECT 'b' FROM generate_series(1, 1000);
GRANT SELECT, INSERT ON clinic.letters TO clinic_app;
-- proof: INSERT INTO clinic.letters DEFAULT VALUES; SELECT FROM clinic.letters WHERE id > 1000

-- mutant: rows without a tenant, which a policy shows to all
-- finds: CU007 clinic.letters | policy clinic.letters
CREATE TABLE clinic.letters (tenant_id text, id int);
CREATE INDEX ON clinic.letters (tenant_id);
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id = current_setting('app.tenant', true) OR tenant_id IS NULL);
INSERT INTO clinic.letters VALUES (NULL, 1);
GRANT SELECT, INSERT ON clinic.letters TO clinic_app;
-- proof: SELECT FROM clinic.letters WHERE tenant_id IS NULL

-- mutant: IS NOT DISTINCT FROM on a tenant that may be NULL
-- finds: CU007 clinic.letters | policy clinic.letters
CREATE TABLE clinic.letters (tenant_id text, id int);
CREATE INDEX ON clinic.letters (tenant_id);
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id IS NOT DISTINCT FROM nullif(current_setting('app.tenant', true), ''));
INSERT INTO clinic.letters VALUES (NULL, 1);
GRANT SELECT ON clinic.letters TO clinic_app;
-- proof: SET LOCAL app.tenant = ''; SELECT FROM clinic.letters

-- mutant: the tenant may be NULL from now on
-- finds: CU007 clinic.notes
ALTER TABLE clinic.notes DROP CONSTRAINT notes_pkey;
ALTER TABLE clinic.notes ALTER tenant_id DROP NOT NULL;
CREATE INDEX ON clinic.notes (tenant_id);
-- no proof: a row without a tenant is lost to all, and open to none yet

-- mutant: no tenant column, and nobody said that it is for all
-- finds: CU006 clinic.prices
CREATE TABLE clinic.prices (id int PRIMARY KEY, amount int);
INSERT INTO clinic.prices VALUES (1, 100);
GRANT SELECT ON clinic.prices TO clinic_app;
-- proof: SELECT FROM clinic.prices

-- mutant: the tenant column has another name, and the policy another column
-- finds: CU006 clinic.letters | policy clinic.letters
CREATE TABLE clinic.letters (clinic_ref text NOT NULL, id int, body text);
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (body IS NOT NULL);
INSERT INTO clinic.letters VALUES ('b', 1, 'x');
GRANT SELECT ON clinic.letters TO clinic_app;
-- proof: SELECT FROM clinic.letters WHERE clinic_ref = 'b'

-- mutant: tenants that differ in case only are equal to the column's collation
-- finds: * clinic.letters
CREATE COLLATION clinic.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE clinic.letters (tenant_id text COLLATE clinic.ci NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id = current_setting('app.tenant', true));
INSERT INTO clinic.letters VALUES ('A', 1);
GRANT SELECT ON clinic.letters TO clinic_app;
-- proof: SELECT FROM clinic.letters WHERE id = 1

-- mutant: tenants that differ in case only are equal to the column's type
-- finds: * clinic.letters
CREATE EXTENSION citext SCHEMA pg_catalog;
CREATE TABLE clinic.letters (tenant_id citext NOT NULL, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.letters TO custody_app USING (tenant_id = current_setting('app.tenant', true)::citext);
INSERT INTO clinic.letters VALUES ('A', 1);
GRANT SELECT ON clinic.letters TO clinic_app;
-- proof: SELECT FROM clinic.letters WHERE id = 1

-- mutant: no index is led by the tenant
-- finds low: CU010 clinic.letters
CREATE TABLE clinic.letters (tenant_id text NOT NULL, id int, PRIMARY KEY (id, tenant_id));
SELECT custody.protect('clinic.letters');
DO $$ BEGIN EXECUTE format('DROP INDEX clinic.custody_tenant_%s', 'clinic.letters'::regclass::oid); END $$;
-- no proof: slow, and open to none

-- control: a foreign key with the tenant
CREATE TABLE clinic.bills (tenant_id text NOT NULL, id int, patient int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, patient) REFERENCES clinic.patients ON DELETE CASCADE);
SELECT custody.protect('clinic.bills');
GRANT SELECT, INSERT ON clinic.bills TO clinic_app;

-- control: a foreign key to shared data
CREATE TABLE clinic.findings (tenant_id text NOT NULL, id int, code text REFERENCES clinic.codes, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.findings');
GRANT SELECT, INSERT ON clinic.findings TO clinic_app;

-- control: a unique key with the tenant, in any place
ALTER TABLE clinic.notes ADD UNIQUE (author, tenant_id, id);

-- control: tenants that are uuids, protected
CREATE TABLE clinic.letters (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.letters');
GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.letters TO clinic_app;

-- control: tenants that are numbers, in a column of another name, protected
CREATE TABLE clinic.letters (org bigint NOT NULL, id int, PRIMARY KEY (org, id));
SELECT custody.protect('clinic.letters', 'org');
GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.letters TO clinic_app;

-- control: more reference data
CREATE TABLE clinic.countries (code text PRIMARY KEY, name text);
SELECT custody.register_shared('clinic.countries', 'ISO 3166');
GRANT SELECT ON clinic.countries TO PUBLIC;

-- control: a table that is closed to everybody constrained
CREATE TABLE clinic.jobs (id int PRIMARY KEY, what text);
ALTER TABLE clinic.jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON clinic.jobs USING (false);

-- control: the tenant column of a protected table is renamed, and its registration follows
ALTER TABLE clinic.visits RENAME tenant_id TO clinic_ref;
