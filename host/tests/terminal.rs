//! Passwords typed at a terminal: never shown, and the terminal is as before, whatever ends the question.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use machine::Machine;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

/// A program on a terminal of its own, and the keyboard and the screen of that.
struct Session {
    child: Child,
    keyboard: File,
    terminal: File,
    screen: Arc<Mutex<String>>,
}

impl Session {
    /// Runs `sshsm`; util-linux's `setsid` makes the terminal its controlling one.
    fn new(machine: &Machine, arguments: &[&str]) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let sshsm = machine.command(arguments);
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(sshsm.get_program())
            .args(sshsm.get_args())
            .current_dir(sshsm.get_current_dir().unwrap())
            .env("SSHSM_DEVICE", "sim:device")
            .env_remove("SSHSM_PASSWORD")
            .env_remove("SSHSM_NEW_PASSWORD")
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal.try_clone().unwrap())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { child, keyboard, terminal, screen }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ISIG)
    }

    fn wait(&self, what: &str, until: impl Fn() -> bool) {
        let begin = Instant::now();
        while !until() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {:?}", self.screen.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types `answer` once `question` is asked and the terminal shows nothing more.
    fn answer(&mut self, question: &str, answer: &str) {
        self.wait(question, || self.screen.lock().unwrap().contains(question) && !self.echoes());
        self.keyboard.write_all(answer.as_bytes()).unwrap();
    }

    /// Whether it succeeded, and whether the terminal is as it was.
    fn end(mut self) -> (bool, bool) {
        let status = self.child.wait().unwrap();
        (status.success(), self.echoes())
    }
}

#[test]
fn an_interrupted_question_leaves_the_terminal_as_it_was() {
    let machine = Machine::new();
    let mut session = Session::new(&machine, &["key", "list"]);
    assert!(session.echoes());
    session.answer("Password of authentication key 0x0001", "secr\x03");
    assert_eq!(session.end(), (false, true));
}

#[test]
fn passwords_are_asked_for_and_a_new_one_twice() {
    let machine = Machine::new();
    let change = ["authentication-key", "change"];
    for (again, done) in [("another\n", false), ("correct horse\n", true)] {
        let mut session = Session::new(&machine, &change);
        session.answer("Password of authentication key 0x0001", "password\n");
        session.answer("New password: ", "correct horse\n");
        session.answer("The new password again: ", again);
        let screen = Arc::clone(&session.screen);
        assert_eq!(session.end(), (done, true), "{:?}", screen.lock().unwrap());
        assert!(!screen.lock().unwrap().contains("horse"));
    }
    assert_eq!(machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "correct horse")]).code, 0);
}
