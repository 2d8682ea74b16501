//! Holding a table against its log: what the entries say its rows are, less what its rows are.
//!
//! Every column of every row is a term, hashed with a secret that is drawn for this one comparison. What entries add and take away is
//! summed in buckets of keys, and what the table holds is taken off; the terms between cancel out, so that no entry has to be kept
//! or sorted. A bucket in which anything is left is looked at again, key by key ([`tally::Detail`]).

pub mod baseline;
pub mod history;
pub mod image;
pub mod tally;

#[cfg(test)]
mod tests;
