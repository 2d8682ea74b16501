//! The first pass of verification: reads the log as it lies on disk, and clears what is beyond doubt on several threads.
//!
//! This thread reads pages, as only it may speak to PostgreSQL; it hands copies of tuples to the others, and checks a batch itself
//! whenever they are busy.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use custody_core::sweep::{Part, Sweep, Swept, Whole};

use crate::error::{Error, Result};
use crate::pg::layout::{self, Odd};
use crate::pg::pages::{Batch, Pages, without_signals};
use crate::pg::session;
use crate::settings;

/// Pages whose tuples another thread gets at once.
const PAGES: usize = 32;
/// How often a long verification says how far it is.
const NOTICE_EVERY: Duration = Duration::from_secs(5);

/// What was found in a batch.
#[derive(Default)]
struct Found {
    part: Part,
    /// Tuples with values that PostgreSQL has to fetch first.
    toasted: Vec<Vec<u8>>,
    /// Tuples that the extension cannot have written.
    unreadable: bool,
    guard_lifted: u64,
}

/// What the sweep says of the log.
pub struct Outcome {
    pub swept: Swept,
    /// Something in the table is not an entry at all, or rows are elsewhere: nothing is cleared then.
    pub unreadable: bool,
    pub guard_lifted: u64,
}

struct Check<'a> {
    sweep: &'a Sweep,
    tenant: Option<&'a str>,
}

impl Check<'_> {
    fn tuples<'t>(&self, found: &mut Found, tuples: impl Iterator<Item = &'t [u8]>) {
        for tuple in tuples {
            match layout::decode(tuple) {
                Ok(e) if self.tenant.is_none_or(|t| t == e.tenant) => {
                    found.guard_lifted += u64::from(e.op == "GUARD_OFF");
                    self.sweep.entry(&mut found.part, &e);
                }
                Ok(_) => {}
                Err(Odd::Toasted) => found.toasted.push(tuple.to_vec()),
                Err(Odd::Unreadable) => found.unreadable = true,
            }
        }
    }

    fn batch(&self, batch: &Batch) -> Found {
        let mut found = Found::default();
        self.tuples(&mut found, batch.tuples());
        found
    }
}

/// Sweeps the log, or one tenant's chains.
pub fn sweep(sweep: &Sweep, tenant: Option<&str>) -> Result<Outcome> {
    let check = Check { sweep, tenant };
    let mut pages = Pages::open()?;
    let mut gathered = Gathered::new();
    gathered.unreadable = pages.has_children || !pages.as_installed;
    if !pages.as_installed {
        pages.count = 0;
    }
    // A few pages are not worth a thread.
    let helpers = match pages.count {
        0..256 => 0,
        _ => settings::verify_workers() - 1,
    };
    match helpers {
        0 => alone(&check, &mut pages, &mut gathered),
        _ => with_helpers(helpers, &check, &mut pages, &mut gathered)?,
    }
    let swept = sweep.finish(gathered.whole);
    Ok(Outcome { swept, unreadable: gathered.unreadable, guard_lifted: gathered.guard_lifted })
}

/// Reads and checks. A page is copied first: in one go from memory it comes faster than value by value.
fn alone(check: &Check<'_>, pages: &mut Pages, gathered: &mut Gathered) {
    let mut batch = Batch::default();
    while pages.read() < pages.count {
        session::check_for_interrupts();
        let mut found = Found::default();
        for _ in 0..PAGES {
            let Some(page) = pages.next_page() else { break };
            batch.clear();
            batch.add(&page);
            drop(page);
            check.tuples(&mut found, batch.tuples());
        }
        gathered.take(check, pages, found);
    }
}

fn with_helpers(helpers: usize, check: &Check<'_>, pages: &mut Pages, gathered: &mut Gathered) -> Result<()> {
    thread::scope(|scope| {
        let (batches, to_check) = sync_channel::<Batch>(2 * helpers);
        let (results, checked) = channel::<(Found, Batch)>();
        let to_check = Arc::new(Mutex::new(to_check));
        without_signals(|| {
            for _ in 0..helpers {
                let (to_check, results) = (to_check.clone(), results.clone());
                let help = move || help(check, &to_check, &results);
                // Where no more threads are to be had, it goes on with those that are there.
                if thread::Builder::new().spawn_scoped(scope, help).is_err() {
                    break;
                }
            }
        });
        drop((results, to_check));
        hand_out(check, pages, &batches, &checked, gathered);
        drop(batches);
        for (found, _) in checked {
            gathered.take(check, pages, found);
            gathered.handed_out -= 1;
        }
        match gathered.handed_out {
            0 => Ok(()),
            _ => Err(Error::internal("a thread of the verification ended before its time")),
        }
    })
}

/// A thread's work: batches until there are no more.
fn help(check: &Check<'_>, batches: &Mutex<Receiver<Batch>>, results: &Sender<(Found, Batch)>) {
    loop {
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        let found = check.batch(&batch);
        if results.send((found, batch)).is_err() {
            return;
        }
    }
}

/// What all threads have found so far.
struct Gathered {
    whole: Whole,
    unreadable: bool,
    guard_lifted: u64,
    /// Batches that other threads have not answered yet.
    handed_out: usize,
    told: Instant,
}

impl Gathered {
    fn new() -> Self {
        let told = Instant::now();
        Self { whole: Whole::default(), unreadable: false, guard_lifted: 0, handed_out: 0, told }
    }

    fn take(&mut self, check: &Check<'_>, pages: &Pages, found: Found) {
        self.whole.add(found.part);
        self.unreadable |= found.unreadable;
        self.guard_lifted += found.guard_lifted;
        for tuple in found.toasted {
            session::check_for_interrupts();
            let mut found = Found::default();
            check.tuples(&mut found, std::iter::once(&pages.plain(&tuple)[..]));
            self.whole.add(found.part);
            self.guard_lifted += found.guard_lifted;
            self.unreadable |= found.unreadable || !found.toasted.is_empty();
        }
        if self.told.elapsed() > NOTICE_EVERY {
            self.told = Instant::now();
            let (entries, read, count) = (self.whole.entries(), pages.read(), pages.count);
            session::notice(&format!("verified {entries} entries so far, in {read} of {count} pages"));
        }
    }
}

/// Reads all pages and hands them out; checks a batch itself whenever the others are busy.
fn hand_out(
    check: &Check<'_>,
    pages: &mut Pages,
    batches: &SyncSender<Batch>,
    checked: &Receiver<(Found, Batch)>,
    gathered: &mut Gathered,
) {
    let mut spare: Vec<Batch> = Vec::new();
    while pages.read() < pages.count {
        session::check_for_interrupts();
        let mut batch = spare.pop().unwrap_or_default();
        batch.clear();
        for _ in 0..PAGES {
            let Some(page) = pages.next_page() else { break };
            batch.add(&page);
        }
        match batches.try_send(batch) {
            Ok(()) => gathered.handed_out += 1,
            // Disconnected: there is no other.
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                gathered.take(check, pages, check.batch(&batch));
                spare.push(batch);
            }
        }
        while let Ok((found, batch)) = checked.try_recv() {
            gathered.take(check, pages, found);
            gathered.handed_out -= 1;
            spare.push(batch);
        }
    }
}
