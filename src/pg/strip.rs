//! Taking parts out of entries that stand in the log, and their remains out of the log's files.
//!
//! Entries are written anew without the part, as an UPDATE would, but by no statement: the log's triggers stay in force. The version with
//! the part is dead once the transaction is committed, yet its bytes stay in the page until something is written over them; pruning only
//! makes their room free. So free room is overwritten with zeros, by a generic WAL record, which standbys replay.

use std::time::Duration;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::{data, layout, scan, session};

/// A part, as the columns that hold it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Actor,
    Row,
}

impl Columns {
    /// By number from 1.
    fn numbers(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Actor => 19..=20,
            Self::Row => 21..=24,
        }
    }
}

/// Where a tuple is: the table, or part of it, and the place in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub relid: pg_sys::Oid,
    pub block: u32,
    pub offset: u16,
}

impl Place {
    /// From a ctid's text.
    pub fn read(relid: pg_sys::Oid, ctid: &str) -> Option<Self> {
        let (block, offset) = ctid.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Self { relid, block: block.parse().ok()?, offset: offset.parse().ok()? })
    }

    fn pointer(self) -> pg_sys::ItemPointerData {
        let ip_blkid = pg_sys::BlockIdData { bi_hi: (self.block >> 16) as u16, bi_lo: self.block as u16 };
        pg_sys::ItemPointerData { ip_blkid, ip_posid: self.offset }
    }
}

/// Writes these entries, all of one table, anew without a part.
///
/// Nobody else may do so at the same time: the caller holds the lock of erasures.
pub fn strip(places: &[Place], columns: Columns) -> Result<()> {
    let Some(relid) = places.first().map(|p| p.relid) else { return Ok(()) };
    // SAFETY: the relation stays open and locked until the transaction ends. Everything is allocated in a context of its own, which
    // goes with the transaction's on an error, as do buffers and the executor state.
    unsafe {
        let memory = data::memory(pg_sys::CurTransactionContext, c"pg_custody strip");
        let outer = pg_sys::MemoryContextSwitchTo(memory);
        let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
        if !layout::is_as_installed(relation) {
            return Err(Error::internal("custody.entry does not have the columns it was installed with"));
        }
        let estate = pg_sys::CreateExecutorState();
        let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        pg_sys::InitResultRelInfo(result, relation, 1, std::ptr::null_mut(), 0);
        pg_sys::ExecOpenIndices(result, false);
        let descriptor = (*relation).rd_att;
        let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsHeapTuple);
        let width = (*descriptor).natts as usize;
        let mut values = vec![pg_sys::Datum::from(0); width];
        let nulls = vec![true; width];
        let replace: Vec<bool> = (1..=width).map(|n| columns.numbers().contains(&n)).collect();
        for place in places {
            session::check_for_interrupts();
            let mut old = pg_sys::HeapTupleData { t_self: place.pointer(), ..Default::default() };
            let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
            let now = &raw mut pg_sys::SnapshotSelfData;
            if !pg_sys::heap_fetch(relation, now, &mut old, &mut buffer, false) {
                return Err(Error::internal("an entry to be erased is not where it was found"));
            }
            let new = pg_sys::heap_modify_tuple(
                &mut old,
                descriptor,
                values.as_mut_ptr(),
                nulls.as_ptr().cast_mut(),
                replace.as_ptr().cast_mut(),
            );
            pg_sys::ReleaseBuffer(buffer);
            pg_sys::simple_heap_update(relation, &mut old.t_self, new);
            // A new version on the same page, with the same values in every index, is found through the old one's.
            const HEAP_ONLY: u16 = 0x8000;
            if (*(*new).t_data).t_infomask2 & HEAP_ONLY == 0 {
                pg_sys::ExecStoreHeapTuple(new, slot, false);
                let (none, nobody) = (std::ptr::null_mut(), std::ptr::null_mut());
                // Said to be an UPDATE's, it would ask which columns, of a range table that there is not.
                pg_sys::ExecInsertIndexTuples(result, slot, estate, false, false, none, nobody);
            }
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::ExecCloseIndices(result);
        pg_sys::FreeExecutorState(estate);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        pg_sys::MemoryContextSwitchTo(outer);
        pg_sys::MemoryContextDelete(memory);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// storage/bufpage.h: where a page says what it is like, where its free room begins and ends, and from which transaction on it may be
/// worth pruning.
const FLAGS: usize = 10;
const LOWER: usize = 12;
const UPPER: usize = 14;
const SPECIAL: usize = 16;
const PRUNE_XID: usize = 20;
const LINE_POINTERS: usize = 24;
const PAGE_FULL: u16 = 0x0002;
/// storage/itemid.h
const NORMAL: u32 = 1;
/// access/brin_page.h: a page with summaries, by the last word of the page.
const BRIN_REGULAR: u16 = 0xF093;

/// What was done to the files of a relation.
#[derive(Default)]
pub struct Scrubbed {
    /// Pages of which something was overwritten, or freed.
    pub pages: Vec<u32>,
    /// Old versions that cannot be removed yet.
    pub remaining: u64,
}

/// What a page of a heap holds besides live tuples.
#[derive(Default)]
struct Remains {
    /// Dead to everybody; with the id of a transaction that made one so.
    dead: u64,
    dead_xid: u32,
    /// Dead, but seen by somebody still.
    recent: u64,
    dirty: bool,
}

/// The log's table for values that lie out of line.
pub fn toast_of(relid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the relation is open while it is asked.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
        let toast = (*(*relation).rd_rel).reltoastrelid;
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        (toast != pg_sys::InvalidOid).then_some(toast)
    }
}

/// Removes what is dead in a heap of ours, and overwrites its free room.
pub fn scrub_heap(relid: pg_sys::Oid) -> Result<Scrubbed> {
    let mut scrubbed = Scrubbed::default();
    // SAFETY: the relation is open and locked; each buffer is pinned while it is used, and locked while its page is looked at or
    // written. After an error PostgreSQL's abort lets go of them.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
        let strategy = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD);
        let count = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let horizon = pg_sys::GetOldestNonRemovableTransactionId(relation);
        for block in 0..count {
            session::check_for_interrupts();
            let buffer = read(relation, block, strategy);
            let mut remains = look(relation, buffer, block, horizon);
            let touched = remains.dead > 0 || remains.dirty;
            // Pruning wants the page to itself, and does nothing while another looks at it.
            const TRIES: u32 = 20;
            for attempt in 0..TRIES {
                if remains.dead == 0 {
                    break;
                }
                if attempt > 0 {
                    std::thread::sleep(Duration::from_millis(10));
                    session::check_for_interrupts();
                }
                ask_for_pruning(buffer, remains.dead_xid);
                pg_sys::heap_page_prune_opt(relation, buffer);
                remains = look(relation, buffer, block, horizon);
            }
            if remains.dirty {
                overwrite(relation, buffer);
            }
            if touched {
                scrubbed.pages.push(block);
            }
            scrubbed.remaining += remains.dead + remains.recent;
            pg_sys::ReleaseBuffer(buffer);
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    Ok(scrubbed)
}

/// Overwrites the free room of a BRIN index's summaries.
pub fn scrub_brin(relid: pg_sys::Oid) -> Result<Scrubbed> {
    let mut scrubbed = Scrubbed::default();
    // SAFETY: as above. Only pages of summaries have nothing between the end of their line pointers and their first item.
    unsafe {
        let relation = pg_sys::index_open(relid, pg_sys::AccessShareLock as i32);
        let count = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        for block in 0..count {
            session::check_for_interrupts();
            let buffer = read(relation, block, std::ptr::null_mut());
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
            let last_word = page.add(pg_sys::BLCKSZ as usize - 2).cast::<u16>().read();
            let dirty = last_word == BRIN_REGULAR && is_dirty(page);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            if dirty {
                overwrite(relation, buffer);
                scrubbed.pages.push(block);
            }
            pg_sys::ReleaseBuffer(buffer);
        }
        pg_sys::index_close(relation, pg_sys::AccessShareLock as i32);
    }
    Ok(scrubbed)
}

/// # Safety
/// The relation must be open, and have that block.
unsafe fn read(relation: pg_sys::Relation, block: u32, strategy: pg_sys::BufferAccessStrategy) -> pg_sys::Buffer {
    let (main, normal) = (pg_sys::ForkNumber::MAIN_FORKNUM, pg_sys::ReadBufferMode::RBM_NORMAL);
    // SAFETY: the caller promises it.
    unsafe { pg_sys::ReadBufferExtended(relation, main, block, normal, strategy) }
}

/// A word of the page's header.
///
/// # Safety
/// The page must be one, and stay.
unsafe fn word(page: *const u8, at: usize) -> u16 {
    // SAFETY: the caller promises it.
    unsafe { page.add(at).cast::<u16>().read() }
}

/// Whether there is anything in the page's free room.
///
/// # Safety
/// The page must be locked.
unsafe fn is_dirty(page: *const u8) -> bool {
    // SAFETY: the caller promises it; the room is within the page, or is taken for none.
    unsafe {
        let (lower, upper, special) =
            (usize::from(word(page, LOWER)), usize::from(word(page, UPPER)), usize::from(word(page, SPECIAL)));
        let sound = LINE_POINTERS <= lower && lower <= upper && upper <= special && special <= pg_sys::BLCKSZ as usize;
        sound && std::slice::from_raw_parts(page.add(lower), upper - lower).iter().any(|byte| *byte != 0)
    }
}

/// # Safety
/// The buffer must be pinned, and be that block of the heap.
unsafe fn look(
    relation: pg_sys::Relation,
    buffer: pg_sys::Buffer,
    block: u32,
    horizon: pg_sys::TransactionId,
) -> Remains {
    let mut remains = Remains::default();
    // SAFETY: the page is locked; its line pointers lie within it, and lead to tuples within it.
    unsafe {
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
        for number in 0..pg_sys::PageGetMaxOffsetNumber(page.cast()) {
            let pointer = page.add(LINE_POINTERS).cast::<u32>().add(usize::from(number)).read();
            let (start, state, length) = (pointer & 0x7fff, pointer >> 15 & 3, pointer >> 17);
            if state != NORMAL {
                continue;
            }
            let header = page.add(start as usize).cast::<pg_sys::HeapTupleHeaderData>();
            let place = Place { relid: (*relation).rd_id, block, offset: number + 1 };
            let mut tuple = pg_sys::HeapTupleData {
                t_len: length,
                t_self: place.pointer(),
                t_tableOid: (*relation).rd_id,
                t_data: header.cast(),
            };
            match pg_sys::HeapTupleSatisfiesVacuum(&mut tuple, horizon, buffer) {
                pg_sys::HTSV_Result::HEAPTUPLE_DEAD => {
                    remains.dead += 1;
                    remains.dead_xid = u32::from((*header).t_choice.t_heap.t_xmin);
                }
                pg_sys::HTSV_Result::HEAPTUPLE_RECENTLY_DEAD | pg_sys::HTSV_Result::HEAPTUPLE_DELETE_IN_PROGRESS => {
                    remains.recent += 1;
                }
                _ => {}
            }
        }
        remains.dirty = is_dirty(page);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
    }
    remains
}

/// Leaves the hints in a page that make PostgreSQL prune it at the next look: that it is full, and has something to prune.
///
/// # Safety
/// The buffer must be pinned, and be a heap's.
unsafe fn ask_for_pruning(buffer: pg_sys::Buffer, dead_xid: u32) {
    // SAFETY: hints in the header of a page that is locked.
    unsafe {
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
        let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
        let flags = page.add(FLAGS).cast::<u16>();
        flags.write(flags.read() | PAGE_FULL);
        let prune_xid = page.add(PRUNE_XID).cast::<u32>();
        if prune_xid.read() == 0 {
            prune_xid.write(dead_xid);
        }
        pg_sys::MarkBufferDirtyHint(buffer, true);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
    }
}

/// Writes zeros over a page's free room, logged: a generic record that changes nothing else does just that, here and where it is replayed.
///
/// # Safety
/// The buffer must be pinned, and its page have nothing in its free room that anybody reads.
unsafe fn overwrite(relation: pg_sys::Relation, buffer: pg_sys::Buffer) {
    // SAFETY: the caller promises it; the page is locked until the record is written.
    unsafe {
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
        let state = pg_sys::GenericXLogStart(relation);
        pg_sys::GenericXLogRegisterBuffer(state, buffer, 0);
        pg_sys::GenericXLogFinish(state);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
    }
}

/// The tables that hold the log: one, until it is in segments.
pub fn log_tables() -> Result<Vec<pg_sys::Oid>> {
    Ok(vec![scan::log_table().ok_or(Error::NotStarted)?])
}
