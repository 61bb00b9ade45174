//! How a frame reaches a device: one request frame in, one response frame out.
//!
//! An exchange knows nothing about commands or sessions. It guarantees that what it returns is exactly one
//! frame of the length its header states, and it never repeats a request: a command may have changed the
//! device already.

use std::{error::Error, io};

use sshsm_protocol::{
    frame::{Frame, FrameError, MAX_MESSAGE},
    link::{LinkError, MIN_VERSION, VERSION},
};

use crate::failure::{Failure, Kind};

/// A road to one device.
pub trait Exchange: Send {
    /// Sends one frame (`code u8 ‖ length u16 ‖ payload`) and returns the frame the device answered with.
    ///
    /// # Errors
    /// When no answer arrived or the answer was not one whole frame. It is then unknown what the device did.
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError>;

    /// The device's address, in the form of `--device`.
    fn describe(&self) -> String;

    /// Another connection to the same device, which can be used while this one waits for an answer; `None` if
    /// there is only one.
    fn beside(&self) -> Option<Box<dyn Exchange>> {
        None
    }

    /// Whether the device is still there, as far as that can be determined without a command; returns its
    /// serial number if known.
    ///
    /// # Errors
    /// When it is not.
    fn check(&mut self) -> Result<Option<u32>, ExchangeError> {
        Ok(None)
    }
}

/// Why a frame did not reach a device, or its answer did not come back whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Nothing answers at that address.
    #[error("no device at {address}")]
    Unreachable {
        /// The address asked.
        address: String,
        /// The network error.
        source: io::Error,
    },
    /// An HTTP server answers there, but not a YubiHSM connector.
    #[error("{address} is not a YubiHSM connector: {reason}")]
    NotAConnector {
        /// The address asked.
        address: String,
        /// What its status page lacked.
        reason: String,
    },
    /// The connector runs and has no device.
    #[error("the connector at {address} has no device (its status is {status:?}, not \"OK\")")]
    NoDevice {
        /// The address asked.
        address: String,
        /// The status it reports.
        status: String,
    },
    /// The connector answered a frame with an HTTP error.
    #[error("the connector at {address} answered HTTP status {status}")]
    Status {
        /// The address asked.
        address: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to {address} broke during an exchange; whether the command ran is unknown")]
    Interrupted {
        /// The address asked.
        address: String,
        /// The network error.
        source: io::Error,
    },
    /// The program was told to stop while it waited for an answer.
    #[error("interrupted while {address} was waited for")]
    Stopped {
        /// The address asked.
        address: String,
    },
    /// The answer is not one frame: its header states another length than arrived.
    #[error("truncated answer from {address}")]
    Truncated {
        /// The address asked.
        address: String,
        /// Stated and received lengths.
        source: FrameError,
    },
    /// The answer is larger than any frame.
    #[error("the answer from {address} is larger than the largest frame ({MAX_MESSAGE} bytes)")]
    TooLarge {
        /// The address asked.
        address: String,
    },
    /// The system does not list its serial ports.
    #[error("cannot list the serial ports")]
    Enumeration(#[source] io::Error),
    /// `serial:` when no board is plugged in.
    #[error("no board is plugged in (USB identity 1209:0001, product \"sshsm\")")]
    NoBoard,
    /// `serial:` when several boards are plugged in.
    #[error("several boards are plugged in: {}; name one", .0.join(", "))]
    ManyBoards(Vec<String>),
    /// This user may not open the port.
    #[error("no permission to open the serial port {path}")]
    PortDenied {
        /// The port.
        path: String,
    },
    /// Another process has the port.
    #[error("the serial port {path} is in use by another program")]
    PortInUse {
        /// The port.
        path: String,
    },
    /// Something else is at the end of the port.
    #[error("{path} is not an sshsm device: {reason}")]
    NotADevice {
        /// The port.
        path: String,
        /// What was missing.
        reason: &'static str,
    },
    /// The board speaks the link in other versions.
    #[error(
        "the board at {path} speaks versions {minimum} to {version} of the link, and this program {MIN_VERSION} to {VERSION}"
    )]
    LinkVersion {
        /// The port.
        path: String,
        /// The oldest that the board speaks.
        minimum: u16,
        /// The newest.
        version: u16,
    },
    /// The board refuses to carry a message out.
    #[error("the board at {path} refuses")]
    Link {
        /// The port.
        path: String,
        /// Why.
        #[source]
        error: LinkError,
    },
    /// The device is in this process, and did not carry the exchange out.
    #[error("{device}")]
    InProcess {
        /// Which device.
        device: String,
        /// The device's error.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Failure for ExchangeError {
    fn kind(&self) -> Kind {
        Kind::Device
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { address, .. } if address.starts_with("serial:") => {
                "plug the board in; `sshsm device list` shows its port"
            }
            Self::Unreachable { .. } => "is sshsm-sim or yubihsm-connector running at that address?",
            Self::NoBoard => "plug a board in, or name its port: --device serial:PATH",
            Self::PortDenied { .. } => {
                "install the udev rule host/udev/70-sshsm.rules, then plug the board in again"
            }
            Self::PortInUse { .. } => "end the other program, or wait for it",
            Self::NotADevice { .. } => "`sshsm device list` shows the boards that are plugged in",
            Self::LinkVersion { .. } => "use the sshsm and the firmware of one release",
            Self::Link { error: LinkError::Failed, .. } => "`sshsm device log` shows why",
            Self::NotAConnector { .. } => "check host and port of --device or SSHSM_DEVICE",
            Self::NoDevice { .. } => "plug the device in, or restart the connector",
            Self::Interrupted { .. } => "look with `sshsm key list` before you repeat the command",
            Self::Link {
                error:
                    LinkError::UnsupportedVersion { .. }
                    | LinkError::UnknownRequest
                    | LinkError::Busy
                    | LinkError::WrongLength(_)
                    | LinkError::Withdrawn(_),
                ..
            }
            | Self::Status { .. }
            | Self::Stopped { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::Enumeration(_)
            | Self::ManyBoards(_)
            | Self::InProcess { .. } => return None,
        })
    }
}

impl ExchangeError {
    /// Whether nothing was there to be reached. No frame was sent then.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoBoard | Self::NoDevice { .. })
    }
}

/// Returns `answer` if it is exactly one frame.
///
/// # Errors
/// [`ExchangeError::Truncated`] if it is not; `address` names its source.
pub fn whole_frame(answer: Vec<u8>, address: &str) -> Result<Vec<u8>, ExchangeError> {
    match Frame::parse(&answer) {
        Ok(_) => Ok(answer),
        Err(source) => Err(ExchangeError::Truncated { address: address.to_owned(), source }),
    }
}
