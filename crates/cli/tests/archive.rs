//! Archives as files: segments that are joined, and a log of ten million entries.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use custody_core::Hash;
use custody_core::entry::{Entry, FORMAT, actor_digest, genesis, row_digest};
use custody_core::export::manifest::{self, CHAINS, ChainSpan, File, KEYS, Manifest, Part, Place, part_name};
use custody_core::export::{Reader, Record, entry_line, key_line};
use custody_core::key::{PrivateKey, fingerprint};
use custody_core::verify::KeyRecord;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

fn custody(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_custody")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("custody-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a file of an archive.
fn stored(dir: &Path, name: &str, lines: &[String]) -> File {
    let plain = lines.concat();
    let bytes = zstd::encode_all(plain.as_bytes(), 3).unwrap();
    fs::write(dir.join(name), &bytes).unwrap();
    File {
        file: name.into(),
        records: lines.len() as u64,
        bytes: bytes.len() as u64,
        size: plain.len() as u64,
        sha256: Sha256::digest(&bytes).into(),
    }
}

/// Writes an archive of these lines, a part for each `size` entries.
fn archive(dir: &str, keys: &[String], entries: &[String], segment: Option<i64>, size: usize) {
    let dir = Path::new(dir);
    fs::create_dir_all(dir).unwrap();
    let place = |line: &String| {
        let mut reader = Reader::new(line.as_bytes());
        reader.next_record().unwrap();
        reader.place().map(|(t, i, l, s)| Place(t.to_owned(), i, l, s)).unwrap()
    };
    let mut parts = Vec::new();
    for (number, lines) in entries.chunks(size).enumerate() {
        let File { file, records, bytes, size, sha256 } = stored(dir, &part_name(number + 1), lines);
        let (first, last) = (place(&lines[0]), place(&lines[lines.len() - 1]));
        parts.push(Part { file, records, bytes, size, sha256, first, last });
    }
    let mut chains: Vec<ChainSpan> = Vec::new();
    for line in entries {
        let mut reader = Reader::new(line.as_bytes());
        let Some(Record::Entry(e)) = reader.next_record().unwrap() else { panic!() };
        let hash: Hash = e.hash.try_into().unwrap();
        match chains.last_mut() {
            Some(c) if (&*c.tenant, c.incarnation, c.lane) == (e.tenant, e.incarnation, e.lane) => {
                (c.last, c.hash) = (e.seq, hash);
            }
            _ => chains.push(ChainSpan {
                incarnation: e.incarnation,
                tenant: e.tenant.to_owned(),
                lane: e.lane,
                first: e.seq,
                prev_hash: e.prev_hash.try_into().unwrap(),
                last: e.seq,
                hash,
            }),
        }
    }
    let chains: Vec<String> = chains.iter().map(|c| serde_json::to_string(c).unwrap() + "\n").collect();
    let manifest = Manifest {
        format: manifest::FORMAT.into(),
        incarnation: None,
        tenant: None,
        segment,
        made_at: 0,
        entries: entries.len() as u64,
        keys: stored(dir, KEYS, keys),
        chains: stored(dir, CHAINS, &chains),
        parts,
        proofs: Vec::new(),
        checkpoints: Vec::new(),
    };
    fs::write(dir.join(manifest::FILE), manifest.to_json()).unwrap();
}

fn lines() -> (Vec<String>, Vec<String>) {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/whole.jsonl");
    let whole = fs::read_to_string(whole).unwrap();
    whole.lines().map(|l| format!("{l}\n")).partition(|l| l.contains("\"record\": \"key\""))
}

#[test]
fn segments_are_joined_wherever_they_were_cut() {
    let dir = Dir::new("segments");
    let (keys, entries) = lines();
    let whole = dir.at("whole");
    archive(&whole, &keys, &entries, None, 4);
    assert_eq!(custody(&["verify", &whole, "--unpinned"]).0, 0);
    // By place in the log, as segments are cut, each chain in the middle.
    for every in 2..6 {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut both = [Vec::new(), Vec::new()];
        for line in &entries {
            let v: Value = serde_json::from_str(line).unwrap();
            let chain = format!("{} {} {}", v["tenant"], v["incarnation"], v["lane"]);
            let number = seen.entry(chain).or_default();
            both[usize::from(*number >= every)].push(line.clone());
            *number += 1;
        }
        let (one, two) = (dir.at(&format!("one-{every}")), dir.at(&format!("two-{every}")));
        archive(&one, &keys, &both[0], Some(1), 3);
        archive(&two, &keys, &both[1], Some(2), 3);
        for order in [[&one, &two], [&two, &one]] {
            let (status, text) = custody(&["verify", order[0], order[1], "--unpinned"]);
            assert!(status == 0 && text.contains(&format!("{} entries", entries.len())), "{every}: {text}");
        }
        if both[1].is_empty() {
            continue;
        }
        let (status, text) = custody(&["verify", &two, "--unpinned"]);
        assert!(status == 1 && text.contains("deleted"), "{text}");
        let (status, text) = custody(&["verify", &two, "--unpinned", "--partial"]);
        assert!(status == 0 && text.contains("begin in the middle"), "{text}");
        let (status, text) = custody(&["verify", &two, &two, "--unpinned", "--partial"]);
        assert!(status == 1, "twice the same: {text}");
        // What says that it is whole must be.
        let disguised = dir.at(&format!("disguised-{every}"));
        archive(&disguised, &keys, &both[1], None, 3);
        assert_eq!(custody(&["verify", &disguised, "--unpinned"]).0, 1);
        assert_eq!(custody(&["verify", &disguised, "--unpinned", "--partial"]).0, 2);
        assert_eq!(custody(&["verify", &disguised, &two, "--unpinned", "--partial"]).0, 1);
        // One that was edited, and its manifest with it, is found across the cut.
        let mut edited = both[1].clone();
        edited[0] = edited[0].replacen("\"prev_hash\": \"", "\"prev_hash\": \"00", 1);
        let at = edited[0].find("\"prev_hash\": \"00").unwrap() + 14 + 64;
        edited[0].replace_range(at..at + 2, "");
        let other = dir.at(&format!("other-{every}"));
        archive(&other, &keys, &edited, Some(2), 3);
        assert_eq!(custody(&["verify", &one, &other, "--unpinned"]).0, 1);
        assert_eq!(custody(&["verify", &other, "--unpinned", "--partial"]).0, 1);
    }
    // A file and an archive are one log, too.
    let (head, tail) = entries.split_at(entries.len() / 2);
    let file = dir.at("head.jsonl");
    fs::write(&file, [&keys[..], head].concat().concat()).unwrap();
    let rest = dir.at("tail");
    archive(&rest, &keys, tail, Some(2), 100);
    assert_eq!(custody(&["verify", &file, &rest, "--unpinned"]).0, 0);
    assert_eq!(custody(&["diff-log", &file, &whole]).0, 0);
    assert_eq!(custody(&["diff-log", &whole, &file]).0, 1);
}

#[test]
fn keys_and_order_are_looked_at_across_parts() {
    let dir = Dir::new("order");
    let (keys, entries) = lines();
    let mixed = dir.at("mixed");
    let late = [&entries[..3], &keys[..1]].concat();
    archive(&mixed, &keys, &entries[..3], None, 3);
    let File { records, bytes, size, sha256, .. } = stored(Path::new(&mixed), &part_name(1), &late);
    let path = format!("{mixed}/{}", manifest::FILE);
    let mut manifest = Manifest::read(&fs::read(&path).unwrap()).unwrap();
    (manifest.parts[0].records, manifest.parts[0].bytes) = (records, bytes);
    (manifest.parts[0].size, manifest.parts[0].sha256, manifest.entries) = (size, sha256, records);
    fs::write(path, manifest.to_json()).unwrap();
    let (status, text) = custody(&["verify", &mixed, "--unpinned"]);
    assert!(status == 2 && text.contains("a key after the first entry"), "{text}");
    for threads in ["1", "3"] {
        let plain = dir.at("plain");
        fs::write(&plain, [&keys[..], &entries[1..], &entries[..1]].concat().concat()).unwrap();
        let (status, text) = custody(&["verify", &plain, "--unpinned", "--threads", threads]);
        assert!(status == 2 && text.contains("not sorted"), "{text}");
    }
}

/// How many tenants the large log has, and how long a run is.
const TENANTS: u64 = 1000;
const RUN: u64 = 10;

/// Writes a log of signed entries of the usual size, and gives its keys' fingerprint.
fn large(path: &str, entries: u64) -> String {
    let incarnation = Uuid::from_u128(0x1234_5678);
    let key = PrivateKey::from_seed(&Zeroizing::new([7; 32]));
    let record = KeyRecord {
        key_id: key.key_id().into(),
        incarnation,
        public_key: key.public_key().into(),
        ..KeyRecord::default()
    };
    let mut out = zstd::Encoder::new(fs::File::create(path).unwrap(), 1).unwrap();
    out.write_all(key_line(&record).as_bytes()).unwrap();
    let actor = r#"{"subject": "u-81723", "client_addr": "10.1.2.3", "application_name": "clinic"}"#;
    for tenant in 0..TENANTS {
        let name = format!("tenant-{tenant:05}");
        let mut prev = genesis(incarnation, &name, 0);
        let last = entries / TENANTS;
        for seq in 1..=last {
            let begins = (seq - 1) % RUN == 0;
            let signs_run = seq % RUN == 0 || seq == last;
            let salt = Sha256::digest((tenant << 32 | seq).to_be_bytes());
            let row_key = format!(r#"{{"id": {seq}, "tenant_id": "{name}"}}"#);
            let new = format!(
                r#"{{"tenant_id": "{name}", "id": {seq}, "name": "Ada Lovelace", "born": "1815-12-10", "notes": "seen on ward {seq}, stable, to be seen again in a fortnight"}}"#
            );
            let mut e = Entry {
                incarnation,
                tenant: &name,
                lane: 0,
                seq: seq as i64,
                format: FORMAT,
                lsn: tenant << 32 | seq << 8,
                ordinal: ((seq - 1) % RUN + 1) as i64,
                at: 1_795_392_245_000_000 + seq as i64,
                xid: seq.div_ceil(RUN),
                op: "INSERT",
                schema_name: Some("clinic"),
                table_name: Some("patients"),
                login_role: "app",
                acting_role: "app",
                move_id: None,
                actor_seq: ((seq - 1) / RUN * RUN + 1) as i64,
                signs_run,
                key_id: signs_run.then(|| key.key_id()),
                actor_salt: begins.then_some(&salt[16..]),
                actor: begins.then_some(actor),
                row_salt: Some(&salt[..16]),
                row_key: Some(&row_key),
                old: None,
                new: Some(&new),
                actor_digest: None,
                row_digest: &[],
                prev_hash: &prev.clone(),
                hash: &[],
                signature: None,
            };
            let actor_digest = actor_digest(&salt[16..], actor);
            let row_digest = row_digest(&salt[..16], e.row_key, e.old, e.new);
            e.actor_digest = begins.then_some(&actor_digest);
            e.row_digest = &row_digest;
            let hash = e.compute_hash();
            let signature = key.sign_run(&hash);
            e.hash = &hash;
            e.signature = signs_run.then_some(&signature);
            out.write_all(entry_line(&e).as_bytes()).unwrap();
            prev = hash;
        }
    }
    out.finish().unwrap().sync_all().unwrap();
    fingerprint(&key.public_key())
}

/// Runs the tool, and gives how long it computed, the most memory that it had, in KiB, and what it said.
fn measured(arguments: &[&str]) -> (Duration, u64, i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_custody")).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let stat = format!("/proc/{}/stat", child.id());
    let (mut most, mut ticks) = (0, 0);
    let code = loop {
        let high = fs::read_to_string(&status).unwrap_or_default();
        let high = high.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        most = high.unwrap_or(0).max(most);
        // proc(5): the fields after the name, which ends with a parenthesis; utime and stime are the 14th and 15th of all.
        let fields = fs::read_to_string(&stat).unwrap_or_default();
        let fields = fields.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        ticks = fields.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>().max(ticks);
        if let Some(code) = child.try_wait().unwrap() {
            break code.code().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // A hundredth of a second each, on Linux.
    let took = Duration::from_millis(10 * ticks);
    let output = child.wait_with_output().unwrap();
    (took, most, code, String::from_utf8(output.stdout).unwrap())
}

fn bounded(entries: u64, kibibytes: u64) {
    let dir = Dir::new(&format!("large-{entries}"));
    let file = dir.at("log.jsonl.zst");
    let pin = large(&file, entries);
    for threads in ["1", "2"] {
        let (took, most, status, text) = measured(&["verify", &file, "--pin", &pin, "--quiet", "--threads", threads]);
        let rate = entries as f64 / took.as_secs_f64();
        println!(
            "{entries} entries, {threads} threads: {took:.1?} of CPU, {rate:.0} a second of that, at most {} MiB",
            most >> 10
        );
        assert!(status == 0 && text.contains(&format!("{entries} entries in {TENANTS} chains")), "{text}");
        assert!(most > 0 && most < kibibytes, "{most} KiB");
    }
}

#[test]
fn a_hundred_thousand_in_bounded_memory() {
    bounded(100_000, 100 << 10);
}

/// `cargo test --release -p custody-cli --test archive -- --ignored --nocapture ten_million`
#[test]
#[ignore = "minutes, and gigabytes of disk"]
fn ten_million_in_the_same_memory() {
    bounded(10_000_000, 100 << 10);
}
