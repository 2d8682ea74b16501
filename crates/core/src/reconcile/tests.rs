use std::collections::HashSet;

use super::baseline::{Column, Covers, Form, Names, Shape, digest_of};
use super::history::{Described, History, Position, Snapshot};
use super::image::each_field;
use super::tally::{Detail, Entry, Finding, Reader, Secret, Sums, Verdict, sort};

fn names(table: &str) -> Names {
    Names { schema: "s".into(), table: table.into() }
}

fn at(lsn: u64) -> Position {
    Position { life: 1, lsn, ordinal: 1 }
}

fn shape(covers: Covers, columns: &[(&str, Option<&str>, Option<&str>)]) -> Shape {
    let column = |c: &(&str, Option<&str>, Option<&str>)| Column {
        name: c.0.into(),
        was: c.1.map(Into::into),
        fill: c.2.map(Into::into),
    };
    Shape {
        covers,
        baseline: (covers == Covers::Table).then_some(Form::Rows),
        snapshot: (covers == Covers::Table).then(|| "10:10:".into()),
        was: None,
        partition: None,
        columns: columns.iter().map(column).collect(),
        key: vec!["id".into()],
    }
}

fn described(lsn: u64, table: &str, shape: Shape) -> Described {
    Described { at: at(lsn), xid: lsn, names: names(table), shape }
}

type Change<'a> = (u64, &'a str, &'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn entry<'a>((lsn, table, op, row_key, old, new): Change<'a>) -> Entry<'a> {
    Entry { at: at(lsn), xid: lsn, op, tenant: "a", schema: "s", table, row_key, old, new }
}

fn find(history: &History, keyed: bool, log: &[Change<'_>], live: &[(Option<&str>, &str)]) -> Vec<Finding> {
    let secret = Secret::default();
    let reader = Reader { history, keyed, secret: &secret };
    let mut sums = Sums::default();
    let counted: Vec<_> =
        log.iter().map(|c| entry(*c)).filter(|e| history.counts(e.at, e.xid, e.schema, e.table)).collect();
    counted.iter().for_each(|e| reader.entry(e, &mut sums).unwrap());
    live.iter().for_each(|(key, image)| assert!(reader.live("a", *key, image, &mut sums)));
    let mut found = Vec::new();
    for buckets in sums.doubtful(1000) {
        let mut detail = Detail::new(&reader, buckets);
        counted.iter().for_each(|e| reader.entry(e, &mut detail).unwrap());
        live.iter().for_each(|(key, image)| assert!(reader.live("a", *key, image, &mut detail)));
        found.extend(detail.findings(&HashSet::new()));
    }
    sort(&mut found);
    found
}

fn verdicts(found: &[Finding]) -> Vec<(Verdict, &str)> {
    found.iter().map(|f| (f.verdict, f.row_key.as_deref().unwrap_or(""))).collect()
}

fn plain(columns: &[&str]) -> History {
    let columns: Vec<_> = columns.iter().map(|c| (*c, None, None)).collect();
    let live: Vec<String> = columns.iter().map(|c| c.0.into()).collect();
    History::new(&[described(100, "t", shape(Covers::Table, &columns))], &names("t"), &live)
}

const K1: Option<&str> = Some(r#"{"id":1}"#);
const K2: Option<&str> = Some(r#"{"id":2}"#);

#[test]
fn images_are_read_as_they_are_written() {
    let mut seen = Vec::new();
    assert!(each_field(r#"{"a\"b":"x\\","n":-1.5e3,"t":true,"z":null}"#, |n, v| seen.push((n, v))));
    assert_eq!(seen, [(r#""a\"b""#, r#""x\\""#), (r#""n""#, "-1.5e3"), (r#""t""#, "true"), (r#""z""#, "null")]);
    assert!(each_field("{}", |_, _| {}));
    for wrong in ["", "{", r#"{"a":}"#, r#"{"a":{}}"#, r#"{"a":1} "#, r#"{"a" :1}"#, r#"{"a":"x"#, r#"{"a":"\"#, "[]"] {
        assert!(!each_field(wrong, |_, _| {}), "{wrong}");
    }
}

#[test]
fn what_the_log_says_cancels_out() {
    let history = plain(&["id", "n", "doc"]);
    let log = [
        (101, "t", "INSERT", K1, None, Some(r#"{"id":1,"n":1,"doc":"big"}"#)),
        // The value out of line is in neither image.
        (102, "t", "UPDATE", K1, Some(r#"{"n":1}"#), Some(r#"{"id":1,"n":2}"#)),
        (103, "t", "INSERT", K2, None, Some(r#"{"id":2,"n":null,"doc":null}"#)),
        (104, "t", "DELETE", K2, Some(r#"{"id":2,"n":null,"doc":null}"#), None),
    ];
    assert_eq!(find(&history, true, &log, &[(K1, r#"{"id":1,"n":2,"doc":"big"}"#)]), []);
    let found =
        find(&history, true, &log, &[(K1, r#"{"id":1,"n":2,"doc":"other"}"#), (K2, r#"{"id":2,"n":1,"doc":null}"#)]);
    assert_eq!(verdicts(&found), [(Verdict::Changed, K1.unwrap()), (Verdict::Added, K2.unwrap())]);
    assert_eq!(found[0].detail, "columns: doc");
    assert_eq!(verdicts(&find(&history, true, &log, &[])), [(Verdict::Removed, K1.unwrap())]);
}

#[test]
fn a_change_that_a_later_entry_covers_up_is_seen() {
    let history = plain(&["id", "n", "m"]);
    let log = [
        (101, "t", "INSERT", K1, None, Some(r#"{"id":1,"n":1,"m":1}"#)),
        // n was changed to 5 unrecorded; this entry's image holds it as if it had been so.
        (102, "t", "UPDATE", K1, Some(r#"{"m":1}"#), Some(r#"{"id":1,"n":5,"m":2}"#)),
    ];
    let found = find(&history, true, &log, &[(K1, r#"{"id":1,"n":5,"m":2}"#)]);
    assert_eq!((found.len(), &*found[0].detail), (1, "columns: n"));
    // And when the row is gone.
    let gone = [log[0], log[1], (103, "t", "DELETE", K1, Some(r#"{"id":1,"n":5,"m":2}"#), None)];
    let found = find(&history, true, &gone, &[]);
    assert_eq!(verdicts(&found), [(Verdict::Changed, K1.unwrap())]);
}

#[test]
fn names_are_followed() {
    let all = [
        described(100, "t", shape(Covers::Table, &[("id", None, None), ("n", None, None)])),
        described(
            200,
            "u",
            Shape {
                was: Some(names("t")),
                ..shape(Covers::Columns, &[("key", Some("id"), None), ("m", Some("n"), None), ("x", None, Some("7"))])
            },
        ),
        // Another table takes the old name.
        described(300, "t", Shape { snapshot: Some("300:300:".into()), ..shape(Covers::Table, &[("id", None, None)]) }),
    ];
    let history = History::new(&all, &names("u"), &["key".into(), "m".into(), "x".into()]);
    assert_eq!((history.unknown.len(), history.missing.len()), (0, 0));
    let log = [
        (101, "t", "INSERT", K1, None, Some(r#"{"id":1,"n":1}"#)),
        (201, "u", "UPDATE", Some(r#"{"key":1}"#), Some(r#"{"m":1}"#), Some(r#"{"key":1,"m":2,"x":7}"#)),
        // In a session that has not heard of the new name yet.
        (250, "t", "INSERT", Some(r#"{"key":2}"#), None, Some(r#"{"key":2,"m":3,"x":8}"#)),
        // Of the other table.
        (301, "t", "INSERT", K1, None, Some(r#"{"id":1}"#)),
        // Before the baseline.
        (5, "t", "INSERT", K1, None, Some(r#"{"id":1,"n":9}"#)),
    ];
    let live = [(Some(r#"{"key":1}"#), r#"{"key":1,"m":2,"x":7}"#), (Some(r#"{"key":2}"#), r#"{"key":2,"m":3,"x":8}"#)];
    assert_eq!(find(&history, true, &log, &live), []);
    let other = History::new(&all, &names("t"), &["id".into()]);
    assert_eq!(find(&other, true, &log, &[(K1, r#"{"id":1}"#)]), []);
}

#[test]
fn a_column_made_anew_is_told_by_a_partial_baseline() {
    let all = [
        described(100, "t", shape(Covers::Table, &[("id", None, None), ("n", None, None)])),
        described(200, "t", shape(Covers::Columns, &[("id", Some("id"), None), ("n", None, None)])),
    ];
    let history = History::new(&all, &names("t"), &["id".into(), "n".into()]);
    let mut retold = entry((200, "t", "BASELINE", K1, None, Some(r#"{"n":"one"}"#)));
    retold.at.ordinal = 2;
    assert!(!history.holds_row(retold.at, retold.xid));
    let secret = Secret::default();
    let reader = Reader { history: &history, keyed: true, secret: &secret };
    let mut sums = Sums::default();
    reader.entry(&entry((101, "t", "INSERT", K1, None, Some(r#"{"id":1,"n":1}"#))), &mut sums).unwrap();
    reader.entry(&retold, &mut sums).unwrap();
    assert!(reader.live("a", K1, r#"{"id":1,"n":"one"}"#, &mut sums));
    assert!(sums.doubtful(1).is_empty());
}

#[test]
fn rows_without_keys_are_told_apart_by_what_they_hold() {
    let history = plain(&["n", "m"]);
    let log = [
        (101, "t", "INSERT", None, None, Some(r#"{"n":1,"m":1}"#)),
        (102, "t", "INSERT", None, None, Some(r#"{"n":1,"m":1}"#)),
        (103, "t", "UPDATE", None, Some(r#"{"m":1}"#), Some(r#"{"n":1,"m":2}"#)),
    ];
    assert_eq!(find(&history, false, &log, &[(None, r#"{"n":1,"m":2}"#), (None, r#"{"n":1,"m":1}"#)]), []);
    // The same values, in other rows.
    let swapped = find(&history, false, &log, &[(None, r#"{"n":1,"m":1}"#), (None, r#"{"n":1,"m":1}"#)]);
    assert_eq!(swapped.len(), 2);
    let short = [(104, "t", "UPDATE", None, Some(r#"{"m":1}"#), Some(r#"{"m":2}"#))].map(entry);
    let secret = Secret::default();
    let reader = Reader { history: &history, keyed: false, secret: &secret };
    assert_eq!(reader.entry(&short[0], &mut Sums::default()), Err(super::tally::Untold::OutOfLine));
}

#[test]
fn a_digest_holds_a_row_that_changed_since() {
    let mut form = shape(Covers::Table, &[("id", None, None), ("n", None, None), ("m", None, None)]);
    form.baseline = Some(Form::Digest);
    let live: Vec<String> = ["id", "n", "m"].map(Into::into).into();
    let history = History::new(&[described(100, "t", form)], &names("t"), &live);
    let digest = format!(r#"{{"digest":"{}"}}"#, digest_of(&[7; 16], r#"{"id":1,"n":1,"m":null}"#).unwrap());
    let baseline = (101, "t", "BASELINE", K1, None, Some(&*digest));
    assert_eq!(find(&history, true, &[baseline], &[(K1, r#"{"id":1,"n":1,"m":null}"#)]), []);
    assert_eq!(find(&history, true, &[baseline], &[(K1, r#"{"id":1,"n":2,"m":null}"#)])[0].verdict, Verdict::Changed);
    let update = (102, "t", "UPDATE", K1, Some(r#"{"m":null}"#), Some(r#"{"id":1,"n":1,"m":"x"}"#));
    assert_eq!(find(&history, true, &[baseline, update], &[(K1, r#"{"id":1,"n":1,"m":"x"}"#)]), []);
    assert_eq!(
        find(&history, true, &[baseline, update], &[(K1, r#"{"id":1,"n":2,"m":"x"}"#)])[0].verdict,
        Verdict::Changed
    );
    let delete = (103, "t", "DELETE", K1, Some(r#"{"id":1,"n":1,"m":"x"}"#), None);
    assert_eq!(find(&history, true, &[baseline, update, delete], &[]), []);
    let other = (103, "t", "DELETE", K1, Some(r#"{"id":1,"n":3,"m":"x"}"#), None);
    assert_eq!(find(&history, true, &[baseline, update, other], &[])[0].verdict, Verdict::Changed);
    assert_eq!(find(&history, true, &[baseline], &[])[0].verdict, Verdict::Removed);
}

#[test]
fn snapshots_are_read_as_postgresql_writes_them() {
    let snapshot = Snapshot::parse("10:20:12,15").unwrap();
    assert_eq!([9, 10, 12, 15, 19, 20].map(|x| snapshot.sees(x)), [true, true, false, false, true, false]);
    assert_eq!(Snapshot::parse("10:10:").map(|s| (s.sees(9), s.sees(10))), Some((true, false)));
    for wrong in ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3:4"] {
        assert!(Snapshot::parse(wrong).is_none());
    }
}

#[test]
fn the_digest_is_what_section_6_says() {
    let salt: [u8; 16] = std::array::from_fn(|i| i as u8);
    let made = digest_of(&salt, r#"{"n":1.50,"id":1,"none":null,"a\"b":"x\ty"}"#).unwrap();
    // Made by hand from docs/format.md (tests/checker/test_custody_check.py has the same).
    assert_eq!(
        made,
        "000102030405060708090a0b0c0d0e0f:1f946e92642ecec1961acfb6356238f34323a5a9bac8b7b432292c6179b3c62c"
    );
    assert_eq!(super::baseline::salt_of(&made), Some(salt));
}
