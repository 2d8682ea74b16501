//! The boundary: Rust errors and panics become PostgreSQL errors with SQLSTATEs of our own.
//!
//! pgrx knows only core's SQLSTATEs and turns others into XX000, so our functions have a guard of their own. An error of ours
//! that crosses a pgrx boundary on its way (raised by a trigger under our SPI call) is recognised by its message.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::{Report, Result};

thread_local! {
    /// The last error raised here: (message, SQLSTATE).
    static RAISED: RefCell<Option<(String, &'static str)>> = const { RefCell::new(None) };
}

unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn errcode(code: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
}

/// Keeps Rust's backtraces out of the DETAIL of errors, whatever the server's environment says.
pub fn no_backtraces() {
    // SAFETY: called from _PG_init, in a process with one thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}

/// Runs what C calls, and turns every way in which it can fail into an ERROR.
///
/// # Safety
/// To be called only as the whole body of an `extern "C-unwind"` function that PostgreSQL calls, with nothing to drop in it.
pub unsafe fn guard<T>(body: impl FnOnce() -> Result<T>) -> T {
    let payload = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => raise(error.report()),
        Err(payload) => payload,
    };
    match ours(&*payload) {
        Some(report) => {
            drop(payload);
            raise(report)
        }
        // SAFETY: nothing of this frame has a destructor left to run; pgrx reports what it caught.
        None => unsafe { pg_sys::panic::pgrx_extern_c_guard(move || resume_unwind(payload)) },
    }
}

/// An error of ours that pgrx caught, with the SQLSTATE it had.
pub fn ours(payload: &(dyn Any + Send)) -> Option<Report> {
    let Some(CaughtError::PostgresError(caught)) = payload.downcast_ref::<CaughtError>() else { return None };
    let sqlstate = RAISED.with_borrow(|r| r.as_ref().filter(|r| r.0 == caught.message()).map(|r| r.1))?;
    Some(Report {
        sqlstate,
        message: caught.message().to_owned(),
        detail: caught.detail().map(ToOwned::to_owned),
        hint: caught.hint().map(ToOwned::to_owned),
    })
}

/// Raises an ERROR from where C called us.
fn raise(report: Report) -> ! {
    const LEVEL: c_int = pgrx::PgLogLevel::ERROR as c_int;
    let code = sqlstate(report.sqlstate);
    RAISED.set(Some((report.message.clone(), report.sqlstate)));
    let message = palloc(report.message);
    let detail = report.detail.map(palloc);
    let hint = report.hint.map(palloc);
    let text = c"%s".as_ptr();
    // SAFETY: the strings live in a memory context that outlives the report. All Rust values of this frame have been moved
    // into those or dropped, so errfinish may jump over it.
    unsafe {
        if errstart(LEVEL, std::ptr::null()) {
            errcode(code);
            errmsg(text, message);
            if let Some(detail) = detail {
                errdetail(text, detail);
            }
            if let Some(hint) = hint {
                errhint(text, hint);
            }
            errfinish(c"pg_custody".as_ptr(), 0, c"custody".as_ptr());
        }
    }
    unreachable!("errfinish does not return at ERROR")
}

fn palloc(text: String) -> *const c_char {
    let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
    // SAFETY: pstrdup copies a terminated string into the current memory context.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// PostgreSQL's MAKE_SQLSTATE: five characters, six bits each.
pub fn sqlstate(code: &str) -> c_int {
    code.bytes().rev().fold(0, |all, c| (all << 6) | ((c_int::from(c) - 0x30) & 0x3f))
}
