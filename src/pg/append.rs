//! Putting entries into `custody.entry`: heap and index insertion, as COPY does it, without executor, privileges or triggers.

use pgrx::{IntoDatum, pg_sys};

use custody_core::entry::Entry;

use crate::error::{Error, Result};
use crate::pg::data::{self, Nulled};
use crate::pg::scan::{column, our_table};

/// Rows that go to the heap in one call, and so share WAL records.
const BATCH: usize = 128;
/// Microseconds from the Unix epoch to PostgreSQL's.
pub const EPOCH: i64 = 946_684_800_000_000;

/// Inserts the entries, visible to this transaction's next command.
pub fn append<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
    let relid = our_table("entry").ok_or(Error::NotStarted)?;
    let mut target = Target::open(relid)?;
    for entry in entries {
        target.insert(&entry);
    }
    target.close();
    Ok(())
}

/// The log, open for insertion.
struct Target {
    relation: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    command: pg_sys::CommandId,
    memory: pg_sys::MemoryContext,
    pushed_snapshot: bool,
}

impl Target {
    fn open(relid: pg_sys::Oid) -> Result<Self> {
        // SAFETY: the relation is held open and locked until `close`; on an error PostgreSQL's abort lets go of it, of the slots
        // and of the executor state. Everything is allocated in a context of its own, which goes with the transaction's.
        // A snapshot is needed for out-of-line values, and callbacks at commit have none.
        unsafe {
            let pushed_snapshot = !pg_sys::ActiveSnapshotSet();
            if pushed_snapshot {
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            let memory = pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurTransactionContext,
                c"pg_custody append".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
            // A column that somebody added stays NULL; of ours none may be missing.
            let descriptor = (*relation).rd_att;
            let ours = (*descriptor).attrs.as_slice((*descriptor).natts as usize).get(..column::COUNT);
            if ours.is_none_or(|ours| ours.iter().any(|a| a.attisdropped)) {
                return Err(Error::internal("custody.entry does not have the columns it was installed with"));
            }
            let estate = pg_sys::CreateExecutorState();
            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 1, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::MemoryContextSwitchTo(outer);
            Ok(Self { relation, estate, result, slots: Vec::new(), used: 0, command, memory, pushed_snapshot })
        }
    }

    fn insert(&mut self, entry: &Entry<'_>) {
        // SAFETY: the slot is of the log's own row type; the values are allocated in our memory and live until the batch is written.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.memory);
            if self.used == self.slots.len() {
                self.slots.push(pg_sys::table_slot_create(self.relation, std::ptr::null_mut()));
            }
            let slot = self.slots[self.used];
            pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let width = (*(*self.relation).rd_att).natts as usize;
            let row = values(entry);
            for (i, value) in row.into_iter().chain(std::iter::repeat(None)).take(width).enumerate() {
                *(*slot).tts_isnull.add(i) = value.is_none();
                *(*slot).tts_values.add(i) = value.unwrap_or(pg_sys::Datum::from(0));
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::MemoryContextSwitchTo(outer);
            self.used += 1;
            if self.used == BATCH {
                self.write();
            }
        }
    }

    fn write(&mut self) {
        if self.used == 0 {
            return;
        }
        // SAFETY: as in `open`; the slots hold the values until here.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let count = self.used as i32;
            pg_sys::heap_multi_insert(
                self.relation,
                self.slots.as_mut_ptr(),
                count,
                self.command,
                0,
                std::ptr::null_mut(),
            );
            for slot in &self.slots[..self.used] {
                pg_sys::ExecInsertIndexTuples(
                    self.result,
                    *slot,
                    self.estate,
                    false,
                    false,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                );
                clear(*slot);
            }
            pg_sys::MemoryContextSwitchTo(outer);
        }
        self.used = 0;
    }

    fn close(mut self) {
        self.write();
        // SAFETY: opened in `open`, each let go of once. The lock stays until the transaction ends.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::MemoryContextDelete(self.memory);
            if self.pushed_snapshot {
                pg_sys::PopActiveSnapshot();
            }
            pg_sys::CommandCounterIncrement();
        }
    }
}

/// Empties a slot (ExecClearTuple, which is inline in C).
///
/// # Safety
/// The slot must be valid.
unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: a slot's operations come with it.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            pg_sys::ffi::pg_guard_ffi_boundary(|| clear(slot));
        }
    }
}

/// An entry in the column order of sql/install/20_tables.sql.
fn values(e: &Entry<'_>) -> [Nulled; column::COUNT] {
    let text = |t: Option<&str>| t.and_then(data::text);
    let bytes = |b: Option<&[u8]>| b.and_then(data::bytes);
    [
        e.seq.into_datum(),
        Some(pg_sys::Datum::from(e.lsn)),
        Some(pg_sys::Datum::from(e.at - EPOCH)),
        Some(pg_sys::Datum::from(e.xid)),
        e.actor_seq.into_datum(),
        (e.ordinal as i32).into_datum(),
        (e.lane as i32).into_datum(),
        e.format.into_datum(),
        e.signs_run.into_datum(),
        data::uuid(e.incarnation),
        e.move_id.and_then(data::uuid),
        text(Some(e.tenant)),
        text(Some(e.op)),
        text(e.schema_name),
        text(e.table_name),
        text(Some(e.login_role)),
        text(Some(e.acting_role)),
        text(e.key_id),
        bytes(e.actor_salt),
        text(e.actor),
        bytes(e.row_salt),
        text(e.row_key),
        text(e.old),
        text(e.new),
        bytes(e.actor_digest),
        bytes(Some(e.row_digest)),
        bytes(Some(e.prev_hash)),
        bytes(Some(e.hash)),
        bytes(e.signature),
    ]
}
