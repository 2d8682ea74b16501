//! Keys that tokens may be signed with: Ed25519, P-256 and RSA (RFC 8037, RFC 7518), each in one canonical form.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use crate::key::PublicKey;

/// Which signatures a key makes. It belongs to the key; a token's header can only agree with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// EdDSA with Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// As `alg` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Whether `alg` names it. RFC 9864 calls EdDSA with this curve Ed25519; nothing else has a second name.
    pub fn is_named(self, alg: &str) -> bool {
        alg == self.name() || (self == Self::EdDsa && alg == "Ed25519")
    }
}

/// Why some bytes are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeyError {
    #[error(
        "is no Ed25519 public key: 32 bytes, or their DER SubjectPublicKeyInfo, of a point that is not of small order"
    )]
    Ed25519,
    #[error("is no P-256 public key: a point on the curve, uncompressed (65 bytes), or its DER SubjectPublicKeyInfo")]
    P256,
    #[error("is no RSA public key: DER RSAPublicKey or SubjectPublicKeyInfo, without a byte too many")]
    Rsa,
    #[error("is an RSA key of {0} bits: 2048 to 8192 are accepted")]
    RsaSize(usize),
    #[error("is an RSA key with an even modulus, or whose exponent is even, below 65537 or above 33 bits")]
    RsaNumbers,
}

/// A key that signatures can be checked against.
#[derive(Debug, Clone)]
pub struct TokenPublicKey(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Ed25519 { key: PublicKey, bytes: [u8; 32] },
    P256([u8; 65]),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl TokenPublicKey {
    /// Reads a key: in the form that `to_bytes` gives, or as the SubjectPublicKeyInfo (RFC 5280) that other tools write.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            Algorithm::EdDsa => Self::ed25519(bytes.strip_prefix(&SPKI_ED25519[..]).unwrap_or(bytes)),
            Algorithm::Es256 => Self::p256(bytes.strip_prefix(&SPKI_P256[..]).unwrap_or(bytes)),
            Algorithm::Rs256 => {
                let (n, e) = rsa_public_key(bytes).or_else(|| rsa_public_key(rsa_spki(bytes)?)).ok_or(KeyError::Rsa)?;
                Self::rsa(n, e)
            }
        }
    }

    /// From the 32 bytes of an Ed25519 key.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Ed25519)?;
        let key = PublicKey::from_bytes(&bytes).filter(|key| !key.is_weak()).ok_or(KeyError::Ed25519)?;
        Ok(Self(Inner::Ed25519 { key, bytes }))
    }

    /// From an uncompressed point of P-256, which is checked to be one.
    pub fn p256(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 65] = bytes.try_into().map_err(|_| KeyError::P256)?;
        if bytes[0] != 4 || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).is_err() {
            return Err(KeyError::P256);
        }
        Ok(Self(Inner::P256(bytes)))
    }

    /// From an RSA modulus and exponent, both unsigned and without leading zeros.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let (Some(first), Some(true)) = (n.first(), e.first().map(|first| *first != 0)) else {
            return Err(KeyError::Rsa);
        };
        let bits = n.len() * 8 - first.leading_zeros() as usize;
        if *first == 0 {
            return Err(KeyError::Rsa);
        }
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        // FIPS 186-5 section 5.1 for the least exponent; the library for the largest.
        let exponent = (e.len() <= 5).then(|| e.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte)));
        let sound = exponent.is_some_and(|e| (65_537..1 << 33).contains(&e) && e % 2 == 1);
        if !sound || n.last().is_some_and(|last| last % 2 == 0) {
            return Err(KeyError::RsaNumbers);
        }
        Ok(Self(Inner::Rsa { n: n.to_vec(), e: e.to_vec() }))
    }

    /// The one form in which this key is kept: 32 bytes of Ed25519, an uncompressed point of P-256, or a DER RSAPublicKey.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Inner::Ed25519 { bytes, .. } => bytes.to_vec(),
            Inner::P256(bytes) => bytes.to_vec(),
            Inner::Rsa { n, e } => der(0x30, &[unsigned(n), unsigned(e)].concat()),
        }
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Inner::Ed25519 { .. } => Algorithm::EdDsa,
            Inner::P256(_) => Algorithm::Es256,
            Inner::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Whether `signature` is this key's over `message`, in the form that JWS gives it (for ES256: r and s, 32 bytes each).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Inner::Ed25519 { key, .. } => key.verify(message, signature),
            Inner::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Inner::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
        }
    }
}

impl PartialEq for TokenPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm() == other.algorithm() && self.to_bytes() == other.to_bytes()
    }
}

/// SubjectPublicKeyInfo of Ed25519 (RFC 8410), before the 32 bytes.
const SPKI_ED25519: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// SubjectPublicKeyInfo of P-256 with a named curve (RFC 5480), before the uncompressed point.
const SPKI_P256: [u8; 26] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// The algorithm of an RSA key (RFC 3279): rsaEncryption, NULL.
const RSA_ENCRYPTION: [u8; 15] = *b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// The RSAPublicKey in a SubjectPublicKeyInfo.
fn rsa_spki(bytes: &[u8]) -> Option<&[u8]> {
    let (content, rest) = element(0x30, bytes)?;
    let (key, end) = element(0x03, content.strip_prefix(&RSA_ENCRYPTION[..])?)?;
    (rest.is_empty() && end.is_empty()).then_some(key)?.strip_prefix(&[0])
}

/// Modulus and exponent of a DER RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_public_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = element(0x30, bytes)?;
    let (n, content) = element(0x02, content)?;
    let (e, end) = element(0x02, content)?;
    (rest.is_empty() && end.is_empty()).then_some((positive(n)?, positive(e)?))
}

/// The magnitude of a DER INTEGER that is positive, in as few bytes as it takes.
fn positive(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, next, ..] if *next >= 0x80 => Some(&content[1..]),
        [first, ..] if (1..0x80).contains(first) => Some(content),
        _ => None,
    }
}

/// A DER element's content, and what follows it. Lengths in their shortest form alone, and below 64 KiB.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (length, rest) = match rest {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length @ 0x80..=0xff, rest @ ..] => (usize::from(*length), rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A DER element of fewer than 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..0x80 => out.push(length as u8),
        length @ 0x80..0x100 => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// A DER INTEGER.
fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if magnitude.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    der(0x02, &[sign, magnitude].concat())
}
