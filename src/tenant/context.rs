//! The context: the tenant, subject and claims that a transaction acts for.
//!
//! Its value lives in a setting (src/pg/context_setting.rs), so that savepoints restore it, parallel workers see it and it ends with
//! the transaction. That it is set once is tracked beside it, not by the value: a savepoint rolled back does not free it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID, value};
use crate::pg::data::{self, Kept};
use crate::pg::scan::{self, Key};
use crate::pg::{context_setting, leftover, session, xact};
use crate::sql_functions;
use crate::tenant::token::{self, Proof};

/// For whom a transaction acts.
pub struct Context {
    pub tenant: String,
    pub subject: Option<String>,
    /// The token's claims set, as JSON.
    pub claims: Option<String>,
    /// What it keeps of the token that set it.
    token: Option<Proof>,
    /// What the functions of the policies return, ready made: they are called for every row that no index leads to.
    text: Kept,
    uuid: Option<Kept>,
    int: Option<i32>,
    bigint: Option<i64>,
}

thread_local! {
    /// The setting's value, read.
    static CURRENT: RefCell<Option<Rc<Context>>> = const { RefCell::new(None) };
    /// Counts changes of the setting.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    /// Contexts that were in force earlier in this transaction: somebody may still hold what they returned.
    static EARLIER: RefCell<Vec<Rc<Context>>> = const { RefCell::new(Vec::new()) };
    /// What this transaction was set to act for, whatever was rolled back since.
    static SET: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this transaction has asked for its binding, and whether bindings may have changed since it was looked up.
    static BINDING_READ: Cell<bool> = const { Cell::new(false) };
    static BINDINGS_CHANGED: Cell<bool> = const { Cell::new(false) };
    /// The session role's binding.
    static BOUND: RefCell<Option<(Oid, Option<Rc<Context>>)>> = const { RefCell::new(None) };
}

sql_functions! {
    custody_tenant, pg_finfo_custody_tenant => |_| Ok(current()?.and_then(|c| c.text.datum()));
    custody_tenant_uuid, pg_finfo_custody_tenant_uuid => |_| Ok(current()?.and_then(|c| c.uuid.as_ref()?.datum()));
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
        token::authenticate(&token)?;
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

/// The context in force: what was set, else what the session's role is bound to. One whose token no longer holds is an error.
fn current() -> Result<Option<Rc<Context>>> {
    let Some(context) = CURRENT.with_borrow(Clone::clone) else { return bound() };
    if let Some(proof) = &context.token {
        proof.holds()?;
    }
    Ok(Some(context))
}

/// Whether a token set the context, so that its uses are to be watched.
pub fn is_by_token() -> bool {
    CURRENT.with_borrow(|context| context.as_ref().is_some_and(|context| context.token.is_some()))
}

/// Rows are asked of a query. If it reads or writes tables under row-level security, the token of the context must still hold.
pub fn used(protected: impl FnOnce() -> bool) -> Result<()> {
    token::look_up();
    match current() {
        Err(why) if protected() => Err(why),
        _ => Ok(()),
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
            keep(std::mem::replace(&mut *current, context));
        }
    });
}

/// Keeps a context that is no longer in force until the transaction ends.
fn keep(context: Option<Rc<Context>>) {
    EARLIER.with(|earlier| {
        if let Ok(mut earlier) = earlier.try_borrow_mut() {
            earlier.extend(context);
        }
    });
}

/// The transaction is over.
pub fn transaction_ended() {
    EARLIER.set(Vec::new());
    SET.set(None);
    BINDING_READ.set(false);
    leftover::transaction_ended();
}

impl Context {
    fn new(tenant: String) -> Self {
        // Only the canonical form counts: '01' and '1' would else be one tenant to a policy and two to the log.
        let uuid = tenant.parse::<Uuid>().ok().filter(|u| u.to_string() == tenant).map(Kept::uuid);
        let int = tenant.parse::<i32>().ok().filter(|n| n.to_string() == tenant);
        let bigint = tenant.parse::<i64>().ok().filter(|n| n.to_string() == tenant);
        let text = Kept::text(&tenant);
        Self { tenant, subject: None, claims: None, token: None, text, uuid, int, bigint }
    }

    fn read(value: &Value) -> Option<Self> {
        let mut context = Self::new(value.get("tenant")?.as_str()?.to_owned());
        context.subject = value.get("subject").and_then(Value::as_str).map(ToOwned::to_owned);
        context.claims = value.get("claims").filter(|c| c.is_object()).map(Value::to_string);
        context.token = Proof::read(value);
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
        keep(BOUND.take().and_then(|(_, before)| before));
    }
    if let Some((of, bound)) = BOUND.with_borrow(Clone::clone)
        && of == role
    {
        return Ok(bound);
    }
    let found = scan::our_rows("role_binding", &[Key::Oid(role)], |row| row.get::<String>(2))?;
    let bound = found.into_iter().next().map(|tenant| Rc::new(Context::new(tenant)));
    keep(BOUND.replace(Some((role, bound.clone()))).and_then(|(_, before)| before));
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
    let context = json!({ "tenant": tenant });
    is_new(&context)?;
    set(&context, tenant)
}

/// The session's role may act for this tenant with a token: unless it is bound, and to another.
pub fn must_not_be_bound_elsewhere(tenant: &str) -> Result<()> {
    match bound()? {
        Some(bound) if bound.tenant != tenant => Err(bound_elsewhere(tenant)),
        _ => Ok(()),
    }
}

fn bound_elsewhere(tenant: &str) -> Error {
    Error::BoundElsewhere { tenant: tenant.to_owned(), role: session::role_name(session::session_role()) }
}

/// Whether the session's role is bound to a tenant, so that it is never without a context.
pub fn is_bound() -> Result<bool> {
    Ok(bound()?.is_some())
}

/// Runs `work` for a tenant, or for none, whatever the transaction acts for; nothing that it calls can set another context.
///
/// For `custody.probe` alone, within a subtransaction that is rolled back: with that the setting is again what it was.
pub fn lent<T>(tenant: Option<&str>, work: impl FnOnce() -> T) -> T {
    struct Back(Option<String>);
    impl Drop for Back {
        fn drop(&mut self) {
            SET.set(self.0.take());
        }
    }
    let text = tenant.map_or_else(String::new, |t| json!({ "tenant": t }).to_string());
    let _back = Back(SET.replace(Some(text.clone())));
    context_setting::set(&text);
    work()
}

/// Whether a transaction that acts for a tenant refuses to act for another, tried as the application would. See `lent`.
pub fn refuses_another(tenant: &str) -> bool {
    matches!(is_new(&json!({ "tenant": tenant })), Err(Error::OtherContext { .. }))
}

/// Whether this transaction was not set to act for this context yet. To have been set for another is an error.
pub fn is_new(context: &Value) -> Result<bool> {
    let Some(before) = SET.with_borrow(Clone::clone) else {
        // Before anything else: a token that holds once must not be spent on a connection that is refused.
        leftover::refuse()?;
        return Ok(true);
    };
    let wanted = context.to_string();
    if before == wanted {
        return Ok(false);
    }
    let name = |c: &Value| match (c.get("tenant").and_then(Value::as_str), c.get("subject").and_then(Value::as_str)) {
        (Some(tenant), Some(subject)) => format!("tenant \"{tenant}\", subject \"{subject}\""),
        (tenant, _) => format!("tenant \"{}\"", tenant.unwrap_or_default()),
    };
    let before = serde_json::from_str(&before).unwrap_or_default();
    Err(Error::OtherContext { set: name(&before), wanted: name(context) })
}

/// Sets the context of this transaction, once: `is_new` was asked before.
pub fn set(context: &Value, tenant: &str) -> Result<()> {
    let text = context.to_string();
    context_setting::set(&text);
    SET.set(Some(text));
    if !session::in_transaction_block() {
        pgrx::warning!("the context for tenant \"{tenant}\" ends with this statement; set it inside BEGIN … COMMIT");
    }
    Ok(())
}
