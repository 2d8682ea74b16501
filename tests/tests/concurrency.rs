//! Promise A4, and prepared transactions: who waits for whom, and what outlives a crash. The storm is in storm.rs.

use std::sync::Arc;

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::storm::{SETTINGS, Storm, Strength};
use custody_tests::{installation, state};

fn storm() -> Storm {
    let cluster = Cluster::temporary(&installation(), &SETTINGS).expect("a cluster");
    Storm::new(Arc::new(cluster), "storm", Strength::FULL, None)
}

#[test]
fn writers_of_one_tenant_do_not_wait_for_one_another() {
    let storm = storm();
    let mut sessions: Vec<_> = (0..8).map(|_| storm.cluster.connect("storm", SUPERUSER).unwrap()).collect();
    // All open at once, all in tenant a's chain: none waits, each has a lane of its own.
    for (i, session) in sessions.iter_mut().enumerate() {
        session
            .batch_execute(&format!("SET lock_timeout = '3s'; BEGIN; INSERT INTO account VALUES ('a', {i})"))
            .unwrap_or_else(|e| panic!("{i}: {}", state(&e)));
    }
    for session in &mut sessions {
        session.batch_execute("COMMIT").unwrap();
    }
    let mut client = storm.cluster.connect("storm", SUPERUSER).unwrap();
    let lanes: i64 =
        client.query_one("SELECT count(DISTINCT lane) FROM custody.entry WHERE tenant = 'a'", &[]).unwrap().get(0);
    assert_eq!(lanes, 8);
    // One after the other they use the same lane again.
    for i in 8..20 {
        client.batch_execute(&format!("INSERT INTO account VALUES ('a', {i})")).unwrap();
    }
    let lanes: i64 =
        client.query_one("SELECT count(DISTINCT lane) FROM custody.entry WHERE tenant = 'a'", &[]).unwrap().get(0);
    assert_eq!(lanes, 8);
    assert_eq!(storm.check(), Vec::<String>::new());
}

#[test]
fn a_prepared_transaction_outlives_a_crash_with_its_lane() {
    let storm = storm();
    let mut client = storm.cluster.connect("storm", SUPERUSER).unwrap();
    client.batch_execute("BEGIN; INSERT INTO account VALUES ('a', 1); PREPARE TRANSACTION 'p'").unwrap();
    client.batch_execute("INSERT INTO account VALUES ('a', 2)").unwrap();
    storm.cluster.kill().unwrap();
    storm.cluster.start().unwrap();
    let mut client = storm.cluster.connect("storm", SUPERUSER).unwrap();
    client.batch_execute("INSERT INTO account VALUES ('a', 3)").unwrap();
    let verdict: String = client.query_one("SELECT verdict FROM custody.verify() LIMIT 1", &[]).unwrap().get(0);
    assert_eq!(verdict, "valid", "in doubt is not in the log, and no alarm");
    client.batch_execute("COMMIT PREPARED 'p'").unwrap();
    assert_eq!(storm.check(), Vec::<String>::new());
    assert_eq!(client.query_one("SELECT count(*) FROM account", &[]).unwrap().get::<_, i64>(0), 3);
}
