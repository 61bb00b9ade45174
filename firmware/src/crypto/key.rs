//! How asymmetric keys are made and stored.
//!
//! A *private key* is what a client puts: RSA `p‖q`, an EC scalar, an Ed25519 seed. The *body* that is stored has
//! everything that signing needs, laid out as YubiHSM 2 counts and exports it: RSA `p‖q‖dp‖dq‖qinv‖n`, EC
//! `d‖X‖Y`, Ed25519 `scalar (big-endian, clamped)‖prefix‖public key‖seed`.

use alloc::vec::Vec;
use ecdsa::elliptic_curve::ops::Invert;
use ecdsa::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use ecdsa::elliptic_curve::subtle::CtOption;
use ecdsa::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, Scalar};
use ecdsa::{EcdsaCurve, SignatureSize, SigningKey};
use rand_core::CryptoRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BoxedUint, Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest, Sha512};
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use zeroize::Zeroizing;

use super::CryptoError;
use super::curve::with_curve;

/// A key as it is stored; cleared when dropped.
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
        AsymmetricAlgorithm::Ed25519 => ed25519_body(private).ok_or(invalid)?,
    };
    if body.len() == algorithm.object_length() { Ok(body) } else { Err(invalid) }
}

/// A new private key's stored form.
pub fn generate(algorithm: AsymmetricAlgorithm, entropy: &mut impl CryptoRng) -> Result<Body, CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    if let Some(length) = algorithm.modulus_length() {
        let key = RsaPrivateKey::new(entropy, 8 * length).map_err(|_| invalid)?;
        let mut factors = Zeroizing::new(Vec::with_capacity(length));
        for prime in key.primes() {
            append_fixed(&mut factors, prime, length / 2).ok_or(invalid)?;
        }
        return rsa_body(algorithm, &factors, &key);
    }
    let mut private = Zeroizing::new(alloc::vec![0; algorithm.private_length()]);
    loop {
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
}

/// The raw public key in a stored key: RSA modulus, `X‖Y`, or 32 bytes.
pub fn public(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<&[u8], CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    if body.len() != algorithm.object_length() {
        return Err(invalid);
    }
    let length = algorithm.public_length();
    let end = match algorithm {
        AsymmetricAlgorithm::Ed25519 => body.len() - 32,
        _ => body.len(),
    };
    body.get(end - length..end).ok_or(invalid)
}

/// The RSA key with these factors, `p‖q`, and public exponent 65537.
pub(super) fn rsa_from_factors(
    algorithm: AsymmetricAlgorithm,
    factors: &[u8],
) -> Result<RsaPrivateKey, CryptoError> {
    let invalid = CryptoError::InvalidKey(algorithm);
    let length = algorithm.modulus_length().ok_or(invalid)?;
    let (p, q) = factors.split_at_checked(length / 2).ok_or(invalid)?;
    let bits = u32::try_from(4 * length).map_err(|_| invalid)?;
    let factor = |bytes: &[u8]| match BoxedUint::from_be_slice(bytes, bits) {
        // Even factors make the arithmetic below panic.
        Ok(number) if bytes.last().is_some_and(|last| last & 1 == 1) && number.bits() == bits => Ok(number),
        _ => Err(invalid),
    };
    let key = RsaPrivateKey::from_p_q(factor(p)?, factor(q)?, 65_537_u32.into()).map_err(|_| invalid)?;
    if key.n().bits() == 2 * bits { Ok(key) } else { Err(invalid) }
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
    key: &RsaPrivateKey,
) -> Result<Body, CryptoError> {
    let length = algorithm.private_length();
    let mut body = Zeroizing::new(Vec::with_capacity(algorithm.object_length()));
    body.extend_from_slice(factors);
    let mut append = || {
        append_fixed(&mut body, key.dp()?, length / 2)?;
        append_fixed(&mut body, key.dq()?, length / 2)?;
        append_fixed(&mut body, &key.crt_coefficient()?, length / 2)?;
        append_fixed(&mut body, key.n(), length)
    };
    append().ok_or(CryptoError::InvalidKey(algorithm))?;
    Ok(body)
}

fn ec_body<C>(scalar: &[u8]) -> Option<Body>
where
    C: EcdsaCurve + CurveArithmetic,
    Scalar<C>: Invert<Output = CtOption<Scalar<C>>>,
    SignatureSize<C>: ecdsa::elliptic_curve::array::ArraySize,
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

fn ed25519_body(seed: &[u8]) -> Option<Body> {
    let seed: &[u8; 32] = seed.try_into().ok()?;
    let hash = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(seed)));
    let (scalar, prefix) = hash.split_first_chunk::<32>()?;
    let scalar = Zeroizing::new(ed25519_clamp(*scalar));
    let mut body = Zeroizing::new(Vec::with_capacity(128));
    body.extend(scalar.iter().rev());
    body.extend_from_slice(prefix);
    body.extend_from_slice(ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().as_bytes());
    body.extend_from_slice(seed);
    Some(body)
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
    use super::*;

    /// Wire facts, section 7.2: the seed 00 01 … 1f.
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
