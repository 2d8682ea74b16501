-- The context: for whom a transaction acts. None of these has a SET clause: a setting made inside such a function would end
-- with it. They read their registries without privileges of the caller's, in C, by qualified names.

CREATE FUNCTION custody.tenant() RETURNS text LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_tenant';
COMMENT ON FUNCTION custody.tenant() IS 'The tenant this transaction acts for, or NULL. Raises UC005 once the token that set it has expired, UC071 once it was revoked or its key is gone';
CREATE FUNCTION custody.tenant_uuid() RETURNS uuid LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_tenant_uuid';
COMMENT ON FUNCTION custody.tenant_uuid() IS 'custody.tenant() as a uuid; NULL if it is not one in canonical form (lower case, hyphens)';
CREATE FUNCTION custody.tenant_int() RETURNS integer LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_tenant_int';
COMMENT ON FUNCTION custody.tenant_int() IS 'custody.tenant() as an integer; NULL if it is not one in canonical form';
CREATE FUNCTION custody.tenant_bigint() RETURNS bigint LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_tenant_bigint';
COMMENT ON FUNCTION custody.tenant_bigint() IS 'custody.tenant() as a bigint; NULL if it is not one in canonical form';
CREATE FUNCTION custody.subject() RETURNS text LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_subject';
COMMENT ON FUNCTION custody.subject() IS 'The person or service this transaction acts for: the token''s sub (RFC 7519), or NULL';
CREATE FUNCTION custody.claims() RETURNS jsonb LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'custody_claims';
COMMENT ON FUNCTION custody.claims() IS 'The whole claims set of the token that set the context, or NULL';

CREATE FUNCTION custody.authenticate(token text) RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'custody_authenticate';
COMMENT ON FUNCTION custody.authenticate(text) IS 'Sets the context of this transaction from a signed token (compact JWS; EdDSA, ES256 or RS256 as its key is; kid, aud and exp required; docs/tokens.md). Errors: UC004 a refused token, UC003 another context is set, UC002 the role is bound to another tenant, UC072 a token that holds once, on a standby. Pass the token as a bind parameter';
CREATE FUNCTION custody.assume_tenant(id text) RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'custody_assume_tenant';
COMMENT ON FUNCTION custody.assume_tenant(text) IS 'Sets the context of this transaction to a tenant that custody.allow_assume names for the session''s role. Errors: UC002 not allowed, UC003 another context is set. Weaker than a token: whoever runs SQL in such a session chooses among those tenants';

CREATE FUNCTION custody.require_context() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'custody_require_context';
COMMENT ON FUNCTION custody.require_context() IS 'Statement trigger of protected tables: a write without a context is an error (UC001), not silence';

-- Configuration. Each is an entry in the log's system chain, because these tables are audited too.

CREATE FUNCTION custody.create_tenant(id text, name text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ INSERT INTO custody.tenants (id, name) VALUES ($1, $2) $$;
COMMENT ON FUNCTION custody.create_tenant(text, text) IS 'Registers an organisation by the id that is in its tenant columns';

CREATE FUNCTION custody.bind_role(role regrole, tenant text) RETURNS void LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'custody_bind_role';
COMMENT ON FUNCTION custody.bind_role(regrole, text) IS 'Sessions that log in as this role act for this tenant, and for no other, from their next transaction on. Refuses roles that row-level security does not bind (UC012)';

CREATE FUNCTION custody.unbind_role(role regrole) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ DELETE FROM custody.role_binding b WHERE b.role = $1 $$;
COMMENT ON FUNCTION custody.unbind_role(regrole) IS 'Takes custody.bind_role back, from the next transaction on';

CREATE FUNCTION custody.allow_assume(role regrole, tenants text[]) RETURNS void LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'custody_allow_assume';
COMMENT ON FUNCTION custody.allow_assume(regrole, text[]) IS 'Sets the tenants that sessions of this role, or of its members, may assume; an empty array takes all back';
