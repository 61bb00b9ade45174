//! The test suites that YubiHSM clients ship in their packages. They come whole from the registries, stay
//! unchanged in `TARGET_DIR/suites`, and are built here if necessary, so that the tests that run them take a
//! bounded time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    program::{Failure, Run, cargo, program, target},
    setup::{Missing, YUBIHSM, attempt},
};

/// The Rust client, and the features its tests are built with: HTTP instead of a mock, and all commands.
const RUST_CLIENT: (&str, &str) = ("yubihsm", "0.42.1");
const RUST_FEATURES: &str = "http,secp256k1,untested";

/// The folder of the suites: `NAME-VERSION` each. The Rust client's has the same name as the Python client's,
/// so it is prefixed with `rust-`.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    target().map(|target| target.join("suites"))
}

/// Unpacks the Python client's source distribution, which has its device test suite.
pub(crate) fn python_client(python: &Path) -> Result<(), Missing> {
    let (_, version) = YUBIHSM;
    let name = format!("yubihsm-{version}");
    let lack = || Missing {
        what: "the source distribution of the Python package yubihsm",
        why: "its device test suite is run against the simulator",
        install: "cargo xtask setup".to_owned(),
    };
    let folder = folder().map_err(|_| lack())?;
    let suite = folder.join(&name);
    let present = || suite.join("tests/device/conftest.py").is_file();
    if !present() {
        let _ = fs::create_dir_all(&folder);
        let download =
            ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary=:all:"];
        let _ = attempt(
            program(python)
                .args(["-m", "pip"])
                .args(download)
                .arg("--dest")
                .arg(&folder)
                .arg(format!("yubihsm=={version}")),
        ) && attempt(
            program(python)
                .args(["-m", "tarfile", "-e"])
                .args([&folder.join(format!("{name}.tar.gz")), &folder]),
        );
    }
    present().then_some(()).ok_or_else(lack)
}

/// Copies the Rust client's package out of Cargo's registry and builds its tests with the versions of its own lock file.
pub(crate) fn rust_client() -> Result<(), Missing> {
    let (name, version) = RUST_CLIENT;
    let lack = || Missing {
        what: "the Rust package yubihsm with its tests built",
        why: "its integration tests are run against the simulator",
        install: "cargo xtask setup".to_owned(),
    };
    let folder = folder().map_err(|_| lack())?;
    let suite = folder.join(format!("rust-{name}-{version}"));
    if !suite.join("Cargo.toml").is_file() {
        let package = package(&format!("{name}-{version}")).ok_or_else(lack)?;
        // A truncated copy must not be mistaken for the package.
        let unfinished = folder.join("unfinished");
        let _ = fs::create_dir_all(&folder);
        let _ = fs::remove_dir_all(&unfinished);
        let _ = attempt(program("cp").arg("-R").args([&package, &unfinished]))
            && fs::rename(&unfinished, &suite).is_ok();
    }
    let build = || {
        let mut command = cargo();
        command
            .current_dir(&suite)
            .args(["test", "--quiet", "--locked", "--no-run", "--features", RUST_FEATURES, "--target-dir"])
            .arg(suite.join("target"));
        command
    };
    // Its warnings do not concern us; its errors do.
    let built = suite.is_dir() && (build().succeeds() || attempt(&mut build()));
    built.then_some(()).ok_or_else(lack)
}

/// The folder into which Cargo unpacked a dependency of this workspace.
fn package(name: &str) -> Option<PathBuf> {
    let metadata = cargo().args(["metadata", "--quiet", "--format-version=1", "--locked"]).answer()?;
    manifest(&metadata, name).and_then(Path::parent).map(Path::to_path_buf)
}

/// The path of `NAME-VERSION/Cargo.toml` in Cargo's metadata.
fn manifest<'a>(metadata: &'a str, name: &str) -> Option<&'a Path> {
    let end = format!("/{name}/Cargo.toml");
    metadata.split('"').find(|text| text.ends_with(&end)).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_its_manifest() {
        let metadata = r#"{"manifest_path":"/r/my-yubihsm-0.42.1/Cargo.toml"},{"manifest_path":"/r/yubihsm-0.42.1/Cargo.toml"}"#;
        assert_eq!(manifest(metadata, "yubihsm-0.42.1"), Some(Path::new("/r/yubihsm-0.42.1/Cargo.toml")));
        assert_eq!(manifest(metadata, "yubihsm-0.42.2"), None);
    }

    #[test]
    fn a_python_that_fails_leaves_the_suite_missing() {
        // Nothing is unpacked by `false`, so a suite that is there was there before.
        let there = folder().unwrap().join(format!("yubihsm-{}/tests", YUBIHSM.1)).is_dir();
        assert_eq!(python_client(Path::new("/bin/false")).is_ok(), there);
    }
}
