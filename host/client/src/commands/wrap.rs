//! Exporting objects under a wrap key, and importing them again.

use sshsm_protocol::{
    Capabilities, Command, ObjectId, ObjectType,
    message::{self, reply},
    object::NewObject,
};

use crate::{
    error::{Result, nonsense},
    plain::read,
    session::Session,
};

impl Session<'_> {
    /// Puts an AES wrap key on the device; returns its id. `delegated` limits the capabilities of objects
    /// that pass under it.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn put_wrap_key(
        &mut self,
        object: &NewObject,
        delegated: Capabilities,
        key: &[u8],
    ) -> Result<ObjectId> {
        self.create(Command::PutWrapKey, &message::PutWrapKey { object: object.into(), delegated, key })
    }

    /// An object sealed under a wrap key, `nonce[13] ‖ ciphertext ‖ tag[16]`; an Ed25519 key with or without
    /// its seed.
    ///
    /// # Errors
    /// [`InsufficientPermissions`](sshsm_protocol::DeviceError::InsufficientPermissions) when the object, or
    /// one of its capabilities, may not leave under that key.
    pub fn export_wrapped(
        &mut self,
        wrap_key: ObjectId,
        object_type: ObjectType,
        id: ObjectId,
        with_seed: bool,
    ) -> Result<Vec<u8>> {
        let message = message::ExportWrapped {
            wrap_key: wrap_key.get(),
            object_type: object_type.code(),
            id: id.get(),
            form: if with_seed { &[1] } else { &[] },
        };
        self.send(Command::ExportWrapped, &message)
    }

    /// Imports what [`Session::export_wrapped`] returned; returns the object's name.
    ///
    /// # Errors
    /// [`InvalidData`](sshsm_protocol::DeviceError::InvalidData) when it was not sealed under this wrap key,
    /// [`ObjectExists`](sshsm_protocol::DeviceError::ObjectExists) when there is one with that name.
    pub fn import_wrapped(&mut self, wrap_key: ObjectId, wrapped: &[u8]) -> Result<(ObjectType, ObjectId)> {
        let command = Command::ImportWrapped;
        let message = message::ImportWrapped { wrap_key: wrap_key.get(), sealed: wrapped };
        let answer = self.send(command, &message)?;
        let reply::Imported { object_type, id } = read(command, &answer)?;
        let object_type =
            ObjectType::from_code(object_type).ok_or_else(|| nonsense(command, "there is no such type"))?;
        Ok((object_type, ObjectId::new(id).map_err(|error| nonsense(command, error))?))
    }
}
