//! What an SQL-language function's text says, as the tree that PostgreSQL makes of it when it inlines the function.

use std::ffi::c_void;

use pgrx::{PgTryBuilder, pg_sys};

use crate::pg::data;

unsafe extern "C-unwind" {
    fn prepare_sql_fn_parse_info(
        tuple: pg_sys::HeapTuple,
        call: *mut pg_sys::Node,
        collation: pg_sys::Oid,
    ) -> *mut c_void;
    fn sql_fn_parser_setup(state: *mut pg_sys::ParseState, info: *mut c_void);
}

unsafe extern "C-unwind" fn setup(state: *mut pg_sys::ParseState, info: *mut c_void) {
    // SAFETY: called back by parse_analyze_withcb with what it was given.
    unsafe { sql_fn_parser_setup(state, info) }
}

/// The tree of a function's body, under this session's `search_path`; none if it is not one statement that can be read.
///
/// The body's own `search_path` is not applied: a body that needs it to be read isn't looked into.
pub fn tree(function: pg_sys::Oid) -> Option<String> {
    // SAFETY: a subtransaction around what may fail, left either way; context and resource owner are put back as PL/pgSQL does.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let found = PgTryBuilder::new(|| Some(read(function))).catch_others(|_| None).execute();
        pg_sys::MemoryContextSwitchTo(context);
        match found {
            Some(_) => pg_sys::ReleaseCurrentSubTransaction(),
            None => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        found.flatten()
    }
}

/// # Safety
/// Raises what PostgreSQL raises; to be called in a subtransaction.
unsafe fn read(function: pg_sys::Oid) -> Option<String> {
    // SAFETY: the tuple is released on the way out, and by the subtransaction if an error comes between.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let mut null = false;
        let number = pg_sys::Anum_pg_proc_prosrc as i16;
        let source = pg_sys::SysCacheGetAttr(pg_sys::SysCacheIdentifier::PROCOID as i32, tuple, number, &mut null);
        let source = pg_sys::text_to_cstring(source.cast_mut_ptr());
        let statements = pg_sys::pg_parse_query(source);
        let mut found = None;
        if !statements.is_null() && (*statements).length == 1 {
            let statement = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
            let info = prepare_sql_fn_parse_info(tuple, std::ptr::null_mut(), pg_sys::InvalidOid);
            let query = pg_sys::parse_analyze_withcb(statement, source, Some(setup), info, std::ptr::null_mut());
            found = data::string(pg_sys::nodeToString(query.cast()));
        }
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}
