//! Functions that SQL can call: declaring them, their arguments and their results.

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, pg_sys};

use crate::error::{Error, Result};
use crate::pg::data::Nulled;

/// Declares C functions for `CREATE FUNCTION … LANGUAGE c`: the symbol, its `pg_finfo_` symbol, and the function that does it.
#[macro_export]
macro_rules! sql_functions {
    ($($(#[$doc:meta])* $symbol:ident, $finfo:ident => $body:expr;)*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls this with a valid call record, and the guard is the whole body.
            unsafe {
                $crate::pg::guard::guard(|| {
                    let mut call = $crate::pg::call::Call::new(fcinfo);
                    let body: fn(&mut $crate::pg::call::Call) -> $crate::error::Result<$crate::pg::data::Nulled> = $body;
                    let result = body(&mut call)?;
                    Ok(call.finish(result))
                })
            }
        }
    )*};
}

/// One call of one of our functions.
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` must be the call record that PostgreSQL passed, and must outlive this.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self(fcinfo)
    }

    /// Hands a result to PostgreSQL.
    pub fn finish(&mut self, result: Nulled) -> pg_sys::Datum {
        // SAFETY: the call record is valid (see `new`).
        unsafe { (*self.0).isnull = result.is_none() };
        result.unwrap_or(pg_sys::Datum::from(0))
    }

    fn datum(&self, n: usize) -> Nulled {
        // SAFETY: the call record is valid; n is below nargs, as SQL declares the function.
        unsafe {
            let argument = (*self.0).args.as_slice((*self.0).nargs as usize).get(n)?;
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// An argument that may be NULL. `T` must be what SQL declares.
    pub fn optional<T: FromDatum>(&self, n: usize) -> Option<T> {
        let datum = self.datum(n)?;
        // SAFETY: the SQL declaration of each function says the same type as its Rust caller; tests call every function.
        unsafe { T::from_datum(datum, false) }
    }

    /// An argument that must not be NULL.
    pub fn required<T: FromDatum>(&self, n: usize, name: &'static str) -> Result<T> {
        self.optional(n).ok_or_else(|| Error::BadArgument { name, why: "must not be null".into() })
    }

    /// An argument of type jsonb, which may be NULL. One that is nested deeper than we read is refused.
    pub fn json(&self, n: usize, name: &'static str) -> Result<Option<serde_json::Value>> {
        let Some(text) = self.json_text(n) else { return Ok(None) };
        let refused = |_| Error::BadArgument { name, why: "is nested too deep".into() };
        serde_json::from_str(&text).map(Some).map_err(refused)
    }

    /// An argument of type jsonb as text, with all digits of its numbers.
    pub fn json_text(&self, n: usize) -> Option<String> {
        let datum = self.datum(n)?;
        // SAFETY: SQL declares the argument as jsonb; its output function gives a terminated string.
        unsafe {
            pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)])
                .and_then(|text| crate::pg::data::string(text.as_ptr()))
        }
    }

    /// An argument of type name.
    pub fn name(&self, n: usize, name: &'static str) -> Result<String> {
        let datum = self.datum(n).ok_or_else(|| Error::BadArgument { name, why: "must not be null".into() })?;
        // SAFETY: a name is NAMEDATALEN bytes, zero-terminated.
        let text = unsafe { CStr::from_ptr((*datum.cast_mut_ptr::<pg_sys::NameData>()).data.as_ptr()) };
        Ok(text.to_string_lossy().into_owned())
    }

    /// An argument of type name[]; NULL elements are refused.
    pub fn names(&self, n: usize, name: &'static str) -> Result<Vec<String>> {
        let Some(datum) = self.datum(n) else { return Ok(Vec::new()) };
        // SAFETY: SQL declares the argument as name[].
        unsafe { crate::pg::data::names_of_array(datum) }
            .ok_or_else(|| Error::BadArgument { name, why: "must not contain nulls".into() })
    }

    /// Whether the statement that an event trigger fired for drops this extension.
    pub fn drops_us(&self) -> bool {
        // SAFETY: the call record is valid; its context, if it has this tag, is an event trigger's, with the statement's tree.
        unsafe {
            let context = (*self.0).context;
            !context.is_null()
                && (*context).type_ == pg_sys::NodeTag::T_EventTriggerData
                && crate::pg::commands::drops_us((*context.cast::<pg_sys::EventTriggerData>()).parsetree)
        }
    }

    /// The relation that a trigger fired for, and what about it.
    pub fn trigger(&self) -> Result<crate::pg::row::Trigger<'_>> {
        // SAFETY: the call record is valid for as long as this borrow.
        unsafe { crate::pg::row::Trigger::of(self.0) }
    }

    /// Returns a set of rows, all at once.
    pub fn return_rows(&mut self, rows: impl IntoIterator<Item = Vec<Nulled>>) -> Result<Nulled> {
        self.return_set(rows, 0)
    }

    /// Returns a set of values of one type, all at once.
    pub fn return_values(&mut self, values: impl IntoIterator<Item = Nulled>) -> Result<Nulled> {
        self.return_set(values.into_iter().map(|value| vec![value]), pg_sys::MAT_SRF_USE_EXPECTED_DESC)
    }

    fn return_set(&mut self, rows: impl IntoIterator<Item = Vec<Nulled>>, flags: u32) -> Result<Nulled> {
        // SAFETY: SQL declares the caller as returning a set; InitMaterializedSRF checks that a set is accepted, and makes the
        // tuple store and its row type. Each row has as many columns as that type.
        unsafe {
            pg_sys::InitMaterializedSRF(self.0, flags);
            let info = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let width = (*(*info).setDesc).natts as usize;
            for row in rows {
                if row.len() != width {
                    return Err(Error::internal("a result row has the wrong number of columns"));
                }
                let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
                let mut values: Vec<pg_sys::Datum> =
                    row.into_iter().map(|d| d.unwrap_or(pg_sys::Datum::from(0))).collect();
                pg_sys::tuplestore_putvalues(
                    (*info).setResult,
                    (*info).setDesc,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
            }
        }
        Ok(None)
    }
}

/// A value as a function's result.
pub fn value<T: IntoDatum>(value: T) -> Nulled {
    value.into_datum()
}

/// An oid's number, as `regclass` arguments have it.
pub type Oid = pg_sys::Oid;

/// What `void` functions return.
pub const VOID: Nulled = Some(pg_sys::Datum::null());
