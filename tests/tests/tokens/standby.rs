//! Tokens on a hot standby.

use super::*;
use custody_harness::{Cluster, SUPERUSER};
use custody_tests::installation;
use std::time::{Duration, Instant};

#[test]
fn a_standby_takes_tokens_and_revocations_but_none_that_hold_once() {
    let installation = installation();
    let primary = Cluster::temporary(&installation, &["fsync = off"]).unwrap();
    let mut s = Session(primary.connect("postgres", SUPERUSER).unwrap());
    s.batch(
        "CREATE EXTENSION pg_custody; CREATE ROLE app LOGIN IN ROLE custody_app;
         CREATE TABLE t (tenant_id text, id int, PRIMARY KEY (tenant_id, id)); SELECT custody.protect('t'); GRANT SELECT ON t TO app;
         INSERT INTO t VALUES ('a', 1), ('b', 1)",
    );
    add_key(&mut s, "ES256", "k", "");
    add_key(&mut s, "EdDSA", "once", ", single_use => true");
    let standby = primary.standby("s1").unwrap();

    let mut app = Session(standby.connect("postgres", "app").unwrap());
    begin(&mut app, &token("ES256", "k", json!({})));
    assert_eq!(app.count("t"), 1);
    app.batch("COMMIT");
    app.batch("BEGIN");
    let error = present(&mut app, &token("EdDSA", "once", json!({"jti": "1"}))).unwrap_err();
    assert!(error.code().code() == "UC072" && error.message().contains("standby"), "{error}");
    app.batch("ROLLBACK");
    assert_eq!(refusal(&mut app, &token("ES256", "k", json!({"exp": now() - 1}))), Some("UC004".into()));

    // A revocation on the primary ends what is open here, as soon as it is replayed.
    begin(&mut app, &token("ES256", "k", json!({})));
    assert_eq!(app.count("t"), 1);
    s.batch("SELECT custody.revoke_tokens('dr.ada')");
    let begun = Instant::now();
    let error = loop {
        match app.0.batch_execute("SELECT count(*) FROM t") {
            Ok(()) => assert!(begun.elapsed() < Duration::from_secs(20), "it was never told"),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(custody_tests::state(&error), "UC071");
}
