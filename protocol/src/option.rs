//! Options: settings of the whole device, and the meaning of their values. Numbers and the order of the
//! commands are YubiHSM 2's (docs/protocol.md, "Options"), except that options from 0x80 are extensions.

/// An option's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceOption {
    /// Whether every command is logged, and refused when it cannot be: one [`AuditMode`].
    ForceAudit = 1,
    /// Which commands are logged: pairs of a command's code and an [`AuditMode`].
    CommandAudit = 3,
    /// Which algorithms may be used: pairs of an algorithm's number and an [`AlgorithmMode`].
    AlgorithmToggle = 4,
    /// FIPS mode.
    Fips = 5,
    /// When the device has to be touched: a [`UserPresence`].
    UserPresence = 0x80,
    /// Whether templates may still be put and deleted: one [`TemplateMode`].
    Templates = 0x81,
}

impl DeviceOption {
    /// The option with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::ForceAudit),
            3 => Some(Self::CommandAudit),
            4 => Some(Self::AlgorithmToggle),
            5 => Some(Self::Fips),
            0x80 => Some(Self::UserPresence),
            0x81 => Some(Self::Templates),
            _ => None,
        }
    }

    /// Whether it is an extension, which YubiHSM 2 does not have.
    #[must_use]
    pub const fn is_extension(self) -> bool {
        self.code() >= 0x80
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Whether something is audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditMode {
    /// It is not.
    #[default]
    Off = 0,
    /// It is.
    On = 1,
    /// It is, and only a reset ends that.
    Fix = 2,
}

impl AuditMode {
    /// The mode with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Off),
            1 => Some(Self::On),
            2 => Some(Self::Fix),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Whether an algorithm may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlgorithmMode {
    /// It may not.
    Off = 0,
    /// It may.
    On = 1,
    /// It may, and only a reset ends that.
    Fix = 2,
}

impl AlgorithmMode {
    /// The mode with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Off),
            1 => Some(Self::On),
            2 => Some(Self::Fix),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The operations for which the device has to be touched; each mode includes the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PresenceMode {
    /// Nothing.
    #[default]
    Off = 0,
    /// Each SSH certificate, and RESET DEVICE, which would end the option.
    Certificates = 1,
    /// Also each use of a private key: signatures, decryptions, key agreements, attestations and imports
    /// under an RSA wrap key; and each export.
    All = 2,
}

impl PresenceMode {
    /// Every mode, by ascending number.
    pub const ALL: [Self; 3] = [Self::Off, Self::Certificates, Self::All];

    /// The mode with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.code() == code)
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Its name, as tools take and print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Certificates => "certificates",
            Self::All => "all",
        }
    }
}

/// The value of [`DeviceOption::UserPresence`], `mode u8 ‖ timeout u8`. Changing it requires a touch as well,
/// unless both modes are off or nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserPresence {
    /// The operations that need a touch.
    pub mode: PresenceMode,
    /// Seconds that the device waits; not 0 unless the mode is off.
    pub timeout: u8,
}

impl UserPresence {
    /// Bytes on the wire.
    pub const LENGTH: usize = 2;
    /// The setting of a fresh device.
    pub const DEFAULT: Self = Self { mode: PresenceMode::Off, timeout: 15 };

    /// Reads a value; `None` if the mode is unknown or the time is zero.
    #[must_use]
    pub fn decode([mode, timeout]: [u8; Self::LENGTH]) -> Option<Self> {
        let mode = PresenceMode::from_code(mode)?;
        (mode == PresenceMode::Off || timeout > 0).then_some(Self { mode, timeout })
    }

    /// The value's bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::LENGTH] {
        [self.mode.code(), self.timeout]
    }
}

/// The value of [`DeviceOption::Templates`], one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TemplateMode {
    /// Anyone with the right capability may put and delete templates.
    #[default]
    Open = 0,
    /// Templates can no longer be put, imported, replaced or deleted; only a reset of the device ends that.
    Frozen = 1,
}

impl TemplateMode {
    /// Every mode, by ascending number.
    pub const ALL: [Self; 2] = [Self::Open, Self::Frozen];

    /// The mode with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.code() == code)
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Its name, as tools take and print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
        }
    }
}

/// The commands that the option `command-audit` lists, in its order: clients read it up to the first code that they
/// do not know. It names commands that this protocol does not have (07, 09), as the hardware's list does.
pub const AUDITED_COMMANDS: [u8; 65] = [
    0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x08, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x55,
    0x56, 0x48, 0x49, 0x57, 0x4a, 0x4b, 0x4c, 0x4d, 0x67, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x58,
    0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x68, 0x69, 0x6a,
    0x6b, 0x6c, 0x0a, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    #[test]
    fn every_command_can_be_audited_once() {
        for &command in Command::ALL {
            let places = AUDITED_COMMANDS.iter().filter(|&&code| code == command.code()).count();
            assert_eq!(places, usize::from(!command.is_extension()), "{command}");
        }
        let known = Command::ALL.iter().filter(|command| !command.is_extension()).count();
        assert_eq!(AUDITED_COMMANDS.len(), known + 2, "and codes 07 and 09");
    }
}
