//! `sshsm flash`: a directory plays the bootloader's drive, and virtual serial ports the board before and after.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use machine::{
    Machine,
    fake::{Fake, Port},
};
use sshsm_protocol::link::Boot;
use sshsm_simulator::{SerialPort, Simulator};

/// A UF2 image of two blocks.
fn image(family: u32) -> Vec<u8> {
    let block = |number: u32| {
        let mut words = [0_u32; 128];
        words[..8].copy_from_slice(&[0x0a32_4655, 0x9e5d_5157, 0x2000, 0x1000_0000, 256, number, 2, family]);
        words[127] = 0x0ab1_6f30;
        words.map(u32::to_le_bytes).concat()
    };
    [block(0), block(1)].concat()
}

const PICO2: u32 = 0xe48b_ff59;

fn drive(directory: &Path, board_id: &str) {
    fs::create_dir_all(directory).unwrap();
    let info = format!("UF2 Bootloader v1.0\r\nModel: A board\r\nBoard-ID: {board_id}\r\n");
    fs::write(directory.join("INFO_UF2.TXT"), info).unwrap();
}

/// With the image `pico2.uf2` in it, and the drive and the port at `drive` and `port`.
fn machine() -> Machine {
    let machine = Machine::with_device("serial:port");
    fs::write(machine.path("pico2.uf2"), image(PICO2)).unwrap();
    machine
}

const FLASH: [&str; 9] =
    ["flash", "--board", "pico2", "--image", "pico2.uf2", "--volume", "drive", "--wait", "20"];

/// The device that comes up once the image is on the drive.
fn comes_up(machine: &Machine) -> JoinHandle<SerialPort> {
    let (written, link) = (machine.path("drive/SSHSM.UF2"), machine.path("port"));
    thread::spawn(move || {
        while fs::read(&written).ok() != Some(image(PICO2)) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(300));
        let mut port = Simulator::memory().serial(9).start().unwrap().serve_pty().unwrap();
        port.link(&link).unwrap();
        port
    })
}

#[test]
fn the_image_is_copied_to_the_drive_and_the_new_device_is_greeted() {
    let machine = machine();
    drive(&machine.path("drive"), "RP2350");
    let device = comes_up(&machine);
    let flashed = machine.without_password(&[&FLASH[..], &["--format", "json"]].concat()).json();
    assert_eq!((&flashed["device"], &flashed["serial"]), (&"serial:port".into(), &9.into()), "{flashed}");
    drop(device.join().unwrap());
}

#[test]
fn a_board_that_runs_is_rebooted_into_its_bootloader() {
    let machine = machine();
    let volume = machine.path("drive");
    let (path, board) = Port::new().played(move |port| {
        let mut fake = Fake::new(port, "pico2");
        fake.serve_until(|endpoint| endpoint.reboot().is_some());
        assert_eq!(fake.endpoint.reboot(), Some(Boot::Bootloader));
        drive(&volume, "RP2350");
    });
    symlink(path, machine.path("port")).unwrap();
    let device = comes_up(&machine);
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("0000000009") && !run.stderr.contains("BOOTSEL"), "{run:?}");
    board.join().unwrap();
    drop(device.join().unwrap());
}

#[test]
fn a_board_that_cannot_be_asked_is_for_the_reader_to_start_and_waited_for() {
    let machine = machine();
    let volume = machine.path("drive");
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        drive(&volume, "RP2350");
    });
    let device = comes_up(&machine);
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("hold BOOTSEL while you plug the board in"), "{run:?}");
    drop(device.join().unwrap());
}

#[test]
fn nothing_is_written_for_another_board() {
    let machine = machine();
    let (path, board) = Port::new().played(|port| Fake::new(port, "pico").stay());
    symlink(path, machine.path("port")).unwrap();
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("serial:port is a pico, not a pico2"), "{run:?}");
    board.join().unwrap();

    drive(&machine.path("drive"), "RPI-RP2");
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("drive is the drive of a RPI-RP2, not of a pico2"), "{run:?}");
    fs::write(machine.path("pico2.uf2"), image(0xe48b_ff56)).unwrap();
    let run = machine.without_password(&FLASH);
    assert!(run.code == 1 && run.stderr.contains("not for pico2"), "{run:?}");
    assert!(!machine.path("drive/SSHSM.UF2").exists());
}

#[test]
fn an_image_that_would_not_start_behind_the_soft_device_is_not_written() {
    let machine = machine();
    fs::write(machine.path("nrf52840.uf2"), image(0xada5_2840)).unwrap();
    let flash =
        ["flash", "--board", "nrf52840", "--image", "nrf52840.uf2", "--volume", "drive", "--wait", "0"];
    for (soft_device, starts) in
        [("S140 6.1.1", true), ("S140 7.3.0", false), ("S132 6.1.1", false), ("not found", false)]
    {
        let _ = fs::remove_dir_all(machine.path("drive"));
        drive(&machine.path("drive"), &format!("nRF52840-Feather-revD\r\nSoftDevice: {soft_device}"));
        let run = machine.without_password(&flash);
        assert_eq!(machine.path("drive/SSHSM.UF2").exists(), starts, "{soft_device}: {run:?}");
        assert_eq!(run.stderr.contains(&format!("{soft_device:?}; the image is linked")), !starts, "{run:?}");
    }
}

#[test]
fn a_drive_or_a_device_that_never_comes_is_given_up() {
    let machine = machine();
    let impatient = [&FLASH[..7], &["--wait", "1"]].concat();
    let run = machine.without_password(&impatient);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("no drive of a pico2's bootloader appeared"), "{run:?}");
    drive(&machine.path("drive"), "RP2350");
    let run = machine.without_password(&impatient);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("the image was copied, but no device appeared"), "{run:?}");
}

#[test]
fn the_firmware_is_built_in_the_source_tree_around() {
    let machine = machine();
    drive(&machine.path("drive"), "RP2350");
    for directory in ["xtask", "firmware"] {
        fs::create_dir(machine.path(directory)).unwrap();
    }
    machine.write("xtask/Cargo.toml", "");
    // Stands for cargo: notes what it is asked for, and leaves the image where that says.
    machine.write("cargo", "#!/bin/sh\necho built\necho \"$@\" > asked\ncp pico2.uf2 \"$6/pico2.uf2\"\n");
    fs::set_permissions(machine.path("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let device = comes_up(&machine);
    let arguments = ["flash", "--board", "pico2", "--build", "--volume", "drive", "--wait", "20"];
    let output = machine.command(&arguments).env("CARGO", machine.path("cargo")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("built"), "talk of cargo is talk");
    let asked = fs::read_to_string(machine.path("asked")).unwrap();
    assert!(asked.starts_with("xtask firmware --board pico2 --out /"), "{asked}");
    drop(device.join().unwrap());

    machine.write("cargo", "#!/bin/sh\nexit 1\n");
    let output = machine.command(&arguments).env("CARGO", machine.path("cargo")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_is_flashed_must_be_said() {
    let machine = machine();
    assert_eq!(machine.without_password(&["flash", "--board", "pico2"]).code, 2);
    let run = machine.without_password(&["flash", "--board", "pico2", "--build"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("sshsm's source tree"), "{run:?}");
    let run = machine.without_password(&["flash", "--board", "pico2", "--image", "none.uf2"]);
    assert_eq!(run.code, 6, "{run:?}");
}
