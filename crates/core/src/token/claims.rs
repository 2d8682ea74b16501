//! What a claims set (RFC 7519) must say, once its signature holds.

use serde_json::{Map, Value};

use super::{Claims, Moment, Rules, TokenError};

/// The longest `jti` that is kept.
const LONGEST_ID: usize = 256;

/// Holds a claims set against the rules of its key.
pub fn check(all: Map<String, Value>, rules: &Rules, at: &Moment<'_>) -> Result<Claims, TokenError> {
    // No PostgreSQL text can hold one, so the log could not be read back, and a tenant would be cut short.
    if all.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)) {
        return Err(TokenError::Nul);
    }
    let latest = at.now.saturating_add(at.leeway);
    let expires = date(&all, "exp")?.ok_or(TokenError::NoExpiry)?.floor;
    if expires.saturating_add(at.leeway) <= at.now {
        return Err(TokenError::Expired);
    }
    if date(&all, "nbf")?.is_some_and(|from| from.ceil > latest) {
        return Err(TokenError::NotYet);
    }
    // One from the future would outlast every revocation.
    let issued = date(&all, "iat")?.map(|issued| issued.floor);
    if issued.is_some_and(|issued| issued > latest) {
        return Err(TokenError::NotYet);
    }
    if rules.max_lifetime.is_some_and(|most| expires.saturating_sub(issued.unwrap_or(at.now)) > most) {
        return Err(TokenError::LivesTooLong);
    }
    if !is_or_has(all.get("aud"), &rules.audience) {
        return Err(TokenError::WrongAudience);
    }
    if rules.issuer.as_ref().is_some_and(|issuer| all.get("iss").and_then(Value::as_str) != Some(issuer)) {
        return Err(TokenError::WrongIssuer);
    }
    if let Some(claim) = &rules.role_claim
        && !is_or_has(all.get(claim), at.role)
    {
        return Err(TokenError::WrongRole(claim.clone()));
    }
    let subject = text(&all, "sub")?;
    let tenant = match all.get(&rules.tenant_claim) {
        Some(Value::String(tenant)) if !tenant.is_empty() => tenant.clone(),
        Some(Value::Number(n)) if n.is_i64() => n.to_string(),
        None | Some(Value::Null) => return Err(TokenError::NoTenant(rules.tenant_claim.clone())),
        Some(_) => return Err(TokenError::WrongType(rules.tenant_claim.clone())),
    };
    let id = match rules.single_use {
        false => None,
        true => match text(&all, "jti")? {
            Some(id) if !id.is_empty() && id.len() <= LONGEST_ID => Some(id),
            _ => return Err(TokenError::NoId),
        },
    };
    Ok(Claims { tenant, subject, expires, issued, id, all })
}

/// A claim that is text, or absent.
fn text(all: &Map<String, Value>, name: &str) -> Result<Option<String>, TokenError> {
    match all.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::WrongType(name.into())),
    }
}

/// Whether a claim is this text, or a list that holds it.
fn is_or_has(claim: Option<&Value>, wanted: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A NumericDate (RFC 7519 section 2) may have a fraction: the whole seconds around it, so that each use takes the strict side.
struct Date {
    floor: i64,
    ceil: i64,
}

fn date(all: &Map<String, Value>, name: &str) -> Result<Option<Date>, TokenError> {
    const FAR: f64 = 253_402_300_800.0; // the year 10000
    match all.get(name) {
        None => Ok(None),
        Some(Value::Number(n)) => match n.as_f64() {
            Some(seconds) if (0.0..FAR).contains(&seconds) => {
                Ok(Some(Date { floor: seconds as i64, ceil: seconds.ceil() as i64 }))
            }
            _ => Err(TokenError::WrongType(name.into())),
        },
        Some(_) => Err(TokenError::WrongType(name.into())),
    }
}
