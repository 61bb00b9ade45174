use core::fmt;

use crate::{Board, Boot, Start};

/// Bytes in front of an RP2040's image that set its flash up.
const BOOT2: u32 = 0x100;

/// `memory.x` of a board, which cortex-m-rt's `link.x` includes.
#[derive(Debug)]
pub struct LinkerScript<'a>(pub &'a Board);

impl LinkerScript<'_> {
    fn start(&self) -> Option<Start> {
        match &self.0.boot {
            Boot::Emulator => None,
            Boot::Uf2(loader) => Some(loader.start),
        }
    }
}

impl fmt::Display for LinkerScript<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = &self.0.memory;
        let region = |f: &mut fmt::Formatter<'_>, name, start: u32, end: u32| {
            writeln!(f, "  {name} : ORIGIN = {start:#010x}, LENGTH = {:#x}", end - start)
        };
        writeln!(f, "MEMORY\n{{")?;
        let (mut flash, mut first) = (memory.image.start, "FLASH");
        if self.start() == Some(Start::Boot2) {
            region(f, "BOOT2", flash, flash + BOOT2)?;
            (flash, first) = (flash + BOOT2, "BOOT2");
        }
        region(f, "FLASH", flash, memory.image.end)?;
        let variables = memory.ram.start + memory.stack;
        if memory.stack > 0 {
            region(f, "STACK", memory.ram.start, variables)?;
        }
        region(f, "RAM", variables, memory.ram.end)?;
        writeln!(f, "}}\n/* The image is hashed from here on. */\n_image_start = ORIGIN({first});")?;
        if memory.stack > 0 {
            f.write_str(
                "_stack_start = ORIGIN(STACK) + LENGTH(STACK);\n\
                 _stack_end = ORIGIN(STACK);\n\
                 _ram_start = ORIGIN(STACK);\n",
            )?;
        }
        if self.start() == Some(Start::Block) {
            f.write_str(
                "SECTIONS\n{\n  .start_block : ALIGN(4)\n  {\n    __start_block_addr = .;\n    \
                 KEEP(*(.start_block));\n    KEEP(*(.boot_info));\n  } > FLASH\n} INSERT AFTER .vector_table;\n\
                 _stext = ADDR(.start_block) + SIZEOF(.start_block);\n",
            )?;
        }
        Ok(())
    }
}
