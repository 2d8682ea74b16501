//! From a changed row to what is recorded of it.

use std::cell::RefCell;
use std::rc::Rc;

use custody_core::redact::redacted;

use crate::audit::key;
use crate::audit::table::{self, Table, Treatment};
use crate::audit::transaction::{self, Record, random_uuid};
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID, value};
use crate::pg::row::{Event, Open, Trigger, Tuple};
use crate::pg::session;
use crate::sql_functions;

sql_functions! {
    custody_capture, pg_finfo_custody_capture => |call: &mut Call| {
        let trigger = call.trigger()?;
        if !trigger.after_row() || !trigger.is_named(c"!custody_capture") {
            return Err(Error::NotRegistered { table: session::relation_name(trigger.relid()) });
        }
        let table = table::of(&trigger)?;
        if table.borrow().configures {
            session::invalidate(trigger.relid());
        }
        // Recording may run a query (for the first entry of a session), so the table is not borrowed meanwhile.
        let records = row_changed(&mut table.borrow_mut(), &trigger)?;
        transaction::record(records.iter().flatten())?;
        records.into_iter().flatten().for_each(recycle);
        Ok(VOID)
    };
    custody_key_hash, pg_finfo_custody_key_hash => |call: &mut Call| {
        Ok(call.optional::<&str>(0).map(custody_core::entry::key_hash).and_then(value))
    };
    custody_capture_truncate, pg_finfo_custody_capture_truncate => |call: &mut Call| {
        let trigger = call.trigger()?;
        if trigger.event() != Event::Truncate || !trigger.is_named(c"!custody_truncate") || !trigger.holds_rows() {
            return Err(Error::NotRegistered { table: session::relation_name(trigger.relid()) });
        }
        match truncated(&trigger) {
            // A partition that was detached keeps its statement trigger, and is nobody's business any more.
            Err(Error::NotRegistered { .. }) => {}
            outcome => outcome?,
        }
        Ok(VOID)
    };
}

thread_local! {
    /// Buffers of images that have been recorded, for the next ones.
    static BUFFERS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn buffer() -> String {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_back(mut buffer: String) {
    const KEPT: usize = 64 << 10;
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
}

fn recycle(record: Record) {
    [record.row_key, record.old, record.new].into_iter().flatten().for_each(give_back);
}

/// What is to be recorded of the change: one fact, or two if the row moved.
fn row_changed(table: &mut Table, trigger: &Trigger<'_>) -> Result<[Option<Record>; 2]> {
    let _pinned = table.shape.pin();
    let mut images = Images::of(table)?;
    Ok(match trigger.rows() {
        (None, Some(new)) => {
            let tenant = images.tenant(&new);
            let (row_key, image) = (images.key(&new), images.whole(&new, &tenant));
            [Some(images.record("INSERT", tenant, row_key, None, Some(image))), None]
        }
        (Some(old), None) => {
            let tenant = images.tenant(&old);
            let (row_key, image) = (images.key(&old), images.whole(&old, &tenant));
            [Some(images.record("DELETE", tenant, row_key, Some(image), None)), None]
        }
        (Some(old), Some(new)) => {
            let (from, to) = (images.tenant(&old), images.tenant(&new));
            let (key_before, key_after) = (images.key(&old), images.key(&new));
            if crate::settings::sabotaged("lost_update") && from == to && key_before == key_after {
                [None, None]
            } else if from == to && key_before == key_after {
                let (before, after) = images.changed(&old, &new, &to);
                [Some(images.record("UPDATE", to, key_after, Some(before), Some(after))), None]
            } else {
                let move_id = Some(random_uuid()?);
                let (before, after) = (images.whole(&old, &from), images.whole(&new, &to));
                let to = if crate::settings::sabotaged("wrong_tenant") { from.clone() } else { to };
                let arrived = images.record("MOVE_IN", to, key_after, None, Some(after));
                [
                    Some(Record { move_id, ..images.record("MOVE_OUT", from, key_before, Some(before), None) }),
                    (!crate::settings::sabotaged("lost_move")).then_some(Record { move_id, ..arrived }),
                ]
            }
        }
        (None, None) => [None, None],
    })
}

/// Records each row that is about to go, and then the statement itself.
fn truncated(trigger: &Trigger<'_>) -> Result<()> {
    let table = table::of(trigger)?;
    let mut count = 0u64;
    trigger.each_row(|row| {
        let record = {
            let table = &mut table.borrow_mut();
            let _pinned = table.shape.pin();
            let mut images = Images::of(table)?;
            let tenant = images.tenant(&row);
            let (row_key, image) = (images.key(&row), images.whole(&row, &tenant));
            images.record("TRUNCATE", tenant, row_key, Some(image), None)
        };
        count += 1;
        transaction::record([&record])?;
        recycle(record);
        Ok(())
    })?;
    let table = table.borrow();
    let names = (&*table.schema_name, &*table.table_name);
    transaction::record([Record::system("TRUNCATE", Some(names), format!("{{\"rows\":{count}}}"))])
}

/// A row as it would be recorded.
pub struct Rendered<'a> {
    /// Whose it is.
    pub tenant: &'a Rc<str>,
    /// Its key.
    pub row_key: Option<&'a str>,
    /// Its image.
    pub image: &'a str,
}

/// Which columns an image has, and how those are digested that are.
pub struct Only<'a> {
    /// These columns; all, if none are given.
    pub columns: Option<&'a [String]>,
    /// The redaction key; without it redacted columns are left out.
    pub redaction: Option<key::Secret>,
}

/// Renders every row that lies in a table itself, as the active snapshot sees it, until `each` says that it is enough.
pub fn each_rendered(relid: Oid, only: &Only<'_>, mut each: impl FnMut(Rendered<'_>) -> Result<bool>) -> Result<()> {
    let open = Open::table(relid);
    let mut table = Table::look_up(relid, open.shape())?;
    for (place, column) in table.shape.columns.iter().enumerate() {
        let wanted = only.columns.is_none_or(|names| names.iter().any(|n| **n == *column.name));
        let blind = table.treatment[place] == Treatment::Redacted && only.redaction.is_none();
        if !wanted || blind {
            table.treatment[place] = Treatment::Excluded;
        }
    }
    open.each_row(|row| {
        let (tenant, row_key, image) = {
            let _pinned = table.shape.pin();
            let mut images = Images { table: &mut table, redaction: only.redaction.clone() };
            let tenant = images.tenant(&row);
            let (row_key, image) = (images.key(&row), images.whole(&row, &tenant));
            (tenant, row_key, image)
        };
        let goes_on = each(Rendered { tenant: &tenant, row_key: row_key.as_deref(), image: &image });
        row_key.into_iter().chain([image]).for_each(give_back);
        goes_on
    })
}

/// Makes images of one table's rows. The settings must be pinned.
struct Images<'a> {
    table: &'a mut Table,
    redaction: Option<key::Secret>,
}

impl<'a> Images<'a> {
    fn of(table: &'a mut Table) -> Result<Self> {
        let redaction = match table.treatment.contains(&Treatment::Redacted) {
            true => Some(transaction::redaction_key()?),
            false => None,
        };
        Ok(Self { table, redaction })
    }

    fn record(
        &self,
        op: &'static str,
        tenant: Rc<str>,
        row_key: Option<String>,
        old: Option<String>,
        new: Option<String>,
    ) -> Record {
        let (schema_name, table_name) = (Some(self.table.schema_name.clone()), Some(self.table.table_name.clone()));
        Record { tenant, op, schema_name, table_name, move_id: None, row_key, old, new }
    }

    /// Whose row it is; the system's, if the table has no tenant column or the row no tenant.
    fn tenant(&mut self, row: &Tuple<'_>) -> Rc<str> {
        let mut text = buffer();
        if let Some(place) = self.table.tenant {
            row.push_text(&mut self.table.shape.columns[place], &mut text);
        }
        if *self.table.last_tenant != *text {
            self.table.last_tenant = text.as_str().into();
        }
        give_back(text);
        self.table.last_tenant.clone()
    }

    /// The primary key, as it stands: never left out or digested, as history is found by it.
    fn key(&mut self, row: &Tuple<'_>) -> Option<String> {
        if self.table.shape.key.is_empty() {
            return None;
        }
        let mut out = buffer();
        out.push('{');
        let shape = &mut self.table.shape;
        for place in &shape.key {
            let column = &mut shape.columns[*place];
            separate(&mut out);
            out.push_str(&column.label);
            row.push_json(column, &mut out);
        }
        out.push('}');
        Some(out)
    }

    fn whole(&mut self, row: &Tuple<'_>, tenant: &str) -> String {
        let mut out = buffer();
        out.push('{');
        for place in 0..self.table.shape.columns.len() {
            self.push(&mut out, row, place, tenant);
        }
        out.push('}');
        out
    }

    /// The columns that changed, as before; and the row after, without out-of-line values that stayed where they lay.
    fn changed(&mut self, old: &Tuple<'_>, new: &Tuple<'_>, tenant: &str) -> (String, String) {
        let (mut before, mut after) = (buffer(), buffer());
        before.push('{');
        after.push('{');
        for place in 0..self.table.shape.columns.len() {
            let column = &self.table.shape.columns[place];
            if old.stores_the_same(new, column) {
                if !new.is_out_of_line(column) {
                    self.push(&mut after, new, place, tenant);
                }
            } else {
                if before.len() < 2 || !crate::settings::sabotaged("old_image_wrong") {
                    self.push(&mut before, old, place, tenant);
                }
                self.push(&mut after, new, place, tenant);
            }
        }
        before.push('}');
        after.push('}');
        (before, after)
    }

    fn push(&mut self, out: &mut String, row: &Tuple<'_>, place: usize, tenant: &str) {
        let column = &mut self.table.shape.columns[place];
        match (self.table.treatment[place], &self.redaction) {
            (Treatment::Excluded, _) => {}
            (Treatment::Redacted, Some(key)) => {
                separate(out);
                out.push_str(&column.label);
                let mut value = buffer();
                if row.push_text(column, &mut value) {
                    let (schema, table) = (&self.table.schema_name, &self.table.table_name);
                    out.push('"');
                    out.push_str(&redacted(key, tenant, schema, table, &column.name, &value));
                    out.push('"');
                } else {
                    out.push_str("null");
                }
                give_back(value);
            }
            _ => {
                separate(out);
                out.push_str(&column.label);
                row.push_json(column, out);
            }
        }
    }
}

fn separate(out: &mut String) {
    if out.len() > 1 {
        out.push(',');
    }
}
