//! Signing keys, what they sign and how they are named (format section 5).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ed25519_dalek::{Signature, VerifyingKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::Hash;

/// The private half of a key. Its bytes are wiped when it is dropped.
///
/// AWS-LC signs: with the same bytes as any other implementation (RFC 8032 leaves no choice), in half the time (decision 0008).
pub struct PrivateKey {
    key: Ed25519KeyPair,
    public: [u8; 32],
    key_id: String,
}

impl PrivateKey {
    /// A key from its 32-byte seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed[..]);
        // It fails only for seeds of another length, and when memory is exhausted.
        let key = key.unwrap_or_else(|e| panic!("a key of 32 bytes was refused: {e}"));
        let mut public = [0; 32];
        public.copy_from_slice(key.public_key().as_ref());
        Self { key, public, key_id: key_id(&public) }
    }

    /// The short name of this key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Signs the last hash of a run.
    pub fn sign_run(&self, hash: &Hash) -> [u8; 64] {
        self.sign(&run_message(hash))
    }

    /// Vouches for a successor: from a position on, or from the beginning of a new incarnation.
    pub fn endorse(&self, incarnation: Uuid, public_key: &[u8; 32], from_lsn: Option<i64>) -> [u8; 64] {
        self.sign(&endorsement_message(incarnation, public_key, from_lsn))
    }

    /// Says that another key of the incarnation is not valid beyond a position.
    pub fn end(&self, how: Ending, incarnation: Uuid, public_key: &[u8; 32], until_lsn: i64) -> [u8; 64] {
        self.sign(&end_message(how, incarnation, public_key, until_lsn))
    }

    /// Signs a note's text, or a witness's statement about one (`tlog::note`).
    pub(crate) fn sign_note(&self, message: &[u8]) -> [u8; 64] {
        self.sign(message)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(message).as_ref());
        signature
    }
}

/// How a key's validity ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was replaced, and nobody uses it any more.
    Retire,
    /// It is in the wrong hands: what it signed later proves nothing.
    Revoke,
}

impl Ending {
    /// The name, as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Revoke => "revoke",
        }
    }

    /// The ending of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Retire, Self::Revoke].into_iter().find(|how| how.name() == name)
    }
}

/// A public key that signatures can be checked against.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// A key from its 32 bytes; none if they are no point on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        Some(Self(key))
    }

    /// The key's 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether this point is of small order, so that signatures of nobody's hold under it.
    pub fn is_weak(&self) -> bool {
        self.0.is_weak()
    }

    /// Whether `signature` is this key's over a run that ends in `hash`.
    pub fn verify_run(&self, hash: &[u8], signature: &[u8]) -> bool {
        <&Hash>::try_from(hash).is_ok_and(|hash| self.verify(&run_message(hash), signature))
    }

    /// Whether `signature` is this key's endorsement of `public_key`, from that position on.
    pub fn verify_endorsement(
        &self,
        incarnation: Uuid,
        public_key: &[u8],
        from_lsn: Option<i64>,
        signature: &[u8],
    ) -> bool {
        <&[u8; 32]>::try_from(public_key)
            .is_ok_and(|key| self.verify(&endorsement_message(incarnation, key, from_lsn), signature))
    }

    /// Whether `signature` is this key's word that `public_key` is not valid beyond that position.
    pub fn verify_end(
        &self,
        how: Ending,
        incarnation: Uuid,
        public_key: &[u8],
        until_lsn: i64,
        signature: &[u8],
    ) -> bool {
        <&[u8; 32]>::try_from(public_key)
            .is_ok_and(|key| self.verify(&end_message(how, incarnation, key, until_lsn), signature))
    }

    /// Strict Ed25519 verification of any message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.0.verify_strict(message, &s).is_ok())
    }
}

/// All of a key's name: 64 lower-case hex digits.
pub fn fingerprint(public_key: &[u8]) -> String {
    let mut message = b"pg_custody/key/v1\0".to_vec();
    message.extend_from_slice(public_key);
    hex(&<sha2::Sha256 as sha2::Digest>::digest(&message))
}

/// The first 16 digits of the fingerprint.
pub fn key_id(public_key: &[u8]) -> String {
    let mut name = fingerprint(public_key);
    name.truncate(16);
    name
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(&mut out, bytes);
    out
}

/// Reads lower-case hex into `out`, and says whether `digits` are that and of its length. `out` may change even if not.
pub fn unhex(digits: &str, out: &mut [u8]) -> bool {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * out.len() {
        return false;
    }
    for (byte, pair) in out.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else { return false };
        *byte = high << 4 | low;
    }
    true
}

/// Appends lower-case hex.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn run_message(hash: &Hash) -> [u8; 50] {
    let mut message = [0; 50];
    message[..18].copy_from_slice(b"pg_custody/run/v1\0");
    message[18..].copy_from_slice(hash);
    message
}

fn endorsement_message(incarnation: Uuid, public_key: &[u8; 32], from_lsn: Option<i64>) -> Vec<u8> {
    let domain = if from_lsn.is_some() { "endorse/v2" } else { "endorse/v1" };
    key_message(domain, incarnation, public_key, from_lsn)
}

fn end_message(how: Ending, incarnation: Uuid, public_key: &[u8; 32], until_lsn: i64) -> Vec<u8> {
    key_message(&format!("{}/v1", how.name()), incarnation, public_key, Some(until_lsn))
}

fn key_message(domain: &str, incarnation: Uuid, public_key: &[u8; 32], lsn: Option<i64>) -> Vec<u8> {
    let mut message = format!("pg_custody/{domain}\0").into_bytes();
    message.extend_from_slice(b"\x04\0\0\0\x10");
    message.extend_from_slice(incarnation.as_bytes());
    message.extend_from_slice(b"\x01\0\0\0\x20");
    message.extend_from_slice(public_key);
    if let Some(lsn) = lsn {
        message.extend_from_slice(b"\x03\0\0\0\x08");
        message.extend_from_slice(&lsn.to_be_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_implementations_sign_alike(seed in any::<[u8; 32]>(), hash in any::<[u8; 32]>()) {
            let (ours, other) = (PrivateKey::from_seed(&Zeroizing::new(seed)), SigningKey::from_bytes(&seed));
            prop_assert_eq!(ours.public_key(), other.verifying_key().to_bytes());
            prop_assert_eq!(ours.sign_run(&hash), other.sign(&run_message(&hash)).to_bytes());
        }
    }
}
