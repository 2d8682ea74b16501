//! A live database as a source: its entries as they are stored, and its checkpoints. Nothing that it says of itself is believed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use custody_core::Hash;
use custody_core::export::Reader;
use custody_core::export::manifest::TenantHeads;
use custody_core::tlog::checkpoint::Checkpoint;
use custody_core::tlog::leaf::{Leaf, heads_digest, map_leaf};
use custody_core::tlog::merkle::{self, Tree};
use custody_core::tlog::proof::Proof;
use custody_core::tlog::tenant::TenantProof;
use custody_core::tlog::{self, note};
use custody_core::verify::KeyRecord;
use indicatif::ProgressBar;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, Row};
use uuid::Uuid;

use crate::database::Lines;
use crate::{Failure, source};

/// A connection within one transaction, which sees one state of the log.
pub struct Live {
    pub client: Client,
    pub tenant: Option<String>,
    trees: HashMap<Uuid, Tree>,
}

/// What the database has, and offers in proof.
pub enum Offer {
    Tenant(TenantProof),
    All(Leaf, String),
}

/// One entry in the form of section 7, as `custody.export_log()` renders it.
const LINE: &str = "json_build_object('record', 'entry', 'incarnation', e.incarnation, 'tenant', e.tenant, 'lane', e.lane, 'seq', e.seq, 'format', e.format,
    'lsn', e.lsn - '0/0'::pg_lsn, 'ordinal', e.ordinal, 'at', (extract(epoch FROM e.at) * 1000000)::bigint, 'xid', e.xid::text::bigint,
    'op', e.op, 'schema_name', e.schema_name, 'table_name', e.table_name, 'login_role', e.login_role, 'acting_role', e.acting_role,
    'move_id', e.move_id, 'actor_seq', e.actor_seq, 'signs_run', e.signs_run, 'key_id', e.key_id,
    'actor_salt', encode(e.actor_salt, 'hex'), 'actor', e.actor, 'row_salt', encode(e.row_salt, 'hex'),
    'row_key', e.row_key, 'old', e.old, 'new', e.new,
    'actor_digest', encode(e.actor_digest, 'hex'), 'row_digest', encode(e.row_digest, 'hex'),
    'prev_hash', encode(e.prev_hash, 'hex'), 'hash', encode(e.hash, 'hex'), 'signature', encode(e.signature, 'hex'))::text";

/// A text as a literal, whatever the session's settings.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Live {
    /// Begins to look at one state of the log.
    pub fn begin(mut client: Client, tenant: Option<String>) -> Result<Self, Failure> {
        client.batch_execute(
            "SET search_path = pg_catalog; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
             BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        )?;
        Ok(Self { client, tenant, trees: HashMap::new() })
    }

    /// The keys, as the server's own export has them. No tenant is called so, thus no entry comes with them. What is
    /// exported is then on the server's disk, too: no crash can take back what was seen.
    pub fn keys(&mut self) -> Result<Vec<KeyRecord>, Failure> {
        source::keys(&mut Reader::new(&self.key_lines()?[..]), "the database")
    }

    pub fn key_lines(&mut self) -> Result<Vec<u8>, Failure> {
        let rows = self.client.query("SELECT custody.export_log(E'\\x01' || gen_random_uuid())", &[])?;
        Ok(rows.iter().flat_map(|row| [row.get::<_, &str>(0).as_bytes(), b"\n"].concat()).collect())
    }

    /// The entries' lines, in order.
    pub fn entries<'a>(&'a mut self, bar: &'a ProgressBar) -> Result<Box<dyn BufRead + 'a>, Failure> {
        self.some_entries("true", bar)
    }

    /// Those of which this holds.
    pub fn some_entries<'a>(
        &'a mut self,
        condition: &str,
        bar: &'a ProgressBar,
    ) -> Result<Box<dyn BufRead + 'a>, Failure> {
        let tenant = self.tenant.as_ref().map_or_else(|| "true".into(), |t| format!("e.tenant = {}", literal(t)));
        let copy = self.client.copy_out(&format!(
            "COPY (SELECT {LINE} FROM custody.entry e WHERE {tenant} AND ({condition})
                   ORDER BY e.tenant, e.incarnation, e.lane, e.seq) TO STDOUT (FORMAT binary)"
        ))?;
        Ok(Box::new(BufReader::new(Lines::new(bar.wrap_read(copy)))))
    }

    /// The incarnation that it writes now.
    pub fn incarnation(&mut self) -> Result<Option<Uuid>, Failure> {
        Ok(self.client.query_opt("SELECT i.incarnation FROM custody.instance i", &[])?.map(|row| row.get(0)))
    }

    /// The last note of each tree.
    pub fn last_notes(&mut self) -> Result<Vec<String>, Failure> {
        let sql = "SELECT DISTINCT ON (n.incarnation) n.note FROM custody.checkpoint_note n ORDER BY n.incarnation, n.size DESC";
        Ok(self.client.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
    }

    /// The tree of an incarnation's checkpoints, made anew of its leaves.
    fn tree(&mut self, incarnation: Uuid) -> Result<&Tree, Failure> {
        if !self.trees.contains_key(&incarnation) {
            let sql = format!("{LEAVES} WHERE l.incarnation = $1 ORDER BY l.counter");
            let mut rows = self.client.query_raw(&sql, [incarnation])?;
            let mut tree = Tree::default();
            while let Some(row) = rows.next()? {
                tree.push(leaf(&row, incarnation)?.hash());
            }
            drop(rows);
            self.trees.insert(incarnation, tree);
        }
        Ok(&self.trees[&incarnation])
    }

    /// What the database has to say to a checkpoint that it, or somebody else, has kept: that its tree goes on from it, and where
    /// chains ended then; nothing if the tenant was not there then. If it has something else, what.
    pub fn offer(
        &mut self,
        note: &str,
        name: &str,
        mut each: impl FnMut(TenantHeads) -> Result<(), Failure>,
    ) -> Result<Result<Option<Offer>, String>, Failure> {
        let (text, _) = note::split(note.as_bytes()).map_err(|e| format!("{name}: {e}"))?;
        let checkpoint = Checkpoint::parse(text).map_err(|e| format!("{name}: {e}"))?;
        let size = checkpoint.size;
        let Some(incarnation) = tlog::incarnation(&checkpoint.origin).filter(|_| size > 0) else {
            return Err(format!("{name}: it is of another kind of log").into());
        };
        let tree = self.tree(incarnation)?;
        if size > tree.size() {
            return Ok(Err(format!(
                "rolled_back: it has {size} leaves, and there are {} here: this is an earlier state of the database",
                tree.size()
            )));
        }
        let Ok(root) = merkle::root(tree, size);
        let Some(path) = tree.inclusion(size - 1, size).filter(|_| root == checkpoint.root) else {
            return Ok(Err(
                "forked: it has another root: history before it was rewritten, or this is another branch of it".into(),
            ));
        };
        let counter = i64::try_from(size - 1)?;
        let sql = format!("{LEAVES} WHERE l.incarnation = $1 AND l.counter = $2");
        let leaf = leaf(&self.client.query_one(&sql, &[&incarnation, &counter])?, incarnation)?;
        let proof = Proof { extra: None, index: size - 1, path, checkpoint: note.as_bytes().to_vec() };
        let tlog_proof = String::from_utf8(proof.to_text())?;
        let tenant = self.tenant.clone();
        let (mut map, mut own) = (Tree::default(), None);
        self.heads(incarnation, counter, |at_it| {
            if tenant.as_ref() == Some(&at_it.tenant) {
                own = Some((map.size(), at_it.heads.clone()));
            }
            map.push(map_leaf(&at_it.tenant, &heads_digest(&at_it.tenant, &at_it.heads)));
            if tenant.is_none() { each(at_it) } else { Ok(()) }
        })?;
        let Some(tenant) = tenant else { return Ok(Ok(Some(Offer::All(leaf, tlog_proof)))) };
        let Some((map_index, heads)) = own else { return Ok(Ok(None)) };
        let map_path = map.inclusion(map_index, map.size()).unwrap_or_default();
        Ok(Ok(Some(Offer::Tenant(TenantProof { tenant, heads, map_index, map_path, leaf, tlog_proof }))))
    }

    /// Where every tenant's chains ended at a checkpoint, in the map's order.
    fn heads(
        &mut self,
        incarnation: Uuid,
        counter: i64,
        mut each: impl FnMut(TenantHeads) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let sql = "SELECT DISTINCT ON (h.tenant) h.tenant, h.heads::text FROM custody.checkpoint_head h
                   WHERE h.incarnation = $1 AND h.counter <= $2 ORDER BY h.tenant, h.counter DESC";
        let parameters: [&(dyn ToSql + Sync); 2] = [&incarnation, &counter];
        let mut rows = self.client.query_raw(sql, parameters)?;
        while let Some(row) = rows.next()? {
            each(TenantHeads { tenant: row.try_get(0)?, heads: serde_json::from_str(row.try_get(1)?)? })?;
        }
        Ok(())
    }
}

const LEAVES: &str = "SELECT l.counter, (extract(epoch FROM l.at) * 1000000)::bigint, (l.lsn - '0/0'::pg_lsn)::bigint,
    l.keys, l.configuration, l.tenants, l.map FROM custody.checkpoint_leaf l";

fn leaf(row: &Row, incarnation: Uuid) -> Result<Leaf, Failure> {
    let hash = |n: usize| -> Result<Hash, Failure> { Ok(row.try_get::<_, &[u8]>(n)?.try_into()?) };
    let number = |n: usize| -> Result<i64, Failure> { Ok(row.try_get(n)?) };
    Ok(Leaf {
        counter: number(0)?.try_into()?,
        at: number(1)?,
        incarnation,
        lsn: number(2)? as u64,
        keys: hash(3)?,
        configuration: hash(4)?,
        tenants: number(5)?.try_into()?,
        map: hash(6)?,
    })
}
