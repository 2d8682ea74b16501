//! A tenant's proof (`custody.tenant_proof()`, format section 9): what its chains must hold, by a signed checkpoint.

use std::path::Path;

use custody_core::Hash;
use custody_core::key::unhex;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{ChainHead, Leaf};
use custody_core::tlog::note;
use custody_core::tlog::proof::Proof;
use custody_core::verify::{ChainId, Head, Keys};
use serde_json::Value;
use uuid::Uuid;

use crate::{Failure, input};

/// A proof that holds.
pub struct Proved {
    pub tenant: String,
    pub checkpoint: Checkpoint,
    /// When the checkpoint was made: microseconds since 1970, by the server's clock.
    pub at: i64,
    /// All of the tenant's chains then.
    pub heads: Vec<Head>,
}

/// Reads a proof and checks all of it that needs no export: that the signed tree has the leaf, and the leaf these heads.
pub fn check(path: &Path, keys: &Keys) -> Result<Result<Proved, String>, Failure> {
    let bytes = input::small(path)?;
    let unreadable = || format!("{}: this is not what custody.tenant_proof() gives", path.display());
    let proof: Value = serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let read = read(&proof).ok_or_else(unreadable)?;
    Ok(prove(read, keys))
}

struct Read {
    tenant: String,
    heads: Vec<ChainHead>,
    index: u64,
    path: Vec<Hash>,
    leaf: Leaf,
    file: Proof,
}

fn read(proof: &Value) -> Option<Read> {
    let heads = proof.get("heads")?.as_array()?.iter().map(|head| {
        Some(ChainHead {
            incarnation: uuid(head.get("incarnation")?)?,
            lane: head.get("lane")?.as_i64()?,
            seq: head.get("seq")?.as_i64()?,
            hash: hash(head.get("hash")?)?,
        })
    });
    let leaf = proof.get("leaf")?;
    Some(Read {
        tenant: proof.get("tenant")?.as_str()?.to_owned(),
        heads: heads.collect::<Option<_>>()?,
        index: proof.get("map_index")?.as_u64()?,
        path: proof.get("map_path")?.as_array()?.iter().map(hash).collect::<Option<_>>()?,
        leaf: Leaf {
            counter: leaf.get("counter")?.as_u64()?,
            at: leaf.get("at")?.as_i64()?,
            incarnation: uuid(leaf.get("incarnation")?)?,
            lsn: leaf.get("lsn")?.as_u64()?,
            keys: hash(leaf.get("keys")?)?,
            configuration: hash(leaf.get("configuration")?)?,
            tenants: leaf.get("tenants")?.as_u64()?,
            map: hash(leaf.get("map")?)?,
        },
        file: Proof::parse(proof.get("tlog_proof")?.as_str()?.as_bytes()).ok()?,
    })
}

fn prove(read: Read, keys: &Keys) -> Result<Proved, String> {
    let origin = format!("pg_custody/{}", read.leaf.incarnation);
    let known = keys.note_keys(read.leaf.incarnation, &origin);
    let (checkpoint, _) = read.file.verify(&read.leaf.hash(), &origin, &known).map_err(|e| e.to_string())?;
    if read.leaf.counter != read.file.index {
        return Err("its leaf stands in another's place".into());
    }
    if !read.leaf.includes(&read.tenant, &read.heads, read.index, &read.path) {
        return Err(format!("these are not the heads of tenant \"{}\" at its checkpoint", read.tenant));
    }
    let heads = read.heads.iter().map(|h| Head {
        chain: ChainId { incarnation: h.incarnation, tenant: read.tenant.clone(), lane: h.lane },
        seq: h.seq,
        hash: h.hash.to_vec(),
    });
    Ok(Proved { heads: heads.collect(), tenant: read.tenant, checkpoint, at: read.leaf.at })
}

/// What a note from outside says, if a trusted key has signed it.
pub fn outside(path: &Path, keys: &Keys) -> Result<Result<Checkpoint, String>, Failure> {
    let bytes = input::small(path)?;
    let because = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let (text, _) = note::split(&bytes).map_err(|e| because(&e))?;
    let claimed = Checkpoint::parse(text).map_err(|e| because(&e))?;
    let incarnation: Option<Uuid> = claimed.origin.strip_prefix("pg_custody/").and_then(|id| id.parse().ok());
    let Some(incarnation) = incarnation else { return Err(because(&"it is of another kind of log").into()) };
    let known = keys.note_keys(incarnation, &claimed.origin);
    Ok(note::open(&bytes, &known).map(|_| claimed).map_err(|e| e.to_string()))
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

fn hash(value: &Value) -> Option<Hash> {
    let mut hash = [0; 32];
    unhex(value.as_str()?, &mut hash).then_some(hash)
}
