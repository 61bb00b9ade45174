//! Objects and bare keys under RSA wrap keys: the public key exports, the private one imports.
//!
//! The format is PKCS#11's `CKM_RSA_AES_KEY_WRAP`: a single-use AES key under RSA-OAEP, as long as the
//! modulus, then the payload under that key (AES-KWP, RFC 5649). The payload is a whole object as under an
//! AES wrap key, or a bare key: PKCS#8 for asymmetric keys, the raw bytes for symmetric ones.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser};
use aes::{Aes128, Aes192, Aes256};
use aes_kw::{AesKwp, IV_LEN, InnerInit, KeyInit};
use ccm::consts::U16;
use rand_core::Rng as _;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{ImportRsaWrapped, PutPublicWrapKey, PutRsaWrappedKey, RsaExport};
use sshsm_protocol::object::{ObjectInfo, Origin};
use sshsm_protocol::wrapped::is_body_length;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, DeviceError, ObjectType,
};
use zeroize::Zeroizing;

use super::{Core, exactly, existing_id, mgf1, wrap_key, wrapped_object};
use crate::authorization::{usable, visible};
use crate::crypto::key::Body;
use crate::crypto::{Hash, Oaep, Padding, Provider, pkcs8, rsa};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// PUT PUBLIC WRAP KEY: header, delegated capabilities, the modulus; the id. The public exponent is 65537.
pub(crate) fn put_public<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutPublicWrapKey { object, delegated, modulus }: PutPublicWrapKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = object.interpret()?;
    let algorithm = wrap_key::rsa(object.algorithm).ok_or(DeviceError::InvalidData)?;
    let modulus = exactly(algorithm.public_length(), modulus)?;
    let name = core.authorize_creation(caller, ObjectType::PublicWrapKey, &object, delegated)?;
    if !wrap_key::is_modulus(modulus) {
        return Err(DeviceError::InvalidData);
    }
    core.create(name, &object, delegated, Origin::IMPORTED, modulus, writer)
}

/// GET RSA WRAPPED KEY: `public wrap key u16 ‖ type u8 ‖ id u16 ‖ AES u8 ‖ OAEP u8 ‖ MGF1 u8 ‖ label hash`; the wrapped
/// key. Asymmetric and symmetric keys only.
pub(crate) fn get_key<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: RsaExport<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (wrap, target, container) = export_request(core, caller, message)?;
    let body = core.body((target.object_type, target.id))?;
    let payload = match (target.object_type, AsymmetricAlgorithm::from_algorithm(target.algorithm)) {
        (ObjectType::AsymmetricKey, Some(algorithm)) => pkcs8::encode(algorithm, &body)?,
        (ObjectType::SymmetricKey, _) => body,
        _ => return Err(DeviceError::InvalidData),
    };
    presence::confirm(&mut core.platform, core.options.presence(), Command::GetRsaWrappedKey)?;
    container.seal(core, &wrap, &payload, writer)
}

/// EXPORT RSA WRAPPED: as GET RSA WRAPPED KEY, for any object; the wrapped object.
pub(crate) fn export<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: RsaExport<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (wrap, target, container) = export_request(core, caller, message)?;
    let payload = wrapped_object::serialize(core, &wrap, &target, true)?;
    presence::confirm(&mut core.platform, core.options.presence(), Command::ExportRsaWrapped)?;
    container.seal(core, &wrap, &payload, writer)
}

/// PUT RSA WRAPPED KEY: `wrap key u16 ‖ type u8 ‖ header ‖ OAEP u8 ‖ MGF1 u8 ‖ wrapped key ‖ label hash`, the header as
/// in every put command; `type u8 ‖ id u16`.
pub(crate) fn put_key<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: PutRsaWrappedKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wrap_id = existing_id(message.wrap_key)?;
    let object_type = ObjectType::from_code(message.object_type).ok_or(DeviceError::InvalidData)?;
    let object = message.object.interpret()?;
    let (oaep, blob) = import_request(message.oaep, message.mgf, message.sealed)?;
    let wrap = visible(&core.store, caller, (ObjectType::WrapKey, wrap_id))?;
    let algorithm = importing(&wrap)?;
    let none = Capabilities::NONE;
    let (name, object) = wrapped_object::importable(core, caller, &wrap, object_type, object, none)?;
    let payload = open(core, Command::PutRsaWrappedKey, &wrap, algorithm, oaep, blob)?;
    let body = match (object_type, AsymmetricAlgorithm::from_algorithm(object.algorithm)) {
        (ObjectType::AsymmetricKey, Some(algorithm)) => pkcs8::decode(algorithm, &payload)?,
        (ObjectType::SymmetricKey, _) if is_body_length(object_type, object.algorithm, payload.len()) => {
            payload
        }
        _ => return Err(DeviceError::InvalidData),
    };
    let origin = Origin::IMPORTED.wrapped();
    wrapped_object::store(core, name, &object, none, origin, &body, writer)
}

/// IMPORT RSA WRAPPED: `wrap key u16 ‖ OAEP u8 ‖ MGF1 u8 ‖ wrapped object ‖ label hash`; `type u8 ‖ id u16`.
pub(crate) fn import<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: ImportRsaWrapped<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wrap_id = existing_id(message.wrap_key)?;
    let (oaep, blob) = import_request(message.oaep, message.mgf, message.sealed)?;
    let wrap = visible(&core.store, caller, (ObjectType::WrapKey, wrap_id))?;
    let algorithm = importing(&wrap)?;
    let payload = open(core, Command::ImportRsaWrapped, &wrap, algorithm, oaep, blob)?;
    wrapped_object::restore(core, caller, &wrap, &payload, writer)
}

/// How an export is to be wrapped.
struct Container<'a> {
    /// Bytes of the AES key.
    aes: usize,
    oaep: Oaep<'a>,
}

/// The request of an export, the public wrap key, and the object, which may be exported under it.
fn export_request<'r, P: Platform>(
    core: &Core<P>,
    caller: &Caller,
    message: RsaExport<'r>,
) -> Result<(ObjectInfo, ObjectInfo, Container<'r>), DeviceError> {
    let wrap_id = existing_id(message.wrap_key)?;
    let aes = match Algorithm::from_code(message.aes) {
        Some(Algorithm::Aes128) => 16,
        Some(Algorithm::Aes192) => 24,
        Some(Algorithm::Aes256) => 32,
        _ => return Err(DeviceError::InvalidData),
    };
    let (hash, mgf) = oaep_hashes(message.oaep, message.mgf)?;
    let oaep = oaep(hash, mgf, message.label_hash)?;
    let wrap = usable(&core.store, caller, (ObjectType::PublicWrapKey, wrap_id), Capability::ExportWrapped)?;
    let target = wrapped_object::exportable(core, caller, &wrap, (message.object_type, message.id))?;
    Ok((wrap, target, Container { aes, oaep }))
}

/// How the blob of an import is wrapped, and the blob; `sealed` is `blob ‖ label hash`.
fn import_request(oaep_code: u8, mgf: u8, sealed: &[u8]) -> Result<(Oaep<'_>, &[u8]), DeviceError> {
    let (hash, mgf) = oaep_hashes(oaep_code, mgf)?;
    let (blob, label_hash) = sealed
        .split_at_checked(sealed.len().saturating_sub(hash.length()))
        .ok_or(DeviceError::WrongLength)?;
    Ok((oaep(hash, mgf, label_hash)?, blob))
}

fn oaep_hashes(oaep: u8, mgf: u8) -> Result<(Hash, Hash), DeviceError> {
    let hash = match Algorithm::from_code(oaep) {
        Some(Algorithm::RsaOaepSha1) => Hash::Sha1,
        Some(Algorithm::RsaOaepSha256) => Hash::Sha256,
        Some(Algorithm::RsaOaepSha384) => Hash::Sha384,
        Some(Algorithm::RsaOaepSha512) => Hash::Sha512,
        _ => return Err(DeviceError::InvalidData),
    };
    Ok((hash, mgf1(mgf)?))
}

fn oaep(hash: Hash, mgf: Hash, label_hash: &[u8]) -> Result<Oaep<'_>, DeviceError> {
    if label_hash.len() != hash.length() {
        return Err(DeviceError::WrongLength);
    }
    Oaep::new(mgf, label_hash).ok_or(DeviceError::WrongLength)
}

impl Container<'_> {
    /// Writes the payload, wrapped to a public wrap key.
    fn seal<P: Platform>(
        &self,
        core: &mut Core<P>,
        wrap: &ObjectInfo,
        payload: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        let algorithm = wrap_key::rsa(wrap.algorithm).ok_or(DeviceError::StorageFailed)?;
        let modulus = core.body((ObjectType::PublicWrapKey, wrap.id))?;
        let mut key = Zeroizing::new(alloc::vec![0; self.aes]);
        core.platform.entropy().fill_bytes(&mut key);
        let encrypted = rsa::oaep_encrypt(algorithm, &modulus, &self.oaep, &key, core.platform.entropy())?;
        // The crate leaves the padding as it finds it: it must be zeros.
        let mut wrapped = Zeroizing::new(alloc::vec![0; payload.len().next_multiple_of(IV_LEN) + IV_LEN]);
        let done = match self.aes {
            16 => kwp::<Aes128>(&key)?.wrap_key(payload, &mut wrapped),
            24 => kwp::<Aes192>(&key)?.wrap_key(payload, &mut wrapped),
            _ => kwp::<Aes256>(&key)?.wrap_key(payload, &mut wrapped),
        };
        done.map_err(|_| DeviceError::InvalidData)?;
        writer.bytes(&encrypted)?;
        Ok(writer.bytes(&wrapped)?)
    }
}

/// The algorithm of a private wrap key that must be RSA and may import.
fn importing(wrap: &ObjectInfo) -> Result<AsymmetricAlgorithm, DeviceError> {
    let algorithm = wrap_key::rsa(wrap.algorithm).ok_or(DeviceError::InvalidData)?;
    match wrap.capabilities.contains(Capability::ImportWrapped) {
        true => Ok(algorithm),
        false => Err(DeviceError::InsufficientPermissions),
    }
}

/// The payload that was wrapped to a private wrap key; anything else is `InvalidData`.
fn open<P: Platform>(
    core: &mut Core<P>,
    command: Command,
    wrap: &ObjectInfo,
    algorithm: AsymmetricAlgorithm,
    oaep: Oaep<'_>,
    blob: &[u8],
) -> Result<Body, DeviceError> {
    let (encrypted, wrapped) =
        blob.split_at_checked(algorithm.public_length()).ok_or(DeviceError::WrongLength)?;
    let body = core.body((ObjectType::WrapKey, wrap.id))?;
    // It was valid when it was stored.
    let private = P::Crypto::load(algorithm, &body).map_err(|_| DeviceError::StorageFailed)?;
    presence::confirm(&mut core.platform, core.options.presence(), command)?;
    let key = P::Crypto::decrypt(&private, Padding::Oaep(oaep), encrypted, core.platform.entropy())?;
    let mut payload = Zeroizing::new(alloc::vec![0; wrapped.len()]);
    let done = match key.len() {
        16 => kwp::<Aes128>(&key)?.unwrap_key(wrapped, &mut payload),
        24 => kwp::<Aes192>(&key)?.unwrap_key(wrapped, &mut payload),
        32 => kwp::<Aes256>(&key)?.unwrap_key(wrapped, &mut payload),
        _ => return Err(DeviceError::InvalidData),
    };
    let length = done.map_err(|_| DeviceError::InvalidData)?.len();
    payload.truncate(length);
    Ok(payload)
}

fn kwp<C>(key: &[u8]) -> Result<AesKwp<C>, DeviceError>
where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    C::new_from_slice(key).map(AesKwp::inner_init).map_err(|_| DeviceError::InvalidData)
}
