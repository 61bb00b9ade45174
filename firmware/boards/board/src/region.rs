//! A part of a chip's flash, with the word that the store may rely on.
//!
//! Programming is in order word by word: a power cut leaves whole words before it and untouched ones behind it. Erasing
//! is sector by sector, so that interrupts which have to wait for it wait for one sector only.

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError as _, NorFlashErrorKind, ReadNorFlash,
    check_erase, check_read, check_write,
};

/// Sectors that a board's store has at most: each takes memory (`store::memory` of the firmware).
pub const MAX_SECTORS: usize = 128;

/// Bytes `start..start + length` of a flash, programmed in words of `WORD` bytes.
pub struct Region<F, const WORD: usize> {
    flash: F,
    start: u32,
    length: u32,
}

impl<F: NorFlash, const WORD: usize> Region<F, WORD> {
    /// A part of the flash, in whole sectors; `None` when it is not, not within the flash, or of more than [`MAX_SECTORS`].
    pub fn new(flash: F, start: u32, length: u32) -> Option<Self> {
        const { assert!(WORD.is_multiple_of(F::WRITE_SIZE) && F::ERASE_SIZE.is_multiple_of(WORD)) };
        check_erase(&flash, start, start.checked_add(length)?).ok()?;
        if length as usize > MAX_SECTORS * F::ERASE_SIZE {
            return None;
        }
        Some(Self { flash, start, length })
    }
}

impl<F, const WORD: usize> ErrorType for Region<F, WORD> {
    type Error = NorFlashErrorKind;
}

impl<F: NorFlash, const WORD: usize> ReadNorFlash for Region<F, WORD> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        self.flash.read(self.start + offset, bytes).map_err(|error| error.kind())
    }

    fn capacity(&self) -> usize {
        self.length as usize
    }
}

impl<F: NorFlash, const WORD: usize> NorFlash for Region<F, WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        for sector in (from..to).step_by(F::ERASE_SIZE) {
            let at = self.start + sector;
            let next = at + u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
            self.flash.erase(at, next).map_err(|error| error.kind())?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        for (word, at) in bytes.chunks(WORD).zip((self.start + offset..).step_by(WORD)) {
            self.flash.write(at, word).map_err(|error| error.kind())?;
        }
        Ok(())
    }
}

impl<F: MultiwriteNorFlash, const WORD: usize> MultiwriteNorFlash for Region<F, WORD> {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Flash with bytes for words, that notes what is done to it.
    pub(crate) struct Model {
        pub(crate) bytes: Vec<u8>,
        done: Vec<(&'static str, u32, usize)>,
    }

    impl Model {
        pub(crate) fn new(sectors: usize) -> Self {
            Self { bytes: vec![0xff; sectors * Self::ERASE_SIZE], done: Vec::new() }
        }
    }

    impl ErrorType for Model {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for Model {
        const READ_SIZE: usize = 1;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            check_read(self, offset, bytes.len())?;
            bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl NorFlash for Model {
        const WRITE_SIZE: usize = 1;
        const ERASE_SIZE: usize = 4096;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
            check_erase(self, from, to)?;
            self.done.push(("erase", from, (to - from) as usize));
            self.bytes[from as usize..to as usize].fill(0xff);
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
            check_write(self, offset, bytes.len())?;
            self.done.push(("write", offset, bytes.len()));
            self.bytes[offset as usize..].iter_mut().zip(bytes).for_each(|(old, new)| *old &= new);
            Ok(())
        }
    }

    impl MultiwriteNorFlash for Model {}

    #[test]
    fn a_write_is_word_after_word_and_an_erasure_sector_after_sector() {
        let mut region = Region::<_, 16>::new(Model::new(8), 4096, 3 * 4096).unwrap();
        region.write(32, &[7; 48]).unwrap();
        region.erase(4096, 3 * 4096).unwrap();
        let words = [32, 48, 64].map(|at| ("write", 4096 + at, 16));
        let sectors = [2, 3].map(|sector| ("erase", 4096 * sector, 4096));
        assert_eq!(region.flash.done, [words.as_slice(), &sectors].concat());
        let mut bytes = [0; 64];
        region.read(16, &mut bytes).unwrap();
        assert_eq!(bytes, *[[0xff; 16], [7; 16], [7; 16], [7; 16]].as_flattened());
    }

    #[test]
    fn nothing_outside_the_region_and_nothing_within_a_word_is_touched() {
        let mut region = Region::<_, 16>::new(Model::new(8), 4096, 2 * 4096).unwrap();
        assert_eq!(region.write(2 * 4096, &[0; 16]), Err(NorFlashErrorKind::OutOfBounds));
        assert_eq!(region.write(8, &[0; 16]), Err(NorFlashErrorKind::NotAligned));
        assert_eq!(region.erase(0, 3 * 4096), Err(NorFlashErrorKind::OutOfBounds));
        assert_eq!(region.read(8191, &mut [0; 2]), Err(NorFlashErrorKind::OutOfBounds));
        assert!(region.flash.done.is_empty());
        for (start, length) in [(4096, 8 * 4096), (100, 4096), (u32::MAX & !4095, 4096)] {
            assert!(Region::<_, 16>::new(Model::new(8), start, length).is_none());
        }
        assert!(Region::<_, 16>::new(Model::new(200), 0, 128 * 4096).is_some());
        assert!(Region::<_, 16>::new(Model::new(200), 0, 129 * 4096).is_none(), "memory for 128 sectors");
    }
}
