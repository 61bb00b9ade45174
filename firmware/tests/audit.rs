//! The audit log and the options: what is logged, linked, kept, and refused when full, and what survives a
//! power cut.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "audit")]

mod model;

use std::time::Duration;

use model::{
    Clock, Flash, Model, ModelDevice, Object, Session, fresh, plain, put_authentication_key, root_key, start,
    try_start,
};
use proptest::prelude::*;
use sshsm_firmware::Device;
use sshsm_firmware::platform::Presence;
use sshsm_firmware::store::{Record, Store};
use sshsm_protocol::audit::{LogEntry, LogHeader};
use sshsm_protocol::codec::Reader;
use sshsm_protocol::device_info::DeviceInfo;
use sshsm_protocol::option::{AUDITED_COMMANDS, DeviceOption};
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

const FULL: Result<Vec<u8>, DeviceError> = Err(DeviceError::LogFull);
const INVALID: Result<Vec<u8>, DeviceError> = Err(DeviceError::InvalidData);
const OK: Result<Vec<u8>, DeviceError> = Ok(Vec::new());

/// The whole log; its links are checked.
fn log(session: &mut Session, device: &mut ModelDevice) -> (LogHeader, Vec<LogEntry>) {
    let reply = session.send(device, Command::GetLogEntries, &[]).unwrap();
    let mut reader = Reader::new(&reply);
    let header = LogHeader::decode(&mut reader).unwrap();
    let entries: Vec<_> = (0..header.entries).map(|_| LogEntry::decode(&mut reader).unwrap()).collect();
    reader.finish().unwrap();
    for pair in entries.windows(2) {
        assert!(pair[1].follows(&pair[0].digest), "{pair:?}");
        assert_eq!(pair[1].number, pair[0].number.wrapping_add(1));
    }
    (header, entries)
}

fn entries(session: &mut Session, device: &mut ModelDevice) -> Vec<LogEntry> {
    log(session, device).1
}

/// `command, length, session, target, second, result` of an entry.
fn fields(entry: &LogEntry) -> (u8, u16, u16, u16, u16, u8) {
    (entry.command, entry.length, entry.session_key, entry.target_key, entry.second_key, entry.result)
}

fn set(
    session: &mut Session,
    device: &mut ModelDevice,
    option: DeviceOption,
    value: &[u8],
) -> Result<Vec<u8>, DeviceError> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    session.send(device, Command::SetOption, &[&[option.code()], length.as_slice(), value].concat())
}

fn get(session: &mut Session, device: &mut ModelDevice, option: DeviceOption) -> Vec<u8> {
    session.send(device, Command::GetOption, &[option.code()]).unwrap()
}

fn audit_all(session: &mut Session, device: &mut ModelDevice) {
    let codes = AUDITED_COMMANDS.into_iter().filter(|code| ![0x01, 0x05, 0x06, 0x4d].contains(code));
    let value: Vec<_> = codes.flat_map(|code| [code, 1]).collect();
    assert_eq!(set(session, device, DeviceOption::CommandAudit, &value), OK);
}

fn force(session: &mut Session, device: &mut ModelDevice) {
    assert_eq!(set(session, device, DeviceOption::ForceAudit, &[1]), OK);
}

fn consume(session: &mut Session, device: &mut ModelDevice, number: u16) -> Result<Vec<u8>, DeviceError> {
    session.send(device, Command::SetLogIndex, &number.to_be_bytes())
}

fn consume_all(session: &mut Session, device: &mut ModelDevice) {
    if let Some(last) = entries(session, device).last() {
        assert_eq!(consume(session, device, last.number), OK);
    }
}

fn log_used(device: &mut ModelDevice) -> (u8, u8) {
    let reply = plain(device, Command::GetDeviceInfo.code(), &[]).unwrap();
    let info = DeviceInfo::decode(&reply).unwrap();
    (info.log_used, info.log_total)
}

/// Fills the log with entries that are not lost.
fn fill(session: &mut Session, device: &mut ModelDevice) {
    force(session, device);
    while log_used(device).0 < 62 {
        session.send(device, Command::Echo, b"x").unwrap();
    }
}

fn restart(device: &mut ModelDevice) -> ModelDevice {
    start(device.flash().unwrap().copy())
}

fn template(id: u16) -> Vec<u8> {
    Object::new(id, Algorithm::TemplateSsh, &[]).with(b"any bytes")
}

#[test]
fn a_fresh_device_has_logged_its_reset_and_its_boot_and_nothing_else() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    admin.send(&mut device, Command::Echo, b"x").unwrap();
    let reply = admin.send(&mut device, Command::GetLogEntries, &[]).unwrap();
    assert_eq!(reply[..5], [0, 0, 0, 0, 2]);
    assert_eq!(reply[5..21], [[0, 1].as_slice(), &[0xff; 14]].concat());
    assert_eq!(reply[37..53], [0, 2, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(log_used(&mut device), (2, 62));
    assert_eq!(entries(&mut admin, &mut device).len(), 2);
}

#[test]
fn a_reset_ends_options_and_log_as_if_the_device_were_fresh() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let digests = |entries: Vec<LogEntry>| entries.into_iter().map(|entry| entry.digest).collect::<Vec<_>>();
    let before = digests(entries(&mut admin, &mut device));
    audit_all(&mut admin, &mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::ForceAudit, &[2]), OK);
    assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), OK);
    for mut device in [restart(&mut device), device] {
        let mut admin = Session::admin(&mut device);
        let entries = entries(&mut admin, &mut device);
        assert_eq!((entries[0].number, entries[1].number), (1, 2));
        assert_eq!(fields(&entries[0]), fields(&LogEntry::RESET));
        assert!(entries[1..].iter().all(|entry| fields(entry) == fields(&LogEntry::BOOT)));
        assert_ne!(digests(entries)[0], before[0], "each log begins with its own seed");
        assert_eq!(get(&mut admin, &mut device, DeviceOption::ForceAudit), [0]);
        let commands = get(&mut admin, &mut device, DeviceOption::CommandAudit);
        assert!(commands.chunks(2).all(|pair| pair[1] == 0));
    }
}

#[test]
fn an_entry_says_who_did_what_to_which_keys_and_how_it_ended() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    consume_all(&mut admin, &mut device);
    let none = LogEntry::NO_KEY;
    let key = Object::new(0, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[]);
    let id = admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    let assigned = u16::from_be_bytes(id.try_into().unwrap());
    let rights = Capabilities::of(&[Capability::GetLogEntries]);
    let mut auditor =
        put_authentication_key(&mut device, &mut admin, 9, b"auditor", Domains::ALL, rights, rights);
    let refused = Err(DeviceError::InsufficientPermissions);
    assert_eq!(auditor.send(&mut device, Command::SignEddsa, &[0, 5, 1, 2]), refused);
    assert_eq!(auditor.send(&mut device, Command::GetObjectInfo, &[0, 7]), Err(DeviceError::WrongLength));
    assert_eq!(auditor.send(&mut device, Command::CloseSession, &[]), OK);
    let seen: Vec<_> = entries(&mut admin, &mut device).iter().map(fields).collect();
    assert_eq!(
        seen,
        [
            (0x67, 2, 1, none, none, 0xe7),
            (0x46, 53, 1, assigned, none, 0xc6),
            (0x44, 93, 1, 9, none, 0xc4),
            (0x03, 10, none, 9, none, 0x83),
            (0x04, 17, none, 9, none, 0x84),
            (0x6a, 4, 9, 5, none, 0x09),
            (0x4e, 2, 9, 7, none, 0x08),
            (0x40, 0, 9, none, none, 0xc0),
        ]
    );
}

#[test]
fn failed_authentications_are_logged_with_the_key_that_was_tried() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    consume_all(&mut admin, &mut device);
    assert!(Session::create(&mut device, 77, b"x").is_err());
    let mut session = Session::create(&mut device, 1, b"password").unwrap();
    let mut message = session.0.authenticate();
    message[5] ^= 1;
    // A session that was created, and one that does not exist.
    for id in [message[3], 9] {
        message[3] = id;
        plain(&mut device, message[0], &message[3..]).unwrap_err();
    }
    let none = LogEntry::NO_KEY;
    let seen: Vec<_> = entries(&mut admin, &mut device)[1..].iter().map(fields).collect();
    assert_eq!(
        seen,
        [
            (0x03, 10, none, 77, none, 0x0b),
            (0x03, 10, none, 1, none, 0x83),
            (0x04, 17, none, 1, none, 0x04),
            (0x04, 17, none, none, none, 0x03),
        ]
    );
}

#[test]
fn the_systick_counts_from_boot_in_units_of_10_ms() {
    let clock = Clock::default();
    clock.advance(Duration::from_secs(5));
    let mut device = Device::start(Model::new(clock.clone()), Flash::blank()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[0x01, 1]), OK);
    clock.advance(Duration::from_millis(1239));
    admin.send(&mut device, Command::Echo, b"x").unwrap();
    assert_eq!(entries(&mut admin, &mut device)[2].systick, 123);
}

#[test]
fn a_command_is_logged_from_when_its_option_is_on_until_it_is_off() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let echo = Command::Echo.code();
    let count = |admin: &mut Session, device: &mut ModelDevice| {
        admin.send(device, Command::Echo, b"x").unwrap();
        plain(device, echo, b"xy").unwrap();
        entries(admin, device).len()
    };
    assert_eq!(count(&mut admin, &mut device), 2);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[echo, 1]), OK);
    assert_eq!(get(&mut admin, &mut device, DeviceOption::CommandAudit)[..2], [echo, 1]);
    assert_eq!(count(&mut admin, &mut device), 4);
    let seen = entries(&mut admin, &mut device);
    let none = LogEntry::NO_KEY;
    assert_eq!(fields(&seen[2]), (echo, 1, 1, none, none, 0x81));
    assert_eq!(fields(&seen[3]), (echo, 2, none, none, none, 0x81));
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[echo, 0]), OK);
    assert_eq!(count(&mut admin, &mut device), 4);
}

#[test]
fn reading_the_log_and_device_info_leave_no_entry_even_under_forced_audit() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[0x4d, 1]), OK);
    force(&mut admin, &mut device);
    let before = entries(&mut admin, &mut device);
    admin.send(&mut device, Command::GetDeviceInfo, &[]).unwrap();
    assert_eq!(entries(&mut admin, &mut device), before);
}

#[test]
fn without_force_the_oldest_entries_give_way() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    for _ in 0..150 {
        admin.send(&mut device, Command::GetStorageInfo, &[]).unwrap();
    }
    let seen = entries(&mut admin, &mut device);
    assert_eq!((seen[0].number, seen.len()), (152 - 61, 62));
    assert_eq!(log_used(&mut device), (62, 62));
    let mut device = restart(&mut device);
    let mut admin = Session::admin(&mut device);
    let later = entries(&mut admin, &mut device);
    assert_eq!(later[..59], seen[3..], "a boot and an opened session later");
}

#[test]
fn consuming_drops_entries_up_to_the_index_and_is_logged_after_them() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    for _ in 0..10 {
        admin.send(&mut device, Command::GetStorageInfo, &[]).unwrap();
    }
    assert_eq!(consume(&mut admin, &mut device, 10), OK);
    let seen = entries(&mut admin, &mut device);
    assert_eq!((seen[0].number, seen.len()), (11, 3));
    assert_eq!((seen[2].number, seen[2].command), (13, 0x67));
    assert_eq!(consume(&mut admin, &mut device, 10), INVALID, "consumed before");
    assert_eq!(consume(&mut admin, &mut device, 15), INVALID, "this very command's number");
    consume_all(&mut admin, &mut device);
    let left = entries(&mut admin, &mut device);
    assert_eq!((left[0].number, left.len()), (16, 1));
}

#[test]
fn an_empty_log_continues_its_chain_after_a_restart() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let last = entries(&mut admin, &mut device)[1];
    consume_all(&mut admin, &mut device);
    assert_eq!(log_used(&mut device), (0, 62));
    let mut device = restart(&mut device);
    assert_eq!(log_used(&mut device), (1, 62));
    let mut admin = Session::admin(&mut device);
    let seen = entries(&mut admin, &mut device);
    assert_eq!((seen[0].number, fields(&seen[0])), (3, fields(&LogEntry::BOOT)));
    assert!(seen[0].follows(&last.digest));
}

#[test]
fn numbers_go_on_at_0_after_65535() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[0x01, 1]), OK);
    consume_all(&mut admin, &mut device);
    for _ in 3..65540 {
        admin.send(&mut device, Command::Echo, b"x").unwrap();
    }
    assert_eq!(entries(&mut admin, &mut device).last().unwrap().number, 3);
    let seen = entries(&mut admin, &mut device);
    assert_eq!(seen.len(), 62);
    let mut device = restart(&mut device);
    let mut admin = Session::admin(&mut device);
    assert_eq!(entries(&mut admin, &mut device)[..61], seen[1..]);
    assert_eq!(consume(&mut admin, &mut device, 65535), OK);
    assert_eq!(entries(&mut admin, &mut device)[0].number, 0);
}

#[test]
fn a_full_log_under_force_refuses_all_but_sessions_and_what_empties_it() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    fill(&mut admin, &mut device);
    let before = entries(&mut admin, &mut device);
    for &command in Command::ALL {
        let allowed = [0x03, 0x04, 0x0a, 0x40, 0x06, 0x4d, 0x67, 0x05].contains(&command.code());
        if !allowed {
            // An empty payload, which most refuse: nothing is looked at before the log.
            assert_eq!(admin.send(&mut device, command, &[]).unwrap_err(), {
                match command.channel() {
                    sshsm_protocol::command::Channel::Plain => DeviceError::InvalidCommand,
                    _ => DeviceError::LogFull,
                }
            });
        }
    }
    assert_eq!(plain(&mut device, Command::Echo.code(), b"x"), FULL);
    assert_eq!(log_used(&mut device), (62, 62));
    assert_eq!(entries(&mut admin, &mut device), before, "a refused command is not logged");
    let mut second = Session::admin(&mut device);
    assert_eq!(second.send(&mut device, Command::Echo, b"x"), FULL);
    assert_eq!(second.send(&mut device, Command::CloseSession, &[]), OK);
    assert_eq!(consume(&mut admin, &mut device, 9999), INVALID);
    assert_eq!(entries(&mut admin, &mut device), before, "nothing was lost");
    consume_all(&mut admin, &mut device);
    let seen = entries(&mut admin, &mut device);
    assert_eq!((seen[0].command, seen.len()), (0x67, 1));
    assert!(seen[0].follows(&before[61].digest));
    admin.send(&mut device, Command::Echo, b"x").unwrap();
}

#[test]
fn boots_and_authentications_without_room_are_counted_until_the_log_is_consumed() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    fill(&mut admin, &mut device);
    let before = entries(&mut admin, &mut device);
    let mut failing = Session::create(&mut device, 1, b"password").unwrap().0.authenticate();
    failing[5] ^= 1;
    plain(&mut device, failing[0], &failing[3..]).unwrap_err();
    let mut device = restart(&mut restart(&mut device));
    let mut admin = Session::admin(&mut device);
    let (header, seen) = log(&mut admin, &mut device);
    assert_eq!((header.unlogged_boots, header.unlogged_authentications), (2, 2));
    assert_eq!(seen, before);
    consume_all(&mut admin, &mut device);
    for mut device in [restart(&mut device), device] {
        let mut admin = Session::admin(&mut device);
        let (header, _) = log(&mut admin, &mut device);
        assert_eq!((header.unlogged_boots, header.unlogged_authentications), (0, 0));
    }
}

/// The scenario of Yubico's own device test.
#[test]
fn a_forced_log_fills_is_read_and_goes_on() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    let last = *entries(&mut admin, &mut device).last().unwrap();
    consume_all(&mut admin, &mut device);
    force(&mut admin, &mut device);
    let key = Object::new(5, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[]);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    let signed: Vec<_> =
        (0..64).map(|_| admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]).map(drop)).collect();
    assert_eq!(signed[63], Err(DeviceError::LogFull));
    assert_eq!(signed.iter().filter(|answer| answer.is_ok()).count(), 62 - 3);
    let seen = entries(&mut admin, &mut device);
    assert!(seen[0].follows(&last.digest));
    consume_all(&mut admin, &mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::ForceAudit, &[0]), OK);
    for _ in 0..64 {
        admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]).unwrap();
    }
}

#[test]
fn the_command_audit_option_lists_every_command_in_the_hardwares_order() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    // As a YubiHSM 2 prints it.
    let expected = "0100030004000500060007000900080040004100420043004400450046004700550056004800490057004a004b00\
        4c004d0067004e004f0050005100520053005400580059005a005b005c005d005e005f006000610062006300640065006600680069006a\
        006b006c000a006d006e006f0070007100720073007400750076007700";
    let value = get(&mut admin, &mut device, DeviceOption::CommandAudit);
    assert_eq!(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
}

#[test]
fn command_audit_is_changed_wholly_or_not_at_all() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let before = get(&mut admin, &mut device, DeviceOption::CommandAudit);
    let refused: [&[u8]; 7] = [
        &[0x4f, 1, 0x05, 1],
        &[0x4f, 1, 0x7f, 1],
        &[0x4f, 1, 0x02, 0],
        &[0x4f, 1, 0x50, 3],
        &[0x4f, 1, 0x50],
        &[0x4f, 2, 0x4f, 1],
        &[0x4f, 2, 0x4f, 0],
    ];
    for value in refused {
        assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, value), INVALID, "{value:x?}");
    }
    assert_eq!(get(&mut admin, &mut device, DeviceOption::CommandAudit), before);
}

#[test]
fn what_is_fixed_stays_until_a_reset() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let commands = DeviceOption::CommandAudit;
    assert_eq!(set(&mut admin, &mut device, commands, &[0x01, 2]), OK);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::ForceAudit, &[2]), OK);
    let mut device = restart(&mut device);
    let mut admin = Session::admin(&mut device);
    for mode in [0, 1] {
        assert_eq!(set(&mut admin, &mut device, commands, &[0x4f, 1, 0x01, mode]), INVALID);
        assert_eq!(set(&mut admin, &mut device, DeviceOption::ForceAudit, &[mode]), INVALID);
    }
    assert_eq!(set(&mut admin, &mut device, commands, &[0x01, 2]), OK);
    assert_eq!(get(&mut admin, &mut device, commands)[..2], [0x01, 2]);
    assert_eq!(get(&mut admin, &mut device, DeviceOption::ForceAudit), [2]);
}

#[test]
fn malformed_and_unknown_options_are_refused() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut send = |command, payload: &[u8]| admin.send(&mut device, command, payload);
    for option in [0, 2, 6, 5] {
        assert_eq!(send(Command::GetOption, &[option]), INVALID);
        assert_eq!(send(Command::SetOption, &[option, 0, 1, 1]), INVALID);
    }
    assert_eq!(send(Command::SetOption, &[1, 0, 1, 3]), INVALID);
    assert_eq!(send(Command::SetOption, &[1, 0, 2, 1, 1]), INVALID);
    assert_eq!(send(Command::SetOption, &[1, 0, 0]), INVALID);
    assert_eq!(send(Command::SetOption, &[1, 0, 2, 1]), Err(DeviceError::WrongLength));
    assert_eq!(send(Command::SetOption, &[1, 0, 0, 1]), Err(DeviceError::WrongLength));
    assert_eq!(send(Command::GetOption, &[1]), Ok(vec![0]));
}

#[test]
fn the_log_and_the_options_need_their_capabilities() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let nothing = Capabilities::NONE;
    let mut session =
        put_authentication_key(&mut device, &mut admin, 9, b"x", Domains::ALL, nothing, nothing);
    let commands: [(Command, &[u8]); 4] = [
        (Command::GetLogEntries, &[]),
        (Command::SetLogIndex, &[0, 1]),
        (Command::SetOption, &[1, 0, 1, 1]),
        (Command::GetOption, &[1]),
    ];
    for (command, payload) in commands {
        let refused = Err(DeviceError::InsufficientPermissions);
        assert_eq!(session.send(&mut device, command, payload), refused, "{command}");
    }
}

#[test]
fn algorithms_are_toggled_on_a_fresh_device_only_and_listed_as_in_device_info() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let reply = plain(&mut device, Command::GetDeviceInfo.code(), &[]).unwrap();
    let listed = DeviceInfo::decode(&reply).unwrap().algorithms.to_vec();
    let toggle = DeviceOption::AlgorithmToggle;
    let expected: Vec<_> = listed.iter().flat_map(|code| [*code, 1]).collect();
    assert_eq!(get(&mut admin, &mut device, toggle), expected);
    let p256 = Algorithm::Ecp256.code();
    let refused: [&[u8]; 4] = [
        &[p256, 0, Algorithm::Aes128YubicoAuthentication.code(), 0],
        &[p256, 0, 200, 0],
        &[p256, 3],
        &[p256, 0, p256],
    ];
    for value in refused {
        assert_eq!(set(&mut admin, &mut device, toggle, value), INVALID, "{value:?}");
    }
    assert_eq!(get(&mut admin, &mut device, toggle), expected);
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 0]), OK);
    let key = |algorithm| Object::new(5, algorithm, &[]).with(&[]);
    let generate = Command::GenerateAsymmetricKey;
    let disabled = Err(DeviceError::AlgorithmDisabled);
    assert_eq!(admin.send(&mut device, generate, &key(Algorithm::Ecp256)), disabled);
    let mut device = restart(&mut device);
    let mut admin = Session::admin(&mut device);
    assert_eq!(admin.send(&mut device, generate, &key(Algorithm::Ecp256)), disabled);
    admin.send(&mut device, generate, &key(Algorithm::Ecp384)).unwrap();
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 1]), INVALID, "not fresh");
    admin.send(&mut device, Command::DeleteObject, &[0, 5, 3]).unwrap();
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 1]), OK);
    admin.send(&mut device, generate, &key(Algorithm::Ecp256)).unwrap();
}

#[test]
fn an_algorithm_that_is_fixed_stays_enabled_until_a_reset() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let toggle = DeviceOption::AlgorithmToggle;
    let p256 = Algorithm::Ecp256.code();
    let mode = |admin: &mut Session, device: &mut ModelDevice| {
        get(admin, device, toggle).chunks(2).find(|pair| pair[0] == p256).unwrap()[1]
    };
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 0]), OK);
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 2]), OK, "from off, too");
    let mut device = restart(&mut device);
    let mut admin = Session::admin(&mut device);
    assert_eq!(mode(&mut admin, &mut device), 2);
    for weaker in [0, 1] {
        assert_eq!(set(&mut admin, &mut device, toggle, &[p256, weaker]), INVALID);
    }
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 2]), OK);
    let key = Object::new(5, Algorithm::Ecp256, &[]).with(&[]);
    admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    let p384 = Algorithm::Ecp384.code();
    assert_eq!(set(&mut admin, &mut device, toggle, &[p384, 2]), INVALID, "not fresh");
    assert_eq!(set(&mut admin, &mut device, toggle, &[p384, 1, p256, 2]), OK, "their current values");
    admin.send(&mut device, Command::ResetDevice, &[]).unwrap();
    let mut admin = Session::admin(&mut device);
    assert_eq!(mode(&mut admin, &mut device), 1);
    assert_eq!(set(&mut admin, &mut device, toggle, &[p256, 0]), OK);
}

#[test]
fn session_messages_are_listed_as_not_audited_and_nothing_else_can_be_said_of_them() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let commands = DeviceOption::CommandAudit;
    assert_eq!(set(&mut admin, &mut device, commands, &[0x05, 0]), OK);
    for mode in [1, 2, 3] {
        assert_eq!(set(&mut admin, &mut device, commands, &[0x05, mode]), INVALID);
    }
}

#[test]
fn options_that_earlier_firmware_stored_are_read() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    assert_eq!(set(&mut admin, &mut device, DeviceOption::CommandAudit, &[0x4f, 1]), OK);
    let options = get(&mut admin, &mut device, DeviceOption::CommandAudit);
    let flash = device.flash().unwrap().clone();
    let mut store = Store::mount(flash.clone(), &root_key(), |_| Ok(())).unwrap();
    let stored = store.record(Record::Options).unwrap().unwrap();
    // Without the options templates and algorithm-toggle's 02.
    store.put_record(Record::Options, &stored[..1 + AUDITED_COMMANDS.len() + 8 + 2]).unwrap();
    let mut device = try_start(flash).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    assert_eq!(get(&mut admin, &mut device, DeviceOption::CommandAudit), options);
    assert_eq!(get(&mut admin, &mut device, DeviceOption::Templates), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the options are, on a fresh device and on one with a key.
    #[test]
    fn writing_back_what_was_read_of_an_option_works_and_changes_nothing(
        changes in prop::collection::vec((prop::sample::select(vec![1_u8, 3, 4, 0x80, 0x81]), any::<[u8; 2]>()), 0..40),
        object in any::<bool>(),
        touched in any::<bool>(),
    ) {
        let mut device = fresh();
        device.platform().presence = Presence::Confirmed;
        let mut admin = Session::admin(&mut device);
        for (option, [key, mode]) in changes {
            let value = match option {
                // Of commands and algorithms that there are.
                3 => vec![AUDITED_COMMANDS[usize::from(key) % AUDITED_COMMANDS.len()], mode % 3],
                4 => vec![1 + key % 55, mode % 3],
                0x80 => vec![mode % 3, key],
                _ => vec![mode % 3],
            };
            let option = DeviceOption::from_code(option).unwrap();
            let _ = set(&mut admin, &mut device, option, &value);
        }
        if object {
            let template = Object::new(9, Algorithm::OpaqueData, &[]).with(&[1]);
            let _ = admin.send(&mut device, Command::PutOpaque, &template);
        }
        device.platform().presence = if touched { Presence::Confirmed } else { Presence::TimedOut };
        for option in [1, 3, 4, 0x80, 0x81].map(|code| DeviceOption::from_code(code).unwrap()) {
            consume_all(&mut admin, &mut device);
            let value = get(&mut admin, &mut device, option);
            prop_assert_eq!(set(&mut admin, &mut device, option, &value), OK, "{:?}: {:02x?}", option, value);
            prop_assert_eq!(get(&mut admin, &mut device, option), value);
            if matches!(option, DeviceOption::CommandAudit | DeviceOption::AlgorithmToggle) {
                for pair in get(&mut admin, &mut device, option).chunks(2) {
                    if log_used(&mut device).0 > 50 {
                        consume_all(&mut admin, &mut device);
                    }
                    prop_assert_eq!(set(&mut admin, &mut device, option, pair), OK, "{:?}: {:02x?}", option, pair);
                }
            }
        }
    }
}

#[test]
fn an_operation_with_a_disabled_algorithm_is_refused_once_its_key_is_found() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let value = [Algorithm::EcdsaSha384.code(), 0];
    assert_eq!(set(&mut admin, &mut device, DeviceOption::AlgorithmToggle, &value), OK);
    for (id, capabilities) in [(5, [Capability::SignEcdsa].as_slice()), (6, &[])] {
        let key = Object::new(id, Algorithm::Ecp256, capabilities).with(&[]);
        admin.send(&mut device, Command::GenerateAsymmetricKey, &key).unwrap();
    }
    let mut sign = |id, length: usize| {
        let payload = [&[0, id], vec![1; length].as_slice()].concat();
        admin.send(&mut device, Command::SignEcdsa, &payload).map(drop)
    };
    assert_eq!(sign(5, 48), Err(DeviceError::AlgorithmDisabled));
    assert_eq!(sign(6, 48), Err(DeviceError::AlgorithmDisabled), "before the key's capability");
    assert_eq!(sign(7, 48), Err(DeviceError::ObjectNotFound), "after its existence");
    assert_eq!(sign(6, 32), Err(DeviceError::InsufficientPermissions));
    assert_eq!(sign(5, 32), Ok(()));
}

/// Puts a template with the power cut at every step. Afterwards it is stored only if it is logged, and, if it
/// was acknowledged, logged with its result.
#[test]
fn under_force_nothing_happens_unlogged_wherever_the_power_is_cut() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    force(&mut admin, &mut device);
    let chip = device.flash().unwrap().copy();
    let mut unexecuted = 0;
    for power in 0.. {
        let flash = Flash::of(chip.clone());
        let mut device = try_start(flash.clone()).ok().unwrap();
        let mut admin = Session::admin(&mut device);
        flash.0.borrow_mut().power = Some(power);
        let answer = admin.send(&mut device, Command::PutTemplate, &template(4));
        let complete = flash.0.borrow().power != Some(0) || answer.is_ok();

        let mut device = start(flash.copy());
        let mut admin = Session::admin(&mut device);
        let stored = admin.send(&mut device, Command::GetTemplate, &[0, 4]).is_ok();
        let logged: Vec<_> = entries(&mut admin, &mut device)
            .into_iter()
            .filter(|entry| entry.command == Command::PutTemplate.code() && entry.target_key == 4)
            .collect();
        assert!(logged.len() <= 1);
        assert!(!stored || logged.len() == 1, "stored but not logged, cut at {power}");
        match answer {
            Ok(_) => assert_eq!(logged[0].result, 0xde, "cut at {power}"),
            Err(error) => assert_eq!(error, DeviceError::StorageFailed),
        }
        unexecuted += usize::from(logged.iter().any(|entry| entry.result == LogEntry::UNEXECUTED && stored));
        if complete {
            break;
        }
    }
    assert!(unexecuted > 0, "some cut fell between the template and its result");
}

#[test]
fn an_answer_whose_entry_cannot_be_stored_is_not_given() {
    let flash = Flash::blank();
    let mut device = try_start(flash.clone()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    let failed = Err(DeviceError::StorageFailed);
    assert_eq!(admin.send(&mut device, Command::GetPseudoRandom, &[0, 4]).map(|bytes| bytes.len()), Ok(4));
    audit_all(&mut admin, &mut device);
    let created = Session::create(&mut device, 1, b"password").unwrap();
    flash.0.borrow_mut().power = Some(0);
    assert_eq!(admin.send(&mut device, Command::GetPseudoRandom, &[0, 4]), failed);
    // A device that could not write its log does not work until it is restarted.
    assert_eq!(admin.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
    assert_eq!(Session::create(&mut device, 1, b"password").err(), Some(DeviceError::StorageFailed));
    assert!(created.authenticate(&mut device).is_err());
}

#[test]
fn a_session_whose_authentication_cannot_be_logged_does_not_exist() {
    let flash = Flash::blank();
    let mut device = try_start(flash.clone()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    audit_all(&mut admin, &mut device);
    let mut session = Session::create(&mut device, 1, b"password").unwrap();
    let message = session.0.authenticate();
    flash.0.borrow_mut().power = Some(0);
    assert_eq!(plain(&mut device, message[0], &message[3..]), Err(DeviceError::StorageFailed));
    assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
}

/// The store sets room aside for the log.
#[test]
fn a_full_store_does_not_keep_commands_from_being_logged() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let object = |id| Object::new(id, Algorithm::TemplateSsh, &[]).with(&[0x5a; 3000]);
    let stored = (2..).take_while(|&id| admin.send(&mut device, Command::PutTemplate, &object(id)).is_ok());
    assert!(stored.count() > 20);
    force(&mut admin, &mut device);
    for _ in 0..5 {
        while admin.send(&mut device, Command::Echo, b"x") != FULL {}
        assert_eq!(log_used(&mut device), (62, 62));
        consume_all(&mut admin, &mut device);
    }
}
