//! Signatures in the fixed length of the device's protocol: RSA as long as the modulus, ECDSA `r‖s`, each as
//! long as a coordinate, Ed25519 64 bytes.
//!
//! Agents write `r` and `s` as SSH's mpints, and tokens may omit leading zeros of both or of an RSA
//! signature; OpenSSH accepts all of these, and so does this.

use rsa::{
    pkcs1v15::{self, VerifyingKey},
    signature::Verifier as _,
};
use ssh_encoding::Encode as _;
use ssh_key::{EcdsaCurve, Signature, public::KeyData};
use sshsm_firmware::ssh::subject::MAX_RSA_BITS;
use sshsm_protocol::{AsymmetricAlgorithm, ssh::signature::SignatureAlgorithm};

use crate::integer::{fixed, mpint, string};

/// Why a signature does not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is not of the key, not over these bytes, or not a signature.
    #[error("the signature is not that of the key {fingerprint}")]
    Wrong {
        /// The key's, SHA-256.
        fingerprint: String,
    },
    /// A kind of key, or of signature, that cannot be verified here.
    #[error("signatures of type {algorithm:?} by the key {fingerprint} cannot be verified by this program")]
    Unsupported {
        /// The type that the signature names.
        algorithm: String,
        /// The key's fingerprint, SHA-256.
        fingerprint: String,
    },
}

/// Verifies a signature in SSH's form, `string algorithm ‖ string signature`, over `message`. Like OpenSSH,
/// it accepts numbers with any leading zeros, and RSA with any of its three digests.
///
/// # Errors
/// [`VerifyError`].
pub(crate) fn verify(key: &KeyData, message: &[u8], blob: &[u8]) -> Result<(), VerifyError> {
    let fingerprint = || key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    let wrong = || VerifyError::Wrong { fingerprint: fingerprint() };
    let mut reader = blob;
    let name = string(&mut reader).map_err(|_| wrong())?;
    let unsupported = || VerifyError::Unsupported {
        algorithm: String::from_utf8_lossy(name).into_owned(),
        fingerprint: fingerprint(),
    };
    let shortest = match key {
        KeyData::Rsa(public) => {
            let signature = string(&mut reader).map_err(|_| wrong())?;
            if !reader.is_empty() {
                return Err(wrong());
            }
            let numbers =
                [public.n(), public.e()].map(|number| number.as_positive_bytes().unwrap_or_default());
            let length = numbers[0].len();
            let [n, e] = numbers.map(rsa::BoxedUint::from_be_slice_vartime);
            // As long as OpenSSH reads them.
            let bits = rsa::PublicKey::MIN_SIZE..=MAX_RSA_BITS;
            let key = rsa::PublicKey::new_with_size_limits(n, e, bits).map_err(|_| unsupported())?;
            let signature = fixed(signature, length).ok_or_else(wrong)?;
            let signature = pkcs1v15::Signature::from_bytes_with_max_len(&signature, MAX_RSA_BITS / 8);
            let signature = signature.map_err(|_| wrong())?;
            return match name {
                b"ssh-rsa" => VerifyingKey::<sha1::Sha1>::new(key).verify(message, &signature),
                b"rsa-sha2-256" => VerifyingKey::<sha2::Sha256>::new(key).verify(message, &signature),
                b"rsa-sha2-512" => VerifyingKey::<sha2::Sha512>::new(key).verify(message, &signature),
                _ => return Err(wrong()),
            }
            .map_err(|_| wrong());
        }
        KeyData::Ecdsa(public) => {
            let length = match public.curve() {
                EcdsaCurve::NistP256 => 32,
                EcdsaCurve::NistP384 => 48,
                EcdsaCurve::NistP521 => 66,
            };
            let mut both = string(&mut reader).map_err(|_| wrong())?;
            let mut number = || fixed(mpint(&mut both).ok()?, length);
            let (r, s) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
            if !both.is_empty() {
                return Err(wrong());
            }
            [name.encode_vec(), ecdsa_numbers(&r, &s).ok_or_else(wrong)?.encode_vec()]
        }
        KeyData::Ed25519(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
            let rest = std::mem::take(&mut reader);
            [name.encode_vec(), Ok(rest.to_vec())]
        }
        _ => return Err(unsupported()),
    };
    if !reader.is_empty() {
        return Err(wrong());
    }
    let [name, signature] = shortest.map(|part| part.map_err(|_| wrong()));
    let signature = Signature::try_from([name?, signature?].concat().as_slice()).map_err(|_| wrong())?;
    key.verify(message, &signature).map_err(|_| wrong())
}

/// `mpint r ‖ mpint s`, each in its shortest form.
fn ecdsa_numbers(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for number in [r, s] {
        ssh_key::Mpint::from_positive_bytes(crate::integer::minimal(number)).encode(&mut out).ok()?;
    }
    Some(out)
}

/// A signature as PKCS#11 has it, by a key of kind `key`; `None` when its length is not one that it can have.
pub(crate) fn from_token(key: AsymmetricAlgorithm, signature: &[u8]) -> Option<Vec<u8>> {
    match key {
        AsymmetricAlgorithm::Ec(curve) => {
            // Both numbers have the same length there, whatever it is.
            let half = signature.len().is_multiple_of(2).then_some(signature.len() / 2)?;
            let (r, s) = signature.split_at_checked(half)?;
            numbers(r, s, curve.coordinate_length())
        }
        _ => one(key, signature),
    }
}

/// A signature in SSH's form, `string algorithm ‖ string signature`, by a key of kind `key`; `None` when it
/// is not one of `algorithm`.
pub(crate) fn from_ssh(
    key: AsymmetricAlgorithm,
    algorithm: SignatureAlgorithm,
    blob: &[u8],
) -> Option<Vec<u8>> {
    let mut reader = blob;
    let name = string(&mut reader).ok()?;
    let mut signature = string(&mut reader).ok()?;
    if name != algorithm.name().as_bytes() || !reader.is_empty() {
        return None;
    }
    match key {
        AsymmetricAlgorithm::Ec(curve) => {
            let (r, s) = (mpint(&mut signature).ok()?, mpint(&mut signature).ok()?);
            signature.is_empty().then(|| numbers(r, s, curve.coordinate_length())).flatten()
        }
        _ => one(key, signature),
    }
}

fn numbers(r: &[u8], s: &[u8], length: usize) -> Option<Vec<u8>> {
    Some([fixed(r, length)?.as_slice(), fixed(s, length)?.as_slice()].concat())
}

/// Ed25519 signatures are not numbers, and have a fixed length.
fn one(key: AsymmetricAlgorithm, signature: &[u8]) -> Option<Vec<u8>> {
    match key {
        AsymmetricAlgorithm::Ed25519 => {
            (signature.len() == key.signature_length()).then(|| signature.to_vec())
        }
        _ => fixed(signature, key.signature_length()).map(|signature| signature.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integer::minimal;
    use proptest::prelude::*;
    use sshsm_protocol::Curve;

    /// A number of `length` bytes that begins with up to all of them zero.
    fn number(length: usize) -> impl Strategy<Value = Vec<u8>> {
        (0..=length, prop::collection::vec(any::<u8>(), length)).prop_map(|(zeros, mut number)| {
            number[..zeros].fill(0);
            number
        })
    }

    fn field(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    proptest! {
        /// Encoding follows the protocol; decoding accepts that form and those of other writers.
        #[test]
        fn ecdsa_numbers_keep_their_value_whatever_zeros_they_begin_with(
            numbers in (0..3_usize).prop_flat_map(|which| {
                let curve = [Curve::P256, Curve::P384, Curve::P521][which];
                let length = curve.coordinate_length();
                (Just(curve), number(length), number(length), 0..4_usize)
            })
        ) {
            let (curve, r, s, more) = numbers;
            let key = AsymmetricAlgorithm::Ec(curve);
            let algorithm = SignatureAlgorithm::of_key(key).unwrap();
            let fixed = [r.as_slice(), &s].concat();
            let mut written = Vec::new();
            algorithm.encode_field(&fixed, &mut written).unwrap();
            prop_assert_eq!(from_ssh(key, algorithm, &written[4..]), Some(fixed.clone()));
            let loose = |number: &[u8]| field(&[&vec![0; 1 + more], minimal(number)].concat());
            let loose = [field(algorithm.name().as_bytes()), field(&[loose(&r), loose(&s)].concat())].concat();
            prop_assert_eq!(from_ssh(key, algorithm, &loose), Some(fixed.clone()));
            prop_assert_eq!(from_token(key, &fixed), Some(fixed.clone()));
            // As short as the longer of the two, and longer than the curve's.
            let longest = minimal(&r).len().max(minimal(&s).len());
            let cut = |number: &[u8], to| crate::integer::fixed(number, to).unwrap().to_vec();
            for length in [longest, r.len() + more] {
                let cut = [cut(&r, length), cut(&s, length)].concat();
                prop_assert_eq!(from_token(key, &cut), Some(fixed.clone()));
            }
        }

        #[test]
        fn rsa_signatures_keep_their_value_whatever_zeros_they_begin_with(signature in number(256)) {
            let (key, algorithm) = (AsymmetricAlgorithm::Rsa2048, SignatureAlgorithm::RsaSha256);
            let blob = [field(algorithm.name().as_bytes()), field(minimal(&signature))].concat();
            prop_assert_eq!(from_ssh(key, algorithm, &blob), Some(signature.clone()));
            prop_assert_eq!(from_token(key, minimal(&signature)), Some(signature));
        }
    }

    #[test]
    fn what_is_too_long_odd_or_of_another_algorithm_is_refused() {
        let p256 = AsymmetricAlgorithm::Ec(Curve::P256);
        assert_eq!(from_token(p256, &[1; 63]), None);
        assert_eq!(from_token(p256, &[1; 66]), None);
        assert_eq!(from_token(AsymmetricAlgorithm::Rsa2048, &[1; 257]), None);
        assert_eq!(from_token(AsymmetricAlgorithm::Ed25519, &[0; 63]), None);
        assert_eq!(from_token(AsymmetricAlgorithm::Ed25519, &[0; 64]), Some(vec![0; 64]));
        let blob = [field(b"rsa-sha2-512"), field(&[1; 256])].concat();
        let of = |algorithm| from_ssh(AsymmetricAlgorithm::Rsa2048, algorithm, &blob);
        assert_eq!(of(SignatureAlgorithm::RsaSha512), Some(vec![1; 256]));
        assert_eq!(of(SignatureAlgorithm::RsaSha256), None);
    }
}
