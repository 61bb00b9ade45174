//! The layout of every command's payload, each declared once: `request.rs` has the payloads of commands,
//! [`reply`] the answers that are parsed in more than one place.
//!
//! A message consists of fixed-size fields in wire order, big-endian, and possibly a tail: the rest of the
//! payload, between a minimum and a maximum length. Encoding, decoding, the lengths in the [command
//! table](crate::command), and the offsets at which the audit log finds key ids all follow from the
//! declaration. So do the algorithms that a command uses with a key, which the device's options may forbid
//! ([`Message::algorithms`]). Bytes after the last field are an error.
//!
//! Numbers are those on the wire, uninterpreted: a number that names no object or algorithm is a separate
//! error, and the device decides which error comes first. Secrets are not copied: a tail is borrowed.

mod request;

pub mod reply;

pub use request::*;

use crate::algorithm::Algorithm;
use crate::capability::Capabilities;
use crate::codec::{CodecError, Reader, Writer};
use crate::frame::MAX_INNER_PAYLOAD;
use crate::object::{ObjectHeader, ObjectType};

/// The longest length of a tail that may fill the message of a session.
const REST: usize = usize::MAX;

/// Algorithms that an operation uses, in the order in which they are checked.
pub type Algorithms = [Option<Algorithm>; 4];

/// A payload with its own layout.
pub trait Message<'p>: Sized {
    /// Reads a whole payload. It fails only because of the length, never because of the content.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] and [`CodecError::Trailing`].
    fn decode(payload: &'p [u8]) -> Result<Self, CodecError>;

    /// Writes the payload, including the whole tail.
    ///
    /// # Errors
    /// [`CodecError::NoSpace`].
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError>;

    /// Bytes that [`Message::encode`] writes.
    fn length(&self) -> usize;

    /// The key that the operation uses, for messages whose operation uses algorithms besides its key's own.
    fn key(&self) -> Option<(ObjectType, u16)> {
        None
    }

    /// The algorithms that the operation uses besides its key's own, which is `key`.
    fn algorithms(&self, key: Algorithm) -> Algorithms {
        let _ = key;
        [None; 4]
    }
}

/// What a message's declaration says about its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes before the tail.
    pub fixed: usize,
    /// Bytes of the shortest payload.
    pub shortest: usize,
    /// Bytes of the longest payload.
    pub longest: usize,
    /// Offset of the id of the target key or object.
    pub target: Option<usize>,
    /// Offset of the id of a second one.
    pub second: Option<usize>,
}

/// Which id of an audit entry a field is.
#[derive(Clone, Copy)]
enum Role {
    None,
    Target,
    Second,
}

impl Layout {
    /// The layout of fields, each with its length, and of a tail.
    const fn of(fields: &[(usize, Role)], least: usize, most: usize) -> Self {
        let mut layout = Self { fixed: 0, shortest: 0, longest: 0, target: None, second: None };
        let mut rest = fields;
        while let [(length, role), tail @ ..] = rest {
            match role {
                Role::None => {}
                Role::Target => layout.target = Some(layout.fixed),
                Role::Second => layout.second = Some(layout.fixed),
            }
            layout.fixed += *length;
            rest = tail;
        }
        layout.shortest = layout.fixed + least;
        layout.longest = if most == REST { MAX_INNER_PAYLOAD } else { layout.fixed + most };
        layout
    }

    /// The rest of a payload, if it is as long as the tail may be.
    fn tail<'p>(&self, reader: &mut Reader<'p>) -> Result<&'p [u8], CodecError> {
        let tail = reader.rest();
        let (needed, most) = (self.shortest - self.fixed, self.longest - self.fixed);
        match tail.len() {
            available if available < needed => Err(CodecError::Truncated { needed, available }),
            length if length > most => Err(CodecError::Trailing { remaining: length - most }),
            _ => Ok(tail),
        }
    }
}

/// A field of fixed size.
trait Wire: Copy {
    /// Its bytes.
    const LENGTH: usize;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError>;
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError>;
}

impl Wire for u8 {
    const LENGTH: usize = 1;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.u8()
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u8(self)
    }
}

impl Wire for u16 {
    const LENGTH: usize = 2;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.u16()
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self)
    }
}

impl Wire for u32 {
    const LENGTH: usize = 4;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.u32()
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u32(self)
    }
}

impl<const N: usize> Wire for [u8; N] {
    const LENGTH: usize = N;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.array()
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self)
    }
}

impl Wire for Capabilities {
    const LENGTH: usize = 8;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.u64().map(Self::from_bits)
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self.bits().to_be_bytes())
    }
}

impl Wire for ObjectHeader {
    const LENGTH: usize = Self::LENGTH;
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Self::decode(reader)
    }
    fn write(self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        self.encode(writer)
    }
}

/// Declares messages. `as target` and `as second` mark the ids that an audit entry names, in a header at the
/// start of the message; the tail follows `..` with its minimum and maximum length; `uses` gives the key's
/// type, its field and the algorithms.
macro_rules! messages {
    (@role) => { $crate::message::Role::None };
    (@role target) => { $crate::message::Role::Target };
    (@role second) => { $crate::message::Role::Second };
    (@least) => { 0 };
    (@least $bounds:expr) => { *($bounds).start() };
    (@most) => { 0 };
    (@most $bounds:expr) => { *($bounds).end() };
    ($(
        $(#[$doc:meta])*
        struct $name:ident $(<$life:lifetime>)? {
            $($(#[$field_doc:meta])* $field:ident: $wire:ty $(as $role:ident)?,)*
            $(.. $(#[$tail_doc:meta])* $tail:ident: $bounds:expr,)?
        }
        $(uses $object_type:ident $key:ident: $algorithms:expr;)?
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name $(<$life>)? {
            $($(#[$field_doc])* pub $field: $wire,)*
            $($(#[$tail_doc])* pub $tail: &$life [u8],)?
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Lengths, and the offsets of key ids.
            pub const LAYOUT: $crate::message::Layout = $crate::message::Layout::of(
                &[$((<$wire as $crate::message::Wire>::LENGTH, messages!(@role $($role)?))),*],
                messages!(@least $($bounds)?),
                messages!(@most $($bounds)?),
            );
        }

        impl<'p $(, $life)?> $crate::message::Message<'p> for $name $(<$life>)? $(where 'p: $life)? {
            fn decode(payload: &'p [u8]) -> Result<Self, $crate::codec::CodecError> {
                #[allow(unused_mut, reason = "there are messages without fields")]
                let mut reader = $crate::codec::Reader::new(payload);
                let message = Self {
                    $($field: $crate::message::Wire::read(&mut reader)?,)*
                    $($tail: Self::LAYOUT.tail(&mut reader)?,)?
                };
                reader.finish()?;
                Ok(message)
            }

            fn encode(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::CodecError> {
                $($crate::message::Wire::write(self.$field, writer)?;)*
                $(writer.bytes(self.$tail)?;)?
                let _ = writer;
                Ok(())
            }

            fn length(&self) -> usize {
                Self::LAYOUT.fixed $(+ self.$tail.len())?
            }

            $(
                fn key(&self) -> Option<($crate::object::ObjectType, u16)> {
                    Some(($crate::object::ObjectType::$object_type, self.$key))
                }

                fn algorithms(&self, key: $crate::algorithm::Algorithm) -> $crate::message::Algorithms {
                    let used: fn(&Self, _) -> _ = $algorithms;
                    used(self, key)
                }
            )?
        }
    )*};
}
use messages;
