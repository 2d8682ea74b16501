//! What is known of an audited table: its shape, whose rows it holds, and what must not be stored.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::pg::call::Oid;

use crate::error::{Error, Result};
use crate::pg::row::{Shape, Trigger};
use crate::pg::scan::{self, Key};
use crate::pg::session;
use crate::tenant::registry;

/// Tables of our own whose every change is an entry of the system chain.
pub const CONFIGURATION: [&str; 7] =
    ["tenants", "registered_table", "audited_table", "role_binding", "assume_grant", "token_key", "token_revocation"];

/// An audited table, or a partition of one.
pub struct Table {
    /// The schema and name of the table that was registered: partitions record under their root.
    pub schema_name: Rc<str>,
    pub table_name: Rc<str>,
    pub shape: Shape,
    /// Which column names the tenant; none for untenanted tables.
    pub tenant: Option<usize>,
    /// What becomes of each column, by its place in `shape.columns`.
    pub treatment: Vec<Treatment>,
}

/// What becomes of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    Stored,
    Excluded,
    Redacted,
}

thread_local! {
    static KNOWN: RefCell<HashMap<u32, Rc<RefCell<Table>>>> = RefCell::new(HashMap::new());
}

/// Drops what is known of a table whose definition changed; of all, if 0.
pub fn forget(relid: u32) {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            match relid {
                0 => known.clear(),
                _ => _ = known.remove(&relid),
            }
        }
    });
}

/// The table that a capture trigger fired for; an error unless custody.audit registered it.
pub fn of(trigger: &Trigger<'_>) -> Result<Rc<RefCell<Table>>> {
    let relid = trigger.relid();
    if let Some(table) = KNOWN.with_borrow(|known| known.get(&relid.to_u32()).cloned()) {
        return Ok(table);
    }
    let table = Rc::new(RefCell::new(Table::look_up(relid, trigger.shape())?));
    KNOWN.with_borrow_mut(|known| known.insert(relid.to_u32(), table.clone()));
    Ok(table)
}

impl Table {
    fn look_up(relid: Oid, shape: Shape) -> Result<Self> {
        let root = scan::partition_root(relid)?;
        let not_registered = || Error::NotRegistered { table: session::relation_name(relid) };
        let (schema_name, table_name) = session::relation_names(root).ok_or_else(not_registered)?;
        let ours = schema_name == "custody" && CONFIGURATION.iter().any(|t| *t == table_name);
        let mut treatment = vec![Treatment::Stored; shape.columns.len()];
        let mut tenant = None;
        if !ours {
            // A partition may be registered by itself, and its root too: the nearest counts.
            let (excluded, redacted) = match registered(relid)? {
                Some(found) => found,
                None => registered(root)?.ok_or_else(not_registered)?,
            };
            for (names, how) in [(excluded, Treatment::Excluded), (redacted, Treatment::Redacted)] {
                for place in names.iter().filter_map(|name| shape.position(name)) {
                    treatment[place] = how;
                }
            }
            tenant = match registry::tenant_column(relid)? {
                Some(column) => shape.position(&column),
                None => registry::tenant_column(root)?.and_then(|column| shape.position(&column)),
            };
        }
        Ok(Self { schema_name: schema_name.into(), table_name: table_name.into(), shape, tenant, treatment })
    }
}

/// The columns left out and the columns digested, of a registered table.
fn registered(relid: Oid) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let found = scan::our_rows("audited_table", &[Key::Oid(relid)], |row| Some((row.names(2), row.names(3))))?;
    Ok(found.into_iter().next())
}
