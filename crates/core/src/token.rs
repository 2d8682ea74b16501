//! Tokens: a compact JWS (RFC 7515) with a claims set (RFC 7519), signed with EdDSA (RFC 8037).

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

use crate::json::parse_strict;
use crate::key::PublicKey;

/// The longest token that is read, in bytes.
pub const MAX_LENGTH: usize = 8192;

/// Seconds by which the issuer's clock may be ahead of ours.
const CLOCK_SKEW: i64 = 60;

/// A key that tokens may be signed with. The token names it by `kid`; its algorithm is the key's, not the token's.
pub struct TokenKey {
    /// 32 bytes of Ed25519.
    pub public_key: Vec<u8>,
    /// What `aud` must name.
    pub audience: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
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
    /// The whole claims set.
    pub all: Map<String, Value>,
}

/// Why a token is refused. The texts never quote the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("it is not three base64url parts joined by dots")]
    NotCompact,
    #[error("its {0} is not a JSON object with each name given once")]
    NotJson(&'static str),
    #[error("its header names no key (kid)")]
    NoKeyId,
    #[error("no key with its kid is registered and in force")]
    UnknownKey,
    #[error("its algorithm is not the key's")]
    WrongAlgorithm,
    #[error("its header asks for an extension that is not understood (crit)")]
    Critical,
    #[error("its signature is wrong")]
    BadSignature,
    #[error("it has no expiry (exp)")]
    NoExpiry,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet (nbf), or was issued in the future (iat)")]
    NotYet,
    #[error("it is for another audience (aud)")]
    WrongAudience,
    #[error("its claim \"{0}\" has the wrong type")]
    WrongType(String),
    #[error("a name or text in it holds a NUL character")]
    Nul,
    #[error("it names no tenant (claim \"{0}\")")]
    NoTenant(String),
}

/// The `kid` of a token's header, nothing of it believed yet.
pub fn key_id(token: &str) -> Result<String, TokenError> {
    let header = header(token)?;
    match header.get("kid") {
        Some(Value::String(kid)) if !kid.is_empty() => Ok(kid.clone()),
        _ => Err(TokenError::NoKeyId),
    }
}

/// Checks a token against the key that its `kid` names, at `now` (seconds since 1970), with no leeway.
pub fn verify(token: &str, key: &TokenKey, now: i64) -> Result<Claims, TokenError> {
    let header = header(token)?;
    if header.get("alg") != Some(&Value::String("EdDSA".into())) {
        return Err(TokenError::WrongAlgorithm);
    }
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(TokenError::Critical);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::NotCompact)?;
    let (_, payload) = signed.split_once('.').ok_or(TokenError::NotCompact)?;
    let signature = decode(signature)?;
    let payload = decode(payload)?;
    let public = PublicKey::from_bytes(&key.public_key).ok_or(TokenError::UnknownKey)?;
    if !public.verify(signed.as_bytes(), &signature) {
        return Err(TokenError::BadSignature);
    }
    claims(object(&payload, "claims set")?, key, now)
}

fn claims(all: Map<String, Value>, key: &TokenKey, now: i64) -> Result<Claims, TokenError> {
    // No PostgreSQL text can hold one, so the log could not be read back, and a tenant would be cut short.
    if all.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)) {
        return Err(TokenError::Nul);
    }
    let expires = date(&all, "exp")?.ok_or(TokenError::NoExpiry)?;
    if expires <= now {
        return Err(TokenError::Expired);
    }
    if date(&all, "nbf")?.is_some_and(|nbf| nbf > now) {
        return Err(TokenError::NotYet);
    }
    let for_us = match all.get("aud") {
        Some(Value::String(aud)) => *aud == key.audience,
        Some(Value::Array(auds)) => auds.iter().any(|aud| aud.as_str() == Some(&key.audience)),
        _ => false,
    };
    if !for_us {
        return Err(TokenError::WrongAudience);
    }
    let subject = match all.get("sub") {
        None => None,
        Some(Value::String(sub)) => Some(sub.clone()),
        Some(_) => return Err(TokenError::WrongType("sub".into())),
    };
    let tenant = match all.get(&key.tenant_claim) {
        Some(Value::String(tenant)) if !tenant.is_empty() => tenant.clone(),
        Some(Value::Number(n)) if n.is_i64() => n.to_string(),
        None | Some(Value::Null) => return Err(TokenError::NoTenant(key.tenant_claim.clone())),
        Some(_) => return Err(TokenError::WrongType(key.tenant_claim.clone())),
    };
    // One from the future would outlast every revocation; clocks differ a little.
    let issued = date(&all, "iat")?;
    if issued.is_some_and(|issued| issued > now.saturating_add(CLOCK_SKEW)) {
        return Err(TokenError::NotYet);
    }
    Ok(Claims { tenant, subject, expires, issued, all })
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A NumericDate (RFC 7519 section 2); fractions are cut off towards the past for `exp`, which is the strict side.
fn date(all: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenError> {
    const FAR: f64 = 253_402_300_800.0; // the year 10000
    match all.get(name) {
        None => Ok(None),
        Some(Value::Number(n)) => match n.as_f64() {
            Some(seconds) if (0.0..FAR).contains(&seconds) => Ok(Some(seconds as i64)),
            _ => Err(TokenError::WrongType(name.into())),
        },
        Some(_) => Err(TokenError::WrongType(name.into())),
    }
}

fn header(token: &str) -> Result<Map<String, Value>, TokenError> {
    if token.len() > MAX_LENGTH {
        return Err(TokenError::TooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(TokenError::NotCompact);
    };
    object(&decode(header)?, "header")
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    if part.is_empty() {
        return Err(TokenError::NotCompact);
    }
    Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::NotCompact)
}

fn object(json: &[u8], what: &'static str) -> Result<Map<String, Value>, TokenError> {
    match parse_strict(json) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(TokenError::NotJson(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn sign(header: &str, payload: &str) -> String {
        let signed = format!(
            "{}.{}",
            Base64UrlUnpadded::encode_string(header.as_bytes()),
            Base64UrlUnpadded::encode_string(payload.as_bytes())
        );
        let signature = SigningKey::from_bytes(&[7; 32]).sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature))
    }

    fn key() -> TokenKey {
        let public_key = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes().to_vec();
        TokenKey { public_key, audience: "clinic".into(), tenant_claim: "tenant".into() }
    }

    const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#;

    fn check(payload: Value) -> Result<Claims, TokenError> {
        verify(&sign(HEADER, &payload.to_string()), &key(), NOW)
    }

    #[test]
    fn a_good_token() {
        let claims = check(json!({"tenant": "a", "aud": ["x", "clinic"], "exp": NOW + 1, "sub": "dr"})).unwrap();
        assert_eq!((claims.tenant.as_str(), claims.subject.as_deref(), claims.expires), ("a", Some("dr"), NOW + 1));
        assert_eq!(check(json!({"tenant": 42, "aud": "clinic", "exp": NOW + 1})).unwrap().tenant, "42");
    }

    /// RFC 8037 appendix A.4: the key, the token and its signature.
    #[test]
    fn the_rfc_8037_example() {
        let public = Base64UrlUnpadded::decode_vec("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
        assert!(PublicKey::from_bytes(&public).unwrap().verify(signed.as_bytes(), &signature));
        assert_eq!(key_id(token), Err(TokenError::NoKeyId));
    }

    #[test]
    fn claims_that_are_refused() {
        let base = json!({"tenant": "a", "aud": "clinic", "exp": NOW + 9});
        let with = |name: &str, value: Value| {
            let mut all = base.clone();
            all[name] = value;
            check(all).unwrap_err()
        };
        assert_eq!(with("exp", json!(NOW)), TokenError::Expired);
        assert_eq!(with("exp", json!("never")), TokenError::WrongType("exp".into()));
        assert_eq!(with("exp", json!(1e300)), TokenError::WrongType("exp".into()));
        assert_eq!(with("exp", json!(-1)), TokenError::WrongType("exp".into()));
        assert_eq!(with("nbf", json!(NOW + 5)), TokenError::NotYet);
        assert_eq!(with("iat", json!(NOW + CLOCK_SKEW + 1)), TokenError::NotYet);
        assert_eq!(with("aud", json!("other")), TokenError::WrongAudience);
        assert_eq!(with("aud", json!([])), TokenError::WrongAudience);
        assert_eq!(with("aud", Value::Null), TokenError::WrongAudience);
        assert_eq!(with("tenant", json!("")), TokenError::WrongType("tenant".into()));
        assert_eq!(with("tenant", json!(1.5)), TokenError::WrongType("tenant".into()));
        assert_eq!(with("tenant", Value::Null), TokenError::NoTenant("tenant".into()));
        assert_eq!(with("sub", json!(1)), TokenError::WrongType("sub".into()));
        for (name, value) in
            [("tenant", json!("a\0b")), ("sub", json!("\0")), ("x", json!([{"y": "\0"}])), ("x\0", json!(1))]
        {
            assert_eq!(with(name, value), TokenError::Nul);
        }
        assert_eq!(check(json!({"tenant": "a", "aud": "clinic"})).unwrap_err(), TokenError::NoExpiry);
    }

    #[test]
    fn tokens_that_are_refused() {
        let payload = json!({"tenant": "a", "aud": "clinic", "exp": NOW + 9}).to_string();
        let try_ = |header: &str| verify(&sign(header, &payload), &key(), NOW).unwrap_err();
        assert_eq!(try_(r#"{"alg":"none","kid":"k1"}"#), TokenError::WrongAlgorithm);
        assert_eq!(try_(r#"{"alg":"HS256","kid":"k1"}"#), TokenError::WrongAlgorithm);
        assert_eq!(try_(r#"{"alg":"eddsa","kid":"k1"}"#), TokenError::WrongAlgorithm);
        assert_eq!(try_(r#"{"alg":"none","alg":"EdDSA","kid":"k1"}"#), TokenError::NotJson("header"));
        assert_eq!(try_(r#"{"alg":"EdDSA","kid":"k1","crit":["b64"]}"#), TokenError::Critical);
        let twice = r#"{"tenant":"a","tenant":"b","aud":"clinic","exp":1900000000}"#;
        assert_eq!(verify(&sign(HEADER, twice), &key(), NOW).unwrap_err(), TokenError::NotJson("claims set"));

        let good = sign(HEADER, &payload);
        let other =
            TokenKey { public_key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes().to_vec(), ..key() };
        assert_eq!(verify(&good, &other, NOW).unwrap_err(), TokenError::BadSignature);
        let (signed, _) = good.rsplit_once('.').unwrap();
        assert_eq!(verify(&format!("{signed}."), &key(), NOW).unwrap_err(), TokenError::NotCompact);
        assert_eq!(verify(signed, &key(), NOW).unwrap_err(), TokenError::NotCompact);
        assert_eq!(verify(&format!("{good}.x"), &key(), NOW).unwrap_err(), TokenError::NotCompact);
        assert_eq!(verify(&format!("{good}="), &key(), NOW).unwrap_err(), TokenError::NotCompact);
        assert_eq!(verify(&"a".repeat(MAX_LENGTH + 1), &key(), NOW).unwrap_err(), TokenError::TooLong);
        assert_eq!(verify("", &key(), NOW).unwrap_err(), TokenError::NotCompact);
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(at in 0usize..200, to in any::<u8>()) {
            let good = sign(HEADER, &json!({"tenant": "a", "aud": "clinic", "exp": NOW + 9}).to_string());
            let mut bytes = good.clone().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(verify(&text, &key(), NOW).is_err());
            }
        }

        #[test]
        fn never_panics(text in ".{0,300}") {
            let _ = key_id(&text);
            let _ = verify(&text, &key(), NOW);
        }
    }
}
