-- From 0.1.0 to 0.2.0. A line `--@ FILE` stands for sql/install/FILE. What was released stays as it is: tables are altered, and keep
-- their rows. tests/tests/upgrade.rs holds the outcome against a fresh installation.

-- Evidence: checkpoints. Verification takes notes from outside.
DROP FUNCTION custody.verify(text, jsonb, text);
DROP FUNCTION custody.assert_verified(text, jsonb);
--@ 61_verify.sql
--@ 62_checkpoints.sql
--@ 63_verifications.sql
-- Protecting what is in use.
--@ 42_protect_schema.sql
COMMENT ON FUNCTION custody.protect(regclass, name, boolean) IS 'Keeps the table''s tenants apart: row-level security enabled and forced, a permissive policy, a restrictive floor, NOT NULL, a default from the context, an index led by the tenant column, refusal of writes without a context; the same on its partitions. Returns what it did, with the lock each step takes and who waits for it; with dry_run what is to be done, each step in the form that the fewest wait for (custody.protect_script gives those to be run). Rows whose lock is ''report'' are findings it never acts on. Idempotent. Errors: UC020 this table cannot be protected';
-- What each installation says of its own promises.
--@ 78_posture.sql
