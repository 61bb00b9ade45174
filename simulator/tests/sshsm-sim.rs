//! The program: its one line on stdout, its refusals, and how it ends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sshsm-sim"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it with arguments that make it exit by itself.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = program(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stdout), "", "nothing on stdout when nothing listens");
    (status.code(), String::from_utf8(stderr).unwrap())
}

struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::on("127.0.0.1:0", arguments)
    }

    fn on(listen: &str, arguments: &[&str]) -> Self {
        let mut command = program(&["--listen", listen]);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
        Self { child, stdout, address: address.strip_suffix('\n').unwrap().to_owned() }
    }

    /// Posts one frame and returns the answer.
    fn post(&self, frame: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            frame.len()
        );
        stream.write_all(&[head.as_bytes(), frame].concat()).unwrap();
        let mut response = vec![0; 65536];
        let length = stream.read(&mut response).unwrap();
        let head = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
        response[head..length].to_vec()
    }

    fn status(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /connector/status HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    /// Ends it with a signal; returns how it ended, the rest of stdout, and stderr.
    fn end(mut self, signal: &str) -> (ExitStatus, String, String) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap(), out, err)
    }
}

fn path(directory: &Path) -> &str {
    directory.to_str().unwrap()
}

#[test]
fn it_serves_until_a_signal_ends_it_in_order() {
    for signal in ["-INT", "-TERM"] {
        let running = Running::start(&["--memory"]);
        assert_eq!(running.post(&[0x01, 0, 2, b'h', b'i']), [0x81, 0, 2, b'h', b'i']);
        let (status, out, err) = running.end(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {err}");
        assert_eq!((out.as_str(), err.as_str()), ("", ""), "one line on stdout, and no talk unasked");
    }
}

#[test]
fn verbose_tells_of_every_command() {
    let running = Running::start(&["--memory", "--verbose"]);
    running.post(&[0x01, 0, 2, b'h', b'i']);
    running.post(&[0x06, 0, 1, 9]);
    let (_, out, err) = running.end("-TERM");
    assert_eq!(out, "");
    assert_eq!(err, "echo\nget device info: invalid data\n");
}

#[test]
fn a_seed_is_loudly_unsafe_also_in_the_runs_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = path(directory.path());
    for arguments in [&["--state", state, "--seed", "7"][..], &["--state", state]] {
        let (_, _, err) = Running::start(arguments).end("-TERM");
        assert!(err.contains("WARNING") && err.contains("UNSAFE"), "{err}");
    }
}

#[test]
fn a_device_in_a_directory_survives_being_killed() {
    let directory = tempfile::tempdir().unwrap();
    let serial = |running: &Running| {
        let status = running.status();
        status.lines().find_map(|line| line.strip_prefix("serial=").map(str::to_owned)).unwrap()
    };
    let running = Running::start(&["--state", path(directory.path())]);
    let first = serial(&running);
    assert_eq!(first.len(), 10);
    running.end("-KILL");
    assert_eq!(serial(&Running::start(&["--state", path(directory.path())])), first);
    assert_eq!(serial(&Running::start(&["--memory", "--serial", "42"])), "0000000042");
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exactly_one_place_for_the_device_is_required() {
    for arguments in [&[][..], &["--memory", "--state", "x"], &["--memory", "--serial", "0"]] {
        let (code, text) = refused(arguments);
        assert_eq!(code, Some(2), "{text}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = refused(&["--memory", "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("in use"), "{text}");
}

#[test]
fn addresses_that_others_can_reach_are_refused_unless_allowed() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, text) = refused(&["--memory", "--listen", address]);
        assert_eq!(code, Some(1));
        assert!(text.contains("--allow-remote"), "{text}");
    }
    let running = Running::on("0.0.0.0:0", &["--memory", "--allow-remote"]);
    assert!(running.address.starts_with("0.0.0.0:"));
}

#[test]
fn a_name_that_was_allowed_is_served() {
    let status = |running: &Running, host: &str| {
        let mut stream = TcpStream::connect(&running.address).unwrap();
        write!(stream, "GET /connector/status HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response[9..12].to_owned()
    };
    let running = Running::on("127.0.0.1:0", &["--memory", "--allow-host", "myhsm", "--allow-host", "other"]);
    let told = ["myhsm:12345", "other", "localhost", "example.com"].map(|host| status(&running, host));
    assert_eq!(told, ["200", "200", "200", "403"]);
    let (code, text) = refused(&["--memory", "--allow-host", "http://myhsm"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("without scheme, port and path"), "{text}");
}

#[test]
fn a_device_in_use_and_a_damaged_one_are_refused_with_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let state = path(directory.path());
    let running = Running::start(&["--state", state]);
    let (code, text) = refused(&["--listen", "127.0.0.1:0", "--state", state]);
    assert_eq!(code, Some(1));
    assert!(text.contains(state) && text.contains("in use by another process"), "{text}");
    running.end("-TERM");

    let file = directory.path().join("flash.bin");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (code, text) = refused(&["--listen", "127.0.0.1:0", "--state", state]);
    assert_eq!(code, Some(1));
    assert!(text.contains("flash.bin is damaged") && text.contains("backup"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_signal_pulls_the_plug_and_puts_it_back() {
    let running = Running::start(&["--memory", "--power-cycle-on", "SIGUSR1", "--provision", "/dev/null"]);
    // Opens a session's slot: 16 of them, and none is free until the power goes.
    let create = || running.post(&[0x03, 0, 10, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(create()[..4], [0x83, 0, 17, 0]);
    assert_eq!(create()[..4], [0x83, 0, 17, 1]);
    let signalled = Command::new("kill").args(["-USR1", &running.child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let first_again = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        create()[3] == 0
    });
    assert!(first_again, "the sessions are gone");
    let (status, _, err) = running.end("-TERM");
    assert_eq!(status.code(), Some(0));
    assert!(err.contains("power off and on"), "{err}");
}

#[test]
fn provisioning_tells_what_it_did_and_warns_of_secrets_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lab.toml");
    let state = directory.path().join("device");
    let object = "[[object]]\ntype = \"authentication-key\"\nid = 9\ndomains = [1]\npassword = \"one\"\n";
    fs::write(&file, object).unwrap();
    let arguments = ["--state", path(&state), "--provision", path(&file)];
    for outcome in ["made", "kept"] {
        let (_, _, err) = Running::start(&arguments).end("-TERM");
        assert!(err.contains(&format!("{outcome} authentication-key 0x0009")), "{err}");
        assert!(err.contains("WARNING: the provisioning file itself contains passwords or keys"), "{err}");
    }
    fs::write(&file, object.replace("[1]", "[2]")).unwrap();
    let (code, text) = refused(&[&["--listen", "127.0.0.1:0"][..], &arguments].concat());
    assert_eq!(code, Some(1));
    assert!(
        text.contains("another set of domains than declared: 0x0001, not 0x0002. Nothing was changed"),
        "{text}"
    );
}

#[test]
fn the_named_party_touches_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let declaration = directory.path().join("lab.toml");
    // Setting it requires a touch as well.
    fs::write(&declaration, "[options]\nuser-presence = \"all\"\nuser-presence-timeout = 60").unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--memory", "--provision", path(&declaration), "--presence"];
    let with = |who| [&arguments[..], &[who]].concat();
    let (code, text) = refused(&with("reject"));
    assert_eq!(code, Some(1));
    assert!(text.contains("the device was not touched in time"), "{text}");

    let mut child = program(&with("ask"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut question = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut question).unwrap();
    assert_eq!(question, "sshsm-sim: touch the device: press Enter within 60s\n");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}
