//! Archives (format section 10), as they are read: each file is held against the manifest while it streams by.

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use custody_core::Hash;
use custody_core::export::manifest::{self, ChainSpan, File, Manifest, Part, part_name};
use custody_core::export::{Reader, Record};
use custody_core::verify::KeyRecord;
use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{Failure, input};

/// What was found wrong with files while they were read.
pub type Problems = Rc<RefCell<Vec<String>>>;

pub struct Archive {
    dir: PathBuf,
    pub manifest: Manifest,
    /// What names it.
    pub digest: String,
    pub problems: Problems,
}

impl Archive {
    /// Reads the manifest.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(manifest::FILE);
        if !path.exists() {
            return Err(
                format!("{}: there is no {}: this export is not complete", dir.display(), manifest::FILE).into()
            );
        }
        let json = input::small(&path)?;
        let manifest = Manifest::read(&json).map_err(|e| format!("{}: {e}", path.display()))?;
        let problems = Problems::default();
        let after = part_name(manifest.parts.len() + 1);
        if dir.join(&after).exists() {
            problems
                .borrow_mut()
                .push(format!("{}: {after} is there, and the manifest does not name it", dir.display()));
        }
        Ok(Self { dir: dir.to_owned(), digest: manifest::digest(&json), manifest, problems })
    }

    pub fn name(&self) -> String {
        self.dir.display().to_string()
    }

    pub fn keys(&self) -> Result<Vec<KeyRecord>, Failure> {
        let file = &self.manifest.keys;
        let mut reader = Reader::new(self.file(file, &ProgressBar::hidden())?);
        let mut keys = Vec::new();
        while let Some(record) = reader.next_record().map_err(|e| self.because(&file.file, &e))? {
            match record {
                Record::Key(key) => keys.push(key),
                Record::Entry(_) => return Err(self.because(&file.file, &"it holds an entry").into()),
            }
        }
        Ok(keys)
    }

    /// The lines of a part.
    pub fn part(&self, number: usize, bar: &ProgressBar) -> Result<Stored, Failure> {
        let Part { file, records, bytes, size, sha256, .. } = self.manifest.parts[number].clone();
        self.file(&File { file, records, bytes, size, sha256 }, bar)
    }

    /// All parts, one after another.
    pub fn parts<'a>(&'a self, bar: &'a ProgressBar) -> Parts<'a> {
        Parts { archive: self, bar, next: 0, current: None }
    }

    /// Each chain that the archive says it has.
    pub fn chains(&self, mut each: impl FnMut(ChainSpan)) -> Result<(), Failure> {
        self.lines(&self.manifest.chains, &mut each)
    }

    /// Each line of a file.
    pub fn lines<T: DeserializeOwned>(&self, file: &File, mut each: impl FnMut(T)) -> Result<(), Failure> {
        let mut lines = self.file(file, &ProgressBar::hidden())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line).map_err(|e| self.because(&file.file, &e))?;
            if line.is_empty() {
                return Ok(());
            }
            each(serde_json::from_slice(&line).map_err(|e| self.because(&file.file, &e))?);
        }
    }

    pub fn because(&self, file: &str, why: &dyn std::fmt::Display) -> String {
        format!("{}: {why}", self.dir.join(file).display())
    }

    fn file(&self, file: &File, bar: &ProgressBar) -> Result<Stored, Failure> {
        let path = self.dir.join(&file.file);
        let because = |e: io::Error| format!("{}: {e}", path.display());
        let raw = fs::File::open(&path).map_err(because)?;
        let raw = Hashing { input: bar.wrap_read(raw), sha: Sha256::new(), bytes: 0 };
        let decoder = input::decoder(BufReader::with_capacity(1 << 20, raw)).map_err(because)?;
        Ok(Stored {
            decoder: Some(BufReader::with_capacity(1 << 20, decoder)),
            size: 0,
            lines: 0,
            ends: true,
            file: file.clone(),
            name: path.display().to_string(),
            problems: self.problems.clone(),
        })
    }
}

struct Hashing<R> {
    input: R,
    sha: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let some = self.input.read(to)?;
        self.sha.update(&to[..some]);
        self.bytes += some as u64;
        Ok(some)
    }
}

type Raw = BufReader<Hashing<indicatif::ProgressBarIter<fs::File>>>;

/// A compressed file, decompressed; at its end it is held against the manifest.
pub struct Stored {
    decoder: Option<BufReader<zstd::Decoder<'static, Raw>>>,
    size: u64,
    lines: u64,
    /// Whether the last byte so far ends a line.
    ends: bool,
    file: File,
    name: String,
    problems: Problems,
}

impl Stored {
    fn finish(&mut self) {
        let Some(decoder) = self.decoder.take() else { return };
        let raw = decoder.into_inner().finish().into_inner();
        let sha256: Hash = raw.sha.finalize().into();
        let said = &self.file;
        let problem = if raw.bytes != said.bytes || sha256 != said.sha256 {
            "it is not the file that the manifest names"
        } else if self.size != said.size || self.lines != said.records || !self.ends {
            "it has not as many lines as the manifest says"
        } else {
            return;
        };
        self.problems.borrow_mut().push(format!("{}: {problem}", self.name));
    }
}

impl BufRead for Stored {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // A few bytes may be a thousand million when decompressed.
        if self.size > self.file.size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it decompresses to more than the manifest says"));
        }
        let Some(decoder) = &mut self.decoder else { return Ok(&[]) };
        if decoder.fill_buf()?.is_empty() {
            self.finish();
            return Ok(&[]);
        }
        match &mut self.decoder {
            Some(decoder) => decoder.fill_buf(),
            None => Ok(&[]),
        }
    }

    fn consume(&mut self, amount: usize) {
        let Some(decoder) = &mut self.decoder else { return };
        let bytes = &decoder.buffer()[..amount];
        self.lines += bytes.iter().filter(|b| **b == b'\n').count() as u64;
        self.ends = bytes.last().map_or(self.ends, |b| *b == b'\n');
        self.size += amount as u64;
        decoder.consume(amount);
    }
}

impl Read for Stored {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let some = self.fill_buf()?.read(to)?;
        self.consume(some);
        Ok(some)
    }
}

/// Parts, opened as they come.
pub struct Parts<'a> {
    archive: &'a Archive,
    bar: &'a ProgressBar,
    next: usize,
    current: Option<Stored>,
}

impl Read for Parts<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(part) = &mut self.current {
                let some = part.read(to)?;
                if some > 0 || to.is_empty() {
                    return Ok(some);
                }
            }
            if self.next == self.archive.manifest.parts.len() {
                return Ok(0);
            }
            self.current = Some(self.archive.part(self.next, self.bar).map_err(|e| io::Error::other(e.to_string()))?);
            self.next += 1;
        }
    }
}
