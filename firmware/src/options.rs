//! The device's options: what is audited, which algorithms may be used, what requires a touch, and whether
//! templates are frozen. A change is stored before it takes effect; a reset reverts all options. Writing back
//! an option's current value, in whole or in part, always succeeds and changes nothing.
//!
//! No object of a disabled algorithm ever exists: algorithms can be toggled only while the default
//! authentication key is the only object, an algorithm that an object uses stays enabled, and creation asks
//! [`Options::permit`]. The remaining check when an object is used is
//! [`Core::read`](crate::commands::Core::read).
#![cfg_attr(not(feature = "audit"), allow(dead_code))] // nothing changes them there, but they are kept

use embedded_storage::nor_flash::MultiwriteNorFlash;
use sshsm_protocol::codec::{CodecError, Reader, Writer};
use sshsm_protocol::message::Algorithms;
use sshsm_protocol::option::{
    AUDITED_COMMANDS, AlgorithmMode, AuditMode, DeviceOption, TemplateMode, UserPresence,
};
use sshsm_protocol::{Algorithm, Command, DeviceError, ObjectId, ObjectType};

use crate::commands::device::algorithms;
use crate::store::{MountError, Record, Store};

#[derive(Clone)]
pub(crate) struct Options {
    force_audit: AuditMode,
    /// In the order of [`AUDITED_COMMANDS`].
    command_audit: [AuditMode; AUDITED_COMMANDS.len()],
    /// Bit n is set when algorithm n must not be used.
    disabled: u64,
    /// Bit n is set when algorithm n stays enabled.
    fixed: u64,
    presence: UserPresence,
    templates: TemplateMode,
}

impl Options {
    /// Stored as `force audit u8 ‖ command audit u8 … ‖ disabled u64 ‖ user presence[2] ‖ templates u8 ‖ fixed u64`.
    const LENGTH: usize = 1 + AUDITED_COMMANDS.len() + 8 + UserPresence::LENGTH + 1 + 8;

    /// The options of a fresh device.
    pub(crate) const DEFAULT: Self = Self {
        force_audit: AuditMode::Off,
        command_audit: [AuditMode::Off; AUDITED_COMMANDS.len()],
        disabled: 0,
        fixed: 0,
        presence: UserPresence::DEFAULT,
        templates: TemplateMode::Open,
    };

    pub(crate) fn load<F: MultiwriteNorFlash>(store: &mut Store<F>) -> Result<Self, MountError> {
        match store.record(Record::Options).map_err(|_| MountError::Flash)? {
            Some(value) => Self::decode(&value).map_err(|_| MountError::Damaged),
            None => Ok(Self::DEFAULT),
        }
    }

    /// Whether a command is refused rather than left out of the log.
    pub(crate) fn force_audit(&self) -> bool {
        self.force_audit != AuditMode::Off
    }

    /// Whether a command is logged. Reading the log never is; commands that end every session, and may expose
    /// the whole flash, always are; forced audit includes everything else except GET DEVICE INFO and GET
    /// DEVICE STATUS, which clients poll.
    pub(crate) fn audits(&self, command: Command) -> bool {
        let mode =
            AUDITED_COMMANDS.iter().zip(&self.command_audit).find(|(code, _)| **code == command.code());
        match command {
            Command::GetLogEntries | Command::GetDeviceStatus => false,
            Command::RestartDevice | Command::StartBootLoader => true,
            command if self.force_audit() && command != Command::GetDeviceInfo => true,
            _ => mode.is_some_and(|(_, mode)| *mode != AuditMode::Off),
        }
    }

    /// Whether an algorithm may be used: the only place where it is refused.
    pub(crate) fn permit(&self, algorithm: Algorithm) -> Result<(), DeviceError> {
        if self.disabled & bit(algorithm) == 0 { Ok(()) } else { Err(DeviceError::AlgorithmDisabled) }
    }

    /// Whether all of these may be used.
    pub(crate) fn permit_all(&self, algorithms: Algorithms) -> Result<(), DeviceError> {
        algorithms.into_iter().flatten().try_for_each(|algorithm| self.permit(algorithm))
    }

    fn algorithm(&self, algorithm: Algorithm) -> AlgorithmMode {
        match (self.disabled & bit(algorithm), self.fixed & bit(algorithm)) {
            (0, 0) => AlgorithmMode::On,
            (0, _) => AlgorithmMode::Fix,
            _ => AlgorithmMode::Off,
        }
    }

    /// Whether every command is logged, and whether that can be ended.
    pub(crate) fn force_audit_mode(&self) -> AuditMode {
        self.force_audit
    }

    /// The operations that require a touch.
    pub(crate) fn presence(&self) -> UserPresence {
        self.presence
    }

    /// Whether templates are frozen.
    pub(crate) fn templates_frozen(&self) -> bool {
        self.templates == TemplateMode::Frozen
    }

    /// Whether objects of this type may still be created and deleted: the only place that enforces frozen
    /// templates.
    pub(crate) fn permit_change(&self, object_type: ObjectType) -> Result<(), DeviceError> {
        match (object_type, self.templates) {
            (ObjectType::Template, TemplateMode::Frozen) => Err(DeviceError::TemplatesFrozen),
            _ => Ok(()),
        }
    }

    /// Writes an option's value.
    pub(crate) fn get(&self, option: DeviceOption, writer: &mut Writer<'_>) -> Result<(), DeviceError> {
        match option {
            DeviceOption::ForceAudit => writer.u8(self.force_audit.code())?,
            DeviceOption::CommandAudit => {
                for (code, mode) in AUDITED_COMMANDS.iter().zip(self.command_audit) {
                    writer.bytes(&[*code, mode.code()])?;
                }
            }
            DeviceOption::AlgorithmToggle => {
                for algorithm in algorithms() {
                    writer.bytes(&[algorithm.code(), self.algorithm(algorithm).code()])?;
                }
            }
            DeviceOption::UserPresence => writer.bytes(&self.presence.encode())?,
            DeviceOption::Templates => writer.u8(self.templates.code())?,
            DeviceOption::Fips => return Err(DeviceError::InvalidData),
        }
        Ok(())
    }

    /// Changes an option, wholly or not at all.
    pub(crate) fn set<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        option: DeviceOption,
        value: &[u8],
    ) -> Result<(), DeviceError> {
        let mut changed = self.clone();
        match option {
            DeviceOption::ForceAudit => {
                let [mode] = *value else { return Err(DeviceError::InvalidData) };
                change(&mut changed.force_audit, mode)?;
            }
            DeviceOption::CommandAudit => {
                for [code, mode] in pairs(value)? {
                    // The content of a session message is logged, the message itself is not: it is off.
                    if *code == Command::SessionMessage.code() && *mode != AuditMode::Off.code() {
                        return Err(DeviceError::InvalidData);
                    }
                    let place = AUDITED_COMMANDS.iter().position(|listed| listed == code);
                    let current = place.and_then(|place| changed.command_audit.get_mut(place));
                    change(current.ok_or(DeviceError::InvalidData)?, *mode)?;
                }
            }
            DeviceOption::AlgorithmToggle => {
                let default = (ObjectType::AuthenticationKey, ObjectId::DEFAULT_AUTHENTICATION_KEY);
                let fresh = store.iter().all(|info| (info.object_type, info.id) == default);
                for [code, mode] in pairs(value)? {
                    let algorithm = algorithms()
                        .find(|algorithm| algorithm.code() == *code)
                        .ok_or(DeviceError::InvalidData)?;
                    let mode = AlgorithmMode::from_code(*mode).ok_or(DeviceError::InvalidData)?;
                    let in_use = store.iter().any(|info| info.algorithm == algorithm);
                    match (changed.algorithm(algorithm), mode) {
                        (current, mode) if current == mode => {}
                        (AlgorithmMode::Fix, _) => return Err(DeviceError::InvalidData),
                        _ if !fresh => return Err(DeviceError::InvalidData),
                        (_, AlgorithmMode::Off) if in_use => return Err(DeviceError::InvalidData),
                        (_, AlgorithmMode::Off) => changed.disabled |= bit(algorithm),
                        (_, AlgorithmMode::On) => changed.disabled &= !bit(algorithm),
                        (_, AlgorithmMode::Fix) => {
                            changed.disabled &= !bit(algorithm);
                            changed.fixed |= bit(algorithm);
                        }
                    }
                }
            }
            DeviceOption::UserPresence => changed.presence = presence(value)?,
            DeviceOption::Templates => {
                changed.templates = templates(value)?;
                if self.templates == TemplateMode::Frozen && changed.templates != TemplateMode::Frozen {
                    return Err(DeviceError::InvalidData);
                }
            }
            DeviceOption::Fips => return Err(DeviceError::InvalidData),
        }
        let mut bytes = [0; Self::LENGTH];
        changed.encode(&mut Writer::new(&mut bytes))?;
        store.put_record(Record::Options, &bytes)?;
        *self = changed;
        Ok(())
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u8(self.force_audit.code())?;
        for mode in self.command_audit {
            writer.u8(mode.code())?;
        }
        writer.bytes(&self.disabled.to_be_bytes())?;
        writer.bytes(&self.presence.encode())?;
        writer.u8(self.templates.code())?;
        writer.bytes(&self.fixed.to_be_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DeviceError> {
        let mut reader = Reader::new(bytes);
        let mut mode = || AuditMode::from_code(reader.u8()?).ok_or(DeviceError::InvalidData);
        let mut options = Self { force_audit: mode()?, ..Self::DEFAULT };
        for place in &mut options.command_audit {
            *place = mode()?;
        }
        options.disabled = reader.u64()?;
        options.presence = presence(reader.take(UserPresence::LENGTH)?)?;
        // Earlier firmware stored nothing after this.
        if reader.remaining() > 0 {
            options.templates = templates(reader.take(1)?)?;
            options.fixed = reader.u64()?;
            reader.finish()?;
        }
        Ok(options)
    }
}

fn bit(algorithm: Algorithm) -> u64 {
    1 << algorithm.code()
}

/// The value of the option `user-presence`.
pub(crate) fn presence(value: &[u8]) -> Result<UserPresence, DeviceError> {
    value.try_into().ok().and_then(UserPresence::decode).ok_or(DeviceError::InvalidData)
}

/// The value of the option `templates`.
fn templates(value: &[u8]) -> Result<TemplateMode, DeviceError> {
    match *value {
        [mode] => TemplateMode::from_code(mode).ok_or(DeviceError::InvalidData),
        _ => Err(DeviceError::InvalidData),
    }
}

fn pairs(value: &[u8]) -> Result<&[[u8; 2]], DeviceError> {
    match value.as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(DeviceError::InvalidData),
    }
}

/// A fixed setting is changed only by a reset.
fn change(current: &mut AuditMode, mode: u8) -> Result<(), DeviceError> {
    let mode = AuditMode::from_code(mode).ok_or(DeviceError::InvalidData)?;
    if *current == AuditMode::Fix && mode != AuditMode::Fix {
        return Err(DeviceError::InvalidData);
    }
    *current = mode;
    Ok(())
}
