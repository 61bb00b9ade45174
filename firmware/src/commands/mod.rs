//! What each command does inside a session. The command table in `sshsm-protocol` says which commands exist
//! and what they require; [`handler`] is the only place that connects a command to its code.

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
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{Message, reply};
use sshsm_protocol::object::{NewObject, ObjectHeader, Origin};
use sshsm_protocol::{Algorithm, Capabilities, Command, DeviceError, ObjectId, ObjectType};

use crate::audit::AuditLog;
use crate::authorization;
use crate::crypto::CryptoError;
#[cfg(any(feature = "signatures", feature = "decryption", feature = "rsa-wrap"))]
use crate::crypto::Hash;
use crate::crypto::key::Body;
use crate::options::Options;
use crate::platform::Platform;
use crate::session::Caller;
use crate::store::{Attributes, Name, Store, StoreError};

/// Carries out one command: reads the payload, writes the response's payload.
pub(crate) type Handler<P> = fn(&mut Core<P>, &Caller, &[u8], &mut Writer<'_>) -> Result<(), DeviceError>;

/// A [`Handler`] made from the code of a command, which takes the decoded payload as its message.
macro_rules! with_message {
    ($code:path) => {
        |core, caller, payload, writer| {
            let message = core.read(caller, payload)?;
            $code(core, caller, message, writer)
        }
    };
}

/// The code of a command; `None` for commands that this device does not have, or was built without.
pub(crate) fn handler<P: Platform>(command: Command) -> Option<Handler<P>> {
    Some(match command {
        Command::Echo => |core, caller, payload, writer| device::echo(core.read(caller, payload)?, writer),
        Command::GetDeviceInfo => |core, caller, payload, writer| {
            let message = core.read(caller, payload)?;
            device::info(core, message, writer)
        },
        Command::ResetDevice => with_message!(device::reset),
        Command::CloseSession => with_message!(device::close_session),
        Command::GetStorageInfo => with_message!(device::storage_info),
        Command::GetPseudoRandom => with_message!(device::pseudo_random),
        Command::BlinkDevice => with_message!(device::blink),
        Command::RestartDevice => with_message!(device::restart),
        Command::StartBootLoader => with_message!(device::start_boot_loader),
        Command::ListObjects => with_message!(object::list),
        Command::GetObjectInfo => with_message!(object::info),
        Command::DeleteObject => with_message!(object::delete),
        Command::PutAuthenticationKey => with_message!(authentication::put),
        Command::ChangeAuthenticationKey => with_message!(authentication::change),
        Command::PutAsymmetricKey => with_message!(asymmetric_key::put),
        Command::GenerateAsymmetricKey => with_message!(asymmetric_key::generate),
        Command::GetPublicKey => with_message!(asymmetric_key::public),
        #[cfg(feature = "ssh")]
        Command::PutTemplate => with_message!(template::put),
        #[cfg(feature = "ssh")]
        Command::GetTemplate => with_message!(template::get),
        #[cfg(feature = "signatures")]
        Command::SignPkcs1 => with_message!(sign::pkcs1),
        #[cfg(feature = "signatures")]
        Command::SignPss => with_message!(sign::pss),
        #[cfg(feature = "signatures")]
        Command::SignEcdsa => with_message!(sign::ecdsa),
        #[cfg(feature = "signatures")]
        Command::SignEddsa => with_message!(sign::eddsa),
        #[cfg(feature = "decryption")]
        Command::DecryptPkcs1 => with_message!(decrypt::pkcs1),
        #[cfg(feature = "decryption")]
        Command::DecryptOaep => with_message!(decrypt::oaep),
        #[cfg(feature = "decryption")]
        Command::DeriveEcdh => with_message!(decrypt::ecdh),
        #[cfg(feature = "ssh")]
        Command::SignSshCertificate => with_message!(ssh_certificate::sign),
        #[cfg(feature = "ssh")]
        Command::ExplainSshRequest => with_message!(ssh_certificate::explain),
        #[cfg(feature = "attestation")]
        Command::SignAttestationCertificate => with_message!(attestation::sign),
        #[cfg(feature = "opaque")]
        Command::PutOpaque => with_message!(opaque::put),
        #[cfg(feature = "opaque")]
        Command::GetOpaque => with_message!(opaque::get),
        #[cfg(feature = "hmac")]
        Command::PutHmacKey => with_message!(hmac::put),
        #[cfg(feature = "hmac")]
        Command::GenerateHmacKey => with_message!(hmac::generate),
        #[cfg(feature = "hmac")]
        Command::SignHmac => with_message!(hmac::sign),
        #[cfg(feature = "hmac")]
        Command::VerifyHmac => with_message!(hmac::verify),
        #[cfg(feature = "symmetric")]
        Command::PutSymmetricKey => with_message!(symmetric_key::put),
        #[cfg(feature = "symmetric")]
        Command::GenerateSymmetricKey => with_message!(symmetric_key::generate),
        #[cfg(feature = "symmetric")]
        Command::DecryptEcb => with_message!(symmetric_key::decrypt_ecb),
        #[cfg(feature = "symmetric")]
        Command::EncryptEcb => with_message!(symmetric_key::encrypt_ecb),
        #[cfg(feature = "symmetric")]
        Command::DecryptCbc => with_message!(symmetric_key::decrypt_cbc),
        #[cfg(feature = "symmetric")]
        Command::EncryptCbc => with_message!(symmetric_key::encrypt_cbc),
        #[cfg(feature = "otp")]
        Command::PutOtpAeadKey => with_message!(otp_aead::put),
        #[cfg(feature = "otp")]
        Command::GenerateOtpAeadKey => with_message!(otp_aead::generate),
        #[cfg(feature = "otp")]
        Command::CreateOtpAead => with_message!(otp_aead::create),
        #[cfg(feature = "otp")]
        Command::RandomizeOtpAead => with_message!(otp_aead::randomize),
        #[cfg(feature = "otp")]
        Command::RewrapOtpAead => with_message!(otp_aead::rewrap),
        #[cfg(feature = "otp")]
        Command::DecryptOtp => with_message!(otp_aead::decrypt),
        #[cfg(feature = "audit")]
        Command::GetLogEntries => with_message!(audit::get_log_entries),
        #[cfg(feature = "audit")]
        Command::SetLogIndex => with_message!(audit::set_log_index),
        #[cfg(feature = "audit")]
        Command::SetOption => with_message!(audit::set_option),
        #[cfg(feature = "audit")]
        Command::GetOption => with_message!(audit::get_option),
        #[cfg(feature = "wrap")]
        Command::PutWrapKey => with_message!(wrap_key::put),
        #[cfg(feature = "wrap")]
        Command::GenerateWrapKey => with_message!(wrap_key::generate),
        #[cfg(feature = "wrap")]
        Command::ExportWrapped => with_message!(wrapped_object::export),
        #[cfg(feature = "wrap")]
        Command::ImportWrapped => with_message!(wrapped_object::import),
        #[cfg(feature = "wrap")]
        Command::WrapData => with_message!(wrap_data::wrap),
        #[cfg(feature = "wrap")]
        Command::UnwrapData => with_message!(wrap_data::unwrap),
        #[cfg(feature = "rsa-wrap")]
        Command::PutPublicWrapKey => with_message!(rsa_wrapped::put_public),
        #[cfg(feature = "rsa-wrap")]
        Command::GetRsaWrappedKey => with_message!(rsa_wrapped::get_key),
        #[cfg(feature = "rsa-wrap")]
        Command::PutRsaWrappedKey => with_message!(rsa_wrapped::put_key),
        #[cfg(feature = "rsa-wrap")]
        Command::ExportRsaWrapped => with_message!(rsa_wrapped::export),
        #[cfg(feature = "rsa-wrap")]
        Command::ImportRsaWrapped => with_message!(rsa_wrapped::import),
        _ => return None,
    })
}

/// A name that no object has, and that an object may be given.
#[derive(Clone, Copy)]
pub(crate) struct FreeName(Name);

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
    /// Decodes a whole payload, and refuses an operation that would use a disabled algorithm besides its
    /// key's own. (A key of a disabled algorithm cannot exist: see `options.rs`.) It takes place where
    /// docs/protocol.md puts it: after the session's capability, the payload's length and the key's
    /// existence, before anything else; a missing key is left to the command's code.
    pub(crate) fn read<'p, M: Message<'p>>(
        &self,
        caller: &Caller,
        payload: &'p [u8],
    ) -> Result<M, DeviceError> {
        let message = M::decode(payload)?;
        match message.key().and_then(|key| self.key_algorithm(caller, key)) {
            Some(key) => self.options.permit_all(message.algorithms(key)).map(|()| message),
            None => Ok(message),
        }
    }

    /// The algorithm of a key that the session can see.
    fn key_algorithm(&self, caller: &Caller, (object_type, id): (ObjectType, u16)) -> Option<Algorithm> {
        let name = (object_type, ObjectId::new(id).ok()?);
        authorization::visible(&self.store, caller, name).ok().map(|info| info.algorithm)
    }

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
        name: FreeName,
        object: &NewObject,
        delegated: Capabilities,
        origin: Origin,
        body: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        let (_, id) = self.insert(name, object, delegated, origin, body)?;
        Ok(reply::Created { id: id.get() }.encode(writer)?)
    }

    /// Stores an authorized object.
    pub(crate) fn insert(
        &mut self,
        FreeName(name): FreeName,
        object: &NewObject,
        delegated: Capabilities,
        origin: Origin,
        body: &[u8],
    ) -> Result<Name, DeviceError> {
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
        self.store.insert(name, &attributes, body)?;
        Ok(name)
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

/// The header of a new object, and `of` applied to its algorithm: `None` if objects of this type cannot have
/// it.
pub(crate) fn header<T>(
    object: &ObjectHeader,
    of: impl FnOnce(Algorithm) -> Option<T>,
) -> Result<(NewObject, T), DeviceError> {
    let object = object.interpret()?;
    let meaning = of(object.algorithm).ok_or(DeviceError::InvalidData)?;
    Ok((object, meaning))
}

/// The id in a payload that names an existing object: numbers that name none are simply not found.
pub(crate) fn existing_id(id: u16) -> Result<ObjectId, DeviceError> {
    ObjectId::new(id).map_err(|_| DeviceError::ObjectNotFound)
}

/// The tail of a payload, if the fields before it determine its length.
pub(crate) fn exactly(length: usize, tail: &[u8]) -> Result<&[u8], DeviceError> {
    if tail.len() == length { Ok(tail) } else { Err(DeviceError::WrongLength) }
}

/// The hash of the mask generation function that a payload names.
#[cfg(any(feature = "signatures", feature = "decryption", feature = "rsa-wrap"))]
pub(crate) fn mgf1(algorithm: u8) -> Result<Hash, DeviceError> {
    Algorithm::from_code(algorithm).and_then(Hash::of_mgf1).ok_or(DeviceError::InvalidData)
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
            // The fault is in a key that a client put, or in what it asked of one.
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
