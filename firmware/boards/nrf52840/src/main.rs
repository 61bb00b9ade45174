//! sshsm on the Adafruit Feather nRF52840 Express, and on boards like it: an nRF52840 with a UF2 boot loader, a light on
//! P1.15 (lit when high), a button on P1.02 (low when pressed).
//!
//! *Flash.* The boot loader comes with SoftDevice S140 6.1.1, which stays in place and is never started; the
//! image begins after it, at 0x26000. The store has 72 KiB between image and boot loader, in two parts: the
//! boot loader uses the space between them for updates of itself. The image is built for size and without the
//! curves that OpenSSH does not have.
//!
//! *Root key.* Derived from the two roots that the factory generated for each chip (FICR ER and IR). Firmware
//! can read them, and so can a debugger, until access is protected (UICR APPROTECT), which this firmware
//! leaves to its owner: only a mass erasure, including the boot loader, undoes the protection. The firmware
//! writes nothing to UICR. A copy of the flash alone is useless.
//!
//! *Entropy* is the chip's thermal noise generator, with its bias correction.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;
use core::time::Duration;

use cortex_m_rt::entry;
use embassy_executor::InterruptExecutor;
use embassy_nrf::config::{Config, Debug, HfclkSource};
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::nvmc::Nvmc;
use embassy_nrf::peripherals::{P1_15, RNG, USBD};
use embassy_nrf::usb::vbus_detect::{self, HardwareVbusDetect};
use embassy_nrf::usb::{self, Driver};
use embassy_nrf::wdt::{self, HaltConfig, Watchdog, WatchdogHandle};
use embassy_nrf::{Peri, bind_interrupts, interrupt, pac};
use sshsm_board::crypto::CortexM;
use sshsm_board::entropy::{Entropy, Noise, wait};
use sshsm_board::health::{MinEntropy, Unhealthy};
use sshsm_board::image::Mark;
use sshsm_board::region::Region;
use sshsm_board::restart::{restart, take_reason};
use sshsm_board::secret::{root_key, serial_number};
use sshsm_board::{heap, link, refuse, serve, stack};
use sshsm_boards::{Memory, NRF52840};
use sshsm_firmware::link::Identity;
use sshsm_firmware::platform::Boot;
use sshsm_protocol::link::ResetReason;
use sshsm_usb::{Hardware, Platform, WATCHDOG, answered, attend, digits, stop, uptime};

#[used]
static MARK: Mark = Mark::new("nrf52840");

const MEMORY: Memory = NRF52840.memory;
/// The unit that the chip programs, at most twice between two erasures.
const WORD: usize = 4;
/// Tells the boot loader to wait for a new image.
const ENTER_BOOTLOADER: u8 = 0x57;

bind_interrupts!(struct Interrupts {
    USBD => usb::InterruptHandler<USBD>;
    CLOCK_POWER => vbus_detect::InterruptHandler;
});

static EXECUTOR: InterruptExecutor = InterruptExecutor::new();

#[interrupt]
#[allow(unsafe_code, reason = "the executor wants to be polled from its interrupt only")]
unsafe fn EGU0_SWI0() {
    // SAFETY: this is its interrupt, which starting it unmasks.
    unsafe { EXECUTOR.on_interrupt() }
}

#[entry]
fn main() -> ! {
    stack::paint();
    let mut config = Config::default();
    config.hfclk_source = HfclkSource::ExternalXtal; // USB requires it
    config.debug = Debug::NotConfigured; // the default would open it permanently, in UICR
    let peripherals = embassy_nrf::init(config);
    let reset = reset_reason();
    let mut watchdog = wdt::Config::default();
    watchdog.timeout_ticks = 32_768 * u32::try_from(WATCHDOG.as_secs()).unwrap_or(8);
    watchdog.action_during_debug_halt = HaltConfig::Pause;
    let Ok((_, [watchdog])) = Watchdog::try_new(peripherals.WDT, watchdog) else {
        restart(ResetReason::Panic)
    };
    if let Some(arena) =
        cortex_m::singleton!(: [MaybeUninit<u8>; MEMORY.heap] = [MaybeUninit::uninit(); MEMORY.heap])
    {
        heap::start(arena);
    }

    let device = [0, 1].map(|word| pac::FICR.deviceid(word).read().to_be_bytes());
    let serial = serial_number(device.as_flattened());
    link::start(Identity { board: MARK.board(), serial, reset }, uptime);
    let spawner = EXECUTOR.start(interrupt::EGU0_SWI0);
    let attendant = attendant(peripherals.USBD, peripherals.P1_15, watchdog, digits(serial));
    spawner.spawn(attendant.unwrap_or_else(|_| restart(ResetReason::Panic)));

    let noise = ThermalNoise::start(peripherals.RNG);
    let entropy = Entropy::start(noise, stop).unwrap_or_else(|unhealthy| refuse(unhealthy));
    let roots =
        [0, 1, 2, 3].map(|word| [pac::FICR.er(word).read(), pac::FICR.ir(word).read()].map(u32::to_be_bytes));
    let root_key = root_key(&[roots.as_flattened().as_flattened(), device.as_flattened()]);
    let button = Input::new(peripherals.P1_02, Pull::Up);
    let platform = Platform::new(Chip { button }, entropy, serial, root_key);
    let store = Region::new(Nvmc::new(peripherals.NVMC), MEMORY.store).unwrap_or_else(|error| refuse(error));
    serve(platform, store, answered)
}

/// The chip's hardware.
struct Chip {
    button: Input<'static>,
}

impl Hardware for Chip {
    type Flash = Region<Nvmc<'static>, WORD>;
    type Noise = ThermalNoise;
    type Crypto = CortexM;

    fn pressed(&mut self) -> bool {
        self.button.is_low()
    }
}

/// The chip's generator.
struct ThermalNoise(#[allow(dead_code, reason = "who has it has the registers")] Peri<'static, RNG>);

impl ThermalNoise {
    fn start(rng: Peri<'static, RNG>) -> Self {
        pac::RNG.config().write(|config| config.set_dercen(true));
        Self(rng)
    }
}

impl Noise for ThermalNoise {
    const MIN_ENTROPY: MinEntropy = MinEntropy::Four;

    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
        /// A byte takes 120 µs on average; the maximum is not specified.
        const PATIENCE: Duration = Duration::from_millis(1000);
        let ready = pac::RNG.events_valrdy();
        ready.write_value(0);
        pac::RNG.tasks_start().write_value(1);
        let read = samples.iter_mut().try_for_each(|sample| {
            wait(uptime, PATIENCE, || (ready.read() != 0).then_some(())).ok_or(Unhealthy::Silent)?;
            ready.write_value(0);
            *sample = pac::RNG.value().read().value();
            Ok(())
        });
        pac::RNG.tasks_stop().write_value(1);
        read
    }
}

fn reset_reason() -> ResetReason {
    let register = pac::POWER.resetreas();
    let hardware = register.read();
    register.write_value(hardware); // ones clear
    take_reason().unwrap_or(match hardware.0 {
        0 => ResetReason::PowerOn,
        _ if hardware.dog() => ResetReason::Watchdog,
        _ if hardware.resetpin() => ResetReason::External,
        _ => ResetReason::Unknown,
    })
}

/// The parts of the board that are attended to above the thread.
struct Board {
    light: Output<'static>,
    watchdog: WatchdogHandle,
}

impl sshsm_usb::Board for Board {
    fn light(&mut self, on: bool) {
        self.light.set_level(on.into());
    }

    fn feed(&mut self) {
        self.watchdog.pet();
    }

    fn reboot(boot: Boot) -> ! {
        if boot == Boot::BootLoader {
            pac::POWER.gpregret().write(|register| register.set_gpregret(ENTER_BOOTLOADER));
        }
        restart(ResetReason::Requested)
    }
}

#[embassy_executor::task]
async fn attendant(
    usb: Peri<'static, USBD>,
    light: Peri<'static, P1_15>,
    watchdog: WatchdogHandle,
    serial: &'static str,
) {
    let board = Board { light: Output::new(light, Level::Low, OutputDrive::Standard), watchdog };
    attend(Driver::new(usb, Interrupts, HardwareVbusDetect::new(Interrupts)), serial, board).await;
}
