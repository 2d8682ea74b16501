//! One transaction's part of the log: takes a lane, numbers and chains what it records, and writes it before the end.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread::LocalKey;

use uuid::Uuid;

use custody_core::entry::{SALT_LENGTH, genesis};
use custody_core::journal::{ChainEnd, Fact, Journal, Which};
use custody_core::json;

use crate::audit::{incarnation, key, key_life};
use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::{append, context_setting, lane, scan, session};
use crate::tenant::context;

/// Bytes of entries of one level that are kept before they are written.
const BUFFER: usize = 1 << 20;

/// Bytes of the largest image: PostgreSQL's limit on one value, less what a tuple needs.
const LARGEST: usize = (1 << 30) - (1 << 16);

/// What is recorded, before the transaction adds who, when and where.
pub struct Record {
    pub tenant: Rc<str>,
    pub op: &'static str,
    pub schema_name: Option<Rc<str>>,
    pub table_name: Option<Rc<str>>,
    pub move_id: Option<Uuid>,
    pub row_key: Option<String>,
    pub old: Option<String>,
    pub new: Option<String>,
}

impl Record {
    /// A fact of the system chain.
    pub fn system(op: &'static str, table: Option<(&str, &str)>, new: String) -> Self {
        Self {
            tenant: "".into(),
            op,
            schema_name: table.map(|t| t.0.into()),
            table_name: table.map(|t| t.1.into()),
            move_id: None,
            row_key: None,
            old: None,
            new: Some(new),
        }
    }
}

struct Transaction {
    journal: Journal,
    /// The key that was current when it took its lane. It signs all that the transaction records.
    key_id: String,
    /// From where on that key is valid: what began before may be recorded after.
    not_before: u64,
    /// The actor part, and the context it was made in.
    actor: Option<(u64, Rc<str>)>,
    /// Set by the flush at the end: what comes after it, from others' callbacks, is written at once.
    write_through: bool,
}

/// A role's name by its oid, as it was last asked for.
type KnownName = RefCell<Option<(Oid, Rc<str>)>>;

thread_local! {
    static CURRENT: RefCell<Option<Transaction>> = const { RefCell::new(None) };
    static LAST_LANE: Cell<i32> = const { Cell::new(0) };
    static CLIENT: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
    static LOGIN: KnownName = const { RefCell::new(None) };
    static ACTING: KnownName = const { RefCell::new(None) };
    static SALTS: RefCell<(i32, usize, [u8; 1024])> = const { RefCell::new((0, 1024, [0; 1024])) };
}

/// Takes facts into the log of this transaction. On an error nothing of the change that caused it may stand.
pub fn record(records: impl IntoIterator<Item = impl Borrow<Record>>) -> Result<()> {
    let level = session::nest_level();
    with_current(|transaction| {
        let actor = transaction.actor();
        let login_role = name_of(&LOGIN, session::session_role());
        let acting_role = name_of(&ACTING, session::current_role());
        let (lsn, at) = (session::wal_position(), session::now());
        // Before the key was changed, and so before this transaction commits.
        let lsn = lsn.max(transaction.not_before);
        let lsn = if crate::settings::sabotaged("coarse_lsn") { lsn & !0xFFFF } else { lsn };
        for record in records {
            let record = record.borrow();
            for image in [&record.row_key, &record.old, &record.new].into_iter().flatten() {
                if image.len() > LARGEST {
                    return Err(Error::TooLarge { bytes: image.len() });
                }
            }
            let chain = transaction.chain(&record.tenant)?;
            let fact = Fact {
                op: record.op,
                schema_name: record.schema_name.clone(),
                table_name: record.table_name.clone(),
                login_role: login_role.clone(),
                acting_role: acting_role.clone(),
                actor: actor.clone(),
                move_id: record.move_id,
                lsn,
                at,
                row_key: record.row_key.as_deref(),
                old: record.old.as_deref(),
                new: record.new.as_deref(),
            };
            transaction.journal.append(level, chain, fact, salt)?;
        }
        if transaction.write_through {
            transaction.write(Which::All)?;
        } else if transaction.journal.unwritten_bytes(level) > BUFFER {
            transaction.write(Which::OwnLevel)?;
        }
        Ok(())
    })
}

/// The incarnation that this transaction writes for.
pub fn incarnation() -> Result<Uuid> {
    with_current(|transaction| Ok(transaction.journal.incarnation()))
}

/// The key that this transaction signs with.
pub fn key_id() -> Result<String> {
    with_current(|transaction| Ok(transaction.key_id.clone()))
}

/// The key with which this transaction digests redacted values.
pub fn redaction_key() -> Result<key::Secret> {
    key::redaction_key(&key_id()?)
}

/// Writes all that is recorded so far: somebody is about to read it.
pub fn flush() -> Result<()> {
    CURRENT.with(|current| match current.try_borrow_mut() {
        Ok(mut current) => current.as_mut().map_or(Ok(()), |t| t.write(Which::All)),
        // A query under our own insertion: what is being written is not there to be read yet.
        Err(_) => Ok(()),
    })
}

/// Whether `flush` would write anything.
pub fn has_unwritten() -> bool {
    CURRENT.with(|c| c.try_borrow().is_ok_and(|c| c.as_ref().is_some_and(|t| t.journal.has_unwritten())))
}

/// Whether this transaction has recorded anything.
pub fn is_recording() -> bool {
    CURRENT.with(|c| c.try_borrow().map_or(true, |c| c.is_some()))
}

/// Before the transaction commits or is prepared: the last moment at which writing can fail it.
pub fn before_end() -> Result<()> {
    flush()?;
    CURRENT.with_borrow_mut(|current| {
        if let Some(transaction) = current {
            transaction.write_through = true;
        }
    });
    Ok(())
}

/// Before a savepoint's work becomes its parent's. A loop of small savepoints must not gather without bound in their parent.
pub fn before_release() -> Result<()> {
    let full = CURRENT
        .with(|c| c.try_borrow().is_ok_and(|c| c.as_ref().is_some_and(|t| t.journal.all_unwritten_bytes() > BUFFER)));
    match full {
        true => flush(),
        false => Ok(()),
    }
}

/// The transaction is over, one way or the other.
pub fn ended() {
    incarnation::transaction_ended();
    CURRENT.with(|c| {
        if let Ok(mut c) = c.try_borrow_mut() {
            *c = None;
        }
    });
}

/// Before the transaction is prepared.
pub fn before_prepare() -> Result<()> {
    match incarnation::started_here() || key::made_here() {
        true => Err(Error::CannotPrepare),
        false if crate::settings::sabotaged("skip_flush_at_prepare") => Ok(()),
        false => before_end(),
    }
}

/// A savepoint's work becomes its parent's.
pub fn savepoint_released(level: u32) {
    incarnation::savepoint_released(level);
    key::savepoint_released(level);
    with_journal(|journal| {
        if !crate::settings::sabotaged("released_saves") {
            journal.sub_commit(level);
        }
    });
}

/// A savepoint's work is gone.
pub fn savepoint_rolled_back(level: u32) {
    let never_were = incarnation::savepoint_rolled_back(level);
    let keys = key::savepoint_rolled_back(level);
    if !never_were.is_empty() || !keys.is_empty() {
        // A journal of such a life, or signed with such a key, began with it, so all of it is gone too; the lane stays held, and is
        // taken again.
        CURRENT.with_borrow_mut(|current| {
            current.take_if(|t| never_were.contains(&t.journal.incarnation()) || keys.contains(&t.key_id));
        });
    }
    with_journal(|journal| {
        journal.forgets_outer_levels = crate::settings::sabotaged("exception_block");
        journal.sub_abort(level);
    });
}

fn with_journal(work: impl FnOnce(&mut Journal)) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(transaction) = current {
            work(&mut transaction.journal);
        }
    });
}

fn with_current<T>(work: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
    if CURRENT.with(|c| c.try_borrow().is_ok_and(|c| c.is_none())) {
        // May itself record (a new incarnation is an entry), so nothing is borrowed meanwhile.
        let transaction = Transaction::begin()?;
        CURRENT.with_borrow_mut(|current| {
            current.get_or_insert(transaction);
        });
    }
    CURRENT.with(|current| {
        let mut current = current
            .try_borrow_mut()
            .map_err(|_| Error::internal("an entry was recorded while one was being written"))?;
        match current.as_mut() {
            Some(transaction) => work(transaction),
            None => Err(Error::internal("the transaction has no journal")),
        }
    })
}

impl Transaction {
    /// Takes a lane: the one held last, else the first that is free. Never waits.
    fn begin() -> Result<Self> {
        let last = LAST_LANE.get();
        let mut lanes = std::iter::once(last).chain((0..i32::MAX).filter(|lane| *lane != last));
        let Some(lane) = lanes.find(|lane| lane::try_lock(*lane)) else {
            return Err(Error::internal("no lane is free"));
        };
        LAST_LANE.set(lane);
        let incarnation = incarnation::current()?;
        // The id comes before the key: who ends a key waits for the transactions that may use it, by their ids.
        let journal = Journal::new(incarnation, i64::from(lane), session::transaction_id());
        let (key_id, from_lsn) = key_life::to_sign_with(incarnation)?;
        let not_before = from_lsn.map_or(0, |lsn| lsn as u64);
        Ok(Self { journal, key_id, not_before, actor: None, write_through: false })
    }

    /// The tenant's chain. Where it ends is read once, after the lane is held.
    fn chain(&mut self, tenant: &Rc<str>) -> Result<usize> {
        if let Some(known) = self.journal.chain(tenant) {
            return Ok(known);
        }
        let (incarnation, lane) = (self.journal.incarnation(), self.journal.lane());
        let end = scan::chain_end(tenant, incarnation, lane)?
            .unwrap_or_else(|| ChainEnd { seq: 0, hash: genesis(incarnation, tenant, lane) });
        self.journal.begin_chain(tenant.clone(), end).map_err(|full| Error::internal(full.to_string()))
    }

    fn write(&mut self, which: Which) -> Result<()> {
        let level = session::nest_level();
        self.journal.signs_once = crate::settings::sabotaged("signs_once");
        key::with_signing_key(&self.key_id, |key| {
            self.journal.seal(key);
            append::append(self.journal.unwritten(which, level, key))
        })?;
        self.journal.wrote(which, level);
        Ok(())
    }

    /// For whom and from where: one text for the whole transaction, unless its context changes.
    fn actor(&mut self) -> Rc<str> {
        let generation = context::generation();
        match &self.actor {
            Some((of, actor)) if *of == generation => actor.clone(),
            _ => {
                let actor: Rc<str> = actor_part().into();
                self.actor = Some((generation, actor.clone()));
                actor
            }
        }
    }
}

fn actor_part() -> String {
    let context = context::for_the_record();
    let mut out = String::from("{");
    let mut field = |name: &str, value: Option<&str>, quoted: bool| {
        if out.len() > 1 {
            out.push(',');
        }
        json::push_string(&mut out, name);
        out.push(':');
        match value {
            None => out.push_str("null"),
            Some(value) if quoted => json::push_string(&mut out, value),
            Some(value) => out.push_str(value),
        }
    };
    field("tenant", context.as_ref().map(|c| &*c.tenant), true);
    field("subject", context.as_ref().and_then(|c| c.subject.as_deref()), true);
    field("claims", context.as_ref().and_then(|c| c.claims.as_deref()), false);
    field("client_addr", client().as_deref(), true);
    field("application_name", session::application_name().as_deref(), true);
    field("request_id", context_setting::request_id().as_deref(), true);
    out.push('}');
    out
}

/// Where the client is, asked for once a session; none over a Unix socket.
fn client() -> Option<String> {
    if let Some(known) = CLIENT.with_borrow(Clone::clone) {
        return known;
    }
    let sql = "SELECT pg_catalog.host(pg_catalog.inet_client_addr())";
    let client = crate::pg::spi::rows(sql, &[], |row| row.get::<String>(1))
        .ok()
        .and_then(|rows| rows.into_iter().next().flatten());
    CLIENT.set(Some(client.clone()));
    client
}

/// Some role has a new name.
pub fn role_names_changed() {
    for known in [&LOGIN, &ACTING] {
        known.with(|known| {
            if let Ok(mut known) = known.try_borrow_mut() {
                *known = None;
            }
        });
    }
}

fn name_of(known: &'static LocalKey<KnownName>, role: Oid) -> Rc<str> {
    let found = known.with_borrow(|k| k.as_ref().filter(|k| k.0 == role).map(|k| k.1.clone()));
    found.unwrap_or_else(|| {
        let name: Rc<str> = session::role_name(role).into();
        known.set(Some((role, name.clone())));
        name
    })
}

/// Random bytes of the operating system's, drawn by the kilobyte. A forked child never uses its parent's.
fn salt() -> Result<[u8; SALT_LENGTH]> {
    SALTS.with_borrow_mut(|(process, used, pool)| {
        let me = session::process_id();
        if *process != me || *used + SALT_LENGTH > pool.len() {
            fill_random(pool)?;
            (*process, *used) = (me, 0);
        }
        let mut salt = [0; SALT_LENGTH];
        salt.copy_from_slice(&pool[*used..*used + SALT_LENGTH]);
        *used += SALT_LENGTH;
        Ok(salt)
    })
}

/// Fills with random bytes of the operating system's.
pub fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| Error::internal(format!("no random bytes: {e}")))
}

/// A random uuid (RFC 9562, version 4).
pub fn random_uuid() -> Result<Uuid> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
