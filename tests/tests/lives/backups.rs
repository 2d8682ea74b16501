//! Base backups and point-in-time recovery, with transactions in doubt; and cold clones.

use custody_tests::tool::{Witness, custody, make_witness};

use super::*;

/// Where the WAL ends now, on disk, so that recovery can be told to stop here.
fn restore_point(s: &mut Session, name: &str) -> String {
    s.batch(&format!("SELECT pg_create_restore_point('{name}')"));
    format!("recovery_target_name = '{name}'")
}

/// Makes all WAL so far whole segments, to be recovered from.
fn switch(s: &mut Session) {
    s.batch("SELECT pg_switch_wal()");
}

#[test]
fn a_recovery_to_a_point_in_time_is_rolled_back_exactly_where_a_note_is_beyond_it() {
    let primary = clinic(&["fsync = off", "wal_keep_size = '1GB'"]);
    let mut s = superuser(&primary);
    s.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'before the backup')");
    let notes = vec![checkpoint(&mut s)];
    let backup = primary.base_backup(&[]).unwrap();
    let mut moments = Vec::new();
    let mut notes = notes;
    // After each, a patient more and a note more; the last target lies between a leaf and its note.
    s.batch("INSERT INTO clinic.patients VALUES ('a', 3, 'x')");
    moments.push((restore_point(&mut s, "one"), 4, notes.len()));
    notes.push(checkpoint(&mut s));
    s.batch("BEGIN; INSERT INTO clinic.patients VALUES ('b', 4, 'x')");
    let xid: String = s.one("SELECT pg_current_xact_id()::text");
    s.batch("COMMIT");
    moments.push((format!("recovery_target_xid = '{xid}'"), 5, notes.len()));
    s.batch("SELECT custody.checkpoint_begin()");
    s.batch("SELECT custody.checkpoint_leaf()");
    moments.push((restore_point(&mut s, "leaf"), 5, notes.len() + 1));
    s.batch("SELECT custody.checkpoint_sign()");
    notes.push(s.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1"));
    s.batch("SELECT pg_sleep(0.2)");
    let time: String = s.one("SELECT clock_timestamp()::text");
    s.batch("SELECT pg_sleep(0.2)");
    moments.push((format!("recovery_target_time = '{time}'"), 5, notes.len()));
    s.batch("INSERT INTO clinic.patients VALUES ('a', 5, 'x')");
    notes.push(checkpoint(&mut s));
    let kept = heads(&mut s);
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    switch(&mut s);
    for (target, patients, known) in moments {
        let recovered = backup.cold_copy().unwrap();
        recovered.recover(&primary, &target).unwrap();
        let mut r = superuser(&recovered);
        assert_eq!(r.count("clinic.patients"), patients, "{target}");
        r.assert_valid();
        for (number, note) in notes.iter().enumerate() {
            let expected: &[&str] = if number < known { &[] } else { &["rolled_back"] };
            assert_eq!(held_against(&mut r, std::slice::from_ref(note)), expected, "{target}, note {number}");
        }
        assert!(held_against_heads(&mut r, &kept).iter().all(|v| v == "truncated"), "{target}");
        assert!(!held_against_heads(&mut r, &kept).is_empty());
        let old = r.count("custody.entry");
        assert_alive(&mut r, &mut session(&recovered, "app"));
        assert_eq!(lives(&mut r), ["created", "promoted or recovered to another timeline, goes on from another"]);
        assert!(summary(&mut r).contains(&format!("inherited {old} of")), "{}", summary(&mut r));
        // What was not true before a new entry is not true after it either.
        assert_eq!(held_against(&mut r, &notes), ["rolled_back"]);
        // The key was in the backup, and vouches for the new one.
        assert_eq!(r.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    }
    s.assert_valid();
    assert_eq!(held_against(&mut s, &notes), Vec::<String>::new());
}

#[test]
fn transactions_in_doubt_are_listed_and_end_in_the_old_life_on_both_sides() {
    let primary = clinic(&["fsync = off", "wal_keep_size = '1GB'"]);
    let backup = primary.base_backup(&[]).unwrap();
    let mut s = superuser(&primary);
    for (gid, id) in [("will_commit", 10), ("will_not", 11), ("stays", 12)] {
        s.batch(&format!(
            "BEGIN; INSERT INTO clinic.patients VALUES ('a', {id}, '{gid}'); PREPARE TRANSACTION '{gid}'"
        ));
    }
    let target = restore_point(&mut s, "in_doubt");
    // Here, each is ended the other way, and others take the lanes that come free.
    s.batch("ROLLBACK PREPARED 'will_commit'");
    s.batch("COMMIT PREPARED 'will_not'");
    s.batch("COMMIT PREPARED 'stays'");
    let others: Vec<Session> = (0..4)
        .map(|n| {
            let mut o = superuser(&primary);
            o.batch(&format!("BEGIN; INSERT INTO clinic.patients VALUES ('a', {}, 'other')", 20 + n));
            o
        })
        .collect();
    others.into_iter().for_each(|mut o| o.batch("COMMIT"));
    let (kept, note) = (heads(&mut s), checkpoint(&mut s));
    switch(&mut s);
    let recovered = backup;
    recovered.recover(&primary, &target).unwrap();
    let mut r = superuser(&recovered);
    r.assert_valid();
    assert_eq!(r.count("pg_prepared_xacts"), 3);
    let old = r.count("custody.entry");
    r.batch("INSERT INTO clinic.patients VALUES ('a', 30, 'the new life')");
    assert_eq!(lives(&mut r)[1], "promoted or recovered to another timeline, goes on from another");
    // They are named, each with the lane that it holds, in the record of the life and in its first entry.
    let listed = "(SELECT string_agg(d ->> 'gid', ',' ORDER BY d ->> 'gid') FROM jsonb_array_elements(in_doubt) d) FROM custody.incarnation WHERE parent IS NOT NULL";
    assert_eq!(r.one::<String>(&format!("SELECT {listed}")), "stays,will_commit,will_not");
    assert!(r.one::<bool>(
        "SELECT count(DISTINCT d ->> 'lane') = 3 AND bool_and(p.transaction::text = d ->> 'xid')
         FROM custody.incarnation i CROSS JOIN jsonb_array_elements(in_doubt) d JOIN pg_prepared_xacts p ON p.gid = d ->> 'gid' WHERE parent IS NOT NULL"
    ));
    assert!(r.one::<bool>("SELECT l.new -> 'in_doubt' = i.in_doubt FROM custody.log l JOIN custody.incarnation i ON i.id = l.incarnation WHERE l.op = 'INCARNATION' AND i.parent IS NOT NULL"));
    let said = summary(&mut r);
    assert!(
        said.contains("3 transactions were in doubt when lives began: 0 committed, 3 still open, 0 without entries"),
        "{said}"
    );
    r.batch("COMMIT PREPARED 'will_commit'");
    r.batch("ROLLBACK PREPARED 'will_not'");
    let said = summary(&mut r);
    assert!(
        said.contains("3 transactions were in doubt when lives began: 1 committed, 1 still open, 1 without entries"),
        "{said}"
    );
    // Its entry is the old life's, as it was signed; nothing else of the old life has grown.
    assert_eq!(r.count("custody.entry e JOIN custody.instance i ON e.incarnation <> i.incarnation"), old + 1);
    r.assert_valid();
    // A restart changes nothing about what is still prepared.
    recovered.stop().unwrap();
    recovered.start().unwrap();
    let mut r = superuser(&recovered);
    let said = summary(&mut r);
    assert!(said.contains("1 committed, 1 still open, 1 without entries"), "{said}");
    assert_alive(&mut r, &mut session(&recovered, "app"));
    r.batch("COMMIT PREPARED 'stays'");
    r.assert_valid();
    // Both are whole by themselves. Held against the other, each says what is so: here is not what the other published.
    s.assert_valid();
    assert_eq!(held_against(&mut r, &[note]), ["rolled_back"]);
    let found = held_against_heads(&mut r, &kept);
    assert!(found.contains(&"rewritten".into()), "a lane went on here as it did not there: {found:?}");
    assert!(!held_against_heads(&mut s, &heads(&mut r)).is_empty());
}

#[test]
fn a_cold_clone_is_the_same_database_until_a_witness_says_otherwise() {
    let primary = clinic(&["fsync = off"]);
    let mut s = superuser(&primary);
    let log: String = s.one("SELECT custody.checkpoint_key()");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let key = make_witness(&at("w"), "witness.example/w");
    let witness = Witness::start(&at("w"), &[&log]);
    let anchor = |cluster: &Cluster| {
        let database = format!("host={} user=postgres dbname=postgres", cluster.socket().display());
        custody(&["anchor", "--database", &database, "--make", "--witness", &witness.url(), "--witness-key", &key])
    };
    assert_eq!(anchor(&primary).0, 0);
    drop(s);
    primary.stop().unwrap();
    let clone = primary.cold_copy().unwrap();
    let informed = primary.cold_copy().unwrap();
    for cluster in [&primary, &clone, &informed] {
        cluster.start().unwrap();
    }
    let (mut s, mut c) = (superuser(&primary), superuser(&clone));
    s.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'here')");
    c.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'there')");
    // Neither can know.
    assert_eq!((lives(&mut s), lives(&mut c)), (vec!["created".to_owned()], vec!["created".to_owned()]));
    s.assert_valid();
    c.assert_valid();
    // The witness does: who comes first goes on, and the other is refused, for good.
    let (status, note) = anchor(&primary);
    assert_eq!(status, 0, "{note}");
    let (status, said) = anchor(&clone);
    assert!(status != 0 && said.contains("THE LOG WAS REWRITTEN"), "{said}");
    c.batch("CALL custody.checkpoint()");
    assert_ne!(anchor(&clone).0, 0);
    assert_eq!(anchor(&primary).0, 0);
    assert_eq!(held_against(&mut c, std::slice::from_ref(&note)), ["forked"]);
    // Who knows that it is a clone says so before it writes: then it is another log, and no chain is forked.
    let mut i = superuser(&informed);
    let pin: String = i.one("SELECT fingerprint FROM custody.signing_key");
    let kept = heads(&mut i);
    i.batch("SELECT custody.new_incarnation('a clone, for the trial')");
    i.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'elsewhere')");
    assert_eq!(lives(&mut i), ["created", "a clone, for the trial, goes on from another"]);
    assert_eq!(held_against_heads(&mut i, &kept), Vec::<String>::new());
    assert!(held_against_heads(&mut s, &kept).is_empty());
    assert_alive(&mut i, &mut session(&informed, "app"));
    assert_eq!(i.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    assert_eq!(held_against(&mut i, &[note]), ["rolled_back"], "what came after the clone was made is not here");
    // Its checkpoints are another log's, which this witness was never told of.
    assert_ne!(anchor(&informed).0, 0);
}

#[test]
fn transactions_that_are_open_when_a_life_is_started_by_hand_end_in_the_old_one() {
    let db = custody_tests::Db::clinic();
    let (mut s, mut open) = (db.superuser(), db.superuser());
    open.batch("BEGIN; INSERT INTO clinic.patients VALUES ('a', 1, 'x')");
    let mut given_up = db.superuser();
    given_up.batch("BEGIN; INSERT INTO clinic.patients VALUES ('a', 2, 'x')");
    s.batch("SELECT custody.new_incarnation('a trial')");
    assert!(
        summary(&mut s)
            .contains("2 transactions were in doubt when lives began: 0 committed, 2 still open, 0 without entries")
    );
    open.batch("INSERT INTO clinic.patients VALUES ('b', 1, 'x'); COMMIT");
    given_up.batch("ROLLBACK");
    let said = summary(&mut s);
    assert!(said.contains("1 committed, 0 still open, 1 without entries"), "{said}");
    s.batch("INSERT INTO clinic.patients VALUES ('a', 3, 'x')");
    let own = "custody.entry JOIN custody.instance USING (incarnation) WHERE table_name = 'patients'";
    assert_eq!((s.count("custody.entry WHERE table_name = 'patients' AND op <> 'SHAPE'"), s.count(own)), (3, 1));
    s.assert_valid();
}
