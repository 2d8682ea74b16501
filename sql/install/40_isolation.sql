-- Protected and shared tables. custody.protect runs as its caller: what it does needs the table's owner or a superuser.

CREATE FUNCTION custody.protect(target regclass, tenant_column name DEFAULT 'tenant_id', dry_run boolean DEFAULT false)
RETURNS TABLE (step integer, object text, sql text, lock text)
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_protect';
COMMENT ON FUNCTION custody.protect(regclass, name, boolean) IS 'Keeps the table''s tenants apart: row-level security enabled and forced, a permissive policy, a restrictive floor, NOT NULL, a default from the context, an index led by the tenant column, refusal of writes without a context; the same on its partitions. Returns what it did, with the lock each step takes and who waits for it; with dry_run what is to be done, each step in the form that the fewest wait for (custody.protect_script gives those to be run). Rows whose lock is ''report'' are findings it never acts on. Idempotent. Errors: UC020 this table cannot be protected';

CREATE FUNCTION custody.unprotect(target regclass) RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_unprotect';
COMMENT ON FUNCTION custody.unprotect(regclass) IS 'Takes back exactly what custody.protect did to the table and its partitions. Errors: UC021 not protected';

CREATE FUNCTION custody.register_shared(target regclass, reason text) RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_register_shared';
COMMENT ON FUNCTION custody.register_shared(regclass, text) IS 'Declares reference data that every tenant may read and none may write: revokes all but SELECT from PUBLIC, custody_app and its members. Needs a reason';
