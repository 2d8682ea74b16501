//! Whether the stored checkpoints are what they were, whether notes from outside still fit them, and what they ask of the log.

use std::collections::BTreeMap;

use uuid::Uuid;

use custody_core::Hash;
use custody_core::tlog;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{Leaf, heads_digest, map};
use custody_core::tlog::merkle::{self, Tree};
use custody_core::tlog::note::{self, Kind, NoteError, NoteKey};
use custody_core::tlog::tenant::kept;
use custody_core::verify::{Head, Keys};

use crate::error::{Error, Result};
use crate::evidence::tree::{self, as_pgrx};
use crate::pg::{scan, session, spi};

/// Leaves that are read at once.
const LEAVES: u64 = 10_000;

/// What is wrong with the checkpoints.
pub struct Finding {
    pub verdict: &'static str,
    pub incarnation: Uuid,
    /// Which checkpoint, by its counter.
    pub counter: i64,
    pub detail: String,
}

/// What looking at the checkpoints gave.
#[derive(Default)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// What the log must still hold: where chains ended at the last checkpoint, and at those that were given.
    pub heads: Vec<Head>,
    /// The size of the present incarnation's tree.
    pub size: u64,
    /// Notes from outside that fit.
    pub anchored: usize,
    /// Those among them that every witness has signed, where any was named.
    pub witnessed: usize,
}

/// What the caller brings from outside.
#[derive(Default)]
pub struct Outside {
    pub notes: Vec<String>,
    /// Who must have signed each of them, too.
    witnesses: Vec<NoteKey>,
}

impl Outside {
    /// None of either may be NULL, or the caller would take what was not looked at for proved.
    pub fn given(notes: Option<Vec<Option<String>>>, witnesses: Option<Vec<Option<String>>>) -> Result<Self> {
        let given = |name, list: Option<Vec<Option<String>>>| {
            let null = || Error::BadArgument { name, why: "must hold no null".into() };
            list.unwrap_or_default().into_iter().map(|one| one.ok_or_else(null)).collect::<Result<Vec<_>>>()
        };
        let notes = given("checkpoints", notes)?;
        let key = |text: &String| {
            let bad = |why: String| Error::BadArgument { name: "witnesses", why };
            let key = NoteKey::parse(text).map_err(|e| bad(e.to_string()))?;
            match key.kind() {
                Kind::Cosignature => Ok(key),
                _ => Err(bad(format!("{} is not a key that cosigns", key.name()))),
            }
        };
        let witnesses = given("witnesses", witnesses)?.iter().map(key).collect::<Result<Vec<_>>>()?;
        if notes.is_empty() && !witnesses.is_empty() {
            let why = "need checkpoints from outside that they have signed".into();
            return Err(Error::BadArgument { name: "witnesses", why });
        }
        Ok(Self { notes, witnesses })
    }
}

impl Checked {
    fn found(&mut self, verdict: &'static str, incarnation: Uuid, counter: u64, detail: impl Into<String>) {
        self.findings.push(Finding { verdict, incarnation, counter: counter as i64, detail: detail.into() });
    }
}

/// Looks at every tree, and holds the notes from outside against them.
pub fn check(keys: &Keys, present: Option<Uuid>, outside: &Outside) -> Result<Checked> {
    let mut checked = Checked::default();
    // Installed as 0.1.0, and not upgraded yet.
    if scan::our_table("checkpoint_leaf").is_none() {
        return Ok(checked);
    }
    let mut trees = BTreeMap::new();
    for incarnation in incarnations()? {
        let tree = rebuilt(incarnation, &mut checked)?;
        check_nodes(incarnation, &tree, &mut checked)?;
        if let Some((size, note)) = tree::last_note(incarnation)? {
            check_note(keys, incarnation, &tree, size, &note, &mut checked);
        }
        if tree.size() > 0 {
            check_heads(incarnation, tree.size() - 1, &mut checked)?;
        }
        trees.insert(incarnation, tree);
    }
    checked.size = present.and_then(|id| trees.get(&id)).map_or(0, Tree::size);
    for (number, note) in outside.notes.iter().enumerate() {
        check_outside(keys, &trees, note, number, &outside.witnesses, &mut checked)?;
    }
    Ok(checked)
}

fn incarnations() -> Result<Vec<Uuid>> {
    let sql = "SELECT l.incarnation FROM custody.checkpoint_leaf l GROUP BY l.incarnation
               UNION SELECT n.incarnation FROM custody.checkpoint_note n GROUP BY n.incarnation";
    let found = spi::rows(sql, &[], |row| row.get::<pgrx::Uuid>(1))?;
    Ok(found.into_iter().flatten().map(|u| Uuid::from_bytes(*u.as_bytes())).collect())
}

/// The tree of the leaves as they are stored.
fn rebuilt(incarnation: Uuid, checked: &mut Checked) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut from = 0;
    loop {
        // By counter, and not by place: where one is missing, the next must not be asked for again for ever.
        let leaves = tree::leaves(incarnation, from, from + LEAVES)?;
        for leaf in &leaves {
            if leaf.counter != tree.size()
                && checked.findings.iter().all(|f| f.incarnation != incarnation || f.verdict != "deleted")
            {
                checked.found(
                    "deleted",
                    incarnation,
                    tree.size(),
                    format!("checkpoint {} is missing, and {} follows", tree.size(), leaf.counter),
                );
            }
            tree.push(leaf.hash());
        }
        from += LEAVES;
        session::check_for_interrupts();
        if leaves.is_empty() && from > tree::size(incarnation)? {
            return Ok(tree);
        }
    }
}

/// Proofs are made from the stored nodes, so they must be those of the leaves.
fn check_nodes(incarnation: Uuid, tree: &Tree, checked: &mut Checked) -> Result<()> {
    let sql =
        "SELECT n.level, n.index, n.hash FROM custody.checkpoint_node n WHERE n.incarnation OPERATOR(pg_catalog.=) $1";
    let nodes = spi::rows(sql, &[as_pgrx(incarnation).into()], |row| {
        Ok((row.get::<i16>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or_default(), row.get::<Vec<u8>>(3)?))
    })?;
    let (stored, mut wrong) = (nodes.len(), None);
    for (level, index, hash) in nodes {
        if hash.as_deref() != tree.stored(level as u32, index as u64).as_ref().map(|h| &h[..]) {
            wrong.get_or_insert(((index as u64) << level.clamp(0, 62)).min(i64::MAX as u64));
        }
    }
    if let Some(counter) = wrong {
        checked.found(
            "edited",
            incarnation,
            counter,
            "a stored node of the tree is not that of its leaves: a leaf or the node was edited",
        );
    } else if stored != tree.nodes() {
        checked.found("edited", incarnation, 0, "nodes of the tree are missing");
    }
    Ok(())
}

/// The last note that is stored here.
fn check_note(keys: &Keys, incarnation: Uuid, tree: &Tree, size: u64, note: &str, checked: &mut Checked) {
    let counter = size.saturating_sub(1);
    match opened(keys, incarnation, size, note) {
        Err(e) => checked.found(
            verdict_of(&e),
            incarnation,
            counter,
            format!("the note that is stored with it is refused: {e}"),
        ),
        Ok(said) if said.size != size => {
            checked.found("edited", incarnation, counter, "the note that is stored with it is another's")
        }
        Ok(said) if said.size > tree.size() => checked.found(
            "truncated",
            incarnation,
            tree.size(),
            "a note is stored of a larger tree: leaves are missing",
        ),
        Ok(said) if root(tree, said.size) != Some(said.root) => {
            checked.found(
                "edited",
                incarnation,
                counter,
                "the leaves are not those of the note that is stored with it",
            );
        }
        Ok(_) => {}
    }
}

/// A note that somebody kept outside.
fn check_outside(
    keys: &Keys,
    trees: &BTreeMap<Uuid, Tree>,
    note: &str,
    number: usize,
    witnesses: &[NoteKey],
    checked: &mut Checked,
) -> Result<()> {
    let bad = |why: String| Error::BadArgument { name: "checkpoints", why: format!("{}: {why}", number + 1) };
    let (text, _) = note::split(note.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let claimed = Checkpoint::parse(text).map_err(|e| bad(e.to_string()))?;
    let Some(incarnation) = tlog::incarnation(&claimed.origin) else {
        return Err(bad("it is of another kind of log".into()));
    };
    let counter = claimed.size.saturating_sub(1);
    let said = match opened(keys, incarnation, claimed.size, note) {
        Ok(said) => said,
        Err(e) => {
            checked.found(verdict_of(&e), incarnation, counter, format!("a checkpoint from outside is refused: {e}"));
            return Ok(());
        }
    };
    let none = Tree::default();
    let tree = trees.get(&incarnation).unwrap_or(&none);
    if said.size > tree.size() {
        let detail = format!(
            "a checkpoint from outside has {} leaves, and there are {} here: this is an earlier state of the database",
            said.size,
            tree.size()
        );
        checked.found("rolled_back", incarnation, tree.size(), detail);
    } else if root(tree, said.size) != Some(said.root) {
        checked.found("forked", incarnation, counter, "a checkpoint from outside has another root: history before it was rewritten, or this is another branch of it");
    } else {
        checked.anchored += 1;
        let without = |w: &&NoteKey| note::open(note.as_bytes(), std::slice::from_ref(w)).is_err();
        match witnesses.iter().find(without) {
            None => checked.witnessed += usize::from(!witnesses.is_empty()),
            Some(witness) => {
                let detail = format!("{} has not signed the checkpoint from outside", witness.name());
                checked.found("unwitnessed", incarnation, counter, detail);
            }
        }
    }
    if (1..tree.size()).contains(&said.size) {
        check_heads(incarnation, counter, checked)?;
    }
    Ok(())
}

/// Whether the heads that are stored for a checkpoint are those of its leaf; and they become what the log is held against.
fn check_heads(incarnation: Uuid, counter: u64, checked: &mut Checked) -> Result<()> {
    let tenants = tree::heads_at(incarnation, counter)?;
    let Some(Leaf { tenants: count, map: root, .. }) = tree::leaves(incarnation, counter, counter + 1)?.pop() else {
        return Ok(());
    };
    let right = tenants.iter().all(|t| heads_digest(&t.tenant, &t.heads) == t.digest);
    let map = map(tenants.iter().map(|t| (&*t.tenant, t.digest)));
    if !right || map.size() != count || map.root() != root {
        checked.found("edited", incarnation, counter, "the heads that are stored for it are not those of its leaf");
    }
    for tenant in tenants {
        checked.heads.extend(kept(&tenant.tenant, &tenant.heads));
    }
    Ok(())
}

/// What a note of so many leaves says, by the word of a key that had not ended before the last of them; if that is not there, of one
/// that has not ended at all.
fn opened(keys: &Keys, incarnation: Uuid, size: u64, note: &str) -> std::result::Result<Checkpoint, NoteError> {
    let origin = tlog::origin(incarnation);
    let last = size.checked_sub(1).and_then(|last| tree::leaves(incarnation, last, size).ok()?.pop());
    let lsn = last.map_or(i64::MAX, |leaf| leaf.lsn as i64);
    let opened = note::open(note.as_bytes(), &keys.note_keys(incarnation, &origin, Some(lsn)))?;
    let said = Checkpoint::parse(&opened.text).map_err(|e| NoteError::Malformed(e.0))?;
    match said.origin == origin {
        true => Ok(said),
        false => Err(NoteError::Malformed("it names another log")),
    }
}

fn verdict_of(e: &NoteError) -> &'static str {
    match e {
        NoteError::NoKnownSignature => "key_not_valid",
        NoteError::BadSignature(_) => "bad_signature",
        NoteError::Malformed(_) | NoteError::MalformedKey(_) => "edited",
    }
}

fn root(tree: &Tree, size: u64) -> Option<Hash> {
    if size > tree.size() {
        return None;
    }
    let Ok(root) = merkle::root(tree, size);
    Some(root)
}
