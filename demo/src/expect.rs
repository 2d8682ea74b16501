//! What the story claims, checked: a claim that does not hold ends it.

use std::fmt::Display;

use custody_harness::Result;

use crate::print;

/// The claim that two things are equal.
pub fn equal<T: PartialEq + Display>(claim: &str, expected: T, happened: T) -> Result<()> {
    match expected == happened {
        true => {
            print::holds(claim);
            Ok(())
        }
        false => unmet(claim, expected, happened),
    }
}

/// The claim that something is so; otherwise, `happened` says what was.
pub fn holds(claim: &str, so: bool, happened: impl Display) -> Result<()> {
    match so {
        true => {
            print::holds(claim);
            Ok(())
        }
        false => unmet(claim, "that this holds", happened),
    }
}

/// A claim that does not hold.
pub fn unmet(claim: &str, expected: impl Display, happened: impl Display) -> Result<()> {
    Err(format!("the story does not hold: {claim}\n  expected: {expected}\n  happened: {happened}").into())
}
