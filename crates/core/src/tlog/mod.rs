//! What others can hold against the log: a Merkle tree of checkpoints, signed notes, witnesses' cosignatures, portable proofs.
//!
//! Nothing here is of our invention but the leaves ([`leaf`]): RFC 6962 section 2.1 and the C2SP specifications signed-note,
//! tlog-checkpoint, tlog-cosignature and tlog-proof, so that tools made for other logs can read this one.

pub mod checkpoint;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod tenant;
pub mod witness;

use uuid::Uuid;

const ORIGIN: &str = "pg_custody/";

/// The name of an incarnation's tree, and of the key that signs it.
pub fn origin(incarnation: Uuid) -> String {
    format!("{ORIGIN}{incarnation}")
}

/// The incarnation whose tree has this name.
pub fn incarnation(of: &str) -> Option<Uuid> {
    let id = of.strip_prefix(ORIGIN)?.parse().ok()?;
    (origin(id) == of).then_some(id)
}
