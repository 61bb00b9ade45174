//! Data that leaves: on stdout as one JSON document or text for people.
//!
//! JSON names are snake_case and stable.

use std::{
    error::Error,
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, Serializer};
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
        let document = match self {
            Self::Text => text(value),
            Self::Json => serde_json::to_string_pretty(value)? + "\n",
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(document.as_bytes())?;
        stdout.flush()
    }
}

/// A path as people are shown it: on one line, and without characters that turn or hide text.
#[must_use]
pub fn shown(path: &Path) -> Printable<'_> {
    Printable(path.as_os_str().as_encoded_bytes())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path in a JSON document, which has no way to write bytes that are not UTF-8: each is U+FFFD there.
///
/// # Errors
/// When the document cannot be written.
pub fn lossy<S: Serializer>(path: &(impl AsRef<Path> + ?Sized), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.as_ref().display())
}

/// Says something on stderr; whether anybody listens does not matter.
pub fn talk(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error and its causes on one line.
#[must_use]
pub fn line(error: &(dyn Error + 'static)) -> String {
    [vec![error.to_string()], causes(error)].concat().join(": ")
}

/// The causes of an error, without those that the message before already ends with.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string) {
        if !told.ends_with(&cause) {
            causes.push(cause.clone());
            told = cause;
        }
    }
    causes
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
        // By hand: a width of the formatter's ends at 65,535 characters, and what is printed may have come from anywhere.
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
    fn a_path_is_shown_on_one_line() {
        assert_eq!(shown(Path::new("/tmp/a b/\u{e4}")).to_string(), "/tmp/a b/\u{e4}");
        assert_eq!(shown(Path::new("\x1b[31m\n")).to_string(), "\\u{1b}[31m\\n");
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
