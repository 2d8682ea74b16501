//! docs/connecting.md with the drivers it speaks of: the page's own blocks are what runs, directly and through PgBouncer.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Instant;

use custody_harness::{Cluster, SUPERUSER, must};
use custody_tests::bouncer::{self, Bouncer, installed_by};
use custody_tests::{Db, Session, now, token, token_key};
use serde_json::json;

const PAGE: &str = include_str!("../../docs/connecting.md");

/// Where tools/drivers put them.
struct Drivers {
    python: String,
    node: String,
    node_modules: String,
    jdbc: Option<String>,
}

fn drivers() -> Option<&'static Drivers> {
    static DRIVERS: OnceLock<Option<Drivers>> = OnceLock::new();
    let found = DRIVERS.get_or_init(|| {
        let mut lines = installed_by("drivers", &[])?.into_iter();
        Some(Drivers { python: lines.next()?, node: lines.next()?, node_modules: lines.next()?, jdbc: lines.next() })
    });
    found.as_ref()
}

/// The page's blocks as files, each named by its first line; the call taken out of them if that is to be noticed.
fn blocks(with_call: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    for block in PAGE.split("\n```").skip(1).step_by(2) {
        let Some((_, code)) = block.split_once('\n') else { continue };
        let first = code.lines().next().unwrap_or_default();
        let name = first.trim_start_matches(['#', '/', ' ']);
        if name == first || name.contains(' ') {
            continue;
        }
        let code =
            if with_call { code.to_owned() } else { code.replace("custody.authenticate", "pg_catalog.quote_literal") };
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, code).unwrap();
        count += 1;
    }
    assert_eq!(count, 10, "blocks with a name on the page");
    dir
}

/// What a program connects to.
struct Target {
    name: String,
    host: PathBuf,
    port: u16,
    /// Whether prepared statements get to where they were prepared.
    prepared: bool,
}

/// A clinic with two tenants, tokens for them, and a target.
struct Practice {
    db: Db,
}

impl Practice {
    fn new() -> Self {
        let db = Db::clinic();
        let public = token_key().verifying_key().to_bytes().to_vec();
        let mut superuser = db.superuser();
        superuser.0.execute("SELECT custody.add_token_key('k1', $1, 'clinic')", &[&public]).unwrap();
        superuser.batch(&format!(
            "SELECT custody.allow_assume('{0}', '{{}}'); ALTER ROLE {0} SET log_statement = 'all'; ALTER ROLE {0} SET log_parameter_max_length = 0;
             INSERT INTO clinic.patients (tenant_id, id, name) VALUES ('a', 1, 'Ada'), ('a', 2, 'Alan'), ('b', 1, 'Bo')",
            db.app_name()
        ));
        Self { db }
    }

    fn direct(&self) -> Target {
        Target { name: "directly".into(), host: self.db.cluster.socket().to_owned(), port: 5432, prepared: true }
    }

    fn run(&self, target: &Target, command: &mut Command) -> Output {
        let token_for = |tenant: &str, seconds: i64| {
            token(
                &token_key(),
                "k1",
                &json!({"sub": format!("user of {tenant}"), "tenant": tenant, "aud": "clinic", "exp": now() + seconds}),
            )
        };
        let command = command
            .env("TOKEN_A", token_for("a", 600))
            .env("TOKEN_B", token_for("b", 600))
            .env("TOKEN_BAD", token_for("a", -1))
            // One of them will be about to expire when the program needs that.
            .env("TOKENS_SHORT", (3..60).map(|seconds| token_for("a", seconds)).collect::<Vec<_>>().join(" "))
            .env("PREPARED", if target.prepared { "1" } else { "0" })
            .env("PGHOST", &target.host)
            .env("PGPORT", target.port.to_string())
            .env("PGDATABASE", &self.db.name)
            .env("PGUSER", self.db.app_name())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("PYTHONPATH");
        command.output().unwrap()
    }

    /// Runs a program that must see all of `checks`, in this order, and leave the clinic as it was.
    fn passes(&self, target: &Target, what: &str, checks: &[&str], command: &mut Command) {
        let begun = Instant::now();
        let output = self.run(target, command);
        let said = String::from_utf8_lossy(&output.stdout);
        let seen: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what} {}: after {seen:?}: {errors}", target.name);
        assert_eq!(seen, checks, "{what} {}", target.name);
        println!("{what} {}, {:.1} s: {}", target.name, begun.elapsed().as_secs_f32(), seen.join(", "));
        let mut superuser = self.db.superuser();
        let rows = superuser.one::<String>(
            "SELECT string_agg(tenant_id || id || name, ' ' ORDER BY tenant_id, id) FROM clinic.patients",
        );
        assert_eq!(rows, "a1Ada a2Alan b1Bo", "{what} {}", target.name);
    }

    /// The program sees that the page's call is not made.
    fn is_noticed(&self, target: &Target, what: &str, command: &mut Command) {
        let output = self.run(target, command);
        assert!(!output.status.success(), "{what}: nobody noticed that the call is gone");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{what}: it was to be noticed at once");
    }

    /// The token went as a bind parameter: what the server logs of every statement has it nowhere. A literal would be there.
    fn log_has_no_token(&self) {
        // Every token begins with the same header.
        let header = token(&token_key(), "k1", &json!({})).split('.').next().unwrap().to_owned();
        let with = |what: &str| {
            let log = fs::read_to_string(self.db.cluster.socket().join("log")).unwrap();
            log.lines().filter(|l| l.contains(what) && l.contains(&format!("@{} ", self.db.name))).count()
        };
        assert!(with("SELECT custody.authenticate($1)") > 10);
        assert_eq!(with(&header), 0);
        self.db.app().fails(&format!("SELECT custody.authenticate('{header}')"));
        assert_eq!(with(&header), 1);
    }

    /// What the programs wrote is recorded, under the names in their tokens.
    fn is_recorded(&self) {
        let mut superuser = self.db.superuser();
        let app = format!("table_name = 'patients' AND tenant <> '' AND login_role = '{}'", self.db.app_name());
        assert!(superuser.count(&format!("custody.log WHERE {app}")) > 100);
        assert_eq!(
            superuser.count(&format!("custody.log WHERE {app} AND subject IS DISTINCT FROM 'user of ' || tenant")),
            0
        );
        superuser.assert_valid();
    }
}

/// Runs a program directly and through each PgBouncer; then with the call taken out of the page, which it must notice.
fn everywhere(what: &str, checks: &[&str], command: impl Fn(&Drivers, &Path) -> Command) {
    let Some(drivers) = drivers() else { return };
    let practice = Practice::new();
    let page = blocks(true);
    practice.passes(&practice.direct(), what, checks, &mut command(drivers, page.path()));
    for program in bouncer::programs().unwrap_or_default() {
        let bouncer =
            Bouncer::start(&program, practice.db.cluster, &[&practice.db.app_name()], "transaction", 3).unwrap();
        let target = Target {
            name: format!("through PgBouncer {}", bouncer.version()),
            host: bouncer.socket().to_owned(),
            port: 6432,
            prepared: bouncer.knows_prepared_statements(),
        };
        practice.passes(&target, what, checks, &mut command(drivers, page.path()));
    }
    practice.is_recorded();
    practice.log_has_no_token();
    practice.is_noticed(&practice.direct(), what, &mut command(drivers, blocks(false).path()));
}

fn python(program: &'static str) -> impl Fn(&Drivers, &Path) -> Command {
    move |drivers, page| {
        let mut command = Command::new(&drivers.python);
        command.arg("-c").arg(
            "import runpy, sys; sys.path[:0] = sys.argv[1:3]; runpy.run_path(sys.argv[2] + '/' + sys.argv[3], run_name='__main__')",
        );
        command.arg(page).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")).arg(program);
        command
    }
}

#[test]
fn psycopg() {
    everywhere(
        "psycopg",
        &[
            "own rows only",
            "nothing after commit",
            "forgotten call",
            "nothing after rollback",
            "savepoints",
            "errors",
            "autocommit",
            "retry",
            "threads",
            "tasks",
        ],
        python("check_psycopg.py"),
    );
}

#[test]
fn sqlalchemy() {
    everywhere(
        "SQLAlchemy",
        &[
            "own rows only",
            "nothing after commit",
            "forgotten call",
            "nothing after rollback",
            "savepoints",
            "errors",
            "threads",
            "core",
            "tasks",
        ],
        python("check_sqlalchemy.py"),
    );
}

#[test]
fn django() {
    everywhere(
        "Django",
        &[
            "own rows only",
            "nothing after commit",
            "forgotten call",
            "nothing after rollback",
            "savepoints",
            "errors",
            "threads",
        ],
        python("check_django.py"),
    );
}

#[test]
fn asyncpg() {
    everywhere(
        "asyncpg",
        &[
            "own rows only",
            "nothing after commit",
            "forgotten call",
            "nothing after rollback",
            "savepoints",
            "errors",
            "tasks",
        ],
        python("check_asyncpg.py"),
    );
}

#[test]
fn node_postgres() {
    everywhere(
        "node-postgres",
        &[
            "own rows only",
            "nothing after commit",
            "forgotten call",
            "nothing after rollback",
            "savepoints",
            "errors",
            "retry",
            "tasks",
        ],
        |drivers, page| {
            let _ = std::os::unix::fs::symlink(&drivers.node_modules, page.join("node_modules"));
            let program = page.join("check.mjs");
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/check_pg.mjs"), &program).unwrap();
            let mut command = Command::new(&drivers.node);
            command.arg(program);
            command
        },
    );
}

/// It knows no Unix sockets, so it goes through PgBouncer: in session mode, where prepared statements work with every release, and
/// in transaction mode.
#[test]
fn jdbc() {
    let Some(drivers) = drivers() else { return };
    let (Some(jar), Some(programs)) = (&drivers.jdbc, bouncer::programs()) else {
        return bouncer::skipped("there is no JDK");
    };
    let practice = Practice::new();
    let checks = [
        "own rows only",
        "nothing after commit",
        "forgotten call",
        "nothing after rollback",
        "savepoints",
        "errors",
        "threads",
    ];
    let compiled = |page: &Path| {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/CheckJdbc.java"), page.join("CheckJdbc.java"))
            .unwrap();
        must(Command::new("javac").args(["-cp", jar, "Tenants.java", "CheckJdbc.java"]).current_dir(page)).unwrap();
    };
    let command = |page: &Path| {
        let mut command = Command::new("java");
        command.arg("-cp").arg(format!("{jar}:{}", page.display())).arg("CheckJdbc");
        command
    };
    let (page, without) = (blocks(true), blocks(false));
    compiled(page.path());
    compiled(without.path());
    for program in programs {
        for mode in ["session", "transaction"] {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let bouncer =
                Bouncer::listening(&program, practice.db.cluster, &[&practice.db.app_name()], mode, 3, Some(port))
                    .unwrap();
            let target = Target {
                name: format!("through PgBouncer {} in {mode} mode", bouncer.version()),
                host: bouncer.socket().to_owned(),
                port,
                prepared: mode == "session" || bouncer.knows_prepared_statements(),
            };
            practice.passes(&target, "JDBC", &checks, &mut command(page.path()));
            if mode == "session" {
                practice.is_noticed(&target, "JDBC", &mut command(without.path()));
            }
        }
    }
    practice.log_has_no_token();
    practice.db.superuser().assert_valid();
}

/// The page's blocks without a name: how the helpers are used.
#[test]
fn the_examples_run() {
    let Some(drivers) = drivers() else { return };
    let practice = Practice::new();
    let page = blocks(true);
    let block = |start: &str| {
        let start = PAGE.find(start).expect("the example is on the page");
        PAGE[start..].split("\n```").next().unwrap_or_default()
    };
    let example = block("from psycopg_pool import ConnectionPool").replace("dbname=clinic user=clinic_app", "");
    fs::write(
        page.path().join("example.py"),
        format!("import os\nfrom tenant_psycopg import tenant\nrequest_token = os.environ['TOKEN_A']\n{example}\nassert patients == [(1, 'Ada'), (2, 'Alan')], patients\npool.close()\nprint('ok')\n"),
    )
    .unwrap();
    let example = block("import pg from 'pg'").replace("{ database: 'clinic', user: 'clinic_app' }", "{}");
    fs::write(
        page.path().join("example.mjs"),
        format!("import {{ withTenant }} from './tenant-pg.mjs'\nconst requestToken = process.env.TOKEN_A\n{example}\nif (rows.length !== 2) throw rows\nconsole.log('ok')\nawait pool.end()\n"),
    )
    .unwrap();
    std::os::unix::fs::symlink(&drivers.node_modules, page.path().join("node_modules")).unwrap();
    for (program, file) in [(&drivers.python, "example.py"), (&drivers.node, "example.mjs")] {
        let output = practice.run(&practice.direct(), Command::new(program).arg(page.path().join(file)));
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
    }
}

/// What the page says of replicas: the call writes nothing.
#[test]
fn a_hot_standby_takes_the_call() {
    let practice = Practice::new();
    let (db, installation) = (&practice.db, practice.db.cluster.installation());
    let dir = tempfile::Builder::new().prefix("custody-standby-").tempdir_in("/tmp").unwrap();
    installation.hand_over(dir.path()).unwrap();
    let standby = Cluster::existing(installation, dir.path());
    must(
        installation
            .program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--username", SUPERUSER, "--host"])
            .arg(db.cluster.socket())
            .arg("--pgdata")
            .arg(standby.data()),
    )
    .unwrap();
    let settings = standby.data().join("postgresql.auto.conf");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}\nunix_socket_directories = '{}'\n", dir.path().display())).unwrap();
    standby.start().unwrap();
    let claims = json!({"sub": "user of a", "tenant": "a", "aud": "clinic", "exp": now() + 60});
    let token = token(&token_key(), "k1", &claims);
    let mut replica = Session(standby.connect(&db.name, &db.app_name()).unwrap());
    let mut primary = db.app();
    for (session, begin) in [(&mut replica, "BEGIN"), (&mut primary, "BEGIN READ ONLY")] {
        session.batch(begin);
        session.0.execute("SELECT custody.authenticate($1)", &[&token]).unwrap();
        assert_eq!(session.count("clinic.patients"), 2);
        session.batch("COMMIT");
        assert_eq!(session.count("clinic.patients"), 0);
    }
    standby.stop().unwrap();
}
