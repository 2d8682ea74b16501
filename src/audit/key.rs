//! The signing key, level `generated`: a file of the server's user in the data directory, which every base backup carries.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use zeroize::Zeroizing;

use custody_core::key::PrivateKey;
use custody_core::key_file::KeyFile;
pub use custody_core::key_file::Secret;

use crate::audit::transaction;
use crate::error::{Error, Result};
use crate::pg::{scan, session};

/// The private half, and what redacted values are digested with.
struct Held {
    incarnation: Uuid,
    signing: PrivateKey,
    redaction: Secret,
    /// The position from which on it is valid.
    from_lsn: Option<i64>,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    /// Keys made by this transaction, each with its file, to be removed if it aborts.
    static MADE: RefCell<Vec<(u32, String, PathBuf)>> = const { RefCell::new(Vec::new()) };
}

/// A key as it is registered.
pub struct Registered {
    pub key_id: String,
    pub incarnation: Uuid,
    pub public_key: [u8; 32],
    pub created_at: i64,
    pub from_lsn: Option<i64>,
    /// How it ended, and where.
    pub ended: Option<(String, i64)>,
    /// Transactions before this one may still sign with it.
    pub overlap: Option<u64>,
}

/// The keys that are registered for an incarnation, the oldest first.
pub fn registered(incarnation: Uuid) -> Result<Vec<Registered>> {
    let mut keys = scan::our_rows("signing_key", &[], |row| {
        let created = row.get::<pgrx::datum::TimestampWithTimeZone>(7)?;
        (row.uuid(2)? == incarnation).then_some(())?;
        Some(Registered {
            key_id: row.get::<String>(1)?,
            incarnation,
            public_key: row.get::<Vec<u8>>(3)?.try_into().ok()?,
            created_at: created.into(),
            from_lsn: row.get::<i64>(8),
            ended: row.get::<String>(10).zip(row.get::<i64>(11)),
            overlap: row.get::<i64>(14).map(|xid| xid as u64),
        })
    })?;
    keys.sort_by(|a, b| (a.from_lsn, a.created_at, &a.key_id).cmp(&(b.from_lsn, b.created_at, &b.key_id)));
    Ok(keys)
}

/// The key that signs for an incarnation now: what others have committed counts at once, whatever the transaction's snapshot.
pub fn current(incarnation: Uuid) -> Result<String> {
    if let Some(instance) = scan::instance()?
        && instance.incarnation == incarnation
        && let Some(key_id) = instance.key_id
    {
        return Ok(key_id);
    }
    // An earlier incarnation's; or the database was installed as 0.1.0, and not upgraded yet.
    registered(incarnation)?.pop().map(|key| key.key_id).ok_or_else(|| Error::KeyMissing {
        path: "custody.signing_key".into(),
        why: "no key is registered for this incarnation".into(),
    })
}

/// Lends a key to sign with.
pub fn with_signing_key<T>(key_id: &str, work: impl FnOnce(&PrivateKey) -> Result<T>) -> Result<T> {
    hold(key_id)?;
    HELD.with_borrow(|held| match held {
        Some(held) => work(&held.signing),
        None => Err(Error::internal("no key is held")),
    })
}

/// Sees to it that a key can sign, and gives the position from which on it is valid.
pub fn ready(key_id: &str) -> Result<Option<i64>> {
    hold(key_id)?;
    Ok(HELD.with_borrow(|held| held.as_ref().and_then(|h| h.from_lsn)))
}

/// The key with which redacted columns are digested. Successors inherit it.
pub fn redaction_key(key_id: &str) -> Result<Secret> {
    hold(key_id)?;
    HELD.with_borrow(|held| held.as_ref().map(|h| h.redaction.clone()).ok_or_else(|| Error::internal("no key is held")))
}

/// A new key for an incarnation, in a file of its own; from a position on, or from the incarnation's beginning. The predecessor vouches
/// for it, if it can. The redaction key stays the predecessor's, or that of the first of `relatives` that can be read, so that digests of
/// equal values stay equal.
pub fn make(
    incarnation: Uuid,
    predecessor: Option<&str>,
    relatives: &[Registered],
    from_lsn: Option<i64>,
) -> Result<Made> {
    let mut file = KeyFile { signing: Secret::default(), redaction: Secret::default() };
    for bytes in [&mut file.signing, &mut file.redaction] {
        transaction::fill_random(&mut bytes[..])?;
    }
    let mut endorsed_by = None;
    let signing = PrivateKey::from_seed(&file.signing);
    if let Some(predecessor) = predecessor
        && hold(predecessor).is_ok()
    {
        HELD.with_borrow(|held| {
            if let Some(held) = held {
                file.redaction = held.redaction.clone();
                let endorsement = held.signing.endorse(incarnation, &signing.public_key(), from_lsn);
                endorsed_by = Some((held.signing.key_id().to_owned(), endorsement));
            }
        });
    } else {
        let held =
            HELD.with_borrow(|h| h.as_ref().filter(|h| h.incarnation == incarnation).map(|h| h.redaction.clone()));
        let mut readable = relatives.iter().rev().filter_map(|key| Some(read(&key.key_id).ok()?.redaction));
        if let Some(redaction) = held.or_else(|| readable.next()) {
            file.redaction = redaction;
        }
    }
    write_file(signing.key_id(), &file)?;
    let made = Made { key_id: signing.key_id().to_owned(), public_key: signing.public_key(), endorsed_by };
    // A transaction that makes a successor goes on with its own key.
    let goes_on = made.endorsed_by.is_some()
        && HELD.with_borrow(|held| held.as_ref().is_some_and(|h| h.incarnation == incarnation));
    if !goes_on {
        HELD.set(Some(Held { incarnation, signing, redaction: file.redaction, from_lsn }));
    }
    Ok(made)
}

/// The public side of a new key.
pub struct Made {
    pub key_id: String,
    pub public_key: [u8; 32],
    /// The predecessor's id and its endorsement.
    pub endorsed_by: Option<(String, [u8; 64])>,
}

/// Forgets what an aborted transaction made.
pub fn transaction_ended(committed: bool) {
    match committed {
        true => MADE.with_borrow_mut(Vec::clear),
        false => drop(savepoint_rolled_back(0)),
    }
}

/// What a savepoint made is its parent's now.
pub fn savepoint_released(level: u32) {
    MADE.with_borrow_mut(|made| made.iter_mut().for_each(|m| m.0 = m.0.min(level - 1)));
}

/// Forgets what a rolled-back savepoint made, and gives its keys.
pub fn savepoint_rolled_back(level: u32) -> Vec<String> {
    let made: Vec<_> = MADE.with_borrow_mut(|made| made.extract_if(.., |m| m.0 >= level).collect());
    let remove = |(_, key_id, path): (u32, String, PathBuf)| {
        HELD.set(None);
        // Nothing depends on it: a file that stays is a key that never signed anything.
        let _ = fs::remove_file(path);
        key_id
    };
    made.into_iter().map(remove).collect()
}

/// Whether this transaction made a key: then it must not stay open as a prepared one.
pub fn made_here() -> bool {
    MADE.with_borrow(|made| !made.is_empty())
}

/// Whether a session that does not hold the key yet could sign with it.
pub fn check(key_id: &str) -> Result<()> {
    read(key_id).map(drop)
}

/// Whether the private half is gone, and not only out of reach for now.
pub fn is_lost(key_id: &str) -> bool {
    File::open(path(key_id)).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Removes the private half of a key that signs no more: whoever takes the server later cannot write history with it.
pub fn destroy(key_id: &str) {
    if let Err(e) = fs::remove_file(path(key_id))
        && e.kind() != std::io::ErrorKind::NotFound
    {
        session::warning(&format!("the file of key {key_id}, which has ended, could not be removed: {e}"));
    }
}

fn hold(key_id: &str) -> Result<()> {
    if HELD.with_borrow(|held| held.as_ref().is_some_and(|h| h.signing.key_id() == key_id)) {
        return Ok(());
    }
    HELD.set(Some(read(key_id)?));
    Ok(())
}

fn read(key_id: &str) -> Result<Held> {
    let found =
        scan::our_rows("signing_key", &[scan::Key::Text(key_id)], |row| Some((row.uuid(2)?, row.get::<i64>(8))))?;
    let Some((incarnation, from_lsn)) = found.into_iter().next() else {
        return Err(missing(&path(key_id), "the key is not registered"));
    };
    let file = read_file(&path(key_id))?;
    let signing = PrivateKey::from_seed(&file.signing);
    if signing.key_id() != key_id {
        return Err(missing(&path(key_id), "it holds another key"));
    }
    Ok(Held { incarnation, signing, redaction: file.redaction, from_lsn })
}

fn path(key_id: &str) -> PathBuf {
    session::data_directory().join("pg_custody").join(format!("{key_id}.key"))
}

fn missing(path: &Path, why: impl ToString) -> Error {
    Error::KeyMissing { path: path.display().to_string(), why: why.to_string() }
}

/// Writes a key file and makes it last before anything is signed with it.
fn write_file(key_id: &str, content: &KeyFile) -> Result<()> {
    let (text, path) = (content.to_text(), &path(key_id));
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        if !dir.exists() {
            fs::DirBuilder::new().mode(0o700).create(dir)?;
            if let Some(above) = dir.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        MADE.with_borrow_mut(|made| made.push((session::nest_level(), key_id.to_owned(), path.to_owned())));
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| missing(path, e))
}

fn read_file(path: &Path) -> Result<KeyFile> {
    let mut file = File::open(path).map_err(|e| missing(path, e))?;
    let metadata = file.metadata().map_err(|e| missing(path, e))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(missing(path, format!("its mode is {:o}, not 600: others may read it", metadata.mode() & 0o777)));
    }
    let mut text = Zeroizing::new(String::with_capacity(256));
    file.read_to_string(&mut text).map_err(|e| missing(path, e))?;
    KeyFile::parse(&text).ok_or_else(|| missing(path, "it is not a key file of pg_custody"))
}
