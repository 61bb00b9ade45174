//! The installed ssh-keygen, for tests that compare with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use sshsm_tests::requirement;

use crate::request::StoredRequest;

/// ssh-keygen in a folder of its own.
pub(crate) struct SshKeygen(tempfile::TempDir);

impl SshKeygen {
    /// `None`, and the running test is skipped by name, if there is none; a failure with `CI=true`.
    pub(crate) fn for_test() -> Option<Self> {
        match requirement::program("ssh-keygen", "openssh-client") {
            Ok(_) => Some(Self(tempfile::tempdir().unwrap())),
            Err(missing) => {
                missing.report();
                None
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Its standard output, or its error message.
    pub(crate) fn run_in_zone(&self, zone: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("ssh-keygen")
            .args(arguments)
            .env("TZ", zone)
            .env("LC_ALL", "C")
            .current_dir(self.folder())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_in_zone("UTC", arguments)
    }

    /// Makes the key `name` and `name.pub`; `format` is `RFC4716` (OpenSSH's own), `PKCS8` or `PEM`.
    pub(crate) fn key_in(
        &self,
        name: &str,
        kind: &str,
        bits: &str,
        format: &str,
        passphrase: &str,
    ) -> PublicKey {
        let mut arguments = vec!["-q", "-t", kind, "-m", format, "-N", passphrase, "-C", name, "-f", name];
        if !bits.is_empty() {
            arguments.extend(["-b", bits]);
        }
        self.run(&arguments).unwrap();
        PublicKey::from_openssh(&fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()).unwrap()
    }

    pub(crate) fn key(&self, name: &str, kind: &str, bits: &str) -> PublicKey {
        self.key_in(name, kind, bits, "RFC4716", "")
    }

    /// Keys of every kind that can be a CA: RSA-2048, the three curves, Ed25519; each with its name.
    pub(crate) fn ca_keys(&self) -> Vec<(String, PublicKey)> {
        [("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("ed25519", "")]
            .map(|(kind, bits)| {
                let name = format!("ca-{kind}{bits}");
                let key = self.key(&name, kind, bits);
                (name, key)
            })
            .into()
    }

    /// The text of the certificate that `name.pub` gets from the CA key `ca`.
    pub(crate) fn sign(&self, zone: &str, ca: &str, name: &str, flags: &[&str]) -> Result<String, String> {
        let certificate = self.path(&format!("{name}-cert.pub"));
        let _ = fs::remove_file(&certificate);
        let file = format!("{name}.pub");
        self.run_in_zone(zone, &[&["-q", "-s", ca], flags, &[&file]].concat())?;
        Ok(fs::read_to_string(certificate).unwrap())
    }
}

/// The bytes of a certificate that were signed.
pub(crate) fn to_be_signed(certificate: &str) -> Vec<u8> {
    StoredRequest::decode(certificate.as_bytes(), 0).unwrap().request
}

/// Public keys as security keys have them; no test needs their private halves.
pub(crate) fn security_keys() -> Vec<PublicKey> {
    use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, SkEcdsaSha2NistP256, SkEd25519};
    let point = p256::SecretKey::from_slice(&[7; 32]).unwrap().public_key().to_sec1_bytes();
    let EcdsaPublicKey::NistP256(point) = EcdsaPublicKey::from_sec1_bytes(&point).unwrap() else {
        unreachable!()
    };
    let ed25519 = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    [
        KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(point, "ssh:")),
        KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(ed25519), "ssh:")),
    ]
    .map(|key| PublicKey::new(key, "token"))
    .into()
}

/// A shared vector file; `None`, and the running test is skipped by name, if there is no folder of such
/// files.
pub(crate) fn vector_file(file: &str) -> Option<Vec<u8>> {
    match requirement::shared_vector(file) {
        Ok(path) => Some(fs::read(path).unwrap()),
        Err(missing) => {
            missing.report();
            None
        }
    }
}

/// A value of a shared vector file, hex decoded; `None`, and the running test is skipped by name, if there is
/// no folder of such files.
pub(crate) fn vector(file: &str, pointer: &str) -> Option<Vec<u8>> {
    let path = match requirement::shared_vector(file) {
        Ok(path) => path,
        Err(missing) => {
            missing.report();
            return None;
        }
    };
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let hex = json.pointer(pointer).unwrap().as_str().unwrap();
    Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
}
