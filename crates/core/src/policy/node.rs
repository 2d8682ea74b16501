//! Reading PostgreSQL's expression trees from their text, as the catalogs keep them (`pg_node_tree`).
//!
//! The text is what PostgreSQL's `outfuncs.c` writes: `{LABEL :field value …}`, lists in parentheses, tokens with backslashes. Nothing
//! is assumed about which labels and fields there are, so every version's text is read; what they mean is `judge`'s to know.

/// Deeper nesting than this is refused: PostgreSQL's own parser stops far earlier for what people write.
const DEEPEST: usize = 400;

/// A node, a list or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// `<>`, where nothing is.
    Null,
    /// A number, name or quoted string, without its escapes.
    Token(String),
    /// `( … )`.
    List(Vec<Node>),
    /// `{LABEL :field value …}`.
    Object(Object),
}

/// A labelled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is, e.g. `OPEXPR`.
    pub label: String,
    /// Its fields in order; several values where a field has more than one token (`:constvalue 4 [ 1 0 0 0 ]`).
    fields: Vec<(String, Vec<Node>)>,
}

const NULL: Node = Node::Null;

impl Object {
    /// The first value of a field; null if there is no such field.
    pub fn get(&self, field: &str) -> &Node {
        self.all(field).first().unwrap_or(&NULL)
    }

    /// All values of a field.
    pub fn all(&self, field: &str) -> &[Node] {
        self.fields.iter().find(|f| f.0 == field).map_or(&[], |f| &f.1)
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> Option<i64> {
        self.get(field).token()?.parse().ok()
    }

    /// A field that is an object's identifier.
    pub fn oid(&self, field: &str) -> u32 {
        self.number(field).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// A field that is true or false.
    pub fn flag(&self, field: &str) -> bool {
        self.get(field).token() == Some("true")
    }

    /// A field that is a list.
    pub fn list(&self, field: &str) -> &[Node] {
        self.get(field).list()
    }

    /// Everything directly below.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.fields.iter().flat_map(|f| &f.1)
    }
}

impl Node {
    /// Reads a whole tree; none if it is not one.
    pub fn parse(text: &str) -> Option<Node> {
        let mut reader = Reader { rest: text };
        let node = reader.node(0)?;
        reader.next().is_none().then_some(node)
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        match self {
            Node::Token(text) => Some(text),
            _ => None,
        }
    }

    /// The labelled node.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The list's items; none of anything else.
    pub fn list(&self) -> &[Node] {
        match self {
            Node::List(items) => items,
            _ => &[],
        }
    }

    /// Whether nothing is there.
    pub fn is_null(&self) -> bool {
        *self == Node::Null
    }
}

enum Lexeme<'a> {
    Open(char),
    Close(char),
    Null,
    Field(&'a str),
    Token(String),
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// What comes next; as PostgreSQL's `pg_strtok`, a token ends at a blank, a parenthesis or a brace that no backslash precedes.
    fn next(&mut self) -> Option<Lexeme<'a>> {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t']);
        let first = self.rest.chars().next()?;
        if let '(' | '{' | ')' | '}' = first {
            self.rest = &self.rest[1..];
            return Some(if matches!(first, '(' | '{') { Lexeme::Open(first) } else { Lexeme::Close(first) });
        }
        let mut escaped = false;
        let end = self
            .rest
            .find(|c: char| {
                let stop = !escaped && matches!(c, ' ' | '\n' | '\t' | '(' | ')' | '{' | '}');
                escaped = !escaped && c == '\\';
                stop
            })
            .unwrap_or(self.rest.len());
        let (raw, rest) = self.rest.split_at(end);
        self.rest = rest;
        match raw.strip_prefix(':') {
            _ if raw == "<>" => Some(Lexeme::Null),
            Some(name) if !name.is_empty() => Some(Lexeme::Field(name)),
            _ => Some(Lexeme::Token(plain(raw))),
        }
    }

    fn node(&mut self, depth: usize) -> Option<Node> {
        let lexeme = self.next()?;
        self.value(lexeme, depth)
    }

    fn value(&mut self, lexeme: Lexeme<'a>, depth: usize) -> Option<Node> {
        if depth > DEEPEST {
            return None;
        }
        match lexeme {
            Lexeme::Null => Some(Node::Null),
            Lexeme::Token(text) => Some(Node::Token(text)),
            Lexeme::Field(name) => Some(Node::Token(format!(":{}", plain(name)))),
            Lexeme::Open('(') => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Lexeme::Close(')') => return Some(Node::List(items)),
                        lexeme => items.push(self.value(lexeme, depth + 1)?),
                    }
                }
            }
            Lexeme::Open(_) => self.object(depth),
            Lexeme::Close(_) => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Node> {
        let Lexeme::Token(label) = self.next()? else { return None };
        let mut fields: Vec<(String, Vec<Node>)> = Vec::new();
        loop {
            match self.next()? {
                Lexeme::Close('}') => return Some(Node::Object(Object { label, fields })),
                // A field has at least one value, and that may look like a field's name.
                Lexeme::Field(name) if fields.last().is_none_or(|f| !f.1.is_empty()) => {
                    fields.push((name.to_owned(), Vec::new()));
                }
                lexeme => {
                    let value = self.value(lexeme, depth + 1)?;
                    fields.last_mut()?.1.push(value);
                }
            }
        }
    }
}

/// A token without its backslashes, and a quoted one without its quotes.
fn plain(raw: &str) -> String {
    let raw = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(raw);
    let mut out = String::with_capacity(raw.len());
    let mut escaped = false;
    for c in raw.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}
