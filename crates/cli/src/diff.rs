//! `custody diff-log`: two exports side by side, in memory that grows with neither.

use std::cmp::Ordering;
use std::path::PathBuf;

use clap::Args;
use custody_core::export::Record;
use custody_core::verify::ChainId;
use serde_json::json;

use crate::Failure;
use crate::input;
use crate::source::{Export, Source};

#[derive(Args)]
pub struct Arguments {
    /// The earlier export: a file, plain or zstd, an archive, or - for standard input
    old: PathBuf,
    /// The later export
    new: PathBuf,
    /// Print one JSON object a line instead of words
    #[arg(long)]
    json: bool,
    /// No bar
    #[arg(long, short)]
    quiet: bool,
}

/// An entry, as far as it is compared.
struct Place {
    chain: ChainId,
    seq: i64,
    hash: Vec<u8>,
}

impl Place {
    fn order(&self) -> (&[u8], &[u8], i64, i64) {
        (self.chain.tenant.as_bytes(), self.chain.incarnation.as_bytes(), self.chain.lane, self.seq)
    }
}

/// What became of one chain.
struct Difference {
    chain: ChainId,
    /// Entries that only the later export has; those that only the earlier has; and where both have one, and not the same.
    added: u64,
    missing: u64,
    changed: Option<i64>,
    /// Whether something was added before an entry that both have.
    inserted: bool,
}

/// Whether the later export goes on from the earlier one: nothing missing, nothing changed, everything new after what was there.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let (mut old, mut new) = (Source::open(&arguments.old)?, Source::open(&arguments.new)?);
    if let (Source::Stdin, Source::Stdin) = (&old, &new) {
        return Err("standard input can be read once only".into());
    }
    let bar = input::bar(arguments.quiet || arguments.json, old.length());
    let hidden = input::bar(true, None);
    let problems: Vec<_> = [&old, &new].iter().filter_map(|s| s.problems()).collect();
    let (mut old, mut new) = (old.export(&bar)?, new.export(&hidden)?);
    let names = [arguments.old.display().to_string(), arguments.new.display().to_string()];
    let (mut a, mut b) = (next(&mut old, &names[0])?, next(&mut new, &names[1])?);
    let (mut entries, mut goes_on) = (0u64, true);
    let mut current: Option<Difference> = None;
    let mut finish = |difference: Option<Difference>| {
        let Some(d) = difference else { return };
        goes_on &= d.missing == 0 && d.changed.is_none() && !d.inserted;
        if d.added > 0 || d.missing > 0 || d.changed.is_some() {
            report(arguments.json, &d);
        }
    };
    loop {
        let order = match (&a, &b) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => x.order().cmp(&y.order()),
        };
        let Some(here) = (if order == Ordering::Greater { &b } else { &a }) else { break };
        if current.as_ref().is_none_or(|d| d.chain != here.chain) {
            let chain = here.chain.clone();
            finish(current.replace(Difference { chain, added: 0, missing: 0, changed: None, inserted: false }));
        }
        let Some(d) = current.as_mut() else { break };
        match order {
            Ordering::Less => d.missing += 1,
            Ordering::Greater => d.added += 1,
            Ordering::Equal => {
                d.inserted |= d.added > 0;
                if let (Some(x), Some(y)) = (&a, &b)
                    && x.hash != y.hash
                {
                    d.changed.get_or_insert(x.seq);
                }
            }
        }
        entries += 1;
        if order.is_le() {
            a = next(&mut old, &names[0])?;
        }
        if order.is_ge() {
            b = next(&mut new, &names[1])?;
        }
    }
    finish(current);
    bar.finish_and_clear();
    // What is not the archive that was made says nothing about it.
    if let Some(problem) = problems.iter().find_map(|p| p.borrow().first().cloned()) {
        return Err(problem.into());
    }
    if !arguments.json {
        let verdict = if goes_on {
            "the later export goes on from the earlier one"
        } else {
            "the later export does NOT go on from the earlier one"
        };
        println!("{verdict}; {entries} entries compared. Whether each is right by itself, custody verify tells.");
    }
    Ok(goes_on)
}

fn next(export: &mut Export<'_>, name: &str) -> Result<Option<Place>, Failure> {
    while let Some(record) = export.next_record().map_err(|e| format!("{name}: {e}"))? {
        if let Record::Entry(e) = record {
            let chain = ChainId { incarnation: e.incarnation, tenant: e.tenant.to_owned(), lane: e.lane };
            return Ok(Some(Place { chain, seq: e.seq, hash: e.hash.to_vec() }));
        }
    }
    Ok(None)
}

fn report(as_json: bool, d: &Difference) {
    if as_json {
        println!(
            "{}",
            json!({"incarnation": d.chain.incarnation.to_string(), "tenant": d.chain.tenant, "lane": d.chain.lane, "added": d.added,
                   "missing": d.missing, "first_changed": d.changed, "inserted_before_the_end": d.inserted})
        );
        return;
    }
    let mut what = Vec::new();
    if d.added > 0 {
        what.push(format!("{} new{}", d.added, if d.inserted { ", not all of them at its end" } else { "" }));
    }
    if d.missing > 0 {
        what.push(format!("{} MISSING", d.missing));
    }
    if let Some(seq) = d.changed {
        what.push(format!("CHANGED from seq {seq} on"));
    }
    println!(
        "tenant {:?}, lane {}, incarnation {}: {}",
        d.chain.tenant,
        d.chain.lane,
        d.chain.incarnation,
        what.join(", ")
    );
}
