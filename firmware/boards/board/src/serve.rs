//! A board's main loop, below its interrupts: it carries out one message after another.

use alloc::boxed::Box;
use core::fmt::Display;

use sshsm_firmware::{Device, Platform};
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::link::Level;

use crate::image::Hashing;
use crate::link;

/// Starts the device and carries out the messages from the [`link`]; in between it computes the image's hash,
/// and then sleeps. `send` is called when there is output, or a restart is due. A device that does not start
/// says so in its log and refuses every message.
pub fn serve<P: Platform>(platform: P, flash: P::Flash, send: impl Fn()) -> ! {
    let mut device = match Device::start(platform, flash) {
        Ok(device) => Box::new(device),
        Err(error) => refuse(error),
    };
    link::started(device.vitals());
    link::log(Level::Info, format_args!("ready"));
    let mut request = Box::new([0; MAX_MESSAGE]);
    let mut response = Box::new([0; MAX_MESSAGE]);
    let mut hashing = Hashing::default();
    loop {
        // An interrupt between the check and the sleep would be missed if it were not held off; it still
        // wakes the processor.
        let message = critical_section::with(|_| {
            let message = link::take(&mut request);
            if message.is_none() && hashing.is_done() {
                cortex_m::asm::wfi();
            }
            message
        });
        let Some(message) = message.and_then(|length| request.get(..length)) else {
            hashing.step();
            continue;
        };
        let length = device.handle(message, response.as_mut());
        link::respond(response.get(..length).unwrap_or_default(), device.vitals());
        if let Some(boot) = device.restart() {
            link::restart(boot);
        }
        send();
    }
}

/// Says in the log why the device does not start, and refuses every message.
pub fn refuse(reason: impl Display) -> ! {
    link::log(Level::Error, format_args!("the device does not start: {reason}"));
    link::fail();
    let mut hashing = Hashing::default();
    loop {
        if hashing.is_done() {
            cortex_m::asm::wfi();
        }
        hashing.step();
    }
}
