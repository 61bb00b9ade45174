//! Wrap keys, which protect objects and data on their way out of a device and into another.
//!
//! AES keys seal and open (AES-CCM; docs/protocol.md, "Wrapped objects"). An RSA wrap key consists of two
//! objects: the public one exports, the private one imports.

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser};
use aes::{Aes128, Aes192, Aes256};
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U13, U16};
use ccm::{AeadInOut, Ccm, KeyInit};
use rand_core::Rng as _;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{GenerateWrapKey, PutWrapKey};
use sshsm_protocol::object::{NewObject, ObjectHeader, ObjectInfo, Origin};
use sshsm_protocol::wrapped::{NONCE_LENGTH, TAG_LENGTH, aes_wrap_key_length};
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, DeviceError, ObjectType};
use zeroize::Zeroizing;

use super::{Core, exactly, existing_id};
use crate::authorization::visible;
use crate::crypto::key::{self, Body};
use crate::platform::Platform;
use crate::session::Caller;

/// The kind of a wrap key.
enum Kind {
    /// AES, with a key of so many bytes.
    Aes(usize),
    /// RSA; the private half.
    Rsa(AsymmetricAlgorithm),
}

fn header(object: &ObjectHeader) -> Result<(NewObject, Kind), DeviceError> {
    let object = object.interpret()?;
    let kind = match (aes_wrap_key_length(object.algorithm), rsa(object.algorithm)) {
        (Some(length), _) => Kind::Aes(length),
        (None, Some(algorithm)) if cfg!(feature = "rsa-wrap") => Kind::Rsa(algorithm),
        _ => return Err(DeviceError::InvalidData),
    };
    Ok((object, kind))
}

/// The RSA algorithm of a wrap key; `None` for every other.
pub(super) fn rsa(algorithm: Algorithm) -> Option<AsymmetricAlgorithm> {
    AsymmetricAlgorithm::from_algorithm(algorithm).filter(|algorithm| algorithm.modulus_length().is_some())
}

/// Whether bytes are the modulus of some RSA key: odd, and not shorter than it looks.
pub(super) fn is_modulus(bytes: &[u8]) -> bool {
    matches!(bytes, [first, .., last] if first & 0x80 != 0 && last & 1 == 1)
}

/// PUT WRAP KEY: header, delegated capabilities, an AES key or RSA `p‖q`; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutWrapKey { object, delegated, key }: PutWrapKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, kind) = header(&object)?;
    let length = match kind {
        Kind::Aes(length) => length,
        Kind::Rsa(algorithm) => algorithm.private_length(),
    };
    let private = exactly(length, key)?;
    let name = core.authorize_creation(caller, ObjectType::WrapKey, &object, delegated)?;
    let body = match kind {
        Kind::Aes(_) => Zeroizing::new(private.to_vec()),
        Kind::Rsa(algorithm) => key::expand(algorithm, private)?,
    };
    core.create(name, &object, delegated, Origin::IMPORTED, &body, writer)
}

/// GENERATE WRAP KEY: header, delegated capabilities; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    GenerateWrapKey { object, delegated }: GenerateWrapKey,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, kind) = header(&object)?;
    let name = core.authorize_creation(caller, ObjectType::WrapKey, &object, delegated)?;
    let body = match kind {
        Kind::Aes(length) => {
            let mut body = Zeroizing::new(alloc::vec![0; length]);
            core.platform.entropy().fill_bytes(&mut body);
            body
        }
        Kind::Rsa(algorithm) => key::generate(algorithm, core.platform.entropy())?,
    };
    core.create(name, &object, delegated, Origin::GENERATED, &body, writer)
}

/// The AES wrap key with this id, if the session can see it and it may be used for anything.
///
/// That an RSA key cannot seal is checked before its capabilities, as clients test.
pub(super) fn aes<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    id: u16,
    capability: Capability,
) -> Result<(ObjectInfo, Body), DeviceError> {
    let name = (ObjectType::WrapKey, existing_id(id)?);
    let info = visible(&core.store, caller, name)?;
    if aes_wrap_key_length(info.algorithm).is_none() {
        return Err(DeviceError::InvalidData);
    }
    if !info.capabilities.contains(capability) {
        return Err(DeviceError::InsufficientPermissions);
    }
    Ok((info, core.body(name)?))
}

/// Seals `plaintext` in place and writes `nonce ‖ ciphertext ‖ tag`. The nonce is random: 104 bits do not
/// repeat within the lifetime of a key.
pub(super) fn seal<P: Platform>(
    core: &mut Core<P>,
    key: &[u8],
    mut plaintext: Body,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let mut nonce = [0; NONCE_LENGTH];
    core.platform.entropy().fill_bytes(&mut nonce);
    // Keys have the right length since they were stored.
    let tag = ccm(key, &nonce, plaintext.as_mut_slice(), None).ok_or(DeviceError::StorageFailed)?;
    writer.bytes(&nonce)?;
    writer.bytes(&plaintext)?;
    Ok(writer.bytes(&tag)?)
}

/// Opens `nonce ‖ ciphertext ‖ tag`; anything that was not sealed with this key is `InvalidData`.
pub(super) fn open(key: &[u8], sealed: &[u8]) -> Result<Body, DeviceError> {
    let parts = || {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LENGTH>()?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        ccm(key, nonce, plaintext.as_mut_slice(), Some(tag)).map(|_| plaintext)
    };
    parts().ok_or(DeviceError::InvalidData)
}

/// Encrypts in place and returns the tag; with a tag given, checks it and decrypts.
fn ccm(
    key: &[u8],
    nonce: &[u8; NONCE_LENGTH],
    text: &mut [u8],
    tag: Option<&[u8; TAG_LENGTH]>,
) -> Option<[u8; TAG_LENGTH]> {
    fn with<C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
        key: &[u8],
        nonce: &[u8; NONCE_LENGTH],
        text: &mut [u8],
        tag: Option<&[u8; TAG_LENGTH]>,
    ) -> Option<[u8; TAG_LENGTH]> {
        let cipher = Ccm::<C, U16, U13>::new_from_slice(key).ok()?;
        let text = InOutBuf::from(text);
        match tag {
            None => cipher.encrypt_inout_detached(nonce.into(), b"", text).ok().map(Into::into),
            Some(tag) => {
                cipher.decrypt_inout_detached(nonce.into(), b"", text, tag.into()).ok().map(|()| *tag)
            }
        }
    }
    match key.len() {
        16 => with::<Aes128>(key, nonce, text, tag),
        24 => with::<Aes192>(key, nonce, text, tag),
        _ => with::<Aes256>(key, nonce, text, tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// docs/protocol.md, "Wrapped objects" and docs/protocol.md, "Wrapped data": vectors C (an object) and D (data), key
    /// 00 … 0f, nonce a0 … ac.
    #[test]
    fn sealing_gives_the_published_blobs_and_opening_their_content() {
        let key = hex!("000102030405060708090a0b0c0d0e0f");
        let nonce = hex!("a0a1a2a3a4a5a6a7a8a9aaabac");
        let mut object = [0; 64];
        object[..23].copy_from_slice(&hex!("1d 0000000000010000 1234 0005 0001 01 1e 00 02 74657374"));
        object[59..].copy_from_slice(b"hello");
        let vectors: [(&[u8], &[u8]); 2] = [
            (
                &object,
                &hex!(
                    "a0a1a2a3a4a5a6a7a8a9aaabac44ad40d477ae1de04487a178b1b913ed2a8a8ea0ee9da9921589af548f908b"
                    "ddcb94db3f56acdb447be3665ee60c9b91100c90ddc9573d4e58c27f551d502cc89f8689be1314119d40cc85"
                    "795714a996"
                ),
            ),
            (b"\0hello", &hex!("a0a1a2a3a4a5a6a7a8a9aaabac59c525b81bc16be1b6213f0ac3f7237c406884705bb2")),
        ];
        for (plaintext, blob) in vectors {
            let mut text = plaintext.to_vec();
            let tag = ccm(&key, &nonce, &mut text, None).unwrap();
            assert_eq!([&nonce, text.as_slice(), &tag].concat(), blob);
            assert_eq!(open(&key, blob).unwrap().as_slice(), plaintext);
        }
    }
}
