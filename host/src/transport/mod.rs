//! How a frame reaches a device: one request frame in, one response frame out.
//!
//! A transport knows nothing of commands or sessions. It promises that what it returns is exactly one frame of the
//! length its header states, and it never repeats a request: a command may have changed the device already.

pub mod address;
pub mod connector;
pub mod simulator;

use std::{io, path::PathBuf};

use sshsm_protocol::frame::{Frame, FrameError, MAX_MESSAGE};

pub use address::DeviceAddress;

use crate::output::shown;

/// A road to one device.
pub trait Transport {
    /// Sends one frame (`code u8 ‖ length u16 ‖ payload`) and returns the frame the device answered with.
    ///
    /// # Errors
    /// When no answer came or the answer was not one whole frame. What the device did is then unknown.
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, TransportError>;

    /// Where the device is, in the words of `--device`.
    fn describe(&self) -> String;
}

/// Why a frame did not reach a device, or its answer did not come back whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody answers at that address.
    #[error("no device at {address}")]
    Unreachable {
        /// The address asked.
        address: String,
        /// What the network said.
        source: io::Error,
    },
    /// Somebody answers HTTP there, but not as a YubiHSM connector.
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
        /// What the network said.
        source: io::Error,
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
    /// `sim:` where no user's data directory is known.
    #[error(
        "neither XDG_DATA_HOME nor HOME is set to an absolute path; name the simulator's directory: sim:DIR"
    )]
    NoDataHome,
    /// The in-process simulator did not start or could not keep its state.
    #[error("simulator {}", shown(directory))]
    Simulator {
        /// Its state directory.
        directory: PathBuf,
        /// What it said.
        source: sshsm_simulator::SimulatorError,
    },
}

/// Returns `answer` when it is exactly one frame.
fn whole_frame(answer: Vec<u8>, address: &str) -> Result<Vec<u8>, TransportError> {
    match Frame::parse(&answer) {
        Ok(_) => Ok(answer),
        Err(source) => Err(TransportError::Truncated { address: address.to_owned(), source }),
    }
}
