//! Making a checkpoint: a leaf first, committed durably; then, in another transaction, the note.
//!
//! A note that is out in the world can never be taken back. Signed in the transaction that makes the leaf, a rollback, a crash or
//! a failover would leave the database contradicting what it had published.

use custody_core::encoding::FieldHasher;
use custody_core::key::unhex;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{ChainHead, Leaf, heads_digest, map};
use custody_core::tlog::{merkle, note};
use custody_core::{Hash, tlog};
use uuid::Uuid;

use crate::audit::{incarnation, key, key_life, transaction};
use crate::error::{Error, Result};
use crate::evidence::tree::{self, Stored, TenantHeads, as_pgrx};
use crate::pg::call::{Call, VOID, value};
use crate::pg::{data, lane, session, spi};
use crate::sql_functions;

sql_functions! {
    custody_checkpoint_begin, pg_finfo_custody_checkpoint_begin => |_| {
        not_in_recovery()?;
        // A database that was copied or promoted starts its new life here rather than in the leaf's transaction, which must hold no lane.
        if incarnation::is_due()? {
            incarnation::current()?;
        }
        key_life::retire_when_due()?;
        Ok(VOID)
    };
    custody_checkpoint_leaf, pg_finfo_custody_checkpoint_leaf => |_: &mut Call| Ok(value(append_leaf()? as i64));
    custody_checkpoint_sign, pg_finfo_custody_checkpoint_sign => |_: &mut Call| Ok(data::text(&sign()?));
}

/// A standby makes no checkpoints: those of its primary arrive here.
fn not_in_recovery() -> Result<()> {
    match session::in_recovery() {
        true => Err(Error::InRecovery { what: "no checkpoint can be made" }),
        false => Ok(()),
    }
}

fn append_leaf() -> Result<u64> {
    not_in_recovery()?;
    if transaction::is_recording() || incarnation::is_due()? {
        return Err(Error::CannotCheckpoint {
            why: "This transaction has recorded changes, or the database has just become another one.",
        });
    }
    if !session::reads_committed() {
        return Err(Error::CannotCheckpoint { why: "Its snapshot may be older than what others have committed." });
    }
    let Some(incarnation) = incarnation::written()? else { return Err(Error::NotStarted) };
    // One at a time, until this one is committed. What is read from here on is read with newer snapshots.
    lane::lock_checkpoint();
    commit_durably()?;
    session::with_new_snapshot(|| make_leaf(incarnation))
}

fn make_leaf(incarnation: Uuid) -> Result<u64> {
    let counter = tree::size(incarnation)?;
    let mut tenants = tenants_now()?;
    let mut before = digests_before(incarnation, &tenants)?;
    let known = before.iter().flatten().count() as u64;
    let last = counter.checked_sub(1).map(|last| tree::leaves(incarnation, last, counter)).transpose()?;
    if last.and_then(|mut leaves| leaves.pop()).is_some_and(|last| last.tenants > known) {
        tenants.append(&mut gone(incarnation, &tenants)?);
        tenants.sort_by(|a, b| a.tenant.as_bytes().cmp(b.tenant.as_bytes()));
        before = digests_before(incarnation, &tenants)?;
    }
    let map = map(tenants.iter().map(|t| (&*t.tenant, t.digest)));
    let leaf = Leaf {
        counter,
        at: session::now(),
        incarnation,
        lsn: session::wal_end(),
        keys: keys_digest()?,
        configuration: configuration_digest()?,
        tenants: map.size(),
        map: map.root(),
    };
    let moved: Vec<_> =
        tenants.iter().zip(before).filter(|(t, before)| *before != Some(t.digest)).map(|(t, _)| t).collect();
    store(&leaf, &moved)?;
    Ok(counter)
}

/// Every tenant's chains as they end now.
fn tenants_now() -> Result<Vec<TenantHeads>> {
    let rows = spi::rows("SELECT h.tenant, h.incarnation, h.lane, h.seq, h.hash FROM custody.heads() h", &[], |row| {
        let chain = row.get::<pgrx::Uuid>(2)?.map(|u| Uuid::from_bytes(*u.as_bytes()));
        Ok((row.get::<String>(1)?, chain, row.get::<i32>(3)?, row.get::<i64>(4)?, row.get::<String>(5)?))
    })?;
    let mut chains: Vec<(String, ChainHead)> = Vec::with_capacity(rows.len());
    for (tenant, chain, lane, seq, digits) in rows {
        let mut hash: Hash = [0; 32];
        let (Some(tenant), Some(chain), Some(lane), Some(seq), Some(digits)) = (tenant, chain, lane, seq, digits)
        else {
            return Err(Error::internal("a chain's head is incomplete"));
        };
        if !unhex(&digits, &mut hash) {
            return Err(Error::CannotCheckpoint {
                why: "An entry's hash has not 32 bytes: custody.verify() tells more.",
            });
        }
        chains.push((tenant, ChainHead { incarnation: chain, lane: lane.into(), seq, hash }));
    }
    chains.sort_by(|(a, x), (b, y)| (a.as_bytes(), x).cmp(&(b.as_bytes(), y)));
    let mut tenants: Vec<TenantHeads> = Vec::new();
    for (tenant, head) in chains {
        match tenants.last_mut() {
            Some(last) if last.tenant == tenant => last.heads.push(head),
            _ => tenants.push(TenantHeads { tenant, digest: [0; 32], heads: vec![head] }),
        }
    }
    for tenant in &mut tenants {
        tenant.digest = heads_digest(&tenant.tenant, &tenant.heads);
    }
    Ok(tenants)
}

/// What the checkpoint before says of these tenants: their digests, in their order.
fn digests_before(incarnation: Uuid, tenants: &[TenantHeads]) -> Result<Vec<Option<Hash>>> {
    let sql = "SELECT (SELECT h.digest FROM custody.checkpoint_head h
                       WHERE h.incarnation OPERATOR(pg_catalog.=) $1 AND h.tenant OPERATOR(pg_catalog.=) t.tenant COLLATE pg_catalog.\"C\" ORDER BY h.counter DESC LIMIT 1)
               FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY AS t (tenant, place) ORDER BY t.place";
    let names: Vec<_> = tenants.iter().map(|t| t.tenant.as_str()).collect();
    let found = spi::rows(sql, &[as_pgrx(incarnation).into(), names.into()], |row| row.get::<Vec<u8>>(1))?;
    Ok(found.into_iter().map(|digest| digest.and_then(|d| d.try_into().ok())).collect())
}

/// Tenants of earlier checkpoints whose chains are gone. They stay, with none: a checkpoint forgets nobody.
fn gone(incarnation: Uuid, tenants: &[TenantHeads]) -> Result<Vec<TenantHeads>> {
    let sql = "SELECT DISTINCT h.tenant::text FROM custody.checkpoint_head h
               WHERE h.incarnation OPERATOR(pg_catalog.=) $1 AND NOT h.tenant OPERATOR(pg_catalog.=) ANY ($2)";
    let names: Vec<_> = tenants.iter().map(|t| t.tenant.as_str()).collect();
    let gone = spi::rows(sql, &[as_pgrx(incarnation).into(), names.into()], |row| row.get::<String>(1))?;
    let empty = |tenant: String| TenantHeads { digest: heads_digest(&tenant, &[]), heads: Vec::new(), tenant };
    Ok(gone.into_iter().flatten().map(empty).collect())
}

/// Appends the leaf, with the heads of the tenants whose chains have moved.
fn store(leaf: &Leaf, tenants: &[&TenantHeads]) -> Result<()> {
    let incarnation = as_pgrx(leaf.incarnation);
    let at = pgrx::datum::TimestampWithTimeZone::try_from(leaf.at - crate::pg::layout::EPOCH);
    let at = at.map_err(|_| Error::internal("the clock shows no time"))?;
    spi::run(
        "INSERT INTO custody.checkpoint_leaf (incarnation, counter, at, lsn, keys, configuration, tenants, map)
         VALUES ($1, $2, $3, '0/0'::pg_catalog.pg_lsn OPERATOR(pg_catalog.+) $4::pg_catalog.numeric, $5, $6, $7, $8)",
        &[
            incarnation.into(),
            (leaf.counter as i64).into(),
            at.into(),
            (leaf.lsn as i64).into(),
            (&leaf.keys[..]).into(),
            (&leaf.configuration[..]).into(),
            (leaf.tenants as i64).into(),
            (&leaf.map[..]).into(),
        ],
    )?;
    let names: Vec<_> = tenants.iter().map(|t| t.tenant.as_str()).collect();
    let digests: Vec<_> = tenants.iter().map(|t| &t.digest[..]).collect();
    let heads: Vec<_> = tenants.iter().map(|t| serde_json::json!(&t.heads).to_string()).collect();
    spi::run(
        "INSERT INTO custody.checkpoint_head (incarnation, tenant, counter, digest, heads)
         SELECT $1, n.tenant, $2, n.digest, n.heads::pg_catalog.jsonb
         FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::bytea[]), pg_catalog.unnest($5::text[])) AS n (tenant, digest, heads)",
        &[incarnation.into(), (leaf.counter as i64).into(), names.into(), digests.into(), heads.into()],
    )?;
    for (level, index, hash) in merkle::append(&Stored(leaf.incarnation), leaf.counter, leaf.hash())? {
        spi::run(
            "INSERT INTO custody.checkpoint_node (incarnation, level, index, hash) VALUES ($1, $2, $3, $4)",
            &[incarnation.into(), (level as i16).into(), (index as i64).into(), (&hash[..]).into()],
        )?;
    }
    Ok(())
}

fn sign() -> Result<String> {
    not_in_recovery()?;
    if session::has_written() {
        return Err(Error::CannotCheckpoint {
            why: "This transaction has written: what it signs might be rolled back with it.",
        });
    }
    let Some(incarnation) = incarnation::written()? else { return Err(Error::NotStarted) };
    let size = tree::size(incarnation)?;
    if let Some((signed, note)) = tree::last_note(incarnation)?
        && signed == size
    {
        return Ok(note);
    }
    if size == 0 {
        return Err(Error::CannotCheckpoint { why: "There is no leaf yet: CALL custody.checkpoint() makes one." });
    }
    // Who cancels a commit's wait for the standbys has committed all the same: that the leaf can be seen says nothing.
    commit_durably()?;
    if !session::standbys_have_what_is_here() {
        return Err(Error::CannotCheckpoint {
            why: "The standbys that commits wait for have not confirmed the leaf: after a failover it might never have been.",
        });
    }
    let origin = tlog::origin(incarnation);
    let root = merkle::root(&Stored(incarnation), size)?;
    let text = Checkpoint { origin: origin.clone(), size, root }.text();
    let sign = |key_id: &str| {
        key::with_signing_key(key_id, |key| note::sign(&text, &origin, key).map_err(|e| Error::internal(e.to_string())))
    };
    // Those that were replaced and have not ended sign as well, as long as they can: witnesses may not know the new one yet.
    let current = key::current(incarnation)?;
    let others = key::registered(incarnation)?.into_iter().filter(|k| k.ended.is_none() && k.key_id != current);
    let mut note = format!("{text}\n{}", sign(&current)?);
    for other in others {
        match sign(&other.key_id) {
            Ok(line) => note.push_str(&line),
            Err(Error::KeyMissing { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    spi::run(
        "INSERT INTO custody.checkpoint_note (incarnation, size, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[as_pgrx(incarnation).into(), (size as i64).into(), note.as_str().into()],
    )?;
    Ok(note)
}

/// Whatever the session has chosen, this commit waits for the disk, and for the standbys that commits are to wait for.
fn commit_durably() -> Result<()> {
    spi::run(
        "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
         WHERE pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
        &[],
    )
}

/// The public keys that are registered, who vouches for them, and where they are valid.
fn keys_digest() -> Result<Hash> {
    digest(
        "pg_custody/keys/v1",
        "SELECT c.line FROM (SELECT pg_catalog.format('%s %s %s %s %s', k.incarnation, k.key_id, pg_catalog.encode(k.public_key, 'hex'), k.predecessor, pg_catalog.encode(k.endorsement, 'hex'))
           || CASE WHEN pg_catalog.num_nonnulls(k.from_lsn, k.recovers, k.ended) OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.format(' %s %s %s %s %s %s', k.from_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn, k.recovers, k.ended, k.until_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn, k.ended_by, pg_catalog.encode(k.end_signature, 'hex'))
                ELSE '' END AS line
         FROM custody.signing_key k) c ORDER BY c.line COLLATE pg_catalog.\"C\"",
    )
}

/// What is protected and audited, and by which triggers and policies, enabled how.
fn configuration_digest() -> Result<Hash> {
    digest(
        "pg_custody/configuration/v1",
        "SELECT c.line FROM (
           SELECT pg_catalog.format('table %s %s %s', r.kind, r.target, r.tenant_column) AS line FROM custody.registered_table r
           UNION ALL
           SELECT pg_catalog.format('audited %s %s %s', a.target, a.exclude, a.redact) FROM custody.audited_table a
           UNION ALL
           SELECT pg_catalog.format('trigger %s %s %s', t.tgrelid::pg_catalog.regclass, t.tgenabled::text, pg_catalog.pg_get_triggerdef(t.oid))
           FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname = 'custody'
           UNION ALL
           SELECT pg_catalog.format('policy %s %s %s %s %s %s', p.polrelid::pg_catalog.regclass, p.polname, p.polpermissive, p.polcmd::text, c.relrowsecurity, c.relforcerowsecurity)
             || ' ' || coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '') || ' ' || coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
           FROM pg_catalog.pg_policy p JOIN custody.registered_table r ON r.target = p.polrelid JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
           UNION ALL
           SELECT pg_catalog.format('event trigger %s %s %s', e.evtname, e.evtenabled::text, e.evtfoid::pg_catalog.regproc) FROM pg_catalog.pg_event_trigger e
           WHERE e.evtname IN ('custody_ddl', 'custody_drop')
         ) c ORDER BY c.line COLLATE pg_catalog.\"C\"",
    )
}

fn digest(domain: &str, lines: &str) -> Result<Hash> {
    let lines = spi::rows(lines, &[], |row| row.get::<String>(1))?;
    let mut hasher = FieldHasher::new(domain);
    for line in &lines {
        hasher.text(line.as_deref());
    }
    Ok(hasher.finish())
}
