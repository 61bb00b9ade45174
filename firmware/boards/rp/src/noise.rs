//! The chips' sources of noise.

#[cfg(feature = "rp2350")]
use embassy_rp::{
    Peri, bind_interrupts,
    peripherals::TRNG,
    trng::{Config, InterruptHandler, Trng},
};
use sshsm_board::entropy::Noise;
use sshsm_board::health::{MinEntropy, Unhealthy};

/// RP2040: the ring oscillator's random bit, which the datasheet (2.17.5) calls not good enough as it is. Bits are taken
/// some five periods of the oscillator apart, eight make a sample, and a sample is credited with half a bit.
#[cfg(feature = "rp2040")]
pub(crate) struct ChipNoise(());

#[cfg(feature = "rp2040")]
impl ChipNoise {
    /// The oscillator runs from the start.
    pub(crate) fn new() -> Self {
        Self(())
    }
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

/// RP2350: its TRNG (datasheet 12.12), with its own tests and von Neumann's corrector switched on. It tries again when a
/// test fails, and is then slower.
#[cfg(feature = "rp2350")]
pub(crate) struct ChipNoise(Trng<'static, TRNG>);

#[cfg(feature = "rp2350")]
bind_interrupts!(struct Interrupts {
    TRNG_IRQ => InterruptHandler<TRNG>;
});

#[cfg(feature = "rp2350")]
impl ChipNoise {
    /// Starts it.
    pub(crate) fn new(trng: Peri<'static, TRNG>) -> Self {
        Self(Trng::new(trng, Interrupts, Config::default()))
    }
}

#[cfg(feature = "rp2350")]
impl Noise for ChipNoise {
    const MIN_ENTROPY: MinEntropy = MinEntropy::Four;

    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
        self.0.blocking_fill_bytes(samples);
        Ok(())
    }
}
