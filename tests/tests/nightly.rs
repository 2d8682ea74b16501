//! Verification and checkpoints that run by themselves: by cron, by pg_cron.

use std::time::{Duration, Instant};

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::{Db, Session, installation};
use postgres::fallible_iterator::FallibleIterator;

#[test]
fn an_outcome_is_kept_and_a_bad_one_is_loud() {
    let db = Db::clinic();
    let auditor = format!("{}_auditor", db.name);
    db.superuser().batch(&format!("CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"));
    let (mut session, mut app, mut listener) = (db.session(&auditor), db.app(), db.superuser());
    listener.batch("LISTEN custody_verification");
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'x')");
    assert_eq!(session.one::<String>("SELECT custody.run_verification()"), "valid");
    assert_eq!(
        session
            .count("custody.verifications WHERE verdict = 'valid' AND findings = '[]' AND finished_at >= started_at"),
        1
    );
    assert_eq!(app.fails("SELECT custody.run_verification()"), "42501");
    assert_eq!(session.fails("DELETE FROM custody.verifications"), "42501");

    let mut superuser = db.superuser();
    superuser.batch("SET session_replication_role = replica; ALTER TABLE custody.entry DISABLE TRIGGER ALL; UPDATE custody.entry SET op = 'x' WHERE tenant = 'a'");
    assert_eq!(session.one::<String>("SELECT custody.run_verification()"), "invalid");
    assert!(session.count("custody.verifications, jsonb_array_elements(findings) f WHERE f ->> 'verdict' = 'edited' AND f ->> 'tenant' = 'a'") > 0);
    let heard =
        listener.0.notifications().timeout_iter(Duration::from_secs(5)).next().unwrap().expect("a notification");
    assert!(heard.payload().contains("invalid"), "{}", heard.payload());
    assert!(db.cluster.log_tail().contains("the audit log is invalid"), "the server's log has it");
    assert_eq!(session.one::<String>("SELECT custody.run_verification(pin => repeat('0', 64))"), "invalid");
}

/// What a monitoring system asks for, as the role that it has for that.
#[test]
fn a_monitor_sees_what_is_written_and_what_was_checked() {
    let db = Db::clinic();
    let monitor = format!("{}_monitor", db.name);
    db.superuser().batch(&format!("CREATE ROLE {monitor} LOGIN IN ROLE pg_monitor"));
    let (mut session, mut app, mut superuser) = (db.session(&monitor), db.app(), db.superuser());
    let metric = |session: &mut Session, name: &str| -> Option<f64> {
        let lines = session.rows("SELECT custody.metrics()", &[]);
        let line = lines.iter().map(|r| r.get::<_, String>(0)).find(|l| l.starts_with(&format!("custody_{name}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    assert_eq!(metric(&mut session, "verification_valid"), None, "nothing is said of what was not done");
    assert_eq!(metric(&mut session, "checkpoint_size"), None);
    superuser.batch("SELECT pg_stat_force_next_flush()");
    let before = metric(&mut session, "entries_written_total").unwrap();
    for id in 1..=20 {
        app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x')"));
    }
    app.batch("SELECT pg_stat_force_next_flush()");
    assert!(metric(&mut session, "entries_written_total").unwrap() >= before + 20.0);
    assert!(metric(&mut session, "log_bytes").unwrap() > 0.0);

    // A transaction that writes, and one that is prepared: each holds a lane, and is named.
    superuser.batch("BEGIN; INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 100, 'x')");
    let mut prepared = db.superuser();
    prepared.batch("BEGIN; INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 101, 'x'); PREPARE TRANSACTION 'monitored'");
    assert_eq!((metric(&mut session, "lanes_held"), metric(&mut session, "lanes_prepared")), (Some(2.0), Some(1.0)));
    assert_eq!(session.count("custody.stat_lanes WHERE prepared = 'monitored' AND since < now() AND pid IS NULL"), 1);
    assert_eq!(
        session.count(
            "custody.stat_lanes WHERE prepared IS NULL AND since < now() AND pid IS NOT NULL AND role = 'postgres'"
        ),
        1
    );
    superuser.batch("COMMIT");
    superuser.batch("COMMIT PREPARED 'monitored'");
    assert_eq!(metric(&mut session, "lanes_held"), Some(0.0));

    superuser.batch("CALL custody.checkpoint()");
    superuser.one::<String>("SELECT custody.run_verification()");
    assert_eq!(
        (metric(&mut session, "verification_valid"), metric(&mut session, "checkpoint_size")),
        (Some(1.0), Some(1.0))
    );
    superuser.batch("SET session_replication_role = replica; ALTER TABLE custody.entry DISABLE TRIGGER ALL; UPDATE custody.entry SET op = 'x' WHERE tenant = 'a'");
    superuser.one::<String>("SELECT custody.run_verification()");
    assert_eq!(metric(&mut session, "verification_valid"), Some(0.0));
    assert_eq!(session.count("custody.stat_log WHERE verdict = 'invalid' AND findings > 0"), 1);
    assert_eq!(app.fails("SELECT custody.metrics()"), "42501");
    assert_eq!(app.fails("SELECT * FROM custody.stat_log"), "42501");
}

/// pg_cron of Debian's, put into the stage by `make test-db`. Its least interval is a minute.
#[test]
fn pg_cron_makes_checkpoints_and_verifies() {
    let settings =
        ["shared_preload_libraries = 'pg_cron'", "cron.use_background_workers = on", "max_worker_processes = 16"];
    let Ok(cluster) = Cluster::temporary(&installation(), &settings) else {
        assert!(std::env::var_os("CI").is_none(), "pg_cron is not in the stage");
        println!("SKIPPED: pg_cron is not in the stage (tools/cron)");
        return;
    };
    let mut session = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    session.batch("CREATE EXTENSION pg_custody; CREATE EXTENSION pg_cron; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
    session.batch(
        "SELECT cron.schedule('custody-checkpoint', '* * * * *', 'CALL custody.checkpoint()');
         SELECT cron.schedule('custody-verification', '* * * * *', 'SELECT custody.run_verification()')",
    );
    let begun = Instant::now();
    while session.count("custody.checkpoints") == 0
        || session.count("custody.verifications WHERE verdict = 'valid'") == 0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(100),
            "{:?}",
            session.rows("SELECT * FROM cron.job_run_details", &[])
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn preloaded_it_works_by_itself() {
    let settings =
        ["shared_preload_libraries = 'pg_custody'", "custody.checkpoint_interval = 1", "max_worker_processes = 16"];
    let cluster = Cluster::temporary(&installation(), &settings).unwrap();
    let mut postgres = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    postgres.batch("CREATE DATABASE one");
    postgres.batch("CREATE DATABASE two");
    postgres.batch("ALTER DATABASE two SET default_transaction_isolation = 'serializable'");
    postgres.batch("ALTER DATABASE two SET default_transaction_read_only = on");
    let mut sessions: Vec<Session> =
        ["one", "two"].map(|name| Session(cluster.connect(name, SUPERUSER).unwrap())).into();
    for session in &mut sessions {
        session.batch("SET default_transaction_read_only = off");
        session.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
        // As if it had been installed two days ago.
        session.batch("UPDATE custody.incarnation SET started_at = started_at - interval '2 days'");
    }
    let wait = |session: &mut Session, what: &str| {
        let begun = Instant::now();
        while session.count(what) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}\n{}", cluster.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    for session in &mut sessions {
        wait(session, "custody.checkpoints WHERE size >= 2");
        wait(session, "custody.verifications WHERE verdict = 'valid'");
    }
    let log = cluster.log_tail();
    assert!(!log.contains("ERROR") && !log.contains("WARNING"), "{log}");
    // Once is enough, until the next night.
    let verified = sessions[0].count("custody.verifications");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sessions[0].count("custody.verifications"), verified);
    // A crash, and it goes on; nothing that was published is contradicted.
    let note: String = sessions[0].one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1");
    drop(sessions);
    drop(postgres);
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut session = Session(cluster.connect("one", SUPERUSER).unwrap());
    let size = session.count("custody.checkpoint_note");
    wait(&mut session, &format!("custody.checkpoints WHERE size > {size}"));
    let found = session.rows("SELECT verdict FROM custody.verify(checkpoints => ARRAY[$1])", &[&note]);
    assert_eq!(found.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>(), ["valid"]);
    // A database can be dropped meanwhile, and the extension too.
    session.batch("SET custody.drop_log = on");
    session.batch("DROP EXTENSION pg_custody CASCADE");
    drop(session);
    let mut postgres = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    postgres.batch("DROP DATABASE one");
    assert_eq!(postgres.count("pg_database WHERE datname = 'one'"), 0);
}
