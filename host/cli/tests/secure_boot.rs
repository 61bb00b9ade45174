//! `sshsm board seal|lock`, and how an RP2350 treats their output: a model of its OTP and of its boot ROM's
//! checks, written from the datasheet and without this program's own parser.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, reason = "words of images that are small")]

mod machine;

use std::{fs, path::Path};

use k256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
use machine::Machine;
use sha2::{Digest, Sha256};
use sshsm::secure_boot::{BootKey, Encoding, Image, Plan, SigningKey};

/// OTP: bits that go from 0 to 1 only (13.1), and what hardware and boot ROM read there (13.4, 13.6, 13.10).
struct Otp(Vec<u32>);

impl Otp {
    fn blank() -> Self {
        Self(vec![0; 4096])
    }

    fn program(&mut self, row: u16, bits: u32) {
        assert_eq!(bits >> 24, 0, "a row has 24 bits");
        self.0[usize::from(row)] |= bits;
    }

    /// 16 bits with error correction; one bit may be wrong.
    fn ecc(&self, row: usize) -> Option<u16> {
        let raw = self.0[row];
        let raw = if raw >> 22 == 0b11 { !raw & 0x3f_ffff } else { raw & 0x3f_ffff };
        let flips = std::iter::once(0).chain((0..22).map(|bit| 1 << bit));
        flips
            .map(|flip| raw ^ flip)
            .map(|row| (row, row as u16))
            .find(|(row, value)| encode(*value) == *row)
            .map(|row| row.1)
    }

    fn majority(&self, row: usize) -> u32 {
        let [a, b, c] = [0, 1, 2].map(|copy| self.0[row + copy]);
        (a & b) | (a & c) | (b & c)
    }

    fn critical(&self, row: usize) -> u32 {
        let set = |bit: &u32| self.0[row..row + 8].iter().filter(|copy| **copy >> bit & 1 == 1).count() >= 3;
        (0..24).filter(set).fold(0, |flags, bit| flags | 1 << bit)
    }

    fn secure_boot(&self) -> bool {
        self.critical(0x40) & 1 == 1
    }

    /// The digests of the keys that count.
    fn keys(&self) -> Vec<[u8; 32]> {
        let flags = self.majority(0x4b);
        let valid = (0..4).filter(|slot| flags >> slot & 1 == 1 && flags >> (8 + slot) & 1 == 0);
        valid
            .map(|slot| {
                let rows =
                    (0..16).map(|row| self.ecc(0x80 + 16 * slot + row).expect("a key row that is damaged"));
                rows.flat_map(u16::to_le_bytes).collect::<Vec<_>>().try_into().unwrap()
            })
            .collect()
    }

    /// Whether the boot ROM starts this image.
    fn starts(&self, flash: &[u8]) -> bool {
        let Some(definition) = last_definition(flash) else { return false };
        !self.secure_boot() || signed_by(flash, &definition).is_some_and(|key| self.keys().contains(&key))
    }
}

/// Section 13.6.2's code, bit by bit.
fn encode(value: u16) -> u32 {
    let parity = |bits: u32| bits.count_ones() & 1;
    let mut row = u32::from(value);
    for (bit, mask) in
        [0x0_0ad5b, 0x0_0366d, 0x0_0c78e, 0x0_007f0, 0x0_0f800, 0x1f_ffff].into_iter().enumerate()
    {
        row |= parity(row & mask) << (16 + bit);
    }
    row
}

fn word(flash: &[u8], at: usize) -> u32 {
    flash.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
}

/// A block's position and its items, each with its position: kind, words.
type Items = (usize, Vec<(u8, usize, Vec<u32>)>);

fn block(flash: &[u8], at: usize) -> Option<(Items, i32)> {
    if word(flash, at) != 0xffff_ded3 {
        return None;
    }
    let (mut items, mut next) = (Vec::new(), at + 4);
    loop {
        let head = word(flash, next);
        let kind = head as u8;
        let size = if kind & 0x80 == 0 { head >> 8 & 0xff } else { head >> 8 & 0xffff } as usize;
        if kind == 0xff {
            let whole = size * 4 == next - at - 4 && word(flash, next + 8) == 0xab12_3579;
            return whole.then(|| ((at, items), word(flash, next + 4) as i32));
        }
        if size == 0 || size > 160 {
            return None;
        }
        items.push((kind, next, (0..size).map(|index| word(flash, next + 4 * index)).collect()));
        next += 4 * size;
    }
}

/// The last image definition of the loop of blocks that begins in the first 4 KiB (5.1.5, 5.10.2).
fn last_definition(flash: &[u8]) -> Option<Items> {
    let first = (0..4096).step_by(4).find(|at| block(flash, *at).is_some())?;
    let (mut at, mut last) = (first, None);
    for _ in 0..16 {
        let (items, link) = block(flash, at)?;
        if items.1.first()?.0 == 0x42 {
            last = Some(items);
        }
        at = usize::try_from(at as i64 + i64::from(link)).ok()?;
        if at == first {
            return last;
        }
    }
    None
}

/// The digest of the key that signed what the definition's load map names, and the definition (5.9.2, 5.9.3).
fn signed_by(flash: &[u8], (at, items): &Items) -> Option<[u8; 32]> {
    let item = |kind| items.iter().find(|item| item.0 == kind);
    let (_, map_at, map) = item(0x06)?;
    let (_, _, hash) = item(0x47)?;
    let (_, _, signature) = item(0x4b)?;
    if (map[0] >> 24, map.len(), hash[0] >> 24, signature[0] >> 24, signature.len()) != (1, 4, 1, 1, 33) {
        return None;
    }
    // The image itself, where it runs, and all of it that comes before the definition.
    let from = (0x1000_0000 + *map_at as u32).wrapping_add(map[1]);
    if (from, map[2], map[3] as usize) != (0x1000_0000, 0x1000_0000, *at) {
        return None;
    }
    let mut hashed = Sha256::new_with_prefix(flash.get(..map[3] as usize)?);
    hashed.update(flash.get(*at..at + 4 * *hash.get(1)? as usize)?);
    let digest: [u8; 32] = hashed.finalize().into();
    let bytes: Vec<u8> = signature[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let key = VerifyingKey::from_sec1_bytes(&[&[4], &bytes[..64]].concat()).ok()?;
    key.verify_prehash(&digest, &Signature::from_slice(&bytes[64..]).ok()?).ok()?;
    Some(Sha256::digest(&bytes[..64]).into())
}

/// What makes an image one for this board.
const MARK: &[u8] = b"sshsm image: board pico2, version 0.1.0, dialect sshsm\0";

/// An image as `cargo xtask firmware --board pico2` builds one: vectors, and a block that links to itself at 0x114.
fn image(length: usize) -> Vec<u8> {
    let mut flash: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
    flash[0x1000..][..MARK.len()].copy_from_slice(MARK);
    let block = [0xffff_ded3, 0x1021_0142, 0x0000_01ff, 0, 0xab12_3579_u32];
    for (index, word) in block.into_iter().enumerate() {
        flash[0x114 + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
    }
    flash
}

/// Its UF2 file.
fn uf2(flash: &[u8]) -> Vec<u8> {
    let blocks = flash.chunks(256).enumerate().map(|(number, page)| {
        let mut block = [0; 512];
        let address = 0x1000_0000 + 256 * number as u32;
        let total = flash.len().div_ceil(256) as u32;
        let head = [0x0a32_4655, 0x9e5d_5157, 0x2000, address, 256, number as u32, total, 0xe48b_ff59];
        head.iter()
            .enumerate()
            .for_each(|(i, word)| block[4 * i..][..4].copy_from_slice(&u32::to_le_bytes(*word)));
        block[32..32 + page.len()].copy_from_slice(page);
        block[508..].copy_from_slice(&0x0ab1_6f30_u32.to_le_bytes());
        block
    });
    blocks.flatten().collect()
}

/// A key as `openssl ecparam -name secp256k1 -genkey` writes it, as `openssl pkcs8 -topk8 -nocrypt` and
/// `openssl ec -pubout` convert it, and its form in OTP.
const SEC1: &str = "\
-----BEGIN EC PARAMETERS-----
BgUrgQQACg==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHQCAQEEIMYpNEt/yYcNzr8P2X3suIrSSqvP6H92K6mFRN6xTRQnoAcGBSuBBAAK
oUQDQgAErBteu8BfNjigyZr7HsCmENKmsRwnE89x7dz5HMBU8X3SXnRriA7WYA6+
q7xnAARHJkAVO7iKi3L9VY/hkrFVyg==
-----END EC PRIVATE KEY-----
";
const PKCS8: &str = "\
-----BEGIN PRIVATE KEY-----
MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgxik0S3/Jhw3Ovw/Zfey4
itJKq8/of3YrqYVE3rFNFCehRANCAASsG167wF82OKDJmvsewKYQ0qaxHCcTz3Ht
3PkcwFTxfdJedGuIDtZgDr6rvGcABEcmQBU7uIqLcv1Vj+GSsVXK
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAErBteu8BfNjigyZr7HsCmENKmsRwnE89x
7dz5HMBU8X3SXnRriA7WYA6+q7xnAARHJkAVO7iKi3L9VY/hkrFVyg==
-----END PUBLIC KEY-----
";
const OTHER: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHQCAQEEICY0OEIpBYLR0bW7XP+6odgCH6tCwAeDIsSnSzgaf6ARoAcGBSuBBAAK
oUQDQgAE3jbbZmw4NrOcNMXsJnilkXTRS7n4lrxdOJ79gt1ld9bCIQy2vcmYaSxS
48NXg/RoqR7iLhgckPma5z22rba6Og==
-----END EC PRIVATE KEY-----
";
const FINGERPRINT: &str = "ccbb412651228b2d205ec80ab24adcbb4f341cfe563fbfcb0fde768dd368299a";

/// A private key file.
fn key_file(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn key(text: &str) -> SigningKey {
    let directory = tempfile::tempdir().unwrap();
    SigningKey::read(&key_file(directory.path(), "key.pem", text)).unwrap()
}

/// Another key.
fn other() -> SigningKey {
    key(OTHER)
}

fn programmed(steps: usize, updates: bool) -> Otp {
    let mut otp = Otp::blank();
    let plan = Plan::new(&key(SEC1).boot_key(), updates);
    for row in plan.steps.iter().take(steps).flat_map(|step| &step.rows) {
        otp.program(row.row, row.raw);
    }
    otp
}

fn sealed(flash: &[u8], key: &SigningKey) -> Vec<u8> {
    Image::from_uf2(&uf2(flash)).unwrap().seal(key).unwrap().image.bytes().to_vec()
}

#[test]
fn a_boot_key_is_the_same_in_every_form_that_openssl_writes() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("sec1.pem", SEC1), ("pkcs8.pem", PKCS8), ("public.pem", PUBLIC)] {
        let read = BootKey::read(&key_file(directory.path(), name, text)).unwrap();
        assert_eq!(read.fingerprint().to_string(), FINGERPRINT, "{name}");
    }
    let p256 = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";
    for text in [p256, "", "ssh-ed25519 AAAA"] {
        BootKey::read(&key_file(directory.path(), "bad.pem", text)).unwrap_err();
    }
}

#[test]
fn a_locked_board_starts_what_its_key_signed_and_nothing_else() {
    let flash = image(5000);
    let (signed, foreign) = (sealed(&flash, &key(SEC1)), sealed(&flash, &other()));
    let open = Otp::blank();
    assert!(
        [&flash, &signed, &foreign].iter().all(|image| open.starts(image)),
        "a new board starts anything"
    );
    let locked = programmed(usize::MAX, true);
    assert!(locked.starts(&signed));
    assert!(!locked.starts(&flash) && !locked.starts(&foreign));
    // The code, its description, the key and the signature.
    let block = flash.len().next_multiple_of(256);
    for at in (0..block).step_by(97).chain(block..block + 32).chain(block + 36..block + 164) {
        let mut damaged = signed.clone();
        damaged[at] ^= 0x10;
        assert!(!locked.starts(&damaged), "byte {at:#x}");
    }
    assert_eq!(Image::from_uf2(&uf2(&signed)).unwrap().signer(), Some(key(SEC1).boot_key()));
}

#[test]
fn an_image_that_is_signed_already_or_that_is_none_is_not_signed() {
    let signed = sealed(&image(5000), &key(SEC1));
    let again = Image::from_uf2(&uf2(&signed)).unwrap().seal(&key(SEC1)).unwrap_err();
    assert!(again.to_string().contains("seal the image as it was built"), "{again}");
    let blank = Image::from_uf2(&uf2(&[&[0; 5000], MARK].concat())).unwrap().seal(&key(SEC1)).unwrap_err();
    assert!(blank.to_string().contains("not for RP2350"), "{blank}");
    let mut late = vec![0; 0x1_0000];
    late[0x2000..0x2000 + 5000].copy_from_slice(&image(5000));
    Image::from_uf2(&uf2(&late)).unwrap().seal(&key(SEC1)).unwrap_err();
}

#[test]
fn each_step_of_the_plan_leaves_a_board_that_starts_the_signed_image() {
    let signed = sealed(&image(5000), &key(SEC1));
    for updates in [true, false] {
        for steps in 0..=6 {
            let otp = programmed(steps, updates);
            assert!(otp.starts(&signed), "after step {steps}");
            assert_eq!(otp.secure_boot(), steps >= 3, "the key is there, and valid, before it is asked for");
            assert_eq!(otp.keys().len(), usize::from(steps >= 2));
        }
        let otp = programmed(usize::MAX, updates);
        assert_eq!(otp.keys(), [key(SEC1).boot_key().fingerprint().0]);
        assert_eq!(otp.majority(0x4b) >> 8 & 0xf, 0b1110, "no other key will ever be valid");
        assert_eq!(otp.critical(0x40), 0b1_0111, "secure boot, both debug flags, the glitch detectors");
        let drive = if updates { 0 } else { 1 << 17 };
        assert_eq!(
            otp.majority(0x48),
            1 << 13 | 1 << 18 | 1 << 19 | drive,
            "OTP boot, PICOBOOT, UART, the drive"
        );
        assert_eq!(otp.0[0xf85], 0x15_1515, "the keys' page is read-only for everyone");
    }
}

#[test]
fn one_bit_that_fails_in_a_row_changes_nothing() {
    let good = programmed(usize::MAX, true);
    let (keys, flags) = (good.keys(), (good.critical(0x40), good.majority(0x48), good.majority(0x4b)));
    let plan = Plan::new(&key(SEC1).boot_key(), true);
    for row in plan.steps.iter().flat_map(|step| &step.rows).filter(|row| row.encoding != Encoding::Bytes) {
        for bit in [0, 7, 15] {
            let mut otp = programmed(usize::MAX, true);
            otp.0[usize::from(row.row)] ^= 1 << bit;
            assert_eq!(otp.keys(), keys, "{}", row.name);
            assert_eq!((otp.critical(0x40), otp.majority(0x48), otp.majority(0x4b)), flags, "{}", row.name);
        }
    }
}

#[test]
fn the_files_for_picotool_say_what_the_plan_does() {
    let files = Plan::new(&key(SEC1).boot_key(), true).files();
    let parsed: Vec<serde_json::Value> =
        files.iter().map(|file| serde_json::from_str(&file.content).unwrap()).collect();
    let digest = key(SEC1).boot_key().fingerprint().0;
    let expected = serde_json::json!([
        { "bootkey0": digest },
        { "boot_flags1": { "key_valid": 1, "key_invalid": 14 } },
        { "crit1": { "secure_boot_enable": 1 } },
        { "crit1": { "secure_debug_disable": 1, "debug_disable": 1, "glitch_detector_enable": 1 } },
        { "62:5": { "ecc": false, "value": "0x151515" } },
        { "boot_flags0": {
            "disable_otp_boot": 1, "disable_bootsel_usb_picoboot_ifc": 1, "disable_bootsel_uart_boot": 1
        } },
    ]);
    assert_eq!(serde_json::Value::Array(parsed), expected);
}

#[test]
fn the_command_seals_an_image_and_prints_a_plan_and_writes_to_no_board() {
    let machine = Machine::new();
    let at = |name: &str| machine.path(name);
    key_file(&at(""), "key.pem", SEC1);
    fs::write(at("image.uf2"), uf2(&image(5000))).unwrap();
    let seal = [
        "board",
        "seal",
        "--image",
        "image.uf2",
        "--key",
        "key.pem",
        "--out",
        "signed.uf2",
        "--format",
        "json",
    ];
    assert_eq!(machine.run(&seal).json()["boot_key"], FINGERPRINT);
    let signed = Image::from_uf2(&fs::read(at("signed.uf2")).unwrap()).unwrap();
    assert!(programmed(usize::MAX, true).starts(signed.bytes()));
    let plan = machine.run(&["board", "lock", "--key", "key.pem", "--dry-run", "--out", "steps"]);
    assert_eq!((plan.code, plan.stderr.as_str()), (0, "nothing was written to a board\n"));
    assert!(plan.stdout.contains("0xf85"), "{}", plan.stdout);
    assert!(plan.stdout.contains("cannot be undone: an unsigned image never starts"), "{}", plan.stdout);
    assert_eq!(fs::read_dir(at("steps")).unwrap().count(), 6);
    let refused = machine.run(&["board", "lock", "--key", "key.pem"]);
    assert!(refused.code == 2 && refused.stderr.contains("writes nothing"), "{refused:?}");
}
