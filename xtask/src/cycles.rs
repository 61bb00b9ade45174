//! `cargo xtask cycles`: the cost of a signature and of a whole certificate, compared with the YubiHSM 2.
//!
//! The image `measure` of the board qemu counts instructions, the same number in every run. Milliseconds are
//! those instructions at a board's clock, with the cycles per instruction observed on silicon of this kind.

use std::{fs, process::Stdio};

use crate::{
    board::{self, BOARDS, Board},
    emulate, firmware,
    program::{Failure, program, target},
    setup,
};

/// Cycles per instruction of compiled code, from the Cortex-M4's timing (Technical Reference Manual) for
/// these very operations.
const COMPILED: f64 = 1.3;
/// For the P-256 assembly: cycles that its authors measured on an STM32WLE5, divided by the instructions
/// counted here.
const ASSEMBLY: f64 = 1.75;
/// Milliseconds of a signature by a YubiHSM 2 (its product overview).
const YUBIHSM: [(&str, &str, f64); 6] = [
    ("ed25519", "Ed25519", 105.0),
    ("ecp256", "P-256", 73.0),
    ("ecp384", "P-384", 120.0),
    ("rsa2048", "RSA-2048", 139.0),
    ("rsa3072", "RSA-3072", 504.0),
    ("rsa4096", "RSA-4096", 852.0),
];

/// The image's output, line by line.
pub(crate) struct Measurements(String);

impl Measurements {
    /// Builds the image, runs it, and keeps its complete output.
    pub(crate) fn take() -> Result<Self, Failure> {
        let toolchain = setup::bare_metal().map_err(|missing| Failure::Missing(vec![missing.report()]))?;
        let image = firmware::build(toolchain, board::named(emulate::BOARD)?, "measure")?;
        let device = target()?.join("measure");
        fs::create_dir_all(&device).map_err(Failure::System)?;
        let mut emulator = program(emulate::emulator()?);
        emulator
            .current_dir(device)
            .args(emulate::ARGUMENTS.split_whitespace())
            .args(["-icount", "shift=0,sleep=off", "-kernel"])
            .arg(image)
            .stdin(Stdio::null());
        let output = emulator.output().map_err(Failure::System)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.lines().next_back() == Some("end") {
            Ok(Self(text))
        } else {
            Err(Failure::System(std::io::Error::other(format!("the measurement stopped:\n{text}"))))
        }
    }

    /// The numbers on the line that begins with these words.
    fn numbers(&self, words: &str) -> Vec<u32> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(words)?.strip_prefix(' '));
        line.unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect()
    }

    fn instructions(&self, words: &str) -> f64 {
        self.numbers(words).first().copied().map_or(f64::NAN, f64::from)
    }

    /// The most heap and stack that a certificate took, in bytes.
    pub(crate) fn peaks(&self) -> (u32, u32) {
        self.0.lines().filter(|line| line.starts_with("certificate ")).fold((0, 0), |(heap, stack), line| {
            let mut numbers = line.rsplit(' ').filter_map(|number| number.parse().ok());
            let (here, above): (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            (heap.max(above), stack.max(here))
        })
    }

    /// Milliseconds of instructions among which the assembly made and checked so many signatures.
    fn milliseconds(&self, board: &Board, instructions: f64, signed: f64, verified: f64) -> f64 {
        let assembly =
            signed * self.instructions("assembly sign") + verified * self.instructions("assembly verify");
        (COMPILED * (instructions - assembly) + ASSEMBLY * assembly) / f64::from(board.megahertz) / 1000.0
    }
}

/// Prints the tables of docs/boards.md.
pub(crate) fn chore() -> Result<(), Failure> {
    let measured = Measurements::take()?;
    // Those whose processors execute what was counted.
    for board in
        BOARDS.into_iter().filter(|board| board.processor.has_dsp() && board::boot_loader(board).is_some())
    {
        println!("{}", table(&measured, board));
    }
    Ok(())
}

fn table(measured: &Measurements, board: &Board) -> String {
    let mut text = format!(
        "| CA key | `{}`: signature | certificate, P-256 timestamp | certificate, Ed25519 timestamp | YubiHSM 2: signature \
         | its signature ÷ our certificate |\n|---|---|---|---|---|---|\n",
        board.name
    );
    for (name, title, theirs) in YUBIHSM {
        // Each of our P-256 signatures is made and checked.
        let own = if name == "ecp256" { 1.0 } else { 0.0 };
        let show = |words: String, verified: f64| {
            let instructions = measured.instructions(&words);
            let milliseconds = measured.milliseconds(board, instructions, own, own + verified);
            (milliseconds, format!("{milliseconds:.1} ms ({:.2} M)", instructions / 1e6))
        };
        let (_, signature) = show(format!("signature {name}"), 0.0);
        let (ours, with_p256) = show(format!("certificate {name} ecp256 next"), 1.0);
        let (_, with_ed25519) = show(format!("certificate {name} ed25519 next"), 0.0);
        text += &format!(
            "| {title} | {signature} | {with_p256} | {with_ed25519} | {theirs} ms | {:.1} |\n",
            theirs / ours
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measurements {
        let text = "proved p256 160\nassembly sign 200000\nassembly verify 700000\nsignature ecp256 1000000\n\
                    certificate ecp256 ecp256 next 2000000 172 14496\n\
                    certificate rsa2048 ed25519 first 80000000 9348 9000\nend\n";
        Measurements(text.to_owned())
    }

    #[test]
    fn milliseconds_weigh_assembly_and_compiled_code() {
        let board = board::named("pico2").unwrap();
        let whole = measured().milliseconds(board, 2e6, 1.0, 2.0);
        assert!((whole - (1.75 * 1.6e6 + 1.3 * 0.4e6) / 150e3).abs() < 1e-9, "{whole}");
    }

    #[test]
    fn the_table_has_every_algorithm_and_the_peaks_are_the_highest_of_all() {
        let table = table(&measured(), board::named("pico2").unwrap());
        assert!(table.contains("| P-256 | 11.4 ms (1.00 M) | 22.1 ms (2.00 M) |"), "{table}");
        assert_eq!(table.lines().count(), 2 + YUBIHSM.len());
        assert_eq!(measured().peaks(), (9348, 14496));
    }
}
