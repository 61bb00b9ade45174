//! The project's chores, `cargo xtask CHORE`: what a contributor and CI run, word for word the same.
//!
//! Talk about progress goes to stdout beside the output of the programs that run; what stopped a chore goes to
//! stderr, and the exit code is 0 only when everything that was asked for was done.

mod bare_metal;
mod program;
mod setup;
mod suite;
mod test;

use std::{env, process::ExitCode};

use program::Failure;

struct Chore {
    name: &'static str,
    summary: &'static str,
    run: fn() -> Result<(), Failure>,
}

const CHORES: [Chore; 3] = [
    Chore {
        name: "setup",
        summary: "install what the tests need and say what is missing",
        run: setup::chore,
    },
    Chore {
        name: "bare-metal",
        summary: "build sshsm-protocol and sshsm-firmware for thumbv8m.main-none-eabihf",
        run: bare_metal::chore,
    },
    Chore { name: "test", summary: "everything CI runs: setup, checks, builds, all tests", run: test::chore },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["help" | "--help" | "-h"] => {
            println!("{}", help());
            ExitCode::SUCCESS
        }
        [name] => match CHORES.iter().find(|chore| chore.name == *name) {
            Some(chore) => (chore.run)().map_or_else(
                |failure| {
                    eprintln!("xtask: {failure}");
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            ),
            None => misuse(&format!("no chore is called {name:?}")),
        },
        [] => misuse("a chore is missing"),
        [_, extra, ..] => misuse(&format!("a chore takes no arguments, {extra:?} is too much")),
    }
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask CHORE\n\nChores:");
    for Chore { name, summary, .. } in &CHORES {
        text += &format!("\n  {name:<12}{summary}");
    }
    text + "\n\nWith CI=true in the environment a missing dependency is a failure, never a skip."
}

fn misuse(reason: &str) -> ExitCode {
    eprintln!("xtask: {reason}\n\n{}", help());
    ExitCode::from(2)
}
