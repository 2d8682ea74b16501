//! custody.erase, erase_actor and scrub: taking personal data out of the log, and saying what that does not reach.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use custody_core::erasure::{self, Chain, Erasure, Part, Stretches};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::spi::{SpiError, SpiHeapTupleData};
use uuid::Uuid;

use crate::audit::transaction::{self, Record};
use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, value};
use crate::pg::data::{self, Nulled};
use crate::pg::strip::{self, Columns, Place};
use crate::pg::{lane, scan, session, spi};
use crate::sql_functions;

/// Stretches that one entry names. More go into further entries.
const STRETCHES: usize = 2000;

sql_functions! {
    custody_erase, pg_finfo_custody_erase => |call: &mut Call| {
        let tenant: String = call.required(0, "tenant")?;
        let target: Oid = call.required(1, "target")?;
        let null = || Error::BadArgument { name: "key", why: "must not be null".into() };
        let key = Key { given: call.json(2, "key")?.ok_or_else(null)?, text: call.json_text(2).unwrap_or_default() };
        let reason: String = call.required(3, "reason")?;
        let former: Vec<Option<String>> = call.required(4, "former_names")?;
        let rows = erase(&tenant, target, &key, &reason, &former)?;
        call.return_rows(rows.iter().map(Row::datums))
    };
    custody_erase_actor, pg_finfo_custody_erase_actor => |call: &mut Call| {
        let tenant: String = call.required(0, "tenant")?;
        let subject: String = call.required(1, "subject")?;
        let reason: String = call.required(2, "reason")?;
        let rows = erase_actor(&tenant, &subject, &reason)?;
        call.return_rows(rows.iter().map(Row::datums))
    };
    custody_scrub, pg_finfo_custody_scrub => |call: &mut Call| {
        let rows = scrub()?;
        call.return_rows(rows)
    };
}

/// A row's key as it was asked for.
struct Key {
    given: serde_json::Value,
    /// With all digits of its numbers.
    text: String,
}

/// A row of what an erasure returns.
struct Row {
    state: &'static str,
    object: String,
    entries: Option<i64>,
    detail: String,
}

impl Row {
    fn erased(object: impl Into<String>, entries: usize, detail: impl Into<String>) -> Self {
        Self { state: "erased", object: object.into(), entries: Some(entries as i64), detail: detail.into() }
    }

    fn out_of_reach(object: impl Into<String>, entries: Option<i64>, detail: impl Into<String>) -> Self {
        Self { state: "not reached", object: object.into(), entries, detail: detail.into() }
    }

    fn datums(&self) -> Vec<Nulled> {
        vec![data::text(self.state), data::text(&self.object), self.entries.and_then(value), data::text(&self.detail)]
    }
}

/// Where an entry is, in its chain and in the table.
#[derive(Clone, Debug)]
struct Found {
    chain: Chain,
    seq: i64,
    place: Place,
    op: String,
    /// Whether it is half of a move, and when it was recorded.
    moved: Option<(Uuid, TimestampWithTimeZone)>,
}

/// The columns of `Found`, of the entry `e`.
const FOUND: &str = "e.incarnation, e.lane, e.seq, e.tableoid, e.ctid::text, e.op::text, e.move_id, e.at";

impl Found {
    fn read(row: &SpiHeapTupleData<'_>) -> std::result::Result<Self, SpiError> {
        let uuid = |n| Ok::<_, SpiError>(row.get::<pgrx::Uuid>(n)?.map(|u| Uuid::from_bytes(*u.as_bytes())));
        let relid = row.get::<Oid>(4)?.unwrap_or(Oid::INVALID);
        Ok(Self {
            chain: (uuid(1)?.unwrap_or_default(), row.get::<i32>(2)?.unwrap_or_default().into()),
            seq: row.get::<i64>(3)?.unwrap_or_default(),
            place: Place::read(relid, &row.get::<String>(5)?.unwrap_or_default()).unwrap_or(Place {
                relid,
                block: 0,
                offset: 0,
            }),
            op: row.get::<String>(6)?.unwrap_or_default(),
            moved: uuid(7)?.zip(row.get::<TimestampWithTimeZone>(8)?),
        })
    }

    fn begins_a_life(&self) -> bool {
        matches!(self.op.as_str(), "INSERT" | "MOVE_IN")
    }

    fn ends_a_life(&self) -> bool {
        matches!(self.op.as_str(), "DELETE" | "MOVE_OUT" | "TRUNCATE")
    }
}

/// Begins an erasure: nobody else's is under way, and all that was recorded is in the table. Gives how many others are recording.
fn begin(tenant: &str, reason: &str) -> Result<i64> {
    if reason.trim().is_empty() {
        return Err(Error::BadArgument { name: "reason", why: "must not be empty".into() });
    }
    if session::in_recovery() || session::is_read_only() {
        return Err(Error::CannotErase {
            why: "This session can only read.",
            hint: "Erase on the primary, in a transaction that may write.",
        });
    }
    if !session::reads_committed() {
        let why = "The snapshot of a REPEATABLE READ or SERIALIZABLE transaction may be older than the last entries.";
        return Err(Error::CannotErase { why, hint: "Erase in a transaction of READ COMMITTED." });
    }
    const KNOWN: &str = "SELECT 1 WHERE $1 = '' OR EXISTS (SELECT FROM custody.tenants t WHERE t.id = $1)
        OR EXISTS (SELECT FROM custody.entry e WHERE e.tenant = $1 AND (e.signs_run OR e.actor_seq = e.seq))";
    transaction::flush()?;
    if session::as_owner(|| spi::rows_now(KNOWN, &[tenant.into()], |_| Ok(())))?.is_empty() {
        return Err(Error::BadArgument { name: "tenant", why: format!("names no tenant: \"{tenant}\"") });
    }
    lane::lock_erasure();
    // Who holds a lane has recorded something, or is about to.
    let recording = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database
         WHERE d.datname = pg_catalog.current_database() AND l.locktype = 'advisory' AND l.classid = 0 AND l.objsubid = {}
           AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()",
        lane::FIELD4 as i16
    );
    let count = session::as_owner(|| spi::rows_now(&recording, &[], |row| row.get::<i64>(1)))?;
    Ok(count.into_iter().flatten().next().unwrap_or(0))
}

/// Takes the part out of the entries, and says so in the log.
fn take_out(tenant: &str, table: Option<&(String, String)>, part: Part, found: &[Found], reason: &str) -> Result<()> {
    let mut by_table: HashMap<Oid, Vec<Place>> = HashMap::new();
    for entry in found {
        by_table.entry(entry.place.relid).or_default().push(entry.place);
    }
    let columns = match part {
        Part::Row => Columns::Row,
        Part::Actor => Columns::Actor,
    };
    session::as_owner(|| by_table.values().try_for_each(|places| strip::strip(places, columns)))?;
    // Recorded after it is done, so that the entry's position in the WAL is after all that it names.
    let mut by_chain: BTreeMap<Chain, Stretches> = BTreeMap::new();
    for entry in found {
        by_chain.entry(entry.chain).or_default().add(entry.seq, entry.seq);
    }
    let named: Vec<_> =
        by_chain.iter().flat_map(|(chain, s)| s.iter().map(|(first, last)| (*chain, first, last))).collect();
    for entries in named.chunks(STRETCHES) {
        let erasure = Erasure { part, entries: entries.to_vec() };
        transaction::record([Record {
            tenant: Rc::from(tenant),
            op: erasure::OP,
            schema_name: table.map(|t| Rc::from(&*t.0)),
            table_name: table.map(|t| Rc::from(&*t.1)),
            move_id: None,
            row_key: None,
            old: None,
            new: Some(erasure.write(reason)),
        }])?;
    }
    // What the summaries say of keys could be held against a guess. They are made anew when the old versions are gone.
    const FORGET: &str = "SELECT pg_catalog.brin_desummarize_range(i.indexrelid, b.block)
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
        CROSS JOIN pg_catalog.unnest($2::bigint[]) AS b (block) WHERE i.indrelid = $1 AND a.amname = 'brin'";
    for (relid, places) in by_table {
        let blocks: BTreeSet<i64> = places.iter().map(|p| p.block.into()).collect();
        let blocks: Vec<i64> = blocks.into_iter().collect();
        session::as_owner(|| spi::rows_now(FORGET, &[relid.into(), blocks.into()], |_| Ok(())))?;
    }
    Ok(())
}

/// What every erasure leaves, whatever it erased.
fn out_of_reach(recording: i64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if recording > 0 {
        rows.push(Row::out_of_reach(
            "transactions in progress",
            None,
            format!("{recording} transactions were recording, prepared ones included: what they commit about it is not erased. Erase again when they have ended."),
        ));
    }
    rows.push(Row::out_of_reach(
        "custody.entry's files",
        None,
        "the bytes stay in the table's pages until they are overwritten: SELECT * FROM custody.scrub(), after this transaction is committed",
    ));
    // The place where archived segments are re-issued without what was erased, and named if they cannot be.
    const INDEXES: &str = "SELECT i.indexrelid::pg_catalog.regclass::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = ANY ($1) AND c.relname NOT IN ('entry_runs', 'entry_search') ORDER BY 1";
    let tables = strip::log_tables()?;
    let others = session::as_owner(|| {
        spi::rows_now(INDEXES, &[tables.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))
    })?;
    for index in others {
        rows.push(Row::out_of_reach(
            index.clone(),
            None,
            format!("an index that pg_custody did not make, and does not overwrite: REINDEX INDEX {index}"),
        ));
    }
    for (object, detail) in [
        ("WAL", "the write-ahead log, and where it is archived or sent, has what was written until now: let it expire"),
        (
            "backups",
            "base backups, snapshots of disks and dumps hold the log as it was: let them expire, or erase again after restoring one",
        ),
        ("exports", "what custody.export_log() gave, and what others made of it"),
        ("standbys", "physical standbys follow as they replay; logical subscribers of custody.entry do not"),
        ("server log", "statements that the server logged, or that pg_stat_statements keeps, with their parameters"),
    ] {
        rows.push(Row::out_of_reach(object, None, detail));
    }
    Ok(rows)
}

fn erase(tenant: &str, target: Oid, key: &Key, reason: &str, former: &[Option<String>]) -> Result<Vec<Row>> {
    let recording = begin(tenant, reason)?;
    // Partitions are recorded under the table that is registered.
    let mut names = None;
    for of in scan::with_ancestors(target)? {
        let audited = scan::our_rows("audited_table", &[scan::Key::Oid(of)], |_| Some(()))?;
        if names.is_none() || !audited.is_empty() {
            names = session::relation_names(of).map(|n| (of, n));
        }
    }
    let Some((table, names)) = names else {
        return Err(Error::BadArgument { name: "target", why: "is no table".into() });
    };
    if names.0 == "custody" && names.1 != "token_revocation" {
        let why = "It is pg_custody's own configuration: who changed that stays on record.";
        return Err(Error::CannotErase { why, hint: "" });
    }
    let row_key = key_text(table, key)?;
    let names = all_names(names, former)?;
    let search = Search { tenant, names: &names };
    let asked = search.entries_of(&row_key)?;
    let mut taken: BTreeMap<(Chain, i64), Found> = BTreeMap::new();
    let mut elsewhere: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut followed = BTreeSet::new();
    let still_there = asked.last().is_some_and(|last| !last.ends_a_life());
    let mut waiting: Vec<Found> = asked;
    // A row that got another key is followed, there and back: through the life that it had under that key, not another's.
    while let Some(entry) = waiting.pop() {
        if let Some((id, at)) = entry.moved
            && followed.insert(id)
            && let Some(other) = search.other_half(&entry, id, at)?
        {
            if other.tenant != tenant {
                *elsewhere.entry((other.tenant, other.row_key)).or_default() += 1;
            } else {
                waiting.extend(life_around(search.entries_of(&other.row_key)?, &other.found));
            }
        }
        taken.insert((entry.chain, entry.seq), entry);
    }
    let found: Vec<Found> = taken.into_values().collect();
    let under_other_names = search.under_other_names(&row_key)?;
    if found.is_empty() {
        return Err(Error::NothingToErase {
            what: format!("row {row_key} of {}.{}, tenant \"{tenant}\"", names[0].0, names[0].1),
            other_names: under_other_names.iter().map(|n| format!("{}.{}", n.0, n.1)).collect(),
        });
    }
    take_out(tenant, Some(&names[0]), Part::Row, &found, reason)?;

    let mut rows = vec![Row::erased(
        "custody.entry",
        found.len(),
        format!("the row part of {} entries of tenant \"{tenant}\" is gone, and an entry ERASE says so", found.len()),
    )];
    let (live, name) = (session::relation_name(table), format!("{}.{}", names[0].0, names[0].1));
    if still_there {
        rows.push(Row::out_of_reach(
            live.clone(),
            None,
            "by the log the row is still there: nothing was deleted. DELETE it first, and erase then: a DELETE is recorded with the row",
        ));
    }
    rows.push(Row::out_of_reach(
        format!("files of {live}"),
        None,
        "versions of the row that are dead stay in the table, its indexes and its statistics until they are overwritten: VACUUM (FULL, ANALYZE) it, or let time do it",
    ));
    for ((other, key), moves) in elsewhere {
        rows.push(Row::out_of_reach(
            format!("tenant \"{other}\""),
            Some(moves),
            format!("the row moved between the tenants, and what it was there is in the other's chain: SELECT * FROM custody.erase({}, '{name}', {}, …)", quoted(&other), quoted(&key)),
        ));
    }
    for (schema, table, entries) in under_other_names {
        rows.push(Row::out_of_reach(
            format!("{schema}.{table}"),
            Some(entries),
            "entries of the same key under a name that no table has now. If it was this table's, erase again with former_names",
        ));
    }
    rows.extend(out_of_reach(recording)?);
    Ok(rows)
}

fn erase_actor(tenant: &str, subject: &str, reason: &str) -> Result<Vec<Row>> {
    let recording = begin(tenant, reason)?;
    // An actor part is the text that was hashed, always JSON; one that somebody broke is no reason to fail.
    let query = format!(
        "SELECT {FOUND} FROM custody.entry e WHERE e.tenant = $1 AND e.actor_seq = e.seq
           AND CASE WHEN e.actor LIKE '{{%}}' THEN e.actor::pg_catalog.jsonb ->> 'subject' END = $2"
    );
    let arguments: [DatumWithOid<'_>; 2] = [tenant.into(), subject.into()];
    let found = session::as_owner(|| spi::rows_now(&query, &arguments, Found::read))?;
    if found.is_empty() {
        let what = format!("subject \"{subject}\" in tenant \"{tenant}\"");
        return Err(Error::NothingToErase { what, other_names: Vec::new() });
    }
    take_out(tenant, None, Part::Actor, &found, reason)?;
    let mut rows = vec![
        Row::erased(
            "custody.entry",
            found.len(),
            format!(
                "the actor part of {} entries of tenant \"{tenant}\" is gone (subject, claims, address, application, request), and an entry ERASE says so",
                found.len()
            ),
        ),
        Row::out_of_reach(
            "other tenants",
            None,
            "chains of other tenants in which the same subject acted are other tenants': erase there too",
        ),
        Row::out_of_reach(
            "rows",
            None,
            "what the subject changed stays, and the roles login_role and acting_role. The subject's own row: custody.erase",
        ),
    ];
    rows.extend(out_of_reach(recording)?);
    Ok(rows)
}

/// The key as the log writes it; all of its columns must be given.
fn key_text(table: Oid, key: &Key) -> Result<String> {
    const COLUMNS: &str = "SELECT a.attname::text FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = $1 AND i.indisprimary";
    let columns = session::as_owner(|| {
        spi::rows_now(COLUMNS, &[table.into()], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))
    })?;
    if columns.is_empty() {
        let why = "Its rows have no primary key by which they could be found in the log.";
        return Err(Error::CannotErase { why, hint: "" });
    }
    if let Some(missing) = columns.iter().find(|c| key.given.get(c.as_str()).is_none_or(serde_json::Value::is_null)) {
        return Err(Error::BadArgument {
            name: "key",
            why: format!("must give the column \"{missing}\" of the primary key"),
        });
    }
    let text = session::as_owner(|| {
        spi::rows_now(
            "SELECT custody.row_key($1::pg_catalog.oid::pg_catalog.regclass, $2::pg_catalog.jsonb)",
            &[table.into(), key.text.as_str().into()],
            |row| row.get::<String>(1),
        )
    })?;
    text.into_iter().flatten().next().ok_or_else(|| Error::internal("a key has no text"))
}

/// The table's name, and those that it had.
fn all_names(now: (String, String), former: &[Option<String>]) -> Result<Vec<(String, String)>> {
    let mut names = vec![now];
    for name in former {
        let wrong = || Error::BadArgument { name: "former_names", why: "must be names as schema.table".into() };
        let name = name.as_deref().ok_or_else(wrong)?;
        let parts =
            spi::rows_now("SELECT pg_catalog.parse_ident($1)", &[name.into()], |row| row.get::<Vec<String>>(1))?;
        match parts.into_iter().flatten().next().as_deref() {
            Some([schema, table]) => names.push((schema.clone(), table.clone())),
            _ => return Err(wrong()),
        }
    }
    Ok(names)
}

/// The other entry of a move.
struct OtherHalf {
    tenant: String,
    row_key: String,
    found: Found,
}

/// Where entries are looked for: one tenant's, of one table.
struct Search<'a> {
    tenant: &'a str,
    names: &'a [(String, String)],
}

impl Search<'_> {
    /// The entries of a key, in order.
    fn entries_of(&self, row_key: &str) -> Result<Vec<Found>> {
        let query = format!(
            "SELECT {FOUND} FROM custody.entry e LEFT JOIN custody.incarnation i ON i.id = e.incarnation
             WHERE e.tenant = $1 AND custody.key_hash(e.row_key) = (SELECT custody.key_hash($2)) AND e.row_key = $2
               AND (e.schema_name, e.table_name) IN (SELECT s, t FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) AS n (s, t))
             ORDER BY i.started_at, i.id, e.lsn, e.ordinal"
        );
        let (schemas, tables): (Vec<String>, Vec<String>) = self.names.iter().cloned().unzip();
        let arguments: [DatumWithOid<'_>; 4] = [self.tenant.into(), row_key.into(), schemas.into(), tables.into()];
        session::as_owner(|| spi::rows_now(&query, &arguments, Found::read))
    }

    /// The other half of a move. Both were recorded at once.
    fn other_half(&self, half: &Found, id: Uuid, at: TimestampWithTimeZone) -> Result<Option<OtherHalf>> {
        let query = format!(
            "SELECT {FOUND}, e.tenant::text, e.row_key::text FROM custody.entry e WHERE e.at = $1 AND e.move_id = $2 AND e.op <> $3 AND e.row_key IS NOT NULL"
        );
        let id = pgrx::Uuid::from_bytes(*id.as_bytes());
        let arguments: [DatumWithOid<'_>; 3] = [at.into(), id.into(), half.op.as_str().into()];
        let other = session::as_owner(|| {
            spi::rows_now(&query, &arguments, |row| {
                let text = |n| Ok::<_, SpiError>(row.get::<String>(n)?.unwrap_or_default());
                Ok(OtherHalf { tenant: text(9)?, row_key: text(10)?, found: Found::read(row)? })
            })
        })?;
        Ok(other.into_iter().next())
    }

    /// Entries of the key under names that no table has.
    fn under_other_names(&self, row_key: &str) -> Result<Vec<(String, String, i64)>> {
        const OTHERS: &str = "SELECT e.schema_name::text, e.table_name::text, pg_catalog.count(*) FROM custody.entry e
            WHERE e.tenant = $1 AND custody.key_hash(e.row_key) = (SELECT custody.key_hash($2)) AND e.row_key = $2
              AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', e.schema_name, e.table_name)) IS NULL GROUP BY 1, 2 ORDER BY 1, 2";
        let found = session::as_owner(|| {
            spi::rows_now(OTHERS, &[self.tenant.into(), row_key.into()], |row| {
                let text = |n| Ok::<_, SpiError>(row.get::<String>(n)?.unwrap_or_default());
                Ok((text(1)?, text(2)?, row.get::<i64>(3)?.unwrap_or_default()))
            })
        })?;
        Ok(found.into_iter().filter(|f| !self.names.iter().any(|n| (&n.0, &n.1) == (&f.0, &f.1))).collect())
    }
}

/// Of a key's entries, in order, those of the row that came to the key, or left it, with this one. Others may have had it before and after.
fn life_around(mut entries: Vec<Found>, of: &Found) -> Vec<Found> {
    let Some(at) = entries.iter().position(|e| (e.chain, e.seq) == (of.chain, of.seq)) else { return Vec::new() };
    match of.op.as_str() {
        "MOVE_IN" => {
            let last = entries[at + 1..].iter().position(Found::ends_a_life).map_or(entries.len(), |n| at + 2 + n);
            entries.drain(at..last).collect()
        }
        _ => {
            let first = entries[..at].iter().rposition(Found::begins_a_life).unwrap_or(0);
            entries.drain(first..=at).collect()
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Overwrites what erased entries left in the files of the log: old versions, free room, summaries of keys.
fn scrub() -> Result<Vec<Vec<Nulled>>> {
    if session::in_recovery() || session::is_read_only() {
        return Err(Error::CannotErase {
            why: "This session can only read.",
            hint: "Scrub on the primary: standbys follow.",
        });
    }
    let mut rows = Vec::new();
    let mut add = |object: String, pages: usize, remaining: u64| {
        let detail = match remaining {
            0 => "nothing remains of what was erased".to_owned(),
            n => format!(
                "{n} old versions can still be seen by a transaction, a prepared one, a standby or a slot, or were erased just now: scrub again when that has ended"
            ),
        };
        rows.push(vec![data::text(&object), value(pages as i64), value(remaining as i64), data::text(&detail)]);
    };
    for table in strip::log_tables()? {
        let heap = strip::scrub_heap(table)?;
        add(session::relation_name(table), heap.pages.len(), heap.remaining);
        if let Some(toast) = strip::toast_of(table) {
            let scrubbed = strip::scrub_heap(toast)?;
            add(format!("{}, out of line", session::relation_name(table)), scrubbed.pages.len(), scrubbed.remaining);
        }
        const SUMMARIES: &str = "SELECT i.indexrelid, coalesce((SELECT o.option_value::bigint FROM pg_catalog.pg_options_to_table(c.reloptions) o WHERE o.option_name = 'pages_per_range'), 128)
            FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE i.indrelid = $1 AND a.amname = 'brin'";
        let indexes = session::as_owner(|| {
            spi::rows_now(SUMMARIES, &[table.into()], |row| Ok(row.get::<Oid>(1)?.zip(row.get::<i64>(2)?)))
        })?;
        for (index, pages_per_range) in indexes.into_iter().flatten() {
            let ranges: BTreeSet<i64> = heap.pages.iter().map(|page| i64::from(*page) / pages_per_range).collect();
            for range in ranges {
                session::check_for_interrupts();
                let first = range * pages_per_range;
                // The last range is summarised when it is full, or writers would have to keep it up.
                const AGAIN: &str = "SELECT CASE WHEN pg_catalog.pg_relation_size($2) / pg_catalog.current_setting('block_size')::bigint >= $3 + $4
                      THEN pg_catalog.brin_summarize_range($1, $3) END
                    FROM pg_catalog.brin_desummarize_range($1, $3)";
                let arguments: [DatumWithOid<'_>; 4] =
                    [index.into(), table.into(), first.into(), pages_per_range.into()];
                session::as_owner(|| spi::rows_now(AGAIN, &arguments, |_| Ok(())))?;
            }
            let scrubbed = strip::scrub_brin(index)?;
            add(session::relation_name(index), scrubbed.pages.len(), scrubbed.remaining);
        }
    }
    Ok(rows)
}
