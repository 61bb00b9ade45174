//! The device on a virtual serial port: it speaks the link there as a board does, even while it computes, and
//! discards the requests of a client that hung up.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sshsm_protocol::{
    Command as DeviceCommand,
    channel::{AuthenticationKey, Handshake, HandshakeError, HostChannel},
    device_status::Image,
    frame::MAX_MESSAGE,
    link::{Answer, Deframer, Request, decode, encode},
};
use sshsm_simulator::{Played, Presence, Simulator};

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
        self.send_raw(number, request);
    }

    fn send_raw(&mut self, number: u32, request: &impl serde::Serialize) {
        let mut frame = [0; sshsm_protocol::link::MAX_FRAME];
        let length = encode(number, request, &mut frame).unwrap();
        self.port.write_all(&frame[..length]).unwrap();
    }

    /// The next answer with its number, as text.
    fn receive(&mut self) -> (u32, String) {
        loop {
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.port, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "the device does not answer");
            let mut byte = [0];
            self.port.read_exact(&mut byte).unwrap();
            if let Some((number, answer)) = self.deframer.push(byte[0]).and_then(decode::<Answer<'_>>) {
                return (number, format!("{:?}", answer.unwrap()));
            }
        }
    }

    /// The device's answer to a message; it may first say that it waits for a touch.
    fn message(&mut self, message: &[u8]) -> Vec<u8> {
        self.send(99, &Request::Transact(message));
        loop {
            let (number, answer) = self.receive();
            assert_eq!(number, 99, "{answer}");
            if let Some(bytes) = answer.strip_prefix("Transact([").and_then(|rest| rest.strip_suffix("])")) {
                return bytes.split(", ").map(|byte| byte.parse().unwrap()).collect();
            }
            assert!(answer.starts_with("TouchWanted"), "{answer}");
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
    let mut message = [0x55; MAX_MESSAGE];
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

/// A session of the client's under the factory's authentication key.
struct Session<'c> {
    client: &'c mut Client,
    channel: HostChannel,
}

impl<'c> Session<'c> {
    fn open(client: &'c mut Client) -> Self {
        let key = AuthenticationKey::from_password(b"password");
        let handshake = Handshake::new(1, &key, [7; 8]);
        let channel = handshake.open(|message| Ok::<_, HandshakeError>(client.message(message))).unwrap();
        Self { client, channel }
    }

    /// The answer to a command without payload: its code, and its payload.
    fn command(&mut self, command: DeviceCommand) -> (u8, Vec<u8>) {
        let mut message = [0; MAX_MESSAGE];
        let length = self.channel.seal(command, &[], &mut message).unwrap();
        let mut answer = self.client.message(&message[..length]);
        let frame = self.channel.open(&mut answer).unwrap();
        (frame.code, frame.payload.to_vec())
    }
}

#[test]
fn a_session_restarts_the_device_and_no_frame_of_the_link_does() {
    let device = Simulator::memory().start().unwrap().serve_pty().unwrap();
    let mut client = Client::open(device.path());
    for (number, boot) in [(1, 0_u8), (2, 1)] {
        client.send_raw(number, &(4_u8, boot)); // what version 1 called a reboot
        assert_eq!(client.receive(), (number, "Error(UnknownRequest)".into()));
    }
    let session = Request::Transact(&[0x03, 0, 10, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(client.ask(1, &session).starts_with("Transact([131, 0, 17, 0,"));
    let mut one = Session::open(&mut client);
    assert_eq!(one.command(DeviceCommand::StartBootLoader), (0x7f, vec![0x43]), "it has none");
    assert_eq!(one.command(DeviceCommand::RestartDevice), (0xfb, vec![]), "answered first");
    assert!(client.ask(5, &session).starts_with("Transact([131, 0, 17, 0,"), "the sessions are gone");
    assert!(client.ask(6, &Request::Status).contains("reset: Requested"));
    device.power_cycle().unwrap();
    assert!(client.ask(7, &Request::Status).contains("reset: PowerOn"));
}

#[test]
fn the_boot_loader_of_a_board_that_is_played_starts_after_a_touch_and_the_port_is_gone() {
    for (presence, answer, ends) in
        [(Presence::TimedOut, (0x7f, vec![0x40]), false), (Presence::Confirmed, (0xfe, vec![]), true)]
    {
        let (started, touched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (starts, touches) = (started.clone(), touched.clone());
        let image = Image { sha256: [3; 32], length: 9 };
        let boot_loader = Box::new(move || starts.store(true, Ordering::Relaxed));
        let device = Simulator::memory()
            .play(Played { board: "pico2", image, boot_loader })
            .touch(Box::new(move |timeout| {
                touches.store(timeout.as_secs(), Ordering::Relaxed);
                presence
            }))
            .start()
            .unwrap()
            .serve_pty()
            .unwrap();
        let mut client = Client::open(device.path());
        assert!(client.ask(1, &Request::Hello { minimum: 1, version: 2 }).contains("pico2"));
        assert!(client.ask(2, &Request::Image).contains("length: 9"));
        let mut session = Session::open(&mut client);
        assert_eq!(session.command(DeviceCommand::StartBootLoader), answer);
        assert_eq!(touched.load(Ordering::Relaxed), 15, "although the option is off");
        assert_eq!(started.load(Ordering::Relaxed), ends);
        let mut rest = Vec::new();
        if ends {
            let _ = client.port.read_to_end(&mut rest); // it ends; otherwise it would wait forever
            assert_eq!(rest, []);
        }
    }
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
