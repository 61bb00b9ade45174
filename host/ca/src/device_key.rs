//! Keys in the device's own form, from and to OpenSSH's.
//!
//! The device stores and returns bare numbers: an RSA modulus, `X‖Y`, the 32 bytes of Ed25519; for private
//! keys `p‖q`, the scalar, the seed. Only keys that it can hold are accepted: RSA of 2048, 3072 or 4096 bits
//! with the public exponent 65537, P-256, P-384, P-521 and Ed25519. A point off its curve, or a private key
//! that does not match the public one, is not accepted.

use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{EcdsaCurve, Mpint, PrivateKey};
use sshsm_client::{Failure, Kind};
use sshsm_protocol::ssh::public_key::SshCurve;
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use zeroize::Zeroizing;

/// The only RSA public exponent there is room for: the device stores none.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Why a key has no form on the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceKeyError {
    /// Another kind of key.
    #[error(
        "a {found} key cannot be held by the device; it holds RSA (2048, 3072, 4096 bits), ECDSA on P-256, P-384 or \
         P-521, and Ed25519"
    )]
    Kind {
        /// SSH's name for the kind.
        found: String,
    },
    /// An RSA modulus of another size.
    #[error("an RSA key of {bits} bits cannot be held by the device; it holds 2048, 3072 and 4096 bits")]
    RsaSize {
        /// Bits of the modulus.
        bits: usize,
    },
    /// Another RSA public exponent.
    #[error(
        "an RSA key with the public exponent {exponent} cannot be held by the device; it holds the exponent 65537"
    )]
    RsaExponent {
        /// The exponent: decimal, or hexadecimal when it is long.
        exponent: String,
    },
    /// RSA primes that are not half the modulus long.
    #[error("an RSA key whose primes are of different sizes cannot be held by the device")]
    RsaPrimes,
    /// Numbers that are not a public key of their kind, such as a point that is not on its curve.
    #[error("the {algorithm} public key is invalid")]
    Public {
        /// The claimed algorithm.
        algorithm: AsymmetricAlgorithm,
    },
    /// A public key that does not match the private key, or numbers that are not a private key.
    #[error("the {algorithm} private key does not belong to its public key")]
    Private {
        /// The claimed algorithm.
        algorithm: AsymmetricAlgorithm,
    },
    /// A private key whose secret part cannot be read.
    #[error("the private key is still encrypted")]
    Encrypted,
    /// A key on the device that SSH has no name for.
    #[error("SSH has no form for {algorithm} keys")]
    NoSshForm {
        /// Its algorithm.
        algorithm: AsymmetricAlgorithm,
    },
}

impl Failure for DeviceKeyError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

/// The device's algorithm for this key.
///
/// Fails for kinds, sizes and exponents that it does not support; the numbers themselves are not examined.
pub fn algorithm(key: &KeyData) -> Result<AsymmetricAlgorithm, DeviceKeyError> {
    match key {
        KeyData::Rsa(key) => rsa_algorithm(key),
        KeyData::Ecdsa(key) => Ok(AsymmetricAlgorithm::Ec(curve(key.curve()))),
        KeyData::Ed25519(_) => Ok(AsymmetricAlgorithm::Ed25519),
        other => Err(DeviceKeyError::Kind { found: other.algorithm().to_string() }),
    }
}

/// A public key as devices return it and templates contain it, [`AsymmetricAlgorithm::public_length`] bytes.
pub fn raw_public(key: &KeyData) -> Result<(AsymmetricAlgorithm, Vec<u8>), DeviceKeyError> {
    let algorithm = algorithm(key)?;
    let raw = match key {
        KeyData::Rsa(key) => key.n().as_positive_bytes().unwrap_or_default(),
        KeyData::Ecdsa(key) => key.as_sec1_bytes().get(1..).unwrap_or_default(),
        KeyData::Ed25519(key) => key.as_ref(),
        _ => &[],
    };
    ssh_public(algorithm, raw)?;
    Ok((algorithm, raw.to_vec()))
}

/// The SSH form of a public key that came from a device or a template; its numbers are checked.
pub fn ssh_public(algorithm: AsymmetricAlgorithm, raw: &[u8]) -> Result<KeyData, DeviceKeyError> {
    let invalid = DeviceKeyError::Public { algorithm };
    if raw.len() != algorithm.public_length() {
        return Err(invalid);
    }
    let key = match algorithm {
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            RsaPublicKey::new(Mpint::from_positive_bytes(&EXPONENT), Mpint::from_positive_bytes(raw))
                .ok()
                .filter(|key| rsa_algorithm(key) == Ok(algorithm) && rsa::PublicKey::try_from(key).is_ok())
                .map(KeyData::Rsa)
        }
        AsymmetricAlgorithm::Ec(curve) => {
            let point = [&[4], raw].concat();
            let curve = SshCurve::from_curve(curve).ok_or(DeviceKeyError::NoSshForm { algorithm })?;
            let on_curve = match curve {
                SshCurve::P256 => p256::PublicKey::from_sec1_bytes(&point).is_ok(),
                SshCurve::P384 => p384::PublicKey::from_sec1_bytes(&point).is_ok(),
                SshCurve::P521 => p521::PublicKey::from_sec1_bytes(&point).is_ok(),
            };
            on_curve.then(|| EcdsaPublicKey::from_sec1_bytes(&point).ok()).flatten().map(KeyData::Ecdsa)
        }
        AsymmetricAlgorithm::Ed25519 => raw
            .try_into()
            .ok()
            .filter(|bytes| ed25519_dalek::VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()))
            .map(|bytes| KeyData::Ed25519(Ed25519PublicKey(bytes))),
    };
    key.ok_or(invalid)
}

/// A private key as PUT ASYMMETRIC KEY takes it, [`AsymmetricAlgorithm::private_length`] bytes.
pub fn raw_private(key: &PrivateKey) -> Result<(AsymmetricAlgorithm, Zeroizing<Vec<u8>>), DeviceKeyError> {
    if key.is_encrypted() {
        return Err(DeviceKeyError::Encrypted);
    }
    let (algorithm, public) = raw_public(key.public_key().key_data())?;
    let mut raw = Zeroizing::new(Vec::with_capacity(algorithm.private_length()));
    let belongs = match key.key_data() {
        KeypairData::Rsa(pair) => {
            for prime in [pair.private().p(), pair.private().q()] {
                let prime = prime.as_positive_bytes().unwrap_or_default();
                if prime.len() * 2 != algorithm.private_length() {
                    return Err(DeviceKeyError::RsaPrimes);
                }
                raw.extend_from_slice(prime);
            }
            is_rsa_pair(pair)
        }
        KeypairData::Ecdsa(pair) => {
            raw.extend_from_slice(pair.private_key_bytes());
            is_ec_pair(pair, &public)
        }
        KeypairData::Ed25519(pair) => {
            raw.extend_from_slice(pair.private.as_ref());
            ed25519_dalek::SigningKey::try_from(pair).is_ok()
        }
        _ => false,
    };
    if belongs { Ok((algorithm, raw)) } else { Err(DeviceKeyError::Private { algorithm }) }
}

fn rsa_algorithm(key: &RsaPublicKey) -> Result<AsymmetricAlgorithm, DeviceKeyError> {
    let exponent = key.e().as_positive_bytes().unwrap_or_default();
    if exponent != EXPONENT {
        let exponent = match exponent {
            short if short.len() <= 8 => {
                short.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)).to_string()
            }
            long => long.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        };
        return Err(DeviceKeyError::RsaExponent { exponent });
    }
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match modulus.len() * 8 - unused {
        2048 => Ok(AsymmetricAlgorithm::Rsa2048),
        3072 => Ok(AsymmetricAlgorithm::Rsa3072),
        4096 => Ok(AsymmetricAlgorithm::Rsa4096),
        bits => Err(DeviceKeyError::RsaSize { bits }),
    }
}

const fn curve(curve: EcdsaCurve) -> Curve {
    match curve {
        EcdsaCurve::NistP256 => Curve::P256,
        EcdsaCurve::NistP384 => Curve::P384,
        EcdsaCurve::NistP521 => Curve::P521,
    }
}

/// Whether the factors, the exponents and the modulus fit together.
fn is_rsa_pair(pair: &RsaKeypair) -> bool {
    rsa::PrivateKey::try_from(pair).is_ok_and(|key| key.validate().is_ok())
}

/// Whether the scalar's point is `X‖Y`.
fn is_ec_pair(pair: &EcdsaKeypair, public: &[u8]) -> bool {
    let scalar = pair.private_key_bytes();
    let point = match pair.curve() {
        EcdsaCurve::NistP256 => {
            p256::SecretKey::from_slice(scalar).map(|key| key.public_key().to_sec1_bytes())
        }
        EcdsaCurve::NistP384 => {
            p384::SecretKey::from_slice(scalar).map(|key| key.public_key().to_sec1_bytes())
        }
        EcdsaCurve::NistP521 => {
            p521::SecretKey::from_slice(scalar).map(|key| key.public_key().to_sec1_bytes())
        }
    };
    point.is_ok_and(|point| point.get(1..) == Some(public))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file;
    use crate::ssh_keygen::{SshKeygen, security_keys};

    #[test]
    fn every_kind_that_the_device_holds_goes_there_and_back() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (kind, bits, expected) in [
            ("rsa", "2048", AsymmetricAlgorithm::Rsa2048),
            ("rsa", "3072", AsymmetricAlgorithm::Rsa3072),
            ("rsa", "4096", AsymmetricAlgorithm::Rsa4096),
            ("ecdsa", "256", AsymmetricAlgorithm::Ec(Curve::P256)),
            ("ecdsa", "384", AsymmetricAlgorithm::Ec(Curve::P384)),
            ("ecdsa", "521", AsymmetricAlgorithm::Ec(Curve::P521)),
            ("ed25519", "", AsymmetricAlgorithm::Ed25519),
        ] {
            let name = format!("{kind}{bits}");
            let key = keygen.key(&name, kind, bits);
            let (algorithm, raw) = raw_public(key.key_data()).unwrap();
            assert_eq!((algorithm, raw.len()), (expected, expected.public_length()));
            assert_eq!(ssh_public(algorithm, &raw).unwrap(), *key.key_data());
            let private = key_file::read_private(&keygen.path(&name), &mut || unreachable!()).unwrap();
            let (algorithm, raw) = raw_private(&private).unwrap();
            assert_eq!((algorithm, raw.len()), (expected, expected.private_length()));
        }
    }

    /// The body is `p‖q`, whose product is the modulus.
    #[test]
    fn an_rsa_body_is_the_two_primes_of_the_modulus() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("rsa", "rsa", "2048");
        let private = key_file::read_private(&keygen.path("rsa"), &mut || unreachable!()).unwrap();
        let (_, raw) = raw_private(&private).unwrap();
        let (p, q) = raw.split_at(128);
        let number = |bytes| rsa::BoxedUint::from_be_slice(bytes, 2048).unwrap();
        let (_, modulus) = raw_public(private.public_key().key_data()).unwrap();
        assert_eq!(number(p).wrapping_mul(number(q)), number(&modulus));
    }

    #[test]
    fn other_kinds_sizes_and_exponents_are_refused_by_name() {
        for key in security_keys() {
            assert!(matches!(raw_public(key.key_data()), Err(DeviceKeyError::Kind { .. })));
        }
        let rsa = |exponent: &[u8], modulus: &[u8]| {
            let [e, n] = [exponent, modulus].map(Mpint::from_positive_bytes);
            raw_public(&KeyData::Rsa(RsaPublicKey::new(e, n).unwrap())).unwrap_err()
        };
        assert_eq!(rsa(&EXPONENT, &[0xff; 128]), DeviceKeyError::RsaSize { bits: 1024 });
        assert_eq!(rsa(&EXPONENT, &[0x7f; 256]), DeviceKeyError::RsaSize { bits: 2047 });
        assert_eq!(rsa(&[3], &[0xff; 256]), DeviceKeyError::RsaExponent { exponent: "3".into() });
        let long = DeviceKeyError::RsaExponent { exponent: "0x010203040506070809".into() };
        assert_eq!(rsa(&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[0xff; 256]), long);
    }

    #[test]
    fn numbers_that_are_no_key_are_refused() {
        for algorithm in AsymmetricAlgorithm::ALL {
            let invalid = Err(DeviceKeyError::Public { algorithm });
            let zeros = ssh_public(algorithm, &vec![0; algorithm.public_length()]);
            match algorithm {
                AsymmetricAlgorithm::Ec(curve) if SshCurve::from_curve(curve).is_none() => {
                    assert_eq!(zeros, Err(DeviceKeyError::NoSshForm { algorithm }));
                }
                _ => assert_eq!(zeros, invalid, "{algorithm}"),
            }
            assert_eq!(
                ssh_public(algorithm, &vec![0xff; algorithm.public_length() - 1]),
                invalid,
                "{algorithm}"
            );
            assert_eq!(
                ssh_public(algorithm, &vec![0xff; algorithm.public_length() + 1]),
                invalid,
                "{algorithm}"
            );
        }
    }

    #[test]
    fn a_private_key_under_another_public_key_is_refused() {
        let pair = |seed: u8| {
            let secret = p256::SecretKey::from_slice(&[seed; 32]).unwrap();
            let point = secret.public_key().to_sec1_bytes();
            let EcdsaPublicKey::NistP256(public) = EcdsaPublicKey::from_sec1_bytes(&point).unwrap() else {
                unreachable!()
            };
            (secret, public)
        };
        let ((private, _), (_, public)) = (pair(1), pair(2));
        let mixed = EcdsaKeypair::NistP256 { public, private: private.into() };
        let key = PrivateKey::new(KeypairData::Ecdsa(mixed), "").unwrap();
        let algorithm = AsymmetricAlgorithm::Ec(Curve::P256);
        assert_eq!(raw_private(&key).unwrap_err(), DeviceKeyError::Private { algorithm });
    }
}
