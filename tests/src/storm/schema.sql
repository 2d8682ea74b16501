-- What the storm rages over: plain tables with cascades, a partitioned one, a deferred trigger, and marks of the tables' shapes.
CREATE EXTENSION pg_custody;

CREATE TABLE account (tenant_id text, id int, n int DEFAULT 0, note text, measure int DEFAULT 1, PRIMARY KEY (tenant_id, id));
CREATE TABLE movement (tenant_id text, id serial, account int, amount int, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account) REFERENCES account ON DELETE CASCADE ON UPDATE CASCADE);

CREATE SCHEMA shop;
CREATE TABLE shop.tally (tenant_id text, id int, n int, PRIMARY KEY (tenant_id, id));
CREATE TABLE shop.parted (tenant_id text, id int, n int DEFAULT 0, note text, measure int DEFAULT 1, PRIMARY KEY (tenant_id, id))
  PARTITION BY RANGE (id);
ALTER TABLE shop.parted ALTER note SET STORAGE EXTERNAL;
CREATE TABLE shop.parted_0 PARTITION OF shop.parted FOR VALUES FROM (0) TO (20);
-- Not in the parent's order, and with a column that was dropped.
CREATE TABLE shop.parted_1 (dropped int, measure int DEFAULT 1, note text, id int NOT NULL, tenant_id text NOT NULL, n int DEFAULT 0);
ALTER TABLE shop.parted_1 DROP COLUMN dropped, ALTER note SET STORAGE EXTERNAL;
ALTER TABLE shop.parted ATTACH PARTITION shop.parted_1 FOR VALUES FROM (20) TO (40);
CREATE TABLE shop.parted_2 PARTITION OF shop.parted FOR VALUES FROM (40) TO (60);
CREATE TABLE shop.parted_3 PARTITION OF shop.parted FOR VALUES FROM (1000) TO (100000);

SELECT custody.protect(t) FROM unnest('{account,movement,shop.tally,shop.parted}'::regclass[]) t;
SELECT custody.audit(t) FROM unnest('{account,movement,shop.tally,shop.parted}'::regclass[]) t;

-- A mark is itself audited, so it lies in the log between the entries of the shape before it and those of the shape after it.
CREATE TABLE shape (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, logical text, columns jsonb, fill jsonb);
SELECT custody.audit('shape');
CREATE FUNCTION mark(logical text, target oid, fill jsonb) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.shape (logical, columns, fill)
  SELECT logical, jsonb_agg(jsonb_build_array(attnum, attname, atttypid::regtype) ORDER BY attnum), fill
  FROM pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped;
$$;
SELECT mark('account', 'account'::regclass, NULL), mark('movement', 'movement'::regclass, NULL),
  mark('tally', 'shop.tally'::regclass, NULL), mark('parted', 'shop.parted'::regclass, NULL);

CREATE FUNCTION count_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.tally VALUES (NEW.tenant_id, NEW.account % 10, 1) ON CONFLICT (tenant_id, id) DO UPDATE SET n = tally.n + 1;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON movement DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION count_movement();

-- An exception block undoes what came after its beginning; the log is read inside it.
CREATE FUNCTION fail_after(t text, i int, look boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE seen bigint;
BEGIN
  INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
  BEGIN
    UPDATE account SET n = n + 100 WHERE tenant_id = t AND id IN (i, 0);
    IF look THEN SELECT count(*) INTO seen FROM custody.log WHERE tenant = t; END IF;
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
END $$;
-- The lane is taken inside the block that fails.
CREATE FUNCTION fail_first(t text, i int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN PERFORM pg_sleep(0.005);
  END;
  INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
END $$;
-- A block that succeeds is its outer level's, and no business of the next one, which fails.
CREATE FUNCTION fail_second(t text, i int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  BEGIN
    UPDATE account SET n = n + 100 WHERE tenant_id = t AND id IN (i, 0);
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
END $$;
CREATE FUNCTION walk(t text, low int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  rows CURSOR FOR SELECT id FROM account WHERE tenant_id = t AND id BETWEEN low AND low + 4 ORDER BY id FOR UPDATE;
BEGIN
  FOR found IN rows LOOP
    IF found.id % 4 = 0 THEN DELETE FROM account WHERE CURRENT OF rows;
    ELSE UPDATE account SET n = n + 1 WHERE CURRENT OF rows;
    END IF;
  END LOOP;
END $$;
CREATE PROCEDURE steps(t text, low int) LANGUAGE plpgsql AS $$
DECLARE seen bigint;
BEGIN
  FOR i IN low..low + 3 LOOP
    INSERT INTO account (tenant_id, id) VALUES (t, i) ON CONFLICT (tenant_id, id) DO UPDATE SET n = account.n + 1;
    SELECT count(*) INTO seen FROM custody.log WHERE tenant = t;
    IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
  END LOOP;
END $$;
-- Takes locks until the shared table of locks is full; all but the last few stay with the transaction.
CREATE FUNCTION take_all_locks() RETURNS int LANGUAGE plpgsql AS $$
DECLARE taken int := 0;
BEGIN
  LOOP
    BEGIN
      PERFORM pg_advisory_xact_lock(1, taken + i) FROM generate_series(1, 5) i;
      taken := taken + 5;
    EXCEPTION WHEN out_of_memory THEN RETURN taken;
    END;
  END LOOP;
END $$;

CREATE ROLE storm_app LOGIN IN ROLE custody_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON account, movement, shop.tally, shop.parted TO storm_app;
GRANT USAGE ON SCHEMA shop TO storm_app;
GRANT USAGE ON SEQUENCE movement_id_seq TO storm_app;
SELECT custody.allow_assume('storm_app', '{a,b,c}');
