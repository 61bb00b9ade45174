//! Opaque objects: bytes that mean nothing to the device, stored and returned as they are.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Named, PutOpaque};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, DeviceError, ObjectType};

use super::{Core, existing_id};
use crate::authorization::visible;
use crate::platform::Platform;
use crate::session::Caller;

/// PUT OPAQUE: header, then at least one byte; the id. Certificates are not parsed: clients store compressed
/// ones under the same algorithm.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutOpaque { object, content }: PutOpaque<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = object.interpret()?;
    if !matches!(object.algorithm, Algorithm::OpaqueData | Algorithm::OpaqueX509Certificate) {
        return Err(DeviceError::InvalidData);
    }
    let name = core.authorize_creation(caller, ObjectType::Opaque, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, content, writer)
}

/// GET OPAQUE: `id u16`; the bytes. The object's own capabilities do not matter. Id 0 is the certificate of the
/// device's attestation key.
pub(crate) fn get<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Named { id }: Named,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    #[cfg(feature = "attestation")]
    if id == 0 {
        return Ok(writer.bytes(&super::attestation::device_certificate(core)?)?);
    }
    let name = (ObjectType::Opaque, existing_id(id)?);
    visible(&core.store, caller, name)?;
    Ok(writer.bytes(&core.body(name)?)?)
}
