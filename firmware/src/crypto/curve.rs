//! Elliptic curves: from a curve's name to the crate that computes on it, and keys whose curve is not in their type.

use alloc::boxed::Box;
use core::marker::PhantomData;

use ecdsa::hazmat::sign_prehashed_rfc6979;
use ecdsa::{EcdsaCurve, SignatureSize, SigningKey};
use elliptic_curve::array::ArraySize;
use elliptic_curve::ops::Invert;
use elliptic_curve::subtle::CtOption;
use elliptic_curve::{CurveArithmetic, Scalar};
use sha2::digest::Digest;
use sha2::digest::block_api::BlockSizeUser;
use sshsm_protocol::Curve;

/// Evaluates an optional value with `$C` as the curve's type and `$D` as a hash as long as its scalars.
macro_rules! with_curve {
    ($curve:expr, $C:ident, $D:ident => $body:expr) => {
        match $curve {
            Curve::P224 => with_curve!(@on p224::NistP224, sha2::Sha256, $C, $D => $body),
            Curve::P256 => with_curve!(@on p256::NistP256, sha2::Sha256, $C, $D => $body),
            Curve::P384 => with_curve!(@on p384::NistP384, sha2::Sha384, $C, $D => $body),
            Curve::P521 => with_curve!(@on p521::NistP521, sha2::Sha512, $C, $D => $body),
            Curve::K256 => with_curve!(@on k256::Secp256k1, sha2::Sha256, $C, $D => $body),
            Curve::Bp256 => with_curve!(@on bp256::BrainpoolP256r1, sha2::Sha256, $C, $D => $body),
            Curve::Bp384 => with_curve!(@on bp384::BrainpoolP384r1, sha2::Sha384, $C, $D => $body),
            Curve::Bp512 => {
                with_curve!(@on crate::crypto::brainpool_p512::BrainpoolP512r1, sha2::Sha512, $C, $D => $body)
            }
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

/// A private key whose curve is not in its type.
pub(crate) trait EcKey {
    /// Signs a digest of any length, `r‖s` into the front of `signature`: RFC 6979 with added entropy, so never a
    /// repeated nonce even if the generator fails, and never the same signature twice, as clients of the protocol
    /// test.
    fn sign(&self, digest: &[u8], added: &[u8; 32], signature: &mut [u8]) -> Option<usize>;
}

struct Key<C: EcdsaCurve + CurveArithmetic, D> {
    key: SigningKey<C>,
    hash: PhantomData<D>,
}

impl<C, D> EcKey for Key<C, D>
where
    C: EcdsaCurve + CurveArithmetic,
    D: Digest + BlockSizeUser,
    Scalar<C>: Invert<Output = CtOption<Scalar<C>>>,
    SignatureSize<C>: ArraySize,
{
    fn sign(&self, digest: &[u8], added: &[u8; 32], signature: &mut [u8]) -> Option<usize> {
        let made = sign_prehashed_rfc6979::<C, D>(self.key.as_nonzero_scalar(), digest, added).0;
        let bytes = made.to_bytes();
        signature.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(bytes.len())
    }
}

/// The key with this scalar, as long as the curve's coordinates; `None` when it is out of range.
pub(crate) fn load(curve: Curve, scalar: &[u8]) -> Option<Box<dyn EcKey + Send>> {
    with_curve!(curve, C, D => {
        let key = SigningKey::<C>::from_slice(scalar).ok()?;
        Some(Box::new(Key::<C, D> { key, hash: PhantomData }))
    })
}

#[cfg(feature = "signatures")]
/// A fixed-length signature, `r‖s`, in DER, into `der`; returns its length.
pub(crate) fn to_der(curve: Curve, signature: &[u8], der: &mut [u8]) -> Option<usize> {
    with_curve!(curve, C, D => {
        let encoded = ecdsa::Signature::<C>::from_slice(signature).ok()?.to_der();
        der.get_mut(..encoded.len())?.copy_from_slice(encoded.as_bytes());
        Some(encoded.len())
    })
}
