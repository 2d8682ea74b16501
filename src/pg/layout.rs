//! A row of `custody.entry` as PostgreSQL keeps it in a heap page (access/htup_details.h, varatt.h): written and read here, so
//! that neither capture nor verification pays for a Datum per column. The columns are those of sql/install/20_tables.sql, in order.

use std::ffi::CStr;

use custody_core::entry::Entry;
use pgrx::pg_sys;
use uuid::Uuid;

/// Microseconds from the Unix epoch to PostgreSQL's.
pub const EPOCH: i64 = 946_684_800_000_000;

/// The columns, by number from 1.
pub mod column {
    pub const SEQ: i16 = 1;
    pub const LANE: i16 = 7;
    pub const INCARNATION: i16 = 10;
    pub const TENANT: i16 = 12;
    pub const HASH: i16 = 28;
    pub const COUNT: usize = 29;
}

/// What the columns are called, in order, and of which types.
const COLUMNS: [(&CStr, pg_sys::Oid); column::COUNT] = [
    (c"seq", pg_sys::INT8OID),
    (c"lsn", pg_sys::PG_LSNOID),
    (c"at", pg_sys::TIMESTAMPTZOID),
    (c"xid", pg_sys::XID8OID),
    (c"actor_seq", pg_sys::INT8OID),
    (c"ordinal", pg_sys::INT4OID),
    (c"lane", pg_sys::INT4OID),
    (c"format", pg_sys::INT2OID),
    (c"signs_run", pg_sys::BOOLOID),
    (c"incarnation", pg_sys::UUIDOID),
    (c"move_id", pg_sys::UUIDOID),
    (c"tenant", pg_sys::TEXTOID),
    (c"op", pg_sys::TEXTOID),
    (c"schema_name", pg_sys::TEXTOID),
    (c"table_name", pg_sys::TEXTOID),
    (c"login_role", pg_sys::TEXTOID),
    (c"acting_role", pg_sys::TEXTOID),
    (c"key_id", pg_sys::TEXTOID),
    (c"actor_salt", pg_sys::BYTEAOID),
    (c"actor", pg_sys::TEXTOID),
    (c"row_salt", pg_sys::BYTEAOID),
    (c"row_key", pg_sys::TEXTOID),
    (c"old", pg_sys::TEXTOID),
    (c"new", pg_sys::TEXTOID),
    (c"actor_digest", pg_sys::BYTEAOID),
    (c"row_digest", pg_sys::BYTEAOID),
    (c"prev_hash", pg_sys::BYTEAOID),
    (c"hash", pg_sys::BYTEAOID),
    (c"signature", pg_sys::BYTEAOID),
];

/// Whether the log's first columns are those it was installed with. One that somebody added after them is nobody's business.
///
/// # Safety
/// The relation must be open.
pub unsafe fn is_as_installed(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller promises it; a column's name is a terminated string. That of one that was dropped is no column's.
    unsafe {
        let descriptor = (*relation).rd_att;
        let there = (*descriptor).attrs.as_slice((*descriptor).natts as usize);
        there.len() >= COLUMNS.len()
            && there.iter().zip(COLUMNS).all(|(a, (name, kind))| {
                a.atttypid == kind && !a.attisdropped && CStr::from_ptr(a.attname.data.as_ptr()) == name
            })
    }
}

/// Bytes before the columns' own: the tuple header (23), a bit for each column, rounded up to 8.
pub const HEADER: usize = (HEADER_FIXED + column::COUNT.div_ceil(8)).next_multiple_of(8);
const HEADER_FIXED: usize = 23;
/// Where the header says how many columns there are, what the tuple is like, and where the columns start.
const INFOMASK2: usize = 18;
const INFOMASK: usize = 20;
const HOFF: usize = 22;
/// HEAP_HASNULL and HEAP_HASVARWIDTH
const FLAGS: u16 = 0x0003;
const COLUMNS_MASK: u16 = 0x07ff;
const HAS_NULLS: u16 = 0x0001;

/// Appends the tuple, header included, as `heap_form_tuple` would make it.
pub fn encode(e: &Entry<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    for fixed in [e.seq, e.lsn as i64, e.at - EPOCH, e.xid as i64, e.actor_seq] {
        out.extend_from_slice(&fixed.to_ne_bytes());
    }
    out.extend_from_slice(&(e.ordinal as i32).to_ne_bytes());
    out.extend_from_slice(&(e.lane as i32).to_ne_bytes());
    out.extend_from_slice(&e.format.to_ne_bytes());
    out.push(u8::from(e.signs_run));
    out.extend_from_slice(e.incarnation.as_bytes());
    let mut present: u32 = (1 << 10) - 1;
    if let Some(id) = e.move_id {
        out.extend_from_slice(id.as_bytes());
        present |= 1 << 10;
    }
    let bytes: [Option<&[u8]>; 18] = [
        Some(e.tenant.as_bytes()),
        Some(e.op.as_bytes()),
        e.schema_name.map(str::as_bytes),
        e.table_name.map(str::as_bytes),
        Some(e.login_role.as_bytes()),
        Some(e.acting_role.as_bytes()),
        e.key_id.map(str::as_bytes),
        e.actor_salt,
        e.actor.map(str::as_bytes),
        e.row_salt,
        e.row_key.map(str::as_bytes),
        e.old.map(str::as_bytes),
        e.new.map(str::as_bytes),
        e.actor_digest,
        Some(e.row_digest),
        Some(e.prev_hash),
        Some(e.hash),
        e.signature,
    ];
    for (i, value) in bytes.iter().enumerate() {
        if let Some(value) = value {
            present |= 1 << (11 + i);
            push_varlena(out, start, value);
        }
    }
    let header = &mut out[start..start + HEADER];
    header[INFOMASK2..INFOMASK2 + 2].copy_from_slice(&(column::COUNT as u16).to_ne_bytes());
    header[INFOMASK..INFOMASK + 2].copy_from_slice(&FLAGS.to_ne_bytes());
    header[HOFF] = HEADER as u8;
    header[HEADER_FIXED..HEADER_FIXED + 4].copy_from_slice(&present.to_le_bytes());
}

/// A value with its length before it: one byte if that is enough, else four, aligned.
fn push_varlena(out: &mut Vec<u8>, start: usize, value: &[u8]) {
    if value.len() <= 126 {
        out.push(short_header(value.len()));
    } else {
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        out.extend_from_slice(&long_header(value.len()));
    }
    out.extend_from_slice(value);
}

#[cfg(target_endian = "little")]
fn short_header(length: usize) -> u8 {
    ((length as u8 + 1) << 1) | 1
}

#[cfg(target_endian = "little")]
fn long_header(length: usize) -> [u8; 4] {
    ((length as u32 + 4) << 2).to_ne_bytes()
}

/// Why a tuple could not be read.
#[derive(Clone, Copy)]
pub enum Odd {
    /// A value is compressed or lies out of line: PostgreSQL has to fetch it first.
    Toasted,
    /// Not as this version of the extension writes entries: a column is missing or NULL, or text is not UTF-8.
    Unreadable,
}

/// Reads a tuple, header included.
pub fn decode(tuple: &[u8]) -> Result<Entry<'_>, Odd> {
    Reader::new(tuple)?.entry()
}

struct Reader<'a> {
    columns: &'a [u8],
    present: u32,
    at: usize,
    column: usize,
}

impl<'a> Reader<'a> {
    fn new(tuple: &'a [u8]) -> Result<Self, Odd> {
        let word = |at: usize| Some(u16::from_ne_bytes(tuple.get(at..at + 2)?.try_into().ok()?));
        let (Some(mask2), Some(mask), Some(start)) = (word(INFOMASK2), word(INFOMASK), tuple.get(HOFF)) else {
            return Err(Odd::Unreadable);
        };
        let stored = usize::from(mask2 & COLUMNS_MASK);
        let columns = tuple.get(usize::from(*start)..).ok_or(Odd::Unreadable)?;
        let bits = tuple.get(HEADER_FIXED..HEADER_FIXED + 4).and_then(|b| b.try_into().ok());
        let present = match (mask & HAS_NULLS, bits) {
            (0, _) => u32::MAX,
            (_, Some(bits)) => u32::from_le_bytes(bits),
            (_, None) => return Err(Odd::Unreadable),
        };
        if stored < column::COUNT {
            return Err(Odd::Unreadable);
        }
        Ok(Self { columns, present, at: 0, column: 0 })
    }

    fn entry(mut self) -> Result<Entry<'a>, Odd> {
        let (seq, lsn, at, xid, actor_seq) = (self.big()?, self.big()?, self.big()?, self.big()?, self.big()?);
        let (ordinal, lane) = (i32::from_ne_bytes(self.fixed(4)?), i32::from_ne_bytes(self.fixed(4)?));
        let format = i16::from_ne_bytes(self.fixed(2)?);
        let [signs_run] = self.fixed(1)?;
        let incarnation = Uuid::from_bytes(self.fixed(1)?);
        let move_id = match self.is_present() {
            true => Some(Uuid::from_bytes(self.fixed(1)?)),
            false => {
                self.column += 1;
                None
            }
        };
        Ok(Entry {
            incarnation,
            lane: lane.into(),
            seq,
            format,
            lsn: lsn as u64,
            ordinal: ordinal.into(),
            at: at.checked_add(EPOCH).ok_or(Odd::Unreadable)?,
            xid: xid as u64,
            actor_seq,
            signs_run: signs_run != 0,
            move_id,
            tenant: self.required_text()?,
            op: self.required_text()?,
            schema_name: self.text()?,
            table_name: self.text()?,
            login_role: self.required_text()?,
            acting_role: self.required_text()?,
            key_id: self.text()?,
            actor_salt: self.bytes()?,
            actor: self.text()?,
            row_salt: self.bytes()?,
            row_key: self.text()?,
            old: self.text()?,
            new: self.text()?,
            actor_digest: self.bytes()?,
            row_digest: self.bytes()?.ok_or(Odd::Unreadable)?,
            prev_hash: self.bytes()?.ok_or(Odd::Unreadable)?,
            hash: self.bytes()?.ok_or(Odd::Unreadable)?,
            signature: self.bytes()?,
        })
    }

    fn is_present(&self) -> bool {
        self.present & (1 << self.column) != 0
    }

    /// The next column, of fixed length and the given alignment, which must not be NULL.
    fn fixed<const N: usize>(&mut self, align: usize) -> Result<[u8; N], Odd> {
        if !self.is_present() {
            return Err(Odd::Unreadable);
        }
        self.column += 1;
        self.at = self.at.next_multiple_of(align);
        let value = self.columns.get(self.at..self.at + N).and_then(|v| v.try_into().ok());
        self.at += N;
        value.ok_or(Odd::Unreadable)
    }

    fn big(&mut self) -> Result<i64, Odd> {
        Ok(i64::from_ne_bytes(self.fixed(8)?))
    }

    fn text(&mut self) -> Result<Option<&'a str>, Odd> {
        match self.bytes()? {
            None => Ok(None),
            // SAFETY: ASCII is UTF-8. Looking for anything else is much faster than reading it as UTF-8.
            Some(bytes) if bytes.is_ascii() => Ok(Some(unsafe { std::str::from_utf8_unchecked(bytes) })),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| Odd::Unreadable),
        }
    }

    fn required_text(&mut self) -> Result<&'a str, Odd> {
        self.text()?.ok_or(Odd::Unreadable)
    }

    #[cfg(target_endian = "little")]
    fn bytes(&mut self) -> Result<Option<&'a [u8]>, Odd> {
        let present = self.is_present();
        self.column += 1;
        if !present {
            return Ok(None);
        }
        // A byte that is not zero begins a value with a short header; zeros pad up to a long one.
        let first = |at: usize| self.columns.get(at).copied().ok_or(Odd::Unreadable);
        if first(self.at)? == 0 {
            self.at = self.at.next_multiple_of(4);
        }
        let first = first(self.at)?;
        let (start, end) = if first == 1 {
            return Err(Odd::Toasted);
        } else if first & 1 == 1 {
            (self.at + 1, self.at + usize::from(first >> 1))
        } else if first & 3 == 2 {
            return Err(Odd::Toasted);
        } else {
            let header = self.columns.get(self.at..self.at + 4).and_then(|h| h.try_into().ok());
            let length = u32::from_ne_bytes(header.ok_or(Odd::Unreadable)?) >> 2;
            (self.at + 4, self.at + length as usize)
        };
        self.at = end;
        self.columns.get(start..end).map(Some).ok_or(Odd::Unreadable)
    }
}
