//! `cargo xtask emulate`: a board without a board. QEMU names the serial port on its first line.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{self, PathBuf},
};

use crate::{
    board, firmware,
    program::{Failure, find, options, program, target},
    setup,
};

/// The only board with an emulator that is a Debian package.
pub(crate) const BOARD: &str = "qemu";
/// The emulator's arguments, except for the image and the serial port; the tests use the same ones.
pub(crate) const ARGUMENTS: &str = include_str!("../../firmware/boards/qemu/emulator.args");

/// `[--board qemu] [--device DIR]`: builds the image and becomes its emulator. The directory is the device:
/// its flash, root key and serial number, created if missing.
pub(crate) fn chore(arguments: &[&str]) -> Result<(), Failure> {
    let [name, device] = options(arguments, ["--board", "--device"])?;
    if name.is_some_and(|name| name != BOARD) {
        return Err(Failure::Usage(format!("only the board {BOARD} can be emulated")));
    }
    let device = match device {
        Some(device) => path::absolute(device).map_err(Failure::System)?,
        None => target()?.join("device"),
    };
    let toolchain = setup::bare_metal().map_err(|missing| Failure::Missing(vec![missing.report()]))?;
    let image = firmware::build(toolchain, board::named(BOARD)?, BOARD)?;
    fs::create_dir_all(&device).map_err(Failure::System)?;
    println!("the device is in {}; it has a button while the file `button` is there", device.display());
    let reason = program(emulator()?)
        .current_dir(device)
        .args(ARGUMENTS.split_whitespace())
        .args(["-serial", "pty", "-kernel"])
        .arg(image)
        .exec();
    Err(Failure::System(reason))
}

/// The emulator's path.
pub(crate) fn emulator() -> Result<PathBuf, Failure> {
    find("qemu-system-arm").ok_or_else(|| {
        println!(
            "missing: qemu-system-arm (emulates a board); install with: apt-get install qemu-system-arm"
        );
        Failure::Missing(vec!["qemu-system-arm"])
    })
}
