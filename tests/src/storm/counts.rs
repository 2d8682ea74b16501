//! What was done, so that a run that did too little is noticed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often each thing happened, and for how long the storm has raged.
#[derive(Default)]
pub struct Counts(Mutex<(BTreeMap<&'static str, u64>, Duration)>);

/// The least that must happen in ten seconds of a full storm. (An idle machine with two cores does five times as much and more.)
const LEAST: [(&str, u64); 30] = [
    ("committed", 150),
    ("rolled back", 30),
    ("savepoints", 60),
    ("savepoints rolled back", 20),
    ("errors survived", 5),
    ("prepared", 10),
    ("prepared over a restart", 2),
    ("serialization failures", 2),
    ("statement timeouts", 2),
    ("cancellations", 5),
    ("terminations", 3),
    ("crashes of a backend", 1),
    ("server restarts", 1),
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

impl Counts {
    /// One more.
    pub fn add(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).0.entry(what).or_default() += 1;
    }

    pub(super) fn add_time(&self, length: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 += length;
    }

    /// What a full storm did less of than it must.
    pub fn too_little(&self) -> Vec<String> {
        let (done, length) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tens = length.as_secs_f64() / 10.0;
        let missing = |(what, least): &(&str, u64)| {
            let (done, least) = (done.get(what).copied().unwrap_or(0), (*least as f64 * tens) as u64);
            (done < least).then(|| format!("{what}: {done}, where {least} were the least"))
        };
        LEAST.iter().filter_map(missing).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, length) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted: Vec<_> = done.iter().map(|(what, times)| format!("{times} {what}")).collect();
        write!(f, "in {:.0} s: {}", length.as_secs_f64(), counted.join(", "))
    }
}
