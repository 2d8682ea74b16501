//! Foreign text, made harmless for the place where it goes.

use std::fmt::Write;

/// Whether a character moves what stands around it, hides, or steers a terminal.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line in which everything is seen: a name can neither start a line of its own nor turn its neighbours round.
pub fn line(text: &str) -> String {
    shown(text, deceives)
}

/// The same, but lines may end.
pub fn lines(text: &str) -> String {
    shown(text, |c| c != '\n' && deceives(c))
}

fn shown(text: &str, hides: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match hides(c) {
            true => _ = write!(out, "\\u{{{:04X}}}", u32::from(c)),
            false => out.push(c),
        }
    }
    out
}

/// Text or an attribute's value in XML 1.0. What no XML can hold is shown as its number.
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Attributes are normalised: a line's end would become a blank.
            '\t' | '\n' | '\r' => _ = write!(out, "&#{};", u32::from(c)),
            '\u{fffe}' | '\u{ffff}' => _ = write!(out, "\\u{{{:04X}}}", u32::from(c)),
            c if deceives(c) => _ = write!(out, "\\u{{{:04X}}}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

/// Running text in Markdown: no markup, link, mention, formula or HTML comes of it.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for (at, c) in line(text).char_indices() {
        let special = matches!(
            c,
            '\\' | '`'
                | '*'
                | '_'
                | '{'
                | '}'
                | '['
                | ']'
                | '('
                | ')'
                | '<'
                | '>'
                | '#'
                | '!'
                | '|'
                | '~'
                | '&'
                | '$'
                | '^'
                | ':'
                | '@'
        );
        if special || at == 0 && c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out.replace("www.", "www\\.").replace("WWW.", "WWW\\.")
}

/// A code span.
pub fn code(text: &str) -> String {
    let text = line(text);
    let fence = "`".repeat(longest_run(&text) + 1);
    // A blank at both ends is taken off again, and keeps backticks from the fence.
    format!("{fence} {text} {fence}")
}

/// A code block.
pub fn block(language: &str, text: &str) -> String {
    let text = lines(text);
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A plain text message of SARIF (3.11): braces are doubled, and nothing reads as an embedded link.
pub fn sarif(text: &str) -> String {
    line(text).replace('{', "{{").replace('}', "}}").replace("](", "] (")
}

/// A path segment of a URI (RFC 3986).
pub fn uri(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(b)),
            // Not at the start: "." and ".." are no names.
            b'.' if !out.is_empty() => out.push('.'),
            _ => _ = write!(out, "%{b:02X}"),
        }
    }
    out
}
