//! A message outside a session: it encodes to the same bytes again, and the device answers any message with
//! one whole frame.

use sshsm_protocol::frame::{ERROR_CODE, Frame, MAX_MESSAGE, RESPONSE_FLAG};

use super::device;

pub fn run(message: &[u8]) {
    let mut buffer = [0; MAX_MESSAGE];
    if let Ok(frame) = Frame::parse(message)
        && let Ok(length) = frame.encode(&mut buffer)
    {
        assert_eq!(buffer[..length], *message);
    }
    if let Ok(frame) = Frame::parse_padded(message) {
        assert!(frame.payload.len() + 3 <= message.len());
    }
    let mut device = device::new();
    let answer = device.transact(message).expect("the device runs");
    let answer = Frame::parse(&answer).expect("a whole frame");
    let own = message.first().map(|code| code | RESPONSE_FLAG);
    assert!(answer.code == ERROR_CODE && answer.payload.len() == 1 || Some(answer.code) == own);
    device::still_works(&mut device);
}
