//! Why a command has no result.

use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    channel::{ChannelError, HandshakeError},
    frame::AnswerError,
};

use crate::exchange::ExchangeError;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The frame or its answer was lost.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
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

    /// Whether the device may have carried the command out all the same: it may have been sent, and what came is not known to
    /// be the device's answer.
    #[must_use]
    pub const fn may_have_run(&self) -> bool {
        match self {
            Self::Exchange(_) | Self::Nonsense { .. } | Self::NotAuthentic { .. } => true,
            Self::Device { .. }
            | Self::UndefinedError { .. }
            | Self::TooLong { .. }
            | Self::UnknownAuthenticationKey(_)
            | Self::WrongPassword(_)
            | Self::WrongPrivateKey(_)
            | Self::Ended
            | Self::Entropy(_) => false,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, ClientError>;

pub(crate) fn no_answer(command: Command, error: AnswerError) -> ClientError {
    match error {
        AnswerError::Refused(error) => ClientError::Device { command, error },
        AnswerError::UndefinedError(code) => ClientError::UndefinedError { command, code },
        AnswerError::OtherCode(_) | AnswerError::Malformed(_) => nonsense(command, error),
    }
}

pub(crate) fn not_opened(command: Command, id: ObjectId, error: HandshakeError) -> ClientError {
    match error {
        HandshakeError::Answer(error) => no_answer(command, error),
        HandshakeError::Channel(_) => ClientError::WrongPassword(id),
        HandshakeError::Layout(_) | HandshakeError::NoSuchSession(_) => nonsense(command, error),
    }
}

pub(crate) fn nonsense(command: Command, reason: impl ToString) -> ClientError {
    ClientError::Nonsense { command, reason: reason.to_string() }
}
