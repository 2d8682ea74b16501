//! What stays on a connection when a transaction ends, and so would reach whoever gets the connection next: cursors WITH HOLD and
//! temporary objects. None may be made once a context was set, and no context may be set while there are any.
//!
//! The second half is what an attacker needs: a cursor declared before the context is filled at commit, under it; and a temporary
//! table, view or type stands before the permanent one of its name in everything that the next tenant's statements look up.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::{session, spi};

const CURSOR: &str = "a cursor WITH HOLD";
const TABLE: &str = "a temporary table without ON COMMIT DROP";

#[derive(Clone, Copy, PartialEq)]
enum Held {
    No,
    Yes,
    /// The library was loaded in this very transaction, perhaps by the statement that declared one.
    Unknown,
}

thread_local! {
    /// Whether this transaction declared a cursor WITH HOLD.
    static HELD: Cell<Held> = const { Cell::new(Held::Unknown) };
}

/// The transaction is over: what it held is full, and was filled without a context.
pub fn transaction_ended() {
    HELD.set(Held::No);
}

/// To be asked before a utility statement runs: what of it would stay, if that is to be refused.
///
/// # Safety
/// The statement is valid, or null.
pub unsafe fn refused(statement: *mut pg_sys::Node, context_was_set: bool) -> Option<&'static str> {
    // SAFETY: the caller's promise.
    let stays = unsafe { stays(statement, context_was_set) };
    if stays == Some(CURSOR) {
        HELD.set(Held::Yes);
    }
    stays.filter(|_| context_was_set)
}

/// What a statement would leave behind. Temporary tables are looked at only if asked for, as that may make their schema.
unsafe fn stays(statement: *mut pg_sys::Node, tables: bool) -> Option<&'static str> {
    // SAFETY: the caller passes a valid statement or null; its node tag says what it is.
    unsafe {
        if statement.is_null() {
            return None;
        }
        let lasting = |relation: *mut pg_sys::RangeVar, on_commit: pg_sys::OnCommitAction::Type| {
            let kept = tables && !relation.is_null() && on_commit != pg_sys::OnCommitAction::ONCOMMIT_DROP;
            // Where it will be, not how it is written: TEMP, pg_temp.name and search_path = pg_temp come to the same.
            (kept && pg_sys::isTempNamespace(pg_sys::RangeVarGetCreationNamespace(relation))).then_some(TABLE)
        };
        match (*statement).type_ {
            pg_sys::NodeTag::T_DeclareCursorStmt => {
                let held =
                    (*statement.cast::<pg_sys::DeclareCursorStmt>()).options & pg_sys::CURSOR_OPT_HOLD as i32 != 0;
                held.then_some(CURSOR)
            }
            pg_sys::NodeTag::T_CreateTableAsStmt => {
                let into = (*statement.cast::<pg_sys::CreateTableAsStmt>()).into;
                if into.is_null() { None } else { lasting((*into).rel, (*into).onCommit) }
            }
            pg_sys::NodeTag::T_CreateStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                lasting((*create).relation, (*create).oncommit)
            }
            // EXPLAIN ANALYZE of CREATE TABLE AS makes the table, and no utility statement of its own.
            pg_sys::NodeTag::T_ExplainStmt => {
                let query = (*statement.cast::<pg_sys::ExplainStmt>()).query;
                let utility = !query.is_null()
                    && (*query).type_ == pg_sys::NodeTag::T_Query
                    && (*query.cast::<pg_sys::Query>()).commandType == pg_sys::CmdType::CMD_UTILITY;
                if utility { stays((*query.cast::<pg_sys::Query>()).utilityStmt, tables) } else { None }
            }
            _ => None,
        }
    }
}

/// To be asked before a transaction's context is set: refuses while the session has what would carry over.
pub fn refuse() -> Result<()> {
    let held = match HELD.get() {
        Held::No => false,
        Held::Yes => true,
        Held::Unknown => {
            let any = "SELECT true FROM pg_catalog.pg_cursors c WHERE c.is_holdable LIMIT 1";
            !session::as_owner(|| spi::rows(any, &[], |row| row.get::<bool>(1)))?.is_empty()
        }
    };
    if held {
        return Err(Error::LeftOver { what: CURSOR.into() });
    }
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: reads session state; both are InvalidOid until the session makes its first temporary object.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    if schema == pg_sys::InvalidOid {
        return Ok(());
    }
    // Through the index of pg_depend: every object that is in a schema by itself depends on it.
    let any = "SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) FROM pg_catalog.pg_depend d
               WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                 AND d.refobjid OPERATOR(pg_catalog.=) $1 LIMIT 1";
    // The statement that is running may have made some; and a standby, where a context is set too, must not be asked to write.
    let look = || spi::rows(any, &[schema.into()], |row| row.get::<String>(1));
    let found = session::as_owner(|| session::with_new_snapshot(look))?;
    match found.into_iter().next() {
        None => Ok(()),
        Some(what) => Err(Error::LeftOver { what: format!("temporary {}", what.unwrap_or_default()) }),
    }
}
