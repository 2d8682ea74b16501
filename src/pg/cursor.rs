//! Reading what a query gives, however much that is: a few rows at a time, without a copy of each.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::data;
use crate::pg::scan::Row;

/// Rows that are fetched at once.
const BATCH: std::ffi::c_long = 500;

/// Gives each row of a query of ours, which changes nothing, as the active snapshot sees it.
pub fn each_row(sql: &str, arguments: &[DatumWithOid<'_>], mut each: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
    let text = data::c_string(sql);
    let mut types: Vec<_> = arguments.iter().map(DatumWithOid::oid).collect();
    let mut values: Vec<_> =
        arguments.iter().map(|a| a.datum().map_or(pg_sys::Datum::from(0), |d| d.sans_lifetime())).collect();
    let nulls: Vec<_> = arguments.iter().map(|a| if a.datum().is_some() { b' ' } else { b'n' } as _).collect();
    // SAFETY: SPI is connected and finished around it; after an error PostgreSQL's abort ends both it and the portal. Rows are used
    // before the batch that holds them is freed.
    unsafe {
        match pg_sys::SPI_connect() {
            code if code < 0 => return Err(Error::internal("SPI cannot be connected")),
            _ => {}
        }
        let portal = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            text.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            true,
            0,
        );
        if portal.is_null() {
            return Err(Error::internal("SPI opens no cursor"));
        }
        let memory = data::memory(pg_sys::CurrentMemoryContext, c"pg_custody batch");
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        loop {
            pg_sys::SPI_cursor_fetch(portal, true, BATCH);
            let table = pg_sys::SPI_tuptable;
            let count = pg_sys::SPI_processed as usize;
            if table.is_null() || count == 0 {
                break;
            }
            let descriptor = (*table).tupdesc;
            let width = (*descriptor).natts as usize;
            values.resize(width, pg_sys::Datum::from(0));
            nulls.resize(width, true);
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            for tuple in std::slice::from_raw_parts((*table).vals, count) {
                pg_sys::heap_deform_tuple(*tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                each(&Row { values: &values, nulls: &nulls })?;
            }
            pg_sys::MemoryContextSwitchTo(outer);
            pg_sys::MemoryContextReset(memory);
            pg_sys::SPI_freetuptable(table);
            pgrx::check_for_interrupts!();
        }
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
    Ok(())
}
