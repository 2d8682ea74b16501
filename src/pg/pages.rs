//! Reading `custody.entry` page by page, as one snapshot sees it: no executor, no index, no predicate locks. Tuples are copied, so
//! that threads that must not touch PostgreSQL can look at them.

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::{data, layout, scan};

/// storage/bufpage.h: where a page's flags and its line pointers are, and the flag that says that all see all of it.
const FLAGS: usize = 10;
const ALL_VISIBLE: u16 = 0x0004;
const LINE_POINTERS: usize = 24;
/// storage/itemid.h: the state of a line pointer that leads to a tuple.
const NORMAL: u32 = 1;

/// Copies of tuples, one after the other.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// The tuples, headers included.
    pub fn tuples(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// Adds copies of a page's.
    pub fn add(&mut self, page: &Page<'_>) {
        for tuple in page.tuples() {
            self.bytes.extend_from_slice(tuple);
            self.ends.push(self.bytes.len());
        }
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The log, open for reading.
pub struct Pages {
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    strategy: pg_sys::BufferAccessStrategy,
    next: u32,
    /// Where the visible tuples of the current page are, and how long.
    visible: Vec<(u16, u16)>,
    /// How many pages it had when it was opened: what comes later, the snapshot does not see.
    pub count: u32,
    /// Whether its columns are those it was installed with.
    pub as_installed: bool,
    /// Whether there are, or were, tables that inherit from it, whose rows a query finds in it.
    pub has_children: bool,
}

unsafe extern "C-unwind" {
    /// Without pgrx's guard, as it is called for each tuple: the guard is around all of a page.
    #[link_name = "HeapTupleSatisfiesVisibility"]
    fn is_visible(tuple: pg_sys::HeapTuple, snapshot: pg_sys::Snapshot, buffer: pg_sys::Buffer) -> bool;
}

impl Pages {
    /// Opens the log as it is now.
    pub fn open() -> Result<Self> {
        let relid = scan::log_table().ok_or(Error::NotStarted)?;
        // SAFETY: the relation stays locked and the snapshot registered until `drop`; after an error PostgreSQL's abort lets go of both.
        unsafe {
            let relation = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let strategy = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD);
            let count = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            let (as_installed, has_children) =
                (layout::is_as_installed(relation), (*(*relation).rd_rel).relhassubclass);
            Ok(Self { relation, snapshot, strategy, next: 0, visible: Vec::new(), count, as_installed, has_children })
        }
    }

    /// How many pages have been read.
    pub fn read(&self) -> u32 {
        self.next
    }

    /// The next page; none at the end.
    pub fn next_page(&mut self) -> Option<Page<'_>> {
        if self.next == self.count {
            return None;
        }
        let block = self.next;
        self.next += 1;
        self.visible.clear();
        // SAFETY: the buffer is pinned, and locked while its page's line pointers are looked at; they lie within it, and lead to
        // tuples within it. The guard's closure holds nothing that an error would have to drop.
        unsafe {
            let main = pg_sys::ForkNumber::MAIN_FORKNUM;
            let normal = pg_sys::ReadBufferMode::RBM_NORMAL;
            let buffer = pg_sys::ReadBufferExtended(self.relation, main, block, normal, self.strategy);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
            let flags = page.add(FLAGS).cast::<u16>().read();
            let all_visible = flags & ALL_VISIBLE != 0 && !(*self.snapshot).takenDuringRecovery;
            let count = pg_sys::PageGetMaxOffsetNumber(page.cast());
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                for number in 0..count {
                    let pointer = page.add(LINE_POINTERS).cast::<u32>().add(usize::from(number)).read();
                    let (start, state, length) = (pointer & 0x7fff, pointer >> 15 & 3, pointer >> 17);
                    if state != NORMAL {
                        continue;
                    }
                    let mut tuple = pg_sys::HeapTupleData {
                        t_len: length,
                        t_self: pg_sys::ItemPointerData {
                            ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
                            ip_posid: number + 1,
                        },
                        t_tableOid: (*self.relation).rd_id,
                        t_data: page.add(start as usize).cast(),
                    };
                    if all_visible || is_visible(&mut tuple, self.snapshot, buffer) {
                        self.visible.push((start as u16, length as u16));
                    }
                }
            });
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            Some(Page { buffer, bytes: page, visible: &self.visible })
        }
    }

    /// The same tuple with every value fetched and decompressed.
    pub fn plain(&self, tuple: &[u8]) -> Vec<u8> {
        // SAFETY: the tuple is a copy of one of the log's, put where it is aligned; the snapshot keeps its out-of-line values alive.
        unsafe {
            let memory = data::memory(pg_sys::CurrentMemoryContext, c"pg_custody tuple");
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            let aligned = pg_sys::palloc(tuple.len()).cast::<u8>();
            aligned.copy_from_nonoverlapping(tuple.as_ptr(), tuple.len());
            let mut held =
                pg_sys::HeapTupleData { t_len: tuple.len() as u32, t_data: aligned.cast(), ..Default::default() };
            let descriptor = (*self.relation).rd_att;
            let attributes = (*descriptor).attrs.as_slice((*descriptor).natts as usize);
            let (mut values, mut nulls) =
                (vec![pg_sys::Datum::from(0); attributes.len()], vec![true; attributes.len()]);
            pg_sys::heap_deform_tuple(&mut held, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            for ((value, null), attribute) in values.iter_mut().zip(&nulls).zip(attributes) {
                if attribute.attlen == -1 && !null {
                    *value = pg_sys::Datum::from(pg_sys::pg_detoast_datum(value.cast_mut_ptr()));
                }
            }
            let plain = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let bytes = std::slice::from_raw_parts((*plain).t_data.cast::<u8>(), (*plain).t_len as usize).to_vec();
            pg_sys::MemoryContextSwitchTo(outer);
            pg_sys::MemoryContextDelete(memory);
            bytes
        }
    }
}

/// A page of the log, kept where it is as long as this lives.
pub struct Page<'a> {
    buffer: pg_sys::Buffer,
    bytes: *const u8,
    visible: &'a [(u16, u16)],
}

impl Page<'_> {
    /// The tuples that the snapshot sees, headers included.
    pub fn tuples(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: a pinned page's tuples stay, and their columns never change; others may set hint bits in their headers, as
        // whoever reads a heap must expect.
        self.visible.iter().map(|(start, length)| unsafe {
            std::slice::from_raw_parts(self.bytes.add(usize::from(*start)), usize::from(*length))
        })
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        // SAFETY: pinned in `next_page`. After an error, PostgreSQL's abort lets go of it itself.
        unsafe {
            if !std::thread::panicking() {
                pg_sys::ReleaseBuffer(self.buffer);
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: opened in `open`. After an error, PostgreSQL's abort lets go of both itself.
        unsafe {
            if !std::thread::panicking() {
                pg_sys::UnregisterSnapshot(self.snapshot);
                pg_sys::table_close(self.relation, pg_sys::AccessShareLock as i32);
            }
        }
    }
}

/// Runs `work` with all signals held back, so that threads it starts never run PostgreSQL's handlers.
pub fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the sets are on the stack for the calls, and the old one is put back.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = work();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}
