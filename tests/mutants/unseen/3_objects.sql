-- category: A3 objects

-- mutant: the protected table becomes the child of an empty parent, and a query of the parent asks only the parent's policies
-- finds: * clinic.documents | * clinic.notes
CREATE TABLE clinic.documents (tenant_id text, id int, body text);
ALTER TABLE clinic.documents OWNER TO clinic_owner;
ALTER TABLE clinic.notes INHERIT clinic.documents;
SELECT custody.register_shared('clinic.documents', 'only there to be inherited from, has no rows');
GRANT SELECT ON clinic.documents TO clinic_app;
-- proof: SELECT FROM clinic.documents WHERE tenant_id = 'b'

-- mutant: a rule on a protected table that a superuser forgot to hand over: what it does, it does as the superuser
-- finds: * clinic.corrections | * clinic.notes
CREATE TABLE clinic.corrections (tenant_id text, id int, note int, body text, PRIMARY KEY (tenant_id, id));
SELECT custody.protect('clinic.corrections');
GRANT SELECT, INSERT ON clinic.corrections TO clinic_app;
CREATE RULE correct AS ON INSERT TO clinic.corrections DO ALSO UPDATE clinic.notes SET body = NEW.body WHERE id = NEW.note;
-- proof: INSERT INTO clinic.corrections VALUES ('a', 1, 1, 'corrected by A')
-- effect: SELECT FROM clinic.notes WHERE tenant_id = 'b' AND body = 'corrected by A'

-- mutant: an invoker's function with the tenant of the sales demo in its SET clause
-- finds: * ~templates
CREATE FUNCTION clinic.templates() RETURNS SETOF clinic.notes STABLE LANGUAGE sql SET app.tenant = 'b' AS 'SELECT * FROM clinic.notes';
ALTER FUNCTION clinic.templates() OWNER TO clinic_owner;
-- proof: SELECT FROM clinic.templates() WHERE tenant_id = 'b'

-- mutant: an invoker's trigger writes what the protected table gets into a list that is registered as shared
-- finds: * clinic.ticker | * clinic.notes | * ~tick
CREATE TABLE clinic.ticker (at timestamptz NOT NULL DEFAULT now(), line text NOT NULL);
ALTER TABLE clinic.ticker OWNER TO clinic_owner;
SELECT custody.register_shared('clinic.ticker', 'the line at the foot of the page');
GRANT SELECT, INSERT ON clinic.ticker TO clinic_app;
CREATE FUNCTION clinic.tick() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO clinic.ticker (line) VALUES (NEW.author || ': ' || NEW.body);
  RETURN NULL;
END $$;
CREATE TRIGGER tick AFTER INSERT ON clinic.notes FOR EACH ROW EXECUTE FUNCTION clinic.tick();
INSERT INTO clinic.notes VALUES ('b', 3, 'B''s third', 'eve');
-- proof: SELECT FROM clinic.ticker WHERE line LIKE '%B''s third'

-- mutant: the extension tcn tells whoever listens which rows of which tenant have changed
-- finds: * clinic.notes | * ~tcn | * ~triggered_change_notification
CREATE EXTENSION tcn;
CREATE TRIGGER refresh AFTER INSERT OR UPDATE OR DELETE ON clinic.notes FOR EACH ROW EXECUTE FUNCTION triggered_change_notification('notes');
-- no proof: a notification is delivered when a transaction commits

-- mutant: a publication for one partner clinic whose filter lets every later tenant through
-- finds: * partner_b | * clinic.notes
CREATE PUBLICATION partner_b FOR TABLE clinic.notes WHERE (tenant_id >= 'b') WITH (publish = 'insert, update');
SELECT custody.create_tenant('c', 'Clinic C');
-- no proof: it takes a subscriber

-- mutant: scans are large objects that the constrained role may read, and only the table of their numbers is protected
-- finds: * clinic.scans | * ~large object
CREATE TABLE clinic.scans (tenant_id text, id int, image oid, PRIMARY KEY (tenant_id, id));
ALTER TABLE clinic.scans OWNER TO clinic_owner;
SELECT custody.protect('clinic.scans');
GRANT SELECT ON clinic.scans TO clinic_app;
DO $$
DECLARE
  t text;
  image oid;
BEGIN
  FOREACH t IN ARRAY ARRAY['a', 'b'] LOOP
    image := lo_from_bytea(0, convert_to('scan of ' || t, 'UTF8'));
    EXECUTE format('ALTER LARGE OBJECT %s OWNER TO clinic_owner', image);
    EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO custody_app', image);
    INSERT INTO clinic.scans VALUES (t, 1, image);
  END LOOP;
END $$;
-- proof: SELECT FROM pg_largeobject_metadata WHERE convert_from(lo_get(oid), 'UTF8') = 'scan of b'

-- control: a view of the owner's without security_invoker: the owner's own table is forced, and its policies are for everybody
CREATE VIEW clinic.patient_names AS SELECT tenant_id, id, name FROM clinic.patients;
ALTER VIEW clinic.patient_names OWNER TO clinic_owner;
GRANT SELECT ON clinic.patient_names TO clinic_app;

-- control: a child without policies that nobody was granted: the application gets at it through the parent alone
CREATE TABLE clinic.notes_before_2020 (CHECK (id < 1000)) INHERITS (clinic.notes);
ALTER TABLE clinic.notes_before_2020 OWNER TO clinic_owner;
INSERT INTO clinic.notes_before_2020 VALUES ('a', 101, 'A''s of old', 'ann'), ('b', 101, 'B''s of old', 'eve');
