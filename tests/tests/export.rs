//! Archives over the wire: `custody export`, what becomes of it when it is killed or tampered with, and the live log.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use custody_core::export::manifest::{self, Manifest, part_name};
use custody_harness::{Cluster, SUPERUSER};
use custody_tests::tool::{Dir, TOOL, custody, url};
use custody_tests::{Db, Session, installation};
use rand::Rng;
use serde_json::Value;

/// Entries of some length for tenants a and b, so that there are several parts of the least size.
fn fill(db: &Db, from: i32, to: i32) {
    let mut app = db.app();
    for tenant in ["a", "b"] {
        app.as_tenant(
            tenant,
            &format!("INSERT INTO clinic.patients (id, name, notes) SELECT i, 'x', repeat(md5(i::text), 20) FROM generate_series({from}, {to}) i"),
        );
    }
}

fn export_log(session: &mut Session, tenant: Option<&str>) -> String {
    session.rows("SELECT custody.export_log($1)", &[&tenant]).iter().map(|r| r.get::<_, String>(0) + "\n").collect()
}

fn pin(session: &mut Session) -> String {
    session.one("SELECT fingerprint FROM custody.signing_key ORDER BY created_at LIMIT 1")
}

fn last_note(session: &mut Session) -> String {
    session.one("SELECT note FROM custody.checkpoints ORDER BY size DESC LIMIT 1")
}

fn read(archive: &str) -> Manifest {
    Manifest::read(&fs::read(format!("{archive}/{}", manifest::FILE)).unwrap()).unwrap()
}

/// Keys and parts, one after another, as another tool decompresses them.
fn decompressed(archive: &str) -> String {
    let mut command = Command::new("zstd");
    command.args(["-dcq", &format!("{archive}/{}", manifest::KEYS)]);
    command.args(read(archive).parts.iter().map(|part| format!("{archive}/{}", part.file)));
    String::from_utf8(command.output().expect("zstd").stdout).unwrap()
}

fn export(db: &Db, out: &str, more: &[&str]) -> (i32, String) {
    let url = url(db, SUPERUSER);
    custody(&[&["export", "--database", &url, "--out", out, "--part-size", "1", "--quiet"], more].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn an_archive_is_the_log_and_says_how_far_it_is_proved() {
    let (dir, db) = (Dir::new("archive"), Db::clinic());
    let mut session = db.superuser();
    fill(&db, 1, 2000);
    let pin = pin(&mut session);
    let role = format!("{}_auditor", db.name);
    session.batch(&format!("CREATE ROLE {role} LOGIN IN ROLE custody_auditor"));

    let (all, of_a) = (dir.at("all"), dir.at("a"));
    let auditor = url(&db, &role);
    let (status, text) = custody(&["export", "--database", &auditor, "--out", &all, "--part-size", "1"]);
    assert_eq!(status, 0, "{text}");
    assert!(read(&all).parts.len() > 3 && read(&all).checkpoints.is_empty(), "{text}");
    assert_eq!(decompressed(&all), export_log(&mut session, None));
    for file in fs::read_dir(&all).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "there are people's records in it"
        );
    }
    assert_eq!(fs::metadata(&all).unwrap().permissions().mode() & 0o777, 0o700);
    let (status, text) = export(&db, &all, &[]);
    assert!(status == 2 && text.contains("complete export already"), "{text}");

    let verify = |arguments: &[&str]| {
        let (status, text) = custody(&[&["verify", "--json"], arguments].concat());
        (status, json(&text))
    };
    let assurance = |arguments: &[&str]| {
        let (status, told) = verify(arguments);
        assert_eq!(status, 0, "{told}");
        told["assurance"].as_str().unwrap().to_owned()
    };
    assert_eq!(assurance(&[&all, "--unpinned"]), "chained");
    assert_eq!(assurance(&[&all, "--pin", &pin]), "signed");
    assert_eq!(assurance(&["--database", &auditor, "--unpinned"]), "chained");
    assert_eq!(assurance(&["--database", &auditor, "--pin", &pin]), "signed");
    let in_sql = |session: &mut Session, arguments: &str| -> String {
        let summary: String = session.one(&format!("SELECT detail FROM custody.verify({arguments}) LIMIT 1"));
        summary.split("assurance: ").nth(1).unwrap().split([',', ';']).next().unwrap().to_owned()
    };
    assert_eq!(in_sql(&mut session, ""), "chained");
    assert_eq!(in_sql(&mut session, &format!("'{pin}'")), "signed");

    // A checkpoint that is kept, entries after it, and another checkpoint.
    session.batch("CALL custody.checkpoint()");
    let note = dir.file("note", last_note(&mut session));
    db.app().as_tenant("a", "UPDATE clinic.patients SET name = 'y' WHERE id < 4");
    session.batch("CALL custody.checkpoint()");
    db.app().as_tenant("a", "UPDATE clinic.patients SET name = 'z' WHERE id < 3");
    assert_eq!(in_sql(&mut session, &format!("'{pin}'")), "checkpointed");
    assert_eq!(in_sql(&mut session, ""), "chained", "its own word");
    let (status, text) = export(&db, &of_a, &["--tenant", "a", "--checkpoint", &note]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(decompressed(&of_a), export_log(&mut session, Some("a")));
    assert!(decompressed(&of_a).lines().all(|l| !l.contains("\"tenant\" : \"b\"")), "nobody else's");
    assert_eq!(read(&of_a).proofs.len(), 2);
    let now = dir.at("now");
    assert_eq!(export(&db, &now, &["--checkpoint", &note]).0, 0);
    for archive in [&of_a, &now] {
        let (status, told) = verify(&[archive, "--pin", &pin]);
        assert_eq!((status, told["assurance"].as_str()), (0, Some("checkpointed")), "{told}");
        assert_eq!(told["up_to_checkpoint"]["counter"], 1);
        assert_eq!(told["up_to_checkpoint"]["entries_after"], 2, "{told}");
        let digest = manifest::digest(&fs::read(format!("{archive}/manifest.json")).unwrap());
        assert_eq!(told["archives"][0]["digest"].as_str(), Some(&*digest));
        let (status, told) = verify(&[archive, "--pin", &pin, "--checkpoint", &note]);
        assert_eq!((status, told["assurance"].as_str()), (0, Some("anchored")), "{told}");
        assert_eq!(told["up_to_checkpoint"]["counter"], 0);
        assert_eq!(told["up_to_checkpoint"]["entries_after"], 5, "{told}");
        assert_eq!(assurance(&[archive, "--unpinned", "--checkpoint", &note]), "anchored", "what is held needs no key");
        assert_eq!(assurance(&[archive, "--unpinned"]), "chained");
    }
    for tenant in [&["--tenant", "a"][..], &[]] {
        let live = [&["--database", &auditor, "--pin", &pin], tenant].concat();
        assert_eq!(assurance(&live), "checkpointed");
        assert_eq!(assurance(&[&live[..], &["--checkpoint", &note]].concat()), "anchored");
    }
    // An archive that was made before knows nothing of a later checkpoint.
    let (status, told) = verify(&[&all, "--pin", &pin, "--checkpoint", &note]);
    assert_eq!((status, &told["assurance"]), (1, &Value::Null), "{told}");
    // The other way round, the later goes on from the earlier; as files, too.
    let file = dir.file("all.jsonl", export_log(&mut session, None));
    for (old, new) in [(&all, &now), (&all, &file), (&file, &now), (&now, &file)] {
        assert_eq!(custody(&["diff-log", old, new]).0, 0, "{old} {new}");
    }
    assert_eq!(custody(&["diff-log", &now, &all]).0, 1);
    // A tenant without a checkpoint, and one that is not there.
    session.batch("SELECT custody.create_tenant('new', 'N')");
    let (status, text) = export(&db, &dir.at("nobody"), &["--tenant", "nobody"]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(verify(&[&dir.at("nobody"), "--pin", &pin]).0, 1, "no entries are no good verdict");

    // Who is no auditor is refused, and leaves nothing that could pass for an export.
    let app = url(&db, &db.app_name());
    let (status, text) = custody(&["export", "--database", &app, "--out", &dir.at("app")]);
    assert!(status == 2 && text.contains("permission denied"), "{text}");
    assert_eq!(custody(&["verify", "--database", &app, "--pin", &pin]).0, 2);
    assert_eq!(custody(&["verify", &dir.at("app"), "--pin", &pin]).0, 2);
    let (status, text) = custody(&["verify", "postgresql://db.example/x?sslmode=disable", "--pin", &pin]);
    assert!(status == 2 && text.contains("--insecure-plaintext"), "{text}");
}

#[test]
fn an_export_that_is_killed_goes_on_with_what_it_had_begun() {
    let (dir, db) = (Dir::new("killed"), Db::clinic());
    let mut session = db.superuser();
    fill(&db, 1, 6000);
    session.batch("CALL custody.checkpoint()");
    let (pin, expected, out) = (pin(&mut session), export_log(&mut session, None), dir.at("out"));
    let url = url(&db, SUPERUSER);
    let arguments = ["export", "--database", &url, "--out", &out, "--part-size", "1", "--level", "19", "--quiet"];
    let (mut kills, mut longest) = (0, 300);
    let mut grown = 6000;
    loop {
        let mut child =
            Command::new(TOOL).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(20..longest)));
        longest += 150;
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code().is_some() {
            assert!(said.contains("complete export already"), "{said}");
            break;
        }
        kills += 1;
        if !fs::exists(format!("{out}/manifest.json")).unwrap() {
            assert_eq!(custody(&["verify", &out, "--pin", &pin]).0, 2, "what is not complete proves nothing");
        }
        // What comes later is not in it; and what is open while it begins is not, either.
        if fs::exists(format!("{out}/unfinished.json")).unwrap() && kills % 4 == 1 {
            fill(&db, grown + 1, grown + 50);
            grown += 50;
        }
        assert!(kills < 200);
    }
    assert!(kills > 2, "{kills}");
    assert_eq!(decompressed(&out), expected);
    let (status, text) = custody(&["verify", &out, "--pin", &pin]);
    assert!(status == 0 && text.contains("assurance: checkpointed"), "{text}");
    assert!(!fs::exists(format!("{out}/unfinished.json")).unwrap() || export(&db, &out, &[]).0 == 2);
    // Not where other things are.
    let other = dir.at("other");
    fs::create_dir(&other).unwrap();
    fs::write(format!("{other}/letter"), "dear").unwrap();
    let (status, text) = export(&db, &other, &[]);
    assert!(status == 2 && text.contains("other things"), "{text}");
}

#[test]
fn an_interrupted_export_does_not_go_on_as_another() {
    let (dir, db) = (Dir::new("interrupted"), Db::clinic());
    let mut session = db.superuser();
    fill(&db, 1, 3000);
    let url = url(&db, SUPERUSER);
    let out = dir.at("out");
    let interrupted = || {
        let _ = fs::remove_dir_all(&out);
        let arguments = ["export", "--database", &url, "--out", &out, "--part-size", "1", "--level", "19", "--quiet"];
        let mut child = Command::new(TOOL).args(arguments).spawn().unwrap();
        while !fs::exists(format!("{out}/{}", part_name(1))).unwrap() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        child.wait().unwrap();
        assert!(fs::exists(format!("{out}/unfinished.json")).unwrap());
    };
    interrupted();
    let (status, text) = export(&db, &out, &["--tenant", "a"]);
    assert!(status == 2 && text.contains("of another tenant"), "{text}");
    let other = Db::clinic();
    let (status, text) = export(&other, &out, &[]);
    assert!(status == 2 && text.contains("of another database"), "{text}");
    session.batch("SELECT custody.new_incarnation('test')");
    let (status, text) = export(&db, &out, &[]);
    assert!(status == 2 && text.contains("earlier life"), "{text}");
    interrupted();
    assert_eq!(export(&db, &out, &[]).0, 0);
}

#[test]
fn what_was_done_to_an_archive_is_seen() {
    let (dir, db) = (Dir::new("tampered"), Db::clinic());
    let mut session = db.superuser();
    fill(&db, 1, 2000);
    session.batch("CALL custody.checkpoint()");
    let (pin, out) = (pin(&mut session), dir.at("out"));
    assert_eq!(export(&db, &out, &["--tenant", "a"]).0, 0);
    let parts = read(&out).parts.len();
    assert!(parts > 2);
    let verify = |change: &dyn Fn(&str)| {
        let copy = dir.at("copy");
        let _ = fs::remove_dir_all(&copy);
        assert!(Command::new("cp").args(["-r", &out, &copy]).status().unwrap().success());
        change(&copy);
        custody(&["verify", &copy, "--pin", &pin])
    };
    let edit = |copy: &str, change: &dyn Fn(&mut Value)| {
        let path = format!("{copy}/{}", manifest::FILE);
        let mut value = json(&fs::read_to_string(&path).unwrap());
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    };
    let compress = |path: &str, content: &[u8]| {
        fs::write(format!("{path}.plain"), content).unwrap();
        assert!(Command::new("zstd").args(["-qf", &format!("{path}.plain"), "-o", path]).status().unwrap().success());
        fs::remove_file(format!("{path}.plain")).unwrap();
    };
    let part = |copy: &str, n: usize| format!("{copy}/{}", part_name(n));
    assert_eq!(verify(&|_| {}).0, 0);

    let (status, text) = verify(&|copy| {
        let plain = Command::new("zstd").args(["-dcq", &part(copy, 2)]).output().unwrap().stdout;
        let edited = String::from_utf8(plain).unwrap().replacen("\\\"x\\\"", "\\\"y\\\"", 1);
        compress(&part(copy, 2), edited.as_bytes());
    });
    assert!(status == 1 && text.contains("edited: tenant \"a\"") && text.contains("not the file that"), "{text}");
    let (status, text) = verify(&|copy| {
        fs::rename(part(copy, 1), part(copy, 9)).unwrap();
        fs::rename(part(copy, 2), part(copy, 1)).unwrap();
        fs::rename(part(copy, 9), part(copy, 2)).unwrap();
    });
    assert!(status == 2 && text.contains("00001"), "{text}");
    let (status, text) = verify(&|copy| fs::remove_file(part(copy, 2)).unwrap());
    assert!(status == 2 && text.contains("00002"), "{text}");
    let (status, text) = verify(&|copy| {
        let bytes = fs::read(part(copy, 2)).unwrap();
        fs::write(part(copy, 2), &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(status == 2 && text.contains("00002"), "{text}");
    let (status, text) = verify(&|copy| fs::remove_file(format!("{copy}/{}", manifest::FILE)).unwrap());
    assert!(status == 2 && text.contains("not complete"), "{text}");
    // A gigabyte of blanks in a few kilobytes.
    let (status, text) = verify(&|copy| {
        let bomb = format!("head -c 1000000000 /dev/zero | zstd -qf -o {}", part(copy, 1));
        assert!(Command::new("sh").args(["-c", &bomb]).status().unwrap().success());
    });
    assert!(status == 2 && text.contains("more than the manifest says"), "{text}");
    let (status, text) = verify(&|copy| {
        let bomb = format!("head -c 1000000 /dev/zero | zstd -qf --ultra --long=31 -22 -o {}", part(copy, 1));
        assert!(Command::new("sh").args(["-c", &bomb]).status().unwrap().success());
    });
    assert_ne!(status, 0, "{text}");

    // The manifest is believed in nothing.
    let without_last = |m: &mut Value| {
        let last = m["parts"].as_array_mut().unwrap().pop().unwrap();
        m["entries"] = (m["entries"].as_u64().unwrap() - last["records"].as_u64().unwrap()).into();
    };
    let (status, text) = verify(&|copy| {
        edit(copy, &without_last);
        fs::remove_file(part(copy, parts)).unwrap();
    });
    assert!(status == 1 && text.contains("truncated") && text.contains("which chains are there"), "{text}");
    let (status, text) = verify(&|copy| edit(copy, &without_last));
    assert!(status == 1 && text.contains("does not name it"), "{text}");
    let (status, text) = verify(&|copy| edit(copy, &|m| m["parts"][0]["sha256"] = "0".repeat(64).into()));
    assert!(status == 1 && text.contains("not the file that"), "{text}");
    let (status, text) = verify(&|copy| edit(copy, &|m| m["chains"]["sha256"] = "0".repeat(64).into()));
    assert!(status == 1 && text.contains("not the file that"), "{text}");
    let (status, text) = verify(&|copy| edit(copy, &|m| m["parts"][1]["first"][3] = 999_999.into()));
    assert_ne!(status, 0, "{text}");
    let (status, text) = verify(&|copy| edit(copy, &|m| m["proofs"][0]["heads"][0]["seq"] = 1.into()));
    assert!(status == 1 && text.contains("these are not the heads"), "{text}");
    let (status, text) = verify(&|copy| edit(copy, &|m| m["later"] = 1.into()));
    assert!(status == 2 && text.contains("unknown field"), "{text}");
    // Without its proof it is as good as any export: no better.
    let (status, text) = verify(&|copy| edit(copy, &|m| m["proofs"] = Value::Array(Vec::new())));
    assert!(status == 0 && text.contains("assurance: signed"), "{text}");
}

#[test]
fn a_live_log_is_read_and_not_asked() {
    let (dir, db) = (Dir::new("live"), Db::clinic());
    let mut session = db.superuser();
    fill(&db, 1, 50);
    session.batch("CALL custody.checkpoint()");
    let note = dir.file("note", last_note(&mut session));
    fill(&db, 51, 60);
    session.batch("CALL custody.checkpoint()");
    let (pin, url) = (pin(&mut session), url(&db, SUPERUSER));
    let verify = |more: &[&str]| custody(&[&["verify", "--database", &url, "--pin", &pin], more].concat());
    assert_eq!(verify(&["--checkpoint", &note]).0, 0);
    // The server's own verification is made to say what it likes.
    session.batch(
        "ALTER TABLE custody.entry DISABLE TRIGGER ALL;
         UPDATE custody.entry SET new = replace(new, '\"x\"', '\"y\"') WHERE tenant = 'b' AND seq = 7;
         CREATE OR REPLACE FUNCTION custody.verify(pin text DEFAULT NULL, heads jsonb DEFAULT NULL, tenant text DEFAULT NULL, checkpoints text[] DEFAULT NULL, witnesses text[] DEFAULT NULL)
         RETURNS TABLE (verdict text, incarnation uuid, tenant text, lane integer, seq bigint, detail text)
         LANGUAGE sql AS 'SELECT ''valid'', NULL::uuid, NULL, NULL::int, NULL::bigint, ''all is well'''",
    );
    let (status, text) = verify(&[]);
    assert!(status == 1 && text.contains("edited: tenant \"b\", lane 0, seq 7"), "{text}");
    assert_eq!(verify(&["--tenant", "a"]).0, 0, "the other tenant's is as it was");
    let (status, text) = verify(&["--tenant", "b"]);
    assert!(status == 1 && text.contains("seq 7"), "{text}");
    session.batch("UPDATE custody.entry SET new = replace(new, '\"y\"', '\"x\"') WHERE tenant = 'b' AND seq = 7");
    assert_eq!(verify(&["--checkpoint", &note]).0, 0);
    session.batch("DELETE FROM custody.checkpoint_leaf; DELETE FROM custody.checkpoint_note");
    let (status, text) = verify(&["--checkpoint", &note]);
    assert!(status == 1 && text.contains("rolled_back"), "{text}");
    let (status, text) = export(&db, &dir.at("out"), &["--checkpoint", &note]);
    assert!(status == 1 && text.contains("rolled_back"), "exported all the same: {text}");
    assert_eq!(custody(&["verify", &dir.at("out"), "--pin", &pin]).0, 0);
}

#[test]
fn what_was_exported_a_crash_does_not_take_back() {
    let dir = Dir::new("crash");
    let settings = ["synchronous_commit = off", "wal_writer_delay = 10s", "checkpoint_timeout = 1h"];
    let cluster = Cluster::temporary(&installation(), &settings).unwrap();
    let mut session = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    session.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t')");
    let url = format!("host={} user=postgres dbname=postgres", cluster.socket().display());
    let pin = pin(&mut session);
    for round in 1..4 {
        session.batch(&format!("INSERT INTO t VALUES ({round})"));
        let out = dir.at(&format!("{round}"));
        let (status, text) = custody(&["export", "--database", &url, "--out", &out]);
        assert_eq!(status, 0, "{text}");
        drop(session);
        cluster.kill().unwrap();
        cluster.start().unwrap();
        let later = dir.at(&format!("{round}-later"));
        assert_eq!(custody(&["export", "--database", &url, "--out", &later]).0, 0);
        let (status, text) = custody(&["diff-log", &out, &later]);
        assert_eq!(status, 0, "{text}");
        assert_eq!(custody(&["verify", &later, "--pin", &pin]).0, 0);
        session = Session(cluster.connect("postgres", SUPERUSER).unwrap());
        assert_eq!(session.count("t"), round);
    }
}

#[test]
fn over_a_network_the_server_must_be_who_it_says() {
    let dir = Dir::new("tls");
    // An address of this machine at which no other server listens.
    let random = rand::rng().random_range(0..1 << 22);
    let address = format!("127.{}.{}.{}", 64 + (random >> 16), random >> 8 & 255, 1 + random % 254);
    let cluster = Cluster::temporary(&installation(), &[&format!("listen_addresses = '{address}'")]).unwrap();
    let mut session = Session(cluster.connect("postgres", SUPERUSER).unwrap());
    session.batch("CREATE EXTENSION pg_custody; CREATE TABLE t (id int PRIMARY KEY); SELECT custody.audit('t'); INSERT INTO t VALUES (1)");
    let (pin, port) = (pin(&mut session), session.one::<String>("SHOW port"));
    // An authority, and a certificate of its own for a server of this name.
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(&dir.0).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    dir.file("names", "subjectAltName=DNS:db.example");
    for name in ["right", "other"] {
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}-ca.key -out {name}-ca.crt -subj /CN={name}"
        ));
        openssl(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=db.example"));
        openssl(&format!(
            "x509 -req -days 2 -in {name}.csr -CA {name}-ca.crt -CAkey {name}-ca.key -CAcreateserial -extfile names -out {name}.crt"
        ));
    }
    let (right, other) = (dir.at("right-ca.crt"), dir.at("other-ca.crt"));
    for (from, to) in [("right.key", "server.key"), ("right.crt", "server.crt")] {
        let to = cluster.data().join(to);
        fs::copy(dir.at(from), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        let server = fs::metadata(cluster.data()).unwrap();
        std::os::unix::fs::chown(&to, Some(server.uid()), Some(server.gid())).unwrap();
    }
    let verify = |host: &str, more: &str| {
        let url = format!("host={host} hostaddr={address} port={port} user=postgres dbname=postgres {more}");
        custody(&["verify", "--database", &url, "--pin", &pin])
    };
    let (status, text) = verify("db.example", &format!("sslmode=verify-full sslrootcert={right}"));
    assert!(status == 2 && text.contains("TLS"), "the server has none yet, and it is not done without: {text}");
    session.batch("ALTER SYSTEM SET ssl = on");
    session.batch("SELECT pg_reload_conf()");
    let begun = std::time::Instant::now();
    while Session(cluster.connect("postgres", SUPERUSER).unwrap()).one::<String>("SHOW ssl") != "on" {
        assert!(begun.elapsed().as_secs() < 20, "{}", cluster.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let (status, text) = verify("db.example", &format!("sslmode={mode} sslrootcert={right}"));
        assert_eq!(status, 0, "{mode}: {text}");
        assert_eq!(verify("db.example", &format!("sslmode={mode} sslrootcert={other}")).0, 2, "another's certificate");
        assert_eq!(verify("evil.example", &format!("sslmode={mode} sslrootcert={right}")).0, 2, "another name");
        assert_eq!(verify("db.example", &format!("sslmode={mode}")).0, 2, "a certificate that nobody vouches for");
    }
    assert_eq!(verify("localhost", "").0, 0, "on this machine, as it comes");
    cluster.stop().unwrap();
}
