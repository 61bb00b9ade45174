//! Flash as `sequential-storage` sees it: asynchronous, although the device is synchronous, and with every
//! erasure noted in the control log before it begins. The library recognises a sector whose erasure was
//! interrupted by first bytes that are erased and last bytes that are not; real flash guarantees nothing of
//! the kind.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash as asynchronous;

use super::control::{Control, Note, State};

/// The flash and its control log.
pub(super) struct Medium<F> {
    pub(super) flash: F,
    pub(super) control: Control,
}

/// Bytes an erase sector.
pub(super) fn sector_size<F: blocking::NorFlash>() -> u32 {
    u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX)
}

impl<F: blocking::NorFlash> Medium<F> {
    /// Appends a note to the control log.
    pub(super) fn note(&mut self, state: State, floor: u32) -> Result<(), F::Error> {
        self.control.write(&mut self.flash, Note { state, floor })
    }

    /// Empties the control log.
    pub(super) fn format(&mut self) -> Result<(), F::Error> {
        self.control.format(&mut self.flash)
    }

    /// Erases a sector whose contents no longer count; a mount finishes an erasure interrupted by a power
    /// cut.
    pub(super) fn erase_sector(&mut self, sector: u16) -> Result<(), F::Error> {
        let start = u32::from(sector) * sector_size::<F>();
        let end = start + sector_size::<F>();
        match self.control.note() {
            // Interrupted resets begin again with erasing everything.
            None | Some(Note { state: State::Resetting, .. }) => self.flash.erase(start, end),
            Some(Note { floor, .. }) => {
                self.note(State::Erasing(sector), floor)?;
                self.flash.erase(start, end)?;
                self.note(State::Ready, floor)
            }
        }
    }
}

impl<F: blocking::ErrorType> blocking::ErrorType for Medium<F> {
    type Error = F::Error;
}

impl<F: blocking::NorFlash> asynchronous::ReadNorFlash for Medium<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: blocking::NorFlash> asynchronous::NorFlash for Medium<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let sectors = from / sector_size::<F>()..to / sector_size::<F>();
        // A mount refuses flash with more sectors than 16 bits can count.
        sectors
            .filter_map(|sector| u16::try_from(sector).ok())
            .try_for_each(|sector| self.erase_sector(sector))
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.flash.write(offset, bytes)
    }
}

impl<F: blocking::MultiwriteNorFlash> asynchronous::MultiwriteNorFlash for Medium<F> {}

/// Runs a future over [`Medium`] flash, which is ready at its first poll.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
