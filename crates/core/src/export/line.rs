//! The members of one line. Keys, entries and heads share them: which ones there must be depends on what it is.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::value::{Maybe, Of};
use super::{Problem, Unreadable};
use crate::entry::Entry;
use crate::key::Ending;
use crate::verify::{ChainId, End, Head, KeyRecord};

macro_rules! members {
    ($($member:ident: $kind:ty,)*) => {
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types)]
        enum Member { $($member),* }

        const MEMBERS: &[(&str, Member)] = &[$((stringify!($member), Member::$member)),*];

        /// What the last line said.
        #[derive(Default)]
        pub(super) struct Line {
            given: Set,
            $($member: $kind,)*
        }

        impl Line {
            fn value<'de, A: MapAccess<'de>>(&mut self, member: Member, map: &mut A) -> Result<(), A::Error> {
                match member {
                    $(Member::$member => map.next_value_seed(Of(stringify!($member), &mut self.$member)),)*
                }
            }
        }
    };
}

// In the order in which exports have them, entries first.
members! {
    record: String, incarnation: Uuid, tenant: String, lane: i64, seq: i64, format: i64, lsn: i64, ordinal: i64, at: i64,
    xid: i64, op: String, schema_name: Maybe<String>, table_name: Maybe<String>, login_role: String, acting_role: String,
    move_id: Maybe<Uuid>, actor_seq: i64, signs_run: bool, key_id: Maybe<String>, actor_salt: Maybe<Vec<u8>>,
    actor: Maybe<String>, row_salt: Maybe<Vec<u8>>, row_key: Maybe<String>, old: Maybe<String>, new: Maybe<String>,
    actor_digest: Maybe<Vec<u8>>, row_digest: Vec<u8>, prev_hash: Vec<u8>, hash: Vec<u8>, signature: Maybe<Vec<u8>>,
    public_key: Vec<u8>, fingerprint: Vec<u8>, predecessor: Maybe<String>, endorsement: Maybe<Vec<u8>>,
    from_lsn: Maybe<i64>, recovers: Maybe<String>, ended: Maybe<String>, until_lsn: Maybe<i64>, ended_by: Maybe<String>,
    end_signature: Maybe<Vec<u8>>,
}

/// Members, one bit each.
type Set = u64;

const fn only(member: Member) -> Set {
    1 << member as u32
}

const OF_ENTRY: Set = (only(Member::signature) << 1) - 1;
const OF_KEY: Set = only(Member::record)
    | only(Member::key_id)
    | only(Member::incarnation)
    | only(Member::public_key)
    | only(Member::fingerprint)
    | only(Member::predecessor)
    | only(Member::endorsement);
/// What is said of a key's life: of all keys, but for those of exports before 0.2.0.
const OF_LIFE: Set = only(Member::from_lsn)
    | only(Member::recovers)
    | only(Member::ended)
    | only(Member::until_lsn)
    | only(Member::ended_by)
    | only(Member::end_signature);
const OF_HEAD: Set =
    only(Member::incarnation) | only(Member::tenant) | only(Member::lane) | only(Member::seq) | only(Member::hash);

impl Line {
    /// Takes in a line: one JSON object of known members of the right types, each given once.
    pub(super) fn read(&mut self, json: &[u8]) -> Result<(), Problem> {
        let mut parser = serde_json::Deserializer::from_slice(json);
        parser.deserialize_map(Object(self)).and_then(|()| parser.end()).map_err(|e| problem(&e))
    }

    /// What it says that it is; empty if it does not.
    pub(super) fn record(&self) -> &str {
        match self.given & only(Member::record) {
            0 => "",
            _ => &self.record,
        }
    }

    pub(super) fn key(&self) -> Result<KeyRecord, Problem> {
        let has_life = self.given & OF_LIFE != 0;
        self.exactly(if has_life { OF_KEY | OF_LIFE } else { OF_KEY })?;
        let end = || {
            Some(End {
                how: Ending::named(self.ended.get()?)?,
                until_lsn: *self.until_lsn.get()?,
                by: self.ended_by.get()?.clone(),
                signature: self.end_signature.get()?.clone(),
            })
        };
        Ok(KeyRecord {
            key_id: self.key_id.get().ok_or(Problem::Null("key_id"))?.clone(),
            incarnation: self.incarnation,
            public_key: self.public_key.clone(),
            predecessor: self.predecessor.get().cloned(),
            endorsement: self.endorsement.get().cloned(),
            // A line keeps what the one before said.
            from_lsn: self.from_lsn.get().copied().filter(|_| has_life),
            recovers: self.recovers.get().cloned().filter(|_| has_life),
            end: end().filter(|_| has_life),
        })
    }

    pub(super) fn entry(&self) -> Result<Entry<'_>, Problem> {
        self.exactly(OF_ENTRY)?;
        Ok(Entry {
            incarnation: self.incarnation,
            tenant: &self.tenant,
            lane: self.lane,
            seq: self.seq,
            // A version beyond the type's range is as unknown as any other.
            format: self.format.try_into().unwrap_or(i16::MAX),
            lsn: self.lsn as u64,
            ordinal: self.ordinal,
            at: self.at,
            xid: self.xid as u64,
            op: &self.op,
            schema_name: text(&self.schema_name),
            table_name: text(&self.table_name),
            login_role: &self.login_role,
            acting_role: &self.acting_role,
            move_id: self.move_id.get().copied(),
            actor_seq: self.actor_seq,
            signs_run: self.signs_run,
            key_id: text(&self.key_id),
            actor_salt: bytes(&self.actor_salt),
            actor: text(&self.actor),
            row_salt: bytes(&self.row_salt),
            row_key: text(&self.row_key),
            old: text(&self.old),
            new: text(&self.new),
            actor_digest: bytes(&self.actor_digest),
            row_digest: &self.row_digest,
            prev_hash: &self.prev_hash,
            hash: &self.hash,
            signature: bytes(&self.signature),
        })
    }

    fn head(&self) -> Result<Head, Problem> {
        self.exactly(OF_HEAD)?;
        if self.seq < 1 {
            return Err(Problem::SeqBelowOne);
        }
        let chain = ChainId { incarnation: self.incarnation, tenant: self.tenant.clone(), lane: self.lane };
        Ok(Head { chain, seq: self.seq, hash: self.hash.clone() })
    }

    fn exactly(&self, wanted: Set) -> Result<(), Problem> {
        let first = |set: Set| MEMBERS.iter().find(|m| set & only(m.1) != 0).map(|m| m.0);
        match (first(wanted & !self.given), first(self.given & !wanted)) {
            (None, None) => Ok(()),
            (_, Some(name)) => Err(Problem::Foreign(name)),
            (Some(name), None) => Err(Problem::Missing(name)),
        }
    }
}

fn text(of: &Maybe<String>) -> Option<&str> {
    of.get().map(String::as_str)
}

fn bytes(of: &Maybe<Vec<u8>>) -> Option<&[u8]> {
    of.get().map(Vec::as_slice)
}

/// Reads the heads that were kept.
pub(super) fn heads(json: &[u8]) -> Result<Vec<Head>, Unreadable> {
    let mut heads = Vec::new();
    let mut parser = serde_json::Deserializer::from_slice(json);
    let read = parser.deserialize_seq(Heads(&mut heads)).and_then(|()| parser.end());
    read.map(|()| heads).map_err(|e| Unreadable { line: e.line() as u64, problem: problem(&e) })
}

/// What the parser says and in which column; never long, whatever it quotes.
fn problem(e: &serde_json::Error) -> Problem {
    let text = e.to_string();
    let place = format!(" at line {} column {}", e.line(), e.column());
    let mut what: String = text.strip_suffix(&place).unwrap_or(&text).chars().take(200).collect();
    if e.column() > 0 {
        what += &format!(", at column {}", e.column());
    }
    Problem::Json(what)
}

/// An object of known members.
struct Object<'a>(&'a mut Line);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.given = 0;
        let mut next = 0;
        while let Some(found) = map.next_key_seed(Name(next))? {
            let (name, member) = MEMBERS[found];
            if self.0.given & only(member) != 0 {
                return Err(A::Error::custom(format_args!("{name} is given twice")));
            }
            self.0.given |= only(member);
            self.0.value(member, &mut map)?;
            next = found + 1;
        }
        Ok(())
    }
}

/// The name of a member, most likely the one at this place of the list.
struct Name(usize);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        if MEMBERS.get(self.0).is_some_and(|m| m.0 == name) {
            return Ok(self.0);
        }
        let unknown = || E::custom(format_args!("{name:?} is unknown"));
        MEMBERS.iter().position(|m| m.0 == name).ok_or_else(unknown)
    }
}

/// An array of heads.
struct Heads<'a>(&'a mut Vec<Head>);

impl<'de> Visitor<'de> for Heads<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let mut line = Line::default();
        while array.next_element_seed(Object(&mut line))?.is_some() {
            self.0.push(line.head().map_err(A::Error::custom)?);
        }
        Ok(())
    }
}
