//! Signed notes (c2sp.org/signed-note): a text, and who signed it. Keys as text: `name+hash+base64`.

use std::fmt;

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use crate::key::{PrivateKey, PublicKey, hex};

/// A note is small; a longer one is not read.
pub const MAX_NOTE: usize = 1 << 20;
/// More signature lines than any note needs.
const MAX_SIGNATURES: usize = 100;

/// The first byte of a key and of what its id is made from.
const ED25519: u8 = 1;
const COSIGNATURE: u8 = 4;

/// Why a note, or a key's text, is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[allow(missing_docs)]
pub enum NoteError {
    #[error("the note is not well-formed: {0}")]
    Malformed(&'static str),
    #[error("the key is not well-formed: {0}")]
    MalformedKey(&'static str),
    #[error("the signature of {0} does not hold")]
    BadSignature(String),
    #[error("no known key has signed the note")]
    NoKnownSignature,
}

/// What a key signs: the text itself, or, as a witness, a statement that it saw the text at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text (type 0x01).
    Text,
    /// The text and when it was seen (c2sp.org/tlog-cosignature, type 0x04).
    Cosignature,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Text => ED25519,
            Self::Cosignature => COSIGNATURE,
        }
    }
}

/// Who may have signed: a name, and a public key with a meaning.
#[derive(Clone, Debug)]
pub struct NoteKey {
    name: String,
    kind: Kind,
    public: [u8; 32],
    key: PublicKey,
}

impl NoteKey {
    /// A key of a name, which must be one.
    pub fn new(name: &str, kind: Kind, public: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::MalformedKey("the name is empty, or has a blank or a plus sign in it"));
        }
        let key = PublicKey::from_bytes(public).ok_or(NoteError::MalformedKey("it is no point on the curve"))?;
        Ok(Self { name: name.to_owned(), kind, public: *public, key })
    }

    /// Reads `name+hash+base64(type ‖ key)`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::MalformedKey;
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it has not the form name+hash+key"));
        };
        let data = Base64::decode_vec(data).map_err(|_| malformed("the key is not base64"))?;
        let Some((kind, public)) = data.split_first() else { return Err(malformed("the key is empty")) };
        let kind = match *kind {
            ED25519 => Kind::Text,
            COSIGNATURE => Kind::Cosignature,
            _ => return Err(malformed("its type is neither Ed25519 nor an Ed25519 cosignature")),
        };
        let public = public.try_into().map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
        let key = Self::new(name, kind, public)?;
        match id == hex(&key.id()) {
            true => Ok(key),
            false => Err(malformed("the hash is not the key's")),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The four bytes that tell this key from others of its name.
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(self.name.as_bytes())
            .chain_update([b'\n', self.kind.byte()])
            .chain_update(self.public)
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Whether it signed the text, and when it says it saw it.
    fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        match self.kind {
            Kind::Text => self.key.verify(text.as_bytes(), signature).then_some(None),
            Kind::Cosignature => {
                let (time, signature) = signature.split_at_checked(8)?;
                let time = u64::from_be_bytes(time.try_into().ok()?);
                i64::try_from(time).ok()?;
                self.key.verify(&cosigned(text, time), signature).then_some(Some(time))
            }
        }
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut data = vec![self.kind.byte()];
        data.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), Base64::encode_string(&data))
    }
}

/// One who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: [u8; 4],
    /// When a witness says it saw the text: seconds since 1970.
    pub time: Option<u64>,
}

/// A note that somebody known has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, with its last line feed.
    pub text: String,
    /// By whom, of those that were known.
    pub signed: Vec<Signed>,
}

/// Opens a note: at least one of the `known` keys must have signed it, and none of them wrongly. Signatures of others are passed over.
pub fn open(note: &[u8], known: &[NoteKey]) -> Result<Note, NoteError> {
    let (text, signatures) = split(note)?;
    let mut signed = Vec::new();
    for (name, id, signature) in signatures {
        let Some(key) = known.iter().find(|k| k.name == name && k.id() == id) else { continue };
        let time = key.verify(text, &signature).ok_or_else(|| NoteError::BadSignature(name.to_owned()))?;
        let by = Signed { name: name.to_owned(), id, time };
        if !signed.contains(&by) {
            signed.push(by);
        }
    }
    match signed.is_empty() {
        true => Err(NoteError::NoKnownSignature),
        false => Ok(Note { text: text.to_owned(), signed }),
    }
}

/// A name, an id and a signature.
type Line<'a> = (&'a str, [u8; 4], Vec<u8>);

/// The text, and the signatures that follow it, none of them checked.
pub fn split(note: &[u8]) -> Result<(&str, Vec<Line<'_>>), NoteError> {
    let malformed = NoteError::Malformed;
    if note.len() > MAX_NOTE {
        return Err(malformed("it is too long"));
    }
    let note = std::str::from_utf8(note).map_err(|_| malformed("it is not UTF-8"))?;
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(malformed("there is a control character in it"));
    }
    // The text ends in a line feed; a blank line follows, the last in the note.
    let end = note.rfind("\n\n").ok_or(malformed("no blank line stands before the signatures"))? + 1;
    let (text, lines) = (&note[..end], &note[end + 1..]);
    if lines.is_empty() || !lines.ends_with('\n') {
        return Err(malformed("it does not end in a signature"));
    }
    let mut signatures = Vec::new();
    for line in lines[..lines.len() - 1].split('\n') {
        let line = line.strip_prefix("— ").ok_or(malformed("a signature's line does not begin with a dash"))?;
        let (name, data) = line.split_once(' ').ok_or(malformed("a signature has no name"))?;
        let data = Base64::decode_vec(data).map_err(|_| malformed("a signature is not base64"))?;
        let (id, signature) = data.split_first_chunk().ok_or(malformed("a signature is too short"))?;
        if !is_name(name) || signature.is_empty() {
            return Err(malformed("a signature has no name, or is empty"));
        }
        if signatures.len() == MAX_SIGNATURES {
            return Err(malformed("it has too many signatures"));
        }
        signatures.push((name, *id, signature.to_vec()));
    }
    Ok((text, signatures))
}

/// Signs a text, which must end in a line feed: the line to put below it, after a blank one.
///
/// A text of a note has no control characters, so no such signature is one over a run or an endorsement, whose messages have.
pub fn sign(text: &str, name: &str, key: &PrivateKey) -> Result<String, NoteError> {
    check_text(text)?;
    let id = NoteKey::new(name, Kind::Text, &key.public_key())?.id();
    Ok(line(name, id, &[], &key.sign_note(text.as_bytes())))
}

/// Says that the text was seen at `time` (seconds since 1970), as a witness does.
pub fn cosign(text: &str, time: u64, name: &str, key: &PrivateKey) -> Result<String, NoteError> {
    check_text(text)?;
    let id = NoteKey::new(name, Kind::Cosignature, &key.public_key())?.id();
    Ok(line(name, id, &time.to_be_bytes(), &key.sign_note(&cosigned(text, time))))
}

fn line(name: &str, id: [u8; 4], time: &[u8], signature: &[u8; 64]) -> String {
    let data = [&id[..], time, signature].concat();
    format!("— {name} {}\n", Base64::encode_string(&data))
}

fn cosigned(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("the text does not end in a line feed"));
    }
    match text.bytes().any(|b| b < 0x20 && b != b'\n') {
        true => Err(NoteError::Malformed("there is a control character in it")),
        false => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '+' || c.is_whitespace() || c.is_control())
}
