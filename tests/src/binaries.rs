//! The programs under test, `sshsm` and `sshsm-sim`, of the same profile as the test that runs them. Cargo
//! tells a test only about its own package's binaries, so they are located next to the test executable and
//! built when they are missing or older than one of their sources.

use crate::requirement::workspace;
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The host tool, isolated from the user who runs the tests: no variables, no configuration file, and no
/// ledger.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn sshsm() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PATH.get_or_init(|| up_to_date("sshsm")));
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SSHSM_")) {
        command.env_remove(name);
    }
    command.env("SSHSM_CONFIG", "/dev/null").env("SSHSM_LEDGER", "none");
    command
}

/// The simulator with the YubiHSM connector's interface.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn sshsm_sim() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("sshsm-sim"))
}

fn up_to_date(name: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let executable = env::current_exe().expect("a test knows its own path");
    let directory = executable.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    let binary = directory.join(name);
    if is_stale(&binary) {
        // Test processes run side by side; one builds, the others find its work done.
        let lock = File::create(directory.join(".sshsm-tests-build")).expect("the target folder is writable");
        lock.lock().expect("the target folder can be locked");
        if is_stale(&binary) {
            build(directory);
        }
    }
    assert!(binary.is_file(), "{} is not there after a build", binary.display());
    binary
}

fn build(directory: &Path) {
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--quiet", "--bin", "sshsm", "--bin", "sshsm-sim", "--profile", profile])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
}

/// Whether the binary is missing, or a file in Cargo's dependency list for it is newer.
fn is_stale(binary: &Path) -> bool {
    let modified = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let Some(built) = modified(binary) else { return true };
    let Ok(list) = fs::read_to_string(binary.with_extension("d")) else { return true };
    let Some((_, sources)) = list.split_once(": ") else { return true };
    // A space inside a path is written as backslash and space.
    sources
        .replace("\\ ", "\0")
        .split_whitespace()
        .any(|source| modified(Path::new(&source.replace('\0', " "))).is_none_or(|time| time > built))
}
