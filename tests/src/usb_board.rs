//! The boards with a USB port, each as a process: the real UF2 in an emulator (`tests/pico` for the Pico,
//! `tests/boards` for the others), enumerated over emulated USB, behind a pseudo-terminal. A directory holds
//! the device: its flash outlives the process, however it ends.

use crate::{
    process::{Log, Running, wait_for},
    python::emulator_python,
    requirement::{Missing, program, workspace},
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// The variable that makes tests of boards try everything they can, which takes minutes: `cargo xtask boards
/// --all`.
const THOROUGH: &str = "SSHSM_TEST_THOROUGH";

/// What a test runs through: the first in everyday runs, the second in those that may take minutes.
#[must_use]
pub fn thoroughly<T>(everyday: T, thorough: T) -> T {
    if env::var_os(THOROUGH).is_some() { thorough } else { everyday }
}

/// A board that the firmware is built for and that has a USB port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Raspberry Pi Pico, RP2040.
    Pico,
    /// Raspberry Pi Pico 2, RP2350.
    Pico2,
    /// Adafruit Feather nRF52840 Express.
    Nrf52840,
}

impl Board {
    /// Its name, which is also its image's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pico => "pico",
            Self::Pico2 => "pico2",
            Self::Nrf52840 => "nrf52840",
        }
    }

    /// Its emulator, without image and directory.
    fn emulator(self) -> Result<Command, Missing> {
        if self == Self::Pico {
            let mut command = Command::new(program("node", "nodejs")?);
            // Its dependencies are where it is linked from, not where it is.
            command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(pico_emulator()?);
            return Ok(command);
        }
        let mut command = Command::new(emulator_python()?);
        command.arg("-B").arg(workspace().join("tests/boards/main.py")).arg(self.name());
        Ok(command)
    }
}

/// A running board. It is killed, as if the plug were pulled, when this value is dropped.
pub struct UsbBoard {
    port: PathBuf,
    device: PathBuf,
    // Reading a pseudo-terminal whose other end is closed is an error: this keeps it open.
    _port: File,
    log: Log,
    process: Running,
}

impl UsbBoard {
    /// Starts the device in a directory; an empty one becomes a new device. Returns once the host has enumerated it.
    ///
    /// # Errors
    /// [`Missing`] without the emulator or the image.
    ///
    /// # Panics
    /// When the device does not enumerate.
    pub fn start(board: Board, device: &Path) -> Result<Self, Missing> {
        let mut started = Self::start_with(board, device, &[])?;
        started.wait_for("usb ", 1);
        Ok(started)
    }

    /// Like [`start`](Self::start), with options of the emulator, whose `main` explains them; returns at
    /// once.
    ///
    /// # Errors
    /// [`Missing`] without the emulator or the image.
    ///
    /// # Panics
    /// When the emulator cannot be started.
    pub fn start_with(board: Board, device: &Path, options: &[&str]) -> Result<Self, Missing> {
        let mut emulator = board.emulator()?;
        let image = image(&format!("{}.uf2", board.name()))?;
        fs::create_dir_all(device).expect("a device's directory can be made");
        let (log, file) = Log::create(&device.join("emulator.log"));
        let mut process = Running::spawn(
            emulator
                .args([&image, device])
                .args(options)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(file),
        );
        let (ours, port) = pseudo_terminal();
        let held = File::options().read(true).write(true).open(&port).expect("the port can be opened");
        raw(&held);
        let child = process.child();
        let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take());
        let mut reader = ours.try_clone().expect("a file can be cloned");
        let mut writer = ours;
        // Each ends with the emulator.
        thread::spawn(move || stdin.as_mut().map(|stdin| io::copy(&mut reader, stdin)));
        thread::spawn(move || stdout.as_mut().map(|stdout| io::copy(stdout, &mut writer)));
        Ok(Self { port, device: device.to_path_buf(), _port: held, log, process })
    }

    /// The serial port, a pseudo-terminal in raw mode.
    #[must_use]
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// When the light turned on and off so far: microseconds of the device's own time, and whether it turned
    /// on.
    ///
    /// # Panics
    /// When the device's directory is gone.
    #[must_use]
    pub fn light(&self) -> Vec<(u64, bool)> {
        let text = fs::read_to_string(self.device.join("light")).expect("the light's log");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                let (time, state) = line.split_once(' ').expect("a time and a state");
                (time.parse().expect("microseconds"), state == "on")
            })
            .collect()
    }

    /// Moves the stack pointer to the end of the stack, as calls nested too deep would. Not on a Pico, whose
    /// emulator does not model faults.
    ///
    /// # Panics
    /// When the device's directory is gone.
    pub fn overflow_stack(&self) {
        File::create(self.device.join("overflow")).expect("a device's directory");
    }

    /// Holds the button down, or no longer does.
    ///
    /// # Panics
    /// When the device's directory is gone.
    pub fn press(&self, down: bool) {
        let button = self.device.join("button");
        if down { File::create(button).map(drop) } else { fs::remove_file(button) }.expect("a button");
    }

    /// Waits until the emulator has printed this many lines that begin with `what`, and returns the last of
    /// them.
    ///
    /// # Panics
    /// When it ends before, with all of its output.
    pub fn wait_for(&mut self, what: &str, times: usize) -> String {
        wait_for(what, || {
            let ended = self.process.ended();
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(what)).collect();
            assert!(ended.is_none() || lines.len() >= times, "the board ended: {ended:?}\n{text}");
            (lines.len() >= times).then(|| lines.last().copied().unwrap_or_default().to_owned())
        })
    }

    /// Waits until the emulator prints a line that begins with `what`, or ends without one.
    pub fn says(&mut self, what: &str) -> bool {
        wait_for(what, || {
            let ended = self.process.ended().is_some();
            let said = self.log.text().lines().any(|line| line.starts_with(what));
            (said || ended).then_some(said)
        })
    }

    /// The emulator's output.
    ///
    /// # Panics
    /// When the log is gone.
    #[must_use]
    pub fn said(&self) -> String {
        self.log.text()
    }
}

/// A pseudo-terminal's two ends: ours, and the other's path.
fn pseudo_terminal() -> (File, PathBuf) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&ours).expect("it can be granted");
    unlockpt(&ours).expect("it can be unlocked");
    let name = ptsname(&ours, Vec::new()).expect("it has a name");
    (File::from(ours), PathBuf::from(OsString::from_vec(name.into_bytes())))
}

fn raw(terminal: &File) {
    let mut attributes = tcgetattr(terminal).expect("a terminal has attributes");
    attributes.make_raw();
    tcsetattr(terminal, OptionalActions::Now, &attributes).expect("they can be set");
}

/// The Pico's emulator, where the test set-up installs its dependencies or in the folder in
/// `SSHSM_TEST_PICO`.
fn pico_emulator() -> Result<PathBuf, Missing> {
    let folder = env::var_os("SSHSM_TEST_PICO")
        .map_or_else(|| workspace().join("target/pico-emulator"), PathBuf::from);
    let ready = folder.join("node_modules/rp2040js").is_dir();
    let program = folder.join("emulator/main.mjs");
    if ready && program.is_file() {
        Ok(program)
    } else {
        Err(Missing::new(format!("the Pico's emulator in {}", folder.display()), "cargo xtask setup"))
    }
}

/// An image that `cargo xtask firmware` wrote next to the target directory's profiles.
///
/// # Errors
/// [`Missing`] before it was built.
///
/// # Panics
/// When the test's own path is unknown.
pub fn image(name: &str) -> Result<PathBuf, Missing> {
    let executable = env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST
    let image = executable.ancestors().nth(3).map(|target| target.join("firmware").join(name));
    image
        .filter(|image| image.is_file())
        .ok_or_else(|| Missing::new(format!("the image {name}"), "cargo xtask firmware"))
}
