//! Message framing: `code u8 ‖ length u16 ‖ payload`, for requests, responses and errors alike.

use crate::codec::{CodecError, Reader};
use crate::command::Command;
use crate::error::DeviceError;

/// Bytes before the payload.
pub const HEADER_LENGTH: usize = 3;
/// The largest whole message, header included, of firmware 2.4 and later.
pub const MAX_MESSAGE: usize = 3136;
/// The largest whole message of firmware before 2.4.
pub const MAX_MESSAGE_BEFORE_2_4: usize = 2048;
/// The largest payload of a plain message.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - HEADER_LENGTH;
/// Session id and truncated MAC around the ciphertext of a session message.
pub const SESSION_OVERHEAD: usize = HEADER_LENGTH + 1 + 8;
/// The largest ciphertext of a session message: whole AES blocks.
pub const MAX_CIPHERTEXT: usize = (MAX_MESSAGE - SESSION_OVERHEAD) / 16 * 16;
/// The largest payload of a command inside a session: header and at least one byte of padding go off.
pub const MAX_INNER_PAYLOAD: usize = MAX_CIPHERTEXT - HEADER_LENGTH - 1;

const _: () = assert!(MAX_CIPHERTEXT == 3120 && MAX_INNER_PAYLOAD == 3116);

/// Set in the code of a successful response.
pub const RESPONSE_FLAG: u8 = 0x80;
/// The code of an error response; it does not get [`RESPONSE_FLAG`].
pub const ERROR_CODE: u8 = 0x7f;

/// One message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Command code, response code or [`ERROR_CODE`].
    pub code: u8,
    /// Exactly as long as the header says.
    pub payload: &'a [u8],
}

/// Why bytes are not one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a frame header of 3")]
    NoHeader(usize),
    /// The header's length and the bytes received differ.
    #[error("frame header says {stated} payload bytes, {received} received")]
    LengthMismatch {
        /// The length in the header.
        stated: usize,
        /// What followed it.
        received: usize,
    },
}

/// Why a frame is not the answer that a command succeeded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The device refused the command.
    #[error("the device refused: {0}")]
    Refused(DeviceError),
    /// The device refused the command with a code that has no meaning.
    #[error("the device refused with the undefined error code {0:#04x}")]
    UndefinedError(u8),
    /// It answers another command.
    #[error("it has the code {0:#04x}")]
    OtherCode(u8),
    /// It is not a frame.
    #[error(transparent)]
    Malformed(#[from] FrameError),
}

impl<'a> Frame<'a> {
    /// The payload of the answer to a command, if it succeeded.
    pub fn answer(self, command: Command) -> Result<&'a [u8], AnswerError> {
        match (self.code, self.payload) {
            (ERROR_CODE, &[code]) => Err(match DeviceError::from_code(code) {
                Some(error) => AnswerError::Refused(error),
                None => AnswerError::UndefinedError(code),
            }),
            (code, payload) if code == command.code() | RESPONSE_FLAG => Ok(payload),
            (code, _) => Err(AnswerError::OtherCode(code)),
        }
    }

    /// Reads exactly one frame: the length field must match the bytes that follow.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let header = reader.array::<HEADER_LENGTH>().map_err(|_| FrameError::NoHeader(bytes.len()))?;
        let [code, high, low] = header;
        let stated = usize::from(u16::from_be_bytes([high, low]));
        let payload = reader.rest();
        if payload.len() != stated {
            return Err(FrameError::LengthMismatch { stated, received: payload.len() });
        }
        Ok(Self { code, payload })
    }

    /// Reads a frame from the front of decrypted plaintext and ignores what follows it.
    ///
    /// Padding is not checked: some clients leave it out when the frame is aligned, and the bytes are
    /// authenticated as they are.
    pub fn parse_padded(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let [code, high, low] =
            reader.array::<HEADER_LENGTH>().map_err(|_| FrameError::NoHeader(bytes.len()))?;
        let stated = usize::from(u16::from_be_bytes([high, low]));
        let received = reader.remaining();
        let payload = reader.take(stated).map_err(|_| FrameError::LengthMismatch { stated, received })?;
        Ok(Self { code, payload })
    }

    /// Writes the frame to the front of `out` and returns its length.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, CodecError> {
        let needed = HEADER_LENGTH + self.payload.len();
        let available = out.len();
        let room = out.get_mut(HEADER_LENGTH..needed).ok_or(CodecError::NoSpace { needed, available })?;
        room.copy_from_slice(self.payload);
        write_header(self.code, self.payload.len(), out)
    }
}

/// Writes the header for a payload that is already at `out[3..]`; returns the whole frame's length.
pub fn write_header(code: u8, payload_length: usize, out: &mut [u8]) -> Result<usize, CodecError> {
    let available = out.len();
    let needed = HEADER_LENGTH + payload_length;
    let length = u16::try_from(payload_length).map_err(|_| CodecError::NoSpace { needed, available })?;
    let [high, low] = length.to_be_bytes();
    match out.get_mut(..needed).and_then(<[u8]>::first_chunk_mut::<HEADER_LENGTH>) {
        Some(header) => *header = [code, high, low],
        None => return Err(CodecError::NoSpace { needed, available }),
    }
    Ok(needed)
}

/// The four bytes of an error response.
#[must_use]
pub const fn error_frame(error: DeviceError) -> [u8; HEADER_LENGTH + 1] {
    [ERROR_CODE, 0, 1, error.code()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_field_must_match() {
        assert_eq!(Frame::parse(&[1, 0, 1, 9]), Ok(Frame { code: 1, payload: &[9] }));
        assert_eq!(Frame::parse(&[1, 0]), Err(FrameError::NoHeader(2)));
        assert_eq!(Frame::parse(&[1, 0, 2, 9]), Err(FrameError::LengthMismatch { stated: 2, received: 1 }));
        assert_eq!(Frame::parse(&[1, 0, 0, 9]), Err(FrameError::LengthMismatch { stated: 0, received: 1 }));
    }

    #[test]
    fn an_answer_is_to_its_command_or_the_devices_error() {
        let answer = |code, payload| Frame { code, payload }.answer(Command::Echo);
        assert_eq!(answer(0x81, &[9, 9]), Ok([9, 9].as_slice()));
        assert_eq!(answer(0x82, &[9]), Err(AnswerError::OtherCode(0x82)));
        assert_eq!(answer(0x01, &[9]), Err(AnswerError::OtherCode(0x01)));
        assert_eq!(answer(0x7f, &[0x0b]), Err(AnswerError::Refused(DeviceError::ObjectNotFound)));
        assert_eq!(answer(0x7f, &[0xee]), Err(AnswerError::UndefinedError(0xee)));
        assert_eq!(answer(0x7f, &[1, 2]), Err(AnswerError::OtherCode(0x7f)));
    }

    #[test]
    fn padding_after_an_inner_frame_is_ignored_but_a_short_one_is_not() {
        assert_eq!(Frame::parse_padded(&[1, 0, 1, 9, 0x80, 0]), Ok(Frame { code: 1, payload: &[9] }));
        assert_eq!(Frame::parse_padded(&[1, 0, 1, 9]), Ok(Frame { code: 1, payload: &[9] }));
        assert!(Frame::parse_padded(&[1, 0, 2, 9]).is_err());
    }
}
