//! Exporting objects under a wrap key and importing them again: who may do that, and what an imported object
//! must be.
//!
//! A wrap key passes on only the capabilities that it may delegate, and only within its own domains and those
//! of the session (docs/protocol.md, "Exports and imports"). An object that is not consistent in every part
//! is refused, and nothing is stored.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{ExportWrapped, ImportWrapped, Message as _, reply};
use sshsm_protocol::object::{NewObject, ObjectInfo, Origin};
use sshsm_protocol::wrapped::{ED25519_WITHOUT_SEED, WrappedObject};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, DeviceError, ObjectType,
};
use zeroize::Zeroizing;

use super::{Core, FreeName, existing_id, wrap_key};
use crate::authorization::{imported_domains, visible};
use crate::crypto::key::{self, Body};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// EXPORT WRAPPED: `wrap key u16 ‖ type u8 ‖ id u16`, optionally `format u8`; `nonce[13] ‖ ciphertext ‖
/// tag[16]`. Only format 1 includes an Ed25519 key's seed.
pub(crate) fn export<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    ExportWrapped { wrap_key: wrap_id, object_type, id, form }: ExportWrapped<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let with_seed = match form {
        [] | [0] => false,
        [1] => true,
        _ => return Err(DeviceError::WrongLength),
    };
    let (wrap, wrapping) = wrap_key::aes(core, caller, wrap_id, Capability::ExportWrapped)?;
    let target = exportable(core, caller, &wrap, (object_type, id))?;
    let plaintext = serialize(core, &wrap, &target, with_seed)?;
    presence::confirm(&mut core.platform, core.options.presence(), Command::ExportWrapped)?;
    wrap_key::seal(core, &wrapping, plaintext, writer)
}

/// IMPORT WRAPPED: `wrap key u16 ‖ nonce[13] ‖ ciphertext ‖ tag[16]`; `type u8 ‖ id u16`.
pub(crate) fn import<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    ImportWrapped { wrap_key: wrap_id, sealed }: ImportWrapped<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (wrap, wrapping) = wrap_key::aes(core, caller, wrap_id, Capability::ImportWrapped)?;
    let plaintext = wrap_key::open(&wrapping, sealed)?;
    restore(core, caller, &wrap, &plaintext, writer)
}

/// The object with this type and id, if it may leave under this wrap key.
pub(super) fn exportable<P: Platform>(
    core: &Core<P>,
    caller: &Caller,
    wrap: &ObjectInfo,
    (object_type, id): (u8, u16),
) -> Result<ObjectInfo, DeviceError> {
    let object_type = ObjectType::from_code(object_type).ok_or(DeviceError::InvalidData)?;
    let target = visible(&core.store, caller, (object_type, existing_id(id)?))?;
    if target.capabilities.contains(Capability::ExportableUnderWrap)
        && target.capabilities.is_subset_of(wrap.delegated_capabilities)
    {
        Ok(target)
    } else {
        Err(DeviceError::InsufficientPermissions)
    }
}

/// The plaintext of an object's export.
pub(super) fn serialize<P: Platform>(
    core: &mut Core<P>,
    wrap: &ObjectInfo,
    target: &ObjectInfo,
    with_seed: bool,
) -> Result<Body, DeviceError> {
    let body = core.body((target.object_type, target.id))?;
    let body = match body.get(..ED25519_WITHOUT_SEED) {
        Some(start) if target.algorithm == Algorithm::Ed25519 && !with_seed => start,
        _ => &body,
    };
    let wrapped = WrappedObject {
        wrap_algorithm: wrap.algorithm,
        sequence: target.sequence,
        object_type: target.object_type,
        object: NewObject {
            id: Some(target.id),
            label: target.label,
            domains: target.domains,
            capabilities: target.capabilities,
            algorithm: target.algorithm,
        },
        origin: target.origin,
        delegated_capabilities: target.delegated_capabilities,
        body,
    };
    let mut plaintext = Zeroizing::new(alloc::vec![0; wrapped.encoded_len()]);
    wrapped.encode(&mut Writer::new(&mut plaintext))?;
    Ok(plaintext)
}

/// Stores the object in the plaintext of an export, and answers `type u8 ‖ id u16`.
pub(super) fn restore<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    wrap: &ObjectInfo,
    plaintext: &[u8],
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let WrappedObject { wrap_algorithm, object_type, object, origin, delegated_capabilities, body, .. } =
        WrappedObject::decode(plaintext)?;
    if wrap_algorithm != wrap.algorithm {
        return Err(DeviceError::InvalidData);
    }
    let (name, object) = importable(core, caller, wrap, object_type, object, delegated_capabilities)?;
    validate(object_type, object.algorithm, body)?;
    store(core, name, &object, delegated_capabilities, origin.wrapped(), body, writer)
}

/// Checks that an object may be imported under this wrap key and that its name is free; chooses an id if it
/// has none, and reduces its domains to those that it shares with wrap key and session.
pub(super) fn importable<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    wrap: &ObjectInfo,
    object_type: ObjectType,
    object: NewObject,
    delegated: Capabilities,
) -> Result<(FreeName, NewObject), DeviceError> {
    core.options.permit(object.algorithm)?;
    let domains = imported_domains(caller, wrap, object.domains)?;
    if !object.capabilities.is_subset_of(wrap.delegated_capabilities)
        || !delegated.is_subset_of(wrap.delegated_capabilities)
    {
        return Err(DeviceError::InsufficientPermissions);
    }
    Ok((core.free_name(object_type, object.id)?, NewObject { domains, ..object }))
}

/// Stores an imported object and answers `type u8 ‖ id u16`.
pub(super) fn store<P: Platform>(
    core: &mut Core<P>,
    name: FreeName,
    object: &NewObject,
    delegated: Capabilities,
    origin: Origin,
    body: &[u8],
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object_type, id) = core.insert(name, object, delegated, origin, body)?;
    Ok(reply::Imported { object_type: object_type.code(), id: id.get() }.encode(writer)?)
}

/// Whether a body of the right length can be used: points are on their curve, numbers belong to each other.
fn validate(object_type: ObjectType, algorithm: Algorithm, body: &[u8]) -> Result<(), DeviceError> {
    match (object_type, AsymmetricAlgorithm::from_algorithm(algorithm)) {
        (ObjectType::AsymmetricKey | ObjectType::WrapKey, Some(algorithm)) => {
            Ok(key::validate_body(algorithm, body)?)
        }
        (ObjectType::PublicWrapKey, _) if !wrap_key::is_modulus(body) => Err(DeviceError::InvalidData),
        (ObjectType::HmacKey, _) => {
            // Both halves are the same key, under the pads 0x36 and 0x5c (RFC 2104); no early exit: they are secret.
            let (inner, outer) = body.split_at(body.len() / 2);
            let difference = inner.iter().zip(outer).fold(0, |all, (i, o)| all | (i ^ o ^ 0x36 ^ 0x5c));
            if difference == 0 { Ok(()) } else { Err(DeviceError::InvalidData) }
        }
        (ObjectType::AuthenticationKey, _) if algorithm == Algorithm::Ecp256YubicoAuthentication => {
            let (x, y) = body.split_at(body.len() / 2);
            let point = [[4].as_slice(), x, y].concat();
            p256::PublicKey::from_sec1_bytes(&point).map(|_| ()).map_err(|_| DeviceError::InvalidData)
        }
        _ => Ok(()),
    }
}
