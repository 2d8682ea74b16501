//! Verification in any order: clears chains that are beyond doubt, at the speed of hashing, with as many threads as there are.
//!
//! All but two of the checks of format section 8 concern one entry alone. The two that do not (numbers without gaps, each entry
//! linked to the one before) only need the ends of *spans*: stretches of one chain found whole. Spans from anywhere are joined as
//! they come in, so memory grows with the number of chains and of gaps in them, not of entries. A chain in which anything at all is
//! not as it should be is only called doubtful: what is wrong with it, and where, is for the `Verifier` to say, which walks it in
//! order. What is missing from a tenant's chains must be what its erasures name; if not, or if one of them is in doubt, all are.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::Hash;
use crate::entry::{Entry, FORMAT, actor_digest, genesis, row_digest};
use crate::erasure::{self, Erasure, Ledger, Part as Erased};
use crate::verify::{ChainId, Counts, Head, Keys};

/// What all threads of a sweep share.
pub struct Sweep {
    keys: Keys,
    heads: HashMap<ChainId, Vec<(i64, Vec<u8>)>>,
    partial: bool,
}

/// From where to where a chain goes, if all of it was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first entry's number.
    pub first: i64,
    /// What it is linked to.
    pub prev_hash: Hash,
    /// The last entry's number.
    pub last: i64,
    /// Its hash.
    pub hash: Hash,
}

/// A stretch of a chain without a gap, every link in it right.
#[derive(Clone, Debug)]
struct Span {
    first: i64,
    first_prev: Hash,
    first_xid: u64,
    last: i64,
    last_hash: Hash,
    last_xid: u64,
    last_signs: bool,
}

impl Span {
    /// Whether `next` begins with the entry that this one's last entry is followed by.
    fn leads_to(&self, next: &Span) -> bool {
        self.last.checked_add(1) == Some(next.first)
            && self.last_hash == next.first_prev
            && (self.last_xid == next.first_xid || self.last_signs)
    }
}

#[derive(Default)]
struct Tally {
    entries: u64,
    signatures: u64,
    doubtful: bool,
    /// Something is missing from the chain, or it has an erasure.
    erases: bool,
    /// What is missing, and what the erasures name: of entries that are otherwise right.
    ledger: Ledger,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.entries += other.entries;
        self.signatures += other.signatures;
        self.doubtful |= other.doubtful;
        self.erases |= other.erases;
        self.ledger.add(&other.ledger);
    }
}

struct PartChain {
    id: ChainId,
    spans: Vec<Span>,
    tally: Tally,
}

/// What one thread has found in its share of the log, which may be any.
#[derive(Default)]
pub struct Part {
    chains: Vec<PartChain>,
    by_id: HashMap<ChainId, usize>,
    /// The chain seen last: most often the next one too.
    last: usize,
}

#[derive(Default)]
struct WholeChain {
    spans: BTreeMap<i64, Span>,
    tally: Tally,
}

/// All parts, joined.
#[derive(Default)]
pub struct Whole {
    chains: HashMap<ChainId, WholeChain>,
}

/// The outcome of a sweep.
pub struct Swept {
    /// What was checked and found right.
    pub clear: Counts,
    /// The chains that have to be walked.
    pub doubtful: Vec<ChainId>,
}

impl Sweep {
    /// A sweep that trusts these keys, and holds the log against these heads.
    pub fn new(keys: Keys, heads: &[Head]) -> Self {
        let mut by_chain: HashMap<ChainId, Vec<(i64, Vec<u8>)>> = HashMap::new();
        for head in heads {
            by_chain.entry(head.chain.clone()).or_default().push((head.seq, head.hash.clone()));
        }
        Self { keys, heads: by_chain, partial: false }
    }

    /// See [`Verifier::partial`](crate::verify::Verifier::partial).
    #[must_use]
    pub fn partial(self, partial: bool) -> Self {
        Self { partial, ..self }
    }

    /// Checks one entry, and adds it to what is known of its chain.
    pub fn entry(&self, part: &mut Part, e: &Entry<'_>) {
        let at = part.chain(e);
        let chain = &mut part.chains[at];
        chain.tally.entries += 1;
        let missing = e.row_salt.is_none() || (e.actor_salt.is_none() && e.actor_digest.is_some());
        chain.tally.erases |= missing || e.op == erasure::OP;
        match self.checked(e) {
            None => chain.tally.doubtful = true,
            Some((span, missing)) => {
                for part in missing.into_iter().flatten() {
                    chain.tally.ledger.missing((e.incarnation, e.lane), e.seq, part, e.op);
                }
                if e.op == erasure::OP
                    && let Some(erasure) = e.new.and_then(Erasure::read)
                {
                    chain.tally.ledger.named(&erasure);
                }
                chain.tally.signatures += u64::from(e.signs_run);
                if !self.heads.is_empty() {
                    let heads = self.heads.get(&chain.id).map_or(&[][..], Vec::as_slice);
                    chain.tally.doubtful |= heads.iter().any(|(seq, hash)| *seq == e.seq && hash != e.hash);
                }
                match chain.spans.last_mut().filter(|before| before.leads_to(&span)) {
                    Some(before) => {
                        (before.last, before.last_hash) = (span.last, span.last_hash);
                        (before.last_xid, before.last_signs) = (span.last_xid, span.last_signs);
                    }
                    None => chain.spans.push(span),
                }
            }
        }
    }

    /// All that concerns the entry alone, and which parts are missing; none if anything else is not as it should be.
    fn checked(&self, e: &Entry<'_>) -> Option<(Span, [Option<Erased>; 2])> {
        let mut missing = [None; 2];
        let row_right = match (e.row_salt, e.row_key, e.old, e.new) {
            (None, None, None, None) => {
                missing[0] = Some(Erased::Row);
                true
            }
            (Some(salt), key, old, new) => row_digest(salt, key, old, new) == e.row_digest,
            _ => false,
        };
        let actor_right = match (e.actor_salt, e.actor, e.actor_digest) {
            (Some(salt), Some(actor), Some(digest)) => e.actor_seq == e.seq && actor_digest(salt, actor) == digest,
            (None, None, Some(_)) => {
                missing[1] = Some(Erased::Actor);
                e.actor_seq == e.seq
            }
            (None, None, None) => (1..e.seq).contains(&e.actor_seq),
            _ => false,
        };
        let own_hash: Hash = e.hash.try_into().ok()?;
        let signed = match (e.signs_run, e.key_id, e.signature) {
            (true, Some(key_id), Some(signature)) => {
                self.keys.signed(e.incarnation, key_id, e.lsn as i64, e.hash, signature)
            }
            (false, None, None) => true,
            _ => false,
        };
        let right = e.seq >= 1
            && row_right
            && actor_right
            && signed
            && e.format == FORMAT
            && e.op != "CAPTURE_OFF"
            && e.compute_hash() == own_hash;
        let span = Span {
            first: e.seq,
            first_prev: e.prev_hash.try_into().ok()?,
            first_xid: e.xid,
            last: e.seq,
            last_hash: own_hash,
            last_xid: e.xid,
            last_signs: e.signs_run,
        };
        right.then_some((span, missing))
    }

    /// Says which chains are beyond doubt.
    pub fn finish(&self, whole: Whole) -> Swept {
        let mut swept = Swept { clear: Counts::default(), doubtful: Vec::new() };
        let is_whole = |id: &ChainId, chain: &WholeChain| {
            let reaches = self.heads.get(id).and_then(|heads| heads.iter().map(|h| h.0).max()).unwrap_or(0);
            !chain.tally.doubtful
                && chain.spans.len() == 1
                && chain.spans.values().all(|s| {
                    let begins = match s.first {
                        1 => s.first_prev == genesis(id.incarnation, &id.tenant, id.lane),
                        _ => self.partial,
                    };
                    begins && s.last_signs && s.last >= reaches
                })
        };
        // Of tenants from whose chains something was erased: what is missing, and whether all their chains are whole.
        let mut ledgers: HashMap<&str, (Ledger, bool)> = HashMap::new();
        for (id, chain) in whole.chains.iter().filter(|(_, chain)| chain.tally.erases) {
            ledgers.entry(&id.tenant).or_insert((Ledger::default(), true)).0.add(&chain.tally.ledger);
        }
        if !ledgers.is_empty() {
            for (id, chain) in &whole.chains {
                let Some((ledger, all_whole)) = ledgers.get_mut(&*id.tenant) else { continue };
                *all_whole &= is_whole(id, chain);
                for span in chain.spans.values() {
                    ledger.seen((id.incarnation, id.lane), span.first, span.last);
                }
            }
        }
        let mut to_walk = HashSet::new();
        for (tenant, (ledger, all_whole)) in &ledgers {
            let mut erased = 0;
            let balanced = ledger.balance().all(|(_, balance)| {
                erased += balance.erased;
                balance.unaccounted.is_empty() && balance.incomplete.is_empty()
            });
            match *all_whole && balanced {
                true => swept.clear.erased += erased,
                false => _ = to_walk.insert(*tenant),
            }
        }
        for (id, chain) in &whole.chains {
            if !to_walk.contains(&*id.tenant) && is_whole(id, chain) {
                swept.clear.chains += 1;
                swept.clear.begun += u64::from(!chain.spans.contains_key(&1));
                swept.clear.entries += chain.tally.entries;
                swept.clear.signatures += chain.tally.signatures;
                *swept.clear.by_incarnation.entry(id.incarnation).or_default() += chain.tally.entries;
            } else {
                swept.doubtful.push(id.clone());
            }
        }
        swept.doubtful.extend(self.heads.keys().filter(|id| !whole.chains.contains_key(id)).cloned());
        swept.doubtful.sort();
        swept
    }
}

impl Part {
    fn chain(&mut self, e: &Entry<'_>) -> usize {
        let is = |c: &PartChain| c.id.lane == e.lane && c.id.incarnation == e.incarnation && c.id.tenant == e.tenant;
        // A few pages hold a few chains: looking through them takes no memory, as a name to look up by would.
        const FEW: usize = 16;
        if self.chains.get(self.last).is_some_and(is) {
            return self.last;
        }
        if let Some(at) = self.chains.iter().take(FEW).position(is) {
            self.last = at;
        } else {
            let id = ChainId { incarnation: e.incarnation, tenant: e.tenant.to_owned(), lane: e.lane };
            self.last = *self.by_id.entry(id).or_insert_with_key(|id| {
                self.chains.push(PartChain { id: id.clone(), spans: Vec::new(), tally: Tally::default() });
                self.chains.len() - 1
            });
        }
        self.last
    }
}

impl Whole {
    /// Takes in a part.
    pub fn add(&mut self, part: Part) {
        for mut found in part.chains {
            let chain = self.chains.entry(found.id).or_default();
            chain.tally.add(&found.tally);
            // A chain in doubt is walked anyway: its spans need not be kept.
            if chain.tally.doubtful {
                chain.spans.clear();
                found.spans.clear();
            }
            for span in found.spans {
                chain.join(span);
            }
        }
    }

    /// Takes in what is known of another share of the log.
    pub fn absorb(&mut self, other: Whole) {
        for (id, found) in other.chains {
            let chain = self.chains.entry(id).or_default();
            chain.tally.add(&found.tally);
            if chain.tally.doubtful {
                chain.spans.clear();
                continue;
            }
            found.spans.into_values().for_each(|span| chain.join(span));
        }
    }

    /// The chains there are.
    pub fn chains(&self) -> impl ExactSizeIterator<Item = &ChainId> {
        self.chains.keys()
    }

    /// From where to where a chain goes; none if it is not here, or not beyond doubt.
    pub fn stretch(&self, id: &ChainId) -> Option<Stretch> {
        let chain = self.chains.get(id).filter(|c| !c.tally.doubtful && c.spans.len() == 1)?;
        let span = chain.spans.values().next()?;
        Some(Stretch { first: span.first, prev_hash: span.first_prev, last: span.last, hash: span.last_hash })
    }

    /// Whether something is not as it should be in a chain, so that it has to be walked.
    pub fn doubts(&self, id: &ChainId) -> bool {
        self.chains.get(id).is_some_and(|c| c.tally.doubtful || c.spans.len() != 1)
    }

    /// Entries taken in so far.
    pub fn entries(&self) -> u64 {
        self.chains.values().map(|c| c.tally.entries).sum()
    }
}

impl WholeChain {
    fn join(&mut self, mut span: Span) {
        if let Some((_, before)) = self.spans.range(..=span.first).next_back()
            && before.last >= span.first - 1
        {
            if !before.leads_to(&span) {
                self.tally.doubtful = true;
                return;
            }
            let before = before.clone();
            span = Span {
                last: span.last,
                last_hash: span.last_hash,
                last_xid: span.last_xid,
                last_signs: span.last_signs,
                ..before
            };
        }
        if let Some((_, after)) = self.spans.range(span.first.saturating_add(1)..).next()
            && span.last >= after.first.saturating_sub(1)
        {
            if !span.leads_to(after) {
                self.tally.doubtful = true;
                return;
            }
            let after = after.clone();
            self.spans.remove(&after.first);
            span = Span { first: span.first, first_prev: span.first_prev, first_xid: span.first_xid, ..after };
        }
        self.spans.insert(span.first, span);
    }
}
