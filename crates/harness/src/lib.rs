//! Private PostgreSQL clusters: made, started, killed and thrown away. Nothing of the system's is touched.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// PostgreSQL refuses to run as root, so root lends it to one of these.
const SERVER_USERS: [&str; 2] = ["postgres", "nobody"];

/// A PostgreSQL installation that `tools/stage` copied, pg_custody included.
#[derive(Clone, Debug)]
pub struct Installation {
    bin: PathBuf,
    server_user: Option<&'static str>,
}

impl Installation {
    /// The one under a stage directory.
    pub fn at(stage: &Path) -> Result<Self> {
        let pg_config = fs::read_to_string(stage.join("pg_config"))
            .map_err(|e| format!("{} is no stage: {e}; run make stage", stage.display()))?;
        let bin = Path::new(pg_config.trim()).parent().ok_or("pg_config has no directory")?.to_owned();
        let root = String::from_utf8_lossy(&Command::new("id").arg("-u").output()?.stdout).trim() == "0";
        let known = |user: &&str| Command::new("id").arg(user).output().is_ok_and(|o| o.status.success());
        let server_user = match root {
            true => Some(*SERVER_USERS.iter().find(|u| known(u)).ok_or("no user to run PostgreSQL as")?),
            false => None,
        };
        Ok(Self { bin, server_user })
    }

    /// A program of this installation, as the server's user.
    pub fn program(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let mut command = match self.server_user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        // Backtraces would be appended to the DETAIL of errors.
        command.env_remove("RUST_BACKTRACE").env("LC_ALL", "C.UTF-8").current_dir("/");
        command
    }

    /// Where its programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A client program, as whoever runs this.
    pub fn client(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// Gives a file or directory to the server's user.
    pub fn hand_over(&self, path: &Path) -> Result<()> {
        if let Some(user) = self.server_user {
            must(Command::new("chown").arg("-R").arg(user).arg(path))?;
        }
        Ok(())
    }
}

/// Runs a command and gives its output, or an error that quotes what it said.
pub fn must(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!(
            "{command:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
        .into()),
    }
}

/// A cluster of our own, on a Unix socket.
pub struct Cluster {
    installation: Installation,
    dir: PathBuf,
    port: u16,
    keep: bool,
}

/// The superuser that initdb makes.
pub const SUPERUSER: &str = "postgres";

impl Cluster {
    /// Makes and starts a cluster under a new temporary directory, removed when this is dropped.
    pub fn temporary(installation: &Installation, settings: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("custody-").tempdir_in("/tmp")?.keep();
        Self::create(installation, &dir, settings, false)
    }

    /// Makes and starts a cluster in a directory, which stays.
    pub fn lasting(installation: &Installation, dir: &Path, settings: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        Self::create(installation, dir, settings, true)
    }

    /// A copy of this running cluster under a new temporary directory, by pg_basebackup, not started yet.
    pub fn base_backup(&self, arguments: &[&str]) -> Result<Self> {
        let copy = self.empty()?;
        must(
            self.installation
                .program("pg_basebackup")
                .arg("--host")
                .arg(&self.dir)
                .args(["--username", SUPERUSER, "--checkpoint=fast", "--wal-method=stream", "--no-sync"])
                .args(arguments)
                .arg("--pgdata")
                .arg(copy.data()),
        )?;
        copy.at_home()?;
        Ok(copy)
    }

    /// A standby that streams from this cluster, started. It calls itself `name`, for `synchronous_standby_names`.
    pub fn standby(&self, name: &str) -> Result<Self> {
        let standby = self.base_backup(&["--write-recovery-conf"])?;
        let socket = self.dir.display();
        standby.set(&[&format!(
            "primary_conninfo = 'host={socket} port={} user={SUPERUSER} application_name={name}'",
            self.port
        )])?;
        standby.start()?;
        Ok(standby)
    }

    /// A copy of the data directory as it lies there, under a new temporary directory, not started. The server must not be running.
    pub fn cold_copy(&self) -> Result<Self> {
        let copy = self.empty()?;
        must(Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()))?;
        copy.at_home()?;
        Ok(copy)
    }

    /// Recovers a base backup to a target (`recovery_target_xid = '…'`) with the WAL that `source` has kept, and waits for the end of
    /// recovery. `source` needs a `wal_keep_size`.
    pub fn recover(&self, source: &Cluster, target: &str) -> Result<()> {
        let restore = format!("restore_command = 'cp {}/pg_wal/%f %p'", source.data().display());
        self.set(&[&restore, target, "recovery_target_action = 'promote'"])?;
        fs::write(self.data().join("recovery.signal"), "")?;
        self.installation.hand_over(&self.dir)?;
        self.start()?;
        self.recovered()
    }

    /// Promotes a standby, and waits until it writes.
    pub fn promote(&self) -> Result<()> {
        self.pg_ctl(&["--wait", "promote"])?;
        self.recovered()
    }

    fn recovered(&self) -> Result<()> {
        let begun = Instant::now();
        while self.connect("postgres", SUPERUSER)?.query_one("SELECT pg_is_in_recovery()", &[])?.get(0) {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("recovery does not end\n{}", self.log_tail()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Appends settings, which hold from the next start on, or reload.
    pub fn set(&self, settings: &[&str]) -> Result<()> {
        let file = self.data().join("postgresql.auto.conf");
        let text = fs::read_to_string(&file)? + &settings.join("\n") + "\n";
        Ok(fs::write(&file, text)?)
    }

    /// A place for another cluster.
    fn empty(&self) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("custody-").tempdir_in("/tmp")?.keep();
        self.installation.hand_over(&dir)?;
        Ok(Self { installation: self.installation.clone(), dir, port: self.port, keep: false })
    }

    /// Takes a copied configuration to where this cluster is.
    fn at_home(&self) -> Result<()> {
        self.set(&[&format!("unix_socket_directories = '{}'", self.dir.display())])?;
        self.installation.hand_over(&self.dir)
    }

    /// A cluster that `lasting` made before.
    pub fn existing(installation: &Installation, dir: &Path) -> Self {
        Self { installation: installation.clone(), dir: dir.to_owned(), port: 5432, keep: true }
    }

    fn create(installation: &Installation, dir: &Path, settings: &[&str], keep: bool) -> Result<Self> {
        let cluster = Self { installation: installation.clone(), dir: dir.to_owned(), port: 5432, keep };
        installation.hand_over(dir)?;
        must(
            installation
                .program("initdb")
                .args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"])
                .arg(format!("--username={SUPERUSER}"))
                .arg("--pgdata")
                .arg(cluster.data()),
        )?;
        let mut conf =
            String::from("listen_addresses = ''\nmax_prepared_transactions = 50\nlog_line_prefix = '%m [%p] %u@%d '\n");
        conf += &format!("unix_socket_directories = '{}'\nmax_connections = 60\n", dir.display());
        for setting in settings {
            conf += setting;
            conf.push('\n');
        }
        let file = cluster.data().join("postgresql.auto.conf");
        fs::write(&file, conf)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where the socket is.
    pub fn socket(&self) -> &Path {
        &self.dir
    }

    /// The installation it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Whether the server runs.
    pub fn is_running(&self) -> bool {
        self.pg_ctl(&["status"]).is_ok()
    }

    /// Starts the server, waiting for what a crash left behind to be gone.
    pub fn start(&self) -> Result<()> {
        let log = self.dir.join("log");
        let begun = Instant::now();
        loop {
            let log = log.to_string_lossy();
            match self.pg_ctl(&["--wait", "--log", &log, "start"]) {
                Ok(()) => return Ok(()),
                Err(e) if begun.elapsed() > Duration::from_secs(30) => {
                    return Err(format!("{e}\n{}", self.log_tail()).into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Stops the server, waiting for nobody.
    pub fn stop(&self) -> Result<()> {
        self.pg_ctl(&["--wait", "--mode", "fast", "stop"])
    }

    /// kill -9 of the whole server, as a power cut would have it.
    pub fn kill(&self) -> Result<()> {
        let pid = fs::read_to_string(self.data().join("postmaster.pid"))?;
        let pid = pid.lines().next().unwrap_or_default().to_owned();
        must(Command::new("kill").args(["-9", &pid]))?;
        while Path::new("/proc").join(&pid).exists() && !is_zombie(&pid) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.installation.program("pg_ctl");
        command.arg("--pgdata").arg(self.data()).args(arguments);
        // The server inherits them: a pipe would never close.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("pg_ctl {} failed", arguments.join(" ")).into()),
        }
    }

    /// How to connect.
    pub fn config(&self, database: &str, user: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).port(self.port).user(user).dbname(database).application_name("harness");
        config
    }

    /// A session.
    pub fn connect(&self, database: &str, user: &str) -> Result<Client> {
        Ok(self.config(database, user).connect(NoTls)?)
    }

    /// A client program, told where this cluster is.
    pub fn client<S: AsRef<OsStr>>(&self, name: &str, database: &str, user: &str, arguments: &[S]) -> Command {
        let mut command = self.installation.client(name);
        command
            .env("PGHOST", &self.dir)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", user)
            .env("PGDATABASE", database);
        command.args(arguments);
        command
    }
}

fn is_zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.keep {
            // A test that failed leaves nothing behind either.
            let _ = self.pg_ctl(&["--wait", "--mode", "immediate", "stop"]);
            let _: io::Result<()> = fs::remove_dir_all(&self.dir);
        }
    }
}
