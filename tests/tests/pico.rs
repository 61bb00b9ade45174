//! The real images: the Pico's in an emulator, enumerated over USB and used by the real `sshsm`; the others as files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm::{
    client::{Client, Session},
    transport::{Transport, TransportError},
};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command as DeviceCommand, Domains, Label, ObjectId,
    link::{Answer, LinkError, ResetReason},
    object::NewObject,
};
use sshsm_tests::{
    binaries,
    key::{Key, KeyType, ssh_keygen},
    link::Link,
    needs,
    pico::{Pico, image},
    process::{Finished, run},
    requirement::Missing,
    vector,
};
use std::{
    fs,
    ops::Range,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};
use tempfile::tempdir;

/// A host with the real `sshsm`, and a timestamp key.
struct Host<'a>(&'a Path);

impl Host<'_> {
    /// `sshsm` for a board, as the key that may only sign once there is one.
    fn sshsm(&self, pico: &Pico) -> Command {
        let mut command = binaries::sshsm();
        command
            .current_dir(self.0)
            .env("SSHSM_DEVICE", format!("serial:{}", pico.port().display()))
            .env("SSHSM_NEW_PASSWORD", "correct horse")
            .env("SSHSM_SIGNER_PASSWORD", "battery staple")
            .env("SSHSM_PASSWORD", "battery staple")
            .env("SSHSM_LEDGER", "ledger.sqlite")
            .env("SSHSM_AUTH_KEY", "2");
        command
    }

    fn provision(&self, pico: &Pico) {
        let template = "ca-keys = [5, 6]\ntimestamp-key = \"timestamp.pub\"\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\n";
        fs::write(self.0.join("template.toml"), template).unwrap();
        let provision = ["provision", "--template", "template.toml", "--algorithm", "p256", "--ca-key", "5"];
        let mut command = self.sshsm(pico);
        command.env("SSHSM_PASSWORD", "password").env_remove("SSHSM_AUTH_KEY");
        fs::write(self.0.join("5.pub"), run(command.args(provision)).success().stdout).unwrap();
        let second = ["key", "generate", "--algorithm", "ed25519", "--id", "6", "--label", "second CA"];
        let second = run(self.administrator(pico).args(second)).success().stdout;
        fs::write(self.0.join("6.pub"), second).unwrap();
    }

    /// `sshsm` with a key that may do anything.
    fn administrator(&self, pico: &Pico) -> Command {
        let mut command = self.sshsm(pico);
        command.env("SSHSM_PASSWORD", "correct horse").env_remove("SSHSM_AUTH_KEY");
        command
    }

    /// Has a CA key sign `user`.
    fn sign(&self, pico: &Pico, id: &str, user: &Key) -> Finished {
        let sign = ["sign", "-s", id, "-t", "10", "--timestamp-key", "timestamp"];
        run(self.sshsm(pico).args(sign).args(["-I", "me", "-n", "me", "-V", "+1h"]).arg(&user.public))
    }

    /// Has both CA keys sign `user`, and `ssh-keygen` say who signed.
    fn sign_with_both(&self, pico: &Pico, user: &Key) {
        let ssh_keygen = || ssh_keygen().unwrap();
        for (id, kind) in [("5", "ECDSA"), ("6", "ED25519")] {
            let _ = self.sign(pico, id, user).success();
            let shown = run(ssh_keygen().arg("-L").arg("-f").arg(user.certificate())).success().stdout;
            let ca =
                run(ssh_keygen().arg("-l").arg("-f").arg(self.0.join(format!("{id}.pub")))).success().stdout;
            let fingerprint = ca.split(' ').nth(1).unwrap();
            assert!(shown.contains(&format!("Signing CA: {kind} {fingerprint}")), "{ca}\n{shown}");
        }
    }
}

/// What happens while somebody presses the button again and again.
fn pressing(pico: &Pico, happens: impl FnOnce() -> Finished + Send) -> Finished {
    thread::scope(|scope| {
        let running = scope.spawn(happens);
        for down in [true, false].into_iter().cycle() {
            pico.press(down);
            thread::sleep(Duration::from_millis(150));
            if !down && running.is_finished() {
                break;
            }
        }
        running.join().unwrap()
    })
}

#[test]
fn a_pico_is_provisioned_and_signs_also_after_a_restart_and_when_its_button_is_pressed() {
    let directory = tempdir().unwrap();
    let device = directory.path().join("device");
    let _ = needs!(Key::generate(directory.path(), "timestamp", KeyType::Ed25519));
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let host = Host(directory.path());
    let first = {
        let mut pico = needs!(Pico::start(&device));
        let usb = pico.wait_for("usb ", 1);
        let (board, serial) = Link::open(pico.port()).hello();
        assert_eq!(usb, format!("usb 1209:0001 sshsm project / sshsm / {serial}"));
        assert_eq!(board, "pico");
        host.provision(&pico);
        host.sign_with_both(&pico, &user);
        assert_eq!(pico.said(), usb.clone() + "\n", "nothing but a device that works");
        usb
    };
    let mut pico = needs!(Pico::start(&device));
    assert_eq!(pico.wait_for("usb ", 1), first, "it is the same device");
    host.sign_with_both(&pico, &user);

    let option = ["device", "option", "set", "user-presence", "certificates", "--timeout", "4"];
    let _ = pressing(&pico, || run(host.administrator(&pico).args(option))).success();
    let alone = host.sign(&pico, "5", &user);
    assert_eq!(alone.status.code(), Some(7), "nobody pressed the button: {alone}");
    let _ = pressing(&pico, || host.sign(&pico, "5", &user)).success();
}

/// A transport that asks how the board is all the while that it computes.
struct Watching(Link, &'static AtomicUsize);

impl Transport for Watching {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, TransportError> {
        let (answer, asked) = self.0.transact_and_watch(frame);
        self.1.fetch_max(asked, Ordering::Relaxed);
        Ok(answer)
    }

    fn describe(&self) -> String {
        "a Pico".to_owned()
    }
}

#[test]
fn the_answer_is_the_hardwares_and_the_board_tells_its_status_while_rsa_computes() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let vector = needs!(vector::signing());
    let directory = tempdir().unwrap();
    let pico = needs!(Pico::start(directory.path()));
    let transport = Watching(Link::open(pico.port()), &ASKED);
    let mut client = Client::connect(Box::new(transport)).unwrap();
    let mut session = Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap();
    let object = |id, domains: &[u8], capabilities: &[Capability], algorithm| NewObject {
        id: Some(ObjectId::new(id).unwrap()),
        label: Label::new("").unwrap(),
        domains: Domains::from_bits(domains.iter().map(|domain| 1 << (domain - 1)).sum()),
        capabilities: Capabilities::of(capabilities),
        algorithm,
    };
    let key = &vector.ca_key;
    let ca_key = object(key.object_id, &key.domains, &[Capability::SignSshCertificate], Algorithm::Rsa2048);
    let ca_key = session.put_asymmetric_key(&ca_key, &[&*key.p.0, &*key.q.0].concat()).unwrap();
    let template = object(vector.template.object_id, &vector.template.domains, &[], Algorithm::TemplateSsh);
    let template = session.put_template(&template, &vector.template.bytes.0).unwrap();
    let signing = &vector.sign;
    let request =
        [&signing.now.to_be_bytes()[..], &signing.timestamp_signature.0, &signing.request.0].concat();
    let answer = session.sign_ssh_certificate(ca_key, template, Algorithm::RsaPkcs1Sha1, &request).unwrap();
    assert_eq!(answer, vector.response.0, "the hardware's answer");
    let asked = ASKED.load(Ordering::Relaxed);
    assert!(asked >= 10, "it was asked {asked} times only");
}

#[test]
fn a_pico_starts_again_for_a_session_and_its_boot_loader_for_a_session_and_a_press_of_its_button() {
    let directory = tempdir().unwrap();
    let mut pico = needs!(Pico::start(directory.path()));
    let mut link = Link::open(pico.port());
    assert_eq!(link.status().reset, ResetReason::PowerOn);
    let identity = link.hello();
    // What version 1 of the link called a reboot, into the firmware and into the boot loader: anybody could ask for it.
    for boot in [0_u8, 1] {
        link.ask_raw(&(4_u8, boot), |answer| assert_eq!(answer, Answer::Error(LinkError::UnknownRequest)));
    }
    let mut session = link.session();
    assert_eq!(link.command(&mut session, DeviceCommand::RestartDevice, &[], || {}), (0xfb, vec![]));
    pico.wait_for("reset", 1);
    pico.wait_for("usb ", 2);
    assert_eq!(link.status().reset, ResetReason::Requested);
    assert_eq!(link.hello(), identity);
    let mut session = link.session();
    let untouched = link.command(&mut session, DeviceCommand::StartBootLoader, &[], || {});
    assert_eq!(untouched, (0x7f, vec![0x40]), "nobody pressed the button");
    let started = link.command(&mut session, DeviceCommand::StartBootLoader, &[], || pico.press(true));
    assert_eq!(started, (0xfe, vec![]));
    pico.wait_for("bootloader", 1);
}

#[test]
fn a_pico_says_which_image_it_runs_and_a_releases_checksums_have_it() {
    let image = needs!(image("pico.bin"));
    let directory = tempdir().unwrap();
    let pico = needs!(Pico::start(directory.path()));
    sshsm_tests::sums::compare(pico.port(), &image);
}

/// What `sshsm flash` says of an image is what its build made of it.
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

/// The flash that a UF2 file of this family writes, in order: addresses and payloads of its blocks. Their magic numbers and
/// numbering are checked.
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

/// The whole image from `start`, none of which may lie at `limit` or behind it.
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
