//! How asymmetric keys are generated and stored.
//!
//! A *private key* is what a client puts: RSA `p‖q`, an EC scalar, an Ed25519 seed. The stored *body* has
//! everything that signing needs, laid out as YubiHSM 2 counts and exports it: RSA `p‖q‖dp‖dq‖qinv‖n`, EC
//! `d‖X‖Y`, Ed25519 `scalar (big-endian, clamped)‖prefix‖public key‖seed`. A wrapped Ed25519 key may come
//! without its seed, and is then stored without it.

use alloc::vec::Vec;
use ecdsa::{EcdsaCurve, SignatureSize, SigningKey};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::ExpandedSecretKey;
use elliptic_curve::ops::Invert;
use elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use elliptic_curve::subtle::CtOption;
use elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, Scalar};
use rand_core::CryptoRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BoxedUint, Pkcs1v15Sign};
use sha2::{Digest, Sha512};
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;
use super::curve::with_curve;

/// Bytes of a stored Ed25519 key that came without its seed.
const ED25519_SEEDLESS: usize = 96;

/// A key in its stored form; cleared when dropped.
pub type Body = Zeroizing<Vec<u8>>;

/// The stored form of a private key, checked: points in range, RSA factors that really invert each other.
pub fn expand(algorithm: AsymmetricAlgorithm, private: &[u8]) -> Result<Body, CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    if private.len() != algorithm.private_length() {
        return Err(invalid);
    }
    let body = match algorithm {
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            let key = rsa_from_factors(algorithm, private)?;
            // Two numbers that are not primes give a key whose signatures do not verify.
            key.sign(Pkcs1v15Sign::new_unprefixed(), b"pairwise consistency").map_err(|_| invalid)?;
            rsa_body(algorithm, private, &key)?
        }
        AsymmetricAlgorithm::Ec(curve) => with_curve!(curve, C, D => ec_body::<C>(private)).ok_or(invalid)?,
        AsymmetricAlgorithm::Ed25519 => {
            let hash = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(private)));
            let mut body = ed25519_body(&hash).ok_or(invalid)?;
            body.extend_from_slice(private);
            body
        }
    };
    if body.len() == algorithm.object_length() { Ok(body) } else { Err(invalid) }
}

/// A new private key's stored form.
pub fn generate(algorithm: AsymmetricAlgorithm, entropy: &mut impl CryptoRng) -> Result<Body, CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    if let Some(length) = algorithm.modulus_length() {
        let key = rsa::PrivateKey::new(entropy, 8 * length).map_err(|_| invalid)?;
        let mut factors = Zeroizing::new(Vec::with_capacity(length));
        for prime in key.primes() {
            append_fixed(&mut factors, prime, length / 2).ok_or(invalid)?;
        }
        return rsa_body(algorithm, &factors, &key);
    }
    let mut private = Zeroizing::new(alloc::vec![0; algorithm.private_length()]);
    // Fewer than half of the candidates are out of range; so many in a row mean that the generator is broken.
    for _ in 0..1000 {
        entropy.fill_bytes(&mut private);
        if algorithm == AsymmetricAlgorithm::Ec(Curve::P521) {
            // The order has 521 bits in 66 bytes; without this almost every candidate would be out of range.
            if let Some(first) = private.first_mut() {
                *first &= 1;
            }
        }
        // Candidates out of range are drawn again (FIPS 186-5, A.2.2).
        if let Ok(body) = expand(algorithm, &private) {
            return Ok(body);
        }
    }
    Err(invalid)
}

/// Checks a stored key that was made elsewhere: every part of it follows from its private key.
pub fn validate_body(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<(), CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    let expected = match (algorithm, body.len()) {
        (AsymmetricAlgorithm::Ed25519, ED25519_SEEDLESS) => {
            let hash = ed25519_hash(body).ok_or(invalid)?;
            ed25519_body(&hash).ok_or(invalid)?
        }
        (AsymmetricAlgorithm::Ed25519, _) => expand(algorithm, body.get(ED25519_SEEDLESS..).ok_or(invalid)?)?,
        _ => expand(algorithm, body.get(..algorithm.private_length()).ok_or(invalid)?)?,
    };
    if expected.ct_eq(body).into() { Ok(()) } else { Err(invalid) }
}

/// Whether a stored key can have this length: Ed25519 keys have two.
pub(super) const fn is_stored_length(algorithm: AsymmetricAlgorithm, length: usize) -> bool {
    length == algorithm.object_length()
        || matches!(algorithm, AsymmetricAlgorithm::Ed25519) && length == ED25519_SEEDLESS
}

/// The raw public key in a stored key: RSA modulus, `X‖Y`, or 32 bytes.
pub fn public(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<&[u8], CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    if !is_stored_length(algorithm, body.len()) {
        return Err(invalid);
    }
    let end = match algorithm {
        AsymmetricAlgorithm::Ed25519 => ED25519_SEEDLESS,
        _ => body.len(),
    };
    body.get(end - algorithm.public_length()..end).ok_or(invalid)
}

/// The RSA key with these factors, `p‖q`, and public exponent 65537.
pub(super) fn rsa_from_factors(
    algorithm: AsymmetricAlgorithm,
    factors: &[u8],
) -> Result<rsa::PrivateKey, CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    let length = algorithm.modulus_length().ok_or(invalid)?;
    let (p, q) = factors.split_at_checked(length / 2).ok_or(invalid)?;
    let bits = u32::try_from(4 * length).map_err(|_| invalid)?;
    let factor = |bytes: &[u8]| match BoxedUint::from_be_slice(bytes, bits) {
        // Even factors make the arithmetic below panic.
        Ok(number) if bytes.last().is_some_and(|last| last & 1 == 1) && number.bit_width() == bits => {
            Ok(number)
        }
        Ok(mut number) => {
            number.zeroize();
            Err(invalid)
        }
        Err(_) => Err(invalid),
    };
    let mut p = factor(p)?;
    let q = factor(q).inspect_err(|_| p.zeroize())?;
    let key = rsa::PrivateKey::from_p_q(p, q, 65_537_u32.into()).map_err(|_| invalid)?;
    if key.n().bit_width() == 2 * bits { Ok(key) } else { Err(invalid) }
}

fn append_fixed(body: &mut Body, number: &BoxedUint, length: usize) -> Option<()> {
    let bytes = Zeroizing::new(number.to_be_bytes());
    let excess = bytes.len().saturating_sub(length);
    let (zeros, bytes) = bytes.split_at_checked(excess)?;
    if zeros.iter().any(|&byte| byte != 0) {
        return None;
    }
    body.extend(core::iter::repeat_n(0, length - bytes.len()));
    body.extend_from_slice(bytes);
    Some(())
}

fn rsa_body(
    algorithm: AsymmetricAlgorithm,
    factors: &[u8],
    key: &rsa::PrivateKey,
) -> Result<Body, CryptoError> {
    let length = algorithm.private_length();
    let mut body = Zeroizing::new(Vec::with_capacity(algorithm.object_length()));
    body.extend_from_slice(factors);
    let mut append = || {
        append_fixed(&mut body, key.dp()?, length / 2)?;
        append_fixed(&mut body, key.dq()?, length / 2)?;
        append_fixed(&mut body, &Zeroizing::new(key.crt_coefficient()?), length / 2)?;
        append_fixed(&mut body, key.n(), length)
    };
    append().ok_or(CryptoError::InvalidKey(algorithm))?;
    Ok(body)
}

fn ec_body<C>(scalar: &[u8]) -> Option<Body>
where
    C: EcdsaCurve + CurveArithmetic,
    Scalar<C>: Invert<Output = CtOption<Scalar<C>>>,
    SignatureSize<C>: elliptic_curve::array::ArraySize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let key = SigningKey::<C>::from_slice(scalar).ok()?;
    let point = key.verifying_key().to_sec1_point(false);
    let mut body = Zeroizing::new(Vec::with_capacity(3 * scalar.len()));
    body.extend_from_slice(scalar);
    body.extend_from_slice(point.as_bytes().get(1..)?);
    Some(body)
}

/// The stored key without a seed, from the hash of the seed.
fn ed25519_body(hash: &[u8; 64]) -> Option<Body> {
    let (scalar, prefix) = hash.split_first_chunk()?;
    let scalar = Zeroizing::new(ed25519_clamp(*scalar));
    let mut body = Zeroizing::new(Vec::with_capacity(ED25519_SEEDLESS + 32));
    body.extend(scalar.iter().rev());
    body.extend_from_slice(prefix);
    body.extend_from_slice(VerifyingKey::from(&ExpandedSecretKey::from_bytes(hash)).as_bytes());
    Some(body)
}

/// The hash of the seed, its scalar clamped, that a stored key was made from.
pub(super) fn ed25519_hash(body: &[u8]) -> Option<Zeroizing<[u8; 64]>> {
    let mut hash = Zeroizing::new(*body.first_chunk()?);
    hash.get_mut(..32)?.reverse();
    Some(hash)
}

/// RFC 8032, section 5.1.5, step 2.
const fn ed25519_clamp(mut scalar: [u8; 32]) -> [u8; 32] {
    scalar[0] &= 0xf8;
    scalar[31] &= 0x7f;
    scalar[31] |= 0x40;
    scalar
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::{Input, Key, MAX_SIGNATURE, RustCrypto};
    use super::*;

    /// docs/protocol.md, "Wrapped objects": the seed 00 01 … 1f.
    #[test]
    fn ed25519_bodies_have_the_exported_layout() {
        let seed: Vec<u8> = (0..32).collect();
        let body = expand(AsymmetricAlgorithm::Ed25519, &seed).unwrap();
        let expected = concat!(
            "6f8eff1f84f125a1e612dede40146d9d5549e02b76356981ef0a589ca4ee9438",
            "a9d71862a3e5746b571be3d187b0041046f52ebd850c7cbd5fde8ee38473b649",
            "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
        );
        let hex: alloc::string::String = body[..96].iter().map(|byte| alloc::format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(public(AsymmetricAlgorithm::Ed25519, &body).unwrap(), &body[64..96]);
    }

    #[test]
    fn bodies_made_elsewhere_are_valid_only_when_every_part_fits() {
        let mut entropy = ChaCha8Rng::seed_from_u64(1);
        for algorithm in AsymmetricAlgorithm::ALL.into_iter().filter(|a| a.modulus_length() != Some(512)) {
            let body = generate(algorithm, &mut entropy).unwrap();
            assert_eq!(validate_body(algorithm, &body), Ok(()), "{algorithm}");
            // RSA is slow to check: one byte in each part, p, q, dp, dq, qinv, n and their ends.
            let step = if algorithm.modulus_length().is_some() { body.len() / 7 } else { 1 };
            for at in (0..body.len()).step_by(step).chain([body.len() - 1]) {
                let mut damaged = body.clone();
                damaged[at] ^= 1;
                assert!(validate_body(algorithm, &damaged).is_err(), "{algorithm} {at}");
            }
            assert!(validate_body(algorithm, &body[..body.len() - 1]).is_err());
            assert!(validate_body(algorithm, &[&body[..], &[0]].concat()).is_err());
            assert!(validate_body(algorithm, &[]).is_err());
        }
    }

    #[test]
    fn rsa_factors_are_taken_in_either_order() {
        let rsa = AsymmetricAlgorithm::Rsa2048;
        let body = generate(rsa, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
        let swapped = expand(rsa, &[&body[128..256], &body[..128]].concat()).unwrap();
        assert_eq!(swapped[..128], body[128..256], "kept as they were put");
        assert_eq!(public(rsa, &swapped).unwrap(), public(rsa, &body).unwrap());
        assert_eq!(validate_body(rsa, &swapped), Ok(()));
    }

    #[test]
    fn ed25519_keys_without_a_seed_are_as_good() {
        let algorithm = AsymmetricAlgorithm::Ed25519;
        let body = expand(algorithm, &[7; 32]).unwrap();
        let seedless = &body[..96];
        assert_eq!(validate_body(algorithm, seedless), Ok(()));
        assert_eq!(public(algorithm, seedless).unwrap(), &body[64..96]);
        let sign = |body: &[u8]| {
            let key = Key::<RustCrypto>::load(algorithm, body).unwrap();
            let mut signature = [0; MAX_SIGNATURE];
            let input = Input::Eddsa { message: b"message" };
            key.sign(input, &mut ChaCha8Rng::seed_from_u64(3), &mut signature).unwrap();
            signature
        };
        assert_eq!(sign(seedless), sign(&body));
        // The prefix is free; everything else is not.
        for at in (0..32).chain(64..96) {
            let mut damaged = seedless.to_vec();
            damaged[at] ^= 0x80;
            assert!(validate_body(algorithm, &damaged).is_err(), "{at}");
        }
        let mut unclamped = seedless.to_vec();
        unclamped[31] |= 1;
        assert!(validate_body(algorithm, &unclamped).is_err());
    }

    #[test]
    fn private_keys_out_of_range_are_refused() {
        for curve in Curve::ALL {
            let algorithm = AsymmetricAlgorithm::Ec(curve);
            for byte in [0, 0xff] {
                let scalar = alloc::vec![byte; curve.coordinate_length()];
                assert_eq!(expand(algorithm, &scalar).unwrap_err(), CryptoError::InvalidKey(algorithm));
            }
            assert!(expand(algorithm, &alloc::vec![1; curve.coordinate_length() - 1]).is_err());
        }
        let rsa = AsymmetricAlgorithm::Rsa2048;
        for bytes in [[0; 256], [0xff; 256], core::array::from_fn(|i| if i % 128 == 0 { 0xf1 } else { 0x6b })]
        {
            assert_eq!(expand(rsa, &bytes).unwrap_err(), CryptoError::InvalidKey(rsa));
        }
        let distinct: [u8; 256] = core::array::from_fn(|i| if i < 128 { 0xfd } else { 0xfb });
        assert_eq!(expand(rsa, &distinct).unwrap_err(), CryptoError::InvalidKey(rsa), "composite factors");
    }
}
