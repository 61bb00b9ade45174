//! Keys as OpenSSH makes them: certificate authorities, users, hosts, and the two `sk-` kinds, which need no
//! authenticator as long as they are not used to sign.

use crate::{
    process::run,
    requirement::{Missing, program},
};
use ssh_key::{
    PublicKey,
    public::{KeyData, SkEcdsaSha2NistP256, SkEd25519},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// OpenSSH's key types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// `ssh-rsa`, 2048 bits.
    Rsa2048,
    /// `ecdsa-sha2-nistp256`.
    P256,
    /// `ecdsa-sha2-nistp384`.
    P384,
    /// `ecdsa-sha2-nistp521`.
    P521,
    /// `ssh-ed25519`.
    Ed25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`; the public half only.
    SkP256,
    /// `sk-ssh-ed25519@openssh.com`; the public half only.
    SkEd25519,
}

impl KeyType {
    /// Every type that can be certified.
    pub const SUBJECTS: [Self; 7] =
        [Self::Rsa2048, Self::P256, Self::P384, Self::P521, Self::Ed25519, Self::SkP256, Self::SkEd25519];

    /// Every type that a certificate authority may have.
    pub const AUTHORITIES: [Self; 5] = [Self::Rsa2048, Self::P256, Self::P384, Self::P521, Self::Ed25519];

    /// `ssh-keygen -L`'s name for the type of a certificate over such a key.
    #[must_use]
    pub fn certificate_type(self) -> &'static str {
        match self {
            Self::Rsa2048 => "ssh-rsa-cert-v01@openssh.com",
            Self::P256 => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::P384 => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::P521 => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            Self::SkP256 => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
        }
    }

    /// The name that `ssh-keygen -L` and sshd's log give to a plain key of this type.
    #[must_use]
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA",
            Self::P256 | Self::P384 | Self::P521 => "ECDSA",
            Self::Ed25519 => "ED25519",
            Self::SkP256 => "ECDSA-SK",
            Self::SkEd25519 => "ED25519-SK",
        }
    }

    fn keygen_flags(self) -> [&'static str; 4] {
        match self {
            Self::Rsa2048 => ["-t", "rsa", "-b", "2048"],
            Self::P256 | Self::SkP256 => ["-t", "ecdsa", "-b", "256"],
            Self::P384 => ["-t", "ecdsa", "-b", "384"],
            Self::P521 => ["-t", "ecdsa", "-b", "521"],
            Self::Ed25519 | Self::SkEd25519 => ["-t", "ed25519", "-b", "256"],
        }
    }
}

/// The real `ssh-keygen`.
///
/// # Errors
/// [`Missing`].
pub fn ssh_keygen() -> Result<Command, Missing> {
    program("ssh-keygen", "openssh-client").map(Command::new)
}

/// A key in a file, with its public half next to it.
#[derive(Clone, Debug)]
pub struct Key {
    /// What kind of key it is.
    pub key_type: KeyType,
    /// The private half, unencrypted, in OpenSSH's format. Absent for `sk-` types.
    pub private: PathBuf,
    /// The public half, `private` with `.pub` at its end.
    pub public: PathBuf,
}

impl Key {
    /// Makes a key at `directory/name`, with `name` as its comment.
    ///
    /// # Errors
    /// [`Missing`] without `ssh-keygen`.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn generate(directory: &Path, name: &str, key_type: KeyType) -> Result<Self, Missing> {
        let private = directory.join(name);
        let _ = run(ssh_keygen()?
            .args(["-q", "-N", "", "-C", name, "-f"])
            .arg(&private)
            .args(key_type.keygen_flags()))
        .success();
        let key = Self { key_type, public: directory.join(format!("{name}.pub")), private };
        if matches!(key_type, KeyType::SkP256 | KeyType::SkEd25519) {
            key.turn_into_security_key();
        }
        Ok(key)
    }

    /// A set of one key of each type, in `directory`.
    ///
    /// # Errors
    /// [`Missing`] without `ssh-keygen`.
    pub fn generate_all(directory: &Path, types: &[KeyType]) -> Result<Vec<Self>, Missing> {
        types.iter().map(|&key_type| Self::generate(directory, &format!("{key_type:?}"), key_type)).collect()
    }

    /// `ssh-keygen` asks an authenticator for `sk-` keys. A public one is only a point on the curve and the
    /// name of an application.
    fn turn_into_security_key(&self) {
        let plain = self.public_key();
        let data = match plain.key_data() {
            KeyData::Ecdsa(ssh_key::public::EcdsaPublicKey::NistP256(point)) => {
                KeyData::from(SkEcdsaSha2NistP256::new(*point, "ssh:"))
            }
            KeyData::Ed25519(point) => KeyData::from(SkEd25519::new(*point, "ssh:")),
            other => panic!("{:?} has no security key form", other.algorithm()),
        };
        let key = PublicKey::new(data, plain.comment().clone());
        fs::write(&self.public, key.to_openssh().unwrap() + "\n").unwrap();
        fs::remove_file(&self.private).unwrap();
    }

    /// The public half.
    ///
    /// # Panics
    /// When the file is not one OpenSSH public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        fs::read_to_string(&self.public).unwrap().parse().unwrap()
    }

    /// The public half as OpenSSH's line, without the line's end.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn public_line(&self) -> String {
        fs::read_to_string(&self.public).unwrap().trim_end().to_owned()
    }

    /// The SHA-256 fingerprint, as OpenSSH prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.public_key().fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    /// The path of a certificate for this key: `-cert.pub` instead of `.pub`.
    ///
    /// # Panics
    /// When the path is not text.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        PathBuf::from(format!("{}-cert.pub", self.private.to_str().unwrap()))
    }

    /// The same key in another directory, so that their certificates do not collide.
    ///
    /// # Panics
    /// When the files cannot be copied.
    #[must_use]
    pub fn copy_to(&self, directory: &Path) -> Self {
        let copy = |path: &Path| {
            let target = directory.join(path.file_name().unwrap());
            if path.exists() {
                fs::copy(path, &target).unwrap();
            }
            target
        };
        Self { key_type: self.key_type, private: copy(&self.private), public: copy(&self.public) }
    }
}
