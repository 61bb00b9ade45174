//! Paths as people and programs are shown them.

use std::path::Path;

use serde::Serializer;
use sshsm_protocol::ssh::Printable;

/// A path as people are shown it: on one line, and without characters that turn or hide text.
#[must_use]
pub fn shown(path: &Path) -> Printable<'_> {
    Printable(path.as_os_str().as_encoded_bytes())
}

/// A path in a JSON document, which has no way to write bytes that are not UTF-8: each is U+FFFD there.
///
/// # Errors
/// When the document cannot be written.
pub fn lossy<S: Serializer>(path: &(impl AsRef<Path> + ?Sized), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.as_ref().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_on_one_line() {
        assert_eq!(shown(Path::new("/tmp/a b/\u{e4}")).to_string(), "/tmp/a b/\u{e4}");
        assert_eq!(shown(Path::new("\x1b[31m\n")).to_string(), "\\u{1b}[31m\\n");
    }
}
