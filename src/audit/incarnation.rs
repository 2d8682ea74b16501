//! Which life of the database this is. A copy that can be noticed starts a life of its own at its first entry.

use std::cell::{Cell, RefCell};

use pgrx::datum::DatumWithOid;
use uuid::Uuid;

use custody_core::json;
use custody_core::key::{fingerprint, hex};

use crate::audit::key;
use crate::audit::transaction::{self, Record};
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, value};
use crate::pg::{data, lane, scan, session, spi};
use crate::sql_functions;

thread_local! {
    /// Incarnations that this transaction started, each with the level that did.
    static STARTED: RefCell<Vec<(u32, Uuid)>> = const { RefCell::new(Vec::new()) };
    /// The incarnation that was found last, and in which copy of the database.
    static KNOWN: Cell<Option<(Uuid, session::Instance)>> = const { Cell::new(None) };
}

/// Whether this transaction started a life: then it must not stay open as a prepared one, for others wait for it.
pub fn started_here() -> bool {
    STARTED.with_borrow(|started| !started.is_empty())
}

/// The transaction is over.
pub fn transaction_ended() {
    STARTED.with_borrow_mut(Vec::clear);
}

/// What a savepoint started is its parent's now.
pub fn savepoint_released(level: u32) {
    STARTED.with_borrow_mut(|started| started.iter_mut().for_each(|s| s.0 = s.0.min(level - 1)));
}

/// The lives that a savepoint started never were. Gives them.
pub fn savepoint_rolled_back(level: u32) -> Vec<Uuid> {
    STARTED.with_borrow_mut(|started| started.extract_if(.., |s| s.0 >= level).map(|s| s.1).collect())
}

sql_functions! {
    custody_start, pg_finfo_custody_start => |_| {
        if written()?.is_some() || transaction::is_recording() {
            return Err(Error::AlreadyStarted);
        }
        let (_, fingerprint) = start(None, "created")?;
        Ok(data::text(&fingerprint))
    };
    custody_new_incarnation, pg_finfo_custody_new_incarnation => |call: &mut Call| {
        let reason: String = call.required(0, "reason")?;
        if session::in_recovery() {
            return Err(Error::InRecovery { what: "no incarnation can begin" });
        }
        lane::lock_incarnation();
        let (id, _) = start(written()?, &reason)?;
        // What this transaction recorded before stays in the old life; the next one begins in the new.
        Ok(value(pgrx::Uuid::from_bytes(*id.as_bytes())))
    };
}

/// The incarnation that entries are written for, starting a new one if this is no longer the database it was.
///
/// Read after the lane is held, so that nobody goes on in an old life for longer than a transaction.
pub fn current() -> Result<Uuid> {
    session::accept_invalidations();
    let here = session::instance();
    if let Some((id, known)) = KNOWN.get()
        && known == here
    {
        return Ok(id);
    }
    let id = look_up()?;
    KNOWN.set(Some((id, here)));
    Ok(id)
}

/// Whether this is no longer the database that wrote the incarnation, so that the next entry will start another.
pub fn is_due() -> Result<bool> {
    session::accept_invalidations();
    match written()? {
        Some(id) => Ok(changed(id)?.is_some()),
        None => Err(Error::NotStarted),
    }
}

/// Drops what is known: something about a table changed, perhaps custody.instance.
pub fn forget() {
    KNOWN.set(None);
}

fn look_up() -> Result<Uuid> {
    let Some(id) = written()? else { return Err(Error::NotStarted) };
    match changed(id)? {
        None => Ok(id),
        Some(_) => {
            lane::lock_incarnation();
            // Another session may have done it while this one waited.
            let Some(id) = written()? else { return Err(Error::NotStarted) };
            match changed(id)? {
                None => Ok(id),
                Some(reason) => start(Some(id), reason).map(|started| started.0),
            }
        }
    }
}

/// The incarnation named by custody.instance; none while there is no such row.
pub fn written() -> Result<Option<Uuid>> {
    Ok(scan::our_rows("instance", &[], |row| row.uuid(2))?.pop())
}

/// Why this is not the database that wrote the incarnation; none if it is.
fn changed(id: Uuid) -> Result<Option<&'static str>> {
    let known = scan::our_rows("incarnation", &[], |row| {
        (row.uuid(1)? == id).then_some((row.get::<i64>(4)?, row.get::<i32>(5)?, row.get::<Oid>(6)?))
    })?;
    let (system, timeline, database) = session::instance();
    Ok(match known.first() {
        None => Some("its record was missing"),
        Some(k) if k.0 != system => Some("restored into another cluster"),
        Some(k) if k.2 != database => Some("copied within the cluster"),
        Some(k) if k.1 != timeline => Some("promoted or recovered to another timeline"),
        Some(_) => None,
    })
}

/// Starts a life: its record, its key and its first entry. Gives its id and its key's fingerprint.
fn start(parent: Option<Uuid>, reason: &str) -> Result<(Uuid, String)> {
    let id = transaction::random_uuid()?;
    STARTED.with_borrow_mut(|started| started.push((session::nest_level(), id)));
    let parents_key = parent.map(key::current).transpose().ok().flatten();
    let relatives = parent.map_or(Ok(Vec::new()), key::registered)?;
    let made = key::make(id, parents_key.as_deref(), &relatives, None)?;
    let in_doubt = in_doubt()?;
    let fingerprint = fingerprint(&made.public_key);
    let (system, timeline, database) = session::instance();
    let as_pgrx = |u: Uuid| pgrx::Uuid::from_bytes(*u.as_bytes());
    session::as_owner(|| -> Result<()> {
        spi::run(
            "INSERT INTO custody.incarnation (id, parent, started_at, system_identifier, timeline, database_oid, database_name, reason)
             VALUES ($1, $2, pg_catalog.clock_timestamp(), $3, $4, $5, pg_catalog.current_database(), $6)",
            &[
                as_pgrx(id).into(),
                parent.map(as_pgrx).into(),
                system.into(),
                timeline.into(),
                database.into(),
                reason.into(),
            ],
        )?;
        spi::run(
            "INSERT INTO custody.instance (incarnation) VALUES ($1)
             ON CONFLICT ON CONSTRAINT instance_pkey DO UPDATE SET incarnation = excluded.incarnation",
            &[as_pgrx(id).into()],
        )?;
        if in_doubt != "[]" && lists_in_doubt()? {
            spi::run(
                "UPDATE custody.incarnation SET in_doubt = $2::pg_catalog.jsonb WHERE id OPERATOR(pg_catalog.=) $1",
                &[as_pgrx(id).into(), in_doubt.as_str().into()],
            )?;
        }
        scan::our_table("instance").into_iter().for_each(session::invalidate);
        let knows_keys = scan::instance()?.is_some_and(|i| i.knows_keys);
        if knows_keys {
            spi::run("UPDATE custody.instance SET key_id = $1", &[made.key_id.as_str().into()])?;
        }
        let (predecessor, endorsement) = match &made.endorsed_by {
            Some((id, endorsement)) => (Some(id.as_str()), Some(&endorsement[..])),
            None => (None, None),
        };
        let arguments: [DatumWithOid<'_>; 6] = [
            made.key_id.as_str().into(),
            as_pgrx(id).into(),
            (&made.public_key[..]).into(),
            fingerprint.as_str().into(),
            predecessor.into(),
            endorsement.into(),
        ];
        spi::run(
            "INSERT INTO custody.signing_key (key_id, incarnation, public_key, fingerprint, predecessor, endorsement, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.clock_timestamp())",
            &arguments,
        )?;
        match &parents_key {
            Some(lost) if knows_keys && predecessor.is_none() => spi::run(
                "UPDATE custody.signing_key SET recovers = $1 WHERE key_id OPERATOR(pg_catalog.=) $2 AND incarnation OPERATOR(pg_catalog.=) $3",
                &[lost.as_str().into(), made.key_id.as_str().into(), as_pgrx(id).into()],
            ),
            _ => Ok(()),
        }
    })?;
    session::next_command();
    let mut new = format!("{{\"incarnation\":\"{id}\",\"parent\":");
    match parent {
        Some(parent) => new.push_str(&format!("\"{parent}\"")),
        None => new.push_str("null"),
    }
    new.push_str(",\"reason\":");
    json::push_string(&mut new, reason);
    new.push_str(&format!(
        ",\"key_id\":\"{}\",\"public_key\":\"{}\",\"in_doubt\":{in_doubt}}}",
        made.key_id,
        hex(&made.public_key)
    ));
    transaction::record([Record::system("INCARNATION", None, new)])?;
    Ok((id, fingerprint))
}

/// The other transactions that hold a lane now, as JSON: prepared ones, of which nobody knows yet how they end, and with
/// `custody.new_incarnation` such as are open. What they recorded, and will commit or not, is the old life's.
fn in_doubt() -> Result<String> {
    // A lane's lock as pg_locks shows it (src/pg/lane.rs). A prepared transaction has no process, but the lock on its own id. That has
    // 32 bits there; the whole id is the one next to now's.
    const IN_DOUBT: &str = "
        WITH now AS (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 AS xid),
        held AS (
          SELECT l.objid::pg_catalog.int8 AS lane, x.transactionid::pg_catalog.text::pg_catalog.int8 AS xid
          FROM pg_catalog.pg_locks l
          JOIN pg_catalog.pg_locks x ON x.locktype = 'transactionid' AND x.granted AND x.mode = 'ExclusiveLock'
                                    AND x.virtualtransaction = l.virtualtransaction AND x.pid IS NOT DISTINCT FROM l.pid
          WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objsubid = $1
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
            AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid())
        SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('lane', h.lane, 'xid', n.xid + ((h.xid - n.xid + 2147483648) & 4294967295) - 2147483648, 'gid', p.gid)
                                            ORDER BY h.lane), '[]')::text
        FROM held h CROSS JOIN now n LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction::text = h.xid::text";
    let found = spi::rows(IN_DOUBT, &[lane::AS_LISTED.into()], |row| row.get::<String>(1))?;
    Ok(found.into_iter().flatten().next().unwrap_or_else(|| "[]".into()))
}

/// Whether the record of a life says what was in doubt: not in a database of 0.1.0 that is not upgraded yet.
fn lists_in_doubt() -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = 'custody.incarnation'::pg_catalog.regclass AND a.attname = 'in_doubt')";
    Ok(spi::rows(sql, &[], |row| row.get::<bool>(1))?.pop().flatten().unwrap_or(false))
}

/// How many transactions were in doubt when lives of this database began; and how many of those have committed since, and are still open.
pub fn doubts() -> Result<[i64; 3]> {
    if !lists_in_doubt()? {
        return Ok([0; 3]);
    }
    // One that is prepared for long is listed by several lives, and is in the chains of one before them. Of transactions of other
    // clusters, which dumps bring along, nobody here knows more than what is in the log.
    const DOUBTS: &str = "
        WITH RECURSIVE before (life, earlier) AS (
          SELECT i.id, i.parent FROM custody.incarnation i WHERE i.in_doubt <> '[]' AND i.parent IS NOT NULL
          UNION
          SELECT b.life, i.parent FROM before b JOIN custody.incarnation i ON i.id = b.earlier WHERE i.parent IS NOT NULL),
        doubt AS (
          SELECT i.system_identifier, (d ->> 'xid')::pg_catalog.xid8 AS xid, (d ->> 'lane')::pg_catalog.int4 AS lane, pg_catalog.array_agg(i.id) AS lives
          FROM custody.incarnation i CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(i.in_doubt) d GROUP BY 1, 2, 3),
        outcome AS (
          SELECT EXISTS (SELECT FROM custody.entry e JOIN before b ON b.earlier = e.incarnation
                         WHERE b.life = ANY (d.lives) AND e.lane = d.lane AND e.xid = d.xid) AS committed,
                 CASE WHEN d.system_identifier <> $1 THEN NULL
                      WHEN d.xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) THEN 'in progress'
                      ELSE pg_catalog.pg_xact_status(d.xid) END AS status
          FROM doubt d)
        SELECT count(*), count(*) FILTER (WHERE o.committed), count(*) FILTER (WHERE NOT o.committed AND o.status = 'in progress') FROM outcome o";
    let found = spi::rows(DOUBTS, &[session::system_identifier().into()], |row| {
        Ok([1, 2, 3].map(|n| row.get::<i64>(n).ok().flatten().unwrap_or(0)))
    })?;
    Ok(found.into_iter().next().unwrap_or_default())
}
