//! Data that only holders of a wrap key can read. A leading byte distinguishes it from objects
//! (docs/protocol.md, "Wrapped data").

use sshsm_protocol::codec::Writer;
use sshsm_protocol::device_info::Version;
use sshsm_protocol::message::{UnwrapData, WrapData};
use sshsm_protocol::wrapped::DATA_MARK;
use sshsm_protocol::{Capability, DeviceError};
use zeroize::Zeroizing;

use super::device::VERSION;
use super::{Core, wrap_key};
use crate::crypto::key::Body;
use crate::platform::Platform;
use crate::session::Caller;

/// The first firmware that reports a key without the capability as such; clients expect each version's own
/// answer.
const TELLS_PERMISSIONS: Version = Version { major: 2, minor: 5, patch: 0 };

fn key<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    id: u16,
    capability: Capability,
) -> Result<Body, DeviceError> {
    match wrap_key::aes(core, caller, id, capability) {
        Err(DeviceError::InsufficientPermissions) if VERSION < TELLS_PERMISSIONS => {
            Err(DeviceError::InvalidData)
        }
        key => key.map(|(_, key)| key),
    }
}

/// WRAP DATA: `id u16 ‖ data`; `nonce[13] ‖ ciphertext ‖ tag[16]`, 30 bytes more than the data.
pub(crate) fn wrap<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    WrapData { key: id, data }: WrapData<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wrapping = key(core, caller, id, Capability::WrapData)?;
    let plaintext = Zeroizing::new([[DATA_MARK].as_slice(), data].concat());
    wrap_key::seal(core, &wrapping, plaintext, writer)
}

/// UNWRAP DATA: `id u16 ‖ nonce[13] ‖ ciphertext ‖ tag[16]`; the data.
pub(crate) fn unwrap<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    UnwrapData { key: id, sealed }: UnwrapData<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let wrapping = key(core, caller, id, Capability::UnwrapData)?;
    match wrap_key::open(&wrapping, sealed)?.as_slice() {
        [DATA_MARK, data @ ..] => Ok(writer.bytes(data)?),
        _ => Err(DeviceError::InvalidData),
    }
}
