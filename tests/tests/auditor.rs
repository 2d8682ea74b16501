//! The tool `custody` beside a database: what an auditor, and another organisation, can hold against it.

use std::path::Path;

use custody_tests::tool::{Dir, Witness, custody, make_witness, url};
use custody_tests::{Db, Session};
use serde_json::Value;

fn last_note(session: &mut Session) -> String {
    session.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1")
}

#[test]
fn an_auditor_with_three_files_and_a_fingerprint() {
    let db = Db::clinic();
    let (mut session, mut app) = (db.superuser(), db.app());
    for id in 1..=3 {
        app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x')"));
        app.as_tenant("b", &format!("INSERT INTO clinic.patients (id, name) VALUES ({id}, 'x')"));
    }
    session.batch("CALL custody.checkpoint()");
    let dir = std::env::temp_dir().join(format!("custody-auditor-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let mut export = |tenant: &str| -> Vec<String> {
        session.rows("SELECT custody.export_log($1)", &[&tenant]).iter().map(|r| r.get::<_, String>(0) + "\n").collect()
    };
    let (of_a, of_b) = (export("a"), export("b"));
    let fingerprint: String = session.one("SELECT fingerprint FROM custody.signing_key");
    let proof = file("a.proof", &session.one::<Value>("SELECT custody.tenant_proof('a')").to_string());
    let note = file("note", &last_note(&mut session));
    let log = file("a.jsonl", &of_a.concat());
    let verify = |log: &str, proof: &str, note: &str| {
        custody(&["verify", log, "--pin", &fingerprint, "--proof", proof, "--checkpoint", note])
    };
    let (status, text) = verify(&log, &proof, &note);
    assert!(status == 0 && text.contains("proved: all chains of tenant \"a\", as of checkpoint 0"), "{text}");

    // Cut at its end, at the boundary of a run: whole by itself, and not what the checkpoint says.
    let cut = file("cut.jsonl", &of_a[..of_a.len() - 1].concat());
    assert_eq!(custody(&["verify", &cut, "--pin", &fingerprint]).0, 0);
    let (status, text) = verify(&cut, &proof, &note);
    assert!(status == 1 && text.contains("truncated: tenant \"a\""), "{text}");
    // Another tenant's log in its place, none at all, and a proof for another.
    let (status, text) = verify(&file("b.jsonl", &of_b.concat()), &proof, &note);
    assert!(status == 1 && text.contains("truncated: tenant \"a\""), "{text}");
    let whose = std::fs::read_to_string(&proof).unwrap().replace("\"tenant\":\"a\"", "\"tenant\":\"b\"");
    let (status, text) = verify(&log, &file("forged", &whose), &note);
    assert!(status == 1 && text.contains("these are not the heads"), "{text}");
    // A later checkpoint that the proof is not of.
    session.batch("CALL custody.checkpoint()");
    let later = file("later", &last_note(&mut session));
    let (status, text) = verify(&log, &proof, &later);
    assert!(status == 1 && text.contains("none of those that were given"), "{text}");
    // A note that another key signed.
    let other = Db::clinic();
    let mut other = other.superuser();
    other.batch("CALL custody.checkpoint()");
    assert_eq!(verify(&log, &proof, &file("foreign", &last_note(&mut other))).0, 1);
    assert_eq!(verify(&log, &log, &note).0, 2, "an export is no proof");

    // What was exported later goes on from what was exported before.
    app.as_tenant("a", "UPDATE clinic.patients SET name = 'y'");
    let more: Vec<String> =
        session.rows("SELECT custody.export_log('a')", &[]).iter().map(|r| r.get::<_, String>(0) + "\n").collect();
    let more = file("more.jsonl", &more.concat());
    assert_eq!(custody(&["diff-log", &log, &more]).0, 0);
    assert_eq!(custody(&["diff-log", &more, &log]).0, 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn two_organisations_witness_each_other() {
    let dir = Dir::new("each-other");
    let (east, west) = (Db::clinic(), Db::clinic());
    let keys = [make_witness(&dir.at("e"), "east.example/w"), make_witness(&dir.at("w"), "west.example/w")];
    let logs: Vec<String> = [&east, &west].map(|db| db.superuser().one("SELECT custody.checkpoint_key()")).into();
    // The east's witness watches the west's log, and the other way round.
    let witnesses = [Witness::start(&dir.at("e"), &[&logs[1]]), Witness::start(&dir.at("w"), &[&logs[0]])];
    for (db, by) in [(&east, 1), (&west, 0)] {
        let mut app = db.app();
        for round in 1..=4 {
            app.as_tenant("a", &format!("INSERT INTO clinic.patients (id, name) VALUES ({round}, 'x')"));
            let kept = dir.at(&format!("kept-{by}"));
            let (status, note) = custody(&[
                "anchor",
                "--database",
                &url(db, "postgres"),
                "--make",
                "--file",
                &kept,
                "--witness",
                &witnesses[by].url(),
                "--witness-key",
                &keys[by],
            ]);
            assert_eq!(status, 0, "{note}");
            assert!(note.contains(["east.example/w", "west.example/w"][by]), "{note}");
            assert!(std::fs::read_to_string(&kept).unwrap().ends_with(&note));
        }
        // The database takes the cosigned note, too, and the auditor asks for the witness.
        let (_, note) = custody(&[
            "anchor",
            "--database",
            &url(db, "postgres"),
            "--witness",
            &witnesses[by].url(),
            "--witness-key",
            &keys[by],
        ]);
        let mut session = db.superuser();
        let found = session.rows("SELECT verdict, detail FROM custody.verify(checkpoints => ARRAY[$1])", &[&note]);
        assert!(found.len() == 1 && found[0].get::<_, String>(1).contains("anchored, by 1 of 1"), "{found:?}");
        let write = |name: &str, content: &str| {
            std::fs::write(dir.at(name), content).unwrap();
            dir.at(name)
        };
        let export: String =
            session.rows("SELECT custody.export_log('a')", &[]).iter().map(|r| r.get::<_, String>(0) + "\n").collect();
        let (log, note) = (write("log", &export), write("note", &note));
        let proof = write("proof", &session.one::<Value>("SELECT custody.tenant_proof('a')").to_string());
        let pin: String = session.one("SELECT fingerprint FROM custody.signing_key");
        let (status, text) =
            custody(&["verify", &log, "--pin", &pin, "--proof", &proof, "--checkpoint", &note, "--witness", &keys[by]]);
        assert!(status == 0 && text.contains("has seen the checkpoint"), "{text}");
        assert!(text.contains("assurance: witnessed, up to checkpoint"), "{text}");
        // The same of the whole log, from the database itself; and in SQL.
        let live = &["verify", "--database", &url(db, "postgres"), "--pin", &pin, "--checkpoint", &note];
        let (status, text) = custody(&[&live[..], &["--witness", &keys[by], "--json"]].concat());
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!((status, &told["assurance"]), (0, &"witnessed".into()), "{text}");
        let kept = std::fs::read_to_string(&note).unwrap();
        let sql = "SELECT verdict, detail FROM custody.verify(checkpoints => ARRAY[$1], witnesses => ARRAY[$2])";
        let found = session.rows(sql, &[&kept, &keys[by]]);
        assert!(found.len() == 1 && found[0].get::<_, String>(1).contains("assurance: witnessed"), "{found:?}");
        let found = session.rows(sql, &[&kept, &keys[1 - by]]);
        assert!(found.len() == 2 && found[0].get::<_, String>(1).contains("assurance: none"), "{found:?}");
        assert_eq!(found[1].get::<_, String>(0), "unwitnessed");
        let (status, text) = custody(&[
            "verify",
            &log,
            "--pin",
            &pin,
            "--proof",
            &proof,
            "--checkpoint",
            &note,
            "--witness",
            &keys[1 - by],
        ]);
        assert!(status == 1 && text.contains("NOT PROVED"), "another witness did not: {text}");
    }
}

#[test]
fn a_witness_remembers_and_is_not_talked_round() {
    let dir = Dir::new("remembers");
    let db = Db::clinic();
    let mut session = db.superuser();
    let key = make_witness(&dir.at("w"), "witness.example/w");
    assert_ne!(custody(&["witness", "init", &dir.at("w"), "--name", "again"]).0, 0, "never over another");
    let log: String = session.one("SELECT custody.checkpoint_key()");
    let witness = Witness::start(&dir.at("w"), &[&log]);
    assert_ne!(
        custody(&["witness", "serve", &dir.at("w"), "--listen", "127.0.0.1:0", "--log", &log]).0,
        0,
        "two on one directory"
    );
    let mut notes = Vec::new();
    for _ in 0..5 {
        session.batch("CALL custody.checkpoint()");
        notes.push(last_note(&mut session));
    }
    let mut ask = |witness: &Witness, old: i64, size: usize| {
        let proof: Option<Vec<String>> = session.one(&format!("SELECT custody.consistency_proof({old}, {size})"));
        let lines: String =
            proof.filter(|_| old < size as i64).unwrap_or_default().iter().map(|h| format!("{h}\n")).collect();
        witness.add(&format!("old {old}\n{lines}\n{}", notes[size - 1]))
    };
    assert_eq!(ask(&witness, 0, 2).0, 200);
    let (status, head, body) = ask(&witness, 0, 3);
    assert_eq!((status, body.as_str()), (409, "2\n"));
    assert!(head.to_lowercase().contains("content-type: text/x.tlog.size"), "{head}");
    assert_eq!(ask(&witness, 2, 4).0, 200);
    assert_eq!(ask(&witness, 4, 4).0, 200, "the same again");
    assert_eq!(ask(&witness, 2, 3).0, 409, "nobody goes back");
    assert_eq!(ask(&witness, 4, 3).0, 400);
    let forged = notes[4].replace("\n5\n", "\n6\n");
    assert_eq!(witness.add(&format!("old 4\n\n{forged}")).0, 403);
    assert_eq!(witness.add(&format!("old 4\n\n{}", notes[4])).0, 422, "no proof");
    assert_eq!(witness.add("nonsense").0, 400);
    let other = Db::clinic();
    let mut other = other.superuser();
    other.batch("CALL custody.checkpoint()");
    assert_eq!(witness.add(&format!("old 0\n\n{}", last_note(&mut other))).0, 404, "an unknown log");
    assert_eq!(witness.request("GET /add-checkpoint", b"").0, 405);
    assert_eq!(witness.request("POST /elsewhere", b"").0, 404);
    assert_eq!(witness.add(&"x".repeat((1 << 20) + 1)).0, 400);

    // Killed, it is where it was. With its memory broken it says nothing rather than begin anew.
    drop(witness);
    let witness = Witness::start(&dir.at("w"), &[&log]);
    assert_eq!(ask(&witness, 0, 5).2, "4\n");
    let note = std::fs::read_dir(dir.at("w"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "note"))
        .unwrap();
    assert!(
        std::fs::read_to_string(&note).unwrap().contains(key.split('+').next().unwrap()),
        "what it cosigned is kept with its line"
    );
    let kept = std::fs::read(&note).unwrap();
    std::fs::write(&note, &kept[..20]).unwrap();
    assert_eq!(ask(&witness, 4, 5).0, 500);
    std::fs::write(&note, &kept).unwrap();
    assert_eq!(ask(&witness, 4, 5).0, 200);
}

#[test]
fn a_database_that_was_set_back_is_found_by_its_witness() {
    let dir = Dir::new("set-back");
    let db = Db::clinic();
    let mut session = db.superuser();
    let key = make_witness(&dir.at("w"), "witness.example/w");
    let witness = Witness::start(&dir.at("w"), &[&session.one::<String>("SELECT custody.checkpoint_key()")]);
    let anchor = |make: &[&str]| {
        custody(
            &[
                &["anchor", "--database", &url(&db, "postgres"), "--witness", &witness.url(), "--witness-key", &key],
                make,
            ]
            .concat(),
        )
    };
    assert_eq!(anchor(&["--make"]).0, 0);
    assert_eq!(anchor(&["--make"]).0, 0);
    // As a restored backup is: the last checkpoint is gone, log and all.
    session.batch(
        "DELETE FROM custody.checkpoint_leaf WHERE counter > 0; DELETE FROM custody.checkpoint_head WHERE counter > 0;
         DELETE FROM custody.checkpoint_note WHERE size > 1; DELETE FROM custody.checkpoint_node WHERE index > 0 OR level > 0",
    );
    let (status, text) = anchor(&[]);
    assert!(status == 1 && text.contains("THE DATABASE WAS SET BACK"), "{text}");
    let (status, text) = anchor(&["--make"]);
    assert!(status == 1 && text.contains("REWRITTEN"), "another second checkpoint: {text}");
    let (status, text) = anchor(&["--make"]);
    assert!(status == 1 && text.contains("REWRITTEN"), "and a third on top of it: {text}");
    drop(witness);
    let gone = custody(&[
        "anchor",
        "--database",
        &url(&db, "postgres"),
        "--witness",
        "http://127.0.0.1:9",
        "--witness-key",
        &key,
    ]);
    assert_eq!(gone.0, 1, "a witness that is away fails the anchor, and nothing else");
    assert!(Path::new(&dir.at("w")).exists());
}

#[test]
fn a_witness_goes_along_with_a_change_of_key() {
    let dir = Dir::new("new-key");
    let db = Db::clinic();
    let mut session = db.superuser();
    let key = make_witness(&dir.at("w"), "witness.example/w");
    let old: String = session.one("SELECT custody.checkpoint_key()");
    let witness = Witness::start(&dir.at("w"), &[&old]);
    let anchor = |witness: &Witness, make: &[&str]| {
        custody(
            &[
                &["anchor", "--database", &url(&db, "postgres"), "--witness", &witness.url(), "--witness-key", &key],
                make,
            ]
            .concat(),
        )
    };
    assert_eq!(anchor(&witness, &["--make"]).0, 0);
    // A transaction that stays prepared keeps the old key valid.
    session.batch(&format!("BEGIN; INSERT INTO clinic.patients VALUES ('a', 1); PREPARE TRANSACTION 'w_{0}'", db.name));
    session.batch("SELECT custody.rotate_signing_key()");
    let (status, text) = anchor(&witness, &[]);
    assert_eq!(status, 0, "the last note is the old key's alone: {text}");
    let (status, text) = anchor(&witness, &["--make"]);
    assert_eq!(status, 0, "both have signed it, and the witness knows one: {text}");
    session.batch(&format!("COMMIT PREPARED 'w_{}'", db.name));
    while session.count("custody.signing_key WHERE ended = 'retire'") == 0 {
        session.batch("CALL custody.checkpoint()");
    }
    session.batch("CALL custody.checkpoint()");
    let (status, text) = anchor(&witness, &["--make"]);
    assert!(status == 1 && text.contains("status 403"), "a key that it does not know: {text}");
    drop(witness);
    let new: String = session.one("SELECT custody.checkpoint_key()");
    let witness = Witness::start(&dir.at("w"), &[&old, &new]);
    let (status, text) = anchor(&witness, &["--make"]);
    assert_eq!(status, 0, "the same log goes on: {text}");
}
