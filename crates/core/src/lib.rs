//! The bytes of the log: what is hashed, what is signed, how it is verified, how a token is read, and how findings are reported.
//!
//! Nothing here knows PostgreSQL. `docs/format.md` is the specification; section numbers below are its own.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod candidate;
pub mod coverage;
pub mod encoding;
pub mod entry;
pub mod erasure;
pub mod export;
pub mod journal;
pub mod json;
pub mod key;
pub mod key_file;
pub mod policy;
pub mod reconcile;
pub mod redact;
pub mod sweep;
pub mod tlog;
pub mod token;
pub mod verify;
pub mod wire;

/// A SHA-256 digest.
pub type Hash = [u8; 32];
