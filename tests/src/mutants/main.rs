//! `make mutants`: every directory of cases, or those named, against custody.coverage() and the other tools; the outcome goes
//! into docs/mutants.md.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use custody_tests::mutants::rivals::{Arena, Rival};
use custody_tests::mutants::score::{Line, put, table};
use custody_tests::mutants::{Clinic, Outcome, cases, directories};

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let directories = if named.is_empty() { directories() } else { named };
    let rivals: Vec<(Rival, String)> = Rival::ALL
        .into_iter()
        .filter_map(|r| match r.version() {
            Some(version) => Some((r, version)),
            None => {
                eprintln!("==> a rival cannot be had here, and is left out");
                None
            }
        })
        .collect();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mutants.md");
    let mut wrong = 0;
    for directory in directories {
        let all = cases(&directory);
        let mut clinic = Clinic::new();
        let mut lines = Vec::new();
        for case in all {
            let (outcome, proof) = clinic.run(&case);
            let proof = proof.unwrap_or_else(|e| panic!("{}: {e}", case.name));
            lines.push(Line { case, proof, outcomes: vec![outcome] });
        }
        let db = clinic.into_database();
        let tools: Vec<Rival> = rivals.iter().map(|r| r.0).collect();
        let mut arena = Arena::new(&db, &tools).unwrap_or_else(|e| panic!("{e}"));
        for line in &mut lines {
            line.outcomes.extend(arena.run(&line.case).unwrap_or_else(|e| panic!("{}: {e}", line.case.name)));
        }
        let mut names = vec![format!("pg_custody {}", env!("CARGO_PKG_VERSION"))];
        names.extend(rivals.iter().map(|r| r.1.clone()));
        let text = table(&names, &lines);
        let title = format!("scores of tests/mutants/{directory}");
        println!("# {title}\n\n{}", text.split("\n<details>").next().unwrap_or_default());
        for line in lines.iter().filter(|l| !l.outcomes[0].right()) {
            wrong += 1;
            match &line.outcomes[0] {
                Outcome::Alarm(ids) => println!("false alarm {}: {}", ids.join(", "), line.case.name),
                _ => println!("missed: {}: {}", line.case.category, line.case.name),
            }
        }
        let before = fs::read_to_string(&document).unwrap_or_else(|e| panic!("docs/mutants.md: {e}"));
        let after = put(&before, &title, &format!("### tests/mutants/{directory}\n\n{text}"));
        fs::write(&document, after).unwrap_or_else(|e| panic!("docs/mutants.md: {e}"));
        arena.end();
    }
    println!("\n{wrong} of pg_custody's answers are wrong; all of it is in docs/mutants.md");
}
