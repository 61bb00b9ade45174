//! Installs what the checks and tests need and is not there, and says what could not be installed: what is missing,
//! what for, and the command that installs it. When all is there it only looks, and changes nothing.
//!
//! Debian packages are installed as root or through a `sudo` that asks for no password; the Python client library
//! goes into a virtual environment under the target directory, never into the system.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bare_metal::{DEBIAN_PACKAGES, Toolchain},
    pico,
    program::{Failure, Run, cargo, ci, find, program, target},
    suite,
};

/// The YubiHSM client library that the conformance tests drive the simulator with.
pub(crate) const YUBIHSM: (&str, &str) = ("yubihsm[http]", "3.1.2");
/// What the client library's own test suite runs under.
const PYTEST: (&str, &str) = ("pytest", "9.2.0");

/// A Debian package and how one sees, on any system, that what it brings is there.
struct Package {
    name: &'static str,
    what: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

const PACKAGES: [Package; 10] = [
    Package {
        name: "openssh-client",
        what: "ssh, ssh-keygen",
        why: "certificates are compared with OpenSSH's own",
        present: || find("ssh").is_some() && find("ssh-keygen").is_some(),
    },
    Package {
        name: "openssh-server",
        what: "sshd",
        why: "certificates are used to log in to a real server, on loopback",
        present: || find("sshd").is_some(),
    },
    Package {
        name: "softhsm2",
        what: "softhsm2-util",
        why: "the PKCS#11 token that signing is compared with",
        present: || find("softhsm2-util").is_some(),
    },
    Package {
        name: "opensc",
        what: "pkcs11-tool",
        why: "makes keys on the PKCS#11 token",
        present: || find("pkcs11-tool").is_some(),
    },
    Package {
        name: "openssl",
        what: "openssl",
        why: "makes the X.509 certificates that PKCS#11 tokens have beside their keys",
        present: || find("openssl").is_some(),
    },
    Package {
        name: "qemu-system-arm",
        what: "qemu-system-arm",
        why: "the firmware runs on an emulated board",
        present: || find("qemu-system-arm").is_some(),
    },
    Package {
        name: "nodejs",
        what: "node",
        why: "the firmware runs on an emulated Pico",
        present: || find("node").is_some(),
    },
    Package {
        name: "npm",
        what: "npm",
        why: "installs the Pico's emulator",
        present: || find("npm").is_some(),
    },
    Package {
        name: "valgrind",
        what: "valgrind",
        why: "follows secrets through the code",
        present: || find("valgrind").is_some(),
    },
    Package {
        name: "python3-venv",
        what: "python3 with venv",
        why: "runs the YubiHSM client library",
        present: || python().is_some(),
    },
];

impl Package {
    fn missing(&self) -> Option<Missing> {
        let install = || format!("apt-get install {}", self.name);
        (!(self.present)()).then(|| Missing { what: self.what, why: self.why, install: install() })
    }
}

/// What a Debian package of those that are installed brings, if it is not there.
pub(crate) fn lacks(package: &str) -> Option<Missing> {
    PACKAGES.iter().find(|known| known.name == package).and_then(Package::missing)
}

/// The rustup components that steps need, and the cargo subcommands they bring.
const COMPONENTS: [(&str, &str, &str); 2] =
    [("rustfmt", "fmt", "the formatting check"), ("clippy", "clippy", "the lints")];

/// A dependency that is not there and could not be installed.
pub(crate) struct Missing {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    pub(crate) install: String,
}

impl Missing {
    /// Says so on stdout; returns what is missing.
    pub(crate) fn report(&self) -> &'static str {
        println!("missing: {} ({}); install with: {}", self.what, self.why, self.install);
        self.what
    }
}

/// What is there after the set-up.
pub(crate) struct Ready {
    /// The virtual environment's interpreter, with the client library.
    pub(crate) python: Option<PathBuf>,
    /// The toolchain for the boards' target.
    pub(crate) bare_metal: Option<Toolchain>,
    /// What is not, by name; always empty with `CI=true`.
    pub(crate) missing: Vec<&'static str>,
}

/// `cargo xtask setup`.
pub(crate) fn chore() -> Result<(), Failure> {
    let ready = run()?;
    if ready.missing.is_empty() {
        println!("setup: everything is there");
    }
    Ok(())
}

/// Installs and looks again.
///
/// Something missing at the end is reported, and with `CI=true` it is [`Failure::Missing`].
pub(crate) fn run() -> Result<Ready, Failure> {
    let mut missing = Vec::new();
    missing.extend(COMPONENTS.iter().filter_map(|&(name, subcommand, why)| {
        let present = || cargo().args([subcommand, "--version"]).succeeds();
        let add = || program("rustup").args(["component", "add", name]).succeeds();
        (!(present() || add() && present())).then(|| Missing {
            what: name,
            why,
            install: format!("rustup component add {name}"),
        })
    }));

    let absent: Vec<&Package> = PACKAGES.iter().filter(|package| !(package.present)()).collect();
    apt_install(absent.iter().map(|package| package.name));
    missing.extend(absent.into_iter().filter_map(Package::missing));
    prepare_sshd();

    let bare_metal = bare_metal().map_err(|lack| missing.push(lack)).ok();
    let python = match python() {
        // Named above already.
        None => None,
        Some(base) => client_library(&base, &target()?.join("venv")).map_err(|lack| missing.push(lack)).ok(),
    };

    if let Some(python) = &python {
        missing.extend(suite::python_client(python).err());
    }
    missing.extend(suite::rust_client().err());
    missing.extend(pico::emulator().err());

    let missing: Vec<_> = missing.iter().map(Missing::report).collect();
    if ci() && !missing.is_empty() {
        Err(Failure::Missing(missing))
    } else {
        Ok(Ready { python, bare_metal, missing })
    }
}

/// The toolchain for the boards' target: as installed, else added by rustup, else Debian's.
pub(crate) fn bare_metal() -> Result<Toolchain, Missing> {
    Toolchain::installed()
        .or_else(|| {
            Toolchain::add_with_rustup();
            Toolchain::installed()
        })
        .or_else(|| {
            apt_install(DEBIAN_PACKAGES.into_iter().filter(|name| !debian_package(name)));
            Toolchain::installed()
        })
        .ok_or_else(|| Missing {
            what: "a toolchain for thumbv8m.main-none-eabihf",
            why: "the firmware is built for its boards",
            install: format!(
                "rustup target add thumbv8m.main-none-eabihf && rustup component add rust-src, or apt-get install {}",
                DEBIAN_PACKAGES.join(" ")
            ),
        })
}

/// Whether a Debian package is installed; false on other systems.
pub(crate) fn debian_package(name: &str) -> bool {
    program("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", name])
        .answer()
        .is_some_and(|status| status == "installed")
}

/// Installs packages one by one, so that one unknown to this release does not keep the others out. Quietly does
/// nothing where there is no apt-get or no right to use it; the caller looks again in any case.
fn apt_install<'a>(names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    if names.is_empty() || find("apt-get").is_none() {
        return;
    }
    let rights: &[&str] = if is_root() {
        &["env"]
    } else if program("sudo").args(["-n", "true"]).succeeds() {
        &["sudo", "-n", "env"]
    } else {
        return;
    };
    let apt = |arguments: &[&str]| {
        let mut words = rights.iter().chain(&["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        let mut command = program(words.next().unwrap_or(&"env"));
        command.args(words).args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        attempt(&mut command)
    };
    println!("installing with apt-get: {}", names.join(" "));
    apt(&["update"]);
    for name in names {
        apt(&["install", "--yes", "--no-install-recommends", name]);
    }
}

/// Runs a command whose failure is told and then left to the next look at what is there.
pub(crate) fn attempt(command: &mut Command) -> bool {
    command.run().map_err(|failure| println!("{failure}")).is_ok()
}

fn is_root() -> bool {
    program("id").arg("-u").answer().is_some_and(|id| id == "0")
}

/// As root, Debian's sshd refuses to start without the folder that its service unit makes at boot.
fn prepare_sshd() {
    let folder = Path::new("/run/sshd");
    if is_root()
        && !folder.exists()
        && debian_package("openssh-server")
        && let Err(reason) = DirBuilder::new().mode(0o755).create(folder)
    {
        println!("{} could not be made: {reason}", folder.display());
    }
}

/// A Python that can make a virtual environment with pip in it. The `PATH`'s own comes first, but Debian's package
/// helps only the system's.
fn python() -> Option<PathBuf> {
    find("python3")
        .into_iter()
        .chain([PathBuf::from("/usr/bin/python3")])
        .find(|python| program(python).args(["-c", "import ensurepip, venv"]).succeeds())
}

/// The interpreter of the virtual environment, made or made anew unless it has the exact versions of the client
/// library and of what runs its tests.
fn client_library(base: &Path, venv: &Path) -> Result<PathBuf, Missing> {
    let python = venv.join("bin/python");
    let check = format!(
        "import pytest, requests, yubihsm; from importlib.metadata import version; \
         raise SystemExit((version('yubihsm'), version('pytest')) != ('{}', '{}'))",
        YUBIHSM.1, PYTEST.1
    );
    let present = || program(&python).args(["-c", &check]).succeeds();
    let pinned = [YUBIHSM, PYTEST].map(|(package, version)| format!("{package}=={version}"));
    if !present() {
        println!("installing {} in {}", pinned.join(" "), venv.display());
        let _ = attempt(program(base).args(["-m", "venv", "--clear"]).arg(venv))
            && attempt(
                program(&python)
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                    .args(&pinned),
            );
    }
    if present() {
        Ok(python)
    } else {
        Err(Missing {
            what: "the Python packages yubihsm and pytest",
            why: "YubiHSM's own client and its tests are run against the simulator",
            install: format!("{} -m pip install '{}'", python.display(), pinned.join("' '")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_environment_is_made_anew_or_reported_never_taken_for_good() {
        // `false` makes no environment, so whatever stands there must not count as one.
        let missing = client_library(Path::new("/bin/false"), Path::new("/no/such/venv")).unwrap_err();
        assert!(missing.install.contains("pip install 'yubihsm[http]=="), "{}", missing.install);
    }

    #[test]
    fn an_unknown_debian_package_is_not_installed() {
        assert!(!debian_package("no-such-package-as-this"));
    }
}
