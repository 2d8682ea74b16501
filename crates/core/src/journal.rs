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

/// The last number that a transaction follows: it leaves more than the 2^31 that `ordinal` can count in the table.
const LAST_TO_FOLLOW: i64 = i64::MAX - (1 << 32);

/// What is to be recorded: everything about an entry but its place and its proof.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Fact<'a> {
    pub op: &'static str,
    pub schema_name: Option<Rc<str>>,
    pub table_name: Option<Rc<str>>,
    pub login_role: Rc<str>,
    pub acting_role: Rc<str>,
    pub actor: Rc<str>,
    pub move_id: Option<Uuid>,
    pub lsn: u64,
    pub at: i64,
    pub row_key: Option<&'a str>,
    pub old: Option<&'a str>,
    pub new: Option<&'a str>,
}

/// The end of a chain as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// Its last number; 0 if there is none.
    pub seq: i64,
    /// That entry's hash, or the genesis hash.
    pub hash: Hash,
}

/// A chain that ends where no journal brought it: what a transaction might append could not be numbered.
#[derive(Debug, thiserror::Error)]
#[error("the chain of tenant {tenant:?} on lane {lane} ends at entry {seq}: there are no numbers left after it")]
pub struct Full {
    tenant: Rc<str>,
    lane: i64,
    seq: i64,
}

/// Bytes of row parts that may belong to nobody. None in tests, so that they see what is left move.
const SLACK: usize = if cfg!(test) { 0 } else { 64 << 10 };

struct Sealed {
    signs_run: bool,
    actor_digest: Option<Hash>,
    row_digest: Hash,
    prev_hash: Hash,
    hash: Hash,
    signature: Option<[u8; 64]>,
}

/// Where an item's row part lies in `Journal::payload`: key, old and new one after the other.
#[derive(Clone, Copy)]
struct Payload {
    start: usize,
    lengths: [Option<u32>; 3],
}

impl Payload {
    fn end(&self) -> usize {
        self.start + self.lengths.iter().flatten().map(|l| *l as usize).sum::<usize>()
    }

    fn parts<'a>(&self, from: &'a str) -> [Option<&'a str>; 3] {
        let mut at = self.start;
        self.lengths.map(|length| {
            length.map(|length| {
                let part = &from[at..at + length as usize];
                at += length as usize;
                part
            })
        })
    }
}

struct Item {
    chain: usize,
    level: u32,
    /// The level that put it into the table.
    written: Option<u32>,
    seq: i64,
    ordinal: i64,
    actor_seq: i64,
    /// Present in the entry that carries the actor part.
    actor: Option<(Rc<str>, [u8; SALT_LENGTH])>,
    row_salt: [u8; SALT_LENGTH],
    op: &'static str,
    schema_name: Option<Rc<str>>,
    table_name: Option<Rc<str>>,
    login_role: Rc<str>,
    acting_role: Rc<str>,
    move_id: Option<Uuid>,
    lsn: u64,
    at: i64,
    payload: Payload,
    sealed: Option<Sealed>,
}

impl Item {
    fn weight(&self) -> usize {
        512 + self.payload.end() - self.payload.start
    }
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
    tenant: Rc<str>,
    next: i64,
    actor: Option<(Rc<str>, i64)>,
    /// The hash of the last sealed entry, or of the chain's end in the table; and the number after it.
    hash: Hash,
    sealed_next: i64,
    saved: Vec<Saved>,
}

/// What all entries of a transaction share.
#[derive(Clone, Copy)]
struct Common {
    incarnation: Uuid,
    lane: i64,
    xid: u64,
}

impl Common {
    fn entry<'a>(
        self,
        item: &'a Item,
        tenant: &'a str,
        payload: &'a str,
        sealed: &'a Sealed,
        key_id: &'a str,
    ) -> Entry<'a> {
        let [row_key, old, new] = item.payload.parts(payload);
        Entry {
            incarnation: self.incarnation,
            tenant,
            lane: self.lane,
            seq: item.seq,
            format: FORMAT,
            lsn: item.lsn,
            ordinal: item.ordinal,
            at: item.at,
            xid: self.xid,
            op: item.op,
            schema_name: item.schema_name.as_deref(),
            table_name: item.table_name.as_deref(),
            login_role: &item.login_role,
            acting_role: &item.acting_role,
            move_id: item.move_id,
            actor_seq: item.actor_seq,
            signs_run: sealed.signs_run,
            key_id: sealed.signs_run.then_some(key_id),
            actor_salt: item.actor.as_ref().map(|(_, salt)| &salt[..]),
            actor: item.actor.as_ref().map(|(actor, _)| &**actor),
            row_salt: Some(&item.row_salt),
            row_key,
            old,
            new,
            actor_digest: sealed.actor_digest.as_ref().map(|d| &d[..]),
            row_digest: &sealed.row_digest,
            prev_hash: &sealed.prev_hash,
            hash: &sealed.hash,
            signature: sealed.signature.as_ref().map(|s| &s[..]),
        }
    }
}

/// Which sealed entries are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All: somebody is about to read, a savepoint is released, or the transaction ends.
    All,
    /// Only those of the current level: memory is full. What outer levels own stays, so that nothing of theirs need come back.
    OwnLevel,
}

/// The entries of one transaction, on one lane. Those of deeper levels stand after those of outer ones.
pub struct Journal {
    common: Common,
    chains: Vec<Chain>,
    by_tenant: HashMap<Rc<str>, usize>,
    /// The chain appended to last: most often the next one too.
    last: usize,
    items: Vec<Item>,
    /// The row parts of the items, in their order.
    payload: String,
    ordinal: i64,
    /// Bytes not written yet, by level.
    bytes: BTreeMap<u32, usize>,
    /// Sabotage for the tests' sake: forget what outer levels own when a savepoint that wrote it is rolled back.
    pub forgets_outer_levels: bool,
    /// Sabotage as well: sign the last entry of each chain, and none of those that a rollback may leave as the last.
    pub signs_once: bool,
}

impl Journal {
    /// The transaction `xid`, which holds `lane`.
    pub fn new(incarnation: Uuid, lane: i64, xid: u64) -> Self {
        Self {
            common: Common { incarnation, lane, xid },
            chains: Vec::new(),
            by_tenant: HashMap::new(),
            last: 0,
            items: Vec::new(),
            payload: String::new(),
            ordinal: 0,
            bytes: BTreeMap::new(),
            forgets_outer_levels: false,
            signs_once: false,
        }
    }

    /// Whose chains these are.
    pub fn incarnation(&self) -> Uuid {
        self.common.incarnation
    }

    /// The lane that the transaction holds.
    pub fn lane(&self) -> i64 {
        self.common.lane
    }

    /// Bytes that are not written yet and belong to `level`.
    pub fn unwritten_bytes(&self, level: u32) -> usize {
        self.bytes.get(&level).copied().unwrap_or(0)
    }

    /// Bytes that are not written yet, of all levels.
    pub fn all_unwritten_bytes(&self) -> usize {
        self.bytes.values().sum()
    }

    /// Whether `Which::All` would write anything.
    pub fn has_unwritten(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// A tenant's chain, if this transaction knows where it stands.
    pub fn chain(&mut self, tenant: &str) -> Option<usize> {
        if self.chains.get(self.last).is_some_and(|c| &*c.tenant == tenant) {
            return Some(self.last);
        }
        self.by_tenant.get(tenant).copied()
    }

    /// Says where a tenant's chain stands in the table. To be read once, after the lane is held.
    pub fn begin_chain(&mut self, tenant: Rc<str>, end: ChainEnd) -> Result<usize, Full> {
        if end.seq > LAST_TO_FOLLOW {
            return Err(Full { tenant, lane: self.common.lane, seq: end.seq });
        }
        let index = self.chains.len();
        self.by_tenant.insert(tenant.clone(), index);
        let next = end.seq + 1;
        self.chains.push(Chain { tenant, next, actor: None, hash: end.hash, sealed_next: next, saved: Vec::new() });
        Ok(index)
    }

    /// Takes a fact of the given level into a chain. `salt` gives random bytes, as many times as it is asked.
    pub fn append<E>(
        &mut self,
        level: u32,
        index: usize,
        fact: Fact<'_>,
        mut salt: impl FnMut() -> Result<[u8; SALT_LENGTH], E>,
    ) -> Result<(), E> {
        self.last = index;
        let chain = &mut self.chains[index];
        let known = chain.actor.as_ref().filter(|(actor, _)| Rc::ptr_eq(actor, &fact.actor) || *actor == fact.actor);
        let carried_at = known.map(|(_, at)| *at);
        let actor = match carried_at {
            None => Some((fact.actor.clone(), salt()?)),
            Some(_) => None,
        };
        let row_salt = salt()?;
        if level > chain.saved.last().map_or(1, |s| s.level) {
            chain.saved.push(Saved {
                level,
                next: chain.next,
                actor: chain.actor.clone(),
                hash: (chain.next == chain.sealed_next).then_some(chain.hash),
            });
        }
        let seq = chain.next;
        chain.next += 1;
        if actor.is_some() {
            chain.actor = Some((fact.actor, seq));
        }
        self.ordinal += 1;
        let start = self.payload.len();
        let lengths = [fact.row_key, fact.old, fact.new].map(|part| {
            part.map(|part| {
                self.payload.push_str(part);
                part.len() as u32
            })
        });
        let item = Item {
            chain: index,
            level,
            written: None,
            seq,
            ordinal: self.ordinal,
            actor_seq: carried_at.unwrap_or(seq),
            actor,
            row_salt,
            op: fact.op,
            schema_name: fact.schema_name,
            table_name: fact.table_name,
            login_role: fact.login_role,
            acting_role: fact.acting_role,
            move_id: fact.move_id,
            lsn: fact.lsn,
            at: fact.at,
            payload: Payload { start, lengths },
            sealed: None,
        };
        *self.bytes.entry(level).or_default() += item.weight();
        self.items.push(item);
        Ok(())
    }

    /// Hashes what is not hashed yet, and signs the last entry of each level in each chain.
    pub fn seal(&mut self, key: &PrivateKey) {
        // Sealing takes all there is, so what is not sealed stands at the end.
        let sealed = self.items.iter().rposition(|i| i.sealed.is_some()).map_or(0, |at| at + 1);
        let mut level_after: Vec<Option<u32>> = vec![None; self.chains.len()];
        let mut ends_level = vec![false; self.items.len() - sealed];
        for (item, ends) in self.items[sealed..].iter().zip(&mut ends_level).rev() {
            let level = if self.signs_once { 0 } else { item.level };
            *ends = level_after[item.chain].replace(level) != Some(level);
        }
        for (item, ends) in self.items[sealed..].iter_mut().zip(ends_level) {
            let chain = &mut self.chains[item.chain];
            for saved in chain.saved.iter_mut().filter(|s| s.level <= item.level) {
                saved.hash.get_or_insert(chain.hash);
            }
            let [row_key, old, new] = item.payload.parts(&self.payload);
            let mut seal = Sealed {
                signs_run: ends,
                actor_digest: item.actor.as_ref().map(|(actor, salt)| actor_digest(salt, actor)),
                row_digest: row_digest(&item.row_salt, row_key, old, new),
                prev_hash: chain.hash,
                hash: [0; 32],
                signature: None,
            };
            seal.hash = self.common.entry(item, &chain.tenant, &self.payload, &seal, key.key_id()).compute_hash();
            seal.signature = ends.then(|| key.sign_run(&seal.hash));
            (chain.hash, chain.sealed_next) = (seal.hash, item.seq + 1);
            item.sealed = Some(seal);
        }
    }

    /// The sealed entries that are not written yet, in order.
    pub fn unwritten<'a>(&'a self, which: Which, level: u32, key: &'a PrivateKey) -> impl Iterator<Item = Entry<'a>> {
        self.items.iter().filter(move |i| i.is_due(which, level)).filter_map(move |item| {
            let sealed = item.sealed.as_ref()?;
            Some(self.common.entry(item, &self.chains[item.chain].tenant, &self.payload, sealed, key.key_id()))
        })
    }

    /// Notes that those entries are in the table now, put there by `level`, and lets go of what shares its fate.
    pub fn wrote(&mut self, which: Which, level: u32) {
        for item in self.items.iter_mut().filter(|i| i.is_due(which, level)) {
            item.written = Some(level);
        }
        match which {
            Which::All => self.bytes.clear(),
            Which::OwnLevel => _ = self.bytes.remove(&level),
        }
        self.let_go();
    }

    /// A subtransaction's entries become its parent's.
    pub fn sub_commit(&mut self, level: u32) {
        let parent = level - 1;
        let mut written_for_others = false;
        for item in &mut self.items {
            item.level = item.level.min(parent);
            item.written = item.written.map(|w| w.min(parent));
            written_for_others |= item.written.is_some();
        }
        let gone: usize = self.bytes.split_off(&level).into_values().sum();
        if gone > 0 {
            *self.bytes.entry(parent).or_default() += gone;
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
        if written_for_others {
            self.let_go();
        }
    }

    /// A subtransaction's entries are gone; what it wrote for others has to be written again, same numbers, same bytes.
    pub fn sub_abort(&mut self, level: u32) {
        let forgets = self.forgets_outer_levels;
        self.items.retain(|i| i.level < level && !(forgets && i.written.is_some_and(|w| w >= level)));
        self.bytes.split_off(&level);
        for item in self.items.iter_mut().filter(|i| i.written.is_some_and(|w| w >= level)) {
            item.written = None;
            *self.bytes.entry(item.level).or_default() += item.weight();
        }
        for chain in &mut self.chains {
            while chain.saved.last().is_some_and(|s| s.level >= level) {
                if let Some(saved) = chain.saved.pop() {
                    chain.next = saved.next;
                    chain.actor = saved.actor;
                    if let Some(hash) = saved.hash {
                        (chain.hash, chain.sealed_next) = (hash, saved.next);
                    }
                }
            }
        }
        self.trim();
    }

    /// Drops entries that are written by their own level.
    fn let_go(&mut self) {
        self.items.retain(|i| i.written != Some(i.level));
        self.trim();
    }

    /// Row parts after the last item's belong to nobody; once most of the others do neither, those that are left move together.
    fn trim(&mut self) {
        self.payload.truncate(self.items.last().map_or(0, |i| i.payload.end()));
        let used: usize = self.items.iter().map(|i| i.payload.end() - i.payload.start).sum();
        if self.payload.len() > 2 * used + SLACK {
            let mut payload = String::with_capacity(used);
            for item in &mut self.items {
                let start = payload.len();
                payload.push_str(&self.payload[item.payload.start..item.payload.end()]);
                item.payload.start = start;
            }
            self.payload = payload;
        }
    }
}

impl Item {
    fn is_due(&self, which: Which, level: u32) -> bool {
        self.written.is_none() && self.sealed.is_some() && (which == Which::All || self.level == level)
    }
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
                journal: Journal::new(INCARNATION, 3, 1),
                key: PrivateKey::from_seed(&Zeroizing::new([9; 32])),
                level: 1,
                table: Vec::new(),
                wanted: Vec::new(),
                count: 0,
            }
        }

        fn append(&mut self, tenant: &str, actor: &str) {
            let chain = self.journal.chain(tenant).unwrap_or_else(|| {
                let end = ChainEnd { seq: 0, hash: genesis(INCARNATION, tenant, 3) };
                self.journal.begin_chain(tenant.into(), end).unwrap()
            });
            self.count += 1;
            let marker = format!("{}", self.count);
            self.wanted.push((self.level, marker.clone()));
            let fact = Fact {
                op: "INSERT",
                schema_name: None,
                table_name: None,
                login_role: "l".into(),
                acting_role: "a".into(),
                actor: actor.into(),
                move_id: None,
                lsn: u64::from(self.count),
                at: 0,
                row_key: None,
                old: None,
                new: Some(&marker),
            };
            let salt = || Ok::<_, ()>([self.count as u8; 16]);
            self.journal.append(self.level, chain, fact, salt).unwrap();
        }

        fn flush(&mut self, which: Which) {
            self.journal.seal(&self.key);
            for e in self.journal.unwritten(which, self.level, &self.key) {
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
                ..KeyRecord::default()
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

    #[test]
    fn a_chain_without_numbers_left_is_refused() {
        let mut journal = Journal::new(INCARNATION, 3, 1);
        let mut begin = |seq| journal.begin_chain("a".into(), ChainEnd { seq, hash: [0; 32] });
        assert!(begin(LAST_TO_FOLLOW).is_ok());
        for seq in [LAST_TO_FOLLOW + 1, i64::MAX] {
            let what =
                format!("the chain of tenant \"a\" on lane 3 ends at entry {seq}: there are no numbers left after it");
            assert_eq!(begin(seq).unwrap_err().to_string(), what);
        }
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
    fn savepoints_that_read_the_log_and_go_on_leave_nothing_behind() {
        let mut world = World::new();
        for _ in 0..1000 {
            world.begin();
            world.append("a", "x");
            world.flush(Which::All);
            world.append("a", "x");
            world.release();
            assert!(world.journal.payload.len() < 32, "{}", world.journal.payload.len());
        }
        world.commit();
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
