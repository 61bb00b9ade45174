//! The boards that images are built for: `firmware/boards/table`.

pub(crate) use sshsm_boards::{BOARDS, Board, Boot, BootLoader};

use crate::program::Failure;

/// The board of this name.
pub(crate) fn named(name: &str) -> Result<&'static Board, Failure> {
    BOARDS.into_iter().find(|board| board.name == name).ok_or_else(|| {
        let names = BOARDS.map(|board| board.name).join(", ");
        Failure::Usage(format!("no board is called {name:?}; there are {names}"))
    })
}

/// The boot loader that UF2 files are copied to, if a board has one.
pub(crate) const fn boot_loader(board: &Board) -> Option<&BootLoader> {
    match &board.boot {
        Boot::Emulator => None,
        Boot::Uf2(boot_loader) => Some(boot_loader),
    }
}
