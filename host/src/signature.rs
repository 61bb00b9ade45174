//! Signatures in the fixed length that the device's protocol has: RSA as long as the modulus, ECDSA `r‖s`, each as long
//! as a coordinate, Ed25519 64 bytes.
//!
//! Agents write `r` and `s` as SSH's mpints, and tokens may leave out zeros in front of both or of an RSA signature;
//! OpenSSH takes all of these, and so does this.

use sshsm_protocol::{AsymmetricAlgorithm, ssh::signature::SignatureAlgorithm};

use crate::integer::{fixed, mpint, string};

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

/// A signature as SSH has it, `string algorithm ‖ string signature`, by a key of kind `key`; `None` when it is not one
/// of `algorithm`.
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

/// Ed25519 signatures are no numbers, and have their length.
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
        /// The way out is the protocol's; the way back takes what it wrote, and what other writers write.
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
