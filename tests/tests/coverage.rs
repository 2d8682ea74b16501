//! Promise I5: every way in which isolation is not enforced is found and named, and correct tables are left alone.

use std::collections::BTreeSet;

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

/// Findings as `id object`, and whether each is of severity medium or worse.
fn findings(s: &mut Session) -> BTreeSet<(String, bool)> {
    s.rows("SELECT id || ' ' || object, severity <> 'low' FROM custody.coverage()", &[])
        .iter()
        .map(|r| (r.get(0), r.get(1)))
        .collect()
}

#[test]
fn each_violation_is_found_and_each_control_is_clean() {
    let db = Db::new();
    let mut s = db.superuser();
    s.batch(
        "CREATE SCHEMA clinic; CREATE TABLE clinic.patients (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id)); CREATE TABLE clinic.codes (code text PRIMARY KEY, label text);
         SELECT custody.protect('clinic.patients'), custody.register_shared('clinic.codes', 'code list');
         CREATE ROLE clinic_app LOGIN IN ROLE custody_app; GRANT USAGE ON SCHEMA clinic TO clinic_app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients TO clinic_app; GRANT SELECT ON clinic.codes TO clinic_app",
    );
    let base = findings(&mut s);
    assert!(!base.iter().any(|f| f.1), "{base:#?}");
    let (mut cases, mut controls, mut wrong) = (0, 0, Vec::new());
    for (kind, name, sql) in blocks() {
        s.batch("BEGIN");
        if let Err(e) = s.0.batch_execute(&sql) {
            panic!("{kind} {name}: {}", custody_tests::words(&e));
        }
        let found = findings(&mut s);
        if kind == "case" {
            cases += 1;
            if !found.iter().any(|f| f.0 == name) {
                wrong.push(format!("missed {name}; found {found:?}"));
            }
        } else {
            controls += 1;
            let new: Vec<_> = found.difference(&base).filter(|f| f.1).collect();
            if !new.is_empty() {
                wrong.push(format!("false alarm at {name}: {new:?}"));
            }
        }
        s.batch("ROLLBACK");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases >= 30 && controls >= 12, "{cases} cases, {controls} controls");
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
