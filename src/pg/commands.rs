//! Utility statements that the guard cares for and that event triggers do not hear of.

use std::ffi::c_char;

use pgrx::pg_sys;

use crate::pg::data;

/// What a statement is to the guard.
#[derive(Debug)]
pub enum Command {
    /// Nothing.
    Other,
    /// Refused for what it is.
    Refused { what: String, why: &'static str },
    /// Judged by what it leaves behind.
    Judged,
}

const PARAMETERS: [&str; 5] = [
    "session_replication_role",
    "shared_preload_libraries",
    "session_preload_libraries",
    "local_preload_libraries",
    "dynamic_library_path",
];

/// Whether a statement is DROP EXTENSION of this one.
///
/// # Safety
/// As `look`.
pub unsafe fn drops_us(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller promises it.
    unsafe {
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_DropStmt {
            return false;
        }
        let drop = statement.cast::<pg_sys::DropStmt>();
        (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION
            && strings((*drop).objects).iter().any(|name| name == "pg_custody")
    }
}

/// Looks at a statement.
///
/// # Safety
/// `statement` must be a valid utility statement, or null.
pub unsafe fn look(statement: *mut pg_sys::Node) -> Command {
    use pg_sys::NodeTag::*;
    use pg_sys::ObjectType::*;
    const UNLOADS: &str = "it decides whether pg_custody and its triggers are in force";
    const CARRIES: &str = "the whole of pg_custody, the log included, is in it";
    // SAFETY: the caller passes a valid statement; its tag says which it is.
    unsafe {
        if statement.is_null() {
            return Command::Other;
        }
        let refused = |what: String, why| Command::Refused { what, why };
        match (*statement).type_ {
            T_VariableSetStmt => {
                let set = statement.cast::<pg_sys::VariableSetStmt>();
                match parameter(set) {
                    Some("session_replication_role") if !to_default(set) => {
                        refused("SET session_replication_role".into(), "it switches off triggers and foreign keys")
                    }
                    _ => Command::Other,
                }
            }
            T_AlterSystemStmt => {
                let set = (*statement.cast::<pg_sys::AlterSystemStmt>()).setstmt;
                match parameter(set) {
                    Some(name) => refused(format!("ALTER SYSTEM of {name}"), UNLOADS),
                    None if (*set).kind == pg_sys::VariableSetKind::VAR_RESET_ALL => {
                        refused("ALTER SYSTEM RESET ALL".into(), UNLOADS)
                    }
                    None => Command::Other,
                }
            }
            T_AlterRoleSetStmt => match parameter((*statement.cast::<pg_sys::AlterRoleSetStmt>()).setstmt) {
                Some(name) => refused(format!("ALTER ROLE … SET {name}"), UNLOADS),
                None => Command::Judged,
            },
            T_AlterDatabaseSetStmt => match parameter((*statement.cast::<pg_sys::AlterDatabaseSetStmt>()).setstmt) {
                Some(name) => refused(format!("ALTER DATABASE … SET {name}"), UNLOADS),
                None => Command::Judged,
            },
            T_RenameStmt => {
                let rename = statement.cast::<pg_sys::RenameStmt>();
                match (*rename).renameType {
                    OBJECT_SCHEMA if is((*rename).subname, "custody") => {
                        refused("renaming the schema custody".into(), "nothing of pg_custody would be found any more")
                    }
                    OBJECT_EVENT_TRIGGER => Command::Judged,
                    _ => Command::Other,
                }
            }
            T_DropStmt => {
                let drop = statement.cast::<pg_sys::DropStmt>();
                let names = |name| strings((*drop).objects).iter().any(|n| n == name);
                match (*drop).removeType {
                    OBJECT_EXTENSION if names("pg_custody") => refused("DROP EXTENSION pg_custody".into(), CARRIES),
                    OBJECT_SCHEMA if names("custody") => refused("DROP SCHEMA custody".into(), CARRIES),
                    OBJECT_EVENT_TRIGGER => Command::Judged,
                    _ => Command::Other,
                }
            }
            T_GrantStmt => match (*statement.cast::<pg_sys::GrantStmt>()).objtype {
                OBJECT_DATABASE | OBJECT_PARAMETER_ACL => Command::Judged,
                _ => Command::Other,
            },
            T_AlterOwnerStmt => match (*statement.cast::<pg_sys::AlterOwnerStmt>()).objectType {
                OBJECT_DATABASE | OBJECT_EVENT_TRIGGER => Command::Judged,
                _ => Command::Other,
            },
            T_DropOwnedStmt
            | T_ReassignOwnedStmt
            | T_CreateRoleStmt
            | T_AlterRoleStmt
            | T_GrantRoleStmt
            | T_CreateEventTrigStmt
            | T_AlterEventTrigStmt => Command::Judged,
            _ => Command::Other,
        }
    }
}

/// The parameter that a SET or RESET names, if it is one that matters.
unsafe fn parameter(set: *mut pg_sys::VariableSetStmt) -> Option<&'static str> {
    // SAFETY: the caller passes a valid statement; RESET ALL has no name.
    let name = unsafe { data::string((*set).name) }?;
    PARAMETERS.into_iter().find(|p| p.eq_ignore_ascii_case(&name))
}

/// Whether a SET gives the parameter the value that every session begins with.
unsafe fn to_default(set: *mut pg_sys::VariableSetStmt) -> bool {
    // SAFETY: the caller passes a valid statement; the arguments of a plain SET are constants.
    unsafe {
        if (*set).kind != pg_sys::VariableSetKind::VAR_SET_VALUE {
            return true;
        }
        let list = (*set).args;
        if list.is_null() || (*list).length != 1 {
            return false;
        }
        let argument = (*(*list).elements).ptr_value.cast::<pg_sys::A_Const>();
        (*argument).type_ == pg_sys::NodeTag::T_A_Const
            && (*argument).val.node.type_ == pg_sys::NodeTag::T_String
            && is((*argument).val.sval.sval, "origin")
    }
}

unsafe fn is(text: *const c_char, name: &str) -> bool {
    // SAFETY: the caller passes a terminated string or null.
    unsafe { data::string(text) }.is_some_and(|t| t.eq_ignore_ascii_case(name))
}

/// The names in a list of String nodes.
unsafe fn strings(list: *mut pg_sys::List) -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the caller passes a valid list or null, whose elements are nodes.
    unsafe {
        if !list.is_null() {
            for i in 0..(*list).length as usize {
                let node = (*(*list).elements.add(i)).ptr_value.cast::<pg_sys::String>();
                if (*node).type_ == pg_sys::NodeTag::T_String {
                    names.extend(data::string((*node).sval));
                }
            }
        }
    }
    names
}
