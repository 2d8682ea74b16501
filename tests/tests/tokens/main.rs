//! Tokens in the database: what sets the context and what does not, for how long, and how often.

mod guide;
mod holding;
mod key_sets;
mod once;
mod refused;
mod standby;

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64ct::{Base64UrlUnpadded, Encoding};
use custody_tests::{Db, Session, now};
use ed25519_dalek::{Signer, SigningKey};
use postgres::error::DbError;
use serde_json::{Value, json};

const ALGORITHMS: [&str; 3] = ["EdDSA", "ES256", "RS256"];

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap()
});

fn ed25519(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    Base64UrlUnpadded::encode_string(bytes.as_ref())
}

/// The public half of an algorithm's key, in the form that is kept.
fn public_key(algorithm: &str) -> Vec<u8> {
    match algorithm {
        "ES256" => P256.public_key().as_ref().to_vec(),
        "RS256" => RSA.public_key().as_ref().to_vec(),
        _ => ed25519(7).verifying_key().to_bytes().to_vec(),
    }
}

/// The same as a JWK.
fn jwk(algorithm: &str, kid: &str) -> Value {
    let bytes = public_key(algorithm);
    match algorithm {
        "ES256" => json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&bytes[1..33]), "y": b64(&bytes[33..])}),
        // After the headers of the sequence and of an integer of 257 bytes, the first of them zero.
        "RS256" => {
            json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(&bytes[9..265]), "e": "AQAB"})
        }
        _ => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(&bytes)}),
    }
}

/// A token of these parts, signed with an algorithm's key whatever the header says.
fn sign(algorithm: &str, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(payload));
    let message = signed.as_bytes();
    let signature = match algorithm {
        "ES256" => P256.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        "RS256" => {
            let mut signature = vec![0; RSA.public_modulus_len()];
            RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        }
        _ => ed25519(7).sign(message).to_bytes().to_vec(),
    };
    format!("{signed}.{}", b64(signature))
}

/// A token of a key: tenant a, subject dr.ada, for a minute, unless `claims` says otherwise. A null takes a claim away.
fn token(algorithm: &str, kid: &str, claims: Value) -> String {
    let mut all = json!({"tenant": "a", "sub": "dr.ada", "aud": "clinic", "iat": now() - 5, "exp": now() + 60});
    for (name, value) in claims.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    sign(algorithm, &json!({"alg": algorithm, "kid": kid, "typ": "JWT"}).to_string(), &all.to_string())
}

/// A clinic with a key of each algorithm, named as it, and a patient of each tenant.
fn clinic() -> Db {
    let db = Db::clinic();
    let mut s = db.superuser();
    for algorithm in ALGORITHMS {
        add_key(&mut s, algorithm, algorithm, "");
    }
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('a', 2, 'Al'), ('b', 1, 'Bo')");
    db
}

/// Registers the key of an algorithm under a name; `rules` are further arguments.
fn add_key(s: &mut Session, algorithm: &str, kid: &str, rules: &str) {
    let sql = format!("SELECT custody.add_token_key($1, $2, 'clinic', algorithm => $3{rules})");
    s.rows(&sql, &[&kid, &public_key(algorithm), &algorithm]);
}

/// Presents a token in a transaction that is open, or in one of its own.
fn present(app: &mut Session, token: &str) -> Result<(), Box<DbError>> {
    let outcome = app.0.execute("SELECT custody.authenticate($1)", &[&token]);
    outcome.map(drop).map_err(|e| Box::new(e.as_db_error().expect("the server's error").clone()))
}

/// The SQLSTATE with which a token is refused, in a transaction of its own; nothing if it is not.
fn refusal(app: &mut Session, token: &str) -> Option<String> {
    app.batch("BEGIN");
    let outcome = present(app, token).err().map(|e| e.code().code().to_owned());
    app.batch("ROLLBACK");
    outcome
}

/// Begins a transaction that acts for a token.
fn begin(app: &mut Session, token: &str) {
    app.batch("BEGIN");
    present(app, token).unwrap_or_else(|e| panic!("{e:#?}"));
}
