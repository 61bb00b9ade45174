//! The project's chores, `cargo xtask CHORE`: contributors and CI run exactly the same.
//!
//! Progress goes to stdout together with the output of the programs that run; the reason why a chore stopped
//! goes to stderr, and the exit code is 0 only when everything requested was done.

mod bare_metal;
mod board;
mod boards;
mod book;
mod ct;
mod cycles;
mod dist;
mod emulate;
mod firmware;
mod footprint;
mod fuzz;
mod image;
mod pico;
mod program;
mod setup;
mod suite;
mod summary;
mod test;
mod tool;
mod uf2;

use std::{env, process::ExitCode};

use program::Failure;

struct Chore {
    name: &'static str,
    summary: &'static str,
    /// Its arguments, for the help; empty if it has none.
    arguments: &'static str,
    run: fn(&[&str]) -> Result<(), Failure>,
}

const CHORES: [Chore; 12] = [
    Chore {
        name: "setup",
        summary: "install what the tests need and say what is missing",
        arguments: "",
        run: |_| setup::chore(),
    },
    Chore {
        name: "bare-metal",
        summary: "build sshsm-protocol and sshsm-firmware for thumbv8m.main-none-eabihf",
        arguments: "",
        run: |_| bare_metal::chore(),
    },
    Chore {
        name: "firmware",
        summary: "build the boards' images, ELF and UF2, into target/firmware",
        arguments: "[--board NAME] [--out DIR] [--strict-yubihsm2]",
        run: firmware::chore,
    },
    Chore {
        name: "emulate",
        summary: "run the board qemu's image in its emulator, on a pseudo-terminal",
        arguments: "[--board qemu] [--device DIR]",
        run: emulate::chore,
    },
    Chore {
        name: "boards",
        summary: "run every board's image in its emulator; with --all for minutes",
        arguments: "[--all]",
        run: boards::chore,
    },
    Chore {
        name: "footprint",
        summary: "flash and memory of the boards' images, as a table",
        arguments: "",
        run: |_| footprint::chore(),
    },
    Chore {
        name: "cycles",
        summary: "what signatures and certificates take, counted in the emulator, as a table",
        arguments: "",
        run: |_| cycles::chore(),
    },
    Chore {
        name: "fuzz",
        summary: "run the fuzz targets, a minute each; needs cargo-fuzz",
        arguments: "[--minutes N] [--target T]",
        run: fuzz::chore,
    },
    Chore {
        name: "ct",
        summary: "check that no branch and no address depends on a secret; needs valgrind",
        arguments: "",
        run: |_| ct::chore(),
    },
    Chore {
        name: "book",
        summary: "build docs/ as a book into target/book and check its links; needs mdbook",
        arguments: "",
        run: |_| book::chore(),
    },
    Chore {
        name: "dist",
        summary: "make a release: archive, Debian package, bill of materials, checksums; --twice builds and compares two",
        arguments: "[--twice]",
        run: dist::chore,
    },
    Chore {
        name: "test",
        summary: "everything CI runs: setup, checks, builds, all tests",
        arguments: "",
        run: |_| test::chore(),
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["help" | "--help" | "-h"] => {
            println!("{}", help());
            ExitCode::SUCCESS
        }
        [name, arguments @ ..] => match CHORES.iter().find(|chore| chore.name == *name) {
            Some(chore) if chore.arguments.is_empty() && !arguments.is_empty() => {
                misuse(&format!("{name} takes no arguments"))
            }
            Some(chore) => match (chore.run)(arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(Failure::Usage(reason)) => misuse(&reason),
                Err(failure) => {
                    eprintln!("xtask: {failure}");
                    ExitCode::FAILURE
                }
            },
            None => misuse(&format!("no chore is called {name:?}")),
        },
        [] => misuse("a chore is missing"),
    }
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask CHORE\n\nChores:");
    for Chore { name, summary, arguments, .. } in &CHORES {
        text += &format!("\n  {name:<12}{summary}");
        if !arguments.is_empty() {
            text += &format!("\n  {:<12}{arguments}", "");
        }
    }
    text + "\n\nWith CI=true in the environment a missing dependency is a failure, never a skip."
}

fn misuse(reason: &str) -> ExitCode {
    eprintln!("xtask: {reason}\n\n{}", help());
    ExitCode::from(2)
}
