//! Data that leaves: on stdout as one JSON document or text for people, or in a file that is there whole or not at all.
//!
//! JSON names are snake_case and stable.

use std::{
    fs,
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

/// Writes a file that others may read: under another name first, so that nobody ever sees half of it.
///
/// # Errors
/// When the file or its directory cannot be written; an earlier file is then still there.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // What is no file, such as /dev/null, is written to and never replaced.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return fs::write(path, content);
    }
    let mut builder = tempfile::Builder::new();
    // As for any new file, the umask takes off what others may not have.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = temporary(&mut builder, path)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all; it is on the disk when this returns.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn write_secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // A temporary file has mode 0600 from its first byte on.
    let mut file = temporary(&mut tempfile::Builder::new(), path)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Writes a new file that only its owner may read, whole or not at all; it is on the disk when this returns.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where something is already; otherwise when the file cannot be written.
pub fn new_secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = temporary(&mut tempfile::Builder::new(), path)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    fs::File::open(directory_of(path))?.sync_all()
}

/// Removes from a directory what a process that was killed left of [`write_file`] and [`write_secret_file`].
///
/// # Errors
/// When the directory cannot be read, or a file in it not removed.
pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
        if random.is_some_and(|random| random.len() == 6 && random.iter().all(u8::is_ascii_alphanumeric))
            && entry.file_type()?.is_file()
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the names of unfinished files begin with; six random letters and digits follow.
const PREFIX: &str = ".sshsm-";

/// A file beside `path`, removed unless it takes its place.
fn temporary(builder: &mut tempfile::Builder<'_, '_>, path: &Path) -> io::Result<tempfile::NamedTempFile> {
    builder.prefix(PREFIX).rand_bytes(6).tempfile_in(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        write_file(&path, b"first").unwrap();
        write_file(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write_file(&directory.path().join("none/x"), b"").is_err());
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        write_file(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(write_file(directory.path(), b"x").is_err());
        assert!(directory.path().is_dir());
    }

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
