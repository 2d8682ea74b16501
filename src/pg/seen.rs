//! Tokens that hold once: noting that one was used, so that it stays noted whatever becomes of the transaction.
//!
//! A row that went with a rollback would let who has a stolen token read as often as he rolls back. So the row is frozen from the
//! start, as COPY FREEZE makes them: everyone sees it at once, and nobody ever asks whether its transaction committed.

use pgrx::IntoDatum;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::layout::EPOCH;
use crate::pg::{data, lane, scan};

/// Notes that a token of this key with this id was used, until a moment in seconds since 1970; false if it was noted before.
///
/// Of two sessions with the same token, one waits for the moment that the other takes, and is told false.
pub fn first_use(kid: &str, id: &str, until: i64) -> Result<bool> {
    let relid = scan::our_table("token_seen").ok_or(Error::NotStarted)?;
    let digest = custody_core::key::fingerprint(format!("{kid}\0{id}").as_bytes());
    let number = u32::from_str_radix(&digest[..8], 16).unwrap_or_default();
    let micros = until.saturating_mul(1_000_000).saturating_sub(EPOCH);
    let until = TimestampWithTimeZone::try_from(micros).map_err(|_| Error::internal("a token ends beyond all time"))?;
    let columns = [data::text(kid), data::text(id), until.into_datum()];
    // SAFETY: the relation is open and locked while it is written, before the token's own lock is taken, which is held for no
    // longer than that: nothing waits under it. The tuple has the table's columns, which sql/install/35_tokens.sql declares.
    // On an error PostgreSQL's abort lets go of locks and relation.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
        let lock = lane::TokenLock::take(number);
        let first = !is_known(relation, &columns);
        if first {
            insert_frozen(relation, columns)?;
        }
        drop(lock);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        if first {
            // Else a crash could forget it, if this transaction does not commit.
            pg_sys::XLogFlush(pg_sys::XactLastRecEnd);
        }
        Ok(first)
    }
}

/// Whether there is a row of the first two columns.
///
/// SnapshotSelf, because an MVCC scan would take predicate locks under SERIALIZABLE: two different tokens whose rows lie on one page
/// could then fail each other's transactions, and neither could be presented again.
///
/// # Safety
/// The relation must be open, with two columns of text as its primary key, and these of that type.
unsafe fn is_known(relation: pg_sys::Relation, columns: &[data::Nulled; 3]) -> bool {
    // SAFETY: the caller promises it. The snapshot is static; the tuple is not kept beyond the scan.
    unsafe {
        let mut keys: [pg_sys::ScanKeyData; 2] = std::mem::zeroed();
        for (n, (key, column)) in keys.iter_mut().zip(columns).enumerate() {
            let value = column.unwrap_or(pg_sys::Datum::from(0));
            let (equal, procedure) = (pg_sys::BTEqualStrategyNumber as u16, pg_sys::Oid::from(pg_sys::F_TEXTEQ));
            pg_sys::ScanKeyInit(key, n as i16 + 1, equal, procedure, value);
        }
        let index = pg_sys::RelationGetPrimaryKeyIndex(relation);
        let by_index = index != pg_sys::InvalidOid;
        let snapshot = &raw mut pg_sys::SnapshotSelfData;
        let scan = pg_sys::systable_beginscan(relation, index, by_index, snapshot, 2, keys.as_mut_ptr());
        let known = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        known
    }
}

/// # Safety
/// The relation must be open for writing, and have three columns of these types.
unsafe fn insert_frozen(relation: pg_sys::Relation, columns: [data::Nulled; 3]) -> Result<()> {
    // SAFETY: the caller promises it. Each index is opened, fed from a slot that holds the tuple, and closed again.
    unsafe {
        let descriptor = (*relation).rd_att;
        if (*descriptor).natts != 3 || columns.iter().any(Option::is_none) {
            return Err(Error::internal("custody.token_seen does not have the columns it was installed with"));
        }
        let mut values = columns.map(|column| column.unwrap_or(pg_sys::Datum::from(0)));
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), [false; 3].as_mut_ptr());
        let command = pg_sys::GetCurrentCommandId(true);
        pg_sys::heap_insert(relation, tuple, command, pg_sys::HEAP_INSERT_FROZEN as i32, std::ptr::null_mut());
        let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsHeapTuple);
        pg_sys::ExecStoreHeapTuple(tuple, slot, false);
        let indexes = pg_sys::RelationGetIndexList(relation);
        for n in 0..if indexes.is_null() { 0 } else { (*indexes).length } {
            let oid = (*(*indexes).elements.add(n as usize)).oid_value;
            let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as i32);
            let info = pg_sys::BuildIndexInfo(index);
            let (mut keys, mut nulls) = ([pg_sys::Datum::from(0); 32], [false; 32]);
            pg_sys::FormIndexDatum(info, slot, std::ptr::null_mut(), keys.as_mut_ptr(), nulls.as_mut_ptr());
            let unique = match (*(*index).rd_index).indisunique {
                true => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
            };
            let place = &raw mut (*tuple).t_self;
            pg_sys::index_insert(index, keys.as_mut_ptr(), nulls.as_mut_ptr(), place, relation, unique, false, info);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        Ok(())
    }
}
