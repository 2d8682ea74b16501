-- From 0.1.0 to 0.2.0. A line `--@ FILE` stands for sql/install/FILE. What was released stays as it is: tables are altered, and keep
-- their rows. tests/tests/upgrade.rs holds the outcome against a fresh installation.

-- Tokens. The keys of before are right under the wider rules, and no rule that they had is lost.
ALTER TABLE custody.token_key
  DROP CONSTRAINT token_key_algorithm_check,
  DROP CONSTRAINT token_key_public_key_check,
  ADD CONSTRAINT token_key_algorithm_check CHECK (algorithm IN ('EdDSA', 'ES256', 'RS256')),
  ADD CONSTRAINT token_key_public_key_check CHECK (pg_catalog.length(public_key) BETWEEN 32 AND 1100),
  ADD COLUMN key_set text COLLATE "C" CHECK (key_set <> ''),
  ADD COLUMN issuer text CHECK (issuer <> ''),
  ADD COLUMN role_claim text CHECK (role_claim <> ''),
  ADD COLUMN max_lifetime integer CHECK (max_lifetime > 0),
  ADD COLUMN single_use boolean NOT NULL DEFAULT false;
DROP FUNCTION custody.add_token_key(text, bytea, text, text, text, timestamptz, timestamptz);
DROP FUNCTION custody.remove_token_key(text);
DROP FUNCTION custody.revoke_tokens(text);
--@ 35_tokens.sql
COMMENT ON FUNCTION custody.tenant() IS 'The tenant this transaction acts for, or NULL. Raises UC005 once the token that set it has expired, UC071 once it was revoked or its key is gone';
COMMENT ON FUNCTION custody.authenticate(text) IS 'Sets the context of this transaction from a signed token (compact JWS; EdDSA, ES256 or RS256 as its key is; kid, aud and exp required; docs/tokens.md). Errors: UC004 a refused token, UC003 another context is set, UC002 the role is bound to another tenant, UC072 a token that holds once, on a standby. Pass the token as a bind parameter';

-- Protecting what is in use.
--@ 42_protect_schema.sql
COMMENT ON FUNCTION custody.protect(regclass, name, boolean) IS 'Keeps the table''s tenants apart: row-level security enabled and forced, a permissive policy, a restrictive floor, NOT NULL, a default from the context, an index led by the tenant column, refusal of writes without a context; the same on its partitions. Returns what it did, with the lock each step takes and who waits for it; with dry_run what is to be done, each step in the form that the fewest wait for (custody.protect_script gives those to be run). Rows whose lock is ''report'' are findings it never acts on. Idempotent. Errors: UC020 this table cannot be protected';

-- The lives of keys. Those of before are valid from their incarnations' beginnings on.
ALTER TABLE custody.signing_key
  ADD COLUMN from_lsn pg_lsn,
  ADD COLUMN recovers text COLLATE "C",
  ADD COLUMN ended text COLLATE "C" CHECK (ended IN ('retire', 'revoke')),
  ADD COLUMN until_lsn pg_lsn,
  ADD COLUMN ended_by text COLLATE "C",
  ADD COLUMN end_signature bytea,
  ADD COLUMN overlap xid8,
  ADD CONSTRAINT signing_key_end_check CHECK (pg_catalog.num_nulls(ended, until_lsn, ended_by, end_signature) IN (0, 4));
ALTER TABLE custody.instance ADD COLUMN key_id text COLLATE "C";
UPDATE custody.instance i SET key_id = (SELECT k.key_id FROM custody.signing_key k WHERE k.incarnation = i.incarnation ORDER BY k.created_at DESC, k.key_id DESC LIMIT 1);
COMMENT ON TABLE custody.instance IS 'The incarnation that this database writes now, the key that signs for it, and whether the log was guarded after the last DDL command. Never dumped: a restored database is another';
COMMENT ON TABLE custody.signing_key IS 'Public halves of the Ed25519 keys (RFC 8032) that sign the log, who vouches for each, and where each is valid (docs/format.md, section 5)';
COMMENT ON COLUMN custody.signing_key.from_lsn IS 'The position from which on it is valid; NULL for an incarnation''s first key';
COMMENT ON COLUMN custody.signing_key.recovers IS 'The lost key that it took over from: no key vouches for this one';
COMMENT ON COLUMN custody.signing_key.until_lsn IS 'The last position at which it is valid, signed by ended_by';
COMMENT ON COLUMN custody.signing_key.overlap IS 'Transactions before this one may still sign with it, though it was replaced';
--@ 64_keys.sql
-- Lives: what was in doubt when one began.
ALTER TABLE custody.incarnation ADD COLUMN in_doubt jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN custody.incarnation.in_doubt IS 'The transactions of the life before that held a lane when this one began, prepared ones above all: lane, xid and gid of each. What they commit belongs to the life before';

-- Evidence: checkpoints. Verification takes notes from outside.
DROP FUNCTION custody.verify(text, jsonb, text);
DROP FUNCTION custody.assert_verified(text, jsonb);
--@ 61_verify.sql
--@ 62_checkpoints.sql
--@ 63_verifications.sql
--@ 64_export.sql

-- Erasure, and how the log shows it. Statistics that were gathered would keep values.
CREATE OR REPLACE VIEW custody.log WITH (security_invoker = on) AS
SELECT e.incarnation, e.tenant, e.lane, e.seq, e.at, e.op, e.schema_name, e.table_name,
       i.row_key,
       CASE WHEN e.op = 'UPDATE' THEN i.new || i.old ELSE i.old END AS old,
       i.new,
       CASE WHEN e.op = 'UPDATE' AND i.old IS NOT NULL THEN ARRAY(SELECT pg_catalog.jsonb_object_keys(i.old)) END AS changed,
       e.login_role, e.acting_role,
       a.actor::jsonb ->> 'subject' AS subject,
       nullif(a.actor::jsonb -> 'claims', 'null') AS claims,
       (a.actor::jsonb ->> 'client_addr')::inet AS client_addr,
       a.actor::jsonb ->> 'application_name' AS application_name,
       a.actor::jsonb ->> 'request_id' AS request_id,
       e.xid, e.lsn, e.ordinal, e.move_id, e.hash,
       (SELECT s.seq FROM custody.entry s
        WHERE s.tenant = e.tenant AND s.incarnation = e.incarnation AND s.lane = e.lane AND s.seq >= e.seq AND s.signs_run
        ORDER BY s.seq LIMIT 1) AS signed_at,
       custody.key_hash(e.row_key) AS key_hash,
       e.row_salt IS NULL AS erased
FROM custody.entry e
-- A string in jsonb ends at 256 MB, and one such row must not keep the others from being read.
CROSS JOIN LATERAL (SELECT CASE WHEN pg_catalog.octet_length(e.row_key) < 268435456 THEN e.row_key::jsonb END AS row_key,
                           CASE WHEN pg_catalog.octet_length(e.old) < 268435456 THEN e.old::jsonb END AS old,
                           CASE WHEN pg_catalog.octet_length(e.new) < 268435456 THEN e.new::jsonb END AS new) i
LEFT JOIN custody.entry a ON a.tenant = e.tenant AND a.incarnation = e.incarnation AND a.lane = e.lane AND a.seq = e.actor_seq AND a.actor_seq = a.seq;
COMMENT ON COLUMN custody.log.erased IS 'Whether its row (row_key, old, new) was erased: an entry of op ERASE names it, by incarnation, lane and seq';
--@ 65_erase.sql
DELETE FROM pg_catalog.pg_statistic WHERE starelid IN ('custody.entry'::pg_catalog.regclass, 'custody.entry_search'::pg_catalog.regclass);

-- Baselines, and tables held against the log. What was audited before has none: custody.baseline takes it.
DROP FUNCTION custody.audit(regclass, name[], name[]);
CREATE FUNCTION custody.audit(target regclass, exclude name[] DEFAULT '{}', redact name[] DEFAULT '{}', baseline text DEFAULT 'rows') RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp SET jit = off SET quote_all_identifiers = off AS 'MODULE_PATHNAME', 'custody_audit';
COMMENT ON FUNCTION custody.audit(regclass, name[], name[], text) IS 'Records every change of the table''s rows from now on, in partitions too. exclude: columns left out; redact: columns stored as a keyed digest; baseline: how the rows that are there are recorded (rows: one entry each with its image; digest: with a salted digest; none: custody.baseline later, while writers go on). Refuses what it cannot record (UC032)';
REVOKE ALL ON FUNCTION custody.audit(regclass, name[], name[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.audit(regclass, name[], name[], text) TO custody_admin;
--@ 64_reconcile.sql

-- Coverage: the findings are new, view by view. So are the functions of the gate.
DROP FUNCTION custody.coverage();
DROP FUNCTION custody.unprotected_tables();
DROP FUNCTION custody.assert_coverage(text);
DROP VIEW custody.finding, custody.object_finding, custody.view_reach, custody.privilege_finding, custody.role_finding, custody.key_finding, custody.policy_finding,
  custody.table_finding, custody.isolation_policy, custody.isolation_table, custody.constrained_privilege, custody.isolation_schema, custody.constrained_grantee,
  custody.constrained_reach, custody.constrained_role;
--@ 70_coverage.sql
--@ 71_policies.sql
--@ 72_tables.sql
--@ 73_roles.sql
--@ 73_supports.sql
--@ 74_objects.sql
GRANT SELECT ON custody.finding TO custody_auditor;

-- The gate, and what each installation proves and says of its own promises.
--@ 75_gate.sql
-- The gate's configuration is audited and guarded like the rest: from here on, when it has its triggers, or the log would tell of a gap.
CREATE OR REPLACE VIEW custody.guard_gap AS
WITH wanted (relation, object, symbol) AS (
  VALUES ('entry', '!custody_append_only', 'custody_append_only'), ('entry', '!custody_foreign_only', 'custody_append_only')
  UNION ALL
  -- The configuration is audited like any table.
  SELECT c.name, t.name, t.symbol
  FROM pg_catalog.unnest(ARRAY['tenants', 'registered_table', 'audited_table', 'role_binding', 'assume_grant', 'token_key', 'token_revocation', 'waiver']) AS c (name)
  CROSS JOIN (VALUES ('!custody_capture', 'custody_capture'), ('!custody_truncate', 'custody_capture_truncate')) AS t (name, symbol)
), state AS (
  SELECT w.object || ' on custody.' || w.relation AS object,
         (SELECT t.tgenabled FROM pg_catalog.pg_trigger t JOIN custody.own_function f ON f.oid = t.tgfoid
          WHERE t.tgrelid = pg_catalog.to_regclass('custody.' || w.relation) AND t.tgname = w.object AND f.prosrc = w.symbol AND t.tgqual IS NULL) AS enabled
  FROM wanted w
  UNION ALL
  SELECT 'event trigger ' || n.name,
         (SELECT t.evtenabled FROM pg_catalog.pg_event_trigger t JOIN custody.own_function f ON f.oid = t.evtfoid
          WHERE t.evtname = n.name AND f.prosrc = n.symbol AND t.evttags IS NULL)
  FROM (VALUES ('custody_ddl', 'custody_on_ddl'), ('custody_drop', 'custody_on_drop')) AS n (name, symbol)
)
SELECT s.object, CASE WHEN s.enabled IS NULL THEN 'missing or replaced' ELSE 'not enabled always' END AS problem
FROM state s WHERE s.enabled IS DISTINCT FROM 'A'
UNION ALL
SELECT 'custody.entry', 'not the table that the extension made'
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.objid = pg_catalog.to_regclass('custody.entry') AND d.deptype = 'e');

--@ 76_report.sql
--@ 77_probe.sql
--@ 78_posture.sql
--@ 79_monitor.sql
-- The guard: its tables and functions; then, when all views that it is made of are as they are to be, what calls it.
--@ 45_guard.sql
--@ 95_guard_start.sql
--@ 97_keep.sql
