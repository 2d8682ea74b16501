//! The Merkle tree of RFC 6962 section 2.1, over SHA-256: roots, proofs and their verification (RFC 9162 section 2.1).
//!
//! A tree is kept as its *complete* subtrees: node (level, index) covers leaves `index << level` to `(index + 1) << level`.
//! Appending a leaf completes about one of them; a proof reads a few for each level, and never the whole tree.

use sha2::{Digest, Sha256};

use crate::Hash;

/// The largest tree: more leaves than one a second until the sun goes out, and no shift overflows.
pub const MAX_SIZE: u64 = 1 << 62;

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of a leaf.
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(data).finalize().into()
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Where the complete subtrees of a tree are kept.
pub trait Nodes {
    /// What reading can fail with.
    type Error;
    /// The hash of a complete subtree.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The complete subtrees that leaf number `size` completes, itself first: what has to be kept when it is appended to a tree of
/// that size. Reads one node for each level but its own.
pub fn append<N: Nodes>(nodes: &N, size: u64, leaf: Hash) -> Result<Vec<(u32, u64, Hash)>, N::Error> {
    let mut completed = vec![(0, size, leaf)];
    let (mut hash, mut index, mut level) = (leaf, size, 0);
    while index & 1 == 1 {
        hash = node_hash(&nodes.node(level, index - 1)?, &hash);
        (index, level) = (index >> 1, level + 1);
        completed.push((level, index, hash));
    }
    Ok(completed)
}

/// The root of the first `size` leaves.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    match size {
        0 => Ok(empty_root()),
        _ => range(nodes, 0, size),
    }
}

/// The path from leaf `index` to the root of the first `size` leaves; none if there is no such leaf.
pub fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size || size > MAX_SIZE {
        return Ok(None);
    }
    let (mut low, mut high, mut path) = (0, size, Vec::new());
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(range(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(range(nodes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// The proof that the first `old` of `size` leaves are a tree that was published before; none unless `0 < old ≤ size`.
pub fn consistency<N: Nodes>(nodes: &N, old: u64, size: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if old == 0 || old > size || size > MAX_SIZE {
        return Ok(None);
    }
    let (mut low, mut high, mut path) = (0, size, Vec::new());
    while old < high {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(range(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(range(nodes, low, middle)?);
            low = middle;
        }
    }
    // The verifier knows the old root; it need not be told if that is the whole subtree that is left.
    if low > 0 {
        path.push(range(nodes, low, high)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether `path` leads from leaf `index` to `root`, the root of `size` leaves (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size || size > MAX_SIZE {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether the tree of `size` leaves goes on from the one of `old` (RFC 9162 section 2.1.4.2). Nothing goes on from an empty tree,
/// of which a witness must know by itself that anything may follow.
pub fn verify_consistency(old: u64, old_root: &Hash, size: u64, root: &Hash, path: &[Hash]) -> bool {
    if old == 0 || old > size || size > MAX_SIZE {
        return false;
    }
    if old == size {
        return path.is_empty() && old_root == root;
    }
    let mut path = path.iter();
    let first = match old.is_power_of_two() {
        true => Some(old_root),
        false => path.next(),
    };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old - 1, size - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut before, mut after) = (*first, *first);
    for step in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            before = node_hash(step, &before);
            after = node_hash(step, &after);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            after = node_hash(&after, step);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && before == *old_root && after == *root
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The hash over leaves `low` to `high`, where `low` is a multiple of the least power of two that is not below `high - low`.
fn range<N: Nodes>(nodes: &N, low: u64, high: u64) -> Result<Hash, N::Error> {
    let size = high - low;
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        return nodes.node(level, low >> level);
    }
    let middle = low + split(size);
    Ok(node_hash(&range(nodes, low, middle)?, &range(nodes, middle, high)?))
}

/// A tree in memory, of which each complete subtree is kept.
#[derive(Clone, Debug, Default)]
pub struct Tree(Vec<Vec<Hash>>);

impl Tree {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.0.first().map_or(0, Vec::len) as u64
    }

    /// How many complete subtrees it has, leaves included.
    pub fn nodes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The hash of a complete subtree; none if there is no such one.
    pub fn stored(&self, level: u32, index: u64) -> Option<Hash> {
        self.0.get(level as usize)?.get(usize::try_from(index).ok()?).copied()
    }

    /// Appends the hash of a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let Ok(completed) = append(self, self.size(), leaf);
        for (level, _, hash) in completed {
            if self.0.len() <= level as usize {
                self.0.push(Vec::new());
            }
            self.0[level as usize].push(hash);
        }
    }

    /// The root of all its leaves.
    pub fn root(&self) -> Hash {
        let Ok(root) = root(self, self.size());
        root
    }

    /// See [`inclusion`].
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if size > self.size() {
            return None;
        }
        let Ok(path) = inclusion(self, index, size);
        path
    }

    /// See [`consistency`].
    pub fn consistency(&self, old: u64, size: u64) -> Option<Vec<Hash>> {
        if size > self.size() {
            return None;
        }
        let Ok(path) = consistency(self, old, size);
        path
    }
}

impl Nodes for Tree {
    type Error = std::convert::Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error> {
        Ok(self.0[level as usize][index as usize])
    }
}

impl FromIterator<Hash> for Tree {
    fn from_iter<T: IntoIterator<Item = Hash>>(leaves: T) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}
