-- table_log: a trigger in C, and for each table a log table with its columns. Five columns more: mode, tuple, changed, id, user.
CREATE EXTENSION table_log;
CREATE SCHEMA audit;

CREATE FUNCTION audit.audit(target regclass) RETURNS void LANGUAGE sql AS $$
  SELECT table_log_init(5, n.nspname::text, c.relname::text, n.nspname::text, c.relname || '_log')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$$;
