//! The option user-presence: what waits for a touch, what never does, and what happens when none comes.
#![cfg(all(
    feature = "audit",
    feature = "ssh",
    feature = "signatures",
    feature = "decryption",
    feature = "attestation",
    feature = "rsa-wrap"
))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;
#[path = "model/rsa_key.rs"]
mod model_rsa;

use std::time::Duration;

use model::{ModelDevice, Object, Session, fresh, start};
use sshsm_firmware::platform::Presence;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError};

type Answer = Result<Vec<u8>, DeviceError>;
const OK: Answer = Ok(Vec::new());
const TIMED_OUT: Answer = Err(DeviceError::PresenceTimeout);
const INVALID: Answer = Err(DeviceError::InvalidData);

fn set(session: &mut Session, device: &mut ModelDevice, value: &[u8]) -> Answer {
    let length = u8::try_from(value.len()).unwrap();
    session.send(device, Command::SetOption, &[&[0x80, 0, length], value].concat())
}

fn get(session: &mut Session, device: &mut ModelDevice) -> Vec<u8> {
    session.send(device, Command::GetOption, &[0x80]).unwrap()
}

/// Seconds that touches were waited for since the last time.
fn asked(device: &mut ModelDevice) -> Vec<u64> {
    std::mem::take(&mut device.platform().asked).iter().map(Duration::as_secs).collect()
}

/// A device that is touched.
fn touched() -> (ModelDevice, Session) {
    let mut device = fresh();
    device.platform().presence = Presence::Confirmed;
    let session = Session::admin(&mut device);
    (device, session)
}

#[test]
fn it_is_off_at_first_and_a_device_with_nothing_to_touch_refuses_to_set_it() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    assert_eq!(get(&mut admin, &mut device), [0, 15]);
    for mode in [1, 2] {
        assert_eq!(set(&mut admin, &mut device, &[mode, 5]), INVALID);
        assert_eq!(get(&mut admin, &mut device), [0, 15]);
    }
    assert_eq!(set(&mut admin, &mut device, &[0, 7]), OK, "which changes nothing but the time");
    assert_eq!(get(&mut admin, &mut device), [0, 7]);
}

#[test]
fn an_invalid_value_is_refused_without_asking_for_a_touch() {
    let (mut device, mut admin) = touched();
    for value in [&[3, 5][..], &[1, 0], &[2, 0], &[1], &[1, 5, 0], &[]] {
        assert_eq!(set(&mut admin, &mut device, value), INVALID, "{value:?}");
    }
    assert_eq!((asked(&mut device), get(&mut admin, &mut device)), (vec![], vec![0, 15]));
}

#[test]
fn each_change_wants_a_touch_and_survives_a_restart_until_a_reset() {
    let (mut device, mut admin) = touched();
    assert_eq!(set(&mut admin, &mut device, &[1, 9]), OK);
    assert_eq!(asked(&mut device), [9]);
    let mut device = start(device.flash().unwrap().copy());
    let mut admin = Session::admin(&mut device);
    device.platform().presence = Presence::TimedOut;
    for value in [[0, 1], [2, 9], [1, 20]] {
        assert_eq!(set(&mut admin, &mut device, &value), TIMED_OUT);
        assert_eq!(get(&mut admin, &mut device), [1, 9]);
    }
    assert_eq!(asked(&mut device), [9, 9, 20], "the old time to switch it off");
    device.platform().presence = Presence::Confirmed;
    assert_eq!(set(&mut admin, &mut device, &[2, 3]), OK);
    admin.send(&mut device, Command::ResetDevice, &[]).unwrap();
    let mut admin = Session::admin(&mut device);
    assert_eq!(get(&mut admin, &mut device), [0, 15]);
}

/// The digest of an empty OAEP label.
const LABEL: [u8; 32] = hex_literal::hex!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

/// The setting of the option from which on a command waits; `None` if it never does.
fn waits_from(command: Command) -> Option<u8> {
    match command {
        Command::SignSshCertificate | Command::ResetDevice => Some(1),
        Command::SignPkcs1
        | Command::SignPss
        | Command::SignEcdsa
        | Command::SignEddsa
        | Command::DecryptPkcs1
        | Command::DecryptOaep
        | Command::DeriveEcdh
        | Command::SignAttestationCertificate
        | Command::ExportWrapped
        | Command::GetRsaWrappedKey
        | Command::ExportRsaWrapped
        | Command::PutRsaWrappedKey
        | Command::ImportRsaWrapped => Some(2),
        _ => None,
    }
}

/// A device with everything that its commands need, and for each command that waits, a request that is
/// carried out; the one for certificates is in `ssh_certificates.rs`.
fn uses(device: &mut ModelDevice, admin: &mut Session) -> Vec<(Command, Vec<u8>)> {
    use Capability as C;
    let p256 = Object::new(
        5,
        Algorithm::Ecp256,
        &[C::SignEcdsa, C::DeriveEcdh, C::SignAttestationCertificate, C::ExportableUnderWrap],
    );
    admin.send(device, Command::GenerateAsymmetricKey, &p256.with(&[])).unwrap();
    let public = admin.send(device, Command::GetPublicKey, &[0, 5]).unwrap();
    let ed25519 = Object::new(6, Algorithm::Ed25519, &[C::SignEddsa]);
    admin.send(device, Command::PutAsymmetricKey, &ed25519.with(&[7; 32])).unwrap();
    let (algorithm, factors) = model_rsa::LARGE[0];
    let rsa = Object::new(7, algorithm, &[C::SignPkcs, C::SignPss, C::DecryptPkcs, C::DecryptOaep]);
    admin.send(device, Command::PutAsymmetricKey, &rsa.with(factors)).unwrap();

    let both = [C::ExportWrapped, C::ImportWrapped];
    let aes = Object::new(8, Algorithm::Aes128CcmWrap, &both).delegating(Capabilities::ALL, &[3; 16]);
    admin.send(device, Command::PutWrapKey, &aes).unwrap();
    let wrap = || Object::new(9, algorithm, &both);
    admin.send(device, Command::PutWrapKey, &wrap().delegating(Capabilities::ALL, factors)).unwrap();
    let modulus = admin.send(device, Command::GetPublicKey, &[0, 9, 4]).unwrap();
    let half = wrap().delegating(Capabilities::ALL, &modulus[1..]);
    admin.send(device, Command::PutPublicWrapKey, &half).unwrap();
    let names = [&[0, 9, 3, 0, 5, 52, 26, 33][..], &LABEL].concat();
    let bare = admin.send(device, Command::GetRsaWrappedKey, &names).unwrap();
    let whole = admin.send(device, Command::ExportRsaWrapped, &names).unwrap();
    let header = Object::new(0, Algorithm::Ecp256, &[C::SignEcdsa]).with(&[]);
    vec![
        (Command::SignEcdsa, [&[0, 5][..], &[1; 32]].concat()),
        (Command::DeriveEcdh, [&[0, 5, 4][..], &public[1..]].concat()),
        (Command::SignAttestationCertificate, vec![0, 5, 0, 0]),
        (Command::SignEddsa, vec![0, 6, 1]),
        (Command::SignPkcs1, [&[0, 7][..], &[1; 32]].concat()),
        (Command::SignPss, [&[0, 7, 33, 0, 32][..], &[1; 32]].concat()),
        (Command::DecryptPkcs1, [&[0, 7][..], &[1; 384]].concat()),
        (Command::DecryptOaep, [&[0, 7, 33][..], &[1; 384], &[1; 32]].concat()),
        (Command::ExportWrapped, vec![0, 8, 3, 0, 5]),
        (Command::GetRsaWrappedKey, names.clone()),
        (Command::ExportRsaWrapped, names),
        (Command::PutRsaWrappedKey, [&[0, 9, 3], &header[..], &[26, 33], &bare, &LABEL].concat()),
        // Key 5 is there: the object's name is known, and taken, only once it is unwrapped.
        (Command::ImportRsaWrapped, [&[0, 9, 26, 33], &whole[..], &LABEL].concat()),
    ]
}

/// Whether a command was carried out as far as its private key: the request may not contain a ciphertext for
/// the key, and the object may exist.
fn carried_out(command: Command, answer: &Answer) -> bool {
    match command {
        Command::DecryptPkcs1 | Command::DecryptOaep => *answer == INVALID,
        Command::ImportRsaWrapped => *answer == Err(DeviceError::ObjectExists),
        _ => answer.is_ok(),
    }
}

#[test]
fn every_use_of_a_private_key_and_every_export_waits_once_when_all_do_and_not_at_all_otherwise() {
    let (mut device, mut admin) = touched();
    let uses = uses(&mut device, &mut admin);
    for (value, times) in [([0, 5], 0), ([1, 5], 0), ([2, 5], 1)] {
        assert_eq!(set(&mut admin, &mut device, &value), OK);
        asked(&mut device);
        for (command, payload) in &uses {
            let answer = admin.send(&mut device, *command, payload);
            assert!(carried_out(*command, &answer), "{command}: {answer:?}");
            assert_eq!(asked(&mut device), vec![5; times], "{command}, {value:?}");
        }
    }
    device.platform().presence = Presence::TimedOut;
    let before = admin.send(&mut device, Command::ListObjects, &[]).unwrap();
    for (command, payload) in &uses {
        assert_eq!(admin.send(&mut device, *command, payload), TIMED_OUT, "{command}");
    }
    assert_eq!(admin.send(&mut device, Command::ListObjects, &[]), Ok(before));
    let tested = uses.iter().map(|(command, _)| *command);
    let mut tested: Vec<_> = tested.chain([Command::SignSshCertificate, Command::ResetDevice]).collect();
    tested.sort_by_key(|command| command.code());
    let waiting = Command::ALL.iter().copied().filter(|command| waits_from(*command).is_some());
    assert_eq!(waiting.collect::<Vec<_>>(), tested);
}

#[test]
fn no_other_command_waits_for_a_touch() {
    let (mut device, mut admin) = touched();
    let uses = uses(&mut device, &mut admin);
    assert_eq!(set(&mut admin, &mut device, &[2, 5]), OK);
    asked(&mut device);
    let hmac =
        Object::new(10, Algorithm::HmacSha256, &[Capability::SignHmac, Capability::VerifyHmac]).with(&[]);
    let (_, export) = uses.iter().find(|(command, _)| *command == Command::ExportWrapped).unwrap();
    let blob = admin.send(&mut device, Command::ExportWrapped, export).unwrap();
    assert_eq!(asked(&mut device), [5]);
    let import = [&[0, 8], blob.as_slice()].concat();
    for (command, payload) in [
        (Command::GenerateHmacKey, &hmac[..]),
        (Command::SignHmac, &[0, 10, 1]),
        (Command::GetPublicKey, &[0, 5]),
        (Command::GetObjectInfo, &[0, 5, 3]),
        (Command::DeleteObject, &[0, 5, 3]),
        (Command::ImportWrapped, &import),
        (Command::GetOption, &[0x80]),
        (Command::SetOption, &[0x80, 0, 2, 2, 5]),
        (Command::SetOption, &[3, 0, 2, 1, 1]),
        (Command::ListObjects, &[]),
        (Command::GetLogEntries, &[]),
        (Command::GetPseudoRandom, &[0, 1]),
    ] {
        assert!(waits_from(command).is_none());
        admin.send(&mut device, command, payload).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(asked(&mut device).is_empty(), "{command}");
    }
    for &command in Command::ALL.iter().filter(|command| waits_from(**command).is_none()) {
        let _ = admin.send(&mut device, command, &vec![0; *command.request_length().start()]);
        assert!(asked(&mut device).is_empty(), "{command}");
        if command == Command::CloseSession {
            admin = Session::admin(&mut device);
        }
    }
}

#[test]
fn a_reset_would_end_the_option_and_waits_while_it_is_set() {
    for mode in [1, 2] {
        let (mut device, mut admin) = touched();
        assert_eq!(set(&mut admin, &mut device, &[mode, 7]), OK);
        asked(&mut device);
        device.platform().presence = Presence::TimedOut;
        assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), TIMED_OUT);
        assert_eq!(asked(&mut device), [7]);
        assert_eq!(get(&mut admin, &mut device), [mode, 7], "and the session continues");
        device.platform().presence = Presence::Confirmed;
        assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), OK);
        assert_eq!(get(&mut Session::admin(&mut device), &mut device), [0, 15]);
    }
    let (mut device, mut admin) = touched();
    assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), OK);
    assert!(asked(&mut device).is_empty());
}

#[test]
fn commands_without_a_private_key_and_refused_ones_request_no_touch() {
    let (mut device, mut admin) = touched();
    uses(&mut device, &mut admin);
    assert_eq!(set(&mut admin, &mut device, &[2, 5]), OK);
    asked(&mut device);
    let missing = Err(DeviceError::InsufficientPermissions);
    let digest = [1; 32];
    assert_eq!(admin.send(&mut device, Command::SignEcdsa, &[&[0, 6][..], &digest].concat()), missing);
    let none = Err(DeviceError::ObjectNotFound);
    assert_eq!(admin.send(&mut device, Command::SignEcdsa, &[&[0, 9][..], &digest].concat()), none);
    let short = Err(DeviceError::WrongLength);
    assert_eq!(admin.send(&mut device, Command::SignEcdsa, &[&[0, 5][..], &[1; 33]].concat()), short);
    admin.send(&mut device, Command::GetPublicKey, &[0, 5]).unwrap();
    let template = Object::new(9, Algorithm::TemplateSsh, &[]).with(&[1]);
    admin.send(&mut device, Command::PutTemplate, &template).unwrap();
    assert!(asked(&mut device).is_empty());
}

#[test]
fn a_touch_that_did_not_come_is_logged_as_any_failure() {
    let (mut device, mut admin) = touched();
    uses(&mut device, &mut admin);
    assert_eq!(set(&mut admin, &mut device, &[2, 5]), OK);
    let audit = [3, 0, 2, Command::SignEddsa.code(), 1];
    assert_eq!(admin.send(&mut device, Command::SetOption, &audit), OK);
    device.platform().presence = Presence::TimedOut;
    assert_eq!(admin.send(&mut device, Command::SignEddsa, &[0, 6, 1]), TIMED_OUT);
    let log = admin.send(&mut device, Command::GetLogEntries, &[]).unwrap();
    let newest = &log[log.len() - 32..];
    assert_eq!((newest[2], newest[7..9].to_vec(), newest[11]), (Command::SignEddsa.code(), vec![0, 6], 0x40));
}
