//! The board `pico` as a process: the real UF2 on an emulated Pico (`tests/pico`), enumerated over emulated USB, behind a
//! pseudo-terminal. A directory is the device: its flash outlives the process, however it ends.

use crate::{
    process::{Log, Running, wait_for},
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

/// A running Pico. It is killed, as if the plug were pulled, when this value is dropped.
pub struct Pico {
    port: PathBuf,
    device: PathBuf,
    // With nobody at the other end, reading the pseudo-terminal is an error: somebody always is.
    _port: File,
    log: Log,
    process: Running,
}

impl Pico {
    /// Starts the device in a directory; an empty one becomes a new device. Returns once the host has enumerated it.
    ///
    /// # Errors
    /// [`Missing`] without the emulator or the image.
    ///
    /// # Panics
    /// When the device does not enumerate.
    pub fn start(device: &Path) -> Result<Self, Missing> {
        let node = program("node", "nodejs")?;
        let emulator = emulator()?;
        let image = image("pico.uf2")?;
        fs::create_dir_all(device).expect("a device's directory can be made");
        let (log, file) = Log::create(&device.join("emulator.log"));
        let mut process = Running::spawn(
            Command::new(node)
                // Its dependencies are where it is linked from, not where it is.
                .args(["--preserve-symlinks", "--preserve-symlinks-main"])
                .args([&emulator, &image, device])
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
        let mut pico = Self { port, device: device.to_path_buf(), _port: held, log, process };
        pico.wait_for("usb ", 1);
        Ok(pico)
    }

    /// The serial port, a pseudo-terminal in raw mode.
    #[must_use]
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// Holds BOOTSEL down, or no longer does.
    ///
    /// # Panics
    /// When the device's directory is gone.
    pub fn press(&self, down: bool) {
        let button = self.device.join("button");
        if down { File::create(button).map(drop) } else { fs::remove_file(button) }.expect("a button");
    }

    /// Waits until the emulator has said so many lines that begin with `what`, and returns the last of them.
    ///
    /// # Panics
    /// When it ends before, with all that it said.
    pub fn wait_for(&mut self, what: &str, times: usize) -> String {
        wait_for(what, || {
            let ended = self.process.ended();
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(what)).collect();
            assert!(ended.is_none() || lines.len() >= times, "the Pico ended: {ended:?}\n{text}");
            (lines.len() >= times).then(|| lines.last().copied().unwrap_or_default().to_owned())
        })
    }

    /// What the emulator said.
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

/// The emulator's program, where the test set-up installs its dependencies or where `SSHSM_TEST_PICO` says.
fn emulator() -> Result<PathBuf, Missing> {
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

/// An image that `cargo xtask firmware` wrote beside the target directory's profiles.
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
