//! Reading our own tables, and a few catalogs, directly: no SPI, no privileges of the caller's, no search_path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::{FromDatum, pg_sys};
use uuid::Uuid;

use custody_core::journal::ChainEnd;

use crate::error::{Error, Result};
use crate::pg::layout::column;
use crate::pg::{append, data};

thread_local! {
    /// The oids of our tables that have been asked for.
    static OURS: RefCell<Vec<(&'static str, pg_sys::Oid)>> = const { RefCell::new(Vec::new()) };
    /// Where chains ended when this session last looked.
    static ENDS: RefCell<HashMap<ChainName, i64>> = RefCell::new(HashMap::new());
}

type ChainName = (Rc<str>, i64, Uuid);

/// Drops what is known of our tables: one of them may have changed.
pub fn forget() {
    OURS.with(|ours| {
        if let Ok(mut ours) = ours.try_borrow_mut() {
            ours.clear();
        }
    });
}

/// A row that a scan is at.
pub struct Row<'a> {
    pub(super) values: &'a [pg_sys::Datum],
    pub(super) nulls: &'a [bool],
}

impl Row<'_> {
    /// Column `n`, from 1. `T` must be the column's type.
    pub fn get<T: FromDatum>(&self, n: usize) -> Option<T> {
        // SAFETY: the callers, all in this crate, name the types that sql/install/20_tables.sql declares.
        unsafe { T::from_datum(*self.values.get(n - 1)?, *self.nulls.get(n - 1)?) }
    }

    /// A text column, without a copy where there is no need of one.
    pub fn text(&self, n: usize) -> Option<&str> {
        if *self.nulls.get(n - 1)? {
            return None;
        }
        // SAFETY: as in `get`; what had to be fetched goes with the memory that rows are read in.
        let bytes = unsafe {
            let plain = pg_sys::pg_detoast_datum_packed(self.values.get(n - 1)?.cast_mut_ptr());
            std::slice::from_raw_parts(pgrx::vardata_any(plain).cast::<u8>(), pgrx::varsize_any_exhdr(plain))
        };
        std::str::from_utf8(bytes).ok()
    }

    /// A uuid column.
    pub fn uuid(&self, n: usize) -> Option<Uuid> {
        if *self.nulls.get(n - 1)? {
            return None;
        }
        // SAFETY: as in `get`.
        unsafe { data::uuid_from(*self.values.get(n - 1)?) }
    }

    /// A name[] column.
    pub fn names(&self, n: usize) -> Vec<String> {
        match (self.values.get(n - 1), self.nulls.get(n - 1)) {
            // SAFETY: as in `get`.
            (Some(datum), Some(false)) => unsafe { data::names_of_array(*datum) }.unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// A name column.
    pub fn name(&self, n: usize) -> Option<String> {
        if *self.nulls.get(n - 1)? {
            return None;
        }
        // SAFETY: as in `get`; a name is a terminated string of fixed length.
        unsafe { data::string((*self.values.get(n - 1)?.cast_mut_ptr::<pg_sys::NameData>()).data.as_ptr()) }
    }
}

/// What a column must be equal to.
pub enum Key<'a> {
    /// An oid.
    Oid(pg_sys::Oid),
    /// Text in the C collation.
    Text(&'a str),
}

/// The oid of our schema; none if the extension is not installed here.
///
/// It must be the extension's: where that is not installed, anyone who may create schemas can make one called custody, and what is found
/// there is believed by superusers' sessions and by the workers. In ours, nobody but its owner makes anything.
pub fn our_schema() -> Option<pg_sys::Oid> {
    // SAFETY: catalog look-ups by name and oid.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"custody".as_ptr(), true);
        let extension = pg_sys::get_extension_oid(c"pg_custody".as_ptr(), true);
        let ours = schema != pg_sys::InvalidOid
            && extension != pg_sys::InvalidOid
            && pg_sys::getExtensionOfObject(pg_sys::NamespaceRelationId, schema) == extension;
        ours.then_some(schema)
    }
}

/// The oid of one of our tables; none if the extension is not installed here.
pub fn our_table(name: &'static str) -> Option<pg_sys::Oid> {
    if let Some(known) = OURS.with_borrow(|ours| ours.iter().find(|o| o.0 == name).map(|o| o.1)) {
        return Some(known);
    }
    let c_name = data::c_string(name);
    let schema = our_schema()?;
    // SAFETY: a catalog look-up; the string outlives the call.
    let oid = unsafe { pg_sys::get_relname_relid(c_name.as_ptr(), schema) };
    if oid == pg_sys::InvalidOid {
        return None;
    }
    OURS.with_borrow_mut(|ours| ours.push((name, oid)));
    Some(oid)
}

/// The oid of custody.entry.
pub fn log_table() -> Option<pg_sys::Oid> {
    our_table("entry")
}

/// Reads all rows of one of our tables whose first columns equal `keys`, through the primary key if there are any.
pub fn our_rows<T>(table: &'static str, keys: &[Key<'_>], each: impl FnMut(&Row<'_>) -> Option<T>) -> Result<Vec<T>> {
    let relid = our_table(table).ok_or(Error::NotStarted)?;
    rows(relid, None, keys, each)
}

/// The one row of custody.instance.
pub struct Instance {
    /// The incarnation that is written.
    pub incarnation: Uuid,
    /// The key that signs for it; none before the first change of key after an upgrade.
    pub key_id: Option<String>,
    /// Whether it is of a version that knows the lives of keys.
    pub knows_keys: bool,
}

/// The row of custody.instance as it is now, whatever this transaction's snapshot, and without a predicate lock.
pub fn instance() -> Result<Option<Instance>> {
    let relid = our_table("instance").ok_or(Error::NotStarted)?;
    let read = |row: &Row<'_>| {
        let (key_id, knows_keys) = (row.get::<String>(4), row.values.len() > 3);
        Some(Instance { incarnation: row.uuid(2)?, key_id, knows_keys })
    };
    // Without a snapshot, a row that is being updated may be missed: the new version stands before the old one, and is committed
    // between the looks at the two.
    for _ in 0..10 {
        if let Some(found) = rows_as(relid, None, &[], true, read)?.pop() {
            return Ok(Some(found));
        }
    }
    Ok(rows(relid, None, &[], read)?.pop())
}

/// Reads rows of a relation by an index on its first columns (the primary key's, unless another is named).
pub fn rows<T>(
    relid: pg_sys::Oid,
    index: Option<pg_sys::Oid>,
    keys: &[Key<'_>],
    each: impl FnMut(&Row<'_>) -> Option<T>,
) -> Result<Vec<T>> {
    rows_as(relid, index, keys, false, each)
}

/// The same; `now`: each row as it is when it is looked at, not as of one moment.
fn rows_as<T>(
    relid: pg_sys::Oid,
    index: Option<pg_sys::Oid>,
    keys: &[Key<'_>],
    now: bool,
    mut each: impl FnMut(&Row<'_>) -> Option<T>,
) -> Result<Vec<T>> {
    let texts: Vec<Option<pg_sys::Datum>> = keys
        .iter()
        .map(|key| match key {
            Key::Oid(oid) => Some(pg_sys::Datum::from(*oid)),
            Key::Text(text) => data::text(text),
        })
        .collect();
    let mut found = Vec::new();
    // SAFETY: the relation is locked while it is read. The snapshot is the newest, as registries may have changed since a
    // REPEATABLE READ transaction began, and is registered while it is used. Tuples are read before the scan moves on.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
        let index = match index {
            _ if keys.is_empty() => pg_sys::InvalidOid,
            Some(index) => index,
            None => pg_sys::RelationGetPrimaryKeyIndex(relation),
        };
        let mut scan_keys: Vec<pg_sys::ScanKeyData> = vec![std::mem::zeroed(); keys.len()];
        for (i, (key, datum)) in keys.iter().zip(&texts).enumerate() {
            let procedure = match key {
                Key::Oid(_) => pg_sys::F_OIDEQ,
                Key::Text(_) => pg_sys::F_TEXTEQ,
            };
            pg_sys::ScanKeyInit(
                &mut scan_keys[i],
                i as i16 + 1,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::Oid::from(procedure),
                datum.unwrap_or(pg_sys::Datum::from(0)),
            );
        }
        // A parallel query may take no new snapshot, and its workers have their leader's.
        let snapshot = match (now, pg_sys::IsInParallelMode()) {
            (true, _) => &raw mut pg_sys::SnapshotSelfData,
            (false, true) => pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot()),
            (false, false) => pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()),
        };
        let scan = pg_sys::systable_beginscan(
            relation,
            index,
            index != pg_sys::InvalidOid,
            snapshot,
            keys.len() as i32,
            scan_keys.as_mut_ptr(),
        );
        let descriptor = (*relation).rd_att;
        let width = (*descriptor).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![false; width]);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            if let Some(value) = each(&Row { values: &values, nulls: &nulls }) {
                found.push(value);
            }
        }
        pg_sys::systable_endscan(scan);
        if !now {
            pg_sys::UnregisterSnapshot(snapshot);
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    Ok(found)
}

/// Where a chain ends in `custody.entry`, for the one who holds its lane; none if it has no entry.
///
/// SnapshotSelf, because the transaction's own snapshot may be older than the last holder's commit, and because an MVCC scan
/// would take predicate locks under SERIALIZABLE. The lane makes sure that nobody is appending meanwhile.
pub fn chain_end(tenant: &Rc<str>, incarnation: Uuid, lane: i64) -> Result<Option<ChainEnd>> {
    let name = (tenant.clone(), lane, incarnation);
    // From where it was seen last, only what came since has to be looked through.
    let mut end = None;
    if let Some(seen) = ENDS.with_borrow(|ends| ends.get(&name).copied()) {
        end = chain_end_from(tenant, incarnation, lane, seen)?;
    }
    // What was seen may have been rolled back.
    if end.is_none() {
        end = chain_end_from(tenant, incarnation, lane, 1)?;
    }
    if let Some(end) = &end {
        const KEPT: usize = 4096;
        ENDS.with_borrow_mut(|ends| {
            if ends.len() >= KEPT {
                ends.clear();
            }
            ends.insert(name, end.seq);
        });
    }
    Ok(end)
}

/// The last entry of a chain whose number is at least `from`.
fn chain_end_from(tenant: &str, incarnation: Uuid, lane: i64, from: i64) -> Result<Option<ChainEnd>> {
    let relid = log_table().ok_or(Error::NotStarted)?;
    let tenant = data::text(tenant).unwrap_or(pg_sys::Datum::from(0));
    let incarnation = data::uuid(incarnation).unwrap_or(pg_sys::Datum::from(0));
    let equal = pg_sys::BTEqualStrategyNumber;
    let keys = [
        (column::TENANT, equal, pg_sys::F_TEXTEQ, tenant),
        (column::INCARNATION, equal, pg_sys::F_UUID_EQ, incarnation),
        (column::LANE, equal, pg_sys::F_INT4EQ, pg_sys::Datum::from(lane as i32)),
        (column::SEQ, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_INT8GE, pg_sys::Datum::from(from)),
    ];
    // SAFETY: as in `rows`. The index is entry_runs: (tenant, incarnation, lane, seq) of entries that end a run and some more, so
    // that the first tuple backwards is the chain's end. SnapshotSelf is static.
    unsafe {
        // The locks that writing needs, and kept until then.
        let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
        let Some(runs) = append::runs_index(relation) else {
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            return Err(Error::internal("custody.entry has lost its index entry_runs"));
        };
        let index = pg_sys::index_open(runs, pg_sys::RowExclusiveLock as i32);
        let mut scan_keys: [pg_sys::ScanKeyData; 4] = std::mem::zeroed();
        for (scan_key, (attribute, strategy, procedure, datum)) in scan_keys.iter_mut().zip(keys) {
            pg_sys::ScanKeyInit(scan_key, attribute, strategy as u16, pg_sys::Oid::from(procedure), datum);
        }
        let stale = crate::settings::sabotaged("stale_head");
        let snapshot = if stale { pg_sys::GetTransactionSnapshot() } else { &raw mut pg_sys::SnapshotSelfData };
        let scan = pg_sys::systable_beginscan_ordered(relation, index, snapshot, 4, scan_keys.as_mut_ptr());
        let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
        let mut end = None;
        if !tuple.is_null() {
            let descriptor = (*relation).rd_att;
            let width = (*descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![false; width]);
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let row = Row { values: &values, nulls: &nulls };
            let seq = row.get::<i64>(column::SEQ as usize);
            let hash = row.get::<Vec<u8>>(column::HASH as usize).and_then(|h| h.try_into().ok());
            end = seq.zip(hash).map(|(seq, hash)| ChainEnd { seq, hash });
            if end.is_none() {
                return Err(Error::internal("the last entry of a chain has no hash of 32 bytes"));
            }
        }
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Ok(end)
    }
}

/// A table, and the partitioned tables above it, the nearest first.
pub fn with_ancestors(relid: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    const INHERITS: u32 = 2611;
    const INHERITS_RELID_SEQNO_INDEX: u32 = 2680;
    let mut line = vec![relid];
    let mut at = relid;
    // SAFETY: a catalog look-up.
    while unsafe { pg_sys::get_rel_relispartition(at) } {
        let parents = rows(
            pg_sys::Oid::from(INHERITS),
            Some(pg_sys::Oid::from(INHERITS_RELID_SEQNO_INDEX)),
            &[Key::Oid(at)],
            |row| row.get::<pg_sys::Oid>(2),
        )?;
        let Some(parent) = parents.first() else { break };
        line.push(*parent);
        at = *parent;
    }
    Ok(line)
}
