//! The real binary and a device on a serial port: the simulator on a virtual one, and fakes for things that a
//! good device never does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    time::{Duration, Instant},
};

use machine::{
    Machine, Run,
    fake::{DEVICE_INFO, Fake, Port},
};
use sshsm_firmware::platform::Presence;
use sshsm_protocol::link::{Answer, Deframer, LinkError, Request, decode};
use sshsm_simulator::{SerialPort, Simulator};

fn simulator() -> (SerialPort, Machine) {
    let port = Simulator::memory().serial(42).start().unwrap().serve_pty().unwrap();
    let machine = Machine::with_device(&format!("serial:{}", port.path().display()));
    (port, machine)
}

/// Runs `device info` against a fake.
fn against(play: impl FnOnce(File) + Send + 'static) -> (Run, String) {
    let (path, thread) = Port::new().played(play);
    let run = Machine::with_device(&format!("serial:{path}")).without_password(&["device", "info"]);
    thread.join().unwrap();
    (run, path)
}

/// Reads requests until one is of the wanted kind; returns its number.
fn number_of(port: &mut File, wanted: fn(&Request<'_>) -> bool) -> u32 {
    let mut deframer = Deframer::new();
    loop {
        let mut byte = [0];
        port.read_exact(&mut byte).unwrap();
        if let Some((number, Some(request))) = deframer.push(byte[0]).and_then(decode::<Request<'_>>)
            && wanted(&request)
        {
            return number;
        }
    }
}

#[test]
fn keys_templates_and_certificates_work_as_in_process() {
    let (_port, machine) = simulator();
    let info = machine.without_password(&["device", "info", "--format", "json"]).json();
    assert!(info["device"].as_str().unwrap().starts_with("serial:/dev/"));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    for line in [
        "key generate --algorithm p256 --id 5",
        "template put t.toml --id 10",
        "sign -s 5 -t 10 --timestamp-key timestamp -I me -n a -V +1h user.pub",
    ] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
    }
    let line = std::fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    ssh_key::Certificate::from_openssh(&line).unwrap().verify_signature().unwrap();
}

#[test]
fn status_and_log_need_no_password_and_a_reboot_that_does_starts_them_anew() {
    let (_port, machine) = simulator();
    assert_eq!(machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "wrong staple")]).code, 4);
    let status = machine.without_password(&["device", "status", "--format", "json"]).json();
    for (name, value) in [("board", "simulator"), ("activity", "idle"), ("reset_reason", "power on")] {
        assert_eq!(status[name], value, "{status}");
    }
    assert_eq!((&status["serial"], &status["free_records"]), (&42.into(), &255.into()), "{status}");
    assert!(machine.without_password(&["device", "status"]).stdout.contains("last reset:    power on"));
    let log = machine.without_password(&["device", "log", "--format", "json"]).json();
    assert_eq!(log[0]["text"], "started: power on");
    let refused = machine.without_password(&["device", "reboot"]);
    assert_eq!(refused.code, 4, "a restart takes a session: {refused:?}");
    assert_eq!(machine.run(&["device", "reboot"]).code, 0);
    let begin = Instant::now();
    while !machine.without_password(&["device", "log"]).stdout.contains("reboot was asked for") {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    let refused = machine.run(&["device", "reboot", "--boot-loader"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("cannot start a boot loader") && refused.stderr.contains("BOOTSEL"));
}

#[test]
fn a_log_that_is_followed_goes_on_after_a_restart() {
    let (port, machine) = simulator();
    let mut command = machine.command(&["device", "log", "--follow", "--format", "json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for restart in [true, true, false] {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&line["number"], &line["text"]), (&0.into(), &"started: power on".into()), "{line}");
        if restart {
            std::thread::sleep(Duration::from_secs(1));
            port.power_cycle().unwrap();
        }
    }
    drop(port);
    assert_eq!(child.wait().unwrap().code(), Some(3), "a port that vanishes ends it");
}

#[test]
fn what_only_boards_have_is_refused_elsewhere() {
    for verb in ["status", "log"] {
        let run = Machine::new().without_password(&["device", verb]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("needs a board on a serial port") && run.stderr.contains("sim:device"));
    }
}

#[test]
fn boards_are_listed_and_none_is_no_error() {
    let listed = Machine::new().without_password(&["device", "list", "--format", "json"]).json();
    assert!(listed.is_array());
    let run = Machine::with_device("serial:").without_password(&["device", "status"]);
    if listed.as_array().unwrap().is_empty() {
        assert_eq!(run.code, 3, "{run:?}");
        assert!(run.stderr.contains("no board is plugged in"), "{run:?}");
    }
}

#[test]
fn a_port_that_is_not_there_and_one_that_is_no_port_are_told_apart() {
    let none = Machine::with_device("serial:/dev/sshsm-none").run(&["key", "list"]);
    assert_eq!(none.code, 3, "{none:?}");
    assert!(none.stderr.contains("no device at serial:/dev/sshsm-none"), "{none:?}");
    let file = Machine::with_device("serial:/dev/null").run(&["key", "list"]);
    assert_eq!(file.code, 3, "{file:?}");
    assert!(file.stderr.contains("/dev/null is not an sshsm device: it is not a serial port"), "{file:?}");
}

#[test]
fn one_program_at_a_time_has_the_port() {
    let (port, machine) = simulator();
    let path = port.path().to_str().unwrap();
    let mine = sshsm_client::serial::Serial::open(path, sshsm_client::Listener::default()).unwrap();
    let run = machine.run(&["key", "list"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains(&format!("{path} is in use by another program")), "{run:?}");
    drop(mine);
    assert_eq!(machine.run(&["key", "list"]).code, 0);
}

#[test]
fn a_port_that_says_nothing_is_no_device() {
    let (run, path) = against(|mut port| while port.read(&mut [0; 256]).is_ok() {});
    assert_eq!(run.code, 3, "{run:?}");
    let reason = format!("{path} is not an sshsm device: it does not answer");
    assert!(run.stderr.contains(&reason) && run.stderr.contains("sshsm device list"), "{run:?}");
}

#[test]
fn a_port_that_says_something_else_is_no_device() {
    let (run, path) = against(|mut port| {
        while port.read(&mut [0; 256]).is_ok() {
            port.write_all(b"\r\nlogin: ").unwrap();
        }
    });
    assert_eq!(run.code, 3, "{run:?}");
    assert!(
        run.stderr.contains(&format!("{path} is not an sshsm device: it sends something else")),
        "{run:?}"
    );
}

#[test]
fn a_board_of_another_version_is_told_with_both_ranges() {
    let (run, path) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        let number = number_of(&mut fake.port, |request| matches!(request, Request::Hello { .. }));
        fake.send(number, &Answer::Error(LinkError::UnsupportedVersion { minimum: 7, version: 9 }));
        fake.stay();
    });
    assert_eq!(run.code, 3, "{run:?}");
    let told = format!("the board at {path} speaks versions 7 to 9 of the link, and this program 1 to 2");
    assert!(run.stderr.contains(&told), "{run:?}");
}

#[test]
fn a_port_that_vanishes_in_mid_command_leaves_it_unknown_whether_it_ran() {
    let (run, path) = against(|port| {
        Fake::new(port, "fake").message();
    });
    assert_eq!(run.code, 3, "{run:?}");
    let told = format!(
        "the connection to serial:{path} broke during an exchange; whether the command ran is unknown"
    );
    assert!(run.stderr.contains(&told), "{run:?}");
}

#[test]
fn a_board_that_dies_in_mid_command_is_given_up() {
    let (run, _) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        fake.message();
        // It accepts data, and no longer answers.
        while fake.port.read(&mut [0; 64]).is_ok() {}
    });
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("does not answer any more") && run.stderr.contains("unknown"), "{run:?}");
}

#[test]
fn a_command_may_take_longer_than_the_board_is_asked_how_it_is() {
    let (run, _) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        fake.message();
        let begin = Instant::now();
        fake.serve_until(|_| begin.elapsed() > Duration::from_secs(5));
        fake.respond(&DEVICE_INFO);
        fake.stay();
    });
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("0000000077"), "{run:?}");
}

#[test]
fn an_answer_that_was_lost_is_noticed() {
    let (run, _) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        fake.message();
        fake.endpoint.disconnected();
        fake.endpoint.respond(&DEVICE_INFO, sshsm_firmware::link::Vitals::default());
        fake.stay();
    });
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("the answer was lost") && run.stderr.contains("unknown"), "{run:?}");
}

#[test]
fn the_reader_is_told_once_to_touch_the_device() {
    let (run, _) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        fake.message();
        for _ in 0..2 {
            fake.endpoint.touch_wanted(Some(Duration::from_secs(15)));
            fake.flush();
        }
        fake.respond(&DEVICE_INFO);
        fake.stay();
    });
    assert_eq!((run.code, run.stderr.as_str()), (0, "touch the device (it waits 15 s)\n"), "{run:?}");
}

#[test]
fn the_reader_is_told_to_touch_a_device_that_waits_for_it_before_it_signs() {
    let touch = |_| {
        std::thread::sleep(Duration::from_millis(50));
        Presence::Confirmed
    };
    let port = Simulator::memory().touch(Box::new(touch)).start().unwrap().serve_pty().unwrap();
    let machine = Machine::with_device(&format!("serial:{}", port.path().display()));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    for (line, told) in [
        ("key generate --algorithm p256 --id 5", false),
        ("template put t.toml --id 10", false),
        ("device option set user-presence certificates --timeout 9", true),
        ("sign -s 5 -t 10 --timestamp-key timestamp -I me -n a -V +1h user.pub", true),
    ] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.stderr.contains("touch the device (it waits 9 s)"), told, "{run:?}");
    }
}

#[test]
fn a_board_that_is_busy_for_a_departed_client_is_waited_for() {
    let (run, _) = against(|port| {
        let mut fake = Fake::new(port, "fake");
        // Another client's command, accepted before the port is opened by the next.
        let mut frame = [0; 64];
        let length = sshsm_protocol::link::encode(1, &Request::Transact(&[1, 0, 0]), &mut frame).unwrap();
        for &byte in &frame[..length] {
            fake.endpoint.receive(byte, Duration::ZERO);
        }
        fake.endpoint.take(&mut [0; sshsm_protocol::frame::MAX_MESSAGE]).unwrap();
        fake.endpoint.disconnected();
        let begin = Instant::now();
        fake.serve_until(|_| begin.elapsed() > Duration::from_secs(1));
        fake.endpoint.respond(&[0x81, 0, 0], sshsm_firmware::link::Vitals::default());
        assert_eq!(fake.message(), [6, 0, 0]);
        fake.respond(&DEVICE_INFO);
        fake.stay();
    });
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("busy with an earlier command"), "{run:?}");
}
