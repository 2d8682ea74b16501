//! Key sets.

use super::*;
use custody_core::token::KeyError;
use custody_core::token::jwks::{Ignored, JwksError, MAX_LENGTH, read};
use proptest::prelude::*;

fn ed() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(public_key(Algorithm::EdDsa).to_bytes())})
}

fn ec() -> Value {
    let point = public_key(Algorithm::Es256).to_bytes();
    json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]), "y": b64(&point[33..])})
}

fn rsa() -> Value {
    // After the headers of the sequence and of an integer of 257 bytes, the first of them zero.
    let modulus = &RSA.public_key().as_ref()[9..265];
    json!({"kty": "RSA", "kid": "rsa", "n": b64(modulus), "e": "AQAB"})
}

fn set(keys: &[Value]) -> String {
    json!({"keys": keys, "unknown": 1}).to_string()
}

/// What becomes of one key.
fn one(key: &Value) -> Result<TokenPublicKey, Ignored> {
    let mut read = read(set(std::slice::from_ref(key)).as_bytes()).unwrap();
    assert_eq!(read.len(), 1);
    read.remove(0).key
}

fn changed(mut key: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
        value => key[name] = value,
    }
    key
}

#[test]
fn a_set_of_each_kind() {
    let keys = read(set(&[ed(), ec(), rsa()]).as_bytes()).unwrap();
    for (key, (kid, algorithm)) in
        keys.iter().zip([("ed", Algorithm::EdDsa), ("ec", Algorithm::Es256), ("rsa", Algorithm::Rs256)])
    {
        assert_eq!((key.kid.as_deref(), key.key.as_ref().unwrap()), (Some(kid), &public_key(algorithm)));
    }
    assert_eq!(read(br#"{"keys":[]}"#).unwrap(), vec![]);
    for (key, name, value) in [
        (rsa(), "use", json!("sig")),
        (rsa(), "alg", json!("RS256")),
        (ed(), "alg", json!("Ed25519")),
        (ec(), "key_ops", json!(["verify"])),
        (ec(), "x5c", json!(["MII"])),
    ] {
        assert!(one(&changed(key, name, value)).is_ok(), "{name}");
    }
}

#[test]
fn keys_that_are_ignored() {
    for (key, name, value, why) in [
        (ed(), "kid", Value::Null, Ignored::NoKeyId),
        (ed(), "kid", json!(1), Ignored::NoKeyId),
        (ed(), "kid", json!(""), Ignored::KeyId),
        (ed(), "kid", json!("a\0b"), Ignored::KeyId),
        (ed(), "kid", json!("x".repeat(257)), Ignored::KeyId),
        (ed(), "kty", json!("okp"), Ignored::Type),
        (ed(), "kty", json!("AKP"), Ignored::Type),
        (ed(), "kty", Value::Null, Ignored::Type),
        (ed(), "crv", json!("X25519"), Ignored::Curve("Ed25519")),
        (ed(), "crv", json!("Ed448"), Ignored::Curve("Ed25519")),
        (ec(), "crv", json!("P-384"), Ignored::Curve("P-256")),
        (ec(), "crv", json!("secp256k1"), Ignored::Curve("P-256")),
        (ec(), "crv", Value::Null, Ignored::Curve("P-256")),
        (rsa(), "use", json!("enc"), Ignored::Use),
        (rsa(), "use", json!(["sig"]), Ignored::Use),
        (rsa(), "key_ops", json!(["sign"]), Ignored::Operations),
        (rsa(), "key_ops", json!("verify"), Ignored::Operations),
        (rsa(), "alg", json!("RS512"), Ignored::Algorithm("RS256")),
        (rsa(), "alg", json!("PS256"), Ignored::Algorithm("RS256")),
        (rsa(), "alg", json!("HS256"), Ignored::Algorithm("RS256")),
        (rsa(), "alg", json!("ES256"), Ignored::Algorithm("RS256")),
        (ec(), "alg", json!("RS256"), Ignored::Algorithm("ES256")),
        (ec(), "alg", json!(7), Ignored::Algorithm("ES256")),
        (ed(), "x", json!("AAAA"), Ignored::Member("x")),
        (ed(), "x", Value::Null, Ignored::Member("x")),
        (ed(), "x", json!(b64([0; 32])), Ignored::Key(KeyError::Ed25519)),
        (ed(), "x", json!(b64([&[1], &[0; 31][..]].concat())), Ignored::Key(KeyError::Ed25519)),
        (ec(), "y", json!(b64([1; 31])), Ignored::Member("y")),
        (ec(), "y", json!(b64([1; 33])), Ignored::Member("y")),
        (ec(), "y", json!(b64([1; 32])), Ignored::Key(KeyError::P256)),
        (ec(), "x", json!(b64([0xff; 32])), Ignored::Key(KeyError::P256)),
        (rsa(), "n", json!(b64([0xff; 128])), Ignored::Key(KeyError::RsaSize(1024))),
        (rsa(), "n", json!(b64([&[0x7f], &[0xff; 255][..]].concat())), Ignored::Key(KeyError::RsaSize(2047))),
        (rsa(), "n", json!(b64([&[1], &[0xff; 1024][..]].concat())), Ignored::Key(KeyError::RsaSize(8193))),
        (rsa(), "n", json!(b64([&[0], &[0xff; 256][..]].concat())), Ignored::Member("n")),
        (rsa(), "n", json!(b64([0xfe; 256])), Ignored::Key(KeyError::RsaNumbers)),
        (rsa(), "n", json!("_w=="), Ignored::Member("n")),
        (rsa(), "n", json!(""), Ignored::Member("n")),
        (rsa(), "e", json!("AQ"), Ignored::Key(KeyError::RsaNumbers)),
        (rsa(), "e", json!("Aw"), Ignored::Key(KeyError::RsaNumbers)),
        (rsa(), "e", json!("AQAA"), Ignored::Key(KeyError::RsaNumbers)),
        (rsa(), "e", json!("AAEAAQ"), Ignored::Member("e")),
        (rsa(), "e", json!(b64([0xff; 8])), Ignored::Key(KeyError::RsaNumbers)),
        (rsa(), "e", json!(65537), Ignored::Member("e")),
    ] {
        assert_eq!(one(&changed(key, name, value.clone())), Err(why), "{name}: {value}");
    }
}

#[test]
fn sets_that_are_refused() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for key in [ed(), ec(), rsa(), json!({"kty": "oct"}), json!({"kty": "new"})] {
            // Wherever it stands, and whatever it is.
            for value in [json!("AAAA"), json!(false)] {
                let text = set(&[ed(), changed(changed(key.clone(), "kid", json!("other")), member, value)]);
                assert_eq!(read(text.as_bytes()), Err(JwksError::Secret { number: 2, member }), "{text}");
            }
        }
    }
    assert_eq!(
        read(set(&[rsa(), ed(), changed(ec(), "kid", json!("rsa"))]).as_bytes()),
        Err(JwksError::SameKeyId { number: 3 })
    );
    // A key of no use to us still has the name.
    assert_eq!(
        read(set(&[changed(rsa(), "use", json!("enc")), changed(ec(), "kid", json!("rsa"))]).as_bytes()),
        Err(JwksError::SameKeyId { number: 2 })
    );
    let many: Vec<Value> = (0..257).map(|i| json!({"kid": i.to_string()})).collect();
    assert_eq!(read(set(&many).as_bytes()), Err(JwksError::TooManyKeys));
    assert_eq!(read(&vec![b' '; MAX_LENGTH + 1]), Err(JwksError::TooLong));
    for text in [
        "",
        "{",
        "<html>",
        "{\"keys\":[],\"keys\":[]}",
        "{\"keys\":[{\"kid\":\"a\",\"kid\":\"b\"}]}",
        "{\"keys\":[]} {}",
        "{\"keys\":[1e999]}",
    ] {
        assert_eq!(read(text.as_bytes()), Err(JwksError::NotJson), "{text}");
    }
    for text in ["[]", "null", "{}", "{\"keys\":{}}", "{\"keys\":[1]}", "{\"keys\":[[]]}", &ed().to_string()] {
        assert_eq!(read(text.as_bytes()), Err(JwksError::NotASet), "{text}");
    }
    assert_eq!(read(b"{\"keys\":\"\xff\"}"), Err(JwksError::NotJson));
    assert_eq!(read("[".repeat(10_000).as_bytes()), Err(JwksError::NotJson));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A changed set gives other keys, the same, or none: never a panic, never a key that is not canonical.
    #[test]
    fn never_panics(at in 0usize..2000, to in any::<u8>(), how in 0..3) {
        let mut text = set(&[ed(), ec(), rsa()]).into_bytes();
        let at = at % text.len();
        match how {
            0 => text[at] = to,
            1 => drop(text.remove(at)),
            _ => text.insert(at, to),
        }
        for key in read(&text).unwrap_or_default() {
            if let Ok(key) = key.key {
                prop_assert_eq!(&TokenPublicKey::from_bytes(key.algorithm(), &key.to_bytes()).unwrap(), &key);
            }
        }
    }
}
