//! Where the clusters live: on a file system whose fsync is real; and that they go away.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custody_harness::{Cluster, Installation, Result, must};

/// What a Unix socket's path may have at most, less the socket's own name.
const LONGEST_DIRECTORY: usize = 107 - "/.s.PGSQL.5432".len();

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What runs now, for whoever interrupts.
static RUNNING: Mutex<Vec<(Installation, PathBuf)>> = Mutex::new(Vec::new());

/// A directory for clusters, removed when this is dropped.
pub struct Place {
    pub dir: PathBuf,
    pub file_system: String,
    /// Median of a write of 8 kB and its fdatasync.
    pub sync_microseconds: f64,
}

impl Place {
    /// Beside the stage if fsync is real there and a socket's path short enough, else under /var/tmp.
    pub fn beside(stage: &Path) -> Result<Self> {
        let stage = stage.canonicalize().map_err(|e| format!("{}: {e}; run make stage", stage.display()))?;
        let beside = stage.parent().ok_or("the stage has no directory beside it")?.to_owned();
        for parent in [beside, PathBuf::from("/var/tmp")] {
            let file_system = must(Command::new("stat").args(["--file-system", "--format=%T"]).arg(&parent))?;
            let file_system = String::from_utf8_lossy(&file_system.stdout).trim().to_owned();
            let dir = parent.join(format!("cluster-{}", std::process::id()));
            if matches!(file_system.as_str(), "tmpfs" | "ramfs") || dir.as_os_str().len() + 3 > LONGEST_DIRECTORY {
                continue;
            }
            // Whoever reaches a socket is superuser, so the clusters' directories are private; this one only holds them.
            fs::create_dir_all(&dir)?;
            let sync_microseconds = time_of_sync(&dir)?;
            ctrlc::set_handler(|| {
                INTERRUPTED.store(true, Ordering::SeqCst);
                println!("\nInterrupted: stopping the clusters and removing them.");
                clear();
                std::process::exit(130);
            })?;
            return Ok(Self { dir, file_system, sync_microseconds });
        }
        Err("neither the stage's directory nor /var/tmp is on a file system whose fsync is real".into())
    }

    /// Makes and starts a cluster.
    pub fn cluster(&self, installation: &Installation, name: &str, settings: &[&str]) -> Result<Cluster> {
        let dir = self.dir.join(name);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        RUNNING.lock().map_err(|e| e.to_string())?.push((installation.clone(), dir.clone()));
        Cluster::lasting(installation, &dir, settings)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        clear();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// After a failure: if an interrupt was its cause, the handler has the last word.
pub fn wait_if_interrupted() {
    // ^C reaches our children too, and they may be faster than the handler.
    std::thread::sleep(Duration::from_millis(100));
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn clear() {
    let Ok(mut running) = RUNNING.lock() else { return };
    for (installation, dir) in running.drain(..) {
        let cluster = Cluster::existing(&installation, &dir);
        if cluster.is_running()
            && let Err(e) = cluster.stop()
        {
            eprintln!("{} still runs: {e}", dir.display());
            continue;
        }
        let _ = fs::remove_dir_all(&dir);
        let _ = dir.parent().map(fs::remove_dir);
    }
}

fn time_of_sync(dir: &Path) -> Result<f64> {
    let path = dir.join("sync");
    let mut file = fs::File::create(&path)?;
    let mut samples = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&[0; 8192])?;
        file.sync_data()?;
        samples.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    Ok(crate::report::median(&samples))
}
