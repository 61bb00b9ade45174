//! Private keys and their operations.
//!
//! [`Provider`] is the interface for a faster implementation on a platform; [`RustCrypto`] works everywhere.
//! The storage format of keys is the same for every provider: [`key`]. A [`Key`] is loaded and ready for use.
//!
//! *No signature is released unless it verifies* under the public key as stored, which is a separate copy
//! from the one the provider computes with. A fault in the memory of a key, or during signing, can produce a
//! signature that reveals the private key: for Ed25519, hashing a different public key is enough.

#[cfg(feature = "curves")]
mod brainpool_p512;
pub(crate) mod curve;
pub mod key;
#[cfg(feature = "rsa-wrap")]
pub mod pkcs8;
pub mod rsa;
mod rustcrypto;

use alloc::vec::Vec;

use rand_core::CryptoRng;
use sha2::Digest;
use sshsm_protocol::ssh::public_key::SshCurve;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm};
use zeroize::Zeroizing;

pub use self::rsa::{Oaep, Padding};
pub use rustcrypto::RustCrypto;

/// Bytes of the longest signature: RSA-4096.
pub const MAX_SIGNATURE: usize = 512;

/// A hash function that signatures are made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Hash {
    /// The hash whose digests have this many bytes.
    #[must_use]
    pub const fn of_length(length: usize) -> Option<Self> {
        match length {
            20 => Some(Self::Sha1),
            32 => Some(Self::Sha256),
            48 => Some(Self::Sha384),
            64 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The hash that ECDSA uses with a curve (RFC 5656, section 6.2.1).
    #[must_use]
    pub const fn of_curve(curve: SshCurve) -> Self {
        match curve {
            SshCurve::P256 => Self::Sha256,
            SshCurve::P384 => Self::Sha384,
            SshCurve::P521 => Self::Sha512,
        }
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The hash of the mask generation function with this number; `None` for any other kind of algorithm.
    #[must_use]
    pub const fn of_mgf1(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Mgf1Sha1 => Some(Self::Sha1),
            Algorithm::Mgf1Sha256 => Some(Self::Sha256),
            Algorithm::Mgf1Sha384 => Some(Self::Sha384),
            Algorithm::Mgf1Sha512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Hashes `message` into the front of `digest` and returns that part.
    pub fn digest<'d>(self, message: &[u8], digest: &'d mut [u8; 64]) -> &'d [u8] {
        self.digest_parts(&[message], digest)
    }

    /// Hashes a message that is in parts.
    pub(crate) fn digest_parts<'d>(self, parts: &[&[u8]], digest: &'d mut [u8; 64]) -> &'d [u8] {
        fn fill<'d, D: Digest>(parts: &[&[u8]], digest: &'d mut [u8; 64]) -> &'d [u8] {
            let hash = parts.iter().fold(D::new(), D::chain_update).finalize();
            let (to, _) = digest.split_at_mut(hash.len());
            to.copy_from_slice(&hash);
            to
        }
        match self {
            Self::Sha1 => fill::<sha1::Sha1>(parts, digest),
            Self::Sha256 => fill::<sha2::Sha256>(parts, digest),
            Self::Sha384 => fill::<sha2::Sha384>(parts, digest),
            Self::Sha512 => fill::<sha2::Sha512>(parts, digest),
        }
    }
}

/// The input of a signature.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// RSASSA-PKCS1-v1_5. With a hash, its `DigestInfo` is prepended; without one, `digest` is the whole
    /// encoded message *T* of RFC 8017, section 9.2.
    Pkcs1 {
        /// The hash that made the digest.
        hash: Option<Hash>,
        /// A digest of that hash, or *T*.
        digest: &'a [u8],
    },
    /// RSASSA-PSS; the digest's length determines its hash.
    Pss {
        /// The hash of the mask.
        mgf: Hash,
        /// Bytes of salt.
        salt_length: usize,
        /// A digest.
        digest: &'a [u8],
    },
    /// ECDSA over a digest of any length: one longer than the curve's order is truncated on the right.
    Ecdsa {
        /// The digest.
        digest: &'a [u8],
    },
    /// Pure Ed25519 (RFC 8032) over a message of any length.
    Eddsa {
        /// The message.
        message: &'a [u8],
    },
}

/// Why a key could not be made, loaded or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The bytes are not a private key of the algorithm: out of range, not primes, wrong length.
    #[error("not a valid {0} private key")]
    InvalidKey(AsymmetricAlgorithm),
    /// The key cannot sign this kind of input.
    #[error("a {0} key cannot make this kind of signature")]
    WrongKey(AsymmetricAlgorithm),
    /// The digest, or the salt with it, does not fit the key.
    #[error("the digest is too long for a {0} key")]
    DigestTooLong(AsymmetricAlgorithm),
    /// The message does not fit the key.
    #[error("the message is too long for a {0} key")]
    MessageTooLong(AsymmetricAlgorithm),
    /// The ciphertext does not decrypt; the reason is not revealed.
    #[error("not encrypted to this {0} key")]
    Decryption(AsymmetricAlgorithm),
    /// The other side's point is not on the key's curve.
    #[error("not a point of the curve of a {0} key")]
    InvalidPoint(AsymmetricAlgorithm),
    /// The signature does not verify under the stored public key, or the computation failed; nothing was released.
    #[error("the {0} signature does not verify")]
    SelfCheck(AsymmetricAlgorithm),
}

/// The implementation of signatures.
pub trait Provider {
    /// A private key made ready to sign; it clears itself when dropped.
    type PrivateKey;

    /// Makes a stored key ([`key`]) ready to sign.
    fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<Self::PrivateKey, CryptoError>;

    /// Signs, verifies the signature under `public`, the stored key's raw public half, and returns its length: RSA as long
    /// as the modulus, ECDSA `r‖s`, Ed25519 64 bytes.
    ///
    /// `entropy` blinds RSA and hedges ECDSA nonces (RFC 6979 with added entropy): two ECDSA signatures of one
    /// message differ.
    fn sign(
        key: &Self::PrivateKey,
        public: &[u8],
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError>;

    /// ECDH: the x-coordinate, as long as coordinates are, of an EC key times a point of its curve, `04‖X‖Y`.
    fn derive(key: &Self::PrivateKey, point: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError>;

    /// Decrypts a ciphertext for an RSA key, blinded by `entropy`.
    ///
    /// Any defect of a ciphertext is [`CryptoError::Decryption`], after the same work.
    fn decrypt(
        key: &Self::PrivateKey,
        padding: Padding<'_>,
        ciphertext: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError>;

    /// Checks a fixed-length signature of `message` by a raw public key: RSA PKCS#1 v1.5 with SHA-256, ECDSA
    /// with the curve's hash, Ed25519. Anything malformed is an invalid signature.
    fn verify(algorithm: AsymmetricAlgorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

/// A stored key that is loaded, with its public half.
pub struct Key<C: Provider> {
    /// Its algorithm.
    pub algorithm: AsymmetricAlgorithm,
    public: Vec<u8>,
    private: C::PrivateKey,
}

impl<C: Provider> Key<C> {
    /// Makes a stored key ([`key`]) ready.
    pub fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<Self, CryptoError> {
        let public = key::public(algorithm, body)?.to_vec();
        Ok(Self { algorithm, public, private: C::load(algorithm, body)? })
    }

    /// Its raw public half: RSA modulus, `X‖Y`, or 32 bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs, as [`Provider::sign`] does; returns the signature's length.
    pub fn sign(
        &self,
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError> {
        C::sign(&self.private, &self.public, input, entropy, signature)
    }

    /// ECDH, as [`Provider::derive`] does.
    pub fn derive(&self, point: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        C::derive(&self.private, point)
    }

    /// Decrypts, as [`Provider::decrypt`] does.
    pub fn decrypt(
        &self,
        padding: Padding<'_>,
        ciphertext: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        C::decrypt(&self.private, padding, ciphertext, entropy)
    }
}

/// Signs bytes as SSH does, hashing them as the algorithm requires. A device signs certificates only through
/// [`crate::ssh::certificate::sign`].
pub fn sign_ssh<C: Provider>(
    key: &Key<C>,
    algorithm: SignatureAlgorithm,
    request: &[u8],
    entropy: &mut impl CryptoRng,
    signature: &mut [u8; MAX_SIGNATURE],
) -> Result<usize, CryptoError> {
    let mut digest = [0; 64];
    let hash = match algorithm {
        SignatureAlgorithm::RsaSha1 => Hash::Sha1,
        SignatureAlgorithm::RsaSha256 => Hash::Sha256,
        SignatureAlgorithm::RsaSha512 => Hash::Sha512,
        SignatureAlgorithm::Ecdsa(curve) => Hash::of_curve(curve),
        SignatureAlgorithm::Ed25519 => {
            return key.sign(Input::Eddsa { message: request }, entropy, signature);
        }
    };
    let digest = hash.digest(request, &mut digest);
    let input = match algorithm {
        SignatureAlgorithm::Ecdsa(_) => Input::Ecdsa { digest },
        _ => Input::Pkcs1 { hash: Some(hash), digest },
    };
    key.sign(input, entropy, signature)
}
