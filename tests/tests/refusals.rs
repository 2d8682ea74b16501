//! What would not read back, or change without being recorded, is refused by custody.audit with a reason.

use custody_tests::Db;
use custody_tests::replay::assert_replays;

#[test]
fn what_cannot_be_audited_says_why() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TEMP TABLE temporary (id int); CREATE UNLOGGED TABLE unlogged (id int); CREATE VIEW v AS SELECT 1 AS id; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id;
         CREATE EXTENSION postgres_fdw; CREATE SERVER srv FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE f (id int) SERVER srv;
         CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE FOREIGN TABLE pf PARTITION OF p FOR VALUES IN (1) SERVER srv;
         CREATE TABLE q (id int) PARTITION BY LIST (id); CREATE UNLOGGED TABLE qu PARTITION OF q FOR VALUES IN (1);
         CREATE TABLE i (id int); CREATE FOREIGN TABLE fi () INHERITS (i) SERVER srv; CREATE TABLE it (id int); CREATE TEMP TABLE ti () INHERITS (it);
         CREATE TABLE w (k int) PARTITION BY LIST (k); CREATE TABLE w1 PARTITION OF w FOR VALUES IN (1); SELECT custody.audit('w');
         CREATE TABLE z (k int) PARTITION BY LIST (k); CREATE TABLE z1 PARTITION OF z FOR VALUES IN (1) PARTITION BY LIST (k); CREATE TABLE z11 PARTITION OF z1 FOR VALUES IN (1); SELECT custody.audit('z11');
         CREATE SEQUENCE sq; CREATE INDEX ix ON p (id); CREATE TYPE co AS (a int)",
    );
    for (table, reason) in [
        ("temporary", "temporary"),
        ("unlogged", "unlogged"),
        ("v", "not a table"),
        ("mv", "not a table"),
        ("sq", "not a table"),
        ("ix", "not a table"),
        ("co", "not a table"),
        ("f", "foreign table"),
        ("p", "foreign table"),
        ("q", "unlogged"),
        ("i", "inheritance children"),
        ("it", "inheritance children"),
        ("w1", "a partition of public.w, which is audited"),
        ("z1", "partition public.z11 is audited by itself"),
        ("z", "partition public.z11 is audited by itself"),
        ("pg_class", "system table"),
        ("pg_largeobject", "system table"),
        ("information_schema.sql_features", "system table"),
        ("custody.tenants", "system table"),
        ("custody.entry", "system table"),
        ("custody.capture_state", "system table"),
    ] {
        let error = s.0.batch_execute(&format!("SELECT custody.audit('{table}')")).expect_err(table);
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "UC032", "{table}");
        assert!(error.detail().is_some_and(|d| d.contains(reason)), "{table}: {:?}", error.detail());
    }
    s.assert_valid();
}

#[test]
fn what_would_be_refused_is_a_gap_when_it_comes_later() {
    for (how, back) in [
        ("CREATE FOREIGN TABLE r2 PARTITION OF r FOR VALUES IN (2) SERVER srv", "DROP FOREIGN TABLE r2"),
        ("CREATE UNLOGGED TABLE r2 PARTITION OF r FOR VALUES IN (2)", "ALTER TABLE r2 SET LOGGED"),
        ("CREATE FOREIGN TABLE c () INHERITS (r1) SERVER srv", "DROP FOREIGN TABLE c"),
    ] {
        let db = Db::new();
        let mut s = db.superuser();
        s.batch("CREATE EXTENSION postgres_fdw; CREATE SERVER srv FOREIGN DATA WRAPPER postgres_fdw");
        match how.contains("INHERITS") {
            true => s.batch("CREATE TABLE r1 (k int); SELECT custody.audit('r1')"),
            false => s.batch(
                "CREATE TABLE r (k int) PARTITION BY LIST (k); CREATE TABLE r1 PARTITION OF r FOR VALUES IN (1); SELECT custody.audit('r')",
            ),
        }
        s.batch(how);
        let (verdict, found) = s.verify("");
        assert_eq!(
            (verdict.as_str(), s.count("custody.log WHERE op = 'CAPTURE_OFF'")),
            ("invalid", 1),
            "{how}: {found:?}"
        );
        s.batch(back);
        assert_eq!(s.count("custody.capture_gap"), 0, "{back}");
        assert_eq!(s.count("custody.log WHERE op = 'CAPTURE_ON'"), 1, "{back}");
    }
}

#[test]
fn types_that_do_not_read_back_are_refused() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TYPE holds AS (a int, b regproc[]); CREATE DOMAIN dom AS holds; CREATE TYPE later AS (a int); CREATE TYPE ops AS RANGE (subtype = oid);
         CREATE TABLE trees AS SELECT adbin FROM pg_attrdef; CREATE TABLE stats AS SELECT stxdndistinct AS a FROM pg_statistic_ext_data",
    );
    for (column, named) in [
        ("v regproc", "regproc"),
        ("v regoper[]", "regoper"),
        ("v holds", "regproc"),
        ("v dom[]", "regproc"),
        ("v gtsvector", "gtsvector"),
    ] {
        s.batch(&format!("CREATE TABLE bad (id int PRIMARY KEY, {column})"));
        let error = s.0.batch_execute("SELECT custody.audit('bad')").unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "UC032", "{column}");
        let why = format!("Its column \"v\" holds values of type {named}, whose text does not read back.");
        assert_eq!(error.detail(), Some(&*why), "{column}");
        // What is not in the images, or is no more than a digest, need not read back.
        s.batch("SELECT custody.audit('bad', exclude => '{v}'); SELECT custody.audit('bad', redact => '{v}')");
        assert_eq!(s.fails("SELECT custody.audit('bad')"), "UC032");
        s.batch("DROP TABLE bad");
    }
    for table in ["trees", "stats"] {
        assert_eq!(s.fails(&format!("SELECT custody.audit('{table}')")), "UC032", "{table}");
    }
    // Nor can such a column come later.
    s.batch("CREATE TABLE good (id int PRIMARY KEY, r regprocedure, l later); SELECT custody.audit('good')");
    assert_eq!(s.fails("ALTER TABLE good ADD v regproc"), "UC032");
    assert_eq!(s.fails("ALTER TABLE good ALTER r TYPE regproc"), "UC032");
    assert_eq!(s.fails("ALTER TYPE later ADD ATTRIBUTE v regoper"), "UC032");
    s.batch("INSERT INTO good VALUES (1, 'abs(int4)', '(1)')");
    assert_replays(&mut s, "public.good");
    s.assert_valid();
}
