//! A backend's own memory while it works.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use custody_harness::Result;
use postgres::Client;

/// Watches a backend's resident anonymous memory, which leaves shared buffers out, until it is asked.
pub struct Watch {
    done: Arc<AtomicBool>,
    watcher: JoinHandle<u64>,
    before: u64,
}

impl Watch {
    pub fn of(client: &mut Client) -> Result<Self> {
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let before = anonymous(pid).ok_or("the backend's memory cannot be read under /proc")?;
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        let watcher = std::thread::spawn(move || {
            let mut peak = before;
            while !flag.load(Ordering::Relaxed) {
                peak = peak.max(anonymous(pid).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(4));
            }
            peak
        });
        Ok(Self { done, watcher, before })
    }

    /// MB at the peak beyond what there was at the beginning.
    pub fn growth(self) -> Result<f64> {
        self.done.store(true, Ordering::Relaxed);
        let peak = self.watcher.join().map_err(|_| "the watcher failed")?;
        Ok((peak - self.before) as f64 / 1024.0)
    }
}

/// RssAnon in kB.
fn anonymous(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
