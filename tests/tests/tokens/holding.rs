//! How long a token holds: to its expiry, its revocation or its key's end, at each use of the context and not one longer.

use super::*;
use custody_tests::state;
use std::time::{Duration, Instant};

/// Ways to use the context after `$wait$`, in one statement or in several; each reads protected rows.
const USES: [&str; 8] = [
    "$wait$; SELECT count(*) FROM clinic.patients",
    "$wait$; INSERT INTO clinic.patients (id) VALUES (9)",
    "$wait$; UPDATE clinic.patients SET name = 'x'",
    "SAVEPOINT s; SELECT count(*) FROM clinic.patients; $wait$; ROLLBACK TO s; SELECT count(*) FROM clinic.patients",
    "DO $$ BEGIN PERFORM count(*) FROM clinic.patients; PERFORM pg_sleep(2.1); PERFORM count(*) FROM clinic.patients; END $$",
    "PREPARE p AS SELECT count(*) FROM clinic.patients; EXECUTE p; $wait$; EXECUTE p",
    "DECLARE c CURSOR FOR SELECT * FROM clinic.patients ORDER BY id; FETCH 1 FROM c; $wait$; FETCH 1 FROM c",
    "DO $$ DECLARE c refcursor; r record; BEGIN OPEN c FOR SELECT * FROM clinic.patients; FETCH c INTO r; PERFORM pg_sleep(2.1); FETCH c INTO r; END $$",
];

#[test]
fn expiry_is_checked_at_each_use() {
    let db = clinic();
    for used in USES {
        let mut app = db.app();
        let begun = now();
        begin(&mut app, &token("EdDSA", "EdDSA", json!({"exp": begun + 2})));
        assert_eq!(app.count("clinic.patients"), 2);
        assert_eq!(app.fails(&used.replace("$wait$", "SELECT pg_sleep(2.1)")), "UC005", "{used}");
        // What the transaction did falls with it; and the connection is as good as new.
        app.batch("ROLLBACK");
        begin(&mut app, &token("EdDSA", "EdDSA", json!({})));
        app.batch("COMMIT");
    }
    // The key's end is the token's too.
    let mut s = db.superuser();
    add_key(&mut s, "ES256", "short", ", not_after => now() + '2 s'");
    let mut app = db.app();
    begin(&mut app, &token("ES256", "short", json!({})));
    assert_eq!(app.fails("SELECT pg_sleep(2.5); SELECT count(*) FROM clinic.patients"), "UC005");
    app.batch("ROLLBACK");
    assert_eq!(refusal(&mut app, &token("ES256", "short", json!({}))), Some("UC004".into()));
}

/// From the moment that the revocation is committed, in whatever a session is.
#[test]
fn a_revocation_ends_open_transactions() {
    for (how, by) in [
        ("SELECT custody.revoke_tokens('dr.ada')", "tokens were revoked"),
        ("SELECT custody.remove_token_key('EdDSA')", "its key was removed"),
        ("UPDATE custody.token_key SET not_after = now() WHERE kid = 'EdDSA'", "its key was removed"),
        (
            "UPDATE custody.token_key SET public_key = decode(repeat('ab', 32), 'hex') WHERE kid = 'EdDSA'",
            "its key was removed",
        ),
        ("TRUNCATE custody.token_key", "its key was removed"),
    ] {
        let db = clinic();
        let mut s = db.superuser();
        s.batch("UPDATE custody.token_key SET not_before = now() - interval '1 h'");
        let open = [
            "SELECT count(*) FROM clinic.patients",
            "PREPARE p AS SELECT count(*) FROM clinic.patients; EXECUTE p; EXECUTE p",
            "DECLARE c CURSOR FOR SELECT * FROM clinic.patients ORDER BY id; FETCH 1 FROM c",
            "SAVEPOINT one; SELECT count(*) FROM clinic.patients; SAVEPOINT two",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1",
            "SET LOCAL force_parallel_mode = on; SELECT count(*) FROM clinic.patients",
            "INSERT INTO clinic.patients (id) VALUES (9)",
            "SELECT 1",
        ];
        let then = [
            "SELECT count(*) FROM clinic.patients",
            "EXECUTE p",
            "FETCH 1 FROM c",
            "ROLLBACK TO one; SELECT count(*) FROM clinic.patients",
            "SELECT count(*) FROM clinic.patients",
            "SELECT count(*) FROM clinic.patients",
            "UPDATE clinic.patients SET name = 'x' WHERE id = 9",
            "SELECT custody.tenant()",
        ];
        let mut apps: Vec<Session> = open
            .iter()
            .map(|sql| {
                let mut app = db.app();
                app.batch("BEGIN");
                if let Some(level) = sql.strip_prefix("SET TRANSACTION") {
                    app.batch(&format!("SET TRANSACTION{level}"));
                }
                present(&mut app, &token("EdDSA", "EdDSA", json!({}))).unwrap();
                if !sql.starts_with("SET TRANSACTION") {
                    app.batch(sql);
                }
                app
            })
            .collect();
        let mut other = db.app();
        begin(&mut other, &token("ES256", "ES256", json!({"sub": "dr.bo"})));
        // Not before it is committed.
        s.batch(&format!("BEGIN; {how}"));
        if !how.starts_with("TRUNCATE") {
            for app in &mut apps {
                app.batch("SAVEPOINT here; SELECT count(*) FROM clinic.patients; ROLLBACK TO here");
            }
        }
        s.batch("COMMIT");
        for (app, sql) in apps.iter_mut().zip(then) {
            let error = app.0.batch_execute(sql).expect_err(sql);
            assert_eq!(state(&error), "UC071", "{how}: {sql}");
            let detail = error.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
            assert!(detail.contains(by), "{detail}");
            app.batch("ROLLBACK");
            assert_eq!(refusal(app, &token("EdDSA", "EdDSA", json!({}))), Some("UC004".into()), "{how}");
        }
        // Whom it does not concern goes on.
        match how.starts_with("TRUNCATE") {
            true => assert_eq!(other.fails("SELECT count(*) FROM clinic.patients"), "UC071"),
            false => assert_eq!(other.count("clinic.patients"), 2),
        }
        s.assert_valid();
    }
}

/// One's own revocation counts from where it is, and not where it was rolled back.
#[test]
fn a_revocation_of_ones_own() {
    let db = clinic();
    let name = format!("{}_both", db.name);
    db.superuser().batch(&format!("CREATE ROLE {name} LOGIN IN ROLE custody_app, custody_admin; GRANT USAGE ON SCHEMA clinic TO {name}; GRANT SELECT ON clinic.patients TO {name}"));
    let mut s = db.session(&name);
    begin(&mut s, &token("EdDSA", "EdDSA", json!({})));
    assert_eq!(s.count("clinic.patients"), 2);
    s.batch("SAVEPOINT before; SELECT custody.revoke_tokens('dr.ada')");
    assert_eq!(s.fails("SELECT count(*) FROM clinic.patients"), "UC071");
    s.batch("ROLLBACK TO before");
    assert_eq!(s.count("clinic.patients"), 2, "the revocation is undone");
    s.batch("SAVEPOINT before; SELECT custody.revoke_tokens('someone else')");
    assert_eq!(s.count("clinic.patients"), 2);
    s.batch("COMMIT");
}

#[test]
fn revocations_by_age() {
    let db = clinic();
    let (mut s, mut app) = (db.superuser(), db.app());
    s.batch("SELECT custody.revoke_tokens('dr.ada')");
    assert_eq!(refusal(&mut app, &token("EdDSA", "EdDSA", json!({"iat": now() - 5}))), Some("UC004".into()));
    assert_eq!(refusal(&mut app, &token("EdDSA", "EdDSA", json!({"iat": null}))), Some("UC004".into()));
    assert_eq!(refusal(&mut app, &token("EdDSA", "EdDSA", json!({"sub": "dr.bo"}))), None);
    std::thread::sleep(Duration::from_millis(1100));
    let new = token("EdDSA", "EdDSA", json!({"iat": now()}));
    assert_eq!(refusal(&mut app, &new), None);
    // A later revocation that an earlier clock dates before does not loosen it.
    s.batch(
        "UPDATE custody.token_revocation SET revoked_before = now() + '1 h'; SELECT custody.revoke_tokens('dr.ada')",
    );
    assert_eq!(refusal(&mut app, &new), Some("UC004".into()));
}

/// Workers of a parallel query have the context, and an expired one ends them too.
#[test]
fn parallel_workers_have_the_context() {
    let db = clinic();
    let mut s = db.superuser();
    s.batch(
        "INSERT INTO clinic.patients SELECT 'a', i, 'x' FROM generate_series(10, 20000) i; ANALYZE clinic.patients",
    );
    let mut app = db.app();
    app.batch("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off");
    begin(&mut app, &token("RS256", "RS256", json!({})));
    let plan: Vec<String> = app
        .rows("EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM clinic.patients", &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert!(plan.iter().any(|line| line.contains("Workers Launched: ") && !line.contains(": 0")), "{plan:#?}");
    assert_eq!(app.count("clinic.patients"), 19_993);
    s.batch("SELECT custody.revoke_tokens('dr.ada')");
    assert_eq!(app.fails("SELECT count(*) FROM clinic.patients"), "UC071");
    app.batch("ROLLBACK");
}

/// Many sessions use a token while it is revoked: not one statement that began afterwards reads a row.
#[test]
fn no_use_after_a_revocation_that_was_told() {
    let db = clinic();
    let mut s = db.superuser();
    s.batch("UPDATE custody.token_key SET not_before = now() - interval '1 h'");
    for round in 0..5 {
        let subject = format!("dr.{round}");
        let text = token("EdDSA", "EdDSA", json!({"sub": subject}));
        let revoked = std::sync::OnceLock::<Instant>::new();
        let reads = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut app = db.app();
                        begin(&mut app, &text);
                        let mut reads = 0;
                        loop {
                            let after = revoked.get().is_some();
                            match app.0.query("SELECT count(*) FROM clinic.patients", &[]) {
                                Ok(_) => assert!(!after, "a read after the revocation was told"),
                                Err(e) => {
                                    assert_eq!(state(&e), "UC071");
                                    return reads;
                                }
                            }
                            reads += 1;
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(200));
            s.rows("SELECT custody.revoke_tokens($1)", &[&subject]);
            revoked.set(Instant::now()).unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>()
        });
        assert!(reads > 6, "they did read before");
    }
}

/// What looking at the token costs a query, beside the same under an assumed tenant, which there is nothing to look at for:
/// `cargo test --release -p custody-tests --test tokens -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement"]
fn cost() {
    let db = clinic();
    let mut app = db.app();
    const POINTS: &str =
        "DO $$ BEGIN FOR i IN 1..100000 LOOP PERFORM 1 FROM clinic.patients WHERE id = 1; END LOOP; END $$";
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients SELECT 'a', i, 'x' FROM generate_series(10, 500000) i");
    s.batch("VACUUM ANALYZE clinic.patients");
    const SCAN: &str = "SELECT count(*) FROM clinic.patients WHERE name = 'y'";
    for (what, sql, queries) in [("a point query", POINTS, 100_000.0), ("a scan of 500,000 rows", SCAN, 1.0)] {
        let mut best = [f64::MAX; 2];
        for _ in 0..7 {
            for (n, best) in best.iter_mut().enumerate() {
                app.batch("BEGIN");
                match n {
                    0 => app.batch("SELECT custody.assume_tenant('a')"),
                    _ => present(&mut app, &token("EdDSA", "EdDSA", json!({}))).unwrap(),
                }
                let begun = Instant::now();
                app.batch(sql);
                *best = best.min(begun.elapsed().as_secs_f64() * 1e6 / queries);
                app.batch("COMMIT");
            }
        }
        println!("{what}: {:.2} us assumed, {:.2} us by token: {:.3}", best[0], best[1], best[1] / best[0]);
    }
    for algorithm in ALGORITHMS {
        let text = token(algorithm, algorithm, json!({}));
        app.batch("BEGIN");
        let begun = Instant::now();
        for _ in 0..1000 {
            present(&mut app, &text).unwrap();
        }
        println!("authenticate, {algorithm}: {:.0} us, round trip included", begun.elapsed().as_secs_f64() * 1e3);
        app.batch("COMMIT");
    }
}
