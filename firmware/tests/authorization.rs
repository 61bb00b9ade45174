//! Capabilities, delegated capabilities and domains, each rule by a test that only it can fail.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{ModelDevice, Object, Session, fresh, put_authentication_key};
use sshsm_protocol::command::Requirement;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

const REFUSED: Result<Vec<u8>, DeviceError> = Err(DeviceError::InsufficientPermissions);

fn domain(number: u16) -> Domains {
    Domains::single(number).unwrap()
}

/// A session with these rights in domain 1, that may delegate `sign-eddsa`.
fn limited(device: &mut ModelDevice, capabilities: &[Capability]) -> Session {
    let mut admin = Session::admin(device);
    let rights = Capabilities::of(capabilities);
    let delegated = Capabilities::of(&[Capability::SignEddsa]);
    put_authentication_key(device, &mut admin, 9, b"limited", domain(1), rights, delegated)
}

fn ed25519(capabilities: &[Capability], domains: Domains) -> Vec<u8> {
    Object { domains, ..Object::new(5, Algorithm::Ed25519, capabilities) }.with(&[])
}

#[test]
fn every_command_with_a_requirement_is_refused_without_it() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut session = limited(&mut device, &[]);
    for &command in Command::ALL {
        let payload = match command {
            Command::DeleteObject => vec![0, 1, 2],
            _ => vec![0; *command.request_length().start()],
        };
        if command.requirement() == Requirement::Nothing {
            continue;
        }
        // These would end the sessions.
        let known = [Command::ResetDevice, Command::RestartDevice].contains(&command)
            || admin.send(&mut device, command, &payload) != Err(DeviceError::InvalidCommand);
        let expected = if known { REFUSED } else { Err(DeviceError::InvalidCommand) };
        assert_eq!(session.send(&mut device, command, &payload), expected, "{command}");
    }
    session.send(&mut device, Command::Echo, b"no capability needed").unwrap();
}

#[test]
fn an_object_is_created_only_within_the_sessions_domains_and_delegated_capabilities() {
    let mut device = fresh();
    let mut session = limited(&mut device, &[Capability::GenerateAsymmetricKey]);
    let mut generate = |capabilities: &[Capability], domains| {
        session.send(&mut device, Command::GenerateAsymmetricKey, &ed25519(capabilities, domains))
    };
    assert_eq!(generate(&[Capability::SignEddsa], domain(2)), REFUSED);
    assert_eq!(generate(&[Capability::SignEddsa], domain(1).union(domain(2))), REFUSED);
    assert_eq!(generate(&[Capability::SignEddsa, Capability::SignPkcs], domain(1)), REFUSED);
    assert_eq!(generate(&[], Domains::NONE), Err(DeviceError::InvalidData));
    assert_eq!(generate(&[Capability::SignEddsa], domain(1)), Ok(vec![0, 5]));
    assert_eq!(generate(&[Capability::SignEddsa], domain(1)), Err(DeviceError::ObjectExists));
}

#[test]
fn an_authentication_key_cannot_delegate_more_than_its_creator() {
    let mut device = fresh();
    let mut session = limited(&mut device, &[Capability::PutAuthenticationKey]);
    let mut put = |capabilities: &[Capability], delegated: &[Capability]| {
        let object = Object {
            domains: domain(1),
            ..Object::new(10, Algorithm::Aes128YubicoAuthentication, capabilities)
        };
        let payload = object.delegating(Capabilities::of(delegated), &[7; 32]);
        session.send(&mut device, Command::PutAuthenticationKey, &payload)
    };
    assert_eq!(put(&[Capability::PutAuthenticationKey], &[]), REFUSED);
    assert_eq!(put(&[Capability::SignEddsa], &[Capability::SignPkcs]), REFUSED);
    assert_eq!(put(&[Capability::SignEddsa], &[Capability::SignEddsa]), Ok(vec![0, 10]));
}

#[test]
fn an_object_of_another_domain_does_not_exist() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key = ed25519(&[Capability::SignEddsa], domain(2));
    admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    let rights = [Capability::SignEddsa, Capability::DeleteAsymmetricKey];
    let mut session = limited(&mut device, &rights);
    let missing = Err(DeviceError::ObjectNotFound);
    assert_eq!(session.send(&mut device, Command::GetObjectInfo, &[0, 5, 3]), missing);
    assert_eq!(session.send(&mut device, Command::GetPublicKey, &[0, 5]), missing);
    assert_eq!(session.send(&mut device, Command::SignEddsa, &[0, 5, 1]), missing);
    assert_eq!(session.send(&mut device, Command::DeleteObject, &[0, 5, 3]), missing);
    assert_eq!(session.send(&mut device, Command::ListObjects, &[2, 3]), Ok(vec![]));
    assert_eq!(admin.send(&mut device, Command::ListObjects, &[2, 3]), Ok(vec![0, 5, 3, 0]));
}

#[test]
fn using_a_key_needs_the_capability_on_session_and_key() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &ed25519(&[], Domains::ALL)).unwrap();
    assert_eq!(admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]), REFUSED);
    admin.send(&mut device, Command::DeleteObject, &[0, 5, 3]).unwrap();
    let key = ed25519(&[Capability::SignEddsa], Domains::ALL);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    assert_eq!(admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]).unwrap().len(), 64);
}

#[test]
fn deleting_needs_the_types_capability_and_one_shared_domain_but_nothing_of_the_object() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &ed25519(&[], Domains::ALL)).unwrap();
    let mut session = limited(&mut device, &[Capability::DeleteTemplate]);
    assert_eq!(session.send(&mut device, Command::DeleteObject, &[0, 5, 3]), REFUSED);
    admin.send(&mut device, Command::DeleteObject, &[0, 9, 2]).unwrap();
    let mut session = limited(&mut device, &[Capability::DeleteAsymmetricKey]);
    assert_eq!(session.send(&mut device, Command::DeleteObject, &[0, 5, 3]), Ok(vec![]));
    assert_eq!(
        session.send(&mut device, Command::DeleteObject, &[0, 5, 3]),
        Err(DeviceError::ObjectNotFound)
    );
}

#[test]
fn templates_are_read_without_a_capability_of_their_own() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let template = Object::new(3, Algorithm::TemplateSsh, &[]).with(b"any bytes");
    admin.send(&mut device, Command::PutTemplate, &template).unwrap();
    assert_eq!(admin.send(&mut device, Command::GetTemplate, &[0, 3]), Ok(b"any bytes".to_vec()));
}

#[test]
fn ids_0_and_0xffff_are_chosen_or_refused() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let generate = |id| Object::new(id, Algorithm::Ed25519, &[]).with(&[]);
    let chosen = admin.send(&mut device, Command::GenerateAsymmetricKey, &generate(0)).unwrap();
    let info = admin.send(&mut device, Command::GetObjectInfo, &[chosen[0], chosen[1], 3]).unwrap();
    assert_eq!(info[8..10], chosen);
    let mut reserved = generate(0);
    reserved[..2].fill(0xff);
    assert_eq!(
        admin.send(&mut device, Command::GenerateAsymmetricKey, &reserved),
        Err(DeviceError::InvalidId)
    );
}

/// `48 … 02 03 04 00000000000001e0`, as the vendor's clients ask for keys that can sign in any way.
#[test]
fn a_list_by_capabilities_has_the_objects_with_at_least_one_of_them() {
    use Capability::{DeriveEcdh, SignEcdsa, SignEddsa, SignPkcs, SignPss};
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key = |id, capabilities: &[Capability]| Object::new(id, Algorithm::Ecp256, capabilities).with(&[]);
    for (id, capabilities) in
        [(5, &[SignEcdsa][..]), (6, &[SignEcdsa, DeriveEcdh]), (7, &[DeriveEcdh]), (8, &[])]
    {
        admin.send(&mut device, Command::GenerateAsymmetricKey, &key(id, capabilities)).unwrap();
    }
    let mut list = |capabilities: &[Capability]| {
        let filter = [&[2, 3, 4][..], &Capabilities::of(capabilities).bits().to_be_bytes()].concat();
        let rows = admin.send(&mut device, Command::ListObjects, &filter).unwrap();
        rows.chunks(4).map(|row| row[1]).collect::<Vec<_>>()
    };
    let sign = [SignPkcs, SignPss, SignEcdsa, SignEddsa];
    assert_eq!(Capabilities::of(&sign).bits(), 0x1e0);
    assert_eq!(list(&sign), [5, 6]);
    assert_eq!(list(&[SignEcdsa, DeriveEcdh]), [5, 6, 7]);
    assert_eq!(list(&[DeriveEcdh]), [6, 7]);
    assert_eq!(list(&[SignPkcs]), []);
}
