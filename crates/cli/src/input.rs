//! Exports as files: plain or compressed with zstd, or from standard input, with a bar that shows how far it is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use custody_core::export::Reader;
use custody_core::tlog::note::NoteKey;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// The first bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An export, to be read record by record.
pub type Export = Reader<Box<dyn BufRead>>;

/// Opens an export; `-` is standard input.
pub fn open(path: &Path, bar: &ProgressBar) -> Result<Export, Failure> {
    let because = |e: io::Error| format!("{}: {e}", path.display());
    let raw: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file = File::open(path).map_err(because)?;
            bar.set_length(file.metadata().map_err(because)?.len());
            Box::new(file)
        }
    };
    let mut input = BufReader::with_capacity(1 << 20, bar.wrap_read(raw));
    let compressed = input.fill_buf().map_err(because)?.starts_with(&ZSTD);
    Ok(Reader::new(match compressed {
        true => Box::new(BufReader::with_capacity(1 << 20, zstd::Decoder::with_buffer(input).map_err(because)?)),
        false => Box::new(input),
    }))
}

/// A bar on standard error, if that is a terminal and nobody wants quiet.
pub fn bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A key of a log or of a witness, as an argument.
pub fn note_key(text: &str) -> Result<NoteKey, String> {
    NoteKey::parse(text).map_err(|e| e.to_string())
}

/// All of a small file.
pub fn small(path: &Path) -> Result<Vec<u8>, Failure> {
    const LIMIT: u64 = 256 << 20;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT).read_to_end(&mut bytes))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(bytes)
}
