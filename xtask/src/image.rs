//! What is in a board's ELF file: which bytes go to which address of flash, and how much memory is taken from the start.

use std::{fs, io, path::Path};

use object::{
    LittleEndian,
    elf::{FileHeader32, PT_LOAD, ProgramHeader32, SHF_ALLOC},
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

use crate::program::Failure;

/// Where RAM begins on every Cortex-M, at the least; flash lies below.
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

    /// What is written to flash: physical addresses and bytes, initial values of variables included.
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

    /// Bytes of RAM that variables have from the start, the heap's arena among them; what is left is the stack.
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
    Failure::System(io::Error::other(format!("{} is no image for a board: {reason}", path.display())))
}
