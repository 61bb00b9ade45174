//! RSA decryption and ECDH over the wire: the results, and the error code of each refusal.
#![cfg(feature = "decryption")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use hex_literal::hex;
use model::{ModelDevice, Object, Session, fresh};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::hazmat::rsa_encrypt;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, Oaep, Pkcs1v15Encrypt, PublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, Command, Curve, DeviceError};

type Answer = Result<Vec<u8>, DeviceError>;

const INVALID: Answer = Err(DeviceError::InvalidData);
const WRONG_LENGTH: Answer = Err(DeviceError::WrongLength);

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

fn rsa_public(device: &mut ModelDevice, session: &mut Session) -> PublicKey {
    let key = session.send(device, Command::GetPublicKey, &[0, 5]).unwrap();
    let modulus = BoxedUint::from_be_slice_vartime(&key[1..]);
    PublicKey::new(modulus, 65_537_u32.into()).unwrap()
}

struct Agreement<'a> {
    curve: Curve,
    private: &'a [u8],
    point: &'a [u8],
    shared: &'a [u8],
}

/// Computed with OpenSSL 3.0; the shared x-coordinates were chosen to begin with a zero byte.
fn agreements() -> [Agreement<'static>; 8] {
    [
        Agreement {
            curve: Curve::P224,
            private: &hex!("3802b04e9234245764e0c593756329a28ed5c5ebcc90dba45684abb2"),
            point: &hex!(
                "04b1c76ef2c6777195f0d2d18af55bc6eb7ddefc0274c355228ed232afdbe1aa18b718923bc18bfcc507"
                "1e73ec526698583fb9b0e054d99d88"
            ),
            shared: &hex!("00ed9cd1565dc699850ab9cdaab74439cab34dfd8404945b272011fe"),
        },
        Agreement {
            curve: Curve::P256,
            private: &hex!("55f07c1db6179d3892709b07132e7b42c3f2a5c7756d3d73f0cb14b240a7f127"),
            point: &hex!(
                "0422d332ebc6e992c636a2b20ca65323b8ef8cd6b576439c0769fbaf5a4786194050b9fe91d4b95c0aca"
                "35b3483a36c017397578d1a2c1d81fb23005c5a63aae37"
            ),
            shared: &hex!("00e21cf34b0965ca8718d9aecabbb0013d97047ed1a9f066f6e9e868677c8d13"),
        },
        Agreement {
            curve: Curve::P384,
            private: &hex!(
                "2c4345db561253dfe735b48005b4cc87f084a8154fe501bc121adf17b8fecc9ba35ee10b94763aa4c0bd"
                "3bf696cf3074"
            ),
            point: &hex!(
                "048f6f822f0fea98f3d9416eb6f7f0cfd98a51d860466d6987a5f0514d16e583e2f4f4a656ad12f39105"
                "a59a305a7ae327e7efe1f15fd60a076bf797ecd22d8d12a8032aa413494c8d2c99cbc0cf180af72bc8fc"
                "7fc24ad71d6bdebc5f6a72cdfd"
            ),
            shared: &hex!(
                "006ef09c9defa0dca8fd93bd400857c64fa7a6c91516208581cdd678d129f641746aec0c6d6c750c762c"
                "a5fdb133d017"
            ),
        },
        Agreement {
            curve: Curve::P521,
            private: &hex!(
                "003b133bb747b7295aa8930d4691f03a806b581c2056ca777e88c1e17dcac099b89bf43176f0cb912e4b"
                "a07660faab97d8ad5820ac226206094e7ffc9cf68339ee1f"
            ),
            point: &hex!(
                "04001b0c5a502f276518de94ba080288ad4f45005bca6091c85af4bb62cc8a849530a99edd227f5fd278"
                "c055c113648870a1c2172510e9e12eb2582ff81b80649fe6a5006d4718a4e49a3d97375d079554b60afa"
                "aaa876877f9aa6c22aaca3da6733a7e9b4f31a6c6a46a03910b5f4d33b298578b0b258b2307ccd77b595"
                "865a7ef56478e7"
            ),
            shared: &hex!(
                "00d3bee2814d6d58bb678f8bc112998720e9d7f3af43b4e187742c82b5ea4cb8e0f99ddf8f96f510c269"
                "60b7c56d124a41dd9da8f8fb17963b0badc793e296950ae0"
            ),
        },
        Agreement {
            curve: Curve::K256,
            private: &hex!("58a5a5a0e846326a2f0a46b237687940dcf814ecdb78bc32646e828ea31f7754"),
            point: &hex!(
                "048213abd134d0d6eaa5ccc109217aea8af2f16ce40b37c19592bd4525664979a67cc3f7dbcb3d7dbce0"
                "97dcb6c0c552ae27aa3948edc53d2d9380d8cb846d006f"
            ),
            shared: &hex!("002274e4acc56226d180ef1e870cef0af9a9705aab043e09dfdcdbc5d5f86d79"),
        },
        Agreement {
            curve: Curve::Bp256,
            private: &hex!("41afee21da3edbfc1e64e0a173534c34da91818ea27520f757cd6eefbc223e51"),
            point: &hex!(
                "045939c93bafc78f94c3df4b1f025b409e4c08536f509c122f63668adb240f7b8320994d0485ee013ec4"
                "47b30aa490d19b9bacc73b00a650fee885e43d2ea0ba5c"
            ),
            shared: &hex!("00f4101b89bfa96d86038de60039e5e84748fb3f17ad07979f9c2f30711d2449"),
        },
        Agreement {
            curve: Curve::Bp384,
            private: &hex!(
                "308056b87c1113d519a885c726bf5a959421e61df921bc4d9389e7c08e70da25630d201433731d7764e8"
                "6bb701b3b97b"
            ),
            point: &hex!(
                "044077793d14f0028539a04566cf21d250861361849a54a38b9e7e4df84540c00a293bcdf72529b785e4"
                "68fe4c916d47aa5d800cee19e6592cfef5dfe2c3a56b25d1d0b8ebcbce68028bf5483ab9ad3de97b5772"
                "189daae163648596c35abf02d6"
            ),
            shared: &hex!(
                "009d1bb48ed97bbe425f6ac1e3bbe84dbc928627934bb19c563250bfbff44a39dc8e3ad9f068f0f1f910"
                "a3a15a4c13d8"
            ),
        },
        Agreement {
            curve: Curve::Bp512,
            private: &hex!(
                "26c917b99156c413d1a7a7dd1d14012f338bf97dce0c7a9e9d1ac9373f96436cfe2c4e48d4f4704d8e2b"
                "ec8bbdcaddb43a71d120d6657b44ba07a7b6bb7f66c8"
            ),
            point: &hex!(
                "043ae650ac86d0080077596949c4cfd4387d0606c5eee0d8db3313244237efee72e55ec63d292a3c651c"
                "a8e771c7cf7b7d244c53319b5cc7270523f24a60f750161a09c1d666805ff3a9a6ea2d48a533866e4097"
                "a604b89a58e392b44de0a1b94b5d8cfaebe4c81b256b42adcdf9df9c6012994f1f73443c244e40c18bcf"
                "441f5a"
            ),
            shared: &hex!(
                "0077097053af810bfdc32abdc2b5f814c5f1315ad0a9e663851ca41be82429768b75114d56e5927bd011"
                "1e38cbd69b51b002672ff87029349b9939caf7e109dd"
            ),
        },
    ]
}

fn derive(device: &mut ModelDevice, session: &mut Session, point: &[u8]) -> Answer {
    session.send(device, Command::DeriveEcdh, &[&[0, 5], point].concat())
}

#[test]
fn every_curve_derives_the_whole_coordinate_of_the_shared_point() {
    for Agreement { curve, private, point, shared } in agreements() {
        let ecdh = [Capability::DeriveEcdh];
        let (mut device, mut session) = device_with(AsymmetricAlgorithm::Ec(curve), &ecdh, Some(private));
        assert_eq!(derive(&mut device, &mut session, point).unwrap(), shared, "{curve:?}");
    }
}

#[test]
fn a_point_off_the_curve_is_invalid_and_other_bytes_have_the_wrong_length() {
    for Agreement { curve, private, point, .. } in agreements() {
        let ecdh = [Capability::DeriveEcdh];
        let (mut device, mut session) = device_with(AsymmetricAlgorithm::Ec(curve), &ecdh, Some(private));
        let mut derive = |point: &[u8]| derive(&mut device, &mut session, point);
        let mut off_curve = point.to_vec();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(derive(&off_curve), INVALID, "{curve:?}");
        for byte in [0, 0xff] {
            assert_eq!(derive(&[&[4], &vec![byte; point.len() - 1][..]].concat()), INVALID, "{curve:?}");
        }
        for tag in [0, 2, 3, 5, 6, 7] {
            assert_eq!(derive(&[&[tag], &point[1..]].concat()), INVALID, "{curve:?} {tag}");
        }
        assert_eq!(derive(&point[..point.len() - 1]), WRONG_LENGTH, "{curve:?}");
        assert_eq!(derive(&[point, &[0]].concat()), WRONG_LENGTH, "{curve:?}");
        let compressed = [&[2 + (point.last().unwrap() & 1)], &point[1..=point.len() / 2]].concat();
        assert_eq!(derive(&compressed), WRONG_LENGTH, "{curve:?}");
        assert!(derive(point).is_ok());
    }
}

#[test]
fn each_way_of_using_a_key_needs_its_own_capability_on_the_key_and_the_key_itself() {
    let commands = [
        (Command::DecryptPkcs1, Capability::DecryptPkcs, 258),
        (Command::DecryptOaep, Capability::DecryptOaep, 2 + 1 + 256 + 32),
        (Command::DeriveEcdh, Capability::DeriveEcdh, 2 + 65),
    ];
    for (command, capability, length) in commands {
        let others: Vec<_> = commands.iter().map(|row| row.1).filter(|&other| other != capability).collect();
        let p256 = AsymmetricAlgorithm::Ec(Curve::P256);
        let (mut device, mut session) = device_with(p256, &others, None);
        let mut payload = vec![0; length];
        assert_eq!(
            session.send(&mut device, command, &payload),
            Err(DeviceError::ObjectNotFound),
            "{command}"
        );
        payload[1] = 5;
        let refused = Err(DeviceError::InsufficientPermissions);
        assert_eq!(session.send(&mut device, command, &payload), refused, "{command}");
    }
}

#[test]
fn keys_of_another_kind_are_invalid() {
    let all = [Capability::DecryptPkcs, Capability::DecryptOaep, Capability::DeriveEcdh];
    for algorithm in [AsymmetricAlgorithm::Ec(Curve::P256), AsymmetricAlgorithm::Ed25519] {
        let (mut device, mut session) = device_with(algorithm, &all, None);
        let pkcs1 = [&[0, 5][..], &[0; 256]].concat();
        assert_eq!(session.send(&mut device, Command::DecryptPkcs1, &pkcs1), INVALID);
        let oaep = [&[0, 5, 33][..], &[0; 288]].concat();
        assert_eq!(session.send(&mut device, Command::DecryptOaep, &oaep), INVALID);
    }
    for algorithm in [AsymmetricAlgorithm::Rsa2048, AsymmetricAlgorithm::Ed25519] {
        let (mut device, mut session) = device_with(algorithm, &all, None);
        assert_eq!(derive(&mut device, &mut session, &[4; 65]), INVALID);
    }
}

#[test]
fn pkcs1_plaintexts_come_back_and_every_defect_is_one_error() {
    let (mut device, mut session) =
        device_with(AsymmetricAlgorithm::Rsa2048, &[Capability::DecryptPkcs], None);
    let public = rsa_public(&mut device, &mut session);
    let mut decrypt =
        |ciphertext: &[u8]| session.send(&mut device, Command::DecryptPkcs1, &[&[0, 5], ciphertext].concat());
    let mut entropy = ChaCha8Rng::seed_from_u64(1);
    for plaintext in [&b""[..], b"\0\0zeros", &[9; 245]] {
        let ciphertext = public.encrypt(&mut entropy, Pkcs1v15Encrypt, plaintext).unwrap();
        assert_eq!(decrypt(&ciphertext).unwrap(), plaintext);
    }
    let encrypted = |block: &[u8]| {
        let block = BoxedUint::from_be_slice(block, 2048).unwrap();
        rsa_encrypt(&public, &block).unwrap().to_be_bytes()
    };
    let block = |start: [u8; 2], padding: u8, length: usize| {
        [&start[..], &vec![padding; length], &[0], &vec![7; 253 - length]].concat()
    };
    assert_eq!(decrypt(&encrypted(&block([0, 2], 1, 8))), Ok(vec![7; 245]));
    // The four that clients test.
    assert_eq!(decrypt(&encrypted(&block([0, 2], 0, 8))), INVALID);
    assert_eq!(decrypt(&encrypted(&block([1, 2], 1, 8))), INVALID);
    assert_eq!(decrypt(&encrypted(&block([0, 1], 1, 8))), INVALID);
    assert_eq!(decrypt(&encrypted(&block([0, 2], 1, 7))), INVALID);
    assert_eq!(decrypt(&public.n().to_be_bytes()), INVALID, "not below the modulus");
    assert_eq!(decrypt(&[0xff; 256]), INVALID);
    assert_eq!(decrypt(&[0; 255]), WRONG_LENGTH);
    assert_eq!(decrypt(&[0; 257]), WRONG_LENGTH);
    assert_eq!(decrypt(&[0; 512]), WRONG_LENGTH);
}

#[test]
fn oaep_plaintexts_come_back_whatever_hashes_and_label() {
    for algorithm in [AsymmetricAlgorithm::Rsa2048, AsymmetricAlgorithm::Rsa3072] {
        let (mut device, mut session) = device_with(algorithm, &[Capability::DecryptOaep], None);
        let public = rsa_public(&mut device, &mut session);
        let mut entropy = ChaCha8Rng::seed_from_u64(2);
        let mut decrypt = |mgf: Algorithm, ciphertext: &[u8], label_hash: &[u8]| {
            let payload = [&[0, 5, mgf.code()], ciphertext, label_hash].concat();
            session.send(&mut device, Command::DecryptOaep, &payload)
        };
        macro_rules! pair {
            ($($hash:ty, $mgf:ty, $algorithm:ident;)*) => {$(
                for (label, plaintext) in [("", &b"\0\0leading zeros"[..]), ("label", b""), ("", &[8; 126])] {
                    let padding = Oaep::<$hash, $mgf>::new_with_mgf_hash_and_label(label.as_bytes());
                    let ciphertext = public.encrypt(&mut entropy, padding, plaintext).unwrap();
                    let label_hash = <$hash>::digest(label);
                    assert_eq!(decrypt(Algorithm::$algorithm, &ciphertext, &label_hash).unwrap(), plaintext);
                    let other = if Algorithm::$algorithm == Algorithm::Mgf1Sha1 { Algorithm::Mgf1Sha256 } else { Algorithm::Mgf1Sha1 };
                    assert_eq!(decrypt(other, &ciphertext, &label_hash), INVALID);
                    assert_eq!(decrypt(Algorithm::$algorithm, &ciphertext, &<$hash>::digest("other")), INVALID);
                }
            )*};
        }
        pair! {
            Sha1, Sha1, Mgf1Sha1; Sha1, Sha512, Mgf1Sha512; Sha256, Sha1, Mgf1Sha1; Sha256, Sha256, Mgf1Sha256;
            Sha384, Sha384, Mgf1Sha384; Sha384, Sha256, Mgf1Sha256; Sha512, Sha512, Mgf1Sha512; Sha512, Sha384, Mgf1Sha384;
        }
    }
}

#[test]
fn oaep_refuses_unknown_masks_and_lengths_that_fit_no_hash() {
    let (mut device, mut session) =
        device_with(AsymmetricAlgorithm::Rsa2048, &[Capability::DecryptOaep], None);
    let mut decrypt = |mgf: u8, length: usize| {
        let payload = [&[0, 5, mgf][..], &vec![1; length]].concat();
        session.send(&mut device, Command::DecryptOaep, &payload)
    };
    for mgf in [0, 31, 36, 255] {
        assert_eq!(decrypt(mgf, 256 + 32), INVALID);
    }
    assert_eq!(decrypt(33, 256 + 32), INVALID, "nothing that was ever encrypted");
    for length in [276 - 1, 276 + 1, 288 + 1, 304 + 1, 320 + 1, 384 + 32, 512 + 64] {
        assert_eq!(decrypt(33, length), WRONG_LENGTH, "{length}");
    }
}
