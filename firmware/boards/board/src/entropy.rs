//! The device's generator: ChaCha20, keyed from the board's noise and rekeyed after every draw.
//!
//! Noise passes its health tests ([`health`](crate::health)) before it is used, at the start and ever after.
//! It enters through SHA-256, together with the old key, so that noise which turns out to be bad does no
//! harm. Each draw begins with a new key and discards the old one: an attacker who reads this memory later
//! learns nothing about earlier draws. A failed source stops the device ([`restart`](crate::restart)); weak
//! bytes are never returned.

use core::convert::Infallible;
use core::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _, TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::health::{HealthTests, MinEntropy, Unhealthy};

/// A board's noise source, as raw as the chip supplies it.
pub trait Noise {
    /// The entropy that the board claims.
    const MIN_ENTROPY: MinEntropy;

    /// Fills `samples`; an error if the hardware's own tests find a defect.
    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy>;
}

/// Waits until `done` has an answer, and no longer than `patience`: what waits for hardware has to have an end.
pub fn wait<T>(now: fn() -> Duration, patience: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = now();
    loop {
        // Time that passed between the two, in an interrupt perhaps, is not the hardware's fault.
        let late = now().saturating_sub(begun) >= patience;
        let answer = done();
        if answer.is_some() || late {
            return answer;
        }
    }
}

/// Bits of noise in a key: as strong as the key, and 64 bits more (SP 800-90C, 3.1.5.1.2).
const SEED_BITS: usize = 256 + 64;
/// Draws from one seed.
const RESEED_INTERVAL: u16 = 1024;

/// The device's generator over a board's noise.
pub struct Entropy<N> {
    noise: N,
    tests: HealthTests,
    key: Zeroizing<[u8; 32]>,
    draws: u16,
    stop: fn(Unhealthy) -> !,
}

impl<N: Noise> Entropy<N> {
    /// Tests the source and takes the first seed. `stop` ends the device if the source fails later.
    pub fn start(mut noise: N, stop: fn(Unhealthy) -> !) -> Result<Self, Unhealthy> {
        let mut tests = HealthTests::new(N::MIN_ENTROPY);
        let mut samples = Zeroizing::new([0; 64]);
        for _ in 0..HealthTests::START_UP / samples.len() {
            noise.read(samples.as_mut())?;
            tests.check(samples.as_ref())?;
        }
        let mut entropy = Self { noise, tests, key: Zeroizing::default(), draws: 0, stop };
        entropy.reseed()?;
        Ok(entropy)
    }

    /// Mixes fresh noise into the key.
    pub fn reseed(&mut self) -> Result<(), Unhealthy> {
        let mut hash = Sha256::new_with_prefix(self.key.as_ref());
        let mut samples = Zeroizing::new([0; 64]);
        let mut missing = N::MIN_ENTROPY.bytes_for(SEED_BITS);
        while missing > 0 {
            self.noise.read(samples.as_mut())?;
            self.tests.check(samples.as_ref())?;
            hash.update(samples.as_ref());
            missing = missing.saturating_sub(samples.len());
        }
        let mut digest = hash.finalize();
        self.key.copy_from_slice(&digest);
        digest.as_mut_slice().zeroize();
        self.draws = 0;
        Ok(())
    }

    fn draw(&mut self, bytes: &mut [u8]) {
        if self.draws >= RESEED_INTERVAL
            && let Err(unhealthy) = self.reseed()
        {
            (self.stop)(unhealthy)
        }
        self.draws += 1;
        let mut stream = ChaCha20Rng::from_seed(*self.key);
        stream.fill_bytes(self.key.as_mut());
        stream.fill_bytes(bytes);
        // The generator has no way to clear itself: its own key is the old one, so it must not stay in memory.
        stream = ChaCha20Rng::from_seed([0; 32]);
        core::hint::black_box(&stream);
    }
}

impl<N: Noise> TryRng for Entropy<N> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.draw(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.draw(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.draw(bytes);
        Ok(())
    }
}

impl<N: Noise> TryCryptoRng for Entropy<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that repeats from run to run, and goes bad after a number of samples.
    struct Model {
        stream: ChaCha20Rng,
        good: usize,
        read: usize,
    }

    impl Model {
        fn new(seed: u8, good: usize) -> Self {
            Self { stream: ChaCha20Rng::from_seed([seed; 32]), good, read: 0 }
        }
    }

    impl Noise for Model {
        const MIN_ENTROPY: MinEntropy = MinEntropy::One;

        fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
            self.read += samples.len();
            if self.read <= self.good {
                self.stream.fill_bytes(samples)
            } else {
                samples.fill(0)
            }
            Ok(())
        }
    }

    fn stop(unhealthy: Unhealthy) -> ! {
        panic!("stopped: {unhealthy}")
    }

    fn started(seed: u8) -> Entropy<Model> {
        Entropy::start(Model::new(seed, usize::MAX), stop).unwrap()
    }

    #[test]
    fn a_source_that_is_bad_at_the_start_or_while_seeding_starts_nothing() {
        for good in [0, 512, HealthTests::START_UP, HealthTests::START_UP + 128] {
            assert_eq!(Entropy::start(Model::new(1, good), stop).err(), Some(Unhealthy::Repetition));
        }
    }

    #[test]
    fn a_seed_has_all_the_noise_that_its_claim_asks_for() {
        assert!(started(1).noise.read >= HealthTests::START_UP + SEED_BITS);
    }

    #[test]
    #[should_panic(expected = "stopped: the noise source repeats itself")]
    fn a_source_that_goes_bad_stops_the_device_at_the_next_seed() {
        let seeded = started(1).noise.read;
        let mut entropy = Entropy::start(Model::new(1, seeded), stop).unwrap();
        (0..=RESEED_INTERVAL).for_each(|_| {
            entropy.next_u32();
        });
    }

    #[test]
    fn every_draw_and_every_seed_changes_the_key() {
        let mut entropy = started(1);
        let first = *entropy.key;
        let mut bytes = [0; 32];
        entropy.fill_bytes(&mut bytes);
        let second = *entropy.key;
        assert!(first != second && bytes != second && bytes != first);
        entropy.reseed().unwrap();
        assert_ne!(*entropy.key, second);
    }

    #[test]
    fn draws_follow_from_the_noise_and_differ() {
        let draws = |seed: u8| -> Vec<u64> {
            let mut entropy = started(seed);
            (0..3000).map(|_| entropy.next_u64()).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let mut unique = draws(1);
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 3000);
    }
}
