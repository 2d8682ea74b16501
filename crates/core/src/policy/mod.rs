//! What a row-level security policy means: whether its expression holds rows to one tenant, opens others' rows, or can't be decided.
//!
//! The expression is read as PostgreSQL keeps it, a tree in text (`node`), and judged by what it can be true of (`judge`). The judgement
//! errs on one side only: what it does not understand is never said to hold.

mod judge;
mod node;
mod verdict;

pub use judge::{columns, judge};
pub use node::{Node, Object};
pub use verdict::{Basis, Origin, Verdict};

use std::rc::Rc;

/// A function, as far as it matters for what a policy means.
#[derive(Debug, Clone, Default)]
pub struct Function {
    /// Its name, qualified where it is not PostgreSQL's own.
    pub name: String,
    /// Whether it is PostgreSQL's own.
    pub builtin: bool,
    /// Whether it is pg_custody's.
    pub custody: bool,
    /// Whether it is what an equality operator calls.
    pub equality: bool,
    /// The tree of its body, if it is one SQL query.
    pub body: Option<Rc<Node>>,
}

/// What an operator is to the types that it compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Equality, as an index understands it.
    Equal,
    /// The negation of one.
    Unequal,
    /// Anything else.
    Other,
}

/// A table or view that a policy reads.
#[derive(Debug, Clone, Default)]
pub struct Relation {
    /// Its qualified name.
    pub name: String,
    /// Whether row-level security is on, and so whoever reads it sees what its own policies let him.
    pub secured: bool,
}

/// What there is to know of the objects that a tree names by number.
pub trait Catalog {
    /// A function; none if there is no such function any more.
    fn function(&mut self, oid: u32) -> Option<Rc<Function>>;
    /// An operator.
    fn operator(&mut self, oid: u32) -> Operator;
    /// A table or view.
    fn relation(&mut self, oid: u32) -> Option<Rc<Relation>>;
    /// Whether a collation takes different strings for equal.
    fn merges(&mut self, collation: u32) -> bool;
}
