//! A fake end of a serial port: a pseudo-terminal at whose other end a test plays the board.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use sshsm_firmware::link::{Endpoint, Identity, Vitals};
use sshsm_protocol::{
    frame::MAX_MESSAGE,
    link::{Answer, MAX_FRAME, ResetReason, encode},
};

/// A serial port, and the board's side of it. Reading there waits for the first client, and fails once it has gone.
pub(crate) struct Port {
    path: String,
    board: File,
}

impl Port {
    pub(crate) fn new() -> Self {
        let board: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&board).unwrap();
        unlockpt(&board).unwrap();
        let path = ptsname(&board, Vec::new()).unwrap().into_string().unwrap();
        let mut settings = tcgetattr(&board).unwrap();
        settings.make_raw();
        tcsetattr(&board, OptionalActions::Now, &settings).unwrap();
        Self { path, board: board.into() }
    }

    /// Plays the board until `play` is done; then the port vanishes.
    pub(crate) fn played(self, play: impl FnOnce(File) + Send + 'static) -> (String, JoinHandle<()>) {
        let Self { path, board } = self;
        (path, thread::spawn(move || play(board)))
    }
}

/// The link's end of a fake board, whose messages the test answers.
pub(crate) struct Fake {
    pub(crate) port: File,
    pub(crate) endpoint: Endpoint,
}

impl Fake {
    pub(crate) fn new(port: File, board: &'static str) -> Self {
        let identity = Identity { board, serial: 77, reset: ResetReason::PowerOn };
        let mut endpoint = Endpoint::new(identity);
        endpoint.started(Vitals::default());
        Self { port, endpoint }
    }

    /// Sends what there is to send.
    pub(crate) fn flush(&mut self) {
        self.serve_until(|_| true);
    }

    /// Answers everything that needs no device until `done` is satisfied, or the client has gone.
    pub(crate) fn serve_until(&mut self, mut done: impl FnMut(&mut Endpoint) -> bool) {
        loop {
            let mut room = [0; 512];
            loop {
                let length = self.endpoint.transmit(&mut room);
                if length == 0 {
                    break;
                }
                self.port.write_all(&room[..length]).unwrap();
            }
            if done(&mut self.endpoint) {
                return;
            }
            let mut byte = [0];
            if self.port.read_exact(&mut byte).is_err() {
                return;
            }
            self.endpoint.receive(byte[0], Duration::ZERO);
        }
    }

    /// Answers what can be answered at once until the client has gone.
    pub(crate) fn stay(&mut self) {
        self.serve_until(|_| false);
    }

    /// The next message to carry out.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let mut message = [0; MAX_MESSAGE];
        let mut length = None;
        self.serve_until(|endpoint| {
            length = endpoint.take(&mut message);
            length.is_some()
        });
        message[..length.unwrap()].to_vec()
    }

    pub(crate) fn respond(&mut self, message: &[u8]) {
        self.endpoint.respond(message, Vitals::default());
        self.flush();
    }

    /// Sends an answer that no end of this version would.
    pub(crate) fn send(&mut self, number: u32, answer: &Answer<'_>) {
        let mut frame = [0; MAX_FRAME];
        let length = encode(number, answer, &mut frame).unwrap();
        self.port.write_all(&frame[..length]).unwrap();
    }
}

/// The answer of a YubiHSM 2 to GET DEVICE INFO.
pub(crate) const DEVICE_INFO: [u8; 12] = [0x86, 0, 9, 2, 4, 0, 0, 0, 0, 77, 62, 1];
