//! pg_custody: tenant isolation, and an append-only, hash-chained, signed audit log, in PostgreSQL.
//!
//! Rooms: `tenant` (for whom a transaction acts, and the tables that are kept apart), `audit` (what is recorded, and how it gets into the log),
//! `verify` (whether the log is whole), `reconcile` (whether tables are what it says), `evidence` (what others can hold against it), `coverage` (what policies mean), `gate` (what pipelines ask),
//! `probe` (whether the isolation holds, by attempt), `guard` (what DDL may not do), `posture` (what is in force), `pg` (all that is unsafe).
//! The bytes are made in `crates/core`.
#![deny(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod coverage;
mod error;
mod evidence;
mod gate;
mod guard;
mod pg;
mod posture;
mod probe;
mod reconcile;
mod settings;
mod tenant;
mod verify;

pgrx::pg_module_magic!();

/// What PostgreSQL calls when it loads the library.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::guard::no_backtraces();
    settings::define();
    pg::context_setting::define();
    pg::xact::register();
    pg::hooks::install();
    pg::worker::register();
    pg::use_hooks::install();
    pg::merge::install();
    pg::floor::install();
    pg::guard_hooks::install();
}
