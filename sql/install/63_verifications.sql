-- Verification that runs by itself, and leaves word of what it found.

CREATE TABLE custody.verifications (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started_at  timestamptz NOT NULL,
  finished_at timestamptz NOT NULL,
  verdict     text NOT NULL,
  summary     text NOT NULL,
  findings    jsonb NOT NULL
);
COMMENT ON TABLE custody.verifications IS 'What each custody.run_verification() found. It is the database''s own word, which whoever controls it can change: keep what must be believed outside';
COMMENT ON COLUMN custody.verifications.findings IS 'The first 1000 findings, as custody.verify() gives them';
SELECT pg_catalog.pg_extension_config_dump('custody.verifications', '');
-- Else a restored database would begin again at 1, and its first verification fail on what it inherited.
SELECT pg_catalog.pg_extension_config_dump('custody.verifications_id_seq', '');
GRANT SELECT ON custody.verifications TO custody_auditor;

CREATE FUNCTION custody.run_verification(pin text DEFAULT NULL, heads jsonb DEFAULT NULL, checkpoints text[] DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  started CONSTANT timestamptz := clock_timestamp();
  outcome record;
BEGIN
  WITH v AS (SELECT row_number() OVER () AS place, v.* FROM custody.verify(pin, heads, NULL, checkpoints) v)
  SELECT (SELECT s.verdict FROM v s WHERE s.place = 1) AS verdict, (SELECT s.detail FROM v s WHERE s.place = 1) AS summary,
         coalesce((SELECT jsonb_agg(to_jsonb(f) - 'place' ORDER BY f.place) FROM v f WHERE f.place BETWEEN 2 AND 1001), '[]') AS findings
  INTO outcome;
  INSERT INTO custody.verifications (started_at, finished_at, verdict, summary, findings)
  VALUES (started, clock_timestamp(), outcome.verdict, outcome.summary, outcome.findings);
  IF outcome.verdict <> 'valid' THEN
    PERFORM pg_notify('custody_verification', json_build_object('verdict', outcome.verdict, 'summary', left(outcome.summary, 4000))::text);
    RAISE WARNING USING ERRCODE = 'UC052',
      MESSAGE = format('the audit log is %s', outcome.verdict), DETAIL = outcome.summary,
      HINT = 'SELECT * FROM custody.verify() names each entry; custody.verifications keeps what was found. Stop, and find out who changed what, before anything else is.';
  END IF;
  RETURN outcome.verdict;
END $$;
COMMENT ON FUNCTION custody.run_verification(text, jsonb, text[]) IS 'custody.verify() for cron: keeps the outcome in custody.verifications and returns the verdict. If that is not valid, it raises a WARNING (UC052), which the server''s log has too, and notifies the channel custody_verification';
REVOKE ALL ON FUNCTION custody.run_verification(text, jsonb, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.run_verification(text, jsonb, text[]) TO custody_auditor, custody_admin;

CREATE FUNCTION custody.verification_due(schedule text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  -- The last time it was so late: today, or yesterday. Where nothing was verified yet, the life of the database counts.
  SELECT s.moment > greatest((SELECT max(v.started_at) FROM custody.verifications v),
                             (SELECT i.started_at FROM custody.incarnation i JOIN custody.instance n ON n.incarnation = i.id))
  FROM (SELECT (current_date + schedule::time)::timestamptz - CASE WHEN localtime < schedule::time THEN interval '1 day' ELSE interval '0' END AS moment) s
$$;
COMMENT ON FUNCTION custody.verification_due(text) IS 'Internal, for the background worker: whether the log was not verified since a time of day (custody.verify_schedule) last came';
REVOKE ALL ON FUNCTION custody.verification_due(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION custody.verification_due(text) TO custody_auditor, custody_admin;
