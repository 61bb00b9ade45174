//! The Python in which YubiHSM's own client library and the boards' emulator are installed.

use crate::{
    process::run,
    requirement::{Missing, workspace},
};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A Python with the package `yubihsm`: `SSHSM_TEST_PYTHON`, or the one that the test set-up made.
///
/// # Errors
/// [`Missing`] if neither has it.
pub fn python() -> Result<PathBuf, Missing> {
    with_package("yubihsm[http]", "yubihsm.backends.http")
}

/// Like [`python`], with the package `unicorn`, on which boards are emulated.
///
/// # Errors
/// [`Missing`] if neither has it.
pub fn emulator_python() -> Result<PathBuf, Missing> {
    with_package("unicorn", "unicorn")
}

fn with_package(package: &str, module: &str) -> Result<PathBuf, Missing> {
    let python = env::var_os("SSHSM_TEST_PYTHON")
        .map_or_else(|| workspace().join("target/venv/bin/python"), PathBuf::from);
    let missing = || {
        let what = format!("a Python with the package {package} at {}", python.display());
        Missing::new(what, "cargo xtask setup, or set SSHSM_TEST_PYTHON")
    };
    if !python.is_file() {
        return Err(missing());
    }
    let import = run(Command::new(&python).args(["-c", &format!("import {module}")]));
    if import.status.success() { Ok(python) } else { Err(missing()) }
}

/// Runs classes of tests of `python/yubihsm_client.py` against the factory-new device at `url`; `vector` is
/// the file of the hardware's vector.
///
/// # Panics
/// When one of them fails, or none ran.
pub fn run_client(python: &Path, url: &str, classes: &[&str], vector: Option<&Path>) {
    let mut command = Command::new(python);
    command
        .arg("-B")
        .arg(workspace().join("tests/python/yubihsm_client.py"))
        .arg("--verbose")
        .args(classes)
        .env("SSHSM_TEST_URL", url);
    if let Some(vector) = vector {
        command.env("SSHSM_TEST_VECTOR", vector);
    }
    let finished = run(&mut command).success();
    print!("{}", finished.stderr);
    assert!(!finished.stderr.contains("Ran 0 tests") && !finished.stderr.contains("skipped"), "{finished}");
}
