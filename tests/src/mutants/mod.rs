//! Injected leaks, and correct variants beside them: what is read from `tests/mutants`, and how custody.coverage() does on it.

pub mod rivals;
pub mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use postgres::SimpleQueryMessage;

use crate::{Db, Session, words};

/// One leak, or one correct variant.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Of the file that it is in.
    pub category: String,
    pub name: String,
    /// A correct variant: nothing of medium or worse may be found.
    pub control: bool,
    /// Ids and objects that name the leak; any of them will do. None for a control.
    pub finds: Vec<(String, String)>,
    /// A finding of severity low is enough.
    pub low: bool,
    /// What a superuser runs on the base.
    pub sql: String,
    /// What the constrained role runs in tenant a's context; its last statement must give or change rows.
    pub proof: Option<String>,
    /// What a superuser runs after the proof, and must give rows: the damage.
    pub effect: Option<String>,
    /// Why there is no proof.
    pub no_proof: Option<String>,
}

/// Where the suite is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants")
}

/// The directories of cases: our own, and those that others wrote.
pub fn directories() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root())
        .expect("tests/mutants")
        .map(|e| e.expect("an entry"))
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The cases of a directory's `.sql` files, in their order. Anything that is not understood is an error.
pub fn cases(directory: &str) -> Vec<Case> {
    let mut files: Vec<_> =
        fs::read_dir(root().join(directory)).expect("a directory").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "sql"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable file");
        parse(&text, &mut all).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    let mut names = BTreeSet::new();
    for case in &all {
        assert!(names.insert((case.category.clone(), case.name.clone())), "two cases are called {}", case.name);
    }
    all
}

fn parse(text: &str, all: &mut Vec<Case>) -> Result<(), String> {
    const MARKS: [&str; 8] = ["category", "mutant", "control", "finds", "finds low", "proof", "effect", "no proof"];
    let mut category = String::from("uncategorised");
    let mut open: Option<Case> = None;
    // Which part of the case further lines belong to.
    let mut part = "";
    for (line, number) in text.lines().zip(1..) {
        let mark = line.strip_prefix("-- ").and_then(|l| l.split_once(": ")).filter(|(m, _)| MARKS.contains(m));
        let Some((mark, rest)) = mark else {
            let Some(case) = &mut open else { continue };
            let target = match part {
                "proof" => case.proof.as_mut(),
                "effect" => case.effect.as_mut(),
                _ => Some(&mut case.sql),
            };
            if let Some(target) = target {
                *target += line;
                target.push('\n');
            }
            continue;
        };
        part = "";
        let rest = rest.trim().to_owned();
        if matches!(mark, "category" | "mutant" | "control") {
            all.extend(open.take().map(checked).transpose()?);
        }
        match (mark, &mut open) {
            ("category", _) => category = rest,
            ("mutant" | "control", _) => {
                open = Some(Case {
                    category: category.clone(),
                    name: rest,
                    control: mark == "control",
                    ..Case::default()
                });
            }
            ("finds" | "finds low", Some(case)) => {
                case.low = mark == "finds low";
                for one in rest.split(" | ") {
                    let (id, object) = one.trim().split_once(' ').ok_or(format!("line {number}: id and object?"))?;
                    case.finds.push((id.into(), object.into()));
                }
            }
            ("proof", Some(case)) => (case.proof, part) = (Some(rest + "\n"), "proof"),
            ("effect", Some(case)) => (case.effect, part) = (Some(rest + "\n"), "effect"),
            ("no proof", Some(case)) => case.no_proof = Some(rest),
            _ => return Err(format!("line {number}: {mark} of what?")),
        }
    }
    all.extend(open.take().map(checked).transpose()?);
    Ok(())
}

fn checked(case: Case) -> Result<Case, String> {
    let wrong = match (case.control, case.finds.is_empty(), case.proof.is_some(), case.no_proof.is_some()) {
        (true, true, false, false) => None,
        (true, ..) => Some("a control finds nothing and proves nothing"),
        (false, true, ..) => Some("what is to be found?"),
        (false, _, true, true) => Some("a proof, and a reason why there is none"),
        (false, _, false, false) => Some("a proof, or the reason why there is none, is missing"),
        _ => None,
    };
    match wrong {
        Some(wrong) => Err(format!("{}: {wrong}", case.name)),
        None => Ok(case),
    }
}

/// The ids that stand for a family, from `tests/mutants/families`.
pub fn families() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("families")).expect("tests/mutants/families");
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(' '))
        .map(|(name, ids)| (name.into(), ids.split(' ').map(str::to_owned).collect()))
        .collect()
}

/// A finding, of whichever tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub id: String,
    /// What the tool says it is about.
    pub object: String,
    pub words: String,
    /// Below what stops a pipeline.
    pub low: bool,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A fitting finding that is new names the object.
    Caught(Vec<String>),
    /// Nothing fits.
    Missed,
    /// A control, and nothing new.
    Quiet,
    /// A control, and something new.
    Alarm(Vec<String>),
    /// The tool could not be run.
    NotRun,
}

impl Outcome {
    /// Caught, or quiet.
    pub fn right(&self) -> bool {
        matches!(self, Self::Caught(_) | Self::Quiet)
    }
}

/// Judges the new findings of a tool by what the case says of ids and objects.
pub fn judge(case: &Case, new: &[Found], fits: impl Fn(&Found, &str, &str) -> bool) -> Outcome {
    let counts = |f: &&Found| case.low || !f.low;
    let ids = |found: Vec<&Found>| {
        let ids: BTreeSet<_> = found.into_iter().map(|f| f.id.clone()).collect();
        ids.into_iter().collect::<Vec<_>>()
    };
    if case.control {
        let alarms = ids(new.iter().filter(|f| !f.low).collect());
        return if alarms.is_empty() { Outcome::Quiet } else { Outcome::Alarm(alarms) };
    }
    let fit = new.iter().filter(counts).filter(|f| case.finds.iter().any(|(id, object)| fits(f, id, object)));
    let fit = ids(fit.collect());
    if fit.is_empty() { Outcome::Missed } else { Outcome::Caught(fit) }
}

/// The base, in a database of its own.
pub struct Clinic {
    pub db: Db,
    session: Session,
    base: BTreeSet<Found>,
    families: BTreeMap<String, Vec<String>>,
}

/// The roles of `tests/mutants/base.sql`, and those that splinter's rules are about.
pub const ROLES: &str = "CREATE ROLE clinic_owner; CREATE ROLE clinic_app LOGIN IN ROLE custody_app;
    CREATE ROLE anon; CREATE ROLE authenticated IN ROLE clinic_app; CREATE ROLE service_role";

impl Clinic {
    /// Makes it.
    pub fn new() -> Self {
        let db = Db::new();
        let mut session = db.superuser();
        // They are the cluster's, and stay.
        if session.count("pg_roles WHERE rolname = 'clinic_owner'") == 0 {
            session.batch(ROLES);
        }
        session.batch(&fs::read_to_string(root().join("base.sql")).expect("tests/mutants/base.sql"));
        session.batch("SET client_min_messages = error");
        let base = coverage(&mut session);
        let noisy: Vec<_> = base.iter().filter(|f| !f.low).collect();
        assert!(noisy.is_empty(), "the base is not clean: {noisy:#?}");
        Self { db, session, base, families: families() }
    }

    /// Ends the session, for those who copy the database.
    pub fn into_database(self) -> Db {
        self.db
    }

    /// The names of an object in `finds`, made those of this database.
    fn fits(&self, found: &Found, id: &str, object: &str) -> bool {
        let id_fits = id == "*" || id == found.id || self.families.get(id).is_some_and(|ids| ids.contains(&found.id));
        let object = object.replace("{database}", &self.db.name);
        id_fits
            && match object.strip_prefix('~') {
                Some(part) => found.object.contains(part) || found.words.to_lowercase().contains(&part.to_lowercase()),
                None => found.object == object,
            }
    }

    /// Applies a case and looks, then rolls it back.
    pub fn run(&mut self, case: &Case) -> (Outcome, Result<Proof, String>) {
        self.session.batch("BEGIN");
        if let Err(e) = self.session.0.batch_execute(&case.sql) {
            panic!("{}: {}", case.name, words(&e));
        }
        let new: Vec<_> = coverage(&mut self.session).difference(&self.base).cloned().collect();
        let outcome = judge(case, &new, |f, id, object| self.fits(f, id, object));
        let proof = self.prove(case);
        self.session.batch("ROLLBACK; RESET SESSION AUTHORIZATION");
        self.session.batch("DISCARD ALL");
        self.session.batch("SET client_min_messages = error");
        (outcome, proof)
    }

    /// Whether it is what it says: a leak that somebody falls through, or a variant that holds.
    fn prove(&mut self, case: &Case) -> Result<Proof, String> {
        const CONTEXT: &str = "SET SESSION AUTHORIZATION clinic_app; SELECT custody.assume_tenant('a'); SET LOCAL app.tenant = 'a'; SET LOCAL app.tenants = 'a'; SELECT set_config('app.user', 'ann', true)";
        if case.control {
            let tables = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'clinic'::regnamespace
                AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AND has_table_privilege('clinic_app', c.oid, 'SELECT')";
            let tables: Vec<String> = self.session.rows(tables, &[]).iter().map(|r| r.get(0)).collect();
            self.simple(CONTEXT)?;
            for table in tables {
                self.simple("SAVEPOINT before")?;
                // An error shows nothing either.
                let seen = self.simple(&format!("SELECT FROM {table} WHERE tenant_id::text <> 'a'")).unwrap_or(0);
                if seen > 0 {
                    return Err(format!("{table} shows foreign rows"));
                }
                self.simple("ROLLBACK TO before")?;
            }
            return Ok(Proof::Held);
        }
        let Some(proof) = &case.proof else {
            return Ok(Proof::None(case.no_proof.clone().unwrap_or_default()));
        };
        self.simple(CONTEXT)?;
        let mut rows = self.simple(proof)?;
        if let Some(effect) = &case.effect {
            self.simple("RESET SESSION AUTHORIZATION")?;
            rows = self.simple(effect)?;
        }
        if rows > 0 { Ok(Proof::Shown) } else { Err("the proof shows nothing".into()) }
    }

    /// The rows of the last statement.
    fn simple(&mut self, sql: &str) -> Result<u64, String> {
        let messages = self.session.0.simple_query(sql).map_err(|e| {
            e.as_db_error().map_or_else(|| e.to_string(), |d| format!("{} {}", d.code().code(), d.message()))
        })?;
        let last = messages.iter().rev().find_map(|m| match m {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        Ok(last.unwrap_or_default())
    }
}

impl Default for Clinic {
    fn default() -> Self {
        Self::new()
    }
}

/// What a case's proof came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A foreign row was seen, or damaged.
    Shown,
    /// A control let no foreign row through.
    Held,
    /// There is none, for this reason.
    None(String),
}

fn coverage(session: &mut Session) -> BTreeSet<Found> {
    session
        .rows("SELECT id, object, explanation, severity = 'low' FROM custody.coverage()", &[])
        .iter()
        .map(|r| Found { id: r.get(0), object: r.get(1), words: r.get(2), low: r.get(3) })
        .collect()
}
