//! The emulator of the board `pico` (`tests/pico`): its only dependency is installed in
//! `TARGET_DIR/pico-emulator`, never in the source tree, and linked from there.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use crate::{
    program::{Failure, find, program, root, target},
    setup::{Missing, attempt},
};

/// The folder from which the emulator runs.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    target().map(|target| target.join("pico-emulator"))
}

/// Installs the packages in the lock file, unless they are there.
pub(crate) fn emulator() -> Result<(), Missing> {
    let lack = || Missing {
        what: "the npm package rp2040js",
        why: "the firmware runs on an emulated Pico",
        install: "cargo xtask setup".to_owned(),
    };
    let folder = folder().map_err(|_| lack())?;
    let source = root().join("tests/pico");
    let lock = "package-lock.json";
    let read = |path: PathBuf| fs::read(path).ok();
    let present = || {
        folder.join("node_modules/rp2040js").is_dir()
            && folder.join("emulator/main.mjs").is_file()
            && read(folder.join(lock)) == read(source.join(lock))
    };
    let install = || {
        let link = folder.join("emulator");
        let _ = fs::remove_file(&link);
        fs::create_dir_all(&folder).is_ok()
            && symlink(&source, &link).is_ok()
            && ["package.json", lock]
                .iter()
                .all(|name| fs::copy(source.join(name), folder.join(name)).is_ok())
            && find("npm").is_some_and(|npm| {
                let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
                attempt(program(npm).current_dir(&folder).args(options))
            })
    };
    (present() || install() && present()).then_some(()).ok_or_else(lack)
}
