//! Reports of isolation findings: text, JSON, SARIF 2.1.0, JUnit XML and Markdown. Names in a database can hold anything but NUL,
//! so each format has one way to write foreign text, and nothing foreign goes past it.

mod escape;
mod machine;
pub mod rules;
mod words;

use std::fmt;
use std::str::FromStr;

/// How bad a finding is. The worst compares lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Another tenant's rows are open.
    Critical,
    /// One step from it, or open under conditions.
    High,
    /// Leaks little, or breaks what should work.
    Medium,
    /// Worth knowing.
    Low,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Severity {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or(())
    }
}

/// What a report can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, at a terminal.
    Text,
    /// Everything, for programs.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit XML, for what shows test results.
    Junit,
    /// For a pull request or a job's summary.
    Markdown,
}

impl Format {
    /// The names that SQL takes.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("text", Self::Text),
        ("json", Self::Json),
        ("sarif", Self::Sarif),
        ("junit", Self::Junit),
        ("markdown", Self::Markdown),
    ];
}

impl FromStr for Format {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::NAMES.into_iter().find(|f| f.0 == name).map(|f| f.1).ok_or(())
    }
}

/// What a waiver says, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// `waived`, `expired`, `changed`, `replaced` or `stale`, as custody.waivers() has it. Only the first counts.
    pub state: String,
    /// Why the finding was accepted.
    pub reason: String,
    /// Who accepted it.
    pub by: String,
    /// When, in RFC 3339.
    pub at: String,
    /// Until when, in RFC 3339.
    pub until: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `CU001` and so on.
    pub id: String,
    /// How bad this one is.
    pub severity: Severity,
    /// The schema of what it is about, if that is in one.
    pub schema: Option<String>,
    /// What it is about, quoted as SQL quotes it.
    pub object: String,
    /// What is wrong, in short.
    pub problem: String,
    /// The same and what it lets happen.
    pub explanation: String,
    /// The SQL that ends it.
    pub fix: String,
    /// The waiver of this id and object.
    pub waiver: Option<Waiver>,
}

impl Finding {
    fn waived(&self) -> Option<&Waiver> {
        self.waiver.as_ref().filter(|w| w.state == "waived")
    }
}

/// All that a report is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The extension's version.
    pub version: String,
    /// The database's name.
    pub database: String,
    /// When, in RFC 3339.
    pub at: String,
    /// From which severity on a finding fails the gate.
    pub gate: Severity,
    /// The findings, in the order in which they are reported.
    pub findings: Vec<Finding>,
    /// Every waiver, with the id and the object that it is for.
    pub waivers: Vec<(String, String, Waiver)>,
}

impl Coverage {
    /// The report, as one text.
    pub fn write(&self, format: Format) -> String {
        match format {
            Format::Text => words::text(self),
            Format::Markdown => words::markdown(self),
            Format::Json => machine::json(self),
            Format::Sarif => machine::sarif(self),
            Format::Junit => machine::junit(self),
        }
    }

    /// Whether custody.assert_coverage would let it pass.
    pub fn passes(&self) -> bool {
        !self.findings.iter().any(|f| self.fails(f))
    }

    fn fails(&self, finding: &Finding) -> bool {
        finding.waived().is_none() && finding.severity <= self.gate
    }

    fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.waived().is_none())
    }

    fn waived(&self) -> impl Iterator<Item = (&Finding, &Waiver)> {
        self.findings.iter().filter_map(|f| Some((f, f.waived()?)))
    }

    fn count(&self, severity: Severity) -> usize {
        self.open().filter(|f| f.severity == severity).count()
    }

    /// Waivers that count for nothing.
    fn useless(&self) -> impl Iterator<Item = &(String, String, Waiver)> {
        self.waivers.iter().filter(|w| w.2.state != "waived")
    }
}
