//! The context: the tenant, subject and claims that a transaction acts for.
//!
//! Its value lives in a setting (src/pg/context_setting.rs), so that savepoints restore it, parallel workers see it and it ends with
//! the transaction. That it is set once is tracked beside it, not by the value: a savepoint rolled back does not free it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use custody_core::token::{self, TokenKey};

use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID, value};
use crate::pg::scan::{self, Key};
use crate::pg::{context_setting, data, leftover, session, xact};
use crate::sql_functions;

/// For whom a transaction acts.
pub struct Context {
    pub tenant: String,
    pub subject: Option<String>,
    /// The token's claims set, as JSON.
    pub claims: Option<String>,
    /// When the token expires, in seconds since 1970.
    expires: Option<i64>,
    uuid: Option<Uuid>,
    int: Option<i32>,
    bigint: Option<i64>,
}

thread_local! {
    /// The setting's value, read.
    static CURRENT: RefCell<Option<Rc<Context>>> = const { RefCell::new(None) };
    /// Counts changes of the setting.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    /// What this transaction was set to act for, whatever was rolled back since.
    static SET: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this transaction has asked for its binding, and whether bindings may have changed since it was looked up.
    static BINDING_READ: Cell<bool> = const { Cell::new(false) };
    static BINDINGS_CHANGED: Cell<bool> = const { Cell::new(false) };
    /// The session role's binding.
    static BOUND: RefCell<Option<(Oid, Option<Rc<Context>>)>> = const { RefCell::new(None) };
}

sql_functions! {
    custody_tenant, pg_finfo_custody_tenant => |_| Ok(current()?.and_then(|c| data::text(&c.tenant)));
    custody_tenant_uuid, pg_finfo_custody_tenant_uuid => |_| Ok(current()?.and_then(|c| c.uuid).and_then(data::uuid));
    custody_tenant_int, pg_finfo_custody_tenant_int => |_| Ok(current()?.and_then(|c| c.int).and_then(value));
    custody_tenant_bigint, pg_finfo_custody_tenant_bigint => |_| Ok(current()?.and_then(|c| c.bigint).and_then(value));
    custody_subject, pg_finfo_custody_subject => |_| Ok(current()?.and_then(|c| c.subject.as_deref().and_then(data::text)));
    custody_claims, pg_finfo_custody_claims => |_| {
        let claims = current()?.and_then(|c| c.claims.as_deref().and_then(|c| serde_json::from_str::<Value>(c).ok()));
        Ok(claims.and_then(|c| value(pgrx::JsonB(c))))
    };
    custody_authenticate, pg_finfo_custody_authenticate => |call: &mut Call| {
        session::hide_statement();
        let token: String = call.required(0, "token")?;
        authenticate(&token)?;
        Ok(VOID)
    };
    custody_assume_tenant, pg_finfo_custody_assume_tenant => |call: &mut Call| {
        let tenant: String = call.required(0, "id")?;
        assume(&tenant)?;
        Ok(VOID)
    };
    custody_require_context, pg_finfo_custody_require_context => |call: &mut Call| {
        let trigger = call.trigger()?;
        let relid = trigger.relid();
        xact::statement_trigger_fired();
        if session::row_security_active(relid) {
            let context = current()?;
            let table = || session::relation_name(relid);
            let Some(context) = context else { return Err(Error::NoContext { table: table() }) };
            let column_type = trigger.argument(0).unwrap_or_default();
            let fits = match column_type.as_str() {
                "uuid" => context.uuid.is_some(),
                "int" => context.int.is_some(),
                "bigint" => context.bigint.is_some(),
                _ => true,
            };
            if !fits {
                return Err(Error::TenantDoesNotFit { table: table(), tenant: context.tenant.clone(), column_type });
            }
        }
        Ok(VOID)
    };
}

/// A moment in seconds since 1970; the infinities are as far as that goes.
fn unix_seconds(moment: TimestampWithTimeZone) -> i64 {
    i64::from(moment).saturating_add(crate::pg::layout::EPOCH).div_euclid(1_000_000)
}

/// The context in force: what was set, else what the session's role is bound to. An expired one is an error.
fn current() -> Result<Option<Rc<Context>>> {
    let Some(context) = CURRENT.with_borrow(Clone::clone) else { return bound() };
    match context.expires {
        Some(expires) if expires <= session::statement_started() => Err(Error::TokenExpired),
        _ => Ok(Some(context)),
    }
}

/// The context in force, for the actor part of entries: expired or not, it is who acts.
pub fn for_the_record() -> Option<Rc<Context>> {
    CURRENT.with_borrow(Clone::clone).or_else(|| bound().ok().flatten())
}

/// Whether a context was set in this transaction, so that nothing read under it may outlive it; also if it is gone again, as after
/// a function with a SET clause or a savepoint.
pub fn was_set() -> bool {
    SET.with_borrow(Option::is_some)
}

/// Changes whenever the context does.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// The setting has a new value. Neither fails nor calls PostgreSQL.
pub fn assigned(value: &str) {
    GENERATION.set(GENERATION.get() + 1);
    let context = serde_json::from_str::<Value>(value).ok().and_then(|v| Context::read(&v)).map(Rc::new);
    CURRENT.with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            *current = context;
        }
    });
}

/// The transaction is over.
pub fn transaction_ended() {
    SET.set(None);
    BINDING_READ.set(false);
    leftover::transaction_ended();
}

impl Context {
    fn new(tenant: String) -> Self {
        // Only the canonical form counts: '01' and '1' would else be one tenant to a policy and two to the log.
        let uuid = tenant.parse::<Uuid>().ok().filter(|u| u.to_string() == tenant);
        let int = tenant.parse::<i32>().ok().filter(|n| n.to_string() == tenant);
        let bigint = tenant.parse::<i64>().ok().filter(|n| n.to_string() == tenant);
        Self { tenant, subject: None, claims: None, expires: None, uuid, int, bigint }
    }

    fn read(value: &Value) -> Option<Self> {
        let mut context = Self::new(value.get("tenant")?.as_str()?.to_owned());
        context.subject = value.get("subject").and_then(Value::as_str).map(ToOwned::to_owned);
        context.claims = value.get("claims").filter(|c| c.is_object()).map(Value::to_string);
        context.expires = value.get("exp").and_then(Value::as_i64);
        Some(context)
    }
}

/// Some table of ours changed, perhaps custody.role_binding: its capture trigger sees to it that every session hears of it.
pub fn bindings_changed() {
    BINDINGS_CHANGED.set(true);
}

/// The context of the tenant that the session's role is bound to. It stays what it was when this transaction first asked.
fn bound() -> Result<Option<Rc<Context>>> {
    let role = session::session_role();
    let read = BINDING_READ.replace(true);
    if !read && BINDINGS_CHANGED.replace(false) {
        BOUND.set(None);
    }
    if let Some((of, bound)) = BOUND.with_borrow(Clone::clone)
        && of == role
    {
        return Ok(bound);
    }
    let found = scan::our_rows("role_binding", &[Key::Oid(role)], |row| row.get::<String>(2))?;
    let bound = found.into_iter().next().map(|tenant| Rc::new(Context::new(tenant)));
    BOUND.set(Some((role, bound.clone())));
    Ok(bound)
}

fn assume(tenant: &str) -> Result<()> {
    let role = session::session_role();
    let refused = || Error::AssumeRefused { tenant: tenant.to_owned(), role: session::role_name(role) };
    if tenant.is_empty() {
        return Err(refused());
    }
    let allowed = match bound()? {
        Some(bound) if bound.tenant != tenant => return Err(bound_elsewhere(tenant)),
        Some(_) => true,
        None => {
            let grants = |key: &[Key<'_>]| {
                scan::our_rows("assume_grant", key, |row| {
                    (row.get::<String>(2)? == tenant).then(|| row.get::<Oid>(1)).flatten()
                })
            };
            // The role's own grants are found by the index; those of groups it belongs to need a look at all.
            !grants(&[Key::Oid(role), Key::Text(tenant)])?.is_empty()
                || grants(&[])?.into_iter().any(|group| session::is_member(role, group))
        }
    };
    if !allowed {
        return Err(refused());
    }
    set(json!({ "tenant": tenant }), tenant)
}

fn authenticate(token: &str) -> Result<()> {
    let refused = |why| {
        // The error itself may be caught by the application; the line is the server's.
        pgrx::log!("pg_custody: a token was refused for role {}: {why}", session::role_name(session::session_role()));
        Error::BadToken(why)
    };
    let kid = token::key_id(token).map_err(refused)?;
    let now = session::now().div_euclid(1_000_000);
    let found = scan::our_rows("token_key", &[Key::Text(&kid)], |row| {
        let seconds = |n| row.get::<TimestampWithTimeZone>(n).map(unix_seconds);
        let in_force = seconds(6).is_none_or(|from| from <= now) && seconds(7).is_none_or(|to| now < to);
        in_force
            .then(|| Some(TokenKey { public_key: row.get(3)?, audience: row.get(4)?, tenant_claim: row.get(5)? }))
            .flatten()
    })?;
    let key = found.into_iter().next().ok_or(token::TokenError::UnknownKey).map_err(refused)?;
    let claims = token::verify(token, &key, now).map_err(refused)?;
    if let Some(subject) = &claims.subject {
        let revoked = scan::our_rows("token_revocation", &[Key::Text(subject)], |row| {
            row.get::<TimestampWithTimeZone>(2).map(unix_seconds)
        })?;
        // Issue times are whole seconds, so a token of the second of the revocation counts as older.
        if revoked.into_iter().any(|before| claims.issued.is_none_or(|issued| issued <= before)) {
            return Err(Error::TokenRevoked);
        }
    }
    if let Some(bound) = bound()?
        && bound.tenant != claims.tenant
    {
        return Err(bound_elsewhere(&claims.tenant));
    }
    let mut context = Map::new();
    context.insert("tenant".into(), claims.tenant.clone().into());
    if let Some(subject) = claims.subject {
        context.insert("subject".into(), subject.into());
    }
    context.insert("exp".into(), claims.expires.into());
    context.insert("claims".into(), Value::Object(claims.all));
    set(Value::Object(context), &claims.tenant)
}

fn bound_elsewhere(tenant: &str) -> Error {
    Error::BoundElsewhere { tenant: tenant.to_owned(), role: session::role_name(session::session_role()) }
}

/// Sets the context of this transaction, once.
fn set(context: Value, tenant: &str) -> Result<()> {
    let text = context.to_string();
    if let Some(before) = SET.with_borrow(Clone::clone)
        && before != text
    {
        let name = |c: &Value| match (c.get("tenant").and_then(Value::as_str), c.get("subject").and_then(Value::as_str))
        {
            (Some(tenant), Some(subject)) => format!("tenant \"{tenant}\", subject \"{subject}\""),
            (tenant, _) => format!("tenant \"{}\"", tenant.unwrap_or_default()),
        };
        let before = serde_json::from_str(&before).unwrap_or_default();
        return Err(Error::OtherContext { set: name(&before), wanted: name(&context) });
    }
    if !was_set() {
        leftover::refuse()?;
    }
    context_setting::set(&text);
    SET.set(Some(text));
    if !session::in_transaction_block() {
        pgrx::warning!("the context for tenant \"{tenant}\" ends with this statement; set it inside BEGIN … COMMIT");
    }
    Ok(())
}
