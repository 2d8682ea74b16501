//! What holds for any input: encodings that cannot be confused, a verifier that never stops, tokens and entries that read back.

use base64ct::{Base64UrlUnpadded, Encoding};
use custody_core::encoding::FieldHasher;
use custody_core::entry::Entry;
use custody_core::export::{Reader, Record, entry_line, key_line};
use custody_core::key::{Ending, PrivateKey, fingerprint};
use custody_core::token::{Moment, Rules, Token, TokenKey, TokenPublicKey};
use custody_core::verify::{ChainId, End, Head, KeyRecord, Verdict, Verifier};
use ed25519_dalek::{Signer, SigningKey};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

// Fields (format section 1), encoded and decoded from the page alone.

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Absent,
    Bytes(Vec<u8>),
    Text(String),
    Integer(i64),
    Uuid(u128),
    Boolean(bool),
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        let (tag, bytes) = match field {
            Field::Absent => {
                out.push(0);
                continue;
            }
            Field::Bytes(b) => (1, b.clone()),
            Field::Text(t) => (2, t.clone().into_bytes()),
            Field::Integer(i) => (3, i.to_be_bytes().into()),
            Field::Uuid(u) => (4, u.to_be_bytes().into()),
            Field::Boolean(b) => (5, vec![u8::from(*b)]),
        };
        out.push(tag);
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
    }
    out
}

fn decode(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        if *tag == 0 {
            fields.push(Field::Absent);
            bytes = rest;
            continue;
        }
        let (length, rest) = rest.split_first_chunk().unwrap();
        let (value, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        fields.push(match tag {
            1 => Field::Bytes(value.into()),
            2 => Field::Text(String::from_utf8(value.into()).unwrap()),
            3 => Field::Integer(i64::from_be_bytes(value.try_into().unwrap())),
            4 => Field::Uuid(u128::from_be_bytes(value.try_into().unwrap())),
            5 => Field::Boolean(value == [1]),
            _ => panic!("tag {tag}"),
        });
        bytes = rest;
    }
    fields
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::Absent),
        // Bytes that look like the start of other fields, too.
        vec(prop_oneof![any::<u8>(), 0..6u8], 0..20).prop_map(Field::Bytes),
        "[\u{0}-\u{7}a]{0,12}".prop_map(Field::Text),
        // Around and above what is gathered before it is hashed.
        vec(any::<u8>(), 400..1200).prop_map(Field::Bytes),
        any::<String>().prop_map(Field::Text),
        any::<i64>().prop_map(Field::Integer),
        any::<u128>().prop_map(Field::Uuid),
        any::<bool>().prop_map(Field::Boolean),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is hashed can be read back to one list of fields only, so no two lists share their bytes.
    #[test]
    fn fields_cannot_be_confused(fields in vec(field(), 0..12), absent in 0..3u8) {
        let bytes = encode(&fields);
        prop_assert_eq!(decode(&bytes), fields.clone());
        let mut hasher = FieldHasher::new("test");
        for field in &fields {
            match field {
                Field::Absent if absent == 0 => hasher.bytes(None),
                Field::Absent if absent == 1 => hasher.text(None),
                Field::Absent => hasher.uuid(None),
                Field::Bytes(b) => hasher.bytes(Some(b)),
                Field::Text(t) => hasher.text(Some(t)),
                Field::Integer(i) => hasher.integer(*i),
                Field::Uuid(u) => hasher.uuid(Some(Uuid::from_u128(*u))),
                Field::Boolean(b) => hasher.boolean(*b),
            };
        }
        let expected: [u8; 32] = Sha256::digest([b"test\0", &bytes[..]].concat()).into();
        prop_assert_eq!(hasher.finish(), expected);
    }
}

// Entries of any kind, readable or not.

#[derive(Clone, Debug)]
struct Any {
    uuids: (bool, bool, Option<u128>),
    integers: [i64; 9],
    texts: [String; 4],
    optional: [Option<String>; 7],
    bytes: [Vec<u8>; 3],
    salts: [Option<Vec<u8>>; 4],
    signs_run: bool,
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(i64::MAX), i64::MAX - 3..i64::MAX, i64::MIN..i64::MIN + 3, -2..5i64, any::<i64>()]
}

fn any_entry() -> impl Strategy<Value = Any> {
    let text =
        || prop_oneof![Just(String::new()), Just("a".to_owned()), Just("CAPTURE_OFF".to_owned()), any::<String>()];
    let bytes = || vec(any::<u8>(), 0..70);
    (
        (any::<bool>(), any::<bool>(), option::of(any::<u128>())),
        proptest::array::uniform9(integer()),
        proptest::array::uniform4(text()),
        proptest::array::uniform7(option::of(text())),
        proptest::array::uniform3(bytes()),
        proptest::array::uniform4(option::of(bytes())),
        any::<bool>(),
    )
        .prop_map(|(uuids, integers, texts, optional, bytes, salts, signs_run)| Any {
            uuids,
            integers,
            texts,
            optional,
            bytes,
            salts,
            signs_run,
        })
}

impl Any {
    fn entry(&self) -> Entry<'_> {
        let [lane, seq, lsn, ordinal, at, xid, actor_seq, format, same_lane] = self.integers;
        let [schema_name, table_name, key_id, actor, row_key, old, new] =
            self.optional.each_ref().map(Option::as_deref);
        let [actor_salt, row_salt, actor_digest, signature] = self.salts.each_ref().map(Option::as_deref);
        Entry {
            incarnation: Uuid::from_u128(u128::from(self.uuids.0)),
            tenant: &self.texts[0],
            // Mostly on one chain.
            lane: if same_lane < 5 { 0 } else { lane },
            seq,
            format: if self.uuids.1 { 1 } else { format as i16 },
            lsn: lsn as u64,
            ordinal,
            at,
            xid: xid as u64,
            op: &self.texts[1],
            schema_name,
            table_name,
            login_role: &self.texts[2],
            acting_role: &self.texts[3],
            move_id: self.uuids.2.map(Uuid::from_u128),
            actor_seq,
            signs_run: self.signs_run,
            key_id,
            actor_salt,
            actor,
            row_salt,
            row_key,
            old,
            new,
            actor_digest,
            row_digest: &self.bytes[0],
            prev_hash: &self.bytes[1],
            hash: &self.bytes[2],
            signature,
        }
    }
}

fn key_record() -> impl Strategy<Value = KeyRecord> {
    let bytes = || vec(any::<u8>(), 0..70);
    let end =
        (any::<bool>(), any::<i64>(), any::<String>(), bytes()).prop_map(|(retired, until_lsn, by, signature)| End {
            how: if retired { Ending::Retire } else { Ending::Revoke },
            until_lsn,
            by,
            signature,
        });
    let life = (option::of(any::<i64>()), option::of(any::<String>()), option::of(end));
    (any::<String>(), any::<bool>(), bytes(), option::of(any::<String>()), option::of(bytes()), life).prop_map(
        |(key_id, incarnation, public_key, predecessor, endorsement, (from_lsn, recovers, end))| KeyRecord {
            key_id,
            incarnation: Uuid::from_u128(incarnation.into()),
            public_key,
            predecessor,
            endorsement,
            from_lsn,
            recovers,
            end,
        },
    )
}

fn head() -> impl Strategy<Value = Head> {
    (any::<bool>(), prop_oneof![Just(String::new()), Just("a".into())], integer(), vec(any::<u8>(), 0..40)).prop_map(
        |(incarnation, tenant, seq, hash)| Head {
            chain: ChainId { incarnation: Uuid::from_u128(incarnation.into()), tenant, lane: 0 },
            seq,
            hash,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verifier_never_stops(
        entries in vec(any_entry(), 0..8), keys in vec(key_record(), 0..3), heads in vec(head(), 0..4), pin in option::of(any::<String>())
    ) {
        let mut verifier = Verifier::new(&keys, pin.map(|p| vec![p]).as_deref(), heads);
        entries.iter().for_each(|e| verifier.entry(&e.entry()));
        let report = verifier.finish();
        prop_assert_eq!(report.counts.entries, entries.len() as u64);
        prop_assert!(!report.findings.is_empty());
    }

    #[test]
    fn entries_read_back(entry in any_entry()) {
        let line = entry_line(&entry.entry());
        let mut reader = Reader::new(line.as_bytes());
        let Some(Record::Entry(read)) = reader.next_record().unwrap() else { panic!() };
        prop_assert_eq!(format!("{read:?}"), format!("{:?}", entry.entry()));
        prop_assert_eq!(&entry_line(&read), &line);
        prop_assert!(reader.next_record().unwrap().is_none());
    }

    #[test]
    fn keys_read_back(key in key_record()) {
        let line = key_line(&key);
        let Some(Record::Key(read)) = Reader::new(line.as_bytes()).next_record().unwrap() else { panic!() };
        prop_assert_eq!(format!("{read:?}"), format!("{key:?}"));
        prop_assert_eq!(key_line(&read), line);
    }
}

/// Trust reaches the last of a thousand lives, however they are listed, and in no more time than their endorsements take.
#[test]
fn a_long_line_of_lives() {
    let keys: Vec<_> = (1..=1000u128)
        .map(|life| {
            let mut seed = [0; 32];
            seed[..16].copy_from_slice(&life.to_be_bytes());
            (Uuid::from_u128(life), PrivateKey::from_seed(&seed.into()))
        })
        .collect();
    let record = |i: usize| {
        let (incarnation, key) = &keys[i];
        let predecessor = i.checked_sub(1).map(|i| &keys[i].1);
        KeyRecord {
            key_id: key.key_id().into(),
            incarnation: *incarnation,
            public_key: key.public_key().into(),
            predecessor: predecessor.map(|p| p.key_id().into()),
            endorsement: predecessor.map(|p| p.endorse(*incarnation, &key.public_key(), None).into()),
            ..KeyRecord::default()
        }
    };
    let mut records: Vec<_> = (0..keys.len()).map(record).collect();
    let entry = Entry {
        incarnation: keys[999].0,
        signs_run: true,
        key_id: Some(keys[999].1.key_id()),
        signature: Some(&[0; 64]),
        ..NOTHING
    };
    let pin = [fingerprint(&keys[0].1.public_key())];
    let verdicts = |records: &[KeyRecord]| -> Vec<Verdict> {
        let mut verifier = Verifier::new(records, Some(&pin), Vec::new());
        verifier.entry(&entry);
        verifier.finish().findings.iter().map(|f| f.verdict).collect()
    };
    for _ in 0..2 {
        records.reverse();
        assert!(
            verdicts(&records).contains(&Verdict::BadSignature),
            "the key is trusted, so it is the signature that is wrong"
        );
    }
    records.remove(500);
    assert!(verdicts(&records).contains(&Verdict::KeyNotValid));
}

const NOTHING: Entry<'static> = Entry {
    incarnation: Uuid::nil(),
    tenant: "",
    lane: 0,
    seq: 1,
    format: 1,
    lsn: 0,
    ordinal: 1,
    at: 0,
    xid: 0,
    op: "",
    schema_name: None,
    table_name: None,
    login_role: "",
    acting_role: "",
    move_id: None,
    actor_seq: 1,
    signs_run: false,
    key_id: None,
    actor_salt: None,
    actor: None,
    row_salt: None,
    row_key: None,
    old: None,
    new: None,
    actor_digest: None,
    row_digest: &[],
    prev_hash: &[],
    hash: &[0; 32],
    signature: None,
};

// Tokens.

fn claim() -> impl Strategy<Value = Value> {
    // PostgreSQL's text holds no NUL, so a token that does is refused.
    let text = "[^\u{0}]{0,10}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(text, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_read_back(
        extra in proptest::collection::hash_map("x[^\u{0}]{0,10}", claim(), 0..5), tenant in "[^\u{0}]{1,20}", sub in option::of("[^\u{0}]{0,20}"),
        iat in option::of(0..1000i64), exp in 1001..253_402_300_800i64, number in option::of(any::<i64>())
    ) {
        const NOW: i64 = 1000;
        let mut claims: Map<String, Value> = extra.into_iter().collect();
        claims.insert("aud".into(), json!(["other", "clinic"]));
        claims.insert("exp".into(), exp.into());
        claims.insert("org".into(), number.map_or(json!(tenant), Value::from));
        claims.extend(sub.clone().map(|sub| ("sub".to_owned(), sub.into())));
        claims.extend(iat.map(|iat| ("iat".to_owned(), iat.into())));

        let key = SigningKey::from_bytes(&[7; 32]);
        let signed = [json!({"alg": "EdDSA", "kid": "k"}), claims.clone().into()]
            .map(|part| Base64UrlUnpadded::encode_string(part.to_string().as_bytes()))
            .join(".");
        let token = format!("{signed}.{}", Base64UrlUnpadded::encode_string(&key.sign(signed.as_bytes()).to_bytes()));
        let public_key = key.verifying_key().to_bytes().to_vec();
        let public_key = TokenPublicKey::ed25519(&public_key).unwrap();
        let rules = Rules { audience: "clinic".into(), tenant_claim: "org".into(), ..Rules::default() };
        let token_key = TokenKey { public_key, rules };

        let token = Token::read(&token).unwrap();
        prop_assert_eq!(token.key_id(), "k");
        let read = token.verify(&token_key, &Moment { now: NOW, leeway: 0, role: "app" }).unwrap();
        prop_assert_eq!(read.tenant, number.map_or(tenant, |n| n.to_string()));
        prop_assert_eq!((read.subject, read.issued, read.expires), (sub, iat, exp));
        prop_assert_eq!(read.all, claims);
    }
}
