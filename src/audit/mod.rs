//! What is recorded: capture (from rows to facts), the transaction that chains, signs and writes them, keys and incarnations.

pub mod baseline;
pub mod capture;
pub mod ddl;
pub mod erase;
pub mod incarnation;
pub mod key;
pub mod key_life;
pub mod register;
pub mod table;
pub mod transaction;
