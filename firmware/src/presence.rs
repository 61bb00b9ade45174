//! Whether somebody has to touch the device: the one place where the option `user-presence` is obeyed.
//!
//! The touch comes last: a command that is refused for any other reason of policy asks nobody.
#![allow(dead_code)] // each family needs a part

use core::time::Duration;

use sshsm_protocol::DeviceError;
use sshsm_protocol::option::{PresenceMode, UserPresence};

use crate::platform::{Platform, Presence};

/// What a private key is about to be used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    SshCertificate,
    Other,
}

/// Waits for a touch if the option asks for one before such a use.
pub(crate) fn confirm<P: Platform>(
    platform: &mut P,
    presence: UserPresence,
    used: Use,
) -> Result<(), DeviceError> {
    match presence.mode {
        PresenceMode::Certificates if used != Use::SshCertificate => Ok(()),
        _ => touch(platform, presence),
    }
}

/// Waits for a touch before the option changes: so it is only ever in force on a device that can ask, and whoever has
/// no more than a session cannot end it.
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
