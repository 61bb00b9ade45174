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
fn a_signal_at_a_question_ends_the_program_and_leaves_the_terminal_as_it_was() {
    use std::os::unix::process::ExitStatusExt as _;
    let machine = Machine::new();
    for (name, number) in [("-TERM", 15), ("-INT", 2), ("-QUIT", 3)] {
        let mut session = Session::new(&machine, &["key", "list"]);
        session.answer("Password of authentication key 0x0001", "secr");
        let pid = session.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        let status = session.child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{name}: {status:?}");
        assert!(session.echoes(), "{name}");
    }
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

#[test]
fn shares_are_asked_for_line_by_line_and_a_wrong_line_is_told_at_once() {
    let machine = Machine::new();
    let made = machine.run(&["backup", "create", "backup.json", "--format", "json"]).json();
    let lines = |share: usize| -> Vec<String> {
        let text = made["shares"][share]["text"].as_str().unwrap();
        text.lines().skip(1).map(|line| format!("{}\n", &line[3..])).collect()
    };
    let mut session = Session::new(&machine, &["backup", "restore", "backup.json"]);
    let screen = Arc::clone(&session.screen);
    let told = |text: &str| screen.lock().unwrap().contains(text);
    let question = |share: usize, line: usize| {
        format!(
            "Share {share} of the 2 that backup {} needs, line {line}: ",
            made["backup"].as_str().unwrap()
        )
    };
    session.answer(&question(1, 1), "0000 0000 0000 0000 0000 0000\n");
    session.wait("a mistyped line", || told("line 1 is mistyped, or belongs elsewhere; type it again"));
    for (index, line) in lines(2).iter().enumerate() {
        session.answer(&question(1, index + 1), line);
    }
    session.answer(&question(2, 1), &lines(2)[0]);
    session.wait("the same share", || told("share 3 was given already; type it again"));
    for (index, line) in lines(0).iter().enumerate() {
        session.answer(&question(2, index + 1), line);
    }
    session.answer("Password of authentication key 0x0001", "password\n");
    assert_eq!(session.end(), (true, true), "{:?}", screen.lock().unwrap());
    assert!(told("share 3 is right") && told("share 1 is right") && told("already there"));
    for line in lines(2).iter().chain(&lines(0)) {
        assert!(!told(line.trim()), "a share is not shown");
    }
}
