//! Rows as triggers see them, and their values as text.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::rc::Rc;

use pgrx::pg_sys;

use custody_core::json;
use custody_core::key::push_hex;

use crate::error::{Error, Result};
use crate::pg::data;

/// What a trigger fired for.
pub struct Trigger<'a> {
    data: *mut pg_sys::TriggerData,
    lives: PhantomData<&'a ()>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl<'a> Trigger<'a> {
    /// # Safety
    /// The call record must be valid for `'a`.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: a call's context is null or a node; a TriggerData node is what the trigger manager passes.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::BadArgument { name: "trigger", why: "function was not called by a trigger".into() });
            }
            Ok(Self { data: context.cast(), lives: PhantomData })
        }
    }

    /// What happened.
    pub fn event(&self) -> Event {
        // SAFETY: the trigger's data is valid (see `of`).
        match unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            _ => Event::Truncate,
        }
    }

    /// Whether it is one that custody.audit makes, by its name: so that another on the same table records nothing twice.
    pub fn is_named(&self, name: &CStr) -> bool {
        // SAFETY: as above; a trigger's name is a terminated string.
        unsafe { CStr::from_ptr((*(*self.data).tg_trigger).tgname) == name }
    }

    /// Whether the table holds rows itself, as partitioned ones do not.
    pub fn holds_rows(&self) -> bool {
        // SAFETY: as above; the relation is open.
        unsafe { (*(*(*self.data).tg_relation).rd_rel).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char }
    }

    /// Whether it fired for a row, and after it.
    pub fn after_row(&self) -> bool {
        // SAFETY: as above.
        let event = unsafe { (*self.data).tg_event };
        let timing = event & pg_sys::TRIGGER_EVENT_TIMINGMASK;
        event & pg_sys::TRIGGER_EVENT_ROW != 0 && timing == pg_sys::TRIGGER_EVENT_AFTER
    }

    /// The table.
    pub fn relid(&self) -> pg_sys::Oid {
        // SAFETY: as above; the relation is open.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// The table's shape.
    pub fn shape(&self) -> Shape {
        // SAFETY: as above.
        unsafe { Shape::of((*self.data).tg_relation) }
    }

    /// The row before and the row after, where there are such.
    pub fn rows(&self) -> (Option<Tuple<'a>>, Option<Tuple<'a>>) {
        // SAFETY: as above; tuples of row triggers are valid while the trigger runs.
        unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let first = Tuple::of((*self.data).tg_trigtuple, descriptor);
            match self.event() {
                Event::Insert => (None, first),
                Event::Delete => (first, None),
                Event::Update => (first, Tuple::of((*self.data).tg_newtuple, descriptor)),
                Event::Truncate => (None, None),
            }
        }
    }

    /// The trigger's argument `n`, if it was created with one.
    pub fn argument(&self, n: usize) -> Option<String> {
        // SAFETY: as above; the trigger holds tgnargs terminated strings.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            if n >= (*trigger).tgnargs as usize {
                return None;
            }
            data::string(*(*trigger).tgargs.add(n))
        }
    }

    /// What a row trigger BEFORE the event returns to let it happen.
    pub fn proceed(&self) -> data::Nulled {
        // SAFETY: as above.
        Some(pg_sys::Datum::from(unsafe { (*self.data).tg_trigtuple }))
    }

    /// Every row of the table, newest committed state and our own changes. The caller's trigger holds an exclusive lock.
    pub fn each_row(&self, mut each: impl FnMut(Tuple<'_>) -> Result<()>) -> Result<()> {
        // SAFETY: the relation is open; the snapshot is registered while it is used.
        unsafe {
            let snapshot = match crate::settings::sabotaged("truncate_snapshot") {
                true => pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()),
                false => pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()),
            };
            each_row((*self.data).tg_relation, snapshot, |row| each(row).map(|()| true))?;
            pg_sys::UnregisterSnapshot(snapshot);
        }
        Ok(())
    }
}

/// Every row that a snapshot sees, until `each` says that it is enough.
///
/// # Safety
/// The relation must be open and the snapshot registered.
unsafe fn each_row(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    mut each: impl FnMut(Tuple<'_>) -> Result<bool>,
) -> Result<()> {
    // SAFETY: the caller's promise; each tuple is used before the next is read.
    unsafe {
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, snapshot, 0, std::ptr::null_mut());
        // What rendering a row allocates goes before the next row.
        let memory = data::memory(pg_sys::CurrentMemoryContext, c"pg_custody row");
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            let Some(tuple) = Tuple::of(tuple, (*relation).rd_att) else { break };
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            let outcome = each(tuple);
            pg_sys::MemoryContextSwitchTo(outer);
            let goes_on = outcome?;
            pg_sys::MemoryContextReset(memory);
            if !goes_on {
                break;
            }
            pgrx::check_for_interrupts!();
        }
        pg_sys::MemoryContextDelete(memory);
        pg_sys::systable_endscan(scan);
    }
    Ok(())
}

/// How a table is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its definition stays.
    Read,
    /// Nor does another do this at the same time.
    Alone,
}

/// Holds a table until the transaction ends.
pub fn hold(relid: pg_sys::Oid, how: Hold) {
    let lock = match how {
        Hold::Read => pg_sys::AccessShareLock,
        Hold::Alone => pg_sys::ShareUpdateExclusiveLock,
    };
    // SAFETY: within a transaction, whose end lets go of it.
    unsafe { pg_sys::LockRelationOid(relid, lock as i32) };
}

/// A table, open for reading past row-level security: its rows as they lie.
pub struct Open(pg_sys::Relation);

impl Open {
    /// Opens one; it stays locked until the transaction ends.
    pub fn table(relid: pg_sys::Oid) -> Self {
        // SAFETY: an error if there is no such table; closed in `drop`.
        Self(unsafe { pg_sys::table_open(relid, pg_sys::AccessShareLock as i32) })
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        // SAFETY: the relation is open.
        unsafe { Shape::of(self.0) }
    }

    /// Every row that the active snapshot sees, until `each` says that it is enough. A partitioned table holds none itself.
    pub fn each_row(&self, each: impl FnMut(Tuple<'_>) -> Result<bool>) -> Result<()> {
        // SAFETY: the relation is open; the snapshot is registered while it is used.
        unsafe {
            if (*self.0).rd_tableam.is_null() {
                return Ok(());
            }
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot());
            each_row(self.0, snapshot, each)?;
            pg_sys::UnregisterSnapshot(snapshot);
        }
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: opened in `table`. After an error, PostgreSQL's abort lets go of it itself.
        unsafe {
            if !std::thread::panicking() {
                pg_sys::table_close(self.0, pg_sys::NoLock as i32);
            }
        }
    }
}

/// How a column's values become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Render {
    /// text and varchar, as they are
    Text,
    Int2,
    Int4,
    Int8,
    Bool,
    Uuid,
    Bytea,
    /// output function; a JSON number if it reads back as one
    Number,
    /// output function; a JSON string
    Output,
}

/// A column that is not dropped.
pub struct Column {
    index: usize,
    /// Its name.
    pub name: Rc<str>,
    /// Its name as a JSON string, and the colon.
    pub label: String,
    by_value: bool,
    length: i16,
    render: Render,
    output: pg_sys::FmgrInfo,
}

/// A table's columns, and which are its primary key.
pub struct Shape {
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// Places in `columns` of the primary key's columns, in the key's order; empty if there is none.
    pub key: Vec<usize>,
    pins: Pins,
    memory: pg_sys::MemoryContext,
}

/// Which settings must be pinned while values are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pins {
    None,
    /// dates, times and floats
    Globals,
    /// whatever an output function might look at
    All,
}

impl Shape {
    /// # Safety
    /// The relation must be open.
    unsafe fn of(relation: pg_sys::Relation) -> Self {
        // SAFETY: the relation is open, so its descriptor is valid. Output functions are looked up into a context that lives
        // as long as this shape.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"pg_custody shape".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            let descriptor = (*relation).rd_att;
            let attributes = (*descriptor).attrs.as_slice((*descriptor).natts as usize);
            let mut columns = Vec::with_capacity(attributes.len());
            let mut pins = Pins::None;
            for (index, attribute) in attributes.iter().enumerate().filter(|(_, a)| !a.attisdropped) {
                let (render, needs) = render(attribute.atttypid);
                let (mut function, mut varlena) = (pg_sys::InvalidOid, false);
                pg_sys::getTypeOutputInfo(attribute.atttypid, &mut function, &mut varlena);
                let mut output = pg_sys::FmgrInfo::default();
                pg_sys::fmgr_info_cxt(function, &mut output, memory);
                let name = data::string(attribute.attname.data.as_ptr()).unwrap_or_default();
                let mut label = String::new();
                json::push_string(&mut label, &name);
                label.push(':');
                pins = pins.max(needs);
                columns.push(Column {
                    index,
                    name: name.into(),
                    label,
                    by_value: attribute.attbyval,
                    length: attribute.attlen,
                    render,
                    output,
                });
            }
            let mut key = Vec::new();
            // Not RelationGetPrimaryKeyIndex, which passes over deferrable keys.
            let indexes = pg_sys::RelationGetIndexList(relation);
            for at in 0..if indexes.is_null() { 0 } else { (*indexes).length } {
                let oid = (*(*indexes).elements.add(at as usize)).oid_value;
                let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
                let form = (*index).rd_index;
                if (*form).indisprimary {
                    let width = (*form).indnkeyatts as usize;
                    for number in (*form).indkey.values.as_slice(width) {
                        key.extend(columns.iter().position(|c: &Column| c.index + 1 == *number as usize));
                    }
                }
                pg_sys::index_close(index, pg_sys::AccessShareLock as i32);
            }
            Self { columns, key, pins, memory }
        }
    }

    /// Where a column of that name is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }

    /// Pins the settings that change how values of this table print, until the result is dropped.
    pub fn pin(&self) -> Pinned {
        Pinned::new(self.pins)
    }
}

impl Drop for Shape {
    fn drop(&mut self) {
        // SAFETY: made in `of`, deleted once; but not while the process ends, when PostgreSQL may have taken its memory down.
        unsafe {
            if !pg_sys::proc_exit_inprogress {
                pg_sys::MemoryContextDelete(self.memory);
            }
        }
    }
}

fn render(type_: pg_sys::Oid) -> (Render, Pins) {
    match type_ {
        pg_sys::TEXTOID | pg_sys::VARCHAROID => (Render::Text, Pins::None),
        pg_sys::INT2OID => (Render::Int2, Pins::None),
        pg_sys::INT4OID => (Render::Int4, Pins::None),
        pg_sys::INT8OID => (Render::Int8, Pins::None),
        pg_sys::BOOLOID => (Render::Bool, Pins::None),
        pg_sys::UUIDOID => (Render::Uuid, Pins::None),
        pg_sys::BYTEAOID => (Render::Bytea, Pins::None),
        pg_sys::NUMERICOID | pg_sys::OIDOID => (Render::Number, Pins::None),
        pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => (Render::Number, Pins::Globals),
        pg_sys::DATEOID
        | pg_sys::TIMEOID
        | pg_sys::TIMETZOID
        | pg_sys::TIMESTAMPOID
        | pg_sys::TIMESTAMPTZOID
        | pg_sys::INTERVALOID => (Render::Output, Pins::Globals),
        pg_sys::BPCHAROID
        | pg_sys::NAMEOID
        | pg_sys::CHAROID
        | pg_sys::INETOID
        | pg_sys::CIDROID
        | pg_sys::JSONOID
        | pg_sys::JSONBOID => (Render::Output, Pins::None),
        _ => (Render::Output, Pins::All),
    }
}

/// A row's values, not yet read.
pub struct Tuple<'a> {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    lives: PhantomData<&'a ()>,
}

impl Tuple<'_> {
    /// # Safety
    /// The tuple must be null or valid, of that descriptor, and outlive the result.
    unsafe fn of(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Option<Self> {
        if tuple.is_null() {
            return None;
        }
        // SAFETY: the caller promises it; the vectors have a place for each attribute.
        unsafe {
            let width = (*descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![true; width]);
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Some(Self { values, nulls, lives: PhantomData })
        }
    }

    /// Appends a column's value as text; does nothing and says false if it is NULL. The settings must be pinned.
    pub fn push_text(&self, column: &mut Column, out: &mut String) -> bool {
        let i = column.index;
        if self.nulls[i] {
            return false;
        }
        let datum = self.values[i];
        // SAFETY: the value is of the column's type, for which `render` chose how to read it.
        unsafe {
            match column.render {
                Render::Text => with_bytes(datum, |bytes| out.push_str(&String::from_utf8_lossy(bytes))),
                Render::Int2 | Render::Int4 | Render::Int8 => {
                    out.push_str(itoa::Buffer::new().format(integer(column.render, datum)))
                }
                Render::Bool => out.push_str(if datum.value() != 0 { "true" } else { "false" }),
                Render::Uuid => {
                    let uuid = uuid::Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>());
                    out.push_str(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
                }
                Render::Bytea => with_bytes(datum, |bytes| {
                    out.push_str("\\x");
                    push_hex(out, bytes);
                }),
                Render::Number | Render::Output => {
                    let text = pg_sys::OutputFunctionCall(&mut column.output, datum);
                    out.push_str(&CStr::from_ptr(text).to_string_lossy());
                    pg_sys::pfree(text.cast());
                }
            }
        }
        true
    }

    /// A column's value as text; none if it is NULL. The settings must be pinned.
    pub fn text(&self, column: &mut Column) -> Option<String> {
        let mut text = String::new();
        self.push_text(column, &mut text).then_some(text)
    }

    /// Appends a column's value to a row image. The settings must be pinned.
    pub fn push_json(&self, column: &mut Column, out: &mut String) {
        let i = column.index;
        if self.nulls[i] {
            return out.push_str("null");
        }
        match column.render {
            Render::Int2 | Render::Int4 | Render::Int8 | Render::Bool => _ = self.push_text(column, out),
            // SAFETY: a text or varchar that is not NULL.
            Render::Text => unsafe {
                with_bytes(self.values[i], |bytes| json::push_string(out, &String::from_utf8_lossy(bytes)));
            },
            Render::Number | Render::Output => {
                // SAFETY: as in `push_text`.
                unsafe {
                    let text = pg_sys::OutputFunctionCall(&mut column.output, self.values[i]);
                    let value = CStr::from_ptr(text).to_string_lossy();
                    match column.render == Render::Number && json::is_number(&value) {
                        true => out.push_str(&value),
                        false => json::push_string(out, &value),
                    }
                    drop(value);
                    pg_sys::pfree(text.cast());
                }
            }
            // Nothing in these needs escaping but the one backslash of bytea.
            Render::Uuid | Render::Bytea => {
                out.push('"');
                if column.render == Render::Bytea {
                    out.push('\\');
                }
                self.push_text(column, out);
                out.push('"');
            }
        }
    }

    /// Whether both rows hold the same stored bytes in a column, out-of-line values compared by where they lie.
    pub fn stores_the_same(&self, other: &Tuple<'_>, column: &Column) -> bool {
        let i = column.index;
        if self.nulls[i] || other.nulls[i] {
            return self.nulls[i] == other.nulls[i];
        }
        if column.by_value {
            return self.values[i] == other.values[i];
        }
        // SAFETY: both are by-reference values of the column's type, valid while the tuples are.
        unsafe { bytes(self.values[i], column.length) == bytes(other.values[i], column.length) }
    }

    /// Whether a column's value lies out of line, so that reading it costs.
    pub fn is_out_of_line(&self, column: &Column) -> bool {
        let i = column.index;
        // SAFETY: a variable-length value that is not NULL.
        column.length == -1 && !self.nulls[i] && unsafe { pgrx::varatt_is_1b_e(self.values[i].cast_mut_ptr()) }
    }
}

/// Lends the bytes of a variable-length value, fetched and decompressed if need be.
///
/// # Safety
/// The Datum must be of a variable-length type.
unsafe fn with_bytes<T>(datum: pg_sys::Datum, work: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: the caller promises it. What detoasting made is freed after its use.
    unsafe {
        let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
        let plain = match pgrx::varatt_is_4b_u(stored) || (pgrx::varatt_is_1b(stored) && !pgrx::varatt_is_1b_e(stored))
        {
            true => stored,
            false => pg_sys::pg_detoast_datum_packed(stored),
        };
        let bytes = std::slice::from_raw_parts(pgrx::vardata_any(plain).cast(), pgrx::varsize_any_exhdr(plain));
        let result = work(bytes);
        if plain != stored {
            pg_sys::pfree(plain.cast());
        }
        result
    }
}

/// A whole number of the type that `render` names.
fn integer(render: Render, datum: pg_sys::Datum) -> i64 {
    match render {
        Render::Int2 => i64::from(datum.value() as i16),
        Render::Int4 => i64::from(datum.value() as i32),
        _ => datum.value() as i64,
    }
}

/// The bytes of a by-reference value as stored.
///
/// # Safety
/// The Datum must be a by-reference value of a type of that length, valid for as long as the result is used.
unsafe fn bytes<'a>(datum: pg_sys::Datum, length: i16) -> &'a [u8] {
    let start = datum.cast_mut_ptr::<u8>();
    // SAFETY: the caller promises it. -1 is variable length, -2 a terminated string.
    unsafe {
        let length = match length {
            -1 => pgrx::varsize_any(start.cast()),
            -2 => CStr::from_ptr(start.cast()).count_bytes(),
            fixed => fixed as usize,
        };
        std::slice::from_raw_parts(start, length)
    }
}

/// Holds the settings of the format's section 6 in force, and puts back what was there, errors included.
pub struct Pinned {
    globals: Option<Globals>,
    nest_level: Option<i32>,
}

struct Globals {
    date_style: i32,
    date_order: i32,
    interval_style: i32,
    float_digits: i32,
    timezone: *mut pg_sys::pg_tz,
}

/// The time zone UTC, which PostgreSQL keeps for ever once it is loaded.
fn utc() -> *mut pg_sys::pg_tz {
    thread_local! {
        static UTC: std::cell::Cell<*mut pg_sys::pg_tz> = const { std::cell::Cell::new(std::ptr::null_mut()) };
    }
    if UTC.get().is_null() {
        // SAFETY: a name that PostgreSQL knows without its time zone files.
        UTC.set(unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) });
    }
    UTC.get()
}

impl Pinned {
    fn new(pins: Pins) -> Self {
        // SAFETY: these are the variables behind settings, read by output functions alone. They are put back before any
        // setting can be looked at again.
        let globals = (pins >= Pins::Globals).then(|| unsafe {
            let before = Globals {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                float_digits: pg_sys::extra_float_digits,
                timezone: pg_sys::session_timezone,
            };
            let utc = utc();
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as i32;
            pg_sys::extra_float_digits = 1;
            if !utc.is_null() {
                pg_sys::session_timezone = utc;
            }
            before
        });
        let mut pinned = Self { globals, nest_level: None };
        if pins == Pins::All {
            // SAFETY: a settings level of our own, ended in `drop`, or by PostgreSQL's abort after an error.
            unsafe {
                pinned.nest_level = Some(pg_sys::NewGUCNestLevel());
                for (name, value) in [
                    (c"search_path", c"pg_catalog"),
                    (c"bytea_output", c"hex"),
                    (c"quote_all_identifiers", c"off"),
                    (c"lc_monetary", c"C"),
                    (c"xmloption", c"content"),
                ] {
                    pg_sys::set_config_option(
                        name.as_ptr(),
                        value.as_ptr(),
                        pg_sys::GucContext::PGC_USERSET,
                        pg_sys::GucSource::PGC_S_SESSION,
                        pg_sys::GucAction::GUC_ACTION_SAVE,
                        true,
                        0,
                        false,
                    );
                }
            }
        }
        pinned
    }
}

/// Pins all settings that change how anything prints, until the result is dropped.
pub fn pin_all() -> Pinned {
    Pinned::new(Pins::All)
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: puts back what `new` found. After an error, PostgreSQL's abort ends the settings level itself.
        unsafe {
            if let Some(level) = self.nest_level
                && !std::thread::panicking()
            {
                pg_sys::AtEOXact_GUC(true, level);
            }
            if let Some(before) = &self.globals {
                pg_sys::DateStyle = before.date_style;
                pg_sys::DateOrder = before.date_order;
                pg_sys::IntervalStyle = before.interval_style;
                pg_sys::extra_float_digits = before.float_digits;
                pg_sys::session_timezone = before.timezone;
            }
        }
    }
}
