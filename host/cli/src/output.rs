//! Data that leaves: on stdout as one JSON document or text for people.
//!
//! JSON names are snake_case and stable.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde::Serialize;
use sshsm_ca::redact::Redacted;
pub use sshsm_ca::{
    causes::{causes, line},
    path::{lossy, shown},
};
use sshsm_protocol::ssh::Printable;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl Format {
    /// Prints `value` as JSON, or the text that `text` makes of it, on stdout.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        // Whole before its first byte leaves: half a document is worse than none.
        match self {
            Self::Text => print_text(&text(value)),
            Self::Json => print_text(&(json_escaped(&serde_json::to_string_pretty(value)?) + "\n")),
        }
    }
}

/// Prints text on stdout, with what would steer a terminal escaped.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(escaped(text).as_bytes())?;
    stdout.flush()
}

/// Prints on stdout, line by line, as [`print_text`] does.
#[derive(Debug, Default)]
pub struct TextOut(Vec<u8>);

impl Write for TextOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if let Some(end) = self.0.iter().rposition(|&byte| byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            let lines = std::mem::replace(&mut self.0, rest);
            print_text(&String::from_utf8_lossy(&lines))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        print_text(&String::from_utf8_lossy(&std::mem::take(&mut self.0)))
    }
}

/// Prints `value` on stdout as JSON on one line.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_json_line<T: Serialize>(value: &T) -> io::Result<()> {
    print_text(&(json_escaped(&serde_json::to_string(value)?) + "\n"))
}

/// Prints rows on stdout as CSV with a heading. A cell that a spreadsheet would interpret as a formula is
/// prefixed with an apostrophe.
///
/// # Errors
/// When stdout cannot be written, or a row cannot be serialized.
pub fn print_csv<T: Serialize>(rows: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut plain = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| plain.serialize(row)).map_err(io::Error::other)?;
    let plain = plain.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    let mut guarded = csv::Writer::from_writer(Vec::new());
    for record in csv::ReaderBuilder::new().has_headers(false).from_reader(plain.as_slice()).records() {
        let record = record.map_err(io::Error::other)?;
        guarded
            .write_record(record.iter().map(|cell| cell_text(cell).into_owned()))
            .map_err(io::Error::other)?;
    }
    let guarded = guarded.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    print_text(str::from_utf8(&guarded).map_err(io::Error::other)?)
}

/// A cell that no spreadsheet computes: numbers stay as they are.
fn cell_text(cell: &str) -> Cow<'_, str> {
    let formula = cell
        .trim_start_matches(' ')
        .starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if formula && cell.parse::<i64>().is_err() { format!("'{cell}").into() } else { cell.into() }
}

/// Whether a terminal shows a character as itself, on its line and from left to right.
fn is_plain(character: char) -> bool {
    match character {
        '\n' | '\t' | ' '..='~' => true,
        character => !character.is_ascii() && character.escape_debug().count() == 1,
    }
}

/// Text with every character that would control a terminal, or reverse or hide neighbouring text, written as
/// `\u{…}`. Line ends and tabs are kept.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return text.into();
    }
    let escape = |character: char| match is_plain(character) {
        true => character.to_string(),
        false => character.escape_unicode().to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

/// An equivalent JSON document without those characters, which can occur only in its strings.
fn json_escaped(document: &str) -> String {
    let mut units = [0; 2];
    let mut text = String::with_capacity(document.len());
    for character in document.chars() {
        match is_plain(character) {
            true => text.push(character),
            false => {
                text.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    text
}

/// Names as a list in which no names differ from a name that is empty, and a name with a comma from two
/// names.
#[must_use]
pub fn names<T: AsRef<str>>(names: &[T]) -> String {
    let name = |name: &T| {
        let name = name.as_ref();
        let plain = !matches!(name, "" | "none") && !name.contains([',', '"', ' ', '(']);
        let shown = Printable(name.as_bytes()).to_string();
        if plain { shown } else { format!("\"{shown}\"") }
    };
    names.iter().map(name).collect::<Vec<_>>().join(",")
}

/// Shown instead of [`names`] if there are none.
pub const NO_PRINCIPALS: &str = "(no principals)";

/// Principals in words.
#[must_use]
pub fn principals<T: AsRef<str>>(principals: &[T]) -> String {
    if principals.is_empty() { NO_PRINCIPALS.to_owned() } else { names(principals) }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Prints a message on stderr, with secrets in addresses removed and terminal control characters escaped; a
/// closed stderr is ignored.
pub fn talk(text: impl std::fmt::Display) {
    let text = Redacted(&text.to_string()).to_string();
    let _ = writeln!(io::stderr().lock(), "{}", escaped(&text));
}

/// A number of things, in words: `one` when it is 1, otherwise `many`.
#[must_use]
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Lines of `rows` with their columns aligned, each row ending in a newline.
#[must_use]
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        // Padded by hand: the formatter's width is limited to 65,535 characters, and the text may come from
        // anywhere.
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', 2 + width.saturating_sub(cell.chars().count())));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_once_and_nothing_else_is() {
        let plain = "Zoë 日本 a\tb\n pkcs11:… \\u{1b} \"x\"";
        assert_eq!(escaped(plain), plain);
        let odd = "\u{1b}]0;x\u{7}\u{202e}\r\u{9b}2J\u{7f}\u{200b}\u{feff}";
        let shown = "\\u{1b}]0;x\\u{7}\\u{202e}\\u{d}\\u{9b}2J\\u{7f}\\u{200b}\\u{feff}";
        assert_eq!(escaped(odd), shown);
        assert_eq!(escaped(&escaped(odd)), shown);
        let document = serde_json::to_string(&[odd, "\u{e0001}", plain]).unwrap();
        let safe = json_escaped(&document);
        assert!(safe.chars().all(is_plain), "{safe}");
        let back: [String; 3] = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, [odd, "\u{e0001}", plain]);
    }

    #[test]
    fn no_cell_is_a_formula() {
        for formula in ["=1+1", "+1 2", "-cmd|x", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1"] {
            assert_eq!(cell_text(formula), format!("'{formula}"));
        }
        for plain in ["", "alice", "-7", "+5", "a=b", "'=1", "2026-01-01"] {
            assert_eq!(cell_text(plain), plain);
        }
    }

    #[test]
    fn no_principals_one_called_none_and_a_comma_are_told_apart() {
        assert_eq!(principals::<&str>(&[]), "(no principals)");
        assert_eq!(principals(&["none"]), "\"none\"");
        assert_eq!(principals(&["a", "b"]), "a,b");
        assert_eq!(principals(&["a,b"]), "\"a,b\"");
        assert_eq!(principals(&["(no principals)", "", "x\u{1b}"]), "\"(no principals)\",\"\",x\\u{1b}");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [["a", "bcd"], ["abc", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    bcd\nabc\n");
    }

    /// The width of a formatter has 16 bits.
    #[test]
    fn a_cell_may_be_of_any_length() {
        for length in [65_535, 65_536, 200_000] {
            let rows = [[String::new(), "end".to_owned()], ["x".repeat(length), "end".to_owned()]];
            let text = columns(&rows);
            assert!(text.lines().all(|line| line.len() == length + 5), "{length}");
        }
    }
}
