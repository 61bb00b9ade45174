//! The maximum depth of the stack: the unused part is painted, and examined later.

use core::ptr::{self, addr_of_mut};

const PAINT: u32 = 0xaced_face;
/// Bytes below the stack pointer that painting leaves alone: its own frames, and those of an interrupt's entry.
const MARGIN: usize = 512;

#[allow(unsafe_code, reason = "symbols of the linker script")]
// SAFETY: only their addresses are used; cortex-m-rt's linker script defines both.
unsafe extern "C" {
    static mut _stack_start: u32; // the highest address: the stack grows down
    static mut _stack_end: u32;
}

/// Makes the processor enforce the stack limit: at the end of the stack a fault occurs before anything beyond
/// it is touched.
#[cfg(feature = "stack-limit")]
pub fn limit() {
    #[allow(unsafe_code, reason = "a stack pointer below its limit would be a fault")]
    // SAFETY: the stack pointer is above; the memory below does not belong to the stack.
    unsafe {
        cortex_m::register::msplim::write(addr_of_mut!(_stack_end) as u32);
    }
}

/// Paints the part that is currently unused.
#[inline(never)]
pub fn paint() {
    let end = (cortex_m::register::msp::read() as usize).saturating_sub(MARGIN);
    critical_section::with(|_| {
        let mut word = addr_of_mut!(_stack_end);
        while word.addr() < end {
            #[allow(unsafe_code, reason = "the stack has no owner in the language")]
            // SAFETY: there is nothing between the end of the statics and the stack pointer, and no interrupt
            // pushes now.
            unsafe {
                ptr::write_volatile(word, PAINT);
                word = word.add(1);
            }
        }
    });
}

/// The most bytes of stack that were in use at once since [`paint`].
#[must_use]
pub fn peak() -> usize {
    let mut word = addr_of_mut!(_stack_end);
    let top = addr_of_mut!(_stack_start);
    #[allow(unsafe_code, reason = "the stack has no owner in the language")]
    // SAFETY: all memory between the two symbols can be read.
    unsafe {
        while word < top && ptr::read_volatile(word) == PAINT {
            word = word.add(1);
        }
    }
    top.addr() - word.addr()
}

/// Bytes of stack that are in use by the caller.
#[must_use]
#[inline(never)]
pub fn depth() -> usize {
    addr_of_mut!(_stack_start).addr() - cortex_m::register::msp::read() as usize
}

/// Bytes that the stack may have.
#[must_use]
pub fn size() -> usize {
    addr_of_mut!(_stack_start).addr() - addr_of_mut!(_stack_end).addr()
}
