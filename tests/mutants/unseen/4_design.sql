-- category: A4 design

-- mutant: a foreign key with a tenant column in it, but not the row's own: whom one refers to, one chooses
-- finds: * clinic.visits | * clinic.patients | * ~visits_referred
ALTER TABLE clinic.visits ADD referred_tenant text, ADD referred_patient int,
  ADD CONSTRAINT visits_referred_fkey FOREIGN KEY (referred_tenant, referred_patient) REFERENCES clinic.patients (tenant_id, id);
-- What b does not have is refused, what it has is taken.
-- proof: DO $$
BEGIN
  INSERT INTO clinic.visits VALUES ('a', 8, 1, 'is there a 99?', 'b', 99);
  RAISE 'taken';
EXCEPTION WHEN foreign_key_violation THEN NULL;
END $$;
INSERT INTO clinic.visits VALUES ('a', 9, 1, 'is there a 1?', 'b', 1)

-- mutant: ALL on the sequence behind everyone's invoice numbers, so that a tenant may wind it back
-- finds: * clinic.invoice_no | * clinic.invoices
CREATE SEQUENCE clinic.invoice_no;
ALTER SEQUENCE clinic.invoice_no OWNER TO clinic_owner;
CREATE TABLE clinic.invoices (tenant_id text, no bigint DEFAULT nextval('clinic.invoice_no'), total int, PRIMARY KEY (tenant_id, no));
ALTER TABLE clinic.invoices OWNER TO clinic_owner;
SELECT custody.protect('clinic.invoices');
GRANT SELECT, INSERT ON clinic.invoices TO clinic_app;
GRANT ALL ON SEQUENCE clinic.invoice_no TO clinic_app;
INSERT INTO clinic.invoices (tenant_id, total) VALUES ('b', 10), ('b', 20), ('b', 30);
-- proof: SELECT setval('clinic.invoice_no', 1, false)
-- effect: SELECT FROM clinic.invoice_no s JOIN clinic.invoices i ON i.tenant_id = 'b' AND i.no = s.last_value
