//! Programs from the registry that steps need. Each is installed under the target directory, in one pinned version,
//! without optimisation: that compiles in half the time, and none of them has much to do.

use std::path::PathBuf;

use crate::{
    program::{Failure, Run as _, cargo, find, target},
    setup::Missing,
};

/// A program from the registry.
pub(crate) struct Tool {
    /// Its package, which has the program's name.
    name: &'static str,
    version: &'static str,
    /// Its features without the default ones, separated by commas; `None` for the default ones.
    features: Option<&'static str>,
    why: &'static str,
}

pub(crate) const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    // Without its web server.
    features: Some(""),
    why: "the pages in docs/ are built as a book",
};
pub(crate) const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", features: None, why: "the dependency tree is checked" };
pub(crate) const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    // The program xz compresses the package.
    features: Some("gzip"),
    why: "a release has a Debian package",
};
pub(crate) const CARGO_CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
    features: None,
    why: "a release has a bill of materials",
};

impl Tool {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The program on the `PATH`, or the one that [`Self::install`] has put under the target directory.
    pub(crate) fn installed(&self) -> Result<Option<PathBuf>, Failure> {
        let own = target()?.join("tools/bin").join(self.name);
        Ok(own.is_file().then_some(own).or_else(|| find(self.name)))
    }

    /// The program.
    ///
    /// # Errors
    /// [`Failure::Missing`] if it is not installed; it is then named on stdout.
    pub(crate) fn needed(&self) -> Result<PathBuf, Failure> {
        self.installed()?.ok_or_else(|| Failure::Missing(vec![self.missing().report()]))
    }

    /// The missing dependency, for reports.
    pub(crate) fn missing(&self) -> Missing {
        Missing { what: self.name, why: self.why, install: format!("cargo {}", self.arguments().join(" ")) }
    }

    /// Installs it under the target directory.
    pub(crate) fn install(&self) -> Result<(), Failure> {
        let mut command = cargo();
        command.args(self.arguments()).args(["--debug", "--root"]).arg(target()?.join("tools"));
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").run()
    }

    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["install", self.name, "--version", self.version, "--locked"];
        if let Some(features) = self.features {
            arguments.push("--no-default-features");
            if !features.is_empty() {
                arguments.extend(["--features", features]);
            }
        }
        arguments
    }
}
