//! The signed clock: a timestamp authority's statement about a request.
//!
//! A device has no clock that it can trust, so a trusted authority states when a request was made. The
//! signature covers `SHA-256(request) ‖ now u32`, so it cannot be transferred to another request or another
//! time.

use sha2::{Digest, Sha256};

use super::public_key::SshCurve;
use crate::algorithm::{Algorithm, AsymmetricAlgorithm};

/// The time that a timestamp authority states: UNIX seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(u32);

impl Now {
    /// From UNIX seconds, as on the wire.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// UNIX seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

/// Bytes of a signed message.
pub const MESSAGE_LENGTH: usize = 36;

/// The message that the authority signs: `SHA-256(request) ‖ now u32`.
///
/// RSA signs it with PKCS#1 v1.5 and SHA-256, ECDSA with the curve's own hash, Ed25519 directly.
#[must_use]
pub fn message(request: &[u8], now: Now) -> [u8; MESSAGE_LENGTH] {
    message_of_digest(Sha256::digest(request).into(), now)
}

/// The same for an authority that receives only the request's SHA-256.
#[must_use]
pub fn message_of_digest(request_digest: [u8; 32], now: Now) -> [u8; MESSAGE_LENGTH] {
    let mut message = [0; MESSAGE_LENGTH];
    for (to, from) in message.iter_mut().zip(request_digest.into_iter().chain(now.0.to_be_bytes())) {
        *to = from;
    }
    message
}

/// The public key of a timestamp authority, as a template carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampKey<'a> {
    algorithm: AsymmetricAlgorithm,
    public: &'a [u8],
}

/// Why bytes are not a timestamp key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampKeyError {
    /// The number names no algorithm that can sign timestamps.
    #[error("algorithm {0} cannot sign timestamps")]
    UnknownAlgorithm(u8),
    /// The public key is not as long as the algorithm's.
    #[error("timestamp key of {found} bytes where {algorithm} has {expected}")]
    WrongLength {
        /// The template's algorithm.
        algorithm: AsymmetricAlgorithm,
        /// Bytes it has.
        expected: usize,
        /// Bytes in the template.
        found: usize,
    },
    /// An RSA modulus that starts with a zero byte.
    #[error("the RSA modulus of the timestamp key is shorter than its algorithm requires")]
    ShortModulus,
}

impl<'a> TimestampKey<'a> {
    /// `public` is an RSA modulus, `X‖Y`, or the 32 bytes of Ed25519.
    pub fn new(algorithm: AsymmetricAlgorithm, public: &'a [u8]) -> Result<Self, TimestampKeyError> {
        if matches!(algorithm, AsymmetricAlgorithm::Ec(curve) if SshCurve::from_curve(curve).is_none()) {
            return Err(TimestampKeyError::UnknownAlgorithm(algorithm.algorithm().code()));
        }
        let expected = algorithm.public_length();
        if public.len() != expected {
            return Err(TimestampKeyError::WrongLength { algorithm, expected, found: public.len() });
        }
        if algorithm.modulus_length().is_some() && public.first() == Some(&0) {
            return Err(TimestampKeyError::ShortModulus);
        }
        Ok(Self { algorithm, public })
    }

    /// The same from the number in template tag 1.
    pub fn from_code(code: u8, public: &'a [u8]) -> Result<Self, TimestampKeyError> {
        let algorithm = Algorithm::from_code(code)
            .and_then(AsymmetricAlgorithm::from_algorithm)
            .ok_or(TimestampKeyError::UnknownAlgorithm(code))?;
        Self::new(algorithm, public)
    }

    /// The key's algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> AsymmetricAlgorithm {
        self.algorithm
    }

    /// The raw public key.
    #[must_use]
    pub const fn public(&self) -> &'a [u8] {
        self.public
    }

    /// Bytes of a timestamp signature by this key: RSA modulus length, ECDSA `r‖s`, Ed25519 64.
    #[must_use]
    pub const fn signature_length(&self) -> usize {
        self.algorithm.signature_length()
    }
}
