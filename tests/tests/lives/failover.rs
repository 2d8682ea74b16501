//! Crashes and failovers: what was published is never contradicted by what commits wait for, and what commits do not wait for is said to be gone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;

use super::*;

/// What commits wait for.
const SYNCHRONOUS: &str = "synchronous_standby_names = 's1'";

fn reload(cluster: &Cluster, setting: &str) {
    cluster.set(&[setting]).unwrap();
    superuser(cluster).batch("SELECT pg_reload_conf()");
}

/// Waits until the standby counts.
fn wait_until(s: &mut Session, condition: &str) {
    let begun = Instant::now();
    while !s.one::<bool>(&format!("SELECT coalesce(({condition}), false)")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {condition}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const IN_STEP: &str = "SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication";

#[test]
fn a_failover_contradicts_no_published_note() {
    let rounds: usize = std::env::var("CUSTODY_FAILOVERS").map_or(3, |n| n.parse().unwrap());
    let mut primary = clinic(&["fsync = off"]);
    let mut published: Vec<String> = Vec::new();
    for round in 0..rounds {
        let standby = primary.standby("s1").unwrap();
        reload(&primary, SYNCHRONOUS);
        wait_until(&mut superuser(&primary), IN_STEP);
        let (seen, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // One makes checkpoints, all write, some asynchronously; another takes every note that can be read, as an anchor would.
            for n in 0..3 {
                let (primary, over) = (&primary, &over);
                scope.spawn(move || {
                    let mut s = superuser(primary);
                    let wait = ["on", "off", "local"][n];
                    s.batch(&format!("SET synchronous_commit = {wait}"));
                    for id in 0.. {
                        let id = 1_000_000 * (10 * round + n + 1) + id;
                        let sql = format!("INSERT INTO clinic.patients VALUES ('a', {id}, 'x')");
                        let sql = if n == 1 { "CALL custody.checkpoint()" } else { &sql };
                        if over.load(Ordering::Relaxed) || s.0.batch_execute(sql).is_err() {
                            return;
                        }
                    }
                });
            }
            scope.spawn(|| {
                let mut s = superuser(&primary);
                while let Ok(rows) =
                    s.0.query("SELECT note FROM custody.checkpoints ORDER BY at DESC, size DESC LIMIT 3", &[])
                {
                    seen.lock().unwrap().extend(rows.iter().map(|r| r.get::<_, String>(0)));
                }
            });
            std::thread::sleep(Duration::from_millis(300 + rand::rng().random_range(0..400)));
            primary.kill().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        published.append(&mut seen.into_inner().unwrap());
        published.sort();
        published.dedup();
        standby.promote().unwrap();
        let mut p = superuser(&standby);
        assert_eq!(held_against(&mut p, &published), Vec::<String>::new(), "round {round}, {} notes", published.len());
        p.assert_valid();
        // It goes on as the next primary, in a life of its own.
        reload(&standby, "synchronous_standby_names = ''");
        assert_alive(&mut p, &mut session(&standby, "app"));
        assert_eq!(lives(&mut p).len(), round + 2);
        assert_eq!(held_against(&mut p, &published), Vec::<String>::new(), "round {round}, after it went on");
        primary = standby;
    }
    assert!(published.len() >= 3 * rounds, "only {} notes were published", published.len());
}

#[test]
fn who_cancels_the_wait_for_a_standby_gets_no_note() {
    let primary = clinic(&["fsync = off"]);
    let standby = primary.standby("s1").unwrap();
    reload(&primary, SYNCHRONOUS);
    let mut s = superuser(&primary);
    wait_until(&mut s, IN_STEP);
    let mut published = vec![checkpoint(&mut s)];
    standby.stop().unwrap();
    let sizes = "SELECT count(*) FROM custody.checkpoint_note";
    for call in ["CALL custody.checkpoint()", "SELECT custody.checkpoint_sign()"] {
        for wait in ["off", "local", "on"] {
            // Ordinary writes of such a session do not wait for the standby; its checkpoints do, and cancelling does not help.
            let over = AtomicBool::new(false);
            let (outcome, took) = std::thread::scope(|scope| {
                let (primary, over) = (&primary, &over);
                let caller = scope.spawn(move || {
                    let mut c = superuser(primary);
                    c.batch(&format!("SET synchronous_commit = {wait}; SET application_name = 'caller'"));
                    if wait != "on" {
                        c.batch("INSERT INTO clinic.patients SELECT 'a', max(id) + 1, 'x' FROM clinic.patients");
                    }
                    let begun = Instant::now();
                    let outcome = c.0.batch_execute(call).map_err(|e| custody_tests::words(&e));
                    over.store(true, Ordering::Relaxed);
                    (outcome, begun.elapsed())
                });
                std::thread::sleep(Duration::from_millis(400));
                while !over.load(Ordering::Relaxed) {
                    s.batch("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'caller' AND wait_event = 'SyncRep'");
                    std::thread::sleep(Duration::from_millis(20));
                }
                caller.join().unwrap()
            });
            assert!(took > Duration::from_millis(300), "{call}, {wait}: it did not wait");
            assert!(
                outcome.as_ref().is_err_and(|e| e.contains("have not confirmed the leaf")),
                "{call}, {wait}: {outcome:?}"
            );
            assert_eq!(s.one::<i64>(sizes), 1, "{call}, {wait}");
        }
    }
    // With the standby back, it goes on where it stood.
    standby.start().unwrap();
    wait_until(&mut s, IN_STEP);
    published.push(checkpoint(&mut s));
    assert_eq!(held_against(&mut s, &published), Vec::<String>::new());
    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(held_against(&mut superuser(&standby), &published), Vec::<String>::new());
}

#[test]
fn what_an_asynchronous_standby_never_had_is_rolled_back() {
    let primary = clinic(&["fsync = off"]);
    let standby = primary.standby("s1").unwrap();
    let mut s = superuser(&primary);
    let had = checkpoint(&mut s);
    wait_until(&mut s, "SELECT bool_and(replay_lsn = pg_current_wal_flush_lsn()) FROM pg_stat_replication");
    standby.stop().unwrap();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 7, 'lost')");
    let lost = checkpoint(&mut s);
    primary.kill().unwrap();
    standby.start().unwrap();
    standby.promote().unwrap();
    let mut p = superuser(&standby);
    p.assert_valid();
    assert_eq!(held_against(&mut p, std::slice::from_ref(&had)), Vec::<String>::new());
    assert_eq!(held_against(&mut p, std::slice::from_ref(&lost)), ["rolled_back"]);
    assert_alive(&mut p, &mut session(&standby, "app"));
    assert_eq!(held_against(&mut p, &[had, lost.clone()]), ["rolled_back"]);
    // The old primary comes back as it was: whole, and not the one that went on.
    primary.start().unwrap();
    let mut s = superuser(&primary);
    s.assert_valid();
    assert_eq!(held_against(&mut s, &[lost]), Vec::<String>::new());
    let theirs = checkpoint(&mut p);
    assert_eq!(held_against(&mut s, &[theirs]), ["key_not_valid"], "a life that is not known here");
}

#[test]
fn a_crash_loses_what_did_not_wait_and_contradicts_nothing() {
    let cluster = clinic(&["synchronous_commit = off", "wal_writer_delay = 10s"]);
    let (mut notes, mut kept, mut lost) = (Vec::new(), Vec::new(), 0);
    for round in 1..=6 {
        let mut s = superuser(&cluster);
        let insert =
            |s: &mut Session, id: i64| s.batch(&format!("INSERT INTO clinic.patients VALUES ('a', {id}, 'x')"));
        (0..10).for_each(|id| insert(&mut s, 100 * round + id));
        notes.push(checkpoint(&mut s));
        // One thing more, which is given out by turns; else it may be lost.
        insert(&mut s, 100 * round + 50);
        let given = round % 2 == 0;
        if given {
            kept.push(heads(&mut s));
        }
        cluster.kill().unwrap();
        cluster.start().unwrap();
        let mut s = superuser(&cluster);
        assert_eq!(held_against(&mut s, &notes), Vec::<String>::new());
        for kept in &kept {
            assert_eq!(held_against_heads(&mut s, kept), Vec::<String>::new(), "what was given out is there, too");
        }
        s.assert_valid();
        assert_eq!(s.count(&format!("clinic.patients WHERE id BETWEEN {} AND {}", 100 * round, 100 * round + 9)), 10);
        let there = s.count(&format!("clinic.patients WHERE id = {}", 100 * round + 50));
        assert!(there == 1 || !given, "round {round}");
        lost += 1 - there;
        let entries = s.count("custody.log WHERE tenant = 'a' AND op = 'INSERT'");
        assert_eq!(s.count("clinic.patients WHERE tenant_id = 'a'"), entries, "a row and its entry go together");
    }
    assert!(lost > 0, "nothing was lost, so nothing was tried");
    assert_eq!(lives(&mut superuser(&cluster)), ["created"]);
}

#[test]
fn a_standby_without_the_key_goes_on_with_one_that_nobody_vouches_for() {
    let primary = Cluster::temporary(&installation(), &["fsync = off"]).unwrap();
    let standbys = [primary.standby("without").unwrap(), primary.standby("with").unwrap()];
    // The key is made after the standbys were.
    let mut s = superuser(&primary);
    s.batch(CLINIC);
    let (note, pin) = (checkpoint(&mut s), s.one::<String>("SELECT fingerprint FROM custody.signing_key"));
    wait_until(
        &mut s,
        "SELECT count(*) = 2 AND bool_and(replay_lsn = pg_current_wal_flush_lsn()) FROM pg_stat_replication",
    );
    let key = |c: &Cluster| c.data().join("pg_custody").display().to_string();
    custody_harness::must(std::process::Command::new("cp").args(["-a", &key(&primary), &key(&standbys[1])])).unwrap();
    primary.stop().unwrap();
    for (standby, vouched) in standbys.iter().zip([false, true]) {
        standby.promote().unwrap();
        let mut p = superuser(standby);
        assert_alive(&mut p, &mut session(standby, "app"));
        assert_eq!(held_against(&mut p, std::slice::from_ref(&note)), Vec::<String>::new());
        assert_eq!(p.count("custody.signing_key WHERE endorsement IS NOT NULL"), i64::from(vouched));
        let (verdict, found) = p.verify(&format!("pin => '{pin}'"));
        assert_eq!(verdict, if vouched { "valid" } else { "invalid" });
        assert!(found.iter().all(|f| f.starts_with("key_not_valid") || f == "key_recovered"), "{found:?}");
        assert_eq!(found.iter().any(|f| f == "key_recovered"), !vouched, "{found:?}");
    }
}
