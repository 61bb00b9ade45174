//! The device in this process, through the secure channel as any client opens it: what survives a power cut
//! and a restart, what a seed reproduces, and that an answer is given only for what is safely stored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{fs, path::Path, sync::mpsc, time::Duration};

use sshsm_firmware::MountError;
use sshsm_protocol::{
    Command, DeviceError,
    channel::{AuthenticationKey, Handshake, HandshakeError, HostChannel},
    frame::{ERROR_CODE, Frame, RESPONSE_FLAG},
};
use sshsm_simulator::{Clock, Simulator, SimulatorError, StateError};

/// A client's session under key 1 and its factory password.
struct Session(HostChannel);

impl Session {
    fn open(device: &mut Simulator) -> Self {
        let key = AuthenticationKey::from_password(b"password");
        let handshake = Handshake::new(1, &key, [7; 8]);
        let exchange = |message: &[u8]| Ok::<_, HandshakeError>(device.transact(message).unwrap());
        Self(handshake.open(exchange).unwrap())
    }

    /// The message that carries a command.
    fn seal(&mut self, command: Command, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 3136];
        let length = self.0.seal(command, payload, &mut message).unwrap();
        message.truncate(length);
        message
    }

    /// The payload of the device's answer, or its error.
    fn send(
        &mut self,
        device: &mut Simulator,
        command: Command,
        payload: &[u8],
    ) -> Result<Vec<u8>, DeviceError> {
        let mut response = device.transact(&self.seal(command, payload)).unwrap();
        if response[0] == ERROR_CODE {
            return Err(DeviceError::from_code(response[3]).unwrap());
        }
        let Frame { code, payload } = self.0.open(&mut response).unwrap();
        if code == ERROR_CODE {
            return Err(DeviceError::from_code(payload[0]).unwrap());
        }
        assert_eq!(code, command.code() | RESPONSE_FLAG);
        Ok(payload.to_vec())
    }
}

const ID: [u8; 2] = [0, 10];
const TEMPLATE: &[u8] = b"what a client stores";

/// PUT TEMPLATE: id, label, domains, capabilities, algorithm 36, contents.
fn template() -> Vec<u8> {
    [&ID[..], &[0; 40], &[0xff, 0xff], &[0; 8], &[36], TEMPLATE].concat()
}

fn put(device: &mut Simulator) {
    let stored = Session::open(device).send(device, Command::PutTemplate, &template());
    assert_eq!(stored, Ok(ID.to_vec()));
}

fn get(device: &mut Simulator) -> Result<Vec<u8>, DeviceError> {
    Session::open(device).send(device, Command::GetTemplate, &ID)
}

fn random(device: &mut Simulator) -> Vec<u8> {
    Session::open(device).send(device, Command::GetPseudoRandom, &[0, 32]).unwrap()
}

fn start(directory: &Path) -> Simulator {
    Simulator::open(directory).start().unwrap()
}

#[test]
fn a_new_device_opens_a_session_with_the_factory_password_and_echoes() {
    let mut device = Simulator::memory().start().unwrap();
    let mut session = Session::open(&mut device);
    assert_eq!(session.send(&mut device, Command::Echo, b"hello").unwrap(), b"hello");
    assert_eq!(device.serial().to_string().len(), 8);
    assert!(!device.predictable());
}

#[test]
fn the_device_tells_the_simulators_serial_number() {
    let mut device = Simulator::memory().serial(123_456).start().unwrap();
    let info = device.transact(&[0x06, 0, 0]).unwrap();
    assert_eq!(info[6..10], 123_456u32.to_be_bytes());
}

#[test]
fn a_power_cut_ends_sessions_and_keeps_objects() {
    let mut device = Simulator::memory().start().unwrap();
    put(&mut device);
    let mut session = Session::open(&mut device);
    device.power_cycle().unwrap();
    assert_eq!(session.send(&mut device, Command::Echo, b"hello"), Err(DeviceError::InvalidSession));
    assert_eq!(get(&mut device).unwrap(), TEMPLATE);
}

#[test]
fn every_device_of_a_snapshot_starts_with_what_was_stored_then_and_goes_its_own_way() {
    let mut first = Simulator::memory().serial(42).start().unwrap();
    put(&mut first);
    let snapshot = first.snapshot().unwrap();
    let mut session = Session::open(&mut first);
    session.send(&mut first, Command::DeleteObject, &[ID[0], ID[1], 6]).unwrap();
    assert_eq!(get(&mut first), Err(DeviceError::ObjectNotFound));
    for _ in 0..2 {
        let mut copy = Simulator::restore(&snapshot).start().unwrap();
        assert_eq!((copy.serial(), get(&mut copy).unwrap().as_slice()), (42, TEMPLATE));
        let mut session = Session::open(&mut copy);
        session.send(&mut copy, Command::DeleteObject, &[ID[0], ID[1], 6]).unwrap();
        copy.power_cycle().unwrap();
        assert_eq!(get(&mut copy), Err(DeviceError::ObjectNotFound));
    }
    let other = Simulator::restore(&snapshot).serial(43).start().err();
    assert!(matches!(other, Some(SimulatorError::State(StateError::Serial { stored: 42, asked: 43, .. }))));
}

#[test]
fn sessions_expire_by_the_clock_that_the_test_holds() {
    let clock = Clock::held();
    let mut device = Simulator::memory().clock(clock.clone()).start().unwrap();
    let mut session = Session::open(&mut device);
    clock.advance(Duration::from_secs(29));
    assert!(session.send(&mut device, Command::Echo, b"in time").is_ok());
    clock.advance(Duration::from_secs(31));
    assert_eq!(session.send(&mut device, Command::Echo, b"late"), Err(DeviceError::InvalidSession));
}

#[test]
fn decisions_and_the_light_are_shown() {
    let (shown, seen) = mpsc::channel();
    let lit = shown.clone();
    let mut device = Simulator::memory()
        .observer(Box::new(move |decision| shown.send(decision.to_string()).unwrap()))
        .indicator(Box::new(move |indication| lit.send(format!("{indication:?}")).unwrap()))
        .start()
        .unwrap();
    put(&mut device);
    let mut session = Session::open(&mut device);
    let ed25519 = [&[0, 5], &[0; 40][..], &[0xff, 0xff], &[0xff; 8], &[46]].concat();
    session.send(&mut device, Command::GenerateAsymmetricKey, &ed25519).unwrap();
    assert!(seen.try_recv().is_err(), "nothing to see so far");

    let request = [&[0, 5], &ID[..], &[46, 0, 0, 0, 1], b"no certificate"].concat();
    let refused = session.send(&mut device, Command::SignSshCertificate, &request);
    assert_eq!(refused, Err(DeviceError::SshCaConstraintViolation));
    let decision = seen.try_recv().unwrap();
    assert!(decision.starts_with("REFUSED: ") && decision.contains("0x000a"), "{decision}");

    session.send(&mut device, Command::BlinkDevice, &[10]).unwrap();
    assert_eq!(seen.try_recv().unwrap(), "Blink { duration: 10s }");
}

#[test]
fn a_state_directory_brings_back_the_same_device() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = start(directory.path());
    put(&mut device);
    let serial = device.serial();
    drop(device);
    let mut device = start(directory.path());
    assert_eq!(device.serial(), serial);
    assert_eq!(get(&mut device).unwrap(), TEMPLATE);
}

#[test]
fn a_device_is_stored_before_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = start(directory.path());
    let mut session = Session::open(&mut device);
    let image = || fs::read(directory.path().join("flash.bin")).unwrap();
    let before = image();
    session.send(&mut device, Command::Echo, b"changes nothing").unwrap();
    assert_eq!(image(), before);
    session.send(&mut device, Command::PutTemplate, &template()).unwrap();

    // A copy taken now, while the device runs, is the whole device.
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join("flash.bin"), image()).unwrap();
    fs::copy(directory.path().join("root.key"), copy.path().join("root.key")).unwrap();
    assert_eq!(get(&mut start(copy.path())).unwrap(), TEMPLATE);
}

#[test]
fn the_flash_of_one_device_does_not_start_with_the_root_key_of_another() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [&one, &other] {
        put(&mut start(directory.path()));
    }
    let file = other.path().join("flash.bin");
    fs::copy(one.path().join("flash.bin"), &file).unwrap();
    let before = fs::read(&file).unwrap();
    let refused = Simulator::open(other.path()).start();
    assert!(
        matches!(refused, Err(SimulatorError::Start { source: MountError::OtherRootKey, .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_ne!(
        fs::read(one.path().join("root.key")).unwrap(),
        fs::read(other.path().join("root.key")).unwrap()
    );
}

#[test]
fn a_device_that_cannot_be_stored_gives_no_answer_and_none_ever_after() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = start(directory.path());
    let mut session = Session::open(&mut device);
    let obstacle = directory.path().join("flash.bin.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(session.send(&mut device, Command::Echo, b"stores nothing").is_ok());

    let message = session.seal(Command::PutTemplate, &template());
    let refused = device.transact(&message);
    assert!(
        matches!(refused, Err(SimulatorError::State(StateError::Io { action: "save", .. }))),
        "{refused:?}"
    );
    assert!(matches!(device.transact(&[0x01, 0, 0]), Err(SimulatorError::Off)));
    assert!(matches!(device.power_cycle(), Err(SimulatorError::Off)));
    drop(device);

    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(get(&mut start(directory.path())), Err(DeviceError::ObjectNotFound), "as before the command");
}

#[test]
fn a_seed_repeats_a_device_and_marks_it_for_good() {
    let seeded = |seed| Simulator::memory().seed(seed).start().unwrap();
    let (mut one, mut same, mut other) = (seeded(7), seeded(7), seeded(8));
    assert!(one.predictable());
    assert_eq!(one.serial(), same.serial());
    assert_ne!(one.serial(), other.serial());
    let drawn = random(&mut one);
    assert_eq!(drawn, random(&mut same));
    assert_ne!(drawn, random(&mut other));
    one.power_cycle().unwrap();
    assert_ne!(drawn, random(&mut one), "the stream continues across a power cut");

    let directory = tempfile::tempdir().unwrap();
    drop(Simulator::open(directory.path()).seed(7).start().unwrap());
    assert!(start(directory.path()).predictable(), "a key made then is still known");
}

#[test]
fn a_sound_device_becomes_predictable_once_a_seed_serves_it() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!start(directory.path()).predictable());
    put(&mut Simulator::open(directory.path()).seed(7).start().unwrap());
    assert!(start(directory.path()).predictable());
}

#[test]
fn a_device_keeps_its_serial_number() {
    let directory = tempfile::tempdir().unwrap();
    let open = |serial| Simulator::open(directory.path()).serial(serial).start();
    assert_eq!(open(42).unwrap().serial(), 42);
    assert!(matches!(
        open(43).err(),
        Some(SimulatorError::State(StateError::Serial { stored: 42, asked: 43, .. }))
    ));
    assert_eq!(open(42).unwrap().serial(), 42);
}

#[test]
fn one_process_at_a_time_has_a_device() {
    let directory = tempfile::tempdir().unwrap();
    let device = start(directory.path());
    let second = Simulator::open(directory.path()).start().err();
    assert!(matches!(second, Some(SimulatorError::State(StateError::Locked(_)))));
    drop(device);
    start(directory.path());
}
