//! What a condition does for isolation, and how such verdicts combine.

use std::collections::BTreeSet;

/// Where the tenant that a condition asks for comes from. Later ones are weaker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// pg_custody's context.
    Context,
    /// A claim of the signed token.
    Claim,
    /// Who logged in, or which role counts.
    User,
    /// A table under row-level security of its own.
    Secured(String),
    /// A table.
    Lookup(String),
    /// The subject of the signed token, who may belong to several tenants.
    Subject,
    /// A function that can't be looked into.
    Opaque(String),
    /// A setting, which SQL can set.
    Setting(String),
    /// Rows whose tenant is NULL.
    NoTenant,
    /// A fixed value, if nothing else gives one.
    Default,
    /// A fixed value.
    Constant,
    /// Something in the token that its owner may edit.
    Editable,
}

impl Origin {
    /// Whether it tells one session from another.
    pub fn tells(&self) -> bool {
        !matches!(self, Self::Lookup(_) | Self::NoTenant | Self::Default | Self::Constant)
    }
}

/// All that a condition's tenant comes from.
pub type Basis = BTreeSet<Origin>;

/// What rows a condition can be true of. Later ones are worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Of none.
    Never,
    /// Of the rows of tenants that are the same for every row it looks at.
    Holds(Basis),
    /// Of every row, but only for sessions with a certain role, claim or entry in a table.
    Door {
        /// For which.
        why: String,
        /// Whether it is an entry in a table, which every user may have.
        entry: bool,
    },
    /// Nobody knows.
    Undecided(String),
    /// Of rows of any tenant.
    Opens(String),
}

use Verdict::{Door, Holds, Never, Opens, Undecided};

impl Verdict {
    fn rank(&self) -> u8 {
        match self {
            Never => 0,
            Holds(_) => 1,
            Door { .. } => 2,
            Undecided(_) => 3,
            Opens(_) => 4,
        }
    }

    /// Both conditions are met.
    pub fn and(self, other: Self) -> Self {
        match (&self, &other) {
            // What tells sessions apart counts before what does not.
            (Holds(a), Holds(b)) => {
                let weakness = |basis: &Basis| (!basis.iter().any(Origin::tells), basis.last().cloned());
                if weakness(a) <= weakness(b) { self } else { other }
            }
            _ if self.rank() <= other.rank() => self,
            _ => other,
        }
    }

    /// One of them is met.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Holds(mut a), Holds(b)) => {
                a.extend(b);
                Holds(a)
            }
            // Who has no such entry is held to his tenant, so the entry is meant to be somebody's privilege.
            (Door { why, .. }, Holds(_)) | (Holds(_), Door { why, .. }) => Door { why, entry: false },
            (a, b) if a.rank() >= b.rank() => a,
            (_, b) => b,
        }
    }
}
