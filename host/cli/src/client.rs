//! A device's commands, typed: [`Client`] speaks in plain, [`Session`] inside the secure channel.
//!
//! What a command may carry is checked here before anything is sent, a device's refusal is its own error, and a
//! command is never repeated (but for CREATE SESSION, while all sessions are taken). Secrets that pass through are wiped.

use std::{
    thread,
    time::{Duration, Instant},
};

use p256::elliptic_curve::ecdh::diffie_hellman;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Command, DeviceError, ObjectId, ObjectType,
    audit::{LogEntry, LogHeader, LogMark},
    channel::{
        Agreement, AuthenticationKey, Challenge, ChannelError, Handshake, HandshakeError, HostChannel, Point,
        session_number,
    },
    codec::{CodecError, Reader, Writer},
    device_info::{DeviceInfo, StorageInfo, Version},
    device_status::{DeviceStatus, Image},
    frame::{AnswerError, ERROR_CODE, Frame, HEADER_LENGTH, SESSION_OVERHEAD},
    message::{self, Message, reply},
    object::{ListEntry, ListFilter, NewObject, ObjectInfo},
    option::{AuditMode, DeviceOption, TemplateMode, UserPresence},
    ssh::timestamp::Now,
};
use zeroize::Zeroizing;

use crate::transport::{Transport, TransportError};

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The frame or its answer was lost.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The device has no such authentication key.
    #[error("the device has no authentication key {0}")]
    UnknownAuthenticationKey(ObjectId),
    /// The device holds another key than the password makes.
    #[error("wrong password for authentication key {0}")]
    WrongPassword(ObjectId),
    /// Device and private key do not belong together.
    #[error(
        "the device did not show that it knows the private key's public half: authentication key {0} is another, or this is \
         another device"
    )]
    WrongPrivateKey(ObjectId),
    /// The device refused the command.
    #[error("the device refused \"{command}\": {error} (code {code:#04x})", code = error.code())]
    Device {
        /// What was asked.
        command: Command,
        /// The device's reason.
        error: DeviceError,
    },
    /// The device refused the command with a code that has no meaning.
    #[error("the device refused \"{command}\" with the undefined error code {code:#04x}")]
    UndefinedError {
        /// What was asked.
        command: Command,
        /// The code.
        code: u8,
    },
    /// The answer is not what the command answers with.
    #[error("the device's answer to \"{command}\" makes no sense: {reason}")]
    Nonsense {
        /// What was asked.
        command: Command,
        /// What was wrong.
        reason: String,
    },
    /// The answer was not encrypted and authenticated by the device that the session is with.
    #[error("the device's answer to \"{command}\" is not authentic")]
    NotAuthentic {
        /// What was asked.
        command: Command,
        /// What was wrong.
        source: ChannelError,
    },
    /// The request is longer than the device takes.
    #[error("\"{command}\" with {length} bytes is more than the {limit} that this device takes")]
    TooLong {
        /// What was asked.
        command: Command,
        /// Bytes of its payload.
        length: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// The session ended with an earlier error.
    #[error("the session ended with an earlier error")]
    Ended,
    /// The operating system gave no random challenge.
    #[error("no random numbers from the operating system: {0}")]
    Entropy(getrandom::Error),
}

impl ClientError {
    /// Whether the session it happened in has ended; after a refusal by the device it goes on.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        !matches!(self, Self::Device { .. } | Self::UndefinedError { .. } | Self::TooLong { .. })
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The firmware that the device is, or behaves as.
    pub version: Version,
    /// Serial number.
    pub serial: u32,
    /// Audit log entries there is room for.
    pub log_total: u8,
    /// Audit log entries in use.
    pub log_used: u8,
    /// Algorithms it supports; numbers unknown here are left out.
    pub algorithms: Vec<Algorithm>,
}

/// What a device says of itself to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The board's name.
    pub board: String,
    /// The version of the sshsm firmware: major, minor, patch.
    pub firmware: [u8; 3],
    /// The image that it runs, as that says itself; `None` where it does not know.
    pub image: Option<Image>,
    /// Whether there is something to touch.
    pub button: bool,
    /// Whether it can start a boot loader.
    pub boot_loader: bool,
    /// Whether templates are frozen.
    pub templates_frozen: bool,
    /// Sessions whose host has authenticated, this one included.
    pub sessions: u8,
    /// Sessions that were begun and not authenticated.
    pub half_open: u8,
    /// Whether every command is logged.
    pub force_audit: AuditMode,
    /// What has to be confirmed by a touch.
    pub presence: UserPresence,
    /// The newest entry of the audit log; `None` from firmware that does not say.
    pub log: Option<LogMark>,
}

/// A device's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePublicKey {
    /// Its algorithm.
    pub algorithm: AsymmetricAlgorithm,
    /// RSA modulus, `X‖Y`, or the 32 bytes of Ed25519; as long as the algorithm says.
    pub bytes: Vec<u8>,
}

/// What opens a session.
#[derive(Clone)]
pub enum Credential {
    /// A password, which makes the authentication key that the device has as well.
    Password(Zeroizing<String>),
    /// The authentication key that a password makes.
    Key(AuthenticationKey),
    /// A P-256 private key; the device has its public half, and shows that it holds the private half of its own key.
    PrivateKey {
        /// The host's.
        key: p256::SecretKey,
        /// The device's public key, which says which device it must be.
        device: Point,
    },
}

/// The key of a new authentication key.
pub enum NewKey<'k> {
    /// Made from a password.
    Symmetric(&'k AuthenticationKey),
    /// The public half of a P-256 key, `X‖Y`, 64 bytes.
    Public(&'k [u8]),
}

impl<'k> From<&'k AuthenticationKey> for NewKey<'k> {
    fn from(key: &'k AuthenticationKey) -> Self {
        Self::Symmetric(key)
    }
}

impl NewKey<'_> {
    /// The algorithm of the authentication key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Symmetric(_) => Algorithm::Aes128YubicoAuthentication,
            Self::Public(_) => Algorithm::Ecp256YubicoAuthentication,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Symmetric(key) => key.as_bytes(),
            Self::Public(point) => point,
        }
    }
}

/// A connection to a device, outside any session.
pub struct Client {
    transport: Box<dyn Transport>,
    identity: Identity,
}

impl Client {
    /// Asks the device at the end of `transport` who it is, which also tells how long its messages may be.
    ///
    /// # Errors
    /// When the device does not answer as one.
    pub fn connect(mut transport: Box<dyn Transport>) -> Result<Self> {
        let identity = identity(transport.as_mut())?;
        Ok(Self { transport, identity })
    }

    /// What the device said of itself when it was connected to.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the device is, in the words of `--device`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.transport.describe()
    }

    /// The device's own public key, as it says: whoever relays could say another.
    ///
    /// # Errors
    /// When it says none.
    pub fn device_public_key(&mut self) -> Result<Point> {
        let command = Command::GetDevicePublicKey;
        let answer = plain(self.transport.as_mut(), command, &[])?;
        let reply::PublicKey { algorithm, key } = read(command, &answer)?;
        if algorithm != Algorithm::Ecp256YubicoAuthentication.code() {
            return Err(nonsense(command, format!("its algorithm is {algorithm}")));
        }
        let point = [&[4], key].concat().try_into();
        point.map_err(|_| nonsense(command, format!("its key has {} bytes", key.len())))
    }

    /// The largest payload, in bytes, of a command inside a session.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        let ciphertext = (self.identity.version.max_message() - SESSION_OVERHEAD) / 16 * 16;
        // The inner header and at least one byte of padding.
        ciphertext - HEADER_LENGTH - 1
    }
}

fn identity(transport: &mut dyn Transport) -> Result<Identity> {
    let command = Command::GetDeviceInfo;
    let payload = plain(transport, command, &[])?;
    let info = DeviceInfo::decode(&payload).map_err(|error| nonsense(command, error))?;
    Ok(Identity {
        version: info.version,
        serial: info.serial,
        log_total: info.log_total,
        log_used: info.log_used,
        algorithms: info.algorithms.iter().filter_map(|&code| Algorithm::from_code(code)).collect(),
    })
}

/// Sends a command outside a session and returns the payload of its answer.
fn plain(transport: &mut dyn Transport, command: Command, payload: &[u8]) -> Result<Vec<u8>> {
    let answer = transport.transact(&framed(command, payload)?)?;
    Ok(answer_of(command, &answer)?.to_vec())
}

/// The message of a command outside a session.
fn framed(command: Command, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_LENGTH + payload.len()];
    Frame { code: command.code(), payload }.encode(&mut frame).map_err(|error| nonsense(command, error))?;
    Ok(frame)
}

/// The payload of a successful answer outside a session, or the device's error.
fn answer_of(command: Command, answer: &[u8]) -> Result<&[u8]> {
    payload_of(command, Frame::parse(answer).map_err(|error| nonsense(command, error))?)
}

/// The payload of a successful answer, or the device's error.
fn payload_of(command: Command, frame: Frame<'_>) -> Result<&[u8]> {
    frame.answer(command).map_err(|error| no_answer(command, error))
}

fn no_answer(command: Command, error: AnswerError) -> ClientError {
    match error {
        AnswerError::Refused(error) => ClientError::Device { command, error },
        AnswerError::UndefinedError(code) => ClientError::UndefinedError { command, code },
        AnswerError::OtherCode(_) | AnswerError::Malformed(_) => nonsense(command, error),
    }
}

fn not_opened(command: Command, id: ObjectId, error: HandshakeError) -> ClientError {
    match error {
        HandshakeError::Answer(error) => no_answer(command, error),
        HandshakeError::Channel(_) => ClientError::WrongPassword(id),
        HandshakeError::Layout(_) | HandshakeError::NoSuchSession(_) => nonsense(command, error),
    }
}

fn nonsense(command: Command, reason: impl ToString) -> ClientError {
    ClientError::Nonsense { command, reason: reason.to_string() }
}

/// An authenticated, encrypted session; closed when dropped.
pub struct Session<'c> {
    client: &'c mut Client,
    /// The authentication key that opened it.
    authentication_key: ObjectId,
    /// `None` once the session has ended.
    channel: Option<HostChannel>,
    /// The session that ended because an answer was lost on its way.
    unheard: Option<HostChannel>,
}

impl<'c> Session<'c> {
    /// Opens a session: both sides prove that they know the authentication key that `password` makes.
    ///
    /// # Errors
    /// [`ClientError::UnknownAuthenticationKey`] and [`ClientError::WrongPassword`] tell the two apart, as the
    /// protocol does.
    pub fn open(client: &'c mut Client, key: ObjectId, password: &str) -> Result<Self> {
        Self::open_with_key(client, key, &AuthenticationKey::from_password(password.as_bytes()))
    }

    /// Opens a session with the authentication key itself.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_with_key(client: &'c mut Client, id: ObjectId, key: &AuthenticationKey) -> Result<Self> {
        let mut host_challenge = Challenge::default();
        getrandom::fill(&mut host_challenge).map_err(ClientError::Entropy)?;
        let handshake = Handshake::new(id.get(), key, host_challenge);
        let answer = create_session(client.transport.as_mut(), id, &handshake.create())?;
        let failed = |error| not_opened(Command::CreateSession, id, error);
        let mut channel = handshake.created(&answer).map_err(failed)?;
        let answer = client.transport.transact(&channel.authenticate())?;
        let failed = |error| not_opened(Command::AuthenticateSession, id, error);
        Handshake::authenticated(&answer).map_err(failed)?;
        Ok(Self { client, authentication_key: id, channel: Some(channel), unheard: None })
    }

    /// Opens a session with what is at hand.
    ///
    /// # Errors
    /// As [`Session::open`], and [`ClientError::WrongPrivateKey`].
    pub fn open_with(client: &'c mut Client, id: ObjectId, credential: &Credential) -> Result<Self> {
        match credential {
            Credential::Password(password) => Self::open(client, id, password),
            Credential::Key(key) => Self::open_with_key(client, id, key),
            Credential::PrivateKey { key, device } => Self::agree(client, id, key, device),
        }
    }

    /// Opens a session with a P-256 key (docs/protocol.md, "P-256 sessions").
    fn agree(client: &'c mut Client, id: ObjectId, key: &p256::SecretKey, device: &Point) -> Result<Self> {
        let create = Command::CreateSession;
        let ephemeral = ephemeral_key()?;
        let host_point = Point::try_from(&*ephemeral.public_key().to_sec1_bytes())
            .map_err(|error| nonsense(create, error))?;
        let request = encoded(create, &message::CreateSession { key: id.get(), host: &host_point })?;
        let answer = create_session(client.transport.as_mut(), id, &framed(create, &request)?)?;
        let reply::SessionAgreed { session, device_point, receipt } =
            read(create, answer_of(create, &answer)?)?;
        let session = session_number(session).map_err(|error| not_opened(create, id, error))?;
        let agreement = Agreement {
            ephemeral_secret: &*shared_secret(&ephemeral, &device_point)?,
            static_secret: &*shared_secret(key, device)?,
            host_point: &host_point,
            device_point: &device_point,
        };
        let channel =
            HostChannel::agree(session, &agreement, receipt).map_err(|_| ClientError::WrongPrivateKey(id))?;
        Ok(Self { client, authentication_key: id, channel: Some(channel), unheard: None })
    }

    /// The authentication key that opened this session.
    #[must_use]
    pub const fn authentication_key(&self) -> ObjectId {
        self.authentication_key
    }

    /// The largest payload, in bytes, of a command inside a session.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Where the device is, in the words of `--device`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.client.describe()
    }

    /// The device's serial number.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.client.identity.serial
    }

    /// Sends a command inside the session and returns the payload of its answer.
    ///
    /// # Errors
    /// A refusal by the device leaves the session open; a lost, plain or unauthentic answer ends it.
    pub fn command(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>> {
        let limit = self.max_payload();
        if payload.len() > limit {
            return Err(ClientError::TooLong { command, length: payload.len(), limit });
        }
        // Taken out, and put back only when both ends are in step again.
        let mut channel = self.channel.take().ok_or(ClientError::Ended)?;
        let not_authentic = |source| ClientError::NotAuthentic { command, source };
        // Room for the padding too.
        let mut message = Zeroizing::new(vec![0; payload.len() + SESSION_OVERHEAD + HEADER_LENGTH + 16]);
        let length = channel.seal(command, payload, &mut message).map_err(not_authentic)?;
        let mut answer = match self.client.transport.transact(message.get(..length).unwrap_or_default()) {
            Ok(answer) => answer,
            Err(error) => {
                channel.skip_answer();
                self.unheard = Some(channel);
                return Err(error.into());
            }
        };
        if let Ok(Frame { code: ERROR_CODE, payload }) = Frame::parse(&answer) {
            payload_of(command, Frame { code: ERROR_CODE, payload })?;
        }
        let frame = channel.open(&mut answer).map_err(not_authentic)?;
        self.channel = Some(channel);
        payload_of(command, frame).map(<[u8]>::to_vec)
    }

    /// Goes on with a session that ended because an answer was lost, as if it had come: for a command that cleans up, and
    /// can do no harm if the device never had the one before.
    pub fn go_on_unheard(&mut self) {
        if self.channel.is_none() {
            self.channel = self.unheard.take();
        }
    }

    /// Deletes an object that must not stay, also when the answers of earlier commands, or of this one, were lost.
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

    /// Has the device repeat `data`.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn echo(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        self.ask(Command::Echo, &message::Echo { data })
    }

    /// How full the device is.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn storage_info(&mut self) -> Result<StorageInfo> {
        let command = Command::GetStorageInfo;
        StorageInfo::decode(&self.command(command, &[])?).map_err(|error| nonsense(command, error))
    }

    /// The objects that match `filter` and share a domain with the session.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn list_objects(&mut self, filter: &ListFilter) -> Result<Vec<ListEntry>> {
        let command = Command::ListObjects;
        let mut filters = vec![0; self.max_payload()];
        let mut writer = Writer::new(&mut filters);
        filter.encode(&mut writer).map_err(|error| nonsense(command, error))?;
        let answer = self.ask(command, &message::ListObjects { filters: writer.written() })?;
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
        let answer = self.ask(command, &name(id, object_type))?;
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
        let answer = self.ask(command, &message::GetPublicKey { id: id.get(), object_type: &[] })?;
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
        self.ask(Command::GetTemplate, &message::Named { id: id.get() })
    }

    /// Puts an authentication key on the device, whose algorithm `object` has; returns its id. `delegated` is what its
    /// sessions may give on.
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

    /// Puts an AES wrap key on the device; returns its id. `delegated` is all that objects may do that pass under it.
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

    /// An object sealed under a wrap key, `nonce[13] ‖ ciphertext ‖ tag[16]`; an Ed25519 key with its seed or without.
    ///
    /// # Errors
    /// [`DeviceError::InsufficientPermissions`] when the object, or what it may do, may not leave under that key.
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
        self.ask(Command::ExportWrapped, &message)
    }

    /// Brings in what [`Session::export_wrapped`] gave; returns the object's name.
    ///
    /// # Errors
    /// [`DeviceError::InvalidData`] when it was not sealed under this wrap key, [`DeviceError::ObjectExists`] when
    /// there is one of that name.
    pub fn import_wrapped(&mut self, wrap_key: ObjectId, wrapped: &[u8]) -> Result<(ObjectType, ObjectId)> {
        let command = Command::ImportWrapped;
        let message = message::ImportWrapped { wrap_key: wrap_key.get(), sealed: wrapped };
        let answer = self.ask(command, &message)?;
        let reply::Imported { object_type, id } = read(command, &answer)?;
        let object_type =
            ObjectType::from_code(object_type).ok_or_else(|| nonsense(command, "there is no such type"))?;
        Ok((object_type, ObjectId::new(id).map_err(|error| nonsense(command, error))?))
    }

    /// The bytes of an opaque object.
    ///
    /// # Errors
    /// [`DeviceError::ObjectNotFound`] when there is none, or none that shares a domain.
    pub fn opaque(&mut self, id: ObjectId) -> Result<Vec<u8>> {
        self.ask(Command::GetOpaque, &message::Named { id: id.get() })
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
        let answer = self.ask(command, &message)?;
        match read(command, &answer)? {
            reply::Created { id: changed } if changed == id.get() => Ok(()),
            reply::Created { id: changed } => {
                Err(nonsense(command, format!("it changed key {changed:#06x}")))
            }
        }
    }

    /// `length` bytes from the device's random number generator.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn pseudo_random(&mut self, length: u16) -> Result<Vec<u8>> {
        let command = Command::GetPseudoRandom;
        let bytes = self.ask(command, &message::GetPseudoRandom { length })?;
        if bytes.len() != usize::from(length) {
            return Err(nonsense(command, format!("{length} bytes were asked for, {} came", bytes.len())));
        }
        Ok(bytes)
    }

    /// The value of an option, as it is on the wire.
    ///
    /// # Errors
    /// [`DeviceError::InvalidData`] when the device does not have the option.
    pub fn option(&mut self, option: DeviceOption) -> Result<Vec<u8>> {
        self.ask(Command::GetOption, &message::GetOption { option: option.code() })
    }

    /// When somebody has to touch the device.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn user_presence(&mut self) -> Result<UserPresence> {
        let value = self.option(DeviceOption::UserPresence)?;
        let presence = value.as_slice().try_into().ok().and_then(UserPresence::decode);
        presence.ok_or_else(|| nonsense(Command::GetOption, "there is no such user presence"))
    }

    /// Changes when somebody has to touch the device, for which somebody has to touch it now.
    ///
    /// # Errors
    /// [`DeviceError::InvalidData`] when there is nothing to touch, [`DeviceError::PresenceTimeout`] when nobody did.
    pub fn set_user_presence(&mut self, presence: UserPresence) -> Result<()> {
        self.set_option(DeviceOption::UserPresence, &presence.encode())
    }

    /// Whether templates may still be put and deleted.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn templates(&mut self) -> Result<TemplateMode> {
        let value = self.option(DeviceOption::Templates)?;
        let mode = value.as_slice().try_into().ok().and_then(|[code]: [u8; 1]| TemplateMode::from_code(code));
        mode.ok_or_else(|| nonsense(Command::GetOption, "there is no such mode of templates"))
    }

    /// Freezes the templates: none is put, imported or deleted until the device is reset. Nothing takes that back.
    ///
    /// # Errors
    /// [`DeviceError::InvalidData`] when the device does not have the option.
    pub fn freeze_templates(&mut self) -> Result<()> {
        self.set_option(DeviceOption::Templates, &[TemplateMode::Frozen.code()])
    }

    /// Changes whether every command is logged, and refused when it cannot be.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn set_force_audit(&mut self, mode: AuditMode) -> Result<()> {
        self.set_option(DeviceOption::ForceAudit, &[mode.code()])
    }

    /// The commands that the device can log, by their codes, and whether it does.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn command_audit(&mut self) -> Result<Vec<(u8, AuditMode)>> {
        let value = self.option(DeviceOption::CommandAudit)?;
        let pair = |pair: &[u8]| match pair {
            &[code, mode] => AuditMode::from_code(mode).map(|mode| (code, mode)),
            _ => None,
        };
        let pairs: Option<Vec<_>> = value.chunks(2).map(pair).collect();
        pairs.ok_or_else(|| nonsense(Command::GetOption, "it is no list of commands"))
    }

    /// Changes whether commands, named by their codes, are logged.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn set_command_audit(&mut self, commands: &[(u8, AuditMode)]) -> Result<()> {
        let value: Vec<u8> = commands.iter().flat_map(|&(code, mode)| [code, mode.code()]).collect();
        self.set_option(DeviceOption::CommandAudit, &value)
    }

    /// What the audit log lost count of, and its entries that were not consumed, oldest first.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn log_entries(&mut self) -> Result<(LogHeader, Vec<LogEntry>)> {
        let command = Command::GetLogEntries;
        let answer = self.ask(command, &message::Nothing {})?;
        let mut reader = Reader::new(&answer);
        let mut log = || {
            let header = LogHeader::decode(&mut reader)?;
            let entries = (0..header.entries)
                .map(|_| LogEntry::decode(&mut reader))
                .collect::<std::result::Result<_, _>>()?;
            Ok::<_, CodecError>((header, entries))
        };
        let log = log().map_err(|error| nonsense(command, error))?;
        reader.finish().map_err(|error| nonsense(command, error))?;
        Ok(log)
    }

    /// Has the audit log forget the entries up to the one with this number.
    ///
    /// # Errors
    /// [`DeviceError::InvalidData`] when there is no such entry.
    pub fn set_log_index(&mut self, number: u16) -> Result<()> {
        self.ask_without_answer(Command::SetLogIndex, &message::SetLogIndex { number })
    }

    /// Has the device blink for so many seconds.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn blink(&mut self, seconds: u8) -> Result<()> {
        self.ask_without_answer(Command::BlinkDevice, &message::BlinkDevice { seconds })
    }

    /// Signs an SSH certificate; `request` is `timestamp signature ‖ to-be-signed certificate`.
    ///
    /// Returns the certificate's signature field, its length included.
    ///
    /// # Errors
    /// [`DeviceError::SshCaConstraintViolation`] when the template does not allow the request.
    pub fn sign_ssh_certificate(
        &mut self,
        ca_key: ObjectId,
        template: ObjectId,
        algorithm: Algorithm,
        now: Now,
        request: &[u8],
    ) -> Result<Vec<u8>> {
        self.ask(Command::SignSshCertificate, &certificate_request(ca_key, template, algorithm, now, request))
    }

    /// What would come of [`Session::sign_ssh_certificate`] with the same arguments: the answer of EXPLAIN SSH REQUEST, which
    /// [`sshsm_protocol::ssh::explanation`] reads. Nothing is signed.
    ///
    /// # Errors
    /// [`DeviceError::InvalidCommand`] from a YubiHSM 2, and from a device that is as strict.
    pub fn explain_ssh_request(
        &mut self,
        ca_key: ObjectId,
        template: ObjectId,
        algorithm: Algorithm,
        now: Now,
        request: &[u8],
    ) -> Result<Vec<u8>> {
        self.ask(Command::ExplainSshRequest, &certificate_request(ca_key, template, algorithm, now, request))
    }

    /// RSASSA-PKCS1-v1_5 over a digest of 20, 32, 48 or 64 bytes.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_pkcs1(&mut self, key: ObjectId, digest: &[u8]) -> Result<Vec<u8>> {
        self.ask(Command::SignPkcs1, &message::SignPkcs1 { key: key.get(), digest })
    }

    /// ECDSA over a digest; returns the DER signature.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_ecdsa(&mut self, key: ObjectId, digest: &[u8]) -> Result<Vec<u8>> {
        self.ask(Command::SignEcdsa, &message::SignEcdsa { key: key.get(), digest })
    }

    /// Ed25519 over a message; returns 64 bytes.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_eddsa(&mut self, key: ObjectId, message: &[u8]) -> Result<Vec<u8>> {
        self.ask(Command::SignEddsa, &message::SignEddsa { key: key.get(), message })
    }

    /// What the device says of itself and of its sessions: the answer to GET DEVICE STATUS, which
    /// [`sshsm_protocol::device_status::DeviceStatus`] reads.
    ///
    /// # Errors
    /// [`DeviceError::InvalidCommand`] from a YubiHSM 2, and from a device that is as strict.
    pub fn device_status(&mut self) -> Result<Status> {
        let command = Command::GetDeviceStatus;
        let answer = self.command(command, &[])?;
        let status = DeviceStatus::decode(&answer).map_err(|error| nonsense(command, error))?;
        Ok(Status {
            board: status.board.to_owned(),
            firmware: status.firmware,
            image: status.image,
            button: status.button,
            boot_loader: status.boot_loader,
            templates_frozen: status.templates_frozen,
            sessions: status.sessions,
            half_open: status.half_open,
            force_audit: status.force_audit,
            presence: status.presence,
            log: status.log,
        })
    }

    /// Has the device start again. Every session ends, this one included; objects stay.
    ///
    /// # Errors
    /// [`DeviceError::InvalidCommand`] from a YubiHSM 2, and from a device that is as strict.
    pub fn restart(self) -> Result<()> {
        self.end_with(Command::RestartDevice)
    }

    /// Has the device start its boot loader, once somebody has touched it. Every session ends.
    ///
    /// # Errors
    /// [`DeviceError::PresenceTimeout`] when nobody did, [`DeviceError::NothingToTouch`] and [`DeviceError::NoBootLoader`] from
    /// devices that cannot; [`DeviceError::InvalidCommand`] from a YubiHSM 2, and from a device that is as strict.
    pub fn start_boot_loader(self) -> Result<()> {
        self.end_with(Command::StartBootLoader)
    }

    /// Sends a command that ends the session.
    fn end_with(mut self, command: Command) -> Result<()> {
        let result = self.ask_without_answer(command, &message::Nothing {});
        if result.is_ok() {
            self.channel = None;
        }
        result
    }

    /// Deletes everything on the device, this session and the authentication keys included.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn reset(self) -> Result<()> {
        self.end_with(Command::ResetDevice)
    }

    /// Closes the session; dropping it does the same and keeps silent about errors.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn close(mut self) -> Result<()> {
        let result = self.ask_without_answer(Command::CloseSession, &message::Nothing {});
        self.channel = None;
        result
    }

    fn create<'m>(&mut self, command: Command, message: &impl Message<'m>) -> Result<ObjectId> {
        let answer = self.ask(command, message)?;
        let reply::Created { id } = read(command, &answer)?;
        ObjectId::new(id).map_err(|error| nonsense(command, error))
    }

    fn set_option(&mut self, option: DeviceOption, value: &[u8]) -> Result<()> {
        self.ask_without_answer(Command::SetOption, &message::SetOption::new(option, value))
    }

    fn ask<'m>(&mut self, command: Command, message: &impl Message<'m>) -> Result<Vec<u8>> {
        self.command(command, &encoded(command, message)?)
    }

    fn ask_without_answer<'m>(&mut self, command: Command, message: &impl Message<'m>) -> Result<()> {
        expect_empty(command, &self.ask(command, message)?)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.channel.is_some() {
            // The device drops an idle session by itself after 30 s.
            let _ = self.command(Command::CloseSession, &[]);
        }
    }
}

/// How long a device whose sessions are all taken is asked for one. Those that were begun and not authenticated, by somebody
/// with a wrong password for example, give way after five seconds.
const PATIENCE: Duration = Duration::from_secs(6);

/// CREATE SESSION, which changes nothing when it is refused and so may be repeated.
fn create_session(transport: &mut dyn Transport, id: ObjectId, message: &[u8]) -> Result<Vec<u8>> {
    let begin = Instant::now();
    loop {
        let answer = transport.transact(message)?;
        match answer_of(Command::CreateSession, &answer) {
            Err(ClientError::Device { error: DeviceError::SessionsFull, .. })
                if begin.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(200));
            }
            Err(ClientError::Device { error: DeviceError::ObjectNotFound, .. }) => {
                return Err(ClientError::UnknownAuthenticationKey(id));
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(answer),
        }
    }
}

/// A new P-256 key. Nearly every 32 bytes are one.
pub(crate) fn ephemeral_key() -> Result<p256::SecretKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    loop {
        getrandom::fill(bytes.as_mut()).map_err(ClientError::Entropy)?;
        if let Ok(key) = p256::SecretKey::from_slice(bytes.as_ref()) {
            return Ok(key);
        }
    }
}

/// An id for an object that this program puts on a device: known beforehand, so that the object can be deleted also when the
/// answer that it is there was lost.
pub(crate) fn random_id() -> Result<ObjectId> {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(ClientError::Entropy)?;
        if let Ok(id) = ObjectId::new(u16::from_be_bytes(bytes)) {
            return Ok(id);
        }
    }
}

/// The x-coordinate of a point of the device times a scalar of the host.
fn shared_secret(key: &p256::SecretKey, point: &Point) -> Result<Zeroizing<[u8; 32]>> {
    let point =
        p256::PublicKey::from_sec1_bytes(point).map_err(|error| nonsense(Command::CreateSession, error))?;
    let shared = diffie_hellman(key.to_nonzero_scalar(), point.as_affine());
    Ok(Zeroizing::new((*shared.raw_secret_bytes()).into()))
}

fn certificate_request(
    ca_key: ObjectId,
    template: ObjectId,
    algorithm: Algorithm,
    now: Now,
    request: &[u8],
) -> message::SignSshCertificate<'_> {
    message::SignSshCertificate {
        ca_key: ca_key.get(),
        template: template.get(),
        algorithm: algorithm.code(),
        now: now.seconds(),
        request,
    }
}

fn name(id: ObjectId, object_type: ObjectType) -> message::ObjectName {
    message::ObjectName { id: id.get(), object_type: object_type.code() }
}

/// The payload that a message is, which may hold secrets.
fn encoded<'m>(command: Command, message: &impl Message<'m>) -> Result<Zeroizing<Vec<u8>>> {
    let mut payload = Zeroizing::new(vec![0; message.length()]);
    message.encode(&mut Writer::new(&mut payload)).map_err(|error| nonsense(command, error))?;
    Ok(payload)
}

/// Reads a whole answer.
fn read<'a, M: Message<'a>>(command: Command, answer: &'a [u8]) -> Result<M> {
    M::decode(answer).map_err(|error| nonsense(command, error))
}

fn expect_empty(command: Command, payload: &[u8]) -> Result<()> {
    match payload.len() {
        0 => Ok(()),
        length => Err(nonsense(command, format!("it should be empty and has {length} bytes"))),
    }
}
