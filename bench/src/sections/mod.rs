//! What is measured, section by section.

mod bulk;
mod bytes;
mod conflicts;
mod copy;
mod policy;
mod policy_cost;
mod policy_live;
mod reconcile;
mod tenants;
mod tpcb;
mod verify;
mod wide;

use custody_harness::Result;

use crate::contestant::Bench;
use crate::report::Report;

/// A part of the bench that can be run alone.
pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Bench, &mut Report) -> Result<()>,
}

pub const SECTIONS: [Section; 13] = [
    Section {
        name: "tpcb",
        about: "pgbench's own transaction, scale 20, 8 clients, four audited tables",
        run: tpcb::run,
    },
    Section { name: "clients", about: "the same with 1, 2, 16 and 32 clients", run: tpcb::clients },
    Section { name: "tenants", about: "32 clients of one tenant, and of 32", run: tenants::run },
    Section { name: "bulk", about: "100,000 rows in one statement", run: bulk::run },
    Section { name: "copy", about: "COPY of 1,000,000 rows, and the backend's memory", run: copy::run },
    Section {
        name: "wide",
        about: "40 columns, long texts, and a value of 100 kB that does not change",
        run: wide::run,
    },
    Section { name: "bytes", about: "WAL and log per entry", run: bytes::run },
    Section {
        name: "verify",
        about: "1,000,000 entries and 100,000 signatures, and verification while others write",
        run: verify::run,
    },
    Section {
        name: "reconcile",
        about: "a table of 1,000,000 rows held against its log, and what its baseline takes",
        run: reconcile::run,
    },
    Section {
        name: "policy",
        about: "queries under the policy, and with the tenant written by hand",
        run: policy::run,
    },
    Section {
        name: "policies",
        about: "1, 100 and 10,000 tenants, with and without an index, partitioned; the library preloaded and not",
        run: policy_cost::run,
    },
    Section {
        name: "live",
        about: "protecting 5,000,000 rows under writers: the script, and protect() alone",
        run: policy_live::run,
    },
    Section { name: "conflicts", about: "serialization failures and deadlocks", run: conflicts::run },
];
