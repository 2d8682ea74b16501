//! Exports must not be contradicted by a crash.

use crate::pg::call::VOID;
use crate::pg::session;
use crate::sql_functions;

sql_functions! {
    custody_flush_wal, pg_finfo_custody_flush_wal => |_| {
        session::flush_wal();
        Ok(VOID)
    };
}
