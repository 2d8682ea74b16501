//! The reports that people read.

use std::fmt::Write;

use super::escape::{block, code, line, markdown as plain};
use super::{Coverage, Finding, Severity, Waiver};

fn counts(coverage: &Coverage) -> String {
    let counts: Vec<_> = Severity::ALL.iter().map(|s| format!("{} {s}", coverage.count(*s))).collect();
    format!("{}; {} waived", counts.join(", "), coverage.waived().count())
}

fn verdict(coverage: &Coverage) -> String {
    let verdict = if coverage.passes() { "passes" } else { "FAILS" };
    format!("The gate {verdict} ({} or worse).", coverage.gate)
}

fn note(finding: &Finding) -> Option<String> {
    let waiver = finding.waiver.as_ref()?;
    Some(match waiver.state.as_str() {
        "expired" => format!("Its waiver expired at {}: {}", waiver.until, waiver.reason),
        "changed" => format!("It was waived, but for less than this: {}", waiver.reason),
        "replaced" => format!("The waiver of this name was for another object: {}", waiver.reason),
        _ => return None,
    })
}

fn accepted(waiver: &Waiver) -> String {
    format!("until {} by {}: {}", waiver.until, waiver.by, waiver.reason)
}

pub fn text(coverage: &Coverage) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "pg_custody {}: isolation of database {} at {}\n{}. {}",
        line(&coverage.version),
        line(&coverage.database),
        coverage.at,
        counts(coverage),
        verdict(coverage)
    );
    for f in coverage.open() {
        let _ = write!(out, "\n{} {} {}\n  {}\n", f.severity, line(&f.id), line(&f.object), line(&f.explanation));
        if let Some(note) = note(f) {
            let _ = writeln!(out, "  {}", line(&note));
        }
        let _ = writeln!(out, "  fix: {}", line(&f.fix));
    }
    let mut head = "\nwaived:\n";
    for (f, waiver) in coverage.waived() {
        let words = format!("{}, {}", f.problem, accepted(waiver));
        let _ = writeln!(out, "{head}  {} {} {}: {}", f.severity, line(&f.id), line(&f.object), line(&words));
        head = "";
    }
    let mut head = "\nwaivers that do nothing:\n";
    for (id, object, waiver) in coverage.useless() {
        let words = format!("{}, {}", waiver.state, accepted(waiver));
        let _ = writeln!(out, "{head}  {} {}: {}", line(id), line(object), line(&words));
        head = "";
    }
    out
}

pub fn markdown(coverage: &Coverage) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# Isolation of database {}\n\n**{}** {}.\n\npg_custody {}, {}",
        code(&coverage.database),
        plain(&verdict(coverage)),
        counts(coverage),
        plain(&coverage.version),
        plain(&coverage.at)
    );
    for f in coverage.open() {
        let _ =
            write!(out, "\n## {} {} {}\n\n{}\n\n", f.severity, plain(&f.id), code(&f.object), plain(&f.explanation));
        if let Some(note) = note(f) {
            let _ = write!(out, "{}\n\n", plain(&note));
        }
        out.push_str(&block("sql", &f.fix));
    }
    let mut head = "\n## Waived\n\n";
    for (f, waiver) in coverage.waived() {
        let words = format!("{}, {}", f.problem, accepted(waiver));
        let _ = writeln!(out, "{head}- {} {} {}: {}", f.severity, plain(&f.id), code(&f.object), plain(&words));
        head = "";
    }
    let mut head = "\n## Waivers that do nothing\n\n";
    for (id, object, waiver) in coverage.useless() {
        let words = format!("{}, {}", waiver.state, accepted(waiver));
        let _ = writeln!(out, "{head}- {} {}: {}", plain(id), code(object), plain(&words));
        head = "";
    }
    out
}
