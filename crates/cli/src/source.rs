//! Where entries come from: a file, standard input, an archive, or a live database.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use custody_core::export::manifest::Place;
use custody_core::export::{Reader, Record};
use custody_core::verify::KeyRecord;
use indicatif::ProgressBar;

use crate::archive::{Archive, Problems};
use crate::live::Live;
use crate::{Failure, input};

/// An export, to be read record by record.
pub type Export<'a> = Reader<Box<dyn BufRead + 'a>>;

pub enum Source {
    Stdin,
    File(PathBuf),
    Archive(Box<Archive>),
    Live(Box<Live>),
}

/// Lines that follow one another.
pub struct Stream<'a> {
    pub name: String,
    pub lines: Box<dyn BufRead + 'a>,
    /// Whether keys come before the entries.
    pub keys_first: bool,
    /// Where its first and its last entry must stand, if that is said.
    pub ends: Option<(Place, Place)>,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(match path {
            _ if path.as_os_str() == "-" => Self::Stdin,
            _ if path.is_dir() => Self::Archive(Box::new(Archive::open(path)?)),
            _ => Self::File(path.to_owned()),
        })
    }

    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".into(),
            Self::File(path) => path.display().to_string(),
            Self::Archive(archive) => archive.name(),
            Self::Live(_) => "the database".into(),
        }
    }

    /// Where it is said what does not fit an archive's manifest.
    pub fn problems(&self) -> Option<Problems> {
        match self {
            Self::Archive(archive) => Some(archive.problems.clone()),
            _ => None,
        }
    }

    /// How many bytes are to be read, if that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Stdin | Self::Live(_) => None,
            Self::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len()),
            Self::Archive(archive) => Some(archive.manifest.bytes()),
        }
    }

    /// The keys, where they can be had without losing the rest.
    pub fn keys(&mut self) -> Result<Vec<KeyRecord>, Failure> {
        let name = self.name();
        match self {
            Self::Archive(archive) => archive.keys(),
            Self::Live(live) => live.keys(),
            Self::Stdin => Ok(Vec::new()),
            Self::File(path) => keys(&mut Reader::new(input::open(path, &ProgressBar::hidden())?), &name),
        }
    }

    /// The lines of one of its streams, from 0; none after the last.
    pub fn stream<'a>(&'a mut self, number: usize, bar: &'a ProgressBar) -> Result<Option<Stream<'a>>, Failure> {
        let name = self.name();
        let plain = |lines, keys_first| Stream { name, lines, keys_first, ends: None };
        Ok(match (self, number) {
            (Self::Archive(archive), _) => match archive.manifest.parts.get(number) {
                None => None,
                Some(part) => Some(Stream {
                    name: archive.because(&part.file, &"").trim_end_matches([' ', ':']).to_owned(),
                    lines: Box::new(BufReader::with_capacity(1 << 20, archive.part(number, bar)?)),
                    keys_first: false,
                    ends: Some((part.first.clone(), part.last.clone())),
                }),
            },
            (Self::Stdin, 0) => Some(plain(input::open(Path::new("-"), bar)?, true)),
            (Self::File(path), 0) => Some(plain(input::open(path, bar)?, true)),
            (Self::Live(live), 0) => Some(plain(live.entries(bar)?, false)),
            _ => None,
        })
    }

    /// All of its entries, in order; keys may come first.
    pub fn export<'a>(&'a mut self, bar: &'a ProgressBar) -> Result<Export<'a>, Failure> {
        let lines: Box<dyn BufRead + 'a> = match self {
            Self::Stdin => input::open(Path::new("-"), bar)?,
            Self::File(path) => input::open(path, bar)?,
            Self::Archive(archive) => Box::new(BufReader::with_capacity(1 << 20, archive.parts(bar))),
            Self::Live(live) => live.entries(bar)?,
        };
        Ok(Reader::new(lines))
    }
}

/// Reads keys, up to the first entry.
pub fn keys<R: BufRead>(export: &mut Reader<R>, name: &str) -> Result<Vec<KeyRecord>, Failure> {
    let mut keys = Vec::new();
    while let Some(Record::Key(key)) = export.next_record().map_err(|e| format!("{name}: {e}"))? {
        keys.push(key);
    }
    Ok(keys)
}
