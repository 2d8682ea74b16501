//! Values that a column might accept: what its constraints mention, what its type usually takes, and ones that nobody has.

use serde::Deserialize;

/// A column that wants a value.
#[allow(missing_docs)]
#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    /// The type without its domains and modifiers.
    pub base: String,
    /// The first modifier's meaning: a length, a number of digits.
    pub length: Option<usize>,
    pub scale: Option<usize>,
    /// What the checks of its domains say.
    pub domain: Option<String>,
    pub type_oid: u32,
    pub not_null: bool,
    pub default: Option<String>,
    pub identity: bool,
    pub generated: bool,
    pub labels: Option<Vec<String>>,
}

#[allow(missing_docs)]
/// Something that a row's values must satisfy.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    pub name: String,
    pub columns: Vec<String>,
    pub expression: String,
}

/// Numbers without a pattern, not secrets.
pub struct Random(u64);

impl Random {
    /// Different for each seed.
    pub fn new(seed: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(seed) | 1)
    }

    /// A number below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    fn letters(&mut self, count: usize) -> String {
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
        (0..count).map(|_| ALPHABET[self.below(26) as usize] as char).collect()
    }

    /// A random uuid.
    pub fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes.iter_mut().for_each(|b| *b = self.below(256) as u8);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// A value that no other row has; none for types with few values.
pub fn fresh(column: &Column, random: &mut Random) -> Option<String> {
    fresh_of(&column.base, column, random)
}

fn fresh_of(base: &str, column: &Column, random: &mut Random) -> Option<String> {
    if let Some(element) = base.strip_suffix("[]") {
        let value = fresh_of(element, column, random)?;
        return Some(format!("{{\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    let n = 1_000_000_000 + random.below(1_000_000_000);
    let day = || format!("{:04}-{:02}-{:02}", 1900 + n % 400, 1 + n / 400 % 12, 1 + n / 4800 % 28);
    Some(match base {
        "smallint" => (10_000 + n % 22_000).to_string(),
        "integer" | "bigint" | "oid" | "real" | "double precision" | "money" => n.to_string(),
        "numeric" => {
            let whole = column.length.map_or(9, |l| l - column.scale.unwrap_or(0).min(l)).min(9) as u32;
            (n % 10u64.pow(whole)).to_string()
        }
        "text" | "character varying" | "character" | "name" | "citext" | "public.citext" | "\"char\"" => {
            let longest = if base == "\"char\"" { 1 } else { column.length.unwrap_or(16) };
            match longest {
                13.. => format!("probe-{}", random.letters(longest.min(16) - 6)),
                _ => random.letters(longest),
            }
        }
        "uuid" => random.uuid(),
        "date" => day(),
        "timestamp with time zone" | "timestamp without time zone" => {
            format!("{} {:02}:{:02}:{:02}", day(), n / 7 % 24, n / 11 % 60, n / 13 % 60)
        }
        "time with time zone" | "time without time zone" => {
            format!("{:02}:{:02}:{:02}", n / 7 % 24, n / 11 % 60, n / 13 % 60)
        }
        "interval" => format!("{n} seconds"),
        "inet" => format!("10.{}.{}.{}", n % 256, n / 256 % 256, n / 65_536 % 256),
        "cidr" => format!("10.{}.{}.{}/32", n % 256, n / 256 % 256, n / 65_536 % 256),
        "macaddr" => {
            format!("02:00:{:02x}:{:02x}:{:02x}:{:02x}", n % 256, n / 256 % 256, n / 65_536 % 256, n >> 24 & 255)
        }
        "bytea" => format!("\\x{n:016x}"),
        "json" | "jsonb" => format!("{{\"probe\": {n}}}"),
        "xml" => format!("<probe>{n}</probe>"),
        "int4range" | "int8range" | "numrange" => format!("[{n},{})", n + 1),
        "daterange" => format!("[{d},{d}]", d = day()),
        "tsrange" | "tstzrange" => format!("[\"{d} 10:00:00\",\"{d} 10:00:{:02}\")", 1 + n / 17 % 59, d = day()),
        "point" => format!("({n},{})", n / 3),
        "bit" | "bit varying" => {
            let length = column.length.unwrap_or(1).min(31);
            (0..length).map(|i| if n >> i & 1 == 1 { '1' } else { '0' }).collect()
        }
        "tsvector" => format!("probe{n}"),
        "hstore" | "public.hstore" => format!("probe=>{n}"),
        "ltree" | "public.ltree" => format!("probe_{n}"),
        _ => return None,
    })
}

/// Values to try, the likelier first. None of them need be accepted.
pub fn candidates<'a>(column: &Column, checks: impl Iterator<Item = &'a Check>, random: &mut Random) -> Vec<String> {
    let mut all = Vec::new();
    let texts = checks.map(|c| c.expression.as_str()).chain(column.domain.as_deref());
    let textual = matches!(
        column.base.as_str(),
        "text" | "character varying" | "character" | "name" | "citext" | "public.citext"
    );
    let mut lengths = Vec::new();
    for text in texts {
        let (strings, numbers) = constants(text);
        if textual {
            all.extend(strings.iter().filter_map(|s| from_pattern(s)));
        }
        if column.base.starts_with("timestamp") || column.base == "date" {
            // Within bounds like a partition's, and again and again another.
            for day in strings.iter().filter_map(|s| s.get(..10)).filter(|d| d.is_ascii() && d.starts_with(['1', '2']))
            {
                for _ in 0..4 {
                    let (month, day_of) = (&day[..8], day[8..].parse::<u64>().unwrap_or(1));
                    let later = (day_of + random.below(28)).clamp(1, 28);
                    let time = format!("{:02}:{:02}:{:02}", random.below(24), random.below(60), random.below(60));
                    all.push(format!("{month}{later:02} {time}"));
                }
            }
        }
        all.extend(strings);
        for number in numbers {
            if let Ok(n) = number.parse::<i64>() {
                all.extend([n, n + 1, n - 1].map(|n| n.to_string()));
                lengths.extend((1..=64).contains(&n).then_some(n as usize));
            }
            all.push(number);
        }
    }
    all.extend(column.labels.iter().flatten().cloned());
    all.extend(usual(&column.base).iter().map(|s| (*s).to_owned()));
    all.extend(fresh(column, random));
    if textual {
        for length in lengths {
            all.extend(["a", "A", "1"].map(|c| c.repeat(length)));
        }
        all.extend(TEXTS.iter().map(|s| (*s).to_owned()));
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|v| seen.insert(v.clone()));
    all
}

/// What constraints on texts often ask for.
const TEXTS: [&str; 20] = [
    "probe",
    "a",
    "A",
    "1",
    "probe@example.org",
    "https://example.org/",
    "+14155552671",
    "USD",
    "en",
    "US",
    "en-US",
    "ABC",
    "12345",
    "0000000000",
    "2026-01-01",
    "/",
    "#000000",
    "1.0.0",
    "{}",
    "",
];

/// The constants that an expression mentions.
pub fn mentioned(expression: &str) -> Vec<String> {
    let (mut strings, numbers) = constants(expression);
    strings.extend(numbers);
    strings
}

fn usual(base: &str) -> &'static [&'static str] {
    match base {
        "boolean" => &["true", "false"],
        "smallint" | "integer" | "bigint" | "numeric" | "real" | "double precision" | "money" | "oid" => {
            &["1", "0", "2", "10", "100", "0.5", "-1", "1000", "2000", "2026"]
        }
        "date" | "timestamp with time zone" | "timestamp without time zone" => {
            &["2026-01-02", "2000-01-01", "now", "tomorrow", "2100-01-01", "1970-01-01", "infinity"]
        }
        "time with time zone" | "time without time zone" => &["12:00", "00:00", "23:59"],
        "interval" => &["1 day", "0", "1 hour", "1 year"],
        "json" | "jsonb" => &["{}", "[]", "\"probe\"", "1", "null"],
        "inet" | "cidr" => &["192.0.2.1", "2001:db8::1"],
        "macaddr" => &["02:00:00:00:00:01"],
        "bytea" => &["\\x00", "\\x"],
        "int4range" | "int8range" | "numrange" => &["[1,2)", "empty"],
        "daterange" => &["[2026-01-01,2026-01-02)"],
        "tsrange" | "tstzrange" => &["[\"2026-01-01 00:00\",\"2026-01-01 01:00\")"],
        "point" => &["(0,0)"],
        "box" => &["(1,1),(0,0)"],
        "circle" => &["<(0,0),1>"],
        "line" => &["{1,1,1}"],
        "lseg" => &["[(0,0),(1,1)]"],
        "path" => &["[(0,0),(1,1)]"],
        "polygon" => &["((0,0),(1,0),(1,1))"],
        "tsvector" | "tsquery" => &["probe"],
        "xml" => &["<probe/>"],
        "bit" | "bit varying" => &["1", "0"],
        "pg_lsn" => &["0/1"],
        other if other.ends_with("[]") => &["{}", "{1}", "{a}"],
        other if other.ends_with("multirange") => &["{}"],
        _ => &[
            "probe",
            "1",
            "a",
            "{}",
            "(0,0)",
            "[]",
            "0",
            "true",
            "2026-01-01",
            "empty",
            "a=>1",
            "()",
            "(,)",
            "(,,)",
            "(,,,)",
        ],
    }
}

/// The string and number constants of an expression as PostgreSQL prints it.
fn constants(expression: &str) -> (Vec<String>, Vec<String>) {
    let (mut strings, mut numbers) = (Vec::new(), Vec::new());
    let mut chars = expression.chars().peekable();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        if c == '\'' {
            let mut text = String::new();
            while let Some(c) = chars.next() {
                match c {
                    '\'' if chars.peek() == Some(&'\'') => {
                        chars.next();
                        text.push('\'');
                    }
                    '\'' => break,
                    other => text.push(other),
                }
            }
            // ARRAY['a','b'] may be printed as '{a,b}'::text[].
            if let Some(list) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
                strings.extend(list.split(',').map(|s| s.trim_matches('"').to_owned()));
            }
            match text.parse::<f64>().is_ok() {
                true => numbers.push(text),
                false => strings.push(text),
            }
            word.clear();
        } else if c.is_alphanumeric() || c == '_' || c == '.' {
            word.push(c);
        } else {
            if word.parse::<f64>().is_ok() {
                numbers.push(word.clone());
            }
            word.clear();
        }
    }
    if word.parse::<f64>().is_ok() {
        numbers.push(word);
    }
    (strings, numbers)
}

/// A text that a simple regular expression, or a LIKE pattern, matches; none if it is not simple.
fn from_pattern(pattern: &str) -> Option<String> {
    if !pattern.contains(['^', '$', '[', '\\', '%', '*', '+', '(']) {
        return None;
    }
    if pattern.contains('%') && !pattern.contains('[') {
        return Some(pattern.replace(['%', '_'], "a"));
    }
    let mut chars = pattern.chars().peekable();
    let out = alternative(&mut chars)?;
    chars.peek().is_none().then_some(out)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn alternative(chars: &mut Chars<'_>) -> Option<String> {
    let mut out = String::new();
    while let Some(c) = chars.peek().copied() {
        if c == ')' {
            break;
        }
        chars.next();
        let atom = match c {
            '^' | '$' => continue,
            // The first alternative will do; the others are read over.
            '|' => {
                alternative(chars)?;
                break;
            }
            '(' => {
                if chars.peek() == Some(&'?') {
                    chars.next();
                    chars.next_if_eq(&':')?;
                }
                let group = alternative(chars)?;
                chars.next_if_eq(&')')?;
                group
            }
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let first = chars.next()?;
                let first = match first {
                    '[' => {
                        let class: String = chars.by_ref().take_while(|c| *c != ']').collect();
                        if class.contains("digit") { '0' } else { 'a' }
                    }
                    '\\' => shorthand(chars.next()?),
                    other => other,
                };
                while chars.next_if(|c| *c != ']').is_some() {}
                chars.next_if_eq(&']')?;
                if negated { "a".to_owned() } else { first.to_string() }
            }
            '\\' => shorthand(chars.next()?).to_string(),
            '.' => "a".to_owned(),
            other => other.to_string(),
        };
        match chars.peek() {
            Some('?' | '*') => {
                chars.next();
            }
            Some('+') => {
                chars.next();
                out.push_str(&atom);
            }
            Some('{') => {
                chars.next();
                let counts: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let least: usize = counts.split(',').next()?.trim().parse().ok()?;
                out.push_str(&atom.repeat(least.min(1000)));
            }
            _ => out.push_str(&atom),
        }
    }
    Some(out)
}

fn shorthand(class: char) -> char {
    match class {
        'd' => '0',
        'w' => 'a',
        's' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{constants, from_pattern};

    #[test]
    fn patterns_and_constants() {
        for (pattern, text) in [
            ("^[A-Z]{3}$", "AAA"),
            (r"^\d{5}(-\d{4})?$", "00000"),
            ("^[a-z0-9]+(-[a-z0-9]+)*$", "a"),
            (r"^[^@]+@[a-z]+\.(com|org)$", "a@a.com"),
            ("^(x|y)z$", "xz"),
        ] {
            assert_eq!(from_pattern(pattern).as_deref(), Some(text), "{pattern}");
        }
        assert_eq!(from_pattern("plain"), None);
        let (strings, numbers) =
            constants("(state = ANY (ARRAY['it''s'::text, 'b'::text])) AND n >= 18 AND x < '-5'::integer");
        assert_eq!(strings, ["it's", "b"]);
        assert_eq!(numbers, ["18", "-5"]);
    }
}
