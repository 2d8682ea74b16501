//! Every error that pg_custody raises: its SQLSTATE (class UC), what happened, why, and what to do about it.

use custody_core::token::TokenError;

/// One error a user can meet. `report` gives the words.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Error {
    NoContext {
        table: String,
    },
    AssumeRefused {
        tenant: String,
        role: String,
    },
    BoundElsewhere {
        tenant: String,
        role: String,
    },
    OtherContext {
        set: String,
        wanted: String,
    },
    BadToken(TokenError),
    TokenExpired,
    TokenWithdrawn {
        why: &'static str,
    },
    CannotSpend,
    BadKeySet {
        why: String,
    },
    ReservedSetting,
    OutlivesContext {
        what: &'static str,
    },
    LeftOver {
        what: String,
    },
    TenantDoesNotFit {
        table: String,
        tenant: String,
        column_type: String,
    },
    RoleNotConstrained {
        role: String,
        why: &'static str,
    },
    BadArgument {
        name: &'static str,
        why: String,
    },
    CannotProtect {
        table: String,
        why: String,
        hint: String,
    },
    NotProtected {
        table: String,
    },
    NotPrepared {
        table: String,
        steps: String,
    },
    WouldCheckNothing {
        table: String,
        role: String,
    },
    NoSuchSchema {
        schema: String,
    },
    NotRegistered {
        table: String,
    },
    AppendOnly {
        what: &'static str,
    },
    CannotAudit {
        table: String,
        why: String,
        hint: String,
    },
    NotAudited {
        table: String,
    },
    KeyMissing {
        path: String,
        why: String,
    },
    KeyStays {
        what: &'static str,
        why: String,
        hint: &'static str,
    },
    TooLarge {
        bytes: usize,
    },
    CannotPrepare,
    CannotCheckpoint {
        why: &'static str,
    },
    InRecovery {
        what: &'static str,
    },
    NoSuchSeverity {
        severity: String,
    },
    CannotProbe {
        table: String,
        why: String,
        hint: String,
    },
    ProbeRefused {
        table: String,
        why: String,
        hint: String,
    },
    NothingToErase {
        what: String,
        other_names: Vec<String>,
    },
    CannotErase {
        why: &'static str,
        hint: &'static str,
    },
    NotVerified {
        summary: String,
        findings: String,
    },
    Unguarded {
        table: String,
    },
    FloorCannotBe {
        table: String,
        why: String,
    },
    Unisolated {
        what: &'static str,
        finding: String,
        why: String,
        fix: String,
    },
    GuardRefuses {
        what: String,
        why: String,
    },
    LogWouldBeLost,
    SchemaGone,
    /// A MERGE whose target was not marked as read.
    BlindMerge {
        table: String,
    },
    NotStarted,
    AlreadyStarted,
    Internal {
        what: String,
    },
}

/// An error's parts, as PostgreSQL shows them.
pub struct Report {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// What a function of ours returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something that cannot be, said in words all the same.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }

    /// The SQLSTATE and the words.
    pub fn report(self) -> Report {
        let (sqlstate, message, detail, hint) = match self {
            Self::NoContext { table } => (
                "UC001",
                format!("no tenant context is set: nothing may be written to {table}"),
                "Every write to a protected table needs a tenant that this transaction acts for.".into(),
                "Call custody.authenticate(token) or custody.assume_tenant(id) first, in the same transaction; or ask for custody.bind_role.".into(),
            ),
            Self::AssumeRefused { tenant, role } => (
                "UC002",
                format!("role \"{role}\" may not act for tenant \"{tenant}\""),
                "Neither custody.allow_assume nor custody.bind_role names this tenant for the role that logged in.".into(),
                format!("An administrator can SELECT custody.allow_assume('{role}', ARRAY[…])."),
            ),
            Self::BoundElsewhere { tenant, role } => (
                "UC002",
                format!("role \"{role}\" may not act for tenant \"{tenant}\""),
                "It is bound to another tenant, and acts for that one alone.".into(),
                format!("An administrator can SELECT custody.unbind_role('{role}'), or bind it to this tenant."),
            ),
            Self::OtherContext { set, wanted } => (
                "UC003",
                format!("this transaction already acts for {set}"),
                format!("It cannot go on for {wanted}: a context is set once and ends with its transaction."),
                "End the transaction and set the other context in the next one.".into(),
            ),
            Self::BadToken(why) => (
                "UC004",
                "the token is refused".into(),
                format!("The reason: {why}."),
                match why {
                    TokenError::Expired | TokenError::Revoked | TokenError::Used => "Log in again to get a new token.",
                    TokenError::NotYet => "Set the clocks right; custody.token_leeway allows for as much as they may differ.",
                    _ => "The keys that are accepted, and what their tokens must say, are in custody.token_key.",
                }
                .into(),
            ),
            Self::TokenExpired => (
                "UC005",
                "the token of this transaction has expired".into(),
                "It held when the context was set; exp is checked again at every use.".into(),
                "Roll back, and go on with a new token.".into(),
            ),
            Self::TokenWithdrawn { why } => (
                "UC071",
                "the token of this transaction no longer holds".into(),
                format!("It held when the context was set; since then {why}."),
                "Roll back, and log in again to get a new token.".into(),
            ),
            Self::CannotSpend => (
                "UC072",
                "a token that holds once cannot be used on a standby".into(),
                "That it was used must be written down, and this server only follows another.".into(),
                "Authenticate on the primary; or let a key's tokens hold more than once (single_use => false) for reading here.".into(),
            ),
            Self::BadKeySet { why } => (
                "UC070",
                "the key set is refused, and no key was changed".into(),
                format!("The reason: {why}."),
                "Load what the issuer publishes as jwks_uri: public keys alone (RFC 7517).".into(),
            ),
            Self::ReservedSetting => (
                "UC006",
                "custody.context cannot be set".into(),
                "Only pg_custody itself sets it, for one transaction.".into(),
                "Use custody.authenticate, custody.assume_tenant or custody.bind_role.".into(),
            ),
            Self::OutlivesContext { what } => (
                "UC007",
                format!("{what} would outlive the tenant context of this transaction"),
                "Whoever gets this connection next, for another tenant, could read from it.".into(),
                "Read within the transaction; or use a temporary table with ON COMMIT DROP.".into(),
            ),
            Self::LeftOver { what } => (
                "UC007",
                format!("no context can be set while the session has {what}"),
                "It would carry over what is read under the context to whoever gets this connection next, or stand before the permanent object of its name.".into(),
                "DISCARD TEMP, or CLOSE the cursor and begin another transaction; make temporary tables ON COMMIT DROP, after the context is set.".into(),
            ),
            Self::TenantDoesNotFit { table, tenant, column_type } => (
                "UC001",
                format!("tenant \"{tenant}\" is no {column_type} in canonical form: nothing may be written to {table}"),
                "The tenant column's type has no such value, so no row is this tenant's.".into(),
                "Set the context to a tenant id as the column prints it.".into(),
            ),
            Self::RoleNotConstrained { role, why } => (
                "UC012",
                format!("role \"{role}\" cannot be bound to a tenant"),
                format!("It {why}, so row-level security would not hold it to one."),
                "Bind a login role that is a member of custody_app and of nothing else.".into(),
            ),
            Self::BadArgument { name, why } => ("UC013", format!("argument \"{name}\" {why}"), String::new(), String::new()),
            Self::CannotProtect { table, why, hint } => ("UC020", format!("{table} cannot be protected"), why, hint),
            Self::NotProtected { table } => (
                "UC021",
                format!("{table} is not protected"),
                String::new(),
                "The tables that are: SELECT target FROM custody.registered_table.".into(),
            ),
            Self::NotPrepared { table, steps } => (
                "UC047",
                format!("{table} cannot be protected in an instant yet"),
                format!("Still to do, and long on a large table: {steps}."),
                "SELECT custody.protect_script(…) gives what is left; or custody.protect(…) does it all, while others wait.".into(),
            ),
            Self::WouldCheckNothing { table, role } => (
                "UC048",
                format!("role \"{role}\" cannot change the keys of {table}"),
                "Row-level security holds it, so PostgreSQL would check new foreign keys against no rows at all, and call them valid.".into(),
                "Do this as a superuser or a role with BYPASSRLS.".into(),
            ),
            Self::NoSuchSchema { schema } => (
                "UC049",
                format!("there is no schema \"{schema}\" to protect"),
                "It does not exist, or it is the system's or pg_custody's own.".into(),
                String::new(),
            ),
            Self::NotRegistered { table } => (
                "UC030",
                format!("{table} is not registered for audit"),
                "Its capture trigger was not put there by custody.audit, so nothing may be written to the log for it.".into(),
                "SELECT custody.audit(…) the table, or drop the trigger. While a dump's data is being restored by itself, the registry must come first: pg_restore --data-only --schema=custody, then --data-only --exclude-schema=custody (docs/lives.md).".into(),
            ),
            Self::AppendOnly { what } => (
                "UC031",
                format!("the log is append-only: {what} is refused"),
                "This holds for everyone, the superuser included.".into(),
                "What is wrong in the log is set right by a further entry: change the row again.".into(),
            ),
            Self::CannotAudit { table, why, hint } => ("UC032", format!("{table} cannot be audited"), why, hint),
            Self::NotAudited { table } => (
                "UC033",
                format!("{table} is not audited"),
                String::new(),
                "The tables that are: SELECT target FROM custody.audited_table.".into(),
            ),
            Self::KeyMissing { path, why } => (
                "UC034",
                "the signing key cannot be read, so no entry can be written".into(),
                format!("{path}: {why}."),
                "Restore the file from where it was kept, owned by the server's user and with mode 0600; or, if it is lost, SELECT custody.recover_signing_key('why').".into(),
            ),
            Self::KeyStays { what, why, hint } => ("UC037", format!("the signing key is not {what}"), why, hint.into()),
            Self::TooLarge { bytes } => (
                "UC035",
                format!("the row is too large to be recorded: its image would take {bytes} bytes"),
                "An image is one value, and PostgreSQL's limit on a value is 1 GiB.".into(),
                "Keep such values outside the row, or custody.audit(…, exclude => …) their column.".into(),
            ),
            Self::CannotPrepare => (
                "UC036",
                "a transaction that starts an incarnation or changes the signing key cannot be prepared".into(),
                "Others would wait until it is resolved.".into(),
                "Commit it, and prepare the next one.".into(),
            ),
            Self::NoSuchSeverity { severity } => (
                "UC041",
                format!("there is no severity \"{severity}\""),
                String::new(),
                "The severities are critical, high, medium and low.".into(),
            ),
            Self::CannotProbe { table, why, hint } => ("UC045", format!("{table} cannot be probed"), why, hint),
            Self::ProbeRefused { table, why, hint } => ("UC046", format!("you may not probe {table}"), why, hint),
            Self::NothingToErase { what, other_names } => (
                "UC080",
                "there is nothing to erase".into(),
                format!("The log has no entry of {what}, or it was erased before."),
                match other_names.as_slice() {
                    [] => String::new(),
                    names => format!("It has some of that key under names that no table has now: {}. If one was this table's, name it in former_names.", names.join(", ")),
                },
            ),
            Self::CannotErase { why, hint } => ("UC081", "nothing can be erased here".into(), why.into(), hint.into()),
            Self::NotVerified { summary, findings } => (
                "UC050",
                format!("the log is not valid: {summary}"),
                findings,
                "SELECT * FROM custody.verify() lists every finding.".into(),
            ),
            Self::Unguarded { table } => (
                "UC060",
                format!("{table} is registered as protected, but row-level security is off or not forced on it"),
                "Nothing would keep its tenants apart, so nobody whom row-level security binds may use it.".into(),
                format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; or custody.unprotect it."),
            ),
            Self::FloorCannotBe { table, why } => (
                "UC061",
                format!("the tenants of {table} cannot be kept apart"),
                why,
                "SELECT custody.unprotect(…) it, and custody.protect it by the column that says whose a row is.".into(),
            ),
            Self::Unisolated { what, finding, why, fix } => {
                ("UC062", format!("the guard refuses {what}: {finding}"), why, fix)
            }
            Self::GuardRefuses { what, why } => (
                "UC063",
                format!("the guard refuses {what}"),
                format!("The reason: {why}."),
                "An administrator can SELECT custody.guard('off') first; that is recorded.".into(),
            ),
            Self::LogWouldBeLost => (
                "UC066",
                "DROP EXTENSION pg_custody would drop the audit log".into(),
                "The log is in custody.entry, and has entries of this database's tables.".into(),
                "Keep it first, with custody.export_log() or pg_dump; then SET custody.drop_log = on, in the session that drops it.".into(),
            ),
            Self::SchemaGone => (
                "UC064",
                "the schema custody is gone, or has another name".into(),
                "Nothing would be recorded or guarded any more, so no DDL is allowed.".into(),
                "Rename it back.".into(),
            ),
            Self::BlindMerge { table } => (
                "UC065",
                format!("a MERGE that does not read {table}, whose rows it is to tell apart"),
                "It was parsed without pg_custody: as a body in BEGIN ATOMIC, or prepared before the library was loaded. It would come upon rows that row-level security hides, and tell of them.".into(),
                "Name a column of the target in its ON condition; or prepare it again; or write the function's body as a string.".into(),
            ),
            Self::NotStarted => (
                "UC090",
                "pg_custody has no incarnation in this database".into(),
                "The row of custody.instance is missing.".into(),
                "Run CREATE EXTENSION pg_custody; or SELECT custody.new_incarnation('…') if it was installed before.".into(),
            ),
            Self::AlreadyStarted => ("UC091", "pg_custody is already started in this database".into(), "Or this transaction has recorded something before its CREATE EXTENSION, which would be lost.".into(), "Create the extension in a transaction of its own.".into()),
            Self::CannotCheckpoint { why } => (
                "UC051",
                "no checkpoint can be made here".into(),
                why.into(),
                "CALL custody.checkpoint() outside of a transaction block.".into(),
            ),
            Self::InRecovery { what } => (
                "UC059",
                format!("{what} on a standby"),
                "It has to be written down, and this server only follows another.".into(),
                "Do it on the primary. Verification, coverage and reading work here too.".into(),
            ),
            Self::Internal { what } => (
                "UC099",
                format!("pg_custody could not go on: {what}"),
                "This is a defect of pg_custody.".into(),
                String::new(),
            ),
        };
        let some = |text: String| (!text.is_empty()).then_some(text);
        Report { sqlstate, message, detail: some(detail), hint: some(hint) }
    }
}
