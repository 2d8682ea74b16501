//! What is known of an audited table: its shape, whose rows it holds, and what must not be stored.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::pg::call::Oid;
use crate::pg::row::{Shape, Trigger};
use crate::pg::scan::{self, Key};
use crate::pg::session;
use crate::tenant::registry;

/// Tables of our own whose every change is an entry of the system chain.
pub const CONFIGURATION: [&str; 9] = [
    "guard_setting",
    "tenants",
    "registered_table",
    "audited_table",
    "role_binding",
    "assume_grant",
    "token_key",
    "token_revocation",
    "waiver",
];

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
    /// Whose row was recorded last: most often the next one's too.
    pub last_tenant: Rc<str>,
    /// Whether it is one of our own, of which sessions keep what they have read.
    pub configures: bool,
    root: Oid,
    /// When its names were looked up.
    named_at: u64,
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
    /// Grows whenever some table or schema may have a new name.
    static NAMES: Cell<u64> = const { Cell::new(0) };
}

/// Some table or schema may have a new name.
pub fn names_changed() {
    NAMES.set(NAMES.get() + 1);
}

/// Drops what is known of a table whose definition changed; of all, if 0.
pub fn forget(relid: u32) {
    names_changed();
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
        if let Ok(mut table) = table.try_borrow_mut() {
            table.refresh_names();
        }
        return Ok(table);
    }
    let table = Rc::new(RefCell::new(Table::look_up(relid, trigger.shape())?));
    KNOWN.with_borrow_mut(|known| known.insert(relid.to_u32(), table.clone()));
    Ok(table)
}

impl Table {
    /// An audited table, or a partition of one, by its oid.
    pub fn look_up(relid: Oid, shape: Shape) -> Result<Self> {
        // Before the names are: what changes meanwhile is looked at again.
        let named_at = NAMES.get();
        let name = || session::relation_name(relid);
        let not_registered = || Error::NotRegistered { table: name() };
        let line = scan::with_ancestors(relid)?;
        let names = |of| session::relation_names(of).ok_or_else(not_registered);
        let mut treatment = vec![Treatment::Stored; shape.columns.len()];
        let (own_schema, own_name) = names(relid)?;
        if own_schema == "custody" && CONFIGURATION.iter().any(|t| *t == own_name) {
            let tenant = None;
            let (schema_name, table_name) = (own_schema.into(), own_name.into());
            let (last_tenant, root) = ("".into(), relid);
            return Ok(Self {
                schema_name,
                table_name,
                shape,
                tenant,
                treatment,
                last_tenant,
                configures: true,
                root,
                named_at,
            });
        }
        // A partition may be registered by itself, and its parents too: the nearest counts.
        let mut nearest = None;
        for of in &line {
            if let Some(found) = registered(*of)? {
                nearest = Some((*of, found));
                break;
            }
        }
        let (root, (excluded, redacted)) = nearest.ok_or_else(not_registered)?;
        // A column that is not found by its name any more must not become one that is stored, nor a tenant's row the system's.
        let renamed = |column: &str, what: &str, call: &str| Error::CannotAudit {
            table: name(),
            why: format!("Its {what} \"{column}\" is not there, or is part of the primary key now."),
            hint: format!("If it was renamed, SELECT {call} with its new name."),
        };
        for (names, how) in [(excluded, Treatment::Excluded), (redacted, Treatment::Redacted)] {
            for column in names {
                match shape.position(&column) {
                    Some(place) if !shape.key.contains(&place) => treatment[place] = how,
                    _ => return Err(renamed(&column, "excluded or redacted column", "custody.audit(…)")),
                }
            }
        }
        let mut tenant = None;
        for of in &line {
            if let Some(column) = registry::tenant_column(*of)? {
                let place = shape.position(&column);
                tenant = Some(place.ok_or_else(|| renamed(&column, "tenant column", "custody.protect(…)"))?);
                break;
            }
        }
        let (schema_name, table_name) = names(root)?;
        let (schema_name, table_name, last_tenant) = (schema_name.into(), table_name.into(), "".into());
        Ok(Self { schema_name, table_name, shape, tenant, treatment, last_tenant, configures: false, root, named_at })
    }

    /// Takes over a new name of the registered table or its schema, of which the partition's own definition says nothing.
    fn refresh_names(&mut self) {
        let now = NAMES.get();
        if self.named_at != now
            && let Some((schema, table)) = session::relation_names(self.root)
        {
            (self.schema_name, self.table_name, self.named_at) = (schema.into(), table.into(), now);
        }
    }
}

/// The columns left out and the columns digested, of a registered table.
fn registered(relid: Oid) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let found = scan::our_rows("audited_table", &[Key::Oid(relid)], |row| Some((row.names(2), row.names(3))))?;
    Ok(found.into_iter().next())
}
