//! AES in ECB and CBC mode: NIST's vectors, and whole blocks only.
#![cfg(feature = "symmetric")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use hex_literal::hex;
use model::{ModelDevice, Object, Session, fresh};
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

const USES: [Capability; 4] =
    [Capability::DecryptEcb, Capability::EncryptEcb, Capability::DecryptCbc, Capability::EncryptCbc];
const PLAIN: [u8; 64] = hex!(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
);
const IV: [u8; 16] = hex!("000102030405060708090a0b0c0d0e0f");

/// Algorithm, key, and the ciphertext in ECB and in CBC mode.
type Case<'a> = (Algorithm, &'a [u8], [u8; 64], [u8; 64]);

fn send(
    device: &mut ModelDevice,
    admin: &mut Session,
    command: Command,
    parts: &[&[u8]],
) -> Result<Vec<u8>, DeviceError> {
    admin.send(device, command, &[&[0, 3], parts.concat().as_slice()].concat())
}

/// NIST SP 800-38A, sections F.1 and F.2.
#[test]
fn ciphertexts_are_the_published_ones() {
    let cases: [Case<'_>; 3] = [
        (
            Algorithm::Aes128,
            &hex!("2b7e151628aed2a6abf7158809cf4f3c"),
            hex!(
                "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"
                "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4"
            ),
            hex!(
                "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
                "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
            ),
        ),
        (
            Algorithm::Aes192,
            &hex!("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
            hex!(
                "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef"
                "ef7afd2270e2e60adce0ba2face6444e9a4b41ba738d6c72fb16691603c18e0e"
            ),
            hex!(
                "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
                "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"
            ),
        ),
        (
            Algorithm::Aes256,
            &hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            hex!(
                "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870"
                "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7"
            ),
            hex!(
                "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
                "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
            ),
        ),
    ];
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (algorithm, key, ecb, cbc) in cases {
        let _ = admin.send(&mut device, Command::DeleteObject, &[0, 3, 8]);
        let object = Object::new(3, algorithm, &USES).with(key);
        admin.send(&mut device, Command::PutSymmetricKey, &object).unwrap();
        let mut send = |command, parts: &[&[u8]]| send(&mut device, &mut admin, command, parts).unwrap();
        assert_eq!(send(Command::EncryptEcb, &[&PLAIN]), ecb, "{algorithm}");
        assert_eq!(send(Command::DecryptEcb, &[&ecb]), PLAIN, "{algorithm}");
        assert_eq!(send(Command::EncryptCbc, &[&IV, &PLAIN]), cbc, "{algorithm}");
        assert_eq!(send(Command::DecryptCbc, &[&IV, &cbc]), PLAIN, "{algorithm}");
    }
}

#[test]
fn generated_keys_differ_and_take_as_many_blocks_as_a_message_has_room_for() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for algorithm in [Algorithm::Aes128, Algorithm::Aes192, Algorithm::Aes256] {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let _ = admin.send(&mut device, Command::DeleteObject, &[0, 3, 8]);
            let object = Object::new(3, algorithm, &USES).with(&[]);
            admin.send(&mut device, Command::GenerateSymmetricKey, &object).unwrap();
            let mut send = |command, parts: &[&[u8]]| send(&mut device, &mut admin, command, parts).unwrap();
            let plain = [7; 3088];
            let sealed = send(Command::EncryptCbc, &[&IV, &plain]);
            assert_eq!(send(Command::DecryptCbc, &[&IV, &sealed]), plain);
            let sealed = send(Command::EncryptEcb, &[&plain]);
            assert_eq!(send(Command::DecryptEcb, &[&sealed]), plain);
            seen.push(sealed);
        }
        assert_ne!(seen[0], seen[1]);
    }
}

#[test]
fn a_message_that_is_not_whole_blocks_has_the_wrong_length_before_the_key_is_looked_for() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (command, iv) in [
        (Command::EncryptEcb, 0),
        (Command::DecryptEcb, 0),
        (Command::EncryptCbc, 16),
        (Command::DecryptCbc, 16),
    ] {
        for length in 0..=48 {
            let expected = match length {
                16 | 32 | 48 => DeviceError::ObjectNotFound,
                _ => DeviceError::WrongLength,
            };
            let payload = vec![7; iv + length];
            assert_eq!(
                send(&mut device, &mut admin, command, &[&payload]),
                Err(expected),
                "{command} {length}"
            );
        }
    }
}
