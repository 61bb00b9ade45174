//! A simulator in a test: your client gets a URL, and the test holds the device's clock and power.

use std::{net::TcpStream, time::Duration};

use sshsm_protocol::ObjectId;
use sshsm_simulator::{Clock, Simulator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::held();
    let mut device = Simulator::memory().clock(clock.clone()).start()?;

    // What was stored survives a power cut, a session does not live longer than 30 idle seconds.
    let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
    assert_eq!(session.echo(b"hello")?, b"hello");
    clock.advance(Duration::from_secs(31));
    assert!(session.echo(b"hello").is_err());
    drop(session);
    device.power_cycle()?;

    // For a client of any language: a YubiHSM connector on a free port, until it is dropped.
    let served = device.serve()?;
    let address = served.url().trim_start_matches("http://").to_owned();
    TcpStream::connect(&address)?;
    println!("a client could connect to {}", served.url());
    Ok(())
}
