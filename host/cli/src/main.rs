//! `sshsm`: the command line of the host library; see [`sshsm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sshsm::cli::run()
}
