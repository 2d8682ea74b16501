//! Random logs, made as the extension makes them: by journals, transaction by transaction, flushed and rolled back at random.

use std::collections::HashMap;
use std::rc::Rc;

use custody_core::entry::genesis;
use custody_core::export::{self, Reader, Unreadable};
use custody_core::journal::{ChainEnd, Fact, Journal, Which};
use custody_core::key::{PrivateKey, fingerprint};
use custody_core::verify::{ChainId, Head, KeyRecord, Report};
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What happens in one transaction.
#[derive(Clone, Debug)]
pub enum Step {
    Change { tenant: usize, actor: usize, at: i64, texts: [Option<String>; 3] },
    Move { from: usize, to: usize, text: String },
    Begin,
    Release,
    Rollback,
    FlushAll,
    FlushOwn,
}

/// One life of the database: its key is endorsed by the life's before, or pinned itself.
#[derive(Clone, Debug)]
pub struct Life {
    pub endorsed: bool,
    /// Lane, steps, and whether it commits.
    pub transactions: Vec<(i64, Vec<Step>, bool)>,
}

/// A log as it is exported, and what is kept of it elsewhere.
pub struct Log {
    /// Keys first, each with its line feed.
    pub lines: Vec<String>,
    pub keys: usize,
    pub pins: Vec<String>,
    pub heads: Vec<Head>,
}

impl Log {
    pub fn bytes(&self) -> Vec<u8> {
        self.lines.concat().into_bytes()
    }

    /// Verifies an export against what was kept of this one.
    pub fn verify(&self, export: &[u8]) -> Result<Report, Unreadable> {
        export::verify(Reader::with_limit(export, 1 << 20), Some(&self.pins), self.heads.clone())
    }

    /// Whether an export is unreadable, or has findings.
    pub fn detects(&self, export: &[u8]) -> bool {
        self.verify(export).map_or(true, |report| !report.findings.is_empty())
    }
}

const TENANTS: [&str; 4] = ["", "a", "ab", "Ü \"quoted\"\n"];
const ACTORS: [&str; 3] = ["{}", r#"{"user": "zoë"}"#, r#"{"user": null}"#];
const OPS: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\u{0}\u{1f}\u{b}\u{8}\\u0041\"\u{7f}\u{2028}".to_owned()),
        Just(r#"{"id": 1, "name": "Ada"}"#.to_owned()),
        any::<String>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..TENANTS.len(), 0..ACTORS.len(), any::<i64>(), proptest::array::uniform3(proptest::option::of(text())))
            .prop_map(|(tenant, actor, at, texts)| Step::Change { tenant, actor, at, texts }),
        1 => (0..TENANTS.len(), 0..TENANTS.len(), text()).prop_map(|(from, to, text)| Step::Move { from, to, text }),
        2 => Just(Step::Begin),
        1 => Just(Step::Release),
        1 => Just(Step::Rollback),
        1 => Just(Step::FlushAll),
        1 => Just(Step::FlushOwn),
    ]
}

/// Logs of up to three lives, three lanes, and some two dozen entries.
pub fn log() -> impl Strategy<Value = Vec<Life>> {
    let transaction = (0..3i64, proptest::collection::vec(step(), 0..8), proptest::bool::weighted(0.9));
    let life = (any::<bool>(), proptest::collection::vec(transaction, 0..4))
        .prop_map(|(endorsed, transactions)| Life { endorsed, transactions });
    proptest::collection::vec(life, 1..4)
}

/// Where an entry stands in an export: tenant, incarnation, lane, seq.
type Place = (String, Uuid, i64, i64);

struct Row {
    level: u32,
    place: Place,
    /// Where its actor part is, and who it was that acted.
    actor: (i64, Rc<str>),
    hash: [u8; 32],
    line: String,
}

/// Lives those lives.
pub fn make(lives: &[Life]) -> Log {
    make_with(lives, 1)
}

/// Lives them with other keys, as a forger would who knows everything else.
pub fn make_with(lives: &[Life], first_seed: u8) -> Log {
    let mut keys: Vec<(PrivateKey, KeyRecord)> = Vec::new();
    let mut pins = Vec::new();
    let mut table: Vec<Row> = Vec::new();
    let mut clock = 0;
    for (number, life) in lives.iter().enumerate() {
        let incarnation = Uuid::from_u128(u128::MAX / 7 * (7 - number as u128));
        let key = PrivateKey::from_seed(&Zeroizing::new([first_seed + number as u8; 32]));
        let public = key.public_key();
        let predecessor = keys.last().filter(|_| life.endorsed).map(|(predecessor, _)| predecessor);
        if predecessor.is_none() {
            pins.push(fingerprint(&public));
        }
        let record = KeyRecord {
            key_id: key.key_id().into(),
            incarnation,
            public_key: public.into(),
            predecessor: predecessor.map(|p| p.key_id().into()),
            endorsement: predecessor.map(|p| p.endorse(incarnation, &public, None).into()),
            ..KeyRecord::default()
        };
        // As in life, the first thing that a key signs is that it was born.
        let born =
            Step::Change { tenant: 0, actor: 0, at: 0, texts: [None, None, Some(format!("{{\"life\": {number}}}"))] };
        let birth = (0, vec![born], true);
        for (lane, steps, commits) in std::iter::once(&birth).chain(&life.transactions) {
            let rows = transaction(&key, incarnation, *lane, steps, &table, &mut clock);
            table.extend(rows.into_iter().filter(|_| *commits));
        }
        keys.push((key, record));
    }
    table.sort_by(|a, b| a.place.cmp(&b.place));
    for Row { place: (tenant, incarnation, lane, seq), actor: (actor_seq, actor), .. } in &table {
        let named = (tenant, *incarnation, *lane, *actor_seq);
        let carrier = table.iter().find(|r| (&r.place.0, r.place.1, r.place.2, r.place.3) == named).unwrap();
        let part = format!("\"actor\": {}, ", Value::from(&**actor));
        assert!(carrier.line.contains(&part), "entry {seq} of {tenant:?} is not {actor}'s");
    }
    let mut heads: HashMap<_, Head> = HashMap::new();
    for Row { place: (tenant, incarnation, lane, seq), hash, .. } in &table {
        let chain = ChainId { incarnation: *incarnation, tenant: tenant.clone(), lane: *lane };
        heads.insert(chain.clone(), Head { chain, seq: *seq, hash: hash.to_vec() });
    }
    let lines = keys.iter().map(|k| export::key_line(&k.1)).chain(table.into_iter().map(|row| row.line)).collect();
    Log { lines, keys: keys.len(), pins, heads: heads.into_values().collect() }
}

/// What a transaction leaves in the table if it commits.
fn transaction(
    key: &PrivateKey,
    incarnation: Uuid,
    lane: i64,
    steps: &[Step],
    table: &[Row],
    clock: &mut u64,
) -> Vec<Row> {
    let journal = Journal::new(incarnation, lane, 1000 + *clock);
    let mut open = Open { journal, key, table, clock, level: 1, actors: HashMap::new(), rows: Vec::new() };
    for step in steps {
        match step {
            Step::Change { tenant, actor, at, texts } => {
                let op = OPS[*open.clock as usize % OPS.len()];
                open.append(op, *tenant, *actor, *at, None, texts.each_ref().map(Option::as_deref));
            }
            Step::Move { from, to, text } => {
                let move_id = Some(Uuid::from_u128(u128::from(*open.clock) << 64 | 5));
                open.append("MOVE_OUT", *from, 0, 0, move_id, [Some(text), Some(text), None]);
                open.append("MOVE_IN", *to, 0, 0, move_id, [Some(text), None, Some(text)]);
            }
            Step::Begin => open.level += 1,
            Step::Release if open.level > 1 => open.release(),
            Step::Rollback if open.level > 1 => open.rollback(),
            Step::Release | Step::Rollback => {}
            Step::FlushAll => open.flush(Which::All),
            Step::FlushOwn => open.flush(Which::OwnLevel),
        }
    }
    while open.level > 1 {
        open.release();
    }
    open.flush(Which::All);
    open.rows
}

/// A transaction that has not ended.
struct Open<'a> {
    journal: Journal,
    key: &'a PrivateKey,
    /// What is committed.
    table: &'a [Row],
    /// Counts changes, and so is where the WAL is.
    clock: &'a mut u64,
    level: u32,
    /// Who made the change that is at this place of the WAL.
    actors: HashMap<u64, Rc<str>>,
    rows: Vec<Row>,
}

impl Open<'_> {
    fn append(
        &mut self,
        op: &'static str,
        tenant: usize,
        actor: usize,
        at: i64,
        move_id: Option<Uuid>,
        [row_key, old, new]: [Option<&str>; 3],
    ) {
        let (tenant, actor) = (TENANTS[tenant], Rc::<str>::from(ACTORS[actor]));
        let chain = self.journal.chain(tenant).unwrap_or_else(|| {
            let (incarnation, lane) = (self.journal.incarnation(), self.journal.lane());
            let here = |row: &&Row| (&*row.place.0, row.place.1, row.place.2) == (tenant, incarnation, lane);
            let end = match self.table.iter().filter(here).max_by_key(|row| row.place.3) {
                Some(row) => ChainEnd { seq: row.place.3, hash: row.hash },
                None => ChainEnd { seq: 0, hash: genesis(incarnation, tenant, lane) },
            };
            self.journal.begin_chain(tenant.into(), end).unwrap()
        });
        *self.clock += 1;
        let lsn = 0x1_5000_0000 + *self.clock;
        self.actors.insert(lsn, actor.clone());
        let table = op != "TRUNCATE";
        let fact = Fact {
            op,
            schema_name: table.then(|| "clinic".into()),
            table_name: table.then(|| "patients\u{1b}".into()),
            login_role: "app".into(),
            acting_role: "owner".into(),
            actor,
            move_id,
            lsn,
            at,
            row_key,
            old,
            new,
        };
        self.journal.append(self.level, chain, fact, || Ok::<_, ()>([lsn as u8; 16])).unwrap();
    }

    fn release(&mut self) {
        self.journal.sub_commit(self.level);
        self.level -= 1;
        self.rows.iter_mut().for_each(|row| row.level = row.level.min(self.level));
    }

    fn rollback(&mut self) {
        self.journal.sub_abort(self.level);
        self.rows.retain(|row| row.level < self.level);
        self.level -= 1;
    }

    fn flush(&mut self, which: Which) {
        self.journal.seal(self.key);
        self.rows.extend(self.journal.unwritten(which, self.level, self.key).map(|e| Row {
            level: self.level,
            place: (e.tenant.to_owned(), e.incarnation, e.lane, e.seq),
            actor: (e.actor_seq, self.actors[&e.lsn].clone()),
            hash: e.hash.try_into().unwrap(),
            line: export::entry_line(&e),
        }));
        self.journal.wrote(which, self.level);
    }
}
