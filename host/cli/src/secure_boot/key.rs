//! Boot keys: what images are signed with, and what OTP knows of it.

use std::{fmt, path::Path};

use k256::{
    PublicKey, SecretKey,
    ecdsa::{
        Signature, VerifyingKey,
        signature::hazmat::{PrehashSigner, PrehashVerifier},
    },
};
use rsa::pkcs8::{Document, PrivateKeyInfoRef, SecretDocument, SubjectPublicKeyInfoRef};
use sha2::{Digest, Sha256};

use sshsm_ca::key_file::{self, KeyFileError};
use sshsm_client::{Failure, Kind};

/// Why a file gave no boot key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootKeyError {
    /// The file cannot be read, or others may read it.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It is not a key that the boot ROM knows.
    #[error(
        "{path} is not a {wanted} key on secp256k1 in PEM form; make one with: openssl ecparam -name secp256k1 -genkey \
         -noout -out boot-key.pem"
    )]
    Key {
        /// The file.
        path: String,
        /// Which half was asked for.
        wanted: &'static str,
    },
}

impl Failure for BootKeyError {
    fn kind(&self) -> Kind {
        match self {
            Self::File(error) => error.kind(),
            Self::Key { .. } => Kind::Failed,
        }
    }
}

/// A private boot key.
pub struct SigningKey(k256::ecdsa::SigningKey);

impl SigningKey {
    /// Reads a private key: PKCS#8 or SEC1 in PEM form, not encrypted.
    ///
    /// # Errors
    /// [`BootKeyError`]; one that others may read is refused.
    pub fn read(path: &Path) -> Result<Self, BootKeyError> {
        let text = key_file::read_text(path)?;
        private(&text)
            .map(|key| Self(key.into()))
            .ok_or_else(|| BootKeyError::Key { path: path.display().to_string(), wanted: "private" })
    }

    #[cfg(test)]
    pub(super) fn of(scalar: [u8; 32]) -> Self {
        Self(k256::ecdsa::SigningKey::from_slice(&scalar).unwrap())
    }

    /// The other half.
    #[must_use]
    pub fn boot_key(&self) -> BootKey {
        BootKey(*self.0.verifying_key())
    }

    /// A signature of a SHA-256 digest: r and s, 32 bytes each, the most significant first.
    pub(super) fn sign(&self, digest: &[u8; 32]) -> Result<[u8; 64], k256::ecdsa::Error> {
        let signature: Signature = self.0.sign_prehash(digest)?;
        Ok(signature.to_bytes().into())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.boot_key().fingerprint()).finish()
    }
}

fn private(text: &str) -> Option<SecretKey> {
    let (label, pem) = key_file::private_block(text)?;
    let (_, document) = SecretDocument::from_pem(pem).ok()?;
    match label {
        "EC PRIVATE KEY" => SecretKey::from_sec1_der(document.as_bytes()).ok(),
        _ => SecretKey::try_from(document.decode_msg::<PrivateKeyInfoRef<'_>>().ok()?).ok(),
    }
}

fn public(text: &str) -> Option<PublicKey> {
    let (_, document) = Document::from_pem(text.trim()).ok()?;
    PublicKey::try_from(document.decode_msg::<SubjectPublicKeyInfoRef<'_>>().ok()?).ok()
}

/// The public half, which images contain and whose digest OTP holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootKey(VerifyingKey);

impl BootKey {
    /// Reads the key from a file with either half.
    ///
    /// # Errors
    /// [`BootKeyError`]
    pub fn read(path: &Path) -> Result<Self, BootKeyError> {
        let text = key_file::read_text(path)?;
        if key_file::private_block(&text).is_some() {
            return Ok(SigningKey::read(path)?.boot_key());
        }
        public(&text).map(|key| Self(key.into())).ok_or_else(|| BootKeyError::Key {
            path: path.display().to_string(),
            wanted: "public or private",
        })
    }

    /// x and y, 32 bytes each, the most significant first.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let point = self.0.to_sec1_point(false);
        let mut bytes = [0; 64];
        bytes.iter_mut().zip(point.as_bytes().iter().skip(1)).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The key with these bytes, if they are a point.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        VerifyingKey::from_sec1_bytes(&[&[4], bytes.as_slice()].concat()).ok().map(Self)
    }

    /// What OTP holds: SHA-256 of x and y.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.to_bytes()).into())
    }

    /// Whether it made this signature of this digest.
    #[must_use]
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_prehash(digest, &signature).is_ok())
    }
}

/// The digest of a boot key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
