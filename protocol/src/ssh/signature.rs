//! The signature field of a certificate, and the algorithms that can make it.
//!
//! `u32 length ‖ string algorithm ‖ string signature` (OpenSSH's PROTOCOL.certkeys, RFC 4253 section 6.6, RFC
//! 5656 section 3.1.2, RFC 8332, RFC 8709). A certificate is a request followed by this field.

use ssh_encoding::{Encode, Writer};

use super::public_key::{Counter, SshCurve, encode_integer};
use crate::algorithm::{Algorithm, AsymmetricAlgorithm, Curve};

/// How a CA key signs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-1. OpenSSH has not accepted it since 8.2, and an attacker who chooses a
    /// request's nonce could make two requests collide; it is here because YubiHSM 2 has it and its published
    /// vector uses it.
    RsaSha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaSha512,
    /// ECDSA with the curve's own hash.
    Ecdsa(SshCurve),
    /// Ed25519.
    Ed25519,
}

impl SignatureAlgorithm {
    /// The algorithm that a request names by number, if a key of kind `key` can sign certificates with it.
    ///
    /// SHA-384 with RSA has a number but no name in SSH.
    #[must_use]
    pub const fn from_algorithm(algorithm: Algorithm, key: AsymmetricAlgorithm) -> Option<Self> {
        use AsymmetricAlgorithm::{Ec, Rsa2048, Rsa3072, Rsa4096};
        Some(match (algorithm, key) {
            (Algorithm::RsaPkcs1Sha1, Rsa2048 | Rsa3072 | Rsa4096) => Self::RsaSha1,
            (Algorithm::RsaPkcs1Sha256, Rsa2048 | Rsa3072 | Rsa4096) => Self::RsaSha256,
            (Algorithm::RsaPkcs1Sha512, Rsa2048 | Rsa3072 | Rsa4096) => Self::RsaSha512,
            (Algorithm::EcdsaSha256, Ec(Curve::P256)) => Self::Ecdsa(SshCurve::P256),
            (Algorithm::EcdsaSha384, Ec(Curve::P384)) => Self::Ecdsa(SshCurve::P384),
            (Algorithm::EcdsaSha512, Ec(Curve::P521)) => Self::Ecdsa(SshCurve::P521),
            (Algorithm::Ed25519, AsymmetricAlgorithm::Ed25519) => Self::Ed25519,
            _ => return None,
        })
    }

    /// What OpenSSH signs certificates with, with a key of this kind; `None` for keys that SSH has no name for.
    #[must_use]
    pub const fn of_key(key: AsymmetricAlgorithm) -> Option<Self> {
        use AsymmetricAlgorithm::{Ec, Ed25519, Rsa2048, Rsa3072, Rsa4096};
        match key {
            Rsa2048 | Rsa3072 | Rsa4096 => Some(Self::RsaSha512),
            Ed25519 => Some(Self::Ed25519),
            Ec(curve) => match SshCurve::from_curve(curve) {
                Some(curve) => Some(Self::Ecdsa(curve)),
                None => None,
            },
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::RsaSha1 => Algorithm::RsaPkcs1Sha1,
            Self::RsaSha256 => Algorithm::RsaPkcs1Sha256,
            Self::RsaSha512 => Algorithm::RsaPkcs1Sha512,
            Self::Ecdsa(SshCurve::P256) => Algorithm::EcdsaSha256,
            Self::Ecdsa(SshCurve::P384) => Algorithm::EcdsaSha384,
            Self::Ecdsa(SshCurve::P521) => Algorithm::EcdsaSha512,
            Self::Ed25519 => Algorithm::Ed25519,
        }
    }

    /// SSH's name of the algorithm.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaSha1 => "ssh-rsa",
            Self::RsaSha256 => "rsa-sha2-256",
            Self::RsaSha512 => "rsa-sha2-512",
            Self::Ecdsa(SshCurve::P256) => "ecdsa-sha2-nistp256",
            Self::Ecdsa(SshCurve::P384) => "ecdsa-sha2-nistp384",
            Self::Ecdsa(SshCurve::P521) => "ecdsa-sha2-nistp521",
            Self::Ed25519 => "ssh-ed25519",
        }
    }

    /// Writes the whole signature field for a fixed-length signature: RSA as long as the modulus, ECDSA `r‖s`,
    /// Ed25519 64 bytes.
    pub fn encode_field(self, signature: &[u8], writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        let mut inner = Counter::default();
        self.encode_inner(signature, &mut inner)?;
        inner.0.encode(writer)?;
        self.encode_inner(signature, writer)
    }

    fn encode_inner(self, signature: &[u8], writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        self.name().encode(writer)?;
        match self {
            Self::Ecdsa(curve) => {
                let (r, s) = signature
                    .split_at_checked(curve.coordinate_length())
                    .ok_or(ssh_encoding::Error::Length)?;
                let mut numbers = Counter::default();
                encode_integer(r, &mut numbers)?;
                encode_integer(s, &mut numbers)?;
                numbers.0.encode(writer)?;
                encode_integer(r, writer)?;
                encode_integer(s, writer)
            }
            _ => signature.encode(writer),
        }
    }
}

impl core::fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer as Buffer;

    #[test]
    fn ecdsa_numbers_are_shortened_and_kept_positive() {
        let mut signature = [0; 64];
        signature[31] = 0x80;
        signature[33] = 0x7f;
        let mut buffer = [0; 128];
        let mut writer = Buffer::new(&mut buffer);
        SignatureAlgorithm::Ecdsa(SshCurve::P256).encode_field(&signature, &mut writer).unwrap();
        let written = writer.written();
        let name = 4 + "ecdsa-sha2-nistp256".len();
        let numbers = [&[0, 0, 0, 2, 0, 0x80, 0, 0, 0, 31, 0x7f], [0; 30].as_slice()].concat();
        assert_eq!(&written[4 + name..], [[0, 0, 0, 41].as_slice(), &numbers].concat());
        assert_eq!(usize::from(written[3]), written.len() - 4);
    }
}
