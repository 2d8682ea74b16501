//! The independent checker, run on what a database exports.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Session;

/// What the independent checker, written from docs/format.md alone, finds in the exported log.
pub fn checker(s: &mut Session, heads: Option<&str>) -> Vec<String> {
    let export: Vec<String> = s.rows("SELECT custody.export_log()", &[]).iter().map(|r| r.get(0)).collect();
    let python =
        std::env::var("CUSTODY_PYTHON").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/python").into());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/checker/custody_check.py")).arg("-");
    let file =
        std::env::temp_dir().join(format!("heads-{}-{:?}.json", std::process::id(), std::thread::current().id()));
    if let Some(heads) = heads {
        std::fs::write(&file, heads).unwrap();
        command.arg("--heads").arg(&file);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Written and closed before the output is read: the export is far smaller than what would fill the pipes both ways.
    let mut input = child.stdin.take().unwrap();
    let text = export.join("\n") + "\n";
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let _ = std::fs::remove_file(&file);
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let summary = lines.last().expect("a summary");
    assert_eq!(output.status.code(), Some(if summary["summary"] == "valid" { 0 } else { 1 }));
    let mut findings: Vec<String> = lines[..lines.len() - 1]
        .iter()
        .map(|f| format!("{} {}/{}", f["verdict"].as_str().unwrap(), f["tenant"].as_str().unwrap(), f["seq"]))
        .collect();
    findings.sort();
    findings
}
