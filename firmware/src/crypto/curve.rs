//! Elliptic curves: from a curve's name to the crate that implements it, and keys whose curve is not part of
//! their type.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ecdsa::hazmat::sign_prehashed_rfc6979;
use ecdsa::signature::hazmat::PrehashVerifier;
use ecdsa::{EcdsaCurve, SignatureSize, SigningKey, VerifyingKey};
use elliptic_curve::array::ArraySize;
use elliptic_curve::ecdh::diffie_hellman;
use elliptic_curve::ops::Invert;
use elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use elliptic_curve::subtle::CtOption;
use elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, PublicKey, Scalar};
use sha2::digest::Digest;
use sha2::digest::block_api::BlockSizeUser;
use sshsm_protocol::Curve;
use zeroize::Zeroizing;

/// Evaluates an optional value with `$C` as the curve's type and `$D` as a hash as long as its scalars;
/// `None` for a curve that is not in this build.
macro_rules! with_curve {
    ($curve:expr, $C:ident, $D:ident => $body:expr) => {
        match $curve {
            #[cfg(feature = "curves")]
            Curve::P224 => with_curve!(@on p224::NistP224, sha2::Sha256, $C, $D => $body),
            Curve::P256 => with_curve!(@on p256::NistP256, sha2::Sha256, $C, $D => $body),
            Curve::P384 => with_curve!(@on p384::NistP384, sha2::Sha384, $C, $D => $body),
            Curve::P521 => with_curve!(@on p521::NistP521, sha2::Sha512, $C, $D => $body),
            #[cfg(feature = "curves")]
            Curve::K256 => with_curve!(@on k256::Secp256k1, sha2::Sha256, $C, $D => $body),
            #[cfg(feature = "curves")]
            Curve::Bp256 => with_curve!(@on bp256::BrainpoolP256r1, sha2::Sha256, $C, $D => $body),
            #[cfg(feature = "curves")]
            Curve::Bp384 => with_curve!(@on bp384::BrainpoolP384r1, sha2::Sha384, $C, $D => $body),
            #[cfg(feature = "curves")]
            Curve::Bp512 => {
                with_curve!(@on crate::crypto::brainpool_p512::BrainpoolP512r1, sha2::Sha512, $C, $D => $body)
            }
            #[cfg(not(feature = "curves"))]
            Curve::P224 | Curve::K256 | Curve::Bp256 | Curve::Bp384 | Curve::Bp512 => None,
        }
    };
    (@on $curve:ty, $hash:ty, $C:ident, $D:ident => $body:expr) => {{
        #[allow(dead_code)]
        type $C = $curve;
        #[allow(dead_code)]
        type $D = $hash;
        $body
    }};
}
pub(crate) use with_curve;

/// A private key whose curve is not part of its type.
pub(crate) trait EcKey {
    /// Signs the leftmost bits of a digest of any length, and writes `r‖s` to the front of `signature`: RFC
    /// 6979 with added entropy, so a nonce never repeats even if the generator fails, and no signature
    /// repeats, as clients of the protocol test. `None` when the signature is not valid under `public`,
    /// `X‖Y`.
    fn sign(&self, public: &[u8], digest: &[u8], added: &[u8; 32], signature: &mut [u8]) -> Option<usize>;

    /// The x-coordinate of this key times a point in SEC1's uncompressed form; `None` when that is not a
    /// point of the curve.
    fn derive(&self, point: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

struct Key<C: EcdsaCurve + CurveArithmetic, D> {
    key: SigningKey<C>,
    order_bits: usize,
    hash: PhantomData<D>,
}

impl<C, D> EcKey for Key<C, D>
where
    C: EcdsaCurve + CurveArithmetic,
    D: Digest + BlockSizeUser,
    Scalar<C>: Invert<Output = CtOption<Scalar<C>>>,
    SignatureSize<C>: ArraySize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    fn sign(&self, public: &[u8], digest: &[u8], added: &[u8; 32], signature: &mut [u8]) -> Option<usize> {
        let public = VerifyingKey::<C>::from_sec1_bytes(&uncompressed(public)).ok()?;
        let leftmost = leftmost_bits(digest, self.order_bits);
        // RFC 6979 truncates the already truncated digest once more: adding the digest itself makes up for
        // the lost bits.
        let added = Zeroizing::new([added, digest].concat());
        let made = sign_prehashed_rfc6979::<C, D>(self.key.as_nonzero_scalar(), &leftmost, &added).0;
        public.verify_prehash(&leftmost, &made).ok()?;
        let bytes = made.to_bytes();
        signature.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(bytes.len())
    }

    fn derive(&self, point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        // Compressed points are SEC1 too, but no point of this protocol.
        let point = PublicKey::<C>::from_sec1_bytes(point).ok().filter(|_| point.first() == Some(&4))?;
        let shared = diffie_hellman(self.key.as_nonzero_scalar(), point.as_affine());
        Some(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
    }
}

/// SEC1's form of a point of which the coordinates are known, `X‖Y`.
fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    [&[4], coordinates].concat()
}

/// The number formed by the leftmost `bits` of a digest (FIPS 186-5, section 6.4.1, step 2), or by a shorter
/// digest as a whole. The `ecdsa` crate drops only whole bytes, and keeps the wrong bits of the rest.
fn leftmost_bits(digest: &[u8], bits: usize) -> Vec<u8> {
    let digest = digest.get(..bits.div_ceil(8)).unwrap_or(digest);
    let excess = (8 * digest.len()).saturating_sub(bits);
    let mut above = 0;
    let shift =
        |&byte: &u8| (u16::from(core::mem::replace(&mut above, byte)) << 8 | u16::from(byte)) >> excess;
    digest.iter().map(shift).map(|shifted| shifted.to_le_bytes()[0]).collect()
}

/// The key with this scalar, as long as the curve's coordinates; `None` when it is out of range.
pub(crate) fn load(curve: Curve, scalar: &[u8]) -> Option<Box<dyn EcKey + Send>> {
    with_curve!(curve, C, D => {
        let key = SigningKey::<C>::from_slice(scalar).ok()?;
        Some(Box::new(Key::<C, D> { key, order_bits: curve.order_bits(), hash: PhantomData }))
    })
}

/// Whether `X‖Y` is a point of the curve, each coordinate an element of its field. Every such point of these
/// curves except the identity, which has no such form, has the curve's order.
pub(crate) fn is_point(curve: Curve, point: &[u8]) -> bool {
    // SEC1's uncompressed form: 04 in front.
    let mut encoded = [4; 1 + 2 * Curve::P521.coordinate_length()];
    let length = 1 + point.len();
    let Some(room) = encoded.get_mut(1..length) else { return false };
    room.copy_from_slice(point);
    let (encoded, _) = encoded.split_at(length);
    with_curve!(curve, C, D => PublicKey::<C>::from_sec1_bytes(encoded).is_ok().then_some(())).is_some()
}

#[cfg(any(feature = "signatures", feature = "attestation"))]
/// A fixed-length signature, `r‖s`, in DER, into `der`; returns its length.
pub(crate) fn to_der(curve: Curve, signature: &[u8], der: &mut [u8]) -> Option<usize> {
    with_curve!(curve, C, D => {
        let encoded = ecdsa::Signature::<C>::from_slice(signature).ok()?.to_der();
        der.get_mut(..encoded.len())?.copy_from_slice(encoded.as_bytes());
        Some(encoded.len())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hex_literal::hex;
    use sshsm_protocol::AsymmetricAlgorithm;

    use super::super::key;
    use super::*;

    /// Whether the public key of `scalar` verifies the signature over a digest that has been truncated.
    fn verifies(curve: Curve, scalar: &[u8], leftmost: &[u8], signature: &[u8]) -> bool {
        with_curve!(curve, C, D => {
            let key = SigningKey::<C>::from_slice(scalar).unwrap();
            let signature = ecdsa::Signature::<C>::from_slice(signature).unwrap();
            Some(key.verifying_key().verify_prehash(leftmost, &signature).is_ok())
        })
        .unwrap()
    }

    #[test]
    fn every_curve_signs_digests_of_every_length_and_never_twice_alike() {
        for curve in Curve::ALL {
            let scalar = std::vec![0x5a; curve.coordinate_length()];
            // P-521: one bit in the first byte.
            let scalar = if curve == Curve::P521 { [&[0], &scalar[1..]].concat() } else { scalar };
            let key = load(curve, &scalar).unwrap();
            let body = key::expand(AsymmetricAlgorithm::Ec(curve), &scalar).unwrap();
            let public = key::public(AsymmetricAlgorithm::Ec(curve), &body).unwrap();
            for length in [20, 28, 32, 48, 64, 66] {
                let digest = std::vec![0xa7; length];
                let mut made = BTreeSet::new();
                for added in [[1; 32], [2; 32]] {
                    let mut signature = [0; 132];
                    let length = key.sign(public, &digest, &added, &mut signature).unwrap();
                    assert_eq!(length, 2 * curve.coordinate_length());
                    let leftmost = leftmost_bits(&digest, curve.order_bits());
                    assert!(verifies(curve, &scalar, &leftmost, &signature[..length]), "{curve:?}");
                    made.insert(signature);
                }
                assert_eq!(made.len(), 2);
            }
        }
    }

    /// OpenSSL 3.0 made these signatures over the whole digest.
    #[test]
    fn digests_longer_than_the_order_are_cut_as_openssl_does() {
        let digest = hex!(
            "3857a2bb2506b80ee0dbbc2626f15ec3a8a6b4faf196d8dd5b179632955a2798"
            "1c1cfa7f5ed45e769cba97c292fec8af5346ca16e6cefcd239755eaacbfb043c48f6"
        );
        let p521 = (
            hex!(
                "003b133bb747b7295aa8930d4691f03a806b581c2056ca777e88c1e17dcac099"
                "b89bf43176f0cb912e4ba07660faab97d8ad5820ac226206094e7ffc9cf68339ee1f"
            ),
            hex!(
                "00f6eb9f751e5d61c17cc7965c13bc1a3ec759a90c33ef62dda5bc40d5dfd3e9"
                "19e7d385fb068ff20bbfc29634019bbd33e4d28ebd3a21b40d749eb8f58c0a1cebaf"
                "019aa663105b365e5d9ec89899a61e98c93eaec507ed316188508c48578f439a"
                "373faea2099add0d32c777e0cb4f75ed4645657b0f923e9879ce36a826d18348d0ad"
            ),
        );
        let bp512 = (
            hex!(
                "26c917b99156c413d1a7a7dd1d14012f338bf97dce0c7a9e9d1ac9373f96436c"
                "fe2c4e48d4f4704d8e2bec8bbdcaddb43a71d120d6657b44ba07a7b6bb7f66c8"
            ),
            hex!(
                "745c938a99980f40ac4e9949238d63db9d88b073da9f63ae974365c9242cb4c9"
                "f78f7e731bb7970070078421d5d9abe20267c81dd6b1238b58c389bbfccfd5f6"
                "0c108671f2df61fa28a1df243db6cbd896b13e4f69a3f1ee3600f7fca989f802"
                "8a85119e6c279c996c9efd282a23561d82266ddd1af5b12597c070299ceb773d"
            ),
        );
        let verify = |curve: Curve, scalar: &[u8], digest: &[u8], signature: &[u8]| {
            verifies(curve, scalar, &leftmost_bits(digest, curve.order_bits()), signature)
        };
        for (curve, scalar, signature, kept) in [
            (Curve::P521, &p521.0[..], &p521.1[..], (65, 0x80)),
            (Curve::Bp512, &bp512.0[..], &bp512.1[..], (63, 0x01)),
        ] {
            assert!(verify(curve, scalar, &digest, signature), "{curve:?}");
            let mut other = digest;
            other[kept.0] ^= kept.1;
            assert!(!verify(curve, scalar, &other, signature), "{curve:?}: the last bit that counts");
            other = digest;
            other[65] ^= 0x40;
            assert!(verify(curve, scalar, &other, signature), "{curve:?}: a bit that does not count");
        }
    }
}
