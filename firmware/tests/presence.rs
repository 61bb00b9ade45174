//! The option user-presence: what waits for a touch, what never does, and what becomes of it when nobody comes.
#![cfg(feature = "audit")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;
#[path = "model/rsa_key.rs"]
mod model_rsa;

use std::time::Duration;

use model::{ModelDevice, Object, Session, fresh, start};
use sshsm_firmware::platform::Presence;
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

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

/// A device that somebody touches.
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
fn a_value_without_such_a_mode_without_time_or_of_another_length_is_invalid_and_asks_nobody() {
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

/// A key for each use, and a command that uses it.
fn uses(device: &mut ModelDevice, admin: &mut Session) -> Vec<(Command, Vec<u8>)> {
    use Capability as C;
    let p256 =
        Object::new(5, Algorithm::Ecp256, &[C::SignEcdsa, C::DeriveEcdh, C::SignAttestationCertificate]);
    admin.send(device, Command::GenerateAsymmetricKey, &p256.with(&[])).unwrap();
    let public = admin.send(device, Command::GetPublicKey, &[0, 5]).unwrap();
    let ed25519 = Object::new(6, Algorithm::Ed25519, &[C::SignEddsa]);
    admin.send(device, Command::PutAsymmetricKey, &ed25519.with(&[7; 32])).unwrap();
    let rsa = Object::new(7, Algorithm::Rsa3072, &[C::SignPkcs, C::SignPss, C::DecryptPkcs, C::DecryptOaep]);
    let (_, factors) = model_rsa::LARGE[0];
    admin.send(device, Command::PutAsymmetricKey, &rsa.with(factors)).unwrap();
    vec![
        (Command::SignEcdsa, [&[0, 5][..], &[1; 32]].concat()),
        (Command::DeriveEcdh, [&[0, 5, 4][..], &public[1..]].concat()),
        (Command::SignAttestationCertificate, vec![0, 5, 0, 0]),
        (Command::SignEddsa, vec![0, 6, 1]),
        (Command::SignPkcs1, [&[0, 7][..], &[1; 32]].concat()),
        (Command::SignPss, [&[0, 7, 33, 0, 32][..], &[1; 32]].concat()),
        (Command::DecryptPkcs1, [&[0, 7][..], &[1; 384]].concat()),
        (Command::DecryptOaep, [&[0, 7, 33][..], &[1; 384], &[1; 32]].concat()),
    ]
}

#[test]
fn every_use_of_an_asymmetric_key_waits_once_when_all_do_and_not_at_all_otherwise() {
    let (mut device, mut admin) = touched();
    let uses = uses(&mut device, &mut admin);
    for (value, times) in [([0, 5], 0), ([1, 5], 0), ([2, 5], 1)] {
        assert_eq!(set(&mut admin, &mut device, &value), OK);
        asked(&mut device);
        for (command, payload) in &uses {
            let answer = admin.send(&mut device, *command, payload);
            let decrypts = [Command::DecryptPkcs1, Command::DecryptOaep].contains(command);
            assert!(answer.is_ok() || decrypts && answer == INVALID, "{command}: {answer:?}");
            assert_eq!(asked(&mut device), vec![5; times], "{command}, {value:?}");
        }
    }
    device.platform().presence = Presence::TimedOut;
    for (command, payload) in &uses {
        assert_eq!(admin.send(&mut device, *command, payload), TIMED_OUT, "{command}");
    }
}

#[test]
fn what_needs_no_private_key_or_is_refused_anyway_asks_nobody() {
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
