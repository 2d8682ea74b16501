//! What a witness decides (c2sp.org/tlog-witness): whether a checkpoint goes on from the one it saw last.

use base64ct::{Base64, Encoding};

use crate::Hash;
use crate::tlog::checkpoint::{Checkpoint, decimal};
use crate::tlog::merkle::{empty_root, verify_consistency};
use crate::tlog::note::{self, NoteError, NoteKey};

/// The longest request that is read.
pub const MAX_REQUEST: usize = 1 << 20;
/// More hashes than any proof has.
const MAX_PROOF: usize = 63;

/// A request: "I was at `old`; here is the proof that I went on to this checkpoint".
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The size that the witness is said to have seen.
    pub old: u64,
    /// RFC 6962 section 2.1.2.
    pub proof: Vec<Hash>,
    /// The signed note.
    pub note: &'a [u8],
}

/// Why a witness does not cosign.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum Refusal {
    /// Not a request, or its old size is beyond its checkpoint (400).
    #[error("bad request: {0}")]
    Bad(String),
    /// No known key signed it (403).
    #[error("no key that is known for this log has signed the checkpoint")]
    Unsigned,
    /// Nobody told the witness about this log (404).
    #[error("this log is not known here")]
    Unknown,
    /// The witness is at another size, or at this one with another root (409).
    #[error("the last checkpoint that was cosigned here has {0} leaves")]
    Conflict(u64),
    /// The proof does not hold (422): the log may have been rewritten.
    #[error("the proof does not lead from the last cosigned checkpoint to this one")]
    Inconsistent,
}

impl Refusal {
    /// The status of the HTTP response.
    pub fn status(&self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::Unsigned => 403,
            Self::Unknown => 404,
            Self::Conflict(_) => 409,
            Self::Inconsistent => 422,
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a request's body.
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::Bad(why.into());
        if body.len() > MAX_REQUEST {
            return Err(bad("it is too long"));
        }
        let end =
            body.windows(2).position(|w| w == b"\n\n").ok_or(bad("no empty line stands before the checkpoint"))?;
        let head = std::str::from_utf8(&body[..end]).map_err(|_| bad("it is not UTF-8"))?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|l| decimal(l.strip_prefix("old ")?))
            .ok_or(bad("its first line is not the old size"))?;
        let mut proof = Vec::new();
        for line in lines {
            let hash = Base64::decode_vec(line).ok().and_then(|h| h.try_into().ok());
            proof.push(hash.ok_or(bad("its proof is not of hashes"))?);
            if proof.len() > MAX_PROOF {
                return Err(bad("its proof is too long"));
            }
        }
        Ok(Self { old, proof, note: &body[end + 2..] })
    }

    /// The request's body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("old {}\n", self.old);
        for hash in &self.proof {
            head += &Base64::encode_string(hash);
            head.push('\n');
        }
        head.push('\n');
        [head.as_bytes(), self.note].concat()
    }

    /// Which log it is about, as it says itself. Nothing is checked yet.
    pub fn origin(&self) -> Result<String, Refusal> {
        let (text, _) = note::split(self.note).map_err(|e| Refusal::Bad(e.to_string()))?;
        Checkpoint::parse(text).map(|c| c.origin).map_err(|e| Refusal::Bad(e.to_string()))
    }

    /// The checkpoint, and the text to cosign, if it goes on from `last`, the one cosigned before. `known` are the keys of its log.
    pub fn decide(&self, known: &[NoteKey], last: Option<&Checkpoint>) -> Result<(Checkpoint, String), Refusal> {
        let note = note::open(self.note, known).map_err(|e| match e {
            NoteError::Malformed(_) => Refusal::Bad(e.to_string()),
            _ => Refusal::Unsigned,
        })?;
        let new = Checkpoint::parse(&note.text).map_err(|e| Refusal::Bad(e.to_string()))?;
        if self.old > new.size {
            return Err(Refusal::Bad("the old size is larger than the checkpoint's".into()));
        }
        let (size, root) = last.map_or((0, empty_root()), |last| (last.size, last.root));
        if self.old != size || (self.old == new.size && root != new.root) {
            return Err(Refusal::Conflict(size));
        }
        // From nothing, anything may follow, and there is nothing to prove.
        let consistent = match self.old {
            0 => self.proof.is_empty(),
            old => verify_consistency(old, &root, new.size, &new.root, &self.proof),
        };
        match consistent {
            true => Ok((new, note.text)),
            false => Err(Refusal::Inconsistent),
        }
    }
}
