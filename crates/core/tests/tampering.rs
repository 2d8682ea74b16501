//! Nothing of an exported log can be changed unnoticed by who kept its heads and pinned its keys.

mod support;

use custody_core::json::parse_strict;
use custody_core::key::hex;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use support::{Life, Log, Step, log, make, make_with};

/// Whether a change that was not noticed is one that the format lets pass: the JSON says the same (the case of a letter in
/// `\u001f`), or only the `fingerprint` in a key record, which is for people and recomputed, is another.
fn lets_pass(log: &Log, changed: &[u8]) -> bool {
    let lines = |bytes: &[u8]| -> Vec<Value> {
        let without_fingerprint = |line: &[u8]| {
            let mut value = parse_strict(line).unwrap();
            if value["record"] == "key" {
                value["fingerprint"] = Value::Null;
            }
            value
        };
        bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|b| *b == b'\n').map(without_fingerprint).collect()
    };
    lines(&log.bytes()) == lines(changed)
}

/// Flips a bit, and says whether nobody noticed though the format lets it not pass.
fn unnoticed(log: &Log, bytes: &mut [u8], bit: usize) -> bool {
    bytes[bit / 8] ^= 1 << (bit % 8);
    let unnoticed = !log.detects(bytes) && !lets_pass(log, bytes);
    bytes[bit / 8] ^= 1 << (bit % 8);
    unnoticed
}

#[test]
fn any_single_bit_of_a_small_log_matters() {
    let one = Life { endorsed: false, transactions: Vec::new() };
    let texts = [Some("{\"id\": 1}"), None, Some("\u{1f}\u{b}")].map(|t| t.map(str::to_owned));
    let change = Step::Change { tenant: 3, actor: 1, at: -1, texts };
    let two = Life { endorsed: true, transactions: vec![(2, vec![change], true)] };
    let log = make(&[one, two]);
    let mut bytes = log.bytes();
    assert_eq!((log.keys, log.lines.len()), (2, 5));
    assert!(log.verify(&bytes).unwrap().findings.is_empty());
    for bit in 0..8 * bytes.len() {
        assert!(!unnoticed(&log, &mut bytes, bit), "bit {} of byte {}", bit % 8, bit / 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_single_bit_matters(lives in log(), bits in proptest::collection::vec(any::<Index>(), 150)) {
        let log = make(&lives);
        let mut bytes = log.bytes();
        prop_assert_eq!(log.verify(&bytes).unwrap().findings, vec![]);
        for bit in bits {
            let bit = bit.index(8 * bytes.len());
            prop_assert!(!unnoticed(&log, &mut bytes, bit), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn any_line_matters(lives in log(), others in proptest::collection::vec(any::<Index>(), 64)) {
        let log = make(&lives);
        for (at, other) in (0..log.lines.len()).zip(&others) {
            let mut without = log.lines.clone();
            without.remove(at);
            prop_assert!(log.detects(without.concat().as_bytes()), "line {at} deleted");

            // Keys are a list to look names up in: a record that is there twice, or later, is no other key.
            let other = other.index(log.lines.len());
            let among_keys = at < log.keys && other < log.keys;
            let mut twice = log.lines.clone();
            twice.insert(other, log.lines[at].clone());
            prop_assert!(log.detects(twice.concat().as_bytes()) != (at < log.keys && other <= log.keys), "line {at} again as {other}");

            let mut swapped = log.lines.clone();
            swapped.swap(at, other);
            prop_assert!(log.detects(swapped.concat().as_bytes()) != (at == other || among_keys), "lines {at} and {other} swapped");
        }
    }

    #[test]
    fn any_lines_matter(lives in log(), keep in proptest::collection::vec(any::<bool>(), 256), from in any::<Index>(), to in any::<Index>()) {
        let log = make(&lives);
        let some: Vec<_> = log.lines.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(line, _)| line.as_str()).collect();
        prop_assert!(some.len() == log.lines.len() || log.detects(some.concat().as_bytes()));

        let (from, to) = (from.index(log.lines.len()), to.index(log.lines.len()));
        let (from, to) = (from.min(to), from.max(to));
        let cut: Vec<_> = log.lines.iter().enumerate().filter(|(i, _)| !(from..=to).contains(i)).map(|(_, l)| l.as_str()).collect();
        prop_assert!(log.detects(cut.concat().as_bytes()), "lines {from} to {to} cut");
    }

    /// Whoever holds the signing keys can write another history, but not one that reaches the heads that were kept.
    #[test]
    fn heads_name_one_history(mine in log(), mut other in log(), same in any::<Index>()) {
        let same = same.index(mine.len() + 1);
        other.splice(..same.min(other.len()), mine[..same].to_vec());
        let (mine, other) = (make(&mine), make(&other));
        let all_there = mine.heads.iter().all(|head| {
            let hash = format!("\"hash\": \"{}\"", hex(&head.hash));
            other.lines.iter().any(|line| line.contains(&hash))
        });
        let pins = [&mine.pins[..], &other.pins].concat();
        prop_assert_eq!(Log { pins, ..mine }.detects(&other.bytes()), !all_there);
    }

    #[test]
    fn a_forgers_entries_do_not_fit(mine in log(), forged in log(), at in any::<Index>()) {
        let (mine, forged) = (make(&mine), make_with(&forged, 101));
        let line = at.get(&forged.lines[forged.keys..]);
        for place in mine.keys..=mine.lines.len() {
            let mut lines = mine.lines.clone();
            lines.insert(place, line.clone());
            prop_assert!(mine.detects(lines.concat().as_bytes()), "inserted at {place}");
            if place < mine.lines.len() {
                lines.remove(place + 1);
                prop_assert!(mine.detects(lines.concat().as_bytes()), "in place of {place}");
            }
        }
    }
}

/// Section 8: "Keys that are named wrongly, or endorsed wrongly, are no findings: nothing they sign is valid."
#[test]
fn what_the_format_does_not_cover() {
    let lives = [Life { endorsed: false, transactions: vec![] }, Life { endorsed: true, transactions: vec![] }];
    let log = make(&lives);
    let passes = |lines: &[String], log: &Log| !log.detects(lines.concat().as_bytes());

    let mut fingerprint = log.lines.clone();
    fingerprint[0] = fingerprint[0].replace(&log.pins[0], &"0".repeat(64));
    assert!(fingerprint != log.lines && passes(&fingerprint, &log), "the fingerprint in a record is for people");

    let mut unused = log.lines.clone();
    let stranger = make(&[Life { endorsed: false, transactions: vec![] }]).lines[0].replace("\"null\"", "null");
    unused.insert(0, stranger);
    assert!(passes(&unused, &log), "a key that signs nothing is no entry");

    let endorsement = |line: &str| parse_strict(line.as_bytes()).unwrap()["endorsement"].as_str().unwrap().to_owned();
    let wrong = log.lines[1].replace(&endorsement(&log.lines[1]), &"0".repeat(128));
    let mut endorsed = log.lines.clone();
    endorsed[1] = wrong;
    assert!(!passes(&endorsed, &log), "a key that is trusted through its endorsement");
    let key = parse_strict(log.lines[1].as_bytes()).unwrap();
    let pins = vec![log.pins[0].clone(), key["fingerprint"].as_str().unwrap().to_owned()];
    assert!(passes(&endorsed, &Log { pins, ..log }), "a key that is pinned itself needs no endorsement");
}
