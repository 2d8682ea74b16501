-- From 0.1.0 to 0.2.0. A line `--@ FILE` stands for sql/install/FILE. What was released stays as it is: tables are altered, and keep
-- their rows. tests/tests/upgrade.rs holds the outcome against a fresh installation.

-- Evidence: checkpoints. Verification takes notes from outside.
DROP FUNCTION custody.verify(text, jsonb, text);
DROP FUNCTION custody.assert_verified(text, jsonb);
--@ 61_verify.sql
--@ 62_checkpoints.sql
--@ 63_verifications.sql
