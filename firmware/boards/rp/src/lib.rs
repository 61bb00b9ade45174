//! sshsm on Raspberry Pi's microcontrollers: RP2040 (Pico) and RP2350 (Pico 2), which differ little from its
//! point of view.
//!
//! *Flash.* The store has the last 512 KiB, the root secret the sector before; neither is part of an image.
//!
//! *Root key.* The only secret that these chips could hold would have to be burnt in permanently. Instead one
//! is drawn at the first start, kept in flash, next to what it seals, and bound to the chip's identity: flash
//! copied to another board cannot be read, but anyone who can read all of this board's flash and its
//! identity, which the USB boot loader exposes, can open it.
//!
//! *Entropy* is RP2350's TRNG, or RP2040's substitute: bits of its ring oscillator (`noise.rs`). *Button*:
//! BOOTSEL. *Light*: the board's own, on GPIO 25. *Watchdog*: the chip's, fed as described in
//! [`sshsm_board::progress`].

#![no_std]

#[cfg(feature = "rp2040")]
mod atomic;
mod button;
mod noise;

use core::fmt::{self, Display};
use core::mem::MaybeUninit;
use core::ops::Range;

use embassy_executor::InterruptExecutor;
use embassy_rp::flash::{Blocking, Flash};
use embassy_rp::gpio::{Level, Output};
use embassy_rp::peripherals::{BOOTSEL, FLASH, PIN_25, USB};
use embassy_rp::rom_data::reset_to_usb_boot;
use embassy_rp::usb::{Driver, InterruptHandler};
use embassy_rp::watchdog::{ResetReason as WatchdogReason, Watchdog};
use embassy_rp::{Peri, bind_interrupts, interrupt, pac};
use sshsm_board::entropy::Entropy;
pub use sshsm_board::image::Mark;
use sshsm_board::region::{Region, repeats_at};
use sshsm_board::restart::{restart, restart_for_bootloader, take_bootloader, take_reason};
use sshsm_board::secret::{load_or_make, root_key, serial_number};
use sshsm_board::{heap, link, refuse, serve, stack};
use sshsm_boards::{Memory, SECTOR};
use sshsm_firmware::link::Identity;
use sshsm_firmware::platform::Boot;
use sshsm_protocol::link::ResetReason;
use sshsm_usb::{Hardware, Platform, WATCHDOG as WATCHDOG_TIME, answered, attend, digits, stop, uptime};

use noise::ChipNoise;

#[cfg(feature = "rp2040")]
mod chip {
    //! RP2040 on a Pico.
    pub(crate) use sshsm_boards::PICO as BOARD;
    pub(crate) use sshsm_firmware::crypto::RustCrypto as Crypto;
}
#[cfg(feature = "rp2350")]
mod chip {
    //! RP2350 on a Pico 2.
    pub(crate) use sshsm_board::crypto::CortexM as Crypto;
    pub(crate) use sshsm_boards::PICO2 as BOARD;
}

const MEMORY: Memory = chip::BOARD.memory;
/// Drivers count from the start of the flash.
const FLASH_END: u32 = MEMORY.flash.end - MEMORY.flash.start;
/// The store, at the end of the flash.
const STORE: Range<u32> = match MEMORY.store {
    [part] => part.start - MEMORY.flash.start..part.end - MEMORY.flash.start,
    _ => panic!("the store is in one piece"),
};
/// The sector between image and store.
const SECRET_SECTOR: u32 = MEMORY.image.end - MEMORY.flash.start;
const _: () = assert!(SECRET_SECTOR + SECTOR == STORE.start && STORE.end == FLASH_END);
/// A page programmed at once is not programmed in order; a word of this size may be torn.
const WORD: usize = 16;

type ChipFlash = Flash<'static, FLASH, Blocking, { FLASH_END as usize }>;

bind_interrupts!(struct Interrupts {
    USBCTRL_IRQ => InterruptHandler<USB>;
});

static EXECUTOR: InterruptExecutor = InterruptExecutor::new();

#[interrupt]
#[allow(unsafe_code, reason = "the executor wants to be polled from its interrupt only")]
unsafe fn SWI_IRQ_1() {
    // SAFETY: this is its interrupt, which starting it unmasks.
    unsafe { EXECUTOR.on_interrupt() }
}

/// Everything but the program: starts the board whose image has this mark, and serves it.
pub fn run(mark: &'static Mark) -> ! {
    if take_bootloader() {
        reset_to_usb_boot(0, 0);
    }
    #[cfg(feature = "rp2350")]
    stack::limit();
    stack::paint();
    let peripherals = embassy_rp::init(embassy_rp::config::Config::default());
    let mut watchdog = Watchdog::new(peripherals.WATCHDOG);
    let reset = reset_reason(&watchdog);
    watchdog.start(embassy_time::Duration::from_secs(WATCHDOG_TIME.as_secs()));
    if let Some(arena) =
        cortex_m::singleton!(: [MaybeUninit<u8>; MEMORY.heap] = [MaybeUninit::uninit(); MEMORY.heap])
    {
        heap::start(arena);
    }

    let mut flash = Flash::new_blocking(peripherals.FLASH);
    let chip = chip_identity(&mut flash);
    let serial = chip.as_ref().map_or(0, |chip| serial_number(chip));
    link::start(Identity { board: mark.board(), serial, reset }, uptime);
    let spawner = EXECUTOR.start(interrupt::SWI_IRQ_1);
    let attendant = attendant(peripherals.USB, peripherals.PIN_25, watchdog, digits(serial));
    spawner.spawn(attendant.unwrap_or_else(|_| restart(ResetReason::Panic)));

    let chip = chip.unwrap_or_else(|error| refuse(error));
    match repeats_at(&mut flash, FLASH_END) {
        Ok(None) => {}
        Ok(Some(size)) => refuse(TooSmall(size)),
        Err(error) => refuse(format_args!("the flash failed ({error:?})")),
    }
    #[cfg(feature = "rp2040")]
    let noise = noise::start();
    #[cfg(feature = "rp2350")]
    let noise = noise::start(peripherals.TRNG);
    let mut entropy = Entropy::start(noise, stop).unwrap_or_else(|unhealthy| refuse(unhealthy));
    let secret = load_or_make(&mut flash, SECRET_SECTOR, &mut entropy).unwrap_or_else(|error| refuse(error));
    let root_key = root_key(&[secret.as_ref(), &chip]);
    let platform = Platform::new(Chip { button: peripherals.BOOTSEL }, entropy, serial, root_key);
    let store = Region::new(flash, &[STORE]).unwrap_or_else(|error| refuse(error));
    serve(platform, store, answered)
}

/// A flash of so many bytes only.
struct TooSmall(u32);

impl Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the flash has {} KiB, and this image is for {} KiB", self.0 / 1024, FLASH_END / 1024)
    }
}

/// The chip's hardware.
struct Chip {
    button: Peri<'static, BOOTSEL>,
}

impl Hardware for Chip {
    type Flash = Region<ChipFlash, WORD>;
    type Noise = ChipNoise;
    type Crypto = chip::Crypto;

    fn pressed(&mut self) -> bool {
        button::pressed(&mut self.button)
    }
}

/// The chip does not identify itself.
const NAMELESS: &str = "the chip's identity cannot be read";

/// What no other chip has: RP2040's flash chip's unique number.
#[cfg(feature = "rp2040")]
fn chip_identity(flash: &mut ChipFlash) -> Result<[u8; 8], &'static str> {
    let mut identity = [0; 8];
    flash.blocking_unique_id(&mut identity).map_err(|_| NAMELESS)?;
    Ok(identity)
}

/// Data unique to this chip: RP2350's public identity and its random number, of which only the first is
/// public.
#[cfg(feature = "rp2350")]
fn chip_identity(_: &mut ChipFlash) -> Result<[u8; 24], &'static str> {
    let public = embassy_rp::otp::get_chipid().map_err(|_| NAMELESS)?.to_be_bytes();
    let private = embassy_rp::otp::get_private_random_number().map_err(|_| NAMELESS)?.to_be_bytes();
    let mut identity = [0; 24];
    identity.iter_mut().zip(public.into_iter().chain(private)).for_each(|(to, from)| *to = from);
    Ok(identity)
}

fn reset_reason(watchdog: &Watchdog) -> ResetReason {
    let by_watchdog = watchdog.reset_reason().map(|reason| match reason {
        WatchdogReason::TimedOut => ResetReason::Watchdog,
        WatchdogReason::Forced => ResetReason::Requested,
    });
    take_reason().or(by_watchdog).unwrap_or_else(|| {
        #[cfg(feature = "rp2040")]
        let (power, line) = {
            let last = pac::VREG_AND_CHIP_RESET.chip_reset().read();
            (last.had_por(), last.had_run())
        };
        #[cfg(feature = "rp2350")]
        let (power, line) = {
            let last = pac::POWMAN.chip_reset().read();
            (last.had_por() || last.had_bor(), last.had_run_low())
        };
        match (power, line) {
            (true, _) => ResetReason::PowerOn,
            (_, true) => ResetReason::External,
            _ => ResetReason::Unknown,
        }
    })
}

/// The parts of the board that are attended to above the thread.
struct Board {
    light: Output<'static>,
    watchdog: Watchdog,
}

impl sshsm_usb::Board for Board {
    fn light(&mut self, on: bool) {
        self.light.set_level(on.into());
    }

    fn feed(&mut self) {
        self.watchdog.feed(embassy_time::Duration::from_secs(WATCHDOG_TIME.as_secs()));
    }

    fn reboot(boot: Boot) -> ! {
        match boot {
            Boot::Firmware => restart(ResetReason::Requested),
            Boot::BootLoader => restart_for_bootloader(),
        }
    }
}

#[embassy_executor::task]
async fn attendant(
    usb: Peri<'static, USB>,
    light: Peri<'static, PIN_25>,
    watchdog: Watchdog,
    serial: &'static str,
) {
    let board = Board { light: Output::new(light, Level::Low), watchdog };
    attend(Driver::new(usb, Interrupts), serial, board).await;
}
