//! What fits into flash.
//!
//! The log keeps one sector free and moves live entries from sector to sector, never two sectors into one. An
//! entry of `n` bytes is therefore certain to find room while the live entries fill no more than `sector − n`
//! bytes of the average other sector. With `n` the largest entry, the store stays within that bound:
//! everything it accepts, it can also write.

use core::marker::PhantomData;

use embedded_storage::nor_flash::NorFlash;

use super::entry::{MAX_VALUE, OBJECT_HEAD, PIECE, RECORD_HEAD, TOMBSTONE, pieces};
use super::{MAX_TOMBSTONES, PAGE_SIZE, Record};

const KEY: usize = 4;

/// The bytes of a flash `F`.
pub(super) struct Capacity<F> {
    /// Bytes that the live entries of objects may have.
    pub(super) objects: usize,
    /// Deleted objects to remember.
    pub(super) tombstones: usize,
    flash: PhantomData<F>,
}

impl<F: NorFlash> Capacity<F> {
    const WORD: usize = if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE };
    const LARGEST: usize = Self::entry(MAX_VALUE);
    /// Bytes that replacements may take beyond those for new objects: a key can be changed for a longer one.
    pub(super) const REPLACEMENT: usize = Self::LARGEST;

    /// What fits into an object region of so many sectors; `None` if not even the reserves do.
    pub(super) fn of(sectors: usize) -> Option<Self> {
        let sector = F::ERASE_SIZE - 2 * Self::WORD;
        let all = sectors.checked_sub(1)? * sector.checked_sub(Self::LARGEST)?;
        // Tombstones are a convenience: no more than an eighth of small flash.
        let tombstones = MAX_TOMBSTONES.min(all / 8 / Self::entry(TOMBSTONE));
        let reserve = Self::records() + tombstones * Self::entry(TOMBSTONE) + Self::REPLACEMENT;
        let objects = all.checked_sub(reserve)?;
        Some(Self { objects, tombstones, flash: PhantomData })
    }

    /// Bytes of flash for a value: header, key, value, each in whole words.
    const fn entry(value: usize) -> usize {
        8_usize.next_multiple_of(Self::WORD) + (KEY + value).next_multiple_of(Self::WORD)
    }

    fn body(head: usize, length: usize) -> usize {
        let rest = length.saturating_sub(PIECE);
        let last = rest % PIECE;
        Self::entry(head + length.min(PIECE))
            + rest / PIECE * Self::entry(PIECE)
            + if last > 0 { Self::entry(last) } else { 0 }
    }

    /// Bytes of flash for an object with a body of `length` bytes.
    pub(super) fn object(length: usize) -> usize {
        Self::body(OBJECT_HEAD, length)
    }

    /// All records at their longest, and the longest a second time while it is replaced.
    fn records() -> usize {
        let record = |record: Record| Self::body(RECORD_HEAD, record.max_length());
        let log = usize::from(Record::LOG_ENTRIES) * record(Record::LogEntry(0));
        let memories = usize::from(Record::MEMORIES) * record(Record::SshMemory(0));
        let others = Record::SINGLE.into_iter().chain([Record::AttestationCertificate]);
        log + memories + others.map(record).sum::<usize>()
    }

    /// Objects of a page that fit into `free` bytes.
    pub(super) fn free_records(free: usize) -> u16 {
        u16::try_from(free / Self::object(PAGE_SIZE.into())).unwrap_or(u16::MAX)
    }

    /// Pages that an object has that fits into `free` bytes, were it that long.
    pub(super) fn free_pages(free: usize) -> u16 {
        // At most one word of each entry pads it.
        let length = free.saturating_sub(Self::entry(OBJECT_HEAD) + Self::WORD);
        let length = length.saturating_sub(pieces(length) * (Self::entry(0) + Self::WORD));
        u16::try_from(length / usize::from(PAGE_SIZE)).unwrap_or(u16::MAX)
    }
}
