//! The lane lock: one transaction-level advisory lock, of a kind that SQL cannot take.

use pgrx::pg_sys;

/// Tells our locks from those of pg_advisory_lock, which uses 1 and 2.
pub const FIELD4: u16 = 0xC057;

/// The same as pg_locks shows it, in its column objsubid.
pub const AS_LISTED: i16 = FIELD4 as i16;

/// The name of one of our locks in this database: of a kind, and a number within it.
fn tag(kind: u32, number: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: set once, when the session began.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: kind,
        locktag_field3: number,
        locktag_field4: FIELD4,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Tries to take a lane for the rest of this transaction, without ever waiting.
///
/// A prepared transaction keeps it, across restarts, until it is resolved. It is released after the commit is visible to others.
pub fn try_lock(lane: i32) -> bool {
    // SAFETY: the tag is on the stack for the call. The owner is the top transaction's: under the current one, which may be a
    // savepoint's, a rollback to it would release the lock while the transaction still believes in it.
    unsafe {
        let tag = tag(0, lane as u32);
        let _owner = (!crate::settings::sabotaged("lane_savepoint")).then(TopOwner::enter);
        let result = pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true);
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// The lock under which a token that holds once is used; waits, and lets go when it is dropped.
pub struct TokenLock(pg_sys::LOCKTAG);

impl TokenLock {
    /// Takes the lock of a token. Two tokens may share one.
    pub fn take(number: u32) -> Self {
        // Far from the kinds that are one lock each.
        let tag = tag(100, number);
        // SAFETY: as above.
        unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false) };
        Self(tag)
    }
}

impl Drop for TokenLock {
    fn drop(&mut self) {
        // SAFETY: taken under the same resource owner, as no savepoint begins or ends meanwhile.
        unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, false) };
    }
}

/// Puts the top transaction's resource owner in charge while it lives, errors included.
struct TopOwner(pg_sys::ResourceOwner);

impl TopOwner {
    fn enter() -> Self {
        // SAFETY: both are PostgreSQL's own, and valid within a transaction.
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            Self(before)
        }
    }
}

impl Drop for TopOwner {
    fn drop(&mut self) {
        // SAFETY: what was current is valid for at least as long as this frame.
        unsafe { pg_sys::CurrentResourceOwner = self.0 };
    }
}

/// Makes checkpoints one after the other: waits for whoever is making one, until it is committed.
pub fn lock_checkpoint() {
    wait_for(2);
}

/// Lets transactions that the guard judges commit one after the other; waits. Kept until the commit is visible to others.
pub fn lock_guard() {
    wait_for(3);
}

/// Lets erasures be made one after the other; waits. Kept until the commit is visible to others.
pub fn lock_erasure() {
    wait_for(7);
}

/// Keeps two sessions from starting an incarnation at once; waits. Taken only then.
pub fn lock_incarnation() {
    wait_for(1);
}

/// Takes the one lock of a kind for the rest of this transaction. No lane has such a kind.
fn wait_for(kind: u32) {
    // SAFETY: as in `try_lock`.
    unsafe {
        let tag = tag(kind, 0);
        let _owner = TopOwner::enter();
        pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false);
    }
}
