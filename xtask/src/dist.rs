//! `cargo xtask dist`: a release: an archive with programs, man pages, completions, systemd units, the udev rule,
//! firmware images that were built, documentation and licences; a Debian package with the same files; a bill of
//! materials (SBOM) in CycloneDX's format; and checksums.
//!
//! The last commit is built, from a clone. The same commit gives the same bytes, wherever it is built with the
//! same compiler: names are sorted, times are the commit's, owners are anonymous, and the programs contain no path
//! of the computer they were built on. `--twice` builds in two folders and compares. The firmware images are those in
//! `target/firmware` both times.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    program::{Failure, Run, cargo, program, root, target},
    setup,
    tool::{CARGO_CYCLONEDX, CARGO_DEB, Tool},
};

/// The tools that a release needs.
pub(crate) const TOOLS: [&Tool; 2] = [&CARGO_DEB, &CARGO_CYCLONEDX];
const PROGRAMS: [&str; 2] = ["sshsm", "sshsm-sim"];
/// The firmware's folder in the archive.
const IMAGES: &str = "share/sshsm/firmware";
/// Checksums, as `sha256sum` writes and checks them.
const SUMS: &str = "SHA256SUMS";
/// The bill of materials.
const BILL: &str = "sshsm.cdx.json";
const SHELLS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/sshsm"),
    ("zsh", "share/zsh/site-functions/_sshsm"),
    ("fish", "share/fish/vendor_completions.d/sshsm.fish"),
];
/// Files and folders of the repository, and their places in the archive; missing ones are left out.
const FILES: [(&str, &str); 8] = [
    ("host/systemd/user", "lib/systemd/user"),
    ("host/systemd", "lib/systemd/system"),
    ("host/udev", "lib/udev/rules.d"),
    ("README.md", "share/doc/sshsm/README.md"),
    ("CHANGELOG.md", "share/doc/sshsm/CHANGELOG.md"),
    ("docs", "share/doc/sshsm/docs"),
    ("LICENSE-APACHE", "share/doc/sshsm/LICENSE-APACHE"),
    ("LICENSE-MIT", "share/doc/sshsm/LICENSE-MIT"),
];

/// `[--twice]`: writes the release into `target/dist`. `SHA256SUMS` has a line for each file, and one for each
/// firmware image: that of `BOARD.bin` is what a device reports about its image.
pub(crate) fn chore(arguments: &[&str]) -> Result<(), Failure> {
    let twice = match arguments {
        [] => false,
        ["--twice"] => true,
        _ => return Err(Failure::Usage("the only option of dist is --twice".to_owned())),
    };
    for tool in TOOLS {
        tool.needed()?;
    }
    for package in ["dpkg-dev", "xz-utils"] {
        if let Some(missing) = setup::lacks(package) {
            return Err(Failure::Missing(vec![missing.report()]));
        }
    }
    let dist = target()?.join("dist");
    let changes = program("git").args(["status", "--porcelain"]).answer();
    if changes.is_some_and(|changes| !changes.is_empty()) {
        println!("uncommitted changes are left out");
    }
    let name = format!("sshsm-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let files = release(&dist, &name)?;
    if twice {
        let again = dist.join("again");
        let others = release(&again, &name)?;
        if files != others {
            return Err(Failure::Refused(format!("{files:?} and {others:?} have different names")));
        }
        for file in &files {
            let [one, other] =
                [&dist, &again].map(|folder| fs::read(folder.join(file)).map_err(Failure::System));
            if one? != other? {
                return Err(Failure::Refused(format!(
                    "{file} has other bytes in {} than in {}",
                    dist.display(),
                    again.display()
                )));
            }
            println!("the same bytes twice: {file}");
        }
        fs::remove_dir_all(again).map_err(Failure::System)?;
    }
    let folder = staged(&dist);
    let images = images(&folder.join(IMAGES))?;
    let mut lines = sums(&dist, files)?;
    if !images.is_empty() {
        let image = |line: &str| line.replace("  ", &format!("  {name}/{IMAGES}/"));
        lines += &sums(&folder.join(IMAGES), images)?
            .lines()
            .map(|line| format!("\n{}", image(line)))
            .collect::<String>();
    }
    fs::write(dist.join(SUMS), format!("{lines}\n")).map_err(Failure::System)?;
    println!("{}\n{lines}", dist.display());
    Ok(())
}

/// The folder that the archive and the package are made from.
fn staged(place: &Path) -> PathBuf {
    // cargo-deb finds it there under the name target/release/dist.
    place.join("build/release/dist")
}

/// Builds the last commit in `place`, and returns the names of the files that it made there.
fn release(place: &Path, name: &str) -> Result<Vec<String>, Failure> {
    let (source, build) = (place.join("source"), place.join("build"));
    if source.exists() {
        fs::remove_dir_all(&source).map_err(Failure::System)?;
    }
    fs::create_dir_all(place).map_err(Failure::System)?;
    program("git").args(["clone", "--quiet", "--shared"]).arg(root()).arg(&source).run()?;
    let time = commit_time()?;
    cargo()
        .current_dir(&source)
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
        .env("CARGO_ENCODED_RUSTFLAGS", without_paths(&source, &build))
        .env("CARGO_PROFILE_RELEASE_STRIP", "true")
        .run()?;
    let bill = bill(&source, time)?;
    let folder = staged(place);
    stage(&source, &build.join("release"), &target()?.join("firmware"), &folder)?;
    write(&folder.join("share/doc/sshsm").join(BILL), bill.as_bytes())?;
    fs::write(place.join(BILL), bill).map_err(Failure::System)?;
    let archive = pack(&folder, place, name, time)?;
    let package = package(&source, &build, place, time)?;
    fs::remove_dir_all(source).map_err(Failure::System)?;
    Ok(vec![archive, package, BILL.to_owned()])
}

/// The bill of materials: every crate that is compiled into the command line, with version, licence and checksum.
fn bill(source: &Path, time: u64) -> Result<String, Failure> {
    let manifest = source.join("host/cli/Cargo.toml");
    program(CARGO_CYCLONEDX.needed()?)
        .current_dir(source)
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--no-build-deps", "--quiet"])
        .arg("--manifest-path")
        .arg(&manifest)
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .run()?;
    let text = fs::read_to_string(source.join("host/cli").join(BILL)).map_err(Failure::System)?;
    Ok(text.replace(&source.display().to_string(), "/sshsm"))
}

/// Makes the Debian package, as `package.metadata.deb` in `host/cli/Cargo.toml` describes it; returns its name.
fn package(source: &Path, build: &Path, place: &Path, time: u64) -> Result<String, Failure> {
    let old = |name: &str| name.ends_with(".deb");
    for name in named(place, old)? {
        fs::remove_file(place.join(name)).map_err(Failure::System)?;
    }
    program(CARGO_DEB.needed()?)
        .current_dir(source)
        .args(["--no-build", "--no-strip", "--no-dbgsym", "--package", "sshsm", "--locked", "--output"])
        .arg(place)
        .env("CARGO_TARGET_DIR", build)
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .run()?;
    let made = named(place, old)?;
    let [package] = made.as_slice() else { return Err(failed("cargo-deb made no package")) };
    // The programs in it run.
    let unpacked = build.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).map_err(Failure::System)?;
    }
    program("dpkg-deb").arg("--extract").arg(place.join(package)).arg(&unpacked).run()?;
    for name in PROGRAMS {
        program(unpacked.join("usr/bin").join(name)).arg("--version").run()?;
    }
    Ok(package.clone())
}

fn failed(reason: &str) -> Failure {
    Failure::System(io::Error::other(reason.to_owned()))
}

/// Compiler flags that make the names of source files in a program independent of where it is built.
fn without_paths(source: &Path, build: &Path) -> OsString {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let registry = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut flags = OsString::new();
    for (path, name) in [(source, "/sshsm"), (build, "/target"), (registry.as_path(), "/cargo")] {
        if !flags.is_empty() {
            flags.push("\x1f"); // cargo's separator of flags, so that paths may have spaces
        }
        flags.push("--remap-path-prefix=");
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
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
fn stage(source: &Path, programs: &Path, firmware: &Path, folder: &Path) -> Result<(), Failure> {
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
        copy_files(&source.join(from), &folder.join(to))?;
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
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    named(folder, |name| [".bin", ".uf2"].iter().any(|ending| name.ends_with(ending)))
}

/// The names in a folder that `wanted` accepts, sorted.
fn named(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::System)? {
        names.push(entry.map_err(Failure::System)?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| wanted(name));
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

/// Packs a folder into an archive in `place`, under the name `name`; returns the archive's file name.
fn pack(folder: &Path, place: &Path, name: &str, time: u64) -> Result<String, Failure> {
    let tar = format!("{name}.tar");
    program("tar")
        .current_dir(folder)
        .args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{time}"), &format!("--transform=s,^\\.,{name},")])
        .arg("--file")
        .arg(place.join(&tar))
        .arg(".")
        .run()?;
    program("gzip").current_dir(place).args(["--best", "--no-name", "--force", &tar]).run()?;
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
            let staged = place.join("dist");
            stage(&root(), &programs, &place.join("firmware"), &staged).unwrap();
            program("chmod").args(["-R", umask]).arg(&staged).run().unwrap();
            fs::read(place.join(pack(&staged, &place, "sshsm-1-host", 1_700_000_000).unwrap())).unwrap()
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
        let sums = fs::read_to_string(place.join("dist").join(IMAGES).join(SUMS)).unwrap();
        assert_eq!(sums, format!("{sum}  pico.bin\n{sum}  pico.uf2\n"));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_program_that_was_not_built_is_told() {
        let place = folder("missing");
        let failure = stage(&place, &place, &place, &place.join("out")).unwrap_err();
        assert!(failure.to_string().contains("sshsm"), "{failure}");
        fs::remove_dir_all(place).unwrap();
    }
}
