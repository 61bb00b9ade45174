//! The option templates: once frozen, the templates of a device stay as they are until it is reset.
#![cfg(all(feature = "ssh", feature = "audit", feature = "rsa-wrap", feature = "opaque"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;
#[path = "model/rsa_key.rs"]
mod model_rsa;

use model::{ModelDevice, Object, Session, fresh, start};
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError};

type Answer = Result<Vec<u8>, DeviceError>;
const OK: Answer = Ok(Vec::new());
const FROZEN: Answer = Err(DeviceError::TemplatesFrozen);
const INVALID: Answer = Err(DeviceError::InvalidData);

const WRAP: [u8; 2] = [0, 0x77];
const LABEL: [u8; 32] = hex_literal::hex!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

fn set(session: &mut Session, device: &mut ModelDevice, value: &[u8]) -> Answer {
    let length = u8::try_from(value.len()).unwrap();
    session.send(device, Command::SetOption, &[&[0x81, 0, length], value].concat())
}

fn get(session: &mut Session, device: &mut ModelDevice) -> Answer {
    session.send(device, Command::GetOption, &[0x81])
}

fn put(session: &mut Session, device: &mut ModelDevice, id: u16) -> Answer {
    let template = Object::new(id, Algorithm::TemplateSsh, &[Capability::ExportableUnderWrap]).with(&[1, 2]);
    session.send(device, Command::PutTemplate, &template)
}

fn delete(session: &mut Session, device: &mut ModelDevice, id: u8, kind: u8) -> Answer {
    session.send(device, Command::DeleteObject, &[0, id, kind])
}

/// Templates 4 and 5, wrap keys of each kind, and exports of template 4 under each.
fn prepared() -> (ModelDevice, Session, [(Command, Vec<u8>); 2]) {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    put(&mut admin, &mut device, 4).unwrap();
    put(&mut admin, &mut device, 5).unwrap();
    let both = [Capability::ExportWrapped, Capability::ImportWrapped];
    let wrap = Object::new(0x77, Algorithm::Aes128CcmWrap, &both).delegating(Capabilities::ALL, &[3; 16]);
    admin.send(&mut device, Command::PutWrapKey, &wrap).unwrap();
    let (algorithm, factors) = model_rsa::LARGE[0];
    let wrap = || Object::new(0x78, algorithm, &both);
    let private = wrap().delegating(Capabilities::ALL, factors);
    admin.send(&mut device, Command::PutWrapKey, &private).unwrap();
    let modulus = admin.send(&mut device, Command::GetPublicKey, &[0, 0x78, 4]).unwrap();
    let public = wrap().delegating(Capabilities::ALL, &modulus[1..]);
    admin.send(&mut device, Command::PutPublicWrapKey, &public).unwrap();
    let blob = admin.send(&mut device, Command::ExportWrapped, &[0, 0x77, 6, 0, 4]).unwrap();
    let aes = (Command::ImportWrapped, [&WRAP[..], &blob].concat());
    let request = [&[0, 0x78, 6, 0, 4, 52, 26, 33][..], &LABEL].concat();
    let blob = admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
    let rsa = (Command::ImportRsaWrapped, [&[0, 0x78, 26, 33][..], &blob, &LABEL].concat());
    (device, admin, [aes, rsa])
}

#[test]
fn no_template_comes_and_none_goes_once_they_are_frozen() {
    let (mut device, mut admin, imports) = prepared();
    for (command, payload) in &imports {
        delete(&mut admin, &mut device, 4, 6).unwrap();
        assert_eq!(admin.send(&mut device, *command, payload), Ok(vec![6, 0, 4]), "{command}");
    }
    delete(&mut admin, &mut device, 4, 6).unwrap();
    assert_eq!(get(&mut admin, &mut device), Ok(vec![0]));
    assert_eq!(set(&mut admin, &mut device, &[1]), OK);
    assert_eq!(get(&mut admin, &mut device), Ok(vec![1]));

    let unchanged = admin.send(&mut device, Command::ListObjects, &[2, 6]).unwrap();
    assert_eq!(put(&mut admin, &mut device, 4), FROZEN, "a name that is free");
    assert_eq!(put(&mut admin, &mut device, 5), FROZEN, "one that is taken");
    assert_eq!(put(&mut admin, &mut device, 0), FROZEN, "one that the device chooses");
    assert_eq!(delete(&mut admin, &mut device, 5, 6), FROZEN);
    assert_eq!(delete(&mut admin, &mut device, 9, 6), Err(DeviceError::ObjectNotFound));
    for (command, payload) in &imports {
        assert_eq!(admin.send(&mut device, *command, payload), FROZEN, "{command}");
    }
    assert_eq!(admin.send(&mut device, Command::ListObjects, &[2, 6]), Ok(unchanged));
    assert_eq!(admin.send(&mut device, Command::GetTemplate, &[0, 5]), Ok(vec![1, 2]));
}

#[test]
fn every_other_type_comes_and_goes_under_frozen_templates() {
    let (mut device, mut admin, _) = prepared();
    set(&mut admin, &mut device, &[1]).unwrap();
    let opaque = Object::new(5, Algorithm::OpaqueData, &[Capability::ExportableUnderWrap]).with(&[9]);
    admin.send(&mut device, Command::PutOpaque, &opaque).unwrap();
    let blob = admin.send(&mut device, Command::ExportWrapped, &[0, 0x77, 1, 0, 5]).unwrap();
    assert_eq!(delete(&mut admin, &mut device, 5, 1), OK);
    let import = [&WRAP[..], &blob].concat();
    assert_eq!(admin.send(&mut device, Command::ImportWrapped, &import), Ok(vec![1, 0, 5]));
    let key = Object::new(5, Algorithm::Ed25519, &[]).with(&[7; 32]);
    assert_eq!(admin.send(&mut device, Command::PutAsymmetricKey, &key), Ok(vec![0, 5]));
}

#[test]
fn nothing_but_a_reset_opens_frozen_templates() {
    let (mut device, mut admin, _) = prepared();
    for value in [&[2][..], &[], &[1, 0], &[0, 1]] {
        assert_eq!(set(&mut admin, &mut device, value), INVALID, "{value:?}");
        assert_eq!(get(&mut admin, &mut device), Ok(vec![0]));
    }
    assert_eq!(set(&mut admin, &mut device, &[0]), OK, "they are open already");
    assert_eq!(set(&mut admin, &mut device, &[1]), OK);
    assert_eq!(set(&mut admin, &mut device, &[1]), OK, "they are frozen already");
    assert_eq!(set(&mut admin, &mut device, &[0]), INVALID);
    let mut device = start(device.flash().unwrap().copy());
    let mut admin = Session::admin(&mut device);
    assert_eq!(get(&mut admin, &mut device), Ok(vec![1]), "after a restart");
    assert_eq!(delete(&mut admin, &mut device, 5, 6), FROZEN);
    admin.send(&mut device, Command::ResetDevice, &[]).unwrap();
    let mut admin = Session::admin(&mut device);
    assert_eq!(get(&mut admin, &mut device), Ok(vec![0]));
    assert_eq!(put(&mut admin, &mut device, 5), Ok(vec![0, 5]));
}

#[test]
fn a_session_that_has_no_right_to_templates_is_told_that_and_not_that_they_are_frozen() {
    let (mut device, mut admin, _) = prepared();
    set(&mut admin, &mut device, &[1]).unwrap();
    let rights = Capabilities::of(&[Capability::GetOption]);
    let mut other = model::put_authentication_key(
        &mut device,
        &mut admin,
        2,
        b"x",
        sshsm_protocol::Domains::ALL,
        rights,
        Capabilities::NONE,
    );
    let refused = Err(DeviceError::InsufficientPermissions);
    assert_eq!(put(&mut other, &mut device, 4), refused);
    assert_eq!(delete(&mut other, &mut device, 5, 6), refused);
    assert_eq!(set(&mut other, &mut device, &[1]), refused);
    assert_eq!(get(&mut other, &mut device), Ok(vec![1]));
}

#[test]
fn a_strict_device_has_no_option_of_ours_and_keeps_what_another_firmware_froze() {
    let (mut device, mut admin, _) = prepared();
    device.platform().dialect = Dialect::Yubihsm2;
    for option in [0x80, 0x81] {
        assert_eq!(admin.send(&mut device, Command::GetOption, &[option]), INVALID);
        assert_eq!(admin.send(&mut device, Command::SetOption, &[option, 0, 1, 1]), INVALID);
        assert_eq!(admin.send(&mut device, Command::SetOption, &[option, 0, 2, 0, 15]), INVALID);
    }
    device.platform().dialect = Dialect::Extended;
    assert_eq!(set(&mut admin, &mut device, &[1]), OK);
    device.platform().dialect = Dialect::Yubihsm2;
    assert_eq!(put(&mut admin, &mut device, 4), FROZEN);
    assert_eq!(delete(&mut admin, &mut device, 5, 6), FROZEN);
}
