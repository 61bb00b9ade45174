//! The device itself: its reports about itself, its light and its restart.

use sshsm_protocol::{Command, device_info::StorageInfo, device_status::DeviceStatus, message};

use crate::{
    error::{Result, nonsense},
    identity::Status,
    session::Session,
};

impl Session<'_> {
    /// Has the device repeat `data`.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn echo(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        self.send(Command::Echo, &message::Echo { data })
    }

    /// How full the device is.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn storage_info(&mut self) -> Result<StorageInfo> {
        let command = Command::GetStorageInfo;
        StorageInfo::decode(&self.command(command, &[])?).map_err(|error| nonsense(command, error))
    }

    /// `length` bytes from the device's random number generator.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn pseudo_random(&mut self, length: u16) -> Result<Vec<u8>> {
        let command = Command::GetPseudoRandom;
        let bytes = self.send(command, &message::GetPseudoRandom { length })?;
        if bytes.len() != usize::from(length) {
            return Err(nonsense(command, format!("{length} bytes were asked for, {} came", bytes.len())));
        }
        Ok(bytes)
    }

    /// Has the device blink for so many seconds.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn blink(&mut self, seconds: u8) -> Result<()> {
        self.ask_without_answer(Command::BlinkDevice, &message::BlinkDevice { seconds })
    }

    /// The device's report about itself and its sessions: the answer to GET DEVICE STATUS, which
    /// [`sshsm_protocol::device_status::DeviceStatus`] decodes.
    ///
    /// # Errors
    /// [`InvalidCommand`](sshsm_protocol::DeviceError::InvalidCommand) from a YubiHSM 2, and from a strict
    /// device.
    pub fn device_status(&mut self) -> Result<Status> {
        let command = Command::GetDeviceStatus;
        let answer = self.command(command, &[])?;
        let status = DeviceStatus::decode(&answer).map_err(|error| nonsense(command, error))?;
        Ok(Status {
            board: status.board.to_owned(),
            firmware: status.firmware,
            image: status.image,
            button: status.button,
            boot_loader: status.boot_loader,
            templates_frozen: status.templates_frozen,
            sessions: status.sessions,
            half_open: status.half_open,
            force_audit: status.force_audit,
            presence: status.presence,
            log: status.log,
        })
    }

    /// Restarts the device. Every session ends, including this one; objects are kept.
    ///
    /// # Errors
    /// [`InvalidCommand`](sshsm_protocol::DeviceError::InvalidCommand) from a YubiHSM 2, and from a strict
    /// device.
    pub fn restart(self) -> Result<()> {
        self.end_with(Command::RestartDevice)
    }

    /// Makes the device start its boot loader, after a touch. Every session ends.
    ///
    /// # Errors
    /// [`PresenceTimeout`](sshsm_protocol::DeviceError::PresenceTimeout) when there was no touch,
    /// [`NothingToTouch`](sshsm_protocol::DeviceError::NothingToTouch) and
    /// [`NoBootLoader`](sshsm_protocol::DeviceError::NoBootLoader) from devices that cannot;
    /// [`InvalidCommand`](sshsm_protocol::DeviceError::InvalidCommand) from a YubiHSM 2, and from a strict
    /// device.
    pub fn start_boot_loader(self) -> Result<()> {
        self.end_with(Command::StartBootLoader)
    }

    /// Deletes everything on the device, this session and the authentication keys included.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn reset(self) -> Result<()> {
        self.end_with(Command::ResetDevice)
    }
}
