-- category: A1 policies

-- mutant: IN a sub-select of a column that the inner table does not have, so that it is the outer row's
-- finds: * clinic.notes
-- Whoever wrote the policy took staff to have a tenant_id; its column is called practice.
CREATE TABLE clinic.staff (practice text, login name, PRIMARY KEY (practice, login));
ALTER TABLE clinic.staff OWNER TO clinic_owner;
INSERT INTO clinic.staff VALUES ('a', 'clinic_app');
SELECT custody.register_shared('clinic.staff', 'who works where');
GRANT SELECT ON clinic.staff TO custody_app;
ALTER POLICY own ON clinic.notes USING (tenant_id IN (SELECT tenant_id FROM clinic.staff WHERE login = current_user));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a cast to char, which is char(1) and cuts the tenant off after its first letter
-- finds: * clinic.notes
ALTER POLICY own ON clinic.notes USING (tenant_id::char = nullif(current_setting('app.tenant', true), ''));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'ab'

-- mutant: the tenant column gets a collation that takes accents for nothing, and the policy is put back word for word
-- finds: * clinic.notes
CREATE COLLATION clinic.forgiving (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
DROP POLICY own ON clinic.notes;
ALTER TABLE clinic.notes ALTER tenant_id TYPE text COLLATE clinic.forgiving;
CREATE POLICY own ON clinic.notes TO custody_app
  USING (tenant_id = nullif(current_setting('app.tenant', true), '')) WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), ''));
SELECT custody.create_tenant('á', 'Clínica Á');
INSERT INTO clinic.notes VALUES ('á', 7, 'Á''s', 'eve');
-- proof: SELECT FROM clinic.notes WHERE tenant_id COLLATE "C" = 'á'

-- mutant: a row comparison from the pager, so that every tenant after one's own is a next page
-- finds: * clinic.notes
ALTER POLICY own ON clinic.notes USING ((tenant_id, id) >= (nullif(current_setting('app.tenant', true), ''), 0));
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the row as JSON contains a filter that the application sets, and nothing contains nothing
-- finds: * clinic.notes
ALTER POLICY own ON clinic.notes
  USING (to_jsonb(notes) @> coalesce(nullif(current_setting('app.row_filter', true), ''), '{}')::jsonb);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: an array operator the wrong way round, so that what is shared with nobody is shared with everyone
-- finds: * clinic.notes
ALTER TABLE clinic.notes ADD shared_with text[] NOT NULL DEFAULT '{}';
ALTER POLICY own ON clinic.notes USING (
  tenant_id = nullif(current_setting('app.tenant', true), '')
  OR shared_with <@ ARRAY[nullif(current_setting('app.tenant', true), '')]);
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: the tenant column is renamed and a new one takes its name, and the policy stays with the old
-- finds: * clinic.notes
-- Notes may now be handed over to another clinic; who wrote them first is kept.
ALTER TABLE clinic.notes RENAME tenant_id TO first_tenant;
ALTER TABLE clinic.notes ADD tenant_id text;
UPDATE clinic.notes SET tenant_id = first_tenant;
ALTER TABLE clinic.notes ALTER tenant_id SET NOT NULL;
ALTER TABLE clinic.notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (tenant_id, first_tenant, id);
UPDATE clinic.notes SET tenant_id = 'b', body = 'B''s from now on' WHERE first_tenant = 'a' AND id = 2;
-- proof: SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- mutant: a helper that remembers the first tenant of the connection, because looking it up was slow
-- finds: * clinic.notes | * ~current_clinic
CREATE FUNCTION clinic.current_clinic() RETURNS text STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF coalesce(current_setting('clinic.remembered', true), '') = '' THEN
    PERFORM set_config('clinic.remembered', coalesce(current_setting('app.tenant', true), ''), false);
  END IF;
  RETURN nullif(current_setting('clinic.remembered', true), '');
END $$;
ALTER FUNCTION clinic.current_clinic() OWNER TO clinic_owner;
ALTER POLICY own ON clinic.notes USING (tenant_id = clinic.current_clinic()) WITH CHECK (tenant_id = clinic.current_clinic());
-- proof: SET LOCAL app.tenant = 'b';
SELECT count(*) FROM clinic.notes;
SET LOCAL app.tenant = 'a';
SELECT FROM clinic.notes WHERE tenant_id = 'b'

-- control: permissive for all, under a restrictive floor that is for everybody and every command
ALTER POLICY own ON clinic.notes USING (true) WITH CHECK (true);
CREATE POLICY floor ON clinic.notes AS RESTRICTIVE
  USING (tenant_id = nullif(current_setting('app.tenant', true), '')) WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), ''));

-- control: a CASE on the unset setting that answers no
ALTER POLICY own ON clinic.notes USING (
  CASE WHEN coalesce(current_setting('app.tenant', true), '') = '' THEN false ELSE tenant_id = current_setting('app.tenant', true) END);
