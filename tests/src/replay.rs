//! Whether a table is what the log says: its entries replayed, and every value read back from its text, byte for byte.

use std::collections::BTreeMap;

use crate::Session;

/// A row by its columns' texts, as `image ->> column` gives them.
type Image = BTreeMap<String, Option<String>>;

/// What one entry says of a table.
#[derive(Clone, Debug)]
struct Change {
    op: String,
    tenant: String,
    key: Option<String>,
    old: Option<Image>,
    new: Option<Image>,
}

/// A table made again from its entries: rows, with the keys they are known by.
#[derive(Default)]
struct Rebuilt(Vec<(Option<String>, Image)>);

/// Asserts that a table holds what its entries say, each value the same in text and in its type's binary form, through the
/// record (`custody.entry`, json) and through the view that people read (jsonb). Gives the ops, in order, but for SHAPE.
///
/// The session's settings are reset: it is for reading alone.
pub fn assert_replays(s: &mut Session, table: &str) -> Vec<String> {
    s.batch("RESET ALL; RESET SESSION AUTHORIZATION; SET search_path = pg_catalog; SET extra_float_digits = 3; SET xmloption = content; SET lc_monetary = 'C'");
    let columns = columns(s, table);
    let mut ops = Vec::new();
    for json in ["json", "jsonb"] {
        let changes = changes(s, table, json);
        let mut rebuilt = Rebuilt::default();
        for (n, change) in changes.iter().enumerate() {
            if let Err(why) = rebuilt.apply(change) {
                panic!("{table}: entry {n} does not replay: {why}\n{change:?}");
            }
        }
        rebuilt.assert_is(s, table, &columns, json);
        ops = changes.into_iter().map(|c| c.op).filter(|op| op != "SHAPE").collect();
    }
    ops
}

impl Rebuilt {
    fn apply(&mut self, change: &Change) -> Result<(), String> {
        match (change.op.as_str(), &change.old, &change.new) {
            ("INSERT" | "MOVE_IN", None, Some(new)) => {
                if change.key.is_some() && self.0.iter().any(|(key, _)| *key == change.key) {
                    return Err("the key is there already".into());
                }
                self.0.push((change.key.clone(), new.clone()));
            }
            // Its history starts anew.
            ("SHAPE", None, Some(new)) if change.tenant.is_empty() => {
                if new.get("covers").and_then(Option::as_deref) == Some("table") {
                    self.0.clear();
                }
            }
            // A row that was there; or, of one that is known, what became of some columns.
            ("BASELINE", None, Some(new)) => {
                match self.0.iter().position(|(key, _)| key.is_some() && *key == change.key) {
                    Some(known) => self.0[known].1.extend(new.clone()),
                    None => self.0.push((change.key.clone(), new.clone())),
                }
            }
            ("DELETE" | "MOVE_OUT" | "TRUNCATE", Some(old), None) => {
                let place = self.find(change, old)?;
                self.0.remove(place);
            }
            ("UPDATE", Some(old), Some(new)) => {
                let mut before = new.clone();
                before.extend(old.clone());
                let place = self.find(change, &before)?;
                self.0[place].1.extend(new.clone());
            }
            // The statement itself, in the system chain.
            ("TRUNCATE", None, Some(_)) | ("DDL" | "CAPTURE_OFF" | "CAPTURE_ON", ..) if change.tenant.is_empty() => {}
            _ => return Err("no such op with such images".into()),
        }
        Ok(())
    }

    /// The row that an entry speaks of: by its key, and then it must be as the entry says; or else one that is.
    fn find(&self, change: &Change, before: &Image) -> Result<usize, String> {
        let agrees = |row: &Image| before.iter().all(|(name, value)| row.get(name).is_none_or(|known| known == value));
        let place = match &change.key {
            Some(_) => self.0.iter().position(|(key, _)| *key == change.key),
            None => self.0.iter().position(|(_, row)| agrees(row)),
        };
        let place = place.ok_or("there is no such row")?;
        match agrees(&self.0[place].1) {
            true => Ok(place),
            false => Err(format!("the row was {:?}", self.0[place].1)),
        }
    }

    fn assert_is(&self, s: &mut Session, table: &str, columns: &[Column], json: &str) {
        assert_eq!(self.0.len() as i64, s.count(table), "{table}: rows replayed and rows there");
        let mut replayed: Vec<Vec<Option<String>>> = vec![Vec::new(); self.0.len()];
        for column in columns {
            let texts: Vec<Option<&str>> = self
                .0
                .iter()
                .map(|(_, row)| match row.get(&column.name) {
                    Some(text) => text.as_deref(),
                    None => panic!("{table}: no image has the column {:?} of {row:?}", column.name),
                })
                .collect();
            let sql = format!(
                "SELECT {} FROM unnest($1::text[]) WITH ORDINALITY AS t (v, n) ORDER BY n",
                column.forms(&format!("(t.v)::{}", column.kind))
            );
            for (row, forms) in replayed.iter_mut().zip(s.rows(&sql, &[&texts])) {
                row.extend([forms.get(0), forms.get(1)]);
            }
        }
        // Few columns at a time, as a table may have as many as a result may.
        let mut stored: Vec<Vec<Option<String>>> = vec![Vec::new(); self.0.len()];
        for some in columns.chunks(400) {
            let forms: Vec<String> = some.iter().map(|c| c.forms(&format!("t.{}", c.quoted))).collect();
            let sql = format!("SELECT {} FROM {table} t ORDER BY t.tableoid, t.ctid", forms.join(", "));
            for (row, found) in stored.iter_mut().zip(s.rows(&sql, &[])) {
                row.extend((0..found.len()).map(|i| found.get::<_, Option<String>>(i)));
            }
        }
        replayed.sort();
        stored.sort();
        for (replayed, stored) in replayed.iter().zip(&stored) {
            for (i, (replayed, stored)) in replayed.iter().zip(stored).enumerate() {
                let column = &columns[i / 2];
                assert_eq!(replayed, stored, "{table}.{} {} read back from {json}", column.name, column.kind);
            }
        }
        assert_eq!(replayed.len(), stored.len());
    }
}

/// A column, and how its values are compared.
struct Column {
    name: String,
    quoted: String,
    kind: String,
    send: Option<String>,
}

impl Column {
    /// A value's text and its binary form, as two expressions.
    fn forms(&self, value: &str) -> String {
        let binary = self.send.as_ref().map_or("NULL".into(), |send| format!("encode({send}({value}), 'hex')"));
        format!("({value})::text, {binary}")
    }
}

fn columns(s: &mut Session, table: &str) -> Vec<Column> {
    // A refcursor has another type's send function.
    let sql = "SELECT a.attname::text, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
          CASE WHEN t.typsend <> 0 AND t.oid <> 'refcursor'::regtype THEN t.typsend::regproc::text END
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    s.rows(sql, &[&table])
        .iter()
        .map(|r| Column { name: r.get(0), quoted: r.get(1), kind: r.get(2), send: r.get(3) })
        .collect()
}

fn changes(s: &mut Session, table: &str, json: &str) -> Vec<Change> {
    let sql = format!(
        "SELECT e.op, e.tenant, e.row_key,
           (SELECT array_agg(key ORDER BY n) FROM {json}_each_text(e.old::{json}) WITH ORDINALITY AS i (key, value, n)), e.old IS NULL,
           (SELECT array_agg(value ORDER BY n) FROM {json}_each_text(e.old::{json}) WITH ORDINALITY AS i (key, value, n)),
           (SELECT array_agg(key ORDER BY n) FROM {json}_each_text(e.new::{json}) WITH ORDINALITY AS i (key, value, n)), e.new IS NULL,
           (SELECT array_agg(value ORDER BY n) FROM {json}_each_text(e.new::{json}) WITH ORDINALITY AS i (key, value, n))
         FROM custody.entry e JOIN pg_namespace n ON n.nspname = e.schema_name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = e.table_name
         WHERE c.oid = $1::text::regclass
         ORDER BY e.lsn, e.ordinal"
    );
    s.rows(&sql, &[&table])
        .iter()
        .map(|r| {
            let image = |at: usize| {
                let names: Vec<String> = r.get::<_, Option<_>>(at).unwrap_or_default();
                let values: Vec<Option<String>> = r.get::<_, Option<_>>(at + 2).unwrap_or_default();
                (!r.get::<_, bool>(at + 1)).then(|| names.into_iter().zip(values).collect())
            };
            Change { op: r.get(0), tenant: r.get(1), key: r.get(2), old: image(3), new: image(6) }
        })
        .collect()
}
