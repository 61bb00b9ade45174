//! Signatures by the RustCrypto crates: the provider that works everywhere.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ecdsa::signature::hazmat::PrehashVerifier;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rand_core::CryptoRng;
use rsa::Pkcs1v15Sign;
use rsa::traits::PublicKeyParts;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sshsm_protocol::AsymmetricAlgorithm;
use sshsm_protocol::ssh::public_key::SshCurve;
use zeroize::Zeroizing;

use super::curve::{self, EcKey};
use super::key::{self, rsa_from_factors};
use super::{CryptoError, Hash, Input, MAX_SIGNATURE, Padding, Provider};

/// Signatures by the RustCrypto crates.
#[derive(Debug)]
pub struct RustCrypto;

/// A private key made ready to sign by [`RustCrypto`].
pub struct PrivateKey {
    algorithm: AsymmetricAlgorithm,
    kind: Kind,
}

enum Kind {
    Rsa(rsa::PrivateKey),
    Ec(Box<dyn EcKey + Send>),
    Ed25519(ExpandedSecretKey),
}

impl Provider for RustCrypto {
    type PrivateKey = PrivateKey;

    fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<PrivateKey, CryptoError> {
        let invalid = CryptoError::InvalidKey(algorithm);
        if !key::is_stored_length(algorithm, body.len()) {
            return Err(invalid);
        }
        let private = body.get(..algorithm.private_length()).ok_or(invalid)?;
        let kind = match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                Kind::Rsa(rsa_from_factors(algorithm, private)?)
            }
            AsymmetricAlgorithm::Ec(curve) => Kind::Ec(curve::load(curve, private).ok_or(invalid)?),
            AsymmetricAlgorithm::Ed25519 => {
                let hash = key::ed25519_hash(body).ok_or(invalid)?;
                let secret = ExpandedSecretKey::from_bytes(&hash);
                let public = ed25519_dalek::VerifyingKey::from(&secret);
                if public.as_bytes() != key::public(algorithm, body)? {
                    return Err(invalid);
                }
                Kind::Ed25519(secret)
            }
        };
        Ok(PrivateKey { algorithm, kind })
    }

    fn sign(
        key: &PrivateKey,
        public: &[u8],
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError> {
        let algorithm = key.algorithm;
        // The crate verifies RSA signatures under this modulus.
        if let Kind::Rsa(key) = &key.kind
            && *key.n().to_be_bytes() != *public
        {
            return Err(CryptoError::SelfCheck(algorithm));
        }
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
            (Kind::Rsa(key), Input::Pss { mgf, salt_length, digest }) => {
                release(&super::rsa::pss_sign(algorithm, key, mgf, salt_length, digest, entropy)?, signature)
            }
            (Kind::Ec(key), Input::Ecdsa { digest }) => {
                let mut added = Zeroizing::new([0; 32]);
                entropy.fill_bytes(added.as_mut());
                key.sign(public, digest, &added, signature).ok_or(CryptoError::SelfCheck(algorithm))
            }
            (Kind::Ed25519(secret), Input::Eddsa { message }) => {
                let public = ed25519_public(public).ok_or(CryptoError::SelfCheck(algorithm))?;
                let made = raw_sign::<Sha512>(secret, message, &public);
                public.verify_strict(message, &made).map_err(|_| CryptoError::SelfCheck(algorithm))?;
                release(&made.to_bytes(), signature)
            }
            _ => Err(CryptoError::WrongKey(algorithm)),
        }
    }

    fn derive(key: &PrivateKey, point: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match &key.kind {
            Kind::Ec(private) => private.derive(point).ok_or(CryptoError::InvalidPoint(key.algorithm)),
            Kind::Rsa(_) | Kind::Ed25519(_) => Err(CryptoError::WrongKey(key.algorithm)),
        }
    }

    fn decrypt(
        key: &PrivateKey,
        padding: Padding<'_>,
        ciphertext: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match &key.kind {
            Kind::Rsa(private) => super::rsa::decrypt(key.algorithm, private, padding, ciphertext, entropy),
            Kind::Ec(_) | Kind::Ed25519(_) => Err(CryptoError::WrongKey(key.algorithm)),
        }
    }

    fn verify(algorithm: AsymmetricAlgorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let mut digest = [0; 64];
        match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                let digest = Hash::Sha256.digest(message, &mut digest);
                super::rsa::public_key(public)
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
            AsymmetricAlgorithm::Ed25519 => ed25519_public(public)
                .zip(ed25519_dalek::Signature::from_slice(signature).ok())
                .is_some_and(|(key, signature)| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

fn ed25519_public(public: &[u8]) -> Option<ed25519_dalek::VerifyingKey> {
    ed25519_dalek::VerifyingKey::from_bytes(public.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Ed25519 signatures by one private key under two public keys would reveal the private key.
    #[test]
    fn an_ed25519_key_with_another_public_key_is_not_loaded() {
        let algorithm = AsymmetricAlgorithm::Ed25519;
        let mut body = key::expand(algorithm, &[1; 32]).unwrap();
        assert!(RustCrypto::load(algorithm, &body).is_ok());
        body[64..96].copy_from_slice(&key::expand(algorithm, &[2; 32]).unwrap()[64..96]);
        assert_eq!(RustCrypto::load(algorithm, &body).err(), Some(CryptoError::InvalidKey(algorithm)));
    }

    /// A signature that hashes another public key, or is made with another scalar, reveals the private key.
    #[test]
    fn no_bit_that_flips_in_a_loaded_ed25519_key_lets_a_signature_out_that_does_not_verify() {
        let algorithm = AsymmetricAlgorithm::Ed25519;
        let body = key::expand(algorithm, &[1; 32]).unwrap();
        let public = key::public(algorithm, &body).unwrap();
        let hash = key::ed25519_hash(&body).unwrap();
        let entropy = &mut ChaCha8Rng::seed_from_u64(1);
        let mut refused = 0;
        for bit in 0..8 * (hash.len() + public.len()) {
            let (mut hash, mut seen) = (*hash, public.to_vec());
            let (at, flip) = (bit / 8, 1 << (bit % 8));
            match hash.get_mut(at) {
                Some(byte) => *byte ^= flip,
                None => seen[at - 64] ^= flip,
            }
            let key = PrivateKey { algorithm, kind: Kind::Ed25519(ExpandedSecretKey::from_bytes(&hash)) };
            let mut signature = [0; MAX_SIGNATURE];
            match RustCrypto::sign(&key, &seen, Input::Eddsa { message: b"m" }, entropy, &mut signature) {
                Ok(length) => {
                    assert!(RustCrypto::verify(algorithm, public, b"m", &signature[..length]), "bit {bit}");
                }
                Err(error) => {
                    assert_eq!((error, signature), (CryptoError::SelfCheck(algorithm), [0; MAX_SIGNATURE]));
                    refused += 1;
                }
            }
        }
        // All but those of the nonce's key, and the five of the scalar that every key has alike.
        assert_eq!(refused, 256 - 5 + 256);
    }
}
