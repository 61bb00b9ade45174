//! The contents of a board's ELF file: which bytes go to which address of flash, and how much memory is taken
//! from the start.

use std::{fs, io, path::Path};

use object::{
    LittleEndian,
    elf::{FileHeader32, PT_LOAD, ProgramHeader32, SHF_ALLOC, SHT_SYMTAB},
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _},
};

use crate::program::Failure;

/// The lowest address of RAM on every Cortex-M; flash lies below.
const RAM: u32 = 0x2000_0000;
const ENDIAN: LittleEndian = LittleEndian;

/// A board's ELF file.
pub(crate) struct Image(Vec<u8>);

impl Image {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(Failure::System)?;
        let image = Self(bytes);
        image.header().map(drop).map_err(|reason| damaged(path, &reason))?;
        Ok(image)
    }

    fn header(&self) -> object::Result<(&FileHeader32<LittleEndian>, &[ProgramHeader32<LittleEndian>])> {
        let header = FileHeader32::parse(self.0.as_slice())?;
        Ok((header, header.program_headers(ENDIAN, self.0.as_slice())?))
    }

    /// The data written to flash: physical addresses and bytes, including the initial values of variables.
    pub(crate) fn flash(&self) -> Vec<(u32, &[u8])> {
        let Ok((_, segments)) = self.header() else { return Vec::new() };
        segments
            .iter()
            .filter(|segment| segment.p_type(ENDIAN) == PT_LOAD)
            .filter_map(|segment| {
                Some((segment.p_paddr(ENDIAN), segment.data(ENDIAN, self.0.as_slice()).ok()?))
            })
            .filter(|(_, bytes)| !bytes.is_empty())
            .collect()
    }

    /// The image as stored in flash: its address, and its bytes from the first to the last, with gaps filled
    /// by 0.
    pub(crate) fn flat(&self) -> (u32, Vec<u8>) {
        let parts = self.flash();
        let start = parts.iter().map(|(address, _)| *address).min().unwrap_or_default();
        let mut bytes = Vec::new();
        for (address, part) in parts {
            let at = (address - start) as usize;
            bytes.resize(bytes.len().max(at + part.len()), 0);
            if let Some(room) = bytes.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
            }
        }
        (start, bytes)
    }

    /// The address and length of what the firmware considers its image, and hashes
    /// (`firmware/boards/board/src/image.rs`).
    pub(crate) fn hashed(&self) -> Option<(u32, usize)> {
        let start = self.symbol("_image_start")?;
        let variables = self.symbol("__edata")?.checked_sub(self.symbol("__sdata")?)?;
        let length = (self.symbol("__sidata")? + variables).checked_sub(start)?;
        Some((start, length as usize))
    }

    /// The value of a symbol.
    fn symbol(&self, name: &str) -> Option<u32> {
        let data = self.0.as_slice();
        let (header, _) = self.header().ok()?;
        let sections = header.sections(ENDIAN, data).ok()?;
        let symbols = sections.symbols(ENDIAN, data, SHT_SYMTAB).ok()?;
        let found = symbols.iter().find(|symbol| {
            symbol.name(ENDIAN, symbols.strings()).is_ok_and(|found| found == name.as_bytes())
        });
        found.map(|symbol| symbol.st_value(ENDIAN))
    }

    /// Bytes of RAM taken by variables from the start, including the heap's arena; the rest is the stack.
    pub(crate) fn variables(&self) -> u32 {
        let sections =
            self.header().and_then(|(header, _)| header.section_headers(ENDIAN, self.0.as_slice()));
        sections
            .unwrap_or_default()
            .iter()
            .filter(|section| {
                section.sh_flags(ENDIAN) & SHF_ALLOC == SHF_ALLOC && section.sh_addr(ENDIAN) >= RAM
            })
            .map(|section| section.sh_size(ENDIAN))
            .sum()
    }
}

fn damaged(path: &Path, reason: &object::Error) -> Failure {
    Failure::System(io::Error::other(format!("{} is not an image for a board: {reason}", path.display())))
}
