//! What was erased (format section 6, `ERASE`), and whether that accounts for what is missing (section 8).
//!
//! An erasure may stand in any chain of its tenant, before or after what it names. So both are gathered, as stretches of numbers, until
//! all of the tenant's chains are known: memory grows with the stretches of parts that are missing, not with the log.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::json;

/// The op of an entry that says what was erased.
pub const OP: &str = "ERASE";

/// A part of an entry that can be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `row_key`, `old`, `new`.
    Row,
    /// Who acted.
    Actor,
}

impl Part {
    const ALL: [Self; 2] = [Self::Row, Self::Actor];

    fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Actor => "actor",
        }
    }
}

/// A chain of a tenant: incarnation and lane.
pub type Chain = (Uuid, i64);

/// What one `ERASE` entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Which part was erased.
    pub part: Part,
    /// Of which entries: a chain, the first number and the last.
    pub entries: Vec<(Chain, i64, i64)>,
}

impl Erasure {
    /// Reads the `new` of an `ERASE` entry; none if it is not of the form that the format gives.
    pub fn read(new: &str) -> Option<Self> {
        let Value::Object(members) = json::parse_strict(new.as_bytes()).ok()? else { return None };
        if members.len() != 3 || !members.get("reason")?.is_string() {
            return None;
        }
        let part = members.get("part")?.as_str()?;
        let part = Part::ALL.into_iter().find(|p| p.name() == part)?;
        let stretch = |entry: &Value| {
            let [incarnation, lane, first, last] = entry.as_array()?.as_slice() else { return None };
            let incarnation = incarnation.as_str()?;
            let id = Uuid::try_parse(incarnation).ok()?;
            let canonical = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == incarnation;
            let (lane, first, last) = (lane.as_i64()?, first.as_i64()?, last.as_i64()?);
            (canonical && 1 <= first && first <= last).then_some(((id, lane), first, last))
        };
        let entries = members.get("entries")?.as_array()?.iter().map(stretch).collect::<Option<_>>()?;
        Some(Self { part, entries })
    }

    /// The `new` of an `ERASE` entry.
    pub fn write(&self, reason: &str) -> String {
        let mut out = String::from("{\"reason\":");
        json::push_string(&mut out, reason);
        out.push_str(",\"part\":");
        json::push_string(&mut out, self.part.name());
        out.push_str(",\"entries\":[");
        for (n, ((incarnation, lane), first, last)) in self.entries.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            out.push_str(&format!("{comma}[\"{incarnation}\",{lane},{first},{last}]"));
        }
        out.push_str("]}");
        out
    }
}

/// Numbers, as stretches: the first of each to its last. No two touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretches(BTreeMap<i64, i64>);

impl Stretches {
    /// Adds the numbers from `first` to `last`.
    pub fn add(&mut self, mut first: i64, mut last: i64) {
        if let Some((&start, &end)) = self.0.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            if end >= last {
                return;
            }
            first = start;
        }
        while let Some((&start, &end)) = self.0.range(first..=last.saturating_add(1)).next() {
            self.0.remove(&start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Adds all of another's.
    pub fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(first, last)| self.add(first, last));
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: i64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, &last)| last >= number)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stretches, in order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The numbers that are in both.
    pub fn common(&self, other: &Self) -> Self {
        let mut common = BTreeMap::new();
        for (first, last) in self.iter() {
            let before = other.0.range(..=first).next_back().map(|(start, _)| *start);
            for (&start, &end) in other.0.range(before.unwrap_or(first)..=last) {
                let (first, last) = (first.max(start), last.min(end));
                if first <= last {
                    common.insert(first, last);
                }
            }
        }
        Self(common)
    }

    /// The numbers that are not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = BTreeMap::new();
        for (first, last) in self.iter() {
            let mut from = Some(first);
            let before = other.0.range(..=first).next_back().map(|(start, _)| *start);
            for (&start, &end) in other.0.range(before.unwrap_or(first)..=last) {
                let Some(at) = from.filter(|at| *at <= end) else { continue };
                if at < start {
                    left.insert(at, start - 1);
                }
                from = end.checked_add(1);
            }
            if let Some(at) = from.filter(|at| *at <= last) {
                left.insert(at, last);
            }
        }
        Self(left)
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, last)| last.abs_diff(first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// Each number, in order.
    pub fn numbers(&self) -> impl Iterator<Item = i64> {
        self.iter().flat_map(|(first, last)| first..=last)
    }
}

/// What is known of one chain.
#[derive(Clone, Debug, Default)]
struct OfChain {
    seen: Stretches,
    missing: [Stretches; 2],
    named: [Stretches; 2],
    /// Row parts of erasures themselves: nothing accounts for these.
    lost: Stretches,
}

/// The parts that are missing from one tenant's chains, and the erasures that name them.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<Chain, OfChain>);

/// What a ledger comes to, of one chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Entries with a part missing that no erasure names.
    pub unaccounted: Stretches,
    /// Entries that an erasure names, and whose part is there.
    pub incomplete: Stretches,
    /// Parts that are missing as an erasure says.
    pub erased: u64,
}

impl Ledger {
    /// Takes note that entries stand there.
    pub fn seen(&mut self, chain: Chain, first: i64, last: i64) {
        self.0.entry(chain).or_default().seen.add(first, last);
    }

    /// Takes note of a part that is missing at an entry with that op.
    pub fn missing(&mut self, chain: Chain, seq: i64, part: Part, op: &str) {
        let chain = self.0.entry(chain).or_default();
        match (part, op) {
            (Part::Row, OP) => chain.lost.add(seq, seq),
            _ => chain.missing[part as usize].add(seq, seq),
        }
    }

    /// Takes note of an erasure that is beyond doubt.
    pub fn named(&mut self, erasure: &Erasure) {
        for (chain, first, last) in &erasure.entries {
            self.0.entry(*chain).or_default().named[erasure.part as usize].add(*first, *last);
        }
    }

    /// Whether nothing is missing, nor was anything erased.
    pub fn is_clear(&self) -> bool {
        let clear = |c: &OfChain| c.lost.is_empty() && c.missing.iter().chain(&c.named).all(Stretches::is_empty);
        self.0.values().all(clear)
    }

    /// Takes in what another has of the same tenant.
    pub fn add(&mut self, other: &Self) {
        for (chain, from) in &other.0 {
            let to = self.0.entry(*chain).or_default();
            to.seen.add_all(&from.seen);
            to.lost.add_all(&from.lost);
            for part in Part::ALL {
                to.missing[part as usize].add_all(&from.missing[part as usize]);
                to.named[part as usize].add_all(&from.named[part as usize]);
            }
        }
    }

    /// What it comes to, chain by chain.
    pub fn balance(&self) -> impl Iterator<Item = (Chain, Balance)> {
        self.0.iter().map(|(id, chain)| {
            let mut balance = Balance { unaccounted: chain.lost.clone(), ..Balance::default() };
            let nothing = Stretches::default();
            for (part, lost) in [(Part::Row, &chain.lost), (Part::Actor, &nothing)] {
                let (missing, named) = (&chain.missing[part as usize], &chain.named[part as usize]);
                balance.unaccounted.add_all(&missing.without(named));
                balance.incomplete.add_all(&named.common(&chain.seen).without(missing).without(lost));
                balance.erased += missing.common(named).count();
            }
            (*id, balance)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn some() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let near = |end: i64| {
            proptest::collection::vec((0..12i64, 0..4i64), 0..6).prop_map(move |v| {
                let stretch = |(first, length): (i64, i64)| {
                    let first = if end > 0 { end - 15 + first } else { end + first };
                    (first, first + length)
                };
                v.into_iter().map(stretch).collect::<Vec<_>>()
            })
        };
        prop_oneof![near(0), near(i64::MAX), near(i64::MIN)]
    }

    fn both(stretches: &[(i64, i64)]) -> (Stretches, BTreeSet<i64>) {
        let mut made = Stretches::default();
        stretches.iter().for_each(|(first, last)| made.add(*first, *last));
        (made, stretches.iter().flat_map(|(first, last)| *first..=*last).collect())
    }

    proptest! {
        #[test]
        fn stretches_are_sets(a in some(), b in some()) {
            let ((a, a_set), (b, b_set)) = (both(&a), both(&b));
            let numbers = |s: &Stretches| s.numbers().collect::<Vec<_>>();
            prop_assert_eq!(numbers(&a), a_set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(a.count(), a_set.len() as u64);
            prop_assert_eq!(numbers(&a.without(&b)), a_set.difference(&b_set).copied().collect::<Vec<_>>());
            prop_assert_eq!(numbers(&a.common(&b)), a_set.intersection(&b_set).copied().collect::<Vec<_>>());
            let apart = a.iter().zip(a.iter().skip(1)).all(|((_, last), (first, _))| last < first - 1);
            prop_assert!(apart, "two touch: {a:?}");
            for number in a_set.iter().chain(&b_set) {
                prop_assert_eq!(a.contains(*number), a_set.contains(number));
            }
        }

        #[test]
        fn an_erasure_reads_back(reason in any::<String>(), actor in any::<bool>(), entries in proptest::collection::vec((any::<u128>(), any::<i64>(), 1..i64::MAX, 0..9i64), 0..5)) {
            let part = if actor { Part::Actor } else { Part::Row };
            let entries = entries.into_iter().map(|(id, lane, first, more)| ((Uuid::from_u128(id), lane), first, first.saturating_add(more)));
            let erasure = Erasure { part, entries: entries.collect() };
            prop_assert_eq!(Erasure::read(&erasure.write(&reason)), Some(erasure));
        }
    }

    #[test]
    fn what_is_not_of_the_form_erases_nothing() {
        const ID: &str = "0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f5061";
        let form = |part: &str, entries: &str| {
            format!("{{\"reason\": \"x\", \"part\": \"{part}\", \"entries\": [{entries}]}}")
        };
        assert!(Erasure::read(&form("row", &format!("[\"{ID}\", 0, 1, 1], [\"{ID}\", -1, 3, 9]"))).is_some());
        assert!(Erasure::read(&form("actor", "")).is_some());
        for no in [
            form("rows", ""),
            form("row", "1"),
            form("row", &format!("[\"{ID}\", 0, 1]")),
            form("row", &format!("[\"{ID}\", 0, 1, 1, 1]")),
            form("row", &format!("[\"{ID}\", 0, 0, 1]")),
            form("row", &format!("[\"{ID}\", 0, 2, 1]")),
            form("row", &format!("[\"{ID}\", 0, 1.0, 1]")),
            form("row", &format!("[\"{ID}\", -0, 1, 1]")),
            form("row", &format!("[\"{ID}\", 0, 1, 9223372036854775808]")),
            form("row", &format!("[\"{}\", 0, 1, 1]", ID.to_uppercase())),
            form("row", &format!("[\"{}\", 0, 1, 1]", ID.replace('-', ""))),
            form("row", "").replace("\"x\"", "null"),
            form("row", "").replace('}', ", \"more\": 1}"),
            form("row", "").replace('}', ", \"part\": \"row\"}"),
            "[]".into(),
            String::new(),
        ] {
            assert_eq!(Erasure::read(&no), None, "{no}");
        }
    }
}
