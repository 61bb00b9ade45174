//! Whether the device has to be touched: the only place that enforces the option `user-presence`, and the
//! touches that are always required.
//!
//! [`least`] says for every command whether it waits. The touch comes last: a command that is refused for any
//! other reason of policy does not ask for one. If the object is inside data that a private key unwraps, the
//! touch comes before that key is used.

use core::time::Duration;

use sshsm_protocol::option::{PresenceMode, UserPresence};
use sshsm_protocol::{Command, DeviceError};

use crate::platform::{Platform, Presence};

/// The least setting of the option under which a command waits for a touch; `None` for those that never do.
///
/// Every use of a private key and every export waits, and so does anything that ends the option. (SET OPTION
/// waits when this option changes: [`confirm_change`].) A new command has to be classified here.
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

/// Waits for a touch before a command takes effect, if the option requires one.
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

/// The option's setting, or a higher one if a template requires a touch.
#[cfg(feature = "ssh")]
pub(crate) fn at_least(option: UserPresence, asked: bool) -> UserPresence {
    if !asked || option.mode >= PresenceMode::Certificates {
        return option;
    }
    let timeout = if option.timeout == 0 { UserPresence::DEFAULT.timeout } else { option.timeout };
    UserPresence { mode: PresenceMode::Certificates, timeout }
}

/// Waits for a touch before the option changes: so it is only ever in force on a device with a button, and a
/// client with just a session cannot end it. Setting the current value changes nothing.
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

/// Waits for a touch whatever the option says, for the option's timeout: before a boot loader starts, which
/// may expose everything. A device without a button reports that and refuses.
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
