-- Roles are cluster-wide, so another database may already have made them. A role of one of these names that can do more
-- than ours is a trap: every grant below would go to it.
-- Two databases may be installing at once: one after the other, then.
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
  wanted text;
  existing pg_catalog.pg_roles;
BEGIN
  IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
    RAISE EXCEPTION USING ERRCODE = 'UC010',
      MESSAGE = 'pg_custody needs a database in UTF8',
      DETAIL = pg_catalog.format('This one is in %s, and the log is hashed as UTF-8 text.', pg_catalog.current_setting('server_encoding')),
      HINT = 'Create the database with ENCODING ''UTF8''.';
  END IF;
  FOREACH wanted IN ARRAY ARRAY['custody_app', 'custody_auditor', 'custody_admin'] LOOP
    SELECT * INTO existing FROM pg_catalog.pg_roles WHERE rolname = wanted;
    IF NOT FOUND THEN
      EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', wanted);
    ELSIF existing.rolcanlogin OR existing.rolsuper OR existing.rolbypassrls OR existing.rolcreaterole OR existing.rolcreatedb OR existing.rolreplication
       OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                  WHERE m.member = existing.oid AND NOT (wanted = 'custody_admin' AND g.rolname = 'custody_auditor')) THEN
      RAISE EXCEPTION USING ERRCODE = 'UC011',
        MESSAGE = pg_catalog.format('role "%s" exists and can do more than pg_custody allows', wanted),
        DETAIL = 'It must have none of LOGIN, SUPERUSER, BYPASSRLS, CREATEROLE, CREATEDB and REPLICATION, and be a member of no other role.',
        HINT = pg_catalog.format('See what it is for; then rename it, or ALTER ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION and revoke its memberships.', wanted);
    END IF;
  END LOOP;
END $$;

GRANT custody_auditor TO custody_admin;
COMMENT ON ROLE custody_app IS 'pg_custody: the constrained group; applications log in as members that reach nothing else';
COMMENT ON ROLE custody_auditor IS 'pg_custody: reads the whole log, verifies it, asks for coverage';
COMMENT ON ROLE custody_admin IS 'pg_custody: configures tenants, roles, tokens, protection and audit';

CREATE SCHEMA custody;
COMMENT ON SCHEMA custody IS 'pg_custody: tenant isolation, and an append-only, hash-chained, signed audit log';
GRANT USAGE ON SCHEMA custody TO custody_app, custody_auditor, custody_admin;

