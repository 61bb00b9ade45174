//! A real `sshd` on loopback with a configuration, host keys and log of its own. It needs no rights: an
//! ordinary user's `sshd` lets that same user in. Only root's needs the separation user and directory that
//! the Debian package and the system's start-up make.

use crate::{
    key::{Key, KeyType},
    process::{Log, Running, run, wait_for},
    requirement::{Missing, program},
};
use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// The directory to which root's `sshd` confines its unprivileged half.
const SEPARATION_DIRECTORY: &str = "/run/sshd";

/// What one server trusts and whom it admits.
#[derive(Default)]
pub struct Server {
    /// `TrustedUserCAKeys`: public keys, one to a line.
    pub trusted: Vec<Key>,
    /// `AuthorizedPrincipalsFile` for the user who runs the tests.
    pub principals: Vec<&'static str>,
    /// `AuthorizedKeysFile`: keys that are admitted without a certificate.
    pub authorized: Vec<Key>,
    /// `RevokedKeys`, a key revocation list.
    pub revoked: Option<PathBuf>,
    /// The host's own key, with its certificate. Otherwise one is generated.
    pub host: Option<Key>,
}

impl Server {
    /// A server that trusts `authority` and admits holders of one of `principals`.
    #[must_use]
    pub fn trusting(authority: &Key, principals: &[&'static str]) -> Self {
        Self { trusted: vec![authority.clone()], principals: principals.to_vec(), ..Self::default() }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// [`Missing`] when there is no `sshd`, or root's `sshd` lacks its separation user.
    ///
    /// # Panics
    /// When it does not come up, with its log.
    pub fn start(self) -> Result<Sshd, Missing> {
        let sshd = program("sshd", "openssh-server")?;
        prepare_separation()?;
        let directory = tempfile::tempdir().unwrap();
        let host = match &self.host {
            Some(host) => host.clone(),
            None => Key::generate(directory.path(), "host", KeyType::Ed25519)?,
        };
        loop {
            let port = free_port();
            let configuration = directory.path().join("sshd_config");
            fs::write(&configuration, self.configuration(directory.path(), &host, port)).unwrap();
            let (log, file) = Log::create(&directory.path().join("log"));
            let mut process = Running::spawn(
                Command::new(&sshd)
                    .args(["-D", "-e", "-f"])
                    .arg(&configuration)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(file),
            );
            let listens = format!("Server listening on 127.0.0.1 port {port}.");
            let up = wait_for("sshd to listen", || {
                (log.text().contains(&listens)).then_some(true).or_else(|| process.ended().map(|_| false))
            });
            if up {
                return Ok(Sshd { port, host, log, _process: process, _directory: directory });
            }
            // Between finding the port and using it, another process may have taken it.
            assert!(log.text().contains("Address already in use"), "sshd ended:\n{}", log.text());
        }
    }

    fn configuration(&self, directory: &Path, host: &Key, port: u16) -> String {
        let trusted = directory.join("trusted_user_ca_keys");
        fs::write(&trusted, self.trusted.iter().map(|key| key.public_line() + "\n").collect::<String>())
            .unwrap();
        let principals = directory.join("principals");
        fs::write(&principals, self.principals.join("\n") + "\n").unwrap();
        let authorized = directory.join("authorized_keys");
        let keys: String = self.authorized.iter().map(|key| key.public_line() + "\n").collect();
        fs::write(&authorized, keys).unwrap();
        let mut text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nHostKey {}\nTrustedUserCAKeys {}\n\
             AuthorizedPrincipalsFile {}\nAuthorizedKeysFile {}\nAuthenticationMethods publickey\n\
             PermitRootLogin prohibit-password\nUsePAM no\nStrictModes no\nUseDNS no\nPrintMotd no\n\
             PrintLastLog no\nMaxStartups 100\nLogLevel DEBUG2\n",
            host.private.display(),
            trusted.display(),
            principals.display(),
            authorized.display(),
        );
        if host.certificate().exists() {
            writeln!(text, "HostCertificate {}", host.certificate().display()).unwrap();
        }
        if let Some(revoked) = &self.revoked {
            writeln!(text, "RevokedKeys {}", revoked.display()).unwrap();
        }
        text
    }
}

/// A running `sshd`.
pub struct Sshd {
    port: u16,
    host: Key,
    log: Log,
    // Held to be killed.
    _process: Running,
    // Held to be removed, after the process.
    _directory: TempDir,
}

impl Sshd {
    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its host key.
    #[must_use]
    pub fn host(&self) -> &Key {
        &self.host
    }

    /// Lets a client visit, and returns the client's output and what the server logged about the visit: all
    /// of it, since `sshd` may still write after its client has left. One visit at a time.
    ///
    /// # Errors
    /// The client's.
    ///
    /// # Panics
    /// When the server does not notice that the connection has ended.
    pub fn visit<C, E>(&self, client: impl FnOnce() -> Result<C, E>) -> Result<(C, String), E> {
        let before = self.log.text().len();
        let said = client()?;
        let log = wait_for("sshd to end the connection", || {
            let log = self.log.text().split_off(before);
            ["Disconnected from ", "Connection closed by ", "Connection reset by "]
                .iter()
                .any(|end| log.contains(end))
                .then_some(log)
        });
        Ok((said, log))
    }
}

/// The name of the user who runs the test, and logs in.
///
/// # Panics
/// When `id` does not know.
#[must_use]
pub fn user() -> String {
    run(Command::new("id").arg("-un")).success().stdout.trim().to_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}

fn prepare_separation() -> Result<(), Missing> {
    if run(Command::new("id").arg("-u")).success().stdout.trim() != "0" {
        return Ok(());
    }
    if !run(Command::new("id").args(["-u", "sshd"])).status.success() {
        return Err(Missing::new("the user sshd", "apt-get install openssh-server"));
    }
    // The package leaves it to the service, which need not have been started.
    fs::create_dir_all(SEPARATION_DIRECTORY)
        .map_err(|error| Missing::new(SEPARATION_DIRECTORY, format!("cannot be made: {error}")))
}
