//! Walking the chains (format section 8). One pass, in order, in memory that does not grow with the log: only with the number of
//! incarnations, with the gaps in one tenant's chains and the stretches of parts that are missing from them, and with what the caller
//! holds already (keys and heads).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use uuid::Uuid;

use crate::entry::{Entry, FORMAT, actor_digest, genesis, row_digest};
use crate::erasure::{self, Erasure, Ledger, Part};
use crate::key::{Ending, PublicKey, fingerprint, key_id};
use crate::tlog::note::{Kind, NoteKey};

/// How far around an entry its true place is looked for.
const REORDER_WINDOW: i64 = 1024;
/// After so many misfits no further true place is looked for: they are reported as edited.
const REORDER_SEARCHES: u32 = 1000;
/// Findings beyond this many are counted, not kept.
const MAX_FINDINGS: usize = 10_000;

/// What is wrong with an entry, or with the place where one should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The stored bytes are not those that were hashed.
    Edited,
    /// Entries are missing in the middle of a chain.
    Deleted,
    /// An entry stands after one that it was not chained to.
    Inserted,
    /// An entry stands in another's place.
    Reordered,
    /// A chain ends before a head that was kept says it does.
    Truncated,
    /// An entry is not the one that a kept head names.
    Rewritten,
    /// No signature covers the entry.
    Unsigned,
    /// The signature is not the key's.
    BadSignature,
    /// The key is unknown, belongs to another incarnation, is not one the pinned key vouches for, or was not valid there.
    KeyNotValid,
    /// A key took over from one that was lost, and no key vouches for it. A notice: the log may be valid all the same.
    KeyRecovered,
    /// A part is gone and no erasure accounts for it.
    PayloadMissing,
    /// An erasure names the entry, and the part is still there.
    ErasureIncomplete,
    /// Changes went unrecorded.
    CaptureDisabled,
    /// There is no entry at all.
    Empty,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Rewritten => "rewritten",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad_signature",
            Self::KeyNotValid => "key_not_valid",
            Self::KeyRecovered => "key_recovered",
            Self::PayloadMissing => "payload_missing",
            Self::ErasureIncomplete => "erasure_incomplete",
            Self::CaptureDisabled => "capture_disabled",
            Self::Empty => "empty",
        })
    }
}

/// The name of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// Whose life of the database.
    pub incarnation: Uuid,
    /// Whose rows.
    pub tenant: String,
    /// Which lane.
    pub lane: i64,
}

/// A departure from the format, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub verdict: Verdict,
    /// Where; none for the log as a whole.
    pub chain: Option<ChainId>,
    /// Which entry.
    pub seq: i64,
    /// In words.
    pub detail: String,
}

/// A public key as `custody.signing_key` or an export lists it.
#[derive(Clone, Debug, Default)]
pub struct KeyRecord {
    /// The name that entries use.
    pub key_id: String,
    /// The incarnation it may sign for.
    pub incarnation: Uuid,
    /// 32 bytes.
    pub public_key: Vec<u8>,
    /// The key that vouches for it, if any.
    pub predecessor: Option<String>,
    /// How it does.
    pub endorsement: Option<Vec<u8>>,
    /// The position from which on it is valid; none: from the incarnation's beginning.
    pub from_lsn: Option<i64>,
    /// The lost key that it took over from, if no key vouches for it.
    pub recovers: Option<String>,
    /// Up to where it is valid, if somebody says so.
    pub end: Option<End>,
}

/// What another key says of the end of a key's validity.
#[derive(Clone, Debug)]
pub struct End {
    /// Replaced, or in the wrong hands.
    pub how: Ending,
    /// The last position at which it is valid.
    pub until_lsn: i64,
    /// The key that says so.
    pub by: String,
    /// How it does.
    pub signature: Vec<u8>,
}

/// The end of a chain as it was seen before.
#[derive(Clone, Debug)]
pub struct Head {
    /// Which chain.
    pub chain: ChainId,
    /// Its last entry then.
    pub seq: i64,
    /// That entry's hash.
    pub hash: Vec<u8>,
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Entries read.
    pub entries: u64,
    /// Entries of each incarnation.
    pub by_incarnation: BTreeMap<Uuid, u64>,
    /// Chains walked.
    pub chains: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// Chains that begin in the middle, where that was allowed.
    pub begun: u64,
    /// Parts that are missing as an erasure says.
    pub erased: u64,
    /// All findings, kept or not.
    pub findings: u64,
}

/// The outcome of a walk.
#[derive(Debug)]
pub struct Report {
    /// What was checked.
    pub counts: Counts,
    /// What was found, in the order of the walk.
    pub findings: Vec<Finding>,
    /// What is to be known, and makes nothing invalid.
    pub notices: Vec<Finding>,
}

/// The keys that entries may be signed with, by incarnation and name.
#[derive(Clone)]
pub struct Keys {
    known: HashMap<Uuid, HashMap<String, Vec<Key>>>,
    /// In words.
    recovered: Vec<String>,
}

impl Keys {
    /// Trusts all that are rightly named; or, with pinned fingerprints, those keys and what they vouch for.
    pub fn new(records: &[KeyRecord], pins: Option<&[String]>) -> Self {
        let none = HashSet::new();
        let mut trusted = pins.map(|pins| vouched_for(records, pins, &none));
        let ends = ends(records, trusted.as_ref());
        // Whoever stole a key can have endorsed any other with it.
        let revoked: HashSet<&[u8]> =
            ends.iter().filter(|(_, (_, how))| *how == Ending::Revoke).map(|(key, _)| key.1).collect();
        if !revoked.is_empty() {
            trusted = pins.map(|pins| vouched_for(records, pins, &revoked));
        }
        let mut known: HashMap<Uuid, HashMap<String, Vec<Key>>> = HashMap::new();
        let mut recovered = Vec::new();
        for (i, record) in records.iter().enumerate().filter(|(_, r)| well_named(r)) {
            let key = Key {
                public: PublicKey::from_bytes(&record.public_key),
                trusted: trusted.as_ref().is_none_or(|t| t.contains(&i)),
                from: record.from_lsn.unwrap_or(i64::MIN),
                until: ends.get(&(record.incarnation, &*record.public_key)).map_or(i64::MAX, |end| end.0),
            };
            let of_incarnation = known.entry(record.incarnation).or_default();
            of_incarnation.entry(record.key_id.clone()).or_default().push(key);
            if let Some(lost) = &record.recovers {
                recovered.push(format!(
                    "key {} of incarnation {} took over from key {lost}, which was lost{}: no key vouches for it, pin its fingerprint {}",
                    record.key_id,
                    record.incarnation,
                    record.from_lsn.map(|lsn| format!(", at position {lsn}")).unwrap_or_default(),
                    fingerprint(&record.public_key)
                ));
            }
        }
        Self { known, recovered }
    }

    fn named(&self, incarnation: Uuid, key_id: &str) -> Option<&[Key]> {
        self.known.get(&incarnation)?.get(key_id).map(Vec::as_slice)
    }

    /// The trusted keys of an incarnation, as those that may sign its checkpoints under the name `origin`. A checkpoint up to `lsn`
    /// can be signed later, by a successor, but not by a key that had ended before.
    pub fn note_keys(&self, incarnation: Uuid, origin: &str, lsn: Option<i64>) -> Vec<NoteKey> {
        let known = self.known.get(&incarnation).into_iter().flat_map(|named| named.values().flatten());
        let trusted = known.filter(|k| k.trusted && lsn.is_none_or(|lsn| lsn <= k.until));
        let public = trusted.filter_map(|k| k.public.as_ref());
        public.filter_map(|public| NoteKey::new(origin, Kind::Text, &public.to_bytes()).ok()).collect()
    }

    /// Whether a trusted key of that name, valid at that position, made the signature.
    pub fn signed(&self, incarnation: Uuid, key_id: &str, lsn: i64, hash: &[u8], signature: &[u8]) -> bool {
        let keys = self.named(incarnation, key_id).unwrap_or_default();
        keys.iter().any(|k| k.usable_at(lsn) && k.signed(hash, signature))
    }
}

#[derive(Clone)]
struct Key {
    /// None if the bytes are no point of the curve: then nothing verifies.
    public: Option<PublicKey>,
    trusted: bool,
    /// Where it is valid, ends included.
    from: i64,
    until: i64,
}

impl Key {
    fn usable_at(&self, lsn: i64) -> bool {
        self.trusted && (self.from..=self.until).contains(&lsn)
    }

    fn signed(&self, hash: &[u8], signature: &[u8]) -> bool {
        self.public.as_ref().is_some_and(|public| public.verify_run(hash, signature))
    }
}

struct Chain {
    id: ChainId,
    /// One more than the last `seq`, whatever that is.
    expected: i128,
    prev: Vec<u8>,
    before: Option<Before>,
    /// Erasures that no signature covers yet.
    unsigned: Vec<Erasure>,
}

/// What must be remembered of the entry before.
struct Before {
    seq: i64,
    xid: u64,
    signs_run: bool,
    well_signed: bool,
    own_hash_right: bool,
}

/// Takes entries sorted by chain and `seq`, and finds what is wrong with them.
pub struct Verifier {
    keys: Keys,
    heads: HashMap<ChainId, Vec<(i64, Vec<u8>)>>,
    chain: Option<Chain>,
    counts: Counts,
    findings: Vec<Finding>,
    /// What was found at the entry before and since. What comes later concerns nothing earlier.
    seen: HashSet<(Verdict, i64)>,
    searches: u32,
    partial: bool,
    /// What is missing from this tenant's chains so far, and what was erased.
    ledger: Ledger,
}

impl Verifier {
    /// A walk that knows these keys; trusts all of them, or, with pinned fingerprints, those keys and what they vouch for.
    pub fn new(keys: &[KeyRecord], pins: Option<&[String]>, heads: Vec<Head>) -> Self {
        Self::with_keys(Keys::new(keys, pins), heads)
    }

    /// A walk that trusts these keys, and holds the log against these heads.
    pub fn with_keys(keys: Keys, heads: Vec<Head>) -> Self {
        let mut by_chain: HashMap<ChainId, Vec<(i64, Vec<u8>)>> = HashMap::new();
        for head in heads {
            by_chain.entry(head.chain).or_default().push((head.seq, head.hash));
        }
        Self {
            keys,
            heads: by_chain,
            chain: None,
            counts: Counts::default(),
            findings: Vec::new(),
            seen: HashSet::new(),
            searches: 0,
            partial: false,
            ledger: Ledger::default(),
        }
    }

    /// Lets chains begin in the middle: what came before is elsewhere, and nothing is said of it.
    #[must_use]
    pub fn partial(self, partial: bool) -> Self {
        Self { partial, ..self }
    }

    /// Checks the next entry.
    pub fn entry(&mut self, e: &Entry<'_>) {
        let same_chain = self
            .chain
            .as_ref()
            .is_some_and(|c| c.id.lane == e.lane && c.id.incarnation == e.incarnation && c.id.tenant == e.tenant);
        if !same_chain {
            let tenant = self.end_chain();
            if tenant.as_ref().is_some_and(|t| t != e.tenant) {
                self.end_tenant(tenant);
            }
            let id = ChainId { incarnation: e.incarnation, tenant: e.tenant.to_owned(), lane: e.lane };
            let (expected, prev) = match self.partial && e.seq > 1 {
                true => (e.seq.into(), e.prev_hash.to_vec()),
                false => (1, genesis(e.incarnation, e.tenant, e.lane).to_vec()),
            };
            self.counts.chains += 1;
            self.counts.begun += u64::from(expected > 1);
            self.chain = Some(Chain { id, expected, prev, before: None, unsigned: Vec::new() });
        }
        self.counts.entries += 1;
        *self.counts.by_incarnation.entry(e.incarnation).or_default() += 1;

        let Some(mut chain) = self.chain.take() else { return };
        if let Some(before) = &chain.before {
            self.seen.retain(|(_, seq)| *seq >= before.seq);
        }
        let seq = i128::from(e.seq);
        let in_place = seq == chain.expected;
        if seq > chain.expected {
            let detail = match seq - 1 - chain.expected {
                0 => format!("entry {} is missing", chain.expected),
                _ => format!("entries {} to {} are missing", chain.expected, seq - 1),
            };
            self.find(Verdict::Deleted, &chain.id, chain.expected as i64, detail);
        } else if seq < chain.expected {
            let detail = format!("entry {} was to come here", chain.expected);
            self.find(Verdict::Inserted, &chain.id, e.seq, detail);
        }
        self.ledger.seen((e.incarnation, e.lane), e.seq, e.seq);
        let row_part_right = self.row_part(&chain.id, e);
        self.actor_part(&chain.id, e);
        let own_hash_right = self.own_hash(&chain.id, e);
        if in_place && own_hash_right {
            self.link(&chain, e);
        }
        let well_signed = self.signature(&chain.id, e);
        self.erasure(&mut chain, e, in_place && own_hash_right, own_hash_right && row_part_right, well_signed);
        if let Some(before) = &chain.before
            && in_place
            && before.xid != e.xid
            && !before.signs_run
        {
            let detail = format!("the run of transaction {} ends here without a signature", before.xid);
            self.find(Verdict::Unsigned, &chain.id, before.seq, detail);
        }
        if e.op == "CAPTURE_OFF" {
            let (schema, table) = (e.schema_name.unwrap_or_default(), e.table_name.unwrap_or_default());
            let detail =
                format!("changes of {schema}.{table} went unrecorded from here on: {}", e.new.unwrap_or_default());
            self.find(Verdict::CaptureDisabled, &chain.id, e.seq, detail);
        }
        self.against_heads(&chain.id, e);

        chain.prev.clear();
        chain.prev.extend_from_slice(e.hash);
        chain.expected = seq + 1;
        chain.before = Some(Before { seq: e.seq, xid: e.xid, signs_run: e.signs_run, well_signed, own_hash_right });
        self.chain = Some(chain);
    }

    /// Adds what was found right without a walk, so that the report is of all.
    pub fn add_clear(&mut self, clear: &Counts) {
        self.counts.entries += clear.entries;
        self.counts.chains += clear.chains;
        self.counts.signatures += clear.signatures;
        self.counts.begun += clear.begun;
        self.counts.erased += clear.erased;
        for (incarnation, entries) in &clear.by_incarnation {
            *self.counts.by_incarnation.entry(*incarnation).or_default() += entries;
        }
    }

    /// Takes the heads of all chains but these as already held against the log.
    pub fn forget_heads_but(&mut self, chains: &[ChainId]) {
        let chains: HashSet<_> = chains.iter().collect();
        self.heads.retain(|chain, _| chains.contains(chain));
    }

    /// Ends the walk.
    pub fn finish(mut self) -> Report {
        let tenant = self.end_chain();
        self.end_tenant(tenant);
        let mut unseen: Vec<_> = std::mem::take(&mut self.heads).into_iter().collect();
        unseen.sort();
        for (chain, heads) in unseen {
            let last = heads.iter().map(|h| h.0).max().unwrap_or(0);
            let detail = format!("the whole chain is gone; a head kept from before says it reached entry {last}");
            self.find(Verdict::Truncated, &chain, 1, detail);
            self.seen.clear();
        }
        if self.counts.entries == 0 {
            self.keep(Finding {
                verdict: Verdict::Empty,
                chain: None,
                seq: 0,
                detail: "there is no entry: nothing is proved".into(),
            });
        }
        let notice = |detail| Finding { verdict: Verdict::KeyRecovered, chain: None, seq: 0, detail };
        let notices = std::mem::take(&mut self.keys.recovered).into_iter().map(notice).collect();
        Report { counts: self.counts, findings: self.findings, notices }
    }

    fn row_part(&mut self, chain: &ChainId, e: &Entry<'_>) -> bool {
        let present = e.row_key.is_some() || e.old.is_some() || e.new.is_some();
        match e.row_salt {
            None if !present => self.ledger.missing((e.incarnation, e.lane), e.seq, Part::Row, e.op),
            Some(salt) if row_digest(salt, e.row_key, e.old, e.new) == e.row_digest => return true,
            _ => self.find(Verdict::Edited, chain, e.seq, "its row part (key, old, new) is not what was hashed"),
        }
        false
    }

    fn actor_part(&mut self, chain: &ChainId, e: &Entry<'_>) {
        let right = if e.actor_seq == e.seq {
            match (e.actor_salt, e.actor, e.actor_digest) {
                (Some(salt), Some(actor), Some(digest)) => actor_digest(salt, actor) == digest,
                (None, None, Some(_)) => {
                    return self.ledger.missing((e.incarnation, e.lane), e.seq, Part::Actor, e.op);
                }
                _ => false,
            }
        } else {
            let nothing_here = e.actor_salt.is_none() && e.actor.is_none() && e.actor_digest.is_none();
            (1..e.seq).contains(&e.actor_seq) && nothing_here
        };
        if !right {
            self.find(Verdict::Edited, chain, e.seq, "its actor part is not what was hashed");
        }
    }

    fn own_hash(&mut self, chain: &ChainId, e: &Entry<'_>) -> bool {
        if e.format == FORMAT && e.compute_hash() == e.hash {
            return true;
        }
        match self.true_place(e) {
            Some(place) => {
                self.find(Verdict::Reordered, chain, e.seq, format!("what stands here was written as entry {place}"));
            }
            None => self.find(Verdict::Edited, chain, e.seq, "its hash is not that of what it says"),
        }
        false
    }

    fn true_place(&mut self, e: &Entry<'_>) -> Option<i64> {
        if e.format != FORMAT || self.searches >= REORDER_SEARCHES {
            return None;
        }
        self.searches += 1;
        let lowest = e.seq.saturating_sub(REORDER_WINDOW);
        (lowest..=e.seq.saturating_add(REORDER_WINDOW)).find(|&seq| {
            let moved = Entry { seq, ..*e };
            moved.compute_hash() == e.hash
        })
    }

    fn link(&mut self, chain: &Chain, e: &Entry<'_>) {
        if e.prev_hash == chain.prev {
            return;
        }
        match &chain.before {
            Some(before) if !before.own_hash_right => {}
            Some(before) if !before.well_signed => {
                let detail = format!("it is not the entry that {} was chained to", e.seq);
                self.find(Verdict::Edited, &chain.id, before.seq, detail);
            }
            _ => self.find(Verdict::Inserted, &chain.id, e.seq, "it is not chained to the entry before it"),
        }
    }

    fn signature(&mut self, chain: &ChainId, e: &Entry<'_>) -> bool {
        if !e.signs_run {
            if e.key_id.is_some() || e.signature.is_some() {
                self.find(Verdict::Edited, chain, e.seq, "it carries a signature but was not written with one");
            }
            return false;
        }
        let (Some(key_id), Some(signature)) = (e.key_id, e.signature) else {
            self.find(Verdict::Unsigned, chain, e.seq, "its signature was removed");
            return false;
        };
        match self.keys.named(e.incarnation, key_id) {
            None => {
                let detail = format!("key {key_id} is not registered for this incarnation");
                self.find(Verdict::KeyNotValid, chain, e.seq, detail);
            }
            Some(keys) if !keys.iter().any(|k| k.trusted) => {
                let detail = format!("the pinned key does not vouch for key {key_id}");
                self.find(Verdict::KeyNotValid, chain, e.seq, detail);
            }
            Some(keys) if !keys.iter().any(|k| k.usable_at(e.lsn as i64)) => {
                let detail = format!("key {key_id} is not valid at its position, {}", e.lsn as i64);
                self.find(Verdict::KeyNotValid, chain, e.seq, detail);
            }
            Some(_) if !self.keys.signed(e.incarnation, key_id, e.lsn as i64, e.hash, signature) => {
                self.find(Verdict::BadSignature, chain, e.seq, format!("the signature is not one of key {key_id}"));
            }
            Some(_) => {
                self.counts.signatures += 1;
                return true;
            }
        }
        false
    }

    /// An erasure counts once a signature covers it: the first that comes in its chain must hold, and nothing between them be amiss.
    fn erasure(&mut self, chain: &mut Chain, e: &Entry<'_>, whole: bool, right: bool, well_signed: bool) {
        let before = chain.before.as_ref();
        let linked = whole
            && e.prev_hash == chain.prev
            && before.is_none_or(|before| before.own_hash_right && (before.xid == e.xid || before.signs_run));
        if !linked {
            chain.unsigned.clear();
        }
        if right && e.op == erasure::OP {
            chain.unsigned.extend(e.new.and_then(Erasure::read));
        }
        if e.signs_run {
            for erasure in chain.unsigned.drain(..).filter(|_| well_signed) {
                self.ledger.named(&erasure);
            }
        }
    }

    /// All of a tenant's chains are known: says what is missing and was not erased, and what was erased and is not missing.
    fn end_tenant(&mut self, tenant: Option<String>) {
        let ledger = std::mem::take(&mut self.ledger);
        let Some(tenant) = tenant.filter(|_| !ledger.is_clear()) else { return };
        for ((incarnation, lane), balance) in ledger.balance() {
            self.counts.erased += balance.erased;
            let chain = ChainId { incarnation, tenant: tenant.clone(), lane };
            let found = [
                (Verdict::PayloadMissing, balance.unaccounted, "a part of it is gone and no erasure accounts for it"),
                (
                    Verdict::ErasureIncomplete,
                    balance.incomplete,
                    "an erasure names it, and what was to be erased is there",
                ),
            ];
            for (verdict, places, detail) in found {
                for seq in places.numbers() {
                    self.keep(Finding { verdict, chain: Some(chain.clone()), seq, detail: detail.into() });
                }
            }
        }
    }

    fn against_heads(&mut self, chain: &ChainId, e: &Entry<'_>) {
        let other =
            self.heads.get(chain).is_some_and(|heads| heads.iter().any(|(seq, hash)| *seq == e.seq && hash != e.hash));
        if other {
            self.find(Verdict::Rewritten, chain, e.seq, "a head kept from before names another entry");
        }
    }

    /// Gives the tenant whose chain it was.
    fn end_chain(&mut self) -> Option<String> {
        let chain = self.chain.take()?;
        if let Some(before) = &chain.before
            && !before.signs_run
        {
            self.find(Verdict::Unsigned, &chain.id, before.seq, "the chain ends here without a signature");
        }
        if let Some(heads) = self.heads.remove(&chain.id)
            && let Some(last) = heads.iter().map(|h| h.0).max()
            && i128::from(last) >= chain.expected
        {
            let detail = format!("the chain ends here; a head kept from before says it reached entry {last}");
            self.find(Verdict::Truncated, &chain.id, chain.expected as i64, detail);
        }
        self.seen.clear();
        Some(chain.id.tenant)
    }

    fn find(&mut self, verdict: Verdict, chain: &ChainId, seq: i64, detail: impl Into<String>) {
        if self.seen.insert((verdict, seq)) {
            self.keep(Finding { verdict, chain: Some(chain.clone()), seq, detail: detail.into() });
        }
    }

    fn keep(&mut self, finding: Finding) {
        self.counts.findings += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

fn well_named(record: &KeyRecord) -> bool {
    record.public_key.len() == 32 && record.key_id == key_id(&record.public_key)
}

/// A key of an incarnation: its public half.
type KeyOf<'a> = (Uuid, &'a [u8]);

/// Where keys end, and how, by the word of trusted keys (all, if none is given) of their incarnation that came after them.
fn ends<'a>(keys: &'a [KeyRecord], trusted: Option<&HashSet<usize>>) -> HashMap<KeyOf<'a>, (i64, Ending)> {
    let mut by_name: HashMap<(Uuid, &str), Vec<&KeyRecord>> = HashMap::new();
    let may_say = |i: &usize, key: &KeyRecord| key.from_lsn.is_some() && trusted.is_none_or(|t| t.contains(i));
    for (_, key) in keys.iter().enumerate().filter(|(i, k)| well_named(k) && may_say(i, k)) {
        by_name.entry((key.incarnation, &key.key_id)).or_default().push(key);
    }
    let mut ends: HashMap<KeyOf<'a>, (i64, Ending)> = HashMap::new();
    for key in keys.iter().filter(|k| well_named(k)) {
        let Some(end) = &key.end else { continue };
        let says_so = by_name.get(&(key.incarnation, &*end.by)).into_iter().flatten().any(|by| {
            by.from_lsn > key.from_lsn
                && PublicKey::from_bytes(&by.public_key).is_some_and(|by| {
                    by.verify_end(end.how, key.incarnation, &key.public_key, end.until_lsn, &end.signature)
                })
        });
        if says_so {
            let known = ends.entry((key.incarnation, &key.public_key)).or_insert((end.until_lsn, end.how));
            known.0 = known.0.min(end.until_lsn);
            if end.how == Ending::Revoke {
                known.1 = Ending::Revoke;
            }
        }
    }
    ends
}

/// The records of the pinned keys, and of all that they endorse, directly or through others; by their place in the list. The `revoked`
/// vouch for none.
fn vouched_for(keys: &[KeyRecord], pins: &[String], revoked: &HashSet<&[u8]>) -> HashSet<usize> {
    let mut waiting = Vec::new();
    let mut endorsed_by: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, key) in keys.iter().enumerate().filter(|(_, k)| well_named(k)) {
        if pins.contains(&fingerprint(&key.public_key)) {
            waiting.push(i);
        }
        if let (Some(predecessor), Some(_)) = (&key.predecessor, &key.endorsement) {
            endorsed_by.entry(predecessor).or_default().push(i);
        }
    }
    let mut trusted: HashSet<usize> = waiting.iter().copied().collect();
    // A key may have many records; what it endorses is looked for once.
    let mut asked = HashSet::new();
    while let Some(i) = waiting.pop() {
        let Some(public) = PublicKey::from_bytes(&keys[i].public_key) else { continue };
        if !asked.insert(&keys[i].public_key) || revoked.contains(&*keys[i].public_key) {
            continue;
        }
        for &next in endorsed_by.get(&*keys[i].key_id).into_iter().flatten() {
            let KeyRecord { incarnation, public_key, endorsement, from_lsn, .. } = &keys[next];
            if !trusted.contains(&next)
                && endorsement
                    .as_ref()
                    .is_some_and(|e| public.verify_endorsement(*incarnation, public_key, *from_lsn, e))
            {
                trusted.insert(next);
                waiting.push(next);
            }
        }
    }
    trusted
}
