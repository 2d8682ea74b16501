//! Portable proofs (c2sp.org/tlog-proof): that something is in a log, in one file that needs no server.

use base64ct::{Base64, Encoding};

use crate::Hash;
use crate::tlog::checkpoint::{Checkpoint, decimal};
use crate::tlog::merkle::verify_inclusion;
use crate::tlog::note::{self, MAX_NOTE, NoteError, NoteKey, Signed};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A path has at most one hash for each level.
const MAX_PATH: usize = 63;

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[allow(missing_docs)]
pub enum ProofError {
    #[error("the proof is not well-formed: {0}")]
    Malformed(&'static str),
    #[error("its checkpoint is refused: {0}")]
    Checkpoint(#[from] NoteError),
    #[error("{0}")]
    NoCheckpoint(#[from] super::checkpoint::NoCheckpoint),
    #[error("the checkpoint is of another log: {0}")]
    OtherLog(String),
    #[error("the path does not lead to the checkpoint's root")]
    NotIncluded,
}

/// A proof that has been read; nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What the maker wants to go with it; proves nothing.
    pub extra: Option<Vec<u8>>,
    /// The leaf's number, from 0.
    pub index: u64,
    /// From the leaf to the root.
    pub path: Vec<Hash>,
    /// The signed note.
    pub checkpoint: Vec<u8>,
}

impl Proof {
    /// The file's bytes.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            text += &format!("extra {}\n", Base64::encode_string(extra));
        }
        text += &format!("index {}\n", self.index);
        for hash in &self.path {
            text += &Base64::encode_string(hash);
            text.push('\n');
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.checkpoint);
        bytes
    }

    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let malformed = ProofError::Malformed;
        if bytes.len() > 2 * MAX_NOTE {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(malformed("no blank line stands before its checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(malformed("its first line is another"));
        }
        let extra = match lines.next_if(|l| l.starts_with("extra ")) {
            Some(line) => Some(Base64::decode_vec(&line[6..]).map_err(|_| malformed("its extra data is not base64"))?),
            None => None,
        };
        let index =
            lines.next().and_then(|l| decimal(l.strip_prefix("index ")?)).ok_or(malformed("it has no index"))?;
        let mut path = Vec::new();
        for line in lines {
            let hash = Base64::decode_vec(line).ok().and_then(|h| h.try_into().ok());
            path.push(hash.ok_or(malformed("its path is not of hashes"))?);
            if path.len() > MAX_PATH {
                return Err(malformed("its path is too long"));
            }
        }
        Ok(Self { extra, index, path, checkpoint: checkpoint.as_bytes().to_vec() })
    }

    /// Whether the leaf is in the log `origin`, as one of the `known` keys has signed it.
    pub fn verify(
        &self,
        leaf: &Hash,
        origin: &str,
        known: &[NoteKey],
    ) -> Result<(Checkpoint, Vec<Signed>), ProofError> {
        let note = note::open(&self.checkpoint, known)?;
        let checkpoint = Checkpoint::parse(&note.text)?;
        if checkpoint.origin != origin {
            return Err(ProofError::OtherLog(checkpoint.origin));
        }
        match verify_inclusion(leaf, self.index, checkpoint.size, &self.path, &checkpoint.root) {
            true => Ok((checkpoint, note.signed)),
            false => Err(ProofError::NotIncluded),
        }
    }
}
