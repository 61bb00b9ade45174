//! Running other programs from inside `cargo run`, without that outer cargo's variables leaking into them, and
//! the one error type of every chore.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// Why a chore stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program could not be started.
    Start(String, io::Error),
    /// The program ran and failed.
    Exit(String, ExitStatus),
    /// Dependencies are missing where none may be; each was named on stdout.
    Missing(Vec<&'static str>),
    /// The operating system did not supply what every chore needs: its own path, its stdout, a usable `PATH`.
    System(io::Error),
    /// A chore's arguments make no sense.
    Usage(String),
    /// A check failed; the reason is on stdout.
    Refused(String),
    /// A step of a longer chore.
    Step(&'static str, Box<Failure>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(command, reason) => write!(f, "`{command}` could not be started: {reason}"),
            Self::Exit(command, status) => write!(f, "`{command}` failed ({status})"),
            Self::Missing(what) => write!(f, "missing, see the lines above: {}", what.join(", ")),
            Self::System(reason) => write!(f, "system error: {reason}"),
            Self::Usage(reason) | Self::Refused(reason) => f.write_str(reason),
            Self::Step(name, failure) => write!(f, "step {name} failed: {failure}"),
        }
    }
}

/// Whether a missing dependency is a failure.
pub(crate) fn ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// The workspace root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).map(Path::to_path_buf).unwrap_or_default()
}

/// Cargo's target directory, wherever it was configured to be: this program is at `TARGET/PROFILE/xtask`.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let here = env::current_exe().map_err(Failure::System)?;
    here.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::System(io::Error::other(format!("{} has no parent", here.display()))))
}

/// A program that runs in the workspace root. `cargo run` describes the running package in variables that
/// build scripts of other packages would mistake for their own; they are removed.
pub(crate) fn program(name: impl AsRef<Path>) -> Command {
    let mut command = Command::new(name.as_ref());
    command.current_dir(root());
    for variable in env::vars_os().map(|(name, _)| name).filter(describes_package) {
        command.env_remove(variable);
    }
    command
}

fn describes_package(variable: &OsString) -> bool {
    variable.to_str().is_some_and(|name| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
    })
}

/// The cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The path of a program; also searches the folders of system programs that an ordinary `PATH` leaves out.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A chore's options, `--name VALUE` in any order; anything else is [`Failure::Usage`].
pub(crate) fn options<'a, const N: usize>(
    arguments: &[&'a str],
    names: [&str; N],
) -> Result<[Option<&'a str>; N], Failure> {
    let mut values = [None; N];
    for pair in arguments.chunks(2) {
        let &[name, value] = pair else {
            return Err(Failure::Usage(format!("{} needs a value", pair.concat())));
        };
        let (_, room) = names
            .iter()
            .zip(&mut values)
            .find(|(known, _)| **known == name)
            .ok_or_else(|| Failure::Usage(format!("{name:?} is not one of {}", names.join(", "))))?;
        if room.replace(value).is_some() {
            return Err(Failure::Usage(format!("{name} is given twice")));
        }
    }
    Ok(values)
}

/// How chores run programs.
pub(crate) trait Run {
    /// Passes the program's output through; an exit code other than 0 is a failure.
    fn run(&mut self) -> Result<(), Failure>;
    /// Whether the program succeeds: no output, and a missing program counts as failing.
    fn succeeds(&mut self) -> bool;
    /// The program's standard output, trimmed, if it could be run and succeeded.
    fn answer(&mut self) -> Option<String>;
}

impl Run for Command {
    fn run(&mut self) -> Result<(), Failure> {
        let status =
            self.stdin(Stdio::null()).status().map_err(|reason| Failure::Start(line(self), reason))?;
        if status.success() { Ok(()) } else { Err(Failure::Exit(line(self), status)) }
    }

    fn succeeds(&mut self) -> bool {
        self.answer().is_some()
    }

    fn answer(&mut self) -> Option<String> {
        let output = self.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line += &argument.to_string_lossy();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_a_failure_that_names_its_command() {
        let failure = program("/bin/sh").args(["-c", "exit 3"]).run().unwrap_err();
        assert_eq!(failure.to_string(), "`sh -c exit 3` failed (exit status: 3)");
    }

    #[test]
    fn a_program_that_is_absent_is_a_failure_and_answers_nothing() {
        assert!(matches!(program("/no/such/program").run(), Err(Failure::Start(..))));
        assert!(!program("/no/such/program").succeeds());
    }

    #[test]
    fn the_package_that_cargo_runs_is_not_described_to_programs() {
        // Cargo sets CARGO_PKG_NAME for tests as it does for `cargo run`.
        assert!(env::var_os("CARGO_PKG_NAME").is_some());
        assert_eq!(
            program("/bin/sh").args(["-c", "echo \"[$CARGO_PKG_NAME]\""]).answer().as_deref(),
            Some("[]")
        );
    }

    #[test]
    fn options_come_in_any_order_and_nothing_else_comes() {
        let names = ["--board", "--out"];
        assert_eq!(options(&[], names).unwrap(), [None, None]);
        assert_eq!(options(&["--out", "a", "--board", "b"], names).unwrap(), [Some("b"), Some("a")]);
        for wrong in [["--out"].as_slice(), &["b", "c"], &["--out", "a", "--out", "b"]] {
            assert!(matches!(options(wrong, names), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("xtask/src/program.rs").is_file());
    }
}
