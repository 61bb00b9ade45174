//! The interface between the device core and the platform it runs on.
//!
//! A board, the simulator and the tests each implement [`Platform`]; the core knows nothing else about them.

use core::time::Duration;

use embedded_storage::nor_flash::MultiwriteNorFlash;
use rand_core::CryptoRng;
use sshsm_protocol::device_status::Image;
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Command, DeviceError};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::Provider;
use crate::ssh::policy::Decision;

/// The secret under which everything in the flash is sealed.
///
/// The store derives its keys from it and keeps only those; see [`store`](crate::store) for what sealing
/// protects and what it does not.
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

/// A state that the device indicates visibly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// Draw attention to this device (BLINK DEVICE).
    Blink {
        /// For how long.
        duration: Duration,
    },
}

/// Whether the device was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The device was touched.
    Confirmed,
    /// It was not touched in time.
    TimedOut,
    /// The platform has nothing to touch.
    Unsupported,
}

/// The description of a platform that a device gives its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The board's name, at most [`MAX_BOARD`](sshsm_protocol::device_status::MAX_BOARD) bytes.
    pub board: &'static str,
    /// The running image, if the platform knows it.
    pub image: Option<Image>,
    /// Whether [`Platform::confirm_presence`] can ever confirm anything.
    pub button: bool,
    /// Whether it can start a boot loader: see [`Boot::BootLoader`].
    pub boot_loader: bool,
}

/// What a device starts on a restart: see [`Device::restart`](crate::Device::restart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The firmware.
    Firmware,
    /// The board's boot loader, which accepts new firmware and may expose everything in flash.
    BootLoader,
}

/// The platform that the device core runs on.
///
/// [`Device::start`](crate::Device::start) takes the platform and its flash and owns both; the platform's
/// methods are called only while a message is being handled, never at the same time as each other.
pub trait Platform {
    /// NOR flash for objects: programming only clears bits, a word may be programmed twice. See
    /// [`store`](crate::store) for the geometry it needs.
    type Flash: MultiwriteNorFlash;
    /// A cryptographic generator. One that can fail must stop the device rather than return weak bytes.
    type Entropy: CryptoRng;
    /// The implementation of signatures.
    type Crypto: Provider;

    /// The serial number that clients see; not 0, and always the same for this device.
    fn serial(&self) -> u32;

    /// The secret under which the flash is sealed, requested once, at start. A platform guarantees that it
    /// has 256 bits of entropy, that it belongs to this device alone, and that it is the same at every start
    /// for as long as the flash is to be readable: under a different one the device refuses to start. It must
    /// exist before the flash is first written. Its location determines what sealing is worth: if it is in
    /// fuses or a secure element, a copy of the flash is useless without the chip; if it is in the same
    /// flash, sealing does not stop anyone who can read that flash.
    fn root_key(&mut self) -> RootKey;

    /// Time since start; never goes back. Only differences are used, to expire idle sessions.
    fn uptime(&mut self) -> Duration;

    /// Describes the platform. The image's hash is computed here on first use.
    fn describe(&mut self) -> Description;

    /// The generator for keys, challenges, nonces and blinding.
    fn entropy(&mut self) -> &mut Self::Entropy;

    /// Shows something; the default does nothing, for platforms without a light.
    fn indicate(&mut self, indication: Indication) {
        let _ = indication;
    }

    /// Waits at most `timeout` for a touch, and shows that it waits. Only a touch that begins after the call
    /// counts. The default is for platforms without a button.
    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        let _ = timeout;
        Presence::Unsupported
    }

    /// Which tags templates may have, and whether there are commands beyond YubiHSM 2's. By default
    /// everything is known, unless the firmware is built with the feature `strict-yubihsm2`.
    fn dialect(&self) -> Dialect {
        if crate::STRICT { Dialect::Yubihsm2 } else { Dialect::Extended }
    }

    /// Receives the outcome of a command, for logs; the default ignores it. Messages that are not a command
    /// at all, or whose session does not exist, are not reported.
    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        let _ = (command, outcome);
    }

    /// Receives a decision about a certificate before it takes effect; the default ignores it.
    fn decided(&mut self, decision: &Decision<'_>) {
        let _ = decision;
    }
}
