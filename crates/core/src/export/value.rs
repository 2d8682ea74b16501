//! The values that members can have, read in place.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::key::unhex;

/// A value that may be absent, and the room for it, kept from line to line.
#[derive(Default)]
pub(super) struct Maybe<T> {
    present: bool,
    value: T,
}

impl<T> Maybe<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.present.then_some(&self.value)
    }
}

/// What a member's value can be; each method says whether it is one.
pub(super) trait Value: Sized {
    const WHAT: &'static str;

    fn text(&mut self, _: &str) -> bool {
        false
    }

    fn integer(&mut self, _: i64) -> bool {
        false
    }

    fn boolean(&mut self, _: bool) -> bool {
        false
    }

    fn null(&mut self) -> bool {
        false
    }
}

impl Value for String {
    const WHAT: &'static str = "a string";

    fn text(&mut self, text: &str) -> bool {
        text.clone_into(self);
        true
    }
}

impl Value for Vec<u8> {
    const WHAT: &'static str = "lower-case hex";

    fn text(&mut self, digits: &str) -> bool {
        self.resize(digits.len() / 2, 0);
        unhex(digits, self)
    }
}

impl Value for Uuid {
    const WHAT: &'static str = "a lower-case hyphenated uuid";

    fn text(&mut self, text: &str) -> bool {
        *self = Uuid::try_parse(text).unwrap_or_default();
        self.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
    }
}

impl Value for i64 {
    const WHAT: &'static str = "a signed 64-bit integer";

    fn integer(&mut self, integer: i64) -> bool {
        *self = integer;
        true
    }
}

impl Value for bool {
    const WHAT: &'static str = "a boolean";

    fn boolean(&mut self, boolean: bool) -> bool {
        *self = boolean;
        true
    }
}

impl<T: Value> Value for Maybe<T> {
    const WHAT: &'static str = T::WHAT;

    fn text(&mut self, text: &str) -> bool {
        self.present = true;
        self.value.text(text)
    }

    fn integer(&mut self, integer: i64) -> bool {
        self.present = true;
        self.value.integer(integer)
    }

    fn null(&mut self) -> bool {
        self.present = false;
        true
    }
}

/// Reads the member of this name.
pub(super) struct Of<'a, T>(pub(super) &'static str, pub(super) &'a mut T);

impl<T: Value> Of<'_, T> {
    fn wrong<R, E: Error>(&self) -> Result<R, E> {
        Err(E::custom(format_args!("{} is not {}", self.0, T::WHAT)))
    }

    fn right<E: Error>(self, right: impl FnOnce(&mut T) -> bool) -> Result<(), E> {
        if right(self.1) { Ok(()) } else { self.wrong() }
    }
}

impl<'de, T: Value> DeserializeSeed<'de> for Of<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Value> Visitor<'de> for Of<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.right(|value| value.text(text))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<(), E> {
        self.right(|value| value.integer(integer))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<(), E> {
        self.right(|value| i64::try_from(integer).is_ok_and(|integer| value.integer(integer)))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.wrong()
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<(), E> {
        self.right(|value| value.boolean(boolean))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.right(T::null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.wrong()
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.wrong()
    }
}
