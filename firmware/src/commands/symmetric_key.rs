//! AES keys, and messages of whole blocks in ECB and CBC mode. Padding is up to the client.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
};
use rand_core::Rng as _;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Cbc, Ecb, Generate, PutSymmetricKey};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, Capability, DeviceError, ObjectType};
use zeroize::Zeroizing;

use super::{Core, exactly, existing_id, header};
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
    PutSymmetricKey { object, key }: PutSymmetricKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&object, length)?;
    let key = exactly(length, key)?;
    let name = core.authorize_creation(caller, ObjectType::SymmetricKey, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, key, writer)
}

/// GENERATE SYMMETRIC KEY: header; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Generate { object }: Generate,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&object, length)?;
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

/// Answers with the transformed blocks.
fn answer<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    (id, blocks): (u16, &[u8]),
    writer: &mut Writer<'_>,
    capability: Capability,
    mode: Mode,
) -> Result<(), DeviceError> {
    if !blocks.len().is_multiple_of(BLOCK) {
        return Err(DeviceError::WrongLength);
    }
    let name = (ObjectType::SymmetricKey, existing_id(id)?);
    let info = usable(&core.store, caller, name, capability)?;
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
    Ecb { key, blocks }: Ecb<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, (key, blocks), writer, Capability::DecryptEcb, Mode::DecryptEcb)
}

/// ENCRYPT ECB: `id u16 ‖ blocks`; as many blocks.
pub(crate) fn encrypt_ecb<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Ecb { key, blocks }: Ecb<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, (key, blocks), writer, Capability::EncryptEcb, Mode::EncryptEcb)
}

/// DECRYPT CBC: `id u16 ‖ initialisation vector[16] ‖ blocks`; as many blocks.
pub(crate) fn decrypt_cbc<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Cbc { key, iv, blocks }: Cbc<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, (key, blocks), writer, Capability::DecryptCbc, Mode::DecryptCbc { iv })
}

/// ENCRYPT CBC: `id u16 ‖ initialisation vector[16] ‖ blocks`; as many blocks.
pub(crate) fn encrypt_cbc<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Cbc { key, iv, blocks }: Cbc<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    answer(core, caller, (key, blocks), writer, Capability::EncryptCbc, Mode::EncryptCbc { iv })
}
