//! RP2350's own defences, for owners who want them: images that the boot ROM runs only if their owner signed
//! them, and the bits of one-time programmable memory (OTP) that enforce this.
//!
//! Formats are Raspberry Pi's own (RP2350 datasheet: 5.9 and 5.10 for images, 13.10 for OTP), as its
//! `picotool` writes them: keys are PEM on secp256k1, and the rows to be programmed are JSON for `picotool
//! otp load`. Nothing here writes OTP.

mod image;
mod key;
mod otp;

pub use image::{Image, SealError, Sealed};
pub use key::{BootKey, BootKeyError, Fingerprint, SigningKey};
pub use otp::{Encoding, Plan, Row, Step, StepFile};
