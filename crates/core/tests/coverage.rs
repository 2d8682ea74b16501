//! Reports of findings: nothing foreign gets out of its place, in any format.

use std::path::Path;

use custody_core::coverage::{Coverage, Finding, Format, Severity, Waiver, rules};
use proptest::prelude::*;

fn finding(id: &str, severity: Severity, foreign: &str, waiver: Option<&str>) -> Finding {
    Finding {
        id: id.into(),
        severity,
        schema: Some(foreign.into()),
        object: foreign.into(),
        problem: foreign.into(),
        explanation: format!("{foreign}. {foreign}"),
        fix: foreign.into(),
        waiver: waiver.map(|state| said(state, foreign)),
    }
}

fn said(state: &str, foreign: &str) -> Waiver {
    Waiver {
        state: state.into(),
        reason: foreign.into(),
        by: foreign.into(),
        at: "2026-01-01T00:00:00Z".into(),
        until: "2026-02-01T00:00:00Z".into(),
    }
}

fn coverage(foreign: &str) -> Coverage {
    Coverage {
        version: "0".into(),
        database: foreign.into(),
        at: "2026-01-01T00:00:00Z".into(),
        gate: Severity::Medium,
        findings: vec![
            finding("CU001", Severity::Critical, foreign, None),
            finding("CU001", Severity::Critical, foreign, Some("waived")),
            finding("CU002", Severity::High, foreign, Some("expired")),
            finding("CU010", Severity::Low, foreign, None),
            finding("CU999", Severity::Medium, foreign, None),
        ],
        waivers: vec![("CU005".into(), foreign.into(), said("stale", foreign))],
    }
}

#[test]
fn every_id_has_a_rule() {
    let known: Vec<_> = rules::RULES.iter().map(|r| r.id).collect();
    assert!(known.is_sorted() && known.windows(2).all(|w| w[0] != w[1]), "in order, and once each");
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/install");
    let mut seen = 0;
    for file in std::fs::read_dir(install).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for (at, _) in text.match_indices("'CU") {
            let id = &text[at + 1..at + 6];
            if id[2..].chars().all(|c| c.is_ascii_digit()) {
                seen += 1;
                assert!(known.contains(&id), "crates/core/src/coverage/rules.rs does not say what {id} is");
            }
        }
    }
    assert!(seen > 30);
    for rule in rules::RULES {
        assert!(!rule.help.is_empty() && rule.name().chars().all(|c| c.is_ascii_alphanumeric()), "{rule:?}");
    }
}

#[test]
fn what_is_waived_does_not_fail_and_the_rest_does() {
    let mut all = coverage("x");
    assert!(!all.passes());
    all.findings.retain(|f| f.waiver.as_ref().is_some_and(|w| w.state == "waived") || f.severity == Severity::Low);
    assert!(all.passes(), "one is waived, one is low");
    all.gate = Severity::Low;
    assert!(!all.passes());
    all.gate = Severity::Medium;
    for state in ["expired", "changed", "replaced", "stale", ""] {
        all.findings = vec![finding("CU001", Severity::Medium, "x", Some(state))];
        assert!(!all.passes(), "{state}");
    }
}

/// Text with what breaks formats in it more often than chance has it.
fn foreign() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "\n",
            "\r",
            "\t",
            "\"",
            "'",
            "\\",
            "`",
            "```",
            "````",
            "|",
            "]]>",
            "<",
            ">",
            "&",
            "&amp;",
            "{",
            "}",
            "](",
            "[x](http://y)",
            "<!--",
            "-->",
            "\u{1b}",
            "\u{0}",
            "\u{202e}",
            "\u{200b}",
            "\u{2028}",
            "\u{fffe}",
            "\u{ffff}",
            "www.",
            "@x",
            "# ",
            "- ",
            "~~",
            "$x$",
            "http://x",
            "..",
            "/",
            "%00",
            "\u{85}",
            "\u{feff}",
            "a",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|p| p.concat().replace('\0', ""))
}

proptest! {
    #[test]
    fn nothing_foreign_gets_out(foreign in foreign()) {
        let all = coverage(&foreign);
        let hides = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
        // Text: as many lines as with a harmless name.
        let text = all.write(Format::Text);
        prop_assert!(!text.contains(hides), "{text:?}");
        prop_assert_eq!(text.lines().count(), coverage("x").write(Format::Text).lines().count());
        // XML: the same tags, whatever the name; and no character that XML 1.0 does not have.
        let xml = all.write(Format::Junit);
        let tags = |xml: &str| xml.split('<').skip(1).map(|t| t.split([' ', '>']).next().unwrap_or_default().to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(tags(&xml), tags(&coverage("x").write(Format::Junit)));
        let no_xml = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{fffe}' | '\u{ffff}');
        prop_assert!(!xml.contains(no_xml));
        prop_assert!(!xml.contains("]]>"));
        // An ampersand begins an entity of ours, always.
        for part in xml.split('&').skip(1) {
            let entity = part.split(';').next().unwrap_or_default();
            prop_assert!(["amp", "lt", "gt", "quot", "#9", "#10", "#13"].contains(&entity), "{}", entity);
        }
        // JSON and SARIF: what goes in comes out.
        let json: serde_json::Value = serde_json::from_str(&all.write(Format::Json)).unwrap();
        prop_assert_eq!(json["findings"][0]["object"].as_str(), Some(foreign.as_str()));
        prop_assert_eq!(json["findings"].as_array().unwrap().len(), 5);
        let sarif: serde_json::Value = serde_json::from_str(&all.write(Format::Sarif)).unwrap();
        let results = sarif["runs"][0]["results"].as_array().unwrap();
        prop_assert_eq!(results.len(), 5);
        prop_assert_eq!(results[0]["properties"]["fix"].as_str(), Some(foreign.as_str()));
        let suppressed = results.iter().filter(|r| r.get("suppressions").is_some()).count();
        prop_assert_eq!(suppressed, 1);
        let uri = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
        prop_assert!(uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b)) && !uri.contains("/."), "{}", uri);
        // Markdown: fences open and close in pairs, as many as there are open findings.
        let markdown = all.write(Format::Markdown);
        prop_assert!(!markdown.contains(hides));
        let (mut fence, mut blocks): (Option<String>, usize) = (None, 0);
        for line in markdown.lines() {
            let ticks: String = line.chars().take_while(|c| *c == '`').collect();
            match &fence {
                None if ticks.len() >= 3 && line == format!("{ticks}sql") => (fence, blocks) = (Some(ticks), blocks + 1),
                Some(open) if line == open => fence = None,
                _ => {}
            }
        }
        prop_assert_eq!((fence, blocks), (None, 4));
    }
}
