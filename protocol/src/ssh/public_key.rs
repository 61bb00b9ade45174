//! Public keys in SSH's encoding, borrowed: subject keys of certificates, and CA keys.

use ssh_encoding::{Encode, Error as EncodingError, Writer};

use super::string;
use crate::algorithm::{AsymmetricAlgorithm, Curve};

/// Why a public key was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// A field is missing or its length is wrong.
    #[error("malformed public key: {0}")]
    Encoding(#[from] EncodingError),
    /// The key type is not one that SSH has a name for, or not one that a CA key can have.
    #[error("unknown public key type")]
    UnknownType,
    /// An RSA number is not a positive mpint in its shortest form (RFC 4251, section 5).
    #[error("an RSA number is not a positive integer in its shortest form")]
    InvalidInteger,
    /// The curve name and the key type differ.
    #[error("the curve does not fit the key type")]
    CurveMismatch,
    /// Not an uncompressed point of the curve's length.
    #[error("public key of {found} bytes where the type has {expected}")]
    WrongLength {
        /// Bytes the type has.
        expected: usize,
        /// Bytes in the input.
        found: usize,
    },
    /// A point that does not start with 04.
    #[error("elliptic-curve point is not uncompressed")]
    NotUncompressed,
}

/// A curve that SSH has a name for (RFC 5656, section 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SshCurve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// secp521r1
    P521,
}

impl SshCurve {
    /// The curve, if SSH has a name for it.
    #[must_use]
    pub const fn from_curve(curve: Curve) -> Option<Self> {
        match curve {
            Curve::P256 => Some(Self::P256),
            Curve::P384 => Some(Self::P384),
            Curve::P521 => Some(Self::P521),
            Curve::P224 | Curve::K256 | Curve::Bp256 | Curve::Bp384 | Curve::Bp512 => None,
        }
    }

    /// The curve itself.
    #[must_use]
    pub const fn curve(self) -> Curve {
        match self {
            Self::P256 => Curve::P256,
            Self::P384 => Curve::P384,
            Self::P521 => Curve::P521,
        }
    }

    /// SSH's name of the curve.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Bytes of one coordinate.
    #[must_use]
    pub const fn coordinate_length(self) -> usize {
        self.curve().coordinate_length()
    }
}

/// The kind of a public key, according to its type name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `ssh-rsa`
    Rsa,
    /// `ecdsa-sha2-nistp…`
    Ecdsa(SshCurve),
    /// `ssh-ed25519`
    Ed25519,
}

impl KeyKind {
    /// SSH's name of the key type (RFC 4253, RFC 5656, RFC 8709).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa => "ssh-rsa",
            Self::Ecdsa(SshCurve::P256) => "ecdsa-sha2-nistp256",
            Self::Ecdsa(SshCurve::P384) => "ecdsa-sha2-nistp384",
            Self::Ecdsa(SshCurve::P521) => "ecdsa-sha2-nistp521",
            Self::Ed25519 => "ssh-ed25519",
        }
    }

    /// The kind with this type name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [
            Self::Rsa,
            Self::Ed25519,
            Self::Ecdsa(SshCurve::P256),
            Self::Ecdsa(SshCurve::P384),
            Self::Ecdsa(SshCurve::P521),
        ]
        .into_iter()
        .find(|kind| kind.name().as_bytes() == name)
    }
}

/// A public key, borrowed. Keys are equal when their numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey<'a> {
    /// Exponent and modulus, big-endian without leading zeros.
    Rsa {
        /// Public exponent.
        exponent: &'a [u8],
        /// Modulus.
        modulus: &'a [u8],
    },
    /// A point on a NIST curve.
    Ecdsa {
        /// The curve.
        curve: SshCurve,
        /// `X‖Y`, each of the curve's coordinate length.
        point: &'a [u8],
    },
    /// The 32 bytes of RFC 8032.
    Ed25519(&'a [u8]),
}

/// 65537, the public exponent of every RSA key that a device holds.
pub const RSA_EXPONENT: &[u8] = &[1, 0, 1];

fn positive_integer<'a>(reader: &mut &'a [u8]) -> Result<&'a [u8], PublicKeyError> {
    match string(reader)? {
        [0, number @ ..] if number.first().is_some_and(|&byte| byte >= 0x80) => Ok(number),
        number @ [0x01..=0x7f, ..] => Ok(number),
        _ => Err(PublicKeyError::InvalidInteger),
    }
}

fn exactly(bytes: &[u8], expected: usize) -> Result<&[u8], PublicKeyError> {
    if bytes.len() == expected {
        Ok(bytes)
    } else {
        Err(PublicKeyError::WrongLength { expected, found: bytes.len() })
    }
}

/// Writes a positive integer, given big-endian, as an SSH mpint.
pub(super) fn encode_integer(number: &[u8], writer: &mut impl Writer) -> ssh_encoding::Result<()> {
    let mut number = number;
    while let [0, rest @ ..] = number {
        number = rest;
    }
    let sign: &[u8] = if number.first().is_some_and(|&byte| byte >= 0x80) { &[0] } else { &[] };
    (sign.len() + number.len()).encode(writer)?;
    writer.write(sign)?;
    writer.write(number)
}

impl<'a> PublicKey<'a> {
    /// From a device's raw public key: RSA modulus, `X‖Y`, or 32 bytes (GET PUBLIC KEY, template tag 2).
    pub fn from_raw(algorithm: AsymmetricAlgorithm, raw: &'a [u8]) -> Result<Self, PublicKeyError> {
        let raw = exactly(raw, algorithm.public_length())?;
        Ok(match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                if raw.first() == Some(&0) {
                    return Err(PublicKeyError::InvalidInteger);
                }
                Self::Rsa { exponent: RSA_EXPONENT, modulus: raw }
            }
            AsymmetricAlgorithm::Ec(curve) => Self::Ecdsa {
                curve: SshCurve::from_curve(curve).ok_or(PublicKeyError::UnknownType)?,
                point: raw,
            },
            AsymmetricAlgorithm::Ed25519 => Self::Ed25519(raw),
        })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa { .. } => KeyKind::Rsa,
            Self::Ecdsa { curve, .. } => KeyKind::Ecdsa(*curve),
            Self::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// Bits of an RSA modulus; `None` for other keys.
    #[must_use]
    pub fn rsa_bits(&self) -> Option<usize> {
        match self {
            Self::Rsa { modulus: [first, rest @ ..], .. } => {
                Some(8 * rest.len() + (8 - first.leading_zeros() as usize))
            }
            _ => None,
        }
    }

    /// Reads the fields that follow the type name, for a key of this kind.
    pub(super) fn decode_fields(kind: KeyKind, reader: &mut &'a [u8]) -> Result<Self, PublicKeyError> {
        match kind {
            KeyKind::Rsa => {
                Ok(Self::Rsa { exponent: positive_integer(reader)?, modulus: positive_integer(reader)? })
            }
            KeyKind::Ecdsa(curve) => {
                if string(reader)? != curve.name().as_bytes() {
                    return Err(PublicKeyError::CurveMismatch);
                }
                match exactly(string(reader)?, 1 + 2 * curve.coordinate_length())? {
                    [4, point @ ..] => Ok(Self::Ecdsa { curve, point }),
                    _ => Err(PublicKeyError::NotUncompressed),
                }
            }
            KeyKind::Ed25519 => Ok(Self::Ed25519(exactly(string(reader)?, 32)?)),
        }
    }

    /// Reads a whole key, type name first; trailing bytes are an error.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, PublicKeyError> {
        let kind = KeyKind::from_name(string(&mut bytes)?).ok_or(PublicKeyError::UnknownType)?;
        let key = Self::decode_fields(kind, &mut bytes)?;
        match bytes.len() {
            0 => Ok(key),
            remaining => Err(EncodingError::TrailingData { remaining }.into()),
        }
    }

    /// Writes the fields that follow the type name.
    pub(super) fn encode_fields(&self, writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        match self {
            Self::Rsa { exponent, modulus } => {
                encode_integer(exponent, writer)?;
                encode_integer(modulus, writer)
            }
            Self::Ecdsa { curve, point } => {
                curve.name().encode(writer)?;
                (1 + point.len()).encode(writer)?;
                writer.write(&[4])?;
                writer.write(point)
            }
            Self::Ed25519(key) => key.encode(writer),
        }
    }

    /// Writes a whole key, type name first, without an outer length.
    pub fn encode(&self, writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        self.kind().name().encode(writer)?;
        self.encode_fields(writer)
    }
}

/// A writer that only counts, for lengths that come before their content.
#[derive(Debug, Default)]
pub(super) struct Counter(pub(super) usize);

impl Writer for Counter {
    fn write(&mut self, bytes: &[u8]) -> ssh_encoding::Result<()> {
        self.0 = self.0.checked_add(bytes.len()).ok_or(EncodingError::Overflow)?;
        Ok(())
    }
}
