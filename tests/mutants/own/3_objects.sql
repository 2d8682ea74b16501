-- category: A3 objects that step around row-level security

-- mutant: a view of a superuser's
-- finds: CU030 clinic.all_patients
CREATE VIEW clinic.all_patients AS SELECT * FROM clinic.patients;
GRANT SELECT ON clinic.all_patients TO clinic_app;
-- proof: SELECT FROM clinic.all_patients WHERE tenant_id = 'b'

-- mutant: a view of a role with BYPASSRLS, for everybody
-- finds: CU030 clinic.all_notes
CREATE ROLE clinic_reports BYPASSRLS;
GRANT SELECT ON clinic.notes TO clinic_reports;
GRANT USAGE ON SCHEMA clinic TO clinic_reports;
CREATE VIEW clinic.all_notes AS SELECT id, body FROM clinic.notes;
ALTER VIEW clinic.all_notes OWNER TO clinic_reports;
GRANT SELECT ON clinic.all_notes TO PUBLIC;
-- proof: SELECT FROM clinic.all_notes WHERE body = 'B''s'

-- mutant: security_invoker is there, and off
-- finds: CU030 clinic.all_notes
CREATE VIEW clinic.all_notes WITH (security_invoker = off, security_barrier = on) AS SELECT * FROM clinic.notes;
GRANT SELECT ON clinic.all_notes TO clinic_app;
-- proof: SELECT FROM clinic.all_notes WHERE tenant_id = 'b'

-- mutant: security_invoker is switched off later
-- finds: CU030 clinic.my_notes
CREATE VIEW clinic.my_notes WITH (security_invoker) AS SELECT * FROM clinic.notes;
GRANT SELECT ON clinic.my_notes TO clinic_app;
ALTER VIEW clinic.my_notes RESET (security_invoker);
-- proof: SELECT FROM clinic.my_notes WHERE tenant_id = 'b'

-- mutant: a view that only counts
-- finds: CU030 clinic.sizes
CREATE VIEW clinic.sizes AS SELECT tenant_id, count(*) FROM clinic.notes GROUP BY tenant_id;
GRANT SELECT ON clinic.sizes TO clinic_app;
-- proof: SELECT FROM clinic.sizes WHERE tenant_id = 'b'

-- mutant: one column of a view
-- finds: CU030 clinic.all_notes
CREATE VIEW clinic.all_notes AS SELECT * FROM clinic.notes;
GRANT SELECT (body) ON clinic.all_notes TO clinic_app;
-- proof: SELECT body FROM clinic.all_notes WHERE body = 'B''s'

-- mutant: a view over a view, and only the outer one is granted
-- finds: CU030 clinic.outer_view
CREATE VIEW clinic.inner_view AS SELECT * FROM clinic.notes;
CREATE VIEW clinic.outer_view AS SELECT * FROM clinic.inner_view;
GRANT SELECT ON clinic.outer_view TO clinic_app;
-- proof: SELECT FROM clinic.outer_view WHERE tenant_id = 'b'

-- mutant: an invoker view over a view with its owner's rights, in another schema
-- finds: CU030 reporting.base
CREATE SCHEMA reporting;
CREATE VIEW reporting.base AS SELECT * FROM clinic.notes;
CREATE VIEW clinic.my_notes WITH (security_invoker) AS SELECT * FROM reporting.base;
GRANT USAGE ON SCHEMA reporting TO clinic_app;
GRANT SELECT ON reporting.base, clinic.my_notes TO clinic_app;
-- proof: SELECT FROM clinic.my_notes WHERE tenant_id = 'b'

-- mutant: a view in a schema that nobody lists
-- finds: CU030 "Reporting 2".monthly
CREATE SCHEMA "Reporting 2";
CREATE VIEW "Reporting 2".monthly AS SELECT * FROM clinic.notes;
GRANT USAGE ON SCHEMA "Reporting 2" TO PUBLIC;
GRANT SELECT ON "Reporting 2".monthly TO PUBLIC;
-- proof: SELECT FROM "Reporting 2".monthly WHERE tenant_id = 'b'

-- mutant: a view that may only be written to
-- finds: CU030 clinic.inbox
CREATE VIEW clinic.inbox AS SELECT tenant_id, id, body FROM clinic.notes;
GRANT INSERT ON clinic.inbox TO clinic_app;
-- proof: INSERT INTO clinic.inbox VALUES ('b', 99, 'planted')
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND id = 99

-- mutant: a view with a subquery on the tenant table in its WHERE only
-- finds: CU030 clinic.busy_codes
CREATE VIEW clinic.busy_codes AS SELECT c.code FROM clinic.codes c WHERE EXISTS (SELECT FROM clinic.notes n WHERE n.author = 'eve');
GRANT SELECT ON clinic.busy_codes TO clinic_app;
-- proof: SELECT FROM clinic.busy_codes

-- mutant: a materialized view
-- finds: CU031 clinic.totals
CREATE MATERIALIZED VIEW clinic.totals AS SELECT tenant_id, count(*) FROM clinic.notes GROUP BY tenant_id;
GRANT SELECT ON clinic.totals TO clinic_app;
-- proof: SELECT FROM clinic.totals WHERE tenant_id = 'b'

-- mutant: a materialized view of a view, in another schema, for everybody
-- finds: CU031 reporting.totals
CREATE SCHEMA reporting;
CREATE VIEW reporting.base WITH (security_invoker) AS SELECT * FROM clinic.notes;
CREATE MATERIALIZED VIEW reporting.totals AS SELECT * FROM reporting.base;
GRANT USAGE ON SCHEMA reporting TO PUBLIC;
GRANT SELECT ON reporting.totals TO PUBLIC;
-- proof: SELECT FROM reporting.totals WHERE tenant_id = 'b'

-- mutant: a materialized view from a function
-- finds: CU031 clinic.totals
CREATE FUNCTION clinic.everything() RETURNS SETOF clinic.notes LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT * FROM clinic.notes';
REVOKE EXECUTE ON FUNCTION clinic.everything() FROM PUBLIC;
CREATE MATERIALIZED VIEW clinic.totals AS SELECT * FROM clinic.everything();
GRANT SELECT ON clinic.totals TO clinic_app;
-- proof: SELECT FROM clinic.totals WHERE tenant_id = 'b'

-- mutant: a backup of a table
-- finds: CU001 clinic.notes_backup
CREATE TABLE clinic.notes_backup AS SELECT * FROM clinic.notes;
GRANT SELECT ON clinic.notes_backup TO clinic_app;
-- proof: SELECT FROM clinic.notes_backup WHERE tenant_id = 'b'

-- mutant: a copy without the tenant column, in another schema
-- finds: CU006 staging.bodies
CREATE SCHEMA staging;
CREATE UNLOGGED TABLE staging.bodies AS SELECT body FROM clinic.notes;
GRANT USAGE ON SCHEMA staging TO PUBLIC;
GRANT SELECT ON staging.bodies TO PUBLIC;
-- proof: SELECT FROM staging.bodies WHERE body = 'B''s'

-- mutant: a table with an odd name in schema public
-- finds: CU001 public."Notes ""2""; --"
CREATE TABLE public."Notes ""2""; --" AS SELECT * FROM clinic.notes;
GRANT SELECT ON public."Notes ""2""; --" TO clinic_app;
-- proof: SELECT FROM public."Notes ""2""; --" WHERE tenant_id = 'b'

-- mutant: a SECURITY DEFINER function of a superuser's
-- finds: CU033 clinic.find(text)
CREATE FUNCTION clinic.find(word text) RETURNS SETOF clinic.notes LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT * FROM clinic.notes WHERE body ~ word';
-- proof: SELECT FROM clinic.find('B')

-- mutant: a SECURITY DEFINER procedure that writes
-- finds: CU033 clinic.tidy(integer)
CREATE PROCEDURE clinic.tidy(above int) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN DELETE FROM clinic.notes WHERE id > above; END';
-- proof: CALL clinic.tidy(0)
-- effect: SELECT WHERE NOT EXISTS (SELECT FROM clinic.notes WHERE tenant_id = 'b')

-- mutant: a SECURITY DEFINER function that runs any text, of a role with BYPASSRLS
-- finds: CU033 tools.run(text)
CREATE ROLE clinic_reports BYPASSRLS;
GRANT SELECT ON clinic.notes TO clinic_reports;
GRANT USAGE ON SCHEMA clinic TO clinic_reports;
CREATE SCHEMA tools;
GRANT USAGE ON SCHEMA tools TO clinic_app;
CREATE FUNCTION tools.run(query text) RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN RETURN QUERY EXECUTE query; END';
ALTER FUNCTION tools.run(text) OWNER TO clinic_reports;
-- proof: SELECT FROM tools.run('SELECT body FROM clinic.notes WHERE tenant_id = ''b''') AS r (body text)

-- mutant: a SECURITY DEFINER function of the tables' owner that switches the policies off
-- finds: CU033 clinic.maintain()
CREATE FUNCTION clinic.maintain() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN EXECUTE ''ALTER TABLE clinic.notes DISABLE ROW LEVEL SECURITY''; END';
ALTER FUNCTION clinic.maintain() OWNER TO clinic_owner;
-- proof: SELECT clinic.maintain(); SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a SECURITY DEFINER function that acts for the tenant it is given, of a role that is held by the policies
-- finds: * clinic.count_of(text)
CREATE ROLE clinic_reader IN ROLE custody_app;
GRANT USAGE ON SCHEMA clinic TO clinic_reader;
GRANT SELECT ON clinic.notes TO clinic_reader;
CREATE FUNCTION clinic.count_of(tenant text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS
  'BEGIN PERFORM set_config(''app.tenant'', tenant, true); RETURN (SELECT count(*) FROM clinic.notes); END';
ALTER FUNCTION clinic.count_of(text) OWNER TO clinic_reader;
-- proof: SELECT WHERE clinic.count_of('b') > 0

-- mutant: a rule by which what one writes changes what another has
-- finds: CU036 clinic.visits
ALTER TABLE clinic.notes OWNER TO postgres;
CREATE RULE merge AS ON DELETE TO clinic.visits DO ALSO UPDATE clinic.notes SET body = 'seen';
ALTER TABLE clinic.visits OWNER TO postgres;
INSERT INTO clinic.visits VALUES ('a', 1);
-- proof: DELETE FROM clinic.visits
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND body = 'seen'

-- mutant: a SECURITY DEFINER trigger that copies what is written to where all may read
-- finds: * clinic.copy() | CU006 clinic.feed
CREATE TABLE clinic.feed (body text);
GRANT SELECT ON clinic.feed TO clinic_app;
CREATE FUNCTION clinic.copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN INSERT INTO clinic.feed VALUES (NEW.body); RETURN NEW; END';
CREATE TRIGGER copy AFTER INSERT ON clinic.notes FOR EACH ROW EXECUTE FUNCTION clinic.copy();
INSERT INTO clinic.notes (tenant_id, id, body) VALUES ('b', 50, 'copied');
-- proof: SELECT FROM clinic.feed WHERE body = 'copied'

-- mutant: a partition that is granted by itself
-- finds: CU032 clinic.events_b
CREATE TABLE clinic.events (tenant_id text NOT NULL, id int) PARTITION BY LIST (tenant_id);
ALTER TABLE clinic.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.events TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE TABLE clinic.events_b PARTITION OF clinic.events FOR VALUES IN ('b');
INSERT INTO clinic.events VALUES ('b', 1);
GRANT SELECT ON clinic.events, clinic.events_b TO clinic_app;
-- proof: SELECT FROM clinic.events_b

-- mutant: a partition of a protected table, opened later
-- finds: CU032 clinic.events_b
CREATE TABLE clinic.events (tenant_id text NOT NULL, id int) PARTITION BY LIST (tenant_id);
CREATE TABLE clinic.events_b PARTITION OF clinic.events FOR VALUES IN ('b');
SELECT custody.protect('clinic.events');
INSERT INTO clinic.events VALUES ('b', 1);
ALTER TABLE clinic.events_b DISABLE ROW LEVEL SECURITY;
GRANT SELECT ON ALL TABLES IN SCHEMA clinic TO clinic_app;
-- no proof: a session that has loaded the library is held by it all the same; the next one that has not is not

-- mutant: a partition with a policy of its own that tests nothing
-- finds: policy clinic.events_b
CREATE TABLE clinic.events (tenant_id text NOT NULL, id int) PARTITION BY LIST (tenant_id);
ALTER TABLE clinic.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.events TO custody_app USING (tenant_id = current_setting('app.tenant', true));
CREATE TABLE clinic.events_b PARTITION OF clinic.events FOR VALUES IN ('b');
ALTER TABLE clinic.events_b ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON clinic.events_b TO custody_app USING (id > 0);
INSERT INTO clinic.events VALUES ('b', 1);
GRANT SELECT ON clinic.events_b TO clinic_app;
-- proof: SELECT FROM clinic.events_b

-- mutant: an inheritance child
-- finds: CU032 clinic.notes_old
CREATE TABLE clinic.notes_old () INHERITS (clinic.notes);
INSERT INTO clinic.notes_old SELECT * FROM clinic.notes WHERE tenant_id = 'b';
GRANT SELECT ON clinic.notes_old TO clinic_app;
-- proof: SELECT FROM clinic.notes_old

-- mutant: a foreign table
-- finds: CU034 clinic.archive
CREATE EXTENSION file_fdw SCHEMA pg_catalog;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE clinic.archive (line text) SERVER files OPTIONS (filename 'PG_VERSION');
GRANT SELECT ON clinic.archive TO clinic_app;
-- proof: SELECT FROM clinic.archive

-- mutant: another server with one password for everybody
-- finds: * far | * PUBLIC | CU034 clinic.archive
CREATE EXTENSION postgres_fdw SCHEMA pg_catalog;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password 'x');
GRANT USAGE ON FOREIGN SERVER far TO clinic_app;
-- no proof: takes another server

-- mutant: a way back into the database, as whoever it likes
-- finds: * dblink | * ~dblink_connect_u
CREATE EXTENSION dblink SCHEMA public;
GRANT EXECUTE ON FUNCTION dblink_connect_u(text, text) TO clinic_app;
SELECT set_config('proof.socket', current_setting('unix_socket_directories'), true);
-- proof: SELECT dblink_connect_u('back', format('host=%s port=%s dbname=%s user=postgres', current_setting('proof.socket'), current_setting('port'), current_database())); SELECT FROM dblink('back', 'SELECT 1 FROM clinic.notes WHERE tenant_id = ''b''') AS r (one int)

-- mutant: an untrusted language that everybody may use
-- finds: * c | * ~language
UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'c';
GRANT USAGE ON LANGUAGE c TO clinic_app;
GRANT CREATE ON SCHEMA clinic TO clinic_app;
-- proof: CREATE FUNCTION clinic.getpid() RETURNS int LANGUAGE c AS '$libdir/pg_custody', 'custody_tenant_int'; SELECT FROM pg_proc WHERE proname = 'getpid'

-- mutant: a publication of everything
-- finds: * outlet | * ~outlet
CREATE PUBLICATION outlet FOR ALL TABLES;
-- no proof: takes a subscriber

-- mutant: a publication of a tenant table, whole
-- finds: * outlet | * ~outlet | * clinic.notes
CREATE PUBLICATION outlet FOR TABLE clinic.notes;
-- no proof: takes a subscriber

-- mutant: a publication of a schema
-- finds: * outlet | * ~outlet
CREATE PUBLICATION outlet FOR TABLES IN SCHEMA clinic;
-- no proof: takes a subscriber

-- mutant: a publication whose filter lets everything through
-- finds: * outlet | * ~outlet | * clinic.notes
CREATE PUBLICATION outlet FOR TABLE clinic.notes WHERE (id > 0);
-- no proof: takes a subscriber

-- mutant: large objects of the login that all tenants share
-- finds: * ~4711 | * ~large | * clinic_app
SELECT lo_from_bytea(4711, 'B''s');
ALTER LARGE OBJECT 4711 OWNER TO clinic_app;
-- proof: SELECT lo_get(4711)

-- mutant: a large object for everybody
-- finds: * ~4711 | * ~large | * PUBLIC
SELECT lo_from_bytea(4711, 'B''s');
GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC;
-- proof: SELECT lo_get(4711)

-- mutant: large objects without privileges, in the whole database
-- finds: * {database} | * ~lo_compat_privileges | * ~large
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lo_compat_privileges = on', current_database()); END $$;
-- no proof: takes a new session

-- mutant: a function that is said not to leak, and does
-- finds: * clinic.tell(text)
CREATE FUNCTION clinic.tell(value text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0001 SET search_path = pg_catalog AS 'BEGIN IF value LIKE ''B%'' THEN PERFORM set_config(''proof.seen'', value, true); END IF; RETURN true; END';
-- proof: SELECT FROM clinic.notes WHERE clinic.tell(body); SELECT WHERE current_setting('proof.seen', true) <> ''

-- mutant: an operator whose function is said not to leak
-- finds: * ~tell
CREATE FUNCTION clinic.tell(value text, word text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0001 SET search_path = pg_catalog AS 'BEGIN IF value LIKE word THEN PERFORM set_config(''proof.seen'', value, true); END IF; RETURN true; END';
CREATE OPERATOR clinic.=~ (LEFTARG = text, RIGHTARG = text, FUNCTION = clinic.tell);
-- proof: SELECT FROM clinic.notes WHERE body OPERATOR(clinic.=~) 'B%'; SELECT WHERE current_setting('proof.seen', true) <> ''

-- control: an invoker view
CREATE VIEW clinic.my_notes WITH (security_invoker) AS SELECT * FROM clinic.notes;
GRANT SELECT ON clinic.my_notes TO clinic_app;

-- control: an invoker view of an invoker view, joined with shared codes
CREATE VIEW clinic.my_notes WITH (security_invoker = on) AS SELECT n.*, c.label FROM clinic.notes n LEFT JOIN clinic.codes c ON c.code = n.body;
CREATE VIEW clinic.my_few WITH (security_invoker = true) AS SELECT * FROM clinic.my_notes WHERE id < 10;
GRANT SELECT ON clinic.my_notes, clinic.my_few TO clinic_app;

-- control: a view with its owner's rights over shared data
CREATE VIEW clinic.labels AS SELECT label FROM clinic.codes;
GRANT SELECT ON clinic.labels TO PUBLIC;

-- control: a view with its owner's rights that no constrained role may read
CREATE VIEW clinic.all_notes AS SELECT * FROM clinic.notes;

-- control: a view of the tables' owner, whom the forced floor holds
CREATE VIEW clinic.of_owner AS SELECT * FROM clinic.patients;
ALTER VIEW clinic.of_owner OWNER TO clinic_owner;
GRANT SELECT ON clinic.of_owner TO clinic_app;

-- control: a materialized view of shared data
CREATE MATERIALIZED VIEW clinic.labels AS SELECT label FROM clinic.codes;
GRANT SELECT ON clinic.labels TO clinic_app;

-- control: a materialized view that only its owner reads
CREATE MATERIALIZED VIEW clinic.totals AS SELECT tenant_id, count(*) FROM clinic.notes GROUP BY tenant_id;

-- control: a SECURITY DEFINER function that nobody constrained may call
CREATE FUNCTION clinic.nightly() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'DELETE FROM clinic.notes WHERE id < 0';
REVOKE EXECUTE ON FUNCTION clinic.nightly() FROM PUBLIC;

-- control: an invoker function
CREATE FUNCTION clinic.mine() RETURNS SETOF clinic.notes LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT * FROM clinic.notes';

-- control: a trigger with the rights of who writes
CREATE FUNCTION clinic.stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN NEW.author := session_user; RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON clinic.notes FOR EACH ROW EXECUTE FUNCTION clinic.stamp();

-- control: a protected partitioned table, whose partitions are reached through it
CREATE TABLE clinic.events (tenant_id text NOT NULL, id int) PARTITION BY HASH (tenant_id);
CREATE TABLE clinic.events_0 PARTITION OF clinic.events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE clinic.events_1 PARTITION OF clinic.events FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT custody.protect('clinic.events');
GRANT SELECT, INSERT ON clinic.events TO clinic_app;

-- control: a foreign table that only its owner reads
CREATE EXTENSION file_fdw SCHEMA pg_catalog;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE clinic.archive (line text) SERVER files OPTIONS (filename 'PG_VERSION');

-- control: a publication of shared data
CREATE PUBLICATION outlet FOR TABLE clinic.codes;
