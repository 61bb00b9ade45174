//! The line between the device core and what it runs on.
//!
//! A board, the simulator and the tests each implement [`Platform`], and nothing else of theirs is known here.

use core::time::Duration;

use embedded_storage::nor_flash::MultiwriteNorFlash;
use rand_core::CryptoRng;
use sshsm_protocol::device_status::Image;
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Command, DeviceError};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::Provider;
use crate::ssh::policy::Decision;

/// The secret that everything in the flash is sealed under.
///
/// The store derives its keys from it and keeps those alone; see [`store`](crate::store) for what sealing is worth
/// and what it is not.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RootKey([u8; Self::LENGTH]);

impl RootKey {
    /// Bytes.
    pub const LENGTH: usize = 32;

    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Something the device wants to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// Draw attention to this device (BLINK DEVICE).
    Blink {
        /// For how long.
        duration: Duration,
    },
}

/// Whether somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Somebody has touched the device.
    Confirmed,
    /// Nobody has, in time.
    TimedOut,
    /// The platform has nothing to touch.
    Unsupported,
}

/// What a platform is, as far as a device says it to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The board's name, at most [`MAX_BOARD`](sshsm_protocol::device_status::MAX_BOARD) bytes.
    pub board: &'static str,
    /// The image that runs, where the platform knows it.
    pub image: Option<Image>,
    /// Whether [`Platform::confirm_presence`] can ever confirm anything.
    pub button: bool,
    /// Whether it can start a boot loader: see [`Boot::BootLoader`].
    pub boot_loader: bool,
}

/// What a device starts when it starts again: see [`Device::restart`](crate::Device::restart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The firmware.
    Firmware,
    /// The board's boot loader, which takes a new firmware, and may show all that is in flash.
    BootLoader,
}

/// What the device core runs on.
///
/// [`Device::start`](crate::Device::start) takes the platform and its flash and owns both; the platform's
/// methods are called only while a message is being handled, never at the same time as each other.
pub trait Platform {
    /// NOR flash for objects: programming only clears bits, a word may be programmed twice. See
    /// [`store`](crate::store) for the geometry it needs.
    type Flash: MultiwriteNorFlash;
    /// A cryptographic generator. One that can fail must stop the device rather than return weak bytes.
    type Entropy: CryptoRng;
    /// Who computes signatures.
    type Crypto: Provider;

    /// The serial number that clients see; not 0, and always the same for this device.
    fn serial(&self) -> u32;

    /// The secret that the flash is sealed under, asked for once, at start. A platform promises that it has 256 bits
    /// that nobody can guess, that it belongs to this device alone, and that it is the same at every start for as long
    /// as the flash is to be read: under another one the device refuses to start. It must exist before the flash is
    /// first written. Where it is kept decides what sealing is worth: in fuses or a secure element, a copy of the
    /// flash is useless without the chip; in the same flash, sealing stops nobody who can read that flash.
    fn root_key(&mut self) -> RootKey;

    /// Time since start; never goes back. Only differences are used, to expire idle sessions.
    fn uptime(&mut self) -> Duration;

    /// What this is. The image's hash is computed here if it has not been before.
    fn describe(&mut self) -> Description;

    /// The generator for keys, challenges, nonces and blinding.
    fn entropy(&mut self) -> &mut Self::Entropy;

    /// Shows something; the default does nothing, for platforms without a light.
    fn indicate(&mut self, indication: Indication) {
        let _ = indication;
    }

    /// Waits for somebody to touch the device, no longer than `timeout`, and shows that it waits. Only a touch that
    /// begins after the call counts. The default is for platforms with nothing to touch.
    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        let _ = timeout;
        Presence::Unsupported
    }

    /// Which tags templates may have, and whether there are commands beyond YubiHSM 2's. The default knows all, unless the
    /// firmware is built with the feature `strict-yubihsm2`.
    fn dialect(&self) -> Dialect {
        if crate::STRICT { Dialect::Yubihsm2 } else { Dialect::Extended }
    }

    /// Learns how a command ended, for logs; the default ignores it. Messages that are no command at all, or whose
    /// session does not exist, are not among them.
    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        let _ = (command, outcome);
    }

    /// Learns of a decision about a certificate, before it takes effect; the default ignores it.
    fn decided(&mut self, decision: &Decision<'_>) {
        let _ = decision;
    }
}
