//! The sweep clears a chain exactly if a walk finds nothing in it, and the two together report what a walk over everything does.

mod support;

use std::collections::BTreeSet;

use custody_core::entry::{Entry, genesis, row_digest};
use custody_core::erasure::{Erasure, Part as Erased};
use custody_core::export::{Reader, Record};
use custody_core::key::{PrivateKey, fingerprint, hex, key_id};
use custody_core::sweep::{Part, Sweep, Whole};
use custody_core::verify::{ChainId, Head, KeyRecord, Keys, Report, Verdict, Verifier};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use support::{log, make};

/// Members whose every value means something to a verifier.
const TELLING: [&str; 9] =
    ["seq", "format", "xid", "op", "actor_seq", "signs_run", "prev_hash", "row_digest", "signature"];
const NUMBERS: [i64; 5] = [0, 1, 2, i64::MIN, i64::MAX];

/// A tampering, by who can read and write everything.
#[derive(Clone, Debug)]
enum Act {
    /// One member of an entry becomes another value: one near it, none, or another of its type.
    Change {
        at: Index,
        member: Option<Index>,
        other: Index,
    },
    Delete(Index),
    /// The chain ends before this entry.
    Cut(Index),
    /// The entry is there again, at that much later a time.
    Twice {
        at: Index,
        later: i64,
    },
    /// Two entries change places.
    Swap(Index, Index),
    /// No signature is left on the entry, nor a trace of it unless `signs_run` stays.
    Strip {
        at: Index,
        signs_run: bool,
    },
    CaptureOff(Index),
    /// A part of the entry is gone.
    Drop {
        at: Index,
        part: Erased,
    },
    /// An entry becomes an erasure that names this one, and so many after it; of this one, the part may be gone.
    Erase {
        at: Index,
        by: Index,
        part: Erased,
        more: i64,
        gone: bool,
    },
    /// The entry carries no actor part, and says that this one, so many entries away, does.
    OtherActor(Index, i64),
    Key {
        at: Index,
        how: u8,
    },
    Head {
        at: Index,
        how: u8,
    },
    /// The log is held against its own pins, all its keys, a stranger's, or none.
    Pin(u8),
}

/// What the tamperer does to make it fit, as who holds the signing keys can.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Nothing,
    /// The entry's hash and signature, its link left as it is.
    Entry,
    /// Those, and the links, hashes and signatures after it.
    Rest,
    /// The whole chain, numbered from here in steps of this size, linked from the genesis hash.
    Chain(i64, i64),
}

/// A log in somebody else's hands.
struct Hostage {
    seeds: Vec<(Uuid, PrivateKey)>,
    keys: Vec<KeyRecord>,
    pins: Option<Vec<String>>,
    heads: Vec<Head>,
    entries: Vec<Value>,
}

fn entry<T>(line: &Value, f: impl FnOnce(&Entry<'_>) -> T) -> Option<T> {
    match Reader::new(line.to_string().as_bytes()).next_record() {
        Ok(Some(Record::Entry(entry))) => Some(f(&entry)),
        _ => None,
    }
}

fn place(line: &Value) -> (&str, Uuid, i64, i64) {
    let (text, number) = (|name: &str| line[name].as_str().unwrap(), |name: &str| line[name].as_i64().unwrap());
    (text("tenant"), text("incarnation").parse().unwrap(), number("lane"), number("seq"))
}

fn same_chain(a: &Value, b: &Value) -> bool {
    ["tenant", "incarnation", "lane"].iter().all(|name| a[*name] == b[*name])
}

/// A value near this one, none, or another of its type.
fn other_value(name: &str, value: &Value, other: Index) -> Value {
    let text = match name {
        "incarnation" | "move_id" => Uuid::from_u128(other.index(3) as u128).to_string(),
        _ if name.ends_with("salt") || name.ends_with("digest") || name == "signature" => "00".repeat(16),
        _ => "{}".to_owned(),
    };
    match value {
        Value::Bool(b) => (!b).into(),
        Value::Number(n) => {
            let n = n.as_i64().unwrap();
            let mut values = vec![n.wrapping_add(1), n.wrapping_sub(1), n.wrapping_neg()];
            values.extend(NUMBERS);
            (*other.get(&values)).into()
        }
        Value::String(s) => {
            let mut flipped = s.clone().into_bytes();
            if let Some(c) = flipped.get_mut(other.index(s.len().max(1))) {
                *c = if *c == b'0' { b'1' } else { b'0' };
            }
            let flipped = String::from_utf8(flipped).unwrap_or_default();
            let shorter = s.get(2..).unwrap_or_default().to_owned();
            [flipped.clone().into(), flipped.into(), Value::Null, shorter.into(), text.into()][other.index(5)].clone()
        }
        _ => text.into(),
    }
}

impl Hostage {
    fn take(log: support::Log, with_heads: bool) -> Self {
        let lines: Vec<Value> = log.lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        let mut keys = Vec::new();
        for line in &log.lines[..log.keys] {
            match Reader::new(line.as_bytes()).next_record() {
                Ok(Some(Record::Key(key))) => keys.push(key),
                other => panic!("{other:?}"),
            }
        }
        let seed = |n: usize| PrivateKey::from_seed(&Zeroizing::new([1 + n as u8; 32]));
        let seeds: Vec<_> = keys.iter().enumerate().map(|(n, k)| (k.incarnation, seed(n))).collect();
        assert!(seeds.iter().zip(&keys).all(|((_, private), public)| private.key_id() == public.key_id));
        let heads = if with_heads { log.heads } else { Vec::new() };
        Self { seeds, keys, pins: Some(log.pins), heads, entries: lines[log.keys..].to_vec() }
    }

    fn tamper(&mut self, act: &Act, mend: Mend) {
        let count = self.entries.len();
        let mut touched = None;
        match act {
            _ if count == 0 => {}
            Act::Change { at, member, other } => {
                let at = at.index(count);
                let line = &self.entries[at];
                let name = match member {
                    None => (*other.get(&TELLING)).to_owned(),
                    Some(member) => member.get(&line.as_object().unwrap().keys().collect::<Vec<_>>()).to_string(),
                };
                let mut changed = line.clone();
                changed[&name] = other_value(&name, &line[&name], *other);
                // What cannot be read at all is another test's.
                if entry(&changed, |_| ()).is_some() {
                    self.entries[at] = changed;
                    touched = Some(at);
                }
            }
            Act::Delete(at) => {
                let gone = self.entries.remove(at.index(count));
                touched = self.entries.iter().position(|line| same_chain(line, &gone));
            }
            Act::Cut(at) => {
                let last = self.entries[at.index(count)].clone();
                self.entries.retain(|l| !same_chain(l, &last) || place(l) < place(&last));
            }
            Act::Twice { at, later } => {
                let at = at.index(count);
                self.entries.insert(at, self.entries[at].clone());
                self.entries[at]["at"] = self.entries[at]["at"].as_i64().unwrap().wrapping_add(*later).into();
                touched = Some(at);
            }
            Act::Swap(one, other) => {
                let (one, other) = (one.index(count), other.index(count));
                for name in ["tenant", "incarnation", "lane", "seq"] {
                    let (a, b) = (self.entries[one][name].clone(), self.entries[other][name].clone());
                    (self.entries[one][name], self.entries[other][name]) = (b, a);
                }
                touched = Some(one);
            }
            Act::Strip { at, signs_run } => {
                let line = &mut self.entries[at.index(count)];
                let signs_run = *signs_run && line["signs_run"] == true;
                (line["signs_run"], line["key_id"], line["signature"]) = (signs_run.into(), Value::Null, Value::Null);
                touched = Some(at.index(count));
            }
            Act::CaptureOff(at) => {
                self.entries[at.index(count)]["op"] = "CAPTURE_OFF".into();
                touched = Some(at.index(count));
            }
            Act::Drop { at, part } => self.drop_part(at.index(count), *part),
            Act::Erase { at, by, part, more, gone } => {
                let (at, by) = (at.index(count), by.index(count));
                if *gone {
                    self.drop_part(at, *part);
                }
                self.make_erasure(by, at, *part, *more);
                touched = Some(by);
            }
            Act::OtherActor(at, away) => {
                let line = &mut self.entries[at.index(count)];
                ["actor_salt", "actor", "actor_digest"].into_iter().for_each(|name| line[name] = Value::Null);
                line["actor_seq"] = line["seq"].as_i64().unwrap().wrapping_add(*away).into();
                touched = Some(at.index(count));
            }
            Act::Key { at, how } => self.tamper_with_key(*at, *how),
            Act::Head { at, how } => self.tamper_with_head(*at, *how),
            Act::Pin(how) => {
                self.pins = match how {
                    0 => return,
                    1 => Some(self.keys.iter().map(|k| fingerprint(&k.public_key)).collect()),
                    2 => Some(vec!["0".repeat(64)]),
                    _ => None,
                }
            }
        }
        if let Some(at) = touched {
            self.mend(at, mend);
        }
        self.entries.sort_by(|a, b| place(a).cmp(&place(b)));
    }

    fn drop_part(&mut self, at: usize, part: Erased) {
        let members: &[&str] = match part {
            Erased::Row => &["row_salt", "row_key", "old", "new"],
            Erased::Actor => &["actor_salt", "actor"],
        };
        members.iter().for_each(|name| self.entries[at][*name] = Value::Null);
    }

    /// Makes entry `by` an erasure that names entry `at`; it is to be mended.
    fn make_erasure(&mut self, by: usize, at: usize, part: Erased, more: i64) {
        let (_, incarnation, lane, seq) = place(&self.entries[at]);
        let seq = seq.max(1);
        let erasure = Erasure { part, entries: vec![((incarnation, lane), seq, seq.saturating_add(more))] };
        let new = erasure.write("asked for");
        let line = &mut self.entries[by];
        line["row_digest"] = hex(&row_digest(&[7; 16], None, None, Some(&new))).into();
        (line["op"], line["row_salt"], line["new"]) = ("ERASE".into(), hex(&[7; 16]).into(), new.into());
        (line["row_key"], line["old"]) = (Value::Null, Value::Null);
    }

    fn tamper_with_key(&mut self, at: Index, how: u8) {
        if self.keys.is_empty() {
            return;
        }
        let at = at.index(self.keys.len());
        let key = &mut self.keys[at];
        match how {
            0 => _ = self.keys.remove(at),
            1 => {
                let twice = key.clone();
                self.keys.push(twice);
            }
            2 => key.incarnation = Uuid::nil(),
            3 => key.public_key[7] ^= 1,
            4 => {
                key.public_key[7] ^= 1;
                key.key_id = key_id(&key.public_key);
            }
            5 => key.key_id.push('0'),
            6 => key.predecessor = None,
            _ => key.endorsement = Some(vec![0; 64]),
        }
    }

    fn tamper_with_head(&mut self, at: Index, how: u8) {
        let of = |line: &Value| {
            entry(line, |e| {
                let chain = ChainId { incarnation: e.incarnation, tenant: e.tenant.into(), lane: e.lane };
                Head { chain, seq: e.seq, hash: e.hash.into() }
            })
        };
        let mut head = of(at.get(&self.entries)).unwrap();
        match how {
            0 => {}
            1 => head.hash[3] ^= 1,
            2 => head.hash.truncate(31),
            3 => head.seq = head.seq.wrapping_add(1),
            4 => head.seq = head.seq.wrapping_sub(1),
            5 => head.seq = *at.get(&NUMBERS),
            6 => head.chain.lane = head.chain.lane.wrapping_add(100),
            7 => head.chain.tenant.push('x'),
            _ => self.heads.clear(),
        }
        self.heads.push(head);
    }

    fn mend(&mut self, at: usize, mend: Mend) {
        // A tampered number tells no order: the chain is taken as it lies.
        let chain: Vec<usize> =
            (0..self.entries.len()).filter(|i| same_chain(&self.entries[*i], &self.entries[at])).collect();
        let (tenant, incarnation, lane, _) = place(&self.entries[at]);
        let genesis = hex(&genesis(incarnation, tenant, lane));
        match mend {
            Mend::Nothing => {}
            Mend::Entry => self.seal(at),
            Mend::Rest => {
                self.seal(at);
                let mut prev = self.entries[at]["hash"].clone();
                for i in chain.into_iter().filter(|i| *i > at) {
                    self.entries[i]["prev_hash"] = prev;
                    self.seal(i);
                    prev = self.entries[i]["hash"].clone();
                }
            }
            Mend::Chain(first, step) => {
                let mut prev = Value::from(genesis);
                for (number, i) in (0..).zip(chain) {
                    let seq = first.wrapping_add(number * step);
                    let line = &mut self.entries[i];
                    if line["actor_seq"] == line["seq"] {
                        line["actor_seq"] = seq.into();
                    }
                    (line["seq"], line["prev_hash"]) = (seq.into(), prev);
                    self.seal(i);
                    prev = self.entries[i]["hash"].clone();
                }
            }
        }
    }

    /// Gives an entry the hash of what it says, and the signature of that if it has one.
    fn seal(&mut self, at: usize) {
        let line = &mut self.entries[at];
        let (incarnation, hash) = entry(line, |e| (e.incarnation, e.compute_hash())).unwrap();
        line["hash"] = hex(&hash).into();
        if let Some((_, key)) = self.seeds.iter().find(|s| s.0 == incarnation).filter(|_| line["signature"].is_string())
        {
            line["signature"] = hex(&key.sign_run(&hash)).into();
        }
    }

    fn walk(&self, mut walk: Verifier, chains: impl Fn(&ChainId) -> bool) -> Report {
        for line in &self.entries {
            entry(line, |e| {
                if chains(&ChainId { incarnation: e.incarnation, tenant: e.tenant.into(), lane: e.lane }) {
                    walk.entry(e);
                }
            });
        }
        walk.finish()
    }

    /// Deals the entries to parts, as threads get them; sweeps, walks what is in doubt, and walks everything.
    fn compare(&self, deal: &[(usize, u32)]) -> Result<(), TestCaseError> {
        let keys = Keys::new(&self.keys, self.pins.as_deref());
        let all = self.walk(Verifier::with_keys(keys.clone(), self.heads.clone()), |_| true);

        let sweep = Sweep::new(keys.clone(), &self.heads);
        let mut parts: Vec<Part> = (0..4).map(|_| Part::default()).collect();
        let mut dealt: Vec<_> = self.entries.iter().zip(deal.iter().cycle()).collect();
        dealt.sort_by_key(|(_, (_, order))| *order);
        for (line, (part, _)) in dealt {
            entry(line, |e| sweep.entry(&mut parts[*part], e));
        }
        let mut whole = Whole::default();
        parts.into_iter().for_each(|part| whole.add(part));
        prop_assert_eq!(whole.entries(), all.counts.entries);
        let swept = sweep.finish(whole);

        let once: BTreeSet<_> = all.findings.iter().map(|f| (f.verdict, &f.chain, f.seq)).collect();
        prop_assert_eq!(once.len(), all.findings.len(), "reported twice: {:#?}", all.findings);
        let mut found: BTreeSet<ChainId> = all.findings.iter().filter_map(|f| f.chain.clone()).collect();
        // Where something is missing or was erased, a tenant's chains are cleared together or not at all.
        let erases = |line: &&Value| {
            line["op"] == "ERASE"
                || line["row_salt"].is_null()
                || (line["actor_salt"].is_null() && !line["actor_digest"].is_null())
        };
        let erasing: BTreeSet<&str> = self.entries.iter().filter(erases).map(|line| place(line).0).collect();
        let chain_of = |line: &Value| {
            let (tenant, incarnation, lane, _) = place(line);
            ChainId { incarnation, tenant: tenant.to_owned(), lane }
        };
        let there: BTreeSet<ChainId> = self.entries.iter().map(chain_of).collect();
        let in_doubt: BTreeSet<String> = found.intersection(&there).map(|chain| chain.tenant.clone()).collect();
        let together = |chain: &&ChainId| erasing.contains(&*chain.tenant) && in_doubt.contains(&chain.tenant);
        found.extend(there.iter().filter(together).cloned());
        prop_assert_eq!(swept.doubtful.clone(), found.into_iter().collect::<Vec<_>>(), "{:#?}", all.findings);

        let mut walk = Verifier::with_keys(keys, self.heads.clone());
        walk.add_clear(&swept.clear);
        walk.forget_heads_but(&swept.doubtful);
        let both = self.walk(walk, |chain| swept.doubtful.contains(chain));
        prop_assert_eq!(format!("{:?}", both.counts), format!("{:?}", all.counts));
        prop_assert_eq!(both.findings, all.findings);
        Ok(())
    }
}

fn act() -> impl Strategy<Value = Act> {
    let at = any::<Index>;
    let change = (at(), proptest::option::of(at()), at());
    prop_oneof![
        8 => change.prop_map(|(at, member, other)| Act::Change { at, member, other }),
        1 => at().prop_map(Act::Delete),
        1 => at().prop_map(Act::Cut),
        2 => (at(), 0..2i64).prop_map(|(at, later)| Act::Twice { at, later }),
        1 => (at(), at()).prop_map(|(one, other)| Act::Swap(one, other)),
        2 => (at(), any::<bool>()).prop_map(|(at, signs_run)| Act::Strip { at, signs_run }),
        1 => at().prop_map(Act::CaptureOff),
        2 => (at(), part()).prop_map(|(at, part)| Act::Drop { at, part }),
        4 => (at(), at(), part(), 0..3i64, any::<bool>()).prop_map(|(at, by, part, more, gone)| Act::Erase { at, by, part, more, gone }),
        2 => (at(), -2..=1i64).prop_map(|(at, away)| Act::OtherActor(at, away)),
        1 => (at(), 0..8u8).prop_map(|(at, how)| Act::Key { at, how }),
        2 => (at(), 0..9u8).prop_map(|(at, how)| Act::Head { at, how }),
        1 => (0..4u8).prop_map(Act::Pin),
    ]
}

fn part() -> impl Strategy<Value = Erased> {
    select(vec![Erased::Row, Erased::Actor])
}

fn mend() -> impl Strategy<Value = Mend> {
    let first = select(vec![1, 1, 1, 1, 0, 2, i64::MIN, i64::MAX]);
    let step = select(vec![1, 1, 1, 1, 0, 2]);
    prop_oneof![
        Just(Mend::Nothing),
        Just(Mend::Entry),
        Just(Mend::Rest),
        (first, step).prop_map(|(first, step)| Mend::Chain(first, step))
    ]
}

/// To four parts at random, in random order; or in the order of the log, a stretch to each part.
fn deal() -> impl Strategy<Value = Vec<(usize, u32)>> {
    let stretches = (1..20usize).prop_map(|length| (0..200).map(|i| (i / length % 4, i as u32)).collect());
    prop_oneof![vec((0..4usize, any::<u32>()), 64), stretches]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sweep_and_a_walk_agree(
        lives in log(), with_heads in any::<bool>(), tamperings in vec((vec((act(), mend()), 1..3), deal()), 32)
    ) {
        let log = make(&lives);
        prop_assert!(!log.detects(&log.bytes()));
        for (acts, deal) in &tamperings {
            let log = support::Log { lines: log.lines.clone(), keys: log.keys, pins: log.pins.clone(), heads: log.heads.clone() };
            let mut hostage = Hostage::take(log, with_heads);
            for (act, mend) in acts {
                hostage.tamper(act, *mend);
            }
            let compared = hostage.compare(deal);
            prop_assert!(compared.is_ok(), "{:?} after {:?}", compared, acts);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// An erasure in any chain of the tenant accounts for what is missing from any other: for that part of that entry, and no other.
    #[test]
    fn an_erasure_accounts_for_what_it_names(lives in log(), at in any::<Index>(), by in any::<Index>(), part in part(), deal in deal()) {
        let log = make(&lives);
        let mut hostage = Hostage::take(log, false);
        let count = hostage.entries.len();
        let (at, by) = (at.index(count), by.index(count));
        let (_, incarnation, lane, seq) = place(&hostage.entries[at]);
        let tenant = &*tenant_of(&hostage.entries[at]);
        let named = Some(ChainId { incarnation, tenant: tenant.to_owned(), lane });
        let same_tenant = place(&hostage.entries[by]).0 == tenant;
        prop_assume!(at != by);
        let has_part = part == Erased::Row || !hostage.entries[at]["actor_salt"].is_null();
        let verdicts = |hostage: &Hostage| {
            let walk = Verifier::new(&hostage.keys, hostage.pins.as_deref(), Vec::new());
            let report = hostage.walk(walk, |_| true);
            // What another tenant's erasure says of its own chains is its own affair.
            let here = report.findings.into_iter().filter(|f| f.chain.as_ref().is_some_and(|c| c.tenant == tenant));
            let findings: Vec<_> = here.map(|f| (f.verdict, f.chain, f.seq)).collect();
            (findings, report.counts.erased)
        };

        if has_part {
            hostage.drop_part(at, part);
            prop_assert_eq!(verdicts(&hostage), (vec![(Verdict::PayloadMissing, named.clone(), seq)], 0));
            hostage.compare(&deal)?;
        }
        hostage.make_erasure(by, at, part, 0);
        hostage.mend(by, Mend::Rest);
        let expected = match (same_tenant, has_part) {
            (true, true) => (vec![], 1),
            // There never was anything to be erased.
            (true, false) => (vec![(Verdict::ErasureIncomplete, named.clone(), seq)], 0),
            (false, true) => (vec![(Verdict::PayloadMissing, named.clone(), seq)], 0),
            (false, false) => (vec![], 0),
        };
        prop_assert_eq!(verdicts(&hostage), expected);
        hostage.compare(&deal)?;

        // Erased itself, it accounts for nothing, and nothing accounts for it.
        if same_tenant {
            hostage.drop_part(by, Erased::Row);
            let (found, _) = verdicts(&hostage);
            let (_, incarnation, lane, own) = place(&hostage.entries[by]);
            let itself = Some(ChainId { incarnation, tenant: tenant_of(&hostage.entries[by]), lane });
            prop_assert!(found.contains(&(Verdict::PayloadMissing, itself.clone(), own)), "{found:?}");
            prop_assert_eq!(found.contains(&(Verdict::PayloadMissing, named.clone(), seq)), has_part);
            hostage.make_erasure(at, by, Erased::Row, 0);
            hostage.mend(at, Mend::Rest);
            prop_assert!(verdicts(&hostage).0.contains(&(Verdict::PayloadMissing, itself, own)));
            hostage.compare(&deal)?;
        }
    }
}

fn tenant_of(line: &Value) -> String {
    place(line).0.to_owned()
}

#[test]
fn the_lowest_number_twice() {
    let log = make(&[support::Life { endorsed: false, transactions: Vec::new() }]);
    let mut hostage = Hostage::take(log, true);
    hostage.entries.push(hostage.entries[0].clone());
    hostage.mend(0, Mend::Chain(i64::MIN, 0));
    for deal in [[(0, 0), (0, 1)], [(0, 0), (1, 1)]] {
        hostage.compare(&deal).unwrap();
    }
}
