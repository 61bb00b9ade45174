//! `sshsm connector`: the real binary between HTTP clients and a board on a serial port that comes and goes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use machine::Machine;
use sshsm_simulator::{SerialPort, Simulator};

struct Connector {
    child: Child,
    address: String,
}

impl Connector {
    fn start(machine: &Machine) -> Self {
        Self::with(machine, &[])
    }

    fn with(machine: &Machine, more: &[&str]) -> Self {
        let mut command = machine.command(&[&["connector", "--listen", "127.0.0.1:0"], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    fn request(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("{head} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        response
    }

    fn status(&self) -> String {
        String::from_utf8(self.request("GET /connector/status", &[])).unwrap()
    }

    /// Its output on stderr, once it has ended in order.
    fn end(mut self) -> String {
        let killed = std::process::Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{told}");
        told
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A board at the link `board`.
fn plug_in(machine: &Machine) -> SerialPort {
    let mut port = Simulator::memory().serial(7).start().unwrap().serve_pty().unwrap();
    port.link(&machine.path("board")).unwrap();
    port
}

const ECHO: [u8; 5] = [1, 0, 2, b'h', b'i'];

#[test]
fn a_client_over_http_reaches_the_board() {
    let machine = Machine::with_device("serial:board");
    let _port = plug_in(&machine);
    let connector = Connector::start(&machine);
    assert!(connector.status().contains("status=OK\nserial=0000000007\n"));
    let list = ["key", "list", "--format", "json", "--device", &format!("http://{}", connector.address)];
    assert_eq!(machine.run(&list).json().as_array().unwrap().len(), 1);
    assert_eq!(connector.end(), "");
}

#[test]
fn a_board_that_is_unplugged_is_away_and_found_again() {
    let machine = Machine::with_device("serial:board");
    let port = plug_in(&machine);
    let connector = Connector::start(&machine);
    assert!(connector.request("POST /connector/api", &ECHO).ends_with(&[0x81, 0, 2, b'h', b'i']));
    drop(port);
    assert!(connector.status().contains("status=NO_DEVICE\nserial=*\n"));
    assert!(connector.request("POST /connector/api", &ECHO).starts_with(b"HTTP/1.0 500"));
    let _port = plug_in(&machine);
    let begin = Instant::now();
    while !connector.status().contains("status=OK\nserial=0000000007\n") {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    assert!(connector.request("POST /connector/api", &ECHO).ends_with(&[0x81, 0, 2, b'h', b'i']));
    let told = connector.end();
    assert!(told.contains("broke during an exchange") && told.ends_with("serial:board is there\n"), "{told}");
}

#[test]
fn a_name_that_was_allowed_reaches_the_board_and_another_does_not() {
    let machine = Machine::with_device("serial:board");
    let _port = plug_in(&machine);
    let connector = Connector::with(&machine, &["--allow-host", "myhsm"]);
    let status = |host: &str| {
        let mut stream = TcpStream::connect(&connector.address).unwrap();
        write!(stream, "GET /connector/status HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response[9..12].to_owned()
    };
    let told = ["myhsm:12345", "localhost", "example.com"].map(status);
    assert_eq!(told, ["200", "200", "403"]);
}

#[test]
fn at_the_start_the_board_must_be_there() {
    let run = Machine::with_device("serial:board").run(&["connector", "--listen", "127.0.0.1:0"]);
    assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{run:?}");
    let remote = Machine::new().run(&["connector", "--listen", "0.0.0.0:0"]);
    assert_eq!(remote.code, 2, "{remote:?}");
    assert!(remote.stderr.contains("--allow-remote"), "{remote:?}");
}
