//! What was done, so that a run that did too little is noticed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often each thing happened, and for how long the storm has raged.
#[derive(Default)]
pub struct Counts(Mutex<Done>);

#[derive(Default)]
struct Done {
    times: BTreeMap<&'static str, u64>,
    rounds: u64,
    length: Duration,
}

/// The least that must happen in ten seconds of a full storm. (An idle machine with two cores does five times as much and more.)
const LEAST: [(&str, u64); 27] = [
    ("committed", 100),
    ("rolled back", 30),
    ("savepoints", 60),
    ("savepoints rolled back", 20),
    ("errors survived", 5),
    ("prepared", 10),
    ("serialization failures", 2),
    ("statement timeouts", 2),
    ("cancellations", 5),
    ("terminations", 3),
    ("connections", 100),
    ("out of shared memory", 1),
    ("definitions changed", 6),
    ("tidied", 5),
    ("verified meanwhile", 1),
    ("insert", 20),
    ("update", 20),
    ("key move", 5),
    ("tenant move", 5),
    ("delete", 10),
    ("merge", 10),
    ("copy", 3),
    ("truncate", 1),
    ("with", 5),
    ("cursor", 10),
    ("block", 20),
    ("procedure", 3),
];

/// The least that must happen in two rounds of it.
const EVERY_OTHER_ROUND: [(&str, u64); 3] =
    [("crashes of a backend", 2), ("server restarts", 2), ("prepared over a restart", 1)];

impl Counts {
    fn done(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn add(&self, what: &'static str) {
        *self.done().times.entry(what).or_default() += 1;
    }

    pub(super) fn add_round(&self, length: Duration) {
        let mut done = self.done();
        done.length += length;
        done.rounds += 1;
    }

    /// What a full storm did less of than it must in so many rounds and so much time.
    pub fn too_little(&self, rounds: u64, length: Duration) -> Vec<String> {
        let done = self.done();
        let tens = length.as_secs_f64() / 10.0;
        let least = LEAST.iter().map(|(what, least)| (what, (*least as f64 * tens) as u64));
        let rounds = EVERY_OTHER_ROUND.iter().map(|(what, least)| (what, least * rounds / 2));
        let missing = |(what, least): (&&str, u64)| {
            let times = done.times.get(what).copied().unwrap_or(0);
            (times < least).then(|| format!("{what}: {times}, where {least} were the least"))
        };
        least.chain(rounds).filter_map(missing).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.done();
        let counted: Vec<_> = done.times.iter().map(|(what, times)| format!("{times} {what}")).collect();
        write!(f, "in {} rounds, {:.0} s: {}", done.rounds, done.length.as_secs_f64(), counted.join(", "))
    }
}
