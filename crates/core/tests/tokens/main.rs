//! Tokens and key sets from outside the module: what holds, and everything that must not.

mod claims;
mod form;
mod jwks;
mod keys;
mod vectors;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64ct::{Base64UrlUnpadded, Encoding};
use custody_core::token::{Algorithm, Claims, Moment, Rules, Token, TokenError, TokenKey, TokenPublicKey};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::sync::LazyLock;

pub const NOW: i64 = 1_800_000_000;
pub const AT: Moment<'_> = Moment { now: NOW, leeway: 0, role: "app" };

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap()
});

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    Base64UrlUnpadded::encode_string(bytes.as_ref())
}

pub fn unb64(text: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text).unwrap()
}

pub fn public_key(algorithm: Algorithm) -> TokenPublicKey {
    let bytes = match algorithm {
        Algorithm::EdDsa => SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes().to_vec(),
        Algorithm::Es256 => P256.public_key().as_ref().to_vec(),
        Algorithm::Rs256 => RSA.public_key().as_ref().to_vec(),
    };
    TokenPublicKey::from_bytes(algorithm, &bytes).unwrap()
}

pub fn key(algorithm: Algorithm) -> TokenKey {
    let rules = Rules { audience: "clinic".into(), tenant_claim: "tenant".into(), ..Rules::default() };
    TokenKey { public_key: public_key(algorithm), rules }
}

/// A token of these two parts, exactly, signed with the key of an algorithm, whatever the header says.
pub fn sign(algorithm: Algorithm, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let signed = format!("{}.{}", b64(header), b64(payload));
    let message = signed.as_bytes();
    let signature = match algorithm {
        Algorithm::EdDsa => SigningKey::from_bytes(&[7; 32]).sign(message).to_bytes().to_vec(),
        Algorithm::Es256 => P256.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        Algorithm::Rs256 => {
            let mut signature = vec![0; RSA.public_modulus_len()];
            RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        }
    };
    format!("{signed}.{}", b64(signature))
}

pub fn header(algorithm: Algorithm) -> String {
    json!({"alg": algorithm.name(), "kid": "k1", "typ": "JWT"}).to_string()
}

pub fn good() -> Value {
    json!({"tenant": "a", "aud": "clinic", "exp": NOW + 60})
}

/// What a key makes of a token.
pub fn held(token: &str, key: &TokenKey) -> Result<Claims, TokenError> {
    let token = Token::read(token)?;
    assert!(!token.key_id().is_empty());
    token.verify(key, &AT)
}
