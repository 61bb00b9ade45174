//! The device's end of the link (`sshsm_protocol::link`), without any input or output of its own.
//!
//! An interrupt, or a task that preempts the computing one, feeds [`Endpoint::receive`] and drains
//! [`Endpoint::transmit`]; the thread that owns the [`Device`](crate::Device) takes messages with
//! [`Endpoint::take`] and answers them with [`Endpoint::respond`]. The device can therefore answer hello,
//! status and log requests while it computes. One message is carried out at a time: the sender of another is
//! told that the device is busy.
//!
//! Nothing that arrives over the link restarts the device or changes it in any other way: only the device
//! itself can allow that, within a session ([`Device::restart`](crate::Device::restart)), and the thread
//! passes it on ([`Endpoint::restart`]).

use core::fmt::{self, Write as _};
use core::time::Duration;

use heapless::{Deque, String};
use sshsm_protocol::command::Family;
use sshsm_protocol::device_status::Image;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::link::{
    Activity, Answer, Deframer, Level, Line, LinkError, MAX_FRAME, MAX_LINE, MAX_SHORT_FRAME, MIN_VERSION,
    Request, ResetReason, Status, VERSION, common_version, decode, encode,
};
use sshsm_protocol::{Command, DeviceError};

use crate::platform::Boot;

/// Lines of the log that are kept.
pub const LOG_LINES: usize = 32;

/// What a device reports about itself before there is a session.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The board's name, at most [`MAX_BOARD`](sshsm_protocol::device_status::MAX_BOARD) bytes.
    pub board: &'static str,
    /// Its serial number.
    pub serial: u32,
    /// Why it started.
    pub reset: ResetReason,
}

/// What a device reports about its internal state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Open sessions.
    pub sessions: u8,
    /// Objects there is room for.
    pub free_records: u16,
    /// Pages there is room for.
    pub free_pages: u16,
}

/// How far the one message is.
#[derive(Clone, Copy)]
enum Exchange {
    None,
    /// It came and waits for the thread.
    Waiting {
        number: u32,
        length: usize,
    },
    /// It is being carried out, possibly for a requester that has gone.
    Working {
        number: Option<u32>,
    },
}

/// A frame on its way out.
struct Outgoing<const N: usize> {
    frame: [u8; N],
    length: usize,
    sent: usize,
}

impl<const N: usize> Outgoing<N> {
    const fn new() -> Self {
        Self { frame: [0; N], length: 0, sent: 0 }
    }

    fn is_empty(&self) -> bool {
        self.sent >= self.length
    }

    fn begun(&self) -> bool {
        self.sent > 0 && !self.is_empty()
    }

    fn put(&mut self, number: u32, answer: &Answer<'_>) {
        // Answers that could be too long are never made: every frame fits.
        self.length = encode(number, answer, &mut self.frame).unwrap_or(0);
        self.sent = 0;
    }

    fn move_into(&mut self, room: &mut [u8]) -> usize {
        let rest = self.frame.get(self.sent..self.length).unwrap_or_default();
        let length = rest.len().min(room.len());
        if let (Some(room), Some(rest)) = (room.get_mut(..length), rest.get(..length)) {
            room.copy_from_slice(rest);
        }
        self.sent += length;
        length
    }

    fn clear(&mut self) {
        self.length = 0;
        self.sent = 0;
    }
}

struct Entry {
    number: u32,
    uptime: Duration,
    level: Level,
    text: String<MAX_LINE>,
}

/// The device's end of the link.
pub struct Endpoint {
    identity: Identity,
    deframer: Deframer,
    message: [u8; MAX_MESSAGE],
    exchange: Exchange,
    /// The thread's answer.
    answer: Outgoing<MAX_FRAME>,
    /// The immediate answer.
    notice: Outgoing<MAX_SHORT_FRAME>,
    vitals: Vitals,
    started: bool,
    failed: bool,
    /// Seconds within which the device must be touched, and whether the host has been told.
    touch: Option<(u8, bool)>,
    image: Option<Image>,
    restart: Option<Boot>,
    log: Deque<Entry, LOG_LINES>,
    next_line: u32,
}

impl Endpoint {
    /// The end of a device that starts; [`Self::started`] or [`Self::fail`] must follow.
    #[must_use]
    pub const fn new(identity: Identity) -> Self {
        Self {
            identity,
            deframer: Deframer::new(),
            message: [0; MAX_MESSAGE],
            exchange: Exchange::None,
            answer: Outgoing::new(),
            notice: Outgoing::new(),
            vitals: Vitals { sessions: 0, free_records: 0, free_pages: 0 },
            started: false,
            failed: false,
            touch: None,
            image: None,
            restart: None,
            log: Deque::new(),
            next_line: 0,
        }
    }

    /// Whether a byte may be received: not while an answer to the last request waits to be sent.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.notice.is_empty() && self.restart.is_none()
    }

    /// Accepts a byte; `now` is the time since the start. Bytes that arrive when the endpoint is not
    /// [`ready`](Self::ready) are lost.
    pub fn receive(&mut self, byte: u8, now: Duration) {
        if !self.ready() {
            return;
        }
        let Some((number, request)) = self.deframer.push(byte).and_then(decode::<Request<'_>>) else {
            return;
        };
        let Some(request) = request else {
            self.notice.put(number, &Answer::Error(LinkError::UnknownRequest));
            return;
        };
        match request {
            Request::Hello { minimum, version } => {
                let answer = match common_version(minimum, version) {
                    Some(version) => Answer::Hello {
                        version,
                        board: self.identity.board,
                        serial: self.identity.serial,
                        firmware: crate::VERSION,
                    },
                    None => Answer::Error(LinkError::UnsupportedVersion {
                        minimum: MIN_VERSION,
                        version: VERSION,
                    }),
                };
                self.notice.put(number, &answer);
            }
            Request::Transact(message) => {
                let room = self.message.get_mut(..message.len()).filter(|room| !room.is_empty());
                let error = match (room, self.exchange) {
                    _ if self.failed => LinkError::Failed,
                    (None, _) => LinkError::WrongLength(u16::try_from(MAX_MESSAGE).unwrap_or(u16::MAX)),
                    (Some(room), Exchange::None) => {
                        room.copy_from_slice(message);
                        self.exchange = Exchange::Waiting { number, length: message.len() };
                        return;
                    }
                    (Some(_), _) => LinkError::Busy,
                };
                self.notice.put(number, &Answer::Error(error));
            }
            Request::Status => {
                let status = self.status(now);
                self.notice.put(number, &Answer::Status(status));
            }
            Request::Log { from } => {
                let line = self.log.iter().find(|entry| entry.number >= from).map(|entry| Line {
                    number: entry.number,
                    uptime: milliseconds(entry.uptime),
                    level: entry.level,
                    text: &entry.text,
                });
                self.notice.put(number, &Answer::Log(line));
            }
            Request::Image => self.notice.put(number, &Answer::Image(self.image)),
            Request::Withdrawn(none) => match none {},
        }
    }

    /// Moves bytes that shall be sent into `room`; returns how many. Frames are never mixed.
    pub fn transmit(&mut self, room: &mut [u8]) -> usize {
        if self.notice.is_empty()
            && let (Some((seconds, told @ false)), Exchange::Working { number: Some(number) }) =
                (&mut self.touch, self.exchange)
        {
            *told = true;
            self.notice.put(number, &Answer::TouchWanted { seconds: *seconds });
        }
        if self.answer.begun() || self.notice.is_empty() {
            self.answer.move_into(room)
        } else {
            self.notice.move_into(room)
        }
    }

    /// The device is about to restart, as a session requested: nothing more is received or carried out, and
    /// pending output is sent.
    pub fn restart(&mut self, boot: Boot) {
        self.restart = Some(boot);
    }

    /// What to start now: not before the host that asked for it has its answer, or has gone.
    #[must_use]
    pub fn restart_due(&self) -> Option<Boot> {
        self.restart.filter(|_| self.notice.is_empty() && self.answer.is_empty())
    }

    /// The board's name.
    #[must_use]
    pub const fn board(&self) -> &'static str {
        self.identity.board
    }

    /// The image that runs is known now.
    pub fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// Takes the pending message into `message` and returns its length. [`Self::respond`] must follow.
    pub fn take(&mut self, message: &mut [u8; MAX_MESSAGE]) -> Option<usize> {
        let Exchange::Waiting { number, length } = self.exchange else { return None };
        // The answer before it goes out first.
        if !self.answer.is_empty() || self.restart.is_some() {
            return None;
        }
        message.copy_from_slice(&self.message);
        self.exchange = Exchange::Working { number: Some(number) };
        Some(length)
    }

    /// Answers the message that was taken, at most [`MAX_MESSAGE`] bytes; `vitals` are the device's after it.
    pub fn respond(&mut self, message: &[u8], vitals: Vitals) {
        self.vitals = vitals;
        self.touch = None;
        if let Exchange::Working { number: Some(number) } = self.exchange {
            self.answer.put(number, &Answer::Transact(message));
        }
        if !matches!(self.exchange, Exchange::Waiting { .. }) {
            self.exchange = Exchange::None;
        }
    }

    /// The device waits this long for a touch, or no longer waits; the host is told.
    pub fn touch_wanted(&mut self, timeout: Option<Duration>) {
        self.touch = timeout.map(|timeout| (u8::try_from(timeout.as_secs()).unwrap_or(u8::MAX), false));
    }

    /// The device will carry out no message: it did not start.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// The device has started and accepts messages; `vitals` is its state before the first one.
    pub fn started(&mut self, vitals: Vitals) {
        self.started = true;
        self.vitals = vitals;
    }

    /// The host has gone: its pending requests and answers are discarded. A message that is being carried out
    /// is finished.
    pub fn disconnected(&mut self) {
        self.deframer.restart();
        self.answer.clear();
        self.notice.clear();
        self.exchange = match self.exchange {
            Exchange::Working { .. } => Exchange::Working { number: None },
            _ => Exchange::None,
        };
    }

    /// How the device is.
    #[must_use]
    pub fn status(&self, now: Duration) -> Status {
        Status {
            activity: self.activity(),
            reset: self.identity.reset,
            uptime: milliseconds(now),
            sessions: self.vitals.sessions,
            free_records: self.vitals.free_records,
            free_pages: self.vitals.free_pages,
            dropped: self.deframer.dropped(),
        }
    }

    /// The device's activity, for its light.
    #[must_use]
    pub fn activity(&self) -> Activity {
        match self.exchange {
            _ if self.failed => Activity::Failed,
            _ if !self.started => Activity::Starting,
            // A status that overtakes the answer must not say that there is no pending answer.
            Exchange::None if !self.answer.is_empty() && !self.answer.begun() => Activity::Busy,
            Exchange::None => Activity::Idle,
            _ if self.touch.is_some() => Activity::TouchWanted,
            _ => Activity::Busy,
        }
    }

    /// Adds a line to the log, truncated to [`MAX_LINE`] bytes; it displaces the oldest.
    pub fn log(&mut self, level: Level, now: Duration, text: fmt::Arguments<'_>) {
        let mut line = Cut(String::new());
        // It never fails: what does not fit is truncated.
        let _ = line.write_fmt(text);
        if self.log.is_full() {
            self.log.pop_front();
        }
        let entry = Entry { number: self.next_line, uptime: now, level, text: line.0 };
        self.next_line = self.next_line.saturating_add(1);
        let _ = self.log.push_back(entry);
    }
}

/// A refused command as recorded in the log, which anyone may read: its name and the error's, and nothing of
/// its content. If the error depends on a secret and on bytes that an attacker may have chosen, as with wrong
/// padding, the log gives no reason: it would be an oracle.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(pub Command, pub DeviceError);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(command, error) = self;
        match command.family() {
            Family::Decryption | Family::Otp | Family::Wrap | Family::RsaWrap => {
                write!(f, "{command}: refused")
            }
            Family::Core
            | Family::Ssh
            | Family::Signatures
            | Family::Opaque
            | Family::Hmac
            | Family::Symmetric
            | Family::Attestation
            | Family::Audit => write!(f, "{command}: {error}"),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A line that keeps what fits and ignores the rest.
struct Cut(String<MAX_LINE>);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.push(character).is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use std::vec::Vec;

    const NOW: Duration = Duration::from_millis(1500);

    fn starting() -> Endpoint {
        Endpoint::new(Identity { board: "test", serial: 7, reset: ResetReason::PowerOn })
    }

    fn endpoint() -> Endpoint {
        let mut endpoint = starting();
        endpoint.started(Vitals::default());
        endpoint
    }

    fn send(endpoint: &mut Endpoint, number: u32, request: &impl Serialize) {
        let mut frame = [0; MAX_FRAME];
        let length = encode(number, request, &mut frame).unwrap();
        for &byte in &frame[..length] {
            endpoint.receive(byte, NOW);
        }
    }

    /// The endpoint's output, each answer as text; transmitted in packets of 7 bytes.
    fn answers(endpoint: &mut Endpoint) -> Vec<(u32, std::string::String)> {
        let mut deframer = Deframer::new();
        let mut answers = Vec::new();
        let mut packet = [0; 7];
        loop {
            let length = endpoint.transmit(&mut packet);
            if length == 0 {
                return answers;
            }
            for &byte in &packet[..length] {
                if let Some((number, answer)) = deframer.push(byte).and_then(decode::<Answer<'_>>) {
                    answers.push((number, std::format!("{:?}", answer.unwrap())));
                }
            }
        }
    }

    fn one(endpoint: &mut Endpoint, number: u32, request: &impl Serialize) -> std::string::String {
        send(endpoint, number, request);
        let mut answers = answers(endpoint);
        assert_eq!(answers.len(), 1);
        let (answered, text) = answers.remove(0);
        assert_eq!(answered, number);
        text
    }

    #[test]
    fn it_says_who_it_is_to_hosts_of_a_version_in_common() {
        let mut endpoint = endpoint();
        let hello = one(&mut endpoint, 1, &Request::Hello { minimum: 1, version: 4 });
        assert_eq!(hello, r#"Hello { version: 2, board: "test", serial: 7, firmware: [0, 1, 0] }"#);
        let old = one(&mut endpoint, 3, &Request::Hello { minimum: 1, version: 1 });
        assert!(old.starts_with("Hello { version: 1, "), "{old}");
        let other = one(&mut endpoint, 2, &Request::Hello { minimum: 3, version: 4 });
        assert_eq!(other, "Error(UnsupportedVersion { minimum: 1, version: 2 })");
    }

    #[test]
    fn status_and_log_are_told_while_a_message_is_carried_out() {
        let mut endpoint = endpoint();
        let mut message = [0; MAX_MESSAGE];
        endpoint.log(Level::Info, NOW, format_args!("started"));
        send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
        assert!(one(&mut endpoint, 2, &Request::Status).contains("activity: Busy"));
        assert_eq!(endpoint.take(&mut message), Some(3));
        assert!(one(&mut endpoint, 3, &Request::Status).contains("activity: Busy"));
        assert!(one(&mut endpoint, 4, &Request::Log { from: 0 }).contains("started"));
        assert_eq!(one(&mut endpoint, 5, &Request::Log { from: 1 }), "Log(None)");
        assert_eq!(one(&mut endpoint, 6, &Request::Transact(&[6, 0, 0])), "Error(Busy)");
        let vitals = Vitals { sessions: 3, free_records: 2, free_pages: 1 };
        endpoint.respond(&[0x86, 0, 0], vitals);
        send(&mut endpoint, 8, &Request::Status);
        let overtaken = answers(&mut endpoint);
        assert!(matches!(&overtaken[..], [(8, status), (1, _)] if status.contains("activity: Busy")));
        let status = one(&mut endpoint, 7, &Request::Status);
        assert!(status.contains("activity: Idle") && status.contains("uptime: 1500"), "{status}");
        assert!(status.contains("sessions: 3, free_records: 2, free_pages: 1"), "{status}");
    }

    #[test]
    fn a_notice_waits_for_an_answer_that_has_begun_to_leave() {
        let mut endpoint = endpoint();
        send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
        endpoint.take(&mut [0; MAX_MESSAGE]);
        endpoint.respond(&[1; MAX_MESSAGE], Vitals::default());
        let mut packet = [0; 64];
        let length = endpoint.transmit(&mut packet);
        send(&mut endpoint, 2, &Request::Status);
        let mut deframer = Deframer::new();
        assert!(packet[..length].iter().all(|&byte| deframer.push(byte).is_none()));
        let mut numbers = Vec::new();
        let mut byte = [0];
        while endpoint.transmit(&mut byte) == 1 {
            numbers.extend(deframer.push(byte[0]).and_then(decode::<Answer<'_>>).map(|(number, _)| number));
        }
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn the_next_message_waits_until_the_answer_before_it_has_left() {
        let mut endpoint = endpoint();
        let mut message = [0; MAX_MESSAGE];
        send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
        endpoint.take(&mut message);
        endpoint.respond(&[0x86, 0, 0], Vitals::default());
        send(&mut endpoint, 2, &Request::Transact(&[6, 0, 1, 9]));
        assert_eq!(endpoint.take(&mut message), None);
        assert_eq!(answers(&mut endpoint), [(1, "Transact([134, 0, 0])".into())]);
        assert_eq!(endpoint.take(&mut message), Some(4));
        assert_eq!(message[..4], [6, 0, 1, 9]);
    }

    #[test]
    fn a_host_that_went_away_gets_no_answer_and_its_message_runs_to_its_end() {
        let mut endpoint = endpoint();
        let mut message = [0; MAX_MESSAGE];
        send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
        endpoint.take(&mut message);
        endpoint.disconnected();
        assert_eq!(one(&mut endpoint, 2, &Request::Transact(&[6, 0, 0])), "Error(Busy)");
        endpoint.respond(&[0x86, 0, 0], Vitals::default());
        assert_eq!(answers(&mut endpoint), []);
        send(&mut endpoint, 3, &Request::Transact(&[6, 0, 0]));
        assert_eq!(endpoint.take(&mut message), Some(3));
    }

    #[test]
    fn the_host_is_told_once_that_the_device_waits_to_be_touched() {
        let mut endpoint = endpoint();
        send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
        endpoint.take(&mut [0; MAX_MESSAGE]);
        endpoint.touch_wanted(Some(Duration::from_secs(15)));
        assert_eq!(answers(&mut endpoint), [(1, "TouchWanted { seconds: 15 }".into())]);
        assert!(one(&mut endpoint, 2, &Request::Status).contains("activity: TouchWanted"));
        endpoint.touch_wanted(None);
        endpoint.respond(&[0x86, 0, 0], Vitals::default());
        assert_eq!(answers(&mut endpoint), [(1, "Transact([134, 0, 0])".into())]);
    }

    #[test]
    fn a_device_is_not_idle_before_it_has_started() {
        let mut endpoint = starting();
        let mut message = [0; MAX_MESSAGE];
        assert!(one(&mut endpoint, 1, &Request::Status).contains("activity: Starting"));
        send(&mut endpoint, 2, &Request::Transact(&[6, 0, 0]));
        assert!(one(&mut endpoint, 3, &Request::Status).contains("activity: Starting"));
        endpoint.started(Vitals::default());
        assert!(one(&mut endpoint, 4, &Request::Status).contains("activity: Busy"));
        assert_eq!(endpoint.take(&mut message), Some(3));
        endpoint.respond(&[0x86, 0, 0], Vitals::default());
        assert_eq!(answers(&mut endpoint), [(2, "Transact([134, 0, 0])".into())]);
        assert!(one(&mut endpoint, 5, &Request::Status).contains("activity: Idle"));
    }

    #[test]
    fn a_device_that_did_not_start_carries_out_nothing_and_says_why() {
        let mut endpoint = endpoint();
        endpoint.log(Level::Error, NOW, format_args!("the store is damaged"));
        endpoint.fail();
        assert_eq!(one(&mut endpoint, 1, &Request::Transact(&[6, 0, 0])), "Error(Failed)");
        assert!(one(&mut endpoint, 2, &Request::Status).contains("activity: Failed"));
        assert!(one(&mut endpoint, 3, &Request::Log { from: 0 }).contains("the store is damaged"));
    }

    /// Any process that can open the port can send these: every possible request number, with every short
    /// body.
    #[test]
    fn no_frame_restarts_the_device_and_only_a_message_reaches_it() {
        // A number of one byte; postcard writes larger ones as more.
        for number in 0..0x80_u8 {
            for body in [&[][..], &[0], &[1], &[2], &[0, 0], &[1, 0], &[1, 1], &[0, 1], &[1, 2, 3, 4]] {
                let mut endpoint = endpoint();
                let frame = [&[number][..], body].concat();
                // As serde would write the variant: its number, and its fields.
                let mut room = [0; 64];
                let length = encode_raw(9, &frame, &mut room);
                room[..length].iter().for_each(|&byte| endpoint.receive(byte, NOW));
                let told = answers(&mut endpoint);
                assert_eq!(endpoint.restart_due(), None, "{frame:?}");
                assert!(endpoint.ready());
                let taken = endpoint.take(&mut [0; MAX_MESSAGE]);
                if number == 1
                    && frame[1..].first().is_some_and(|&length| usize::from(length) == frame.len() - 2)
                    && frame.len() > 2
                {
                    assert_eq!((taken, told), (Some(frame.len() - 2), Vec::new()), "a message");
                    continue;
                }
                assert_eq!(taken, None, "{frame:?}");
                let [(9, told)] = &told[..] else { panic!("{frame:?}: {told:?}") };
                let tells =
                    ["Hello", "Status", "Log", "Image", "Error"].iter().any(|what| told.starts_with(what));
                assert!(tells, "{frame:?}: {told}");
                let known = [0, 1, 2, 3, 5].contains(&number);
                assert!(known || told == "Error(UnknownRequest)", "{frame:?}: {told}");
            }
        }
    }

    /// A frame with this content after its number.
    fn encode_raw(number: u32, content: &[u8], room: &mut [u8]) -> usize {
        struct Raw<'a>(&'a [u8]);
        impl Serialize for Raw<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple as _;
                let mut tuple = serializer.serialize_tuple(self.0.len())?;
                self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
                tuple.end()
            }
        }
        encode(number, &Raw(content), room).unwrap()
    }

    #[test]
    fn a_restart_is_due_once_its_answer_has_left_or_its_asker_is_gone() {
        for gone in [false, true] {
            let mut endpoint = endpoint();
            send(&mut endpoint, 1, &Request::Transact(&[6, 0, 0]));
            endpoint.take(&mut [0; MAX_MESSAGE]).unwrap();
            endpoint.respond(&[0x86, 0, 0], Vitals::default());
            endpoint.restart(Boot::BootLoader);
            assert_eq!(endpoint.restart_due(), None);
            assert!(!endpoint.ready(), "nothing more is received");
            send(&mut endpoint, 2, &Request::Transact(&[6, 0, 0]));
            if gone {
                endpoint.disconnected();
            } else {
                assert_eq!(answers(&mut endpoint), [(1, "Transact([134, 0, 0])".into())]);
            }
            assert_eq!(endpoint.restart_due(), Some(Boot::BootLoader));
            assert_eq!(endpoint.take(&mut [0; MAX_MESSAGE]), None, "nothing more is carried out");
        }
    }

    #[test]
    fn the_image_is_told_once_it_is_known() {
        let mut endpoint = endpoint();
        assert_eq!(one(&mut endpoint, 1, &Request::Image), "Image(None)");
        endpoint.set_image(Image { sha256: [7; 32], length: 9 });
        assert!(one(&mut endpoint, 2, &Request::Image).contains("length: 9"));
    }

    #[test]
    fn a_refusal_in_the_log_names_the_command_and_no_reason_that_a_secret_decides() {
        let text = |command, error| std::format!("{}", Refusal(command, error));
        let violated = DeviceError::SshCaConstraintViolation;
        assert_eq!(
            text(Command::SignSshCertificate, violated),
            "sign ssh certificate: SSH CA constraint violation"
        );
        for error in [DeviceError::InvalidData, DeviceError::InvalidOtp, DeviceError::WrongLength] {
            for command in [
                Command::DecryptPkcs1,
                Command::DecryptOaep,
                Command::UnwrapData,
                Command::ImportWrapped,
                Command::ImportRsaWrapped,
                Command::DecryptOtp,
            ] {
                assert_eq!(text(command, error), std::format!("{command}: refused"));
            }
        }
    }

    #[test]
    fn what_is_not_a_request_is_told_so() {
        let mut endpoint = endpoint();
        assert_eq!(one(&mut endpoint, 1, &99_u8), "Error(UnknownRequest)");
        assert_eq!(one(&mut endpoint, 2, &Request::Transact(&[])), "Error(WrongLength(3136))");
    }

    #[test]
    fn the_log_keeps_the_last_lines_and_cuts_long_ones() {
        let mut endpoint = endpoint();
        for line in 0..40 {
            endpoint.log(Level::Info, NOW, format_args!("{line} {}", "ä".repeat(200)));
        }
        let first = one(&mut endpoint, 1, &Request::Log { from: 0 });
        assert!(first.contains("number: 8,") && first.contains("\"8 ää"), "{first}");
    }
}
