//! An entry and its digests (format sections 2 to 4).

use uuid::Uuid;

use crate::Hash;
use crate::encoding::FieldHasher;

/// The version of the format that this crate writes.
pub const FORMAT: i16 = 1;

/// Bytes of a part's salt.
pub const SALT_LENGTH: usize = 16;

/// One row of `custody.entry`, borrowed from wherever it is stored. Field by field as in format section 2.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Entry<'a> {
    pub incarnation: Uuid,
    pub tenant: &'a str,
    pub lane: i64,
    pub seq: i64,
    pub format: i16,
    pub lsn: u64,
    pub ordinal: i64,
    pub at: i64,
    pub xid: u64,
    pub op: &'a str,
    pub schema_name: Option<&'a str>,
    pub table_name: Option<&'a str>,
    pub login_role: &'a str,
    pub acting_role: &'a str,
    pub move_id: Option<Uuid>,
    pub actor_seq: i64,
    pub signs_run: bool,
    pub key_id: Option<&'a str>,
    pub actor_salt: Option<&'a [u8]>,
    pub actor: Option<&'a str>,
    pub row_salt: Option<&'a [u8]>,
    pub row_key: Option<&'a str>,
    pub old: Option<&'a str>,
    pub new: Option<&'a str>,
    pub actor_digest: Option<&'a [u8]>,
    pub row_digest: &'a [u8],
    pub prev_hash: &'a [u8],
    pub hash: &'a [u8],
    pub signature: Option<&'a [u8]>,
}

/// The hash that entry 1 of a chain is linked to.
pub fn genesis(incarnation: Uuid, tenant: &str, lane: i64) -> Hash {
    FieldHasher::new("pg_custody/genesis/v1").uuid(Some(incarnation)).text(Some(tenant)).integer(lane).finish()
}

/// The digest through which the actor part enters the hash.
pub fn actor_digest(salt: &[u8], actor: &str) -> Hash {
    FieldHasher::new("pg_custody/actor/v1").bytes(Some(salt)).text(Some(actor)).finish()
}

/// The digest through which the row part enters the hash.
pub fn row_digest(salt: &[u8], key: Option<&str>, old: Option<&str>, new: Option<&str>) -> Hash {
    FieldHasher::new("pg_custody/row/v1").bytes(Some(salt)).text(key).text(old).text(new).finish()
}

/// What a row's key is found by: not part of the format, and shows nothing of the key.
pub fn key_hash(row_key: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = FieldHasher::new("pg_custody/key-index/v1").text(Some(row_key)).finish();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Entry<'_> {
    /// The hash of this entry as its columns stand, `prev_hash` and both digests taken as stored (format section 4).
    pub fn compute_hash(&self) -> Hash {
        FieldHasher::new("pg_custody/entry/v1")
            .bytes(Some(self.prev_hash))
            .uuid(Some(self.incarnation))
            .text(Some(self.tenant))
            .integer(self.lane)
            .integer(self.seq)
            .integer(self.lsn as i64)
            .integer(self.ordinal)
            .integer(self.at)
            .integer(self.xid as i64)
            .text(Some(self.op))
            .text(self.schema_name)
            .text(self.table_name)
            .text(Some(self.login_role))
            .text(Some(self.acting_role))
            .uuid(self.move_id)
            .integer(self.actor_seq)
            .boolean(self.signs_run)
            .text(self.key_id)
            .bytes(self.actor_digest)
            .bytes(Some(self.row_digest))
            .finish()
    }
}
