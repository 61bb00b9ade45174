//! Proves that both `no_std` crates build, code generation included, for the boards' Cortex-M33 target, and that
//! `sshsm-protocol` needs no allocator: its standard library is built from source with `core` and nothing else.
//!
//! Two toolchains can do it: the one that runs this chore, if rustup could add the target and the library's
//! source, or else Debian's, whose `core` and `alloc` are built from the source package.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    board::Board,
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

    /// Lets rustup add what the chore's own toolchain lacks: one quiet attempt, since offline machines have
    /// Debian's.
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
    /// `None` uses the library that came with the target.
    fn cargo(self, subcommand: &str, build_std: Option<&str>, flags: &[&str]) -> Command {
        let mut command = match self {
            Self::Own => cargo(),
            Self::Debian => {
                let mut command = program("/usr/bin/cargo");
                for variable in env::vars_os().map(|(name, _)| name) {
                    if variable.to_str().is_some_and(selects_toolchain) {
                        command.env_remove(variable);
                    }
                }
                command.env("RUSTC", "/usr/bin/rustc");
                command
            }
        };
        let linker = match self {
            Self::Own => [].as_slice(),
            Self::Debian => &["-C", "linker=ld.lld"],
        };
        let flags: Vec<&str> = linker.iter().chain(flags).copied().collect();
        if !flags.is_empty() {
            command.env("RUSTFLAGS", flags.join(" ")).env_remove("CARGO_ENCODED_RUSTFLAGS");
        }
        command.arg(subcommand);
        if let Some(parts) = build_std {
            command.env("RUSTC_BOOTSTRAP", "1").arg(format!("-Zbuild-std={parts}"));
        }
        command
    }

    /// The cargo that builds an image for a board, or checks its sources, and the folder that will contain
    /// the image.
    pub(crate) fn board(self, subcommand: &str, board: &Board) -> Result<(Command, PathBuf), Failure> {
        let flags = ["-C", &format!("target-cpu={}", board.processor.cpu())];
        let atomics = board.processor.target().starts_with("thumbv6m");
        let std = match self {
            Self::Own if !atomics && has_library(board.processor.target()) => None,
            _ => Some("core,alloc"),
        };
        let folder = target_folder("boards", std)?;
        let mut command = self.cargo(subcommand, std, &flags);
        command.arg("--target-dir").arg(&folder);
        if let Some(level) = board.opt_level {
            // The protocol's crate has the messages, and the secure channel's ciphers.
            for package in ["'*'", "sshsm-protocol"] {
                command.arg("--config").arg(format!("profile.release.package.{package}.opt-level='{level}'"));
            }
        }
        if atomics {
            let file = folder.join("targets").join(format!("{}.json", board.processor.target()));
            let described =
                self.rustc(&["-Zunstable-options", "--print=target-spec-json"], board.processor.target());
            let description = described.as_deref().and_then(with_atomics).ok_or_else(|| {
                Failure::System(io::Error::other(format!(
                    "rustc does not describe {}",
                    board.processor.target()
                )))
            })?;
            fs::create_dir_all(folder.join("targets")).map_err(Failure::System)?;
            // Rewriting it would trigger a rebuild.
            if fs::read_to_string(&file).ok().as_ref() != Some(&description) {
                fs::write(&file, description).map_err(Failure::System)?;
            }
            command.arg("-Zjson-target-spec").arg("--target").arg(file);
        } else {
            command.args(["--target", board.processor.target()]);
        }
        Ok((command, folder.join(board.processor.target()).join("release")))
    }

    /// What this toolchain's compiler prints about a target.
    fn rustc(self, what: &[&str], target: &str) -> Option<String> {
        let rustc = match self {
            Self::Own => own_rustc(),
            Self::Debian => "/usr/bin/rustc".into(),
        };
        program(rustc).env("RUSTC_BOOTSTRAP", "1").args(what).args(["--target", target]).answer()
    }
}

/// A target's description with compare-and-swap: Cortex-M0+ has none, but crates that count references use
/// it. The board's image provides functions that do it with interrupts off.
fn with_atomics(description: &str) -> Option<String> {
    let lines = description
        .lines()
        .filter(|line| !line.contains("\"atomic-cas\"") && !line.contains("\"max-atomic-width\""));
    let rest = lines.collect::<Vec<_>>().join("\n");
    let rest = rest.strip_prefix('{').filter(|_| description.contains("\"atomic-cas\": false"))?;
    Some(format!("{{\n  \"max-atomic-width\": 32,{rest}\n"))
}

/// The target directory of what is built on a standard library from source, or on the target's own. They are
/// separate: the build scripts of macros depend on environment variables that the former needs, so that in a
/// shared directory each build would begin by recompiling those.
fn target_folder(name: &str, build_std: Option<&str>) -> Result<PathBuf, Failure> {
    let suffix = if build_std.is_some() { "-std" } else { "" };
    Ok(target()?.join(format!("{name}{suffix}")))
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

/// The compiler that belongs to the cargo that runs this chore.
fn own_rustc() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "rustc".into(), |cargo| Path::new(&cargo).with_file_name("rustc"))
}

/// Whether the chore's own toolchain has a library for a target.
fn has_library(target: &str) -> bool {
    let folder = program(own_rustc()).args(["--print", "target-libdir", "--target", target]).answer();
    folder.is_some_and(|folder| Path::new(&folder).is_dir())
}

fn own_is_complete() -> bool {
    let sysroot = program(own_rustc()).args(["--print", "sysroot"]).answer().map(PathBuf::from);
    has_library(TARGET)
        && sysroot.is_some_and(|folder| folder.join("lib/rustlib/src/rust/library/Cargo.lock").is_file())
}

/// What is built: the package, and the families that it is built with; `None` is its default, which is all.
const BUILDS: [(&str, Option<&str>); 3] =
    [("sshsm-protocol", None), ("sshsm-firmware", None), ("sshsm-firmware", Some("ssh"))];

/// Builds both crates, and the firmware also for a small board that only signs SSH certificates, separately
/// from the host's artefacts and locks.
pub(crate) fn build(toolchain: Toolchain) -> Result<(), Failure> {
    println!("toolchain: {toolchain:?}");
    for (package, families) in BUILDS {
        let build_std = match (package, toolchain) {
            ("sshsm-protocol", _) => Some("core"),
            (_, Toolchain::Own) => None,
            (_, Toolchain::Debian) => Some("core,alloc"),
        };
        let mut command = toolchain.cargo("build", build_std, &[]);
        command.args(["--release", "--target", TARGET, "--package", package, "--target-dir"]);
        command.arg(target_folder("bare-metal", build_std)?);
        if let Some(families) = families {
            command.args(["--no-default-features", "--features", families]);
        }
        command.run()?;
    }
    Ok(())
}

/// `cargo xtask bare-metal`: sets up what it needs and builds; a missing toolchain is a failure here.
pub(crate) fn chore() -> Result<(), Failure> {
    setup::bare_metal().map_or_else(|missing| Err(Failure::Missing(vec![missing.report()])), build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_toolchains_do_not_mix() {
        // Cargo sets CARGO, and rustup RUSTUP_TOOLCHAIN, for tests as they do for `cargo run`.
        let command = Toolchain::Debian.cargo("build", Some("core"), &[]);
        let set = |name: &str| command.get_envs().find(|(key, _)| *key == name).map(|(_, value)| value);
        assert_eq!(command.get_program(), "/usr/bin/cargo");
        assert_eq!(set("RUSTC"), Some(Some("/usr/bin/rustc".as_ref())));
        assert_eq!(set("CARGO"), Some(None));
        if env::var_os("RUSTUP_TOOLCHAIN").is_some() {
            assert_eq!(set("RUSTUP_TOOLCHAIN"), Some(None));
        }
    }

    #[test]
    fn compare_and_swap_is_added_to_the_description_of_a_target_without_it_only() {
        let thumbv6m = "{\n  \"arch\": \"arm\",\n  \"atomic-cas\": false,\n  \"abi\": \"eabi\"\n}";
        let expected = "{\n  \"max-atomic-width\": 32,\n  \"arch\": \"arm\",\n  \"abi\": \"eabi\"\n}\n";
        assert_eq!(with_atomics(thumbv6m).as_deref(), Some(expected));
        assert_eq!(with_atomics("{\n  \"arch\": \"arm\"\n}"), None);
    }

    #[test]
    fn only_a_library_built_from_source_turns_unstable_options_on() {
        let plain = Toolchain::Own.cargo("build", None, &[]);
        assert!(plain.get_envs().all(|(key, value)| key != "RUSTC_BOOTSTRAP" || value.is_none()));
        let source = Toolchain::Own.cargo("build", Some("core"), &[]);
        assert!(
            source.get_envs().any(|(key, value)| key == "RUSTC_BOOTSTRAP" && value == Some("1".as_ref()))
        );
        assert!(source.get_args().any(|argument| argument == "-Zbuild-std=core"));
    }
}
