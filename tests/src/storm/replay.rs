//! Plays the log from its beginning: each entry must follow from what is known before it, and the end must be what the tables hold.
//!
//! Columns are known by their attribute number. Which names and types they have is read from the marks (schema.sql), which
//! lie in the log where the definition changed; so an image must have exactly the columns of its moment.

use std::collections::{BTreeMap, HashMap, HashSet};

use postgres::{Client, Error};
use serde_json::{Map, Value};

/// A row, by attribute number.
type Row = BTreeMap<i64, Value>;

/// The tables, with what stays the same of them: the tenant is column 1, and 1 and 2 are the key.
const TABLES: [(&str, &str); 4] =
    [("account", "public"), ("movement", "public"), ("tally", "shop"), ("parted", "shop")];

/// A value that lies out of line need not be in an UPDATE's images; none shorter than this does.
const OUT_OF_LINE: usize = 1500;

/// (number, name, type), in order.
type Columns = Vec<(i64, String, String)>;

#[derive(Default)]
struct Table {
    columns: Columns,
    rows: HashMap<String, Row>,
}

struct Entry {
    op: String,
    tenant: String,
    row_key: Option<Map<String, Value>>,
    old: Option<Map<String, Value>>,
    new: Option<Map<String, Value>>,
}

#[derive(Default)]
struct Replay {
    tables: BTreeMap<&'static str, Table>,
    /// Halves of moves that miss the other.
    moves: HashMap<String, (i64, String)>,
    /// Rows that a TRUNCATE under way has recorded, by transaction and table.
    truncated: HashMap<(i64, &'static str), u64>,
    /// Transactions with a DDL entry.
    defined: HashSet<i64>,
    ordinals: HashSet<(i64, i32)>,
}

/// What does not follow, or is not so.
pub fn replay(client: &mut Client) -> Result<Vec<String>, Error> {
    let entries = client.query(
        "SELECT op, tenant, schema_name, table_name, row_key, old, new, xid::text::bigint, ordinal, move_id::text, lane, seq
         FROM custody.entry ORDER BY lsn, ordinal",
        &[],
    )?;
    let mut replay = Replay::default();
    let mut wrong = Vec::new();
    let image = |text: Option<&str>| text.and_then(|t| serde_json::from_str::<Map<String, Value>>(t).ok());
    for row in &entries {
        let (tenant, lane, seq): (String, i32, i64) = (row.get(1), row.get(10), row.get(11));
        let place = format!("{tenant}/{lane}/{seq}");
        let (schema, table): (Option<&str>, Option<&str>) = (row.get(2), row.get(3));
        let entry = Entry {
            op: row.get(0),
            tenant,
            row_key: image(row.get(4)),
            old: image(row.get(5)),
            new: image(row.get(6)),
        };
        let (xid, ordinal): (i64, i32) = (row.get(7), row.get(8));
        let outcome =
            replay.number(xid, ordinal).and_then(|()| replay.halves(&entry, xid, row.get(9))).and_then(|()| {
                match (schema, table) {
                    (Some(schema), Some(table)) => replay.entry(schema, table, xid, &entry),
                    _ => Ok(()),
                }
            });
        if let Err(what) = outcome {
            wrong.push(format!("{} {} at {place}, transaction {xid}: {what}", entry.op, table.unwrap_or("")));
        }
    }
    wrong.extend(
        replay.moves.iter().map(|(id, half)| format!("{} {id} of transaction {} has no other half", half.1, half.0)),
    );
    for (name, table) in &replay.tables {
        let held = held(client, name, table)?;
        let differing = |key: &&String| held.get(*key) != table.rows.get(*key);
        let keys: HashSet<&String> = held.keys().chain(table.rows.keys()).collect();
        wrong.extend(keys.into_iter().filter(differing).map(|key| {
            format!("{name} {key}: the table holds {:?}, by the log it is {:?}", held.get(key), table.rows.get(key))
        }));
    }
    Ok(wrong)
}

impl Replay {
    fn number(&mut self, xid: i64, ordinal: i32) -> Result<(), String> {
        match self.ordinals.insert((xid, ordinal)) {
            true => Ok(()),
            false => Err(format!("ordinal {ordinal} twice")),
        }
    }

    fn halves(&mut self, entry: &Entry, xid: i64, id: Option<String>) -> Result<(), String> {
        let moves = entry.op.starts_with("MOVE_");
        let Some(id) = id else { return if moves { Err("without a move id".into()) } else { Ok(()) } };
        let expected = (xid, if entry.op == "MOVE_IN" { "MOVE_OUT".to_owned() } else { "MOVE_IN".to_owned() });
        match self.moves.remove(&id) {
            Some(other) if other == expected => Ok(()),
            Some(other) => Err(format!("the other half is {other:?}")),
            None => {
                self.moves.insert(id, (xid, entry.op.clone()));
                if moves { Ok(()) } else { Err("with a move id".into()) }
            }
        }
    }

    fn entry(&mut self, schema: &str, table: &str, xid: i64, entry: &Entry) -> Result<(), String> {
        let (schema, table) = (first_name(schema), first_name(table));
        if entry.op == "DDL" {
            self.defined.insert(xid);
            return Ok(());
        }
        // What is recorded of rows that did not change: check.rs holds it against the tables, by custody.reconcile().
        if entry.op == "SHAPE" || entry.op == "BASELINE" {
            return Ok(());
        }
        if (schema, table) == ("public", "shape") {
            return self.mark(xid, entry);
        }
        let Some(name) = TABLES.iter().find(|t| (t.1, t.0) == (schema, table)).map(|t| t.0) else { return Ok(()) };
        if entry.op == "TRUNCATE" && entry.row_key.is_none() {
            return self.statement(xid, name, entry);
        }
        let known = self.tables.get_mut(name).ok_or("before the first mark of the table")?;
        if entry.op == "TRUNCATE" {
            *self.truncated.entry((xid, name)).or_default() += 1;
        }
        known.change(entry)
    }

    /// The TRUNCATE of one table or partition has recorded all of its rows.
    fn statement(&mut self, xid: i64, name: &'static str, entry: &Entry) -> Result<(), String> {
        let counted = self.truncated.remove(&(xid, name)).unwrap_or(0);
        let said = entry.new.as_ref().and_then(|new| new.get("rows")).and_then(Value::as_u64);
        let left = self.tables.get(name).map_or(0, |t| t.rows.len());
        match (said == Some(counted), name == "parted" || left == 0) {
            (false, _) => Err(format!("says {said:?} rows, but recorded {counted}")),
            (_, false) => Err(format!("{left} rows were not recorded")),
            _ => Ok(()),
        }
    }

    /// The shape of a table from here on; what it does to the rows is known.
    fn mark(&mut self, xid: i64, entry: &Entry) -> Result<(), String> {
        let new = entry.new.as_ref().ok_or("a mark without an image")?;
        let text = |name: &str| new.get(name).and_then(Value::as_str);
        let logical = text("logical").ok_or("a mark of nothing")?;
        let name = TABLES.iter().find(|t| t.0 == logical).ok_or("a mark of an unknown table")?.0;
        let columns: Columns =
            serde_json::from_str(text("columns").ok_or("a mark without columns")?).map_err(|e| e.to_string())?;
        let fill = text("fill").map_or(Value::Null, |f| serde_json::from_str(f).unwrap_or_default());
        let changed = self.tables.get(name).is_some_and(|t| t.columns != columns);
        if changed && !self.defined.contains(&xid) {
            return Err("the definition changed without a DDL entry".into());
        }
        self.tables.entry(name).or_default().reshape(columns, &fill)
    }
}

impl Table {
    fn reshape(&mut self, columns: Columns, fill: &Value) -> Result<(), String> {
        let before = std::mem::replace(&mut self.columns, columns);
        for row in self.rows.values_mut() {
            row.retain(|number, _| self.columns.iter().any(|c| c.0 == *number));
            for (number, _, type_) in &self.columns {
                match before.iter().find(|c| c.0 == *number) {
                    None => _ = row.insert(*number, fill.clone()),
                    Some((_, _, was)) if was != type_ => {
                        let value = row.get_mut(number).ok_or("a column without a value")?;
                        *value = convert(value, type_)?;
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, entry: &Entry) -> Result<(), String> {
        let key = self.key(entry.row_key.as_ref().ok_or("without a key")?)?;
        match (entry.op.as_str(), &entry.old, &entry.new) {
            ("INSERT" | "MOVE_IN", None, Some(new)) => {
                let row = self.whole(new)?;
                belongs(&row, entry)?;
                if key != key_of(&row) {
                    return Err(format!("the key {key} is not that of {row:?}"));
                }
                match self.rows.insert(key, row) {
                    None => Ok(()),
                    Some(before) => Err(format!("there was {before:?}")),
                }
            }
            ("DELETE" | "MOVE_OUT" | "TRUNCATE", Some(old), None) => {
                let row = self.whole(old)?;
                belongs(&row, entry)?;
                match self.rows.remove(&key) {
                    Some(before) if before == row => Ok(()),
                    before => Err(format!("took {row:?}, but there was {before:?}")),
                }
            }
            ("UPDATE", Some(old), Some(new)) => {
                let (old, new) = (self.partial(old)?, self.partial(new)?);
                let Some(row) = self.rows.get_mut(&key) else {
                    return Err(format!("changed {old:?}, but there was no row"));
                };
                let before = row.clone();
                for (number, _, _) in &self.columns {
                    let (Some(was), now) = (before.get(number), new.get(number)) else { continue };
                    match (now, old.get(number)) {
                        (Some(now), None) if now != was => {
                            return Err(format!("column {number} became {now}, of {was}, and old does not say so"));
                        }
                        (_, Some(old)) if old != was => return Err(format!("column {number} was {was}, not {old}")),
                        (None, None) if was.as_str().is_some_and(|was| was.len() >= OUT_OF_LINE) => {}
                        (None, _) => return Err(format!("column {number} is not in new")),
                        (Some(now), _) => _ = row.insert(*number, now.clone()),
                    }
                }
                let row = row.clone();
                belongs(&row, entry)
            }
            (op, old, new) => Err(format!("{op} with {old:?} and {new:?}")),
        }
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let column = self.columns.iter().find(|c| c.1 == name);
        column.map(|c| c.0).ok_or_else(|| format!("\"{name}\" is no column at this moment"))
    }

    fn partial(&self, image: &Map<String, Value>) -> Result<Row, String> {
        image.iter().map(|(name, value)| Ok((self.number(name)?, value.clone()))).collect()
    }

    fn whole(&self, image: &Map<String, Value>) -> Result<Row, String> {
        let row = self.partial(image)?;
        match self.columns.iter().find(|c| !row.contains_key(&c.0)) {
            None => Ok(row),
            Some(missing) => Err(format!("the image lacks \"{}\"", missing.1)),
        }
    }

    fn key(&self, key: &Map<String, Value>) -> Result<String, String> {
        let key = self.partial(key)?;
        match key.keys().eq(&[1, 2]) {
            true => Ok(key_of(&key)),
            false => Err(format!("the key's columns are {key:?}")),
        }
    }
}

fn key_of(row: &Row) -> String {
    format!("{}/{}", row.get(&1).unwrap_or(&Value::Null), row.get(&2).unwrap_or(&Value::Null))
}

fn belongs(row: &Row, entry: &Entry) -> Result<(), String> {
    match row.get(&1).and_then(Value::as_str) == Some(&entry.tenant) {
        true => Ok(()),
        false => Err(format!("in the chain of tenant {:?}, but it is {row:?}", entry.tenant)),
    }
}

/// The name that a table or schema had at first.
fn first_name(name: &str) -> &str {
    name.strip_suffix("_b").unwrap_or(name)
}

fn convert(value: &Value, type_: &str) -> Result<Value, String> {
    Ok(match (value, type_) {
        (Value::Number(n), "text") => Value::String(n.to_string()),
        (Value::String(s), "integer" | "bigint") => Value::Number(s.parse::<i64>().map_err(|e| e.to_string())?.into()),
        (other, _) => other.clone(),
    })
}

/// What a table holds now; a partition that is detached at the moment included.
fn held(client: &mut Client, logical: &str, table: &Table) -> Result<HashMap<String, Row>, Error> {
    let names = client.query(
        "SELECT c.oid::regclass::text, ARRAY(SELECT a.attnum || ' ' || a.attname FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'parted_2_away')
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'shop', 'shop_b')
           AND (c.relname::text IN ($1, $1 || '_b') OR $1 = 'parted' AND c.relname = 'parted_2_away')",
        &[&logical],
    )?;
    let mut rows = HashMap::new();
    for name in &names {
        let columns: Vec<String> = name.get(1);
        let marked = |c: &String| table.columns.iter().any(|m| format!("{} {}", m.0, m.1) == *c);
        assert!(columns.iter().all(marked), "{logical} has the columns {columns:?}, by its marks {:?}", table.columns);
        for row in client.query(&format!("SELECT to_jsonb(t) FROM {} t", name.get::<_, &str>(0)), &[])? {
            let row: Value = row.get(0);
            let row: Row = row
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(n, v)| Some((table.number(n).ok()?, v.clone())))
                .collect();
            rows.insert(key_of(&row), row);
        }
    }
    Ok(rows)
}
