//! Why a command has no result.

use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    channel::{ChannelError, HandshakeError},
    frame::AnswerError,
};

use crate::{
    credential::SUCCESSOR,
    exchange::ExchangeError,
    failure::{Failure, Kind},
};

/// What to do when a touch did not come.
pub const TOUCH: &str = "repeat the command and touch the device while it waits";

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
        /// The command.
        command: Command,
        /// The device's reason.
        error: DeviceError,
    },
    /// The device refused the command with a code that has no meaning.
    #[error("the device refused \"{command}\" with the undefined error code {code:#04x}")]
    UndefinedError {
        /// The command.
        command: Command,
        /// The code.
        code: u8,
    },
    /// The answer does not fit the command.
    #[error("the device's answer to \"{command}\" makes no sense: {reason}")]
    Nonsense {
        /// The command.
        command: Command,
        /// The defect.
        reason: String,
    },
    /// The answer was not encrypted and authenticated by the device that the session is with.
    #[error("the device's answer to \"{command}\" is not authentic")]
    NotAuthentic {
        /// The command.
        command: Command,
        /// The error of the channel.
        source: ChannelError,
    },
    /// The request is longer than the device accepts.
    #[error("\"{command}\" with {length} bytes is more than the {limit} that this device accepts")]
    TooLong {
        /// The command.
        command: Command,
        /// Bytes of its payload.
        length: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// The session ended with an earlier error.
    #[error("the session ended with an earlier error")]
    Ended,
    /// What cannot happen has happened: a mistake in this program.
    #[error("this cannot happen, and is a mistake in this program: {0}")]
    Unreachable(&'static str),
    /// The operating system gave no random challenge.
    #[error("no random numbers from the operating system: {0}")]
    Entropy(getrandom::Error),
}

impl Failure for ClientError {
    fn kind(&self) -> Kind {
        match self {
            Self::Exchange(error) => error.kind(),
            Self::UnknownAuthenticationKey(_) | Self::WrongPassword(_) | Self::WrongPrivateKey(_) => {
                Kind::Authentication
            }
            Self::Device { error, .. } => match error {
                DeviceError::SshCaConstraintViolation
                | DeviceError::InsufficientPermissions
                | DeviceError::TemplatesFrozen => Kind::Refused,
                DeviceError::AuthenticationFailed => Kind::Authentication,
                DeviceError::PresenceTimeout => Kind::Untouched,
                DeviceError::InvalidSession
                | DeviceError::SessionsFull
                | DeviceError::SessionFailed
                | DeviceError::StorageFailed => Kind::Device,
                DeviceError::InvalidCommand
                | DeviceError::InvalidData
                | DeviceError::WrongLength
                | DeviceError::LogFull
                | DeviceError::ObjectNotFound
                | DeviceError::InvalidId
                | DeviceError::InvalidOtp
                | DeviceError::DemoMode
                | DeviceError::ObjectExists
                | DeviceError::AlgorithmDisabled
                | DeviceError::NothingToTouch
                | DeviceError::NoBootLoader => Kind::Failed,
            },
            Self::UndefinedError { .. } | Self::Nonsense { .. } | Self::NotAuthentic { .. } | Self::Ended => {
                Kind::Device
            }
            Self::TooLong { .. } | Self::Unreachable(_) | Self::Entropy(_) => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Exchange(error) => return error.help(),
            Self::UnknownAuthenticationKey(ObjectId::DEFAULT_AUTHENTICATION_KEY) => {
                "name another one with --auth-key. If a change of its password was interrupted, authentication key 0xfffe has the \
                 new password: repeat that `sshsm provision` or `sshsm authentication-key change`, or open the device with \
                 --auth-key 0xfffe"
            }
            Self::UnknownAuthenticationKey(_) => "name another one with --auth-key",
            Self::WrongPassword(SUCCESSOR) => {
                "give the new password that an earlier run, which was interrupted, was to set"
            }
            Self::WrongPassword(_) => {
                "a fresh device has authentication key 1 with the password \"password\""
            }
            Self::Device { command, error } => return refusal_help(*command, *error),
            Self::WrongPrivateKey(_)
            | Self::UndefinedError { .. }
            | Self::Nonsense { .. }
            | Self::NotAuthentic { .. }
            | Self::TooLong { .. }
            | Self::Ended
            | Self::Unreachable(_)
            | Self::Entropy(_) => return None,
        })
    }
}

/// What to do when the device refuses a command with `error`.
const fn refusal_help(command: Command, error: DeviceError) -> Option<&'static str> {
    Some(match error {
        DeviceError::SessionsFull => "idle sessions end after 30 seconds; try again then",
        DeviceError::ObjectNotFound => "`sshsm key list` shows what this authentication key can see",
        DeviceError::ObjectExists => "choose another --id, or leave it out: the device finds a free one",
        DeviceError::PresenceTimeout => TOUCH,
        DeviceError::TemplatesFrozen => {
            "the templates on it still work; only `sshsm device reset`, which deletes every key, ends the freeze"
        }
        DeviceError::NothingToTouch | DeviceError::NoBootLoader
            if matches!(command, Command::StartBootLoader) =>
        {
            "start its boot loader by hand: hold BOOTSEL while you plug it in (nRF52840: press reset twice)"
        }
        DeviceError::InvalidCommand
            if matches!(command, Command::StartBootLoader | Command::RestartDevice) =>
        {
            "a YubiHSM 2 and a strict device do not know this command: unplug it"
        }
        DeviceError::InvalidCommand if matches!(command, Command::GetDeviceStatus) => {
            "a YubiHSM 2 and a strict device do not report which image they run"
        }
        DeviceError::StorageFailed => "`sshsm device storage` shows how full the device is",
        DeviceError::InsufficientPermissions if matches!(command, Command::SignSshCertificate) => {
            "signing needs the capability sign-ssh-certificate on the CA key and on the authentication key"
        }
        DeviceError::InsufficientPermissions => {
            "the authentication key, or the object, lacks a capability or a domain"
        }
        DeviceError::InvalidCommand
        | DeviceError::InvalidData
        | DeviceError::InvalidSession
        | DeviceError::AuthenticationFailed
        | DeviceError::SessionFailed
        | DeviceError::WrongLength
        | DeviceError::LogFull
        | DeviceError::InvalidId
        | DeviceError::SshCaConstraintViolation
        | DeviceError::InvalidOtp
        | DeviceError::DemoMode
        | DeviceError::AlgorithmDisabled
        | DeviceError::NothingToTouch
        | DeviceError::NoBootLoader => return None,
    })
}

impl ClientError {
    /// Whether the session in which it happened has ended; after a refusal by the device the session
    /// continues.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        !matches!(self, Self::Device { .. } | Self::UndefinedError { .. } | Self::TooLong { .. })
    }

    /// Whether the device may have carried out the command anyway: it may have been sent, and what arrived is
    /// not known to be the device's answer.
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
            | Self::Unreachable(_)
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
