//! A session with the device in this process, for tests and for provisioning: the secure channel as any client opens
//! it, and commands by name. What the payloads look like is in `sshsm-protocol`.

use std::fmt;

use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    channel::{AuthenticationKey, CHALLENGE_LENGTH, ChannelError, HostChannel},
    codec::{CodecError, Reader},
    frame::{ERROR_CODE, Frame, MAX_MESSAGE, RESPONSE_FLAG},
};

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
        let create = [&id.get().to_be_bytes(), &challenge[..]].concat();
        let answer = plain(self, Command::CreateSession, &create)?;
        let mut reader = Reader::new(&answer);
        let mut fields = || Ok::<_, CodecError>((reader.u8()?, reader.array()?, reader.array()?));
        let (session, card_challenge, cryptogram) = fields().map_err(|_| SessionError::Answer)?;
        let mut channel = HostChannel::derive(session, key, challenge, card_challenge, cryptogram)?;
        let message = channel.authenticate();
        open(&self.transact(&message)?, Command::AuthenticateSession)?;
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
        if let Ok(Frame { code: ERROR_CODE, payload: &[code] }) = Frame::parse(&answer) {
            return Err(refusal(code));
        }
        payload_of(self.channel.open(&mut answer)?, command)
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

/// A command outside of sessions.
fn plain(device: &mut Simulator, command: Command, payload: &[u8]) -> Result<Vec<u8>, SessionError> {
    let length = u16::try_from(payload.len()).map_err(|_| SessionError::Device(DeviceError::WrongLength))?;
    let request = [&[command.code()][..], &length.to_be_bytes(), payload].concat();
    open(&device.transact(&request)?, command)
}

fn open(answer: &[u8], command: Command) -> Result<Vec<u8>, SessionError> {
    payload_of(Frame::parse(answer).map_err(|_| SessionError::Answer)?, command)
}

fn payload_of(frame: Frame<'_>, command: Command) -> Result<Vec<u8>, SessionError> {
    match frame {
        Frame { code: ERROR_CODE, payload: &[code] } => Err(refusal(code)),
        Frame { code, payload } if code == command.code() | RESPONSE_FLAG => Ok(payload.to_vec()),
        _ => Err(SessionError::Answer),
    }
}

fn refusal(code: u8) -> SessionError {
    DeviceError::from_code(code).map_or(SessionError::Answer, SessionError::Device)
}
