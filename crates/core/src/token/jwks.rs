//! Key sets: JWKS JSON (RFC 7517), as identity providers publish it.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

use super::{Algorithm, KeyError, TokenPublicKey};
use crate::json::parse_strict;

/// The longest key set that is read, in bytes.
pub const MAX_LENGTH: usize = 1 << 20;
/// The most keys in one.
const MAX_KEYS: usize = 256;
/// The longest `kid` that is kept, in bytes.
pub const LONGEST_KID: usize = 256;

/// One key of a set.
#[derive(Debug, PartialEq)]
pub struct SetKey {
    /// Its `kid`, if it has one.
    pub kid: Option<String>,
    /// The key; or why it is ignored, as RFC 7517 section 5 asks for keys that are not understood.
    pub key: Result<TokenPublicKey, Ignored>,
}

/// Why a key of a set is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Ignored {
    #[error("its kty is none of OKP, EC and RSA")]
    Type,
    #[error("its curve (crv) is not {0}")]
    Curve(&'static str),
    #[error("its use is not sig")]
    Use,
    #[error("its key_ops do not allow it to verify")]
    Operations,
    #[error("its alg is not {0}")]
    Algorithm(&'static str),
    #[error("it has no kid, and tokens name their key by it")]
    NoKeyId,
    #[error("its kid is longer than {LONGEST_KID} bytes or holds a NUL character")]
    KeyId,
    #[error("its member \"{0}\" is missing, or not base64url of the right length")]
    Member(&'static str),
    #[error("it {0}")]
    Key(#[from] KeyError),
}

/// Why a whole set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum JwksError {
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("it is not JSON with each name given once")]
    NotJson,
    #[error("it is not an object with an array \"keys\" of objects (RFC 7517 section 5)")]
    NotASet,
    #[error("it has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("key {number} has the member \"{member}\", which is secret: whoever has seen it can sign tokens")]
    Secret { number: usize, member: &'static str },
    #[error("key {number} has the kid of an earlier one")]
    SameKeyId { number: usize },
}

/// Reads a set. Its keys come in its order.
pub fn read(json: &[u8]) -> Result<Vec<SetKey>, JwksError> {
    if json.len() > MAX_LENGTH {
        return Err(JwksError::TooLong);
    }
    let set = parse_strict(json).map_err(|_| JwksError::NotJson)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NotASet)?;
    if keys.len() > MAX_KEYS {
        return Err(JwksError::TooManyKeys);
    }
    let mut read: Vec<SetKey> = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let number = at + 1;
        let key = key.as_object().ok_or(JwksError::NotASet)?;
        // RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, whatever the key's type says of itself.
        const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        if let Some(member) = SECRET.into_iter().find(|member| key.contains_key(*member)) {
            return Err(JwksError::Secret { number, member });
        }
        let kid = key.get("kid").and_then(Value::as_str).map(ToOwned::to_owned);
        if kid.is_some() && read.iter().any(|earlier| earlier.kid == kid) {
            return Err(JwksError::SameKeyId { number });
        }
        let key = match &kid {
            None => Err(Ignored::NoKeyId),
            Some(kid) if kid.is_empty() || kid.len() > LONGEST_KID || kid.contains('\0') => Err(Ignored::KeyId),
            Some(_) => public_key(key),
        };
        read.push(SetKey { kid, key });
    }
    Ok(read)
}

/// The key itself, if it is one that verifies signatures of an algorithm that is known.
fn public_key(jwk: &Map<String, Value>) -> Result<TokenPublicKey, Ignored> {
    let algorithm = match jwk.get("kty").and_then(Value::as_str) {
        Some("OKP") => Algorithm::EdDsa,
        Some("EC") => Algorithm::Es256,
        Some("RSA") => Algorithm::Rs256,
        _ => return Err(Ignored::Type),
    };
    if jwk.get("use").is_some_and(|used| used != "sig") {
        return Err(Ignored::Use);
    }
    let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.contains(&"verify".into()));
    if jwk.get("key_ops").is_some_and(|operations| !verifies(operations)) {
        return Err(Ignored::Operations);
    }
    if jwk.get("alg").is_some_and(|alg| !alg.as_str().is_some_and(|alg| algorithm.is_named(alg))) {
        return Err(Ignored::Algorithm(algorithm.name()));
    }
    let curve = |name| match jwk.get("crv").and_then(Value::as_str) == Some(name) {
        true => Ok(()),
        false => Err(Ignored::Curve(name)),
    };
    Ok(match algorithm {
        Algorithm::EdDsa => {
            curve("Ed25519")?;
            TokenPublicKey::ed25519(&bytes(jwk, "x", 32)?)?
        }
        Algorithm::Es256 => {
            curve("P-256")?;
            TokenPublicKey::p256(&[vec![4], bytes(jwk, "x", 32)?, bytes(jwk, "y", 32)?].concat())?
        }
        Algorithm::Rs256 => TokenPublicKey::rsa(&number(jwk, "n")?, &number(jwk, "e")?)?,
    })
}

/// A member of as many octets as it must have.
fn bytes(jwk: &Map<String, Value>, name: &'static str, length: usize) -> Result<Vec<u8>, Ignored> {
    decode(jwk, name).filter(|bytes| bytes.len() == length).ok_or(Ignored::Member(name))
}

/// A Base64urlUInt (RFC 7518 section 2): no more octets than it takes.
fn number(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, Ignored> {
    decode(jwk, name).filter(|bytes| bytes.first().is_some_and(|first| *first != 0)).ok_or(Ignored::Member(name))
}

fn decode(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(jwk.get(name)?.as_str()?).ok()
}
