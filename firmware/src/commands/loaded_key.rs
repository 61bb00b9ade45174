//! Caches of what was used last: loading a private key costs more than signing with it, and unsealing a
//! template as much as a good part of a P-256 signature.

#[cfg(feature = "ssh")]
use alloc::vec::Vec;

use sshsm_protocol::object::ObjectInfo;
use sshsm_protocol::{AsymmetricAlgorithm, DeviceError, ObjectId, ObjectType};

use super::Core;
use crate::crypto::{Key, Provider};
use crate::platform::Platform;
use crate::store::Name;

/// The key and the template that were used last, unless their objects are gone.
pub(crate) struct Cache<C: Provider> {
    key: Option<(ObjectId, Key<C>)>,
    #[cfg(feature = "ssh")]
    template: Option<(ObjectId, Vec<u8>)>,
}

impl<C: Provider> Cache<C> {
    pub(crate) const EMPTY: Self = Self {
        key: None,
        #[cfg(feature = "ssh")]
        template: None,
    };

    pub(crate) fn clear(&mut self) {
        *self = Self::EMPTY;
    }

    /// Forgets an object that is about to change.
    pub(crate) fn forget(&mut self, (object_type, id): Name) {
        match object_type {
            ObjectType::AsymmetricKey => self.key = self.key.take().filter(|(loaded, _)| *loaded != id),
            #[cfg(feature = "ssh")]
            ObjectType::Template => self.template = self.template.take().filter(|(loaded, _)| *loaded != id),
            _ => {}
        }
    }
}

impl<P: Platform> Core<P> {
    /// Loads an asymmetric key and returns it along with the platform, whose entropy signing needs. The
    /// caller has checked that the session may use it.
    pub(crate) fn load(&mut self, info: &ObjectInfo) -> Result<(&Key<P::Crypto>, &mut P), DeviceError> {
        if self.loaded.key.as_ref().is_none_or(|(loaded, _)| *loaded != info.id) {
            self.loaded.key = None;
            let algorithm =
                AsymmetricAlgorithm::from_algorithm(info.algorithm).ok_or(DeviceError::StorageFailed)?;
            let body = self.store.body((ObjectType::AsymmetricKey, info.id))?;
            // It was valid when it was stored.
            let key = Key::load(algorithm, &body).map_err(|_| DeviceError::StorageFailed)?;
            self.loaded.key = Some((info.id, key));
        }
        let key = self.loaded.key.as_ref().map(|(_, key)| (key, &mut self.platform));
        key.ok_or(DeviceError::StorageFailed)
    }

    /// The bytes of a template that the session may see.
    #[cfg(feature = "ssh")]
    pub(crate) fn template(&mut self, id: ObjectId) -> Result<Vec<u8>, DeviceError> {
        match &self.loaded.template {
            Some((loaded, bytes)) if *loaded == id => Ok(bytes.clone()),
            _ => {
                let bytes = self.store.body((ObjectType::Template, id))?.to_vec();
                self.loaded.template = Some((id, bytes.clone()));
                Ok(bytes)
            }
        }
    }
}
