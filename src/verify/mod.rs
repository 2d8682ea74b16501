//! Whether the log is whole: clears what is beyond doubt in one sweep, walks the chains that are not, and looks at what is
//! switched on now.

mod sweep;

use pgrx::spi::{Spi, SpiHeapTupleData};
use serde_json::Value;
use uuid::Uuid;

use custody_core::entry::Entry;
use custody_core::export;
use custody_core::key::Ending;
use custody_core::sweep::Sweep;
use custody_core::verify;
use custody_core::verify::{ChainId, End, Head, KeyRecord, Keys, Report, Verifier};

use crate::audit::{incarnation, transaction};
use crate::error::{Error, Result};
use crate::evidence::check::{self, Checked, Outside};
use crate::pg::call::{Call, value};
use crate::pg::data::{self, Nulled};
use crate::pg::layout::EPOCH;
use crate::pg::{session, spi};
use crate::sql_functions;

sql_functions! {
    custody_verify, pg_finfo_custody_verify => |call: &mut Call| {
        let tenant: Option<String> = call.optional(2);
        // Of 0.1.0 come three arguments.
        let outside = Outside::given(call.optional(3), call.optional(4))?;
        let outcome = verify(call.optional(0), call.json(1, "heads")?, tenant.as_deref(), &outside)?;
        let rows: Vec<_> = outcome.rows();
        call.return_rows(rows)
    };
    custody_assert_verified, pg_finfo_custody_assert_verified => |call: &mut Call| {
        let outside = Outside::given(call.optional(2), call.optional(3))?;
        let outcome = verify(call.optional(0), call.json(1, "heads")?, None, &outside)?;
        match outcome.findings.is_empty() {
            true => Ok(data::text(&outcome.summary)),
            false => Err(Error::NotVerified {
                findings: outcome.findings.iter().take(50).map(Finding::line).collect::<Vec<_>>().join("\n"),
                summary: outcome.summary,
            }),
        }
    };
}

/// A finding, of the chains or of what is switched on now.
struct Finding {
    verdict: String,
    chain: Option<ChainId>,
    seq: Option<i64>,
    detail: String,
}

impl Finding {
    fn line(&self) -> String {
        match &self.chain {
            Some(c) => {
                let seq = self.seq.unwrap_or_default();
                format!(
                    "{}: tenant \"{}\", lane {}, seq {seq}, incarnation {}: {}",
                    self.verdict, c.tenant, c.lane, c.incarnation, self.detail
                )
            }
            None => format!("{}: {}", self.verdict, self.detail),
        }
    }
}

struct Outcome {
    verdict: &'static str,
    summary: String,
    findings: Vec<Finding>,
    /// What is to be known, and makes nothing invalid.
    notices: Vec<Finding>,
}

impl Outcome {
    fn rows(&self) -> Vec<Vec<Nulled>> {
        let summary = vec![data::text(self.verdict), None, None, None, None, data::text(&self.summary)];
        let findings = self.findings.iter().chain(&self.notices).map(|f| {
            vec![
                data::text(&f.verdict),
                f.chain.as_ref().and_then(|c| data::uuid(c.incarnation)),
                f.chain.as_ref().and_then(|c| data::text(&c.tenant)),
                f.chain.as_ref().and_then(|c| value(c.lane as i32)),
                f.seq.and_then(value),
                data::text(&f.detail),
            ]
        });
        std::iter::once(summary).chain(findings).collect()
    }
}

fn verify(pin: Option<String>, heads: Option<Value>, tenant: Option<&str>, outside: &Outside) -> Result<Outcome> {
    transaction::flush()?;
    let pins: Option<Vec<String>> = pin.map(|p| p.split_whitespace().map(str::to_ascii_lowercase).collect());
    let wrong = |p: &String| p.len() != 64 || !p.bytes().all(|b| b.is_ascii_hexdigit());
    if pins.as_ref().is_some_and(|pins| pins.is_empty() || pins.iter().any(wrong)) {
        let why = "must be a fingerprint, or several with blanks between: 64 hex digits each".into();
        return Err(Error::BadArgument { name: "pin", why });
    }
    let against_heads = heads.is_some();
    let heads = heads.map_or(Ok(Vec::new()), |h| read_heads(&h))?;
    let keys = Keys::new(&keys()?, pins.as_deref());
    let mut checkpoints = check::check(&keys, incarnation::written()?, outside)?;
    let heads = heads.into_iter().chain(std::mem::take(&mut checkpoints.heads));
    let heads: Vec<Head> = heads.filter(|h| tenant.is_none_or(|t| t == h.chain.tenant)).collect();
    let first = sweep::sweep(&Sweep::new(keys.clone(), &heads), tenant)?;
    let mut walk = Verifier::with_keys(keys, heads);
    match first.unreadable {
        true => walk_chains(&mut walk, tenant, None)?,
        false => {
            walk.add_clear(&first.swept.clear);
            walk.forget_heads_but(&first.swept.doubtful);
            if !first.swept.doubtful.is_empty() {
                walk_chains(&mut walk, tenant, Some(&first.swept.doubtful))?;
            }
        }
    }
    let guard_lifted = first.guard_lifted;
    let report = walk.finish();
    let as_row = |f: &verify::Finding| Finding {
        verdict: f.verdict.to_string(),
        chain: f.chain.clone(),
        seq: f.chain.as_ref().map(|_| f.seq),
        detail: f.detail.clone(),
    };
    let mut findings: Vec<Finding> = report.findings.iter().map(as_row).collect();
    let notices = report.notices.iter().map(as_row).collect();
    findings.extend(checkpoints.findings.iter().map(|f| Finding {
        verdict: f.verdict.into(),
        chain: None,
        seq: Some(f.counter),
        detail: format!("checkpoint {} of incarnation {}: {}", f.counter, f.incarnation, f.detail),
    }));
    findings.append(&mut what_is_off()?);
    let verdict = match (report.counts.entries, findings.is_empty()) {
        (0, _) => "empty",
        (_, true) => "valid",
        (_, false) => "invalid",
    };
    let given = Given { pinned: pins.is_some(), heads: against_heads, notes: outside.notes.len(), tenant };
    let summary = summary(&report, findings.len(), &given, &checkpoints, guard_lifted)?;
    Ok(Outcome { verdict, summary, findings, notices })
}

/// What the caller asked for, and brought along.
struct Given<'a> {
    pinned: bool,
    heads: bool,
    notes: usize,
    tenant: Option<&'a str>,
}

/// What was checked, and how far that goes.
fn summary(
    report: &Report,
    findings: usize,
    given: &Given<'_>,
    checkpoints: &Checked,
    guard_lifted: u64,
) -> Result<String> {
    let counts = &report.counts;
    let current = incarnation::written()?;
    let own = current.and_then(|id| counts.by_incarnation.get(&id)).copied().unwrap_or(0);
    let mut text = format!(
        "{} entries in {} chains{}, {} signatures hold; {}",
        counts.entries,
        counts.chains,
        given.tenant.map(|t| format!(" of tenant \"{t}\"")).unwrap_or_default(),
        counts.signatures,
        match findings.max(counts.findings as usize) {
            0 => "no finding".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        }
    );
    if counts.entries > own {
        text += &format!(
            "; inherited {} of {} from {} earlier incarnations",
            counts.entries - own,
            counts.entries,
            counts.by_incarnation.keys().filter(|id| Some(**id) != current).count()
        );
    }
    match report.notices.len() {
        0 => {}
        1 => text += "; 1 key took over from a lost one",
        n => text += &format!("; {n} keys took over from lost ones"),
    }
    let [doubts, committed, open] = incarnation::doubts()?;
    if doubts > 0 {
        text += &format!(
            "; {doubts} transactions were in doubt when lives began: {committed} committed, {open} still open, {} without entries",
            doubts - committed - open
        );
    }
    if guard_lifted > 0 {
        text += &format!("; the append-only guard was lifted {guard_lifted} times (custody.log, op GUARD_OFF)");
    }
    if counts.erased > 0 {
        text += &format!("; {} parts of entries were erased (custody.log, op ERASE)", counts.erased);
    }
    // The ladder of docs/evidence.md. Without a pinned key, only what was kept outside counts.
    text += &match (checkpoints.size, checkpoints.anchored) {
        _ if findings > 0 || counts.entries == 0 => "; assurance: none".to_owned(),
        (_, anchored) if checkpoints.witnessed > 0 && checkpoints.witnessed == anchored => {
            format!("; assurance: witnessed, by {anchored} of {} checkpoints from outside", given.notes)
        }
        (_, anchored) if anchored > 0 => {
            format!("; assurance: anchored, by {anchored} of {} checkpoints from outside", given.notes)
        }
        (size, _) if size > 0 && given.pinned => format!("; assurance: checkpointed, up to the last of {size}"),
        _ if given.pinned => "; assurance: signed".to_owned(),
        _ => "; assurance: chained".to_owned(),
    };
    text += match given.pinned {
        true => ", key pinned",
        false => ", key not pinned: who can rewrite the log can rewrite its keys",
    };
    text += match (given.heads, checkpoints.anchored > 0) {
        (true, _) => ", held against kept heads",
        (_, true) => ", held against what those checkpoints say: a chain cut after the last of them is not seen",
        _ => ", no heads or checkpoints from outside given: a chain cut at its end is not seen",
    };
    Ok(text)
}

/// Walks entries in order, a thousand at a time: all of them, or those of the given chains.
fn walk_chains(walk: &mut Verifier, tenant: Option<&str>, chains: Option<&[ChainId]>) -> Result<()> {
    const ENTRIES: &str = "SELECT e.incarnation, e.tenant::text, e.lane, e.seq,
          CASE pg_catalog.num_nulls(e.incarnation, e.tenant, e.lane, e.seq, e.lsn, e.ordinal, e.at, e.xid, e.op, e.login_role, e.acting_role, e.actor_seq, e.signs_run)
            WHEN 0 THEN e.format ELSE 0::smallint END, pg_catalog.pg_lsn_send(e.lsn), e.ordinal,
          pg_catalog.timestamptz_send(e.at), pg_catalog.xid8send(e.xid), e.op::text, e.schema_name::text, e.table_name::text, e.login_role::text, e.acting_role::text,
          e.move_id, e.actor_seq, e.signs_run, e.key_id::text, e.actor_salt, e.actor::text, e.row_salt, e.row_key::text, e.old::text, e.new::text,
          e.actor_digest, e.row_digest, e.prev_hash, e.hash, e.signature
        FROM custody.entry e
        WHERE ($1 IS NULL OR e.tenant OPERATOR(pg_catalog.=) $1)
          AND ($2 IS NULL OR (e.tenant::text, e.incarnation, e.lane) IN (SELECT t, i, l FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::int[])) AS c (t, i, l)))
        ORDER BY e.tenant, e.incarnation, e.lane, e.seq";
    type Outcome<T> = std::result::Result<T, pgrx::spi::SpiError>;
    let failed = |e: pgrx::spi::SpiError| Error::internal(e.to_string());
    let tenants = chains.map(|chains| chains.iter().map(|c| c.tenant.clone()).collect::<Vec<_>>());
    let incarnations = chains
        .map(|chains| chains.iter().map(|c| pgrx::Uuid::from_bytes(*c.incarnation.as_bytes())).collect::<Vec<_>>());
    let lanes = chains.map(|chains| chains.iter().map(|c| c.lane as i32).collect::<Vec<_>>());
    let arguments = [tenant.into(), tenants.into(), incarnations.into(), lanes.into()];
    // One connection a batch: what SPI holds for a batch goes with its connection.
    let mut cursor = Some(Spi::connect(|client| client.open_cursor(ENTRIES, &arguments).detach_into_name()));
    while let Some(name) = cursor {
        cursor = Spi::connect(|client| -> Outcome<_> {
            let mut cursor = client.find_cursor(&name)?;
            let table = cursor.fetch(1000)?;
            if table.is_empty() {
                return Ok(None);
            }
            for row in table {
                walk_entry(walk, &row)?;
            }
            Ok(Some(cursor.detach_into_name()))
        })
        .map_err(failed)?;
        session::check_for_interrupts();
    }
    Ok(())
}

fn walk_entry(walk: &mut Verifier, row: &SpiHeapTupleData<'_>) -> std::result::Result<(), pgrx::spi::SpiError> {
    let uuid = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<pgrx::Uuid>(n)?.map(|u| Uuid::from_bytes(*u.as_bytes())));
    let text = |n| row.get::<String>(n);
    let bytes = |n| row.get::<Vec<u8>>(n);
    let big = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<i64>(n)?.unwrap_or_default());
    // As they are stored: not every value of these types is a bigint.
    let sent =
        |n| Ok::<_, pgrx::spi::SpiError>(bytes(n)?.and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes));
    let (tenant, op, login, acting) = (text(2)?, text(10)?, text(13)?, text(14)?);
    let (schema_name, table_name, key_id, actor) = (text(11)?, text(12)?, text(18)?, text(20)?);
    let (row_key, old, new) = (text(22)?, text(23)?, text(24)?);
    let (actor_salt, row_salt, actor_digest, row_digest) = (bytes(19)?, bytes(21)?, bytes(25)?, bytes(26)?);
    let (prev_hash, hash, signature) = (bytes(27)?, bytes(28)?, bytes(29)?);
    let entry = Entry {
        incarnation: uuid(1)?.unwrap_or_default(),
        tenant: tenant.as_deref().unwrap_or_default(),
        lane: row.get::<i32>(3)?.unwrap_or_default().into(),
        seq: big(4)?,
        format: row.get::<i16>(5)?.unwrap_or_default(),
        lsn: sent(6)? as u64,
        ordinal: row.get::<i32>(7)?.unwrap_or_default().into(),
        at: sent(8)?.wrapping_add(EPOCH),
        xid: sent(9)? as u64,
        op: op.as_deref().unwrap_or_default(),
        schema_name: schema_name.as_deref(),
        table_name: table_name.as_deref(),
        login_role: login.as_deref().unwrap_or_default(),
        acting_role: acting.as_deref().unwrap_or_default(),
        move_id: uuid(15)?,
        actor_seq: big(16)?,
        signs_run: row.get::<bool>(17)?.unwrap_or_default(),
        key_id: key_id.as_deref(),
        actor_salt: actor_salt.as_deref(),
        actor: actor.as_deref(),
        row_salt: row_salt.as_deref(),
        row_key: row_key.as_deref(),
        old: old.as_deref(),
        new: new.as_deref(),
        actor_digest: actor_digest.as_deref(),
        row_digest: row_digest.as_deref().unwrap_or_default(),
        prev_hash: prev_hash.as_deref().unwrap_or_default(),
        hash: hash.as_deref().unwrap_or_default(),
        signature: signature.as_deref(),
    };
    walk.entry(&entry);
    Ok(())
}

fn keys() -> Result<Vec<KeyRecord>> {
    // By way of JSON: a table of 0.1.0 that is not upgraded yet has none of these columns.
    const KEYS: &str = "SELECT k.key_id::text, k.incarnation, k.public_key, k.predecessor::text, k.endorsement,
          ((j.life OPERATOR(pg_catalog.->>) 'from_lsn')::pg_catalog.pg_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint, j.life OPERATOR(pg_catalog.->>) 'recovers', j.life OPERATOR(pg_catalog.->>) 'ended',
          ((j.life OPERATOR(pg_catalog.->>) 'until_lsn')::pg_catalog.pg_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint, j.life OPERATOR(pg_catalog.->>) 'ended_by', (j.life OPERATOR(pg_catalog.->>) 'end_signature')::bytea
        FROM custody.signing_key k CROSS JOIN LATERAL pg_catalog.to_jsonb(k) AS j (life) ORDER BY k.created_at, k.key_id";
    spi::rows(KEYS, &[], |row| {
        let (how, until_lsn) = (row.get::<String>(8)?, row.get::<i64>(9)?);
        let (by, signature) = (row.get::<String>(10)?, row.get::<Vec<u8>>(11)?);
        let how = how.and_then(|how| Ending::named(&how));
        let end = how.zip(until_lsn).zip(by.zip(signature));
        Ok(KeyRecord {
            key_id: row.get(1)?.unwrap_or_default(),
            incarnation: row.get::<pgrx::Uuid>(2)?.map(|u| Uuid::from_bytes(*u.as_bytes())).unwrap_or_default(),
            public_key: row.get(3)?.unwrap_or_default(),
            predecessor: row.get(4)?,
            endorsement: row.get(5)?,
            from_lsn: row.get(6)?,
            recovers: row.get(7)?,
            end: end.map(|((how, until_lsn), (by, signature))| End { how, until_lsn, by, signature }),
        })
    })
}

/// What is not in force at this moment, whatever the log says.
fn what_is_off() -> Result<Vec<Finding>> {
    let off = |verdict: &'static str, sql: &str| {
        spi::rows(sql, &[], |row| {
            let detail = row.get::<String>(1)?.unwrap_or_default();
            Ok(Finding { verdict: verdict.into(), chain: None, seq: None, detail })
        })
    };
    let mut found = off(
        "capture_disabled",
        "SELECT pg_catalog.format('now: trigger %s on %s is %s, so changes are not recorded', g.trigger_name, g.relid::pg_catalog.regclass, g.problem)
         FROM custody.capture_gap g ORDER BY 1",
    )?;
    found.append(&mut off(
        "guard_lifted",
        "SELECT pg_catalog.format('now: %s is %s, so the log is not guarded', g.object, g.problem) FROM custody.guard_gap g ORDER BY 1",
    )?);
    Ok(found)
}

fn read_heads(heads: &Value) -> Result<Vec<Head>> {
    let read = export::read_heads(heads.to_string().as_bytes()).ok();
    // A lane that `custody.entry` cannot hold would be taken for another.
    read.filter(|heads| heads.iter().all(|h| i32::try_from(h.chain.lane).is_ok())).ok_or_else(|| Error::BadArgument {
        name: "heads",
        why: "must be what SELECT jsonb_agg(h) FROM custody.heads() h gave: an array of {incarnation, tenant, lane, seq, hash}".into(),
    })
}
