//! Every typed command of the client, against the device in this process.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use sshsm_client::{Client, ClientError, Listener, Session};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, DeviceError, Domains, Label, ObjectId,
    ObjectType,
    channel::AuthenticationKey,
    object::{ListFilter, NewObject},
};
use sshsm_simulator::Simulator;
use tempfile::TempDir;

const KEY_1: ObjectId = ObjectId::DEFAULT_AUTHENTICATION_KEY;

/// A client of a fresh device; the directory lives as long as the device.
fn device() -> (TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    let simulator = Simulator::open(directory.path().join("device")).start().unwrap();
    (directory, Client::connect(Box::new(simulator), Listener::default()).unwrap())
}

fn object(id: u16, algorithm: Algorithm, capabilities: &[Capability]) -> NewObject {
    NewObject {
        id: ObjectId::new(id).ok(),
        label: Label::new("tested").unwrap(),
        domains: Domains::ALL,
        capabilities: Capabilities::of(capabilities),
        algorithm,
    }
}

fn refused_with(error: DeviceError) -> impl Fn(ClientError) -> bool {
    move |found| matches!(found, ClientError::Device { error: found, .. } if found == error)
}

#[test]
fn plain_information_needs_no_session() {
    let (_directory, client) = device();
    let identity = client.identity();
    assert!(identity.serial > 0 && identity.algorithms.contains(&Algorithm::Ed25519));
    assert_eq!(client.max_payload(), 3116);
}

#[test]
fn the_device_answers_what_is_asked() {
    let (_directory, mut client) = device();
    let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
    assert_eq!(session.echo(b"hello").unwrap(), b"hello");
    let long = vec![7; session.max_payload()];
    assert_eq!(session.echo(&long).unwrap(), long);
    assert!(matches!(session.echo(&vec![7; long.len() + 1]), Err(ClientError::TooLong { limit: 3116, .. })));
    assert_eq!(session.echo(b"").unwrap(), b"", "a request that is too long ends no session");
    assert_eq!(session.pseudo_random(32).unwrap().len(), 32);
    assert_ne!(session.pseudo_random(32).unwrap(), session.pseudo_random(32).unwrap());
    let storage = session.storage_info().unwrap();
    assert!(storage.free_records < storage.total_records);
    session.blink(1).unwrap();
    session.close().unwrap();
}

#[test]
fn objects_are_listed_by_every_filter_and_deleted() {
    let (_directory, mut client) = device();
    let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
    let new = object(7, Algorithm::Ecp256, &[Capability::SignEcdsa]);
    let id = session.generate_asymmetric_key(&new).unwrap();
    assert_eq!(id.get(), 7);
    let info = session.object_info(id, ObjectType::AsymmetricKey).unwrap();
    assert_eq!((info.algorithm, info.capabilities, info.label), (new.algorithm, new.capabilities, new.label));
    let filter = ListFilter {
        id: Some(7),
        object_type: Some(ObjectType::AsymmetricKey),
        domains: Some(Domains::ALL),
        capabilities: Some(new.capabilities),
        algorithm: Some(new.algorithm),
        label: Some(new.label),
    };
    assert_eq!(session.list_objects(&filter).unwrap().len(), 1);
    assert_eq!(session.list_objects(&ListFilter { id: Some(8), ..filter }).unwrap().len(), 0);
    assert_eq!(session.list_objects(&ListFilter::default()).unwrap().len(), 2);
    assert!(refused_with(DeviceError::ObjectExists)(session.generate_asymmetric_key(&new).unwrap_err()));
    session.delete_object(id, ObjectType::AsymmetricKey).unwrap();
    let again = session.delete_object(id, ObjectType::AsymmetricKey).unwrap_err();
    assert!(refused_with(DeviceError::ObjectNotFound)(again));
}

#[test]
fn keys_sign_only_what_their_capabilities_say() {
    let (_directory, mut client) = device();
    let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
    let seed = [9; 32];
    let id =
        session.put_asymmetric_key(&object(2, Algorithm::Ed25519, &[Capability::SignEddsa]), &seed).unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&seed);
    let public = session.public_key(id).unwrap();
    assert_eq!(public.algorithm, AsymmetricAlgorithm::Ed25519);
    assert_eq!(public.bytes, key.verifying_key().as_bytes());
    let signature =
        ed25519_dalek::Signature::from_slice(&session.sign_eddsa(id, b"message").unwrap()).unwrap();
    key.verifying_key().verify_strict(b"message", &signature).unwrap();

    let id =
        session.generate_asymmetric_key(&object(3, Algorithm::Ecp256, &[Capability::SignEcdsa])).unwrap();
    let signature = session.sign_ecdsa(id, &[1; 32]).unwrap();
    assert_eq!(signature[0], 0x30, "an ECDSA signature is DER");
    let id =
        session.generate_asymmetric_key(&object(4, Algorithm::Rsa2048, &[Capability::SignPkcs])).unwrap();
    assert_eq!(session.sign_pkcs1(id, &[1; 32]).unwrap().len(), 256);

    let mute = session.generate_asymmetric_key(&object(5, Algorithm::Ed25519, &[])).unwrap();
    let refused = session.sign_eddsa(mute, b"message").unwrap_err();
    assert!(refused_with(DeviceError::InsufficientPermissions)(refused));
}

#[test]
fn a_template_is_returned_as_it_was_put() {
    let (_directory, mut client) = device();
    let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
    let id = session.put_template(&object(0, Algorithm::TemplateSsh, &[]), b"any bytes").unwrap();
    assert_eq!(session.template(id).unwrap(), b"any bytes");
}

#[test]
fn authentication_keys_are_put_changed_and_told_apart() {
    let (_directory, mut client) = device();
    let two = ObjectId::new(2).unwrap();
    let new = object(2, Algorithm::Aes128YubicoAuthentication, &[Capability::ChangeAuthenticationKey]);
    {
        let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
        let key = AuthenticationKey::from_password("κόσμε".as_bytes());
        assert_eq!(session.put_authentication_key(&new, Capabilities::NONE, &key).unwrap(), two);
    }
    {
        let mut session = Session::open(&mut client, two, "κόσμε").unwrap();
        let foreign = AuthenticationKey::from_password(b"mine");
        assert!(refused_with(DeviceError::InvalidId)(
            session.change_authentication_key(KEY_1, &foreign).unwrap_err()
        ));
        session.change_authentication_key(two, &AuthenticationKey::from_password(b"new")).unwrap();
        let refused = session.generate_asymmetric_key(&object(0, Algorithm::Ed25519, &[])).unwrap_err();
        assert!(refused_with(DeviceError::InsufficientPermissions)(refused));
    }
    assert!(
        matches!(Session::open(&mut client, two, "κόσμε"), Err(ClientError::WrongPassword(id)) if id == two)
    );
    assert!(Session::open(&mut client, two, "new").is_ok());
    let three = ObjectId::new(3).unwrap();
    let unknown = Session::open(&mut client, three, "new").map(drop);
    assert!(matches!(unknown, Err(ClientError::UnknownAuthenticationKey(id)) if id == three));
}

#[test]
fn a_dropped_session_is_closed_and_sixteen_are_enough_for_ever() {
    let (_directory, mut client) = device();
    for _ in 0..40 {
        assert_eq!(Session::open(&mut client, KEY_1, "password").unwrap().echo(b"x").unwrap(), b"x");
    }
}

#[test]
fn reset_leaves_a_device_in_factory_state() {
    let (_directory, mut client) = device();
    {
        let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
        session.generate_asymmetric_key(&object(5, Algorithm::Ed25519, &[])).unwrap();
        session.change_authentication_key(KEY_1, &AuthenticationKey::from_password(b"new")).unwrap();
        session.reset().unwrap();
    }
    let mut session = Session::open(&mut client, KEY_1, "password").unwrap();
    assert_eq!(session.list_objects(&ListFilter::default()).unwrap().len(), 1);
}
