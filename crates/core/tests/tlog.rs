//! The tree, the notes and the proofs against the public vectors, and against definitions written down a second time.

use base64ct::{Base64, Encoding};
use custody_core::Hash;
use custody_core::key::{PrivateKey, hex};
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{ChainHead, Leaf, heads_digest, map};
use custody_core::tlog::merkle::{Tree, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion};
use custody_core::tlog::note::{self, Kind, NoteError, NoteKey};
use custody_core::tlog::proof::{Proof, ProofError};
use custody_core::tlog::witness::{Refusal, Request};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn hash(digits: &str) -> Hash {
    unhex(digits).try_into().unwrap()
}

/// transparency-dev/merkle, testonly/constants.go.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [(u64, &str); 4] = [
    (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    (6, "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
];

fn vector_tree(size: usize) -> Tree {
    LEAVES[..size].iter().map(|l| leaf_hash(&unhex(l))).collect()
}

#[test]
fn hashes_of_the_public_vectors() {
    assert_eq!(hex(&leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(hex(&leaf_hash(b"L123456")), "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56");
    let sha =
        |prefix: u8, text: &[u8]| -> Hash { Sha256::new_with_prefix([prefix]).chain_update(text).finalize().into() };
    assert_eq!(sha(1, b"N123N456"), hash("aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"));
    let (left, right) = ([1; 32], [2; 32]);
    assert_eq!(node_hash(&left, &right), sha(1, &[left, right].concat()));
    for (size, root) in ROOTS {
        assert_eq!(vector_tree(size as usize).root(), hash(root), "{size} leaves");
    }
}

#[test]
fn proofs_of_the_public_vectors() {
    let tree = vector_tree(8);
    let inclusion = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash);
    assert_eq!(tree.inclusion(5, 8).unwrap(), inclusion);
    let first = hash("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a");
    assert_eq!(tree.consistency(6, 8).unwrap(), [first, inclusion[1], inclusion[2]]);
}

/// RFC 6962 section 2.1, word for word.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    match m < k {
        true => [path(m, &leaves[..k]), vec![mth(&leaves[k..])]].concat(),
        false => [path(m - k, &leaves[k..]), vec![mth(&leaves[..k])]].concat(),
    }
}

fn subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    match m <= k {
        true => [subproof(m, &leaves[..k], whole), vec![mth(&leaves[k..])]].concat(),
        false => [subproof(m - k, &leaves[k..], false), vec![mth(&leaves[..k])]].concat(),
    }
}

#[test]
fn every_proof_of_small_trees_and_no_other() {
    let leaves: Vec<Hash> = (0..40u8).map(|i| leaf_hash(&[i])).collect();
    let tree: Tree = leaves.iter().copied().collect();
    for n in 0..=leaves.len() {
        let root = mth(&leaves[..n]);
        let small: Tree = leaves[..n].iter().copied().collect();
        assert_eq!(small.root(), root);
        for m in 0..n {
            let proof = tree.inclusion(m as u64, n as u64).unwrap();
            assert_eq!(proof, path(m, &leaves[..n]));
            let (m, n) = (m as u64, n as u64);
            assert!(verify_inclusion(&leaves[m as usize], m, n, &proof, &root));
            // In no other place, of no other tree, for no other leaf, with no other path.
            for other in 0..n + 2 {
                assert!(
                    other == m || !verify_inclusion(&leaves[m as usize], other, n, &proof, &root),
                    "{m} as {other} of {n}"
                );
            }
            assert!(!verify_inclusion(&leaf_hash(b"x"), m, n, &proof, &root));
            assert!(!verify_inclusion(&leaves[m as usize], m, n, &[&proof[..], &[root]].concat(), &root));
            assert!(proof.is_empty() || !verify_inclusion(&leaves[m as usize], m, n, &proof[1..], &root));
        }
        assert_eq!(tree.inclusion(n as u64, n as u64), None);
        for m in 1..=n {
            let proof = tree.consistency(m as u64, n as u64).unwrap();
            assert_eq!(proof, subproof(m, &leaves[..n], true), "{m} → {n}");
            let old = mth(&leaves[..m]);
            let (m, n) = (m as u64, n as u64);
            assert!(verify_consistency(m, &old, n, &root, &proof), "{m} → {n}");
            let mut forked = leaves[..m as usize].to_vec();
            forked[m as usize / 2] = leaf_hash(b"forked");
            assert!(!verify_consistency(m, &mth(&forked), n, &root, &proof), "a fork, {m} → {n}");
            assert!(!verify_consistency(m, &old, n, &mth(&forked), &proof));
            assert!(!verify_consistency(m, &old, n, &root, &[&proof[..], &[root]].concat()));
            assert!(proof.is_empty() || !verify_consistency(m, &old, n, &root, &proof[1..]));
            for other in 0..n + 2 {
                assert!(other == m || !verify_consistency(other, &old, n, &root, &proof), "{m} as {other} → {n}");
            }
        }
        assert_eq!(tree.consistency(0, n as u64), None, "nothing goes on from an empty tree");
        assert!(!verify_consistency(0, &empty_root(), n as u64, &root, &[]));
    }
    assert!(!verify_inclusion(&[0; 32], u64::MAX - 1, u64::MAX, &[], &[0; 32]));
    assert!(!verify_consistency(1, &[0; 32], u64::MAX, &[0; 32], &[]));
}

const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const FOO_NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
const TESSERA_SEED: &str = "AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg";
const TESSERA_KEY: &str = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
const TESSERA_TEXT: &str = "example.com/log/testdata\n15\nrKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=\n";
const TESSERA_SIGNATURE: &str =
    "M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=";

fn key(seed: [u8; 32]) -> PrivateKey {
    PrivateKey::from_seed(&Zeroizing::new(seed))
}

#[test]
fn notes_of_the_public_vectors() {
    let foo = NoteKey::parse(FOO).unwrap();
    assert_eq!(foo.to_string(), FOO);
    let note = note::open(FOO_NOTE.as_bytes(), &[foo]).unwrap();
    assert_eq!((&*note.text, &*note.signed[0].name), ("This is an example message.\n", "example.com/foo"));

    let seed: [u8; 32] = Base64::decode_vec(TESSERA_SEED).unwrap()[1..].try_into().unwrap();
    let (name, key) = ("example.com/log/testdata", key(seed));
    assert_eq!(NoteKey::new(name, Kind::Text, &key.public_key()).unwrap().to_string(), TESSERA_KEY);
    let line = note::sign(TESSERA_TEXT, name, &key).unwrap();
    assert_eq!(line, format!("— {name} {TESSERA_SIGNATURE}\n"), "byte for byte");
    let note =
        note::open(format!("{TESSERA_TEXT}\n{line}").as_bytes(), &[NoteKey::parse(TESSERA_KEY).unwrap()]).unwrap();
    let checkpoint = Checkpoint::parse(&note.text).unwrap();
    assert_eq!((checkpoint.size, checkpoint.text()), (15, TESSERA_TEXT.to_owned()));
    assert_eq!(Base64::encode_string(&leaf_hash(b"one")), "0Nc2CrefWKseHj/mStd+LqC8B+NrX0btIiPt2SmN+ek=");
}

#[test]
fn what_is_no_note() {
    let known = [NoteKey::parse(FOO).unwrap()];
    let refused = |note: &str| note::open(note.as_bytes(), &known).unwrap_err();
    let (text, line) = FOO_NOTE.split_once("\n\n").unwrap();
    assert_eq!(refused(&FOO_NOTE.replace("example m", "eXample m")), NoteError::BadSignature("example.com/foo".into()));
    assert_eq!(
        refused(&format!(
            "{text}\n\n— example.com/bar UwAQOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
        )),
        NoteError::NoKnownSignature
    );
    // A stranger's line beside a good one is passed over; a bad line of a known key is not.
    let stranger = "— example.com/bar AAAAAAAA\n";
    assert!(note::open(format!("{text}\n\n{stranger}{line}{stranger}").as_bytes(), &known).is_ok());
    let forged =
        format!("— example.com/foo {}\n", Base64::encode_string(&[&[0x53, 0x0d, 0x90, 0x3a][..], &[7; 64]].concat()));
    assert!(matches!(refused(&format!("{text}\n\n{line}{forged}")), NoteError::BadSignature(_)));
    // Sixteen signatures are not too many.
    assert!(note::open(format!("{text}\n\n{}{line}", stranger.repeat(20)).as_bytes(), &known).is_ok());
    // The last blank line counts, so text cannot pass as a signature nor the reverse.
    let inner = format!("{text}\n\n{line}\n{line}");
    assert!(matches!(refused(&inner), NoteError::BadSignature(_)), "the text is another then");
    for malformed in [
        "".into(),
        "\n".into(),
        text.to_owned(),
        format!("{text}\n{line}"),
        format!("{text}\n\n"),
        format!("{text}\n\n{}", line.trim_end()),
        format!("{text}\n\n{line} "),
        format!("{text}\r\n\r\n{line}"),
        format!("{text}\u{1}\n\n{line}"),
        format!("{text}\n\n{}", line.replace("— ", "- ")),
        format!("{text}\n\n{}", line.replace("foo U", "foo  U")),
        format!("{text}\n\n{}", line.replace("QM=", "QM")),
        format!("{text}\n\n{}", line.replace("QM=", "QN=")),
        format!("{text}\n\n— example.com/foo Uw2QOg==\n"),
        format!("{text}\n\n{}", stranger.repeat(101)),
    ] {
        assert!(matches!(refused(&malformed), NoteError::Malformed(_)), "{malformed:?}");
    }
    assert!(matches!(note::open(&[FOO_NOTE.as_bytes(), b"\xff"].concat(), &known), Err(NoteError::Malformed(_))));
    for bad in [
        "",
        "a",
        "a+b",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        &FOO.replace("530d", "530e"),
        &FOO.replace("Aek", "Bek"),
        &FOO[..60],
    ] {
        assert!(NoteKey::parse(bad).is_err(), "{bad}");
    }
    assert!(note::sign("no line feed", "n", &key([1; 32])).is_err());
    assert!(note::sign("tab\there\n", "n", &key([1; 32])).is_err());
    assert!(note::sign("text\n", "a name", &key([1; 32])).is_err());
}

#[test]
fn a_witness_says_when() {
    let (log, witness) = (key([1; 32]), key([2; 32]));
    let text = Checkpoint { origin: "log".into(), size: 0, root: empty_root() }.text();
    let lines =
        note::sign(&text, "log", &log).unwrap() + &note::cosign(&text, 1_700_000_000, "witness", &witness).unwrap();
    let note = format!("{text}\n{lines}");
    let as_witness = NoteKey::new("witness", Kind::Cosignature, &witness.public_key()).unwrap();
    assert_eq!(NoteKey::parse(&as_witness.to_string()).unwrap().id(), as_witness.id());
    let opened = note::open(note.as_bytes(), std::slice::from_ref(&as_witness)).unwrap();
    assert_eq!(opened.signed[0].time, Some(1_700_000_000));
    // The same key as a signer of texts has another id, and its cosignature is no signature.
    let as_signer = NoteKey::new("witness", Kind::Text, &witness.public_key()).unwrap();
    assert_ne!(as_signer.id(), as_witness.id());
    assert_eq!(note::open(note.as_bytes(), &[as_signer]), Err(NoteError::NoKnownSignature));
    // Another time was not signed.
    let (_, signatures) = note::split(note.as_bytes()).unwrap();
    let mut moved = signatures[1].2.clone();
    moved[7] ^= 1;
    let line = format!("— witness {}\n", Base64::encode_string(&[&signatures[1].1[..], &moved].concat()));
    assert_eq!(
        note::open(format!("{text}\n{line}").as_bytes(), &[as_witness]),
        Err(NoteError::BadSignature("witness".into()))
    );
}

#[test]
fn what_is_no_checkpoint() {
    let root = Base64::encode_string(&empty_root());
    assert!(Checkpoint::parse(&format!("o\n0\n{root}\n")).is_ok());
    assert!(Checkpoint::parse(&format!("o\n7\n{root}\nan extension\n")).is_ok());
    for text in [
        "".into(),
        format!("o\n0\n{root}"),
        format!("\n0\n{root}\n"),
        format!("o\n00\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n-1\n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n18446744073709551615\n{root}\n"),
        format!("o\n1\n{}\n", &root[..40]),
        format!("o\n1\n{root} \n"),
        format!("o\n0\n{}\n", Base64::encode_string(&[0; 32])),
        format!("o\n1\n{root}\n\n"),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn a_proof_is_a_file() {
    let log = key([3; 32]);
    let tree = vector_tree(8);
    let checkpoint = Checkpoint { origin: "log".into(), size: 8, root: tree.root() };
    let note = format!("{}\n{}", checkpoint.text(), note::sign(&checkpoint.text(), "log", &log).unwrap());
    let known = [NoteKey::new("log", Kind::Text, &log.public_key()).unwrap()];
    for extra in [None, Some(b"anything \n".to_vec())] {
        let proof =
            Proof { extra, index: 5, path: tree.inclusion(5, 8).unwrap(), checkpoint: note.clone().into_bytes() };
        let read = Proof::parse(&proof.to_text()).unwrap();
        assert_eq!(read, proof);
        let leaf = leaf_hash(&unhex(LEAVES[5]));
        assert_eq!(read.verify(&leaf, "log", &known).unwrap().0, checkpoint);
        assert_eq!(read.verify(&leaf, "another", &known), Err(ProofError::OtherLog("log".into())));
        assert_eq!(read.verify(&leaf_hash(b""), "log", &known), Err(ProofError::NotIncluded));
        assert!(matches!(read.verify(&leaf, "log", &[]), Err(ProofError::Checkpoint(_))));
    }
    assert!(Proof::parse(b"c2sp.org/tlog-proof@v1\nindex 0\n\n").is_ok());
    for text in [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0\n\nx",
        "c2sp.org/tlog-proof@v1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nx",
    ] {
        assert!(matches!(Proof::parse(text.as_bytes()), Err(ProofError::Malformed(_))), "{text:?}");
    }
}

#[test]
fn a_tenants_part_is_complete_without_the_others() {
    let head = |lane: i64, seq: i64| ChainHead {
        incarnation: Uuid::from_u128(1),
        lane,
        seq,
        hash: leaf_hash(&seq.to_be_bytes()),
    };
    let tenants: Vec<(&str, Vec<ChainHead>)> =
        vec![("", vec![head(0, 9)]), ("a", vec![head(0, 5), head(1, 2)]), ("b", vec![head(0, 1)])];
    let map = map(tenants.iter().map(|(t, heads)| (*t, heads_digest(t, heads))));
    let leaf = Leaf {
        counter: 4,
        at: 1,
        incarnation: Uuid::from_u128(1),
        lsn: 77,
        keys: [1; 32],
        configuration: [2; 32],
        tenants: map.size(),
        map: map.root(),
    };
    let path = map.inclusion(1, 3).unwrap();
    assert!(leaf.includes("a", &[head(0, 5), head(1, 2)], 1, &path));
    for (tenant, heads, index) in [
        ("a", vec![head(0, 5)], 1),
        ("a", vec![head(0, 5), head(1, 1)], 1),
        ("a", vec![head(1, 2), head(0, 5)], 1),
        ("a", vec![], 1),
        ("b", vec![head(0, 5), head(1, 2)], 1),
        ("a", vec![head(0, 5), head(1, 2)], 2),
    ] {
        assert!(!leaf.includes(tenant, &heads, index, &path), "{tenant} {heads:?}");
    }
    // Each field of a leaf changes its hash.
    let others = [
        Leaf { counter: 5, ..leaf.clone() },
        Leaf { at: 2, ..leaf.clone() },
        Leaf { incarnation: Uuid::from_u128(2), ..leaf.clone() },
        Leaf { lsn: 78, ..leaf.clone() },
        Leaf { keys: [3; 32], ..leaf.clone() },
        Leaf { configuration: [3; 32], ..leaf.clone() },
        Leaf { tenants: 4, ..leaf.clone() },
        Leaf { map: [3; 32], ..leaf.clone() },
    ];
    assert!(others.iter().all(|other| other.hash() != leaf.hash()));
}

proptest! {
    #[test]
    fn trees_of_any_size(size in 1u64..3000, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let tree: Tree = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let (at, old) = (at.index(size as usize) as u64, old.index(size as usize) as u64 + 1);
        let path = tree.inclusion(at, size).unwrap();
        prop_assert!(verify_inclusion(&leaf_hash(&at.to_be_bytes()), at, size, &path, &tree.root()));
        let before: Tree = (0..old).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let path = tree.consistency(old, size).unwrap();
        prop_assert!(verify_consistency(old, &before.root(), size, &tree.root(), &path));
    }

    #[test]
    fn any_changed_byte_of_a_note_is_refused_or_changes_nothing(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let known = [NoteKey::parse(FOO).unwrap()];
        let mut note = FOO_NOTE.as_bytes().to_vec();
        let at = at.index(note.len());
        let changed = note[at] != to;
        note[at] = to;
        prop_assert_eq!(note::open(&note, &known).is_ok(), !changed);
    }
}

#[test]
fn a_witness_sees_logs_go_on_and_no_other_way() {
    let log = key([5; 32]);
    let known = [NoteKey::new("log", Kind::Text, &log.public_key()).unwrap()];
    let tree: Tree = (0..9u8).map(|i| leaf_hash(&[i])).collect();
    let at = |size: u64| {
        let tree: Tree = (0..size as u8).map(|i| leaf_hash(&[i])).collect();
        Checkpoint { origin: "log".into(), size, root: tree.root() }
    };
    let signed = |c: &Checkpoint| format!("{}\n{}", c.text(), note::sign(&c.text(), "log", &log).unwrap()).into_bytes();
    let ask = |old: u64, proof: Vec<Hash>, note: &[u8], last: Option<&Checkpoint>| {
        let body = Request { old, proof, note }.to_bytes();
        let request = Request::parse(&body).unwrap();
        assert_eq!(request.origin(), Ok("log".into()));
        request.decide(&known, last).map(|(c, _)| c.size)
    };
    let (three, nine) = (at(3), at(9));
    let proof = tree.consistency(3, 9).unwrap();
    assert_eq!(ask(0, vec![], &signed(&three), None), Ok(3));
    assert_eq!(ask(3, proof.clone(), &signed(&nine), Some(&three)), Ok(9));
    assert_eq!(ask(9, vec![], &signed(&nine), Some(&nine)), Ok(9), "the same again");
    assert_eq!(ask(0, vec![], &signed(&nine), Some(&three)), Err(Refusal::Conflict(3)));
    assert_eq!(ask(3, proof.clone(), &signed(&nine), Some(&nine)), Err(Refusal::Conflict(9)), "nobody goes back");
    assert_eq!(ask(3, proof.clone(), &signed(&nine), None), Err(Refusal::Conflict(0)));
    assert_eq!(ask(3, vec![], &signed(&nine), Some(&three)), Err(Refusal::Inconsistent));
    assert_eq!(
        ask(0, proof.clone(), &signed(&nine), None),
        Err(Refusal::Inconsistent),
        "a proof from nothing is empty"
    );
    assert!(matches!(ask(9, vec![], &signed(&three), Some(&nine)), Err(Refusal::Bad(_))));
    let forked = Checkpoint { root: [7; 32], ..nine.clone() };
    assert_eq!(
        ask(9, vec![], &signed(&forked), Some(&nine)),
        Err(Refusal::Conflict(9)),
        "another root of the same size"
    );
    assert_eq!(ask(3, proof.clone(), &signed(&forked), Some(&three)), Err(Refusal::Inconsistent));
    let stranger = format!("{}\n{}", nine.text(), note::sign(&nine.text(), "log", &key([6; 32])).unwrap());
    assert_eq!(ask(3, proof.clone(), stranger.as_bytes(), Some(&three)), Err(Refusal::Unsigned));
    let forged = String::from_utf8(signed(&nine)).unwrap().replace("\n9\n", "\n8\n");
    assert_eq!(ask(3, proof, forged.as_bytes(), Some(&three)), Err(Refusal::Unsigned));
    for body in ["", "old 0\n", "old 00\n\nx", "old -1\n\nx", "Old 0\n\nx", "old 0\nAAAA\n\nx", "old 0 \n\nx"] {
        assert!(matches!(Request::parse(body.as_bytes()), Err(Refusal::Bad(_))), "{body:?}");
    }
    let long = format!("old 1\n{}\nx", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".repeat(64));
    assert!(matches!(Request::parse(long.as_bytes()), Err(Refusal::Bad(_))));
}
