//! Promise I5: every way in which isolation is not enforced is found and named, and correct tables are left alone.

use std::collections::{BTreeMap, BTreeSet};

use custody_tests::{Db, Session};

/// Blocks of tests/sql/coverage_cases.sql: (`case` or `control`, its name, the SQL).
fn blocks() -> Vec<(String, String, String)> {
    let mut blocks: Vec<(String, String, String)> = Vec::new();
    for line in include_str!("../sql/coverage_cases.sql").lines() {
        let head = line
            .strip_prefix("-- case: ")
            .map(|n| ("case", n))
            .or_else(|| line.strip_prefix("-- control: ").map(|n| ("control", n)));
        match (head, blocks.last_mut()) {
            (Some((kind, name)), _) => blocks.push((kind.into(), name.into(), String::new())),
            (None, Some(block)) => {
                block.2.push_str(line);
                block.2.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Findings as `id object`, with their severity and fix.
fn findings(s: &mut Session) -> BTreeMap<String, (String, String)> {
    s.rows("SELECT id || ' ' || object, severity, fix FROM custody.coverage()", &[])
        .iter()
        .map(|r| (r.get(0), (r.get(1), r.get(2))))
        .collect()
}

/// The names of those that a pipeline would stop at.
fn serious(found: &BTreeMap<String, (String, String)>) -> BTreeSet<String> {
    found.iter().filter(|f| f.1.0 != "low").map(|f| f.0.clone()).collect()
}

/// What a case brings with it: `-- with: CU010 clinic.visits, …`.
fn expected(sql: &str) -> BTreeSet<String> {
    let lines = sql.lines().filter_map(|l| l.strip_prefix("-- with: "));
    lines.flat_map(|l| l.split(", ")).map(str::to_owned).collect()
}

#[test]
fn each_cause_is_its_finding_and_its_fix_the_end_of_it() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE SCHEMA clinic; CREATE TABLE clinic.patients (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id)); CREATE TABLE clinic.codes (code text PRIMARY KEY, label text);
         SELECT custody.protect('clinic.patients'), custody.register_shared('clinic.codes', 'code list');
         CREATE ROLE clinic_app LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA clinic TO clinic_app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients TO clinic_app; GRANT SELECT ON clinic.codes TO clinic_app",
    );
    let base = findings(&mut s);
    assert!(base.is_empty(), "what custody.protect makes gives no finding: {base:#?}");
    let (mut cases, mut controls, mut fixed, mut wrong) = (0, 0, 0, Vec::new());
    let mut ids = BTreeSet::new();
    for (kind, name, sql) in blocks() {
        s.batch("BEGIN");
        if let Err(e) = s.0.batch_execute(&sql) {
            panic!("{kind} {name}: {}", custody_tests::words(&e));
        }
        s.batch("RESET search_path");
        let found = findings(&mut s);
        if kind == "case" {
            cases += 1;
            ids.insert(name[..5].to_owned());
            let mut rest = serious(&found);
            rest.remove(&name);
            if rest != expected(&sql) {
                wrong.push(format!("{name} brings {:?}\n{sql}", rest.into_iter().collect::<Vec<_>>().join(", ")));
            }
            match found.get(&name) {
                None => wrong.push(format!("missed {name}; found {found:?}\n{sql}")),
                Some((_, fix)) if fix.starts_with("no SQL fixes this: ") || fix.starts_with("ALTER SYSTEM") => {}
                Some((_, fix)) => {
                    fixed += 1;
                    if let Err(e) = s.0.batch_execute(fix) {
                        wrong.push(format!("{name}: {fix}: {}", custody_tests::words(&e)));
                    } else if findings(&mut s).contains_key(&name) {
                        wrong.push(format!("{name} is still there after {fix}\n{sql}"));
                    }
                }
            }
        } else {
            controls += 1;
            let new = serious(&found);
            if !new.is_empty() {
                wrong.push(format!("false alarm at {name}: {new:?}"));
            }
        }
        s.batch("ROLLBACK");
    }
    println!("{cases} cases of {} findings, {fixed} fixed by their SQL, {controls} controls", ids.len());
    assert!(wrong.is_empty(), "{} of {}: {}", wrong.len(), cases + controls, wrong.join("\n"));
    assert!(cases >= 120 && controls >= 45 && fixed >= 90, "{cases} cases, {fixed} fixed, {controls} controls");
    // Every finding that there is, but what this server's version decides.
    let there: BTreeSet<String> = ["70_coverage", "71_policies", "72_tables", "73_roles", "74_objects"]
        .iter()
        .flat_map(|f| std::fs::read_to_string(format!("{}/../sql/install/{f}.sql", env!("CARGO_MANIFEST_DIR"))))
        .flat_map(|text| text.match_indices("'CU0").map(|(at, _)| text[at + 1..at + 6].to_owned()).collect::<Vec<_>>())
        .filter(|id| !["CU050", "CU051"].contains(&id.as_str()))
        .collect();
    assert_eq!(there.difference(&ids).collect::<Vec<_>>(), Vec::<&String>::new(), "every finding has a case");
}

#[test]
fn the_gate_stops_a_pipeline() {
    let db = Db::clinic();
    let mut s = db.superuser();
    let gate = |db: &Db| {
        let mut psql = db.cluster.client(
            "psql",
            &db.name,
            "postgres",
            &["-X", "-v", "ON_ERROR_STOP=1", "-c", "select custody.assert_coverage()"],
        );
        let output = psql.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(gate(&db).0, Some(0));
    s.batch("CREATE SCHEMA billing; CREATE TABLE billing.invoices (tenant_id text, id int)");
    let (status, words) = gate(&db);
    assert_eq!(status, Some(1));
    assert!(words.contains("billing.invoices") && words.contains("CU001"), "{words}");
    assert_eq!(s.fails("SELECT custody.assert_coverage()"), "UC040");
    assert_eq!(s.fails("SELECT custody.assert_coverage('severe')"), "UC041");
    let open = s.rows("SELECT schema::text || '.' || \"table\" FROM custody.unprotected_tables()", &[]);
    assert_eq!(open.iter().map(|r| r.get(0)).collect::<Vec<String>>(), ["billing.invoices"]);
    s.batch("SELECT custody.protect('billing.invoices')");
    assert_eq!(gate(&db).0, Some(0));
    // An auditor can ask; an application cannot.
    let auditor = format!("{}_auditor", db.name);
    s.batch(&format!("CREATE ROLE {auditor} LOGIN IN ROLE custody_auditor"));
    let mut session = db.session(&auditor);
    session.batch("SELECT custody.assert_coverage(); SELECT * FROM custody.unprotected_tables(); SELECT * FROM custody.coverage()");
    session.assert_valid();
    assert_eq!(db.app().fails("SELECT * FROM custody.coverage()"), "42501");
}
