//! Yubico OTP: keys under which the secrets of one-time passwords are stored outside the device, and the
//! verification of a password with such a secret.
//!
//! A *credential* is `AES key[16] ‖ private id[6]`. Outside the device it is an *AEAD* of 36 bytes:
//! `random[6] ‖ ciphertext[22] ‖ tag[8]`, AES-CCM with the nonce `nonce id[4] ‖ random[6] ‖ 000000`
//! (docs/protocol.md, "Yubico OTP"). A key is stored as `nonce id[4] ‖ key`.

use alloc::vec::Vec;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser};
use aes::{Aes128, Aes192, Aes256};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U8, U13, U16};
use ccm::{Ccm, Nonce};
use crc::{CRC_16_MCRF4XX, Crc, NoTable};
use rand_core::Rng as _;
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::message::{
    CreateOtpAead, DecryptOtp, GenerateOtpAeadKey, Named, PutOtpAeadKey, RewrapOtpAead,
};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, Capability, DeviceError, ObjectId, ObjectType};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{Core, exactly, existing_id, header};
use crate::authorization::usable;
use crate::crypto::key::Body;
use crate::platform::Platform;
use crate::session::Caller;

const NONCE_ID: usize = 4;
const RANDOM: usize = 6;
const CREDENTIAL: usize = 16 + 6;
const TAG: usize = 8;
const AEAD: usize = RANDOM + CREDENTIAL + TAG;

/// The checksum of one-time passwords; without a table, because the position of a lookup would depend on the
/// secret.
const CHECKSUM: Crc<u16, NoTable> = Crc::<u16, NoTable>::new(&CRC_16_MCRF4XX);
/// Its value over a password that ends in its own checksum.
const CHECKSUM_RESIDUE: u16 = 0xf0b8;

/// The bytes of a key.
const fn length(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::Aes128YubicoOtp => Some(16),
        Algorithm::Aes192YubicoOtp => Some(24),
        Algorithm::Aes256YubicoOtp => Some(32),
        _ => None,
    }
}

/// PUT OTP AEAD KEY: header, nonce id, then a key of 16, 24 or 32 bytes; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutOtpAeadKey { object, key: body }: PutOtpAeadKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&object, length)?;
    let body = exactly(NONCE_ID + length, body)?;
    let name = core.authorize_creation(caller, ObjectType::OtpAeadKey, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, body, writer)
}

/// GENERATE OTP AEAD KEY: header, nonce id; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    GenerateOtpAeadKey { object, nonce_id }: GenerateOtpAeadKey,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, length) = header(&object, length)?;
    let name = core.authorize_creation(caller, ObjectType::OtpAeadKey, &object, Capabilities::NONE)?;
    let mut body = Zeroizing::new(alloc::vec![0; NONCE_ID + length]);
    let (front, key) = body.split_at_mut(NONCE_ID);
    front.copy_from_slice(&nonce_id);
    core.platform.entropy().fill_bytes(key);
    core.create(name, &object, Capabilities::NONE, Origin::GENERATED, &body, writer)
}

#[derive(Clone, Copy)]
enum Direction {
    Seal,
    Open,
}

/// Turns a credential into ciphertext and tag, or back; `None` if the tag is wrong.
fn ccm(body: &Body, random: [u8; RANDOM], direction: Direction, text: &mut Vec<u8>) -> Option<()> {
    fn with<C>(key: &[u8], nonce: [u8; 13], direction: Direction, text: &mut Vec<u8>) -> Option<()>
    where
        C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let ccm = Ccm::<C, U8, U13>::new_from_slice(key).ok()?;
        let nonce = Nonce::<U13>::from(nonce);
        match direction {
            Direction::Seal => ccm.encrypt_in_place(&nonce, &[], text).ok(),
            Direction::Open => ccm.decrypt_in_place(&nonce, &[], text).ok(),
        }
    }
    let (nonce_id, key) = body.split_first_chunk::<NONCE_ID>()?;
    let mut nonce = [0; 13];
    for (to, from) in nonce.iter_mut().zip(nonce_id.iter().chain(&random)) {
        *to = *from;
    }
    match key.len() {
        16 => with::<Aes128>(key, nonce, direction, text),
        24 => with::<Aes192>(key, nonce, direction, text),
        32 => with::<Aes256>(key, nonce, direction, text),
        _ => None,
    }
}

/// Answers with a new AEAD of the credential.
fn seal<P: Platform>(
    core: &mut Core<P>,
    id: ObjectId,
    credential: &[u8],
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let body = core.body((ObjectType::OtpAeadKey, id))?;
    let mut random = [0; RANDOM];
    core.platform.entropy().fill_bytes(&mut random);
    // With room for the tag, so that no copy of the credential is left behind by a reallocation.
    let mut text = Zeroizing::new(Vec::with_capacity(CREDENTIAL + TAG));
    text.extend_from_slice(credential);
    ccm(&body, random, Direction::Seal, &mut text).ok_or(DeviceError::StorageFailed)?;
    writer.bytes(&random)?;
    Ok(writer.bytes(&text)?)
}

/// The credential in an AEAD.
fn open<P: Platform>(
    core: &mut Core<P>,
    id: ObjectId,
    aead: [u8; AEAD],
) -> Result<Zeroizing<[u8; CREDENTIAL]>, DeviceError> {
    let body = core.body((ObjectType::OtpAeadKey, id))?;
    let mut reader = Reader::new(&aead);
    let random = reader.array()?;
    let mut text = Zeroizing::new(reader.rest().to_vec());
    ccm(&body, random, Direction::Open, &mut text).ok_or(DeviceError::InvalidOtp)?;
    text.as_slice().try_into().map(Zeroizing::new).map_err(|_| DeviceError::InvalidOtp)
}

/// The key with this id, if it may be used for something.
fn key<P: Platform>(
    core: &Core<P>,
    caller: &Caller,
    id: u16,
    capability: Capability,
) -> Result<ObjectId, DeviceError> {
    let id = existing_id(id)?;
    usable(&core.store, caller, (ObjectType::OtpAeadKey, id), capability).map(|info| info.id)
}

/// CREATE OTP AEAD: `id u16 ‖ AES key[16] ‖ private id[6]`; the AEAD.
pub(crate) fn create<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    CreateOtpAead { key: id, credential }: CreateOtpAead<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = key(core, caller, id, Capability::CreateOtpAead)?;
    seal(core, id, credential, writer)
}

/// RANDOMIZE OTP AEAD: `id u16`; the AEAD of a new random credential.
pub(crate) fn randomize<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Named { id }: Named,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = key(core, caller, id, Capability::RandomizeOtpAead)?;
    let mut credential = Zeroizing::new([0; CREDENTIAL]);
    core.platform.entropy().fill_bytes(credential.as_mut());
    seal(core, id, credential.as_slice(), writer)
}

/// REWRAP OTP AEAD: `from id u16 ‖ to id u16 ‖ AEAD`; the AEAD of the same credential under the second key.
pub(crate) fn rewrap<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    RewrapOtpAead { from, to, aead }: RewrapOtpAead,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let from = key(core, caller, from, Capability::RewrapFromOtpAeadKey)?;
    let to = key(core, caller, to, Capability::RewrapToOtpAeadKey)?;
    let credential = open(core, from, aead)?;
    seal(core, to, credential.as_slice(), writer)
}

/// DECRYPT OTP: `id u16 ‖ AEAD ‖ password[16]`; `use counter u16 LE ‖ session counter u8 ‖ time stamp high u8 ‖ time
/// stamp low u16 LE`.
#[inline(never)] // `ct/verdicts.supp` refers to it by name
pub(crate) fn decrypt<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    DecryptOtp { key: id, aead, password }: DecryptOtp,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = key(core, caller, id, Capability::DecryptOtp)?;
    let credential = open(core, id, aead)?;
    let mut token = Zeroizing::new(password);
    let mut credential = Reader::new(credential.as_slice());
    Aes128::new_from_slice(credential.take(16)?)
        .map_err(|_| DeviceError::InvalidOtp)?
        .decrypt_block((&mut *token).into());
    let checksum = CHECKSUM.checksum(token.as_slice());
    let mut fields = Reader::new(token.as_slice());
    let private_id = fields.take(6)?;
    let use_counter = fields.take(2)?;
    let low = fields.take(2)?;
    let high = fields.u8()?;
    let session_counter = fields.u8()?;
    // Clients cannot tell which of the two is wrong.
    if !bool::from(private_id.ct_eq(credential.rest()) & checksum.ct_eq(&CHECKSUM_RESIDUE)) {
        return Err(DeviceError::InvalidOtp);
    }
    writer.bytes(use_counter)?;
    writer.u8(session_counter)?;
    writer.u8(high)?;
    Ok(writer.bytes(low)?)
}
