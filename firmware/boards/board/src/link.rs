//! The link between interrupt and thread: bytes come and go at interrupt priority, messages are carried out below it.

use core::cell::RefCell;

use critical_section::Mutex;
use sshsm_protocol::frame::{HEADER_LENGTH, MAX_MESSAGE};

struct Messages {
    request: [u8; MAX_MESSAGE],
    received: usize,
    response: [u8; MAX_MESSAGE],
    length: usize,
    sent: usize,
}

static LINK: Mutex<RefCell<Messages>> = Mutex::new(RefCell::new(Messages {
    request: [0; MAX_MESSAGE],
    received: 0,
    response: [0; MAX_MESSAGE],
    length: 0,
    sent: 0,
}));

/// Takes bytes that came.
pub fn receive(bytes: &[u8]) {
    critical_section::with(|cs| {
        let mut link = LINK.borrow_ref_mut(cs);
        for &byte in bytes {
            let at = link.received;
            if let Some(room) = link.request.get_mut(at) {
                *room = byte;
                link.received += 1;
            }
        }
    });
}

/// Gives the bytes to send next; returns how many.
pub fn transmit(into: &mut [u8]) -> usize {
    critical_section::with(|cs| {
        let mut link = LINK.borrow_ref_mut(cs);
        let rest = link.response.get(link.sent..link.length).unwrap_or_default();
        let count = rest.len().min(into.len());
        into.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        link.sent += count;
        count
    })
}

/// The message to carry out next.
pub(crate) fn request(into: &mut [u8]) -> Option<usize> {
    critical_section::with(|cs| {
        let mut link = LINK.borrow_ref_mut(cs);
        let length = HEADER_LENGTH + usize::from(u16::from_be_bytes([link.request[1], link.request[2]]));
        if link.received < HEADER_LENGTH || link.received < length {
            return None;
        }
        into.get_mut(..length)?.copy_from_slice(link.request.get(..length)?);
        link.received = 0;
        Some(length)
    })
}

/// The answer to it.
pub(crate) fn respond(message: &[u8]) {
    critical_section::with(|cs| {
        let mut link = LINK.borrow_ref_mut(cs);
        link.response[..message.len()].copy_from_slice(message);
        link.length = message.len();
        link.sent = 0;
    });
}
