//! Proofs and notes that an auditor was given as files.

use std::path::Path;

use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::tenant::TenantProof;
use custody_core::tlog::{self, note};
use custody_core::verify::Keys;

use crate::{Failure, input};

/// Reads what `custody.tenant_proof()` gave.
pub fn read(path: &Path) -> Result<TenantProof, Failure> {
    let because = |e| format!("{}: this is not what custody.tenant_proof() gives: {e}", path.display());
    Ok(serde_json::from_slice(&input::small(path)?).map_err(because)?)
}

/// What a note from outside says, if a trusted key has signed it.
pub fn outside(note: &[u8], name: &str, keys: &Keys) -> Result<Result<Checkpoint, String>, Failure> {
    let because = |e: &dyn std::fmt::Display| format!("{name}: {e}");
    let (text, _) = note::split(note).map_err(|e| because(&e))?;
    let claimed = Checkpoint::parse(text).map_err(|e| because(&e))?;
    let Some(incarnation) = tlog::incarnation(&claimed.origin) else {
        return Err(because(&"it is of another kind of log").into());
    };
    let known = keys.note_keys(incarnation, &claimed.origin, None);
    Ok(note::open(note, &known).map(|_| claimed).map_err(|e| e.to_string()))
}

/// What a note says, whoever has signed it.
pub fn claimed(note: &[u8]) -> Option<Checkpoint> {
    Checkpoint::parse(note::split(note).ok()?.0).ok()
}
