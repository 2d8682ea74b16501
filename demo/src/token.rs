//! The demo's own issuer of tokens: compact JWS (RFC 7515) signed with Ed25519 (RFC 8037).

use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use custody_core::key::hex;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

/// A seed that everybody can read here; a real issuer's private key is nowhere near the database.
const SEED: [u8; 32] = *b"the demo's issuer of its tokens.";

pub const KID: &str = "clinic-login-1";
pub const AUDIENCE: &str = "clinic-app";
pub const TENANT_CLAIM: &str = "org";

pub struct Issuer(SigningKey);

/// A token, and whom it speaks for.
#[derive(Clone)]
pub struct Token {
    pub text: String,
    pub subject: String,
    pub tenant: String,
}

impl Issuer {
    pub fn new() -> Self {
        Self(SigningKey::from_bytes(&SEED))
    }

    /// One that the database was never told of, under the same key id.
    pub fn impostor() -> Self {
        Self(SigningKey::from_bytes(&[0x5a; 32]))
    }

    pub fn public_key_hex(&self) -> String {
        hex(self.0.verifying_key().as_bytes())
    }

    /// A token for an hour.
    pub fn token(&self, subject: &str, tenant: &str) -> Token {
        self.token_for(subject, tenant, 3600)
    }

    /// A token that expires so many seconds from now.
    pub fn token_for(&self, subject: &str, tenant: &str, seconds: i64) -> Token {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let claims = json!({ "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + seconds, TENANT_CLAIM: tenant });
        let text = self.sign(&json!({ "alg": "EdDSA", "kid": KID }), &claims);
        Token { text, subject: subject.into(), tenant: tenant.into() }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| Base64UrlUnpadded::encode_string(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature))
    }
}

impl Token {
    /// The same signature under other claims: what someone does who has a token and wants another tenant's.
    pub fn altered(&self, tenant: &str) -> Self {
        let mut parts: Vec<String> = self.text.split('.').map(ToOwned::to_owned).collect();
        if let Some(payload) = parts.get_mut(1) {
            let claims = Base64UrlUnpadded::decode_vec(payload).unwrap_or_default();
            let claims = String::from_utf8_lossy(&claims).replace(&self.tenant, tenant);
            *payload = Base64UrlUnpadded::encode_string(claims.as_bytes());
        }
        Self { text: parts.join("."), subject: self.subject.clone(), tenant: tenant.into() }
    }
}
