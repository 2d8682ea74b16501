//! The gate: findings are waived by name, for a reason, for a time, and no further; reports say the same in every format, whatever
//! names a database holds; pipelines stop.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use custody_harness::{SUPERUSER, must};
use custody_tests::mutants::rivals;
use custody_tests::{Db, Session};
use serde_json::Value;

/// Findings that count, as `id object`.
fn open(s: &mut Session) -> BTreeSet<String> {
    s.rows("SELECT id || ' ' || object FROM custody.coverage()", &[]).iter().map(|r| r.get(0)).collect()
}

/// Waivers, as `id object state`.
fn waivers(s: &mut Session) -> Vec<String> {
    s.rows("SELECT finding || ' ' || object || ' ' || state FROM custody.waivers()", &[])
        .iter()
        .map(|r| r.get(0))
        .collect()
}

fn waive(s: &mut Session, id: &str, object: &str) {
    s.rows("SELECT custody.waive($1, $2, 'because', now() + '30 days')", &[&id, &object]);
}

fn error(s: &mut Session, sql: &str) -> (String, String) {
    let e = s.0.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap();
    (e.code().code().to_owned(), format!("{} {}", e.message(), e.detail().unwrap_or_default()))
}

/// Roles are the cluster's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_waiver_covers_what_it_names_and_nothing_else() {
    let _alone = alone();
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE SCHEMA \"public.a\"; CREATE TABLE a (tenant_id text NOT NULL PRIMARY KEY); CREATE TABLE \"a b\" (tenant_id text NOT NULL PRIMARY KEY);
         CREATE TABLE \"A\" (tenant_id text NOT NULL PRIMARY KEY); CREATE TABLE \"public.a\".b (tenant_id text NOT NULL PRIMARY KEY)",
    );
    let before = open(&mut s);
    assert_eq!(before.iter().filter(|f| f.starts_with("CU001")).count(), 4);
    waive(&mut s, "CU001", "public.a");
    let gone: Vec<_> = before.difference(&open(&mut s)).cloned().collect();
    assert_eq!(gone, ["CU001 public.a"]);
    assert_eq!(waivers(&mut s), ["CU001 public.a waived"]);
    assert!(s.count("custody.unprotected_tables()") == 3, "unprotected tables are those that nobody waived");
    // Names are taken as they are written, and not as SQL or a pattern.
    for no in ["a", "public.%", "PUBLIC.A", "public.a ", "\"public\".\"a\"", "public.b", ""] {
        let found = s.0.query("SELECT custody.waive('CU001', $1, 'because', now() + '1 day')", &[&no]);
        assert_eq!(custody_tests::state(&found.unwrap_err()), "UC042", "{no}");
    }
    s.batch("SELECT custody.unwaive('CU001', 'public.a')");
    assert_eq!(open(&mut s), before);
    assert_eq!(s.fails("SELECT custody.unwaive('CU001', 'public.a')"), "UC042");
}

#[test]
fn a_waiver_needs_a_reason_and_ends() {
    let _alone = alone();
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE a (tenant_id text NOT NULL PRIMARY KEY)");
    for (arguments, what) in [
        ("NULL, 'public.a', 'because', now() + '1 day'", "finding"),
        ("'CU001', NULL, 'because', now() + '1 day'", "object"),
        ("'CU001', 'public.a', NULL, now() + '1 day'", "reason"),
        ("'CU001', 'public.a', E' \\n\\t ', now() + '1 day'", "reason"),
        ("'CU001', 'public.a', 'because', NULL", "expires"),
        ("'CU001', 'public.a', 'because', now()", "expires"),
        ("'CU001', 'public.a', 'because', now() - '1 day'::interval", "expires"),
        ("'CU001', 'public.a', 'because', now() + '367 days'", "expires"),
        ("'CU001', 'public.a', 'because', 'infinity'", "expires"),
        ("'CU001', 'public.a', 'because', '-infinity'", "expires"),
    ] {
        let (state, words) = error(&mut s, &format!("SELECT custody.waive({arguments})"));
        assert!(state == "UC013" && words.contains(&format!("\"{what}\"")), "{arguments}: {state} {words}");
    }
    s.batch("SELECT custody.waive('CU001', 'public.a', 'because', now() + '366 days')");
    assert!(!open(&mut s).contains("CU001 public.a"));
    s.batch("UPDATE custody.waiver SET waived_at = now() - '3 days'::interval, expires = now() - '1 day'::interval");
    assert!(open(&mut s).contains("CU001 public.a"), "an expired waiver counts for nothing");
    assert_eq!(waivers(&mut s), ["CU001 public.a expired"]);
    let (state, words) = error(&mut s, "SELECT custody.assert_coverage()");
    assert!(state == "UC040" && words.contains("Its waiver expired"), "{words}");
    // Whoever waives again says so anew.
    waive(&mut s, "CU001", "public.a");
    assert_eq!(waivers(&mut s), ["CU001 public.a waived"]);
    assert_eq!(s.fails("UPDATE custody.waiver SET expires = waived_at + '2 years'"), "23514");
}

#[test]
fn a_waiver_does_not_pass_to_another_object_or_a_worse_finding() {
    let _alone = alone();
    let db = Db::new();
    let mut s = db.superuser();
    let app = db.app_name();
    s.batch(&format!(
        "CREATE ROLE {app} LOGIN IN ROLE custody_app;
         CREATE TABLE a (tenant_id text NOT NULL, id int, name text, PRIMARY KEY (tenant_id, id)); SELECT custody.protect('a'); GRANT SELECT ON a TO {app};
         CREATE ROLE {app}_owner; CREATE TABLE b (tenant_id text NOT NULL PRIMARY KEY);
         ALTER TABLE a OWNER TO {app}_owner; GRANT CREATE ON SCHEMA public TO {app}_owner"
    ));
    // The name is taken by another table.
    waive(&mut s, "CU001", "public.b");
    s.batch("DROP TABLE b; CREATE TABLE b (tenant_id text NOT NULL PRIMARY KEY)");
    assert!(open(&mut s).contains("CU001 public.b"));
    assert_eq!(waivers(&mut s), ["CU001 public.b replaced"]);
    let (_, words) = error(&mut s, "SELECT custody.assert_coverage()");
    assert!(words.contains("was for another object"), "{words}");
    s.batch("DROP TABLE b");
    assert_eq!(waivers(&mut s), ["CU001 public.b stale"]);
    s.batch("SELECT custody.unwaive('CU001', 'public.b')");
    // Renamed: it is another finding, by another name.
    s.batch("CREATE TABLE b (tenant_id text NOT NULL PRIMARY KEY)");
    waive(&mut s, "CU001", "public.b");
    s.batch("ALTER TABLE b RENAME TO c");
    assert!(open(&mut s).contains("CU001 public.c"));
    s.batch("SELECT custody.unwaive('CU001', 'public.b'); DROP TABLE c");
    // By another routine, role, schema.
    let make = format!(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; GRANT pg_monitor TO {app}; CREATE SCHEMA other; GRANT CREATE ON SCHEMA other TO {app}"
    );
    let unmake = format!("DROP FUNCTION f(); DROP SCHEMA other; DROP OWNED BY {app}; DROP ROLE {app}");
    s.batch(&make);
    let named = [("CU033", "public.f()"), ("CU026", app.as_str()), ("CU028", "other")];
    for (id, object) in named {
        waive(&mut s, id, object);
        assert!(!open(&mut s).contains(&format!("{id} {object}")), "{id}");
    }
    s.batch(&format!("{unmake}; CREATE ROLE {app} LOGIN IN ROLE custody_app; {make}; GRANT SELECT ON a TO {app}"));
    for (id, object) in named {
        assert!(open(&mut s).contains(&format!("{id} {object}")), "{id}");
        assert!(waivers(&mut s).contains(&format!("{id} {object} replaced")), "{:?}", waivers(&mut s));
        s.rows("SELECT custody.unwaive($1, $2)", &[&id, &object]);
    }
    // What was accepted of a table that nobody may read is not accepted of one that somebody may; nor a policy, rewritten.
    s.batch("CREATE TABLE b (tenant_id text NOT NULL PRIMARY KEY)");
    waive(&mut s, "CU001", "public.b");
    s.batch(&format!("GRANT SELECT ON b TO {app}"));
    assert_eq!(waivers(&mut s), ["CU001 public.b changed"]);
    assert!(open(&mut s).contains("CU001 public.b"));
    s.batch("SELECT custody.unwaive('CU001', 'public.b'); ALTER TABLE b ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON b USING (length(current_user) = 0)");
    waive(&mut s, "CU005", "public.b");
    s.batch("ALTER POLICY p ON b USING (true)");
    assert_eq!(waivers(&mut s), ["CU005 public.b changed"]);
    s.batch("SELECT custody.unwaive('CU005', 'public.b'); DROP TABLE b");
    // A further problem of the same kind, and the same one grown worse.
    s.batch("ALTER TABLE a ADD UNIQUE (name)");
    waive(&mut s, "CU011", "public.a");
    assert!(!open(&mut s).contains("CU011 public.a"));
    s.batch("ALTER TABLE a ADD UNIQUE (id)");
    assert_eq!(s.count("custody.coverage() WHERE id = 'CU011'"), 1, "the new key is nobody's waiver's");
    assert_eq!(waivers(&mut s), ["CU011 public.a waived"]);
    s.batch(&format!("SELECT custody.unwaive('CU011', 'public.a'); CREATE VIEW v AS SELECT * FROM a; ALTER VIEW v OWNER TO {app}_owner; GRANT SELECT ON v TO {app}"));
    waive(&mut s, "CU030", "public.v");
    assert_eq!(s.one::<String>("SELECT severity FROM custody.waivers()"), "low");
    s.batch("ALTER VIEW v OWNER TO postgres");
    assert_eq!(s.one::<String>("SELECT severity FROM custody.coverage() WHERE id = 'CU030'"), "critical");
    assert_eq!(waivers(&mut s), ["CU030 public.v changed"]);
    s.batch(&format!("REVOKE pg_monitor FROM {app}"));
}

#[test]
fn waivers_are_recorded_guarded_and_for_administrators() {
    let _alone = alone();
    let db = Db::clinic();
    let mut s = db.superuser();
    let (admin, auditor) = (format!("{}_admin", db.name), format!("{}_auditor", db.name));
    s.batch(&format!(
        "CREATE TABLE clinic.open (tenant_id text NOT NULL PRIMARY KEY);
         CREATE ROLE {admin} LOGIN IN ROLE custody_admin; CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"
    ));
    let mut as_admin = db.session(&admin);
    waive(&mut as_admin, "CU001", "clinic.open");
    assert_eq!(as_admin.one::<String>("SELECT waived_by FROM custody.waivers()"), admin);
    let entry = "custody.log WHERE table_name = 'waiver' AND tenant = '' AND login_role = '";
    assert_eq!(s.count(&format!("{entry}{admin}' AND op = 'INSERT' AND new ->> 'reason' = 'because'")), 1);
    let mut as_auditor = db.session(&auditor);
    assert_eq!(waivers(&mut as_auditor), ["CU001 clinic.open waived"]);
    let summary: String = as_auditor.one("SELECT custody.assert_coverage()");
    assert!(summary.contains("clinic.open") && summary.contains("because") && summary.contains(&admin), "{summary}");
    let waives = "SELECT custody.waive('CU001', 'clinic.open', 'because', now() + '1 day')";
    for refused in [waives, "SELECT custody.unwaive('CU001', 'clinic.open')"] {
        assert_eq!(as_auditor.fails(refused), "42501");
        assert_eq!(db.app().fails(refused), "42501");
    }
    for refused in [
        "SELECT * FROM custody.waivers()",
        "SELECT custody.coverage_report()",
        "SELECT * FROM custody.waiver",
        "SELECT * FROM custody.judged_finding",
    ] {
        assert_eq!(db.app().fails(refused), "42501");
    }
    for refused in [
        "DELETE FROM custody.waiver",
        "UPDATE custody.waiver SET expires = expires + '1 day'",
        "TRUNCATE custody.waiver",
    ] {
        assert_eq!(as_admin.fails(refused), "42501");
    }
    as_admin.batch("SELECT custody.unwaive('CU001', 'clinic.open')");
    assert_eq!(s.count(&format!("{entry}{admin}' AND op = 'DELETE'")), 1);
    s.assert_valid();
    // Who stops the recording is seen.
    assert_eq!(s.count("custody.guard_gap"), 0);
    s.batch("ALTER TABLE custody.waiver DISABLE TRIGGER \"!custody_capture\"");
    assert_eq!(s.one::<String>("SELECT object FROM custody.guard_gap"), "!custody_capture on custody.waiver");
}

#[test]
fn waivers_survive_a_dump_and_still_know_their_tables() {
    let _alone = alone();
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE a (tenant_id text NOT NULL PRIMARY KEY); CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; CREATE TABLE gone (tenant_id text NOT NULL PRIMARY KEY)");
    for (id, object) in [("CU001", "public.a"), ("CU033", "public.f()"), ("CU001", "public.gone")] {
        // Without a tenant table of the owner's the function is nobody's finding.
        if s.count(&format!("custody.coverage() WHERE id = '{id}' AND object = '{object}'")) > 0 {
            waive(&mut s, id, object);
        }
    }
    s.batch("DROP TABLE gone");
    let kept = waivers(&mut s);
    assert!(kept.contains(&"CU001 public.gone stale".to_owned()), "{kept:?}");
    let file = std::env::temp_dir().join(format!("{}-{}.dump", db.name, std::process::id()));
    std::fs::write(
        &file,
        must(&mut db.cluster.client("pg_dump", &db.name, SUPERUSER, &["--format=custom"])).unwrap().stdout,
    )
    .unwrap();
    let restored = Db::bare();
    let file_name = file.display().to_string();
    must(&mut db.cluster.client(
        "pg_restore",
        &restored.name,
        SUPERUSER,
        &["--exit-on-error", "--dbname", &restored.name, &file_name],
    ))
    .unwrap();
    std::fs::remove_file(&file).unwrap();
    let mut r = restored.superuser();
    assert_eq!(waivers(&mut r), kept);
    r.batch("DROP TABLE a; CREATE TABLE a (tenant_id text NOT NULL PRIMARY KEY)");
    assert!(waivers(&mut r).contains(&"CU001 public.a replaced".to_owned()));
}

/// Runs a program of `tools/linters`.
fn linters(arguments: &[&str], input: &str) -> Vec<u8> {
    let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/linters"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {words}");
    output.stdout
}

fn reader(kind: &str, report: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/gate/reports.py");
    serde_json::from_slice(&linters(&["python", script, kind], report)).unwrap()
}

/// Names that try to break out of every format.
const HOSTILE: [&str; 12] = [
    "quote\" ' and \\ back",
    "line\nforged critical CU001 public.x\r\n",
    "]]> <script>alert(1)</script> &amp; <!--",
    "| pipe | ` `` ``` tick",
    "\u{1b}[2Jescape\u{1}\u{7f}\u{85}",
    "\u{202e}txet desrever\u{200b}\u{feff}",
    "[click](http://example.invalid) www.example.invalid @somebody",
    "{0} {{1}} %s %1$I $1 ${{ secrets.X }} ::error::",
    "\u{fffe}\u{ffff}\u{10ffff} ünïcödé 患者",
    "\n```\n# heading\n- [ ] item",
    "-- comment; DROP TABLE x; /* */",
    ".",
];

#[test]
fn reports_hold_whatever_names_there_are() {
    let _alone = alone();
    let db = Db::new();
    let mut s = db.superuser();
    s.batch("CREATE TABLE plain (tenant_id text NOT NULL PRIMARY KEY)");
    for name in HOSTILE {
        s.batch(&format!("CREATE TABLE \"{}\" (tenant_id text NOT NULL PRIMARY KEY)", name.replace('"', "\"\"")));
    }
    let findings = s.rows("SELECT id, object, severity, explanation, fix, schema::text FROM custody.coverage()", &[]);
    let all: Vec<(String, String)> = findings.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert!(all.len() > HOSTILE.len());
    // One is waived for a reason as hostile, one waiver is stale.
    waive(&mut s, "CU001", "public.plain");
    s.batch("DROP TABLE plain; CREATE TABLE plain (tenant_id text NOT NULL PRIMARY KEY)");
    let waived = all.iter().find(|f| f.0 == "CU001" && f.1.contains("alert")).unwrap().1.clone();
    let reason = HOSTILE.join(" ");
    s.rows("SELECT custody.waive('CU001', $1, $2, now() + '1 day')", &[&waived, &reason]);
    let report =
        |s: &mut Session, format: &str| s.one::<String>(&format!("SELECT custody.coverage_report('{format}')"));

    let json: Value = serde_json::from_str(&report(&mut s, "json")).unwrap();
    let in_json: Vec<(String, String)> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["id"].as_str().unwrap().to_owned(), f["object"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(in_json, all, "JSON has every finding, in order, byte for byte");
    for (f, row) in json["findings"].as_array().unwrap().iter().zip(&findings) {
        for (key, column) in [("severity", 2), ("explanation", 3), ("fix", 4)] {
            assert_eq!(f[key].as_str(), row.get::<_, Option<&str>>(column));
        }
    }
    let marked: Vec<_> =
        json["findings"].as_array().unwrap().iter().filter(|f| f["waiver"]["state"] == "waived").collect();
    assert_eq!((marked.len(), marked[0]["waiver"]["reason"].as_str()), (1, Some(reason.as_str())));
    assert_eq!(json["gate"]["passes"], false);
    assert_eq!(json["waivers"].as_array().unwrap().len(), 2);

    let sarif = reader("sarif", &report(&mut s, "sarif"));
    assert_eq!(sarif["version"], s.one::<String>("SELECT extversion FROM pg_extension WHERE extname = 'pg_custody'"));
    let results = sarif["results"].as_array().unwrap();
    let in_sarif: Vec<(String, String)> =
        results.iter().map(|r| (r[0].as_str().unwrap().to_owned(), r[2].as_str().unwrap().to_owned())).collect();
    assert_eq!(in_sarif, all);
    assert_eq!(results.iter().filter(|r| !r[3].as_array().unwrap().is_empty()).count(), 1);
    assert_eq!(sarif["notifications"].as_array().unwrap().len(), 1);
    let distinct = |key: &str| {
        sarif[key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(distinct("fingerprints").len(), all.len());
    for uri in distinct("uris") {
        let path = uri.strip_prefix("database/").unwrap();
        assert!(
            path.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%".contains(c)) && !path.starts_with('.'),
            "{uri}"
        );
    }
    for words in distinct("messages") {
        assert!(!words.contains("]("), "{words}");
        let bare = words.replace("{{", "").replace("}}", "");
        assert!(!bare.contains(['{', '}']), "{words}");
    }

    let junit = reader("junit", &report(&mut s, "junit"));
    let cases = junit["cases"].as_array().unwrap();
    let failing = findings.iter().filter(|r| r.get::<_, &str>(2) != "low").count() - 1;
    assert_eq!(junit["count"]["failures"], failing as u64);
    assert_eq!(junit["count"]["skipped"], 1);
    assert!(cases.iter().any(|c| c[1].as_str().unwrap().contains("]]> <script>alert(1)</script> &amp; <!--")));
    assert!(
        cases.iter().any(|c| c[0] == "pg_custody.CU023" && c[2].as_array().unwrap().is_empty()),
        "rules that hold pass"
    );

    let text = report(&mut s, "text");
    let controls = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{200b}\u{feff}\u{2028}".contains(c);
    assert!(!text.contains(controls), "{text:?}");
    // Two lines of head; for each open finding a blank, three lines, and one more for the waiver of another table; then the waivers.
    let open = all.len() - 1;
    assert_eq!(text.lines().count(), 2 + 4 * open + 1 + 3 + 3, "{text}");
    assert_eq!(text.lines().filter(|l| l.starts_with("critical CU001")).count(), HOSTILE.len());

    let markdown = report(&mut s, "markdown");
    assert!(!markdown.contains(controls));
    let seen = reader("markdown", &markdown);
    // The title, a heading for each open finding, two for the waivers.
    assert_eq!(
        (seen["headings"].as_u64(), seen["blocks"].as_u64()),
        (Some(1 + open as u64 + 2), Some(open as u64)),
        "{markdown}"
    );
    assert_eq!(
        (seen["links"].as_u64(), seen["html"].as_u64(), seen["images"].as_u64()),
        (Some(0), Some(0), Some(0)),
        "{markdown}"
    );

    // The same again: only the clock moves.
    let again: Value = serde_json::from_str(&report(&mut s, "json")).unwrap();
    assert_eq!((&again["findings"], &again["waivers"]), (&json["findings"], &json["waivers"]));
    assert_eq!(s.fails("SELECT custody.coverage_report('pdf')"), "UC013");
    assert_eq!(s.fails("SELECT custody.coverage_report(NULL)"), "UC013");
    assert_eq!(s.fails("SELECT custody.coverage_report('text', 'bad')"), "UC041");
}

#[test]
fn the_gate_and_the_reports_agree() {
    let _alone = alone();
    let db = Db::clinic();
    let mut s = db.superuser();
    let passes = |s: &mut Session, severity: &str| {
        let json: Value =
            serde_json::from_str(&s.one::<String>(&format!("SELECT custody.coverage_report('json', '{severity}')")))
                .unwrap();
        let junit =
            reader("junit", &s.one::<String>(&format!("SELECT custody.coverage_report('junit', '{severity}')")));
        let asserted = s.0.batch_execute(&format!("SELECT custody.assert_coverage('{severity}')")).is_ok();
        assert_eq!(
            (json["gate"]["passes"].as_bool(), junit["count"]["failures"] == 0),
            (Some(asserted), asserted),
            "{severity}"
        );
        asserted
    };
    let all = |s: &mut Session| ["critical", "high", "medium", "low"].map(|w| passes(s, w));
    assert_eq!(all(&mut s), [true; 4]);
    assert_eq!(
        s.one::<String>("SELECT custody.assert_coverage('low')"),
        "no isolation finding of severity low or worse; none waived"
    );
    s.batch("CREATE INDEX ON clinic.patients (tenant_id); ALTER TABLE clinic.patients ADD UNIQUE (name)");
    assert_eq!(all(&mut s), [true, true, false, false]);
    waive(&mut s, "CU011", "clinic.patients");
    assert_eq!(all(&mut s), [true; 4]);
    s.batch(&format!("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", db.name));
    assert_eq!(all(&mut s), [true, true, true, false]);
    let summary: String = s.one("SELECT custody.assert_coverage()");
    assert!(
        summary.contains("lesser severity: 1") && summary.contains("medium CU011 clinic.patients, until"),
        "{summary}"
    );
}

/// The blocks of a language in docs/ci.md.
fn blocks(language: &str) -> Vec<String> {
    let text = include_str!("../../docs/ci.md");
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|b| b.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_on_pipelines_is_true() {
    let _alone = alone();
    let db = Db::clinic();
    let mut s = db.superuser();
    // What its waiver is for.
    s.batch("CREATE TABLE invoices (tenant_id text NOT NULL, id int, number text UNIQUE, PRIMARY KEY (tenant_id, id)); SELECT custody.protect('invoices')");
    for block in blocks("sql") {
        s.batch(&block);
    }
    let dir: PathBuf = std::env::temp_dir().join(format!("{}-{}", db.name, std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let shell: String = blocks("sh").concat();
    let run = |script: &str| {
        let psql = db.cluster.client::<&str>("psql", &db.name, SUPERUSER, &[]);
        let bin = Path::new(psql.get_program()).parent().unwrap().to_owned();
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(&dir).stdin(Stdio::null());
        for (name, value) in psql.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).output().unwrap()
    };
    let output = run(&shell);
    assert!(output.status.success(), "{output:?}");
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    let suppressed = reader("sarif", &read("coverage.sarif"))["results"][0][3].clone();
    assert!(suppressed[0].as_str().unwrap().contains("numbers"), "{suppressed}");
    assert_eq!(reader("junit", &read("coverage.xml"))["count"]["skipped"], 1);
    assert!(read("coverage.md").contains("Waived"));
    // The gate stops: every line of the shell runs, and the last one fails.
    s.batch("CREATE TABLE forgotten (tenant_id text NOT NULL PRIMARY KEY)");
    let output = run(&shell);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("public.forgotten"), "{output:?}");
    assert!(read("coverage.sarif").contains("public.forgotten"), "the report is there, though the gate stops");

    let yaml = blocks("yaml");
    assert_eq!(yaml.len(), 2);
    for (block, schema) in yaml.iter().zip(["vendor.github-workflows", "vendor.gitlab-ci"]) {
        let file = dir.join(format!("{schema}.yml"));
        std::fs::write(&file, block).unwrap();
        linters(&["check-jsonschema", "--builtin-schema", schema, &file.display().to_string()], "");
        let mut lines = 0;
        for line in block.lines().filter_map(|l| l.find("psql ").map(|at| &l[at..])) {
            lines += 1;
            let command = line.split(" >").next().unwrap();
            assert!(shell.contains(command), "not run by this test: {line}");
        }
        assert!(lines >= 2);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_strongest_other_linter_finds_no_error_in_what_protect_makes() {
    let _alone = alone();
    let db = Db::clinic();
    let mut s = db.superuser();
    s.batch(
        "CREATE TABLE clinic.letters (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id)); CREATE TABLE clinic.bills (org bigint NOT NULL, id int, PRIMARY KEY (org, id));
         CREATE TABLE clinic.events (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
         CREATE TABLE clinic.events_0 PARTITION OF clinic.events FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         SELECT custody.protect('clinic.letters'), custody.protect('clinic.bills', 'org'), custody.protect('clinic.events')",
    );
    let url = format!("postgresql://postgres@/{}?host={}&port=5432", db.name, db.cluster.socket().display());
    let found = rivals::pgrls(&db, &db.name).unwrap();
    let errors: Vec<_> = found
        .iter()
        .filter(|(_, severity)| severity == "error")
        // The reference data is everybody's, and says so in our registry, which it does not read.
        .filter(|(f, _)| f.object != "clinic.codes")
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // Its prover, told which functions give the session's tenant: proven, each of them, or it would fail.
    for mode in ["anon", "cross-tenant", "write"] {
        let mut arguments =
            vec!["pgrls", "verify", "--strict", "--mode", mode, "--schemas", "clinic", "--database-url", &url];
        rivals::TENANT_FUNCTIONS.iter().for_each(|f| arguments.extend(["--auth-function", f]));
        let words = String::from_utf8(linters(&arguments, "")).unwrap();
        assert!(words.contains("6 RLS tables: 6 proven isolated, 0 leaking, 0 unverified"), "{mode}: {words}");
    }
}
