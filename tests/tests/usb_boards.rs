//! The real images of the boards with a USB port, in emulators: enumerated over USB and used by the real `sshsm`; and as files.
//! Every scenario runs on every board, as BOARD::SCENARIO.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_client::{Client, ClientError, Exchange, ExchangeError, Listener, Session};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId, ObjectType,
    link::{Activity, Answer, LinkError, Request, ResetReason},
    object::{ListFilter, NewObject},
    ssh::timestamp::Now,
};
use sshsm_tests::{
    binaries,
    key::{Key, KeyType, ssh_keygen},
    link::Link,
    needs,
    process::{Finished, run, wait_for},
    python::emulator_python,
    requirement::{Missing, workspace},
    usb_board::{Board, UsbBoard, image, thoroughly},
    vector,
};
use std::{
    collections::BTreeMap,
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::Range,
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};
use tempfile::tempdir;

/// A host with the real `sshsm`, and a timestamp key.
struct Host<'a>(&'a Path);

impl Host<'_> {
    /// `sshsm` for a board, as the key that may only sign once there is one.
    fn sshsm(&self, board: &UsbBoard) -> process::Command {
        let mut command = binaries::sshsm();
        command
            .current_dir(self.0)
            .env("SSHSM_DEVICE", format!("serial:{}", board.port().display()))
            .env("SSHSM_NEW_PASSWORD", "correct horse")
            .env("SSHSM_SIGNER_PASSWORD", "battery staple")
            .env("SSHSM_PASSWORD", "battery staple")
            .env("SSHSM_LEDGER", "ledger.sqlite")
            .env("SSHSM_AUTH_KEY", "2");
        command
    }

    fn provision(&self, board: &UsbBoard) {
        let template = "ca-keys = [5, 6]\ntimestamp-key = \"timestamp.pub\"\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\n";
        fs::write(self.0.join("template.toml"), template).unwrap();
        let provision = ["provision", "--template", "template.toml", "--algorithm", "p256", "--ca-key", "5"];
        let mut command = self.sshsm(board);
        command.env("SSHSM_PASSWORD", "password").env_remove("SSHSM_AUTH_KEY");
        fs::write(self.0.join("5.pub"), run(command.args(provision)).success().stdout).unwrap();
        let second = ["key", "generate", "--algorithm", "ed25519", "--id", "6", "--label", "second CA"];
        let second = run(self.administrator(board).args(second)).success().stdout;
        fs::write(self.0.join("6.pub"), second).unwrap();
    }

    /// `sshsm` with a key that may do anything.
    fn administrator(&self, board: &UsbBoard) -> process::Command {
        let mut command = self.sshsm(board);
        command.env("SSHSM_PASSWORD", "correct horse").env_remove("SSHSM_AUTH_KEY");
        command
    }

    /// Has a CA key sign `user`.
    fn sign(&self, board: &UsbBoard, id: &str, user: &Key) -> Finished {
        let sign = ["sign", "-s", id, "-t", "10", "--timestamp-key", "timestamp"];
        run(self.sshsm(board).args(sign).args(["-I", "me", "-n", "me", "-V", "+1h"]).arg(&user.public))
    }

    /// Has both CA keys sign `user`, and `ssh-keygen` report the signer.
    fn sign_with_both(&self, board: &UsbBoard, user: &Key) {
        let ssh_keygen = || ssh_keygen().unwrap();
        for (id, kind) in [("5", "ECDSA"), ("6", "ED25519")] {
            let _ = self.sign(board, id, user).success();
            let shown = run(ssh_keygen().arg("-L").arg("-f").arg(user.certificate())).success().stdout;
            let ca =
                run(ssh_keygen().arg("-l").arg("-f").arg(self.0.join(format!("{id}.pub")))).success().stdout;
            let fingerprint = ca.split(' ').nth(1).unwrap();
            assert!(shown.contains(&format!("Signing CA: {kind} {fingerprint}")), "{ca}\n{shown}");
        }
    }
}

/// Runs `happens` while the button is pressed again and again.
fn pressing(board: &UsbBoard, happens: impl FnOnce() -> Finished + Send) -> Finished {
    thread::scope(|scope| {
        let running = scope.spawn(happens);
        for down in [true, false].into_iter().cycle() {
            board.press(down);
            thread::sleep(Duration::from_millis(150));
            if !down && running.is_finished() {
                break;
            }
        }
        running.join().unwrap()
    })
}

/// An exchange that asks how the board is all the while that it computes.
struct Watching(Link, Arc<AtomicUsize>);

impl Exchange for Watching {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let (answer, asked) = self.0.transact_and_watch(frame);
        self.1.fetch_max(asked, Ordering::Relaxed);
        Ok(answer)
    }

    fn describe(&self) -> String {
        "a board".to_owned()
    }
}

/// Connects to a factory-new device.
fn connect(port: &Path) -> Client {
    Client::connect(Box::new(Link::open(port)), Listener::default()).unwrap()
}

/// A session that may do anything, on a factory-new device.
fn session(client: &mut Client) -> Session<'_> {
    Session::open(client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap()
}

fn object(id: u16, domains: &[u8], capabilities: &[Capability], algorithm: Algorithm) -> NewObject {
    NewObject {
        id: Some(ObjectId::new(id).unwrap()),
        label: Label::new("").unwrap(),
        domains: Domains::from_bits(domains.iter().map(|domain| 1 << (domain - 1)).sum()),
        capabilities: Capabilities::of(capabilities),
        algorithm,
    }
}

/// Makes each scenario a test of each board.
macro_rules! on_every_board {
    ($($scenario:ident),+ $(,)?) => {
        on_every_board! { @ mod pico = Board::Pico; $($scenario),+ }
        on_every_board! { @ mod pico2 = Board::Pico2; $($scenario),+ }
        on_every_board! { @ mod nrf52840 = Board::Nrf52840; $($scenario),+ }
    };
    (@ mod $name:ident = $board:path; $($scenario:ident),+) => {
        mod $name {
            use super::*;
            $(#[test] fn $scenario() { super::$scenario($board) })+
        }
    };
}

on_every_board! {
    it_is_provisioned_and_signs_also_after_a_restart_and_when_its_button_is_pressed,
    its_answer_is_the_hardwares_and_it_tells_its_status_while_rsa_computes,
    a_session_starts_it_again_and_a_session_and_a_press_of_its_button_its_boot_loader,
    it_says_which_image_it_runs_and_a_releases_checksums_have_it,
    a_power_cut_in_a_flash_operation_takes_nothing_that_was_acknowledged,
    a_full_store_is_refused_and_still_signs,
    a_source_of_noise_that_fails_stops_the_device_which_says_why,
}

fn it_is_provisioned_and_signs_also_after_a_restart_and_when_its_button_is_pressed(board: Board) {
    let directory = tempdir().unwrap();
    let device = directory.path().join("device");
    let _ = needs!(Key::generate(directory.path(), "timestamp", KeyType::Ed25519));
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let host = Host(directory.path());
    let first = {
        let mut running = needs!(UsbBoard::start(board, &device));
        let usb = running.wait_for("usb ", 1);
        let (name, serial) = Link::open(running.port()).hello();
        assert_eq!(usb, format!("usb 1209:0001 sshsm project / sshsm / {serial}"));
        assert_eq!(name, board.name());
        host.provision(&running);
        host.sign_with_both(&running, &user);
        assert_eq!(running.said(), usb.clone() + "\n", "nothing but a device that works");
        usb
    };
    let mut running = needs!(UsbBoard::start(board, &device));
    assert_eq!(running.wait_for("usb ", 1), first, "it is the same device");
    host.sign_with_both(&running, &user);
    insist_on_a_light_that_waits(&running);

    let option = ["device", "option", "set", "user-presence", "certificates", "--timeout", "4"];
    let _ = pressing(&running, || run(host.administrator(&running).args(option))).success();
    let changes = running.light().len();
    let alone = host.sign(&running, "5", &user);
    assert_eq!(alone.status.code(), Some(7), "the button was not pressed: {alone}");
    insist_on_a_light_that_asks_to_be_touched(&running.light()[changes..]);
    let _ = pressing(&running, || host.sign(&running, "5", &user)).success();
}

/// How long the light was on, or off, each time, in milliseconds: all but what began before the first change.
fn spans(light: &[(u64, bool)]) -> Vec<(bool, u64)> {
    light.windows(2).map(|pair| (pair[0].1, (pair[1].0 - pair[0].0) / 1000)).collect()
}

/// A device that waits shows a short flash every two seconds.
fn insist_on_a_light_that_waits(board: &UsbBoard) {
    let begun = board.light().len();
    let seen =
        wait_for("the light to go on and off", || Some(board.light()).filter(|seen| seen.len() > begun + 6));
    for (on, time) in spans(&seen[begun + 1..]) {
        let expected = if on { 50..=150 } else { 1850..=1950 };
        assert!(expected.contains(&time), "{on} for {time} ms: {seen:?}");
    }
}

/// A device that waits for a touch blinks fast and evenly.
fn insist_on_a_light_that_asks_to_be_touched(light: &[(u64, bool)]) {
    let quick = spans(light).iter().filter(|(_, time)| (50..=150).contains(time)).count();
    assert!(quick >= 20, "for four seconds: {light:?}");
}

fn its_answer_is_the_hardwares_and_it_tells_its_status_while_rsa_computes(board: Board) {
    let vector = needs!(vector::signing());
    let directory = tempdir().unwrap();
    let running = needs!(UsbBoard::start(board, directory.path()));
    let asked = Arc::new(AtomicUsize::new(0));
    let watching = Watching(Link::open(running.port()), Arc::clone(&asked));
    let mut client = Client::connect(Box::new(watching), Listener::default()).unwrap();
    let mut session = session(&mut client);
    let key = &vector.ca_key;
    let ca_key = object(key.object_id, &key.domains, &[Capability::SignSshCertificate], Algorithm::Rsa2048);
    let ca_key = session.put_asymmetric_key(&ca_key, &[&*key.p.0, &*key.q.0].concat()).unwrap();
    let template = object(vector.template.object_id, &vector.template.domains, &[], Algorithm::TemplateSsh);
    let template = session.put_template(&template, &vector.template.bytes.0).unwrap();
    let signing = &vector.sign;
    let request = [signing.timestamp_signature.0.as_slice(), &signing.request.0].concat();
    let (algorithm, now) = (Algorithm::RsaPkcs1Sha1, Now::from_seconds(signing.now));
    let answer = session.sign_ssh_certificate(ca_key, template, algorithm, now, &request).unwrap();
    assert_eq!(answer, vector.response.0, "the hardware's answer");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked >= 10, "it was asked {asked} times only");
}

fn a_session_starts_it_again_and_a_session_and_a_press_of_its_button_its_boot_loader(board: Board) {
    let directory = tempdir().unwrap();
    let mut running = needs!(UsbBoard::start(board, directory.path()));
    let mut link = Link::open(running.port());
    assert_eq!(link.status().reset, ResetReason::PowerOn);
    let identity = link.hello();
    // Version 1 of the link had requests for a reboot, into the firmware and into the boot loader, which
    // anyone could send.
    for boot in [0_u8, 1] {
        link.ask_raw(&(4_u8, boot), |answer| assert_eq!(answer, Answer::Error(LinkError::UnknownRequest)));
    }
    let mut session = link.session();
    assert_eq!(link.command(&mut session, Command::RestartDevice, &[], || {}), (0xfb, vec![]));
    insist_on_clear_memory(&running.wait_for("reset", 1));
    running.wait_for("usb ", 2);
    assert_eq!(link.status().reset, ResetReason::Requested);
    assert_eq!(link.hello(), identity);
    let mut session = link.session();
    let untouched = link.command(&mut session, Command::StartBootLoader, &[], || {});
    assert_eq!(untouched, (0x7f, vec![0x40]), "the button was not pressed");
    let started = link.command(&mut session, Command::StartBootLoader, &[], || running.press(true));
    assert_eq!(started, (0xfe, vec![]));
    insist_on_clear_memory(&running.wait_for("reset", 2));
    running.wait_for("bootloader", 1);
}

fn it_says_which_image_it_runs_and_a_releases_checksums_have_it(board: Board) {
    let image = needs!(image(&format!("{}.bin", board.name())));
    let directory = tempdir().unwrap();
    let running = needs!(UsbBoard::start(board, directory.path()));
    sshsm_tests::sums::compare(running.port(), &image);
}

/// The contents of memory are gone before a device restarts, except for the reason, which is one word.
fn insist_on_clear_memory(reset: &str) {
    let words = reset.split(' ').nth(1).and_then(|words| words.parse::<usize>().ok());
    assert!(words.is_some_and(|words| words <= 1), "{reset}");
}

/// An unpredictable number up to `limit`.
fn random(limit: u64) -> u64 {
    RandomState::new().build_hasher().finish() % limit
}

/// The keys that a device has, by their numbers.
fn keys(port: &Path) -> BTreeMap<u16, Vec<u8>> {
    let mut client = connect(port);
    let mut session = session(&mut client);
    let filter = ListFilter { object_type: Some(ObjectType::AsymmetricKey), ..ListFilter::default() };
    let keys = session.list_objects(&filter).unwrap();
    keys.iter().map(|key| (key.id.get(), session.public_key(key.id).unwrap().bytes)).collect()
}

/// Generates keys with these numbers, and reports each one that the device acknowledges.
fn make_keys(port: &Path, ids: impl Iterator<Item = u16>, made: &Sender<(u16, Vec<u8>)>) {
    let mut client = connect(port);
    let mut session = session(&mut client);
    for id in ids {
        let key = object(id, &[1], &[Capability::SignEddsa], Algorithm::Ed25519);
        let key = session.generate_asymmetric_key(&key).unwrap();
        let public = session.public_key(key).unwrap().bytes;
        if made.send((id, public)).is_err() {
            break;
        }
    }
}

fn a_power_cut_in_a_flash_operation_takes_nothing_that_was_acknowledged(board: Board) {
    // The first start creates the store; words are programmed one by one on an nRF52840, several at once
    // elsewhere.
    let limit = if board == Board::Nrf52840 { 400 } else { 60 };
    let directory = tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..thoroughly(2, 12) {
        let cut = random(limit).to_string();
        println!("round {round}: the power is cut in the flash operation after {cut}");
        let mut running = needs!(UsbBoard::start_with(board, directory.path(), &["--cut", &cut]));
        let (sender, made) = mpsc::channel();
        let next = known.keys().last().map_or(1, |last| last + 1);
        if running.says("usb ") {
            let (port, sender) = (running.port().to_path_buf(), sender.clone());
            // It waits forever for an answer that the power cut has prevented.
            thread::spawn(move || make_keys(&port, next.., &sender));
        }
        running.wait_for("power cut", 1);
        drop(running);
        known.extend(made.try_iter());

        let running = needs!(UsbBoard::start(board, directory.path()));
        let found = keys(running.port());
        let lost: Vec<_> = known.iter().filter(|(id, key)| found.get(id) != Some(key)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(found.len() <= known.len() + 1, "one at most was not acknowledged: {found:?}, {known:?}");
        known = found;
        let next = known.keys().last().map_or(1, |last| last + 1);
        make_keys(running.port(), next..=next, &sender);
        known.extend(made.try_iter());
    }
}

fn a_full_store_is_refused_and_still_signs(board: Board) {
    let directory = tempdir().unwrap();
    let put = |session: &mut Session<'_>, id: u16| {
        let head =
            [&id.to_be_bytes()[..], &[b'x'; 40], &[0, 1], &[0; 8], &[Algorithm::OpaqueData.code()]].concat();
        session.command(Command::PutOpaque, &[head, vec![0x5a; 1900]].concat())
    };
    let refused = |outcome: Result<Vec<u8>, ClientError>| {
        let full = matches!(outcome, Err(ClientError::Device { error: DeviceError::StorageFailed, .. }));
        assert!(full, "{outcome:?}");
    };
    let key = ObjectId::new(1).unwrap();
    let count = {
        let running = needs!(UsbBoard::start(board, directory.path()));
        let mut client = connect(running.port());
        let mut session = session(&mut client);
        let new = object(1, &[1], &[Capability::SignEddsa], Algorithm::Ed25519);
        session.generate_asymmetric_key(&new).unwrap();
        let count = (1..300).take_while(|id| put(&mut session, *id).is_ok()).count();
        println!("{count} objects of 1900 bytes");
        assert!((10..300).contains(&count));
        for id in [1000, 1001] {
            refused(put(&mut session, id));
        }
        assert_eq!(session.sign_eddsa(key, b"full").unwrap().len(), 64);
        count
    };
    if board == Board::Nrf52840 {
        // Where the boot loader puts an update of itself.
        let flash = fs::read(directory.path().join("flash")).unwrap();
        assert!(
            flash[0xe_0000..0xe_a000].iter().all(|byte| *byte == 0xff),
            "the boot loader's place is used"
        );
    }
    let running = needs!(UsbBoard::start(board, directory.path()));
    let mut client = connect(running.port());
    let mut session = session(&mut client);
    assert_eq!(session.sign_eddsa(key, b"full").unwrap().len(), 64);
    refused(put(&mut session, 1000));
    let last = ObjectId::new(u16::try_from(count).unwrap()).unwrap();
    assert_eq!(session.opaque(last).unwrap(), [0x5a; 1900]);
    session.delete_object(last, ObjectType::Opaque).unwrap();
    put(&mut session, 1000).unwrap();
    refused(put(&mut session, 1001));
}

/// The lines of a device's log.
fn log(link: &mut Link) -> Vec<String> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some((number, text)) = link.ask(&Request::Log { from }, |answer| match answer {
        Answer::Log(line) => line.map(|line| (line.number, line.text.to_owned())),
        other => panic!("{other:?}"),
    }) {
        lines.push(text);
        from = number + 1;
    }
    lines
}

/// The activity of a device that has started, or has given up.
fn settled(link: &mut Link) -> Activity {
    wait_for("the device to start", || {
        Some(link.status().activity).filter(|activity| *activity != Activity::Starting)
    })
}

fn a_source_of_noise_that_fails_stops_the_device_which_says_why(board: Board) {
    let failures: &[_] = match board {
        Board::Pico => &[("dead", "repeats itself")],
        Board::Pico2 => {
            &[("dead", "repeats itself"), ("failing", "reports a failure"), ("silent", "is silent")]
        }
        Board::Nrf52840 => &[("dead", "repeats itself"), ("silent", "is silent")],
    };
    for (noise, reason) in failures {
        let directory = tempdir().unwrap();
        let mut running = needs!(UsbBoard::start_with(board, directory.path(), &["--noise", noise]));
        running.wait_for("usb ", 1);
        let mut link = Link::open(running.port());
        let activity = settled(&mut link);
        let log = log(&mut link);
        assert_eq!(activity, Activity::Failed, "{noise}: {log:?}");
        assert!(log.iter().any(|line| line.contains(reason)), "{noise}, {reason}: {log:?}");
        insist_on_a_light_that_says_that_it_failed(&running);
        assert_eq!(running.said().lines().count(), 1, "it remains in this state: {}", running.said());
    }
}

/// Three flashes and a pause.
fn insist_on_a_light_that_says_that_it_failed(board: &UsbBoard) {
    let begun = board.light().len();
    let seen = wait_for("the light", || Some(board.light()).filter(|seen| seen.len() > begun + 13));
    let flashes = spans(&seen[begun..]).iter().filter(|(on, time)| *on && (100..=200).contains(time)).count();
    assert!(flashes >= 5, "{seen:?}");
}

/// A seed lasts for a thousand draws. On the Pico's emulator they take minutes; its code is the same.
#[test]
fn a_source_of_noise_that_dies_while_the_device_runs_ends_the_run_and_the_next_start() {
    for board in [Board::Pico2, Board::Nrf52840] {
        let directory = tempdir().unwrap();
        let mut running = needs!(UsbBoard::start_with(board, directory.path(), &["--noise", "dying"]));
        running.wait_for("usb ", 1);
        let port = running.port().to_path_buf();
        // It draws until there is no answer, for which it waits forever.
        thread::spawn(move || {
            let mut client = connect(&port);
            let mut session = session(&mut client);
            while session.pseudo_random(16).is_ok() {}
        });
        insist_on_clear_memory(&running.wait_for("reset", 1));
        running.wait_for("usb ", 2);
        insist_on_a_light_that_says_that_it_failed(&running);
        assert_eq!(running.said().lines().count(), 3, "it remains in this state: {}", running.said());
    }
}

/// Errors of its hardware's own tests are not a reason to stop: sound noise causes them too.
#[test]
fn a_pico_2s_noise_is_tried_again_when_its_own_tests_fail() {
    for noise in ["autocorrelation", "repetition"] {
        let directory = tempdir().unwrap();
        let mut running = needs!(UsbBoard::start_with(Board::Pico2, directory.path(), &["--noise", noise]));
        running.wait_for("usb ", 1);
        let mut link = Link::open(running.port());
        let activity = settled(&mut link);
        assert_eq!(activity, Activity::Idle, "{noise}: {:?}", log(&mut link));
        let mut client = connect(running.port());
        let mut session = session(&mut client);
        let key = object(1, &[1], &[Capability::SignEddsa], Algorithm::Ed25519);
        let key = session.generate_asymmetric_key(&key).unwrap();
        assert_eq!(session.sign_eddsa(key, noise.as_bytes()).unwrap().len(), 64);
        assert_eq!(running.said().lines().count(), 1, "{}", running.said());
    }
}

/// A first start's work on the flash does not hold up enumeration: some hosts give up on a device if a
/// control transfer gets no answer in time.
#[test]
fn a_first_start_is_enumerated_by_a_host_that_does_not_try_again() {
    for board in [Board::Pico2, Board::Nrf52840] {
        for debounce in thoroughly(&["150", "300"][..], &["100", "120", "150", "200", "300", "600", "1000"]) {
            let directory = tempdir().unwrap();
            let options = ["--debounce", debounce, "--retries", "0", "--erase-time", "400"];
            let mut running = needs!(UsbBoard::start_with(board, directory.path(), &options));
            let usb = running.wait_for("usb ", 1);
            assert!(usb.starts_with("usb 1209:0001 "), "{board:?} after {debounce} ms: {usb}");
        }
    }
}

/// UICR belongs to the owner: only a mass erasure undoes a write there, and on chips since build code F the
/// debug port is closed unless a program opens it.
#[test]
fn an_nrf52840_starts_without_a_write_to_uicr_and_leaves_the_debug_port_closed() {
    for code in ["C", "F"] {
        let directory = tempdir().unwrap();
        let options = ["--build-code", code];
        let mut running = needs!(UsbBoard::start_with(Board::Nrf52840, directory.path(), &options));
        running.wait_for("usb ", 1);
        assert_eq!(running.said().lines().count(), 1, "{}", running.said());
        assert_eq!(fs::read(directory.path().join("uicr")).unwrap(), [0xff; 4096]);
    }
}

/// Boot loaders before 0.6.1 leave out the end of a long image: `sshsm flash` refuses them.
#[test]
fn an_nrf52840s_image_that_an_old_boot_loader_has_cut_off_does_not_start() {
    let directory = tempdir().unwrap();
    let mut running = needs!(UsbBoard::start_with(Board::Nrf52840, directory.path(), &["--old-bootloader"]));
    assert!(running.says("trap") || running.says("fault"));
    assert!(!running.said().contains("usb 1209"), "{}", running.said());
}

/// The boot ROM uses the generator with its tests off, and leaves a block that is marked as good.
#[test]
fn a_pico_2s_first_noise_is_its_own_and_not_what_the_boot_rom_left() {
    let directory = tempdir().unwrap();
    let running = needs!(UsbBoard::start(Board::Pico2, directory.path()));
    keys(running.port());
    assert!(!running.said().contains("noise"), "{}", running.said());
}

/// A Pico's emulator has no faults; its handler is the same.
#[test]
fn a_stack_that_is_used_up_ends_with_memory_cleared_and_a_restart_that_says_so() {
    for board in [Board::Pico2, Board::Nrf52840] {
        let directory = tempdir().unwrap();
        let mut running = needs!(UsbBoard::start(board, directory.path()));
        let mut link = Link::open(running.port());
        link.session();
        running.overflow_stack();
        insist_on_clear_memory(&running.wait_for("reset", 1));
        running.wait_for("usb ", 2);
        let status = link.status();
        assert_eq!((status.reset, status.sessions), (ResetReason::Panic, 0));
        assert_eq!(running.said().matches("fault").count(), 1, "{}", running.said());
    }
}

#[test]
fn the_emulator_of_pico2_and_nrf52840_does_what_it_says_of_itself() {
    let python = needs!(emulator_python());
    let test = workspace().join("tests/boards/self_test.py");
    let finished = run(process::Command::new(python).arg("-B").arg(test)).success();
    assert!(finished.stderr.ends_with("OK\n") && !finished.stderr.contains("Ran 0 tests"), "{finished}");
}

/// What `sshsm flash` reports about an image matches its build.
#[test]
fn sshsm_copies_each_boards_image_to_that_boards_drive_only() {
    let boards = [("pico", "RPI-RP2"), ("pico2", "RP2350"), ("nrf52840", "nRF52840-Feather-revD")];
    for (name, id) in boards {
        let image = needs!(image(&format!("{name}.uf2")));
        for (board, _) in boards {
            let drive = tempdir().unwrap();
            let info = format!("UF2 Bootloader 0.6.1\nBoard-ID: {id}\n");
            fs::write(drive.path().join("INFO_UF2.TXT"), info).unwrap();
            let mut flash = binaries::sshsm();
            flash.args([
                "--device",
                "serial:/nonexistent",
                "flash",
                "--wait",
                "0",
                "--board",
                board,
                "--volume",
            ]);
            let flashed = run(flash.arg(drive.path()).arg("--image").arg(&image));
            let copied = fs::read(drive.path().join("SSHSM.UF2")).ok();
            assert_eq!(
                copied,
                (board == name).then(|| fs::read(&image).unwrap()),
                "{name}, {board}: {flashed}"
            );
        }
    }
}

/// The flash that a UF2 file of this family writes, in order: addresses and payloads of its blocks. Their
/// magic numbers and numbering are checked.
fn blocks(name: &str, family: u32) -> Result<Vec<(u32, [u8; 256])>, Missing> {
    let file = fs::read(image(name)?).unwrap();
    let (blocks, []) = file.as_chunks::<512>() else { panic!("{name} does not end with a block") };
    let total = u32::try_from(blocks.len()).unwrap();
    Ok((0..)
        .zip(blocks)
        .map(|(number, block)| {
            let (words, []) = block.as_chunks::<4>() else { unreachable!() };
            let word = |index: usize| u32::from_le_bytes(words[index]);
            assert_eq!([word(0), word(1), word(127)], [0x0a32_4655, 0x9e5d_5157, 0x0ab1_6f30]);
            assert_eq!([word(4), word(5), word(6)], [256, number, total]);
            assert_eq!([word(2), word(7)], [0x2000, family], "{name}");
            (word(3), *block[32..].first_chunk().unwrap())
        })
        .collect())
}

/// The whole image from `start`, which must end before `limit`.
fn contiguous(blocks: &[(u32, [u8; 256])], start: u32, limit: u32) -> Vec<u8> {
    let end = blocks.last().unwrap().0 + 256;
    assert_eq!(blocks[0].0, start);
    assert!(end <= limit, "the image ends at {end:#x}, where the store may not be touched from {limit:#x}");
    println!("{} bytes, {} to spare", end - start, limit - end);
    let mut image = vec![0; usize::try_from(end - start).unwrap()];
    for (address, payload) in blocks {
        image[usize::try_from(address - start).unwrap()..][..256].copy_from_slice(payload);
    }
    image
}

fn word(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..][..4].try_into().unwrap())
}

/// The processor takes its stack pointer and its first instruction from here.
fn insist_on_vectors(vectors: &[u8], ram: Range<u32>, code: Range<u32>) {
    let (stack, reset) = (word(vectors, 0), word(vectors, 4));
    assert!(ram.contains(&(stack - 4)) && stack.is_multiple_of(8), "stack at {stack:#x}");
    assert!(code.contains(&reset) && reset % 2 == 1, "reset to {reset:#x}");
}

#[test]
fn the_picos_image_has_a_boot_block_with_its_checksum_and_spares_the_store() {
    let blocks = needs!(blocks("pico.uf2", 0xe48b_ff56));
    let image = contiguous(&blocks, 0x1000_0000, 0x1020_0000 - 512 * 1024 - 4096);
    // RP2040 datasheet, 2.8.1.3.1: CRC-32/MPEG-2 of the first 252 bytes.
    let mut crc = u32::MAX;
    for byte in &image[..252] {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
        }
    }
    assert_eq!(word(&image, 252), crc);
    insist_on_vectors(&image[256..], 0x2000_0000..0x2004_2000, 0x1000_0100..0x1020_0000);
}

#[test]
fn the_pico_2s_image_has_an_image_definition_in_its_first_pages_and_spares_the_store() {
    let blocks = needs!(blocks("pico2.uf2", 0xe48b_ff59));
    let image = contiguous(&blocks, 0x1000_0000, 0x1040_0000 - 512 * 1024 - 4096);
    // RP2350 datasheet, 5.9: a loop of one block, with an IMAGE_DEF (0x42, one word): executable, secure, Arm, RP2350.
    let at =
        (0..4096).step_by(4).find(|&at| word(&image, at) == 0xffff_ded3).expect("a block in the first 4 KiB");
    let words = [4, 8, 12, 16].map(|offset| word(&image, at + offset));
    assert_eq!(words, [0x1021_0142, 0x0000_01ff, 0, 0xab12_3579]);
    insist_on_vectors(&image, 0x2000_0000..0x2008_2000, 0x1000_0000..0x1040_0000);
}

#[test]
fn the_nrf52840s_image_lies_between_the_soft_device_and_the_store() {
    let blocks = needs!(blocks("nrf52840.uf2", 0xada5_2840));
    let image = contiguous(&blocks, 0x2_6000, 0xd_8000);
    insist_on_vectors(&image, 0x2000_0000..0x2004_0000, 0x2_6000..0xd_8000);
}
