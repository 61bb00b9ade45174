//! What a device reports about itself: identity, algorithms and storage usage.

use crate::codec::{CodecError, Reader, Writer};

/// A firmware version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Patch level.
    pub patch: u8,
}

impl Version {
    /// The first version with 3136-byte messages and a second page of device info.
    pub const LARGE_MESSAGES: Self = Self { major: 2, minor: 4, patch: 0 };

    /// The largest whole message, in bytes, that a device of this version accepts.
    #[must_use]
    pub fn max_message(self) -> usize {
        if self >= Self::LARGE_MESSAGES {
            crate::frame::MAX_MESSAGE
        } else {
            crate::frame::MAX_MESSAGE_BEFORE_2_4
        }
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Page 0 of GET DEVICE INFO: `major u8 ‖ minor u8 ‖ patch u8 ‖ serial u32 ‖ log total u8 ‖ log used u8 ‖
/// algorithm u8 …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo<'a> {
    /// The YubiHSM 2 firmware whose behaviour the device reproduces.
    pub version: Version,
    /// Serial number, not 0.
    pub serial: u32,
    /// Audit log entries there is room for.
    pub log_total: u8,
    /// Audit log entries in use.
    pub log_used: u8,
    /// Numbers of the supported algorithms, ascending.
    pub algorithms: &'a [u8],
}

impl<'a> DeviceInfo<'a> {
    /// Reads a whole payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        let [major, minor, patch] = reader.array()?;
        Ok(Self {
            version: Version { major, minor, patch },
            serial: reader.u32()?,
            log_total: reader.u8()?,
            log_used: reader.u8()?,
            algorithms: reader.rest(),
        })
    }

    /// Writes the payload.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&[self.version.major, self.version.minor, self.version.patch])?;
        writer.u32(self.serial)?;
        writer.bytes(&[self.log_total, self.log_used])?;
        writer.bytes(self.algorithms)
    }
}

/// GET STORAGE INFO: five u16 in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageInfo {
    /// Objects there is room for.
    pub total_records: u16,
    /// Objects that can still be stored.
    pub free_records: u16,
    /// Pages there is room for.
    pub total_pages: u16,
    /// Pages that are free.
    pub free_pages: u16,
    /// Bytes a page.
    pub page_size: u16,
}

impl StorageInfo {
    /// Reads a whole payload.
    pub fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        let info = Self {
            total_records: reader.u16()?,
            free_records: reader.u16()?,
            total_pages: reader.u16()?,
            free_pages: reader.u16()?,
            page_size: reader.u16()?,
        };
        reader.finish()?;
        Ok(info)
    }

    /// Writes the payload.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.total_records)?;
        writer.u16(self.free_records)?;
        writer.u16(self.total_pages)?;
        writer.u16(self.free_pages)?;
        writer.u16(self.page_size)
    }
}
