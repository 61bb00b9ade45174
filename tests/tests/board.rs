//! The real firmware on an emulated board, spoken to over its serial port.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sshsm_protocol::channel::{AuthenticationKey, HostChannel};
use sshsm_protocol::frame::{Frame, MAX_MESSAGE, RESPONSE_FLAG};
use sshsm_protocol::link::{
    Activity, Answer, Boot, Deframer, MAX_FRAME, Request, ResetReason, Status, VERSION, decode, encode,
};
use sshsm_protocol::{Algorithm, Command};
use sshsm_tests::board::Board;
use sshsm_tests::{needs, process::wait_for};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

/// One end of the link: asks, and waits for the answer.
struct Link {
    port: File,
    deframer: Deframer,
    number: u32,
    unread: Vec<u8>,
}

impl Link {
    fn open(board: &Board) -> Self {
        let port = File::options().read(true).write(true).open(board.port()).unwrap();
        Self { port, deframer: Deframer::new(), number: 0, unread: Vec::new() }
    }

    fn send(&mut self, request: &Request<'_>) -> u32 {
        self.number += 1;
        let mut frame = [0; MAX_FRAME];
        let length = encode(self.number, request, &mut frame).unwrap();
        self.port.write_all(&frame[..length]).unwrap();
        self.number
    }

    /// The next answer, as `then` makes of it, and the request that it answers.
    fn receive<T>(&mut self, then: impl Fn(Answer<'_>) -> T) -> (u32, T) {
        loop {
            while !self.unread.is_empty() {
                let byte = self.unread.remove(0);
                if let Some((number, Some(answer))) = self.deframer.push(byte).and_then(decode) {
                    return (number, then(answer));
                }
            }
            let mut bytes = [0; 4096];
            let length = self.port.read(&mut bytes).unwrap();
            self.unread.extend_from_slice(&bytes[..length]);
        }
    }

    fn ask<T>(&mut self, request: &Request<'_>, then: impl Fn(Answer<'_>) -> T) -> T {
        let number = self.send(request);
        let (answered, answer) = self.receive(then);
        assert_eq!(answered, number);
        answer
    }

    /// The serial number.
    fn hello(&mut self) -> u32 {
        self.ask(&Request::Hello { minimum: 1, version: VERSION }, |answer| match answer {
            Answer::Hello { version: VERSION, board: "qemu", serial, .. } => serial,
            other => panic!("{other:?}"),
        })
    }

    fn status(&mut self) -> Status {
        self.ask(&Request::Status, status)
    }

    fn transact(&mut self, message: &[u8]) -> Vec<u8> {
        self.ask(&Request::Transact(message), transacted)
    }

    fn plain(&mut self, command: Command, payload: &[u8]) -> Vec<u8> {
        let mut message = [0; MAX_MESSAGE];
        let length = Frame { code: command.code(), payload }.encode(&mut message).unwrap();
        let answer = self.transact(&message[..length]);
        let frame = Frame::parse(&answer).unwrap();
        assert_eq!(frame.code, command.code() | RESPONSE_FLAG, "{:?}", frame.payload);
        frame.payload.to_vec()
    }

    /// A session under the default authentication key.
    fn session(&mut self) -> HostChannel {
        let challenge = [1; 8];
        let reply = self.plain(Command::CreateSession, &[&[0, 1], challenge.as_slice()].concat());
        let key = AuthenticationKey::from_password(b"password");
        let (card, cryptogram) = (reply[1..9].try_into().unwrap(), reply[9..].try_into().unwrap());
        let mut session = HostChannel::derive(reply[0], &key, challenge, card, cryptogram).unwrap();
        self.plain(Command::AuthenticateSession, &session.authenticate()[3..]);
        session
    }
}

fn status(answer: Answer<'_>) -> Status {
    match answer {
        Answer::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

fn transacted(answer: Answer<'_>) -> Vec<u8> {
    match answer {
        Answer::Transact(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_board_keeps_its_identity_and_carries_the_longest_message() {
    let device = tempfile::tempdir().unwrap();
    let serial = {
        let board = needs!(Board::start(device.path()));
        let mut link = Link::open(&board);
        let serial = link.hello();
        let longest = [&[1, 7, 255], vec![0x5a; 2047].as_slice()].concat();
        assert_eq!(link.transact(&longest)[3..], longest[3..]);
        serial
    };
    let board = needs!(Board::start(device.path()));
    assert_eq!(Link::open(&board).hello(), serial);
    let other = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(other.path()));
    assert_ne!(Link::open(&board).hello(), serial);
}

#[test]
fn a_board_tells_its_status_while_it_computes() {
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(device.path()));
    let mut link = Link::open(&board);
    let mut session = link.session();
    let label = [b'x'; 40];
    let object = [[0, 5].as_slice(), &label, &[0xff; 2], &[0; 8], &[Algorithm::Rsa3072.code()]].concat();
    let mut message = [0; MAX_MESSAGE];
    let length = session.seal(Command::GenerateAsymmetricKey, &object, &mut message).unwrap();
    let work = link.send(&Request::Transact(&message[..length]));
    let mut asked = 0;
    let mut answer = loop {
        let start = Instant::now();
        let question = link.send(&Request::Status);
        let (mut number, told) = link.receive(|answer| match answer {
            Answer::Transact(message) => Err(message.to_vec()),
            other => Ok(status(other)),
        });
        let status = match told {
            Err(message) => {
                // The question came too late: its answer follows.
                assert_eq!((number, link.receive(|_| ()).0), (work, question));
                break message;
            }
            Ok(status) => status,
        };
        assert_eq!(number, question);
        assert!(start.elapsed() < Duration::from_secs(5), "not told at once: {:?}", start.elapsed());
        if status.activity == Activity::Idle {
            (number, _) = link.receive(|_| ());
            panic!("idle before the answer to {number} was sent");
        }
        assert_eq!(status.activity, Activity::Busy);
        asked += 1;
        std::thread::sleep(Duration::from_millis(20));
    };
    let frame = session.open(&mut answer).unwrap();
    assert_eq!(
        (frame.code, frame.payload),
        (Command::GenerateAsymmetricKey.code() | RESPONSE_FLAG, &[0, 5][..])
    );
    assert!(asked >= 3, "only {asked} times");
}

#[test]
fn a_board_that_is_told_to_starts_again_and_says_why() {
    let device = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(device.path()));
    let mut link = Link::open(&board);
    let serial = link.hello();
    link.session();
    let before = link.status();
    assert_eq!((before.reset, before.sessions), (ResetReason::PowerOn, 1));
    link.ask(&Request::Reboot(Boot::Firmware), |answer| assert_eq!(answer, Answer::Rebooting));
    // Bytes that come while it starts may be lost.
    let after = wait_for("the board", || {
        std::thread::sleep(Duration::from_millis(300));
        Some(link.status())
    });
    assert_eq!((after.reset, after.sessions), (ResetReason::Requested, 0));
    assert_eq!(link.hello(), serial);
    assert!(!board.said().contains("panicked"), "{}", board.said());
}
