//! The continuous health tests of a noise source (NIST SP 800-90B, section 4.4), sample by sample.
//!
//! A sample is a byte. Both tests fail a sound source less than once in 2^30 samples (α = 2^-30), and quickly
//! fail a source that supplies less than half of the entropy that its board claims.

/// The entropy that a board claims for its noise source: the min-entropy of each byte, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinEntropy {
    /// Half a bit: raw samples of an oscillator.
    Half,
    /// One bit.
    One,
    /// Four bits.
    Four,
    /// Seven bits: a source that conditions its own noise and does not claim it to be perfect.
    Seven,
}

/// Samples in a window of the adaptive proportion test, for sources that are not binary.
const WINDOW: u16 = 512;

impl MinEntropy {
    /// Bytes of noise that hold at least `bits` bits of entropy.
    #[must_use]
    pub const fn bytes_for(self, bits: usize) -> usize {
        match self {
            Self::Half => 2 * bits,
            Self::One => bits,
            Self::Four => bits.div_ceil(4),
            Self::Seven => bits.div_ceil(7),
        }
    }

    /// So many equal samples in a row are a failure: 1 + ⌈30 / H⌉.
    const fn repetitions(self) -> u16 {
        match self {
            Self::Half => 61,
            Self::One => 31,
            Self::Four => 9,
            Self::Seven => 6,
        }
    }

    /// So many samples in a window that equal its first are a failure: 1 + critbinom(512, 2^-H, 1 − 2^-30).
    const fn proportion(self) -> u16 {
        match self {
            Self::Half => 422,
            Self::One => 325,
            Self::Four => 71,
            Self::Seven => 22,
        }
    }
}

/// Which test a noise source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// The same sample came too many times in a row.
    #[error("the noise source repeats itself")]
    Repetition,
    /// One sample came too often.
    #[error("the noise source prefers one value")]
    Proportion,
    /// The source reported a failure of its own.
    #[error("the noise source reports a failure")]
    Source,
    /// The source has been silent for so long that no more noise will come.
    #[error("the noise source is silent")]
    Silent,
}

/// Both tests' state.
pub struct HealthTests {
    claim: MinEntropy,
    last: Option<u8>,
    repetitions: u16,
    reference: u8,
    seen: u16,
    matches: u16,
}

impl HealthTests {
    /// Samples that the tests see before a source is trusted (section 4.3, item 4).
    pub const START_UP: usize = 1024;

    /// Tests for a source of this claim.
    #[must_use]
    pub const fn new(claim: MinEntropy) -> Self {
        Self { claim, last: None, repetitions: 0, reference: 0, seen: 0, matches: 0 }
    }

    /// Tests the next samples. Once a test has failed, the source must not be used any more.
    pub fn check(&mut self, samples: &[u8]) -> Result<(), Unhealthy> {
        samples.iter().try_for_each(|&sample| self.check_one(sample))
    }

    fn check_one(&mut self, sample: u8) -> Result<(), Unhealthy> {
        self.repetitions = if self.last == Some(sample) { self.repetitions + 1 } else { 1 };
        self.last = Some(sample);
        if self.repetitions >= self.claim.repetitions() {
            return Err(Unhealthy::Repetition);
        }
        if self.seen == 0 {
            self.reference = sample;
            self.matches = 0;
        }
        self.matches += u16::from(sample == self.reference);
        self.seen = (self.seen + 1) % WINDOW;
        if self.matches >= self.claim.proportion() { Err(Unhealthy::Proportion) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    const CLAIMS: [MinEntropy; 4] = [MinEntropy::Half, MinEntropy::One, MinEntropy::Four, MinEntropy::Seven];

    #[test]
    fn a_stuck_source_fails_at_exactly_the_cutoff() {
        for claim in CLAIMS {
            let cutoff = usize::from(claim.repetitions());
            assert_eq!(HealthTests::new(claim).check(&vec![7; cutoff - 1]), Ok(()));
            assert_eq!(HealthTests::new(claim).check(&vec![7; cutoff]), Err(Unhealthy::Repetition));
        }
    }

    #[test]
    fn a_source_that_prefers_one_value_without_repeating_it_fails() {
        // Every other sample is the same: one bit a sample at most, and never two in a row.
        let samples: Vec<u8> =
            (0..512_u32).map(|i| if i % 2 == 0 { 0xaa } else { i.to_le_bytes()[0] }).collect();
        for claim in [MinEntropy::Four, MinEntropy::Seven] {
            assert_eq!(HealthTests::new(claim).check(&samples), Err(Unhealthy::Proportion));
        }
        assert_eq!(HealthTests::new(MinEntropy::One).check(&samples), Ok(()));
    }

    #[test]
    fn good_noise_passes_and_the_window_starts_anew() {
        let mut noise = vec![0; 1 << 20];
        ChaCha20Rng::from_seed([3; 32]).fill_bytes(&mut noise);
        for claim in CLAIMS {
            assert_eq!(HealthTests::new(claim).check(&noise), Ok(()));
        }
    }
}
