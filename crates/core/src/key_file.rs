//! The text of a key file.

use zeroize::Zeroizing;

use crate::key::{push_hex, unhex};

/// 32 bytes that are wiped when they are dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// What a key file holds.
pub struct KeyFile {
    /// The seed of the signing key.
    pub signing: Secret,
    /// What redacted values are digested with.
    pub redaction: Secret,
}

impl KeyFile {
    const FIRST_LINE: &str = "pg_custody key 1\n";

    /// Reads exactly what `to_text` writes; none for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (signing, rest) = secret(text.strip_prefix(Self::FIRST_LINE)?, "signing ")?;
        let (redaction, rest) = secret(rest, "redaction ")?;
        rest.is_empty().then_some(Self { signing, redaction })
    }

    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        // All of its length at once: a string that grows would leave secrets in what it outgrew.
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str(Self::FIRST_LINE);
        for (name, secret) in [("signing ", &self.signing), ("redaction ", &self.redaction)] {
            text.push_str(name);
            push_hex(&mut text, &secret[..]);
            text.push('\n');
        }
        text
    }
}

/// A line of a key file, and what follows it.
fn secret<'a>(text: &'a str, name: &str) -> Option<(Secret, &'a str)> {
    let (digits, rest) = text.strip_prefix(name)?.split_once('\n')?;
    let mut secret = Secret::default();
    unhex(digits, &mut secret[..]).then_some((secret, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;
    use proptest::prelude::*;

    fn file() -> KeyFile {
        KeyFile { signing: Zeroizing::new([0xab; 32]), redaction: Zeroizing::new([1; 32]) }
    }

    #[test]
    fn a_key_file_of_old() {
        let text = format!("pg_custody key 1\nsigning {}\nredaction {}\n", "ab".repeat(32), "01".repeat(32));
        assert_eq!(*file().to_text(), text);
        let read = KeyFile::parse(&text).unwrap();
        assert_eq!((*read.signing, *read.redaction), ([0xab; 32], [1; 32]));
    }

    #[test]
    fn what_is_no_key_file() {
        let good = file().to_text();
        for (what, with) in [
            ("pg_custody key 1", "pg_custody key 2"),
            ("signing ab", "signing AB"),
            ("signing ab", "signing +b"),
            ("signing ab", "signing "),
            ("signing ab", "signing abab"),
            ("redaction", "signing"),
            ("\n", "\r\n"),
        ] {
            assert!(KeyFile::parse(&good.replacen(what, with, 1)).is_none(), "{with}");
        }
        assert!(KeyFile::parse(good.trim_end()).is_none());
        assert!(KeyFile::parse(&format!("{}\n", *good)).is_none());
        assert!(KeyFile::parse("").is_none());
    }

    proptest! {
        #[test]
        fn hex_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut read = vec![0; bytes.len()];
            prop_assert!(unhex(&hex(&bytes), &mut read));
            prop_assert_eq!(&read, &bytes);
            prop_assert!(!unhex(&hex(&bytes), &mut vec![0; bytes.len() + 1]));
        }

        #[test]
        fn a_key_file_reads_back(signing in any::<[u8; 32]>(), redaction in any::<[u8; 32]>(), at in 0usize..200, bit in 0u8..7) {
            let text = KeyFile { signing: Zeroizing::new(signing), redaction: Zeroizing::new(redaction) }.to_text();
            let read = KeyFile::parse(&text).unwrap();
            prop_assert_eq!((*read.signing, *read.redaction), (signing, redaction));

            let mut bytes = text.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let other = KeyFile::parse(std::str::from_utf8(&bytes).unwrap());
            prop_assert!(other.is_none_or(|o| (*o.signing, *o.redaction) != (signing, redaction)));
        }
    }
}
