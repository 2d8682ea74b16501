//! `custody verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::export::{self, manifest::TenantHeads};
use custody_core::key::fingerprint;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{Leaf, heads_digest, map_leaf};
use custody_core::tlog::merkle::Tree;
use custody_core::tlog::note::{self, NoteKey};
use custody_core::tlog::tenant::{TenantProof, kept, signed_leaf};
use custody_core::verify::{Finding, Head, Keys};
use serde_json::{Value, json};

use crate::check::{self, Asked, Checked};
use crate::live::{Live, Offer};
use crate::source::{self, Source};
use crate::{Failure, database, input, proof};

#[derive(Args)]
pub struct Arguments {
    /// What to verify: an archive that custody export made; JSON Lines of custody.export_log(), plain or zstd; - for standard input;
    /// or a postgresql:// URL. Several are verified as one log
    #[arg(required_unless_present = "database")]
    export: Vec<PathBuf>,
    /// A live database: a libpq connection string or URL; as a member of custody_auditor
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Of a live database, this tenant's chains alone
    #[arg(long)]
    tenant: Option<String>,
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
    /// A checkpoint that was kept elsewhere (a signed note): the log must be what it was then. Each --proof must be of one of these
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A witness's key (name+hash+base64): each checkpoint must carry its cosignature
    #[arg(long, value_name = "KEY", value_parser = input::note_key, requires = "checkpoint")]
    witness: Vec<NoteKey>,
    /// Be content with a segment that begins in the middle of chains: nothing is said of what came before
    #[arg(long, conflicts_with_all = ["heads", "proof", "checkpoint", "database"])]
    partial: bool,
    /// How many threads; as many as there are cores, if not said
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    safety: database::Safety,
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

/// How far a log is proved (docs/evidence.md), from the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Assurance {
    Chained,
    Signed,
    Checkpointed,
    Anchored,
    Witnessed,
}

impl Assurance {
    fn name(self) -> &'static str {
        match self {
            Self::Chained => "chained",
            Self::Signed => "signed",
            Self::Checkpointed => "checkpointed",
            Self::Anchored => "anchored",
            Self::Witnessed => "witnessed",
        }
    }
}

/// Where a proof by checkpoints ends.
#[derive(Clone, Copy)]
struct UpTo {
    counter: u64,
    at: i64,
    /// How many entries came later.
    later: u64,
}

/// A checkpoint that the log is held against.
struct Held {
    /// Whose chains; everybody's, if nobody's in particular.
    tenant: Option<String>,
    assurance: Assurance,
    /// Its number, and when it was made.
    counter: u64,
    at: i64,
    /// How many entries it covers.
    entries: u64,
}

/// A note that was given.
struct Outside {
    path: PathBuf,
    what: String,
    checkpoint: Checkpoint,
    /// Whether each witness that was named has signed it.
    witnessed: bool,
    used: bool,
}

/// All that the log is held against.
#[derive(Default)]
struct Against {
    claims: Vec<Claim>,
    heads: Vec<Head>,
    held: Vec<Held>,
    outside: Vec<Outside>,
}

impl Against {
    /// Takes in the heads of a proof, or why there are none.
    fn proof(
        &mut self,
        name: &str,
        tenant: Option<&str>,
        leaf: &Leaf,
        proved: Result<(Checkpoint, Vec<Head>), String>,
        must_be_known: bool,
    ) {
        let (checkpoint, heads) = match proved {
            Ok(proved) => proved,
            Err(problem) => {
                return self.claims.push(Claim { what: format!("the proof {name}"), problem: Some(problem) });
            }
        };
        let known = self.outside.iter_mut().find(|o| o.checkpoint == checkpoint);
        let assurance = match &known {
            None => Assurance::Checkpointed,
            Some(outside) if outside.witnessed => Assurance::Witnessed,
            Some(_) => Assurance::Anchored,
        };
        if let Some(outside) = known {
            outside.used = true;
        } else if must_be_known {
            let problem = Some("its checkpoint is none of those that were given".into());
            return self.claims.push(Claim { what: format!("the proof {name}"), problem });
        }
        let whose =
            tenant.map_or_else(|| "all chains of all tenants".into(), |t| format!("all chains of tenant \"{t}\""));
        let what = format!("{whose}, as of checkpoint {} ({})", leaf.counter, when(leaf.at));
        self.claims.push(Claim { what, problem: None });
        let entries = heads.iter().fold(0u64, |sum, h| sum.saturating_add(h.seq.max(0) as u64));
        self.heads.extend(heads);
        let tenant = tenant.map(str::to_owned);
        self.held.push(Held { tenant, assurance, counter: leaf.counter, at: leaf.at, entries });
    }

    /// How far that goes for a log that has these entries, those of `others` than are held among them; and, where it ends at a checkpoint, at which, and how many entries came later.
    fn assurance(&self, pinned: bool, entries: u64, others: bool) -> (Assurance, Option<UpTo>) {
        for least in [Assurance::Witnessed, Assurance::Anchored, Assurance::Checkpointed] {
            let held: Vec<&Held> = self.held.iter().filter(|h| h.assurance >= least).collect();
            // Who has no pinned key has only what was kept outside.
            if held.is_empty() || (least == Assurance::Checkpointed && !pinned) {
                continue;
            }
            let newest = |held: &mut dyn Iterator<Item = &&Held>| {
                held.max_by_key(|h| (h.at, h.counter)).map(|h| (h.counter, h.at, h.entries))
            };
            if let Some((counter, at, covered)) = newest(&mut held.iter().filter(|h| h.tenant.is_none())) {
                return (least, Some(UpTo { counter, at, later: entries.saturating_sub(covered) }));
            }
            let mut by_tenant: BTreeMap<&str, (u64, i64, u64)> = BTreeMap::new();
            for tenant in held.iter().filter_map(|h| h.tenant.as_deref()) {
                let mut own = held.iter().filter(|h| h.tenant.as_deref() == Some(tenant));
                by_tenant.extend(newest(&mut own).map(|found| (tenant, found)));
            }
            let all =
                !others && self.held.iter().all(|h| h.tenant.as_deref().is_some_and(|t| by_tenant.contains_key(t)));
            if all && let Some((counter, at, _)) = by_tenant.values().min_by_key(|(_, at, _)| *at) {
                let covered: u64 = by_tenant.values().map(|(_, _, entries)| entries).sum();
                let (counter, at) = (*counter, *at);
                return (least, Some(UpTo { counter, at, later: entries.saturating_sub(covered) }));
            }
        }
        (if pinned { Assurance::Signed } else { Assurance::Chained }, None)
    }
}

/// The outcome, as it is told.
struct Told<'a> {
    arguments: &'a Arguments,
    checked: Checked,
    claims: Vec<Claim>,
    assurance: Option<(Assurance, Option<UpTo>)>,
    keys: BTreeSet<String>,
    /// The digests of the archives.
    archives: Vec<(String, String)>,
    proved: bool,
}

/// Whether all that was asked for is proved.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let mut sources = sources(arguments)?;
    let quiet = arguments.quiet || arguments.json;
    let threads =
        arguments.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |n| n.max(1));
    let pins = (!arguments.unpinned).then_some(&arguments.pin[..]);
    let mut records = Vec::new();
    let archives: Vec<_> = sources
        .iter()
        .filter_map(|s| if let Source::Archive(a) = s { Some((a.name(), a.digest.clone())) } else { None })
        .collect();
    if arguments.partial && !sources.iter().any(|s| matches!(s, Source::Archive(a) if a.manifest.segment.is_some())) {
        return Err("--partial is for archives of segments".into());
    }
    let (checked, against) = if let [Source::Stdin] = sources[..] {
        let bar = input::bar(quiet, None);
        let mut export = Source::Stdin;
        let mut export = export.export(&bar)?;
        records = source::keys(&mut export, "-")?;
        let keys = Keys::new(&records, pins);
        let mut against = held_against(arguments, &keys, &mut [])?;
        let asked = Asked { keys, heads: std::mem::take(&mut against.heads), partial: false, threads };
        let proved = |tenant: &str| against.held.iter().any(|h| h.tenant.as_deref() == Some(tenant));
        let checked = check::once(export, "-", asked, proved)?;
        bar.finish_and_clear();
        (checked, against)
    } else {
        for source in &mut sources {
            records.append(&mut source.keys()?);
        }
        let keys = Keys::new(&records, pins);
        let mut against = held_against(arguments, &keys, &mut sources)?;
        let asked = Asked { keys, heads: std::mem::take(&mut against.heads), partial: arguments.partial, threads };
        let proved = |tenant: &str| against.held.iter().any(|h| h.tenant.as_deref() == Some(tenant));
        (check::all(&mut sources, asked, quiet, proved)?, against)
    };
    let counts = &checked.report.counts;
    let whole = counts.findings == 0 && counts.entries > 0;
    let (entries, others) = (counts.entries, checked.others);
    let Against { mut claims, held, outside, .. } = against;
    let problems = checked.problems.iter();
    claims.extend(problems.map(|p| Claim { what: "the archive is as it was made".into(), problem: Some(p.clone()) }));
    let proved = whole && claims.iter().all(|c| c.problem.is_none());
    let against = Against { held, outside, ..Against::default() };
    let assurance = proved.then(|| against.assurance(pins.is_some(), entries, others));
    let keys = records.iter().map(|r| fingerprint(&r.public_key)).collect();
    let told = Told { arguments, checked, claims, assurance, keys, archives, proved };
    match arguments.json {
        true => println!("{}", told.as_json()),
        false => told.print(),
    }
    Ok(proved)
}

fn sources(arguments: &Arguments) -> Result<Vec<Source>, Failure> {
    let mut urls: Vec<&str> = arguments.database.as_deref().into_iter().collect();
    let mut sources = Vec::new();
    for path in &arguments.export {
        match path.to_str().filter(|text| database::is_url(text)) {
            Some(url) => urls.push(url),
            None => sources.push(Source::open(path)?),
        }
    }
    if sources.len() > 1 && sources.iter().any(|s| matches!(s, Source::Stdin)) {
        return Err("standard input can be read once only: give it alone".into());
    }
    match urls[..] {
        [] if arguments.tenant.is_some() => return Err("--tenant is for a live database".into()),
        [] => {}
        [url] if !sources.iter().any(|s| matches!(s, Source::Stdin)) => {
            let client = database::connect(url, &arguments.safety)?;
            sources.push(Source::Live(Box::new(Live::begin(client, arguments.tenant.clone())?)));
        }
        _ => return Err("one database at a time, and not with standard input".into()),
    }
    Ok(sources)
}

/// Checks proofs and notes; gives what the log must hold by those that are right.
fn held_against(arguments: &Arguments, keys: &Keys, sources: &mut [Source]) -> Result<Against, Failure> {
    let mut against = Against::default();
    if let Some(path) = &arguments.heads {
        against.heads = export::read_heads(&input::small(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    for path in &arguments.checkpoint {
        let what = format!("the checkpoint {}", path.display());
        match proof::outside(&input::small(path)?, &path.display().to_string(), keys)? {
            Ok(checkpoint) => {
                let mut seen = Vec::new();
                for witness in &arguments.witness {
                    seen.push(witnessed(path, witness)?);
                }
                let witnessed = !seen.is_empty() && seen.iter().all(|claim| claim.problem.is_none());
                against.claims.append(&mut seen);
                against.outside.push(Outside { path: path.clone(), what, checkpoint, witnessed, used: false });
            }
            Err(problem) => against.claims.push(Claim { what, problem: Some(problem) }),
        }
    }
    for path in &arguments.proof {
        let given = proof::read(path)?;
        let must_be_known = !arguments.checkpoint.is_empty();
        of_tenant(&mut against, &path.display().to_string(), &given, keys, must_be_known);
    }
    for source in sources {
        match source {
            Source::Archive(archive) => {
                let name = archive.name();
                for given in &archive.manifest.proofs {
                    of_tenant(&mut against, &name, given, keys, false);
                }
                for given in &archive.manifest.checkpoints {
                    let mut map = Map::default();
                    archive.lines(&given.heads, |tenant| map.add(tenant))?;
                    of_all(&mut against, &name, &given.leaf, &given.tlog_proof, map, keys);
                }
            }
            Source::Live(live) => of_database(&mut against, live, keys)?,
            Source::Stdin | Source::File(_) => {}
        }
    }
    for Outside { what, used, .. } in against.outside.iter().filter(|o| !o.used) {
        // What the database said to it is a claim already.
        if !against.claims.iter().any(|c| c.what == *what) {
            let problem =
                (!used).then(|| "no proof is of this checkpoint: custody export --checkpoint puts one in".into());
            against.claims.push(Claim { what: what.clone(), problem });
        }
    }
    Ok(against)
}

fn of_tenant(against: &mut Against, name: &str, given: &TenantProof, keys: &Keys, must_be_known: bool) {
    let proved = given.verify(keys).map(|checkpoint| (checkpoint, given.kept().collect()));
    against.proof(name, Some(&given.tenant), &given.leaf, proved, must_be_known);
}

/// The map of all tenants at a checkpoint, as it is read.
#[derive(Default)]
struct Map {
    tree: Tree,
    heads: Vec<Head>,
    before: Option<String>,
    unsorted: bool,
}

impl Map {
    fn add(&mut self, TenantHeads { tenant, heads }: TenantHeads) {
        self.unsorted |= self.before.as_ref().is_some_and(|before| before.as_bytes() >= tenant.as_bytes())
            || !heads.is_sorted_by(|a, b| (a.incarnation, a.lane) < (b.incarnation, b.lane));
        self.tree.push(map_leaf(&tenant, &heads_digest(&tenant, &heads)));
        self.heads.extend(kept(&tenant, &heads));
        self.before = Some(tenant);
    }
}

fn of_all(against: &mut Against, name: &str, leaf: &Leaf, tlog_proof: &str, map: Map, keys: &Keys) {
    let right = !map.unsorted && map.tree.size() == leaf.tenants && map.tree.root() == leaf.map;
    let proved = signed_leaf(leaf, tlog_proof, keys).and_then(|checkpoint| match right {
        true => Ok((checkpoint, map.heads)),
        false => Err("these are not the heads of all tenants at its checkpoint".into()),
    });
    against.proof(name, None, leaf, proved, false);
}

/// Asks the database for its side of each note that was given, and of its own last ones.
fn of_database(against: &mut Against, live: &mut Live, keys: &Keys) -> Result<(), Failure> {
    let mut notes = Vec::new();
    for outside in &against.outside {
        let note = String::from_utf8(input::small(&outside.path)?)?;
        notes.push((note, outside.what.clone(), Some(outside.checkpoint.clone())));
    }
    for note in live.last_notes()? {
        notes.push((note, "the checkpoint that the database has".into(), None));
    }
    for (note, what, given) in notes {
        let known = |o: &Outside| o.used && Some(&o.checkpoint) == proof::claimed(note.as_bytes()).as_ref();
        if given.is_none() && against.outside.iter().any(known) {
            continue;
        }
        let mut map = Map::default();
        let offer = live.offer(&note, &what, |tenant| {
            map.add(tenant);
            Ok(())
        })?;
        match offer {
            Err(problem) => against.claims.push(Claim { what, problem: Some(problem) }),
            Ok(None) if given.is_none() => {}
            Ok(None) => against.claims.push(Claim { what, problem: Some("it knows no such tenant".into()) }),
            Ok(Some(Offer::Tenant(given))) => of_tenant(against, "that the database gives", &given, keys, false),
            Ok(Some(Offer::All(leaf, tlog_proof))) => {
                of_all(against, "that the database gives", &leaf, &tlog_proof, map, keys)
            }
        }
    }
    Ok(())
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

impl Told<'_> {
    fn print(&self) {
        let (report, counts) = (&self.checked.report, &self.checked.report.counts);
        for finding in &report.findings {
            println!("{}", line(finding));
        }
        if counts.findings > report.findings.len() as u64 {
            println!("… and {} more", counts.findings - report.findings.len() as u64);
        }
        for notice in &report.notices {
            println!("notice: {}", line(notice));
        }
        for (name, digest) in &self.archives {
            println!("archive {name}: {digest}");
        }
        for claim in &self.claims {
            match &claim.problem {
                None => println!("proved: {}", claim.what),
                Some(problem) => println!("NOT PROVED: {}: {problem}", claim.what),
            }
        }
        let mut text = format!(
            "{}: {} entries in {} chains, {} signatures hold, {}; {}",
            if self.proved { "valid" } else { "NOT VALID" },
            counts.entries,
            counts.chains,
            counts.signatures,
            match counts.findings {
                0 => "no finding".to_owned(),
                1 => "1 finding".to_owned(),
                n => format!("{n} findings"),
            },
            if self.arguments.unpinned { "key not pinned" } else { "key pinned" },
        );
        if counts.begun > 0 {
            text += &format!("; {} chains begin in the middle: nothing is said of what came before", counts.begun);
        }
        if self.arguments.heads.is_none() && self.claims.is_empty() {
            text += "; no heads or proof given: a chain cut at its end is not seen";
        }
        if let Some((assurance, up_to)) = &self.assurance {
            text += &format!("; assurance: {}", assurance.name());
            if let Some(UpTo { counter, at, later }) = up_to {
                text += &format!(", up to checkpoint {counter} ({})", when(*at));
                if *later > 0 {
                    text += &format!("; {later} entries after it are no more than signed");
                }
            }
        }
        println!("{text}");
    }

    fn as_json(&self) -> Value {
        let (report, counts) = (&self.checked.report, &self.checked.report.counts);
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
        let claims = self.claims.iter();
        let claims = claims.map(|c| json!({"claim": c.what, "proved": c.problem.is_none(), "problem": c.problem}));
        let archives = self.archives.iter().map(|(name, digest)| json!({"name": name, "digest": digest}));
        let up_to = self.assurance.as_ref().and_then(|(_, up_to)| *up_to);
        json!({
            "proved": self.proved,
            "assurance": self.assurance.as_ref().map(|(assurance, _)| assurance.name()),
            "up_to_checkpoint": up_to.map(|UpTo { counter, at, later }| json!({"counter": counter, "at": when(at), "entries_after": later})),
            "entries": counts.entries,
            "chains": counts.chains,
            "begin_in_the_middle": counts.begun,
            "signatures": counts.signatures,
            "incarnations": counts.by_incarnation.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "pinned": !self.arguments.unpinned,
            "keys": self.keys,
            "notices": report.notices.iter().map(|n| json!({"verdict": n.verdict.to_string(), "detail": n.detail})).collect::<Vec<_>>(),
            "archives": archives.collect::<Vec<_>>(),
            "findings_in_all": counts.findings,
            "findings": findings.collect::<Vec<_>>(),
            "claims": claims.collect::<Vec<_>>(),
        })
    }
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
