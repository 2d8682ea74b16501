-- The record, and the registries that say what is done about it. Formats: docs/format.md.

CREATE TABLE custody.incarnation (
  id                uuid PRIMARY KEY,
  parent            uuid,
  started_at        timestamptz NOT NULL,
  system_identifier bigint NOT NULL,
  timeline          integer NOT NULL,
  database_oid      oid NOT NULL,
  database_name     text NOT NULL,
  reason            text NOT NULL,
  in_doubt          jsonb NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE custody.incarnation IS 'Each life of this database: a restore, a copy or a promotion starts a new one, and never extends its parent''s chains';
COMMENT ON COLUMN custody.incarnation.in_doubt IS 'The transactions of the life before that held a lane when this one began, prepared ones above all: lane, xid and gid of each. What they commit belongs to the life before';

CREATE TABLE custody.instance (
  only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  incarnation uuid NOT NULL,
  guarded     boolean NOT NULL DEFAULT true,
  key_id      text COLLATE "C"
);
COMMENT ON TABLE custody.instance IS 'The incarnation that this database writes now, the key that signs for it, and whether the log was guarded after the last DDL command. Never dumped: a restored database is another';

CREATE TABLE custody.signing_key (
  key_id      text COLLATE "C" NOT NULL,
  incarnation uuid NOT NULL,
  public_key  bytea NOT NULL CHECK (pg_catalog.length(public_key) = 32),
  fingerprint text COLLATE "C" NOT NULL,
  predecessor text COLLATE "C",
  endorsement bytea,
  created_at  timestamptz NOT NULL,
  from_lsn      pg_lsn,
  recovers      text COLLATE "C",
  ended         text COLLATE "C" CHECK (ended IN ('retire', 'revoke')),
  until_lsn     pg_lsn,
  ended_by      text COLLATE "C",
  end_signature bytea,
  overlap       xid8,
  PRIMARY KEY (key_id, incarnation),
  CHECK ((predecessor IS NULL) = (endorsement IS NULL)),
  CONSTRAINT signing_key_end_check CHECK (pg_catalog.num_nulls(ended, until_lsn, ended_by, end_signature) IN (0, 4))
);
COMMENT ON TABLE custody.signing_key IS 'Public halves of the Ed25519 keys (RFC 8032) that sign the log, who vouches for each, and where each is valid (docs/format.md, section 5)';
COMMENT ON COLUMN custody.signing_key.from_lsn IS 'The position from which on it is valid; NULL for an incarnation''s first key';
COMMENT ON COLUMN custody.signing_key.recovers IS 'The lost key that it took over from: no key vouches for this one';
COMMENT ON COLUMN custody.signing_key.until_lsn IS 'The last position at which it is valid, signed by ended_by';
COMMENT ON COLUMN custody.signing_key.overlap IS 'Transactions before this one may still sign with it, though it was replaced';
COMMENT ON COLUMN custody.signing_key.fingerprint IS 'Keep this outside the database and give it to custody.verify(pin)';

CREATE TABLE custody.entry (
  seq          bigint NOT NULL,
  lsn          pg_lsn NOT NULL,
  at           timestamptz NOT NULL,
  xid          xid8 NOT NULL,
  actor_seq    bigint NOT NULL,
  ordinal      integer NOT NULL,
  lane         integer NOT NULL,
  format       smallint NOT NULL,
  signs_run    boolean NOT NULL,
  incarnation  uuid NOT NULL,
  move_id      uuid,
  tenant       text COLLATE "C" NOT NULL,
  op           text COLLATE "C" NOT NULL,
  schema_name  text COLLATE "C",
  table_name   text COLLATE "C",
  login_role   text COLLATE "C" NOT NULL,
  acting_role  text COLLATE "C" NOT NULL,
  key_id       text COLLATE "C",
  actor_salt   bytea,
  actor        text COLLATE "C",
  row_salt     bytea,
  row_key      text COLLATE "C",
  old          text COLLATE "C",
  new          text COLLATE "C",
  actor_digest bytea,
  row_digest   bytea NOT NULL,
  prev_hash    bytea NOT NULL,
  hash         bytea NOT NULL,
  signature    bytea
);
COMMENT ON TABLE custody.entry IS 'The record itself: every column is hashed as docs/format.md says. Append-only for everyone. Read custody.log';

CREATE TABLE custody.tenants (
  id         text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
  name       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE custody.tenants IS 'The organisations whose rows are kept apart, by the id that is in their tenant columns';

CREATE TABLE custody.registered_table (
  target        regclass PRIMARY KEY,
  kind          text NOT NULL CHECK (kind IN ('protected', 'shared')),
  tenant_column name,
  reason        text,
  undo          text[] NOT NULL DEFAULT '{}',
  registered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  CHECK ((kind = 'protected') = (tenant_column IS NOT NULL)),
  CHECK (kind <> 'shared' OR reason <> '')
);
COMMENT ON TABLE custody.registered_table IS 'Which tables custody.protect and custody.register_shared answer for';
COMMENT ON COLUMN custody.registered_table.undo IS 'The statements, in order, with which custody.unprotect takes back exactly what was done';

CREATE TABLE custody.audited_table (
  target     regclass PRIMARY KEY,
  exclude    name[] NOT NULL,
  redact     name[] NOT NULL,
  audited_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE custody.audited_table IS 'Which tables are audited, and which of their columns are left out of the images or stored as a keyed digest';

CREATE TABLE custody.role_binding (
  role   regrole PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL CHECK (tenant <> '')
);

CREATE TABLE custody.capture_state (
  target    regclass PRIMARY KEY,
  capturing boolean NOT NULL
);
COMMENT ON TABLE custody.capture_state IS 'Whether every capture trigger of an audited table was in force after the last DDL command. Never dumped: while a dump is being restored, the triggers are not yet there, and that is no gap';

CREATE TABLE custody.captured_partition (
  target regclass PRIMARY KEY
);
COMMENT ON TABLE custody.captured_partition IS 'The partitions of audited tables after the last DDL command, by which those that came and went are told. Never dumped';

COMMENT ON TABLE custody.role_binding IS 'Login roles that act for one tenant, by session_user';

CREATE TABLE custody.assume_grant (
  role   regrole,
  tenant text COLLATE "C" CHECK (tenant <> ''),
  PRIMARY KEY (role, tenant)
);
COMMENT ON TABLE custody.assume_grant IS 'Roles whose sessions may call custody.assume_tenant, and for which tenants';

CREATE TABLE custody.token_key (
  kid          text COLLATE "C" PRIMARY KEY CHECK (kid <> ''),
  algorithm    text NOT NULL CHECK (algorithm IN ('EdDSA', 'ES256', 'RS256')),
  public_key   bytea NOT NULL CHECK (pg_catalog.length(public_key) BETWEEN 32 AND 1100),
  audience     text NOT NULL CHECK (audience <> ''),
  tenant_claim text NOT NULL CHECK (tenant_claim <> ''),
  not_before   timestamptz NOT NULL,
  not_after    timestamptz,
  key_set      text COLLATE "C" CHECK (key_set <> ''),
  issuer       text CHECK (issuer <> ''),
  role_claim   text CHECK (role_claim <> ''),
  max_lifetime integer CHECK (max_lifetime > 0),
  single_use   boolean NOT NULL DEFAULT false,
  CHECK (not_after > not_before)
);
COMMENT ON TABLE custody.token_key IS 'Keys that custody.authenticate accepts tokens of, by the kid in the token''s header';

CREATE TABLE custody.token_revocation (
  subject        text COLLATE "C" PRIMARY KEY CHECK (subject <> ''),
  revoked_before timestamptz NOT NULL
);
COMMENT ON TABLE custody.token_revocation IS 'Subjects whose tokens issued up to a moment are refused';

-- custody.instance, capture_state and captured_partition are left out on purpose: a restored database is not the one that was dumped.
SELECT pg_catalog.pg_extension_config_dump('custody.incarnation', '');
SELECT pg_catalog.pg_extension_config_dump('custody.signing_key', '');
SELECT pg_catalog.pg_extension_config_dump('custody.entry', '');
SELECT pg_catalog.pg_extension_config_dump('custody.tenants', '');
SELECT pg_catalog.pg_extension_config_dump('custody.registered_table', '');
SELECT pg_catalog.pg_extension_config_dump('custody.audited_table', '');
SELECT pg_catalog.pg_extension_config_dump('custody.role_binding', '');
SELECT pg_catalog.pg_extension_config_dump('custody.assume_grant', '');
SELECT pg_catalog.pg_extension_config_dump('custody.token_key', '');
SELECT pg_catalog.pg_extension_config_dump('custody.token_revocation', '');

GRANT SELECT ON custody.incarnation, custody.instance, custody.signing_key, custody.entry, custody.tenants, custody.registered_table,
  custody.audited_table, custody.capture_state, custody.captured_partition, custody.role_binding, custody.assume_grant, custody.token_key, custody.token_revocation TO custody_auditor;
