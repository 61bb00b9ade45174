//! How much memory a store takes: all of it at the mount, and the same amount whether it is empty, full, or
//! full after any number of deletions. What fits besides everything else that the device computes is
//! therefore known when a board is built.

use sshsm_protocol::object::ObjectInfo;

use super::entry::{Entry, MAX_BODY, MAX_VALUE, PIECE, pieces};
use super::{MAX_OBJECTS, MAX_PAGES, MAX_TOMBSTONES, MAX_WORD, PAGE_SIZE, Record};

/// Bytes of heap reserved for everything but the store: twice the most that a device takes, as allocations
/// leave gaps. That is what it holds between messages (the log, the key and the template used last), and what
/// commands take on top, the most for importing a wrapped RSA-4096 key. `tests/memory.rs` counts.
pub const BESIDE: usize = 72 * 1024;
/// Bytes that an allocator adds to an allocation, at most.
const ROUNDING: usize = 16;

/// Pieces that a mount can encounter: those of all pages that objects may have, those of records, and those
/// that an interrupted change has left of an old body or a new one.
pub(super) const PIECES: usize =
    MAX_PAGES as usize * PAGE_SIZE as usize / PIECE + RECORD_PIECES + 2 * pieces(MAX_BODY);
const RECORD_PIECES: usize = pieces(Record::AttestationKey.max_length())
    + pieces(Record::AttestationCertificate.max_length())
    + pieces(Record::Options.max_length());
/// Keys whose positions in flash are remembered.
pub(super) const CACHED_KEYS: usize = MAX_OBJECTS as usize;

/// What fits into the heap of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Objects.
    pub objects: usize,
    /// Names of deleted objects, whose sequence numbers are remembered.
    pub deleted: usize,
}

impl Room {
    /// What every store has room for, flash permitting.
    pub const ALL: Self = Self { objects: MAX_OBJECTS as usize, deleted: MAX_TOMBSTONES };

    /// What fits into a heap of this many bytes, after everything else that a device needs it for, with a
    /// flash of this many sectors: objects first, and no more than [`Room::ALL`].
    #[must_use]
    pub const fn of(heap: usize, sectors: usize) -> Self {
        let left = heap.saturating_sub(BESIDE + Self { objects: 0, deleted: 0 }.bytes(sectors));
        let objects = at_most(left / OBJECT, Self::ALL.objects);
        let deleted = at_most((left - objects * OBJECT) / DELETED, Self::ALL.deleted);
        Self { objects, deleted }
    }

    /// Whether there is room for everything that a store can hold.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.objects == Self::ALL.objects && self.deleted == Self::ALL.deleted
    }

    /// Bytes of heap that a store with this room takes, from the mount on.
    #[must_use]
    pub const fn bytes(self, sectors: usize) -> usize {
        let pages = sectors * (size_of::<u8>() + 2 * size_of::<u32>());
        let buffer = size_of::<u32>() + MAX_VALUE + MAX_WORD;
        let fixed = Record::COUNT * size_of::<Entry>()
            + PIECES * size_of::<u32>()
            + CACHED_KEYS * 2 * size_of::<u32>()
            + pages
            + buffer;
        const ALLOCATIONS: usize = 8;
        fixed + self.objects * OBJECT + self.deleted * DELETED + ALLOCATIONS * ROUNDING
    }
}

const OBJECT: usize = size_of::<Entry>() + size_of::<ObjectInfo>();
const DELETED: usize = size_of::<Entry>();

const fn at_most(number: usize, limit: usize) -> usize {
    if number < limit { number } else { limit }
}
