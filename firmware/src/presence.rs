//! Whether somebody has to touch the device: the one place where the option `user-presence` is obeyed, and where what
//! always wants a touch gets it.
//!
//! [`least`] says of every command what waits. The touch comes last: a command that is refused for any other reason of
//! policy asks nobody. Where the object is inside what a private key unwraps, the touch comes before that key is used.

use core::time::Duration;

use sshsm_protocol::option::{PresenceMode, UserPresence};
use sshsm_protocol::{Command, DeviceError};

use crate::platform::{Platform, Presence};

/// The least setting of the option under which a command waits for a touch; `None` for those that never do.
///
/// What waits is every use of a private key and every way out of the device, and what ends the option. (SET OPTION waits
/// when it is this option that changes: [`confirm_change`].) A new command has to be decided here.
const fn least(command: Command) -> Option<PresenceMode> {
    match command {
        // A reset ends the option.
        Command::SignSshCertificate | Command::ResetDevice => Some(PresenceMode::Certificates),
        Command::SignPkcs1
        | Command::SignPss
        | Command::SignEcdsa
        | Command::SignEddsa
        | Command::DecryptPkcs1
        | Command::DecryptOaep
        | Command::DeriveEcdh
        | Command::SignAttestationCertificate
        // Ways out.
        | Command::ExportWrapped
        | Command::GetRsaWrappedKey
        | Command::ExportRsaWrapped
        // They use the private half of an RSA wrap key.
        | Command::PutRsaWrappedKey
        | Command::ImportRsaWrapped => Some(PresenceMode::All),
        Command::Echo
        | Command::CreateSession
        | Command::AuthenticateSession
        | Command::SessionMessage
        | Command::GetDeviceInfo
        | Command::GetDevicePublicKey
        | Command::CloseSession
        | Command::GetStorageInfo
        | Command::PutOpaque
        | Command::GetOpaque
        | Command::PutAuthenticationKey
        | Command::PutAsymmetricKey
        | Command::GenerateAsymmetricKey
        | Command::ListObjects
        | Command::ImportWrapped
        | Command::PutWrapKey
        | Command::GetLogEntries
        | Command::GetObjectInfo
        | Command::SetOption
        | Command::GetOption
        | Command::GetPseudoRandom
        | Command::PutHmacKey
        | Command::SignHmac
        | Command::GetPublicKey
        | Command::DeleteObject
        | Command::GenerateHmacKey
        | Command::GenerateWrapKey
        | Command::VerifyHmac
        | Command::PutTemplate
        | Command::GetTemplate
        | Command::DecryptOtp
        | Command::CreateOtpAead
        | Command::RandomizeOtpAead
        | Command::RewrapOtpAead
        | Command::PutOtpAeadKey
        | Command::GenerateOtpAeadKey
        | Command::SetLogIndex
        | Command::WrapData
        | Command::UnwrapData
        | Command::BlinkDevice
        | Command::ChangeAuthenticationKey
        | Command::PutSymmetricKey
        | Command::GenerateSymmetricKey
        | Command::DecryptEcb
        | Command::EncryptEcb
        | Command::DecryptCbc
        | Command::EncryptCbc
        | Command::PutPublicWrapKey
        | Command::RestartDevice
        | Command::GetDeviceStatus
        | Command::ExplainSshRequest
        // It waits whatever the option says: `insist`.
        | Command::StartBootLoader => None,
    }
}

/// Waits for a touch before a command does what it is for, if the option asks for one.
pub(crate) fn confirm<P: Platform>(
    platform: &mut P,
    presence: UserPresence,
    command: Command,
) -> Result<(), DeviceError> {
    match least(command) {
        Some(least) if presence.mode >= least => touch(platform, presence),
        _ => Ok(()),
    }
}

/// The option, or more where a template asks for a touch by itself.
#[cfg(feature = "ssh")]
pub(crate) fn at_least(option: UserPresence, asked: bool) -> UserPresence {
    if !asked || option.mode >= PresenceMode::Certificates {
        return option;
    }
    let timeout = if option.timeout == 0 { UserPresence::DEFAULT.timeout } else { option.timeout };
    UserPresence { mode: PresenceMode::Certificates, timeout }
}

/// Waits for a touch before the option changes: so it is only ever in force on a device that can ask, and whoever has
/// no more than a session cannot end it. Setting what is set changes nothing.
#[cfg(feature = "audit")]
pub(crate) fn confirm_change<P: Platform>(
    platform: &mut P,
    from: UserPresence,
    to: UserPresence,
) -> Result<(), DeviceError> {
    if from == to {
        return Ok(());
    }
    touch(platform, if to.mode == PresenceMode::Off { from } else { to })
}

/// Waits for a touch whatever the option says, for as long as it says: before a boot loader starts, which may show
/// everything. A device with nothing to touch says so and does not.
pub(crate) fn insist<P: Platform>(platform: &mut P, presence: UserPresence) -> Result<(), DeviceError> {
    if !platform.describe().button {
        return Err(DeviceError::NothingToTouch);
    }
    let timeout = if presence.timeout == 0 { UserPresence::DEFAULT.timeout } else { presence.timeout };
    match platform.confirm_presence(Duration::from_secs(timeout.into())) {
        Presence::Confirmed => Ok(()),
        Presence::TimedOut => Err(DeviceError::PresenceTimeout),
        Presence::Unsupported => Err(DeviceError::NothingToTouch),
    }
}

fn touch<P: Platform>(platform: &mut P, presence: UserPresence) -> Result<(), DeviceError> {
    if presence.mode == PresenceMode::Off {
        return Ok(());
    }
    match platform.confirm_presence(Duration::from_secs(presence.timeout.into())) {
        Presence::Confirmed => Ok(()),
        Presence::TimedOut => Err(DeviceError::PresenceTimeout),
        Presence::Unsupported => Err(DeviceError::InvalidData),
    }
}
