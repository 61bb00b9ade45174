//! Programs that run to their end and programs that run alongside the test. The first are stopped after
//! [`PATIENCE`], the second end with the value that holds them; both keep their output for the report.

use std::{
    fmt,
    fs::{self, File},
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before the test gives up. Generous: a loaded machine is not a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks at `condition` until it yields something.
///
/// # Panics
/// When [`PATIENCE`] is over, naming `what` was waited for.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, condition)
}

fn wait_within<T>(patience: Duration, what: &str, condition: impl FnMut() -> Option<T>) -> T {
    watch(patience, condition).unwrap_or_else(|| panic!("waited {patience:?} in vain for {what}"))
}

fn watch<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= patience {
            return None;
        }
        thread::sleep(GLANCE);
    }
}

/// A program that has ended.
pub struct Finished {
    /// The command line, for reports.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts exit code 0.
    ///
    /// # Panics
    /// On any other, with all of the program's output.
    #[must_use]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `command` to its end, without a terminal or an input.
///
/// # Panics
/// When it cannot be started or outlasts [`PATIENCE`].
pub fn run(command: &mut Command) -> Finished {
    run_within(PATIENCE, command)
}

/// Like [`run`], for programs that take longer.
///
/// # Panics
/// When it cannot be started or takes longer than that.
pub fn run_within(patience: Duration, command: &mut Command) -> Finished {
    let shown = format!("{command:?}");
    run_for(patience, command).unwrap_or_else(|| panic!("waited {patience:?} in vain for {shown}"))
}

/// Runs `command`, and kills it after `patience`; `None` then.
///
/// # Panics
/// When it cannot be started.
pub fn run_for(patience: Duration, command: &mut Command) -> Option<Finished> {
    let shown = format!("{command:?}");
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut child = Running::spawn(
        command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap()),
    );
    let status = watch(patience, || child.ended())?;
    Some(Finished { command: shown, status, stdout: contents(&mut stdout), stderr: contents(&mut stderr) })
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs alongside the test and is killed when the value is dropped.
pub struct Running(Child);

impl Running {
    /// Starts `command`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be waited for")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended on its own; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that a running program logs to.
pub struct Log(PathBuf);

impl Log {
    /// A log at `path`, and the file to give to the program.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn create(path: &Path) -> (Self, File) {
        (Self(path.to_path_buf()), File::create(path).unwrap())
    }

    /// Everything logged so far.
    ///
    /// # Panics
    /// When the file is gone.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap()).into_owned()
    }
}
