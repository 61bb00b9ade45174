//! The one rule for things that are not installed: with `CI=true` the test fails, elsewhere it prints
//! `SKIPPED <test>: <reason>` and returns.

use std::{
    env,
    path::{Path, PathBuf},
    thread,
};

/// Something a test needs and this machine does not have.
#[derive(Debug)]
pub struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    /// Names what is missing and how to get it.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// Applies the rule for the running test.
    ///
    /// # Panics
    /// With `CI=true`.
    pub fn report(&self) {
        let reason = format!("{} is missing ({})", self.what, self.remedy);
        assert!(!env::var("CI").is_ok_and(|ci| ci == "true"), "{reason}, and CI=true allows no skips");
        println!("SKIPPED {}: {reason}", thread::current().name().unwrap_or("?"));
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
/// [`Missing`], with the Debian `package` that has it.
pub fn program(name: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Missing::new(name, format!("apt-get install {package}")))
}

/// The file that holds a vector shared with the project's other parts, in `../shared/vectors` beside the
/// workspace.
///
/// # Errors
/// [`Missing`] where the folder was not checked out.
pub fn shared_vector(name: &str) -> Result<PathBuf, Missing> {
    let path = workspace().join("../shared/vectors").join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Missing::new(format!("../shared/vectors/{name}"), "it lies beside the workspace"))
    }
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a workspace member")
}
