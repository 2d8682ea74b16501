//! What holds a protected table whatever its policies are: core's hook for restrictive policies, and a check of permissions that
//! refuses the table where row-level security is switched off, as no policy is asked there.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::guard::protected;
use crate::pg::guard::guard;
use crate::pg::moment::our_function;
use crate::pg::{data, guard_hooks, session};

static mut PREVIOUS_RESTRICTIVE: pg_sys::row_security_policy_hook_type = None;
static mut PREVIOUS_PERMISSIONS: pg_sys::ExecutorCheckPerms_hook_type = None;

thread_local! {
    /// Whether the two hooks look away.
    static ABSENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` as in a session that has not loaded the library, if sessions need not have: what holds only because the session that asks
/// has used pg_custody before does not hold for an application that connects afresh. For `custody.probe`.
pub fn as_applications_have_it<T>(work: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            ABSENT.set(self.0);
        }
    }
    let _back = Back(ABSENT.replace(!guard_hooks::preloaded()));
    work()
}

/// Installs the two hooks before those already there.
pub fn install() {
    // SAFETY: called once, from _PG_init, in a process with one thread.
    unsafe {
        PREVIOUS_RESTRICTIVE = pg_sys::row_security_policy_hook_restrictive;
        pg_sys::row_security_policy_hook_restrictive = Some(restrictive);
        PREVIOUS_PERMISSIONS = pg_sys::ExecutorCheckPerms_hook;
        pg_sys::ExecutorCheckPerms_hook = Some(permissions);
    }
}

unsafe extern "C-unwind" fn restrictive(
    command: pg_sys::CmdType::Type,
    relation: pg_sys::Relation,
) -> *mut pg_sys::List {
    // SAFETY: PostgreSQL passes an open relation; the hook before ours is called with nothing of this frame to drop.
    unsafe {
        let policies = match PREVIOUS_RESTRICTIVE {
            Some(previous) => previous(command, relation),
            None => std::ptr::null_mut(),
        };
        if ABSENT.get() {
            return policies;
        }
        guard(|| {
            Ok(match protected::of((*relation).rd_id)? {
                Some(column) => pg_sys::lappend(policies, floor((*relation).rd_id, &column)?.cast()),
                None => policies,
            })
        })
    }
}

/// The policy: the tenant column is the tenant of the context. It is called what custody.protect calls its own, and its expression
/// is equal to that one's, so that PostgreSQL tests the two once.
unsafe fn floor(relid: pg_sys::Oid, column: &str) -> Result<*mut pg_sys::RowSecurityPolicy> {
    let broken = |why: &str| Error::FloorCannotBe { table: session::relation_name(relid), why: why.to_owned() };
    // SAFETY: catalog look-ups, and nodes made in the current memory context, which is the query's being rewritten.
    unsafe {
        let name = data::c_string(column);
        let attribute = pg_sys::get_attnum(relid, name.as_ptr());
        if attribute == 0 {
            return Err(broken("The tenant column that it is registered with is gone."));
        }
        let (mut kind, mut modifier, mut collation) = (pg_sys::InvalidOid, 0, pg_sys::InvalidOid);
        pg_sys::get_atttypetypmodcoll(relid, attribute, &mut kind, &mut modifier, &mut collation);
        // A domain over one of these is compared as what it is made of.
        let function: &CStr = match pg_sys::getBaseType(kind) {
            pg_sys::TEXTOID | pg_sys::VARCHAROID => c"tenant",
            pg_sys::UUIDOID => c"tenant_uuid",
            pg_sys::INT2OID | pg_sys::INT4OID => c"tenant_int",
            pg_sys::INT8OID => c"tenant_bigint",
            _ => return Err(broken("Its tenant column is of a type that no context fits.")),
        };
        let function =
            our_function(function, &[]).ok_or_else(|| broken("The function that gives the tenant is missing."))?;
        let var = pg_sys::makeVar(1, attribute, kind, modifier, collation, 0);
        let tenant = pg_sys::makeFuncExpr(
            function,
            pg_sys::get_func_rettype(function),
            std::ptr::null_mut(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        let string = |text: &CStr| pg_sys::makeString(pg_sys::pstrdup(text.as_ptr()));
        let operator = pg_sys::lappend(std::ptr::null_mut(), string(c"pg_catalog").cast());
        let operator = pg_sys::lappend(operator, string(c"=").cast());
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let test = pg_sys::make_op(state, operator, var.cast(), tenant.cast(), std::ptr::null_mut(), -1);
        pg_sys::assign_expr_collations(state, test.cast());
        pg_sys::free_parsestate(state);

        let mut public = pg_sys::Datum::from(0u32);
        let policy = pg_sys::palloc0(size_of::<pg_sys::RowSecurityPolicy>()).cast::<pg_sys::RowSecurityPolicy>();
        (*policy).policy_name = pg_sys::pstrdup(c"custody_floor".as_ptr());
        (*policy).polcmd = b'*' as std::ffi::c_char;
        (*policy).roles = pg_sys::construct_array(
            &mut public,
            1,
            pg_sys::OIDOID,
            size_of::<pg_sys::Oid>() as i32,
            true,
            b'i' as std::ffi::c_char,
        );
        (*policy).permissive = false;
        (*policy).qual = test;
        (*policy).with_check_qual = pg_sys::copyObjectImpl(test.cast()).cast();
        (*policy).hassublinks = false;
        Ok(policy)
    }
}

/// As PostgreSQL 15 has it; from 16 on, permissions are in a second list.
unsafe extern "C-unwind" fn permissions(range_table: *mut pg_sys::List, raise: bool) -> bool {
    // SAFETY: PostgreSQL passes a valid range table; the hook before ours is called with nothing of this frame to drop.
    unsafe {
        if let Some(previous) = PREVIOUS_PERMISSIONS
            && !previous(range_table, raise)
        {
            return false;
        }
        if ABSENT.get() {
            return true;
        }
        guard(|| match unguarded(range_table)? {
            Some(relid) if raise => Err(Error::Unguarded { table: session::relation_name(relid) }),
            found => Ok(found.is_none()),
        })
    }
}

/// The first table of a query that is registered as protected, and on which row-level security does not hold a role that it should.
unsafe fn unguarded(range_table: *mut pg_sys::List) -> Result<Option<pg_sys::Oid>> {
    // SAFETY: the caller passes a valid list, or null, of range table entries.
    unsafe {
        if range_table.is_null() {
            return Ok(None);
        }
        for i in 0..(*range_table).length as usize {
            let entry = (*(*range_table).elements.add(i)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            let table = (*entry).relkind as u8 == pg_sys::RELKIND_RELATION
                || (*entry).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION || !table || (*entry).requiredPerms == 0 {
                continue;
            }
            let relid = (*entry).relid;
            if relid.to_u32() < pg_sys::FirstNormalObjectId
                || protected::of(relid)?.is_none()
                || session::row_security_forced(relid)
            {
                continue;
            }
            let role = match (*entry).checkAsUser {
                pg_sys::InvalidOid => session::current_role(),
                role => role,
            };
            if session::why_unbound(role).is_none() {
                return Ok(Some(relid));
            }
        }
    }
    Ok(None)
}
