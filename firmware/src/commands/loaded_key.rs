//! The private key that was used last stays ready to be used: loading one costs more than signing with it.

#[cfg(feature = "ssh")]
use alloc::vec::Vec;

use sshsm_protocol::object::ObjectInfo;
use sshsm_protocol::{AsymmetricAlgorithm, DeviceError, ObjectId, ObjectType};

use super::Core;
#[cfg(feature = "ssh")]
use crate::crypto::key;
use crate::crypto::{CryptoError, Provider};
use crate::platform::Platform;
use crate::store::Name;

/// A private key that is ready to sign or decrypt.
pub(crate) struct LoadedKey<C: Provider> {
    id: ObjectId,
    pub(crate) algorithm: AsymmetricAlgorithm,
    /// Its public half, which a certificate names as its signer.
    #[cfg(feature = "ssh")]
    pub(crate) public: Vec<u8>,
    pub(crate) private: C::PrivateKey,
}

/// The key that was used last, unless its object is gone.
pub(crate) struct Cache<C: Provider>(Option<LoadedKey<C>>);

impl<C: Provider> Cache<C> {
    pub(crate) const EMPTY: Self = Self(None);

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Forgets the key of an object that is about to change.
    pub(crate) fn forget(&mut self, (object_type, id): Name) {
        if object_type == ObjectType::AsymmetricKey {
            self.0 = self.0.take().filter(|loaded| loaded.id != id);
        }
    }
}

impl<P: Platform> Core<P> {
    /// Makes an asymmetric key ready and returns it beside the platform, whose entropy signing needs. The caller has
    /// checked that the session may use it.
    pub(crate) fn load(&mut self, info: &ObjectInfo) -> Result<(&LoadedKey<P::Crypto>, &mut P), DeviceError> {
        if self.loaded.0.as_ref().is_none_or(|loaded| loaded.id != info.id) {
            self.loaded.clear();
            let algorithm =
                AsymmetricAlgorithm::from_algorithm(info.algorithm).ok_or(DeviceError::StorageFailed)?;
            let body = self.store.body((ObjectType::AsymmetricKey, info.id))?;
            let load = || {
                Ok::<_, CryptoError>(LoadedKey {
                    id: info.id,
                    algorithm,
                    #[cfg(feature = "ssh")]
                    public: key::public(algorithm, &body)?.to_vec(),
                    private: P::Crypto::load(algorithm, &body)?,
                })
            };
            // It was valid when it was stored.
            self.loaded = Cache(Some(load().map_err(|_| DeviceError::StorageFailed)?));
        }
        self.loaded.0.as_ref().map(|loaded| (loaded, &mut self.platform)).ok_or(DeviceError::StorageFailed)
    }
}
