//! Samples, ratios and targets: one table for people, one JSON file a section for everything else.

use std::collections::BTreeMap;
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

    /// A contestant's samples, one a round.
    pub fn samples(&self, contestant: &str) -> &[f64] {
        self.samples.iter().find(|(name, _)| name == contestant).map_or(&[], |(_, samples)| samples)
    }

    /// A contestant's ratio to the baseline in each round.
    fn ratios(&self, contestant: &str) -> Vec<f64> {
        let pairs = self.samples(contestant).iter().zip(self.samples(&self.baseline));
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
            text += &format!(" {name} {}", number(samples.last().copied().unwrap_or(0.0)));
            if *name != self.baseline
                && let Some(ratio) = ratios.last()
            {
                text += &format!(" ({ratio:.2})");
            }
            text.push(',');
        }
        text.pop();
        text + " " + self.unit
    }

    /// A contestant's row of the table.
    fn row(&self, name: &str, samples: &[f64]) -> [String; 7] {
        let mut row = [
            format!("  {name}"),
            number(median(samples)),
            self.unit.into(),
            "".into(),
            "".into(),
            "".into(),
            "".into(),
        ];
        let ratios = self.ratios(name);
        if name != self.baseline && !ratios.is_empty() {
            let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), r| (l.min(*r), h.max(*r)));
            row[3] = format!("{:.2}", self.ratio(name));
            row[4] = format!("{low:.2}–{high:.2}");
            if let Some(target) = self.targets.get(name) {
                row[5] = target.words();
                row[6] = target.verdict(self.ratio(name)).into();
            }
        }
        row
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
        let mut printed = vec![Printed::Row(["", "median", "", "ratio", "min–max", "target", ""].map(String::from))];
        for (section, lines) in &self.sections {
            for line in lines {
                printed.push(Printed::Text(format!("{section}: {}", line.what)));
                printed.extend(line.samples.iter().map(|(name, samples)| Printed::Row(line.row(name, samples))));
                printed.extend(line.notes.iter().map(|note| Printed::Text(format!("    {note}"))));
            }
        }
        let mut widths = [0; 7];
        for row in printed.iter().filter_map(Printed::row) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        printed.iter().map(|p| p.text(&widths) + "\n").collect()
    }
}

/// A line of the table.
enum Printed {
    Row([String; 7]),
    Text(String),
}

impl Printed {
    fn row(&self) -> Option<&[String; 7]> {
        match self {
            Self::Row(row) => Some(row),
            Self::Text(_) => None,
        }
    }

    fn text(&self, widths: &[usize; 7]) -> String {
        let row = match self {
            Self::Text(text) => return text.clone(),
            Self::Row(row) => row,
        };
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, &width))| match column {
            // Numbers to the right, words to the left.
            1 | 3 | 4 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// The machine in a few lines.
pub fn describe(about: &Value) -> String {
    let said = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten().map(|(k, v)| format!("{k} = {}", said(v)));
        pairs.collect::<Vec<_>>().join(", ")
    };
    format!(
        "machine: {}\nversions: {}\nsettings: {}",
        list(&about["machine"]),
        list(&about["versions"]),
        list(&about["settings"])
    )
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
