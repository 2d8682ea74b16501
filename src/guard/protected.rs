//! Which tables are registered as protected, remembered for each relation: asked at every start of a query.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::error::Result;
use crate::pg::call::Oid;
use crate::pg::{guard_hooks, scan};
use crate::tenant::registry;

thread_local! {
    /// The tenant column of each relation that was asked for; none for those that are not protected.
    static KNOWN: RefCell<HashMap<u32, Option<Rc<str>>>> = RefCell::new(HashMap::new());
    /// The registry itself: when it changes, everything may have.
    static REGISTRY: Cell<u32> = const { Cell::new(0) };
}

/// The tenant column of a protected table or partition; none if it is not one.
pub fn of(relid: Oid) -> Result<Option<Rc<str>>> {
    let number = relid.to_u32();
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&number).cloned()) {
        return Ok(known);
    }
    let changes = guard_hooks::changes();
    let column = match scan::our_table("registered_table") {
        Some(registry) => {
            REGISTRY.set(registry.to_u32());
            registry::tenant_column(relid)?.map(Rc::from)
        }
        None => None,
    };
    // What changed while it was looked up is looked up again next time.
    if changes == guard_hooks::changes() {
        const KEPT: usize = 16384;
        KNOWN.with_borrow_mut(|known| {
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(number, column.clone());
        });
    }
    Ok(column)
}

/// A relation's definition changed; all may have, if 0.
pub fn forget(relid: u32) {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            match relid == 0 || relid == REGISTRY.get() {
                true => known.clear(),
                false => _ = known.remove(&relid),
            }
        }
    });
}
