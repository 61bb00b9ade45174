//! Messages inside a session with all rights, on a device with a few keys: each is answered inside the
//! session or refused, and the device starts again after them.
//!
//! An input is `command u8 ‖ length u16 ‖ payload`, repeated. Commands that take seconds are left out.

use sshsm_protocol::Command;

use super::device;

/// Messages of one input.
const MOST: usize = 16;

pub fn run(mut messages: &[u8]) {
    let mut device = device::provisioned();
    let mut session = device::session(&mut device);
    for _ in 0..MOST {
        let [code, high, low, rest @ ..] = messages else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(2000);
        let (payload, rest) = rest.split_at(length);
        messages = rest;
        let Some(command) = Command::from_code(*code) else { continue };
        // RSA keys of 2048, 3072 and 4096 bits.
        let generates = matches!(command, Command::GenerateAsymmetricKey | Command::GenerateWrapKey);
        if generates && matches!(payload.get(52), Some(9..=11)) {
            continue;
        }
        let _ = device::ask(&mut session, command, payload);
    }
    drop(session);
    device::still_works(&mut device);
}
