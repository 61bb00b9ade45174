//! The sshsm firmware's way onto a board: a UF2 image, copied to the drive that the board's bootloader is.
//!
//! An image that is not whole, or not for the board, is refused before anything is written; so is a drive of another
//! board. What the device keeps in its own part of the flash is not touched by it.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sshsm_protocol::{
    link::{Boot, LinkError},
    ssh::Printable,
};

use crate::{
    output::shown,
    transport::{Transport, TransportError, board, serial::Hello, serial::Serial},
};

/// What every UF2 drive has in its root.
const INFO: &str = "INFO_UF2.TXT";
/// The image's name on the drive; bootloaders take any.
const NAME: &str = "SSHSM.UF2";
/// How often something that is waited for is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// The boards that there is firmware for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    /// Raspberry Pi Pico (RP2040)
    Pico,
    /// Raspberry Pi Pico 2 (RP2350)
    Pico2,
    /// nRF52840 boards like Adafruit's Feather: a UF2 bootloader that came with SoftDevice S140 6
    Nrf52840,
}

impl Board {
    /// The name that its firmware says.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pico => "pico",
            Self::Pico2 => "pico2",
            Self::Nrf52840 => "nrf52840",
        }
    }

    /// The family that its images are marked with: RP2040, RP2350's Arm cores in secure state, nRF52840.
    const fn family(self) -> u32 {
        match self {
            Self::Pico => 0xe48b_ff56,
            Self::Pico2 => 0xe48b_ff59,
            Self::Nrf52840 => 0xada5_2840,
        }
    }

    /// Whether a drive with this `Board-ID` is its bootloader's.
    fn is(self, id: &str) -> bool {
        match self {
            Self::Pico => id == "RPI-RP2",
            Self::Pico2 => id == "RP2350",
            Self::Nrf52840 => id.to_ascii_lowercase().contains("nrf52840"),
        }
    }

    /// Whether its image is linked to start behind what this drive says of the SoftDevice: S140 6 ends at 0x26000, and
    /// S140 7 does not. Bootloaders too old to say it came with S140 6.
    fn starts_behind(self, soft_device: Option<&str>) -> bool {
        self != Self::Nrf52840 || soft_device.is_none_or(|version| version.starts_with("S140 6."))
    }

    /// How its bootloader is started by hand.
    const fn by_hand(self) -> &'static str {
        match self {
            Self::Pico | Self::Pico2 => "hold BOOTSEL while you plug the board in",
            Self::Nrf52840 => "plug the board in and press its reset button twice, quickly",
        }
    }
}

/// Why a board has no new firmware, or does not show it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlashError {
    /// The image is not one.
    #[error("the image is no UF2 file: {0}")]
    NotUf2(&'static str),
    /// The image is for another processor.
    #[error("the image is not for {wanted}: it is of family {found:#010x}, not {family:#010x}", wanted = board.name(), family = board.family())]
    OtherFamily {
        /// The board to be flashed.
        board: Board,
        /// The image's family; 0 when it has none.
        found: u32,
    },
    /// The board at the port is another one.
    #[error("the board at {device} is a {}, not a {}", Printable(found.as_bytes()), board.name())]
    OtherBoard {
        /// Where it is.
        device: String,
        /// What it says it is.
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
    /// The image would overlap the drive's SoftDevice, or never be started.
    #[error(
        "{} has the SoftDevice \"{}\"; the image is linked to start behind S140 6, at 0x26000",
        shown(volume),
        Printable(found.as_bytes())
    )]
    OtherSoftDevice {
        /// The drive.
        volume: PathBuf,
        /// What it says of its SoftDevice.
        found: String,
    },
    /// No drive came.
    #[error("no drive of a {}'s bootloader appeared; mount it, and name it with --volume if it is not found", board.name())]
    NoVolume {
        /// The board to be flashed.
        board: Board,
    },
    /// The image cannot be written.
    #[error("cannot write {}", shown(path))]
    Write {
        /// On the drive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The firmware was copied, and no device came.
    #[error("the image was copied, but no device appeared on a serial port")]
    NoPort {
        /// What was there instead.
        source: TransportError,
    },
    /// A board cannot be talked to.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What is to be done.
#[derive(Debug)]
pub struct Job<'a> {
    /// The board.
    pub board: Board,
    /// The UF2 image.
    pub image: &'a [u8],
    /// Where the bootloader's drive is mounted; without it, it is looked for.
    pub volume: Option<&'a Path>,
    /// The board's serial port; without it, the one board that is plugged in.
    pub port: Option<&'a str>,
    /// How long the drive, and then the port, are waited for.
    pub patience: Duration,
}

impl Job<'_> {
    /// Flashes the board; `say` tells the reader what to do. Returns the port and who is there then.
    ///
    /// # Errors
    /// [`FlashError`]; before the image is copied nothing was changed.
    pub fn run(&self, say: &mut dyn FnMut(&str)) -> Result<(String, Hello), FlashError> {
        check(self.image, self.board)?;
        let volume = match self.find_volume()? {
            Some(volume) => volume,
            None => {
                if !self.start_bootloader()? {
                    say(self.board.by_hand());
                }
                self.wait_for(|| self.find_volume()).ok_or(FlashError::NoVolume { board: self.board })??
            }
        };
        say(&format!("copying {} bytes to {}", self.image.len(), shown(&volume)));
        let path = volume.join(NAME);
        let copied = fs::File::create(&path).and_then(|mut file| {
            file.write_all(self.image)?;
            file.sync_all()
        });
        // A board that has all it needs starts at once, and the drive is gone before the system is done with it.
        if let Err(source) = copied
            && volume.join(INFO).exists()
        {
            return Err(FlashError::Write { path, source });
        }
        self.wait_for_device()
    }

    /// The drive of the board's bootloader, if it is there.
    fn find_volume(&self) -> Result<Option<PathBuf>, FlashError> {
        let found = match self.volume {
            Some(volume) => Drive::read(volume).map(|drive| (volume.to_owned(), drive)),
            None => volumes()
                .into_iter()
                .filter_map(|volume| Drive::read(&volume).map(|drive| (volume, drive)))
                .find(|(_, drive)| self.board.is(&drive.board)),
        };
        let Some((volume, drive)) = found else { return Ok(None) };
        if !self.board.is(&drive.board) {
            return Err(FlashError::OtherVolume { volume, found: drive.board, board: self.board });
        }
        if !self.board.starts_behind(drive.soft_device.as_deref()) {
            let found = drive.soft_device.unwrap_or_default();
            return Err(FlashError::OtherSoftDevice { volume, found });
        }
        Ok(Some(volume))
    }

    /// Has a board that runs start its bootloader; `false` when there is none, or it cannot.
    fn start_bootloader(&self) -> Result<bool, FlashError> {
        let mut serial = match self.port {
            Some(path) => match Serial::open(path) {
                Ok(serial) => serial,
                Err(TransportError::Unreachable { .. } | TransportError::NotADevice { .. }) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            },
            None => match board::only_board() {
                Ok(board) => Serial::open(&board.path)?,
                Err(TransportError::NoBoard | TransportError::Enumeration(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        let found = &serial.hello().board;
        if found != self.board.name() {
            let (device, found) = (serial.describe(), found.clone());
            return match self.port {
                Some(_) => Err(FlashError::OtherBoard { device, found, board: self.board }),
                // One that was not named is not the one that is meant.
                None => Ok(false),
            };
        }
        match serial.reboot(Boot::Bootloader) {
            Ok(()) => Ok(true),
            Err(TransportError::Link { error: LinkError::NoBootloader, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The device that runs the new firmware.
    fn wait_for_device(&self) -> Result<(String, Hello), FlashError> {
        let open = || match self.port {
            Some(path) => Serial::open(path),
            None => board::only_board().and_then(|board| Serial::open(&board.path)),
        };
        let mut last = TransportError::NoBoard;
        let found = self.wait_for(|| match open() {
            Ok(serial) => Ok(Some((serial.describe(), serial.hello().clone()))),
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

/// What a UF2 drive says of itself.
struct Drive {
    board: String,
    soft_device: Option<String>,
}

impl Drive {
    /// Reads the drive that is mounted there; `None` when it is none.
    fn read(volume: &Path) -> Option<Self> {
        let info = crate::input::read_text(&volume.join(INFO)).ok()?;
        let said = |key: &str| {
            info.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
        };
        Some(Self { board: said("Board-ID:")?, soft_device: said("SoftDevice:") })
    }
}

/// Where drives are mounted by desktops: Linux's `/media/DRIVE`, `/media/USER/DRIVE` and `/run/media/USER/DRIVE`, and
/// macOS's `/Volumes/DRIVE`.
fn volumes() -> Vec<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).map_or_else(
            |_| Vec::new(),
            |entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        )
    };
    let mut volumes: Vec<PathBuf> =
        ["/media", "/Volumes"].iter().flat_map(|directory| below(Path::new(directory))).collect();
    for directory in ["/media", "/run/media"] {
        volumes.extend(below(Path::new(directory)).iter().flat_map(|user| below(user)));
    }
    volumes
}

/// Checks that an image is whole and for the board: blocks of 512 bytes, numbered in order, of its family.
///
/// The format is <https://github.com/microsoft/uf2>: three magic numbers, and at 8 the flags, at 20 the block's number,
/// at 24 the number of blocks, at 28 the family, all little-endian.
fn check(image: &[u8], board: Board) -> Result<(), FlashError> {
    const BLOCK: usize = 512;
    const HAS_FAMILY: u32 = 0x2000;
    let (blocks, rest) = image.as_chunks::<BLOCK>();
    if blocks.is_empty() || !rest.is_empty() {
        return Err(FlashError::NotUf2("its length is no multiple of 512 bytes"));
    }
    for (index, block) in blocks.iter().enumerate() {
        let words = block.as_chunks::<4>().0;
        let word = |number: usize| words.get(number).map_or(0, |word| u32::from_le_bytes(*word));
        if (word(0), word(1), word(127)) != (0x0a32_4655, 0x9e5d_5157, 0x0ab1_6f30) {
            return Err(FlashError::NotUf2("a block has other magic numbers"));
        }
        let is = |number: u32, wanted: usize| usize::try_from(number) == Ok(wanted);
        if !is(word(5), index) || !is(word(6), blocks.len()) {
            return Err(FlashError::NotUf2("it is cut short, or its blocks are out of order"));
        }
        let family = if word(2) & HAS_FAMILY == 0 { 0 } else { word(7) };
        if family != board.family() {
            return Err(FlashError::OtherFamily { board, found: family });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(blocks: u32, family: u32) -> Vec<u8> {
        let mut image = Vec::new();
        for number in 0..blocks {
            let mut block = [0; 512];
            for (index, word) in [
                (0, 0x0a32_4655),
                (1, 0x9e5d_5157),
                (2, 0x2000),
                (3, 0x1000_0000 + number * 256),
                (4, 256),
                (5, number),
                (6, blocks),
                (7, family),
                (127, 0x0ab1_6f30_u32),
            ] {
                block[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
            }
            image.extend(block);
        }
        image
    }

    #[test]
    fn a_whole_image_of_the_boards_family_passes() {
        for board in [Board::Pico, Board::Pico2, Board::Nrf52840] {
            check(&image(3, board.family()), board).unwrap();
        }
    }

    #[test]
    fn what_is_cut_short_damaged_or_out_of_order_is_no_image() {
        let whole = image(3, Board::Pico.family());
        let no_uf2 = |image: &[u8]| matches!(check(image, Board::Pico), Err(FlashError::NotUf2(_)));
        assert!(no_uf2(&[]) && no_uf2(&whole[..1024]) && no_uf2(&whole[..1025]) && no_uf2(b"\x7fELF"));
        assert!(no_uf2(&[&whole[512..], &whole[..512]].concat()));
        for byte in [0, 4, 508, 20, 24, 512, 1532] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert!(no_uf2(&damaged), "byte {byte}");
        }
    }

    #[test]
    fn an_image_for_another_processor_is_refused_with_both_families() {
        let error = check(&image(1, Board::Pico.family()), Board::Pico2).unwrap_err().to_string();
        assert!(error.contains("0xe48bff56") && error.contains("0xe48bff59"), "{error}");
        let mut unmarked = image(1, Board::Pico.family());
        unmarked[9] = 0;
        assert!(matches!(check(&unmarked, Board::Pico), Err(FlashError::OtherFamily { found: 0, .. })));
    }

    #[test]
    fn drives_are_known_by_their_board_id() {
        for (id, board) in [
            ("RPI-RP2", Some(Board::Pico)),
            ("RP2350", Some(Board::Pico2)),
            ("nRF52840-Feather-revD", Some(Board::Nrf52840)),
            ("Seeed_XIAO_nRF52840", Some(Board::Nrf52840)),
            ("SAMD21G18A-Feather-v0", None),
        ] {
            let found = [Board::Pico, Board::Pico2, Board::Nrf52840].into_iter().find(|board| board.is(id));
            assert_eq!(found, board, "{id}");
        }
    }
}
