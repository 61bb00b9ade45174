//! The single error byte that a device answers with.

/// A device error code (YubiHSM 2's numbering up to 0x3f, where 0x0d is undefined and never sent; extensions
/// above that).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum DeviceError {
    /// Unknown or unsupported command, or one sent over the wrong channel.
    #[error("invalid command")]
    InvalidCommand = 0x01,
    /// A malformed or unacceptable value.
    #[error("invalid data")]
    InvalidData = 0x02,
    /// The session does not exist, has expired or was closed.
    #[error("invalid session")]
    InvalidSession = 0x03,
    /// Wrong cryptogram or message authentication code.
    #[error("authentication failed")]
    AuthenticationFailed = 0x04,
    /// All sessions are in use.
    #[error("sessions full")]
    SessionsFull = 0x05,
    /// The session could not be set up or its message could not be read.
    #[error("session failed")]
    SessionFailed = 0x06,
    /// No room for the object, or the flash failed.
    #[error("storage failed")]
    StorageFailed = 0x07,
    /// The payload has the wrong length.
    #[error("wrong length")]
    WrongLength = 0x08,
    /// A capability is missing on the session or the object, or a delegation was violated.
    #[error("insufficient permissions")]
    InsufficientPermissions = 0x09,
    /// The audit log is full and auditing is forced.
    #[error("log full")]
    LogFull = 0x0a,
    /// No such object, or none that shares a domain with the session.
    #[error("object not found")]
    ObjectNotFound = 0x0b,
    /// The object id cannot be used here.
    #[error("invalid id")]
    InvalidId = 0x0c,
    /// The SSH template does not allow the request.
    #[error("SSH CA constraint violation")]
    SshCaConstraintViolation = 0x0e,
    /// The one-time password could not be decrypted or does not match.
    #[error("invalid OTP")]
    InvalidOtp = 0x0f,
    /// The device is in demo mode and needs a power cycle.
    #[error("demo mode")]
    DemoMode = 0x10,
    /// An object with this type and id exists.
    #[error("object exists")]
    ObjectExists = 0x11,
    /// The algorithm has been switched off.
    #[error("algorithm disabled")]
    AlgorithmDisabled = 0x12,
    /// The option `user-presence` asks for a touch, and none came in time; nothing was done.
    #[error("the device was not touched in time")]
    PresenceTimeout = 0x40,
    /// The option `templates` has frozen the templates: none can be put, imported or deleted until the device
    /// is reset.
    #[error("templates are frozen until the device is reset")]
    TemplatesFrozen = 0x41,
    /// The command always requires a touch, and this device has no button.
    #[error("this device has no button")]
    NothingToTouch = 0x42,
    /// This device has no boot loader that it could start.
    #[error("this device cannot start a boot loader by itself")]
    NoBootLoader = 0x43,
}

impl DeviceError {
    const ALL: [Self; 21] = [
        Self::InvalidCommand,
        Self::InvalidData,
        Self::InvalidSession,
        Self::AuthenticationFailed,
        Self::SessionsFull,
        Self::SessionFailed,
        Self::StorageFailed,
        Self::WrongLength,
        Self::InsufficientPermissions,
        Self::LogFull,
        Self::ObjectNotFound,
        Self::InvalidId,
        Self::SshCaConstraintViolation,
        Self::InvalidOtp,
        Self::DemoMode,
        Self::ObjectExists,
        Self::AlgorithmDisabled,
        Self::PresenceTimeout,
        Self::TemplatesFrozen,
        Self::NothingToTouch,
        Self::NoBootLoader,
    ];

    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The error with this code, if one is defined.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }
}

/// A payload that does not have its fields has the wrong length.
impl From<crate::codec::CodecError> for DeviceError {
    fn from(error: crate::codec::CodecError) -> Self {
        match error {
            crate::codec::CodecError::Truncated { .. } | crate::codec::CodecError::Trailing { .. } => {
                Self::WrongLength
            }
            // An answer that cannot be delivered is refused like any other oversized request.
            crate::codec::CodecError::NoSpace { .. } => Self::WrongLength,
        }
    }
}
