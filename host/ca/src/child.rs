//! Programs that this one starts: they are given none of its secrets.

use std::{ffi::OsStr, process::Command};

/// The variables of the environment that have a secret in them: passwords, passphrases and PINs.
pub const SECRETS: [&str; 5] =
    ["SSHSM_PASSWORD", "SSHSM_NEW_PASSWORD", "SSHSM_SIGNER_PASSWORD", "SSHSM_KEY_PASSPHRASE", "SSHSM_PIN"];

/// Variables that describe the descriptors that systemd handed to this process; another process must not
/// mistake them for its own.
const HANDED_OVER: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// A command with the environment of this process, without its secrets.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in SECRETS.iter().chain(&HANDED_OVER) {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_no_secret_in_its_environment() {
        let child = command("env");
        for secret in SECRETS {
            assert!(child.get_envs().any(|(name, value)| name == secret && value.is_none()), "{secret}");
        }
    }
}
