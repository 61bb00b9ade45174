//! What clients without a session can make the device log and write: little, never in place of what was done
//! in a session, and never so much that a client with the password is kept out or goes unlogged.
#![cfg(all(feature = "audit", feature = "signatures"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::time::Duration;

use model::{Clock, Flash, Model, ModelDevice, Object, Session, plain};
use sshsm_firmware::Device;
use sshsm_protocol::audit::{LogEntry, LogHeader};
use sshsm_protocol::codec::Reader;
use sshsm_protocol::option::AUDITED_COMMANDS;
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

const FULL: Result<Vec<u8>, DeviceError> = Err(DeviceError::LogFull);
/// The maximum number of strangers' entries until some are consumed; and the time until there may be one
/// more.
const AT_ONCE: usize = 16;
const ONE_MORE: Duration = Duration::from_secs(600);

/// A device that logs everything, by force or not, with a key 5 that signs; and its administrator.
fn logging(forced: bool) -> (ModelDevice, Session, Flash, Clock) {
    let (clock, flash) = (Clock::default(), Flash::blank());
    let mut device = Device::start(Model::new(clock.clone()), flash.clone()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    let key = Object::new(5, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[7; 32]);
    admin.send(&mut device, Command::PutAsymmetricKey, &key).unwrap();
    let pairs: Vec<_> =
        AUDITED_COMMANDS.into_iter().filter(|code| *code != 0x05).flat_map(|code| [code, 1]).collect();
    let length = u8::try_from(pairs.len()).unwrap();
    admin.send(&mut device, Command::SetOption, &[&[3, 0, length], pairs.as_slice()].concat()).unwrap();
    admin.send(&mut device, Command::SetOption, &[1, 0, 1, u8::from(forced)]).unwrap();
    (device, admin, flash, clock)
}

fn log(session: &mut Session, device: &mut ModelDevice) -> (LogHeader, Vec<LogEntry>) {
    let reply = session.send(device, Command::GetLogEntries, &[]).unwrap();
    let mut reader = Reader::new(&reply);
    let header = LogHeader::decode(&mut reader).unwrap();
    let entries: Vec<_> = (0..header.entries).map(|_| LogEntry::decode(&mut reader).unwrap()).collect();
    assert!(entries.windows(2).all(|pair| pair[1].follows(&pair[0].digest)));
    (header, entries)
}

fn consume(session: &mut Session, device: &mut ModelDevice) {
    let (_, entries) = log(session, device);
    let last = entries.last().unwrap().number.to_be_bytes();
    session.send(device, Command::SetLogIndex, &last).unwrap();
}

fn sign(session: &mut Session, device: &mut ModelDevice) {
    session.send(device, Command::SignEddsa, &[0, 5, 1]).unwrap();
}

fn echo(device: &mut ModelDevice) -> Result<Vec<u8>, DeviceError> {
    plain(device, Command::Echo.code(), b"x")
}

/// Everything that there is to be sent without a session: once.
fn knock(device: &mut ModelDevice) {
    let _ = echo(device);
    plain(device, Command::GetDeviceInfo.code(), &[]).unwrap();
    plain(device, Command::GetDevicePublicKey.code(), &[]).unwrap();
    let _ = plain(device, Command::CreateSession.code(), &[0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    plain(device, Command::CreateSession.code(), &[0, 77, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap_err();
    plain(device, Command::AuthenticateSession.code(), &[15; 17]).unwrap_err();
}

#[test]
fn strangers_do_not_fill_a_forced_log_and_signing_goes_on() {
    let (mut device, mut admin, flash, _) = logging(true);
    consume(&mut admin, &mut device);
    let logged = (0..1000).take_while(|_| echo(&mut device).is_ok()).count();
    assert_eq!(logged, AT_ONCE);
    let written = flash.0.borrow().operations;
    for _ in 0..1000 {
        assert_eq!(echo(&mut device), FULL);
        knock(&mut device);
    }
    assert_eq!(
        flash.0.borrow().operations,
        written,
        "a command that is refused or not logged writes nothing"
    );
    for _ in 0..40 {
        sign(&mut admin, &mut device);
    }
}

#[test]
fn strangers_push_no_entry_out_of_a_log_that_may_lose_some() {
    let (mut device, mut admin, ..) = logging(false);
    for _ in 0..70 {
        sign(&mut admin, &mut device);
    }
    let (_, before) = log(&mut admin, &mut device);
    assert_eq!(before.len(), 62);
    for _ in 0..100 {
        knock(&mut device);
    }
    assert_eq!(log(&mut admin, &mut device).1, before);
}

#[test]
fn a_day_of_strangers_leaves_as_many_entries_as_one_every_ten_minutes() {
    for forced in [false, true] {
        let (mut device, mut admin, flash, clock) = logging(forced);
        consume(&mut admin, &mut device);
        let first = log(&mut admin, &mut device).1[0].number;
        let mut own = 0;
        let mut writes = 0;
        for second in 1..=24 * 60 * 60 / 20 {
            clock.advance(Duration::from_secs(20));
            let before = flash.0.borrow().operations;
            knock(&mut device);
            writes += usize::from(flash.0.borrow().operations > before);
            admin.send(&mut device, Command::GetDeviceInfo, &[]).unwrap();
            own += 1;
            if second % 20 == 0 {
                consume(&mut admin, &mut device);
                own += 1;
            }
        }
        let (_, entries) = log(&mut admin, &mut device);
        let all = usize::from(entries.last().unwrap().number - first);
        assert!((100..=AT_ONCE + 144).contains(&(all - own)), "{} entries", all - own);
        assert!(writes <= AT_ONCE + 144, "{writes} times something was written");
    }
}

#[test]
fn another_entry_of_a_stranger_has_room_after_ten_minutes_once_some_were_consumed() {
    let (mut device, mut admin, _, clock) = logging(true);
    while echo(&mut device).is_ok() {}
    consume(&mut admin, &mut device);
    assert_eq!(echo(&mut device), FULL, "there is room, and nothing left of the allowance");
    for _ in 0..ONE_MORE.as_secs() / 20 {
        clock.advance(Duration::from_secs(20));
        admin.send(&mut device, Command::GetLogEntries, &[]).unwrap();
    }
    assert!(echo(&mut device).is_ok());
    assert_eq!(echo(&mut device), FULL);
}

#[test]
fn who_has_the_password_gets_in_past_any_number_of_strangers_and_is_logged() {
    for forced in [false, true] {
        let (mut device, mut admin, ..) = logging(forced);
        consume(&mut admin, &mut device);
        for _ in 0..100 {
            let _ = echo(&mut device);
        }
        let (_, before) = log(&mut admin, &mut device);
        let begun = Session::create(&mut device, 1, b"password").unwrap();
        assert_eq!(
            log(&mut admin, &mut device).1,
            before,
            "a client that has proved nothing leaves no trace"
        );
        sign(&mut admin, &mut device);
        let mut session = begun.authenticate(&mut device).unwrap();
        sign(&mut session, &mut device);
        let (header, entries) = log(&mut admin, &mut device);
        let seen: Vec<_> = entries[before.len()..]
            .iter()
            .map(|entry| (entry.command, entry.target_key, entry.result))
            .collect();
        let expected = [(0x6a, 5, 0xea), (0x03, 1, 0x83), (0x04, 1, 0x84), (0x6a, 5, 0xea)];
        assert_eq!(seen, expected);
        assert_eq!(header.unlogged_authentications, 0);
    }
}

#[test]
fn guesses_that_are_not_logged_any_more_are_counted() {
    let (mut device, mut admin, ..) = logging(true);
    consume(&mut admin, &mut device);
    while echo(&mut device).is_ok() {}
    for _ in 0..20 {
        let mut message = Session::create(&mut device, 1, b"password").unwrap().0.authenticate();
        message[5] ^= 1;
        let failed = plain(&mut device, message[0], &message[3..]);
        assert_eq!(failed, Err(DeviceError::AuthenticationFailed));
        // This makes room for the next one; and the administrator's session continues.
        device.platform().clock.advance(Duration::from_secs(5));
        log(&mut admin, &mut device);
    }
    let (header, entries) = log(&mut admin, &mut device);
    assert_eq!(header.unlogged_authentications, 20);
    assert!(!entries.iter().any(|entry| entry.command == Command::AuthenticateSession.code()));
    consume(&mut admin, &mut device);
    assert_eq!(log(&mut admin, &mut device).0.unlogged_authentications, 0);
}

#[test]
fn clients_are_told_what_they_need_to_begin_even_where_it_cannot_be_logged() {
    let (mut device, ..) = logging(true);
    while echo(&mut device).is_ok() {}
    plain(&mut device, Command::GetDeviceInfo.code(), &[]).unwrap();
    plain(&mut device, Command::GetDevicePublicKey.code(), &[]).unwrap();
    Session::create(&mut device, 1, b"password").unwrap().authenticate(&mut device).unwrap();
}
