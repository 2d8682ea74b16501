//! The exported log (format section 7): JSON Lines read strictly, one line at a time, and written back byte for byte.
//!
//! What does not have exactly the documented form is *unreadable*: another reader of the same file might take it
//! differently, so nothing can be said about it. What is readable and wrong is the verifier's to find.

use std::fmt;
use std::io::{self, BufRead, Read};

use uuid::Uuid;

use crate::entry::Entry;
use crate::json::push_string;
use crate::key::{fingerprint, push_hex};
use crate::verify::{Head, KeyRecord, Report, Verifier};

mod line;
pub mod manifest;
mod value;

use line::Line;

/// The longest line that is read. PostgreSQL makes no value above 1 GiB, so no export has a longer one.
pub const MAX_LINE: usize = 1 << 30;

/// Why an export, or a list of heads, cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Unreadable {
    /// Where, from 1.
    pub line: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It could not be had.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is longer than the limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// It is not JSON, or a member is unknown, given twice or of the wrong type.
    #[error("{0}")]
    Json(String),
    /// `record` is neither `"key"` nor `"entry"`.
    #[error("neither a key nor an entry")]
    NoRecord,
    /// The record, or head, lacks this member.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The record, or head, has a member of another kind of record.
    #[error("{0} does not belong here")]
    Foreign(&'static str),
    /// This member may be absent elsewhere, not here.
    #[error("{0} is null")]
    Null(&'static str),
    /// A key stands after an entry.
    #[error("a key after the first entry")]
    LateKey,
    /// An entry stands after one that it should stand before.
    #[error("the entries are not sorted by tenant, incarnation, lane, seq")]
    NotSorted,
    /// A kept head names no entry.
    #[error("seq is below 1")]
    SeqBelowOne,
}

/// One line of an export.
#[derive(Debug)]
pub enum Record<'a> {
    /// A key. All of them come first.
    Key(KeyRecord),
    /// An entry, lent until the next line is read.
    Entry(Entry<'a>),
}

/// Reads an export line by line, in memory that grows with the longest line alone.
pub struct Reader<R> {
    input: R,
    limit: usize,
    number: u64,
    bytes: Vec<u8>,
    line: Line,
    /// Where the entry before stands: incarnation, lane, seq, and its tenant.
    before: Option<(Uuid, i64, i64)>,
    tenant: String,
}

impl<R: BufRead> Reader<R> {
    /// A reader of lines up to `MAX_LINE`.
    pub fn new(input: R) -> Self {
        Self::with_limit(input, MAX_LINE)
    }

    /// A reader of lines of up to `limit` bytes, line feed included.
    pub fn with_limit(input: R, limit: usize) -> Self {
        Self { input, limit, number: 0, bytes: Vec::new(), line: Line::default(), before: None, tenant: String::new() }
    }

    /// The next record; none at the end. After an error, nothing more should be asked.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Unreadable> {
        self.number += 1;
        let line = self.number;
        let unreadable = |problem| Unreadable { line, problem };
        if !self.read_line().map_err(unreadable)? {
            return Ok(None);
        }
        self.line.read(&self.bytes).map_err(unreadable)?;
        match self.line.record() {
            "key" if self.before.is_some() => Err(unreadable(Problem::LateKey)),
            "key" => self.line.key().map(|key| Some(Record::Key(key))).map_err(unreadable),
            "entry" => {
                let entry = self.line.entry().map_err(unreadable)?;
                let here = (entry.incarnation, entry.lane, entry.seq);
                if let Some(before) = self.before
                    && (entry.tenant, here) < (&*self.tenant, before)
                {
                    return Err(unreadable(Problem::NotSorted));
                }
                if entry.tenant != self.tenant {
                    entry.tenant.clone_into(&mut self.tenant);
                }
                self.before = Some(here);
                Ok(Some(Record::Entry(entry)))
            }
            _ => Err(unreadable(Problem::NoRecord)),
        }
    }

    /// The last record again, if it was an entry; at the end, none.
    pub fn current(&self) -> Option<Entry<'_>> {
        match !self.bytes.is_empty() && self.line.record() == "entry" {
            true => self.line.entry().ok(),
            false => None,
        }
    }

    /// Where the last entry stands: tenant, incarnation, lane, seq.
    pub fn place(&self) -> Option<(&str, Uuid, i64, i64)> {
        self.before.map(|(incarnation, lane, seq)| (&*self.tenant, incarnation, lane, seq))
    }

    /// The last line as it stands, line feed included if it has one.
    pub fn line(&self) -> &[u8] {
        &self.bytes
    }

    fn read_line(&mut self) -> Result<bool, Problem> {
        self.bytes.clear();
        let most = u64::try_from(self.limit).unwrap_or(u64::MAX).saturating_add(1);
        let length = self.input.by_ref().take(most).read_until(b'\n', &mut self.bytes)?;
        match length > self.limit {
            true => Err(Problem::TooLong(self.limit)),
            false => Ok(length > 0),
        }
    }
}

/// Reads an export to its end and verifies it: see [`Verifier::new`] for `pins` and `heads`.
pub fn verify<R: BufRead>(
    mut export: Reader<R>,
    pins: Option<&[String]>,
    heads: Vec<Head>,
) -> Result<Report, Unreadable> {
    let mut keys = Vec::new();
    let mut verifier = loop {
        match export.next_record()? {
            Some(Record::Key(key)) => keys.push(key),
            Some(Record::Entry(entry)) => {
                let mut verifier = Verifier::new(&keys, pins, heads);
                verifier.entry(&entry);
                break verifier;
            }
            None => return Ok(Verifier::new(&keys, pins, heads).finish()),
        }
    };
    while let Some(record) = export.next_record()? {
        if let Record::Entry(entry) = record {
            verifier.entry(&entry);
        }
    }
    Ok(verifier.finish())
}

/// Reads the heads that were kept: a JSON array of what `custody.heads()` gives.
pub fn read_heads(json: &[u8]) -> Result<Vec<Head>, Unreadable> {
    line::heads(json)
}

/// The line of a key, line feed included.
pub fn key_line(key: &KeyRecord) -> String {
    let mut line = Writer::new("key");
    line.text("key_id", Some(&key.key_id));
    line.uuid("incarnation", Some(key.incarnation));
    line.bytes("public_key", Some(&key.public_key));
    line.text("fingerprint", Some(&fingerprint(&key.public_key)));
    line.text("predecessor", key.predecessor.as_deref());
    line.bytes("endorsement", key.endorsement.as_deref());
    // Without them it is a line as exports before 0.2.0 had it, which says the same.
    if key.from_lsn.is_some() || key.recovers.is_some() || key.end.is_some() {
        let end = key.end.as_ref();
        line.integer("from_lsn", key.from_lsn);
        line.text("recovers", key.recovers.as_deref());
        line.text("ended", end.map(|e| e.how.name()));
        line.integer("until_lsn", end.map(|e| e.until_lsn));
        line.text("ended_by", end.map(|e| &*e.by));
        line.bytes("end_signature", end.map(|e| &*e.signature));
    }
    line.finish()
}

/// The line of an entry, line feed included.
pub fn entry_line(e: &Entry<'_>) -> String {
    let mut line = Writer::new("entry");
    line.uuid("incarnation", Some(e.incarnation));
    line.text("tenant", Some(e.tenant));
    line.display("lane", e.lane);
    line.display("seq", e.seq);
    line.display("format", e.format);
    line.display("lsn", e.lsn as i64);
    line.display("ordinal", e.ordinal);
    line.display("at", e.at);
    line.display("xid", e.xid as i64);
    line.text("op", Some(e.op));
    line.text("schema_name", e.schema_name);
    line.text("table_name", e.table_name);
    line.text("login_role", Some(e.login_role));
    line.text("acting_role", Some(e.acting_role));
    line.uuid("move_id", e.move_id);
    line.display("actor_seq", e.actor_seq);
    line.display("signs_run", e.signs_run);
    line.text("key_id", e.key_id);
    line.bytes("actor_salt", e.actor_salt);
    line.text("actor", e.actor);
    line.bytes("row_salt", e.row_salt);
    line.text("row_key", e.row_key);
    line.text("old", e.old);
    line.text("new", e.new);
    line.bytes("actor_digest", e.actor_digest);
    line.bytes("row_digest", Some(e.row_digest));
    line.bytes("prev_hash", Some(e.prev_hash));
    line.bytes("hash", Some(e.hash));
    line.bytes("signature", e.signature);
    line.finish()
}

/// A line being written: members in the order of section 7, a blank after each colon and comma.
struct Writer(String);

impl Writer {
    fn new(record: &str) -> Self {
        Self(format!("{{\"record\": \"{record}\""))
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        self.name(name);
        match value {
            Some(text) => push_string(&mut self.0, text),
            None => self.0.push_str("null"),
        }
    }

    fn bytes(&mut self, name: &str, value: Option<&[u8]>) {
        self.name(name);
        match value {
            Some(bytes) => {
                self.0.push('"');
                push_hex(&mut self.0, bytes);
                self.0.push('"');
            }
            None => self.0.push_str("null"),
        }
    }

    fn integer(&mut self, name: &str, value: Option<i64>) {
        match value {
            Some(number) => self.display(name, number),
            None => self.display(name, "null"),
        }
    }

    fn uuid(&mut self, name: &str, value: Option<Uuid>) {
        match value {
            Some(uuid) => self.display(name, format_args!("\"{uuid}\"")),
            None => self.display(name, "null"),
        }
    }

    fn display(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.0.push_str(&value.to_string());
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(", \"");
        self.0.push_str(name);
        self.0.push_str("\": ");
    }

    fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}
