//! What others can hold against the log: checkpoints, their proofs, and whether the log still is what they say.

pub mod check;
mod checkpoint;
mod export;
mod proof;
pub mod tree;
