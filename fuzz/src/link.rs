//! Bytes from a host, cut into runs with valid frames in between: the device's end of the link never panics,
//! accepts no message that was not sent, and answers every valid frame for which it is ready.

use core::time::Duration;

use sshsm_firmware::link::{Endpoint, Identity, Vitals};
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::link::{Answer, Deframer, MAX_FRAME, Request, ResetReason, decode, encode};

const NOW: Duration = Duration::from_secs(1);
/// The one message that is ever sent on purpose.
const MESSAGE: [u8; 7] = [0x06, 0, 4, 0, 0xff, 0, 1];

pub fn run(noise: &[u8]) {
    let identity = Identity { board: "fuzz", serial: 1, reset: ResetReason::PowerOn };
    let mut endpoint = Endpoint::new(identity);
    let mut message = [0; MAX_MESSAGE];
    for (number, run) in (1_u32..).zip(noise.split(|&byte| byte == 0xa5)) {
        // The zero ends a frame that the noise may have begun; good frames begin with one of their own.
        for &byte in run.iter().chain(&[0]) {
            endpoint.receive(byte, NOW);
        }
        answers(&mut endpoint);
        // Anything with the right checksum is a message, and carried out.
        if endpoint.take(&mut message).is_some() {
            endpoint.respond(&[0x86, 0, 0], Vitals::default());
            answers(&mut endpoint);
        }
        assert_eq!(endpoint.restart_due(), None, "no frame restarts the device");
        let mut frame = [0; MAX_FRAME];
        let length = encode(number, &Request::Transact(&MESSAGE), &mut frame).expect("it fits");
        for &byte in &frame[..length] {
            endpoint.receive(byte, NOW);
        }
        let taken = endpoint.take(&mut message).expect("a good frame is taken");
        assert_eq!(message[..taken], MESSAGE);
        endpoint.respond(&MESSAGE, Vitals::default());
        assert!(answers(&mut endpoint).contains(&number), "and answered");
    }
}

/// The numbers of everything that the device sends: every byte of it belongs to a valid frame.
fn answers(endpoint: &mut Endpoint) -> Vec<u32> {
    let mut deframer = Deframer::new();
    let mut numbers = Vec::new();
    let mut packet = [0; 64];
    loop {
        let length = endpoint.transmit(&mut packet);
        if length == 0 {
            assert_eq!(deframer.dropped(), 0);
            return numbers;
        }
        for &byte in &packet[..length] {
            if let Some(content) = deframer.push(byte) {
                let (number, answer) = decode::<Answer<'_>>(content).expect("a whole answer");
                assert!(answer.is_some());
                numbers.push(number);
            }
        }
    }
}
