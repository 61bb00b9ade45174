//! The real `ssh`, with a configuration that shuts out everything of the user who runs the tests: no agent,
//! no other keys, no known hosts but those given here.

use crate::{
    key::Key,
    process::{Finished, run},
    requirement::{Missing, program},
    sshd::{Sshd, user},
};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// One user's `ssh`.
pub struct Ssh {
    configuration: String,
    known_hosts: String,
}

impl Ssh {
    /// A client that logs in with `key` and its certificate.
    #[must_use]
    pub fn with_certificate(key: &Key) -> Self {
        Self {
            configuration: format!(
                "IdentityAgent none\nIdentityFile {}\nCertificateFile {}\n",
                key.private.display(),
                key.certificate().display()
            ),
            known_hosts: String::new(),
        }
    }

    /// A client that logs in with `key`, whose private half is in the agent at `socket` (`SSH_AUTH_SOCK`: the
    /// environment's).
    #[must_use]
    pub fn with_agent(socket: &str, key: &Key) -> Self {
        Self {
            configuration: format!("IdentityAgent {socket}\nIdentityFile {}\n", key.public.display()),
            known_hosts: String::new(),
        }
    }

    /// The same, and the other side may use the agent at `socket`.
    #[must_use]
    pub fn forwarding(mut self, socket: &str) -> Self {
        self.configuration = self.configuration.replacen(
            "IdentityAgent none",
            &format!("IdentityAgent {socket}\nForwardAgent yes"),
            1,
        );
        self
    }

    /// Makes a server known as `name`, by its plain host key.
    #[must_use]
    pub fn knowing(mut self, name: &str, server: &Sshd) -> Self {
        writeln!(self.known_hosts, "{name} {}", server.host().public_line()).unwrap();
        self.reaching(name, server, "")
    }

    /// Trusts host certificates of `authority` for names that match `pattern`.
    #[must_use]
    pub fn trusting(mut self, pattern: &str, authority: &Key) -> Self {
        writeln!(self.known_hosts, "@cert-authority {pattern} {}", authority.public_line()).unwrap();
        self
    }

    /// Gives a server a name without knowing its key; `more` are additional lines for that name.
    #[must_use]
    pub fn reaching(mut self, name: &str, server: &Sshd, more: &str) -> Self {
        writeln!(
            self.configuration,
            "Host {name}\nHostName 127.0.0.1\nHostKeyAlias {name}\nPort {}\n{more}",
            server.port()
        )
        .unwrap();
        self
    }

    /// Logs in to `name` and runs a command there that prints [`GREETING`].
    ///
    /// # Errors
    /// [`Missing`] without `ssh`.
    ///
    /// # Panics
    /// When `ssh` cannot be run.
    pub fn login(&self, name: &str) -> Result<Finished, Missing> {
        let directory: TempDir = tempfile::tempdir().unwrap();
        let configuration = self.configure(directory.path());
        Self::run(&configuration, name, &format!("echo {GREETING}"))
    }

    /// Runs a command on `name` by the configuration that [`Self::configure`] wrote.
    ///
    /// # Errors
    /// [`Missing`] without `ssh`.
    ///
    /// # Panics
    /// When `ssh` cannot be run.
    pub fn run(configuration: &Path, name: &str, command: &str) -> Result<Finished, Missing> {
        let mut ssh = Command::new(program("ssh", "openssh-client")?);
        Ok(run(ssh.arg("-F").arg(configuration).arg(name).arg(command)))
    }

    /// Writes the configuration into a directory.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn configure(&self, directory: &Path) -> PathBuf {
        let known_hosts = directory.join("known_hosts");
        fs::write(&known_hosts, &self.known_hosts).unwrap();
        let configuration = directory.join("config");
        fs::write(
            &configuration,
            format!(
                "UserKnownHostsFile {}\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nUser {}\n\
                 IdentitiesOnly yes\nBatchMode yes\nControlPath none\nUpdateHostKeys no\n\
                 ConnectTimeout 30\n{}",
                known_hosts.display(),
                user(),
                self.configuration
            ),
        )
        .unwrap();
        configuration
    }
}

/// The output of a command that ran on the other side.
pub const GREETING: &str = "came-in";
