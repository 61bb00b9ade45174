//! Authentication keys, which open sessions: AES-128 keys derived from passwords, and P-256 public keys,
//! whose sessions also prove to the host which device it is talking to.

use p256::elliptic_curve::ecdh::diffie_hellman;
use sshsm_protocol::channel::{Agreement, AuthenticationKey, DeviceChannel, Point, Receipt};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{ChangeAuthenticationKey, Message as _, Nothing, PutAuthenticationKey, reply};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, DeviceError, ObjectId, ObjectType};
use zeroize::Zeroizing;

use super::{Core, exactly};
use crate::crypto::key;
use crate::identity;
use crate::platform::Platform;
use crate::session::Caller;
use crate::store::{Attributes, Record};

/// Bytes of a P-256 public key, `X‖Y`.
const PUBLIC_LENGTH: usize = identity::ALGORITHM.public_length();

/// The reported length of an authentication key: delegated capabilities and the key.
pub(crate) fn object_length(key: &[u8]) -> u16 {
    u16::try_from(8 + key.len()).unwrap_or(u16::MAX)
}

/// The key of `algorithm`: `K-ENC[16] ‖ K-MAC[16]` or `X[32] ‖ Y[32]`.
fn key(algorithm: Algorithm, key: &[u8]) -> Result<&[u8], DeviceError> {
    let length = match algorithm {
        Algorithm::Aes128YubicoAuthentication => AuthenticationKey::LENGTH,
        Algorithm::Ecp256YubicoAuthentication => PUBLIC_LENGTH,
        _ => return Err(DeviceError::InvalidData),
    };
    exactly(length, key)
}

/// A P-256 public key must be on the curve.
fn check(algorithm: Algorithm, key: &[u8]) -> Result<(), DeviceError> {
    match algorithm {
        Algorithm::Ecp256YubicoAuthentication => public_key(&point(key)?).map(|_| ()),
        _ => Ok(()),
    }
}

fn point(public: &[u8]) -> Result<Point, DeviceError> {
    let mut point = [4; 1 + PUBLIC_LENGTH];
    let public: &[u8; PUBLIC_LENGTH] = public.try_into().map_err(|_| DeviceError::StorageFailed)?;
    for (to, from) in point.iter_mut().skip(1).zip(public) {
        *to = *from;
    }
    Ok(point)
}

fn public_key(point: &Point) -> Result<p256::PublicKey, DeviceError> {
    p256::PublicKey::from_sec1_bytes(point).map_err(|_| DeviceError::InvalidData)
}

/// The x-coordinate of a point times a scalar.
fn ecdh(body: &[u8], point: &Point) -> Result<Zeroizing<[u8; 32]>, DeviceError> {
    let scalar = body.get(..identity::ALGORITHM.private_length()).unwrap_or_default();
    let secret = p256::SecretKey::from_slice(scalar).map_err(|_| DeviceError::StorageFailed)?;
    let shared = diffie_hellman(secret.to_nonzero_scalar(), public_key(point)?.as_affine());
    Ok(Zeroizing::new((*shared.raw_secret_bytes()).into()))
}

/// Derives the keys of a session with the holder of the P-256 key `public`, whose ephemeral key is
/// `host_point`; returns the channel, the device's ephemeral key and the receipt.
pub(crate) fn agree<P: Platform>(
    core: &mut Core<P>,
    session_id: u8,
    public: &[u8],
    host_point: &Point,
) -> Result<(DeviceChannel, Point, Receipt), DeviceError> {
    let device = identity::private_key(&mut core.store, core.platform.entropy(), Record::DeviceKey)?;
    let ephemeral = key::generate(identity::ALGORITHM, core.platform.entropy())?;
    let device_point = point(key::public(identity::ALGORITHM, &ephemeral)?)?;
    let agreement = Agreement {
        ephemeral_secret: &*ecdh(&ephemeral, host_point)?,
        static_secret: &*ecdh(&device, &point(public)?)?,
        host_point,
        device_point: &device_point,
    };
    let (channel, receipt) = DeviceChannel::agree(session_id, &agreement);
    Ok((channel, device_point, receipt))
}

/// GET DEVICE PUBLIC KEY: `algorithm u8 ‖ X[32] ‖ Y[32]`.
pub(crate) fn device_public_key<P: Platform>(
    core: &mut Core<P>,
    _: Nothing,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let body = identity::private_key(&mut core.store, core.platform.entropy(), Record::DeviceKey)?;
    let algorithm = Algorithm::Ecp256YubicoAuthentication.code();
    Ok(reply::PublicKey { algorithm, key: key::public(identity::ALGORITHM, &body)? }.encode(writer)?)
}

/// PUT AUTHENTICATION KEY: header, delegated capabilities, then `K-ENC[16] ‖ K-MAC[16]` or `X[32] ‖ Y[32]`; the id.
pub(crate) fn put<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    PutAuthenticationKey { object, delegated, key: secret }: PutAuthenticationKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let object = object.interpret()?;
    let key = key(object.algorithm, secret)?;
    let name = core.authorize_creation(caller, ObjectType::AuthenticationKey, &object, delegated)?;
    check(object.algorithm, key)?;
    core.create(name, &object, delegated, Origin::IMPORTED, key, writer)
}

/// CHANGE AUTHENTICATION KEY: `id u16 ‖ algorithm u8 ‖ key`; the id. Only the session's own key, which keeps
/// its rights and label and may become one of the other kind; of the sessions that it opened, only this one
/// continues.
pub(crate) fn change<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    ChangeAuthenticationKey { id, algorithm, key: secret }: ChangeAuthenticationKey<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let id = ObjectId::new(id).map_err(|_| DeviceError::InvalidId)?;
    if id != caller.authentication_key {
        return Err(DeviceError::InvalidId);
    }
    let algorithm = Algorithm::from_code(algorithm).ok_or(DeviceError::InvalidData)?;
    let key = key(algorithm, secret)?;
    check(algorithm, key)?;
    let name = (ObjectType::AuthenticationKey, id);
    // This session may have deleted it.
    let info = core.store.info(name).copied().ok_or(DeviceError::ObjectNotFound)?;
    let attributes = Attributes {
        capabilities: info.capabilities,
        length: object_length(key),
        domains: info.domains,
        algorithm,
        origin: Origin::IMPORTED,
        label: info.label,
        delegated_capabilities: info.delegated_capabilities,
    };
    core.store.replace(name, &attributes, key)?;
    Ok(reply::Created { id: id.get() }.encode(writer)?)
}
