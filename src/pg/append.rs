//! Putting entries into `custody.entry`: heap and index insertion, as COPY does it, without executor, privileges or triggers.

use std::cell::Cell;
use std::ffi::c_int;

use pgrx::{IntoDatum, pg_sys};

use custody_core::entry::{Entry, key_hash};

use crate::error::{Error, Result};
use crate::pg::layout::{self, EPOCH};
use crate::pg::row::pin_all;
use crate::pg::{data, scan};

/// Rows that go to the heap in one call, and so share WAL records.
const BATCH: usize = 128;
/// Tuples up to this long stay as they are: a little less than TOAST_TUPLE_THRESHOLD (access/heaptoast.h).
const IN_LINE: usize = 1900;
/// The log's two indexes, each as its definition begins and ends: between, there may be settings and a tablespace. Whatever else
/// somebody adds is kept up too, by the executor's slower way.
const RUNS: [&str; 2] = [
    "CREATE UNIQUE INDEX entry_runs ON custody.entry USING btree (tenant, incarnation, lane, seq)",
    " WHERE (signs_run OR (actor_seq = seq))",
];
const SEARCH: [&str; 2] = [
    "CREATE INDEX entry_search ON custody.entry USING brin (at, tenant text_bloom_ops, custody.key_hash(row_key) int8_bloom_ops)",
    "",
];

/// Which indexes the log has.
#[derive(Clone, Copy)]
struct Known {
    runs: Option<pg_sys::Oid>,
    search: Option<pg_sys::Oid>,
    others: bool,
}

thread_local! {
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
    /// Grows whenever what is known is dropped.
    static FORGOTTEN: Cell<u64> = const { Cell::new(0) };
}

/// Drops what is known of the log's indexes.
pub fn forget() {
    KNOWN.set(None);
    FORGOTTEN.set(FORGOTTEN.get() + 1);
}

/// Inserts the entries, visible to this transaction's next command.
pub fn append<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
    let relid = scan::log_table().ok_or(Error::NotStarted)?;
    let mut target = Target::open(relid)?;
    for entry in entries {
        target.insert(entry);
    }
    target.close();
    Ok(())
}

/// The log, open for insertion.
struct Target<'a> {
    relation: pg_sys::Relation,
    indexes: Indexes,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    batch: Vec<Entry<'a>>,
    tuple: Vec<u8>,
    /// Bytes of the longest tuple of the batch.
    longest: usize,
    command: pg_sys::CommandId,
    memory: pg_sys::MemoryContext,
    pushed_snapshot: bool,
}

/// Sees to it that there is a snapshot, as callbacks at commit have none; says whether it is to be popped.
///
/// # Safety
/// Within a transaction.
unsafe fn need_snapshot() -> bool {
    // SAFETY: the caller promises it.
    unsafe {
        let push = !pg_sys::ActiveSnapshotSet();
        if push {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        push
    }
}

/// How the log's indexes are kept up.
enum Indexes {
    Ours { runs: pg_sys::Relation, search: pg_sys::Relation, info: *mut pg_sys::IndexInfo },
    Any { estate: *mut pg_sys::EState, result: *mut pg_sys::ResultRelInfo },
}

impl<'a> Target<'a> {
    fn open(relid: pg_sys::Oid) -> Result<Self> {
        // SAFETY: the relation is held open and locked until `close`; on an error PostgreSQL's abort lets go of it, of the slots
        // and of the executor state. Everything is allocated in a context of its own, which goes with the transaction's.
        unsafe {
            let memory = data::memory(pg_sys::CurTransactionContext, c"pg_custody append");
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
            // A column that somebody added stays NULL; ours must all be there.
            if !layout::is_as_installed(relation) {
                return Err(Error::internal("custody.entry does not have the columns it was installed with"));
            }
            let indexes = Indexes::open(relation, memory);
            let pushed_snapshot = matches!(indexes, Indexes::Any { .. }) && need_snapshot();
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::MemoryContextSwitchTo(outer);
            let (slots, batch, tuple) = (Vec::new(), Vec::new(), Vec::new());
            Ok(Self { relation, indexes, slots, batch, tuple, longest: 0, command, memory, pushed_snapshot })
        }
    }

    fn insert(&mut self, entry: Entry<'a>) {
        self.tuple.clear();
        layout::encode(&entry, &mut self.tuple);
        self.longest = self.longest.max(self.tuple.len());
        // SAFETY: a tuple is one allocation, its bytes after its HeapTupleData; the slot, of the log's row type, frees it.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.memory);
            let used = self.batch.len();
            if used == self.slots.len() {
                let descriptor = (*self.relation).rd_att;
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsHeapTuple));
            }
            const BEFORE: usize = size_of::<pg_sys::HeapTupleData>().next_multiple_of(8);
            let tuple = pg_sys::palloc(BEFORE + self.tuple.len()).cast::<pg_sys::HeapTupleData>();
            let bytes = tuple.cast::<u8>().add(BEFORE);
            bytes.copy_from_nonoverlapping(self.tuple.as_ptr(), self.tuple.len());
            tuple.write(pg_sys::HeapTupleData {
                t_len: self.tuple.len() as u32,
                t_self: pg_sys::ItemPointerData {
                    ip_blkid: pg_sys::BlockIdData { bi_hi: u16::MAX, bi_lo: u16::MAX },
                    ip_posid: 0,
                },
                t_tableOid: (*self.relation).rd_id,
                t_data: bytes.cast(),
            });
            pg_sys::ExecStoreHeapTuple(tuple, self.slots[used], true);
            pg_sys::MemoryContextSwitchTo(outer);
        }
        self.batch.push(entry);
        if self.batch.len() == BATCH {
            if crate::settings::sabotaged("copy_batch") {
                self.batch.pop();
            }
            self.write();
        }
    }

    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // Out-of-line values are looked up before they are stored.
        if self.longest > IN_LINE && !self.pushed_snapshot {
            // SAFETY: within the transaction that writes.
            self.pushed_snapshot = unsafe { need_snapshot() };
        }
        self.longest = 0;
        let slots = &mut self.slots[..self.batch.len()];
        // SAFETY: as in `open`; the slots hold the tuples until here.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.memory);
            let count = slots.len() as i32;
            let no_state = std::ptr::null_mut();
            pg_sys::heap_multi_insert(self.relation, slots.as_mut_ptr(), count, self.command, 0, no_state);
            self.indexes.insert(self.relation, slots, &self.batch);
            for slot in slots {
                clear(*slot);
            }
            pg_sys::MemoryContextSwitchTo(outer);
        }
        self.batch.clear();
    }

    fn close(mut self) {
        self.write();
        // SAFETY: opened in `open`, each let go of once. The lock stays until the transaction ends.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            self.indexes.close();
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::MemoryContextDelete(self.memory);
            if self.pushed_snapshot {
                pg_sys::PopActiveSnapshot();
            }
            pg_sys::CommandCounterIncrement();
        }
    }
}

impl Indexes {
    /// # Safety
    /// The relation must be open, and stay so until `close`; `memory` must be the current context, and live as long.
    unsafe fn open(relation: pg_sys::Relation, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: the caller promises it. An index access method is given a zeroed IndexInfo with its memory context, which is all
        // that btree and brin read of it.
        unsafe {
            if let Known { runs: Some(runs), search: Some(search), others: false } = known(relation) {
                let info = pg_sys::palloc0(size_of::<pg_sys::IndexInfo>()).cast::<pg_sys::IndexInfo>();
                (*info).type_ = pg_sys::NodeTag::T_IndexInfo;
                (*info).ii_Context = memory;
                let lock = pg_sys::RowExclusiveLock as i32;
                let (runs, search) = (pg_sys::index_open(runs, lock), pg_sys::index_open(search, lock));
                return Self::Ours { runs, search, info };
            }
            let estate = pg_sys::CreateExecutorState();
            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 1, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            Self::Any { estate, result }
        }
    }

    /// # Safety
    /// The slots hold those entries, which are in the heap now.
    unsafe fn insert(
        &mut self,
        relation: pg_sys::Relation,
        slots: &[*mut pg_sys::TupleTableSlot],
        entries: &[Entry<'_>],
    ) {
        // SAFETY: relations and slots are open and valid; values are of the indexes' types, as their definitions were compared.
        unsafe {
            match self {
                Self::Any { estate, result } => {
                    for slot in slots {
                        let (none, nobody) = (std::ptr::null_mut(), std::ptr::null_mut());
                        pg_sys::ExecInsertIndexTuples(*result, *slot, *estate, false, false, none, nobody);
                    }
                }
                Self::Ours { runs, search, info } => {
                    let mut summaries = Summaries::open(*search);
                    for (slot, e) in slots.iter().zip(entries) {
                        let place = &raw mut (**slot).tts_tid;
                        if e.signs_run || e.actor_seq == e.seq {
                            let values = [
                                data::text(e.tenant),
                                data::uuid(e.incarnation),
                                (e.lane as i32).into_datum(),
                                e.seq.into_datum(),
                            ];
                            let unique = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES;
                            insert(*runs, relation, place, values, unique, *info);
                        }
                        if summaries.concern(&*place) {
                            let values = [
                                Some(pg_sys::Datum::from(e.at - EPOCH)),
                                data::text(e.tenant),
                                e.row_key.map(key_hash).and_then(IntoDatum::into_datum),
                            ];
                            let unique = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO;
                            insert(*search, relation, place, values, unique, *info);
                        }
                    }
                    summaries.close();
                }
            }
        }
    }

    /// # Safety
    /// To be called once.
    unsafe fn close(self) {
        // SAFETY: opened in `open`. Locks stay until the transaction ends.
        unsafe {
            match self {
                Self::Any { estate, result } => {
                    pg_sys::ExecCloseIndices(result);
                    pg_sys::FreeExecutorState(estate);
                }
                Self::Ours { runs, search, info: _ } => {
                    pg_sys::index_close(runs, pg_sys::NoLock as i32);
                    pg_sys::index_close(search, pg_sys::NoLock as i32);
                }
            }
        }
    }
}

/// # Safety
/// The values must be those of the index's columns.
unsafe fn insert<const N: usize>(
    index: pg_sys::Relation,
    relation: pg_sys::Relation,
    place: pg_sys::ItemPointer,
    values: [data::Nulled; N],
    unique: pg_sys::IndexUniqueCheck::Type,
    info: *mut pg_sys::IndexInfo,
) {
    let mut nulls = values.map(|v| v.is_none());
    let mut values = values.map(|v| v.unwrap_or(pg_sys::Datum::from(0)));
    // SAFETY: the caller promises it; the index and the heap are open.
    unsafe {
        pg_sys::index_insert(index, values.as_mut_ptr(), nulls.as_mut_ptr(), place, relation, unique, false, info);
    }
}

/// The index in which a chain's end is found.
///
/// # Safety
/// The relation must be the log, open.
pub unsafe fn runs_index(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    // SAFETY: the caller promises it.
    unsafe { known(relation) }.runs
}

/// Which indexes the log has, looked up once until something about it changes.
///
/// # Safety
/// The relation must be open.
unsafe fn known(relation: pg_sys::Relation) -> Known {
    if let Some(known) = KNOWN.get() {
        return known;
    }
    let forgotten = FORGOTTEN.get();
    let mut known = Known { runs: None, search: None, others: false };
    // SAFETY: the relation is open; its index list is a copy.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        let _pinned = pin_all();
        for at in 0..if list.is_null() { 0 } else { (*list).length } {
            let oid = (*(*list).elements.add(at as usize)).oid_value;
            let definition = data::string(pg_sys::pg_get_indexdef_string(oid)).unwrap_or_default();
            let is = |[start, end]: [&str; 2]| {
                let between = definition.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
                between.is_some_and(|b| b.is_empty() || b.starts_with(" WITH (") || b.starts_with(" TABLESPACE "))
            };
            match () {
                () if is(RUNS) => known.runs = Some(oid),
                () if is(SEARCH) => known.search = Some(oid),
                () => known.others = true,
            }
        }
    }
    // What changed while it was looked up is looked up again.
    if FORGOTTEN.get() == forgotten {
        KNOWN.set(Some(known));
    }
    known
}

/// Which ranges of pages the search index has a summary of. Until a range is complete and summarised, inserting into the index
/// does nothing; so one look a range takes the place of an insertion an entry.
///
/// To be opened when all of a batch is in the heap: how far the map of ranges goes is read once, and whoever makes it longer
/// later, or summarises a range later, sees the batch.
struct Summaries {
    revmap: *mut Revmap,
    pages_per_range: u32,
    /// The range looked at last, and whether it has a summary.
    known: Option<(u32, bool)>,
}

/// BrinRevmap (access/brin_revmap.h), never looked into.
#[repr(C)]
struct Revmap {
    opaque: [u8; 0],
}

unsafe extern "C-unwind" {
    fn brinRevmapInitialize(index: pg_sys::Relation, pages: *mut u32, snapshot: pg_sys::Snapshot) -> *mut Revmap;
    fn brinRevmapTerminate(revmap: *mut Revmap);
    fn brinGetTupleForHeapBlock(
        revmap: *mut Revmap,
        block: u32,
        buffer: *mut pg_sys::Buffer,
        offset: *mut u16,
        size: *mut usize,
        mode: c_int,
        snapshot: pg_sys::Snapshot,
    ) -> *mut std::ffi::c_void;
}

impl Summaries {
    /// # Safety
    /// The index must be the search index, open.
    unsafe fn open(search: pg_sys::Relation) -> Self {
        // SAFETY: the caller promises it; errors pass through the guard's frame, which holds nothing to drop.
        unsafe {
            let mut pages_per_range = 0;
            let revmap = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                brinRevmapInitialize(search, &mut pages_per_range, std::ptr::null_mut())
            });
            Self { revmap, pages_per_range, known: None }
        }
    }

    /// Whether the entry at `place` has to go into the index: its range is summarised, or it begins a range, which asks for the
    /// one before to be summarised.
    ///
    /// # Safety
    /// As `open`.
    unsafe fn concern(&mut self, place: &pg_sys::ItemPointerData) -> bool {
        let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
        if place.ip_posid == 1 && block % self.pages_per_range == 0 {
            return true;
        }
        let range = block / self.pages_per_range;
        if let Some((known, summarised)) = self.known
            && known == range
        {
            return summarised;
        }
        // SAFETY: as in `open`. A summary is returned with its buffer locked; without one, nothing is.
        let summarised = unsafe {
            let (mut buffer, mut offset) = (pg_sys::InvalidBuffer as pg_sys::Buffer, 0);
            let revmap = self.revmap;
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let share = pg_sys::BUFFER_LOCK_SHARE as c_int;
                let (none, newest) = (std::ptr::null_mut(), std::ptr::null_mut());
                let summary = brinGetTupleForHeapBlock(revmap, block, &mut buffer, &mut offset, none, share, newest);
                if !summary.is_null() {
                    pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
                }
                if buffer != pg_sys::InvalidBuffer as pg_sys::Buffer {
                    pg_sys::ReleaseBuffer(buffer);
                }
                !summary.is_null()
            })
        };
        self.known = Some((range, summarised));
        summarised
    }

    /// # Safety
    /// To be called once.
    unsafe fn close(self) {
        // SAFETY: opened in `open`.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| brinRevmapTerminate(self.revmap)) };
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
