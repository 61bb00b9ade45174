//! `sshsm flash`: a directory plays the boot loader's drive, and virtual serial ports the board before and
//! after.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use machine::{
    Machine,
    fake::{Fake, Port},
};
use sha2::{Digest, Sha256};
use sshsm_protocol::device_status::Image;
use sshsm_simulator::{Builder, Played, Presence, SerialPort, Simulator};

/// A UF2 image of two blocks from `address` on, marked for this board.
fn image_at(family: u32, board: &str, address: u32) -> Vec<u8> {
    let version = sshsm_firmware::VERSION_TEXT;
    let mark = format!("sshsm image: board {board}, version {version}, dialect extended");
    let block = |number: u32| {
        let mut words = [0_u32; 128];
        let address = address + 256 * number;
        words[..8].copy_from_slice(&[0x0a32_4655, 0x9e5d_5157, 0x2000, address, 256, number, 2, family]);
        words[127] = 0x0ab1_6f30;
        let mut block = words.map(u32::to_le_bytes).concat();
        if number == 1 {
            block[32..32 + mark.len()].copy_from_slice(mark.as_bytes());
        }
        block
    };
    [block(0), block(1)].concat()
}

const PICO: u32 = 0xe48b_ff56;
const PICO2: u32 = 0xe48b_ff59;

fn image() -> Vec<u8> {
    image_at(PICO2, "pico2", 0x1000_0000)
}

/// The image that a device running a UF2 image reports.
fn says(uf2: &[u8]) -> Image {
    let content: Vec<u8> = uf2.chunks(512).flat_map(|block| block[32..288].to_vec()).collect();
    Image { sha256: Sha256::digest(&content).into(), length: u32::try_from(content.len()).unwrap() }
}

fn drive(directory: &Path, board_id: &str) {
    drive_of(directory, board_id, "UF2 Bootloader v1.0");
}

fn drive_of(directory: &Path, board_id: &str, first: &str) {
    fs::create_dir_all(directory).unwrap();
    let info = format!("{first}\r\nModel: A board\r\nBoard-ID: {board_id}\r\n");
    // Whole at once, as a drive that is mounted.
    fs::write(directory.join("info"), info).unwrap();
    fs::rename(directory.join("info"), directory.join("INFO_UF2.TXT")).unwrap();
}

/// With the image `pico2.uf2` in it, and the drive and the port at `drive` and `port`.
fn machine() -> Machine {
    let machine = Machine::with_device("serial:port");
    fs::write(machine.path("pico2.uf2"), image()).unwrap();
    machine
}

const FLASH: [&str; 9] =
    ["flash", "--board", "pico2", "--image", "pico2.uf2", "--volume", "drive", "--wait", "20"];

/// The device that appears once the image is on the drive, and reports this one.
fn comes_up_with(machine: &Machine, runs: Image) -> JoinHandle<SerialPort> {
    let (written, link) = (machine.path("drive/SSHSM.UF2"), machine.path("port"));
    thread::spawn(move || {
        while fs::read(&written).ok() != Some(image()) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(300));
        let played = Played { board: "pico2", image: runs, boot_loader: Box::new(|| {}) };
        let mut port = Simulator::memory().serial(9).play(played).start().unwrap().serve_pty().unwrap();
        port.link(&link).unwrap();
        port
    })
}

fn comes_up(machine: &Machine) -> JoinHandle<SerialPort> {
    comes_up_with(machine, says(&image()))
}

/// A board that runs sshsm, at `port`: its boot loader's drive is `drive`. And whether that was started.
fn runs(
    machine: &Machine,
    presence: Presence,
    how: impl FnOnce(Builder) -> Builder,
) -> (SerialPort, Arc<AtomicBool>) {
    let (volume, started) = (machine.path("drive"), Arc::new(AtomicBool::new(false)));
    let starts = started.clone();
    let boot_loader = Box::new(move || {
        starts.store(true, Ordering::Relaxed);
        let volume = volume.clone();
        // The port is gone before the drive is there.
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(1000));
            drive(&volume, "RP2350");
        });
    });
    let played = Played { board: "pico2", image: Image { sha256: [1; 32], length: 1 }, boot_loader };
    let builder = Simulator::memory().serial(9).play(played).touch(Box::new(move |_| {
        // As long as it takes to inform the host.
        thread::sleep(Duration::from_millis(300));
        presence
    }));
    let mut port = how(builder).start().unwrap().serve_pty().unwrap();
    port.link(&machine.path("port")).unwrap();
    (port, started)
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
fn a_board_that_runs_starts_its_boot_loader_for_a_password_and_a_touch() {
    let machine = machine();
    let (_port, started) = runs(&machine, Presence::Confirmed, |builder| builder);
    let device = comes_up(&machine);
    let run = machine.run(&FLASH);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("touch the device (it waits 15 s)"), "{run:?}");
    assert!(run.stdout.contains("0000000009") && !run.stderr.contains("BOOTSEL"), "{run:?}");
    assert!(started.load(Ordering::Relaxed));
    drop(device.join().unwrap());
}

#[test]
fn a_board_does_not_start_its_boot_loader_without_the_password_or_without_a_touch() {
    let machine = machine();
    for (presence, password, code, said) in [
        (Presence::Confirmed, "wrong", 4, "wrong password"),
        (Presence::TimedOut, "password", 7, "touch the device while it waits"),
    ] {
        let (port, started) = runs(&machine, presence, |builder| builder);
        let run = machine.with_environment(&FLASH, &[("SSHSM_PASSWORD", password)]);
        assert_eq!(run.code, code, "{run:?}");
        assert!(run.stderr.contains(said), "{run:?}");
        assert!(!started.load(Ordering::Relaxed) && !machine.path("drive").exists());
        drop(port);
    }
}

#[test]
fn a_board_that_cannot_be_asked_is_for_the_reader_to_start_and_waited_for() {
    type How = fn(Builder) -> Builder;
    let as_it_is: How = |builder| builder;
    let strict: How = Builder::strict_yubihsm2;
    for (how, password, by_hand, said) in [
        (None, true, false, "no board was found"),
        (Some(as_it_is), false, false, "no password was given"),
        (Some(as_it_is), true, true, "start the boot loader"),
        (Some(strict), true, false, "knows no command for it"),
    ] {
        let machine = machine();
        let (port, started) = how.map(|how| runs(&machine, Presence::Confirmed, how)).unzip();
        let volume = machine.path("drive");
        // The reader pulls the plug, and puts it in again with the button held down.
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(1500));
            drop(port);
            drive(&volume, "RP2350");
        });
        let device = comes_up(&machine);
        let arguments = [&FLASH[..], if by_hand { &["--by-hand"] } else { &[] }].concat();
        let run = if password { machine.run(&arguments) } else { machine.without_password(&arguments) };
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.stderr.contains(said), "{said}: {run:?}");
        assert!(run.stderr.contains(": hold BOOTSEL while you plug the board in"), "{run:?}");
        assert!(started.is_none_or(|started| !started.load(Ordering::Relaxed)), "{said}");
        drop(device.join().unwrap());
    }
}

#[test]
fn a_device_that_failed_is_for_the_reader_to_start() {
    let machine = machine();
    let (path, board) = Port::new().played(|port| {
        let mut fake = Fake::new(port, "pico2");
        fake.endpoint.fail();
        fake.stay();
    });
    symlink(path, machine.path("port")).unwrap();
    let run = machine.run(&[&FLASH[..7], &["--wait", "0"]].concat());
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("the device failed (`sshsm device log` says why): hold BOOTSEL"), "{run:?}");
    board.join().unwrap();
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
    fs::write(machine.path("pico2.uf2"), image_at(PICO, "pico", 0x1000_0000)).unwrap();
    let run = machine.without_password(&FLASH);
    assert!(run.code == 1 && run.stderr.contains("not for pico2"), "{run:?}");
    assert!(!machine.path("drive/SSHSM.UF2").exists());
}

#[test]
fn an_image_that_is_not_sshsm_or_would_overwrite_the_devices_keys_is_not_written() {
    let machine = machine();
    drive(&machine.path("drive"), "RP2350");
    let mut unnamed = image();
    unnamed[512 + 32] = b'S';
    for (uf2, said) in [
        (unnamed, "does not say that it is sshsm"),
        (image_at(PICO2, "pico3", 0x1000_0000), "sshsm for pico3, not for pico2"),
        (image_at(PICO2, "pico2", 0x1038_0000), "writes to 0x10380000"),
        (image_at(0xd663_823c, "pico2", 0xf_4000), "a new boot loader, not firmware"),
    ] {
        fs::write(machine.path("pico2.uf2"), uf2).unwrap();
        let run = machine.without_password(&FLASH);
        assert!(run.code == 1 && run.stderr.contains(said), "{said}: {run:?}");
        assert!(!machine.path("drive/SSHSM.UF2").exists(), "{said}");
    }
}

#[test]
fn a_link_on_the_drive_is_not_written_through() {
    let machine = machine();
    drive(&machine.path("drive"), "RP2350");
    machine.write("victim", "precious");
    symlink(machine.path("victim"), machine.path("drive/SSHSM.UF2")).unwrap();
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 6, "{run:?}");
    assert!(run.stderr.contains("SSHSM.UF2 is not a file"), "{run:?}");
    assert_eq!(fs::read_to_string(machine.path("victim")).unwrap(), "precious");
}

#[test]
fn a_device_that_says_that_it_runs_another_image_is_an_error() {
    let machine = machine();
    drive(&machine.path("drive"), "RP2350");
    let device = comes_up_with(&machine, Image { sha256: [0xab; 32], length: 512 });
    let run = machine.without_password(&FLASH);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("reports that it runs the image with SHA-256 ababab"), "{run:?}");
    drop(device.join().unwrap());
}

#[test]
fn an_image_that_would_not_start_on_an_nrf52840_is_not_written() {
    let machine = machine();
    fs::write(machine.path("nrf52840.uf2"), image_at(0xada5_2840, "nrf52840", 0x2_6000)).unwrap();
    let flash =
        ["flash", "--board", "nrf52840", "--image", "nrf52840.uf2", "--volume", "drive", "--wait", "0"];
    const LIBRARIES: &str = "lib/nrfx (v2.0.0) lib/tinyusb (0.9.0-22-g7cdeed54)";
    for (boot_loader, soft_device, refused) in [
        ("0.6.1", "S140 6.1.1", None),
        ("0.9.2-4-g1234567", "S140 6.1.1", None),
        ("0.9.2", "S140 7.3.0", Some("\"S140 7.3.0\"; the image is linked")),
        ("0.9.2", "S132 6.1.1", Some("\"S132 6.1.1\"; the image is linked")),
        ("0.9.2", "not found", Some("\"not found\"; the image is linked")),
        ("0.6.0", "S140 6.1.1", Some("those before 0.6.1 leave out the end of the image")),
        ("0.3.2", "S140 6.1.1", Some("those before 0.6.1 leave out the end of the image")),
        ("0.2.6", "S140 6.1.1", Some("those before 0.6.1 leave out the end of the image")),
        ("unknown", "S140 6.1.1", Some("those before 0.6.1 leave out the end of the image")),
    ] {
        let _ = fs::remove_dir_all(machine.path("drive"));
        let first = format!("UF2 Bootloader {boot_loader} {LIBRARIES}");
        let id = format!("nRF52840-Feather-revD\r\nSoftDevice: {soft_device}");
        drive_of(&machine.path("drive"), &id, &first);
        let run = machine.without_password(&flash);
        assert_eq!(machine.path("drive/SSHSM.UF2").exists(), refused.is_none(), "{boot_loader}: {run:?}");
        assert!(refused.is_none_or(|refused| run.stderr.contains(refused)), "{run:?}");
    }
}

#[test]
fn a_drive_or_a_device_that_never_comes_is_given_up() {
    let machine = machine();
    let impatient = [&FLASH[..7], &["--wait", "1"]].concat();
    let run = machine.without_password(&impatient);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("no drive of a pico2's boot loader appeared"), "{run:?}");
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
    // Stands in for cargo: records its arguments, and puts the image where they say.
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

/// A cargo that reports that it ran, and where.
#[test]
fn firmware_is_not_built_in_a_folder_that_someone_else_could_have_written_in() {
    let machine = Machine::new();
    let tree = machine.path("tree");
    for folder in ["xtask", "firmware", "deep", ".cargo"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
        fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = |name: &str, mode| {
        fs::write(tree.join(name), "").unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("xtask/Cargo.toml", 0o644);
    let cargo = machine.path("cargo");
    fs::write(&cargo, "#!/bin/sh\ntouch \"$RAN\"\nexit 1\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = machine.path("ran");
    let build = || {
        let _ = fs::remove_file(&ran);
        let mut command = machine.command(&["flash", "--board", "pico", "--build"]);
        let output =
            command.current_dir(tree.join("deep")).env("CARGO", &cargo).env("RAN", &ran).output().unwrap();
        assert!(!output.status.success());
        (ran.exists(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(build().0, "{}", build().1);
    for name in ["xtask/Cargo.toml", "xtask/build.rs", ".cargo/config.toml"] {
        file(name, 0o666);
        let (ran, told) = build();
        assert!(!ran && told.contains("can be written by others") && told.contains(name), "{told}");
        file(name, 0o644);
    }
    assert!(build().0);
    // What cargo reads in the folders above.
    let above = machine.path(".cargo");
    fs::create_dir(&above).unwrap();
    fs::write(above.join("config.toml"), "").unwrap();
    fs::set_permissions(above.join("config.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    let (did, told) = build();
    assert!(!did && told.contains(".cargo/config.toml"), "{told}");
    fs::remove_dir_all(&above).unwrap();
    // Another user's, which only root can make.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(tree.join("xtask/Cargo.toml"), Some(65534), None).unwrap();
        let (did, told) = build();
        assert!(!did && told.contains("belongs to user 65534"), "{told}");
    }
}
