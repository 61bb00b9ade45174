//! RSA decryption and ECDH.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::{AsymmetricAlgorithm, Capability, Command, DeviceError, ObjectType};

use super::{Core, existing_id, mgf1};
use crate::authorization::usable;
use crate::crypto::{Hash, Key, Oaep, Padding};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// The key at the front of the payload, if session and key have `capability`, and the platform beside it.
fn key<'c, P: Platform>(
    core: &'c mut Core<P>,
    caller: &Caller,
    reader: &mut Reader<'_>,
    capability: Capability,
) -> Result<(&'c Key<P::Crypto>, &'c mut P), DeviceError> {
    let name = (ObjectType::AsymmetricKey, existing_id(reader)?);
    let info = usable(&core.store, caller, name, capability)?;
    core.load(&info)
}

/// DECRYPT PKCS1: `id u16 ‖ ciphertext`, as long as the modulus; the plaintext.
pub(crate) fn pkcs1<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, &mut reader, Capability::DecryptPkcs)?;
    let ciphertext = reader.take(key.algorithm.modulus_length().ok_or(DeviceError::InvalidData)?)?;
    reader.finish()?;
    presence::confirm(platform, wanted, Command::DecryptPkcs1)?;
    let plaintext = key.decrypt(Padding::Pkcs1, ciphertext, platform.entropy())?;
    Ok(writer.bytes(&plaintext)?)
}

/// DECRYPT OAEP: `id u16 ‖ MGF1 algorithm u8 ‖ ciphertext ‖ hash of the label`, the ciphertext as long as the modulus;
/// the plaintext. The label's hash says by its length which hash OAEP uses.
pub(crate) fn oaep<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, &mut reader, Capability::DecryptOaep)?;
    let length = key.algorithm.modulus_length().ok_or(DeviceError::InvalidData)?;
    if reader.remaining().checked_sub(1 + length).and_then(Hash::of_length).is_none() {
        return Err(DeviceError::WrongLength);
    }
    let mgf = mgf1(&mut reader)?;
    let ciphertext = reader.take(length)?;
    let padding = Oaep::new(mgf, reader.rest()).ok_or(DeviceError::WrongLength)?;
    presence::confirm(platform, wanted, Command::DecryptOaep)?;
    let plaintext = key.decrypt(Padding::Oaep(padding), ciphertext, platform.entropy())?;
    Ok(writer.bytes(&plaintext)?)
}

/// DERIVE ECDH: `id u16 ‖ 04‖X‖Y`; the x-coordinate of the shared point.
pub(crate) fn ecdh<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, &mut reader, Capability::DeriveEcdh)?;
    let AsymmetricAlgorithm::Ec(_) = key.algorithm else { return Err(DeviceError::InvalidData) };
    let point = reader.take(1 + key.algorithm.public_length())?;
    reader.finish()?;
    presence::confirm(platform, wanted, Command::DeriveEcdh)?;
    Ok(writer.bytes(&key.derive(point)?)?)
}
