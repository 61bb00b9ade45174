//! The device on a virtual serial port: it speaks the link there as a board does, also while it computes, and forgets
//! a client that hung up.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sshsm_protocol::link::{Answer, Boot, Deframer, Request, decode, encode};
use sshsm_simulator::Simulator;

/// A client's end of the link.
struct Client {
    port: File,
    deframer: Deframer,
}

impl Client {
    fn open(path: &Path) -> Self {
        Self { port: File::options().read(true).write(true).open(path).unwrap(), deframer: Deframer::new() }
    }

    fn send(&mut self, number: u32, request: &Request<'_>) {
        let mut frame = [0; sshsm_protocol::link::MAX_FRAME];
        let length = encode(number, request, &mut frame).unwrap();
        self.port.write_all(&frame[..length]).unwrap();
    }

    /// The next answer with its number, as text.
    fn receive(&mut self) -> (u32, String) {
        loop {
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.port, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "the device says nothing");
            let mut byte = [0];
            self.port.read_exact(&mut byte).unwrap();
            if let Some((number, answer)) = self.deframer.push(byte[0]).and_then(decode::<Answer<'_>>) {
                return (number, format!("{:?}", answer.unwrap()));
            }
        }
    }

    fn ask(&mut self, number: u32, request: &Request<'_>) -> String {
        self.send(number, request);
        let (answered, answer) = self.receive();
        assert_eq!(answered, number, "{answer}");
        answer
    }
}

const ECHO: Request<'static> = Request::Transact(&[1, 0, 2, b'h', b'i']);
const ECHOED: &str = "Transact([129, 0, 2, 104, 105])";

#[test]
fn it_says_hello_carries_out_messages_and_tells_how_it_is() {
    let device = Simulator::memory().serial(7).start().unwrap().serve_pty().unwrap();
    let mut client = Client::open(device.path());
    let hello = client.ask(1, &Request::Hello { minimum: 1, version: 1 });
    assert!(hello.contains(r#"board: "simulator", serial: 7"#), "{hello}");
    assert_eq!(client.ask(2, &ECHO), ECHOED);
    let status = client.ask(3, &Request::Status);
    assert!(status.contains("activity: Idle") && status.contains("free_records: 255"), "{status}");
    assert!(client.ask(4, &Request::Log { from: 0 }).contains("started: power on"));
}

#[test]
fn the_longest_message_travels_whole() {
    let device = Simulator::memory().start().unwrap().serve_pty().unwrap();
    let mut client = Client::open(device.path());
    let mut message = [0x55; sshsm_protocol::frame::MAX_MESSAGE];
    let length = u16::try_from(message.len() - 3).unwrap().to_be_bytes();
    message[..3].copy_from_slice(&[1, length[0], length[1]]);
    let answer = client.ask(1, &Request::Transact(&message));
    message[0] |= 0x80;
    assert_eq!(answer, format!("Transact({message:?})"));
}

#[test]
fn status_is_told_while_a_command_is_carried_out_and_a_refusal_stands_in_the_log() {
    let device = Simulator::memory().start().unwrap().serve_pty().unwrap();
    let mut client = Client::open(device.path());
    let held = device.simulator();
    client.send(1, &Request::Transact(&[6, 0, 1, 9]));
    assert!(client.ask(2, &Request::Status).contains("activity: Busy"));
    assert!(client.ask(3, &ECHO).contains("Busy"));
    drop(held);
    assert_eq!(client.receive(), (1, "Transact([127, 0, 1, 2])".into()));
    assert!(client.ask(4, &Request::Log { from: 1 }).contains("get device info: invalid data"));
}

#[test]
fn a_client_that_hung_up_is_forgotten() {
    let device = Simulator::memory().start().unwrap().serve_pty().unwrap();
    let mut first = Client::open(device.path());
    let held = device.simulator();
    first.send(1, &ECHO);
    assert!(first.ask(2, &Request::Status).contains("activity: Busy"));
    drop(first);
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(held);
    let mut second = Client::open(device.path());
    while second.ask(3, &Request::Status).contains("activity: Busy") {}
    assert_eq!(second.ask(4, &ECHO), ECHOED);
}

#[test]
fn a_reboot_is_a_power_cycle_that_somebody_asked_for() {
    let device = Simulator::memory().start().unwrap().serve_pty().unwrap();
    let mut client = Client::open(device.path());
    let session = Request::Transact(&[0x03, 0, 10, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(client.ask(1, &session).starts_with("Transact([131, 0, 17, 0,"));
    assert!(client.ask(2, &session).starts_with("Transact([131, 0, 17, 1,"));
    assert!(client.ask(3, &Request::Reboot(Boot::Bootloader)).contains("NoBootloader"));
    assert_eq!(client.ask(4, &Request::Reboot(Boot::Firmware)), "Rebooting");
    assert!(client.ask(5, &session).starts_with("Transact([131, 0, 17, 0,"), "the sessions are gone");
    assert!(client.ask(6, &Request::Status).contains("reset: Requested"));
    device.power_cycle().unwrap();
    assert!(client.ask(7, &Request::Status).contains("reset: PowerOn"));
}

#[test]
fn the_program_serves_it_beside_or_instead_of_http_and_makes_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("board");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for listen in [&[][..], &["--listen", "127.0.0.1:0"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sshsm-sim"))
            .args(["--memory", "--pty"])
            .arg(&link)
            .args(listen)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if !listen.is_empty() {
            assert!(lines.next().unwrap().unwrap().starts_with("listening on http://127.0.0.1:"));
        }
        let line = lines.next().unwrap().unwrap();
        let path = line.strip_prefix("listening on serial:").unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(path));
        assert_eq!(Client::open(&link).ask(1, &ECHO), ECHOED);
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert_eq!((child.wait().unwrap().code(), lines.count()), (Some(0), 0));
        assert!(link.symlink_metadata().is_err(), "the link goes with the program");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
    }
}
