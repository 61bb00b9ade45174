//! Signatures over data that the client chooses.

use alloc::vec::Vec;

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{SignEcdsa, SignEddsa, SignPkcs1, SignPss};
use sshsm_protocol::{AsymmetricAlgorithm, Capability, Command, DeviceError, ObjectType};

use super::{Core, existing_id, mgf1};
use crate::authorization::usable;
use crate::crypto::curve;
use crate::crypto::{Hash, Input, MAX_SIGNATURE};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// Signs for a command with the key with this id, if session and key have `capability`; the input is examined
/// only after that check.
fn sign<'r, P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    id: u16,
    (command, capability): (Command, Capability),
    input: impl FnOnce() -> Result<Input<'r>, DeviceError>,
) -> Result<(AsymmetricAlgorithm, Vec<u8>), DeviceError> {
    let name = (ObjectType::AsymmetricKey, existing_id(id)?);
    let info = usable(&core.store, caller, name, capability)?;
    let input = input()?;
    let wanted = core.options.presence();
    let (key, platform) = core.load(&info)?;
    presence::confirm(platform, wanted, command)?;
    let mut signature = [0; MAX_SIGNATURE];
    let length = key.sign(input, platform.entropy(), &mut signature)?;
    let signature = signature.get(..length).ok_or(DeviceError::StorageFailed)?;
    Ok((key.algorithm, signature.to_vec()))
}

/// SIGN PKCS1: `id u16 ‖ digest`; the signature. A digest of a hash's length gets that hash's `DigestInfo`, any
/// other is signed as the whole encoded message.
pub(crate) fn pkcs1<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignPkcs1 { key, digest }: SignPkcs1<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (_, signature) = sign(core, caller, key, (Command::SignPkcs1, Capability::SignPkcs), || {
        Ok(Input::Pkcs1 { hash: Hash::of_length(digest.len()), digest })
    })?;
    Ok(writer.bytes(&signature)?)
}

/// SIGN PSS: `id u16 ‖ MGF1 algorithm u8 ‖ salt length u16 ‖ digest`; the signature. The digest's length
/// determines its hash.
pub(crate) fn pss<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignPss { key, mgf, salt_length, digest }: SignPss<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    if Hash::of_length(digest.len()).is_none() {
        return Err(DeviceError::WrongLength);
    }
    let (_, signature) = sign(core, caller, key, (Command::SignPss, Capability::SignPss), || {
        Ok(Input::Pss { mgf: mgf1(mgf)?, salt_length: salt_length.into(), digest })
    })?;
    Ok(writer.bytes(&signature)?)
}

/// SIGN ECDSA: `id u16 ‖ digest`; the signature in DER.
pub(crate) fn ecdsa<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignEcdsa { key, digest }: SignEcdsa<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    // SHA-1, SHA-224, SHA-256, SHA-384, SHA-512, or as long as a P-521 scalar.
    if !matches!(digest.len(), 20 | 28 | 32 | 48 | 64 | 66) {
        return Err(DeviceError::WrongLength);
    }
    let (algorithm, signature) =
        sign(core, caller, key, (Command::SignEcdsa, Capability::SignEcdsa), || Ok(Input::Ecdsa { digest }))?;
    let AsymmetricAlgorithm::Ec(curve) = algorithm else { return Err(DeviceError::InvalidData) };
    let mut der = [0; MAX_SIGNATURE];
    let length = curve::to_der(curve, &signature, &mut der).ok_or(DeviceError::InvalidData)?;
    Ok(writer.bytes(der.get(..length).ok_or(DeviceError::StorageFailed)?)?)
}

/// SIGN EDDSA: `id u16 ‖ message`; 64 bytes.
pub(crate) fn eddsa<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignEddsa { key, message }: SignEddsa<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (_, signature) = sign(core, caller, key, (Command::SignEddsa, Capability::SignEddsa), || {
        Ok(Input::Eddsa { message })
    })?;
    Ok(writer.bytes(&signature)?)
}
