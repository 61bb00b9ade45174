//! The one rule for missing requirements of a test: the test is skipped by name, or fails if the requirement
//! is mandatory.
//!
//! Anything that can be installed is mandatory with `CI=true`. Files that we may not redistribute
//! (`../shared`) are mandatory where that folder exists, and never elsewhere.
//!
//! The test harness has no way to report a test that finds out by itself that it cannot run, and counts it as
//! passed. The skip is therefore reported on stderr, bypassing the harness's capture, and written to the file
//! that [`SKIPPED_TESTS`] names, from which `cargo xtask test` takes its counts.

use std::{
    env,
    ffi::OsStr,
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
};

/// The environment variable that names the file to which skipped tests are appended, a line each:
/// `PACKAGE::BINARY TEST: REASON`.
pub const SKIPPED_TESTS: &str = "SSHSM_SKIPPED_TESTS";

/// Something a test needs and this machine does not have.
#[derive(Debug)]
pub struct Missing {
    what: String,
    remedy: String,
    required: Required,
}

/// Where a test fails without something.
#[derive(Clone, Copy, Debug)]
enum Required {
    WithCi,
    Everywhere,
    Nowhere,
}

impl Missing {
    /// Names something missing that can be installed, and how.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), required: Required::WithCi }
    }

    /// Names a file of the folder `beside` that is not in the repository: mandatory if that folder exists.
    fn beside(beside: &Path, what: impl Into<String>) -> Self {
        let (required, remedy) = if beside.is_dir() {
            (Required::Everywhere, "the folder exists and must have it")
        } else {
            (Required::Nowhere, "it is next to the workspace, not in the repository")
        };
        Self { what: what.into(), remedy: remedy.into(), required }
    }

    /// Applies the rule for the running test.
    ///
    /// # Panics
    /// If what is missing is mandatory.
    pub fn report(&self) {
        let reason = format!("{} is missing ({})", self.what, self.remedy);
        match self.required {
            Required::WithCi => {
                assert!(
                    !env::var("CI").is_ok_and(|ci| ci == "true"),
                    "{reason}, and CI=true allows no skips"
                );
            }
            Required::Everywhere => panic!("{reason}"),
            Required::Nowhere => {}
        }
        note(env::var_os(SKIPPED_TESTS).as_deref(), &running(), &reason);
    }
}

/// The running test's package, binary and name.
fn running() -> String {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "?".into());
    let binary = env::current_exe().ok();
    let binary = binary.as_deref().and_then(Path::file_stem).and_then(OsStr::to_str).unwrap_or("?");
    // Without the hash that Cargo appends.
    let binary = binary.rsplit_once('-').map_or(binary, |(name, _)| name);
    let current = thread::current();
    format!("{package}::{binary} {}", current.name().unwrap_or("?"))
}

/// Reports that `test` is skipped. `print!` would go to the harness, which hides it for tests that pass.
fn note(file: Option<&OsStr>, test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    let _ = io::stderr().write_all(format!("SKIPPED {line}").as_bytes());
    if let Some(file) = file {
        // In one piece, since tests of other processes write there too.
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("{} names a file that cannot be written: {error}", SKIPPED_TESTS));
    }
}

/// Unwraps what a test needs, or applies the rule for missing things and leaves the test.
#[macro_export]
macro_rules! needs {
    ($found:expr) => {
        match $found {
            Ok(found) => found,
            Err(missing) => return $crate::requirement::Missing::report(&missing),
        }
    };
}

/// Finds a program on the path, or in the places where system daemons live.
///
/// # Errors
/// [`Missing`], with the Debian `package` that provides it.
pub fn program(name: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Missing::new(name, format!("apt-get install {package}")))
}

/// The file with a vector shared with the project's other parts, in `../shared/vectors` next to the
/// workspace.
///
/// # Errors
/// [`Missing`]: a skip if there is no `../shared`, and a failure if it lacks the file.
pub fn shared_vector(name: &str) -> Result<PathBuf, Missing> {
    vector_in(&workspace().join("../shared"), name)
}

/// Like [`shared_vector`], with the folder `shared` instead of `../shared`.
///
/// # Errors
/// Like [`shared_vector`].
pub fn vector_in(shared: &Path, name: &str) -> Result<PathBuf, Missing> {
    let path = shared.join("vectors").join(name);
    if path.is_file() { Ok(path) } else { Err(Missing::beside(shared, format!("../shared/vectors/{name}"))) }
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a workspace member")
}
