//! The state directory: one device's flash and root key, kept between runs.
//!
//! ```text
//! DIR             locked by the one process that has the device
//! DIR/root.key    the key that the flash is sealed under, 32 bytes; there before the flash
//! DIR/flash.bin   header, then the flash image (big-endian integers)
//!
//! magic "sshsmNOR" | version u16 | flags u16 | serial u32 | word u32 | sector u32 | capacity u32
//!   | SHA-256 of all of the above and the image, 32 bytes | image[capacity]
//! ```
//!
//! A save is atomic: a crash leaves the old contents or the new, never a mixture. Anything other than exactly
//! what a save wrote is refused and not modified; nothing here ever resets or repairs a device.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use sshsm_firmware::platform::RootKey;
use zeroize::Zeroizing;

use crate::flash::{self, Flash};
use crate::platform::RootKeyBytes;

const MAGIC: &[u8; 8] = b"sshsmNOR";
const VERSION: u16 = 2; // 1 had no root key
const PREFIX: usize = 28; // magic … capacity, what the digest covers before the image
const HEADER: usize = PREFIX + 32;
const LARGEST: u32 = 16 * 1024 * 1024; // no board has more flash; bounds what is read into memory
const PREDICTABLE: u16 = 1;

/// Why a state directory cannot be used. The directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has this device.
    #[error("{} is in use by another process: stop that one or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The attempted action, a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory, a symbolic link or a device in place of a regular file.
    #[error("{} is not a plain file: choose another directory", .0.display())]
    NotAFile(PathBuf),
    /// The file was never written by this program, or its first bytes are damaged.
    #[error("{} is not a device state (wrong magic): {ADVICE}", .0.display())]
    Foreign(PathBuf),
    /// Written by another version of this program.
    #[error("{} has state version {found}, this program knows {VERSION}: use the program that wrote it, or {ADVICE}", path.display())]
    Version {
        /// The state file.
        path: PathBuf,
        /// The version it claims.
        found: u16,
    },
    /// Flags that this version does not know.
    #[error("{} has unknown flags {flags:#06x}: use the program that wrote it, or {ADVICE}", path.display())]
    Flags {
        /// The state file.
        path: PathBuf,
        /// All its flags.
        flags: u16,
    },
    /// The flash is of another build than the device's.
    #[error(
        "{} holds flash of {capacity} bytes in sectors of {sector} and words of {word}, which no device has \
         (sectors of 4096, words of 4, at most 16 MiB): {ADVICE}",
        path.display()
    )]
    Geometry {
        /// The state file.
        path: PathBuf,
        /// Bytes in a programming unit.
        word: u32,
        /// Bytes in a sector.
        sector: u32,
        /// Bytes of flash.
        capacity: u32,
    },
    /// Truncated, or something was appended.
    #[error("{} is {found} bytes long and should be {expected}: {ADVICE}", path.display())]
    Size {
        /// The state file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length its header asks for, or that of a header.
        expected: u64,
    },
    /// The contents are not those saved.
    #[error("{} is damaged (its SHA-256 does not match): {ADVICE}", .0.display())]
    Digest(PathBuf),
    /// Without its root key a flash cannot be read.
    #[error("{} is missing, and {} is sealed under it: {ADVICE}", path.display(), flash.display())]
    NoRootKey {
        /// The path of the root key.
        path: PathBuf,
        /// The state file.
        flash: PathBuf,
    },
    /// The file in place of the root key is not a root key.
    #[error("{} is {found} bytes long, and a root key {}: {ADVICE}", path.display(), RootKey::LENGTH)]
    RootKeySize {
        /// The path of the root key.
        path: PathBuf,
        /// The length of the file, in bytes.
        found: u64,
    },
    /// A device keeps its serial number for its lifetime.
    #[error("{} is the device with serial number {stored}, not {asked}: leave the number out or choose another directory", path.display())]
    Serial {
        /// The state file.
        path: PathBuf,
        /// The device's number.
        stored: u32,
        /// The number asked for.
        asked: u32,
    },
}

const ADVICE: &str = "restore it from a backup or choose another directory";

/// The properties that a device is created with and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Birthmark {
    pub(crate) serial: u32,
    /// A seeded generator has served this device at some time: its keys may be known to anyone.
    pub(crate) predictable: bool,
}

/// The contents of a state directory.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) birthmark: Birthmark,
    pub(crate) flash: Flash,
    pub(crate) root_key: RootKeyBytes,
}

/// A locked state directory. The lock lasts as long as the value.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    file: PathBuf,
    key_file: PathBuf,
    _lock: File,
}

impl State {
    /// Creates the directory if it is missing, locks it, and reads the device in it, if there is one.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Option<Saved>), StateError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { action, path, source }
        };
        (DirBuilder::new().recursive(true).mode(0o700).create(directory)).map_err(io("create", directory))?;

        // The directory itself: a file in it could be deleted, and the next process would lock another one.
        let lock = File::open(directory).map_err(io("open", directory))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Locked(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io("lock", directory)(source)),
        }

        let (file, key_file) = (directory.join("flash.bin"), directory.join("root.key"));
        let state = Self { directory: directory.to_owned(), file, key_file, _lock: lock };
        for file in [&state.file, &state.key_file] {
            discard_unfinished(file).map_err(io("remove", &unfinished(file)))?;
        }
        let device = if plain(&state.file)? { Some(state.load()?) } else { None };
        Ok((state, device))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The root key of a new device: an existing one, left by a crash before the first save, or else a new
    /// one, which survives a power cut once this returns.
    pub(crate) fn root_key(&self, new: impl FnOnce() -> RootKeyBytes) -> Result<RootKeyBytes, StateError> {
        if let Some(key) = self.load_root_key()? {
            return Ok(key);
        }
        let key = new();
        self.replace(&self.key_file, &[key.as_slice()])?;
        Ok(key)
    }

    fn load_root_key(&self) -> Result<Option<RootKeyBytes>, StateError> {
        if !plain(&self.key_file)? {
            return Ok(None);
        }
        let path = || self.key_file.clone();
        let failed = |source| StateError::Io { action: "read", path: path(), source };
        let mut file = File::open(&self.key_file).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != RootKey::LENGTH as u64 {
            return Err(StateError::RootKeySize { path: path(), found });
        }
        let mut key = RootKeyBytes::default();
        file.read_exact(key.as_mut_slice()).map_err(failed)?;
        Ok(Some(key))
    }

    fn load(&self) -> Result<Saved, StateError> {
        let path = || self.file.clone();
        let failed = |source| StateError::Io { action: "read", path: path(), source };
        let mut file = File::open(&self.file).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let sized = |expected: u64| match length == expected {
            true => Ok(()),
            false => Err(StateError::Size { path: path(), found: length, expected }),
        };
        if length < HEADER as u64 {
            sized(HEADER as u64)?;
        }
        let mut prefix = [0; PREFIX];
        let mut digest = [0; 32];
        file.read_exact(&mut prefix).map_err(failed)?;
        file.read_exact(&mut digest).map_err(failed)?;

        let [magic @ .., v0, v1, f0, f1, s0, s1, s2, s3, w0, w1, w2, w3, e0, e1, e2, e3, c0, c1, c2, c3] =
            prefix;
        if magic != *MAGIC {
            return Err(StateError::Foreign(path()));
        }
        let found = u16::from_be_bytes([v0, v1]);
        if found != VERSION {
            return Err(StateError::Version { path: path(), found });
        }
        let flags = u16::from_be_bytes([f0, f1]);
        if flags & !PREDICTABLE != 0 {
            return Err(StateError::Flags { path: path(), flags });
        }
        let word = u32::from_be_bytes([w0, w1, w2, w3]);
        let sector = u32::from_be_bytes([e0, e1, e2, e3]);
        let capacity = u32::from_be_bytes([c0, c1, c2, c3]);
        let ours = word as usize == flash::WRITE_SIZE
            && sector as usize == flash::ERASE_SIZE
            && capacity.is_multiple_of(sector)
            && (1..=LARGEST).contains(&capacity);
        if !ours {
            return Err(StateError::Geometry { path: path(), word, sector, capacity });
        }
        sized(HEADER as u64 + u64::from(capacity))?;
        let mut image = Zeroizing::new(vec![0; capacity as usize]);
        file.read_exact(&mut image).map_err(failed)?;
        if seal(&prefix, &image) != digest {
            return Err(StateError::Digest(path()));
        }
        let birthmark =
            Birthmark { serial: u32::from_be_bytes([s0, s1, s2, s3]), predictable: flags & PREDICTABLE != 0 };
        let root_key = self
            .load_root_key()?
            .ok_or_else(|| StateError::NoRootKey { path: self.key_file.clone(), flash: path() })?;
        Ok(Saved { birthmark, flash: Flash::with_image(image), root_key })
    }

    /// Replaces the saved state as a whole; when this returns, it survives a power cut.
    pub(crate) fn save(&self, birthmark: Birthmark, flash: &Flash) -> Result<(), StateError> {
        let image = flash.image();
        let mut prefix = Vec::with_capacity(HEADER);
        prefix.extend_from_slice(MAGIC);
        prefix.extend_from_slice(&VERSION.to_be_bytes());
        prefix.extend_from_slice(&(if birthmark.predictable { PREDICTABLE } else { 0 }).to_be_bytes());
        prefix.extend_from_slice(&birthmark.serial.to_be_bytes());
        for value in [flash::WRITE_SIZE, flash::ERASE_SIZE, image.len()] {
            // None is larger than [`LARGEST`].
            prefix.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
        }
        self.replace(&self.file, &[&prefix, &seal(&prefix, image), image])
    }

    /// Writes a file whole, in the place of the one that is there.
    fn replace(&self, path: &Path, contents: &[&[u8]]) -> Result<(), StateError> {
        self.write(path, contents).map_err(|source| {
            let _ = discard_unfinished(path); // the next start tries again
            StateError::Io { action: "save", path: path.to_owned(), source }
        })
    }

    fn write(&self, path: &Path, contents: &[&[u8]]) -> io::Result<()> {
        // A new file each time: it is private from its first byte, follows no link, and this fails if
        // something else has been put under its name.
        let unfinished = unfinished(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        contents.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// Removes the remains of a save interrupted by a crash; it was never the device's state.
fn discard_unfinished(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(unfinished(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn seal(prefix: &[u8], image: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(prefix).chain_update(image).finalize().into()
}

/// Whether there is a file at `path`; anything else there is an error, a symbolic link included.
fn plain(path: &Path) -> Result<bool, StateError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(StateError::NotAFile(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StateError::Io { action: "look at", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use embedded_storage::nor_flash::NorFlash;

    use super::*;

    const BIRTHMARK: Birthmark = Birthmark { serial: 12_345_678, predictable: true };

    const ROOT_KEY: [u8; 32] = *b"a key of exactly thirty-two byte";

    /// A directory with a saved device, no longer locked.
    fn saved() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (state, device) = State::open(directory.path()).unwrap();
        assert!(device.is_none(), "a new directory holds no device");
        let mut flash = Flash::blank();
        flash.write(4096, b"sixteen bytes...").unwrap();
        assert_eq!(state.root_key(|| ROOT_KEY.into()).unwrap(), ROOT_KEY.into());
        state.save(BIRTHMARK, &flash).unwrap();
        let file = directory.path().join("flash.bin");
        (directory, file)
    }

    fn open(directory: &Path) -> Result<Saved, StateError> {
        State::open(directory).map(|(_, device)| device.unwrap())
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_saved_is_what_is_opened() {
        let (directory, file) = saved();
        let Saved { birthmark, flash, root_key } = open(directory.path()).unwrap();
        assert_eq!((birthmark, *root_key), (BIRTHMARK, ROOT_KEY));
        assert_eq!(&flash.image()[4096..4112], b"sixteen bytes...");
        assert!(!flash.changed());
        assert_eq!(fs::metadata(file).unwrap().len(), (HEADER + flash::CAPACITY) as u64);
    }

    #[test]
    fn no_other_user_may_read_the_directory_or_its_files() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new/device");
        let (state, _) = State::open(&directory).unwrap();
        state.root_key(|| ROOT_KEY.into()).unwrap();
        state.save(BIRTHMARK, &Flash::blank()).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("root.key")), 0o600);
        assert_eq!(mode(&directory.join("flash.bin")), 0o600);
    }

    #[test]
    fn a_device_has_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = State::open(directory.path()).unwrap();
        let refused = State::open(directory.path()).err().unwrap();
        assert!(matches!(&refused, StateError::Locked(path) if path == directory.path()));
        assert!(refused.to_string().contains(&directory.path().display().to_string()));
        drop(first);
        State::open(directory.path()).unwrap();
    }

    #[test]
    fn no_file_in_the_directory_is_the_lock() {
        let (directory, _) = saved();
        fs::write(directory.path().join("lock"), b"of an earlier version").unwrap();
        let first = State::open(directory.path()).unwrap();
        for entry in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert!(matches!(State::open(directory.path()), Err(StateError::Locked(_))));
        drop(first);
    }

    /// Spoils the file, opens it, and shows that the refusal changed nothing.
    fn refuse(spoil: impl FnOnce(&mut Vec<u8>)) -> StateError {
        let (directory, file) = saved();
        let mut bytes = fs::read(&file).unwrap();
        spoil(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert_eq!(fs::read(&file).unwrap(), bytes, "a refused file stays as it was");
        let text = error.to_string();
        assert!(text.contains("flash.bin") && text.contains("choose another directory"), "{text}");
        error
    }

    #[test]
    fn damage_to_each_field_is_refused_with_its_reason() {
        let flip = |index: usize| refuse(move |bytes| bytes[index] ^= 1);
        for index in 0..8 {
            assert!(matches!(flip(index), StateError::Foreign(_)), "magic, byte {index}");
        }
        assert!(matches!(flip(9), StateError::Version { found: 3, .. }));
        assert!(matches!(flip(8), StateError::Version { found: 0x0102, .. }));
        assert!(matches!(flip(10), StateError::Flags { flags: 0x0101, .. }));
        assert!(matches!(flip(11), StateError::Digest(_)), "a flag that exists, but was not set");
        for index in 12..16 {
            assert!(matches!(flip(index), StateError::Digest(_)), "serial, byte {index}");
        }
        assert!(matches!(flip(19), StateError::Geometry { word: 5, .. }));
        assert!(matches!(flip(23), StateError::Geometry { sector: 4097, .. }));
        assert!(
            matches!(flip(24), StateError::Geometry { capacity: 0x0108_0000, .. }),
            "more than any board has"
        );
        assert!(matches!(flip(27), StateError::Geometry { capacity: 0x0008_0001, .. }));
        let larger = refuse(|bytes| bytes[26] ^= 0x10);
        assert!(matches!(larger, StateError::Size { expected: 0x8_103c, .. }), "{larger}");
        for index in [28, 59, 60, HEADER + 4096, HEADER + flash::CAPACITY - 1] {
            assert!(matches!(flip(index), StateError::Digest(_)), "digest or image, byte {index}");
        }
        assert!(matches!(refuse(|bytes| bytes[24..28].fill(0)), StateError::Geometry { capacity: 0, .. }));
    }

    #[test]
    fn a_file_cut_short_or_extended_is_refused() {
        for length in [0, 1, HEADER - 1] {
            let error = refuse(|bytes| bytes.truncate(length));
            assert!(matches!(error, StateError::Size { expected: 60, .. }), "{length}: {error}");
        }
        for length in [HEADER, HEADER + 1, HEADER + flash::CAPACITY - 1, HEADER + flash::CAPACITY + 1] {
            let error = refuse(|bytes| bytes.resize(length, 0xff));
            assert!(matches!(error, StateError::Size { expected: 0x8_003c, .. }), "{length}: {error}");
        }
    }

    #[test]
    fn only_plain_files_are_opened_and_no_link_is_followed() {
        let (directory, file) = saved();
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert!(matches!(open(directory.path()), Err(StateError::NotAFile(path)) if path == file));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(open(directory.path()), Err(StateError::NotAFile(_))));
        assert!(file.is_dir() && elsewhere.is_file());
    }

    #[test]
    fn a_directory_that_is_a_file_is_an_error_that_names_it() {
        let (_directory, file) = saved();
        let error = State::open(&file).err().unwrap();
        assert!(matches!(&error, StateError::Io { path, .. } if *path == file), "{error}");
    }

    #[test]
    fn a_root_key_that_is_missing_or_no_key_is_refused_with_its_reason_and_no_other_is_made() {
        let (directory, file) = saved();
        let key = directory.path().join("root.key");
        for wrong in [&[][..], &[7; 31], &[7; 33]] {
            fs::write(&key, wrong).unwrap();
            let error = open(directory.path()).err().unwrap();
            assert!(
                matches!(error, StateError::RootKeySize { found, .. } if found == wrong.len() as u64),
                "{error}"
            );
            assert!(error.to_string().contains("root.key"), "{error}");
            assert_eq!(fs::read(&key).unwrap(), wrong);
        }
        fs::remove_file(&key).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert!(matches!(error, StateError::NoRootKey { .. }), "{error}");
        assert!(error.to_string().contains("root.key") && error.to_string().contains("flash.bin"), "{error}");
        assert!(!key.exists());

        symlink(&file, &key).unwrap();
        assert!(matches!(open(directory.path()), Err(StateError::NotAFile(path)) if path == key));
    }

    #[test]
    fn a_first_start_that_a_crash_cut_short_goes_on_with_the_root_key_that_it_made() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("root.key.new"), b"half").unwrap();
        let (state, _) = State::open(directory.path()).unwrap();
        assert!(!directory.path().join("root.key.new").exists());
        state.root_key(|| ROOT_KEY.into()).unwrap();
        drop(state);
        let (state, device) = State::open(directory.path()).unwrap();
        assert!(device.is_none());
        assert_eq!(*state.root_key(|| [1; 32].into()).unwrap(), ROOT_KEY);
    }

    #[test]
    fn what_a_crash_left_of_a_save_is_discarded() {
        let (directory, _) = saved();
        let unfinished = directory.path().join("flash.bin.new");
        fs::write(&unfinished, b"half").unwrap();
        assert_eq!(open(directory.path()).unwrap().birthmark, BIRTHMARK);
        assert!(!unfinished.exists());

        let victim = directory.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        symlink(&victim, &unfinished).unwrap();
        let (state, _) = State::open(directory.path()).unwrap();
        assert!(!unfinished.is_symlink());
        state.save(BIRTHMARK, &Flash::blank()).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_save_that_fails_leaves_the_last_one() {
        let (directory, file) = saved();
        let before = fs::read(&file).unwrap();
        let (state, _) = State::open(directory.path()).unwrap();
        let obstacle = directory.path().join("flash.bin.new");
        symlink(directory.path().join("victim"), &obstacle).unwrap();
        let error = state.save(BIRTHMARK, &Flash::blank()).unwrap_err();
        assert!(matches!(&error, StateError::Io { action: "save", path, .. } if *path == file), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
        assert!(!directory.path().join("victim").exists(), "no link is followed");
    }
}
