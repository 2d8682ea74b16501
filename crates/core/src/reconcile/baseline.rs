//! What `SHAPE` entries say (section 6), and the digest that stands for a row in a baseline of that form.

use serde::{Deserialize, Serialize};

use super::image::each_field;
use crate::encoding::FieldHasher;
use crate::key::{hex, unhex};

/// What the `BASELINE` entries that follow a `SHAPE` in its transaction hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Covers {
    /// The table: its history starts here.
    Table,
    /// The columns that say so, of every row there is.
    Columns,
    /// The rows of a partition that joined.
    Partition,
    /// Nothing: a partition left, with its rows.
    Left,
}

/// How a baseline of the table holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As images.
    Rows,
    /// As salted digests of images.
    Digest,
    /// Not at all.
    None,
}

/// A table's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Names {
    /// Its schema.
    pub schema: String,
    /// Its own.
    pub table: String,
}

/// A column that is in images from here on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it was called before, if its values are those of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Its value in every row that there was, as an image writes it; NULL if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<String>,
}

/// What a `SHAPE` entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What the `BASELINE` entries after it are.
    pub covers: Covers,
    /// The form of a baseline of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Form>,
    /// The snapshot (`pg_current_snapshot()`) that a baseline of the table was taken with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What the table was called before, if it has a new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Names>,
    /// Which partition came or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The primary key's columns.
    pub key: Vec<String>,
}

/// `digest` of a row: of its columns that are not NULL, by name.
pub fn digest(salt: &[u8; 16], fields: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> String {
    let mut fields: Vec<_> = fields.into_iter().filter(|f| f.1.as_ref() != "null").collect();
    fields.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
    let mut hash = FieldHasher::new("pg_custody/baseline/v1");
    hash.bytes(Some(salt));
    for (name, value) in &fields {
        hash.text(Some(name.as_ref())).text(Some(value.as_ref()));
    }
    format!("{}:{}", hex(salt), hex(&hash.finish()))
}

/// The digest of an image; none if it is no image.
pub fn digest_of(salt: &[u8; 16], image: &str) -> Option<String> {
    let mut fields = Vec::new();
    each_field(image, |name, value| fields.push((name, value))).then(|| digest(salt, fields))
}

/// The salt that a digest was made with.
pub fn salt_of(digest: &str) -> Option<[u8; 16]> {
    let mut salt = [0; 16];
    unhex(digest.split_once(':')?.0, &mut salt).then_some(salt)
}
