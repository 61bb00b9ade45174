//! Objects: listed, described, generated, put, read and deleted.

use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Command, DeviceError, ObjectId, ObjectType,
    codec::{Reader, Writer},
    message::{self, reply},
    object::{ListEntry, ListFilter, NewObject, ObjectInfo},
};

use crate::{
    credential::NewKey,
    error::{ClientError, Result, nonsense},
    identity::DevicePublicKey,
    plain::read,
    session::Session,
};

impl Session<'_> {
    /// The objects that match `filter` and share a domain with the session.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn list_objects(&mut self, filter: &ListFilter) -> Result<Vec<ListEntry>> {
        let command = Command::ListObjects;
        let mut filters = vec![0; self.max_payload()];
        let mut writer = Writer::new(&mut filters);
        filter.encode(&mut writer).map_err(|error| nonsense(command, error))?;
        let answer = self.send(command, &message::ListObjects { filters: writer.written() })?;
        let mut reader = Reader::new(&answer);
        let mut entries = Vec::new();
        while reader.remaining() > 0 {
            entries.push(ListEntry::decode(&mut reader).map_err(|error| nonsense(command, error))?);
        }
        Ok(entries)
    }

    /// Everything about an object but its content.
    ///
    /// # Errors
    /// [`DeviceError::ObjectNotFound`] when there is none, or none that shares a domain.
    pub fn object_info(&mut self, id: ObjectId, object_type: ObjectType) -> Result<ObjectInfo> {
        let command = Command::GetObjectInfo;
        let answer = self.send(command, &name(id, object_type))?;
        let mut reader = Reader::new(&answer);
        let info = ObjectInfo::decode(&mut reader).map_err(|error| nonsense(command, error))?;
        reader.finish().map_err(|error| nonsense(command, error))?;
        Ok(info)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn delete_object(&mut self, id: ObjectId, object_type: ObjectType) -> Result<()> {
        self.ask_without_answer(Command::DeleteObject, &name(id, object_type))
    }

    /// Deletes an object that must not remain, even if the answers to earlier commands, or to this one, were
    /// lost.
    ///
    /// # Errors
    /// When it is unknown whether it is still there, or the device refuses.
    pub fn delete_surely(&mut self, id: ObjectId, object_type: ObjectType) -> Result<()> {
        self.go_on_unheard();
        let mut deleted = self.delete_object(id, object_type);
        if deleted.as_ref().is_err_and(ClientError::ends_session) {
            // Once more, to hear of it.
            self.go_on_unheard();
            deleted = self.delete_object(id, object_type);
        }
        match deleted {
            Err(ClientError::Device { error: DeviceError::ObjectNotFound, .. }) => Ok(()),
            deleted => deleted,
        }
    }

    /// Makes an asymmetric key on the device; returns its id.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn generate_asymmetric_key(&mut self, object: &NewObject) -> Result<ObjectId> {
        self.create(Command::GenerateAsymmetricKey, &message::Generate { object: object.into() })
    }

    /// Puts an asymmetric key on the device; returns its id. `key` is RSA `p‖q`, an EC scalar or an Ed25519 seed.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn put_asymmetric_key(&mut self, object: &NewObject, key: &[u8]) -> Result<ObjectId> {
        let message = message::PutAsymmetricKey { object: object.into(), private: key };
        self.create(Command::PutAsymmetricKey, &message)
    }

    /// The public half of an asymmetric key.
    ///
    /// # Errors
    /// [`DeviceError::ObjectNotFound`] when there is none, or none that shares a domain.
    pub fn public_key(&mut self, id: ObjectId) -> Result<DevicePublicKey> {
        let command = Command::GetPublicKey;
        let answer = self.send(command, &message::GetPublicKey { id: id.get(), object_type: &[] })?;
        let reply::PublicKey { algorithm: code, key: bytes } = read(command, &answer)?;
        let algorithm = Algorithm::from_code(code).and_then(AsymmetricAlgorithm::from_algorithm);
        let algorithm = algorithm.ok_or_else(|| nonsense(command, format!("its algorithm is {code}")))?;
        if bytes.len() != algorithm.public_length() {
            return Err(nonsense(command, format!("a key of {} bytes is not {algorithm}", bytes.len())));
        }
        Ok(DevicePublicKey { algorithm, bytes: bytes.to_vec() })
    }

    /// Puts a template on the device; returns its id.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn put_template(&mut self, object: &NewObject, template: &[u8]) -> Result<ObjectId> {
        self.create(Command::PutTemplate, &message::PutTemplate { object: object.into(), template })
    }

    /// The bytes of a template.
    ///
    /// # Errors
    /// [`DeviceError::ObjectNotFound`] when there is none, or none that shares a domain.
    pub fn template(&mut self, id: ObjectId) -> Result<Vec<u8>> {
        self.send(Command::GetTemplate, &message::Named { id: id.get() })
    }

    /// Puts an authentication key on the device, whose algorithm `object` has; returns its id. `delegated` is
    /// what its sessions may delegate.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn put_authentication_key<'k>(
        &mut self,
        object: &NewObject,
        delegated: Capabilities,
        key: impl Into<NewKey<'k>>,
    ) -> Result<ObjectId> {
        let key = key.into();
        let message = message::PutAuthenticationKey { object: object.into(), delegated, key: key.as_bytes() };
        self.create(Command::PutAuthenticationKey, &message)
    }

    /// Replaces the authentication key that this session was opened with.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn change_authentication_key<'k>(&mut self, id: ObjectId, key: impl Into<NewKey<'k>>) -> Result<()> {
        let command = Command::ChangeAuthenticationKey;
        let key = key.into();
        let (algorithm, bytes) = (key.algorithm().code(), key.as_bytes());
        let message = message::ChangeAuthenticationKey { id: id.get(), algorithm, key: bytes };
        let answer = self.send(command, &message)?;
        match read(command, &answer)? {
            reply::Created { id: changed } if changed == id.get() => Ok(()),
            reply::Created { id: changed } => {
                Err(nonsense(command, format!("it changed key {changed:#06x}")))
            }
        }
    }

    /// The bytes of an opaque object.
    ///
    /// # Errors
    /// [`DeviceError::ObjectNotFound`] when there is none, or none that shares a domain.
    pub fn opaque(&mut self, id: ObjectId) -> Result<Vec<u8>> {
        self.send(Command::GetOpaque, &message::Named { id: id.get() })
    }
}

fn name(id: ObjectId, object_type: ObjectType) -> message::ObjectName {
    message::ObjectName { id: id.get(), object_type: object_type.code() }
}

/// An id for an object that this program puts on a device: known beforehand, so that the object can be
/// deleted even if the answer to its creation was lost.
///
/// # Errors
/// When the operating system supplies no random numbers.
pub fn random_id() -> Result<ObjectId> {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(ClientError::Entropy)?;
        if let Ok(id) = ObjectId::new(u16::from_be_bytes(bytes)) {
            return Ok(id);
        }
    }
}

/// `None` for an object that is not there.
///
/// # Errors
/// All others than that.
pub fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Device { error: DeviceError::ObjectNotFound, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
