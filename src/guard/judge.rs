//! Judging: what is wrong now and was not before this transaction.

use std::cell::Cell;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::guard::mode::{self, Mode};
use crate::pg::moment::{self, Moment};
use crate::pg::{guard_hooks, lane, session};

thread_local! {
    /// Whether this transaction did anything that must be judged before it commits.
    static MARKED: Cell<bool> = const { Cell::new(false) };
    /// Whether what the command under way dropped, if it did, would have lasted.
    static DROPPED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    id: String,
    severity: String,
    relid: u64,
    object: String,
    problem: String,
    consequence: String,
    fix: String,
}

/// With one of these a table is not isolated at all,
const LACKING: [&str; 3] = ["CU001", "CU003", "CU006"];
/// so whoever mends it step by step may pass through these.
const STAGES: [&str; 11] =
    ["CU001", "CU002", "CU003", "CU004", "CU005", "CU006", "CU007", "CU008", "CU009", "CU013", "CU032"];

impl Finding {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            id: text("id"),
            severity: text("severity"),
            relid: value.get("relid").and_then(Value::as_u64).unwrap_or(0),
            object: text("object"),
            problem: text("problem"),
            consequence: text("consequence"),
            fix: text("fix"),
        }
    }

    /// 0 is the worst.
    fn rank(&self) -> u8 {
        match self.severity.as_str() {
            "critical" => 0,
            "high" => 1,
            "medium" => 2,
            "low" => 3,
            // A severity that this version does not know.
            _ => 0,
        }
    }

    /// Whether it stops a transaction, or is only said.
    fn stops(&self) -> bool {
        self.rank() <= 1
    }

    fn same_object(&self, other: &Self) -> bool {
        match (self.relid, other.relid) {
            (0, 0) => self.object == other.object,
            (a, b) => a == b,
        }
    }

    /// Whether what was wrong before makes this one nothing new.
    fn excused_by(&self, before: &Self) -> bool {
        let stage = || LACKING.contains(&before.id.as_str()) && STAGES.contains(&self.id.as_str());
        self.same_object(before) && (before.id == self.id && before.rank() <= self.rank() || stage())
    }

    fn line(&self) -> String {
        format!("{}: {} ({})", self.object, self.problem, self.id)
    }
}

/// Something was done that must be judged before the transaction commits.
pub fn mark() {
    MARKED.set(true);
}

/// A command dropped something; whether any of it would have lasted.
pub fn dropped(lasting: bool) {
    DROPPED.set(Some(lasting || DROPPED.get() == Some(true)));
}

/// What was dropped since this was last asked.
pub fn take_dropped() -> Option<bool> {
    DROPPED.take()
}

/// The transaction is over.
pub fn ended() {
    MARKED.set(false);
    DROPPED.set(None);
}

/// Judges at once: what pg_custody put in place; or, with `everything`, all findings.
pub fn after_command(everything: bool) -> Result<()> {
    // An update of the extension takes things away for a moment.
    if guard_hooks::in_own_script() {
        return Ok(());
    }
    deliver("this command", new_findings(everything)?)
}

/// Judges the transaction. Whoever commits after this one sees what it did, so two cannot each be right and both together wrong.
pub fn before_end(preparing: bool) -> Result<()> {
    if !MARKED.replace(false) || mode::current()?.mode == Mode::Off {
        return Ok(());
    }
    // A prepared transaction would hold the lock for as long as it likes.
    if !preparing {
        // What is judged by is read under locks on tables that policies name. They are waited for before the lock
        // that others wait for: who holds such a table would wait for it at his own COMMIT, a deadlock.
        findings(true, Moment::Now)?;
        lane::lock_guard();
    }
    deliver("this transaction", new_findings(true)?)
}

fn new_findings(everything: bool) -> Result<Vec<Finding>> {
    let now = findings(everything, Moment::Now)?;
    if now.is_empty() {
        return Ok(now);
    }
    let before = findings(everything, Moment::BeforeTransaction)?;
    let mut new: Vec<_> = now.into_iter().filter(|f| !before.iter().any(|b| f.excused_by(b))).collect();
    new.sort_by_key(|f| (f.rank(), f.id.clone()));
    Ok(new)
}

fn findings(everything: bool, moment: Moment) -> Result<Vec<Finding>> {
    let text = session::as_owner(|| moment::ask(c"guard_findings", everything, moment))?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(found)) => Ok(found.iter().map(Finding::read).collect()),
        _ => Err(Error::internal("custody.guard_findings did not return a list")),
    }
}

fn deliver(what: &'static str, found: Vec<Finding>) -> Result<()> {
    let refuses = mode::current()?.mode != Mode::Warn;
    let (stops, minor): (Vec<_>, Vec<_>) = found.into_iter().partition(Finding::stops);
    if let Some(worst) = stops.first()
        && refuses
    {
        let mut why = worst.consequence.clone();
        for further in &stops[1..] {
            why.push_str("\nAnd ");
            why.push_str(&further.line());
        }
        return Err(Error::Unisolated { what, finding: worst.line(), why, fix: worst.fix.clone() });
    }
    for finding in &stops {
        pgrx::warning!("{}; the guard would refuse {what}. {} {}", finding.line(), finding.consequence, finding.fix);
    }
    for finding in &minor {
        match finding.severity.as_str() {
            "low" => pgrx::notice!("{}. {} {}", finding.line(), finding.consequence, finding.fix),
            _ => pgrx::warning!("{}. {} {}", finding.line(), finding.consequence, finding.fix),
        }
    }
    Ok(())
}
