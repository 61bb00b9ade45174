//! What ends a device's run: a session with the right, and for the boot loader, which can expose the whole
//! flash, also a touch. And what a device reports about itself in a session.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::time::Duration;

use model::{IMAGE, ModelDevice, Session, fresh, plain, put_authentication_key};
use sshsm_firmware::platform::{Boot, Presence};
use sshsm_protocol::device_status::DeviceStatus;
use sshsm_protocol::option::{AuditMode, PresenceMode, UserPresence};
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Capabilities, Capability, Command, DeviceError, Domains};
#[cfg(feature = "audit")]
use sshsm_protocol::{audit::LogEntry, codec::Reader};

const START: Command = Command::StartBootLoader;

/// A device that is touched, or not.
fn device(presence: Presence) -> (ModelDevice, Session) {
    let mut device = fresh();
    device.platform().presence = presence;
    let session = Session::admin(&mut device);
    (device, session)
}

fn asked(device: &mut ModelDevice) -> Vec<u64> {
    std::mem::take(&mut device.platform().asked).iter().map(Duration::as_secs).collect()
}

/// Codes and results of the audit log, oldest first.
#[cfg(feature = "audit")]
fn log(device: &mut ModelDevice, session: &mut Session) -> Vec<(u8, u8)> {
    let log = session.send(device, Command::GetLogEntries, &[]).unwrap();
    log[5..].chunks(32).map(|entry| (entry[2], entry[11])).collect()
}

#[test]
fn nothing_that_comes_without_a_session_restarts_a_device() {
    let mut device = fresh();
    device.platform().presence = Presence::Confirmed;
    for code in 0..=u8::MAX {
        for payload in [&[][..], &[0], &[1], &[0, 1], &[0xff; 17]] {
            let _ = plain(&mut device, code, payload);
            assert_eq!(device.restart(), None, "{code:#04x} {payload:?}");
        }
    }
    assert_eq!(asked(&mut device), [], "and no touch is requested");
}

#[test]
fn the_boot_loader_starts_after_a_touch_whatever_the_option_says_and_every_session_ends() {
    let (mut device, mut session) = device(Presence::Confirmed);
    let mut other = Session::admin(&mut device);
    assert_eq!(device.restart(), None);
    assert_eq!(session.send(&mut device, START, &[]), Ok(vec![]), "answered first");
    assert_eq!(asked(&mut device), [15]);
    assert_eq!(device.restart(), Some(Boot::BootLoader));
    for session in [&mut session, &mut other] {
        assert_eq!(session.send(&mut device, Command::Echo, &[1]), Err(DeviceError::InvalidSession));
    }
}

#[test]
fn the_boot_loader_does_not_start_without_a_touch() {
    let (mut device, mut session) = device(Presence::TimedOut);
    assert_eq!(session.send(&mut device, START, &[]), Err(DeviceError::PresenceTimeout));
    assert_eq!((asked(&mut device), device.restart()), (vec![15], None));
    session.send(&mut device, Command::Echo, &[1]).unwrap();
}

#[test]
fn a_device_without_a_button_or_a_boot_loader_says_so_and_requests_no_touch() {
    let (mut buttonless, mut session) = device(Presence::Unsupported);
    assert_eq!(session.send(&mut buttonless, START, &[]), Err(DeviceError::NothingToTouch));
    assert_eq!((asked(&mut buttonless), buttonless.restart()), (vec![], None));
    let (mut simple, mut session) = device(Presence::Confirmed);
    simple.platform().boot_loader = false;
    assert_eq!(session.send(&mut simple, START, &[]), Err(DeviceError::NoBootLoader));
    assert_eq!((asked(&mut simple), simple.restart()), (vec![], None));
}

#[test]
fn a_session_without_the_right_restarts_nothing_and_requests_no_touch() {
    let (mut device, mut admin) = device(Presence::Confirmed);
    let all_but = Capabilities::from_bits(
        Capabilities::ALL.bits() & !Capabilities::of(&[Capability::ResetDevice]).bits(),
    );
    let mut signer = put_authentication_key(
        &mut device,
        &mut admin,
        2,
        b"signer",
        Domains::ALL,
        all_but,
        Capabilities::NONE,
    );
    for command in [START, Command::RestartDevice] {
        let refused = signer.send(&mut device, command, &[]);
        assert_eq!(refused, Err(DeviceError::InsufficientPermissions), "{command}");
    }
    assert_eq!((asked(&mut device), device.restart()), (vec![], None));
}

#[test]
fn a_restart_takes_a_session_and_no_touch() {
    let (mut device, mut session) = device(Presence::TimedOut);
    assert_eq!(session.send(&mut device, Command::RestartDevice, &[]), Ok(vec![]));
    assert_eq!((asked(&mut device), device.restart()), (vec![], Some(Boot::Firmware)));
    assert_eq!(session.send(&mut device, Command::Echo, &[1]), Err(DeviceError::InvalidSession));
}

#[test]
#[cfg(feature = "audit")]
fn starts_of_the_boot_loader_and_attempts_are_logged_even_without_auditing() {
    let (mut device, mut session) = device(Presence::TimedOut);
    assert_eq!(session.send(&mut device, START, &[]), Err(DeviceError::PresenceTimeout));
    device.platform().presence = Presence::Confirmed;
    session.send(&mut device, START, &[]).unwrap();
    let mut device = model::start(device.flash().unwrap().copy());
    let mut session = Session::admin(&mut device);
    let seen = log(&mut device, &mut session);
    assert_eq!(seen, [(0xff, 0xff), (0, 0), (0x7e, 0x40), (0x7e, 0xfe), (0, 0)]);
}

#[test]
#[cfg(feature = "audit")]
fn an_attempt_that_cannot_be_logged_starts_nothing() {
    let (mut device, mut session) = device(Presence::Confirmed);
    session.send(&mut device, Command::SetOption, &[1, 0, 1, 1]).unwrap();
    while session.send(&mut device, Command::Echo, &[1]).is_ok() {}
    for command in [START, Command::RestartDevice] {
        assert_eq!(session.send(&mut device, command, &[]), Err(DeviceError::LogFull));
    }
    assert_eq!((asked(&mut device), device.restart()), (vec![], None));
}

#[test]
fn a_strict_device_knows_none_of_our_commands_and_logs_none() {
    let (mut device, mut session) = device(Presence::Confirmed);
    device.platform().dialect = Dialect::Yubihsm2;
    for &command in Command::ALL.iter().filter(|command| command.is_extension()) {
        let payload = vec![0; *command.request_length().start()];
        assert_eq!(
            session.send(&mut device, command, &payload),
            Err(DeviceError::InvalidCommand),
            "{command}"
        );
    }
    assert_eq!((asked(&mut device), device.restart()), (vec![], None));
    #[cfg(feature = "audit")]
    assert_eq!(log(&mut device, &mut session), [(0xff, 0xff), (0, 0)]);
}

fn status<T>(device: &mut ModelDevice, session: &mut Session, then: impl FnOnce(DeviceStatus<'_>) -> T) -> T {
    then(DeviceStatus::decode(&session.send(device, Command::GetDeviceStatus, &[]).unwrap()).unwrap())
}

#[test]
fn a_device_says_to_any_session_which_image_it_runs_and_how_many_others_there_are() {
    let (mut device, mut admin) = device(Presence::Unsupported);
    let mut bare = put_authentication_key(
        &mut device,
        &mut admin,
        2,
        b"bare",
        Domains::single(3).unwrap(),
        Capabilities::NONE,
        Capabilities::NONE,
    );
    status(&mut device, &mut bare, |status| {
        assert_eq!((status.board, status.image), ("model", Some(IMAGE)));
        assert_eq!((status.sessions, status.half_open), (2, 0));
        assert_eq!((status.button, status.boot_loader, status.templates_frozen), (false, true, false));
        assert_eq!((status.force_audit, status.presence), (AuditMode::Off, UserPresence::DEFAULT));
        assert_eq!(status.firmware, sshsm_firmware::VERSION);
    });
    let half = Session::create(&mut device, 1, b"password").unwrap();
    admin.send(&mut device, Command::CloseSession, &[]).unwrap();
    status(&mut device, &mut bare, |status| assert_eq!((status.sessions, status.half_open), (1, 1)));
    half.authenticate(&mut device).unwrap();
    status(&mut device, &mut bare, |status| assert_eq!((status.sessions, status.half_open), (2, 0)));
    device.platform().clock.advance(sshsm_firmware::IDLE_TIMEOUT + Duration::from_secs(1));
    let mut fresh = Session::admin(&mut device);
    status(&mut device, &mut fresh, |status| assert_eq!((status.sessions, status.half_open), (1, 0)));
}

/// A session that may not read the log needs it to know which entries can be about its own command.
#[test]
#[cfg(feature = "audit")]
fn the_newest_entry_of_the_log_is_in_the_status_whether_it_was_read_or_not() {
    let (mut device, mut admin) = device(Presence::Unsupported);
    let mut bare = put_authentication_key(
        &mut device,
        &mut admin,
        2,
        b"bare",
        Domains::single(3).unwrap(),
        Capabilities::NONE,
        Capabilities::NONE,
    );
    let newest = |device: &mut ModelDevice, session: &mut Session| {
        let log = session.send(device, Command::GetLogEntries, &[]).unwrap();
        let mut reader = Reader::new(&log[log.len() - LogEntry::LENGTH..]);
        LogEntry::decode(&mut reader).unwrap()
    };
    let said = |device: &mut ModelDevice, session: &mut Session| status(device, session, |status| status.log);
    let boot = newest(&mut device, &mut admin);
    assert_eq!(said(&mut device, &mut bare), Some(boot.mark()));
    admin.send(&mut device, Command::SetLogIndex, &boot.number.to_be_bytes()).unwrap();
    assert_eq!(said(&mut device, &mut bare), Some(boot.mark()), "an entry that was read is known still");
    admin.send(&mut device, Command::SetOption, &[1, 0, 1, 1]).unwrap();
    admin.send(&mut device, Command::Echo, &[1]).unwrap();
    for _ in 0..3 {
        let said = said(&mut device, &mut bare);
        assert_eq!(
            said,
            Some(newest(&mut device, &mut admin).mark()),
            "asking is not logged, even if all else is"
        );
    }
    assert_eq!(newest(&mut device, &mut admin).command, Command::Echo.code());
}

#[test]
#[cfg(feature = "audit")]
fn the_options_that_matter_are_in_the_status_as_they_are() {
    let (mut device, mut admin) = device(Presence::Confirmed);
    device.platform().image = None;
    admin.send(&mut device, Command::SetOption, &[0x80, 0, 2, 1, 9]).unwrap();
    admin.send(&mut device, Command::SetOption, &[1, 0, 1, 2]).unwrap();
    admin.send(&mut device, Command::SetOption, &[0x81, 0, 1, 1]).unwrap();
    status(&mut device, &mut admin, |status| {
        let presence = UserPresence { mode: PresenceMode::Certificates, timeout: 9 };
        assert_eq!((status.force_audit, status.presence), (AuditMode::Fix, presence));
        assert_eq!((status.image, status.button, status.templates_frozen), (None, true, true));
    });
}
