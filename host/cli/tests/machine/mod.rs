//! A machine to run the real binary on: a directory of its own, a device in it, and an environment of its own.

#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed"
)]

pub(crate) mod fake;

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use sshsm_simulator::connector::{self, Backend, Settings};
use tempfile::TempDir;

/// Serves a test's stand-in for a device over HTTP, on this port of 127.0.0.1.
pub(crate) fn serve(device: impl Backend, settings: Settings) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            connector::serve(listener, device, settings, std::future::pending()).await.unwrap();
        });
    });
    port
}

/// The result of a run of the binary.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The JSON document on stdout of a run that succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    pub(crate) fn tells_no(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{self:?}");
        }
    }
}

pub(crate) struct Machine {
    directory: TempDir,
    device: String,
}

impl Machine {
    /// With a fresh in-process device in the directory `device`.
    pub(crate) fn new() -> Self {
        let machine = Self::without_device();
        machine.make_device("device");
        machine
    }

    /// The first command that puts something on the device creates it.
    pub(crate) fn without_device() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), device: "sim:device".into() }
    }

    /// Makes a simulated device in a directory.
    pub(crate) fn make_device(&self, name: &str) {
        drop(sshsm_simulator::Simulator::open(self.path(name)).start().unwrap());
    }

    /// With the device at the end of `device`.
    pub(crate) fn with_device(device: &str) -> Self {
        let machine = Self { device: device.into(), ..Self::without_device() };
        if let Some(name) = device.strip_prefix("sim:").filter(|name| !name.is_empty()) {
            machine.make_device(name);
        }
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Run {
        self.with_environment(arguments, &[("SSHSM_PASSWORD", "password")])
    }

    pub(crate) fn without_password(&self, arguments: &[impl AsRef<OsStr>]) -> Run {
        self.execute(arguments, &[])
    }

    /// With these variables in addition to, or instead of, the right password.
    pub(crate) fn with_environment(
        &self,
        arguments: &[impl AsRef<OsStr>],
        environment: &[(&str, &str)],
    ) -> Run {
        self.execute(arguments, &[&[("SSHSM_PASSWORD", "password")], environment].concat())
    }

    /// The standard output of a successful run.
    pub(crate) fn bytes(&self, arguments: &[impl AsRef<OsStr>]) -> Vec<u8> {
        let output = self.command(arguments).env("SSHSM_PASSWORD", "password").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    fn execute(&self, arguments: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Run {
        let output = self.command(arguments).envs(environment.iter().copied()).output().unwrap();
        Run {
            code: output.status.code().expect("no signal ends it"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshsm"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.directory.path())
            .env("SSHSM_DEVICE", &self.device);
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Writes a file that only its owner may read, so that it may be a secret.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.path(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn write_private(&self, name: &str, key: &PrivateKey) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(self.path(name)).unwrap();
        std::io::Write::write_all(&mut file, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    }

    /// Writes a key pair `name` and `name.pub`; returns the public line.
    pub(crate) fn new_key(&self, name: &str, key: KeypairData) -> String {
        let key = PrivateKey::new(key, format!("{name}@test")).unwrap();
        self.write_private(name, &key);
        let public = key.public_key().to_openssh().unwrap();
        fs::write(self.path(&format!("{name}.pub")), format!("{public}\n")).unwrap();
        public
    }

    pub(crate) fn new_encrypted_key(&self, name: &str, key: KeypairData, passphrase: &str) {
        let key = PrivateKey::new(key, name).unwrap();
        self.write_private(name, &key.encrypt(&mut getrandom::SysRng, passphrase).unwrap());
    }

    /// Writes a timestamp key pair.
    pub(crate) fn timestamp_key(&self, name: &str) {
        self.new_key(name, ed25519(42));
    }

    /// Writes a template for CA key 5 with the timestamp key of [`Self::timestamp_key`].
    pub(crate) fn template(&self, name: &str, not_before: &str, not_after: &str, forbidden: &[&str]) {
        let text = format!(
            "ca-keys = [5]\nnot-before-offset = \"{not_before}\"\nnot-after-offset = \"{not_after}\"\n\
             forbid-principals = {forbidden:?}\ntimestamp-key = \"timestamp.pub\"\n"
        );
        fs::write(self.path(name), text).unwrap();
    }
}

/// A key that is the same in every run.
pub(crate) fn ed25519(seed: u8) -> KeypairData {
    KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// The public key line of an RSA key with this modulus, which is not a product of primes; that cannot be
/// seen.
pub(crate) fn rsa(modulus: &[u8]) -> String {
    let modulus = ssh_key::Mpint::from_positive_bytes(modulus);
    let exponent = ssh_key::Mpint::from_positive_bytes(&[1, 0, 1]);
    let key = ssh_key::public::RsaPublicKey::new(exponent, modulus).unwrap();
    ssh_key::PublicKey::from(ssh_key::public::KeyData::Rsa(key)).to_openssh().unwrap()
}

/// An RSA key of 26 000 bits, which no request has room for.
pub(crate) fn oversized_key() -> String {
    rsa(&[0x81; 3250])
}
