-- PUBLIC may do nothing; each role what it is for.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA custody FROM PUBLIC;

GRANT EXECUTE ON FUNCTION custody.tenant(), custody.tenant_uuid(), custody.tenant_int(), custody.tenant_bigint(), custody.subject(), custody.claims(),
  custody.row_key(regclass, jsonb), custody.key_hash(text), custody.history(regclass, jsonb)
  TO custody_app, custody_auditor, custody_admin;
GRANT EXECUTE ON FUNCTION custody.authenticate(text), custody.assume_tenant(text) TO custody_app;
GRANT SELECT ON custody.finding TO custody_auditor;
GRANT EXECUTE ON FUNCTION custody.coverage(), custody.unprotected_tables(), custody.assert_coverage(text), custody.heads(), custody.export_log(text)
  TO custody_auditor;
GRANT EXECUTE ON FUNCTION custody.create_tenant(text, text), custody.bind_role(regrole, text), custody.unbind_role(regrole),
  custody.allow_assume(regrole, text[]), custody.protect(regclass, name, boolean), custody.unprotect(regclass), custody.register_shared(regclass, text),
  custody.audit(regclass, name[], name[], text), custody.unaudit(regclass), custody.require_context(), custody.capture(), custody.capture_truncate(),
  custody.new_incarnation(text)
  TO custody_admin;
