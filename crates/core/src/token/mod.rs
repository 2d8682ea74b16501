//! Tokens: a compact JWS (RFC 7515) with a claims set (RFC 7519), signed with a key that was registered before.
//!
//! The key decides everything: the algorithm, the audience, the issuer, the claim that names the tenant. A header can only name
//! the key and agree with it.

mod claims;
pub mod jwks;
mod jws;
mod key;

use serde_json::{Map, Value};

pub use key::{Algorithm, KeyError, TokenPublicKey};

use jws::Jws;

/// The longest token that is read, in bytes.
pub const MAX_LENGTH: usize = 8192;

/// A key that tokens may be signed with, which they name by `kid`, and what it may say.
pub struct TokenKey {
    /// What their signatures are checked against.
    pub public_key: TokenPublicKey,
    /// What their claims are held against.
    pub rules: Rules,
}

/// What the claims of a key's tokens must say.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What `aud` must be or hold.
    pub audience: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// What `iss` must be, if anything.
    pub issuer: Option<String>,
    /// The claim that must name the database role, if any.
    pub role_claim: Option<String>,
    /// The most seconds from `iat` (from now, if there is none) to `exp`.
    pub max_lifetime: Option<i64>,
    /// Whether a token must have an id (`jti`), because it holds once.
    pub single_use: bool,
}

/// When and for whom a token is checked.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Seconds since 1970.
    pub now: i64,
    /// Seconds by which the issuer's clock may differ from ours.
    pub leeway: i64,
    /// The database role that presents it.
    pub role: &'a str,
}

/// What a token that holds says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The tenant it is for.
    pub tenant: String,
    /// `sub`, if given.
    pub subject: Option<String>,
    /// `exp`: seconds since 1970.
    pub expires: i64,
    /// `iat`, if given: seconds since 1970.
    pub issued: Option<i64>,
    /// `jti`, if the key's tokens hold once.
    pub id: Option<String>,
    /// The whole claims set.
    pub all: Map<String, Value>,
}

/// Why a token is refused. The texts never quote the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("it is not three parts joined by dots (a compact JWS)")]
    NotCompact,
    #[error("it is encrypted (a JWE, five parts): only signed tokens are read")]
    Encrypted,
    #[error("it has no claims set in it (a detached payload)")]
    Detached,
    #[error("its {0} is not base64url, without padding, of anything")]
    NotBase64(&'static str),
    #[error("its {0} is not a JSON object with each name given once and numbers within range")]
    NotJson(&'static str),
    #[error("its type (typ) is neither JWT nor at+jwt")]
    NotAToken,
    #[error("its header names no key (kid)")]
    NoKeyId,
    #[error("no key with its kid is registered and in force")]
    UnknownKey,
    #[error("its algorithm is not the key's")]
    WrongAlgorithm,
    #[error("its header asks for an extension that is not understood (crit, b64)")]
    Critical,
    #[error("its signature is wrong")]
    BadSignature,
    #[error("it has no expiry (exp)")]
    NoExpiry,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet (nbf), or was issued in the future (iat)")]
    NotYet,
    #[error("it is valid for longer than its key allows")]
    LivesTooLong,
    #[error("it is for another audience (aud)")]
    WrongAudience,
    #[error("it is another issuer's (iss) than its key")]
    WrongIssuer,
    #[error("it is not for this database role (claim \"{0}\")")]
    WrongRole(String),
    #[error("its claim \"{0}\" has the wrong type")]
    WrongType(String),
    #[error("a name or text in it holds a NUL character")]
    Nul,
    #[error("it names no tenant (claim \"{0}\")")]
    NoTenant(String),
    #[error("it has no id (jti) of 1 to 256 bytes, and its key's tokens hold once")]
    NoId,
    #[error("it was used before (jti), and its key's tokens hold once")]
    Used,
    #[error("its subject's tokens were revoked after it was issued, or it does not say when it was issued (iat)")]
    Revoked,
}

/// A token that has the form of one, and names a key.
pub struct Token<'a>(Jws<'a>);

impl<'a> Token<'a> {
    /// Takes a token apart. Nothing of it is believed.
    pub fn read(token: &'a str) -> Result<Self, TokenError> {
        Jws::read(token).map(Self)
    }

    /// The `kid` of its header: which key it says it was signed with.
    pub fn key_id(&self) -> &str {
        &self.0.kid
    }

    /// What it says, if it holds: signed with this key, and as the key's rules want it at this moment.
    pub fn verify(&self, key: &TokenKey, at: &Moment<'_>) -> Result<Claims, TokenError> {
        if !key.public_key.algorithm().is_named(&self.0.alg) {
            return Err(TokenError::WrongAlgorithm);
        }
        if !key.public_key.verify(self.0.signed.as_bytes(), &self.0.signature) {
            return Err(TokenError::BadSignature);
        }
        claims::check(jws::object(&self.0.payload, "claims set")?, &key.rules, at)
    }
}

/// Whether a token issued then falls under a revocation of all tokens issued before a moment (both in seconds since 1970).
///
/// Issue times are whole seconds, so one of the second of the revocation counts as older; and clocks differ by the leeway.
pub fn revoked(issued: Option<i64>, before: i64, leeway: i64) -> bool {
    issued.is_none_or(|issued| issued <= before.saturating_add(leeway))
}
