//! Whether the key to be certified is a usable key: OpenSSH reads it, and its private half is not public.
//!
//! A certificate for a key that OpenSSH cannot read works nowhere, and yet would be recorded as issued. The
//! policy asks here before it allows a request, and the host tool before it builds one. The bounds are
//! OpenSSH's (`sshkey_check_rsa_length` in `sshkey.c`, `SSHBUF_MAX_BIGNUM` in `sshbuf.h`, `ssh-ecdsa.c`,
//! `ssh-ecdsa-sk.c`). OpenSSH accepts any 32 bytes as an Ed25519 key; bytes that are not a point verify
//! nothing, and are harmless.

use ed25519_dalek::VerifyingKey;
use sshsm_protocol::ssh::public_key::{PublicKey, SshCurve};
use sshsm_protocol::ssh::request::SubjectKey;

use crate::crypto::curve;

/// Fewest bits of an RSA key that OpenSSH reads: `SSH_RSA_MINIMUM_MODULUS_SIZE`.
pub const MIN_RSA_BITS: usize = 1024;

/// Most bits of an RSA key's modulus or exponent that OpenSSH reads: those of `SSHBUF_MAX_BIGNUM` bytes.
pub const MAX_RSA_BITS: usize = 16_384;

/// Why a key cannot be certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectKeyError {
    /// An RSA modulus of so many bits, which are too few.
    #[error("OpenSSH reads RSA keys of at least {MIN_RSA_BITS} bits, and this one has {0}")]
    ShortRsa(usize),
    /// An RSA modulus or exponent of so many bits, which are too many.
    #[error("OpenSSH reads RSA numbers of at most {MAX_RSA_BITS} bits, and this key has one of {0}")]
    LongRsa(usize),
    /// An RSA exponent of 1: a message is its own signature.
    #[error("its RSA exponent is 1, so that anybody can sign for it")]
    RsaExponentOne,
    /// A point that does not satisfy the curve's equation, or a coordinate that is not a field element.
    #[error("its point is not on the curve {}", .0.name())]
    NotOnCurve(SshCurve),
    /// An Ed25519 point of small order, the identity among them: signatures can be made without a private key.
    #[error("its Ed25519 point has a small order, so that anybody can sign for it")]
    SmallOrder,
    /// OpenSSH reads no NUL in the application of a security key, or cuts it off.
    #[error("the application of the security key contains a NUL byte")]
    NulInApplication,
    /// There are security keys of P-256 and Ed25519 only.
    #[error("OpenSSH knows security keys of P-256 and Ed25519 only")]
    SecurityKeyKind,
}

/// Checks the numbers of a key to be certified.
///
/// # Errors
/// What is wrong with it.
pub fn check(subject: &SubjectKey<'_>) -> Result<(), SubjectKeyError> {
    match subject {
        SubjectKey::Plain(key) => check_numbers(key),
        SubjectKey::SecurityKey { .. } if subject.kind().is_none() => Err(SubjectKeyError::SecurityKeyKind),
        SubjectKey::SecurityKey { application, .. } if application.contains(&0) => {
            Err(SubjectKeyError::NulInApplication)
        }
        SubjectKey::SecurityKey { key, .. } => check_numbers(key),
    }
}

fn check_numbers(key: &PublicKey<'_>) -> Result<(), SubjectKeyError> {
    match key {
        PublicKey::Rsa { exponent, modulus } => {
            let (modulus, exponent_bits) = (bits(modulus), bits(exponent));
            match (modulus.max(exponent_bits), modulus) {
                (most, _) if most > MAX_RSA_BITS => Err(SubjectKeyError::LongRsa(most)),
                (_, modulus) if modulus < MIN_RSA_BITS => Err(SubjectKeyError::ShortRsa(modulus)),
                _ if exponent_bits <= 1 => Err(SubjectKeyError::RsaExponentOne),
                _ => Ok(()),
            }
        }
        PublicKey::Ecdsa { curve, point } if curve::is_point(curve.curve(), point) => Ok(()),
        PublicKey::Ecdsa { curve, .. } => Err(SubjectKeyError::NotOnCurve(*curve)),
        PublicKey::Ed25519(bytes) => {
            let point =
                <&[u8; 32]>::try_from(*bytes).ok().and_then(|bytes| VerifyingKey::from_bytes(bytes).ok());
            match point {
                Some(point) if point.is_weak() => Err(SubjectKeyError::SmallOrder),
                _ => Ok(()),
            }
        }
    }
}

/// Bits of a positive number, big-endian without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| 8 * number.len() - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use std::vec::Vec;

    use super::*;

    fn rsa(exponent: &[u8], modulus: &[u8]) -> Result<(), SubjectKeyError> {
        check(&SubjectKey::Plain(PublicKey::Rsa { exponent, modulus }))
    }

    /// An odd number of so many bits.
    fn number(bits: usize) -> Vec<u8> {
        let mut number = std::vec![0xff; bits.div_ceil(8)];
        number[0] >>= (8 - bits % 8) % 8;
        number
    }

    #[test]
    fn rsa_keys_are_as_long_as_openssh_reads_them() {
        for bits in [1024, 1025, 2048, 16_383, 16_384] {
            assert_eq!(rsa(&[1, 0, 1], &number(bits)), Ok(()), "{bits}");
            assert_eq!(rsa(&number(bits), &number(bits)), Ok(()), "{bits}");
        }
        for bits in [1, 768, 1023] {
            assert_eq!(rsa(&[1, 0, 1], &number(bits)), Err(SubjectKeyError::ShortRsa(bits)));
        }
        for bits in [16_385, 20_000] {
            assert_eq!(rsa(&[1, 0, 1], &number(bits)), Err(SubjectKeyError::LongRsa(bits)));
            assert_eq!(rsa(&number(bits), &number(2048)), Err(SubjectKeyError::LongRsa(bits)));
        }
        assert_eq!(rsa(&[1], &number(2048)), Err(SubjectKeyError::RsaExponentOne));
        assert_eq!(rsa(&[3], &number(2048)), Ok(()));
    }

    #[test]
    fn a_point_is_on_its_curve() {
        let p256 = hex!(
            "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
        );
        let of = |curve, point: &[u8]| {
            let key = PublicKey::Ecdsa { curve, point };
            let plain = check(&SubjectKey::Plain(key));
            if curve == SshCurve::P256 {
                assert_eq!(check(&SubjectKey::SecurityKey { key, application: b"ssh:" }), plain);
            }
            plain
        };
        assert_eq!(of(SshCurve::P256, &p256), Ok(()));
        for place in [0, 31, 32, 63] {
            let mut other = p256;
            other[place] ^= 1;
            assert_eq!(of(SshCurve::P256, &other), Err(SubjectKeyError::NotOnCurve(SshCurve::P256)));
        }
        for curve in [SshCurve::P256, SshCurve::P384, SshCurve::P521] {
            let scalar = [std::vec![0; curve.coordinate_length() - 1], std::vec![1]].concat();
            let body =
                crate::crypto::key::expand(sshsm_protocol::AsymmetricAlgorithm::Ec(curve.curve()), &scalar);
            let body = body.unwrap();
            let base =
                crate::crypto::key::public(sshsm_protocol::AsymmetricAlgorithm::Ec(curve.curve()), &body);
            assert_eq!(of(curve, base.unwrap()), Ok(()));
            // Zeros, as the identity is sometimes written, ones, and coordinates beyond the field.
            for byte in [0, 1, 0xff] {
                let point = std::vec![byte; 2 * curve.coordinate_length()];
                assert_eq!(of(curve, &point), Err(SubjectKeyError::NotOnCurve(curve)));
            }
        }
    }

    #[test]
    fn no_one_signs_for_an_ed25519_key_without_its_private_half() {
        let of = |bytes: [u8; 32]| check(&SubjectKey::Plain(PublicKey::Ed25519(&bytes)));
        let mut identity = [0; 32];
        identity[0] = 1;
        let order_four = [0; 32];
        let order_eight = hex!("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
        for small in [identity, order_four, order_eight] {
            assert_eq!(of(small), Err(SubjectKeyError::SmallOrder), "{small:02x?}");
        }
        let base = core::array::from_fn(|place| if place == 0 { 0x58 } else { 0x66 });
        assert_eq!(of(base), Ok(()));
        assert_eq!(of([4; 32]), Ok(()), "no point: OpenSSH reads it, and verifies nothing by it");
    }

    #[test]
    fn a_security_key_has_an_application_without_nul_and_one_of_two_kinds() {
        let key = PublicKey::Ed25519(&[4; 32]);
        let of = |application| check(&SubjectKey::SecurityKey { key, application });
        assert_eq!((of(b"ssh:"), of(b"")), (Ok(()), Ok(())));
        for application in [b"ssh:\0".as_slice(), b"\0", b"ssh:\0a"] {
            assert_eq!(of(application), Err(SubjectKeyError::NulInApplication));
        }
        let modulus = number(2048);
        let key = PublicKey::Rsa { exponent: &[1, 0, 1], modulus: &modulus };
        let subject = SubjectKey::SecurityKey { key, application: b"ssh:" };
        assert_eq!(check(&subject), Err(SubjectKeyError::SecurityKeyKind));
    }
}
