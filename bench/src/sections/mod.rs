//! What is measured, section by section.

mod bulk;
mod copy;
mod tpcb;

use custody_harness::Result;

use crate::contestant::Bench;
use crate::report::Report;

/// A part of the bench that can be run alone.
pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Bench, &mut Report) -> Result<()>,
}

pub const SECTIONS: [Section; 4] = [
    Section { name: "tpcb", about: "pgbench's own transaction, scale 20, 8 clients, four audited tables", run: tpcb::run },
    Section { name: "clients", about: "the same with 1, 2, 16 and 32 clients", run: tpcb::clients },
    Section { name: "bulk", about: "100,000 rows in one statement", run: bulk::run },
    Section { name: "copy", about: "COPY of 1,000,000 rows, and the backend's memory", run: copy::run },
];
