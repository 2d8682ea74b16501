//! Asking a function of ours what is so now, and what was so before this transaction.

use std::ffi::CStr;

use pgrx::{FromDatum, pg_sys};

use crate::error::{Error, Result};
use crate::pg::scan;

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// With all that this transaction did so far.
    Now,
    /// Without it, but with what others have committed meanwhile.
    BeforeTransaction,
}

/// A function of ours; none if it is not there.
pub fn our_function(name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    const ANUM_PG_PROC_OID: i16 = 1;
    let schema = scan::our_schema()?;
    // SAFETY: a catalog look-up; the name and the vector outlive the call.
    let oid = unsafe {
        let vector = pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as i32);
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            ANUM_PG_PROC_OID,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(vector),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// What a STABLE function of ours from boolean to text says at a moment.
pub fn ask(function: &CStr, argument: bool, moment: Moment) -> Result<String> {
    let missing = || Error::internal(format!("custody.{} is missing", function.to_string_lossy()));
    let oid = our_function(function, &[pg_sys::BOOLOID]).ok_or_else(missing)?;
    // SAFETY: within a transaction. Pushing copies the snapshot, so that what is changed is our copy; with no command of this
    // transaction older than it, nothing that this transaction did is visible. It is popped after the call, and by PostgreSQL's
    // abort after an error. The function is declared as returning text, never NULL.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        if moment == Moment::BeforeTransaction {
            (*pg_sys::GetActiveSnapshot()).curcid = 0;
        }
        let datum = pg_sys::OidFunctionCall1Coll(oid, pg_sys::InvalidOid, pg_sys::Datum::from(argument));
        let text = String::from_datum(datum, false);
        pg_sys::PopActiveSnapshot();
        text.ok_or_else(missing)
    }
}
