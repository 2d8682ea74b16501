//! Tokens that hold once.

use super::*;
use std::sync::Barrier;

fn once() -> Db {
    let db = clinic();
    add_key(&mut db.superuser(), "EdDSA", "once", ", single_use => true");
    db
}

fn single(id: &str) -> String {
    token("EdDSA", "once", json!({"jti": id}))
}

#[test]
fn a_token_is_used_up_whatever_becomes_of_its_transaction() {
    let db = once();
    let (mut s, mut app) = (db.superuser(), db.app());
    for (id, end) in [("committed", "COMMIT"), ("rolled back", "ROLLBACK"), ("failed", "SELECT 1 / 0")] {
        begin(&mut app, &single(id));
        assert_eq!(app.count("clinic.patients"), 2);
        let _ = app.0.batch_execute(end);
        app.batch("ROLLBACK");
        for session in [&mut app, &mut db.app()] {
            session.batch("BEGIN");
            let error = present(session, &single(id)).unwrap_err();
            assert!(error.code().code() == "UC004" && error.detail().unwrap().contains("used before"), "{error}");
            session.batch("ROLLBACK");
        }
    }
    assert_eq!(s.count("custody.token_seen"), 3, "rolled back or not");
    // The same token again in its transaction is the same use, also after a savepoint.
    begin(&mut app, &single("savepoint"));
    present(&mut app, &single("savepoint")).unwrap();
    app.batch("ROLLBACK");
    app.batch("BEGIN; SAVEPOINT before");
    present(&mut app, &single("again")).unwrap();
    app.batch("ROLLBACK TO before");
    assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None);
    present(&mut app, &single("again")).unwrap();
    assert_eq!(app.count("clinic.patients"), 2);
    app.batch("COMMIT");
    // A refused token is not used up, and one for another context neither.
    assert_eq!(refusal(&mut app, &token("EdDSA", "once", json!({"jti": "later", "aud": "x"}))), Some("UC004".into()));
    begin(&mut app, &token("EdDSA", "EdDSA", json!({"tenant": "b"})));
    assert_eq!(present(&mut app, &single("later")).unwrap_err().code().code(), "UC003");
    app.batch("ROLLBACK");
    assert_eq!(refusal(&mut app, &single("later")), None);
    // Without an id there is nothing to remember it by.
    assert_eq!(refusal(&mut app, &token("EdDSA", "once", json!({}))), Some("UC004".into()));
    // The id is the key's own: another key's token with the same one is another token.
    assert_eq!(refusal(&mut app, &token("EdDSA", "EdDSA", json!({"jti": "committed"}))), None);
    // In a transaction that may only read, too.
    app.batch("BEGIN READ ONLY");
    present(&mut app, &single("read only")).unwrap();
    assert_eq!(app.count("clinic.patients"), 2);
    app.batch("COMMIT");
    assert_eq!(refusal(&mut app, &single("read only")), Some("UC004".into()));
}

/// Eight sessions at one moment: one.
#[test]
fn of_many_at_once_exactly_one_wins() {
    let db = once();
    const SESSIONS: usize = 8;
    const ROUNDS: usize = 40;
    let barrier = Barrier::new(SESSIONS);
    let tokens: Vec<String> = (0..ROUNDS).map(|round| single(&round.to_string())).collect();
    let wins: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SESSIONS)
            .map(|me| {
                let (db, barrier, tokens) = (&db, &barrier, &tokens);
                scope.spawn(move || {
                    let mut app = db.app();
                    let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][me % 3];
                    tokens
                        .iter()
                        .enumerate()
                        .map(|(round, token)| {
                            // A snapshot from before must not make it blind to the others.
                            app.batch(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"));
                            barrier.wait();
                            let won = match present(&mut app, token) {
                                Ok(()) => true,
                                Err(error) => {
                                    assert_eq!(error.code().code(), "UC004");
                                    false
                                }
                            };
                            app.batch(if round % 2 == 0 || !won { "ROLLBACK" } else { "COMMIT" });
                            won
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for round in 0..ROUNDS {
        assert_eq!(wins.iter().filter(|won| won[round]).count(), 1, "round {round}");
    }
    let mut s = db.superuser();
    assert_eq!(s.count("custody.token_seen"), ROUNDS as i64);
    // What lies there is sound: found by the index and by a scan, kept by VACUUM, and checked by amcheck.
    s.batch("CREATE EXTENSION amcheck");
    s.batch("VACUUM (FREEZE) custody.token_seen");
    s.batch("SELECT bt_index_check('custody.token_seen_pkey', true)");
    assert_eq!(s.count("verify_heapam('custody.token_seen')"), 0);
    s.batch("SET enable_seqscan = off");
    assert_eq!(s.count("custody.token_seen WHERE kid = 'once' AND jti = '7'"), 1);
    // What has expired goes; what has not, stays.
    assert_eq!(s.one::<i64>("SELECT custody.forget_seen_tokens()"), 0);
    s.batch("UPDATE custody.token_seen SET expires_at = now() - interval '1 s' WHERE jti <> '7'");
    assert_eq!(s.one::<i64>("SELECT custody.forget_seen_tokens()"), ROUNDS as i64 - 1);
    assert_eq!(refusal(&mut db.app(), &tokens[7]), Some("UC004".into()));
    assert!(
        s.one::<bool>("SELECT expires_at > now() + interval '1 minute' FROM custody.token_seen"),
        "for longer than any leeway"
    );
}

/// Different tokens are no business of each other's, at any isolation level: what is noted of them is not read by transactions.
#[test]
fn different_tokens_do_not_fail_each_other() {
    let db = once();
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (db, barrier) = (&db, &barrier);
            scope.spawn(move || {
                let mut app = db.app();
                for round in 0..30 {
                    app.batch("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1");
                    barrier.wait();
                    present(&mut app, &single(&format!("{me} {round}"))).unwrap();
                    barrier.wait();
                    app.batch("COMMIT");
                }
            });
        }
    });
}

/// A crash forgets nothing, though the transaction never ended.
#[test]
fn a_crash_does_not_give_a_token_back() {
    use custody_harness::{Cluster, SUPERUSER};
    let cluster =
        Cluster::temporary(&custody_tests::installation(), &["synchronous_commit = off", "wal_writer_delay = 10s"])
            .unwrap();
    let connect = |user: &str| Session(cluster.connect("postgres", user).unwrap());
    let mut s = connect(SUPERUSER);
    s.batch("CREATE EXTENSION pg_custody; CREATE ROLE app LOGIN IN ROLE custody_app; CHECKPOINT");
    add_key(&mut s, "EdDSA", "once", ", single_use => true");
    // This commit must be there after the crash.
    s.batch("SET synchronous_commit = on; CREATE TABLE t ()");
    let mut app = connect("app");
    begin(&mut app, &single("one"));
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut app = connect("app");
    assert_eq!(refusal(&mut app, &single("one")), Some("UC004".into()));
    assert_eq!(refusal(&mut app, &single("two")), None);
}
