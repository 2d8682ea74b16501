//! The reports that programs read.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::escape::{markdown, sarif as message, uri, xml};
use super::rules::{self, Rule};
use super::{Coverage, Finding, Severity, Waiver};

fn waiver(waiver: &Waiver) -> Value {
    json!({"state": waiver.state, "reason": waiver.reason, "by": waiver.by, "at": waiver.at, "until": waiver.until})
}

pub fn json(coverage: &Coverage) -> String {
    let findings = coverage.findings.iter().map(|f| {
        json!({
            "id": f.id, "severity": f.severity.name(), "schema": f.schema, "object": f.object, "problem": f.problem,
            "explanation": f.explanation, "fix": f.fix, "waiver": f.waiver.as_ref().map(waiver),
        })
    });
    let waivers = coverage.waivers.iter().map(|(id, object, w)| {
        let mut w = waiver(w);
        w["finding"] = json!(id);
        w["object"] = json!(object);
        w
    });
    let counts: serde_json::Map<_, _> =
        Severity::ALL.iter().map(|s| (s.name().into(), json!(coverage.count(*s)))).collect();
    pretty(&json!({
        "tool": "pg_custody", "version": coverage.version, "database": coverage.database, "at": coverage.at,
        "gate": {"min_severity": coverage.gate.name(), "passes": coverage.passes()},
        "open": counts, "waived": coverage.waived().count(),
        "findings": findings.collect::<Vec<_>>(), "waivers": waivers.collect::<Vec<_>>(),
    }))
}

fn pretty(value: &Value) -> String {
    // Alternate form: indented.
    format!("{value:#}\n")
}

/// The rules that were asked, and those of findings that are newer than the catalogue of rules.
fn catalogue(coverage: &Coverage) -> Vec<Rule<'_>> {
    let known: BTreeSet<_> = rules::RULES.iter().map(|r| r.id).collect();
    let mut all = rules::RULES.to_vec();
    let mut seen = BTreeSet::new();
    for f in &coverage.findings {
        if !known.contains(f.id.as_str()) && seen.insert(f.id.as_str()) {
            all.push(Rule {
                id: &f.id,
                severity: f.severity,
                title: "a way in which isolation is not enforced",
                help: "",
            });
        }
    }
    all.sort_by_key(|r| r.id);
    all
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

pub fn sarif(coverage: &Coverage) -> String {
    let catalogue = catalogue(coverage);
    let rules = catalogue.iter().map(|r| {
        // What GitHub sorts by: over 9 critical, from 7 high, from 4 medium.
        let score = match r.severity {
            Severity::Critical => "9.5",
            Severity::High => "8.0",
            Severity::Medium => "5.5",
            Severity::Low => "2.0",
        };
        let help =
            if r.help.is_empty() { "Each finding says what it lets happen, and the SQL that ends it." } else { r.help };
        json!({
            "id": r.id,
            "name": r.name(),
            "shortDescription": {"text": message(r.title)},
            "fullDescription": {"text": message(&format!("{}. {help}", r.title))},
            "help": {"text": message(help), "markdown": markdown(help)},
            "defaultConfiguration": {"level": level(r.severity)},
            "properties": {"security-severity": score, "tags": ["security", "tenant-isolation", "postgresql"]},
        })
    });
    let results = coverage.findings.iter().map(|f| {
        let fingerprint = fingerprint(f);
        let mut result = json!({
            "ruleId": f.id,
            "ruleIndex": catalogue.iter().position(|r| r.id == f.id),
            "level": level(f.severity),
            "message": {"text": message(&format!("{}: {} Fix: {}", f.object, f.explanation, f.fix))},
            "locations": [{
                // There is no file; but without one, consumers that show results in files drop them.
                "physicalLocation": {
                    "artifactLocation": {"uri": format!("database/{}", uri(&f.object))}, "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": f.object, "kind": "object"}],
            }],
            "partialFingerprints": {"custodyFinding/v1": fingerprint, "primaryLocationLineHash": fingerprint},
            "properties": {"severity": f.severity.name(), "schema": f.schema, "object": f.object, "problem": f.problem, "fix": f.fix},
        });
        if let Some(waiver) = f.waived() {
            let words = format!("{} ({}, until {})", waiver.reason, waiver.by, waiver.until);
            result["suppressions"] = json!([{"kind": "external", "status": "accepted", "justification": words}]);
        } else if let Some(waiver) = &f.waiver {
            result["properties"]["waiver"] = json!(waiver.state);
        }
        result
    });
    let useless = coverage.useless().map(|(id, object, w)| {
        json!({
            "level": "note",
            "descriptor": {"id": "waiver"},
            "message": {"text": message(&format!("the waiver of {id} of {object} does nothing: {}", w.state))},
        })
    });
    pretty(&json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "pg_custody", "version": coverage.version, "rules": rules.collect::<Vec<_>>(),
                "notifications": [{"id": "waiver", "name": "Waiver", "shortDescription": {"text": "a waiver that does nothing"}}],
            }},
            "automationDetails": {"id": format!("pg_custody/{}", uri(&coverage.database))},
            "invocations": [{
                "executionSuccessful": true, "endTimeUtc": coverage.at,
                "toolConfigurationNotifications": useless.collect::<Vec<_>>(),
            }],
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    }))
}

/// The same finding has the same fingerprint in every run and every copy of the database.
fn fingerprint(finding: &Finding) -> String {
    let digest = Sha256::digest(format!("{}\0{}\0{}", finding.id, finding.object, finding.problem));
    digest.iter().take(16).fold(String::new(), |mut hex, b| {
        let _ = write!(hex, "{b:02x}");
        hex
    })
}

pub fn junit(coverage: &Coverage) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    let mut case = |id: &str, name: &str, outcome: &str| {
        tests += 1;
        let _ = writeln!(
            cases,
            "    <testcase classname=\"pg_custody.{}\" name=\"{}\" time=\"0\">{outcome}</testcase>",
            xml(id),
            xml(name)
        );
    };
    for rule in catalogue(coverage) {
        let mut any = false;
        for f in coverage.findings.iter().filter(|f| f.id == rule.id) {
            any = true;
            let words = format!("{} {}: {}\nfix: {}", f.severity, f.object, f.explanation, f.fix);
            let outcome = if let Some(waiver) = f.waived() {
                skipped += 1;
                let why = format!("waived until {} by {}: {}", waiver.until, waiver.by, waiver.reason);
                format!("<skipped message=\"{}\"/>", xml(&why))
            } else if coverage.fails(f) {
                failures += 1;
                let short = format!("{} {}", f.object, f.problem);
                format!("<failure type=\"{}\" message=\"{}\">{}</failure>", f.severity, xml(&short), xml(&words))
            } else {
                format!("<system-out>{}</system-out>", xml(&words))
            };
            case(rule.id, &format!("{}: {}", f.object, f.problem), &outcome);
        }
        if !any {
            case(rule.id, &format!("{} nowhere: {}", rule.id, rule.title), "");
        }
    }
    let useless: String =
        coverage.useless().map(|(id, object, w)| format!("waiver of {id} of {object}: {}\n", w.state)).collect();
    let head = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"0\"");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"pg_custody {}\" {head}>\n  <testsuite name=\"isolation of {}\" {head} timestamp=\"{}\">\n{cases}    <system-out>{}</system-out>\n  </testsuite>\n</testsuites>\n",
        xml(&coverage.version),
        xml(&coverage.database),
        xml(coverage.at.trim_end_matches('Z')),
        xml(&useless)
    )
}
