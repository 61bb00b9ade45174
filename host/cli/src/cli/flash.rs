//! `sshsm flash`: see [`crate::flash`].

use std::{
    env, fs,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgGroup, Args};
use serde::Serialize;
use sshsm_protocol::DeviceError;

use super::{
    Context, board,
    error::{CliError, FileError, PasswordError},
    notice::listener,
};
use crate::{
    flash::{Board, Firmware, Job, Started},
    output,
};
use sshsm_ca::{child, device_address::DeviceAddress};
use sshsm_client::{Client, ClientError};

/// No board has more than 16 MB of flash, and half of a UF2 image is flash contents.
const MAX_IMAGE: u64 = 32 * 1024 * 1024;

/// Arguments of `flash`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["image", "build"])))]
pub(super) struct Flash {
    /// The board
    #[arg(long, value_name = "BOARD")]
    board: Board,
    /// The firmware, as UF2
    #[arg(long, value_name = "FILE.uf2")]
    image: Option<PathBuf>,
    /// Build the firmware: `cargo xtask firmware` in sshsm's source tree, which the current directory is in
    #[arg(long)]
    build: bool,
    /// Where the drive of the board's boot loader is mounted; by default it is searched for
    #[arg(long, value_name = "DIR")]
    volume: Option<PathBuf>,
    /// Do not ask a board to start its boot loader: you start it by hand
    ///
    /// Without this option a board that runs sshsm is asked to. That requires an authentication key that may
    /// reset the device (--auth-key and its password), and a touch of its button.
    #[arg(long)]
    by_hand: bool,
    /// Seconds that the drive, and then the device, are waited for
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    wait: u64,
}

/// What is now on the board, as JSON shows it.
#[derive(Serialize)]
struct Flashed {
    device: String,
    board: String,
    serial: u32,
    firmware: String,
}

impl Flash {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let image = match &self.image {
            Some(path) => read(path)?,
            None => build(self.board)?,
        };
        let port = match context.device()? {
            DeviceAddress::Serial(port) => port.as_deref(),
            _ => None,
        };
        let patience = Duration::from_secs(self.wait);
        let volume = self.volume.as_deref();
        let firmware = Firmware::check(&image, self.board)?;
        let job =
            Job { firmware: &firmware, volume, port, patience, by_hand: self.by_hand, listener: listener() };
        let start = |client| start_boot_loader(context, client);
        let (device, hello) = job.run::<CliError>(&mut |text| output::talk(text), start)?;
        let firmware = board::version(hello.firmware);
        let flashed = Flashed { device, board: hello.board, serial: hello.serial, firmware };
        context.format().print(&flashed, |flashed| {
            format!(
                "device:    {}\nboard:     {}\nserial:    {:010}\nfirmware:  {}\n",
                flashed.device, flashed.board, flashed.serial, flashed.firmware
            )
        })?;
        Ok(())
    }
}

/// Has a board that runs start its boot loader, if it can and this user may.
fn start_boot_loader(context: &Context, mut client: Client) -> Result<Started, CliError> {
    let session = match context.session(&mut client) {
        Err(CliError::Password(PasswordError::None)) => {
            return Ok(Started::ByHand("no password was given, with which the board could be asked"));
        }
        session => session?,
    };
    match session.start_boot_loader() {
        Ok(()) => Ok(Started::Yes),
        Err(ClientError::Device { error: DeviceError::InvalidCommand, .. }) => {
            Ok(Started::ByHand("the firmware on the board knows no command for it"))
        }
        Err(ClientError::Device { error: DeviceError::NothingToTouch, .. }) => {
            Ok(Started::ByHand("this board has no button"))
        }
        Err(ClientError::Device { error: DeviceError::NoBootLoader, .. }) => {
            Ok(Started::ByHand("this board cannot start its boot loader by itself"))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut image = Vec::new();
    let length = fs::File::open(path).and_then(|file| file.take(MAX_IMAGE + 1).read_to_end(&mut image));
    match length {
        Ok(length) if length as u64 > MAX_IMAGE => {
            Err(FileError::read(path, ErrorKind::FileTooLarge.into()).into())
        }
        Ok(_) => Ok(image),
        Err(source) => Err(FileError::read(path, source).into()),
    }
}

/// Refuses a source tree that another user could have written to, or put a file that cargo reads next to: the
/// build runs with this user's rights.
#[cfg(unix)]
fn trust(tree: &Path) -> Result<(), CliError> {
    let tree = tree.canonicalize().map_err(|source| FileError::read(tree, source))?;
    // Folders above are passed through, and what cargo and rustup read in each of them is run as well.
    for folder in tree.ancestors().skip(1) {
        trust_one(folder, true)?;
        for name in [".cargo", ".cargo/config", ".cargo/config.toml", "rust-toolchain", "rust-toolchain.toml"]
        {
            trust_one(&folder.join(name), false)?;
        }
    }
    let mut folders = vec![tree.clone()];
    while let Some(folder) = folders.pop() {
        trust_one(&folder, false)?;
        let entries = fs::read_dir(&folder).map_err(|source| FileError::read(&folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| FileError::read(&folder, source))?;
            let path = entry.path();
            let is_folder = entry.file_type().map_err(|source| FileError::read(&path, source))?.is_dir();
            match is_folder {
                // Their own contents are neither read by cargo as source nor followed.
                true if entry.file_name() == ".git" => {}
                true => folders.push(path),
                false => trust_one(&path, false)?,
            }
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn trust(_: &Path) -> Result<(), CliError> {
    Ok(())
}

/// Refuses a path that belongs to a user other than this one and root, or that others can write to. A
/// directory in which anyone may create files but remove only their own, such as /tmp, is acceptable as a
/// parent.
#[cfg(unix)]
fn trust_one(path: &Path, on_the_way: bool) -> Result<(), CliError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::read(path, error).into()),
    };
    let user = rustix::process::geteuid().as_raw();
    let untrusted = |why: String| {
        CliError::Usage(format!(
            "{} {why}: cargo would run its content with your rights. Build in a source tree of your own, or name an --image",
            output::shown(path)
        ))
    };
    if ![0, user].contains(&metadata.uid()) {
        return Err(untrusted(format!("belongs to user {}", metadata.uid())));
    }
    let (mode, sticky) = (metadata.mode(), metadata.mode() & 0o1000 != 0);
    // A group of the user's own, as many systems make them, is the user.
    let others = if metadata.gid() == user || metadata.gid() == 0 { 0o002 } else { 0o022 };
    if !metadata.is_symlink() && mode & others != 0 && !(on_the_way && sticky) {
        return Err(untrusted(format!("can be written by others (mode {:o})", mode & 0o7777)));
    }
    Ok(())
}

/// Builds the firmware in the source tree around the current directory.
fn build(board: Board) -> Result<Vec<u8>, CliError> {
    let here = env::current_dir().map_err(|source| FileError::read(Path::new("."), source))?;
    let tree = here
        .ancestors()
        .find(|directory| directory.join("xtask/Cargo.toml").is_file() && directory.join("firmware").is_dir())
        .ok_or_else(|| CliError::Usage("--build works inside sshsm's source tree; name an --image".into()))?;
    trust(tree)?;
    let out = tempfile::tempdir().map_err(|source| FileError::write(&env::temp_dir(), source))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = child::command(cargo)
        .args(["xtask", "firmware", "--board", board.name(), "--out"])
        .arg(out.path())
        .current_dir(tree)
        .stdout(io::stderr())
        .status()
        .map_err(|error| CliError::content("cannot start cargo", error))?;
    if !status.success() {
        return Err(CliError::because("the firmware was not built", format!("cargo xtask: {status}")));
    }
    let built = fs::read_dir(out.path())
        .ok()
        .and_then(|entries| {
            let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            paths.find(|path| path.extension().is_some_and(|extension| extension == "uf2"))
        })
        .ok_or_else(|| CliError::because("the firmware was not built", "there is no UF2 image"))?;
    read(&built)
}
