//! Copies the published crate p256-cm4 and corrects the copy:
//!
//! - Loading one register by `ldm` has no encoding of its own; LLVM's encoding of it is UNPREDICTABLE
//!   (Armv7-M ARM, A7.7.41), and QEMU's processors refuse it. It becomes an `ldr`.
//! - The tables indexed by secret numbers move to RAM: reads of flash pass through a cache on RP2350, and
//!   their timing would reveal which entry was read.
//! - Link-time optimisation assembles for an architecture without knowing the processor, and then does not
//!   know Armv8-M's DSP instructions: each function names a processor that has them.
//!
//! If the source does not contain the text to be corrected, as often as expected, the build stops.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "/p256-cm4-0.4.0/Cargo.toml";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture != "arm") {
        return;
    }
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    let from = source();
    let library = fs::read_to_string(from.join("lib.rs")).expect("the crate has a library");
    let library = replace(&library, "#![no_std]\n#![allow(clippy::missing_safety_doc)]\n", "", 1);
    let in_ram = "#[unsafe(link_section = \".data.p256\")]\nstatic P256_BASEPOINT_PRECOMP";
    let library = replace(&library, "static P256_BASEPOINT_PRECOMP", in_ram, 1);
    let library = replace(&library, "const P256_BASEPOINT_PRECOMP2", &format!("{in_ram}2"), 1);
    fs::write(to.join("p256_cm4.rs"), library).expect("OUT_DIR is writable");

    // Armv7E-M always has them.
    let armv8 = env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv8m.main"));
    let start = if armv8 { "naked_asm!(\n        \".cpu cortex-m33\"," } else { "naked_asm!(" };
    fs::create_dir_all(to.join("asm")).expect("OUT_DIR is writable");
    for file in fs::read_dir(from.join("asm")).expect("the crate has assembly") {
        let file = file.expect("a folder can be read").path();
        let name = file.file_name().expect("files have names");
        let text = fs::read_to_string(&file).expect("sources are text");
        let text = match name.to_str() {
            Some("util.rs") => replace(&text, "ldm r4,{r6}\n", "ldr r6,[r4]\n", 1),
            _ => text,
        };
        fs::write(to.join("asm").join(name), text.replace("naked_asm!(", start))
            .expect("OUT_DIR is writable");
    }
}

/// The sources of the package, as Cargo unpacked them.
fn source() -> PathBuf {
    let cargo = env::var_os("CARGO").expect("Cargo sets it");
    let metadata = Command::new(cargo)
        .args(["metadata", "--quiet", "--format-version=1", "--locked"])
        .output()
        .expect("cargo can be started");
    assert!(metadata.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&metadata.stderr));
    let metadata = String::from_utf8_lossy(&metadata.stdout).into_owned();
    let manifest =
        metadata.split('"').find(|text| text.ends_with(PACKAGE)).expect("the lock file names the package");
    Path::new(manifest).with_file_name("src")
}

fn replace(text: &str, from: &str, to: &str, times: usize) -> String {
    assert_eq!(text.matches(from).count(), times, "the source has changed: {from:?}");
    text.replace(from, to)
}
