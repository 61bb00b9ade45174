//! The boards that sshsm runs on, one row each. Images, linker scripts, `cargo xtask` and `sshsm flash` read
//! this table, so that they agree.

#![no_std]
#![allow(clippy::single_range_in_vec_init, reason = "a store has one part or several")]

#[cfg(feature = "build")]
extern crate std;

#[cfg(feature = "build")]
pub mod build;
mod linker_script;

use core::ops::Range;

pub use linker_script::LinkerScript;

/// Bytes that every board's flash erases at once.
pub const SECTOR: u32 = 4096;

/// A board that the firmware is built for.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// Its common name; also its folder in `firmware/boards`, its binary, and the name that its firmware
    /// reports.
    pub name: &'static str,
    /// A description, for help.
    pub title: &'static str,
    /// Its package in the boards' workspace.
    pub package: &'static str,
    /// Its processor.
    pub processor: Processor,
    /// The processor's clock as the image sets it.
    pub megahertz: u32,
    /// The optimisation level of the crates that compute, if not for speed: not every flash has room for all
    /// of them.
    pub opt_level: Option<&'static str>,
    /// The memory layout.
    pub memory: Memory,
    /// How an image gets into its flash and starts there.
    pub boot: Boot,
}

/// A processor, as compilers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Cortex-M0+.
    CortexM0Plus,
    /// Cortex-M4 with floating point.
    CortexM4,
    /// Cortex-M33 with floating point and the DSP instructions.
    CortexM33,
}

impl Processor {
    /// Rust's name of its architecture and ABI.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::CortexM0Plus => "thumbv6m-none-eabi",
            Self::CortexM4 => "thumbv7em-none-eabihf",
            Self::CortexM33 => "thumbv8m.main-none-eabihf",
        }
    }

    /// LLVM's name: without it, Cortex-M33 is not known to have the DSP instructions that bignums need.
    #[must_use]
    pub const fn cpu(self) -> &'static str {
        match self {
            Self::CortexM0Plus => "cortex-m0plus",
            Self::CortexM4 => "cortex-m4",
            Self::CortexM33 => "cortex-m33",
        }
    }

    /// Whether it has the DSP instructions that the assembly for P-256 is written with.
    #[must_use]
    pub const fn has_dsp(self) -> bool {
        matches!(self, Self::CortexM4 | Self::CortexM33)
    }
}

/// The memory layout: addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Memory {
    /// The flash that a store and an image share.
    pub flash: Range<u32>,
    /// The range for an image, which contains nothing that the device stores.
    pub image: Range<u32>,
    /// The store's parts, in whole sectors.
    pub store: &'static [Range<u32>],
    /// RAM.
    pub ram: Range<u32>,
    /// Bytes at the start of RAM reserved for the stack: one that grows too deep meets the end of memory
    /// rather than a variable, and faults. 0: the stack grows down from the end of RAM, and the processor
    /// enforces its limit.
    pub stack: u32,
    /// Bytes of the heap.
    pub heap: usize,
}

impl Memory {
    /// The store's sectors.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        self.store.iter().map(|part| (part.end - part.start) / SECTOR).sum()
    }
}

/// How an image gets into a board's flash and starts there.
#[derive(Debug, PartialEq, Eq)]
pub enum Boot {
    /// An emulator loads the ELF file.
    Emulator,
    /// Its boot loader shows itself as a drive that UF2 files are copied to.
    Uf2(BootLoader),
}

/// A UF2 boot loader.
#[derive(Debug, PartialEq, Eq)]
pub struct BootLoader {
    /// The family that images are marked with (`uf2families.json` of microsoft/uf2).
    pub family: u32,
    /// The text after `Board-ID:` in its `INFO_UF2.TXT`.
    pub id: DriveId,
    /// How the chip finds and starts an image.
    pub start: Start,
    /// The oldest boot loader that writes a whole image; `None` if it is in ROM.
    pub oldest: Option<[u32; 3]>,
    /// How it is started by hand.
    pub by_hand: &'static str,
}

/// The text after `Board-ID:` on a drive.
#[derive(Debug, PartialEq, Eq)]
pub enum DriveId {
    /// This.
    Is(&'static str),
    /// Something with this in it, in whatever case: one boot loader for boards of many makers.
    Contains(&'static str),
}

/// How a chip finds and starts an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// RP2040: 256 bytes in front of the image, which set the flash up.
    Boot2,
    /// RP2350: a block of metadata in the image's first 4 KiB (RP2350 datasheet, 5.9).
    Block,
    /// nRF52840: the vector table after the SoftDevice named here, which comes with the boot loader and is
    /// not started.
    Behind(&'static str),
}

/// QEMU's mps2-an505.
pub const QEMU: Board = Board {
    name: "qemu",
    title: "QEMU's mps2-an505, a Cortex-M33 like the Pico 2's",
    package: "sshsm-qemu",
    processor: Processor::CortexM33,
    megahertz: 20,
    opt_level: None,
    // The secure aliases. As much as RP2350 has, and a heap as the smallest board's: what fits here fits there.
    memory: Memory {
        flash: 0x8000_0000..0x8008_0000, // a part of the machine's PSRAM, which QEMU maps to a file
        image: 0x1000_0000..0x1020_0000,
        store: &[0x8000_0000..0x8008_0000],
        ram: 0x3800_0000..0x3800_0000 + 520 * 1024,
        stack: 0,
        heap: 128 * 1024,
    },
    boot: Boot::Emulator,
};

/// Raspberry Pi Pico.
pub const PICO: Board = Board {
    name: "pico",
    title: "Raspberry Pi Pico (RP2040)",
    package: "sshsm-pico",
    processor: Processor::CortexM0Plus,
    megahertz: 125,
    opt_level: None,
    // 2 MiB of flash: the image, the sector with the root secret, and 512 KiB for the store.
    memory: Memory {
        flash: 0x1000_0000..0x1020_0000,
        image: 0x1000_0000..0x1017_f000,
        store: &[0x1018_0000..0x1020_0000],
        ram: 0x2000_0000..0x2000_0000 + 264 * 1024,
        stack: 80 * 1024,
        heap: 128 * 1024,
    },
    boot: Boot::Uf2(BootLoader {
        family: 0xe48b_ff56,
        id: DriveId::Is("RPI-RP2"),
        start: Start::Boot2,
        oldest: None,
        by_hand: "hold BOOTSEL while you plug the board in",
    }),
};

/// Raspberry Pi Pico 2.
pub const PICO2: Board = Board {
    name: "pico2",
    title: "Raspberry Pi Pico 2 (RP2350)",
    package: "sshsm-pico2",
    processor: Processor::CortexM33,
    megahertz: 150,
    opt_level: None,
    // 4 MiB of flash: the image, the sector with the root secret, and 512 KiB for the store.
    memory: Memory {
        flash: 0x1000_0000..0x1040_0000,
        image: 0x1000_0000..0x1037_f000,
        store: &[0x1038_0000..0x1040_0000],
        ram: 0x2000_0000..0x2000_0000 + 512 * 1024,
        stack: 96 * 1024,
        heap: 256 * 1024,
    },
    boot: Boot::Uf2(BootLoader {
        family: 0xe48b_ff59, // its Arm cores in secure state
        id: DriveId::Is("RP2350"),
        start: Start::Block,
        oldest: None,
        by_hand: "hold BOOTSEL while you plug the board in",
    }),
};

/// Adafruit Feather nRF52840 Express, and boards like it.
pub const NRF52840: Board = Board {
    name: "nrf52840",
    title: "nRF52840 boards like Adafruit's Feather: a UF2 boot loader, 0.6.1 or later, that came with SoftDevice S140 6",
    package: "sshsm-nrf52840",
    processor: Processor::CortexM4,
    megahertz: 64,
    opt_level: Some("s"),
    // Below the image are MBR and SoftDevice S140 6.1.1. The store has 72 KiB after it, up to the boot
    // loader, except the area where that puts a new boot loader before starting it: the last 40 KiB below the
    // area that it reserves for data of applications (`BOOTLOADER_ADDR_NEW_RECIEVED` in its `uf2cfg.h`).
    memory: Memory {
        flash: 0..0x10_0000,
        image: 0x2_6000..0xd_8000,
        store: &[0xd_8000..0xe_0000, 0xe_a000..0xf_4000],
        ram: 0x2000_0000..0x2000_0000 + 256 * 1024,
        stack: 80 * 1024,
        heap: 128 * 1024,
    },
    boot: Boot::Uf2(BootLoader {
        family: 0xada5_2840,
        id: DriveId::Contains("nrf52840"),
        start: Start::Behind("S140 6."), // it ends at 0x26000, and S140 7 does not
        oldest: Some([0, 6, 1]),         // earlier ones skip everything beyond 0xad000
        by_hand: "plug the board in and press its reset button twice, quickly",
    }),
};

/// All of them.
pub const BOARDS: [&Board; 4] = [&QEMU, &PICO, &PICO2, &NRF52840];

/// No image reaches into a store, and no store beyond the flash.
#[allow(clippy::indexing_slicing, reason = "it is evaluated by the compiler")]
const _: () = {
    let mut board = 0;
    while board < BOARDS.len() {
        let memory = &BOARDS[board].memory;
        let mut part = 0;
        while part < memory.store.len() {
            let (start, end) = (memory.store[part].start, memory.store[part].end);
            assert!(start.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR) && start < end);
            assert!(memory.flash.start <= start && end <= memory.flash.end);
            assert!(end <= memory.image.start || memory.image.end <= start);
            part += 1;
        }
        board += 1;
    }
};
