-- What the policies of list.tsv are about. `dump` loads it into a database of any version and prints the trees.
CREATE SCHEMA t;
CREATE TABLE t.memberships (tenant_id text, user_name text, role text);
CREATE TABLE t.orgs (id text PRIMARY KEY, name text);
CREATE TABLE t.secured (tenant_id text, name text);
ALTER TABLE t.secured ENABLE ROW LEVEL SECURITY;
CREATE TABLE t.v (id int, tenant_id text NOT NULL, tid uuid NOT NULL, num int NOT NULL, loose text, owner text, amount int, is_public boolean);
CREATE COLLATION t.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION t.ctx() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT current_setting('app.tenant', true); END;
CREATE FUNCTION t.mine(of text) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT 1 FROM t.memberships m WHERE m.tenant_id = of AND m.user_name = current_user);
CREATE FUNCTION t.any_member(of text) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC SELECT EXISTS (SELECT 1 FROM t.memberships m WHERE m.tenant_id = of); END;
CREATE FUNCTION t.opaque() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION t.opaque_flag() RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN true; END';
CREATE FUNCTION t.opaque_check(text) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN true; END';
CREATE FUNCTION t.opaque_of(uuid) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
-- The extension's functions, where it is not installed.
CREATE SCHEMA IF NOT EXISTS custody;
CREATE FUNCTION custody.tenant() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION custody.tenant_uuid() RETURNS uuid LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION custody.claims() RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
