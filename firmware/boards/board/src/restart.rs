//! How a device stops: every byte of its memory is cleared, then the chip resets, and the next start can say
//! why.
//!
//! Keys are in the heap and on the stack, and nothing records which bytes are secret, so all memory is
//! cleared. The reason is kept as a number in the first word of `.uninit`, which neither start-up code nor
//! the clearing touches.

use core::mem::MaybeUninit;
use core::ptr::{addr_of_mut, read_volatile, write_volatile};

use sshsm_protocol::link::ResetReason;

/// The numbers for reasons that only the firmware knows; other values have no meaning.
const KEPT: [(u32, ResetReason); 3] = [
    (0x7373_6801, ResetReason::Requested),
    (0x7373_6802, ResetReason::Panic),
    (0x7373_6803, ResetReason::Watchdog),
];

#[allow(unsafe_code, reason = "memory that start-up code leaves alone is a section of its own")]
#[unsafe(link_section = ".uninit.sshsm_restart_reason")]
static mut REASON: MaybeUninit<u32> = MaybeUninit::uninit();

#[allow(unsafe_code, reason = "symbols of the linker script")]
// SAFETY: only their addresses are used; cortex-m-rt's linker script defines both.
unsafe extern "C" {
    static mut _ram_start: u32;
    static mut _ram_end: u32;
}

/// The number that makes the next run start the boot loader: by then nothing is left in memory.
const BOOTLOADER: u32 = 0x7373_6804;

/// Why the firmware itself started this run; `None` if the hardware did. It is reported once.
pub fn take_reason() -> Option<ResetReason> {
    let code = kept();
    keep_nothing();
    KEPT.into_iter().find(|(kept, _)| *kept == code).map(|(_, reason)| reason)
}

/// Whether the last run ended with [`restart_for_bootloader`]. It is reported once, before [`take_reason`].
pub fn take_bootloader() -> bool {
    let wanted = kept() == BOOTLOADER;
    if wanted {
        keep_nothing();
    }
    wanted
}

fn kept() -> u32 {
    #[allow(unsafe_code, reason = "the word has no initial value in the language")]
    // SAFETY: any 32 bits are a `u32`; a volatile access by one thread of execution, before interrupts use it.
    unsafe {
        read_volatile(addr_of_mut!(REASON).cast::<u32>())
    }
}

fn keep_nothing() {
    #[allow(unsafe_code, reason = "the word has no initial value in the language")]
    // SAFETY: as in `kept`.
    unsafe {
        write_volatile(addr_of_mut!(REASON).cast::<u32>(), 0);
    }
}

/// Clears all memory and resets the chip.
pub fn restart(reason: ResetReason) -> ! {
    end(KEPT.iter().find(|(_, kept)| *kept == reason).map_or(0, |(code, _)| *code))
}

/// Clears all memory and resets the chip; the next run only starts the boot loader, since a boot loader can
/// expose memory to a host.
pub fn restart_for_bootloader() -> ! {
    end(BOOTLOADER)
}

fn end(code: u32) -> ! {
    cortex_m::interrupt::disable();
    /// Application interrupt and reset control: its address, and what asks it for a system reset.
    static RESET: [u32; 2] = [0xe000_ed0c, 0x05fa_0004];
    #[allow(unsafe_code, reason = "the stack itself is cleared, so nothing may be on it")]
    // SAFETY: interrupts are off, only the cleared memory is touched, and control never returns. Cortex-M0+
    // has just six registers for this.
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
            reason = in(reg) code,
            cell = in(reg) addr_of_mut!(REASON),
            reset = in(reg) &raw const RESET,
            options(noreturn),
        )
    }
}
