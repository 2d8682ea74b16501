//! What a table and its columns were called when, and from where on its entries count: read from its `SHAPE` entries.

use super::baseline::{Covers, Form, Names, Shape};
use crate::json;

/// A place in the order of a table's history: the incarnation's rank, then `lsn`, then `ordinal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The incarnation's rank among those that the log has, the oldest first.
    pub life: u32,
    /// The entry's `lsn`.
    pub lsn: u64,
    /// The entry's `ordinal`.
    pub ordinal: i64,
}

/// A `SHAPE` entry.
#[derive(Clone, Debug)]
pub struct Described {
    /// Where it stands.
    pub at: Position,
    /// Its transaction.
    pub xid: u64,
    /// The table's name from here on.
    pub names: Names,
    /// What it says.
    pub shape: Shape,
}

/// A snapshot's text, `xmin:xmax:xip,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|x| !x.is_empty()).map(|x| x.parse().ok()).collect::<Option<_>>();
        Some(Self { xmin, xmax, running: running? }).filter(|_| parts.next().is_none())
    }

    /// Whether it saw what that transaction did.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }
}

/// A column through its names: its values can be compared from one to the other.
#[derive(Clone, Debug)]
pub struct Lineage {
    /// What an image that lacks it means, as an image would write it.
    pub fill: String,
    /// Whether the table still has it, under the name it has now.
    pub live: bool,
    /// Its last name.
    pub name: String,
}

/// The columns between two `SHAPE` entries.
#[derive(Debug)]
struct Epoch {
    from: Option<Position>,
    /// Name, as an image writes it, and lineage.
    columns: Vec<(String, usize)>,
}

#[derive(Debug)]
struct Alias {
    names: Names,
    from: Option<Position>,
    until: Option<Position>,
}

/// Where a baseline of the table starts.
#[derive(Debug)]
struct Start {
    at: Position,
    xid: u64,
    snapshot: Snapshot,
}

/// What is known of a table's past.
#[derive(Debug)]
pub struct History {
    /// All columns that it has or had.
    pub lineages: Vec<Lineage>,
    /// Columns that the table has and the log does not know.
    pub unknown: Vec<String>,
    /// Columns that the log knows and the table has not.
    pub missing: Vec<String>,
    /// The form of the baseline that counts; none if there is none.
    pub form: Option<Form>,
    /// The first columns after the baseline, by lineage.
    pub first: Vec<(String, usize)>,
    /// Whether a partition left since.
    pub left: bool,
    start: Option<Start>,
    aliases: Vec<Alias>,
    epochs: Vec<Epoch>,
    ours: Vec<(Position, u64, Covers)>,
}

fn label(name: &str) -> String {
    let mut label = String::new();
    json::push_string(&mut label, name);
    label
}

impl History {
    /// Of the table of that name now, with those columns, from all `SHAPE` entries there are, in order.
    pub fn new(all: &[Described], table: &Names, live: &[String]) -> Self {
        let mut names = table.clone();
        let (mut aliases, mut ours, mut start, mut until) = (Vec::new(), Vec::new(), None, None);
        for described in all.iter().rev() {
            if described.names != names {
                continue;
            }
            ours.push(described);
            let snapshot = described.shape.snapshot.as_deref().and_then(Snapshot::parse);
            if let (Covers::Table, Some(snapshot)) = (described.shape.covers, snapshot) {
                start = Some((described, Start { at: described.at, xid: described.xid, snapshot }));
                break;
            }
            if let Some(was) = &described.shape.was {
                aliases.push(Alias { names: names.clone(), from: Some(described.at), until });
                until = Some(described.at);
                names = was.clone();
            }
        }
        aliases.push(Alias { names, from: None, until });
        // The renaming of a schema waits for nobody: entries under the old name may come later, until another table has it.
        for alias in aliases.iter_mut().filter(|a| a.until.is_some()) {
            let taken = all
                .iter()
                .find(|d| Some(d.at) > alias.until && d.names == alias.names && !ours.iter().any(|o| o.at == d.at));
            let again = ours.iter().rev().find(|o| Some(o.at) > alias.until && o.names == alias.names);
            alias.until = taken.map(|d| d.at).into_iter().chain(again.map(|d| d.at)).min();
        }
        ours.reverse();
        let mut history = Self {
            lineages: Vec::new(),
            unknown: Vec::new(),
            missing: Vec::new(),
            form: start.as_ref().and_then(|(d, _)| d.shape.baseline),
            first: Vec::new(),
            left: ours.iter().any(|o| o.shape.covers == Covers::Left),
            start: None,
            aliases,
            epochs: Vec::new(),
            ours: ours.iter().map(|o| (o.at, o.xid, o.shape.covers)).collect(),
        };
        let first: Vec<String> = match (&start, ours.first()) {
            (Some((described, _)), _) => described.shape.columns.iter().map(|c| c.name.clone()).collect(),
            (None, Some(first)) => {
                first.shape.columns.iter().map(|c| c.was.as_ref().unwrap_or(&c.name).clone()).collect()
            }
            (None, None) => live.to_vec(),
        };
        let columns = first.iter().map(|name| (label(name), history.fresh(name, "null"))).collect::<Vec<_>>();
        history.first.clone_from(&columns);
        history.epochs.push(Epoch { from: None, columns });
        for described in ours.iter().skip(usize::from(start.is_some())) {
            let before = history.epochs.last().map(|e| e.columns.clone()).unwrap_or_default();
            let mut columns = Vec::new();
            for column in &described.shape.columns {
                let known = column.was.as_ref().and_then(|was| {
                    let was = label(was);
                    before.iter().find(|b| b.0 == was).map(|b| b.1)
                });
                let lineage = match known {
                    Some(lineage) => lineage,
                    None => history.fresh(&column.name, column.fill.as_deref().unwrap_or("null")),
                };
                history.lineages[lineage].name.clone_from(&column.name);
                columns.push((label(&column.name), lineage));
            }
            history.epochs.push(Epoch { from: Some(described.at), columns });
        }
        history.start = start.map(|(_, start)| start);
        let last = history.epochs.last().map(|e| e.columns.clone()).unwrap_or_default();
        for name in live {
            match last.iter().find(|c| c.0 == label(name)) {
                Some((_, lineage)) => history.lineages[*lineage].live = true,
                None => history.unknown.push(name.clone()),
            }
        }
        let gone = last.iter().map(|c| &history.lineages[c.1]).filter(|l| !l.live);
        history.missing = gone.map(|l| l.name.clone()).collect();
        history
    }

    fn fresh(&mut self, name: &str, fill: &str) -> usize {
        self.lineages.push(Lineage { fill: fill.into(), live: false, name: name.into() });
        self.lineages.len() - 1
    }

    /// The names that its entries may have.
    pub fn names(&self) -> Vec<Names> {
        let mut names: Vec<Names> = Vec::new();
        for alias in &self.aliases {
            if !names.contains(&alias.names) {
                names.push(alias.names.clone());
            }
        }
        names
    }

    /// Whether an entry is of this table, and not of what was there before its baseline.
    pub fn counts(&self, at: Position, xid: u64, schema: &str, table: &str) -> bool {
        let named = self.aliases.iter().any(|a| {
            a.names.table == table
                && a.names.schema == schema
                && a.from.is_none_or(|from| at >= from)
                && a.until.is_none_or(|until| at < until)
        });
        named
            && match &self.start {
                None => true,
                Some(start) if at.life != start.at.life => at.life > start.at.life,
                Some(start) if xid == start.xid => at.ordinal > start.at.ordinal,
                Some(start) => !start.snapshot.sees(xid),
            }
    }

    /// Whether a `BASELINE` entry holds a whole row, or only the columns that changed for all.
    pub fn holds_row(&self, at: Position, xid: u64) -> bool {
        let governing = self.ours.iter().rev().find(|o| o.1 == xid && o.0.life == at.life && o.0.ordinal < at.ordinal);
        governing.is_none_or(|o| o.2 != Covers::Columns)
    }

    /// The columns at a position.
    pub fn columns(&self, at: Position) -> &[(String, usize)] {
        let epoch = self.epochs.iter().rev().find(|e| e.from.is_none_or(|from| at >= from));
        epoch.map_or(&[], |e| &e.columns)
    }

    /// The columns now.
    pub fn columns_now(&self) -> &[(String, usize)] {
        self.epochs.last().map_or(&[], |e| &e.columns)
    }

    /// Whether there is a baseline, so that a row that the log does not know was added behind its back.
    pub fn is_complete(&self) -> bool {
        matches!(self.form, Some(Form::Rows | Form::Digest))
    }
}
