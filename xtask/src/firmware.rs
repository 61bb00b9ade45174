//! `cargo xtask firmware`: the images, as ELF for debuggers and emulators, as UF2 for boot loaders, and as
//! stored in flash, for comparison with what a device reports.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bare_metal::Toolchain,
    board::{self, BOARDS, Board},
    image::Image,
    program::{Failure, Run, cargo, options, root, target},
    setup, uf2,
};

/// Makes a device that knows nothing that YubiHSM 2 does not.
const STRICT: &str = "--strict-yubihsm2";
/// The features that cargo gets for a board. Every board is built on `sshsm-board`, which includes the
/// firmware.
const FEATURES: &[&str] = &[];
const STRICT_FEATURES: &[&str] =
    &["--package", "sshsm-board", "--features", "sshsm-firmware/strict-yubihsm2"];

/// `[--board NAME] [--out DIR] [--strict-yubihsm2]`: one board's image, or every board's.
pub(crate) fn chore(arguments: &[&str]) -> Result<(), Failure> {
    let (flags, arguments): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| **argument == STRICT);
    let features = if flags.is_empty() { FEATURES } else { STRICT_FEATURES };
    let [name, out] = options(&arguments, ["--board", "--out"])?;
    let out = out.map_or_else(folder, |out| Ok(PathBuf::from(out)))?;
    let boards = match name {
        Some(name) => vec![board::named(name)?],
        None => BOARDS.to_vec(),
    };
    let toolchain = setup::bare_metal().map_err(|missing| Failure::Missing(vec![missing.report()]))?;
    boards.into_iter().try_for_each(|board| write(toolchain, board, features, &out))
}

/// Every board's image, where the tests look for them.
pub(crate) fn all(toolchain: Toolchain) -> Result<(), Failure> {
    let out = folder()?;
    BOARDS.into_iter().try_for_each(|board| write(toolchain, board, FEATURES, &out))
}

/// The boards' workspace.
fn workspace() -> PathBuf {
    root().join("firmware/boards")
}

/// The checks that need no emulator: format, the parts that a desktop can test, and lints if the toolchain
/// has them.
pub(crate) fn check(toolchain: Toolchain) -> Result<(), Failure> {
    cargo().current_dir(workspace()).args(["fmt", "--all", "--check"]).run()?;
    cargo()
        .current_dir(workspace())
        .args(["test", "--quiet", "--locked", "--package", "sshsm-board", "--target-dir"])
        .arg(target()?.join("boards"))
        .run()?;
    if toolchain == Toolchain::Own {
        BOARDS.into_iter().try_for_each(|board| {
            let (mut clippy, _) = toolchain.board("clippy", board)?;
            clippy
                .current_dir(workspace())
                .args(["--release", "--locked", "--package", board.package, "--package", "sshsm-board"])
                .args(["--", "-D", "warnings"])
                .run()
        })?;
    }
    Ok(())
}

/// The default folder for images.
fn folder() -> Result<PathBuf, Failure> {
    target().map(|target| target.join("firmware"))
}

/// Builds a board's binary in its released form and returns its ELF file's path.
pub(crate) fn build(toolchain: Toolchain, board: &Board, binary: &str) -> Result<PathBuf, Failure> {
    build_with(toolchain, board, binary, FEATURES)
}

fn build_with(
    toolchain: Toolchain,
    board: &Board,
    binary: &str,
    features: &[&str],
) -> Result<PathBuf, Failure> {
    let (mut cargo, profile) = toolchain.board("build", board)?;
    cargo
        .current_dir(workspace())
        .args(["--release", "--locked", "--package", board.package, "--bin", binary])
        .args(features)
        .run()?;
    Ok(profile.join(binary))
}

/// Builds a board and writes `BOARD.elf`, `BOARD.bin` and, if its boot loader accepts it, `BOARD.uf2`.
fn write(toolchain: Toolchain, board: &Board, features: &[&str], out: &Path) -> Result<(), Failure> {
    let elf = build_with(toolchain, board, board.name, features)?;
    fs::create_dir_all(out).map_err(Failure::System)?;
    let named = |ending: &str| out.join(format!("{}.{ending}", board.name));
    let image = Image::read(&elf)?;
    fs::copy(&elf, named("elf")).map_err(Failure::System)?;
    let (start, bytes) = image.flat();
    if image.hashed() != Some((start, bytes.len())) {
        return Err(Failure::Refused(format!(
            "{}: the image has {} bytes at {start:#x}; its firmware would hash {:x?}",
            board.name,
            bytes.len(),
            image.hashed()
        )));
    }
    fs::write(named("bin"), &bytes).map_err(Failure::System)?;
    let ending = match board::boot_loader(board) {
        Some(boot_loader) => {
            fs::write(named("uf2"), uf2::write(boot_loader.family, start, &bytes))
                .map_err(Failure::System)?;
            "uf2"
        }
        None => "elf",
    };
    println!("{}: {} bytes of flash, {} of RAM", named(ending).display(), bytes.len(), image.variables());
    Ok(())
}
