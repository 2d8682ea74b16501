//! Typed, length-prefixed fields (format section 1), fed straight into SHA-256.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Hash;

/// Hashes a domain string and then fields, so that no two lists of values share an encoding.
pub struct FieldHasher(Sha256);

impl FieldHasher {
    /// Starts with `domain` and the zero byte that ends it.
    pub fn new(domain: &str) -> Self {
        let mut sha = Sha256::new();
        sha.update(domain.as_bytes());
        sha.update([0]);
        Self(sha)
    }

    /// Bytes, or absent.
    pub fn bytes(self, value: Option<&[u8]>) -> Self {
        self.field(1, value)
    }

    /// Text, or absent.
    pub fn text(self, value: Option<&str>) -> Self {
        self.field(2, value.map(str::as_bytes))
    }

    /// A 64-bit integer.
    pub fn integer(self, value: i64) -> Self {
        self.field(3, Some(&value.to_be_bytes()))
    }

    /// A uuid, or absent.
    pub fn uuid(self, value: Option<Uuid>) -> Self {
        self.field(4, value.as_ref().map(|u| &u.as_bytes()[..]))
    }

    /// A boolean.
    pub fn boolean(self, value: bool) -> Self {
        self.field(5, Some(&[u8::from(value)]))
    }

    /// The digest.
    pub fn finish(self) -> Hash {
        self.0.finalize().into()
    }

    fn field(mut self, tag: u8, value: Option<&[u8]>) -> Self {
        match value {
            None => self.0.update([0]),
            Some(bytes) => {
                // PostgreSQL's own limit on one value is 1 GiB, so the length always fits.
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                self.0.update([tag, length[0], length[1], length[2], length[3]]);
                self.0.update(bytes);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_differs_from_empty_and_types_differ() {
        let h = |f: fn(FieldHasher) -> FieldHasher| f(FieldHasher::new("t")).finish();
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
