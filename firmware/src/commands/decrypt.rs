//! RSA decryption and ECDH.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{DecryptOaep, DecryptPkcs1, DeriveEcdh};
use sshsm_protocol::{AsymmetricAlgorithm, Capability, Command, DeviceError, ObjectType};

use super::{Core, exactly, existing_id, mgf1};
use crate::authorization::usable;
use crate::crypto::{Hash, Key, Oaep, Padding};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// The key with this id, if session and key have `capability`, along with the platform.
fn key<'c, P: Platform>(
    core: &'c mut Core<P>,
    caller: &Caller,
    id: u16,
    capability: Capability,
) -> Result<(&'c Key<P::Crypto>, &'c mut P), DeviceError> {
    let name = (ObjectType::AsymmetricKey, existing_id(id)?);
    let info = usable(&core.store, caller, name, capability)?;
    core.load(&info)
}

/// DECRYPT PKCS1: `id u16 ‖ ciphertext`, as long as the modulus; the plaintext.
pub(crate) fn pkcs1<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    DecryptPkcs1 { key: id, ciphertext }: DecryptPkcs1<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, id, Capability::DecryptPkcs)?;
    let length = key.algorithm.modulus_length().ok_or(DeviceError::InvalidData)?;
    let ciphertext = exactly(length, ciphertext)?;
    presence::confirm(platform, wanted, Command::DecryptPkcs1)?;
    let plaintext = key.decrypt(Padding::Pkcs1, ciphertext, platform.entropy())?;
    Ok(writer.bytes(&plaintext)?)
}

/// DECRYPT OAEP: `id u16 ‖ MGF1 algorithm u8 ‖ ciphertext ‖ hash of the label`, the ciphertext as long as the
/// modulus; the plaintext. The length of the label's hash determines OAEP's hash.
pub(crate) fn oaep<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    DecryptOaep { key: id, mgf, sealed }: DecryptOaep<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, id, Capability::DecryptOaep)?;
    let length = key.algorithm.modulus_length().ok_or(DeviceError::InvalidData)?;
    let (ciphertext, label_hash) = sealed
        .split_at_checked(length)
        .filter(|(_, label_hash)| Hash::of_length(label_hash.len()).is_some())
        .ok_or(DeviceError::WrongLength)?;
    let padding = Oaep::new(mgf1(mgf)?, label_hash).ok_or(DeviceError::WrongLength)?;
    presence::confirm(platform, wanted, Command::DecryptOaep)?;
    let plaintext = key.decrypt(Padding::Oaep(padding), ciphertext, platform.entropy())?;
    Ok(writer.bytes(&plaintext)?)
}

/// DERIVE ECDH: `id u16 ‖ 04‖X‖Y`; the x-coordinate of the shared point.
pub(crate) fn ecdh<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    DeriveEcdh { key: id, point }: DeriveEcdh<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wanted = core.options.presence();
    let (key, platform) = key(core, caller, id, Capability::DeriveEcdh)?;
    let AsymmetricAlgorithm::Ec(_) = key.algorithm else { return Err(DeviceError::InvalidData) };
    let point = exactly(1 + key.algorithm.public_length(), point)?;
    presence::confirm(platform, wanted, Command::DeriveEcdh)?;
    Ok(writer.bytes(&key.derive(point)?)?)
}
