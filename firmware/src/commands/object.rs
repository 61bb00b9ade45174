//! Commands about objects of any type.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::message::{ListObjects, ObjectName};
use sshsm_protocol::object::{ListEntry, ListFilter};
use sshsm_protocol::{DeviceError, ObjectType};

use super::{Core, existing_id};
use crate::authorization::visible;
use crate::platform::Platform;
use crate::session::Caller;
use crate::store::Name;

fn name(ObjectName { id, object_type }: ObjectName) -> Result<Name, DeviceError> {
    let id = existing_id(id)?;
    Ok((ObjectType::from_code(object_type).ok_or(DeviceError::InvalidData)?, id))
}

/// LIST OBJECTS: filters; four bytes for each visible object that passes them.
pub(crate) fn list<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    ListObjects { filters }: ListObjects<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let filter = ListFilter::decode(Reader::new(filters))?;
    for info in core.store.iter() {
        if info.domains.intersects(caller.domains) && filter.matches(info) {
            let entry = ListEntry { id: info.id, object_type: info.object_type, sequence: info.sequence };
            entry.encode(writer)?;
        }
    }
    Ok(())
}

/// GET OBJECT INFO: `id u16 ‖ type u8`; 66 bytes.
pub(crate) fn info<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    object: ObjectName,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    Ok(visible(&core.store, caller, name(object)?)?.encode(writer)?)
}

/// DELETE OBJECT: `id u16 ‖ type u8`. The object's own capabilities do not matter, and one shared domain is enough.
pub(crate) fn delete<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    object: ObjectName,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let name = name(object)?;
    visible(&core.store, caller, name)?;
    core.options.permit_change(name.0)?;
    #[cfg(feature = "ssh")]
    if name.0 == ObjectType::Template {
        super::template::insist_unsealed(core, name.1)?;
    }
    #[cfg(feature = "private-keys")]
    core.loaded.forget(name);
    Ok(core.store.delete(name)?)
}
