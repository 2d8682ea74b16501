//! Injected leaks: each is a leak, and each is found; correct variants beside them are let alone.

use std::collections::BTreeSet;

use custody_tests::mutants::{Clinic, Outcome, Proof, cases, root};

/// What coverage() does not see yet, or sees where nothing is: `tests/mutants/known_misses`. It may only get shorter.
fn known() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("known_misses")).unwrap();
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn every_leak_is_a_leak_and_is_found_and_correct_variants_are_let_alone() {
    let mut clinic = Clinic::new();
    let (mut leaks, mut controls, mut shown) = (0, 0, 0);
    let (mut broken, mut wrong) = (Vec::new(), BTreeSet::new());
    for case in cases("own") {
        if case.control {
            controls += 1
        } else {
            leaks += 1
        }
        let (outcome, proof) = clinic.run(&case);
        match proof {
            Ok(Proof::Shown) => shown += 1,
            Ok(_) => {}
            Err(e) => broken.push(format!("{}: {e}", case.name)),
        }
        match outcome {
            Outcome::Alarm(ids) => _ = wrong.insert(format!("false alarm: {} ({})", case.name, ids.join(", "))),
            outcome if !outcome.right() => _ = wrong.insert(format!("missed: {}", case.name)),
            _ => {}
        }
    }
    assert!(broken.is_empty(), "not what they say: {broken:#?}");
    let known = known();
    let new: Vec<_> = wrong.difference(&known).collect();
    let gone: Vec<_> = known.difference(&wrong).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(gone.is_empty(), "right now; take these out of tests/mutants/known_misses: {gone:#?}");
    assert!(leaks >= 160 && controls >= 40 && shown >= 140, "{leaks} leaks, {shown} shown, {controls} controls");
}
