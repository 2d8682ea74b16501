//! Tokens: setting the context from one, and whether it still holds, at each use of that context.
//!
//! A token ends when it expires, when its subject's tokens are revoked and when its key goes. The clock is read and other sessions'
//! commits are taken in whenever rows are asked of a query (src/pg/use_hooks.rs); between those, a use costs a few comparisons, as
//! the two tables are read again only after one of them changed.

use std::cell::Cell;

use pgrx::prelude::*;
use serde_json::{Map, Value};

use custody_core::key;
use custody_core::token::{self, Algorithm, Moment, Rules, TokenError, TokenKey, TokenPublicKey};

use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::scan::{self, Key, Row};
use crate::pg::{seen, session};
use crate::settings;
use crate::tenant::context;

/// What a context keeps of the token that set it.
pub struct Proof {
    subject: Option<String>,
    issued: Option<i64>,
    /// In seconds since 1970: the token's expiry and what the clocks may differ by, or its key's end if that is before.
    until: i64,
    kid: String,
    /// Which key had that name.
    key_id: String,
}

thread_local! {
    /// The clock, in seconds since 1970, when it was last looked at.
    static NOW: Cell<i64> = const { Cell::new(i64::MIN) };
    /// The context, by its generation, whose token was last found to hold.
    static HELD: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Whether keys or revocations may have changed since.
    static STALE: Cell<bool> = const { Cell::new(true) };
    /// The oids of custody.token_key and custody.token_revocation, once a token was read.
    static WATCHED: Cell<[u32; 2]> = const { Cell::new([0; 2]) };
}

/// A table changed. Neither fails nor calls PostgreSQL.
pub fn changed(relid: u32) {
    if relid == 0 || WATCHED.get().contains(&relid) {
        STALE.set(true);
    }
}

/// Takes in the time and what others have committed.
pub fn look_up() {
    session::accept_invalidations();
    NOW.set(session::now().div_euclid(1_000_000));
}

impl Proof {
    /// From the value of the setting; none if no token set it.
    pub fn read(value: &Value) -> Option<Self> {
        let text = |name| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        Some(Self {
            subject: text("subject"),
            issued: value.get("iat").and_then(Value::as_i64),
            until: value.get("until").and_then(Value::as_i64)?,
            kid: text("kid")?,
            key_id: text("key")?,
        })
    }

    /// Whether the token still holds.
    pub fn holds(&self) -> Result<()> {
        if self.until <= NOW.get().max(session::statement_started()) {
            return Err(Error::TokenExpired);
        }
        // A worker has its leader's context, its snapshot and nothing to add to its verdict.
        if (HELD.get() == context::generation() && !STALE.get()) || session::is_parallel_worker() {
            return Ok(());
        }
        // Before reading, so that a change that comes in meanwhile counts.
        STALE.set(false);
        let verdict = self.look_again();
        match verdict {
            // While a parallel query runs, only what was committed before it can be read: it is read again later.
            Ok(()) if !session::in_parallel_mode() => HELD.set(context::generation()),
            _ => STALE.set(true),
        }
        verdict
    }

    fn look_again(&self) -> Result<()> {
        let now = session::now().div_euclid(1_000_000);
        // The clock that this looks at may be ahead of the one that the query began with.
        if self.until <= now {
            return Err(Error::TokenExpired);
        }
        if find_key(&self.kid, now)?.is_none_or(|key| key.key_id() != self.key_id) {
            return Err(Error::TokenWithdrawn { why: "its key was removed, replaced or has ended" });
        }
        match is_revoked(self.subject.as_deref(), self.issued)? {
            true => Err(Error::TokenWithdrawn { why: "its subject's tokens were revoked" }),
            false => Ok(()),
        }
    }
}

/// A registered key, in force.
struct Registered {
    key: TokenKey,
    until: Option<i64>,
}

impl Registered {
    fn read(row: &Row<'_>, now: i64) -> Option<Self> {
        let seconds = |n| row.get::<TimestampWithTimeZone>(n).map(unix_seconds);
        let until = seconds(7);
        if seconds(6).is_some_and(|from| from > now) || until.is_some_and(|until| until <= now) {
            return None;
        }
        let algorithm = Algorithm::from_name(&row.get::<String>(2)?)?;
        let rules = Rules {
            audience: row.get(4)?,
            tenant_claim: row.get(5)?,
            issuer: row.get(9),
            role_claim: row.get(10),
            max_lifetime: row.get::<i32>(11).map(i64::from),
            single_use: row.get(12).unwrap_or(false),
        };
        let public_key = TokenPublicKey::from_bytes(algorithm, &row.get::<Vec<u8>>(3)?).ok()?;
        Some(Self { key: TokenKey { public_key, rules }, until })
    }

    fn key_id(&self) -> String {
        key::key_id(&self.key.public_key.to_bytes())
    }
}

/// The key of a name, if there is one in force.
fn find_key(kid: &str, now: i64) -> Result<Option<Registered>> {
    Ok(scan::our_rows("token_key", &[Key::Text(kid)], |row| Registered::read(row, now))?.into_iter().next())
}

/// Whether a subject's token of this age is revoked.
fn is_revoked(subject: Option<&str>, issued: Option<i64>) -> Result<bool> {
    let Some(subject) = subject else { return Ok(false) };
    let before = |row: &Row<'_>| row.get::<TimestampWithTimeZone>(2).map(unix_seconds);
    let revocations = scan::our_rows("token_revocation", &[Key::Text(subject)], before)?;
    Ok(revocations.into_iter().any(|before| token::revoked(issued, before, settings::token_leeway())))
}

/// A moment in seconds since 1970; the infinities are as far as that goes.
fn unix_seconds(moment: TimestampWithTimeZone) -> i64 {
    i64::from(moment).saturating_add(crate::pg::layout::EPOCH).div_euclid(1_000_000)
}

/// Sets the context from a token, or says why not.
pub fn authenticate(text: &str) -> Result<()> {
    let role = session::role_name(session::session_role());
    let refused = |why| {
        // The error itself may be caught by the application; the line is the server's.
        pgrx::log!("pg_custody: a token was refused for role {role}: {why}");
        Error::BadToken(why)
    };
    look_up();
    let oid = |table| scan::our_table(table).map_or(0, Oid::to_u32);
    WATCHED.set([oid("token_key"), oid("token_revocation")]);
    STALE.set(false);

    let token = token::Token::read(text).map_err(refused)?;
    let now = session::now().div_euclid(1_000_000);
    let leeway = settings::token_leeway();
    let registered = find_key(token.key_id(), now)?.ok_or(TokenError::UnknownKey).map_err(refused)?;
    let claims = token.verify(&registered.key, &Moment { now, leeway, role: &role }).map_err(refused)?;
    if is_revoked(claims.subject.as_deref(), claims.issued)? {
        return Err(refused(TokenError::Revoked));
    }
    context::must_not_be_bound_elsewhere(&claims.tenant)?;

    let ends = claims.expires.saturating_add(leeway);
    let mut context = Map::new();
    context.insert("tenant".into(), claims.tenant.clone().into());
    context.insert("until".into(), registered.until.map_or(ends, |until| until.min(ends)).into());
    context.insert("kid".into(), token.key_id().into());
    context.insert("key".into(), registered.key_id().into());
    if let Some(subject) = claims.subject {
        context.insert("subject".into(), subject.into());
    }
    if let Some(issued) = claims.issued {
        context.insert("iat".into(), issued.into());
    }
    context.insert("claims".into(), Value::Object(claims.all));
    let context = Value::Object(context);
    // The same token again in one transaction, after a savepoint was rolled back, is the same use.
    if context::is_new(&context)?
        && let Some(id) = &claims.id
    {
        if session::in_recovery() {
            return Err(Error::CannotSpend);
        }
        // However the leeway may be set until then, it is not forgotten while the token could hold.
        let forget = claims.expires.saturating_add(i64::from(settings::LARGEST_LEEWAY));
        if !seen::first_use(token.key_id(), id, forget)? {
            return Err(refused(TokenError::Used));
        }
    }
    context::set(&context, &claims.tenant)?;
    HELD.set(context::generation());
    Ok(())
}
