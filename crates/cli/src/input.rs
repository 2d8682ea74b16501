//! Files, plain or compressed with zstd, or standard input; with a bar that shows how far it is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use custody_core::tlog::note::NoteKey;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// The first bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// No frame may ask for a larger window than 128 MiB: the most that is decompressed without being asked twice (zstd's own limit).
const WINDOW_LOG: u32 = 27;

/// A file of lines; `-` is standard input.
pub fn open(path: &Path, bar: &ProgressBar) -> Result<Box<dyn BufRead>, Failure> {
    let because = |e: io::Error| format!("{}: {e}", path.display());
    let raw: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(because)?),
    };
    let mut input = BufReader::with_capacity(1 << 20, bar.wrap_read(raw));
    let compressed = input.fill_buf().map_err(because)?.starts_with(&ZSTD);
    Ok(match compressed {
        true => Box::new(BufReader::with_capacity(1 << 20, decoder(input).map_err(because)?)),
        false => Box::new(input),
    })
}

/// Decompresses, in bounded memory.
pub fn decoder<R: BufRead>(input: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

/// A bar on standard error, if that is a terminal and nobody wants quiet; without a length it only counts.
pub fn bar(quiet: bool, length: Option<u64>) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
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
