//! A device that is the same for every input, in factory state or with some objects in it.

use std::sync::LazyLock;

use sshsm_client::{ClientError, Session};
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::object::NewObject;
use sshsm_protocol::{Algorithm, Capabilities, Command, Domains, Label, ObjectId};
use sshsm_simulator::{Clock, Simulator, Snapshot};

/// The id of every object in a [`provisioned`] device.
pub const ID: [u8; 2] = [0, 7];

static KEY: LazyLock<[u8; AuthenticationKey::LENGTH]> =
    LazyLock::new(|| *AuthenticationKey::from_password(b"password").as_bytes());

static FACTORY: LazyLock<Snapshot> = LazyLock::new(|| {
    let device = Simulator::memory().seed(1).serial(12_345_678).clock(Clock::held()).start();
    device.and_then(|mut device| device.snapshot()).expect("a new device starts")
});

static PROVISIONED: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut device = new();
    provision(&mut session(&mut device));
    device.snapshot().expect("the device runs")
});

/// A device in factory state.
pub fn new() -> Simulator {
    restore(&FACTORY)
}

/// A device with a CA key, a template for it, a wrap key and an HMAC key.
pub fn provisioned() -> Simulator {
    restore(&PROVISIONED)
}

fn restore(snapshot: &Snapshot) -> Simulator {
    Simulator::restore(snapshot).seed(1).clock(Clock::held()).start().expect("the device starts")
}

/// A session that may do all.
pub fn session(device: &mut Simulator) -> Session<'_> {
    let key = AuthenticationKey::from_bytes(*KEY);
    device.session_with(ObjectId::DEFAULT_AUTHENTICATION_KEY, &key).expect("a new device has this key")
}

/// An object of the most permissive kind.
fn put(session: &mut Session<'_>, command: Command, algorithm: Algorithm, rest: &[u8]) {
    let object = NewObject {
        id: ObjectId::new(u16::from_be_bytes(ID)).ok(),
        label: Label::new("fuzz").expect("a short label"),
        domains: Domains::ALL,
        capabilities: Capabilities::ALL,
        algorithm,
    };
    let mut header = [0; NewObject::LENGTH];
    object.encode(&mut Writer::new(&mut header)).expect("it fits");
    session.command(command, &[&header, rest].concat()).expect("there is room");
}

fn provision(session: &mut Session<'_>) {
    put(session, Command::PutAsymmetricKey, Algorithm::Ed25519, &[1; 32]);
    put(session, Command::PutTemplate, Algorithm::TemplateSsh, include_bytes!("../corpus/template/rules"));
    let delegated = Capabilities::ALL.bits().to_be_bytes();
    put(session, Command::PutWrapKey, Algorithm::Aes128CcmWrap, &[&delegated[..], &[2; 16]].concat());
    put(session, Command::PutHmacKey, Algorithm::HmacSha256, &[3; 32]);
}

/// The answer, or the device's refusal; anything else is a finding.
pub fn ask(session: &mut Session<'_>, command: Command, payload: &[u8]) -> Option<Vec<u8>> {
    match session.command(command, payload) {
        Ok(answer) => Some(answer),
        Err(ClientError::Device { .. }) => None,
        Err(finding) => panic!("{command:?}: {finding}"),
    }
}

/// Whatever happened, the device answers, and starts again with what it has stored.
pub fn still_works(device: &mut Simulator) {
    for _ in 0..2 {
        let answer = device.transact(&[Command::GetDeviceInfo.code(), 0, 0]).expect("the device runs");
        assert_eq!(answer.first(), Some(&0x86));
        device.power_cycle().expect("the device starts again");
    }
}
