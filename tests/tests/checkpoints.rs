//! Checkpoints: made in two durable steps, provable, and held against the log whatever happens to it.

use base64ct::{Base64, Encoding};
use custody_core::Hash;
use custody_core::key::unhex;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{ChainHead, Leaf};
use custody_core::tlog::merkle::verify_consistency;
use custody_core::tlog::note::{self, NoteKey};
use custody_core::tlog::proof::Proof;
use custody_tests::{Db, Session};
use serde_json::Value;

fn key(session: &mut Session) -> NoteKey {
    NoteKey::parse(&session.one::<String>("SELECT custody.checkpoint_key()")).unwrap()
}

fn last_note(session: &mut Session) -> String {
    session.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1")
}

fn checkpoint(note: &str, key: &NoteKey) -> Checkpoint {
    Checkpoint::parse(&note::open(note.as_bytes(), std::slice::from_ref(key)).unwrap().text).unwrap()
}

/// What verification finds, as verdict and counter; with notes from outside.
fn findings(session: &mut Session, notes: &[&str]) -> Vec<String> {
    let rows =
        session.rows("SELECT verdict, tenant, seq, detail FROM custody.verify(checkpoints => $1) OFFSET 1", &[&notes]);
    rows.iter()
        .map(|r| {
            format!(
                "{} {}/{}",
                r.get::<_, String>(0),
                r.get::<_, Option<String>>(1).unwrap_or_else(|| "checkpoint".into()),
                r.get::<_, i64>(2)
            )
        })
        .collect()
}

fn hash(v: &Value) -> Hash {
    let mut hash = [0; 32];
    assert!(unhex(v.as_str().unwrap(), &mut hash));
    hash
}

#[test]
fn checkpoints_follow_one_another_and_prove_it() {
    let db = Db::clinic();
    let (mut session, mut app) = (db.superuser(), db.app());
    let mut seen: Vec<Checkpoint> = Vec::new();
    for round in 0..5 {
        // The third interval is empty, and has its checkpoint all the same.
        if round != 2 {
            app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({round}, 'x')"));
        }
        session.batch("CALL custody.checkpoint()");
        let key = key(&mut session);
        let now = checkpoint(&last_note(&mut session), &key);
        assert_eq!(now.size, round + 1);
        for old in &seen {
            let proof: Vec<String> =
                session.one(&format!("SELECT custody.consistency_proof({}, {})", old.size, now.size));
            let proof: Vec<Hash> = proof.iter().map(|h| Base64::decode_vec(h).unwrap().try_into().unwrap()).collect();
            assert!(verify_consistency(old.size, &old.root, now.size, &now.root, &proof));
        }
        seen.push(now);
    }
    assert_eq!(session.count("custody.checkpoint_leaf"), 5);
    assert_eq!(session.count("custody.checkpoint_head WHERE tenant = 'a'"), 4, "only where it moved");
    assert!(session.one::<bool>("SELECT custody.consistency_proof(0, 3) IS NULL AND custody.consistency_proof(2, 9) IS NULL AND custody.inclusion_proof(9) IS NULL"));
    let pinned = "SELECT detail FROM custody.verify((SELECT fingerprint FROM custody.signing_key)) LIMIT 1";
    let summary: String = session.one(pinned);
    assert!(summary.contains("checkpointed, up to the last of 5"), "{summary}");
    let summary: String = session.one("SELECT detail FROM custody.verify() LIMIT 1");
    assert!(summary.contains("assurance: chained"), "nobody vouches for the key that signed them: {summary}");
}

#[test]
fn a_tenants_proof_is_complete_and_says_nothing_of_others() {
    let db = Db::clinic();
    let (mut session, mut app) = (db.superuser(), db.app());
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Ada')");
    app.as_tenant("b", "INSERT INTO clinic.patients (id, name) VALUES (1, 'Bohumila')");
    session.batch("CALL custody.checkpoint()");
    let key = key(&mut session);
    let proof: Value = session.one("SELECT custody.tenant_proof('a')");
    let leaf = &proof["leaf"];
    let leaf = Leaf {
        counter: leaf["counter"].as_u64().unwrap(),
        at: leaf["at"].as_i64().unwrap(),
        incarnation: leaf["incarnation"].as_str().unwrap().parse().unwrap(),
        lsn: leaf["lsn"].as_u64().unwrap(),
        keys: hash(&leaf["keys"]),
        configuration: hash(&leaf["configuration"]),
        tenants: leaf["tenants"].as_u64().unwrap(),
        map: hash(&leaf["map"]),
    };
    let file = Proof::parse(proof["tlog_proof"].as_str().unwrap().as_bytes()).unwrap();
    file.verify(&leaf.hash(), key.name(), std::slice::from_ref(&key)).unwrap();
    let heads: Vec<ChainHead> = proof["heads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| ChainHead {
            incarnation: h["incarnation"].as_str().unwrap().parse().unwrap(),
            lane: h["lane"].as_i64().unwrap(),
            seq: h["seq"].as_i64().unwrap(),
            hash: hash(&h["hash"]),
        })
        .collect();
    let path: Vec<Hash> = proof["map_path"].as_array().unwrap().iter().map(hash).collect();
    let index = proof["map_index"].as_u64().unwrap();
    assert!(leaf.includes("a", &heads, index, &path));
    assert!(!leaf.includes("a", &heads[1..], index, &path));
    assert!(!proof.to_string().contains("Bohumila") && !proof.to_string().contains("\"b\""));
    assert!(session.one::<bool>("SELECT custody.tenant_proof('nobody') IS NULL"));
}

#[test]
fn a_note_is_never_contradicted() {
    let db = Db::clinic();
    let mut session = db.superuser();
    // In pieces, and rolled back.
    session.batch("BEGIN; SELECT custody.checkpoint_leaf()");
    assert_eq!(session.fails("SELECT custody.checkpoint_sign()"), "UC051", "the leaf may still be rolled back");
    session.batch("ROLLBACK");
    assert_eq!(session.fails("SELECT custody.checkpoint_sign()"), "UC051", "there is no leaf");
    assert_eq!(session.count("custody.checkpoint_leaf"), 0);
    session.batch("BEGIN; UPDATE clinic.patients SET name = name; SELECT custody.create_tenant('c', 'C')");
    assert_eq!(session.fails("SELECT custody.checkpoint_leaf()"), "UC051", "a lane is held");
    session.batch("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(session.fails("SELECT custody.checkpoint_leaf()"), "UC051", "an old snapshot");
    session.batch("ROLLBACK; BEGIN");
    assert_eq!(session.fails("CALL custody.checkpoint()"), "2D000", "within a transaction block");
    for sql in [
        "ROLLBACK",
        "SET default_transaction_isolation = 'serializable'",
        "SET synchronous_commit = off",
        "CALL custody.checkpoint()",
    ] {
        session.batch(sql);
    }
    assert_eq!(session.one::<String>("SHOW synchronous_commit"), "off", "the session's own choice is back");
    let note = last_note(&mut session);
    // A leaf whose note was never made: the next one signs for both.
    session.batch("RESET default_transaction_isolation");
    session.batch("SELECT custody.checkpoint_leaf()");
    session.batch("CALL custody.checkpoint()");
    let key = key(&mut session);
    assert_eq!(checkpoint(&last_note(&mut session), &key).size, 3);
    assert_eq!(findings(&mut session, &[&note]), Vec::<String>::new());
}

#[test]
fn a_crash_after_the_note_keeps_the_leaf() {
    let cluster = custody_harness::Cluster::temporary(
        &custody_tests::installation(),
        &["synchronous_commit = off", "wal_writer_delay = 10s"],
    )
    .unwrap();
    let mut session = Session(cluster.connect("postgres", custody_harness::SUPERUSER).unwrap());
    session.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t')");
    for round in 1..4 {
        session.batch(&format!("INSERT INTO t VALUES ({round}); CHECKPOINT"));
        session.batch(&format!("INSERT INTO t VALUES ({round}0)"));
        session.batch("CALL custody.checkpoint()");
        let note = last_note(&mut session);
        drop(session);
        cluster.kill().unwrap();
        cluster.start().unwrap();
        session = Session(cluster.connect("postgres", custody_harness::SUPERUSER).unwrap());
        assert_eq!(session.count("custody.checkpoint_leaf"), round);
        assert_eq!(findings(&mut session, &[&note]), Vec::<String>::new(), "what was published is there after a crash");
    }
}

#[test]
fn what_was_done_to_the_log_or_to_its_checkpoints_is_named() {
    let attacks: [(&str, &str, &[&str]); 9] = [
        ("a chain cut at its end", "DELETE FROM custody.entry e WHERE tenant = 'a' AND seq = 2", &["truncated a/2"]),
        ("a tenant's whole log gone", "DELETE FROM custody.entry e WHERE tenant = 'a'", &["truncated a/1"]),
        (
            "a leaf edited",
            "UPDATE custody.checkpoint_leaf SET at = at + interval '1 s' WHERE counter = 1",
            &["edited checkpoint/1", "edited checkpoint/1"],
        ),
        (
            "a leaf deleted",
            "DELETE FROM custody.checkpoint_leaf WHERE counter = 0",
            &["deleted checkpoint/0", "edited checkpoint/0", "truncated checkpoint/1"],
        ),
        (
            "a node edited",
            "UPDATE custody.checkpoint_node SET hash = sha256('x') WHERE level = 1",
            &["edited checkpoint/0"],
        ),
        ("a node deleted", "DELETE FROM custody.checkpoint_node WHERE level = 1", &["edited checkpoint/0"]),
        (
            "heads edited",
            "UPDATE custody.checkpoint_head SET heads = '[]' WHERE tenant = 'a' AND counter = 1",
            &["edited checkpoint/1"],
        ),
        ("heads deleted", "DELETE FROM custody.checkpoint_head WHERE tenant = 'a'", &["edited checkpoint/1"]),
        (
            "a note forged",
            "UPDATE custody.checkpoint_note SET note = replace(note, E'\\n2\\n', E'\\n3\\n') WHERE size = 2",
            &["bad_signature checkpoint/1"],
        ),
    ];
    let mut problems = Vec::new();
    for (what, sql, expected) in attacks {
        let db = Db::clinic();
        let (mut session, mut app) = (db.superuser(), db.app());
        for id in 1..=2 {
            app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x')"));
            session.batch("CALL custody.checkpoint()");
        }
        drop(app);
        assert_eq!(findings(&mut session, &[]), Vec::<String>::new(), "{what}: before");
        session.batch("SET session_replication_role = replica; ALTER TABLE custody.entry DISABLE TRIGGER ALL");
        session.batch(sql);
        session.batch("ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\"; RESET session_replication_role");
        let found = findings(&mut session, &[]);
        if found != expected {
            problems.push(format!("{what}: {found:?}, not {expected:?}"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_note_from_outside_knows_better() {
    let db = Db::clinic();
    let (mut session, mut app) = (db.superuser(), db.app());
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1, 'x')");
    session.batch("CALL custody.checkpoint()");
    let first = last_note(&mut session);
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (2, 'x')");
    session.batch("CALL custody.checkpoint()");
    let second = last_note(&mut session);
    assert_eq!(findings(&mut session, &[&first, &second]), Vec::<String>::new());
    let summary: String = session
        .rows("SELECT detail FROM custody.verify(checkpoints => $1) LIMIT 1", &[&vec![&first, &second]])[0]
        .get(0);
    assert!(summary.contains("anchored, by 2 of 2"), "{summary}");

    // Back to what it was at the first: log, tree and all, as a restored backup is.
    let back = "DELETE FROM custody.entry WHERE tenant = 'a' AND seq > 1; DELETE FROM custody.checkpoint_leaf WHERE counter > 0;
                DELETE FROM custody.checkpoint_head WHERE counter > 0; DELETE FROM custody.checkpoint_note WHERE size > 1;
                DELETE FROM custody.checkpoint_node WHERE index > 0 OR level > 0";
    let guard = "\"!custody_append_only\"";
    session.batch(&format!("ALTER TABLE custody.entry DISABLE TRIGGER {guard}; {back}; ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER {guard}"));
    assert_eq!(
        findings(&mut session, &[&first]),
        Vec::<String>::new(),
        "by itself it looks whole, but for the guard's own entries"
    );
    assert_eq!(findings(&mut session, &[&second]), ["rolled_back checkpoint/1"]);
    // It goes on from there, by its own key: another branch.
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (3, 'another')");
    session.batch("CALL custody.checkpoint()");
    assert_eq!(findings(&mut session, &[&first]), Vec::<String>::new());
    let found = findings(&mut session, &[&second]);
    assert!(found.contains(&"forked checkpoint/1".into()), "{found:?}");

    let foreign = Db::clinic();
    let mut other = foreign.superuser();
    other.batch("CALL custody.checkpoint()");
    let note = last_note(&mut other);
    assert_eq!(findings(&mut session, &[&note]), ["key_not_valid checkpoint/0"], "another database's");
    assert_eq!(session.fails("SELECT * FROM custody.verify(checkpoints => ARRAY[NULL])"), "UC013");
    for bad in ["", "x", "a\n1\nAAAA\n\n— a AAAAAAAA\n"] {
        let error = session.0.query("SELECT * FROM custody.verify(checkpoints => ARRAY[$1])", &[&bad]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "UC013", "{bad:?}");
    }
}

#[test]
fn who_may_do_what() {
    let db = Db::clinic();
    let (auditor, admin) = (format!("{}_auditor", db.name), format!("{}_admin", db.name));
    db.superuser().batch(&format!(
        "CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor; CREATE ROLE {admin} LOGIN IN ROLE custody_admin"
    ));
    let (mut auditor, mut admin, mut app) = (db.session(&auditor), db.session(&admin), db.app());
    admin.batch("CALL custody.checkpoint()");
    assert_eq!(auditor.fails("CALL custody.checkpoint()"), "42501");
    for sql in [
        "CALL custody.checkpoint()",
        "SELECT custody.checkpoint_leaf()",
        "SELECT * FROM custody.checkpoints",
        "SELECT * FROM custody.checkpoint_head",
        "SELECT custody.tenant_proof('a')",
        "SELECT custody.checkpoint_key()",
    ] {
        assert_eq!(app.fails(sql), "42501", "{sql}");
    }
    assert_eq!(
        admin.fails("INSERT INTO custody.checkpoint_note SELECT incarnation, 9, note FROM custody.checkpoint_note"),
        "42501"
    );
    let key = key(&mut auditor);
    let proof: String = auditor.one("SELECT custody.inclusion_proof(0)");
    assert_eq!(checkpoint(&last_note(&mut auditor), &key).size, 1);
    assert!(Proof::parse(proof.as_bytes()).is_ok());
    assert_eq!(auditor.verify("").0, "valid");
}

#[test]
fn one_at_a_time() {
    let db = Db::clinic();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = db.superuser();
                (0..10).for_each(|_| session.batch("CALL custody.checkpoint()"));
            });
        }
        scope.spawn(|| {
            let mut app = db.app();
            (0..100).for_each(|id| {
                app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x')"))
            });
        });
        scope.spawn(|| {
            // Verification beside them sees one moment of both, log and checkpoints.
            let mut session = db.superuser();
            (0..20).for_each(|_| assert_eq!(findings(&mut session, &[]), Vec::<String>::new()));
        });
    });
    let mut session = db.superuser();
    assert_eq!(session.count("custody.checkpoint_leaf"), 40);
    assert_eq!(findings(&mut session, &[]), Vec::<String>::new());
}
