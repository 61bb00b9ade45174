//! The chips' sources of noise.

#[cfg(feature = "rp2350")]
use embassy_rp::{Peri, pac, peripherals::TRNG};
#[cfg(feature = "rp2040")]
use sshsm_board::{
    entropy::Noise,
    health::{MinEntropy, Unhealthy},
};
#[cfg(feature = "rp2350")]
use sshsm_board::{
    entropy::wait,
    trng::{Registers, Trng},
};
#[cfg(feature = "rp2350")]
use sshsm_usb::uptime;

/// RP2040: the ring oscillator's random bit, which the datasheet (2.17.5) calls not good enough by itself.
/// Bits are taken about five oscillator periods apart, eight make a sample, and a sample is credited with
/// half a bit.
#[cfg(feature = "rp2040")]
pub(crate) struct ChipNoise(());

/// The oscillator runs from the start.
#[cfg(feature = "rp2040")]
pub(crate) fn start() -> ChipNoise {
    ChipNoise(())
}

#[cfg(feature = "rp2040")]
impl Noise for ChipNoise {
    const MIN_ENTROPY: MinEntropy = MinEntropy::Half;

    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
        /// Cycles of the processor at 125 MHz, for an oscillator of at least 4 MHz.
        const PAUSE: u32 = 160;
        let bits = embassy_rp::pac::ROSC.randombit();
        for sample in samples {
            for _ in 0..u8::BITS {
                *sample = *sample << 1 | u8::from(bits.read().randombit());
                cortex_m::asm::delay(PAUSE);
            }
        }
        Ok(())
    }
}

/// RP2350: its TRNG.
#[cfg(feature = "rp2350")]
pub(crate) type ChipNoise = Trng<Peripheral>;

/// Resets the peripheral, which the boot ROM has used with its tests off, and starts it.
#[cfg(feature = "rp2350")]
pub(crate) fn start(trng: Peri<'static, TRNG>) -> ChipNoise {
    let (resets, done) = (pac::RESETS.reset(), pac::RESETS.reset_done());
    resets.modify(|reset| reset.set_trng(true));
    resets.modify(|reset| reset.set_trng(false));
    // If it does not come back, it supplies no noise, which is noticed there.
    let _ = wait(uptime, core::time::Duration::from_millis(10), || done.read().trng().then_some(()));
    Trng::start(Peripheral(trng), uptime)
}

/// The TRNG's registers.
#[cfg(feature = "rp2350")]
pub(crate) struct Peripheral(
    #[allow(dead_code, reason = "who has it has the registers")] Peri<'static, TRNG>,
);

#[cfg(feature = "rp2350")]
#[allow(unsafe_code, reason = "registers are memory that the language does not know")]
impl Registers for Peripheral {
    fn read(&self, offset: usize) -> u32 {
        // SAFETY: a register of a peripheral that has no other owner.
        unsafe { pac::TRNG.as_ptr().cast::<u32>().byte_add(offset).read_volatile() }
    }

    fn write(&mut self, offset: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { pac::TRNG.as_ptr().cast::<u32>().byte_add(offset).write_volatile(value) }
    }
}
