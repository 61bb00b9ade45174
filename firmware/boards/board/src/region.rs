//! Parts of a chip's flash, combined into one, with the word size that the store relies on.
//!
//! Programming is in order, word by word: a power cut leaves whole words before it and untouched ones after
//! it. Erasing is sector by sector, so that interrupts wait for at most one sector.
//!
//! A region that was blank all over at the start is new. There, a sector that is still blank is not erased:
//! that would cost a first start several seconds. In any other region, reading as blank does not mean that a
//! sector is blank: its erasure may have been interrupted.

use core::ops::Range;

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError as _, NorFlashErrorKind, ReadNorFlash,
    check_erase, check_read, check_write,
};

/// Maximum number of sectors of a board's store: each takes memory (`store::memory` of the firmware).
pub const MAX_SECTORS: usize = 128;

/// Consecutive parts of a flash, programmed in words of `WORD` bytes.
pub struct Region<F, const WORD: usize> {
    flash: F,
    parts: &'static [Range<u32>],
    length: u32,
    /// All of it was blank at the start.
    new: bool,
}

/// Why there is no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// A part does not consist of whole sectors, or not all of it is in the flash.
    #[error("the store's place is not in the flash")]
    Place,
    /// More than [`MAX_SECTORS`].
    #[error("the store's place is larger than the memory for it")]
    Large,
    /// The flash cannot be read.
    #[error("the flash failed ({0:?})")]
    Flash(NorFlashErrorKind),
}

impl<F: NorFlash, const WORD: usize> Region<F, WORD> {
    /// Parts of the flash, in whole sectors.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn new(flash: F, parts: &'static [Range<u32>]) -> Result<Self, RegionError> {
        const { assert!(WORD.is_multiple_of(F::WRITE_SIZE) && F::ERASE_SIZE.is_multiple_of(WORD)) };
        let mut length = 0_u32;
        for part in parts {
            check_erase(&flash, part.start, part.end).map_err(|_| RegionError::Place)?;
            length = length.checked_add(part.end - part.start).ok_or(RegionError::Place)?;
        }
        if length as usize > MAX_SECTORS * F::ERASE_SIZE {
            return Err(RegionError::Large);
        }
        let mut region = Self { flash, parts, length, new: false };
        region.new = region.blank(0, length).map_err(RegionError::Flash)?;
        Ok(region)
    }

    /// Whether `from..to` reads as erased.
    fn blank(&mut self, from: u32, to: u32) -> Result<bool, NorFlashErrorKind> {
        let mut bytes = [0; 256];
        for at in (from..to).step_by(bytes.len()) {
            self.read(at, &mut bytes)?;
            if bytes.iter().any(|byte| *byte != 0xff) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<F, const WORD: usize> Region<F, WORD> {
    /// Where `offset` is in the flash, and how many bytes from there on are in the same part.
    fn place(&self, offset: u32) -> Result<(u32, u32), NorFlashErrorKind> {
        let mut before = 0;
        for part in self.parts {
            let length = part.end - part.start;
            if offset - before < length {
                return Ok((part.start + (offset - before), length - (offset - before)));
            }
            before += length;
        }
        Err(NorFlashErrorKind::OutOfBounds)
    }
}

impl<F, const WORD: usize> ErrorType for Region<F, WORD> {
    type Error = NorFlashErrorKind;
}

impl<F: NorFlash, const WORD: usize> ReadNorFlash for Region<F, WORD> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let (at, rest) = self.place(offset)?;
            let (now, later) = bytes.split_at_mut(bytes.len().min(rest as usize));
            self.flash.read(at, now).map_err(|error| error.kind())?;
            (offset, bytes) = (offset.saturating_add(rest), later);
        }
        Ok(())
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
        let length = const { sector::<F>() };
        for sector in (from..to).step_by(F::ERASE_SIZE) {
            if self.new && self.blank(sector, sector + length)? {
                continue;
            }
            let (at, _) = self.place(sector)?;
            self.flash.erase(at, at + length).map_err(|error| error.kind())?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        for (word, offset) in bytes.chunks(WORD).zip((offset..).step_by(WORD)) {
            let (at, _) = self.place(offset)?;
            self.flash.write(at, word).map_err(|error| error.kind())?;
        }
        Ok(())
    }
}

impl<F: MultiwriteNorFlash, const WORD: usize> MultiwriteNorFlash for Region<F, WORD> {}

/// Bytes of a sector.
const fn sector<F: NorFlash>() -> u32 {
    assert!(F::ERASE_SIZE <= 1 << 20);
    #[allow(clippy::cast_possible_truncation, reason = "it was looked at just now")]
    let length = F::ERASE_SIZE as u32;
    length
}

/// The size after which a flash repeats, if it is smaller than the `claimed` size: a chip ignores the address
/// lines that it lacks. The image at its beginning serves as the mark.
///
/// # Errors
/// The flash cannot be read. The flash cannot be read.
pub fn repeats_at<F: ReadNorFlash>(flash: &mut F, claimed: u32) -> Result<Option<u32>, F::Error> {
    const MARK: u32 = 4096;
    let (mut first, mut again) = ([0; 256], [0; 256]);
    // The smallest first: a chip of 1 MiB begins again at 2 MiB too.
    for size in [16, 8, 4, 2].map(|part| claimed / part) {
        let mut same = true;
        let mut offsets = (0..MARK).step_by(first.len());
        while let (true, Some(offset)) = (same, offsets.next()) {
            flash.read(offset, &mut first)?;
            flash.read(size + offset, &mut again)?;
            same = first == again;
        }
        if same {
            return Ok(Some(size));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Flash with one-byte words that records what is done to it.
    pub(crate) struct Model {
        pub(crate) bytes: Vec<u8>,
        done: Vec<(&'static str, u32, usize)>,
    }

    impl Model {
        pub(crate) fn new(sectors: usize) -> Self {
            Self { bytes: vec![0xff; sectors * Self::ERASE_SIZE], done: Vec::new() }
        }

        /// A used flash: every byte is zero.
        fn used(sectors: usize) -> Self {
            Self { bytes: vec![0; sectors * Self::ERASE_SIZE], done: Vec::new() }
        }
    }

    /// Three sectors, then two, with a gap between them.
    const PARTS: &[Range<u32>] = &[4096..4 * 4096, 6 * 4096..8 * 4096];

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
        let mut region = Region::<_, 16>::new(Model::used(8), PARTS).unwrap();
        region.erase(0, 4096).unwrap();
        region.write(32, &[7; 48]).unwrap();
        region.erase(4096, 3 * 4096).unwrap();
        let words = [32, 48, 64].map(|at| ("write", 4096 + at, 16));
        let sectors = [1, 2, 3].map(|sector| ("erase", 4096 * sector, 4096));
        assert_eq!(region.flash.done, [&sectors[..1], &words, &sectors[1..]].concat());
        let mut bytes = [0; 64];
        region.read(16, &mut bytes).unwrap();
        assert_eq!(bytes, *[[0xff; 16], [7; 16], [7; 16], [7; 16]].as_flattened());
    }

    #[test]
    fn the_parts_are_one_and_what_lies_between_them_is_left_alone() {
        let mut region = Region::<_, 16>::new(Model::used(9), PARTS).unwrap();
        assert_eq!(region.capacity(), 5 * 4096);
        region.erase(0, 5 * 4096).unwrap();
        region.write(3 * 4096 - 16, &[7; 32]).unwrap();
        let mut bytes = [0; 64];
        region.read(3 * 4096 - 32, &mut bytes).unwrap();
        assert_eq!(bytes, *[[0xff; 16], [7; 16], [7; 16], [0xff; 16]].as_flattened());
        let touched: Vec<u32> = region.flash.done.iter().map(|(_, at, _)| at / 4096).collect();
        assert_eq!(touched, [1, 2, 3, 6, 7, 3, 6]);
        assert!([0, 4, 5, 8].iter().all(|sector| region.flash.bytes[sector * 4096..][..4096] == [0; 4096]));
    }

    #[test]
    fn a_new_region_is_erased_only_where_something_was_written() {
        let mut region = Region::<_, 16>::new(Model::new(8), PARTS).unwrap();
        region.erase(0, 5 * 4096).unwrap();
        assert_eq!(region.flash.done, []);
        region.write(4096 + 32, &[7; 16]).unwrap();
        region.erase(0, 5 * 4096).unwrap();
        assert_eq!(region.flash.done[1..], [("erase", 2 * 4096, 4096)]);
        // If anything is left, a sector that looks blank may be one whose erasure was interrupted.
        let mut used = Model::new(8);
        used.bytes[8 * 4096 - 1] = 0xfe;
        let mut region = Region::<_, 16>::new(used, PARTS).unwrap();
        region.erase(0, 5 * 4096).unwrap();
        let sectors = [1, 2, 3, 6, 7].map(|sector| ("erase", 4096 * sector, 4096));
        assert_eq!(region.flash.done, sectors);
    }

    #[test]
    fn a_flash_that_begins_again_is_found_out() {
        /// As a chip of `size` bytes answers.
        struct Small {
            flash: Model,
            size: u32,
        }
        impl ErrorType for Small {
            type Error = NorFlashErrorKind;
        }
        impl ReadNorFlash for Small {
            const READ_SIZE: usize = 1;
            fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
                self.flash.read(offset % self.size, bytes)
            }
            fn capacity(&self) -> usize {
                self.flash.capacity()
            }
        }
        for image in [100, 300] {
            let mut flash = Model::new(256);
            let number = |at: usize| (at % 251) as u8 ^ (at / 4096) as u8;
            flash.bytes[..image * 1024].iter_mut().enumerate().for_each(|(at, byte)| *byte = number(at));
            let mut chip = Small { flash, size: 1 << 20 };
            assert_eq!(repeats_at(&mut chip, 1 << 20), Ok(None));
            for size in [1 << 19, 1 << 18] {
                chip.size = size;
                assert_eq!(repeats_at(&mut chip, 1 << 20), Ok(Some(size)));
            }
        }
    }

    #[test]
    fn nothing_outside_the_region_and_nothing_within_a_word_is_touched() {
        let mut region = Region::<_, 16>::new(Model::used(8), PARTS).unwrap();
        assert_eq!(region.write(5 * 4096, &[0; 16]), Err(NorFlashErrorKind::OutOfBounds));
        assert_eq!(region.write(8, &[0; 16]), Err(NorFlashErrorKind::NotAligned));
        assert_eq!(region.erase(0, 6 * 4096), Err(NorFlashErrorKind::OutOfBounds));
        assert_eq!(region.read(5 * 4096 - 1, &mut [0; 2]), Err(NorFlashErrorKind::OutOfBounds));
        assert!(region.flash.done.is_empty());
        const BAD: [&[Range<u32>]; 3] = [&[4096..9 * 4096], &[100..4196], &[0..4096, 8 * 4096..9 * 4096]];
        for parts in BAD {
            let region = Region::<_, 16>::new(Model::new(8), parts);
            assert_eq!(region.err(), Some(RegionError::Place));
        }
        // There is memory for 128 sectors.
        assert!(Region::<_, 16>::new(Model::new(200), &[0..128 * 4096]).is_ok());
        let large = Region::<_, 16>::new(Model::new(200), &[0..64 * 4096, 70 * 4096..135 * 4096]);
        assert_eq!(large.err(), Some(RegionError::Large));
    }
}
