//! RSA decryption and ECDH.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::ObjectInfo;
use sshsm_protocol::{AsymmetricAlgorithm, Capability, DeviceError, ObjectType};

use super::{Core, existing_id, mgf1};
use crate::authorization::usable;
use crate::crypto::{Hash, Oaep, Padding, Provider};
use crate::platform::Platform;
use crate::session::Caller;

/// The key at the front of the payload, if session and key have `capability`.
fn key<P: Platform>(
    core: &Core<P>,
    caller: &Caller,
    reader: &mut Reader<'_>,
    capability: Capability,
) -> Result<(ObjectInfo, AsymmetricAlgorithm), DeviceError> {
    let name = (ObjectType::AsymmetricKey, existing_id(reader)?);
    let info = usable(&core.store, caller, name, capability)?;
    let algorithm = AsymmetricAlgorithm::from_algorithm(info.algorithm).ok_or(DeviceError::InvalidData)?;
    Ok((info, algorithm))
}

fn decrypt<P: Platform>(
    core: &mut Core<P>,
    info: &ObjectInfo,
    padding: Padding<'_>,
    ciphertext: &[u8],
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (key, platform) = core.load(info)?;
    let plaintext = P::Crypto::decrypt(&key.private, padding, ciphertext, platform.entropy())?;
    Ok(writer.bytes(&plaintext)?)
}

/// DECRYPT PKCS1: `id u16 ‖ ciphertext`, as long as the modulus; the plaintext.
pub(crate) fn pkcs1<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (info, algorithm) = key(core, caller, &mut reader, Capability::DecryptPkcs)?;
    let ciphertext = reader.take(algorithm.modulus_length().ok_or(DeviceError::InvalidData)?)?;
    reader.finish()?;
    decrypt(core, &info, Padding::Pkcs1, ciphertext, writer)
}

/// DECRYPT OAEP: `id u16 ‖ MGF1 algorithm u8 ‖ ciphertext ‖ hash of the label`, the ciphertext as long as the modulus;
/// the plaintext. The label's hash says by its length which hash OAEP uses.
pub(crate) fn oaep<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (info, algorithm) = key(core, caller, &mut reader, Capability::DecryptOaep)?;
    let length = algorithm.modulus_length().ok_or(DeviceError::InvalidData)?;
    if reader.remaining().checked_sub(1 + length).and_then(Hash::of_length).is_none() {
        return Err(DeviceError::WrongLength);
    }
    let mgf = mgf1(&mut reader)?;
    let ciphertext = reader.take(length)?;
    let padding = Oaep::new(mgf, reader.rest()).ok_or(DeviceError::WrongLength)?;
    decrypt(core, &info, Padding::Oaep(padding), ciphertext, writer)
}

/// DERIVE ECDH: `id u16 ‖ 04‖X‖Y`; the x-coordinate of the shared point.
pub(crate) fn ecdh<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (info, algorithm) = key(core, caller, &mut reader, Capability::DeriveEcdh)?;
    let AsymmetricAlgorithm::Ec(_) = algorithm else { return Err(DeviceError::InvalidData) };
    let point = reader.take(1 + algorithm.public_length())?;
    reader.finish()?;
    let (key, _) = core.load(&info)?;
    Ok(writer.bytes(&P::Crypto::derive(&key.private, point)?)?)
}
