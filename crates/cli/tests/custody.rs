//! The tool as its user has it: files, words and the exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn custody(arguments: &[&str]) -> (i32, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_custody")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn whole() -> String {
    vectors().join("whole.jsonl").display().to_string()
}

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("custody-cli-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn fingerprints() -> Vec<String> {
    let export = fs::read_to_string(whole()).unwrap();
    let keys = export.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).filter(|l| l["record"] == "key");
    keys.map(|k| k["fingerprint"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_whole_export_is_valid_and_says_how_far() {
    let (status, text) = custody(&["verify", &whole(), "--unpinned"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("valid: ") && text.contains("key not pinned; no heads or proof given"), "{text}");
    let heads = vectors().join("whole.heads.json").display().to_string();
    let pins = fingerprints();
    let pinned: Vec<&str> = pins.iter().flat_map(|p| ["--pin", p]).collect();
    let (status, text) = custody(&[&["verify", &whole(), "--heads", &heads], &pinned[..]].concat());
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("key pinned") && !text.contains("not seen"), "{text}");
    let (status, text) = custody(&["verify", &whole(), "--pin", &"0".repeat(64), "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &report["proved"]), (1, &false.into()), "nobody vouches for these keys");
    assert!(report["findings"].as_array().unwrap().iter().all(|f| f["verdict"] == "key_not_valid"));
}

#[test]
fn compressed_and_from_standard_input() {
    let bytes = fs::read(whole()).unwrap();
    let compressed = Temporary::new("whole.zst", zstd::encode_all(&bytes[..], 3).unwrap());
    assert_eq!(custody(&["verify", compressed.path(), "--unpinned"]).0, 0);
    let mut cut = zstd::encode_all(&bytes[..], 3).unwrap();
    cut.truncate(cut.len() / 2);
    let cut = Temporary::new("cut.zst", cut);
    assert_eq!(custody(&["verify", cut.path(), "--unpinned"]).0, 2, "half a file");
    let child = Command::new(env!("CARGO_BIN_EXE_custody"))
        .args(["verify", "-", "--unpinned"])
        .stdin(Stdio::from(fs::File::open(whole()).unwrap()))
        .output()
        .unwrap();
    assert!(child.status.success());
}

#[test]
fn every_tampered_vector_is_what_its_maker_says() {
    let dir = vectors().join("tampered");
    let expected: Value = serde_json::from_str(&fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let mut seen = 0;
    for case in expected["cases"].as_array().unwrap() {
        let file = dir.join(case["file"].as_str().unwrap()).display().to_string();
        for check in case["checks"].as_array().unwrap() {
            let mut arguments = vec!["verify".to_owned(), file.clone(), "--json".into()];
            match check["pin"].as_str() {
                Some(pin) => arguments.extend(pin.split(' ').flat_map(|p| ["--pin".into(), p.to_owned()])),
                None => arguments.push("--unpinned".into()),
            }
            if let Some(heads) = check["heads"].as_str() {
                arguments.extend(["--heads".into(), dir.join(heads).display().to_string()]);
            }
            let (status, text) = custody(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let report: Value = serde_json::from_str(&text).unwrap();
            let findings = check["findings"].as_array().unwrap().len() as u64;
            assert_eq!(report["findings_in_all"].as_u64(), Some(findings), "{file}: {text}");
            assert_eq!(status, i32::from(findings > 0), "{file}: {text}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn what_cannot_be_read_is_status_2() {
    let no_trust = custody(&["verify", &whole()]);
    assert_eq!(no_trust.0, 2, "trust must be said: {}", no_trust.1);
    assert_eq!(custody(&["verify", "/nowhere", "--unpinned"]).0, 2);
    assert_eq!(custody(&["verify", &whole(), "--pin", "abc"]).0, 2);
    let broken = Temporary::new("broken", "{\"record\": \"entry\"}\n");
    assert_eq!(custody(&["verify", broken.path(), "--unpinned"]).0, 2);
    let empty = Temporary::new("empty", "");
    let (status, text) = custody(&["verify", empty.path(), "--unpinned"]);
    assert_eq!(status, 1, "no entries is not a good verdict: {text}");
    for heads in ["[]x", "{}", "[{\"tenant\": 1}]"] {
        let heads = Temporary::new("heads", heads);
        assert_eq!(custody(&["verify", &whole(), "--unpinned", "--heads", heads.path()]).0, 2);
    }
}

#[test]
fn exports_that_go_on_and_those_that_do_not() {
    let export = fs::read_to_string(whole()).unwrap();
    let lines: Vec<&str> = export.lines().collect();
    let with = |name: &str, lines: Vec<&str>| Temporary::new(name, lines.join("\n"));
    let last = lines.len() - 1;
    let shorter = with("shorter", lines[..last].to_vec());
    assert_eq!(custody(&["diff-log", &whole(), &whole()]).0, 0);
    let (status, text) = custody(&["diff-log", shorter.path(), &whole()]);
    assert!(status == 0 && text.contains("1 new"), "{text}");
    let (status, text) = custody(&["diff-log", &whole(), shorter.path()]);
    assert!(status == 1 && text.contains("1 MISSING"), "{text}");
    // One in the middle of a chain: what comes after is the same, so it was put in between.
    let middle = lines.iter().position(|l| l.contains("\"seq\": 2,")).unwrap();
    let holed = with("holed", [&lines[..middle], &lines[middle + 1..]].concat());
    let (status, text) = custody(&["diff-log", holed.path(), &whole()]);
    assert!(status == 1 && text.contains("not all of them at its end"), "{text}");
    let edited = export.replacen("\"hash\": \"", "\"hash\": \"00", 1);
    let at = edited.find("\"hash\": \"00").unwrap() + 75 - 2;
    let edited = format!("{}{}", &edited[..at - 2], &edited[at..]);
    let edited = Temporary::new("edited", edited);
    let (status, text) = custody(&["diff-log", &whole(), edited.path(), "--json"]);
    let difference: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
    assert!(status == 1 && difference["first_changed"].is_i64(), "{text}");
}
