//! The one way from a permission to the signature of a certificate.

use rand_core::CryptoRng;
use sshsm_protocol::DeviceError;
use sshsm_protocol::codec::Writer;

use super::policy::Permit;
use crate::crypto::{Key, MAX_SIGNATURE, Provider, sign_ssh};

/// Signs what the policy permits; writes the certificate's signature field. Each permit is used once.
///
/// # Errors
/// When the key cannot sign, or there is no room for the field.
pub fn sign<C: Provider>(
    permit: Permit<'_>,
    key: &Key<C>,
    entropy: &mut impl CryptoRng,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let (algorithm, request) = (permit.algorithm(), permit.request());
    let mut signature = [0; MAX_SIGNATURE];
    let length = sign_ssh(key, algorithm, request, entropy, &mut signature)?;
    let signature = signature.get(..length).ok_or(DeviceError::StorageFailed)?;
    algorithm.encode_field(signature, writer).map_err(|_| DeviceError::WrongLength)
}
