//! Flash: a part of the machine's PSRAM, which QEMU maps to a file, treated as NOR flash. Programming clears
//! bits, erasing sets them, 4 KiB at a time. The file keeps programmed data when QEMU is killed.

use core::ptr::{read_volatile, with_exposed_provenance_mut, write_volatile};

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};
use sshsm_boards::QEMU;

const PSRAM: usize = QEMU.memory.flash.start as usize;
const WORD: usize = 4;
const SECTOR: usize = sshsm_boards::SECTOR as usize;
const CAPACITY: usize = QEMU.memory.flash.end as usize - PSRAM;

/// All of the flash; there is one.
pub(crate) struct Flash(());

impl Flash {
    /// Takes the flash and erases all of it.
    #[allow(dead_code, reason = "each binary takes it in its own way")]
    pub(crate) fn erased() -> Self {
        let mut flash = Self(());
        (0..CAPACITY).step_by(WORD).for_each(|offset| flash.set_word(offset, u32::MAX));
        flash
    }

    /// Takes the flash. A file that QEMU has just created is all zero, and one whose erasure was interrupted
    /// is zero in parts, which flash with a store never is: it is erased.
    #[allow(dead_code, reason = "each binary takes it in its own way")]
    pub(crate) fn take() -> Self {
        let flash = Self(());
        let mut words = (0..CAPACITY).step_by(WORD).map(|offset| flash.word(offset));
        if words.all(|word| word == 0 || word == u32::MAX) { Self::erased() } else { flash }
    }

    fn word(&self, offset: usize) -> u32 {
        assert!(offset < CAPACITY && offset.is_multiple_of(WORD));
        #[allow(unsafe_code, reason = "memory that the language does not know")]
        // SAFETY: an aligned address in the PSRAM, which holds nothing but this flash.
        unsafe {
            read_volatile(with_exposed_provenance_mut(PSRAM + offset))
        }
    }

    fn set_word(&mut self, offset: usize, word: u32) {
        assert!(offset < CAPACITY && offset.is_multiple_of(WORD));
        #[allow(unsafe_code, reason = "memory that the language does not know")]
        // SAFETY: as in `word`.
        unsafe {
            write_volatile(with_exposed_provenance_mut(PSRAM + offset), word);
        }
    }
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        for (byte, at) in bytes.iter_mut().zip(offset as usize..) {
            let [a, b, c, d] = self.word(at & !(WORD - 1)).to_le_bytes();
            *byte = match at % WORD {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        CAPACITY
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        (from as usize..to as usize).step_by(WORD).for_each(|offset| self.set_word(offset, u32::MAX));
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let (words, _) = bytes.as_chunks();
        for (word, at) in words.iter().zip((offset as usize..).step_by(WORD)) {
            self.set_word(at, self.word(at) & u32::from_le_bytes(*word));
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}
