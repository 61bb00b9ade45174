//! Whether somebody has to touch the device: the one place where the option `user-presence` is obeyed.
//!
//! The touch comes last: a command that is refused for any other reason of policy asks nobody.

use core::time::Duration;

use sshsm_protocol::DeviceError;
use sshsm_protocol::option::{PresenceMode, UserPresence};

use crate::platform::{Platform, Presence};

/// Waits for a touch before a private key is used, if the option is set to `least` or to more.
#[cfg(feature = "private-keys")]
pub(crate) fn confirm<P: Platform>(
    platform: &mut P,
    presence: UserPresence,
    least: PresenceMode,
) -> Result<(), DeviceError> {
    if presence.mode < least { Ok(()) } else { touch(platform, presence) }
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
/// no more than a session cannot end it.
#[cfg(feature = "audit")]
pub(crate) fn confirm_change<P: Platform>(
    platform: &mut P,
    from: UserPresence,
    to: UserPresence,
) -> Result<(), DeviceError> {
    touch(platform, if to.mode == PresenceMode::Off { from } else { to })
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
