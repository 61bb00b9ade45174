//! The source of the device's randomness: the operating system, or a seed that makes a test reproducible and
//! **every key of the device predictable**.

use core::convert::Infallible;

use getrandom::SysRng;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng, UnwrapErr};

use crate::platform::RootKeyBytes;

/// The device's generator.
#[derive(Debug)]
pub(crate) enum Entropy {
    /// The operating system's generator. It panics if the system cannot supply randomness: no key may be made
    /// from less.
    System(UnwrapErr<SysRng>),
    /// ChaCha20 from a seed that anyone can repeat. **Unsafe; for tests only.**
    Seeded(Box<ChaCha20Rng>),
}

impl Entropy {
    /// The operating system's generator, or the predictable one if a seed is given.
    #[must_use]
    pub(crate) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::System(UnwrapErr(SysRng)), |seed| {
            Self::Seeded(Box::new(ChaCha20Rng::seed_from_u64(seed)))
        })
    }

    /// The root key of a new device. One from a seed has no part in what else is drawn from that seed.
    pub(crate) fn root_key(seed: Option<u64>) -> RootKeyBytes {
        let mut entropy = Self::new(seed);
        if let Self::Seeded(rng) = &mut entropy {
            rng.set_stream(1);
        }
        let mut bytes = RootKeyBytes::default();
        entropy.fill_bytes(bytes.as_mut_slice());
        bytes
    }

    /// A serial number of eight decimal digits.
    pub(crate) fn serial(&mut self) -> u32 {
        // Rejection sampling over 27 bits: two draws of three are in range.
        loop {
            let serial = self.next_u32() >> 5;
            if (10_000_000..100_000_000).contains(&serial) {
                return serial;
            }
        }
    }
}

impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            Self::System(rng) => rng.try_next_u32(),
            Self::Seeded(rng) => rng.try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            Self::System(rng) => rng.try_next_u64(),
            Self::Seeded(rng) => rng.try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::System(rng) => rng.try_fill_bytes(bytes),
            Self::Seeded(rng) => rng.try_fill_bytes(bytes),
        }
    }
}

impl TryCryptoRng for Entropy {}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: Option<u64>) -> [u8; 32] {
        let mut bytes = [0; 32];
        Entropy::new(seed).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert_ne!(draw(Some(7)), draw(Some(8)));
        assert_ne!(draw(None), draw(None));
    }

    #[test]
    fn serial_numbers_have_eight_digits() {
        for seed in 0..1000 {
            assert_eq!(Entropy::new(Some(seed)).serial().to_string().len(), 8);
        }
    }
}
