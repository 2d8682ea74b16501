//! One function for each parser of the pure core. It takes any bytes, and panics if the parser breaks a promise.
//!
//! `fuzz_targets/` gives them to libFuzzer; `crates/core/tests/fuzz_smoke.rs` runs them over `seeds/` and random changes of those.

use std::fmt;
use std::rc::Rc;
use std::str;

use base64ct::{Base64UrlUnpadded, Encoding};
use custody_core::export::{self, Reader, Record};
use custody_core::json::{is_number, parse_strict, push_string};
use custody_core::key::hex;
use custody_core::key_file::KeyFile;
use custody_core::policy::{self, Catalog, Function, Operator, Relation, Verdict};
use custody_core::token::jwks;
use custody_core::token::{Algorithm, Moment, Rules, Token, TokenError, TokenKey, TokenPublicKey};
use ed25519_dalek::{Signer, SigningKey};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value, json};

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("export", export),
    ("heads", heads),
    ("json", json),
    ("jwks", jwks),
    ("key_file", key_file),
    ("policy", policy),
    ("text", text),
    ("token", token),
];

/// A log of two lives, its heads, and the key that both descend from.
pub const LOG: &str = include_str!("../seeds/export/log.jsonl");
pub const HEADS: &str = include_str!("../seeds/heads/heads.json");
pub const PIN: &str = "2ac1164af74f2b109db11d60e421ccaf55d5e1c1dd71447aa94bbf266a8a56c9";

/// What is read is what the JSON says; what verifies against the heads and the pin has all entries that were written.
pub fn export(data: &[u8]) {
    let limit = 1 << 20;
    let Some(written) = rewrite(data, limit) else {
        let _ = export::verify(Reader::with_limit(data, limit), None, Vec::new());
        return;
    };
    let lines = data.strip_suffix(b"\n").unwrap_or(data).split(|b| *b == b'\n').filter(|_| !data.is_empty());
    let mut count = 0;
    for (line, ours) in lines.zip(&written) {
        let mut said = parse_strict(line).expect("what the reader took is JSON");
        let ours = parse_strict(ours.as_bytes()).expect("what the writer wrote is JSON");
        if said["record"] == "key" {
            said["fingerprint"] = ours["fingerprint"].clone();
            // Of a key that nobody replaced, these may be null or left out.
            for member in ["from_lsn", "recovers", "ended", "until_lsn", "ended_by", "end_signature"] {
                if said[member].is_null() && ours.get(member).is_none() {
                    said.as_object_mut().expect("a record").remove(member);
                }
            }
        } else if said["format"].as_i64().is_some_and(|format| i16::try_from(format).is_err()) {
            said["format"] = i16::MAX.into();
        }
        assert_eq!(said, ours);
        count += 1;
    }
    assert_eq!(count, written.len());
    assert_eq!(rewrite(written.concat().as_bytes(), usize::MAX).as_ref(), Some(&written));

    let heads = export::read_heads(HEADS.as_bytes()).expect("our own heads");
    let verify = |export| export::verify(export, Some(&[PIN.to_owned()]), heads).expect("it was read just now");
    if verify(Reader::with_limit(data, limit)).findings.is_empty() {
        // Other vectors are signed with the same keys, and go on from there.
        let mut kept = LOG.split_inclusive('\n').filter(|line| line.starts_with("{\"record\": \"entry\""));
        assert!(kept.all(|entry| written.iter().any(|line| line == entry)));
    }
}

/// The lines as we write them; none if it is unreadable.
fn rewrite(data: &[u8], limit: usize) -> Option<Vec<String>> {
    let mut reader = Reader::with_limit(data, limit);
    let mut lines = Vec::new();
    while let Some(record) = reader.next_record().ok()? {
        lines.push(match record {
            Record::Key(key) => export::key_line(&key),
            Record::Entry(entry) => export::entry_line(&entry),
        });
    }
    Some(lines)
}

/// Heads that are read say what the JSON says, and nothing but heads is read.
pub fn heads(data: &[u8]) {
    let Ok(heads) = export::read_heads(data) else { return };
    let ours: Vec<_> = heads
        .iter()
        .map(|head| {
            assert!(head.seq >= 1);
            json!({
                "incarnation": head.chain.incarnation.to_string(), "tenant": head.chain.tenant, "lane": head.chain.lane,
                "seq": head.seq, "hash": hex(&head.hash),
            })
        })
        .collect();
    assert_eq!(parse_strict(data).expect("what was read is JSON"), Value::from(ours));
}

/// JSON is read as serde_json reads it, and refused beyond that only for a name that is given twice.
pub fn json(data: &[u8]) {
    match (parse_strict(data), serde_json::from_slice::<Value>(data)) {
        (Ok(strict), Ok(loose)) => {
            assert_eq!(strict, loose);
            assert!(!gives_a_name_twice(data));
        }
        (Err(_), Ok(_)) => assert!(gives_a_name_twice(data)),
        (Ok(_), Err(e)) => panic!("only the strict reader takes it: {e}"),
        (Err(_), Err(_)) => {}
    }
}

/// A key file that is read is what is written.
pub fn key_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(file) = KeyFile::parse(text) {
        assert_eq!(*file.to_text(), text);
    }
}

/// A policy is judged in bounded time, and never said to hold the tenant column if it does not name it.
pub fn policy(data: &[u8]) {
    /// Every function is harmless, and every operator an equality: what is least in the way of a policy that holds.
    struct Kind;
    impl Catalog for Kind {
        fn function(&mut self, oid: u32) -> Option<Rc<Function>> {
            let name = if oid.is_multiple_of(2) { "current_setting" } else { "upper" };
            Some(Rc::new(Function {
                name: name.into(),
                builtin: true,
                equality: oid.is_multiple_of(3),
                ..Function::default()
            }))
        }
        fn operator(&mut self, oid: u32) -> Operator {
            [Operator::Equal, Operator::Unequal, Operator::Other][oid as usize % 3]
        }
        fn relation(&mut self, oid: u32) -> Option<Rc<Relation>> {
            Some(Rc::new(Relation { name: "t".into(), secured: oid.is_multiple_of(2) }))
        }
        fn merges(&mut self, _: u32) -> bool {
            false
        }
    }
    let Ok(text) = str::from_utf8(data) else { return };
    for column in [2, 77] {
        if let Verdict::Holds(basis) = policy::judge(text, column, true, &mut Kind) {
            assert!(!basis.is_empty(), "column {column} is held by nothing");
            assert!(text.contains(&format!("{column}")), "it holds without column {column}");
        }
    }
    let _ = policy::columns(text);
}

/// Any text is a JSON string that reads back; any number that PostgreSQL prints is known for what it is.
pub fn text(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        let number = f64::from_le_bytes(*bytes);
        let text = if number == 0.0 { number.to_string() } else { format!("{number:e}") };
        assert_eq!(is_number(&text), number.is_finite() && text != "-0", "{text}");
        assert!(!is_number(&text) || serde_json::from_str::<Number>(&text).is_ok(), "{text}");
        let number = i64::from_le_bytes(*bytes).to_string();
        assert!(is_number(&number) && serde_json::from_str::<Number>(&number).is_ok());
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let mut out = String::new();
    push_string(&mut out, text);
    assert_eq!(serde_json::from_str::<String>(&out).expect("a JSON string"), text);
    assert_eq!(parse_strict(out.as_bytes()).expect("JSON"), Value::from(text));
    if serde_json::from_str::<Number>(text).is_ok() && text.trim() == text && text != "-0" {
        assert!(is_number(text), "{text}");
    }
}

/// A key set gives keys that are canonical and sound, of which the JSON says the same; never a set that holds a secret.
pub fn jwks(data: &[u8]) {
    let Ok(keys) = jwks::read(data) else { return };
    let said = parse_strict(data).expect("what was read is JSON");
    let said = said["keys"].as_array().expect("it has keys");
    assert_eq!(said.len(), keys.len());
    let mut names: Vec<&str> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    for (key, said) in keys.iter().zip(said) {
        for secret in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(said.get(secret).is_none());
        }
        assert_eq!(said["kid"].as_str(), key.kid.as_deref());
        let Ok(key) = &key.key else { continue };
        assert!(said["use"].is_null() || said["use"] == "sig");
        assert!(said["alg"].is_null() || key.algorithm().is_named(said["alg"].as_str().expect("alg is text")));
        let bytes = key.to_bytes();
        let member = |name: &str| {
            let text = said[name].as_str().expect("a number is text");
            Base64UrlUnpadded::decode_vec(text).expect("and base64url")
        };
        let (kind, parts) = match key.algorithm() {
            Algorithm::EdDsa => ("OKP", vec!["x"]),
            Algorithm::Es256 => ("EC", vec!["x", "y"]),
            Algorithm::Rs256 => ("RSA", vec!["n", "e"]),
        };
        assert_eq!(said["kty"], kind);
        for part in parts {
            let part = member(part);
            assert!(bytes.windows(part.len()).any(|window| window == part));
        }
        assert_eq!(&TokenPublicKey::from_bytes(key.algorithm(), &bytes).expect("what was written reads back"), key);
        assert!(!key.verify(data, &[0; 64]));
    }
}

/// A token, as it is; and a header and a claims set, on a line each, signed for it. What holds says what was signed.
pub fn token(data: &[u8]) {
    const NOW: i64 = 1_800_000_000;
    const AT: Moment<'_> = Moment { now: NOW, leeway: 0, role: "app" };
    let signing = SigningKey::from_bytes(&[7; 32]);
    let public_key = TokenPublicKey::ed25519(signing.verifying_key().as_bytes()).expect("a key of our own");
    // Whatever the data, the same rules for the same data.
    let flag = |bit: usize| data.len() >> bit & 1 == 1;
    let rules = Rules {
        audience: "clinic".into(),
        tenant_claim: "tenant".into(),
        issuer: flag(0).then(|| "id".into()),
        role_claim: flag(1).then(|| "role".into()),
        max_lifetime: flag(2).then_some(3600),
        single_use: flag(3),
    };
    let key = TokenKey { public_key, rules };
    if let Ok(text) = str::from_utf8(data) {
        let _ = Token::read(text).map(|token| token.verify(&key, &AT));
    }
    // Any bytes as a key, of each kind.
    for algorithm in Algorithm::ALL {
        if let Ok(key) = TokenPublicKey::from_bytes(algorithm, data) {
            assert!(data.ends_with(&key.to_bytes()));
        }
    }
    let Some(line) = data.iter().position(|b| *b == b'\n') else { return };
    let (header, claims) = (&data[..line], &data[line + 1..]);
    let signed = [header, claims].map(Base64UrlUnpadded::encode_string).join(".");
    let mut signature = signing.sign(signed.as_bytes()).to_bytes();
    let token = |signature: [u8; 64]| format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature));
    let verify = |token: &str| Token::read(token)?.verify(&key, &AT);
    let Ok(held) = verify(&token(signature)) else { return };
    signature[data.len() % 64] ^= 1;
    assert_eq!(verify(&token(signature)), Err(TokenError::BadSignature));

    let header: Value = serde_json::from_slice(header).expect("a header is JSON");
    assert!(header["alg"] == "EdDSA" || header["alg"] == "Ed25519");
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    let said: Value = serde_json::from_slice(claims).expect("claims are JSON");
    assert!(!gives_a_name_twice(claims));
    let is_or_has = |claim: &Value, wanted: &str| {
        claim == wanted || claim.as_array().is_some_and(|all| all.contains(&wanted.into()))
    };
    assert!(said["exp"].as_f64().is_some_and(|exp| exp > NOW as f64) && held.expires > NOW);
    assert!(said["nbf"].as_f64().is_none_or(|nbf| nbf <= NOW as f64));
    assert!(said["iat"].as_f64().is_none_or(|iat| iat < NOW as f64 + 1.0));
    assert!(is_or_has(&said["aud"], "clinic"));
    assert!(key.rules.issuer.is_none() || said["iss"] == "id");
    assert!(key.rules.role_claim.is_none() || is_or_has(&said["role"], "app"));
    assert!(key.rules.max_lifetime.is_none_or(|most| held.expires - held.issued.unwrap_or(NOW) <= most));
    assert_eq!(held.id.as_deref(), said["jti"].as_str().filter(|_| key.rules.single_use));
    assert!(!key.rules.single_use || held.id.is_some_and(|id| !id.is_empty()));
    let number = said["tenant"].as_i64().map(|number| number.to_string());
    assert_eq!(number.as_deref().or(said["tenant"].as_str()), Some(&*held.tenant));
    assert!(!held.tenant.is_empty() && !held.tenant.contains('\0'));
    assert_eq!(said["sub"].as_str(), held.subject.as_deref());
    assert_eq!(said, Value::Object(held.all));
}

/// Looks for a name given twice in one object, by another way than the strict reader's.
fn gives_a_name_twice(json: &[u8]) -> bool {
    serde_json::from_slice(json).is_ok_and(|Twice(twice)| twice)
}

struct Twice(bool);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names).map(Self)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut any = false;
        while let Some(Twice(twice)) = seq.next_element()? {
            any |= twice;
        }
        Ok(any)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut any, mut names) = (false, Vec::<String>::new());
        while let Some((name, Twice(twice))) = map.next_entry()? {
            any |= twice;
            names.push(name);
        }
        names.sort_unstable();
        Ok(any || names.windows(2).any(|pair| pair[0] == pair[1]))
    }
}
