//! A hot standby: everything that reads works, and nothing writes.

use super::*;

#[test]
fn everything_that_reads_works_on_a_standby_and_nothing_writes() {
    let primary = clinic(&["fsync = off"]);
    let mut s = superuser(&primary);
    session(&primary, "app").as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (2, 'x')");
    let notes = [checkpoint(&mut s), checkpoint(&mut s)].to_vec();
    s.batch("SELECT custody.run_verification()");
    let kept = heads(&mut s);
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let standby = primary.standby("s1").unwrap();
    let xid: String = s.one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text");
    let mut a = session(&standby, "auditor");
    assert_eq!(a.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    assert_eq!(held_against(&mut a, &notes), Vec::<String>::new());
    assert_eq!(held_against_heads(&mut a, &kept), Vec::<String>::new());
    let of_both = [
        "SELECT verdict || detail FROM custody.verify()",
        "SELECT custody.assert_verified()",
        "SELECT string_agg(c.id || c.object, ',' ORDER BY c.id, c.object) FROM custody.coverage() c",
        "SELECT count(*)::text FROM custody.unprotected_tables()",
        "SELECT string_agg(x, '') FROM custody.export_log() x",
        "SELECT string_agg(x, '') FROM custody.export_log('a') x",
        "SELECT jsonb_agg(h ORDER BY h)::text FROM custody.heads() h",
        "SELECT string_agg(l::text, '' ORDER BY incarnation, tenant, lane, seq) FROM custody.log l",
        "SELECT string_agg(h::text, '') FROM custody.history('clinic.patients', '{\"tenant_id\": \"a\", \"id\": 2}') h",
        "SELECT custody.tenant_proof('a')::text",
        "SELECT custody.inclusion_proof(0)",
        "SELECT custody.consistency_proof(1, 2)::text",
        "SELECT custody.checkpoint_key()",
        "SELECT string_agg(c::text, '' ORDER BY size) FROM custody.checkpoints c",
        "SELECT string_agg(v::text, '') FROM custody.verifications v",
        "SELECT string_agg(i::text, '') FROM custody.incarnation i",
        "SELECT (custody.coverage_report('json') IS NOT NULL)::text",
        "SELECT custody.guard_mode()",
    ];
    let mut on_primary = session(&primary, "auditor");
    for sql in of_both {
        let ask = |s: &mut Session| s.0.simple_query(sql).map(|_| s.last_simple(sql));
        match (ask(&mut on_primary), ask(&mut a)) {
            (Ok(there), Ok(here)) => assert_eq!(here, there, "{sql}"),
            (there, here) => panic!("{sql}: {there:?} {here:?}"),
        }
    }
    for sql in ["SELECT count(*) FROM custody.posture()", "SELECT custody.assert_coverage('critical')"] {
        a.batch(sql);
    }
    // The application reads under its context, as on the primary.
    let mut app = session(&standby, "app");
    app.batch("BEGIN; SELECT custody.assume_tenant('a')");
    assert_eq!((app.count("clinic.patients"), app.count("custody.log WHERE tenant = 'a'")), (2, 2));
    app.batch("COMMIT");
    assert_eq!(app.count("clinic.patients"), 0);
    // What has to write says that it cannot.
    let mut b = superuser(&standby);
    for sql in [
        "CALL custody.checkpoint()",
        "SELECT custody.checkpoint_leaf()",
        "SELECT custody.checkpoint_sign()",
        "SELECT custody.run_verification()",
        "SELECT custody.new_incarnation('here')",
        "SELECT custody.create_tenant('c', 'C')",
        "INSERT INTO clinic.patients VALUES ('a', 9, 'x')",
        "TRUNCATE clinic.patients",
        "SELECT custody.audit('clinic.patients')",
        "SELECT custody.protect('clinic.patients')",
        "SELECT custody.guard('reject')",
        "SELECT custody.unaudit('clinic.patients')",
    ] {
        let e = b.0.batch_execute(sql).unwrap_err();
        let e = e.as_db_error().unwrap();
        eprintln!("{sql}: {} {} / {:?}", e.code().code(), e.message(), e.hint());
        assert!(matches!(e.code().code(), "25006" | "UC059"), "{sql}: {e:?}");
        b.batch("ROLLBACK");
    }
    // No transaction was begun anywhere for all this.
    assert_eq!(a.one::<String>("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"), xid);
    assert_eq!(s.one::<String>("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"), xid);
    let log = std::fs::read_to_string(standby.socket().join("log")).unwrap();
    assert!(!log.contains("PANIC") && !log.contains("FATAL:  could not") && !log.contains("UC099"), "{log}");
}
