//! A session with the device in this process, for tests and for provisioning: the secure channel as any client opens
//! it, and commands by name. What the payloads look like is in `sshsm-protocol`.

use std::fmt;

use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    channel::{AuthenticationKey, CHALLENGE_LENGTH, ChannelError, Handshake, HandshakeError, HostChannel},
    codec::Writer,
    frame::{AnswerError, ERROR_CODE, Frame, MAX_INNER_PAYLOAD, MAX_MESSAGE},
    message::Message,
};
use zeroize::Zeroizing;

use crate::simulator::{Simulator, SimulatorError};

/// An authenticated session, closed when it is dropped.
pub struct Session<'d> {
    device: &'d mut Simulator,
    channel: HostChannel,
}

/// Why there is no session, or no answer in it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The device refuses.
    #[error("the device says: {0}")]
    Device(DeviceError),
    /// The secure channel does: with [`Simulator::session`], the password is wrong.
    #[error("the secure channel failed")]
    Channel(#[from] ChannelError),
    /// The simulator is not running, or could not save.
    #[error("the simulator failed")]
    Simulator(#[from] SimulatorError),
    /// The system has no randomness to give.
    #[error("the system's generator failed")]
    Entropy(#[source] getrandom::Error),
    /// An answer that no device gives.
    #[error("the device's answer is malformed")]
    Answer,
}

impl Simulator {
    /// Opens a session under an authentication key and its password. A new device has key 1 and `password`.
    ///
    /// # Errors
    ///
    /// [`SessionError::Device`] with `ObjectNotFound` where there is no such key and `SessionsFull` where all 16
    /// sessions are open; [`SessionError::Channel`] where the password is wrong.
    pub fn session(&mut self, id: ObjectId, password: &str) -> Result<Session<'_>, SessionError> {
        self.session_with(id, &AuthenticationKey::from_password(password.as_bytes()))
    }

    /// As [`Simulator::session`], with the keys that a password stands for.
    ///
    /// # Errors
    ///
    /// As [`Simulator::session`].
    pub fn session_with(
        &mut self,
        id: ObjectId,
        key: &AuthenticationKey,
    ) -> Result<Session<'_>, SessionError> {
        let mut challenge = [0; CHALLENGE_LENGTH];
        getrandom::fill(&mut challenge).map_err(SessionError::Entropy)?;
        let handshake = Handshake::new(id.get(), key, challenge);
        let channel = handshake.open(|message| Ok::<_, SessionError>(self.transact(message)?))?;
        Ok(Session { device: self, channel })
    }
}

impl Session<'_> {
    /// Sends a command; returns the payload of the answer.
    ///
    /// ```
    /// use sshsm_protocol::{Command, ObjectId};
    /// use sshsm_simulator::Simulator;
    ///
    /// let mut device = Simulator::memory().start()?;
    /// let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
    /// let random = session.command(Command::GetPseudoRandom, &[0, 32])?;
    /// assert_eq!(random.len(), 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::Device`] with the device's own error.
    pub fn command(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut message = vec![0; MAX_MESSAGE];
        let length = self.channel.seal(command, payload, &mut message)?;
        message.truncate(length);
        let mut answer = self.device.transact(&message)?;
        // Errors of the session itself come outside of it.
        if let Ok(Frame { code: ERROR_CODE, payload }) = Frame::parse(&answer) {
            Frame { code: ERROR_CODE, payload }.answer(command)?;
        }
        Ok(self.channel.open(&mut answer)?.answer(command)?.to_vec())
    }

    /// Sends a command with the message that is its payload.
    pub(crate) fn send<'m>(
        &mut self,
        command: Command,
        message: &impl Message<'m>,
    ) -> Result<Vec<u8>, SessionError> {
        if message.length() > MAX_INNER_PAYLOAD {
            return Err(SessionError::Device(DeviceError::WrongLength));
        }
        let mut payload = Zeroizing::new(vec![0; message.length()]);
        message
            .encode(&mut Writer::new(&mut payload))
            .map_err(|_| SessionError::Device(DeviceError::WrongLength))?;
        self.command(command, &payload)
    }
}

impl From<AnswerError> for SessionError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused(error) => Self::Device(error),
            AnswerError::UndefinedError(_) | AnswerError::OtherCode(_) | AnswerError::Malformed(_) => {
                Self::Answer
            }
        }
    }
}

impl From<HandshakeError> for SessionError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Answer(error) => error.into(),
            HandshakeError::Channel(error) => error.into(),
            HandshakeError::Layout(_) | HandshakeError::NoSuchSession(_) => Self::Answer,
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // It may have ended already: with the power, a reset, or its time.
        let _ = self.command(Command::CloseSession, &[]);
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.channel.session_id()).finish_non_exhaustive()
    }
}
