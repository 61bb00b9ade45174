//! The Python in which YubiHSM's own client library is installed.

use crate::{
    process::run,
    requirement::{Missing, workspace},
};
use std::{env, path::PathBuf, process::Command};

/// A Python that has the package `yubihsm`: `SSHSM_TEST_PYTHON`, or the one that the test set-up made.
///
/// # Errors
/// [`Missing`] where neither has it.
pub fn python() -> Result<PathBuf, Missing> {
    let python = env::var_os("SSHSM_TEST_PYTHON")
        .map_or_else(|| workspace().join("target/venv/bin/python"), PathBuf::from);
    let missing = || {
        let what = format!("a Python with the package yubihsm[http] at {}", python.display());
        Missing::new(what, "cargo xtask setup, or set SSHSM_TEST_PYTHON")
    };
    if !python.is_file() {
        return Err(missing());
    }
    let import = run(Command::new(&python).args(["-c", "import yubihsm.backends.http"]));
    if import.status.success() { Ok(python) } else { Err(missing()) }
}
