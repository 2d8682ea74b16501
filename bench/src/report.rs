//! Samples, ratios and targets: one table for people, one JSON file a section for everything else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use custody_harness::Result;
use serde_json::{Value, json};

/// What a ratio is held against.
#[derive(Clone, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Where a rival's ratio was measured before: says whether this one is near, and is no target.
    Reference(f64, f64),
}

impl Target {
    fn words(&self) -> String {
        match self {
            Self::AtLeast(x) => format!("≥ {x:.2}"),
            Self::AtMost(x) => format!("≤ {x:.2}"),
            Self::Reference(a, b) if a == b => format!("ref. {a}"),
            Self::Reference(a, b) => format!("ref. {a}–{b}"),
        }
    }

    fn verdict(&self, ratio: f64) -> &'static str {
        match self {
            Self::AtLeast(x) if ratio >= *x => "met",
            Self::AtMost(x) if ratio <= *x => "met",
            Self::AtLeast(_) | Self::AtMost(_) => "MISSED",
            // A reference is one machine's: within a quarter of it counts as near.
            Self::Reference(a, b) if (0.75 * a..=1.25 * b).contains(&ratio) => "near",
            Self::Reference(..) => "differs",
        }
    }
}

/// One quantity, measured of several contestants in every round.
#[derive(Clone, Debug)]
pub struct Line {
    what: String,
    unit: &'static str,
    baseline: String,
    samples: Vec<(String, Vec<f64>)>,
    targets: BTreeMap<String, Target>,
    notes: Vec<String>,
}

impl Line {
    /// Ratios are to `baseline`.
    pub fn new(what: impl Into<String>, unit: &'static str, baseline: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            unit,
            baseline: baseline.into(),
            samples: Vec::new(),
            targets: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    pub fn target(mut self, contestant: &str, target: Target) -> Self {
        self.targets.insert(contestant.into(), target);
        self
    }

    /// A remark that is printed under the line.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub fn sample(&mut self, contestant: &str, value: f64) {
        match self.samples.iter_mut().find(|(name, _)| name == contestant) {
            Some((_, samples)) => samples.push(value),
            None => self.samples.push((contestant.into(), vec![value])),
        }
    }

    fn of(&self, contestant: &str) -> &[f64] {
        self.samples.iter().find(|(name, _)| name == contestant).map_or(&[], |(_, samples)| samples)
    }

    pub fn samples(&self, contestant: &str) -> &[f64] {
        self.of(contestant)
    }

    /// A contestant's ratio to the baseline in each round.
    fn ratios(&self, contestant: &str) -> Vec<f64> {
        let pairs = self.of(contestant).iter().zip(self.of(&self.baseline));
        pairs.map(|(a, b)| if a == b { 1.0 } else { a / b }).collect()
    }

    /// The median of a contestant's ratios.
    pub fn ratio(&self, contestant: &str) -> f64 {
        median(&self.ratios(contestant))
    }

    /// The last round in one line, for whoever watches.
    pub fn progress(&self) -> String {
        let mut text = format!("   {}:", self.what);
        for (name, samples) in &self.samples {
            let ratios = self.ratios(name);
            let _ = write!(text, " {name} {}", number(samples.last().copied().unwrap_or(0.0)));
            if *name != self.baseline
                && let Some(ratio) = ratios.last()
            {
                let _ = write!(text, " ({ratio:.2})");
            }
            text.push(',');
        }
        text.pop();
        text + " " + self.unit
    }

    fn json(&self) -> Value {
        let contestants: Vec<_> = self
            .samples
            .iter()
            .map(|(name, samples)| {
                let target = self.targets.get(name);
                json!({
                    "name": name, "samples": samples, "median": median(samples),
                    "ratio": self.ratio(name), "ratios": self.ratios(name),
                    "target": target.map(Target::words), "verdict": target.map(|t| t.verdict(self.ratio(name))),
                })
            })
            .collect();
        json!({"what": self.what, "unit": self.unit, "baseline": self.baseline, "contestants": contestants, "notes": self.notes})
    }
}

/// All that is measured.
pub struct Report {
    about: Value,
    out: PathBuf,
    sections: Vec<(&'static str, Vec<Line>)>,
}

impl Report {
    pub fn new(about: Value, out: &Path) -> Result<Self> {
        fs::create_dir_all(out)?;
        Ok(Self { about, out: out.to_owned(), sections: Vec::new() })
    }

    pub fn begin(&mut self, section: &'static str) {
        self.sections.push((section, Vec::new()));
    }

    pub fn add(&mut self, line: Line) {
        if let Some((_, lines)) = self.sections.last_mut() {
            lines.push(line);
        }
    }

    /// Writes the section's file.
    pub fn end(&self) -> Result<()> {
        let Some((section, lines)) = self.sections.last() else { return Ok(()) };
        let mut file = self.about.clone();
        file["section"] = (*section).into();
        file["lines"] = lines.iter().map(Line::json).collect();
        let path = self.out.join(format!("{section}.json"));
        fs::write(&path, serde_json::to_string_pretty(&file)? + "\n")?;
        Ok(())
    }

    /// The table. Ratios are medians over the rounds, each round's being to the baseline of the same round.
    pub fn table(&self) -> String {
        let mut rows = vec![["", "median", "", "ratio", "min–max", "target", ""].map(String::from)];
        let mut notes = vec![String::new()];
        for (section, lines) in &self.sections {
            for line in lines {
                rows.push([format!("{section}: {}", line.what), "".into(), "".into(), "".into(), "".into(), "".into(), "".into()]);
                notes.push(String::new());
                for (name, samples) in &line.samples {
                    let ratios = line.ratios(name);
                    let compared = *name != line.baseline && !ratios.is_empty();
                    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), r| (l.min(*r), h.max(*r)));
                    let target = line.targets.get(name);
                    rows.push([
                        format!("  {name}"),
                        number(median(samples)),
                        line.unit.into(),
                        if compared { format!("{:.2}", line.ratio(name)) } else { String::new() },
                        if compared { format!("{low:.2}–{high:.2}") } else { String::new() },
                        target.map(Target::words).unwrap_or_default(),
                        target.map(|t| t.verdict(line.ratio(name)).to_owned()).unwrap_or_default(),
                    ]);
                    notes.push(String::new());
                }
                if let Some(last) = notes.last_mut() {
                    *last = line.notes.iter().map(|n| format!("    {n}\n")).collect();
                }
            }
        }
        let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        // Headings of lines may be longer than any contestant's name.
        let first = rows.iter().filter(|r| r[1] != "").map(|r| r[0].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = std::iter::once(first).chain((1..7).map(width)).collect();
        let mut text = String::new();
        for (row, note) in rows.iter().zip(&notes) {
            let pad = |column: usize| " ".repeat(widths[column].saturating_sub(row[column].chars().count()));
            let mut out = format!("{}{}", row[0], pad(0));
            for column in 1..7 {
                // Numbers to the right, words to the left.
                match matches!(column, 1 | 3 | 4) {
                    true => out += &format!("  {}{}", pad(column), row[column]),
                    false => out += &format!(" {}{}", row[column], pad(column)),
                }
            }
            text += out.trim_end();
            text.push('\n');
            text += note;
        }
        text
    }
}

/// The machine in a few lines.
pub fn describe(about: &Value) -> String {
    let said = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten().map(|(k, v)| format!("{k} = {}", said(v)));
        pairs.collect::<Vec<_>>().join(", ")
    };
    format!("machine: {}\nversions: {}\nsettings: {}", list(&about["machine"]), list(&about["versions"]), list(&about["settings"]))
}

/// The middle of samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// A number with as many digits as mean something.
fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 1.0 || a == 0.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}
