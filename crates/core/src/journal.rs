//! What one transaction has to say and has not yet written: numbered, chained, signed, and exact under savepoints.
//!
//! A *level* is the nesting depth of the (sub)transaction that an entry belongs to; 1 is the top. Entries are hashed late, when
//! they are sealed, because only then is it known which one ends a run. Within a chain the last entry of *each level* is
//! signed: if a savepoint is rolled back, what remains ends in a signature, with the numbers and bytes it had.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use uuid::Uuid;

use crate::Hash;
use crate::entry::{Entry, FORMAT, SALT_LENGTH, actor_digest, row_digest};
use crate::key::PrivateKey;

/// What is to be recorded: everything about an entry but its place and its proof.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Fact {
    pub tenant: Rc<str>,
    pub op: &'static str,
    pub schema_name: Option<Rc<str>>,
    pub table_name: Option<Rc<str>>,
    pub login_role: Rc<str>,
    pub acting_role: Rc<str>,
    pub actor: Rc<str>,
    pub move_id: Option<Uuid>,
    pub lsn: u64,
    pub at: i64,
    pub xid: u64,
    pub row_key: Option<String>,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// The end of a chain as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// Its last number; 0 if there is none.
    pub seq: i64,
    /// That entry's hash, or the genesis hash.
    pub hash: Hash,
}

struct Sealed {
    signs_run: bool,
    actor_digest: Option<Hash>,
    row_digest: Hash,
    prev_hash: Hash,
    hash: Hash,
    signature: Option<[u8; 64]>,
}

struct Item {
    chain: usize,
    level: u32,
    written: Option<u32>,
    seq: i64,
    ordinal: i64,
    actor_seq: i64,
    actor_salt: [u8; SALT_LENGTH],
    row_salt: [u8; SALT_LENGTH],
    fact: Fact,
    sealed: Option<Sealed>,
}

/// Where a chain stood when a level first appended to it.
struct Saved {
    level: u32,
    next: i64,
    actor: Option<(Rc<str>, i64)>,
    /// The hash before it; none while the entries before it are not sealed.
    hash: Option<Hash>,
}

struct Chain {
    next: i64,
    actor: Option<(Rc<str>, i64)>,
    /// The hash of the last sealed entry, or of the chain's end in the table.
    hash: Hash,
    saved: Vec<Saved>,
}

/// A sealed entry, and the key that signed it if it carries a signature.
pub struct Row<'a> {
    item: &'a Item,
    sealed: &'a Sealed,
    incarnation: Uuid,
    lane: i64,
    key_id: &'a str,
}

impl<'a> Row<'a> {
    /// The entry, as it is to be stored.
    pub fn entry(&self) -> Entry<'a> {
        let Item { fact, .. } = self.item;
        let carries_actor = self.item.actor_seq == self.item.seq;
        Entry {
            incarnation: self.incarnation,
            tenant: &fact.tenant,
            lane: self.lane,
            seq: self.item.seq,
            format: FORMAT,
            lsn: fact.lsn,
            ordinal: self.item.ordinal,
            at: fact.at,
            xid: fact.xid,
            op: fact.op,
            schema_name: fact.schema_name.as_deref(),
            table_name: fact.table_name.as_deref(),
            login_role: &fact.login_role,
            acting_role: &fact.acting_role,
            move_id: fact.move_id,
            actor_seq: self.item.actor_seq,
            signs_run: self.sealed.signs_run,
            key_id: self.sealed.signs_run.then_some(self.key_id),
            actor_salt: carries_actor.then_some(&self.item.actor_salt[..]),
            actor: carries_actor.then_some(&fact.actor),
            row_salt: Some(&self.item.row_salt),
            row_key: fact.row_key.as_deref(),
            old: fact.old.as_deref(),
            new: fact.new.as_deref(),
            actor_digest: self.sealed.actor_digest.as_ref().map(|d| &d[..]),
            row_digest: &self.sealed.row_digest,
            prev_hash: &self.sealed.prev_hash,
            hash: &self.sealed.hash,
            signature: self.sealed.signature.as_ref().map(|s| &s[..]),
        }
    }
}

/// Which sealed entries are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All: somebody is about to read, or the transaction ends.
    All,
    /// Only those of the current level: memory is full. What outer levels own stays, so that nothing of theirs need come back.
    OwnLevel,
}

/// The entries of one transaction, on one lane.
pub struct Journal {
    incarnation: Uuid,
    lane: i64,
    chains: Vec<Chain>,
    by_tenant: HashMap<Rc<str>, usize>,
    items: Vec<Item>,
    ordinal: i64,
    /// Bytes of payload not written yet, by level.
    bytes: BTreeMap<u32, usize>,
    /// Sabotage for the tests' sake: forget what outer levels own when a savepoint that wrote it is rolled back.
    pub forgets_outer_levels: bool,
}

impl Journal {
    /// A transaction that holds `lane`.
    pub fn new(incarnation: Uuid, lane: i64) -> Self {
        Self {
            incarnation,
            lane,
            chains: Vec::new(),
            by_tenant: HashMap::new(),
            items: Vec::new(),
            ordinal: 0,
            bytes: BTreeMap::new(),
            forgets_outer_levels: false,
        }
    }

    /// Whose chains these are.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// The lane that the transaction holds.
    pub fn lane(&self) -> i64 {
        self.lane
    }

    /// Whether this transaction already knows where the tenant's chain stands.
    pub fn knows(&self, tenant: &str) -> bool {
        self.by_tenant.contains_key(tenant)
    }

    /// Bytes of payload that are not written yet and belong to `level`.
    pub fn unwritten_bytes(&self, level: u32) -> usize {
        self.bytes.get(&level).copied().unwrap_or(0)
    }

    /// Whether `Which::All` would write anything.
    pub fn has_unwritten(&self) -> bool {
        self.items.iter().any(|i| i.written.is_none())
    }

    /// Says where a tenant's chain stands in the table. To be read once, after the lane is held.
    pub fn begin_chain(&mut self, tenant: Rc<str>, end: ChainEnd) {
        self.by_tenant.insert(tenant, self.chains.len());
        self.chains.push(Chain { next: end.seq + 1, actor: None, hash: end.hash, saved: Vec::new() });
    }

    /// Takes a fact of the given level into its tenant's chain, which must be known.
    pub fn append(&mut self, level: u32, fact: Fact, salts: [[u8; SALT_LENGTH]; 2]) {
        let index = self.by_tenant[&fact.tenant];
        let chain = &mut self.chains[index];
        if level > chain.saved.last().map_or(1, |s| s.level) {
            let all_sealed = !self.items.iter().any(|i| i.chain == index && i.sealed.is_none());
            chain.saved.push(Saved {
                level,
                next: chain.next,
                actor: chain.actor.clone(),
                hash: all_sealed.then_some(chain.hash),
            });
        }
        let seq = chain.next;
        chain.next += 1;
        let actor_seq = match &chain.actor {
            Some((actor, at)) if *actor == fact.actor => *at,
            _ => {
                chain.actor = Some((fact.actor.clone(), seq));
                seq
            }
        };
        self.ordinal += 1;
        *self.bytes.entry(level).or_default() += weight(&fact);
        let [actor_salt, row_salt] = salts;
        self.items.push(Item {
            chain: index,
            level,
            written: None,
            seq,
            ordinal: self.ordinal,
            actor_seq,
            actor_salt,
            row_salt,
            fact,
            sealed: None,
        });
    }

    /// Hashes what is not hashed yet, and signs the last entry of each level in each chain.
    pub fn seal(&mut self, key: &PrivateKey) {
        let mut level_after: HashMap<usize, u32> = HashMap::new();
        let mut ends_level = vec![false; self.items.len()];
        for (item, ends) in self.items.iter().zip(&mut ends_level).rev().filter(|(i, _)| i.sealed.is_none()) {
            *ends = level_after.insert(item.chain, item.level) != Some(item.level);
        }
        for (item, ends) in self.items.iter_mut().zip(ends_level).filter(|(i, _)| i.sealed.is_none()) {
            let chain = &mut self.chains[item.chain];
            for saved in chain.saved.iter_mut().filter(|s| s.level <= item.level) {
                saved.hash.get_or_insert(chain.hash);
            }
            let fact = &item.fact;
            let carries_actor = item.actor_seq == item.seq;
            item.sealed = Some(Sealed {
                signs_run: ends,
                actor_digest: carries_actor.then(|| actor_digest(&item.actor_salt, &fact.actor)),
                row_digest: row_digest(
                    &item.row_salt,
                    fact.row_key.as_deref(),
                    fact.old.as_deref(),
                    fact.new.as_deref(),
                ),
                prev_hash: chain.hash,
                hash: [0; 32],
                signature: None,
            });
            let hash = match &item.sealed {
                Some(sealed) => {
                    Row { item, sealed, incarnation: self.incarnation, lane: self.lane, key_id: key.key_id() }
                        .entry()
                        .compute_hash()
                }
                None => unreachable!("sealed just above"),
            };
            chain.hash = hash;
            if let Some(sealed) = &mut item.sealed {
                sealed.hash = hash;
                sealed.signature = ends.then(|| key.sign_run(&hash));
            }
        }
    }

    /// The sealed entries that are not written yet, in order.
    pub fn unwritten<'a>(&'a self, which: Which, level: u32, key: &'a PrivateKey) -> impl Iterator<Item = Row<'a>> {
        self.items.iter().filter(move |i| i.written.is_none() && (which == Which::All || i.level == level)).filter_map(
            move |item| {
                let sealed = item.sealed.as_ref()?;
                Some(Row { item, sealed, incarnation: self.incarnation, lane: self.lane, key_id: key.key_id() })
            },
        )
    }

    /// Notes that those entries are in the table now, put there by `level`, and lets go of what shares its fate.
    pub fn wrote(&mut self, which: Which, level: u32) {
        for item in self.items.iter_mut() {
            if item.written.is_none() && item.sealed.is_some() && (which == Which::All || item.level == level) {
                item.written = Some(level);
            }
        }
        self.let_go();
    }

    /// A subtransaction's entries become its parent's.
    pub fn sub_commit(&mut self, level: u32) {
        let parent = level - 1;
        for item in &mut self.items {
            item.level = item.level.min(parent);
            item.written = item.written.map(|w| w.min(parent));
        }
        for chain in &mut self.chains {
            if let Some(last) = chain.saved.last()
                && last.level >= level
            {
                let known = parent <= 1 || chain.saved.iter().any(|s| s.level == parent);
                if known {
                    chain.saved.pop();
                } else if let Some(last) = chain.saved.last_mut() {
                    last.level = parent;
                }
            }
        }
        self.let_go();
    }

    /// A subtransaction's entries are gone; what it wrote for others has to be written again, same numbers, same bytes.
    pub fn sub_abort(&mut self, level: u32) {
        let forgets = self.forgets_outer_levels;
        self.items.retain(|i| i.level < level && !(forgets && i.written.is_some_and(|w| w >= level)));
        for item in &mut self.items {
            item.written = item.written.filter(|w| *w < level);
        }
        for chain in &mut self.chains {
            while chain.saved.last().is_some_and(|s| s.level >= level) {
                if let Some(saved) = chain.saved.pop() {
                    chain.next = saved.next;
                    chain.actor = saved.actor;
                    if let Some(hash) = saved.hash {
                        chain.hash = hash;
                    }
                }
            }
        }
        self.let_go();
    }

    /// Drops entries that are written by their own level, and counts what is left to write.
    fn let_go(&mut self) {
        self.items.retain(|i| i.written != Some(i.level));
        self.bytes.clear();
        for item in self.items.iter().filter(|i| i.written.is_none()) {
            *self.bytes.entry(item.level).or_default() += weight(&item.fact);
        }
    }
}

fn weight(fact: &Fact) -> usize {
    let len = |s: &Option<String>| s.as_ref().map_or(0, String::len);
    512 + len(&fact.row_key) + len(&fact.old) + len(&fact.new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::genesis;
    use crate::verify::{KeyRecord, Verifier};
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    /// The table as subtransactions see it: rows with the level that wrote them.
    struct World {
        journal: Journal,
        key: PrivateKey,
        level: u32,
        table: Vec<(u32, Stored)>,
        /// What should be in the log in the end: (level, marker).
        wanted: Vec<(u32, String)>,
        count: u32,
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Stored {
        tenant: String,
        seq: i64,
        new: String,
        hash: Vec<u8>,
        owned: OwnedEntry,
    }

    #[derive(Clone, Debug, PartialEq)]
    struct OwnedEntry {
        tenant: String,
        actor: Option<String>,
        new: Option<String>,
        key_id: Option<String>,
        bytes: Vec<Option<Vec<u8>>>,
        numbers: (i64, i64, i64, bool),
    }

    const INCARNATION: Uuid = Uuid::from_u128(7);

    impl World {
        fn new() -> Self {
            Self {
                journal: Journal::new(INCARNATION, 3),
                key: PrivateKey::from_seed(&Zeroizing::new([9; 32])),
                level: 1,
                table: Vec::new(),
                wanted: Vec::new(),
                count: 0,
            }
        }

        fn append(&mut self, tenant: &str, actor: &str) {
            if !self.journal.knows(tenant) {
                let end = ChainEnd { seq: 0, hash: genesis(INCARNATION, tenant, 3) };
                self.journal.begin_chain(tenant.into(), end);
            }
            self.count += 1;
            let marker = format!("{}", self.count);
            self.wanted.push((self.level, marker.clone()));
            let fact = Fact {
                tenant: tenant.into(),
                op: "INSERT",
                schema_name: None,
                table_name: None,
                login_role: "l".into(),
                acting_role: "a".into(),
                actor: actor.into(),
                move_id: None,
                lsn: u64::from(self.count),
                at: 0,
                xid: 1,
                row_key: None,
                old: None,
                new: Some(marker),
            };
            self.journal.append(self.level, fact, [[self.count as u8; 16], [self.count as u8; 16]]);
        }

        fn flush(&mut self, which: Which) {
            self.journal.seal(&self.key);
            for row in self.journal.unwritten(which, self.level, &self.key) {
                let e = row.entry();
                let owned = OwnedEntry {
                    tenant: e.tenant.into(),
                    actor: e.actor.map(Into::into),
                    new: e.new.map(Into::into),
                    key_id: e.key_id.map(Into::into),
                    bytes: [
                        e.actor_salt,
                        e.row_salt,
                        e.actor_digest,
                        Some(e.row_digest),
                        Some(e.prev_hash),
                        Some(e.hash),
                        e.signature,
                    ]
                    .map(|b| b.map(<[u8]>::to_vec))
                    .to_vec(),
                    numbers: (e.seq, e.ordinal, e.actor_seq, e.signs_run),
                };
                let stored = Stored {
                    tenant: e.tenant.into(),
                    seq: e.seq,
                    new: e.new.unwrap_or_default().into(),
                    hash: e.hash.to_vec(),
                    owned,
                };
                self.table.push((self.level, stored));
            }
            self.journal.wrote(which, self.level);
        }

        fn begin(&mut self) {
            self.level += 1;
        }

        fn release(&mut self) {
            if self.level > 1 {
                self.journal.sub_commit(self.level);
                self.level -= 1;
                let level = self.level;
                self.table.iter_mut().for_each(|t| t.0 = t.0.min(level));
                self.wanted.iter_mut().for_each(|t| t.0 = t.0.min(level));
            }
        }

        fn rollback(&mut self) {
            if self.level > 1 {
                self.journal.sub_abort(self.level);
                let level = self.level;
                self.level -= 1;
                self.table.retain(|t| t.0 < level);
                self.wanted.retain(|t| t.0 < level);
            }
        }

        /// Ends the transaction and holds the table against what was wanted, and against the verifier.
        fn commit(mut self) {
            while self.level > 1 {
                self.release();
            }
            self.flush(Which::All);
            let mut got: Vec<_> = self.table.iter().map(|t| t.1.new.parse::<u32>().unwrap()).collect();
            got.sort_unstable();
            let wanted: Vec<_> = self.wanted.iter().map(|w| w.1.parse::<u32>().unwrap()).collect();
            assert_eq!(got, wanted);
            let record = KeyRecord {
                key_id: self.key.key_id().into(),
                incarnation: INCARNATION,
                public_key: self.key.public_key().to_vec(),
                predecessor: None,
                endorsement: None,
            };
            let mut rows: Vec<_> = self.table.iter().map(|t| t.1.owned.clone()).collect();
            rows.sort_by_key(|r| (r.tenant.clone(), r.numbers.0));
            let mut verifier = Verifier::new(&[record], None, Vec::new());
            for r in &rows {
                let (seq, ordinal, actor_seq, signs_run) = r.numbers;
                let b = |i: usize| r.bytes[i].as_deref();
                verifier.entry(&Entry {
                    incarnation: INCARNATION,
                    tenant: &r.tenant,
                    lane: 3,
                    seq,
                    format: 1,
                    lsn: r.new.as_ref().unwrap().parse().unwrap(),
                    ordinal,
                    at: 0,
                    xid: 1,
                    op: "INSERT",
                    schema_name: None,
                    table_name: None,
                    login_role: "l",
                    acting_role: "a",
                    move_id: None,
                    actor_seq,
                    signs_run,
                    key_id: r.key_id.as_deref(),
                    actor_salt: b(0),
                    actor: r.actor.as_deref(),
                    row_salt: b(1),
                    row_key: None,
                    old: None,
                    new: r.new.as_deref(),
                    actor_digest: b(2),
                    row_digest: b(3).unwrap(),
                    prev_hash: b(4).unwrap(),
                    hash: b(5).unwrap(),
                    signature: b(6),
                });
            }
            let report = verifier.finish();
            if !rows.is_empty() {
                assert_eq!(report.findings, Vec::new());
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Append(u8, u8),
        Begin,
        Release,
        Rollback,
        FlushAll,
        FlushOwn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3u8, 0..2u8).prop_map(|(t, a)| Step::Append(t, a)),
            3 => Just(Step::Begin),
            2 => Just(Step::Release),
            2 => Just(Step::Rollback),
            2 => Just(Step::FlushAll),
            1 => Just(Step::FlushOwn),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn exact_under_any_savepoints_and_flushes(steps in proptest::collection::vec(step(), 0..60)) {
            let mut world = World::new();
            for step in steps {
                match step {
                    Step::Append(t, a) => world.append(["a", "b", ""][t as usize], ["x", "y"][a as usize]),
                    Step::Begin => world.begin(),
                    Step::Release => world.release(),
                    Step::Rollback => world.rollback(),
                    Step::FlushAll => world.flush(Which::All),
                    Step::FlushOwn => world.flush(Which::OwnLevel),
                }
            }
            world.commit();
        }
    }

    #[test]
    fn what_a_savepoint_wrote_for_others_comes_back_byte_for_byte() {
        let mut world = World::new();
        world.append("a", "x");
        world.append("a", "x");
        world.begin();
        world.append("a", "x");
        world.flush(Which::All);
        let seen: Vec<_> = world.table.iter().take(2).map(|t| t.1.clone()).collect();
        world.rollback();
        assert!(world.table.is_empty());
        world.flush(Which::All);
        let again: Vec<_> = world.table.iter().map(|t| t.1.clone()).collect();
        assert_eq!(seen, again);
        world.commit();
    }

    #[test]
    #[should_panic(expected = "left")]
    fn the_sabotage_is_noticed() {
        let mut world = World::new();
        world.journal.forgets_outer_levels = true;
        world.append("a", "x");
        world.begin();
        world.flush(Which::All);
        world.rollback();
        world.commit();
    }
}
