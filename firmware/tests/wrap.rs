//! AES wrap keys: who may export and import what, the wire format, and wrapped data.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod model;
#[path = "model/rsa_key.rs"]
mod rsa_key;

use aes::{Aes128, Aes192, Aes256};
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U13, U16};
use ccm::{AeadInOut, Ccm, KeyInit};
use hex_literal::hex;
use model::{ModelDevice, Object, Session, fresh, put_authentication_key};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sshsm_firmware::crypto::key;
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::{NewObject, ObjectInfo, Origin};
use sshsm_protocol::wrapped::WrappedObject;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, Curve, DeviceError, Domains, Label,
    ObjectId, ObjectType,
};

type Answer = Result<Vec<u8>, DeviceError>;
const REFUSED: Answer = Err(DeviceError::InsufficientPermissions);
const INVALID: Answer = Err(DeviceError::InvalidData);
const MISSING: Answer = Err(DeviceError::ObjectNotFound);

/// The wrap key of most tests, id 0x77: AES-128, 00 … 0f.
const WRAP: [u8; 2] = [0, 0x77];
const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const BOTH: [Capability; 2] = [Capability::ExportWrapped, Capability::ImportWrapped];

fn domain(number: u16) -> Domains {
    Domains::single(number).unwrap()
}

fn put_wrap_key(device: &mut ModelDevice, admin: &mut Session, object: Object, delegated: Capabilities) {
    admin.send(device, Command::PutWrapKey, &object.delegating(delegated, &KEY)).unwrap();
}

/// A device with the wrap key, in all domains and delegating everything, and an administrator's session.
fn with_wrap_key() -> (ModelDevice, Session) {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let object = Object::new(0x77, Algorithm::Aes128CcmWrap, &BOTH);
    put_wrap_key(&mut device, &mut admin, object, Capabilities::ALL);
    (device, admin)
}

/// Seals as another implementation would; the nonce is all zeros.
fn seal<C>(key: &[u8], plaintext: &[u8]) -> Vec<u8>
where
    Ccm<C, U16, U13>: KeyInit + AeadInOut<TagSize = U16, NonceSize = U13>,
    C: aes::cipher::BlockSizeUser<BlockSize = U16> + aes::cipher::BlockCipherEncrypt,
{
    let mut text = plaintext.to_vec();
    let tag = Ccm::<C, U16, U13>::new_from_slice(key)
        .unwrap()
        .encrypt_inout_detached(&[0; 13].into(), b"", InOutBuf::from(text.as_mut_slice()))
        .unwrap();
    [&[0; 13], text.as_slice(), &tag].concat()
}

fn open(blob: &[u8]) -> Vec<u8> {
    let (nonce, rest) = blob.split_first_chunk::<13>().unwrap();
    let (text, tag) = rest.split_last_chunk::<16>().unwrap();
    let mut text = text.to_vec();
    Ccm::<Aes128, U16, U13>::new_from_slice(&KEY)
        .unwrap()
        .decrypt_inout_detached(nonce.into(), b"", InOutBuf::from(text.as_mut_slice()), tag.into())
        .unwrap();
    text
}

fn import(device: &mut ModelDevice, session: &mut Session, blob: &[u8]) -> Answer {
    session.send(device, Command::ImportWrapped, &[&WRAP, blob].concat())
}

fn import_object(device: &mut ModelDevice, session: &mut Session, object: &WrappedObject<'_>) -> Answer {
    import(device, session, &seal::<Aes128>(&KEY, &encoded(object)))
}

fn encoded(object: &WrappedObject<'_>) -> Vec<u8> {
    let mut bytes = vec![0; object.encoded_len()];
    object.encode(&mut Writer::new(&mut bytes)).unwrap();
    bytes
}

fn export(device: &mut ModelDevice, session: &mut Session, object_type: ObjectType, id: u16) -> Answer {
    session.send(device, Command::ExportWrapped, &target(object_type, id))
}

fn target(object_type: ObjectType, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![WRAP[0], WRAP[1], object_type.code(), high, low]
}

fn info(device: &mut ModelDevice, session: &mut Session, object_type: ObjectType, id: u16) -> ObjectInfo {
    let [high, low] = id.to_be_bytes();
    let info = session.send(device, Command::GetObjectInfo, &[high, low, object_type.code()]).unwrap();
    ObjectInfo::decode(&mut Reader::new(&info)).unwrap()
}

fn objects(device: &mut ModelDevice, session: &mut Session) -> Vec<u8> {
    session.send(device, Command::ListObjects, &[]).unwrap()
}

fn delete(device: &mut ModelDevice, session: &mut Session, object_type: ObjectType, id: u16) {
    let [high, low] = id.to_be_bytes();
    session.send(device, Command::DeleteObject, &[high, low, object_type.code()]).unwrap();
}

/// A template, which may leave and do nothing else.
fn template(body: &[u8]) -> WrappedObject<'_> {
    WrappedObject {
        wrap_algorithm: Algorithm::Aes128CcmWrap,
        sequence: 9,
        object_type: ObjectType::Template,
        object: NewObject {
            id: ObjectId::new(0x1234).ok(),
            label: Label::new("test").unwrap(),
            domains: Domains::ALL,
            capabilities: Capabilities::of(&[Capability::ExportableUnderWrap]),
            algorithm: Algorithm::TemplateSsh,
        },
        origin: Origin::IMPORTED,
        delegated_capabilities: Capabilities::NONE,
        body,
    }
}

fn of_type(object_type: ObjectType, algorithm: Algorithm, body: &[u8]) -> WrappedObject<'_> {
    let object = NewObject { algorithm, ..template(&[]).object };
    WrappedObject { object_type, object, ..template(body) }
}

fn put_template(device: &mut ModelDevice, session: &mut Session, object: Object) {
    session.send(device, Command::PutTemplate, &object.with(b"any bytes")).unwrap();
}

#[test]
fn wrap_keys_of_every_length_are_put_and_generated() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (algorithm, length) in
        [(Algorithm::Aes128CcmWrap, 16), (Algorithm::Aes192CcmWrap, 24), (Algorithm::Aes256CcmWrap, 32)]
    {
        let delegated = Capabilities::of(&[Capability::SignEddsa]);
        for put in [true, false] {
            let (command, key, origin) = match put {
                true => (Command::PutWrapKey, vec![7; length], Origin::IMPORTED),
                false => (Command::GenerateWrapKey, vec![], Origin::GENERATED),
            };
            let object = || Object::new(5, algorithm, &BOTH);
            let payload = object().delegating(delegated, &key);
            assert_eq!(admin.send(&mut device, command, &payload), Ok(vec![0, 5]));
            let stored = info(&mut device, &mut admin, ObjectType::WrapKey, 5);
            assert_eq!(usize::from(stored.length), length + 8);
            assert_eq!((stored.algorithm, stored.origin), (algorithm, origin));
            assert_eq!(stored.capabilities, Capabilities::of(&BOTH));
            assert_eq!(stored.delegated_capabilities, delegated);
            assert_eq!(admin.send(&mut device, command, &payload), Err(DeviceError::ObjectExists));
            delete(&mut device, &mut admin, ObjectType::WrapKey, 5);
        }
        for wrong in [16, 24, 32].into_iter().filter(|&wrong| wrong != length) {
            let payload = Object::new(5, algorithm, &[]).delegating(delegated, &vec![7; wrong]);
            assert_eq!(admin.send(&mut device, Command::PutWrapKey, &payload), Err(DeviceError::WrongLength));
        }
    }
    for algorithm in [Algorithm::Aes128, Algorithm::Ecp256, Algorithm::Ed25519] {
        let payload = Object::new(5, algorithm, &[]).delegating(Capabilities::NONE, &[7; 32]);
        assert_eq!(admin.send(&mut device, Command::PutWrapKey, &payload), INVALID);
        let payload = Object::new(5, algorithm, &[]).delegating(Capabilities::NONE, &[]);
        assert_eq!(admin.send(&mut device, Command::GenerateWrapKey, &payload), INVALID);
    }
}

#[test]
fn a_wrap_key_cannot_delegate_more_than_its_creator() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let rights = Capabilities::of(&[Capability::PutWrapKey, Capability::GenerateWrapKey]);
    let may = Capabilities::of(&[Capability::ExportWrapped]);
    let mut session =
        put_authentication_key(&mut device, &mut admin, 9, b"limited", Domains::ALL, rights, may);
    let more = Capabilities::of(&[Capability::SignEddsa]);
    for (command, key) in [(Command::PutWrapKey, &KEY[..]), (Command::GenerateWrapKey, &[])] {
        let object = || Object::new(5, Algorithm::Aes128CcmWrap, &[Capability::ExportWrapped]);
        assert_eq!(session.send(&mut device, command, &object().delegating(more, key)), REFUSED);
        assert_eq!(session.send(&mut device, command, &object().delegating(may, key)), Ok(vec![0, 5]));
        delete(&mut device, &mut admin, ObjectType::WrapKey, 5);
    }
}

#[test]
fn every_command_needs_its_capability_on_the_session() {
    let (mut device, mut admin) = with_wrap_key();
    put_template(&mut device, &mut admin, Object::new(3, Algorithm::TemplateSsh, &[]));
    let mut session = put_authentication_key(
        &mut device,
        &mut admin,
        9,
        b"limited",
        Domains::ALL,
        Capabilities::NONE,
        Capabilities::ALL,
    );
    let payloads: [(Command, &[u8]); 6] = [
        (Command::PutWrapKey, &[0; 77]),
        (Command::GenerateWrapKey, &[0; 61]),
        (Command::ExportWrapped, &[0, 0x77, 6, 0, 3]),
        (Command::ImportWrapped, &[0; 100]),
        (Command::WrapData, &[0, 0x77, 1]),
        (Command::UnwrapData, &[0; 40]),
    ];
    for (command, payload) in payloads {
        assert_eq!(session.send(&mut device, command, payload), REFUSED, "{command}");
    }
}

#[test]
fn an_export_needs_wrap_key_and_target_in_sight() {
    let (mut device, mut admin) = with_wrap_key();
    let exportable = [Capability::ExportableUnderWrap];
    let template = |id, domains| Object { domains, ..Object::new(id, Algorithm::TemplateSsh, &exportable) };
    put_template(&mut device, &mut admin, template(1, domain(1)));
    put_template(&mut device, &mut admin, template(2, domain(2)));
    let rights = Capabilities::of(&BOTH);
    let mut session =
        put_authentication_key(&mut device, &mut admin, 9, b"limited", domain(1), rights, rights);
    assert!(export(&mut device, &mut session, ObjectType::Template, 1).is_ok());
    assert_eq!(export(&mut device, &mut session, ObjectType::Template, 2), MISSING);
    assert_eq!(export(&mut device, &mut session, ObjectType::Template, 3), MISSING);
    assert_eq!(export(&mut device, &mut session, ObjectType::Opaque, 1), MISSING);
    for id in [0, 0xffff] {
        assert_eq!(export(&mut device, &mut session, ObjectType::Template, id), MISSING);
    }
    let blob = export(&mut device, &mut admin, ObjectType::Template, 1).unwrap();

    delete(&mut device, &mut admin, ObjectType::WrapKey, 0x77);
    assert_eq!(export(&mut device, &mut session, ObjectType::Template, 1), MISSING);
    assert_eq!(import(&mut device, &mut session, &blob), MISSING);
    let hidden = Object { domains: domain(2), ..Object::new(0x77, Algorithm::Aes128CcmWrap, &BOTH) };
    put_wrap_key(&mut device, &mut admin, hidden, Capabilities::ALL);
    assert_eq!(export(&mut device, &mut session, ObjectType::Template, 1), MISSING);
    assert_eq!(import(&mut device, &mut session, &blob), MISSING);
}

#[test]
fn an_export_needs_its_capabilities_on_wrap_key_and_target() {
    let exportable = Capability::ExportableUnderWrap;
    let key = |capabilities: &[Capability], delegated: &[Capability], target: &[Capability]| {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let object = Object::new(0x77, Algorithm::Aes128CcmWrap, capabilities);
        put_wrap_key(&mut device, &mut admin, object, Capabilities::of(delegated));
        put_template(&mut device, &mut admin, Object::new(1, Algorithm::TemplateSsh, target));
        export(&mut device, &mut admin, ObjectType::Template, 1)
    };
    assert_eq!(key(&[Capability::ImportWrapped], &[exportable], &[exportable]), REFUSED);
    assert_eq!(key(&[Capability::ExportWrapped], &[], &[exportable]), REFUSED);
    assert_eq!(key(&[Capability::ExportWrapped], &[exportable], &[]), REFUSED);
    let more = [exportable, Capability::SignEddsa];
    assert_eq!(key(&[Capability::ExportWrapped], &[exportable], &more), REFUSED);
    assert!(key(&[Capability::ExportWrapped], &more, &more).is_ok());
    assert!(key(&[Capability::ExportWrapped], &[exportable], &[exportable]).is_ok());
}

#[test]
fn an_import_needs_its_capabilities_on_wrap_key_and_delegates_no_more_than_that_has() {
    let exportable = Capability::ExportableUnderWrap;
    let import = |capabilities: &[Capability], delegated: &[Capability], object: &WrappedObject<'_>| {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let key = Object::new(0x77, Algorithm::Aes128CcmWrap, capabilities);
        put_wrap_key(&mut device, &mut admin, key, Capabilities::of(delegated));
        let before = objects(&mut device, &mut admin);
        let answer = import_object(&mut device, &mut admin, object);
        if answer.is_err() {
            assert_eq!(objects(&mut device, &mut admin), before);
        }
        answer
    };
    let template = template(b"x");
    let may = &[Capability::ImportWrapped];
    assert_eq!(import(&[Capability::ExportWrapped], &[exportable], &template), REFUSED);
    assert_eq!(import(may, &[], &template), REFUSED);
    assert_eq!(import(may, &[exportable], &template), Ok(vec![6, 0x12, 0x34]));

    let key = of_type(ObjectType::AuthenticationKey, Algorithm::Aes128YubicoAuthentication, &[1; 32]);
    let delegating =
        WrappedObject { delegated_capabilities: Capabilities::of(&[Capability::SignEddsa]), ..key };
    assert_eq!(import(may, &[exportable], &key), Ok(vec![2, 0x12, 0x34]));
    assert_eq!(import(may, &[exportable], &delegating), REFUSED);
    assert_eq!(import(may, &[exportable, Capability::SignEddsa], &delegating), Ok(vec![2, 0x12, 0x34]));
}

#[test]
fn an_imported_object_keeps_the_domains_that_it_shares_with_the_wrap_key() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key =
        Object { domains: domain(2).union(domain(3)), ..Object::new(0x77, Algorithm::Aes128CcmWrap, &BOTH) };
    put_wrap_key(&mut device, &mut admin, key, Capabilities::ALL);
    let of =
        |domains| WrappedObject { object: NewObject { domains, ..template(b"x").object }, ..template(b"x") };
    assert_eq!(import_object(&mut device, &mut admin, &of(domain(1))), REFUSED);
    assert_eq!(import_object(&mut device, &mut admin, &of(Domains::NONE)), INVALID);
    import_object(&mut device, &mut admin, &of(domain(1).union(domain(2)))).unwrap();
    assert_eq!(info(&mut device, &mut admin, ObjectType::Template, 0x1234).domains, domain(2));
}

#[test]
fn an_import_brings_no_object_into_a_domain_that_the_session_has_not() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let [one, two, three] = [1, 2, 3].map(domain);
    let key = Object { domains: one.union(two), ..Object::new(0x77, Algorithm::Aes128CcmWrap, &BOTH) };
    put_wrap_key(&mut device, &mut admin, key, Capabilities::ALL);
    let rights = Capabilities::of(&[Capability::ImportWrapped]);
    let sees = one.union(three);
    let mut importer =
        put_authentication_key(&mut device, &mut admin, 9, b"importer", sees, rights, Capabilities::NONE);
    let of = |domains| {
        let password =
            of_type(ObjectType::AuthenticationKey, Algorithm::Aes128YubicoAuthentication, &[7; 32]);
        WrappedObject { object: NewObject { domains, ..password.object }, ..password }
    };
    for elsewhere in [two, three, two.union(three)] {
        assert_eq!(import_object(&mut device, &mut importer, &of(elsewhere)), REFUSED, "{elsewhere:?}");
    }
    import_object(&mut device, &mut importer, &of(Domains::ALL)).unwrap();
    let stored = info(&mut device, &mut admin, ObjectType::AuthenticationKey, 0x1234);
    assert_eq!(stored.domains, one, "what object, wrap key and session have in common");
}

#[test]
#[cfg(feature = "audit")]
fn an_object_of_a_disabled_algorithm_does_not_come_in() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    // Option 4, algorithm toggle: template-ssh off.
    let toggle = [4, 0, 2, Algorithm::TemplateSsh.code(), 0];
    admin.send(&mut device, Command::SetOption, &toggle).unwrap();
    let object = Object::new(0x77, Algorithm::Aes128CcmWrap, &BOTH);
    put_wrap_key(&mut device, &mut admin, object, Capabilities::ALL);
    let answer = import_object(&mut device, &mut admin, &template(b"any bytes"));
    assert_eq!(answer, Err(DeviceError::AlgorithmDisabled));
}

#[test]
fn an_import_takes_a_free_name_and_a_fresh_sequence_number_and_says_that_it_was_wrapped() {
    let (mut device, mut admin) = with_wrap_key();
    for (sequence, (from, to)) in (0..).zip([(0x01, 0x11), (0x02, 0x12), (0x11, 0x11), (0x12, 0x12)]) {
        let object = WrappedObject { origin: Origin::from_code(from).unwrap(), ..template(b"x") };
        assert_eq!(import_object(&mut device, &mut admin, &object), Ok(vec![6, 0x12, 0x34]));
        let before = objects(&mut device, &mut admin);
        let exists = Err(DeviceError::ObjectExists);
        assert_eq!(import_object(&mut device, &mut admin, &object), exists);
        assert_eq!(objects(&mut device, &mut admin), before);
        let stored = info(&mut device, &mut admin, ObjectType::Template, 0x1234);
        assert_eq!((stored.origin.code(), stored.sequence), (to, sequence));
        assert_eq!((stored.label, stored.length), (object.object.label, 1));
        delete(&mut device, &mut admin, ObjectType::Template, 0x1234);
    }
    let unnamed = WrappedObject { object: NewObject { id: None, ..template(b"x").object }, ..template(b"x") };
    let chosen = import_object(&mut device, &mut admin, &unnamed).unwrap();
    assert_eq!(chosen[0], 6);
    info(&mut device, &mut admin, ObjectType::Template, u16::from_be_bytes([chosen[1], chosen[2]]));
}

#[test]
fn an_export_is_the_published_layout_and_never_the_same_twice() {
    let (mut device, mut admin) = with_wrap_key();
    import_object(&mut device, &mut admin, &template(b"hello")).unwrap();
    let first = export(&mut device, &mut admin, ObjectType::Template, 0x1234).unwrap();
    let second = export(&mut device, &mut admin, ObjectType::Template, 0x1234).unwrap();
    assert_ne!(first[..13], second[..13]);
    let mut expected = encoded(&template(b"hello"));
    (expected[17], expected[18]) = (0, 0x12);
    assert_eq!(open(&first), expected);
    assert_eq!(open(&second), expected);
}

#[test]
fn a_payload_of_another_length_or_format_is_refused() {
    let (mut device, mut admin) = with_wrap_key();
    let exportable = [Capability::ExportableUnderWrap];
    put_template(&mut device, &mut admin, Object::new(1, Algorithm::TemplateSsh, &exportable));
    let wrong = Err(DeviceError::WrongLength);
    let request = target(ObjectType::Template, 1);
    let mut send = |payload: &[u8]| admin.send(&mut device, Command::ExportWrapped, payload);
    assert_eq!(send(&request[..4]), wrong);
    assert!(send(&[&request[..], &[0]].concat()).is_ok());
    assert!(send(&[&request[..], &[1]].concat()).is_ok());
    assert_eq!(send(&[&request[..], &[2]].concat()), wrong);
    assert_eq!(send(&[&request[..], &[0, 0]].concat()), wrong);
    assert_eq!(send(&[0, 0x77, 99, 0, 1]), INVALID);
    for length in 2..=30 {
        assert_eq!(admin.send(&mut device, Command::ImportWrapped, &vec![0; length]), wrong);
    }
}

/// docs/protocol.md, "Wrapped objects", vector C.
#[test]
fn the_published_blob_imports() {
    let (mut device, mut admin) = with_wrap_key();
    let blob = hex!(
        "a0a1a2a3a4a5a6a7a8a9aaabac44ad40d477ae1de04487a178b1b913ed2a8a8ea0ee9da9921589af548f908bddcb94db3f56"
        "acdb447be3665ee60c9b91100c90ddc9573d4e58c27f551d502cc89f8689be1314119d40cc85795714a996"
    );
    assert_eq!(import(&mut device, &mut admin, &blob), Ok(vec![1, 0x12, 0x34]));
    assert_eq!(admin.send(&mut device, Command::GetOpaque, &[0x12, 0x34]), Ok(b"hello".to_vec()));
    let stored = info(&mut device, &mut admin, ObjectType::Opaque, 0x1234);
    assert_eq!((stored.domains, stored.origin.code(), stored.length), (domain(1), 0x12, 5));
}

/// One object of each type and asymmetric algorithm, id 1, as [`used`] needs it.
fn one_of_each() -> Vec<(ObjectType, Command, Vec<u8>)> {
    let object = |algorithm, capabilities: &[Capability]| {
        Object::new(1, algorithm, &[capabilities, &[Capability::ExportableUnderWrap]].concat())
    };
    let delegated = Capabilities::of(&[Capability::SignEddsa]);
    let session_key = AuthenticationKey::from_password(b"wrapped");
    let modulus = [[0xff; 128], [0x01; 128]].concat();
    let use_asymmetric = [Capability::SignPkcs, Capability::SignEcdsa, Capability::SignEddsa];
    let mut all = vec![
        (
            ObjectType::Opaque,
            Command::PutOpaque,
            object(Algorithm::OpaqueX509Certificate, &[]).with(b"any bytes"),
        ),
        (
            ObjectType::AuthenticationKey,
            Command::PutAuthenticationKey,
            object(Algorithm::Aes128YubicoAuthentication, &[]).delegating(delegated, session_key.as_bytes()),
        ),
        (
            ObjectType::WrapKey,
            Command::PutWrapKey,
            object(Algorithm::Aes256CcmWrap, &[Capability::UnwrapData]).delegating(delegated, &[3; 32]),
        ),
        (
            ObjectType::PublicWrapKey,
            Command::PutPublicWrapKey,
            object(Algorithm::Rsa2048, &[]).delegating(delegated, &modulus),
        ),
        (
            ObjectType::HmacKey,
            Command::PutHmacKey,
            object(Algorithm::HmacSha384, &[Capability::SignHmac]).with(b"key"),
        ),
        (ObjectType::Template, Command::PutTemplate, object(Algorithm::TemplateSsh, &[]).with(b"template")),
        (
            ObjectType::OtpAeadKey,
            Command::PutOtpAeadKey,
            object(Algorithm::Aes128YubicoOtp, &[Capability::DecryptOtp])
                .with(&[&hex!("78563412")[..], &KEY].concat()),
        ),
        (
            ObjectType::SymmetricKey,
            Command::PutSymmetricKey,
            object(Algorithm::Aes192, &[Capability::EncryptEcb]).with(&[9; 24]),
        ),
    ];
    for algorithm in AsymmetricAlgorithm::ALL {
        if !matches!(algorithm, AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096) {
            let key = object(algorithm.algorithm(), &use_asymmetric).with(&[]);
            all.push((ObjectType::AsymmetricKey, Command::GenerateAsymmetricKey, key));
        }
    }
    for (algorithm, factors) in rsa_key::LARGE {
        let key = object(algorithm, &use_asymmetric).with(factors);
        all.push((ObjectType::AsymmetricKey, Command::PutAsymmetricKey, key));
    }
    all
}

/// The result of using object 1; the same as long as it is the same object.
fn used(device: &mut ModelDevice, session: &mut Session, object_type: ObjectType) -> Vec<u8> {
    let id = &[0, 1][..];
    let mut send = |command, payload: &[u8]| session.send(device, command, &[id, payload].concat()).unwrap();
    match object_type {
        ObjectType::Opaque => send(Command::GetOpaque, &[]),
        ObjectType::Template => send(Command::GetTemplate, &[]),
        ObjectType::PublicWrapKey => send(Command::GetPublicKey, &[9]),
        ObjectType::WrapKey => send(Command::UnwrapData, &seal::<Aes256>(&[3; 32], b"\0sealed elsewhere")),
        ObjectType::HmacKey => send(Command::SignHmac, b"message"),
        ObjectType::SymmetricKey => send(Command::EncryptEcb, &[5; 16]),
        // docs/protocol.md, "Yubico OTP": vector E and its password.
        ObjectType::OtpAeadKey => send(
            Command::DecryptOtp,
            &hex!(
                "010203040506188c2715410f5acf04d5baf304f5f69bc9cc15c69cdfc53370effcbfdce8"
                "2f5d71a4915dec304aa13ccf97bb0dbb"
            ),
        ),
        ObjectType::AuthenticationKey => {
            let mut opened = Session::open(device, 2, b"wrapped").unwrap();
            opened.send(device, Command::Echo, b"open").unwrap()
        }
        ObjectType::AsymmetricKey => {
            let public = send(Command::GetPublicKey, &[]);
            let signature =
                match AsymmetricAlgorithm::from_algorithm(Algorithm::from_code(public[0]).unwrap()) {
                    Some(AsymmetricAlgorithm::Ec(_)) => {
                        // Never the same twice; that it was made with the key that belongs to the public key is
                        // checked when the key is stored.
                        send(Command::SignEcdsa, &[7; 32]);
                        vec![]
                    }
                    Some(AsymmetricAlgorithm::Ed25519) => send(Command::SignEddsa, b"message"),
                    _ => send(Command::SignPkcs1, &[7; 32]),
                };
            [public, signature].concat()
        }
    }
}

#[test]
fn every_type_of_object_is_used_after_the_way_from_one_device_to_another() {
    for (object_type, command, payload) in one_of_each() {
        let id = if object_type == ObjectType::AuthenticationKey { 2 } else { 1 };
        let payload = [&[0, id as u8], &payload[2..]].concat();
        let (mut from, mut admin) = with_wrap_key();
        admin.send(&mut from, command, &payload).unwrap();
        let expected = used(&mut from, &mut admin, object_type);
        let original = info(&mut from, &mut admin, object_type, id);
        let blob = export(&mut from, &mut admin, object_type, id).unwrap();

        let (mut to, mut admin) = with_wrap_key();
        let answer = import(&mut to, &mut admin, &blob);
        assert_eq!(answer, Ok(vec![object_type.code(), 0, id as u8]), "{object_type}");
        assert_eq!(used(&mut to, &mut admin, object_type), expected, "{object_type}");
        let mut stored = info(&mut to, &mut admin, object_type, id);
        assert_eq!(stored.origin, original.origin.wrapped());
        // An Ed25519 key lost its seed.
        if original.algorithm == Algorithm::Ed25519 {
            assert_eq!((original.length, stored.length), (128, 96));
        }
        (stored.origin, stored.length) = (original.origin, original.length);
        assert_eq!(stored, original);
    }
}

#[test]
fn a_blob_that_was_damaged_anywhere_is_refused_and_nothing_is_stored() {
    for (object_type, command, payload) in one_of_each() {
        let (mut device, mut admin) = with_wrap_key();
        admin.send(&mut device, command, &[&[0, 2], &payload[2..]].concat()).unwrap();
        let blob = export(&mut device, &mut admin, object_type, 2).unwrap();
        delete(&mut device, &mut admin, object_type, 2);
        let before = objects(&mut device, &mut admin);
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(import(&mut device, &mut admin, &damaged), INVALID, "{object_type} byte {at}");
        }
        for length in 29..blob.len() {
            assert_eq!(import(&mut device, &mut admin, &blob[..length]), INVALID, "{object_type} {length}");
        }
        let longer = [&blob[..], &[0]].concat();
        assert_eq!(import(&mut device, &mut admin, &longer), INVALID);
        assert_eq!(objects(&mut device, &mut admin), before);
        import(&mut device, &mut admin, &blob).unwrap();
    }
}

#[test]
fn an_object_that_contradicts_itself_is_refused_though_it_was_wrapped_well() {
    let (mut device, mut admin) = with_wrap_key();
    let before = objects(&mut device, &mut admin);
    let mut entropy = ChaCha8Rng::seed_from_u64(1);
    let mut check = |object: WrappedObject<'_>| {
        let what = format!("{} {}", object.object_type, object.object.algorithm);
        assert_eq!(import_object(&mut device, &mut admin, &object), INVALID, "{what}");
    };

    check(WrappedObject { wrap_algorithm: Algorithm::Aes256CcmWrap, ..template(b"x") });
    check(template(b""));
    check(of_type(ObjectType::Opaque, Algorithm::TemplateSsh, b"x"));
    check(of_type(ObjectType::SymmetricKey, Algorithm::Aes128, &[1; 24]));
    check(of_type(ObjectType::SymmetricKey, Algorithm::Aes128CcmWrap, &[1; 16]));
    check(of_type(ObjectType::WrapKey, Algorithm::Ed25519, &[1; 128]));
    check(of_type(ObjectType::PublicWrapKey, Algorithm::Rsa2048, &[0xfe; 256]));
    check(of_type(ObjectType::PublicWrapKey, Algorithm::Rsa2048, &[0x7f; 256]));
    check(of_type(ObjectType::HmacKey, Algorithm::HmacSha1, &[0x36; 128]));
    check(of_type(ObjectType::AuthenticationKey, Algorithm::Ecp256YubicoAuthentication, &[4; 64]));

    // Each part of a private key alone.
    for algorithm in AsymmetricAlgorithm::ALL {
        let large = rsa_key::LARGE.into_iter().find(|(name, _)| *name == algorithm.algorithm());
        let body = match large {
            Some((_, factors)) => key::expand(algorithm, factors).unwrap(),
            None => key::generate(algorithm, &mut entropy).unwrap(),
        };
        for at in (0..body.len()).step_by(16) {
            let mut damaged = body.to_vec();
            damaged[at] ^= 0x10;
            check(of_type(ObjectType::AsymmetricKey, algorithm.algorithm(), &damaged));
            if algorithm.modulus_length().is_some() {
                check(of_type(ObjectType::WrapKey, algorithm.algorithm(), &damaged));
            }
        }
    }
    let p256 = key::generate(AsymmetricAlgorithm::Ec(Curve::P256), &mut entropy).unwrap();
    check(of_type(ObjectType::AsymmetricKey, Algorithm::Eck256, &p256));
    assert_eq!(objects(&mut device, &mut admin), before);
}

/// docs/protocol.md, "Wrapped objects": the body of the seed 00 01 … 1f.
#[test]
fn an_ed25519_key_leaves_without_its_seed_unless_asked_and_signs_the_same() {
    let seed: Vec<u8> = (0..32).collect();
    let body = hex!(
        "6f8eff1f84f125a1e612dede40146d9d5549e02b76356981ef0a589ca4ee9438"
        "a9d71862a3e5746b571be3d187b0041046f52ebd850c7cbd5fde8ee38473b649"
        "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    );
    let (mut device, mut admin) = with_wrap_key();
    let rights = [Capability::SignEddsa, Capability::ExportableUnderWrap];
    let key = Object::new(1, Algorithm::Ed25519, &rights).with(&seed);
    admin.send(&mut device, Command::PutAsymmetricKey, &key).unwrap();
    let expected = used(&mut device, &mut admin, ObjectType::AsymmetricKey);
    let request = target(ObjectType::AsymmetricKey, 1);
    for (format, content) in [(&[][..], &body[..]), (&[0], &body), (&[1], &[&body[..], &seed].concat())] {
        let request = [&request, format].concat();
        let blob = admin.send(&mut device, Command::ExportWrapped, &request).unwrap();
        assert_eq!(open(&blob)[59..], *content);
        let (mut device, mut admin) = with_wrap_key();
        import(&mut device, &mut admin, &blob).unwrap();
        assert_eq!(used(&mut device, &mut admin, ObjectType::AsymmetricKey), expected);
        let again = admin.send(&mut device, Command::ExportWrapped, &[&request[..5], &[1]].concat()).unwrap();
        assert_eq!(open(&again)[59..], *content, "a seed cannot reappear");
    }
}

#[test]
fn data_is_wrapped_and_unwrapped_under_keys_of_every_length() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let rights = [Capability::WrapData, Capability::UnwrapData];
    for algorithm in [Algorithm::Aes128CcmWrap, Algorithm::Aes192CcmWrap, Algorithm::Aes256CcmWrap] {
        let key = Object::new(5, algorithm, &rights).delegating(Capabilities::NONE, &[]);
        admin.send(&mut device, Command::GenerateWrapKey, &key).unwrap();
        for length in [1, 15, 16, 128, 1024, 1989, 3084] {
            let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let blob = admin.send(&mut device, Command::WrapData, &[&[0, 5], &data[..]].concat()).unwrap();
            assert_eq!(blob.len(), data.len() + 30);
            let again = admin.send(&mut device, Command::WrapData, &[&[0, 5], &data[..]].concat()).unwrap();
            assert_ne!(blob, again);
            let unwrapped = admin.send(&mut device, Command::UnwrapData, &[&[0, 5], &blob[..]].concat());
            assert_eq!(unwrapped, Ok(data));
        }
        delete(&mut device, &mut admin, ObjectType::WrapKey, 5);
    }
}

/// docs/protocol.md, "Wrapped data", vector D.
#[test]
fn data_and_objects_are_not_taken_for_each_other() {
    let rights = [&BOTH[..], &[Capability::WrapData, Capability::UnwrapData]].concat();
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key = Object::new(0x77, Algorithm::Aes128CcmWrap, &rights);
    put_wrap_key(&mut device, &mut admin, key, Capabilities::ALL);
    let mut unwrap = |blob: &[u8]| admin.send(&mut device, Command::UnwrapData, &[&WRAP, blob].concat());
    let data = hex!("a0a1a2a3a4a5a6a7a8a9aaabac59c525b81bc16be1b6213f0ac3f7237c406884705bb2");
    assert_eq!(unwrap(&data), Ok(b"hello".to_vec()));
    for at in 0..data.len() {
        let mut damaged = data;
        damaged[at] ^= 0x80;
        assert_eq!(unwrap(&damaged), INVALID, "byte {at}");
    }
    let object = encoded(&template(b"x"));
    assert_eq!(unwrap(&seal::<Aes128>(&KEY, &object)), INVALID);
    // An object after the mark of data is data, and not an object.
    let marked = seal::<Aes128>(&KEY, &[&[0], &object[..]].concat());
    assert_eq!(unwrap(&marked), Ok(object));
    assert_eq!(import(&mut device, &mut admin, &marked), INVALID);
}

/// Until firmware 2.5 a missing capability of the key is invalid data; this device reports an earlier
/// version.
#[test]
fn wrapping_data_needs_the_capability_on_the_key() {
    let mut device = fresh();
    let version = model::plain(&mut device, Command::GetDeviceInfo.code(), &[]).unwrap();
    let code = if version[..3] >= [2, 5, 0][..] { REFUSED } else { INVALID };
    let mut admin = Session::admin(&mut device);
    for (id, capability) in [(1, Capability::WrapData), (2, Capability::UnwrapData)] {
        let key = Object::new(id, Algorithm::Aes192CcmWrap, &[capability]);
        let key = key.delegating(Capabilities::NONE, &[1; 24]);
        admin.send(&mut device, Command::PutWrapKey, &key).unwrap();
    }
    let mut send = |command, id, data: &[u8]| admin.send(&mut device, command, &[&[0, id], data].concat());
    let blob = send(Command::WrapData, 1, b"data").unwrap();
    assert_eq!(send(Command::WrapData, 2, b"data"), code);
    assert_eq!(send(Command::UnwrapData, 1, &blob), code);
    assert_eq!(send(Command::UnwrapData, 2, &blob), Ok(b"data".to_vec()));
    assert_eq!(send(Command::UnwrapData, 3, &blob), MISSING);
    assert_eq!(send(Command::WrapData, 3, b"data"), MISSING);
    assert_eq!(send(Command::WrapData, 1, b""), Err(DeviceError::WrongLength));
    let shortest = seal::<Aes192>(&[1; 24], b"");
    assert_eq!(send(Command::UnwrapData, 2, &shortest), Err(DeviceError::WrongLength));
    assert_eq!(send(Command::WrapData, 1, &[0; 3087]), Err(DeviceError::WrongLength));
}
