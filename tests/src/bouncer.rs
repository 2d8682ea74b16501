//! A PgBouncer in front of a test's cluster.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use custody_harness::{Cluster, Result, must};
use postgres::{Client, Config, NoTls};

/// What a tool of the project's that installs something said, or None where it could not: then the test is skipped, except in CI.
pub fn installed_by(tool: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools").join(tool);
    let output = Command::new(&path).args(arguments).stderr(Stdio::inherit()).output().expect("tools/ is there");
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect());
    }
    assert!(std::env::var_os("CI").is_none(), "tools/{tool} failed, and CI goes without nothing");
    skipped(&format!("tools/{tool} failed, see above"));
    None
}

/// Says that a test does without, past the test harness, which keeps what tests print to itself.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// The programs to test with: this system's release, and one that knows prepared statements if that does not.
pub fn programs() -> Option<Vec<PathBuf>> {
    installed_by("pgbouncer", &[]).map(|lines| lines.into_iter().map(PathBuf::from).collect())
}

/// A running PgBouncer, stopped when dropped.
pub struct Bouncer {
    dir: PathBuf,
    child: Child,
    version: (u32, u32),
    port: u16,
}

const PORT: u16 = 6432;

impl Bouncer {
    /// Starts one in front of `cluster`, for these roles, with this many server connections for each of them and the pool mode.
    pub fn start(program: &Path, cluster: &Cluster, users: &[&str], mode: &str, pool: usize) -> Result<Self> {
        Self::listening(program, cluster, users, mode, pool, None)
    }

    /// The same, also on this port of 127.0.0.1, for clients that know no Unix sockets.
    pub fn listening(
        program: &Path,
        cluster: &Cluster,
        users: &[&str],
        mode: &str,
        pool: usize,
        port: Option<u16>,
    ) -> Result<Self> {
        let version = version(program)?;
        let dir = tempfile::Builder::new().prefix("custody-pool-").tempdir_in("/tmp")?.keep();
        let quoted: String = users.iter().chain(&["postgres"]).map(|user| format!("\"{user}\" \"\"\n")).collect();
        fs::write(dir.join("users"), quoted)?;
        // Up to 1.20 there is no such setting, and an unknown one is an error.
        let prepared = if version >= (1, 21) { "max_prepared_statements = 100" } else { "" };
        let (address, port) = (if port.is_some() { "127.0.0.1" } else { "" }, port.unwrap_or(PORT));
        let (here, server) = (dir.display(), cluster.socket().display());
        fs::write(
            dir.join("ini"),
            format!(
                "[databases]\n* = host={server} port=5432\n[pgbouncer]\nunix_socket_dir = {here}\nlisten_port = {port}\nlisten_addr = {address}\n\
                 auth_type = trust\nauth_file = {here}/users\nadmin_users = postgres\nlogfile = {here}/log\npool_mode = {mode}\n\
                 default_pool_size = {pool}\nmax_client_conn = 500\nquery_wait_timeout = 60\nignore_startup_parameters = extra_float_digits\n{prepared}\n"
            ),
        )?;
        cluster.installation().hand_over(&dir)?;
        // As the server's user: it refuses to be root.
        let mut command = cluster.installation().program(&program.to_string_lossy());
        let quiet = command.arg("--quiet").arg(dir.join("ini")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.stderr(Stdio::null()).spawn()?;
        // Should this process be killed, nobody drops it.
        let watch = format!(
            "while kill -0 {} && kill -0 {}; do sleep 0.5; done; kill -KILL {1}; rm -rf {here}",
            std::process::id(),
            child.id()
        );
        let mut watch = Command::new("setsid")
            .args(["sh", "-c", &watch])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::spawn(move || watch.wait());
        let bouncer = Self { dir: dir.clone(), child, version, port };
        let begun = Instant::now();
        while bouncer.config("pgbouncer", "postgres").connect(NoTls).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("PgBouncer does not answer: {}", bouncer.log()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(bouncer)
    }

    /// Whether it takes prepared statements from one server connection to another.
    pub fn knows_prepared_statements(&self) -> bool {
        self.version >= (1, 21)
    }

    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Where its socket is; the port is 6432 unless another was asked for.
    pub fn socket(&self) -> &Path {
        &self.dir
    }

    /// How to connect through it.
    pub fn config(&self, database: &str, user: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.dir)
            .port(self.port)
            .user(user)
            .dbname(database)
            .connect_timeout(Duration::from_secs(30));
        config
    }

    /// A session through it.
    pub fn connect(&self, database: &str, user: &str) -> Client {
        self.config(database, user).connect(NoTls).unwrap_or_else(|e| panic!("{e}: {}", self.log()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn version(program: &Path) -> Result<(u32, u32)> {
    let said = String::from_utf8_lossy(&must(Command::new(program).arg("--version"))?.stdout).into_owned();
    let numbers = said.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = numbers.split('.').map(|n| n.parse().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}
