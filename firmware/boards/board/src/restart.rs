//! How a device ends: every byte of its memory is cleared, then the chip resets, and the next start can say why.
//!
//! Keys live in the heap and on the stack; nothing else decides what is a secret, so all of the memory goes. What went
//! wrong is kept as a number in the first word of `.uninit`, which neither start-up code nor the clearing touches.

use core::mem::MaybeUninit;
use core::ptr::{addr_of_mut, read_volatile, write_volatile};

/// Why the device started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Power came, or the reset pin was used: nothing is known of an earlier run.
    #[default]
    Power = 0,
    /// Somebody asked for a restart.
    Requested = 0x7373_6801,
    /// The firmware panicked.
    Panic = 0x7373_6802,
    /// The processor faulted.
    Fault = 0x7373_6803,
    /// The noise source failed its health test.
    Entropy = 0x7373_6804,
    /// The watchdog bit.
    Watchdog = 0x7373_6805,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Requested, Self::Panic, Self::Fault, Self::Entropy, Self::Watchdog];

    /// For people, in a few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Power => "power-on",
            Self::Requested => "requested",
            Self::Panic => "panic",
            Self::Fault => "fault",
            Self::Entropy => "entropy failure",
            Self::Watchdog => "watchdog",
        }
    }
}

#[allow(unsafe_code, reason = "memory that start-up code leaves alone is a section of its own")]
#[unsafe(link_section = ".uninit.sshsm_restart_reason")]
static mut REASON: MaybeUninit<u32> = MaybeUninit::uninit();

#[allow(unsafe_code, reason = "symbols of the linker script")]
// SAFETY: only their addresses are used; cortex-m-rt's linker script defines both.
unsafe extern "C" {
    static mut _ram_start: u32;
    static mut _ram_end: u32;
}

/// Why this run started. It is told once: the next call says [`Reason::Power`].
pub fn take_reason() -> Reason {
    let cell = addr_of_mut!(REASON).cast::<u32>();
    #[allow(unsafe_code, reason = "the word has no initial value in the language")]
    // SAFETY: any 32 bits are a `u32`; volatile accesses by one thread of execution, before interrupts use it.
    let code = unsafe {
        let code = read_volatile(cell);
        write_volatile(cell, 0);
        code
    };
    Reason::ALL.into_iter().find(|reason| *reason as u32 == code).unwrap_or_default()
}

/// Clears all memory and resets the chip.
pub fn restart(reason: Reason) -> ! {
    cortex_m::interrupt::disable();
    /// Application interrupt and reset control: its address, and what asks it for a system reset.
    static RESET: [u32; 2] = [0xe000_ed0c, 0x05fa_0004];
    #[allow(unsafe_code, reason = "the stack itself is cleared, so nothing may be on it")]
    // SAFETY: interrupts are off, no memory but the cleared is touched, and control never comes back. Six registers
    // are what Cortex-M0+ has to give.
    unsafe {
        core::arch::asm!(
            "2:",
            "str {zero}, [{word}]",
            "adds {word}, {word}, #4",
            "cmp {word}, {end}",
            "bne 2b",
            "str {reason}, [{cell}]",
            "ldr {word}, [{reset}]",
            "ldr {end}, [{reset}, #4]",
            "dsb",
            "str {end}, [{word}]",
            "dsb",
            "3:",
            "b 3b",
            word = in(reg) addr_of_mut!(_ram_start),
            end = in(reg) addr_of_mut!(_ram_end),
            zero = in(reg) 0,
            reason = in(reg) reason as u32,
            cell = in(reg) addr_of_mut!(REASON),
            reset = in(reg) &raw const RESET,
            options(noreturn),
        )
    }
}
