//! The tool `custody`, as a test runs it, and witnesses that it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

/// A new witness in a directory. Gives its key.
pub fn make_witness(dir: &str, name: &str) -> String {
    let (status, key) = custody(&["witness", "init", dir, "--name", name]);
    assert_eq!(status, 0, "{key}");
    key.trim().to_owned()
}

/// A witness that runs until this is dropped.
pub struct Witness {
    process: Child,
    pub address: String,
}

impl Witness {
    /// Serves the logs that it is told of, at a port of the system's choice.
    pub fn start(dir: &str, logs: &[&str]) -> Self {
        let mut command = Command::new(TOOL);
        command
            .args(["witness", "serve", dir, "--listen", "127.0.0.1:0"])
            .args(logs.iter().flat_map(|log| ["--log", log]));
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap_or_default().to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        // Nobody reads the rest, and a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { process, address }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request as raw bytes: the status, the head and the body of the answer.
    pub fn request(&self, head: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())
            .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
    }

    /// Asks it to sign a checkpoint.
    pub fn add(&self, body: &str) -> (u16, String, String) {
        self.request("POST /add-checkpoint", body.as_bytes())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
