//! An archive of the log (format section 10): a directory of compressed parts, and the manifest that says what belongs to it.
//!
//! The manifest proves nothing. It says what there is to be read, so that a file that is missing, cut or exchanged is noticed, and
//! that a reader knows beforehand how much is to come. Whether the log in it is true, the log itself must show.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Hash;
use crate::key::hex;
use crate::tlog::leaf::{ChainHead, Leaf};
use crate::tlog::tenant::TenantProof;
use crate::wire;

/// The manifest's name in the directory. It is written last: a directory without it is not complete.
pub const FILE: &str = "manifest.json";
/// The name of the file of keys.
pub const KEYS: &str = "keys.jsonl.zst";
/// The name of the file of chains.
pub const CHAINS: &str = "chains.jsonl.zst";
/// What `format` says.
pub const FORMAT: &str = "pg_custody/export/v1";
/// The longest manifest that is read.
pub const MAX_LENGTH: usize = 64 << 20;

/// The name of a part, from 1.
pub fn part_name(number: usize) -> String {
    format!("{number:05}.jsonl.zst")
}

/// The name of the file of heads at the checkpoint with this counter.
pub fn heads_name(counter: u64) -> String {
    format!("checkpoint-{counter}.jsonl.zst")
}

/// What is in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The incarnation that the database wrote when it was exported; none if it had written nothing yet.
    #[serde(deserialize_with = "present")]
    pub incarnation: Option<Id>,
    /// The one tenant whose chains these are; none if it is everybody's.
    #[serde(deserialize_with = "present")]
    pub tenant: Option<String>,
    /// The one segment of the log that this is; none if it is all of it. Only chains of a segment begin in the middle.
    #[serde(deserialize_with = "present")]
    pub segment: Option<i64>,
    /// When the export began: microseconds since 1970, by the clock of who made it.
    pub made_at: i64,
    /// How many entries there are in all.
    pub entries: u64,
    /// The records of keys.
    pub keys: File,
    /// A [`ChainSpan`] for each chain, sorted as the entries are.
    pub chains: File,
    /// The entries, in the order of section 7, so that keys and parts one after another are an export.
    pub parts: Vec<Part>,
    /// Of one tenant's export: that these are all of its chains at a checkpoint. The last one, and those that were asked for.
    pub proofs: Vec<TenantProof>,
    /// Of everybody's export: the same for all tenants.
    pub checkpoints: Vec<LogProof>,
}

/// A file as it is stored, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name in the directory.
    pub file: String,
    /// How many lines it has.
    pub records: u64,
    /// Its length as stored.
    pub bytes: u64,
    /// Its length when decompressed.
    pub size: u64,
    /// The SHA-256 of the file as stored.
    #[serde(with = "wire::hash")]
    pub sha256: Hash,
}

/// A file of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name in the directory.
    pub file: String,
    /// How many entries it has, at least one.
    pub records: u64,
    /// Its length as stored.
    pub bytes: u64,
    /// Its length when decompressed.
    pub size: u64,
    /// The SHA-256 of the file as stored.
    #[serde(with = "wire::hash")]
    pub sha256: Hash,
    /// Where its first entry stands.
    pub first: Place,
    /// Where its last entry stands.
    pub last: Place,
}

/// Where an entry stands: tenant, incarnation, lane, seq. The order is that of an export.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place(pub String, #[serde(with = "wire::uuid")] pub Uuid, pub i64, pub i64);

/// A uuid as it stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(#[serde(with = "wire::uuid")] pub Uuid);

/// A line of the file of chains: which stretch of a chain the export has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSpan {
    /// Whose life of the database.
    #[serde(with = "wire::uuid")]
    pub incarnation: Uuid,
    /// Whose rows.
    pub tenant: String,
    /// Which lane.
    pub lane: i64,
    /// The first entry's number: 1, but in a segment.
    pub first: i64,
    /// What the first entry is linked to: the genesis hash, but in a segment.
    #[serde(with = "wire::hash")]
    pub prev_hash: Hash,
    /// The last entry's number.
    pub last: i64,
    /// The last entry's hash.
    #[serde(with = "wire::hash")]
    pub hash: Hash,
}

/// Where all chains of the log ended at a signed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogProof {
    /// The checkpoint's leaf.
    pub leaf: Leaf,
    /// That the leaf is in the tree of the signed note: the text of a .tlog-proof file.
    pub tlog_proof: String,
    /// A [`TenantHeads`] for each tenant of the map.
    pub heads: File,
}

/// A line of a file of heads: a tenant in the map of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantHeads {
    /// Whose.
    pub tenant: String,
    /// Sorted by incarnation and lane; empty for a tenant whose chains are gone.
    pub heads: Vec<ChainHead>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is longer than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Another version wrote it, or it is none.
    #[error("its format is not {FORMAT}")]
    OtherFormat,
    /// It is not JSON, or a member is unknown, missing, given twice or of the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It contradicts itself.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// A member that may be null, and must be there.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

impl Manifest {
    /// Reads a manifest strictly.
    pub fn read(json: &[u8]) -> Result<Self, Refused> {
        /// All that must be the same in any version.
        #[derive(Deserialize)]
        struct Any {
            format: String,
        }
        if json.len() > MAX_LENGTH {
            return Err(Refused::TooLong);
        }
        let any: Any = serde_json::from_slice(json)?;
        if any.format != FORMAT {
            return Err(Refused::OtherFormat);
        }
        let manifest: Self = serde_json::from_slice(json)?;
        manifest.consistent().map_err(Refused::Contradiction)?;
        Ok(manifest)
    }

    /// The file's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_else(|e| panic!("a manifest is always JSON: {e}"));
        json.push(b'\n');
        json
    }

    /// How many bytes are to be read of the entries, as they are stored.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    fn consistent(&self) -> Result<(), &'static str> {
        let named = |file: &File, name: &str| file.file == name;
        let rule = |holds: bool, or: &'static str| if holds { Ok(()) } else { Err(or) };
        rule(named(&self.keys, KEYS) && named(&self.chains, CHAINS), "a file has another name than it must have")?;
        let mut entries = 0u64;
        let mut before: Option<&Place> = None;
        for (number, part) in self.parts.iter().enumerate() {
            rule(part.file == part_name(number + 1), "a part has another name than it must have")?;
            rule(part.records > 0, "a part is empty")?;
            rule(part.first <= part.last, "a part ends before it begins")?;
            rule(before.is_none_or(|before| *before < part.first), "the parts are not in order")?;
            rule(
                self.tenant.as_ref().is_none_or(|t| *t == part.first.0 && *t == part.last.0),
                "a part is of another tenant",
            )?;
            entries = entries.checked_add(part.records).ok_or("it counts too far")?;
            before = Some(&part.last);
        }
        rule(entries == self.entries, "the parts have another number of entries")?;
        rule((self.chains.records == 0) == (entries == 0), "it has entries without chains, or chains without entries")?;
        rule(self.chains.records <= entries, "it has more chains than entries")?;
        let whole = self.segment.is_none();
        rule(self.proofs.is_empty() || (whole && self.tenant.is_some()), "a proof is of a tenant, and of all its log")?;
        rule(self.proofs.iter().all(|p| Some(&p.tenant) == self.tenant.as_ref()), "a proof is of another tenant")?;
        rule(
            self.checkpoints.is_empty() || (whole && self.tenant.is_none()),
            "a checkpoint of all tenants goes with the log of all",
        )?;
        let mut seen = std::collections::HashSet::new();
        for checkpoint in &self.checkpoints {
            let counter = checkpoint.leaf.counter;
            rule(named(&checkpoint.heads, &heads_name(counter)), "a file has another name than it must have")?;
            rule(seen.insert(counter), "a checkpoint is given twice")?;
            rule(checkpoint.heads.records == checkpoint.leaf.tenants, "a checkpoint has another number of tenants")?;
        }
        Ok(())
    }
}

/// What names the archive: the SHA-256 of the manifest's bytes, in hex.
pub fn digest(json: &[u8]) -> String {
    hex(&Sha256::digest(json))
}
