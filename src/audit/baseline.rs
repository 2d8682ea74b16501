//! Where a table's history starts, and how it goes on over changes of its definition: `SHAPE` and `BASELINE` entries.

use custody_core::json;
use custody_core::reconcile::baseline::{self, Column, Covers, Form, Names, Shape};
use serde::Deserialize;

use crate::audit::capture::{Only, each_rendered};
use crate::audit::transaction::{self, Record};
use crate::audit::{incarnation, key};
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, value};
use crate::pg::row::{Hold, hold};
use crate::pg::{scan, session, spi};
use crate::sql_functions;
use crate::tenant::protect::owned;

sql_functions! {
    custody_baseline, pg_finfo_custody_baseline => |call: &mut Call| {
        let target: Oid = call.required(0, "target")?;
        let form = form(&call.required::<String>(1, "form")?, "form")?;
        owned(target)?;
        if known(target)?.is_none() {
            return Err(Error::NotAudited { table: session::relation_name(target) });
        }
        Ok(value(start(target, form)? as i64))
    };
}

/// How rows are to be held, by its word.
pub fn form(word: &str, argument: &'static str) -> Result<Form> {
    match word {
        "rows" => Ok(Form::Rows),
        "digest" => Ok(Form::Digest),
        "none" => Ok(Form::None),
        _ => Err(Error::BadArgument { name: argument, why: "must be rows, digest or none".into() }),
    }
}

/// Whether this installation has them: one of 0.1.0 has not.
pub fn are_kept() -> bool {
    scan::our_table("shape_now").is_some()
}

/// A column, as the catalogs have it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Attribute {
    number: i16,
    name: String,
    kind: u32,
    modifier: i32,
    /// stored, redacted or excluded
    treatment: String,
}

impl Attribute {
    fn is_stored(&self) -> bool {
        self.treatment == "stored"
    }

    fn is_in_images(&self) -> bool {
        self.treatment != "excluded"
    }

    /// Whether values of `before` print as they did.
    fn prints_like(&self, before: &Self) -> bool {
        const INTEGERS: [u32; 3] = [20, 21, 23];
        const TEXTS: [u32; 2] = [25, 1043];
        let same = self.kind == before.kind && self.modifier == before.modifier;
        let widened = self.modifier == -1 || (before.modifier != -1 && self.modifier >= before.modifier);
        same || [self, before].iter().all(|a| INTEGERS.contains(&a.kind))
            || [self, before].iter().all(|a| TEXTS.contains(&a.kind)) && widened
    }
}

/// A table's definition, as far as images depend on it.
#[derive(Clone, Debug)]
struct Definition {
    names: Names,
    columns: Vec<Attribute>,
    /// Numbers of the primary key's columns.
    key: Vec<i16>,
    /// Its partitions that hold rows.
    partitions: Vec<u32>,
}

const NOW: &str = "n.schema_name::text, n.table_name::text, n.columns, n.key, n.partitions::oid[]";
const BEFORE: &str =
    "s.schema_name::text, s.table_name::text, s.columns, s.key, s.partitions::oid[], s.departed::oid[]";

type Row<'a> = pgrx::spi::SpiHeapTupleData<'a>;

fn definition(row: &Row<'_>, from: usize) -> std::result::Result<Option<Definition>, pgrx::spi::SpiError> {
    let Some(schema) = row.get::<String>(from)? else { return Ok(None) };
    let names = Names { schema, table: row.get(from + 1)?.unwrap_or_default() };
    let read = |json: Option<pgrx::JsonB>| json.map(|j| j.0).unwrap_or_default();
    let columns = serde_json::from_value(read(row.get(from + 2)?)).unwrap_or_default();
    let key = serde_json::from_value(read(row.get(from + 3)?)).unwrap_or_default();
    let oids = row.get::<Vec<Oid>>(from + 4)?.unwrap_or_default();
    Ok(Some(Definition { names, columns, key, partitions: oids.into_iter().map(|o| o.to_u32()).collect() }))
}

fn as_it_is(target: Oid) -> Result<Option<Definition>> {
    let sql = format!("SELECT {NOW} FROM custody.shape_now n WHERE n.target OPERATOR(pg_catalog.=) $1");
    let found = session::as_owner(|| spi::rows_now(&sql, &[target.into()], |row| definition(row, 1)))?;
    Ok(found.into_iter().next().flatten())
}

/// Whether the table is audited, and its shape has been taken down.
fn known(target: Oid) -> Result<Option<()>> {
    let sql = "SELECT 1 FROM custody.audited_table a WHERE a.target OPERATOR(pg_catalog.=) $1";
    Ok(session::as_owner(|| spi::rows_now(sql, &[target.into()], |_| Ok(())))?.pop())
}

/// The table is not audited any more.
pub fn forget(target: Option<Oid>) -> Result<()> {
    match are_kept() {
        true => {
            spi::run("DELETE FROM custody.recorded_shape s WHERE s.target OPERATOR(pg_catalog.=) $1", &[target.into()])
        }
        false => Ok(()),
    }
}

fn remember(target: Oid, departed: &[u32]) -> Result<()> {
    let departed: Vec<Oid> = departed.iter().map(|o| Oid::from(*o)).collect();
    session::as_owner(|| {
        spi::run(
            "INSERT INTO custody.recorded_shape (target, schema_name, table_name, columns, key, partitions, departed)
             SELECT n.target, n.schema_name, n.table_name, n.columns, n.key, n.partitions, $2 FROM custody.shape_now n WHERE n.target OPERATOR(pg_catalog.=) $1
             ON CONFLICT ON CONSTRAINT recorded_shape_pkey DO UPDATE SET schema_name = excluded.schema_name, table_name = excluded.table_name,
               columns = excluded.columns, key = excluded.key, partitions = excluded.partitions, departed = excluded.departed",
            &[target.into(), departed.into()],
        )
    })
}

/// After custody.audit: its history starts, if it was not audited before; or goes on with other columns.
pub fn audited(target: Oid, form: Form) -> Result<()> {
    if !are_kept() {
        return Ok(());
    }
    let known = "SELECT 1 FROM custody.recorded_shape s WHERE s.target OPERATOR(pg_catalog.=) $1";
    match session::as_owner(|| spi::rows_now(known, &[target.into()], |_| Ok(())))?.is_empty() {
        true => start(target, form).map(drop),
        false => follow(),
    }
}

/// Starts a table's history with what it holds now. Writers go on: what they have not committed yet is told by their own entries.
/// Gives how many rows were recorded.
fn start(target: Oid, form: Form) -> Result<u64> {
    hold(target, Hold::Alone);
    let now = as_it_is(target)?.ok_or_else(|| Error::NotAudited { table: session::relation_name(target) })?;
    if form == Form::Digest && now.key.is_empty() {
        let why = "digest needs a primary key, by which rows are found again".into();
        return Err(Error::BadArgument { name: "baseline", why });
    }
    session::at_one_moment(|| {
        let mut snapshot = spi::rows("SELECT pg_catalog.pg_current_snapshot()::text", &[], |row| row.get::<String>(1))?;
        let shape = Shape {
            covers: Covers::Table,
            baseline: Some(form),
            snapshot: snapshot.pop().flatten(),
            was: None,
            partition: None,
            columns: now
                .columns
                .iter()
                .filter(|c| c.is_in_images())
                .map(|c| Column { name: c.name.clone(), ..Column::default() })
                .collect(),
            key: now.key_names(),
        };
        record_shape(&now.names, &shape)?;
        match form {
            Form::None => Ok(0),
            _ => record_rows(&now.holders(target), None, form),
        }
    })
    .and_then(|rows| remember(target, &[]).map(|()| rows))
}

impl Definition {
    fn key_names(&self) -> Vec<String> {
        self.key.iter().filter_map(|n| self.columns.iter().find(|c| c.number == *n)).map(|c| c.name.clone()).collect()
    }

    /// The tables that rows lie in.
    fn holders(&self, target: Oid) -> Vec<Oid> {
        match self.partitions.is_empty() {
            true => vec![target],
            false => self.partitions.iter().map(|o| Oid::from(*o)).collect(),
        }
    }
}

fn record_shape(names: &Names, shape: &Shape) -> Result<()> {
    let text = serde_json::to_string(shape).map_err(|e| Error::internal(e.to_string()))?;
    transaction::record([Record::system("SHAPE", Some((&names.schema, &names.table)), text)])
}

/// Records rows as they are, one entry each.
fn record_rows(holders: &[Oid], columns: Option<&[String]>, form: Form) -> Result<u64> {
    let mut count = 0;
    for relid in holders {
        let only = Only { columns, redaction: Some(transaction::redaction_key()?) };
        let names = session::as_owner(|| root_names(*relid))?;
        each_rendered(*relid, &only, |row| {
            let new = match form {
                Form::Digest => digest_record(row.image)?,
                _ => row.image.to_owned(),
            };
            transaction::record([Record {
                tenant: row.tenant.clone(),
                op: "BASELINE",
                schema_name: Some(names.0.as_str().into()),
                table_name: Some(names.1.as_str().into()),
                move_id: None,
                row_key: row.row_key.map(str::to_owned),
                old: None,
                new: Some(new),
            }])?;
            count += 1;
            Ok(true)
        })?;
    }
    Ok(count)
}

/// The schema and name that a table's rows are recorded under.
fn root_names(relid: Oid) -> Result<(String, String)> {
    let sql = "SELECT m.root::pg_catalog.oid FROM custody.audited_member m WHERE m.relid OPERATOR(pg_catalog.=) $1";
    let root = spi::rows_now(sql, &[relid.into()], |row| row.get::<Oid>(1))?.into_iter().flatten().next();
    session::relation_names(root.unwrap_or(relid))
        .ok_or_else(|| Error::NotAudited { table: session::relation_name(relid) })
}

fn digest_record(image: &str) -> Result<String> {
    let mut salt = [0; 16];
    transaction::fill_random(&mut salt)?;
    let digest = baseline::digest_of(&salt, image).ok_or_else(|| Error::internal("a row's image is none"))?;
    let mut new = String::from("{\"digest\":");
    json::push_string(&mut new, &digest);
    new.push('}');
    Ok(new)
}

/// After a command, or custody.audit: records what became of the definitions of audited tables, and what rows have anew by that.
pub fn follow() -> Result<()> {
    if !are_kept() {
        return Ok(());
    }
    let sql = format!(
        "SELECT n.target::pg_catalog.oid, {NOW}, {BEFORE}
         FROM custody.shape_now n LEFT JOIN custody.recorded_shape s ON s.target OPERATOR(pg_catalog.=) n.target
         WHERE (n.schema_name, n.table_name, n.columns, n.key, n.partitions) IS DISTINCT FROM (s.schema_name, s.table_name, s.columns, s.key, s.partitions)
           -- A dump that is being restored: its keys and triggers come later.
           AND EXISTS (SELECT FROM custody.capture_state c WHERE c.target OPERATOR(pg_catalog.=) n.target)
         ORDER BY 1"
    );
    let changed = session::as_owner(|| {
        spi::rows_now(&sql, &[], |row| {
            let departed = row.get::<Vec<Oid>>(12)?.unwrap_or_default();
            Ok((row.get::<Oid>(1)?, definition(row, 2)?, definition(row, 7)?, departed))
        })
    })?;
    for (target, now, before, departed) in changed {
        let (Some(target), Some(now)) = (target, now) else { continue };
        match before {
            // A dump that was restored, or a log from before there were shapes: names are what they are.
            None => remember(target, &[])?,
            Some(before) => one(target, &now, &before, departed.iter().map(|o| o.to_u32()).collect())?,
        }
    }
    Ok(())
}

fn one(target: Oid, now: &Definition, before: &Definition, mut departed: Vec<u32>) -> Result<()> {
    // Until custody.audit or protect is told the new name of a column, nothing is recorded, and so nothing is to be followed.
    if (&now.columns, &now.key) != (&before.columns, &before.key) && treatment_is_lost(target)? {
        return Ok(());
    }
    let mut told: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    let renamed = now.names != before.names;
    for column in now.columns.iter().filter(|c| c.is_in_images()) {
        let known = before.columns.iter().find(|b| b.number == column.number);
        let kept = known.filter(|b| {
            b.treatment == column.treatment
                && column.prints_like(b)
                // A digest depends on the names.
                && (column.is_stored() || (b.name == column.name && !renamed))
        });
        let mut entry = Column { name: column.name.clone(), was: kept.map(|b| b.name.clone()), fill: None };
        if kept.is_none() {
            match known.is_none() && column.is_stored() {
                true => match added(target, now, column)? {
                    Added::Filled(fill) => entry.fill = fill,
                    Added::Told => told.push(column.name.clone()),
                },
                false => told.push(column.name.clone()),
            }
        }
        columns.push(entry);
    }
    let same_key = now.key.len() == before.key.len()
        && now.key.iter().zip(&before.key).all(|(n, b)| n == b)
        && now.key_names().iter().all(|name| columns.iter().any(|c| c.name == *name && c.was.is_some()));
    let no_key = now.key.is_empty() && !told.is_empty();
    let (mut arrived, mut returned) = (Vec::new(), false);
    for relid in now.partitions.iter().filter(|p| !before.partitions.contains(p)) {
        if holds_rows(Oid::from(*relid))? {
            returned |= departed.contains(relid);
            arrived.push(*relid);
        }
    }
    if !same_key || no_key || returned {
        return start(target, Form::Rows).map(drop);
    }
    let shape = |covers, partition| Shape {
        covers,
        baseline: None,
        snapshot: None,
        was: renamed.then(|| before.names.clone()),
        partition,
        columns: columns.clone(),
        key: now.key_names(),
    };
    let images_before = before.columns.iter().filter(|c| c.is_in_images()).count();
    let as_before = columns.len() == images_before && columns.iter().all(|c| c.was.as_ref() == Some(&c.name));
    if renamed || !as_before {
        record_shape(&now.names, &shape(Covers::Columns, None))?;
        if !told.is_empty() {
            let kept = now.partitions.iter().filter(|p| !arrived.contains(p)).map(|p| Oid::from(*p)).collect();
            let holders = if now.partitions.is_empty() { vec![target] } else { kept };
            session::at_one_moment(|| record_rows(&holders, Some(&told), Form::Rows))?;
        }
    }
    // What follows speaks of the columns as they are called by now.
    let columns: Vec<Column> =
        columns.into_iter().map(|c| Column { was: Some(c.name.clone()), fill: None, name: c.name }).collect();
    let shape = |covers, partition: String| Shape {
        covers,
        baseline: None,
        snapshot: None,
        was: None,
        partition: Some(partition),
        columns: columns.clone(),
        key: now.key_names(),
    };
    for gone in before.partitions.iter().filter(|p| !now.partitions.contains(p)) {
        departed.push(*gone);
        record_shape(&now.names, &shape(Covers::Left, session::relation_name(Oid::from(*gone))))?;
    }
    for relid in arrived {
        let relid = Oid::from(relid);
        record_shape(&now.names, &shape(Covers::Partition, session::relation_name(relid)))?;
        session::at_one_moment(|| record_rows(&[relid], None, Form::Rows))?;
    }
    remember(target, &departed)
}

/// Whether an excluded, redacted or tenant column has a name that the registries do not know.
fn treatment_is_lost(target: Oid) -> Result<bool> {
    use crate::audit::table::Table;
    use crate::pg::row::Open;
    match Table::look_up(target, Open::table(target).shape()) {
        Ok(_) => Ok(false),
        Err(Error::CannotAudit { .. }) => Ok(true),
        Err(other) => Err(other),
    }
}

/// What rows have in a column that was added.
enum Added {
    /// All the same.
    Filled(Option<String>),
    /// Each has to be asked.
    Told,
}

fn added(target: Oid, now: &Definition, column: &Attribute) -> Result<Added> {
    // A constant default is stored once for all rows that were there.
    const FACTS: &str = "SELECT pg_catalog.bool_and(a.atthasmissing), pg_catalog.bool_or(a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typtype = 'd')
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid WHERE a.attrelid = ANY ($1) AND a.attname = $2::name";
    let holders = now.holders(target);
    let facts = session::as_owner(|| {
        spi::rows_now(FACTS, &[holders.clone().into(), column.name.as_str().into()], |row| {
            Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<bool>(2)?.unwrap_or(true)))
        })
    })?;
    match facts.first() {
        Some((false, false)) => Ok(Added::Filled(None)),
        Some((true, _)) => session::at_one_moment(|| {
            let names = [column.name.clone()];
            let only = Only { columns: Some(&names), redaction: None };
            let mut fill = None;
            for relid in &holders {
                each_rendered(*relid, &only, |row| {
                    _ = custody_core::reconcile::image::each_field(row.image, |_, value| fill = Some(value.to_owned()));
                    Ok(false)
                })?;
                if fill.is_some() {
                    break;
                }
            }
            Ok(Added::Filled(fill))
        }),
        _ => Ok(Added::Told),
    }
}

fn holds_rows(relid: Oid) -> Result<bool> {
    let mut any = false;
    session::at_one_moment(|| {
        crate::pg::row::Open::table(relid).each_row(|_| {
            any = true;
            Ok(false)
        })
    })?;
    Ok(any)
}

/// The redaction key, if digests of everything that counts were made with it.
pub fn redaction() -> Result<Option<key::Secret>> {
    // A life whose key nobody vouched for has a redaction key of its own (`key::make`), and so may one that goes on after a loss.
    const STRANGERS: &str = "WITH RECURSIVE line (id) AS (
          SELECT i.incarnation FROM custody.instance i
          UNION
          SELECT n.parent FROM line l JOIN custody.incarnation n ON n.id OPERATOR(pg_catalog.=) l.id
          JOIN custody.signing_key k ON k.incarnation OPERATOR(pg_catalog.=) l.id AND k.predecessor IS NOT NULL
          WHERE n.parent IS NOT NULL)
        SELECT 1 FROM custody.incarnation n WHERE NOT EXISTS (SELECT FROM line l WHERE l.id OPERATOR(pg_catalog.=) n.id)
        UNION ALL SELECT 1 FROM custody.signing_key k WHERE k.recovers IS NOT NULL LIMIT 1";
    if !spi::rows(STRANGERS, &[], |_| Ok(()))?.is_empty() {
        return Ok(None);
    }
    let Some(id) = incarnation::written()? else { return Ok(None) };
    Ok(key::current(id).and_then(|key_id| key::redaction_key(&key_id)).ok())
}
