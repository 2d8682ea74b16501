//! What is a manifest and what is not (format section 10).

use custody_core::export::manifest::{
    CHAINS, FORMAT, File, Id, KEYS, LogProof, Manifest, Part, Place, digest, heads_name, part_name,
};
use custody_core::tlog::leaf::{ChainHead, Leaf};
use custody_core::tlog::tenant::TenantProof;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

fn file(name: &str, records: u64) -> impl Strategy<Value = File> + use<> {
    let name = name.to_owned();
    (any::<u64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(move |(bytes, size, sha256)| File {
        file: name.clone(),
        records,
        bytes,
        size,
        sha256,
    })
}

fn leaf() -> impl Strategy<Value = Leaf> {
    (any::<u32>(), any::<i64>(), any::<u128>(), any::<u64>(), any::<[u8; 32]>(), any::<u16>()).prop_map(
        |(counter, at, incarnation, lsn, hash, tenants)| Leaf {
            counter: counter.into(),
            at,
            incarnation: Uuid::from_u128(incarnation),
            lsn,
            keys: hash,
            configuration: hash,
            tenants: tenants.into(),
            map: hash,
        },
    )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let lengths = proptest::collection::vec((1..1000u64, any::<[u8; 32]>(), any::<u64>()), 0..5);
    (lengths, proptest::option::of(".{0,5}"), any::<Option<u128>>(), any::<i64>(), leaf(), any::<bool>()).prop_flat_map(
        |(lengths, tenant, incarnation, made_at, leaf, segment)| {
            let entries = lengths.iter().map(|l| l.0).sum();
            let whose = tenant.clone().unwrap_or_default();
            let mut seq = 0;
            let parts: Vec<Part> = lengths
                .into_iter()
                .enumerate()
                .map(|(i, (records, sha256, bytes))| {
                    let place = |seq| Place(whose.clone(), Uuid::from_u128(7), -1, seq);
                    let first = place(seq + 1);
                    seq += records as i64;
                    let (file, size) = (part_name(i + 1), bytes / 2);
                    Part { file, records, bytes, size, sha256, first, last: place(seq) }
                })
                .collect();
            let heads = vec![ChainHead { incarnation: leaf.incarnation, lane: 3, seq: 9, hash: leaf.map }];
            let proof = TenantProof {
                tenant: whose,
                heads,
                map_index: leaf.lsn,
                map_path: vec![leaf.map; 2],
                leaf: leaf.clone(),
                tlog_proof: "c2sp.org/tlog-proof@v1\n…".into(),
            };
            let heads = file(&heads_name(leaf.counter), leaf.tenants);
            (file(KEYS, 2), file(CHAINS, u64::from(entries > 0)), heads).prop_map(move |(keys, chains, heads)| {
                Manifest {
                    format: FORMAT.into(),
                    incarnation: incarnation.map(|id| Id(Uuid::from_u128(id))),
                    tenant: tenant.clone(),
                    segment: segment.then_some(4),
                    made_at,
                    entries,
                    keys,
                    chains,
                    parts: parts.clone(),
                    proofs: if tenant.is_some() && !segment { vec![proof.clone()] } else { Vec::new() },
                    checkpoints: match tenant.is_none() && !segment {
                        true => vec![LogProof { leaf: leaf.clone(), tlog_proof: String::new(), heads }],
                        false => Vec::new(),
                    },
                }
            })
        },
    )
}

/// Every object within, by a path of names and places.
fn objects(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(path.clone());
            for (name, value) in map {
                objects(value, format!("{path}/{name}"), found);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                objects(value, format!("{path}/{i}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(manifest in manifest()) {
        let json = manifest.to_json();
        prop_assert_eq!(Manifest::read(&json).unwrap(), manifest);
        prop_assert_eq!(digest(&json).len(), 64);
    }

    #[test]
    fn a_member_more_or_less_or_twice_is_refused(manifest in manifest(), at in any::<prop::sample::Index>()) {
        let whole: Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        let mut found = Vec::new();
        objects(&whole, String::new(), &mut found);
        let path = at.get(&found);
        let object = |v: &mut Value| v.pointer_mut(path).unwrap().as_object_mut().unwrap().clone();
        let mut more = whole.clone();
        more.pointer_mut(path).unwrap()["later"] = json!(1);
        prop_assert!(Manifest::read(more.to_string().as_bytes()).is_err());
        let members = object(&mut whole.clone());
        for name in members.keys() {
            let mut less = whole.clone();
            less.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(name);
            prop_assert!(Manifest::read(less.to_string().as_bytes()).is_err(), "without {}", name);
        }
        if path.is_empty() {
            let twice = whole.to_string().replacen('{', "{\"made_at\": 1, ", 1);
            prop_assert!(Manifest::read(twice.as_bytes()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::read(&bytes);
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let part = |n: usize, from: i64, to: i64| {
        json!({"file": part_name(n), "records": to - from + 1, "bytes": 1, "size": 1, "sha256": "0".repeat(64),
               "first": ["a", Uuid::nil().to_string(), 0, from], "last": ["a", Uuid::nil().to_string(), 0, to]})
    };
    let file = |name: &str, records: i64| json!({"file": name, "records": records, "bytes": 1, "size": 1, "sha256": "0".repeat(64)});
    let right = json!({"format": FORMAT, "incarnation": null, "tenant": "a", "segment": null, "made_at": 0, "entries": 9,
                       "keys": file(KEYS, 1), "chains": file(CHAINS, 1), "parts": [part(1, 1, 4), part(2, 5, 9)],
                       "proofs": [], "checkpoints": []});
    let read = |change: &dyn Fn(&mut Value)| {
        let mut changed = right.clone();
        change(&mut changed);
        Manifest::read(changed.to_string().as_bytes()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(read(&|_| {}), Ok(()));
    type Change = fn(&mut Value);
    let wrong: [(&str, Change); 13] = [
        ("format", |m| m["format"] = json!("pg_custody/export/v2")),
        ("number of entries", |m| m["entries"] = json!(10)),
        ("name", |m| m["parts"][0]["file"] = json!("../1")),
        ("name", |m| m["keys"]["file"] = json!("/etc/passwd")),
        ("in order", |m| m["parts"][1]["first"][3] = json!(4)),
        ("ends before", |m| m["parts"][1]["last"][3] = json!(2)),
        ("another tenant", |m| m["tenant"] = json!("b")),
        ("lower-case hex", |m| m["keys"]["sha256"] = json!("A".repeat(64))),
        ("uuid", |m| m["incarnation"] = json!("00000000-0000-0000-0000-00000000000A")),
        ("empty", |m| m["parts"][0]["records"] = json!(0)),
        ("more chains", |m| m["chains"]["records"] = json!(10)),
        ("chains", |m| m["chains"]["records"] = json!(0)),
        ("u64", |m| m["keys"]["bytes"] = json!(-1)),
    ];
    for (why, change) in wrong {
        let refused = read(&change).unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}
