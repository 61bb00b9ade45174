//! Objects in transit from one device to another: the plaintext of a wrapped export.
//!
//! The layout is YubiHSM 2's, byte for byte (docs/protocol.md, "Wrapped objects"), so that its tools and ours
//! can read each other's blobs. [`WrappedObject::decode`] accepts only an object that could exist: a type, an
//! algorithm of that type and a body as long as the algorithm requires. The device has to check the
//! *contents* of the body.

use crate::algorithm::{Algorithm, AsymmetricAlgorithm};
use crate::capability::Capabilities;
use crate::codec::{CodecError, Reader, Writer};
use crate::domain::Domains;
use crate::error::DeviceError;
use crate::label::Label;
use crate::object::{NewObject, ObjectId, ObjectType, Origin};

/// Bytes of the nonce in front of everything that an AES wrap key sealed.
pub const NONCE_LENGTH: usize = 13;
/// Bytes of the tag after it.
pub const TAG_LENGTH: usize = 16;
/// Bytes of an Ed25519 body without the seed: `scalar (big-endian, clamped)[32] ‖ prefix[32] ‖ public key[32]`.
pub const ED25519_WITHOUT_SEED: usize = 96;
/// The first byte of the plaintext of WRAP DATA; no object begins with it, so the two cannot be confused.
pub const DATA_MARK: u8 = 0;

/// An object, ready to be sealed or just opened.
///
/// `wrap algorithm u8 ‖ capabilities[8] ‖ id u16 ‖ length u16 ‖ domains u16 ‖ type u8 ‖ algorithm u8 ‖ sequence u8 ‖
/// origin u8 ‖ label[40]`, then `length` bytes: the delegated capabilities (8 bytes) of types that have them, and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrappedObject<'a> {
    /// The algorithm of the key that wraps; it must be that of the key that unwraps.
    pub wrap_algorithm: Algorithm,
    /// The sequence number that the object had; importing gives it a new one.
    pub sequence: u8,
    /// The object's type.
    pub object_type: ObjectType,
    /// Id, label, domains, capabilities and algorithm; without an id the importing device chooses one.
    pub object: NewObject,
    /// The origin of the content.
    pub origin: Origin,
    /// The capabilities that the object may pass on; empty for types that do not delegate.
    pub delegated_capabilities: Capabilities,
    /// The content as stored.
    pub body: &'a [u8],
}

impl<'a> WrappedObject<'a> {
    /// Bytes before the delegated capabilities and the body.
    pub const HEADER_LENGTH: usize = 19 + Label::LENGTH;

    /// Reads a whole plaintext. An id of 0xffff is `InvalidId`; anything else that is not an object is
    /// `InvalidData`.
    pub fn decode(plaintext: &'a [u8]) -> Result<Self, DeviceError> {
        let wrapped = Self::read(Reader::new(plaintext)).map_err(|error| match error {
            // The length of the message was right; it is the content that is not.
            DeviceError::WrongLength => DeviceError::InvalidData,
            error => error,
        })?;
        if is_body_length(wrapped.object_type, wrapped.object.algorithm, wrapped.body.len()) {
            Ok(wrapped)
        } else {
            Err(DeviceError::InvalidData)
        }
    }

    fn read(mut reader: Reader<'a>) -> Result<Self, DeviceError> {
        let algorithm = |code| Algorithm::from_code(code).ok_or(DeviceError::InvalidData);
        let wrap_algorithm = algorithm(reader.u8()?)?;
        let capabilities = Capabilities::from_bits(reader.u64()?);
        let id = match reader.u16()? {
            0 => None,
            id => Some(ObjectId::new(id).map_err(|_| DeviceError::InvalidId)?),
        };
        let length = usize::from(reader.u16()?);
        let domains = Domains::from_bits(reader.u16()?);
        let object_type = ObjectType::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?;
        let algorithm = algorithm(reader.u8()?)?;
        let sequence = reader.u8()?;
        let origin = Origin::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?;
        let label = Label::from_bytes(reader.array()?);
        if reader.remaining() != length {
            return Err(DeviceError::InvalidData);
        }
        let delegated_capabilities = match object_type.has_delegated_capabilities() {
            true => Capabilities::from_bits(reader.u64()?),
            false => Capabilities::NONE,
        };
        Ok(Self {
            wrap_algorithm,
            sequence,
            object_type,
            object: NewObject { id, label, domains, capabilities, algorithm },
            origin,
            delegated_capabilities,
            body: reader.rest(),
        })
    }

    /// Writes the plaintext.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        let object = &self.object;
        let length = self.encoded_len() - Self::HEADER_LENGTH;
        let length =
            u16::try_from(length).map_err(|_| CodecError::NoSpace { needed: length, available: 0xffff })?;
        writer.u8(self.wrap_algorithm.code())?;
        writer.bytes(&object.capabilities.bits().to_be_bytes())?;
        writer.u16(object.id.map_or(0, ObjectId::get))?;
        writer.u16(length)?;
        writer.u16(object.domains.bits())?;
        writer.bytes(&[
            self.object_type.code(),
            object.algorithm.code(),
            self.sequence,
            self.origin.code(),
        ])?;
        writer.bytes(object.label.as_bytes())?;
        if self.object_type.has_delegated_capabilities() {
            writer.bytes(&self.delegated_capabilities.bits().to_be_bytes())?;
        }
        writer.bytes(self.body)
    }

    /// Bytes that [`encode`](Self::encode) writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let delegated = if self.object_type.has_delegated_capabilities() { 8 } else { 0 };
        Self::HEADER_LENGTH + delegated + self.body.len()
    }
}

/// Bytes of an AES wrap key; `None` for other algorithms.
#[must_use]
pub const fn aes_wrap_key_length(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::Aes128CcmWrap => Some(16),
        Algorithm::Aes192CcmWrap => Some(24),
        Algorithm::Aes256CcmWrap => Some(32),
        _ => None,
    }
}

/// Whether an object of this type and algorithm can have a body of this many bytes, delegated capabilities
/// not counted (docs/protocol.md, "Lengths of objects").
#[must_use]
pub fn is_body_length(object_type: ObjectType, algorithm: Algorithm, length: usize) -> bool {
    let asymmetric = AsymmetricAlgorithm::from_algorithm(algorithm);
    let expected = match (object_type, algorithm) {
        (ObjectType::Opaque, Algorithm::OpaqueData | Algorithm::OpaqueX509Certificate)
        | (ObjectType::Template, Algorithm::TemplateSsh) => return length > 0,
        (ObjectType::AsymmetricKey, Algorithm::Ed25519) if length == ED25519_WITHOUT_SEED => return true,
        (ObjectType::AsymmetricKey, _) => asymmetric.map(AsymmetricAlgorithm::object_length),
        (ObjectType::AuthenticationKey, Algorithm::Aes128YubicoAuthentication) => Some(32),
        (ObjectType::AuthenticationKey, Algorithm::Ecp256YubicoAuthentication) => Some(64),
        (ObjectType::WrapKey, Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096) => {
            asymmetric.map(AsymmetricAlgorithm::object_length)
        }
        (ObjectType::WrapKey, _) => aes_wrap_key_length(algorithm),
        (ObjectType::PublicWrapKey, _) => asymmetric.and_then(AsymmetricAlgorithm::modulus_length),
        (ObjectType::HmacKey, Algorithm::HmacSha1 | Algorithm::HmacSha256) => Some(2 * 64),
        (ObjectType::HmacKey, Algorithm::HmacSha384 | Algorithm::HmacSha512) => Some(2 * 128),
        (ObjectType::OtpAeadKey, Algorithm::Aes128YubicoOtp) => Some(4 + 16),
        (ObjectType::OtpAeadKey, Algorithm::Aes192YubicoOtp) => Some(4 + 24),
        (ObjectType::OtpAeadKey, Algorithm::Aes256YubicoOtp) => Some(4 + 32),
        (ObjectType::SymmetricKey, Algorithm::Aes128) => Some(16),
        (ObjectType::SymmetricKey, Algorithm::Aes192) => Some(24),
        (ObjectType::SymmetricKey, Algorithm::Aes256) => Some(32),
        _ => None,
    };
    expected == Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Capability;
    use hex_literal::hex;
    use std::vec;
    use std::vec::Vec;

    fn encoded(wrapped: &WrappedObject<'_>) -> Vec<u8> {
        let mut bytes = vec![0; wrapped.encoded_len()];
        wrapped.encode(&mut Writer::new(&mut bytes)).unwrap();
        bytes
    }

    fn opaque() -> WrappedObject<'static> {
        WrappedObject {
            wrap_algorithm: Algorithm::Aes128CcmWrap,
            sequence: 0,
            object_type: ObjectType::Opaque,
            object: NewObject {
                id: ObjectId::new(0x1234).ok(),
                label: Label::new("test").unwrap(),
                domains: Domains::single(1).unwrap(),
                capabilities: Capabilities::of(&[Capability::ExportableUnderWrap]),
                algorithm: Algorithm::OpaqueData,
            },
            origin: Origin::IMPORTED,
            delegated_capabilities: Capabilities::NONE,
            body: b"hello",
        }
    }

    /// docs/protocol.md, "Wrapped objects", vector C.
    #[test]
    fn an_object_has_the_published_layout() {
        let mut expected = [0; 64];
        expected[..23].copy_from_slice(&hex!("1d 0000000000010000 1234 0005 0001 01 1e 00 02 74657374"));
        expected[59..].copy_from_slice(b"hello");
        assert_eq!(encoded(&opaque()), expected);
        assert_eq!(WrappedObject::decode(&expected), Ok(opaque()));
    }

    #[test]
    fn delegated_capabilities_open_the_content_of_the_types_that_have_them() {
        let key = WrappedObject {
            object_type: ObjectType::AuthenticationKey,
            object: NewObject { algorithm: Algorithm::Aes128YubicoAuthentication, ..opaque().object },
            delegated_capabilities: Capabilities::from_bits(0x0102_0304_0506_0708),
            body: &[9; 32],
            ..opaque()
        };
        let bytes = encoded(&key);
        assert_eq!(bytes[11..13], [0, 40]);
        assert_eq!(bytes[59..68], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(WrappedObject::decode(&bytes), Ok(key));
    }

    #[test]
    fn what_could_not_be_an_object_is_invalid() {
        let good = encoded(&opaque());
        for length in 0..good.len() {
            assert_eq!(WrappedObject::decode(&good[..length]), Err(DeviceError::InvalidData), "{length}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(WrappedObject::decode(&longer), Err(DeviceError::InvalidData));
        let undefined: [(usize, u8); 6] = [(0, 0), (12, 4), (15, 0), (15, 10), (16, 0), (18, 0x22)];
        for (at, value) in undefined {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(WrappedObject::decode(&bytes), Err(DeviceError::InvalidData), "byte {at}");
        }
        let mut reserved = good.clone();
        reserved[9..11].fill(0xff);
        assert_eq!(WrappedObject::decode(&reserved), Err(DeviceError::InvalidId));
        let mut unnamed = good;
        unnamed[9..11].fill(0);
        assert_eq!(WrappedObject::decode(&unnamed).unwrap().object.id, None);
    }

    /// docs/protocol.md, "Lengths of objects", less the eight bytes of delegated capabilities.
    #[test]
    fn every_type_takes_its_own_algorithms_at_their_lengths_and_no_other() {
        use Algorithm as A;
        use ObjectType as T;
        let fixed: [(T, &[(A, usize)]); 7] = [
            (
                T::AuthenticationKey,
                &[(A::Aes128YubicoAuthentication, 32), (A::Ecp256YubicoAuthentication, 64)],
            ),
            (
                T::AsymmetricKey,
                &[
                    (A::Rsa2048, 896),
                    (A::Rsa3072, 1344),
                    (A::Rsa4096, 1792),
                    (A::Ecp224, 84),
                    (A::Ecp256, 96),
                    (A::Eck256, 96),
                    (A::Ecbp256, 96),
                    (A::Ecp384, 144),
                    (A::Ecbp384, 144),
                    (A::Ecbp512, 192),
                    (A::Ecp521, 198),
                    (A::Ed25519, 128),
                    (A::Ed25519, 96),
                ],
            ),
            (
                T::WrapKey,
                &[
                    (A::Aes128CcmWrap, 16),
                    (A::Aes192CcmWrap, 24),
                    (A::Aes256CcmWrap, 32),
                    (A::Rsa2048, 896),
                    (A::Rsa3072, 1344),
                    (A::Rsa4096, 1792),
                ],
            ),
            (
                T::HmacKey,
                &[(A::HmacSha1, 128), (A::HmacSha256, 128), (A::HmacSha384, 256), (A::HmacSha512, 256)],
            ),
            (T::OtpAeadKey, &[(A::Aes128YubicoOtp, 20), (A::Aes192YubicoOtp, 28), (A::Aes256YubicoOtp, 36)]),
            (T::SymmetricKey, &[(A::Aes128, 16), (A::Aes192, 24), (A::Aes256, 32)]),
            (T::PublicWrapKey, &[(A::Rsa2048, 256), (A::Rsa3072, 384), (A::Rsa4096, 512)]),
        ];
        for (object_type, bodies) in fixed {
            for &algorithm in A::ALL {
                for length in 0..2000 {
                    assert_eq!(
                        is_body_length(object_type, algorithm, length),
                        bodies.contains(&(algorithm, length)),
                        "{object_type} {algorithm} {length}"
                    );
                }
            }
        }
        for &algorithm in A::ALL {
            let opaque = matches!(algorithm, A::OpaqueData | A::OpaqueX509Certificate);
            for length in [0, 1, 2000] {
                assert_eq!(is_body_length(T::Opaque, algorithm, length), opaque && length > 0);
                let template = algorithm == A::TemplateSsh;
                assert_eq!(is_body_length(T::Template, algorithm, length), template && length > 0);
            }
        }
    }
}
