-- Protecting what is in use: a live table in steps that nobody waits for, the keys of tenants, and a whole schema. All run as
-- their caller, who must own what they change.

CREATE FUNCTION custody.protect_script(target regclass, tenant_column name DEFAULT 'tenant_id', lock_timeout text DEFAULT '2s')
RETURNS SETOF text
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_protect_script';
COMMENT ON FUNCTION custody.protect_script(regclass, name, text) IS 'The statements that protect a table in use, to be run one by one outside a transaction (psql: \gexec). The index is built CONCURRENTLY, NOT NULL is proved by a check NOT VALID, then VALIDATE; the last statement does all the rest in one short transaction. lock_timeout bounds how long others may queue behind a step; if one fails, ask again: what is done is left out. No rows: nothing is left to do. Errors: UC020 this table cannot be protected';

CREATE FUNCTION custody.protect_prepared(target regclass, tenant_column name DEFAULT 'tenant_id')
RETURNS TABLE (step integer, object text, sql text, lock text)
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_protect_prepared';
COMMENT ON FUNCTION custody.protect_prepared(regclass, name) IS 'custody.protect, if nothing long is left to do: the last statement of custody.protect_script. Errors: UC047 an index is still to be built or the table to be read, UC020 this table cannot be protected';

CREATE FUNCTION custody.tenant_key_script(target regclass)
RETURNS TABLE (step integer, object text, sql text, lock text)
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_tenant_key_script';
COMMENT ON FUNCTION custody.tenant_key_script(regclass) IS 'The statements that put the tenant column into a protected table''s keys and into the foreign keys from it and to it, to be run one by one outside a transaction, in this order; rows whose lock is ''report'' say what no SQL here can mend. It changes nothing itself. Errors: UC021 not protected, UC048 the role is held by row-level security, so that foreign keys would be checked against nothing';

CREATE FUNCTION custody.protect_schema(schema name, tenant_column name DEFAULT 'tenant_id', audit boolean DEFAULT false, dry_run boolean DEFAULT false)
RETURNS TABLE (object text, kind text, state text, reason text, sql text)
LANGUAGE c SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_protect_schema';
COMMENT ON FUNCTION custody.protect_schema(name, name, boolean, boolean) IS 'custody.protect on every table of a schema that has the tenant column, and custody.audit if asked, in one transaction. state: ''protected'' (or would be), ''already'', ''needs a decision'' (sql is what can be done), ''cannot'' (reason is why), ''report'' (a sequence that tells volumes). Idempotent. Errors: UC049 no such schema';

REVOKE ALL ON FUNCTION custody.protect_script(regclass, name, text), custody.protect_prepared(regclass, name),
  custody.tenant_key_script(regclass), custody.protect_schema(name, name, boolean, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.protect_script(regclass, name, text), custody.protect_prepared(regclass, name),
  custody.tenant_key_script(regclass), custody.protect_schema(name, name, boolean, boolean) TO custody_admin;
