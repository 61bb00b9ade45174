//! BOOTSEL as a button: it pulls the flash's chip select low, which is an input when nothing drives it.
//! During a reading there is no flash to run from: code in RAM does it, with interrupts off.

use embassy_rp::Peri;
use embassy_rp::peripherals::BOOTSEL;

/// Whether it is held down. Takes about 40 µs.
#[cfg(feature = "rp2040")]
pub(crate) fn pressed(button: &mut Peri<'static, BOOTSEL>) -> bool {
    embassy_rp::bootsel::is_bootsel_pressed(button.reborrow())
}

/// Whether it is held down. Takes about 80 µs. RP2350's pins have a different layout from RP2040's, for which
/// embassy-rp has this (datasheet 9.11: `GPIO_QSPI_SS_STATUS` and `_CTRL`).
#[cfg(feature = "rp2350")]
pub(crate) fn pressed(_: &mut Peri<'static, BOOTSEL>) -> bool {
    const IN_FROM_PAD: u32 = 1 << 17;
    #[allow(unsafe_code, reason = "the flash that everything else runs from is away for a moment")]
    // SAFETY: no interrupt occurs, and neither the other core nor DMA is used: nothing needs the flash.
    let status = cortex_m::interrupt::free(|_| unsafe { select_status() });
    status & IN_FROM_PAD == 0
}

/// The status of the flash's chip select while nothing drives it.
///
/// # Safety
/// Nothing else may access the flash in the meantime.
#[cfg(feature = "rp2350")]
#[allow(unsafe_code, reason = "it must neither be in flash nor call code that is")]
#[unsafe(link_section = ".data.ram_func")]
#[inline(never)]
unsafe fn select_status() -> u32 {
    const SELECT: usize = 3;
    let status;
    // SAFETY: the two registers of this pin; the second is restored.
    unsafe {
        core::arch::asm!(
            "ldr {saved}, [{pin}, #4]",
            "str {count}, [{pin}, #4]",
            "2:", // until the level has settled
            "subs {count}, #8",
            "bne 2b",
            "ldr {count}, [{pin}]",
            "str {saved}, [{pin}, #4]",
            pin = in(reg) embassy_rp::pac::IO_QSPI.gpio(SELECT).as_ptr(),
            saved = out(reg) _,
            // OEOVER = disable, FUNCSEL = XIP; and a count.
            count = inout(reg) 0x8000 => status,
            options(nostack),
        );
    }
    status
}
