//! The heap: one arena of the board's choice, with room for a full store plus the largest command, and a
//! count of its peak usage.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::mem::MaybeUninit;

use critical_section::Mutex;
use embedded_alloc::LlffHeap;
use sshsm_firmware::store::memory::Room;

use crate::region;

struct Counted {
    heap: LlffHeap,
    peak: Mutex<Cell<usize>>,
}

#[global_allocator]
static HEAP: Counted = Counted { heap: LlffHeap::empty(), peak: Mutex::new(Cell::new(0)) };

/// Gives the heap its memory; nothing can be allocated before. A second call panics. An image with less
/// memory than a full store needs does not build.
pub fn start<const BYTES: usize>(arena: &'static mut [MaybeUninit<u8>; BYTES]) {
    const { assert!(Room::of(BYTES, region::MAX_SECTORS).is_all(), "a full store does not fit into this heap") };
    #[allow(unsafe_code, reason = "an allocator is told its memory by address")]
    // SAFETY: the slice is valid forever and has no other owner.
    unsafe {
        HEAP.heap.init(arena.as_mut_ptr().addr(), arena.len());
    }
}

/// The most bytes that were in use at once since [`forget_peak`], or since the start.
#[must_use]
pub fn peak() -> usize {
    critical_section::with(|cs| HEAP.peak.borrow(cs).get())
}

/// Restarts counting the peak; returns the bytes currently in use.
pub fn forget_peak() -> usize {
    let used = HEAP.heap.used();
    critical_section::with(|cs| HEAP.peak.borrow(cs).set(used));
    used
}

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: both calls are passed on unchanged to an allocator that meets the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as this function's caller promises.
        let pointer = unsafe { self.heap.alloc(layout) };
        let used = self.heap.used();
        critical_section::with(|cs| {
            let peak = self.peak.borrow(cs);
            peak.set(peak.get().max(used));
        });
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as this function's caller promises.
        unsafe { self.heap.dealloc(pointer, layout) }
    }
}
