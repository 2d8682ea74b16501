//! Taking a compact JWS (RFC 7515 section 7.1) apart, nothing of it believed yet.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

use super::{MAX_LENGTH, TokenError};
use crate::json::parse_strict;

/// A token that has the form of one.
pub struct Jws<'a> {
    /// What the signature is over.
    pub signed: &'a str,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    pub kid: String,
    pub alg: String,
}

impl<'a> Jws<'a> {
    pub fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_LENGTH {
            return Err(TokenError::TooLong);
        }
        let parts: Vec<&str> = token.splitn(6, '.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(if parts.len() == 5 { TokenError::Encrypted } else { TokenError::NotCompact });
        };
        let header = object(&decode(header, "header")?, "header")?;
        if payload.is_empty() {
            return Err(TokenError::Detached);
        }
        let payload = decode(payload, "claims set")?;
        let signed = &token[..token.len() - signature.len() - 1];
        let signature = decode(signature, "signature")?;
        // Extensions that change what is signed or how it is read. None is understood, so none may be there.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(TokenError::Critical);
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if is_token_type(typ) => {}
            Some(_) => return Err(TokenError::NotAToken),
        }
        let kid = match header.get("kid") {
            Some(Value::String(kid)) if !kid.is_empty() => kid.clone(),
            _ => return Err(TokenError::NoKeyId),
        };
        let Some(Value::String(alg)) = header.get("alg") else { return Err(TokenError::WrongAlgorithm) };
        Ok(Self { signed, payload, signature, kid, alg: alg.clone() })
    }
}

/// `JWT` (RFC 7519 section 5.1) or `at+jwt` (RFC 9068), in any case, with or without `application/` (RFC 7515 section 4.1.9).
fn is_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Base64url as RFC 7515 has it: no padding, no white space, no bits left over, and not nothing.
pub fn decode(part: &str, what: &'static str) -> Result<Vec<u8>, TokenError> {
    match Base64UrlUnpadded::decode_vec(part) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(TokenError::NotBase64(what)),
    }
}

/// A JSON object in which no name is given twice, at any depth.
pub fn object(json: &[u8], what: &'static str) -> Result<Map<String, Value>, TokenError> {
    match parse_strict(json) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(TokenError::NotJson(what)),
    }
}
