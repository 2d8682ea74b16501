//! The only place that speaks to PostgreSQL's C side. What it offers is safe to call; why is said at each block.

pub mod append;
pub mod attempt;
pub mod body;
pub mod call;
pub mod commands;
pub mod context_setting;
pub mod data;
pub mod floor;
pub mod guard;
pub mod guard_hooks;
pub mod hooks;
pub mod lane;
pub mod layout;
pub mod leftover;
pub mod merge;
pub mod moment;
pub mod pages;
pub mod row;
pub mod scan;
pub mod seen;
pub mod session;
pub mod spi;
pub mod strip;
pub mod use_hooks;
pub mod worker;
pub mod xact;
