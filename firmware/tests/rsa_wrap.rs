//! RSA wrap keys: whole objects and bare keys under them, checked against another implementation of the container.
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

use std::sync::LazyLock;

use aes_kw::{KeyInit, KwpAes128, KwpAes192, KwpAes256};
use model::{ModelDevice, Object, Session, fresh, put_authentication_key};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{Oaep, PrivateKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sshsm_firmware::crypto::{key, pkcs8};
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::{NewObject, ObjectInfo, Origin};
use sshsm_protocol::wrapped::WrappedObject;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, Curve, DeviceError, Domains,
    ObjectType,
};

type Answer = Result<Vec<u8>, DeviceError>;
const REFUSED: Answer = Err(DeviceError::InsufficientPermissions);
const INVALID: Answer = Err(DeviceError::InvalidData);
const MISSING: Answer = Err(DeviceError::ObjectNotFound);
const WRONG_LENGTH: Answer = Err(DeviceError::WrongLength);

/// The wrap key of most tests: id 0x77, as a public and as a private one.
static KEY: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::new(&mut ChaCha8Rng::seed_from_u64(3), 2048).unwrap());
const WRAP: [u8; 2] = [0, 0x77];
const HASHES: [usize; 4] = [20, 32, 48, 64];
const AES: [usize; 3] = [16, 24, 32];
const EXPORTABLE: Capability = Capability::ExportableUnderWrap;

fn domain(number: u16) -> Domains {
    Domains::single(number).unwrap()
}

fn factors() -> Vec<u8> {
    KEY.primes().iter().flat_map(|prime| prime.to_be_bytes().to_vec()).collect()
}

fn modulus() -> Vec<u8> {
    KEY.n().to_be_bytes().to_vec()
}

/// Puts both halves of the wrap key; the objects determine their rights and domains.
fn put_halves(device: &mut ModelDevice, admin: &mut Session, halves: [Object; 2], delegated: Capabilities) {
    let [public, private] = halves;
    let payload = public.delegating(delegated, &modulus());
    assert_eq!(admin.send(device, Command::PutPublicWrapKey, &payload), Ok(WRAP.to_vec()));
    let payload = private.delegating(delegated, &factors());
    assert_eq!(admin.send(device, Command::PutWrapKey, &payload), Ok(WRAP.to_vec()));
}

fn halves() -> [Object; 2] {
    [Capability::ExportWrapped, Capability::ImportWrapped]
        .map(|capability| Object::new(0x77, Algorithm::Rsa2048, &[capability]))
}

fn with_wrap_key() -> (ModelDevice, Session) {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    put_halves(&mut device, &mut admin, halves(), Capabilities::ALL);
    (device, admin)
}

fn info(device: &mut ModelDevice, session: &mut Session, object_type: ObjectType, id: u8) -> ObjectInfo {
    let info = session.send(device, Command::GetObjectInfo, &[0, id, object_type.code()]).unwrap();
    ObjectInfo::decode(&mut Reader::new(&info)).unwrap()
}

fn objects(device: &mut ModelDevice, session: &mut Session) -> Vec<u8> {
    session.send(device, Command::ListObjects, &[]).unwrap()
}

/// The parameters of a container by the lengths of AES key, OAEP digest and MGF1 digest.
#[derive(Clone, Copy, Debug)]
struct Parameters {
    aes: usize,
    hash: usize,
    mgf: usize,
}

/// The clients' defaults.
const USUAL: Parameters = Parameters { aes: 32, hash: 32, mgf: 32 };

/// Runs `$body` with the OAEP scheme of these parameters, empty label.
macro_rules! with_oaep {
    ($parameters:expr, $scheme:ident => $body:expr) => {
        match ($parameters.hash, $parameters.mgf) {
            (20, 20) => with_oaep!(@ Sha1, Sha1, $scheme => $body),
            (20, 32) => with_oaep!(@ Sha1, Sha256, $scheme => $body),
            (20, 48) => with_oaep!(@ Sha1, Sha384, $scheme => $body),
            (20, 64) => with_oaep!(@ Sha1, Sha512, $scheme => $body),
            (32, 20) => with_oaep!(@ Sha256, Sha1, $scheme => $body),
            (32, 32) => with_oaep!(@ Sha256, Sha256, $scheme => $body),
            (32, 48) => with_oaep!(@ Sha256, Sha384, $scheme => $body),
            (32, 64) => with_oaep!(@ Sha256, Sha512, $scheme => $body),
            (48, 20) => with_oaep!(@ Sha384, Sha1, $scheme => $body),
            (48, 32) => with_oaep!(@ Sha384, Sha256, $scheme => $body),
            (48, 48) => with_oaep!(@ Sha384, Sha384, $scheme => $body),
            (48, 64) => with_oaep!(@ Sha384, Sha512, $scheme => $body),
            (64, 20) => with_oaep!(@ Sha512, Sha1, $scheme => $body),
            (64, 32) => with_oaep!(@ Sha512, Sha256, $scheme => $body),
            (64, 48) => with_oaep!(@ Sha512, Sha384, $scheme => $body),
            _ => with_oaep!(@ Sha512, Sha512, $scheme => $body),
        }
    };
    (@ $hash:ty, $mgf:ty, $scheme:ident => $body:expr) => {{
        let $scheme = Oaep::<$hash, $mgf>::new_with_mgf_hash();
        $body
    }};
}

impl Parameters {
    fn all() -> impl Iterator<Item = Self> {
        let with = |aes| HASHES.map(|hash| HASHES.map(|mgf| Self { aes, hash, mgf }));
        AES.into_iter().flat_map(with).flatten()
    }

    fn index(lengths: &[usize], length: usize) -> u8 {
        lengths.iter().position(|&other| other == length).unwrap() as u8
    }

    fn oaep_and_mgf(self) -> [u8; 2] {
        [25 + Self::index(&HASHES, self.hash), 32 + Self::index(&HASHES, self.mgf)]
    }

    fn label_hash(self) -> Vec<u8> {
        match self.hash {
            20 => Sha1::digest(b"").to_vec(),
            32 => Sha256::digest(b"").to_vec(),
            48 => Sha384::digest(b"").to_vec(),
            _ => Sha512::digest(b"").to_vec(),
        }
    }

    fn export(self, object_type: ObjectType, id: u8) -> Vec<u8> {
        let [oaep, mgf] = self.oaep_and_mgf();
        let aes = 50 + Self::index(&AES, self.aes);
        let names = [WRAP[0], WRAP[1], object_type.code(), 0, id, aes, oaep, mgf];
        [&names[..], &self.label_hash()].concat()
    }

    fn import(self, blob: &[u8]) -> Vec<u8> {
        [&WRAP[..], &self.oaep_and_mgf(), blob, &self.label_hash()].concat()
    }

    /// The request to put a bare key; `object` is a header.
    fn put(self, object_type: ObjectType, object: &[u8], blob: &[u8]) -> Vec<u8> {
        let label_hash = self.label_hash();
        [&WRAP[..], &[object_type.code()], object, &self.oaep_and_mgf(), blob, &label_hash].concat()
    }

    /// Opens as another implementation would.
    fn open(self, blob: &[u8]) -> Vec<u8> {
        let (encrypted, wrapped) = blob.split_at(256);
        let key = with_oaep!(self, scheme => KEY.decrypt(scheme, encrypted).unwrap());
        assert_eq!(key.len(), self.aes);
        let mut room = vec![0; wrapped.len()];
        let payload = match self.aes {
            16 => KwpAes128::new_from_slice(&key).unwrap().unwrap_key(wrapped, &mut room),
            24 => KwpAes192::new_from_slice(&key).unwrap().unwrap_key(wrapped, &mut room),
            _ => KwpAes256::new_from_slice(&key).unwrap().unwrap_key(wrapped, &mut room),
        };
        payload.unwrap().to_vec()
    }

    /// Seals as another implementation would.
    fn seal(self, payload: &[u8]) -> Vec<u8> {
        self.seal_with(&vec![7; self.aes], payload)
    }

    fn seal_with(self, key: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let public = KEY.to_public_key();
        let encrypted = with_oaep!(self, scheme => public.encrypt(&mut rng, scheme, key).unwrap());
        let mut room = vec![0; payload.len().next_multiple_of(8) + 8];
        let padded = [key, &[0; 32]].concat();
        let wrapped = match self.aes {
            16 => KwpAes128::new_from_slice(&padded[..16]).unwrap().wrap_key(payload, &mut room),
            24 => KwpAes192::new_from_slice(&padded[..24]).unwrap().wrap_key(payload, &mut room),
            _ => KwpAes256::new_from_slice(&padded[..32]).unwrap().wrap_key(payload, &mut room),
        };
        [&encrypted, wrapped.unwrap()].concat()
    }
}

fn generate(device: &mut ModelDevice, session: &mut Session, algorithm: Algorithm, object: Object) {
    let payload = Object { algorithm, ..object }.with(&[]);
    session.send(device, Command::GenerateAsymmetricKey, &payload).unwrap();
}

fn public(device: &mut ModelDevice, session: &mut Session, id: u8) -> Answer {
    session.send(device, Command::GetPublicKey, &[0, id])
}

fn put_template(device: &mut ModelDevice, session: &mut Session, object: Object) {
    session.send(device, Command::PutTemplate, &object.with(b"any bytes")).unwrap();
}

fn template(id: u16) -> Object {
    Object::new(id, Algorithm::TemplateSsh, &[EXPORTABLE])
}

#[test]
fn both_halves_are_put_and_give_the_same_public_key() {
    let (mut device, mut admin) = with_wrap_key();
    let stored = info(&mut device, &mut admin, ObjectType::WrapKey, 0x77);
    assert_eq!((stored.length, stored.algorithm), (904, Algorithm::Rsa2048));
    let stored = info(&mut device, &mut admin, ObjectType::PublicWrapKey, 0x77);
    assert_eq!((stored.length, stored.origin), (264, Origin::IMPORTED));
    assert_eq!(stored.delegated_capabilities, Capabilities::ALL);
    let expected = Ok([&[9], &modulus()[..]].concat());
    for object_type in [4, 9] {
        let payload = [0, 0x77, object_type];
        assert_eq!(admin.send(&mut device, Command::GetPublicKey, &payload), expected);
    }
    assert_eq!(admin.send(&mut device, Command::GetPublicKey, &[0, 0x77]), MISSING);

    let object = Object::new(1, Algorithm::Rsa2048, &[]).delegating(Capabilities::NONE, &[]);
    admin.send(&mut device, Command::GenerateWrapKey, &object).unwrap();
    assert_eq!(info(&mut device, &mut admin, ObjectType::WrapKey, 1).length, 904);
    let generated = admin.send(&mut device, Command::GetPublicKey, &[0, 1, 4]).unwrap();
    assert_eq!((generated.len(), generated[0]), (257, 9));

    let aes = Object::new(2, Algorithm::Aes128CcmWrap, &[]).delegating(Capabilities::NONE, &[]);
    admin.send(&mut device, Command::GenerateWrapKey, &aes).unwrap();
    assert_eq!(admin.send(&mut device, Command::GetPublicKey, &[0, 2, 4]), INVALID);
}

#[test]
fn what_is_no_rsa_key_is_not_put() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut put = |command, algorithm, key: &[u8]| {
        let payload = Object::new(1, algorithm, &[]).delegating(Capabilities::NONE, key);
        admin.send(&mut device, command, &payload)
    };
    let (public, private) = (Command::PutPublicWrapKey, Command::PutWrapKey);
    for (command, key) in [(public, modulus()), (private, factors())] {
        assert_eq!(put(command, Algorithm::Rsa3072, &key), WRONG_LENGTH);
        assert_eq!(put(command, Algorithm::Rsa2048, &[&key[..], &[1]].concat()), WRONG_LENGTH);
        for at in [0, 255] {
            let mut damaged = key.clone();
            damaged[at] ^= 0x81;
            assert_eq!(put(command, Algorithm::Rsa2048, &damaged), INVALID);
        }
    }
    assert_eq!(put(public, Algorithm::Ecp256, &[1; 256]), INVALID);
    assert_eq!(put(public, Algorithm::Aes128CcmWrap, &[1; 256]), INVALID);
}

#[test]
fn every_command_needs_its_capability_on_the_session() {
    let (mut device, mut admin) = with_wrap_key();
    let (none, all) = (Capabilities::NONE, Capabilities::ALL);
    let mut session = put_authentication_key(&mut device, &mut admin, 9, b"limited", Domains::ALL, none, all);
    for command in [
        Command::PutPublicWrapKey,
        Command::GetRsaWrappedKey,
        Command::PutRsaWrappedKey,
        Command::ExportRsaWrapped,
        Command::ImportRsaWrapped,
    ] {
        assert_eq!(session.send(&mut device, command, &[0; 50]), REFUSED, "{command}");
    }
    for command in [Command::GetRsaWrappedKey, Command::ExportRsaWrapped] {
        assert_eq!(admin.send(&mut device, command, &[0; 27]), WRONG_LENGTH);
        assert_eq!(admin.send(&mut device, command, &[0; 73]), WRONG_LENGTH);
    }
}

#[test]
fn whole_objects_go_from_one_device_to_another() {
    let (mut from, mut admin) = with_wrap_key();
    let rights = [EXPORTABLE, Capability::SignEddsa, Capability::SignEcdsa];
    for (id, algorithm) in [(1, Algorithm::Ecp256), (2, Algorithm::Ed25519), (3, Algorithm::Rsa2048)] {
        generate(&mut from, &mut admin, algorithm, Object::new(id, algorithm, &rights));
    }
    put_template(&mut from, &mut admin, template(4));
    let wrap = Object::new(5, Algorithm::Rsa2048, &rights).delegating(Capabilities::ALL, &[]);
    admin.send(&mut from, Command::GenerateWrapKey, &wrap).unwrap();

    let (mut to, mut other) = with_wrap_key();
    let keys = [1, 2, 3].map(|id| (ObjectType::AsymmetricKey, id));
    for (object_type, id) in keys.into_iter().chain([(ObjectType::Template, 4), (ObjectType::WrapKey, 5)]) {
        let request = USUAL.export(object_type, id);
        let blob = admin.send(&mut from, Command::ExportRsaWrapped, &request).unwrap();
        assert_ne!(Ok(&blob), admin.send(&mut from, Command::ExportRsaWrapped, &request).as_ref());
        let request = USUAL.import(&blob);
        let answer = other.send(&mut to, Command::ImportRsaWrapped, &request);
        assert_eq!(answer, Ok(vec![object_type.code(), 0, id]));
        let exists = Err(DeviceError::ObjectExists);
        assert_eq!(other.send(&mut to, Command::ImportRsaWrapped, &request), exists);
        let original = info(&mut from, &mut admin, object_type, id);
        let stored = info(&mut to, &mut other, object_type, id);
        assert_eq!(stored, ObjectInfo { origin: original.origin.wrapped(), ..original });
    }
    for (object_type, id) in [(3, 1), (3, 2), (3, 3), (4, 5)] {
        let public = |device: &mut ModelDevice, session: &mut Session| {
            session.send(device, Command::GetPublicKey, &[0, id, object_type]).unwrap()
        };
        assert_eq!(public(&mut from, &mut admin), public(&mut to, &mut other));
    }
    let sign = |device: &mut ModelDevice, session: &mut Session| {
        session.send(device, Command::SignEddsa, &[0, 2, 1]).unwrap()
    };
    assert_eq!(sign(&mut from, &mut admin), sign(&mut to, &mut other));
    assert_eq!(other.send(&mut to, Command::GetTemplate, &[0, 4]), Ok(b"any bytes".to_vec()));
}

#[test]
fn bare_asymmetric_keys_go_from_one_device_to_another() {
    let (mut from, mut admin) = with_wrap_key();
    let (mut to, mut other) = with_wrap_key();
    for (id, algorithm) in (1..).zip(AsymmetricAlgorithm::ALL) {
        if matches!(algorithm, AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096) {
            continue;
        }
        let name = algorithm.algorithm();
        generate(&mut from, &mut admin, name, Object::new(id.into(), name, &[EXPORTABLE]));
        let request = USUAL.export(ObjectType::AsymmetricKey, id);
        let blob = admin.send(&mut from, Command::GetRsaWrappedKey, &request).unwrap();
        let header = Object::new(id.into(), name, &[Capability::SignEcdsa]).with(&[]);
        let request = USUAL.put(ObjectType::AsymmetricKey, &header, &blob);
        assert_eq!(other.send(&mut to, Command::PutRsaWrappedKey, &request), Ok(vec![3, 0, id]), "{name}");
        assert_eq!(public(&mut to, &mut other, id), public(&mut from, &mut admin, id));
        let stored = info(&mut to, &mut other, ObjectType::AsymmetricKey, id);
        assert_eq!(stored.origin.code(), 0x12);
        assert_eq!(stored.capabilities, Capabilities::of(&[Capability::SignEcdsa]));
        // Another algorithm than the key's.
        let wrong = if name == Algorithm::Ecp256 { Algorithm::Eck256 } else { Algorithm::Ecp256 };
        let header = Object::new(0, wrong, &[]).with(&[]);
        let request = USUAL.put(ObjectType::AsymmetricKey, &header, &blob);
        assert_eq!(other.send(&mut to, Command::PutRsaWrappedKey, &request), INVALID);
    }
}

#[test]
fn larger_rsa_keys_go_from_one_device_to_another_whole_and_bare_and_sign_the_same() {
    let (mut from, mut admin) = with_wrap_key();
    let (mut to, mut other) = with_wrap_key();
    let sign = |device: &mut ModelDevice, session: &mut Session| {
        session.send(device, Command::SignPkcs1, &[&[0, 1][..], &[7; 32]].concat()).unwrap()
    };
    for (algorithm, factors) in rsa_key::LARGE {
        let key = Object::new(1, algorithm, &[EXPORTABLE, Capability::SignPkcs]);
        admin.send(&mut from, Command::PutAsymmetricKey, &key.with(factors)).unwrap();
        let request = USUAL.export(ObjectType::AsymmetricKey, 1);
        let whole = admin.send(&mut from, Command::ExportRsaWrapped, &request).unwrap();
        let bare = admin.send(&mut from, Command::GetRsaWrappedKey, &request).unwrap();
        let header = Object::new(1, algorithm, &[Capability::SignPkcs]).with(&[]);
        for (command, request) in [
            (Command::ImportRsaWrapped, USUAL.import(&whole)),
            (Command::PutRsaWrappedKey, USUAL.put(ObjectType::AsymmetricKey, &header, &bare)),
        ] {
            assert_eq!(other.send(&mut to, command, &request), Ok(vec![3, 0, 1]), "{algorithm} {command}");
            assert_eq!(public(&mut to, &mut other, 1), public(&mut from, &mut admin, 1));
            assert_eq!(sign(&mut to, &mut other), sign(&mut from, &mut admin));
            other.send(&mut to, Command::DeleteObject, &[0, 1, 3]).unwrap();
        }
        admin.send(&mut from, Command::DeleteObject, &[0, 1, 3]).unwrap();
    }
}

#[test]
fn larger_rsa_wrap_keys_travel_themselves_and_then_carry_objects() {
    let (mut from, mut admin) = with_wrap_key();
    let (mut to, mut other) = with_wrap_key();
    put_template(&mut from, &mut admin, template(4));
    for (algorithm, factors) in rsa_key::LARGE {
        let all = Capabilities::ALL;
        let private = Object::new(5, algorithm, &[EXPORTABLE, Capability::ImportWrapped]);
        admin.send(&mut from, Command::PutWrapKey, &private.delegating(all, factors)).unwrap();
        let request = USUAL.export(ObjectType::WrapKey, 5);
        let blob = admin.send(&mut from, Command::ExportRsaWrapped, &request).unwrap();
        let answer = other.send(&mut to, Command::ImportRsaWrapped, &USUAL.import(&blob));
        assert_eq!(answer, Ok(vec![4, 0, 5]), "{algorithm}");

        let public = admin.send(&mut from, Command::GetPublicKey, &[0, 5, 4]).unwrap();
        let half = Object::new(5, algorithm, &[Capability::ExportWrapped]).delegating(all, &public[1..]);
        admin.send(&mut from, Command::PutPublicWrapKey, &half).unwrap();
        let mut request = USUAL.export(ObjectType::Template, 4);
        request[1] = 5;
        let blob = admin.send(&mut from, Command::ExportRsaWrapped, &request).unwrap();
        assert_eq!(
            other.send(&mut to, Command::ImportRsaWrapped, &USUAL.import(&blob)),
            INVALID,
            "other key"
        );
        let mut request = USUAL.import(&blob);
        request[1] = 5;
        assert_eq!(other.send(&mut to, Command::ImportRsaWrapped, &request), Ok(vec![6, 0, 4]));
        assert_eq!(other.send(&mut to, Command::GetTemplate, &[0, 4]), Ok(b"any bytes".to_vec()));

        admin.send(&mut from, Command::DeleteObject, &[0, 5, 4]).unwrap();
        admin.send(&mut from, Command::DeleteObject, &[0, 5, 9]).unwrap();
        other.send(&mut to, Command::DeleteObject, &[0, 5, 4]).unwrap();
        other.send(&mut to, Command::DeleteObject, &[0, 4, 6]).unwrap();
    }
}

#[test]
fn every_combination_of_parameters_agrees_with_another_implementation() {
    let (mut device, mut admin) = with_wrap_key();
    let mut entropy = ChaCha8Rng::seed_from_u64(1);
    let algorithm = AsymmetricAlgorithm::Ec(Curve::P256);
    let body = key::generate(algorithm, &mut entropy).unwrap();
    let expected = pkcs8::encode(algorithm, &body).unwrap();
    let header = Object::new(1, Algorithm::Ecp256, &[EXPORTABLE]).with(&[]);
    for parameters in Parameters::all() {
        let request = parameters.put(ObjectType::AsymmetricKey, &header, &parameters.seal(&expected));
        let answer = admin.send(&mut device, Command::PutRsaWrappedKey, &request);
        assert_eq!(answer, Ok(vec![3, 0, 1]), "{parameters:?}");
        assert_eq!(public(&mut device, &mut admin, 1).unwrap()[1..], body[32..]);

        let request = parameters.export(ObjectType::AsymmetricKey, 1);
        let blob = admin.send(&mut device, Command::GetRsaWrappedKey, &request).unwrap();
        assert_eq!(parameters.open(&blob), *expected, "{parameters:?}");
        let blob = admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
        let payload = parameters.open(&blob);
        let object = WrappedObject::decode(&payload).unwrap();
        assert_eq!((object.wrap_algorithm, object.body), (Algorithm::Rsa2048, body.as_slice()));
        admin.send(&mut device, Command::DeleteObject, &[0, 1, 3]).unwrap();
    }
}

#[test]
fn bare_symmetric_keys_are_their_bytes() {
    let (mut device, mut admin) = with_wrap_key();
    let algorithms = [Algorithm::Aes128, Algorithm::Aes192, Algorithm::Aes256];
    for (id, (algorithm, length)) in (1_u8..).zip(algorithms.into_iter().zip(AES)) {
        let header = Object::new(id.into(), algorithm, &[EXPORTABLE, Capability::EncryptEcb]).with(&[]);
        let mut put = |payload: &[u8]| {
            let request = USUAL.put(ObjectType::SymmetricKey, &header, &USUAL.seal(payload));
            admin.send(&mut device, Command::PutRsaWrappedKey, &request)
        };
        assert_eq!(put(&vec![5; length + 1]), INVALID);
        assert_eq!(put(&vec![5; length]), Ok(vec![8, 0, id]));
        let stored = info(&mut device, &mut admin, ObjectType::SymmetricKey, id);
        assert_eq!((stored.algorithm, usize::from(stored.length)), (algorithm, length));
        let request = USUAL.export(ObjectType::SymmetricKey, id);
        let blob = admin.send(&mut device, Command::GetRsaWrappedKey, &request).unwrap();
        assert_eq!(USUAL.open(&blob), vec![5; length]);
    }
    // FIPS 197, appendix B, by the key of the same appendix.
    let header = Object::new(9, Algorithm::Aes128, &[Capability::EncryptEcb]).with(&[]);
    let key = hex_literal::hex!("2b7e151628aed2a6abf7158809cf4f3c");
    let request = USUAL.put(ObjectType::SymmetricKey, &header, &USUAL.seal(&key));
    admin.send(&mut device, Command::PutRsaWrappedKey, &request).unwrap();
    let block = hex_literal::hex!("3243f6a8885a308d313198a2e0370734");
    let encrypted = admin.send(&mut device, Command::EncryptEcb, &[&[0, 9], &block[..]].concat());
    assert_eq!(encrypted, Ok(hex_literal::hex!("3925841d02dc09fbdc118597196a0b32").to_vec()));
}

#[test]
fn bare_keys_of_other_types_do_not_exist() {
    let (mut device, mut admin) = with_wrap_key();
    put_template(&mut device, &mut admin, template(1));
    let request = USUAL.export(ObjectType::Template, 1);
    assert_eq!(admin.send(&mut device, Command::GetRsaWrappedKey, &request), INVALID);
    admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
    let before = objects(&mut device, &mut admin);
    for (object_type, algorithm, key) in [
        (ObjectType::Template, Algorithm::TemplateSsh, &b"any bytes"[..]),
        (ObjectType::WrapKey, Algorithm::Aes128CcmWrap, &[1; 16]),
        (ObjectType::SymmetricKey, Algorithm::Aes128CcmWrap, &[1; 16]),
        (ObjectType::AsymmetricKey, Algorithm::Aes128, &[1; 16]),
        (ObjectType::AsymmetricKey, Algorithm::Ed25519, &[1; 32]),
    ] {
        let header = Object::new(2, algorithm, &[]).with(&[]);
        let request = USUAL.put(object_type, &header, &USUAL.seal(key));
        assert_eq!(admin.send(&mut device, Command::PutRsaWrappedKey, &request), INVALID, "{object_type}");
    }
    assert_eq!(objects(&mut device, &mut admin), before);
}

#[test]
fn an_ed25519_key_that_came_without_its_seed_leaves_only_whole() {
    let (mut device, mut admin) = with_wrap_key();
    let body = key::expand(AsymmetricAlgorithm::Ed25519, &[1; 32]).unwrap();
    let object =
        NewObject::decode(&mut Reader::new(&Object::new(1, Algorithm::Ed25519, &[EXPORTABLE]).with(&[])))
            .unwrap();
    let wrapped = WrappedObject {
        wrap_algorithm: Algorithm::Rsa2048,
        sequence: 0,
        object_type: ObjectType::AsymmetricKey,
        object,
        origin: Origin::GENERATED,
        delegated_capabilities: Capabilities::NONE,
        body: &body[..96],
    };
    let mut plaintext = vec![0; wrapped.encoded_len()];
    wrapped.encode(&mut Writer::new(&mut plaintext)).unwrap();
    let request = USUAL.import(&USUAL.seal(&plaintext));
    admin.send(&mut device, Command::ImportRsaWrapped, &request).unwrap();
    assert_eq!(info(&mut device, &mut admin, ObjectType::AsymmetricKey, 1).origin.code(), 0x11);
    let request = USUAL.export(ObjectType::AsymmetricKey, 1);
    assert_eq!(admin.send(&mut device, Command::GetRsaWrappedKey, &request), INVALID);
    let blob = admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
    assert_eq!(USUAL.open(&blob)[59..], body[..96]);
}

#[test]
fn exporting_needs_its_capabilities_on_wrap_key_and_target() {
    let export = |capability, delegated: &[Capability], target: &[Capability]| {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let public = Object::new(0x77, Algorithm::Rsa2048, &[capability]);
        let payload = public.delegating(Capabilities::of(delegated), &modulus());
        admin.send(&mut device, Command::PutPublicWrapKey, &payload).unwrap();
        generate(&mut device, &mut admin, Algorithm::Ed25519, Object::new(1, Algorithm::Ed25519, target));
        let request = USUAL.export(ObjectType::AsymmetricKey, 1);
        let key = admin.send(&mut device, Command::GetRsaWrappedKey, &request).map(|_| ());
        assert_eq!(key, admin.send(&mut device, Command::ExportRsaWrapped, &request).map(|_| ()));
        key
    };
    let refused = Err(DeviceError::InsufficientPermissions);
    let more = [EXPORTABLE, Capability::SignEddsa];
    assert_eq!(export(Capability::ImportWrapped, &[EXPORTABLE], &[EXPORTABLE]), refused);
    assert_eq!(export(Capability::ExportWrapped, &[EXPORTABLE], &[]), refused);
    assert_eq!(export(Capability::ExportWrapped, &[EXPORTABLE], &more), refused);
    assert_eq!(export(Capability::ExportWrapped, &more, &more), Ok(()));
}

#[test]
fn exporting_needs_a_public_wrap_key_and_a_target_in_sight() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let [public, private] = halves();
    let public = Object { domains: domain(1), ..public };
    let private = Object { domains: domain(1), ..private };
    put_halves(&mut device, &mut admin, [public, private], Capabilities::ALL);
    put_template(&mut device, &mut admin, Object { domains: domain(2), ..template(1) });
    put_template(&mut device, &mut admin, Object { domains: domain(1), ..template(2) });
    let rights = Capabilities::of(&[Capability::ExportWrapped, Capability::ImportWrapped]);
    let mut at = |id, domains| {
        put_authentication_key(&mut device, &mut admin, id, b"limited", domains, rights, rights)
    };
    let (mut first, mut second) = (at(8, domain(1)), at(9, domain(2)));
    let mut export = |session: &mut Session, id| {
        session.send(&mut device, Command::ExportRsaWrapped, &USUAL.export(ObjectType::Template, id))
    };
    assert_eq!(export(&mut first, 1), MISSING);
    assert_eq!(export(&mut second, 1), MISSING);
    let blob = export(&mut first, 2).unwrap();
    let request = USUAL.import(&blob);
    assert_eq!(second.send(&mut device, Command::ImportRsaWrapped, &request), MISSING);
    let exists = Err(DeviceError::ObjectExists);
    assert_eq!(first.send(&mut device, Command::ImportRsaWrapped, &request), exists);
    admin.send(&mut device, Command::DeleteObject, &[0, 0x77, 9]).unwrap();
    let request = USUAL.export(ObjectType::Template, 2);
    assert_eq!(admin.send(&mut device, Command::ExportRsaWrapped, &request), MISSING);
}

#[test]
fn each_kind_of_wrap_key_does_its_own_work_only() {
    let (mut device, mut admin) = with_wrap_key();
    put_template(&mut device, &mut admin, template(1));
    let request = USUAL.export(ObjectType::Template, 1);
    let blob = admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
    // The private half may not export, but that it cannot is reported first.
    let export = [0, 0x77, ObjectType::Template.code(), 0, 1];
    assert_eq!(admin.send(&mut device, Command::ExportWrapped, &export), INVALID);
    assert_eq!(admin.send(&mut device, Command::ImportWrapped, &[&WRAP[..], &blob].concat()), INVALID);
    assert_eq!(admin.send(&mut device, Command::WrapData, &[0, 0x77, 1]), INVALID);

    admin.send(&mut device, Command::DeleteObject, &[0, 0x77, 4]).unwrap();
    let aes = Object::new(0x77, Algorithm::Aes128CcmWrap, &[Capability::ImportWrapped]);
    let aes = aes.delegating(Capabilities::ALL, &[]);
    admin.send(&mut device, Command::GenerateWrapKey, &aes).unwrap();
    let import = USUAL.import(&blob);
    assert_eq!(admin.send(&mut device, Command::ImportRsaWrapped, &import), INVALID);
    let header = Object::new(2, Algorithm::Aes128, &[]).with(&[]);
    let put = USUAL.put(ObjectType::SymmetricKey, &header, &blob);
    assert_eq!(admin.send(&mut device, Command::PutRsaWrappedKey, &put), INVALID);
}

#[test]
fn importing_needs_its_capability_on_the_wrap_key_and_stays_within_its_rights_and_domains() {
    let header = |domains, capabilities: &[Capability]| {
        Object { domains, ..Object::new(1, Algorithm::Aes128, capabilities) }.with(&[])
    };
    let put = |half: Object, header: &[u8]| {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let delegated = Capabilities::of(&[Capability::EncryptEcb]);
        let payload = half.delegating(delegated, &factors());
        admin.send(&mut device, Command::PutWrapKey, &payload).unwrap();
        let rights = Capabilities::of(&[Capability::ImportWrapped]);
        let domains = domain(1).union(domain(2));
        let mut session =
            put_authentication_key(&mut device, &mut admin, 9, b"limited", domains, rights, rights);
        let request = USUAL.put(ObjectType::SymmetricKey, header, &USUAL.seal(&[1; 16]));
        let answer = session.send(&mut device, Command::PutRsaWrappedKey, &request)?;
        let domains = info(&mut device, &mut admin, ObjectType::SymmetricKey, answer[2]).domains;
        Ok::<_, DeviceError>((answer, domains))
    };
    let half =
        |capability, domains| Object { domains, ..Object::new(0x77, Algorithm::Rsa2048, &[capability]) };
    let import = Capability::ImportWrapped;
    let good = header(domain(1), &[Capability::EncryptEcb]);
    let both = domain(1).union(domain(3));
    const REFUSED: Result<(Vec<u8>, Domains), DeviceError> = Err(DeviceError::InsufficientPermissions);
    let done = |domains| Ok((vec![8, 0, 1], domains));
    assert_eq!(put(half(Capability::ExportWrapped, both), &good), REFUSED);
    assert_eq!(put(half(import, both), &good), done(domain(1)));
    assert_eq!(put(half(import, both), &header(domain(1), &[])), done(domain(1)));
    assert_eq!(put(half(import, both), &header(domain(1), &[Capability::DecryptEcb])), REFUSED);
    // In the session's domains, but not the wrap key's; and the other way round.
    assert_eq!(put(half(import, both), &header(domain(2), &[])), REFUSED);
    assert_eq!(put(half(import, both), &header(domain(3), &[])), REFUSED);
    // The vendor's clients ask for all domains: the key gets those that wrap key and session have.
    assert_eq!(put(half(import, both), &header(Domains::ALL, &[])), done(domain(1)));
    let more = half(import, Domains::ALL);
    assert_eq!(put(more, &header(Domains::ALL, &[])), done(domain(1).union(domain(2))));
    assert_eq!(put(half(import, both), &header(Domains::NONE, &[])), Err(DeviceError::InvalidData));
    assert_eq!(put(half(import, domain(3)), &good), Err(DeviceError::ObjectNotFound));
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let (mut device, mut admin) = with_wrap_key();
    put_template(&mut device, &mut admin, template(1));
    let good = USUAL.export(ObjectType::Template, 1);
    let blob = admin.send(&mut device, Command::ExportRsaWrapped, &good).unwrap();
    let before = objects(&mut device, &mut admin);
    for (at, values) in [(2, [0, 10]), (5, [29, 53]), (6, [24, 29]), (7, [31, 36])] {
        for value in values {
            let mut request = good.clone();
            request[at] = value;
            assert_eq!(admin.send(&mut device, Command::ExportRsaWrapped, &request), INVALID, "{at}");
        }
    }
    assert_eq!(admin.send(&mut device, Command::ExportRsaWrapped, &good[..39]), WRONG_LENGTH);
    let longer = [&good[..], &[0]].concat();
    assert_eq!(admin.send(&mut device, Command::ExportRsaWrapped, &longer), WRONG_LENGTH);

    admin.send(&mut device, Command::DeleteObject, &[0, 1, 6]).unwrap();
    let mut import = |request: &[u8]| admin.send(&mut device, Command::ImportRsaWrapped, request);
    for parameters in [Parameters { hash: 20, ..USUAL }, Parameters { mgf: 20, ..USUAL }] {
        assert_eq!(import(&parameters.import(&blob)), INVALID);
    }
    let mut label = USUAL.import(&blob);
    *label.last_mut().unwrap() ^= 1;
    assert_eq!(import(&label), INVALID);
    for bytes in [[24, 32], [29, 32], [26, 31], [26, 36]] {
        let mut request = USUAL.import(&blob);
        request[2..4].copy_from_slice(&bytes);
        assert_eq!(import(&request), INVALID);
    }
    assert_eq!(import(&USUAL.import(&blob[..255])), WRONG_LENGTH);
    // An AES key of a length that AES does not have.
    for length in [15, 17, 33] {
        assert_eq!(import(&USUAL.import(&USUAL.seal_with(&vec![7; length], &[0; 64]))), INVALID);
    }
    // Well wrapped, but no object.
    assert_eq!(import(&USUAL.import(&USUAL.seal(&[0]))), INVALID);
    assert_eq!(import(&USUAL.import(&blob)), Ok(vec![6, 0, 1]));
    assert_eq!(objects(&mut device, &mut admin).len(), before.len());
}

#[test]
fn a_blob_that_was_damaged_anywhere_is_refused_and_nothing_is_stored() {
    let (mut device, mut admin) = with_wrap_key();
    put_template(&mut device, &mut admin, template(1));
    let request = USUAL.export(ObjectType::Template, 1);
    let blob = admin.send(&mut device, Command::ExportRsaWrapped, &request).unwrap();
    admin.send(&mut device, Command::DeleteObject, &[0, 1, 6]).unwrap();
    let before = objects(&mut device, &mut admin);
    let mut import = |blob: &[u8]| admin.send(&mut device, Command::ImportRsaWrapped, &USUAL.import(blob));
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(import(&damaged), INVALID, "byte {at}");
    }
    for length in 280..blob.len() {
        assert_eq!(import(&blob[..length]), INVALID, "{length}");
    }
    assert_eq!(import(&[0xff; 350]), INVALID);
    assert_eq!(objects(&mut device, &mut admin), before);
}
