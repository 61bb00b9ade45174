//! A device's identity: its own keys, which no command puts and none reads.
//!
//! They are P-256 keys, stored as records, generated when first needed and again after a reset.

use embedded_storage::nor_flash::MultiwriteNorFlash;
use rand_core::CryptoRng;
use sshsm_protocol::{AsymmetricAlgorithm, Curve};

use crate::crypto::key::{self, Body};
use crate::store::{Record, Store, StoreError};

/// What all keys of a device's own are.
pub(crate) const ALGORITHM: AsymmetricAlgorithm = AsymmetricAlgorithm::Ec(Curve::P256);

/// The private key of a record, in the form of [`key`].
pub(crate) fn private_key<F: MultiwriteNorFlash>(
    store: &mut Store<F>,
    entropy: &mut impl CryptoRng,
    record: Record,
) -> Result<Body, StoreError> {
    if let Some(scalar) = store.record(record)? {
        return key::expand(ALGORITHM, &scalar).map_err(|_| StoreError::Flash);
    }
    let body = key::generate(ALGORITHM, entropy).map_err(|_| StoreError::Flash)?;
    store.put_record(record, body.get(..ALGORITHM.private_length()).ok_or(StoreError::Flash)?)?;
    Ok(body)
}
