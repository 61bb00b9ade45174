//! Reading files: never more than 64 KiB, or the caller's limit, into memory that is cleared afterwards.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use zeroize::Zeroizing;

/// More than any key, template, request or password needs; an RSA key of 16384 bits takes 13 KiB.
const MAX_LENGTH: usize = 64 * 1024;

/// The whole file at `path`.
///
/// # Errors
/// When it cannot be read, or is longer than 64 KiB.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_at_most(path, MAX_LENGTH)
}

/// The whole file at `path`.
///
/// # Errors
/// When it cannot be read, or is longer than `limit` bytes.
pub fn read_at_most(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    limited(File::open(path)?, limit)
}

/// The rest of `file`.
///
/// # Errors
/// Like [`read`].
pub fn read_from(file: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    limited(file, MAX_LENGTH)
}

/// The rest of `file`.
///
/// # Errors
/// When it cannot be read, or is longer than `limit` bytes.
pub fn read_from_at_most(file: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(too_long(limit));
    }
    Ok(bytes)
}

fn too_long(limit: usize) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("longer than {limit} bytes"))
}

fn limited(file: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(bytes.capacity() as u64).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(too_long(limit));
    }
    Ok(bytes)
}

/// The whole file at `path`, which is text.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    text(&read(path)?)
}

/// The bytes as text.
///
/// # Errors
/// [`ErrorKind::InvalidData`] when it is not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> io::Result<Zeroizing<String>> {
    let text = str::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_given_up() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_from(io::repeat(b'a').take(65_536)).unwrap().len(), 65_536);
        assert!(read_from(io::repeat(b'a').take(65_537)).is_err());
    }
}
