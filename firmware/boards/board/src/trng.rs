//! RP2350's TRNG (datasheet 12.12), with all of its own tests switched on and a time limit: it returns a
//! block of noise, or reports in time that there is none.
//!
//! Its tests fail on sound noise too: two equal runs of 16 bits occur in one block of 5500. The datasheet
//! says for only one test what happens then (autocorrelation: the TRNG stops permanently). Whichever test has
//! failed, and also when nothing happens at all, the TRNG is therefore reset and samples its oscillator more
//! slowly the next time. What was collected before a reset is never returned, nor is the first block after
//! one.

use core::time::Duration;

use zeroize::Zeroizing;

use crate::entropy::{Noise, wait};
use crate::health::{MinEntropy, Unhealthy};

/// The peripheral's registers, by their offsets from its address.
pub trait Registers {
    /// Reads the register at this offset.
    fn read(&self, offset: usize) -> u32;

    /// Writes it.
    fn write(&mut self, offset: usize, value: u32);
}

const RNG_IMR: usize = 0x100;
const RNG_ISR: usize = 0x104;
const RNG_ICR: usize = 0x108;
const TRNG_CONFIG: usize = 0x10c;
const TRNG_VALID: usize = 0x110;
const EHR_DATA: [usize; 6] = [0x114, 0x118, 0x11c, 0x120, 0x124, 0x128];
const RND_SOURCE_ENABLE: usize = 0x12c;
const SAMPLE_CNT1: usize = 0x130;
const TRNG_DEBUG_CONTROL: usize = 0x138;
const TRNG_SW_RESET: usize = 0x140;

/// In `RNG_ISR`: the autocorrelation test, the comparison of runs of 16 bits, von Neumann's corrector.
const ERRORS: u32 = 0b1110;
/// All bits of `RNG_ISR`.
const ALL: u32 = 0b1111;
/// Which chain of inverters: with the second shortest, a sampling interval of 20 to 25 gives acceptable noise
/// (12.12.2).
const CHAIN: u32 = 1;
/// Clock cycles between two samples at first: four times the acceptable interval, which "significantly
/// reduces" failed tests.
const INTERVAL: u32 = 100;
/// Tries for one block; every second one samples half as often as the one before.
const TRIES: u32 = 12;
/// How long a try waits for its block: at the longest interval one takes 0.25 s (8 ms at [`INTERVAL`], by
/// 12.12.2).
const PATIENCE: Duration = Duration::from_millis(1000);
/// Bytes of a block.
const BLOCK: usize = 24;
type Block = Zeroizing<[u8; BLOCK]>;

/// The generator.
pub struct Trng<R> {
    registers: R,
    now: fn() -> Duration,
    /// The first block after a reset has been thrown away.
    settled: bool,
}

impl<R: Registers> Trng<R> {
    /// Takes the peripheral, in whatever state it was left, and starts it. `now` is a clock.
    pub fn start(registers: R, now: fn() -> Duration) -> Self {
        let mut trng = Self { registers, now, settled: false };
        trng.reset(INTERVAL);
        trng
    }

    /// Restarts, discarding everything that was collected.
    fn reset(&mut self, interval: u32) {
        let registers = &mut self.registers;
        registers.write(TRNG_SW_RESET, 1);
        registers.read(TRNG_SW_RESET); // takes as long as the reset
        registers.write(RND_SOURCE_ENABLE, 0);
        registers.write(RNG_IMR, ALL); // no interrupts: it is asked
        registers.write(RNG_ICR, ALL);
        registers.write(TRNG_CONFIG, CHAIN);
        registers.write(TRNG_DEBUG_CONTROL, 0); // no test is left out
        registers.write(SAMPLE_CNT1, interval);
        registers.write(RND_SOURCE_ENABLE, 1);
        self.settled = false;
    }

    /// Waits for a block.
    fn collect(&self) -> Result<Block, Unhealthy> {
        let registers = &self.registers;
        let failed = wait(self.now, PATIENCE, || {
            let failed = registers.read(RNG_ISR) & ERRORS != 0;
            let valid = registers.read(TRNG_VALID) & 1 != 0;
            (failed || valid).then_some(failed)
        });
        match failed {
            None => Err(Unhealthy::Silent),
            Some(true) => Err(Unhealthy::Source),
            Some(false) => {
                let mut block = Block::default();
                for (bytes, register) in block.chunks_exact_mut(4).zip(EHR_DATA) {
                    bytes.copy_from_slice(&registers.read(register).to_le_bytes());
                }
                Ok(block)
            }
        }
    }

    /// Waits for a block that may be given.
    fn settle_and_collect(&mut self) -> Result<Block, Unhealthy> {
        if !self.settled {
            self.collect()?;
            self.settled = true;
        }
        self.collect()
    }

    /// The next good block, however many are rejected before.
    fn block(&mut self) -> Result<Block, Unhealthy> {
        let mut defect = Unhealthy::Source;
        for attempt in 0..TRIES {
            match self.settle_and_collect() {
                Ok(block) => return Ok(block),
                Err(found) => defect = found,
            }
            self.reset(INTERVAL << (attempt / 2));
        }
        Err(defect)
    }
}

impl<R: Registers> Noise for Trng<R> {
    const MIN_ENTROPY: MinEntropy = MinEntropy::Four;

    fn read(&mut self, samples: &mut [u8]) -> Result<(), Unhealthy> {
        for samples in samples.chunks_mut(BLOCK) {
            let block = self.block()?;
            samples.iter_mut().zip(block.iter()).for_each(|(sample, byte)| *sample = *byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, VecDeque};

    use super::*;

    const AUTOCORRELATION: u32 = 2;
    const REPEATED_RUN: u32 = 4;
    const VON_NEUMANN: u32 = 8;

    std::thread_local! {
        static CLOCK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Each reading of the clock takes a millisecond.
    fn now() -> Duration {
        CLOCK.set(CLOCK.get() + Duration::from_millis(1));
        CLOCK.get()
    }

    /// What becomes of a block that is being collected.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Fate {
        Good,
        /// A test fails: this bit, and nothing any more until a reset.
        Fails(u32),
        /// Nothing ever happens.
        Silence,
    }

    /// The peripheral: blocks are numbered, and each byte of one is its number.
    struct Model {
        registers: BTreeMap<usize, u32>,
        /// The coming outcomes; the last repeats forever.
        fates: RefCell<VecDeque<Fate>>,
        state: RefCell<State>,
    }

    #[derive(Default)]
    struct State {
        block: u8,
        valid: bool,
        isr: u32,
        stopped: bool,
        resets: usize,
        intervals: Vec<u32>,
    }

    impl Model {
        /// As the boot ROM leaves it: with a block of raw samples, number 0, that is marked as good.
        fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
            let fates = RefCell::new(fates.into_iter().collect());
            let state = State { valid: true, isr: 1, ..State::default() };
            let registers = BTreeMap::from([(TRNG_DEBUG_CONTROL, 0xff), (SAMPLE_CNT1, 0)]);
            Self { registers, fates, state: RefCell::new(state) }
        }

        fn register(&self, offset: usize) -> u32 {
            self.registers.get(&offset).copied().unwrap_or_default()
        }

        fn step(&self) {
            let mut state = self.state.borrow_mut();
            if self.register(RND_SOURCE_ENABLE) != 1 || state.valid || state.stopped {
                return;
            }
            assert_eq!(self.register(TRNG_DEBUG_CONTROL), 0, "a test is left out");
            assert!((25..=6400).contains(&self.register(SAMPLE_CNT1)), "the interval is not set");
            let mut fates = self.fates.borrow_mut();
            let fate = if fates.len() > 1 { fates.pop_front().unwrap() } else { fates[0] };
            match fate {
                Fate::Good => {
                    state.block += 1;
                    state.valid = true;
                    state.isr |= 1;
                }
                Fate::Fails(bit) => {
                    state.isr |= bit;
                    state.stopped = true;
                }
                Fate::Silence => state.stopped = true,
            }
        }
    }

    impl Registers for Model {
        fn read(&self, offset: usize) -> u32 {
            self.step();
            let mut state = self.state.borrow_mut();
            match offset {
                RNG_ISR => state.isr,
                TRNG_VALID => state.valid.into(),
                0x114..=0x128 => {
                    let value = if state.valid { u32::from_le_bytes([state.block; 4]) } else { 0 };
                    state.valid &= offset != 0x128;
                    value
                }
                _ => self.register(offset),
            }
        }

        fn write(&mut self, offset: usize, value: u32) {
            let mut state = self.state.borrow_mut();
            match offset {
                RNG_ICR => state.isr &= !value | AUTOCORRELATION,
                TRNG_SW_RESET if value == 1 => {
                    let (block, resets) = (state.block, state.resets + 1);
                    let intervals = core::mem::take(&mut state.intervals);
                    *state = State { block, resets, intervals, ..State::default() };
                    self.registers = BTreeMap::from([(SAMPLE_CNT1, 0xffff)]);
                }
                _ => {
                    if offset == SAMPLE_CNT1 {
                        state.intervals.push(value);
                    }
                    self.registers.insert(offset, value);
                }
            }
        }
    }

    /// The blocks that make 72 bytes, by their numbers, and how long they took.
    fn read(trng: &mut Trng<Model>) -> (Result<Vec<u8>, Unhealthy>, Duration) {
        let begun = CLOCK.get();
        let mut samples = [0xee; 3 * BLOCK];
        let read = trng.read(&mut samples).map(|()| {
            let blocks = samples.chunks(BLOCK);
            blocks.map(|block| if block == [block[0]; BLOCK] { block[0] } else { 0xff }).collect()
        });
        (read, CLOCK.get() - begun)
    }

    fn started(fates: impl IntoIterator<Item = Fate>) -> Trng<Model> {
        Trng::start(Model::new(fates), now)
    }

    #[test]
    fn neither_what_the_boot_rom_left_nor_the_first_block_is_given() {
        let mut trng = started([Fate::Good]);
        assert_eq!(read(&mut trng).0, Ok(vec![2, 3, 4]));
        assert_eq!(read(&mut trng).0, Ok(vec![5, 6, 7]));
        assert_eq!(trng.registers.state.borrow().resets, 1);
    }

    #[test]
    fn whatever_test_fails_the_generator_is_reset_and_goes_on() {
        for fate in
            [AUTOCORRELATION, REPEATED_RUN, VON_NEUMANN].map(Fate::Fails).into_iter().chain([Fate::Silence])
        {
            // At the first block, at the first that counts, later, and twice in a row.
            for good in 0..5_u8 {
                let fates = [vec![Fate::Good; good.into()], vec![fate, fate, Fate::Good]].concat();
                let mut trng = started(fates);
                let blocks = read(&mut trng).0.unwrap();
                assert_eq!(blocks.len(), 3, "{fate:?} after {good}");
                let first = if good < 2 { good + 2 } else { 2 };
                assert_eq!(blocks[0], first, "{fate:?} after {good}");
                assert!(blocks.is_sorted_by(|a, b| a < b) && !blocks.contains(&0xff), "{blocks:?}");
                read(&mut trng).0.unwrap();
                assert_eq!(trng.registers.state.borrow().resets, 3, "{fate:?} after {good}");
            }
        }
    }

    #[test]
    fn a_generator_that_gives_nothing_is_given_up_in_time() {
        for (fate, defect) in [
            (Fate::Fails(AUTOCORRELATION), Unhealthy::Source),
            (Fate::Fails(REPEATED_RUN), Unhealthy::Source),
            (Fate::Fails(VON_NEUMANN), Unhealthy::Source),
            (Fate::Silence, Unhealthy::Silent),
        ] {
            for good in [0, 1, 2, 4] {
                let mut trng = started([vec![Fate::Good; good], vec![fate]].concat());
                let (outcome, time) = (0..2).map(|_| read(&mut trng)).last().unwrap();
                assert_eq!(outcome, Err(defect), "{fate:?} after {good}");
                assert!(time < Duration::from_secs(30), "{time:?}");
            }
        }
    }

    #[test]
    fn each_second_try_samples_half_as_often() {
        let mut trng = started([Fate::Fails(REPEATED_RUN)]);
        read(&mut trng).0.unwrap_err();
        let intervals = trng.registers.state.borrow().intervals.clone();
        assert_eq!(intervals, [100, 100, 100, 200, 200, 400, 400, 800, 800, 1600, 1600, 3200, 3200]);
    }
}
