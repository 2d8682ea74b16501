//! What others can hold against the log: a Merkle tree of checkpoints, signed notes, witnesses' cosignatures, portable proofs.
//!
//! Nothing here is of our invention but the leaves ([`leaf`]): RFC 6962 section 2.1 and the C2SP specifications signed-note,
//! tlog-checkpoint, tlog-cosignature and tlog-proof, so that tools made for other logs can read this one.

pub mod checkpoint;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod witness;
