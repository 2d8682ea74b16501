//! MERGE under row-level security: a MERGE that names no column of its target scans rows that the policies for reading hide, and
//! fails on the first of them, which tells that there is one. Reading them is part of every MERGE, so it is asked for here.

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::guard::guard;
use crate::pg::session;

static mut PREVIOUS: pg_sys::post_parse_analyze_hook_type = None;

/// Installs the hook before one already there.
pub fn install() {
    // SAFETY: called once, from _PG_init, in a process with one thread.
    unsafe {
        PREVIOUS = pg_sys::post_parse_analyze_hook;
        pg_sys::post_parse_analyze_hook = Some(analyzed);
    }
}

unsafe extern "C-unwind" fn analyzed(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL passes a query of its own making; a MERGE's target is in its range table, and is locked. The hook before
    // ours is called once, with nothing of this frame to drop.
    unsafe {
        guard(|| {
            if (*query).commandType == pg_sys::CmdType::CMD_MERGE && (*query).resultRelation > 0 {
                let place = (*query).resultRelation as usize - 1;
                let target = (*(*(*query).rtable).elements.add(place)).ptr_value.cast::<pg_sys::RangeTblEntry>();
                let relation = pg_sys::RelationIdGetRelation((*target).relid);
                if !relation.is_null() {
                    if (*(*relation).rd_rel).relrowsecurity {
                        (*target).requiredPerms |= pg_sys::ACL_SELECT;
                    }
                    pg_sys::RelationClose(relation);
                }
            }
            Ok(())
        });
        if let Some(previous) = PREVIOUS {
            previous(state, query, jumble);
        }
    }
}

/// Refuses a MERGE that was parsed where the hook is not called: the body of a function in BEGIN ATOMIC, or a statement prepared before
/// the library was loaded.
///
/// # Safety
/// To be called with the query that PostgreSQL passed to the hook that starts it.
pub unsafe fn refuse_blind(query: *mut pg_sys::QueryDesc) -> Result<()> {
    // SAFETY: the caller promises it; a plan's range table is one of entries.
    unsafe {
        let plan = (*query).plannedstmt;
        if (*query).operation != pg_sys::CmdType::CMD_MERGE || plan.is_null() || (*plan).rtable.is_null() {
            return Ok(());
        }
        const WRITES: u32 = pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE;
        let entries = (*plan).rtable;
        for n in 0..(*entries).length as usize {
            let entry = (*(*entries).elements.add(n)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            let blind = (*entry).requiredPerms & WRITES != 0 && (*entry).requiredPerms & pg_sys::ACL_SELECT == 0;
            if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && blind
                && session::row_security_active_for((*entry).relid, (*entry).checkAsUser)
            {
                return Err(Error::BlindMerge { table: session::relation_name((*entry).relid) });
            }
        }
        Ok(())
    }
}
