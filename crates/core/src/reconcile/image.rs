//! Row images as the log has them (section 6): flat JSON objects without blanks.

/// Gives each column's name and value, both as they are written. False if this is no such image.
pub fn each_field<'a>(image: &'a str, mut each: impl FnMut(&'a str, &'a str)) -> bool {
    let bytes = image.as_bytes();
    if bytes.first() != Some(&b'{') {
        return false;
    }
    if bytes == b"{}" {
        return true;
    }
    let mut at = 1;
    loop {
        let Some(end) = string_end(bytes, at) else { return false };
        let name = &image[at..end];
        if bytes.get(end) != Some(&b':') {
            return false;
        }
        at = end + 1;
        let end = match bytes.get(at) {
            Some(b'"') => string_end(bytes, at),
            Some(b'{' | b'[') | None => None,
            Some(_) => bytes[at..].iter().position(|b| matches!(b, b',' | b'}')).map(|n| at + n),
        };
        let Some(end) = end.filter(|end| *end > at) else { return false };
        each(name, &image[at..end]);
        at = end + 1;
        match bytes.get(end) {
            Some(b',') => {}
            Some(b'}') => return at == bytes.len(),
            _ => return false,
        }
    }
}

/// Where the JSON string that begins at `start` ends: behind its closing quote.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        at += bytes.get(at..)?.iter().position(|b| matches!(b, b'"' | b'\\'))?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}
