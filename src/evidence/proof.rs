//! Proofs, from the stored tree.

use base64ct::{Base64, Encoding};
use pgrx::{IntoDatum, JsonB};
use serde_json::json;
use uuid::Uuid;

use custody_core::tlog;
use custody_core::tlog::leaf::map;
use custody_core::tlog::merkle;
use custody_core::tlog::note::{Kind, NoteKey};
use custody_core::tlog::proof::Proof;
use custody_core::tlog::tenant::TenantProof;

use crate::audit::incarnation;
use crate::audit::key::{self, Registered};
use crate::error::{Error, Result};
use crate::evidence::tree::{self, Stored};
use crate::pg::call::Call;
use crate::pg::data;
use crate::sql_functions;

sql_functions! {
    custody_checkpoint_key, pg_finfo_custody_checkpoint_key => |call: &mut Call| {
        Ok(checkpoint_keys(asked(call.optional(0))?)?.first().and_then(|key| data::text(key)))
    };
    custody_checkpoint_keys, pg_finfo_custody_checkpoint_keys => |call: &mut Call| {
        let keys = checkpoint_keys(asked(call.optional(0))?)?;
        call.return_values(keys.iter().map(|key| data::text(key)))
    };
    custody_inclusion_proof, pg_finfo_custody_inclusion_proof => |call: &mut Call| {
        let counter: i64 = call.required(0, "counter")?;
        let proof = u64::try_from(counter).ok().map(|counter| inclusion(asked(call.optional(1))?, counter)).transpose()?.flatten();
        // A note is UTF-8, and so is the rest.
        Ok(proof.and_then(|proof| data::text(&String::from_utf8_lossy(&proof))))
    };
    custody_consistency_proof, pg_finfo_custody_consistency_proof => |call: &mut Call| {
        let (old, new): (i64, i64) = (call.required(0, "old_size")?, call.required(1, "new_size")?);
        let incarnation = asked(call.optional(2))?;
        let (Ok(old), Ok(new)) = (u64::try_from(old), u64::try_from(new)) else { return Ok(None) };
        if new > tree::size(incarnation)? {
            return Ok(None);
        }
        let path = merkle::consistency(&Stored(incarnation), old, new)?;
        Ok(path.and_then(|path| path.iter().map(|h| Base64::encode_string(h)).collect::<Vec<_>>().into_datum()))
    };
    custody_tenant_proof, pg_finfo_custody_tenant_proof => |call: &mut Call| {
        let tenant: String = call.required(0, "tenant")?;
        let proof = tenant_proof(asked(call.optional(1))?, &tenant)?;
        Ok(proof.and_then(|proof| JsonB(json!(proof)).into_datum()))
    };
}

/// The incarnation that is asked about: the present one, if none is named.
fn asked(named: Option<pgrx::Uuid>) -> Result<Uuid> {
    match named {
        Some(named) => Ok(Uuid::from_bytes(*named.as_bytes())),
        None => incarnation::written()?.ok_or(Error::NotStarted),
    }
}

/// The keys that have signed checkpoints of an incarnation, or do: the one that signs now comes first, then the others, the newest first.
fn checkpoint_keys(incarnation: Uuid) -> Result<Vec<String>> {
    let mut keys = key::registered(incarnation)?;
    let current = match keys.is_empty() {
        true => None,
        false => Some(key::current(incarnation)?),
    };
    keys.sort_by_key(|k| Some(&k.key_id) == current.as_ref());
    let origin = tlog::origin(incarnation);
    let as_text = |k: &Registered| Some(NoteKey::new(&origin, Kind::Text, &k.public_key).ok()?.to_string());
    Ok(keys.iter().rev().filter_map(as_text).collect())
}

/// The leaf's `.tlog-proof` against the last note.
fn inclusion(incarnation: Uuid, counter: u64) -> Result<Option<Vec<u8>>> {
    let Some((size, note)) = tree::last_note(incarnation)? else { return Ok(None) };
    let Some(path) = merkle::inclusion(&Stored(incarnation), counter, size)? else { return Ok(None) };
    Ok(Some(Proof { extra: None, index: counter, path, checkpoint: note.into_bytes() }.to_text()))
}

fn tenant_proof(incarnation: Uuid, tenant: &str) -> Result<Option<TenantProof>> {
    let Some((size, _)) = tree::last_note(incarnation)? else { return Ok(None) };
    let counter = size - 1;
    let tenants = tree::heads_at(incarnation, counter)?;
    let Some(index) = tenants.iter().position(|t| t.tenant == tenant) else { return Ok(None) };
    let (leaf, proof) = (tree::leaves(incarnation, counter, size)?.pop(), inclusion(incarnation, counter)?);
    let (Some(leaf), Some(proof)) = (leaf, proof) else { return Ok(None) };
    let map = map(tenants.iter().map(|t| (&*t.tenant, t.digest)));
    let Some(path) = map.inclusion(index as u64, map.size()) else { return Ok(None) };
    Ok(Some(TenantProof {
        tenant: tenant.to_owned(),
        heads: tenants[index].heads.clone(),
        map_index: index as u64,
        map_path: path,
        leaf,
        tlog_proof: String::from_utf8_lossy(&proof).into_owned(),
    }))
}
