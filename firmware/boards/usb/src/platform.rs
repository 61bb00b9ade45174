//! The board with a USB port that the device core runs on, in terms of the few differences between such
//! boards.

use core::time::Duration;

use embassy_time::{Duration as Span, block_for};
use embedded_storage::nor_flash::MultiwriteNorFlash;
use sshsm_board::entropy::{Entropy, Noise};
use sshsm_board::health::Unhealthy;
use sshsm_board::secret::Secret;
use sshsm_board::{image, link, touch};
use sshsm_firmware::crypto::Provider;
use sshsm_firmware::platform::{Description, Indication, Presence, RootKey};
use sshsm_protocol::{Command, DeviceError};
use zeroize::Zeroize as _;

use crate::{SEND, show, uptime};

/// What is needed from a chip.
pub trait Hardware {
    /// The part of its flash that the store has.
    type Flash: MultiwriteNorFlash;
    /// Its source of noise.
    type Noise: Noise;
    /// The implementation of signatures on it.
    type Crypto: Provider;

    /// Whether the button is held down.
    fn pressed(&mut self) -> bool;
}

/// A board's platform.
pub struct Platform<H: Hardware> {
    hardware: H,
    entropy: Entropy<H::Noise>,
    serial: u32,
    root_key: Secret,
}

/// Stops the device when its noise source fails.
pub fn stop(unhealthy: Unhealthy) -> ! {
    panic!("{unhealthy}")
}

impl<H: Hardware> Platform<H> {
    /// The platform of the chip with this serial number.
    pub fn new(hardware: H, entropy: Entropy<H::Noise>, serial: u32, root_key: Secret) -> Self {
        Self { hardware, entropy, serial, root_key }
    }
}

impl<H: Hardware> sshsm_firmware::Platform for Platform<H> {
    type Flash = H::Flash;
    type Entropy = Entropy<H::Noise>;
    type Crypto = H::Crypto;

    fn serial(&self) -> u32 {
        self.serial
    }

    fn root_key(&mut self) -> RootKey {
        let key = RootKey::from_bytes(*self.root_key);
        self.root_key.zeroize(); // requested once
        key
    }

    fn uptime(&mut self) -> Duration {
        uptime()
    }

    fn describe(&mut self) -> Description {
        let image = Some(image::running());
        Description { board: link::board(), image, button: true, boot_loader: true }
    }

    fn entropy(&mut self) -> &mut Entropy<H::Noise> {
        &mut self.entropy
    }

    fn indicate(&mut self, indication: Indication) {
        match indication {
            Indication::Blink { duration } => show(duration),
        }
    }

    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        touch::confirm(&mut Button(&mut self.hardware), timeout)
    }

    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        link::handled(command, outcome);
    }
}

/// The board's button.
struct Button<'h, H>(&'h mut H);

impl<H: Hardware> touch::Button for Button<'_, H> {
    fn pressed(&mut self) -> bool {
        self.0.pressed()
    }

    fn pause(&mut self) {
        block_for(Span::from_millis(10)); // contacts bounce for less
    }

    fn uptime(&mut self) -> Duration {
        uptime()
    }

    fn send(&mut self) {
        SEND.signal(());
    }
}
