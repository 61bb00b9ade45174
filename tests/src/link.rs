//! A host's end of the link to a board, using none of our code but the link's own encoding.

use serde::Serialize;
use sshsm_client::{Exchange, ExchangeError};
use sshsm_protocol::{
    Command,
    channel::{AuthenticationKey, Handshake, HandshakeError, HostChannel},
    frame::{Frame, MAX_MESSAGE, RESPONSE_FLAG},
    link::{Activity, Answer, Deframer, MAX_FRAME, Request, Status, VERSION, decode, encode},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// An open port: asks, and waits for the answer.
pub struct Link {
    port: File,
    deframer: Deframer,
    number: u32,
    unread: Vec<u8>,
}

#[allow(clippy::missing_panics_doc, reason = "all of it panics when the board does not do as it should")]
impl Link {
    /// Opens a port, which is in raw mode.
    #[must_use]
    pub fn open(port: &Path) -> Self {
        let port = File::options().read(true).write(true).open(port).unwrap();
        Self { port, deframer: Deframer::new(), number: 0, unread: Vec::new() }
    }

    /// Sends a request and returns its number.
    pub fn send(&mut self, request: &Request<'_>) -> u32 {
        self.send_raw(request)
    }

    fn send_raw(&mut self, request: &impl Serialize) -> u32 {
        self.number += 1;
        let mut frame = [0; MAX_FRAME];
        let length = encode(self.number, request, &mut frame).unwrap();
        self.port.write_all(&frame[..length]).unwrap();
        self.number
    }

    /// The next answer, as `then` makes of it, and the request that it answers.
    pub fn receive<T>(&mut self, then: impl Fn(Answer<'_>) -> T) -> (u32, T) {
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

    /// Sends a request and insists that the next answer is to it.
    pub fn ask<T>(&mut self, request: &Request<'_>, then: impl Fn(Answer<'_>) -> T) -> T {
        let number = self.send(request);
        let (answered, answer) = self.receive(then);
        assert_eq!(answered, number);
        answer
    }

    /// Like [`Link::ask`], with something that is not a request.
    pub fn ask_raw<T>(&mut self, request: &impl Serialize, then: impl Fn(Answer<'_>) -> T) -> T {
        let number = self.send_raw(request);
        let (answered, answer) = self.receive(then);
        assert_eq!(answered, number);
        answer
    }

    /// The board's name and serial number.
    pub fn hello(&mut self) -> (String, u32) {
        self.ask(&Request::Hello { minimum: 1, version: VERSION }, |answer| match answer {
            Answer::Hello { version: VERSION, board, serial, .. } => (board.to_owned(), serial),
            other => panic!("{other:?}"),
        })
    }

    /// How the board is.
    pub fn status(&mut self) -> Status {
        self.ask(&Request::Status, status)
    }

    /// Has a message carried out.
    pub fn transact(&mut self, message: &[u8]) -> Vec<u8> {
        self.ask(&Request::Transact(message), |answer| match answer {
            Answer::Transact(message) => message.to_vec(),
            other => panic!("{other:?}"),
        })
    }

    /// Has a message carried out that takes long, and checks that the board reports immediately that it is
    /// busy whenever it is asked in the meantime. Returns the answer and how often it was asked.
    pub fn transact_and_watch(&mut self, message: &[u8]) -> (Vec<u8>, usize) {
        let work = self.send(&Request::Transact(message));
        let mut asked = 0;
        loop {
            let start = Instant::now();
            let question = self.send(&Request::Status);
            let (number, told) = self.receive(|answer| match answer {
                Answer::Transact(message) => Err(message.to_vec()),
                other => Ok(status(other)),
            });
            let status = match told {
                Err(message) => {
                    // The question came too late: its answer follows.
                    assert_eq!((number, self.receive(|_| ()).0), (work, question));
                    return (message, asked);
                }
                Ok(status) => status,
            };
            assert_eq!(number, question);
            assert!(start.elapsed() < Duration::from_secs(5), "not reported at once: {:?}", start.elapsed());
            if status.activity == Activity::Idle {
                let (number, ()) = self.receive(|_| ());
                panic!("idle before the answer to {number} was sent");
            }
            assert_eq!(status.activity, Activity::Busy);
            asked += 1;
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has a command carried out that needs no session.
    pub fn plain(&mut self, command: Command, payload: &[u8]) -> Vec<u8> {
        let mut message = [0; MAX_MESSAGE];
        let length = Frame { code: command.code(), payload }.encode(&mut message).unwrap();
        let answer = self.transact(&message[..length]);
        let frame = Frame::parse(&answer).unwrap();
        assert_eq!(frame.code, command.code() | RESPONSE_FLAG, "{:?}", frame.payload);
        frame.payload.to_vec()
    }

    /// Has a command carried out in a session; `touch` is called when the board waits for a touch. Returns
    /// the code and the payload of its answer.
    pub fn command(
        &mut self,
        session: &mut HostChannel,
        command: Command,
        payload: &[u8],
        mut touch: impl FnMut(),
    ) -> (u8, Vec<u8>) {
        let mut message = [0; MAX_MESSAGE];
        let length = session.seal(command, payload, &mut message).unwrap();
        let number = self.send(&Request::Transact(&message[..length]));
        let mut answer = loop {
            let (answered, answer) = self.receive(|answer| match answer {
                Answer::Transact(message) => Some(message.to_vec()),
                Answer::TouchWanted { .. } => None,
                other => panic!("{other:?}"),
            });
            assert_eq!(answered, number);
            match answer {
                Some(answer) => break answer,
                None => touch(),
            }
        };
        let frame = session.open(&mut answer).unwrap();
        (frame.code, frame.payload.to_vec())
    }

    /// A session under the default authentication key.
    pub fn session(&mut self) -> HostChannel {
        let key = AuthenticationKey::from_password(b"password");
        let handshake = Handshake::new(1, &key, [1; 8]);
        handshake.open(|message| Ok::<_, HandshakeError>(self.transact(message))).unwrap()
    }
}

impl Exchange for Link {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        Ok(Self::transact(self, frame))
    }

    fn describe(&self) -> String {
        "a board".to_owned()
    }
}

fn status(answer: Answer<'_>) -> Status {
    match answer {
        Answer::Status(status) => status,
        other => panic!("{other:?}"),
    }
}
