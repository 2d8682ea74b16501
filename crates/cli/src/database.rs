//! Connections: to this machine as they come, over a network by TLS with the server's name checked, or not at all.

use std::io::{self, BufRead, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Failure;

/// Whether this names a database rather than a file.
pub fn is_url(text: &str) -> bool {
    ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme))
}

#[derive(Args, Clone, Default)]
pub struct Safety {
    /// Connect to another machine without TLS. Whoever is on the way can read everything, and change it
    #[arg(long)]
    insecure_plaintext: bool,
}

/// How to get there.
#[derive(Debug, PartialEq)]
enum Transport {
    Plain,
    /// With the roots of this file; of none, those that browsers trust.
    Tls(Option<String>),
}

/// Connects. `sslmode` and `sslrootcert` are understood as libpq does, but that a certificate is always checked, and its name.
pub fn connect(database: &str, safety: &Safety) -> Result<Client, Failure> {
    let (config, transport) = plan(database, safety)?;
    Ok(match transport {
        Transport::Plain => config.connect(NoTls)?,
        Transport::Tls(root) => config.connect(tls(root.as_deref())?)?,
    })
}

fn plan(database: &str, safety: &Safety) -> Result<(Config, Transport), Failure> {
    let (rest, mode) = without(database, "sslmode");
    let (rest, root) = without(&rest, "sslrootcert");
    let mut config: Config = rest.parse()?;
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    let mut named = config.get_hosts().iter().map(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    });
    // Where an address is given, that is where it goes, whatever the host is called.
    let near = match config.get_hostaddrs() {
        [] => named.all(|near| near),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    };
    let tls = match (mode.as_deref(), near) {
        (Some("require" | "verify-ca" | "verify-full"), _) => true,
        (None | Some("prefer" | "allow"), true) | (Some("disable"), true) => false,
        (None | Some("prefer" | "allow"), false) => !safety.insecure_plaintext,
        (Some("disable"), false) if safety.insecure_plaintext => false,
        (Some("disable"), false) => {
            return Err("sslmode=disable to another machine: what is exported are people's records; \
                        --insecure-plaintext if you know that nobody listens"
                .into());
        }
        (Some(mode), _) => return Err(format!("sslmode={mode} is unknown").into()),
    };
    config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
    let root = root.or_else(|| std::env::var("PGSSLROOTCERT").ok()).filter(|root| root != "system");
    Ok((config, if tls { Transport::Tls(root) } else { Transport::Plain }))
}

fn tls(root: Option<&str>) -> Result<MakeRustlsConnect, Failure> {
    let mut roots = RootCertStore::empty();
    match root {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let because = |e: &dyn std::fmt::Display| format!("{path}: {e}");
            for certificate in CertificateDer::pem_file_iter(Path::new(path)).map_err(|e| because(&e))? {
                roots.add(certificate.map_err(|e| because(&e))?).map_err(|e| because(&e))?;
            }
            if roots.is_empty() {
                return Err(because(&"it holds no certificate").into());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The connection string without a parameter, and its value: of a URL, or of `name=value` words. The last one counts.
fn without(database: &str, parameter: &str) -> (String, Option<String>) {
    let mut value = None;
    if is_url(database) {
        let Some((base, query)) = database.split_once('?') else { return (database.into(), None) };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=').filter(|(name, _)| *name == parameter) {
                Some((_, found)) => value = Some(unescaped(found)),
                None => kept.push(pair),
            }
        }
        let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        return (rest, value);
    }
    let (mut rest, mut left) = (String::new(), database);
    while let Some((name, found, whole, after)) = word(left) {
        match name == parameter {
            true => value = Some(found),
            false => rest += whole,
        }
        left = after;
    }
    // What is no such word is for the parser to refuse.
    rest += left;
    (rest, value)
}

/// The first `name = value` of a connection string: name, value, both as they stand, and what follows.
fn word(text: &str) -> Option<(&str, String, &str, &str)> {
    let equals = text.find('=')?;
    let name = text[..equals].trim();
    let from = equals + 1 + (text[equals + 1..].len() - text[equals + 1..].trim_start().len());
    let quoted = text[from..].starts_with('\'');
    let (mut value, mut escaped, mut end) = (String::new(), false, text.len());
    for (i, c) in text[from..].char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '\'' if quoted => {
                end = from + i + 1;
                break;
            }
            c if !quoted && c.is_whitespace() => {
                end = from + i;
                break;
            }
            _ => {}
        }
        value.push(c);
    }
    // The blanks after it go with it.
    end += text[end..].len() - text[end..].trim_start().len();
    Some((name, value, &text[..end], &text[end..]))
}

/// Without percent-encoding.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|d| char::from(*d).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What `COPY (SELECT one text) TO STDOUT (FORMAT binary)` sends, as lines.
pub struct Lines<R> {
    copy: R,
    /// How much of the value before is still to come, and whether its line feed is.
    left: u64,
    feed: bool,
    begun: bool,
    done: bool,
    buffer: Vec<u8>,
    at: usize,
}

impl<R: Read> Lines<R> {
    pub fn new(copy: R) -> Self {
        Self { copy, left: 0, feed: false, begun: false, done: false, buffer: Vec::new(), at: 0 }
    }

    /// Reads the head of the next row; false at the end.
    fn row(&mut self) -> io::Result<bool> {
        let odd = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if !self.begun {
            let mut head = [0; 19];
            self.copy.read_exact(&mut head)?;
            if !head.starts_with(b"PGCOPY\n\xff\r\n\0") || head[15..] != [0; 4] {
                return Err(odd("the server does not send what was asked for"));
            }
            self.begun = true;
        }
        let mut two = [0; 2];
        self.copy.read_exact(&mut two)?;
        match i16::from_be_bytes(two) {
            -1 => return Ok(false),
            1 => {}
            _ => return Err(odd("the server does not send what was asked for")),
        }
        let mut four = [0; 4];
        self.copy.read_exact(&mut four)?;
        self.left = u64::try_from(i32::from_be_bytes(four)).map_err(|_| odd("the server sends a null"))?;
        self.feed = true;
        Ok(true)
    }
}

impl<R: Read> BufRead for Lines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        const ROOM: u64 = 1 << 16;
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            // Many short rows at once.
            while !self.done && (self.buffer.len() as u64) < ROOM {
                if self.left > 0 {
                    let some = self.left.min(ROOM);
                    if self.copy.by_ref().take(some).read_to_end(&mut self.buffer)? as u64 != some {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.left -= some;
                } else if self.feed {
                    self.buffer.push(b'\n');
                    self.feed = false;
                } else {
                    self.done = !self.row()?;
                }
            }
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let some = self.fill_buf()?.read(to)?;
        self.consume(some);
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(database: &str) -> Result<Transport, String> {
        plan(database, &Safety::default()).map(|p| p.1).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_goes_over_a_network_in_plain() {
        for near in
            ["host=/run/postgresql dbname=a", "postgresql://localhost/a", "postgresql://127.0.0.1/a", "host=::1"]
        {
            assert_eq!(way(near), Ok(Transport::Plain), "{near}");
        }
        for far in [
            "host=db dbname=a",
            "postgresql://db.example/a",
            "postgresql://db.example/a?sslmode=prefer",
            "host=localhost,db dbname=a",
            "host=localhost hostaddr=192.0.2.1",
            "postgresql://localhost/a?sslmode=require",
            "host=10.0.0.1 sslmode = 'verify-ca'",
        ] {
            assert_eq!(way(far), Ok(Transport::Tls(None)), "{far}");
        }
        assert!(way("host=db sslmode=disable").unwrap_err().contains("--insecure-plaintext"));
        assert!(way("host=db sslmode=other").unwrap_err().contains("unknown"));
        let insecure = Safety { insecure_plaintext: true };
        assert_eq!(plan("host=db", &insecure).unwrap().1, Transport::Plain);
        assert_eq!(plan("host=db sslmode=verify-full", &insecure).unwrap().1, Transport::Tls(None));
    }

    #[test]
    fn parameters_are_taken_out() {
        let (rest, value) = without("postgresql://u@h/d?a=b&sslrootcert=%2fca%20x.pem&c=d", "sslrootcert");
        assert_eq!((&*rest, value.as_deref()), ("postgresql://u@h/d?a=b&c=d", Some("/ca x.pem")));
        let (rest, value) = without(r"host=h sslrootcert = '/ca \'x\'.pem'  user=u", "sslrootcert");
        assert_eq!((&*rest, value.as_deref()), ("host=h user=u", Some("/ca 'x'.pem")));
        assert_eq!(without("host=h password='a sslmode=b'", "sslmode").1, None);
        assert_eq!(way("host=db sslrootcert=/ca.pem"), Ok(Transport::Tls(Some("/ca.pem".into()))));
    }

    #[test]
    fn rows_are_lines() {
        let mut copy = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for row in [&b"{}"[..], b"", &[b'x'; 100_000]] {
            copy.extend([0, 1]);
            copy.extend((row.len() as i32).to_be_bytes());
            copy.extend(row);
        }
        let whole = [&copy[..], &[255, 255]].concat();
        let lines: Vec<_> = Lines::new(&whole[..]).lines().map(Result::unwrap).collect();
        assert_eq!((lines.len(), &*lines[0], &*lines[1], lines[2].len()), (3, "{}", "", 100_000));
        assert!(Lines::new(&copy[..]).lines().any(|l| l.is_err()), "cut");
        assert!(Lines::new(&b"ERROR: this is no copy"[..]).lines().any(|l| l.is_err()));
    }
}
