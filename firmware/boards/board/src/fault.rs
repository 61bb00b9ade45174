//! The first step after a fault: switching to a separate stack, since the current one may be exhausted.
//!
//! A handler in Rust begins by pushing registers; if the stack has no room left, that is a fault within a
//! fault, and the processor locks up with everything still in its memory.

/// Defines the processor's `HardFault` handler, which receives all faults: with the whole stack to itself, it
/// calls an `extern "C" fn() -> !`.
#[macro_export]
macro_rules! hard_fault {
    ($then:path) => {
        #[allow(unsafe_code, non_snake_case, reason = "the vector table names it, and the stack pointer is worth nothing")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".HardFault.user")]
        unsafe extern "C" fn HardFault() -> ! {
            core::arch::naked_asm!(
                "ldr r0, =_stack_start",
                "mov sp, r0",
                "ldr r0, ={then}",
                "bx r0",
                then = sym $then,
            )
        }
    };
}
