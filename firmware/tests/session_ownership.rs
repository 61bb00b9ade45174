//! A session belongs to the authentication key that opened it, as it was then: changing, deleting or
//! replacing that key ends every other session with it, including one that has yet to be authenticated.
#![cfg(feature = "rsa-wrap")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;
#[path = "model/rsa_key.rs"]
mod model_rsa;

use std::time::Duration;

use model::{Clock, Flash, Model, ModelDevice, Object, Session, fresh, put_authentication_key};
use sshsm_firmware::Device;
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

const OVER: Result<Vec<u8>, DeviceError> = Err(DeviceError::InvalidSession);
const LABEL: [u8; 32] = hex_literal::hex!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
const RIGHTS: &[Capability] = &[Capability::ChangeAuthenticationKey, Capability::ExportableUnderWrap];

fn alive(session: &mut Session, device: &mut ModelDevice) -> bool {
    match session.send(device, Command::Echo, b"x") {
        Ok(echo) => echo == b"x",
        answer => {
            assert_eq!(answer, OVER);
            false
        }
    }
}

/// Key 2 and a session of it.
fn put_key(device: &mut ModelDevice, admin: &mut Session, password: &[u8]) -> Session {
    let rights = Capabilities::of(RIGHTS);
    put_authentication_key(device, admin, 2, password, Domains::ALL, rights, Capabilities::NONE)
}

/// Another key 2, without a session.
fn put_another(device: &mut ModelDevice, admin: &mut Session, password: &[u8]) {
    let key = Object::new(2, Algorithm::Aes128YubicoAuthentication, RIGHTS);
    let password = AuthenticationKey::from_password(password);
    let payload = key.delegating(Capabilities::NONE, password.as_bytes());
    admin.send(device, Command::PutAuthenticationKey, &payload).unwrap();
}

fn change(password: &[u8], id: u8) -> Vec<u8> {
    [&[0, id, 38], AuthenticationKey::from_password(password).as_bytes().as_slice()].concat()
}

/// What replaces, changes or deletes key 2, by the administrator or in a session of its own.
type Way = fn(&mut ModelDevice, &mut Session, &mut Session);

fn delete(device: &mut ModelDevice, admin: &mut Session, _: &mut Session) {
    admin.send(device, Command::DeleteObject, &[0, 2, 2]).unwrap();
}

fn put_again(device: &mut ModelDevice, admin: &mut Session, own: &mut Session) {
    delete(device, admin, own);
    put_another(device, admin, b"another");
}

/// As often as it takes for the sequence number to repeat.
fn put_again_until_the_sequence_number_comes_again(
    device: &mut ModelDevice,
    admin: &mut Session,
    own: &mut Session,
) {
    let sequence = |device: &mut ModelDevice, admin: &mut Session| {
        admin.send(device, Command::GetObjectInfo, &[0, 2, 2]).unwrap()[16]
    };
    let before = sequence(device, admin);
    let mut rounds = 0;
    while rounds == 0 || sequence(device, admin) != before {
        delete(device, admin, own);
        let key = Object::new(2, Algorithm::Aes128YubicoAuthentication, RIGHTS);
        let payload = key.delegating(Capabilities::NONE, &[9; 32]);
        admin.send(device, Command::PutAuthenticationKey, &payload).unwrap();
        rounds += 1;
    }
}

fn changed_by_itself(device: &mut ModelDevice, _: &mut Session, own: &mut Session) {
    own.send(device, Command::ChangeAuthenticationKey, &change(b"changed", 2)).unwrap();
    assert!(alive(own, device), "the session that changes the key continues");
}

fn deleted_and_imported(device: &mut ModelDevice, admin: &mut Session, own: &mut Session) {
    let both = [Capability::ExportWrapped, Capability::ImportWrapped];
    let wrap = Object::new(7, Algorithm::Aes128CcmWrap, &both).delegating(Capabilities::ALL, &[3; 16]);
    admin.send(device, Command::PutWrapKey, &wrap).unwrap();
    let blob = admin.send(device, Command::ExportWrapped, &[0, 7, 2, 0, 2]).unwrap();
    delete(device, admin, own);
    let import = [&[0, 7], blob.as_slice()].concat();
    assert_eq!(admin.send(device, Command::ImportWrapped, &import), Ok(vec![2, 0, 2]));
}

fn deleted_and_imported_under_rsa(device: &mut ModelDevice, admin: &mut Session, own: &mut Session) {
    let (algorithm, factors) = model_rsa::LARGE[0];
    let both = [Capability::ExportWrapped, Capability::ImportWrapped];
    let wrap = || Object::new(7, algorithm, &both);
    let private = wrap().delegating(Capabilities::ALL, factors);
    admin.send(device, Command::PutWrapKey, &private).unwrap();
    let modulus = admin.send(device, Command::GetPublicKey, &[0, 7, 4]).unwrap();
    let public = wrap().delegating(Capabilities::ALL, &modulus[1..]);
    admin.send(device, Command::PutPublicWrapKey, &public).unwrap();
    let request = [&[0, 7, 2, 0, 2, 52, 26, 33][..], &LABEL].concat();
    let blob = admin.send(device, Command::ExportRsaWrapped, &request).unwrap();
    delete(device, admin, own);
    let import = [&[0, 7, 26, 33][..], &blob, &LABEL].concat();
    assert_eq!(admin.send(device, Command::ImportRsaWrapped, &import), Ok(vec![2, 0, 2]));
}

const WAYS: [(&str, Way); 6] = [
    ("deleted", delete),
    ("put again", put_again),
    ("put again 256 times", put_again_until_the_sequence_number_comes_again),
    ("changed in its own session", changed_by_itself),
    ("deleted and imported", deleted_and_imported),
    ("deleted and imported under RSA", deleted_and_imported_under_rsa),
];

#[test]
fn sessions_end_with_the_key_that_opened_them_and_those_of_other_keys_do_not() {
    for (way, end) in WAYS {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let mut own = put_key(&mut device, &mut admin, b"two");
        let mut other = Session::open(&mut device, 2, b"two").unwrap();
        let mut bystander = put_authentication_key(
            &mut device,
            &mut admin,
            3,
            b"three",
            Domains::ALL,
            Capabilities::of(RIGHTS),
            Capabilities::NONE,
        );
        assert!(alive(&mut other, &mut device) && alive(&mut bystander, &mut device));
        let open = device.vitals().sessions;
        end(&mut device, &mut admin, &mut own);
        assert!(!alive(&mut other, &mut device), "{way}");
        assert!(alive(&mut admin, &mut device) && alive(&mut bystander, &mut device), "{way}");
        assert!(device.vitals().sessions < open, "{way}: its place is free at once");
    }
}

#[test]
fn a_session_that_was_not_yet_authenticated_when_its_key_changed_never_is() {
    for (way, end) in WAYS {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let mut own = put_key(&mut device, &mut admin, b"two");
        let half = Session::create(&mut device, 2, b"two").unwrap();
        end(&mut device, &mut admin, &mut own);
        let error = half.authenticate(&mut device).err();
        assert_eq!(error, Some(DeviceError::InvalidSession), "{way}");
    }
}

#[test]
fn a_session_that_deletes_its_own_key_continues_until_another_key_has_its_id() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let all = Capabilities::ALL;
    let mut own = put_authentication_key(&mut device, &mut admin, 2, b"two", Domains::ALL, all, all);
    let mut other = Session::open(&mut device, 2, b"two").unwrap();
    own.send(&mut device, Command::DeleteObject, &[0, 2, 2]).unwrap();
    assert!(alive(&mut own, &mut device));
    assert!(!alive(&mut other, &mut device));
    let missing = Err(DeviceError::ObjectNotFound);
    assert_eq!(own.send(&mut device, Command::ChangeAuthenticationKey, &change(b"x", 2)), missing);
    put_another(&mut device, &mut admin, b"another");
    assert!(!alive(&mut own, &mut device), "the key is another's");
}

#[test]
fn a_session_cannot_adopt_the_key_that_it_puts_in_the_place_of_its_own() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    admin.send(&mut device, Command::DeleteObject, &[0, 1, 2]).unwrap();
    let key = Object::new(1, Algorithm::Aes128YubicoAuthentication, RIGHTS);
    let payload = key.delegating(Capabilities::NONE, &[9; 32]);
    admin.send(&mut device, Command::PutAuthenticationKey, &payload).unwrap();
    assert!(!alive(&mut admin, &mut device));
}

#[test]
fn a_stolen_password_is_worth_nothing_once_its_key_was_replaced() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut thief = put_key(&mut device, &mut admin, b"stolen");
    put_again(&mut device, &mut admin, &mut thief);
    assert_eq!(thief.send(&mut device, Command::ChangeAuthenticationKey, &change(b"mine", 2)), OVER);
    assert!(Session::open(&mut device, 2, b"mine").is_err());
    Session::open(&mut device, 2, b"another").unwrap();
}

#[test]
fn keeping_a_session_busy_does_not_carry_it_over_a_change() {
    let clock = Clock::default();
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let mut evil = Session::admin(&mut device);
    let mut admin = Session::admin(&mut device);
    for _ in 0..100 {
        clock.advance(Duration::from_secs(20));
        assert!(alive(&mut evil, &mut device) && alive(&mut admin, &mut device));
    }
    admin.send(&mut device, Command::ChangeAuthenticationKey, &change(b"correct horse", 1)).unwrap();
    assert!(!alive(&mut evil, &mut device));
    assert!(alive(&mut admin, &mut device));
    assert_eq!(device.vitals().sessions, 1);
}
