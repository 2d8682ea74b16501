//! What is an export and what is not (format sections 7 and 8).

use std::fs;
use std::path::Path;

use custody_core::export::{self, Problem, Reader, Unreadable, read_heads};
use serde_json::{Map, Value, json};

fn whole() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/whole.jsonl")).unwrap()
}

fn read(export: &[u8]) -> Result<u64, Unreadable> {
    export::verify(Reader::with_limit(export, 1 << 20), None, Vec::new()).map(|report| report.counts.entries)
}

/// Why it cannot be read.
fn refused(export: impl AsRef<[u8]>) -> String {
    read(export.as_ref()).unwrap_err().to_string()
}

/// The whole export with one record changed: the first key is line 1, the first entry line 3.
fn changed(line: usize, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut lines: Vec<_> = whole().lines().map(str::to_owned).collect();
    let Ok(Value::Object(mut record)) = serde_json::from_str(&lines[line - 1]) else { panic!() };
    change(&mut record);
    lines[line - 1] = Value::Object(record).to_string();
    lines.join("\n")
}

#[test]
fn spacing_and_the_order_of_members_do_not_matter() {
    let entries = read(whole().as_bytes()).unwrap();
    assert_eq!(read(changed(3, |_| {}).as_bytes()).unwrap(), entries, "sorted by name, without blanks");
    assert_eq!(
        read(whole().replace("\": ", "\" : ").as_bytes()).unwrap(),
        entries,
        "as PostgreSQL's json_build_object"
    );
    assert_eq!(read(whole().replace('\n', "\r\n").as_bytes()).unwrap(), entries);
    assert_eq!(read(whole().replace("{\"record", "\t{ \"record").as_bytes()).unwrap(), entries);
    assert_eq!(read(whole().trim_end().as_bytes()).unwrap(), entries);
    assert_eq!(read(whole().replace("\"tenant\"", "\"ten\\u0061nt\"").as_bytes()).unwrap(), entries);
    assert_eq!(read(b"").unwrap(), 0);
}

#[test]
fn what_is_no_line() {
    for line in [
        "",
        "{",
        "[]",
        "1",
        "null",
        "\"key\"",
        "{}",
        "\u{feff}{}",
        r#"{"record": NaN}"#,
        r#"{"record": ["entry"]}"#,
        "{} {}",
    ] {
        assert!(refused(format!("{line}\n")).starts_with("line 1: "), "{line}");
    }
    assert_eq!(refused("{}"), "line 1: neither a key nor an entry");
    assert_eq!(refused(r#"{"record": "head"}"#), "line 1: neither a key nor an entry");
    assert_eq!(refused("[]"), "line 1: invalid type: sequence, expected an object");
    assert!(refused(b"{\"record\": \"\xff\"}").starts_with("line 1: "));
    assert!(refused("[".repeat(100_000)).starts_with("line 1: "));
    let cut = whole().len() - 20;
    assert!(refused(&whole()[..cut]).contains("EOF"));
    assert!(refused(whole().replacen('\n', " ", 1)).starts_with("line 1: "));
    assert!(refused(whole() + "\n").starts_with("line 28: "));
    let twice = whole().replacen("\"lane\": 0", "\"lane\": 0, \"lane\": 0", 1);
    assert!(refused(twice).starts_with("line 3: lane is given twice"));
    let long = format!("{{\"{}\": 1}}", "x".repeat(100_000));
    assert!(refused(long).len() < 300, "what is quoted is cut");
}

#[test]
fn values_that_are_refused() {
    let too_big = json!(9_223_372_036_854_775_808_u64);
    let uuids = [
        "",
        "0192A3B4-C5D6-7E8F-9A0B-1C2D3E4F5061",
        "0192a3b4c5d67e8f9a0b1c2d3e4f5061",
        "{0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f5061}",
    ];
    let mut cases: Vec<(&str, Value)> = vec![
        ("lane", json!({})),
        ("format", json!("1")),
        ("lsn", too_big.clone()),
        ("incarnation", Value::Null),
        ("incarnation", json!(7)),
        ("tenant", Value::Null),
        ("tenant", json!(5)),
        ("op", Value::Null),
        ("new", json!({"id": 1})),
        ("new", json!(3)),
        ("old", json!(false)),
        ("signs_run", Value::Null),
        ("signs_run", json!(1)),
        ("row_digest", Value::Null),
        ("signature", json!(5)),
        ("signature", json!("\n")),
        ("move_id", json!("x")),
        ("key_id", json!(5)),
    ];
    cases.extend(
        [Value::Null, json!("1"), json!(1.0), json!(-0.0), json!(true), too_big, json!([1])].map(|v| ("seq", v)),
    );
    cases.extend(uuids.map(|v| ("incarnation", json!(v))));
    cases.extend(["AB", "abc", "a b", "zz", "+1", "é"].map(|v| ("hash", json!(v))));
    for (name, value) in cases {
        let why = refused(changed(3, |entry| drop(entry.insert(name.into(), value.clone()))));
        assert!(why.starts_with(&format!("line 3: {name} is not ")), "{name} {value}: {why}");
    }
    for (name, value) in [
        ("public_key", json!("0")),
        ("incarnation", Value::Null),
        ("fingerprint", Value::Null),
        ("endorsement", json!(5)),
    ] {
        let why = refused(changed(1, |key| drop(key.insert(name.into(), value.clone()))));
        assert!(why.starts_with(&format!("line 1: {name} is not ")), "{name} {value}: {why}");
    }
    assert_eq!(refused(changed(1, |key| key["key_id"] = Value::Null)), "line 1: key_id is null");
    let why = refused(whole().replacen("\"lane\": 0", "\"lane\": -0", 1));
    assert!(why.starts_with("line 3: lane is not "), "{why}");
    let half = whole().replacen("\"tenant\": \"\"", "\"tenant\": \"\\ud800\"", 1);
    assert!(refused(half).starts_with("line 3: "), "half a surrogate pair is no text");
}

#[test]
fn members_that_are_missing_or_do_not_belong() {
    for line in [1, 3] {
        let record: Value = serde_json::from_str(whole().lines().nth(line - 1).unwrap()).unwrap();
        for name in record.as_object().unwrap().keys().filter(|name| *name != "record") {
            let why = refused(changed(line, |record| drop(record.remove(name))));
            assert_eq!(why, format!("line {line}: {name} is missing"));
        }
        let why = refused(changed(line, |record| drop(record.insert("unknown".into(), json!(1)))));
        assert!(why.starts_with(&format!("line {line}: \"unknown\" is unknown")), "{why}");
    }
    let foreign = |line, name: &str| refused(changed(line, |record| drop(record.insert(name.into(), Value::Null))));
    assert_eq!(foreign(1, "actor"), "line 1: actor does not belong here");
    assert_eq!(foreign(3, "endorsement"), "line 3: endorsement does not belong here");
    assert_eq!(refused(changed(3, |record| drop(record.remove("record")))), "line 3: neither a key nor an entry");
}

#[test]
fn keys_come_first_and_entries_sorted() {
    let lines: Vec<_> = whole().lines().map(|line| format!("{line}\n")).collect();
    let late = [&lines[..3], &lines[1..2]].concat().concat();
    assert!(matches!(read(late.as_bytes()), Err(Unreadable { line: 4, problem: Problem::LateKey })));
    let unsorted = [&lines[..3], &lines[4..5], &lines[3..4]].concat().concat();
    assert!(matches!(read(unsorted.as_bytes()), Err(Unreadable { line: 5, problem: Problem::NotSorted })));
}

#[test]
fn a_line_has_a_limit() {
    let longest = whole().lines().map(|line| line.len() + 1).max().unwrap();
    assert!(export::verify(Reader::with_limit(whole().as_bytes(), longest), None, Vec::new()).is_ok());
    let cut = export::verify(Reader::with_limit(whole().as_bytes(), longest - 1), None, Vec::new());
    assert!(matches!(cut, Err(Unreadable { problem: Problem::TooLong(limit), .. }) if limit == longest - 1));
}

#[test]
fn a_version_beyond_sixteen_bits_is_not_version_one() {
    let report = |format: i64| {
        let export = changed(3, |entry| entry["format"] = format.into());
        export::verify(Reader::new(export.as_bytes()), None, Vec::new()).unwrap().findings.len()
    };
    assert_eq!(report(1), 0);
    for format in [0, 2, 65_537, i64::MAX, i64::MIN] {
        assert_eq!(report(format), 1, "{format}");
    }
}

#[test]
fn heads() {
    let head = json!({"incarnation": "0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f5061", "tenant": "a", "lane": 0, "seq": 4, "hash": "00ff"});
    let with = |name: &str, value: Value| {
        let mut other = head.clone();
        other[name] = value;
        read_heads(json!([head, other]).to_string().as_bytes())
    };
    let heads = with("seq", json!(i64::MAX)).unwrap();
    assert_eq!((heads.len(), heads[1].seq, &*heads[1].hash), (2, i64::MAX, &[0, 255][..]));
    assert!(read_heads(b" [ ] ").unwrap().is_empty());
    for (name, value) in [
        ("seq", json!(0)),
        ("seq", json!(1.5)),
        ("hash", Value::Null),
        ("hash", json!("0")),
        ("hash", json!("FF")),
        ("lane", json!("0")),
        ("incarnation", json!("x")),
        ("record", json!("head")),
        ("more", json!(1)),
    ] {
        assert!(with(name, value.clone()).is_err(), "{name} {value}");
    }
    for text in ["", "{}", "[1]", "[{}]", "null", "[] []", &head.to_string()] {
        assert!(read_heads(text.as_bytes()).is_err(), "{text}");
    }
}
