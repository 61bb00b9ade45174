//! A fault in the memory of a loaded key: no signature leaves that the stored public key does not verify.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/case.rs"]
mod case;
mod model;
#[path = "model/rsa_key.rs"]
mod rsa_key;

use std::cell::Cell;
use std::time::Duration;

use model::{Chip, Clock, Flash, Model, Object, Session};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::CryptoRng;
use sshsm_firmware::crypto::{CryptoError, Input, MAX_SIGNATURE, Padding, Provider, RustCrypto, key};
use sshsm_firmware::platform::{Description, RootKey};
use sshsm_firmware::{Device, Platform};
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, Command, Curve, DeviceError, ObjectType};
use zeroize::Zeroizing;

thread_local! {
    /// The bit of a private key that is another one in memory than in flash.
    static FLIPPED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// RustCrypto, on memory in which a bit flips while a key is loaded.
struct Faulty;

/// The key as it is in memory: a different one, whose parts are consistent.
fn damaged(algorithm: AsymmetricAlgorithm, body: &[u8], bit: usize) -> Vec<u8> {
    let length = algorithm.private_length();
    let flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    match algorithm {
        // Of its body the factors are loaded, prime or not.
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            flip(body)
        }
        AsymmetricAlgorithm::Ec(_) => key::expand(algorithm, &flip(&body[..length])).unwrap().to_vec(),
        AsymmetricAlgorithm::Ed25519 => {
            key::expand(algorithm, &flip(&body[body.len() - length..])).unwrap().to_vec()
        }
    }
}

impl Provider for Faulty {
    type PrivateKey = <RustCrypto as Provider>::PrivateKey;

    fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<Self::PrivateKey, CryptoError> {
        let damaged = FLIPPED.get().map(|bit| damaged(algorithm, body, bit));
        RustCrypto::load(algorithm, damaged.as_deref().unwrap_or(body))
    }

    fn sign(
        key: &Self::PrivateKey,
        public: &[u8],
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError> {
        RustCrypto::sign(key, public, input, entropy, signature)
    }

    fn derive(key: &Self::PrivateKey, point: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        RustCrypto::derive(key, point)
    }

    fn decrypt(
        key: &Self::PrivateKey,
        padding: Padding<'_>,
        ciphertext: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        RustCrypto::decrypt(key, padding, ciphertext, entropy)
    }

    fn verify(algorithm: AsymmetricAlgorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        RustCrypto::verify(algorithm, public, message, signature)
    }
}

/// The model platform with such memory.
struct FaultyModel(Model);

impl Platform for FaultyModel {
    type Flash = Flash;
    type Entropy = ChaCha8Rng;
    type Crypto = Faulty;

    fn serial(&self) -> u32 {
        self.0.serial()
    }

    fn root_key(&mut self) -> RootKey {
        self.0.root_key()
    }

    fn uptime(&mut self) -> Duration {
        self.0.uptime()
    }

    fn describe(&mut self) -> Description {
        self.0.describe()
    }

    fn entropy(&mut self) -> &mut ChaCha8Rng {
        self.0.entropy()
    }
}

/// Asks twice with a bit flipped, and once more with memory as it should be.
fn signs_when_memory_is_right(
    device: &mut Device<FaultyModel>,
    session: &mut Session,
    what: &str,
    command: Command,
    payload: &[u8],
) {
    for bit in [3, 77, 200] {
        FLIPPED.set(Some(bit));
        for _ in 0..2 {
            let answer = session.send(device, command, payload);
            assert_eq!(answer, Err(DeviceError::StorageFailed), "{what}: {command} with bit {bit} flipped");
        }
        FLIPPED.set(None);
        // The key was forgotten with the fault in it.
        assert!(session.send(device, command, payload).is_ok(), "{what}: {command}");
        // Another key is loaded in between, so that this one is loaded again.
        session.send(device, Command::SignEcdsa, &[[0, 90].as_slice(), &[1; 32]].concat()).unwrap();
    }
}

#[test]
fn no_signature_leaves_that_the_stored_public_key_does_not_verify() {
    let mut device = Device::start(FaultyModel(Model::new(Clock::default())), Flash::blank()).ok().unwrap();
    let device = &mut device;
    let mut session = Session::open(device, 1, b"password").unwrap();
    let session = &mut session;
    let all = Capability::ALL;
    let other = Object::new(90, Algorithm::Ecp256, all).with(&[9; 32]);
    session.send(device, Command::PutAsymmetricKey, &other).unwrap();

    let attested = Object::new(91, Algorithm::Ecp256, all);
    session.send(device, Command::GenerateAsymmetricKey, &attested.with(&[])).unwrap();
    // Any certificate will do for the issuer's: the device's own.
    let template = session.send(device, Command::GetOpaque, &[0, 0]).unwrap();

    let digest = [7; 32];
    let pss = [[0, 5, 33, 0, 32].as_slice(), &digest].concat();
    let pkcs1 = [[0, 5].as_slice(), &digest].concat();
    let keys = [
        (Algorithm::Ed25519, vec![5; 32], vec![(Command::SignEddsa, pkcs1.clone())]),
        (Algorithm::Ecp256, vec![5; 32], vec![(Command::SignEcdsa, pkcs1.clone())]),
        (Algorithm::Ecp384, vec![5; 48], vec![(Command::SignEcdsa, pkcs1.clone())]),
        (Algorithm::Ecbp256, vec![5; 32], vec![(Command::SignEcdsa, pkcs1.clone())]),
        (
            rsa_key::LARGE[0].0,
            rsa_key::LARGE[0].1.to_vec(),
            vec![(Command::SignPkcs1, pkcs1), (Command::SignPss, pss)],
        ),
    ];
    for (algorithm, private, mut requests) in keys {
        let put = Object::new(5, algorithm, all).with(&private);
        session.send(device, Command::PutAsymmetricKey, &put).unwrap();
        if algorithm != Algorithm::Ed25519 {
            let issuer = Object::new(5, Algorithm::OpaqueX509Certificate, &[]).with(&template);
            session.send(device, Command::PutOpaque, &issuer).unwrap();
            requests.push((Command::SignAttestationCertificate, vec![0, 91, 0, 5]));
        }
        for (command, payload) in requests {
            signs_when_memory_is_right(device, session, algorithm.name(), command, &payload);
        }
        session.send(device, Command::DeleteObject, &[0, 5, ObjectType::AsymmetricKey.code()]).unwrap();
        if algorithm != Algorithm::Ed25519 {
            session.send(device, Command::DeleteObject, &[0, 5, ObjectType::Opaque.code()]).unwrap();
        }
    }
    // By the device itself.
    signs_when_memory_is_right(
        device,
        session,
        "device",
        Command::SignAttestationCertificate,
        &[0, 91, 0, 0],
    );
}

#[test]
fn no_certificate_leaves_that_its_stored_ca_key_does_not_verify() {
    for algorithm in [AsymmetricAlgorithm::Ed25519, AsymmetricAlgorithm::Ec(Curve::P256)] {
        let mut case = case::Case::new();
        (case.ca_algorithm, case.ca_private) = (algorithm, vec![1; 32]);
        let (mut prepared, _) = case.device();
        let chip: Chip = prepared.flash().unwrap().copy();
        let mut device =
            Device::start(FaultyModel(Model::new(Clock::default())), Flash::of(chip)).ok().unwrap();
        let mut session = Session::open(&mut device, 1, b"password").unwrap();
        let other = Object::new(90, Algorithm::Ecp256, Capability::ALL).with(&[9; 32]);
        session.send(&mut device, Command::PutAsymmetricKey, &other).unwrap();
        signs_when_memory_is_right(
            &mut device,
            &mut session,
            algorithm.algorithm().name(),
            Command::SignSshCertificate,
            &case.payload(),
        );
    }
}
