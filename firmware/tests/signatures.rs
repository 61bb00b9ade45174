//! Signatures over data of the client's choice: they verify with the curves' and rsa crates, and each refusal
//! has its code.
#![cfg(feature = "signatures")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use ecdsa::signature::hazmat::PrehashVerifier;
use model::{ModelDevice, Object, Session, fresh};
use p256::elliptic_curve::PrimeField;
use rsa::{BoxedUint, Pss, PublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, Command, Curve, DeviceError};

type Answer = Result<Vec<u8>, DeviceError>;

const INVALID: Answer = Err(DeviceError::InvalidData);
const WRONG_LENGTH: Answer = Err(DeviceError::WrongLength);
/// Its front serves as the shorter digests.
const DIGEST: [u8; 66] = *b"\xf3 a digest of sixty-six bytes, whose first bytes are the shorter!\x99";

/// A device with the key as object 5, and a session that may do everything.
fn device_with(
    algorithm: AsymmetricAlgorithm,
    capabilities: &[Capability],
    private: Option<&[u8]>,
) -> (ModelDevice, Session) {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    let object = Object::new(5, algorithm.algorithm(), capabilities).with(private.unwrap_or_default());
    let command = if private.is_some() { Command::PutAsymmetricKey } else { Command::GenerateAsymmetricKey };
    session.send(&mut device, command, &object).unwrap();
    (device, session)
}

/// Whether a crate that the device does not use verifies a DER signature; there is none for brainpoolP512r1,
/// whose signatures the device's own tests compare with OpenSSL's.
fn verifies(curve: Curve, public: &[u8], digest: &[u8], der: &[u8]) -> bool {
    let point = [&[4], public].concat();
    macro_rules! verify {
        ($curve:ty) => {{
            let key = ecdsa::VerifyingKey::<$curve>::from_sec1_bytes(&point).unwrap();
            let signature = ecdsa::Signature::<$curve>::from_der(der).unwrap();
            key.verify_prehash(digest, &signature).is_ok()
        }};
    }
    match curve {
        Curve::P224 => verify!(p224::NistP224),
        Curve::P256 => verify!(p256::NistP256),
        Curve::P384 => verify!(p384::NistP384),
        Curve::P521 => verify!(p521::NistP521),
        Curve::K256 => verify!(k256::Secp256k1),
        Curve::Bp256 => verify!(bp256::BrainpoolP256r1),
        Curve::Bp384 => verify!(bp384::BrainpoolP384r1),
        Curve::Bp512 => (der[0], der[1], usize::from(der[2])) == (0x30, 0x81, der.len() - 3),
    }
}

#[test]
fn every_curve_signs_digests_of_every_length_with_generated_and_imported_keys() {
    for curve in Curve::ALL {
        let algorithm = AsymmetricAlgorithm::Ec(curve);
        let imported = [&[0][..], &vec![0x77; curve.coordinate_length() - 1]].concat();
        for private in [None, Some(&imported[..])] {
            let (mut device, mut session) = device_with(algorithm, &[Capability::SignEcdsa], private);
            let public = session.send(&mut device, Command::GetPublicKey, &[0, 5]).unwrap();
            assert_eq!(public[0], algorithm.algorithm().code());
            let mut sign = |length| {
                session.send(&mut device, Command::SignEcdsa, &[&[0, 5], &DIGEST[..length]].concat())
            };
            for length in [20, 28, 32, 48, 64, 66] {
                let signature = sign(length).unwrap();
                // 66 bytes are more than the bits of P-521's order: the last 7 bits do not count.
                let cut: Vec<u8> = match (curve, length) {
                    (Curve::P521, 66) => (0..66)
                        .map(|i| (if i > 0 { DIGEST[i - 1] << 1 } else { 0 }) | DIGEST[i] >> 7)
                        .collect(),
                    _ => DIGEST[..length].to_vec(),
                };
                assert!(verifies(curve, &public[1..], &cut, &signature), "{curve:?} {length}");
            }
            for length in [21, 27, 29, 31, 33, 47, 49, 63, 65] {
                assert_eq!(sign(length), WRONG_LENGTH, "{curve:?} {length}");
            }
        }
    }
}

/// The clients' test of the nonces, on the same number of signatures: every bit of a P-256 nonce is as often
/// 0 as 1.
#[test]
fn ecdsa_nonces_are_random_even_for_one_message() {
    let private = [0x77; 32];
    let p256 = AsymmetricAlgorithm::Ec(Curve::P256);
    let (mut device, mut session) = device_with(p256, &[Capability::SignEcdsa], Some(&private));
    let scalar = |bytes: &[u8]| p256::Scalar::from_repr(p256::FieldBytes::try_from(bytes).unwrap()).unwrap();
    let (key, digest) = (scalar(&private), [0x11; 32]);
    let mut set = [0; 256];
    for _ in 0..1024 {
        let der = session.send(&mut device, Command::SignEcdsa, &[&[0, 5][..], &digest].concat()).unwrap();
        let (r, s) = p256::ecdsa::Signature::from_der(&der).unwrap().split_scalars();
        let nonce = s.invert().unwrap() * (scalar(&digest) + *r * key);
        for (bit, count) in set.iter_mut().enumerate() {
            *count += u32::from(nonce.to_repr()[bit / 8] >> (bit % 8) & 1);
        }
    }
    assert!(set.iter().all(|count| (400..=624).contains(count)), "{set:?}");
}

fn rsa_public(device: &mut ModelDevice, session: &mut Session) -> PublicKey {
    let key = session.send(device, Command::GetPublicKey, &[0, 5]).unwrap();
    let modulus = BoxedUint::from_be_slice_vartime(&key[1..]);
    PublicKey::new(modulus, 65_537_u32.into()).unwrap()
}

fn pss(mgf: u8, salt_length: usize, digest: &[u8]) -> Vec<u8> {
    [&[0, 5, mgf], &u16::try_from(salt_length).unwrap().to_be_bytes()[..], digest].concat()
}

#[test]
fn pss_signatures_verify_with_salts_from_none_to_the_longest() {
    for algorithm in [AsymmetricAlgorithm::Rsa2048, AsymmetricAlgorithm::Rsa3072] {
        let (mut device, mut session) = device_with(algorithm, &[Capability::SignPss], None);
        let public = rsa_public(&mut device, &mut session);
        let length = algorithm.modulus_length().unwrap();
        let mut sign = |payload: &[u8]| session.send(&mut device, Command::SignPss, payload);
        macro_rules! check {
            ($($hash:ty, $mgf:ident, $other:ident;)*) => {$(
                let digest = <$hash>::digest(b"message");
                let longest = length - digest.len() - 2;
                for salt_length in [0, digest.len(), longest] {
                    let payload = pss(Algorithm::$mgf.code(), salt_length, &digest);
                    let signature = sign(&payload).unwrap();
                    public.verify(Pss::<$hash>::new_with_salt(salt_length), &digest, &signature).unwrap();
                    assert_ne!(sign(&payload).unwrap() == signature, salt_length > 0, "random salt");
                    // Another hash for the mask makes another signature, of the right length.
                    let signature = sign(&pss(Algorithm::$other.code(), salt_length, &digest)).unwrap();
                    assert_eq!(signature.len(), length);
                    public.verify(Pss::<$hash>::new_with_salt(salt_length), &digest, &signature).unwrap_err();
                }
                for longer in [longest + 1, 0xffff] {
                    assert_eq!(sign(&pss(Algorithm::$mgf.code(), longer, &digest)), INVALID);
                }
            )*};
        }
        check! {
            Sha1, Mgf1Sha1, Mgf1Sha256; Sha256, Mgf1Sha256, Mgf1Sha1;
            Sha384, Mgf1Sha384, Mgf1Sha1; Sha512, Mgf1Sha512, Mgf1Sha384;
        }
        for mgf in [0, 31, 36, 255] {
            assert_eq!(sign(&pss(mgf, 0, &[1; 32])), INVALID);
        }
        for length in [21, 28, 31, 33, 47, 49, 63] {
            assert_eq!(sign(&pss(33, 0, &vec![1; length])), WRONG_LENGTH, "{length}");
        }
    }
}

#[test]
fn each_kind_of_signature_needs_its_own_capability_and_kind_of_key() {
    let kinds = [
        (Command::SignPkcs1, Capability::SignPkcs, [&[0, 5][..], &[1; 32]].concat()),
        (Command::SignPss, Capability::SignPss, pss(33, 0, &[1; 32])),
        (Command::SignEcdsa, Capability::SignEcdsa, [&[0, 5][..], &[1; 32]].concat()),
        (Command::SignEddsa, Capability::SignEddsa, vec![0, 5]),
    ];
    let keys =
        [AsymmetricAlgorithm::Rsa2048, AsymmetricAlgorithm::Ec(Curve::P256), AsymmetricAlgorithm::Ed25519];
    for (command, capability, mut payload) in kinds.clone() {
        let others: Vec<_> = kinds.iter().map(|kind| kind.1).filter(|&other| other != capability).collect();
        for algorithm in keys {
            let (mut device, mut session) = device_with(algorithm, &others, None);
            let refused = Err(DeviceError::InsufficientPermissions);
            assert_eq!(session.send(&mut device, command, &payload), refused, "{command} {algorithm}");
            let (mut device, mut session) = device_with(algorithm, &[capability], None);
            let right = match command {
                Command::SignPkcs1 | Command::SignPss => algorithm.modulus_length().is_some(),
                Command::SignEcdsa => matches!(algorithm, AsymmetricAlgorithm::Ec(_)),
                _ => algorithm == AsymmetricAlgorithm::Ed25519,
            };
            let answer = session.send(&mut device, command, &payload);
            assert!(if right { answer.is_ok() } else { answer == INVALID }, "{command} {algorithm}");
        }
        let (mut device, mut session) = device_with(AsymmetricAlgorithm::Ed25519, &[], None);
        payload[1] = 6;
        assert_eq!(session.send(&mut device, command, &payload), Err(DeviceError::ObjectNotFound));
    }
}

/// The length is checked before the key, the key before the operation.
#[test]
fn refusals_come_in_the_devices_order() {
    let (mut device, mut session) = device_with(AsymmetricAlgorithm::Rsa2048, &[], None);
    let mut pss = |id: u8, mgf, digest: &[u8]| {
        let mut payload = pss(mgf, 0, digest);
        payload[1] = id;
        session.send(&mut device, Command::SignPss, &payload)
    };
    assert_eq!(pss(6, 99, &[1; 33]), WRONG_LENGTH);
    assert_eq!(pss(6, 99, &[1; 32]), Err(DeviceError::ObjectNotFound));
    assert_eq!(pss(5, 99, &[1; 32]), Err(DeviceError::InsufficientPermissions));
}
