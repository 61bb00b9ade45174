//! The simulator as a process, serving the YubiHSM connector's HTTP interface on a port of its own.

use crate::{
    binaries,
    process::{PATIENCE, Running, wait_for},
};
use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

/// A running `sshsm-sim --memory`: a factory-new device that is gone with this value.
pub struct Simulator {
    url: String,
    // Held to be killed.
    _process: Running,
}

impl Simulator {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// When its first line does not say where it listens.
    #[must_use]
    pub fn start() -> Self {
        Self::listen("127.0.0.1:0")
    }

    /// Starts one at an address that its clients cannot choose, once nobody else listens there.
    ///
    /// # Panics
    /// When the address stays taken, also by a connector with a real device: that one is left alone.
    #[must_use]
    pub fn at(address: &str) -> Self {
        wait_for(&format!("{address} to be free"), || TcpListener::bind(address).ok());
        Self::listen(address)
    }

    fn listen(address: &str) -> Self {
        let mut process = Running::spawn(
            Command::new(binaries::sshsm_sim())
                .args(["--listen", address, "--memory"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        );
        let stdout = process.child().stdout.take().expect("stdout is a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            // The receiver is gone when the test has given up.
            let _ = sender.send(lines.next());
            // A full pipe would stop the simulator.
            lines.for_each(drop);
        });
        let line = match receiver.recv_timeout(PATIENCE) {
            Ok(Some(Ok(line))) => line,
            other => panic!("sshsm-sim said {other:?}, {:?}", process.ended()),
        };
        let url = line
            .strip_prefix("listening on ")
            .filter(|url| url.starts_with("http://127.0.0.1:"))
            .unwrap_or_else(|| panic!("sshsm-sim's first line: {line}"));
        Self { url: url.to_owned(), _process: process }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
