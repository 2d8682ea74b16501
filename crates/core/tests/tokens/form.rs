//! The outside of a token: its parts, its header, its signature.

use super::*;
use proptest::prelude::*;

#[test]
fn each_algorithm_holds() {
    for algorithm in Algorithm::ALL {
        let token = sign(algorithm, header(algorithm), good().to_string());
        let claims = held(&token, &key(algorithm)).unwrap();
        assert_eq!((claims.tenant.as_str(), claims.expires), ("a", NOW + 60), "{algorithm:?}");
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
    }
    let named = sign(Algorithm::EdDsa, r#"{"alg":"Ed25519","kid":"k1"}"#, good().to_string());
    assert!(held(&named, &key(Algorithm::EdDsa)).is_ok(), "RFC 9864's name for it");
}

/// The key decides: neither another algorithm's name, nor another's signature under the right name, nor its public half as a
/// secret for HMAC.
#[test]
fn the_header_does_not_choose_the_algorithm() {
    for ours in Algorithm::ALL {
        for signer in Algorithm::ALL {
            for named in Algorithm::ALL {
                let token = sign(signer, header(named), good().to_string());
                match held(&token, &key(ours)) {
                    Ok(_) => assert!(signer == ours && named == ours),
                    Err(TokenError::WrongAlgorithm) => assert_ne!(named, ours),
                    Err(why) => {
                        assert_eq!((why, named == ours, signer == ours), (TokenError::BadSignature, true, false))
                    }
                }
            }
        }
        for name in [
            "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "ES256K",
            "EDDSA", "eddsa", "Ed448", "", " EdDSA", "RS256 ",
        ] {
            let header = json!({"alg": name, "kid": "k1"}).to_string();
            assert_eq!(
                held(&sign(ours, &header, good().to_string()), &key(ours)),
                Err(TokenError::WrongAlgorithm),
                "{name}"
            );
            let unsigned = format!("{}.{}.", b64(&header), b64(good().to_string()));
            assert!(held(&unsigned, &key(ours)).is_err(), "{name}");
        }
        for alg in ["null", "1", "[\"EdDSA\"]", "{}"] {
            let token = sign(ours, format!(r#"{{"alg":{alg},"kid":"k1"}}"#), good().to_string());
            assert_eq!(held(&token, &key(ours)), Err(TokenError::WrongAlgorithm));
        }
        // The public key as an HMAC secret, under either name.
        for named in ["HS256", ours.name()] {
            let signed = format!("{}.{}", b64(json!({"alg": named, "kid": "k1"}).to_string()), b64(good().to_string()));
            let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key(ours).public_key.to_bytes());
            let token = format!("{signed}.{}", b64(aws_lc_rs::hmac::sign(&secret, signed.as_bytes())));
            assert!(matches!(held(&token, &key(ours)), Err(TokenError::WrongAlgorithm | TokenError::BadSignature)));
        }
    }
}

#[test]
fn headers_that_are_refused() {
    let refused =
        |header: &str| held(&sign(Algorithm::EdDsa, header, good().to_string()), &key(Algorithm::EdDsa)).unwrap_err();
    for (header, why) in [
        (r#"{"kid":"k1"}"#, TokenError::WrongAlgorithm),
        (r#"{"alg":"none","alg":"EdDSA","kid":"k1"}"#, TokenError::NotJson("header")),
        (r#"{"alg":"EdDSA","kid":"k1","x":{"a":1,"\u0061":2}}"#, TokenError::NotJson("header")),
        (r#"{"alg":"EdDSA","kid":"k1"} {}"#, TokenError::NotJson("header")),
        (r#"["EdDSA","k1"]"#, TokenError::NotJson("header")),
        ("\u{feff}{\"alg\":\"EdDSA\",\"kid\":\"k1\"}", TokenError::NotJson("header")),
        (r#"{"alg":"EdDSA","kid":"k1","crit":["exp"]}"#, TokenError::Critical),
        (r#"{"alg":"EdDSA","kid":"k1","crit":[]}"#, TokenError::Critical),
        (r#"{"alg":"EdDSA","kid":"k1","crit":null}"#, TokenError::Critical),
        (r#"{"alg":"EdDSA","kid":"k1","b64":true}"#, TokenError::Critical),
        (r#"{"alg":"EdDSA","kid":"k1","b64":false,"crit":["b64"]}"#, TokenError::Critical),
        (r#"{"alg":"EdDSA","kid":"k1","typ":"JOSE"}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA","kid":"k1","typ":"dpop+jwt"}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA","kid":"k1","typ":"text/jwt"}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA","kid":"k1","typ":["JWT"]}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA","kid":"k1","typ":null}"#, TokenError::NotAToken),
        (r#"{"alg":"EdDSA"}"#, TokenError::NoKeyId),
        (r#"{"alg":"EdDSA","kid":""}"#, TokenError::NoKeyId),
        (r#"{"alg":"EdDSA","kid":1}"#, TokenError::NoKeyId),
        // A key that comes along is nobody's: only registered ones count.
        (
            r#"{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#,
            TokenError::NoKeyId,
        ),
    ] {
        assert_eq!(refused(header), why, "{header}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"] {
        let header =
            json!({"alg": "EdDSA", "kid": "k1", "typ": typ, "jku": "https://x", "x5u": 1, "cty": "x"}).to_string();
        assert!(held(&sign(Algorithm::EdDsa, header, good().to_string()), &key(Algorithm::EdDsa)).is_ok(), "{typ}");
    }
    let not_utf8 = sign(Algorithm::EdDsa, b"{\"alg\":\"EdDSA\",\"kid\":\"\xff\"}", good().to_string());
    assert_eq!(held(&not_utf8, &key(Algorithm::EdDsa)), Err(TokenError::NotJson("header")));
}

#[test]
fn forms_that_are_refused() {
    let key = key(Algorithm::EdDsa);
    let whole = sign(Algorithm::EdDsa, header(Algorithm::EdDsa), good().to_string());
    let [head, payload, signature] = whole.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let refused = |token: &str| held(token, &key).unwrap_err();
    for (token, why) in [
        (String::new(), TokenError::NotCompact),
        (".".into(), TokenError::NotCompact),
        ("....".into(), TokenError::Encrypted),
        (".....".into(), TokenError::NotCompact),
        (format!("{head}.{payload}"), TokenError::NotCompact),
        (format!("{whole}.x"), TokenError::NotCompact),
        (format!("{whole}.."), TokenError::Encrypted),
        (format!("{head}.{payload}.a.b.{signature}"), TokenError::Encrypted),
        (format!("{head}..{signature}"), TokenError::Detached),
        (format!("{head}.{payload}."), TokenError::NotBase64("signature")),
        (format!(".{payload}.{signature}"), TokenError::NotBase64("header")),
        (format!("{whole}="), TokenError::NotBase64("signature")),
        (format!("{whole}=="), TokenError::NotBase64("signature")),
        (format!("{head}=.{payload}.{signature}"), TokenError::NotBase64("header")),
        (format!(" {whole}"), TokenError::NotBase64("header")),
        (format!("{whole}\n"), TokenError::NotBase64("signature")),
        (format!("{head}\r\n.{payload}.{signature}"), TokenError::NotBase64("header")),
        (format!("{head}. {payload}.{signature}"), TokenError::NotBase64("claims set")),
        (format!("Bearer {whole}"), TokenError::NotBase64("header")),
        (format!("{head}.{payload}+.{signature}"), TokenError::NotBase64("claims set")),
        (format!("{head}.{payload}%3D.{signature}"), TokenError::NotBase64("claims set")),
        (format!("{head}.{payload}\u{0391}.{signature}"), TokenError::NotBase64("claims set")),
        (json!({"payload": payload, "protected": head, "signature": signature}).to_string(), TokenError::NotCompact),
        ("a".repeat(custody_core::token::MAX_LENGTH + 1), TokenError::TooLong),
        (".".repeat(custody_core::token::MAX_LENGTH), TokenError::NotCompact),
    ] {
        assert_eq!(refused(&token), why, "{token}");
    }
    // The standard alphabet, where it differs; and bits left over at the end, which another reader would ignore.
    let standard = whole.replace('-', "+").replace('_', "/");
    assert!(standard == whole || held(&standard, &key).is_err());
    let last = whole.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|c| *c != last) {
        let changed = format!("{}{other}", &whole[..whole.len() - 1]);
        assert!(held(&changed, &key).is_err(), "a last character of {other} for {last}");
    }
    // Cut anywhere.
    for length in 0..whole.len() {
        assert!(held(&whole[..length], &key).is_err(), "{length}");
    }
    // The longest that is read is read.
    let mut claims = good();
    claims["x"] = json!("x".repeat(5_900));
    let long = sign(Algorithm::EdDsa, header(Algorithm::EdDsa), claims.to_string());
    assert!(long.len() < custody_core::token::MAX_LENGTH && held(&long, &key).is_ok());
}

#[test]
fn signatures_of_another_length_or_form_are_refused() {
    for algorithm in Algorithm::ALL {
        let token = sign(algorithm, header(algorithm), good().to_string());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = unb64(signature);
        let mut others =
            vec![vec![0], signature[1..].to_vec(), [&[0], &signature[..]].concat(), [&signature[..], &[0]].concat()];
        others.push(vec![0; signature.len()]);
        others.push(vec![0xff; signature.len()]);
        others.push(signature.iter().rev().copied().collect());
        for other in others {
            let changed = format!("{signed}.{}", b64(&other));
            assert_eq!(held(&changed, &key(algorithm)), Err(TokenError::BadSignature), "{algorithm:?} {other:02x?}");
        }
    }
}

fn any_algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::EdDsa), Just(Algorithm::Es256), Just(Algorithm::Rs256)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One character changed, taken out, put in, or two exchanged: refused.
    #[test]
    fn any_change_of_one_character_is_refused(algorithm in any_algorithm(), at in 0usize..2000, to in any::<char>(), how in 0..4) {
        let whole = sign(algorithm, header(algorithm), good().to_string());
        let mut text: Vec<char> = whole.chars().collect();
        let at = at % text.len();
        match how {
            0 => text[at] = to,
            1 => drop(text.remove(at)),
            2 => text.insert(at, to),
            _ => { let next = (at + 1) % text.len(); text.swap(at, next) }
        }
        let changed: String = text.into_iter().collect();
        prop_assume!(changed != whole);
        prop_assert!(held(&changed, &key(algorithm)).is_err(), "{changed}");
    }

    #[test]
    fn never_panics(text in ".{0,300}", parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..6)) {
        let encoded = parts.iter().map(b64).collect::<Vec<_>>().join(".");
        for text in [text, encoded] {
            for algorithm in Algorithm::ALL {
                let _ = Token::read(&text).map(|token| token.verify(&key(algorithm), &AT));
            }
        }
    }
}
