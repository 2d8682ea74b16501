//! Copies within the cluster, another cluster by pg_upgrade, and a cluster that collects logs.

use custody_harness::must;

use super::*;

#[test]
fn a_template_copy_is_another_life_from_its_first_entry_on() {
    let cluster = clinic(&["fsync = off"]);
    let mut s = superuser(&cluster);
    let (entries, note, kept) = (s.count("custody.entry"), checkpoint(&mut s), heads(&mut s));
    drop(s);
    let mut other = Session(cluster.connect("template1", SUPERUSER).unwrap());
    // Sessions that have just ended may still be seen for a moment.
    let copy = |other: &mut Session, sql: &str| {
        let done = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            other.0.batch_execute(sql).is_ok()
        });
        assert!(done, "{sql}");
    };
    copy(&mut other, "CREATE DATABASE copy TEMPLATE postgres");
    // The other way to copy, with its blocks in the WAL instead of its files copied.
    copy(&mut other, "CREATE DATABASE files TEMPLATE postgres STRATEGY file_copy");
    // A copy of the copy before that has written anything.
    copy(&mut other, "CREATE DATABASE grandchild TEMPLATE copy");
    for name in ["copy", "files", "grandchild"] {
        other.batch(&format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"));
        let session = |user: &str| Session(cluster.connect(name, user).unwrap());
        let mut c = session(SUPERUSER);
        c.assert_valid();
        assert_eq!(lives(&mut c), ["created"], "{name}: nothing was written here yet");
        // To read is not to live.
        session("auditor").assert_valid();
        assert_eq!(c.count("custody.incarnation"), 1);
        assert_alive(&mut c, &mut session("app"));
        assert_eq!(lives(&mut c), ["created", "copied within the cluster, goes on from another"]);
        assert!(summary(&mut c).contains(&format!("inherited {entries} of")), "{name}: {}", summary(&mut c));
        assert_eq!(held_against(&mut c, std::slice::from_ref(&note)), Vec::<String>::new());
        assert_eq!(held_against_heads(&mut c, &kept), Vec::<String>::new());
    }
    // The original is who it was, and a renamed database too.
    copy(&mut other, "ALTER DATABASE postgres RENAME TO renamed");
    let mut s = Session(cluster.connect("renamed", SUPERUSER).unwrap());
    s.batch("INSERT INTO clinic.patients VALUES ('a', 9, 'x')");
    assert_eq!(lives(&mut s), ["created"]);
    assert_eq!(held_against(&mut s, &[note]), Vec::<String>::new());
}

#[test]
fn an_upgraded_cluster_goes_on_in_a_life_of_its_own() {
    for mode in [&[][..], &["--link"]] {
        let old = clinic(&["fsync = off"]);
        let mut s = superuser(&old);
        s.batch("SELECT custody.guard('reject'); SELECT custody.run_verification()");
        s.batch("BEGIN; INSERT INTO clinic.patients VALUES ('a', 50, 'prepared'); PREPARE TRANSACTION 'p'");
        let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
        let (coverage_before, note) = (coverage(&mut s), checkpoint(&mut s));
        drop(s);
        let upgrade = |new: &Cluster| {
            let bin = old.installation().bin().display().to_string();
            let (from, to) = (old.data().display().to_string(), new.data().display().to_string());
            let socket = new.socket().display().to_string();
            must(
                old.installation()
                    .program("pg_upgrade")
                    .current_dir(new.socket())
                    .args(["--old-bindir", &bin, "--new-bindir", &bin, "--old-datadir", &from, "--new-datadir", &to])
                    .args(["--username", SUPERUSER, "--socketdir", &socket])
                    .args(mode),
            )
        };
        old.stop().unwrap();
        // pg_upgrade itself refuses what is in doubt.
        let new = Cluster::temporary(old.installation(), &["fsync = off"]).unwrap();
        new.stop().unwrap();
        let refused = upgrade(&new).unwrap_err().to_string();
        assert!(refused.contains("prepared transactions"), "{refused}");
        old.start().unwrap();
        let mut s = superuser(&old);
        s.batch("COMMIT PREPARED 'p'");
        let (entries, kept) = (s.count("custody.entry"), heads(&mut s));
        drop(s);
        old.stop().unwrap();
        upgrade(&new).unwrap();
        new.start().unwrap();
        let mut n = superuser(&new);
        n.assert_valid();
        assert_eq!(n.count("custody.entry"), entries, "pg_upgrade's own DDL is no change of anybody's");
        assert_eq!(coverage(&mut n), coverage_before);
        assert_eq!(n.one::<String>("SELECT custody.guard_mode()"), "reject");
        assert_eq!(held_against(&mut n, std::slice::from_ref(&note)), Vec::<String>::new());
        assert_eq!(held_against_heads(&mut n, &kept), Vec::<String>::new());
        assert_alive(&mut n, &mut session(&new, "app"));
        assert_eq!(lives(&mut n), ["created", "restored into another cluster, goes on from another"]);
        assert!(summary(&mut n).contains(&format!("inherited {entries} of")));
        assert_eq!(n.fails("ALTER TABLE clinic.patients DISABLE ROW LEVEL SECURITY"), "UC062");
        // The key stayed behind in the old data directory, so nobody vouches for the new one.
        let (_, found) = n.verify(&format!("pin => '{pin}'"));
        assert!(
            !found.is_empty() && found.iter().all(|f| f.starts_with("key_not_valid") || f == "key_recovered"),
            "{found:?}"
        );
    }
}

#[test]
fn logs_are_collected_by_logical_replication() {
    let source = clinic(&["fsync = off", "wal_level = logical"]);
    let collector = clinic(&["fsync = off"]);
    let mut s = superuser(&source);
    let mut c = superuser(&collector);
    s.batch("CREATE PUBLICATION log FOR TABLE custody.entry, custody.incarnation, custody.signing_key, custody.checkpoint_leaf, custody.checkpoint_head, custody.checkpoint_node, custody.checkpoint_note WITH (publish = 'insert')");
    c.batch(&format!(
        "CREATE SUBSCRIPTION log CONNECTION 'host={} port=5432 dbname=postgres user={SUPERUSER}' PUBLICATION log",
        source.socket().display()
    ));
    let wait = |c: &mut Session, condition: &str| {
        let begun = std::time::Instant::now();
        while !c.one::<bool>(&format!("SELECT coalesce(({condition}), false)")) {
            assert!(begun.elapsed().as_secs() < 60, "waited in vain for {condition}: {}", collector.log_tail());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait(&mut c, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
    for n in 0..20 {
        s.batch(&format!("BEGIN; INSERT INTO clinic.patients VALUES ('a', {n} + 100, 'x'); SAVEPOINT s; DELETE FROM clinic.patients WHERE id = 100; ROLLBACK TO s; UPDATE clinic.patients SET name = 'y' WHERE id = {n} + 100; COMMIT"));
    }
    let note = checkpoint(&mut s);
    let (entries, kept) = (s.count("custody.entry"), heads(&mut s));
    let life: String = s.one("SELECT incarnation::text FROM custody.instance");
    let collected = format!("FROM custody.entry WHERE incarnation = '{life}'");
    wait(
        &mut c,
        &format!(
            "SELECT (SELECT count(*) {collected}) = {entries} AND EXISTS (SELECT FROM custody.checkpoint_note WHERE incarnation = '{life}')"
        ),
    );
    // All of it is another's, and complete.
    c.assert_valid();
    assert!(summary(&mut c).contains(&format!("inherited {entries} of")), "{}", summary(&mut c));
    assert_eq!(held_against(&mut c, std::slice::from_ref(&note)), Vec::<String>::new());
    assert_eq!(held_against_heads(&mut c, &kept), Vec::<String>::new());
    assert_alive(&mut c, &mut session(&collector, "app"));
    // What the source no longer has, the collector does.
    s.batch("ALTER TABLE custody.entry DISABLE TRIGGER USER; DELETE FROM custody.entry WHERE tenant = 'a' AND seq > 3; ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\"");
    assert!(!held_against_heads(&mut s, &heads(&mut c)).is_empty());
    assert_eq!(held_against_heads(&mut c, &kept), Vec::<String>::new());
    // Nothing can be forged into the collector's own chains on this way: the apply worker is refused.
    let own: String = c.one("SELECT incarnation::text FROM custody.instance");
    let before = c.count(&format!("custody.entry WHERE incarnation = '{own}'"));
    s.batch(&format!("ALTER TABLE custody.entry DISABLE TRIGGER USER; INSERT INTO custody.entry SELECT (jsonb_populate_record(e, jsonb_build_object('incarnation', '{own}', 'seq', 1000))).* FROM custody.entry e WHERE tenant = 'a' LIMIT 1"));
    let begun = std::time::Instant::now();
    while !std::fs::read_to_string(collector.socket().join("log")).unwrap().contains("the log is append-only") {
        assert!(begun.elapsed().as_secs() < 60, "it was not refused: {}", collector.log_tail());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    c.batch("ALTER SUBSCRIPTION log DISABLE; ALTER SUBSCRIPTION log SET (slot_name = NONE); DROP SUBSCRIPTION log");
    assert_eq!(c.count(&format!("custody.entry WHERE incarnation = '{own}'")), before);
    c.assert_valid();
}
