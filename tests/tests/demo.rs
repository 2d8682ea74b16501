//! The demo checks each of its claims and fails if one does not hold; here it runs as a user would run it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn run(data: Option<&Path>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stage = std::env::var_os("CUSTODY_STAGE").map_or_else(|| root.join("target/stage"), PathBuf::from);
    let mut demo = Command::new(root.join("target/release/custody-demo"));
    demo.arg("run").arg("--stage").arg(stage).arg("--brief-exit");
    if let Some(data) = data {
        demo.arg("--data").arg(data);
    }
    let output = demo.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_story_holds() {
    run(None);
    // Synthea's sample, where the checkout has it.
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/synthea");
    match sample.exists() {
        true => run(Some(&sample)),
        false => println!("skipped: {} is not there", sample.display()),
    }
}
