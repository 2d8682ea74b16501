//! The sums, and the second look.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use super::baseline;
use super::history::{History, Position};
use super::image::each_field;

/// What terms are hashed with: drawn anew for each comparison, so that nobody who changes rows knows what would cancel out.
#[derive(Default)]
pub struct Secret(RandomState);

impl Secret {
    fn hash(&self, key: u64, lineage: u64, text: &str) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(key);
        hasher.write_u64(lineage);
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

/// In place of a lineage: the row itself, and a key.
const ROW: u64 = u64::MAX;
const KEY: u64 = u64::MAX - 1;

/// The operations that say something of rows.
pub const OPS: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "MOVE_OUT", "MOVE_IN", "TRUNCATE", "BASELINE"];

/// An entry, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it stands.
    pub at: Position,
    /// Its transaction.
    pub xid: u64,
    /// What happened.
    pub op: &'a str,
    /// Whose row it is.
    pub tenant: &'a str,
    /// The table's schema then.
    pub schema: &'a str,
    /// The table's name then.
    pub table: &'a str,
    /// The row part.
    pub row_key: Option<&'a str>,
    /// The row part.
    pub old: Option<&'a str>,
    /// The row part.
    pub new: Option<&'a str>,
}

/// Which row is spoken of.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Its key, as written; or, without a key, the row.
    pub row: &'a str,
    /// Whether the table holds it, rather than the log.
    pub live: bool,
    /// Bytes of what is said of it.
    pub size: usize,
}

/// What takes the terms.
pub trait Sink {
    /// A row comes; whether its terms are wanted.
    fn row(&mut self, key: u64, about: About<'_>) -> bool;
    /// The row came (1) or went (-1).
    fn exists(&mut self, hash: u64, sign: i64);
    /// A column's value came or went.
    fn value(&mut self, lineage: usize, text: &str, hash: u64, sign: i64);
    /// The row came, as a digest.
    fn digest(&mut self, text: &str);
}

/// Why an entry says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Its row part is gone.
    Erased,
    /// Its row part is not as section 6 says.
    Unreadable,
    /// The table has no key, and a value that an UPDATE did not touch is not in it.
    OutOfLine,
}

/// From entries and rows to terms.
pub struct Reader<'a> {
    /// What is known of the table.
    pub history: &'a History,
    /// Whether its rows have keys.
    pub keyed: bool,
    /// What terms are hashed with.
    pub secret: &'a Secret,
}

impl Reader<'_> {
    /// Takes in an entry, which must be of this table and count (`History::counts`).
    pub fn entry(&self, e: &Entry<'_>, sink: &mut impl Sink) -> Result<(), Untold> {
        let columns = self.history.columns(e.at);
        match (e.op, e.old, e.new) {
            ("INSERT" | "MOVE_IN", _, Some(new)) => self.whole(e, columns, new, 1, sink),
            ("DELETE" | "MOVE_OUT" | "TRUNCATE", Some(old), _) => self.whole(e, columns, old, -1, sink),
            ("UPDATE", Some(old), Some(new)) => self.update(e, columns, old, new, sink),
            ("BASELINE", _, Some(new)) if !self.history.holds_row(e.at, e.xid) => {
                let Some((key, row)) = self.key(columns, e.row_key) else { return Err(Untold::Unreadable) };
                if sink.row(key, About { tenant: e.tenant, row, live: false, size: new.len() }) {
                    self.values(key, columns, new, 1, sink).ok_or(Untold::Unreadable)?;
                }
                Ok(())
            }
            ("BASELINE", _, Some(new)) => {
                match new.strip_prefix("{\"digest\":\"").and_then(|d| d.strip_suffix("\"}")) {
                    Some(digest) if self.history.form == Some(baseline::Form::Digest) => {
                        let Some((key, row)) = self.key(columns, e.row_key) else { return Err(Untold::Unreadable) };
                        if sink.row(key, About { tenant: e.tenant, row, live: false, size: new.len() }) {
                            sink.exists(self.secret.hash(key, ROW, ""), 1);
                            sink.digest(digest);
                        }
                        Ok(())
                    }
                    _ => self.whole(e, columns, new, 1, sink),
                }
            }
            // The statement itself.
            ("TRUNCATE", None, Some(_)) => Ok(()),
            (op, None, None) if OPS.contains(&op) => Err(Untold::Erased),
            (op, ..) if OPS.contains(&op) => Err(Untold::Unreadable),
            _ => Ok(()),
        }
    }

    /// Takes off a row that the table holds. False if it is no row image.
    pub fn live(&self, tenant: &str, row_key: Option<&str>, image: &str, sink: &mut impl Sink) -> bool {
        let columns = self.history.columns_now();
        let key = match self.keyed {
            true => self.key(columns, row_key),
            false => self.row_hash(columns, image, None).map(|key| (key, image)),
        };
        let Some((key, row)) = key else { return false };
        if !sink.row(key, About { tenant, row, live: true, size: image.len() }) {
            return true;
        }
        sink.exists(self.secret.hash(key, ROW, ""), -1);
        !self.keyed || self.values(key, columns, image, -1, sink).is_some()
    }

    fn whole(
        &self,
        e: &Entry<'_>,
        columns: &[(String, usize)],
        image: &str,
        sign: i64,
        sink: &mut impl Sink,
    ) -> Result<(), Untold> {
        let key = match self.keyed {
            true => self.key(columns, e.row_key),
            false => self.row_hash(columns, image, None).map(|key| (key, image)),
        };
        let Some((key, row)) = key else { return Err(Untold::Unreadable) };
        if sink.row(key, About { tenant: e.tenant, row, live: false, size: image.len() }) {
            sink.exists(self.secret.hash(key, ROW, ""), sign);
            if self.keyed {
                self.values(key, columns, image, sign, sink).ok_or(Untold::Unreadable)?;
            }
        }
        Ok(())
    }

    fn update(
        &self,
        e: &Entry<'_>,
        columns: &[(String, usize)],
        old: &str,
        new: &str,
        sink: &mut impl Sink,
    ) -> Result<(), Untold> {
        if !self.keyed {
            let mut named = HashSet::new();
            let readable =
                each_field(old, |name, _| _ = named.insert(name)) && each_field(new, |name, _| _ = named.insert(name));
            let lacks = |c: &(String, usize)| self.history.lineages[c.1].live && !named.contains(&*c.0);
            if readable && columns.iter().any(lacks) {
                return Err(Untold::OutOfLine);
            }
            for (over, sign) in [(Some(old), -1), (None, 1)] {
                let key = self.row_hash(columns, new, over).ok_or(Untold::Unreadable)?;
                let row = if sign < 0 { old } else { new };
                if sink.row(key, About { tenant: e.tenant, row, live: false, size: new.len() }) {
                    sink.exists(self.secret.hash(key, ROW, ""), sign);
                }
            }
            return Ok(());
        }
        let Some((key, row)) = self.key(columns, e.row_key) else { return Err(Untold::Unreadable) };
        if !sink.row(key, About { tenant: e.tenant, row, live: false, size: old.len() + new.len() }) {
            return Ok(());
        }
        let mut changed = Vec::new();
        let mut at = 0;
        let read = each_field(old, |name, value| {
            if let Some(lineage) = find(columns, &mut at, name) {
                changed.push(name);
                self.value(key, lineage, value, -1, sink);
            }
        });
        let mut at = 0;
        let read = read
            && each_field(new, |name, value| {
                if changed.contains(&name)
                    && let Some(lineage) = find(columns, &mut at, name)
                {
                    self.value(key, lineage, value, 1, sink);
                }
            });
        if read { Ok(()) } else { Err(Untold::Unreadable) }
    }

    /// A key's hash: of its columns by lineage, so that it stays when they get other names.
    fn key<'k>(&self, columns: &[(String, usize)], row_key: Option<&'k str>) -> Option<(u64, &'k str)> {
        let row_key = row_key?;
        let (mut sum, mut known, mut at) = (0u64, true, 0);
        let read = each_field(row_key, |name, value| match find(columns, &mut at, name) {
            Some(lineage) => sum = sum.wrapping_add(self.secret.hash(KEY, lineage as u64, value)),
            None => known = false,
        });
        (read && known).then(|| (self.secret.hash(sum, KEY, ""), row_key))
    }

    /// A whole row's hash, for tables without keys; with values of `over` in place of its own.
    fn row_hash(&self, columns: &[(String, usize)], image: &str, over: Option<&str>) -> Option<u64> {
        let (mut sum, mut at) = (0u64, 0);
        let mut replaced = Vec::new();
        let mut add = |lineage: usize, value: &str| {
            let l = &self.history.lineages[lineage];
            if l.live && l.fill != value {
                sum = sum.wrapping_add(self.secret.hash(KEY, lineage as u64, value));
            }
        };
        let mut read = true;
        if let Some(over) = over {
            read = each_field(over, |name, value| {
                replaced.push(name);
                if let Some(lineage) = find(columns, &mut at, name) {
                    add(lineage, value);
                }
            });
        }
        at = 0;
        read &= each_field(image, |name, value| {
            if !replaced.contains(&name)
                && let Some(lineage) = find(columns, &mut at, name)
            {
                add(lineage, value);
            }
        });
        read.then(|| self.secret.hash(sum, ROW, ""))
    }

    fn values(
        &self,
        key: u64,
        columns: &[(String, usize)],
        image: &str,
        sign: i64,
        sink: &mut impl Sink,
    ) -> Option<()> {
        let mut at = 0;
        let read = each_field(image, |name, value| {
            if let Some(lineage) = find(columns, &mut at, name) {
                self.value(key, lineage, value, sign, sink);
            }
        });
        read.then_some(())
    }

    fn value(&self, key: u64, lineage: usize, value: &str, sign: i64, sink: &mut impl Sink) {
        let l = &self.history.lineages[lineage];
        if l.live && l.fill != value {
            sink.value(lineage, value, self.secret.hash(key, lineage as u64, value), sign);
        }
    }
}

/// A column's lineage. Images have columns in order, so the next is looked at first.
fn find(columns: &[(String, usize)], at: &mut usize, name: &str) -> Option<usize> {
    let found = match columns.get(*at) {
        Some(next) if next.0 == name => *at,
        _ => columns.iter().position(|c| c.0 == name)?,
    };
    *at = found + 1;
    Some(columns[found].1)
}

/// How many buckets there are.
const BUCKETS: usize = 1 << 16;

/// The first look: sums by bucket.
pub struct Sums {
    sums: Vec<u64>,
    bytes: Vec<u64>,
    /// Buckets that sums cannot clear.
    unclear: Vec<bool>,
    at: usize,
}

impl Default for Sums {
    fn default() -> Self {
        Self { sums: vec![0; BUCKETS], bytes: vec![0; BUCKETS], unclear: vec![false; BUCKETS], at: 0 }
    }
}

fn bucket(key: u64) -> usize {
    (key % BUCKETS as u64) as usize
}

impl Sink for Sums {
    fn row(&mut self, key: u64, about: About<'_>) -> bool {
        self.at = bucket(key);
        self.bytes[self.at] += about.size as u64 + 200;
        true
    }

    fn exists(&mut self, hash: u64, sign: i64) {
        let sum = &mut self.sums[self.at];
        *sum = sum.wrapping_add(hash.wrapping_mul(sign as u64));
    }

    fn value(&mut self, _: usize, _: &str, hash: u64, sign: i64) {
        self.exists(hash, sign);
    }

    fn digest(&mut self, _: &str) {
        self.unclear[self.at] = true;
    }
}

impl Sums {
    /// The buckets that have to be looked at again, in groups of no more than about `bytes` each.
    pub fn doubtful(&self, bytes: u64) -> Vec<HashSet<usize>> {
        let mut groups: Vec<HashSet<usize>> = Vec::new();
        let mut size = 0;
        for at in (0..BUCKETS).filter(|at| self.sums[*at] != 0 || self.unclear[*at]) {
            if groups.is_empty() || size + self.bytes[at] > bytes {
                groups.push(HashSet::new());
                size = 0;
            }
            size += self.bytes[at];
            if let Some(group) = groups.last_mut() {
                group.insert(at);
            }
        }
        groups
    }
}

/// What is not as it should be of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The table holds it otherwise than the log says.
    Changed,
    /// The log does not know it.
    Added,
    /// The log says that it is there.
    Removed,
    /// The log does not say enough.
    Unknown,
}

impl Verdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Unknown => "unknown",
        }
    }
}

/// A row that is not as the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub verdict: Verdict,
    /// Whose row it is.
    pub tenant: String,
    /// Its key; none if the table has none.
    pub row_key: Option<String>,
    /// In words.
    pub detail: String,
}

/// In order: by tenant and key.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| (&a.tenant, &a.row_key, a.verdict).cmp(&(&b.tenant, &b.row_key, b.verdict)));
}

/// What is left of one row.
#[derive(Default)]
struct Left {
    tenant: String,
    row: String,
    from_log: i64,
    from_table: i64,
    /// The log says how it began.
    began: bool,
    live_seen: bool,
    digests: Vec<String>,
    values: Vec<(usize, u64, i64, Option<Box<str>>)>,
}

/// The second look: what is left, row by row, of some buckets.
pub struct Detail<'a> {
    reader: &'a Reader<'a>,
    buckets: HashSet<usize>,
    rows: HashMap<u64, Left>,
    at: u64,
    live: bool,
}

impl Sink for Detail<'_> {
    fn row(&mut self, key: u64, about: About<'_>) -> bool {
        if !self.buckets.contains(&bucket(key)) {
            return false;
        }
        (self.at, self.live) = (key, about.live);
        let left = self.rows.entry(key).or_default();
        // As it is called now, if it is there.
        if left.row.is_empty() || about.live {
            left.tenant = about.tenant.into();
            left.row = about.row.into();
        }
        left.live_seen |= about.live;
        true
    }

    fn exists(&mut self, _: u64, sign: i64) {
        let live = self.live;
        let left = self.rows.entry(self.at).or_default();
        match live {
            true => left.from_table += 1,
            false => {
                left.from_log += sign;
                left.began |= sign > 0;
            }
        }
    }

    fn value(&mut self, lineage: usize, text: &str, hash: u64, sign: i64) {
        let keep = self.reader.history.form == Some(baseline::Form::Digest);
        let left = self.rows.entry(self.at).or_default();
        match left.values.iter_mut().position(|v| v.0 == lineage && v.1 == hash) {
            Some(at) => {
                left.values[at].2 += sign;
                if left.values[at].2 == 0 {
                    left.values.swap_remove(at);
                }
            }
            None => left.values.push((lineage, hash, sign, keep.then(|| text.into()))),
        }
    }

    fn digest(&mut self, text: &str) {
        self.rows.entry(self.at).or_default().digests.push(text.into());
    }
}

impl<'a> Detail<'a> {
    /// Of those buckets.
    pub fn new(reader: &'a Reader<'a>, buckets: HashSet<usize>) -> Self {
        Self { reader, buckets, rows: HashMap::new(), at: 0, live: false }
    }

    /// What is wrong. `erased`: tenants of whom some entries have lost their row part.
    pub fn findings(self, erased: &HashSet<String>) -> Vec<Finding> {
        let mut found = Vec::new();
        for left in self.rows.into_values() {
            let Some((verdict, detail)) = judge(self.reader, &left) else { continue };
            let (verdict, detail) = match verdict != Verdict::Unknown && erased.contains(&left.tenant) {
                true => {
                    (Verdict::Unknown, format!("{}: {detail}; but entries of this tenant were erased", verdict.word()))
                }
                false => (verdict, detail),
            };
            let row_key = self.reader.keyed.then_some(left.row);
            found.push(Finding { verdict, tenant: left.tenant, row_key, detail });
        }
        found
    }
}

fn judge(reader: &Reader<'_>, left: &Left) -> Option<(Verdict, String)> {
    let history = reader.history;
    let (log, table) = (left.from_log, left.from_table);
    if !reader.keyed {
        let n = (log - table).unsigned_abs();
        return match (log - table, history.is_complete()) {
            (0, _) => None,
            (..0, true) => Some((Verdict::Added, format!("the table holds this row {n} times more than the log says"))),
            (..0, false) => {
                Some((Verdict::Unknown, format!("{n} such rows that the log does not know; no baseline was taken")))
            }
            _ if history.left => {
                Some((Verdict::Unknown, format!("{n} such rows are not in the table; a partition left it")))
            }
            _ => Some((Verdict::Removed, format!("the log says that there are {n} more such rows"))),
        };
    }
    let columns = || {
        let mut names: Vec<&str> = left.values.iter().map(|v| &*history.lineages[v.0].name).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    match (log, table) {
        (1, 1) | (0, 0) if !left.digests.is_empty() => judge_digest(reader, left),
        (1, 1) if left.values.is_empty() => None,
        (1, 1) => Some((Verdict::Changed, format!("columns: {}", columns()))),
        (0, 0) if left.values.is_empty() => None,
        (0, 0) if !left.began && !history.is_complete() => None,
        (0, 0) => Some((
            Verdict::Changed,
            format!("it is not there any more, but between its entries these columns changed: {}", columns()),
        )),
        (1, 0) if history.left => {
            Some((Verdict::Unknown, "it is not in the table; it may have left with a partition".into()))
        }
        (1, 0) => Some((Verdict::Removed, "the log says that it is there".into())),
        (..0, 0) | (0, 1) if !history.is_complete() && !left.began => match table {
            0 => None,
            _ => {
                Some((Verdict::Unknown, "it was there before its table was audited, and no baseline was taken".into()))
            }
        },
        (0, 1) if left.began => Some((Verdict::Added, "the log says that it is gone".into())),
        (0, 1) => Some((Verdict::Added, "the log does not know it".into())),
        (2.., _) if history.left => {
            Some((Verdict::Unknown, "it came more often than it went; it may have left with a partition".into()))
        }
        (2.., _) => Some((Verdict::Removed, format!("it went {} times without an entry", log - table))),
        (..0, _) => Some((Verdict::Added, format!("it came {} times without an entry", table - log))),
        (_, 2..) => Some((Verdict::Added, "there are several rows of this key".into())),
        // One that the match above leaves out is no less wrong.
        _ => Some((Verdict::Changed, format!("the log says {log}, the table {table}"))),
    }
}

/// Whether what is left is what the digest was made of: each column as it was then, taken away once and never given.
fn judge_digest(reader: &Reader<'_>, left: &Left) -> Option<(Verdict, String)> {
    let history = reader.history;
    let [digest] = &left.digests[..] else {
        return Some((Verdict::Changed, "the baseline has several digests of it".into()));
    };
    if let Some(gone) = history.first.iter().find(|c| !history.lineages[c.1].live) {
        let name = &history.lineages[gone.1].name;
        return Some((
            Verdict::Unknown,
            format!("the baseline's digest covers column {name}, which cannot be compared any more"),
        ));
    }
    let mut fields = Vec::new();
    for (lineage, _, count, text) in &left.values {
        let first = history.first.iter().find(|c| c.1 == *lineage);
        let (Some((label, _)), -1, Some(text)) = (first, count, text) else {
            return Some((Verdict::Changed, format!("columns: {}", history.lineages[*lineage].name)));
        };
        if fields.iter().any(|f: &(&str, &str)| f.0 == label) {
            return Some((Verdict::Changed, format!("columns: {}", history.lineages[*lineage].name)));
        }
        fields.push((label, text));
    }
    let made = baseline::salt_of(digest).map(|salt| baseline::digest(&salt, fields));
    match made.as_deref() == Some(&**digest) {
        true => None,
        false => {
            Some((Verdict::Changed, "the row is not what the baseline's digest was made of; columns: not known".into()))
        }
    }
}
