//! Issuers of certificates: the real `ssh-keygen -s`, which defines what is right, or `sshsm sign`, which
//! must agree with it, with a device and with a PKCS#11 token. An expectation takes any [`Issuer`], and
//! [`for_each_issuer!`](crate::for_each_issuer) makes a test of it for each.

use crate::{
    binaries,
    key::{Key, KeyType, ssh_keygen},
    process::{Finished, run},
    requirement::Missing,
};
use ssh_key::certificate::CertType;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

/// The requested content, in `ssh-keygen`'s terms.
#[derive(Clone, Debug)]
pub struct Flags {
    /// User or host (`-h`).
    pub kind: CertType,
    /// `-I`.
    pub key_id: &'static str,
    /// `-n`, joined with commas.
    pub principals: Vec<String>,
    /// `-V`; not given when absent.
    pub validity: Option<String>,
    /// `-z`; not given when absent.
    pub serial: Option<&'static str>,
    /// `-O`, each.
    pub options: Vec<&'static str>,
    /// How an RSA authority signs: `ssh-keygen`'s `-t`, our `--signature-algorithm`.
    pub signature_algorithm: Option<&'static str>,
}

impl Flags {
    /// A user certificate for `principals`, with defaults otherwise.
    #[must_use]
    pub fn user(principals: &[&str]) -> Self {
        Self {
            kind: CertType::User,
            key_id: "a subject",
            principals: principals.iter().map(ToString::to_string).collect(),
            validity: None,
            serial: None,
            options: Vec::new(),
            signature_algorithm: None,
        }
    }

    /// A host certificate for `names`, with defaults otherwise.
    #[must_use]
    pub fn host(names: &[&str]) -> Self {
        Self { kind: CertType::Host, ..Self::user(names) }
    }

    /// The same with `-V`.
    #[must_use]
    pub fn valid(self, validity: &str) -> Self {
        Self { validity: Some(validity.to_owned()), ..self }
    }

    /// The same with `-I`.
    #[must_use]
    pub fn key_id(self, key_id: &'static str) -> Self {
        Self { key_id, ..self }
    }

    /// The same with `-z`.
    #[must_use]
    pub fn serial(self, serial: &'static str) -> Self {
        Self { serial: Some(serial), ..self }
    }

    /// The same with `-O` for each option.
    #[must_use]
    pub fn options(self, options: &[&'static str]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// The same with another algorithm for an RSA authority.
    #[must_use]
    pub fn signature_algorithm(self, algorithm: &'static str) -> Self {
        Self { signature_algorithm: Some(algorithm), ..self }
    }

    /// Adds the letters that all issuers share.
    pub fn apply(&self, command: &mut Command) {
        command.args(["-I", self.key_id, "-n", &self.principals.join(",")]);
        if self.kind == CertType::Host {
            command.arg("-h");
        }
        if let Some(validity) = &self.validity {
            command.args(["-V", validity]);
        }
        if let Some(serial) = self.serial {
            command.args(["-z", serial]);
        }
        for option in &self.options {
            command.args(["-O", option]);
        }
    }
}

/// A certificate authority that is ready to sign.
pub trait Issuer: Sized {
    /// Puts the authority's key into use.
    ///
    /// # Errors
    /// [`Missing`] when a program for it is missing.
    fn with_authority(authority: &Key) -> Result<Self, Missing>;

    /// The call that signs all `keys` and leaves a certificate next to each one that was not refused.
    fn signing(&self, flags: &Flags, keys: &[Key]) -> Command;

    /// Signs all `keys` in one call.
    fn sign(&self, flags: &Flags, keys: &[Key]) -> Finished {
        run(&mut self.signing(flags, keys))
    }
}

/// The original: `ssh-keygen -s` with the authority's key in a file.
pub struct SshKeygen {
    authority: Key,
}

impl Issuer for SshKeygen {
    fn with_authority(authority: &Key) -> Result<Self, Missing> {
        ssh_keygen().map(|_| Self { authority: authority.clone() })
    }

    fn signing(&self, flags: &Flags, keys: &[Key]) -> Command {
        let mut command = ssh_keygen().expect("it was found before");
        command.arg("-s").arg(&self.authority.private);
        flags.apply(&mut command);
        if let Some(algorithm) = flags.signature_algorithm {
            command.args(["-t", algorithm]);
        }
        command.args(keys.iter().map(|key| &key.public));
        command
    }
}

/// Ours: `sshsm sign` with the authority's key in the in-process simulator, under a template without bounds,
/// so that whatever the original signs is signed.
pub struct Sshsm {
    directory: TempDir,
}

/// The object ids of [`Sshsm`]'s authority and template.
const AUTHORITY: &str = "0x0005";
const TEMPLATE: &str = "10";

impl Sshsm {
    /// A device with a template, and no authority yet.
    ///
    /// # Errors
    /// [`Missing`] without `ssh-keygen`, which makes the timestamp key.
    ///
    /// # Panics
    /// When `sshsm` fails.
    pub fn new(template: &str) -> Result<Self, Missing> {
        let sshsm = Self { directory: tempfile::tempdir().unwrap() };
        let _ = Key::generate(sshsm.directory(), "timestamp", KeyType::Ed25519)?;
        let file = sshsm.directory().join("template.toml");
        fs::write(&file, format!("ca-keys = [{AUTHORITY}]\ntimestamp-key = \"timestamp.pub\"\n{template}"))
            .unwrap();
        let _ = run(sshsm.command().args(["template", "put"]).arg(file).args(["--id", TEMPLATE])).success();
        Ok(sshsm)
    }

    /// The directory of the device and the timestamp key.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `sshsm`, set up to use this device and nothing of the environment's.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = binaries::sshsm();
        command
            .env("SSHSM_DEVICE", format!("sim:{}", self.directory().join("simulator").display()))
            .env("SSHSM_PASSWORD", "password")
            // The user's own ledger is not for tests.
            .env("SSHSM_LEDGER", "none")
            .env_remove("SSHSM_AUTH_KEY");
        command
    }

    /// Has the device make the authority's key itself, and returns its public half in a file.
    ///
    /// # Panics
    /// When `sshsm` fails.
    #[must_use]
    pub fn generate_authority(&self, key_type: KeyType) -> Key {
        let algorithm = match key_type {
            KeyType::Rsa2048 => "rsa2048",
            KeyType::P256 => "ecp256",
            KeyType::P384 => "ecp384",
            KeyType::P521 => "ecp521",
            KeyType::Ed25519 => "ed25519",
            KeyType::SkP256 | KeyType::SkEd25519 => panic!("{key_type:?} is not a type for authorities"),
        };
        let generated = run(self.command().args([
            "key",
            "generate",
            "--algorithm",
            algorithm,
            "--id",
            AUTHORITY,
            "--label",
            "generated",
        ]))
        .success();
        let private = self.directory().join("generated");
        let public = self.directory().join("generated.pub");
        fs::write(&public, generated.stdout).unwrap();
        Key { key_type, private, public }
    }
}

impl Issuer for Sshsm {
    fn with_authority(authority: &Key) -> Result<Self, Missing> {
        let sshsm = Self::new("not-before-offset = \"unbounded\"\nnot-after-offset = \"unbounded\"\n")?;
        let _ =
            run(sshsm.command().args(["key", "import"]).arg(&authority.private).args(["--id", AUTHORITY]))
                .success();
        Ok(sshsm)
    }

    fn signing(&self, flags: &Flags, keys: &[Key]) -> Command {
        let mut command = self.command();
        command
            .args(["sign", "-s", AUTHORITY, "-t", TEMPLATE, "--timestamp-key"])
            .arg(self.directory().join("timestamp"));
        flags.apply(&mut command);
        if let Some(algorithm) = flags.signature_algorithm {
            command.args(["--signature-algorithm", algorithm]);
        }
        command.args(keys.iter().map(|key| &key.public));
        command
    }
}

/// Makes a module of three tests, `ssh_keygen`, `sshsm` and `sshsm_with_a_token`, from each expectation `fn
/// name<I: Issuer>()`.
#[macro_export]
macro_rules! for_each_issuer {
    ($($expectation:ident),* $(,)?) => {$(
        mod $expectation {
            #[test]
            fn ssh_keygen() {
                super::$expectation::<$crate::issuer::SshKeygen>();
            }

            #[test]
            fn sshsm() {
                super::$expectation::<$crate::issuer::Sshsm>();
            }

            #[test]
            fn sshsm_with_a_token() {
                super::$expectation::<$crate::softhsm::SoftHsm>();
            }
        }
    )*};
}
