//! Promises A3 and A5: whatever a superuser does to history is found and named, undone it is gone, and the independent checker says
//! the same of the exported log.

use custody_tests::checker::checker;
use custody_tests::{Db, Session};

const LIFT: &str =
    "ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\", DISABLE TRIGGER \"!custody_foreign_only\"";
const GUARD: &str = "ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\"";

/// A log with a few chains, and tenant a's known to the number: 1 to 3 one run, 4 a run, 5 a run.
fn history() -> (Db, Session) {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('a', 2, 'Al'), ('a', 3, 'Ann')");
    s.batch("UPDATE clinic.patients SET name = 'Ada L' WHERE id = 1");
    s.batch("INSERT INTO clinic.patients VALUES ('b', 1, 'Bo')");
    s.batch("DELETE FROM clinic.patients WHERE id = 2");
    assert_eq!(s.one::<i64>("SELECT max(seq) FROM custody.entry WHERE tenant = 'a'"), 5);
    s.assert_valid();
    (db, s)
}

#[test]
fn every_tampering_is_found_named_and_gone_when_undone() {
    let (_db, mut s) = history();
    let heads: String = s.one("SELECT jsonb_agg(h)::text FROM custody.heads() h");
    let other_key = "decode(repeat('ab', 64), 'hex')";
    s.batch("CREATE TEMP TABLE original AS SELECT * FROM custody.entry");
    let attacks: &[(&str, String, &[&str])] = &[
        ("an image", "UPDATE custody.entry SET new = replace(new, 'Ada L', 'Eve') WHERE tenant = 'a' AND seq = 4".into(), &["edited a/4"]),
        ("a header", "UPDATE custody.entry SET login_role = 'mallory' WHERE tenant = 'a' AND seq = 4".into(), &["edited a/4"]),
        ("a time", "UPDATE custody.entry SET at = at - interval '1 day' WHERE tenant = 'a' AND seq = 5".into(), &["edited a/5"]),
        ("a key", "UPDATE custody.entry SET row_key = NULL WHERE tenant = 'a' AND seq = 2".into(), &["edited a/2"]),
        ("an actor", "UPDATE custody.entry SET actor = replace(actor, '{', '{ ') WHERE tenant = 'b' AND seq = 1".into(), &["edited b/1"]),
        ("one gone", "DELETE FROM custody.entry WHERE tenant = 'a' AND seq = 4".into(), &["deleted a/4"]),
        ("the first gone", "DELETE FROM custody.entry WHERE tenant = 'a' AND seq = 1".into(), &["deleted a/1"]),
        (
            "two swapped",
            "UPDATE custody.entry SET seq = 102 WHERE tenant = 'a' AND seq = 2; UPDATE custody.entry SET seq = 2 WHERE tenant = 'a' AND seq = 3; UPDATE custody.entry SET seq = 3 WHERE seq = 102".into(),
            // The run's signature went away with its last entry.
            &["reordered a/2", "reordered a/3", "unsigned a/3"],
        ),
        (
            "one forged at the end",
            "INSERT INTO custody.entry SELECT (jsonb_populate_record(e, jsonb_build_object('seq', 6))).* FROM custody.entry e WHERE tenant = 'a' AND seq = 5".into(),
            &["edited a/6", "reordered a/6"],
        ),
        ("re-signed", format!("UPDATE custody.entry SET signature = {other_key} WHERE tenant = 'a' AND seq = 4"), &["bad_signature a/4"]),
        (
            "re-signed under another name",
            format!("UPDATE custody.entry SET signature = {other_key}, key_id = '0123456789abcdef' WHERE tenant = 'a' AND seq = 4"),
            &["edited a/4", "key_not_valid a/4"],
        ),
        ("a signature gone", "UPDATE custody.entry SET signature = NULL WHERE tenant = 'a' AND seq = 4".into(), &["unsigned a/4"]),
        (
            "a signature never there",
            "UPDATE custody.entry SET signature = NULL, key_id = NULL, signs_run = false WHERE tenant = 'a' AND seq = 4".into(),
            &["edited a/4", "unsigned a/4"],
        ),
        ("a payload dropped", "UPDATE custody.entry SET row_salt = NULL, row_key = NULL, old = NULL, new = NULL WHERE tenant = 'a' AND seq = 4".into(), &["payload_missing a/4"]),
        ("the end cut off", "DELETE FROM custody.entry WHERE tenant = 'a' AND seq >= 4".into(), &["truncated a/4"]),
        ("a chain gone", "DELETE FROM custody.entry WHERE tenant = 'b'".into(), &["truncated b/1"]),
        (
            "moved to another tenant",
            "UPDATE custody.entry SET tenant = 'b', seq = 2 WHERE tenant = 'a' AND seq = 5".into(),
            &["edited b/2", "truncated a/5"],
        ),
    ];
    for (name, attack, expected) in attacks {
        let with_heads = format!("heads => '{heads}'");
        s.batch(&format!("{LIFT}; {attack}; {GUARD}"));
        // Lifting the guard is an entry of the system chain, so the head of that one has moved on; it is no finding.
        let (verdict, found) = s.verify(&with_heads);
        assert_eq!(
            (verdict.as_str(), found.as_slice()),
            ("invalid", &expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..]),
            "{name}"
        );
        let independent = checker(&mut s, Some(&heads));
        assert_eq!(independent, found, "{name}: the independent checker");
        if expected.iter().all(|e| e.starts_with("truncated")) {
            assert_eq!(s.verify("").0, "valid", "{name}: only kept heads show it");
        }
        // Undone, the log is clean again; what the guard's lifting left in the system chain stays.
        s.batch(&format!(
            "{LIFT}; DELETE FROM custody.entry e WHERE tenant <> ''; INSERT INTO custody.entry SELECT * FROM original WHERE tenant <> ''; {GUARD}"
        ));
        assert_eq!(s.verify(&with_heads), ("valid".into(), vec![]), "{name}, undone");
        assert_eq!(checker(&mut s, Some(&heads)), Vec::<String>::new(), "{name}, undone");
    }
    let summary: String = s.one("SELECT detail FROM custody.verify() LIMIT 1");
    assert!(summary.contains(&format!("guard was lifted {} times", 2 * attacks.len())), "{summary}");
}

#[test]
fn a_capture_gap_stays_a_finding() {
    let (_db, mut s) = history();
    s.batch("ALTER TABLE clinic.patients DISABLE TRIGGER \"!custody_capture\"; UPDATE clinic.patients SET name = 'ghost' WHERE id = 3");
    let (verdict, found) = s.verify("");
    assert_eq!(verdict, "invalid");
    assert_eq!(found.len(), 2, "that it is off, and that it was switched off: {found:?}");
    s.batch("ALTER TABLE clinic.patients ENABLE ALWAYS TRIGGER \"!custody_capture\"");
    let (verdict, found) = s.verify("");
    assert_eq!((verdict.as_str(), found.len()), ("invalid", 1), "{found:?}");
    assert!(found[0].starts_with("capture_disabled /"), "{found:?}");
    assert_eq!(checker(&mut s, None), found);
    let detail: String = s.one("SELECT detail FROM custody.verify() WHERE verdict = 'capture_disabled'");
    assert!(detail.contains("clinic.patients"), "{detail}");
    assert_eq!(s.fails("SELECT custody.assert_verified()"), "UC050");
    for off in [
        "DROP TRIGGER \"!custody_truncate\" ON clinic.visits",
        "ALTER TABLE clinic.visits DISABLE TRIGGER ALL",
        "ALTER TABLE clinic.visits ENABLE TRIGGER \"!custody_capture\"",
        "CREATE OR REPLACE TRIGGER \"!custody_capture\" AFTER INSERT OR UPDATE OR DELETE ON clinic.visits FOR EACH ROW WHEN (false) EXECUTE FUNCTION custody.capture()",
    ] {
        let before = s.count("custody.entry WHERE op = 'CAPTURE_OFF'");
        s.batch(off);
        assert_eq!(s.count("custody.entry WHERE op = 'CAPTURE_OFF'"), before + 1, "{off}");
        s.batch("SELECT custody.audit('clinic.visits')");
        assert_eq!(s.count("custody.entry WHERE op = 'CAPTURE_ON'"), before + 1, "{off}");
    }
}

#[test]
fn a_lifted_guard_is_a_finding_while_it_is_lifted() {
    let (_db, mut s) = history();
    for (lift, restore) in [
        (LIFT, GUARD),
        ("ALTER EVENT TRIGGER custody_ddl DISABLE", "ALTER EVENT TRIGGER custody_ddl ENABLE ALWAYS"),
        ("ALTER EVENT TRIGGER custody_drop ENABLE", "ALTER EVENT TRIGGER custody_drop ENABLE ALWAYS"),
    ] {
        s.batch(lift);
        let (verdict, found) = s.verify("");
        assert_eq!(verdict, "invalid", "{lift}");
        assert!(!found.is_empty() && found.iter().all(|f| f == "guard_lifted"), "{found:?}");
        s.batch(restore);
        assert_eq!(s.verify("").0, "valid", "{restore}");
    }
}

#[test]
fn nothing_to_check_is_never_valid() {
    let (_db, mut s) = history();
    s.batch(&format!("{LIFT}; TRUNCATE custody.entry"));
    assert_eq!(s.verify("").0, "invalid", "lifting the guard left an entry");
    s.batch("TRUNCATE custody.entry");
    let (verdict, found) = s.verify("");
    assert_eq!(verdict, "empty");
    assert!(found.contains(&"empty".to_owned()), "{found:?}");
    assert_eq!(s.fails("SELECT custody.assert_verified()"), "UC050");
    assert_eq!(s.verify("tenant => 'nobody'").0, "empty");
}

#[test]
fn pins_and_arguments() {
    let (_db, mut s) = history();
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let summary = |s: &mut Session, arguments: &str| -> String {
        s.one(&format!("SELECT detail FROM custody.verify({arguments}) LIMIT 1"))
    };
    assert!(summary(&mut s, "").contains("key not pinned"));
    assert!(summary(&mut s, &format!("pin => '{pin}'")).contains("key pinned"));
    assert_eq!(s.verify(&format!("pin => upper('{pin}')")).0, "valid");
    let (verdict, found) = s.verify(&format!("pin => '{}'", "0".repeat(64)));
    assert_eq!(verdict, "invalid");
    assert!(found.iter().all(|f| f.starts_with("key_not_valid")), "{found:?}");
    let deep = format!("heads => '{}{}'", "[".repeat(1000), "]".repeat(1000));
    for bad in [
        deep.as_str(),
        "pin => 'x'",
        "pin => ''",
        "heads => '{}'",
        "heads => '[1]'",
        "heads => '[{\"incarnation\": \"x\"}]'",
    ] {
        assert_eq!(s.fails(&format!("SELECT * FROM custody.verify({bad})")), "UC013", "{bad}");
    }
    // A new life's key is vouched for by the old one, so the old pin still holds.
    s.batch("SELECT custody.new_incarnation('a drill'); ");
    s.batch("INSERT INTO clinic.patients VALUES ('a', 9, 'Di')");
    assert_eq!(s.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    assert!(summary(&mut s, "").contains("inherited"), "{}", summary(&mut s, ""));
    // A key that somebody slips into the list is not.
    s.batch(&format!(
        "UPDATE custody.signing_key SET predecessor = NULL, endorsement = NULL WHERE fingerprint <> '{pin}'"
    ));
    let (verdict, found) = s.verify(&format!("pin => '{pin}'"));
    assert_eq!(verdict, "invalid");
    assert!(found.iter().all(|f| f.starts_with("key_not_valid")), "{found:?}");
}

#[test]
fn the_checker_agrees_on_a_whole_log() {
    let (_db, mut s) = history();
    assert_eq!(checker(&mut s, None), Vec::<String>::new());
    let heads: String = s.one("SELECT jsonb_agg(h)::text FROM custody.heads() h");
    assert_eq!(checker(&mut s, Some(&heads)), Vec::<String>::new());
    let own: Vec<String> = s.rows("SELECT custody.export_log('a')", &[]).iter().map(|r| r.get(0)).collect();
    assert_eq!(own.iter().filter(|l| l.contains("\"record\" : \"entry\"")).count(), 5);
}
