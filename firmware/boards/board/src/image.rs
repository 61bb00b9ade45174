//! The running image: the mark that describes it in flash, and its hash.
//!
//! The hash covers the flash contents from the image's first byte (`_image_start` in the board's `memory.x`)
//! to the end of the initial values of its variables, which cortex-m-rt's linker script puts last. `cargo
//! xtask firmware` writes the same bytes to `BOARD.bin`, and fails if they differ. The image itself computes
//! the hash: see docs/boards.md.

use core::cell::Cell;

use critical_section::Mutex;
use sha2::{Digest as _, Sha256};
use sshsm_firmware::{STRICT, VERSION_TEXT};
use sshsm_protocol::device_status::Image;

use crate::link;

/// The image's description, for readers of its file: `sshsm image: board BOARD, version VERSION, dialect
/// DIALECT`, and zeros. `sshsm flash` reads it before it writes the image to a board.
#[derive(Debug)]
pub struct Mark {
    text: [u8; Mark::LENGTH],
    board: &'static str,
}

impl Mark {
    const LENGTH: usize = 96;

    /// The mark of a board's image.
    #[must_use]
    pub const fn new(board: &'static str) -> Self {
        let dialect = if STRICT { "yubihsm2" } else { "extended" };
        let parts = ["sshsm image: board ", board, ", version ", VERSION_TEXT, ", dialect ", dialect];
        let mut text = [0; Self::LENGTH];
        let mut rest: &mut [u8] = &mut text;
        let mut part = 0;
        while part < parts.len() {
            #[allow(
                clippy::indexing_slicing,
                reason = "computed when the image is built, and bounded by the loop"
            )]
            let bytes = parts[part].as_bytes();
            // One that does not fit is an error when the image is built.
            let (head, tail) = rest.split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            rest = tail;
            part += 1;
        }
        assert!(!rest.is_empty(), "zeros end the mark");
        Self { text, board }
    }

    /// The board's name. Reading it here is what keeps the mark in the image.
    #[must_use]
    pub fn board(&self) -> &'static str {
        core::hint::black_box(&self.text);
        self.board
    }
}

static KNOWN: Mutex<Cell<Option<Image>>> = Mutex::new(Cell::new(None));

/// The image that runs. Computes its hash, unless that is known: up to a second.
#[must_use]
pub fn running() -> Image {
    if let Some(image) = critical_section::with(|cs| KNOWN.borrow(cs).get()) {
        return image;
    }
    let mut hashing = Hashing::default();
    loop {
        if let Some(image) = hashing.step() {
            return image;
        }
    }
}

/// The hash, computed a little at a time, so that a message that arrives in the meantime does not have to
/// wait.
#[derive(Default)]
pub struct Hashing {
    hash: Sha256,
    /// Bytes that are in it.
    done: usize,
    image: Option<Image>,
}

impl Hashing {
    /// A few milliseconds' worth.
    const STEP: usize = 4096;

    /// Whether the hash is known.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.image.is_some()
    }

    /// Takes the next step; returns the image once its hash is known, which hosts can then request.
    pub fn step(&mut self) -> Option<Image> {
        if self.image.is_none() {
            let image = bytes();
            let rest = image.get(self.done..).unwrap_or_default();
            let part = rest.get(..Self::STEP).unwrap_or(rest);
            self.hash.update(part);
            self.done += part.len();
            if self.done == image.len() {
                let sha256 = core::mem::take(&mut self.hash).finalize().into();
                let known = Image { sha256, length: u32::try_from(image.len()).unwrap_or(u32::MAX) };
                critical_section::with(|cs| KNOWN.borrow(cs).set(Some(known)));
                link::set_image(known);
                self.image = Some(known);
            }
        }
        self.image
    }
}

#[allow(unsafe_code, reason = "symbols of the linker script")]
// SAFETY: only their addresses are used; `memory.x` defines the first, cortex-m-rt's linker script the others.
unsafe extern "C" {
    static _image_start: u8;
    static __sidata: u8;
    static __sdata: u8;
    static __edata: u8;
}

/// The image in flash.
fn bytes() -> &'static [u8] {
    let start = &raw const _image_start;
    let variables = (&raw const __edata).addr() - (&raw const __sdata).addr();
    let length = (&raw const __sidata).addr() + variables - start.addr();
    #[allow(unsafe_code, reason = "flash is memory that the linker script knows and the language does not")]
    // SAFETY: the processor reads flash as memory, that much follows, and nothing writes to the image.
    unsafe {
        core::slice::from_raw_parts(start, length)
    }
}
