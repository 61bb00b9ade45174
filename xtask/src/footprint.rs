//! `cargo xtask footprint`: how much flash and memory the boards' images take.

use std::io;

use crate::{board::BOARDS, cycles::Measurements, firmware, image::Image, program::Failure, setup};

/// Prints the table of docs/boards.md.
pub(crate) fn chore() -> Result<(), Failure> {
    let toolchain = setup::bare_metal().map_err(|missing| Failure::Missing(vec![missing.report()]))?;
    let (heap, stack) = Measurements::take()?.peaks();
    let mut text = String::from("| board | flash | RAM: variables and heap |\n|---|---|---|\n");
    for board in BOARDS {
        let image = Image::read(&firmware::build(toolchain, board, board.name)?)?;
        let flash: usize = image.flash().iter().map(|(_, bytes)| bytes.len()).sum();
        text += &format!("| `{}` | {} KB | {} KB |\n", board.name, flash / 1000, image.variables() / 1000);
    }
    println!("{text}");
    println!(
        "A certificate takes at most {heap} bytes of heap on top of what the device holds, and {stack} bytes of stack."
    );
    if heap == 0 || stack == 0 {
        return Err(Failure::System(io::Error::other("nothing was measured")));
    }
    Ok(())
}
