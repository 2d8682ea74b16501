//! The life of a signing key: its successor, its end, its loss (docs/decisions/0015-key-life.md). Each change is an entry.

use pgrx::datum::DatumWithOid;
use uuid::Uuid;

use custody_core::json;
use custody_core::key::{Ending, fingerprint, hex};

use crate::audit::incarnation;
use crate::audit::key::{self, Made, Registered};
use crate::audit::transaction::{self, Record};
use crate::error::{Error, Result};
use crate::evidence::tree;
use crate::pg::call::{Call, value};
use crate::pg::{data, lane, scan, session, spi};
use crate::{settings, sql_functions};

sql_functions! {
    custody_rotate_signing_key, pg_finfo_custody_rotate_signing_key => |_: &mut Call| Ok(data::text(&rotate()?));
    custody_retire_signing_keys, pg_finfo_custody_retire_signing_keys => |_: &mut Call| Ok(value(retire(0)?));
    custody_revoke_signing_key, pg_finfo_custody_revoke_signing_key => |call: &mut Call| {
        let (key_id, reason): (String, String) = (call.required(0, "key_id")?, call.required(2, "reason")?);
        let until = revoke(&key_id, call.required(1, "checkpoint")?, &reason)?;
        Ok(value(until))
    };
    custody_recover_signing_key, pg_finfo_custody_recover_signing_key => |call: &mut Call| {
        let reason: String = call.required(0, "reason")?;
        lane::lock_incarnation();
        let incarnation = incarnation::current()?;
        let lost = key::current(incarnation)?;
        if key::check(&lost).is_ok() {
            return Err(Error::KeyStays {
                what: "recovered",
                why: format!("The private half of key {lost} can be read."),
                hint: "SELECT custody.rotate_signing_key() makes a new one that this one vouches for.",
            });
        }
        Ok(data::text(&recover(incarnation, &lost, &reason)?))
    };
}

/// The key that a transaction which has just taken its lane signs with, and the position from which on it is valid.
///
/// If its private half is gone, a new key takes over, unless that is switched off: a lost key is no write outage.
pub fn to_sign_with(incarnation: Uuid) -> Result<(String, Option<i64>)> {
    let key_id = key::current(incarnation)?;
    let error = match key::ready(&key_id) {
        Ok(from_lsn) => return Ok((key_id, from_lsn)),
        Err(error) => error,
    };
    if !settings::recover_lost_key() || !knows_keys()? || !key::is_lost(&key_id) {
        return Err(error);
    }
    lane::lock_incarnation();
    // Another session may have done it while this one waited.
    let now = key::current(incarnation)?;
    if now == key_id {
        recover(incarnation, &key_id, "its private half was gone")?;
    }
    let key_id = key::current(incarnation)?;
    let from_lsn = key::ready(&key_id)?;
    Ok((key_id, from_lsn))
}

/// Whether the database is of a version that knows the lives of keys: not while it was installed as 0.1.0, and not upgraded yet.
fn knows_keys() -> Result<bool> {
    Ok(scan::instance()?.is_some_and(|i| i.knows_keys))
}

/// A position as records have it.
fn here() -> i64 {
    session::wal_end() as i64
}

/// A successor, which the present key vouches for. Gives its fingerprint.
fn rotate() -> Result<String> {
    // The lane first: this transaction signs with the key of before.
    let incarnation = transaction::incarnation()?;
    lane::lock_incarnation();
    if incarnation::written()? != Some(incarnation) {
        return Err(Error::KeyStays {
            what: "rotated",
            why: "This transaction began in an earlier incarnation.".into(),
            hint: "Begin another.",
        });
    }
    let predecessor = key::current(incarnation)?;
    key::ready(&predecessor)?;
    let from_lsn = here();
    let made = key::make(incarnation, Some(&predecessor), &[], Some(from_lsn))?;
    register(incarnation, &made, from_lsn, None)?;
    record(format!(
        "{{\"action\":\"rotate\",\"key_id\":\"{}\",\"public_key\":\"{}\",\"predecessor\":\"{predecessor}\",\"from_lsn\":{from_lsn}}}",
        made.key_id,
        hex(&made.public_key)
    ))?;
    Ok(fingerprint(&made.public_key))
}

/// A new key in place of a lost one, which nothing vouches for. Gives its fingerprint.
fn recover(incarnation: Uuid, lost: &str, reason: &str) -> Result<String> {
    let from_lsn = here();
    let made = key::make(incarnation, None, &key::registered(incarnation)?, Some(from_lsn))?;
    register(incarnation, &made, from_lsn, Some(lost))?;
    let mut new = format!(
        "{{\"action\":\"recover\",\"key_id\":\"{}\",\"public_key\":\"{}\",\"recovers\":\"{lost}\",\"from_lsn\":{from_lsn},\"reason\":",
        made.key_id,
        hex(&made.public_key)
    );
    json::push_string(&mut new, reason);
    new.push('}');
    record(new)?;
    let fingerprint = fingerprint(&made.public_key);
    session::warning(&format!(
        "the signing key {lost} was lost, and {} took over from it: nothing vouches for it. Keep its fingerprint outside the database: {fingerprint}",
        made.key_id
    ));
    Ok(fingerprint)
}

/// Makes a key the present one.
fn register(incarnation: Uuid, made: &Made, from_lsn: i64, recovers: Option<&str>) -> Result<()> {
    let id = tree::as_pgrx(incarnation);
    let fingerprint = fingerprint(&made.public_key);
    let (predecessor, endorsement) = match &made.endorsed_by {
        Some((key_id, endorsement)) => (Some(key_id.as_str()), Some(&endorsement[..])),
        None => (None, None),
    };
    let arguments: [DatumWithOid<'_>; 8] = [
        made.key_id.as_str().into(),
        id.into(),
        (&made.public_key[..]).into(),
        fingerprint.as_str().into(),
        predecessor.into(),
        endorsement.into(),
        from_lsn.into(),
        recovers.into(),
    ];
    session::as_owner(|| -> Result<()> {
        spi::run(
            "INSERT INTO custody.signing_key (key_id, incarnation, public_key, fingerprint, predecessor, endorsement, created_at, from_lsn, recovers)
             VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.clock_timestamp(), '0/0'::pg_catalog.pg_lsn OPERATOR(pg_catalog.+) $7::pg_catalog.numeric, $8)",
            &arguments,
        )?;
        spi::run(
            "UPDATE custody.instance SET key_id = $1 WHERE incarnation OPERATOR(pg_catalog.=) $2",
            &[made.key_id.as_str().into(), id.into()],
        )
    })?;
    session::next_command();
    Ok(())
}

/// The automatic part, before a checkpoint. A key that cannot sign now is no reason to make none.
pub fn retire_when_due() -> Result<()> {
    match retire(settings::key_overlap()) {
        Err(Error::KeyMissing { .. }) => Ok(()),
        other => other.map(drop),
    }
}

/// Ends the keys that were replaced, and that no transaction can use any more; gives how many. `overlap`: how long ago at least, in
/// microseconds.
///
/// Who takes a lane gets an id first, and reads then which key is current. So whoever still uses a replaced key has an id below the
/// next one of any moment after the replacement is seen here.
fn retire(overlap: i64) -> Result<i32> {
    // What this transaction has changed itself is not committed yet, and nothing can be concluded from it.
    if !knows_keys()? || key::made_here() {
        return Ok(0);
    }
    let incarnation = incarnation::current()?;
    // The keys before the present one: in this order, a still newer one is not among them.
    let keys = key::registered(incarnation)?;
    let Some(current) = scan::our_rows("instance", &[], |row| row.get::<String>(4))?.pop() else { return Ok(0) };
    if !transaction::is_recording() {
        keys.iter().filter(|k| k.ended.is_some()).for_each(|k| key::destroy(&k.key_id));
    }
    let Some(place) = keys.iter().position(|k| k.key_id == current) else { return Ok(0) };
    let replaced: Vec<&Registered> = keys[..place].iter().filter(|k| k.ended.is_none()).collect();
    if replaced.is_empty() {
        return Ok(0);
    }
    let moment = session::next_transaction_id();
    let oldest = session::oldest_transaction_id();
    let now = session::now() - crate::pg::layout::EPOCH;
    let mut retired = 0;
    for key in replaced {
        let successor = keys.iter().find(|k| k.from_lsn > key.from_lsn);
        let unused = oldest >= key.overlap.unwrap_or(moment);
        if unused && successor.is_none_or(|s| now - s.created_at >= overlap) {
            retired += i32::from(end(key, &current, Ending::Retire, here(), "")?);
        } else if key.overlap.is_none() {
            session::as_owner(|| {
                spi::run(
                    "UPDATE custody.signing_key SET overlap = $3::text::pg_catalog.xid8 WHERE key_id OPERATOR(pg_catalog.=) $1 AND incarnation OPERATOR(pg_catalog.=) $2 AND overlap IS NULL",
                    &[key.key_id.as_str().into(), tree::as_pgrx(incarnation).into(), moment.to_string().into()],
                )
            })?;
        }
    }
    Ok(retired)
}

/// Ends a key as of a checkpoint: what it signed later may be anybody's. Gives the last position at which it is valid.
fn revoke(key_id: &str, checkpoint: i64, reason: &str) -> Result<i64> {
    let stays = |why: String, hint| Error::KeyStays { what: "revoked", why, hint };
    lane::lock_incarnation();
    let incarnation = incarnation::current()?;
    let keys = key::registered(incarnation)?;
    let current = key::current(incarnation)?;
    let Some(key) = keys.iter().find(|k| k.key_id == key_id) else {
        return Err(stays(
            format!("Key {key_id} is none of this incarnation."),
            "SELECT key_id FROM custody.signing_key shows those that are registered. What an earlier incarnation left is revoked by no longer pinning it.",
        ));
    };
    if key_id == current || key_id == transaction::key_id()? {
        return Err(stays(
            format!("Key {key_id} is the one that this transaction signs with."),
            "SELECT custody.rotate_signing_key() first, and commit.",
        ));
    }
    let counter = u64::try_from(checkpoint).ok();
    let leaf = counter.map(|c| tree::leaves(incarnation, c, c + 1)).transpose()?.and_then(|mut leaves| leaves.pop());
    let Some(leaf) = leaf else {
        return Err(stays(
            format!("There is no checkpoint {checkpoint} of this incarnation."),
            "The last one that is beyond doubt: SELECT counter, at FROM custody.checkpoint_leaf.",
        ));
    };
    let until = match &key.ended {
        Some((how, until)) if how == Ending::Revoke.name() && *until <= leaf.lsn as i64 => {
            return Err(stays(format!("It was revoked from an earlier position on: {until}."), ""));
        }
        Some((_, until)) => (*until).min(leaf.lsn as i64),
        None => leaf.lsn as i64,
    };
    let mut more = format!(",\"checkpoint\":{checkpoint},\"reason\":");
    json::push_string(&mut more, reason);
    end(key, &current, Ending::Revoke, until, &more)?;
    Ok(until)
}

/// Writes down, signed by the present key, that a key is not valid beyond a position; unless somebody has done so meanwhile.
fn end(key: &Registered, by: &str, how: Ending, until: i64, more: &str) -> Result<bool> {
    let signature = key::with_signing_key(by, |signing| Ok(signing.end(how, key.incarnation, &key.public_key, until)))?;
    let arguments: [DatumWithOid<'_>; 6] = [
        key.key_id.as_str().into(),
        tree::as_pgrx(key.incarnation).into(),
        how.name().into(),
        until.into(),
        by.into(),
        (&signature[..]).into(),
    ];
    let sql = "UPDATE custody.signing_key SET ended = $3, until_lsn = '0/0'::pg_catalog.pg_lsn OPERATOR(pg_catalog.+) $4::pg_catalog.numeric, ended_by = $5, end_signature = $6
               WHERE key_id OPERATOR(pg_catalog.=) $1 AND incarnation OPERATOR(pg_catalog.=) $2
                 AND (ended IS NULL OR $3 OPERATOR(pg_catalog.=) 'revoke') RETURNING true";
    let ended = session::as_owner(|| spi::rows_now(sql, &arguments, |row| row.get::<bool>(1)))?;
    if ended.is_empty() {
        return Ok(false);
    }
    record(format!("{{\"action\":\"{}\",\"key_id\":\"{}\",\"until_lsn\":{until}{more}}}", how.name(), key.key_id))?;
    Ok(true)
}

fn record(new: String) -> Result<()> {
    transaction::record([Record::system("KEY", None, new)])
}
