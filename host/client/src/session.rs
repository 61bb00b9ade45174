//! A session: commands inside the secure channel. Those of each kind are in [`crate::commands`].
//!
//! The payload of a command is checked here before anything is sent, a device's refusal is a separate error,
//! and a command is never repeated (except CREATE SESSION, while all sessions are taken). Secrets that pass
//! through are wiped.

use std::{fmt, time::Duration};

use sshsm_protocol::{
    Command, ObjectId,
    channel::{AuthenticationKey, HostChannel},
    frame::{ERROR_CODE, Frame, HEADER_LENGTH, SESSION_OVERHEAD},
    message::{self, Message, reply},
};
use zeroize::Zeroizing;

use crate::{
    client::Client,
    credential::Credential,
    error::{ClientError, Result, nonsense},
    exchange::Exchange,
    handshake,
    identity::Identity,
    notice::Listener,
    plain::{encoded, payload_of, read},
};

/// An authenticated, encrypted session; closed when dropped.
pub struct Session<'c> {
    exchange: &'c mut dyn Exchange,
    listener: Listener,
    /// The device's serial number.
    serial: u32,
    max_payload: usize,
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
    /// [`ClientError::UnknownAuthenticationKey`] and [`ClientError::WrongPassword`], which the protocol
    /// distinguishes.
    pub fn open(client: &'c mut Client, key: ObjectId, password: &str) -> Result<Self> {
        Self::open_with_key(client, key, &AuthenticationKey::from_password(password.as_bytes()))
    }

    /// Opens a session with the authentication key itself.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_with_key(client: &'c mut Client, id: ObjectId, key: &AuthenticationKey) -> Result<Self> {
        Self::open_with(client, id, &Credential::Key(key.clone()))
    }

    /// Opens a session with the given credential.
    ///
    /// # Errors
    /// Like [`Session::open`], and [`ClientError::WrongPrivateKey`].
    pub fn open_with(client: &'c mut Client, id: ObjectId, credential: &Credential) -> Result<Self> {
        let Client { exchange, identity, listener } = client;
        Self::begin(exchange.as_mut(), identity, listener.clone(), id, credential, handshake::PATIENCE)
    }

    /// Opens a session with the device at the end of an exchange that still belongs to the caller. A device
    /// whose sessions are all taken is not asked again.
    ///
    /// # Errors
    /// Like [`Session::open_with`], and [`DeviceError::SessionsFull`].
    ///
    /// [`DeviceError::SessionsFull`]: sshsm_protocol::DeviceError::SessionsFull
    pub fn over(exchange: &'c mut dyn Exchange, id: ObjectId, credential: &Credential) -> Result<Self> {
        let identity = Identity::ask(exchange)?;
        Self::begin(exchange, &identity, Listener::default(), id, credential, Duration::ZERO)
    }

    fn begin(
        exchange: &'c mut dyn Exchange,
        identity: &Identity,
        listener: Listener,
        id: ObjectId,
        credential: &Credential,
        patience: Duration,
    ) -> Result<Self> {
        let channel = handshake::open(exchange, id, credential, patience)?;
        Ok(Self {
            exchange,
            listener,
            serial: identity.serial,
            max_payload: identity.max_payload(),
            authentication_key: id,
            channel: Some(channel),
            unheard: None,
        })
    }

    /// The authentication key that opened this session.
    #[must_use]
    pub const fn authentication_key(&self) -> ObjectId {
        self.authentication_key
    }

    /// The largest payload, in bytes, of a command inside a session.
    #[must_use]
    pub const fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// The device's address, in the form of `--device`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.exchange.describe()
    }

    /// The device's serial number.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// The receiver of [`Notice`](crate::Notice)s.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Sends a command inside the session and returns the payload of its answer.
    ///
    /// # Errors
    /// A refusal by the device leaves the session open; a lost, plain or unauthentic answer ends it.
    pub fn command(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>> {
        let limit = self.max_payload;
        if payload.len() > limit {
            return Err(ClientError::TooLong { command, length: payload.len(), limit });
        }
        // Taken out, and put back only when both ends are synchronised again.
        let mut channel = self.channel.take().ok_or(ClientError::Ended)?;
        let not_authentic = |source| ClientError::NotAuthentic { command, source };
        // Room for the padding too.
        let mut message = Zeroizing::new(vec![0; payload.len() + SESSION_OVERHEAD + HEADER_LENGTH + 16]);
        let length = channel.seal(command, payload, &mut message).map_err(not_authentic)?;
        let sealed =
            message.get(..length).ok_or(ClientError::Unreachable("a message longer than its room"))?;
        let mut answer = match self.exchange.transact(sealed) {
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

    /// As [`Session::command`], with the message that is the command's payload.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn send<'m>(&mut self, command: Command, message: &impl Message<'m>) -> Result<Vec<u8>> {
        self.command(command, &encoded(command, message)?)
    }

    /// Continues a session that ended because an answer was lost, as if the answer had arrived: for a
    /// clean-up command that does no harm if the device never received the previous one.
    pub fn go_on_unheard(&mut self) {
        if self.channel.is_none() {
            self.channel = self.unheard.take();
        }
    }

    /// Closes the session; dropping it does the same and ignores errors.
    ///
    /// # Errors
    /// Like [`Session::command`].
    pub fn close(mut self) -> Result<()> {
        let result = self.ask_without_answer(Command::CloseSession, &message::Nothing {});
        self.channel = None;
        result
    }

    /// Sends a command that ends the session.
    pub(crate) fn end_with(mut self, command: Command) -> Result<()> {
        let result = self.ask_without_answer(command, &message::Nothing {});
        if result.is_ok() {
            self.channel = None;
        }
        result
    }

    pub(crate) fn create<'m>(&mut self, command: Command, message: &impl Message<'m>) -> Result<ObjectId> {
        let answer = self.send(command, message)?;
        let reply::Created { id } = read(command, &answer)?;
        ObjectId::new(id).map_err(|error| nonsense(command, error))
    }

    pub(crate) fn ask_without_answer<'m>(
        &mut self,
        command: Command,
        message: &impl Message<'m>,
    ) -> Result<()> {
        expect_empty(command, &self.send(command, message)?)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.channel.is_some() {
            // The device itself ends an idle session after 30 s.
            let _ = self.command(Command::CloseSession, &[]);
        }
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("authentication_key", &self.authentication_key)
            .finish_non_exhaustive()
    }
}

fn expect_empty(command: Command, payload: &[u8]) -> Result<()> {
    match payload.len() {
        0 => Ok(()),
        length => Err(nonsense(command, format!("it should be empty and has {length} bytes"))),
    }
}
