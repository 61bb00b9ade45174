//! What a device reports about itself and its sessions to clients in a session: GET DEVICE STATUS, an
//! extension command.

use serde::{Deserialize, Serialize};

use crate::audit::{Digest, LogMark};
use crate::codec::{CodecError, Reader, Writer};
use crate::option::{AuditMode, UserPresence};

/// Bytes of the longest board name.
pub const MAX_BOARD: usize = 32;

/// The running firmware image, as stored in flash from its first byte to its last: the blocks of its UF2
/// file, and the bytes that `cargo xtask firmware` writes to `BOARD.bin`.
///
/// This is a statement by the firmware about itself. See docs/boards.md for what it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// Bytes.
    pub length: u32,
}

/// The answer to GET DEVICE STATUS; fields in this order on the wire, after the byte
/// [`DeviceStatus::LAYOUT`].
///
/// A later layout only adds fields at the end: a reader takes the fields that it knows and ignores the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStatus<'a> {
    /// The version of the sshsm firmware: major, minor, patch.
    pub firmware: [u8; 3],
    /// Whether there is something to touch: bit 0 of a byte.
    pub button: bool,
    /// Whether START BOOT LOADER can do it: bit 1 of that byte.
    pub boot_loader: bool,
    /// Whether templates are frozen: bit 3 of that byte.
    pub templates_frozen: bool,
    /// Sessions whose host has authenticated, including the one that asks: one byte.
    pub sessions: u8,
    /// Sessions created but not authenticated: one byte. Anyone can create one.
    pub half_open: u8,
    /// Whether every command is logged: one byte.
    pub force_audit: AuditMode,
    /// The operations that need a touch: two bytes.
    pub presence: UserPresence,
    /// The running image, `length u32 ‖ SHA-256[32]`; `None`, and zeros, if it is not known: bit 2 of the
    /// byte of flags.
    pub image: Option<Image>,
    /// The board's name, at most [`MAX_BOARD`] bytes: its length, one byte, and the name.
    pub board: &'a str,
    /// The newest entry of the audit log, whether read or not: `number u16 ‖ digest[16]`, since layout 2;
    /// `None` in an earlier one, and written as zeros. The log never has an entry about this command.
    ///
    /// A session that may sign but not read the log asks for it before and after a command, and so learns
    /// which entries can be about that command.
    pub log: Option<LogMark>,
}

impl<'a> DeviceStatus<'a> {
    /// The layout of this type, the first byte.
    pub const LAYOUT: u8 = 2;
    /// The maximum number of bytes on the wire.
    pub const MAX_LENGTH: usize =
        1 + 3 + 1 + 1 + 1 + 1 + UserPresence::LENGTH + 4 + 32 + 1 + MAX_BOARD + 2 + size_of::<Digest>();

    const BUTTON: u8 = 1;
    const BOOT_LOADER: u8 = 2;
    const IMAGE: u8 = 4;
    const FROZEN: u8 = 8;

    /// Writes all fields.
    ///
    /// # Errors
    /// When there is no room.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.button, Self::BUTTON)
            | flag(self.boot_loader, Self::BOOT_LOADER)
            | flag(self.image.is_some(), Self::IMAGE)
            | flag(self.templates_frozen, Self::FROZEN);
        writer.u8(Self::LAYOUT)?;
        writer.bytes(&self.firmware)?;
        writer.u8(flags)?;
        writer.u8(self.sessions)?;
        writer.u8(self.half_open)?;
        writer.u8(self.force_audit.code())?;
        writer.bytes(&self.presence.encode())?;
        let image = self.image.unwrap_or(Image { sha256: [0; 32], length: 0 });
        writer.u32(image.length)?;
        writer.bytes(&image.sha256)?;
        let board = self.board.as_bytes();
        let (needed, available) = (board.len(), usize::from(u8::MAX));
        writer.u8(u8::try_from(needed).map_err(|_| CodecError::NoSpace { needed, available })?)?;
        writer.bytes(board)?;
        let log = self.log.unwrap_or(LogMark { number: 0, digest: [0; 16] });
        writer.u16(log.number)?;
        writer.bytes(&log.digest)
    }

    /// Decodes the status and ignores any fields that a later layout adds.
    ///
    /// # Errors
    /// [`StatusError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, StatusError> {
        let mut reader = Reader::new(bytes);
        let layout = reader.u8()?;
        if layout == 0 {
            return Err(StatusError::Field("layout", layout));
        }
        let firmware = reader.array()?;
        let flags = reader.u8()?;
        let (sessions, half_open) = (reader.u8()?, reader.u8()?);
        let audit = reader.u8()?;
        let force_audit = AuditMode::from_code(audit).ok_or(StatusError::Field("force audit", audit))?;
        let presence: [u8; UserPresence::LENGTH] = reader.array()?;
        let [mode, _] = presence;
        let presence = UserPresence::decode(presence).ok_or(StatusError::Field("user presence", mode))?;
        let (length, sha256) = (reader.u32()?, reader.array()?);
        let length_of_board = reader.u8()?;
        let board = str::from_utf8(reader.take(length_of_board.into())?)
            .ok()
            .filter(|board| board.len() <= MAX_BOARD)
            .ok_or(StatusError::Board)?;
        let log = match layout {
            1 => None,
            _ => Some(LogMark { number: reader.u16()?, digest: reader.array()? }),
        };
        Ok(Self {
            firmware,
            button: flags & Self::BUTTON != 0,
            boot_loader: flags & Self::BOOT_LOADER != 0,
            templates_frozen: flags & Self::FROZEN != 0,
            sessions,
            half_open,
            force_audit,
            presence,
            image: (flags & Self::IMAGE != 0).then_some(Image { sha256, length }),
            board,
            log,
        })
    }
}

/// Why an answer to GET DEVICE STATUS cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// It ends before its last field.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A field has a value that no version assigns to it.
    #[error("its {0} is {1}")]
    Field(&'static str, u8),
    /// The board's name is not UTF-8, or longer than [`MAX_BOARD`].
    #[error("its board has no name that could be read")]
    Board,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::option::PresenceMode;
    use proptest::prelude::*;
    use std::vec::Vec;

    const STATUS: DeviceStatus<'_> = DeviceStatus {
        firmware: [1, 2, 3],
        button: true,
        boot_loader: false,
        templates_frozen: true,
        sessions: 2,
        half_open: 1,
        force_audit: AuditMode::Fix,
        presence: UserPresence { mode: PresenceMode::Certificates, timeout: 9 },
        image: Some(Image { sha256: [0xab; 32], length: 0x0001_0203 }),
        board: "pico2",
        log: Some(LogMark { number: 0x0405, digest: [0xcd; 16] }),
    };

    fn encoded(status: &DeviceStatus<'_>) -> Vec<u8> {
        let mut bytes = [0; DeviceStatus::MAX_LENGTH];
        let mut writer = Writer::new(&mut bytes);
        status.encode(&mut writer).unwrap();
        writer.written().to_vec()
    }

    #[test]
    fn the_layout_is_what_its_documentation_says() {
        let expected = [
            &[2, 1, 2, 3, 0b1101, 2, 1, 2, 1, 9, 0, 1, 2, 3][..],
            &[0xab; 32],
            b"\x05pico2\x04\x05",
            &[0xcd; 16],
        ]
        .concat();
        assert_eq!(encoded(&STATUS), expected);
        assert_eq!(DeviceStatus::decode(&expected), Ok(STATUS));
        let longest = DeviceStatus { board: core::str::from_utf8(&[b'x'; MAX_BOARD]).unwrap(), ..STATUS };
        assert_eq!(encoded(&longest).len(), DeviceStatus::MAX_LENGTH);
    }

    #[test]
    fn a_device_that_does_not_know_its_image_says_none() {
        let status =
            DeviceStatus { image: None, button: false, boot_loader: true, templates_frozen: false, ..STATUS };
        let bytes = encoded(&status);
        assert_eq!(bytes[4], 0b010);
        assert_eq!(DeviceStatus::decode(&bytes), Ok(status));
    }

    #[test]
    fn what_a_later_layout_adds_is_left_and_what_is_missing_or_meaningless_is_an_error() {
        let whole = encoded(&STATUS);
        let mut later = [&whole[..], &[7, 7]].concat();
        later[0] = 3;
        assert_eq!(DeviceStatus::decode(&later), Ok(STATUS));
        let mut earlier = whole[..whole.len() - 18].to_vec();
        earlier[0] = 1;
        assert_eq!(DeviceStatus::decode(&earlier), Ok(DeviceStatus { log: None, ..STATUS }));
        for length in 0..whole.len() {
            assert!(matches!(DeviceStatus::decode(&whole[..length]), Err(StatusError::Codec(_))), "{length}");
        }
        for (at, value, wrong) in [
            (0, 0, StatusError::Field("layout", 0)),
            (7, 3, StatusError::Field("force audit", 3)),
            (8, 3, StatusError::Field("user presence", 3)),
            (47, 0xff, StatusError::Board),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(DeviceStatus::decode(&bytes), Err(wrong), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = DeviceStatus::decode(&bytes);
        }
    }
}
