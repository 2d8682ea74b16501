//! `custody witness`: sees other people's logs go on, and says so (c2sp.org/tlog-witness, c2sp.org/tlog-cosignature).
//!
//! What it cosigned is on disk before it answers, in a file for each log that is replaced as one; two requests never cross.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};
use clap::{Args, Subcommand};
use custody_core::key::{PrivateKey, hex};
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::note::{self, Kind, NoteKey};
use custody_core::tlog::witness::{MAX_REQUEST, Refusal, Request};
use sha2::{Digest, Sha256};
use tiny_http::{Header, Method, Response, Server};
use zeroize::Zeroizing;

use crate::{Failure, input};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a witness: its key, in a new directory. Prints the key's public half
    Init {
        /// The directory, which must not exist yet
        dir: PathBuf,
        /// What it is called: a URL without its scheme, such as witness.example.com/w1
        #[arg(long)]
        name: String,
    },
    /// Answer requests
    Serve {
        /// The directory that init made
        dir: PathBuf,
        /// Where to listen; keep it to yourself, or behind something that speaks TLS
        #[arg(long, default_value = "127.0.0.1:7380", value_name = "ADDRESS:PORT")]
        listen: String,
        /// A log to watch: what custody.checkpoint_key() gave
        #[arg(long, required = true, value_name = "KEY", value_parser = input::note_key)]
        log: Vec<NoteKey>,
    },
}

pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    match &arguments.command {
        Command::Init { dir, name } => init(dir, name)?,
        Command::Serve { dir, listen, log } => serve(dir, listen, log)?,
    }
    Ok(true)
}

/// The text before a private key: that of other tools for notes, with a key of the cosigning type.
const PRIVATE: &str = "PRIVATE+KEY+";
const COSIGNATURE: u8 = 4;

fn init(dir: &Path, name: &str) -> Result<(), Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut seed[..])?;
    let public = PrivateKey::from_seed(&seed).public_key();
    let key = NoteKey::new(name, Kind::Cosignature, &public)?;
    let mut data = Zeroizing::new(vec![COSIGNATURE]);
    data.extend_from_slice(&seed[..]);
    let secret = Zeroizing::new(format!("{PRIVATE}{name}+{}+{}\n", hex(&key.id()), Base64::encode_string(&data)));
    let because = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(because)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join("key")).map_err(because)?;
    file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).map_err(because)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(because)?;
    println!("{key}");
    Ok(())
}

/// A witness at work.
struct Witness {
    dir: PathBuf,
    name: String,
    key: PrivateKey,
    logs: BTreeMap<String, Vec<NoteKey>>,
    /// Held as long as it works: a second one on the same directory could answer differently.
    _lock: File,
}

impl Witness {
    fn open(dir: &Path, logs: &[NoteKey]) -> Result<Self, Failure> {
        let because = |e: &dyn std::fmt::Display| format!("{}: {e}", dir.display());
        let mut file = File::open(dir.join("key")).map_err(|e| because(&e))?;
        if file.metadata().map_err(|e| because(&e))?.mode() & 0o077 != 0 {
            return Err(because(&"the key may be read by others: chmod 600").into());
        }
        let mut text = Zeroizing::new(String::with_capacity(1024));
        file.read_to_string(&mut text).map_err(|e| because(&e))?;
        let (name, key) = private_key(text.trim_end()).ok_or_else(|| because(&"its key is not one of a witness"))?;
        let lock = File::create(dir.join("lock")).map_err(|e| because(&e))?;
        lock.try_lock().map_err(|_| because(&"another witness works on it"))?;
        let mut by_origin: BTreeMap<String, Vec<NoteKey>> = BTreeMap::new();
        for log in logs {
            by_origin.entry(log.name().to_owned()).or_default().push(log.clone());
        }
        Ok(Self { dir: dir.to_owned(), name, key, logs: by_origin, _lock: lock })
    }

    /// Where the last checkpoint of a log is kept.
    fn file(&self, origin: &str) -> PathBuf {
        self.dir.join(format!("{}.note", hex(&Sha256::digest(origin))))
    }

    /// The last checkpoint that was cosigned. One that cannot be read is no reason to begin anew: nothing is cosigned then.
    fn last(&self, origin: &str) -> Result<Option<Checkpoint>, Failure> {
        let path = self.file(origin);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| format!("{}: {e}", path.display()))?,
        };
        let (text, _) = note::split(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let checkpoint = Checkpoint::parse(text).map_err(|e| format!("{}: {e}", path.display()))?;
        match checkpoint.origin == origin {
            true => Ok(Some(checkpoint)),
            false => Err(format!("{}: it is another log's", path.display()).into()),
        }
    }

    /// Replaces it, so that after a crash either the old one is there or the new one.
    fn keep(&self, origin: &str, note: &[u8]) -> std::io::Result<()> {
        let (path, new) = (self.file(origin), self.dir.join("new"));
        let mut file = File::create(&new)?;
        file.write_all(note)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// The lines to answer with, once what they say is on disk.
    fn add_checkpoint(&self, body: &[u8]) -> Result<Result<String, Refusal>, Failure> {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let origin = match request.origin() {
            Ok(origin) => origin,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(known) = self.logs.get(&origin) else { return Ok(Err(Refusal::Unknown)) };
        let last = self.last(&origin)?;
        let text = match request.decide(known, last.as_ref()) {
            Ok((_, text)) => text,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let line = note::cosign(&text, now, &self.name, &self.key)?;
        self.keep(&origin, &[request.note, line.as_bytes()].concat())?;
        Ok(Ok(line))
    }
}

/// Reads what `init` wrote.
fn private_key(text: &str) -> Option<(String, PrivateKey)> {
    let mut parts = text.strip_prefix(PRIVATE)?.splitn(3, '+');
    let (name, id, data) = (parts.next()?, parts.next()?, parts.next()?);
    let data = Zeroizing::new(Base64::decode_vec(data).ok()?);
    let (kind, seed) = data.split_first()?;
    let mut bytes = Zeroizing::new([0; 32]);
    (*kind == COSIGNATURE && seed.len() == bytes.len()).then_some(())?;
    bytes.copy_from_slice(seed);
    let key = PrivateKey::from_seed(&bytes);
    let public = NoteKey::new(name, Kind::Cosignature, &key.public_key()).ok()?;
    (hex(&public.id()) == id).then(|| (name.to_owned(), key))
}

fn serve(dir: &Path, listen: &str, logs: &[NoteKey]) -> Result<(), Failure> {
    let witness = Witness::open(dir, logs)?;
    let server = Server::http(listen).map_err(|e| format!("{listen}: {e}"))?;
    eprintln!(
        "custody witness {}: {} logs, listening on http://{}",
        witness.name,
        witness.logs.len(),
        server.server_addr()
    );
    // One request after the other: what is decided and what is kept are one step.
    for mut request in server.incoming_requests() {
        if request.url() != "/add-checkpoint" {
            let _ = request.respond(Response::from_string("POST /add-checkpoint\n").with_status_code(404));
            continue;
        }
        if *request.method() != Method::Post {
            let _ = request.respond(Response::from_string("POST\n").with_status_code(405));
            continue;
        }
        let mut body = Vec::new();
        let limit = MAX_REQUEST as u64 + 1;
        if request.as_reader().take(limit).read_to_end(&mut body).is_err() {
            continue;
        }
        let response = match witness.add_checkpoint(&body) {
            Ok(Ok(line)) => Response::from_string(line),
            Ok(Err(Refusal::Conflict(size))) => {
                let response = Response::from_string(format!("{size}\n")).with_status_code(409);
                match Header::from_bytes("Content-Type", "text/x.tlog.size") {
                    Ok(header) => response.with_header(header),
                    Err(()) => response,
                }
            }
            Ok(Err(refusal)) => Response::from_string(format!("{refusal}\n")).with_status_code(refusal.status()),
            Err(e) => {
                eprintln!("custody witness: {e}");
                Response::from_string("the witness cannot work\n").with_status_code(500)
            }
        };
        eprintln!(
            "{} add-checkpoint: {}",
            request.remote_addr().map_or_else(String::new, ToString::to_string),
            response.status_code().0
        );
        let _ = request.respond(response);
    }
    Ok(())
}
