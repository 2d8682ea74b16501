//! What CREATE EXTENSION makes: that the script and the library agree, who may do what, and that everything is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use custody_tests::Db;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_sources(dir: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Each `custody_x, pg_finfo_custody_x => body` of the sources: the symbol, and how the body reads its arguments
/// (`required(0`, `optional(1`, `name(1`, `names(2`).
fn declared() -> BTreeMap<String, Vec<(usize, String)>> {
    let mut sources = Vec::new();
    rust_sources(&root().join("src"), &mut sources);
    let mut found = BTreeMap::new();
    for (_, text) in &sources {
        let mut current: Option<String> = None;
        for line in text.lines() {
            if let Some((symbol, _)) = line.trim().split_once(", pg_finfo_custody_") {
                current = Some(symbol.to_owned());
                found.insert(symbol.to_owned(), Vec::new());
            }
            // The block of declarations ends at the margin.
            if line == "}" {
                current = None;
            }
            let Some(symbol) = &current else { continue };
            for how in ["required", "optional", "name", "names", "json"] {
                for (at, _) in line.match_indices(&format!("call.{how}")) {
                    let rest = &line[at..];
                    let digits = |r: &str| r.chars().take_while(char::is_ascii_digit).collect::<String>();
                    let number = rest.split_once('(').and_then(|(_, r)| digits(r).parse::<usize>().ok());
                    let exact =
                        rest.starts_with(&format!("call.{how}(")) || rest.starts_with(&format!("call.{how}::<"));
                    if let (Some(number), true) = (number, exact) {
                        found.get_mut(symbol).unwrap().push((number, how.to_owned()));
                    }
                }
            }
        }
    }
    found
}

#[test]
fn the_script_and_the_library_agree() {
    let db = Db::new();
    let mut s = db.superuser();
    let rows = s.rows(
        "SELECT p.prosrc, p.pronargs::int, p.proisstrict, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) t), p.probin
         FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE l.lanname = 'c' AND p.pronamespace = 'custody'::regnamespace",
        &[],
    );
    let declared = declared();
    let in_sql: BTreeSet<String> = rows.iter().map(|r| r.get(0)).collect();
    let in_rust: BTreeSet<String> = declared.keys().cloned().collect();
    assert_eq!(in_sql, in_rust, "every function of the library is declared in SQL, and the other way round");
    for row in &rows {
        let (symbol, arguments, strict): (String, i32, bool) = (row.get(0), row.get(1), row.get(2));
        let types: Vec<String> = row.get(3);
        assert!(!strict, "{symbol}: NULL arguments get an error of ours, not silence");
        assert_eq!(row.get::<_, &str>(4), "$libdir/pg_custody");
        let read = &declared[&symbol];
        let places: BTreeSet<usize> = read.iter().map(|r| r.0).collect();
        assert_eq!(places, (0..arguments as usize).collect(), "{symbol} reads each of its arguments");
        for (place, how) in read {
            let expected = match how.as_str() {
                "name" => "name",
                "names" => "name[]",
                _ => continue,
            };
            assert_eq!(types[*place], expected, "{symbol}, argument {place}");
        }
    }
}

#[test]
fn public_may_do_nothing_and_each_role_what_it_is_for() {
    let db = Db::new();
    let mut s = db.superuser();
    for acl in [
        "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE p.pronamespace = 'custody'::regnamespace AND x.grantee = 0",
        "SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace = 'custody'::regnamespace AND x.grantee = 0",
        "SELECT n.nspname::text FROM pg_namespace n, aclexplode(n.nspacl) x WHERE n.nspname = 'custody' AND x.grantee = 0",
        // Types of our tables: nobody else needs them.
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.pronamespace = 'custody'::regnamespace AND NOT r.rolsuper",
    ] {
        assert_eq!(s.rows(acl, &[]).iter().map(|r| r.get(0)).collect::<Vec<String>>(), Vec::<String>::new(), "{acl}");
    }
    let can = |s: &mut custody_tests::Session, role: &str| -> Vec<String> {
        s.rows(
            "SELECT DISTINCT p.proname::text COLLATE \"C\" FROM pg_proc p, aclexplode(p.proacl) x WHERE p.pronamespace = 'custody'::regnamespace AND x.grantee = $1::text::regrole ORDER BY 1",
            &[&role],
        )
        .iter()
        .map(|r| r.get(0))
        .collect()
    };
    assert_eq!(
        can(&mut s, "custody_app"),
        [
            "assume_tenant",
            "authenticate",
            "claims",
            "history",
            "key_hash",
            "row_key",
            "subject",
            "tenant",
            "tenant_bigint",
            "tenant_int",
            "tenant_uuid"
        ]
    );
    let writable = s.rows(
        "SELECT c.relname::text FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace = 'custody'::regnamespace
         AND x.grantee IN (SELECT oid FROM pg_roles WHERE rolname LIKE 'custody\\_%') AND x.privilege_type <> 'SELECT'",
        &[],
    );
    assert!(writable.is_empty(), "no role of ours writes our tables but through our functions");
    let readable = s.rows(
        "SELECT c.relname::text COLLATE \"C\" FROM pg_class c WHERE c.relnamespace = 'custody'::regnamespace AND c.relkind IN ('r', 'v') AND has_table_privilege('custody_app', c.oid, 'SELECT') ORDER BY 1",
        &[],
    );
    assert_eq!(readable.iter().map(|r| r.get(0)).collect::<Vec<String>>(), ["entry", "log"]);
}

#[test]
fn definer_functions_pin_their_search_path_and_the_context_has_none() {
    let db = Db::new();
    let mut s = db.superuser();
    let rows = s.rows(
        "SELECT p.proname::text, p.prosecdef, coalesce(array_to_string(p.proconfig, ' '), '') FROM pg_proc p WHERE p.pronamespace = 'custody'::regnamespace",
        &[],
    );
    // Read at every row, or setting what must outlive them: a SET clause would cost, or undo it.
    let bare = [
        "tenant",
        "tenant_uuid",
        "tenant_int",
        "tenant_bigint",
        "subject",
        "claims",
        "authenticate",
        "assume_tenant",
        "require_context",
        "capture",
        "capture_truncate",
        "append_only",
        "start",
        "key_hash",
        // Commits, which a SET clause forbids.
        "checkpoint",
    ];
    for row in rows {
        let (name, definer, config): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        match bare.contains(&name.as_str()) {
            true => assert!(!definer && config.is_empty(), "{name}: {config}"),
            false => assert!(config.contains("search_path=pg_catalog, pg_temp"), "{name}: {config}"),
        }
    }
}

#[test]
fn everything_public_is_commented() {
    let db = Db::new();
    let mut s = db.superuser();
    let bare = s.rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'custody'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
         UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'custody'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL",
        &[],
    );
    assert_eq!(bare.iter().map(|r| r.get(0)).collect::<Vec<String>>(), Vec::<String>::new());
}

#[test]
fn the_reference_names_every_function_and_every_error() {
    let db = Db::new();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let reference = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let functions = db.superuser().rows(
        "SELECT DISTINCT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'custody'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND p.proname <> 'start'",
        &[],
    );
    for row in functions {
        let name: String = row.get(0);
        assert!(readme.contains(&format!("{name}(")), "README.md does not name custody.{name}");
    }
    let errors = fs::read_to_string(root().join("src/error.rs")).unwrap();
    let mut states: BTreeSet<String> =
        errors.match_indices("\"UC0").map(|(at, _)| errors[at + 1..at + 6].to_owned()).collect();
    for piece in fs::read_dir(root().join("sql/install")).unwrap() {
        let text = fs::read_to_string(piece.unwrap().path()).unwrap();
        states.extend(text.match_indices("'UC0").map(|(at, _)| text[at + 1..at + 6].to_owned()));
    }
    assert!(states.len() > 15);
    for state in states {
        assert!(reference.contains(&state), "docs/errors.md does not explain {state}");
    }
}

#[test]
fn installation_refuses_what_would_make_it_a_trap() {
    let db = Db::bare();
    let mut s = db.superuser();
    s.batch("CREATE SCHEMA custody");
    assert_eq!(s.fails("CREATE EXTENSION pg_custody"), "42P06");
    s.batch("DROP SCHEMA custody");
    // The roles are the cluster's, so this is undone at once, in one transaction.
    for trap in [
        "ALTER ROLE custody_app LOGIN",
        "ALTER ROLE custody_auditor BYPASSRLS",
        "GRANT pg_read_all_data TO custody_app",
        "ALTER ROLE custody_admin SUPERUSER",
    ] {
        let exists: bool = s.one(
            "SELECT count(*) = 3 FROM pg_roles WHERE rolname IN ('custody_app', 'custody_auditor', 'custody_admin')",
        );
        if !exists {
            s.batch("BEGIN; CREATE EXTENSION pg_custody; COMMIT; DROP EXTENSION pg_custody");
        }
        s.batch(&format!("BEGIN; {trap}"));
        assert_eq!(s.fails("CREATE EXTENSION pg_custody"), "UC011", "{trap}");
        s.batch("ROLLBACK");
    }
    let latin = format!("{}_latin1", db.name);
    s.batch(&format!("CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"));
    let mut latin = custody_tests::Session(db.cluster.connect(&latin, "postgres").unwrap());
    assert_eq!(latin.fails("CREATE EXTENSION pg_custody"), "UC010");
}
