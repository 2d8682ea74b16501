//! What DDL does to an audited table by way of another one is told of the audited table, by name.

use custody_tests::replay::assert_replays;
use custody_tests::{Db, Session};

/// The DDL entries, as `command object, of which table`.
fn ddl(s: &mut Session) -> Vec<String> {
    let sql = "SELECT (new ->> 'command') || ' ' || (new ->> 'object') || ', of ' || table_name FROM custody.log WHERE op = 'DDL' ORDER BY lsn, ordinal";
    s.rows(sql, &[]).iter().map(|r| r.get(0)).collect()
}

#[test]
fn what_joins_leaves_and_is_dropped_is_named() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE top (k int, j int) PARTITION BY LIST (k); CREATE TABLE r PARTITION OF top FOR VALUES IN (1, 2, 3, 4) PARTITION BY LIST (k); CREATE TABLE \"R 1\" PARTITION OF r FOR VALUES IN (1);
         CREATE TABLE m (k int, j int) PARTITION BY LIST (j); CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1); CREATE TABLE e (k int, j int) PARTITION BY LIST (j);
         SELECT custody.audit('r')",
    );
    assert_eq!(ddl(&mut s), [""; 0], "what was there when auditing began did not join");
    let steps = [
        (
            "ALTER TABLE r ATTACH PARTITION m FOR VALUES IN (2)",
            &["ALTER TABLE public.r, of r", "ATTACH PARTITION public.m, of m", "ATTACH PARTITION public.m1, of m1"][..],
        ),
        ("CREATE TABLE r3 PARTITION OF r FOR VALUES IN (3)", &["CREATE TABLE public.r3, of r3"]),
        (
            "ALTER TABLE r DETACH PARTITION m",
            &["ALTER TABLE public.r, of r", "DETACH PARTITION public.m, of m", "DETACH PARTITION public.m1, of m1"],
        ),
        (
            "ALTER TABLE r ATTACH PARTITION e FOR VALUES IN (4)",
            &["ALTER TABLE public.r, of r", "ATTACH PARTITION public.e, of e"],
        ),
        (
            "ALTER TABLE r DETACH PARTITION e CONCURRENTLY",
            &["ALTER TABLE public.r, of r", "DETACH PARTITION public.e, of e"],
        ),
        ("DROP TABLE m, e", &[]),
        ("DROP TABLE \"R 1\"", &["DROP TABLE public.\"R 1\", of R 1"]),
        ("ALTER TABLE top ADD more text", &["ALTER TABLE public.top, of r"]),
        ("ALTER TABLE top RENAME more TO less", &["ALTER TABLE public.top.less, of r"]),
        ("CREATE INDEX ON top (j)", &[]),
        ("SELECT custody.audit('r', redact => '{less}')", &[]),
        ("CREATE TABLE other (i int)", &[]),
        ("DROP TABLE top", &["DROP TABLE public.r, of r", "DROP TABLE public.r3, of r3"]),
    ];
    for (step, expected) in steps {
        let before = ddl(&mut s).len();
        s.batch(step);
        let mut new = ddl(&mut s).split_off(before);
        new.sort_by_key(|n| n.starts_with("DROP").then(|| n.clone()));
        assert_eq!(new, expected, "{step}");
    }
    assert_eq!(s.count("custody.captured_partition") + s.count("custody.audited_table"), 0);
    s.assert_valid();
    // Without a word from unaudit.
    s.batch("CREATE TABLE a (k int) PARTITION BY LIST (k); CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1); SELECT custody.audit('a')");
    let before = ddl(&mut s).len();
    s.batch("SELECT custody.unaudit('a'); CREATE TABLE b (i int); DROP TABLE a1");
    assert_eq!(ddl(&mut s).len(), before);
    assert_eq!(s.count("custody.captured_partition"), 0);
    s.assert_valid();
}

#[test]
fn a_parents_changes_are_told_of_its_audited_children() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE pa (id int PRIMARY KEY, v text); CREATE TABLE ch () INHERITS (pa); CREATE TABLE gr () INHERITS (ch); CREATE TABLE un () INHERITS (pa); SELECT custody.audit('gr')");
    for (step, expected) in [
        ("ALTER TABLE pa ADD more int DEFAULT 7", &["ALTER TABLE public.pa, of gr"][..]),
        ("ALTER TABLE pa RENAME v TO w", &["ALTER TABLE public.pa.w, of gr"]),
        ("ALTER TABLE pa ALTER more TYPE bigint", &["ALTER TABLE public.pa, of gr"]),
        ("ALTER TABLE ch ADD third int", &["ALTER TABLE public.ch, of gr"]),
        ("ALTER TABLE un ADD fourth int", &[]),
        ("COMMENT ON TABLE pa IS 'x'", &[]),
        ("SELECT custody.audit('ch')", &[]),
        ("ALTER TABLE pa ADD fifth int", &["ALTER TABLE public.pa, of ch", "ALTER TABLE public.pa, of gr"]),
        ("ALTER TABLE ch ADD sixth int", &["ALTER TABLE public.ch, of ch", "ALTER TABLE public.ch, of gr"]),
    ] {
        let before = ddl(&mut s).len();
        s.batch(step);
        assert_eq!(ddl(&mut s).split_off(before), expected, "{step}");
    }
    s.batch("INSERT INTO gr (id, w) VALUES (1, 'x'); UPDATE pa SET w = 'y'");
    assert_replays(&mut s, "public.gr");
    s.assert_valid();
}
