//! ECDSA and ECDH on P-256 in assembly for Cortex-M4 and M33: the published crate p256-cm4, corrected as it is built (see
//! `build.rs`). Its documentation is that crate's. Empty on other processors.

#![no_std]
#![cfg(target_arch = "arm")]
#![allow(warnings, reason = "another project's code")]
#![allow(clippy::all, reason = "another project's code")]

include!(concat!(env!("OUT_DIR"), "/p256_cm4.rs"));
