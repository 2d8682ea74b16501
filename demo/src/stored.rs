//! Entries as they are stored, and what docs/format.md says of their digests, hashes and signatures.

use custody_core::entry::{Entry, row_digest};
use ed25519_dalek::{Signer, SigningKey};
use postgres::{Client, Row};
use uuid::Uuid;

/// Recomputes every entry's digest and hash, each linked to the one before.
pub fn relink(entries: &mut [Stored]) {
    let mut previous: Option<Vec<u8>> = None;
    for e in entries {
        if let Some(previous) = previous.take() {
            e.prev_hash = previous;
        }
        e.seal();
        previous = Some(e.hash.clone());
    }
}

const STORED: &str =
    "SELECT seq, incarnation, lane, format, (lsn - '0/0')::bigint, ordinal, (extract(epoch FROM at) * 1000000)::bigint,
  xid::text::bigint, op, schema_name, table_name, login_role, acting_role, move_id, actor_seq, signs_run, key_id, actor_salt, actor,
  row_salt, row_key, old, new, actor_digest, row_digest, prev_hash, hash, signature, tenant
FROM custody.entry WHERE tenant = $1 AND lane = $2 ORDER BY seq";

/// An entry, as stored.
#[derive(Clone)]
pub struct Stored {
    pub seq: i64,
    pub incarnation: Uuid,
    pub lane: i32,
    pub format: i16,
    pub lsn: i64,
    pub ordinal: i32,
    pub at: i64,
    pub xid: i64,
    pub op: String,
    pub schema_name: Option<String>,
    pub table_name: Option<String>,
    pub login_role: String,
    pub acting_role: String,
    pub move_id: Option<Uuid>,
    pub actor_seq: i64,
    pub signs_run: bool,
    pub key_id: Option<String>,
    pub actor_salt: Option<Vec<u8>>,
    pub actor: Option<String>,
    pub row_salt: Option<Vec<u8>>,
    pub row_key: Option<String>,
    pub old: Option<String>,
    pub new: Option<String>,
    pub actor_digest: Option<Vec<u8>>,
    pub row_digest: Vec<u8>,
    pub prev_hash: Vec<u8>,
    pub hash: Vec<u8>,
    pub signature: Option<Vec<u8>>,
    pub tenant: String,
}

impl Stored {
    /// All of a chain.
    pub fn chain(client: &mut Client, tenant: &str, lane: i32) -> Result<Vec<Self>, postgres::Error> {
        client.query(STORED, &[&tenant, &lane])?.iter().map(Self::read).collect()
    }

    fn read(row: &Row) -> Result<Self, postgres::Error> {
        Ok(Self {
            seq: row.try_get(0)?,
            incarnation: row.try_get(1)?,
            lane: row.try_get(2)?,
            format: row.try_get(3)?,
            lsn: row.try_get(4)?,
            ordinal: row.try_get(5)?,
            at: row.try_get(6)?,
            xid: row.try_get(7)?,
            op: row.try_get(8)?,
            schema_name: row.try_get(9)?,
            table_name: row.try_get(10)?,
            login_role: row.try_get(11)?,
            acting_role: row.try_get(12)?,
            move_id: row.try_get(13)?,
            actor_seq: row.try_get(14)?,
            signs_run: row.try_get(15)?,
            key_id: row.try_get(16)?,
            actor_salt: row.try_get(17)?,
            actor: row.try_get(18)?,
            row_salt: row.try_get(19)?,
            row_key: row.try_get(20)?,
            old: row.try_get(21)?,
            new: row.try_get(22)?,
            actor_digest: row.try_get(23)?,
            row_digest: row.try_get(24)?,
            prev_hash: row.try_get(25)?,
            hash: row.try_get(26)?,
            signature: row.try_get(27)?,
            tenant: row.try_get(28)?,
        })
    }

    /// Computes the row digest and the hash anew.
    pub fn seal(&mut self) {
        let salt = self.row_salt.as_deref().unwrap_or_default();
        self.row_digest = row_digest(salt, self.row_key.as_deref(), self.old.as_deref(), self.new.as_deref()).to_vec();
        self.hash = self.view().compute_hash().to_vec();
    }

    pub fn sign(&mut self, key: &SigningKey) {
        let message = [&b"pg_custody/run/v1\0"[..], &self.hash].concat();
        self.signature = Some(key.sign(&message).to_bytes().to_vec());
    }

    fn view(&self) -> Entry<'_> {
        Entry {
            incarnation: self.incarnation,
            tenant: &self.tenant,
            lane: self.lane.into(),
            seq: self.seq,
            format: self.format,
            lsn: self.lsn.unsigned_abs(),
            ordinal: self.ordinal.into(),
            at: self.at,
            xid: self.xid.unsigned_abs(),
            op: &self.op,
            schema_name: self.schema_name.as_deref(),
            table_name: self.table_name.as_deref(),
            login_role: &self.login_role,
            acting_role: &self.acting_role,
            move_id: self.move_id,
            actor_seq: self.actor_seq,
            signs_run: self.signs_run,
            key_id: self.key_id.as_deref(),
            actor_salt: self.actor_salt.as_deref(),
            actor: self.actor.as_deref(),
            row_salt: self.row_salt.as_deref(),
            row_key: self.row_key.as_deref(),
            old: self.old.as_deref(),
            new: self.new.as_deref(),
            actor_digest: self.actor_digest.as_deref(),
            row_digest: &self.row_digest,
            prev_hash: &self.prev_hash,
            hash: &self.hash,
            signature: self.signature.as_deref(),
        }
    }
}
