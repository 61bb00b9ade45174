//! The real firmware on an emulated board, spoken to over its serial port.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sshsm_protocol::frame::{MAX_MESSAGE, RESPONSE_FLAG};
use sshsm_protocol::link::{Activity, Answer, LinkError, Request, ResetReason};
use sshsm_protocol::{Algorithm, Command, DeviceError};
use sshsm_tests::debugger::Debugger;
use sshsm_tests::link::Link;
use sshsm_tests::qemu::Board;
use sshsm_tests::{needs, process::wait_for};
use std::fs;
use std::time::Duration;

#[test]
fn a_board_keeps_its_identity_and_carries_the_longest_message() {
    let device = tempfile::tempdir().unwrap();
    let serial = {
        let board = needs!(Board::start(device.path()));
        let mut link = Link::open(board.port());
        let serial = link.hello();
        let longest = [&[1, 7, 255], vec![0x5a; 2047].as_slice()].concat();
        assert_eq!(link.transact(&longest)[3..], longest[3..]);
        serial
    };
    let board = needs!(Board::start(device.path()));
    assert_eq!(Link::open(board.port()).hello(), serial);
    let other = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(other.path()));
    assert_ne!(Link::open(board.port()).hello(), serial);
}

#[test]
fn a_board_tells_its_status_while_it_computes() {
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(device.path()));
    let mut link = Link::open(board.port());
    let mut session = link.session();
    let label = [b'x'; 40];
    let object = [[0, 5].as_slice(), &label, &[0xff; 2], &[0; 8], &[Algorithm::Rsa3072.code()]].concat();
    let mut message = [0; MAX_MESSAGE];
    let length = session.seal(Command::GenerateAsymmetricKey, &object, &mut message).unwrap();
    let (mut answer, asked) = link.transact_and_watch(&message[..length]);
    let frame = session.open(&mut answer).unwrap();
    assert_eq!(
        (frame.code, frame.payload),
        (Command::GenerateAsymmetricKey.code() | RESPONSE_FLAG, &[0, 5][..])
    );
    assert!(asked >= 3, "only {asked} times");
}

#[test]
fn a_board_that_a_session_tells_to_starts_again_and_says_why() {
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(device.path()));
    let mut link = Link::open(board.port());
    let serial = link.hello();
    let mut session = link.session();
    let before = link.status();
    assert_eq!((before.reset, before.sessions), (ResetReason::PowerOn, 1));
    // What version 1 of the link called a reboot.
    for boot in [0_u8, 1] {
        link.ask_raw(&(4_u8, boot), |answer| assert_eq!(answer, Answer::Error(LinkError::UnknownRequest)));
    }
    let none = (0x7f, vec![DeviceError::NoBootLoader.code()]);
    assert_eq!(link.command(&mut session, Command::StartBootLoader, &[], || {}), none);
    assert_eq!(link.command(&mut session, Command::RestartDevice, &[], || {}), (0xfb, vec![]));
    // Bytes that arrive while it starts may be lost.
    let after = wait_for("the board", || {
        std::thread::sleep(Duration::from_millis(300));
        Some(link.status())
    });
    assert_eq!((after.reset, after.sessions), (ResetReason::Requested, 0));
    assert_eq!(link.hello(), serial);
    assert!(!board.said().contains("panicked"), "{}", board.said());
}

#[test]
fn a_used_up_stack_ends_with_memory_cleared_and_a_restart_that_says_why() {
    const FLASH: u32 = 0x1000_0000;
    const MEMORY: u32 = 0x3800_0000;
    const LENGTH: u32 = 520 * 1024;
    const STACK_POINTER: usize = 13;
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start_debugged(device.path()));
    let mut link = Link::open(board.port());
    let serial = link.hello();
    link.session();
    let mut debugger = Debugger::attach(device.path());
    let reset_handler = debugger.word(FLASH + 4) & !1;
    assert!(debugger.read(MEMORY, LENGTH).iter().filter(|byte| **byte != 0).count() > 4096);
    // There is no memory for the next push, be it by a function, an interrupt, or the fault itself.
    debugger.set_register(STACK_POINTER, MEMORY + 8);
    debugger.run_to(reset_handler);
    let memory = debugger.read(MEMORY, LENGTH);
    let left: Vec<_> = memory.chunks(4).filter(|word| **word != [0; 4]).collect();
    assert_eq!(left.len(), 1, "the reason for the next start, and no more: {left:02x?}");
    debugger.detach();
    let status = wait_for("the board", || {
        std::thread::sleep(Duration::from_millis(300));
        Some(link.status())
    });
    assert_eq!((status.reset, status.sessions), (ResetReason::Panic, 0));
    assert_eq!(link.hello(), serial);
    assert!(board.said().contains("a fault"), "{}", board.said());
}

#[test]
fn a_board_whose_noise_is_bad_says_so_and_carries_out_nothing() {
    let long = [vec![0; 4096], (0..=255).collect::<Vec<u8>>().repeat(2)];
    for (noise, defect) in long.iter().zip(["repeats itself", "reports a failure"]) {
        let device = tempfile::tempdir().unwrap();
        fs::write(device.path().join("noise"), noise).unwrap();
        let board = needs!(Board::start(device.path()));
        let mut link = Link::open(board.port());
        assert_eq!(link.hello().0, "qemu");
        assert_eq!(link.status().activity, Activity::Failed);
        let why = link.ask(&Request::Log { from: 0 }, |answer| format!("{answer:?}"));
        assert!(why.contains(defect), "{why}");
        let refused =
            link.ask(&Request::Transact(&[6, 0, 0]), |answer| answer == Answer::Error(LinkError::Failed));
        assert!(refused);
        // It remains in this state, and is not restarted over and over.
        std::thread::sleep(Duration::from_millis(500));
        let status = link.status();
        assert_eq!((status.activity, status.reset), (Activity::Failed, ResetReason::PowerOn));
    }
}

#[test]
fn a_board_says_which_image_it_runs_and_a_releases_checksums_have_it() {
    let image = needs!(sshsm_tests::usb_board::image("qemu.bin"));
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(device.path()));
    sshsm_tests::sums::compare(board.port(), &image);
}
