//! How digests and uuids stand in JSON: lower-case hex, and lower-case with hyphens. Nothing else is read.

/// `#[serde(with = "wire::hash")]`.
pub mod hash {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::Hash;
    use crate::key::{hex, unhex};

    #[allow(missing_docs)]
    pub fn serialize<S: Serializer>(hash: &Hash, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(hash))
    }

    #[allow(missing_docs)]
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hash, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let mut hash = [0; 32];
        match unhex(&text, &mut hash) {
            true => Ok(hash),
            false => Err(D::Error::custom("a hash is not 64 digits of lower-case hex")),
        }
    }
}

/// `#[serde(with = "wire::hashes")]`, for a list of them.
pub mod hashes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Hash;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct One(#[serde(with = "super::hash")] Hash);

    #[allow(missing_docs)]
    pub fn serialize<S: Serializer>(hashes: &[Hash], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(hashes.iter().copied().map(One))
    }

    #[allow(missing_docs)]
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Hash>, D::Error> {
        Ok(Vec::<One>::deserialize(from)?.into_iter().map(|one| one.0).collect())
    }
}

/// `#[serde(with = "wire::uuid")]`.
pub mod uuid {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use uuid::Uuid;

    #[allow(missing_docs)]
    pub fn serialize<S: Serializer>(uuid: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }

    #[allow(missing_docs)]
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let uuid = Uuid::try_parse(&text).unwrap_or_default();
        match *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text {
            true => Ok(uuid),
            false => Err(D::Error::custom("not a lower-case hyphenated uuid")),
        }
    }
}
