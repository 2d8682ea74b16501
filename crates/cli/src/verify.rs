//! `custody verify`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::export::{self, Record};
use custody_core::key::fingerprint;
use custody_core::tlog::note::{self, NoteKey};
use custody_core::verify::{Finding, Head, KeyRecord, Keys, Report, Verifier};
use serde_json::{Value, json};

use crate::{Failure, input, proof};

#[derive(Args)]
pub struct Arguments {
    /// The export: JSON Lines of custody.export_log(), plain or zstd; - for standard input
    export: PathBuf,
    /// The fingerprint of a key that you trust (64 hex digits), as CREATE EXTENSION printed it; several are allowed
    #[arg(long, value_name = "FINGERPRINT", value_parser = pin, required_unless_present = "unpinned")]
    pin: Vec<String>,
    /// Trust whatever keys the export names. Who can rewrite the log can rewrite those: this proves that it agrees with itself
    #[arg(long, conflicts_with = "pin")]
    unpinned: bool,
    /// What custody.heads() gave at an earlier time: a JSON array
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
    /// What custody.tenant_proof() gave: that the export has all of the tenant's chains, up to a signed checkpoint
    #[arg(long, value_name = "FILE")]
    proof: Vec<PathBuf>,
    /// A checkpoint that was kept elsewhere (a signed note): each proof must be of one of these
    #[arg(long, value_name = "FILE", requires = "proof")]
    checkpoint: Vec<PathBuf>,
    /// A witness's key (name+hash+base64): each checkpoint must carry its cosignature
    #[arg(long, value_name = "KEY", value_parser = input::note_key, requires = "checkpoint")]
    witness: Vec<NoteKey>,
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
    /// No bar
    #[arg(long, short)]
    quiet: bool,
}

fn pin(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a fingerprint has 64 hex digits".into()),
    }
}

/// What is asked for beyond the log itself, and whether it is proved.
struct Claim {
    what: String,
    problem: Option<String>,
}

/// Whether all that was asked for is proved.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let bar = input::bar(arguments.quiet || arguments.json);
    let mut export = input::open(&arguments.export, &bar)?;
    let because = |e: export::Unreadable| format!("{}: {e}", arguments.export.display());
    let mut heads = match &arguments.heads {
        Some(path) => export::read_heads(&input::small(path)?).map_err(|e| format!("{}: {e}", path.display()))?,
        None => Vec::new(),
    };
    let pins = (!arguments.unpinned).then_some(&arguments.pin[..]);

    // Keys come first; what is held against the log depends on them.
    let mut records = Vec::new();
    let mut claims = Vec::new();
    let mut begin = |records: &[KeyRecord]| -> Result<Verifier, Failure> {
        let keys = Keys::new(records, pins);
        heads.append(&mut held_against(arguments, &keys, &mut claims)?);
        Ok(Verifier::with_keys(keys, std::mem::take(&mut heads)))
    };
    let mut walk = loop {
        match export.next_record().map_err(because)? {
            Some(Record::Key(key)) => records.push(key),
            Some(Record::Entry(entry)) => {
                let mut walk = begin(&records)?;
                walk.entry(&entry);
                break walk;
            }
            None => break begin(&records)?,
        }
    };
    while let Some(record) = export.next_record().map_err(because)? {
        if let Record::Entry(entry) = record {
            walk.entry(&entry);
        }
    }
    bar.finish_and_clear();
    let report = walk.finish();
    let named: BTreeSet<String> = records.iter().map(|r| fingerprint(&r.public_key)).collect();
    let proved = report.counts.findings == 0 && report.counts.entries > 0 && claims.iter().all(|c| c.problem.is_none());
    match arguments.json {
        true => println!("{}", as_json(arguments, &report, &claims, &named, proved)),
        false => print(arguments, &report, &claims, proved),
    }
    Ok(proved)
}

/// Checks proofs and notes; gives what the log must hold by those that are right.
fn held_against(arguments: &Arguments, keys: &Keys, claims: &mut Vec<Claim>) -> Result<Vec<Head>, Failure> {
    let mut outside = Vec::new();
    for path in &arguments.checkpoint {
        let what = format!("the checkpoint {}", path.display());
        match proof::outside(&input::small(path)?, &path.display().to_string(), keys)? {
            Ok(checkpoint) => {
                for witness in &arguments.witness {
                    claims.push(witnessed(path, witness)?);
                }
                outside.push((what, checkpoint, false));
            }
            Err(problem) => claims.push(Claim { what, problem: Some(problem) }),
        }
    }
    let mut heads = Vec::new();
    for path in &arguments.proof {
        let what = format!("the proof {}", path.display());
        let proof = proof::read(path)?;
        let problem = match proof.verify(keys) {
            Err(problem) => Some(problem),
            Ok(checkpoint) => {
                let known = outside.iter_mut().find(|(_, c, _)| *c == checkpoint);
                let anchored = known.map(|(_, _, used)| *used = true).is_some();
                let what = format!(
                    "all chains of tenant \"{}\", as of checkpoint {} ({})",
                    proof.tenant,
                    checkpoint.size - 1,
                    when(proof.leaf.at)
                );
                heads.extend(proof.kept());
                match anchored || arguments.checkpoint.is_empty() {
                    true => {
                        claims.push(Claim { what, problem: None });
                        continue;
                    }
                    false => Some("its checkpoint is none of those that were given".into()),
                }
            }
        };
        claims.push(Claim { what, problem });
    }
    for (what, _, used) in outside {
        let problem = (!used).then(|| "no proof is of this checkpoint".into());
        claims.push(Claim { what, problem });
    }
    Ok(heads)
}

/// Whether a witness has cosigned the note.
fn witnessed(path: &Path, witness: &NoteKey) -> Result<Claim, Failure> {
    let opened = note::open(&input::small(path)?, std::slice::from_ref(witness));
    let time = opened.map(|note| note.signed.iter().filter_map(|s| s.time).min());
    let what = |seen: String| format!("{} has seen the checkpoint {}{seen}", witness.name(), path.display());
    Ok(match time {
        Ok(Some(time)) => {
            Claim { what: what(format!(" at {}", when((time as i64).saturating_mul(1_000_000)))), problem: None }
        }
        Ok(None) => Claim { what: what(String::new()), problem: Some("its key is not one that cosigns".into()) },
        Err(e) => Claim { what: what(String::new()), problem: Some(e.to_string()) },
    })
}

fn print(arguments: &Arguments, report: &Report, claims: &[Claim], proved: bool) {
    let counts = &report.counts;
    for finding in &report.findings {
        println!("{}", line(finding));
    }
    if counts.findings > report.findings.len() as u64 {
        println!("… and {} more", counts.findings - report.findings.len() as u64);
    }
    for claim in claims {
        match &claim.problem {
            None => println!("proved: {}", claim.what),
            Some(problem) => println!("NOT PROVED: {}: {problem}", claim.what),
        }
    }
    println!(
        "{}: {} entries in {} chains, {} signatures hold, {}; {}{}",
        if proved { "valid" } else { "NOT VALID" },
        counts.entries,
        counts.chains,
        counts.signatures,
        match counts.findings {
            0 => "no finding".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        },
        if arguments.unpinned { "key not pinned" } else { "key pinned" },
        match (arguments.heads.is_some(), claims.is_empty()) {
            (false, true) => "; no heads or proof given: a chain cut at its end is not seen",
            _ => "",
        }
    );
}

fn as_json(arguments: &Arguments, report: &Report, claims: &[Claim], keys: &BTreeSet<String>, proved: bool) -> Value {
    let findings = report.findings.iter().map(|f| {
        json!({
            "verdict": f.verdict.to_string(),
            "incarnation": f.chain.as_ref().map(|c| c.incarnation.to_string()),
            "tenant": f.chain.as_ref().map(|c| &c.tenant),
            "lane": f.chain.as_ref().map(|c| c.lane),
            "seq": f.chain.as_ref().map(|_| f.seq),
            "detail": f.detail,
        })
    });
    let claims = claims.iter().map(|c| json!({"claim": c.what, "proved": c.problem.is_none(), "problem": c.problem}));
    json!({
        "proved": proved,
        "entries": report.counts.entries,
        "chains": report.counts.chains,
        "signatures": report.counts.signatures,
        "incarnations": report.counts.by_incarnation.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "pinned": !arguments.unpinned,
        "keys": keys,
        "findings_in_all": report.counts.findings,
        "findings": findings.collect::<Vec<_>>(),
        "claims": claims.collect::<Vec<_>>(),
    })
}

/// A finding in one line.
fn line(finding: &Finding) -> String {
    match &finding.chain {
        Some(c) => format!(
            "{}: tenant {:?}, lane {}, seq {}, incarnation {}: {}",
            finding.verdict, c.tenant, c.lane, finding.seq, c.incarnation, finding.detail
        ),
        None => format!("{}: {}", finding.verdict, finding.detail),
    }
}

/// A moment, in UTC, to the second (days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms").
fn when(microseconds: i64) -> String {
    let seconds = microseconds.div_euclid(1_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::when;

    #[test]
    fn moments() {
        assert_eq!(when(0), "1970-01-01T00:00:00Z");
        assert_eq!(when(-1), "1969-12-31T23:59:59Z");
        assert_eq!(when(951_782_400_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(when(1_795_392_245_999_999), "2026-11-23T00:04:05Z");
    }
}
