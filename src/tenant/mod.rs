//! For whom a transaction acts, and the tables whose tenants are kept apart.

pub mod context;
pub mod protect;
pub mod registry;
pub mod roles;
pub mod token;
mod token_keys;
