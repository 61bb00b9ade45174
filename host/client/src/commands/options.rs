//! The device's options.

use sshsm_protocol::{
    Command, message,
    option::{AuditMode, DeviceOption, TemplateMode, UserPresence},
};

use crate::{
    error::{Result, nonsense},
    session::Session,
};

impl Session<'_> {
    /// The value of an option in its wire form.
    ///
    /// # Errors
    /// [`InvalidData`](sshsm_protocol::DeviceError::InvalidData) when the device does not have the option.
    pub fn option(&mut self, option: DeviceOption) -> Result<Vec<u8>> {
        self.send(Command::GetOption, &message::GetOption { option: option.code() })
    }

    /// When the device has to be touched.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn user_presence(&mut self) -> Result<UserPresence> {
        let value = self.option(DeviceOption::UserPresence)?;
        let presence = value.as_slice().try_into().ok().and_then(UserPresence::decode);
        presence.ok_or_else(|| nonsense(Command::GetOption, "there is no such mode of user presence"))
    }

    /// Changes when the device has to be touched, which requires a touch itself.
    ///
    /// # Errors
    /// [`InvalidData`](sshsm_protocol::DeviceError::InvalidData) when the device has no button,
    /// [`PresenceTimeout`](sshsm_protocol::DeviceError::PresenceTimeout) when there was no touch.
    pub fn set_user_presence(&mut self, presence: UserPresence) -> Result<()> {
        self.set_option(DeviceOption::UserPresence, &presence.encode())
    }

    /// Whether templates may still be added and deleted.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn templates(&mut self) -> Result<TemplateMode> {
        let value = self.option(DeviceOption::Templates)?;
        let mode = value.as_slice().try_into().ok().and_then(|[code]: [u8; 1]| TemplateMode::from_code(code));
        mode.ok_or_else(|| nonsense(Command::GetOption, "there is no such mode of templates"))
    }

    /// Freezes the templates: none can be put, imported or deleted until the device is reset. This cannot be
    /// undone otherwise.
    ///
    /// # Errors
    /// [`InvalidData`](sshsm_protocol::DeviceError::InvalidData) when the device does not have the option.
    pub fn freeze_templates(&mut self) -> Result<()> {
        self.set_option(DeviceOption::Templates, &[TemplateMode::Frozen.code()])
    }

    /// Changes whether every command is logged, and refused when it cannot be.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn set_force_audit(&mut self, mode: AuditMode) -> Result<()> {
        self.set_option(DeviceOption::ForceAudit, &[mode.code()])
    }

    /// The commands that the device can log, by their codes, and whether it does.
    ///
    /// # Errors
    /// As [`Session::option`].
    pub fn command_audit(&mut self) -> Result<Vec<(u8, AuditMode)>> {
        let value = self.option(DeviceOption::CommandAudit)?;
        let pair = |pair: &[u8]| match pair {
            &[code, mode] => AuditMode::from_code(mode).map(|mode| (code, mode)),
            _ => None,
        };
        let pairs: Option<Vec<_>> = value.chunks(2).map(pair).collect();
        pairs.ok_or_else(|| nonsense(Command::GetOption, "it is not a list of commands"))
    }

    /// Changes whether commands, named by their codes, are logged.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn set_command_audit(&mut self, commands: &[(u8, AuditMode)]) -> Result<()> {
        let value: Vec<u8> = commands.iter().flat_map(|&(code, mode)| [code, mode.code()]).collect();
        self.set_option(DeviceOption::CommandAudit, &value)
    }

    fn set_option(&mut self, option: DeviceOption, value: &[u8]) -> Result<()> {
        self.ask_without_answer(Command::SetOption, &message::SetOption::new(option, value))
    }
}
