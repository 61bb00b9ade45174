//! The link: how messages travel over a byte stream (USB CDC, UART, pseudo-terminal).
//!
//! A frame on the wire is `00 ‖ COBS(postcard(number u32, body) ‖ CRC-32) ‖ 00`, where the checksum is
//! CRC-32/ISO-HDLC, little-endian, over everything before it. Zero appears nowhere else, so a reader that
//! joins in the middle or receives noise resynchronises at the next one; the leading zero ends any noise
//! before it. A frame that is too long, badly stuffed, or has the wrong checksum is dropped whole.
//!
//! The host asks, and each [`Answer`] carries the number of the [`Request`] that it answers, so that a late
//! answer, whose requester has gone away, is not mistaken for the answer to another request.
//!
//! # Rules of evolution
//!
//! - Any process that can open the port can send any frame, so **no request does more than return
//!   information** ([`Effect`]). A device is changed only by an HSM message inside a session. This holds in
//!   every version: a request that breaks the rule is withdrawn from all of them.
//! - [`Request::Hello`], [`Answer::Hello`], [`Answer::Error`] and [`LinkError::UnsupportedVersion`] keep
//!   their numbers and their encoding in every version.
//! - Variants are added at the end. A withdrawn variant is replaced by [`Withdrawn`], so that its number is
//!   never reused; a frame with that number is an [`LinkError::UnknownRequest`].
//! - The fields of a variant, and of the types in it, never change, because postcard does not mark them. New
//!   information needs a new request.
//! - [`VERSION`] grows with every variant that is added or withdrawn. Both sides support a range; they use
//!   the newest version that both know, and send only requests that this version has.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | hello, transact, status, log; reboot, since withdrawn |
//! | 2 | [`Request::Image`]; no reboot: RESTART DEVICE and START BOOT LOADER, inside a session, take its place |

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use postcard::ser_flavors::crc::CrcModifier;
use postcard::ser_flavors::{Cobs, Slice};
use serde::{Deserialize, Serialize};

use crate::device_status::{Image, MAX_BOARD};
use crate::frame::MAX_MESSAGE;

/// The newest version of the link that this crate speaks.
pub const VERSION: u16 = 2;
/// The oldest.
pub const MIN_VERSION: u16 = 1;
/// Bytes of the longest line of a log.
pub const MAX_LINE: usize = 160;
/// Bytes of the longest frame on the wire, both zeros included.
pub const MAX_FRAME: usize = 2 + cobs::max_encoding_length(MAX_CONTENT);
/// Bytes of the longest frame that carries no HSM message.
pub const MAX_SHORT_FRAME: usize = 2 + cobs::max_encoding_length(MAX_SHORT_CONTENT);

/// Number (at most 5 bytes), variant (1), length of the message (at most 2), message, checksum.
const MAX_CONTENT: usize = 5 + 1 + 2 + MAX_MESSAGE + CHECKSUM;
/// The longest are a log line (number, variants, its number, uptime, level, length, text) and a hello.
const MAX_SHORT_CONTENT: usize = 5 + 2 + 5 + 10 + 1 + 2 + MAX_LINE + CHECKSUM;
const CHECKSUM: usize = 4;
static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

const _: () = assert!(MAX_MESSAGE < 1 << 14, "a message's length takes two bytes");
const _: () = assert!(MAX_BOARD < MAX_LINE, "a log line is the longest short content");

/// Takes the place of a withdrawn variant. This type has no value, so none is ever sent or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawn {}

/// The effect of a request. The port is open to every process that the system allows to use it, so these are
/// the only effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Returns information that anyone may have, and changes nothing.
    Tells,
    /// Passes a message to the device, which requires a session for anything but returning information.
    Carries,
}

/// The requests of a host.
///
/// Anyone may send them, without a password. The table lists what each one returns or causes;
/// [`Request::effect`] says it in code.
///
/// | number | request | what it returns |
/// |---|---|---|
/// | 0 | [`Hello`](Self::Hello) | the board's name, the device's serial number, the firmware's version |
/// | 1 | [`Transact`](Self::Transact) | the device's answer: outside a session ECHO, GET DEVICE INFO, GET DEVICE PUBLIC KEY, and the two messages that open a session |
/// | 2 | [`Status`](Self::Status) | current activity, reason of the last start, number of sessions, free storage; see [`Status`] |
/// | 3 | [`Log`](Self::Log) | commands that were refused, and faults of the device; see [`Line`] |
/// | 4 | | withdrawn |
/// | 5 | [`Image`](Self::Image) | the running firmware image |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Identifies the device. Answered by [`Answer::Hello`], or [`LinkError::UnsupportedVersion`].
    Hello {
        /// The oldest version of the link that the host speaks.
        minimum: u16,
        /// The newest.
        version: u16,
    },
    /// Carry out one HSM message, 1 to [`MAX_MESSAGE`] bytes. Answered by [`Answer::Transact`], possibly
    /// after any number of [`Answer::TouchWanted`]; [`LinkError::Busy`] while another message is carried out.
    Transact(&'a [u8]),
    /// How is the device? Answered at once, also while it computes.
    Status,
    /// The first retained log line with this number or a higher one.
    Log {
        /// Lines are numbered from 0 at each start.
        from: u32,
    },
    /// Version 1 had a reboot here.
    #[doc(hidden)]
    Withdrawn(Withdrawn),
    /// Which image runs? Answered by [`Answer::Image`]. Since version 2.
    Image,
}

impl Request<'_> {
    /// Its effect.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Hello { .. } | Self::Status | Self::Log { .. } | Self::Image => Effect::Tells,
            Self::Transact(_) => Effect::Carries,
            Self::Withdrawn(none) => match *none {},
        }
    }
}

/// The answers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// To [`Request::Hello`].
    Hello {
        /// The version of the link that both will speak: the newest that both know.
        version: u16,
        /// The board's name, at most [`MAX_BOARD`] bytes.
        #[serde(borrow)]
        board: &'a str,
        /// The device's serial number.
        serial: u32,
        /// The version of the sshsm firmware: major, minor, patch.
        firmware: [u8; 3],
    },
    /// The answer to an HSM message.
    Transact(&'a [u8]),
    /// The device waits for a touch before it continues a transaction.
    TouchWanted {
        /// How long it waits.
        seconds: u8,
    },
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Log`]; `None` when there is no such line yet.
    Log(#[serde(borrow)] Option<Line<'a>>),
    /// Version 1 answered a reboot here.
    #[doc(hidden)]
    Withdrawn(Withdrawn),
    /// Why the request was not answered.
    Error(LinkError),
    /// To [`Request::Image`]; `None` while the device computes its hash, and on platforms that do not know their image.
    Image(Option<Image>),
}

/// Why a device started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetReason {
    /// Power came on.
    PowerOn,
    /// The reset line or button, or a debugger.
    External,
    /// A session asked for it: RESTART DEVICE.
    Requested,
    /// The firmware hung, and the watchdog noticed.
    Watchdog,
    /// The firmware failed and restarted itself.
    Panic,
    /// The hardware does not say.
    Unknown,
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOn => "power on",
            Self::External => "reset line",
            Self::Requested => "reboot was asked for",
            Self::Watchdog => "watchdog",
            Self::Panic => "the firmware failed",
            Self::Unknown => "unknown",
        })
    }
}

/// The device's current activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// It waits for a message.
    Idle,
    /// It carries one out.
    Busy,
    /// It carries one out and waits to be touched.
    TouchWanted,
    /// It failed and cannot carry out any message: its log says why.
    Failed,
    /// It is starting: a message that arrives now is carried out when the start has ended.
    Starting,
}

/// The state of a device.
///
/// All of it may be public. The free storage reveals that an object was created or deleted, but not which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its current activity.
    pub activity: Activity,
    /// Why it started.
    pub reset: ResetReason,
    /// Milliseconds since then.
    pub uptime: u64,
    /// Open sessions.
    pub sessions: u8,
    /// Objects there is room for.
    pub free_records: u16,
    /// Pages there is room for.
    pub free_pages: u16,
    /// Frames that were dropped as noise since the device started.
    pub dropped: u32,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// As expected.
    Info,
    /// A request was refused.
    Warning,
    /// The device is at fault.
    Error,
}

/// A line of a device's log.
///
/// Anyone may read it. A line therefore names commands, error codes and faults of the device, and **never any
/// content of a message**: no object, no template, no principal. It gives the reason for a refusal only if
/// the reason does not depend on a secret; see `Refusal` in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<'a> {
    /// Its number, from 0 at each start.
    pub number: u32,
    /// Milliseconds since the start.
    pub uptime: u64,
    /// How much it matters.
    pub level: Level,
    /// At most [`MAX_LINE`] bytes.
    pub text: &'a str,
}

/// Why a device cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LinkError {
    /// Host and device have no version of the link in common.
    #[error("the device speaks versions {minimum} to {version} of the link")]
    UnsupportedVersion {
        /// The oldest that the device speaks.
        minimum: u16,
        /// The newest.
        version: u16,
    },
    /// The frame is whole, but this version does not know the request.
    #[error("the device does not know this request")]
    UnknownRequest,
    /// A message is already being carried out.
    #[error("the device is busy with another message")]
    Busy,
    /// Messages have at least one byte and at most this many.
    #[error("the message has no bytes, or more than {0}")]
    WrongLength(u16),
    /// The device cannot carry out any message: its log says why.
    #[error("the device failed; its log says why")]
    Failed,
    /// In version 1: it could not reboot into a boot loader.
    #[doc(hidden)]
    #[error("withdrawn")]
    Withdrawn(Withdrawn),
}

/// The versions that two sides have in common, if any: the newest of them.
#[must_use]
pub fn common_version(minimum: u16, version: u16) -> Option<u16> {
    let newest = version.min(VERSION);
    (newest >= minimum.max(MIN_VERSION)).then_some(newest)
}

/// A message does not fit the buffer it was to be encoded into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link frame does not fit {0} bytes")]
pub struct NoSpace(pub usize);

/// Writes one whole frame (both zeros included) to the front of `out` and returns its length. [`MAX_FRAME`]
/// bytes suffice for any frame, [`MAX_SHORT_FRAME`] for any without an HSM message.
///
/// # Errors
/// [`NoSpace`] when the frame does not fit.
pub fn encode(number: u32, body: &impl Serialize, out: &mut [u8]) -> Result<usize, NoSpace> {
    let room = out.len();
    let (first, rest) = out.split_first_mut().ok_or(NoSpace(room))?;
    *first = 0;
    let stuffed = Cobs::try_new(Slice::new(rest)).map_err(|_| NoSpace(room))?;
    postcard::serialize_with_flavor(&(number, body), CrcModifier::new(stuffed, CRC.digest()))
        .map(|written: &mut [u8]| 1 + written.len())
        .map_err(|_| NoSpace(room))
}

/// Reads the content of a frame: the number, and the body unless it is not known to this version.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Option<(u32, Option<T>)> {
    let (number, rest) = postcard::take_from_bytes::<u32>(content).ok()?;
    let body = match postcard::take_from_bytes::<T>(rest) {
        Ok((body, [])) => Some(body),
        _ => None,
    };
    Some((number, body))
}

/// Finds frames in a stream of bytes.
pub struct Deframer {
    buffer: [u8; MAX_FRAME - 2],
    length: usize,
    /// The frame is longer than any can be.
    overlong: bool,
    dropped: u32,
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deframer {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: [0; MAX_FRAME - 2], length: 0, overlong: false, dropped: 0 }
    }

    /// Takes the next byte; a whole frame's content (for [`decode`]) once it ends here.
    pub fn push(&mut self, byte: u8) -> Option<&[u8]> {
        if byte != 0 {
            match self.buffer.get_mut(self.length) {
                Some(place) => {
                    *place = byte;
                    self.length += 1;
                }
                None => self.overlong = true,
            }
            return None;
        }
        let length = core::mem::take(&mut self.length);
        let overlong = core::mem::take(&mut self.overlong);
        if length == 0 {
            return None;
        }
        let content = (!overlong).then(|| self.buffer.get_mut(..length).and_then(content)).flatten();
        if content.is_none() {
            self.dropped = self.dropped.saturating_add(1);
        }
        content
    }

    /// Frames dropped so far: too long, badly stuffed, wrong checksum.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Discards a partial frame: the stream ended, and another begins.
    pub fn restart(&mut self) {
        self.length = 0;
        self.overlong = false;
    }
}

/// The content of a stuffed frame with a valid checksum.
fn content(stuffed: &mut [u8]) -> Option<&[u8]> {
    let length = cobs::decode_in_place(stuffed).ok()?;
    let (content, checksum) = stuffed.get(..length)?.split_last_chunk::<CHECKSUM>()?;
    (CRC.checksum(content).to_le_bytes() == *checksum).then_some(content)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn frame(number: u32, body: &impl Serialize) -> Vec<u8> {
        let mut out = [0; MAX_FRAME];
        let length = encode(number, body, &mut out).unwrap();
        out[..length].to_vec()
    }

    /// The transactions found in a stream.
    fn transactions(deframer: &mut Deframer, stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        for &byte in stream {
            if let Some((number, Some(Request::Transact(message)))) = deframer.push(byte).and_then(decode) {
                found.push((number, message.to_vec()));
            }
        }
        found
    }

    #[test]
    fn a_frame_is_what_the_documentation_says() {
        // number 5 ‖ variant 1 ‖ length 3 ‖ message
        let content = [5, 1, 3, 6, 0, 0];
        let crc = CRC.checksum(&content);
        assert_eq!(CRC.checksum(b"123456789"), 0xcbf4_3926, "CRC-32/ISO-HDLC's check value");
        let [a, b, c, d] = crc.to_le_bytes();
        assert_eq!(
            frame(5, &Request::Transact(&[6, 0, 0])),
            [0, 5, 5, 1, 3, 6, 1, 5, a, b, c, d, 0],
            "two zeros of the message are stuffed"
        );
    }

    #[test]
    fn the_longest_contents_fit_their_buffers_exactly() {
        let message = [0xff; MAX_MESSAGE];
        assert_eq!(frame(u32::MAX, &Request::Transact(&message)).len(), MAX_FRAME);
        assert_eq!(frame(u32::MAX, &Answer::Transact(&message)).len(), MAX_FRAME);
        let text = String::from_utf8(std::vec![b'x'; MAX_LINE]).unwrap();
        let line = Line { number: u32::MAX, uptime: u64::MAX, level: Level::Error, text: &text };
        assert_eq!(frame(u32::MAX, &Answer::Log(Some(line))).len(), MAX_SHORT_FRAME);
        assert_eq!(encode(0, &Request::Status, &mut [0; 3]), Err(NoSpace(3)));
    }

    #[test]
    fn a_frame_beyond_the_limit_is_dropped_whole_and_the_next_one_read() {
        let mut stream = std::vec![0x55; MAX_FRAME + 1];
        stream.extend(frame(9, &Request::Transact(&[6, 0, 0])));
        let mut deframer = Deframer::new();
        assert_eq!(transactions(&mut deframer, &stream), [(9, std::vec![6, 0, 0])]);
        assert_eq!(deframer.dropped(), 1);
    }

    #[test]
    fn a_body_of_a_later_version_still_has_its_number() {
        let future = frame(77, &(200_u8, 1_u8));
        let mut stuffed = future[1..future.len() - 1].to_vec();
        assert_eq!(decode::<Request<'_>>(content(&mut stuffed).unwrap()), Some((77, None)));
    }

    #[test]
    fn trailing_bytes_make_a_body_unknown() {
        let long = frame(1, &(Request::Status, 0_u8));
        let mut stuffed = long[1..long.len() - 1].to_vec();
        assert_eq!(decode::<Request<'_>>(content(&mut stuffed).unwrap()), Some((1, None)));
    }

    /// The possible bodies for a number: nothing, or up to 12 bytes that do not encode a later request.
    fn bodies(number: u8) -> impl Iterator<Item = Vec<u8>> {
        let fills = [0_u8, 1, 2, 3, 0x7f];
        (0..12).flat_map(move |length| fills.map(|fill| [&[number][..], &std::vec![fill; length]].concat()))
    }

    /// Requires no authentication: this lists everything the link can do, and a new request must be added
    /// here too.
    #[test]
    fn no_link_frame_does_more_than_tell_or_carry_a_message() {
        let mut found = Vec::new();
        // Numbers of one byte; postcard writes larger ones as more.
        for number in 0..0x80 {
            let effects: Vec<Effect> = bodies(number)
                .filter_map(|body| {
                    postcard::from_bytes::<Request<'_>>(&body).map(|request| request.effect()).ok()
                })
                .collect();
            if let Some(effect) = effects.first() {
                assert!(effects.iter().all(|other| other == effect));
                found.push((number, *effect));
            }
        }
        assert_eq!(
            found,
            [
                (0, Effect::Tells),   // hello
                (1, Effect::Carries), // transact
                (2, Effect::Tells),   // status
                (3, Effect::Tells),   // log
                (5, Effect::Tells),   // image
            ]
        );
    }

    /// Version 1's reboot into the boot loader, and its parameter: a withdrawn number is not a request in any
    /// version.
    #[test]
    fn a_withdrawn_number_is_an_unknown_request_and_stands_for_no_other() {
        for body in [[4, 0], [4, 1]] {
            assert!(postcard::from_bytes::<Request<'_>>(&body).is_err(), "{body:?}");
        }
        assert!(postcard::from_bytes::<Answer<'_>>(&[5]).is_err());
        let mut room = [0; 64];
        let mut encoded = |answer: &Answer<'_>| postcard::to_slice(answer, &mut room).unwrap().to_vec();
        let unsupported = LinkError::UnsupportedVersion { minimum: 1, version: 2 };
        assert_eq!(encoded(&Answer::Error(unsupported)), [6, 0, 1, 2], "as in version 1");
        assert_eq!(encoded(&Answer::Error(LinkError::UnknownRequest)), [6, 1]);
        assert_eq!(encoded(&Answer::Image(None)), [7, 0]);
        assert_eq!(postcard::to_slice(&Request::Image, &mut room).unwrap(), [5]);
    }

    #[test]
    fn versions_in_common_are_found() {
        assert_eq!(common_version(1, 1), Some(1));
        assert_eq!(common_version(1, 9), Some(VERSION));
        assert_eq!(common_version(VERSION + 1, VERSION + 1), None);
        assert_eq!(common_version(0, 0), None);
    }

    proptest! {
        #[test]
        fn noise_never_yields_a_wrong_message_and_never_blocks_the_next_good_one(
            parts in vec((vec(any::<u8>(), 0..400), vec(any::<u8>(), 1..MAX_MESSAGE), any::<u32>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut stream = Vec::new();
            let mut sent = Vec::new();
            for (noise, message, number) in &parts {
                // Noise before the frame, and a truncated frame.
                stream.extend(noise);
                let whole = frame(number.wrapping_add(1), &Request::Transact(message));
                stream.extend(&whole[..cut.index(whole.len() - 1)]);
                stream.extend(frame(*number, &Request::Transact(message)));
                sent.push((*number, message.clone()));
            }
            prop_assert_eq!(transactions(&mut Deframer::new(), &stream), sent);
        }

        #[test]
        fn a_damaged_frame_is_dropped_and_the_next_one_read(
            message in vec(any::<u8>(), 1..600),
            place in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let mut stream = frame(1, &Request::Transact(&message));
            let place = 1 + place.index(stream.len() - 2);
            stream[place] ^= flip;
            stream.extend(frame(2, &Request::Transact(&message)));
            prop_assert_eq!(transactions(&mut Deframer::new(), &stream), [(2, message)]);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(stream in vec(any::<u8>(), 0..4000)) {
            let mut deframer = Deframer::new();
            for byte in stream {
                if let Some(content) = deframer.push(byte) {
                    let _ = decode::<Request<'_>>(content);
                    let _ = decode::<Answer<'_>>(content);
                }
            }
        }
    }
}
