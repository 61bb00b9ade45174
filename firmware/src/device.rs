//! The device: one message in, one message out.

use alloc::vec::Vec;

use embedded_storage::nor_flash::MultiwriteNorFlash;
use rand_core::{CryptoRng, Rng as _};
use sshsm_protocol::audit::LogEntry;
use sshsm_protocol::channel::{AuthenticationKey, Challenge, ChannelError, DeviceChannel};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::command::Channel;
use sshsm_protocol::frame::{
    Frame, HEADER_LENGTH, MAX_INNER_PAYLOAD, MAX_MESSAGE, MAX_PAYLOAD, RESPONSE_FLAG, error_frame,
    write_header,
};
use sshsm_protocol::message::{
    AuthenticateSession, CreateSession, Echo, GetDeviceInfo, Message as _, Nothing, SessionMessage, reply,
};
use sshsm_protocol::object::Origin;
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Algorithm, Capabilities, Command, DeviceError, Domains, Label, ObjectId, ObjectType};
use zeroize::{Zeroize, Zeroizing};

use crate::audit::{AuditLog, Pending};
use crate::authorization;
use crate::commands::{self, Core, authentication};
use crate::identity;
use crate::link::Vitals;
use crate::options::Options;
use crate::platform::{Boot, Platform};
use crate::session::{Caller, Sessions, Stage};
use crate::store::{Attributes, MountError, Record, Store, StoreError};

/// The offset of the inner frame in a session message: after the outer header and the session id.
const INNER: usize = HEADER_LENGTH + 1;

/// An sshsm device.
pub struct Device<P: Platform> {
    core: Core<P>,
    sessions: Sessions,
    /// A session message while it is decrypted; cleared after each.
    scratch: Zeroizing<Vec<u8>>,
    /// What to start once the answer has been sent.
    restart: Option<Boot>,
}

/// What becomes of a session after a command in it was answered.
enum Aftermath {
    Stays,
    Closed,
    /// The whole device was reset, or its store failed, a reset half-way included: all sessions end.
    Reset,
    /// The device ends.
    Restart(Boot),
}

impl<P: Platform> Device<P> {
    /// Starts a device on its platform and flash. Blank flash becomes a factory-fresh device with the default
    /// authentication key (id 1, password `password`); flash that cannot be read is refused and not modified.
    pub fn start(mut platform: P, flash: P::Flash) -> Result<Self, MountError> {
        let root_key = platform.root_key();
        let mut store = Store::mount(flash, &root_key, |store| insert_defaults(store, platform.entropy()))?;
        let options = Options::load(&mut store)?;
        let mut log = AuditLog::load(&mut store)?;
        let now = platform.uptime();
        log.boot(&mut store, &options, platform.entropy(), now).map_err(|_| MountError::Flash)?;
        Ok(Self {
            core: Core {
                platform,
                store,
                options,
                log,
                #[cfg(feature = "private-keys")]
                loaded: commands::loaded_key::Cache::EMPTY,
            },
            sessions: Sessions::new(),
            scratch: Zeroizing::new(Vec::with_capacity(MAX_MESSAGE)),
            restart: None,
        })
    }

    /// The platform.
    pub fn platform(&mut self) -> &mut P {
        &mut self.core.platform
    }

    /// The flash; `None` only if a reset could not begin to rebuild the store.
    pub fn flash(&mut self) -> Option<&mut P::Flash> {
        self.core.store.flash()
    }

    /// What the device reports about itself outside any session.
    pub fn vitals(&mut self) -> Vitals {
        let now = self.core.platform.uptime();
        let storage = self.core.store.storage_info();
        Vitals {
            sessions: self.sessions.count(now),
            free_records: storage.free_records,
            free_pages: storage.free_pages,
        }
    }

    /// The restart that a session requested, if any. The owner of the device sends the answer, clears all
    /// memory and performs it; the device's sessions have ended.
    #[must_use]
    pub const fn restart(&self) -> Option<Boot> {
        self.restart
    }

    /// Answers one message and returns the answer's length. `response` must have room for [`MAX_MESSAGE`] bytes; with
    /// less, session messages are refused and answers that do not fit fail.
    pub fn handle(&mut self, request: &[u8], response: &mut [u8]) -> usize {
        match self.answer(request, response) {
            Ok(length) => length,
            Err(error) => {
                let frame = error_frame(error);
                match response.first_chunk_mut() {
                    Some(room) => *room = frame,
                    None => return 0,
                }
                frame.len()
            }
        }
    }

    fn answer(&mut self, request: &[u8], response: &mut [u8]) -> Result<usize, DeviceError> {
        if request.len() > MAX_MESSAGE {
            return Err(DeviceError::WrongLength);
        }
        let frame = Frame::parse(request).map_err(|_| DeviceError::WrongLength)?;
        let command = Command::from_code(frame.code)
            .filter(|command| command.channel() != Channel::Session)
            .ok_or(DeviceError::InvalidCommand)?;
        if command == Command::SessionMessage {
            let SessionMessage { session, .. } = SessionMessage::decode(frame.payload)?;
            // Nothing is carried out if its answer might not fit once it is encrypted.
            return match response.len() >= MAX_MESSAGE {
                true => self.session_message(session, request, response),
                false => Err(DeviceError::WrongLength),
            };
        }
        let entry = self.strangers_entry(command, frame.payload);
        let now = self.core.platform.uptime();
        let Core { options, log, platform, .. } = &mut self.core;
        log.admit_stranger(options, now, command)
            .inspect_err(|error| platform.handled(command, Err(*error)))?;
        let room = response.get_mut(HEADER_LENGTH..).unwrap_or_default();
        let limit = room.len().min(MAX_PAYLOAD);
        let mut writer = Writer::new(room.get_mut(..limit).unwrap_or_default());
        let done = self.strangers_command(command, frame.payload, &mut writer);
        let opened = match command {
            Command::CreateSession => writer.written().first().copied(),
            Command::AuthenticateSession => frame.payload.first().copied(),
            _ => None,
        };
        let logged = self.log_stranger(command, entry, done, opened, writer.written());
        if let (Ok(()), Err(_), Some(id)) = (done, logged, opened) {
            // A session that could not be logged is not opened.
            self.sessions.close(id);
        }
        let done = logged.and(done);
        self.core.platform.handled(command, done);
        done?;
        let length = writer.len();
        Ok(write_header(command.code() | RESPONSE_FLAG, length, response)?)
    }

    /// Carries out a command outside sessions; writes the response's payload.
    fn strangers_command(
        &mut self,
        command: Command,
        payload: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        match command {
            Command::Echo => commands::device::echo(Echo::decode(payload)?, writer),
            Command::GetDeviceInfo => {
                commands::device::info(&mut self.core, GetDeviceInfo::decode(payload)?, writer)
            }
            Command::GetDevicePublicKey => {
                authentication::device_public_key(&mut self.core, Nothing::decode(payload)?, writer)
            }
            Command::CreateSession => self.create_session(CreateSession::decode(payload)?, writer),
            Command::AuthenticateSession => self.authenticate_session(AuthenticateSession::decode(payload)?),
            _ => Err(DeviceError::InvalidCommand),
        }
    }

    /// The log entry for a stranger's command. A wrong AUTHENTICATE SESSION names the key that was tried.
    fn strangers_entry(&mut self, command: Command, payload: &[u8]) -> LogEntry {
        let now = self.core.platform.uptime();
        let mut entry = LogEntry::of(command, None, payload);
        if command == Command::AuthenticateSession
            && let Some(&id) = payload.first()
            && let Ok(session) = self.sessions.unauthenticated(id, now)
        {
            entry.target_key = session.caller.authentication_key.get();
        }
        entry
    }

    /// Logs how a stranger's command ended; `opened` is the session that it has created or authenticated.
    fn log_stranger(
        &mut self,
        command: Command,
        entry: LogEntry,
        done: Result<(), DeviceError>,
        opened: Option<u8>,
        reply: &[u8],
    ) -> Result<(), DeviceError> {
        let now = self.core.platform.uptime();
        let Core { store, options, log, .. } = &mut self.core;
        let session = opened.filter(|_| done.is_ok()).and_then(|id| self.sessions.resume(id));
        match (command, session) {
            (Command::AuthenticateSession, Some(session)) => {
                let entry = log.authentication(options, now, entry);
                log.authenticated(store, options, session.owed.take(), entry)
            }
            (_, session) => {
                let owed = log.complete_stranger(store, options, now, (command, entry), done, reply)?;
                if let Some(session) = session {
                    session.owed = owed;
                }
                Ok(())
            }
        }
    }

    fn create_session(
        &mut self,
        CreateSession { key, host }: CreateSession<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        self.core.store.usable()?;
        let id = ObjectId::new(key).map_err(|_| DeviceError::ObjectNotFound)?;
        let name = (ObjectType::AuthenticationKey, id);
        let info = *self.core.store.info(name).ok_or(DeviceError::ObjectNotFound)?;
        let body = self.core.body(name)?;
        let now = self.core.platform.uptime();
        let (session_id, channel, stage) = match info.algorithm {
            Algorithm::Aes128YubicoAuthentication => {
                let host_challenge = host.try_into().map_err(|_| DeviceError::WrongLength)?;
                let key = Zeroizing::new(
                    <[u8; AuthenticationKey::LENGTH]>::try_from(body.as_slice())
                        .map_err(|_| DeviceError::StorageFailed)?,
                );
                let session_id = self.sessions.allocate(now)?;
                let mut card_challenge = Challenge::default();
                self.core.platform.entropy().fill_bytes(&mut card_challenge);
                let key = AuthenticationKey::from_bytes(*key);
                let channel = DeviceChannel::derive(session_id, &key, host_challenge, card_challenge);
                let card_cryptogram = channel.card_cryptogram();
                reply::SessionCreated { session: session_id, card_challenge, card_cryptogram }
                    .encode(writer)?;
                (session_id, channel, Stage::AwaitsAuthentication)
            }
            Algorithm::Ecp256YubicoAuthentication => {
                let host_point = host.try_into().map_err(|_| DeviceError::WrongLength)?;
                let session_id = self.sessions.allocate(now)?;
                let (channel, device_point, receipt) =
                    authentication::agree(&mut self.core, session_id, &body, host_point)?;
                reply::SessionAgreed { session: session_id, device_point, receipt }.encode(writer)?;
                (session_id, channel, Stage::AwaitsMessage)
            }
            // No other is ever stored.
            _ => return Err(DeviceError::StorageFailed),
        };
        let caller = Caller {
            authentication_key: id,
            revision: self.core.store.revision(name),
            capabilities: info.capabilities,
            delegated_capabilities: info.delegated_capabilities,
            domains: info.domains,
        };
        self.sessions.create(session_id, caller, channel, stage, now);
        Ok(())
    }

    fn authenticate_session(
        &mut self,
        AuthenticateSession { session: id, cryptogram, mac }: AuthenticateSession,
    ) -> Result<(), DeviceError> {
        let now = self.core.platform.uptime();
        let session = self.sessions.unauthenticated(id, now)?;
        match session.channel.authenticate(cryptogram, mac) {
            Ok(()) => {
                session.establish(now);
                Ok(())
            }
            Err(_) => {
                self.sessions.failed(id);
                Err(DeviceError::AuthenticationFailed)
            }
        }
    }

    fn session_message(&mut self, id: u8, request: &[u8], response: &mut [u8]) -> Result<usize, DeviceError> {
        let mut message = core::mem::take(&mut self.scratch);
        message.clear();
        message.extend_from_slice(request);
        let answer = self.open_session_message(id, &mut message, response);
        message.as_mut_slice().zeroize();
        self.scratch = message;
        answer
    }

    fn open_session_message(
        &mut self,
        id: u8,
        message: &mut [u8],
        response: &mut [u8],
    ) -> Result<usize, DeviceError> {
        let now = self.core.platform.uptime();
        let session = self.sessions.open(id, now)?;
        let caller = session.caller;
        if !authorization::holds_its_key(&self.core.store, &caller) {
            self.sessions.close(id);
            return Err(DeviceError::InvalidSession);
        }
        let opened = match session.channel.open(message) {
            Ok(frame) => Ok(frame),
            Err(ChannelError::InnerFrame(_)) => Err(DeviceError::WrongLength),
            Err(ChannelError::WrongMac) => {
                self.sessions.failed(id);
                return Err(DeviceError::AuthenticationFailed);
            }
            Err(_) => return Err(DeviceError::WrongLength),
        };
        session.establish(now);
        if let Some(owed) = session.owed.take() {
            // The client that created a session with a P-256 key has just proved that it holds that key.
            let Core { store, options, log, .. } = &mut self.core;
            if let Err(error) = log.authenticated(store, options, Some(owed), None) {
                self.sessions.close(id);
                return Err(error);
            }
        }

        let inner = response.get_mut(INNER..).unwrap_or_default();
        let (length, aftermath) = match opened.and_then(|frame| self.command(&caller, frame, inner)) {
            Ok((length, aftermath)) => (length, aftermath),
            Err(error) => {
                let frame = error_frame(error);
                if let Some(room) = inner.get_mut(..frame.len()) {
                    room.copy_from_slice(&frame);
                }
                let failed = self.core.store.usable().is_err();
                (frame.len(), if failed { Aftermath::Reset } else { Aftermath::Stays })
            }
        };
        // A command may have taken longer than sessions may be idle; this one was not.
        let now = self.core.platform.uptime();
        let session = self.sessions.resume(id).ok_or(DeviceError::InvalidSession)?;
        session.touch(now);
        if caller.revision.is_some() {
            // A change to its own key does not end the session.
            let own = (ObjectType::AuthenticationKey, caller.authentication_key);
            session.caller.revision = self.core.store.revision(own);
        }
        let sealed = session.channel.seal(length, response).map_err(|_| DeviceError::WrongLength);
        match aftermath {
            Aftermath::Stays => {}
            Aftermath::Closed => self.sessions.close(id),
            Aftermath::Reset => self.sessions.close_all(),
            Aftermath::Restart(boot) => {
                self.sessions.close_all();
                #[cfg(feature = "private-keys")]
                self.core.loaded.clear();
                self.restart = Some(boot);
            }
        }
        let store = &self.core.store;
        self.sessions.retain(|caller| authorization::holds_its_key(store, caller));
        sealed
    }

    /// Carries out a command of a session; writes the inner response frame and returns its length.
    fn command(
        &mut self,
        caller: &Caller,
        frame: Frame<'_>,
        response: &mut [u8],
    ) -> Result<(usize, Aftermath), DeviceError> {
        let strict = self.core.platform.dialect() == Dialect::Yubihsm2;
        let command = Command::from_code(frame.code)
            .filter(|command| command.channel() != Channel::Plain && !(strict && command.is_extension()))
            .ok_or(DeviceError::InvalidCommand)?;
        let room = response.get_mut(HEADER_LENGTH..).unwrap_or_default();
        let limit = room.len().min(MAX_INNER_PAYLOAD);
        let mut writer = Writer::new(room.get_mut(..limit).unwrap_or_default());
        let pending = self.admit(caller, command, frame.payload)?;
        let done = self.carry_out(caller, command, frame.payload, &mut writer);
        let done = self.complete(pending, done, writer.written()).and(done);
        self.core.platform.handled(command, done);
        if done.is_err() {
            // No part of an abandoned answer may be visible after the error.
            writer.clear();
        }
        done?;
        let aftermath = match command {
            Command::CloseSession => Aftermath::Closed,
            Command::ResetDevice => Aftermath::Reset,
            Command::RestartDevice => Aftermath::Restart(Boot::Firmware),
            Command::StartBootLoader => Aftermath::Restart(Boot::BootLoader),
            _ => Aftermath::Stays,
        };
        let length = writer.len();
        Ok((write_header(command.code() | RESPONSE_FLAG, length, response)?, aftermath))
    }

    fn carry_out(
        &mut self,
        caller: &Caller,
        command: Command,
        payload: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), DeviceError> {
        // The one command that is about sessions, which no handler sees.
        let handler = match command {
            Command::GetDeviceStatus => None,
            _ => Some(commands::handler::<P>(command).ok_or(DeviceError::InvalidCommand)?),
        };
        authorization::may_send(caller, command, payload)?;
        let done = match handler {
            Some(handler) => handler(&mut self.core, caller, payload, writer),
            None => {
                Nothing::decode(payload)?;
                let now = self.core.platform.uptime();
                commands::device::status(&mut self.core, self.sessions.census(now), writer)
            }
        };
        #[cfg(feature = "private-keys")]
        if done == Err(DeviceError::StorageFailed) {
            // One cause is a signature that did not verify: the key is loaded again.
            self.core.loaded.clear();
        }
        done
    }

    /// Asks the audit log whether a command of a session may begin.
    fn admit(
        &mut self,
        caller: &Caller,
        command: Command,
        payload: &[u8],
    ) -> Result<Option<Pending>, DeviceError> {
        let now = self.core.platform.uptime();
        let entry = LogEntry::of(command, Some(caller.authentication_key.get()), payload);
        let Core { store, options, log, platform, .. } = &mut self.core;
        log.admit(store, options, now, command, entry)
            .inspect_err(|error| platform.handled(command, Err(*error)))
    }

    /// Reports the outcome of a command to the audit log.
    fn complete(
        &mut self,
        pending: Option<Pending>,
        done: Result<(), DeviceError>,
        reply: &[u8],
    ) -> Result<(), DeviceError> {
        let now = self.core.platform.uptime();
        self.core.log.complete(&mut self.core.store, now, pending, done, reply)
    }
}

/// The label of the authentication key that every factory-fresh device has.
const DEFAULT_LABEL: Label = match Label::new("DEFAULT AUTHKEY CHANGE THIS ASAP") {
    Ok(label) => label,
    Err(_) => panic!("the label is too long"),
};

/// The contents of a factory-fresh device: its identity key, and the default authentication key, with every
/// right.
pub(crate) fn insert_defaults<F: MultiwriteNorFlash>(
    store: &mut Store<F>,
    entropy: &mut impl CryptoRng,
) -> Result<(), StoreError> {
    identity::private_key(store, entropy, Record::DeviceKey)?;
    let key = AuthenticationKey::from_password(b"password");
    let attributes = Attributes {
        capabilities: Capabilities::ALL,
        length: authentication::object_length(key.as_bytes()),
        domains: Domains::ALL,
        algorithm: Algorithm::Aes128YubicoAuthentication,
        origin: Origin::IMPORTED,
        label: DEFAULT_LABEL,
        delegated_capabilities: Capabilities::ALL,
    };
    let name = (ObjectType::AuthenticationKey, ObjectId::DEFAULT_AUTHENTICATION_KEY);
    store.insert(name, &attributes, key.as_bytes()).map(|_| ())
}
