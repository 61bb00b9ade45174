//! Yubico OTP: the vectors of the protocol, and inputs that are not passwords.
#![cfg(feature = "otp")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ccm::Ccm;
use ccm::aead::Aead;
use ccm::consts::{U8, U13};
use hex_literal::hex;
use model::{ModelDevice, Object, Session, fresh, put_authentication_key};
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

const KEY: [u8; 16] = hex!("000102030405060708090a0b0c0d0e0f");
const NONCE_ID: [u8; 4] = hex!("78563412");
const CREDENTIAL: [u8; 22] = hex!("000102030405060708090a0b0c0d0e0f010203040506");
/// The credential under the key, with the random bytes 010203040506 (docs/protocol.md, "Yubico OTP", vector E).
const AEAD: [u8; 36] = hex!("010203040506188c2715410f5acf04d5baf304f5f69bc9cc15c69cdfc53370effcbfdce8");
const PASSWORD: [u8; 16] = hex!("2f5d71a4915dec304aa13ccf97bb0dbb");
const ANSWER: [u8; 6] = hex!("010001010100");

fn put(device: &mut ModelDevice, admin: &mut Session, id: u16, algorithm: Algorithm, key: &[u8]) {
    let object = Object { capabilities: Capabilities::ALL, ..Object::new(id, algorithm, &[]) };
    let payload = object.with(&[&NONCE_ID, key].concat());
    admin.send(device, Command::PutOtpAeadKey, &payload).unwrap();
}

/// A device with vector E's key, id 3.
fn with_key() -> (ModelDevice, Session) {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    put(&mut device, &mut admin, 3, Algorithm::Aes128YubicoOtp, &KEY);
    (device, admin)
}

/// The credential in an AEAD under vector E's key, opened outside the device.
fn open(aead: &[u8]) -> Vec<u8> {
    let nonce: [u8; 13] = [&NONCE_ID, &aead[..6], &[0; 3]].concat().try_into().unwrap();
    Ccm::<Aes128, U8, U13>::new(&KEY.into()).decrypt(&nonce.into(), &aead[6..]).unwrap()
}

#[test]
fn passwords_give_the_published_counters() {
    let (mut device, mut admin) = with_key();
    let cases: [([u8; 22], [u8; 16], [u8; 6]); 4] = [
        (CREDENTIAL, PASSWORD, ANSWER),
        (CREDENTIAL, hex!("cb710b462b7b1c23100cb24685b64d33"), hex!("010002010100")),
        (CREDENTIAL, hex!("779978129bcc2642c8adf5c19981a016"), hex!("ff0f01010100")),
        (
            hex!("c4422890653076cde73d449b191b416a33c69e7f249e"),
            hex!("7e0fc987351672c070fa5c0595ec68b8"),
            hex!("01000024a713"),
        ),
    ];
    for (credential, password, counters) in cases {
        let create = [&[0, 3], credential.as_slice()].concat();
        let aead = admin.send(&mut device, Command::CreateOtpAead, &create).unwrap();
        let decrypt = [&[0, 3], aead.as_slice(), &password].concat();
        assert_eq!(admin.send(&mut device, Command::DecryptOtp, &decrypt), Ok(counters.to_vec()));
    }
    let decrypt = [[0, 3].as_slice(), &AEAD, &PASSWORD].concat();
    assert_eq!(admin.send(&mut device, Command::DecryptOtp, &decrypt), Ok(ANSWER.to_vec()));
}

#[test]
fn created_and_randomized_aeads_open_outside_the_device_and_never_repeat() {
    let (mut device, mut admin) = with_key();
    let create = [&[0, 3], CREDENTIAL.as_slice()].concat();
    let created = [(); 2].map(|()| admin.send(&mut device, Command::CreateOtpAead, &create).unwrap());
    assert_eq!(created.each_ref().map(|aead| open(aead)), [CREDENTIAL; 2]);
    assert_ne!(created[0][..6], created[1][..6]);
    let random = [(); 2].map(|()| admin.send(&mut device, Command::RandomizeOtpAead, &[0, 3]).unwrap());
    let credentials = random.each_ref().map(|aead| open(aead));
    assert_eq!(credentials.each_ref().map(Vec::len), [22; 2]);
    assert_ne!(credentials[0], credentials[1]);
}

#[test]
fn a_credential_passes_through_keys_of_every_length() {
    let (mut device, mut admin) = with_key();
    put(&mut device, &mut admin, 4, Algorithm::Aes192YubicoOtp, &[4; 24]);
    put(&mut device, &mut admin, 5, Algorithm::Aes256YubicoOtp, &[5; 32]);
    let mut aead = AEAD.to_vec();
    let mut seen = vec![aead.clone()];
    for (from, to) in [(3, 4), (4, 5), (5, 3)] {
        let rewrap = [&[0, from, 0, to], aead.as_slice()].concat();
        aead = admin.send(&mut device, Command::RewrapOtpAead, &rewrap).unwrap();
        assert!(!seen.contains(&aead));
        seen.push(aead.clone());
        let decrypt = [&[0, to], aead.as_slice(), &PASSWORD].concat();
        assert_eq!(admin.send(&mut device, Command::DecryptOtp, &decrypt), Ok(ANSWER.to_vec()));
        // It is under the other key now.
        let decrypt = [&[0, from], aead.as_slice(), &PASSWORD].concat();
        assert_eq!(admin.send(&mut device, Command::DecryptOtp, &decrypt), Err(DeviceError::InvalidOtp));
    }
    assert_eq!(open(&aead), CREDENTIAL);
}

#[test]
fn a_generated_key_keeps_the_nonce_id_apart() {
    let (mut device, mut admin) = with_key();
    for (id, nonce_id) in [(4, [1; 4]), (5, [2; 4])] {
        let object = Object::new(id, Algorithm::Aes128YubicoOtp, &[]);
        let payload = Object { capabilities: Capabilities::ALL, ..object }.with(&nonce_id);
        admin.send(&mut device, Command::GenerateOtpAeadKey, &payload).unwrap();
    }
    let rewrap = [[0, 3, 0, 4].as_slice(), &AEAD].concat();
    let aead = admin.send(&mut device, Command::RewrapOtpAead, &rewrap).unwrap();
    for (id, expected) in [(4, Ok(ANSWER.to_vec())), (5, Err(DeviceError::InvalidOtp))] {
        let decrypt = [&[0, id], aead.as_slice(), &PASSWORD].concat();
        assert_eq!(admin.send(&mut device, Command::DecryptOtp, &decrypt), expected);
    }
}

#[test]
fn a_bit_changed_in_the_aead_or_the_password_is_an_invalid_otp() {
    let (mut device, mut admin) = with_key();
    let good = [[0, 3].as_slice(), &AEAD, &PASSWORD].concat();
    for bit in 0..8 * (AEAD.len() + PASSWORD.len()) {
        let mut damaged = good.clone();
        damaged[2 + bit / 8] ^= 1 << (bit % 8);
        let reply = admin.send(&mut device, Command::DecryptOtp, &damaged);
        assert_eq!(reply, Err(DeviceError::InvalidOtp), "bit {bit}");
    }
    for bit in 0..8 * AEAD.len() {
        let mut damaged = [[0, 3, 0, 3].as_slice(), &AEAD].concat();
        damaged[4 + bit / 8] ^= 1 << (bit % 8);
        let reply = admin.send(&mut device, Command::RewrapOtpAead, &damaged);
        assert_eq!(reply, Err(DeviceError::InvalidOtp), "bit {bit}");
    }
    let reply = admin.send(&mut device, Command::DecryptOtp, &good[..good.len() - 1]);
    assert_eq!(reply, Err(DeviceError::WrongLength));
}

/// The private id and the checksum are each enough to refuse.
#[test]
fn a_password_needs_both_its_private_id_and_its_checksum() {
    let (mut device, mut admin) = with_key();
    let token = hex!("010203040506010001000101000036fe");
    let mut send = |token: [u8; 16], private_id: [u8; 6]| {
        let create = [[0, 3].as_slice(), &KEY, &private_id].concat();
        let aead = admin.send(&mut device, Command::CreateOtpAead, &create).unwrap();
        let mut password = token.into();
        Aes128::new(&KEY.into()).encrypt_block(&mut password);
        let decrypt = [&[0, 3], aead.as_slice(), &password].concat();
        admin.send(&mut device, Command::DecryptOtp, &decrypt)
    };
    let private_id = [1, 2, 3, 4, 5, 6];
    assert_eq!(send(token, private_id), Ok(ANSWER.to_vec()));
    assert_eq!(send(token, [1, 2, 3, 4, 5, 7]), Err(DeviceError::InvalidOtp), "another id, right checksum");
    for at in 6..16 {
        let mut damaged = token;
        damaged[at] ^= 1;
        assert_eq!(send(damaged, private_id), Err(DeviceError::InvalidOtp), "right id, byte {at} changed");
    }
}

#[test]
fn rewrapping_needs_both_capabilities_on_the_session_and_one_on_each_key() {
    let (mut device, mut admin) = with_key();
    let (from, to) = (Capability::RewrapFromOtpAeadKey, Capability::RewrapToOtpAeadKey);
    let (one, two) = (Domains::single(1).unwrap(), Domains::single(2).unwrap());
    admin.send(&mut device, Command::DeleteObject, &[0, 3, 7]).unwrap();
    for (id, capability, domains) in [(3, from, one), (4, to, one), (5, from, two), (6, to, two)] {
        let object = Object { domains, ..Object::new(id, Algorithm::Aes128YubicoOtp, &[capability]) };
        let payload = object.with(&[NONCE_ID.as_slice(), &KEY].concat());
        admin.send(&mut device, Command::PutOtpAeadKey, &payload).unwrap();
    }
    let rewrap = |session: &mut Session, device: &mut ModelDevice, from, to| {
        let payload = [[0, from, 0, to].as_slice(), &AEAD].concat();
        session.send(device, Command::RewrapOtpAead, &payload).map(|_| ())
    };
    let refused = Err(DeviceError::InsufficientPermissions);
    for (key, missing) in [(10, from), (11, to)] {
        let rights = Capabilities::from_bits(!Capabilities::of(&[missing]).bits());
        let mut session =
            put_authentication_key(&mut device, &mut admin, key, b"", one, rights, Capabilities::NONE);
        assert_eq!(rewrap(&mut session, &mut device, 3, 4), refused);
    }
    let rights = Capabilities::of(&[from, to]);
    let mut session =
        put_authentication_key(&mut device, &mut admin, 12, b"", one, rights, Capabilities::NONE);
    assert_eq!(rewrap(&mut session, &mut device, 3, 4), Ok(()));
    assert_eq!(rewrap(&mut session, &mut device, 4, 4), refused);
    assert_eq!(rewrap(&mut session, &mut device, 3, 3), refused);
    for (from, to) in [(5, 4), (3, 6), (7, 4), (3, 7)] {
        assert_eq!(rewrap(&mut session, &mut device, from, to), Err(DeviceError::ObjectNotFound));
    }
}
