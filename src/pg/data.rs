//! Values: between Rust and Datums.

use std::ffi::{CStr, CString};

use pgrx::{FromDatum, IntoDatum, pg_sys};
use uuid::Uuid;

/// A Datum, or NULL.
pub type Nulled = Option<pg_sys::Datum>;

/// Text.
pub fn text(value: &str) -> Nulled {
    value.into_datum()
}

/// A value of variable length that is kept, so that a function called for every row need not make it anew. What got its Datum may
/// read it as long as this lives.
pub struct Kept(Vec<u64>);

impl Kept {
    /// Text.
    pub fn text(value: &str) -> Self {
        // A length word, itself included and shifted past two flag bits (varatt.h), and the bytes.
        let length = (value.len() as u32 + 4) << 2;
        let word = if cfg!(target_endian = "little") { length } else { length >> 2 };
        Self::of(&[&word.to_ne_bytes(), value.as_bytes()].concat())
    }

    /// A uuid.
    pub fn uuid(value: Uuid) -> Self {
        Self::of(value.as_bytes())
    }

    /// Words, as PostgreSQL wants values aligned.
    fn of(bytes: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Self(bytes.chunks(8).map(word).collect())
    }

    /// The value.
    pub fn datum(&self) -> Nulled {
        Some(pg_sys::Datum::from(self.0.as_ptr()))
    }
}

/// A uuid.
pub fn uuid(value: Uuid) -> Nulled {
    pgrx::Uuid::from_bytes(*value.as_bytes()).into_datum()
}

/// The uuid in a Datum.
///
/// # Safety
/// The Datum must be of type uuid.
pub unsafe fn uuid_from(datum: pg_sys::Datum) -> Option<Uuid> {
    // SAFETY: the caller promises the type.
    unsafe { pgrx::Uuid::from_datum(datum, false) }.map(|u| Uuid::from_bytes(*u.as_bytes()))
}

/// The names in a name[]; none if one is NULL.
///
/// # Safety
/// The Datum must be of type name[].
pub unsafe fn names_of_array(datum: pg_sys::Datum) -> Option<Vec<String>> {
    let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: the caller promises the array's type; a name is 64 bytes by reference, aligned as char.
    unsafe {
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        pg_sys::deconstruct_array(
            array,
            pg_sys::NAMEOID,
            pg_sys::NAMEDATALEN as i32,
            false,
            pg_sys::TYPALIGN_CHAR as std::ffi::c_char,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        (0..count as usize)
            .map(|i| {
                let name = (*elements.add(i)).cast_mut_ptr::<pg_sys::NameData>();
                (!*nulls.add(i)).then(|| CStr::from_ptr((*name).data.as_ptr()).to_string_lossy().into_owned())
            })
            .collect()
    }
}

/// A C string of PostgreSQL's, copied; none if the pointer is null.
///
/// # Safety
/// The pointer must be null or point to a terminated string.
pub unsafe fn string(pointer: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller promises it.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// A Rust string for C. PostgreSQL's texts hold no zero byte, and where one comes from elsewhere it ends the string.
pub fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// A memory context of the usual sizes, under another.
///
/// # Safety
/// The parent must be valid; the result goes with it, if it is not deleted before.
pub unsafe fn memory(parent: pg_sys::MemoryContext, name: &'static CStr) -> pg_sys::MemoryContext {
    // SAFETY: the caller promises it; the name is static, as PostgreSQL keeps the pointer.
    unsafe {
        pg_sys::AllocSetContextCreateExtended(
            parent,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}
