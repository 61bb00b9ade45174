//! The boards there are: one row each, and everything that a chore must know of one.

use crate::program::Failure;

/// A board that the firmware is built for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Board {
    /// What people call it; also its folder in `firmware/boards` and its binary.
    pub(crate) name: &'static str,
    /// Its package in the boards' workspace.
    pub(crate) package: &'static str,
    /// Rust's name of its processor's architecture and ABI.
    pub(crate) target: &'static str,
    /// Its processor: without, Cortex-M33 is not known to have the DSP instructions that bignums need.
    pub(crate) cpu: &'static str,
    /// What the crates that compute are optimised for, where not for speed: not all of them fit every flash.
    pub(crate) opt_level: Option<&'static str>,
    /// Its boot loader's family in UF2 files (`uf2families.json` of microsoft/uf2); `None` where files are not copied to it.
    pub(crate) uf2_family: Option<u32>,
    /// The processor's clock as the image sets it.
    pub(crate) megahertz: u32,
}

pub(crate) const BOARDS: [Board; 4] = [
    Board {
        name: "qemu",
        package: "sshsm-qemu",
        target: "thumbv8m.main-none-eabihf",
        cpu: "cortex-m33",
        opt_level: None,
        uf2_family: None,
        megahertz: 20,
    },
    Board {
        name: "pico",
        package: "sshsm-pico",
        target: "thumbv6m-none-eabi",
        cpu: "cortex-m0plus",
        opt_level: None,
        uf2_family: Some(0xe48b_ff56),
        megahertz: 125,
    },
    Board {
        name: "pico2",
        package: "sshsm-pico2",
        target: "thumbv8m.main-none-eabihf",
        cpu: "cortex-m33",
        opt_level: None,
        uf2_family: Some(0xe48b_ff59),
        megahertz: 150,
    },
    Board {
        name: "nrf52840",
        package: "sshsm-nrf52840",
        target: "thumbv7em-none-eabihf",
        cpu: "cortex-m4",
        opt_level: Some("s"),
        uf2_family: Some(0xada5_2840),
        megahertz: 64,
    },
];

/// The board of this name.
pub(crate) fn named(name: &str) -> Result<&'static Board, Failure> {
    BOARDS.iter().find(|board| board.name == name).ok_or_else(|| {
        let names = BOARDS.map(|board| board.name).join(", ");
        Failure::Usage(format!("no board is called {name:?}; there are {names}"))
    })
}
