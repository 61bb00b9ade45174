//! Installing the sshsm firmware on a board: a UF2 image, copied to the drive of the board's boot loader.
//!
//! A board that runs sshsm starts its boot loader at the request of a session that may reset it, after a
//! touch; on other boards it is started by hand. An image that is not whole, not for the board, or not
//! sshsm's is refused before anything is written; so is the drive of another board, or of a boot loader that
//! would lose a part of the image. Afterwards the device must report that image as its own. The device's data
//! in flash is not touched.

use std::{
    fs::{self, File, OpenOptions},
    io,
    io::{Read, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use clap::{ValueEnum, builder::PossibleValue};
use sha2::{Digest, Sha256};
use sshsm_boards::{self as boards, Boot, BootLoader, DriveId, Start};
use sshsm_protocol::{device_status::Image, link::Activity, ssh::Printable};

use crate::{output::shown, secure_boot};
use sshsm_client::{
    Client, ClientError, Exchange, ExchangeError, Failure, Kind, Listener, board,
    serial::{Hello, Serial},
};

/// What every UF2 drive has in its root.
const INFO: &str = "INFO_UF2.TXT";
/// The image's name on the drive; boot loaders take any.
const NAME: &str = "SSHSM.UF2";
/// No boot loader's description is longer.
const MAX_INFO: u64 = 4096;
/// How often something that is waited for is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Images that are not firmware but a new boot loader for an nRF52840 (`CFG_UF2_FAMILY_BOOT_ID` of
/// Adafruit_nRF52_Bootloader).
const NRF52_BOOT_LOADER: u32 = 0xd663_823c;

/// A board that firmware is copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    row: &'static boards::Board,
    boot_loader: &'static BootLoader,
}

/// Those that there are, for the command line.
static BOARDS: LazyLock<Vec<Board>> =
    LazyLock::new(|| boards::BOARDS.into_iter().filter_map(Board::of).collect());

impl ValueEnum for Board {
    fn value_variants<'a>() -> &'a [Self] {
        &BOARDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.row.name).help(self.row.title))
    }
}

impl Board {
    /// Raspberry Pi Pico 2, whose images its owner can sign.
    pub(crate) const PICO2: Self = match Self::of(&boards::PICO2) {
        Some(board) => board,
        None => panic!("firmware is copied to it"),
    };

    /// The board of this row; `None` for one that no firmware is copied to.
    pub(crate) const fn of(row: &'static boards::Board) -> Option<Self> {
        match &row.boot {
            Boot::Emulator => None,
            Boot::Uf2(boot_loader) => Some(Self { row, boot_loader }),
        }
    }

    /// The name that its firmware reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row.name
    }

    /// The family that its images are marked with.
    pub(crate) const fn family(self) -> u32 {
        self.boot_loader.family
    }

    /// The region of its flash for the image, which contains none of the device's data.
    fn image_region(self) -> Range<u32> {
        self.row.memory.image.clone()
    }

    /// Whether a drive with this `Board-ID` is its boot loader's.
    fn is(self, id: &str) -> bool {
        match self.boot_loader.id {
            DriveId::Is(own) => id == own,
            DriveId::Contains(part) => id.to_ascii_lowercase().contains(part),
        }
    }

    /// Whether its image is linked to start after the SoftDevice that this drive reports. Boot loaders too
    /// old to report it came with the right one.
    fn starts_behind(self, soft_device: Option<&str>) -> bool {
        match self.boot_loader.start {
            Start::Boot2 | Start::Block => true,
            Start::Behind(version) => soft_device.is_none_or(|found| found.starts_with(version)),
        }
    }
}

/// Why a board has no new firmware, or does not show it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlashError {
    /// The image is not one.
    #[error("the image is not a UF2 file: {0}")]
    NotUf2(&'static str),
    /// The image is for another processor.
    #[error("the image is not for {wanted}: it is of family {found:#010x}, not {family:#010x}", wanted = board.name(), family = board.family())]
    OtherFamily {
        /// The board to be flashed.
        board: Board,
        /// The image's family; 0 when it has none.
        found: u32,
    },
    /// The image is a boot loader.
    #[error("the image is a new boot loader, not firmware")]
    BootLoaderImage,
    /// The image would overwrite flash outside its region.
    #[error("the image writes to {address:#010x}, outside of the flash that a {}'s image may have", board.name())]
    OutOfRegion {
        /// The board to be flashed.
        board: Board,
        /// The address of a block.
        address: u32,
    },
    /// The image does not identify itself.
    #[error(
        "the image does not say that it is sshsm: it was not built by `cargo xtask firmware`, or by an old one"
    )]
    NoMark,
    /// The image is marked for another board.
    #[error("the image is marked as sshsm for {}, not for {}", Printable(found.as_bytes()), board.name())]
    OtherMark {
        /// The board to be flashed.
        board: Board,
        /// The board that the image names.
        found: String,
    },
    /// The board at the port is another one.
    #[error("the board at {device} is a {}, not a {}", Printable(found.as_bytes()), board.name())]
    OtherBoard {
        /// The device's address.
        device: String,
        /// The board that it reports.
        found: String,
        /// The board to be flashed.
        board: Board,
    },
    /// The drive is another board's.
    #[error("{} is the drive of a {}, not of a {}", shown(volume), Printable(found.as_bytes()), board.name())]
    OtherVolume {
        /// The drive.
        volume: PathBuf,
        /// The board that it names.
        found: String,
        /// The board to be flashed.
        board: Board,
    },
    /// Several drives are boot loaders of such a board.
    #[error("several drives are boot loaders of a {}: {}", board.name(), listed(volumes))]
    ManyVolumes {
        /// The board to be flashed.
        board: Board,
        /// The drives.
        volumes: Vec<PathBuf>,
    },
    /// The image would overlap the drive's SoftDevice, or never be started.
    #[error(
        "{} has the SoftDevice \"{}\"; the image is linked to start after S140 6, at 0x26000",
        shown(volume),
        Printable(found.as_bytes())
    )]
    OtherSoftDevice {
        /// The drive.
        volume: PathBuf,
        /// The SoftDevice that it reports.
        found: String,
    },
    /// The boot loader would leave out the end of the image.
    #[error(
        "{} is the drive of boot loader \"{}\"; those before {} leave out the end of the image, and the board does not start",
        shown(volume),
        Printable(found.as_bytes()),
        dotted(*oldest)
    )]
    OldBootLoader {
        /// The drive.
        volume: PathBuf,
        /// The version that it reports.
        found: String,
        /// The oldest that works.
        oldest: [u32; 3],
    },
    /// No drive came.
    #[error("no drive of a {}'s boot loader appeared; mount it, and name it with --volume if it is not found", board.name())]
    NoVolume {
        /// The board to be flashed.
        board: Board,
    },
    /// The image cannot be written.
    #[error("cannot write {}", shown(path))]
    Write {
        /// On the drive.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something other than a regular file exists where the image is to be written.
    #[error("{} is not a file; nothing was written", shown(.0))]
    NotAFile(PathBuf),
    /// The firmware was copied, and no device came.
    #[error("the image was copied, but no device appeared on a serial port")]
    NoPort {
        /// The error in place of an answer.
        source: ExchangeError,
    },
    /// The device runs a different image from the one copied.
    #[error("the image was copied, but the device at {device} reports that it runs {found}, not {wanted}")]
    OtherImage {
        /// The device's address.
        device: String,
        /// The image that it reports.
        found: String,
        /// The image.
        wanted: String,
    },
    /// A board cannot be talked to.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A board does not identify itself.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Failure for FlashError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoVolume { .. } | Self::NoPort { .. } | Self::OtherBoard { .. } => Kind::Device,
            Self::NotAFile(_) => Kind::File,
            Self::Write { source, .. } => source.into(),
            Self::Exchange(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::NotUf2(_)
            | Self::OtherFamily { .. }
            | Self::BootLoaderImage
            | Self::OutOfRegion { .. }
            | Self::NoMark
            | Self::OtherMark { .. }
            | Self::OtherVolume { .. }
            | Self::ManyVolumes { .. }
            | Self::OtherSoftDevice { .. }
            | Self::OldBootLoader { .. }
            | Self::OtherImage { .. } => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::ManyVolumes { .. } => "unplug the others, or name the one with --volume",
            Self::OldBootLoader { .. } => "update the boot loader first; docs/boards.md says how",
            Self::BootLoaderImage => "copy it to the drive by hand; docs/boards.md has the precautions",
            Self::OtherImage { .. } => {
                "start the boot loader by hand and flash again; --by-hand asks no board"
            }
            Self::Exchange(error) => return error.help(),
            Self::Client(error) => return error.help(),
            Self::NotUf2(_)
            | Self::OtherFamily { .. }
            | Self::OutOfRegion { .. }
            | Self::NoMark
            | Self::OtherMark { .. }
            | Self::OtherBoard { .. }
            | Self::OtherVolume { .. }
            | Self::OtherSoftDevice { .. }
            | Self::NoVolume { .. }
            | Self::Write { .. }
            | Self::NotAFile(_)
            | Self::NoPort { .. } => return None,
        })
    }
}

fn listed(volumes: &[PathBuf]) -> String {
    volumes.iter().map(|volume| shown(volume).to_string()).collect::<Vec<_>>().join(", ")
}

fn dotted(version: [u32; 3]) -> String {
    version.map(|number| number.to_string()).join(".")
}

/// Firmware for a board: a UF2 image that was checked.
#[derive(Debug)]
pub struct Firmware<'a> {
    board: Board,
    uf2: &'a [u8],
    /// The flash contents, from the first byte on; the last page is padded with zeros.
    content: Vec<u8>,
    version: String,
}

impl<'a> Firmware<'a> {
    /// Checks that an image is whole, for the board and sshsm's: blocks of 512 bytes, numbered in order, of
    /// its family, with 256 bytes each for consecutive addresses, inside the region for images; and that they
    /// contain the mark.
    ///
    /// The format is <https://github.com/microsoft/uf2>: three magic numbers, and at 8 the flags, at 12 the address, at
    /// 16 the length, at 20 the block's number, at 24 the number of blocks, at 28 the family, all little-endian.
    ///
    /// # Errors
    /// [`FlashError`], which says what is wrong with it.
    pub fn check(uf2: &'a [u8], board: Board) -> Result<Self, FlashError> {
        const BLOCK: usize = 512;
        const PAYLOAD: u32 = 256;
        const FLAGS: u32 = 0x2000;
        let (blocks, rest) = uf2.as_chunks::<BLOCK>();
        if blocks.is_empty() || !rest.is_empty() {
            return Err(FlashError::NotUf2("its length is not a multiple of 512 bytes"));
        }
        let region = board.image_region();
        let mut content = Vec::with_capacity(uf2.len() / 2);
        let mut next = None;
        for (index, block) in blocks.iter().enumerate() {
            let (words, _) = block.as_chunks::<4>();
            let word = |number: usize| words.get(number).map_or(0, |word| u32::from_le_bytes(*word));
            if (word(0), word(1), word(127)) != (0x0a32_4655, 0x9e5d_5157, 0x0ab1_6f30) {
                return Err(FlashError::NotUf2("a block has other magic numbers"));
            }
            let is = |number: u32, wanted: usize| usize::try_from(number) == Ok(wanted);
            if !is(word(5), index) || !is(word(6), blocks.len()) {
                return Err(FlashError::NotUf2("it is truncated, or its blocks are out of order"));
            }
            let family = if word(2) & FLAGS == 0 { 0 } else { word(7) };
            if family == NRF52_BOOT_LOADER {
                return Err(FlashError::BootLoaderImage);
            }
            if family != board.family() {
                return Err(FlashError::OtherFamily { board, found: family });
            }
            let address = word(3);
            if word(2) != FLAGS || word(4) != PAYLOAD || next.is_some_and(|next| next != address) {
                return Err(FlashError::NotUf2(
                    "its blocks are not 256 bytes each for consecutive addresses",
                ));
            }
            let end = address.checked_add(PAYLOAD).filter(|end| *end <= region.end);
            let Some(end) = end.filter(|_| address >= region.start && (index > 0 || address == region.start))
            else {
                return Err(FlashError::OutOfRegion { board, address });
            };
            next = Some(end);
            content.extend(block.iter().skip(32).take(256));
        }
        let (named, version) = mark(&content).ok_or(FlashError::NoMark)?;
        if named != board.name() {
            return Err(FlashError::OtherMark { board, found: named });
        }
        Ok(Self { board, uf2, content, version })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The flash contents, from the first byte on.
    pub(crate) fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// Whether it is the image that a device reports: only zeros of the last page, and its owner's signature,
    /// may be missing.
    pub(crate) fn is(&self, image: &Image) -> bool {
        let length = usize::try_from(image.length).unwrap_or(usize::MAX);
        let unsigned = secure_boot::Image::without_signature(&self.content);
        let Some((image_bytes, filling)) = unsigned.split_at_checked(length) else { return false };
        filling.len() < 256
            && filling.iter().all(|byte| *byte == 0)
            && *Sha256::digest(image_bytes) == image.sha256
    }
}

/// An image's description of itself: its board and version. It contains `sshsm image: board BOARD, version
/// VERSION, dialect DIALECT` and a zero once.
fn mark(content: &[u8]) -> Option<(String, String)> {
    const MARK: &[u8] = b"sshsm image: board ";
    let mut found = content
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .filter_map(|(at, _)| content.get(at + MARK.len()..))
        .filter_map(|rest| {
            let (text, _) = rest.split_at_checked(rest.iter().take(96).position(|byte| *byte == 0)?)?;
            let (board, rest) = str::from_utf8(text).ok()?.split_once(", version ")?;
            let (version, _) = rest.split_once(", dialect ")?;
            Some((board.to_owned(), version.to_owned()))
        });
    let mark = found.next()?;
    found.all(|other| other == mark).then_some(mark)
}

/// What came of asking a board to start its boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It starts.
    Yes,
    /// It cannot be asked, or cannot do it; why. It has to be started by hand.
    ByHand(&'static str),
}

/// The task.
#[derive(Debug)]
pub struct Job<'a> {
    /// The firmware.
    pub firmware: &'a Firmware<'a>,
    /// Where the boot loader's drive is mounted; by default it is searched for.
    pub volume: Option<&'a Path>,
    /// The board's serial port; without it, the one board that is plugged in.
    pub port: Option<&'a str>,
    /// How long the drive, and then the port, are waited for.
    pub patience: Duration,
    /// Ask no board to start its boot loader.
    pub by_hand: bool,
    /// Receives what the board waits for.
    pub listener: Listener,
}

impl Job<'_> {
    /// Flashes the board; `say` tells the user what to do, and `start` opens a session with a running board,
    /// and makes it start its boot loader. Returns the port and the device found there: one that reports this
    /// image as its own.
    ///
    /// # Errors
    /// [`FlashError`], or the error of `start`; nothing is changed before the image is copied.
    pub fn run<E: From<FlashError>>(
        &self,
        say: &mut dyn FnMut(&str),
        start: impl FnOnce(Client) -> Result<Started, E>,
    ) -> Result<(String, Hello), E> {
        let board = self.firmware.board;
        let volume = match self.find_volume()? {
            Some(volume) => volume,
            None => {
                let started = match self.find_board()? {
                    Ok(client) => start(client)?,
                    Err(by_hand) => by_hand,
                };
                if let Started::ByHand(reason) = started {
                    say(&format!("{reason}: {}", board.boot_loader.by_hand));
                }
                self.wait_for(|| self.find_volume()).ok_or(FlashError::NoVolume { board })??
            }
        };
        say(&format!("copying {} bytes to {}", self.firmware.uf2.len(), shown(&volume)));
        self.copy(&volume)?;
        Ok(self.wait_for_device()?)
    }

    /// Writes the image to the drive, to a file of its own and through no link.
    fn copy(&self, volume: &Path) -> Result<(), FlashError> {
        let path = volume.join(NAME);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(FlashError::NotAFile(path));
        }
        let copied = no_follow(File::options().write(true).create(true).truncate(true)).open(&path).and_then(
            |mut file| {
                file.write_all(self.firmware.uf2)?;
                file.sync_all()
            },
        );
        match copied {
            // A board that has everything it needs starts at once, and its drive disappears before the system
            // has finished with it.
            Err(source) if volume.join(INFO).exists() => Err(FlashError::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// The drive of the board's boot loader, if it is there.
    fn find_volume(&self) -> Result<Option<PathBuf>, FlashError> {
        let board = self.firmware.board;
        let found = match self.volume {
            Some(volume) => Drive::read(volume).map(|drive| (volume.to_owned(), drive)),
            None => only_drive(board, volumes())?,
        };
        let Some((volume, drive)) = found else { return Ok(None) };
        if !board.is(&drive.board) {
            return Err(FlashError::OtherVolume { volume, found: drive.board, board });
        }
        if let Some(oldest) = board.boot_loader.oldest
            && drive.version().is_none_or(|version| version < oldest)
        {
            return Err(FlashError::OldBootLoader { volume, found: drive.boot_loader, oldest });
        }
        if !board.starts_behind(drive.soft_device.as_deref()) {
            let found = drive.soft_device.unwrap_or_default();
            return Err(FlashError::OtherSoftDevice { volume, found });
        }
        Ok(Some(volume))
    }

    /// The board that runs sshsm and can be asked to start its boot loader; why there is none, otherwise.
    fn find_board(&self) -> Result<Result<Client, Started>, FlashError> {
        const NONE: Started =
            Started::ByHand("no board was found that could start its boot loader by itself");
        if self.by_hand {
            return Ok(Err(Started::ByHand("start the boot loader")));
        }
        let mut serial = match self.port {
            Some(path) => match Serial::open(path, self.listener.clone()) {
                Ok(serial) => serial,
                Err(ExchangeError::Unreachable { .. } | ExchangeError::NotADevice { .. }) => {
                    return Ok(Err(NONE));
                }
                Err(error) => return Err(error.into()),
            },
            None => match board::only_board() {
                Ok(board) => Serial::open(&board.path, self.listener.clone())?,
                Err(ExchangeError::NoBoard | ExchangeError::Enumeration(_)) => return Ok(Err(NONE)),
                Err(error) => return Err(error.into()),
            },
        };
        let board = self.firmware.board;
        let found = &serial.hello().board;
        if found != board.name() {
            let (device, found) = (serial.describe(), found.clone());
            return match self.port {
                Some(_) => Err(FlashError::OtherBoard { device, found, board }),
                // One that was not named is not the one that is meant.
                None => Ok(Err(NONE)),
            };
        }
        if serial.status()?.activity == Activity::Failed {
            return Ok(Err(Started::ByHand("the device failed (`sshsm device log` says why)")));
        }
        Ok(Ok(Client::connect(Box::new(serial), self.listener.clone())?))
    }

    /// The device that runs the new firmware.
    fn wait_for_device(&self) -> Result<(String, Hello), FlashError> {
        let open = || match self.port {
            Some(path) => Serial::open(path, self.listener.clone()),
            None => board::only_board().and_then(|board| Serial::open(&board.path, self.listener.clone())),
        };
        let mut last = ExchangeError::NoBoard;
        let found = self.wait_for(|| match open().and_then(|mut serial| Ok((serial.image()?, serial))) {
            Ok((image, serial)) => {
                let hello = serial.hello();
                let version = hello.firmware.map(|number| number.to_string()).join(".");
                let other = |what: &str, found: String, wanted: &str| FlashError::OtherImage {
                    device: serial.describe(),
                    found: format!("{what} {}", Printable(found.as_bytes())),
                    wanted: wanted.to_owned(),
                };
                if hello.board != self.firmware.board.name() {
                    return Err(other("board", hello.board.clone(), self.firmware.board.name()));
                }
                if version != self.firmware.version {
                    return Err(other("version", version, &self.firmware.version));
                }
                match image {
                    // Its hash is not computed yet.
                    None => {
                        last = ExchangeError::NotADevice {
                            path: serial.describe(),
                            reason: "it does not report which image it runs",
                        };
                        Ok(None)
                    }
                    Some(image) if self.firmware.is(&image) => Ok(Some((serial.describe(), hello.clone()))),
                    Some(image) => Err(other(
                        "the image with SHA-256",
                        hexadecimal(&image.sha256),
                        "the one that was copied",
                    )),
                }
            }
            Err(error) => {
                last = error;
                Ok(None)
            }
        });
        found.ok_or(FlashError::NoPort { source: last })?
    }

    /// Looks until something is there, or an error, or it is too late.
    fn wait_for<T>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, FlashError>,
    ) -> Option<Result<T, FlashError>> {
        let begin = Instant::now();
        loop {
            if let Some(found) = look().transpose() {
                return Some(found);
            }
            if begin.elapsed() >= self.patience {
                return None;
            }
            thread::sleep(LOOK);
        }
    }
}

/// Bytes as people compare them.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens the named file, without following a symbolic link.
fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

/// The description of a UF2 drive.
struct Drive {
    board: String,
    soft_device: Option<String>,
    /// The first line, after the words that all have: `0.6.1 lib/nrfx …`, `v3.0`.
    boot_loader: String,
}

impl Drive {
    /// Reads the drive that is mounted there; `None` when it is none.
    fn read(volume: &Path) -> Option<Self> {
        let path = volume.join(INFO);
        if !fs::symlink_metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut info = String::new();
        no_follow(File::options().read(true))
            .open(path)
            .ok()?
            .take(MAX_INFO)
            .read_to_string(&mut info)
            .ok()?;
        let said = |key: &str| {
            info.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
        };
        Some(Self {
            board: said("Board-ID:")?,
            soft_device: said("SoftDevice:"),
            boot_loader: said("UF2 Bootloader").unwrap_or_default(),
        })
    }

    /// The boot loader's version, if it consists of three numbers; `0.6.1-2-gabc` comes after 0.6.1.
    fn version(&self) -> Option<[u32; 3]> {
        let word = self.boot_loader.split_whitespace().next()?;
        let mut numbers = word.split('-').next()?.split('.').map(|number| number.parse().ok());
        let version = [numbers.next()??, numbers.next()??, numbers.next()??];
        numbers.next().is_none().then_some(version)
    }
}

/// The one drive of this board's boot loader among those that are mounted.
fn only_drive(board: Board, volumes: Vec<PathBuf>) -> Result<Option<(PathBuf, Drive)>, FlashError> {
    let mut found: Vec<(PathBuf, Drive)> = volumes
        .into_iter()
        .filter_map(|volume| Drive::read(&volume).map(|drive| (volume, drive)))
        .filter(|(_, drive)| board.is(&drive.board))
        .collect();
    if found.len() > 1 {
        let volumes = found.into_iter().map(|(volume, _)| volume).collect();
        return Err(FlashError::ManyVolumes { board, volumes });
    }
    Ok(found.pop())
}

/// Where desktops mount drives: Linux's `/media/DRIVE`, `/media/USER/DRIVE` and `/run/media/USER/DRIVE`, and
/// macOS's `/Volumes/DRIVE`. Directories, not links to directories.
fn volumes() -> Vec<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|entry| entry.path()).collect()
    };
    let mut volumes: Vec<PathBuf> =
        ["/media", "/Volumes"].iter().flat_map(|directory| below(Path::new(directory))).collect();
    for directory in ["/media", "/run/media"] {
        volumes.extend(below(Path::new(directory)).iter().flat_map(|user| below(user)));
    }
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICO: Board = Board::of(&boards::PICO).unwrap();
    const PICO2: Board = Board::of(&boards::PICO2).unwrap();
    const NRF52840: Board = Board::of(&boards::NRF52840).unwrap();
    const BOARDS: [Board; 3] = [PICO, PICO2, NRF52840];

    fn block(number: u32, total: u32, family: u32, address: u32, payload: &[u8]) -> Vec<u8> {
        let mut block = [0; 512];
        for (index, word) in [
            (0, 0x0a32_4655),
            (1, 0x9e5d_5157),
            (2, 0x2000),
            (3, address),
            (4, 256),
            (5, number),
            (6, total),
            (7, family),
            (127, 0x0ab1_6f30_u32),
        ] {
            block[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        block[32..32 + payload.len()].copy_from_slice(payload);
        block.to_vec()
    }

    /// Blocks from `address` on; the second has the mark of a board's image.
    fn image_at(blocks: u32, board: Board, named: &str, address: u32) -> Vec<u8> {
        let mark = format!("..sshsm image: board {named}, version 1.2.3, dialect extended");
        let payload = |number| if number == 1 { mark.as_bytes() } else { &[7; 9] };
        (0..blocks)
            .flat_map(|number| block(number, blocks, board.family(), address + number * 256, payload(number)))
            .collect()
    }

    fn image(board: Board) -> Vec<u8> {
        image_at(3, board, board.name(), board.image_region().start)
    }

    fn refused(uf2: &[u8], board: Board) -> FlashError {
        Firmware::check(uf2, board).unwrap_err()
    }

    #[test]
    fn a_whole_image_that_says_it_is_the_boards_passes() {
        for board in BOARDS {
            assert_eq!(Firmware::check(&image(board), board).unwrap().version(), "1.2.3");
        }
    }

    #[test]
    fn what_is_cut_short_damaged_or_out_of_order_is_no_image() {
        let whole = image(PICO);
        let no_uf2 = |image: &[u8]| matches!(refused(image, PICO), FlashError::NotUf2(_));
        assert!(no_uf2(&[]) && no_uf2(&whole[..1024]) && no_uf2(&whole[..1025]) && no_uf2(b"\x7fELF"));
        assert!(no_uf2(&[&whole[512..], &whole[..512]].concat()));
        // Magic numbers, numbers of blocks, additional flags, an odd length, a second block with a different
        // address.
        for byte in [0, 4, 508, 20, 24, 8, 16, 512 + 13, 512, 1532] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert!(no_uf2(&damaged), "byte {byte}");
        }
    }

    #[test]
    fn an_image_for_another_processor_is_refused_with_both_families() {
        let error = refused(&image(PICO), PICO2).to_string();
        assert!(error.contains("0xe48bff56") && error.contains("0xe48bff59"), "{error}");
        let mut unmarked = image(PICO);
        unmarked[9] = 0;
        assert!(matches!(refused(&unmarked, PICO), FlashError::OtherFamily { found: 0, .. }));
    }

    #[test]
    fn an_image_that_would_write_where_the_device_keeps_its_keys_or_below_itself_is_refused() {
        for board in BOARDS {
            let region = board.image_region();
            let fits = image_at(2, board, board.name(), region.start);
            Firmware::check(&fits, board).unwrap();
            let whole = (region.end - region.start) / 256;
            Firmware::check(&image_at(whole, board, board.name(), region.start), board).unwrap();
            for (blocks, start, at) in [
                (whole + 1, region.start, region.end),
                (2, region.start - 256, region.start - 256),
                (2, region.start + 256, region.start + 256),
                (2, region.end, region.end),
                (2, 0, 0),
                (1, 0xffff_ff00, 0xffff_ff00),
            ] {
                let error = refused(&image_at(blocks, board, board.name(), start), board);
                assert!(matches!(error, FlashError::OutOfRegion { address, .. } if address == at), "{error}");
            }
        }
    }

    #[test]
    fn an_image_that_is_not_sshsm_or_says_that_it_is_another_boards_is_refused() {
        let unmarked = image_at(1, PICO, "pico", 0x1000_0000);
        assert!(matches!(refused(&unmarked, PICO), FlashError::NoMark));
        let other = image_at(2, PICO, "pico3", 0x1000_0000);
        let error = refused(&other, PICO).to_string();
        assert!(error.contains("sshsm for pico3, not for pico"), "{error}");
        // Two marks that contradict each other are none.
        let both = [
            &b"sshsm image: board pico, version 1.2.3, dialect x\0"[..],
            b"sshsm image: board pico2, version 1, dialect x\0",
        ];
        assert_eq!(mark(&both.concat()), None);
        assert_eq!(mark(&[both[0], both[0]].concat()).unwrap(), ("pico".into(), "1.2.3".into()));
    }

    #[test]
    fn a_new_boot_loader_for_an_nrf52840_is_not_firmware() {
        let update = block(0, 1, NRF52_BOOT_LOADER, 0xf_4000, &[]);
        let error = refused(&update, NRF52840);
        assert!(matches!(error, FlashError::BootLoaderImage), "{error}");
    }

    #[test]
    fn what_a_device_says_it_runs_is_the_image_but_for_zeros_at_its_end() {
        let uf2 = image(PICO);
        let firmware = Firmware::check(&uf2, PICO).unwrap();
        let says = |length: usize| Image {
            sha256: Sha256::digest(&firmware.content[..length]).into(),
            length: u32::try_from(length).unwrap(),
        };
        assert!(firmware.is(&says(768)) && firmware.is(&says(600)));
        assert!(!firmware.is(&says(512)), "a whole page less");
        assert!(!firmware.is(&says(515)), "bytes that are not zero");
        assert!(!firmware.is(&Image { length: 1000, ..says(768) }), "more than there is");
        assert!(!firmware.is(&Image { sha256: [0; 32], length: 768 }));
    }

    #[test]
    fn the_flash_that_images_may_have_is_what_their_linker_scripts_give_them() {
        let number = |hex: &str| u32::from_str_radix(hex.strip_prefix("0x").unwrap(), 16).unwrap();
        for board in BOARDS {
            let script = boards::LinkerScript(board.row).to_string();
            let region = |name: &str| {
                let line = script.lines().find(|line| line.trim().starts_with(&format!("{name} ")))?;
                let (origin, length) = line.split_once("ORIGIN = ")?.1.split_once(", LENGTH = ")?;
                Some((number(origin), number(length)))
            };
            let (start, length) = region("FLASH").unwrap();
            let end = start + length;
            let start = region("BOOT2").map_or(start, |(start, _)| start);
            assert_eq!(board.image_region(), start..end, "{}", board.name());
        }
    }

    #[test]
    fn drives_are_known_by_their_board_id() {
        for (id, board) in [
            ("RPI-RP2", Some(PICO)),
            ("RP2350", Some(PICO2)),
            ("nRF52840-Feather-revD", Some(NRF52840)),
            ("Seeed_XIAO_nRF52840", Some(NRF52840)),
            ("SAMD21G18A-Feather-v0", None),
        ] {
            let found = BOARDS.into_iter().find(|board| board.is(id));
            assert_eq!(found, board, "{id}");
        }
    }

    fn drive(directory: &Path, name: &str, first: &str) -> PathBuf {
        let volume = directory.join(name);
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join(INFO), format!("{first}\r\nBoard-ID: RP2350\r\n")).unwrap();
        volume
    }

    #[test]
    fn several_drives_of_the_board_are_an_error_that_names_them_and_others_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let one = drive(directory.path(), "one", "UF2 Bootloader v1.0");
        let nothing = directory.path().join("none");
        let (found, _) = only_drive(PICO2, vec![nothing.clone(), one.clone()]).unwrap().unwrap();
        assert_eq!(found, one);
        assert!(only_drive(PICO, vec![one.clone()]).unwrap().is_none());
        let two = drive(directory.path(), "two", "UF2 Bootloader v1.0");
        let error = only_drive(PICO2, vec![one.clone(), nothing, two]).err().unwrap().to_string();
        assert!(error.contains("one, ") && error.contains("two"), "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn a_drive_that_is_said_to_be_one_through_a_link_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let real = drive(directory.path(), "real", "UF2 Bootloader v1.0");
        let linked = directory.path().join("linked");
        fs::create_dir(&linked).unwrap();
        std::os::unix::fs::symlink(real.join(INFO), linked.join(INFO)).unwrap();
        assert!(Drive::read(&real).is_some() && Drive::read(&linked).is_none());
    }

    #[test]
    fn a_boot_loaders_version_is_read_where_it_is_three_numbers() {
        let directory = tempfile::tempdir().unwrap();
        for (number, (first, version)) in [
            ("UF2 Bootloader 0.6.1 lib/nrfx (v2.0.0) lib/tinyusb (0.9)", Some([0, 6, 1])),
            ("UF2 Bootloader 0.10.0-2-g0123abc-dirty", Some([0, 10, 0])),
            ("UF2 Bootloader v3.0", None),
            ("UF2 Bootloader 0.6", None),
            ("UF2 Bootloader 0.6.1.2", None),
            ("", None),
        ]
        .into_iter()
        .enumerate()
        {
            let volume = drive(directory.path(), &number.to_string(), first);
            assert_eq!(Drive::read(&volume).unwrap().version(), version, "{first}");
        }
    }
}
