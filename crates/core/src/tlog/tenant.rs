//! A tenant's proof (format section 9): that these are all of a tenant's chains at a signed checkpoint.

use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::leaf::{ChainHead, Leaf};
use crate::tlog::origin;
use crate::tlog::proof::Proof;
use crate::verify::{ChainId, Head, Keys};
use crate::wire;

/// What `custody.tenant_proof()` gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantProof {
    /// Whose chains.
    pub tenant: String,
    /// Their ends at the checkpoint, sorted by incarnation and lane.
    pub heads: Vec<ChainHead>,
    /// The tenant's place in the map.
    pub map_index: u64,
    /// From there to the map's root.
    #[serde(with = "wire::hashes")]
    pub map_path: Vec<Hash>,
    /// The checkpoint's leaf.
    pub leaf: Leaf,
    /// That the leaf is in the tree of the signed note: the text of a .tlog-proof file.
    pub tlog_proof: String,
}

impl TenantProof {
    /// The checkpoint it is of, if a trusted key has signed it and everything leads to it; otherwise why not.
    pub fn verify(&self, keys: &Keys) -> Result<Checkpoint, String> {
        let checkpoint = signed_leaf(&self.leaf, &self.tlog_proof, keys)?;
        match self.leaf.includes(&self.tenant, &self.heads, self.map_index, &self.map_path) {
            true => Ok(checkpoint),
            false => Err(format!("these are not the heads of tenant \"{}\" at its checkpoint", self.tenant)),
        }
    }

    /// What the log must hold by it.
    pub fn kept(&self) -> impl Iterator<Item = Head> + '_ {
        kept(&self.tenant, &self.heads)
    }
}

/// A tenant's heads at a checkpoint, as the log is held against them.
pub fn kept<'a>(tenant: &'a str, heads: &'a [ChainHead]) -> impl Iterator<Item = Head> + 'a {
    heads.iter().map(move |h| Head {
        chain: ChainId { incarnation: h.incarnation, tenant: tenant.to_owned(), lane: h.lane },
        seq: h.seq,
        hash: h.hash.to_vec(),
    })
}

/// The checkpoint that has this leaf in its tree, in the leaf's own place, under the signature of a trusted key.
pub fn signed_leaf(leaf: &Leaf, tlog_proof: &str, keys: &Keys) -> Result<Checkpoint, String> {
    let proof = Proof::parse(tlog_proof.as_bytes()).map_err(|e| e.to_string())?;
    let origin = origin(leaf.incarnation);
    let known = keys.note_keys(leaf.incarnation, &origin, Some(leaf.lsn as i64));
    let (checkpoint, _) = proof.verify(&leaf.hash(), &origin, &known).map_err(|e| e.to_string())?;
    match leaf.counter == proof.index {
        true => Ok(checkpoint),
        false => Err("its leaf stands in another's place".into()),
    }
}
