//! `cargo xtask dist`: a release in one archive: programs, man pages, completions, systemd units, the udev
//! rule, firmware images that were built, documentation and licences.
//!
//! The same commit gives the same bytes, wherever it is built with the same compiler: names are sorted, times
//! are the commit's, owners are anonymous, and the programs contain no path of the computer they were built
//! on.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::program::{Failure, Run, cargo, program, root, target};

const PROGRAMS: [&str; 2] = ["sshsm", "sshsm-sim"];
/// The firmware's folder in the archive.
const IMAGES: &str = "share/sshsm/firmware";
/// Checksums, as `sha256sum` writes and checks them.
const SUMS: &str = "SHA256SUMS";
const SHELLS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/sshsm"),
    ("zsh", "share/zsh/site-functions/_sshsm"),
    ("fish", "share/fish/vendor_completions.d/sshsm.fish"),
];
/// Files and folders of the repository, and their places in the archive; missing ones are left out.
const FILES: [(&str, &str); 7] = [
    ("host/systemd/user", "lib/systemd/user"),
    ("host/systemd", "lib/systemd/system"),
    ("host/udev", "lib/udev/rules.d"),
    ("README.md", "share/doc/sshsm/README.md"),
    ("docs", "share/doc/sshsm/docs"),
    ("LICENSE-APACHE", "share/doc/sshsm/LICENSE-APACHE"),
    ("LICENSE-MIT", "share/doc/sshsm/LICENSE-MIT"),
];

/// Builds the programs and writes `target/dist/sshsm-VERSION-HOST.tar.gz` and `target/dist/SHA256SUMS`, which
/// has a line for the archive and one for each firmware image: that of `BOARD.bin` is what a device reports
/// about its image.
pub(crate) fn chore() -> Result<(), Failure> {
    let dist = target()?.join("dist");
    let build = dist.join("build");
    cargo()
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "sshsm",
            "--package",
            "sshsm-simulator",
            "--bins",
        ])
        .arg("--target-dir")
        .arg(&build)
        .env("CARGO_ENCODED_RUSTFLAGS", without_paths())
        .env("CARGO_PROFILE_RELEASE_STRIP", "true")
        .run()?;
    let name = format!("sshsm-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let folder = dist.join(&name);
    stage(&build.join("release"), &target()?.join("firmware"), &folder)?;
    let archive = pack(&folder, commit_time()?)?;
    let images = images(&folder.join(IMAGES))?;
    let images = images.iter().map(|image| format!("{name}/{IMAGES}/{image}"));
    let sums = sums(&dist, std::iter::once(archive.clone()).chain(images))?;
    fs::write(dist.join(SUMS), format!("{sums}\n")).map_err(Failure::System)?;
    println!("{}\n{sums}", dist.join(&archive).display());
    Ok(())
}

fn failed(reason: &str) -> Failure {
    Failure::System(io::Error::other(reason.to_owned()))
}

/// Compiler flags that make the names of source files in a program independent of where it is built.
fn without_paths() -> OsString {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let registry = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut flags = OsString::from("--remap-path-prefix=");
    flags.push(root());
    flags.push("=/sshsm\x1f--remap-path-prefix="); // cargo's separator of flags, so that paths may have spaces
    flags.push(registry);
    flags.push("=/cargo");
    flags
}

/// The platform that programs are built for.
fn host() -> Result<String, Failure> {
    let version = cargo().args(["--version", "--verbose"]).answer().unwrap_or_default();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| failed("cargo does not say what it builds for"))
}

/// When the commit was made that is built, in seconds since 1970; `SOURCE_DATE_EPOCH` goes before.
fn commit_time() -> Result<u64, Failure> {
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let time = given.or_else(|| program("git").args(["log", "-1", "--format=%ct"]).answer());
    time.and_then(|time| time.parse().ok())
        .ok_or_else(|| failed("git does not say when the commit was made; set SOURCE_DATE_EPOCH"))
}

/// Puts everything in its place in the archive; `folder` is recreated.
fn stage(programs: &Path, firmware: &Path, folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Failure::System)?;
    }
    for name in PROGRAMS {
        copy(&programs.join(name), &folder.join("bin").join(name))?;
    }
    let sshsm = folder.join("bin/sshsm");
    let man = folder.join("share/man/man1");
    fs::create_dir_all(&man).map_err(Failure::System)?;
    program(&sshsm).arg("man").arg(&man).run()?;
    for (shell, file) in SHELLS {
        let script = program(&sshsm).args(["completions", shell]).answer();
        let script = script.ok_or_else(|| failed("sshsm made no completions"))? + "\n";
        write(&folder.join(file), script.as_bytes())?;
    }
    for (from, to) in FILES {
        copy_files(&root().join(from), &folder.join(to))?;
    }
    let place = folder.join(IMAGES);
    copy_files(firmware, &place)?;
    let images = images(&place)?;
    if images.is_empty() {
        return Ok(());
    }
    write(&place.join(SUMS), format!("{}\n", sums(&place, images)?).as_bytes())
}

/// The names of the firmware images in a folder, sorted; none if there is no such folder.
fn images(folder: &Path) -> Result<Vec<String>, Failure> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Failure::System)?.file_name().to_string_lossy().into_owned();
        if [".bin", ".uf2"].iter().any(|ending| name.ends_with(ending)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The lines of `sha256sum` for files in a folder.
fn sums(folder: &Path, files: impl IntoIterator<Item = String>) -> Result<String, Failure> {
    let sums = program("sha256sum").current_dir(folder).args(files).answer();
    sums.ok_or_else(|| failed("sha256sum gave no sums"))
}

/// Copies a file, or the files in a folder but not its subfolders; does nothing if neither exists.
fn copy_files(from: &Path, to: &Path) -> Result<(), Failure> {
    if from.is_file() {
        return copy(from, to);
    }
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(Failure::System)?;
        if entry.path().is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    parent(to)?;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    fs::copy(from, to).map(drop).map_err(|error| Failure::System(named(error)))
}

fn write(file: &Path, content: &[u8]) -> Result<(), Failure> {
    parent(file)?;
    fs::write(file, content).map_err(Failure::System)
}

fn parent(file: &Path) -> Result<(), Failure> {
    file.parent().map_or(Ok(()), fs::create_dir_all).map_err(Failure::System)
}

/// Packs a folder into an archive next to it, and returns the archive's name.
fn pack(folder: &Path, time: u64) -> Result<String, Failure> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = folder.parent().unwrap_or(folder);
    let tar = format!("{name}.tar");
    program("tar")
        .current_dir(beside)
        .args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{time}"), "--file", &tar, &name])
        .run()?;
    program("gzip").current_dir(beside).args(["--best", "--no-name", "--force", &tar]).run()?;
    Ok(format!("{tar}.gz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for the programs: as `sshsm` it writes a page and prints completions.
    const PROGRAM: &str = "#!/bin/sh\ncase $1 in man) echo page > $2/sshsm.1;; *) echo $2;; esac\n";

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("sshsm-dist-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_same_files_make_the_same_archive_whatever_their_times_and_modes() {
        let place = folder("same");
        let programs = place.join("programs");
        for name in PROGRAMS {
            write(&programs.join(name), PROGRAM.as_bytes()).unwrap();
            program("chmod").arg("755").arg(programs.join(name)).run().unwrap();
        }
        for file in ["pico.uf2", "pico.bin", "pico.elf"] {
            write(&place.join("firmware").join(file), b"image").unwrap();
        }
        let archive = |umask: &str| {
            let staged = place.join("sshsm-1-host");
            stage(&programs, &place.join("firmware"), &staged).unwrap();
            program("chmod").args(["-R", umask]).arg(&staged).run().unwrap();
            fs::read(place.join(pack(&staged, 1_700_000_000).unwrap())).unwrap()
        };
        assert_eq!(archive("u=rwX,g=,o="), archive("u=rwX,g=rwX,o=rX"));
        let list = program("tar").arg("-tzf").arg(place.join("sshsm-1-host.tar.gz")).answer().unwrap();
        for file in [
            "bin/sshsm",
            "bin/sshsm-sim",
            "share/man/man1/sshsm.1",
            "share/bash-completion/completions/sshsm",
            "share/zsh/site-functions/_sshsm",
            "share/fish/vendor_completions.d/sshsm.fish",
            "lib/udev/rules.d/70-sshsm.rules",
            "share/sshsm/firmware/pico.uf2",
            "share/sshsm/firmware/pico.bin",
            "share/sshsm/firmware/SHA256SUMS",
            "share/doc/sshsm/README.md",
            "share/doc/sshsm/docs/boards.md",
            "share/doc/sshsm/LICENSE-MIT",
        ] {
            assert!(list.lines().any(|line| line == format!("sshsm-1-host/{file}")), "{file}: {list}");
        }
        // SHA-256 of "image", both for what is flashed and for what a device reports.
        let sum = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";
        let sums = fs::read_to_string(place.join("sshsm-1-host").join(IMAGES).join(SUMS)).unwrap();
        assert_eq!(sums, format!("{sum}  pico.bin\n{sum}  pico.uf2\n"));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_program_that_was_not_built_is_told() {
        let place = folder("missing");
        let failure = stage(&place, &place, &place.join("out")).unwrap_err();
        assert!(failure.to_string().contains("sshsm"), "{failure}");
        fs::remove_dir_all(place).unwrap();
    }
}
