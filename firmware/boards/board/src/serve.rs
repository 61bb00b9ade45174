//! What a board does all day, below its interrupts: carries out one message after the other.

use alloc::vec;

use sshsm_firmware::{Device, Platform};
use sshsm_protocol::frame::MAX_MESSAGE;

use crate::link;

/// Carries out what comes in over the [`link`]; sleeps in between. `send` is called when there is something to send.
pub fn serve<P: Platform>(mut device: Device<P>, send: impl Fn()) -> ! {
    let mut request = vec![0; MAX_MESSAGE];
    let mut response = vec![0; MAX_MESSAGE];
    loop {
        // An interrupt between the look and the sleep would be slept through if it were not held off; it still wakes.
        let message = critical_section::with(|_| {
            let message = link::request(&mut request);
            if message.is_none() {
                cortex_m::asm::wfi();
            }
            message
        });
        let Some(message) = message.and_then(|length| request.get(..length)) else { continue };
        let length = device.handle(message, &mut response);
        link::respond(response.get(..length).unwrap_or_default());
        send();
    }
}
