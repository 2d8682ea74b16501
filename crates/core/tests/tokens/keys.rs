//! Keys as bytes: the one form in which they are kept, and the one that other tools write.

use super::*;
use custody_core::token::KeyError;
use proptest::prelude::*;

/// SubjectPublicKeyInfo, as `openssl pkey -pubout -outform DER` writes it.
fn spki(algorithm: Algorithm) -> Vec<u8> {
    let bytes = public_key(algorithm).to_bytes();
    match algorithm {
        Algorithm::EdDsa => [&hex("302a300506032b6570032100")[..], &bytes].concat(),
        Algorithm::Es256 => [&hex("3059301306072a8648ce3d020106082a8648ce3d030107034200")[..], &bytes].concat(),
        Algorithm::Rs256 => {
            let bits = [&hex("0382")[..], &(bytes.len() as u16 + 1).to_be_bytes(), &[0], &bytes].concat();
            let content = [hex("300d06092a864886f70d0101010500"), bits].concat();
            [&hex("3082")[..], &(content.len() as u16).to_be_bytes(), &content].concat()
        }
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let mut bytes = vec![0; digits.len() / 2];
    assert!(custody_core::key::unhex(digits, &mut bytes));
    bytes
}

#[test]
fn both_forms_are_read_and_one_is_kept() {
    for algorithm in Algorithm::ALL {
        let key = public_key(algorithm);
        for form in [key.to_bytes(), spki(algorithm)] {
            let read = TokenPublicKey::from_bytes(algorithm, &form).unwrap();
            assert_eq!((read.algorithm(), read.to_bytes()), (algorithm, key.to_bytes()));
            for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(TokenPublicKey::from_bytes(other, &form).is_err(), "{algorithm:?} is no {other:?}");
            }
            for cut in 0..form.len() {
                assert!(TokenPublicKey::from_bytes(algorithm, &form[..cut]).is_err());
            }
            assert!(TokenPublicKey::from_bytes(algorithm, &[&form[..], &[0]].concat()).is_err());
        }
    }
}

#[test]
fn keys_that_are_refused() {
    let refused = |algorithm, bytes: &[u8]| TokenPublicKey::from_bytes(algorithm, bytes).unwrap_err();
    // Points of small order, under which signatures hold that nobody made; and what is no point at all.
    for weak in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert_eq!(refused(Algorithm::EdDsa, &hex(weak)), KeyError::Ed25519, "{weak}");
    }
    let point = public_key(Algorithm::Es256).to_bytes();
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    let hybrid = [&[6 + (point[64] & 1)], &point[1..]].concat();
    for bytes in
        [vec![0], vec![0; 65], compressed, hybrid, [&[4], &[0; 64][..]].concat(), [&[4], &[0xff; 64][..]].concat()]
    {
        assert_eq!(refused(Algorithm::Es256, &bytes), KeyError::P256);
    }
    // DER that is not the shortest, and numbers that are negative or padded.
    let rsa = public_key(Algorithm::Rs256).to_bytes();
    assert_eq!(rsa[..5], [0x30, 0x82, 0x01, 0x0a, 0x02]);
    for (from, to) in [
        (vec![0x30, 0x82, 0x01, 0x0a], hex("3083010a00")),
        (hex("02030100"), hex("0204000100")),
        (hex("0282010100"), hex("02820100")),
    ] {
        let at = rsa.windows(from.len()).rposition(|w| w == from).unwrap();
        let changed = [&rsa[..at], &to, &rsa[at + from.len()..]].concat();
        assert_eq!(refused(Algorithm::Rs256, &changed), KeyError::Rsa);
    }
    // A certificate's or a private key's bytes are not taken for anything.
    assert_eq!(refused(Algorithm::Rs256, &hex("30820122")), KeyError::Rsa);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_and_is_canonical(algorithm in 0usize..3, at in 0usize..600, to in any::<u8>(), spki_form in any::<bool>()) {
        let algorithm = Algorithm::ALL[algorithm];
        let mut bytes = if spki_form { spki(algorithm) } else { public_key(algorithm).to_bytes() };
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(key) = TokenPublicKey::from_bytes(algorithm, &bytes) {
            let kept = key.to_bytes();
            prop_assert!(bytes == kept || bytes.ends_with(&kept));
            prop_assert_eq!(TokenPublicKey::from_bytes(algorithm, &kept).unwrap(), key);
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for algorithm in Algorithm::ALL {
            let _ = TokenPublicKey::from_bytes(algorithm, &bytes).map(|key| key.verify(b"", &bytes));
        }
    }
}
