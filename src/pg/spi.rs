//! A little SPI: statements of ours, all names in them qualified.

use pgrx::datum::DatumWithOid;
use pgrx::spi::{Spi, SpiClient, SpiHeapTupleData};

use crate::error::{Error, Result};
use crate::pg::session;

/// Such a statement is given a transaction id before PostgreSQL sees that it cannot have one here, and says so in other words.
fn not_in_recovery() -> Result<()> {
    match session::in_recovery() {
        true => Err(Error::InRecovery { what: "nothing can be written" }),
        false => Ok(()),
    }
}

/// Runs a statement that changes something.
pub fn run(sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<()> {
    not_in_recovery()?;
    Spi::run_with_args(sql, arguments).map_err(|e| Error::internal(e.to_string()))
}

/// Runs a query that changes nothing, and takes what `each` makes of every row.
pub fn rows<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    mut each: impl FnMut(&SpiHeapTupleData<'_>) -> std::result::Result<T, pgrx::spi::SpiError>,
) -> Result<Vec<T>> {
    let query = |client: &SpiClient<'_>| -> std::result::Result<Vec<T>, pgrx::spi::SpiError> {
        client.select(sql, None, arguments)?.map(|row| each(&row)).collect()
    };
    Spi::connect(query).map_err(|e| Error::internal(e.to_string()))
}

/// The same, seeing also what this transaction's commands did so far.
pub fn rows_now<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    mut each: impl FnMut(&SpiHeapTupleData<'_>) -> std::result::Result<T, pgrx::spi::SpiError>,
) -> Result<Vec<T>> {
    not_in_recovery()?;
    let query = |client: &mut SpiClient<'_>| -> std::result::Result<Vec<T>, pgrx::spi::SpiError> {
        client.update(sql, None, arguments)?.map(|row| each(&row)).collect()
    };
    Spi::connect_mut(query).map_err(|e| Error::internal(e.to_string()))
}
