//! The life of the signing key: rotation with transactions in flight, its end, its revocation, its loss; and what those find who
//! sign where their key is not valid.

use std::path::PathBuf;
use std::process::Command;

use custody_core::key::PrivateKey;
use custody_core::key_file::KeyFile;
use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::{Db, Session, installation, state};

const LIFT: &str =
    "ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\", DISABLE TRIGGER \"!custody_foreign_only\"";
const GUARD: &str = "ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\"";

fn current(s: &mut Session) -> String {
    s.one("SELECT key_id FROM custody.instance")
}

fn fingerprint(s: &mut Session, key_id: &str) -> String {
    s.one(&format!("SELECT fingerprint FROM custody.signing_key WHERE key_id = '{key_id}'"))
}

fn file(s: &mut Session, key_id: &str) -> PathBuf {
    let dir: String = s.one("SELECT current_setting('data_directory')");
    PathBuf::from(dir).join("pg_custody").join(format!("{key_id}.key"))
}

fn rotate(s: &mut Session) -> String {
    let fingerprint: String = s.one("SELECT custody.rotate_signing_key()");
    let key_id = current(s);
    assert_eq!(key_id, fingerprint[..16]);
    key_id
}

/// The keys that signed a tenant's entries, in the order of the entries' numbers.
fn signers(s: &mut Session, tenant: &str) -> Vec<String> {
    let sql = format!("SELECT key_id FROM custody.entry WHERE tenant = '{tenant}' AND signs_run ORDER BY lane, seq");
    s.rows(&sql, &[]).iter().map(|r| r.get(0)).collect()
}

/// What the independent checker finds in an export, as `Session::verify` gives it; its notices too.
fn checker(s: &mut Session, pin: Option<&str>) -> Vec<String> {
    let export: Vec<String> = s.rows("SELECT custody.export_log()", &[]).iter().map(|r| r.get(0)).collect();
    let path = std::env::temp_dir().join(format!("{}-{:?}.jsonl", std::process::id(), std::thread::current().id()));
    std::fs::write(&path, export.join("\n") + "\n").unwrap();
    let python = std::env::var("CUSTODY_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/checker/custody_check.py")).arg(&path);
    command.args(pin.map(|pin| ["--pin", pin]).into_iter().flatten());
    let output = command.output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut found: Vec<String> = lines
        .iter()
        .filter(|l| l.get("verdict").is_some())
        .map(|l| match l["seq"].as_i64() {
            Some(seq) => format!("{} {}/{seq}", l["verdict"].as_str().unwrap(), l["tenant"].as_str().unwrap()),
            None => l["verdict"].as_str().unwrap().to_owned(),
        })
        .collect();
    found.sort();
    found
}

/// Both verifiers find exactly this.
fn finds(s: &mut Session, pin: Option<&str>, verdict: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|e| (*e).to_owned()).collect();
    let argument = pin.map(|pin| format!("pin => '{pin}'")).unwrap_or_default();
    assert_eq!(s.verify(&argument), (verdict.to_owned(), expected.clone()), "custody.verify({argument})");
    assert_eq!(checker(s, pin), expected, "the checker, {argument}");
}

fn patient(n: i32) -> String {
    format!("INSERT INTO clinic.patients VALUES ('a', {n}, 'P')")
}

#[test]
fn a_successor_takes_over_and_the_old_key_ends() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&patient(1));
    let k1 = current(&mut s);
    let pin = fingerprint(&mut s, &k1);
    let k2 = rotate(&mut s);
    assert_ne!(k1, k2);
    s.batch(&patient(2));
    // The same session, and one from before, sign with the new key from now on.
    assert_eq!(signers(&mut s, "a"), [k1.clone(), k2.clone()]);
    let new = s.one::<serde_json::Value>("SELECT new FROM custody.log WHERE op = 'KEY'");
    assert_eq!(
        (new["action"].as_str(), new["key_id"].as_str(), new["predecessor"].as_str()),
        (Some("rotate"), Some(&*k2), Some(&*k1))
    );
    let entry_by: String = s.one("SELECT key_id FROM custody.entry WHERE op = 'KEY'");
    assert_eq!(entry_by, k1, "the change is signed by the old key");
    finds(&mut s, Some(&pin), "valid", &[]);
    // Nobody needs the old one: it ends at the next checkpoint, and its file goes with the one after.
    assert!(file(&mut s, &k1).exists());
    // Other tests of this cluster have transactions open.
    for _ in 0..300 {
        s.batch("CALL custody.checkpoint()");
        if s.count(&format!("custody.signing_key WHERE key_id = '{k1}' AND ended = 'retire'")) == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(s.one::<String>(&format!("SELECT ended_by FROM custody.signing_key WHERE key_id = '{k1}'")), k2);
    s.batch("CALL custody.checkpoint()");
    assert!(!file(&mut s, &k1).exists() && file(&mut s, &k2).exists());
    s.batch(&patient(3));
    finds(&mut s, Some(&pin), "valid", &[]);
    finds(&mut s, None, "valid", &[]);
    // The new key does not vouch for the old one.
    let second = fingerprint(&mut s, &k2);
    let (verdict, found) = s.verify(&format!("pin => '{second}'"));
    assert!(
        verdict == "invalid"
            && found.contains(&"key_not_valid a/1".into())
            && !found.contains(&"key_not_valid a/2".into()),
        "{found:?}"
    );
    // And again.
    rotate(&mut s);
    s.batch(&patient(4));
    finds(&mut s, Some(&pin), "valid", &[]);
}

#[test]
fn a_transaction_in_flight_goes_on_with_its_key() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let (mut before, mut waiting) = (db.superuser(), db.superuser());
    let k1 = current(&mut s);
    let pin = fingerprint(&mut s, &k1);
    before.batch(&format!("BEGIN; {}", patient(1)));
    // This one has changed something before the rotation, and is recorded after: its lane comes later, and so does its key.
    waiting.batch("CREATE TABLE slow (id int); BEGIN; INSERT INTO slow VALUES (1)");
    let k2 = rotate(&mut s);
    before.batch(&format!("SAVEPOINT s; {}; RELEASE s; SELECT count(*) FROM custody.log", patient(2)));
    waiting.batch(&format!("{}; COMMIT", patient(10)));
    for _ in 0..3 {
        assert_eq!(s.one::<i32>("SELECT custody.retire_signing_keys()"), 0, "somebody still uses it");
    }
    before.batch(&format!("{}; COMMIT", patient(3)));
    let mine: Vec<String> = s
        .rows("SELECT DISTINCT e.key_id FROM custody.entry e JOIN custody.log l USING (incarnation, tenant, lane, seq) WHERE l.table_name = 'patients' AND (l.row_key ->> 'id')::int < 10 AND e.signs_run", &[])
        .iter().map(|r| r.get(0)).collect();
    assert_eq!(mine, [k1.as_str()]);
    assert!(signers(&mut s, "a").contains(&k2));
    finds(&mut s, Some(&pin), "valid", &[]);
    for _ in 0..300 {
        if s.one::<i32>("SELECT custody.retire_signing_keys()") == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(s.one::<String>(&format!("SELECT ended FROM custody.signing_key WHERE key_id = '{k1}'")), "retire");
    finds(&mut s, Some(&pin), "valid", &[]);
}

#[test]
fn a_change_from_before_that_is_recorded_after() {
    // AFTER triggers fire when their statement ends: what was changed before the rotation is recorded by the key of after it, with
    // nothing written in between.
    let db = Db::clinic();
    let mut s = db.superuser();
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    s.batch("CREATE FUNCTION wait_for_key() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); PERFORM pg_advisory_unlock(7); RETURN 1; END $$");
    s.batch("SELECT pg_advisory_lock(7)");
    let mut slow = db.superuser();
    let writer = std::thread::spawn(move || {
        slow.batch("WITH i AS (INSERT INTO clinic.patients VALUES ('a', 1) RETURNING id) SELECT wait_for_key() FROM i");
    });
    while s.count("pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let k2 = rotate(&mut s);
    s.batch("SELECT pg_advisory_unlock(7)");
    writer.join().unwrap();
    assert_eq!(signers(&mut s, "a"), [k2]);
    // Its position was raised to where the key begins: its own was before that.
    assert!(s.one::<bool>(
        "SELECT e.lsn = k.from_lsn FROM custody.entry e JOIN custody.signing_key k USING (key_id) WHERE e.tenant = 'a'"
    ));
    finds(&mut s, Some(&pin), "valid", &[]);
}

#[test]
fn a_prepared_transaction_across_a_rotation() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    let pin = fingerprint(&mut s, &k1);
    s.batch(&format!("BEGIN; {}; PREPARE TRANSACTION 'p_{}'", patient(1), db.name));
    rotate(&mut s);
    s.batch(&patient(2));
    for _ in 0..3 {
        s.batch("CALL custody.checkpoint()");
    }
    assert_eq!(s.count("custody.signing_key WHERE ended IS NOT NULL"), 0);
    s.batch(&format!("COMMIT PREPARED 'p_{}'", db.name));
    finds(&mut s, Some(&pin), "valid", &[]);
    // A rotation itself is not prepared: the next one would wait for it.
    s.batch("BEGIN; SELECT custody.rotate_signing_key()");
    assert_eq!(s.fails("PREPARE TRANSACTION 'q'"), "UC036");
    finds(&mut s, Some(&pin), "valid", &[]);
}

#[test]
fn a_rotation_that_is_rolled_back_leaves_nothing() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    let dir = file(&mut s, &k1).parent().unwrap().to_owned();
    // Other tests of this cluster have files there as well.
    let exists = |made: &str| dir.join(format!("{}.key", &made[..16])).exists();
    s.batch("BEGIN");
    let made: String = s.one("SELECT custody.rotate_signing_key()");
    assert!(exists(&made));
    // Meanwhile nobody waits for it, and all sign with the present key.
    db.superuser().batch(&format!("SET statement_timeout = '10s'; {}", patient(9)));
    assert_eq!(signers(&mut db.superuser(), "a"), *std::slice::from_ref(&k1));
    s.batch(&format!("{}; ROLLBACK", patient(1)));
    assert!(!exists(&made));
    s.batch(&format!("BEGIN; {}; SAVEPOINT a", patient(1)));
    let made: String = s.one("SELECT custody.rotate_signing_key()");
    s.batch(&format!("{}; ROLLBACK TO a", patient(2)));
    assert!(!exists(&made));
    s.batch(&format!("{}; COMMIT", patient(3)));
    // Within a savepoint that stands.
    s.batch("BEGIN; SAVEPOINT b");
    let made: String = s.one("SELECT custody.rotate_signing_key()");
    s.batch(&format!("RELEASE b; {}; COMMIT; {}", patient(4), patient(5)));
    assert!(exists(&made));
    let signers = signers(&mut s, "a");
    assert_eq!(signers.iter().filter(|k| **k == made[..16]).count(), 1, "{signers:?}");
    assert_eq!(s.count("custody.signing_key"), 2);
    let pin = fingerprint(&mut s, &k1);
    finds(&mut s, Some(&pin), "valid", &[]);
}

#[test]
fn rotations_at_once() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let mut s = db.superuser();
            std::thread::spawn(move || {
                for i in 0..5 {
                    s.batch(&format!(
                        "BEGIN; {}; SELECT custody.rotate_signing_key(); COMMIT; {}",
                        patient(100 * n + 2 * i),
                        patient(100 * n + 2 * i + 1)
                    ));
                    s.batch("SELECT custody.retire_signing_keys()");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(s.count("custody.signing_key"), 21);
    assert_eq!(s.count("clinic.patients"), 40);
    // One line of keys, without a fork.
    assert_eq!(s.one::<i64>("SELECT count(DISTINCT predecessor) FROM custody.signing_key"), 20);
    finds(&mut s, Some(&pin), "valid", &[]);
}

/// Signs an entry's hash with a key that the forger has.
fn reseal(s: &mut Session, which: &str, key: &PrivateKey) {
    // The forger knows the format: the key's name is hashed, so the entry is hashed anew.
    let export: Vec<String> = s.rows("SELECT custody.export_log('a')", &[]).iter().map(|r| r.get(0)).collect();
    let mut reader = custody_core::export::Reader::new(std::io::Cursor::new(export.join("\n") + "\n"));
    let seq: i64 = s.one(&format!("SELECT seq FROM custody.entry WHERE tenant = 'a' AND {which}"));
    loop {
        match reader.next_record().unwrap() {
            Some(custody_core::export::Record::Entry(e)) if e.seq == seq => {
                let e = custody_core::entry::Entry { key_id: Some(key.key_id()), signs_run: true, ..e };
                let hash = e.compute_hash();
                let signature = key.sign_run(&hash);
                s.batch(LIFT);
                s.rows(
                    "UPDATE custody.entry SET key_id = $1, signs_run = true, hash = $2, signature = $3 WHERE tenant = 'a' AND seq = $4 RETURNING seq",
                    &[&key.key_id(), &&hash[..], &&signature[..], &seq],
                );
                s.batch(GUARD);
                return;
            }
            Some(_) => {}
            None => panic!("no entry {seq}"),
        }
    }
}

fn private(s: &mut Session, key_id: &str) -> PrivateKey {
    let text = std::fs::read_to_string(file(s, key_id)).unwrap();
    PrivateKey::from_seed(&KeyFile::parse(&text).unwrap().signing)
}

#[test]
fn old_entries_resealed_with_the_new_key_are_found() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&patient(1));
    let pin: String = s.one("SELECT fingerprint FROM custody.signing_key");
    let k2 = rotate(&mut s);
    let stolen = private(&mut s, &k2);
    reseal(&mut s, "seq = 1", &stolen);
    finds(&mut s, None, "invalid", &["key_not_valid a/1"]);
    finds(&mut s, Some(&pin), "invalid", &["key_not_valid a/1"]);
    // Had the forger the key record say that it was valid earlier, nobody would vouch for it.
    s.batch(&format!("UPDATE custody.signing_key SET from_lsn = '0/1' WHERE key_id = '{k2}'"));
    assert!(s.verify(&format!("pin => '{pin}'")).1.contains(&"key_not_valid a/1".into()));
}

#[test]
fn new_entries_signed_with_the_retired_key_are_found() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    let stolen = private(&mut s, &k1);
    let pin = fingerprint(&mut s, &k1);
    let k2 = rotate(&mut s);
    while s.one::<i32>("SELECT custody.retire_signing_keys()") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    s.batch(&patient(1));
    assert_eq!(signers(&mut s, "a"), [k2]);
    finds(&mut s, Some(&pin), "valid", &[]);
    reseal(&mut s, "seq = 1", &stolen);
    finds(&mut s, None, "invalid", &["key_not_valid a/1"]);
    finds(&mut s, Some(&pin), "invalid", &["key_not_valid a/1"]);
    // An end that the retired key itself, or nobody, has signed is none.
    let more = "UPDATE custody.signing_key SET until_lsn = '7F/0' WHERE ended IS NOT NULL";
    s.batch(more);
    assert_eq!(s.verify("").0, "valid", "this is what only a checkpoint shows: the key table was rewritten");
}

#[test]
fn a_compromised_key_is_revoked_from_a_checkpoint_on() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    let first = fingerprint(&mut s, &k1);
    s.batch(&patient(1));
    s.batch("CALL custody.checkpoint()");
    s.batch(&patient(2));
    s.batch("CALL custody.checkpoint()");
    assert_eq!(s.fails(&format!("SELECT custody.revoke_signing_key('{k1}', 0, 'stolen')")), "UC037", "it signs");
    s.batch("BEGIN; SELECT custody.rotate_signing_key()");
    assert_eq!(s.fails(&format!("SELECT custody.revoke_signing_key('{k1}', 0, 'stolen')")), "UC037", "it signs here");
    s.batch("ROLLBACK");
    let k2 = rotate(&mut s);
    for wrong in [
        format!("'{k1}', 2, 'x'"),
        format!("'{k1}', -1, 'x'"),
        "'0123456789abcdef', 0, 'x'".into(),
        format!("'{k2}', 0, 'x'"),
    ] {
        assert_eq!(s.fails(&format!("SELECT custody.revoke_signing_key({wrong})")), "UC037", "{wrong}");
    }
    assert_eq!(s.fails(&format!("SELECT custody.revoke_signing_key('{k1}', NULL, 'x')")), "UC013");
    s.batch(&patient(3));
    s.batch(&format!("SELECT custody.revoke_signing_key('{k1}', 0, 'a stolen backup')"));
    assert_eq!(s.fails(&format!("SELECT custody.revoke_signing_key('{k1}', 1, 'x')")), "UC037", "it ended earlier");
    // What it signed after the checkpoint is in doubt: an entry, the change of key itself, and the second checkpoint.
    let system: i64 = s.one("SELECT seq FROM custody.entry WHERE op = 'KEY' AND new LIKE '%rotate%'");
    let doubt = ["key_not_valid /".to_owned() + &system.to_string(), "key_not_valid a/2".to_owned()];
    let second = fingerprint(&mut s, &k2);
    let pins = format!("pin => '{first} {second}'");
    let all: Vec<String> = s
        .rows(&format!("SELECT concat_ws(' ', verdict, tenant || '/', seq) FROM custody.verify({pins}) OFFSET 1"), &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert_eq!(all, [doubt[0].replace("/", "/ "), doubt[1].replace("/", "/ "), "key_not_valid 1".into()]);
    assert_eq!(checker(&mut s, None), doubt);
    // It vouches for nobody any more: by its fingerprint alone, all that its successor signed is in doubt as well.
    let alone = |seq: i32| {
        format!("custody.verify(pin => '{first}') WHERE verdict = 'key_not_valid' AND tenant = 'a' AND seq = {seq}")
    };
    assert_eq!([1, 2, 3].map(|seq| s.count(&alone(seq))), [0, 1, 1]);
    // The next checkpoint is signed by the new key alone, and is all right.
    s.batch("CALL custody.checkpoint()");
    let (_, found) = s.verify(&format!("pin => '{first} {second}'"));
    assert_eq!(found, doubt);
    s.batch("CALL custody.checkpoint()");
    assert!(!file(&mut s, &k1).exists());
    let new = s.one::<serde_json::Value>("SELECT new FROM custody.log WHERE op = 'KEY' ORDER BY lsn DESC LIMIT 1");
    assert_eq!((new["action"].as_str(), new["reason"].as_str()), (Some("revoke"), Some("a stolen backup")));
}

#[test]
fn a_lost_key_is_followed_by_another() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(&patient(1));
    let k1 = current(&mut s);
    let first = fingerprint(&mut s, &k1);
    assert_eq!(s.fails("SELECT custody.recover_signing_key('x')"), "UC037", "it is not lost");
    std::fs::remove_file(file(&mut s, &k1)).unwrap();
    // Who has it in memory goes on; who has not, as a plain role too, begins another.
    s.batch(&patient(2));
    let mut app = db.app();
    app.as_tenant("a", "INSERT INTO clinic.patients (id) VALUES (3)");
    let k2 = current(&mut s);
    assert_ne!(k1, k2);
    s.batch(&patient(4));
    assert_eq!(signers(&mut s, "a"), [k1.clone(), k1.clone(), k2.clone(), k2.clone()]);
    let second = fingerprint(&mut s, &k2);
    finds(&mut s, None, "valid", &["key_recovered"]);
    assert_eq!(s.verify(&format!("pin => '{first} {second}'")), ("valid".into(), vec!["key_recovered".into()]));
    let system: Vec<i64> = s
        .rows(&format!("SELECT seq FROM custody.entry WHERE tenant = '' AND key_id = '{k2}'"), &[])
        .iter()
        .map(|r| r.get(0))
        .collect();
    let mut expected: Vec<String> = system.iter().map(|seq| format!("key_not_valid /{seq}")).collect();
    expected.extend(["key_not_valid a/3".into(), "key_not_valid a/4".into(), "key_recovered".into()]);
    finds(&mut s, Some(&first), "invalid", &expected.iter().map(String::as_str).collect::<Vec<_>>());
    let new = s.one::<serde_json::Value>("SELECT new FROM custody.log WHERE op = 'KEY' ORDER BY lsn DESC LIMIT 1");
    assert_eq!((new["action"].as_str(), new["recovers"].as_str()), (Some("recover"), Some(&*k1)));
    assert_eq!(s.one::<String>("SELECT custody.assert_verified()").matches("took over").count(), 1);
    // From the new root on all is as before.
    rotate(&mut s);
    s.batch(&patient(5));
    assert_eq!(s.verify(&format!("pin => '{first} {second}'")), ("valid".into(), vec!["key_recovered".into()]));
}

#[test]
fn a_recovery_that_is_rolled_back_never_was() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    std::fs::remove_file(file(&mut s, &k1)).unwrap();
    let mut t = db.superuser();
    t.batch(&format!("BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; {}; COMMIT", patient(1), patient(2)));
    assert_eq!(t.count("custody.signing_key"), 2);
    t.batch(&patient(3));
    assert_eq!(t.verify(""), ("valid".into(), vec!["key_recovered".into()]));
    let mut t = db.superuser();
    let k2 = current(&mut s);
    std::fs::remove_file(file(&mut s, &k2)).unwrap();
    t.batch(&format!("BEGIN; {}; ROLLBACK", patient(4)));
    assert_eq!(current(&mut s), k2);
    // By hand, and with the automatic way off.
    s.batch(&format!("ALTER DATABASE {} SET custody.recover_lost_key = off", db.name));
    let mut t = db.superuser();
    assert_eq!(t.fails(&patient(4)), "UC034");
    assert_eq!(t.fails("SELECT custody.rotate_signing_key()"), "UC034");
    t.batch("SELECT custody.recover_signing_key('the disk died')");
    t.batch(&patient(4));
    assert_eq!(t.count("custody.signing_key"), 3);
    assert_eq!(t.verify(""), ("valid".into(), vec!["key_recovered".into(), "key_recovered".into()]));
    // What cannot be read for now is not lost.
    s.batch(&format!("ALTER DATABASE {} RESET custody.recover_lost_key", db.name));
    let k3 = current(&mut s);
    let path = file(&mut s, &k3);
    must(Command::new("chmod").arg("640").arg(&path)).unwrap();
    assert_eq!(db.superuser().fails(&patient(5)), "UC034");
}

#[test]
fn equal_values_have_equal_digests_across_keys() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("SELECT custody.audit('clinic.patients', redact => ARRAY['name']::name[])");
    s.batch(&patient(1));
    rotate(&mut s);
    s.batch(&patient(2));
    while s.one::<i32>("SELECT custody.retire_signing_keys()") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    s.batch(&patient(3));
    let mut t = db.superuser();
    t.batch(&patient(4));
    assert_eq!(
        t.one::<i64>(
            "SELECT count(DISTINCT new ->> 'name') FROM custody.log WHERE op = 'INSERT' AND table_name = 'patients'"
        ),
        1
    );
    // After a loss they are equal as long as any relative of the key can be read.
    let k3 = rotate(&mut t);
    std::fs::remove_file(file(&mut t, &k3)).unwrap();
    db.superuser().batch(&patient(5));
    assert_ne!(current(&mut t), k3);
    assert_eq!(
        t.one::<i64>(
            "SELECT count(DISTINCT new ->> 'name') FROM custody.log WHERE op = 'INSERT' AND table_name = 'patients'"
        ),
        1
    );
    assert_eq!(t.verify(""), ("valid".into(), vec!["key_recovered".into()]));
}

#[test]
fn only_an_administrator_changes_keys() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let k1 = current(&mut s);
    let (auditor, admin) = (format!("{}_auditor", db.name), format!("{}_admin", db.name));
    s.batch(&format!(
        "CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor; CREATE ROLE {admin} LOGIN IN ROLE custody_admin"
    ));
    let calls = [
        "rotate_signing_key()".to_owned(),
        "retire_signing_keys()".into(),
        "recover_signing_key('x')".into(),
        format!("revoke_signing_key('{k1}', 0, 'x')"),
    ];
    for mut session in [db.app(), db.session(&auditor)] {
        for call in &calls {
            assert_eq!(session.fails(&format!("SELECT custody.{call}")), "42501", "{call}");
        }
        assert_eq!(session.fails("UPDATE custody.signing_key SET until_lsn = NULL"), "42501");
        assert_eq!(session.fails("UPDATE custody.instance SET key_id = NULL"), "42501");
        // The library has to be there first: before, any custody.… is a name without a meaning.
        session.batch("SELECT custody.tenant()");
        assert_eq!(session.fails("SET custody.recover_lost_key = off"), "42501");
    }
    let mut admin = db.session(&admin);
    admin.batch("SELECT custody.rotate_signing_key()");
    admin.batch("SELECT custody.retire_signing_keys()");
    assert_eq!(admin.fails("SELECT custody.recover_signing_key('x')"), "UC037");
    assert_ne!(current(&mut s), k1);
    s.assert_valid();
}

#[test]
fn checkpoints_are_signed_by_both_until_the_old_key_ends() {
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch("CALL custody.checkpoint()");
    let k1 = current(&mut s);
    let first: String = s.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1");
    let old: String = s.one("SELECT custody.checkpoint_key()");
    // A prepared transaction holds it back.
    s.batch(&format!("BEGIN; {}; PREPARE TRANSACTION 'c_{}'", patient(1), db.name));
    rotate(&mut s);
    s.batch("CALL custody.checkpoint()");
    let both: String = s.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1");
    assert_eq!(both.lines().filter(|l| l.starts_with('—')).count(), 2, "{both}");
    let keys: Vec<String> = s.rows("SELECT custody.checkpoint_keys()", &[]).iter().map(|r| r.get(0)).collect();
    let new: String = s.one("SELECT custody.checkpoint_key()");
    assert_eq!(keys, [new.clone(), old.clone()]);
    for key in [&old, &new] {
        let key = custody_core::tlog::note::NoteKey::parse(key).unwrap();
        custody_core::tlog::note::open(both.as_bytes(), &[key]).unwrap();
    }
    s.batch(&format!("COMMIT PREPARED 'c_{}'", db.name));
    while s.count(&format!("custody.signing_key WHERE key_id = '{k1}' AND ended = 'retire'")) == 0 {
        s.batch("CALL custody.checkpoint()");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    s.batch("CALL custody.checkpoint()");
    let last: String = s.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1");
    assert_eq!(last.lines().filter(|l| l.starts_with('—')).count(), 1, "{last}");
    let pin = fingerprint(&mut s, &k1);
    for note in [&first, &both, &last] {
        let found = s.verify(&format!("pin => '{pin}', checkpoints => ARRAY['{note}']"));
        assert_eq!(found, ("valid".into(), vec![]), "{note}");
    }
    // custody.key_overlap keeps it longer.
    let k2 = current(&mut s);
    rotate(&mut s);
    s.batch("ALTER SYSTEM SET custody.key_overlap = '1h'");
    s.batch("SELECT pg_reload_conf()");
    while s.one::<String>("SELECT current_setting('custody.key_overlap')") != "1h" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for _ in 0..3 {
        s.batch("CALL custody.checkpoint()");
    }
    let kept = s.count(&format!("custody.signing_key WHERE key_id = '{k2}' AND ended IS NULL"));
    s.batch("ALTER SYSTEM RESET custody.key_overlap");
    s.batch("SELECT pg_reload_conf()");
    assert_eq!(kept, 1);
}

#[test]
fn a_crash_between_the_file_and_the_commit() {
    let cluster = Cluster::temporary(&installation(), &["fsync = off"]).unwrap();
    let session = || Session(cluster.connect("postgres", SUPERUSER).unwrap());
    let mut s = session();
    s.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
    let k1 = current(&mut s);
    let pin = fingerprint(&mut s, &k1);
    s.batch("BEGIN; INSERT INTO t VALUES (2)");
    let made: String = s.one("SELECT custody.rotate_signing_key()");
    let orphan = file(&mut s, &made[..16]);
    assert!(orphan.exists());
    session().batch("CREATE TABLE wal_goes_on ()");
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = session();
    assert_eq!(current(&mut s), k1);
    s.batch("INSERT INTO t VALUES (3)");
    let k2 = rotate(&mut s);
    s.batch("INSERT INTO t VALUES (4)");
    // And after it, at once, with the retirement under way.
    s.batch("SELECT custody.retire_signing_keys()");
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let mut s = session();
    assert_eq!(current(&mut s), k2);
    s.batch("INSERT INTO t VALUES (5)");
    while s.count("custody.signing_key WHERE ended IS NOT NULL") == 0 {
        s.batch("CALL custody.checkpoint()");
    }
    assert_eq!(s.verify(&format!("pin => '{pin}'")), ("valid".into(), vec![]));
    let error = s.0.batch_execute("INSERT INTO t VALUES (5)").unwrap_err();
    assert_eq!(state(&error), "23505");
}

#[test]
fn a_promoted_standby_without_the_key_writes_on() {
    let installation = installation();
    let primary = Cluster::temporary(&installation, &["fsync = off"]).unwrap();
    let mut s = Session(primary.connect("postgres", SUPERUSER).unwrap());
    s.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
    let k1 = current(&mut s);
    let first = fingerprint(&mut s, &k1);
    let dir = PathBuf::from(format!("/tmp/custody-keys-standby-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    must(Command::new("chmod").arg("777").arg(&dir)).unwrap();
    let (socket, data) = (primary.socket().display().to_string(), dir.join("data").display().to_string());
    must(installation.program("pg_basebackup").args([
        "--host",
        &socket,
        "--username",
        SUPERUSER,
        "--pgdata",
        &data,
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--wal-method=stream",
    ]))
    .unwrap();
    let conf = dir.join("data/postgresql.auto.conf");
    let text = std::fs::read_to_string(&conf).unwrap() + &format!("unix_socket_directories = '{}'\n", dir.display());
    std::fs::write(&conf, text).unwrap();
    let standby = Cluster::existing(&installation, &dir);
    standby.start().unwrap();
    let mut b = Session(standby.connect("postgres", SUPERUSER).unwrap());
    // The key changes on the primary; its file is not in the WAL.
    let k2 = rotate(&mut s);
    s.batch("INSERT INTO t VALUES (2)");
    for _ in 0..300 {
        if b.count("t") == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(b.verify(&format!("pin => '{first}'")), ("valid".into(), vec![]));
    b.batch("SELECT pg_promote()");
    b.batch("INSERT INTO t VALUES (3)");
    assert_eq!(b.count("custody.incarnation"), 2);
    assert_eq!(b.one::<String>("SELECT recovers FROM custody.signing_key ORDER BY created_at DESC LIMIT 1"), k2);
    assert_eq!(b.verify(""), ("valid".into(), vec!["key_recovered".into()]));
    let (verdict, found) = b.verify(&format!("pin => '{first}'"));
    assert!(
        verdict == "invalid" && found.iter().all(|f| f.starts_with("key_not_valid") || f == "key_recovered"),
        "{found:?}"
    );
    let k3 = current(&mut b);
    let third = fingerprint(&mut b, &k3);
    assert_eq!(b.verify(&format!("pin => '{first} {third}'")).0, "valid");
    standby.stop().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
