//! The common code of boards with a USB port: a serial port that answers while the device computes, the light
//! and the watchdog.
//!
//! All of it is one task ([`attend`]) on an executor that runs in an interrupt; the thread below computes and
//! is never waited for. The port is CDC-ACM under the identity 1209:0001, product `sshsm` (docs/protocol.md,
//! "Link frames").

#![no_std]

mod failure;
mod platform;

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use critical_section::Mutex;
use embassy_futures::join::{join, join4};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Instant, Timer};
use embassy_usb::class::cdc_acm::{CdcAcmClass, ControlChanged, Receiver, Sender, State};
use embassy_usb::driver::Driver;
use embassy_usb::{Builder, Config};
use sshsm_board::light::lit;
use sshsm_board::link;
use sshsm_board::progress::Progress;
use sshsm_firmware::platform::Boot;
use sshsm_protocol::link::Activity;
use static_cell::StaticCell;

pub use platform::{Hardware, Platform, stop};

/// Bytes of a full-speed bulk packet.
const PACKET: u8 = 64;
/// Between two looks at the light and the watchdog.
const TICK: embassy_time::Duration = embassy_time::Duration::from_millis(50);
/// The maximum time between two feedings of the watchdog: longer than any flash chip takes to erase a sector,
/// and no longer than RP2040's allows.
pub const WATCHDOG: Duration = Duration::from_secs(8);

/// The port appears when the device has started, or failed to: interrupts wait while flash is erased, and a
/// host that looks at a new device at that time may give up on it. After this time it appears in any case, so
/// that the host can ask what is wrong.
const LATEST_PORT: Duration = Duration::from_secs(20);

/// There may be something to send.
static SEND: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// Something was sent: the link may be ready to receive.
static SENT: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// The thread has answered a message.
static ANSWERED: AtomicBool = AtomicBool::new(false);
/// Until when the device shows itself.
static SHOWN: Mutex<Cell<Duration>> = Mutex::new(Cell::new(Duration::ZERO));

/// What [`attend`] asks of a board.
pub trait Board {
    /// Switches the light on or off.
    fn light(&mut self, on: bool);
    /// Holds off the watchdog for the next [`WATCHDOG`].
    fn feed(&mut self);
    /// Clears all memory and starts something.
    fn reboot(boot: Boot) -> !;
}

/// Time since the start.
#[must_use]
pub fn uptime() -> Duration {
    Duration::from_micros(Instant::now().as_micros())
}

/// The thread has answered a message, which has to be sent.
pub fn answered() {
    ANSWERED.store(true, Ordering::Relaxed);
    SEND.signal(());
}

fn show(duration: Duration) {
    let until = uptime().saturating_add(duration);
    critical_section::with(|cs| SHOWN.borrow(cs).set(until));
}

/// A serial number as USB has it.
pub fn digits(serial: u32) -> &'static str {
    static DIGITS: StaticCell<[u8; 10]> = StaticCell::new();
    let digits = DIGITS.init([b'0'; 10]);
    let mut rest = serial;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    let first = digits.iter().position(|digit| *digit != b'0').unwrap_or_default();
    digits.get(first..).and_then(|digits| str::from_utf8(digits).ok()).unwrap_or_default()
}

/// Serves the light and the watchdog, and the port once there is something to report, forever.
pub async fn attend<D: Driver<'static>, B: Board>(driver: D, serial: &'static str, board: B) -> ! {
    static CONFIGURATION: StaticCell<[u8; 128]> = StaticCell::new();
    static CONTROL: StaticCell<[u8; 64]> = StaticCell::new();
    static STATE: StaticCell<State<'_>> = StaticCell::new();
    let mut config = Config::new(0x1209, 0x0001);
    config.manufacturer = Some("sshsm project");
    config.product = Some("sshsm");
    config.serial_number = Some(serial);
    config.max_packet_size_0 = 64;
    let mut builder = Builder::new(
        driver,
        config,
        CONFIGURATION.init([0; 128]),
        &mut [], // no BOS descriptor
        &mut [], // no descriptors of Microsoft's
        CONTROL.init([0; 64]),
    );
    let port = CdcAcmClass::new(&mut builder, STATE.init(State::new()), PACKET.into());
    let (sender, receiver, control) = port.split_with_control();
    let usb = async {
        while link::activity() == Activity::Starting && uptime() < LATEST_PORT {
            Timer::after_millis(5).await;
        }
        // Some drivers show the device to the host here, and not when it runs.
        let mut usb = builder.build();
        usb.run().await
    };
    join4(usb, join(receive(receiver), hang_up(control)), send::<_, B>(sender), watch(board)).await.0
}

async fn receive<D: Driver<'static>>(mut port: Receiver<'static, D>) {
    let mut packet = [0; PACKET as usize];
    loop {
        port.wait_connection().await;
        while let Ok(length) = port.read_packet(&mut packet).await {
            for &byte in packet.get(..length).unwrap_or_default() {
                while !link::ready() {
                    SEND.signal(());
                    SENT.wait().await;
                }
                link::receive(byte);
            }
            SEND.signal(());
        }
        link::disconnected();
    }
}

async fn send<D: Driver<'static>, B: Board>(mut port: Sender<'static, D>) {
    let mut packet = [0; PACKET as usize];
    loop {
        SEND.wait().await;
        port.wait_connection().await;
        let mut full = false;
        loop {
            let length = link::transmit(&mut packet);
            if length == 0 && !full {
                break;
            }
            // One that is not full, if need be empty, ends a transfer.
            if port.write_packet(packet.get(..length).unwrap_or_default()).await.is_err() {
                break;
            }
            full = length == usize::from(PACKET);
            SENT.signal(());
        }
        SENT.signal(());
        if let Some(boot) = link::restart_due() {
            // Lets the host read the answer before the port goes away.
            Timer::after_millis(100).await;
            B::reboot(boot)
        }
    }
}

/// Notices a host that closes the port.
async fn hang_up(control: ControlChanged<'static>) {
    loop {
        control.control_changed().await;
        if !control.dtr() {
            link::disconnected();
            SEND.signal(()); // nothing is waited for any more
        }
    }
}

async fn watch(mut board: impl Board) {
    let mut progress = Progress::default();
    loop {
        let (now, activity) = (uptime(), link::activity());
        let shown = critical_section::with(|cs| SHOWN.borrow(cs).get()) > now;
        board.light(lit(activity, shown, now));
        if ANSWERED.load(Ordering::Relaxed) {
            ANSWERED.store(false, Ordering::Relaxed);
            progress.answered();
        }
        if progress.made(activity, now) {
            board.feed();
        }
        Timer::after(TICK).await;
    }
}
