//! Asymmetric keys: put, generate, and their public halves.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{AsymmetricAlgorithm, Capabilities, DeviceError, ObjectType};

use super::{Core, existing_id, header};
use crate::authorization::visible;
use crate::crypto::key;
use crate::platform::Platform;
use crate::session::Caller;

/// PUT ASYMMETRIC KEY: header, then RSA `p‖q`, an EC scalar or an Ed25519 seed; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, algorithm) = header(&mut reader, AsymmetricAlgorithm::from_algorithm)?;
    let private = reader.take(algorithm.private_length())?;
    reader.finish()?;
    let name = core.authorize_creation(caller, ObjectType::AsymmetricKey, &object, Capabilities::NONE)?;
    let body = key::expand(algorithm, private)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, &body, writer)
}

/// GENERATE ASYMMETRIC KEY: header; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, algorithm) = header(&mut reader, AsymmetricAlgorithm::from_algorithm)?;
    reader.finish()?;
    let name = core.authorize_creation(caller, ObjectType::AsymmetricKey, &object, Capabilities::NONE)?;
    let body = key::generate(algorithm, core.platform.entropy())?;
    core.create(name, &object, Capabilities::NONE, Origin::GENERATED, &body, writer)
}

/// GET PUBLIC KEY: `id u16`, and perhaps `type u8`; `algorithm u8 ‖ public key`.
pub(crate) fn public<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = existing_id(&mut reader)?;
    let object_type = match reader.rest() {
        [] => ObjectType::AsymmetricKey,
        &[code] => ObjectType::from_code(code).ok_or(DeviceError::InvalidData)?,
        _ => return Err(DeviceError::WrongLength),
    };
    let name = (object_type, id);
    let info = visible(&core.store, caller, name)?;
    let algorithm = AsymmetricAlgorithm::from_algorithm(info.algorithm).ok_or(DeviceError::InvalidData)?;
    let body = core.body(name)?;
    writer.u8(info.algorithm.code())?;
    match object_type {
        ObjectType::PublicWrapKey => Ok(writer.bytes(&body)?),
        _ => Ok(writer.bytes(key::public(algorithm, &body)?)?),
    }
}
