//! `custody anchor`: takes the last checkpoint of a database out of its reach: into a file, and to witnesses.
//!
//! Only the last one counts, as it covers all before it. So what could not be delivered yesterday is delivered with today's.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use clap::Args;
use custody_core::Hash;
use custody_core::tlog::checkpoint::{Checkpoint, decimal};
use custody_core::tlog::note::{self, NoteKey};
use custody_core::tlog::witness::Request;
use postgres::Client;
use ureq::Agent;

use crate::{Failure, database, input};

#[derive(Args)]
pub struct Arguments {
    /// The database: a libpq connection string or URL; as a member of custody_auditor
    #[arg(long)]
    database: String,
    /// Make a checkpoint first; then the role must be a member of custody_admin
    #[arg(long)]
    make: bool,
    /// Append the checkpoint to this file, unless it is the last one there
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Ask this witness to cosign it: the prefix before /add-checkpoint. The cosigned note is what is printed and appended
    #[arg(long, value_name = "URL", requires = "witness_key")]
    witness: Vec<String>,
    /// A witness's key (name+hash+base64), one for each witness, in their order
    #[arg(long, value_name = "KEY", value_parser = input::note_key)]
    witness_key: Vec<NoteKey>,
    #[command(flatten)]
    safety: database::Safety,
}

/// Whether the checkpoint is everywhere it was to go.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    if arguments.witness.len() != arguments.witness_key.len() {
        return Err("each --witness needs its --witness-key".into());
    }
    let mut client = database::connect(&arguments.database, &arguments.safety)?;
    if arguments.make {
        client.batch_execute("CALL custody.checkpoint()")?;
    }
    let last = "SELECT c.note, ARRAY(SELECT custody.checkpoint_keys(c.incarnation)) FROM custody.checkpoints c
                JOIN custody.instance i ON i.incarnation = c.incarnation ORDER BY c.size DESC LIMIT 1";
    let Some(row) = client.query_opt(last, &[])? else {
        return Err("there is no checkpoint yet: CALL custody.checkpoint(), or --make".into());
    };
    let (mut note, keys): (String, Vec<String>) = (row.get(0), row.get(1));
    let keys = keys.iter().map(|key| NoteKey::parse(key)).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = Checkpoint::parse(&note::open(note.as_bytes(), &keys)?.text)?;
    let mut everywhere = true;
    for (url, key) in arguments.witness.iter().zip(&arguments.witness_key) {
        match cosigned(&mut client, url, key, &checkpoint, &note) {
            Ok(lines) => note += &lines,
            Err(e) => {
                eprintln!("custody: {url}: {e}");
                everywhere = false;
            }
        }
    }
    if let Some(path) = &arguments.file {
        append(path, &note).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    print!("{note}");
    Ok(everywhere)
}

/// Appends a note, with an empty line before it, and sees to it that it lasts.
fn append(path: &PathBuf, note: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut kept = String::new();
    file.read_to_string(&mut kept)?;
    if !kept.ends_with(&format!("\n{note}")) {
        file.write_all(format!("\n{note}").as_bytes())?;
    }
    file.sync_all()?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(std::path::Path::new(".")))?.sync_all()
}

/// What the witness answered: its lines for the note.
fn cosigned(
    client: &mut Client,
    url: &str,
    key: &NoteKey,
    checkpoint: &Checkpoint,
    note: &str,
) -> Result<String, Failure> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into();
    let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
    let mut old = 0;
    // It says where it is if it is asked from elsewhere; between two answers another client of ours may have been there.
    for _ in 0..4 {
        let proof = match old {
            0 => Vec::new(),
            _ if old == checkpoint.size => Vec::new(),
            _ => consistency(client, old, checkpoint)?,
        };
        let body = Request { old, proof, note: note.as_bytes() }.to_bytes();
        let mut response = agent.post(&url).content_type("text/plain; charset=utf-8").send(&body[..])?;
        let text = response.body_mut().with_config().limit(1 << 20).read_to_string()?;
        match response.status().as_u16() {
            200 => {
                let opened = note::open(format!("{note}{text}").as_bytes(), std::slice::from_ref(key))?;
                let whose = opened.signed.iter().any(|s| s.time.is_some());
                return if whose { Ok(text) } else { Err("its answer has no cosignature".into()) };
            }
            409 => {
                let size = decimal(text.trim_end()).ok_or("it did not say where it is")?;
                if size > checkpoint.size {
                    return Err(format!(
                        "it has seen a checkpoint of {size} leaves, and the database has {}: THE DATABASE WAS SET BACK",
                        checkpoint.size
                    )
                    .into());
                }
                if size == old {
                    return Err("it has seen another root of this size: THE LOG WAS REWRITTEN".into());
                }
                old = size;
            }
            422 => {
                return Err(format!(
                    "it does not accept the proof: THE LOG MAY HAVE BEEN REWRITTEN: {}",
                    text.trim_end()
                )
                .into());
            }
            status => return Err(format!("status {status}: {}", text.trim_end()).into()),
        }
    }
    Err("it does not stay where it says it is".into())
}

fn consistency(client: &mut Client, old: u64, checkpoint: &Checkpoint) -> Result<Vec<Hash>, Failure> {
    let (old, new) = (i64::try_from(old)?, i64::try_from(checkpoint.size)?);
    let proof: Option<Vec<String>> =
        client.query_one("SELECT custody.consistency_proof($1, $2)", &[&old, &new])?.get(0);
    let hashes = proof.ok_or("the database has no such proof")?;
    hashes
        .iter()
        .map(|h| Base64::decode_vec(h).ok()?.try_into().ok())
        .collect::<Option<_>>()
        .ok_or_else(|| "the proof is not of hashes".into())
}
