//! The desktop as a board: the hardware that the device core runs on.

use core::time::Duration;

use sshsm_firmware::{
    crypto::RustCrypto,
    platform::{Description, Indication, Platform, Presence, RootKey},
    ssh::policy::Decision,
};
use sshsm_protocol::{Command, DeviceError, device_status::Image, ssh::template::Dialect};
use zeroize::Zeroizing;

use crate::{clock::Clock, entropy::Entropy, flash::Flash};

/// Sees every SSH signing decision with its verdict.
pub type Observer = Box<dyn FnMut(&Decision<'_>) + Send>;
/// Hears how every command ended.
pub type Listener = Box<dyn FnMut(Command, Result<(), DeviceError>) + Send>;
/// Receives what a board would show with its light.
pub type Indicator = Box<dyn FnMut(Indication) + Send>;

/// Waits at most this long for a touch, and returns the result.
pub type Touch = Box<dyn FnMut(Duration) -> Presence + Send>;

/// A root key, wiped when it is dropped.
pub(crate) type RootKeyBytes = Zeroizing<[u8; RootKey::LENGTH]>;

/// A board that the simulator plays, for tests of what talks to boards.
pub struct Played {
    /// Its name.
    pub board: &'static str,
    /// The image that it reports.
    pub image: Image,
    /// Called when its boot loader starts; the device is off from then on.
    pub boot_loader: Box<dyn FnMut() + Send>,
}

/// A desktop computer that is a board.
pub(crate) struct Desktop {
    pub(crate) serial: u32,
    pub(crate) root_key: RootKeyBytes,
    pub(crate) clock: Clock,
    pub(crate) powered_up: Duration, // the clock's reading then
    pub(crate) entropy: Entropy,
    pub(crate) observer: Observer,
    pub(crate) listener: Listener,
    pub(crate) indicator: Indicator,
    pub(crate) touch: Touch,
    pub(crate) dialect: Dialect,
    pub(crate) plays: Option<Played>,
}

impl Desktop {
    /// A desktop without an indicator.
    pub(crate) fn new(serial: u32, root_key: RootKeyBytes, clock: Clock, entropy: Entropy) -> Self {
        Self {
            serial,
            root_key,
            powered_up: clock.elapsed(),
            clock,
            entropy,
            observer: Box::new(|_| {}),
            listener: Box::new(|_, _| {}),
            indicator: Box::new(|_| {}),
            touch: Box::new(|_| Presence::Unsupported),
            dialect: Dialect::Extended,
            plays: None,
        }
    }
}

impl Platform for Desktop {
    type Flash = Flash;
    type Entropy = Entropy;
    type Crypto = RustCrypto;

    fn serial(&self) -> u32 {
        self.serial
    }

    fn root_key(&mut self) -> RootKey {
        RootKey::from_bytes(*self.root_key)
    }

    fn uptime(&mut self) -> Duration {
        self.clock.elapsed().saturating_sub(self.powered_up)
    }

    fn describe(&mut self) -> Description {
        match &self.plays {
            Some(Played { board, image, .. }) => {
                Description { board, image: Some(*image), button: true, boot_loader: true }
            }
            // The owner of a computer knows better what runs there than the program itself.
            None => Description { board: "simulator", image: None, button: true, boot_loader: false },
        }
    }

    fn entropy(&mut self) -> &mut Entropy {
        &mut self.entropy
    }

    fn indicate(&mut self, indication: Indication) {
        (self.indicator)(indication);
    }

    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        (self.touch)(timeout)
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        (self.listener)(command, outcome);
    }

    fn decided(&mut self, decision: &Decision<'_>) {
        (self.observer)(decision);
    }
}
