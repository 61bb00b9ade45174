//! Installs missing prerequisites of the checks and tests, and reports what could not be installed: what is
//! missing, what for, and the command that installs it. If everything is there, it changes nothing.
//!
//! Debian packages are installed as root or through a `sudo` that asks for no password; Python packages go
//! into a virtual environment under the target directory, never into the system.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bare_metal::{DEBIAN_PACKAGES, Toolchain},
    pico,
    program::{Failure, Run, cargo, ci, find, line, program, target},
    suite,
};

/// The YubiHSM client library that the conformance tests drive the simulator with.
pub(crate) const YUBIHSM: (&str, &str) = ("yubihsm[http]", "3.1.2");
/// The runner of the client library's own test suite.
const PYTEST: (&str, &str) = ("pytest", "9.2.0");
/// The processors of the emulated boards (`tests/boards`): a tool of the tests, which nothing is linked with.
const UNICORN: (&str, &str) = ("unicorn", "2.1.4");

/// A Debian package and a check, on any system, that what it provides is there.
struct Package {
    name: &'static str,
    what: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

const PACKAGES: [Package; 13] = [
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
        why: "makes the X.509 certificates that PKCS#11 tokens store with their keys",
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
        name: "tzdata",
        what: "the time zone database",
        why: "intervals of validity are compared with ssh-keygen's",
        present: || Path::new("/usr/share/zoneinfo/Europe/Berlin").is_file(),
    },
    Package {
        name: "python3-venv",
        what: "python3 with venv",
        why: "runs the YubiHSM client library and the emulator of two boards",
        present: || python().is_some(),
    },
    Package {
        name: "dpkg-dev",
        what: "dpkg-shlibdeps",
        why: "finds the libraries that the Debian package depends on",
        present: || find("dpkg-shlibdeps").is_some(),
    },
    Package {
        name: "xz-utils",
        what: "xz",
        why: "compresses the Debian package",
        present: || find("xz").is_some(),
    },
];

impl Package {
    fn missing(&self) -> Option<Missing> {
        let install = || format!("apt-get install {}", self.name);
        (!(self.present)()).then(|| Missing { what: self.what, why: self.why, install: install() })
    }
}

/// What one of the required Debian packages provides, if it is not there.
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
    /// Prints it on stdout; returns what is missing.
    pub(crate) fn report(&self) -> &'static str {
        println!("missing: {} ({}); install with: {}", self.what, self.why, self.install);
        self.what
    }
}

/// The result of the set-up.
pub(crate) struct Ready {
    /// The virtual environment's interpreter, with the client library and the boards' emulator.
    pub(crate) python: Option<PathBuf>,
    /// The toolchain for the boards' target.
    pub(crate) bare_metal: Option<Toolchain>,
    /// What is missing, by name; always empty with `CI=true`.
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
        Some(base) => environment(&base, &target()?.join("venv")).map_err(|lack| missing.push(lack)).ok(),
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

/// How long another program may hold a lock of apt's.
const LOCKED: Duration = Duration::from_secs(300);

/// Installs packages one by one, so that one unknown to this release does not keep the others out. Does
/// nothing, without a message, if there is no apt-get or no right to use it; the caller checks again in any
/// case.
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
        // The message about a lock is recognised in English.
        let settings = ["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"];
        let mut words = rights.iter().chain(&settings).chain(&["apt-get"]);
        let mut command = program(words.next().unwrap_or(&"env"));
        command.args(words).args(["-qq", "-o", &format!("DPkg::Lock::Timeout={}", LOCKED.as_secs())]);
        command.args(arguments);
        patiently(&mut command, LOCKED, Duration::from_secs(5))
            .map_err(|failure| println!("{failure}"))
            .is_ok()
    };
    println!("installing with apt-get: {}", names.join(" "));
    apt(&["update"]);
    for name in names {
        apt(&["install", "--yes", "--no-install-recommends", name]);
    }
}

/// Runs apt-get, and again every `pause` while another program holds one of its locks, for at most
/// `patience`.
///
/// apt-get itself waits only for dpkg's lock (`DPkg::Lock::Timeout`); the locks of its lists and its archives
/// make it fail at once.
fn patiently(command: &mut Command, patience: Duration, pause: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .stdout(Stdio::inherit())
            .spawn()
            .and_then(Child::wait_with_output)
            .map_err(|reason| Failure::Start(line(command), reason))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        eprint!("{errors}");
        if output.status.success() {
            return Ok(());
        }
        let locked = errors.lines().find(|line| line.contains("Could not get lock"));
        let Some(locked) = locked else { return Err(Failure::Exit(line(command), output.status)) };
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            println!("the lock was not released in {} s: {locked}", patience.as_secs());
            return Err(Failure::Exit(line(command), output.status));
        }
        println!("another program holds a lock of apt's; trying again for {} s more", left.as_secs());
        thread::sleep(pause.min(left));
    }
}

/// Runs a command and reports its failure, which the next check of prerequisites will show.
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

/// A Python that can create a virtual environment with pip in it. The `PATH`'s own comes first, but Debian's
/// package helps only the system's.
fn python() -> Option<PathBuf> {
    find("python3")
        .into_iter()
        .chain([PathBuf::from("/usr/bin/python3")])
        .find(|python| program(python).args(["-c", "import ensurepip, venv"]).succeeds())
}

/// The interpreter of the virtual environment, recreated unless it has the exact versions of the client
/// library, of its test runner and of the boards' emulator.
fn environment(base: &Path, venv: &Path) -> Result<PathBuf, Missing> {
    let python = venv.join("bin/python");
    let check = format!(
        "import pytest, requests, unicorn, yubihsm; from importlib.metadata import version; \
         raise SystemExit([version(name) for name in ('yubihsm', 'pytest', 'unicorn')] != ['{}', '{}', '{}'])",
        YUBIHSM.1, PYTEST.1, UNICORN.1
    );
    let present = || program(&python).args(["-c", &check]).succeeds();
    let pinned = [YUBIHSM, PYTEST, UNICORN].map(|(package, version)| format!("{package}=={version}"));
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
            what: "the Python packages yubihsm, pytest and unicorn",
            why: "YubiHSM's own client and its tests are run against the simulator, the firmware on emulated boards",
            install: format!("{} -m pip install '{}'", python.display(), pinned.join("' '")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_environment_is_made_anew_or_reported_never_taken_for_good() {
        // `false` creates no environment, so whatever is there must not count as one.
        let missing = environment(Path::new("/bin/false"), Path::new("/no/such/venv")).unwrap_err();
        assert!(missing.install.contains("pip install 'yubihsm[http]=="), "{}", missing.install);
    }

    /// A program that prints what apt-get does when it finds a lock held `times` times; and a file that
    /// counts its calls.
    fn apt_get(folder: &Path, times: usize) -> (Command, PathBuf) {
        let calls = folder.join("calls");
        let script = format!(
            "echo >>{calls}; if [ $(wc -l <{calls}) -gt {times} ]; then exit 0; fi
            echo 'E: Could not get lock {lists}. It is held by process 7 (apt-get)' >&2
            echo 'E: Unable to lock directory /var/lib/apt/lists/' >&2; exit 100",
            calls = calls.display(),
            lists = "/var/lib/apt/lists/lock",
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]);
        (command, calls)
    }

    #[test]
    fn a_lock_of_apts_is_waited_for_with_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let called = |calls: &Path| std::fs::read_to_string(calls).unwrap().lines().count();
        let (mut command, calls) = apt_get(folder.path(), 2);
        patiently(&mut command, Duration::from_secs(60), Duration::from_millis(1)).unwrap();
        assert_eq!(called(&calls), 3);
        std::fs::remove_file(&calls).unwrap();
        let (mut command, calls) = apt_get(folder.path(), usize::MAX);
        let failure = patiently(&mut command, Duration::from_millis(50), Duration::from_millis(10));
        assert!(matches!(failure, Err(Failure::Exit(..))));
        assert!(called(&calls) > 1);
    }

    #[test]
    fn another_failure_of_apt_get_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let calls = folder.path().join("calls");
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!("echo >>{}; echo 'E: Unable to locate package' >&2; exit 100", calls.display()),
        ]);
        let failure = patiently(&mut command, Duration::from_secs(60), Duration::from_secs(60));
        assert!(matches!(failure, Err(Failure::Exit(..))));
        assert_eq!(std::fs::read_to_string(calls).unwrap().lines().count(), 1);
    }

    /// The real apt-get, with its lists in a folder where this test holds their lock. It needs neither
    /// privileges nor a network: there is no source to fetch.
    #[test]
    fn apt_get_itself_waits_for_the_lock_of_its_lists() {
        use rustix::fs::{FlockOperation, fcntl_lock};
        if find("apt-get").is_none() {
            return sshsm_tests::requirement::Missing::new("apt-get", "it is Debian's").report();
        }
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/sources"]
        {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in ["status", "sources.list"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = program("env");
        command.args(["LC_ALL=C", "apt-get", "-qq"]);
        for (option, name) in [
            ("Dir::State::lists", "lists/"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache/"),
            ("Dir::Etc", "etc/"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "etc/sources/"),
        ] {
            command.args(["-o", &format!("{option}={}", path(name))]);
        }
        command.arg("update");
        let lock = std::fs::File::create(path("lists/lock")).unwrap();
        fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let failure = patiently(&mut command, Duration::ZERO, Duration::ZERO);
        assert!(matches!(failure, Err(Failure::Exit(..))), "the lock is held");
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            drop(lock);
        });
        let start = Instant::now();
        patiently(&mut command, Duration::from_secs(60), Duration::from_millis(50)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(400));
        holder.join().unwrap();
    }

    #[test]
    fn an_unknown_debian_package_is_not_installed() {
        assert!(!debian_package("no-such-package-as-this"));
    }
}
