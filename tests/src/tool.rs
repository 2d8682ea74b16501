//! The tool `custody`, as a test runs it.

use std::path::PathBuf;
use std::process::Command;

use crate::Db;

/// Where `make test-db` built it.
pub const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/custody");

/// Its exit status, and all that it said.
pub fn custody(arguments: &[&str]) -> (i32, String) {
    let output =
        Command::new(TOOL).args(arguments).output().expect("cargo build --release --package custody-cli makes it");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// How it reaches a database of the tests, as this role.
pub fn url(db: &Db, user: &str) -> String {
    format!("host={} user={user} dbname={}", db.cluster.socket().display(), db.name)
}

/// A directory that goes with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("custody-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A new file in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), content).expect("a file");
        self.at(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
