//! The table of who found what.

use std::fmt::Write;

use super::{Case, Outcome, Proof};

/// A case, and what each tool made of it.
pub struct Line {
    pub case: Case,
    pub proof: Proof,
    /// In the order of the tools.
    pub outcomes: Vec<Outcome>,
}

/// The categories in order, each with its lines.
fn categories(lines: &[Line]) -> Vec<(&str, Vec<&Line>)> {
    let mut all: Vec<(&str, Vec<&Line>)> = Vec::new();
    for line in lines {
        match all.iter_mut().find(|c| c.0 == line.case.category) {
            Some(c) => c.1.push(line),
            None => all.push((&line.case.category, vec![line])),
        }
    }
    all
}

/// Markdown: leaks caught and false alarms by category, then case by case.
pub fn table(tools: &[String], lines: &[Line]) -> String {
    let mut out =
        format!("| leaks | shown by a query | {} |\n|---|---|{}\n", tools.join(" | "), "---|".repeat(tools.len()));
    let count = |lines: &[&Line], tool: usize| -> String {
        if lines.iter().any(|l| l.outcomes[tool] == Outcome::NotRun) {
            return "not run".into();
        }
        let caught = lines.iter().filter(|l| l.outcomes[tool].right()).count();
        format!("{caught} of {}", lines.len())
    };
    let mut row = |name: &str, lines: &[&Line]| {
        let leaks: Vec<_> = lines.iter().filter(|l| !l.case.control).copied().collect();
        if leaks.is_empty() {
            return;
        }
        let shown = leaks.iter().filter(|l| l.proof == Proof::Shown).count();
        let cells: Vec<_> = (0..tools.len()).map(|t| count(&leaks, t)).collect();
        let _ = writeln!(out, "| {name} | {shown} of {} | {} |", leaks.len(), cells.join(" | "));
    };
    for (name, lines) in categories(lines) {
        row(name, &lines);
    }
    row("**all**", &lines.iter().collect::<Vec<_>>());

    let controls: Vec<_> = lines.iter().filter(|l| l.case.control).collect();
    if !controls.is_empty() {
        let alarms = |tool: usize| match controls.iter().any(|l| l.outcomes[tool] == Outcome::NotRun) {
            true => "not run".into(),
            false => controls.iter().filter(|l| !l.outcomes[tool].right()).count().to_string(),
        };
        let cells: Vec<_> = (0..tools.len()).map(alarms).collect();
        let _ = writeln!(out, "| **false alarms** on {} correct variants | | {} |", controls.len(), cells.join(" | "));
    }

    for (name, lines) in categories(lines) {
        let _ = writeln!(out, "\n<details><summary>{name}: case by case</summary>\n");
        let _ = writeln!(out, "| case | | {} |\n|---|---|{}", tools.join(" | "), "---|".repeat(tools.len()));
        for line in lines {
            let proof = match &line.proof {
                Proof::Shown => "leak, shown".into(),
                Proof::Held => "correct".into(),
                Proof::None(why) => format!("leak, not shown: {why}"),
            };
            let cells: Vec<_> = line
                .outcomes
                .iter()
                .map(|o| match o {
                    Outcome::Caught(ids) => ids.join(", "),
                    Outcome::Missed => "**missed**".into(),
                    Outcome::Quiet => "quiet".into(),
                    Outcome::Alarm(ids) => format!("**false alarm**: {}", ids.join(", ")),
                    Outcome::NotRun => "not run".into(),
                })
                .collect();
            let _ = writeln!(out, "| {} | {} | {} |", cell(&line.case.name), cell(&proof), cells.join(" | "));
        }
        out.push_str("\n</details>\n");
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The text with what stands between the marks of a section replaced, or with the section added at the end.
pub fn put(document: &str, section: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {section}: written by make mutants -->"), format!("<!-- end of {section} -->"));
    let block = format!("{begin}\n{content}{end}");
    match (document.find(&begin), document.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{block}{}", &document[..from], &document[to + end.len()..])
        }
        _ => format!("{}\n\n{block}\n", document.trim_end()),
    }
}
