//! Authorization: session capabilities, domains, object capabilities, and delegation.
//!
//! The rules and their order are YubiHSM 2's (docs/protocol.md, "Rights" and docs/protocol.md, "Order of
//! checks"). An object that shares no domain with the session does not exist for it.

use embedded_storage::nor_flash::MultiwriteNorFlash;
#[cfg(feature = "wrap")]
use sshsm_protocol::Domains;
use sshsm_protocol::command::Requirement;
use sshsm_protocol::message::{Message as _, ObjectName};
use sshsm_protocol::object::{NewObject, ObjectInfo};
use sshsm_protocol::{Capabilities, Command, DeviceError, ObjectType};

use crate::session::Caller;
use crate::store::{Name, Store};

/// Whether a session still belongs to its authentication key: the stored key is the one that opened it, or
/// the session itself has deleted the key and there is none with its id.
pub(crate) fn holds_its_key<F: MultiwriteNorFlash>(store: &Store<F>, caller: &Caller) -> bool {
    store.revision((ObjectType::AuthenticationKey, caller.authentication_key)) == caller.revision
}

/// Whether the session may send this command; `payload` matters only to DELETE OBJECT.
pub(crate) fn may_send(caller: &Caller, command: Command, payload: &[u8]) -> Result<(), DeviceError> {
    let needs = |capability| match caller.capabilities.contains(capability) {
        true => Ok(()),
        false => Err(DeviceError::InsufficientPermissions),
    };
    match command.requirement() {
        Requirement::Nothing => Ok(()),
        Requirement::Capability(capability) => needs(capability),
        Requirement::Both(first, second) => needs(first).and_then(|()| needs(second)),
        Requirement::DeleteOfType => {
            let ObjectName { object_type, .. } = ObjectName::decode(payload)?;
            needs(ObjectType::from_code(object_type).ok_or(DeviceError::InvalidData)?.delete_capability())
        }
    }
}

/// An object that the session can see.
pub(crate) fn visible<F: MultiwriteNorFlash>(
    store: &Store<F>,
    caller: &Caller,
    name: Name,
) -> Result<ObjectInfo, DeviceError> {
    store
        .info(name)
        .filter(|info| info.domains.intersects(caller.domains))
        .copied()
        .ok_or(DeviceError::ObjectNotFound)
}

/// A visible object that may be used for something; the session's own capability has been checked before.
#[cfg(feature = "key-use")]
pub(crate) fn usable<F: MultiwriteNorFlash>(
    store: &Store<F>,
    caller: &Caller,
    name: Name,
    capability: sshsm_protocol::Capability,
) -> Result<ObjectInfo, DeviceError> {
    let info = visible(store, caller, name)?;
    if info.capabilities.contains(capability) { Ok(info) } else { Err(DeviceError::InsufficientPermissions) }
}

/// The domains of an object imported under a wrap key: those that it requests and that both the wrap key and
/// the session have. A session therefore cannot bring an object into a domain that it does not have; if no
/// domain is left, the object is refused.
#[cfg(feature = "wrap")]
pub(crate) fn imported_domains(
    caller: &Caller,
    wrap: &ObjectInfo,
    asked: Domains,
) -> Result<Domains, DeviceError> {
    if asked.is_empty() {
        return Err(DeviceError::InvalidData);
    }
    let domains = asked.intersection(wrap.domains).intersection(caller.domains);
    if domains.is_empty() { Err(DeviceError::InsufficientPermissions) } else { Ok(domains) }
}

/// Whether the session may create this object: nothing that it cannot see, nothing that it may not pass on.
pub(crate) fn may_create(
    caller: &Caller,
    object: &NewObject,
    delegated: Capabilities,
) -> Result<(), DeviceError> {
    if object.domains.is_empty() {
        return Err(DeviceError::InvalidData);
    }
    if object.domains.is_subset_of(caller.domains)
        && object.capabilities.is_subset_of(caller.delegated_capabilities)
        && delegated.is_subset_of(caller.delegated_capabilities)
    {
        Ok(())
    } else {
        Err(DeviceError::InsufficientPermissions)
    }
}
