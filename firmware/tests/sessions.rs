//! Sessions: opening, using, expiring, and everything that must not work.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::time::Duration;

use model::{Clock, Flash, Model, Object, Session, fresh, plain};
use proptest::prelude::*;
use sshsm_firmware::{Device, HALF_OPEN, IDLE_TIMEOUT};
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

#[test]
fn echo_works_in_plain_and_in_a_session_up_to_the_longest_message() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    for length in [0, 1, 15, 16, 2021, 3116] {
        let data = vec![0xa5; length];
        assert_eq!(session.send(&mut device, Command::Echo, &data).unwrap(), data);
        assert_eq!(plain(&mut device, Command::Echo.code(), &data).unwrap(), data);
    }
}

#[test]
fn sixteen_sessions_fit_and_the_seventeenth_is_refused_until_one_expires() {
    let clock = Clock::default();
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let mut sessions: Vec<_> = (0..16).map(|_| Session::admin(&mut device)).collect();
    assert_eq!(sessions[15].0.session_id(), 15);
    assert_eq!(Session::create(&mut device, 1, b"password").err(), Some(DeviceError::SessionsFull));

    clock.advance(IDLE_TIMEOUT);
    sessions[0].send(&mut device, Command::Echo, b"still here").unwrap();
    clock.advance(Duration::from_millis(1));
    assert_eq!(sessions[1].send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
    assert_eq!(Session::admin(&mut device).0.session_id(), 1);
    sessions[0].send(&mut device, Command::Echo, b"still here").unwrap();
}

#[test]
fn a_command_that_takes_longer_than_the_timeout_does_not_expire_its_own_session() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    // The model's clock moves on by as long as it blinks.
    assert_eq!(session.send(&mut device, Command::BlinkDevice, &[31]), Ok(vec![]));
    session.send(&mut device, Command::Echo, b"still here").unwrap();
}

/// Clients that begin at the same time, one more than there are slots, and then continue in turn.
#[test]
fn a_newcomer_is_refused_while_all_slots_are_taken_by_unfinished_handshakes() {
    let clock = Clock::default();
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let create = |device: &mut _| Session::create(device, 1, b"password");
    let begun: Vec<_> = (0..16).map(|_| create(&mut device).unwrap()).collect();
    clock.advance(HALF_OPEN - Duration::from_millis(1));
    assert_eq!(create(&mut device).err(), Some(DeviceError::SessionsFull));
    for session in begun {
        let mut session = session.authenticate(&mut device).unwrap();
        session.send(&mut device, Command::Echo, b"x").unwrap();
    }
    clock.advance(HALF_OPEN);
    assert_eq!(
        create(&mut device).err(),
        Some(DeviceError::SessionsFull),
        "none is evicted once it is authenticated"
    );
}

#[test]
fn clients_without_a_password_do_not_keep_others_out_for_long() {
    let clock = Clock::default();
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let create = |device: &mut _| Session::create(device, 1, b"password");
    let first = create(&mut device).unwrap();
    clock.advance(Duration::from_secs(1));
    let mut abandoned: Vec<_> = (0..15).map(|_| create(&mut device).unwrap()).collect();
    clock.advance(HALF_OPEN - Duration::from_secs(1));
    let mut session = Session::admin(&mut device);
    session.send(&mut device, Command::Echo, b"x").unwrap();
    let error = first.authenticate(&mut device).err();
    assert_eq!(error, Some(DeviceError::InvalidSession), "the one that was created first gave way");
    assert_eq!(create(&mut device).err(), Some(DeviceError::SessionsFull), "the others are younger");
    // While there is room, a client has as long as any other: it may wait for a finger on a key of its own.
    session.send(&mut device, Command::CloseSession, &[]).unwrap();
    clock.advance(IDLE_TIMEOUT - HALF_OPEN);
    abandoned.pop().unwrap().authenticate(&mut device).unwrap();
}

#[test]
fn an_unauthenticated_session_takes_no_command() {
    let mut device = fresh();
    let mut session = Session::create(&mut device, 1, b"password").unwrap();
    let _ = session.0.authenticate();
    assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
}

#[test]
fn a_wrong_cryptogram_or_mac_does_not_end_the_session_that_it_names() {
    let mut device = fresh();
    let mut session = Session::create(&mut device, 1, b"password").unwrap();
    let mut message = session.0.authenticate();
    let send = |device: &mut _, message: &[u8]| plain(device, message[0], &message[3..]);
    for at in [5, 12] {
        message[at] ^= 1;
        assert_eq!(send(&mut device, &message), Err(DeviceError::AuthenticationFailed));
        message[at] ^= 1;
    }
    assert_eq!(send(&mut device, &message), Ok(vec![]));
    session.send(&mut device, Command::Echo, b"x").unwrap();
}

#[test]
fn a_message_of_a_stranger_does_not_end_the_session_that_it_names() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    let failed = Err(DeviceError::AuthenticationFailed);
    let mut message = [0; 64];
    for number in 0..5 {
        assert_eq!(plain(&mut device, 0x05, &[0; 25]), failed, "28 bytes of nothing");
        let length = session.0.seal(Command::Echo, &[number], &mut message).unwrap();
        let mut forged = message;
        for at in 4..length {
            forged[at] ^= 1;
            assert_eq!(plain(&mut device, forged[0], &forged[3..length]), failed, "byte {at}");
            forged[at] ^= 1;
        }
        let mut response = [0; MAX_MESSAGE];
        let answer = device.handle(&message[..length], &mut response);
        assert_eq!(session.0.open(&mut response[..answer]).unwrap().payload, [number]);
        assert_eq!(plain(&mut device, message[0], &message[3..length]), failed, "again");
    }
}

#[test]
fn a_session_that_strangers_name_expires_as_any_other() {
    let clock = Clock::default();
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let mut session = Session::admin(&mut device);
    for _ in 0..30 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(plain(&mut device, 0x05, &[0; 25]), Err(DeviceError::AuthenticationFailed));
    }
    clock.advance(Duration::from_millis(1));
    assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
}

#[test]
fn a_session_of_which_a_stranger_guesses_macs_ends_after_1024() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    for guess in 1..=1024_u16 {
        session.send(&mut device, Command::Echo, b"x").unwrap();
        let garbage = [&[0; 23][..], &guess.to_be_bytes()].concat();
        assert_eq!(plain(&mut device, 0x05, &garbage), Err(DeviceError::AuthenticationFailed));
    }
    assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
}

#[test]
fn a_closed_session_is_gone() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    assert_eq!(session.send(&mut device, Command::CloseSession, &[]), Ok(vec![]));
    assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
}

#[test]
fn unknown_keys_cannot_open_a_session() {
    let mut device = fresh();
    for id in [0, 2, 0xffff] {
        assert_eq!(Session::create(&mut device, id, b"password").err(), Some(DeviceError::ObjectNotFound));
    }
}

#[test]
fn session_commands_are_invalid_in_plain_and_plain_ones_in_a_session() {
    let mut device = fresh();
    assert_eq!(plain(&mut device, Command::ListObjects.code(), &[]), Err(DeviceError::InvalidCommand));
    assert_eq!(plain(&mut device, 0x02, &[]), Err(DeviceError::InvalidCommand));
    let mut session = Session::admin(&mut device);
    assert_eq!(session.send(&mut device, Command::CreateSession, &[0; 10]), Err(DeviceError::InvalidCommand));
    #[cfg(not(feature = "opaque"))]
    assert_eq!(session.send(&mut device, Command::GetOpaque, &[0, 1]), Err(DeviceError::InvalidCommand));
}

#[test]
fn a_changed_password_opens_the_next_session_and_the_open_one_goes_on() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    let key = AuthenticationKey::from_password(b"new");
    let payload = [&[0, 1, 38], key.as_bytes().as_slice()].concat();
    assert_eq!(session.send(&mut device, Command::ChangeAuthenticationKey, &payload), Ok(vec![0, 1]));
    session.send(&mut device, Command::Echo, b"x").unwrap();
    Session::open(&mut device, 1, b"new").unwrap();

    let payload = [&[0, 2, 38], key.as_bytes().as_slice()].concat();
    assert_eq!(
        session.send(&mut device, Command::ChangeAuthenticationKey, &payload),
        Err(DeviceError::InvalidId),
        "somebody else's key"
    );
}

#[test]
fn a_reset_ends_all_sessions_and_leaves_a_factory_fresh_device() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut other = Session::admin(&mut device);
    let key = Object::new(5, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[]);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), Ok(vec![]));
    for session in [&mut admin, &mut other] {
        assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
    }
    let mut admin = Session::admin(&mut device);
    assert_eq!(admin.send(&mut device, Command::ListObjects, &[]), Ok(vec![0, 1, 2, 0]));
}

#[test]
fn every_command_checks_its_length() {
    for &command in Command::ALL {
        let mut device = fresh();
        let mut session = Session::admin(&mut device);
        let bounds = command.request_length();
        let lengths = [bounds.start().checked_sub(1), bounds.end().checked_add(1).filter(|&end| end <= 3116)];
        for length in lengths.into_iter().flatten() {
            let answer = session.send(&mut device, command, &vec![0; length]);
            // Probed on a device of its own, because the probe may reset or close.
            let mut other = fresh();
            let mut probe = Session::admin(&mut other);
            let exists = probe.send(&mut other, command, &vec![0; *bounds.start()]);
            let expected = match exists {
                Err(DeviceError::InvalidCommand) => DeviceError::InvalidCommand,
                _ => DeviceError::WrongLength,
            };
            assert_eq!(answer, Err(expected), "{command} with {length} bytes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_plain_message_panics(mut message in proptest::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
        if fix && message.len() >= 3 {
            let length = u16::try_from(message.len() - 3).unwrap().to_be_bytes();
            message[1..3].copy_from_slice(&length);
        }
        let mut response = [0; MAX_MESSAGE];
        let length = fresh().handle(&message, &mut response);
        prop_assert!(length >= 3);
    }

    #[test]
    fn no_session_command_panics(
        command in proptest::sample::select(Command::ALL),
        payload in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        // Generating RSA keys is slow and takes no input beyond its header.
        prop_assume!(command != Command::GenerateAsymmetricKey);
        let mut device = fresh();
        let mut session = Session::admin(&mut device);
        let _ = session.send(&mut device, command, &payload);
        let ends = [Command::ResetDevice, Command::CloseSession, Command::RestartDevice];
        prop_assert!(ends.contains(&command)
            || session.send(&mut device, Command::Echo, b"alive").is_ok());
    }

    #[test]
    fn a_short_response_buffer_never_panics(room in 0_usize..40, payload in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut message = vec![1, 0, u8::try_from(payload.len()).unwrap()];
        message.extend_from_slice(&payload);
        let mut response = vec![0; room];
        prop_assert!(fresh().handle(&message, &mut response) <= room);
    }
}
