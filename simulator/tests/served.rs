//! The device behind HTTP in this process: it answers at its URL, its owner can access it in the meantime,
//! and it stops when it is dropped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use sshsm_simulator::Simulator;

/// Posts an echo and returns the last bytes of the answer.
fn echo(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let head =
        "POST /connector/api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(&[head.as_bytes(), &[1, 0, 2, b'h', b'i']].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer.split_off(answer.len() - 5)
}

#[test]
fn it_answers_at_its_url_until_it_is_dropped() {
    let device = Simulator::memory().serial(7).start().unwrap().serve().unwrap();
    let address = device.address();
    assert_eq!(device.url(), format!("http://{address}"));
    assert!(address.ip().is_loopback());
    assert_eq!(echo(address), [0x81, 0, 2, b'h', b'i']);
    assert_eq!(device.simulator().serial(), 7);
    device.simulator().power_cycle().unwrap();
    assert_eq!(echo(address), [0x81, 0, 2, b'h', b'i']);
    let idle = TcpStream::connect(address).unwrap();
    drop(device);
    assert!(TcpStream::connect(address).is_err(), "also while a client stays connected");
    drop(idle);
}

#[test]
fn two_devices_have_two_addresses() {
    let [one, two] = [(); 2].map(|()| Simulator::memory().start().unwrap().serve().unwrap());
    assert_ne!(one.address(), two.address());
}
