//! AES keys, and messages of whole blocks in ECB and CBC mode. There is no padding: that is the client's.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
};
use rand_core::Rng as _;
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, Capability, DeviceError, ObjectType};
use zeroize::Zeroizing;

use super::{Core, existing_id, header};
use crate::authorization::usable;
use crate::platform::Platform;
use crate::session::Caller;

/// Bytes of a block, and of an initialisation vector.
const BLOCK: usize = 16;

/// The bytes of a key.
const fn length(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::Aes128 => Some(16),
        Algorithm::Aes192 => Some(24),
        Algorithm::Aes256 => Some(32),
        _ => None,
    }
}

/// PUT SYMMETRIC KEY: header, then a key of 16, 24 or 32 bytes; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&mut reader, length)?;
    let key = reader.take(length)?;
    reader.finish()?;
    let name = core.authorize_creation(caller, ObjectType::SymmetricKey, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, key, writer)
}

/// GENERATE SYMMETRIC KEY: header; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&mut reader, length)?;
    reader.finish()?;
    let name = core.authorize_creation(caller, ObjectType::SymmetricKey, &object, Capabilities::NONE)?;
    let mut key = Zeroizing::new(alloc::vec![0; length]);
    core.platform.entropy().fill_bytes(&mut key);
    core.create(name, &object, Capabilities::NONE, Origin::GENERATED, &key, writer)
}

/// What becomes of the blocks of a message.
#[derive(Clone, Copy)]
enum Mode {
    DecryptEcb,
    EncryptEcb,
    DecryptCbc { iv: [u8; BLOCK] },
    EncryptCbc { iv: [u8; BLOCK] },
}

/// Transforms whole blocks in place; `None` if the key is not one of `C`.
fn transform<C>(key: &[u8], mode: Mode, data: &mut [u8]) -> Option<()>
where
    C: KeyInit + BlockCipherDecrypt + BlockCipherEncrypt,
{
    let (blocks, _) = Block::<C>::slice_as_chunks_mut(data);
    match mode {
        Mode::DecryptEcb => C::new_from_slice(key).ok()?.decrypt_blocks(blocks),
        Mode::EncryptEcb => C::new_from_slice(key).ok()?.encrypt_blocks(blocks),
        Mode::DecryptCbc { iv } => {
            cbc::Decryptor::<C>::new_from_slices(key, &iv).ok()?.decrypt_blocks(blocks);
        }
        Mode::EncryptCbc { iv } => {
            cbc::Encryptor::<C>::new_from_slices(key, &iv).ok()?.encrypt_blocks(blocks);
        }
    }
    Some(())
}

/// Answers with the transformed rest of the payload. `mode` reads what stands between the id and the blocks.
fn answer<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
    capability: Capability,
    mode: impl FnOnce(&mut Reader<'_>) -> Result<Mode, DeviceError>,
) -> Result<(), DeviceError> {
    // The command table has seen to it that there is a block at least.
    if !reader.remaining().saturating_sub(2).is_multiple_of(BLOCK) {
        return Err(DeviceError::WrongLength);
    }
    let name = (ObjectType::SymmetricKey, existing_id(&mut reader)?);
    let info = usable(&core.store, caller, name, capability)?;
    let mode = mode(&mut reader)?;
    let blocks = reader.rest();
    let room = writer.reserve(blocks.len())?;
    room.copy_from_slice(blocks);
    let key = core.body(name)?;
    match info.algorithm {
        Algorithm::Aes128 => transform::<Aes128>(&key, mode, room),
        Algorithm::Aes192 => transform::<Aes192>(&key, mode, room),
        Algorithm::Aes256 => transform::<Aes256>(&key, mode, room),
        _ => None,
    }
    .ok_or(DeviceError::StorageFailed)
}

/// DECRYPT ECB: `id u16 ‖ blocks`; as many blocks.
pub(crate) fn decrypt_ecb<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, reader, writer, Capability::DecryptEcb, |_| Ok(Mode::DecryptEcb))
}

/// ENCRYPT ECB: `id u16 ‖ blocks`; as many blocks.
pub(crate) fn encrypt_ecb<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, reader, writer, Capability::EncryptEcb, |_| Ok(Mode::EncryptEcb))
}

/// DECRYPT CBC: `id u16 ‖ initialisation vector[16] ‖ blocks`; as many blocks.
pub(crate) fn decrypt_cbc<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, reader, writer, Capability::DecryptCbc, |reader| {
        Ok(Mode::DecryptCbc { iv: reader.array()? })
    })
}

/// ENCRYPT CBC: `id u16 ‖ initialisation vector[16] ‖ blocks`; as many blocks.
pub(crate) fn encrypt_cbc<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, reader, writer, Capability::EncryptCbc, |reader| {
        Ok(Mode::EncryptCbc { iv: reader.array()? })
    })
}
