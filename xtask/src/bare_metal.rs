//! Proves that both `no_std` crates build, code generation included, for the boards' Cortex-M33 target, and that
//! `sshsm-protocol` needs no allocator: its standard library is built from source with `core` and nothing else.
//!
//! Two toolchains can do it. The one that runs this chore, where rustup could add the target and the library's
//! source; else Debian's, whose `core` and `alloc` are built from the source package.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    program::{Failure, Run, cargo, program, target},
    setup,
};

const TARGET: &str = "thumbv8m.main-none-eabihf";

/// Debian's toolchain, package by package.
pub(crate) const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// A toolchain that can build for the boards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The one that runs this chore, with the target and `rust-src` installed.
    Own,
    /// `/usr/bin/cargo` and `/usr/bin/rustc` from Debian's packages.
    Debian,
}

impl Toolchain {
    /// The toolchain that is ready to be used, the chore's own first.
    pub(crate) fn installed() -> Option<Self> {
        if own_is_complete() {
            Some(Self::Own)
        } else {
            DEBIAN_PACKAGES.into_iter().all(setup::debian_package).then_some(Self::Debian)
        }
    }

    /// Lets rustup add what the chore's own toolchain lacks: one quiet attempt, since offline machines have Debian's.
    pub(crate) fn add_with_rustup() {
        // Without this variable cargo was not started by rustup, which would then change another toolchain.
        if env::var_os("RUSTUP_TOOLCHAIN").is_none() {
            return;
        }
        let rustup = |arguments: [&str; 3]| {
            let once = [("RUSTUP_MAX_RETRIES", "0"), ("RUSTUP_DOWNLOAD_TIMEOUT", "30")];
            program("rustup").args(arguments).envs(once).succeeds()
        };
        let _ = rustup(["target", "add", TARGET]) && rustup(["component", "add", "rust-src"]);
    }

    /// The cargo that builds a crate on a standard library: `build_std` names the parts built from source,
    /// `None` takes the library that came with the target.
    fn cargo(self, build_std: Option<&str>) -> Command {
        let mut command = match self {
            Self::Own => cargo(),
            Self::Debian => {
                let mut command = program("/usr/bin/cargo");
                for variable in env::vars_os().map(|(name, _)| name) {
                    if variable.to_str().is_some_and(selects_toolchain) {
                        command.env_remove(variable);
                    }
                }
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTFLAGS", "-C linker=ld.lld");
                command
            }
        };
        command.arg("build");
        if let Some(parts) = build_std {
            command.env("RUSTC_BOOTSTRAP", "1").arg(format!("-Zbuild-std={parts}"));
        }
        command
    }
}

/// Variables by which the outer cargo, rustup or the user chose another toolchain or its flags.
fn selects_toolchain(variable: &str) -> bool {
    ["RUSTUP_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_ENCODED_", "CARGO_UNSTABLE_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || matches!(
            variable,
            "CARGO"
                | "RUSTC"
                | "RUSTDOC"
                | "RUSTFLAGS"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "LD_LIBRARY_PATH"
        )
}

fn own_is_complete() -> bool {
    let rustc = env::var_os("CARGO")
        .map_or_else(|| "rustc".into(), |cargo| Path::new(&cargo).with_file_name("rustc"));
    let print = |what: &[&str]| program(&rustc).args(what).answer().map(PathBuf::from);
    print(&["--print", "target-libdir", "--target", TARGET]).is_some_and(|folder| folder.is_dir())
        && print(&["--print", "sysroot"])
            .is_some_and(|folder| folder.join("lib/rustlib/src/rust/library/Cargo.lock").is_file())
}

/// What is built: the package, and the families that it is built with; `None` is its default, which is all.
const BUILDS: [(&str, Option<&str>); 3] =
    [("sshsm-protocol", None), ("sshsm-firmware", None), ("sshsm-firmware", Some("ssh"))];

/// Builds both crates, the firmware also for a small board that does nothing but sign SSH certificates, in `TARGET_DIR/bare-metal`, away from the host's artefacts and locks.
pub(crate) fn build(toolchain: Toolchain) -> Result<(), Failure> {
    println!("toolchain: {toolchain:?}");
    for (package, families) in BUILDS {
        let build_std = match (package, toolchain) {
            ("sshsm-protocol", _) => Some("core"),
            (_, Toolchain::Own) => None,
            (_, Toolchain::Debian) => Some("core,alloc"),
        };
        let mut command = toolchain.cargo(build_std);
        command.args(["--release", "--target", TARGET, "--package", package, "--target-dir"]);
        command.arg(target()?.join("bare-metal"));
        if let Some(families) = families {
            command.args(["--no-default-features", "--features", families]);
        }
        command.run()?;
    }
    Ok(())
}

/// `cargo xtask bare-metal`: asks for what it needs and builds; a missing toolchain is a failure here.
pub(crate) fn chore() -> Result<(), Failure> {
    setup::bare_metal().map_or_else(|missing| Err(Failure::Missing(vec![missing.report()])), build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_toolchains_do_not_mix() {
        // Cargo sets CARGO, and rustup RUSTUP_TOOLCHAIN, for tests as they do for `cargo run`.
        let command = Toolchain::Debian.cargo(Some("core"));
        let set = |name: &str| command.get_envs().find(|(key, _)| *key == name).map(|(_, value)| value);
        assert_eq!(command.get_program(), "/usr/bin/cargo");
        assert_eq!(set("RUSTC"), Some(Some("/usr/bin/rustc".as_ref())));
        assert_eq!(set("CARGO"), Some(None));
        if env::var_os("RUSTUP_TOOLCHAIN").is_some() {
            assert_eq!(set("RUSTUP_TOOLCHAIN"), Some(None));
        }
    }

    #[test]
    fn only_a_library_built_from_source_turns_unstable_options_on() {
        let plain = Toolchain::Own.cargo(None);
        assert!(plain.get_envs().all(|(key, value)| key != "RUSTC_BOOTSTRAP" || value.is_none()));
        let source = Toolchain::Own.cargo(Some("core"));
        assert!(
            source.get_envs().any(|(key, value)| key == "RUSTC_BOOTSTRAP" && value == Some("1".as_ref()))
        );
        assert!(source.get_args().any(|argument| argument == "-Zbuild-std=core"));
    }
}
