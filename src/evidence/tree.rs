//! The trees of checkpoints as they are stored.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::SpiHeapTupleData;
use uuid::Uuid;

use custody_core::Hash;
use custody_core::tlog::leaf::{ChainHead, Leaf};
use custody_core::tlog::merkle::Nodes;

use crate::error::{Error, Result};
use crate::pg::layout::EPOCH;
use crate::pg::spi;

pub fn as_pgrx(uuid: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*uuid.as_bytes())
}

/// The nodes of one incarnation's tree.
pub struct Stored(pub Uuid);

impl Nodes for Stored {
    type Error = Error;

    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let sql = "SELECT n.hash FROM custody.checkpoint_node n WHERE n.incarnation OPERATOR(pg_catalog.=) $1
                   AND n.level OPERATOR(pg_catalog.=) $2 AND n.index OPERATOR(pg_catalog.=) $3";
        let arguments = [as_pgrx(self.0).into(), (level as i16).into(), (index as i64).into()];
        let found = spi::rows(sql, &arguments, |row| row.get::<Vec<u8>>(1))?;
        let hash = found.into_iter().next().flatten().and_then(|h| h.try_into().ok());
        hash.ok_or_else(|| {
            Error::internal(format!("node {index} of level {level} of the tree of checkpoints is missing"))
        })
    }
}

/// How many leaves an incarnation's tree has.
pub fn size(incarnation: Uuid) -> Result<u64> {
    let sql = "SELECT coalesce(pg_catalog.max(l.counter) OPERATOR(pg_catalog.+) 1, 0::bigint)
               FROM custody.checkpoint_leaf l WHERE l.incarnation OPERATOR(pg_catalog.=) $1";
    let found = spi::rows(sql, &[as_pgrx(incarnation).into()], |row| row.get::<i64>(1))?;
    Ok(found.into_iter().next().flatten().unwrap_or(0) as u64)
}

/// The last signed note of an incarnation, and its size.
pub fn last_note(incarnation: Uuid) -> Result<Option<(u64, String)>> {
    let sql = "SELECT n.size, n.note::text FROM custody.checkpoint_note n
               WHERE n.incarnation OPERATOR(pg_catalog.=) $1 ORDER BY n.size DESC LIMIT 1";
    let found = spi::rows(sql, &[as_pgrx(incarnation).into()], |row| Ok((row.get::<i64>(1)?, row.get::<String>(2)?)))?;
    Ok(found.into_iter().next().and_then(|(size, note)| Some((size? as u64, note?))))
}

/// The leaves of an incarnation from a counter up to another.
pub fn leaves(incarnation: Uuid, from: u64, to: u64) -> Result<Vec<Leaf>> {
    let sql = "SELECT l.counter, l.at, l.lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn, l.keys, l.configuration, l.tenants, l.map
               FROM custody.checkpoint_leaf l WHERE l.incarnation OPERATOR(pg_catalog.=) $1
                 AND l.counter OPERATOR(pg_catalog.>=) $2 AND l.counter OPERATOR(pg_catalog.<) $3 ORDER BY l.counter";
    let bytes = |row: &SpiHeapTupleData<'_>, n: usize| -> std::result::Result<Hash, pgrx::spi::SpiError> {
        Ok(row.get::<Vec<u8>>(n)?.and_then(|b| b.try_into().ok()).unwrap_or_default())
    };
    let arguments = [as_pgrx(incarnation).into(), (from as i64).into(), (to as i64).into()];
    spi::rows(sql, &arguments, |row| {
        Ok(Leaf {
            counter: row.get::<i64>(1)?.unwrap_or_default() as u64,
            at: row.get::<TimestampWithTimeZone>(2)?.map_or(0, |at| i64::from(at) + EPOCH),
            incarnation,
            lsn: row.get::<pgrx::AnyNumeric>(3)?.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
            keys: bytes(row, 4)?,
            configuration: bytes(row, 5)?,
            tenants: row.get::<i64>(6)?.unwrap_or_default() as u64,
            map: bytes(row, 7)?,
        })
    })
}

/// One tenant's chains at a checkpoint.
pub struct TenantHeads {
    pub tenant: String,
    pub digest: Hash,
    pub heads: Vec<ChainHead>,
}

/// Where every tenant's chains ended at a checkpoint, by tenant.
pub fn heads_at(incarnation: Uuid, counter: u64) -> Result<Vec<TenantHeads>> {
    let sql = "SELECT DISTINCT ON (h.tenant) h.tenant::text, h.digest, h.heads::text FROM custody.checkpoint_head h
               WHERE h.incarnation OPERATOR(pg_catalog.=) $1 AND h.counter OPERATOR(pg_catalog.<=) $2 ORDER BY h.tenant, h.counter DESC";
    let rows = spi::rows(sql, &[as_pgrx(incarnation).into(), (counter as i64).into()], |row| {
        Ok((row.get::<String>(1)?, row.get::<Vec<u8>>(2)?, row.get::<String>(3)?))
    })?;
    let mut tenants = Vec::with_capacity(rows.len());
    for (tenant, digest, heads) in rows {
        let tenant = tenant.unwrap_or_default();
        let heads = heads.and_then(|text| serde_json::from_str(&text).ok());
        let heads = heads.ok_or_else(|| {
            Error::internal(format!("the heads of tenant \"{tenant}\" at checkpoint {counter} cannot be read"))
        })?;
        let digest = digest.and_then(|d| d.try_into().ok()).unwrap_or_default();
        tenants.push(TenantHeads { tenant, digest, heads });
    }
    // The map is sorted by bytes, as the collation of the column is; what was tampered with need not be.
    tenants.sort_by(|a, b| a.tenant.as_bytes().cmp(b.tenant.as_bytes()));
    Ok(tenants)
}
