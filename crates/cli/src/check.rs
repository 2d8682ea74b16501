//! Verification of whatever sources there are: a sweep with all cores, and then a walk along the chains that it could not clear.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use custody_core::export::manifest::Place;
use custody_core::export::{MAX_LINE, Reader, Record, Unreadable};
use custody_core::sweep::{Part, Stretch, Sweep, Whole};
use custody_core::verify::{ChainId, Head, Keys, Report, Verifier};
use indicatif::ProgressBar;

use crate::archive::Archive;
use crate::source::{self, Export, Source, Stream};
use crate::{Failure, input};

/// About so many bytes are checked at once.
const BATCH: usize = 1 << 20;

/// What the log is to be held against.
pub struct Asked {
    pub keys: Keys,
    pub heads: Vec<Head>,
    /// Whether chains may begin in the middle.
    pub partial: bool,
    pub threads: usize,
}

impl Asked {
    fn verifier(&mut self) -> Verifier {
        Verifier::with_keys(self.keys.clone(), std::mem::take(&mut self.heads)).partial(self.partial)
    }
}

pub struct Checked {
    pub report: Report,
    /// Whether the log has entries of a tenant, of which is asked.
    pub others: bool,
    /// What does not fit what a manifest says.
    pub problems: Vec<String>,
}

/// Checks one export from where it stands, on one thread: for what can be read only once.
pub fn once(export: Export<'_>, name: &str, mut asked: Asked, ours: impl Fn(&str) -> bool) -> Result<Checked, Failure> {
    let mut verifier = asked.verifier();
    let mut exports = [(export, name.to_owned())];
    let mut others = false;
    merged(&mut exports, |export| {
        if let Some(e) = export.current() {
            others |= !ours(e.tenant);
            verifier.entry(&e);
        }
    })?;
    Ok(Checked { report: verifier.finish(), others, problems: Vec::new() })
}

/// Checks all sources as one log.
pub fn all(
    sources: &mut [Source],
    mut asked: Asked,
    quiet: bool,
    ours: impl Fn(&str) -> bool,
) -> Result<Checked, Failure> {
    let length = sources.iter().map(Source::length).try_fold(0, |sum: u64, length| Some(sum.saturating_add(length?)));
    let bar = input::bar(quiet, length);
    let sweep = Sweep::new(asked.keys.clone(), &asked.heads).partial(asked.partial);
    let (whole, mut problems) = swept(sources, &sweep, asked.threads, &bar)?;
    bar.finish_and_clear();
    let others = whole.chains().any(|chain| !ours(&chain.tenant));
    let swept = sweep.finish(whole);
    let mut verifier = asked.verifier();
    verifier.add_clear(&swept.clear);
    verifier.forget_heads_but(&swept.doubtful);
    if !swept.doubtful.is_empty() {
        let bar = input::bar(quiet, length).with_message("looking closer");
        let mut exports = Vec::new();
        for source in sources.iter_mut() {
            let name = source.name();
            let mut export = source.export(&bar)?;
            source::keys(&mut export, &name)?;
            exports.push((export, name));
        }
        let mut current: Option<(ChainId, bool)> = None;
        merged(&mut exports, |export| {
            let Some(e) = export.current() else { return };
            let known = current
                .as_ref()
                .filter(|(c, _)| c.lane == e.lane && c.incarnation == e.incarnation && c.tenant == e.tenant);
            let doubtful = match known {
                Some((_, doubtful)) => *doubtful,
                None => {
                    let chain = ChainId { incarnation: e.incarnation, tenant: e.tenant.to_owned(), lane: e.lane };
                    let doubtful = swept.doubtful.binary_search(&chain).is_ok();
                    current = Some((chain, doubtful));
                    doubtful
                }
            };
            if doubtful {
                verifier.entry(&e);
            }
        })?;
        bar.finish_and_clear();
    }
    for source in sources {
        if let Source::Archive(archive) = source {
            problems.append(&mut archive.problems.borrow_mut());
        }
    }
    problems.sort();
    problems.dedup();
    Ok(Checked { report: verifier.finish(), others, problems })
}

/// Goes through several exports as through one, in order. They stand at their first entries.
fn merged(exports: &mut [(Export<'_>, String)], mut each: impl FnMut(&Export<'_>)) -> Result<(), Failure> {
    let mut alive: Vec<bool> = exports.iter().map(|(export, _)| export.current().is_some()).collect();
    loop {
        let left = (0..exports.len()).filter(|i| alive[*i]);
        let Some(next) = left.min_by(|a, b| exports[*a].0.place().cmp(&exports[*b].0.place())) else { return Ok(()) };
        let (export, name) = &mut exports[next];
        each(export);
        alive[next] = export.next_record().map_err(|e| format!("{name}: {e}"))?.is_some();
    }
}

/// What was found in a batch.
struct Found {
    part: Part,
    lines: u64,
    keys: bool,
    ends: Option<(Place, Place)>,
    error: Option<Unreadable>,
}

fn place<R: BufRead>(reader: &Reader<R>) -> Option<Place> {
    reader.place().map(|(tenant, incarnation, lane, seq)| Place(tenant.to_owned(), incarnation, lane, seq))
}

fn examine(sweep: &Sweep, batch: &[u8]) -> Found {
    let mut reader = Reader::new(batch);
    let mut found = Found { part: Part::default(), lines: 0, keys: false, ends: None, error: None };
    let mut first = None;
    loop {
        match reader.next_record() {
            Ok(Some(Record::Entry(e))) => sweep.entry(&mut found.part, &e),
            Ok(Some(Record::Key(_))) => found.keys = true,
            Ok(None) => break,
            Err(e) => {
                found.error = Some(e);
                break;
            }
        }
        found.lines += 1;
        if first.is_none() {
            first = place(&reader);
        }
    }
    found.ends = first.zip(place(&reader));
    found
}

type Job = (usize, Vec<u8>);

/// Checks all entries, each for itself, and how they hang together; and holds archives against their manifests.
fn swept(
    sources: &mut [Source],
    sweep: &Sweep,
    threads: usize,
    bar: &ProgressBar,
) -> Result<(Whole, Vec<String>), Failure> {
    let helpers = threads.saturating_sub(1);
    thread::scope(|scope| {
        let (jobs, to_do) = sync_channel::<Job>(2 * helpers.max(1));
        let (results, found) = channel::<(Found, Job)>();
        let to_do = Arc::new(Mutex::new(to_do));
        for _ in 0..helpers {
            let (to_do, results) = (to_do.clone(), results.clone());
            scope.spawn(move || help(sweep, &to_do, &results));
        }
        drop((to_do, results));
        let mut desk = Desk { sweep, jobs, found, spare: Vec::new() };
        let (mut whole, mut problems) = (Whole::default(), Vec::new());
        for source in sources {
            let (mut here, mut before) = (Whole::default(), None);
            for number in 0.. {
                let Some(stream) = source.stream(number, bar)? else { break };
                desk.stream(stream, &mut here, &mut before, &mut problems)?;
            }
            if let Source::Archive(archive) = source {
                problems.extend(other_chains(archive, &here)?);
            }
            whole.absorb(here);
        }
        Ok((whole, problems))
    })
}

/// A thread's work: batches until there are no more.
fn help(sweep: &Sweep, jobs: &Mutex<Receiver<Job>>, results: &Sender<(Found, Job)>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let found = examine(sweep, &job.1);
        if results.send((found, job)).is_err() {
            return;
        }
    }
}

/// Hands batches out, and takes what was found in them in their order.
struct Desk<'a> {
    sweep: &'a Sweep,
    jobs: SyncSender<Job>,
    found: Receiver<(Found, Job)>,
    spare: Vec<Vec<u8>>,
}

/// What is known of a stream so far.
struct Progress<'a> {
    stream: &'a str,
    keys_first: bool,
    /// The batch that is to be taken next, and those that came in before it.
    next: usize,
    early: BTreeMap<usize, Found>,
    lines: u64,
    first: Option<Place>,
    before: &'a mut Option<Place>,
    whole: &'a mut Whole,
}

impl Progress<'_> {
    fn take(&mut self, number: usize, found: Found) -> Result<(), Failure> {
        self.early.insert(number, found);
        while let Some(found) = self.early.remove(&self.next) {
            self.next += 1;
            let because = |line: u64, why: &dyn std::fmt::Display| format!("{}: line {line}: {why}", self.stream);
            if let Some(e) = found.error {
                return Err(because(self.lines + e.line, &e.problem).into());
            }
            if found.keys && (!self.keys_first || self.first.is_some()) {
                return Err(because(self.lines + 1, &"a key after the first entry").into());
            }
            if let Some((first, last)) = found.ends {
                if self.before.as_ref().is_some_and(|before| first < *before) {
                    return Err(because(self.lines + 1, &custody_core::export::Problem::NotSorted).into());
                }
                self.first.get_or_insert(first);
                *self.before = Some(last);
            }
            self.lines += found.lines;
            self.whole.add(found.part);
        }
        Ok(())
    }
}

impl Desk<'_> {
    fn stream(
        &mut self,
        stream: Stream<'_>,
        whole: &mut Whole,
        before: &mut Option<Place>,
        problems: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let Stream { name, lines, keys_first, ends } = stream;
        let mut batches = Batches { lines, rest: Vec::new() };
        let (next, early) = (0, BTreeMap::new());
        let mut progress = Progress { stream: &name, keys_first, next, early, lines: 0, first: None, before, whole };
        let (mut read, mut out) = (0, 0usize);
        loop {
            let mut batch = self.spare.pop().unwrap_or_default();
            if !batches.fill(&mut batch).map_err(|e| format!("{name}: {e}"))? {
                break;
            }
            match self.jobs.try_send((read, batch)) {
                Ok(()) => out += 1,
                Err(TrySendError::Full((number, batch)) | TrySendError::Disconnected((number, batch))) => {
                    progress.take(number, examine(self.sweep, &batch))?;
                    self.spare.push(batch);
                }
            }
            read += 1;
            while let Ok((found, (number, batch))) = self.found.try_recv() {
                out -= 1;
                progress.take(number, found)?;
                self.spare.push(batch);
            }
        }
        while out > 0 {
            let (found, (number, batch)) = self.found.recv().map_err(|_| "a thread ended before its time")?;
            out -= 1;
            progress.take(number, found)?;
            self.spare.push(batch);
        }
        if let Some((first, last)) = ends
            && (progress.first.as_ref(), progress.before.as_ref()) != (Some(&first), Some(&last))
        {
            problems.push(format!("{name}: its entries do not stand where the manifest says"));
        }
        Ok(())
    }
}

/// Whole lines, about a megabyte at a time.
struct Batches<'a> {
    lines: Box<dyn BufRead + 'a>,
    rest: Vec<u8>,
}

impl Batches<'_> {
    fn fill(&mut self, batch: &mut Vec<u8>) -> io::Result<bool> {
        batch.clear();
        batch.append(&mut self.rest);
        loop {
            let chunk = self.lines.fill_buf()?;
            if chunk.is_empty() {
                return Ok(!batch.is_empty());
            }
            let length = chunk.len();
            if batch.len() + length >= BATCH
                && let Some(feed) = chunk.iter().rposition(|b| *b == b'\n')
            {
                batch.extend_from_slice(&chunk[..=feed]);
                self.rest.extend_from_slice(&chunk[feed + 1..]);
                self.lines.consume(length);
                return Ok(true);
            }
            if batch.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            batch.extend_from_slice(chunk);
            self.lines.consume(length);
        }
    }
}

/// The first chain that is not what the archive's own list says of it. Those in doubt are looked at anyway.
fn other_chains(archive: &Archive, whole: &Whole) -> Result<Option<String>, Failure> {
    let (mut seen, mut before, mut problem) = (0, None, None);
    archive.chains(|said| {
        seen += 1;
        let id = ChainId { incarnation: said.incarnation, tenant: said.tenant, lane: said.lane };
        let stretch = Stretch { first: said.first, prev_hash: said.prev_hash, last: said.last, hash: said.hash };
        let place = (id.tenant.clone(), id.incarnation, id.lane);
        let sorted = before.as_ref().is_none_or(|before| *before < place);
        before = Some(place);
        // Only in a segment may it begin in the middle.
        let begins = said.first == 1 || archive.manifest.segment.is_some();
        if !sorted || !(whole.doubts(&id) || (begins && whole.stretch(&id) == Some(stretch))) {
            problem.get_or_insert_with(|| {
                format!("tenant {:?}, lane {}, incarnation {}", id.tenant, id.lane, id.incarnation)
            });
        }
    })?;
    let problem = match problem {
        None if seen != whole.chains().len() => Some("others are there".into()),
        other => other,
    };
    let file = &archive.manifest.chains.file;
    Ok(problem.map(|which| archive.because(file, &format!("it does not say which chains are there: {which}"))))
}
