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
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    /// Files made by this transaction, to be removed if it aborts.
    static MADE: RefCell<Vec<(u32, PathBuf)>> = const { RefCell::new(Vec::new()) };
}

/// Lends the key that signs for an incarnation.
pub fn with_signing_key<T>(incarnation: Uuid, work: impl FnOnce(&PrivateKey) -> Result<T>) -> Result<T> {
    hold(incarnation)?;
    HELD.with_borrow(|held| match held {
        Some(held) => work(&held.signing),
        None => Err(Error::internal("no key is held")),
    })
}

/// The key with which redacted columns are digested.
pub fn redaction_key(incarnation: Uuid) -> Result<Secret> {
    hold(incarnation)?;
    HELD.with_borrow(|held| held.as_ref().map(|h| h.redaction.clone()).ok_or_else(|| Error::internal("no key is held")))
}

/// A new key for an incarnation, in a file of its own. The redaction key stays that of the parent, if it can be read, so that
/// digests of equal values stay equal.
pub fn make(incarnation: Uuid, parent: Option<Uuid>) -> Result<Made> {
    let mut file = KeyFile { signing: Secret::default(), redaction: Secret::default() };
    for bytes in [&mut file.signing, &mut file.redaction] {
        transaction::fill_random(&mut bytes[..])?;
    }
    let mut endorsed_by = None;
    let signing = PrivateKey::from_seed(&file.signing);
    if let Some(parent) = parent
        && hold(parent).is_ok()
    {
        HELD.with_borrow(|held| {
            if let Some(held) = held {
                file.redaction = held.redaction.clone();
                let endorsement = held.signing.endorse(incarnation, &signing.public_key());
                endorsed_by = Some((held.signing.key_id().to_owned(), endorsement));
            }
        });
    }
    write_file(&path(signing.key_id()), &file)?;
    let made = Made { key_id: signing.key_id().to_owned(), public_key: signing.public_key(), endorsed_by };
    HELD.set(Some(Held { incarnation, signing, redaction: file.redaction }));
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
        false => savepoint_rolled_back(0),
    }
}

/// What a savepoint made is its parent's now.
pub fn savepoint_released(level: u32) {
    MADE.with_borrow_mut(|made| made.iter_mut().for_each(|m| m.0 = m.0.min(level - 1)));
}

/// Forgets what a rolled-back savepoint made.
pub fn savepoint_rolled_back(level: u32) {
    let made: Vec<_> = MADE.with_borrow_mut(|made| made.extract_if(.., |m| m.0 >= level).collect());
    for (_, path) in made {
        HELD.set(None);
        // Nothing depends on it: a file that stays is a key that never signed anything.
        let _ = fs::remove_file(path);
    }
}

/// Whether a session that does not hold the key yet could sign with it.
pub fn check(incarnation: Uuid) -> Result<()> {
    read(incarnation).map(drop)
}

fn hold(incarnation: Uuid) -> Result<()> {
    if HELD.with_borrow(|held| held.as_ref().is_some_and(|h| h.incarnation == incarnation)) {
        return Ok(());
    }
    HELD.set(Some(read(incarnation)?));
    Ok(())
}

fn read(incarnation: Uuid) -> Result<Held> {
    // (key_id, incarnation) in order of creation: the last one signs.
    let mut keys = scan::our_rows("signing_key", &[], |row| {
        let created = row.get::<pgrx::datum::TimestampWithTimeZone>(7)?;
        (row.uuid(2)? == incarnation).then_some((i64::from(created), row.get::<String>(1)?))
    })?;
    keys.sort();
    let Some((_, key_id)) = keys.pop() else {
        return Err(Error::KeyMissing {
            path: "custody.signing_key".into(),
            why: "no key is registered for this incarnation".into(),
        });
    };
    let file = read_file(&path(&key_id))?;
    let signing = PrivateKey::from_seed(&file.signing);
    if signing.key_id() != key_id {
        return Err(missing(&path(&key_id), "it holds another key"));
    }
    Ok(Held { incarnation, signing, redaction: file.redaction })
}

fn path(key_id: &str) -> PathBuf {
    session::data_directory().join("pg_custody").join(format!("{key_id}.key"))
}

fn missing(path: &Path, why: impl ToString) -> Error {
    Error::KeyMissing { path: path.display().to_string(), why: why.to_string() }
}

/// Writes a key file and makes it last before anything is signed with it.
fn write_file(path: &Path, content: &KeyFile) -> Result<()> {
    let text = content.to_text();
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        if !dir.exists() {
            fs::DirBuilder::new().mode(0o700).create(dir)?;
            if let Some(above) = dir.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        MADE.with_borrow_mut(|made| made.push((session::nest_level(), path.to_owned())));
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
