-- The guard: whether DDL may leave a table without isolation. What it judges by is in 95_guard_start.sql.

CREATE TABLE custody.guard_setting (
  only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  mode          text NOT NULL CHECK (mode IN ('off', 'warn', 'reject', 'protect')),
  tenant_column name NOT NULL,
  audit         boolean NOT NULL,
  set_at        timestamptz NOT NULL
);
COMMENT ON TABLE custody.guard_setting IS 'What custody.guard was last told, in this database or in the one that it was restored from. In force only if custody.guard_armed has a row';

CREATE TABLE custody.guard_armed (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
COMMENT ON TABLE custody.guard_armed IS 'Has a row once custody.guard was called in this very database. Never dumped: the guard is off while a dump is being restored, and until the administrator turns it on again';

SELECT pg_catalog.pg_extension_config_dump('custody.guard_setting', '');
GRANT SELECT ON custody.guard_setting, custody.guard_armed TO custody_auditor;

CREATE FUNCTION custody.guard(mode text, tenant_column name DEFAULT 'tenant_id', audit boolean DEFAULT true) RETURNS text
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_guard';
COMMENT ON FUNCTION custody.guard(text, name, boolean) IS 'What becomes of DDL that weakens isolation, from now on, for everybody, the superuser included: off, nothing; warn, a WARNING; reject, an error (UC062, UC063); protect, the same, and a new table with the tenant column is protected at once, and with audit audited. Returns what is watched, which depends on whether the library is preloaded. A restored database begins with it off. docs/guard.md';
REVOKE ALL ON FUNCTION custody.guard(text, name, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.guard(text, name, boolean) TO custody_admin;

CREATE FUNCTION custody.guard_mode() RETURNS text
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_guard_mode';
COMMENT ON FUNCTION custody.guard_mode() IS 'The mode in force: off, warn, reject or protect. Off until custody.guard was called in this very database: not before, nor after a restore';
REVOKE ALL ON FUNCTION custody.guard_mode() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.guard_mode() TO custody_auditor, custody_admin;
