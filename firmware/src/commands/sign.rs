//! Signatures over data that the client chooses.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::{AsymmetricAlgorithm, Capability, DeviceError, ObjectType};

use super::{Core, existing_id};
use crate::authorization::usable;
use crate::crypto::curve;
use crate::crypto::{Hash, Input, MAX_SIGNATURE, Provider};
use crate::platform::Platform;
use crate::session::Caller;

/// Signs with the key at the front of the payload, if session and key have `capability`.
fn sign<'r, P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: &mut Reader<'r>,
    capability: Capability,
    input: impl FnOnce(&'r [u8]) -> Input<'r>,
    signature: &mut [u8; MAX_SIGNATURE],
) -> Result<(AsymmetricAlgorithm, usize), DeviceError> {
    let name = (ObjectType::AsymmetricKey, existing_id(reader)?);
    let info = usable(&core.store, caller, name, capability)?;
    let (key, platform) = core.load(&info)?;
    let length = P::Crypto::sign(&key.private, input(reader.rest()), platform.entropy(), signature)?;
    Ok((key.algorithm, length))
}

/// SIGN PKCS1: `id u16 ‖ digest`; the signature. A digest of a hash's length gets that hash's `DigestInfo`, any
/// other is signed as the whole encoded message.
pub(crate) fn pkcs1<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let mut signature = [0; MAX_SIGNATURE];
    fn input(digest: &[u8]) -> Input<'_> {
        Input::Pkcs1 { hash: Hash::of_length(digest.len()), digest }
    }
    let (_, length) = sign(core, caller, &mut reader, Capability::SignPkcs, input, &mut signature)?;
    Ok(writer.bytes(signature.get(..length).unwrap_or_default())?)
}

/// SIGN ECDSA: `id u16 ‖ digest`; the signature in DER.
pub(crate) fn ecdsa<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    // SHA-1, SHA-224, SHA-256, SHA-384, SHA-512, or as long as a P-521 scalar.
    if !matches!(reader.remaining().saturating_sub(2), 20 | 28 | 32 | 48 | 64 | 66) {
        return Err(DeviceError::WrongLength);
    }
    let mut signature = [0; MAX_SIGNATURE];
    let input = |digest| Input::Ecdsa { digest };
    let (algorithm, length) = sign(core, caller, &mut reader, Capability::SignEcdsa, input, &mut signature)?;
    let AsymmetricAlgorithm::Ec(curve) = algorithm else { return Err(DeviceError::InvalidData) };
    let mut der = [0; MAX_SIGNATURE];
    let length = curve::to_der(curve, signature.get(..length).unwrap_or_default(), &mut der)
        .ok_or(DeviceError::InvalidData)?;
    Ok(writer.bytes(der.get(..length).unwrap_or_default())?)
}

/// SIGN EDDSA: `id u16 ‖ message`; 64 bytes.
pub(crate) fn eddsa<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let mut signature = [0; MAX_SIGNATURE];
    let input = |message| Input::Eddsa { message };
    let (_, length) = sign(core, caller, &mut reader, Capability::SignEddsa, input, &mut signature)?;
    Ok(writer.bytes(signature.get(..length).unwrap_or_default())?)
}
