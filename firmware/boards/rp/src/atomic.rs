//! Compare-and-swap for a processor without it: on Cortex-M0+ it is done with interrupts off, which suffices
//! on the one core in use. The compiler calls these functions by name: `cargo xtask firmware` builds for a
//! target with atomics, since crates that count references need them.

use core::ptr::{read_volatile, write_volatile};

macro_rules! atomic {
    ($name:ident($($argument:ident),+): $type:ty, $old:ident => $new:expr) => {
        #[allow(unsafe_code, reason = "the compiler calls it by name, with an address")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(place: *mut $type $(, $argument: $type)+) -> $type {
            cortex_m::interrupt::free(|_| {
                // SAFETY: the compiler passes the address of an atomic of this type, and nothing else runs
                // now.
                unsafe {
                    let $old = read_volatile(place);
                    write_volatile(place, $new);
                    $old
                }
            })
        }
    };
}

atomic!(__sync_val_compare_and_swap_4(expected, new): u32, old => if old == expected { new } else { old });
atomic!(__sync_lock_test_and_set_4(new): u32, _old => new);
atomic!(__sync_fetch_and_add_4(value): u32, old => old.wrapping_add(value));
atomic!(__sync_fetch_and_sub_4(value): u32, old => old.wrapping_sub(value));
atomic!(__sync_val_compare_and_swap_1(expected, new): u8, old => if old == expected { new } else { old });
atomic!(__sync_lock_test_and_set_1(new): u8, _old => new);
