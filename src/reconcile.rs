//! custody.reconcile: a table's rows, held against what the log says they are. One pass over both, and a second look at what is in doubt.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use custody_core::reconcile::baseline::{Form, Names, Shape};
use custody_core::reconcile::history::{Described, History, Position};
use custody_core::reconcile::tally::{Detail, Entry, Finding, OPS, Reader, Secret, Sink, Sums, Untold, Verdict, sort};

use crate::audit::baseline;
use crate::audit::capture::{Only, each_rendered};
use crate::audit::transaction;
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid};
use crate::pg::data::{self, Nulled};
use crate::pg::row::{Hold, hold};
use crate::pg::scan::Row;
use crate::pg::{cursor, session, spi};
use crate::sql_functions;

/// About how much of log and table is held in memory at once, of what is in doubt.
const MEMORY: u64 = 32 << 20;
/// Rows that are listed. What is wrong with more of them than that is one thing, and not one by one.
const LISTED: usize = 100_000;
/// How often a long comparison says how far it is.
const NOTICE_EVERY: Duration = Duration::from_secs(5);

sql_functions! {
    custody_reconcile, pg_finfo_custody_reconcile => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let rows = reconcile(target)?;
        call.return_rows(rows)
    };
}

fn reconcile(target: Oid) -> Result<Vec<Vec<Nulled>>> {
    transaction::flush()?;
    let audited = "SELECT 1 FROM custody.audited_table a WHERE a.target OPERATOR(pg_catalog.=) $1";
    if session::as_owner(|| spi::rows(audited, &[target.into()], |_| Ok(())))?.is_empty() {
        return Err(Error::NotAudited { table: session::relation_name(target) });
    }
    hold(target, Hold::Read);
    let outcome = session::as_owner(|| session::at_one_moment(|| compare(target)))?;
    let summary = vec![data::text(outcome.verdict), None, None, data::text(&outcome.summary)];
    let findings = outcome.findings.iter().map(|f| {
        vec![
            data::text(f.verdict.word()),
            data::text(&f.tenant),
            f.row_key.as_deref().and_then(data::text),
            data::text(&f.detail),
        ]
    });
    Ok(std::iter::once(summary).chain(findings).collect())
}

struct Outcome {
    verdict: &'static str,
    summary: String,
    findings: Vec<Finding>,
}

/// A table and its log, at one moment.
struct Sides<'a> {
    reader: Reader<'a>,
    lives: HashMap<Uuid, u32>,
    holders: Vec<Oid>,
    redaction: Only<'a>,
    told: Instant,
}

/// What one pass over both sides saw.
#[derive(Default)]
struct Seen {
    rows: u64,
    entries: u64,
    erased: HashSet<String>,
    erased_entries: u64,
    unreadable: u64,
    out_of_line: u64,
}

impl Sides<'_> {
    fn pass(&mut self, sink: &mut impl Sink) -> Result<Seen> {
        const ENTRIES: &str = "SELECT e.incarnation, e.lsn, e.ordinal, e.xid, e.op, e.tenant, e.schema_name, e.table_name, e.row_key, e.old, e.new
            FROM custody.entry e
            WHERE e.table_name OPERATOR(pg_catalog.=) ANY ($1) AND e.schema_name OPERATOR(pg_catalog.=) ANY ($2) AND e.op OPERATOR(pg_catalog.=) ANY ($3)";
        let names = self.reader.history.names();
        let tables: Vec<String> = names.iter().map(|n| n.table.clone()).collect();
        let schemas: Vec<String> = names.iter().map(|n| n.schema.clone()).collect();
        let ops: Vec<String> = OPS.iter().map(|o| (*o).to_owned()).collect();
        let mut seen = Seen::default();
        let (lives, reader, told) = (&self.lives, &self.reader, &mut self.told);
        cursor::each_row(ENTRIES, &[tables.into(), schemas.into(), ops.into()], |row| {
            let entry = Entry {
                at: position(row, lives),
                xid: row.get::<i64>(4).unwrap_or_default() as u64,
                op: row.text(5).unwrap_or_default(),
                tenant: row.text(6).unwrap_or_default(),
                schema: row.text(7).unwrap_or_default(),
                table: row.text(8).unwrap_or_default(),
                row_key: row.text(9),
                old: row.text(10),
                new: row.text(11),
            };
            if !reader.history.counts(entry.at, entry.xid, entry.schema, entry.table) {
                return Ok(());
            }
            seen.entries += 1;
            match reader.entry(&entry, sink) {
                Ok(()) => {}
                Err(Untold::Erased) => {
                    seen.erased_entries += 1;
                    if !seen.erased.contains(entry.tenant) {
                        seen.erased.insert(entry.tenant.to_owned());
                    }
                }
                Err(Untold::Unreadable) => seen.unreadable += 1,
                Err(Untold::OutOfLine) => seen.out_of_line += 1,
            }
            tell(told, || format!("read {} entries of the log so far", seen.entries));
            Ok(())
        })?;
        for relid in &self.holders {
            each_rendered(*relid, &self.redaction, |row| {
                seen.rows += 1;
                if !reader.live(row.tenant, row.row_key, row.image, sink) {
                    seen.unreadable += 1;
                }
                tell(told, || format!("read {} entries of the log, and {} rows so far", seen.entries, seen.rows));
                Ok(true)
            })?;
        }
        Ok(seen)
    }
}

fn tell(told: &mut Instant, what: impl FnOnce() -> String) {
    if told.elapsed() > NOTICE_EVERY {
        *told = Instant::now();
        session::notice(&what());
    }
}

fn position(row: &Row<'_>, lives: &HashMap<Uuid, u32>) -> Position {
    Position {
        life: row.uuid(1).and_then(|id| lives.get(&id).copied()).unwrap_or(0),
        lsn: row.get::<i64>(2).unwrap_or_default() as u64,
        ordinal: row.get::<i32>(3).unwrap_or_default().into(),
    }
}

/// All `SHAPE` entries, in order.
fn shapes(lives: &HashMap<Uuid, u32>) -> Result<Vec<Described>> {
    const SHAPES: &str =
        "SELECT e.incarnation, e.lsn, e.ordinal, e.xid, e.schema_name, e.table_name, e.new FROM custody.entry e
        WHERE e.op OPERATOR(pg_catalog.=) 'SHAPE' AND e.tenant OPERATOR(pg_catalog.=) ''";
    let mut shapes = Vec::new();
    cursor::each_row(SHAPES, &[], |row| {
        let name = |n| row.text(n).unwrap_or_default().to_owned();
        // One that does not read says nothing; then columns or rows are missing, and that is said.
        if let Some(shape) = row.text(7).and_then(|text| serde_json::from_str::<Shape>(text).ok()) {
            shapes.push(Described {
                at: position(row, lives),
                xid: row.get::<i64>(4).unwrap_or_default() as u64,
                names: Names { schema: name(5), table: name(6) },
                shape,
            });
        }
        Ok(())
    })?;
    shapes.sort_by_key(|s| s.at);
    Ok(shapes)
}

fn compare(target: Oid) -> Result<Outcome> {
    let uuid = |row: &pgrx::spi::SpiHeapTupleData<'_>| row.get::<pgrx::Uuid>(1);
    let lives = spi::rows("SELECT i.id FROM custody.incarnation i ORDER BY i.started_at, i.id", &[], uuid)?;
    let lives: HashMap<Uuid, u32> =
        lives.into_iter().flatten().zip(1..).map(|(id, rank)| (Uuid::from_bytes(*id.as_bytes()), rank)).collect();
    const TABLE: &str = "SELECT n.schema_name::text, n.table_name::text, n.partitions::oid[], c.relkind::text,
          ARRAY(SELECT x ->> 'name' FROM pg_catalog.jsonb_array_elements(n.columns) x WHERE x ->> 'treatment' OPERATOR(pg_catalog.=) 'stored'),
          ARRAY(SELECT x ->> 'name' FROM pg_catalog.jsonb_array_elements(n.columns) x WHERE x ->> 'treatment' OPERATOR(pg_catalog.=) 'redacted'),
          ARRAY(SELECT x ->> 'name' FROM pg_catalog.jsonb_array_elements(n.columns) x WHERE x ->> 'treatment' OPERATOR(pg_catalog.=) 'excluded'),
          pg_catalog.jsonb_array_length(n.key),
          (SELECT pg_catalog.count(*) FROM custody.capture_gap g WHERE g.root OPERATOR(pg_catalog.=) n.target)
        FROM custody.shape_now n JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) n.target WHERE n.target OPERATOR(pg_catalog.=) $1";
    let found = spi::rows(TABLE, &[target.into()], |row| {
        let list = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<Vec<String>>(n)?.unwrap_or_default());
        let names = Names { schema: row.get(1)?.unwrap_or_default(), table: row.get(2)?.unwrap_or_default() };
        let partitions = row.get::<Vec<Oid>>(3)?.unwrap_or_default();
        let holders = if row.get::<String>(4)?.as_deref() == Some("p") { partitions } else { vec![target] };
        let (keyed, gaps) = (row.get::<i32>(8)?.unwrap_or(0) > 0, row.get::<i64>(9)?.unwrap_or(0));
        Ok((names, holders, list(5)?, list(6)?, list(7)?, keyed, gaps))
    })?;
    let Some((names, holders, stored, redacted, excluded, keyed, gaps)) = found.into_iter().next() else {
        return Err(Error::NotAudited { table: session::relation_name(target) });
    };
    let redaction = if redacted.is_empty() { None } else { baseline::redaction()? };
    let mut live = stored;
    if redaction.is_some() {
        live.extend(redacted.iter().cloned());
    }
    let history = History::new(&shapes(&lives)?, &names, &live);
    let secret = Secret::default();
    let reader = Reader { history: &history, keyed, secret: &secret };
    let blind = redaction.is_none() && !redacted.is_empty();
    let mut sides =
        Sides { reader, lives, holders, redaction: Only { columns: None, redaction }, told: Instant::now() };
    let mut sums = Sums::default();
    let seen = sides.pass(&mut sums)?;
    let doubtful = sums.doubtful(MEMORY);
    drop(sums);
    let (looks, mut looked, mut findings) = (doubtful.len(), 0, Vec::new());
    for buckets in doubtful {
        if findings.len() >= LISTED {
            break;
        }
        let reader = Reader { history: &history, keyed, secret: &secret };
        let mut detail = Detail::new(&reader, buckets);
        sides.pass(&mut detail)?;
        findings.append(&mut detail.findings(&seen.erased));
        looked += 1;
        let count = findings.len();
        tell(&mut sides.told, || format!("looked again at {looked} of {looks} parts, found {count} rows so far"));
    }
    sort(&mut findings);
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (changed, added, removed) = (count(Verdict::Changed), count(Verdict::Added), count(Verdict::Removed));
    let unknown = count(Verdict::Unknown);
    let missing: Vec<String> = history.missing.iter().filter(|m| !(blind && redacted.contains(m))).cloned().collect();
    let mut unsure = Vec::new();
    let mut notes = Vec::new();
    match history.form {
        Some(Form::Rows) => {}
        Some(Form::Digest) => notes.push("the baseline holds digests".to_owned()),
        _ => notes
            .push("no baseline was taken: rows that were there before cannot be judged (custody.baseline)".to_owned()),
    }
    if !excluded.is_empty() {
        notes.push(format!("excluded, not compared: {}", excluded.join(", ")));
    }
    if blind {
        unsure.push(format!(
            "the redaction key is another than it was, or not at hand; not compared: {}",
            redacted.join(", ")
        ));
    }
    if !history.unknown.is_empty() {
        unsure.push(format!("columns that the log does not know, not compared: {}", history.unknown.join(", ")));
    }
    if !missing.is_empty() {
        unsure.push(format!("columns that the log knows and the table has not: {}", missing.join(", ")));
    }
    if seen.erased_entries > 0 {
        notes.push(format!("{} entries were erased, of {} tenants", seen.erased_entries, seen.erased.len()));
    }
    if seen.unreadable > 0 {
        unsure.push(format!("{} entries or rows could not be read", seen.unreadable));
    }
    if seen.out_of_line > 0 {
        unsure.push(format!("{} updates say too little, as the table has no primary key", seen.out_of_line));
    }
    if gaps > 0 {
        unsure.push("changes are not recorded now (custody.capture_gap)".to_owned());
    }
    if looked < looks {
        unsure.push(format!("only {looked} of {looks} parts were looked at row by row: there is more"));
    }
    let verdict = match (changed + added + removed, unknown + unsure.len()) {
        (0, 0) => "clean",
        (0, _) => "undecided",
        _ => "differs",
    };
    let mut summary = format!(
        "{} rows held against {} entries: {changed} changed, {added} added, {removed} removed, {unknown} unknown",
        seen.rows, seen.entries
    );
    for note in unsure.iter().chain(&notes) {
        summary += "; ";
        summary += note;
    }
    Ok(Outcome { verdict, summary, findings })
}
