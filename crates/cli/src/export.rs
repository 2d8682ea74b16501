//! `custody export`: writes an archive (format section 10), part by part, so that it can go on where it was interrupted.
//!
//! Everything is written under another name, on disk before it has its own, and named in `unfinished.json` before the next part
//! begins; the manifest comes last. What a later run adds is what the first one's snapshot saw, so all parts are of one state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::export::manifest::{self, ChainSpan, Id, LogProof, Manifest, Part, Place, part_name};
use custody_core::export::{Reader, Record};
use custody_core::tlog::tenant::TenantProof;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::live::{Live, Offer, literal};
use crate::{Failure, database, input};

#[derive(Args)]
pub struct Arguments {
    /// The database: a libpq connection string or URL; as a member of custody_auditor
    #[arg(long, value_name = "URL")]
    database: String,
    /// This tenant's chains alone
    #[arg(long)]
    tenant: Option<String>,
    /// Where to: a directory that is made, or one in which an export was interrupted, which goes on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Put in what proves the log against this checkpoint that was kept elsewhere (a signed note), besides the last one
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// How much goes into a part, in MiB before compression
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    part_size: u64,
    /// How hard to compress, from 1 to 19
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    #[command(flatten)]
    safety: database::Safety,
    /// No bar
    #[arg(long, short)]
    quiet: bool,
}

/// What is done of an export that is not complete.
const UNFINISHED: &str = "unfinished.json";
const STATE: &str = "pg_custody/unfinished/v1";
/// Chains of complete parts, until the file has its name.
const CHAINS: &str = "chains.jsonl.zst.tmp";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: String,
    /// What the first run's snapshot saw: later runs see that, and no more.
    snapshot: String,
    incarnation: Option<Id>,
    tenant: Option<String>,
    made_at: i64,
    keys: manifest::File,
    parts: Vec<Part>,
    chains: Chains,
    proofs: Vec<TenantProof>,
    checkpoints: Vec<LogProof>,
    /// Checkpoints that the database could not be proved against, and why.
    failed: Vec<String>,
}

/// The file of chains as it is so far, and the chain that may go on.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chains {
    bytes: u64,
    size: u64,
    records: u64,
    open: Option<ChainSpan>,
}

/// Whether the archive is there, and all that was to be proved with it can be.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let dir = &Directory::open(&arguments.out)?;
    if dir.path(manifest::FILE).exists() {
        // It may have been interrupted between its last two steps.
        dir.remove(UNFINISHED)?;
        return Err(format!("{}: here is a complete export already", arguments.out.display()).into());
    }
    let client = database::connect(&arguments.database, &arguments.safety)?;
    let mut live = Live::begin(client, arguments.tenant.clone())?;
    // Asked for first of all, as this is what takes the snapshot, and brings it to the server's disk.
    let keys = live.key_lines()?;
    let (mut state, condition) = match dir.state()? {
        Some(state) => {
            let condition = goes_on(arguments, &state, &mut live)?;
            (state, condition)
        }
        None => (begin(arguments, dir, &mut live, &keys)?, "true".into()),
    };
    let bar = input::bar(arguments.quiet, None);
    let lines = live.some_entries(&condition, &bar)?;
    parts(arguments, dir, &mut state, lines)?;
    bar.finish_and_clear();
    let manifest = finish(dir, state)?;
    let (digest, manifest, failed) = manifest;
    println!(
        "{}: {} entries of {} chains in {} parts\narchive {digest}",
        arguments.out.display(),
        manifest.entries,
        manifest.chains.records,
        manifest.parts.len()
    );
    for problem in &failed {
        println!("NOT PROVED: {problem}");
    }
    Ok(failed.is_empty())
}

/// What an interrupted export still lacks, as a condition on entries.
fn goes_on(arguments: &Arguments, state: &State, live: &mut Live) -> Result<String, Failure> {
    let other = |what| Err(format!("{}: the export that was interrupted here {what}", arguments.out.display()).into());
    if state.tenant != arguments.tenant {
        return other("is of another tenant");
    }
    if state.incarnation.map(|id| id.0) != live.incarnation()? {
        return other("is of another database, or of an earlier life of this one: begin anew, elsewhere");
    }
    let seen = format!("pg_visible_in_snapshot(e.xid, {}::pg_snapshot)", literal(&state.snapshot));
    // Entries of earlier incarnations have other clusters' transaction ids, and nobody adds to them.
    let seen = match &state.incarnation {
        Some(id) => format!("(e.incarnation <> '{}' OR {seen})", id.0),
        None => "true".into(),
    };
    // What was erased since is gone from the parts that are still to come, and the entry that accounts for it is not in them.
    let erased = format!("SELECT EXISTS (SELECT FROM custody.entry e WHERE e.op = 'ERASE' AND NOT {seen})");
    if live.client.query_one(&erased, &[])?.get(0) {
        return other("cannot go on: something was erased since. Begin anew, elsewhere");
    }
    Ok(match state.parts.last() {
        None => seen,
        Some(Part { last: Place(tenant, incarnation, lane, seq), .. }) => format!(
            "{seen} AND (e.tenant, e.incarnation, e.lane, e.seq) > ({} COLLATE \"C\", '{incarnation}', {lane}, {seq})",
            literal(tenant)
        ),
    })
}

fn begin(arguments: &Arguments, dir: &Directory, live: &mut Live, keys: &[u8]) -> Result<State, Failure> {
    let row = live.client.query_one(
        "SELECT pg_current_snapshot()::text, (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint",
        &[],
    )?;
    let (snapshot, made_at) = (row.get(0), row.get(1));
    let incarnation = live.incarnation()?;
    let mut file = dir.file(manifest::KEYS, arguments.level)?;
    for line in keys.split_inclusive(|b| *b == b'\n') {
        file.line(line)?;
    }
    let mut state = State {
        format: STATE.into(),
        snapshot,
        incarnation: incarnation.map(Id),
        tenant: arguments.tenant.clone(),
        made_at,
        keys: file.finish()?,
        parts: Vec::new(),
        chains: Chains::default(),
        proofs: Vec::new(),
        checkpoints: Vec::new(),
        failed: Vec::new(),
    };
    let mut notes = Vec::new();
    for path in &arguments.checkpoint {
        notes.push((String::from_utf8(input::small(path)?)?, path.display().to_string(), true));
    }
    // The present incarnation's last checkpoint covers the earlier ones' chains, too.
    if let Some(incarnation) = incarnation {
        let sql = "SELECT n.note FROM custody.checkpoint_note n WHERE n.incarnation = $1 ORDER BY n.size DESC LIMIT 1";
        let last = live.client.query_opt(sql, &[&incarnation])?.map(|row| row.get(0));
        notes.extend(last.map(|note| (note, "the last checkpoint".to_owned(), false)));
    }
    for (note, name, asked) in notes {
        add_proof(arguments, dir, live, &mut state, (&note, &name, asked))?;
    }
    dir.save(&state)?;
    Ok(state)
}

fn add_proof(
    arguments: &Arguments,
    dir: &Directory,
    live: &mut Live,
    state: &mut State,
    (note, name, asked): (&str, &str, bool),
) -> Result<(), Failure> {
    // Its name is known when its leaf is: until then it has another.
    let mut heads = dir.file("heads", arguments.level)?;
    let offer = live.offer(note, name, |tenant| {
        let line = serde_json::to_string(&tenant)? + "\n";
        Ok(heads.line(line.as_bytes())?)
    })?;
    match offer {
        Err(problem) => state.failed.push(format!("{name}: {problem}")),
        // It began after the last checkpoint, and so did all that could be proved.
        Ok(None) if !asked => {}
        Ok(None) => state.failed.push(format!("{name}: it knows no such tenant")),
        Ok(Some(Offer::Tenant(proof))) => {
            let same = |p: &TenantProof| p.leaf == proof.leaf && p.tlog_proof == proof.tlog_proof;
            if !state.proofs.iter().any(same) {
                state.proofs.push(proof);
            }
        }
        Ok(Some(Offer::All(leaf, tlog_proof))) => {
            let known = state.checkpoints.iter().any(|c| c.leaf.counter == leaf.counter);
            if !known {
                heads.name = manifest::heads_name(leaf.counter);
                state.checkpoints.push(LogProof { leaf, tlog_proof, heads: heads.finish()? });
            }
        }
    }
    dir.remove("heads.tmp")
}

/// Writes the parts that are still missing.
fn parts(arguments: &Arguments, dir: &Directory, state: &mut State, lines: impl BufRead) -> Result<(), Failure> {
    let mut chains = ChainFile::open(dir, &state.chains)?;
    let mut reader = Reader::new(lines);
    let mut part: Option<(StoredFile<'_>, Place)> = None;
    loop {
        let here = match reader.next_record().map_err(|e| format!("the database: {e}"))? {
            None => None,
            Some(Record::Key(_)) => return Err("the database sends a key among the entries".into()),
            Some(Record::Entry(e)) => {
                chains.entry(e.incarnation, e.tenant, e.lane, e.seq, e.prev_hash, e.hash)?;
                Some(())
            }
        };
        let full = part.as_ref().is_some_and(|(file, _)| file.size >= arguments.part_size << 20);
        if full || here.is_none() {
            // It ends before this entry, at the one before; of that one's chain more may come.
            if let Some((file, first)) = part.take() {
                let Some(last) = chains.last.take() else { return Err("a part without an end".into()) };
                let manifest::File { file, records, bytes, size, sha256 } = file.finish()?;
                state.parts.push(Part { file, records, bytes, size, sha256, first, last });
                state.chains = chains.save(arguments.level)?;
                dir.save(state)?;
            }
        }
        let (Some(()), Some((tenant, incarnation, lane, seq))) = (here, reader.place()) else { return Ok(()) };
        let here = Place(tenant.to_owned(), incarnation, lane, seq);
        if part.is_none() {
            part = Some((dir.file(&part_name(state.parts.len() + 1), arguments.level)?, here.clone()));
        }
        if let Some((file, _)) = &mut part {
            file.line(reader.line())?;
        }
        chains.last = Some(here);
        chains.take();
    }
}

/// Gives everything its name, the manifest last.
fn finish(dir: &Directory, state: State) -> Result<(String, Manifest, Vec<String>), Failure> {
    let mut chains = ChainFile::open(dir, &state.chains)?;
    let done = chains.end()?;
    chains.file.sync_all()?;
    let mut sha = Sha256::new();
    io::copy(&mut File::open(dir.path(CHAINS))?, &mut HashOnly(&mut sha))?;
    dir.rename(CHAINS, manifest::CHAINS)?;
    let manifest = Manifest {
        format: manifest::FORMAT.into(),
        incarnation: state.incarnation,
        tenant: state.tenant,
        segment: None,
        made_at: state.made_at,
        entries: state.parts.iter().map(|part| part.records).sum(),
        keys: state.keys,
        chains: manifest::File {
            file: manifest::CHAINS.into(),
            records: done.records,
            bytes: done.bytes,
            size: done.size,
            sha256: sha.finalize().into(),
        },
        parts: state.parts,
        proofs: state.proofs,
        checkpoints: state.checkpoints,
    };
    let json = manifest.to_json();
    // What is refused when it is read must not be written.
    Manifest::read(&json).map_err(|e| format!("the log cannot be exported as it is: {e}"))?;
    dir.write(manifest::FILE, &json)?;
    dir.remove(UNFINISHED)?;
    Ok((manifest::digest(&json), manifest, state.failed))
}

struct HashOnly<'a>(&'a mut Sha256);

impl Write for HashOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directory, which nobody else writes to meanwhile.
struct Directory {
    path: PathBuf,
    /// Locked as long as this is open.
    open: File,
}

impl Directory {
    fn open(path: &Path) -> Result<Self, Failure> {
        let because = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        if !path.exists() {
            fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| because(&e))?;
            let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()?;
        }
        let open = File::open(path).map_err(|e| because(&e))?;
        open.try_lock().map_err(|_| because(&"another export works here"))?;
        let dir = Self { path: path.to_owned(), open };
        let ours = |name: &str| name.ends_with(".tmp");
        let begun = dir.path(UNFINISHED).exists() || dir.path(manifest::FILE).exists();
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name();
            // Keys and heads may have their names before the first state is written.
            let ours = name.to_str().is_some_and(|n| ours(n) || n == manifest::KEYS || n.starts_with("checkpoint-"));
            if !begun && !ours {
                return Err(because(&"this directory has other things in it").into());
            }
        }
        Ok(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn state(&self) -> Result<Option<State>, Failure> {
        let path = self.path(UNFINISHED);
        if !path.exists() {
            return Ok(None);
        }
        let state: State =
            serde_json::from_slice(&input::small(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
        match state.format == STATE {
            true => Ok(Some(state)),
            false => Err(format!("{}: another version of this tool wrote it", path.display()).into()),
        }
    }

    fn save(&self, state: &State) -> Result<(), Failure> {
        self.write(UNFINISHED, &serde_json::to_vec(state)?)
    }

    /// A small file, whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let new = format!("{name}.tmp");
        let mut file = self.create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.rename(&new, name)
    }

    fn create(&self, name: &str) -> Result<File, Failure> {
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(name));
        Ok(open.map_err(|e| format!("{}: {e}", self.path(name).display()))?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        fs::rename(self.path(from), self.path(to))?;
        Ok(self.open.sync_all()?)
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(self.open.sync_all()?),
        }
    }

    fn file(&self, name: &str, level: i32) -> Result<StoredFile<'_>, Failure> {
        let written = format!("{name}.tmp");
        let file = Counted { file: self.create(&written)?, sha: Sha256::new(), bytes: 0 };
        let encoder = zstd::Encoder::new(file, level)?;
        Ok(StoredFile { dir: self, written, name: name.to_owned(), encoder, size: 0, records: 0 })
    }
}

struct Counted {
    file: File,
    sha: Sha256,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = self.file.write(bytes)?;
        self.sha.update(&bytes[..some]);
        self.bytes += some as u64;
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A compressed file that is being written.
struct StoredFile<'a> {
    dir: &'a Directory,
    written: String,
    name: String,
    encoder: zstd::Encoder<'static, Counted>,
    size: u64,
    records: u64,
}

impl StoredFile<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.size += line.len() as u64;
        self.records += 1;
        self.encoder.write_all(line)
    }

    /// Has it on disk, and gives it its name.
    fn finish(self) -> Result<manifest::File, Failure> {
        let counted = self.encoder.finish()?;
        counted.file.sync_all()?;
        self.dir.rename(&self.written, &self.name)?;
        let (bytes, sha256) = (counted.bytes, counted.sha.finalize().into());
        Ok(manifest::File { file: self.name, records: self.records, bytes, size: self.size, sha256 })
    }
}

/// The file of chains: a frame for each part, of the chains that ended in it.
struct ChainFile {
    file: File,
    saved: Chains,
    /// Lines of chains that have ended since.
    ended: Vec<u8>,
    records: u64,
    open: Option<ChainSpan>,
    /// The entry that was just read, and is in no part yet.
    next: Option<ChainSpan>,
    /// Where the last entry stands that is in a part.
    last: Option<Place>,
}

impl ChainFile {
    fn open(dir: &Directory, saved: &Chains) -> Result<Self, Failure> {
        let path = dir.path(CHAINS);
        if !path.exists() && dir.path(manifest::CHAINS).exists() {
            dir.rename(manifest::CHAINS, CHAINS)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.len() < saved.bytes {
            return Err(format!("{CHAINS} was cut: begin anew").into());
        }
        // What comes after was written for a part that is not complete.
        file.set_len(saved.bytes)?;
        let open = saved.open.clone();
        Ok(Self { file, saved: saved.clone(), ended: Vec::new(), records: 0, open, next: None, last: None })
    }

    fn entry(
        &mut self,
        incarnation: uuid::Uuid,
        tenant: &str,
        lane: i64,
        seq: i64,
        prev_hash: &[u8],
        hash: &[u8],
    ) -> Result<(), Failure> {
        let hashes = (prev_hash.try_into(), hash.try_into());
        let (Ok(prev_hash), Ok(hash)) = hashes else {
            return Err(format!("the database: entry {seq} of tenant {tenant:?} has no hash of 32 bytes").into());
        };
        let tenant = tenant.to_owned();
        self.next = Some(ChainSpan { incarnation, tenant, lane, first: seq, prev_hash, last: seq, hash });
        Ok(())
    }

    /// The entry that was read is in the part now.
    fn take(&mut self) {
        let Some(next) = self.next.take() else { return };
        match &mut self.open {
            Some(open)
                if (&open.tenant, open.incarnation, open.lane) == (&next.tenant, next.incarnation, next.lane) =>
            {
                (open.last, open.hash) = (next.last, next.hash);
            }
            _ => {
                self.close();
                self.open = Some(next);
            }
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let line = serde_json::to_vec(&open).unwrap_or_else(|e| panic!("a chain is always JSON: {e}"));
        self.ended.extend_from_slice(&line);
        self.ended.push(b'\n');
        self.records += 1;
    }

    /// Has the chains that ended on disk.
    fn save(&mut self, level: i32) -> Result<Chains, Failure> {
        if !self.ended.is_empty() {
            let frame = zstd::encode_all(&self.ended[..], level)?;
            self.file.write_all(&frame)?;
            self.saved.bytes += frame.len() as u64;
            self.saved.size += self.ended.len() as u64;
            self.saved.records += self.records;
            (self.ended, self.records) = (Vec::new(), 0);
        }
        self.file.sync_all()?;
        self.saved.open = self.open.clone();
        Ok(self.saved.clone())
    }

    /// The last chain has ended, too. A file without any is a frame without anything.
    fn end(&mut self) -> Result<Chains, Failure> {
        self.close();
        if self.saved.bytes == 0 && self.ended.is_empty() {
            let frame = zstd::encode_all(io::empty(), 1)?;
            self.file.write_all(&frame)?;
            self.saved.bytes = frame.len() as u64;
        }
        self.save(3)
    }
}
