//! NOR flash in memory, as strict as the chips on the boards: words of four bytes, sectors of 4 KiB,
//! programming only clears bits. What real flash would silently corrupt is an error here, so a store that
//! works here works on a board. The image is wiped when it is dropped; it holds private keys.

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase,
    check_read, check_write,
};
use zeroize::Zeroizing;

/// Bytes in a programming unit.
pub(crate) const WRITE_SIZE: usize = 4;
/// Bytes in a sector, the unit of erasure.
pub(crate) const ERASE_SIZE: usize = 4096;
/// Bytes in the flash of a new device: 512 KiB.
pub(crate) const CAPACITY: usize = 512 * 1024;

/// What was wrong with a flash operation. The image is unchanged whenever one is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlashError {
    /// An offset or a length is not a multiple of the unit.
    #[error("flash offset or length is not aligned")]
    NotAligned,
    /// The range ends after the last byte, or before it begins.
    #[error("flash range is out of bounds")]
    OutOfBounds,
    /// Programming cannot raise a bit from 0 to 1; only erasing can.
    #[error("programming flash offset {offset:#x} would set a cleared bit")]
    SetsBit {
        /// Offset of the first byte that would rise.
        offset: usize,
    },
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::NotAligned => NorFlashErrorKind::NotAligned,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            Self::SetsBit { .. } => NorFlashErrorKind::Other,
        }
    }
}

impl From<NorFlashErrorKind> for FlashError {
    fn from(kind: NorFlashErrorKind) -> Self {
        match kind {
            NorFlashErrorKind::NotAligned => Self::NotAligned,
            _ => Self::OutOfBounds, // the only other kind that the bounds checks know
        }
    }
}

/// The flash of one device.
#[derive(Clone)]
pub(crate) struct Flash {
    image: Zeroizing<Vec<u8>>,
    changed: bool,
}

impl Flash {
    /// Erased flash of [`CAPACITY`] bytes, not yet saved anywhere.
    #[must_use]
    pub(crate) fn blank() -> Self {
        Self { image: Zeroizing::new(vec![0xff; CAPACITY]), changed: true }
    }

    /// Flash with these contents; the length is its capacity, a multiple of [`ERASE_SIZE`].
    pub(crate) fn with_image(image: Zeroizing<Vec<u8>>) -> Self {
        debug_assert!(image.len().is_multiple_of(ERASE_SIZE));
        Self { image, changed: false }
    }

    /// Empty flash, to replace the one that was taken out of a device.
    pub(crate) fn none() -> Self {
        Self::with_image(Zeroizing::default())
    }

    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    /// Whether the contents differ from those last saved.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    pub(crate) fn saved(&mut self) {
        self.changed = false;
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len())?;
        let from = offset as usize;
        bytes.copy_from_slice(self.image.get(from..from + bytes.len()).ok_or(FlashError::OutOfBounds)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.image.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WRITE_SIZE;
    const ERASE_SIZE: usize = ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to)?;
        let sectors = self.image.get_mut(from as usize..to as usize).ok_or(FlashError::OutOfBounds)?;
        self.changed |= sectors.iter().any(|byte| *byte != 0xff);
        sectors.fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len())?;
        let from = offset as usize;
        let words = self.image.get_mut(from..from + bytes.len()).ok_or(FlashError::OutOfBounds)?;
        if let Some(index) = words.iter().zip(bytes).position(|(old, new)| new & !old != 0) {
            return Err(FlashError::SetsBit { offset: from + index });
        }
        self.changed |= words != bytes;
        words.copy_from_slice(bytes);
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(flash: &mut Flash, offset: u32) -> [u8; N] {
        let mut bytes = [0; N];
        flash.read(offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn programming_clears_bits_and_never_sets_them() {
        let mut flash = Flash::blank();
        flash.write(8, &[0xf0, 0x0f, 0xff, 0x00]).unwrap();
        flash.write(8, &[0x30, 0x0f, 0x0f, 0x00]).unwrap(); // a second write of the same word may clear more
        assert_eq!(read(&mut flash, 8), [0x30, 0x0f, 0x0f, 0x00]);

        let refused = flash.write(4, &[0, 0, 0, 0, 0x30, 0x0f, 0x1f, 0x00]);
        assert_eq!(refused, Err(FlashError::SetsBit { offset: 10 }));
        assert_eq!(read(&mut flash, 4), [0xff; 4], "a refused write leaves every word as it was");
    }

    #[test]
    fn erasing_sets_exactly_the_sectors_named() {
        let mut flash = Flash::blank();
        let sector = 4096;
        for offset in [sector - 4, sector, 2 * sector - 4, 2 * sector] {
            flash.write(offset, &[0; 4]).unwrap();
        }
        flash.erase(sector, 2 * sector).unwrap();
        assert_eq!(read(&mut flash, sector - 4), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(read(&mut flash, 2 * sector - 4), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn misaligned_and_outlying_ranges_are_errors() {
        let mut flash = Flash::blank();
        let end = 512 * 1024;
        assert_eq!(flash.write(2, &[0; 4]), Err(FlashError::NotAligned));
        assert_eq!(flash.write(0, &[0; 3]), Err(FlashError::NotAligned));
        assert_eq!(flash.write(end, &[0; 4]), Err(FlashError::OutOfBounds));
        assert_eq!(flash.write(u32::MAX - 3, &[0; 4]), Err(FlashError::OutOfBounds));
        assert_eq!(flash.erase(0, 4), Err(FlashError::NotAligned));
        assert_eq!(flash.erase(4096, 0), Err(FlashError::OutOfBounds));
        assert_eq!(flash.erase(0, end + 4096), Err(FlashError::OutOfBounds));
        assert_eq!(flash.read(end - 1, &mut [0; 2]), Err(FlashError::OutOfBounds));
        assert_eq!(flash.read(u32::MAX, &mut [0; 1]), Err(FlashError::OutOfBounds));
        flash.write(end - 4, &[0; 4]).unwrap();
        assert_eq!(read(&mut flash, end - 5), [0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn only_what_alters_the_contents_counts_as_a_change() {
        let mut flash = Flash::blank();
        assert!(flash.changed(), "new flash has never been saved");
        flash.saved();
        flash.erase(0, 4096).unwrap();
        flash.write(0, &[0xff; 4]).unwrap();
        assert!(flash.write(1, &[0; 4]).is_err());
        assert!(!flash.changed());

        flash.write(0, &[0xfe; 4]).unwrap();
        assert!(flash.changed());
        flash.saved();
        flash.erase(0, 4096).unwrap();
        assert!(flash.changed());
    }
}
