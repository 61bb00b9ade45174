//! HMAC: published vectors, and what verification answers.
#![cfg(feature = "hmac")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use hex_literal::hex;
use model::{ModelDevice, Object, Session, fresh};
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

const USES: [Capability; 2] = [Capability::SignHmac, Capability::VerifyHmac];
const ALGORITHMS: [(Algorithm, usize); 4] = [
    (Algorithm::HmacSha1, 20),
    (Algorithm::HmacSha256, 32),
    (Algorithm::HmacSha384, 48),
    (Algorithm::HmacSha512, 64),
];

/// Algorithm, key, message, authenticator.
type Case<'a> = (Algorithm, &'a [u8], &'a [u8], &'a [u8]);

fn put(device: &mut ModelDevice, admin: &mut Session, algorithm: Algorithm, key: &[u8]) {
    let _ = admin.send(device, Command::DeleteObject, &[0, 3, 5]);
    admin.send(device, Command::PutHmacKey, &Object::new(3, algorithm, &USES).with(key)).unwrap();
}

fn payload(parts: &[&[u8]]) -> Vec<u8> {
    [&[0, 3], parts.concat().as_slice()].concat()
}

/// RFC 2202 and RFC 4231, cases 1 and 2; and a key of a whole block, computed with Python's `hmac`.
#[test]
fn authenticators_are_the_published_ones() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let block: Vec<u8> = (0..128).collect();
    let cases: [Case<'_>; 12] = [
        (Algorithm::HmacSha1, &[0x0b; 20], b"Hi There", &hex!("b617318655057264e28bc0b6fb378c8ef146be00")),
        (
            Algorithm::HmacSha1,
            b"Jefe",
            b"what do ya want for nothing?",
            &hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        ),
        (Algorithm::HmacSha1, &block[..64], b"full block", &hex!("121c680f7c021a457f6fee00cdf0000ca302f58d")),
        (
            Algorithm::HmacSha256,
            &[0x0b; 20],
            b"Hi There",
            &hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        ),
        (
            Algorithm::HmacSha256,
            b"Jefe",
            b"what do ya want for nothing?",
            &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ),
        (
            Algorithm::HmacSha256,
            &block[..64],
            b"full block",
            &hex!("146629bf933cad025e167ae34eaebc043f957888198fae77d7208ce531ea3448"),
        ),
        (
            Algorithm::HmacSha384,
            &[0x0b; 20],
            b"Hi There",
            &hex!(
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c"
                "faea9ea9076ede7f4af152e8b2fa9cb6"
            ),
        ),
        (
            Algorithm::HmacSha384,
            b"Jefe",
            b"what do ya want for nothing?",
            &hex!(
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e"
                "8e2240ca5e69e2c78b3239ecfab21649"
            ),
        ),
        (
            Algorithm::HmacSha384,
            &block,
            b"full block",
            &hex!(
                "a13fa84d606e7059c6ca3fd6c48141b360ec5ab45402a00c36de3bd81db7410d"
                "845fc9c7f514fefa77eacd1039a48d46"
            ),
        ),
        (
            Algorithm::HmacSha512,
            &[0x0b; 20],
            b"Hi There",
            &hex!(
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
                "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
            ),
        ),
        (
            Algorithm::HmacSha512,
            b"Jefe",
            b"what do ya want for nothing?",
            &hex!(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
                "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
            ),
        ),
        (
            Algorithm::HmacSha512,
            &block,
            b"full block",
            &hex!(
                "4dade916ef0b53e15e5ae40ffee8ec3e1a0cfb071cfb7b8c993689f8d7439feb"
                "775b8d0e237d495c75ca29b150810512ebe13235904e5a0541eccf73cccc2680"
            ),
        ),
    ];
    for (algorithm, key, data, authenticator) in cases {
        put(&mut device, &mut admin, algorithm, key);
        let signed = admin.send(&mut device, Command::SignHmac, &payload(&[data]));
        assert_eq!(signed, Ok(authenticator.to_vec()), "{algorithm}");
        let verified = admin.send(&mut device, Command::VerifyHmac, &payload(&[authenticator, data]));
        assert_eq!(verified, Ok(vec![1]), "{algorithm}");
    }
}

#[test]
fn a_damaged_authenticator_or_message_does_not_fit() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (algorithm, length) in ALGORITHMS {
        put(&mut device, &mut admin, algorithm, b"key");
        let authenticator = admin.send(&mut device, Command::SignHmac, &payload(&[b"data"])).unwrap();
        assert_eq!(authenticator.len(), length);
        let mut verify = |parts: &[&[u8]]| admin.send(&mut device, Command::VerifyHmac, &payload(parts));
        assert_eq!(verify(&[&authenticator, b"data"]), Ok(vec![1]));
        for at in 0..length {
            let mut damaged = authenticator.clone();
            damaged[at] ^= 1;
            assert_eq!(verify(&[&damaged, b"data"]), Ok(vec![0]), "{algorithm}, byte {at}");
        }
        assert_eq!(verify(&[&authenticator, b"date"]), Ok(vec![0]));
        assert_eq!(verify(&[&authenticator]), Ok(vec![0]), "no message is a message");
        assert_eq!(verify(&[&authenticator[1..]]), Err(DeviceError::WrongLength), "{algorithm}");
    }
}

#[test]
fn generated_keys_differ_and_take_the_shortest_and_the_longest_message() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (algorithm, length) in ALGORITHMS {
        let mut authenticators = Vec::new();
        for _ in 0..2 {
            let _ = admin.send(&mut device, Command::DeleteObject, &[0, 3, 5]);
            let object = Object::new(3, algorithm, &USES).with(&[]);
            admin.send(&mut device, Command::GenerateHmacKey, &object).unwrap();
            for data in [vec![], vec![7; MAX_INNER_PAYLOAD - 2]] {
                let signed = admin.send(&mut device, Command::SignHmac, &payload(&[&data])).unwrap();
                assert_eq!(signed.len(), length);
                assert_eq!(admin.send(&mut device, Command::SignHmac, &payload(&[&data])).unwrap(), signed);
                assert!(!authenticators.contains(&signed));
                authenticators.push(signed);
            }
        }
    }
}

#[test]
fn an_imported_key_has_one_byte_at_least() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let object = |key: &[u8]| Object::new(3, Algorithm::HmacSha256, &USES).with(key);
    let empty = admin.send(&mut device, Command::PutHmacKey, &object(&[]));
    assert_eq!(empty, Err(DeviceError::WrongLength));
    admin.send(&mut device, Command::PutHmacKey, &object(&[1])).unwrap();
}
