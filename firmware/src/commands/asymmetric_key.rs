//! Asymmetric keys: put, generate, and their public halves.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Generate, GetPublicKey, Message as _, PutAsymmetricKey, reply};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{AsymmetricAlgorithm, Capabilities, DeviceError, ObjectType};

use super::{Core, exactly, existing_id, header};
use crate::authorization::visible;
use crate::crypto::key;
use crate::platform::Platform;
use crate::session::Caller;

/// PUT ASYMMETRIC KEY: header, then RSA `p‖q`, an EC scalar or an Ed25519 seed; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutAsymmetricKey { object, private }: PutAsymmetricKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, algorithm) = header(&object, AsymmetricAlgorithm::from_algorithm)?;
    let private = exactly(algorithm.private_length(), private)?;
    let name = core.authorize_creation(caller, ObjectType::AsymmetricKey, &object, Capabilities::NONE)?;
    let body = key::expand(algorithm, private)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, &body, writer)
}

/// GENERATE ASYMMETRIC KEY: header; the id.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Generate { object }: Generate,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, algorithm) = header(&object, AsymmetricAlgorithm::from_algorithm)?;
    let name = core.authorize_creation(caller, ObjectType::AsymmetricKey, &object, Capabilities::NONE)?;
    let body = key::generate(algorithm, core.platform.entropy())?;
    core.create(name, &object, Capabilities::NONE, Origin::GENERATED, &body, writer)
}

/// GET PUBLIC KEY: `id u16`, and perhaps `type u8`; `algorithm u8 ‖ public key`.
pub(crate) fn public<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    GetPublicKey { id, object_type }: GetPublicKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = existing_id(id)?;
    let object_type = match object_type {
        [] => ObjectType::AsymmetricKey,
        &[code] => ObjectType::from_code(code).ok_or(DeviceError::InvalidData)?,
        _ => return Err(DeviceError::WrongLength),
    };
    let name = (object_type, id);
    let info = visible(&core.store, caller, name)?;
    let algorithm = AsymmetricAlgorithm::from_algorithm(info.algorithm).ok_or(DeviceError::InvalidData)?;
    let body = core.body(name)?;
    let key = match object_type {
        ObjectType::PublicWrapKey => &body,
        _ => key::public(algorithm, &body)?,
    };
    Ok(reply::PublicKey { algorithm: info.algorithm.code(), key }.encode(writer)?)
}
