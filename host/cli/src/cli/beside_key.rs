//! Files beside a key: their names, and writing them.

#[cfg(unix)]
use std::os::unix::ffi::OsStrExt as _;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use sshsm_ca::files::{self, Kind, Replace};

use super::error::FileError;

/// ssh-keygen's naming: `.pub`, or the ending of a request's name, is removed, and the suffix appended.
pub(super) fn beside(key: &Path, suffix: &str) -> PathBuf {
    const ENDINGS: [&str; 5] = ["-cert.timed.req", "-cert.req", ".timed.req", ".req", ".pub"];
    let base = |ending: &&str| {
        let name = without(key.file_name()?, ending)?;
        (!name.is_empty()).then(|| key.with_file_name(name))
    };
    let mut path = ENDINGS.iter().find_map(base).unwrap_or_else(|| key.to_owned()).into_os_string();
    path.push(suffix);
    path.into()
}

/// The name without its ending, if it has it. On Unix a name need not be UTF-8.
pub(super) fn without<'n>(name: &'n OsStr, ending: &str) -> Option<&'n OsStr> {
    #[cfg(unix)]
    return name.as_bytes().strip_suffix(ending.as_bytes()).map(OsStr::from_bytes);
    #[cfg(not(unix))]
    return name.to_str()?.strip_suffix(ending).map(OsStr::new);
}

pub(super) fn write(path: &Path, content: &[u8], kind: Kind, replace: Replace) -> Result<(), FileError> {
    files::write(path, content, kind, replace).map_err(|source| FileError::write(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_named_as_ssh_keygen_names_them() {
        for (key, certificate) in [
            ("id.pub", "id-cert.pub"),
            ("a/b.c.pub", "a/b.c-cert.pub"),
            ("id", "id-cert.pub"),
            ("d/id-cert.req", "d/id-cert.pub"),
            ("id-cert.timed.req", "id-cert.pub"),
            (".pub", ".pub-cert.pub"),
        ] {
            assert_eq!(beside(Path::new(key), "-cert.pub"), Path::new(certificate));
        }
    }
}
