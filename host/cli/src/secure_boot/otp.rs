//! The rows to be programmed in OTP, and their order. OTP bits go from 0 to 1 and never back.
//!
//! Rows and bits are those of RP2350 datasheet 13.10. Rows with error correction (13.6) hold 16 bits each and
//! are programmed once; flags are programmed three times (the majority counts) or eight times (three count),
//! bit by bit.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::key::BootKey;

const BOOTKEY0: u16 = 0x080;
const CRIT1: u16 = 0x040;
const BOOT_FLAGS0: u16 = 0x048;
const BOOT_FLAGS1: u16 = 0x04b;
/// The second lock word of page 2, which holds the keys.
const PAGE2_LOCK1: u16 = 0xf85;

const SECURE_BOOT_ENABLE: u32 = 1;
const SECURE_DEBUG_DISABLE: u32 = 1 << 1;
const DEBUG_DISABLE: u32 = 1 << 2;
const GLITCH_DETECTOR_ENABLE: u32 = 1 << 4;
const DISABLE_OTP_BOOT: u32 = 1 << 13;
const DISABLE_BOOTSEL_USB_MSD_IFC: u32 = 1 << 17;
const DISABLE_BOOTSEL_USB_PICOBOOT_IFC: u32 = 1 << 18;
const DISABLE_BOOTSEL_UART_BOOT: u32 = 1 << 19;
/// Key 0 is valid; keys 1 to 3 never will be.
const KEY_0_ONLY: u32 = 1 | 0b1110 << 8;
/// Read only for Secure and Non-secure code and for the boot loader.
const READ_ONLY: u32 = 0b01_01_01;

/// How a row keeps its value if a bit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Encoding {
    /// 16 bits, six of parity: 13.6.
    #[serde(rename = "ECC")]
    Ecc,
    /// Three copies in three rows: the majority counts.
    #[serde(rename = "RBIT-3")]
    Three,
    /// Eight copies in eight rows: three count.
    #[serde(rename = "RBIT-8")]
    Eight,
    /// Three copies of a byte in one row: the majority counts.
    #[serde(rename = "3 bytes")]
    Bytes,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number, 0 to 0xfff.
    pub row: u16,
    /// Its name in the datasheet.
    pub name: String,
    /// How it is encoded.
    pub encoding: Encoding,
    /// Its value, 16 bits with ECC and 24 without.
    pub value: u32,
    /// All 24 bits that are programmed, parity included.
    pub raw: u32,
}

/// A part of the plan that is programmed, and tried, before the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its effect.
    pub does: &'static str,
    /// What cannot be undone once it is done.
    pub for_good: &'static str,
    /// What to look at before the next.
    pub then: &'static str,
    /// The rows to be programmed.
    pub rows: Vec<Row>,
    #[serde(skip)]
    file: Map<String, Value>,
}

/// Everything to be programmed to lock a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// SHA-256 of the boot key.
    pub boot_key: String,
    /// In the order in which they are programmed.
    pub steps: Vec<Step>,
}

/// A step as `picotool otp load` reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFile {
    /// The file's name.
    pub name: String,
    /// JSON.
    pub content: String,
}

impl Plan {
    /// The plan for a board that runs what this key signed. With `updates` the boot loader's drive stays, so
    /// that BOOTSEL still accepts (signed) images; without, the firmware on the board is permanent.
    #[must_use]
    pub fn new(key: &BootKey, updates: bool) -> Self {
        let fingerprint = key.fingerprint();
        let words = fingerprint.0.as_chunks().0;
        let keys = words.iter().zip(BOOTKEY0..).zip(0..).map(|((word, row), number)| {
            let value = u16::from_le_bytes(*word);
            let name = format!("BOOTKEY0_{number}");
            Row { row, name, encoding: Encoding::Ecc, value: value.into(), raw: ecc(value) }
        });
        let closed = DISABLE_OTP_BOOT
            | DISABLE_BOOTSEL_USB_PICOBOOT_IFC
            | DISABLE_BOOTSEL_UART_BOOT
            | if updates { 0 } else { DISABLE_BOOTSEL_USB_MSD_IFC };
        let mut flags = json!({
            "disable_otp_boot": 1,
            "disable_bootsel_usb_picoboot_ifc": 1,
            "disable_bootsel_uart_boot": 1,
        });
        if !updates && let Some(flags) = flags.as_object_mut() {
            flags.insert("disable_bootsel_usb_msd_ifc".into(), 1.into());
        }
        let debug = SECURE_DEBUG_DISABLE | DEBUG_DISABLE | GLITCH_DETECTOR_ENABLE;
        let steps = vec![
            Step {
                does: "puts the digest of the boot key in slot 0",
                for_good: "the slot holds this key's digest and no other",
                then: "compare the 16 rows with the digest above (picotool otp get BOOTKEY0_0 …) before the next step: a \
                       slot that is marked valid and does not hold what it should can stop the board for ever",
                rows: keys.collect(),
                file: object([("bootkey0", json!(fingerprint.0))]),
            },
            Step {
                does: "marks slot 0 valid, and slots 1 to 3 never to be valid",
                for_good: "no other key can be added: if the private key is lost, this board never gets another firmware",
                then: "nothing has changed for unsigned images yet: put the signed image on the board and check that it starts",
                rows: copies("BOOT_FLAGS1", BOOT_FLAGS1, Encoding::Three, KEY_0_ONLY),
                file: object([("boot_flags1", json!({ "key_valid": 1, "key_invalid": 0b1110 }))]),
            },
            Step {
                does: "turns secure boot on: the boot ROM starts only what the key signed, and never the RISC-V cores",
                for_good: "an unsigned image never starts again, from flash or from memory",
                then: "see that the signed image starts, and that an unsigned one does not. Debugger and PICOBOOT are still \
                       open: this is the last moment to look what is wrong",
                rows: copies("CRIT1", CRIT1, Encoding::Eight, SECURE_BOOT_ENABLE),
                file: object([("crit1", json!({ "secure_boot_enable": 1 }))]),
            },
            Step {
                does: "closes the debug port and arms the glitch detectors",
                for_good: "no debugger reaches the board again, also not to find out why it does not start",
                then: "see that the signed image starts after the power was off",
                rows: copies("CRIT1", CRIT1, Encoding::Eight, debug),
                file: object([(
                    "crit1",
                    json!({ "secure_debug_disable": 1, "debug_disable": 1, "glitch_detector_enable": 1 }),
                )]),
            },
            Step {
                does: "makes the keys' page of OTP read-only",
                for_good: "nothing in rows 0x080 to 0x0bf changes again",
                then: "program the last step while PICOBOOT still accepts it",
                rows: vec![Row {
                    row: PAGE2_LOCK1,
                    name: "PAGE2_LOCK1".into(),
                    encoding: Encoding::Bytes,
                    value: READ_ONLY,
                    raw: READ_ONLY * 0x01_01_01,
                }],
                // Page 62, its row 5.
                file: object([("62:5", json!({ "ecc": false, "value": "0x151515" }))]),
            },
            Step {
                does: if updates {
                    "closes PICOBOOT and the UART boot loader: flash and OTP are not read over USB any more; the drive stays"
                } else {
                    "closes the whole boot loader: PICOBOOT, UART and the drive"
                },
                for_good: if updates {
                    "picotool cannot reach the board any more; images come only over the drive, and must be signed"
                } else {
                    "this firmware is the last one that the board gets"
                },
                then: "unplug the board, plug it in again, and provision it",
                rows: copies("BOOT_FLAGS0", BOOT_FLAGS0, Encoding::Three, closed),
                file: object([("boot_flags0", flags)]),
            },
        ];
        Self { boot_key: fingerprint.to_string(), steps }
    }

    /// The steps' files.
    #[must_use]
    pub fn files(&self) -> Vec<StepFile> {
        let names = ["boot-key", "key-slots", "secure-boot", "debug", "key-page", "boot-loader"];
        let files = self.steps.iter().zip(names).zip(1..);
        files
            .map(|((step, name), number)| StepFile {
                name: format!("{number}-{name}.json"),
                content: format!("{:#}\n", Value::Object(step.file.clone())),
            })
            .collect()
    }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The rows of a flag word and its redundant copies.
fn copies(name: &str, first: u16, encoding: Encoding, value: u32) -> Vec<Row> {
    let count = if encoding == Encoding::Eight { 8 } else { 3 };
    let named = |number| if number == 0 { name.to_owned() } else { format!("{name}_R{number}") };
    (0..count)
        .map(|number| Row { row: first + number, name: named(number), encoding, value, raw: value })
        .collect()
}

/// A row's 22 bits: the value, five bits of a Hamming code, and parity over both (datasheet 13.6.2).
fn ecc(value: u16) -> u32 {
    const PARITY: [u32; 6] = [
        0b00_0000_1010_1101_0101_1011,
        0b00_0000_0011_0110_0110_1101,
        0b00_0000_1100_0111_1000_1110,
        0b00_0000_0000_0111_1111_0000,
        0b00_0000_1111_1000_0000_0000,
        0b01_1111_1111_1111_1111_1111,
    ];
    PARITY
        .iter()
        .zip(16..)
        .fold(value.into(), |row: u32, (mask, bit)| row | ((row & mask).count_ones() & 1) << bit)
}
