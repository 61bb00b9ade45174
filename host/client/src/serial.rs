//! A board on a serial port, or anything else that speaks the link (`sshsm_protocol::link`) over a byte
//! stream.
//!
//! A command may take any time: a computing board answers status requests immediately, so one that does not
//! is given up within seconds. Answers are matched with requests by number, the first of which is random: an
//! answer that a board still owed to a previous client is not mistaken for one of ours.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    thread,
    time::{Duration, Instant},
};

use serialport::{ClearBuffer, SerialPort};
use sshsm_protocol::device_status::Image;
use sshsm_protocol::link::{
    Activity, Answer, Deframer, Level, LinkError, MAX_FRAME, MIN_VERSION, Request, Status, VERSION,
    common_version, decode, encode,
};

use crate::{
    exchange::{Exchange, ExchangeError, whole_frame},
    notice::{Listener, Notice},
};

/// How long a board may take for an answer that it can give immediately.
const PATIENCE: Duration = Duration::from_secs(2);
/// A hello that is not answered is repeated: the board may just be starting.
const REPEAT: Duration = Duration::from_millis(500);
/// How often a board that carries out a command is asked whether it still does.
const POLL: Duration = Duration::from_secs(3);
/// How often a board that is busy for another client is asked whether it still is.
const BUSY_POLL: Duration = Duration::from_millis(100);

/// The device at the end of the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The board's name.
    pub board: String,
    /// The device's serial number.
    pub serial: u32,
    /// The version of the sshsm firmware.
    pub firmware: [u8; 3],
}

/// A line of a board's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, from 0 at each start.
    pub number: u32,
    /// Time since the start.
    pub uptime: Duration,
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub text: String,
}

/// An open serial port with a device at its end.
pub struct Serial {
    wire: Wire,
    path: String,
    hello: Hello,
    /// The link's, that both ends speak.
    version: u16,
    listener: Listener,
}

impl Serial {
    /// Opens the port exclusively and checks that a device is there. `listener` receives what the device
    /// waits for.
    ///
    /// # Errors
    /// [`ExchangeError::Unreachable`], [`ExchangeError::PortDenied`], [`ExchangeError::PortInUse`],
    /// [`ExchangeError::NotADevice`] or [`ExchangeError::LinkVersion`].
    pub fn open(path: &str, listener: Listener) -> Result<Self, ExchangeError> {
        // The speed is a UART's; USB and pseudo-terminals have none. Some have no DTR either, which is not an
        // error.
        let builder = serialport::new(path, 115_200).timeout(PATIENCE).dtr_on_open(true);
        let port = builder.open().map_err(|error| refused(path, error))?;
        port.clear(ClearBuffer::All).map_err(|error| refused(path, error))?;
        let mut wire = Wire::new(port);
        let (version, hello) = greet(&mut wire, path)?;
        Ok(Self { wire, path: path.to_owned(), hello, version, listener })
    }

    /// The device's identity.
    #[must_use]
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// How the device is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&mut self) -> Result<Status, ExchangeError> {
        self.ask(&Request::Status, |answer| match answer {
            Answer::Status(status) => Some(*status),
            _ => None,
        })
    }

    /// The first line of its log from number `from` on.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn log(&mut self, from: u32) -> Result<Option<LogLine>, ExchangeError> {
        self.ask(&Request::Log { from }, |answer| match answer {
            Answer::Log(line) => Some(line.map(|line| LogLine {
                number: line.number,
                uptime: Duration::from_millis(line.uptime),
                level: line.level,
                text: line.text.to_owned(),
            })),
            _ => None,
        })
    }

    /// The firmware image that the device reports as running; `None` if it does not know it, or not yet: a
    /// board computes the hash in its first idle second.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn image(&mut self) -> Result<Option<Image>, ExchangeError> {
        if self.version < 2 {
            return Ok(None);
        }
        self.ask(&Request::Image, |answer| match answer {
            Answer::Image(image) => Some(*image),
            _ => None,
        })
    }

    /// Sends a request that is answered immediately.
    fn ask<T>(
        &mut self,
        request: &Request<'_>,
        mut read: impl FnMut(&Answer<'_>) -> Option<T>,
    ) -> Result<T, ExchangeError> {
        let answer = self.wire.send(request).and_then(|number| {
            self.wire.receive(Instant::now() + PATIENCE, |answered, answer| match answer {
                Some(Answer::Error(error)) if answered == number => Some(Err(*error)),
                Some(answer) if answered == number => read(answer).map(Ok),
                _ => None,
            })
        });
        match answer {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(error))) => Err(self.link(error)),
            Ok(None) => Err(self.interrupted(silence())),
            Err(source) => Err(self.interrupted(source)),
        }
    }

    /// Sends a message and waits for its answer, however long that takes, as long as the device is there.
    fn carry_out(&mut self, message: &[u8]) -> io::Result<Result<Vec<u8>, LinkError>> {
        let number = self.wire.send(&Request::Transact(message))?;
        // The number of a question whether it is still there, which is not answered yet.
        let mut asked = None;
        let mut idle = false;
        let mut told = false;
        loop {
            let event = self.wire.receive(Instant::now() + POLL, |answered, answer| match answer? {
                Answer::Status(status) if Some(answered) == asked => Some(Event::Status(status.activity)),
                _ if answered != number => None,
                Answer::Transact(message) => Some(Event::Answer(message.to_vec())),
                Answer::TouchWanted { seconds } => Some(Event::TouchWanted(*seconds)),
                Answer::Error(error) => Some(Event::Error(*error)),
                _ => None,
            })?;
            match event {
                Some(Event::Answer(message)) => return Ok(Ok(message)),
                Some(Event::Error(error)) => return Ok(Err(error)),
                Some(Event::TouchWanted(_)) if told => {}
                Some(Event::TouchWanted(seconds)) => {
                    told = true;
                    self.listener.tell(&Notice::TouchWanted { seconds });
                }
                Some(Event::Status(Activity::Failed)) => return Ok(Err(LinkError::Failed)),
                // The answer may have been on its way; the next time it is lost, or the device started again.
                Some(Event::Status(Activity::Idle)) if idle => return Err(lost()),
                Some(Event::Status(activity)) => {
                    asked = None;
                    idle = activity == Activity::Idle;
                }
                None if asked.is_some() => return Err(silence()),
                None => asked = Some(self.wire.send(&Request::Status)?),
            }
        }
    }

    fn interrupted(&self, source: io::Error) -> ExchangeError {
        ExchangeError::Interrupted { address: self.describe(), source }
    }

    fn link(&self, error: LinkError) -> ExchangeError {
        ExchangeError::Link { path: self.path.clone(), error }
    }
}

/// The events while a message is being carried out.
enum Event {
    Answer(Vec<u8>),
    TouchWanted(u8),
    Error(LinkError),
    Status(Activity),
}

fn silence() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the device does not answer any more")
}

fn lost() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "the answer was lost, or the device started again")
}

impl Exchange for Serial {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let mut waits = false;
        loop {
            match self.carry_out(frame).map_err(|source| self.interrupted(source))? {
                Ok(answer) => return whole_frame(answer, &self.describe()),
                // It was not begun: a client that has gone left the device something to do. It may therefore
                // be sent again.
                Err(LinkError::Busy) => {
                    if !waits {
                        self.listener.tell(&Notice::Busy);
                    }
                    waits = true;
                    let done = [Activity::Idle, Activity::Failed];
                    while !done.contains(&self.status()?.activity) {
                        thread::sleep(BUSY_POLL);
                    }
                }
                Err(error) => return Err(self.link(error)),
            }
        }
    }

    fn describe(&self) -> String {
        format!("serial:{}", self.path)
    }

    fn check(&mut self) -> Result<Option<u32>, ExchangeError> {
        self.status()?;
        Ok(Some(self.hello.serial))
    }
}

/// Identifies the device at a newly opened port, and the version of the link that it speaks.
fn greet(wire: &mut Wire, path: &str) -> Result<(u16, Hello), ExchangeError> {
    let path = || path.to_owned();
    let not_a_device = |reason| ExchangeError::NotADevice { path: path(), reason };
    let give_up = Instant::now() + PATIENCE;
    loop {
        let greeting = Request::Hello { minimum: MIN_VERSION, version: VERSION };
        let answer = wire.send(&greeting).and_then(|number| {
            let until = (Instant::now() + REPEAT).min(give_up);
            wire.receive(until, |answered, answer| match answer? {
                _ if answered != number => None,
                Answer::Hello { version, board, serial, firmware } => {
                    let (serial, firmware) = (*serial, *firmware);
                    Some(Ok((*version, Hello { board: (*board).to_owned(), serial, firmware })))
                }
                Answer::Error(error) => Some(Err(*error)),
                _ => None,
            })
        });
        return Err(match answer {
            Ok(Some(Ok(found))) if common_version(found.0, found.0).is_some() => return Ok(found),
            Ok(Some(Ok((version, _)))) => {
                ExchangeError::LinkVersion { path: path(), minimum: version, version }
            }
            Ok(Some(Err(LinkError::UnsupportedVersion { minimum, version }))) => {
                ExchangeError::LinkVersion { path: path(), minimum, version }
            }
            Ok(Some(Err(error))) => ExchangeError::Link { path: path(), error },
            Ok(None) if Instant::now() < give_up => continue,
            Ok(None) if wire.heard => not_a_device("it sends something else"),
            Ok(None) => not_a_device("it does not answer"),
            Err(error) if error.kind() == ErrorKind::TimedOut => not_a_device("it does not accept data"),
            Err(source) => ExchangeError::Unreachable { address: format!("serial:{}", path()), source },
        });
    }
}

/// Why a port could not be opened.
fn refused(path: &str, error: serialport::Error) -> ExchangeError {
    let path = path.to_owned();
    match error.kind() {
        serialport::ErrorKind::NoDevice => ExchangeError::PortInUse { path },
        serialport::ErrorKind::Io(ErrorKind::PermissionDenied) => ExchangeError::PortDenied { path },
        serialport::ErrorKind::Io(_) => {
            ExchangeError::Unreachable { address: format!("serial:{path}"), source: error.into() }
        }
        _ => ExchangeError::NotADevice { path, reason: "it is not a serial port" },
    }
}

/// Requests out, answers in.
struct Wire {
    port: Box<dyn SerialPort>,
    deframer: Deframer,
    /// Received, and not looked at yet.
    received: VecDeque<u8>,
    /// Anything was ever received.
    heard: bool,
    number: u32,
}

impl Wire {
    fn new(port: Box<dyn SerialPort>) -> Self {
        let mut first = [0; 4];
        // Without random numbers there is only a greater chance of a stale answer with the same number.
        let _ = getrandom::fill(&mut first);
        let number = u32::from_ne_bytes(first);
        Self { port, deframer: Deframer::new(), received: VecDeque::new(), heard: false, number }
    }

    /// Sends a request; returns the number that its answers will have.
    fn send(&mut self, request: &Request<'_>) -> io::Result<u32> {
        self.number = self.number.wrapping_add(1);
        let mut frame = [0; MAX_FRAME];
        let length = encode(self.number, request, &mut frame).map_err(io::Error::other)?;
        self.port.set_timeout(PATIENCE)?;
        let frame = frame.get(..length).ok_or_else(|| io::Error::other("a frame longer than its room"))?;
        self.port.write_all(frame)?;
        Ok(self.number)
    }

    /// Passes answers to `read`, each with its number and as `None` if its kind is unknown, until that
    /// returns something or the time is up.
    fn receive<T>(
        &mut self,
        until: Instant,
        mut read: impl FnMut(u32, Option<&Answer<'_>>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        loop {
            while let Some(byte) = self.received.pop_front() {
                if let Some((number, answer)) = self.deframer.push(byte).and_then(decode::<Answer<'_>>)
                    && let Some(result) = read(number, answer.as_ref())
                {
                    return Ok(Some(result));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.port.set_timeout(left)?;
            let mut bytes = [0; 1024];
            match self.port.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::BrokenPipe.into()),
                Ok(length) => {
                    self.heard = true;
                    self.received.extend(bytes.iter().take(length));
                }
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serialport::ErrorKind as Kind;

    #[test]
    fn each_reason_why_a_port_does_not_open_has_its_own_error() {
        let refused = |kind| refused("/dev/ttyACM0", serialport::Error::new(kind, "as the system says"));
        assert!(matches!(refused(Kind::NoDevice), ExchangeError::PortInUse { .. }));
        assert!(matches!(refused(Kind::Unknown), ExchangeError::NotADevice { .. }));
        let missing = refused(Kind::Io(ErrorKind::NotFound));
        assert!(matches!(missing, ExchangeError::Unreachable { .. }), "{missing:?}");
        let denied = refused(Kind::Io(ErrorKind::PermissionDenied));
        assert!(matches!(denied, ExchangeError::PortDenied { .. }), "{denied:?}");
    }
}
