//! Checkpoints (c2sp.org/tlog-checkpoint): the text of a note that says "the log `origin` has `size` leaves and this root".

use base64ct::{Base64, Encoding};

use crate::Hash;
use crate::tlog::merkle::{self, MAX_SIZE};

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log. Ours names the incarnation.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// Their root.
    pub root: Hash,
}

/// Why a text is no checkpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("no checkpoint: {0}")]
pub struct NoCheckpoint(pub &'static str);

impl Checkpoint {
    /// The text to be signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, Base64::encode_string(&self.root))
    }

    /// Reads a note's text. Lines beyond the third are extensions, which have no meaning here.
    pub fn parse(text: &str) -> Result<Self, NoCheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(NoCheckpoint("its last line does not end"))?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoCheckpoint("it has fewer than three lines"));
        };
        if origin.is_empty() {
            return Err(NoCheckpoint("it names no log"));
        }
        if lines.any(str::is_empty) {
            return Err(NoCheckpoint("a line is empty"));
        }
        let size = decimal(size).filter(|n| *n <= MAX_SIZE).ok_or(NoCheckpoint("its size is no number"))?;
        let bytes = Base64::decode_vec(root).map_err(|_| NoCheckpoint("its root is not base64"))?;
        let root = bytes.try_into().map_err(|_| NoCheckpoint("its root has not 32 bytes"))?;
        if size == 0 && root != merkle::empty_root() {
            return Err(NoCheckpoint("an empty log has another root"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

/// A number without sign or leading zeros.
pub fn decimal(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain)
}
