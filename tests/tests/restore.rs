//! Incarnations: a restored dump, a copied database and a promoted standby are other lives, which never extend their parent's chains.

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Db, Session, installation};

fn summary(s: &mut Session) -> String {
    s.one("SELECT verdict || ': ' || detail FROM custody.verify() LIMIT 1")
}

#[test]
fn a_restored_dump_inherits_its_log_and_begins_its_own() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo'); DELETE FROM clinic.patients WHERE tenant_id = 'b'");
    let entries = s.count("custody.entry");
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let dump = must(&mut db.cluster.client("pg_dump", &db.name, SUPERUSER, &["--format=custom"])).unwrap().stdout;
    let file = std::env::temp_dir().join(format!("{}-{}.dump", db.name, std::process::id()));
    std::fs::write(&file, dump).unwrap();
    let restored = Db::bare();
    must(&mut db.cluster.client(
        "pg_restore",
        &restored.name,
        SUPERUSER,
        &["--exit-on-error", "--dbname", &restored.name, &file.display().to_string()],
    ))
    .unwrap();
    std::fs::remove_file(&file).unwrap();

    let mut r = restored.superuser();
    let text = summary(&mut r);
    assert!(text.starts_with("valid: ") && text.contains(&format!("inherited {entries} of")), "{text}");
    assert_eq!(r.count("clinic.patients"), 1);
    assert_eq!(r.count("custody.registered_table"), 3);
    // Recording goes on, in chains of its own; the old ones end where they ended.
    r.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'Al')");
    r.assert_valid();
    assert_eq!(r.count("custody.entry WHERE tenant = 'a'"), 2);
    assert_eq!(r.one::<i64>("SELECT count(DISTINCT incarnation) FROM custody.entry WHERE tenant = 'a'"), 2);
    // The old pin covers what was inherited, and says that it does not cover the rest: nobody vouched for the new key.
    let (_, found) = r.verify(&format!("pin => '{pin}'"));
    assert!(!found.is_empty() && found.iter().all(|f| f.starts_with("key_not_valid")), "{found:?}");
    let mut app = restored.session(&db.app_name());
    app.as_tenant("a", "INSERT INTO clinic.patients (id) VALUES (3)");
    assert_eq!(app.fails("DELETE FROM clinic.patients"), "UC001");
    // What was inherited can be added, once; nothing of this life can.
    assert_eq!(r.fails("INSERT INTO custody.entry SELECT * FROM custody.entry e WHERE e.incarnation = (SELECT incarnation FROM custody.instance) LIMIT 1"), "UC031");
}

#[test]
fn a_copied_database_starts_a_life_of_its_own() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada')");
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    drop(s);
    let mut c = db.copy();
    c.batch("INSERT INTO clinic.patients VALUES ('a', 2, 'Al')");
    c.assert_valid();
    assert_eq!(
        c.one::<String>("SELECT reason FROM custody.incarnation ORDER BY started_at DESC LIMIT 1"),
        "copied within the cluster"
    );
    assert_eq!(c.one::<i64>("SELECT count(DISTINCT incarnation) FROM custody.entry WHERE tenant = 'a'"), 2);
    // The key was at hand, so it vouches for its successor, and the pin holds for both lives.
    assert_eq!(c.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    // The original goes on as it was.
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 3, 'Ann')");
    s.assert_valid();
    assert_eq!(s.count("custody.incarnation"), 1);
}

#[test]
fn a_promoted_standby_starts_a_life_of_its_own() {
    let installation = installation();
    let primary = Cluster::temporary(&installation, &["fsync = off"]).unwrap();
    let mut s = Session(primary.connect("postgres", SUPERUSER).unwrap());
    s.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
    let standby = primary.standby("s1").unwrap();
    let mut b = Session(standby.connect("postgres", SUPERUSER).unwrap());
    // Nor can it be probed, which is to attempt writes.
    assert_eq!(b.fails("SELECT custody.probe('pg_class')"), "UC045");
    // A standby can be verified, and writes nothing.
    b.assert_valid();
    b.batch("SELECT pg_promote()");
    b.batch("INSERT INTO t VALUES (2)");
    b.assert_valid();
    assert_eq!(
        b.one::<String>("SELECT reason FROM custody.incarnation ORDER BY started_at DESC LIMIT 1"),
        "promoted or recovered to another timeline"
    );
    let text = summary(&mut b);
    assert!(text.contains("inherited"), "{text}");
}
