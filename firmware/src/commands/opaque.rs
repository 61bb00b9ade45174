//! Opaque objects: bytes that mean nothing to the device, stored and returned as they are.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::{NewObject, Origin};
use sshsm_protocol::{Algorithm, Capabilities, DeviceError, ObjectType};

use super::{Core, existing_id};
use crate::authorization::visible;
use crate::platform::Platform;
use crate::session::Caller;

/// PUT OPAQUE: header, then at least one byte; the id. Certificates are not looked into: clients keep compressed
/// ones under the same algorithm.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = NewObject::decode(&mut reader)?;
    if !matches!(object.algorithm, Algorithm::OpaqueData | Algorithm::OpaqueX509Certificate) {
        return Err(DeviceError::InvalidData);
    }
    let name = core.authorize_creation(caller, ObjectType::Opaque, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, reader.rest(), writer)
}

/// GET OPAQUE: `id u16`; the bytes. The object's own capabilities do not matter.
pub(crate) fn get<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let name = (ObjectType::Opaque, existing_id(&mut reader)?);
    visible(&core.store, caller, name)?;
    Ok(writer.bytes(&core.body(name)?)?)
}
