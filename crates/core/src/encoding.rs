//! Typed, length-prefixed fields (format section 1), fed straight into SHA-256.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Hash;

/// Bytes that gather before they are hashed: most messages fit, and one long call beats twenty short ones.
const GATHERED: usize = 512;

/// Hashes a domain string and then fields, so that no two lists of values share an encoding.
pub struct FieldHasher {
    sha: Sha256,
    gathered: [u8; GATHERED],
    used: usize,
}

impl FieldHasher {
    /// Starts with `domain` and the zero byte that ends it.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self { sha: Sha256::new(), gathered: [0; GATHERED], used: 0 };
        hasher.push(domain.as_bytes());
        hasher.push(&[0]);
        hasher
    }

    /// Bytes, or absent.
    pub fn bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.field(1, value)
    }

    /// Text, or absent.
    pub fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.field(2, value.map(str::as_bytes))
    }

    /// A 64-bit integer.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.field(3, Some(&value.to_be_bytes()))
    }

    /// A uuid, or absent.
    pub fn uuid(&mut self, value: Option<Uuid>) -> &mut Self {
        self.field(4, value.as_ref().map(|u| &u.as_bytes()[..]))
    }

    /// A boolean.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.field(5, Some(&[u8::from(value)]))
    }

    /// The digest.
    pub fn finish(&mut self) -> Hash {
        self.sha.update(&self.gathered[..self.used]);
        std::mem::take(&mut self.sha).finalize().into()
    }

    #[inline]
    fn field(&mut self, tag: u8, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.push(&[0]),
            Some(bytes) => {
                // PostgreSQL's own limit on one value is 1 GiB, so the length always fits.
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                self.push(&[tag, length[0], length[1], length[2], length[3]]);
                self.push(bytes);
            }
        }
        self
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.gathered.get_mut(self.used..self.used + bytes.len()) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
        } else {
            self.sha.update(&self.gathered[..self.used]);
            self.used = 0;
            self.sha.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_differs_from_empty_and_types_differ() {
        let h = |f: fn(&mut FieldHasher) -> &mut FieldHasher| f(&mut FieldHasher::new("t")).finish();
        let all = [
            h(|f| f.text(None)),
            h(|f| f.text(Some(""))),
            h(|f| f.bytes(Some(b""))),
            h(|f| f.text(Some("a")).text(Some("b"))),
            h(|f| f.text(Some("ab"))),
            h(|f| f.boolean(true)),
            h(|f| f.integer(1)),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
