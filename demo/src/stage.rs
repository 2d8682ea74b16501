//! Where the demo's cluster lives, and that it goes away when it should.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use custody_harness::{Cluster, Installation, Result};

use crate::print;

/// What a Unix socket's path may have at most, less the socket's own name.
const LONGEST_DIRECTORY: usize = 107 - "/.s.PGSQL.5432".len();

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Held while the cluster is being made or removed, so that an interrupt finds it whole or not at all.
static CHANGING: Mutex<()> = Mutex::new(());

/// An installation, and the directory beside it that the demo's cluster is in.
#[derive(Clone)]
pub struct Place {
    installation: Installation,
    dir: PathBuf,
}

impl Place {
    pub fn beside(stage: &Path) -> Result<Self> {
        let stage = stage.canonicalize().map_err(|e| format!("{}: {e}; run make stage", stage.display()))?;
        let dir = stage.parent().ok_or("the stage has no directory beside it")?.join("demo");
        if dir.as_os_str().len() > LONGEST_DIRECTORY {
            return Err(format!(
                "{} is too long a path for a Unix socket (at most {LONGEST_DIRECTORY} bytes)",
                dir.display()
            )
            .into());
        }
        Ok(Self { installation: Installation::at(&stage)?, dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn existing(&self) -> Cluster {
        Cluster::existing(&self.installation, &self.dir)
    }

    /// A fresh cluster, after removing an older one.
    pub fn make(&self) -> Result<Stage> {
        self.clear()?;
        let stage = Stage { place: self.clone(), cluster: self.existing(), keep: false };
        let _changing = CHANGING.lock();
        // Whoever reaches the socket is superuser, so nobody else may.
        fs::DirBuilder::new().mode(0o700).create(&self.dir).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        Cluster::lasting(&self.installation, &self.dir, &["fsync = off"])?;
        Ok(stage)
    }

    /// Stops the cluster, if it runs, and removes it.
    pub fn clear(&self) -> Result<()> {
        let _changing = CHANGING.lock();
        let cluster = self.existing();
        if cluster.is_running() {
            cluster.stop()?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(format!("{} cannot be removed: {e}", self.dir.display()).into())
            }
            _ => Ok(()),
        }
    }
}

/// A running cluster, removed when this is dropped unless it is kept.
pub struct Stage {
    place: Place,
    cluster: Cluster,
    keep: bool,
}

impl Stage {
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn keep(&mut self) {
        self.keep = true;
    }

    pub fn remove(mut self) -> Result<()> {
        self.keep = true;
        self.place.clear()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = self.place.clear()
        {
            print::failure(&e.to_string());
        }
    }
}

/// On ^C and the like: removes the cluster and ends the process.
pub fn on_interrupt(place: Place) -> Result<()> {
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        print::line("\nInterrupted: stopping the cluster and removing it.");
        if let Err(e) = place.clear() {
            print::failure(&e.to_string());
        }
        std::process::exit(130);
    })?;
    Ok(())
}

/// After a failure: if an interrupt was its cause, the handler has the last word.
pub fn wait_if_interrupted() {
    // ^C reaches our children too, and they may be faster than the handler.
    std::thread::sleep(Duration::from_millis(100));
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
}
