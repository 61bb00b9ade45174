//! The build script of a board.

use std::{env, format, fs, path::Path, println};

use crate::{Board, Boot, LinkerScript, Start};

/// Makes the linker put this board's image where its memory is.
///
/// # Panics
/// Outside a build script, and when Cargo's folder for it cannot be written.
pub fn link(board: &Board) {
    let folder = env::var_os("OUT_DIR").expect("Cargo sets it for build scripts");
    let folder = Path::new(&folder);
    fs::write(folder.join("memory.x"), format!("{}", LinkerScript(board))).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search={}", folder.display());
    for argument in ["--nmagic", "-Tlink.x"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    if matches!(&board.boot, Boot::Uf2(loader) if loader.start == Start::Boot2) {
        println!("cargo:rustc-link-arg-bins=-Tlink-rp.x");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
