//! Typed, length-prefixed fields (format section 1) under SHA-256: gathered and hashed at once, or in pieces if they are long.

use std::cell::Cell;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Hash;

/// Bytes that gather before they are hashed: most messages fit, and one long call beats twenty short ones.
const GATHERED: usize = 512;
const BLOCK: usize = 64;
/// FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

thread_local! {
    /// The room of the last hasher, for the next one.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Hashes a domain string and then fields, so that no two lists of values share an encoding.
pub struct FieldHasher {
    /// What did not fit; none as long as all fits.
    sha: Option<Sha256>,
    gathered: Vec<u8>,
}

impl Drop for FieldHasher {
    fn drop(&mut self) {
        ROOM.set(std::mem::take(&mut self.gathered));
    }
}

impl FieldHasher {
    /// Starts with `domain` and the zero byte that ends it.
    pub fn new(domain: &str) -> Self {
        let mut gathered = ROOM.take();
        gathered.clear();
        gathered.reserve(GATHERED + 2 * BLOCK);
        gathered.extend_from_slice(domain.as_bytes());
        gathered.push(0);
        Self { sha: None, gathered }
    }

    /// Bytes, or absent.
    #[inline]
    pub fn bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        // Most are digests: a copy of known length is a few instructions, one of unknown length a call.
        match value.map(<&Hash>::try_from) {
            Some(Ok(hash)) => self.fixed(1, hash),
            _ => self.variable(1, value),
        }
    }

    /// Text, or absent.
    #[inline]
    pub fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.variable(2, value.map(str::as_bytes))
    }

    /// A 64-bit integer.
    #[inline]
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.fixed(3, &value.to_be_bytes())
    }

    /// A uuid, or absent.
    #[inline]
    pub fn uuid(&mut self, value: Option<Uuid>) -> &mut Self {
        match value {
            None => self.variable(4, None),
            Some(uuid) => self.fixed(4, uuid.as_bytes()),
        }
    }

    /// A boolean.
    #[inline]
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.fixed(5, &[u8::from(value)])
    }

    /// The digest. Spends the hasher: what it gives when asked again means nothing.
    pub fn finish(&mut self) -> Hash {
        if self.sha.is_some() {
            return self.spill().finalize_reset().into();
        }
        // The padding of FIPS 180-4 section 5.1.1: a one bit, zeros, and the length in bits.
        let bits = 8 * self.gathered.len() as u64;
        let end = (self.gathered.len() + 9).next_multiple_of(BLOCK);
        self.gathered.push(0x80);
        self.gathered.resize(end - 8, 0);
        self.gathered.extend_from_slice(&bits.to_be_bytes());
        let mut state = INITIAL;
        compress256(&mut state, self.gathered.as_chunks().0);
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, tag: u8, value: &[u8; N]) -> &mut Self {
        self.head(tag, N as u32);
        self.push(value);
        self
    }

    #[inline]
    fn variable(&mut self, tag: u8, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.push(&[0]),
            Some(bytes) => {
                // PostgreSQL's own limit on one value is 1 GiB, so the length always fits.
                self.head(tag, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                if self.gathered.len() + bytes.len() <= GATHERED {
                    self.gathered.extend_from_slice(bytes);
                } else {
                    self.spill().update(bytes);
                }
            }
        }
        self
    }

    #[inline]
    fn head(&mut self, tag: u8, length: u32) {
        let [a, b, c, d] = length.to_be_bytes();
        self.push(&[tag, a, b, c, d]);
    }

    #[inline]
    fn push<const N: usize>(&mut self, bytes: &[u8; N]) {
        if self.gathered.len() + N > GATHERED {
            self.spill();
        }
        self.gathered.extend_from_slice(bytes);
    }

    #[cold]
    fn spill(&mut self) -> &mut Sha256 {
        let sha = self.sha.get_or_insert_default();
        sha.update(&self.gathered);
        self.gathered.clear();
        sha
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_digest_is_sha_256_of_the_bytes(lengths in proptest::collection::vec(prop_oneof![0..80usize, 400..600usize, 0..3000usize], 0..8)) {
            let mut hasher = FieldHasher::new("pg_custody/test");
            let mut bytes = b"pg_custody/test\0".to_vec();
            for length in lengths {
                let value = vec![7; length];
                hasher.bytes(Some(&value)).integer(-2).text(None).boolean(true);
                bytes.push(1);
                bytes.extend((length as u32).to_be_bytes());
                bytes.extend(value);
                bytes.extend([3, 0, 0, 0, 8]);
                bytes.extend((-2i64).to_be_bytes());
                bytes.extend([0, 5, 0, 0, 0, 1, 1]);
            }
            prop_assert_eq!(hasher.finish(), <Hash>::from(Sha256::digest(&bytes)));
        }
    }
}
