//! What a device reports about itself.

use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Command,
    audit::LogMark,
    device_info::{DeviceInfo, Version},
    device_status::Image,
    frame::{HEADER_LENGTH, SESSION_OVERHEAD},
    option::{AuditMode, UserPresence},
};

use crate::{
    error::{Result, nonsense},
    exchange::Exchange,
    plain::plain,
};

/// A device's report about itself.
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
    /// Algorithms it supports; unknown numbers are left out.
    pub algorithms: Vec<Algorithm>,
}

impl Identity {
    /// Asks the device at the end of `exchange`.
    pub(crate) fn ask(exchange: &mut dyn Exchange) -> Result<Self> {
        let command = Command::GetDeviceInfo;
        let payload = plain(exchange, command, &[])?;
        let info = DeviceInfo::decode(&payload).map_err(|error| nonsense(command, error))?;
        Ok(Identity {
            version: info.version,
            serial: info.serial,
            log_total: info.log_total,
            log_used: info.log_used,
            algorithms: info.algorithms.iter().filter_map(|&code| Algorithm::from_code(code)).collect(),
        })
    }

    /// The largest payload, in bytes, of a command inside a session.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        let ciphertext = (self.version.max_message() - SESSION_OVERHEAD) / 16 * 16;
        // The inner header and at least one byte of padding.
        ciphertext - HEADER_LENGTH - 1
    }
}

/// A device's report about itself within a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The board's name.
    pub board: String,
    /// The version of the sshsm firmware: major, minor, patch.
    pub firmware: [u8; 3],
    /// The running image, as reported; `None` if the device does not know it.
    pub image: Option<Image>,
    /// Whether there is something to touch.
    pub button: bool,
    /// Whether it can start a boot loader.
    pub boot_loader: bool,
    /// Whether templates are frozen.
    pub templates_frozen: bool,
    /// Sessions whose host has authenticated, including this one.
    pub sessions: u8,
    /// Sessions that were begun and not authenticated.
    pub half_open: u8,
    /// Whether every command is logged.
    pub force_audit: AuditMode,
    /// The operations that need a touch.
    pub presence: UserPresence,
    /// The newest entry of the audit log; `None` from firmware that does not report it.
    pub log: Option<LogMark>,
}

/// A device's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePublicKey {
    /// Its algorithm.
    pub algorithm: AsymmetricAlgorithm,
    /// RSA modulus, `X‖Y`, or the 32 bytes of Ed25519; as long as the algorithm requires.
    pub bytes: Vec<u8>,
}
