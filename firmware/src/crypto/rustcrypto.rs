//! Signatures by the RustCrypto crates: the provider that works everywhere.

use alloc::boxed::Box;

use ecdsa::signature::hazmat::PrehashVerifier;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rand_core::CryptoRng;
use rsa::{BoxedUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sshsm_protocol::AsymmetricAlgorithm;
use sshsm_protocol::ssh::public_key::SshCurve;
use zeroize::Zeroizing;

use super::curve::{self, EcKey};
use super::key::rsa_from_factors;
use super::{CryptoError, Hash, Input, MAX_SIGNATURE, Provider};

/// Signatures by the RustCrypto crates.
#[derive(Debug)]
pub struct RustCrypto;

/// A private key made ready to sign by [`RustCrypto`].
pub struct PrivateKey {
    algorithm: AsymmetricAlgorithm,
    kind: Kind,
}

enum Kind {
    Rsa(RsaPrivateKey),
    Ec(Box<dyn EcKey + Send>),
    Ed25519 { secret: ExpandedSecretKey, public: ed25519_dalek::VerifyingKey },
}

impl Provider for RustCrypto {
    type PrivateKey = PrivateKey;

    fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<PrivateKey, CryptoError> {
        let invalid = CryptoError::InvalidKey(algorithm);
        if body.len() != algorithm.object_length() {
            return Err(invalid);
        }
        let private = body.get(..algorithm.private_length()).ok_or(invalid)?;
        let kind = match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                Kind::Rsa(rsa_from_factors(algorithm, private)?)
            }
            AsymmetricAlgorithm::Ec(curve) => Kind::Ec(curve::load(curve, private).ok_or(invalid)?),
            AsymmetricAlgorithm::Ed25519 => {
                let (scalar, rest) = body.split_first_chunk::<32>().ok_or(invalid)?;
                let (prefix, rest) = rest.split_first_chunk::<32>().ok_or(invalid)?;
                let public = rest.first_chunk::<32>().ok_or(invalid)?;
                let mut expanded = Zeroizing::new([0; 64]);
                for (to, &from) in expanded.iter_mut().zip(scalar.iter().rev().chain(prefix)) {
                    *to = from;
                }
                Kind::Ed25519 {
                    secret: ExpandedSecretKey::from_bytes(&expanded),
                    public: ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| invalid)?,
                }
            }
        };
        Ok(PrivateKey { algorithm, kind })
    }

    fn sign(
        key: &PrivateKey,
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError> {
        let algorithm = key.algorithm;
        let release = |bytes: &[u8], signature: &mut [u8; MAX_SIGNATURE]| {
            let room = signature.get_mut(..bytes.len()).ok_or(CryptoError::SelfCheck(algorithm))?;
            room.copy_from_slice(bytes);
            Ok(bytes.len())
        };
        match (&key.kind, input) {
            (Kind::Rsa(key), Input::Pkcs1 { hash, digest }) => {
                let scheme = match hash {
                    Some(Hash::Sha1) => Pkcs1v15Sign::new::<Sha1>(),
                    Some(Hash::Sha256) => Pkcs1v15Sign::new::<Sha256>(),
                    Some(Hash::Sha384) => Pkcs1v15Sign::new::<Sha384>(),
                    Some(Hash::Sha512) => Pkcs1v15Sign::new::<Sha512>(),
                    None => Pkcs1v15Sign::new_unprefixed(),
                };
                let bytes = key.sign_with_rng(entropy, scheme, digest).map_err(|error| match error {
                    rsa::Error::MessageTooLong | rsa::Error::InputNotHashed => {
                        CryptoError::DigestTooLong(algorithm)
                    }
                    _ => CryptoError::SelfCheck(algorithm),
                })?;
                release(&bytes, signature)
            }
            (Kind::Ec(key), Input::Ecdsa { digest }) => {
                let mut added = Zeroizing::new([0; 32]);
                entropy.fill_bytes(added.as_mut());
                key.sign(digest, &added, signature).ok_or(CryptoError::SelfCheck(algorithm))
            }
            (Kind::Ed25519 { secret, public }, Input::Eddsa { message }) => {
                release(&raw_sign::<Sha512>(secret, message, public).to_bytes(), signature)
            }
            _ => Err(CryptoError::WrongKey(algorithm)),
        }
    }

    fn verify(algorithm: AsymmetricAlgorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let mut digest = [0; 64];
        match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                let digest = Hash::Sha256.digest(message, &mut digest);
                let bits = u32::try_from(8 * public.len()).unwrap_or(u32::MAX);
                BoxedUint::from_be_slice(public, bits)
                    .ok()
                    .and_then(|modulus| RsaPublicKey::new(modulus, 65_537_u32.into()).ok())
                    .is_some_and(|key| key.verify(Pkcs1v15Sign::new::<Sha256>(), digest, signature).is_ok())
            }
            AsymmetricAlgorithm::Ec(curve) => {
                let Some(curve) = SshCurve::from_curve(curve) else { return false };
                let digest = Hash::of_curve(curve).digest(message, &mut digest);
                let mut point = [4; 1 + 2 * 66];
                let Some(rest) = point.get_mut(1..=public.len()) else { return false };
                rest.copy_from_slice(public);
                let point = point.get(..=public.len()).unwrap_or_default();
                match curve {
                    SshCurve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
                        p256::ecdsa::Signature::from_slice(signature)
                            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
                    }),
                    SshCurve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
                        p384::ecdsa::Signature::from_slice(signature)
                            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
                    }),
                    SshCurve::P521 => p521::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
                        p521::ecdsa::Signature::from_slice(signature)
                            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
                    }),
                }
            }
            AsymmetricAlgorithm::Ed25519 => <&[u8; 32]>::try_from(public)
                .ok()
                .and_then(|public| ed25519_dalek::VerifyingKey::from_bytes(public).ok())
                .zip(ed25519_dalek::Signature::from_slice(signature).ok())
                .is_some_and(|(key, signature)| key.verify_strict(message, &signature).is_ok()),
        }
    }
}
