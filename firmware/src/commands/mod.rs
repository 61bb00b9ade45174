//! What each command does inside a session. The command table in `sshsm-protocol` says which exist and what they
//! demand; [`handler`] is the only place that connects a command to its code.

pub(crate) mod asymmetric_key;
#[cfg(feature = "attestation")]
pub(crate) mod attestation;
#[cfg(feature = "audit")]
pub(crate) mod audit;
pub(crate) mod authentication;
#[cfg(feature = "decryption")]
pub(crate) mod decrypt;
pub(crate) mod device;
#[cfg(feature = "hmac")]
pub(crate) mod hmac;
#[cfg(feature = "private-keys")]
pub(crate) mod loaded_key;
pub(crate) mod object;
#[cfg(feature = "opaque")]
pub(crate) mod opaque;
#[cfg(feature = "otp")]
pub(crate) mod otp_aead;
#[cfg(feature = "ssh")]
mod remembered;
#[cfg(feature = "rsa-wrap")]
pub(crate) mod rsa_wrapped;
#[cfg(feature = "signatures")]
pub(crate) mod sign;
#[cfg(feature = "ssh")]
pub(crate) mod ssh_certificate;
#[cfg(feature = "symmetric")]
pub(crate) mod symmetric_key;
#[cfg(feature = "ssh")]
pub(crate) mod template;
#[cfg(feature = "wrap")]
pub(crate) mod wrap_data;
#[cfg(feature = "wrap")]
pub(crate) mod wrap_key;
#[cfg(feature = "wrap")]
pub(crate) mod wrapped_object;

use rand_core::Rng as _;
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::{NewObject, Origin};
use sshsm_protocol::{Algorithm, Capabilities, Command, DeviceError, ObjectId, ObjectType};

use crate::audit::AuditLog;
use crate::authorization;
use crate::crypto::CryptoError;
#[cfg(any(feature = "signatures", feature = "decryption"))]
use crate::crypto::Hash;
use crate::crypto::key::Body;
use crate::options::Options;
use crate::platform::Platform;
use crate::session::Caller;
use crate::store::{Attributes, Name, Store, StoreError};

/// Carries out one command: reads the payload, writes the response's payload.
pub(crate) type Handler<P> =
    fn(&mut Core<P>, &Caller, Reader<'_>, &mut Writer<'_>) -> Result<(), DeviceError>;

/// The code of a command; `None` for commands that this device does not have, or was built without.
pub(crate) fn handler<P: Platform>(command: Command) -> Option<Handler<P>> {
    Some(match command {
        Command::Echo => device::echo,
        Command::GetDeviceInfo => |core, _, reader, writer| device::info(core, reader, writer),
        Command::ResetDevice => device::reset,
        Command::CloseSession => device::close_session,
        Command::GetStorageInfo => device::storage_info,
        Command::GetPseudoRandom => device::pseudo_random,
        Command::BlinkDevice => device::blink,
        Command::RestartDevice => device::restart,
        Command::StartBootLoader => device::start_boot_loader,
        Command::ListObjects => object::list,
        Command::GetObjectInfo => object::info,
        Command::DeleteObject => object::delete,
        Command::PutAuthenticationKey => authentication::put,
        Command::ChangeAuthenticationKey => authentication::change,
        Command::PutAsymmetricKey => asymmetric_key::put,
        Command::GenerateAsymmetricKey => asymmetric_key::generate,
        Command::GetPublicKey => asymmetric_key::public,
        #[cfg(feature = "ssh")]
        Command::PutTemplate => template::put,
        #[cfg(feature = "ssh")]
        Command::GetTemplate => template::get,
        #[cfg(feature = "signatures")]
        Command::SignPkcs1 => sign::pkcs1,
        #[cfg(feature = "signatures")]
        Command::SignPss => sign::pss,
        #[cfg(feature = "signatures")]
        Command::SignEcdsa => sign::ecdsa,
        #[cfg(feature = "signatures")]
        Command::SignEddsa => sign::eddsa,
        #[cfg(feature = "decryption")]
        Command::DecryptPkcs1 => decrypt::pkcs1,
        #[cfg(feature = "decryption")]
        Command::DecryptOaep => decrypt::oaep,
        #[cfg(feature = "decryption")]
        Command::DeriveEcdh => decrypt::ecdh,
        #[cfg(feature = "ssh")]
        Command::SignSshCertificate => ssh_certificate::sign,
        #[cfg(feature = "ssh")]
        Command::ExplainSshRequest => ssh_certificate::explain,
        #[cfg(feature = "attestation")]
        Command::SignAttestationCertificate => attestation::sign,
        #[cfg(feature = "opaque")]
        Command::PutOpaque => opaque::put,
        #[cfg(feature = "opaque")]
        Command::GetOpaque => opaque::get,
        #[cfg(feature = "hmac")]
        Command::PutHmacKey => hmac::put,
        #[cfg(feature = "hmac")]
        Command::GenerateHmacKey => hmac::generate,
        #[cfg(feature = "hmac")]
        Command::SignHmac => hmac::sign,
        #[cfg(feature = "hmac")]
        Command::VerifyHmac => hmac::verify,
        #[cfg(feature = "symmetric")]
        Command::PutSymmetricKey => symmetric_key::put,
        #[cfg(feature = "symmetric")]
        Command::GenerateSymmetricKey => symmetric_key::generate,
        #[cfg(feature = "symmetric")]
        Command::DecryptEcb => symmetric_key::decrypt_ecb,
        #[cfg(feature = "symmetric")]
        Command::EncryptEcb => symmetric_key::encrypt_ecb,
        #[cfg(feature = "symmetric")]
        Command::DecryptCbc => symmetric_key::decrypt_cbc,
        #[cfg(feature = "symmetric")]
        Command::EncryptCbc => symmetric_key::encrypt_cbc,
        #[cfg(feature = "otp")]
        Command::PutOtpAeadKey => otp_aead::put,
        #[cfg(feature = "otp")]
        Command::GenerateOtpAeadKey => otp_aead::generate,
        #[cfg(feature = "otp")]
        Command::CreateOtpAead => otp_aead::create,
        #[cfg(feature = "otp")]
        Command::RandomizeOtpAead => otp_aead::randomize,
        #[cfg(feature = "otp")]
        Command::RewrapOtpAead => otp_aead::rewrap,
        #[cfg(feature = "otp")]
        Command::DecryptOtp => otp_aead::decrypt,
        #[cfg(feature = "audit")]
        Command::GetLogEntries => audit::get_log_entries,
        #[cfg(feature = "audit")]
        Command::SetLogIndex => audit::set_log_index,
        #[cfg(feature = "audit")]
        Command::SetOption => audit::set_option,
        #[cfg(feature = "audit")]
        Command::GetOption => audit::get_option,
        #[cfg(feature = "wrap")]
        Command::PutWrapKey => wrap_key::put,
        #[cfg(feature = "wrap")]
        Command::GenerateWrapKey => wrap_key::generate,
        #[cfg(feature = "wrap")]
        Command::ExportWrapped => wrapped_object::export,
        #[cfg(feature = "wrap")]
        Command::ImportWrapped => wrapped_object::import,
        #[cfg(feature = "wrap")]
        Command::WrapData => wrap_data::wrap,
        #[cfg(feature = "wrap")]
        Command::UnwrapData => wrap_data::unwrap,
        #[cfg(feature = "rsa-wrap")]
        Command::PutPublicWrapKey => rsa_wrapped::put_public,
        #[cfg(feature = "rsa-wrap")]
        Command::GetRsaWrappedKey => rsa_wrapped::get_key,
        #[cfg(feature = "rsa-wrap")]
        Command::PutRsaWrappedKey => rsa_wrapped::put_key,
        #[cfg(feature = "rsa-wrap")]
        Command::ExportRsaWrapped => rsa_wrapped::export,
        #[cfg(feature = "rsa-wrap")]
        Command::ImportRsaWrapped => rsa_wrapped::import,
        _ => return None,
    })
}

/// A name that no object has, and that an object may be given.
#[derive(Clone, Copy)]
pub(crate) struct FreeName(Name);

#[cfg(feature = "wrap")]
impl FreeName {
    /// The name.
    pub(crate) const fn get(self) -> Name {
        self.0
    }
}

/// What commands work on.
pub(crate) struct Core<P: Platform> {
    pub(crate) platform: P,
    pub(crate) store: Store<P::Flash>,
    pub(crate) options: Options,
    pub(crate) log: AuditLog,
    #[cfg(feature = "private-keys")]
    pub(crate) loaded: loaded_key::Cache<P::Crypto>,
}

impl<P: Platform> Core<P> {
    /// An object's content.
    pub(crate) fn body(&mut self, name: Name) -> Result<Body, DeviceError> {
        Ok(self.store.body(name)?)
    }

    /// Checks that the session may create the object and that its name is free; chooses an id if it has none.
    pub(crate) fn authorize_creation(
        &mut self,
        caller: &Caller,
        object_type: ObjectType,
        object: &NewObject,
        delegated: Capabilities,
    ) -> Result<FreeName, DeviceError> {
        self.options.permit(object.algorithm)?;
        authorization::may_create(caller, object, delegated)?;
        self.free_name(object_type, object.id)
    }

    /// Checks that an object of this type may be created and that its name is free; chooses an id if there is none.
    pub(crate) fn free_name(
        &mut self,
        object_type: ObjectType,
        id: Option<ObjectId>,
    ) -> Result<FreeName, DeviceError> {
        self.options.permit_change(object_type)?;
        let id = match id {
            Some(id) => id,
            None => self.free_id()?,
        };
        let name = (object_type, id);
        if self.store.info(name).is_some() {
            return Err(DeviceError::ObjectExists);
        }
        Ok(FreeName(name))
    }

    /// Stores an authorized object and answers with its id.
    pub(crate) fn create(
        &mut self,
        FreeName(name): FreeName,
        object: &NewObject,
        delegated: Capabilities,
        origin: Origin,
        body: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        // YubiHSM 2 counts the delegated capabilities as content.
        let length = body.len() + if name.0.has_delegated_capabilities() { 8 } else { 0 };
        let attributes = Attributes {
            capabilities: object.capabilities,
            length: u16::try_from(length).map_err(|_| DeviceError::WrongLength)?,
            domains: object.domains,
            algorithm: object.algorithm,
            origin,
            label: object.label,
            delegated_capabilities: delegated,
        };
        let info = self.store.insert(name, &attributes, body)?;
        writer.u16(info.id.get())?;
        Ok(())
    }

    /// An id that no object of any type has; they look random, as the hardware's do.
    fn free_id(&mut self) -> Result<ObjectId, DeviceError> {
        // Far fewer objects than ids: a free one is found at once.
        for _ in 0..1000 {
            let mut bytes = [0; 2];
            self.platform.entropy().fill_bytes(&mut bytes);
            if let Ok(id) = ObjectId::new(u16::from_be_bytes(bytes))
                && self.store.iter().all(|info| info.id != id)
            {
                return Ok(id);
            }
        }
        Err(DeviceError::StorageFailed)
    }
}

/// The header of a new object, and what `of` says of its algorithm: nothing where objects of this type have others.
pub(crate) fn header<T>(
    reader: &mut Reader<'_>,
    of: impl FnOnce(Algorithm) -> Option<T>,
) -> Result<(NewObject, T), DeviceError> {
    let object = NewObject::decode(reader)?;
    let meaning = of(object.algorithm).ok_or(DeviceError::InvalidData)?;
    Ok((object, meaning))
}

/// The id in a payload that names an existing object: numbers that name none are simply not found.
pub(crate) fn existing_id(reader: &mut Reader<'_>) -> Result<ObjectId, DeviceError> {
    ObjectId::new(reader.u16()?).map_err(|_| DeviceError::ObjectNotFound)
}

/// The hash of the mask generation function that a payload names.
#[cfg(any(feature = "signatures", feature = "decryption"))]
pub(crate) fn mgf1(reader: &mut Reader<'_>) -> Result<Hash, DeviceError> {
    Algorithm::from_code(reader.u8()?).and_then(Hash::of_mgf1).ok_or(DeviceError::InvalidData)
}

impl From<StoreError> for DeviceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists => Self::ObjectExists,
            StoreError::NotFound => Self::ObjectNotFound,
            StoreError::Full | StoreError::Flash => Self::StorageFailed,
        }
    }
}

impl From<CryptoError> for DeviceError {
    fn from(error: CryptoError) -> Self {
        match error {
            // A key that a client put, or what it asked of one, is at fault.
            CryptoError::InvalidKey(_)
            | CryptoError::WrongKey(_)
            | CryptoError::DigestTooLong(_)
            | CryptoError::MessageTooLong(_)
            | CryptoError::Decryption(_)
            | CryptoError::InvalidPoint(_) => Self::InvalidData,
            // The device is.
            CryptoError::SelfCheck(_) => Self::StorageFailed,
        }
    }
}
