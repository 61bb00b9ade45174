//! sshsm on QEMU's `mps2-an505`: the Pico 2's processor, with a serial port, flash in a file, and entropy,
//! root key, serial number and button from the computer that it runs on.

#![no_std]
#![no_main]

mod clock;
mod flash;
mod host;
mod platform;
mod uart;

use core::cell::RefCell;
use core::mem::MaybeUninit;

use cortex_m::peripheral::{NVIC, SCB};
use cortex_m_rt::{entry, exception};
use critical_section::Mutex;
use sshsm_board::image::Mark;
use sshsm_board::restart::{restart, take_reason};
use sshsm_board::{heap, link, refuse, serve, stack};
use sshsm_boards::QEMU;
use sshsm_firmware::Platform as _;
use sshsm_firmware::link::Identity;
use sshsm_firmware::platform::Boot;
use sshsm_protocol::link::ResetReason;

use flash::Flash;
use platform::Emulated;
use uart::Uart;

const HEAP: usize = QEMU.memory.heap;

#[used]
static MARK: Mark = Mark::new("qemu");

static UART: Mutex<RefCell<Option<Uart>>> = Mutex::new(RefCell::new(None));

#[entry]
fn main() -> ! {
    stack::limit();
    stack::paint();
    let arena = cortex_m::singleton!(: [MaybeUninit<u8>; HEAP] = [MaybeUninit::uninit(); HEAP]);
    if let Some(arena) = arena {
        heap::start(arena);
    }
    let Some(peripherals) = cortex_m::Peripherals::take() else { restart(ResetReason::Panic) };
    clock::start(peripherals.SYST);
    let platform = Emulated::start();
    let identity = Identity {
        board: MARK.board(),
        serial: platform.as_ref().map_or(0, Emulated::serial),
        reset: take_reason().unwrap_or(ResetReason::PowerOn),
    };
    link::start(identity, clock::uptime);
    critical_section::with(|cs| UART.replace(cs, Some(Uart::start())));
    for interrupt in [uart::RECEIVED, uart::TRANSMITTED] {
        #[allow(unsafe_code, reason = "an interrupt may break a critical section of masks; there is none")]
        // SAFETY: critical sections here switch all interrupts off.
        unsafe {
            NVIC::unmask(Line(interrupt));
        }
    }
    match platform {
        Ok(platform) => serve(platform, Flash::take(), pump),
        Err(unhealthy) => refuse(unhealthy),
    }
}

/// A line of the interrupt controller.
#[derive(Clone, Copy)]
struct Line(i16);

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: the numbers are the machine's and do not change.
unsafe impl cortex_m::interrupt::InterruptNumber for Line {
    fn number(self) -> u16 {
        self.0.unsigned_abs()
    }
}

/// Moves bytes between the port and the link until neither has any.
fn pump() {
    critical_section::with(|cs| {
        let mut uart = UART.borrow_ref_mut(cs);
        let Some(uart) = uart.as_mut() else { return };
        let mut byte = [0];
        loop {
            if uart.ready() && link::transmit(&mut byte) > 0 {
                uart.send(byte[0]);
            } else if link::ready()
                && let Some(byte) = uart.receive()
            {
                link::receive(byte);
            } else {
                break;
            }
        }
        if let Some(Boot::Firmware | Boot::BootLoader) = link::restart_due() {
            restart(ResetReason::Requested)
        }
    });
}

#[exception]
#[allow(unsafe_code, reason = "the macro asks for it: an interrupt can come at any time")]
unsafe fn DefaultHandler(interrupt: i16) {
    match interrupt {
        uart::RECEIVED | uart::TRANSMITTED => pump(),
        _ => restart(ResetReason::Panic),
    }
}

sshsm_board::hard_fault!(fault);

extern "C" fn fault() -> ! {
    #[allow(unsafe_code, reason = "nothing else runs any more")]
    // SAFETY: a register that is read; it belongs to the core.
    let status = unsafe { (*SCB::PTR).cfsr.read() };
    cortex_m_semihosting::heprintln!("a fault: CFSR {status:#010x}");
    restart(ResetReason::Panic)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    cortex_m_semihosting::heprintln!("{info}");
    restart(ResetReason::Panic)
}
