//! Shared code of the conformance tests: the counterparts that `sshsm` is compared with (OpenSSH's
//! `ssh-keygen`, `sshd` and `ssh`, the simulator's process, a vector from real hardware), each behind a small
//! type that starts it, watches it and shuts it down again.
//!
//! An expectation is written once, against [`issuer::Issuer`], and holds for the original and for ours. A
//! counterpart that is not installed is a [`requirement::Missing`], which fails under `CI=true` and is a
//! named skip elsewhere. Everything here stops the test at the first thing that goes wrong, with the program
//! that ran and its output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test harness reports by stopping the test"
)]

pub mod binaries;
pub mod certificate;
pub mod debugger;
pub mod issuer;
pub mod key;
pub mod link;
pub mod process;
pub mod processor;
pub mod python;
pub mod qemu;
pub mod requirement;
pub mod simulator;
pub mod softhsm;
pub mod ssh;
pub mod sshd;
pub mod suite;
pub mod sums;
pub mod usb_board;
pub mod vector;
