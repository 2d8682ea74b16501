//! From a changed row to what is recorded of it.

use std::rc::Rc;

use custody_core::redact::redacted;

use crate::audit::key;
use crate::audit::table::{self, Table, Treatment};
use crate::audit::transaction::{self, Record, random_uuid};
use crate::error::{Error, Result};
use crate::pg::call::{Call, VOID, value};
use crate::pg::row::{Event, Trigger, Tuple};
use crate::pg::session;
use crate::sql_functions;

sql_functions! {
    custody_capture, pg_finfo_custody_capture => |call: &mut Call| {
        let trigger = call.trigger()?;
        if !trigger.after_row() || !trigger.is_named(c"!custody_capture") {
            return Err(Error::NotRegistered { table: session::relation_name(trigger.relid()) });
        }
        let table = table::of(&trigger)?;
        // Recording may run a query (for the first entry of a session), so the table is not borrowed meanwhile.
        let records = row_changed(&mut table.borrow_mut(), &trigger)?;
        transaction::record(records)?;
        Ok(VOID)
    };
    custody_key_hash, pg_finfo_custody_key_hash => |call: &mut Call| {
        Ok(call.optional::<&str>(0).map(key_hash).and_then(value))
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

/// What the log's index on keys is made of.
fn key_hash(key: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = custody_core::entry::key_hash(key);
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn row_changed(table: &mut Table, trigger: &Trigger<'_>) -> Result<Vec<Record>> {
    let _pinned = table.shape.pin();
    let mut images = Images::of(table)?;
    Ok(match trigger.rows() {
        (None, Some(new)) => {
            let tenant = images.tenant(&new);
            let (row_key, image) = (images.key(&new), images.whole(&new, &tenant));
            vec![images.record("INSERT", tenant, row_key, None, Some(image))]
        }
        (Some(old), None) => {
            let tenant = images.tenant(&old);
            let (row_key, image) = (images.key(&old), images.whole(&old, &tenant));
            vec![images.record("DELETE", tenant, row_key, Some(image), None)]
        }
        (Some(old), Some(new)) => {
            let (from, to) = (images.tenant(&old), images.tenant(&new));
            let (key_before, key_after) = (images.key(&old), images.key(&new));
            if from == to && key_before == key_after {
                let (before, after) = images.changed(&old, &new, &to);
                vec![images.record("UPDATE", to, key_after, Some(before), Some(after))]
            } else {
                let move_id = Some(random_uuid()?);
                let (before, after) = (images.whole(&old, &from), images.whole(&new, &to));
                vec![
                    Record { move_id, ..images.record("MOVE_OUT", from, key_before, Some(before), None) },
                    Record { move_id, ..images.record("MOVE_IN", to, key_after, None, Some(after)) },
                ]
            }
        }
        (None, None) => Vec::new(),
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
        transaction::record([record])
    })?;
    let table = table.borrow();
    let names = (&*table.schema_name, &*table.table_name);
    transaction::record([Record::system("TRUNCATE", Some(names), format!("{{\"rows\":{count}}}"))])
}

/// Makes images of one table's rows. The settings must be pinned.
struct Images<'a> {
    table: &'a mut Table,
    redaction: Option<key::Secret>,
}

impl<'a> Images<'a> {
    fn of(table: &'a mut Table) -> Result<Self> {
        let redaction = match table.treatment.contains(&Treatment::Redacted) {
            true => Some(key::redaction_key(transaction::incarnation()?)?),
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
        let column = self.table.tenant.map(|place| &mut self.table.shape.columns[place]);
        column.and_then(|column| row.text(column)).unwrap_or_default().into()
    }

    /// The primary key, as it stands: never left out or digested, as history is found by it.
    fn key(&mut self, row: &Tuple<'_>) -> Option<String> {
        if self.table.shape.key.is_empty() {
            return None;
        }
        let mut out = String::from("{");
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
        let mut out = String::from("{");
        for place in 0..self.table.shape.columns.len() {
            self.push(&mut out, row, place, tenant);
        }
        out.push('}');
        out
    }

    /// The columns that changed, as before; and the row after, without out-of-line values that stayed where they lay.
    fn changed(&mut self, old: &Tuple<'_>, new: &Tuple<'_>, tenant: &str) -> (String, String) {
        let (mut before, mut after) = (String::from("{"), String::from("{"));
        for place in 0..self.table.shape.columns.len() {
            let column = &self.table.shape.columns[place];
            if old.stores_the_same(new, column) {
                if !new.is_out_of_line(column) {
                    self.push(&mut after, new, place, tenant);
                }
            } else {
                self.push(&mut before, old, place, tenant);
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
                match row.text(column) {
                    None => out.push_str("null"),
                    Some(value) => {
                        let (schema, table) = (&self.table.schema_name, &self.table.table_name);
                        let digest = redacted(key, tenant, schema, table, &column.name, &value);
                        out.push('"');
                        out.push_str(&digest);
                        out.push('"');
                    }
                }
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
