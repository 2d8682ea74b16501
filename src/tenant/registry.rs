//! Which tables are protected, and by which column.

use crate::error::Result;
use crate::pg::call::Oid;
use crate::pg::scan::{self, Key};

/// The tenant column of a protected table; none if it is not one.
pub fn tenant_column(relid: Oid) -> Result<Option<String>> {
    let found = scan::our_rows("registered_table", &[Key::Oid(relid)], |row| row.name(3))?;
    Ok(found.into_iter().next())
}
