//! Objects: what a device stores, and how it is named and described on the wire.

use crate::algorithm::Algorithm;
use crate::capability::{Capabilities, Capability};
use crate::codec::{CodecError, Reader, Writer};
use crate::domain::Domains;
use crate::error::DeviceError;
use crate::label::Label;

/// The name of an object among those of its type: 1…0xfffe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u16);

/// 0 and 0xffff name no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("object id {0:#06x} names no object; ids are 0x0001 to 0xfffe")]
pub struct InvalidObjectId(pub u16);

impl ObjectId {
    /// The authentication key that a fresh device has.
    pub const DEFAULT_AUTHENTICATION_KEY: Self = Self(1);

    /// The id with this number.
    pub const fn new(id: u16) -> Result<Self, InvalidObjectId> {
        match id {
            0 | 0xffff => Err(InvalidObjectId(id)),
            id => Ok(Self(id)),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl core::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

macro_rules! object_types {
    ($($code:literal $name:ident $text:literal $delete:ident,)*) => {
        /// What kind of thing an object is. Objects of different types may share an id.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ObjectType {
            $(#[doc = concat!("`", $text, "`, number ", stringify!($code))] $name = $code,)*
        }

        impl ObjectType {
            /// Every type, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that YubiHSM's tools use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The type with this number, if one is defined.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The capability that a session needs to delete an object of this type.
            #[must_use]
            pub const fn delete_capability(self) -> Capability {
                match self { $(Self::$name => Capability::$delete,)* }
            }
        }
    };
}

object_types! {
    1 Opaque "opaque" DeleteOpaque,
    2 AuthenticationKey "authentication-key" DeleteAuthenticationKey,
    3 AsymmetricKey "asymmetric-key" DeleteAsymmetricKey,
    4 WrapKey "wrap-key" DeleteWrapKey,
    5 HmacKey "hmac-key" DeleteHmacKey,
    6 Template "template" DeleteTemplate,
    7 OtpAeadKey "otp-aead-key" DeleteOtpAeadKey,
    8 SymmetricKey "symmetric-key" DeleteSymmetricKey,
    9 PublicWrapKey "public-wrap-key" DeletePublicWrapKey,
}

impl ObjectType {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|object_type| object_type.name() == name)
    }

    /// Whether objects of this type pass capabilities on, and so carry a delegated set.
    #[must_use]
    pub const fn has_delegated_capabilities(self) -> bool {
        matches!(self, Self::AuthenticationKey | Self::WrapKey | Self::PublicWrapKey)
    }
}

impl core::fmt::Display for ObjectType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The origin of an object's secret; `WRAPPED` is or-ed in if it was imported from a wrapped export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(u8);

impl Origin {
    /// Made on the device.
    pub const GENERATED: Self = Self(0x01);
    /// Put by a client.
    pub const IMPORTED: Self = Self(0x02);

    /// The origin with this number: 01, 02, 11 or 12.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 | 0x02 | 0x11 | 0x12 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The origin of this object once it has been imported from a wrapped export.
    #[must_use]
    pub const fn wrapped(self) -> Self {
        Self(self.0 | 0x10)
    }

    /// The names that YubiHSM's tools print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x01 => "generated",
            0x02 => "imported",
            0x11 => "generated:imported_wrapped",
            _ => "imported:imported_wrapped",
        }
    }
}

/// The attributes that the creator gives an object: the first 53 bytes of every put and generate command.
///
/// On the wire: `id u16 ‖ label[40] ‖ domains u16 ‖ capabilities[8] ‖ algorithm u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewObject {
    /// The requested id; `None` (0 on the wire) lets the device choose.
    pub id: Option<ObjectId>,
    /// Free text.
    pub label: Label,
    /// The domains in which the object is visible.
    pub domains: Domains,
    /// What the object may be used for.
    pub capabilities: Capabilities,
    /// Its algorithm.
    pub algorithm: Algorithm,
}

impl NewObject {
    /// Bytes on the wire.
    pub const LENGTH: usize = ObjectHeader::LENGTH;

    /// Reads the 53 bytes; an id of 0xffff is `InvalidId`, an unknown algorithm `InvalidData`.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DeviceError> {
        ObjectHeader::decode(reader)?.interpret()
    }

    /// Writes the 53 bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        ObjectHeader::from(self).encode(writer)
    }
}

/// A [`NewObject`] with the numbers that are on the wire, whatever they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHeader {
    /// The requested id; 0 lets the device choose.
    pub id: u16,
    /// Free text.
    pub label: Label,
    /// The domains in which the object is visible.
    pub domains: Domains,
    /// What the object may be used for.
    pub capabilities: Capabilities,
    /// Its algorithm.
    pub algorithm: u8,
}

impl ObjectHeader {
    /// Bytes on the wire.
    pub const LENGTH: usize = 2 + Label::LENGTH + 2 + 8 + 1;

    /// Reads the 53 bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: reader.u16()?,
            label: Label::from_bytes(reader.array()?),
            domains: Domains::from_bits(reader.u16()?),
            capabilities: Capabilities::from_bits(reader.u64()?),
            algorithm: reader.u8()?,
        })
    }

    /// Writes the 53 bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.id)?;
        writer.bytes(self.label.as_bytes())?;
        writer.u16(self.domains.bits())?;
        writer.bytes(&self.capabilities.bits().to_be_bytes())?;
        writer.u8(self.algorithm)
    }

    /// Interprets the numbers; an id of 0xffff is `InvalidId`, an unknown algorithm `InvalidData`.
    pub fn interpret(&self) -> Result<NewObject, DeviceError> {
        Ok(NewObject {
            id: match self.id {
                0 => None,
                id => Some(ObjectId::new(id).map_err(|_| DeviceError::InvalidId)?),
            },
            label: self.label,
            domains: self.domains,
            capabilities: self.capabilities,
            algorithm: Algorithm::from_code(self.algorithm).ok_or(DeviceError::InvalidData)?,
        })
    }
}

impl From<&NewObject> for ObjectHeader {
    fn from(object: &NewObject) -> Self {
        Self {
            id: object.id.map_or(0, ObjectId::get),
            label: object.label,
            domains: object.domains,
            capabilities: object.capabilities,
            algorithm: object.algorithm.code(),
        }
    }
}

/// Everything about an object but its content: the 66 bytes of GET OBJECT INFO.
///
/// On the wire: `capabilities[8] ‖ id u16 ‖ length u16 ‖ domains u16 ‖ type u8 ‖ algorithm u8 ‖ sequence u8 ‖
/// origin u8 ‖ label[40] ‖ delegated capabilities[8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// What the object may be used for.
    pub capabilities: Capabilities,
    /// Its name.
    pub id: ObjectId,
    /// Bytes of its content as YubiHSM 2 counts them.
    pub length: u16,
    /// The domains in which it is visible.
    pub domains: Domains,
    /// Its type.
    pub object_type: ObjectType,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// How often an object of this name has been created before, modulo 256.
    pub sequence: u8,
    /// The origin of its content.
    pub origin: Origin,
    /// Free text.
    pub label: Label,
    /// The capabilities that it may pass on; empty for types that do not delegate.
    pub delegated_capabilities: Capabilities,
}

impl ObjectInfo {
    /// Bytes on the wire.
    pub const LENGTH: usize = 66;

    /// Reads the 66 bytes; undefined numbers are `InvalidData`.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DeviceError> {
        Ok(Self {
            capabilities: Capabilities::from_bits(reader.u64()?),
            id: ObjectId::new(reader.u16()?).map_err(|_| DeviceError::InvalidId)?,
            length: reader.u16()?,
            domains: Domains::from_bits(reader.u16()?),
            object_type: ObjectType::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?,
            algorithm: Algorithm::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?,
            sequence: reader.u8()?,
            origin: Origin::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?,
            label: Label::from_bytes(reader.array()?),
            delegated_capabilities: Capabilities::from_bits(reader.u64()?),
        })
    }

    /// Writes the 66 bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self.capabilities.bits().to_be_bytes())?;
        writer.u16(self.id.get())?;
        writer.u16(self.length)?;
        writer.u16(self.domains.bits())?;
        writer.u8(self.object_type.code())?;
        writer.u8(self.algorithm.code())?;
        writer.u8(self.sequence)?;
        writer.u8(self.origin.code())?;
        writer.bytes(self.label.as_bytes())?;
        writer.bytes(&self.delegated_capabilities.bits().to_be_bytes())
    }
}

/// One row of LIST OBJECTS: `id u16 ‖ type u8 ‖ sequence u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The object's name.
    pub id: ObjectId,
    /// The object's type.
    pub object_type: ObjectType,
    /// The object's sequence number.
    pub sequence: u8,
}

impl ListEntry {
    /// Reads four bytes; undefined numbers are `InvalidData`.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DeviceError> {
        Ok(Self {
            id: ObjectId::new(reader.u16()?).map_err(|_| DeviceError::InvalidId)?,
            object_type: ObjectType::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?,
            sequence: reader.u8()?,
        })
    }

    /// Writes four bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.id.get())?;
        writer.u8(self.object_type.code())?;
        writer.u8(self.sequence)
    }
}

/// What LIST OBJECTS is asked for; every filter that is present must match.
///
/// On the wire each is `tag u8 ‖ value` without a length: 1 id, 2 type, 3 domains, 4 capabilities, 5 algorithm,
/// 6 label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Equal to this id (the wire allows any number here).
    pub id: Option<u16>,
    /// Of this type.
    pub object_type: Option<ObjectType>,
    /// In at least one of these domains.
    pub domains: Option<Domains>,
    /// Having at least one of these capabilities.
    pub capabilities: Option<Capabilities>,
    /// Of this algorithm.
    pub algorithm: Option<Algorithm>,
    /// With this label.
    pub label: Option<Label>,
}

impl ListFilter {
    /// Reads filters to the end; an unknown tag or number is `InvalidData`. A repeated filter replaces.
    pub fn decode(mut reader: Reader<'_>) -> Result<Self, DeviceError> {
        let mut filter = Self::default();
        while reader.remaining() > 0 {
            match reader.u8()? {
                1 => filter.id = Some(reader.u16()?),
                2 => {
                    filter.object_type =
                        Some(ObjectType::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?);
                }
                3 => filter.domains = Some(Domains::from_bits(reader.u16()?)),
                4 => filter.capabilities = Some(Capabilities::from_bits(reader.u64()?)),
                5 => {
                    filter.algorithm =
                        Some(Algorithm::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?);
                }
                6 => filter.label = Some(Label::from_bytes(reader.array()?)),
                _ => return Err(DeviceError::InvalidData),
            }
        }
        Ok(filter)
    }

    /// Writes the filters that are present.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        if let Some(id) = self.id {
            writer.u8(1)?;
            writer.u16(id)?;
        }
        if let Some(object_type) = self.object_type {
            writer.bytes(&[2, object_type.code()])?;
        }
        if let Some(domains) = self.domains {
            writer.u8(3)?;
            writer.u16(domains.bits())?;
        }
        if let Some(capabilities) = self.capabilities {
            writer.u8(4)?;
            writer.bytes(&capabilities.bits().to_be_bytes())?;
        }
        if let Some(algorithm) = self.algorithm {
            writer.bytes(&[5, algorithm.code()])?;
        }
        if let Some(label) = &self.label {
            writer.u8(6)?;
            writer.bytes(label.as_bytes())?;
        }
        Ok(())
    }

    /// Whether an object passes every filter.
    #[must_use]
    pub fn matches(&self, info: &ObjectInfo) -> bool {
        self.id.is_none_or(|id| id == info.id.get())
            && self.object_type.is_none_or(|object_type| object_type == info.object_type)
            && self.domains.is_none_or(|domains| domains.intersects(info.domains))
            && self.capabilities.is_none_or(|wanted| wanted.intersects(info.capabilities))
            && self.algorithm.is_none_or(|algorithm| algorithm == info.algorithm)
            && self.label.is_none_or(|label| label.trimmed() == info.label.trimmed())
    }
}
