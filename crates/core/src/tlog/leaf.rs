//! What a checkpoint says of the log (format section 9): one leaf of the tree, and under it a map of every tenant's chain ends.
//!
//! The map is itself a tree of RFC 6962, its leaves sorted by tenant: a tenant's heads, their path in the map and the leaf's path in
//! the log prove what the tenant's part of the log was, without a word about any other tenant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Hash;
use crate::encoding::FieldHasher;
use crate::tlog::merkle::{Tree, leaf_hash, verify_inclusion};
use crate::wire;

/// The end of one of a tenant's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Whose life of the database.
    #[serde(with = "wire::uuid")]
    pub incarnation: Uuid,
    /// Which lane.
    pub lane: i64,
    /// The last entry's number.
    pub seq: i64,
    /// Its hash.
    #[serde(with = "wire::hash")]
    pub hash: Hash,
}

/// The digest of all of a tenant's chains, which must be sorted by incarnation and lane.
pub fn heads_digest(tenant: &str, heads: &[ChainHead]) -> Hash {
    let mut hasher = FieldHasher::new("pg_custody/heads/v1");
    hasher.text(Some(tenant)).integer(heads.len() as i64);
    for head in heads {
        hasher.uuid(Some(head.incarnation)).integer(head.lane).integer(head.seq).bytes(Some(&head.hash));
    }
    hasher.finish()
}

/// The map's leaf for a tenant.
pub fn map_leaf(tenant: &str, heads_digest: &Hash) -> Hash {
    let mut data = b"pg_custody/map/v1\0".to_vec();
    push(&mut data, 2, tenant.as_bytes());
    push(&mut data, 1, heads_digest);
    leaf_hash(&data)
}

/// The map of all tenants' digests. They must come sorted by tenant, bytewise, each once.
pub fn map<'a>(digests: impl IntoIterator<Item = (&'a str, Hash)>) -> Tree {
    digests.into_iter().map(|(tenant, digest)| map_leaf(tenant, &digest)).collect()
}

/// One leaf of the tree of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// 0, 1, 2 … within the incarnation: the leaf's own place in the tree, so that a leaf cannot stand elsewhere.
    pub counter: u64,
    /// When it was made: microseconds since 1970. With the counter it makes an interval without entries visible.
    pub at: i64,
    /// The life of the database whose tree this is.
    #[serde(with = "wire::uuid")]
    pub incarnation: Uuid,
    /// The end of the WAL when the chains were read: no entry in it was captured later.
    pub lsn: u64,
    /// The digest of the public keys that were registered.
    #[serde(with = "wire::hash")]
    pub keys: Hash,
    /// The digest of what was protected and audited, and how.
    #[serde(with = "wire::hash")]
    pub configuration: Hash,
    /// How many tenants the map has, the system among them.
    pub tenants: u64,
    /// The map's root.
    #[serde(with = "wire::hash")]
    pub map: Hash,
}

impl Leaf {
    /// The leaf's data, as RFC 6962 hashes it.
    pub fn data(&self) -> Vec<u8> {
        let mut data = b"pg_custody/checkpoint/v1\0".to_vec();
        push(&mut data, 3, &self.counter.to_be_bytes());
        push(&mut data, 3, &self.at.to_be_bytes());
        push(&mut data, 4, self.incarnation.as_bytes());
        push(&mut data, 3, &self.lsn.to_be_bytes());
        push(&mut data, 1, &self.keys);
        push(&mut data, 1, &self.configuration);
        push(&mut data, 3, &self.tenants.to_be_bytes());
        push(&mut data, 1, &self.map);
        data
    }

    /// The hash of the leaf in the tree.
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.data())
    }

    /// Whether these are all of the tenant's chains at this checkpoint. `heads` must be sorted by incarnation and lane.
    pub fn includes(&self, tenant: &str, heads: &[ChainHead], index: u64, path: &[Hash]) -> bool {
        let sorted = heads.is_sorted_by(|a, b| (a.incarnation, a.lane) < (b.incarnation, b.lane));
        let leaf = map_leaf(tenant, &heads_digest(tenant, heads));
        sorted && verify_inclusion(&leaf, index, self.tenants, path, &self.map)
    }
}

/// Appends a field (format section 1).
fn push(data: &mut Vec<u8>, tag: u8, value: &[u8]) {
    data.push(tag);
    data.extend_from_slice(&(value.len() as u32).to_be_bytes());
    data.extend_from_slice(value);
}
