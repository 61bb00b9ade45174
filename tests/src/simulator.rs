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
    // Held to be killed, the last started first.
    _processes: Vec<Running>,
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

    /// Starts one at an address that its clients cannot choose, once no other process listens there.
    ///
    /// # Panics
    /// When the address stays taken, for instance by a connector with a real device, which is not disturbed.
    #[must_use]
    pub fn at(address: &str) -> Self {
        wait_for(&format!("{address} to be free"), || TcpListener::bind(address).ok());
        Self::listen(address)
    }

    /// Starts one on a virtual serial port, and `sshsm connector` in front of it: the path to a board.
    ///
    /// # Panics
    /// When either does not say where it listens.
    #[must_use]
    pub fn behind_connector() -> Self {
        let (port, simulator) = listening(Command::new(binaries::sshsm_sim()).args(["--memory", "--pty"]));
        let connector = Connector::before(&port);
        Self { url: connector.url().to_owned(), _processes: vec![connector.process, simulator] }
    }

    fn listen(address: &str) -> Self {
        let mut command = Command::new(binaries::sshsm_sim());
        let (url, process) = listening(command.args(["--listen", address, "--memory"]));
        assert!(url.starts_with("http://127.0.0.1:"), "sshsm-sim listens on {url}");
        Self { url, _processes: vec![process] }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A running `sshsm connector`: the YubiHSM connector's HTTP interface in front of another device.
pub struct Connector {
    url: String,
    process: Running,
}

impl Connector {
    /// Starts one in front of a device, given as for `--device`.
    ///
    /// # Panics
    /// When it does not say where it listens.
    #[must_use]
    pub fn before(device: &str) -> Self {
        let mut command = binaries::sshsm();
        let (url, process) =
            listening(command.args(["connector", "--listen", "127.0.0.1:0", "--device", device]));
        Self { url, process }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Starts a program whose first line is `listening on …`; returns where that is.
fn listening(command: &mut Command) -> (String, Running) {
    let mut process = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let stdout = process.child().stdout.take().expect("stdout is a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        // The receiver is gone when the test has given up.
        let _ = sender.send(lines.next());
        // A full pipe would stop the program.
        lines.for_each(drop);
    });
    let line = match receiver.recv_timeout(PATIENCE) {
        Ok(Some(Ok(line))) => line,
        other => panic!("{command:?} said {other:?}, {:?}", process.ended()),
    };
    let place = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("its first line: {line}"));
    (place.to_owned(), process)
}
