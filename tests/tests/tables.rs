//! Every kind of table: each change of a row is an entry that replays, or the table is refused with a reason.

use custody_tests::replay::assert_replays;
use custody_tests::{Db, Session};

/// The ops of a table, in order, which must replay to what it holds.
fn ops(s: &mut Session, table: &str) -> Vec<String> {
    assert_replays(s, table)
}

#[test]
fn partitions_of_every_strategy_and_rows_that_move_between_them() {
    let db = Db::new();
    let mut s = db.superuser();
    for (name, by, first, second) in [
        ("li", "LIST (k)", "FOR VALUES IN (1, 2)", "DEFAULT"),
        ("ra", "RANGE (k)", "FOR VALUES FROM (MINVALUE) TO (3)", "FOR VALUES FROM (3) TO (MAXVALUE)"),
        ("ha", "HASH (k)", "FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)"),
    ] {
        // The second partition has its columns in another order, and had others.
        s.batch(&format!(
            "SET search_path = public;
             CREATE TABLE {name} (gone0 int, id int, k int, t text, PRIMARY KEY (id, k)) PARTITION BY {by}; ALTER TABLE {name} DROP gone0;
             CREATE TABLE {name}1 PARTITION OF {name} {first};
             CREATE TABLE {name}2 (t text, gone1 date, k int NOT NULL, gone2 text, id int NOT NULL, PRIMARY KEY (id, k));
             ALTER TABLE {name}2 DROP gone1, DROP gone2; SELECT custody.audit('{name}');
             ALTER TABLE {name} ATTACH PARTITION {name}2 {second};
             INSERT INTO {name} SELECT i, i % 6, 'row ' || i FROM generate_series(1, 60) i;
             INSERT INTO {name}2 (id, k, t) SELECT id + 100, k, 'direct' FROM {name}2;
             UPDATE {name}1 SET t = t || '!'; UPDATE {name} SET k = 5 - k; UPDATE {name} SET k = 5 - k, id = id + 1000 WHERE id % 2 = 0;
             DELETE FROM {name}2 WHERE id % 5 = 0; DELETE FROM {name} WHERE id % 7 = 0;
             INSERT INTO {name} (id, k, t) SELECT id, k, 'again' FROM {name} ON CONFLICT (id, k) DO UPDATE SET t = excluded.t WHERE {name}.id % 3 = 0;
             MERGE INTO {name} USING generate_series(1, 5) AS v (i) ON id = v.i WHEN MATCHED THEN UPDATE SET t = 'merged', k = 5 - k WHEN NOT MATCHED THEN INSERT (id, k) VALUES (v.i, v.i)"
        ));
        ops(&mut s, &format!("public.{name}"));
        s.batch(&format!("SET search_path = public; TRUNCATE {name}2"));
        ops(&mut s, &format!("public.{name}"));
        s.batch(&format!("SET search_path = public; COPY {name} (id, k, t) FROM PROGRAM 'printf \"9001\\t1\\ta\\n9002\\t5\\tb\\n\"'; TRUNCATE {name}"));
        assert_eq!(ops(&mut s, &format!("public.{name}")).last().unwrap(), "TRUNCATE");
        // A row that an UPDATE takes to another partition leaves the one and enters the other; within one, its key changes.
        s.batch(&format!(
            "RESET ALL; INSERT INTO {name} VALUES (1, 1, 'x'); UPDATE {name} SET k = 4; UPDATE {name} SET k = 5"
        ));
        let last: Vec<String> = ops(&mut s, &format!("public.{name}")).into_iter().rev().take(5).rev().collect();
        match name {
            "ha" => {}
            _ => assert_eq!(last, ["INSERT", "DELETE", "INSERT", "MOVE_OUT", "MOVE_IN"]),
        }
        s.assert_valid();
    }
}

#[test]
fn partitions_of_partitions_come_and_go() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE r (k int, j int, t text, PRIMARY KEY (k, j)) PARTITION BY LIST (k);
         CREATE TABLE m PARTITION OF r FOR VALUES IN (1, 2) PARTITION BY RANGE (j);
         CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); CREATE TABLE m2 (j int NOT NULL, t text, k int NOT NULL);
         SELECT custody.audit('r');
         ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20); CREATE TABLE r3 PARTITION OF r FOR VALUES IN (3);
         INSERT INTO r SELECT k, j, 'x' FROM generate_series(1, 3) k, generate_series(0, 19) j;
         DELETE FROM r WHERE j = 10; UPDATE r SET j = (j + 7) % 20, k = k % 3 + 1 WHERE j = 3; UPDATE m2 SET t = 'm2'; DELETE FROM m WHERE j = 4",
    );
    ops(&mut s, "public.r");
    // What leaves takes its rows along without an entry for each; what is written to it from then on is nobody's business.
    s.batch("RESET ALL; ALTER TABLE m DETACH PARTITION m2; INSERT INTO m2 VALUES (1, 'free', 1); TRUNCATE m2");
    s.batch("ALTER TABLE r DETACH PARTITION r3 CONCURRENTLY");
    s.batch("INSERT INTO r3 VALUES (3, 99, 'free'); UPDATE r3 SET t = 'free'; DELETE FROM r3");
    let free = s.count("custody.entry WHERE new LIKE '%free%'");
    assert_eq!(free, 0);
    assert_eq!(s.count("custody.capture_gap"), 0);
    s.batch("ALTER TABLE r ATTACH PARTITION r3 FOR VALUES IN (3); INSERT INTO r VALUES (3, 3, 'back'); TRUNCATE r");
    assert_eq!(s.count("custody.log WHERE op = 'TRUNCATE' AND old ->> 't' = 'back'"), 1);
    s.assert_valid();
}

#[test]
fn inheritance() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE pa (id int PRIMARY KEY, v text); CREATE TABLE ch (extra date) INHERITS (pa); CREATE TABLE gr () INHERITS (ch);
         SELECT custody.audit('gr'), custody.audit('ch'), custody.audit('pa');
         INSERT INTO pa VALUES (1, 'p'); INSERT INTO ch VALUES (2, 'c', 'today'); INSERT INTO gr VALUES (3, 'g', NULL);
         UPDATE pa SET v = v || id; DELETE FROM pa WHERE id = 2; UPDATE ch SET extra = '-infinity'; TRUNCATE ONLY pa; INSERT INTO pa VALUES (4, 'q')",
    );
    // ONLY: a parent's rows are its own.
    s.batch("CREATE VIEW only_pa AS SELECT * FROM ONLY pa; CREATE VIEW only_ch AS SELECT * FROM ONLY ch");
    assert_eq!(s.count("custody.log WHERE table_name = 'gr' AND op = 'UPDATE'"), 2);
    ops(&mut s, "public.gr");
    s.batch("TRUNCATE public.pa");
    for table in ["public.pa", "public.ch", "public.gr"] {
        ops(&mut s, table);
    }
    s.assert_valid();
}

#[test]
fn columns_of_every_kind() {
    let db = Db::new();
    let mut s = db.superuser();
    let long = format!("{}{}", "é".repeat(31), "x");
    s.batch(&format!(
        "CREATE TABLE gen (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, by_default bigint GENERATED BY DEFAULT AS IDENTITY, a numeric, twice numeric GENERATED ALWAYS AS (a * 2) STORED,
           s serial, d timestamptz DEFAULT clock_timestamp()); SELECT custody.audit('gen');
         INSERT INTO gen (a) VALUES (1), (2.50), (NULL); UPDATE gen SET a = a + 1; UPDATE gen SET by_default = DEFAULT; INSERT INTO gen (id, a) OVERRIDING SYSTEM VALUE VALUES (9, 9); DELETE FROM gen WHERE id = 2;
         CREATE TABLE \"Odd \"\" na\\me\" (\"I \"\"d'\\\" int, \"{long}\" text, \"é\u{1F600}\" text, \" \" text, \"a:b,{{}}\" text, \"new\" text, \"select\" text, PRIMARY KEY (\"I \"\"d'\\\", \"{long}\"));
         SELECT custody.audit('\"Odd \"\" na\\me\"'); INSERT INTO \"Odd \"\" na\\me\" VALUES (1, 'k', '1', '2', '3', '4', '5'); UPDATE \"Odd \"\" na\\me\" SET \" \" = 'x', \"new\" = NULL"
    ));
    ops(&mut s, "public.gen");
    ops(&mut s, "public.\"Odd \"\" na\\me\"");
    let found = s.rows(
        "SELECT * FROM custody.history('public.\"Odd \"\" na\\me\"', $1::text::jsonb)",
        &[&format!("{{\"I \\\"d'\\\\\": 1, \"{long}\": \"k\"}}")],
    );
    assert_eq!(found.len(), 2);
    // As wide as a table may be.
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} int2")).collect();
    s.batch(&format!(
        "CREATE TABLE public.wide (id int PRIMARY KEY, {}); SELECT custody.audit('public.wide'); INSERT INTO public.wide SELECT 1; INSERT INTO public.wide (id, c1599, c800) VALUES (2, 1, 2); UPDATE public.wide SET c700 = 7, c1599 = NULL; ALTER TABLE public.wide DROP c5, DROP c1598; UPDATE public.wide SET c1 = 1 WHERE id = 2; DELETE FROM public.wide WHERE id = 1",
        columns.join(", ")
    ));
    ops(&mut s, "public.wide");
    s.assert_valid();
}

#[test]
fn keys_of_every_kind_and_none() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE none (a int, t text); SELECT custody.audit('none'); INSERT INTO none VALUES (1, 'same'), (1, 'same'), (NULL, NULL), (2, repeat('x', 100000));
         DELETE FROM none WHERE ctid = (SELECT min(ctid) FROM none WHERE a = 1); UPDATE none SET a = 3 WHERE a = 1; UPDATE none SET a = 4 WHERE a = 2; INSERT INTO none SELECT * FROM none; UPDATE none SET t = 'all';
         CREATE TABLE none_unique (a int UNIQUE, t text); SELECT custody.audit('none_unique'); INSERT INTO none_unique VALUES (1), (NULL), (NULL); UPDATE none_unique SET a = a + 1; DELETE FROM none_unique WHERE a IS NULL;
         CREATE TABLE incl (t text, id int, v text, PRIMARY KEY (id) INCLUDE (v)); SELECT custody.audit('incl'); INSERT INTO incl VALUES ('t', 1, 'v'); UPDATE incl SET v = 'w'; UPDATE incl SET id = 2;
         CREATE TABLE swap (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); SELECT custody.audit('swap'); INSERT INTO swap SELECT i, 'v' || i FROM generate_series(1, 5) i",
    );
    for table in ["none", "none_unique", "incl"] {
        ops(&mut s, &format!("public.{table}"));
    }
    assert_eq!(s.count("custody.log WHERE table_name = 'incl' AND row_key = '{\"id\": 1}'"), 3);
    // Keys that are double for a moment.
    s.batch("BEGIN; INSERT INTO public.swap VALUES (1, 'double'); DELETE FROM public.swap WHERE v = 'v1'; COMMIT; UPDATE public.swap SET v = 'after' WHERE id = 1");
    assert_eq!(s.one::<String>("SELECT string_agg(op, ' ' ORDER BY lsn, ordinal) FROM custody.log WHERE table_name = 'swap' AND row_key = '{\"id\": 1}'"), "INSERT INSERT DELETE UPDATE");
    s.assert_valid();
}

#[test]
fn cascades_are_entries_in_the_order_that_replays() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE a (id int PRIMARY KEY, v text);
         CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE c (id int, b int REFERENCES b ON DELETE CASCADE, a int REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE, PRIMARY KEY (id));
         CREATE TABLE d (id serial, a int DEFAULT 0 REFERENCES a ON DELETE SET DEFAULT ON UPDATE CASCADE, c int REFERENCES c ON DELETE SET NULL ON UPDATE CASCADE);
         CREATE TABLE e (id int PRIMARY KEY, up int REFERENCES e ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE f (x int, y int, id int PRIMARY KEY, a int REFERENCES a (id) ON DELETE SET NULL (a) ON UPDATE SET NULL) ;
         SELECT custody.audit('a'), custody.audit('b'), custody.audit('c'), custody.audit('d'), custody.audit('e'), custody.audit('f');
         INSERT INTO a SELECT i, 'a' || i FROM generate_series(0, 5) i; INSERT INTO b SELECT i, i % 5 + 1 FROM generate_series(1, 20) i; INSERT INTO c SELECT i, i % 20 + 1, i % 5 + 1 FROM generate_series(1, 40) i;
         INSERT INTO d (a, c) SELECT i % 5 + 1, i FROM generate_series(1, 40) i; INSERT INTO f SELECT i, i, i, i % 5 + 1 FROM generate_series(1, 10) i;
         INSERT INTO e VALUES (3, 2), (2, 1), (1, NULL), (4, 3)",
    );
    s.batch(
        "UPDATE a SET id = id + 100 WHERE id = 1; UPDATE e SET id = id * 10 WHERE id = 1; UPDATE a SET id = 33 WHERE id = 3",
    );
    s.batch("DELETE FROM a WHERE id IN (101, 2); DELETE FROM b WHERE id = 7; DELETE FROM e WHERE up IS NULL");
    for table in ["a", "b", "c", "d", "e", "f"] {
        ops(&mut s, &format!("public.{table}"));
    }
    let gone = s.rows("SELECT op || ' ' || (row_key ->> 'id') FROM custody.log WHERE table_name = 'e' AND op = 'DELETE' ORDER BY lsn, ordinal", &[]);
    assert_eq!(
        gone.iter().map(|r| r.get(0)).collect::<Vec<String>>(),
        ["DELETE 10", "DELETE 2", "DELETE 3", "DELETE 4"]
    );
    let (set_null, set_default): (i64, i64) = (
        s.count("custody.log WHERE table_name = 'c' AND op = 'UPDATE' AND new ->> 'a' IS NULL"),
        s.count("custody.log WHERE table_name = 'd' AND op = 'UPDATE' AND changed = '{a}' AND new ->> 'a' = '0'"),
    );
    assert!(set_null > 0 && set_default == 16, "{set_null} {set_default}");
    s.assert_valid();
    // A constraint that fails at the end leaves nothing.
    let before = s.count("custody.entry");
    assert_eq!(s.fails("BEGIN; INSERT INTO public.e VALUES (50, 51); COMMIT"), "23503");
    assert_eq!(s.count("custody.entry"), before);
    s.batch("TRUNCATE public.a CASCADE");
    for table in ["a", "b", "c", "d", "e", "f"] {
        ops(&mut s, &format!("public.{table}"));
    }
    assert_eq!(s.count("custody.log WHERE op = 'TRUNCATE' AND old IS NULL"), 5);
    s.assert_valid();
}

#[test]
fn statements_that_reach_the_table_by_detours() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT custody.audit('t');
         CREATE TABLE door (id int, v text); CREATE RULE instead AS ON INSERT TO door DO INSTEAD INSERT INTO t VALUES (new.id, new.v);
         CREATE RULE also AS ON UPDATE TO t DO ALSO INSERT INTO t VALUES (new.id + (SELECT 1000 * count(*) FROM t), 'also ' || old.v);
         CREATE VIEW v AS SELECT * FROM t WHERE id < 100 WITH CHECK OPTION; CREATE VIEW j AS SELECT t.id, t.v || '' AS v FROM t;
         CREATE FUNCTION j_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF tg_op = 'DELETE' THEN DELETE FROM t WHERE id = old.id; RETURN old; END IF;
           INSERT INTO t VALUES (new.id, new.v) ON CONFLICT (id) DO UPDATE SET v = excluded.v; RETURN new; END $$;
         CREATE TRIGGER j INSTEAD OF INSERT OR UPDATE OR DELETE ON j FOR EACH ROW EXECUTE FUNCTION j_write();
         INSERT INTO door VALUES (1, 'rule'), (2, 'rule'); UPDATE t SET v = 'u' WHERE id = 1; INSERT INTO v VALUES (3, 'view'); UPDATE v SET v = 'view!' WHERE id = 3; DELETE FROM v WHERE id = 2;
         DROP RULE also ON t; INSERT INTO j VALUES (4, 'j'); DELETE FROM j WHERE id = 1;
         WITH a AS (INSERT INTO t VALUES (10, 'cte') RETURNING *), b AS (DELETE FROM t WHERE id = 3 RETURNING *), c AS (UPDATE t SET v = 'cte' WHERE id = 4 RETURNING *) SELECT count(*) FROM a, b, c;
         UPDATE t SET v = x.v || '+' FROM (SELECT id, max(v) AS v FROM t GROUP BY id) x WHERE x.id = t.id AND t.id > 5;
         INSERT INTO t SELECT id, 'conflict' FROM t ON CONFLICT (id) DO UPDATE SET v = excluded.v || t.v; INSERT INTO t SELECT id FROM t ON CONFLICT DO NOTHING",
    );
    assert_eq!(s.fails("INSERT INTO v VALUES (500, 'out of the view')"), "44000");
    ops(&mut s, "public.t");
    // Through a foreign table of another session's, which commits when this one does.
    s.batch(&format!(
        "RESET ALL; CREATE EXTENSION postgres_fdw; CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '5432', dbname '{}'); CREATE USER MAPPING FOR postgres SERVER loop;
         CREATE FOREIGN TABLE far (id int, v text) SERVER loop OPTIONS (table_name 't'); BEGIN; INSERT INTO far VALUES (9001, 'far'), (9002, 'far'); UPDATE far SET v = 'further' WHERE id = 9001; DELETE FROM far WHERE id = 9002; COMMIT;
         BEGIN; INSERT INTO far VALUES (9003, 'never'); ROLLBACK",
        db.cluster.socket().display(),
        db.name
    ));
    assert_eq!(s.count("custody.log WHERE application_name = 'postgres_fdw' AND table_name = 't'"), 4);
    ops(&mut s, "public.t");
    // FREEZE: the rows are as if committed long ago; their entries are not.
    s.batch("RESET ALL; BEGIN; TRUNCATE t; COPY t FROM PROGRAM 'printf \"1\\tfrozen\\n2\\tfrozen\\n\"' (FREEZE); COMMIT; SELECT lo_create(4711); SELECT lo_put(4711, 0, 'x')");
    ops(&mut s, "public.t");
    s.batch("RESET ALL; SET session_replication_role = replica; INSERT INTO t VALUES (7, 'replica'); UPDATE t SET v = 'replica!'; DELETE FROM t WHERE id = 1; TRUNCATE t; INSERT INTO t VALUES (8, 'x'); RESET session_replication_role");
    ops(&mut s, "public.t");
    s.assert_valid();
}

#[test]
fn triggers_of_the_users_change_what_is_stored_and_that_is_recorded() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0); SELECT custody.audit('t'); CREATE TABLE side (id serial PRIMARY KEY, what text); SELECT custody.audit('side');
         CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF tg_op = 'DELETE' THEN IF old.v = 'keep' THEN RETURN NULL; END IF; RETURN old; END IF;
           IF new.v = 'refuse' THEN RETURN NULL; END IF;
           new.v := new.v || '*'; RETURN new; END $$;
         CREATE TRIGGER \" before\" BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION before();
         CREATE FUNCTION transition() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO side (what) SELECT 'seen ' || v FROM new_rows; RETURN NULL; END $$;
         CREATE TRIGGER transition AFTER INSERT ON t REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION transition();
         INSERT INTO t VALUES (1, 'a'), (2, 'refuse'), (3, 'b'); UPDATE t SET v = 'refuse' WHERE id = 1; UPDATE t SET v = 'c'; INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'conflict'; DELETE FROM t WHERE id = 3",
    );
    ops(&mut s, "public.t");
    ops(&mut s, "public.side");
    assert_eq!(s.count("custody.log WHERE table_name = 't' AND row_key = '{\"id\": 2}'"), 0);
    // A user's AFTER trigger that changes the same row again comes after the change itself: it sorts after ours.
    s.batch(
        "RESET ALL; CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET n = n + 1 WHERE id = new.id; RETURN NULL; END $$;
         CREATE TRIGGER again AFTER INSERT OR UPDATE OF v ON t FOR EACH ROW EXECUTE FUNCTION again();
         INSERT INTO t VALUES (5, 'v'); UPDATE t SET v = 'w' WHERE id = 5; DELETE FROM t WHERE id = 5",
    );
    ops(&mut s, "public.t");
    assert_eq!(
        s.one::<String>("SELECT string_agg(op || coalesce(' ' || (new ->> 'n'), ''), ', ' ORDER BY lsn, ordinal) FROM custody.log WHERE table_name = 't' AND row_key = '{\"id\": 5}'"),
        "INSERT 0, UPDATE 1, UPDATE 1, UPDATE 2, DELETE"
    );
    s.assert_valid();
}

#[test]
fn a_trigger_that_updates_other_rows_of_its_statement_comes_before_them() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE t (id int PRIMARY KEY, n int); SELECT custody.audit('t');
         CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET n = n + 1 WHERE id = new.id + 1; RETURN NULL; END $$;
         CREATE TRIGGER other AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION other(); INSERT INTO t VALUES (1, 0), (2, 0)",
    );
    // README, Caveats: PostgreSQL queues the second row's own event behind it.
    assert_eq!(
        s.one::<String>("SELECT string_agg(op || ' ' || (row_key ->> 'id') || ' ' || (new ->> 'n'), ', ' ORDER BY lsn, ordinal) FROM custody.log WHERE table_name = 't'"),
        "INSERT 1 0, UPDATE 2 1, INSERT 2 0"
    );
    s.assert_valid();
}
