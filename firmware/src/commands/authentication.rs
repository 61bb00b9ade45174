//! Authentication keys: what sessions are opened with.

use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::{NewObject, Origin};
use sshsm_protocol::{Algorithm, Capabilities, DeviceError, ObjectId, ObjectType};

use super::Core;
use crate::platform::Platform;
use crate::session::Caller;
use crate::store::Attributes;

/// The reported length of an AES authentication key: delegated capabilities and the key.
pub(crate) const AES_KEY_OBJECT_LENGTH: u16 = 8 + 32;

/// The key of `algorithm`, which must be the AES one: P-256 authentication is a command family of its own.
fn key<'a>(algorithm: Algorithm, mut reader: Reader<'a>) -> Result<&'a [u8], DeviceError> {
    if algorithm != Algorithm::Aes128YubicoAuthentication {
        return Err(DeviceError::InvalidData);
    }
    let key = reader.take(AuthenticationKey::LENGTH)?;
    reader.finish()?;
    Ok(key)
}

/// PUT AUTHENTICATION KEY: header, delegated capabilities, `K-ENC[16] ‖ K-MAC[16]`; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = NewObject::decode(&mut reader)?;
    let delegated = Capabilities::from_bits(reader.u64()?);
    let key = key(object.algorithm, reader)?;
    let name = core.authorize_creation(caller, ObjectType::AuthenticationKey, &object, delegated)?;
    core.create(name, &object, delegated, Origin::IMPORTED, key, writer)
}

/// CHANGE AUTHENTICATION KEY: `id u16 ‖ algorithm u8 ‖ key`; the id. Only the session's own key, which keeps its
/// rights and label; sessions that it opened go on.
pub(crate) fn change<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = ObjectId::new(reader.u16()?).map_err(|_| DeviceError::InvalidId)?;
    if id != caller.authentication_key {
        return Err(DeviceError::InvalidId);
    }
    let algorithm = Algorithm::from_code(reader.u8()?).ok_or(DeviceError::InvalidData)?;
    let key = key(algorithm, reader)?;
    let name = (ObjectType::AuthenticationKey, id);
    // Sessions outlive their key: another key that was put under the same id since is somebody else's.
    let info = core
        .store
        .info(name)
        .filter(|info| {
            info.capabilities == caller.capabilities
                && info.delegated_capabilities == caller.delegated_capabilities
                && info.domains == caller.domains
        })
        .copied()
        .ok_or(DeviceError::ObjectNotFound)?;
    let attributes = Attributes {
        capabilities: info.capabilities,
        length: AES_KEY_OBJECT_LENGTH,
        domains: info.domains,
        algorithm,
        origin: Origin::IMPORTED,
        label: info.label,
        delegated_capabilities: info.delegated_capabilities,
    };
    core.store.replace(name, &attributes, key)?;
    Ok(writer.u16(id.get())?)
}
