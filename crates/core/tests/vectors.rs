//! The vectors of `tests/vectors/`, made by an independent implementation from `docs/format.md` alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use custody_core::entry::{Entry, actor_digest, genesis, row_digest};
use custody_core::key::{PrivateKey, PublicKey, fingerprint, hex, key_id};
use custody_core::verify::{ChainId, Head, KeyRecord, Report, Verifier};
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
    let names = ["actor_salt", "row_salt", "actor_digest", "row_digest", "prev_hash", "hash", "signature"];
    let [actor_salt, row_salt, actor_digest, row_digest, prev_hash, hash, signature] = names.map(|n| bytes(v, n));
    f(&Entry {
        incarnation: uuid(v, "incarnation").unwrap(),
        tenant: text(v, "tenant").unwrap(),
        lane: integer(v, "lane"),
        seq: integer(v, "seq"),
        format: integer(v, "format") as i16,
        lsn: integer(v, "lsn") as u64,
        ordinal: integer(v, "ordinal"),
        at: integer(v, "at"),
        xid: integer(v, "xid") as u64,
        op: text(v, "op").unwrap(),
        schema_name: text(v, "schema_name"),
        table_name: text(v, "table_name"),
        login_role: text(v, "login_role").unwrap(),
        acting_role: text(v, "acting_role").unwrap(),
        move_id: uuid(v, "move_id"),
        actor_seq: integer(v, "actor_seq"),
        signs_run: v["signs_run"].as_bool().unwrap(),
        key_id: text(v, "key_id"),
        actor_salt: actor_salt.as_deref(),
        actor: text(v, "actor"),
        row_salt: row_salt.as_deref(),
        row_key: text(v, "row_key"),
        old: text(v, "old"),
        new: text(v, "new"),
        actor_digest: actor_digest.as_deref(),
        row_digest: row_digest.as_deref().unwrap_or_default(),
        prev_hash: prev_hash.as_deref().unwrap_or_default(),
        hash: hash.as_deref().unwrap_or_default(),
        signature: signature.as_deref(),
    })
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
            let endorsement = key(predecessor).endorse(incarnation, &public);
            assert_eq!(Some(&endorsement[..]), bytes(v, "endorsement").as_deref());
            let predecessor = PublicKey::from_bytes(&key(predecessor).public_key()).unwrap();
            assert!(predecessor.verify_endorsement(incarnation, &public, &endorsement));
        }
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

fn verify(lines: &[Value], pin: Option<&str>, heads: Vec<Head>) -> Report {
    let keys: Vec<_> = lines
        .iter()
        .filter(|v| v["record"] == "key")
        .map(|v| KeyRecord {
            key_id: text(v, "key_id").unwrap().into(),
            incarnation: uuid(v, "incarnation").unwrap(),
            public_key: bytes(v, "public_key").unwrap(),
            predecessor: text(v, "predecessor").map(Into::into),
            endorsement: bytes(v, "endorsement"),
        })
        .collect();
    let mut verifier = Verifier::new(&keys, pin.map(|p| vec![p.to_owned()]).as_deref(), heads);
    for v in lines.iter().filter(|v| v["record"] == "entry") {
        with_entry(v, |e| verifier.entry(e));
    }
    verifier.finish()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn every_tampered_export_is_found_and_named() {
    let dir = vectors().join("tampered");
    let expected = json(&dir.join("expected.json"));
    let mut checks = 0;
    for case in expected["cases"].as_array().unwrap() {
        let file = text(case, "file").unwrap();
        let lines = lines(&dir.join(file));
        for check in case["checks"].as_array().unwrap() {
            let heads = match text(check, "heads") {
                None => Vec::new(),
                Some(path) => json(&dir.join(path))
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|h| Head {
                        chain: ChainId {
                            incarnation: uuid(h, "incarnation").unwrap(),
                            tenant: text(h, "tenant").unwrap().into(),
                            lane: integer(h, "lane"),
                        },
                        seq: integer(h, "seq"),
                        hash: bytes(h, "hash").unwrap(),
                    })
                    .collect(),
            };
            type Row = (String, Option<(String, String, i64)>, i64);
            let found: BTreeSet<Row> = verify(&lines, text(check, "pin"), heads)
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
    let whole = lines(&vectors().join("whole.jsonl"));
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
            let report = verify(&copy, None, Vec::new());
            assert!(!report.findings.is_empty(), "line {i}, {name}");
        }
    }
}
