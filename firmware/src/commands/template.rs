//! SSH templates, stored and returned unchanged. Their contents matter only when a certificate is signed.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Named, PutTemplate};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, DeviceError, ObjectId, ObjectType};

use super::{Core, existing_id};
use crate::authorization::visible;
use crate::platform::Platform;
use crate::session::Caller;
use crate::ssh::policy::judge_deletion;

/// PUT TEMPLATE: header, then any bytes, as YubiHSM 2 accepts them; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutTemplate { object, template }: PutTemplate<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = object.interpret()?;
    if object.algorithm != Algorithm::TemplateSsh {
        return Err(DeviceError::InvalidData);
    }
    let name = core.authorize_creation(caller, ObjectType::Template, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, template, writer)
}

/// Refuses to delete a template that its own rules seal.
pub(crate) fn insist_unsealed<P: Platform>(core: &mut Core<P>, id: ObjectId) -> Result<(), DeviceError> {
    Ok(judge_deletion(&core.template(id)?)?)
}

/// GET TEMPLATE: `id u16`; the bytes. The template's own capabilities do not matter.
pub(crate) fn get<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Named { id }: Named,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let name = (ObjectType::Template, existing_id(id)?);
    visible(&core.store, caller, name)?;
    Ok(writer.bytes(&core.body(name)?)?)
}
