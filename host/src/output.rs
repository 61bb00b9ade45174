//! Data that leaves: on stdout as one JSON document or text for people, or in a file that is there whole or not at all.
//!
//! JSON names are snake_case and stable.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

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
        let mut stdout = io::stdout().lock();
        match self {
            Self::Text => stdout.write_all(text(value).as_bytes())?,
            Self::Json => {
                serde_json::to_writer_pretty(&mut stdout, value)?;
                stdout.write_all(b"\n")?;
            }
        }
        stdout.flush()
    }
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

/// A file beside `path`, removed unless it takes its place.
fn temporary(builder: &mut tempfile::Builder<'_, '_>, path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    builder.prefix(".sshsm-").tempfile_in(directory)
}

/// Lines of `rows` with their columns aligned, each row ending in a newline.
#[must_use]
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
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
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [["a", "bcd"], ["abc", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    bcd\nabc\n");
    }
}
