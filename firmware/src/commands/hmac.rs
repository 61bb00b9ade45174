//! HMAC keys (RFC 2104), and computing and checking MACs.
//!
//! A key is stored as YubiHSM 2 counts and exports it: the zero-padded key xor 0x36…, then the same xor
//! 0x5c…, each as long as a block of the hash.

use alloc::vec::Vec;

use ::hmac::{Hmac, KeyInit, Mac};
use rand_core::Rng as _;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Generate, PutHmacKey, SignHmac, VerifyHmac};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, Capability, DeviceError, ObjectType};
use zeroize::Zeroizing;

use super::{Core, existing_id, header};
use crate::authorization::usable;
use crate::crypto::Hash;
use crate::crypto::key::Body;
use crate::platform::Platform;
use crate::session::Caller;

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// The hash of a key algorithm, and the bytes of its blocks and of its digests.
const fn hash(algorithm: Algorithm) -> Option<(Hash, usize, usize)> {
    Some(match algorithm {
        Algorithm::HmacSha1 => (Hash::Sha1, 64, 20),
        Algorithm::HmacSha256 => (Hash::Sha256, 64, 32),
        Algorithm::HmacSha384 => (Hash::Sha384, 128, 48),
        Algorithm::HmacSha512 => (Hash::Sha512, 128, 64),
        _ => return None,
    })
}

/// The stored form of a key that is not longer than a block.
fn expand(key: &[u8], block: usize) -> Body {
    let mut body = Zeroizing::new(Vec::with_capacity(2 * block));
    for pad in [INNER_PAD, OUTER_PAD] {
        body.extend(key.iter().chain(core::iter::repeat(&0)).take(block).map(|byte| byte ^ pad));
    }
    body
}

/// PUT HMAC KEY: header, then a key of one byte to one block of the hash; the id. Clients hash longer keys.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutHmacKey { object, key }: PutHmacKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, (_, block, _)) = header(&object, hash)?;
    if key.len() > block {
        return Err(DeviceError::WrongLength);
    }
    let name = core.authorize_creation(caller, ObjectType::HmacKey, &object, Capabilities::NONE)?;
    core.create(name, &object, Capabilities::NONE, Origin::IMPORTED, &expand(key, block), writer)
}

/// GENERATE HMAC KEY: header; the id. The key is as long as a block of the hash.
pub(crate) fn generate<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    Generate { object }: Generate,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (object, (_, block, _)) = header(&object, hash)?;
    let name = core.authorize_creation(caller, ObjectType::HmacKey, &object, Capabilities::NONE)?;
    let mut key = Zeroizing::new(alloc::vec![0; block]);
    core.platform.entropy().fill_bytes(&mut key);
    core.create(name, &object, Capabilities::NONE, Origin::GENERATED, &expand(&key, block), writer)
}

/// A usable key, and the hash and digest length that it works with.
fn load<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    id: u16,
    capability: Capability,
) -> Result<(Body, Hash, usize), DeviceError> {
    let name = (ObjectType::HmacKey, existing_id(id)?);
    let info = usable(&core.store, caller, name, capability)?;
    let (hash, _, digest) = hash(info.algorithm).ok_or(DeviceError::StorageFailed)?;
    Ok((core.body(name)?, hash, digest))
}

/// The authenticator over `data`, not yet finished.
fn mac<M: Mac + KeyInit>(body: &Body, data: &[u8]) -> Result<M, DeviceError> {
    // The padded key is as good as the key: HMAC would pad it the same way.
    let inner = body.get(..body.len() / 2).unwrap_or_default();
    let key: Body = Zeroizing::new(inner.iter().map(|byte| byte ^ INNER_PAD).collect());
    let mut mac = <M as KeyInit>::new_from_slice(&key).map_err(|_| DeviceError::StorageFailed)?;
    mac.update(data);
    Ok(mac)
}

/// SIGN HMAC: `id u16 ‖ data`; the authenticator, as long as the hash's digests.
pub(crate) fn sign<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignHmac { key: id, data }: SignHmac<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    fn answer<M: Mac + KeyInit>(
        body: &Body,
        data: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        Ok(writer.bytes(&mac::<M>(body, data)?.finalize().into_bytes())?)
    }
    let (body, hash, _) = load(core, caller, id, Capability::SignHmac)?;
    match hash {
        Hash::Sha1 => answer::<Hmac<Sha1>>(&body, data, writer),
        Hash::Sha256 => answer::<Hmac<Sha256>>(&body, data, writer),
        Hash::Sha384 => answer::<Hmac<Sha384>>(&body, data, writer),
        Hash::Sha512 => answer::<Hmac<Sha512>>(&body, data, writer),
    }
}

/// VERIFY HMAC: `id u16 ‖ authenticator ‖ data`; one byte, 1 if it fits and 0 if not.
pub(crate) fn verify<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    VerifyHmac { key: id, authenticated }: VerifyHmac<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    fn fits<M: Mac + KeyInit>(body: &Body, data: &[u8], authenticator: &[u8]) -> Result<bool, DeviceError> {
        // Compares in constant time.
        Ok(mac::<M>(body, data)?.verify_slice(authenticator).is_ok())
    }
    let (body, hash, digest) = load(core, caller, id, Capability::VerifyHmac)?;
    let (authenticator, data) = authenticated.split_at_checked(digest).ok_or(DeviceError::WrongLength)?;
    let fits = match hash {
        Hash::Sha1 => fits::<Hmac<Sha1>>(&body, data, authenticator),
        Hash::Sha256 => fits::<Hmac<Sha256>>(&body, data, authenticator),
        Hash::Sha384 => fits::<Hmac<Sha384>>(&body, data, authenticator),
        Hash::Sha512 => fits::<Hmac<Sha512>>(&body, data, authenticator),
    }?;
    Ok(writer.u8(fits.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/protocol.md, "Wrapped objects".
    #[test]
    fn bodies_have_the_exported_layout() {
        let body = expand(&[0, 1, 0xff], 64);
        let mut expected = [0x36; 64].to_vec();
        expected[..3].copy_from_slice(&[0x36, 0x37, 0xc9]);
        expected.extend([0x5c; 64]);
        expected[64..67].copy_from_slice(&[0x5c, 0x5d, 0xa3]);
        assert_eq!(*body, expected);
    }
}
