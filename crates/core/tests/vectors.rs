//! The vectors of `tests/vectors/`, made by an independent implementation from `docs/format.md` alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use custody_core::entry::{Entry, actor_digest, genesis, row_digest};
use custody_core::export::{self, Reader, Record, Unreadable};
use custody_core::key::{Ending, PrivateKey, PublicKey, fingerprint, hex, key_id};
use custody_core::verify::{Head, Report};
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(v: &'a Value, name: &str) -> Option<&'a str> {
    v[name].as_str()
}

fn bytes(v: &Value, name: &str) -> Option<Vec<u8>> {
    let digits = v[name].as_str()?;
    Some((0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect())
}

fn uuid(v: &Value, name: &str) -> Option<Uuid> {
    v[name].as_str().map(|u| u.parse().unwrap())
}

fn integer(v: &Value, name: &str) -> i64 {
    v[name].as_i64().unwrap()
}

/// Lends an entry read from JSON to `f`.
fn with_entry<T>(v: &Value, f: impl FnOnce(&Entry<'_>) -> T) -> T {
    let mut line = v.clone();
    line["record"] = "entry".into();
    match Reader::new(line.to_string().as_bytes()).next_record() {
        Ok(Some(Record::Entry(entry))) => f(&entry),
        other => panic!("{other:?}"),
    }
}

#[test]
fn known_answers() {
    let all = json(&vectors().join("entries.json"));
    for v in all["keys"].as_array().unwrap() {
        let seed: [u8; 32] = bytes(v, "seed").unwrap().try_into().unwrap();
        let public = PrivateKey::from_seed(&Zeroizing::new(seed)).public_key();
        assert_eq!(Some(&public[..]), bytes(v, "public_key").as_deref());
        assert_eq!(
            (Some(&*fingerprint(&public)), Some(&*key_id(&public))),
            (text(v, "fingerprint"), text(v, "key_id"))
        );
    }
    let key = |id: &str| {
        let v = all["keys"].as_array().unwrap().iter().find(|k| k["key_id"] == id).unwrap();
        PrivateKey::from_seed(&Zeroizing::new(bytes(v, "seed").unwrap().try_into().unwrap()))
    };
    for v in all["keys"].as_array().unwrap() {
        if let Some(predecessor) = text(v, "predecessor") {
            let public: [u8; 32] = bytes(v, "public_key").unwrap().try_into().unwrap();
            let incarnation = uuid(v, "incarnation").unwrap();
            let endorsement = key(predecessor).endorse(incarnation, &public, v["from_lsn"].as_i64());
            assert_eq!(Some(&endorsement[..]), bytes(v, "endorsement").as_deref());
            let predecessor = PublicKey::from_bytes(&key(predecessor).public_key()).unwrap();
            assert!(predecessor.verify_endorsement(incarnation, &public, v["from_lsn"].as_i64(), &endorsement));
        }
    }
    for v in all["ends"].as_array().unwrap() {
        let (how, until) = (Ending::named(text(v, "ended").unwrap()).unwrap(), integer(v, "until_lsn"));
        let public: [u8; 32] = bytes(v, "public_key").unwrap().try_into().unwrap();
        let (by, incarnation) = (key(text(v, "ended_by").unwrap()), uuid(v, "incarnation").unwrap());
        let signature = by.end(how, incarnation, &public, until);
        assert_eq!(Some(&signature[..]), bytes(v, "end_signature").as_deref());
        let by = PublicKey::from_bytes(&by.public_key()).unwrap();
        assert!(by.verify_end(how, incarnation, &public, until, &signature));
        assert!(!by.verify_end(how, incarnation, &public, until - 1, &signature));
    }
    for v in all["genesis"].as_array().unwrap() {
        let hash = genesis(uuid(v, "incarnation").unwrap(), text(v, "tenant").unwrap(), integer(v, "lane"));
        assert_eq!(Some(&*hex(&hash)), text(v, "hash"));
    }
    for v in all["row_digests"].as_array().unwrap() {
        if let Some(salt) = bytes(v, "row_salt") {
            let digest = row_digest(&salt, text(v, "row_key"), text(v, "old"), text(v, "new"));
            assert_eq!(Some(&*hex(&digest)), text(v, "row_digest"), "{}", v["description"]);
        }
    }
    for v in all["actor_digests"].as_array().unwrap() {
        if let (Some(salt), Some(actor)) = (bytes(v, "actor_salt"), text(v, "actor")) {
            assert_eq!(Some(&*hex(&actor_digest(&salt, actor))), text(v, "actor_digest"), "{}", v["description"]);
        }
    }
    let entries = all["entries"].as_array().unwrap();
    assert!(entries.len() >= 8);
    for v in entries {
        let e = &v["entry"];
        let hash = with_entry(e, |entry| entry.compute_hash());
        assert_eq!(Some(&*hex(&hash)), text(e, "hash"), "{}", v["description"]);
        if e["signs_run"] == true {
            let signature = key(text(e, "key_id").unwrap()).sign_run(&hash);
            assert_eq!(Some(&*hex(&signature)), text(e, "signature"), "{}", v["description"]);
        }
    }
}

fn verify(export: &[u8], pin: Option<&str>, heads: Vec<Head>) -> Result<Report, Unreadable> {
    export::verify(Reader::new(export), pin.map(|p| vec![p.to_owned()]).as_deref(), heads)
}

#[test]
fn an_export_is_written_as_it_was_read() {
    let whole = fs::read_to_string(vectors().join("whole.jsonl")).unwrap();
    let mut reader = Reader::new(whole.as_bytes());
    let mut written = String::new();
    while let Some(record) = reader.next_record().unwrap() {
        written += &match record {
            Record::Key(key) => export::key_line(&key),
            Record::Entry(entry) => export::entry_line(&entry),
        };
    }
    assert_eq!(written, whole);
}

#[test]
fn every_tampered_export_is_found_and_named() {
    let dir = vectors().join("tampered");
    let expected = json(&dir.join("expected.json"));
    let mut checks = 0;
    for case in expected["cases"].as_array().unwrap() {
        let file = text(case, "file").unwrap();
        let export = fs::read(dir.join(file)).unwrap();
        for check in case["checks"].as_array().unwrap() {
            let heads = text(check, "heads").map(|path| fs::read(dir.join(path)).unwrap());
            let heads = heads.map_or(Vec::new(), |json| export::read_heads(&json).unwrap());
            type Row = (String, Option<(String, String, i64)>, i64);
            let report = verify(&export, text(check, "pin"), heads).unwrap();
            let notices: Vec<_> = report.notices.iter().map(|n| n.verdict.to_string()).collect();
            assert_eq!(serde_json::json!(notices), check["notices"], "{file}");
            let found: BTreeSet<Row> = report
                .findings
                .into_iter()
                .map(|f| {
                    let chain = f.chain.map(|c| (c.incarnation.to_string(), c.tenant, c.lane));
                    (f.verdict.to_string(), chain, f.seq)
                })
                .collect();
            let wanted: BTreeSet<Row> = check["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| {
                    let chain = text(f, "tenant").map(|tenant| {
                        (text(f, "incarnation").unwrap().to_owned(), tenant.to_owned(), integer(f, "lane"))
                    });
                    (text(f, "verdict").unwrap().to_owned(), chain, f["seq"].as_i64().unwrap_or(0))
                })
                .collect();
            assert_eq!(found, wanted, "{file}: {}", case["description"]);
            checks += 1;
        }
    }
    assert!(checks >= 60, "{checks}");
}

#[test]
fn any_bit_of_a_hashed_column_matters() {
    let whole = fs::read_to_string(vectors().join("whole.jsonl")).unwrap();
    let whole: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for (i, line) in whole.iter().enumerate().filter(|(_, l)| l["record"] == "entry") {
        for (name, value) in line.as_object().unwrap() {
            let other = match value {
                Value::String(s) if name == "record" || s.is_empty() => continue,
                Value::String(s) => {
                    let last = s.chars().last().unwrap();
                    let changed = if last == 'a' || last == '0' { '1' } else { '0' };
                    Value::String(format!("{}{changed}", &s[..s.len() - last.len_utf8()]))
                }
                Value::Number(n) => (n.as_i64().unwrap() ^ 1).into(),
                Value::Bool(b) => (!b).into(),
                _ => continue,
            };
            let mut copy = whole.clone();
            copy[i][name] = other;
            let export: String = copy.iter().map(|line| format!("{line}\n")).collect();
            let report = verify(export.as_bytes(), None, Vec::new());
            assert!(!report.is_ok_and(|r| r.findings.is_empty()), "line {i}, {name}");
        }
    }
}
