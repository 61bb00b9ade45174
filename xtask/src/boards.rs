//! `cargo xtask boards`: every board's real image in its emulator, and nothing else.

use crate::{
    firmware,
    program::{Failure, Run, cargo},
    setup,
    test::{runner, summarise},
};

/// The option that makes the tests thorough.
const ALL: &str = "--all";
/// The variable that tells them: `usb_board::THOROUGH`.
const THOROUGH: &str = "SSHSM_TEST_THOROUGH";
/// The tests that start images.
const TESTS: [&str; 10] = [
    "--package",
    "sshsm-tests",
    "--test",
    "qemu",
    "--test",
    "qemu_authority",
    "--test",
    "qemu_full_store",
    "--test",
    "usb_boards",
];

/// `[--all]`: builds the images and runs the tests that start them; with `--all` each test tries everything
/// it can, which takes minutes.
pub(crate) fn chore(arguments: &[&str]) -> Result<(), Failure> {
    let all = match arguments {
        [] => false,
        [ALL] => true,
        _ => return Err(Failure::Usage(format!("boards accepts only {ALL}"))),
    };
    let ready = setup::run()?;
    let toolchain = setup::bare_metal().map_err(|missing| Failure::Missing(vec![missing.report()]))?;
    firmware::all(toolchain)?;
    cargo().args(["build", "--workspace"]).run()?;
    let mut tests = runner(&ready, &TESTS)?;
    if all {
        tests.env(THOROUGH, "1");
    }
    summarise(tests, &[])
}
