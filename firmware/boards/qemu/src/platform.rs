//! The machine that the device core runs on.

use core::time::Duration;

use rand_core::Rng as _;
use sshsm_board::crypto::CortexM;
use sshsm_board::entropy::{Entropy, Noise};
use sshsm_board::health::{MinEntropy, Unhealthy};
use sshsm_board::restart::restart;
use sshsm_board::{image, link, touch};
use sshsm_firmware::Platform;
use sshsm_firmware::platform::{Description, Presence, RootKey};
use sshsm_protocol::link::ResetReason;
use sshsm_protocol::{Command, DeviceError};

use crate::flash::Flash;
use crate::host::{self, File};
use crate::{clock, pump};

/// The host's own generator, or a file that is read in its place.
pub(crate) struct HostNoise(File);

impl Noise for HostNoise {
    const MIN_ENTROPY: MinEntropy = MinEntropy::Seven;

    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
        if self.0.read(samples) { Ok(()) } else { Err(Unhealthy::Source) }
    }
}

/// The emulated board.
pub(crate) struct Emulated {
    entropy: Entropy<HostNoise>,
    serial: u32,
}

impl Emulated {
    /// Asks the host for everything that the machine lacks; creates what a new device does not have.
    pub(crate) fn start() -> Result<Self, Unhealthy> {
        let noise = File::open(c"noise").or_else(|| File::open(c"/dev/urandom"));
        let mut entropy = Entropy::start(HostNoise(noise.ok_or(Unhealthy::Source)?), stop)?;
        let serial =
            host::read_or_make(c"serial", |digits: &mut [u8; 8]| serial_digits(&mut entropy, digits));
        let serial = str::from_utf8(&serial).ok().and_then(|digits| digits.parse().ok());
        let Some(serial) = serial.filter(|&serial| serial != 0) else {
            panic!("serial: eight digits, not all 0")
        };
        Ok(Self { entropy, serial })
    }
}

/// Eight random decimal digits, the first not 0.
fn serial_digits(entropy: &mut impl rand_core::Rng, digits: &mut [u8; 8]) {
    let mut first = b'1';
    for digit in digits {
        // Bytes that would prefer some digits are drawn again.
        *digit = loop {
            let mut byte = [0];
            entropy.fill_bytes(&mut byte);
            let drawn = b'0' + byte[0] % 10;
            if byte[0] < 250 && drawn >= first {
                break drawn;
            }
        };
        first = b'0';
    }
}

fn stop(unhealthy: Unhealthy) -> ! {
    cortex_m_semihosting::heprintln!("{unhealthy}");
    restart(ResetReason::Panic)
}

impl Platform for Emulated {
    type Flash = Flash;
    type Entropy = Entropy<HostNoise>;
    type Crypto = CortexM;

    fn serial(&self) -> u32 {
        self.serial
    }

    fn root_key(&mut self) -> RootKey {
        RootKey::from_bytes(host::read_or_make(c"root-key", |key| self.entropy.fill_bytes(key)))
    }

    fn uptime(&mut self) -> Duration {
        clock::uptime()
    }

    fn describe(&mut self) -> Description {
        let image = Some(image::running());
        Description { board: link::board(), image, button: true, boot_loader: false }
    }

    fn entropy(&mut self) -> &mut Entropy<HostNoise> {
        &mut self.entropy
    }

    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        touch::confirm(&mut Button, timeout)
    }

    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        link::handled(command, outcome);
    }
}

/// A file of the host's: the button is held down while it exists.
struct Button;

impl touch::Button for Button {
    fn pressed(&mut self) -> bool {
        File::open(c"button").is_some()
    }

    fn pause(&mut self) {
        cortex_m::asm::wfi(); // until the clock ticks, at the latest
    }

    fn uptime(&mut self) -> Duration {
        clock::uptime()
    }

    fn send(&mut self) {
        pump();
    }
}
