//! The board `qemu` as a process: the real firmware, in an emulator, behind a pseudo-terminal. A directory
//! holds the device: its flash, root key and serial number outlive the process, however it ends.

use crate::{
    process::{Log, Running, wait_for},
    requirement::{Missing, program},
};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The emulator's arguments, except for image and serial port.
const ARGUMENTS: &str = include_str!("../../firmware/boards/qemu/emulator.args");

/// A running board. It is killed, as if the plug were pulled, when this value is dropped.
pub struct Board {
    port: PathBuf,
    // The emulator checks only once a second whether the port has been opened: this keeps it open.
    _port: File,
    log: Log,
    _process: Running,
}

impl Board {
    /// Starts the device in a directory; an empty one becomes a new device.
    ///
    /// # Errors
    /// [`Missing`] without the emulator or the image.
    ///
    /// # Panics
    /// When the emulator does not report its port.
    pub fn start(device: &Path) -> Result<Self, Missing> {
        Self::start_with(device, &[])
    }

    /// Starts the device like [`Self::start`], with a debugger's port:
    /// [`Debugger::attach`](crate::debugger::Debugger)
    /// finds it in the directory.
    ///
    /// # Errors
    /// [`Missing`] without the emulator or the image.
    ///
    /// # Panics
    /// When the emulator does not report its port.
    pub fn start_debugged(device: &Path) -> Result<Self, Missing> {
        Self::start_with(device, &["-gdb", "unix:debugger,server=on,wait=off"])
    }

    fn start_with(device: &Path, arguments: &[&str]) -> Result<Self, Missing> {
        let emulator = program("qemu-system-arm", "qemu-system-arm")?;
        let image = image()?;
        fs::create_dir_all(device).expect("a device's directory can be made");
        let (log, file) = Log::create(&device.join("emulator.log"));
        let process = Running::spawn(
            Command::new(emulator)
                .current_dir(device)
                .args(ARGUMENTS.split_whitespace())
                .args(arguments)
                .args(["-serial", "pty", "-kernel"])
                .arg(image)
                .stdin(Stdio::null())
                .stdout(file.try_clone().expect("a file can be cloned"))
                .stderr(file),
        );
        // char device redirected to /dev/pts/3 (label serial0)
        let port = wait_for("the emulator's port", || {
            let text = log.text();
            let port = text.split_once("redirected to ")?.1.split_once(' ')?.0;
            Some(PathBuf::from(port))
        });
        let held = File::options().read(true).write(true).open(&port).expect("the port can be opened");
        Ok(Self { port, _port: held, log, _process: process })
    }

    /// The serial port, a pseudo-terminal in raw mode.
    #[must_use]
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// The emulator's output, including panics and faults of the firmware.
    ///
    /// # Panics
    /// When the log is gone.
    #[must_use]
    pub fn said(&self) -> String {
        self.log.text()
    }
}

/// The image that `cargo xtask firmware` wrote next to the target directory's profiles.
fn image() -> Result<PathBuf, Missing> {
    let executable = env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST
    let image = executable.ancestors().nth(3).map(|target| target.join("firmware/qemu.elf"));
    image
        .filter(|image| image.is_file())
        .ok_or_else(|| Missing::new("the image of the board qemu", "cargo xtask firmware --board qemu"))
}
