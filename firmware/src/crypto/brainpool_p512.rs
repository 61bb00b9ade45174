//! brainpoolP512r1 (RFC 5639, section 3.7), for which the RustCrypto curves have no crate yet.
//!
//! Only the curve's parameters are here, declared as `bp384` declares its own; the arithmetic is that of
//! `primefield` and `primeorder`, on `crypto-bigint`.
#![allow(unreachable_pub)] // their macros make public types

use ecdsa::EcdsaCurve;
use elliptic_curve::bigint::{Odd, U512};
use elliptic_curve::consts::U64;
use elliptic_curve::hazmat::FieldArithmetic;
use elliptic_curve::point::PointCompression;
use elliptic_curve::{Curve, CurveArithmetic, PrimeCurve, PrimeCurveArithmetic};
use primeorder::{PrimeCurveParams, mul_backend, point_arithmetic};

use self::field::FieldElement;
use self::scalar::Scalar;

const MODULUS: &str = concat!(
    "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330871",
    "7d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c68528aa6056583a48f3",
);
const ORDER: &str = concat!(
    "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870",
    "553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069",
);

/// brainpoolP512r1.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, PartialOrd, Ord)]
pub struct BrainpoolP512r1;

impl Curve for BrainpoolP512r1 {
    type FieldBytesSize = U64;
    type Uint = U512;
    const ORDER: Odd<U512> = Odd::<U512>::from_be_hex(ORDER);
}

impl PrimeCurve for BrainpoolP512r1 {}

impl PointCompression for BrainpoolP512r1 {
    const COMPRESS_POINTS: bool = false;
}

impl EcdsaCurve for BrainpoolP512r1 {
    const NORMALIZE_S: bool = false;
}

impl CurveArithmetic for BrainpoolP512r1 {
    type AffinePoint = primeorder::AffinePoint<Self>;
    type ProjectivePoint = primeorder::ProjectivePoint<Self>;
    type Scalar = Scalar;
}

impl FieldArithmetic for BrainpoolP512r1 {
    type FieldElement = FieldElement;
}

impl PrimeCurveArithmetic for BrainpoolP512r1 {
    type CurveGroup = primeorder::ProjectivePoint<Self>;
}

impl PrimeCurveParams for BrainpoolP512r1 {
    type PointArithmetic = point_arithmetic::EquationAIsGeneric;
    type Backend = mul_backend::VariableOnly;

    const EQUATION_A: FieldElement = FieldElement::from_hex_vartime(concat!(
        "7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc",
        "2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94ca",
    ));
    const EQUATION_B: FieldElement = FieldElement::from_hex_vartime(concat!(
        "3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a7",
        "2bf2c7b9e7c1ac4d77fc94cadc083e67984050b75ebae5dd2809bd638016f723",
    ));
    const GENERATOR: (FieldElement, FieldElement) = (
        FieldElement::from_hex_vartime(concat!(
            "81aee4bdd82ed9645a21322e9c4c6a9385ed9f70b5d916c1b43b62eef4d0098e",
            "ff3b1f78e2d0d48d50d1687b93b97d5f7c6d5047406a5e688b352209bcb9f822",
        )),
        FieldElement::from_hex_vartime(concat!(
            "7dde385d566332ecc0eabfa9cf7822fdf209f70024a57b1aa000c55b881f8111",
            "b2dcde494a5f485e5bca4bd88a2763aed1ca2b2fa8f0540678cd1e0f3ad80892",
        )),
    );
}

// Square roots require the multiplicative generator to be a non-square. The ones below are not q-th powers
// either, for any prime factor q under 2^20 of their group's order.

#[allow(deprecated, reason = "what the macros of primefield 0.14 call")]
mod field {
    use elliptic_curve::bigint::U512;
    use elliptic_curve::ff::PrimeField;
    use elliptic_curve::ops::BatchInvert;
    use elliptic_curve::subtle::{Choice, ConstantTimeEq, CtOption};

    primefield::monty_field_params! {
        name: FieldParams,
        modulus: super::MODULUS,
        uint: U512,
        byte_order: primefield::ByteOrder::BigEndian,
        multiplicative_generator: 2,
        doc: "The coordinates' modulus."
    }
    primefield::monty_field_element! {
        name: FieldElement,
        params: FieldParams,
        uint: U512,
        doc: "A coordinate."
    }
    primefield::monty_field_arithmetic! {
        name: FieldElement,
        params: FieldParams,
        uint: U512
    }

    impl BatchInvert for FieldElement {}
}

#[allow(deprecated, reason = "what the macros of primefield 0.14 call")]
mod scalar {
    use elliptic_curve::Curve;
    use elliptic_curve::bigint::U512;
    use elliptic_curve::ff::PrimeField;
    use elliptic_curve::scalar::{FromUintUnchecked, IsHigh};
    use elliptic_curve::subtle::{Choice, ConstantTimeEq, ConstantTimeGreater, CtOption};
    use primeorder::wnaf;

    use super::BrainpoolP512r1;

    primefield::monty_field_params! {
        name: ScalarParams,
        modulus: super::ORDER,
        uint: U512,
        byte_order: primefield::ByteOrder::BigEndian,
        multiplicative_generator: 7,
        doc: "The scalars' modulus, the curve's order."
    }
    primefield::monty_field_element! {
        name: Scalar,
        params: ScalarParams,
        uint: U512,
        doc: "A scalar."
    }
    primefield::monty_field_arithmetic! {
        name: Scalar,
        params: ScalarParams,
        uint: U512
    }
    primefield::monty_field_reduce! {
        name: Scalar,
        params: ScalarParams,
        uint: U512,
    }
    elliptic_curve::scalar_impls!(BrainpoolP512r1, Scalar);
    wnaf::impl_wnaf_size_for_scalar!(Scalar);

    impl AsRef<Scalar> for Scalar {
        fn as_ref(&self) -> &Scalar {
            self
        }
    }

    impl FromUintUnchecked for Scalar {
        type Uint = U512;

        fn from_uint_unchecked(uint: U512) -> Self {
            Self::from_uint_unchecked(uint)
        }
    }

    impl IsHigh for Scalar {
        fn is_high(&self) -> Choice {
            const HALF: U512 = BrainpoolP512r1::ORDER.as_ref().shr_vartime(1);
            self.to_canonical().ct_gt(&HALF)
        }
    }
}

#[cfg(test)]
mod tests {
    use elliptic_curve::PublicKey;
    use elliptic_curve::bigint::U512;
    use elliptic_curve::ecdh::diffie_hellman;

    use super::*;

    mod field_properties {
        use super::{FieldElement, U512};
        primefield::test_primefield!(FieldElement, U512);
    }

    mod scalar_properties {
        use super::{Scalar, U512};
        primefield::test_primefield!(Scalar, U512);
    }

    type SecretKey = elliptic_curve::SecretKey<BrainpoolP512r1>;

    fn bytes(hex: &str) -> [u8; 64] {
        U512::from_be_hex(hex).to_be_bytes().into()
    }

    fn public(x: &str, y: &str) -> PublicKey<BrainpoolP512r1> {
        let point = [&[4], &bytes(x)[..], &bytes(y)].concat();
        PublicKey::from_sec1_bytes(&point).unwrap()
    }

    /// RFC 7027, appendix A.3.
    #[test]
    fn the_published_key_agreement_comes_out() {
        let alice = SecretKey::from_slice(&bytes(concat!(
            "16302ff0dbbb5a8d733dab7141c1b45acbc8715939677f6a56850a38bd87bd59",
            "b09e80279609ff333eb9d4c061231fb26f92eeb04982a5f1d1764cad57665422",
        )))
        .unwrap();
        let alice_public = public(
            concat!(
                "0a420517e406aac0acdce90fcd71487718d3b953efd7fbec5f7f27e28c614999",
                "9397e91e029e06457db2d3e640668b392c2a7e737a7f0bf04436d11640fd09fd",
            ),
            concat!(
                "72e6882e8db28aad36237cd25d580db23783961c8dc52dfa2ec138ad472a0fce",
                "f3887cf62b623b2a87de5c588301ea3e5fc269b373b60724f5e82a6ad147fde7",
            ),
        );
        let bob = SecretKey::from_slice(&bytes(concat!(
            "230e18e1bcc88a362fa54e4ea3902009292f7f8033624fd471b5d8ace49d12cf",
            "abbc19963dab8e2f1eba00bffb29e4d72d13f2224562f405cb80503666b25429",
        )))
        .unwrap();
        let bob_public = public(
            concat!(
                "9d45f66de5d67e2e6db6e93a59ce0bb48106097ff78a081de781cdb31fce8ccb",
                "aaea8dd4320c4119f1e9cd437a2eab3731fa9668ab268d871deda55a5473199f",
            ),
            concat!(
                "2fdc313095bcdd5fb3a91636f07a959c8e86b5636a1e930e8396049cb481961d",
                "365cc11453a06c719835475b12cb52fc3c383bce35e27ef194512b71876285fa",
            ),
        );
        assert_eq!(alice.public_key(), alice_public);
        assert_eq!(bob.public_key(), bob_public);
        let shared = bytes(concat!(
            "a7927098655f1f9976fa50a9d566865dc530331846381c87256baf3226244b76",
            "d36403c024d7bbf0aa0803eaff405d3d24f11a9b5c0bef679fe1454b21c4cd1f",
        ));
        for (private, public) in [(&alice, bob_public), (&bob, alice_public)] {
            let derived = diffie_hellman(private.to_nonzero_scalar(), public.as_affine());
            assert_eq!(derived.raw_secret_bytes()[..], shared);
        }
    }
}
