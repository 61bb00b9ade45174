//! What a board does about a panic, a fault, or an unexpected interrupt: it clears its memory and restarts.

use cortex_m_rt::exception;
use sshsm_board::restart::restart;
use sshsm_protocol::link::ResetReason;

#[exception]
#[allow(unsafe_code, reason = "the macro asks for it: an interrupt can come at any time")]
unsafe fn DefaultHandler(_: i16) {
    restart(ResetReason::Panic)
}

sshsm_board::hard_fault!(fault);

extern "C" fn fault() -> ! {
    restart(ResetReason::Panic)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    restart(ResetReason::Panic)
}
