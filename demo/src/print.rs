//! How the story looks on a terminal.

use std::io::{IsTerminal, Write};

use postgres::error::DbError;

use crate::session::Table;

const WIDTH: usize = 118;
const WIDEST_CELL: usize = 44;
const INDENT: &str = "    ";

/// A line. Nobody reading any more (`| head`) is no reason to leave the cluster behind.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub fn failure(text: &str) {
    let _ =
        writeln!(std::io::stderr(), "\n{} {text}", styled("31;1", "custody-demo:", std::io::stderr().is_terminal()));
}

fn styled(code: &str, text: &str, terminal: bool) -> String {
    match terminal && std::env::var_os("NO_COLOR").is_none() {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn style(code: &str, text: &str) -> String {
    styled(code, text, std::io::stdout().is_terminal())
}

pub fn chapter(number: u32, title: &str) {
    line(&format!("\n{}", style("1;4", &format!("{number}. {title}"))));
}

pub fn section(title: &str) {
    line(&format!("\n  {}", style("1", title)));
}

pub fn text(text: &str) {
    for line_ in wrap(text, WIDTH - 2) {
        line(&format!("  {line_}"));
    }
}

/// A claim that was checked and holds.
pub fn holds(claim: &str) {
    for (i, part) in wrap(claim, WIDTH - 4).iter().enumerate() {
        let mark = if i == 0 { style("32;1", "✓") } else { " ".into() };
        line(&format!("  {mark} {part}"));
    }
}

/// A statement, and who runs it.
pub fn sql(who: &str, statement: &str) {
    let margin = who.len() + 8;
    let mut prompt = style("36", &format!("{who} sql> "));
    for part in statement.lines() {
        let part = part.trim_end();
        let (part, remark) = match part.split_once("  -- ") {
            Some((part, remark)) if margin + length(part) + length(remark) > WIDTH => {
                (part, Some(format!("-- {remark}")))
            }
            _ => (part, None),
        };
        let mut lines = if part.contains("-- ") { vec![part.to_owned()] } else { wrap_sql(part, WIDTH - 2 - margin) };
        lines.extend(remark);
        for text in lines {
            line(&format!("  {prompt}{text}"));
            prompt = " ".repeat(margin - 2);
        }
    }
}

/// Broken at spaces, what follows indented further.
fn wrap_sql(text: &str, width: usize) -> Vec<String> {
    let indent = text.len() - text.trim_start().len();
    let lines = wrap(text.trim_start(), width.saturating_sub(indent + 2).max(20));
    lines
        .into_iter()
        .enumerate()
        .map(|(i, part)| format!("{}{part}", " ".repeat(indent + if i == 0 { 0 } else { 2 })))
        .collect()
}

pub fn shell(command: &str) {
    line(&format!("  {}{command}", style("36", "$ ")));
}

/// What a program said, as it said it.
pub fn output(text: &str) {
    for line_ in text.lines() {
        for part in wrap(line_, WIDTH - INDENT.len()) {
            line(&format!("{INDENT}{part}"));
        }
    }
}

pub fn refusal(e: &DbError) {
    let first = format!("{} {}: {}", e.severity(), e.code().code(), e.message());
    for (i, part) in wrap(&first, WIDTH - INDENT.len()).iter().enumerate() {
        line(&format!("{INDENT}{}", if i == 0 { style("33", part) } else { part.clone() }));
    }
    for (name, value) in [("DETAIL", e.detail()), ("HINT", e.hint())] {
        if let Some(value) = value {
            output(&format!("{name}: {value}"));
        }
    }
}

pub fn table(table: &Table) {
    table_head(table, usize::MAX);
}

/// The first rows of a table, and how many more there are.
pub fn table_head(table: &Table, most: usize) {
    if table.columns.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> =
        table.rows.iter().take(most).map(|r| r.iter().map(|c| c.clone().unwrap_or_default()).collect()).collect();
    let last = table.columns.len() - 1;
    let mut widths: Vec<usize> = table.columns.iter().map(|c| length(c)).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell));
        }
    }
    for width in widths.iter_mut().take(last) {
        *width = (*width).min(WIDEST_CELL);
    }
    // The last column takes what is left, and wraps.
    let before: usize = widths[..last].iter().map(|w| w + 3).sum();
    widths[last] = widths[last].min((WIDTH - INDENT.len()).saturating_sub(before).max(30));
    let put = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(length(cell)))))
            .collect();
        line(format!("{INDENT}{}", padded.join(" │ ")).trim_end());
    };
    put(&table.columns);
    line(&format!("{INDENT}{}", widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>().join("─┼─")));
    for row in &rows {
        let mut cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| cut(cell, *width)).collect();
        for part in wrap(&row[last], widths[last]) {
            cells[last] = part;
            put(&cells);
            cells = vec![String::new(); cells.len()];
        }
    }
    match table.rows.len() - rows.len() {
        0 if rows.is_empty() => line(&format!("{INDENT}(no rows)")),
        0 => {}
        more => line(&format!("{INDENT}… and {more} more")),
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    let text = text.replace('\n', " ");
    match length(&text) > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text,
    }
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut current = String::new();
        for word in paragraph.split(' ') {
            let mut word = word.to_owned();
            if !current.is_empty() && length(&current) + 1 + length(&word) > width {
                lines.push(std::mem::take(&mut current));
            } else if !current.is_empty() {
                current.push(' ');
            }
            while length(&word) > width {
                let head: String = word.chars().take(width).collect();
                word = word.chars().skip(width).collect();
                lines.push(std::mem::take(&mut current) + &head);
            }
            current += &word;
        }
        lines.push(current);
    }
    lines
}
