//! The bodies of the fuzz targets over their seeds, and over random changes of those: what needs no fuzzer.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use custody_core::export::{self, Reader};
use custody_core::key::hex;

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Inputs made for each target.
const ROUNDS: u32 = 10_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = fs::read_dir(root().join("fuzz/seeds").join(target)).unwrap();
    let mut paths: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }

    fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        const TOKENS: [&[u8]; 16] = [
            b"null",
            b"true",
            b"-0",
            b"1e5",
            b"9223372036854775807",
            b"9223372036854775808",
            b"-9223372036854775808",
            b"\"\"",
            b"\\u0000",
            b"\\ud800",
            b"{",
            b"]",
            b"\n",
            b"\"a\": 1, ",
            b"\"\\u0061\": 1, ",
            b"\xc3",
        ];
        let at = self.below(data.len() + 1);
        let end = (at + 1 + self.below(8)).min(data.len());
        match self.below(7) {
            0 | 1 if at < data.len() => data[at] ^= 1 << self.below(8),
            2 if at < data.len() => data[at] = self.below(256) as u8,
            3 => drop(data.drain(at..end.max(at))),
            4 => drop(data.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
            5 => drop(data.splice(at..end.max(at), TOKENS[self.below(TOKENS.len())].iter().copied())),
            _ if !other.is_empty() => {
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
}

#[test]
fn no_target_breaks() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = std::env::var("CUSTODY_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("CUSTODY_SEED={seed}");
    for (name, target) in targets::TARGETS {
        let mut random = Random(seed);
        let seeds = seeds(name);
        assert!(!seeds.is_empty());
        let run = |data: &[u8]| {
            if panic::catch_unwind(|| target(data)).is_err() {
                panic!("{name} breaks (CUSTODY_SEED={seed}) on the bytes {}", hex(data));
            }
        };
        seeds.iter().for_each(|data| run(data));
        for _ in 0..ROUNDS {
            let mut data = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                let other = random.below(seeds.len());
                random.change(&mut data, &seeds[other]);
            }
            run(&data);
        }
    }
}

/// The log that the export target knows is part of the vectors, whole, and valid.
#[test]
fn the_seeds_are_the_vectors() {
    let whole = fs::read_to_string(root().join("tests/vectors/whole.jsonl")).unwrap();
    let chain = whole.lines().filter(|line| line.contains("\"record\": \"key\"") || line.contains("\"tenant\": \"\""));
    assert!(chain.eq(targets::LOG.lines()));
    let heads = export::read_heads(targets::HEADS.as_bytes()).unwrap();
    let pins = [targets::PIN.to_owned()];
    let report = export::verify(Reader::new(targets::LOG.as_bytes()), Some(&pins), heads).unwrap();
    assert_eq!((report.findings, report.counts.entries), (vec![], 5));
}
