//! What would not read back, or change without being recorded, is refused by custody.audit with a reason.

use custody_tests::Db;

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
